"""Reading options and code shared by all format readers.

Lengths, text files of microscopes, data bar, grey conversion, calibration and record.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import DTypeLike, NDArray
from pydantic import BeforeValidator, Field

from napari_semsr import core
from napari_semsr.io import files
from napari_semsr.io.files import Record, choose_index, path_exists

Pixels = Any
"""Array (Y, X) or (Y, X, S) of NumPy or dask, whose methods have no types."""

# Conversion of lengths in files to nanometres.
#
# Nothing is guessed: anything but a finite positive number with a known unit becomes
# None, and the caller decides on a warning.

_NM_PER_UNIT = {
    "fm": 1e-6,
    "pm": 1e-3,
    "nm": 1.0,
    "um": 1e3,
    "mm": 1e6,
    "cm": 1e7,
    "dm": 1e8,
    "m": 1e9,
    "angstrom": 0.1,
    "inch": 2.54e7,
}
_SYNONYMS = {
    "femtometer": "fm",
    "picometer": "pm",
    "nanometer": "nm",
    "micrometer": "um",
    "micron": "um",
    "millimeter": "mm",
    "centimeter": "cm",
    "decimeter": "dm",
    "meter": "m",
    "å": "angstrom",
    "ångström": "angstrom",
    "ångstrom": "angstrom",
    "in": "inch",
    "inches": "inch",
    '"': "inch",
}
# Entries of an image's metadata
CUT_KEY = "databar_rows_cropped"
LEVEL_KEY = "rows_of_level_0"  # rows of level 0 per row of a coarser level
SERIES_KEY = "series_read"  # index of the image that was read, from 0
OWN_SERIES_KEY = "series_of_file"  # number of full-size images in this file
SMALLEST_NM, LARGEST_NM = 1e-5, 1e9  # accepted pixel sizes; chosen
LARGEST_PRINTED_NM = 5000.0
"""Pitches coarser than this in a resolution tag are print resolutions (4800 dpi is 5.3
um).
"""
_LENGTH = re.compile(r"^\s*([-+0-9.,eE]+)\s*(\S+)\s*$")
_EITHER_COMMA = re.compile(r"\s*[-+]?[1-9]\d{0,2},\d{3}(?![\d.,eE])")
# micro sign, Greek mu, their UTF-8 bytes read as Latin-1, the bytes of Shift-JIS and of
# GB 18030 or EUC-JP read as Windows does in the West, an undecodable byte
_MICRO = (
    *("\u00b5", "\u03bc", "\u00c2\u00b5", "\u00ce\u00bc"),
    *("\u0192\u00ca", "\u00a6\u00cc", "\ufffd"),
)
_JAVA_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")  # escapes of Java


def get_nm_per_unit(unit: str) -> float | None:
    """Return the number of nanometres in a length unit, such as ``"micron"``."""
    text = _JAVA_ESCAPE.sub(lambda match: chr(int(match[1], 16)), unit.strip()).lower()
    for prefix in _MICRO:
        if text.startswith(prefix.lower()):
            text = "u" + text[len(prefix) :]
            break
    # one letter for equal symbols; Japanese one-letter units are decomposed
    text = unicodedata.normalize("NFKC", text).replace("\u03bc", "u")
    text = text.replace("metre", "meter")
    if text.endswith(("meters", "microns", "angstroms")):
        text = text[:-1]
    return _NM_PER_UNIT.get(_SYNONYMS.get(text, text))


def convert_to_nm(value: object, unit: str) -> float | None:
    """Convert a number, or its text, to nanometres; None if it is not a length."""
    size = get_nm_per_unit(unit)
    if size is None or isinstance(value, bool):
        return None
    try:
        # decimal, so that 7.70833e-9 m is 7.70833 nm and not 7.708329999999999
        number = float(Decimal(str(value).strip()) * Decimal(repr(size)))
    except (ArithmeticError, ValueError):
        return None
    # the bounds exclude zeros, infinities and corrupt floats
    if not math.isfinite(number) or not SMALLEST_NM <= number <= LARGEST_NM:
        return None
    return number


def parse_length_nm(text: str, unit: str = "") -> float | None:
    """Convert a length typed by a user, such as ``"55.82 nm"``, to nanometres.

    None if it is not a length, or if its comma is ambiguous, as in ``"1,000 nm"``.
    `unit` applies to a number without a unit.
    """
    return None if _EITHER_COMMA.match(text) else parse_metadata_length_nm(text, unit)


def parse_metadata_length_nm(text: str, unit: str = "") -> float | None:
    """Convert a length from microscope metadata to nanometres, or return None.

    A comma is a decimal comma: programs do not print separators of thousands.
    """
    alone = convert_to_nm(text, unit)
    match = _LENGTH.match(re.sub(r"(?<=[0-9.])(?=[^0-9.eE+\-,\s])", " ", text, count=1))
    if alone is not None or match is None:
        return alone
    return convert_to_nm(match.group(1).replace(",", "."), match.group(2))


def measure_step(places: Pixels) -> tuple[float, float]:
    """Return the step of evenly spaced coordinates and its error, otherwise NaN."""
    if places.ndim != 1 or places.size < 2 or places.dtype.kind not in "iuf":
        return math.nan, 0.0
    exact = places.astype(np.float64)
    step = float(exact[-1] - exact[0]) / (exact.size - 1)
    digits = np.finfo(places.dtype).eps if places.dtype.kind == "f" else 0.0
    within = float(digits * np.abs(exact).max())
    with np.errstate(invalid="ignore"):  # not finite, so that it is not even
        off = np.abs(exact[0] + step * np.arange(exact.size) - exact).max()
    is_even = off <= 1e-3 * abs(step) + within  # chosen: a thousandth
    return step if is_even else math.nan, within / (exact.size - 1)


def round_to_fewest_digits(value: float, within: float = 0.0) -> float:
    """Round a number to the fewest digits with an error of at most `within`.

    By default those of a float32, if it is one: 0.1 is stored as 0.10000000149.
    """
    if not within and float(np.float32(value)) == value:
        return float(str(np.float32(value)))
    digits = (float(f"{value:.{n}g}") for n in range(1, 17))
    return next((one for one in digits if abs(one - value) <= within), value)


def create_pixel_size(lengths_nm: Sequence[float | None]) -> core.PixelSize | None:
    """Return a pixel size from two lengths; None unless both are valid."""
    y, x = lengths_nm
    return None if y is None or x is None else core.PixelSize((float(y), float(x)))


def create_size_warning(requirement: str, got: object) -> core.Message:
    """Return the warning that a stated pixel size is invalid."""
    text = f"{requirement}, got {got}: the pixel size is left unknown."
    return core.Message(text, "pixel-size-invalid")


# Options.


def _validate_pixel_size(value: object) -> core.PixelSize | None:
    """Validate one or two numbers, or their text, as a pixel size."""
    try:
        if isinstance(value, str):
            # in "7,5 nm" it is a decimal comma, which is refused
            text = value if "," in value else value.strip().removesuffix("nm")
            value = [float(part) for part in text.split(",")]
        size = core.parse_pixel_size(value)
    except (ValueError, core.OptionError):
        msg = "A pixel size is one or two positive numbers in nm, 7.7 or Y,X as 8,7"
        raise ValueError(core.Message(msg, "pixel-size-invalid")) from None
    if size and not all(SMALLEST_NM <= pitch <= LARGEST_NM for pitch in size):
        msg = f"A pixel size must be from {SMALLEST_NM:g} to {LARGEST_NM:g} nm"
        raise ValueError(core.Message(msg, "pixel-size-invalid"))
    return size


TypedSize = Annotated[tuple[float, float] | None, BeforeValidator(_validate_pixel_size)]
"""Pixel-size type of options: one or two numbers, or text."""


class ReadOptions(core.Options):
    """Options that select an image in a file and control how it is read."""

    series: int | None = core.option(
        None,
        "Series",
        "index of the image in a file or set of files with several; the first is 0; "
        "by default the file's own image of full size",
        ge=0,
    )
    level: int = core.option(0, "Level", "level of a pyramid; 0 is full size", ge=0)
    channel: int | None = core.option(
        None, "Channel", "channel of several; the first is 0", ge=0
    )
    time: int | None = core.option(
        None, "Time", "point in time of a time series; the first is 0", ge=0
    )
    z: int | None = core.option(None, "Z", "height of a stack; the first is 0", ge=0)
    plane: int | None = core.option(
        None,
        "Plane",
        "plane of a stack or time series, counted over all axes without their own "
        "option, the last fastest; the first is 0",
        ge=0,
    )
    dataset: str | None = Field(
        default=None, min_length=1, description="dataset of an HDF5 file with several"
    )
    pixel_size_nm: TypedSize = Field(
        default=None,
        description="pixel size in nm, one number or Y,X, at level 0; overrides the "
        "file's",
    )
    pixel_size_sd_nm: TypedSize = Field(
        default=None,
        description="standard deviation of that pixel size in nm, from a calibration",
    )
    crop_databar: bool = Field(
        default=True, description="crop the data bar that the header states"
    )
    databar_rows: int | None = Field(
        default=None,
        ge=0,
        description="rows of data bar to crop, at level 0, instead of the header's",
    )
    colour: Literal["refuse", "luminance"] = core.option(
        "refuse",
        "Colour image",
        "how to handle a file with different colour channels",
        choices={"refuse": "refuse", "use luminance": "luminance"},
    )


@dataclass(frozen=True, slots=True)
class _ImageFacts:
    """Facts of an image that its file states."""

    format: str  # ``"TIFF"``, ``"PNG"``, ``"OME-Zarr 0.5"``, …
    pixel_size_nm: core.PixelSize | None = None  # ``(y, x)``; None if unknown
    vendor: str | None = None  # Manufacturer of the microscope, if the file states it
    # Rows of data bar below the image, by the header; 0 if it states none
    databar_rows: int = 0
    # Number of images, levels, channels and planes to choose from
    levels: int = 1
    series: int = 1
    channels: int = 1
    planes: int = 1
    # Sizes of the axes before rows and columns, by their names: t, z and c among them
    axes: Mapping[str, int] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)  # Other metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo(_ImageFacts):
    """Description of a file, read with minimal access.

    ``"warnings"`` of its metadata lists what could not be used.
    """

    shape: tuple[int, int]  # Rows and columns of the image, without data bar
    stored_shape: tuple[int, ...]  # Shape as stored, with data bar and colour channels
    dtype: str
    # Rows that look like a data bar if the header does not state one: a guess, never
    # applied automatically
    suggested_databar_rows: int = 0
    # Model that made the image, or anything that it was made from
    network: str | None = None
    # Source of the pixel size, as text
    pixel_size_from: str | None = None
    # Its standard deviation ``(y, x)``; None if unknown
    pixel_size_sd_nm: core.PixelSize | None = None
    provenance: core.Provenance | None = None  # History, if the file has one


@dataclass(frozen=True, slots=True)
class RawImage(_ImageFacts):
    """Image from a format module before grey conversion, crop and overrides.

    Its pixel size and data bar are those of this level.
    """

    # (Y, X) or (Y, X, S): one plane of one channel, S colour samples; None if read from
    # a microscope's text file alone
    data: Pixels = None
    coarser: core.FloatPair = (1.0, 1.0)  # Rows and columns of level 0 per pixel
    orientation: int = 1  # Stored one, numbered as in TIFF; see `_rotate_upright`
    # Mask (Y, X) of pixels that become NaN in the grey image
    missing: Pixels | None = None
    record: Record | None = None  # Record written by this package
    # If the format stores them
    origin: tuple[float, float] | None = None
    spacing_px: tuple[float, float] | None = None
    name: str | None = None
    look: core.DisplaySettings | None = None
    # Warnings about unusable metadata, one sentence each
    warnings: tuple[str, ...] = ()
    # Why pixel size or data bar are unknown or may be wrong, relevant unless a size is
    # typed, and why the position is unknown
    doubts: tuple[str, ...] = ()
    place_doubts: tuple[str, ...] = ()

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of the grey image."""
        stored = np.dtype(self.data.dtype)
        return stored if self.missing is None else np.result_type(stored, np.float32)

    def move_pixels(self, move: Callable[[Pixels], Pixels]) -> "RawImage":
        """Apply a crop or rotation of (Y, X, ...) to the pixels."""
        missing = None if self.missing is None else move(self.missing)
        return replace(self, data=move(self.data), missing=missing)

    def get_warnings(self, path: Path, *, has_typed_size: bool = False) -> list[str]:
        """Return the warnings for the user, omitting `doubts` if a size was typed."""
        doubts = () if has_typed_size else self.doubts
        sentences = dict.fromkeys((*self.warnings, *doubts, *self.place_doubts))
        named = [n if path.name in n else f"{path.name}: {n}" for n in sentences]
        codes = map(core.get_error_code, sentences)
        return [core.Message(*one) for one in zip(named, codes, strict=True)]


