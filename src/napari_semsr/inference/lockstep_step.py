"""One step of one tile in lockstep, made by any worker that sees the same folder.

A step reads all that it needs from files, and what it makes lies in files when it ends.
No worker thus has to stay, and a step that was lost with its worker is made again by
another one.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_semsr.core import Cancelled, SemsrError, Tile, TilePlan
from napari_semsr.inference.exact import (
    Answer,
    Landed,
    Landing,
    Script,
    Sums,
    TilePass,
    input_of,
    scaled_box,
    sums_of,
    write_script,
)
from napari_semsr.inference.lockstep_files import (
    FileLayer,
    FileShelf,
    read_state,
    write_state,
)
from napari_semsr.inference.tiles import Piece, Run, TileWorker, registered, run_whole
from napari_semsr.models import Moments, Refreshes

_Places = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where tiles of several workers meet.

    Attributes
    ----------
    folder : pathlib.Path
        Seen by all workers under this path.
    tiles : TilePlan
        The tiles that step together.
    there : frozenset of tuple of int
        Rows and columns of those that take part.
    refreshes : Refreshes
        Where they meet.
    smallest : int
        Smallest side that the network accepts.
    calls : tuple of int
        The network's calls at which they meet.
    measure : bool
        Whether statistics are measured; otherwise they are known.
    """

    folder: Path
    tiles: TilePlan
    there: frozenset[tuple[int, int]]
    refreshes: Refreshes
    smallest: int
    calls: tuple[int, ...]
    measure: bool


@dataclass(frozen=True, slots=True)
class Told:
    """What a step says to the process that asked for it.

    Attributes
    ----------
    index : tuple of int
        Row and column of the tile.
    sums : Sums or None
        What it adds to the statistics of the point.
    unused : tuple of str
        Files of the folder that no later step of this tile reads.
    """

    index: tuple[int, int]
    sums: Sums | None
    unused: tuple[str, ...]


@dataclass(slots=True)
class Parcel:
    """Takes the place of a target that lies in the memory of another process.

    Attributes
    ----------
    dtype : numpy.dtype
        Type of the target.
    parts : list of tuple
        What was to be written, and where.
    """

    dtype: np.dtype[Any]
    parts: list[tuple[tuple[slice, slice], NDArray[Any]]] = field(default_factory=list)

    def __setitem__(self, index: tuple[slice, slice], values: NDArray[Any]) -> None:
        self.parts.append((index, np.array(values)))


@dataclass(frozen=True, slots=True)
class Ended:
    """What came to the end in one task.

    Attributes
    ----------
    pieces : list of Piece
        Tiles of the output.
    parcel : Parcel or None
        Their pixels; None where the worker has written them.
    """

    pieces: list[Piece]
    parcel: Parcel | None

    def unpack(self, target: Any) -> list[Piece]:
        """Write what the worker could not.

        Parameters
        ----------
        target : array
            What the output is written into.

        Returns
        -------
        list of Piece
            Tiles that are in the target.
        """
        if self.parcel is not None:
            for index, values in self.parcel.parts:
                target[index] = values
        return self.pieces


def _addressed(run: Run) -> tuple[Run, Parcel | None]:
    """Collect what is written where the target is not at hand."""
    if not isinstance(run.target, Parcel):
        return run, None
    parcel = Parcel(run.target.dtype)
    return replace(run, target=parcel), parcel


