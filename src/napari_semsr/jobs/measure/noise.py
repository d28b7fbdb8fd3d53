"""Noise of a single image, and its dependence on the grey level."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from napari_semsr import core
from napari_semsr.core import Quantity, format_shape, option
from napari_semsr.jobs.verb import ImageInput, ImageMeasurement, Run, Verb

_DEVIATE = 0.6745 * 6  # median second difference along both axes for unit noise
_ALONG_ONE = 0.6745 * 6**0.5  # the same for one axis
# Ratio of the noise across lines to that along both axes, 5th percentile of blocks: for
# white noise and detail measured below 1.2; for noise that a slow detector smears along
# lines 1.3 to 1.8. Such noise is measured across lines, where it is white.
_SMEAR_RATIO = 1.25
_NOT_ALONG = 1.05  # chosen: median ratio along lines; above, it is detail
_FAR_PX, _STRIPE_SHARE = (
    16,
    0.25,
)  # chosen: only a grating is correlated at such a distance (px)
_LINES_ASKED = 512  # lines to test; chosen: 0.1 s
_SAMPLE = 1 << 20  # pixels to search for steps; chosen: 0.1 s
_LEVELS = 1 << 16  # grey levels of a detector; more are not steps
_FEWEST = 8  # blocks of a grey level; chosen: its median then errs by a few per cent


_NOISE = Quantity("Noise s.d.", core.LEVELS, verdict="verdict", large=True)


class NoiseOptions(core.Options):
    """Options for the noise measurement."""

    block: int = option(
        16, "Block", ("Block side length, in pixels."), unit="px", ge=8, le=256
    )
    bins: int = option(
        24, "Grey levels", ("Number of points on the noise curve."), ge=2, le=256
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseReport(ImageMeasurement):
    """Noise of an image, over all blocks and by grey level.

    `snr` is the standard deviation of the signal divided by that of the noise;
    `smeared` is the factor by which noise exceeds what white noise would show, if
    neighbours along a line share it, otherwise 1.
    """

    noise: Annotated[float, _NOISE]
    snr: Annotated[float | None, Quantity("Signal to noise", form=".3g", large=True)]
    levels: list[float]
    noise_at: list[float]
    smeared: Annotated[float, Quantity("Over white noise", form=".3g", shown=False)]
    clipped: Annotated[float, Quantity("Clipped", "%", ".2g", shown=False)]

    @property
    def note(self) -> Annotated[str | None, Quantity("Note", tabled=False)]:
        """Note on the result."""
        notes = []
        if self.smeared != 1:
            white = core.format_number(self.noise / self.smeared, ".3g")
            notes += [
                (
                    "The noise of neighbouring pixels along a line is correlated. "
                    f"Assuming white noise would give {white}."
                )
            ]
        if self.clipped:
            much = core.format_number(self.clipped, ".2g")
            notes += [
                (
                    f"{much} % of the image is clipped to black or white, where noise "
                    "cannot be measured."
                )
            ]
        return " ".join(notes) or None

    @property
    def verdict(self) -> str:
        """Assessment of the noise."""
        if self.snr is None:
            return ""
        much = f"the standard deviation of the image is {self.snr:.2g} times the noise"
        return much if self.snr >= 1 else "more noise than image"


def _measure_noise(
    run: Run[NoiseOptions], image: core.Micrograph
) -> core.Job[NoiseReport]:
    """Measure noise by the median of second differences in each block."""
    yield core.Progress(0, 0, "measuring the noise")
    side, values = run.options.block, image.array().astype(float)
    if min(values.shape) < side + 2:
        msg = (
            f"To measure noise, {image.name} must have at least {side + 2} px on each "
            f"side, got {format_shape(values.shape)}."
        )
        raise core.ShapeError(msg, code="image-too-small")
    values[~np.isfinite(values)] = np.nan
    step = _find_grey_step(values)  # a median would stay at whole steps
    dither = step * (np.random.default_rng(0).random(values.shape) - 0.5) if step else 0
    rows, columns = ((n - 2) // side for n in values.shape)
    inner, shape = np.s_[: rows * side, : columns * side], (rows, side, columns, side)

    def block_noise(rough: core.FloatArray, deviate: float) -> core.FloatArray:
        deviations = np.median(rough[inner].reshape(shape), axis=(1, 3)) / deviate
        return np.sqrt(
            np.maximum(deviations**2 - step**2 / 12, 0)
        )  # without the dither

    def difference_noise(image: core.FloatArray) -> core.FloatArray:
        rough = np.diff(np.diff(image, 2, axis=0), 2, axis=1)
        return block_noise(np.abs(rough, out=rough), _DEVIATE)

    with_dither = core.mask_clipped_values(values)
    clipped_share = np.isnan(with_dither).mean() - np.isnan(values).mean()
    with_dither += dither
    noise_levels = difference_noise(with_dither)
    if clipped_share and np.isfinite(noise_levels).sum() < _FEWEST:  # use clipped
        noise_levels = difference_noise(with_dither := values + dither)
    means = values[1:-1, 1:-1][inner].reshape(shape).mean(axis=(1, 3))
    finite = np.isfinite(noise_levels)
    if not finite.any():
        msg = f"Every block of {side} px in {image.name} has missing pixels."
        raise core.ShapeError(msg, code="gaps-everywhere")

    def line_noise(axis: int) -> tuple[core.FloatArray, bool]:
        rough = np.diff(with_dither, 2, axis=axis)
        lines = np.moveaxis(rough, axis, 0)
        has_stripes = _has_stripes(lines)
        rough = np.abs(rough, out=rough)
        same = rough[:, 1:-1] if axis == 0 else rough[1:-1]
        return block_noise(same, _ALONG_ONE)[finite], has_stripes

    smear_ratio = _compute_smear_ratio(
        noise_levels[finite], [line_noise(axis) for axis in (0, 1)]
    )
    noise_levels, means = noise_levels[finite] * smear_ratio, means[finite]
    noise = float(np.median(noise_levels))
    edges = np.linspace(means.min(), means.max(), run.options.bins + 1)[1:-1]
    levels = [np.digitize(means, edges) == n for n in range(run.options.bins)]
    levels = [mask for mask in levels if mask.sum() >= _FEWEST]
    return NoiseReport(
        **run.get_result_fields(image),
        noise=noise,
        snr=float(np.sqrt(max(np.nanvar(values) / noise**2 - 1, 0))) if noise else None,
        levels=[float(means[mask].mean()) for mask in levels],
        noise_at=[float(np.median(noise_levels[mask])) for mask in levels],
        smeared=smear_ratio,
        clipped=100 * clipped_share,
    )


def _find_grey_step(values: core.FloatArray) -> float:
    """Estimate the grey-level step from a million pixels; return 0 if there is none."""
    sample = values[:, :: -(-values.size // _SAMPLE)]
    levels = np.unique(sample[np.isfinite(sample)])
    if not 1 < levels.size <= _LEVELS:
        return 0.0
    return float(np.diff(levels).min())


def _has_stripes(lines: core.FloatArray) -> bool:
    """Return whether distant pixels along a line are correlated or anticorrelated."""
    sample = lines[:: 1 + len(lines) // _LINES_ASKED]
    first, most = _FAR_PX, sample.shape[1] // 2
    lags = range(min(first, most), max(min(first, most) + 1, min(4 * first, most)))
    values, width = np.nan_to_num(sample), sample.shape[1]
    alike = (np.vdot(values[:, n:], values[:, :-n]) * width / (width - n) for n in lags)
    return bool(max(map(abs, alike)) > _STRIPE_SHARE * np.vdot(values, values))


def _compute_smear_ratio(
    white: core.FloatArray, alone: list[tuple[core.FloatArray, bool]]
) -> float:
    """Compute the factor by which line-correlated noise is underestimated.

    `white` (N,), the noise of blocks by these; `alone`, for differences down and across
    the image: the noise by these, and whether a grating makes them.
    """
    has_noise = white > 0
    if not has_noise.any():
        return 1.0
    ratios = [noise[has_noise] / white[has_noise] for noise, _ in alone]
    for axis, (_, has_stripes) in enumerate(alone):
        there, along = ratios[axis], ratios[1 - axis]
        clear = np.percentile(there, 5) >= _SMEAR_RATIO
        if clear and np.median(along) <= _NOT_ALONG and not has_stripes:
            return float(np.median(there))
    return 1.0


NOISE = Verb(
    "noise",
    (ImageInput("image", "an image"),),
    NoiseOptions,
    NoiseReport,
    _measure_noise,
    title="measurement",
    makes_table=True,
    curves=(
        core.CurveDeclaration(
            "Noise", "levels", "noise_at", "grey level", "noise s.d."
        ),
    ),
)
