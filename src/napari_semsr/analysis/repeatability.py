"""Repeatability: difference between two scans of a field, and its noise fraction.

Neither of two scans is the ground truth. Exchanging them therefore changes only the
unit: grey levels are those of the first.

- *Position.* Both are moved by half of their shift, so that interpolation smooths both
  equally.
- *Grey levels.* b = offset + gain · B has the mean and the standard deviation of A.
  Least squares of A on B would ignore the noise of B and yield too small a gain, and of
  B on A too large a gain; this is their geometric mean. Total least squares would
  depend on the units. Noise has little influence, as averages over squares of 4 px are
  matched.
- *Difference.* (A - b) / √2 has the standard deviation of one scan [1]_.
- *Noise.* Noise is independent in neighbouring pixels, and everything else hardly
  changes between them: the mean square of fourth differences, divided by 70, its value
  for white noise of variance 1, is the noise variance, similar to [2]_. Scene and
  shading cancel in the difference, so that a sharp image is not mistaken for a noisy
  one. Along its lines the detector of an SEM correlates noise: differences are taken
  along the axis on which they are larger, across the lines. The loss of noise by
  interpolation follows from the kernel and is corrected.

.. [1] ISO 5725-2:2019, Accuracy of measurement methods and results, part 2.
.. [2] J. Immerkaer, Comput. Vis. Image Underst. 64, 300 (1996),
   doi:10.1006/cviu.1996.0060.
"""

import math
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from scipy import ndimage

from napari_semsr.analysis.common_grid import compute_block_means, split_into_blocks
from napari_semsr.core import (
    Box,
    Float32Array,
    FloatArray,
    FloatPair,
    Grid,
    GridImage,
    IntPair,
    Job,
    Micrograph,
    Progress,
    ShapeError,
)

_SQUARE = 4  # px; squares averaged before matching: 1/16 of the noise power; chosen
_PART = 1024  # side in px of the parts read at once; chosen: 0.1 GB
_LEAST = 16  # minimum squares for a standard deviation; chosen
_FLAT = 1e-12  # share of the mean square: smaller variances are rounding
_ALIKE = 1e-3  # tolerance of pixel sizes: 1 px in 1000; chosen
# Fourth differences: a cubic has none, and white noise of variance 1 a variance of 70
_ROUGH = np.array([1.0, -4.0, 6.0, -4.0, 1.0])
_ROUGH_POWER = float(_ROUGH @ _ROUGH)
# Bins of the map's values over the contrast, 1 % wide: a percentile is known to 0.5 %
_BINS = np.geomspace(1e-6, 1e3, 2084)
_PROBE = 17  # px, side of a point image that shows the kernel, of radius 3


