"""Tiles: reading, enhancing and writing them, their destinations, and their borders."""

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import reduce
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_semsr import core
from napari_semsr.inference import network_input
from napari_semsr.inference.ensemble import Statistics
from napari_semsr.inference.plan import ComputedTile, EnhancePlan
from napari_semsr.inference.predictor import Predictor
from napari_semsr.io import OmeZarrStore

if TYPE_CHECKING:
    from napari_semsr.inference.live import LiveField


@dataclass(frozen=True, slots=True)
class TiledRun:
    """Run plan with its output target, sent once to each worker."""

    plan: EnhancePlan
    target: Any  # (Y * scale, X * scale) The output
    # Replaces the statistics of each tile in live norms
    statistics: Statistics | None = None

    def write_output(
        self,
        place: core.IntPair,
        values: core.Float32Array,
        box: core.Box,
        missing: core.BoolArray | None = None,
    ) -> "TileResult":
        """Convert the network output for a box and write it as an output tile."""
        whole, scale = self.plan.outputs.tile(*place).core, self.plan.model.card.scale
        part, inner = self.plan.convert_output(whole, values, box, missing)
        tile = part[inner.slices]
        typed_values, clipped_count = core.convert_dtype(tile, self.target.dtype)
        self.target[whole.scale(scale).slices] = typed_values
        edges = sample_edges(part, inner)
        return TileResult(place, clipped_count, edges, sample_pixels(tile))


@dataclass(frozen=True, slots=True)
class TileResult:
    """Result of a task that wrote one tile."""

    index: core.IntPair  # Row and column of the tile
    clipped_pixels: int  # Pixels outside the range of the output's type
    edges: "dict[str, Edge]"  # Lines at the tile's borders
    sample: core.Float32Array  # Some pixels of the result
    notes: tuple[str, ...] = ()  # For the user

    def with_note(self, sentence: str | None) -> "TileResult":
        """Return the result with a note on memory for the user, if one is given."""
        if sentence is None:
            return self
        note = core.Message(sentence, "device-memory")
        return replace(self, notes=(*self.notes, note))


# The work of a task: read a window, enhance it, write its core.

_SMALLEST_PIECE = 32  # px; smallest part of a tile divided for lack of memory; chosen
STOP_MESSAGE = "The run was stopped; finished tiles are kept."


