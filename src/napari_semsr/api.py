"""The Python interface: one function for each command, run to its end.

Every function takes a `Micrograph`, a NumPy array or the path of an image. Options are
keywords with the names of the command's flags, ``pixel_size_nm`` and the other reading
options among them. `progress` receives every `Progress`.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import Micrograph, OptionError, Options, Progress, run
from napari_semsr.io import ReadOptions
from napari_semsr.jobs import DEFAULT_MODEL, find_model, open_image

if TYPE_CHECKING:
    import dask.array as da

    from napari_semsr.analysis import (
        Decorrelation,
        FrcMap,
        FrcResult,
        Gaps,
        Histogram,
        Metrics,
    )
    from napari_semsr.cli import BatchReport
    from napari_semsr.demonstration import DemoResult
    from napari_semsr.io import StoredTransform
    from napari_semsr.jobs import (
        CalibrationReport,
        Converted,
        Cropped,
        Description,
        EnhancedFile,
        ErrorMapReport,
        FigureMade,
        Judged,
        MeasuredTable,
        ModelCheck,
        ModelFile,
        ModelList,
        PairsMade,
        ProfileReport,
        Registered,
        RegisteredImage,
        RepeatabilityReport,
        ReplayReport,
        ReportMade,
        RestoredFile,
        ScaleBarReport,
        SimulatedScan,
        SpectrumReport,
        StitchedFile,
        Trained,
        TrustLearnt,
        TrustReport,
    )
    from napari_semsr.registration import Landmarks

PathLike = str | os.PathLike[str]
Source = Micrograph | NDArray[Any] | PathLike
Report = Callable[[Progress], None]


def _parse_each(options: Mapping[str, Any], *models: type[Options]) -> tuple[Any, ...]:
    """Give each model the options that it knows, and refuse those that none knows."""
    from napari_semsr.io import with_calibration

    options = with_calibration(options, models)
    known = {name for model in models for name in model.model_fields}
    unknown = sorted(set(options) - known)
    if unknown:
        msg = f"Options are {', '.join(sorted(known))}, got {', '.join(unknown)}."
        raise OptionError(msg)
    return tuple(
        model.parse({k: v for k, v in options.items() if k in model.model_fields})
        for model in models
    )


def _parse_sides(
    options: Mapping[str, Any], *models: type[Options]
) -> tuple[tuple[Any, ...], tuple[ReadOptions, ReadOptions]]:
    """Give each model its options, and two images those of reading."""
    from napari_semsr.jobs import both_openings

    reading = [*ReadOptions.model_fields, "calibration"]
    own = [name for model in models for name in model.model_fields]
    sides = [side + name for side in ("moving_", "fixed_") for name in reading]
    unknown = sorted(set(options) - {*own, *reading, *sides})
    if unknown:
        msg = (
            f"Options are {', '.join(sorted([*own, *reading]))}, those of reading also "
            f"with moving_ or fixed_ before them, got {', '.join(unknown)}."
        )
        raise OptionError(msg)
    parsed = tuple(
        model.parse({k: v for k, v in options.items() if k in model.model_fields})
        for model in models
    )
    return parsed, both_openings(options)


def _asked(options: Mapping[str, Any], model: type[Options]) -> dict[str, Any]:
    """Give a job its own options and those of reading."""
    chosen, opening = _parse_each(options, model, ReadOptions)
    return {"options": chosen, "opening": opening}


def _source(image: Any) -> Any:
    """Wrap an array as an uncalibrated micrograph; all else stays as it is."""
    return Micrograph(image) if isinstance(image, np.ndarray) else image


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

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> image = semsr.Micrograph(np.eye(48, 64), (7.7, 7.7))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     semsr.write(image, f"{folder}/field.ome.tif")
    ...     facts = semsr.info(f"{folder}/field.ome.tif").facts
    >>> facts["shape"], facts["dtype"], facts["pixel_size_nm"]
    ([48, 64], 'float64', [7.7, 7.7])
    """
    from napari_semsr.jobs import describe_job

    (opening,) = _parse_each(options, ReadOptions)
    return run(describe_job(os.fspath(path), options=opening))


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

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> grey = np.full((48, 64), 199.6)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = semsr.convert(
    ...         grey, f"{folder}/field.ome.zarr", dtype="uint8", pixel_size_nm=7.7
    ...     )
    ...     stored = semsr.read(made.output).array()
    >>> made.shape, made.dtype, made.pixel_size_nm, int(stored[0, 0])
    ((48, 64), 'uint8', (7.7, 7.7), 200)
    """
    from napari_semsr.jobs import convert_job

    (opening,) = _parse_each(options, ReadOptions)
    job = convert_job(
        _source(image), output, opening=opening, dtype=dtype, overwrite=overwrite
    )
    return run(job)


def degrade(image: Source, **options: Any) -> Micrograph:
    """Blur and haze an image as published test sets do.

    Parameters
    ----------
    image : Micrograph, (Y, X) numpy.ndarray or path
        A sharp image.
    **options : object
        ``kind``, ``uniform_fog``, ``airlight``, ``stretch``, ``seed``, and reading
        options.

    Returns
    -------
    Micrograph
        In the input's own type.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> sharp = np.random.default_rng(0).integers(0, 255, (48, 64), dtype=np.uint8)
    >>> soft = semsr.degrade(sharp, kind="blur")
    >>> soft.shape, soft.dtype, [round(one.std()) for one in (sharp, soft.array())]
    ((48, 64), dtype('uint8'), [75, 22])
    """
    from napari_semsr.jobs import DegradeOptions, degrade_image

    return degrade_image(_source(image), **_asked(options, DegradeOptions))[0]


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
    misfit: PathLike | None = ...,
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
    misfit: PathLike | None = None,
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
    misfit : path, optional
        Where a map goes of what the result, blurred again, does not explain of the
        image; with `output` alone.
    progress : callable, optional
        Receives every `Progress`.
    **options : object
        ``tile``, ``norm``, ``device``, ``precision``, ``dtype``, and reading options.

    Returns
    -------
    Micrograph or EnhancedFile
        The image itself, or what was written and what it cost.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> field = np.random.default_rng(0).random((96, 64), dtype=np.float32)
    >>> sharp = semsr.enhance(field, model="sem-restore", tile=32)
    >>> sharp.shape, sharp.dtype, sharp.provenance.job
    ((96, 64), dtype('float32'), 'enhance')
    """
    from napari_semsr.inference import EnhanceOptions
    from napari_semsr.jobs import enhance_in_memory, enhance_job

    asked = _asked(options, EnhanceOptions)
    source = _source(image)
    if output is None:
        return run(
            enhance_in_memory(source, model=model, **asked),
            progress,
        )
    job = enhance_job(
        source,
        output,
        model=model,
        **asked,
        overwrite=overwrite,
        resume=resume,
        scheduler=scheduler,
        misfit=misfit,
    )
    return run(job, progress)


