"""Cut an area out of an image: a box, or what another image shows, on its grid."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from napari_semsr.core import (
    Area,
    Box,
    Grid,
    InputRecord,
    Job,
    Micrograph,
    OptionError,
    Options,
    Progress,
    ShapeError,
    gap_free_box,
    to_dtype,
    warn,
)
from napari_semsr.io import ReadOptions, TypedSize
from napari_semsr.jobs.images import (
    Existing,
    Image,
    Result,
    as_guide,
    check_apart,
    check_seen,
    check_tiled_target,
    jsonable,
    made_by,
    name_of,
    open_image,
    paths_of,
    record_input,
    write_area,
)
from napari_semsr.registration import Shift, find_shift

Where = str | os.PathLike[str]

_CELLS = 2048  # along each side of the coarse mask in which gaps are looked for
_BLOCK = 1024  # pixels along each side of what is read at once
_WINDOW = 2048  # pixels along each side of the middle in which a shift is looked for
_FARTHEST = 100.0  # one pixel is at most so many times as large as the other

Corners = tuple[float, float, float, float]


class CropOptions(Options):
    """An area, and what is done to bring two images onto it."""

    box: tuple[int, int, int, int] | None = Field(
        default=None,
        description="first row, first column, and the row and column after the last, "
        "in pixels of the image",
    )
    box_nm: Corners | None = Field(
        default=None,
        description="the same as places in nm, where the image's origin counts",
    )
    align: bool = Field(
        default=False,
        description="find by how much the image lies off the reference, and move it",
    )
    search: int = Field(
        default=32,
        ge=1,
        le=2048,
        description="largest shift that is looked for, in pixels of the reference",
    )
    gap_free: bool = Field(
        default=False,
        description="shrink the area to a rectangle in which no pixel is empty",
    )
    like_pixel_size_nm: TypedSize = Field(
        default=None,
        description="pixel size of the reference in nm, one number or Y,X; overrides "
        "the file's",
    )
    dtype: Literal["uint8", "uint16", "float32"] | None = Field(
        default=None,
        description="type of the output, rounded and clipped; the image's own, or "
        "float32 where it is resampled",
    )

    @model_validator(mode="after")
    def _one_area(self) -> Self:
        """Refuse two areas, and areas without a pixel."""
        if self.box is not None and self.box_nm is not None:
            msg = "An area is given once: box or box_nm, not both"
            raise ValueError(msg)
        corners = self.box or self.box_nm
        if corners and not (corners[0] < corners[2] and corners[1] < corners[3]):
            msg = (
                "A box is Y0 X0 Y1 X1 with Y0 below Y1 and X0 below X1, got "
                f"{' '.join(f'{v:g}' for v in corners)}"
            )
            raise ValueError(msg)
        return self


@dataclass(frozen=True, slots=True)
class Cropped(Result):
    """What was cut, and where it lies.

    Attributes
    ----------
    output : str
        Path of the file or store.
    like_output : str or None
        Path of the same area of the reference.
    shape : tuple of int
        Rows and columns.
    dtype : str
        Type of the grey values in the output.
    pixel_size_nm : tuple of float or None
        ``(y, x)``; None when unknown.
    pixel_size_sd_nm : tuple of float or None
        Its standard deviation; None where no calibration told it.
    origin : tuple of float
        Centre of the first pixel ``(y, x)``, in nm when calibrated.
    area : tuple of int
        ``(y0, x0, y1, x1)`` in pixels of the reference, or of the image without one.
    resampled : bool
        Whether grey values were interpolated.
    shift_px, shift_nm : tuple of float or None
        ``(y, x)`` by which the image was moved; None where that was not asked for.
    shift_error_px : float or None
        Standard error of the shift.
    quarters : int or None
        Quarters of the field, of four, that find this shift by themselves.
    runner_up : float or None
        How well the next best shift fits, over the best.
    correlation : float or None
        Of both images, band-passed, when moved; negative for inverted contrast.
    clipped : int
        Pixels that had no place in the type of the output.
    """

    output: str
    like_output: str | None
    shape: tuple[int, int]
    dtype: str
    pixel_size_nm: tuple[float, float] | None
    pixel_size_sd_nm: tuple[float, float] | None
    origin: tuple[float, float]
    area: tuple[int, int, int, int]
    resampled: bool
    shift_px: tuple[float, float] | None
    shift_nm: tuple[float, float] | None
    shift_error_px: float | None
    quarters: int | None
    runner_up: float | None
    correlation: float | None
    clipped: int = 0


@dataclass(frozen=True, slots=True)
class _CropPlan:
    """What is cut, and what of."""

    area: Area  # Pixels of the result
    box: Box  # The same in pixels of the reference, or of the image itself without one
    reference: Area | None = None  # The same area of the reference
    # By how much the image was moved, where that was looked for
    shift: Shift | None = None

    @property
    def shift_nm(self) -> tuple[float, float] | None:
        """Shift ``(y, x)`` in nm; None where none was looked for."""
        if self.shift is None:
            return None
        y, x = self.shift.shift_px
        down, right = self.area.grid.pitch
        return y * down, x * right


@dataclass(frozen=True, slots=True)
class _Cut:
    """A plan, and the records of its outputs."""

    plan: _CropPlan
    about: Micrograph
    reference: Micrograph | None


def crop_job(
    image: Image,
    output: Where,
    *,
    like: Image | None = None,
    like_output: Where | None = None,
    options: CropOptions | None = None,
    opening: ReadOptions | None = None,
    overwrite: bool = False,
    resume: bool = False,
    keep: bool = False,
) -> Job[Cropped]:
    """Cut an area out of an image and write it.

    Parameters
    ----------
    image : Micrograph or path
        What is cut.
    output : path
        Ends in ``.ome.zarr``, ``.ome.tif``, ``.tif`` or ``.png``.
    like : Micrograph or path, optional
        A reference, onto whose grid the image is brought where both overlap.
    like_output : path, optional
        Receives the same area of the reference.
    options : CropOptions, optional
        A box in place of a reference; shift, gaps, type.
    opening : ReadOptions, optional
        How to read the image.
    overwrite : bool, default=False
        Replace existing outputs.
    resume : bool, default=False
        Go on with outputs that were interrupted.
    keep : bool, default=False
        Keep what is finished when the run fails or is stopped, to be resumed.

    Returns
    -------
    Cropped
        What was written.

    Yields
    ------
    Progress
        Searching, writing.

    Raises
    ------
    ReadError, WriteError, OptionError, ShapeError, RegistrationError
        If images cannot be read or have nothing in common, no shift can be believed,
        or an output cannot be made.
    """
    yield Progress(0, 0, "checking")
    chosen = options or CropOptions()
    inputs = paths_of(image, like)
    existing = Existing(overwrite, resume, keep)
    check = partial(
        check_tiled_target, inputs=inputs, overwrite=overwrite, resume=resume
    )
    target = check(output)
    beside = None
    if like_output is not None:
        beside = check(like_output)
        check_apart(target, beside)
    cut = yield from _prepare(image, like, chosen, opening, both=beside is not None)
    plan = cut.plan
    dtype = np.dtype(chosen.dtype or plan.area.dtype)
    written = yield from write_area(
        plan.area, cut.about, target, dtype, existing=existing
    )
    if beside is not None and plan.reference is not None and cut.reference is not None:
        kept = plan.reference
        yield from write_area(
            kept, cut.reference, beside, kept.dtype, existing=existing
        )
    return Cropped(
        output=str(target),
        like_output=None if beside is None else str(beside),
        shape=plan.area.grid.shape,
        dtype=written.dtype,
        pixel_size_nm=cut.about.pixel_size_nm,
        pixel_size_sd_nm=cut.about.pixel_size_sd_nm,
        origin=cut.about.origin,
        clipped=written.told,
        **_facts(plan),
    )


def crop_in_memory(
    image: Image,
    *,
    like: Image | None = None,
    options: CropOptions | None = None,
    opening: ReadOptions | None = None,
) -> Job[Micrograph]:
    """Cut an area out of an image, and keep it in memory.

    Parameters
    ----------
    image : Micrograph or path
        What is cut.
    like : Micrograph or path, optional
        A reference, onto whose grid the image is brought where both overlap.
    options : CropOptions, optional
        A box in place of a reference; shift, gaps, type.
    opening : ReadOptions, optional
        How to read the image.

    Returns
    -------
    Micrograph
        With its history; ``metadata["crop"]`` tells area and shift.

    Yields
    ------
    Progress
        Searching, cutting.
    """
    chosen = options or CropOptions()
    cut = yield from _prepare(image, like, chosen, opening, both=False)
    yield Progress(0, 0, "cutting")
    data = cut.plan.area.read()
    if chosen.dtype is not None:
        data, _ = to_dtype(data, chosen.dtype)
    about = {**cut.about.metadata, "crop": jsonable(_facts(cut.plan))}
    return cut.about.replace(data=np.array(data), metadata=about)


def cut_gaps(*images: Micrograph) -> Job[tuple[tuple[Micrograph, ...], Box | None]]:
    """Cut images of one shape to the largest rectangle in which all have grey values.

    Parameters
    ----------
    *images : Micrograph
        Images whose pixels lie over each other; NaN marks a gap.

    Returns
    -------
    tuple of Micrograph
        The parts, each where it lies; the images themselves where nothing is missing.
    Box or None
        The rectangle in their pixels; None where nothing was cut off.

    Yields
    ------
    Progress
        Looking for gaps.

    Raises
    ------
    ShapeError
        If no pixel has grey values in all of them.
    """
    areas = [Area.of(image, Grid.of(image)) for image in images]
    box = yield from find_gap_free(areas)
    if box is None:
        msg = f"No part of {' and '.join(i.name for i in images)} is free of gaps."
        raise ShapeError(msg)
    if box.shape == images[0].shape:
        return images, None
    cut = (
        image.replace(data=area.part(box).read(), origin=area.grid.centre(box))
        for image, area in zip(images, areas, strict=True)
    )
    return tuple(cut), box


def _prepare(
    image: Image,
    like: Image | None,
    options: CropOptions,
    opening: ReadOptions | None,
    *,
    both: bool,
) -> Job[_Cut]:
    """Open images, choose the area, and say what is made of them."""
    yield Progress(0, 0, f"reading {name_of(image)}")
    source = open_image(image, opening)
    if not options.gap_free:  # which tells in its own words what has no grey values
        check_seen(source, "to crop")
    record = yield from record_input(image, source, opening)
    if like is None:
        if both:
            msg = "An area of a reference needs a reference: give --like as well."
            raise OptionError(msg)
        plan = yield from _plan_box(_called(source, image), options)
        return _Cut(plan, _about(source, plan.area, record, options, opening), None)
    reading = ReadOptions(pixel_size_nm=options.like_pixel_size_nm)
    reference = open_image(like, reading)
    called = _called(reference, like)
    plan = yield from _plan_common(_called(source, image), called, options)
    kept = yield from record_input(like, reference, reading, role="image")
    # no input: two images do not share a source by where one of them lies
    more = {"like": kept.name, "like_digest": kept.digest, **_facts(plan)}
    about = _about(source, plan.area, record, options, opening, more, kept)
    if plan.reference is None:
        return _Cut(plan, about, None)
    if not both and plan.box.shape != reference.shape:
        _tell_part(plan, called)
    box = options.replace(box=_corners(plan.box), align=False, gap_free=False)
    beside = _about(reference, plan.reference, kept, box, reading)
    return _Cut(plan, about, beside)


def _called(opened: Micrograph, image: Image) -> Micrograph:
    """Call an image as the user does: parts of one image share the name inside."""
    return opened.replace(name=name_of(image))


def _about(
    source: Micrograph,
    area: Area,
    record: InputRecord,
    options: CropOptions,
    opening: ReadOptions | None,
    more: dict[str, Any] | None = None,
    like: InputRecord | None = None,
) -> Micrograph:
    """Name, calibration and history of what is cut; the data are not looked at."""
    reading = (opening or ReadOptions()).model_dump(mode="json")
    said = {**options.model_dump(mode="json"), "reading": reading, **(more or {})}
    rows, columns = area.grid.shape
    origin = area.grid.centre(Box.of((rows, columns)))
    pitch = area.grid.pitch
    size = {"pixel_size_nm": pitch} if source.pixel_size_nm else {"spacing_px": pitch}
    guides = () if like is None else (as_guide(like, "like"),)
    return source.replace(
        origin=origin,
        provenance=made_by("crop", jsonable(said), record, guides=guides),
        **size,
    )


def _facts(plan: _CropPlan) -> dict[str, Any]:
    """Say where an area lies, and how that was found."""
    shift = plan.shift
    return {
        "area": _corners(plan.box),
        "resampled": plan.area.is_resampled,
        "shift_px": shift and shift.shift_px,
        "shift_nm": plan.shift_nm,
        "shift_error_px": shift and shift.error_px,
        "quarters": shift and shift.quarters,
        "runner_up": shift and shift.runner_up,
        "correlation": shift and shift.correlation,
    }


def _corners(box: Box) -> tuple[int, int, int, int]:
    """Corners of a box as a user types them."""
    return box.y0, box.x0, box.y1, box.x1


def _tell_part(plan: _CropPlan, reference: Micrograph) -> None:
    """Say that the reference shows more than the result."""
    box = plan.box
    warn(
        f"The result is rows {box.y0} to {box.y1}, columns {box.x0} to {box.x1} of "
        f"{reference.name}: write that part of it with --like-out to compare the two.",
    )


# Which area is cut: a box, or what two images show in common.


def _plan_box(image: Micrograph, options: CropOptions) -> Job[_CropPlan]:
    """Cut a box out of an image, or what is free of gaps, on its own grid."""
    _check_alone(options)
    grid = Grid.of(image)
    if options.box_nm is None:
        y0, x0, y1, x1 = options.box or (0, 0, *image.shape)
        asked = Box(y0, y1, x0, x1)
    else:
        if image.pixel_size_nm is None:
            msg = (
                f"A box in nm needs a pixel size, but {image.name} has none: give "
                "--pixel-size-nm, or the box in pixels."
            )
            raise ShapeError(msg)
        y, x, below, beyond = options.box_nm
        asked = grid.nearest((y, x), (below, beyond))
        if 0 in asked.shape:
            msg = (
                f"The box holds no pixel of {image.name}, whose pixels are "
                f"{_sides(grid.pitch)} nm: make it larger."
            )
            raise ShapeError(msg)
    rows, columns = image.shape
    inside = asked.intersection(Box.of(image.shape))
    if min(inside.shape) < 1:
        where = f"{rows} x {columns} px" if options.box else _extent(grid)
        msg = f"The box does not overlap {image.name}, which covers {where}."
        raise ShapeError(msg)
    if inside != asked:
        warn(
            f"The box reaches over the border of {image.name}, and was cut to rows "
            f"{inside.y0} to {inside.y1}, columns {inside.x0} to {inside.x1}.",
        )
    plan = _CropPlan(Area.of(image, grid).part(inside), inside)
    return (yield from _without_gaps(plan)) if options.gap_free else plan


def _plan_common(
    image: Micrograph, reference: Micrograph, options: CropOptions
) -> Job[_CropPlan]:
    """Find what two images show in common, on the reference's grid."""
    if options.box or options.box_nm:
        msg = "An area is a box or that of a reference (--like), not both."
        raise OptionError(msg)
    _check_search(options)
    target, source = _grids(image, reference)
    box = _common(image, reference, target, source)
    shift = None
    if options.align:
        yield Progress(0, 0, "finding the shift")
        shift = _find(image, reference, box, source, options.search)
        y, x = shift.shift_px
        source = source.moved((y * target.pitch[0], x * target.pitch[1]))
        box = _common(image, reference, target, source)
    whole = Area.of(reference, target)
    part = whole.part(box)
    plan = _CropPlan(Area.of(image, part.grid, source), box, part, shift)
    return (yield from _without_gaps(plan)) if options.gap_free else plan


