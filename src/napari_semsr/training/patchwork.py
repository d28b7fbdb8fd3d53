"""Clear scenes of two regions that differ in contrast by nature.

Without them a network that looks for haze learns that low contrast always is haze.
"""

import numpy as np
from numpy.typing import NDArray

from napari_semsr.simulate.degrade import smooth_field

__all__ = ["patchwork"]

_CORRELATION_PX = (15.0, 120.0)
_SOFTNESS = (0.005, 0.15)
_CONTRAST = (0.25, 1.0)
_LEVEL = (0.1, 0.9)


def patchwork(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Lay regions of one scene over another, with a contrast and level of their own.

    Every number that is drawn here is chosen.

    Parameters
    ----------
    first, second : (Y, X) numpy.ndarray of float
        Clear scenes in [0, 1].
    rng : numpy.random.Generator
        Source of every random choice.

    Returns
    -------
    (Y, X) numpy.ndarray of float
        One clear scene in [0, 1]; borders of its regions may be sharp or soft.
    """
    rows, columns = first.shape
    correlation = float(np.exp(rng.uniform(*np.log(_CORRELATION_PX))))
    field = smooth_field((rows, columns), correlation, rng)
    softness = float(np.exp(rng.uniform(*np.log(_SOFTNESS))))
    place = (field - rng.uniform(0.35, 0.65)) / softness
    share = 1 / (1 + np.exp(-np.clip(place, -30, 30)))
    contrast, level = rng.uniform(*_CONTRAST), rng.uniform(*_LEVEL)
    other = level + (second - second.mean()) * contrast
    return np.asarray(np.clip(first * (1 - share) + other * share, 0, 1))
