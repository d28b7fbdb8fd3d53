"""Colour samples to grey values: grey stored as colour is grey, colour is refused."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.errors import ReadError

__all__ = ["native", "to_grey"]

# Rec. 601 luma, the weights by which JPEG itself splits grey from colour
_LUMA = (0.299, 0.587, 0.114)
# JPEG moves equal channels apart by rounding: at most so many levels of 255
_TOLERANCE = 3 / 255


def _full_scale(dtype: np.dtype[Any]) -> float:
    """Value of white."""
    return float(np.iinfo(dtype).max) if dtype.kind in "ui" else 1.0


def _spread(samples: Any) -> NDArray[np.float64]:
    """Largest difference between channels, one number for each block of rows."""
    height = max(1, (1 << 24) // max(1, samples.shape[1]))
    found = [0.0]
    for top in range(0, samples.shape[0], height):
        rows = np.asarray(samples[top : top + height, :, :3])
        low, high = rows.min(axis=2), rows.max(axis=2)
        gap = np.subtract(high, low, dtype=np.float64)
        found.append(float(np.nanmax(gap)) if gap.size else 0.0)
    return np.asarray(found)


def _luma(samples: Any) -> Any:
    """Weigh red, green and blue; integers are rounded."""
    if samples.dtype.kind == "b":
        return samples[..., 0]
    work = np.float64 if samples.dtype.itemsize > 2 else np.float32
    parts = [samples[..., i].astype(work) * w for i, w in enumerate(_LUMA)]
    total = parts[0] + parts[1] + parts[2]
    if samples.dtype.kind in "ui":
        total = np.rint(total)
    return total.astype(samples.dtype)


def to_grey(path: Path, data: Any, *, colour: str) -> Any:
    """Make one grey plane of what a file stores.

    Parameters
    ----------
    path : pathlib.Path
        File that is being read.
    data : (Y, X) or (Y, X, S) numpy.ndarray or dask.array.Array
        S is 1 or 2 (grey, grey and alpha) or 3 or 4 (colour, colour and alpha).
    colour : {"refuse", "luminance"}
        What to do when the channels really differ.

    Returns
    -------
    (Y, X) numpy.ndarray or dask.array.Array
        Grey values in the type of the samples. Equal channels give the first one,
        untouched.

    Raises
    ------
    ReadError
        If the image is in colour and `colour` is ``"refuse"``.
    """
    if data.ndim == 2:
        return data
    if data.shape[2] < 3:
        return data[..., 0]
    spread = float(_spread(data).max())
    if spread == 0:
        return data[..., 0]
    scale = _full_scale(np.dtype(data.dtype))
    if spread <= _TOLERANCE * scale or colour == "luminance":
        return _luma(data[..., :3])
    msg = (
        f"{path} must be a grey image, but its colour channels differ by up to "
        f"{spread:g} of {scale:g}: choose the option colour luminance to convert it."
    )
    raise ReadError(msg)


def native(path: Path, data: Any) -> Any:
    """Bring samples into this machine's byte order and refuse what is no image.

    Parameters
    ----------
    path : pathlib.Path
        File that is being read.
    data : numpy.ndarray or dask.array.Array
        Samples of any type.

    Returns
    -------
    numpy.ndarray or dask.array.Array
        The same values.

    Raises
    ------
    ReadError
        If the samples are complex or of no numeric type, or there are none.
    """
    dtype = np.dtype(data.dtype)
    if dtype.kind not in "buif":
        msg = (
            f"{path} must hold real grey values, got {dtype}: export its magnitude "
            "or its real part."
        )
        raise ReadError(msg)
    if 0 in data.shape:
        msg = f"{path} must hold at least one pixel, got shape {tuple(data.shape)}."
        raise ReadError(msg)
    return data if dtype.isnative else data.astype(dtype.newbyteorder("="))