def _check_alone(options: CropOptions) -> None:
    """Refuse to cut without an area, and what only a reference gives a sense."""
    if options.like_pixel_size_nm is not None:
        msg = (
            "The pixel size of a reference needs a reference: give --like REFERENCE "
            "as well, or --pixel-size-nm for the image."
        )
        raise OptionError(msg)
    if not (options.box or options.box_nm or options.gap_free):
        msg = "An area is needed: --like REFERENCE, --box, --box-nm or --gap-free."
        raise OptionError(msg)
    if options.align:
        msg = "A shift is found against a reference: give --like REFERENCE as well."
        raise OptionError(msg)
    _check_search(options)


def _check_search(options: CropOptions) -> None:
    """Refuse to be told how far to search where no shift is looked for."""
    usual = CropOptions.model_fields["search"].default
    if options.search != usual and not options.align:
        msg = "A search for the shift is only made with --align: give it as well."
        raise OptionError(msg)


def _grids(image: Micrograph, reference: Micrograph) -> tuple[Grid, Grid]:
    """Grids of the reference and of the image in one plane, in nm."""
    for one, flag in ((image, "--pixel-size-nm"), (reference, "--like-pixel-size-nm")):
        if one.pixel_size_nm is None:
            msg = (
                "Two images are brought together by their pixel sizes, but "
                f"{one.name} has none: give {flag}, or Open mosaic in napari."
            )
            raise ShapeError(msg)
    target, source = Grid.of(reference), Grid.of(image)
    ratio = [a / b for a, b in zip(target.pitch, source.pitch, strict=True)]
    if not all(1 / _FARTHEST <= value <= _FARTHEST for value in ratio):
        msg = (
            f"Pixels of {image.name} and {reference.name} must be of like size, got "
            f"{_sides(source.pitch)} and {_sides(target.pitch)} nm: check both."
        )
        raise ShapeError(msg)
    placed = image.origin != (0.0, 0.0) or reference.origin != (0.0, 0.0)
    if not placed and source.pitch != target.pitch:
        warn(
            f"Neither {image.name} nor {reference.name} says where it lies, so their "
            "outer corners are taken to coincide.",
        )
        source = Grid(source.shape, source.pitch, target.corner)
    return target, source


