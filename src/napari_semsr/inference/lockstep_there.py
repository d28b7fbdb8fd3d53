"""A field in lockstep on a dask cluster: steps are tasks, files are where tiles meet.

This process hands out the steps, pools what tiles add to the statistics, and waits at
every point until all have come. What tiles leave for each other lies in a folder beside
the output, which is taken away at the end.
"""

import shutil
import tempfile
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from napari_semsr.core import Progress, Tile
from napari_semsr.inference.exact import (
    STATISTICS,
    LockstepPlan,
    Room,
    Statistics,
    Sums,
    by_output,
    halo_and_script,
    pooled,
    tiles_for,
    with_smaller_tiles,
)
from napari_semsr.inference.lockstep_step import (
    Meeting,
    Parcel,
    Told,
    make_end,
    make_step,
    make_whole,
)
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.tiles import Cluster, Piece, Run, Sink, joined
from napari_semsr.models import Moments

_FOLDER = "layers"
_CPU = torch.device("cpu")
_Places = Sequence[tuple[int, int]]
_Work = Generator[list[Piece] | Progress]


def run_whole_there(
    run: Run, places: _Places, scheduler: str
) -> Generator[list[Piece]]:
    """Enhance a field in one pass on a worker of a cluster.

    Parameters
    ----------
    run : Run
        The work.
    places : sequence of tuple of int
        Rows and columns of the tiles to write.
    scheduler : str
        Address of a running cluster.

    Yields
    ------
    list of Piece
        All tiles, which are in the target.
    """
    if places:
        with joined(_sent(run), scheduler) as cluster:
            call = "whole", make_whole, (cluster.token, list(places))
            for ended in cluster.results([call]):
                yield ended.unpack(run.target)


def _sent(run: Run) -> Run:
    """Leave a target that lies in memory behind."""
    if not isinstance(run.target, np.ndarray):
        return run
    return replace(run, target=Parcel(run.target.dtype))


def run_lockstep_there(
    run: Run,
    predictor: Predictor,
    places: _Places,
    found: LockstepPlan,
    target: Sink,
    scheduler: str,
) -> _Work:
    """Enhance a field in lockstep on a dask cluster and write it tile by tile.

    Parameters
    ----------
    run : Run
        The work; its plan says what is a chunk of the target.
    predictor : Predictor
        The network in this process; workers make their own.
    places : sequence of tuple of int
        Rows and columns of the tiles to write.
    found : LockstepPlan
        How it is done.
    target : Sink
        Where statistics are kept; workers meet in its folder.
    scheduler : str
        Address of a running cluster.

    Yields
    ------
    Progress or list of Piece
        Steps between layers, then tiles that are in the target.

    Raises
    ------
    OptionError
        If no cluster answers at the address.
    DeviceMemoryError
        If a worker's memory does not even hold the smallest tile.
    """
    yield from with_smaller_tiles(
        lambda left, chosen: _once(run, predictor, left, chosen, target, scheduler),
        (run, predictor, target),
        places,
        found,
    )


def _once(
    run: Run,
    predictor: Predictor,
    places: _Places,
    found: LockstepPlan,
    target: Sink,
    scheduler: str,
) -> _Work:
    """Enhance a field with tiles of one size."""
    kept = target.kept(STATISTICS)
    known = None if kept is None else Statistics.from_json(kept)
    tiles = tiles_for(run, predictor, places, found, partial=known is not None)
    measured = halo_and_script(predictor)
    if measured is None:
        return
    with ExitStack() as ending:
        folder = _new_folder(target, found)
        ending.callback(shutil.rmtree, folder, ignore_errors=True)
        meeting = Meeting(
            folder=folder,
            tiles=found.tiles,
            there=frozenset(tile.index for tile in tiles),
            refreshes=measured[0],
            smallest=predictor.probe.smallest,
            calls=tuple(point.call for point in found.script.points),
            measure=known is None,
        )
        cluster = ending.enter_context(joined(_sent(run), scheduler, meeting))
        walk = _Walk(run, found, tiles, target, cluster, folder, known)
        yield from walk.run(places)


