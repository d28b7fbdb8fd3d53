"""The dask side of a run: a client, a bounded queue, and an orderly end."""

import itertools
import logging
import uuid
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager

import dask.config
from distributed import Client, as_completed

from napari_semsr.core.errors import OptionError
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.tasks import (
    Piece,
    Run,
    RunPlugin,
    register,
    run_tiles,
    unregister,
)

__all__ = ["local_client", "run_places"]

_LOCAL_ONLY = "127.0.0.1:0"
_WAITING_PER_THREAD = 2
_PATIENCE = "10s"
# What dask watches of itself costs 2.5 % of a core by default, and 0.3 % so.
_QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "10s",
}


@contextmanager
def local_client(threads: int = 1) -> Iterator[Client]:
    """Start dask inside this process, listening on no address but 127.0.0.1.

    Parameters
    ----------
    threads : int, default=1
        Tiles that are worked on at once.

    Yields
    ------
    distributed.Client
        Closed at the end.
    """
    with dask.config.set(_QUIET):
        client = Client(
            processes=False,
            n_workers=1,
            threads_per_worker=threads,
            memory_limit=0,
            silence_logs=logging.CRITICAL,
            dashboard_address=_LOCAL_ONLY,
            worker_dashboard_address=_LOCAL_ONLY,
            set_as_default=False,
        )
    try:
        yield client
    finally:
        client.close()


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


def run_places(
    run: Run,
    predictor: Predictor,
    places: Sequence[tuple[int, int]],
    *,
    threads: int = 1,
    scheduler: str | None = None,
) -> Generator[list[Piece]]:
    """Enhance tiles with dask and yield what is said of them as they land.

    Only a few tasks wait at a time, so that memory does not grow with the field.
    Closing this iterator cancels what waits and waits for what runs.

    Parameters
    ----------
    run : Run
        The work.
    predictor : Predictor
        The network in this process; a cluster's workers make their own.
    places : sequence of tuple of int
        Rows and columns of the tiles to enhance.
    threads : int, default=1
        Tiles at once in this process. One tile on all cores is as fast as a tile for
        each core (measured on two: 10 % either way), and takes the memory of one.
    scheduler : str, optional
        Address of a running cluster, used instead of this process.

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
    size = predictor.batch or 1
    groups = [places[i : i + size] for i in range(0, len(places), size)]
    if scheduler is None:
        register(token, run, predictor)
        try:
            with local_client(threads) as client:
                limit = _WAITING_PER_THREAD * threads
                yield from _bounded(client, token, groups, limit)
        finally:
            unregister(token)
        return
    with _remote_client(scheduler) as client:
        plugin = RunPlugin(token, run)
        client.register_plugin(plugin)
        try:
            workers = sum(client.nthreads().values())
            yield from _bounded(
                client, token, groups, _WAITING_PER_THREAD * max(1, workers)
            )
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
