"""The Python interface to what models learn from, and are judged by."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

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
    from napari_semsr.analysis.gaps import Gaps
    from napari_semsr.services.check_results import ModelCheck
    from napari_semsr.services.pairs import PairsMade
    from napari_semsr.services.restore import RestoredFile

__all__ = ["check_model", "cut_pairs", "gaps", "restore_image"]


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
    from napari_semsr.services.restore_stack import restore

    writing = restore(
        source,
        output,
        options=chosen,
        opening=opening,
        overwrite=overwrite,
        resume=resume,
    )
    return run(writing, progress)


def cut_pairs(
    low: Source | Sequence[Micrograph],
    high: Source | Sequence[Micrograph],
    output: PathLike,
    *,
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Any,
) -> "PairsMade":
    """Cut aligned patches into disjoint training, validation and test sets.

    The command is ``semsr pairs``; the name ``pairs`` belongs to the package of its
    parts, where ``pairs.store.open_pairs`` reads what is written here.

    Parameters
    ----------
    low, high : Micrograph, (Y, X) numpy.ndarray, path or sequence of Micrograph
        Two images of one field, or two folders.
    output : path
        Ends in ``.zarr``; a contact sheet goes beside it.
    overwrite : bool, default=False
        Replace an existing output.
    progress : callable, optional
        Receives every `Progress`.
    **options : object
        Flags of the command, such as ``patch``, ``scale`` and ``seed``, and reading
        options.

    Returns
    -------
    PairsMade
        Numbers of pairs, and of what was left out.
    """
    from napari_semsr.services import pairs as service

    chosen, opening = parse_each(options, service.PairOptions, OpenOptions)
    job = service.cut_pairs(
        _side(low),
        _side(high),
        output,
        options=chosen,
        opening=opening,
        overwrite=overwrite,
    )
    return run(job, progress)


def gaps(image: Source, reference: Source | None = None, **options: Any) -> "Gaps":
    """Count and measure the gaps between particles.

    Parameters
    ----------
    image : Micrograph, (Y, X) numpy.ndarray or path
        An image of particles.
    reference : Micrograph, (Y, X) numpy.ndarray or path, optional
        A better image of the same field, on the same grid.
    **options : object
        ``dark``, ``min_diameter_px``, ``reach``, and reading options.

    Returns
    -------
    Gaps
        Every gap, and how many of the reference's the image shows.
    """
    from napari_semsr.services.measure_gaps import GapOptions, gaps_job

    chosen, opening = parse_each(options, GapOptions, OpenOptions)
    job = gaps_job(
        as_source(image), as_optional(reference), options=chosen, opening=opening
    )
    return run(job).result


def check_model(
    model: PathLike = "sem-restore",
    images: Sequence[Source] = (),
    *,
    held_out: PathLike | None = None,
    write: bool = False,
    progress: Report | None = None,
    **options: Any,
) -> "ModelCheck":
    """Ask a model for discs put into truths, and for those taken out.

    The command is ``semsr models check``.

    Parameters
    ----------
    model : str or path, default="sem-restore"
        A name on the shelf, or a ``.safetensors`` file.
    images : sequence of Micrograph, (Y, X) numpy.ndarray or path, optional
        Clear images; drawn samples serve without them.
    held_out : path, optional
        Folder of the clear images that the model's card names as held out.
    write : bool, default=False
        Write what is found into the model's card.
    progress : callable, optional
        Receives every `Progress`.
    **options : object
        ``task``, ``discs``, ``size_px``, ``seed``, ``device``, and reading options.

    Returns
    -------
    ModelCheck
        Shares of discs that are right, by radius, in enhanced and degraded images.
    """
    from napari_semsr.services import check

    chosen, opening = parse_each(options, check.CheckOptions, OpenOptions)
    job = check.check_model(
        model,
        [as_source(image) for image in images],
        held_out=held_out,
        options=chosen,
        opening=opening,
        write=write,
    )
    return run(job, progress)


def _side(images: Source | Sequence[Micrograph]) -> Any:
    """Wrap an array, and leave what is no single image alone."""
    return as_source(images) if isinstance(images, np.ndarray) else images
