"""Tiles on a dask cluster of 1 and 2 worker processes, beside this process alone.

Run: ``OMP_NUM_THREADS=1 python benchmarks/cluster.py``. Every worker has one thread, so
that two of them do twice the work of one on two cores, unless something else binds.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from distributed import LocalCluster

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import run
from napari_semsr.inference.engine import EnhanceOptions, enhance_to_store
from napari_semsr.inference.planning import create_output
from napari_semsr.io.registry import read, write
from napari_semsr.models.checkpoint import load_model


def seconds(source: Micrograph, path: Path, scheduler: str | None) -> float:
    """Time one run, from the first look at the field to the finished pyramid."""
    loaded, options = load_model("sem-restore"), EnhanceOptions(precision="fp32")
    store = create_output(path, source, loaded, options)
    begun = time.perf_counter()
    run(enhance_to_store(source, loaded, store, options, scheduler=scheduler))
    return time.perf_counter() - begun


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=4096)
    side = parser.parse_args().side
    image = np.random.default_rng(0).integers(0, 256, (side, side)).astype(np.uint8)
    show = print
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(Micrograph(image), folder / "field.ome.zarr")
        source = read(folder / "field.ome.zarr")
        alone = seconds(source, folder / "alone.ome.zarr", None)
        show(f"this process alone  {alone:6.1f} s")
        for workers in (1, 2):
            with LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address=None,
            ) as cluster:
                cluster.wait_for_workers(workers)
                address = cluster.scheduler_address
                took = seconds(source, folder / f"{workers}.ome.zarr", address)
            show(
                f"{workers} worker process(es) {took:6.1f} s, {alone / took:.2f} times"
            )


if __name__ == "__main__":
    main()
