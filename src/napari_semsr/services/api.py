"""The Python interface: one function for each command, run to its end.

Every function takes a `Micrograph`, a NumPy array or the path of an image. Options are
keywords with the names of the command's flags, ``pixel_size_nm`` and the other reading
options among them. `progress` receives every `Progress`.
"""

import os
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
from napari_semsr.services.shelf import DEFAULT_MODEL

if TYPE_CHECKING:
    from napari_semsr.services.convert import Converted
    from napari_semsr.services.demo import DemoResult
    from napari_semsr.services.describe import Description
    from napari_semsr.services.enhance import EnhancedFile
    from napari_semsr.services.shelf import ModelList
    from napari_semsr.services.train import Trained

__all__ = [
    "convert",
    "degrade",
    "demo",
    "enhance",
    "info",
    "list_models",
    "train",
]


def info(path: PathLike, **options: Any) -> "Description":
    """Say what a file is.

    Parameters
    ----------
    path : path
        An image, a store or a folder of frames.
    **options : object
        Reading options; ``pixel_size_nm`` overrides the file's.

    Returns
    -------
    Description
        Its ``facts`` hold shape, type, pixel size, vendor and metadata.
    """
    from napari_semsr.services.describe import describe

    (opening,) = parse_each(options, OpenOptions)
    return run(describe(os.fspath(path), options=opening))


def convert(
    image: Source,
    output: PathLike,
    *,
    dtype: str | None = None,
    overwrite: bool = False,
    **options: Any,
) -> "Converted":
    """Write an image in the format that the output's suffix names.

    Parameters
    ----------
    image : Micrograph, (Y, X) numpy.ndarray or path
        What to convert.
    output : path
        Ends in ``.ome.zarr``, ``.ome.tif``, ``.tif`` or ``.png``.
    dtype : str, optional
        Type of the grey values in the output.
    overwrite : bool, default=False
        Replace an existing output.
    **options : object
        Reading options.

    Returns
    -------
    Converted
        What was written.
    """
    from napari_semsr.services import convert as service

    (opening,) = parse_each(options, OpenOptions)
    job = service.convert(
        as_source(image), output, opening=opening, dtype=dtype, overwrite=overwrite
    )
    return run(job)


def degrade(image: Source, **options: Any) -> Micrograph:
    """Blur and haze an image as published test sets do.

    Parameters
    ----------
    image : Micrograph, (Y, X) numpy.ndarray or path
        A sharp image.
    **options : object
        ``kind``, ``uniform_fog``, ``seed``, and reading options.

    Returns
    -------
    Micrograph
        In the input's own type.
    """
    from napari_semsr.services.degrade import DegradeOptions, degrade_image

    chosen, opening = parse_each(options, DegradeOptions, OpenOptions)
    return degrade_image(as_source(image), options=chosen, opening=opening)[0]


@overload
def enhance(
    image: Source,
    output: None = None,
    *,
    model: PathLike = ...,
    progress: Report | None = ...,
    **options: Any,
) -> Micrograph: ...
@overload
def enhance(
    image: Source,
    output: PathLike,
    *,
    model: PathLike = ...,
    overwrite: bool = ...,
    resume: bool = ...,
    scheduler: str | None = ...,
    progress: Report | None = ...,
    **options: Any,
) -> "EnhancedFile": ...
def enhance(
    image: Source,
    output: PathLike | None = None,
    *,
    model: PathLike = DEFAULT_MODEL,
    overwrite: bool = False,
    resume: bool = False,
    scheduler: str | None = None,
    progress: Report | None = None,
    **options: Any,
) -> "Micrograph | EnhancedFile":
    """Sharpen and clean an image tile by tile with a model.

    Parameters
    ----------
    image : Micrograph, (Y, X) numpy.ndarray or path
        What to enhance.
    output : path, optional
        Where the result is written; kept in memory without it.
    model : str or path, default="sem-restore"
        A name on the shelf, or a ``.safetensors`` file.
    overwrite : bool, default=False
        Replace an existing output.
    resume : bool, default=False
        Go on with an output that was interrupted.
    scheduler : str, optional
        Address of a dask scheduler.
    progress : callable, optional
        Receives every `Progress`.
    **options : object
        ``tile``, ``norm``, ``device``, ``precision``, ``dtype``, and reading options.

    Returns
    -------
    Micrograph or EnhancedFile
        The image itself, or what was written and what it cost.
    """
    from napari_semsr.inference.options import EnhanceOptions
    from napari_semsr.services import enhance as service

    chosen, opening = parse_each(options, EnhanceOptions, OpenOptions)
    source = as_source(image)
    if output is None:
        return run(
            service.enhance_image(source, model=model, options=chosen, opening=opening),
            progress,
        )
    job = service.enhance(
        source,
        output,
        model=model,
        options=chosen,
        opening=opening,
        overwrite=overwrite,
        resume=resume,
        scheduler=scheduler,
    )
    return run(job, progress)


def list_models() -> "ModelList":
    """List bundled and imported models.

    Returns
    -------
    ModelList
        Name, origin, architecture and description of each.
    """
    from napari_semsr.services import shelf

    return run(shelf.list_models())


def train(
    recipe: PathLike,
    run_dir: PathLike,
    *,
    resume: bool = False,
    overwrite: bool = False,
    pairs: PathLike | None = None,
    start_from: PathLike | None = None,
    steps: int | None = None,
    name: str | None = None,
    patch: int | None = None,
    anew: bool = False,
    progress: Report | None = None,
) -> "Trained":
    """Train a model from a recipe.

    Parameters
    ----------
    recipe : path or str
        A YAML file, or the name of a recipe of the package.
    run_dir : path
        Folder for checkpoints, log and model.
    resume : bool, default=False
        Go on from the last checkpoint.
    overwrite : bool, default=False
        Start anew in a folder that holds something.
    pairs : path, optional
        Store of pairs to learn from, in place of the recipe's images.
    start_from : path or str, optional
        Model whose weights are taken over, in place of the recipe's.
    steps : int, optional
        Length in place of the recipe's; its schedule is stretched.
    name : str, optional
        Name of the model in place of the recipe's.
    patch : int, optional
        Side in pixels of the patches to learn from, in place of the recipe's.
    anew : bool, default=False
        Begin with fresh weights although the recipe names a model.
    progress : callable, optional
        Receives every `Progress`.

    Returns
    -------
    Trained
        Steps, held-out figures, and the model's path.
    """
    from napari_semsr.services import train as service

    job = service.train(
        recipe,
        run_dir,
        resume=resume,
        overwrite=overwrite,
        pairs=pairs,
        start_from=start_from,
        steps=steps,
        name=name,
        patch=patch,
        anew=anew,
    )
    return run(job, progress)


def demo(
    folder: PathLike,
    *,
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Any,
) -> "DemoResult":
    """Stitch, enhance and measure generated images, ending in a report.

    Parameters
    ----------
    folder : path
        Where images and report go.
    overwrite : bool, default=False
        Replace what an earlier run left there.
    progress : callable, optional
        Receives every `Progress`.
    **options : object
        ``model``, ``frame_px``, ``size``, ``seed``.

    Returns
    -------
    DemoResult
        Path of the report, and its figures.
    """
    from napari_semsr.services import demo as service

    (chosen,) = parse_each(options, service.DemoOptions)
    return run(service.demo(folder, options=chosen, overwrite=overwrite), progress)
