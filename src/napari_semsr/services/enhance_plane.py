"""Enhance one plane tile by tile: read, run the model, write, tell what it cost.

A store is filled in place and stays resumable. Any other format is written from a
hidden store beside the output, which is removed once the output is whole.
"""

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from napari_semsr.core.errors import WriteError
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import Job, Progress, Waiting
from napari_semsr.core.provenance import Provenance, software_versions
from napari_semsr.io.registry import write
from napari_semsr.services.enhance_resume import VALUES, as_begun
from napari_semsr.services.opening import (
    Image,
    OpenOptions,
    digest_values,
    input_record,
    name_of,
    open_image,
    paths_of,
)
from napari_semsr.services.results import Result, jsonable
from napari_semsr.services.shelf import DEFAULT_MODEL, find_model
from napari_semsr.services.targets import check_tiled_target, filling_store

if TYPE_CHECKING:
    from napari_semsr.inference.engine import EnhanceReport
    from napari_semsr.inference.live import LiveField
    from napari_semsr.inference.options import EnhanceOptions
    from napari_semsr.models.checkpoint import LoadedModel

__all__ = ["EnhancedFile", "enhance_plane", "provenance_of"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class EnhancedFile(Result):
    """What was written, and what it cost.

    Attributes
    ----------
    output : str
        Path of the file or store.
    shape : tuple of int
        Rows and columns; planes before them for a stack.
    dtype : str
        Type of the grey values in the output.
    pixel_size_nm : tuple of float or None
        ``(y, x)`` of the output; None when unknown.
    report : EnhanceReport
        Tiles, time, memory, device, model, and how well neighbouring tiles agree.
    provenance : Provenance
        Input, model, options, versions.
    """

    output: str
    shape: tuple[int, ...]
    dtype: str
    pixel_size_nm: tuple[float, float] | None
    report: "EnhanceReport"
    provenance: Provenance = field(metadata={"json": False})

    def to_json(self) -> dict[str, Any]:
        """Give the report as one flat record.

        Returns
        -------
        dict
            The engine's figures, with what was written.
        """
        return {
            **jsonable(self.report),
            "output": self.output,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "pixel_size_nm": jsonable(self.pixel_size_nm),
            "model_digest": self.provenance.model_digest,
        }


def enhance_plane(
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
    """Enhance a plane into a store or a file.

    Parameters
    ----------
    image : Micrograph or path
        What to enhance; `opening` picks one plane of a stack.
    output : path
        Ends in ``.ome.zarr``, ``.ome.tif``, ``.tif`` or ``.png``.
    model : str or path, default="sem-restore"
        A name on the shelf, or a ``.safetensors`` file.
    options : EnhanceOptions, optional
        Tile, normalisation, device, precision, type.
    opening : OpenOptions, optional
        How to read a file.
    overwrite : bool, default=False
        Replace an existing output.
    resume : bool, default=False
        Go on with an output that was interrupted.
    scheduler : str, optional
        Address of a dask scheduler.
    live : LiveField, optional
        What a viewer draws meanwhile; the output must be a store.

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
    held = psutil.Process().memory_info().rss
    yield Progress(0, 0, "checking")
    target = check_tiled_target(
        output, inputs=paths_of(image), overwrite=overwrite, resume=resume
    )
    path = find_model(model)
    source = open_image(image, opening)
    yield Progress(0, 0, f"loading the model {path.stem}")
    from napari_semsr.inference import engine, planning
    from napari_semsr.inference.options import EnhanceOptions
    from napari_semsr.models.checkpoint import load_model

    chosen = options or EnhanceOptions()
    loaded = load_model(path)
    yield Progress(0, 0, f"recording the input {name_of(image)}")
    provenance = provenance_of(image, source, loaded, chosen, opening)
    place = filling_store(target)
    if resume:
        source, provenance = as_begun(place, image, source, provenance)
    store = planning.create_output(
        place,
        source,
        loaded,
        chosen,
        provenance=provenance,
        overwrite=overwrite or place != target,
        resume=resume,
    )
    if VALUES not in store.notes() and not isinstance(image, Micrograph):
        store.note(VALUES, digest_values(source))
    if scheduler is not None:
        yield Waiting(0, 0, f"connecting to the dask scheduler at {scheduler}")
    try:
        report = yield from engine.enhance_to_store(
            source, loaded, store, chosen, scheduler=scheduler, live=live
        )
    except Exception as error:
        _discard(place, unless=lambda: len(store.pending()) < store.done.size)
        if isinstance(error, OSError) and error.errno in _FULL:
            msg = (
                f"{target} could not be written to its end ({error.strerror}): free "
                "some space, then run again with --resume; what is finished is kept."
            )
            raise WriteError(msg) from error
        raise
    if scheduler is None:
        report = _told_of_memory(report, chosen, held)
    finished = open_image(place)
    if place != target:
        yield Progress(0, 0, f"writing {target.name}")
        write(finished, target, overwrite=overwrite)
        shutil.rmtree(place)
    return EnhancedFile(
        output=str(target),
        shape=finished.shape,
        dtype="uint8" if target.suffix.lower() == ".png" else str(finished.dtype),
        pixel_size_nm=finished.pixel_size_nm,
        report=report,
        provenance=provenance,
    )


def _told_of_memory(
    report: "EnhanceReport", options: "EnhanceOptions", held: int
) -> "EnhanceReport":
    """Add a note where a run took more than it was to take."""
    if options.memory_gb is None or report.device != "cpu":
        return report
    taken = report.peak_memory_mb / 1e3 - held / 1e9
    if taken <= options.memory_gb:
        return report
    said = (
        f"The run took {taken:.2g} GB, libraries included, and could not keep within "
        f"the {options.memory_gb:g} GB of memory_gb: it needs about {taken:.2g} GB."
    )
    return replace(report, notes=(*report.notes, said))


def _discard(place: Path, *, unless: Callable[[], bool]) -> None:
    """Remove a store in which nothing was finished."""
    if place.is_dir() and not unless():
        shutil.rmtree(place, ignore_errors=True)


def provenance_of(
    image: Image,
    source: Micrograph,
    loaded: "LoadedModel",
    options: "EnhanceOptions",
    opening: OpenOptions | None,
) -> Provenance:
    """Record what makes an enhanced image.

    Parameters
    ----------
    image : Micrograph or path
        What was given.
    source : Micrograph
        The same, opened.
    loaded : LoadedModel
        The network.
    options : EnhanceOptions
        How it is run.
    opening : OpenOptions or None
        How the image was opened.

    Returns
    -------
    Provenance
        Input, model, options, versions.
    """
    reading = (opening or OpenOptions()).model_dump(mode="json")
    return Provenance(
        job="enhance",
        options={**options.model_dump(mode="json"), "reading": reading},
        inputs=(input_record(image, source, opening),),
        model_name=loaded.card.name,
        model_digest=loaded.digest,
        versions=software_versions(),
    )
