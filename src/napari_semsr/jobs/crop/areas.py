"""What an image shows of an area, on a grid of one's choice, read part by part."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from napari_semsr.core import (
    Box,
    Grid,
    Job,
    Micrograph,
    OptionError,
    Options,
    Progress,
    Resampling,
    ShapeError,
    common_box,
    gap_free_box,
    lay_grid,
    on_one_grid,
    read_box,
    working_type,
)
from napari_semsr.io import TypedSize
from napari_semsr.registration import Shift, find_shift

_CELLS = 2048
_BLOCK = 1024
_GAP = 1e-3  # weight of gaps in a pixel that is a gap itself


@dataclass(frozen=True, slots=True)
class Area:
    """Pixels of a grid, made from an image."""

    image: Micrograph  # Where they come from
    grid: Grid  # The pixels
    inner: Box | None  # The same in pixels of the image, where they are pixels of it
    laid: Resampling  # How they are made, where they are not

    @property
    def is_resampled(self) -> bool:
        """Whether grey values are interpolated."""
        return self.inner is None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the grey values: the image's, or a float where interpolated."""
        own = self.image.dtype
        return working_type(own) if self.is_resampled else own

    def part(self, box: Box) -> "Area":
        """Take a part of the area.

        `box`: in pixels of the area; gives the same pixels, counted from the part's
        corner.
        """
        y, x = self.grid.centre(box)
        down, right = self.grid.pitch
        grid = Grid(box.shape, self.grid.pitch, (y - down / 2, x - right / 2))
        inner = self.inner
        if inner is not None:
            inner = box.moved(inner.corner)
        steps, offsets = self.laid.steps, self.laid.offsets
        moved = offsets[0] + box.y0 * steps[0], offsets[1] + box.x0 * steps[1]
        return Area(self.image, grid, inner, Resampling(self.laid.size, steps, moved))

    def read(self, box: Box | None = None) -> NDArray[Any]:
        """Compute some of the pixels.

        `box`: in pixels of the area; all of them by default; gives (Y, X), grey values;
        NaN where a pixel would be made of one without a value.
        """
        box = box or Box.of(self.grid.shape)
        if self.inner is not None:
            return read_box(self.image.data, box.moved(self.inner.corner))
        place = self.laid.source(box)
        block = read_box(self.image.data, place)
        known = np.isfinite(block)
        if known.all():
            return self.laid.make(block, place, box)
        level = block[known].mean(dtype=np.float64) if known.any() else 0.0
        made = self.laid.make(np.where(known, block, level), place, box)
        gaps = self.laid.make((~known).astype(np.float32), place, box)
        made[np.abs(gaps) > _GAP] = np.nan
        return made


def _cut_area(image: Micrograph, grid: Grid, source: Grid | None = None) -> Area:
    """Cut an area out of an image.

    Gives interpolated only where the pixels are not those of the image.
    """
    lies = source or Grid.of(image)
    return Area(image, grid, on_one_grid(grid, lies), lay_grid(grid, lies))


def _find_gap_free(areas: Sequence[Area]) -> Job[Box | None]:
    """Find a large rectangle in which all images have grey values.

    Gives in pixels of the grid; None where there is none.
    """
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


# What part of an image is wanted, as a user types it.

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


# Which area is cut: a box, or what two images show in common.

_WINDOW = 2048
_FARTHEST = 100.0


@dataclass(frozen=True, slots=True)
class CropPlan:
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


def plan_box(image: Micrograph, options: CropOptions) -> Job[CropPlan]:
    """Cut a box out of an image, on its own grid.

    `options`: with a box in pixels or in nm.
    """
    _check_alone(options)
    grid = Grid.of(image)
    if options.box is not None:
        y0, x0, y1, x1 = options.box
        asked = Box(y0, y1, x0, x1)
    else:
        if image.pixel_size_nm is None:
            msg = (
                f"A box in nm needs a pixel size, but {image.name} has none: give "
                "--pixel-size-nm, or the box in pixels."
            )
            raise ShapeError(msg)
        y, x, below, beyond = options.box_nm or (0.0, 0.0, 0.0, 0.0)
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
        warnings.warn(
            f"The box reaches over the border of {image.name}, and was cut to rows "
            f"{inside.y0} to {inside.y1}, columns {inside.x0} to {inside.x1}.",
            stacklevel=2,
        )
    plan = CropPlan(_cut_area(image, grid).part(inside), inside)
    return (yield from _without_gaps(plan)) if options.gap_free else plan


def plan_common(
    image: Micrograph, reference: Micrograph, options: CropOptions
) -> Job[CropPlan]:
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
    whole = _cut_area(reference, target)
    part = whole.part(box)
    plan = CropPlan(_cut_area(image, part.grid, source), box, part, shift)
    return (yield from _without_gaps(plan)) if options.gap_free else plan


def _check_alone(options: CropOptions) -> None:
    """Refuse to cut without an area, and what only a reference gives a sense."""
    if options.like_pixel_size_nm is not None:
        msg = (
            "The pixel size of a reference needs a reference: give --like REFERENCE "
            "as well, or --pixel-size-nm for the image."
        )
        raise OptionError(msg)
    if options.box is None and options.box_nm is None:
        msg = "An area is needed: --like REFERENCE, --box or --box-nm."
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
        warnings.warn(
            f"Neither {image.name} nor {reference.name} says where it lies, so their "
            "outer corners are taken to coincide.",
            stacklevel=2,
        )
        source = Grid(source.shape, source.pitch, target.corner)
    return target, source


def _common(
    image: Micrograph, reference: Micrograph, target: Grid, source: Grid
) -> Box:
    """Pixels of the reference that the image covers."""
    box = common_box(target, source)
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
    fixed = _cut_area(reference, Grid.of(reference)).part(window)
    moving = _cut_area(image, fixed.grid, source)
    _tell_networks(image, reference)
    found = find_shift(fixed.read(), moving.read(), reach=search)
    if found.is_ambiguous:
        warnings.warn(
            f"Another shift fits nearly as well ({found.runner_up:.2f} of the best), "
            "as on a lattice: compare the images, or search less far (--search).",
            stacklevel=2,
        )
    return found


def _tell_networks(*images: Micrograph) -> None:
    """Say that a network can move what it draws, which no quarter shows."""
    made = [one.name for one in images if one.provenance and one.provenance.networks()]
    if made:
        warnings.warn(
            f"The shift is found with {' and '.join(made)}, made by a network that can "
            "move all details alike, so it can be off by more than its standard error: "
            "find it with the image before the network.",
            stacklevel=2,
        )


def _without_gaps(plan: CropPlan) -> Job[CropPlan]:
    """Shrink a plan to where all its images have grey values."""
    areas = [plan.area, *([plan.reference] if plan.reference else [])]
    inner = yield from _find_gap_free(areas)
    if inner is None:
        msg = (
            f"{plan.area.image.name} has no grey values in the area, or only between "
            "gaps: take another area, or leave --gap-free out."
        )
        raise ShapeError(msg)
    box = inner.moved(plan.box.corner)
    reference = plan.reference.part(inner) if plan.reference else None
    return CropPlan(plan.area.part(inner), box, reference, plan.shift)


def _extent(grid: Grid) -> str:
    """Say where a grid lies."""
    (y0, x0), (y1, x1) = grid.corner, grid.end
    return f"y {y0:.5g} to {y1:.5g}, x {x0:.5g} to {x1:.5g} nm"


def _sides(values: Any) -> str:
    """Say two numbers, or one where they are equal."""
    y, x = values
    return f"{y:.4g}" if y == x else f"{y:.4g} x {x:.4g}"
