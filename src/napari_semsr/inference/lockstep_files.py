"""What tiles in lockstep leave for each other where several processes meet.

Every tile writes files of its own, and none is ever changed: a core at a point, and
what the tile keeps while it waits. A file gets its name when it is complete, so that a
step that was cut off, or done twice, leaves the same behind as one that was done once.
Files of one step are taken away when all tiles have made the next one.
"""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_semsr.core import Box, SemsrError, Tile, TilePlan
from napari_semsr.inference.exact import (
    SAVED_FORMS,
    PassState,
    Point,
    dense,
    scaled_box,
)

_PATIENCE_S = 30.0
_PAUSE_S = 0.05
torch.serialization.add_safe_globals(list(SAVED_FORMS))  # plain values, no code


def write_file(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file that has its name only when it is complete.

    Parameters
    ----------
    path : pathlib.Path
        Its name.
    write : callable
        Writes to the path that it is given.
    """
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _await(path: Path) -> Path:
    """Wait until a file of another machine can be seen."""
    until = time.monotonic() + _PATIENCE_S
    while not path.exists():
        if time.monotonic() > until:
            msg = (
                f"Workers must all see the folder of the output, and {path.name} of "
                f"another one does not appear in {path.parent.parent}: share it."
            )
            raise SemsrError(msg)
        time.sleep(_PAUSE_S)
        list(path.parent.parent.glob("*"))  # makes a network file system look anew
    return path


def _name(tile: tuple[int, int]) -> str:
    return f"{tile[0]}-{tile[1]}"


@dataclass(slots=True)
class FileShelf:
    """Tensors that one tile keeps while it waits, each in a file.

    Attributes
    ----------
    folder : pathlib.Path
        Where all workers meet.
    number : int
        The step that is being made.
    files : dict
        The file of each tensor, and the device that it was on.
    """

    folder: Path
    number: int
    files: dict[Any, tuple[str, str]] = field(default_factory=dict)

    def put(self, key: Any, value: Tensor) -> None:
        """Keep a tensor under a key, in place of an older one.

        Parameters
        ----------
        key : tuple
            Row and column of the tile, then the tensor's root.
        value : torch.Tensor
            What to keep.
        """
        tile, root = key
        name = f"keep-{self.number}/{_name(tile)}-{root[0]}-{root[1]}.pt"
        plain = dense(value.detach()).to("cpu")
        if plain.untyped_storage().nbytes() != plain.nbytes:
            plain = plain.clone()
        write_file(self.folder / name, lambda path: torch.save(plain, path))
        self.files[key] = name, str(value.device)

    def get(self, key: Any) -> Tensor:
        """Fetch a tensor; it stays on the shelf.

        Parameters
        ----------
        key : tuple
            As in `put`.

        Returns
        -------
        torch.Tensor
            As it was kept.
        """
        name, device = self.files[key]
        found: Tensor = torch.load(_await(self.folder / name), weights_only=True)
        return found.to(device)

    def __contains__(self, key: Any) -> bool:
        return key in self.files

    def drop(self, key: Any) -> None:
        """Forget a tensor; its file stays for a step that is made twice.

        Parameters
        ----------
        key : tuple
            As in `put`; an unknown one is ignored.
        """
        self.files.pop(key, None)


@dataclass(frozen=True, slots=True)
class FileLayer:
    """One tensor of the whole field, in one file for each tile's core.

    Attributes
    ----------
    folder : pathlib.Path
        Where all workers meet.
    number : int
        Number of the point.
    point : Point
        What is kept.
    plan : TilePlan
        The tiles.
    there : frozenset of tuple of int
        Rows and columns of the tiles that take part; elsewhere the tensor is 0.
    dtype : torch.dtype
        Type of the values.
    """

    folder: Path
    number: int
    point: Point
    plan: TilePlan
    there: frozenset[tuple[int, int]]
    dtype: torch.dtype

    def _path(self, index: tuple[int, int]) -> Path:
        return self.folder / f"layer-{self.number}" / _name(index)

    def write(self, tile: Tile, core: Tensor) -> None:
        """Write a tile's core.

        Parameters
        ----------
        tile : Tile
            Which.
        core : (1, C, Y, X) torch.Tensor
            Its values.
        """
        rows = core[0].permute(1, 2, 0).to("cpu").contiguous()
        raw = rows.view(torch.uint8).numpy()
        write_file(self._path(tile.index), lambda path: raw.tofile(path))

    def read(self, window: Box) -> Tensor:
        """Read a window.

        Parameters
        ----------
        window : Box
            In pixels of the input.

        Returns
        -------
        (1, C, Y, X) torch.Tensor
            On the CPU, in channels-last order.
        """
        box = scaled_box(window, self.point.ratio)
        rows = torch.zeros(*box.shape, self.point.channels, dtype=self.dtype)
        target = rows.view(torch.uint8).numpy()
        side = self.plan.core
        for row in range(window.y0 // side, -(-window.y1 // side)):
            for column in range(window.x0 // side, -(-window.x1 // side)):
                if (row, column) in self.there:
                    self._copy(self.plan.tile(row, column), box, target)
        return rows.permute(2, 0, 1)[None]

    def _copy(self, tile: Tile, box: Box, target: Any) -> None:
        """Copy what one tile knows of a window."""
        core = scaled_box(tile.core, self.point.ratio)
        common = Box(
            max(core.y0, box.y0),
            min(core.y1, box.y1),
            max(core.x0, box.x0),
            min(core.x1, box.x1),
        )
        shape = *core.shape, target.shape[2]
        stored = np.memmap(_await(self._path(tile.index)), np.uint8, "r", shape=shape)
        target[common.within(box).slices] = stored[common.within(core).slices]


def _state_path(folder: Path, number: int, tile: tuple[int, int]) -> Path:
    return folder / f"state-{number}" / f"{_name(tile)}.pt"


def write_state(
    shelf: FileShelf, state: PassState, dtype: torch.dtype | None, tile: Tile
) -> None:
    """Keep where a tile's pass was left.

    Parameters
    ----------
    shelf : FileShelf
        What it keeps.
    state : PassState
        What it has come by.
    dtype : torch.dtype or None
        Of the layer that it wrote to.
    tile : Tile
        Which.
    """
    kept = {
        "results": state.results,
        "window": state.window,
        "reached": state.reached,
        "files": shelf.files,
        "dtype": dtype,
    }
    path = _state_path(shelf.folder, shelf.number, tile.index)
    write_file(path, lambda place: torch.save(kept, place))


def read_state(
    folder: Path, number: int, tile: Tile
) -> tuple[FileShelf, PassState, torch.dtype | None]:
    """Take up a tile's pass where it was left.

    Parameters
    ----------
    folder : pathlib.Path
        Where all workers meet.
    number : int
        The step that is to be made now.
    tile : Tile
        Which.

    Returns
    -------
    FileShelf
        What it keeps.
    PassState
        What it has come by.
    torch.dtype or None
        Of the layer that it wrote to.
    """
    path = _await(_state_path(folder, number - 1, tile.index))
    kept = torch.load(path, weights_only=True)
    shelf = FileShelf(folder, number, kept["files"])
    state = PassState(kept["results"], kept["window"], kept["reached"])
    return shelf, state, kept["dtype"]