def count_series(metadata: Mapping[str, Any], count: int) -> tuple[int, str]:
    """Return the number of images in the file itself, and which one is read."""
    number = metadata.get(SERIES_KEY, 0)
    which = f"series {number}" if number else "the first"
    name = metadata.get("images", {}).get(str(number), "")
    which += f" ({name})" if name not in ("", str(number)) else ""
    return metadata.get(OWN_SERIES_KEY, count), which


def create_series_record(number: int, names: Sequence[str]) -> dict[str, object]:
    """Return the metadata of a choice among several images; empty for a single one."""
    images = {str(index): name for index, name in enumerate(names)}
    return {SERIES_KEY: number, "images": images} if len(names) > 1 else {}


AXIS_OPTIONS = {"t": "time", "z": "z"}  # axes with an option of their own


def _get_axis_sizes(axes: Sequence[str], sizes: Sequence[int]) -> dict[str, int]:
    """Return the names and sizes of the axes that precede rows and columns.

    Unnamed axes are ``plane``, adjacent ones combined; further ones, after a named
    axis, are numbered.
    """
    sizes_by_axis: dict[str, int] = {}
    for axis, size in zip(axes, sizes, strict=True):
        name = axis if axis in ("c", *AXIS_OPTIONS) else "plane"
        if name in sizes_by_axis and next(reversed(sizes_by_axis)) != name:
            name = f"{name}-{len(sizes_by_axis)}"
        sizes_by_axis[name] = sizes_by_axis.get(name, 1) * int(size)
    return sizes_by_axis