def _new_folder(target: Sink, found: LockstepPlan) -> Path:
    """Make the folder where workers meet, and take away that of a run that died."""
    before = target.kept(_FOLDER)
    if isinstance(before, str) and Path(before).name == before:
        shutil.rmtree(target.folder / before, ignore_errors=True)
    Room(0, target.folder).take(found.room_bytes)  # refuses what does not fit
    folder = Path(tempfile.mkdtemp(prefix=".semsr-layers-", dir=target.folder))
    target.keep(_FOLDER, folder.name)
    return folder


@dataclass(slots=True)
class _Walk:
    """All tiles on their way, point by point."""

    run_: Run
    found: LockstepPlan
    tiles: list[Tile]
    target: Sink
    cluster: Cluster
    folder: Path
    known: Statistics | None
    _measured: list[Moments] = field(default_factory=list)

    def run(self, places: _Places) -> _Work:
        """Take all tiles to the end."""
        points, total = self.found.script.points, len(self.tiles)
        moments: Moments | None = None
        for number, point in enumerate(points):
            sums: dict[tuple[int, int], Sums] = {}
            unused: list[str] = []
            calls = (
                (
                    f"step-{number}-{tile.index[0]}-{tile.index[1]}",
                    make_step,
                    (self.cluster.token, number, tile.index, moments),
                )
                for tile in self.tiles
            )
            with closing(self.cluster.results(calls)) as steps:
                for count, told in enumerate(steps, 1):
                    self._take(told, sums, unused)
                    said = f"Layer {number + 1} of {len(points)}: tiles step together"
                    yield Progress(count, total, said)
            self._forget(number, unused)
            moments = self._moments(sums) if point.live else None
        yield from self._land(places, moments)

    @staticmethod
    def _take(told: Told, sums: dict[tuple[int, int], Sums], unused: list[str]) -> None:
        """Count one tile."""
        if told.sums is not None:
            sums[told.index] = told.sums
        unused.extend(told.unused)

    def _moments(self, sums: dict[tuple[int, int], Sums]) -> Moments:
        """Pool the statistics of a point, as one process does it."""
        if self.known is not None:
            found = self.known.moments[len(self._measured)]
        else:
            found = pooled([sums[index] for index in sorted(sums)], _CPU)
        self._measured.append(found)
        live = sum(point.live for point in self.found.script.points)
        if self.known is None and len(self._measured) == live:
            made = Statistics(tuple(self._measured), exact=True)
            self.target.keep(STATISTICS, made.to_json())
        return found

    def _forget(self, number: int, unused: Iterable[str]) -> None:
        """Take away what no tile reads any more."""
        for name in unused:
            (self.folder / name).unlink(missing_ok=True)
        for name in (f"layer-{number - 1}", f"state-{number - 1}"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def _land(self, places: _Places, moments: Moments | None) -> _Work:
        """Bring tiles to the end, those of one output tile in one task."""
        side = self.run_.plan.core
        wanted = set(places)
        groups = []
        for group in by_output(self.tiles, side):
            made = {place for tile in group for place in _outputs(tile, side)}
            if made & wanted:
                groups.append(([t.index for t in group], sorted(made & wanted)))
        calls = (
            (
                f"end-{tiles[0][0]}-{tiles[0][1]}",
                make_end,
                (self.cluster.token, tiles, made, moments),
            )
            for tiles, made in groups
        )
        with closing(self.cluster.results(calls)) as pieces:
            for ended in pieces:
                yield ended.unpack(self.run_.target)


def _outputs(tile: Tile, side: int) -> Iterable[tuple[int, int]]:
    """Rows and columns of the output's tiles that a tile lies over."""
    core = tile.core
    for row in range(core.y0 // side, -(-core.y1 // side)):
        for column in range(core.x0 // side, -(-core.x1 // side)):
            yield row, column
