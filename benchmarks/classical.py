"""What ``semsr restore`` gains, method by method, on images that no model has seen.

Run: ``python benchmarks/classical.py`` (needs the images that the recipe names).

The sets, the images and the score are those of ``benchmarks/restoration.py``: PSNR on
8-bit images after an affine match, 16 px of border left out. Every method runs with its
defaults, once given the true kernel and once with the width that it estimates. Nothing
is tuned for a set or an image.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.restoration.method import RestoreOptions, choose
from napari_semsr.simulation import degrade as gao
from napari_semsr.training.recipe import load_recipe
from napari_semsr.training.scenes import load_clear
from restoration import psnr_db, true_kernel

METHODS = ("wiener", "unsupervised-wiener", "cls", "richardson-lucy", "blind")


def clear_images(recipe: Path, side: int) -> list[NDArray[np.uint8]]:
    """Read the middles of the held-out images, 8-bit."""
    chosen = load_recipe(recipe)
    found = []
    for entry in chosen.data.held_out:
        image = load_clear(Path(chosen.data.root), entry)
        y, x = ((n - min(n, side)) // 2 for n in image.shape)
        found.append(np.rint(image[y : y + side, x : x + side] * 255).astype(np.uint8))
    return found


def restored(image: Micrograph, options: RestoreOptions, kernel: Micrograph) -> NDArray:
    """Restore one image in tiles."""
    restorer = choose(image, options, kernel)
    result = np.empty(image.shape, np.float32)
    for tile, values in restorer.tiles(image.data, restorer.plan(image.shape)):
        result[tile.core.slices] = values
    return result.astype(float)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/sem-restore.yaml"))
    parser.add_argument("--side", type=int, default=512)
    arguments = parser.parse_args()
    clear = clear_images(arguments.recipe, arguments.side)
    print("| set | method | true kernel | worst | estimated | worst | s/image |")
    print("|---|---|---|---|---|---|---|")
    for kind in gao.KINDS:
        kernel = Micrograph(true_kernel(kind), name="kernel")
        low = [
            gao.degrade_plane(c, kind, seed=100 + i).image for i, c in enumerate(clear)
        ]
        before = [
            psnr_db(b.astype(float), a.astype(float))
            for a, b in zip(clear, low, strict=True)
        ]
        for method in METHODS:
            begun, cells = time.process_time(), []
            for psf in ("kernel.tif", "estimate"):
                options = RestoreOptions(method=method, psf=psf)
                gains = [
                    psnr_db(restored(Micrograph(b), options, kernel), a.astype(float))
                    - p
                    for a, b, p in zip(clear, low, before, strict=True)
                ]
                cells += [f"{np.mean(gains):+.2f}", f"{min(gains):+.2f}"]
            took = (time.process_time() - begun) / 2 / len(clear)
            print(
                f"| {kind} | {method} | {' | '.join(cells)} | {took:.2f} |", flush=True
            )
        flat = f"flat{kernel.shape[0] // 2 * 2 + 1}px"
        options = RestoreOptions(method="blind", psf=flat)
        gains = [
            psnr_db(restored(Micrograph(b), options, kernel), a.astype(float)) - p
            for a, b, p in zip(clear, low, before, strict=True)
        ]
        said = f"| {kind} | blind, from {flat} | {np.mean(gains):+.2f} | "
        print(said + f"{min(gains):+.2f} | - | - | - |", flush=True)


if __name__ == "__main__":
    main()
