"""One way out: fill a store block by block, finish it, give it its format and name."""

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from napari_semsr.core import IntPair, Job, PixelSize, Progress, WriteError
from napari_semsr.io.files import (
    filling_store,
    output_kind,
    renaming,
    scratch,
    stored_type,
    writing,
)
from napari_semsr.io.formats import read, write
from napari_semsr.io.zarr import OmeZarrStore, shapes_of, write_labels

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Written(Generic[T]):
    """An output that is whole.

    Attributes
    ----------
    told : object
        What the filling returned.
    shape : tuple of int
        Rows and columns.
    dtype : str
        Type of the grey values in the output.
    pixel_size_nm : tuple of float or None
        ``(y, x)``; None when unknown.
    """

    told: T
    shape: IntPair
    dtype: str
    pixel_size_nm: PixelSize | None


def write_blocks(
    target: Path,
    make: Callable[[Path], OmeZarrStore],
    fill: Callable[[OmeZarrStore], Job[T]],
    *,
    resumable: bool = False,
) -> Job[Written[T]]:
    """Write an image that is computed block by block.

    Parameters
    ----------
    target : pathlib.Path
        Where it goes, already checked; an existing image is replaced.
    make : callable
        Makes, or reopens, the store at the path that it is given.
    fill : callable
        Fills the store that it is given, as `OmeZarrStore.fill` does.
    resumable : bool, default=False
        Keep what is finished when the filling fails or is stopped, for a run that
        goes on with it: in the target if that is a store, else in a hidden store
        beside it. Otherwise a run that fails leaves nothing.

    Returns
    -------
    Written
        What was written, and what the filling told.

    Yields
    ------
    Progress
        Blocks, then the pyramid, then the conversion.

    Raises
    ------
    WriteError
        If the system refuses.
    """
    with _kept(target) if resumable else _hidden(target) as place:
        store = make(place)
        with _resuming(target, store) if resumable else nullcontext():
            told = yield from fill(store)
            if not store.complete:
                yield from store.finish()
        if output_kind(target) != "ome-zarr":
            yield Progress(0, 0, f"writing {target.name}")
            write(read(place), target, overwrite=True)
            write_labels(store, target)
    return Written(
        told=told,
        shape=shapes_of(store.level0)[0],
        dtype=stored_type(target, store.level0.dtype),
        pixel_size_nm=store.record.pixel_size_nm,
    )


@contextmanager
def _hidden(target: Path) -> Iterator[Path]:
    """Give a hidden store, which becomes the target if that is a store, else goes."""
    is_store = output_kind(target) == "ome-zarr"
    hidden = renaming(target) if is_store else scratch(target, ".ome.zarr")
    with writing(target), hidden as place:
        yield place


@contextmanager
def _kept(target: Path) -> Iterator[Path]:
    """Give the store that a later run can go on with, until the target is whole."""
    place = filling_store(target)
    yield place
    if place != target:
        shutil.rmtree(place)


@contextmanager
def _resuming(target: Path, store: OmeZarrStore) -> Iterator[None]:
    """Keep what is finished when a run fails, unless nothing is."""
    try:
        yield
    except Exception as error:
        if len(store.pending()) == store.done.size:
            shutil.rmtree(store.path, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in _FULL:
            msg = (
                f"{target} could not be written to its end ({error.strerror}): free "
                "some space, then run again with --resume; what is finished is kept."
            )
            raise WriteError(msg) from error
        raise