@dataclass(frozen=True, slots=True)
class ScanPair:
    """Two aligned scans, each shifted by half the offset between them."""

    first: GridImage  # overlap of both, on one grid
    second: GridImage
    # share of the variance of white noise that remains after interpolation along ``(y,
    # x)``, for grey values and for their fourth differences along that axis
    noise_share: FloatPair
    kept_rough: FloatPair

    @classmethod
    def from_images(
        cls,
        first: Micrograph,
        second: Micrograph,
        shift_px: FloatPair = (0.0, 0.0),
    ) -> Self:
        """Align two scans of the same field with the same pixel size.

        The second is moved by `shift_px`. No pixels are read.
        """
        one, other = first.pixel_size_nm, second.pixel_size_nm
        if (one is None or other is None) and first.shape != second.shape:
            sizes = " and ".join(f"{r}x{c} px" for r, c in (first.shape, second.shape))
            msg = (
                f"Scans without pixel sizes must have the same shape, got {sizes}; set "
                "pixel sizes (`pixel_size_nm`), or crop one of them (`crop()`)."
            )
            raise ShapeError(msg, code="sizes-differ")
        if one and other and not np.allclose(one, other, rtol=_ALIKE):
            sizes = " and ".join(f"{y:.6g} x {x:.6g} nm" for y, x in (one, other))
            msg = (
                "Two scans of the same area must have the same pixel size, got "
                f"{sizes}; to compare an image with finer pixels, use `error_map()`."
            )
            raise ShapeError(msg, code="pixel-sizes-differ")
        grid = Grid.from_image(first)
        lies = Grid.from_image(second) if first.unit == second.unit else grid
        down, right = (v * p for v, p in zip(shift_px, grid.pitch, strict=True))
        lies = lies.move((down, right))
        # by half of the subpixel shift
        apart = (np.subtract(lies.corner, grid.corner) / grid.pitch).tolist()
        rest = [(v - round(v)) * p / 2 for v, p in zip(apart, grid.pitch, strict=True)]
        middle = grid.move((rest[0], rest[1]))
        boxes = middle.covered_box(grid), middle.covered_box(lies)
        box = boxes[0] and boxes[1] and boxes[0].intersection(boxes[1])
        if not box:
            msg = (
                f"{first.name} and {second.name} do not overlap; check their origins "
                "and pixel sizes, or register the images (`register()`)."
            )
            raise ShapeError(msg, code="no-overlap")
        areas = (
            GridImage.from_image(first, middle).crop(box),
            GridImage.from_image(second, middle, lies),
        )
        return cls(areas[0], areas[1].crop(box), *_compute_noise_fractions(areas[0]))

    @property
    def shape(self) -> IntPair:
        """Shape of the overlap, (rows, columns)."""
        return self.first.grid.shape

    def read(self, box: Box) -> tuple[FloatArray, FloatArray]:
        """Read a box, in pixels of the common grid, from both scans."""
        first, second = (
            area.read(box).astype(np.float64) for area in (self.first, self.second)
        )
        for part in (first, second):
            part[np.isinf(part)] = np.nan  # infinite means missing
        return first, second


