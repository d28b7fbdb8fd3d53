"""Fields whose truth is known, which choose the checkpoint, and a network's figures."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from napari_semsr.analysis import (
    FrcOptions,
    match_affine,
    measure_frc,
    structural_similarity,
)
from napari_semsr.core import Float32Array, Micrograph, PixelSize, parse_pixel_size
from napari_semsr.models import bicubic
from napari_semsr.pairing import PairStore, open_pairs
from napari_semsr.simulation import (
    KINDS,
    PHANTOMS,
    degrade_plane,
    draw,
    random_faults,
)
from napari_semsr.training.data import (
    INSTRUMENTS,
    PHANTOM_SEED,
    binned,
    fitting_store,
    load_clear,
    to_unit,
)
from napari_semsr.training.recipe import Recipe
from napari_semsr.training.residual_shift import moved_onto

_HARDLY_PX = 0.5  # Gaussian sigma
_FIELDS = 14  # of a simulated instrument
_MOST_STORED = 64  # patches of a store
_PREVIEW_PX = 256
_GAP_SHARE = 64


@dataclass(frozen=True, slots=True)
class ValidationPair:
    """A degraded field (Y, X) and its truth, both on a 0-255 scale.

    The truth may be a multiple as large; `kind` names the degradation, `faults` what
    was done, in the order of `core.FAULTS`, where a network may be told.
    """

    kind: str
    low: NDArray[Any]
    high: NDArray[Any]
    faults: NDArray[np.float32] | None = None


def _centre(image: Float32Array, side: int) -> Float32Array:
    """Cut the middle of an image, up to a side."""
    y, x = ((n - min(n, side)) // 2 for n in image.shape)
    return image[y : y + side, x : x + side]


def held_out_fields(recipe: Recipe, scale: int) -> list[ValidationPair]:
    """Gather the fields whose truth is known, from all that a recipe learns from."""
    if recipe.data.pairs is not None:
        store = fitting_store(recipe, scale)
        return stored_pairs(store, "validation") if store.paired else []
    made: list[ValidationPair] = []
    for name, share in recipe.data.sources.items():
        if share > 0 and name == "images":
            made += coarse_pairs(validation_pairs(recipe), scale)
        elif share > 0:
            made += _simulated_pairs(recipe, name, scale)
    return made


def validation_pairs(recipe: Recipe, side: int = 512) -> list[ValidationPair]:
    """Make the fixed pairs that choose the checkpoint.

    Every clear image, and one phantom of each kind, up to `side` px large, in each of
    the paper's degradations that the recipe has, and hardly blurred where it has sharp
    images.
    """
    root = Path(recipe.data.root)
    clear = [_centre(load_clear(root, e), side) for e in recipe.data.validation]
    if recipe.data.phantoms > 0:
        small = (side // 2, side // 2)
        clear += [draw(kind, small, seed=PHANTOM_SEED + 1) for kind in PHANTOMS]
    if recipe.whole_scenes:
        return _faulty_pairs(clear, recipe)
    eight = [np.rint(image * 255).astype(np.uint8) for image in clear]
    kinds = [kind for kind in KINDS if getattr(recipe.degradations, kind) > 0]
    pairs = [
        ValidationPair(kind, degrade_plane(image, kind, seed=index).image, image)
        for index, image in enumerate(eight)
        for kind in kinds
    ]
    if recipe.degradations.sharp > 0:
        pairs += [ValidationPair("sharp", _hardly_blurred(i), i) for i in eight]
    return pairs


_ALONE = {
    "noise": {"blurred": 0.0, "veiled": 0.0, "noisy": 1.0},
    "blur": {"blurred": 1.0, "veiled": 0.0, "noisy": 0.0},
    "veil": {"blurred": 0.0, "veiled": 1.0, "noisy": 0.0},
    "all": {"blurred": 1.0, "veiled": 0.5, "noisy": 1.0},
    "none": {"blurred": 0.0, "veiled": 0.0, "noisy": 0.0},
}


def _faulty_pairs(clear: list[Float32Array], recipe: Recipe) -> list[ValidationPair]:
    """Give each image each fault alone, all of them, and none."""
    pairs = []
    for index, image in enumerate(clear):
        for number, (kind, shares) in enumerate(_ALONE.items()):
            rng = np.random.default_rng([PHANTOM_SEED, index, number])
            made = random_faults(image, recipe.faults.replace(**shares), rng)
            low, high = made.low * WHITE, made.high * WHITE
            told = made.faults if recipe.learns == "sharpener" else None
            pairs.append(ValidationPair(kind, low, high, told))
    return pairs


def _hardly_blurred(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Blur by less than a pixel."""
    soft = ndimage.gaussian_filter(image.astype(np.float32), _HARDLY_PX)
    return np.asarray(np.rint(soft), dtype=np.uint8)


