"""Plan of a run, destinations of its tiles, and comparison at their borders."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import (
    BoolArray,
    Box,
    Float32Array,
    IntPair,
    RealArray,
    ShapeError,
    Tile,
    TilePlan,
    WriteError,
    to_dtype,
)
from napari_semsr.inference.layout import OutputPlan
from napari_semsr.inference.network_input import (
    HazeMap,
    Regrid,
    Scaling,
    read_window,
    set_missing,
)
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.inference.statistics import Statistics
from napari_semsr.io import OmeZarrStore
from napari_semsr.models import LoadedModel

if TYPE_CHECKING:
    from napari_semsr.inference.live import LiveField
    from napari_semsr.inference.predictor import Predictor


@dataclass(frozen=True, slots=True)
class ExecutionStrategy:
    """Strategy of a run: tiles or whole, and the source of statistics."""

    # Source of the statistics of live normalisations; ``none`` without any
    norm: Literal["none", "whole", "sampled", "tile"]
    kind: Literal["tiles", "whole"]  # Independent tiles, or one pass
    notes: tuple[str, ...] = ()  # Notes for the user on the choice

    def record(self) -> dict[str, object]:
        """Return the strategy in JSON types, for a resumed run."""
        return {"norm": self.norm, "kind": self.kind}


@dataclass(frozen=True, slots=True)
class EnhancePlan:
    """All decisions about a run, made before its first tile."""

    model: LoadedModel  # The network
    options: EnhanceOptions  # Options of the run
    source: tuple[IntPair, str]  # Shape of the input, and name of its type
    output: OutputPlan  # The result: frame, calibration, chunks
    data: Any  # (Y, X) The field on the network's grid
    tiles: TilePlan  # The tiles of that field
    # Relation of the output's tiles to the network's grid; None if that is the same as
    # the input's
    regrid: Regrid | None
    strategy: ExecutionStrategy  # How the field is run
    scaling: Scaling  # The field's scaling
    haze: HazeMap | None = None  # Haze that is removed from each window
    # Faults of the field that the network is conditioned on, as in `core.FAULTS`
    condition: tuple[float, ...] | None = None
    notes: tuple[str, ...] = ()  # Notes for the user

    @property
    def outputs(self) -> TilePlan:
        """The output's tiles, in pixels of the input."""
        return self.tiles if self.regrid is None else self.regrid.outputs

    def identity(self) -> dict[str, object]:
        """Return the properties that must be equal for resuming a run, in JSON types.

        The scaling represents the grey values of the input. Keys are used in messages.
        """
        option_values = self.options.model_dump(
            mode="json", exclude={"batch", "memory_gb"}
        )
        level_values = self.scaling.low, self.scaling.high, self.scaling.mean
        steps = self.output.fit.steps
        return {
            "input": [*self.source[0], self.source[1], *level_values],
            "model": self.model.digest,
            "resampling": None if steps is None else [str(step) for step in steps],
            **{f"option {name}": value for name, value in option_values.items()},
        }

    def tile(self, place: IntPair) -> Tile:
        """Return the tile of the network's input for a tile of the output."""
        if self.regrid is None:
            return self.tiles.tile(*place)
        return self.around(self.outputs.tile(*place).core, place)

    def around(self, core: Box, index: IntPair = (0, 0)) -> Tile:
        """Return the tile of the network's input for any part of the output.

        `core` is in pixels of the input; without resampling it starts on the stride.
        The result is in pixels of the network's grid.
        """
        if self.regrid is None:
            return self.tiles.around(core, index)
        return self.regrid.around(self.tiles, core, index)

    def deliver(
        self,
        core: Box,
        values: Float32Array,
        box: Box,
        missing: BoolArray | None = None,
    ) -> tuple[Float32Array, Box]:
        """Convert the network's output for a box to a part of the run's output.

        `core` is in pixels of the input, `box` and `missing` in pixels of the network's
        grid.
        """
        scale = self.model.card.scale
        if self.regrid is not None:
            return self.regrid.deliver(self.data.source, core, values, box)
        set_missing(values, missing, scale)
        return values, core.within(box).scale(scale)

    def read(self, box: Box) -> tuple[RealArray, BoolArray | None]:
        """Read a window, filled and without haze, and the mask of missing pixels."""
        window, missing = read_window(self.data, box, self.scaling.mean)
        return (window if self.haze is None else self.haze.remove(window, box)), missing

    def compute(
        self, predictor: "Predictor", tile: Tile
    ) -> tuple[Float32Array, Box, BoolArray | None]:
        """Run a tile through the network.

        Returns the arguments of `deliver`: the core with a pixel around it, by which
        borders are compared, its position, and the mask of its missing pixels.
        """
        box = tile.core.grow(1).intersection(tile.window)
        window, missing = self.read(tile.window)
        inner = box.within(tile.window)
        values = predictor.predict(window, self.scaling, inner)
        return values, box, None if missing is None else missing[inner.slices]


