"""Preparation of network inputs from images, and conversion of the outputs.

The field is resampled if the model was trained for another pixel size, scaled by grey
values measured over the whole field, and haze is removed if the model supports that.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import nn

from napari_semsr import core, models
from napari_semsr.inference.ensemble import core_step
from napari_semsr.inference.options import OutputPlan, ResamplingPlan

# Grey values: scaled by percentiles of the whole field, and back.

# px over which a gap is filled from its surroundings; chosen: with 32, the result of
# deblurring by 8 px is the same
_REACH = 24
_RING = 4  # width of the ring of pixels filled at a time; chosen
_EXACT_IN_FLOAT32 = 2  # bytes of integers that float32 represents exactly; chosen
_LARGEST = float(np.finfo(np.float32).max)


def _get_working_dtype(dtype: np.dtype[np.generic]) -> type[np.floating]:
    """Return float32 if it represents all values of a dtype exactly, else float64."""
    small = dtype.kind != "f" and dtype.itemsize <= _EXACT_IN_FLOAT32
    return np.float32 if small or dtype == np.float32 else np.float64


@dataclass(frozen=True, slots=True)
class Scaling:
    """Linear scaling of grey values, the same for the whole image."""

    low: float  # Grey value that becomes 0
    high: float  # Grey value that becomes 1; equal to `low` only in a constant field
    # Mean of the finite pixels, which replaces missing pixels without known neighbours.
    # Zero if no pixel is missing
    mean: float = 0.0
    back: bool = True  # Whether results return to the grey values of the input

    def normalise(self, window: core.RealArray) -> core.Float32Array:
        """Scale grey values (Y, X) to the input range of the network."""
        span = self.high - self.low or 1.0
        working = _get_working_dtype(window.dtype)
        values = np.subtract(window, working(self.low), dtype=working)
        values /= working(span)
        return np.ascontiguousarray(values, dtype=np.float32)

    def restore(self, values: core.Float32Array) -> core.Float32Array:
        """Scale a result (Y, X) back to the grey values of the input, in place."""
        if self.back:
            values *= np.float32(self.high - self.low)
            values += np.float32(self.low)
        return values


def measure_scaling(
    data: core.ReadableArray,
    percentiles: core.FloatPair,
    *,
    back: bool = True,
    counts: NDArray[np.int64] | None = None,
) -> Scaling:
    """Measure the grey-value scaling of an image (Y, X), chunk by chunk.

    Its pixels are not read if those of each grey value have been counted.
    """
    low, high = core.measure_percentiles(data, *percentiles, counts)
    if low == high:
        low, high = core.measure_percentiles(data, 0, 100, counts)
    if max(abs(low), abs(high)) >= _LARGEST:
        msg = (
            f"Grey values must be below {_LARGEST:.1e} to be enhanced in single "
            "precision; scale them down first."
        )
        raise core.ReadError(msg, code="values-too-large")
    mean = 0.0
    if np.dtype(data.dtype).kind == "f" and counts is not None:
        mean = float(counts @ np.arange(len(counts))) / max(1, int(counts.sum()))
    elif np.dtype(data.dtype).kind == "f":
        mean = core.compute_finite_mean(data)
    return Scaling(low, high, mean, back)


def compute_scaling(field: "PreparedField", card: models.ModelCard) -> Scaling:
    """Compute the grey-value scaling of an image as set by a model card."""
    back, data = card.grey == "input", field.samples
    if card.input_scaling == "percentiles":
        percentiles, counts = card.input_percentiles, field.counts
        return measure_scaling(data, percentiles, back=back, counts=counts)
    mean = core.compute_finite_mean(data)
    if card.input_scaling == "levels":
        return Scaling(*card.input_levels, mean, back)
    total, count = 0.0, 0  # total squared deviation of finite pixels from their mean
    for block in core.read_chunks(data):
        away = block[np.isfinite(block)].astype(np.float64) - mean
        total += float(np.square(away).sum())
        count += away.size
    return Scaling(mean, mean + math.sqrt(total / max(count, 1)), mean, back)


def get_source_box(box: core.Box, shape: core.IntPair) -> core.Box:
    """Return the image region that `read_window` may access."""
    wide_box = box.grow(_REACH)
    rows = core.reflect_indices(wide_box.y0, wide_box.y1, shape[0])
    columns = core.reflect_indices(wide_box.x0, wide_box.x1, shape[1])
    return core.Box(
        int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1
    )


def read_window(
    data: core.ReadableArray, box: core.Box, mean: float
) -> tuple[core.RealArray, core.BoolArray | None]:
    """Read a window (Y, X) with missing pixels filled, and their mask or None.

    A missing pixel gets the mean of the known ones among its 9 x 9 neighbours; then it
    counts as known for those further inside, up to 24 px, beyond which pixels get the
    field's mean. Neighbours outside the window are read too, so that the result does
    not depend on the tiling.
    """
    window = core.read_box(data, box)
    if window.dtype.kind != "f":
        return window, None
    missing = ~np.isfinite(window)
    if not missing.any():
        return window, None
    from scipy import ndimage  # imported if needed: 15 MB, and most images are complete

    wide = core.read_box(data, box.grow(_REACH))
    finite = np.isfinite(wide)
    without_gaps = np.where(finite, wide, 0)
    ones = np.ones(2 * _RING + 1)
    for _ in range(_REACH // _RING):
        sums = [without_gaps.astype(np.float64), finite.astype(np.float64)]
        for axis in (0, 1):
            sums = [
                ndimage.correlate1d(s, ones, axis=axis, mode="constant") for s in sums
            ]
        ring = ~finite & (sums[1] > 0.5)
        without_gaps[ring] = sums[0][ring] / sums[1][ring]
        finite |= ring
        if finite.all():
            break
    without_gaps[~finite] = mean
    return without_gaps[_REACH:-_REACH, _REACH:-_REACH], missing


def mask_missing_pixels(
    result: core.Float32Array, missing: core.BoolArray | None, scale: int
) -> None:
    """Set output pixels to NaN, in place, where input pixels are missing."""
    if missing is not None:
        rows, columns = missing.shape
        blocks = result.reshape(rows, scale, columns, scale)
        blocks.transpose(0, 2, 1, 3)[missing] = np.nan


# Haze: estimated once over the whole field, removed from each window.
#
# A network that estimates haze (`napari_semsr.models.InformedRestorer`) receives
# statistics of blocks of the whole field, and returns a small map of gains and one grey
# level. Each window is then corrected by its part of the map, so that tiles agree.

_WINDOW = 1024  # side of the windows in which haze is estimated; chosen
_WINDOWS = 4  # windows along each axis
_SPECTRUM_PX = 256  # side of the windows in which a spectrum is measured
LARGEST_MAP = 256  # blocks along an axis of a map of haze; chosen
# least share of finite pixels of a block to be used, and to count as complete; chosen
_MIN_FINITE, _NEARLY_COMPLETE = 0.5, 0.8
_ROUNDING_STEP = 2.0**-20  # of the range: a step in single precision
_GRAIN = 2  # px around a missing pixel used for its mean and noise


@dataclass(frozen=True, slots=True)
class HazeMap:
    """Gain map for haze removal, sampled at block centres."""

    gain: core.Float32Array  # Gain of each block; interpolated bilinearly
    pitch: int  # Side of a block in pixels
    airlight: float  # Grey level that the gain leaves unchanged

    @property
    def gain_range(self) -> core.FloatPair:
        """Smallest and largest gain."""
        return float(self.gain.min()), float(self.gain.max())

    def scale_strength(self, share: float) -> Self:
        """Return a map that removes a fraction of the haze, on a log scale."""
        return replace(self, gain=self.gain ** np.float32(share))

    def interpolate_gain(self, box: core.Box) -> core.Float32Array:
        """Interpolate the gain in a window, independently of the tiling."""
        values: core.Float32Array = self.gain
        for axis, (start, stop) in enumerate([(box.y0, box.y1), (box.x0, box.x1)]):
            last = self.gain.shape[axis] - 1
            place = (np.arange(start, stop) + 0.5) / self.pitch - 0.5
            place = np.clip(place, 0, last)
            below = np.minimum(place.astype(np.intp), max(last - 1, 0))
            share = (place - below).astype(np.float32)
            share = share[:, None] if axis == 0 else share[None]
            low = np.take(values, below, axis)
            high = np.take(values, np.minimum(below + 1, last), axis)
            values = low + (high - low) * share
        return values

    def remove_haze(self, window: core.RealArray, box: core.Box) -> core.RealArray:
        """Remove the haze from a window (Y, X)."""
        working = _get_working_dtype(window.dtype)
        without_haze = np.subtract(window, working(self.airlight), dtype=working)
        without_haze *= self.interpolate_gain(box)
        without_haze += working(self.airlight)
        return np.asarray(without_haze)


@dataclass(frozen=True, slots=True)
class FieldSurvey:
    """Network estimates for a whole image; each is None if not estimated."""

    haze: HazeMap | None = None
    condition: tuple[float, ...] | None = None  # In the order of `core.FAULTS`
    rings: tuple[float, ...] | None = None  # Power by frequency, at `RINGS`


_Statistics = Callable[[torch.Tensor], torch.Tensor]


def survey_field(
    data: core.ReadableArray,
    module: nn.Module,
    scaling: Scaling,
    *,
    haze: bool = True,
    certain: bool = False,
) -> FieldSurvey:
    """Estimate haze and degradations of a whole image `data` (Y, X) in 16 px blocks.

    Fields above 4096 px are reduced for the estimate of haze. Noise and blur, which
    reduction would change, are the medians over windows across the field. `certain`
    limits haze to what is certain.
    """
    if scaling.high <= scaling.low or not isinstance(module, models.InformedRestorer):
        return FieldSurvey()
    shrink = 1
    while max(data.shape) > shrink * models.BLOCK * LARGEST_MAP:
        shrink *= 2
    whole = core.Box.from_shape(data.shape)
    statistics = compute_block_statistics(
        data, whole, scaling, shrink, module.survey.compute_statistics
    )
    with torch.inference_mode():
        survey = module.survey(torch.from_numpy(statistics)[None])
        haze_map = survey.haze.drop_uncertain() if certain else survey.haze
        veil = None
        if haze:  # convert to the units of the field
            gain = np.ascontiguousarray(haze_map.log_gain[0, 0].exp().numpy())
            span = scaling.high - scaling.low
            airlight = float(haze_map.airlight) * span + scaling.low
            veil = HazeMap(gain, models.BLOCK * shrink, airlight)
        if shrink > 1:
            survey = _survey_windows(data, module, scaling)
    condition, rings = (part[0].tolist() for part in (survey.condition, survey.rings))
    return FieldSurvey(veil, tuple(condition), tuple(rings))


def _iterate_window_corners(
    shape: core.IntPair, side: int, pitch: int = 1
) -> Iterator[core.IntPair]:
    """Return the corners of windows spread over an image, at multiples of `pitch`."""
    starts = (
        np.linspace(0, max(n - side, 0), _WINDOWS).astype(int) // pitch * pitch
        for n in shape
    )
    return itertools.product(*(sorted(set(s.tolist())) for s in starts))


def _survey_windows(
    data: core.ReadableArray, module: models.InformedRestorer, scaling: Scaling
) -> models.SurveyResult:
    """Survey full-resolution windows of an image and return the median estimates."""
    surveys: list[models.SurveyResult] = []
    empty: list[models.SurveyResult] = []
    for y, x in _iterate_window_corners(data.shape, _WINDOW, models.BLOCK):
        box = core.Box(y, y + _WINDOW, x, x + _WINDOW)
        statistics = compute_block_statistics(
            data, box, scaling, 1, module.survey.compute_statistics
        )
        survey = module.survey(torch.from_numpy(statistics)[None])
        # areas outside a mosaic have no contrast
        (surveys if statistics[1:].any() else empty).append(survey)
    all_surveys = surveys or empty
    condition, rings = (
        torch.cat(parts).median(0, keepdim=True).values
        for parts in zip(
            *((one.condition, one.rings) for one in all_surveys), strict=True
        )
    )
    return all_surveys[0]._replace(condition=condition, rings=rings)


def _read_sample_windows(
    data: core.ReadableArray,
    most: Sequence[int],
    scaling: Scaling,
    haze: HazeMap | None,
) -> Iterator[tuple[core.Float32Array, core.BoolArray | None]]:
    """Yield dehazed, scaled windows across an image, and masks of missing pixels.

    They have 256 px along each axis, or `most` if that is less.
    """
    rows, columns = (min(_SPECTRUM_PX, n) for n in most)
    for corner in _iterate_window_corners(data.shape, _SPECTRUM_PX):
        box = core.Box.from_shape((rows, columns), corner)
        window, missing = read_window(data, box, scaling.mean)
        window = window if haze is None else haze.remove_haze(window, box)
        yield scaling.normalise(window), missing


def measure_spectrum(
    data: core.ReadableArray, scaling: Scaling, haze: HazeMap | None = None
) -> torch.Tensor:
    """Measure the power spectrum (64, 33) of an image `data` (Y, X) after dehazing.

    The result is the median over windows across the field, so that data bars and empty
    areas are ignored. Windows with gaps, which have less noise where they are filled,
    are only used if there are no others.
    """
    spectra: list[torch.Tensor] = []
    spectra_with_gaps: list[torch.Tensor] = []
    for plane, missing in _read_sample_windows(data, data.shape, scaling, haze):
        gaps = None if missing is None else torch.from_numpy(missing)
        field = torch.from_numpy(plane)[None, None]
        power = models.compute_power_spectrum(field, gaps)[0]
        (spectra if gaps is None else spectra_with_gaps).append(power)
    all_spectra = torch.stack(spectra or spectra_with_gaps)
    # areas outside a mosaic have no power
    has_spectrum = all_spectra[:, 1:].flatten(1).amax(1) > 0
    known = all_spectra[has_spectrum] if has_spectrum.any() else all_spectra
    return known.median(0).values


def find_coring_threshold(
    data: core.ReadableArray,
    scaling: Scaling,
    haze: HazeMap | None,
    networks: Sequence[nn.Module],
) -> float:
    """Find the least threshold of `core_step` that leaves flat areas no noisier.

    `networks` remove noise alone, and blur too. Noise is measured in the blocks whose
    detail is weaker than their noise, of the windows with most of these.
    """
    if min(data.shape) < models.BLOCK:  # has no block
        return 0.0
    windows: list[tuple[core.Float32Array, core.BoolArray]] = []
    whole_blocks = [n // models.BLOCK * models.BLOCK for n in data.shape]
    for field, missing in _read_sample_windows(data, whole_blocks, scaling, haze):
        flat = _find_flat_blocks(field)
        if missing is not None:
            flat &= ~_get_blocks(missing).any(axis=1)
        windows.append((field, flat))
    windows.sort(key=lambda w: -int(w[1].sum()))
    windows = [(field, flat) for field, flat in windows[:_WINDOWS] if flat.any()]
    if not windows:
        return 0.0

    @torch.inference_mode()
    def restore_flat_blocks(network: nn.Module) -> core.Float32Array:
        planes = (network(torch.from_numpy(w)[None, None])[0, 0] for w, _ in windows)
        each = zip(planes, windows, strict=True)
        return np.concatenate([_get_blocks(p.numpy())[flat] for p, (_, flat) in each])

    noise = restore_flat_blocks(nn.Identity()).var(axis=1)
    if np.dtype(data.dtype).kind in "ui":  # at least that of rounding
        noise = np.maximum(noise, (scaling.high - scaling.low) ** -2 / 12)

    def is_noisier(blocks: core.Float32Array) -> bool:
        return bool(np.mean(blocks.var(axis=1) / noise) > 1)

    more = restore_flat_blocks(networks[1])
    if not is_noisier(more):
        return 0.0
    less = restore_flat_blocks(networks[0])
    low, high = _ROUNDING_STEP, 1.0  # of the range, which no step exceeds
    while high - low > _ROUNDING_STEP:
        middle = (low + high) / 2
        noisier = is_noisier(less + core_step(more - less, middle))
        low, high = (middle, high) if noisier else (low, middle)
    return high


def _get_blocks(plane: NDArray[Any]) -> NDArray[Any]:
    """Return the pixels of each block, (B, 256)."""
    return (
        core.reshape_into_blocks(plane, models.BLOCK)
        .swapaxes(1, 2)
        .reshape(-1, models.BLOCK**2)
    )


def _find_flat_blocks(window: core.Float32Array) -> core.BoolArray:
    """Return the mask (B,) of blocks that vary, but less by detail than by noise."""
    blocks = _get_blocks(window)
    noise = core.estimate_block_noise(blocks.reshape(-1, models.BLOCK, models.BLOCK))
    variance = blocks.var(axis=1)
    return np.asarray((variance > 0) & (variance <= 2 * np.square(noise)))


def compute_block_statistics(
    data: core.ReadableArray,
    whole: core.Box,
    scaling: Scaling,
    shrink: int,
    count: _Statistics,
) -> core.Float32Array:
    """Compute the block statistics of a region, excluding missing pixels."""
    pitch = models.BLOCK * shrink
    rows, columns = (core.round_up(n, pitch) for n in whole.shape)
    parts: list[list[core.Float32Array]] = []
    usable_blocks = np.ones((rows // pitch, columns // pitch), dtype=np.float32)
    side = _WINDOW * min(shrink, 2)  # fewer reads if the data is reduced
    for y in range(0, rows, side):
        parts.append([])
        for x in range(0, columns, side):
            box = core.Box(y, min(y + side, rows), x, min(x + side, columns))
            placed_box = core.Box(
                *(v + whole.y0 for v in (box.y0, box.y1)),
                *(v + whole.x0 for v in (box.x0, box.x1)),
            )
            window, missing = read_window(data, placed_box, scaling.mean)
            if missing is not None:
                place = np.s_[
                    y // pitch : box.y1 // pitch, x // pitch : box.x1 // pitch
                ]
                share = 1 - _compute_block_means(missing, pitch)
                nearly = share >= _NEARLY_COMPLETE
                usable_blocks[place] = np.where(nearly, 1, share)
                few = missing & nearly.repeat(pitch, 0).repeat(pitch, 1)
                window = _fill_missing_pixels(window, missing, few)
            if shrink > 1:
                window = _compute_block_means(window, shrink)
            field = torch.from_numpy(scaling.normalise(window))[None, None]
            parts[-1].append(count(field)[0].numpy())
    all_statistics = np.concatenate(
        [np.concatenate(row, axis=2) for row in parts], axis=1
    )
    if usable_blocks.min() == 1:
        return all_statistics
    # Filled pixels have no contrast: energies are divided by the share of known pixels.
    # An incomplete block gets the statistics of the nearest complete one; if most
    # blocks are incomplete, only those with less than half of their pixels do.
    is_complete = usable_blocks == 1
    few_known = usable_blocks < _MIN_FINITE
    lacking = ~is_complete if is_complete.mean() >= _MIN_FINITE else few_known
    all_statistics[1:] /= np.maximum(usable_blocks, _MIN_FINITE)
    if not lacking.any() or lacking.all():
        return all_statistics
    from scipy import ndimage  # imported if needed: 15 MB, and most images are complete

    nearest = ndimage.distance_transform_edt(
        lacking, return_distances=False, return_indices=True
    )
    return np.ascontiguousarray(all_statistics[:, *nearest])


def _compute_block_means(values: NDArray[Any], pitch: int) -> core.Float32Array:
    """Compute block means, averaging along columns first for speed."""
    rows, columns = (n // pitch for n in values.shape)
    lines = values.reshape(rows, pitch, -1).mean(1, dtype=np.float32)
    means: core.Float32Array = lines.reshape(rows, columns, pitch).mean(-1)
    return means


def _fill_missing_pixels(
    window: core.RealArray, missing: core.BoolArray, to_fill: core.BoolArray
) -> core.RealArray:
    """Fill missing pixels `to_fill` (Y, X) of a window (Y, X) with realistic noise.

    Each gets the mean of its neighbours plus the deviation of a random neighbour from
    the mean around it: so noise and detail keep their power, unlike with means alone.
    """
    places = np.argwhere(to_fill)
    if not len(places):
        return window
    size = 2 * _GRAIN + 1
    padded_window = np.pad(window, 2 * _GRAIN, mode="reflect")
    usable = np.pad(~missing, 2 * _GRAIN, mode="reflect")
    values, usable_patches = (
        sliding_window_view(part, (size, size)) for part in (padded_window, usable)
    )
    line = np.exp(-((np.arange(size) - _GRAIN) ** 2) / 2)
    kernel = np.outer(line, line)
    kernel[_GRAIN, _GRAIN] = 0
    kernel /= kernel.sum()
    noise = np.square(kernel).sum()  # noise power of a mean, over that of a pixel
    corners = places + _GRAIN  # of the squares around pixels, in the padded window

    def local_mean(
        corners: NDArray[np.intp],
    ) -> tuple[core.FloatArray, core.FloatArray]:
        at = tuple(corners.T)
        weight = kernel * usable_patches[at]
        total = weight.sum((1, 2))
        weighted_mean = (weight * values[at]).sum((1, 2)) / np.where(
            total > 0, total, 1
        )
        return weighted_mean, total

    # depends only on the position, not on other missing pixels
    chance = sliding_window_view(
        np.random.default_rng(0).random(padded_window.shape), (size, size)
    )
    at = tuple(corners.T)
    choices = (chance[at] * usable_patches[at]).reshape(len(places), -1).argmax(1)
    other = corners + np.stack(np.divmod(choices, size), 1) - _GRAIN
    (here, mean_here), (there, about) = local_mean(corners), local_mean(other)
    # factor that restores a pixel's variance for white noise
    grain = np.sqrt((1 - noise) / (1 + noise)) * (
        padded_window[tuple((other + _GRAIN).T)] - there
    )
    is_usable = (mean_here > 0) & (about > 0)
    without_gaps = np.array(window)
    without_gaps[tuple(places[is_usable].T)] = (here + grain)[is_usable]
    return without_gaps


# Another pixel size: the field on the grid of the network, and back, tile by tile.
#
# A tile of the output is on the field's own grid. It is resampled from the network's
# output on a coarser or finer grid, whose input is resampled from a part of the field;
# each part is enlarged by the kernel of the resampling:
#
#     field    |----- resampled ----->|  network's grid  |----- network ----->|
#     output   |<---- resampled ------|  its output      |<-------------------|
#
# Both steps are local and compute positions in integers (`core.grids`), so that a
# tile's result is that of the whole field.

_STRIP = 512  # rows resampled at once; chosen


@dataclass(frozen=True, slots=True)
class ResampledField:
    """Array-like image on the network grid, resampled when read."""

    # (Y, X) The field; missing pixels are filled before it is resampled
    source: Any
    there: core.Resampling  # Resampling from the field's grid to the network's
    mean: float = 0.0  # The field's mean
    # Whether a pixel is missing if the pixel of the field under its centre is
    gaps: bool = False

    @property
    def shape(self) -> core.IntPair:
        """Shape of the image, (rows, columns)."""
        return self.there.shape

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Data type of the grey values."""
        return core.get_interpolation_dtype(np.dtype(self.source.dtype))

    def __getitem__(self, index: tuple[slice, slice]) -> core.RealArray:
        rows, columns = (
            slice(*item.indices(size)[:2])
            for item, size in zip(index, self.shape, strict=True)
        )
        block_values = np.empty(
            (rows.stop - rows.start, columns.stop - columns.start), self.dtype
        )
        for top in range(rows.start, rows.stop, _STRIP):
            below = min(top + _STRIP, rows.stop)
            box = core.Box(top, below, columns.start, columns.stop)
            place = self.there.source_region(box)
            block, missing = read_window(self.source, place, self.mean)
            strip = self.there.resample(block, place, box)
            if self.gaps and missing is not None:
                strip[missing[self.there.nearest_pixels(place, box)]] = np.nan
            block_values[top - rows.start : below - rows.start] = strip
        return block_values

    def source_box(self, window: core.Box) -> core.Box:
        """Return the image region that a window of this array depends on."""
        inside = self.there.source_region(get_source_box(window, self.shape))
        return get_source_box(inside, self.there.size)