def choose_plane(
    path: Path, options: ReadOptions, axes: Sequence[str], sizes: Sequence[int]
) -> tuple[core.JsonObject, tuple[int, ...]]:
    """Choose one channel and plane along the axes that precede rows and columns.

    One of them may be ``c`` for channels, others ``t`` and ``z``; the remaining axes
    count planes, the last fastest. Returns the numbers of channels and planes and the
    sizes of the axes, as in `RawImage`, and the index on each axis.
    """
    pairs = list(zip(axes, sizes, strict=True))
    sizes_by_axis = _get_axis_sizes(axes, sizes)
    text = ", ".join(f"{axis} {n}" for axis, n in sizes_by_axis.items() if n > 1)
    axes_text = f" ({text})" if "," in text or "plane" not in text else ""
    channels = sizes_by_axis.get("c", 1)
    channel = choose_index(path, "channel", options.channel, channels, axes_text)
    position, choices = {"c": channel}, []
    for axis, name in AXIS_OPTIONS.items():
        number, size = getattr(options, name), sizes_by_axis.get(axis, 1)
        if number is not None:
            position[axis] = choose_index(path, name, number, size)
        elif size > 1:
            choices.append(f"{name} 0 to {size - 1}")
    others = [size for axis, size in pairs if axis not in position]
    planes = math.prod(others)
    either = f"{' and '.join(choices)}, or " if choices else ""
    plane = choose_index(path, "plane", options.plane, planes, axes_text, either)
    where = iter(np.unravel_index(plane, others) if others else ())
    places = (position[a] if a in position else int(next(where)) for a in axes)
    counts = {"channels": channels, "planes": planes, "axes": sizes_by_axis}
    return counts, tuple(places)


# Text that microscopes write next to an image, or into it.
#
# JEOL: ``NAME.txt`` with lines ``$KEY value``, or ``$$KEY`` in older ones; the length
# of the micron bar on screen and in the specimen determines the pixel size, which newer
# files also state, and the size of the frame shows where the data bar starts. Hitachi:
# ``NAME.txt``, an INI text with a section ``[SemImageFile]``, ASCII or UTF-16;
# ``PixelSize`` in nm, of an image of ``DataSize``. TESCAN: ``NAME-tif.hdr`` next to a
# TIFF, ``NAME-png.hdr`` next to a PNG, an INI text, also in TIFF's tag 50431;
# lengths in metres, the data bar ``ImageStripSize`` rows high.

_LARGEST_SIDECAR = 1 << 20  # bytes of a text file next to an image; chosen
_BEGINNING = 512  # bytes for detecting an encoding; chosen: several lines
_PITCH, _BAR, _MARKER = "CM_PIXEL_SIZE", "SM_MICRON_BAR", "SM_MICRON_MARKER"
_FRAMES = ("CM_IMAGE_SIZE", "CM_FULL_SIZE")
_LENGTH_TEXT = re.compile(r"([-+]?[\d.,]+(?:[eE][-+]?\d+)?)[ \t]*([^\W\d_]*)")
_HITACHI = "[semimagefile]"
_SETTING = re.compile(r"([A-Za-z]\w*)[ \t]*=[ \t]*([^\r\n\0]*)")
_TESCAN_KEYS = (
    "Device",
    "SoftwareVersion",
    "Date",
    "Time",
    "PixelSizeX",
    "PixelSizeY",
    "ImageStripSize",
    "Magnification",
    "HV",
    "WD",
    "Detector",
    "DwellTime",
    "BeamCurrent",
)


def list_text_files(path: Path) -> list[Path]:
    """List text files that may describe an image, with the suffix in any case."""
    if not path_exists(path) or path.is_dir():
        return []
    kind = path.suffix[1:]
    names = [f"{path.stem}.{end}" for end in ("txt", "TXT", "Txt")]
    names += [f"{path.stem}-{kind}.hdr", f"{path.stem}-{kind.lower()}.hdr"]
    names += [f"{path.stem}.hdr", f"{path.stem}-{kind}.HDR", f"{path.stem}.HDR"]
    places = [path.with_name(name) for name in names if name != path.name]
    return [place for place in places if path_exists(place) and place.is_file()]


# half-width Katakana, from a Western micro sign, and private letters
_NOT_JAPANESE = re.compile("[\uff61-\uff9f\ue000-\uf8ff]")


def decode_text(data: bytes) -> str:
    """Decode microscope text as UTF-16, UTF-8, Shift-JIS or Windows-1252.

    All except UTF-16 are supersets of ASCII.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    pairs = len(data[:_BEGINNING]) // 2
    high, low = (data[first:_BEGINNING:2].count(0) for first in (0, 1))
    if max(high, low) > pairs // 2 and min(high, low) <= pairs // 16:
        order = "utf-16-be" if high > low else "utf-16-le"  # without byte-order mark
        return data.decode(order, errors="replace")
    with suppress(UnicodeDecodeError):  # then the next encoding is tried
        return data.decode("utf-8-sig")
    with suppress(UnicodeDecodeError):
        text = data.decode("cp932")
        if not _NOT_JAPANESE.search(text):
            return text
    return data.decode("cp1252", errors="replace")


def _read_sidecar(
    path: Path, shape: tuple[int, int], own: core.PixelSize | None
) -> RawImage | None:
    """Read the text file next to an image; `own` is the image's own pixel size."""
    for text_file in list_text_files(path):
        name = text_file.name
        # a refusal, since its pixel size and data bar would be missing in silence
        reading = files.convert_decoding_errors(text_file, "text")
        with reading, core.open_file(text_file) as stream:
            text = decode_text(stream.read(_LARGEST_SIDECAR))
        if text_file.suffix.lower() == ".hdr":
            image, frame = parse_tescan_header(text, shape, name), None
        else:
            image, frame = _parse_jeol_text(text, name)
            if image is None:
                image, frame = _parse_hitachi_text(text, name)
        if image is None:
            continue
        if frame is not None:
            image = apply_frame_metadata(image, name, frame, shape, own)
        size = image.pixel_size_nm
        if not (own and size) or are_pixel_sizes_close(own, size, _SAME_PITCH):
            return image
        ours, used = map(core.format_pixel_size, (own, size))
        sentence = f"A pixel of {path.name} is {ours}, of {name} {used}, which is used"
        sentence += ": set the pixel size if that is wrong."
        doubt = core.Message(sentence, "pixel-size-contradicts")
        return replace(image, doubts=(doubt,))
    return None


