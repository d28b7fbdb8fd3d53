"""Enhance an image or a stack: what panels, commands and scripts call."""

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from napari_semsr.core import Job, Micrograph, Progress, WriteError
from napari_semsr.io import ReadOptions, output_kind, write_pages
from napari_semsr.jobs.enhance import EnhancedFile, enhance_plane, provenance_of
from napari_semsr.jobs.images import Image, check_image_target, open_image, paths_of
from napari_semsr.jobs.models import DEFAULT_MODEL, find_model
from napari_semsr.jobs.restore import RestoredFile, restore_plane
from napari_semsr.restoration import RestoreOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_semsr.inference import EnhanceOptions, EnhanceReport, LiveField

# Run a job that knows one plane over a stack or time series, plane by plane.

File = TypeVar("File", EnhancedFile, RestoredFile)


def _count_planes(image: Image, opening: ReadOptions | None = None) -> int:
    """Count the planes that a job has to go through."""
    chosen = opening is not None and opening.plane is not None
    if isinstance(image, Micrograph) or chosen or not Path(image).exists():
        return 1
    from napari_semsr.io import describe

    return describe(Path(image)).planes


def _plane_by_plane(
    job: Callable[..., Job[File]],
    image: Image,
    output: str | os.PathLike[str],
    sum_up: Callable[[list[File]], dict[str, Any]],
    *,
    opening: ReadOptions | None,
    overwrite: bool,
    resume: bool,
) -> Job[File]:
    """Run a job on an image, or on every plane of a stack.

    Each plane of a stack has its own scaling and goes into a hidden store beside the
    output, so that an interrupted run can go on; the stores are removed once the stack
    is whole.
    """
    yield Progress(0, 0, "checking")
    planes = _count_planes(image, opening)
    if planes == 1:
        how = {"opening": opening, "overwrite": overwrite, "resume": resume}
        return (yield from job(image, output, **how))
    chosen = opening or ReadOptions()
    target = check_image_target(output, inputs=paths_of(image), overwrite=overwrite)
    if output_kind(target) not in ("ome-tiff", "tiff"):
        msg = (
            f"A stack of {planes} planes is written as .ome.tif or .tif, got "
            f"{target.name}: change the suffix, or choose one plane with --plane."
        )
        raise WriteError(msg)
    made: list[File] = []
    for plane in range(planes):
        one = job(
            image,
            target.with_name(f".{target.name}.{plane}.part.ome.zarr"),
            opening=chosen.replace(plane=plane),
            overwrite=not resume,
            resume=resume,
        )
        made.append((yield from _named(one, f"plane {plane + 1} of {planes}")))
    yield Progress(0, 0, f"writing {target.name}")
    told = {**made[0].provenance.options, "reading": chosen.model_dump(mode="json")}
    history = made[0].provenance.model_copy(update={"options": told})
    first: Micrograph = open_image(made[0].output).replace(provenance=history)
    pages = (open_image(item.output).array() for item in made)
    write_pages(first, planes, pages, target)
    for item in made:
        shutil.rmtree(item.output)
    return replace(
        made[0],
        output=str(target),
        shape=(planes, *first.shape),
        provenance=history,
        **sum_up(made),
    )


def _named(job: Job[File], prefix: str) -> Job[File]:
    """Say in each step which plane it belongs to."""
    with closing(job):
        while True:
            try:
                step = next(job)
            except StopIteration as end:
                result: File = end.value
                return result
            yield replace(step, message=f"{prefix}: {step.message}")


def enhance_job(
    image: Image,
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    options: "EnhanceOptions | None" = None,
    opening: ReadOptions | None = None,
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
    opening : ReadOptions, optional
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
    job = partial(enhance_plane, model=model, options=options, scheduler=scheduler)
    if live is not None and _count_planes(image, opening) == 1:
        job = partial(job, live=live)
    return (
        yield from _plane_by_plane(
            job,
            image,
            output,
            lambda made: {"report": _summed([item.report for item in made])},
            opening=opening,
            overwrite=overwrite,
            resume=resume,
        )
    )


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


def enhance_in_memory(
    image: Image,
    *,
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    options: "EnhanceOptions | None" = None,
    opening: ReadOptions | None = None,
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
    opening : ReadOptions, optional
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
    provenance = provenance_of(image, source, loaded, chosen, opening)
    return (yield from enhance_array(source, loaded, chosen, provenance=provenance))


# Restore an image, or a stack plane by plane: what panels and commands call.


def restore_job(
    image: Image,
    output: str | os.PathLike[str],
    *,
    options: RestoreOptions | None = None,
    opening: ReadOptions | None = None,
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
    opening : ReadOptions, optional
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
    return (
        yield from _plane_by_plane(
            partial(restore_plane, options=options),
            image,
            output,
            lambda made: {
                "tiles": sum(item.tiles for item in made),
                "clipped": sum(item.clipped for item in made),
            },
            opening=opening,
            overwrite=overwrite,
            resume=resume,
        )
    )
