"""Small files with vendor tags, forged for the tests of reading."""

import numpy as np
import pytest
import tifffile

ZEISS = """0\r
0\r
0\r
{number}\r
2.0e+03\r
DP_IMAGE_STORE\r
Store resolution = {store}\r
AP_WIDTH\r
Width = {width}\r
AP_PIXEL_SIZE\r
Pixel Size = 1.111 nm\r
AP_IMAGE_PIXEL_SIZE\r
Image Pixel Size = {pixel}\r
SV_VERSION\r
Version = {version}\r
"""


@pytest.fixture
def grey(rng):
    """A small 8-bit image with odd sides."""
    return rng.integers(0, 256, (37, 53)).astype(np.uint8)


@pytest.fixture
def forge(tmp_path):
    """Write a TIFF, with private tags given as text."""

    def write(data, name="a.tif", tags=None, orientation=None, **options):
        path = tmp_path / name
        texts = {code: text.encode("cp1252") for code, text in (tags or {}).items()}
        extra = [(code, 7, len(text), text, True) for code, text in texts.items()]
        if orientation is not None:
            extra.append((274, 3, 1, orientation, True))
        options.setdefault("metadata", None)
        tifffile.imwrite(path, data, extratags=extra, **options)
        return path

    return write


@pytest.fixture
def fei(forge):
    """Write an FEI TIFF; the header tells of `rows` rows without the bar."""

    def write(
        data, *, pixel="7.70833e-09", rows=30, columns=None, tag=34682, **options
    ):
        columns = data.shape[1] if columns is None else columns
        text = (
            "[System]\r\nSystemType=Teneo\r\n[Beam]\r\nScan=EScan\r\n"
            f"[EScan]\r\nPixelWidth={pixel}\r\nPixelHeight={pixel}\r\n"
            f"[Image]\r\nResolutionX={columns}\r\nResolutionY={rows}\r\n\0"
        )
        return forge(data, tags={tag: text}, **options)

    return write


@pytest.fixture
def zeiss(forge):
    """Write a Zeiss TIFF."""

    def write(data, **said):
        said.setdefault("pixel", "55.82 nm")
        said.setdefault("number", "5.5825e-08")
        said.setdefault("store", f"{data.shape[1]} * {data.shape[0]}")
        said.setdefault("version", "V06.03.00.00 : 15-Dec-17")
        text = ZEISS.format(**said | {"width": said.get("width") or ""})
        return forge(data, tags={34118: text})

    return write


@pytest.fixture(params=[False, True], ids=["whole", "lazy"])
def lazily(request, monkeypatch):
    """Read into memory, or lazily."""
    if request.param:
        monkeypatch.setattr("napari_semsr.io.read_image.LAZY_BYTES", 0)
    return request.param
