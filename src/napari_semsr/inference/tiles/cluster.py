"""Tiles on a dask cluster: a client, a bounded queue, and an orderly end."""

import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from typing import Any, Self

from distributed import Client, WorkerPlugin
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker

from napari_semsr.core import IntPair, OptionError, SemsrError
from napari_semsr.inference.tiles.executors import Executor
from napari_semsr.inference.tiles.worker import (
    TiledRun,
    TileResult,
    enhance_tiles,
    register,
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


class ClusterExecutor(Executor):
    """Workers of a cluster that sees the same files.

    The run travels to each worker once, which makes its own predictor. Only a few tasks
    wait at a time, so that memory does not grow with their number.
    """

    def __init__(self, run: TiledRun, address: str) -> None:
        super().__init__()
        self._address = address
        self._token = uuid.uuid4().hex
        self._plugin = RunPlugin(self._token, run)
        self._client: Any = None
        self._end = ExitStack()
        self._futures: set[Any] = set()

    def __enter__(self) -> Self:
        with ExitStack() as end:
            self._client = end.enter_context(_remote_client(self._address))
            self._client.register_plugin(self._plugin)
            threads = max(1, sum(self._client.nthreads().values()))
            self.slots = _WAITING_PER_THREAD * threads
            self._end = end.pop_all()
        return self

    def submit(self, places: Sequence[IntPair]) -> None:
        """Hand over a group of tiles."""
        row, column = places[0]
        future = self._client.submit(
            enhance_tiles,
            self._token,
            places,
            pure=False,
            key=f"tile-{row}-{column}-{self._token[:8]}",
        )
        self._futures.add(future)
        self._watch(future)

    def _result_of(self, future: Any) -> list[TileResult]:
        """Fetch a result; say in a sentence what stands in its way."""
        self._futures.discard(future)
        try:
            found: list[TileResult] = future.result()
        except KilledWorker as error:
            msg = (
                f"A task was lost with each of {error.allowed_failures + 1} workers, "
                "which were killed or ran out of memory: give them more memory or a "
                "smaller --tile, then run again with --resume; finished tiles are kept."
            )
            raise SemsrError(msg) from error
        except (CancelledError, CommClosedError) as error:
            msg = (
                f"The dask cluster at {self._address} was lost: start it again, then "
                "run again with --resume; finished tiles are kept."
            )
            raise SemsrError(msg) from error
        future.release()
        return found

    def __exit__(self, *_: object) -> None:
        with self._end:
            self._client.cancel(list(self._futures))
            if self._client.status == "running":
                self._client.unregister_worker_plugin(self._plugin.name)
            unregister(self._token)
