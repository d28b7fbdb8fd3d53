"""The Python interface to parts of images, and to images on one grid."""

from typing import TYPE_CHECKING, Any, overload

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import run
from napari_semsr.services.calling import (
    PathLike,
    Report,
    Source,
    as_optional,
    as_source,
    parse_each,
)
from napari_semsr.services.opening import OpenOptions

if TYPE_CHECKING:
    from napari_semsr.services.crop import Cropped

__all__ = ["crop"]


@overload
def crop(
    image: Source,
    output: None = None,
    *,
    like: Source | None = ...,
    progress: Report | None = ...,
    **options: Any,
) -> Micrograph: ...
@overload
def crop(
    image: Source,
    output: PathLike,
    *,
    like: Source | None = ...,
    like_output: PathLike | None = ...,
    overwrite: bool = ...,
    progress: Report | None = ...,
    **options: Any,
) -> "Cropped": ...
def crop(
    image: Source,
    output: PathLike | None = None,
    *,
    like: Source | None = None,
    like_output: PathLike | None = None,
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Any,
) -> "Micrograph | Cropped":
    """Cut a box out of an image, or bring it onto the grid of another.

    Parameters
    ----------
    image : Micrograph, (Y, X) numpy.ndarray or path
        What is cut.
    output : path, optional
        Where the part is written; kept in memory without it.
    like : Micrograph, (Y, X) numpy.ndarray or path, optional
        A reference: the area that both show is cut, on the reference's grid.
    like_output : path, optional
        Receives the same area of the reference.
    overwrite : bool, default=False
        Replace existing outputs.
    progress : callable, optional
        Receives every `Progress`.
    **options : object
        ``box`` or ``box_nm`` as ``(y0, x0, y1, x1)``, ``align``, ``search``,
        ``gap_free``, ``dtype``, and reading options.

    Returns
    -------
    Micrograph or Cropped
        The part itself, with area and shift in ``metadata["crop"]``, or what was
        written.

    Raises
    ------
    OptionError
        If a part of the reference is asked for that is not written.
    """
    from napari_semsr.core.errors import OptionError
    from napari_semsr.services import crop as service

    chosen, opening = parse_each(options, service.CropOptions, OpenOptions)
    source, reference = as_source(image), as_optional(like)
    if output is None:
        if like_output is not None:
            msg = "A part of the reference is written beside an output: give one."
            raise OptionError(msg)
        job = service.crop_in_memory(
            source, like=reference, options=chosen, opening=opening
        )
        return run(job, progress)
    writing = service.crop(
        source,
        output,
        like=reference,
        like_output=like_output,
        options=chosen,
        opening=opening,
        overwrite=overwrite,
    )
    return run(writing, progress)
