"""Open an image for a job: which plane, which calibration, and whence it came."""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from napari_semsr.core.errors import OptionError, ReadError
from napari_semsr.core.micrograph import Micrograph, parse_pixel_size
from napari_semsr.core.provenance import InputRecord, digest_path
from napari_semsr.io.options import ReadOptions

__all__ = ["Image", "OpenOptions", "input_record", "name_of", "open_image", "paths_of"]

Image = Micrograph | str | os.PathLike[str]
"""What a job takes: an image in memory, or the path of one."""


class OpenOptions(ReadOptions):
    """How to read an image file, as a user types it."""

    series: int = Field(
        default=0, ge=0, description="image of a file that holds several"
    )
    level: int = Field(
        default=0, ge=0, description="level of a pyramid, 0 is full size"
    )
    channel: int | None = Field(default=None, ge=0, description="channel of several")
    plane: int | None = Field(
        default=None, ge=0, description="plane of a stack or time series"
    )
    pixel_size_nm: tuple[float, float] | None = Field(
        default=None,
        description="pixel size in nm, one number or Y,X; overrides the file's",
    )
    crop_databar: bool = Field(
        default=True, description="cut off the data bar that the header tells of"
    )
    databar_rows: int | None = Field(
        default=None,
        ge=0,
        description="rows of data bar to cut off, whatever the header says",
    )
    colour: Literal["refuse", "luminance"] = Field(
        default="refuse", description="what to do with a true colour image"
    )

    @field_validator("pixel_size_nm", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Accept text of one number, or of two with a comma."""
        if not isinstance(value, str):
            return value
        try:
            return parse_pixel_size([float(part) for part in value.split(",")])
        except (ValueError, OptionError):
            msg = (
                "A pixel size is one or two positive numbers in nm, such as 7.7 or 8,7"
            )
            raise ValueError(msg) from None


def open_image(image: Image, options: OpenOptions | None = None) -> Micrograph:
    """Open what a job was given.

    Parameters
    ----------
    image : Micrograph or path
        An image in memory is taken as it is, but for its pixel size.
    options : OpenOptions, optional
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
    chosen = options or OpenOptions()
    if isinstance(image, Micrograph):
        if chosen.pixel_size_nm is None:
            return image
        return image.replace(pixel_size_nm=chosen.pixel_size_nm)
    from napari_semsr.io.registry import read

    path = Path(image)
    if not path.exists():
        msg = f"There is no file {path}; check the name."
        raise ReadError(msg)
    return read(path, **chosen.model_dump())


def name_of(image: Image) -> str:
    """Give the name of an image for messages and records.

    Parameters
    ----------
    image : Micrograph or path
        The image.

    Returns
    -------
    str
        A layer's or a file's name.
    """
    return image.name if isinstance(image, Micrograph) else Path(image).name


def paths_of(*images: Image | None) -> list[Path]:
    """Give the paths among images.

    Parameters
    ----------
    *images : Micrograph, path or None
        What a job was given.

    Returns
    -------
    list of pathlib.Path
        Those that are files.
    """
    return [
        Path(item)
        for item in images
        if item is not None and not isinstance(item, Micrograph)
    ]


def input_record(
    image: Image,
    opened: Micrograph,
    options: OpenOptions | None = None,
    *,
    role: str = "image",
) -> InputRecord:
    """Record an input for the provenance of an output.

    Parameters
    ----------
    image : Micrograph or path
        What the job was given; a file is digested.
    opened : Micrograph
        The same, opened.
    options : OpenOptions, optional
        How it was opened: two planes of one file are two acquisitions.
    role : str, default="image"
        What it served as.

    Returns
    -------
    InputRecord
        With the history that the image itself carries.
    """
    if isinstance(image, Micrograph):
        digest = digest_values(opened)
    else:
        digest = digest_path(Path(image)) + _selection(options or OpenOptions())
    return InputRecord(
        role=role, name=name_of(image), digest=digest, provenance=opened.provenance
    )


def _selection(options: OpenOptions) -> str:
    """Say which image of a file was taken, where that is not the first."""
    chosen = {
        "series": options.series or None,
        "channel": options.channel,
        "plane": options.plane,
    }
    said = [f"{name}={value}" for name, value in chosen.items() if value is not None]
    return "#" + ",".join(said) if said else ""


def digest_values(micrograph: Micrograph) -> str:
    """Digest grey values, in bands of rows.

    Parameters
    ----------
    micrograph : Micrograph
        The image.

    Returns
    -------
    str
        ``sha256:`` and 64 hexadecimal digits.
    """
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