class Stepper:
    """Makes steps in one process.

    Parameters
    ----------
    worker : TileWorker
        The run and the network of this process.
    meeting : Meeting
        Where tiles meet.
    """

    def __init__(self, worker: TileWorker, meeting: Meeting) -> None:
        self.worker, self.meeting = worker, meeting
        self._script: Script | None = None
        self._writing = threading.Lock()

    @property
    def script(self) -> Script:
        """The network's calls; found once in each process."""
        with self._writing:
            if self._script is None:
                self._script = self._written()
            return self._script

    def _written(self) -> Script:
        predictor, meeting = self.worker.predictor, self.meeting
        found = write_script(
            predictor.source,
            meeting.refreshes,
            stride=meeting.tiles.stride,
            smallest=meeting.smallest,
        )
        if found is None or tuple(p.call for p in found.points) != meeting.calls:
            msg = (
                "Workers must run the network as this process does, and one makes "
                "other calls: give all of them the same version of torch."
            )
            raise SemsrError(msg)
        return found

    def step(
        self, number: int, index: tuple[int, int], moments: Moments | None
    ) -> Told:
        """Bring a tile from one point to the next.

        Parameters
        ----------
        number : int
            Points that it has passed.
        index : tuple of int
            Its row and column.
        moments : Moments or None
            Statistics of the point where it waits.

        Returns
        -------
        Told
            What it adds to the statistics of the point that it comes to.
        """
        tile, point = self.meeting.tiles.tile(*index), self.script.points[number]
        with self.worker.predictor.computing("a tile in lockstep"):
            made, walk, shelf, before = self._advance(number, tile, moments)
            core = made[(..., *scaled_box(tile.inner, point.ratio).slices)]
            measured = point.live and self.meeting.measure
            sums = sums_of(core) if measured else None
            if point.kind != "pool":
                self._layer(number, made.dtype).write(tile, core)
            write_state(shelf, walk.state, made.dtype, tile)
        after = {name for name, _ in shelf.files.values()}
        return Told(index, sums, tuple(sorted(before - after)))

    def land(self, tiles: _Places, places: _Places, moments: Moments | None) -> Ended:
        """Bring tiles to the end, and write what of the output they make.

        Parameters
        ----------
        tiles : sequence of tuple of int
            Rows and columns of tiles that make whole tiles of the output.
        places : sequence of tuple of int
            Those of the output's tiles that are wanted.
        moments : Moments or None
            Statistics of the last point.

        Returns
        -------
        Ended
            Tiles of the output.
        """
        run, parcel = _addressed(self.worker.run)
        landing = Landing(run, set(places))
        pieces: list[Piece] = []
        for index in tiles:
            tile = self.meeting.tiles.tile(*index)
            with self.worker.predictor.computing("a tile in lockstep"):
                made, _, _, _ = self._advance(len(self.meeting.calls), tile, moments)
            pieces += landing.take(Landed(tile, made))
        return Ended(pieces, parcel)

    def _advance(
        self, number: int, tile: Tile, moments: Moments | None
    ) -> tuple[Tensor, TilePass, FileShelf, set[str]]:
        """Run a tile up to a point, or to the end."""
        predictor, folder = self.worker.predictor, self.meeting.folder
        if not number:
            shelf = FileShelf(folder, 0)
            walk = TilePass(predictor.network, self.script, shelf, tile.index)
            return (
                walk.begin(input_of(self.worker.run, predictor, tile)),
                walk,
                shelf,
                set(),
            )
        shelf, state, dtype = read_state(folder, number, tile)
        before = {name for name, _ in shelf.files.values()}
        walk = TilePass(predictor.network, self.script, shelf, tile.index)
        walk.take_up(state)
        window = None
        if self.script.points[number - 1].kind != "pool":
            layer = self._layer(number - 1, dtype or torch.float32)
            window = layer.read(tile.window).to(predictor.device)
        if moments is not None:
            here = predictor.device
            moments = Moments(
                moments.count, moments.mean.to(here), moments.variance.to(here)
            )
        return walk.proceed(Answer(window, moments)), walk, shelf, before

    def _layer(self, number: int, dtype: torch.dtype) -> FileLayer:
        meeting, point = self.meeting, self.script.points[number]
        return FileLayer(
            meeting.folder, number, point, meeting.tiles, meeting.there, dtype
        )


_steppers: dict[str, Stepper] = {}


def join(token: str, meeting: Meeting) -> None:
    """Let the worker of a run in this process take part.

    Parameters
    ----------
    token : str
        Name of the run, which is registered.
    meeting : Meeting
        Where tiles meet.
    """
    _steppers[token] = Stepper(registered(token), meeting)


def leave(token: str) -> None:
    """Take no more part.

    Parameters
    ----------
    token : str
        Name of the run; an unknown one is ignored.
    """
    _steppers.pop(token, None)


def _stepper(token: str) -> Stepper:
    """Find what takes part in this process."""
    found = _steppers.get(token)
    if found is None:
        msg = "The run was stopped; finished tiles are kept."
        raise Cancelled(msg)
    return found


def make_step(
    token: str, number: int, index: tuple[int, int], moments: Moments | None
) -> Told:
    """Bring a tile from one point to the next: the task of a worker.

    Parameters
    ----------
    token : str
        Name of the run.
    number : int
        Points that the tile has passed.
    index : tuple of int
        Its row and column.
    moments : Moments or None
        Statistics of the point where it waits.

    Returns
    -------
    Told
        What it adds to the statistics of the point that it comes to.

    Raises
    ------
    Cancelled
        If the run is no longer registered.
    """
    stepper = _stepper(token)
    with stepper.worker.working():
        return stepper.step(number, index, moments)


def make_end(
    token: str, tiles: _Places, places: _Places, moments: Moments | None
) -> Ended:
    """Bring tiles to the end and write them: the task of a worker.

    Parameters
    ----------
    token : str
        Name of the run.
    tiles : sequence of tuple of int
        Rows and columns of tiles that make whole tiles of the output.
    places : sequence of tuple of int
        Those of the output's tiles that are wanted.
    moments : Moments or None
        Statistics of the last point.

    Returns
    -------
    Ended
        Tiles of the output.

    Raises
    ------
    Cancelled
        If the run is no longer registered.
    """
    stepper = _stepper(token)
    with stepper.worker.working():
        return stepper.land(tiles, places, moments)


def make_whole(token: str, places: _Places) -> Ended:
    """Enhance a field in one pass and write it: the task of a worker.

    Parameters
    ----------
    token : str
        Name of the run.
    places : sequence of tuple of int
        Rows and columns of the output's tiles.

    Returns
    -------
    Ended
        Tiles of the output.

    Raises
    ------
    Cancelled
        If the run is no longer registered.
    """
    worker = registered(token)
    with worker.working():
        run, parcel = _addressed(worker.run)
        groups = run_whole(run, worker.predictor, places)
        return Ended([piece for group in groups for piece in group], parcel)
