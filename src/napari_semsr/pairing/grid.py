"""Two images on one grid: as they are, or resampled to one physical pixel."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.core import (
    Box,
    Float32Array,
    FloatPair,
    IntPair,
    Micrograph,
    ShapeError,
    field_range,
    read_box,
)
from napari_semsr.pairing.options import PairOptions

# Chosen: pixel sizes are written with three or four digits, and calibrations differ by
# one or two per cent; the percentiles leave out dead and hot pixels.
_SAME = 1e-3  # relative difference of two pixel sizes that are called equal
_STATED = 0.02  # how far a ratio of pixel sizes may be from a whole number
_MOST = 4  # as `PairOptions.scale`
_PERCENTILES = (0.1, 99.9)


@dataclass(frozen=True, slots=True)
class AlignedPair:
    """Two images of one field whose pixels belong together."""

    low: Micrograph
    high: Micrograph  # Same field, `scale` times as many pixels on each axis
    scale: int
    # Percentiles 0.1 and 99.9 of each field
    low_range: FloatPair
    high_range: FloatPair
    resampled: bool  # Whether either was brought to another grid

    def read(self, box: Box) -> tuple[NDArray[Any], NDArray[Any]]:
        """Read the patches of a box.

        `box`: in pixels of LOW; gives low, high (Y, X).
        """
        fine = box.scaled(self.scale)
        return read_box(self.low.data, box), read_box(self.high.data, fine)


def stated_scale(low: Micrograph, high: Micrograph) -> int | None:
    """Tell how many HIGH pixels a LOW pixel has, by what both images say.

    Parameters
    ----------
    low, high : Micrograph
        Two images of one field.

    Returns
    -------
    int or None
        1 to 4, by the pixel sizes, or by the numbers of pixels where neither has one;
        None where that is no whole number.
    """
    sizes = low.pixel_size_nm, high.pixel_size_nm
    if sizes == (None, None):
        ratio = np.array(high.shape) / np.array(low.shape)
    elif sizes[0] is None or sizes[1] is None:
        return None
    else:
        ratio = np.array(sizes[0]) / np.array(sizes[1])
    whole = int(np.round(ratio[0]))
    fits = 1 <= whole <= _MOST and bool(np.all(np.abs(ratio / whole - 1) < _STATED))
    return whole if fits else None


def align(low: Micrograph, high: Micrograph, options: PairOptions) -> AlignedPair:
    """Bring two images of one field onto one grid.

    Images that fit each other pixel by pixel are left as they are. Others need their
    pixel sizes; where neither says where it lies, their outer corners are taken to
    coincide, and what only one of them shows is left out.
    """
    shrink = 1.0 if options.crop is None else options.crop / options.patch
    if _fit(low, high, options):
        low, high = rescale(low, shrink), rescale(high, shrink)
        resampled = shrink != 1
    else:
        low, high = _to_one_pixel(low, high, options, shrink)
        resampled = True
    rows, columns = (
        min(a, b // options.factor) for a, b in zip(low.shape, high.shape, strict=True)
    )
    return AlignedPair(
        low=low.replace(data=low.data[:rows, :columns]),
        high=high.replace(
            data=high.data[: rows * options.factor, : columns * options.factor]
        ),
        scale=options.factor,
        low_range=field_range(low.data, *_PERCENTILES),
        high_range=field_range(high.data, *_PERCENTILES),
        resampled=resampled,
    )


def _fit(low: Micrograph, high: Micrograph, options: PairOptions) -> bool:
    """Whether two images fit pixel by pixel."""
    wanted = tuple(n * options.factor for n in low.shape)
    if wanted != high.shape:
        return False
    a, b = low.pixel_size_nm, high.pixel_size_nm
    if a is None or b is None:
        return options.pixel_nm is None
    ratio = np.array(a) / np.array(b) / options.factor
    same = bool(np.all(np.abs(ratio - 1) < _SAME))
    target = options.pixel_nm
    return same and (target is None or bool(np.allclose(b, target, rtol=_SAME)))


def _to_one_pixel(
    low: Micrograph, high: Micrograph, options: PairOptions, shrink: float
) -> tuple[Micrograph, Micrograph]:
    """Resample both images, HIGH to the common pixel and LOW to `scale` times that."""
    a, b = low.pixel_size_nm, high.pixel_size_nm
    if a is None or b is None:
        bare = low.name if a is None else high.name
        msg = (
            f"Two images of {_sides(low)} and {_sides(high)} px can be paired at scale "
            f"{options.factor} by their pixel sizes, but {bare} has none: give "
            "--low-pixel-nm and --high-pixel-nm, or crop them to one grid."
        )
        raise ShapeError(msg)
    fine = (options.pixel_nm or float(np.sqrt(b[0] * b[1]))) * shrink
    corners = _corners(low, high)
    start = np.maximum(*(corner[0] for corner in corners))
    stop = np.minimum(*(corner[1] for corner in corners))
    coarse = fine * options.factor
    rows, columns = (int(n) for n in np.floor((stop - start) / coarse + 1e-6))
    if min(rows, columns) < 1:
        msg = (
            f"{low.name} and {high.name} must show one field, and by their origins and "
            "pixel sizes they do not overlap: register them, or check the pixel sizes."
        )
        raise ShapeError(msg)
    made = []
    for image, corner, pitch, shape in (
        (low, corners[0][0], coarse, (rows, columns)),
        (high, corners[1][0], fine, (rows * options.factor, columns * options.factor)),
    ):
        made.append(_resample(image, start - corner, pitch, shape))
    return made[0], made[1]


def _sides(image: Micrograph) -> str:
    """Say the size of an image."""
    return f"{image.shape[0]} x {image.shape[1]}"


def _corners(*images: Micrograph) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Outer corners of images, in nm; all start at 0 where no origin is known."""
    placed = any(image.origin != (0.0, 0.0) for image in images)
    found = []
    for image in images:
        pitch = np.array(image.scale)
        first = np.array(image.origin) - pitch / 2 if placed else np.zeros(2)
        found.append((first, first + pitch * np.array(image.shape)))
    return found


