"""Two images of one area: their relative shift, and the scale of difference maps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from napari_semsr.core import (
    LEVELS,
    Box,
    DisplaySettings,
    FloatPair,
    Grid,
    IntPair,
    Message,
    Micrograph,
    RealArray,
    RegistrationError,
    ShapeError,
    central_box,
    code_of,
    field_range,
    read_box,
    warn,
)
from napari_semsr.registration import Shift, find_shift

# Sides of the central search area: the second is used if the first finds no shift;
# chosen: 0.3 s, and 5 s
_WINDOWS = 512, 2048
_NO_SHIFT_PX = 0.05  # px; chosen: less changes detail of 3 px by under 0.2 %
_REACH_PX = 10  # px to search; chosen: larger shifts mean different grids
_TOLD_PX = 0.5  # px; chosen: such a shift lowers PSNR by a decibel or more
# Correlation from which two images count as one kind: real fast and slow scans have
# 0.98; chosen below, as contrast differs between kinds and moves edges
_SAME = 0.9
_SURE = 2.0  # standard errors by which a shift must differ from zero; chosen: 95 %

Both = tuple[RealArray, RealArray]


@dataclass(frozen=True, slots=True)
class Offset:
    """The shift of the second image, and whether to apply it."""

    best_shift: Shift | None = None
    is_moved: bool = False  # otherwise the shift is zero or not reliable
    doubt: str = ""  # why the shift is not reliable; empty if it is

    @property
    def shift(self) -> FloatPair | None:
        """``(y, x)`` in px to apply to the second image."""
        return self.best_shift.shift_px if self.best_shift and self.is_moved else None

    @property
    def shift_px(self) -> FloatPair | None:
        """``(y, x)`` measured, reliable or not."""
        return None if self.best_shift is None else self.best_shift.shift_px

    @property
    def error_px(self) -> float | None:
        """Standard error of the shift."""
        return None if self.best_shift is None else self.best_shift.error_px


def find_offset(
    read: Callable[[Box], Both],
    shape: IntPair,
    *,
    reach: int,
    nearest: bool = False,
    windows: Sequence[int] = _WINDOWS,
) -> Offset:
    """Find the shift of the second of two images.

    `read` returns a part of both, on one grid of a `shape`; shifts up to `reach` pixels
    are searched. On a lattice, `nearest` accepts a shift of up to a pixel. A shift too
    small to change a measurement is not applied, so aligned images keep their values.
    """
    # a window no wider than the search cannot contain its ends
    sides = [max(side, 4 * (reach + 1)) for side in windows]
    shift, doubt = None, ""
    for side in sides:
        try:
            shift = find_shift(*read(central_box(shape, side)), reach=reach)
        except (RegistrationError, ShapeError) as error:
            doubt = Message(str(error), code_of(error))
            if max(shape) > side:
                continue
        break
    if shift is None:
        return Offset(doubt=doubt)
    size = float(np.hypot(*shift.shift_px))
    if shift.is_ambiguous and not (nearest and size <= 1):
        doubt = Message(
            f"Another one fits about as well ({shift.runner_up:.2f} of the best), as "
            "on a lattice.",
            "ambiguous",
        )
        return Offset(shift, doubt=doubt)
    return Offset(shift, size >= max(_NO_SHIFT_PX, _SURE * shift.error_px))


def offset_of(
    what: str, read: Callable[[Box], Both], shape: IntPair, search: int
) -> Offset:
    """Find the shift to correct before two images are mapped, or why there is none."""
    offset = find_offset(read, shape, reach=search, nearest=True)
    if offset.doubt:
        warn(
            f"The {what} are compared unregistered. {offset.doubt}",
            code_of(offset.doubt),
        )
    return offset


def offset_between(
    first: Micrograph, second: Micrograph, *, windows: Sequence[int] = _WINDOWS
) -> Offset:
    """Find the shift of the second of two images of equal shape, up to 10 px."""

    def read_both(box: Box) -> Both:
        return read_box(first.data, box), read_box(second.data, box)

    return find_offset(read_both, first.shape, reach=_REACH_PX, windows=windows)


def warn_of_offset(image: Micrograph, reference: Micrograph) -> None:
    """Warn if an image is shifted relative to the one it is compared with."""
    if image.shape != reference.shape:
        return
    offset = offset_between(reference, image, windows=_WINDOWS[:1])
    if (
        offset.best_shift is None
        or offset.best_shift.correlation < _SAME
        or not offset.is_moved
    ):
        return
    y, x = offset.best_shift.shift_px
    if np.hypot(y, x) >= _TOLD_PX:
        warn(
            f"The image is shifted against its reference by ({-y:.1f}, {-x:.1f}) px, "
            "which counts as an error here: register them first (`register()`).",
            "images-shifted",
            stacklevel=3,
        )


PERCENT = "% of the range"


@dataclass(frozen=True, slots=True)
class MapScale:
    """Unit of a map of differences: grey levels, or percentages of an image's range."""

    span: FloatPair  # 0.1th and 99.9th percentile of the grey levels
    percent: float  # of the range, per grey level
    unit: str

    @classmethod
    def of(cls, image: Micrograph, unit: str) -> Self:
        """Measure the range of an image."""
        low, high = span = field_range(image.data)
        return cls(span, 100 / (high - low) if high > low else float("nan"), unit)

    @property
    def factor(self) -> float:
        """Factor from grey levels to the unit."""
        return self.percent if self.unit == "percent" else 1.0

    def about(self, name: str, image: Micrograph, grid: Grid, top: float) -> Micrograph:
        """Set position, pixel size and display of a map; `top`: its brightest grey."""
        unit, top = LEVELS if self.unit == "grey" else PERCENT, top * self.factor
        return image.replace(
            data=np.broadcast_to(np.float32(0), grid.shape),
            name=f"{name} ({unit})",
            origin=grid.centre(Box.of(grid.shape)),
            metadata={},
            look=DisplaySettings(
                limits=(0.0, top if top > 0 else 1.0),
                colormap="inferno",
                colour_bar=True,
            ),
        )
