"""Enhance a stack or time series plane by plane into one multi-page TIFF."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.errors import WriteError
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import Job, Progress
from napari_semsr.io.record import RECORD_KEY, record_of
from napari_semsr.io.targets import output_kind, replacing
from napari_semsr.services.enhance_plane import EnhancedFile, enhance_plane
from napari_semsr.services.opening import Image, OpenOptions, open_image, paths_of
from napari_semsr.services.shelf import DEFAULT_MODEL
from napari_semsr.services.targets import check_image_target

if TYPE_CHECKING:
    from napari_semsr.inference.options import EnhanceOptions
    from napari_semsr.inference.report import EnhanceReport

__all__ = ["count_planes", "enhance_stack", "write_stack"]


def count_planes(image: Image, opening: OpenOptions | None = None) -> int:
    """Count the planes that a job has to go through.

    Parameters
    ----------
    image : Micrograph or path
        What the job was given.
    opening : OpenOptions, optional
        How it is read.

    Returns
    -------
    int
        One for an image in memory, a plane that was chosen, and what is no stack.
    """
    chosen = opening is not None and opening.plane is not None
    if isinstance(image, Micrograph) or chosen or not Path(image).exists():
        return 1
    from napari_semsr.io import registry

    return registry.describe(Path(image)).planes


def enhance_stack(
    image: Image,
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    options: "EnhanceOptions | None" = None,
    opening: OpenOptions | None = None,
    overwrite: bool = False,
    resume: bool = False,
    scheduler: str | None = None,
) -> Job[EnhancedFile]:
    """Enhance every plane of a stack.

    Each plane has its own scaling and goes into a hidden store beside the output, so
    that an interrupted run can go on; the stores are removed once the stack is whole.

    Parameters
    ----------
    image : path
        A stack.
    output : path
        Ends in ``.ome.tif`` or ``.tif``.
    model : str or path, default="sem-restore"
        A name on the shelf, or a ``.safetensors`` file.
    options : EnhanceOptions, optional
        Tile, normalisation, device, precision, type.
    opening : OpenOptions, optional
        How to read the file.
    overwrite : bool, default=False
        Replace an existing output.
    resume : bool, default=False
        Go on with an output that was interrupted.
    scheduler : str, optional
        Address of a dask scheduler.

    Returns
    -------
    EnhancedFile
        Times and tiles summed, the worst of all planes elsewhere.

    Yields
    ------
    Progress
        Tiles of each plane.

    Raises
    ------
    WriteError
        If the output cannot hold a stack.
    """
    chosen = opening or OpenOptions()
    planes = count_planes(image, chosen)
    target = check_image_target(output, inputs=paths_of(image), overwrite=overwrite)
    if output_kind(target) not in ("ome-tiff", "tiff"):
        msg = (
            f"A stack of {planes} planes is written as .ome.tif or .tif, got "
            f"{target.name}: change the suffix, or choose one plane with --plane."
        )
        raise WriteError(msg)
    places = [_place(target, plane) for plane in range(planes)]
    made: list[EnhancedFile] = []
    for plane, place in enumerate(places):
        job = enhance_plane(
            image,
            place,
            model=model,
            options=options,
            opening=chosen.replace(plane=plane),
            overwrite=not resume,
            resume=resume,
            scheduler=scheduler,
        )
        made.append((yield from _named(job, f"plane {plane + 1} of {planes}")))
    yield Progress(0, 0, f"writing {target.name}")
    first = open_image(places[0])
    history = made[0].provenance
    history = history.model_copy(
        update={
            "options": {**history.options, "reading": chosen.model_dump(mode="json")}
        }
    )
    write_stack(first.replace(provenance=history), places, target)
    for place in places:
        shutil.rmtree(place)
    return EnhancedFile(
        output=str(target),
        shape=(planes, *first.shape),
        dtype=str(first.dtype),
        pixel_size_nm=first.pixel_size_nm,
        report=_summed([item.report for item in made]),
        provenance=history,
    )


def _place(target: Path, plane: int) -> Path:
    """Name the hidden store of a plane."""
    return target.with_name(f".{target.name}.{plane}.part.ome.zarr")


def _named(job: Job[EnhancedFile], prefix: str) -> Job[EnhancedFile]:
    """Say in each step which plane it belongs to."""
    with closing(job):
        while True:
            try:
                step = next(job)
            except StopIteration as end:
                result: EnhancedFile = end.value
                return result
            yield replace(step, message=f"{prefix}: {step.message}")


def _summed(reports: "Sequence[EnhanceReport]") -> "EnhanceReport":
    """Sum up what the planes cost, and keep the worst of what tells of quality."""
    seconds = sum(item.seconds for item in reports)
    pixels = sum(item.megapixels_per_second * item.seconds for item in reports)
    notes = dict.fromkeys(note for item in reports for note in item.notes)
    return replace(
        reports[0],
        tiles=sum(item.tiles for item in reports),
        resumed=sum(item.resumed for item in reports),
        seconds=seconds,
        megapixels_per_second=pixels / seconds if seconds else 0.0,
        peak_memory_mb=max(item.peak_memory_mb for item in reports),
        tile_mismatch=max(item.tile_mismatch for item in reports),
        seam_index=max(item.seam_index for item in reports),
        clipped=sum(item.clipped for item in reports),
        notes=tuple(notes),
    )


def write_stack(first: Micrograph, places: Sequence[Path], target: Path) -> None:
    """Write planes as the pages of one file, with calibration and history.

    Parameters
    ----------
    first : Micrograph
        The first plane, which tells name, calibration and history of all.
    places : sequence of pathlib.Path
        Stores of the planes.
    target : pathlib.Path
        Ends in ``.ome.tif`` or ``.tif``.
    """
    import tifffile

    record = record_of(first).to_json()
    ome = output_kind(target) == "ome-tiff"
    options: dict[str, Any] = {"photometric": "minisblack"}
    if ome:
        options["metadata"] = {
            "axes": "ZYX",
            "Name": first.name,
            "MapAnnotation": {RECORD_KEY: record},
            **_physical_size(first),
        }
    else:
        y, x = first.pixel_size_nm or (1.0, 1.0)
        unit = "pixel" if first.pixel_size_nm is None else "nm"
        options["metadata"] = {
            "axes": "ZYX",
            "unit": unit,
            "Info": f"{RECORD_KEY}={record}",
        }
        options |= {"resolution": (1 / x, 1 / y), "resolutionunit": 1}
    size = len(places) * first.shape[0] * first.shape[1] * first.dtype.itemsize
    with (
        replacing(target) as temporary,
        tifffile.TiffWriter(
            temporary, ome=ome, imagej=not ome, bigtiff=ome and size >= 2**31
        ) as tif,
    ):
        tif.write(
            _pages(places),
            shape=(len(places), *first.shape),
            dtype=first.dtype,
            **options,
        )


def _pages(places: Sequence[Path]) -> Iterator[NDArray[Any]]:
    """Read the planes one by one."""
    for place in places:
        yield np.ascontiguousarray(open_image(place).array())


def _physical_size(image: Micrograph) -> dict[str, Any]:
    """Pixel size in the words of OME-XML."""
    if image.pixel_size_nm is None:
        return {}
    y, x = image.pixel_size_nm
    return {
        "PhysicalSizeY": y,
        "PhysicalSizeYUnit": "nm",
        "PhysicalSizeX": x,
        "PhysicalSizeXUnit": "nm",
    }
