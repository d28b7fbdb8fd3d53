"""What microscopes write beside pixels: lengths, JEOL's text files, private tags."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_semsr.core import PixelSize

if TYPE_CHECKING:
    import tifffile

# Lengths as files state them, turned into nanometres.
#
# Nothing here guesses: what is not a finite positive number with a known unit
# becomes None, and the caller decides what to say about it.

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
SMALLEST_NM, LARGEST_NM = 1e-5, 1e9
_LENGTH = re.compile(r"^\s*([-+0-9.,eE]+)\s*(\S+)\s*$")
# micro sign, Greek mu, their UTF-8 bytes read as Latin-1, an undecodable byte
_MICRO = ("\u00b5", "\u03bc", "\u00c2\u00b5", "\u00ce\u00bc", "\ufffd")


def _canonical(unit: str) -> str:
    """Reduce the many spellings of a unit to one."""
    text = unit.strip().replace("\\u00B5", "\u00b5").replace("\\u00b5", "\u00b5")
    text = text.replace("\\u00C5", "\u00c5").replace("\u212b", "\u00c5").lower()
    for prefix in _MICRO:
        if text.startswith(prefix.lower()):
            text = "u" + text[len(prefix) :]
            break
    text = text.replace("metre", "meter")
    if text.endswith(("meters", "microns", "angstroms")):
        text = text[:-1]
    return _SYNONYMS.get(text, text)


def unit_nm(unit: str) -> float | None:
    """Nanometres in a unit of length, in any usual spelling, such as ``"micron"``."""
    return _NM_PER_UNIT.get(_canonical(unit))


def to_nm(value: object, unit: str) -> float | None:
    """Turn a number and its unit into nanometres."""
    size = unit_nm(unit)
    if size is None or isinstance(value, bool):
        return None
    try:
        # decimal, so that 7.70833e-9 m is 7.70833 nm and not 7.708329999999999
        number = float(Decimal(str(value).strip()) * Decimal(repr(size)))
    except (ArithmeticError, ValueError):
        return None
    # the bounds exclude zeros, infinities and corrupt floats alike
    if not math.isfinite(number) or not SMALLEST_NM <= number <= LARGEST_NM:
        return None
    return number


def parse_length_nm(text: str) -> float | None:
    """Turn text such as ``"55.82 nm"`` into nanometres."""
    found = _LENGTH.match(re.sub(r"(?<=[0-9.])(?=[^0-9.eE+\-,\s])", " ", text, count=1))
    if found is None:
        return None
    return to_nm(found.group(1).replace(",", "."), found.group(2))


def pixel_size(lengths_nm: Sequence[float | None]) -> PixelSize | None:
    """Make a pixel size of two checked lengths; None unless both are known."""
    y, x = lengths_nm
    return None if y is None or x is None else PixelSize((float(y), float(x)))


# The text file that JEOL microscopes write beside an image.
#
# Lines are ``$KEY value``; the micron bar's length on screen and in the specimen gives
# the pixel size, the frame's size tells where the data bar begins.

_LARGEST_SIDECAR = 1 << 20
_BAR, _MARKER, _FRAME = "$$SM_MICRON_BAR", "$$SM_MICRON_MARKER", "$CM_FULL_SIZE"


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What a JEOL text file says."""

    # ``(y, x)``, in pixels of the image that was asked about
    pixel_size_nm: PixelSize | None
    databar_rows: int  # Rows below the frame
    keys: Mapping[str, str]  # Every line
    warnings: tuple[str, ...] = ()  # What could not be used


def _find(path: Path) -> Path | None:
    """Find the text file of an image, whatever the case of its suffix."""
    if path.is_dir():
        return None
    for suffix in (".txt", ".TXT", ".Txt"):
        beside = path.with_suffix(suffix)
        if beside.is_file() and beside != path:
            return beside
    return None


def _frame(keys: Mapping[str, str]) -> tuple[int, int] | None:
    """Rows and columns of the frame, without the data bar."""
    parts = keys.get(_FRAME, "").split()
    if len(parts) != 2 or not all(part.isdigit() and int(part) for part in parts):
        return None
    return int(parts[1]), int(parts[0])