def _common(
    image: Micrograph, reference: Micrograph, target: Grid, source: Grid
) -> Box:
    """Pixels of the reference that the image covers."""
    box = target.covered_by(source)
    if box is None:
        msg = (
            f"The two images do not overlap: {image.name} covers {_extent(source)} and "
            f"{reference.name} {_extent(target)}; check origins and pixel sizes."
        )
        raise ShapeError(msg)
    return box


def _find(
    image: Micrograph, reference: Micrograph, box: Box, source: Grid, search: int
) -> Shift:
    """Search for the shift in the middle of what is in common."""
    high, wide = (min(n, _WINDOW) for n in box.shape)
    aside = (box.shape[0] - high) // 2, (box.shape[1] - wide) // 2
    window = Box.of((high, wide), aside).moved(box.corner)
    fixed = Area.of(reference, Grid.of(reference)).part(window)
    moving = Area.of(image, fixed.grid, source)
    _tell_networks(image, reference)
    found = find_shift(fixed.read(), moving.read(), reach=search)
    if found.is_ambiguous:
        warn(
            f"Another shift fits nearly as well ({found.runner_up:.2f} of the best), "
            "as on a lattice: compare the images, or search less far (--search).",
        )
    return found


def _tell_networks(*images: Micrograph) -> None:
    """Say that a network can move what it draws, which no quarter shows."""
    made = [one.name for one in images if one.provenance and one.provenance.networks()]
    if made:
        warn(
            f"The shift is found with {' and '.join(made)}, made by a network that can "
            "move all details alike, so it can be off by more than its standard error: "
            "find it with the image before the network.",
        )


