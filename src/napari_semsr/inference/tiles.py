"""Run plans, tile destinations, and comparison of tile borders."""

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
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
    convert_dtype,
)
from napari_semsr.inference.ensemble import Statistics
from napari_semsr.inference.network_input import (
    GridMapping,
    HazeMap,
    Scaling,
    mask_missing_pixels,
    read_window,
)
from napari_semsr.inference.options import EnhanceOptions, OutputPlan
from napari_semsr.inference.predictor import Predictor
from napari_semsr.io import OmeZarrStore
from napari_semsr.models import LoadedModel

if TYPE_CHECKING:
    from napari_semsr.inference.live import LiveField


_NOTHING = nullcontext()


@dataclass(frozen=True, slots=True)
class ExecutionStrategy:
    """Execution strategy: tiles or a single pass, and the source of statistics."""

    # Source of the statistics of live normalisations; ``none`` without any
    norm: Literal["none", "whole", "sampled", "tile"]
    kind: Literal["tiles", "whole"]  # Independent tiles, or one pass
    notes: tuple[str, ...] = ()  # Notes for the user on the choice

    def to_record(self) -> dict[str, object]:
        """Return the strategy as JSON types, for resuming the run."""
        return {"norm": self.norm, "kind": self.kind}


@dataclass(frozen=True, slots=True)
class EnhancePlan:
    """Complete plan of a run, made before its first tile."""

    model: LoadedModel  # The network
    options: EnhanceOptions  # Options of the run
    source: tuple[IntPair, str]  # Shape of the input, and name of its type
    output: OutputPlan  # The result: frame, calibration, chunks
    data: Any  # (Y, X) The field on the network's grid
    tiles: TilePlan  # The tiles of that field
    # Relation of the output's tiles to the network's grid; None if that is the same as
    # the input's
    regrid: GridMapping | None
    strategy: ExecutionStrategy  # How the field is run
    scaling: Scaling  # The field's scaling
    haze: HazeMap | None = None  # Haze that is removed from each window
    # Faults of the field that the network is conditioned on, as in `core.FAULTS`
    condition: tuple[float, ...] | None = None
    notes: tuple[str, ...] = ()  # Notes for the user

    @property
    def outputs(self) -> TilePlan:
        """Output tiles, in input pixels."""
        return self.tiles if self.regrid is None else self.regrid.outputs

    def identity(self) -> dict[str, object]:
        """Return the properties that a resumed run must match, as JSON types.

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
        """Return the network input tile for an output tile."""
        if self.regrid is None:
            return self.tiles.tile(*place)
        return self.create_tile(self.outputs.tile(*place).core, place)

    def create_tile(self, core: Box, index: IntPair = (0, 0)) -> Tile:
        """Return the network input tile for any output box.

        `core` is in pixels of the input; without resampling it starts on the stride.
        The result is in pixels of the network's grid.
        """
        if self.regrid is None:
            return self.tiles.create_tile(core, index)
        return self.regrid.create_tile(self.tiles, core, index)

    def convert_output(
        self,
        core: Box,
        values: Float32Array,
        box: Box,
        missing: BoolArray | None = None,
    ) -> tuple[Float32Array, Box]:
        """Convert the network output for a box to the matching part of the output.

        `core` is in pixels of the input, `box` and `missing` in pixels of the network's
        grid.
        """
        scale = self.model.card.scale
        if self.regrid is not None:
            return self.regrid.resample_output(self.data.source, core, values, box)
        mask_missing_pixels(values, missing, scale)
        return values, core.relative_to(box).scale(scale)

    def read_clean_window(self, box: Box) -> tuple[RealArray, BoolArray | None]:
        """Read a filled, dehazed window and the mask of its missing pixels."""
        window, missing = read_window(self.data, box, self.scaling.mean)
        return (
            window if self.haze is None else self.haze.remove_haze(window, box)
        ), missing

    def compute_tile(
        self,
        predictor: Predictor,
        tile: Tile,
        reading: AbstractContextManager[object] = _NOTHING,
        passing: AbstractContextManager[object] = _NOTHING,
    ) -> tuple[Float32Array, Box, BoolArray | None]:
        """Run a tile through the network, with contexts for reading it and the pass.

        Returns the arguments of `convert_output`: the core with a pixel around it, by
        which borders are compared, its position, and the mask of its missing pixels.
        """
        with reading:
            window, missing = self.read_clean_window(tile.window)
        box = tile.core.grow(1).intersection(tile.window)
        inner = box.relative_to(tile.window)
        with passing:
            values = predictor.predict(window, self.scaling, inner)
        return values, box, None if missing is None else missing[inner.slices]


@dataclass(frozen=True, slots=True)
class TiledRun:
    """Run plan with its output target, sent once to each worker."""

    plan: EnhancePlan
    target: Any  # (Y * scale, X * scale) The output
    # Replaces the statistics of each tile in live norms
    statistics: Statistics | None = None

    def write_output(
        self,
        place: IntPair,
        values: Float32Array,
        box: Box,
        missing: BoolArray | None = None,
    ) -> "TileResult":
        """Convert the network output for a box and write it as an output tile."""
        core = self.plan.outputs.tile(*place).core
        part, inner = self.plan.convert_output(core, values, box, missing)
        return self.write_tile(place, part[inner.slices], sample_edges(part, inner))

    def write_tile(
        self,
        place: IntPair,
        values: Float32Array,
        edges: "dict[str, Edge]",
    ) -> "TileResult":
        """Write an output tile `values` (Y * scale, X * scale) to the target."""
        core = self.plan.outputs.tile(*place).core
        typed_values, clipped_count = convert_dtype(values, self.target.dtype)
        self.target[core.scale(self.plan.model.card.scale).slices] = typed_values
        return TileResult(place, clipped_count, edges, sample_pixels(values))


@dataclass(frozen=True, slots=True)
class TileResult:
    """Result of a task that wrote one tile."""

    index: IntPair  # Row and column of the tile
    clipped_pixels: int  # Pixels outside the range of the output's type
    edges: "dict[str, Edge]"  # Lines at the tile's borders
    sample: Float32Array  # Some pixels of the result
    notes: tuple[str, ...] = ()  # For the user

    def with_note(self, note: str | None) -> "TileResult":
        """Return the result with a note for the user, if one is given."""
        return self if note is None else replace(self, notes=(*self.notes, note))


# Destinations of tiles: an array in memory, or a store that records finished tiles.

_IDENTITY = "run"
Places = list[IntPair]


@dataclass(frozen=True, slots=True)
class ArraySink:
    """Sink that writes a result to an array in memory."""

    array: RealArray  # (Y, X) Array into which cores are written
    live: None = None  # Live view of the run, which determines the order of tiles

    def prepare(self, plan: EnhancePlan) -> None:
        """Raise an error if the array does not fit the run."""
        _check_shape(self.array.shape, plan.output)

    def list_pending_tiles(self, plan: TilePlan) -> Places:
        """List all tiles."""
        rows, columns = plan.grid
        return [(row, column) for row in range(rows) for column in range(columns)]

    def store_value(self, key: str, value: object) -> None:
        """Do nothing: values are not stored."""

    def read_value(self, key: str) -> None:
        """Return None: values are not stored."""

    def finish_tile(self, index: IntPair) -> None:
        """Do nothing: the result exists only in this process."""


@dataclass(frozen=True, slots=True)
class _StoreTarget:
    """Levels of a store, in this process, and the viewer that shows its tiles."""

    store: OmeZarrStore
    live: "LiveField | None"

    @property
    def dtype(self) -> np.dtype[np.generic]:
        kind: np.dtype[np.generic] = np.dtype(self.store.level0.dtype)
        return kind

    def __setitem__(self, index: tuple[slice, slice], tile: RealArray) -> None:
        corner = index[0].start, index[1].start
        high, wide = self.store.unit
        self.store.write_unit(corner[0] // high, corner[1] // wide, tile)
        if self.live is not None:
            self.live.show_tile(Box.from_shape(tile.shape, corner), np.array(tile))


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
        """Raise an error if the store belongs to another run; otherwise display it."""
        _check_shape(self.store.level0.shape, plan.output)
        if tuple(self.store.unit) != plan.output.tile_shape:
            msg = (
                f"Chunks must have the tile size of {plan.output.tile_shape} px, but "
                f"{self.store.path.name} has chunks of {tuple(self.store.unit)} px: "
                "create the store with the same tile option."
            )
            raise ShapeError(msg, code="grid-mismatch")
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
            raise WriteError(msg, code="other-run")
        if self.live is not None:
            self.live.attach_store(self.store)

    def list_pending_tiles(self, plan: TilePlan) -> Places:
        """Return the unfinished tiles."""
        return self.store.pending_units()

    def store_value(self, key: str, value: object) -> None:
        """Write a value to the store's attributes."""
        self.store.write_note(key, value)

    def read_value(self, key: str) -> Any:
        """Read a value from the store's attributes."""
        return self.store.read_notes().get(key)

    def finish_tile(self, index: IntPair) -> None:
        """Mark a written tile as done, and display it if necessary."""
        self.store.mark_done(*index)
        if self.live is not None:
            self.live.show_external_tile(index)


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
    """Pixel lines along one border of a tile."""

    # The neighbour's first line, as predicted by this tile; None if it was outside the
    # tile's window
    outer: Float32Array | None
    first: Float32Array  # This tile's own line next to the border
    second: Float32Array  # This tile's next line further inside


