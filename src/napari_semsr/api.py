"""Python interface: one function for each command.

Every function takes a `Micrograph`, an array or the path of an image. Options are
keywords with the names of the command's flags, including ``pixel_size_nm`` and the
other reading options. `progress` receives every `Progress`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_semsr import inference, jobs, models
from napari_semsr.calls import PathLike, Report, Source, convert_source
from napari_semsr.core import run
from napari_semsr.models import DEFAULT_MODEL

if TYPE_CHECKING:
    import dask.array as da


def lazy_enhance(
    image: Source, *, model: PathLike = DEFAULT_MODEL, **options: Any
) -> "da.Array":
    """Enhance an image lazily, as a dask array.

    Grey values, haze and the statistics that a network needs of the whole field are
    measured immediately; a tile is computed when a part of it is requested.

    Parameters
    ----------
    image : Micrograph, (Y, X) array_like or path
        Image to enhance. A store is read in parts.
    model : str or path, default="sem-restore"
        Name of a model in the library, or a ``.safetensors`` file.
    **options : object
        ``tile``, ``norm``, ``device``, ``precision``, ``dtype``, and reading options.

    Returns
    -------
    (Y * scale, X * scale) dask.array.Array
        Grey values as returned by `enhance`; chunks are the tiles. The names of its
        tasks are derived from the image, the options and the model's digest, so that a
        retrained model never uses tiles that were cached for the old one.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> field = np.random.default_rng(0).random((96, 64), dtype=np.float32)
    >>> array = semsr.lazy_enhance(field, model="sem-restore", tile=32)
    >>> array.shape, array.numblocks
    ((96, 64), (3, 2))
    """
    settings = replace(jobs.ENHANCE, groups=()).parse_options(options)
    path = models.find_model(model)
    source = jobs.open_image(convert_source(image), settings["opening"])
    loaded_model = models.load_model(path)
    return inference.create_enhanced_array(source, loaded_model, settings["options"])


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
) -> "jobs.MeasuredTable":
    """Measure many images and return a table with one row per image.

    Parameters
    ----------
    measure : str
        ``"frc"``, ``"frc-map"``, ``"decorrelation"``, ``"spectrum"``, ``"metrics"``,
        ``"error-map"``, ``"gaps"`` or ``"profile"``.
    images : path, or sequence of paths or of pairs of paths
        A folder that is neither a store nor a scan, a glob, or a table with a column
        for each image, and paths relative to the table's folder.
    second : path, optional
        The second image for all, or a folder of images with the same names.
    table : path, optional
        File for the rows: ``.csv``, or ``.parquet`` with the extra ``[table]``.
    resume : bool, default=False
        Keep rows of an existing table if their files and options are unchanged.
    overwrite : bool, default=False
        Replace an existing table.
    progress : callable, optional
        Receives every `Progress`.
    **options : object
        Options of the measure, and reading options.

    Returns
    -------
    MeasuredTable
        ``rows``, and their ``summary``. An image that cannot be measured has a row
        whose ``error`` states the reason.

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
    ...     result = semsr.measure_table("metrics", folder, table=f"{folder}/a.csv")
    >>> [row["image"] for row in result.rows]
    ['one.tif', 'three.tif', 'two.tif']
    >>> round(result.summary["sd_grey"]["mean"]), result.summary["sd_grey"]["images"]
    (5, 3)
    """
    job = jobs.measure_table_job(
        measure,
        images,
        second,
        table=table,
        existing=jobs.OverwritePolicy(overwrite, resume),
        **jobs.get_measuring_command(measure).parse_options(options),
    )
    return run(job, progress)
