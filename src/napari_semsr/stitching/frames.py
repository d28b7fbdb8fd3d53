"""Frames prepared for matching: corrected, weighted, band-passed, cached."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from napari_semsr import core
from napari_semsr.stitching.flat_field import FlatField, choose_evenly_spaced_indices

# Chosen: 240 frames of 512 px in float32, with weights and without, so that neighbours
# in the previous row are still cached; frames of larger scans are corrected again.
_CORRECTED_BYTES = 480 << 20
_BANDED_BYTES = 256 << 20
# Widths of the band-pass in px, as in the recorded trials: correlation of its output
# has errors of 0.04 to 0.10 px, after a Laplacian of 0.24 to 1.0 px.
FRAME_BAND = _FINE, _COARSE = 0.5, 5.0
"""Standard deviations of the two band-pass Gaussians, in px."""
_ROUNDING = 1e-6  # share of a grey value: rounding of float32 in both filters
# Standard deviation of white noise after a Gaussian of 0.5 px: along one axis the sum
# of the squared weights is 0.641, whose root is the factor for each axis.
FINE_NOISE = 0.64
# Frames whose noise and grain are measured; chosen: median and mean are steady enough.
_SAMPLE = 16
# Immerkaer (1996): a plane gives 0, white noise 6 times its standard deviation.
_CROSS = np.array([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])


LOBES = 3
"""Pixels to each side that the Lanczos kernel of the mosaic uses.

