"""Validation images with ground truth, and the evaluation of networks on them."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr import analysis, core, simulation
from napari_semsr.models import upsample_bicubic
from napari_semsr.pairing import PairStore, open_pairs
from napari_semsr.training.patches import (
    bin_pixels,
    open_pair_store,
    scale_to_unit_range,
)
from napari_semsr.training.recipe import Recipe
from napari_semsr.training.scenes import INSTRUMENTS, PHANTOM_SEED, load_clear_image

_SLIGHT_BLUR_PX = 0.5  # Gaussian sigma
_FIELDS = 14  # of a simulated instrument
_MAX_STORED = 64  # patches of a store
_PREVIEW_PX = 256  # side of a preview's image; chosen
_GAP_SHARE = 64  # part of its side between images; chosen


@dataclass(frozen=True, slots=True)
class ValidationPair:
    """Degraded image with its ground truth, which may be larger; grey values 0-255."""

    kind: str
    low: NDArray[Any]
    high: core.RealArray
    faults: core.Float32Array | None = None


Pairs = list[ValidationPair]


def _crop_centre(image: core.Float32Array, side: int) -> core.Float32Array:
    y, x = ((n - min(n, side)) // 2 for n in image.shape)
    return image[y : y + side, x : x + side]


def collect_validation_fields(recipe: Recipe, scale: int) -> Pairs:
    """Collect the validation images with ground truth from all sources of a recipe."""
    pairs: Pairs = []
    if recipe.data.pairs is not None:
        store = open_pair_store(recipe, scale)
        pairs += read_stored_pairs(store, "validation") if store.is_paired else []
    if not recipe.has_simulated_scenes:
        return pairs
    for name, share in recipe.data.sources.items():
        if share > 0 and name == "images":
            pairs += bin_pairs(create_validation_pairs(recipe), scale)
        elif share > 0:
            fields = INSTRUMENTS[name](recipe, scale).validation_pairs(_FIELDS)
            pairs += [ValidationPair(name, x * WHITE, y * WHITE) for x, y in fields]
    return pairs


def create_validation_pairs(recipe: Recipe, side: int = 512) -> Pairs:
    """Create the fixed validation pairs: all images with all degradations."""
    root = Path(recipe.data.root)
    clear = [
        _crop_centre(load_clear_image(root, e), side) for e in recipe.data.validation
    ]
    if recipe.data.phantoms > 0:
        small = (side // 2, side // 2)
        clear += [
            simulation.draw_phantom(kind, small, seed=PHANTOM_SEED + 1)
            for kind in simulation.PHANTOMS
        ]
    pairs: Pairs = []
    if recipe.kind == "restorer":
        for index, plane in enumerate(clear):
            # each fault alone, all faults, and none
            for number, (kind, shares) in enumerate(_ALONE.items()):
                rng = np.random.default_rng([PHANTOM_SEED, index, number])
                faults = recipe.faults.replace(**shares)
                faulty = simulation.apply_random_faults(plane, faults, rng)
                images = faulty.low * WHITE, faulty.high * WHITE
                known_faults = faulty.faults if recipe.learns == "sharpener" else None
                pairs.append(ValidationPair(kind, *images, known_faults))
        return pairs
    eight = [np.rint(image * 255).astype(np.uint8) for image in clear]
    for index, image in enumerate(eight):
        for kind in simulation.KINDS:
            if getattr(recipe.degradations, kind) > 0:
                low = simulation.degrade_plane(image, kind, seed=index).image
                pairs.append(ValidationPair(kind, low, image))
    if recipe.degradations.sharp > 0:
        for image in eight:
            soft = ndimage.gaussian_filter(image.astype(np.float32), _SLIGHT_BLUR_PX)
            low = np.asarray(np.rint(soft), dtype=np.uint8)
            pairs.append(ValidationPair("sharp", low, image))
    return pairs


_ALONE = {
    "noise": {"blurred": 0.0, "veiled": 0.0, "noisy": 1.0},
    "blur": {"blurred": 1.0, "veiled": 0.0, "noisy": 0.0},
    "veil": {"blurred": 0.0, "veiled": 1.0, "noisy": 0.0},
    "all": {"blurred": 1.0, "veiled": 0.5, "noisy": 1.0},
    "none": {"blurred": 0.0, "veiled": 0.0, "noisy": 0.0},
}


def bin_pairs(pairs: Pairs, scale: int) -> Pairs:
    """Bin the degraded images of pairs by a scale factor."""
    if scale == 1:
        return pairs
    coarser_pairs = []
    for pair in pairs:
        low = bin_pixels(pair.low.astype(np.float32), scale)
        rows, columns = (n * scale for n in low.shape)
        coarser_pairs.append(ValidationPair(pair.kind, low, pair.high[:rows, :columns]))
    return coarser_pairs


def read_stored_pairs(store: PairStore, name: str) -> Pairs:
    """Read up to 64 evenly spaced pairs from a set of a store."""
    sides = (read_stored_patches(store, name, side) for side in (0, 1))
    return [
        ValidationPair("pairs", low * WHITE, high * WHITE)
        for low, high in zip(*sides, strict=True)
    ]


def read_stored_patches(
    store: PairStore, name: str, side: int
) -> list[core.Float32Array]:
    """Read up to 64 evenly spaced patches of one side, in units of their ranges."""
    array = store.get_arrays(name)[side]
    count = int(array.shape[0])
    numbers = np.unique(np.linspace(0, count - 1, min(count, _MAX_STORED)).round())
    return [
        scale_to_unit_range(np.asarray(array[n]), store.get_ranges(name, n)[side])
        for n in numbers.astype(int).tolist()
    ]


# Figures of a network on fields with ground truth.
PERCENTILES = (0.1, 99.9)  # taken as black and white; chosen
WHITE = 255.0
_MARGIN_PX = 16  # as in the tables of the papers
_NYQUIST = 0.5
_ONE_GREY_DB = 20 * math.log10(WHITE)  # errors below one grey value are invisible


def compute_affine_psnr_db(image: core.RealArray, truth: core.RealArray) -> float:
    """Return the PSNR for grey values 0-255 after fitting gain and offset."""
    error = truth.astype(float) - _match_grey_levels(image, truth)
    return 10 * math.log10(WHITE**2 / max(float(np.mean(error**2)), 1e-12))


def _match_grey_levels(image: core.RealArray, truth: core.RealArray) -> core.FloatArray:
    """Match the grey values of an image to the ground truth by gain and offset."""
    x = image.astype(float)
    gain, offset = analysis.fit_gain_and_offset(x, truth.astype(float))
    return np.asarray(gain * x + offset)


def compute_frc_cutoff_per_px(image: core.RealArray, truth: core.RealArray) -> float:
    """Return the frequency, per pixel, up to which image and ground truth agree."""
    a, b = (core.Micrograph(part.astype(np.float64)) for part in (image, truth))
    # allow_self: the image may have been simulated from the ground truth
    options = analysis.FrcOptions(reference=True, allow_self=True)
    result = analysis.measure_frc(a, b, options)
    if result.resolution_px:
        return min(1 / result.resolution_px, _NYQUIST)
    return _NYQUIST if result.reason in ("beyond-nyquist", "identical") else 0.0


@torch.inference_mode()
def restore_field(
    module: nn.Module, image: core.RealArray, faults: core.Float32Array | None = None
) -> core.Float32Array:
    """Run a network in fp32 without tiling on a small image with given faults."""
    low, high = np.percentile(image, PERCENTILES)
    span = max(float(high - low), 1e-6)
    stride, scale = (int(getattr(module, name, 1)) for name in ("stride", "scale"))
    lacking = [(0, -n % stride) for n in image.shape]
    unit_range = (image.astype(np.float32) - low) / span
    padded_image = np.pad(unit_range, lacking, mode="reflect").astype(np.float32)
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    network_input = torch.from_numpy(padded_image).to(device)
    rows, columns = (n * scale for n in image.shape)
    learning = module.training
    inputs = [network_input[None, None]]
    if faults is not None:
        inputs.append(torch.from_numpy(faults)[None].to(device))
    output = module.eval()(*inputs)[0, 0, :rows, :columns]
    module.train(learning)
    return np.asarray(output.float().cpu().numpy() * span + low, dtype=np.float32)


class Validator:
    """Evaluation of networks on fixed images with ground truth.

    `margin` pixels of the ground truth are omitted along each border: networks that pad
    with zeros lose 2 to 5 decibels there, which does not matter in a mosaic. The
    default is that of the papers' tables, or an eighth of a side if that is less. The
    ground truth is first aligned with each image, by a shift of at most `shift_px`.
    """

    def __init__(
        self,
        pairs: Pairs,
        *,
        cross_frc: bool = False,
        margin: int | None = None,
        shift_px: float = 0.0,
    ) -> None:
        self.pairs, self.cross_frc, self.margin = pairs, cross_frc, margin
        self.shift_px = shift_px
        self._before = []
        for pair in pairs:  # enlarged to the size of the ground truth
            scale = pair.high.shape[0] // pair.low.shape[0]
            low = torch.from_numpy(pair.low.astype(np.float32))[None, None]
            image = np.asarray(upsample_bicubic(low, scale)[0, 0].numpy())
            planes = self.align_and_crop(image, pair)
            self._before.append(compute_affine_psnr_db(*planes))

    def align_and_crop(
        self, image: core.RealArray, pair: ValidationPair
    ) -> tuple[core.RealArray, core.RealArray]:
        """Align the ground truth with an image, and crop the margins of both."""
        truth, margin = pair.high, self.margin
        if self.shift_px:
            there, here = (
                torch.from_numpy(np.asarray(one, np.float32))[None, None]
                for one in (truth, image)
            )
            truth = align_ground_truth(there, here, self.shift_px)[0, 0].numpy()
        if margin is None:
            margin = min(_MARGIN_PX, min(image.shape) // 8)
        inner = np.s_[margin : -margin or None, margin : -margin or None]
        return image[inner], truth[inner]

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Evaluate a network by PSNR, its gain (also by degradation), SSIM and FRC."""
        all_figures: dict[str, list[float]] = {}
        for pair, before in zip(self.pairs, self._before, strict=True):
            output = restore_field(network, pair.low, pair.faults)
            output_part, high = self.align_and_crop(output, pair)
            psnr = compute_affine_psnr_db(output_part, high)
            gain = min(psnr, _ONE_GREY_DB) - min(before, _ONE_GREY_DB)
            row = {"gain_db": gain, f"gain_db_{pair.kind}": gain, "psnr_db": psnr}
            truth = high.astype(float)
            matched = _match_grey_levels(output_part, truth)
            similar = analysis.structural_similarity(matched, truth, WHITE)
            if similar is not None:
                row["ssim"] = similar
            if self.cross_frc:
                row["frc_per_px"] = compute_frc_cutoff_per_px(output_part, truth)
            for name, value in row.items():
                all_figures.setdefault(name, []).append(value)
        names = sorted(all_figures, key=lambda name: not name.startswith("gain"))
        return {name: float(np.mean(all_figures[name])) for name in names}


