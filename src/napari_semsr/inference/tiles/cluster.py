"""Tiles on a dask cluster: a client, a bounded queue, and an orderly end."""

import itertools
import uuid
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any

from distributed import Client, WorkerPlugin, as_completed
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker

from napari_semsr.core import OptionError, SemsrError
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.tiles.worker import (
    TiledRun,
    TileResult,
    grouped,
    register,
    run_tiles,
    unregister,
)

_WAITING_PER_THREAD = 2
_PATIENCE = "10s"


class RunPlugin(WorkerPlugin):
    """Bring a run to each worker of a cluster, once, and take it away again."""

    def __init__(self, token: str, run: TiledRun) -> None:
        self.name = f"semsr-{token}"
        self.token = token
        self.run = run

    def setup(self, worker: Any) -> None:
        """Register the run on a worker that has just joined."""
        register(self.token, self.run)

    def teardown(self, worker: Any) -> None:
        """Stop the run on a worker that is leaving, or where the run is over."""
        unregister(self.token)


@contextmanager
def _remote_client(address: str) -> Iterator[Client]:
    """Join a cluster that somebody else runs."""
    try:
        client = Client(address, set_as_default=False, timeout=_PATIENCE)
    except (OSError, ValueError, TimeoutError) as error:
        msg = f"No dask scheduler answers at {address}: check --scheduler."
        raise OptionError(msg) from error
    try:
        yield client
    finally:
        client.close()


def _result(future: Any, address: str) -> list[TileResult]:
    """Fetch a result; say in a sentence what stands in its way."""
    try:
        pieces: list[TileResult] = future.result()
    except KilledWorker as error:
        msg = (
            f"A task was lost with each of {error.allowed_failures + 1} workers, "
            "which were killed or ran out of memory: give them more memory or a "
            "smaller --tile, then run again with --resume; finished tiles are kept."
        )
        raise SemsrError(msg) from error
    except (CancelledError, CommClosedError) as error:
        msg = (
            f"The dask cluster at {address} was lost: start it again, then "
            "run again with --resume; finished tiles are kept."
        )
        raise SemsrError(msg) from error
    return pieces


def run_there(
    run: TiledRun,
    predictor: Predictor,
    places: Sequence[tuple[int, int]],
    scheduler: str,
) -> Generator[list[TileResult]]:
    """Enhance tiles on a dask cluster and yield what is said of them as they land.

    The predictor is that of this process, which chooses the batch; workers make their
    own. Only a few tasks wait at a time, so that memory does not grow with their
    number. Closing this iterator cancels what waits and waits for what runs.
    """
    if not places:
        return
    token = uuid.uuid4().hex
    with _remote_client(scheduler) as client:
        plugin = RunPlugin(token, run)
        client.register_plugin(plugin)

        def submit(group: Sequence[tuple[int, int]]) -> Any:
            key = f"tile-{group[0][0]}-{group[0][1]}-{token[:8]}"
            return client.submit(run_tiles, token, group, pure=False, key=key)

        waiting = iter(grouped(places, predictor))
        threads = max(1, sum(client.nthreads().values()))
        first = itertools.islice(waiting, _WAITING_PER_THREAD * threads)
        futures = as_completed([submit(group) for group in first], loop=client.loop)
        try:
            for future in futures:
                pieces = _result(future, scheduler)
                future.release()
                for group in itertools.islice(waiting, 1):
                    futures.add(submit(group))
                yield pieces
        finally:
            client.cancel(list(futures.futures))
            if client.status == "running":
                client.unregister_worker_plugin(plugin.name)
            unregister(token)
