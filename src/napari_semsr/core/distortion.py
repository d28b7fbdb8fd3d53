"""Radial distortion of a field: one coefficient, about a centre.

That is the middle of the frame unless said otherwise. A pixel at ``x`` from it shows
what an undistorted frame would have at ``x (1 + k |x|^2 / R^2)``, with ``R`` half of
the frame's shorter side: ``k`` is the displacement at the rim over the rim's radius.
The scale at the centre is kept.
"""

import numpy as np
from numpy.typing import ArrayLike

from napari_semsr.core.types import FloatArray, FloatPair, IntPair

MOST_DISTORTION = 0.2  # either way, as `simulate` has it; 0.03 is a poor microsphere's
_FOLD = -4 / 27  # of k |x|^2 / R^2: ``f (1 + w f^2) = 1`` has no real root below
_ROUNDS = 12  # of Newton's method; enough to 1e-9 px but for the very fold
_MIDDLE = (0.0, 0.0)


def _from_centre(
    y: ArrayLike, x: ArrayLike, shape: IntPair, centre: FloatPair
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Distances from the centre along y and x; squared radius over the rim's."""
    dy = np.asarray(y, np.float64) - (shape[0] - 1) / 2 - centre[0]
    dx = np.asarray(x, np.float64) - (shape[1] - 1) / 2 - centre[1]
    return dy, dx, np.asarray((dy**2 + dx**2) / (min(shape) / 2) ** 2)


def _scaled(
    y: ArrayLike, x: ArrayLike, shape: IntPair, factor: FloatArray, centre: FloatPair
) -> tuple[FloatArray, FloatArray]:
    """Places moved along the radius."""
    dy, dx, _ = _from_centre(y, x, shape, centre)
    return (
        np.asarray((shape[0] - 1) / 2 + centre[0] + dy * factor),
        np.asarray((shape[1] - 1) / 2 + centre[1] + dx * factor),
    )


def distort(
    y: ArrayLike,
    x: ArrayLike,
    shape: IntPair,
    amount: float,
    *,
    centre: FloatPair = _MIDDLE,
) -> tuple[FloatArray, FloatArray]:
    """Where in the undistorted frame the light of each pixel of a frame comes from.

    Places along y and x. The amount is the displacement at the rim over its radius, the
    centre lies off the middle of the frame, ``(y, x)`` in px.
    """
    radius2 = _from_centre(y, x, shape, centre)[2]
    return _scaled(y, x, shape, 1 + amount * radius2, centre)


def undistort(
    y: ArrayLike,
    x: ArrayLike,
    shape: IntPair,
    amount: float,
    *,
    centre: FloatPair = _MIDDLE,
) -> tuple[FloatArray, FloatArray]:
    """Which pixel shows a place of the undistorted frame: the inverse of `distort`.

    NaN where none shows it, beyond the place from which a field folds back.
    """
    wanted = amount * _from_centre(y, x, shape, centre)[2]
    shown = wanted > _FOLD
    bent = np.where(shown, wanted, 0.0)
    factor = np.ones_like(bent)
    for _ in range(_ROUNDS):
        cubic = bent * factor**2
        factor -= (factor * (1 + cubic) - 1) / (1 + 3 * cubic)
    return _scaled(y, x, shape, np.where(shown, factor, np.nan), centre)


def rim_displacement(
    y: ArrayLike, x: ArrayLike, shape: IntPair, *, centre: FloatPair = _MIDDLE
) -> tuple[FloatArray, FloatArray]:
    """How far, along y and x in px, each pixel moves for one pixel at the rim."""
    dy, dx, radius2 = _from_centre(y, x, shape, centre)
    share = radius2 / (min(shape) / 2)
    return np.asarray(dy * share), np.asarray(dx * share)
