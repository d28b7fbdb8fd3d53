"""Crop an image to a box, or to another image's area and grid."""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from napari_semsr import core
from napari_semsr.analysis import split_into_blocks
from napari_semsr.io import TypedSize
from napari_semsr.jobs import verb
from napari_semsr.jobs.images import (
    ImageResult,
    compose_provenance,
    create_databar_note,
    get_image_name,
    open_image,
    to_json_value,
    write_pixels,
)
from napari_semsr.registration import Shift, find_shift

_CELLS = 2048  # side of the coarse mask in which gaps are searched
_BLOCK = 1024  # side in pixels of a block that is read at once
_WINDOW = 2048  # side in pixels of the central area in which a shift is searched
_FARTHEST = 100.0  # largest ratio of two pixel sizes

# chosen: no image is larger, and larger numbers are not exact floats
_Corner = Annotated[int, Field(ge=-(10**9), le=10**9)]
Corners = tuple[float, float, float, float]
_CORNERS = ("Y0", "X0", "Y1", "X1")


class CropOptions(core.Options):
    """Options for the cropped area and for aligning two images."""

    box: tuple[_Corner, _Corner, _Corner, _Corner] | None = core.option(
        None,
        "",
        "rows Y0 to Y1 and columns X0 to X1 of the image, the last ones excluded",
        metavar=_CORNERS,
    )
    box_nm: Corners | None = core.option(
        None,
        "",
        "the same in nm: pixels whose centres are from Y0 to Y1 and from X0 to X1, the "
        "last ones excluded; the centre of the first pixel is at the image's origin, "
        "0 0 unless its file states another",
        metavar=_CORNERS,
    )
    align: bool = core.option(
        False,
        "Find the shift between both images",
        "find the shift of the image against the reference and correct it: for "
        "unreliable origins, such as a stitched mosaic's",
    )
    search: int = core.option(
        32,
        "Search",
        "largest shift that is searched, in pixels of the reference",
        unit="px",
        ge=1,
        le=2048,
    )
    gap_free: bool = core.option(
        False,
        "Exclude empty areas",
        "shrink the area to a rectangle without empty pixels, as measurements need",
    )
    like_pixel_size_nm: TypedSize = core.option(
        None,
        "",
        "pixel size of the reference in nm, one number or Y,X; overrides the file's",
    )
    dtype: Literal["uint8", "uint16", "float32"] | None = core.option(
        None,
        "",
        "dtype of the output, rounded and clipped; default: the image's, or float32 "
        "if resampled",
    )

    @model_validator(mode="after")
    def _check_single_area(self) -> Self:
        """Raise an error if more than one area is set, or if the area is empty."""
        if self.box is not None and self.box_nm is not None:
            msg = "Set the area once: box or box_nm, not both"
            raise ValueError(core.Message(msg, "options-contradict"))
        corners = self.box or self.box_nm
        if corners and not (corners[0] < corners[2] and corners[1] < corners[3]):
            msg = (
                "A box must be Y0 X0 Y1 X1 with Y0 less than Y1 and X0 less than X1, "
                f"got {' '.join(f'{v:g}' for v in corners)}"
            )
            raise ValueError(core.Message(msg, "box-empty"))
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Cropped(ImageResult):
    """Result of a crop.

    `area` is ``(y0, x0, y1, x1)`` in pixels of the reference, or of the image without a
    reference; `origin` is the centre of the first pixel, in nm if calibrated. The shift
    is that by which the image was moved, `quarters` the number of quarters of the field
    that give the same shift alone, `runner_up` the relative fit of the second best,
    `correlation` that of both band-passed images after the shift: negative for inverted
    contrast.
    """

    like_output: Annotated[str | None, core.Quantity("Reference")]
    shape: core.IntPair
    origin: core.FloatPair
    area: tuple[int, int, int, int]
    area_of: str = field(metadata={"json": False})
    resampled: bool
    shift_px: core.FloatPair | None
    shift_nm: core.FloatPair | None
    shift_error_px: Annotated[
        float | None, core.Quantity("Standard error", "px", ".2g")
    ]
    quarters: Annotated[int | None, core.Quantity("Found by", "of 4 quarters")]
    runner_up: Annotated[float | None, core.Quantity("Next best", "of the best", ".2f")]
    correlation: Annotated[float | None, core.Quantity("Correlation", form=".2f")]

    @property
    def cut(self) -> Annotated[str, core.Quantity("Area")]:
        """Rows and columns of the area, and the image that they refer to."""
        y0, x0, y1, x1 = self.area
        return f"rows {y0} to {y1}, columns {x0} to {x1} of {self.area_of}"

    @property
    def grey_values(self) -> Annotated[str, core.Quantity("Grey values")]:
        """Whether the grey values are unchanged or interpolated."""
        return "interpolated" if self.resampled else "unchanged"

    @property
    def shift_text(self) -> Annotated[str | None, core.Quantity("Moved by")]:
        """Shift of the image, as text."""
        if self.shift_px is None or self.shift_nm is None:
            return None
        return (
            f"{core.format_shift(self.shift_px)} ({core.describe_shift(self.shift_nm)})"
        )

    def figures(self) -> dict[str, core.Figure]:
        """Return the displayed values: the area first, then how it was found."""
        figures = core.get_declared_figures(self)
        names = ("Area", "Grey values", "Moved by")
        return {name: figures[name] for name in names if name in figures} | figures


