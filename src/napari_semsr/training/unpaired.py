"""Evaluation of an image translation without ground truth.

A run on unpaired images has held-out degraded fields and held-out clear ones of other
areas. At each spatial frequency they determine three quantities: the expected power
of the ground truth of a field, from the ratio of the mean power of clear and degraded
images; the power of the output; and the correlation of the output with its input,
which invented structure does not have. Together they give an expected error:

    E(f) = P_y + P_g - 2 c sqrt(P_y P_g),  with P_y = P_x R,  R = <P_high> / <P_low>

of ground truth y, output g and input x, ``c`` the correlation of g with x in a ring,
and means of logarithms in R. It is valid if images differ only by blur, haze and grey
scale. If their contrast differs in kind, as between light and electrons, the phases of
the ground truth are not those of the input, and it only ranks models.

Spectra or grey-level patches alone rank checkpoints wrongly: invented texture makes
both more similar to clear images (``benchmarks/criterion.py``).
"""

from collections.abc import Sequence

import numpy as np
from torch import nn

from napari_semsr.core import FloatArray
from napari_semsr.pairing import PairStore
from napari_semsr.training.patches import stretch_contrast
from napari_semsr.training.recipe import Recipe
from napari_semsr.training.stored_pairs import open_pair_store, scale_to_unit_range
from napari_semsr.training.validation import (
    WHITE,
    ValidationPair,
    restore_field,
)

EXPECTED_GAIN = "expected_gain_db"
"""Metric that selects the best checkpoint without ground truth."""

_BLOCK_PX = 128
_RINGS = 24  # over half a cycle per pixel: 2.7 frequencies of a block wide
_PATCH_PX, _PATCHES, _VIEWS = 7, 400, 64
_MOST = 64  # fields of each kind
_TINY = 1e-12  # added to the power of a constant field
_SEED = 3


Fields = tuple[Sequence[FloatArray], Sequence[FloatArray]]
"""Degraded images, and clear images of other areas."""


def collect_unpaired_fields(
    recipe: Recipe, pairs: Sequence[ValidationPair]
) -> list[Fields]:
    """Return the images for the expected gain, or an empty list if it is not needed.

    They are held-out patches of an unpaired store, or `pairs` used as unpaired ones if
    the recipe's measure is the expected gain.
    """
    if pairs:
        return create_unpaired_fields(pairs) if recipe.measure == EXPECTED_GAIN else []
    if recipe.data.pairs is None or not recipe.is_unpaired:
        return []
    store = open_pair_store(recipe, 1)
    if store.is_paired:
        return []
    name = "validation" if store.counts["validation"] else "train"
    return [(_read_patches(store, name, 0), _read_patches(store, name, 1))]


def _read_patches(store: PairStore, name: str, side: int) -> list[FloatArray]:
    """Read up to 64 patches of one kind, evenly spaced."""
    array = store.get_arrays(name)[side]
    count = int(array.shape[0])
    numbers = np.unique(np.linspace(0, count - 1, min(count, _MOST)).round())
    return [
        WHITE
        * scale_to_unit_range(
            np.asarray(array[n]), store.get_ranges(name, n)[side]
        ).astype(float)
        for n in numbers.astype(int).tolist()
    ]


def create_unpaired_fields(pairs: Sequence[ValidationPair]) -> list[Fields]:
    """Combine degraded images of one half with clear images of the other half."""
    low, high = (
        [np.asarray(getattr(pair, side), float) for pair in pairs]
        for side in ("low", "high")
    )
    return [(low[n::2], high[1 - n :: 2]) for n in (0, 1)] if len(pairs) > 1 else []


