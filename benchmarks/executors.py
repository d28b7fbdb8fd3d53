"""Tiles as tasks against a plain loop: what handing them over costs.

Run: ``OMP_NUM_THREADS=1 python benchmarks/executors.py [--rounds N] [--side N]``.

The same plan of one field goes through the same network in three ways that take turns
within each round: a plain loop, the executor of this process (a
thread), and `distributed` with its workers in this process, on loopback alone. The
least processor time of each counts, and the median of the ratios within a round.
Libraries are imported and the network is warm before the first round. Exit code 1 means
that the executor took over 5 % more than the loop.
"""

import logging
import statistics
import sys
import time
import uuid

import numpy as np
from _networks import field
from _shared import read_options
from distributed import Client

from napari_semsr.core import Micrograph
from napari_semsr.inference import EnhanceOptions
from napari_semsr.inference.cluster import enhance_tiles, register_run, unregister_run
from napari_semsr.inference.executors import (
    LocalExecutor,
    TileWorker,
    create_tile_source,
    run_tiles,
)
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.tiles import TiledRun
from napari_semsr.models import load_model
from tests.enhancing import plan_of

GATE = 1.05
LOOPBACK = {
    **dict.fromkeys(("dashboard_address", "worker_dashboard_address"), "127.0.0.1:0"),
    "silence_logs": logging.CRITICAL,
}


def loop(work: TiledRun, predictor: Predictor, places: list[tuple[int, int]]) -> None:
    """Enhance tile after tile in this thread."""
    worker = TileWorker(work, predictor)
    for place in places:
        worker.enhance([place])
    worker.stop()


def threaded(
    work: TiledRun, predictor: Predictor, places: list[tuple[int, int]]
) -> None:
    """Enhance tiles as the engine does."""
    for _ in run_tiles(LocalExecutor(work, predictor), create_tile_source(places), 1):
        pass


def clustered(
    work: TiledRun, predictor: Predictor, places: list[tuple[int, int]]
) -> None:
    """Enhance tiles by a scheduler and a worker of `distributed` in this process."""
    token = uuid.uuid4().hex
    register_run(token, work, predictor)
    with Client(
        processes=False,
        n_workers=1,
        threads_per_worker=1,
        memory_limit=0,
        set_as_default=False,
        **LOOPBACK,
    ) as client:
        waiting, running = list(places), []
        while waiting or running:
            while waiting and len(running) < 2:
                group = [waiting.pop(0)]
                running.append(client.submit(enhance_tiles, token, group, pure=False))
            running.pop(0).result()
    unregister_run(token)


def main() -> int:
    """Measure, print, and judge."""
    chosen = read_options(__doc__, "--model=sem-restore --side=2048 --rounds=5")
    loaded = load_model(chosen.model)
    options = EnhanceOptions(precision="fp32", device="cpu")
    image = Micrograph(field((chosen.side, chosen.side)))
    predictor = Predictor(loaded, device="cpu", precision="fp32")
    plan = plan_of(image, loaded, options, predictor)
    places = [tile.index for tile in plan.outputs]
    target = np.zeros(plan.output.frame.shape, np.float32)
    ways = {"plain loop": loop, "executor": threaded, "distributed": clustered}
    took: dict[str, list[float]] = {name: [] for name in ways}
    expected = None
    for turn in range(chosen.rounds + 1):
        for name, way in ways.items():
            begun = time.process_time()
            way(TiledRun(plan, target), predictor, places[: 1 if not turn else None])
            if turn:
                took[name].append(time.process_time() - begun)
                expected = target.copy() if expected is None else expected
                if not np.array_equal(target, expected):
                    sys.exit(f"The {name} gave other pixels than the plain loop.")
            target[:] = 0
    print(f"{chosen.side} px, {len(places)} tiles, {loaded.card.name}, processor time")
    ratios = {}
    for name, seconds in took.items():
        pairs = zip(seconds, took["plain loop"], strict=True)
        ratios[name] = statistics.median(one / other for one, other in pairs)
        print(f"{name:12} least {min(seconds):6.2f} s, ratio {ratios[name]:.3f}")
    return int(ratios["executor"] > GATE)


if __name__ == "__main__":
    sys.exit(main())