@dataclass(frozen=True, slots=True)
class _CropPlan:
    """Plan of a crop."""

    area: core.GridImage  # pixels of the result
    box: core.Box  # the same in pixels of the reference, or of the image without one
    reference: core.GridImage | None = None  # the same area of the reference
    # shift of the image, if it was searched
    shift: Shift | None = None


@verb.command(title="area and cutting", resumes=True)
def crop(
    run: verb.Run[CropOptions],
    image: Annotated[
        core.Micrograph, verb.ImageInput(help="the image to cut", several=True)
    ],
    output: Annotated[Path | None, verb.IMAGE_OUT],
    *,
    options: CropOptions,
    like: Annotated[
        core.Micrograph | None,
        verb.ImageInput(
            help="crop to the area of this image, on its grid; positions are "
            "compared in nm",
            metavar="REFERENCE",
        ),
    ] = None,
    like_output: Annotated[
        Path | None,
        verb.Output("write the same area of the reference here", flag="--like-out"),
    ] = None,
) -> core.Job[Cropped]:
    """Crop a box, or the area of another image, on the grid of that image.

    Examples
    --------
    >>> image = semsr.Micrograph(np.eye(64), (10.0, 10.0))
    >>> part = semsr.crop(image, box=(8, 16, 40, 64))
    >>> part.shape, part.origin
    ((32, 48), (80.0, 160.0))
    """
    if like_output is not None and (output is None or like is None):
        what = "an output for the image" if output is None else "a reference (`like`)"
        msg = f"To crop the reference (`like_output`), also set {what}."
        raise core.OptionError(msg, code="missing-value")
    plan, record = yield from _plan_crop(run, image, like, like_output)
    image_given, resampling = run.image_inputs["image"], plan.area.resampling
    reach = float(resampling.offsets[0] + plan.area.grid.shape[0] * resampling.steps[0])
    note = create_databar_note(get_image_name(image_given), image, reach)
    if note and not isinstance(image_given, core.Micrograph):
        core.warn(note)
    about = _create_metadata(image, plan.area, record)
    dtype = np.dtype(options.dtype or plan.area.dtype)
    existing = run.existing
    if output is None:
        yield core.Progress(0, 0, "cutting")
        data, clipped_count = core.convert_dtype(plan.area.read(), dtype)
        more = {**about.metadata, "crop": to_json_value(_describe_position(plan))}
        cropped_image = about.replace(data=np.array(data), metadata=more)
        kind = str(data.dtype)
    else:
        cut = write_pixels(plan.area, about, output, dtype, existing=existing)
        written_file = yield from cut
        cropped_image = None
        kind = written_file.dtype
        clipped_count = written_file.result
    reference = plan.reference
    if like_output is not None and like is not None and reference is not None:
        # its history records the box
        box = options.replace(box=plan.box.ends, align=False, gap_free=False)
        like_record = yield from run.record_image("like")
        source = like_record.model_copy(update={"role": "image"})
        reading = run.get_read_options("like").model_dump(mode="json")
        settings = {**box.model_dump(mode="json"), "reading": reading}
        like_history = compose_provenance("crop", settings, source)
        other = _create_metadata(like, reference, like_history)
        yield from write_pixels(
            reference, other, like_output, reference.dtype, existing=existing
        )
    return Cropped(
        output=run.output,
        like_output=None if like_output is None else str(like_output),
        shape=plan.area.grid.shape,
        dtype=kind,
        **verb.get_pixel_size_fields(about),
        origin=about.origin,
        area_of=run.image_names[-1],
        clipped=clipped_count,
        image=cropped_image,
        **_describe_position(plan),
    )