_TALLEST = 0.08  # of the height; chosen: bars of FEI and JEOL take 6 to 7 %
_ROUNDING_ROWS = 2  # rows; chosen: both sides of a resampled image are rounded
_SAME_PITCH = 0.01  # chosen: a micron bar of 100 px is precise to half a percent


def apply_frame_metadata(
    frame_image: RawImage,
    source: str,
    frame: tuple[int, int],
    shape: tuple[int, int],
    own: core.PixelSize | None = None,
) -> RawImage:
    """Apply microscope metadata of the full frame to an image.

    An image of another width counts as resampled if its aspect ratio is that of the
    frame, with or without data bar, unless it states the frame's pixel size.
    Otherwise it was cropped, and keeps its pixel size and all its rows.
    """
    (rows, columns), size = frame, frame_image.pixel_size_nm
    stretch = columns / shape[1]
    below = shape[0] - round(rows / stretch)
    is_whole = -_ROUNDING_ROWS <= below <= _TALLEST * shape[0]
    same = own and size and are_pixel_sizes_close(own, size, _SAME_PITCH)
    if columns == shape[1] or (is_whole and not same):
        if size is not None:
            size = core.PixelSize((size[0] * stretch, size[1] * stretch))
        bar = below if 0 <= below < shape[0] else 0
        return replace(frame_image, pixel_size_nm=size, databar_rows=bar)
    kept_size = own or size
    if kept_size is None:
        return frame_image
    text = core.format_pixel_size(kept_size)
    if size and not are_pixel_sizes_close(kept_size, size, _SAME_PITCH):
        text += f" (its own; {source}: {core.format_pixel_size(size)})"
    sentence = (
        f"{source} states a frame of {rows} x {columns} px, but an image of "
        f"{shape[0]} x {shape[1]} px is not a resampled copy of it. The image is "
        f"treated as a crop without a data bar and with a pixel size of {text}; set "
        "the pixel size if that is wrong."
    )
    doubt = core.Message(sentence, "header-of-other-size")
    return replace(frame_image, pixel_size_nm=kept_size, doubts=(doubt,))


def parse_rows_and_columns(
    text: str, separator: str | None = None
) -> core.IntPair | None:
    """Parse a text that states columns and rows; return rows and columns."""
    parts = [part.strip()[:8] for part in text.split(separator)]
    if len(parts) != 2 or not all(n.isdecimal() and int(n) > 0 for n in parts):
        return None
    return int(parts[1]), int(parts[0])


def parse_settings(text: str) -> dict[str, str]:
    """Parse the lines ``key = value`` of an INI text."""
    return {key: value.strip() for key, value in _SETTING.findall(text)}


_TextMetadata = tuple[RawImage | None, tuple[int, int] | None]


def _parse_jeol_text(text: str, name: str) -> _TextMetadata:
    """Parse JEOL microscope text for metadata and frame size."""
    keys: dict[str, str] = {}
    statements: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("$"):
            key, _, value = line.replace("\t", " ").partition(" ")
            keys[key] = value.strip()
            statements.setdefault(key.lstrip("$"), []).append(keys[key])
    if not any(key.startswith(("CM_", "SM_")) for key in statements):
        return None, None
    size, warnings = _get_jeol_pixel_size(statements, name)
    image, full = (
        next(filter(None, map(parse_rows_and_columns, statements.get(key, ()))), None)
        for key in _FRAMES
    )
    frame = image or full
    # the full size may be that of the image and its data bar
    if image and full and not (image[0] <= full[0] and image[1] == full[1]):
        sizes = f"{image[0]} x {image[1]} px and a full size of {full[0]} x {full[1]}"
        sentence = f"{name} states {sizes} px: no data bar is cropped; if there is "
        sentence += "one, set its number of rows (`databar_rows`)."
        warning = core.Message(sentence, "header-contradicts")
        frame, warnings = None, (*warnings, warning)
    about = RawImage("TIFF", size, "JEOL", metadata=keys, warnings=warnings)
    return about, frame


def _get_jeol_pixel_size(
    statements: Mapping[str, Sequence[str]], name: str
) -> tuple[core.PixelSize | None, tuple[str, ...]]:
    """Return the most precise pixel size, or the reason why it is unknown."""
    stated = {key: statements.get(key, ()) for key in (_PITCH, _BAR, _MARKER)}
    parsed = [_parse_pitch(text) for text in stated[_PITCH]]
    bars, markers = stated[_BAR], stated[_MARKER]
    parsed += [_scale_bar_pitch(n, bar) for bar in bars for n in markers]
    if not parsed:
        return None, ()
    by_error = sorted(filter(None, parsed), key=lambda one: one[1])
    if by_error:
        size, error = by_error[0][0], by_error[0][1] + _SAME_PITCH
        if all(are_pixel_sizes_close(size, a, error + b) for a, b in by_error):
            return size, ()
    texts = ", ".join(f"{key} {one!r}" for key in stated for one in stated[key])
    what = "pixel sizes that differ" if by_error else "no pixel size with its unit"
    sentence = f"{name} contains {what} ({texts}): the pixel size is left unknown."
    code = "pixel-size-contradicts" if by_error else "pixel-size-invalid"
    return None, (core.Message(sentence, code),)


def _parse_pitch(text: str) -> tuple[core.PixelSize, float] | None:
    """Parse a pixel size, given as one or two lengths, with its rounding error.

    The error is relative.
    """
    parts = _LENGTH_TEXT.findall(text)
    lengths = [parse_metadata_length_nm(f"{number} {unit}") for number, unit in parts]
    if len(lengths) not in (1, 2):
        return None
    size = create_pixel_size((lengths[-1], lengths[0]))
    if size is None:
        return None
    numbers = [Decimal(number.replace(",", ".")) for number, _ in parts]
    digits = [one.scaleb(-int(one.as_tuple().exponent)) for one in numbers]
    return size, 0.5 / float(min(digits))


