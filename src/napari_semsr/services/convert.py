"""Convert an image from one format to another, calibration and history kept."""

import os
import warnings
from dataclasses import dataclass

from napari_semsr.core.progress import Job, Progress
from napari_semsr.core.provenance import Provenance, software_versions
from napari_semsr.services.opening import (
    Image,
    OpenOptions,
    input_record,
    open_image,
    paths_of,
)
from napari_semsr.services.results import Result
from napari_semsr.services.targets import check_image_target

__all__ = ["DTYPES", "Converted", "convert"]

DTYPES = ("uint8", "uint16", "float32")
"""Types that an output can be converted to."""


@dataclass(frozen=True, slots=True)
class Converted(Result):
    """What was written.

    Attributes
    ----------
    output : str
        Path of the file or store.
    shape : tuple of int
        Rows and columns.
    dtype : str
        Type of the grey values in the output.
    pixel_size_nm : tuple of float or None
        ``(y, x)``; None when unknown.
    clipped : int
        Pixels that had no place in the new type: out of its range, or not a number.
    """

    output: str
    shape: tuple[int, int]
    dtype: str
    pixel_size_nm: tuple[float, float] | None
    clipped: int = 0


def convert(
    image: Image,
    output: str | os.PathLike[str],
    *,
    opening: OpenOptions | None = None,
    dtype: str | None = None,
    overwrite: bool = False,
) -> Job[Converted]:
    """Write an image in the format that the output's suffix names.

    Parameters
    ----------
    image : Micrograph or path
        What to convert.
    output : path
        Ends in ``.ome.zarr``, ``.ome.tif``, ``.tif`` or ``.png``.
    opening : OpenOptions, optional
        How to read a file.
    dtype : str, optional
        Type of the grey values in the output; the input's by default.
    overwrite : bool, default=False
        Replace an existing output.

    Returns
    -------
    Converted
        What was written.

    Yields
    ------
    Progress
        Reading, writing.

    Raises
    ------
    ReadError, WriteError
        If the image cannot be read, or the output not be made.
    """
    from napari_semsr.core.intensity import count_clipped
    from napari_semsr.io import registry

    yield Progress(0, 2, "checking")
    path = check_image_target(output, inputs=paths_of(image), overwrite=overwrite)
    source = open_image(image, opening)
    yield Progress(1, 2, f"writing {path.name}")
    provenance = Provenance(
        job="convert",
        options={"dtype": dtype, **(opening or OpenOptions()).model_dump(mode="json")},
        inputs=(input_record(image, source, opening),),
        versions=software_versions(),
    )
    clipped = 0 if dtype is None else count_clipped(source.data, dtype)
    if clipped:
        warnings.warn(
            f"{clipped} of {source.data.size} pixels do not fit {dtype} and were "
            "clipped; grey values are not rescaled.",
            stacklevel=2,
        )
    registry.write(
        source.replace(provenance=provenance), path, overwrite=overwrite, dtype=dtype
    )
    yield Progress(2, 2, "done")
    kind = "uint8" if path.suffix.lower() == ".png" else dtype or str(source.dtype)
    return Converted(str(path), source.shape, kind, source.pixel_size_nm, clipped)
