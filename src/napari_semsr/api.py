"""The Python interface: one function for each command, run to its end.

Every function takes a `Micrograph`, an array or the path of an image. Options are
keywords with the names of the command's flags, ``pixel_size_nm`` and the other reading
options among them. `progress` receives every `Progress`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_semsr import inference, jobs, models
from napari_semsr.calls import PathLike, Report, Source, source_of
from napari_semsr.core import run
from napari_semsr.jobs import DEFAULT_MODEL

if TYPE_CHECKING:
    import dask.array as da


def lazy_enhance(
    image: Source, *, model: PathLike = DEFAULT_MODEL, **options: Any
) -> "da.Array":
    """Enhance an image when, and where, it is looked at.

    Grey values, haze and the statistics that a network needs of the whole field are
    measured at once; a tile is computed when a part of it is asked for.

    Parameters
    ----------
    image : Micrograph, (Y, X) array_like or path
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
    settings = replace(jobs.ENHANCE, groups=()).parse_options(options)
    path = jobs.find_model(model)
    source = jobs.open_image(source_of(image), settings["opening"])
    loaded_model = models.load_model(path)
    return inference.enhance_lazy(source, loaded_model, settings["options"])


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
    """Measure many images, a row for each.

    Parameters
    ----------
    measure : str
        ``"frc"``, ``"frc-map"``, ``"decorrelation"``, ``"spectrum"``, ``"metrics"``,
        ``"error-map"``, ``"gaps"`` or ``"profile"``.
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
    ...     found = semsr.measure_table("metrics", folder, table=f"{folder}/a.csv")
    >>> [row["image"] for row in found.rows]
    ['one.tif', 'three.tif', 'two.tif']
    >>> round(found.summary["sd_grey"]["mean"]), found.summary["sd_grey"]["images"]
    (5, 3)
    """
    job = jobs.measure_table_job(
        measure,
        images,
        second,
        table=table,
        existing=jobs.OverwritePolicy(overwrite, resume),
        **jobs.measure_of(measure).verb.parse_options(options),
    )
    return run(job, progress)
