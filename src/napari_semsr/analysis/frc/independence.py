"""Independence of two exposures, checked from history and noise."""

import json
from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import fft

from napari_semsr.core import (
    FloatArray,
    FloatPair,
    Micrograph,
    Provenance,
    ReadableArray,
    RealArray,
    get_central_box,
    read_box,
)

# Histories: which images pass their noise on to another.
#
# An image passes its noise on to all images derived from it, except for simulated
# images: there the input is the object, and the noise is new.

_Key = tuple[str, str]  # digest, and the image or frame in it; "" for any
_NOISE = "photons", "read_noise"  # options of a degradation that adds new noise


def _iterate_ancestors(
    record: Provenance | None, *, noisy: bool = True, split: bool = True
) -> Iterator[tuple[_Key, bool]]:
    """Yield each image of a history, and whether its noise is inherited.

    `split`: halves of a mosaic are made of their own frames, otherwise of all.
    """
    if record is None:
        return
    if record.job == "simulate" or (
        record.job == "degrade" and any(record.options.get(name) for name in _NOISE)
    ):
        yield (
            (json.dumps(record.reproducible_record(), sort_keys=True, default=str), ""),
            noisy,
        )
        noisy = False
    is_stitched = record.job == "stitch"
    half = record.options.get("half") if is_stitched and split else None
    for item in record.inputs:
        base, _, part_name = (item.digest or "").partition("#")
        if is_stitched and item.role != "frames":
            continue  # positions or a flat field, not frames
        if base:
            # without a selection: the first image of a file, or each of them
            frames = half["frames"] if half else (part_name,)
            yield from (((base, frame), noisy) for frame in frames)
        if not is_stitched:  # a mosaic records only the history of its first frame
            yield from _iterate_ancestors(item.provenance, noisy=noisy, split=split)


def _have_common_key(some: set[_Key], others: set[_Key]) -> bool:
    return any(
        base == other and (not part or not which or part == which)
        for base, part in some
        for other, which in others
    )


def is_noise_dependent(
    a: Micrograph, b: Micrograph | None, *, reference: bool = False
) -> bool:
    """Check whether two images share noise according to their histories.

    They do if one was derived from the other, or both from one image. Halves of one
    mosaic do not, unless a network enhanced both, since it may invent the same in both.
    A single image is not independent if a network made it. `reference`: `b` may be the
    object from which `a` was simulated.
    """
    histories = [None if image is None else image.provenance for image in (a, b)]
    by_network = [
        record is not None and bool(record.network_digests()) for record in histories
    ]
    if b is None or a is b:
        return by_network[0]
    record, other = histories
    alike = (
        record is not None
        and other is not None
        and record.reproducible_record() == other.reproducible_record()
    )
    if alike and not any(by_network):
        return False  # planes of one stack; equal ones are found as identical
    ancestors = [
        list(_iterate_ancestors(record, split=not all(by_network)))
        for record in histories
    ]
    noise, other_noise = ({key for key, noisy in keys if noisy} for keys in ancestors)
    every, other_every = ({key for key, _ in keys} for keys in ancestors)
    return (
        _have_common_key(noise, other_noise)
        or _have_common_key(noise, other_every)
        or (not reference and _have_common_key(every, other_noise))
    )


def is_noise_independent(a: Micrograph, b: Micrograph) -> bool:
    """Check whether the noise of both images is simulated or from different frames.

    For images that `is_noise_dependent` rejects.
    """
    noisy_ancestors = [
        [key for key, noisy in _iterate_ancestors(image.provenance) if noisy]
        for image in (a, b)
    ]
    all_simulated = all(
        any(base.startswith("{") for base, _ in keys) for keys in noisy_ancestors
    )
    bases = [{base for base, part in keys if part} for keys in noisy_ancestors]
    return all_simulated or bool(bases[0] & bases[1])