@dataclass(slots=True)
class TileWorker:
    """Worker that enhances tiles of a run, in sizes that fit into memory."""

    run: TiledRun
    predictor: Predictor  # The network on this worker's device
    # Number of parts along each axis into which a tile is divided to fit into memory; 0
    # if tiles that form a rectangle share a window
    pieces: int = 0
    _cancel: threading.Event = field(default_factory=threading.Event)
    # Only one thread reads files at a time, as readers may not be thread-safe
    _reading: threading.Lock = field(default_factory=threading.Lock)
    _cutting: threading.Lock = field(default_factory=threading.Lock)
    # On a CPU one window is in the network at a time, which uses all cores
    passing: AbstractContextManager[object] = field(init=False)
    _busy: int = 0
    _idle: threading.Condition = field(default_factory=threading.Condition)
    _release: Callable[[], None] = field(init=False)

    def __post_init__(self) -> None:
        on_cpu = self.predictor.device.type == "cpu"
        self.passing = core.MemoryReuse() if on_cpu else nullcontext()
        self._release = self.predictor.add_layer_check(self._check_stopped)

    def _check_stopped(self) -> None:
        """Raise `Cancelled` if the run was stopped."""
        if self._cancel.is_set():
            raise core.Cancelled(STOP_MESSAGE)

    def enhance(self, places: Sequence[core.IntPair]) -> list[TileResult]:
        """Enhance and write the given tiles."""
        with self.track_task():
            try:
                return self._enhance_tiles([self.run.plan.tile(p) for p in places])
            except RuntimeError as error:
                msg = f"Cannot enhance tile {places[0]}: {error}"
                raise core.SemsrError(msg, code="computation-failed") from error

    def stop(self) -> None:
        """Refuse new tasks, and wait for running tasks to stop at their next layer."""
        self._cancel.set()
        with self._idle:
            self._idle.wait_for(lambda: self._busy == 0)
        self._release()
        self.predictor.release_memory()
        if isinstance(self.passing, core.MemoryReuse):
            self.passing.close()

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
        pieces, before, sentence = self.pieces, self.predictor.batch, None
        if pieces > 1:
            return [self._run_in_pieces(tile) for tile in tiles]
        shared = self._find_shared_rectangle(tiles)
        try:
            results = self._run_whole_tiles(tiles, shared)
        except core.DeviceMemoryError:
            if shared is None:
                self._halve_pieces(max(1, pieces))
            else:
                with self._cutting:  # another thread may have halved tiles
                    self.pieces = max(1, self.pieces)
                sentence = "Not enough memory: tiles are computed one at a time."
        else:
            after = self.predictor.batch
            if after != before:
                cut = f"from {before} to {after} tiles"
                sentence = "Not enough memory: batches were reduced " + cut + "."
            return [piece.with_note(sentence) for piece in results]
        # outside the handler, since the error's stack frames keep tensors of the failed
        # pass
        return [piece.with_note(sentence) for piece in self._enhance_tiles(tiles)]

    def _find_shared_rectangle(self, tiles: list[core.Tile]) -> core.Box | None:
        """Return the rectangle of tiles computed in one shared window, or None."""
        if self.pieces or len(tiles) == 1 or self.predictor.device.type != "cpu":
            return None
        cores = [self.run.plan.outputs.tile(*tile.index).core for tile in tiles]
        around = reduce(core.Box.union, cores)
        full = sum(math.prod(box.shape) for box in cores) == math.prod(around.shape)
        return around if full else None

    def _run_whole_tiles(
        self, tiles: list[core.Tile], shared: core.Box | None
    ) -> list[TileResult]:
        plan, batch = self.run.plan, self.predictor.batch or 1
        if shared is not None:
            ((values, box, missing),) = self._compute([plan.create_tile(shared)])
            return [
                self.run.write_output(tile.index, values, box, missing)
                for tile in tiles
            ]
        results: list[TileResult] = []
        for first in range(0, len(tiles), batch):
            some = tiles[first : first + batch]
            each = zip(some, self._compute(some), strict=True)
            results += [self.run.write_output(tile.index, *one) for tile, one in each]
        return results

    def _compute(self, tiles: list[core.Tile]) -> list[ComputedTile]:
        plan = self.run.plan
        return plan.compute_tiles(self.predictor, tiles, self._reading, self.passing)

    def _run_in_pieces(self, tile: core.Tile) -> TileResult:
        """Compute one tile in pieces, halving the pieces when memory runs out."""
        plan, scale = self.run.plan.tiles, self.run.plan.model.card.scale
        output = np.empty(tile.core.scale(scale).shape, dtype=np.float32)
        while True:
            pieces = self.pieces
            try:
                for part in plan.split_tile(tile, self._compute_piece_size(pieces)):
                    ((values, box, missing),) = self._compute([part])
                    network_input.mask_missing_pixels(values, missing, scale)
                    inner = part.core.relative_to(box).scale(scale)
                    place = part.core.relative_to(tile.core).scale(scale)
                    output[place.slices] = values[inner.slices]
            except core.DeviceMemoryError:
                self._halve_pieces(pieces)
            else:
                piece = self.run.write_output(tile.index, output, tile.core)
                side = self._compute_piece_size(pieces)
                sentence = (
                    f"Not enough memory: tiles are computed in pieces of {side} px."
                )
                return replace(piece, edges={}).with_note(sentence)

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


# A third of the 0.3 s within which a cancel must be acknowledged
HEARTBEAT_S = 0.1


class Executor(ABC):
    """Base class of executors that run tasks in this process or on a cluster."""

    slots = 1  # Maximum number of submitted tasks

    def __init__(self) -> None:
        self.waiting = 0  # Number of submitted tasks
        self._results: SimpleQueue[Any] = SimpleQueue()

    @abstractmethod
    def submit(self, places: Sequence[core.IntPair]) -> None:
        """Submit a group of tiles to be run in one pass."""

    def result(self) -> list[TileResult] | core.Progress | None:
        """Return the next result, or None if no task finishes within a heartbeat."""
        try:
            future = self._results.get(timeout=HEARTBEAT_S)
        except Empty:
            return None
        self.waiting -= 1
        return self._fetch_result(future)

    def _fetch_result(self, future: Any) -> list[TileResult]:
        results: list[TileResult] = future.result()
        return results

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(self, *_: object) -> None:
        """Cancel queued tasks, stop running tasks, and wait for them."""


# Destinations of tiles: an array in memory, or a store that records finished tiles.

_IDENTITY = "run"
Places = list[core.IntPair]


