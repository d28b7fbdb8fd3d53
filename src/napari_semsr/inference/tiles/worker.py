"""What a run is, and what a worker does with each of its tiles."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import (
    Box,
    Cancelled,
    DeviceMemoryError,
    SemsrError,
    Tile,
    TilePlan,
    round_up,
    to_dtype,
)
from napari_semsr.inference.exact import LockstepPlan, Statistics
from napari_semsr.inference.layout import OutputPlan
from napari_semsr.inference.network_input import (
    HazeMap,
    Regrid,
    Scaling,
    read_input,
    set_missing,
)
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.tiles.seams import Edge, edges_of, sample_of
from napari_semsr.models import LoadedModel

# What a run is: its plan, where tiles go, and what is said of each that is written.


@dataclass(frozen=True, slots=True)
class ExecutionStrategy:
    """How a field is run."""

    # Where live normalisations take their statistics; ``none`` without any
    norm: Literal["none", "exact", "frozen", "tile"]
    # Independent tiles, one pass, or tiles that step together
    kind: Literal["tiles", "whole", "lockstep"]
    # For ``lockstep``, and for ``tiles`` with statistics of the whole field, which
    # tiles in lockstep measure first
    lockstep: LockstepPlan | None = None
    notes: tuple[str, ...] = ()  # What the user should know of the choice

    def record(self) -> dict[str, Any]:
        """Give what a resumed run repeats, in JSON types."""
        core = None if self.lockstep is None else self.lockstep.tiles.core
        return {"norm": self.norm, "kind": self.kind, "core": core}


@dataclass(frozen=True, slots=True)
class EnhancePlan:
    """All that is decided of a run before its first tile; nothing decides it again."""

    loaded: LoadedModel  # The network
    options: EnhanceOptions  # How it is run
    source: tuple[tuple[int, int], str]  # Shape of the input, and name of its type
    output: OutputPlan  # The result: frame, calibration, chunks
    data: Any  # (Y, X) The field as the network sees it
    tiles: TilePlan  # The tiles of what the network sees
    # How the output's tiles lie on the grid that the network sees; None where it sees
    # the input's own
    regrid: Regrid | None
    strategy: ExecutionStrategy  # In which order tiles go through the network
    scaling: Scaling  # The field's scaling
    haze: HazeMap | None = None  # Haze that is lifted before the network sees a window
    notes: tuple[str, ...] = ()  # What the user should know

    @property
    def outputs(self) -> TilePlan:
        """The output's tiles, in pixels of the input."""
        return self.tiles if self.regrid is None else self.regrid.outputs

    def identity(self) -> dict[str, Any]:
        """Tell what must be equal for a run to be resumed, in JSON types.

        The scaling stands for the grey values of the input. Names are those that a
        sentence calls the values by.
        """
        chosen = self.options.model_dump(mode="json", exclude={"batch", "memory_gb"})
        measured = self.scaling.low, self.scaling.high, self.scaling.mean
        steps = self.output.fit.steps
        return {
            "input": [*self.source[0], self.source[1], *measured],
            "model": self.loaded.digest,
            "resampling": None if steps is None else [str(step) for step in steps],
            **{f"option {name}": value for name, value in chosen.items()},
        }

    def tile(self, place: tuple[int, int]) -> Tile:
        """Find what the network is shown for a tile of the output.

        In pixels of what the network sees.
        """
        if self.regrid is None:
            return self.tiles.tile(*place)
        return self.around(self.outputs.tile(*place).core, place)

    def around(self, core: Box, index: tuple[int, int] = (0, 0)) -> Tile:
        """Find what the network is shown for any part of the output.

        `core`: in pixels of the input; it starts on the stride where the network sees
        the input's own grid; `index` (0, 0); in pixels of what the network sees.
        """
        if self.regrid is None:
            return self.tiles.around(core, index)
        return self.regrid.around(self.tiles, core, index)

    def deliver(
        self,
        core: Box,
        values: NDArray[np.float32],
        box: Box,
        missing: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.float32], Box]:
        """Make a part of the output of what the network gave.

        `core`: the part, in pixels of the input; `values` (Y * scale, X * scale);
        `box`: what it was given, in pixels of what the network sees; `missing` (Y, X),
        where pixels of that were missing.
        """
        scale = self.loaded.card.scale
        if self.regrid is not None:
            return self.regrid.deliver(self.data.source, core, values, box)
        set_missing(values, missing, scale)
        return values, core.within(box).scaled(scale)

    def read(self, box: Box) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Read what the network is shown of a window, and what is missing in it."""
        return read_input(self.data, box, self.scaling, self.haze)


@dataclass(frozen=True, slots=True)
class TiledRun:
    """A plan that is carried out; sent to each worker once."""

    plan: EnhancePlan  # What is done
    target: Any  # (Y * scale, X * scale) Where cores are written
    # What live norms use instead of a tile's own statistics
    statistics: Statistics | None = None


@dataclass(frozen=True, slots=True)
class TileResult:
    """What a task says of one tile that it has written."""

    index: tuple[int, int]  # Row and column of the tile
    clipped: int  # Pixels that the output's type could not hold
    edges: dict[str, Edge]  # Lines at the tile's borders
    sample: NDArray[np.float32]  # Some pixels of the result
    notes: tuple[str, ...] = ()  # What the user should be told

    def with_note(self, note: str | None) -> "TileResult":
        """Add what the user should be told."""
        return self if note is None else replace(self, notes=(*self.notes, note))


# What a worker does: read a window, enhance it, write its core.
#
# A run is registered once in each process; tasks name it by its token, so that neither
# the model nor the field travels with them. The functions here are importable, which
# keeps dask from pickling their surroundings into every task.

_SMALLEST_PIECE = 32


@dataclass(slots=True)
class TileWorker:
    """One predictor and what is known of its memory."""

    run: TiledRun  # The work
    predictor: Predictor  # The network on this worker's device
    # Into how many parts on each axis a tile is cut, to fit into memory
    pieces: int = 1
    _cancelled: threading.Event = field(default_factory=threading.Event)
    _busy: int = 0
    _idle: threading.Condition = field(default_factory=threading.Condition)
    _release: Callable[[], None] = field(init=False)

    def __post_init__(self) -> None:
        self._release = self.predictor.look_between_layers(self._check)

    def _check(self) -> None:
        """Refuse to go on once the run was stopped."""
        if self._cancelled.is_set():
            raise _stopped()

    def enhance(self, places: Sequence[tuple[int, int]]) -> list[TileResult]:
        """Enhance and write some tiles."""
        with self.working():
            tiles = [self.run.plan.tile(place) for place in places]
            try:
                return self._together(tiles)
            except RuntimeError as error:
                msg = f"Tile {places[0]} could not be enhanced: {error}"
                raise SemsrError(msg) from error

    def stop(self) -> None:
        """Refuse new work, stop what is running at its next layer, and wait for it."""
        self._cancelled.set()
        with self._idle:
            self._idle.wait_for(lambda: self._busy == 0)
        self._release()

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
        if self.pieces == 1:
            before = self.predictor.batch
            try:
                found = self._whole(tiles)
            except DeviceMemoryError:
                self._cut_smaller()
            else:
                return self._told(found, before)
        return [self._in_pieces(tile) for tile in tiles]

    def _told(self, found: list[TileResult], before: int | None) -> list[TileResult]:
        """Say so when the batch was halved on the way."""
        after = self.predictor.batch
        if after == before:
            return found
        note = f"Memory was short: batches were cut from {before} to {after} tiles."
        return [
            TileResult(p.index, p.clipped, p.edges, p.sample, (note,)) for p in found
        ]

    def _whole(self, tiles: list[Tile]) -> list[TileResult]:
        read = [self.run.plan.read(tile.window) for tile in tiles]
        shapes = {window.shape for window, _ in read}
        if len(shapes) == 1:
            results = self.predictor.predict_many(
                [w for w, _ in read], self.run.plan.scaling
            )
        else:
            results = [
                self.predictor.predict(w, self.run.plan.scaling) for w, _ in read
            ]
        pieces = []
        for tile, (_, missing), result in zip(tiles, read, results, strict=True):
            core = self.run.plan.outputs.tile(*tile.index).core
            made, inner = self.run.plan.deliver(core, result, tile.window, missing)
            pieces.append(
                self._write(tile.index, core, made[inner.slices], edges_of(made, inner))
            )
        return pieces

    @property
    def scale(self) -> int:
        """Output pixels per input pixel."""
        return self.run.plan.loaded.card.scale

    def _in_pieces(self, tile: Tile) -> TileResult:
        """Compute one tile part by part, cutting smaller when memory runs out."""
        while True:
            try:
                joined = self._assemble(tile)
            except DeviceMemoryError:
                self._cut_smaller()
            else:
                core = self.run.plan.outputs.tile(*tile.index).core
                made, inner = self.run.plan.deliver(core, joined, tile.core)
                piece = self._write(tile.index, core, made[inner.slices], {})
                side = self._side
                note = f"Memory was short: tiles are computed in pieces of {side} px."
                return TileResult(tile.index, piece.clipped, {}, piece.sample, (note,))

    @property
    def _side(self) -> int:
        """Side of a piece, a multiple of the stride."""
        plan = self.run.plan.tiles
        return round_up(max(1, plan.core // self.pieces), plan.stride)

    def _cut_smaller(self) -> None:
        """Halve the pieces, or give up."""
        plan = self.run.plan.tiles
        smallest = round_up(_SMALLEST_PIECE, plan.stride)
        if self._side <= smallest:
            window = self._side + 2 * plan.halo
            msg = (
                f"Device {self.predictor.device} has no memory left even for a window "
                f"of {window} px: free some of it, or use another device."
            )
            raise DeviceMemoryError(msg)
        self.pieces *= 2

    def _assemble(self, tile: Tile) -> NDArray[np.float32]:
        """Join the pieces of one tile."""
        plan, scale = self.run.plan.tiles, self.scale
        rows, columns = tile.core.scaled(scale).shape
        core = np.empty((rows, columns), dtype=np.float32)
        for part in plan.pieces(tile, self._side):
            window, missing = self.run.plan.read(part.window)
            result = self.predictor.predict(window, self.run.plan.scaling)
            set_missing(result, missing, scale)
            place = part.core.within(tile.core).scaled(scale)
            core[place.slices] = result[part.inner.scaled(scale).slices]
        return core

    def _write(
        self,
        index: tuple[int, int],
        core: Box,
        values: NDArray[np.float32],
        edges: dict[str, Edge],
    ) -> TileResult:
        """Put a core into the target."""
        converted, clipped = to_dtype(values, self.run.target.dtype)
        self.run.target[core.scaled(self.scale).slices] = converted
        return TileResult(index, clipped, edges, sample_of(values))


_workers: dict[str, TileWorker] = {}
_making = threading.Lock()


def register(
    token: str, run: TiledRun, predictor: Predictor | None = None
) -> TileWorker:
    """Make a run known in this process."""
    with _making:
        if token not in _workers:
            ready = predictor or Predictor(
                run.plan.loaded,
                device=run.plan.options.device,
                precision=run.plan.options.precision,
            )
            if ready.batch is None:
                ready.choose_batch(
                    run.plan.tiles.tile(0, 0).window.shape, run.plan.options.batch
                )
            ready.statistics = run.statistics
            _workers[token] = TileWorker(run, ready)
        return _workers[token]


def unregister(token: str) -> None:
    """Stop a run in this process, wait for its running tasks, and forget it."""
    worker = _workers.pop(token, None)
    if worker is not None:
        worker.stop()


def _registered(token: str) -> TileWorker:
    """Find a run of this process."""
    worker = _workers.get(token)
    if worker is None:
        raise _stopped()
    return worker


def _stopped() -> Cancelled:
    return Cancelled("The run was stopped; finished tiles are kept.")


def enhance_tiles(token: str, places: Sequence[tuple[int, int]]) -> list[TileResult]:
    """Enhance and write some tiles of a registered run: the task of a worker."""
    return _registered(token).enhance(places)
