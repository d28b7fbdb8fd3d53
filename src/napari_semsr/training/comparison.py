"""What training on pairs gained, on pairs that nothing learnt from.

The low images as they are, the best linear filter, the model that training began with,
and the trained one are judged alike, on the pairs for the test, or where there are none
on those that chose the model.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from napari_semsr.models import bicubic, load_model, save_model
from napari_semsr.pairing import PairStore, open_pairs
from napari_semsr.restoration import fit_linear_filter
from napari_semsr.training.recipe import Recipe
from napari_semsr.training.stored_pairs import fitting_store, to_unit
from napari_semsr.training.validation import Validator, stored_pairs

_TAPS = 21  # pixels of HIGH along each side; as in the benchmarks of restoration
_BORDER = 6  # sides of a patch to that of the filter; chosen: borders are mirrored
_PLACES = 1 << 18  # chosen: 500 for each tap, in seconds
_FIGURES = ("psnr_db", "ssim", "frc_per_px")


@dataclass(frozen=True, slots=True)
class Comparison:
    """How good a trained model is, beside what it must beat."""

    set: str  # of the store; "test" or "validation"
    pairs: int
    begun_with: str | None  # the untouched model
    # "input", "linear filter", "untouched", "trained": psnr_db, ssim, frc_per_px
    rows: dict[str, dict[str, float]]
    kept: bool  # whether the trained model is better than the untouched one
    # Expected error of the map that the pairs were cut by, also in pixels of LOW
    map_error_nm: float | None = None
    map_error_px: float | None = None


def compare(recipe: Recipe, model: Path, network: nn.Module) -> Comparison | None:
    """Judge a trained model; put the untouched `network` in place of a worse one."""
    # None where nothing tells: no pairs, unpaired ones, or a noisy image alone
    if recipe.data.pairs is None or recipe.blind:
        return None
    if not open_pairs(Path(recipe.data.pairs)).paired:
        return None
    scale = int(getattr(network, "scale", 1))
    store = fitting_store(recipe, scale)
    name = "test" if store.counts["test"] else "validation"
    pairs = stored_pairs(store, name)
    linear = fit_linear(store, scale)
    # what lies beyond a patch is unknown to all, and a mosaic has few borders
    margin = linear.kernels.shape[-1] // 2 * scale
    validator = Validator(
        pairs, cross_frc=True, margin=margin, shift_px=recipe.shift_px
    )
    trained = load_model(str(model))
    networks: dict[str, nn.Module] = {
        "input": _Enlarged(scale),
        "linear filter": linear,
    }
    if recipe.start_from is not None:
        networks["untouched"] = network
    networks["trained"] = trained.module
    found = {which: validator.figures(each) for which, each in networks.items()}
    kept, measure = True, recipe.measure
    # with a discriminator the output is to look like the truth, not to be near it
    if recipe.start_from is not None and not recipe.adversarial:
        kept = found["trained"][measure] > found["untouched"][measure]
    rows = {
        which: {figure: row[figure] for figure in _FIGURES if figure in row}
        for which, row in found.items()
    }
    begun = None if recipe.start_from is None else Path(recipe.start_from).stem
    off_nm, off_px = store.map_error or (None, None)
    made = Comparison(name, len(pairs), begun, rows, kept, off_nm, off_px)
    card = trained.card.model_copy(
        update={"training": {**trained.card.training, "comparison": asdict(made)}}
    )
    save_model(model, trained.module if kept else network, card)
    return made


class _Enlarged(nn.Module):
    """The image itself, on the pixels of the truth."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Enlarge (B, 1, Y, X)."""
        return bicubic(x, self.scale)


class LinearFilter(nn.Module):
    """A linear filter for each pixel of HIGH within one of LOW; (scale², T, T)."""

    def __init__(self, kernels: NDArray[np.float32]) -> None:
        super().__init__()
        self.scale = round(len(kernels) ** 0.5)
        self.kernels = nn.Parameter(torch.from_numpy(kernels[:, None]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Filter (B, 1, Y, X), mirrored at the border."""
        half = self.kernels.shape[-1] // 2
        wide = functional.pad(x, (half, half, half, half), mode="reflect")
        phases = functional.conv2d(wide, self.kernels)
        return functional.pixel_shuffle(phases, self.scale)


def fit_linear(store: PairStore, scale: int) -> LinearFilter:
    """Fit the filter that brings LOW nearest to HIGH over the pairs to train on."""
    low, high = store.arrays("train")
    taps = min(_TAPS // scale, int(low.shape[1]) // _BORDER) // 2 * 2 + 1
    each = (int(low.shape[1]) - taps + 1) ** 2
    wanted = int(np.clip(_PLACES // each, 1, low.shape[0]))
    numbers = np.unique(np.linspace(0, low.shape[0] - 1, wanted).round().astype(int))

    def patches() -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        for number in numbers.tolist():
            seen, truth = (
                to_unit(np.asarray(part[number]), grey)
                for part, grey in zip(
                    (low, high), store.ranges("train", number), strict=True
                )
            )
            yield seen, truth

    return LinearFilter(fit_linear_filter(patches(), taps, scale))