After Duchon, J. Appl. Meteorol. 18, 1016 (1979); three are chosen: sharper than two,
with less ringing than four.
"""


def fill_missing_pixels(
    raw: core.RealArray,
) -> tuple[core.Float32Array, core.BoolArray]:
    """Fill missing pixels with the nearest valid ones; return image and valid mask."""
    single = raw.astype(np.float32)
    finite = np.isfinite(single)
    if not finite.any():
        return np.zeros_like(single), finite
    if not finite.all():
        single = core.fill_gaps(single, finite)
    return single, finite


# Grey values whose fourth powers and their sums float32 can represent, also those of
# their noise; chosen: frames within this range are not scaled.
_LOWEST, _HIGHEST = 1e-3, 1e6
_USUAL = 10  # power of 2; chosen: between 8 and 16 bits
_SCALE_FRAMES = 3  # frames of a scan; chosen: all have the same settings
_STRIDE = 4  # px; chosen: enough for a quantile


@dataclass(frozen=True, slots=True)
class _ScaledFrames:
    """Frames with grey values scaled losslessly by a power of 2."""

    whole: core.Frames
    power: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.whole.shape

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return np.dtype(np.float32)

    def __getitem__(self, index: int) -> core.RealArray:
        return np.ldexp(self.whole[index].astype(np.float32), self.power)


def rescale_extreme_values(
    scans: Sequence[core.Acquisition],
) -> tuple[list[core.Acquisition], int]:
    """Scale extreme grey values to a normal range, using one factor for all scans.

    Returns the scans, and the power of 2 by which their values are multiplied.
    """
    levels = [0.0]
    for scan in scans:
        if scan.dtype.itemsize <= 2:
            continue
        for index in choose_evenly_spaced_indices(len(scan), _SCALE_FRAMES):
            frame = scan.read(index)[::_STRIDE, ::_STRIDE]
            magnitudes = np.abs(frame.astype(np.float32))
            magnitudes = magnitudes[np.isfinite(magnitudes)]
            if magnitudes.size:
                levels.append(float(np.quantile(magnitudes, 0.99)))
    level = max(levels)
    if level == 0 or _LOWEST <= level <= _HIGHEST:
        return list(scans), 0
    power = _USUAL - math.frexp(level)[1]
    return [s.replace(frames=_ScaledFrames(s.frames, power)) for s in scans], power


def _apply_low_pass(image: core.Float32Array, sigma: float) -> core.Float32Array:
    return np.asarray(
        ndimage.gaussian_filter(image, sigma, mode="constant", truncate=3.0)
    )


def _interpolate_planes(
    planes: tuple[core.Float32Array, core.Float32Array, core.BoolArray],
    places: core.FloatArray,
) -> tuple[core.Float32Array, core.Float32Array, core.BoolArray]:
    """Sample a frame, its weights and its clipped pixels at positions (2, Y, X)."""
    image, weight, is_clipped = planes
    image = ndimage.map_coordinates(image, places, order=3, mode="nearest")
    if is_clipped.any():
        is_clipped = ndimage.map_coordinates(is_clipped, places, order=0)
    return image, _interpolate_weight(weight, places), is_clipped


def _interpolate_weight(
    weight: core.Float32Array, places: core.FloatArray
) -> core.Float32Array:
    """Interpolate a weight map at positions (2, Y, X)."""
    # a position is valid only if all of its source pixels are
    around = ndimage.minimum_filter(weight, 3, mode="constant")
    weights = ndimage.map_coordinates(around, places, order=1)
    # chosen: less is a remainder of interpolation outside the frame
    return np.where(weights > 0.02, weights, np.float32(0)).astype(np.float32)


# Share of a frame's pixels; chosen: without clipping hardly any pixels of noise have
# the largest or smallest grey value
_CLIPPED_SHARE = 1e-3


class CorrectedFrames:
    """Frames of an acquisition, corrected for shading.

    Corrects `gains` (N,) and `offsets` (N,), in grey values above the dark level, of
    each frame; `rotations` (N, 2), rotation in radians and relative scale minus 1 of
    each frame; and the `distortion` of the field about `centre_px` from the centre of
    the frame (`napari_semsr.core.distort_positions`).
    """

    def __init__(
        self,
        acquisition: core.Acquisition,
        flat: FlatField,
        gains: NDArray[np.float64] | None = None,
        rotations: NDArray[np.float64] | None = None,
        distortion: float = 0.0,
        centre_px: core.FloatPair = (0.0, 0.0),
        offsets: core.FloatArray | None = None,
    ) -> None:
        self.acquisition = acquisition
        self.flat = flat
        self.gains = np.ones(len(acquisition)) if gains is None else gains
        self.offsets = np.zeros(len(acquisition)) if offsets is None else offsets
        none = np.zeros((len(acquisition), 2))
        self.rotations = none if rotations is None else rotations
        self._inverse = np.where(flat.valid, 1 / np.maximum(flat.flat, 1e-3), 0)
        self._inverse = self._inverse.astype(np.float32)
        self.distortion, self.centre_px = distortion, centre_px
        # inverse variance of a pixel of an unrotated frame of gain 1
        self.weight = flat.weight
        if distortion:
            grid = np.indices(flat.flat.shape, np.float64)
            self._places = self._undistort_positions(grid)
            self.weight = _interpolate_weight(flat.weight, self._places)
        self.root = np.sqrt(self.weight)
        low_passes = (_apply_low_pass(self.weight, s) for s in (_FINE, _COARSE))
        self._low_passes = [np.maximum(plane, 1e-6) for plane in low_passes]
        self._corrected_cache = core.BoundedCache(_CORRECTED_BYTES)
        self._banded_cache = core.BoundedCache(_BANDED_BYTES)

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Shape of one frame, (rows, columns)."""
        return self.acquisition.frame_shape

    def correct(self, index: int) -> tuple[core.Float32Array, core.Float32Array]:
        """Return the corrected frame and its weight map, both (Y, X)."""
        return self.get_planes(index)[:2]

    def find_clipped(self, index: int) -> core.BoolArray:
        """Return the mask of clipped pixels in a corrected frame."""
        return self.get_planes(index)[2]

    def get_planes(
        self, index: int
    ) -> tuple[core.Float32Array, core.Float32Array, core.BoolArray]:
        """Return the corrected frame, its weight map and its clipped pixels, (Y, X)."""
        planes: tuple[core.Float32Array, core.Float32Array, core.BoolArray] | None
        planes = self._corrected_cache.get(index)
        if planes is None:
            planes = self._correct_frame(index)
            self._corrected_cache.put(index, planes)
        return planes

    def _correct_frame(
        self, index: int
    ) -> tuple[core.Float32Array, core.Float32Array, core.BoolArray]:
        raw, gain = self.acquisition.read(index), float(self.gains[index])
        brightness = np.float32(gain**2)
        weight = self.flat.weight if gain == 1 else self.flat.weight * brightness
        single, usable = fill_missing_pixels(raw)
        whole = bool(usable.all())
        is_clipped = core.mark_clipped_pixels(single, _CLIPPED_SHARE)
        if not whole:  # interpolation reaches into holes
            usable = ndimage.minimum_filter(usable, 2 * LOBES + 1, mode="nearest")
            weight = np.where(usable, weight, 0).astype(np.float32)
        single -= np.asarray(self.flat.dark + self.offsets[index], np.float32)
        single *= self._inverse
        if gain != 1:
            single /= np.float32(gain)
        planes = single, weight, is_clipped
        if self.rotations[index].any():
            turn, scale = self.rotations[index]  # about the frame's centre
            matrix = (1 + scale) * np.array(
                [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
            )
            centre = (np.array(self.frame_shape) - 1) / 2
            grid = np.indices(self.frame_shape, np.float64)
            places = np.einsum("ab,byx->ayx", matrix, grid)
            places += (centre - matrix @ centre)[:, None, None]
            return _interpolate_planes(planes, self._undistort_positions(places))
        if not self.distortion:
            return planes
        image, weight, is_clipped = _interpolate_planes(planes, self._places)
        if whole:
            weight = self.weight if gain == 1 else self.weight * brightness
        return image, weight, is_clipped

    def _undistort_positions(self, places: core.FloatArray) -> core.FloatArray:
        """Map positions (2, …) in undistorted frames to raw-frame pixels."""
        if not self.distortion:
            return places
        rows, columns = places
        y, x = core.undistort_positions(
            rows, columns, self.frame_shape, self.distortion, centre=self.centre_px
        )
        # positions that no pixel shows are outside the frame
        return np.nan_to_num(np.stack([y, x]), nan=-2.0)

    def compute_raw_positions(self, places: core.FloatArray) -> core.FloatArray:
        """Map positions (M, 2) in undistorted frames to raw-frame pixels."""
        return self._undistort_positions(places.T).T

    def compute_stretch(self) -> tuple[core.Float32Array, core.Float32Array]:
        """Compute each pixel's y and x displacement per pixel of rim displacement."""
        is_plain = not self.distortion
        places = np.indices(self.frame_shape, np.float64) if is_plain else self._places
        rows, columns = places
        y, x = core.compute_radial_displacement(
            rows, columns, self.frame_shape, centre=self.centre_px
        )
        return y.astype(np.float32), x.astype(np.float32)

    def copy_with_changes(
        self,
        acquisition: core.Acquisition | None = None,
        *,
        rotations: core.FloatArray | None = None,
        distortion: float | None = None,
        flat: FlatField | None = None,
        gains: core.FloatArray | None = None,
        offsets: core.FloatArray | None = None,
    ) -> "CorrectedFrames":
        """Return a copy with other frames, corrections, gains or offsets."""
        return CorrectedFrames(
            self.acquisition if acquisition is None else acquisition,
            self.flat if flat is None else flat,
            self.gains if gains is None else gains,
            self.rotations if rotations is None else rotations,
            self.distortion if distortion is None else distortion,
            self.centre_px,
            self.offsets if offsets is None else offsets,
        )

    @cached_property
    def grain(self) -> float:
        """Typical area of a detail in the band-passed frames, in pixels.

        From the correlation of the squares, minus that of the weight: for normal values
        this is the sum of the squared correlations, for a few grains in noise the area
        of a grain.
        """
        power = np.zeros(self.frame_shape)
        total = max(float(self.weight.sum()), 1e-30)
        for index in choose_evenly_spaced_indices(len(self.acquisition), _SAMPLE):
            square = self.band_pass(index) ** 2
            square = square - self.weight * (float(square.sum()) / total)
            power += np.abs(fft.fft2(square)) ** 2
        likeness = fft.ifft2(power).real
        y, x = (side * np.fft.fftfreq(side) for side in power.shape)
        radius = np.hypot(y[:, None], x)
        ring = np.rint(radius).astype(int).ravel()
        mean = np.bincount(ring, likeness.ravel()) / np.bincount(ring)
        # up to the next detail; the band-pass removes wider ones
        reach = int(np.argmin(mean[: round(3 * _COARSE) + 1]))
        likeness -= mean[reach]
        lobe = float(likeness[radius <= reach].sum())
        return max(lobe / max(float(likeness[0, 0]), 1e-30), 1.0)

    def band_pass(self, index: int) -> core.Float32Array:
        """Return the band-passed frame (Y, X), normalised to uniform noise variance.

        Gaussian of 0.5 px minus Gaussian of 5 px, by normalised convolution, times the
        root of the weight; 0 outside the field. ``~index`` is that frame rotated by 180
        degrees.
        """
        is_turned, index = index < 0, max(index, ~index)
        band: core.Float32Array | None = self._banded_cache.get(index)
        if band is None:
            band = self._compute_band(index)
            self._banded_cache.put(index, band)
        return band[::-1, ::-1] if is_turned else band

    def _compute_band(self, index: int) -> core.Float32Array:
        image, weight, _ = self.get_planes(index)
        product = image * self.weight
        fine, coarse = (
            _apply_low_pass(product, sigma) / low_pass
            for sigma, low_pass in zip((_FINE, _COARSE), self._low_passes, strict=True)
        )
        band = ((fine - coarse) * self.root).astype(np.float32)
        # for a single grey value, rounding leaves the same pattern in every frame
        band[(weight == 0) | (np.abs(fine - coarse) <= _ROUNDING * np.abs(coarse))] = 0
        return band

    def reduce_frame(self, index: int, factor: int) -> core.Float32Array:
        """Return the downsampled band-passed frame, (Y // factor, X // factor)."""
        image, weight = self.correct(index)
        rows, columns = (side // factor for side in image.shape)
        cut = (slice(rows * factor), slice(columns * factor))

        def average_blocks(plane: core.Float32Array) -> core.Float32Array:
            shape = (rows, factor, columns, factor)
            return np.asarray(plane[cut].reshape(shape).mean(axis=(1, 3)))

        small_weight = average_blocks(weight)
        small = average_blocks(image * weight)
        total = np.maximum(_apply_low_pass(small_weight, _COARSE), 1e-6)
        level = _apply_low_pass(small, _COARSE) / total
        own = small / np.maximum(small_weight, 1e-6)
        band = (own - level) * np.sqrt(small_weight)
        return np.where(small_weight > 0, band, np.float32(0))


def estimate_noise(frames: CorrectedFrames) -> float:
    """Estimate the pixel noise of the raw frames.

    The median over some frames of the robust scatter of mixed second differences, which
    a smooth image hardly has (Immerkaer, Comput. Vis. Image Underst. 64, 300 (1996),
    doi:10.1006/cviu.1996.0060).
    """
    inside = ndimage.binary_erosion(frames.flat.valid, np.ones((3, 3)))
    levels = []
    for index in choose_evenly_spaced_indices(len(frames.acquisition), _SAMPLE):
        frame = frames.acquisition.read(index).astype(np.float32)
        smooth = ndimage.convolve(frame, _CROSS, mode="nearest")[inside]
        levels.append(1.4826 * np.nanmedian(np.abs(smooth)) / 6)
    return max(float(np.median(levels)), 1e-9)


def compute_band_noise(noise: float) -> float:
    """Return the noise power per pixel of the band-passed frames."""
    return (FINE_NOISE * noise) ** 2