def _without_gaps(plan: _CropPlan) -> Job[_CropPlan]:
    """Shrink a plan to where all its images have grey values."""
    areas = [plan.area, *([plan.reference] if plan.reference else [])]
    inner = yield from find_gap_free(areas)
    if inner is None:
        msg = (
            f"{plan.area.image.name} has no grey values in the area, or only between "
            "gaps: take another area, or one with gaps."
        )
        raise ShapeError(msg)
    box = inner.moved(plan.box.corner)
    reference = plan.reference.part(inner) if plan.reference else None
    return _CropPlan(plan.area.part(inner), box, reference, plan.shift)


def _extent(grid: Grid) -> str:
    """Say where a grid lies."""
    (y0, x0), (y1, x1) = grid.corner, grid.end
    return f"y {y0:.5g} to {y1:.5g}, x {x0:.5g} to {x1:.5g} nm"


def _sides(values: Any) -> str:
    """Say two numbers, or one where they are equal."""
    y, x = values
    return f"{y:.4g}" if y == x else f"{y:.4g} x {x:.4g}"


def find_gap_free(areas: Sequence[Area]) -> Job[Box | None]:
    """Find a large rectangle, in pixels of the grid, in which all have grey values."""
    shape = areas[0].grid.shape
    side = -(-max(shape) // _CELLS)
    rows, columns = (-(-n // side) for n in shape)
    covered = np.ones((rows, columns), bool)
    floats = [area for area in areas if area.dtype.kind == "f"]
    boxes = list(_blocks(shape, side * max(1, _BLOCK // side))) if floats else []
    for done, box in enumerate(boxes):
        yield Progress(done, len(boxes), "looking for gaps")
        for area in floats:
            full = np.isfinite(area.read(box))
            if full.all():
                continue
            cells = np.minimum.reduceat(
                np.minimum.reduceat(full, np.arange(0, box.shape[0], side), axis=0),
                np.arange(0, box.shape[1], side),
                axis=1,
            )
            y, x = box.y0 // side, box.x0 // side
            covered[y : y + cells.shape[0], x : x + cells.shape[1]] &= cells
    found = gap_free_box(covered)
    if found is None:
        return None
    return found.scaled(side).intersection(Box.of(shape))


def _blocks(shape: tuple[int, int], side: int) -> Iterator[Box]:
    """Cut a field into squares, row by row."""
    for y in range(0, shape[0], side):
        for x in range(0, shape[1], side):
            yield Box(y, min(y + side, shape[0]), x, min(x + side, shape[1]))
