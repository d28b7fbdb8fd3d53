"""Peak memory of enhancing from OME-Zarr to OME-Zarr, for two sizes of field.

Each size runs in its own process, whose largest resident memory the system reports::

    python benchmarks/memory.py

Exit code 1 means that memory grew by 20 % or more with sixteen times the pixels.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

GATE = 1.20
_KIB_PER_MB = 1e6 / 1024


def make(path: Path, side: int) -> None:
    """Write a noisy field, chunk by chunk."""
    import numpy as np

    from napari_semsr.io.zarr_store import create_store

    rng = np.random.default_rng(0)
    store = create_store(path, shape=(side, side), dtype="uint16", chunk=512)
    for row, column in store.pending():
        place = np.s_[row * 512 : row * 512 + 512, column * 512 : column * 512 + 512]
        shape = store.level0[place].shape
        store.level0[place] = rng.integers(0, 4096, shape).astype(np.uint16)
        store.mark_done(row, column)
    for _ in store.finish():
        pass


def child(source: Path, target: Path, model: str, tile: int | None) -> None:
    """Enhance in this process and print what it took."""
    from napari_semsr.core.progress import run
    from napari_semsr.inference.engine import (
        EnhanceOptions,
        create_output,
        enhance_to_store,
    )
    from napari_semsr.io.registry import read
    from napari_semsr.models.checkpoint import load_model

    options = EnhanceOptions(tile=tile)
    image, loaded = read(source), load_model(model)
    store = create_output(target, image, loaded, options)
    report = run(enhance_to_store(image, loaded, store, options))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB_PER_MB
    found = {"peak_mb": peak, "seconds": report.seconds, "tiles": report.tiles}
    show: Callable[[str], None] = print
    show(json.dumps(found))


def main() -> int:
    """Measure both sizes, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="sem-restore")
    parser.add_argument("--tile", type=int, default=None)
    parser.add_argument("--sides", type=int, nargs=2, default=[2048, 8192])
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        child(*chosen.child, chosen.model, chosen.tile)
        return 0
    show: Callable[[str], None] = print
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for side in chosen.sides:
            source = Path(folder) / f"{side}.ome.zarr"
            target = Path(folder) / f"{side}-enhanced.ome.zarr"
            make(source, side)
            words = [sys.executable, __file__, "--model", chosen.model]
            words += ["--tile", str(chosen.tile)] if chosen.tile else []
            words += ["--child", str(source), str(target)]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout)
            peaks.append(found["peak_mb"])
            show(
                f"{side}²: {found['peak_mb']:.0f} MB, {found['tiles']} tiles, "
                f"{found['seconds']:.1f} s"
            )
    growth = peaks[1] / peaks[0]
    show(f"growth {growth:.2f} (gate {GATE})")
    return 0 if growth < GATE else 1


if __name__ == "__main__":
    sys.exit(main())