def _scale_bar_pitch(marker: str, bar: str) -> tuple[core.PixelSize, float] | None:
    """Compute the pixel size from the scale bar's length and pixel count."""
    length = parse_metadata_length_nm(marker)
    try:
        pixels = float(bar)
    except ValueError:
        return None
    if length is None or not 0 < pixels < 1e6:
        return None
    return core.PixelSize((length / pixels, length / pixels)), 0.5 / pixels


def _parse_hitachi_text(text: str, name: str) -> _TextMetadata:
    """Parse Hitachi microscope INI text for metadata and frame size."""
    start = text.lower().find(_HITACHI)
    if start < 0:
        return None, None
    section = text[start + len(_HITACHI) :].partition("\n[")[0]
    keys = parse_settings(section)
    size_text = keys.get("PixelSize", "")
    length = parse_metadata_length_nm(size_text, "nm")
    sides = keys.get("DataSize", "").lower().replace("*", "x")
    frame = parse_rows_and_columns(sides, "x")
    warnings: tuple[str, ...] = ()
    if length is None:
        what = f"got {size_text!r}" if size_text else "but it is missing"
        sentence = (
            f"PixelSize in {name} must be a length in nm, {what}: the pixel size "
        )
        sentence += "is unknown."
        code = "pixel-size-invalid" if size_text else "pixel-size-missing"
        warnings = (core.Message(sentence, code),)
    size = create_pixel_size((length, length))
    image = RawImage("TIFF", size, "Hitachi", metadata=keys, warnings=warnings)
    return image, frame


def parse_tescan_header(
    text: str, shape: tuple[int, int], name: str
) -> RawImage | None:
    """Parse TESCAN microscope INI text from the source `name`."""
    keys = parse_settings(text)
    if "PixelSizeX" not in keys and "PixelSizeY" not in keys:
        return None
    stated = [keys.get("PixelSizeY"), keys.get("PixelSizeX")]
    size = create_pixel_size([parse_metadata_length_nm(n or "", "m") for n in stated])
    warnings: tuple[str, ...] = ()
    if size is None:
        what = f"PixelSizeY and PixelSizeX in {name} must be positive lengths in metres"
        warnings = (create_size_warning(what, stated),)
    strip = keys.get("ImageStripSize", "")
    rows = int(strip[:8]) if strip.isdecimal() else 0
    rows = rows if rows < shape[0] else 0
    about = {key: keys[key] for key in _TESCAN_KEYS if keys.get(key)}
    image = RawImage("TIFF", size, "TESCAN", rows)
    return replace(image, metadata=about, warnings=warnings)


# Detection of rows below an image that look like the data bar of a microscope.
#
# A guess for images without a data bar in the header; it is reported, but never applied
# automatically. A bar is a band with a uniform background and letters, with a straight
# upper edge over most of the width. No specimen has all of these.

_SHARE = 0.25  # a bar takes at most this part of the height
_SMALLEST = 8  # rows of a bar
_LEVELS = 6 / 255  # variation of a uniform background due to JPEG, over the range
_GROUND = 0.5  # smallest share of background pixels in a bar
_STEP = 0.4  # increase of that share at the first row
_LETTERS = 0.004  # smallest share of pixels that differ from the background
_CONTRAST = 0.4  # contrast of letters, over the range
_NEAR = 4  # rows on each side of the edge that are compared
_LINE = 3  # rows of a ruled line, without background
_RULE_SHARE = 0.8  # smallest share of such a row with one value
_MAX_READ = 1 << 26  # pixels that are read of a large image; chosen: all below 64 MB
_MAX_SEEN = 1 << 22  # number of these that are evaluated; chosen: 0.1 s
_BINS = 64  # of grey values


def _split_rows(array: core.RealArray) -> list[core.RealArray]:
    """Split an array into strips, whose temporary arrays fit into a cache."""
    return [array[top : top + _SMALLEST] for top in range(0, len(array), _SMALLEST)]


