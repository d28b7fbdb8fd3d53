"""A field in lockstep, from the input to the output's tiles."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from napari_semsr.core import (
    Box,
    CheckpointError,
    DeviceMemoryError,
    Float32Array,
    IntPair,
    Job,
    Progress,
    Tile,
    TilePlan,
)
from napari_semsr.inference.exact.buffers import NoRoomError, Room
from napari_semsr.inference.exact.plan import LockstepPlan
from napari_semsr.inference.exact.statistics import Statistics
from napari_semsr.inference.exact.step import (
    FinishedTile,
    Lockstep,
    StepResult,
)
from napari_semsr.inference.network_input import set_missing
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.tiles import Sink, TiledRun, TileResult, edges_of

_STATISTICS = "statistics"
STRATEGY_KEY = "way"
Places = Sequence[tuple[int, int]]


def _by_output(tiles: Sequence[Tile], side: int) -> list[list[Tile]]:
    """Put the tiles together that make one tile of the output."""
    found: dict[IntPair, list[Tile]] = {}
    for tile in tiles:
        found.setdefault((tile.core.y0 // side, tile.core.x0 // side), []).append(tile)
    return list(found.values())


def _needed(tiles: TilePlan, missing: Sequence[Box], reach: int | None) -> list[Tile]:
    """Choose the tiles to run: all, or the missing ones and what they look at."""
    if reach is None:
        return list(tiles)
    wanted = [box.grow(reach) for box in missing]
    return [t for t in tiles if any(t.core.overlap(box) for box in wanted)]


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
        rows, columns = event.tile.window.scaled(card.scale).shape
        if plane.shape != (rows, columns):
            msg = (
                f"By its card the model {card.name} makes {(rows, columns)} of "
                f"{event.tile.window.shape} px, got {plane.shape}; correct its scale."
            )
            raise CheckpointError(msg)
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
        return self.run.write(self._place(core), result[inner.slices], kept)

    def _part(self, tile: Tile, result: Float32Array, core: Box) -> list[TileResult]:
        """Put a part beside the others of an output's tile; write it when complete."""
        scale = self.run.plan.loaded.card.scale
        place = self._place(core)
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

    def _place(self, core: Box) -> IntPair:
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
        note = _note_of(chosen)
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


def _note_of(found: LockstepPlan) -> str:
    side = found.tiles.core
    return f"Memory was short: tiles in lockstep were cut to {side} px."


def _once(
    run: TiledRun,
    predictor: Predictor,
    places: Places,
    found: LockstepPlan,
    target: Sink,
) -> Generator[list[TileResult] | Progress]:
    """Enhance a field with tiles of one size."""
    known = target.kept(_STATISTICS)
    statistics = None if known is None else Statistics.from_json(known)
    lockstep = _lockstep(run, predictor, found, statistics, target.folder)
    missing = [run.plan.tiles.tile(*place).core for place in places]
    reach = None if statistics is None else predictor.probe.halo
    wanted = _needed(found.tiles, missing, reach)
    tiles = [
        tile for group in _by_output(wanted, run.plan.tiles.core) for tile in group
    ]
    landing = OutputAssembler(run, set(places))
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
        yield Progress(0, 0, _note_of(chosen))
    measured = Statistics(tuple(lockstep.measured), exact=True)
    target.keep(_STATISTICS, measured.to_json())
    return measured


def _lockstep(
    run: TiledRun,
    predictor: Predictor,
    found: LockstepPlan,
    statistics: Statistics | None,
    folder: Path,
) -> Lockstep:
    """Set tiles up."""
    return Lockstep(
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
    """Say how far the tiles are."""
    if isinstance(event, FinishedTile):
        return Progress(0, 0, "Joining the parts of a tile")
    said = f"Layer {event.point} of {points}: tiles step together"
    return Progress(event.tile, event.tiles, said)
