"""The Python interface to what models learn from, and are compared with."""

from typing import TYPE_CHECKING, Any, overload

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import run
from napari_semsr.services.calling import (
    PathLike,
    Report,
    Source,
    as_source,
    parse_each,
)
from napari_semsr.services.opening import OpenOptions

if TYPE_CHECKING:
    from napari_semsr.services.restore import RestoredFile

__all__ = ["restore_image"]


@overload
def restore_image(
    image: Source,
    output: None = None,
    *,
    progress: Report | None = ...,
    **options: Any,
) -> Micrograph: ...
@overload
def restore_image(
    image: Source,
    output: PathLike,
    *,
    overwrite: bool = ...,
    resume: bool = ...,
    progress: Report | None = ...,
    **options: Any,
) -> "RestoredFile": ...
def restore_image(
    image: Source,
    output: PathLike | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: Report | None = None,
    **options: Any,
) -> "Micrograph | RestoredFile":
    """Undo an image's blur by a classical method.

    The command is ``semsr restore``; the name ``restore`` belongs to the package of
    the methods.

    Parameters
    ----------
    image : Micrograph, (Y, X) numpy.ndarray or path
        What to restore.
    output : path, optional
        Where the result is written; kept in memory without it.
    overwrite : bool, default=False
        Replace an existing output.
    resume : bool, default=False
        Go on with a store that was interrupted.
    progress : callable, optional
        Receives every `Progress`.
    **options : object
        Flags of the command, such as ``method``, ``psf`` and ``iterations``, and
        reading options.

    Returns
    -------
    Micrograph or RestoredFile
        The image itself, with its parameters in ``metadata["restore"]``, or what was
        written.
    """
    from napari_semsr.services import restore as service

    chosen, opening = parse_each(options, service.RestoreOptions, OpenOptions)
    source = as_source(image)
    if output is None:
        job = service.restore_in_memory(source, options=chosen, opening=opening)
        return run(job, progress)
    writing = service.restore(
        source,
        output,
        options=chosen,
        opening=opening,
        overwrite=overwrite,
        resume=resume,
    )
    return run(writing, progress)