def sample_edges(prediction: Float32Array, inner: Box) -> dict[str, Edge]:
    """Sample up to 256 pixels per line along each border of the core box `inner`."""
    rows, columns = inner.slices
    down = prediction[:, columns][:, :: _compute_sample_spacing(inner.shape[1])]
    along = prediction[rows][:: _compute_sample_spacing(inner.shape[0])].T
    return {
        _ABOVE: _extract_edge(down, inner.y0, 1, inner.shape[0]),
        _BELOW: _extract_edge(down, inner.y1 - 1, -1, inner.shape[0]),
        _LEFT: _extract_edge(along, inner.x0, 1, inner.shape[1]),
        _RIGHT: _extract_edge(along, inner.x1 - 1, -1, inner.shape[1]),
    }


def _compute_sample_spacing(length: int) -> int:
    """Return the sample spacing that yields at most 256 samples."""
    return -(-length // _SAMPLES)


def _extract_edge(lines: Float32Array, first: int, inward: int, depth: int) -> Edge:
    """Return the lines on both sides of a core border."""
    beyond = first - inward
    outer = lines[beyond].copy() if 0 <= beyond < len(lines) else None
    second = first + inward if depth > 1 else first
    return Edge(outer, lines[first].copy(), lines[second].copy())


def sample_pixels(core: Float32Array) -> Float32Array:
    """Sample at most 16 x 16 evenly spaced pixels of a tile (Y, X)."""
    rows, columns = (-(-side // _GRID) for side in core.shape)
    sample = core[::rows, ::columns].ravel()
    return sample[np.isfinite(sample)].astype(np.float32)


@dataclass(slots=True)
class SeamMeter:
    """Accumulator of edge differences and pixel samples (from up to 1024 tiles)."""

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
    all_values = np.concatenate([np.ravel(a) for a in arrays] or [np.zeros(1)])
    finite_values: NDArray[np.floating] = all_values[np.isfinite(all_values)]
    return finite_values