@dataclass(frozen=True, slots=True)
class _GreyRange:
    """Range of the finite grey values of an array."""

    low: float
    high: float

    @classmethod
    def from_pixels(cls, pixels: core.RealArray) -> Self:
        """Measure the range; 0 to 0 if no value is finite."""
        ends: list[float] = []
        for part in _split_rows(pixels):
            finite = part if part.dtype.kind in "biu" else part[np.isfinite(part)]
            if finite.size:
                ends += [float(finite.min()), float(finite.max())]
        return cls(min(ends, default=0.0), max(ends, default=0.0))

    def normalise(self, part: core.RealArray) -> NDArray[np.float64]:
        """Scale the range to 0 to 1; NaN becomes 0."""
        values: NDArray[np.float64]
        values = np.subtract(part, self.low, dtype=np.float64)
        values /= self.high - self.low
        if part.dtype.kind not in "biu":
            np.nan_to_num(values, copy=False, nan=0.0, posinf=1.0, neginf=0.0)
        return values

    def find_background_levels(self, pixels: core.RealArray) -> list[float]:
        """Return up to three of the most frequent normalised grey values."""
        bins = np.empty(pixels.shape, np.uint8)
        counts = np.zeros(_BINS, np.int64)
        for part, numbers in zip(_split_rows(pixels), _split_rows(bins), strict=True):
            numbers[:] = np.minimum(self.normalise(part) * _BINS, _BINS - 1)
            counts += np.bincount(numbers.ravel(), minlength=_BINS)
        levels = []
        for number in np.argsort(counts)[::-1][:3]:
            inside = pixels[bins == number]
            low, high = self.low, self.high
            np.nan_to_num(inside, copy=False, nan=low, posinf=high, neginf=low)
            if inside.size:  # the median, of which only two pixels are normalised
                middle = [(inside.size - 1) // 2, inside.size // 2]
                median = self.normalise(np.partition(inside, middle)[middle]).mean()
                levels.append(float(median))
        return levels


def detect_databar(image: core.ReadableArray, reach: float | None = None) -> int:
    """Count the bottom rows that look like a data bar.

    Only the lowest rows of an array, or a dask array, are read. If only `reach` rows
    from the top count, a bar below them is ignored.
    """
    height, width = image.shape[:2]
    depth = min(int(height * _SHARE), _MAX_READ // max(1, width))
    if depth < _SMALLEST + _NEAR or width < 64:
        return 0
    if reach is not None and reach < height - depth:
        return 0
    step = -(-depth * width // _MAX_SEEN)  # in columns, since rows must be exact
    lowest = core.read_box(image, core.Box(height - depth, height, 0, width))
    bottom = np.ascontiguousarray(lowest[:, ::step])
    grey = _GreyRange.from_pixels(bottom)
    if grey.high <= grey.low:
        return 0
    levels = grey.find_background_levels(bottom)
    shares = [
        [np.mean(np.abs(values - ground) <= _LEVELS, axis=1) for ground in levels]
        for values in map(grey.normalise, _split_rows(bottom))
    ]
    rows = 0
    for ground, part in zip(levels, np.concatenate(shares, axis=1), strict=True):
        near = sliding_window_view(part, _NEAR)
        rises = near.min(1)[_NEAR : depth - _SMALLEST + 1]
        rises = rises - near.max(1)[: len(rises)]
        first = _NEAR + int(rises.argmax())
        if rises.max() < _STEP:
            continue
        if float(np.median(part[first:])) < _GROUND:  # not flat
            continue
        letters = sum(
            np.count_nonzero(np.abs(values - ground) > _CONTRAST)
            for values in map(grey.normalise, _split_rows(bottom[first:]))
        )
        if letters / bottom[first:].size < _LETTERS:
            continue
        # skip ruled lines above the background, whose rows have a single value
        for _ in range(_LINE):
            line = grey.normalise(bottom[first - 1])
            if np.mean(np.abs(line - np.median(line)) <= _LEVELS) < _RULE_SHARE:
                break
            first -= 1
        rows = max(rows, depth - first)
    # half a pixel of tolerance, if `reach` refers to another grid
    return rows if reach is None or reach > height - rows + 0.5 else 0


# Colour samples to grey values: grey stored as colour is grey, colour is refused.

# Rec. 601 luma, the weights of JPEG
_LUMA = (0.299, 0.587, 0.114)
# largest difference of equal channels due to rounding in JPEG
_TOLERANCE = 3 / 255
_SAMPLES = 3  # red, green and blue
_BORDER = 3  # px; chosen: FEI's line is one or two wide
_MIN_FRAMED = 64  # px; chosen: in smaller images a frame is a large part


def _get_white_level(dtype: np.dtype[Any]) -> float:
    """Return the grey value of white for a data type."""
    return float(np.iinfo(dtype).max) if dtype.kind in "ui" else 1.0


class ColourError(core.ReadError):
    """Error raised for a colour file that must be grey."""

    def __init__(self, message: str, samples: Pixels, bar: int = 0) -> None:
        super().__init__(message, code="databar-coloured" if bar else "colour-image")
        self.samples = samples  # (Y, X, 3)
        self.databar_rows = bar  # number of lowest rows that contain all colour


def _compute_colour_differences(samples: Pixels) -> NDArray[np.float64]:
    """Return the largest difference between red, green and blue in each row.

    Microscopes draw a coloured line around exported images.
    """
    frame = _BORDER if min(samples.shape[:2]) >= _MIN_FRAMED else 0
    columns = slice(frame, samples.shape[1] - frame)
    height = max(1, (1 << 24) // max(1, samples.shape[1]))
    all_spreads = [np.zeros(frame)]
    for top in range(frame, samples.shape[0], height):
        part = np.asarray(samples[top : top + height, columns, :3])
        red, *others = np.moveaxis(part, 2, 0)
        low, high = reduce(np.minimum, others, red), reduce(np.maximum, others, red)
        gap = np.nan_to_num(np.subtract(high, low, dtype=np.float64))
        all_spreads.append(gap.max(axis=1, initial=0.0))
    spreads = np.concatenate(all_spreads)
    if frame and not _find_coloured_rows(samples, spreads[:-frame]).any():
        spreads[-frame:] = 0.0  # otherwise they may end a bar
    return spreads


def _find_coloured_rows(samples: Pixels, spreads: core.FloatArray) -> core.BoolArray:
    """Find rows with colour differences beyond JPEG rounding."""
    return spreads > _TOLERANCE * _get_white_level(np.dtype(samples.dtype))


def _count_coloured_bar_rows(samples: Pixels, spreads: NDArray[np.float64]) -> int:
    """Return the number of rows of a colour data bar below a grey image, or 0."""
    is_coloured = _find_coloured_rows(samples, spreads)
    height = is_coloured.size
    if not is_coloured.any() or not isinstance(samples, np.ndarray):
        return 0
    first = int(np.argmax(is_coloured))
    if first < height * (1 - _SHARE) or height - first < _SMALLEST:
        return 0
    return max(height - first, detect_databar(luminance(samples[..., :3])))


def luminance(samples: Pixels) -> Pixels:
    """Compute the luminance of a colour image (Y, X, S), keeping its data type."""
    if samples.dtype.kind == "b":
        return samples[..., 0]
    work = np.float64 if samples.dtype.itemsize > 2 else np.float32
    parts = [samples[..., i].astype(work) * w for i, w in enumerate(_LUMA)]
    total = parts[0] + parts[1] + parts[2]
    if samples.dtype.kind in "ui":
        total = np.rint(total)
    return total.astype(samples.dtype)


def convert_ycbcr(samples: Pixels) -> Pixels:
    """Convert Y, Cb and Cr of an image (Y, X, 3) to red, green and blue, as in JPEG."""
    if not isinstance(samples, np.ndarray):
        chunks = (*samples.chunks[:2], (3,))
        return samples.map_blocks(convert_ycbcr, dtype=samples.dtype, chunks=chunks)
    white = np.iinfo(samples.dtype).max
    y, blue, red = np.moveaxis(samples[..., :3].astype(np.float32), 2, 0)
    blue = y + 2 * (1 - _LUMA[2]) * (blue - (white + 1) / 2)
    red = y + 2 * (1 - _LUMA[0]) * (red - (white + 1) / 2)
    green = (y - _LUMA[0] * red - _LUMA[2] * blue) / _LUMA[1]
    colours = np.rint(np.stack([red, green, blue], axis=2))
    return colours.clip(0, white).astype(samples.dtype)


def try_convert_to_grey(samples: Pixels) -> Pixels | None:
    """Convert a colour-encoded image (Y, X, S) to grey (Y, X), if it is grey.

    None if red, green and blue differ by more than the rounding of JPEG.
    """
    if samples.ndim == 2:
        return samples
    has_colours = samples.shape[2] >= _SAMPLES
    spreads = _compute_colour_differences(samples) if has_colours else np.zeros(1)
    if not spreads.any():
        return samples[..., 0]
    is_coloured = _find_coloured_rows(samples, spreads).any()
    return None if is_coloured else luminance(samples[..., :3])


def convert_to_grey(
    path: Path, data: Pixels, *, colour: str, down: float = 1.0
) -> Pixels:
    """Convert stored pixels, (Y, X) or (Y, X, S), to one grey plane (Y, X).

    It may belong to a level, `down` times coarser than the image.
    """
    if 0 in data.shape:
        msg = f"{path} must contain at least one pixel, got shape {tuple(data.shape)}."
        raise core.ReadError(msg, code="no-image")
    data = data.astype(np.dtype(data.dtype).newbyteorder("="), copy=False)
    grey = try_convert_to_grey(data)
    has_samples = data.ndim > 2 and data.shape[2] >= _SAMPLES
    if grey is not None and has_samples and min(data.shape[:2]) >= _MIN_FRAMED:
        edges = [data[:_BORDER], data[-_BORDER:], data[:, :_BORDER]]
        gaps = [np.ptp(np.asarray(n)[..., :3].astype(float), axis=2) for n in edges]
        if any(_find_coloured_rows(data, gap.max(axis=1)).any() for gap in gaps):
            text = f"The coloured line along the border of {path.name} is read as grey."
            core.warn(text, "border-coloured")
    if grey is None and colour == "luminance":
        grey = luminance(data[..., :3])
    if grey is None:
        spreads = _compute_colour_differences(data)
        bar = _count_coloured_bar_rows(data, spreads)
        msg = (
            f"{path} must be a grey image, but its colour channels differ by up to "
            f"{spreads.max():g} of {_get_white_level(np.dtype(data.dtype)):g}: use its "
            "luminance (`colour=luminance`)."
        )
        if bar:
            msg = (
                f"{path} is grey except for its bottom {bar} rows, which look like a "
                f"coloured data bar: crop them (`databar_rows={int(bar * down)}`)."
            )
        raise ColourError(msg, data[..., :3], bar)
    return grey


LAZY_BYTES = 64 * 2**20  # larger images stay lazy; chosen
_BLOCK = 512, 2048  # px; chosen: flat, as images are read by rows; 4 MB of float32
_MAX_BLOCKS = 1 << 18  # chosen: 500k x 500k px


class PlaneReader(Protocol):
    """Reader for the pixels of a plane; small and picklable."""

    @property
    def path(self) -> Path:
        """Path of the file."""

    @property
    def unit(self) -> core.IntPair:
        """Rows and columns that the file stores, and decodes, together."""

    def read_window(self, rows: slice, columns: slice) -> core.RealArray:
        """Read a window (Y, X) or (Y, X, S) of the plane."""


def read_plane(source: PlaneReader, shape: tuple[int, ...], dtype: DTypeLike) -> Pixels:
    """Read a plane, lazily in blocks if it is large."""
    if math.prod(shape) * np.dtype(dtype).itemsize <= LAZY_BYTES:
        return source.read_window(slice(shape[0]), slice(shape[1]))
    return create_lazy_plane(source, shape, dtype)


def create_lazy_plane(
    source: PlaneReader, shape: tuple[int, ...], dtype: DTypeLike
) -> Pixels:
    """Return a large plane as a dask array, read in blocks of whole units."""
    import dask.array as da
    from dask.base import tokenize

    high, wide = (max(1, side) for side in source.unit)
    rows = high * max(1, min(_BLOCK[0], math.prod(_BLOCK) // wide) // high)
    block = rows, wide * max(1, math.prod(_BLOCK) // rows // wide)
    counts = [math.ceil(n / part) for n, part in zip(shape[:2], block, strict=True)]
    if math.prod(counts) > _MAX_BLOCKS:
        msg = f"{source.path} states {shape[0]} x {shape[1]} px, too many to open: "
        msg += "check that it is the intended file."
        raise core.ReadError(msg, code="image-too-large")
    return da.map_blocks(
        _read_block,
        source,
        chunks=da.core.normalize_chunks((*block, *shape[2:]), shape),
        meta=np.empty((0,) * len(shape), dtype),
        name=f"plane-{tokenize(source, source.path.stat().st_mtime_ns)}",
    )


def _read_block(
    source: PlaneReader, block_info: Mapping[None, Mapping[str, Sequence[core.IntPair]]]
) -> core.RealArray:
    (top, bottom), (left, right), *_ = block_info[None]["array-location"]
    return source.read_window(slice(top, bottom), slice(left, right))


MRC_SUFFIXES = (".mrc", ".mrcs", ".st", ".ali", ".rec")
"""Usual suffixes of MRC files, except ``.map``, which other programs also use."""
_SUFFIXES = (
    *(".ome", ".zarr", ".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp"),
    *(".h5", ".hdf5", ".nxs", ".czi", ".dm3", ".dm4", ".ser", ".emd", *MRC_SUFFIXES),
)


def remove_suffixes(name: str) -> str:
    """Remove the suffixes of readable formats from a file name."""
    while name.lower().endswith(_SUFFIXES):
        stem, _, _ = name.rpartition(".")
        if not stem:
            break
        name = stem
    return name


def _add_sidecar_metadata(path: Path, source: RawImage) -> RawImage:
    """Add calibration and data bar from a microscope's text file next to the image."""
    if source.vendor is not None or source.record is not None:
        return source
    rows, columns = source.data.shape[:2]
    text = _read_sidecar(path, (rows, columns), source.pixel_size_nm)
    if text is None:
        return source
    doubts = source.doubts if text.pixel_size_nm is None else ()
    return replace(
        source,
        vendor=text.vendor,
        pixel_size_nm=text.pixel_size_nm or source.pixel_size_nm,
        databar_rows=text.databar_rows,
        metadata={**source.metadata, str(text.vendor).lower(): text.metadata},
        doubts=(*doubts, *text.warnings, *text.doubts),
    )


def scale_row_count(rows: int, down: float) -> int:
    """Convert a row count from level 0 to a level `down` times coarser."""
    return math.ceil(round(rows / down, 3))


# Whether stored rows and columns are exchanged, and then reversed: TIFF 6.0, page 36;
# EXIF uses the same numbers.
_TURNS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def _rotate_upright(source: RawImage) -> RawImage:
    """Rotate an image upright according to the orientation in its file."""
    if source.orientation not in _TURNS:
        return source
    swap, down, across = _TURNS[source.orientation]

    def turn(data: Pixels) -> Pixels:
        data = data.swapaxes(0, 1) if swap else data
        data = data[:: -1 if down else 1, :: -1 if across else 1]
        # torch does not support negative strides
        if isinstance(data, np.ndarray):
            return np.ascontiguousarray(data)
        return data.map_blocks(np.ascontiguousarray, dtype=data.dtype)

    metadata = {**source.metadata, "orientation": source.orientation}
    source = replace(source.move_pixels(turn), orientation=1, metadata=metadata)
    names = ("pixel_size_nm", "coarser", "origin", "spacing_px") if swap else ()
    pairs = {name: getattr(source, name) for name in names}
    turned = {name: pair and pair[::-1] for name, pair in pairs.items()}
    return replace(source, **turned)


def are_pixel_sizes_close(
    a: core.FloatPair, b: core.FloatPair, within: float = 1e-6
) -> bool:
    """Return whether two pixel sizes are equal, by default within a rational tag's."""
    return bool(np.allclose(a, b, rtol=within, atol=0))


def _get_pixel_size(source: RawImage) -> core.PixelSize | None:
    """Return the exact size in the record, unless the file was recalibrated later."""
    own = None if source.record is None else source.record.pixel_size_nm
    stated = source.pixel_size_nm
    is_same = own and (stated is None or are_pixel_sizes_close(own, stated))
    return own if is_same else stated


def _get_file_metadata(source: RawImage) -> dict[str, object]:
    """Return the file metadata, with the bit depth from the record as default."""
    bits = None if source.record is None else source.record.significant_bits
    return {**({} if bits is None else {core.BITS_KEY: bits}), **source.metadata}


def _create_metadata(
    source: RawImage, data: Pixels, bar: int, sentences: list[str]
) -> dict[str, object]:
    """Return the metadata of the file and of its processing."""
    facts = {**_get_file_metadata(source), "format": source.format, CUT_KEY: bar}
    if source.vendor is not None:
        facts["vendor"] = source.vendor
    if sentences:
        facts["warnings"] = sentences
    if source.series > 1:
        facts["series"] = source.series
    if source.coarser[0] != 1:
        facts[LEVEL_KEY] = source.coarser[0]
    if isinstance(data, np.ndarray) and data.dtype.kind == "f":
        finite = int(np.count_nonzero(np.isfinite(data)))
        if finite != data.size:
            facts["nonfinite_pixels"] = data.size - finite
    return facts


def _find_size_source(bare: RawImage, source: RawImage) -> dict[str, object] | None:
    """Return the source of the pixel size: the `bare` file or a companion file.

    `source` is the file with its companions. None if it is the record of an image whose
    history states it.
    """
    size, record = _get_pixel_size(source), bare.record
    if size is None:
        return None
    if record is not None and record.pixel_size_nm == size and record.provenance:
        return None
    how = f"from the {bare.format} metadata"
    if bare.vendor is not None:
        how = f"from the metadata of the {bare.vendor} microscope"
    elif source.vendor is not None and source.pixel_size_nm != bare.pixel_size_nm:
        how = f"from the {source.vendor} microscope text file next to it"
    return core.create_size_source(how, size, in_file=True)


def create_micrograph(
    path: Path, source: RawImage, options: ReadOptions
) -> core.Micrograph:
    """Convert the image selected by the options to a micrograph."""
    bare, source = source, _add_sidecar_metadata(path, source)
    origin_of_size = _find_size_source(bare, source)
    is_typed = options.pixel_size_nm is not None
    for sentence in source.get_warnings(path, has_typed_size=is_typed):
        core.warn(sentence)
    sentences = source.get_warnings(path)
    # a header refers to stored rows, a user to displayed rows
    bar = source.databar_rows if options.crop_databar else 0
    if options.databar_rows is not None:
        source = _rotate_upright(source)
        bar = scale_row_count(options.databar_rows, source.coarser[0])
        if bar >= source.data.shape[0]:
            rows = source.data.shape[0]
            msg = f"A data bar of {bar} rows does not fit into the {rows} of {path}."
            raise core.ReadError(msg, code="out-of-range")
    height = len(source.data) - bar
    source = _rotate_upright(source.move_pixels(lambda data: data[:height]))
    down, across = source.coarser
    data = convert_to_grey(path, source.data, colour=options.colour, down=down)
    if source.missing is not None:
        grey = data.astype(source.dtype)
        data = np.where(source.missing, grey.dtype.type(np.nan), grey)
    record, size = source.record, _get_pixel_size(source)
    name = source.name or (record.name if record else remove_suffixes(path.name))
    origin = source.origin or (record.origin if record is not None else (0.0, 0.0))
    spacing = source.spacing_px or (record.spacing_px if record is not None else (1, 1))
    placed_by = size if source.origin or record is None else record.pixel_size_nm
    own, shown = None if record is None else record.look, source.look
    look = own or shown
    if own and shown and not np.allclose(own.limits, shown.limits):
        look = own.model_copy(update={"limits": shown.limits})
    metadata = _create_metadata(source, data, bar, sentences)
    if origin_of_size is not None:
        metadata[core.ORIGIN_KEY] = origin_of_size
    micrograph = core.Micrograph(
        data=data,
        pixel_size_nm=placed_by,
        name=core.escape_invisible_characters(name),
        provenance=None if record is None else record.provenance,
        origin=origin,
        spacing_px=(float(spacing[0]), float(spacing[1])),
        metadata=metadata,
        look=look,
    )
    typed_size, error = (
        pair and (pair[0] * down, pair[1] * across)
        for pair in (options.pixel_size_nm, options.pixel_size_sd_nm)
    )
    if typed_size:
        return micrograph.calibrate(typed_size, error)
    return micrograph.with_pixel_size(size)


def create_file_info(path: Path, source: RawImage) -> FileInfo:
    """Describe a file."""
    bare, source = source, _add_sidecar_metadata(path, source)
    stored_shape = tuple(int(n) for n in source.data.shape)
    metadata = _get_file_metadata(source)
    if sentences := source.get_warnings(path):
        metadata["warnings"] = sentences
    height = stored_shape[0] - source.databar_rows
    source = _rotate_upright(source.move_pixels(lambda data: data[:height]))
    suggested, data = 0, source.data
    in_memory = isinstance(data, np.ndarray) and data.dtype.kind in "buif"
    if not source.databar_rows and source.record is None and in_memory:
        if data.ndim == 2 or data.shape[2] < _SAMPLES:
            suggested = detect_databar(data if data.ndim == 2 else data[..., 0])
        else:
            differences = _compute_colour_differences(data)
            suggested = _count_coloured_bar_rows(data, differences)
            suggested = suggested or detect_databar(luminance(data))
    rows, columns = source.data.shape[:2]
    history = None if source.record is None else source.record.provenance
    size, origin = _get_pixel_size(source), _find_size_source(bare, source)
    bare_image = core.Micrograph(
        np.zeros((1, 1)),
        size,
        provenance=history,
        metadata={} if origin is None else {core.ORIGIN_KEY: origin},
    )
    network = None if history is None else history.last_network()
    facts = {item.name: getattr(source, item.name) for item in fields(_ImageFacts)}
    facts |= {"pixel_size_nm": size, "metadata": metadata}
    return FileInfo(
        **facts,
        shape=(int(rows), int(columns)),
        stored_shape=stored_shape,
        dtype=source.dtype.name,
        suggested_databar_rows=suggested,
        network=None if network is None else network[0],
        pixel_size_from=bare_image.pixel_size_from,
        pixel_size_sd_nm=bare_image.pixel_size_sd_nm,
        provenance=history,
    )
