"""A field as one: in one pass or in lockstep, for networks that look at all of it."""

import itertools
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_semsr.core import (
    Box,
    DeviceMemoryError,
    Float32Array,
    IntPair,
    Job,
    Progress,
    Tile,
)
from napari_semsr.inference.buffers import NoRoomError, Room
from napari_semsr.inference.executors import LocalExecutor, Work
from napari_semsr.inference.lockstep import FinishedTile, LayerSynchronous, StepResult
from napari_semsr.inference.lockstep_plan import LockstepPlan, plan_lockstep
from napari_semsr.inference.network_input import Regrid, set_missing
from napari_semsr.inference.predictor import Predictor, check_scale
from napari_semsr.inference.statistics import MeasuredMoments, Statistics
from napari_semsr.inference.tiles import (
    EnhancePlan,
    Places,
    Sink,
    TiledRun,
    TileResult,
    edges_of,
)

_STATISTICS = "statistics"
STRATEGY_KEY = "way"
_CUT = "Memory was short: tiles in lockstep were cut to {} px."


@dataclass(slots=True)
class OutputAssembler:
    """Writes the output's tiles as the tiles of a run come to the end.

    A tile of the run holds several tiles of the output, or is a part of one. Parts are
    joined in memory, so that each tile of the output is written once and as a whole.
    """

    run: TiledRun  # The work; its plan says what is a tile of the output
    places: set[IntPair]  # Rows and columns of the output's tiles that are wanted
    _parts: dict[IntPair, tuple[Float32Array, int]] = field(default_factory=dict)

    def take(self, event: FinishedTile) -> list[TileResult]:
        """Write what is complete now."""
        result = self._plane(event)
        outer, side, plan = (
            event.tile.core,
            self.run.plan.tiles.core,
            self.run.plan.tiles,
        )
        rows, columns = plan.grid
        pieces = []
        for row in range(outer.y0 // side, min(-(-outer.y1 // side), rows)):
            for column in range(outer.x0 // side, min(-(-outer.x1 // side), columns)):
                if (row, column) not in self.places:
                    continue
                core = plan.tile(row, column).core
                if core.intersection(outer) == core:
                    pieces.append(self._whole(event.tile, result, core))
                else:
                    pieces += self._part(event.tile, result, core)
        return pieces

    def _plane(self, event: FinishedTile) -> Float32Array:
        """Bring an output back to grey values."""
        card = self.run.plan.loaded.card
        plane = event.output[0, 0].to("cpu", torch.float32).numpy().copy()
        check_scale(card, event.tile.window.shape, plane.shape)
        restored: Float32Array = self.run.plan.scaling.restore(plane)
        if np.dtype(self.run.plan.data.dtype).kind == "f":
            missing = self.run.plan.read(event.tile.window)[1]
            set_missing(restored, missing, card.scale)
        return restored

    def _whole(self, tile: Tile, result: Float32Array, core: Box) -> TileResult:
        """Write one of the output's tiles that lie in a tile of the run."""
        inner = core.within(tile.window).scaled(self.run.plan.loaded.card.scale)
        outer = tile.core
        outside = {
            "above": core.y0 == outer.y0,
            "below": core.y1 == outer.y1,
            "left": core.x0 == outer.x0,
            "right": core.x1 == outer.x1,
        }
        edges = edges_of(result, inner)
        kept = {name: edge for name, edge in edges.items() if outside[name]}
        return self.run.write(self.place_of(core), result[inner.slices], kept)

    def _part(self, tile: Tile, result: Float32Array, core: Box) -> list[TileResult]:
        """Put a part beside the others of an output's tile; write it when complete."""
        scale = self.run.plan.loaded.card.scale
        place = self.place_of(core)
        area = core.scaled(scale).shape
        joined, left = self._parts.get(
            place, (np.empty(area, dtype=np.float32), area[0] * area[1])
        )
        common = tile.core.intersection(core)
        source = common.within(tile.window).scaled(scale)
        joined[common.within(core).scaled(scale).slices] = result[source.slices]
        left -= source.shape[0] * source.shape[1]
        if left:
            self._parts[place] = joined, left
            return []
        self._parts.pop(place, None)
        return [self.run.write(place, joined, {})]

    def place_of(self, core: Box) -> IntPair:
        """Row and column of one of the output's tiles."""
        side = self.run.plan.tiles.core
        return core.y0 // side, core.x0 // side


def run_lockstep(
    run: TiledRun,
    predictor: Predictor,
    places: Places,
    found: LockstepPlan,
    target: Sink,
) -> Generator[list[TileResult] | Progress]:
    """Enhance a field in lockstep and write it tile by tile.

    The statistics are kept with the target as soon as they are known; a run that is
    resumed takes them from there, and only computes what is missing and its
    surroundings. Where memory runs out, the run begins anew with smaller tiles.
    """
    left, chosen, note = list(places), found, None
    while left:
        short: DeviceMemoryError | None = None
        with closing(_once(run, predictor, left, chosen, target)) as events:
            try:
                for event in events:
                    if isinstance(event, Progress):
                        yield event
                        continue
                    left = [p for p in left if p not in {e.index for e in event}]
                    yield [e.with_note(note) for e in event]
            except NoRoomError:
                raise
            except DeviceMemoryError as error:
                short = error.with_traceback(None)  # its frames hold tensors
        if short is None:
            return
        chosen = _smaller_or_raise(predictor, chosen, run.plan.tiles.core, short)
        target.keep(
            STRATEGY_KEY,
            {**(target.kept(STRATEGY_KEY) or {}), "core": chosen.tiles.core},
        )
        note = _CUT.format(chosen.tiles.core)
        yield Progress(0, 0, note)


def _smaller_or_raise(
    predictor: Predictor, found: LockstepPlan, core: int, error: DeviceMemoryError
) -> LockstepPlan:
    """Plan smaller tiles, which divide the output's of side `core`, or give up."""
    smaller = found.halved(predictor, core)
    if smaller is None:
        side = found.tiles.core + 2 * found.tiles.halo
        msg = (
            f"{str(error).rstrip('.')}, although tiles in lockstep were cut to windows "
            f"of {side} px: free some memory, or use another device."
        )
        raise DeviceMemoryError(msg) from error
    return smaller


def _once(
    run: TiledRun,
    predictor: Predictor,
    places: Places,
    found: LockstepPlan,
    target: Sink,
) -> Generator[list[TileResult] | Progress]:
    known = target.kept(_STATISTICS)
    statistics = None if known is None else Statistics.from_json(known)
    lockstep = _lockstep(run, predictor, found, statistics, target.folder)
    missing = [run.plan.tiles.tile(*place).core for place in places]
    reach = None if statistics is None else predictor.probe.halo
    wanted = list(found.tiles)
    if reach is not None:  # the missing ones, and what they look at
        near = [box.grow(reach) for box in missing]
        wanted = [t for t in wanted if any(t.core.overlap(box) for box in near)]
    landing = OutputAssembler(run, set(places))
    tiles = sorted(wanted, key=lambda tile: landing.place_of(tile.core))
    live = sum(point.live for point in found.trace.points)
    told = statistics is not None or not live
    with closing(lockstep.run(tiles)) as events:
        for event in events:
            if not told and len(lockstep.measured) == live:
                measured = Statistics(tuple(lockstep.measured), exact=True)
                target.keep(_STATISTICS, measured.to_json())
                told = True
            pieces = landing.take(event) if isinstance(event, FinishedTile) else []
            yield pieces or _step_of(event, len(found.trace.points))


def exact_statistics(
    run: TiledRun, predictor: Predictor, found: LockstepPlan, target: Sink
) -> Job[Statistics]:
    """Take the whole field's statistics that a target keeps, or measure and keep them.

    With them, tiles with their full halo are as in the whole field. Where memory runs
    out, they are measured anew with smaller tiles.
    """
    before = target.kept(_STATISTICS)
    if before is not None:
        return Statistics.from_json(before)
    points, chosen = len(found.trace.points), found
    while True:
        lockstep = _lockstep(run, predictor, chosen, None, target.folder)
        with closing(lockstep.run(chosen.tiles.tiles, until_end=False)) as events:
            try:
                for event in events:
                    yield _step_of(event, points)
                break
            except NoRoomError:
                raise
            except DeviceMemoryError as error:
                short = error.with_traceback(None)  # its frames hold tensors
        chosen = _smaller_or_raise(predictor, chosen, run.plan.tiles.core, short)
        yield Progress(0, 0, _CUT.format(chosen.tiles.core))
    measured = Statistics(tuple(lockstep.measured), exact=True)
    target.keep(_STATISTICS, measured.to_json())
    return measured


def _lockstep(
    run: TiledRun,
    predictor: Predictor,
    found: LockstepPlan,
    statistics: Statistics | None,
    folder: Path,
) -> LayerSynchronous:
    return LayerSynchronous(
        predictor.network,
        found.trace,
        found.tiles,
        lambda tile: predictor.given(run.plan.read(tile.window)[0], run.plan.scaling),
        Room(found.memory_bytes, folder),
        predictor.device,
        computing=lambda: predictor.computing("tiles in lockstep"),
        known=statistics,
    )


def _step_of(event: StepResult | FinishedTile, points: int) -> Progress:
    if isinstance(event, FinishedTile):
        return Progress(0, 0, "Joining the parts of a tile")
    said = f"Layer {event.point} of {points}: tiles step together"
    return Progress(event.tile, event.tiles, said)


# Whole, or in lockstep.


def run_as_one(
    run: TiledRun,
    predictor: Predictor,
    places: Places,
    lockstep: LockstepPlan | None,
    target: Sink,
    budget: int,
) -> Work:
    """Run tiles that depend on each other: whole, or in lockstep.

    Bytes that the run holds already, libraries among them, are not there for layers.
    """

    def begin(run: TiledRun, places: Places) -> Work:
        if lockstep is not None:
            return run_lockstep(run, predictor, places, lockstep, target)
        return _whole_or_lockstep(run, predictor, places, target, budget)

    if run.plan.regrid is None:
        return begin(run, places)
    return _run_regridded(run, run.plan.regrid, places, target.folder, begin)


def _whole_or_lockstep(
    run: TiledRun,
    predictor: Predictor,
    places: Places,
    target: Sink,
    budget: int,
) -> Work:
    """Enhance a field in one pass; in lockstep where memory runs out."""
    short: DeviceMemoryError | None = None
    with closing(_run_whole(run, predictor, places)) as pieces:
        try:
            yield from pieces
        except DeviceMemoryError as error:
            short = error.with_traceback(None)  # its frames hold tensors
    if short is None:
        return
    found = plan_lockstep(predictor, run.plan.tiles, budget, core=run.plan.tiles.core)
    if found is None or run.plan.options.self_ensemble:
        raise short
    record = {
        **(target.kept(STRATEGY_KEY) or {}),
        "kind": "lockstep",
        "core": found.tiles.core,
    }
    target.keep(STRATEGY_KEY, record)
    note = (
        "Memory was short: the field is not run whole, but tiles of "
        f"{found.tiles.core} px step together."
    )
    yield Progress(0, 0, note)
    with closing(run_lockstep(run, predictor, places, found, target)) as events:
        for event in events:
            if isinstance(event, Progress):
                yield event
            else:
                yield [replace(e, notes=(note, *e.notes)) for e in event]


def _run_whole(
    run: TiledRun, predictor: Predictor, places: Places
) -> Generator[list[TileResult] | None]:
    if not places:
        return
    with LocalExecutor(run, predictor) as executor:
        result = yield from executor.call(_whole_field, run.plan, predictor)
    scale = run.plan.loaded.card.scale
    for place in places:
        core = run.plan.tiles.tile(*place).core.scaled(scale)
        yield [run.write(place, result[core.slices], edges_of(result, core))]


def _whole_field(plan: EnhancePlan, predictor: Predictor) -> Float32Array:
    """Enhance a field with its padding; gives (Y * scale, X * scale)."""
    window, missing = plan.read(Box.of(plan.tiles.padded_shape))
    with MeasuredMoments():
        result = predictor.predict(window, plan.scaling)
    set_missing(result, missing, plan.loaded.card.scale)
    return result


# A network that sees the field on another grid gives its output on that grid into a
# scratch array; a tile of the output is made as soon as all lies there that it needs.

_IN_MEMORY_BYTES = 64 << 20


def _run_regridded(
    run: TiledRun,
    regrid: Regrid,
    places: Places,
    folder: Path,
    begin: Callable[[TiledRun, Places], Work],
) -> Work:
    """Enhance a field on the network's grid, and write it on its own."""
    waiting: dict[IntPair, set[IntPair]] = {}
    side = run.plan.tiles.core
    for place in places:  # the tiles whose cores share a pixel with it
        box = regrid.core(run.plan.outputs.tile(*place).core)
        rows = range(box.y0 // side, -(-box.y1 // side))
        columns = range(box.x0 // side, -(-box.x1 // side))
        waiting[place] = set(itertools.product(rows, columns))
    needed = sorted(set().union(*waiting.values()))
    if not needed:
        return
    high, wide = (side * regrid.scale for side in run.plan.tiles.shape)
    count, seen = 0, Box.of(run.plan.tiles.shape)
    with _scratch((high, wide), folder) as array:
        inner = replace(run, target=array, plan=replace(run.plan, regrid=None))
        with closing(begin(inner, needed)) as groups:
            for group in groups:
                if group is None or isinstance(group, Progress):
                    yield group
                    continue
                landed = {piece.index for piece in group}
                count += len(landed)
                notes = tuple(dict.fromkeys(n for piece in group for n in piece.notes))
                for missing in waiting.values():
                    missing -= landed
                ready = [place for place, missing in waiting.items() if not missing]
                for place in ready:
                    del waiting[place]
                    core = run.plan.outputs.tile(*place).core
                    made, at = run.plan.deliver(core, array, seen)
                    yield [run.write(place, made[at.slices], edges_of(made, at), notes)]
                if not ready:
                    yield Progress(count, len(needed), "Enhancing the resampled field")


@contextmanager
def _scratch(shape: IntPair, folder: Path) -> Iterator[NDArray[Any]]:
    """Make an array that lies in a nameless file when it is large."""
    size = shape[0] * shape[1] * np.dtype(np.float32).itemsize
    if size <= _IN_MEMORY_BYTES:
        yield np.zeros(shape, np.float32)
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        file.truncate(size)
        yield np.memmap(file, np.float32, "r+", shape=shape)
