"""A planned mosaic onto the disk: block by block, whole or not at all.

Everything is written under hidden names beside the output, and renamed at the end, so
that a run that fails or is cancelled leaves nothing.
"""

import csv
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_semsr.core import Box, Job, Micrograph, Progress, WriteError, to_dtype
from napari_semsr.io import SUFFIXES, output_kind, remove_target, replacing

if TYPE_CHECKING:
    import zarr

    from napari_semsr.io import OmeZarrStore
    from napari_semsr.stitching import FusionPlan

COVERAGE = "coverage"
_CHUNK = 512
_CHUNKS_PER_SHARD = 4
_SHARDED_FROM = 8 * _CHUNK


@dataclass(frozen=True, slots=True)
class Written:
    """What is on the disk.

    Attributes
    ----------
    coverage : str
        Where the number of frames at each pixel is; 0 where there is none.
    dtype : str
        Type of the grey values in the output.
    clipped : int
        Covered pixels that had no place in that type.
    empty : int
        Pixels that no frame covers.
    """

    coverage: str
    dtype: str
    clipped: int
    empty: int


def coverage_path(target: Path) -> Path:
    """Place of the coverage of a mosaic.

    Parameters
    ----------
    target : pathlib.Path
        Where the mosaic goes.

    Returns
    -------
    pathlib.Path
        A label image inside a store; beside any other file.
    """
    if output_kind(target) == "ome-zarr":
        return target / "labels" / COVERAGE
    stem = target.name
    for suffix in SUFFIXES:
        if stem.lower().endswith(suffix):
            stem = stem[: -len(suffix)]
            break
    return target.with_name(f"{stem}.{COVERAGE}.tif")


@contextmanager
def hidden_store(target: Path) -> Iterator[Path]:
    """Give a hidden store beside the output; whatever is left of it is removed.

    Parameters
    ----------
    target : pathlib.Path
        The output.

    Yields
    ------
    pathlib.Path
        Where a store can be made; it does not exist yet.

    Raises
    ------
    WriteError
        If the system refuses what is done meanwhile.
    """
    stem = target.name.partition(".")[0]
    place = target.with_name(f".{stem}-{uuid.uuid4().hex[:8]}.ome.zarr")
    try:
        yield place
    except OSError as error:
        reason = error.strerror or str(error)
        msg = f"{target} could not be written ({reason}): check space and permissions."
        raise WriteError(msg) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def write_mosaic(
    plan: "FusionPlan", about: Micrograph, target: Path, *, dtype: str
) -> Job[Written]:
    """Compute a mosaic block by block and write it.

    Parameters
    ----------
    plan : FusionPlan
        The mosaic.
    about : Micrograph
        Its name, calibration and provenance; the data are not looked at.
    target : pathlib.Path
        Where it goes, already checked; an existing image is replaced.
    dtype : str
        Type of the grey values.

    Returns
    -------
    Written
        Where the coverage is, and what the type could not hold.

    Yields
    ------
    Progress
        Blocks, then the pyramid.

    Raises
    ------
    WriteError
        If the system refuses.
    """
    with hidden_store(target) as place:
        store = _new_store(place, plan.shape, about, dtype)
        coverage = _new_coverage(store)
        clipped, empty = yield from _fill(plan, store, coverage)
        _thin_coverage(store, coverage)
        yield from store.finish()
        written = dtype
        if output_kind(target) == "ome-zarr":
            remove_target(target)
            place.replace(target)
        else:
            yield Progress(0, 0, f"Writing {target.name}")
            written = _write_file(place, target)
    return Written(str(coverage_path(target)), written, clipped, empty)


def _new_store(
    place: Path, shape: tuple[int, int], about: Micrograph, dtype: str
) -> "OmeZarrStore":
    """Make the store that is filled."""
    from napari_semsr.io import create_store

    return create_store(
        place,
        shape=shape,
        dtype=dtype,
        chunk=_CHUNK,
        pixel_size_nm=about.pixel_size_nm,
        name=about.name,
        provenance=about.provenance,
        chunks_per_shard=_CHUNKS_PER_SHARD if min(shape) > _SHARDED_FROM else 1,
    )


def _new_coverage(store: "OmeZarrStore") -> "zarr.Array[Any]":
    """Make the finest level of the coverage, a label image of the store."""
    labels = store.group.create_group("labels")
    labels.attrs["ome"] = {"version": "0.5", "labels": [COVERAGE]}
    group = labels.create_group(COVERAGE)
    return _coverage_level(group, "0", store.level0.shape, store)