@dataclass(frozen=True, slots=True)
class GridMapping:
    """Mapping between the output tiles and the network grid."""

    there: core.Resampling  # Resampling from the field's grid to the network's
    back: core.Resampling  # Resampling from the network's output to that of the run
    # Cores partition the field; scaled, they are the chunks of the output
    outputs: core.TilePlan
    scale: int  # Output pixels per input pixel

    def required_box(self, inner: core.Box) -> core.Box:
        """Return the box on the network grid that is required for an output box."""
        fine = self.back.source_region(self._enlarge_box(inner).scale(self.scale))
        k = self.scale
        return core.Box(fine.y0 // k, -(-fine.y1 // k), fine.x0 // k, -(-fine.x1 // k))

    def create_tile(
        self, plan: core.TilePlan, inner: core.Box, index: core.IntPair
    ) -> core.Tile:
        """Return the network input tile for an output box."""
        outputs, stride = self.required_box(inner), plan.stride
        top, left = (v // stride * stride for v in (outputs.y0, outputs.x0))
        return plan.create_tile(core.Box(top, outputs.y1, left, outputs.x1), index)

    def resample_output(
        self,
        source: core.ReadableArray,
        inner: core.Box,
        values: core.Float32Array,
        box: core.Box,
    ) -> tuple[core.Float32Array, core.Box]:
        """Resample the network output for a box to the image grid.

        Returns the part with a pixel of the field around it, and its position there;
        `source` is the field, for its missing pixels.
        """
        wide_box = self._enlarge_box(inner)
        target_box = wide_box.scale(self.scale)
        source_part = self.back.source_region(target_box)
        part = values[source_part.relative_to(box.scale(self.scale)).slices]
        block = self.back.resample(part, source_part, target_box)
        if np.dtype(source.dtype).kind == "f":
            missing = ~np.isfinite(core.read_box(source, wide_box))
            mask_missing_pixels(block, missing, self.scale)
        return block, inner.relative_to(wide_box).scale(self.scale)

    def _enlarge_box(self, inner: core.Box) -> core.Box:
        """Grow a box by one pixel on each side, clipped to the image."""
        return inner.grow(1).intersection(core.Box.from_shape(self.there.size))


@dataclass(frozen=True, slots=True)
class PreparedField:
    """Image (Y, X) on the network grid, for network input and for measurements."""

    input: core.ReadableArray  # For the network, with outlier pixels replaced
    samples: core.ReadableArray  # For measurements of power and range, without outliers
    note: str | None = None  # Note on replaced pixels
    # Of each grey value of `samples`, if they have been counted
    counts: NDArray[np.int64] | None = None


_KEPT_BYTES = 32 << 20  # of blocks that neighbours share; chosen


@dataclass(frozen=True, slots=True)
class _SharedBlocks:
    """Array-like dask image whose last blocks are kept for neighbouring windows."""

    source: core.ReadableArray  # (Y, X)
    borders: list[list[core.IntPair]]  # First and last row, and column, of each block
    blocks: core.BoundedCache

    @property
    def shape(self) -> core.IntPair:
        """Shape of the image, (rows, columns)."""
        return int(self.source.shape[0]), int(self.source.shape[1])

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Data type of the grey values."""
        return np.dtype(self.source.dtype)

    def __getitem__(self, index: tuple[slice, slice]) -> core.RealArray:
        rows, columns = (
            part.indices(n)[:2] for part, n in zip(index, self.shape, strict=True)
        )
        window = core.Box(*rows, *columns)
        values = np.empty(window.shape, self.dtype)
        touched = (
            [edge for edge in edges if edge[0] < stop and edge[1] > start]
            for (start, stop), edges in zip((rows, columns), self.borders, strict=True)
        )
        for place in itertools.product(*touched):
            block = core.Box(*place[0], *place[1])
            kept = self.blocks.get(block)
            if kept is None:
                kept = core.read_box(self.source, block)
                self.blocks.put(block, kept)
            shared = block.intersection(window)
            own = shared.relative_to(block)
            values[shared.relative_to(window).slices] = kept[own.slices]
        return values


def _share_blocks(data: core.ReadableArray) -> core.ReadableArray:
    """Keep the last blocks of a dask image, if a window's neighbours are small."""
    chunks = getattr(data, "chunks", None)
    if not hasattr(data, "compute") or chunks is None:
        return data
    largest = max(chunks[0]) * max(chunks[1]) * np.dtype(data.dtype).itemsize
    if 4 * largest > _KEPT_BYTES:
        return data
    ends = (itertools.accumulate(sides, initial=0) for sides in chunks)
    borders = [list(itertools.pairwise(edges)) for edges in ends]
    return _SharedBlocks(data, borders, core.BoundedCache(_KEPT_BYTES))


def prepare_field(
    micrograph: core.Micrograph,
    fit: ResamplingPlan,
    *,
    shared: bool = True,
    see_rows: Callable[[core.RealArray], object] | None = None,
) -> core.Job[PreparedField]:
    """Prepare an image for network input and for measurements.

    Windows have blocks in common if `shared`, and are read as dask reads them if not.
    `see_rows` receives all pixels in bands of rows.
    """
    survey = yield from core.survey_pixels(micrograph.data, see_rows)
    strays, counts = survey.strays, survey.counts if fit.steps is None else None
    data = _share_blocks(micrograph.data) if shared else micrograph.data
    if strays is None:
        shown_part = _resample_to_grid(data, micrograph.shape, fit)
        return PreparedField(shown_part, shown_part, counts=counts)
    without_strays, note = strays.fill(data), None
    if count := int(np.isfinite(strays.values).sum()):
        pixels = "1 pixel" if count == 1 else f"{count} pixels"
        sentence = (
            f"Replaced {pixels} in {micrograph.name} (hot or dead pixels, or constant "
            "lines) with the mean of the surrounding pixels or, in large areas, with "
            "the limit of the grey-value range."
        )
        note = core.Message(sentence, "stray-pixels")
    shown_part, measured_part = (
        _resample_to_grid(part, micrograph.shape, fit)
        for part in (without_strays, strays.mask(data))
    )
    return PreparedField(shown_part, measured_part, note, counts)


def _resample_to_grid(
    data: core.ReadableArray, shape: core.IntPair, fit: ResamplingPlan
) -> core.ReadableArray:
    if fit.steps is None:
        return data
    there = core.Resampling(shape, fit.steps)
    mean = core.compute_finite_mean(data) if np.dtype(data.dtype).kind == "f" else 0.0
    return ResampledField(data, there, mean, gaps=fit.keep)


def plan_field_tiles(
    seen_field: core.ReadableArray,
    output: OutputPlan,
    card: models.ModelCard,
    probe: models.ProbeResult,
    *,
    constant: bool = False,
) -> tuple[core.TilePlan, GridMapping | None]:
    """Plan the input tiles of a network, with windows of equal size if `constant`.

    Also returns the relation of the output's tiles to these; None if the grids are
    equal.
    """
    regrid, tile = None, output.core
    if isinstance(seen_field, ResampledField) and not output.fit.keep:
        there, (rows, columns) = seen_field.there, seen_field.shape
        back = core.Resampling(
            (rows * card.scale, columns * card.scale),
            (1 / there.steps[0], 1 / there.steps[1]),
        )
        outputs = core.plan_tiles(there.size, core=tile, halo=0, constant=False)
        regrid = GridMapping(there, back, outputs, card.scale)
        rows, columns = outputs.grid
        tile = 1  # until the core can contain any of the output's tiles
        for place in [(y, 0) for y in range(rows)] + [(0, x) for x in range(columns)]:
            box = regrid.required_box(outputs.tile(*place).core)
            high = box.y1 - box.y0 // card.stride * card.stride
            wide = box.x1 - box.x0 // card.stride * card.stride
            tile = max(tile, high, wide)
    tiles = core.plan_tiles(
        seen_field.shape,
        core=core.round_up(min(tile, max(seen_field.shape)), card.stride),
        halo=probe.halo or 0,
        stride=card.stride,
        minimum=probe.smallest,
        constant=constant,
    )
    return tiles, regrid