def lazy_enhance(
    image: Source, *, model: PathLike = DEFAULT_MODEL, **options: Any
) -> "da.Array":
    """Enhance an image when, and where, it is looked at.

    Grey values, haze and the statistics that a network needs of the whole field are
    measured at once; a tile is computed when a part of it is asked for.

    Parameters
    ----------
    image : Micrograph, (Y, X) numpy.ndarray or path
        What to enhance. A store is read part by part.
    model : str or path, default="sem-restore"
        A name on the shelf, or a ``.safetensors`` file.
    **options : object
        ``tile``, ``norm``, ``device``, ``precision``, ``dtype``, and reading options.

    Returns
    -------
    (Y * scale, X * scale) dask.array.Array
        Grey values as `enhance` makes them; chunks are the tiles. The names of its
        tasks are made from the image, the options and the model's digest, so that a
        retrained model never meets what was cached for the old one.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> field = np.random.default_rng(0).random((96, 64), dtype=np.float32)
    >>> array = semsr.lazy_enhance(field, model="sem-restore", tile=32)
    >>> array.shape, array.numblocks
    ((96, 64), (3, 2))
    """
    from napari_semsr.inference import EnhanceOptions

    chosen, opening = _parse_each(options, EnhanceOptions, ReadOptions)
    path = find_model(model)
    source = open_image(_source(image), opening)
    from napari_semsr.inference import enhance_lazy
    from napari_semsr.models import load_model

    return enhance_lazy(source, load_model(path), chosen)


def list_models() -> "ModelList":
    """List bundled and imported models.

    Returns
    -------
    ModelList
        Name, origin, architecture and description of each.

    Examples
    --------
    >>> import napari_semsr as semsr
    >>> first = semsr.list_models().models[0]
    >>> first["name"], first["bundled"], first["scale"]
    ('sem-restore', True, 1)
    """
    from napari_semsr.jobs import list_models_job

    return run(list_models_job())


def model_info(model: PathLike) -> "ModelFile":
    """Read the card of a model.

    Parameters
    ----------
    model : str or path
        A name on the shelf, or a ``.safetensors`` file.

    Returns
    -------
    ModelFile
        The card, with where and how large the file is.
    """
    from napari_semsr.jobs import model_info_job

    return run(model_info_job(os.fspath(model)))


def export_model(
    model: PathLike,
    output: PathLike,
    *,
    to: Literal["semsr", "onnx", "bioimageio"] | None = None,
    field: "Micrograph | PathLike | None" = None,
    authors: Sequence[str] = (),
    overwrite: bool = False,
) -> "ModelFile":
    """Write a model out of the shelf, for this program or for others.

    Parameters
    ----------
    model : str or path
        A name on the shelf, or a ``.safetensors`` file.
    output : path
        Ends in ``.safetensors``, ``.onnx``, or ``.zip`` for bioimage.io; the last two
        need the extra ``[onnx]``.
    to : {"semsr", "onnx", "bioimageio"}, optional
        What is written; by default the suffix tells.
    field : Micrograph or path, optional
        For a model that looks at whole fields, where others cannot: what it is told of
        this one is written into its weights; haze is left out.
    authors : sequence of str, optional
        Who is named in a package of bioimage.io.
    overwrite : bool, default=False
        Replace an existing file.

    Returns
    -------
    ModelFile
        What was written.

    Raises
    ------
    CheckpointError
        If what the model does cannot be said in what is asked for.
    """
    from napari_semsr.jobs import export_model_job

    return run(
        export_model_job(
            os.fspath(model),
            output,
            to=to,
            field=field,
            authors=authors,
            overwrite=overwrite,
        )
    )


def import_model(
    file: PathLike, *, overwrite: bool = False, **options: Any
) -> "ModelFile":
    """Put a model file on the shelf, after reading its card and trying its weights.

    Parameters
    ----------
    file : path
        A ``.safetensors`` file with a card, an ``.onnx`` file or a ``.zip`` of
        bioimage.io with ONNX weights (both need the extra ``[onnx]``), or a ``.pth``
        file with the published weights of an ESRGAN generator.
    overwrite : bool, default=False
        Replace an imported model of the same name.
    **options
        What an ONNX file does not say: fields of `napari_semsr.jobs.ImportOptions`.

    Returns
    -------
    ModelFile
        The model on the shelf, under the name on its card.

    Raises
    ------
    CheckpointError
        If the file is refused.
    """
    from napari_semsr.jobs import ImportOptions, import_model_job

    chosen = ImportOptions.parse(options)
    return run(import_model_job(file, options=chosen, overwrite=overwrite))


