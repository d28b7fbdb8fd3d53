"""PNG, JPEG and BMP display images, as saved by some microscopes.

Metadata of a PNG are written by Pillow but read here: Pillow rejects a whole file for
one damaged text, or for a text of more than a megabyte, such as the history of a large
mosaic. Chunks after https://www.w3.org/TR/png-3/.
"""

import io
import math
import re
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngInfo

from napari_semsr.core import PICTURE_KEY, Message, Micrograph, PixelSize, ReadError
from napari_semsr.io import files
from napari_semsr.io.read_image import LARGEST_PRINTED_NM, RawImage, ReadOptions

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG, _BMP = b"\xff\xd8\xff", b"BM"
# markers of a JPEG, except for those within compressed pixels: stuffing, restarts
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]", re.DOTALL)
_BEGIN, _END = b"\xff\xd8", b"\xff\xd9"
_NM_PER_METRE = 1e9
_LARGEST_RECORD = 1 << 22  # bytes of a history in a PNG; chosen
_LARGEST_TEXT = 500  # characters of other texts that are shown; chosen
_PIXEL_CHUNKS = ("IHDR", "PLTE", "tRNS", "IDAT", "IEND")
_SMALLEST_TEXT = 12  # px; chosen: readable at full size
_FRAME = 12  # length, name and checksum around the content of a chunk
_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # of each kind of colour in a PNG's header
_ORIENTATION = 274  # tag of EXIF


def matches(path: Path, head: bytes) -> bool:
    """Return whether the first bytes identify a PNG, JPEG or BMP."""
    return path.is_file() and head.startswith((_SIGNATURE, _JPEG, _BMP))


def raw_image(path: Path, options: ReadOptions, data: bytes) -> RawImage:
    """Decode the pixels and metadata of a PNG, JPEG or BMP."""
    for what in ("series", "level", "channel", "time", "z", "plane"):
        files.choose_index(path, what, getattr(options, what), 1)
    if data.startswith(_SIGNATURE):
        return _read_png(path, data)
    is_jpeg = data.startswith(_JPEG)
    kind = "JPEG" if is_jpeg else "BMP"
    with files.convert_decoding_errors(path, kind):
        import imagecodecs

        plain = data[: _find_jpeg_end(data)] if is_jpeg else data
        # not by Image.open, which rejects large images: their size is checked against
        # the file
        with (JpegImageFile if is_jpeg else BmpImageFile)(io.BytesIO(plain)) as image:
            bands = len(image.getbands()) if is_jpeg else 3
            files.check_claimed_size(path, math.prod(image.size) * bands, len(plain))
            orientation = _read_orientation(image.info.get("exif", b""))
            if is_jpeg:
                pixels = np.asarray(imagecodecs.jpeg_decode(plain))
            else:  # palettes become grey or colour
                mode = "L" if image.mode in ("L", "1") else "RGB"
                pixels = np.asarray(image.convert(mode))
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        msg = f"{path} must be a grey or RGB image, got CMYK: convert it first."
        raise ReadError(msg, code="format-unsupported")
    return RawImage(format=kind, data=pixels, orientation=orientation)


def _read_orientation(exif: bytes) -> int:
    """Return the EXIF orientation of an image, by default 1."""
    exif_record = Image.Exif()
    with suppress(Exception):  # damaged, so that it states none
        exif_record.load(exif)
    orientation = exif_record.get(_ORIENTATION)
    return orientation if isinstance(orientation, int) else 1