def crop_to_gap_free_box(
    *images: core.Micrograph,
) -> core.Job[tuple[tuple[core.Micrograph, ...], core.Box | None]]:
    """Crop images of equal shape to their largest common gap-free rectangle.

    A uniform frame is not image content.
    """
    images = tuple(open_image(image) for image in images)  # which marks fill values
    areas = [
        core.GridImage.from_image(image, core.Grid.from_image(image))
        for image in images
    ]
    content = functools.reduce(core.Box.intersection, map(_find_content, images))
    box = yield from find_shared_gap_free_box([area.crop(content) for area in areas])
    if box is None:
        msg = f"No area of {' and '.join(i.name for i in images)} is free of gaps."
        raise core.ShapeError(msg, code="gaps-everywhere")
    box = box.move(content.corner)
    if box.shape == images[0].shape:
        return images, None
    cut = (
        image.replace(data=area.crop(box).read(), origin=area.grid.box_origin(box))
        for image, area in zip(images, areas, strict=True)
    )
    return tuple(cut), box


def _plan_crop(
    run: verb.Run[CropOptions],
    image: core.Micrograph,
    like: core.Micrograph | None,
    like_output: Path | None,
) -> core.Job[tuple[_CropPlan, core.Provenance]]:
    usual = CropOptions.model_fields["search"].default
    if run.options.search != usual and not run.options.align:
        msg = "A search range (`search`) requires `align`: set both."
        raise core.OptionError(msg, code="option-without-effect")
    # names given by the user: parts of one image share the inner name
    source = image.replace(name=run.get_image_name("image"))
    if like is None:
        plan = yield from _plan_box_crop(source, run.options)
        return plan, (yield from run.compose_history())
    reference = like.replace(name=run.get_image_name("like"))
    plan = yield from _plan_common_area_crop(source, reference, run.options)
    if like_output is None and plan.box.shape != like.shape:
        box = plan.box
        core.warn(
            f"The result covers rows {box.y0} to {box.y1}, columns {box.x0} to "
            f"{box.x1} of {reference.name}: to compare both images, also write this "
            "area of the reference (`like_output`).",
            "part-of-reference",
        )
    reference_record = yield from run.record_image("like")
    more = {
        "like": reference_record.name,
        "like_digest": reference_record.digest,
        **_describe_position(plan),
    }
    if plan.area.is_resampled and like.pixel_size_from:
        how = (
            f"pixel size of {reference_record.name}, whose grid was used: "
            f"{like.pixel_size_from}"
        )
        more[core.ORIGIN_KEY] = core.create_size_source(how, like.scale)
    return plan, (yield from run.compose_history(led_by="like", **to_json_value(more)))


def _create_metadata(
    source: core.Micrograph, area: core.GridImage, history: core.Provenance
) -> core.Micrograph:
    """Return the name, calibration and history of a crop, without pixels."""
    origin = area.grid.box_origin(core.Box.from_shape(area.grid.shape))
    pitch = area.grid.pitch
    size = {"pixel_size_nm": pitch} if source.pixel_size_nm else {"spacing_px": pitch}
    metadata = dict(source.metadata)
    if core.ORIGIN_KEY in history.options:
        metadata[core.ORIGIN_KEY] = history.options[core.ORIGIN_KEY]
    return source.replace(origin=origin, provenance=history, metadata=metadata, **size)


def _describe_position(plan: _CropPlan) -> dict[str, Any]:
    """Describe the position of an area and how it was determined."""
    shift, (down, right) = plan.shift, plan.area.grid.pitch
    return {
        "area": plan.box.ends,
        "resampled": plan.area.is_resampled,
        "shift_px": shift and shift.shift_px,
        "shift_nm": shift and (shift.shift_px[0] * down, shift.shift_px[1] * right),
        "shift_error_px": shift and shift.error_px,
        "quarters": shift and shift.quarters,
        "runner_up": shift and shift.runner_up,
        "correlation": shift and shift.correlation,
    }


# Choose the area: a box, or the common area of two images.