def _coverage_level(
    group: "zarr.Group", name: str, shape: tuple[int, ...], store: "OmeZarrStore"
) -> "zarr.Array[Any]":
    """Make one level with the chunks of the image."""
    return group.create_array(
        name,
        shape=shape,
        dtype="uint16",
        chunks=store.level0.chunks,
        shards=store.level0.shards,
        fill_value=0,
        dimension_names=("y", "x"),
    )


def _fill(
    plan: "FusionPlan", store: "OmeZarrStore", coverage: "zarr.Array[Any]"
) -> Job[tuple[int, int]]:
    """Compute every write unit once; count what was clipped and what is empty."""
    rows, columns = plan.shape
    high, wide = store.unit
    units = store.pending()
    clipped = empty = 0
    for done, (row, column) in enumerate(units):
        yield Progress(done, len(units), "Fusing the mosaic")
        y, x = row * high, column * wide
        box = Box(y, min(y + high, rows), x, min(x + wide, columns))
        image, count = plan.block(box)
        kept, lost = to_dtype(image, store.level0.dtype)
        bare = int(np.count_nonzero(count == 0))
        empty += bare
        clipped += lost - (bare if kept.dtype.kind in "ui" else 0)
        store.level0[box.slices] = kept
        coverage[box.slices] = count
        store.mark_done(row, column)
    return clipped, empty


def _thin_coverage(store: "OmeZarrStore", coverage: "zarr.Array[Any]") -> None:
    """Add the coarser levels of the coverage, every second pixel of the finer one."""
    from napari_semsr.io import level_origin, level_shapes

    group = store.group[f"labels/{COVERAGE}"]
    rows, columns = coverage.shape
    shapes = level_shapes((rows, columns), smallest=max(store.level0.chunks))
    finer, (high, wide) = coverage, store.unit
    for level, shape in enumerate(shapes[1:], start=1):
        coarse = _coverage_level(group, str(level), shape, store)  # type: ignore[arg-type]
        for y in range(0, shape[0], high):
            for x in range(0, shape[1], wide):
                part = finer[2 * y : 2 * (y + high), 2 * x : 2 * (x + wide)]
                coarse[y : y + high, x : x + wide] = np.asarray(part)[::2, ::2]
        finer = coarse
    size = store.record.pixel_size_nm
    pitch = store.record.spacing_px if size is None else size
    unit = {} if size is None else {"unit": "nanometer"}
    steps = [
        [
            {"type": "scale", "scale": [p * 2**level for p in pitch]},
            {
                "type": "translation",
                "translation": list(level_origin((0.0, 0.0), pitch, level)),
            },
        ]
        for level in range(len(shapes))
    ]
    image: dict[str, Any] = {
        "name": COVERAGE,
        "axes": [{"name": name, "type": "space", **unit} for name in ("y", "x")],
        "datasets": [
            {"path": str(level), "coordinateTransformations": step}
            for level, step in enumerate(steps)
        ],
    }
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [image],
        "image-label": {"source": {"image": "../../"}},
    }


def _write_file(place: Path, target: Path) -> str:
    """Write a finished store as one file, with its coverage beside it."""
    import dask.array as da

    from napari_semsr.io import read, write

    mosaic = read(place)
    counts = da.from_zarr(str(place / "labels" / COVERAGE / "0"))
    coverage = mosaic.replace(data=counts, name=f"{mosaic.name} coverage")
    write(mosaic, target, overwrite=True)
    write(coverage, coverage_path(target), overwrite=True)
    return "uint8" if output_kind(target) == "png" else str(mosaic.dtype)


def write_positions(
    path: Path, names: Sequence[str], corners: Sequence[tuple[float, float] | None]
) -> None:
    """Write solved top-left corners as a table.

    Parameters
    ----------
    path : pathlib.Path
        Where it goes, already checked.
    names : sequence of str
        Of the frames.
    corners : sequence of tuple or None
        ``(y, x)`` in px; None leaves the cells of a frame empty.
    """
    with replacing(path) as place, place.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["frame", "y_px", "x_px"])
        for name, corner in zip(names, corners, strict=True):
            cells = ("", "") if corner is None else (f"{v:.6f}" for v in corner)
            writer.writerow([name, *cells])
