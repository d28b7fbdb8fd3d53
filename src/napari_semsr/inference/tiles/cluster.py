"""Tiles on a dask cluster: a client, a bounded queue, and an orderly end."""

import itertools
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any

from distributed import Client, WorkerPlugin, as_completed
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker

from napari_semsr.core import OptionError, SemsrError
from napari_semsr.inference.lockstep_step import Meeting, join, leave
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.tiles.worker import (
    Piece,
    Run,
    grouped,
    register,
    run_tiles,
    unregister,
)

_WAITING_PER_THREAD = 2
_PATIENCE = "10s"
Call = tuple[str, Callable[..., Any], tuple[Any, ...]]


class RunPlugin(WorkerPlugin):
    """Bring a run to each worker of a cluster, once, and take it away again.

    Parameters
    ----------
    token : str
        Name of the run.
    run : Run
        The work.
    meeting : Meeting, optional
        Where tiles meet that step together.
    """

    def __init__(self, token: str, run: Run, meeting: Meeting | None = None) -> None:
        self.name = f"semsr-{token}"
        self.token = token
        self.run = run
        self.meeting = meeting

    def setup(self, worker: Any) -> None:
        """Register the run on a worker.

        Parameters
        ----------
        worker : distributed.Worker
            The worker that has just joined.
        """
        register(self.token, self.run)
        if self.meeting is not None:
            join(self.token, self.meeting)

    def teardown(self, worker: Any) -> None:
        """Stop the run on a worker.

        Parameters
        ----------
        worker : distributed.Worker
            The worker that is leaving, or where the run is over.
        """
        unregister(self.token)
        leave(self.token)


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


class Cluster:
    """A run that is registered on a cluster.

    Parameters
    ----------
    client : distributed.Client
        Connection to the cluster.
    token : str
        Name of the run.
    address : str
        Of the scheduler, to be named in sentences.
    """

    def __init__(self, client: Client, token: str, address: str) -> None:
        self.token = token
        self._client, self._address = client, address

    def results(self, calls: Iterable[Call]) -> Generator[Any]:
        """Make calls on the workers, and yield what they return as it comes.

        Only a few calls wait at a time, so that memory does not grow with their
        number. Closing this iterator cancels what waits.

        Parameters
        ----------
        calls : iterable of tuple
            A name that is unique in the run, an importable function, its arguments.

        Yields
        ------
        object
            Results, in the order in which they come.

        Raises
        ------
        SemsrError
            If the cluster is lost, or a call takes down one worker after the other.
        """
        waiting = iter(calls)
        workers = max(1, sum(self._client.nthreads().values()))
        first = itertools.islice(waiting, _WAITING_PER_THREAD * workers)
        futures = as_completed(
            [self._submit(call) for call in first], loop=self._client.loop
        )
        try:
            for future in futures:
                result = self._result(future)
                future.release()
                following = next(waiting, None)
                if following is not None:
                    futures.add(self._submit(following))
                yield result
        finally:
            self._client.cancel(list(futures.futures))

    def _submit(self, call: Call) -> Any:
        name, function, arguments = call
        key = f"{name}-{self.token[:8]}"
        return self._client.submit(function, *arguments, pure=False, key=key)

    def _result(self, future: Any) -> Any:
        """Fetch a result; say in a sentence what stands in its way."""
        try:
            return future.result()
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


@contextmanager
def joined(
    run: Run, scheduler: str, meeting: Meeting | None = None
) -> Iterator[Cluster]:
    """Register a run on a cluster, and take it away again.

    Parameters
    ----------
    run : Run
        The work.
    scheduler : str
        Address of a running cluster.
    meeting : Meeting, optional
        Where tiles meet that step together.

    Yields
    ------
    Cluster
        Makes calls there. At the end what runs is waited for.

    Raises
    ------
    OptionError
        If no cluster answers at the address.
    """
    token = uuid.uuid4().hex
    with _remote_client(scheduler) as client:
        plugin = RunPlugin(token, run, meeting)
        client.register_plugin(plugin)
        try:
            yield Cluster(client, token, scheduler)
        finally:
            if client.status == "running":
                client.unregister_worker_plugin(plugin.name)
            unregister(token)
            leave(token)


def run_there(
    run: Run,
    predictor: Predictor,
    places: Sequence[tuple[int, int]],
    scheduler: str,
) -> Generator[list[Piece]]:
    """Enhance tiles on a dask cluster and yield what is said of them as they land.

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
    groups = grouped(places, predictor)
    with joined(run, scheduler) as cluster:
        calls = (
            (f"tile-{group[0][0]}-{group[0][1]}", run_tiles, (cluster.token, group))
            for group in groups
        )
        yield from cluster.results(calls)