class UnpairedValidator:
    """Evaluation of networks on degraded images and clear images of other areas."""

    def __init__(self, low: Sequence[FloatArray], high: Sequence[FloatArray]) -> None:
        self.low = low
        side = min(_BLOCK_PX, *(n for field in (*low, *high) for n in field.shape))
        self._rings = _RingSpectrum(side)
        target_power = np.mean(
            [self._compute_log_power(field) for field in high], axis=0
        )
        input_power = np.mean([self._compute_log_power(field) for field in low], axis=0)
        self._target_power, self._lacking = (
            target_power,
            np.exp(target_power - input_power),
        )
        self._patches = np.concatenate(
            [_crop_patches(stretch_contrast(field)) for field in high]
        )

    def evaluate(
        self, network: nn.Module, back: nn.Module | None = None
    ) -> dict[str, float]:
        """Evaluate a network and, if `back` is given, the cycle back to its input."""
        gains, spectra, patches, cycle_gains = [], [], [], []
        for field in self.low:
            output = restore_field(network, field).astype(float)
            x, g = stretch_contrast(field), stretch_contrast(output)
            power_x, power_g = (
                self._rings.cross_power(x, x),
                self._rings.cross_power(g, g),
            )
            expected_power = power_x * self._lacking
            follows = self._rings.cross_power(x, g) / np.sqrt(power_x * power_g)
            before = (np.sqrt(expected_power) - np.sqrt(power_x)) ** 2
            cross = follows * np.sqrt(expected_power * power_g)
            after = expected_power + power_g - 2 * cross
            weight = self._rings.counts
            errors = [float(np.sum(e * weight)) + _TINY for e in (before, after)]
            gains.append(10 * np.log10(errors[0] / errors[1]))
            spectra.append(np.log(power_g))
            patches.append(_crop_patches(g))
            if back is not None:
                again = restore_field(back, output.astype(np.float32))
                cycle_gains.append(float(np.abs(again - field).mean()))
        apart = np.abs(np.mean(spectra, axis=0) - self._target_power).mean()
        # sliced Wasserstein distance of the patches, relative to the target's spread
        rng = np.random.default_rng(_SEED)
        views = rng.normal(size=(self._patches.shape[1], _VIEWS))
        views -= views.mean(0)
        views /= np.linalg.norm(views, axis=0)
        own = np.concatenate(patches)
        count = min(len(own), len(self._patches))
        shares = (np.arange(count) + 0.5) / count
        a, b = (
            np.quantile(part @ views, shares, axis=0) for part in (own, self._patches)
        )
        spread = max(np.abs(b - b.mean(0)).mean(), _TINY)
        all_figures = {
            EXPECTED_GAIN: float(np.mean(gains)),
            "spectrum_db": float(10 / np.log(10) * apart),
            "patches": float(np.abs(a - b).mean() / spread),
        }
        if cycle_gains:
            all_figures["returned"] = float(np.mean(cycle_gains))
        return all_figures

    def _compute_log_power(self, field: FloatArray) -> FloatArray:
        unit = stretch_contrast(field)
        return np.asarray(np.log(self._rings.cross_power(unit, unit)))


class _RingSpectrum:
    """Mean power in spatial-frequency rings over half-overlapping blocks."""

    def __init__(self, side: int) -> None:
        self.side = side
        self._window = np.outer(np.hanning(side), np.hanning(side))
        y, x = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)
        ring = (2 * np.hypot(y, x) * _RINGS).astype(int)
        self._ring = np.minimum(ring, _RINGS).ravel()  # the last: the corners
        self.counts = np.bincount(self._ring, minlength=_RINGS + 1)[:_RINGS]

    def cross_power(self, first: FloatArray, second: FloatArray) -> FloatArray:
        """Return the mean cross-power of two images over blocks, per ring (24,)."""
        total = np.zeros(_RINGS + 1)
        rows, columns = (
            range(0, n - self.side + 1, max(1, self.side // 2)) for n in first.shape
        )
        for y, x in ((y, x) for y in rows for x in columns):
            box = np.s_[y : y + self.side, x : x + self.side]
            a, b = (
                np.fft.rfft2((part[box] - part[box].mean()) * self._window)
                for part in (first, second)
            )
            cross = np.real(a * np.conj(b)).ravel()
            total += np.bincount(self._ring, cross, _RINGS + 1)
        mean = total[:_RINGS] / (len(rows) * len(columns))
        return np.asarray(mean + _TINY if first is second else mean)


def _crop_patches(field: FloatArray) -> FloatArray:
    """Cut patches (400, 49) at random positions."""
    rng = np.random.default_rng(_SEED)
    rows, columns = (rng.integers(0, n - _PATCH_PX + 1, _PATCHES) for n in field.shape)
    cut = [
        field[y : y + _PATCH_PX, x : x + _PATCH_PX].ravel()
        for y, x in zip(rows, columns, strict=True)
    ]
    return np.stack(cut)
