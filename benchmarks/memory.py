"""Peak memory of enhancing fields of different sizes.

Each runs in its own process::

    python benchmarks/memory.py             # semsr enhance, the default model, 8192²
    python benchmarks/memory.py --memory-gb 0.15  # the same, in small windows
    python benchmarks/memory.py --growth    # an identity from 4096² to 32768²
    python benchmarks/memory.py --lockstep  # instance norm over 16384², on disk

The first two run the command; the next sends a field through the whole engine, reader,
tiles, store and pyramid, with an identity in place of a network. The system reports the
largest resident memory. Its input is one chunk under many names, and
takes no room on the disk. The last runs a narrow generator with instance norm, exact,
and may take 0.5 GB; what its layers need beyond that lies on disk, up to 12 GB.

Exit code 1 means that a gate was missed: 1.5 GB for the first, 0.5 GB for the second
form of it, libraries included; a growth by a tenth for the identity, 0.5 GB above what
the process held before for lockstep.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _shared import read_options

PEAK_MB, SMALL_MB, GROWTH = 1500.0, 500.0, 1.10
LOCKSTEP_GB, EXACT = 0.5, 1e-5
CHUNK = 512
_KIB_PER_MB = 1e6 / 1024


def make(path: Path, side: int) -> None:
    """Write a noisy field, chunk by chunk."""
    import numpy as np

    from napari_semsr.io import create_store

    rng = np.random.default_rng(0)
    store = create_store(path, shape=(side, side), dtype="uint16", chunk=CHUNK)
    for row, column in store.pending():
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


def identity() -> Any:
    """Give a model that returns its input."""
    import torch

    from napari_semsr.models import LoadedModel, ModelCard

    card = ModelCard(name="identity", architecture="identity", receptive_field=0)
    return LoadedModel(torch.nn.Identity(), card, "sha256:0")


def hold(folder: Path, side: int) -> None:
    """Send a field through the engine in this process, and print what it took."""
    import dask.array as da

    from napari_semsr.core import Micrograph, compact_memory, run

    compact_memory()
    from napari_semsr.inference import (
        EnhanceOptions,
        create_output,
        enhance_to_store,
        plan_output,
        plan_run,
    )

    image = Micrograph(da.from_zarr(make_repeated(folder / "in.zarr", side)))
    loaded, options = identity(), EnhanceOptions(device="cpu", precision="fp32")
    output = plan_output(image, loaded.card.model_dump(), options)
    store = create_output(folder / "out.ome.zarr", output)
    begun = time.perf_counter()
    planned = run(plan_run(image, output, loaded, options, store=store))
    report = run(enhance_to_store(planned, store))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB_PER_MB
    seconds = time.perf_counter() - begun
    found = {"peak_mb": peak, "seconds": seconds, "tiles": report.tiles}
    print(json.dumps(found))


def lockstep(side: int) -> int:
    """Run a field exactly through a network that normalises over all of it."""
    import dask.array as da
    import torch

    from napari_semsr.core import Micrograph, run
    from napari_semsr.inference import (
        EnhanceOptions,
        create_output,
        enhance_to_store,
        plan_output,
        plan_run,
    )
    from napari_semsr.models import LoadedModel, ModelCard, build

    torch.manual_seed(0)
    shape = {"width": 4, "blocks": 1}
    module = build("resnet", shape).eval()
    card = ModelCard(
        name="resnet",
        architecture="resnet",
        options=shape,
        stride=4,
        receptive_field=0,
        norms=True,
    )
    loaded = LoadedModel(module, card, "sha256:0")
    options = EnhanceOptions(norm="exact", device="cpu", memory_gb=LOCKSTEP_GB)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB_PER_MB
    with tempfile.TemporaryDirectory() as name:
        array = make_repeated(Path(name) / "in.zarr", side)
        image = Micrograph(da.from_zarr(array))
        output = plan_output(image, loaded.card.model_dump(), options)
        store = create_output(Path(name) / "out.ome.zarr", output)
        planned = run(plan_run(image, output, loaded, options, store=store))
        report = run(enhance_to_store(planned, store))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB_PER_MB
    print(
        f"lockstep, {side}²: {peak:.0f} MB, {before:.0f} MB before, "
        f"{report.seconds:.1f} s, tile mismatch {report.tile_mismatch:.1e}"
    )
    print(" ".join(report.notes))
    exact = report.norm == "exact" and report.tile_mismatch < EXACT
    return int(peak > before + 1e3 * LOCKSTEP_GB or not exact)


def measured(words: list[str]) -> dict[str, Any]:
    """Run a process that prints one record, and tell its largest resident memory."""
    done = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    said = done.communicate()[0]
    if done.returncode:
        raise SystemExit(done.returncode)
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def command(side: int, model: str, tile: int | None, memory_gb: float | None) -> int:
    """Run ``semsr enhance`` on a noisy field, and judge its peak."""
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "field.ome.zarr"
        make(source, side)
        words = [sys.executable, "-m", "napari_semsr", "enhance", str(source)]
        words += ["-o", str(Path(name) / "out.ome.zarr"), "--model", model, "--json"]
        words += ["--quiet", *(["--tile", str(tile)] if tile else [])]
        words += ["--memory-gb", str(memory_gb)] if memory_gb else []
        found = measured(words)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = used.ru_maxrss / _KIB_PER_MB
    gate = PEAK_MB if memory_gb is None else SMALL_MB
    print(
        f"semsr enhance, {side}²: {peak:.0f} MB (gate {gate:.0f}), "
        f"{found['tiles']} tiles, {found['precision']}, {found['seconds']:.1f} s, "
        f"{used.ru_utime + used.ru_stime:.0f} s of processor time"
    )
    return int(peak > gate)


def growth(sides: list[int]) -> int:
    """Send fields of different sizes through the engine, and judge the growth."""
    peaks = []
    for side in sides:
        with tempfile.TemporaryDirectory() as folder:
            words = [sys.executable, __file__, "--hold", folder, str(side)]
            found = measured(words)
        peaks.append(found["peak_mb"])
        print(
            f"identity, {side}²: {found['peak_mb']:.0f} MB, {found['tiles']} tiles, "
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
        "--lockstep",
        side=(int, "default: 8192, or 16384 in lockstep"),
        hold=({"nargs": 2}, argparse.SUPPRESS),
    )
    if chosen.hold:
        hold(Path(chosen.hold[0]), int(chosen.hold[1]))
        return 0
    if chosen.growth:
        return growth(chosen.sides)
    if chosen.lockstep:
        return lockstep(chosen.side or 16384)
    return command(chosen.side or 8192, chosen.model, chosen.tile, chosen.memory_gb)


if __name__ == "__main__":
    sys.exit(main())
