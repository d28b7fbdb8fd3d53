"""Tile execution on a dask cluster, with a bounded queue."""

import asyncio
import os
import re
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from typing import Any, Self

import dask
from distributed import Client, WorkerPlugin
from distributed.comm.core import CommClosedError, connect
from distributed.scheduler import KilledWorker

from napari_semsr import core
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.tiles import (
    STOP_MESSAGE,
    Executor,
    TiledRun,
    TileResult,
    TileWorker,
)

_WAITING_PER_THREAD = 2  # tiles queued for each thread of a cluster; chosen
PATIENCE_S = 10.0
_ADDRESS = re.compile(r"(?:[a-z+]+://)?(?:\[[^\]\s]+\]|[^:/\s\[\]]+):(?P<port>\d{1,9})")
_LAST_PORT = 65535
_TRIM = "MALLOC_TRIM_THRESHOLD_"
_CHECK_S = 2.0  # seconds between checks for workers while no tile arrives; chosen


# A run is registered once in each process; tasks name it by its token, so that neither
# the model nor the field is sent with them. The functions here are importable, which
# keeps dask from pickling their surroundings into every task.

_workers: dict[str, TileWorker] = {}
_making = threading.Lock()


def register_run(token: str, run: TiledRun) -> TileWorker:
    """Register a run in this process and return its worker."""
    with _making:
        if token not in _workers:
            ready = Predictor(
                run.plan.model,
                device=run.plan.options.device,
                precision=run.plan.options.precision,
            )
            window = run.plan.tiles.tile(0, 0).window
            ready.choose_batch(window.shape, run.plan.options.batch)
            ready.statistics = run.statistics
            _workers[token] = TileWorker(run, ready)
        return _workers[token]


def unregister_run(token: str) -> None:
    """Stop a run in this process, wait for its running tasks, and unregister it."""
    worker = _workers.pop(token, None)
    if worker is not None:
        worker.stop()


def enhance_tiles(token: str, places: Sequence[core.IntPair]) -> list[TileResult]:
    """Enhance and write tiles of a registered run, as a worker task."""
    worker = _workers.get(token)
    if worker is None:
        raise core.Cancelled(STOP_MESSAGE)
    return worker.enhance(places)


class RunPlugin(WorkerPlugin):
    """Dask plugin that registers a run on each worker and removes it at the end."""

    def __init__(self, token: str, run: TiledRun) -> None:
        self.name = f"semsr-{token}"
        self.token = token
        self.run = run

    def setup(self, worker: object) -> None:
        """Register the run on a newly joined worker."""
        environment = dask.config.get("distributed.nanny.pre-spawn-environ", {})
        if os.environ.get(_TRIM) == str(environment.get(_TRIM)):
            # dask's own value fetches the memory of each layer anew from the system
            del os.environ[_TRIM]
            core.configure_allocator()
        register_run(self.token, self.run)

    def teardown(self, worker: object) -> None:
        """Stop the run on this worker when the worker leaves or the run ends."""
        unregister_run(self.token)


def connect_client(address: str) -> Client:
    """Connect to a running cluster through its scheduler address."""
    inside = address.startswith("inproc://")  # of this process itself
    place = _ADDRESS.fullmatch(address)
    if not inside and (place is None or not 0 < int(place["port"]) <= _LAST_PORT):
        msg = (
            "`scheduler` must be an address like tcp://host:8786, got "
            f"{core.format_one_line(address)!r:.80}."
        )
        raise core.OptionError(msg, code="address-invalid")
    try:
        if not inside:
            _check_scheduler(address)
        return Client(address, set_as_default=False, timeout=PATIENCE_S)
    except (OSError, ValueError, TimeoutError) as error:
        msg = f"No dask scheduler responds at {address}; check `scheduler`."
        raise core.OptionError(msg, code="cluster-unreachable") from error


def _check_scheduler(address: str) -> None:
    """Check that a scheduler answers, because a client would wait indefinitely."""

    async def check_connection() -> None:
        opening = connect(address, timeout=PATIENCE_S)  # its handshake has no limit
        comm = await asyncio.wait_for(opening, PATIENCE_S)
        await comm.close()

    with ThreadPoolExecutor(1) as pool:  # this thread may run an event loop
        try:
            pool.submit(asyncio.run, check_connection()).result()
        except Exception as error:
            raise OSError from error  # whatever the peer answered


class ClusterExecutor(Executor):
    """Executor on the workers of a cluster that can access the same files.

    The run is sent to each worker once, which makes its own predictor. Only a few tasks
    are queued at a time, so that memory does not grow with their number.
    """

    def __init__(self, run: TiledRun, address: str) -> None:
        super().__init__()
        self._address = address
        self._token = uuid.uuid4().hex
        self._plugin = RunPlugin(self._token, run)
        self._client: Any = None
        self._futures: set[object] = set()
        self._check_time = 0.0
        self._no_workers: core.WaitingProgress | None = None

    def __enter__(self) -> Self:
        self._client = connect_client(self._address)
        with ExitStack() as end:
            end.callback(self._client.close)  # the cluster keeps running
            self._client.register_plugin(self._plugin)
            threads = max(1, sum(self._client.nthreads().values()))
            self.slots = _WAITING_PER_THREAD * threads
            end.pop_all()
        return self

    def submit(self, places: Sequence[core.IntPair]) -> None:
        """Submit a group of tiles as one task."""
        row, column = places[0]
        future = self._client.submit(
            enhance_tiles,
            self._token,
            places,
            key=f"tile-{row}-{column}-{self._token[:8]}",
        )
        self._futures.add(future)
        self.waiting += 1
        future.add_done_callback(self._results.put)

    def result(self) -> list[TileResult] | core.Progress | None:
        """Return the result of a task, or `WaitingProgress` if there are no workers."""
        tile_results = super().result()
        if tile_results is not None:
            self._no_workers = None
        elif time.monotonic() - self._check_time >= _CHECK_S:
            self._no_workers = None
            with suppress(OSError, TimeoutError):  # if it is lost, its tasks raise
                if not any(self._client.nthreads().values()):
                    text = (
                        f"waiting for a worker: the cluster at {self._address} has no "
                        "workers"
                    )
                    self._no_workers = core.WaitingProgress(0, 0, text)
            self._check_time = time.monotonic()
        return tile_results or self._no_workers

    def _fetch_result(self, future: Any) -> list[TileResult]:
        """Fetch a result; raise a `SemsrError` that states the cause of a failure."""
        self._futures.discard(future)
        try:
            results: list[TileResult] = future.result()
        except KilledWorker as error:
            msg = (
                f"A task failed on {error.allowed_failures + 1} workers, which were "
                "killed or ran out of memory. Give the workers more memory or use a "
                "smaller `tile`, then run again with `resume`; finished tiles are kept."
            )
            raise core.SemsrError(msg, code="process-died") from error
        except (CancelledError, CommClosedError) as error:
            msg = (
                f"The connection to the dask cluster at {self._address} was lost. "
                "Restart the cluster, then run again with `resume`; finished tiles are "
                "kept."
            )
            raise core.SemsrError(msg, code="cluster-lost") from error
        future.release()
        return results

    def __exit__(self, *_: object) -> None:
        with closing(self._client):
            self._client.cancel(list(self._futures))
            if self._client.status == "running":
                self._client.unregister_worker_plugin(self._plugin.name)
            unregister_run(self._token)