def _plan_box_crop(image: core.Micrograph, options: CropOptions) -> core.Job[_CropPlan]:
    """Plan a crop on the image grid: a box, or the gap-free area."""
    if options.like_pixel_size_nm is not None:
        msg = (
            "`like_pixel_size_nm` requires a reference: set `like`, or use "
            "`pixel_size_nm` for the image."
        )
        raise core.OptionError(msg, code="missing-value")
    if not (options.box or options.box_nm or options.gap_free):
        msg = "Set an area: `like`, `box`, `box_nm` or `gap_free`."
        raise core.OptionError(msg, code="missing-value")
    if options.align:
        msg = "`align` requires a reference: set `like`."
        raise core.OptionError(msg, code="missing-value")
    grid = core.Grid.from_image(image)
    if options.box_nm is None:
        y0, x0, y1, x1 = options.box or (0, 0, *image.shape)
        box_wanted = core.Box(y0, y1, x0, x1)
    else:
        if image.pixel_size_nm is None:
            msg = (
                f"A box in nm requires a pixel size, but {image.name} has none: set "
                "`pixel_size_nm`, or give the box in pixels."
            )
            raise core.ShapeError(msg, code="pixel-size-missing")
        y, x, below, beyond = options.box_nm
        box_wanted = grid.nearest_box((y, x), (below, beyond))
        if 0 in box_wanted.shape:
            msg = (
                f"The box contains no pixels of {image.name}, whose pixel size is "
                f"{_format_side_lengths(grid.pitch)} nm: enlarge the box."
            )
            raise core.ShapeError(msg, code="box-empty")
    rows, columns = image.shape
    inside = box_wanted.intersection(core.Box.from_shape(image.shape))
    if min(inside.shape) < 1:
        where = f"{rows} x {columns} px" if options.box else _format_extent(grid)
        msg = f"The box does not overlap {image.name}, which covers {where}."
        raise core.ShapeError(msg, code="outside-image")
    if inside != box_wanted:
        core.warn(
            f"The box extends beyond {image.name} and was clipped to rows "
            f"{inside.y0} to {inside.y1}, columns {inside.x0} to {inside.x1}.",
            "box-cut",
        )
    plan = _CropPlan(core.GridImage.from_image(image, grid).crop(inside), inside)
    return (yield from _exclude_gaps(plan)) if options.gap_free else plan


def _plan_common_area_crop(
    image: core.Micrograph, reference: core.Micrograph, options: CropOptions
) -> core.Job[_CropPlan]:
    """Plan a crop to the common area of two images, on the reference grid."""
    if options.box or options.box_nm:
        msg = "Set either a box or a reference (`like`), not both."
        raise core.OptionError(msg, code="options-contradict")
    for one, name in ((image, "pixel_size_nm"), (reference, "like_pixel_size_nm")):
        if one.pixel_size_nm is None:
            msg = (
                f"Aligning two images requires their pixel sizes, but {one.name} has "
                f"none: set it (`{name}`)."
            )
            raise core.ShapeError(msg, code="pixel-size-missing")
    target, source = core.Grid.from_image(reference), core.Grid.from_image(image)
    ratio = [a / b for a, b in zip(target.pitch, source.pitch, strict=True)]
    if not all(1 / _FARTHEST <= value <= _FARTHEST for value in ratio):
        msg = (
            f"{image.name} and {reference.name} must have similar pixel sizes, got "
            f"{_format_side_lengths(source.pitch)} and "
            f"{_format_side_lengths(target.pitch)} nm: check both."
        )
        raise core.ShapeError(msg, code="pixel-sizes-differ")
    has_origin = image.origin != (0.0, 0.0) or reference.origin != (0.0, 0.0)
    if not has_origin and source.pitch != target.pitch:
        core.warn(
            f"Neither {image.name} nor {reference.name} states its position, so "
            "their top-left corners are assumed to coincide.",
            "origin-missing",
        )
        source = core.Grid(source.shape, source.pitch, target.corner)
    box = _find_common_area(image, reference, target, source)
    shift = None
    if options.align:
        yield core.Progress(0, 0, "finding the shift")
        shift = _find_shift(image, reference, box, source, options.search)
        y, x = shift.shift_px
        source = source.move((y * target.pitch[0], x * target.pitch[1]))
        box = _find_common_area(image, reference, target, source)
    whole = core.GridImage.from_image(reference, target)
    part = whole.crop(box)
    plan = _CropPlan(
        core.GridImage.from_image(image, part.grid, source), box, part, shift
    )
    return (yield from _exclude_gaps(plan)) if options.gap_free else plan


def _find_common_area(
    image: core.Micrograph,
    reference: core.Micrograph,
    target: core.Grid,
    source: core.Grid,
) -> core.Box:
    """Return the box of reference pixels that the image covers."""
    box = target.covered_box(source)
    if box is None:
        msg = (
            f"The two images do not overlap: {image.name} covers "
            f"{_format_extent(source)}, and {reference.name} covers "
            f"{_format_extent(target)}; check origins and pixel sizes."
        )
        raise core.ShapeError(msg, code="no-overlap")
    return box


