"""How sure a length in nm is: what is known of the pixel size, carried on.

A pixel size that is off by a share makes every length of an image off by that share.
Its error is independent of the errors of reading, so that both are added in quadrature.
Those of rows and columns come of one calibration and count as one error: where a length
runs aslant, the two shares are averaged and not added in quadrature.
"""

import math
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.types import FloatPair

SizeBasis = Literal["calibrated", "stated", "unknown"]
"""What is known of a pixel size: with its error, without, or nothing."""

Z95 = NormalDist().inv_cdf(0.975)
"""Standard deviations to each side that hold 95 % of a normal law."""


def size_basis(size_nm: FloatPair | None, sd_nm: FloatPair | None) -> SizeBasis:
    """Say what is known of a pixel size ``(y, x)`` and its standard deviation."""
    if size_nm is None:
        return "unknown"
    return "stated" if sd_nm is None else "calibrated"


def spell_pixel_size(size_nm: FloatPair | None, sd_nm: FloatPair | None = None) -> str:
    """Write a pixel size, and the larger standard deviation of its two.

    As ``5 ± 0.02 nm``.
    """
    if size_nm is None:
        return "unknown"
    if sd_nm is not None:
        error = max(sd_nm)
        return f"{spell_pixel_size(size_nm)} \N{PLUS-MINUS SIGN} {error:.2g} nm"
    y, x = size_nm
    if math.isclose(y, x, rel_tol=1e-6):
        return f"{y:.6g} nm"
    times = "\N{MULTIPLICATION SIGN}"
    return f"{y:.6g} {times} {x:.6g} nm (y {times} x)"


def describe_pixel_size(size_nm: FloatPair | None, sd_nm: FloatPair | None) -> str:
    """Write a pixel size, and what is known of it: ``5 ± 0.02 nm (calibrated)``."""
    if size_nm is None:
        return "unknown, so lengths are in px"
    return f"{spell_pixel_size(size_nm, sd_nm)} ({size_basis(size_nm, sd_nm)})"


def length_error(image: Micrograph, along: ArrayLike | None = None) -> float:
    """Give the relative standard deviation that the pixel size leaves on a length.

    `along` is its direction ``(y, x)`` in the plane; by default lengths of all
    directions. 0 where nobody told an error.
    """
    size, sd = image.pixel_size_nm, image.pixel_size_sd_nm
    if size is None or sd is None:
        return 0.0
    squares = np.ones(2) if along is None else np.square(np.asarray(along, dtype=float))
    return float(squares / squares.sum() @ np.divide(sd, size))


def widened(value: float, interval: FloatPair, share: float) -> FloatPair:
    """Widen the 95 % interval of a length by a `length_error`, in quadrature."""
    reach = Z95 * share * abs(value)
    down, up = (math.hypot(end - value, reach) for end in interval)
    return value - down, value + up
