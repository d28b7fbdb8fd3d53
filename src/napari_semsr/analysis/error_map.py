"""Error maps: where an enhanced image disagrees with its reference.

SQUIRREL [1]_ tests whether an enhanced image E, blurred as by the microscope,
reproduces the reference: a (E * G(s)) + b. Blur and grey levels are fitted, and the
residual is mapped. Its root mean square over all pixels is the resolution-scaled error
(RSE), and Pearson's r of both sides the resolution-scaled correlation (RSP).

For each width s the best a and b follow from linear regression, so that only s is
searched. Gaussian filtering of an image with reflected borders is a product of cosine
transforms: two transforms of a block are enough for all s. A finer enhanced image is
blurred on its own pixels and averaged over those of the reference, by folding
coefficients: no data are interpolated.

.. [1] S. Culley et al., Nat. Methods 15, 263 (2018), doi:10.1038/nmeth.4605.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Literal, Self

import numpy as np
import scipy  # the submodules are loaded lazily
from scipy import fft, ndimage

from napari_semsr import core
from napari_semsr.analysis.misfit import compute_block_means, split_into_blocks

_LEAST = 16  # smallest side of a gap-free part for fitting the blur; chosen
_REACH = 4.0  # standard deviations at which a Gaussian is truncated, as in SciPy
_WIDEST_PX = 16.0  # largest sigma, in px of the reference; chosen: a FWHM of 38 px
_CLOSE_PX = 1e-3  # precision to which sigma is refined; chosen
_FLAT = 1e-12  # share of the mean square: a smaller variance is rounding
_COARSER = 1.25  # ratio above which the enhanced image counts as having larger pixels
_MIN_KNOWN = 0.5  # weight of known pixels under a Gaussian; chosen


class ErrorMapOptions(core.Options):
    """Options for an error map."""

    unit: Literal["grey", "percent"] = core.option(
        "grey",
        "Map in",
        "Unit of the map: grey levels of the reference, or per cent of its grey-level "
        "range (percentiles 0.1 to 99.9).",
        choices={"grey levels": "grey", "per cent of the range": "percent"},
    )
    align: bool = core.option(
        True,
        "Find the shift first",
        "Estimate and correct the subpixel shift of the enhanced image.",
    )
    search: int | None = core.option(
        None,
        "Search",
        "Search radius for the shift, in pixels of the reference; by default 8.",
        unit="px",
        when={"align": (True,)},
        ge=1,
        le=512,
    )

    @property
    def search_radius_px(self) -> int:
        """Search radius for the shift, in pixels of the reference."""
        # largest shift, px; chosen
        return self.search or 8


@dataclass(frozen=True, slots=True)
class BlurAndGainFit:
    """Fitted blur, gain and offset between an enhanced image and its reference."""

    alpha: float  # gain and offset of its grey levels
    beta: float
    # grey levels near the means of the reference and the enhanced image, subtracted
    # before sums and single precision, as squares of a large offset lose the contrast
    levels: core.FloatPair
    # standard deviation of the Gaussian, in pixels of the enhanced image placed over
    # the reference; for oblong pixels in their geometric mean
    sigma_px: float
    # root mean square residual of the fit, in grey levels of the reference
    residual: float
    # share of pixels that were fitted: 1 unless the field is large or has gaps
    looked_at: float
    widest: bool  # whether the search ended at the largest sigma

    def warn_if_doubtful(self, reference: str, enhanced: str) -> None:
        """Warn if the fit suggests that the named images do not show the same field."""
        if self.widest:
            core.warn(
                f"The fitted blur between {enhanced} and {reference} is at the "
                f"search limit ({self.sigma_px:.3g} px): the images may show "
                "different areas, or differ in shading, which the map shows as error.",
                "blur-too-wide",
            )
        if self.alpha <= 0:
            core.warn(
                f"The grey levels of {enhanced} are inverted relative to {reference} "
                f"(gain {self.alpha:.3g}): invert one of the images or use another "
                "reference.",
                "contrast-inverted",
            )


@dataclass(frozen=True, slots=True)
class AlignedPair:
    """Pair of a reference and an enhanced image aligned to it."""

    reference: core.GridImage  # overlap of both images
    enhanced: core.GridImage  # the same area in pixels that are `factor` times finer
    # pixels of the enhanced image per pixel of the reference, along an axis
    factor: int

    @classmethod
    def from_images(
        cls,
        reference: core.Micrograph,
        enhanced: core.Micrograph,
        shift_px: core.FloatPair = (0.0, 0.0),
    ) -> Self:
        """Align an enhanced image with a reference, without reading pixels.

        The enhanced image has the same or finer pixels, and is moved by `shift_px`, in
        pixels of the reference.
        """
        grid = core.Grid.from_image(reference)
        own_grid = _find_enhanced_grid(reference, enhanced)
        down, right = (s * p for s, p in zip(shift_px, grid.pitch, strict=True))
        own_grid = own_grid.move((down, right))
        box = grid.covered_box(own_grid)
        if box is None:
            msg = (
                f"{enhanced.name} and {reference.name} do not overlap; check their "
                "origins and pixel sizes, or register the images (`register()`)."
            )
            raise core.ShapeError(msg, code="no-overlap")
        ratio = [a / b for a, b in zip(grid.pitch, own_grid.pitch, strict=True)]
        if min(ratio) * _COARSER < 1:
            is_coarser = max(ratio) <= _COARSER  # along both axes
            exchange = f"exchange both if {enhanced.name} is the reference, or "
            msg = (
                f"The pixels of {enhanced.name} are {1 / min(ratio):.3g} times as "
                f"large as those of the reference {reference.name}: "
                f"{exchange * is_coarser}resample {enhanced.name} to the reference's "
                "pixels (`crop()` with `like`)."
            )
            raise core.ShapeError(msg, code="reference-finer")
        factor = max(1, round(math.sqrt(ratio[0] * ratio[1])))
        area = core.GridImage.from_image(reference, grid).crop(box)
        y, x = (pitch / factor for pitch in grid.pitch)
        fine = core.Grid(box.scale(factor).shape, (y, x), area.grid.corner)
        return cls(area, core.GridImage.from_image(enhanced, fine, own_grid), factor)

    @property
    def shape(self) -> core.IntPair:
        """Shape of the map, (rows, columns)."""
        return self.reference.grid.shape

    def get_axis_sigmas(self, sigma_px: float) -> core.FloatPair:
        """Return the standard deviations (y, x) in px of a Gaussian isotropic in nm."""
        y, x = core.compute_relative_pitch(self.enhanced.grid.pitch)
        return sigma_px / y, sigma_px / x

    def read(self, box: core.Box) -> tuple[core.FloatArray, core.FloatArray]:
        """Read a box, in pixels of the overlap, from both images.

        Each has its own pixels: those of the enhanced image are `factor` times finer.
        """
        fixed_block = self.reference.read(box).astype(np.float64)
        fine = self.enhanced.read(box.scale(self.factor))
        return fixed_block, fine.astype(np.float64)


def _find_enhanced_grid(
    reference: core.Micrograph, enhanced: core.Micrograph
) -> core.Grid:
    """Return the grid of an enhanced image relative to its reference."""
    grid, own_grid = core.Grid.from_image(reference), core.Grid.from_image(enhanced)
    ratio = [a / b for a, b in zip(own_grid.shape, grid.shape, strict=True)]
    whole = ratio[0] if ratio[0] == ratio[1] and ratio[0] == int(ratio[0]) else None
    same_unit = reference.unit == enhanced.unit
    alike = same_unit and np.allclose(own_grid.pitch, grid.pitch, rtol=1e-3)
    has_origin = reference.origin != (0.0, 0.0) or enhanced.origin != (0.0, 0.0)
    if whole and (not same_unit or (alike and whole > 1 and not has_origin)):
        if reference.unit != "pixel" and same_unit:
            core.warn(
                f"Based on its shape, {enhanced.name} is assumed to have pixels "
                f"{whole:g} times finer than {reference.name}, although both state "
                "the same pixel size. If the enhanced image covers a larger field, "
                "set its origin or crop it.",
                "pixel-size-contradicts",
            )
        y, x = (pitch / whole for pitch in grid.pitch)
        return core.Grid(own_grid.shape, (y, x), grid.corner)
    if not same_unit or (alike and reference.unit == "pixel" and whole is None):
        sizes = (f"{shape[0]}x{shape[1]} px" for shape in (grid.shape, own_grid.shape))
        msg = (
            "Without pixel sizes, the enhanced image must have the same shape as the "
            f"reference or an integer multiple of it, got {' and '.join(sizes)}; set "
            "pixel sizes, or resample the images to the same grid (`crop()`, "
            "`register()`)."
        )
        raise core.ShapeError(msg, code="sizes-differ")
    corner = own_grid.corner if has_origin else grid.corner
    return core.Grid(own_grid.shape, own_grid.pitch, corner)


@dataclass(frozen=True, slots=True)
class _BlockSpectrum:
    """Cosine coefficients of a block and its blur-independent sums."""

    # (Y, X) Of the reference if the enhanced image is finer; else their product with
    # those of the enhanced image
    coefficients: core.FloatArray
    # (factor Y, factor X) Of the enhanced image if that is finer; else their squares
    grey: core.FloatArray
    means: core.FloatPair  # coefficients of the zero frequency of both
    square: float  # sum of the reference's squares

    @classmethod
    def from_images(cls, reference: core.FloatArray, enhanced: core.FloatArray) -> Self:
        """Compute the cosine transform of a block without gaps."""
        first, second = (
            fft.dctn(part, norm="ortho", workers=core.count_available_cores())
            for part in (reference, enhanced)
        )
        means, square = (first[0, 0], second[0, 0]), float(np.vdot(first, first))
        if first.shape == second.shape:
            first *= second
            second *= second
        return cls(first, second, means, square)

    def compute_moments(
        self,
        gains: Callable[[int, float], core.FloatArray],
        sigmas: core.FloatPair,
        factor: int,
    ) -> core.FloatArray:
        """Sum 1, r, p, r², p² and rp over pixels (r: reference, p: blurred)."""
        rows, columns = map(gains, self.grey.shape, sigmas)
        count = self.coefficients.size
        mean = self.means[1] * rows[0] * columns[0]
        if factor == 1:
            power = float(rows**2 @ (self.grey @ columns**2))
            product = float(rows @ (self.coefficients @ columns))
        else:
            values = self.grey * rows[:, None]
            values *= columns
            for _ in range(2):
                values = _fold_coefficients(values, factor).T
            mean = values[0, 0]
            power = float(np.vdot(values, values))
            product = float(np.vdot(self.coefficients, values))
        sums = self.means[0] * math.sqrt(count), mean * math.sqrt(count)
        return np.array([count, *sums, self.square, power, product])


def _fold_coefficients(coefficients: core.FloatArray, factor: int) -> core.FloatArray:
    """Decimate in cosine space: fold the coefficients along the first axis."""
    size = coefficients.shape[0] // factor
    folded_sum = coefficients[:size].copy()
    for number in range(1, factor):
        part = coefficients[number * size : (number + 1) * size]
        turn = -1.0 if (number + 1) // 2 % 2 else 1.0
        if number % 2:
            folded_sum[1:] += turn * part[:0:-1]
        else:
            folded_sum[1:] += turn * part[1:]
            folded_sum[0] += turn * math.sqrt(2) * part[0]
    return folded_sum


def _compute_gaussian_gain(size: int, sigma: float, factor: int) -> core.FloatArray:
    """Return the cosine-space gain of a Gaussian and of `factor`-sample averaging."""
    wave = np.pi * np.arange(size) / size
    reach = int(_REACH * sigma + 0.5)
    gains = np.ones(size)
    if reach:
        places = np.arange(1, reach + 1)
        weights = np.exp(-0.5 * (places / sigma) ** 2)
        waves: core.FloatArray = np.cos(wave[:, None] * places) @ weights
        gains = (1 + 2 * waves) / (1 + 2 * weights.sum())
    if factor > 1:
        offsets = np.arange(factor) - (factor - 1) / 2
        gains *= np.cos(wave[:, None] * offsets).mean(axis=1) / math.sqrt(factor)
    return gains


def _fit_line(moments: core.FloatArray) -> tuple[float, float, float]:
    """Fit gain and offset; return them with the mean square residual."""
    count, first, second, squares, powers, product = moments
    spread = powers / count - (second / count) ** 2
    covariance = product / count - first * second / count**2
    whole = squares / count - (first / count) ** 2
    if spread <= _FLAT * max(powers / count, np.finfo(np.float64).tiny):
        return 0.0, first / count, whole
    gain = covariance / spread
    return gain, (first - gain * second) / count, max(0.0, whole - gain * covariance)


def fit_blur_and_gain(pair: AlignedPair) -> core.Job[BlurAndGainFit]:
    """Fit the blur, gain and offset between an enhanced image and its reference.

    Images of up to 2048 px are fitted as a whole, larger ones by eight evenly spaced
    blocks of 1024 px. Each is cropped to its largest part without gaps.
    """
    whole = core.Box.from_shape(pair.shape)
    boxes = [whole]
    # chosen: 0.3 GB as a whole, 2 s for eight blocks
    if max(pair.shape) * pair.factor > 2048:
        boxes = split_into_blocks(whole, 8, max(_LEAST, 1024 // pair.factor))
    blocks: list[_BlockSpectrum] = []
    levels: core.FloatPair | None = None
    for number, box in enumerate(boxes):
        yield core.Progress(number, len(boxes), "fitting blur and grey levels")
        coarse, fine = pair.read(box)
        usable = compute_block_means(np.isfinite(fine), pair.factor) == 1
        usable &= np.isfinite(coarse)
        part = core.find_gap_free_box(usable, least=_LEAST)
        if part is not None:
            both = coarse[part.slices], fine[part.scale(pair.factor).slices]
            levels = levels or (float(both[0].mean()), float(both[1].mean()))
            above = (one - level for one, level in zip(both, levels, strict=True))
            blocks.append(_BlockSpectrum.from_images(*above))
    if levels is None:
        msg = (
            f"An error map needs an area of at least {_LEAST}x{_LEAST} px that is "
            f"gap-free in both images, but {pair.reference.image.name} and "
            f"{pair.enhanced.image.name} have none."
        )
        raise core.ShapeError(msg, code="nothing-to-measure")

    def sum_moments(sigma: float) -> core.FloatArray:
        gains = cache(partial(_compute_gaussian_gain, factor=pair.factor))
        sigmas = pair.get_axis_sigmas(sigma)
        sums = [block.compute_moments(gains, sigmas, pair.factor) for block in blocks]
        return np.asarray(np.sum(sums, axis=0))

    plain_moments = sum_moments(0.0)
    _check_contrast(pair, levels, plain_moments)
    widest = _WIDEST_PX * pair.factor
    # chosen: twelve values before the best is refined; less than 0.25 has no effect
    steps = np.geomspace(0.25, widest, 11)
    places = np.concatenate([[0.0], steps])
    left = [_fit_line(sum_moments(float(sigma)))[2] for sigma in places]
    best = int(np.argmin(left))
    minimum = scipy.optimize.minimize_scalar(
        lambda sigma: _fit_line(sum_moments(sigma))[2],
        bounds=(places[max(0, best - 1)], places[min(best + 1, len(places) - 1)]),
        method="bounded",
        options={"xatol": _CLOSE_PX},
    )
    sigma = float(minimum.x if minimum.fun < left[best] else places[best])
    # rounding differences depend on the processor and do not show blur
    rounding = _FLAT * plain_moments[3] / plain_moments[0]
    if left[0] <= min(minimum.fun, left[best]) + rounding:
        sigma = 0.0
    total = sum_moments(sigma)
    gain, offset, rest = _fit_line(total)
    return BlurAndGainFit(
        alpha=float(gain),
        beta=float(offset + levels[0] - gain * levels[1]),
        levels=levels,
        sigma_px=sigma,
        residual=math.sqrt(rest),
        looked_at=float(total[0]) / (pair.shape[0] * pair.shape[1]),
        widest=sigma > widest - 2 * _CLOSE_PX,
    )


def _check_contrast(
    pair: AlignedPair, levels: core.FloatPair, moments: core.FloatArray
) -> None:
    """Raise an error if an image is constant where both overlap."""
    count, first, second, squares, powers, _ = moments
    for image, level, moment, square in (
        (pair.reference.image, levels[0], first, squares),
        (pair.enhanced.image, levels[1], second, powers),
    ):
        variance = square / count - (moment / count) ** 2
        # share of the squared level: a smaller variance is rounding of float32
        if variance <= _FLAT * square / count + 1e-13 * level**2:
            msg = (
                f"An error map needs contrast, but {image.name} is constant where "
                "the images overlap; choose another image."
            )
            raise core.ShapeError(msg, code="image-blank")


@dataclass
class ErrorSums:
    """Sums over the compared pixels, from which RSE and RSP are computed."""

    _sums: core.FloatArray = field(default_factory=lambda: np.zeros(6))

    def add(self, reference: core.Float32Array, prediction: core.Float32Array) -> None:
        """Add the pixels that are valid in both the reference and degraded image."""
        # pixels added to the sums at once; chosen: 10 MB
        step = max(1, (1 << 18) // reference.shape[1])
        for row in range(0, reference.shape[0], step):  # limits double-precision memory
            both = reference[row : row + step], prediction[row : row + step]
            finite = np.isfinite(both[0]) & np.isfinite(both[1])
            first, second = (part[finite].astype(np.float64) for part in both)
            sums = first.size, first.sum(), second.sum()
            rest = first - second
            self._sums += [*sums, first @ first, second @ second, rest @ rest]

    @property
    def pixel_count(self) -> int:
        """Number of pixels compared."""
        return int(self._sums[0])

    @property
    def rse(self) -> float:
        """Root mean square difference in grey levels of the reference."""
        return math.sqrt(self._sums[5] / self._sums[0])

    @property
    def rsp(self) -> float:
        """Pearson correlation coefficient."""
        count, first, second, squares, powers, rest = self._sums
        covariance = (squares + powers - rest) / 2 - first * second / count
        spread = (squares - first**2 / count) * (powers - second**2 / count)
        return float(covariance / math.sqrt(spread)) if spread > 0 else 0.0


@dataclass(frozen=True, slots=True)
class FittedPair:
    """An image pair with its fit, evaluated block by block."""

    pair: AlignedPair
    fit: BlurAndGainFit  # fit of the enhanced image to the reference

    def read(self, box: core.Box) -> tuple[core.Float32Array, core.Float32Array]:
        """Return a box of the reference and of the degraded enhanced image.

        The second is blurred and scaled by the fit; NaN where unknown. The level of
        the reference is subtracted from both.
        """
        level, own_level = self.fit.levels
        offset = self.fit.beta + self.fit.alpha * own_level - level
        whole_block = self.pair.reference.read(box)
        reference_block = np.subtract(whole_block, level, dtype=np.float64)
        result = np.empty(box.shape, np.float32)
        factor, sigmas = self.pair.factor, self.pair.get_axis_sigmas(self.fit.sigma_px)
        reach = math.ceil(int(_REACH * max(sigmas) + 0.5) / factor)
        whole = core.Box.from_shape(self.pair.shape)  # its borders are reflected
        # side in px of the parts that are mapped at once; chosen: 0.1 GB
        for part in split_into_blocks(box, None, 1024):
            window = part.grow(reach).intersection(whole)
            own_block = self.pair.enhanced.read(window.scale(factor))
            fine = np.subtract(own_block, own_level, dtype=np.float64)
            fine = fine.astype(np.float32)
            inner = part.relative_to(window).scale(factor).slices
            finite = np.isfinite(fine)
            if finite.all():
                smooth = _apply_gaussian_blur(fine, sigmas)
            else:  # normalise by the weights of known pixels; gaps remain gaps
                smooth = _apply_gaussian_blur(np.where(finite, fine, 0.0), sigmas)
                weight = _apply_gaussian_blur(finite.astype(np.float32), sigmas)
                smooth /= np.maximum(weight, _MIN_KNOWN)
                smooth[~finite | (weight < _MIN_KNOWN)] = np.nan
            means = compute_block_means(smooth[inner], factor)
            degraded_part = np.asarray(self.fit.alpha * means + offset, np.float32)
            result[part.relative_to(box).slices] = degraded_part
        return reference_block.astype(np.float32), result


def _apply_gaussian_blur(
    image: core.Float32Array, sigmas: core.FloatPair
) -> core.Float32Array:
    """Apply a Gaussian blur with reflected borders."""
    return np.asarray(ndimage.gaussian_filter(image, sigmas, truncate=_REACH))