# Preview image of one held-out patch: degraded, restored, ground truth.


def create_preview(
    network: nn.Module, recipe: Recipe, pairs: Pairs
) -> core.Micrograph | None:
    """Create a preview image of a held-out patch, its output and its ground truth."""
    high = None
    if pairs:  # the same at every validation
        best = max(pairs, key=lambda pair: float(np.std(pair.high)))
        low = best.low.astype(np.float32)
        high = None if recipe.kind == "blind-spot" else best.high.astype(np.float32)
    elif recipe.data.pairs is None:
        return None
    else:
        store = open_pairs(Path(recipe.data.pairs))
        name = "validation" if store.counts["validation"] else "train"
        low = np.asarray(store.get_arrays(name)[0][0], dtype=np.float32)
    low = _crop_centre(low, _PREVIEW_PX)
    output = restore_field(network, low)
    scale = output.shape[0] // low.shape[0]
    parts = [low.repeat(scale, 0).repeat(scale, 1), output]
    if high is not None:
        parts.append(_crop_centre(high, _PREVIEW_PX * scale))
    rows, columns = parts[0].shape
    dark = np.full((rows, max(2, columns // _GAP_SHARE)), min(p.min() for p in parts))
    row = np.concatenate([item for part in parts for item in (dark, part)][1:], axis=1)
    size = None
    if recipe.data.pairs is not None:  # of the clear images, if the store has it
        size = open_pairs(Path(recipe.data.pairs)).record.get("pixel_size_nm")
    picture = row.astype(np.float32)
    return core.Micrograph(picture, core.parse_pixel_size(size), "low | output | truth")


_LOBES = 3  # of Lanczos's kernel
_STEPS = 2  # chosen: the second changes the shift by some hundredths of a pixel
_SIGMA_PX = 1.5  # chosen: finer structure is noise, which does not determine a shift
_RIDGE = 1e-3  # of the gradients' power: flat patches are not shifted
_BORDER = 4  # px that the padding affects


@torch.no_grad()
def align_ground_truth(truth: Tensor, image: Tensor, most_px: float) -> Tensor:
    """Align ground truths with images (B, 1, H, W), by at most `most_px` per axis."""
    if most_px == 0:
        return truth
    smooth_image = _smooth_images(image)
    down, across = torch.gradient(smooth_image, dim=(-2, -1))
    slopes = _crop_border(torch.cat([down, across], 1)).flatten(2)
    power = slopes @ slopes.transpose(1, 2)
    ridge = _RIDGE * power.diagonal(dim1=1, dim2=2).sum(-1) + torch.finfo().tiny
    power = power + ridge[:, None, None] * torch.eye(2, device=power.device).to(power)
    shift = truth.new_zeros(len(truth), 2)
    shifted_image, reach = truth, _LOBES + 1
    taps_at = torch.arange(-reach, reach + 1, device=truth.device).to(truth)
    for _ in range(_STEPS):
        difference = _smooth_images(shifted_image) - smooth_image
        difference = _crop_border(difference).flatten(2)
        difference = difference - difference.mean(-1, keepdim=True)
        step = torch.linalg.solve(power, slopes @ difference.transpose(1, 2))[..., 0]
        shift = (shift + step).clamp(-most_px, most_px)
        # with a Lanczos kernel
        at = taps_at + shift[..., None]
        taps = torch.sinc(at) * torch.sinc(at / _LOBES) * (at.abs() < _LOBES)
        taps = (taps / taps.sum(-1, keepdim=True))[:, :, None]
        down_taps, across_taps = taps[:, 0, :, :, None], taps[:, 1, :, None]
        shifted_image = _convolve_images(truth, down_taps, across_taps)
    return shifted_image


def _crop_border(x: Tensor) -> Tensor:
    return x[..., _BORDER:-_BORDER, _BORDER:-_BORDER]


def _smooth_images(x: Tensor) -> Tensor:
    away = torch.arange(-_BORDER, _BORDER + 1, device=x.device)
    taps = torch.exp(-((away / _SIGMA_PX) ** 2) / 2)
    taps = (taps / taps.sum()).to(x).expand(len(x), 1, -1)
    return _convolve_images(x, taps[..., None], taps[:, :, None])


def _convolve_images(x: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Convolve each image with its own two kernels, (B, 1, K, 1) and (B, 1, 1, K)."""
    half, count = across.shape[-1] // 2, len(x)
    wide = functional.pad(x, (half, half, half, half), mode="replicate")
    flat = wide.transpose(0, 1)
    for taps in (down, across):
        flat = functional.conv2d(flat, taps, groups=count)
    return flat.transpose(0, 1)
