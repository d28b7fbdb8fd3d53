"""Relative shift of two images of one area."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from napari_semsr import analysis, core
from napari_semsr.registration import Shift, find_far_shift, find_shift

# Sides of the central search area: the second is used if the first finds no shift;
# chosen: 0.3 s, and 5 s
_WINDOWS = 512, 2048
_NO_SHIFT_PX = 0.05  # px; chosen: less changes detail of 3 px by under 0.2 %
# Searched in the whole and in each quarter; chosen: two agree by chance in 3 %. It is
# in pixels that are binned by these factors until the quarters agree: it follows the
# blur.
_REACH_PX, _FACTORS = 10, (1, 2, 4)
# Standard deviations by which a correlation must exceed that without a shift: the
# highest of a million values of noise has five; chosen
_FAR = 7.0
# Correlation from which two images count as one kind: real fast and slow scans have
# 0.98; chosen below, as contrast differs between kinds and moves edges
_SAME = 0.9
_DECIBEL = 10**0.1  # loss of PSNR due to a shift, from which on it is reported; chosen
_SURE = 2.0  # standard errors by which a shift must differ from zero; chosen: 95 %

_UNCONFIRMED = core.Message(
    "No shift fits all parts of both images: they may show different areas, too little "
    "structure, or a periodic pattern.",
    "shift-unconfirmed",
)

Both = tuple[core.RealArray, core.RealArray]


@dataclass(frozen=True, slots=True)
class Offset:
    """Shift of the second image, and whether it is applied."""

    best_shift: Shift | None = None
    is_moved: bool = False  # otherwise the shift is zero or not reliable
    doubt: str = ""  # why the shift is not reliable; empty if it is
    # a shift ``(y, x)`` beyond the search that fits better than none, if not confirmed
    far_px: core.IntPair | None = None

    @property
    def shift(self) -> core.FloatPair | None:
        """Shift ``(y, x)`` in px to apply to the second image, if any."""
        return self.best_shift.shift_px if self.best_shift and self.is_moved else None

    @property
    def shift_px(self) -> core.FloatPair | None:
        """Measured shift ``(y, x)`` in px, reliable or not."""
        return None if self.best_shift is None else self.best_shift.shift_px

    @property
    def error_px(self) -> float | None:
        """Standard error of the shift in px."""
        return None if self.best_shift is None else self.best_shift.error_px


def find_offset(
    read: Callable[[core.Box], Both],
    shape: core.IntPair,
    *,
    reach: int,
    nearest: bool = False,
    windows: Sequence[int] = _WINDOWS,
) -> Offset:
    """Find the shift between two images.

    `read` returns a part of both, on one grid of a `shape`; shifts up to `reach` pixels
    are searched. On a lattice, `nearest` accepts a shift of up to a pixel. A shift too
    small to change a measurement is not applied, so aligned images keep their values.
    """
    # a window no wider than the search cannot contain its ends
    sides = [max(side, 4 * (reach + 1)) for side in windows]
    shift, doubt = None, ""
    for side in sides:
        try:
            shift = find_shift(*read(core.get_central_box(shape, side)), reach=reach)
        except (core.RegistrationError, core.ShapeError) as error:
            doubt = core.Message(str(error), core.get_error_code(error))
            if max(shape) > side:
                continue
        break
    if shift is None:
        return Offset(doubt=doubt)
    size = float(np.hypot(*shift.shift_px))
    if shift.is_ambiguous and not (nearest and size <= 1):
        doubt = core.Message(
            f"Another shift fits about as well ({shift.runner_up:.2f} of the best), "
            "as is typical of a lattice.",
            "ambiguous",
        )
        return Offset(shift, doubt=doubt)
    return Offset(shift, size >= max(_NO_SHIFT_PX, _SURE * shift.error_px))


def _find_near(
    images: tuple[core.Micrograph, core.Micrograph],
    away: core.IntPair,
    factor: int,
    windows: Sequence[int],
) -> Offset:
    """Find a shift near another in pixels binned by a factor."""
    first, second = images
    whole = core.Box.from_shape(first.shape)
    overlap = whole.intersection(whole.move(away))

    def read_pair(box: core.Box) -> Both:
        part = box.scale(factor).move(overlap.corner)
        moved = part.move((-away[0], -away[1]))
        one, other = (
            analysis.compute_block_means(core.read_box(image.data, place), factor)
            for image, place in ((first, part), (second, moved))
        )
        return one, other

    rows, columns = (side // factor for side in overlap.shape)
    if not min(rows, columns):
        return Offset()
    offset = find_offset(read_pair, (rows, columns), reach=_REACH_PX, windows=windows)
    if offset.best_shift is None:
        return offset
    dy, dx = (factor * by for by in offset.best_shift.shift_px)
    error = factor * offset.best_shift.error_px
    place = away[0] + dy, away[1] + dx
    shift = replace(offset.best_shift, shift_px=place, error_px=error)
    return replace(offset, best_shift=shift)


def measure_offset(
    first: core.Micrograph,
    second: core.Micrograph,
    *,
    windows: Sequence[int] = _WINDOWS,
) -> Offset:
    """Find the shift between two images of equal shape.

    It is searched within 10 px, and within 10 pixels of twice and four times the size,
    as blurred images with noise have structure in coarse pixels only. If there is none,
    the central area is searched as a whole, and the best shift is confirmed in the
    overlap of both images.
    """
    offset = _find_near((first, second), (0, 0), 1, windows)
    if offset.best_shift is not None:
        return offset
    area = core.get_central_box(first.shape, windows[-1])
    parts = (core.read_box(image.data, area) for image in (first, second))
    far, excess, is_ambiguous = find_far_shift(*parts)
    starts = [(0, 0)]
    if core.get_error_code(offset.doubt) != "no-structure":
        offset = replace(offset, doubt=_UNCONFIRMED)
    if excess >= _FAR and max(map(abs, far)) >= _REACH_PX:
        starts.append(far)
        offset = replace(offset, far_px=far)
    for factor, start in list(itertools.product(_FACTORS, starts))[1:]:
        found = _find_near((first, second), start, factor, windows)
        if found.best_shift is None:
            continue
        if start == (0, 0):
            return found
        if found.best_shift.is_ambiguous or is_ambiguous:
            return offset
        return replace(found, is_moved=True, doubt="")
    return offset


def warn_about_offset(image: core.Micrograph, reference: core.Micrograph) -> None:
    """Warn if a shift relative to the reference makes an image differ more."""
    if image.shape != reference.shape:
        return
    offset = measure_offset(reference, image, windows=_WINDOWS[:1])
    shift = offset.best_shift
    if shift is None or shift.correlation < _SAME or not offset.is_moved:
        return
    y, x = shift.shift_px
    area = core.get_central_box(image.shape, _WINDOWS[0])
    one, other = (
        core.read_box(m.data, area).astype(np.float64) for m in (image, reference)
    )
    one[~np.isfinite(one)] = np.mean(one, where=np.isfinite(one))
    moved = ndimage.shift(one, (y, x), cval=np.nan)
    known = np.isfinite(moved) & np.isfinite(other)
    # squared differences that remain after a fit of gain and offset
    before, after = (
        1 - np.corrcoef(part[known], other[known])[0, 1] ** 2 for part in (one, moved)
    )
    if not before < _DECIBEL * after:
        core.warn(
            f"The image is shifted relative to its reference by ({-y:.1f}, {-x:.1f}) "
            "px, which this measurement counts as an error: register the images "
            "first (`register()`).",
            "images-shifted",
            stacklevel=3,
        )
