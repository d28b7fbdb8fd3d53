"""The stage: how solved positions follow from nominal ones; the size of a pixel."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.micrograph import PixelSize, parse_pixel_size
from napari_semsr.stitch.solution import StageFit

__all__ = ["fit_stage", "pixel_size_from_stage", "predict"]

FloatArray = NDArray[np.float64]

_ENOUGH = 5


def fit_stage(
    nominal: FloatArray,
    solved: FloatArray,
    model: Literal["affine", "shift"] = "affine",
) -> StageFit | None:
    """Fit solved positions by nominal ones.

    Parameters
    ----------
    nominal, solved : (N, 2) numpy.ndarray
        Top-left corners; rows with NaN in either are left out.
    model : {"affine", "shift"}
        Scale, rotation and skew as well, or a common shift only.

    Returns
    -------
    StageFit or None
        None when no frame has both. An affine model needs five frames that do not lie
        on one line; with fewer, scale and turn stay as they are stated.
    """
    known = np.isfinite(nominal).all(axis=1) & np.isfinite(solved).all(axis=1)
    if not known.any():
        return None
    have, want = nominal[known], solved[known]
    spread = np.linalg.svd(have - have.mean(axis=0), compute_uv=False)
    affine = (
        model == "affine" and len(have) >= _ENOUGH and spread[-1] > 1e-3 * spread[0]
    )
    matrix: FloatArray = np.eye(2)
    weight = np.ones(len(have))
    offset = np.zeros(2)
    for _ in range(8):
        centre = np.average(have, axis=0, weights=weight)
        goal = np.average(want, axis=0, weights=weight)
        if affine:
            root = np.sqrt(weight)[:, None]
            fitted = np.linalg.lstsq((have - centre) * root, (want - goal) * root)[0]
            matrix = np.asarray(fitted.T, dtype=float)
        offset = goal - matrix @ centre
        left = np.hypot(*(want - have @ matrix.T - offset).T)
        scale = max(2 * float(np.median(left)), 1e-6)
        weight = 1 / (1 + (left / scale) ** 2)
    scatter = float(np.sqrt(np.mean(left**2)))
    return _described(matrix, offset, scatter)


def _described(matrix: FloatArray, offset: FloatArray, scatter: float) -> StageFit:
    """Lengths and angles of a matrix's columns."""
    down, along = matrix[:, 0], matrix[:, 1]
    turn_down = np.arctan2(down[1], down[0])
    turn_along = np.arctan2(-along[0], along[1])
    return StageFit(
        matrix,
        offset,
        scatter,
        (float(np.hypot(*down)), float(np.hypot(*along))),
        float(np.degrees((turn_down + turn_along) / 2)),
        float(np.degrees(turn_down - turn_along)),
    )


def predict(fit: StageFit, nominal: FloatArray) -> FloatArray:
    """Where frames are expected by the stage model.

    Parameters
    ----------
    fit : StageFit
        From the frames that are placed.
    nominal : (N, 2) numpy.ndarray
        Nominal corners.

    Returns
    -------
    (N, 2) numpy.ndarray
        Expected corners.
    """
    expected: FloatArray = nominal @ fit.matrix.T + fit.offset
    return expected


def pixel_size_from_stage(
    nominal_nm: FloatArray, solved: FloatArray
) -> PixelSize | None:
    """Pixel size by which solved pixels agree with the stage's nanometres.

    Parameters
    ----------
    nominal_nm : (N, 2) numpy.ndarray
        Stage positions in nm.
    solved : (N, 2) numpy.ndarray
        Solved corners in px.

    Returns
    -------
    tuple of float or None
        ``(y, x)`` in nm per pixel; an axis along which the stage did not move takes
        the other's value; None when it moved along neither.
    """
    known = np.isfinite(nominal_nm).all(axis=1) & np.isfinite(solved).all(axis=1)
    if known.sum() < 2:
        return None
    stage = nominal_nm[known] - nominal_nm[known].mean(axis=0)
    pixels = solved[known] - solved[known].mean(axis=0)
    values, vectors = np.linalg.eigh(stage.T @ stage)
    moved = values > 1e-4 * max(float(values[-1]), 1e-30)
    if not moved.any() or values[-1] <= 0:
        return None
    if moved.all():
        matrix = np.linalg.lstsq(pixels, stage)[0]
        scale = np.hypot(matrix[:, 0], matrix[:, 1])
        return parse_pixel_size((float(scale[0]), float(scale[1])))
    along = float(np.linalg.norm(stage @ vectors[:, -1]))
    return parse_pixel_size(along / max(float(np.linalg.norm(pixels)), 1e-12))
