"""Small files with vendor tags, forged for the tests of reading."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

Forge = Callable[..., Path]

ZEISS = """{numbers}
DP_IMAGE_STORE
Store resolution = {store}
AP_WIDTH
Width = {width}
AP_PIXEL_SIZE
Pixel Size = 1.111 nm
AP_IMAGE_PIXEL_SIZE
Image Pixel Size = {pixel}
SV_VERSION
Version = {version}
"""


@pytest.fixture
def grey(rng: np.random.Generator) -> np.ndarray:
    """A small 8-bit image with odd sides."""
    return rng.integers(0, 256, (37, 53)).astype(np.uint8)


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    """Write a TIFF, with private tags given as text."""

    def write(
        data: Any,
        name: str = "a.tif",
        tags: dict[int, str] | None = None,
        orientation: int | None = None,
        **options: Any,
    ) -> Path:
        path = tmp_path / name
        extra: list[Any] = [
            (code, 7, len(text.encode("cp1252")), text.encode("cp1252"), True)
            for code, text in (tags or {}).items()
        ]
        if orientation is not None:
            extra.append((274, 3, 1, orientation, True))
        options.setdefault("metadata", None)
        tifffile.imwrite(path, data, extratags=extra, **options)
        return path

    return write


@pytest.fixture
def fei(forge: Forge) -> Forge:
    """Write an FEI TIFF; the header tells of `rows` rows without the bar."""

    def write(
        data: np.ndarray,
        *,
        pixel: str = "7.70833e-09",
        rows: int | str = 30,
        columns: int | str | None = None,
        tag: int = 34682,
        **options: Any,
    ) -> Path:
        columns = data.shape[1] if columns is None else columns
        text = (
            "[System]\r\nSystemType=Teneo\r\n[Beam]\r\nScan=EScan\r\n"
            f"[EScan]\r\nPixelWidth={pixel}\r\nPixelHeight={pixel}\r\n"
            f"[Image]\r\nResolutionX={columns}\r\nResolutionY={rows}\r\n\0"
        )
        return forge(data, tags={tag: text}, **options)

    return write


@pytest.fixture
def zeiss(forge: Forge) -> Forge:
    """Write a Zeiss TIFF."""

    def write(
        data: np.ndarray,
        *,
        pixel: str = "55.82 nm",
        number: str = "5.5825e-08",
        store: str | None = None,
        width: str | None = None,
        version: str = "V06.03.00.00 : 15-Dec-17",
        **options: Any,
    ) -> Path:
        text = ZEISS.format(
            numbers=f"0\n0\n0\n{number}\n2.0e+03",
            store=store or f"{data.shape[1]} * {data.shape[0]}",
            width=width or "",
            pixel=pixel,
            version=version,
        )
        return forge(data, tags={34118: text.replace("\n", "\r\n")}, **options)

    return write