def _compute_noise_fractions(area: GridImage) -> tuple[FloatPair, FloatPair]:
    """Return the noise fractions left by interpolation, in values and differences."""
    if not area.is_resampled:
        return (1.0, 1.0), (1.0, 1.0)
    point = np.zeros((_PROBE, _PROBE))
    point[_PROBE // 2, _PROBE // 2] = 1.0
    y, x = (float(offset) % 1 for offset in area.resampling.offsets)
    lies = Grid.from_image(Micrograph(point))
    kernel = GridImage.from_image(Micrograph(point), lies.move((y, x)), lies).read()
    down, across = kernel.sum(axis=1), kernel.sum(axis=0)
    rough = [np.convolve(one, _ROUGH) for one in (down, across)]
    power = [float(one @ one) for one in (down, across, *rough)]
    return (power[0], power[1]), (power[2] / _ROUGH_POWER, power[3] / _ROUGH_POWER)


def _compute_fourth_differences(values: FloatArray, axis: int) -> FloatArray:
    """Compute fourth differences along an axis; NaN at the border."""
    differences = np.full(values.shape, np.nan)
    np.moveaxis(differences, axis, 0)[2:-2] = np.diff(
        np.moveaxis(values, axis, 0), 4, axis=0
    )
    return differences


@dataclass(frozen=True, slots=True)
class GreyLevelMapping:
    """Grey-level mapping from the second scan to the first."""

    gain: float  # first = offset + gain · second
    offset: float
    correlation: float  # Pearson's r of both, averaged over squares of 4 px
    contrast: float  # standard deviation of the first scan's squares, grey levels
    axis: int  # along which noise is measured: 0 for y, across the lines of most scans
    # share of the noise variance that remains after interpolation, for grey values and
    # for their differences along `axis`
    noise_share: float
    kept_rough: float


def match_grey_levels(pair: ScanPair) -> Job[GreyLevelMapping]:
    """Match the grey levels of two scans without using either as reference.

    All squares without gaps are used.
    """
    boxes = split_into_blocks(Box.from_shape(pair.shape), None, _PART)
    squares = _BlockSums()
    roughs = np.zeros((2, 4))
    for number, box in enumerate(boxes):
        yield Progress(number, len(boxes), "matching grey levels")
        both = pair.read(box)
        squares.add(*(compute_block_means(part, _SQUARE) for part in both))
        for axis in (0, 1):
            first, second = (_compute_fourth_differences(part, axis) for part in both)
            finite = np.isfinite(first) & np.isfinite(second)
            first, second = first[finite], second[finite]
            roughs[axis] += [first.size, first @ first, first @ second, second @ second]
    means, power, cross_moments = squares.compute_moments(pair)
    gain = math.sqrt(power[0] / power[1])
    weights = np.array([0.0, 1.0, -2 * gain, gain**2])
    # noise along each axis, as if white along the other one
    noise = [
        max(0.0, float(rough @ weights)) / max(rough[0], 1.0) / is_kept
        for rough, is_kept in zip(roughs, pair.kept_rough, strict=True)
    ]
    axis = int(noise[1] > noise[0])
    # smooth noise loses less by interpolation, as it has less fine detail
    fine = noise[1 - axis] / noise[axis] if noise[axis] > 0 else 1.0
    across = 1 - (1 - pair.noise_share[1 - axis]) * fine
    return GreyLevelMapping(
        gain,
        means[0] - gain * means[1],
        cross_moments / math.sqrt(power[0] * power[1]),
        math.sqrt(power[0]),
        axis,
        pair.noise_share[axis] * across,
        pair.kept_rough[axis] * across,
    )


@dataclass
class _BlockSums:
    """Sums over squares of two scans, centred on their means for precision."""

    sums: FloatArray = field(default_factory=lambda: np.zeros(6))
    level: FloatPair | None = None

    def add(self, first: FloatArray, second: FloatArray) -> None:
        finite = np.isfinite(first) & np.isfinite(second)
        first, second = first[finite], second[finite]
        if not first.size:
            return
        if self.level is None:
            self.level = float(first.mean()), float(second.mean())
        first, second = first - self.level[0], second - self.level[1]
        sums = first.size, first.sum(), second.sum()
        self.sums += [*sums, first @ first, second @ second, first @ second]

    def compute_moments(self, pair: ScanPair) -> tuple[FloatPair, FloatPair, float]:
        """Return means, variances and covariance; raise an error if undetermined."""
        count, *rest = self.sums.tolist()
        if self.level is None or count < _LEAST:
            msg = (
                f"Two scans must share at least {_LEAST} gap-free squares of {_SQUARE} "
                f"px, got {count:.0f} in {pair.first.image.name} and "
                f"{pair.second.image.name}."
            )
            raise ShapeError(msg, code="nothing-to-measure")
        one, other, power, powers, cross_moments = (value / count for value in rest)
        means = self.level[0] + one, self.level[1] + other
        variances = power - one**2, powers - other**2
        for area, mean, variance in zip(
            (pair.first, pair.second), means, variances, strict=True
        ):
            if variance <= _FLAT * max(mean**2, np.finfo(np.float64).tiny):
                msg = (
                    f"Scans must have contrast, but {area.image.name} is constant in "
                    "the overlap; choose another scan."
                )
                raise ShapeError(msg, code="image-blank")
        return means, variances, cross_moments - one * other


@dataclass(frozen=True, slots=True)
class RepeatabilitySection:
    """Section of the map and its contribution to the overall results."""

    values: Float32Array  # grey levels; NaN where unknown
    sums: FloatArray  # pixels, their squares, differences, noise estimate


@dataclass(frozen=True, slots=True)
class ScanComparison:
    """Two matched scans, compared block by block."""

    pair: ScanPair
    match: GreyLevelMapping  # match of the grey levels
    part: str  # quantity of the map
    window: int  # pixels along the side of the windows

    def compare(self, box: Box) -> RepeatabilitySection:
        """Compare both scans in a box; return the map and its sums."""
        reach = self.window // 2 + len(_ROUGH) // 2
        around = box.grow(reach).intersection(Box.from_shape(self.pair.shape))
        first, second = self.pair.read(around)
        apart = first - self.match.offset - self.match.gain * second
        # per pixel of one scan: the variance, and that of white noise
        scale = 2 * _ROUGH_POWER * self.match.kept_rough
        power, noise = (
            apart**2 / 2,
            _compute_fourth_differences(apart, self.match.axis) ** 2 / scale,
        )
        inner = box.relative_to(around).slices
        finite = np.isfinite(power)
        kept_share = self.match.noise_share
        if self.window == 1:
            square = power
        else:
            grain = self._compute_local_mean(noise)
            square = self._compute_local_mean(power) + grain * (
                -kept_share if self.part == "rest" else 1 - kept_share
            )
        deviations = np.where(finite, np.sqrt(np.maximum(square, 0.0)), np.nan)[inner]
        own, rough = power[inner], noise[inner]
        sums = [np.isfinite(own).sum(), np.nansum(own)]
        sums += [np.isfinite(rough).sum(), np.nansum(rough)]
        return RepeatabilitySection(
            deviations.astype(np.float32), np.array(sums, dtype=float)
        )

    def _compute_local_mean(self, values: FloatArray) -> FloatArray:
        """Average the finite pixels in a window around each pixel; 0 if none."""
        finite = np.isfinite(values)
        if not finite.any():
            return np.zeros(values.shape)

        def sum_window(of: FloatArray) -> FloatArray:
            sums = ndimage.uniform_filter(of, self.window, mode="constant")
            if self.window % 2 == 0:  # centre it: the ends count half
                sums = ndimage.uniform_filter(sums, 2, mode="constant", origin=-1)
            return np.asarray(sums)

        weight = sum_window(finite.astype(np.float64))
        least = 0.125 / self.window**2  # half of the weight of a corner pixel
        sums = sum_window(np.where(finite, values, 0.0))
        return np.where(weight > least, sums / np.maximum(weight, least), 0.0)


@dataclass
class RepeatabilitySums:
    """Sums over all pixels, and the spread of the map's values."""

    field_of_pair: ScanComparison
    _sums: FloatArray = field(default_factory=lambda: np.zeros(4))
    _counts: FloatArray = field(default_factory=lambda: np.zeros(_BINS.size + 1))
    _map_sums: FloatArray = field(default_factory=lambda: np.zeros(2))

    def add(self, part: RepeatabilitySection) -> None:
        """Add the pixels of a section of the map."""
        self._sums += part.sums
        finite = part.values[np.isfinite(part.values)].astype(np.float64)
        self._map_sums += [finite.size, finite.sum()]
        places = np.searchsorted(_BINS, finite / self.field_of_pair.match.contrast)
        self._counts += np.bincount(places, minlength=self._counts.size)

    @property
    def pixel_count(self) -> int:
        """Number of pixels compared."""
        return int(self._sums[0])

    @property
    def sd(self) -> float:
        """Standard deviation of one scan in grey levels of the first."""
        lost_variance = (
            1 - self.field_of_pair.match.noise_share
        ) * self._noise_variance
        return math.sqrt(self._sums[1] / max(self._sums[0], 1.0) + lost_variance)

    @property
    def noise(self) -> float:
        """Standard deviation of one scan due to noise; at most `sd`."""
        return min(self.sd, math.sqrt(self._noise_variance))

    @property
    def _noise_variance(self) -> float:
        return float(self._sums[3] / max(self._sums[2], 1.0))

    @property
    def rest(self) -> float:
        """Standard deviation excluding noise; 0 if noise explains everything."""
        return math.sqrt(max(0.0, self.sd**2 - self.noise**2))

    @property
    def mean(self) -> float:
        """Mean of the map in grey levels."""
        return float(self._map_sums[1] / max(self._map_sums[0], 1.0))

    @property
    def p95(self) -> float:
        """95th percentile of the map, accurate to half a per cent."""
        counts = np.cumsum(self._counts)
        place = int(np.searchsorted(counts, 0.95 * counts[-1]))
        if place == 0:
            return 0.0
        low, high = _BINS[[place - 1, min(place, _BINS.size - 1)]].tolist()
        return float((low + high) / 2 * self.field_of_pair.match.contrast)