def _read_png(path: Path, data: bytes) -> RawImage:
    import imagecodecs

    size: PixelSize | None = None
    orientation = 1
    record: files.Record | None = None
    own_texts: dict[str, str] = {}
    warnings: list[str] = []
    with files.convert_decoding_errors(path, "PNG"):
        chunks, pixel_chunks = _split_chunks(data)
        for name, content in chunks:
            if name == "IHDR":
                columns, rows, bits, kind = struct.unpack_from(">IIBB", content)
                depth = _CHANNELS.get(kind, 4) * max(1, bits // 8)
                claimed = columns * rows * depth
                files.check_claimed_size(path, claimed, len(pixel_chunks))
            elif name == "pHYs":
                x, y, unit = struct.unpack(">IIB", content.ljust(9, b"\0")[:9])
                is_length = len(content) == 9 and unit == 1 and x and y
                sides = (_NM_PER_METRE / y, _NM_PER_METRE / x) if is_length else None
                size = sides and PixelSize(sides)
            elif name == "eXIf":
                orientation = _read_orientation(content)
            text = _read_text_chunk(name, content)
            if text is not None and text[0] == files.RECORD_KEY:
                record = files.Record.from_json(text[1], warnings)
            elif text is not None:
                own_texts[text[0]] = text[1][:_LARGEST_TEXT]
        pixels = np.asarray(imagecodecs.png_decode(pixel_chunks))
    own = None if record is None else record.pixel_size_nm
    if size is not None and own is not None:
        pairs = zip(own, size, strict=True)
        # equal within PNG's rounding
        if all(abs(_NM_PER_METRE / a - _NM_PER_METRE / b) <= 1 for a, b in pairs):
            size = own
    # print resolutions (72 dpi, 300 dpi) are not a calibration, except in our own files
    if record is None and size is not None and max(size) > LARGEST_PRINTED_NM:
        size = None
    record, doubts = _mark_stretched(path, record)
    return RawImage(
        format="PNG",
        data=pixels,
        pixel_size_nm=size,
        orientation=orientation,
        record=record,
        # apart, since their keywords may be any
        metadata={"texts": own_texts} if own_texts else {},
        warnings=tuple(warnings),
        doubts=doubts,
    )


def _mark_stretched(
    path: Path, record: files.Record | None
) -> tuple[files.Record | None, tuple[str, ...]]:
    """Record and warn that the values of a map were stretched for display."""
    history = record and record.provenance
    unit = "nm" if record and record.pixel_size_nm else "pixel"
    shows = history and history.quantity(unit)
    types = {step.options.get("dtype") for step in history.steps()} if history else ()
    if not (record and history and shows) or "uint8" in types:
        return record, ()
    about = {"options": {**history.options, PICTURE_KEY: True}}
    sentence = (
        f"{path.name} is a display image of a map ({shows}) with values from 0 to "
        "255: write the map as .ome.tif to measure or plot it."
    )
    doubt = Message(sentence, "values-stretched")
    return replace(record, provenance=history.model_copy(update=about)), (doubt,)


def _split_chunks(data: bytes) -> tuple[list[tuple[str, bytes]], bytes]:
    """Return the chunks of a PNG, and those of its pixels for the decoder.

    Damaged texts then cause neither errors nor warnings of the decoder.
    """
    chunks: list[tuple[str, bytes]] = []
    pixel_chunks = [_SIGNATURE]
    at = len(_SIGNATURE)
    name = ""
    while name != "IEND":
        if at + _FRAME > len(data):
            msg = "the file ends before its last chunk"
            raise ValueError(msg)
        length, kind = struct.unpack_from(">I4s", data, at)
        name = kind.decode("latin-1")
        end = at + _FRAME + length
        if name in _PIXEL_CHUNKS:
            pixel_chunks.append(data[at:end])
        if name != "IDAT":
            chunks.append((name, data[at + 8 : end - 4]))
        at = end
    return chunks, b"".join(pixel_chunks)


def _read_text_chunk(name: str, content: bytes) -> tuple[str, str] | None:
    """Read the keyword and text of a chunk; None for other or damaged chunks."""
    if name not in ("tEXt", "zTXt", "iTXt"):
        return None
    key, _, text = content.partition(b"\0")
    is_packed, encoding = name == "zTXt", "latin-1"
    try:
        if name == "iTXt":  # after a flag, the method, language and translated key
            is_packed, encoding = text[:1] == b"\1", "utf-8"
            text = text[2:].split(b"\0", 2)[2]
        elif is_packed:  # after the method
            text = text[1:]
        if is_packed:
            text = zlib.decompressobj().decompress(text, _LARGEST_RECORD)
        return key.decode("latin-1"), text.decode(encoding)
    except (ValueError, IndexError, zlib.error):
        return None


def _find_jpeg_end(data: bytes) -> int:
    """Find the end of a JPEG by its markers (ITU T.81, annex B).

    Cameras and phones append data, and store previews with end markers in segments,
    which are skipped. A decoder fills missing parts with grey.
    """
    at = len(_BEGIN)
    while (match := _MARKER.search(data, at)) is not None:
        at = match.end()
        if match.group() == _END:
            return at
        if match.group() != _BEGIN:
            at += int.from_bytes(data[at : at + 2])  # bytes of a segment
    msg = "its end is missing"
    raise ValueError(msg)


def write(image: Micrograph, path: Path) -> None:
    """Write an 8-bit PNG with calibration, provenance and display settings."""
    data, look = image.array(), image.look
    if data.dtype != np.uint8:  # the finite values are stretched to 0 to 255
        finite = data[np.isfinite(data)].astype(np.float64)
        low, high = 0.0, 1.0
        if data.dtype.kind != "b" and finite.size:
            low, high = float(finite.min()), float(finite.max())
            high = high if high > low else low + 1.0
        del finite
        if look is not None:
            limits = [255 * (value - low) / (high - low) for value in look.limits]
            look = look.model_copy(update={"limits": tuple(limits)})
        values = (data.astype(np.float64) - low) / (high - low)
        values = np.nan_to_num(values, nan=0.0, posinf=1.0, neginf=0.0)
        data = np.asarray(np.rint(values * 255), dtype=np.uint8)
    info = PngInfo()
    record = replace(files.create_image_record(image), look=look)
    info.add_itxt(files.RECORD_KEY, record.to_json(), zip=True)
    pixels = np.ascontiguousarray(data)
    dpi = None
    if image.pixel_size_nm is not None:
        y, x = (_NM_PER_METRE / side for side in image.pixel_size_nm)
        # PNG cannot store the resolution of pixels finer than 0.47 nm
        if all(math.isfinite(n) and 1 <= round(n) < 2**31 for n in (x, y)):
            dpi = x * 0.0254, y * 0.0254
    with files.replace_atomically(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", pnginfo=info, dpi=dpi)


def write_screenshot(
    pixels: NDArray[np.uint8], path: Path, lines: Sequence[str]
) -> None:
    """Write a screenshot as a PNG, with lines of text in a strip below it.

    The pixels have three or four samples; the lines contain essential information, such
    as that a network made the image.
    """
    info = PngInfo()
    size = max(_SMALLEST_TEXT, pixels.shape[1] // 50)
    font, high = ImageFont.load_default(size), round(1.4 * size)
    rows, columns = pixels.shape[:2]
    image = Image.new("RGB", (columns, rows + high * len(lines)))
    image.paste(Image.fromarray(np.ascontiguousarray(pixels[..., :3])))
    for number, line in enumerate(lines):
        place = (size // 2, rows + number * high)
        ImageDraw.Draw(image).text(place, line, font=font, fill="white")
    if lines:
        info.add_itxt("Description", "\n".join(lines))
    with files.replace_atomically(path) as temporary:
        image.save(temporary, format="PNG", pnginfo=info)
