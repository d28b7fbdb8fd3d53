"""Tiles as dask tasks: one loop, and what runs them in this process.

A few tiles are handed over at a time, from an order of our own that may change while a
run goes on. The loop never waits long for a tile, so that whoever drives it can stop
it; what computes then looks between the layers of the network whether it should go on.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any, Self

from napari_semsr.core import IntPair, Progress
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.tiles.worker import TiledRun, TileResult, TileWorker

# A third of the 0.3 s within which a cancel is to be acknowledged
_HEARTBEAT_S = 0.1

Take = Callable[[int], Sequence[IntPair] | None]
"""Gives up to a number of tiles; none while nobody wants any, None at the end."""
Work = Generator[list[TileResult] | Progress | None]
"""Tiles as they are written; None says that it goes on."""


class Executor(ABC):
    """Where tasks run: here, or on a cluster."""

    slots = 1  # Tasks that are submitted at a time

    def __init__(self) -> None:
        self.waiting = 0  # Tasks that are submitted now
        self._finished: SimpleQueue[Any] = SimpleQueue()

    @abstractmethod
    def submit(self, places: Sequence[IntPair]) -> None:
        """Hand over a group of tiles, which goes through in one pass."""

    def result(self) -> Any:
        """Give what a task has returned; None when all go on after a heartbeat."""
        try:
            future = self._finished.get(timeout=_HEARTBEAT_S)
        except Empty:
            return None
        self.waiting -= 1
        return self._result_of(future)

    def _result_of(self, future: Any) -> Any:
        return future.result()

    def _watch(self, future: Any) -> None:
        """Wait for a task."""
        self.waiting += 1
        future.add_done_callback(self._finished.put)

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(self, *_: object) -> None:
        """Drop what waits, stop what runs, and return when nothing does any more."""


class LocalExecutor(Executor):
    """A thread of this process, with dask's scheduler of one thread.

    One tile on all cores is as fast as a tile for each core (measured on two: 10 %
    either way) and takes the memory of one. It is submitted alone: a second would only
    wait behind it, in an order that may be out of date by then. `distributed` would
    take 1.3 s to import, and costs more for each tile (``benchmarks/executors.py``).
    """

    def __init__(self, run: TiledRun, predictor: Predictor) -> None:
        super().__init__()
        self._worker = TileWorker(run, predictor)
        self._thread = ThreadPoolExecutor(1, "semsr-tiles")

    def submit(self, places: Sequence[IntPair]) -> None:
        """Hand over a group of tiles."""
        self._call(self._worker.enhance, places)

    def call(
        self, function: Callable[..., Any], *given: Any
    ) -> Generator[None, None, Any]:
        """Run a function as a task, and return what it returns."""

        def work() -> Any:
            with self._worker.working():
                return function(*given)

        self._call(work)
        while (found := self.result()) is None:
            yield None
        return found

    def _call(self, function: Callable[..., Any], *given: Any) -> None:
        from dask.delayed import delayed  # 0.1 s, and plans are made without it

        task = delayed(function, pure=False, traverse=False)(*given)
        self._watch(self._thread.submit(task.compute, scheduler="synchronous"))

    def __exit__(self, *_: object) -> None:
        self._worker.stop()
        self._thread.shutdown()


def run_tiles(
    executor: Executor, take: Take, batch: int
) -> Generator[list[TileResult] | None]:
    """Run tiles that need nothing of each other, in the order in which they are taken.

    An empty result says that nothing runs, None that something does. Closing this
    iterator stops within a layer of the network.
    """
    more = True
    with executor:
        while more or executor.waiting:
            while more and executor.waiting < executor.slots:
                places = take(batch)
                more = places is not None
                if not places:
                    break
                executor.submit(places)
            if executor.waiting:
                yield executor.result()
            elif more:
                yield []


def in_order(places: Sequence[IntPair]) -> Take:
    """Take tiles as they are listed."""
    waiting = iter(places)
    return lambda count: list(itertools.islice(waiting, count)) or None
