"""Open images for the jobs; convert them, and say what a file is."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_semsr.core import (
    InputRecord,
    Job,
    Micrograph,
    Progress,
    Provenance,
    ReadError,
    digest_path,
    software_versions,
)
from napari_semsr.io import ReadOptions, stored_type
from napari_semsr.jobs.outputs import Result, check_image_target, jsonable

Image = Micrograph | str | os.PathLike[str]
"""What a job takes: an image in memory, or the path of one."""


def open_image(image: Image, options: ReadOptions | None = None) -> Micrograph:
    """Open what a job was given.

    Parameters
    ----------
    image : Micrograph or path
        An image in memory is taken as it is, but for its pixel size.
    options : ReadOptions, optional
        How to read a file.

    Returns
    -------
    Micrograph
        Lazy when large.

    Raises
    ------
    ReadError
        If it cannot be read as one grey image.
    """
    chosen = options or ReadOptions()
    if isinstance(image, Micrograph):
        if chosen.pixel_size_nm is None:
            return image
        return image.replace(pixel_size_nm=chosen.pixel_size_nm)
    from napari_semsr.io import read

    path = Path(image)
    if not path.exists():
        msg = f"There is no file {path}; check the name."
        raise ReadError(msg)
    return read(path, **chosen.model_dump())


def name_of(image: Image) -> str:
    """Give the name of an image for messages and records."""
    return image.name if isinstance(image, Micrograph) else Path(image).name


def paths_of(*images: Image | None) -> list[Path]:
    """Give the paths among images."""
    return [
        Path(item)
        for item in images
        if item is not None and not isinstance(item, Micrograph)
    ]


def input_record(
    image: Image,
    opened: Micrograph,
    options: ReadOptions | None = None,
    *,
    role: str = "image",
) -> InputRecord:
    """Record an input for the provenance of an output."""
    if isinstance(image, Micrograph):
        digest = digest_values(opened)
    else:
        digest = digest_path(Path(image)) + _selection(options or ReadOptions())
    return InputRecord(
        role=role, name=name_of(image), digest=digest, provenance=opened.provenance
    )


def _selection(options: ReadOptions) -> str:
    """Say which image of a file was taken, where that is not the first."""
    chosen = {
        "series": options.series or None,
        "channel": options.channel,
        "plane": options.plane,
    }
    said = [f"{name}={value}" for name, value in chosen.items() if value is not None]
    return "#" + ",".join(said) if said else ""


def digest_values(micrograph: Micrograph) -> str:
    """Digest grey values, in bands of rows."""
    import hashlib

    import numpy as np

    digest = hashlib.sha256()
    digest.update(f"{micrograph.shape}{micrograph.dtype.str}".encode())
    data: Any = micrograph.data
    step = max(1, (1 << 22) // micrograph.shape[1])
    if micrograph.is_lazy and step < data.chunks[0][0] <= 4 * step:
        step = int(data.chunks[0][0])  # so that no chunk is read twice
    for row in range(0, micrograph.shape[0], step):
        rows = np.ascontiguousarray(np.asarray(data[row : row + step]))
        digest.update(rows.reshape(-1).view(np.uint8).data)
    return f"sha256:{digest.hexdigest()}"


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


def convert_job(
    image: Image,
    output: str | os.PathLike[str],
    *,
    opening: ReadOptions | None = None,
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
    opening : ReadOptions, optional
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
    from napari_semsr.core import count_clipped
    from napari_semsr.io import write

    yield Progress(0, 2, "checking")
    path = check_image_target(output, inputs=paths_of(image), overwrite=overwrite)
    source = open_image(image, opening)
    yield Progress(1, 2, f"writing {path.name}")
    provenance = Provenance(
        job="convert",
        options={"dtype": dtype, **(opening or ReadOptions()).model_dump(mode="json")},
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
    write(source.replace(provenance=provenance), path, overwrite=overwrite, dtype=dtype)
    yield Progress(2, 2, "done")
    kind = stored_type(path, dtype or source.dtype)
    return Converted(str(path), source.shape, kind, source.pixel_size_nm, clipped)


# Say what a file is.


@dataclass(frozen=True, slots=True)
class Description(Result):
    """What a file is.

    Attributes
    ----------
    path : str
        The file.
    facts : dict
        Shape, dtype, pixel size, vendor, levels, data bar and metadata.
    """

    path: str
    facts: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Give the facts as one flat record.

        Returns
        -------
        dict
            The facts, and the path.
        """
        return {"path": self.path, **self.facts}


def describe_job(
    path: str | Path, *, options: ReadOptions | None = None
) -> Job[Description]:
    """Look into a file without reading its pixels.

    Parameters
    ----------
    path : path
        An image, a store or a folder of frames.
    options : ReadOptions, optional
        Only its pixel size is used: it overrides the file's.

    Returns
    -------
    Description
        What the file is.

    Yields
    ------
    Progress
        One step.

    Raises
    ------
    ReadError
        If it cannot be read.
    """
    from napari_semsr.io import describe as describe_file

    yield Progress(0, 1, f"reading {Path(path).name}")
    if not Path(path).exists():
        msg = f"There is no file {path}; check the name."
        raise ReadError(msg)
    facts = jsonable(describe_file(Path(path)))
    if options is not None and options.pixel_size_nm is not None:
        facts["pixel_size_nm"] = list(options.pixel_size_nm)
    yield Progress(1, 1, "done")
    return Description(path=str(path), facts=facts)


# Open one or two images for a measurement.


def open_pair(
    a: Image, b: Image | None, opening: ReadOptions | None = None
) -> tuple[Micrograph, Micrograph | None]:
    """Open one or two images."""
    first = open_image(a, opening)
    return first, None if b is None else open_image(b, opening)


def names_of(*images: Image | None) -> tuple[str, ...]:
    """Give the names of those images that were given."""
    return tuple(name_of(item) for item in images if item is not None)


def calibrated_of(first: Micrograph, second: Micrograph | None) -> Micrograph:
    """Choose the first image that has a pixel size, and warn where one has none."""
    images = [first] if second is None else [first, second]
    known = [image for image in images if image.pixel_size_nm is not None]
    for image in images:
        if image.pixel_size_nm is None:
            what = (
                f"that of {known[0].name} is taken; check that it fits"
                if known
                else "results in nm are null; give one (--pixel-size-nm, or Open "
                "mosaic in napari)"
            )
            warnings.warn(f"{image.name} has no pixel size, so {what}.", stacklevel=2)
            break
    return known[0] if known else first
