"""Grey-level distributions and the distance between two of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.errors import OptionError, ReadError
from napari_semsr.core.micrograph import Micrograph

__all__ = ["Histogram", "earth_movers_distance", "histogram"]

_SHORT = 2


@dataclass(frozen=True, slots=True)
class Histogram:
    """Grey-level distribution of an image, and of a reference on the same bins.

    Attributes
    ----------
    bins : (N + 1,) numpy.ndarray
        Edges of the bins, in grey levels.
    counts : (N,) numpy.ndarray of int64
        Pixels of the image in each bin; the last bin holds its right edge.
    reference_counts : (N,) numpy.ndarray of int64 or None
        Pixels of the reference.
    emd : float or None
        Earth mover's distance in grey levels, of all pixel values and not of the
        bins; None without a reference.
    """

    bins: NDArray[np.float64]
    counts: NDArray[np.int64]
    reference_counts: NDArray[np.int64] | None
    emd: float | None


def _finite(m: Micrograph) -> NDArray[np.generic]:
    """Finite pixels of an image, flat."""
    values: NDArray[np.generic] = m.array().ravel()
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    if not values.size:
        msg = f"A histogram needs a finite pixel, got none in {m.name}."
        raise ReadError(msg)
    return values


def _is_short(values: NDArray[np.generic]) -> bool:
    """Whether values are integers of 8 or 16 bits."""
    return values.dtype.kind in "ui" and values.dtype.itemsize <= _SHORT


def earth_movers_distance(
    first: NDArray[np.generic], second: NDArray[np.generic]
) -> float:
    """Mean grey-level shift that turns one distribution into the other.

    Parameters
    ----------
    first, second : (N,) and (M,) numpy.ndarray
        Finite grey values, any real type; the sizes may differ.

    Returns
    -------
    float
        ∫ |Q₁(p) - Q₂(p)| dp over the quantiles p, exact for the given values.
    """
    if _is_short(first) and _is_short(second):
        low = int(min(first.min(), second.min()))
        size = int(max(first.max(), second.max())) - low + 1
        shares = [
            np.cumsum(np.bincount(v.astype(np.int64) - low, minlength=size)) / v.size
            for v in (first, second)
        ]
        return float(np.abs(shares[0] - shares[1]).sum())
    one, two = (np.sort(v.astype(np.float64)) for v in (first, second))
    if one.size == two.size:
        return float(np.abs(one - two).mean())
    shares_one = np.arange(1, one.size + 1) / one.size
    shares_two = np.arange(1, two.size + 1) / two.size
    steps = np.union1d(shares_one, shares_two)
    tiny = 0.5 / max(one.size, two.size) ** 2
    a = one[np.minimum(np.searchsorted(shares_one, steps - tiny), one.size - 1)]
    b = two[np.minimum(np.searchsorted(shares_two, steps - tiny), two.size - 1)]
    return float(np.abs(a - b) @ np.diff(steps, prepend=0.0))


def _edges(parts: list[NDArray[np.generic]], bins: int) -> NDArray[np.float64]:
    """Bin edges over the common range; integers get bins of whole levels."""
    low = float(min(part.min() for part in parts))
    high = float(max(part.max() for part in parts))
    if all(part.dtype.kind in "ui" for part in parts):
        width = max(1.0, np.ceil((high - low + 1) / bins))
        count = int(np.ceil((high - low + 1) / width))
        whole: NDArray[np.float64] = low - 0.5 + width * np.arange(count + 1)
        return whole
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges: NDArray[np.float64] = np.linspace(low, high, bins + 1)
    return edges


def histogram(
    image: Micrograph, reference: Micrograph | None = None, *, bins: int = 256
) -> Histogram:
    """Count grey levels, and say how far they are from those of a reference.

    Parameters
    ----------
    image : Micrograph
        The image; pixels that are not finite are left out.
    reference : Micrograph, optional
        Another image, of any shape.
    bins : int, default=256
        Bins over the common range. Integer images get bins of whole grey levels, so
        there may be fewer.

    Returns
    -------
    Histogram
        Bin edges, counts, and the earth mover's distance.

    Raises
    ------
    OptionError
        If `bins` is not positive.
    ReadError
        If an image has no finite pixel.
    """
    if bins < 1:
        msg = f"A histogram needs one bin or more, got {bins}."
        raise OptionError(msg)
    values = _finite(image)
    other = None if reference is None else _finite(reference)
    edges = _edges([values] if other is None else [values, other], bins)
    return Histogram(
        edges,
        np.histogram(values, edges)[0].astype(np.int64),
        None if other is None else np.histogram(other, edges)[0].astype(np.int64),
        None if other is None else earth_movers_distance(values, other),
    )
