"""A field in lockstep, from the input to the output's tiles."""

import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_semsr.core.errors import CheckpointError
from napari_semsr.core.intensity import to_dtype
from napari_semsr.core.progress import Job, Progress
from napari_semsr.core.tiling import Tile
from napari_semsr.inference.lockstep import Landed, Lockstep, Stepped
from napari_semsr.inference.lockstep_plan import LockstepPlan
from napari_semsr.inference.lockstep_storage import Room
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.scaling import set_missing
from napari_semsr.inference.seams import edges_of, sample_of
from napari_semsr.inference.sinks import Sink
from napari_semsr.inference.statistics import Statistics
from napari_semsr.inference.tasks import Piece, Run

__all__ = ["STATISTICS", "exact_statistics", "input_of", "run_lockstep"]

STATISTICS = "statistics"
Places = Sequence[tuple[int, int]]


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
    surroundings.

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
    """
    if not places:
        return
    known = target.kept(STATISTICS)
    statistics = None if known is None else Statistics.from_json(known)
    lockstep = _lockstep(run, predictor, found, statistics, target.folder)
    needed = _needed(run, predictor, places, found, partial=statistics is not None)
    live = sum(point.live for point in found.script.points)
    told = statistics is not None or not live
    for event in lockstep.run(needed):
        if not told and len(lockstep.measured) == live:
            target.keep(
                STATISTICS, Statistics(tuple(lockstep.measured), exact=True).to_json()
            )
            told = True
        if isinstance(event, Landed):
            yield _land(run, predictor, event, places)
        else:
            yield _step(event)


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
    lockstep = _lockstep(run, predictor, found, None, Path(tempfile.gettempdir()))
    for event in lockstep.run(found.tiles.tiles, until_end=False):
        if not isinstance(event, Landed):
            yield _step(event)
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


def _step(event: Stepped) -> Progress:
    """Say how far the tiles are."""
    said = f"Layer {event.point} of {event.points}: tiles step together"
    return Progress(event.tile, event.tiles, said)


def _needed(
    run: Run,
    predictor: Predictor,
    places: Places,
    found: LockstepPlan,
    *,
    partial: bool,
) -> list[Tile]:
    """Choose the tiles to run: all, or the missing ones and what they look at."""
    reach = predictor.probe.halo
    if not partial or reach is None:
        return list(found.tiles)
    missing = [run.plan.tile(*place).core for place in places]
    return [
        tile
        for tile in found.tiles
        if any(
            tile.core.y0 < m.y1 + reach
            and m.y0 - reach < tile.core.y1
            and tile.core.x0 < m.x1 + reach
            and m.x0 - reach < tile.core.x1
            for m in missing
        )
    ]


def _plane(run: Run, predictor: Predictor, event: Landed) -> NDArray[np.float32]:
    """Bring an output back to grey values."""
    scale = run.loaded.card.scale
    plane = event.output[0, 0].to("cpu", torch.float32).numpy().copy()
    rows, columns = event.tile.window.scaled(scale).shape
    if plane.shape != (rows, columns):
        msg = (
            f"By its card the model {predictor.card.name} makes {(rows, columns)} of "
            f"{event.tile.window.shape} px, got {plane.shape}; correct its scale."
        )
        raise CheckpointError(msg)
    restored: NDArray[np.float32] = run.scaling.restore(plane)
    if np.dtype(run.data.dtype).kind == "f":
        set_missing(restored, run.read(event.tile.window)[1], scale)
    return restored


def _land(run: Run, predictor: Predictor, event: Landed, places: Places) -> list[Piece]:
    """Write the output's tiles that lie in one tile of the run."""
    result = _plane(run, predictor, event)
    scale, side = run.loaded.card.scale, run.plan.core
    outer, pieces = event.tile.core, []
    wanted: set[Any] = set(places)
    rows, columns = run.plan.grid
    for row in range(outer.y0 // side, min(-(-outer.y1 // side), rows)):
        for column in range(outer.x0 // side, min(-(-outer.x1 // side), columns)):
            if (row, column) not in wanted:
                continue
            core = run.plan.tile(row, column).core
            inner = core.within(event.tile.window).scaled(scale)
            converted, clipped = to_dtype(result[inner.slices], run.target.dtype)
            run.target[core.scaled(scale).slices] = converted
            outside = {
                "above": core.y0 == outer.y0,
                "below": core.y1 == outer.y1,
                "left": core.x0 == outer.x0,
                "right": core.x1 == outer.x1,
            }
            edges = edges_of(result, inner)
            kept = {name: edge for name, edge in edges.items() if outside[name]}
            sample = sample_of(result[inner.slices])
            pieces.append(Piece((row, column), clipped, kept, sample))
    return pieces
