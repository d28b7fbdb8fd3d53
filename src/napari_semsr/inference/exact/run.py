"""A field in lockstep, from the input to the output's tiles."""

import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor

from napari_semsr.core import DeviceMemoryError, Job, Progress, Tile
from napari_semsr.inference.exact.buffers import NoRoomError, Room
from napari_semsr.inference.exact.plan import LockstepPlan, halved
from napari_semsr.inference.exact.statistics import Statistics
from napari_semsr.inference.exact.step import (
    Landed,
    Landing,
    Lockstep,
    Stepped,
    by_output,
    needed,
)
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.tiles import Piece, Run, Sink

STATISTICS = "statistics"
WAY = "way"
Places = Sequence[tuple[int, int]]
Work = Generator[list[Piece] | Progress]


def input_of(run: Run, predictor: Predictor, tile: Tile) -> Tensor:
    """Make what the network is given for a tile.

    Parameters
    ----------
    run : Run
        The work.
    predictor : Predictor
        The network on its device.
    tile : Tile
        Which.

    Returns
    -------
    (1, 1, H, W) torch.Tensor
        Scaled grey values of its window, on the device.
    """
    window, _ = run.read(tile.window)
    scaled = torch.from_numpy(run.scaling.normalise(window))
    return scaled[None, None].to(predictor.device)


def with_smaller_tiles(
    attempt: Callable[[Places, LockstepPlan], Work],
    of: tuple[Run, Predictor, Sink],
    places: Places,
    found: LockstepPlan,
) -> Work:
    """Try again with smaller tiles, and for what is missing, where memory runs out.

    Parameters
    ----------
    attempt : callable
        Enhances places by a plan.
    of : tuple of Run, Predictor and Sink
        The work, the network, and the target, which keeps the size of tiles.
    places : sequence of tuple of int
        Rows and columns of the tiles to write.
    found : LockstepPlan
        How it is done at first.

    Yields
    ------
    Progress or list of Piece
        What the attempts yield; pieces say that tiles were made smaller.

    Raises
    ------
    DeviceMemoryError
        If memory does not even hold the smallest tile.
    """
    run, predictor, target = of
    left, chosen, note = list(places), found, None
    while left:
        short: DeviceMemoryError | None = None
        with closing(attempt(left, chosen)) as events:
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
        chosen = smaller_or_raise(predictor, chosen, run.plan.core, short)
        target.keep(WAY, {**(target.kept(WAY) or {}), "core": chosen.tiles.core})
        note = note_of(chosen)
        yield Progress(0, 0, note)


def run_lockstep(
    run: Run,
    predictor: Predictor,
    places: Places,
    found: LockstepPlan,
    target: Sink,
) -> Generator[list[Piece] | Progress]:
    """Enhance a field in lockstep and write it tile by tile.

    The statistics are kept with the target as soon as they are known; a run that is
    resumed takes them from there, and only computes what is missing and its
    surroundings. Where memory runs out, the run begins anew with smaller tiles.

    Parameters
    ----------
    run : Run
        The work; its plan says what is a chunk of the target.
    predictor : Predictor
        The network on its device.
    places : sequence of tuple of int
        Rows and columns of the tiles to write.
    found : LockstepPlan
        How it is done.
    target : Sink
        Where statistics are kept; what does not fit into memory lies in its folder.

    Yields
    ------
    Progress or list of Piece
        Steps between layers, then tiles that are in the target.

    Raises
    ------
    DeviceMemoryError
        If memory does not even hold the smallest tile.
    """
    yield from with_smaller_tiles(
        lambda left, chosen: _once(run, predictor, left, chosen, target),
        (run, predictor, target),
        places,
        found,
    )


def smaller_or_raise(
    predictor: Predictor, found: LockstepPlan, core: int, error: DeviceMemoryError
) -> LockstepPlan:
    """Plan smaller tiles, because memory ran out.

    Parameters
    ----------
    predictor : Predictor
        The network on its device.
    found : LockstepPlan
        What did not fit.
    core : int
        Side of the output's tiles.
    error : DeviceMemoryError
        What is raised when there is nothing smaller.

    Returns
    -------
    LockstepPlan
        With half as wide cores, or still smaller ones that divide the output's tiles.

    Raises
    ------
    DeviceMemoryError
        If tiles are as small as they may be.
    """
    smaller = halved(predictor, found, core)
    if smaller is None:
        side = found.tiles.core + 2 * found.tiles.halo
        msg = (
            f"{str(error).rstrip('.')}, although tiles in lockstep were cut to windows "
            f"of {side} px: free some memory, or use another device."
        )
        raise DeviceMemoryError(msg) from error
    return smaller