def read_sidecar(path: Path, shape: tuple[int, int]) -> Sidecar | None:
    """Read the text file beside a JEOL image."""
    beside = _find(path)
    if beside is None:
        return None
    try:
        with beside.open("rb") as stream:
            text = stream.read(_LARGEST_SIDECAR).decode("utf-8", errors="replace")
    except OSError:
        return None
    keys: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("$"):
            key, _, value = line.partition(" ")
            keys[key.strip()] = value.strip()
    if not any(key.startswith(("$CM_", "$$SM_")) for key in keys):
        return None
    frame = _frame(keys)
    stretch = 1.0 if frame is None else frame[1] / shape[1]
    rows = 0 if frame is None else shape[0] - round(frame[0] / stretch)
    length, warnings = _pitch_nm(keys, beside)
    if length is not None:
        length *= stretch
    return Sidecar(
        pixel_size_nm=pixel_size((length, length)),
        databar_rows=rows if 0 <= rows < shape[0] else 0,
        keys=keys,
        warnings=warnings,
    )


def _pitch_nm(
    keys: Mapping[str, str], beside: Path
) -> tuple[float | None, tuple[str, ...]]:
    """Divide the marker's length by its pixels."""
    bar, marker = keys.get(_BAR), keys.get(_MARKER)
    if bar is None or marker is None:
        return None, ()
    length = parse_length_nm(marker)
    try:
        pixels = float(bar)
    except ValueError:
        pixels = 0.0
    if length is None or not 0 < pixels < 1e6:
        text = (
            f"The micron bar in {beside.name} must be a length over pixels, got "
            f"{marker!r} over {bar!r}: the pixel size is left unknown."
        )
        return None, (text,)
    return length / pixels, ()


# What scanning electron microscopes write into private tags of a TIFF.
#
# FEI and Thermo Fisher: tags 34680 and 34682, an INI text, lengths in metres, the
# data bar below ``ResolutionY`` rows. Zeiss: tag 34118, lines of ``KEY`` followed by
# ``Name = value unit``, in the unit that the operator looked at.

_FEI_TAGS = (34680, 34682)
_ZEISS_TAG = 34118
_LARGEST = 4 << 20
_SCANS = ("Scan", "EScan", "IScan", "CScan")
_FIELD_TOLERANCE = 0.01  # the field width has four digits


@dataclass(frozen=True, slots=True)
class VendorInfo:
    """What the private tags of a microscope say."""

    vendor: str  # ``"FEI"`` or ``"Zeiss"``
    pixel_size_nm: PixelSize | None  # ``(y, x)`` of the stored page
    databar_rows: int  # Rows below the image, 0 when the tags do not tell
    metadata: Mapping[str, Any] = field(default_factory=dict)  # What was found
    warnings: tuple[str, ...] = ()  # What could not be used


def _raw(tif: "tifffile.TiffFile", page: "tifffile.TiffPage", code: int) -> str | None:
    """Read a tag as text, whatever type it claims to have."""
    tag = page.tags.get(code)
    if tag is None:
        return None
    handle = tif.filehandle
    handle.seek(tag.valueoffset)
    data: bytes = handle.read(min(int(tag.valuebytecount), _LARGEST))
    text = data.decode("cp1252", errors="replace")
    return text.replace("\0", "\n")


def vendor_info(
    tif: "tifffile.TiffFile", page: "tifffile.TiffPage"
) -> VendorInfo | None:
    """Read the private tags of a page."""
    shape = (int(page.imagelength), int(page.imagewidth))
    for code in _FEI_TAGS:
        text = _raw(tif, page, code)
        if text is not None:
            return parse_fei(text, shape)
    text = _raw(tif, page, _ZEISS_TAG)
    return None if text is None else parse_zeiss(text, shape)


def _sections(text: str) -> dict[str, dict[str, str]]:
    """Split an INI text, forgiving whatever is no ``key = value``."""
    found: dict[str, dict[str, str]] = {}
    section = ""
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif "=" in line and section:
            key, _, value = line.partition("=")
            found.setdefault(section, {})[key.strip()] = value.strip()
    return found


def _count(value: str | None) -> int | None:
    """Read a positive number of pixels."""
    try:
        number = float(value or "")
    except ValueError:
        return None
    return int(number) if math.isfinite(number) and 1 <= number < 1e7 else None