def _resample(
    image: Micrograph, offset_nm: NDArray[Any], pitch_nm: float, shape: IntPair
) -> Micrograph:
    """Sample an image on another grid whose outer corner lies `offset_nm` inside."""
    pitch = np.array(image.scale)
    ratio = pitch_nm / pitch
    first = (offset_nm + pitch_nm / 2) / pitch - 0.5
    data = _sampled(image.array(), ratio, first, shape)
    corner = np.array(image.origin) - pitch / 2 + offset_nm
    return image.replace(
        data=data,
        pixel_size_nm=pitch_nm,
        origin=(float(corner[0] + pitch_nm / 2), float(corner[1] + pitch_nm / 2)),
    )


def _sampled(
    data: NDArray[Any],
    ratio: NDArray[Any],
    first: NDArray[Any],
    shape: IntPair,
) -> Float32Array:
    """Sample by cubic splines, smoothed first where the new grid is coarser."""
    values = data.astype(np.float32)
    sigma = np.maximum((ratio - 1) / 2, 0)
    if np.any(sigma > 0):
        values = ndimage.gaussian_filter(values, sigma, mode="mirror")
    made: Float32Array = ndimage.affine_transform(
        values, ratio, offset=first, output_shape=shape, order=3, mode="mirror"
    )
    return made


def rescale(image: Micrograph, shrink: float) -> Micrograph:
    """Make an image's pixels larger.

    `shrink`: new pixel over old; 1 leaves the image as it is.
    """
    if shrink == 1:
        return image
    shape = [max(1, int(n / shrink + 1e-6)) for n in image.shape]
    first = np.full(2, (shrink - 1) / 2)
    data = _sampled(image.array(), np.full(2, shrink), first, (shape[0], shape[1]))
    pitch = tuple(p * shrink for p in image.scale)
    origin = tuple(
        o + p * (shrink - 1) / 2 for o, p in zip(image.origin, image.scale, strict=True)
    )
    calibrated = image.pixel_size_nm is not None
    return image.replace(
        data=data,
        origin=origin,
        **({"pixel_size_nm": pitch} if calibrated else {"spacing_px": pitch}),
    )


def one_side(
    image: Micrograph, pitch_nm: float | None, options: PairOptions
) -> tuple[Micrograph, FloatPair, bool]:
    """Bring an image of an unpaired set to the common pixel, where that is known.

    `pitch_nm`: that pixel before the crop is resized; gives the image, its percentiles
    0.1 and 99.9, and whether anything was changed.
    """
    shrink = 1.0 if options.crop is None else options.crop / options.patch
    own = image.mean_pixel_size_nm
    if pitch_nm is not None and own is not None and abs(pitch_nm / own - 1) > _SAME:
        shrink *= pitch_nm / own
    made = rescale(image, shrink)
    return made, field_range(made.data, *_PERCENTILES), shrink != 1