@dataclass(frozen=True, slots=True)
class TiledRun:
    """A plan with its target; sent to each worker once."""

    plan: EnhancePlan
    target: Any  # (Y * scale, X * scale) The output
    # Replaces the statistics of each tile in live norms
    statistics: Statistics | None = None

    def deliver(
        self,
        place: IntPair,
        values: Float32Array,
        box: Box,
        missing: BoolArray | None = None,
    ) -> "TileResult":
        """Write a tile of the output from the network's output for a box."""
        core = self.plan.outputs.tile(*place).core
        part, inner = self.plan.deliver(core, values, box, missing)
        return self.write(place, part[inner.slices], edges_of(part, inner))

    def write(
        self,
        place: IntPair,
        values: Float32Array,
        edges: "dict[str, Edge]",
    ) -> "TileResult":
        """Write a tile of the output to the target; `values` (Y * scale, X * scale)."""
        core = self.plan.outputs.tile(*place).core
        typed_values, clipped_count = to_dtype(values, self.target.dtype)
        self.target[core.scale(self.plan.model.card.scale).slices] = typed_values
        return TileResult(place, clipped_count, edges, sample_of(values))


@dataclass(frozen=True, slots=True)
class TileResult:
    """Result of a task for one tile that it has written."""

    index: IntPair  # Row and column of the tile
    clipped_pixels: int  # Pixels outside the range of the output's type
    edges: "dict[str, Edge]"  # Lines at the tile's borders
    sample: Float32Array  # Some pixels of the result
    notes: tuple[str, ...] = ()  # For the user

    def with_note(self, note: str | None) -> "TileResult":
        """Return the result with a note for the user, if there is one."""
        return self if note is None else replace(self, notes=(*self.notes, note))


# Destinations of tiles: an array in memory, or a store that records finished tiles.

_IDENTITY = "run"
Places = list[IntPair]


@dataclass(frozen=True, slots=True)
class ArraySink:
    """A result in memory."""

    array: RealArray  # (Y, X) Array into which cores are written
    live: None = None  # Live view of the run, which determines the order of tiles

    @property
    def shared_array(self) -> object:
        """Array for other processes; not supported here."""
        return self.array

    def prepare(self, plan: EnhancePlan) -> None:
        """Raise an error if a target does not fit the run."""
        _check_shape(self.array.shape, plan.output)

    def pending(self, plan: TilePlan) -> Places:
        """List all tiles."""
        rows, columns = plan.grid
        return [(row, column) for row in range(rows) for column in range(columns)]

    def keep(self, key: str, value: object) -> None:
        """Do nothing: values are not stored."""

    def read_value(self, key: str) -> None:
        """Return nothing."""

    def finish_tile(self, index: IntPair) -> None:
        """Do nothing: the result exists only in this process."""


@dataclass(frozen=True, slots=True)
class _LiveTarget:
    """Finest level of a store that also passes each written tile to a viewer."""

    array: Any
    live: "LiveField"

    @property
    def dtype(self) -> np.dtype[np.generic]:
        kind: np.dtype[np.generic] = np.dtype(self.array.dtype)
        return kind

    def __setitem__(self, index: tuple[slice, slice], tile: RealArray) -> None:
        self.array[index] = tile
        rows, columns = index
        box = Box(rows.start, rows.stop, columns.start, columns.stop)
        self.live.land(box, np.array(tile))


@dataclass(frozen=True, slots=True)
class StoreSink:
    """A result on disk, one chunk per tile."""

    store: OmeZarrStore  # The store
    live: "LiveField | None" = None  # Live view of the run

    @property
    def array(self) -> object:
        """The finest level; written tiles are also passed to the viewer."""
        level = self.store.level0
        return level if self.live is None else _LiveTarget(level, self.live)

    @property
    def shared_array(self) -> object:
        """The finest level without the viewer, for other processes."""
        return self.store.level0

    def prepare(self, plan: EnhancePlan) -> None:
        """Raise if a store belongs to another run; otherwise display it."""
        _check_shape(self.store.level0.shape, plan.output)
        if tuple(self.store.unit) != plan.output.unit:
            msg = (
                f"Chunks must equal the tiles, {plan.output.unit} px, but those of "
                f"{self.store.path.name} are {tuple(self.store.unit)}: create the "
                "store with the same tile option."
            )
            raise ShapeError(msg, code="grid-mismatch")
        identity = plan.identity()
        before = self.store.notes().get(_IDENTITY)
        if before is None:
            self.store.note(_IDENTITY, before := identity)
        changes = [k for k in identity if before.get(k) != identity[k]]
        if changes:
            msg = (
                f"{self.store.path.name} can only be resumed unchanged, but the "
                f"{' and the '.join(changes)} changed: use `overwrite` to start again."
            )
            raise WriteError(msg, code="other-run")
        if self.live is not None:
            self.live.attach(self.store)

    def pending(self, plan: TilePlan) -> Places:
        """Return the unfinished tiles."""
        return self.store.pending()

    def keep(self, key: str, value: object) -> None:
        """Write a value to the store's attributes."""
        self.store.note(key, value)

    def read_value(self, key: str) -> Any:
        """Read a value from the store's attributes."""
        return self.store.notes().get(key)

    def finish_tile(self, index: IntPair) -> None:
        """Mark a tile whose pixels are on disk as done, and display it if necessary."""
        self.store.mark_done(*index)
        if self.live is not None:
            self.live.fetch(index)