@dataclass(frozen=True, slots=True)
class ArraySink:
    """Sink that writes a result to an array in memory."""

    array: core.RealArray  # (Y, X) Array into which cores are written
    live: None = None  # Live view of the run, which determines the order of tiles

    def prepare(self, plan: EnhancePlan) -> None:
        """Do nothing: the array was made for the run."""

    def list_pending_tiles(self, plan: core.TilePlan) -> Places:
        """List all tiles."""
        return [*np.ndindex(plan.grid)]

    def store_value(self, key: str, value: object) -> None:
        """Do nothing: values are not stored."""

    def read_value(self, key: str) -> None:
        """Return None: values are not stored."""

    def finish_tile(self, index: core.IntPair) -> None:
        """Do nothing: the result exists only in this process."""


@dataclass(frozen=True, slots=True)
class _StoreTarget:
    """Levels of a store, in this process, and the viewer that shows its tiles."""

    store: OmeZarrStore
    live: "LiveField | None"

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return np.dtype(self.store.level0.dtype)

    def __setitem__(self, index: tuple[slice, slice], tile: core.RealArray) -> None:
        corner = index[0].start, index[1].start
        high, wide = self.store.unit
        self.store.write_unit(corner[0] // high, corner[1] // wide, tile)
        if self.live is not None:
            self.live.show_tile(core.Box.from_shape(tile.shape, corner), np.array(tile))


@dataclass(frozen=True, slots=True)
class StoreSink:
    """Sink that writes a result to a store, one chunk per tile."""

    store: OmeZarrStore  # The store
    live: "LiveField | None" = None  # Live view of the run

    @property
    def array(self) -> object:
        """Finest level, from which coarser ones and the view are made as well."""
        return _StoreTarget(self.store, self.live)

    def prepare(self, plan: EnhancePlan) -> None:
        """Raise an error if the store belongs to another run; otherwise display it.

        `create_store` has compared the records; this compares what both runs plan.
        """
        stored = tuple(self.store.level0.shape), tuple(self.store.unit)
        if stored != (plan.output.frame.shape, plan.output.tile_shape):
            msg = (
                f"{self.store.path.name} must have {plan.output.frame.shape} px in "
                f"tiles of {plan.output.tile_shape} px, but has {stored[0]} px in "
                f"tiles of {stored[1]} px: use `overwrite` to start again."
            )
            raise core.ShapeError(msg, code="grid-mismatch")
        identity = plan.identity()
        before = self.store.read_notes().get(_IDENTITY)
        if before is None:
            self.store.write_note(_IDENTITY, before := identity)
        changes = [k for k in identity if before.get(k) != identity[k]]
        if changes:
            msg = (
                f"{self.store.path.name} can only be resumed with the same input and "
                f"settings, but the {' and the '.join(changes)} changed: use "
                "`overwrite` to start again."
            )
            raise core.WriteError(msg, code="other-run")
        if self.live is not None:
            self.live.attach_store(self.store)

    def list_pending_tiles(self, plan: core.TilePlan) -> Places:
        """Return the unfinished tiles."""
        return self.store.pending_units()

    def store_value(self, key: str, value: object) -> None:
        """Write a value to the store's attributes."""
        self.store.write_note(key, value)

    def read_value(self, key: str) -> Any:
        """Read a value from the store's attributes."""
        return self.store.read_notes().get(key)

    def finish_tile(self, index: core.IntPair) -> None:
        """Mark a written tile as done, and display it if necessary."""
        self.store.mark_done(*index)
        if self.live is not None:
            self.live.show_external_tile(index)


Sink = ArraySink | StoreSink
"""Destination of tiles."""


# Comparison at tile borders: mismatch of neighbours, and visible steps.

_SAMPLES = 256  # pixels of an edge that are compared; chosen
_GRID = 16  # pixels of a tile along each axis that represent its range; chosen
_TILES = 1024  # tiles whose pixels are kept before samples are thinned; chosen
_ABOVE, _BELOW, _LEFT, _RIGHT = "above", "below", "left", "right"
_FACING = {
    _ABOVE: (-1, 0, _BELOW),
    _BELOW: (1, 0, _ABOVE),
    _LEFT: (0, -1, _RIGHT),
    _RIGHT: (0, 1, _LEFT),
}


@dataclass(frozen=True, slots=True)
class Edge:
    """Pixel lines along one border of a tile."""

    # The neighbour's first line, as predicted by this tile; None if it was outside the
    # tile's window
    outer: core.Float32Array | None
    first: core.Float32Array  # This tile's own line next to the border
    second: core.Float32Array  # This tile's next line further inside


def sample_edges(prediction: core.Float32Array, inner: core.Box) -> dict[str, Edge]:
    """Sample up to 256 pixels per line along each border of the core box `inner`."""
    rows, columns = inner.slices
    high, wide = (-(-length // _SAMPLES) for length in inner.shape)
    down, along = prediction[:, columns][:, ::wide], prediction[rows][::high].T
    return {
        _ABOVE: _extract_edge(down, inner.y0, 1, inner.shape[0]),
        _BELOW: _extract_edge(down, inner.y1 - 1, -1, inner.shape[0]),
        _LEFT: _extract_edge(along, inner.x0, 1, inner.shape[1]),
        _RIGHT: _extract_edge(along, inner.x1 - 1, -1, inner.shape[1]),
    }


def _extract_edge(
    lines: core.Float32Array, first: int, inward: int, depth: int
) -> Edge:
    """Return the lines on both sides of a core border."""
    beyond = first - inward
    outer = lines[beyond].copy() if 0 <= beyond < len(lines) else None
    second = first + inward if depth > 1 else first
    return Edge(outer, lines[first].copy(), lines[second].copy())


def sample_pixels(tile: core.Float32Array) -> core.Float32Array:
    """Sample at most 16 x 16 evenly spaced pixels of a tile (Y, X)."""
    rows, columns = (-(-side // _GRID) for side in tile.shape)
    sample = tile[::rows, ::columns].ravel()
    return sample[np.isfinite(sample)].astype(np.float32)


@dataclass(slots=True)
class SeamMeter:
    """Accumulator of edge differences and pixel samples (from up to 1024 tiles)."""

    border_count: int = 0  # Borders compared
    _waiting: dict[tuple[int, int, str], Edge] = field(default_factory=dict)
    _samples: list[core.Float32Array] = field(default_factory=list)
    _tile_count: int = 0
    _pitch: int = 1
    _squares: float = 0.0
    _pixels: int = 0
    _steps: float = 0.0
    _inner_steps: float = 0.0

    def add(
        self, index: core.IntPair, edges: dict[str, Edge], sample: core.Float32Array
    ) -> None:
        """Add the edges and the pixel sample of one tile."""
        if self._tile_count % self._pitch == 0:
            self._samples.append(sample)
        self._tile_count += 1
        if len(self._samples) > _TILES:
            self._samples = self._samples[::2]
            self._pitch *= 2
        for side, edge in edges.items():
            down, right, facing = _FACING[side]
            key = index[0] + down, index[1] + right, facing
            other = self._waiting.pop(key, None)
            if other is None:
                self._waiting[(*index, side)] = edge
                continue
            self.border_count += 1
            for outer_values, own in (
                (edge.outer, other.first),
                (other.outer, edge.first),
            ):
                if outer_values is not None:
                    difference = _concatenate_finite_values(
                        [outer_values.astype(np.float64) - own]
                    )
                    self._squares += float(np.sum(difference**2))
                    self._pixels += difference.size
            step = np.abs(edge.first.astype(np.float64) - other.first)
            within = [
                np.abs(e.first.astype(np.float64) - e.second) for e in (edge, other)
            ]
            valid = np.isfinite(step) & np.isfinite(within[0]) & np.isfinite(within[1])
            self._steps += float(step[valid].sum())
            self._inner_steps += float(sum(w[valid].sum() for w in within)) / 2

    @property
    def mismatch(self) -> float:
        """RMS mismatch relative to the output's 1-99 % range; NaN if not measurable."""
        if not self._pixels:
            return math.nan
        rms = math.sqrt(self._squares / self._pixels)
        low, high = np.percentile(_concatenate_finite_values(self._samples), [1, 99])
        return rms / float(high - low) if high > low else float(rms > 0)

    @property
    def seam_index(self) -> float:
        """Mean step across borders relative to steps beside them; 1 without borders."""
        if self._inner_steps > 0:
            return self._steps / self._inner_steps
        return 1.0 if self._steps == 0 else math.inf


def _concatenate_finite_values(
    arrays: Iterable[NDArray[np.floating]],
) -> NDArray[np.floating]:
    """Concatenate the finite values of arrays."""
    values = np.concatenate([np.ravel(a) for a in arrays] or [np.zeros(1)])
    return np.asarray(values[np.isfinite(values)])
