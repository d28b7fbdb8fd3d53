"""Enhance an image or a stack: what panels, commands and scripts call."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import Job, Micrograph, Progress, WriteError
from napari_semsr.io import RECORD_KEY, output_kind, record_of, replacing
from napari_semsr.jobs.enhance import EnhancedFile, enhance_plane, provenance_of
from napari_semsr.jobs.images import Image, OpenOptions, open_image, paths_of
from napari_semsr.jobs.models import DEFAULT_MODEL, find_model
from napari_semsr.jobs.outputs import check_image_target
from napari_semsr.jobs.restore import RestoredFile, restore_plane
from napari_semsr.restoration import RestoreOptions

if TYPE_CHECKING:
    from napari_semsr.inference import EnhanceOptions, EnhanceReport, LiveField

# Enhance a stack or time series plane by plane into one multi-page TIFF.


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
    from napari_semsr.io import describe

    return describe(Path(image)).planes


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


def enhance_job(
    image: Image,
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    options: "EnhanceOptions | None" = None,
    opening: OpenOptions | None = None,
    overwrite: bool = False,
    resume: bool = False,
    scheduler: str | None = None,
    live: "LiveField | None" = None,
) -> Job[EnhancedFile]:
    """Enhance an image, or a stack plane by plane, into a store or a file.

    Parameters
    ----------
    image : Micrograph or path
        What to enhance.
    output : path
        Ends in ``.ome.zarr``, ``.ome.tif``, ``.tif`` or ``.png``; a stack needs a TIFF.
    model : str or path, default="sem-restore"
        A name on the shelf, or a ``.safetensors`` file.
    options : EnhanceOptions, optional
        Tile, normalisation, device, precision, type.
    opening : OpenOptions, optional
        How to read a file; its `plane` picks one plane of a stack.
    overwrite : bool, default=False
        Replace an existing output.
    resume : bool, default=False
        Go on with an output that was interrupted.
    scheduler : str, optional
        Address of a dask scheduler.
    live : LiveField, optional
        What a viewer draws meanwhile: one plane, into a store.

    Returns
    -------
    EnhancedFile
        What was written, and what it cost.

    Yields
    ------
    Progress
        Tiles.

    Raises
    ------
    ReadError, WriteError, CheckpointError, DeviceMemoryError
        If the image cannot be read, the output not be made, or the model not be run.
    """
    yield Progress(0, 0, "checking")
    planes = count_planes(image, opening)
    job = enhance_stack
    if planes == 1:
        job = enhance_plane if live is None else partial(enhance_plane, live=live)
    return (
        yield from job(
            image,
            output,
            model=model,
            options=options,
            opening=opening,
            overwrite=overwrite,
            resume=resume,
            scheduler=scheduler,
        )
    )


def enhance_in_memory(
    image: Image,
    *,
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    options: "EnhanceOptions | None" = None,
    opening: OpenOptions | None = None,
) -> Job[Micrograph]:
    """Enhance an image in memory.

    Parameters
    ----------
    image : Micrograph or path
        What to enhance.
    model : str or path, default="sem-restore"
        A name on the shelf, or a ``.safetensors`` file.
    options : EnhanceOptions, optional
        Tile, normalisation, device, precision, type.
    opening : OpenOptions, optional
        How to read a file.

    Returns
    -------
    Micrograph
        With its history.

    Yields
    ------
    Progress
        Tiles.
    """
    yield Progress(0, 0, "reading")
    path = find_model(model)
    source = open_image(image, opening)
    from napari_semsr.inference import EnhanceOptions, enhance_array
    from napari_semsr.models import load_model

    chosen = options or EnhanceOptions()
    loaded = load_model(path)
    made = yield from enhance_array(source, loaded, chosen)
    provenance = provenance_of(image, source, loaded, chosen, opening)
    return made.replace(provenance=provenance)


# Restore an image, or a stack plane by plane: what panels and commands call.


def restore_job(
    image: Image,
    output: str | os.PathLike[str],
    *,
    options: RestoreOptions | None = None,
    opening: OpenOptions | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> Job[RestoredFile]:
    """Undo an image's blur by a classical method, a stack's plane by plane.

    Parameters
    ----------
    image : Micrograph or path
        What to restore.
    output : path
        Ends in ``.ome.zarr``, ``.ome.tif``, ``.tif`` or ``.png``; a stack needs a TIFF.
    options : RestoreOptions, optional
        Method and blur.
    opening : OpenOptions, optional
        How to read a file; its `plane` picks one plane of a stack.
    overwrite : bool, default=False
        Replace an existing output.
    resume : bool, default=False
        Go on with an output that was interrupted.

    Returns
    -------
    RestoredFile
        What was done; the parameters of a stack are those of its first plane.

    Yields
    ------
    Progress
        Measuring, tiles, pyramid.

    Raises
    ------
    ReadError, WriteError, OptionError
        If the image cannot be read, the output not be made, or the blur not be used.
    """
    yield Progress(0, 0, "checking")
    planes = count_planes(image, opening)
    job = _restore_planes(
        image, output, planes, options, opening, overwrite=overwrite, resume=resume
    )
    if planes == 1:
        job = restore_plane(
            image,
            output,
            options=options,
            opening=opening,
            overwrite=overwrite,
            resume=resume,
        )
    return (yield from job)


def _restore_planes(
    image: Image,
    output: str | os.PathLike[str],
    planes: int,
    options: RestoreOptions | None,
    opening: OpenOptions | None,
    *,
    overwrite: bool,
    resume: bool,
) -> Job[RestoredFile]:
    """Restore every plane into a hidden store, then write them as pages."""
    chosen = opening or OpenOptions()
    target = check_image_target(output, inputs=paths_of(image), overwrite=overwrite)
    if output_kind(target) not in ("ome-tiff", "tiff"):
        msg = (
            f"A stack of {planes} planes is written as .ome.tif or .tif, got "
            f"{target.name}: change the suffix, or choose one plane with --plane."
        )
        raise WriteError(msg)
    made: list[RestoredFile] = []
    places = [
        target.with_name(f".{target.name}.{plane}.part.ome.zarr")
        for plane in range(planes)
    ]
    for plane, place in enumerate(places):
        job = restore_plane(
            image,
            place,
            options=options,
            opening=chosen.replace(plane=plane),
            overwrite=not resume,
            resume=resume,
        )
        made.append((yield from _named_restored(job, f"plane {plane + 1} of {planes}")))
    yield Progress(0, 0, f"writing {target.name}")
    return _joined(made, places, target, chosen)


def _named_restored(job: Job[RestoredFile], prefix: str) -> Job[RestoredFile]:
    """Say in each step which plane it belongs to."""
    with closing(job):
        while True:
            try:
                step = next(job)
            except StopIteration as end:
                result: RestoredFile = end.value
                return result
            yield replace(step, message=f"{prefix}: {step.message}")


def _joined(
    made: list[RestoredFile], places: list[Path], target: Path, opening: OpenOptions
) -> RestoredFile:
    """Write the pages, remove the stores, and sum up."""
    first = open_image(places[0])
    history = made[0].provenance
    told = {**history.options, "reading": opening.model_dump(mode="json")}
    history = history.model_copy(update={"options": told})
    write_stack(first.replace(provenance=history), places, target)
    for place in places:
        shutil.rmtree(place)
    return replace(
        made[0],
        output=str(target),
        tiles=sum(item.tiles for item in made),
        shape=(len(made), *first.shape),
        clipped=sum(item.clipped for item in made),
        provenance=history,
    )
