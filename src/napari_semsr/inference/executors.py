"""Tiles as tasks: task loop, tile processing, and execution in this process.

A few tiles are submitted at a time, in an order that may change during a run. The loop
never waits long for a tile, so that it can be stopped; a stop is checked between the
layers of the network.
"""

import itertools
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from queue import Empty, SimpleQueue
from typing import Any, Self, TypeVar

import numpy as np

from napari_semsr import core
from napari_semsr.inference.network_input import mask_missing_pixels
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.tiles import TiledRun, TileResult
from napari_semsr.models import release_memory

# The work of a task: read a window, enhance it, write its core.

_SMALLEST_PIECE = 32  # px; smallest part of a tile divided for lack of memory; chosen
_T = TypeVar("_T")
STOP_MESSAGE = "The run was stopped; finished tiles are kept."


@dataclass(slots=True)
class TileWorker:
    """Worker that enhances tiles of a run, in sizes that fit into memory."""

    run: TiledRun
    predictor: Predictor  # The network on this worker's device
    # Number of parts along each axis into which a tile is divided to fit into memory
    pieces: int = 1
    joins: bool = True  # Whether tiles that form a rectangle share a window
    _cancel: threading.Event = field(default_factory=threading.Event)
    # Only one thread reads files at a time, as readers may not be thread-safe
    _reading: threading.Lock = field(default_factory=threading.Lock)
    _cutting: threading.Lock = field(default_factory=threading.Lock)
    # On a CPU one window is in the network at a time, which uses all cores
    passing: AbstractContextManager[object] = field(default_factory=nullcontext)
    _busy: int = 0
    _idle: threading.Condition = field(default_factory=threading.Condition)
    _release: Callable[[], None] = field(init=False)

    def __post_init__(self) -> None:
        self._release = self.predictor.add_layer_check(self._check_stopped)

    def _check_stopped(self) -> None:
        """Raise `Cancelled` if the run was stopped."""
        if self._cancel.is_set():
            raise core.Cancelled(STOP_MESSAGE)

    def enhance(self, places: Sequence[core.IntPair]) -> list[TileResult]:
        """Enhance and write the given tiles."""
        with self.track_task():
            tiles = [self.run.plan.tile(place) for place in places]
            try:
                return self._enhance_tiles(tiles)
            except RuntimeError as error:
                msg = f"Cannot enhance tile {places[0]}: {error}"
                raise core.SemsrError(msg, code="computation-failed") from error

    def stop(self) -> None:
        """Refuse new tasks, and wait for running tasks to stop at their next layer."""
        self._cancel.set()
        with self._idle:
            self._idle.wait_for(lambda: self._busy == 0)
        self._release()
        release_memory(self.predictor.device)

    @contextmanager
    def track_task(self) -> Iterator[None]:
        """Register a running task that `stop` waits for."""
        with self._idle:
            self._check_stopped()
            self._busy += 1
        try:
            yield
        finally:
            with self._idle:
                self._busy -= 1
                self._idle.notify_all()

    def _enhance_tiles(self, tiles: list[core.Tile]) -> list[TileResult]:
        """Run whole tiles, or split them into pieces if memory is insufficient."""
        pieces, note = self.pieces, None
        if pieces > 1:
            return [self._run_in_pieces(tile) for tile in tiles]
        before = self.predictor.batch
        try:
            results = self._run_whole_tiles(tiles)
        except core.DeviceMemoryError:
            if self._find_shared_rectangle(tiles):
                self.joins = False
                sentence = "Not enough memory: tiles are computed one at a time."
                note = core.Message(sentence, "device-memory")
            else:
                self._halve_pieces(pieces)
        else:
            after = self.predictor.batch
            if after != before:
                cut = f"from {before} to {after} tiles"
                sentence = "Not enough memory: batches were reduced " + cut + "."
                note = core.Message(sentence, "device-memory")
            return [piece.with_note(note) for piece in results]
        # outside the handler, since the error's stack frames keep tensors of the failed
        # pass
        return [piece.with_note(note) for piece in self._enhance_tiles(tiles)]

    def _find_shared_rectangle(self, tiles: list[core.Tile]) -> core.Box | None:
        """Return the rectangle of tiles computed in one shared window, or None."""
        if not self.joins or self.predictor.device.type != "cpu":
            return None
        cores = [self.run.plan.outputs.tile(*tile.index).core for tile in tiles]
        around = reduce(core.Box.union, cores)
        full = sum(math.prod(box.shape) for box in cores) == math.prod(around.shape)
        return around if full and len(tiles) > 1 else None

    def _run_whole_tiles(self, tiles: list[core.Tile]) -> list[TileResult]:
        plan, rectangle = self.run.plan, self._find_shared_rectangle(tiles)
        if self.predictor.device.type == "cpu":
            if rectangle is None and len(tiles) > 1:
                return [
                    piece for tile in tiles for piece in self._run_whole_tiles([tile])
                ]
            shared_tile = tiles[0] if rectangle is None else plan.create_tile(rectangle)
            values, box, missing = plan.compute_tile(
                self.predictor, shared_tile, self._reading, self.passing
            )
            return [
                self.run.write_output(tile.index, values, box, missing)
                for tile in tiles
            ]
        read = [self._read_window(tile.window) for tile in tiles]
        windows = [window for window, _ in read]
        if len({window.shape for window in windows}) == 1:
            results = self.predictor.predict_many(windows, plan.scaling)
        else:
            results = [self.predictor.predict(w, plan.scaling) for w in windows]
        return [
            self.run.write_output(tile.index, result, tile.window, missing)
            for tile, (_, missing), result in zip(tiles, read, results, strict=True)
        ]

    def _read_window(
        self, box: core.Box
    ) -> tuple[core.RealArray, core.BoolArray | None]:
        with self._reading:
            return self.run.plan.read_clean_window(box)

    def _run_in_pieces(self, tile: core.Tile) -> TileResult:
        """Compute one tile in pieces, halving the pieces when memory runs out."""
        plan, scale = self.run.plan.tiles, self.run.plan.model.card.scale
        output = np.empty(tile.core.scale(scale).shape, dtype=np.float32)
        while True:
            pieces = self.pieces
            try:
                for part in plan.split_tile(tile, self._compute_piece_size(pieces)):
                    window, missing = self._read_window(part.window)
                    scaling, inner = self.run.plan.scaling, part.local_core
                    with self.passing:
                        result = self.predictor.predict(window, scaling, inner)
                    missing = None if missing is None else missing[inner.slices]
                    mask_missing_pixels(result, missing, scale)
                    place = part.core.relative_to(tile.core).scale(scale)
                    output[place.slices] = result
            except core.DeviceMemoryError:
                self._halve_pieces(pieces)
            else:
                piece = self.run.write_output(tile.index, output, tile.core)
                side = self._compute_piece_size(pieces)
                sentence = (
                    f"Not enough memory: tiles are computed in pieces of {side} px."
                )
                note = core.Message(sentence, "device-memory")
                return replace(piece, edges={}).with_note(note)

    def _compute_piece_size(self, pieces: int) -> int:
        """Return the side length of a piece, a multiple of the stride."""
        plan = self.run.plan.tiles
        return core.round_up(max(1, plan.core // pieces), plan.stride)

    def _halve_pieces(self, piece_count: int) -> None:
        """Halve the pieces, or raise an error if they already have minimum size."""
        plan = self.run.plan.tiles
        smallest = core.round_up(_SMALLEST_PIECE, plan.stride)
        side = self._compute_piece_size(piece_count)
        if side <= smallest:
            window = side + 2 * plan.halo
            msg = (
                f"Not enough memory for a window of {window} px on "
                f"{self.predictor.device}; free some memory or use another device."
            )
            raise core.DeviceMemoryError(msg)
        with self._cutting:  # unless another thread has halved them already
            self.pieces = max(self.pieces, 2 * piece_count)


# Executors.
# A third of the 0.3 s within which a cancel must be acknowledged
_HEARTBEAT_S = 0.1
_MAX_GPU_THREADS = 4  # threads that read and write for one GPU

Take = Callable[[int], Sequence[core.IntPair] | None]
"""Function that returns up to a given number of tiles, an empty list to wait, or None
at the end.
"""
Work = Generator[list[TileResult] | core.Progress | None]
"""Generator that yields tiles as they are written, or None while tasks are still
running.
"""


class Executor(ABC):
    """Base class of executors that run tasks in this process or on a cluster."""

    slots = 1  # Maximum number of submitted tasks

    def __init__(self) -> None:
        self.waiting = 0  # Number of submitted tasks
        self._results: SimpleQueue[object] = SimpleQueue()

    @abstractmethod
    def submit(self, places: Sequence[core.IntPair]) -> None:
        """Submit a group of tiles to be run in one pass."""

    def result(self) -> Any:
        """Return the next result, or None if no task finishes within a heartbeat."""
        try:
            future = self._results.get(timeout=_HEARTBEAT_S)
        except Empty:
            return None
        self.waiting -= 1
        return self._fetch_result(future)

    def _fetch_result(self, future: Any) -> object:
        return future.result()

    def _track_future(self, future: Any) -> None:
        self.waiting += 1
        future.add_done_callback(self._results.put)

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(self, *_: object) -> None:
        """Cancel queued tasks, stop running tasks, and wait for them."""


class BackgroundThreads:
    """Background threads, usually one, that execute calls in submission order.

    They communicate by queues written in C: a keyboard interrupt may come at any line
    of Python, and within a lock of `concurrent.futures` it would leave it locked.
    """

    def __init__(
        self, name: str, answers: "SimpleQueue[Any]", *, threads: int = 1
    ) -> None:
        self._calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._answers = answers
        self._threads = [
            threading.Thread(target=self._run_calls, name=name, daemon=True)
            for _ in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Callable[[], object]) -> None:
        """Queue a call whose `CallResult` is put into the answer queue."""
        self._calls.put(call)

    def is_current_thread(self) -> bool:
        """Return whether the calling thread is one of these background threads."""
        return threading.current_thread() in self._threads

    def close(self) -> None:
        """Wait for submitted calls to finish, then end the threads."""
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()

    def _run_calls(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                answer = CallResult(call())
            except BaseException as error:  # noqa: BLE001 - raised by `CallResult`
                answer = CallResult(None, error)
            self._answers.put(answer)
            del answer, call


@dataclass(frozen=True, slots=True)
class CallResult:
    """Return value or exception of a call in another thread."""

    value: object
    error: BaseException | None = None

    def result(self) -> Any:
        """Return the value of the call, or raise its exception."""
        if self.error is not None:
            raise self.error
        return self.value


class LocalExecutor(Executor):
    """Executor on threads of this process.

    A GPU has two to four threads: while it computes, one waits for it and the others
    read the next tiles or write the last ones. A CPU has two, one of which is in the
    network: a window on all cores is as fast as one for each core (measured on two:
    10 % faster or slower) and needs the memory of one. With a viewer it has one, since
    the order of tiles that are not submitted may still change. dask would not help here
    (``docs/scaling.md``).
    """

    def __init__(self, run: TiledRun, predictor: Predictor) -> None:
        super().__init__()
        self._worker = TileWorker(run, predictor)
        self.slots = max(2, min(core.count_available_cores() // 2, _MAX_GPU_THREADS))
        if predictor.device.type == "cpu":
            self._worker.passing = threading.Lock()
            self.slots = 2 if getattr(run.target, "live", None) is None else 1
        self._thread = BackgroundThreads(
            "semsr-tiles", self._results, threads=self.slots
        )

    def submit(self, places: Sequence[core.IntPair]) -> None:
        """Submit a group of tiles as one task."""
        self._submit_call(self._worker.enhance, places)

    def call(
        self, function: Callable[..., object], *argument: object
    ) -> Generator[None, None, Any]:
        """Run a function as a task and return its result."""

        def run_task() -> object:
            with self._worker.track_task():
                return function(*argument)

        self._submit_call(run_task)
        while (result := self.result()) is None:
            yield None
        return result

    def _submit_call(self, function: Callable[..., object], *argument: object) -> None:
        self.waiting += 1
        self._thread.submit(partial(function, *argument))

    def __exit__(self, *_: object) -> None:
        self._worker.stop()
        self._thread.close()


def run_in_thread(job: core.Job[_T], predictor: Predictor) -> core.Job[_T]:
    """Run a long-step job in a thread, repeating its last progress while waiting.

    This allows the caller to stop it: closing the generator ends it within a layer of
    the network.
    """
    stop, answers = threading.Event(), SimpleQueue[CallResult]()
    progress = core.Progress(0, 0, "Measuring the network")

    thread = BackgroundThreads("semsr-plan", answers)

    def check_stopped() -> None:
        if stop.is_set() and thread.is_current_thread():
            raise core.Cancelled(STOP_MESSAGE)

    release = predictor.add_layer_check(check_stopped, probing=True)
    try:
        while True:
            thread.submit(partial(next, job))
            while True:
                try:
                    answer = answers.get(timeout=_HEARTBEAT_S)
                    break
                except Empty:
                    yield progress
            if isinstance(answer.error, StopIteration):
                result: _T = answer.error.value
                return result
            progress = answer.result()
            yield progress
    finally:
        stop.set()
        thread.submit(job.close)
        thread.close()
        release()


def run_tiles(
    executor: Executor, take: Take, batch: int
) -> Generator[list[TileResult] | None]:
    """Run independent tiles in the order given by `take`.

    Yields lists of results; an empty one if no task is running, None if one is. Closing
    this iterator stops tasks within a layer of the network.
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


def create_block_source(places: Sequence[core.IntPair], block: core.IntPair) -> Take:
    """Create a `Take` of tile blocks (rows, columns) that share a window."""
    blocks: dict[core.IntPair, list[core.IntPair]] = {}
    for row, column in places:
        blocks.setdefault((row // block[0], column // block[1]), []).append(
            (row, column)
        )
    waiting = iter(blocks.values())
    return lambda _count: next(waiting, None)


def create_tile_source(places: Sequence[core.IntPair]) -> Take:
    """Create a `Take` that returns tiles in the given order."""
    waiting = iter(places)
    return lambda count: list(itertools.islice(waiting, count)) or None
