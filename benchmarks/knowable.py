"""What no system can know, and what a paired one loses: the experiments of a page.

Run: ``PYTHONPATH=benchmarks python benchmarks/knowable.py`` (about four minutes of
one core, ``--steps 0`` leaves the networks out; docs/knowable.md). No part
of it is random but for the seeds below.

- *hollow*: a sample whose features stand out, and the same turned inside out. How far
  apart are the two superlens pictures, and how far the two electron images?
- *contrast*: an electron image whose contrast is lowered and lifted again by the
  generators of a cycle. Which term of a CycleGAN's loss tells?
- *loss*: Gao's loss, of generators that copy, of the true blur with a network that
  pairs have taught to undo it or with Wiener's inverse, and of weaker blurs with their
  inverses on the way there. Which of them would training choose?
- *texture*: what does an output lose that has the texture of a clear image?
- *power*: superlens fields, each ring of spatial frequency brought to the very power
  that the electron image has there, or to what comes nearest to it. What is gained?
- *shift*: pairs whose truth lies some pixels away, in a direction that differs from
  pair to pair. What do the best linear filter of all pairs, and a network, gain on
  held-out images that are in register?
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from _restoration import BORDER, clear_images, least_squares, seen
from _shared import mean_and_error, read_options
from _superlens_fields import SIDE, series
from numpy.typing import NDArray
from scipy import ndimage
from superlens import look
from torch import nn
from torch.nn import functional

from napari_semsr.analysis import fit_gain_and_offset
from napari_semsr.models import build_network
from napari_semsr.simulation import create_gaussian_kernel, simulate_ssum_pair
from napari_semsr.simulation.degrade import (
    BLUR_SIGMA_PX,
    BLUR_SIZE_PX,
    degrade_plane,
)
from napari_semsr.training.cycle_gan import Blur, cycle_ssim_loss, edge_loss
from napari_semsr.training.recipe import GanOptions, load_recipe
from napari_semsr.training.scenes import load_clear_image
from napari_semsr.training.validation import collect_validation_fields

Image = NDArray[np.float64]
RECIPE = Path(__file__).parents[1] / "recipes" / "tables" / "gao-a.yaml"
LENS_RECIPE = RECIPE.with_name("sun.yaml")
RINGS = 24  # over half a cycle per pixel
RINGS_TOLD = {
    "power": "the power of the electron image",
    "sign": "that power, turned over where the contrast is",
    "best": "what comes nearest to the electron image",
}
SHIFTS_PX = (0.0, 0.5, 1.0, 2.0)
RELIEF_NM, SIZES_NM = 60.0, (100, 150, 300)
CONTRASTS = (1.0, 0.8, 0.5)
NOISE_TO_SIGNAL = (0.0005, 0.001, 0.002, 0.01)
TOGETHER_PX = (0.5, 0.7, 1.0)
CYCLE_NOISE = 0.004  # as recipes/tables/narrow has it
IMAGES, SEED, DRAWS = 24, 4242, 8
PATCH_PX, BATCH = 64, 8
WHITE = 255.0
DISTINCT, DECEIVED = 0.0, 0.5
"""What discriminators say of an image that they tell apart, and of one they cannot."""


def psnr_db(image: Image, truth: Image, white: float) -> float:
    """Give the PSNR after the best gain and offset."""
    gain, offset = fit_gain_and_offset(image, truth)
    error = float(np.mean((gain * image + offset - truth) ** 2))
    return float(10 * np.log10(white**2 / max(error, 1e-12)))


def hollow() -> None:
    """Compare hills of a height with hollows of that depth, focus on the ground."""
    print("| discs, nm | superlens pictures apart, of 255 | electron images, dB |")
    print("|---:|---:|---:|")
    for size in SIZES_NM:
        drawn, _ = series(size, "discs", RELIEF_NM, SIDE)
        hills = replace(drawn, material=np.zeros_like(drawn.material))
        hollows = replace(hills, height_nm=-hills.height_nm)
        seen = [
            simulate_ssum_pair(
                s, SIDE, look(0.0, photons=0), np.random.default_rng(SEED)
            )
            for s in (hills, hollows)
        ]
        apart = WHITE * float(np.abs(seen[0].low - seen[1].low).max())
        truths = [pair.high.astype(float) for pair in seen]
        print(f"| {size} | {apart:.1e} | {psnr_db(*truths, 1.0):.1f} |")


def contrast() -> None:
    """Let both generators of a cycle change the contrast, one undoing the other."""
    clear = clear_images(RECIPE, 256)[0] / WHITE
    image = torch.from_numpy(clear.astype(np.float32))[None, None]
    middle = image.mean()
    print("| contrast | cycle, 1 - SSIM | edges | identity, MSE |")
    print("|---:|---:|---:|---:|")
    for share in CONTRASTS:
        made = middle + share * (image - middle)
        back = middle + (made - middle) / share
        kept = middle + (image - middle) / share  # of F, of a degraded image
        found = (
            float(cycle_ssim_loss(back, image)),
            float(edge_loss(back, kept, "sobel")),
            float(functional.mse_loss(made, image)),
        )
        print(f"| {share:g} | " + " | ".join(f"{v:.1e}" for v in found) + " |")


@dataclass(frozen=True, slots=True)
class Pairs:
    """Images to learn from, and those that judge."""

    learnt: list[tuple[Image, Image]]  # blurred, clear
    judged: list[tuple[Image, Image]]


def pairs() -> Pairs:
    """Blur images as Gao's set A has it, on the unit scale."""
    recipe = load_recipe(RECIPE)
    root, entries = Path(recipe.data.root), recipe.data.train
    chosen = entries[:: max(1, len(entries) // IMAGES)][:IMAGES]
    learnt = []
    for number, entry in enumerate(chosen):
        clear = np.rint(load_clear_image(root, entry)[:512, :512] * WHITE).astype(
            np.uint8
        )
        low = degrade_plane(clear, "blur", seed=number).image
        learnt.append((low / WHITE, clear / WHITE))
    judged = [
        (degrade_plane(c, "blur", seed=100 + i).image / WHITE, c / WHITE)
        for i, c in enumerate(clear_images(RECIPE, 512))
    ]
    return Pairs(learnt, judged)


def moved(truth: Image, far_px: float, rng: np.random.Generator) -> Image:
    """Move an image by a distance, in a random direction."""
    turn = rng.uniform(0, 2 * np.pi)
    by = far_px * np.sin(turn), far_px * np.cos(turn)
    return np.asarray(ndimage.shift(truth, by, order=3, mode="reflect"))


def linear_gain(given: Pairs, far_px: float) -> list[float]:
    """Fit one filter to all pairs; give the gains where judged."""
    rng = np.random.default_rng(SEED)
    edge = np.s_[BORDER:-BORDER, BORDER:-BORDER]

    def parts() -> Iterator[tuple[Image, Image]]:
        for low, clear in given.learnt:
            drawn = [moved(clear, far_px, rng)[edge] for _ in range(DRAWS)]
            wanted = np.mean(drawn, axis=0)
            for at, rows in seen(low):
                yield rows, wanted[at].ravel()

    weights = least_squares(parts(), 1e-6)
    gains = []
    for low, clear in given.judged:
        made = np.concatenate([rows @ weights for _, rows in seen(low)])
        truth = clear[edge]
        gains.append(gain_db(low[edge], made.reshape(truth.shape), truth))
    return gains


def gain_db(before: Image, after: Image, truth: Image, white: float = 1.0) -> float:
    """Give what was gained in PSNR."""
    return psnr_db(after, truth, white) - psnr_db(before, truth, white)


def told(gains: list[float]) -> str:
    """Say the mean with its error, and the worst."""
    return f"{mean_and_error(gains)} | {min(gains):+.2f}"


def taught(given: Pairs, far_px: float, steps: int) -> nn.Module:
    """Teach a small network on moved pairs."""
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    options = {"width": 16, "fine_blocks": 2, "dilations": [1, 1]}
    network = build_network("two-scale", options).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        lows, highs = [], []
        for _ in range(BATCH):
            low, clear = given.learnt[rng.integers(len(given.learnt))]
            y, x = (int(rng.integers(8, n - PATCH_PX - 8)) for n in low.shape)
            far = clear[y - 8 : y + PATCH_PX + 8, x - 8 : x + PATCH_PX + 8]
            lows.append(low[y : y + PATCH_PX, x : x + PATCH_PX])
            highs.append(moved(far, far_px, rng)[8:-8, 8:-8])
        x, wanted = (
            torch.from_numpy(np.stack(part)[:, None].astype(np.float32))
            for part in (lows, highs)
        )
        loss = functional.mse_loss(network(x), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def network_gain(given: Pairs, far_px: float, steps: int) -> list[float]:
    """Teach a small network on moved pairs; give the gains where judged."""
    network = taught(given, far_px, steps)
    gains = []
    edge = np.s_[BORDER:-BORDER, BORDER:-BORDER]
    for low, clear in given.judged:
        rows, columns = (n // 4 * 4 for n in low.shape)
        x = torch.from_numpy(low[:rows, :columns].astype(np.float32))[None, None]
        with torch.inference_mode():
            made = network(x)[0, 0].numpy().astype(float)
        before, truth = low[:rows, :columns][edge], clear[:rows, :columns][edge]
        gains.append(gain_db(before, made[edge], truth))
    return gains


class Inverse(nn.Module):
    """Wiener's inverse of a Gaussian kernel."""

    def __init__(self, sigma_px: float, noise_to_signal: float) -> None:
        super().__init__()
        kernel = create_gaussian_kernel(sigma_px, BLUR_SIZE_PX).astype(np.float32)
        self.kernel, self.noise_to_signal = torch.from_numpy(kernel), noise_to_signal

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Undo the blur in images (B, 1, H, W), whose edges are reflected."""
        edge = BLUR_SIZE_PX
        wide = functional.pad(x, (edge,) * 4, mode="reflect")
        rows, columns = wide.shape[-2:]
        kernel = torch.zeros(rows, columns)
        kernel[:edge, :edge] = self.kernel
        passed = torch.fft.rfft2(kernel.roll((-(edge // 2),) * 2, (0, 1))).real
        weight = passed / (passed**2 + self.noise_to_signal)
        made: torch.Tensor = torch.fft.irfft2(
            torch.fft.rfft2(wide) * weight, s=(rows, columns)
        )
        return made[..., edge:-edge, edge:-edge]


def blurred(sigma_px: float) -> Blur:
    """Make the generator that blurs by a Gaussian."""
    return Blur(create_gaussian_kernel(sigma_px, BLUR_SIZE_PX).astype(np.float32))


def preferred(steps: int) -> None:
    """Print Gao's loss of copies, of what is right, and of the way between them.

    Images of the kind that a generator is to make stay as they are in all cases, so
    that identity costs nothing: the least that the others can have. A generator whose
    output nobody can tell has a score of `DECEIVED`, one that is told for sure of
    `DISTINCT`; between both the discriminators are left out.
    """
    given, gan = pairs(), load_recipe(RECIPE).gan
    blur, copy = blurred(BLUR_SIGMA_PX), nn.Identity()
    cases: dict[str, tuple[nn.Module, nn.Module, tuple[float, ...]]] = {
        "both copy": (copy, copy, (DISTINCT, DISTINCT)),
        "one blurs, the other copies": (copy, blur, (DISTINCT, DECEIVED)),
    }
    if steps:
        right = taught(given, 0.0, steps)
        cases["one blurs, a network undoes it"] = (right, blur, (DECEIVED, DECEIVED))
    for share in NOISE_TO_SIGNAL:
        inverse = Inverse(BLUR_SIGMA_PX, share)
        name = f"one blurs, Wiener's inverse undoes it, noise to signal {share:g}"
        cases[name] = (inverse, blur, (DECEIVED, DECEIVED))
    for sigma in TOGETHER_PX:
        inverse = Inverse(sigma, NOISE_TO_SIGNAL[1])
        cases[f"both at {sigma:g} px, and its inverse"] = inverse, blurred(sigma), ()
    for noise in (0.0, CYCLE_NOISE):
        print(f"Noise halfway round the cycle: {noise:g} of the range")
        print("| generators | gain, dB | cycle | edges | discriminators | sum |")
        print("|---|---:|---:|---:|---:|---:|")
        for name, (there, back, scores) in cases.items():
            gain, terms = loss_of(there, back, given.judged, gan, noise)
            against = sum(gan.generator_factor * (s - 1) ** 2 for s in scores)
            last = (
                f"{against:.2f} | {sum(terms) + against:.2f}"
                if scores
                else "not shown | not shown"
            )
            shown = " | ".join(f"{v:.2f}" for v in terms)
            print(f"| {name} | {gain:+.2f} | {shown} | {last} |")


def loss_of(
    there: nn.Module,
    back: nn.Module,
    judged: list[tuple[Image, Image]],
    gan: GanOptions,
    noise: float,
) -> tuple[float, NDArray[np.float64]]:
    """Give what a generator gains, in dB, and the cycle's and the edges' terms."""
    torch.manual_seed(SEED)
    terms, gains = np.zeros(2), []
    for (low, truth), (_, clear) in itertools.pairwise(judged):
        x, y, best = (
            torch.from_numpy(part[:SIDE, :SIDE].astype(np.float32))[None, None]
            for part in (low, clear, truth)
        )
        with torch.inference_mode():
            clear_x, coarse_y = there(x), back(y)
            back_x = back(clear_x + noise * torch.randn_like(x))
            back_y = there(coarse_y + noise * torch.randn_like(y))
        terms += (
            gan.cycle_weight
            * float(cycle_ssim_loss(back_x, x) + cycle_ssim_loss(back_y, y)),
            gan.edge_weight * float(edge_loss(back_x, x) + edge_loss(back_y, y)),
        )
        first, made, wanted = (
            part[0, 0].numpy().astype(float)[BORDER:-BORDER, BORDER:-BORDER]
            for part in (x, clear_x, best)
        )
        gains.append(gain_db(first, made, wanted))
    return float(np.mean(gains)), terms / len(gains)


def texture() -> None:
    """Print what the look of a clear image costs, of Gaussian texture of its spectrum.

    Each frequency of power S is estimated with power P. Drawn as the input allows it,
    the texture has twice the least error, S - P; what is nearest to the best estimate
    and has power S, 2 (S - sqrt(S P)) (Freirich, Michaeli and Meir 2021).
    """
    window = np.hanning(SIDE)[:, None] * np.hanning(SIDE)
    y, x = np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE)
    ring = (SIDE * np.hypot(y, x)).astype(int)
    passed = np.exp(-2 * (np.pi * BLUR_SIGMA_PX) ** 2 * (y**2 + x**2))
    noise = 1 / 12 / WHITE**2  # of rounding to 8 bits
    gains = []
    for _, clear in pairs().judged:
        image = clear[:SIDE, :SIDE]
        power = np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2
        power /= np.sum(window**2)
        signal = (np.bincount(ring.flat, power.flat) / np.bincount(ring.flat))[ring]
        known = (signal * passed) ** 2 / (signal * passed**2 + noise)
        before = np.sum(signal * (1 - passed) ** 2 + noise)
        errors = (
            np.sum(signal - known),
            2 * np.sum(signal - known),
            2 * np.sum(signal - np.sqrt(signal * known)),
        )
        gains.append([10 * np.log10(before / error) for error in errors])
    print("| output | gain, dB | worst image |")
    print("|---|---:|---:|")
    names = ("the best estimate", "texture drawn at random", "the nearest with texture")
    for name, found in zip(names, zip(*gains, strict=True), strict=True):
        print(f"| {name} | {told(found)} |")


def power() -> None:
    """Print what the right power of every spatial frequency gains, and the best one."""
    fields = collect_validation_fields(load_recipe(LENS_RECIPE), 1)
    gains: dict[str, list[float]] = {name: [] for name in RINGS_TOLD}
    edge = np.s_[BORDER:-BORDER, BORDER:-BORDER]
    for field in fields:
        low, high = (np.asarray(f, float) for f in (field.low, field.high))
        for name, made in in_rings(low, high).items():
            gains[name].append(gain_db(low[edge], made[edge], high[edge], WHITE))
    print("| each ring of spatial frequency has | gain in dB | worst field |")
    print("|---|---:|---:|")
    for name, found in gains.items():
        print(f"| {RINGS_TOLD[name]} | {told(found)} |")


def in_rings(low: Image, high: Image) -> dict[str, Image]:
    """Weigh rings: to the power of the truth, with its sign, and the best."""
    x, y = (np.fft.rfft2(image - image.mean()) for image in (low, high))
    rows, columns = low.shape
    far = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns))
    ring = np.minimum((2 * RINGS * far).astype(int), RINGS)

    def summed(values: Image) -> Image:
        return np.bincount(ring.ravel(), values.ravel(), RINGS + 1)

    own, wanted = summed(np.abs(x) ** 2), summed(np.abs(y) ** 2)
    both = summed(np.real(y * np.conj(x)))
    level = np.sqrt(wanted / own)
    weights = {"power": level, "sign": level * np.sign(both), "best": both / own}
    return {n: np.fft.irfft2(x * w[ring], low.shape) for n, w in weights.items()}


def shift(steps: int) -> None:
    """Print what pairs that are out of register cost."""
    given = pairs()
    print(
        "| out by, px | best filter, gain in dB | worst | network, gain in dB | worst |"
    )
    print("|---:|---:|---:|---:|---:|")
    for far in SHIFTS_PX:
        found = [linear_gain(given, far)]
        found += [network_gain(given, far, steps)] if steps else []
        print(f"| {far:g} | {' | '.join(map(told, found))} |", flush=True)


def main() -> None:
    """Print the tables of the page."""
    asked = read_options(__doc__, "--steps=1200")
    hollow()
    contrast()
    preferred(asked.steps)
    texture()
    power()
    shift(asked.steps)


if __name__ == "__main__":
    main()
