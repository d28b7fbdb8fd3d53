"""The Python interface: one function for each command, run to its end.

Every function takes a `Micrograph`, a NumPy array or the path of an image. Options are
keywords with the names of the command's flags, ``pixel_size_nm`` and the other reading
options among them. `progress` receives every `Progress`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from napari_semsr.calls import (
    PathLike,
    Report,
    Source,
    parse_each,
    parse_options_of as parse_options,
    source_of,
)
from napari_semsr.core import Options, run
from napari_semsr.io import ReadOptions
from napari_semsr.jobs import DEFAULT_MODEL, find_model, open_image

if TYPE_CHECKING:
    import dask.array as da

    from napari_semsr.cli import BatchReport
    from napari_semsr.jobs import (
        MeasuredTable,
        ReplayReport,
    )


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

    chosen, opening = parse_each(options, EnhanceOptions, ReadOptions)
    path = find_model(model)
    source = open_image(source_of(image), opening)
    from napari_semsr.inference import enhance_lazy
    from napari_semsr.models import load_model

    return enhance_lazy(source, load_model(path), chosen)


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
    from napari_semsr.jobs import MEASURES, measure_of, measure_table_job

    switches = {name: options.pop(name) for name in ("register",) if name in options}
    kind = measure_of(measure).verb.options if measure in MEASURES else Options
    job = measure_table_job(
        measure,
        images,
        second,
        table=table,
        resume=resume,
        overwrite=overwrite,
        **switches,
        **parse_options(options, kind),
    )
    return run(job, progress)