def train(
    recipe: PathLike,
    run_dir: PathLike,
    *,
    resume: bool = False,
    overwrite: bool = False,
    pairs: PathLike | None = None,
    low: Source | None = None,
    high: Source | None = None,
    transform: "StoredTransform | PathLike | None" = None,
    image: Source | None = None,
    second: Source | None = None,
    start_from: PathLike | None = None,
    steps: int | None = None,
    name: str | None = None,
    patch: int | None = None,
    anew: bool = False,
    bank_folder: PathLike | None = None,
    devices: int | None = None,
    nodes: int | None = None,
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
    low, high : Micrograph, (Y, X) numpy.ndarray or path, optional
        Two images of one place that pairs are cut from, beside the folder of the run.
    transform : StoredTransform or path, optional
        Map from `low` (moving) to `high` (fixed), kept by `register`; none where both
        lie on one grid.
    image, second : Micrograph, (Y, X) numpy.ndarray or path, optional
        A noisy image to learn from alone, by the recipe ``"own-image"``; or from it and
        another scan of the same place, which is registered.
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
    bank_folder : path, optional
        Where scenes are kept that the recipe makes ahead, to be shared by several runs;
        by default in the folder of the run.
    devices, nodes : int, optional
        Processors of this machine, and machines, that learn together.
    progress : callable, optional
        Receives every `Progress`.

    Returns
    -------
    Trained
        Steps, held-out figures, and the model's path.
    """
    from napari_semsr.jobs import TrainingPlace, images_to_cut, train_job

    given = [
        None if one is None else _source(one) for one in (low, high, image, second)
    ]
    cut = images_to_cut(given[0], given[1], transform, image=given[2], second=given[3])
    banks = None if bank_folder is None else str(bank_folder)
    place = {"bank_folder": banks, "devices": devices, "nodes": nodes}
    job = train_job(
        recipe,
        run_dir,
        resume=resume,
        overwrite=overwrite,
        pairs=pairs,
        cut=cut,
        start_from=start_from,
        steps=steps,
        name=name,
        patch=patch,
        anew=anew,
        place=TrainingPlace.parse(place),
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
    from napari_semsr.demonstration import DemoOptions, demo_job

    (chosen,) = _parse_each(options, DemoOptions)
    return run(demo_job(folder, options=chosen, overwrite=overwrite), progress)


@overload
def restore(
    image: Source,
    output: None = None,
    *,
    progress: Report | None = ...,
    **options: Any,
) -> Micrograph: ...
@overload
def restore(
    image: Source,
    output: PathLike,
    *,
    overwrite: bool = ...,
    resume: bool = ...,
    progress: Report | None = ...,
    **options: Any,
) -> "RestoredFile": ...
def restore(
    image: Source,
    output: PathLike | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: Report | None = None,
    **options: Any,
) -> "Micrograph | RestoredFile":
    """Undo an image's blur by a classical method.

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

    Examples
    --------
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> y, x = np.mgrid[:64, :64]
    >>> soft = 1 / (1 + np.exp((np.hypot(y - 32, x - 32) - 16) / 2))
    >>> sharp = semsr.restore(
    ...     soft, method="richardson-lucy", psf="2px", pixel_size_nm=10
    ... )
    >>> [round(float(np.diff(edge).max()), 2) for edge in (soft, sharp.array())]
    [0.12, 0.16]
    """
    from napari_semsr.jobs import restore_in_memory
    from napari_semsr.restoration import RestoreOptions

    asked = _asked(options, RestoreOptions)
    source = _source(image)
    if output is None:
        job = restore_in_memory(source, **asked)
        return run(job, progress)
    from napari_semsr.jobs import restore_job

    writing = restore_job(source, output, **asked, overwrite=overwrite, resume=resume)
    return run(writing, progress)


def pairs(
    low: Source | Sequence[Micrograph],
    high: Source | Sequence[Micrograph],
    output: PathLike,
    *,
    transform: "StoredTransform | PathLike | None" = None,
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Any,
) -> "PairsMade":
    """Cut aligned patches into disjoint training, validation and test sets.

    ``napari_semsr.pairing.open_pairs`` reads what is written here.

    Parameters
    ----------
    low, high : Micrograph, (Y, X) numpy.ndarray, path or sequence of Micrograph
        Two images of one field, or two folders.
    output : path
        Ends in ``.zarr``; a contact sheet goes beside it.
    transform : StoredTransform or path, optional
        Map from LOW (moving) to HIGH (fixed), kept by `register`.
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

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> high = np.random.default_rng(0).random((96, 96))
    >>> low = (high + np.roll(high, 1, axis=1)) / 2
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = semsr.pairs(low, high, f"{folder}/pairs.zarr", patch=16)
    >>> made.train, made.validation, made.test
    (28, 4, 4)
    """
    from napari_semsr.jobs import pairs_job
    from napari_semsr.pairing import PairOptions

    job = pairs_job(
        _source(low),
        _source(high),
        output,
        transform=transform,
        **_asked(options, PairOptions),
        overwrite=overwrite,
    )
    return run(job, progress)


def gaps(
    image: Source,
    reference: Source | None = None,
    *,
    table: PathLike | None = None,
    overwrite: bool = False,
    **options: Any,
) -> "Gaps":
    """Count and measure the gaps between particles.

    Parameters
    ----------
    image : Micrograph, (Y, X) numpy.ndarray or path
        An image of particles.
    reference : Micrograph, (Y, X) numpy.ndarray or path, optional
        A better image of the same field, on the same grid.
    table : path, optional
        A ``.csv`` file, which gets a row for each gap.
    overwrite : bool, default=False
        Replace an existing table.
    **options : object
        ``dark``, ``min_diameter_px``, ``reach``, ``bin_width``, and reading options.

    Returns
    -------
    Gaps
        Every gap, and how many of the reference's the image shows; `Gaps.histograms`
        counts their widths and fits a Gaussian.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> y, x = np.mgrid[:64, :96]
    >>> distance = np.minimum(np.hypot(y - 32, x - 30), np.hypot(y - 32, x - 62))
    >>> two = 1 / (1 + np.exp(distance - 12))
    >>> found = semsr.gaps(two, pixel_size_nm=2)
    >>> found.particles, [round(gap.width_nm, 1) for gap in found.found]
    (2, [22.0])
    """
    from napari_semsr.analysis import GapOptions
    from napari_semsr.jobs import gaps_job

    job = gaps_job(
        _source(image),
        _source(reference),
        table=table,
        **_asked(options, GapOptions),
        overwrite=overwrite,
    )
    return run(job).result


def profile(image: Source, line: Sequence[float], **options: Any) -> "ProfileReport":
    """Measure along a line: widths of lines, the width of an edge, pairs of lines.

    Parameters
    ----------
    image : Micrograph, (Y, X) numpy.ndarray or path
        An image; only what lies under the line is read of a lazy one.
    line : sequence of float
        ``(y0, x0, y1, x1)`` in px of the image.
    **options : object
        ``width``, ``polarity``, ``prominence``, ``pixel``, and reading options.

    Returns
    -------
    ProfileReport
        The curve in ``profile``, what was read off it in ``readings``; ``to_json`` has
        both in nm.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> y, x = np.mgrid[:32, :64]
    >>> bright = np.exp(-4 * np.log(2) * ((x - 30) / 8) ** 2)
    >>> line = (16, 0, 16, 63)
    >>> found = semsr.profile(bright, line, pixel="point", pixel_size_nm=5).to_json()
    >>> round(found["fwhm_nm"], 1), round(found["peaks_nm"][0], 1)
    (40.0, 150.0)
    """
    from napari_semsr.analysis import ProfileOptions
    from napari_semsr.jobs import profile_job

    given = {**options, "line": tuple(line)}
    job = profile_job(_source(image), **_asked(given, ProfileOptions))
    return run(job)


def figure(
    images: Sequence[Source],
    output: PathLike,
    *,
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Any,
) -> "FigureMade":
    """Draw images and maps for a paper: bars in nm, colour bars, a caption.

    An image that a network made is named as such in the caption.

    Parameters
    ----------
    images : sequence of Micrograph, (Y, X) numpy.ndarray or path
        Up to twelve, in the order of their letters.
    output : path
        ``.png``, ``.tif`` or ``.pdf``.
    overwrite : bool, default=False
        Replace an existing file.
    progress : callable, optional
        Receives every `Progress`.
    **options : object
        ``width_mm``, ``dpi``, ``columns``, ``caption``, ``no_caption``, ``greys``,
        ``overlay``, ``inset``, and reading options.

    Returns
    -------
    FigureMade
        The file and its caption.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> image = semsr.Micrograph(np.random.default_rng(0).random((60, 80)), (5, 5), "A")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     semsr.figure([image, image], f"{folder}/one.png", dpi=100).caption
    '(a) A; bar 100 nm. (b) A; bar 100 nm.'
    """
    from napari_semsr.jobs import FigureOptions, figure_job

    job = figure_job(
        [_source(image) for image in images],
        output,
        overwrite=overwrite,
        **_asked(options, FigureOptions),
    )
    return run(job, progress)


def batch(
    steps: PathLike | Mapping[str, Any],
    *,
    inputs: PathLike | None = None,
    output: PathLike | None = None,
    overwrite: bool = False,
    workers: int = 1,
    scheduler: str | None = None,
    progress: Report | None = None,
) -> "BatchReport":
    """Take every image of a folder, glob or table through steps, to one table.

    Called again, it goes on: a step that is finished is not run again.

    Parameters
    ----------
    steps : path or dict
        A YAML file with ``inputs``, ``output``, ``steps`` and perhaps ``report``, or
        what it would hold.
    inputs, output : path, optional
        In place of those of the steps.
    overwrite : bool, default=False
        Begin anew, also in a folder that holds other files.
    workers : int, default=1
        Processes that take images side by side. A script that asks for several must
        call this under ``if __name__ == "__main__":``.
    scheduler : str, optional
        Address of a dask scheduler whose workers see the same files.
    progress : callable, optional
        Receives every `Progress`.

    Returns
    -------
    BatchReport
        How many images are done and failed, the table and its rows.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> image = semsr.Micrograph(np.random.default_rng(0).random((60, 80)), (5, 5), "A")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     semsr.write(image, f"{folder}/a.tif")
    ...     made = semsr.batch(
    ...         {
    ...             "inputs": f"{folder}/*.tif",
    ...             "output": f"{folder}/made",
    ...             "steps": [{"restore": {"psf": "1px"}}, "histogram"],
    ...         }
    ...     )
    >>> made.done, made.failed, round(made.rows[0]["histogram_mean_grey"], 1)
    (1, 0, 0.5)
    """
    from napari_semsr.cli import batch_job

    job = batch_job(
        steps,
        inputs=inputs,
        output=output,
        overwrite=overwrite,
        workers=workers,
        scheduler=scheduler,
    )
    return run(job, progress)


def replay(
    output: PathLike,
    *,
    inputs: PathLike | None = None,
    progress: Report | None = None,
) -> "ReplayReport":
    """Make an output again from its provenance, and compare the two.

    Parameters
    ----------
    output : path
        An image or store that this package wrote.
    inputs : path, optional
        A folder in which inputs are sought by their digests, when they are not where
        they lay.
    progress : callable, optional
        Receives every `Progress`.

    Returns
    -------
    ReplayReport
        Whether both are identical, and what differs.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> image = semsr.Micrograph(np.random.default_rng(0).random((60, 80)), (5, 5), "A")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     semsr.write(image, f"{folder}/a.tif")
    ...     made = semsr.restore(f"{folder}/a.tif", f"{folder}/b.tif", psf="1px")
    ...     semsr.replay(made.output).identical
    True
    """
    from napari_semsr.jobs import replay_job

    return run(replay_job(output, inputs=inputs), progress)


def report(
    inputs: "Source | Sequence[Source | tuple[Source, Source]]",
    output: PathLike,
    *,
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Any,
) -> "ReportMade":
    """Measure images and pairs, and write a page of all that is known of them.

    Parameters
    ----------
    inputs : Micrograph, (Y, X) numpy.ndarray, path or sequence of these
        Images; JSON files of measuring verbs; pairs as two images or ``"A::B"``, of
        which the first is the reference.
    output : path
        The page, ``.html``; every number goes beside it with ``.json``.
    overwrite : bool, default=False
        Replace an existing page and its numbers.
    progress : callable, optional
        Receives every `Progress`.
    **options : object
        ``title``, ``criterion``, ``greys``, and reading options.

    Returns
    -------
    ReportMade
        Where both are, what was refused, and sentences for a Methods section.

    Examples
    --------
    >>> import json
    >>> import tempfile
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> grey = np.random.default_rng(0).random((96, 96))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     image = semsr.Micrograph(grey, (5, 5), "A")
    ...     made = semsr.report([image], f"{folder}/page.html")
    ...     with open(made.numbers, encoding="utf-8") as stream:
    ...         told = json.load(stream)["images"][0]["numbers"]
    >>> told[0]["name"], round(told[0]["value"], 2)
    ('Mean grey level', 0.5)
    >>> made.references[-1][:40]
    '[5] X. Gao et al., Sci. Rep. 14 (2024), '
    """
    from napari_semsr.jobs import ReportOptions, report_job

    alone = isinstance(inputs, (str, os.PathLike, Micrograph, np.ndarray))
    given: Sequence[Any] = [inputs] if alone else inputs  # type: ignore[assignment]
    job = report_job(
        [
            (_source(item[0]), _source(item[1]))
            if isinstance(item, tuple) and len(item) == 2
            else _source(item)
            for item in given
        ],
        output,
        overwrite=overwrite,
        **_asked(options, ReportOptions),
    )
    return run(job, progress)


def trust(
    image: Source,
    enhanced: Source,
    output: PathLike | None = None,
    *,
    model: PathLike | None = None,
    objects: PathLike | None = None,
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Any,
) -> "TrustReport":
    """Map how far an enhanced image may be off.

    Parameters
    ----------
    image, enhanced : Micrograph, (Y, X) numpy.ndarray or path
        What was enhanced, and what was made of it.
    output : path, optional
        Where the map goes; without it, it stays in memory.
    model : str or path, optional
        What made it; by default the model that the enhanced image names.
    objects : path, optional
        A ``.csv`` or ``.parquet`` file for a row of each small object of the enhanced
        image, and how likely it is invented; napari opens the former as points.
    overwrite : bool, default=False
        Replace existing outputs.
    progress : callable, optional
        Receives every `Progress`.
    **options : object
        ``show``, ``unit``, ``device``, and reading options.

    Returns
    -------
    TrustReport
        Mean and 95th percentile of the bound, and whether the field is of a kind that
        it was calibrated on; the objects as ``found``; ``map`` where it stayed in
        memory.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> grey = np.random.default_rng(0).random((64, 64)).astype("float32")
    >>> image = semsr.Micrograph(grey, (20, 20), "A")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = semsr.enhance(image, f"{folder}/made.ome.zarr", model="ssum-sem")
    ...     found = semsr.trust(image, made.output, show="spread")
    >>> found.model, found.map.shape
    ('ssum-sem', (64, 64))
    """
    from napari_semsr.jobs import TrustOptions, trust_job

    job = trust_job(
        _source(image),
        _source(enhanced),
        output,
        model=model,
        objects=objects,
        **_asked(options, TrustOptions),
        overwrite=overwrite,
    )
    return run(job, progress)


def learn_trust(
    model: PathLike = "sem-restore",
    output: PathLike | None = None,
    *,
    folder: PathLike | None = None,
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Any,
) -> "TrustLearnt":
    """Learn where a model errs, so that `trust` can tell it.

    The command is ``semsr models trust``.

    Parameters
    ----------
    model : str or path, default="sem-restore"
        A name on the shelf, or a ``.safetensors`` file.
    output : path, optional
        A ``.json`` file; by default in the folder ``trust`` beside the model, where
        `trust` looks for it.
    folder : path, optional
        Folder of the clear images that the model's recipe names, for one that learnt
        from images.
    overwrite : bool, default=False
        Replace what was learnt before.
    progress : callable, optional
        Receives every `Progress`.
    **options : object
        ``fields``, ``calibration``, ``samples``, ``share``, ``seed``, ``device``.

    Returns
    -------
    TrustLearnt
        The file, and the factor of the bound.
    """
    from napari_semsr.jobs import TrustLearning, learn_trust_job

    job = learn_trust_job(
        model,
        output,
        folder=folder,
        options=TrustLearning.parse(options),
        overwrite=overwrite,
    )
    return run(job, progress)


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
    from napari_semsr.jobs import CheckOptions, check_model_job

    job = check_model_job(
        model,
        [_source(image) for image in images],
        held_out=held_out,
        **_asked(options, CheckOptions),
        write=write,
    )
    return run(job, progress)


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
    resume: bool = ...,
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
    resume: bool = False,
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
    resume : bool, default=False
        Go on with outputs that were interrupted.
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

    Examples
    --------
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> image = semsr.Micrograph(np.eye(64), (10.0, 10.0))
    >>> part = semsr.crop(image, box=(8, 16, 40, 64))
    >>> part.shape, part.origin
    ((32, 48), (80.0, 160.0))
    """
    from napari_semsr.jobs import CropOptions, crop_in_memory, crop_job

    asked = _asked(options, CropOptions)
    source, reference = _source(image), _source(like)
    if output is None:
        if like_output is not None:
            msg = "A part of the reference is written beside an output: give one."
            raise OptionError(msg)
        job = crop_in_memory(source, like=reference, **asked)
        return run(job, progress)
    writing = crop_job(
        source,
        output,
        like=reference,
        like_output=like_output,
        **asked,
        overwrite=overwrite,
        resume=resume,
        keep=True,
    )
    return run(writing, progress)


@overload
def register(
    moving: Source,
    fixed: Source,
    output: None = None,
    *,
    landmarks: "Landmarks | PathLike | None" = ...,
    transform: "StoredTransform | PathLike | None" = ...,
    progress: Report | None = ...,
    **options: Any,
) -> "RegisteredImage": ...
@overload
def register(
    moving: Source,
    fixed: Source,
    output: PathLike,
    *,
    landmarks: "Landmarks | PathLike | None" = ...,
    transform: "StoredTransform | PathLike | None" = ...,
    transform_out: PathLike | None = ...,
    overwrite: bool = ...,
    progress: Report | None = ...,
    **options: Any,
) -> "Registered": ...
def register(
    moving: Source,
    fixed: Source,
    output: PathLike | None = None,
    *,
    landmarks: "Landmarks | PathLike | None" = None,
    transform: "StoredTransform | PathLike | None" = None,
    transform_out: PathLike | None = None,
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Any,
) -> "RegisteredImage | Registered":
    """Bring an image onto another of the same place, whatever its contrast.

    Parameters
    ----------
    moving, fixed : Micrograph, (Y, X) numpy.ndarray or path
        Images of one place, whose pixel sizes are known.
    output : path, optional
        Where the moving image on the grid of the fixed one is written; without it
        nothing is, and its pixels are computed where they are looked at.
    landmarks : Landmarks or path, optional
        Pairs of places in both images, from which the map starts.
    transform : StoredTransform or path, optional
        A map that was found before; it is applied, and none is searched for.
    transform_out : path, optional
        Receives the map: ``.json``, or for other programs ``.tfm`` (ITK),
        ``.ngff.json`` or ``.csv`` (napari).
    overwrite : bool, default=False
        Replace existing outputs.
    progress : callable, optional
        Receives every `Progress`.
    **options : object
        ``model``, ``search``, ``landmarks_only``, and reading options for both images,
        or for one with ``moving_`` or ``fixed_`` before them.

    Returns
    -------
    RegisteredImage or Registered
        The image with the map, or what was written.

    Raises
    ------
    RegistrationRefused
        If no map can be believed; its ``reason`` and ``rivals`` say why.
    OptionError
        If the map is to be written and the image is not.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> from napari_semsr.registration import Landmarks
    >>> image = semsr.Micrograph(np.eye(64), (10.0, 10.0))
    >>> places = np.array([[0.0, 0.0], [0.0, 600.0], [600.0, 0.0], [600.0, 600.0]])
    >>> marks = Landmarks(places, places)
    >>> found = semsr.register(image, image, landmarks=marks, landmarks_only=True)
    >>> found.image.shape, round(found.registration.transform.scale, 6)
    ((64, 64), 1.0)
    """
    from napari_semsr.jobs import RegisterOptions, register_in_memory, register_job

    (chosen,), (opening, fixed_opening) = _parse_sides(options, RegisterOptions)
    asked: dict[str, Any] = {
        "options": chosen,
        "landmarks": landmarks,
        "transform": transform,
        "opening": opening,
        "fixed_opening": fixed_opening,
    }
    sources = _source(moving), _source(fixed)
    if output is None:
        if transform_out is not None:
            msg = "A map is written beside an image: give an output as well."
            raise OptionError(msg)
        return run(register_in_memory(*sources, **asked), progress)
    job = register_job(
        *sources, output, transform_out=transform_out, overwrite=overwrite, **asked
    )
    return run(job, progress)


def judge(
    optical: Source,
    sem: Source,
    output: PathLike,
    *,
    models: Sequence[PathLike] | None = None,
    landmarks: "Landmarks | PathLike | None" = None,
    transform: "StoredTransform | PathLike | None" = None,
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Any,
) -> "Judged":
    """Register an image to SEM, enhance it, and measure all against SEM, on one page.

    Parameters
    ----------
    optical, sem : Micrograph, (Y, X) numpy.ndarray or path
        Images of one place, whose pixel sizes are known.
    output : path
        The page, ``.html``; every number goes beside it, with ``.json``.
    models : sequence of str or path, optional
        Networks on the shelf, or files; none where it is empty. By default that for
        superlens mosaics, or for an image of an electron microscope that for those.
    landmarks : Landmarks or path, optional
        Pairs of places in both images, from which the map starts.
    transform : StoredTransform or path, optional
        A map that was found before; it is applied, and none is searched for.
    overwrite : bool, default=False
        Replace an existing page and its numbers.
    progress : callable, optional
        Receives every `Progress`.
    **options : object
        ``model``, ``search`` and ``landmarks_only`` of the map, ``data_range``,
        ``cut_off_nm``, those of `enhance`, and reading options for both images, or for
        one with ``moving_`` (the optical one) or ``fixed_`` (SEM) before them.

    Returns
    -------
    Judged
        The figures of every picture.

    Raises
    ------
    RegistrationRefused
        If no map can be believed; nothing is written then.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> from napari_semsr.registration import Landmarks
    >>> image = semsr.Micrograph(np.random.default_rng(0).random((96, 96)), (10, 10))
    >>> places = np.array([[0.0, 0.0], [0.0, 900.0], [900.0, 0.0], [900.0, 900.0]])
    >>> marks = {"landmarks": Landmarks(places, places), "landmarks_only": True}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = f"{folder}/page.html"
    ...     found = semsr.judge(image, image, page, models=(), **marks)
    >>> list(found.baselines), found.area["shape"]
    (['input', 'linear filter'], [96, 96])
    """
    from napari_semsr.inference import EnhanceOptions
    from napari_semsr.jobs import JudgeOptions, judge_job

    parsed, openings = _parse_sides(options, JudgeOptions, EnhanceOptions)
    job = judge_job(
        _source(optical),
        _source(sem),
        output,
        models=models,
        options=parsed[0],
        enhancing=parsed[1],
        landmarks=landmarks,
        transform=transform,
        opening=openings[0],
        sem_opening=openings[1],
        overwrite=overwrite,
    )
    return run(job, progress)


def simulate(
    folder: PathLike,
    image: Source | None = None,
    *,
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Any,
) -> "SimulatedScan":
    """Make a folder of superlens frames whose truth is known.

    Parameters
    ----------
    folder : path
        Receives frames, nominal positions and the truth.
    image : Micrograph, (Y, X) numpy.ndarray or path, optional
        What is scanned; a phantom is drawn when not given.
    overwrite : bool, default=False
        Replace an earlier simulation.
    progress : callable, optional
        Receives every `Progress`.
    **options : object
        Flags of the command, such as ``phantom``, ``frames_grid`` and ``seed``, and
        reading options.

    Returns
    -------
    SimulatedScan
        Number of frames, and where the truth is.

    Examples
    --------
    >>> import tempfile
    >>> import napari_semsr as semsr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = semsr.simulate(
    ...         folder, phantom="particles", frames_grid=(2, 3), frame_px=64
    ...     )
    >>> made.grid, made.frame_shape, made.pixel_size_nm
    ((2, 3), (64, 64), (20.0, 20.0))
    """
    from napari_semsr.jobs import SimulateOptions, simulate_job

    chosen, opening = _parse_each(options, SimulateOptions, ReadOptions)
    job = simulate_job(
        folder,
        image=_source(image),
        options=chosen,
        opening=opening.replace(pixel_size_nm=None),
        overwrite=overwrite,
    )
    return run(job, progress)


def stitch(
    folder: PathLike,
    output: PathLike,
    *,
    positions: PathLike | None = None,
    positions_out: PathLike | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Report | None = None,
    **options: Any,
) -> "StitchedFile":
    """Join the frames of a folder to one calibrated mosaic.

    Parameters
    ----------
    folder : path
        Frames, with ``positions.csv`` and ``scan.json`` where known.
    output : path
        Its suffix names the format.
    positions : path, optional
        Table of nominal positions, in place of the folder's own.
    positions_out : path, optional
        Receives the solved positions as a table.
    overwrite : bool, default=False
        Replace existing outputs.
    resume : bool, default=False
        Go on with an output that was interrupted.
    progress : callable, optional
        Receives every `Progress`.
    **options : object
        Flags of the command, such as ``grid``, ``overlap`` and ``flat_field``.

    Returns
    -------
    StitchedFile
        Positions, joints, warnings, and what was written.

    Examples
    --------
    >>> import tempfile
    >>> import napari_semsr as semsr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     scan = f"{folder}/scan"
    ...     made = semsr.simulate(
    ...         scan, phantom="particles", frames_grid=(1, 2), frame_px=64, overlap=0.4
    ...     )
    ...     mosaic = semsr.stitch(scan, f"{folder}/mosaic.ome.tif")
    >>> mosaic.frames, mosaic.pairs_used, mosaic.shape
    (2, 1, (71, 96))
    """
    from napari_semsr.jobs import StitchFolderOptions, stitch_job

    (chosen,) = _parse_each(options, StitchFolderOptions)
    job = stitch_job(
        folder,
        output,
        positions=positions,
        positions_out=positions_out,
        options=chosen,
        overwrite=overwrite,
        resume=resume,
        keep=True,
    )
    return run(job, progress)


@overload
def calibrate(
    grating: Source,
    output: PathLike | None = None,
    *,
    overwrite: bool = False,
    bar: Literal[False] = False,
    **options: Any,
) -> "CalibrationReport": ...


@overload
def calibrate(
    grating: Source,
    output: PathLike | None = None,
    *,
    overwrite: bool = False,
    bar: Literal[True] | str | float,
    **options: Any,
) -> "ScaleBarReport": ...


def calibrate(
    grating: Source,
    output: PathLike | None = None,
    *,
    overwrite: bool = False,
    bar: bool | str | float = False,
    **options: Any,
) -> "CalibrationReport | ScaleBarReport":
    """Find pixel size, skew and distortion by a known grating, or a printed bar.

    Parameters
    ----------
    grating : Micrograph, (Y, X) numpy.ndarray or path
        Its picture: lines, or dots on a square or hexagonal lattice, turned anyhow; or
        an image with a printed scale bar.
    output : path, optional
        A ``.json`` file that others take as ``calibration``.
    overwrite : bool, default=False
        Replace an existing output.
    bar : bool, str or float, default=False
        True looks for a printed scale bar and gives its length in pixels; what its
        label says, such as ``"50 um"`` or a number of nm, gives the pixel size, too.
    **options : object
        ``pitch_nm``, which must be given of a grating, ``pitch_sd_nm``, ``lattice``,
        and reading options.

    Returns
    -------
    CalibrationReport or ScaleBarReport
        Its ``calibration`` has all figures with their standard deviations.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> lines = np.tile(np.sin(2 * np.pi * np.arange(256) / 12.5), (256, 1))
    >>> found = semsr.calibrate(lines, pitch_nm=250).calibration
    >>> round(found.pixel_size_nm[1], 2), found.lattice
    (20.0, 'lines')
    """
    from napari_semsr.analysis import CalibrateOptions
    from napari_semsr.jobs import calibrate_job, scale_bar_job

    if bar is not False:
        (opening,) = _parse_each(options, ReadOptions)
        length = None if bar is True else bar
        return run(
            scale_bar_job(
                _source(grating),
                output,
                length=length,
                opening=opening,
                overwrite=overwrite,
            )
        )
    job = calibrate_job(
        _source(grating),
        output,
        **_asked(options, CalibrateOptions),
        overwrite=overwrite,
    )
    return run(job)


def frc(
    a: Source, b: Source | None = None, *, register: bool = True, **options: Any
) -> "FrcResult":
    """Measure resolution by Fourier ring correlation.

    Parameters
    ----------
    a : Micrograph, (Y, X) numpy.ndarray or path
        An image; alone, a mosaic is measured by the halves that were stitched beside
        it, and any other is split.
    b : Micrograph, (Y, X) numpy.ndarray or path, optional
        A second, independent image of the same field.
    register : bool, default=True
        Move `b` onto `a` by parts of a pixel first, where a shift is believed.
    **options : object
        ``criterion``, ``estimator``, ``tukey``, ``reference``, ``cut_off_nm``,
        ``allow_self``, ``split``, ``gain``, ``offset``, ``read_noise``, and reading
        options.

    Returns
    -------
    FrcResult
        Resolution and curve; without a crossing, the reason.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> from scipy.ndimage import gaussian_filter
    >>> rng = np.random.default_rng(0)
    >>> truth = 4 * gaussian_filter(rng.normal(size=(128, 128)), sigma=2)
    >>> first, second = (truth + rng.normal(0, 0.3, truth.shape) for _ in "ab")
    >>> found = semsr.frc(first, second, pixel_size_nm=5)
    >>> found.criterion, round(found.resolution_nm)
    ('1/7', 24)
    """
    from napari_semsr.analysis import FrcOptions
    from napari_semsr.jobs import frc_job

    asked = _asked(options, FrcOptions)
    job = frc_job(_source(a), _source(b), register=register, **asked)
    return run(job).result


def frc_map(
    a: Source,
    b: Source | None = None,
    output: PathLike | None = None,
    *,
    register: bool = True,
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Any,
) -> "FrcMap":
    """Map the resolution block by block.

    Parameters
    ----------
    a : Micrograph, (Y, X) numpy.ndarray or path
        An image; alone, a mosaic is measured by the halves that were stitched beside
        it, and any other has its blocks split.
    b : Micrograph, (Y, X) numpy.ndarray or path, optional
        A second, independent image of the same field.
    output : path, optional
        Where the map is written.
    register : bool, default=True
        Move `b` onto `a` by parts of a pixel first, where a shift is believed.
    overwrite : bool, default=False
        Replace an existing output.
    progress : callable, optional
        Receives every `Progress`.
    **options : object
        Those of `frc`, with ``block``, ``step``, ``blocks_per_axis`` and ``fill``.

    Returns
    -------
    FrcMap
        The map, its reasons and its spread.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> from scipy.ndimage import gaussian_filter
    >>> rng = np.random.default_rng(0)
    >>> truth = 4 * gaussian_filter(rng.normal(size=(128, 128)), sigma=2)
    >>> first, second = (truth + rng.normal(0, 0.3, truth.shape) for _ in "ab")
    >>> found = semsr.frc_map(first, second, block=64, step=32, pixel_size_nm=5)
    >>> found.map.shape, round(float(np.nanmedian(found.map.data))), found.unit
    ((3, 3), 24, 'nm')
    """
    from napari_semsr.analysis import FrcMapOptions
    from napari_semsr.jobs import frc_map_job

    job = frc_map_job(
        _source(a),
        _source(b),
        output,
        register=register,
        **_asked(options, FrcMapOptions),
        overwrite=overwrite,
    )
    return run(job, progress).result


def decorrelation(image: Source, **options: Any) -> "Decorrelation":
    """Measure the cut-off of one image by decorrelation analysis.

    Parameters
    ----------
    image : Micrograph, (Y, X) numpy.ndarray or path
        An image.
    **options : object
        ``block``, and reading options.

    Returns
    -------
    Decorrelation
        The cut-off, or why there is none.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> rng = np.random.default_rng(0)
    >>> plane = np.fft.fft2(rng.normal(size=(256, 256)))
    >>> plane[np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(256)])) > 1 / 4] = 0
    >>> image = np.fft.ifft2(plane).real + rng.normal(0, 0.05, plane.shape)
    >>> found = semsr.decorrelation(image, pixel_size_nm=5)
    >>> round(found.resolution_px, 1), round(found.resolution_nm)
    (4.0, 20)
    """
    from napari_semsr.analysis import DecorrelationOptions
    from napari_semsr.jobs import decorrelation_job

    job = decorrelation_job(_source(image), **_asked(options, DecorrelationOptions))
    return run(job).result


def spectrum(
    image: Source,
    output: PathLike | None = None,
    *,
    overwrite: bool = False,
    **options: Any,
) -> "SpectrumReport":
    """Measure the power spectrum of an image.

    Parameters
    ----------
    image : Micrograph, (Y, X) numpy.ndarray or path
        An image.
    output : path, optional
        An image file for the centred 2-D spectrum, ``.csv`` for the radial curve.
    overwrite : bool, default=False
        Replace an existing output.
    **options : object
        ``tukey``, and reading options.

    Returns
    -------
    SpectrumReport
        The radial curve.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> lines = np.tile(np.sin(2 * np.pi * np.arange(64) / 8), (64, 1))
    >>> found = semsr.spectrum(lines, pixel_size_nm=5)
    >>> found.frequency_per_px[int(np.argmax(found.power))]
    0.125
    """
    from napari_semsr.analysis import SpectrumOptions
    from napari_semsr.jobs import spectrum_job

    job = spectrum_job(
        _source(image), output, **_asked(options, SpectrumOptions), overwrite=overwrite
    )
    return run(job)


def metrics(
    image: Source, reference: Source | None = None, **options: Any
) -> "Metrics":
    """Compare an image with a reference.

    Parameters
    ----------
    image : Micrograph, (Y, X) numpy.ndarray or path
        An image.
    reference : Micrograph, (Y, X) numpy.ndarray or path, optional
        The truth, of the same shape.
    **options : object
        ``data_range``, ``match``, ``cut_off_nm``, and reading options.

    Returns
    -------
    Metrics
        The figures.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> truth = np.tile(np.linspace(0, 1, 64), (64, 1))
    >>> found = semsr.metrics(truth + 0.01, truth, data_range=1)
    >>> round(found.psnr_db, 2), round(found.ssim, 3)
    (40.0, 0.999)
    """
    from napari_semsr.analysis import MetricsOptions
    from napari_semsr.jobs import metrics_job

    job = metrics_job(
        _source(image), _source(reference), **_asked(options, MetricsOptions)
    )
    return run(job).result


def measure_table(
    measure: str,
    images: PathLike | Sequence[Any],
    second: PathLike | None = None,
    *,
    table: PathLike | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Any,
) -> "MeasuredTable":
    """Measure many images, a row for each.

    Parameters
    ----------
    measure : str
        ``"frc"``, ``"frc-map"``, ``"decorrelation"``, ``"spectrum"``, ``"metrics"``,
        ``"error-map"``, ``"gaps"``, ``"profile"`` or ``"histogram"``.
    images : path, or sequence of paths or of pairs of paths
        A folder that is neither a store nor a scan, a glob, or a table with a column
        for each image, whose paths are counted from its folder.
    second : path, optional
        The second image of all, or a folder whose images bear the same names.
    table : path, optional
        Gets the rows: ``.csv``, or ``.parquet`` with the extra ``[table]``.
    resume : bool, default=False
        Keep the rows of an existing table whose files and options are the same.
    overwrite : bool, default=False
        Replace an existing table.
    progress : callable, optional
        Receives every `Progress`.
    **options : object
        Those of the measure, and reading options.

    Returns
    -------
    MeasuredTable
        ``rows``, and their ``summary``. An image that cannot be measured has a row
        whose ``error`` says why.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> rng = np.random.default_rng(0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("one", "two", "three"):
    ...         noisy = semsr.Micrograph(rng.normal(100, 5, (64, 64)))
    ...         semsr.write(noisy, f"{folder}/{name}.tif")
    ...     found = semsr.measure_table("histogram", folder, table=f"{folder}/a.csv")
    >>> [row["image"] for row in found.rows]
    ['one.tif', 'three.tif', 'two.tif']
    >>> round(found.summary["sd_grey"]["mean"]), found.summary["sd_grey"]["images"]
    (5, 3)
    """
    from napari_semsr.jobs import MEASURES, measure_table_job

    switches = {name: options.pop(name) for name in ("register",) if name in options}
    kind = MEASURES[measure].options if measure in MEASURES else Options
    job = measure_table_job(
        measure,
        images,
        second,
        table=table,
        resume=resume,
        overwrite=overwrite,
        **switches,
        **_asked(options, kind),
    )
    return run(job, progress)


def error_map(
    reference: Source,
    enhanced: Source,
    output: PathLike | None = None,
    *,
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Any,
) -> "ErrorMapReport":
    """Map where an enhanced image, blurred again, does not agree with its reference.

    Parameters
    ----------
    reference, enhanced : Micrograph, (Y, X) numpy.ndarray or path
        The image as it was taken, and what was made of it, as fine or finer.
    output : path, optional
        Where the map goes; without it, it stays in memory.
    overwrite : bool, default=False
        Replace an existing output.
    progress : callable, optional
        Receives every `Progress`.
    **options : object
        ``unit``, ``align``, ``search``, and reading options.

    Returns
    -------
    ErrorMapReport
        RSE, RSP, blur and grey levels; ``map`` where it stayed in memory.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> from scipy.ndimage import gaussian_filter
    >>> sharp = np.random.default_rng(0).normal(size=(128, 128))
    >>> found = semsr.error_map(100 + 20 * gaussian_filter(sharp, sigma=2), sharp)
    >>> round(found.sigma_px, 2), round(found.alpha), round(found.beta)
    (2.0, 20, 100)
    >>> round(found.rsp, 4), found.map.shape
    (1.0, (128, 128))
    """
    from napari_semsr.analysis import ErrorMapOptions
    from napari_semsr.jobs import error_map_job

    job = error_map_job(
        _source(reference),
        _source(enhanced),
        output,
        **_asked(options, ErrorMapOptions),
        overwrite=overwrite,
    )
    return run(job, progress)


def repeatability(
    first: Source,
    second: Source,
    output: PathLike | None = None,
    *,
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Any,
) -> "RepeatabilityReport":
    """Map by how much two scans of one place differ, and how much of that is noise.

    Parameters
    ----------
    first, second : Micrograph, (Y, X) numpy.ndarray or path
        Scans of one place, taken alike; neither counts as the truth.
    output : path, optional
        Where the map goes; without it, it stays in memory.
    overwrite : bool, default=False
        Replace an existing output.
    progress : callable, optional
        Receives every `Progress`.
    **options : object
        ``part``, ``window``, ``unit``, ``align``, ``search``, and reading options.

    Returns
    -------
    RepeatabilityReport
        Standard deviation of one scan, and what white noise and all else have of it;
        ``map`` where it stayed in memory.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> rng = np.random.default_rng(0)
    >>> scene = 100 + 30 * np.kron(rng.normal(size=(16, 16)), np.ones((16, 16)))
    >>> scans = [scene + rng.normal(0, 4, scene.shape) for _ in range(2)]
    >>> found = semsr.repeatability(*scans, align=False)
    >>> round(found.sd, 1), round(found.noise, 1), found.map.shape
    (4.0, 4.0, (256, 256))
    """
    from napari_semsr.analysis import RepeatabilityOptions
    from napari_semsr.jobs import repeatability_job

    job = repeatability_job(
        _source(first),
        _source(second),
        output,
        **_asked(options, RepeatabilityOptions),
        overwrite=overwrite,
    )
    return run(job, progress)


def histogram(
    image: Source, reference: Source | None = None, **options: Any
) -> "Histogram":
    """Count grey levels, and the distance of two distributions.

    Parameters
    ----------
    image : Micrograph, (Y, X) numpy.ndarray or path
        An image.
    reference : Micrograph, (Y, X) numpy.ndarray or path, optional
        Another, of any shape.
    **options : object
        ``bins``, and reading options.

    Returns
    -------
    Histogram
        Bins, counts, distance.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> found = semsr.histogram(np.eye(64, dtype=np.uint8) * 255, bins=4)
    >>> found.counts.tolist()
    [4032, 0, 0, 64]
    """
    from napari_semsr.jobs import HistogramOptions, histogram_job

    job = histogram_job(
        _source(image), _source(reference), **_asked(options, HistogramOptions)
    )
    return run(job).result
