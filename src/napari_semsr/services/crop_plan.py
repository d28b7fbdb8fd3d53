"""Which area is cut: a box, or what two images show in common."""

import warnings
from dataclasses import dataclass
from typing import Any

from napari_semsr.core.areas import Grid, common_box
from napari_semsr.core.errors import OptionError, ShapeError
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import Job, Progress
from napari_semsr.core.tiling import Box
from napari_semsr.register.shift import Shift, find_shift
from napari_semsr.services.crop_area import Area, cut_area, find_gap_free
from napari_semsr.services.crop_options import CropOptions

__all__ = ["CropPlan", "plan_box", "plan_common"]

_WINDOW = 2048
_FARTHEST = 100.0


@dataclass(frozen=True, slots=True)
class CropPlan:
    """What is cut, and what of.

    Attributes
    ----------
    area : Area
        Pixels of the result.
    box : Box
        The same in pixels of the reference, or of the image itself without one.
    reference : Area or None
        The same area of the reference.
    shift : Shift or None
        By how much the image was moved, where that was looked for.
    """

    area: Area
    box: Box
    reference: Area | None = None
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

    Parameters
    ----------
    image : Micrograph
        The image.
    options : CropOptions
        With a box in pixels or in nm.

    Returns
    -------
    CropPlan
        Inside the image.

    Yields
    ------
    Progress
        Of the search for gaps.

    Raises
    ------
    OptionError
        If there is no box, or an option is given that is for a reference.
    ShapeError
        If the box lies outside, or in nm where there is no calibration.
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
    inside = Box(
        max(0, asked.y0), min(rows, asked.y1), max(0, asked.x0), min(columns, asked.x1)
    )
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
    plan = CropPlan(cut_area(image, grid).part(inside), inside)
    return (yield from _without_gaps(plan)) if options.gap_free else plan


def plan_common(
    image: Micrograph, reference: Micrograph, options: CropOptions
) -> Job[CropPlan]:
    """Find what two images show in common, on the reference's grid.

    Parameters
    ----------
    image, reference : Micrograph
        Two calibrated images.
    options : CropOptions
        Whether to search for a shift, and to leave gaps out.

    Returns
    -------
    CropPlan
        Pixels of the reference that lie wholly in the image.

    Yields
    ------
    Progress
        Of the searches.

    Raises
    ------
    OptionError
        If a box is asked for as well, or a search that is not made.
    ShapeError
        If a pixel size is missing, or nothing is in common.
    RegistrationError
        If no shift can be believed.
    """
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
    whole = cut_area(reference, target)
    part = whole.part(box)
    plan = CropPlan(cut_area(image, part.grid, source), box, part, shift)
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
    y0, x0 = (
        corner + max(0, (n - _WINDOW) // 2)
        for corner, n in zip((box.y0, box.x0), box.shape, strict=True)
    )
    high, wide = (min(n, _WINDOW) for n in box.shape)
    window = Box(y0, y0 + high, x0, x0 + wide)
    fixed = cut_area(reference, Grid.of(reference)).part(window)
    moving = cut_area(image, fixed.grid, source)
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
    inner = yield from find_gap_free(areas)
    if inner is None:
        msg = (
            f"{plan.area.image.name} has no grey values in the area, or only between "
            "gaps: take another area, or leave --gap-free out."
        )
        raise ShapeError(msg)
    box = Box(
        plan.box.y0 + inner.y0,
        plan.box.y0 + inner.y1,
        plan.box.x0 + inner.x0,
        plan.box.x0 + inner.x1,
    )
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
