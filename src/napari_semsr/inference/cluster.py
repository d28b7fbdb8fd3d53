"""Tiles on a dask cluster: a client, a bounded queue, and an orderly end."""

import itertools
import uuid
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from distributed import Client, WorkerPlugin, as_completed

from napari_semsr.core.errors import OptionError
from napari_semsr.inference.here import grouped
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.tasks import (
    Piece,
    Run,
    register,
    run_tiles,
    unregister,
)

__all__ = ["RunPlugin", "run_there"]

_WAITING_PER_THREAD = 2
_PATIENCE = "10s"


class RunPlugin(WorkerPlugin):
    """Bring a run to each worker of a cluster, once, and take it away again.

    Parameters
    ----------
    token : str
        Name of the run.
    run : Run
        The work.
    """

    def __init__(self, token: str, run: Run) -> None:
        self.name = f"semsr-{token}"
        self.token = token
        self.run = run

    def setup(self, worker: Any) -> None:
        """Register the run on a worker.

        Parameters
        ----------
        worker : distributed.Worker
            The worker that has just joined.
        """
        register(self.token, self.run)

    def teardown(self, worker: Any) -> None:
        """Stop the run on a worker.

        Parameters
        ----------
        worker : distributed.Worker
            The worker that is leaving, or where the run is over.
        """
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


def run_there(
    run: Run,
    predictor: Predictor,
    places: Sequence[tuple[int, int]],
    scheduler: str,
) -> Generator[list[Piece]]:
    """Enhance tiles on a dask cluster and yield what is said of them as they land.

    Only a few tasks wait at a time, so that memory does not grow with the field.
    Closing this iterator cancels what waits and waits for what runs.

    Parameters
    ----------
    run : Run
        The work.
    predictor : Predictor
        The network in this process, which chooses the batch; workers make their own.
    places : sequence of tuple of int
        Rows and columns of the tiles to enhance.
    scheduler : str
        Address of a running cluster.

    Yields
    ------
    list of Piece
        One task's tiles, which are in the target.

    Raises
    ------
    OptionError
        If no cluster answers at the address.
    """
    if not places:
        return
    token = uuid.uuid4().hex
    with _remote_client(scheduler) as client:
        plugin = RunPlugin(token, run)
        client.register_plugin(plugin)
        try:
            workers = max(1, sum(client.nthreads().values()))
            groups = grouped(places, predictor)
            yield from _bounded(client, token, groups, _WAITING_PER_THREAD * workers)
        finally:
            client.unregister_worker_plugin(plugin.name)


def _bounded(
    client: Client,
    token: str,
    groups: Sequence[Sequence[tuple[int, int]]],
    limit: int,
) -> Generator[list[Piece]]:
    """Keep at most `limit` tasks in the cluster."""
    waiting = iter(groups)

    def submit(group: Sequence[tuple[int, int]]) -> object:
        row, column = group[0]
        return client.submit(
            run_tiles, token, group, pure=False, key=f"tile-{token[:8]}-{row}-{column}"
        )

    futures = as_completed(
        [submit(g) for g in itertools.islice(waiting, limit)], loop=client.loop
    )
    try:
        for future in futures:
            pieces = future.result()
            future.release()
            following = next(waiting, None)
            if following is not None:
                futures.add(submit(following))
            yield pieces
    finally:
        client.cancel(list(futures.futures))
        unregister(token)
