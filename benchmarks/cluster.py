"""Tiles on a dask cluster of 1 and 2 worker processes, beside this process alone.

Run: ``OMP_NUM_THREADS=1 python benchmarks/cluster.py``. Every worker has one thread, so
that two of them do twice the work of one on two cores, unless something else binds.
With ``--exact`` a residual generator with instance norm, 16 channels wide, is run with
the statistics of the whole field, which this process measures before tiles run on the
cluster. The processor time with a cluster inside this process, over that of none, then
tells what measuring first and the full halo cost, also on a busy machine.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
from _networks import random_model
from _shared import read_options
from distributed import LocalCluster

from napari_semsr.core import Micrograph, run
from napari_semsr.inference import EnhanceOptions
from napari_semsr.io import read, write
from napari_semsr.models import load_model
from tests.enhancing import fill, store_for


def seconds(
    source: Micrograph, path: Path, scheduler: str | None, *, exact: bool
) -> float:
    """Time one run, from the first look at the field to the finished pyramid."""
    if exact:
        loaded = random_model("resnet", {"width": 16})
        options = EnhanceOptions(
            precision="fp32", norm="whole", memory_gb=1e-6, tile=256
        )
    else:
        loaded, options = load_model("sem-restore"), EnhanceOptions(precision="fp32")
    store = store_for(path, source, loaded, options)
    begun = time.perf_counter()
    run(fill(source, loaded, store, options, scheduler=scheduler))
    return time.perf_counter() - begun


def overhead(source: Micrograph, folder: Path) -> tuple[float, float]:
    """Take the processor time of an exact run without and with a cluster."""
    took = []
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        memory_limit=0,
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
    ) as cluster:
        warm = source.replace(data=np.asarray(source.data[:256, :256]))
        seconds(warm, folder / "warm.ome.zarr", None, exact=True)
        for name, address in (("none", None), ("inside", cluster.scheduler_address)):
            begun = time.process_time()
            path = folder / f"{name}.ome.zarr"
            seconds(source, path, address, exact=True)
            took.append(time.process_time() - begun)
    return took[0], took[1]


def main() -> None:
    """Print the table."""
    given = read_options(__doc__, "--side=4096 --exact")
    side, exact = given.side, given.exact
    image = np.random.default_rng(0).integers(0, 256, (side, side)).astype(np.uint8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(Micrograph(image), folder / "field.ome.zarr")
        source = read(folder / "field.ome.zarr")
        if exact:
            none, inside = overhead(source, folder)
            print(
                f"processor time {none:.1f} s, {inside / none:.2f} times on a cluster"
            )
        alone = seconds(source, folder / "alone.ome.zarr", None, exact=exact)
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
                took = seconds(source, path, address, exact=exact)
                first = read(folder / "alone.ome.zarr").array()
                off = float(np.abs(read(path).array() - first).max() / np.ptp(first))
            print(
                f"{workers} worker process(es) {took:6.1f} s, {alone / took:.2f} times,"
                f" {off:.1e} of the range from this process"
            )


if __name__ == "__main__":
    main()