def _find_shift(
    image: core.Micrograph,
    reference: core.Micrograph,
    box: core.Box,
    source: core.Grid,
    search: int,
) -> Shift:
    """Find the shift at the centre of the common area."""
    window = core.get_central_box(box.shape, _WINDOW).move(box.corner)
    grid = core.Grid.from_image(reference)
    fixed_area = core.GridImage.from_image(reference, grid).crop(window)
    moving = core.GridImage.from_image(image, fixed_area.grid, source)
    both = (image, reference)
    names = [
        one.name for one in both if one.provenance and one.provenance.network_names()
    ]
    if names:
        core.warn(
            f"The shift was measured on {' and '.join(names)}, made by a network. "
            "Networks can displace details, so the shift may be wrong by more than "
            "its standard error: measure it on the network's input.",
            "made-by-network",
        )
    shift = find_shift(fixed_area.read(), moving.read(), reach=search)
    if shift.is_ambiguous:
        core.warn(
            f"Another shift fits nearly as well ({shift.runner_up:.2f} of the best), "
            "as is typical of periodic structures: compare the images, or reduce the "
            "search range (`search`).",
            "ambiguous",
        )
    return shift


def _find_content(image: core.Micrograph) -> core.Box:
    """Find the part of an image inside a frame: border lines, each of one grey value.

    Lines whose grey value most pixels of the next line have too are background, and an
    image of such lines alone is a grating.
    """
    whole = [0, image.shape[0], 0, image.shape[1]]
    ends = whole.copy()
    for side, (axis, last) in enumerate(itertools.product((0, 1), (False, True))):
        size, count, depth = image.shape[axis], 0, 0
        while count == depth < size:  # read twice as many lines
            depth = min(max(1, 2 * depth), size)
            strip = whole.copy()
            strip[side ^ 1] = size - depth if last else depth
            lines = core.read_box(image.data, core.Box(*strip))
            lines = np.moveaxis(lines, axis, 0)[:: -1 if last else 1]
            is_frame = (lines == lines[:, :1]).all(axis=1)
            count = depth if is_frame.all() else int(np.argmin(is_frame))
        if count < size and np.mean(lines[count] != lines[count - 1, 0]) > 1 / 2:
            ends[side] += -count if last else count
    return core.Box(*ends)


def _exclude_gaps(plan: _CropPlan) -> core.Job[_CropPlan]:
    """Reduce a plan to the area that is gap-free in all of its images."""
    areas = [plan.area, *([plan.reference] if plan.reference else [])]
    inner = yield from find_shared_gap_free_box(areas)
    if inner is None:
        msg = (
            f"{plan.area.image.name} has no gap-free rectangle in the selected area: "
            "choose another area, or omit `gap_free`."
        )
        raise core.ShapeError(msg, code="gaps-everywhere")
    box = inner.move(plan.box.corner)
    reference = plan.reference.crop(inner) if plan.reference else None
    return _CropPlan(plan.area.crop(inner), box, reference, plan.shift)


def _format_extent(grid: core.Grid) -> str:
    (y0, x0), (y1, x1) = grid.corner, grid.end
    return f"y {y0:.5g} to {y1:.5g}, x {x0:.5g} to {x1:.5g} nm"


def _format_side_lengths(values: core.FloatPair) -> str:
    """Format two numbers, or one if they are equal."""
    y, x = values
    return f"{y:.4g}" if y == x else f"{y:.4g} x {x:.4g}"


def find_shared_gap_free_box(
    areas: Sequence[core.GridImage],
) -> core.Job[core.Box | None]:
    """Find a large rectangle, in grid pixels, without gaps in any image."""
    shape = areas[0].grid.shape
    side = -(-max(shape) // _CELLS)
    rows, columns = (-(-n // side) for n in shape)
    is_covered = np.ones((rows, columns), bool)
    floats = [area for area in areas if area.dtype.kind == "f"]
    field, block = core.Box.from_shape(shape), side * max(1, _BLOCK // side)
    boxes = split_into_blocks(field, None, block) if floats else []
    for done_count, box in enumerate(boxes):
        yield core.Progress(done_count, len(boxes), "looking for gaps")
        for area in floats:
            full = np.isfinite(area.read(box))
            if full.all():
                continue
            down, across = (np.arange(0, n, side) for n in box.shape)
            cells = np.minimum.reduceat(full, down, axis=0)
            cells = np.minimum.reduceat(cells, across, axis=1)
            y, x = box.y0 // side, box.x0 // side
            is_covered[y : y + cells.shape[0], x : x + cells.shape[1]] &= cells
    largest_box = core.find_gap_free_box(is_covered)
    if largest_box is None:
        return None
    return largest_box.scale(side).intersection(field)
