"""Where tiles go: an array in memory, or a store that remembers what is done."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from napari_semsr.core import ShapeError, TilePlan, WriteError
from napari_semsr.inference.layout import OutputPlan
from napari_semsr.inference.tiles.worker import EnhancePlan
from napari_semsr.io import OmeZarrStore

_IDENTITY = "run"
Places = list[tuple[int, int]]


class Sink(Protocol):
    """Where tiles go, and what is remembered of them."""

    @property
    def array(self) -> Any:
        """What cores are written into."""

    @property
    def shared(self) -> Any:
        """What other processes write cores into."""

    @property
    def folder(self) -> Path:
        """Where a run may put large files that it needs for a while."""

    def prepare(self, plan: EnhancePlan) -> None:
        """Refuse a target that does not fit the run.

        Parameters
        ----------
        plan : EnhancePlan
            What is to be written.
        """

    def pending(self, plan: TilePlan) -> Places:
        """List the tiles that are not done.

        Parameters
        ----------
        plan : TilePlan
            The tiles.

        Returns
        -------
        sequence of tuple of int
            ``(row, column)`` in the grid of tiles.
        """

    def keep(self, key: str, value: Any) -> None:
        """Keep what a resumed run needs.

        Parameters
        ----------
        key : str
            Name of the value.
        value : object
            JSON types.
        """

    def kept(self, key: str) -> Any:
        """Return what an earlier run kept.

        Parameters
        ----------
        key : str
            Name of the value.

        Returns
        -------
        object
            None when nothing was kept.
        """

    def finish_tile(self, index: tuple[int, int]) -> None:
        """Remember that a tile is written.

        Parameters
        ----------
        index : tuple of int
            ``(row, column)`` in the grid of tiles.
        """


@dataclass(frozen=True, slots=True)
class ArraySink:
    """A result in memory.

    Attributes
    ----------
    array : (Y, X) numpy.ndarray
        What cores are written into.
    """

    array: NDArray[Any]

    @property
    def shared(self) -> Any:
        """The array, which only this process can write into."""
        return self.array

    @property
    def folder(self) -> Path:
        """Where a run may put large files that it needs for a while."""
        return Path(tempfile.gettempdir())

    def prepare(self, plan: EnhancePlan) -> None:
        """Refuse a target that does not fit the run.

        Parameters
        ----------
        plan : EnhancePlan
            What is to be written.

        Raises
        ------
        ShapeError
            If the array has another shape than the result.
        """
        _check_shape(self.array.shape, plan.output)

    def pending(self, plan: TilePlan) -> Places:
        """List all tiles.

        Parameters
        ----------
        plan : TilePlan
            The tiles.

        Returns
        -------
        list of tuple of int
            Rows and columns.
        """
        rows, columns = plan.grid
        return [(row, column) for row in range(rows) for column in range(columns)]

    def keep(self, key: str, value: Any) -> None:
        """Do nothing: nothing outlives this process.

        Parameters
        ----------
        key : str
            Name of the value.
        value : object
            Ignored.
        """

    def kept(self, key: str) -> None:
        """Return nothing.

        Parameters
        ----------
        key : str
            Name of the value.
        """

    def finish_tile(self, index: tuple[int, int]) -> None:
        """Do nothing: nothing outlives this process.

        Parameters
        ----------
        index : tuple of int
            Row and column of the tile.
        """


@dataclass(frozen=True, slots=True)
class StoreSink:
    """A result on disk, one chunk to a tile.

    Attributes
    ----------
    store : OmeZarrStore
        The store.
    """

    store: OmeZarrStore

    @property
    def array(self) -> Any:
        """The finest level."""
        return self.store.level0

    @property
    def shared(self) -> Any:
        """The finest level."""
        return self.store.level0

    @property
    def folder(self) -> Path:
        """Where a run may put large files that it needs for a while."""
        return self.store.path.resolve().parent

    def prepare(self, plan: EnhancePlan) -> None:
        """Refuse a store that does not fit the run, or was begun by another one.

        Parameters
        ----------
        plan : EnhancePlan
            What is to be written.

        Raises
        ------
        ShapeError
            If shape or chunks are not those of the plan.
        WriteError
            If the store was begun with another input, model or option.
        """
        _check_shape(self.store.level0.shape, plan.output)
        if tuple(self.store.unit) != plan.output.unit:
            msg = (
                f"Chunks must be the tiles, {plan.output.unit} px, and those of "
                f"{self.store.path.name} are {tuple(self.store.unit)}: make the store "
                "with the same tile option."
            )
            raise ShapeError(msg)
        identity = plan.identity()
        before = self.store.notes().get(_IDENTITY)
        if before is None:
            self.store.note(_IDENTITY, identity)
            return
        changed = [k for k in identity if before.get(k) != identity[k]]
        if changed:
            msg = (
                f"{self.store.path.name} can only be resumed as it was begun, and the "
                f"{' and the '.join(changed)} changed: use --overwrite to start anew."
            )
            raise WriteError(msg)

    def pending(self, plan: TilePlan) -> Places:
        """List the tiles without a mark.

        Parameters
        ----------
        plan : TilePlan
            The tiles.

        Returns
        -------
        list of tuple of int
            Rows and columns.
        """
        return self.store.pending()

    def keep(self, key: str, value: Any) -> None:
        """Keep a value in the store's own attributes.

        Parameters
        ----------
        key : str
            Name of the value.
        value : object
            JSON types.
        """
        self.store.note(key, value)

    def kept(self, key: str) -> Any:
        """Read a value from the store's own attributes.

        Parameters
        ----------
        key : str
            Name of the value.

        Returns
        -------
        object
            None when nothing was kept.
        """
        return self.store.notes().get(key)

    def finish_tile(self, index: tuple[int, int]) -> None:
        """Mark a tile whose pixels are on disk.

        Parameters
        ----------
        index : tuple of int
            Row and column of the tile.
        """
        self.store.mark_done(*index)


def _check_shape(found: tuple[int, ...], output: OutputPlan) -> None:
    """Refuse a target of another shape than the result."""
    wanted = output.frame.shape
    if tuple(found) != wanted:
        msg = f"The output must have shape {wanted}, got {tuple(found)}."
        raise ShapeError(msg)