# Noise: correlation that the signal cannot explain.
#
# The noise of a raw image is white along at least one axis: along both for a camera,
# from line to line for a scan with a slow detector. So the spectrum along this axis
# ends in a noise floor. The power above the floor is at most that of the signal, which
# is assumed to fall with the square of the frequency or faster. Two exposures correlate
# by at most sqrt(S / (S + N)), with S and N the signal and noise power of either. A
# higher correlation is due to shared noise. If the spectrum falls up to the highest
# frequency, because an image was filtered, nothing is concluded.

_BLOCK_PX = 64  # chosen: small enough to find empty areas between objects
_LARGEST_PX = 1024  # side of the central part that is tested; chosen: 0.2 s
# cycles per pixel, along both axes; chosen: above the frequencies of shading
_BANDS = np.array([0.03, 0.06, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.501])
_MIDDLES = (_BANDS[1:] + _BANDS[:-1]) / 2
_FLOOR = 8  # first band of the noise floor: 0.4 and above
_POOLS = (1, 1), (2, 2), (3, 2), (4, 3), (6, 3)  # pooled bands across and along; chosen
# Independent samples per Fourier sample of a block, with a Hann window and steps of
# half a block
_EFFECTIVE = 0.125
_QUIET = 0.25  # share of blocks used: those with the least power, hence least signal
_FEW = 32  # least number of blocks for choosing quiet ones
_LOW = 5  # number of bands by which they are chosen: up to 0.25
_TINY = float(np.finfo(float).tiny)
# Chosen on simulated images and real pairs
_SLOPE = 0.04  # share of the floor that may not be noise
_MOST = 0.75  # share of the pooled bands that must not lie below the floor
_DIP = 0.1  # share by which a spectrum may be below its floor
_MARGIN = 1.5  # standard errors of the signal's share allowed
_Z = 4.5
_EXCESS = 0.15  # least excess of correlation over that of the signal


def has_unexplained_correlation(
    first: ReadableArray,
    second: ReadableArray,
    shift: FloatPair | None = None,
    *,
    reference: bool = False,
) -> bool:
    """Check whether two images correlate more than their signals can explain.

    `first`, `second` (Y, X), lazy or not; blocks with missing pixels are ignored.
    `shift`: ``(y, x)`` in pixels by which the second is to be moved; `reference`: the
    second is nearly free of noise, so that its own spectrum is not used.
    """
    one, other = (
        read_box(data, get_central_box(data.shape, _LARGEST_PX))
        for data in (first, second)
    )
    spectra, samples = _compute_block_spectra(one, other, shift)
    block_spectra = [spectra]
    if len(spectra) >= _FEW:
        relative = spectra[:, :2] / np.maximum(spectra[:, :2].mean(axis=0), _TINY)
        low = relative[..., :_LOW, :_LOW].mean(axis=(1, 2, 3))
        block_spectra.append(spectra[np.argsort(low)[: int(_QUIET * len(spectra))]])
    return any(
        _has_excess_correlation(
            mean if axis else mean.swapaxes(1, 2), len(part) * count, noisy
        )
        for part in block_spectra
        if len(part) and (mean := part.mean(axis=0))[:2].all()
        for axis, count in enumerate((samples.T, samples))
        for noisy in range(1 if reference else 2)
    )


