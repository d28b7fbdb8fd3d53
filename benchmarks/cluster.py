"""Tiles on a dask cluster of 1 and 2 worker processes, beside this process alone.

Run: ``OMP_NUM_THREADS=1 python benchmarks/cluster.py``. Every worker has one thread, so
that two of them do twice the work of one on two cores, unless something else binds.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
from _shared import read_options
from distributed import LocalCluster

from napari_semsr.core import Micrograph, run
from napari_semsr.inference import EnhanceOptions
from napari_semsr.io import read, write
from napari_semsr.models import load_model
from tests.enhancing import fill, store_for


def seconds(source: Micrograph, path: Path, scheduler: str | None) -> float:
    """Time one run, from the first look at the field to the finished pyramid."""
    loaded, options = load_model("sem-restore"), EnhanceOptions(precision="fp32")
    store = store_for(path, source, loaded, options)
    begun = time.perf_counter()
    run(fill(source, loaded, store, options, scheduler=scheduler))
    return time.perf_counter() - begun


def main() -> None:
    """Print the table."""
    side = read_options(__doc__, "--side=4096").side
    image = np.random.default_rng(0).integers(0, 256, (side, side)).astype(np.uint8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(Micrograph(image), folder / "field.ome.zarr")
        source = read(folder / "field.ome.zarr")
        alone = seconds(source, folder / "alone.ome.zarr", None)
        print(f"this process alone  {alone:6.1f} s")
        for workers in (1, 2):
            with LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address=None,
            ) as cluster:
                cluster.wait_for_workers(workers)
                address = cluster.scheduler_address
                path = folder / f"{workers}.ome.zarr"
                took = seconds(source, path, address)
                first = read(folder / "alone.ome.zarr").array()
                off = float(np.abs(read(path).array() - first).max() / np.ptp(first))
            print(
                f"{workers} worker process(es) {took:6.1f} s, {alone / took:.2f} times,"
                f" {off:.1e} of the range from this process"
            )


if __name__ == "__main__":
    main()