def note_of(found: LockstepPlan) -> str:
    """Say that tiles were cut.

    Parameters
    ----------
    found : LockstepPlan
        How the run goes on.

    Returns
    -------
    str
        For the user.
    """
    side = found.tiles.core
    return f"Memory was short: tiles in lockstep were cut to {side} px."


def _once(
    run: Run,
    predictor: Predictor,
    places: Places,
    found: LockstepPlan,
    target: Sink,
) -> Generator[list[Piece] | Progress]:
    """Enhance a field with tiles of one size."""
    known = target.kept(STATISTICS)
    statistics = None if known is None else Statistics.from_json(known)
    lockstep = _lockstep(run, predictor, found, statistics, target.folder)
    tiles = tiles_for(run, predictor, places, found, partial=statistics is not None)
    landing = Landing(run, set(places))
    live = sum(point.live for point in found.script.points)
    told = statistics is not None or not live
    with closing(lockstep.run(tiles)) as events:
        for event in events:
            if not told and len(lockstep.measured) == live:
                measured = Statistics(tuple(lockstep.measured), exact=True)
                target.keep(STATISTICS, measured.to_json())
                told = True
            pieces = landing.take(event) if isinstance(event, Landed) else []
            yield pieces or step_of(event, len(found.script.points))


def tiles_for(
    run: Run,
    predictor: Predictor,
    places: Places,
    found: LockstepPlan,
    *,
    partial: bool,
) -> list[Tile]:
    """Choose the tiles to run, those of one output tile side by side.

    Parameters
    ----------
    run : Run
        The work.
    predictor : Predictor
        The network on its device.
    places : sequence of tuple of int
        Rows and columns of the output's tiles that are missing.
    found : LockstepPlan
        How it is done.
    partial : bool
        Whether statistics are known, so that tiles far from the missing ones can be
        left out.

    Returns
    -------
    list of Tile
        In the order in which they are run.
    """
    missing = [run.plan.tile(*place).core for place in places]
    reach = predictor.probe.halo if partial else None
    tiles = needed(found.tiles, missing, reach)
    return [tile for group in by_output(tiles, run.plan.core) for tile in group]


def exact_statistics(
    run: Run, predictor: Predictor, found: LockstepPlan
) -> Job[Statistics]:
    """Measure the statistics of a whole field, and nothing else.

    Parameters
    ----------
    run : Run
        The work; nothing is written.
    predictor : Predictor
        The network on its device.
    found : LockstepPlan
        How it is done.

    Returns
    -------
    Statistics
        With them, tiles with their full halo are as in the whole field.

    Yields
    ------
    Progress
        Steps between layers.
    """
    points = len(found.script.points)
    lockstep = _lockstep(run, predictor, found, None, Path(tempfile.gettempdir()))
    for event in lockstep.run(found.tiles.tiles, until_end=False):
        yield step_of(event, points)
    return Statistics(tuple(lockstep.measured), exact=True)


def _lockstep(
    run: Run,
    predictor: Predictor,
    found: LockstepPlan,
    statistics: Statistics | None,
    folder: Path,
) -> Lockstep:
    """Set tiles up."""
    return Lockstep(
        predictor.network,
        found.script,
        found.tiles,
        lambda tile: input_of(run, predictor, tile),
        Room(found.memory_bytes, folder),
        predictor.device,
        computing=lambda: predictor.computing("tiles in lockstep"),
        known=statistics,
    )


def step_of(event: Stepped | Landed, points: int) -> Progress:
    """Say how far the tiles are.

    Parameters
    ----------
    event : Stepped or Landed
        What has happened.
    points : int
        Where tiles meet, all in all.

    Returns
    -------
    Progress
        For the user.
    """
    if isinstance(event, Landed):
        return Progress(0, 0, "Joining the parts of a tile")
    said = f"Layer {event.point} of {points}: tiles step together"
    return Progress(event.tile, event.tiles, said)
