"""What ``semsr restore`` gains, method by method, on images that no model has seen.

Run: ``python benchmarks/classical.py`` (needs the images that the recipe names).

The sets are Gao's, of the middles of held-out images; PSNR is of 8-bit images after an
affine match, 16 px of border left out. Every method runs with its defaults, once given
the true kernel and once with the width that it estimates. Nothing is tuned for a set or
an image.
"""

import time
from pathlib import Path

import numpy as np
from _restoration import clear_images, psnr_db, true_kernel
from _shared import mean_and_error, read_options
from numpy.typing import NDArray

from napari_semsr.core import Micrograph, run
from napari_semsr.restoration import RestoreOptions, prepare_restoration
from napari_semsr.simulation import degrade as gao

METHODS = ("wiener", "unsupervised-wiener", "cls", "richardson-lucy", "blind")


def restored(image: Micrograph, options: RestoreOptions, kernel: Micrograph) -> NDArray:
    """Restore one image in tiles."""
    restorer = run(prepare_restoration(image, options, kernel))
    result = np.empty(image.shape, np.float32)
    for tile, values in restorer.restore_tiles(
        image.data, restorer.create_plan(image.shape)
    ):
        result[tile.core.slices] = values
    return result.astype(float)


def main() -> None:
    """Print the table."""
    asked = read_options(__doc__, "--side=512", recipe=Path("recipes/sem-restore.yaml"))
    clear = clear_images(asked.recipe, asked.side)
    print("| set | method | true kernel | worst | estimated | worst | s/image |")
    print("|---|---|---|---|---|---|---|")
    for kind in gao.KINDS:
        kernel = Micrograph(true_kernel(kind), name="kernel")
        low = [
            gao.degrade_plane(c, kind, seed=100 + i).image for i, c in enumerate(clear)
        ]
        pairs = list(zip(clear, low, strict=True))

        def gains(method: str, psf: str, kernel=kernel, pairs=pairs) -> str:
            options = RestoreOptions(method=method, psf=psf)
            found = [
                psnr_db(restored(Micrograph(b), options, kernel), a.astype(float))
                - psnr_db(b.astype(float), a.astype(float))
                for a, b in pairs
            ]
            return f"{mean_and_error(found)} | {min(found):+.2f}"

        for method in METHODS:
            begun = time.process_time()
            cells = [gains(method, psf) for psf in ("kernel.tif", "estimate")]
            took = (time.process_time() - begun) / 2 / len(clear)
            print(
                f"| {kind} | {method} | {' | '.join(cells)} | {took:.2f} |", flush=True
            )
        flat = f"flat{kernel.shape[0] // 2 * 2 + 1}px"
        told = gains("blind", flat)
        print(f"| {kind} | blind, from {flat} | {told} | - | - | - |", flush=True)


if __name__ == "__main__":
    main()
