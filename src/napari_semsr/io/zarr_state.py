"""What a store that is being filled says of itself, without opening it for writing."""

from pathlib import Path
from typing import Any

import numpy as np

from napari_semsr.io.zarr_store import ATTRIBUTE, DONE

__all__ = ["done_of", "noted"]

_UNREADABLE = (OSError, KeyError, ValueError, TypeError)


def noted(path: Path) -> dict[str, Any]:
    """Read everything that was noted in a store, complete or not.

    Parameters
    ----------
    path : pathlib.Path
        Folder of the store.

    Returns
    -------
    dict
        The store's own attributes; empty where there is no store of ours.
    """
    import zarr

    try:
        found = zarr.open_group(path, mode="r").attrs.get(ATTRIBUTE)
    except _UNREADABLE:
        return {}
    return dict(found) if isinstance(found, dict) else {}


def done_of(path: Path) -> tuple[int, int] | None:
    """Count the write units of a store that is being filled.

    Parameters
    ----------
    path : pathlib.Path
        Folder of the store.

    Returns
    -------
    tuple of int or None
        Finished ones, and all; None where there is no such store.
    """
    import zarr

    try:
        marks = np.asarray(zarr.open_array(path / DONE, mode="r")[:])
    except _UNREADABLE:
        return None
    return int(np.count_nonzero(marks)), int(marks.size)
