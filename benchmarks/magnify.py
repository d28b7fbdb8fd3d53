"""What ``sem-2x`` makes of real SEM images that it never saw, taken at half the pitch.

Run: ``python benchmarks/magnify.py`` (needs the images that the recipe names).

The held-out images stand for the truth. Each is blurred or not, averaged over 2 x 2
pixels, given Poisson noise or not, rounded to 8 bits, and brought back to its size.
PSNR and SSIM on 8-bit images, 16 px of border left out, means over the images; *worst*
is the least gain over cubic splines on any image. Peers are those of
``benchmarks/gold.py``; the oracle is the best linear filter in hindsight: 11 x 11
coarse pixels for each of the four fine ones, fitted to the truth of that very image.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gold import BORDER, Image, by_kernel, keys, lanczos, linear_fit, network, splines
from scipy import ndimage

from napari_semsr.analysis.metrics import measure_metrics
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.models.cards import bundled
from napari_semsr.training.data.scenes import load_clear
from napari_semsr.training.recipe import load_recipe

SEED = 41


@dataclass(frozen=True)
class Scan:
    """How the coarse image is taken: blur in fine pixels, electrons at white."""

    name: str
    sigma_px: float
    electrons: float

    def take(self, truth: Image, seed: int) -> Image:
        """Make the coarse image on the 0-255 scale."""
        blurred = ndimage.gaussian_filter(truth, self.sigma_px, mode="reflect")
        rows, columns = (n // 2 for n in truth.shape)
        coarse = blurred.reshape(rows, 2, columns, 2).mean((1, 3))
        if self.electrons:
            rng = np.random.default_rng([SEED, seed])
            coarse = rng.poisson(coarse / 255 * self.electrons)
            coarse = coarse * (255 / self.electrons)
        return np.clip(np.rint(coarse), 0, 255)


SCANS = (
    Scan("averaged over 2 x 2", 0.0, 0),
    Scan("blur 0.6 px, 1500 electrons", 0.6, 1500),
    Scan("blur 1.0 px, 300 electrons", 1.0, 300),
)


def score(image: Image, truth: Image) -> tuple[float, float]:
    """PSNR and SSIM of an image rounded to 8 bits."""
    inner = (slice(BORDER, -BORDER),) * 2
    eight = np.clip(np.rint(image), 0, 255)[inner].astype(np.uint8)
    found = measure_metrics(
        Micrograph(eight), Micrograph(truth[inner].astype(np.uint8))
    )
    return float(found.psnr_db or 0.0), float(found.ssim or 0.0)


def truths(recipe: Path, side: int) -> list[Image]:
    """Read the middles of the held-out images, of even sides, on the 0-255 scale."""
    chosen = load_recipe(recipe)
    found = []
    for entry in chosen.data.held_out:
        image = load_clear(Path(chosen.data.root), entry)
        y, x = ((n - min(n, side)) // 2 for n in image.shape)
        crop = image[y : y + side, x : x + side]
        rows, columns = (n // 2 * 2 for n in crop.shape)
        found.append(np.rint(crop[:rows, :columns] * 255).astype(float))
    return found


def main() -> None:
    """Print one table for each way of taking the coarse image."""
    parser = argparse.ArgumentParser(description=__doc__)
    own = [name for name in bundled() if name == "sem-2x"]
    parser.add_argument("--recipe", type=Path, default=Path("recipes/sem-restore.yaml"))
    parser.add_argument("--model", nargs="*", default=own, help="names or files")
    parser.add_argument("--side", type=int, default=512)
    arguments = parser.parse_args()
    clear = truths(arguments.recipe, arguments.side)
    fixed = {
        "cubic splines": splines,
        "bicubic": by_kernel(keys),
        "Lanczos": by_kernel(lanczos),
    }
    fixed |= {Path(name).stem: network(name) for name in arguments.model}
    for scan in SCANS:
        print(f"\n{scan.name} ({len(clear)} images)\n")
        print("| method | PSNR, dB | gain | worst | SSIM |\n|---|---|---|---|---|")
        coarse = [scan.take(truth, index) for index, truth in enumerate(clear)]
        base = np.array([])
        for name in [*fixed, "oracle linear filter"]:
            scores = []
            for low, truth in zip(coarse, clear, strict=True):
                method = fixed.get(name) or linear_fit([(low, truth)])
                scores.append(score(method(low), truth))
            psnr, ssim = np.array(scores).T
            base = psnr if not base.size else base
            gain = psnr - base
            print(
                f"| {name} | {psnr.mean():.2f} | {gain.mean():+.2f} "
                f"| {gain.min():+.2f} | {ssim.mean():.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
