"""Restoration methods, prepared once per field and applied equally to all its tiles.

What depends on the image (the blur's width, the noise, the weight of smoothness, the
kernel of blind deconvolution) is measured on a few blocks of the field, never on a
tile. A field of any size is then processed tile by tile, in bounded memory.

Iterative methods (Richardson-Lucy with total variation, blind) need grey values of at
least 0. One iteration depends on twice the kernel's radius, and one pixel more for each
difference of total variation, so that with a halo of that many pixels times the
iterations a tile equals the untiled result.

Linear ones (Wiener, constrained least squares) are a finite filter. Computed for a
whole field it would depend on all pixels, including wrap-around. Here its impulse
response is cropped where the remaining weight is below `_TOLERANCE`, so that pixels do
not depend on the tiling.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any, Literal, Self

import numpy as np
import scipy  # submodules are loaded lazily
from pydantic import field_validator
from scipy import ndimage
from skimage import restoration

from napari_semsr import core
from napari_semsr.restoration.psf import PointSpreadFunction, parse_psf
from napari_semsr.restoration.structure import MEASURING, has_structure

# Blur and noise of a field, estimated from its spectrum.
#
# The radially averaged power of an image is modelled as::
#
#     P(f) = A f**-p |H(f)|**2 + N
#
# with a power law for the sample, the transfer function ``H`` of the blur, and white
# noise of variance ``N``; ``f`` is in cycles per pixel, for oblong pixels per their
# shorter side. If ``H`` is known, ``A``, ``p`` and ``N`` are fitted, otherwise also the
# width of a Gaussian. The fit needs only a few blocks.

# Size of the blocks read; chosen: 16 blocks, a million pixels, suffice for a radial
# mean.
_BLOCK = 256

# Range of the fit; chosen: exponents around the start value of 2.4, since exponent and
# blur are correlated; blurs up to 8 px, from several start values.
_EXPONENTS = (1.8, 3.2)


@dataclass(frozen=True, slots=True)
class SpectrumModel:
    """Model of the power spectrum of an image."""

    amplitude: float  # ``A`` of the sample's power law
    exponent: float  # ``p``
    noise: float  # Variance of the white noise, in squared grey levels
    sigma_px: float | None = None  # Of the Gaussian blur; None if that is known

    def compute_noise_to_signal(self, frequency: core.FloatArray) -> core.FloatArray:
        """Return the noise-to-signal power ratio; `frequency`: cycles per pixel."""
        return np.asarray(self.noise / self.amplitude * frequency**self.exponent)


@dataclass(frozen=True, slots=True)
class RadialPower:
    """Power spectrum of a field, and its radial average."""

    plane: core.FloatArray  # (S, S) by frequency, in the order of `numpy.fft.fft2`
    frequency: core.FloatArray  # (N,) Cycles per pixel
    power: core.FloatArray  # (N,) Mean squared amplitude; the variance for white noise
    weight: core.FloatArray  # (N,) Number of samples in a ring
    least: float  # Variance due to rounding only
    # Shorter side of a pixel over its sides, ``(y, x)``
    steps: core.FloatPair = (1.0, 1.0)

    @classmethod
    def from_blocks(
        cls,
        blocks: list[core.FloatArray],
        dtype: np.dtype[np.generic],
        steps: core.FloatPair = (1.0, 1.0),
    ) -> Self:
        """Average the power of blocks (N, N) over rings."""
        side = blocks[0].shape[0]
        line = np.hanning(side + 2)[1:-1]
        window = np.outer(line, line)
        power = np.zeros((side, side))
        for block in blocks:
            centred_block = block - float((block * window).sum() / window.sum())
            power += np.abs(np.fft.fft2(centred_block * window)) ** 2
        power /= len(blocks) * float((window**2).sum())
        least = 1 / 12 if dtype.kind in "iub" else 0.0
        return cls(power, *_average_rings(power, steps), least, steps)

    def average_transfer(self, kernel: core.FloatArray) -> core.FloatArray:
        """Average the squared transfer function of a kernel over the rings, (N,)."""
        side = max(*self.plane.shape, *kernel.shape)
        power = np.abs(np.fft.fft2(kernel, (side, side))) ** 2
        centres, means, _ = _average_rings(power, self.steps)
        return np.asarray(np.interp(self.frequency, centres, means))

    def compute_noise_to_signal(
        self, grain: SpectrumModel, kernel: core.FloatArray, side: int
    ) -> core.FloatArray:
        """Compute the noise-to-signal power ratio, (side, side // 2 + 1).

        From a model, but measured where the sample's power is far above the model.
        `kernel` (N, M).
        """
        y, x = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]
        frequency = np.hypot(y * self.steps[0], x * self.steps[1])
        ratio = grain.compute_noise_to_signal(frequency)
        rows, columns = (np.rint(f * len(self.plane)).astype(int) for f in (y, x))
        at = rows, columns % len(self.plane)
        power = self.plane[at] / grain.noise
        # width of the median around a line, in frequencies; chosen
        nearby = ndimage.median_filter(self.plane, 9, mode="wrap")[at]
        transmission = np.abs(np.fft.rfft2(kernel, (side, side))) ** 2
        with np.errstate(divide="ignore"):
            line = power > _LINE * (1 + transmission / ratio)
        line &= self.plane[at] > _LINE * nearby  # not broad, as due to vibration
        # below that transmission, chosen, the model may be wrong
        np.divide(np.maximum(transmission, 1e-2), power - 1, out=ratio, where=line)
        return ratio

    def fit_model(self, kernel: core.FloatArray | None = None) -> SpectrumModel:
        """Fit the spectrum model; `kernel` (N, M): the blur, if known."""
        # rings affected by the window's leakage
        keep = np.arange(self.frequency.size) >= 3
        f, power = self.frequency[keep], np.maximum(self.power[keep], 1e-300)
        log_power, share = np.log(power), np.sqrt(f)
        log_transfer = np.zeros_like(f)
        if kernel is not None:
            transfer = self.average_transfer(kernel)[keep]
            log_transfer = np.log(np.maximum(transfer, 1e-30))
        floor = np.log(max(self.least, float(power.max()) * 1e-14))

        def compute_residual(p: core.FloatArray) -> core.FloatArray:
            gauss = log_transfer if p.size == 3 else -4 * np.pi**2 * p[3] ** 2 * f**2
            model = np.logaddexp(p[0] - p[1] * np.log(f) + gauss, p[2])
            return np.asarray((model - log_power) * share)

        low = [-300.0, _EXPONENTS[0], floor - 1e-9, 0.0]
        # range of the blur; chosen
        high = [300.0, _EXPONENTS[1], max(log_power.max(), floor) + 1, 8.0]
        first = log_power[0] + 2.4 * np.log(f[0])
        quiet = float(np.clip(log_power.min(), low[2] + 1e-9, high[2] - 1e-9))
        start = [first, 2.4, quiet]
        # a width without effect would mislead the fit
        sigmas = (0.5, 1.0, 2.0, 4.0)  # chosen
        starts = [[*start, s] for s in sigmas] if kernel is None else [start]
        fits = [
            scipy.optimize.least_squares(
                compute_residual, p, bounds=(low[: len(p)], high[: len(p)])
            )
            for p in starts
        ]
        best = min(fits, key=lambda fit: float(fit.cost)).x
        width = float(best[3]) if kernel is None else None
        amplitude, exponent = float(np.exp(best[0])), float(best[1])
        grain = SpectrumModel(amplitude, exponent, float(np.exp(best[2])), width)
        if kernel is None and (grain.compute_noise_to_signal(f) >= 1).all():
            return replace(grain, sigma_px=0.0)  # it is undetermined
        return grain


def read_sample_blocks(data: core.ReadableArray) -> list[core.FloatArray]:
    """Read a few evenly spaced square blocks of a field.

    `data` (Y, X); returns (N, N) grey values, reflected beyond the border of a small
    field. Blocks with non-finite pixels are omitted; if all have some, these are filled
    with the nearest finite pixel.
    """
    whole: list[core.FloatArray] = []
    blocks_with_gaps: list[core.FloatArray] = []
    for box in (boxes := _list_sample_boxes(data)):
        block = core.read_box(data, box).astype(float)
        finite = np.isfinite(block)
        if finite.all():
            whole.append(block)
        elif finite.any():
            blocks_with_gaps.append(core.fill_gaps(block, finite))
    return whole or blocks_with_gaps or [np.zeros(boxes[0].shape)]


def _list_sample_boxes(data: core.ReadableArray) -> list[core.Box]:
    rows, columns = (int(n) for n in data.shape)
    # side of a block; chosen
    side = min(_BLOCK, max(32, min(rows, columns)))
    corners = []
    for size in (rows, columns):
        # maximum number of blocks along each axis
        count = min(4, max(1, round(size / side)))
        corners.append(np.rint(np.linspace(0, max(size - side, 0), count)).astype(int))
    return [core.Box.from_shape((side, side), (y, x)) for y, x in product(*corners)]


def _measure_border_error(
    data: core.ReadableArray, kernel: core.FloatArray
) -> core.Job[float]:
    """Measure how far a blurred field (Y, X) depends on what is beyond its border.

    Returns the mean square change, over the known pixels of the sample blocks, if what
    is missing, or beyond the border, is turned over there instead of mirrored.
    """
    margin = int(max(kernel.shape)) // 2
    total, count = 0.0, 0
    for box in _list_sample_boxes(data):
        yield MEASURING
        window = core.read_box(data, box.grow(margin)).astype(float)
        known = np.isfinite(window)
        for axis, (start, size) in enumerate(zip(box.corner, data.shape, strict=True)):
            at = np.arange(window.shape[axis]) + start - margin
            known &= np.expand_dims((at >= 0) & (at < size), 1 - axis)
        inner_slices = _get_inner_slices(window.shape, margin)
        inner = known[inner_slices]
        count += int(np.count_nonzero(inner))
        if known.all() or not inner.any():
            continue
        nearest = ndimage.distance_transform_edt(
            ~known, return_distances=False, return_indices=True
        )
        mirrored = 2 * nearest - np.indices(window.shape)
        limits = np.reshape(window.shape, (2, 1, 1)) - 1
        values = np.where(known, window, window[tuple(nearest)])
        change = 2 * (values[tuple(np.clip(mirrored, 0, limits))] - values)
        error = scipy.signal.oaconvolve(np.where(known, 0, change), kernel, "same")
        total += float((error[inner_slices][inner] ** 2).sum())
    return total / max(count, 1)


def _average_rings(
    power: core.FloatArray, steps: core.FloatPair
) -> tuple[core.FloatArray, core.FloatArray, core.FloatArray]:
    """Return frequency, mean and number of samples of each ring of a square plane."""
    side = len(power)
    y, x = (np.fft.fftfreq(side) * side * step for step in steps)
    ring = np.rint(np.hypot(y[:, None], x[None, :])).astype(np.intp).ravel()
    count = np.bincount(ring)[: side // 2].astype(float)
    sums = np.bincount(ring, power.ravel())[: count.size]
    return np.arange(count.size) / side, sums / np.maximum(count, 1), count


Method = Literal["wiener", "unsupervised-wiener", "richardson-lucy", "blind", "cls"]

_ITERATIVE = {"method": ("richardson-lucy", "blind")}
_ITERATIONS = 10  # of both iterative methods, as in Gao et al.'s blind deconvolution


class RestoreOptions(core.Options):
    """Options for a restoration."""

    method: Method = core.option(
        "wiener",
        "Method",
        "Wiener filter, unsupervised Wiener filter, Richardson-Lucy, blind "
        "deconvolution, constrained least squares. Linear filters are fast; "
        "Richardson-Lucy keeps grey levels positive; blind deconvolution also "
        "estimates the blur.",
        choices={
            "Wiener": "wiener",
            "Wiener, unsupervised": "unsupervised-wiener",
            "constrained least squares": "cls",
            "Richardson-Lucy": "richardson-lucy",
            "blind": "blind",
        },
    )
    psf: str = core.option(
        "estimate",
        "Blur",
        "blur: sigma of a Gaussian with its unit, such as 1.5px or 12nm, an image "
        "file of the kernel, microscope.json of a simulation, estimate, or for blind "
        "a flat start kernel, such as flat7px. Set it if it is known: an estimate "
        "cannot distinguish blur from a soft sample.",
    )
    iterations: int = core.option(
        _ITERATIONS,
        "Iterations",
        "iterations of richardson-lucy and blind; more are sharper and noisier",
        when=_ITERATIVE,
        ge=1,
        le=1000,
    )
    tv: float = core.option(
        0.0,
        "Total variation",
        "weight of smoothness between edges, total variation, in richardson-lucy and "
        "blind; 0.002 is usual, 0 for none",
        step=0.001,
        when=_ITERATIVE,
        ge=0,
        le=0.2,
    )
    balance: float | None = core.option(
        None,
        "",
        "weight of smoothness in the linear methods; by default from the noise of "
        "the image",
        when={"method": ("wiener", "unsupervised-wiener", "cls")},
        gt=0,
    )
    seed: int = core.option(
        0,
        "",
        "makes unsupervised-wiener repeatable",
        when={"method": ("unsupervised-wiener",)},
        ge=0,
    )
    tile: int | None = core.option(
        None, "", "side of a tile in px; by default 512", ge=32
    )
    dtype: core.GreyType = core.option(
        None, "", "type of the grey values in the output; by default float32"
    )

    @field_validator("psf")
    @classmethod
    def _check_psf(cls, value: str) -> str:
        """Check that the blur is given as a width, a file name or a keyword."""
        try:
            parse_psf(value)
        except core.OptionError as error:
            message = core.Message(str(error), core.get_error_code(error))
            raise ValueError(message) from None
        return value


# Iterative methods.

_TINY = 1e-12  # chosen, far below any grey value: prevents division by 0
_STEEPEST = 4.0  # largest factor by which total variation changes a pixel; chosen


def _richardson_lucy(
    image: core.FloatArray, kernel: core.FloatArray, *, iterations: int, tv: float = 0.0
) -> Iterator[core.FloatArray | None]:
    """Restore by Richardson-Lucy [1]_, yielding None before the result.

    .. [1] N. Dey et al., Microsc. Res. Tech. 69, 260 (2006), eq. 13,
       doi:10.1002/jemt.20294.
    """
    mirrored_kernel = kernel[::-1, ::-1]
    estimate = np.full(image.shape, 0.5)
    for _ in range(iterations):
        yield None
        blurred_estimate = scipy.signal.convolve(estimate, kernel, mode="same") + _TINY
        ratio = image / blurred_estimate
        factor = scipy.signal.convolve(ratio, mirrored_kernel, mode="same")
        if not tv:
            estimate *= factor
            continue
        # the curvature: divergence of the normalised gradient
        down = np.diff(estimate, axis=0, append=estimate[-1:])
        right = np.diff(estimate, axis=1, append=estimate[:, -1:])
        # gradient, over the range, below which total variation ignores it; chosen
        length = np.sqrt(down**2 + right**2 + 1e-4**2)
        down, right = down / length, right / length
        curvature = np.diff(down, axis=0, prepend=0) + np.diff(right, axis=1, prepend=0)
        damping = np.clip(1 - tv * curvature, 1 / _STEEPEST, _STEEPEST)
        estimate = np.maximum(estimate * factor / damping, 0)
    yield estimate


def _estimate_kernel(
    block: core.FloatArray, start: core.FloatArray, *, iterations: int
) -> core.Job[core.FloatArray]:
    """Estimate the blur and the sample alternately [1]_.

    .. [1] D. A. Fish et al., J. Opt. Soc. Am. A 12, 58 (1995),
       doi:10.1364/JOSAA.12.000058.
    """
    convolve = partial(scipy.signal.fftconvolve, mode="valid")
    pad = [(n // 2, n // 2) for n in start.shape]
    kernel, sample = start.copy(), np.maximum(block, _TINY)
    for _ in range(iterations):
        yield MEASURING
        wide = np.pad(sample, pad, mode="reflect")
        ratio = block / np.maximum(convolve(wide, kernel), _TINY)
        kernel = kernel * convolve(wide, ratio[::-1, ::-1])[::-1, ::-1]
        kernel = np.maximum(kernel, 0)
        kernel /= kernel.sum()
        ratio = block / np.maximum(convolve(wide, kernel), _TINY)
        wide = np.pad(ratio, pad, mode="reflect")
        factor = convolve(wide, kernel[::-1, ::-1])
        sample = np.maximum(sample * factor, _TINY)
    return np.asarray(kernel)


# Linear methods.

# Weight of the omitted taps over the weight of all: an error bound; chosen: a
# thousandth of the range, as halos grow with accuracy.
_TOLERANCE = 1e-3

# times the model, above which power is due to periodic structure: noise in one block
# does not reach it by chance at any frequency
_LINE = 20.0
# share of the blurred sample's power attributed to a wrong kernel; chosen
_MISMATCH = 0.1
_LAPLACIAN = np.array([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]])


@dataclass(frozen=True, slots=True)
class FilterKernel:
    """A filter kernel of finite size."""

    # (2 R + 1, 2 R + 1) Sum of one: a constant field is unchanged
    weights: core.FloatArray
    left_out: float  # Weight of the cropped taps, over the weight of all

    @property
    def radius(self) -> int:
        """Radius in pixels."""
        return int(self.weights.shape[0]) // 2


def _get_plane_side(kernel: core.FloatArray) -> int:
    """Return the side length, in pixels, of the plane used to compute a filter."""
    # px; chosen: impulse responses are shorter, except for wide kernels
    return max(256, 4 * int(max(kernel.shape)))


def _create_wiener_filter(
    kernel: core.FloatArray, balance: float, regulariser: core.FloatArray | None = None
) -> FilterKernel:
    """Crop scikit-image's Wiener impulse response to its significant part.

    By default it is regularised with a Laplacian. The cropped share of the sum is
    distributed equally over all taps, since their sum is small compared to their
    weight.
    """
    side = _get_plane_side(kernel)
    half, point = side // 2, np.zeros((side, side))
    point[half, half] = 1
    reg = None if regulariser is None else regulariser.astype(complex)
    response = restoration.wiener(point, kernel, balance, reg=reg, clip=False)
    y, x = np.indices(response.shape) - half
    reach = np.maximum(np.abs(y), np.abs(x)).ravel()
    inside = np.cumsum(np.bincount(reach, np.abs(response).ravel()))
    beyond = 1 - inside / inside[-1]
    radius = int(np.clip(np.argmax(beyond <= _TOLERANCE), 1, half - 1))
    part = slice(half - radius, half + radius + 1)
    kept_part = response[part, part] / response.sum()
    kept_part = kept_part + (1 - kept_part.sum()) / kept_part.size
    return FilterKernel(kept_part, float(beyond[radius]))


def _choose_regularisation_weight(
    kernel: core.FloatArray, rings: RadialPower, noise: float
) -> float:
    """Choose the regularisation weight so that the misfit equals the noise.

    The constraint of constrained least squares [1]_: the mean square of ``image - blur
    * result`` is the variance of the noise, plus a hundred-thousandth of the image's
    variance for a blur that is not known exactly.

    .. [1] B. R. Hunt, IEEE Trans. Comput. C-22, 805 (1973),
       doi:10.1109/TC.1973.5009169.
    """
    blur = rings.average_transfer(kernel)
    rough = rings.average_transfer(_LAPLACIAN)
    total = rings.weight.sum()
    # share of an image's variance attributed to a wrong kernel; chosen
    allowed_error = noise + 1e-5 * float((rings.power * rings.weight).sum() / total)

    def compute_excess(exponent: float) -> float:
        roughness = 10**exponent * rough
        missing = (roughness / np.maximum(blur + roughness, 1e-300)) ** 2
        error = (missing * rings.power * rings.weight).sum() / total
        return float(error) - allowed_error

    low, high = -6.0, 6.0  # of the balance, decimal; chosen: gains up to 1000
    if compute_excess(low) >= 0 or compute_excess(high) <= 0:
        return float(10 ** (low if compute_excess(low) >= 0 else high))
    return float(10 ** scipy.optimize.brentq(compute_excess, low, high))


# A field, tile by tile.

# Largest halo of iterative methods, in px; larger ones are cropped, with an error.
# Chosen: a tile of 512 px is then read as 832, 2.6 times its pixels; the error is
# measured for each field (`tolerance`).
LARGEST_HALO = 160
_SHARPEST_PX = 0.3  # chosen: a narrower Gaussian hardly affects neighbouring pixels


@dataclass(frozen=True, slots=True)
class Restorer:
    """Restoration prepared for a field, applicable to any window of it."""

    low: float  # Smallest grey value of the field
    high: float  # Largest
    psf: PointSpreadFunction  # The blur to correct
    options: RestoreOptions
    taps: FilterKernel | None  # The filter of a linear method
    halo: int  # Margin of a window in pixels
    reach: int  # Receptive field; larger than `halo` if that was cropped
    measurements: dict[str, object]  # Parameters measured on the field

    @property
    def is_exact(self) -> bool:
        """Whether tiled results equal the untiled result, except for rounding."""
        return self.reach <= self.halo

    def get_parameters(self) -> dict[str, object]:
        """Return all parameters that affect the result, for JSON."""
        values: dict[str, object] = {"psf": self.psf.to_json(), **self.measurements}
        if self.taps is None:
            values |= {"iterations": self.options.iterations, "tv": self.options.tv}
        else:
            values["left_out"] = self.taps.left_out
        return {**values, "halo_px": self.halo, "exact": self.is_exact}

    def _restore_window(
        self, window: core.RealArray, halo: int
    ) -> Iterator[core.Float32Array | None]:
        """Restore finite grey values (Y, X) of a window and crop the halo."""
        span, inner = self.high - self.low, _get_inner_slices(window.shape, halo)
        values = window.astype(float)
        if span <= 0:
            yield values[inner].astype(np.float32)
            return
        values = (values - self.low) / span
        if self.taps is not None:
            spare = _get_inner_slices(values.shape, halo - self.taps.radius)
            output = scipy.signal.oaconvolve(values[spare], self.taps.weights, "valid")
            yield (output * span + self.low).astype(np.float32)
            return
        steps = _richardson_lucy(
            np.maximum(values, 0),
            self.psf.kernel,
            iterations=self.options.iterations,
            tv=self.options.tv,
        )
        for step in steps:
            whole = None if step is None else step[inner] * span + self.low
            yield None if whole is None else whole.astype(np.float32)

    def create_plan(self, shape: core.IntPair) -> core.TilePlan:
        """Divide a field into tiles whose windows include the halo."""
        # px; chosen: with the largest halo less than 10 MB of doubles
        side = min(self.options.tile or 512, max(shape))
        return core.plan_tiles(shape, core=side, halo=self.halo)

    def restore_tiles(
        self,
        data: core.ReadableArray,
        plan: core.TilePlan,
        places: Collection[core.IntPair] | None = None,
    ) -> Iterator[tuple[core.Tile, core.Float32Array | None]]:
        """Restore all or some tiles of a field (Y, X), which may be lazy.

        Yields the tile and the grey values of its core, NaN where the input had none;
        before them None between two iterations.
        """
        for index in [tile.index for tile in plan] if places is None else places:
            tile = plan.tile(*index)
            for values in self._restore_box(data, tile.core, self.halo):
                yield tile, values

    def measure_tolerance(
        self, data: core.ReadableArray, plan: core.TilePlan
    ) -> core.Job[float]:
        """Measure the error due to a cropped halo, at the centre of the field (Y, X).

        Returns the largest difference between a corner of a tile and the same pixels
        with the full halo of the method, over the field's range; 0 if tiles are exact.
        """
        span = self.high - self.low
        if self.is_exact or span <= 0:
            return 0.0
        row, column = (n // 2 for n in plan.grid)
        inner = plan.tile(row, column).core
        # px; chosen: the tolerance is measured at the cost of one small tile
        side = min(48, *inner.shape)
        box = core.Box.from_shape((side, side), inner.corner)
        results: list[Any] = [None, None]
        for number, halo in enumerate((self.halo, min(self.reach, 3 * self.halo))):
            for values in self._restore_box(data, box, halo):
                results[number] = values
                yield MEASURING
        gap = np.abs(results[0].astype(float) - results[1])
        return float(np.nanmax(gap, initial=0.0)) / span

    def _restore_box(
        self, data: core.ReadableArray, box: core.Box, halo: int
    ) -> Iterator[core.Float32Array | None]:
        """Restore a box of a field that is reflected beyond its border.

        Missing pixels are filled with the nearest known one. If they affect a known
        pixel, it is within the diagonal of the halo, so that tiles are filled alike.
        """
        window = core.read_box(data, box.grow(halo))
        missing = np.zeros(window.shape, bool)
        if window.dtype.kind == "f":
            missing = ~np.isfinite(window)
        missing_part = missing[_get_inner_slices(window.shape, halo)]
        if missing_part.all():
            yield np.full(box.shape, np.nan, np.float32)
            return
        if missing.any():
            more = math.ceil(math.sqrt(2) * halo)
            wide = core.read_box(data, box.grow(halo + more))
            without_gaps = core.fill_gaps(wide, np.isfinite(wide))
            window = without_gaps[_get_inner_slices(wide.shape, more)]
        for output in self._restore_window(window, halo):
            if output is not None:
                output[missing_part] = np.nan
            yield output


def _get_inner_slices(shape: tuple[int, ...], width: int) -> tuple[slice, slice]:
    rows, columns = shape
    return slice(width, rows - width), slice(width, columns - width)


def prepare_restoration(
    micrograph: core.Micrograph,
    options: RestoreOptions,
    kernel: core.Micrograph | None = None,
) -> core.Job[Restorer]:
    """Prepare the restoration of an image: measure its grey range and some blocks.

    `kernel` is the blur, if `options` name a file.

    Raises
    ------
    ReadError
        If the field has no finite pixel, or if the blur is to be estimated and the
        field shows no structure.
    OptionError
        If the blur cannot be used.
    """
    low, high, limit = math.inf, -math.inf, np.finfo(np.float32).max
    for chunk in core.read_chunks(micrograph.data):
        yield MEASURING
        finite = np.clip(chunk[np.isfinite(chunk)], -limit, limit).astype(np.float32)
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high:
        msg = (
            f"{micrograph.name} has no finite pixels to restore: check that the file "
            "was written or copied completely."
        )
        raise core.ReadError(msg, code="no-finite-values")
    blocks = read_sample_blocks(micrograph.data)
    y, x = micrograph.scale
    steps = min(y, x) / y, min(y, x) / x
    rings = RadialPower.from_blocks(blocks, micrograph.dtype, steps)
    psf = _create_known_psf(micrograph, options, kernel)
    flat = high <= low
    if (psf is None or options.method == "blind") and not flat:
        if not (yield from has_structure(blocks)):
            msg = (
                f"The blur cannot be estimated from {micrograph.name}, which shows "
                "only noise or a gradient: choose an area with edges, or set the blur "
                "(`psf`)."
            )
            raise core.ReadError(msg, code="too-little-detail")
        yield MEASURING
    if psf is None:
        sigma = max(_SHARPEST_PX, 0.0 if flat else rings.fit_model().sigma_px or 0.0)
        sigmas = sigma * steps[0], sigma * steps[1]  # same width in nm on both axes
        psf = PointSpreadFunction.from_sigma(sigmas, kind="estimated")
    if options.method == "blind" and not flat:
        # use the block with the most contrast
        block = (max(blocks, key=lambda b: float(b.std())) - low) / (high - low)
        kernel_found = yield from _estimate_kernel(
            np.maximum(block, 0), psf.kernel, iterations=options.iterations
        )
        psf = PointSpreadFunction.from_image(kernel_found, "the estimate", kind="blind")
    if options.method in ("blind", "richardson-lucy"):
        # px: range of two successive differences
        step = 2 * (max(psf.kernel.shape) // 2) + (2 if options.tv else 0)
        reach = options.iterations * step
        halo = min(reach, LARGEST_HALO)
        return Restorer(low, high, psf, options, None, halo, reach, {})
    grain = SpectrumModel(1.0, 2.0, 1.0) if flat else rings.fit_model(psf.kernel)
    # least noise assumed, over the grey range; chosen: avoids 1 / 0
    grain = replace(grain, noise=max(grain.noise, (1e-5 * (high - low)) ** 2))
    border = yield from _measure_border_error(micrograph.data, psf.kernel)
    yield MEASURING
    taps, numbers = _compute_filter(psf, grain, rings, blocks, options, border)
    numbers["noise_std"] = float(np.sqrt(grain.noise))
    yield MEASURING
    return Restorer(low, high, psf, options, taps, taps.radius, taps.radius, numbers)


def _create_known_psf(
    micrograph: core.Micrograph, options: RestoreOptions, kernel: core.Micrograph | None
) -> PointSpreadFunction | None:
    """Create the requested kernel; None if it must be estimated."""
    choice = parse_psf(options.psf)
    if choice.kind == "gaussian":
        size = micrograph.pixel_size_nm if choice.unit == "nm" else (1.0, 1.0)
        if size is None:
            msg = (
                f"A blur of {choice.sigma:g} nm needs an image with a pixel size, but "
                "this image has none: set `pixel_size_nm`, or give the blur in px."
            )
            raise core.OptionError(msg, code="pixel-size-missing")
        sigmas = choice.sigma / size[0], choice.sigma / size[1]
        return PointSpreadFunction.from_sigma(sigmas)
    if choice.kind == "flat":
        ones = np.ones((choice.side, choice.side))
        return PointSpreadFunction.from_image(ones, "the flat kernel", kind="flat")
    if choice.kind == "file" and kernel is not None:
        point_spread = PointSpreadFunction.from_image(kernel.array(), kernel.name)
        own, its = micrograph.pixel_size_nm, kernel.pixel_size_nm
        if own is None or its is None:
            return point_spread.resample_centred()
        return point_spread.resample_centred((own[0] / its[0], own[1] / its[1]))
    return None


def _compute_filter(
    psf: PointSpreadFunction,
    grain: SpectrumModel,
    rings: RadialPower,
    blocks: list[core.FloatArray],
    options: RestoreOptions,
    border: float,
) -> tuple[FilterKernel, dict[str, object]]:
    """Compute the filter of a linear method, and its parameters.

    Errors due to the `border`, in squared grey levels, are amplified like noise.

    .. [1] F. Orieux et al., J. Opt. Soc. Am. A 27, 1593 (2010),
       doi:10.1364/JOSAA.27.001593.
    """
    balance = options.balance
    if options.method == "wiener" and balance is None:
        side = _get_plane_side(psf.kernel)
        y, x = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]
        frequency = np.hypot(y * rings.steps[0], x * rings.steps[1])
        # A blur is never known exactly. Its error counts as noise too: a tenth of the
        # blurred sample's power, averaged over neighbouring frequencies. This matters
        # only where a kernel transmits nothing.
        power = rings.average_transfer(psf.kernel)
        # rings over which that power is averaged; chosen
        transmission = ndimage.gaussian_filter1d(power, 3.0)
        wrong = _MISMATCH * np.interp(frequency, rings.frequency, transmission)
        # lines and gratings exceed any power law at some frequencies
        noisy = replace(grain, noise=grain.noise + border)
        ratio = rings.compute_noise_to_signal(noisy, psf.kernel, side)
        taps = _create_wiener_filter(psf.kernel, 1.0, np.sqrt(ratio + wrong))
        return taps, {"balance": None, "exponent": grain.exponent}
    if balance is None and options.method == "cls":
        # the result fits the middle between both: half of the change is left
        allowed_error = grain.noise + border / 4
        balance = _choose_regularisation_weight(psf.kernel, rings, allowed_error)
    elif balance is None:
        # The balance and the image are sampled jointly by Gibbs sampling [1]_. The
        # chain starts near the noise. The block is tapered: the error of the border
        # adds to the noise that is found in it.
        block = max(blocks, key=lambda b: float(b.std()))
        line = scipy.signal.windows.tukey(block.shape[0], 0.5)
        scale = max(float(np.sqrt(grain.noise)), 1e-12)
        tapered_block = (block - block.mean()) * np.outer(line, line) / scale
        beyond = np.maximum(np.subtract(psf.kernel.shape, block.shape), 0)
        tapered_block = np.pad(tapered_block, [(0, side) for side in beyond])
        rng = np.random.default_rng(options.seed)
        _, chains = restoration.unsupervised_wiener(
            tapered_block, psf.kernel, clip=False, rng=rng
        )
        # burn-in of the chain; scikit-image's, chosen
        prior, quiet = (np.mean(chains[k][15:]) for k in ("prior", "noise"))
        balance = float(prior * (1 / quiet + border / scale**2))
    return _create_wiener_filter(psf.kernel, balance), {"balance": balance}
