"""A field in lockstep, from the input to the output's tiles."""

from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor

from napari_semsr.core import DeviceMemoryError, Job, Progress, Tile
from napari_semsr.inference.exact.buffers import NoRoomError, Room
from napari_semsr.inference.exact.plan import LockstepPlan, halved
from napari_semsr.inference.exact.statistics import Statistics
from napari_semsr.inference.exact.step import (
    FinishedTile,
    Lockstep,
    OutputAssembler,
    StepResult,
    by_output,
    needed,
)
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.tiles import Sink, TiledRun, TileResult

_STATISTICS = "statistics"
STRATEGY_KEY = "way"
Places = Sequence[tuple[int, int]]


def input_of(run: TiledRun, predictor: Predictor, tile: Tile) -> Tensor:
    """Make what the network is given for a tile.

    Gives (1, 1, H, W).
    """
    window, _ = run.plan.read(tile.window)
    scaled = torch.from_numpy(run.plan.scaling.normalise(window))
    return scaled[None, None].to(predictor.device)


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
    smaller = halved(predictor, found, core)
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
    wanted = needed(found.tiles, missing, reach)
    tiles = [tile for group in by_output(wanted, run.plan.tiles.core) for tile in group]
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
        lambda tile: input_of(run, predictor, tile),
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
