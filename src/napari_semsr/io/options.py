"""What a user may choose when reading, and what a file says of itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from napari_semsr.core import OptionError, Options, PixelSize, parse_pixel_size
from napari_semsr.io.record import Record
from napari_semsr.io.tiff import LARGEST_NM, SMALLEST_NM

_SUCH_AS = "A pixel size is one or two positive numbers in nm, such as 7.7 or 8,7"


class ReadOptions(Options):
    """Which image of a file to read, and how, as a user types it."""

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
    def _size(cls, value: object) -> PixelSize | None:
        """Accept one number or two, or text of them, of any size a pixel can have."""
        if isinstance(value, str):
            try:
                value = parse_pixel_size([float(part) for part in value.split(",")])
            except (ValueError, OptionError):
                raise ValueError(_SUCH_AS) from None
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


def _typed_size(value: object) -> PixelSize | None:
    """Read a pixel size as `ReadOptions` does, and say what one looks like."""
    try:
        options = ReadOptions.parse({"pixel_size_nm": value})
    except OptionError:
        raise ValueError(_SUCH_AS) from None
    return parse_pixel_size(options.pixel_size_nm)


TypedSize = Annotated[tuple[float, float] | None, BeforeValidator(_typed_size)]
"""Field of other options that is a pixel size: one number, or two, or text of them."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What a file is, found without reading more than needed."""

    format: str  # ``"TIFF"``, ``"PNG"``, ``"OME-Zarr 0.5"``, …
    shape: tuple[int, int]  # Rows and columns of the image, its data bar cropped
    stored_shape: tuple[int, ...]  # Shape as stored, with data bar and colour channels
    dtype: str  # Type of the grey values
    pixel_size_nm: PixelSize | None  # ``(y, x)``; None when the file does not say
    vendor: str | None = None  # Maker of the microscope, where the file tells
    levels: int = 1  # How many there are to choose from
    series: int = 1  # How many there are to choose from
    channels: int = 1  # How many there are to choose from
    planes: int = 1  # How many there are to choose from
    # Rows of data bar below the image, by the header; 0 when it tells of none
    databar_rows: int = 0
    # Rows that look like a data bar where the header does not tell: a guess, which is
    # never applied unasked
    suggested_databar_rows: int = 0
    # What else the file says; ``"warnings"`` lists what could not be used
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RawImage:
    """One image as a format module hands it over, before grey, crop and overrides."""

    format: str  # As in `FileInfo`
    data: Any  # (Y, X) One plane of one channel; S colour samples
    pixel_size_nm: PixelSize | None = None  # ``(y, x)`` of this very level
    vendor: str | None = None  # As in `FileInfo`
    databar_rows: int = 0  # By the header, in rows of this level
    levels: int = 1  # How many there are to choose from
    series: int = 1  # How many there are to choose from
    channels: int = 1  # How many there are to choose from
    planes: int = 1  # How many there are to choose from
    record: Record | None = None  # What this package wrote beside the pixels
    origin: tuple[float, float] | None = None  # Where the format itself carries them
    # Where the format itself carries them
    spacing_px: tuple[float, float] | None = None
    name: str | None = None  # Name inside the file
    metadata: Mapping[str, Any] = field(default_factory=dict)  # What else the file says
    warnings: tuple[str, ...] = ()  # What could not be used, one sentence each
