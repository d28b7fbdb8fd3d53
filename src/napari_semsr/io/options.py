"""What a user may choose when reading, and what a file says of itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field, field_validator

from napari_semsr.core import OptionError, Options, PixelSize, parse_pixel_size
from napari_semsr.io.record import Record
from napari_semsr.io.tiff import LARGEST_NM, SMALLEST_NM


class ReadOptions(Options):
    """Which image of a file to read, and how."""

    series: int = Field(default=0, ge=0)
    level: int = Field(default=0, ge=0)
    channel: int | None = Field(default=None, ge=0)
    plane: int | None = Field(default=None, ge=0)
    pixel_size_nm: tuple[float, float] | None = None
    crop_databar: bool = True
    databar_rows: int | None = Field(default=None, ge=0)
    colour: Literal["refuse", "luminance"] = "refuse"

    @field_validator("pixel_size_nm", mode="before")
    @classmethod
    def _pair(cls, value: object) -> PixelSize | None:
        """Accept one number for both axes, of any size that a pixel can have."""
        try:
            size = parse_pixel_size(value)
        except OptionError:
            msg = "A pixel size is one or two positive numbers in nm"
            raise ValueError(msg) from None
        if size and not all(SMALLEST_NM <= pitch <= LARGEST_NM for pitch in size):
            msg = (
                "A pixel size is one or two positive numbers in nm, from "
                f"{SMALLEST_NM:g} to {LARGEST_NM:g}"
            )
            raise ValueError(msg)
        return size


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What a file is, found without reading more than needed.

    Attributes
    ----------
    format : str
        ``"TIFF"``, ``"PNG"``, ``"OME-Zarr 0.5"``, ….
    shape : tuple of int
        Rows and columns of the image, its data bar cropped.
    stored_shape : tuple of int
        Shape as stored, with data bar and colour channels.
    dtype : str
        Type of the grey values.
    pixel_size_nm : tuple of float or None
        ``(y, x)``; None when the file does not say.
    vendor : str or None
        Maker of the microscope, where the file tells.
    levels, series, channels, planes : int
        How many there are to choose from.
    databar_rows : int
        Rows of data bar below the image, by the header; 0 when it tells of none.
    suggested_databar_rows : int
        Rows that look like a data bar where the header does not tell: a guess, which
        is never applied unasked.
    metadata : mapping
        What else the file says; ``"warnings"`` lists what could not be used.
    """

    format: str
    shape: tuple[int, int]
    stored_shape: tuple[int, ...]
    dtype: str
    pixel_size_nm: PixelSize | None
    vendor: str | None = None
    levels: int = 1
    series: int = 1
    channels: int = 1
    planes: int = 1
    databar_rows: int = 0
    suggested_databar_rows: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Source:
    """One image as a format module hands it over, before grey, crop and overrides.

    Attributes
    ----------
    format : str
        As in `FileInfo`.
    data : (Y, X) or (Y, X, S) numpy.ndarray or dask.array.Array
        One plane of one channel; S colour samples.
    pixel_size_nm : tuple of float or None
        ``(y, x)`` of this very level.
    vendor : str or None
        As in `FileInfo`.
    databar_rows : int
        By the header, in rows of this level.
    levels, series, channels, planes : int
        How many there are to choose from.
    record : Record or None
        What this package wrote beside the pixels.
    origin, spacing_px : tuple of float or None
        Where the format itself carries them.
    name : str or None
        Name inside the file.
    metadata : mapping
        What else the file says.
    warnings : tuple of str
        What could not be used, one sentence each.
    """

    format: str
    data: Any
    pixel_size_nm: PixelSize | None = None
    vendor: str | None = None
    databar_rows: int = 0
    levels: int = 1
    series: int = 1
    channels: int = 1
    planes: int = 1
    record: Record | None = None
    origin: tuple[float, float] | None = None
    spacing_px: tuple[float, float] | None = None
    name: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
