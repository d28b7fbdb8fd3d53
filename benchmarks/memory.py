"""Peak memory of enhancing fields of different sizes.

Each runs in its own process::

    python benchmarks/memory.py             # semsr enhance, the default model, 8192²
    python benchmarks/memory.py --memory-gb 0.15  # the same, in small windows
    python benchmarks/memory.py --growth    # an identity from 4096² to 32768²

The first two run the command; the next sends a field through the whole engine, reader,
tiles, store and pyramid, with an identity in place of a network. The system reports the
largest resident memory. Its input is one chunk under many names, and
takes no room on the disk.

Exit code 1 means that a gate was missed: 1.5 GB for the first, 0.5 GB for the second
form of it, libraries included; a growth by a tenth for the identity.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _shared import Usage, read_options, usage_of

PEAK_MB, SMALL_MB, GROWTH = 1500.0, 500.0, 1.10
CHUNK = 512
_KIB_PER_MB = 1e6 / 1024


def make(path: Path, side: int) -> None:
    """Write a noisy field, chunk by chunk."""
    import numpy as np

    from napari_semsr.io import create_store

    rng = np.random.default_rng(0)
    store = create_store(path, shape=(side, side), dtype="uint16", chunk=CHUNK)
    for row, column in store.pending_units():
        y, x = row * CHUNK, column * CHUNK
        place = np.s_[y : y + CHUNK, x : x + CHUNK]
        shape = store.level0[place].shape
        store.level0[place] = rng.integers(0, 4096, shape).astype(np.uint16)
        store.mark_done(row, column)
    for _ in store.finish():
        pass


def make_repeated(path: Path, side: int) -> Any:
    """Make an array of which all chunks are one file, at once however large it is."""
    import numpy as np
    import zarr

    array = zarr.create_array(
        path, shape=(side, side), chunks=(CHUNK, CHUNK), dtype="u1", fill_value=0
    )
    coarse = np.random.default_rng(0).integers(40, 215, (32, 32)).astype("u1")
    array[:CHUNK, :CHUNK] = coarse.repeat(17, 0).repeat(17, 1)[:CHUNK, :CHUNK]
    first = path / "c" / "0" / "0"
    for row in range(side // CHUNK):
        (path / "c" / str(row)).mkdir(exist_ok=True)
        for column in range(side // CHUNK):
            if row or column:
                os.link(first, path / "c" / str(row) / str(column))
    return array


def hold(folder: Path, side: int) -> None:
    """Send a field through the engine in this process, and print what it took."""
    import dask.array as da

    from napari_semsr.core import Micrograph, configure_allocator, run

    configure_allocator()
    from _networks import identity

    from napari_semsr.inference import EnhanceOptions
    from tests.enhancing import fill, store_for

    image = Micrograph(da.from_zarr(make_repeated(folder / "in.zarr", side)))
    loaded, options = identity(), EnhanceOptions(device="cpu", precision="fp32")
    store = store_for(folder / "out.ome.zarr", image, loaded, options)
    begun = time.perf_counter()
    report = run(fill(image, loaded, store, options))
    seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "tiles": report.tiles}))


def measured(words: list[object]) -> tuple[dict[str, Any], Usage]:
    """Run a process that prints one record: the record, and what it took."""
    used = usage_of(words)
    if used.code:
        raise SystemExit(used.code)
    return json.loads(used.said.splitlines()[-1]), used


def command(side: int, model: str, tile: int | None, memory_gb: float | None) -> int:
    """Run ``semsr enhance`` on a noisy field, and judge its peak."""
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "field.ome.zarr"
        make(source, side)
        words = [sys.executable, "-m", "napari_semsr", "enhance", source, "-o"]
        words += [Path(name) / "out.ome.zarr", "--model", model, "--json", "--quiet"]
        words += ["--tile", tile] if tile else []
        words += ["--memory-gb", memory_gb] if memory_gb else []
        found, used = measured(words)
    peak = used.peak_kib / _KIB_PER_MB
    gate = PEAK_MB if memory_gb is None else SMALL_MB
    print(
        f"semsr enhance, {side}²: {peak:.0f} MB (gate {gate:.0f}), "
        f"{found['tiles']} tiles, {found['precision']}, {found['seconds']:.1f} s, "
        f"{used.cpu_s:.0f} s of processor time"
    )
    return int(peak > gate)


def growth(sides: list[int]) -> int:
    """Send fields of different sizes through the engine, and judge the growth."""
    peaks = []
    for side in sides:
        with tempfile.TemporaryDirectory() as folder:
            found, used = measured([sys.executable, __file__, "--hold", folder, side])
        peaks.append(used.peak_kib / _KIB_PER_MB)
        print(
            f"identity, {side}²: {peaks[-1]:.0f} MB, {found['tiles']} tiles, "
            f"{found['seconds']:.1f} s"
        )
    ratio = peaks[-1] / peaks[0]
    print(f"growth {ratio:.3f} (gate {GROWTH})")
    return int(ratio > GROWTH)


def main() -> int:
    """Measure, print, and judge."""
    chosen = read_options(
        __doc__,
        "--model=sem-restore --tile=N --memory-gb=X --growth --sides=4096,32768 "
        "--side=8192",
        hold=({"nargs": 2}, argparse.SUPPRESS),
    )
    if chosen.hold:
        hold(Path(chosen.hold[0]), int(chosen.hold[1]))
        return 0
    if chosen.growth:
        return growth(chosen.sides)
    return command(chosen.side, chosen.model, chosen.tile, chosen.memory_gb)


if __name__ == "__main__":
    sys.exit(main())