def parse_fei(text: str, shape: tuple[int, int]) -> VendorInfo:
    """Read the INI text of FEI and Thermo Fisher."""
    sections = _sections(text)
    image = sections.get("Image", {})
    columns, rows = _count(image.get("ResolutionX")), _count(image.get("ResolutionY"))
    # a page that was resampled keeps the header of the scan
    stretch = 1.0 if columns is None else columns / shape[1]
    bar = 0 if rows is None else shape[0] - round(rows / stretch)
    bar = bar if 0 <= bar < shape[0] else 0
    warnings: list[str] = []
    size = None
    for name in _SCANS:
        scan = sections.get(name, {})
        stated = [scan.get("PixelHeight"), scan.get("PixelWidth")]
        if not any(stated):
            continue
        lengths = [to_nm(value, "m") for value in stated]
        size = pixel_size([None if n is None else n * stretch for n in lengths])
        if size is not None:
            warnings = []
            break
        warnings.append(
            f"FEI's PixelHeight and PixelWidth must be positive metres, got {stated}: "
            "the pixel size is left unknown."
        )
    return VendorInfo("FEI", size, bar, _chosen_fei(sections), tuple(warnings[:1]))


def _chosen_fei(sections: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Keep the lines that describe how the image was taken."""
    wanted = {
        "System": ("SystemType", "Software"),
        "EBeam": ("HV", "BeamCurrent", "HFW", "VFW", "WD"),
        "Scan": ("Dwelltime", "PixelWidth", "PixelHeight"),
        "Image": ("ResolutionX", "ResolutionY"),
        "PrivateFei": ("DatabarHeight", "TimeOfCreation"),
        "DatabarData": ("flAccV", "flMagn", "flWD"),
    }
    return {
        f"{section}.{key}": sections[section][key]
        for section, keys in wanted.items()
        for key in keys
        if sections.get(section, {}).get(key)
    }


def _zeiss_values(text: str) -> tuple[list[str], dict[str, str]]:
    """Split Zeiss's text into its unnamed numbers and its named values."""
    lines = [line.strip() for line in text.splitlines()]
    numbers: list[str] = []
    values: dict[str, str] = {}
    named = False
    for i, line in enumerate(lines):
        if line.startswith(("AP_", "DP_", "SV_")):
            named = True
            following = lines[i + 1] if i + 1 < len(lines) else ""
            values[line] = following.partition("=")[2].strip()
        elif not named:
            numbers.append(line)
    return numbers, values


def _refined(label: str, numbers: list[str]) -> float | None:
    """Read the pixel size, with the header's digits where both agree.

    The label is rounded for the screen; the fourth unnamed number is the same length
    in metres, but belongs to the live scan when the two differ.
    """
    length = parse_length_nm(label)
    if length is None or len(numbers) < 4:
        return length
    exact = to_nm(numbers[3], "m")
    digits = label.split()[0].partition(".")[2]
    unit = parse_length_nm(f"1 {label.split()[-1]}") or 0.0
    half = 0.5 * 10.0 ** -len(digits) * unit
    if exact is not None and abs(exact - length) <= half * 1.001:
        return exact
    return length


def parse_zeiss(text: str, shape: tuple[int, int]) -> VendorInfo:
    """Read the text of Zeiss SmartSEM."""
    numbers, values = _zeiss_values(text)
    kept = {
        key: values[key]
        for key in (
            "AP_IMAGE_PIXEL_SIZE",
            "AP_WIDTH",
            "AP_HEIGHT",
            "AP_MAG",
            "AP_WD",
            "AP_ACTUALKV",
            "AP_MANUALKV",
            "DP_IMAGE_STORE",
            "DP_DETECTOR_TYPE",
            "SV_VERSION",
        )
        if values.get(key)
    }
    label = values.get("AP_IMAGE_PIXEL_SIZE")
    if label is None:
        return VendorInfo("Zeiss", None, 0, kept)
    length = _refined(label, numbers)
    if length is None:
        warning = (
            f"Zeiss's AP_IMAGE_PIXEL_SIZE must be a positive length, got {label!r}: "
            "the pixel size is left unknown."
        )
        return VendorInfo("Zeiss", None, 0, kept, (warning,))
    pitch = _at_width(length, values, shape[1])
    return VendorInfo("Zeiss", pixel_size((pitch, pitch)), 0, kept)


def _at_width(length: float, values: Mapping[str, str], width: int) -> float:
    """Bring the stated pixel size to the width of the stored page.

    The width of the field is what resampling leaves alone.
    """
    field_nm = parse_length_nm(values.get("AP_WIDTH", ""))
    if field_nm is not None and abs(length * width / field_nm - 1) < _FIELD_TOLERANCE:
        return length
    stored = _count(values.get("DP_IMAGE_STORE", "").partition("*")[0])
    if stored is not None and stored != width:
        return length * stored / width
    return length if field_nm is None else field_nm / width
