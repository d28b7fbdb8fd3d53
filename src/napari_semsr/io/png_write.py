"""PNG out: 8 bits for looking, with calibration and provenance."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.io.png_chunks import insert_chunks, physical_chunk, text_chunk
from napari_semsr.io.record import RECORD_KEY, record_of
from napari_semsr.io.targets import replacing

__all__ = ["write_png"]


def _to_8_bit(data: NDArray[Any]) -> NDArray[np.uint8]:
    """Stretch grey values over 8 bits; 8-bit images stay as they are.

    The darkest finite value becomes 0 and the brightest 255; NaN becomes 0.
    """
    if data.dtype == np.uint8:
        return data
    if data.dtype.kind == "b":
        return data.astype(np.uint8) * np.uint8(255)
    values = data.astype(np.float64)
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    span = high - low if high > low else 1.0
    values = np.nan_to_num((values - low) / span, nan=0.0, posinf=1.0, neginf=0.0)
    return np.asarray(np.rint(values * 255), dtype=np.uint8)


def write_png(image: Micrograph, path: Path) -> None:
    """Write an 8-bit PNG.

    Parameters
    ----------
    image : Micrograph
        Other types than 8-bit are stretched from their least to their greatest value.
    path : pathlib.Path
        File to make, already checked.

    Raises
    ------
    WriteError
        If the system refuses.
    """
    import imagecodecs

    pixels = np.ascontiguousarray(_to_8_bit(image.array()))
    chunks = [text_chunk(RECORD_KEY, record_of(image).to_json())]
    if image.pixel_size_nm is not None:
        chunks.insert(0, physical_chunk(image.pixel_size_nm))
    with replacing(path) as temporary:
        temporary.write_bytes(
            insert_chunks(bytes(imagecodecs.png_encode(pixels)), chunks)
        )
