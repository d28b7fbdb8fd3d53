"""Enhance an image or a stack: what panels, commands and scripts call."""

import os
from functools import partial
from typing import TYPE_CHECKING

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import Job, Progress
from napari_semsr.services.enhance_plane import (
    EnhancedFile,
    enhance_plane,
    provenance_of,
)
from napari_semsr.services.enhance_stack import count_planes, enhance_stack
from napari_semsr.services.opening import Image, OpenOptions, open_image
from napari_semsr.services.shelf import DEFAULT_MODEL, find_model

if TYPE_CHECKING:
    from napari_semsr.inference.live import LiveField
    from napari_semsr.inference.options import EnhanceOptions

__all__ = ["EnhancedFile", "enhance", "enhance_image"]


def enhance(
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


def enhance_image(
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
    from napari_semsr.inference import engine
    from napari_semsr.inference.options import EnhanceOptions
    from napari_semsr.models.checkpoint import load_model

    chosen = options or EnhanceOptions()
    loaded = load_model(path)
    made = yield from engine.enhance_array(source, loaded, chosen)
    provenance = provenance_of(image, source, loaded, chosen, opening)
    return made.replace(provenance=provenance)
