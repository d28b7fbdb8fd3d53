"""A whole image to OME-Zarr 0.5, block by block."""

import uuid
from pathlib import Path

import numpy as np

from napari_semsr.core.errors import WriteError
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.io.record import record_of
from napari_semsr.io.targets import remove_target
from napari_semsr.io.zarr_store import create_store

__all__ = ["write"]

_CHUNK = 512
_CHUNKS_PER_SHARD = 4
_SHARDED_FROM = 8 * _CHUNK


def write(image: Micrograph, path: Path) -> None:
    """Write an image as a complete OME-Zarr 0.5 pyramid.

    The store is made beside the target and renamed when it is whole.

    Parameters
    ----------
    image : Micrograph
        Numpy data, or dask data that are computed block by block.
    path : pathlib.Path
        Folder to make, already checked.

    Raises
    ------
    WriteError
        If the system refuses.
    """
    hidden = path.with_name(f".{uuid.uuid4().hex[:8]}-{path.name}")
    record = record_of(image)
    large = min(image.shape) > _SHARDED_FROM
    try:
        store = create_store(
            hidden,
            shape=image.shape,
            dtype=image.dtype.newbyteorder("="),
            chunk=_CHUNK,
            pixel_size_nm=record.pixel_size_nm,
            origin=record.origin,
            spacing_px=record.spacing_px,
            name=record.name,
            provenance=record.provenance,
            chunks_per_shard=_CHUNKS_PER_SHARD if large else 1,
        )
        for row, column in store.pending():
            top, left = row * store.unit[0], column * store.unit[1]
            window = np.s_[top : top + store.unit[0], left : left + store.unit[1]]
            store.level0[window] = np.asarray(image.data[window])
            store.mark_done(row, column)
        for _ in store.finish():
            pass
        remove_target(path)
        hidden.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        msg = f"{path} could not be written ({reason}): check space and permissions."
        raise WriteError(msg) from error
    finally:
        remove_target(hidden)
