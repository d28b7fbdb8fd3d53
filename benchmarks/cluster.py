"""Tiles on a dask cluster of 1 and 2 worker processes, beside this process alone.

Run: ``OMP_NUM_THREADS=1 python benchmarks/cluster.py``. Every worker has one thread, so
that two of them do twice the work of one on two cores, unless something else binds.
Everything runs twice: a worker loads torch in its first run, this process before both.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
from _shared import read_options
from distributed import LocalCluster

from napari_semsr.core import Micrograph, configure_allocator, run
from napari_semsr.inference import EnhanceOptions
from napari_semsr.io import read, write


def seconds(source: Micrograph, path: Path, scheduler: str | None) -> float:
    """Time one run, from the first look at the field to the finished pyramid."""
    from napari_semsr.models import load_model
    from tests.enhancing import fill, store_for

    loaded, options = load_model("sem-restore"), EnhanceOptions(precision="fp32")
    store = store_for(path, source, loaded, options)
    begun = time.perf_counter()
    run(fill(source, loaded, store, options, scheduler=scheduler))
    return time.perf_counter() - begun


def main() -> None:
    """Print the table."""
    configure_allocator()  # as the command and each worker do, before torch is loaded
    side = read_options(__doc__, "--side=4096").side
    image = np.random.default_rng(0).integers(0, 256, (side, side)).astype(np.uint8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(Micrograph(image), folder / "field.ome.zarr")
        source = read(folder / "field.ome.zarr")
        paths = [folder / f"alone.{n}.ome.zarr" for n in range(2)]
        first, alone = (seconds(source, path, None) for path in paths)
        here = read(paths[1]).array()
        print(f"this process alone  {first:6.1f}, then {alone:6.1f} s")
        for workers in (1, 2):
            with LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address=None,
            ) as cluster:
                cluster.wait_for_workers(workers)
                address = cluster.scheduler_address
                paths = [folder / f"{workers}.{n}.ome.zarr" for n in range(2)]
                first, took = (seconds(source, path, address) for path in paths)
            is_equal = np.array_equal(here, read(paths[1]).array())
            print(
                f"{workers} worker process(es) {first:6.1f}, then {took:6.1f} s, "
                f"{took / alone:.2f} of one process; equal: {is_equal}"
            )


if __name__ == "__main__":
    main()