def _simulated_pairs(recipe: Recipe, name: str, scale: int) -> list[ValidationPair]:
    """Make the fixed pairs of a simulated instrument.

    On samples that training never draws.
    """
    instrument = INSTRUMENTS[name](recipe, scale)
    return [
        ValidationPair(name, low * WHITE, high * WHITE)
        for low, high in instrument.validation(_FIELDS)
    ]


def coarse_pairs(pairs: list[ValidationPair], scale: int) -> list[ValidationPair]:
    """Take the degraded images of pairs at a multiple of their pitch.

    Cropped to a multiple of the scale.
    """
    if scale == 1:
        return pairs
    made = []
    for pair in pairs:
        low = binned(pair.low.astype(np.float32), scale)
        rows, columns = (n * scale for n in low.shape)
        made.append(ValidationPair(pair.kind, low, pair.high[:rows, :columns]))
    return made


def stored_pairs(store: PairStore, name: str) -> list[ValidationPair]:
    """Read pairs of a set of a store: up to 64 whole patches, evenly picked."""
    low, high = store.arrays(name)
    count = int(low.shape[0])
    numbers = np.unique(np.linspace(0, count - 1, min(count, _MOST_STORED)).round())
    made = []
    for number in numbers.astype(int).tolist():
        greys = store.ranges(name, number)
        images = (np.asarray(a[number]) for a in (low, high))
        pair = [to_unit(i, g) * WHITE for i, g in zip(images, greys, strict=True)]
        made.append(ValidationPair("pairs", *pair))
    return made


# Figures of a network on fields whose truth is known.

PERCENTILES = (0.1, 99.9)
WHITE = 255.0
_MARGIN_PX = 16  # that docs/results.md leaves out too
_NYQUIST = 0.5
_ONE_GREY_DB = 20 * math.log10(WHITE)  # nobody sees what errs by less than one grey


def affine_psnr_db(image: NDArray[Any], truth: NDArray[Any]) -> float:
    """PSNR on the 0-255 scale after the best gain and offset.

    `image`, `truth` (Y, X), the truth on a 0-255 scale.
    """
    error = truth.astype(float) - _matched(image, truth)
    return 10 * math.log10(WHITE**2 / max(float(np.mean(error**2)), 1e-12))


def _matched(image: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float64]:
    """Bring an image as near to the truth as gain and offset can."""
    x = image.astype(float)
    gain, offset = match_affine(x, truth.astype(float))
    return np.asarray(gain * x + offset)


def frc_cutoff_per_px(image: NDArray[Any], truth: NDArray[Any]) -> float:
    """Find the frequency up to which an image agrees with its truth.

    Cycles per pixel at which their Fourier ring correlation falls below the criterion
    for a reference without noise; 0.5 where it never does, 0 where there is no answer.
    """
    a, b = (Micrograph(part.astype(np.float64)) for part in (image, truth))
    found = measure_frc(a, b, FrcOptions(reference=True))
    if found.resolution_px:
        return min(1 / found.resolution_px, _NYQUIST)
    return _NYQUIST if found.reason in ("beyond-nyquist", "identical") else 0.0