Sink = ArraySink | StoreSink
"""Destination of tiles."""


def _check_shape(stored_shape: tuple[int, ...], output: OutputPlan) -> None:
    shape = output.frame.shape
    if tuple(stored_shape) != shape:
        msg = f"The output must have shape {shape}, got {tuple(stored_shape)}."
        raise ShapeError(msg, code="sizes-differ")


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
    """Lines of pixels at one border of a tile."""

    # The neighbour's first line, as predicted by this tile; None if it was outside the
    # tile's window
    outer: Float32Array | None
    first: Float32Array  # This tile's own line next to the border
    second: Float32Array  # This tile's next line further inside


def edges_of(prediction: Float32Array, inner: Box) -> dict[str, Edge]:
    """Sample up to 256 pixels of lines at each border of `inner`, a core in (Y, X)."""
    rows, columns = inner.slices
    down = prediction[:, columns][:, :: _step(inner.shape[1])]
    along = prediction[rows][:: _step(inner.shape[0])].T
    return {
        _ABOVE: _edge(down, inner.y0, 1, inner.shape[0]),
        _BELOW: _edge(down, inner.y1 - 1, -1, inner.shape[0]),
        _LEFT: _edge(along, inner.x0, 1, inner.shape[1]),
        _RIGHT: _edge(along, inner.x1 - 1, -1, inner.shape[1]),
    }


def _step(length: int) -> int:
    """Return the spacing for at most 256 samples."""
    return -(-length // _SAMPLES)


def _edge(lines: Float32Array, first: int, inward: int, depth: int) -> Edge:
    """Return the lines around a border; a core of one line has no second."""
    beyond = first - inward
    outer = lines[beyond].copy() if 0 <= beyond < len(lines) else None
    second = first + inward if depth > 1 else first
    return Edge(outer, lines[first].copy(), lines[second].copy())


def sample_of(core: Float32Array) -> Float32Array:
    """Sample at most 16 x 16 evenly spaced pixels of a tile (Y, X)."""
    rows, columns = (-(-side // _GRID) for side in core.shape)
    sample = core[::rows, ::columns].ravel()
    return sample[np.isfinite(sample)].astype(np.float32)


@dataclass(slots=True)
class SeamMeter:
    """Collector of edges, to compare them, and of samples of at most 1024 tiles."""

    border_count: int = 0  # Borders compared
    _waiting: dict[tuple[int, int, str], Edge] = field(default_factory=dict)
    _samples: list[Float32Array] = field(default_factory=list)
    _tile_count: int = 0
    _pitch: int = 1
    _squares: float = 0.0
    _pixels: int = 0
    _steps: float = 0.0
    _inner_steps: float = 0.0

    def add(self, index: IntPair, edges: dict[str, Edge], sample: Float32Array) -> None:
        """Add one tile."""
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
            else:
                self._compare(edge, other)

    def _compare(self, one: Edge, other: Edge) -> None:
        """Add the differences at one border."""
        self.border_count += 1
        for outer_values, own in ((one.outer, other.first), (other.outer, one.first)):
            if outer_values is not None:
                difference = _finite([outer_values.astype(np.float64) - own])
                self._squares += float(np.sum(difference**2))
                self._pixels += difference.size
        step = np.abs(one.first.astype(np.float64) - other.first)
        within = [np.abs(e.first.astype(np.float64) - e.second) for e in (one, other)]
        valid = np.isfinite(step) & np.isfinite(within[0]) & np.isfinite(within[1])
        self._steps += float(step[valid].sum())
        self._inner_steps += float(sum(w[valid].sum() for w in within)) / 2

    @property
    def mismatch(self) -> float:
        """RMS disagreement over the output's 1-99 % range; NaN if not measurable."""
        if not self._pixels:
            return math.nan
        rms = math.sqrt(self._squares / self._pixels)
        low, high = np.percentile(_finite(self._samples), [1, 99])
        return rms / float(high - low) if high > low else float(rms > 0)

    @property
    def seam_index(self) -> float:
        """Mean step across borders over that next to them; 1 without borders."""
        if self._inner_steps > 0:
            return self._steps / self._inner_steps
        return 1.0 if self._steps == 0 else math.inf


def _finite(arrays: Iterable[NDArray[np.floating]]) -> NDArray[np.floating]:
    """Concatenate the finite values of arrays."""
    all_values = np.concatenate([np.ravel(a) for a in arrays] or [np.zeros(1)])
    finite_values: NDArray[np.floating] = all_values[np.isfinite(all_values)]
    return finite_values
