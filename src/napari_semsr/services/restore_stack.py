"""Restore an image, or a stack plane by plane: what panels and commands call."""

import os
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from napari_semsr.core.errors import WriteError
from napari_semsr.core.progress import Job, Progress
from napari_semsr.io.targets import output_kind
from napari_semsr.services.enhance_stack import count_planes, write_stack
from napari_semsr.services.opening import Image, OpenOptions, open_image, paths_of
from napari_semsr.services.restore import RestoredFile, RestoreOptions, restore_plane
from napari_semsr.services.targets import check_image_target

__all__ = ["restore"]


def restore(
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
        made.append((yield from _named(job, f"plane {plane + 1} of {planes}")))
    yield Progress(0, 0, f"writing {target.name}")
    return _joined(made, places, target, chosen)


def _named(job: Job[RestoredFile], prefix: str) -> Job[RestoredFile]:
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