@torch.inference_mode()
def restore_field(
    module: nn.Module, image: NDArray[Any], faults: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Run a network on one small field, whole, in fp32; it may be told the faults.

    (Y, X) on any grey scale to (Y * scale, X * scale) on the same. The attributes
    `stride` and `scale` of the network, if any, say which sides it takes and how it
    enlarges.
    """
    low, high = np.percentile(image, PERCENTILES)
    span = max(float(high - low), 1e-6)
    stride, scale = (int(getattr(module, name, 1)) for name in ("stride", "scale"))
    lacking = [(0, -n % stride) for n in image.shape]
    padded = np.pad((image.astype(np.float32) - low) / span, lacking, mode="reflect")
    given = torch.from_numpy(padded.astype(np.float32)).to(_device_of(module))
    rows, columns = (n * scale for n in image.shape)
    learning = module.training
    told = () if faults is None else (torch.from_numpy(faults)[None].to(given.device),)
    restored = module.eval()(given[None, None], *told)[0, 0, :rows, :columns]
    module.train(learning)
    return np.asarray(restored.float().cpu().numpy() * span + low, dtype=np.float32)


def _device_of(module: nn.Module) -> torch.device:
    """Tell where a network lies."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))


class Validator:
    """Compares what networks make of fixed fields with the truth.

    `margin` pixels of the truth are left out along each border: networks that pad with
    zeros lose 2 to 5 dB by it, of which the inside of a mosaic shows nothing. By
    default as many as docs/results.md leaves out, or an eighth of a side if that is
    less. The truth is moved onto each image first, by at most `shift_px`.
    """

    def __init__(
        self,
        pairs: list[ValidationPair],
        *,
        cross_frc: bool = False,
        margin: int | None = None,
        shift_px: float = 0.0,
    ) -> None:
        self.pairs, self.cross_frc, self.margin = pairs, cross_frc, margin
        self.shift_px = shift_px
        self._before = [affine_psnr_db(*self.compared(_enlarged(p), p)) for p in pairs]

    def compared(
        self, image: NDArray[Any], pair: ValidationPair
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Give the insides of an image and of the truth, moved onto it."""
        truth, seen = (
            torch.from_numpy(np.asarray(one, np.float32))[None, None]
            for one in (pair.high, image)
        )
        moved = moved_onto(truth, seen, self.shift_px)[0, 0].numpy()
        return self._inner(image), self._inner(moved if self.shift_px else pair.high)

    def _inner(self, image: NDArray[Any]) -> NDArray[Any]:
        """Leave out the border."""
        margin = self.margin
        if margin is None:
            margin = min(_MARGIN_PX, min(image.shape) // 8)
        return image[margin : -margin or None, margin : -margin or None]

    def figures(self, network: nn.Module) -> dict[str, float]:
        """Judge a network.

        ``gain_db`` in PSNR over the degraded image, the same as ``gain_db_KIND`` for
        each degradation, ``psnr_db`` and ``ssim``, all after the best gain and offset,
        and ``frc_per_px`` if asked for; means over the fields.
        """
        found: dict[str, list[float]] = {}
        for pair, before in zip(self.pairs, self._before, strict=True):
            made = restore_field(network, pair.low, pair.faults)
            restored, high = self.compared(made, pair)
            psnr = affine_psnr_db(restored, high)
            gain = min(psnr, _ONE_GREY_DB) - min(before, _ONE_GREY_DB)
            row = {"gain_db": gain, f"gain_db_{pair.kind}": gain, "psnr_db": psnr}
            truth = high.astype(float)
            similar = structural_similarity(_matched(restored, truth), truth, WHITE)
            if similar is not None:
                row["ssim"] = similar
            if self.cross_frc:
                row["frc_per_px"] = frc_cutoff_per_px(restored, truth)
            for name, value in row.items():
                found.setdefault(name, []).append(value)
        names = sorted(found, key=lambda name: not name.startswith("gain"))
        return {name: float(np.mean(found[name])) for name in names}


def _enlarged(pair: ValidationPair) -> NDArray[Any]:
    """Bring the degraded image to the size of the truth by cubic interpolation."""
    scale = pair.high.shape[0] // pair.low.shape[0]
    low = torch.from_numpy(pair.low.astype(np.float32))
    return np.asarray(bicubic(low[None, None], scale)[0, 0].numpy())


# A picture of one held-out patch: degraded, what the network makes of it, truth.


def preview(
    network: nn.Module, recipe: Recipe, pairs: list[ValidationPair]
) -> Micrograph | None:
    """Put degraded patch, output and truth side by side.

    The field of most contrast is shown; without any, a degraded patch of the store and
    no truth. On the grey scale of the fields; None where there is nothing to show.
    """
    low, high = _chosen(recipe, pairs)
    if low is None:
        return None
    low = _centre(low, _PREVIEW_PX)
    made = restore_field(network, low)
    scale = made.shape[0] // low.shape[0]
    parts = [low.repeat(scale, 0).repeat(scale, 1), made]
    if high is not None:
        parts.append(_centre(high, _PREVIEW_PX * scale))
    return Micrograph(_beside(parts), _pixel_size(recipe), "low | output | truth")


def _chosen(
    recipe: Recipe, pairs: list[ValidationPair]
) -> tuple[Float32Array | None, Float32Array | None]:
    """Choose what is shown: the same at every validation."""
    if pairs:
        best = max(pairs, key=lambda pair: float(np.std(pair.high)))
        low = best.low.astype(np.float32)
        return low, None if recipe.blind else best.high.astype(np.float32)
    if recipe.data.pairs is None:
        return None, None
    store = open_pairs(Path(recipe.data.pairs))
    name = "validation" if store.counts["validation"] else "train"
    return np.asarray(store.arrays(name)[0][0], dtype=np.float32), None


def _beside(parts: list[Float32Array]) -> NDArray[np.float32]:
    """Put images of one size side by side, with dark gaps between them."""
    rows, columns = parts[0].shape
    gap: NDArray[Any] = np.full(
        (rows, max(2, columns // _GAP_SHARE)), min(p.min() for p in parts)
    )
    row = [item for part in parts for item in (gap, part)][1:]
    return np.concatenate(row, axis=1).astype(np.float32)


def _pixel_size(recipe: Recipe) -> PixelSize | None:
    """Pixel of the clear images, where the store knows it."""
    if recipe.data.pairs is None:
        return None
    record = open_pairs(Path(recipe.data.pairs)).record
    return parse_pixel_size(record.get("pixel_size_nm"))