def _compute_block_spectra(
    first: RealArray,
    second: RealArray,
    shift: FloatPair | None,
) -> tuple[FloatArray, FloatArray]:
    """Compute mean powers and cross-power of two images in bands, (N, 3, K, K).

    The bands are along y and x; also returns the effective samples in each (K, K).
    """
    side = min(_BLOCK_PX, *first.shape)
    step = max(side // 2, 1)
    window = np.hanning(side + 2)[1:-1]
    y, x = fft.fftfreq(side), fft.rfftfreq(side)
    turns = 0.0 if shift is None else y[:, None] * shift[0] + x * shift[1]
    phase = np.exp(-2j * np.pi * np.asarray(turns))
    rows, columns = (
        (np.abs(axis) >= _BANDS[:-1, None]) & (np.abs(axis) < _BANDS[1:, None])
        for axis in (y, x)
    )
    count = np.outer(rows.sum(axis=1), columns.sum(axis=1)).astype(float)
    spectra = [np.empty((0, 3, *count.shape))]
    views = (
        sliding_window_view(i, (side, side))[::step, ::step] for i in (first, second)
    )
    for a, b in zip(*views, strict=True):  # one row of blocks at a time
        finite = np.isfinite(a).all(axis=(1, 2)) & np.isfinite(b).all(axis=(1, 2))
        parts = [part[finite].astype(float) for part in (a, b)]
        one, other = (
            fft.rfft2(
                (part - part.mean(axis=(1, 2), keepdims=True))
                * np.outer(window, window)
            )
            for part in parts
        )
        cross = (one * np.conj(other * phase)).real
        planes = np.stack([np.abs(one) ** 2, np.abs(other) ** 2, cross], axis=1)
        spectra.append(rows.astype(float) @ planes @ columns.T / np.maximum(count, 1))
    return np.concatenate(spectra), count * _EFFECTIVE


def _sum_bands(values: FloatArray, across: int, along: int) -> FloatArray:
    """Sum values (K, K) over all rectangles of a given number of bands."""
    sums: FloatArray = sliding_window_view(values, (across, along)).sum(axis=(2, 3))
    return sums


def _has_excess_correlation(mean: FloatArray, samples: FloatArray, noisy: int) -> bool:
    """Check whether a correlation exceeds what the signal in either image can explain.

    `mean` (3, K, K): powers and cross-power in bands across and along the axis along
    which the noise of the image with index `noisy` is white; `samples` (K, K).
    """
    last = samples[:, _FLOOR:]
    in_floor = last.sum(axis=1, keepdims=True)
    floor = (mean[:2, :, _FLOOR:] * last).sum(axis=2, keepdims=True) / in_floor
    powers = mean[:2] / floor
    cross = mean[2] / np.sqrt(floor[0] * floor[1])
    power = powers[noisy]
    square = _MIDDLES[:, None] ** 2 + _MIDDLES**2
    fall = 1 - square / square[:, _FLOOR:].mean(axis=1, keepdims=True)
    # adjacent bands in which the spectrum is not below the floor
    error = np.sqrt(1 / samples + 1 / in_floor)
    level = np.flip(power * (1 + 3 * error) > 1 - _DIP, axis=1)
    level = np.flip(np.logical_and.accumulate(level, axis=1), axis=1)
    level[:, _FLOOR:] = False
    fall = np.where(level, fall, 1)
    weight = level * samples
    for across, along in _POOLS:
        pool = partial(_sum_bands, across=across, along=along)
        full = pool(level.astype(float)) >= _MOST * across * along
        total = np.where(full, pool(weight), 1)
        a, b = (np.where(full, pool(weight * part) / total, 1) for part in powers)
        own = (a, b)[noisy]
        correlation = pool(weight * cross) / total / np.sqrt(a * b)
        signal = pool(weight * (power - 1 + _SLOPE) / fall) / total
        # errors of the power, and of the floor, which is the same for all bands of the
        # axis
        variance = pool(weight**2 * (power / fall) ** 2 / samples) / total**2
        of_floor = pool(weight / fall / np.sqrt(in_floor)) / total
        variance += of_floor**2 / max(1.0, 0.7 * across)
        share = (signal + _MARGIN * np.sqrt(variance)) / own
        upper_bound = np.sqrt(np.clip(share, 0, 1))
        chance = (1 - np.clip(correlation, -0.99, 0.99) ** 2) ** 2 / (2 * total)
        chance += variance / own**2 / 4 / np.maximum(upper_bound, 0.2) ** 2
        excess = correlation - upper_bound
        exceeding = full & (excess > _EXCESS) & (excess > _Z * np.sqrt(chance))
        if exceeding.any():
            return True
    return False
