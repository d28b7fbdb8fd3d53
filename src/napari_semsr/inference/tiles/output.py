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
        """Refuse a target that does not fit the run."""

    def pending(self, plan: TilePlan) -> Places:
        """List the tiles that are not done."""

    def keep(self, key: str, value: Any) -> None:
        """Keep what a resumed run needs."""

    def kept(self, key: str) -> Any:
        """Return what an earlier run kept."""

    def finish_tile(self, index: tuple[int, int]) -> None:
        """Remember that a tile is written."""


@dataclass(frozen=True, slots=True)
class ArraySink:
    """A result in memory."""

    array: NDArray[Any]  # (Y, X) What cores are written into

    @property
    def shared(self) -> Any:
        """The array, which only this process can write into."""
        return self.array

    @property
    def folder(self) -> Path:
        """Where a run may put large files that it needs for a while."""
        return Path(tempfile.gettempdir())

    def prepare(self, plan: EnhancePlan) -> None:
        """Refuse a target that does not fit the run."""
        _check_shape(self.array.shape, plan.output)

    def pending(self, plan: TilePlan) -> Places:
        """List all tiles."""
        rows, columns = plan.grid
        return [(row, column) for row in range(rows) for column in range(columns)]

    def keep(self, key: str, value: Any) -> None:
        """Do nothing: nothing outlives this process."""

    def kept(self, key: str) -> None:
        """Return nothing."""

    def finish_tile(self, index: tuple[int, int]) -> None:
        """Do nothing: nothing outlives this process."""


@dataclass(frozen=True, slots=True)
class StoreSink:
    """A result on disk, one chunk to a tile."""

    store: OmeZarrStore  # The store

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
        """Refuse a store that does not fit the run, or was begun by another one."""
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
        """List the tiles without a mark."""
        return self.store.pending()

    def keep(self, key: str, value: Any) -> None:
        """Keep a value in the store's own attributes."""
        self.store.note(key, value)

    def kept(self, key: str) -> Any:
        """Read a value from the store's own attributes."""
        return self.store.notes().get(key)

    def finish_tile(self, index: tuple[int, int]) -> None:
        """Mark a tile whose pixels are on disk."""
        self.store.mark_done(*index)


def _check_shape(found: tuple[int, ...], output: OutputPlan) -> None:
    """Refuse a target of another shape than the result."""
    wanted = output.frame.shape
    if tuple(found) != wanted:
        msg = f"The output must have shape {wanted}, got {tuple(found)}."
        raise ShapeError(msg)
