"""The best linear filter from one image to another, learnt from places of both."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from napari_semsr.core import Float32Array, ReadError

_RIDGE = 1e-6  # of the mean power; chosen: below the noise of any image


def fit_linear_filter(
    pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]], taps: int, scale: int = 1
) -> Float32Array:
    """Fit the filter that brings patches nearest to what they should look like.

    Least squares over all pixels whose taps lie within a patch and are finite, as what
    they should look like. The mean of a patch tells nothing: the filter has no offset.

    Parameters
    ----------
    pairs : iterable of tuple of numpy.ndarray
        Patches, (Y, X), and what they should look like, (Y * scale, X * scale). All
        are of one grey scale each.
    taps : int
        Side of the filter in px, odd.
    scale : int, default=1
        Wanted pixels for each pixel of a patch.

    Returns
    -------
    (scale², taps, taps) numpy.ndarray of float32
        A kernel for each of the wanted pixels within one, row by row, to be correlated
        with the image.

    Raises
    ------
    ReadError
        If no patch has any contrast.
    """
    half = taps // 2
    normal: NDArray[Any] = np.zeros((taps**2, taps**2))
    right: NDArray[Any] = np.zeros((taps**2, scale**2))
    for seen, wanted in pairs:
        rows = sliding_window_view(seen, (taps, taps)).reshape(-1, taps**2)
        down, across = (n - 2 * half for n in seen.shape)
        inner = wanted[half * scale :, half * scale :]
        inner = inner[: down * scale, : across * scale]
        blocks = inner.reshape(down, scale, across, scale)
        aims = blocks.transpose(0, 2, 1, 3).reshape(-1, scale**2)
        known = np.isfinite(rows).all(axis=1) & np.isfinite(aims).all(axis=1)
        if not known.any():
            continue
        rows, aims = rows[known], aims[known]
        rows = rows - rows.mean(axis=0)
        normal += rows.T @ rows
        right += rows.T @ (aims - aims.mean(axis=0))
    if not np.trace(normal) > 0:
        msg = "A linear filter is fitted to an image with contrast, got one without."
        raise ReadError(msg)
    ridge = _RIDGE * np.trace(normal) / taps**2
    weights = np.linalg.solve(normal + ridge * np.eye(taps**2), right)
    kernels = weights.T.reshape(scale**2, taps, taps)
    return np.ascontiguousarray(kernels, dtype=np.float32)
