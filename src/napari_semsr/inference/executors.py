"""Tiles as tasks: one loop, what a task does, and what runs it in this process.

A few tiles are handed over at a time, from an order of our own that may change while a
run goes on. The loop never waits long for a tile, so that whoever drives it can stop
it; what computes then looks between the layers of the network whether it should go on.
"""

import itertools
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from queue import Empty, SimpleQueue
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import (
    BoolArray,
    Box,
    Cancelled,
    DeviceMemoryError,
    Float32Array,
    IntPair,
    Job,
    Message,
    Progress,
    SemsrError,
    Tile,
    available_cores,
    round_up,
)
from napari_semsr.inference.network_input import set_missing
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.tiles import TiledRun, TileResult
from napari_semsr.models import release_memory

# What a task does: read a window, enhance it, write its core.

_SMALLEST_PIECE = 32  # to which a tile is cut when memory is short; chosen
_T = TypeVar("_T")
STOPPED = "The run was stopped; finished tiles are kept."


@dataclass(slots=True)
class TileWorker:
    """One predictor and what is known of its memory."""

    run: TiledRun  # The work
    predictor: Predictor  # The network on this worker's device
    # Into how many parts on each axis a tile is cut, to fit into memory
    pieces: int = 1
    joins: bool = True  # Whether tiles that make a rectangle share a window
    _cancel: threading.Event = field(default_factory=threading.Event)
    # Files are read by one thread at a time, whatever their reader is
    _reading: threading.Lock = field(default_factory=threading.Lock)
    _cutting: threading.Lock = field(default_factory=threading.Lock)
    _busy: int = 0
    _idle: threading.Condition = field(default_factory=threading.Condition)
    _release: Callable[[], None] = field(init=False)

    def __post_init__(self) -> None:
        self._release = self.predictor.look_between_layers(self._check)

    def _check(self) -> None:
        """Refuse to go on once the run was stopped."""
        if self._cancel.is_set():
            raise Cancelled(STOPPED)

    def enhance(self, places: Sequence[IntPair]) -> list[TileResult]:
        """Enhance and write some tiles."""
        with self.working():
            tiles = [self.run.plan.tile(place) for place in places]
            try:
                return self._together(tiles)
            except RuntimeError as error:
                msg = f"Tile {places[0]} could not be enhanced: {error}"
                raise SemsrError(msg, code="computation-failed") from error

    def stop(self) -> None:
        """Refuse new work, stop what is running at its next layer, and wait for it."""
        self._cancel.set()
        with self._idle:
            self._idle.wait_for(lambda: self._busy == 0)
        self._release()
        release_memory(self.predictor.device)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Surround a task, so that `stop` waits for it."""
        with self._idle:
            self._check()
            self._busy += 1
        try:
            yield
        finally:
            with self._idle:
                self._busy -= 1
                self._idle.notify_all()

    def _together(self, tiles: list[Tile]) -> list[TileResult]:
        """Run tiles whole, or in pieces once that was found necessary."""
        pieces, note = self.pieces, None
        if pieces > 1:
            return [self._in_pieces(tile) for tile in tiles]
        before = self.predictor.batch
        try:
            results = self._whole(tiles)
        except DeviceMemoryError:
            if self._join(tiles):
                self.joins = False
                sentence = "Memory was short: tiles are computed one by one."
                note = Message(sentence, "device-memory")
            else:
                self._cut_smaller(pieces)
        else:
            after = self.predictor.batch
            if after != before:
                cut = f"from {before} to {after} tiles"
                sentence = "Memory was short: batches were cut " + cut + "."
                note = Message(sentence, "device-memory")
            return [piece.with_note(note) for piece in results]
        # not where the error is handled, whose frames hold tensors of the failed pass
        return [piece.with_note(note) for piece in self._together(tiles)]

    def _join(self, tiles: list[Tile]) -> Box | None:
        """Give the rectangle that tiles are computed in as one."""
        if not self.joins or self.predictor.device.type != "cpu":
            return None
        cores = [self.run.plan.outputs.tile(*tile.index).core for tile in tiles]
        around = reduce(Box.union, cores)
        full = sum(math.prod(core.shape) for core in cores) == math.prod(around.shape)
        return around if full and len(tiles) > 1 else None

    def _whole(self, tiles: list[Tile]) -> list[TileResult]:
        plan, rectangle = self.run.plan, self._join(tiles)
        if self.predictor.device.type == "cpu":
            if rectangle is None and len(tiles) > 1:
                return [piece for tile in tiles for piece in self._whole([tile])]
            shared_tile = tiles[0] if rectangle is None else plan.around(rectangle)
            values, box, missing = plan.compute(self.predictor, shared_tile)
            return [
                self.run.deliver(tile.index, values, box, missing) for tile in tiles
            ]
        read = [self._read(tile.window) for tile in tiles]
        windows = [window for window, _ in read]
        if len({window.shape for window in windows}) == 1:
            results = self.predictor.predict_many(windows, plan.scaling)
        else:
            results = [self.predictor.predict(w, plan.scaling) for w in windows]
        return [
            self.run.deliver(tile.index, result, tile.window, missing)
            for tile, (_, missing), result in zip(tiles, read, results, strict=True)
        ]

    def _read(self, box: Box) -> tuple[NDArray[Any], BoolArray | None]:
        with self._reading:
            return self.run.plan.read(box)

    def _in_pieces(self, tile: Tile) -> TileResult:
        """Compute one tile part by part, cutting smaller when memory runs out."""
        while True:
            pieces = self.pieces
            try:
                rectangle = self._assemble(tile, pieces)
            except DeviceMemoryError:
                self._cut_smaller(pieces)
            else:
                piece = self.run.deliver(tile.index, rectangle, tile.core)
                side = self._side(pieces)
                sentence = (
                    f"Memory was short: tiles are computed in pieces of {side} px."
                )
                note = Message(sentence, "device-memory")
                return replace(piece, edges={}).with_note(note)

    def _side(self, pieces: int) -> int:
        """Side of a piece, a multiple of the stride."""
        plan = self.run.plan.tiles
        return round_up(max(1, plan.core // pieces), plan.stride)

    def _cut_smaller(self, piece_count: int) -> None:
        """Halve the pieces that were tried, or give up."""
        plan = self.run.plan.tiles
        smallest = round_up(_SMALLEST_PIECE, plan.stride)
        side = self._side(piece_count)
        if side <= smallest:
            window = side + 2 * plan.halo
            msg = (
                f"Device {self.predictor.device} has no memory left even for a window "
                f"of {window} px: free some of it, or use another device."
            )
            raise DeviceMemoryError(msg)
        with self._cutting:  # another thread may have cut them already
            self.pieces = max(self.pieces, 2 * piece_count)

    def _assemble(self, tile: Tile, pieces: int) -> Float32Array:
        plan, scale = self.run.plan.tiles, self.run.plan.loaded.card.scale
        rows, columns = tile.core.scale(scale).shape
        core = np.empty((rows, columns), dtype=np.float32)
        for part in plan.pieces(tile, self._side(pieces)):
            window, missing = self._read(part.window)
            scaling, inner = self.run.plan.scaling, part.inner
            result = self.predictor.predict(window, scaling, inner)
            missing = None if missing is None else missing[inner.slices]
            set_missing(result, missing, scale)
            place = part.core.within(tile.core).scale(scale)
            core[place.slices] = result
        return core


# What hands tasks over, and waits for them.

# A third of the 0.3 s within which a cancel is to be acknowledged
_HEARTBEAT_S = 0.1
_MOST_THREADS_OF_CARD = 4  # which read and write; a card is faster

Take = Callable[[int], Sequence[IntPair] | None]
"""Gives up to a number of tiles; none while nobody wants any, None at the end."""
Work = Generator[list[TileResult] | Progress | None]
"""Tiles as they are written; None says that it goes on."""


class Executor(ABC):
    """Where tasks run: here, or on a cluster."""

    slots = 1  # Tasks that are submitted at a time

    def __init__(self) -> None:
        self.waiting = 0  # Tasks that are submitted now
        self._results: SimpleQueue[Any] = SimpleQueue()

    @abstractmethod
    def submit(self, places: Sequence[IntPair]) -> None:
        """Hand over a group of tiles, which goes through in one pass."""

    def result(self) -> Any:
        """Give what a task has returned; None when all go on after a heartbeat."""
        try:
            future = self._results.get(timeout=_HEARTBEAT_S)
        except Empty:
            return None
        self.waiting -= 1
        return self._result_of(future)

    def _result_of(self, future: Any) -> Any:
        return future.result()

    def _watch(self, future: Any) -> None:
        self.waiting += 1
        future.add_done_callback(self._results.put)

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(self, *_: object) -> None:
        """Drop what waits, stop what runs, and return when nothing does any more."""


class Background:
    """Threads, usually one, that take calls in their order.

    Between them and whoever waits lie queues written in C alone: an interrupt comes at
    any line of Python, and one within a lock of `concurrent.futures` leaves it locked
    for good.
    """

    def __init__(
        self, name: str, answers: "SimpleQueue[Any]", *, threads: int = 1
    ) -> None:
        self._calls: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._answers = answers
        self._threads = [
            threading.Thread(target=self._work, name=name, daemon=True)
            for _ in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Callable[[], Any]) -> None:
        """Make a call after those before; its `CallResult` comes into the queue."""
        self._calls.put(call)

    def is_current(self) -> bool:
        """Whether it is this thread that asks."""
        return threading.current_thread() in self._threads

    def close(self) -> None:
        """Wait for the calls that were submitted, and end."""
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                answer = CallResult(call())
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                answer = CallResult(None, error)
            self._answers.put(answer)
            del answer, call


@dataclass(frozen=True, slots=True)
class CallResult:
    """What a call in another thread returned or raised."""

    value: Any
    error: BaseException | None = None

    def result(self) -> Any:
        """Return or raise the same."""
        if self.error is not None:
            raise self.error
        return self.value


class LocalExecutor(Executor):
    """Threads of this process.

    A card has two to four: while it computes, one thread waits for it and the others
    read the next tiles or write the last ones. On a CPU one tile on all cores is as
    fast as a tile for each core (measured on two: 10 % either way) and takes the memory
    of one.
    It is submitted alone: a second would only wait behind it, in an order that may be
    out of date by then. dask has nothing to decide here (``docs/scaling.md``).
    """

    def __init__(self, run: TiledRun, predictor: Predictor) -> None:
        super().__init__()
        self._worker = TileWorker(run, predictor)
        on_card = predictor.device.type != "cpu"
        threads = max(2, min(available_cores() // 2, _MOST_THREADS_OF_CARD))
        self.slots = threads if on_card else 1
        self._thread = Background("semsr-tiles", self._results, threads=self.slots)

    def submit(self, places: Sequence[IntPair]) -> None:
        """Hand over a group of tiles."""
        self._call(self._worker.enhance, places)

    def call(
        self, function: Callable[..., Any], *argument: Any
    ) -> Generator[None, None, Any]:
        """Run a function as a task, and return what it returns."""

        def work() -> Any:
            with self._worker.working():
                return function(*argument)

        self._call(work)
        while (result := self.result()) is None:
            yield None
        return result

    def _call(self, function: Callable[..., Any], *argument: Any) -> None:
        self.waiting += 1
        self._thread.submit(partial(function, *argument))

    def __exit__(self, *_: object) -> None:
        self._worker.stop()
        self._thread.close()


def in_thread(job: Job[_T], predictor: Predictor) -> Job[_T]:
    """Drive a job of long steps from a thread; tell its last step again meanwhile.

    So whoever waits can stop it: closing this ends it within a layer of the network.
    """
    stop, answers = threading.Event(), SimpleQueue[CallResult]()
    progress = Progress(0, 0, "Looking at the network")

    thread = Background("semsr-plan", answers)

    def check() -> None:
        if stop.is_set() and thread.is_current():
            raise Cancelled(STOPPED)

    release = predictor.look_between_layers(check, probing=True)
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


def in_blocks(places: Sequence[IntPair], block: IntPair) -> Take:
    """Take tiles in blocks of some rows and columns, which share a window."""
    blocks: dict[IntPair, list[IntPair]] = {}
    for row, column in places:
        blocks.setdefault((row // block[0], column // block[1]), []).append(
            (row, column)
        )
    waiting = iter(blocks.values())
    return lambda _count: next(waiting, None)


def in_order(places: Sequence[IntPair]) -> Take:
    """Take tiles as they are listed."""
    waiting = iter(places)
    return lambda count: list(itertools.islice(waiting, count)) or None
