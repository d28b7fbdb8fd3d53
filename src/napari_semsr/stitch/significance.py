"""What score two unrelated frames reach by chance, measured on the scan itself."""

from collections.abc import Sequence

import numpy as np

from napari_semsr.stitch.lattice import is_periodic
from napari_semsr.stitch.offsets import search
from napari_semsr.stitch.prepared import Prepared

__all__ = ["chance_threshold"]

IntPair = tuple[int, int]

_ENOUGH = 8
_FLOOR = 5.0


def chance_threshold(
    prepared: Prepared,
    unrelated: Sequence[IntPair],
    shifts: Sequence[IntPair],
    reach: IntPair,
    significance: float,
) -> tuple[float, bool]:
    """Find the score above which a joint is believed.

    Parameters
    ----------
    prepared : Prepared
        The frames.
    unrelated : sequence of tuple of int
        Pairs that cannot touch.
    shifts : sequence of tuple of int
        Shifts that touching pairs are expected to have, to search the same overlaps.
    reach : tuple of int
        Reach of the search.
    significance : float
        Robust standard deviations above the median, and the least threshold.

    Returns
    -------
    float
        Largest of `significance` and the median plus so many robust standard
        deviations of the best scores of unrelated pairs.
    bool
        Whether the sample is periodic: then unrelated frames match too, and chance says
        nothing (`napari_semsr.stitch.lattice` decides).

    Notes
    -----
    Measured from known non-neighbours, after the idea of ASHLAR (Muhlich et al.,
    Bioinformatics 38, 4613 (2022), doi:10.1093/bioinformatics/btac544).
    """
    if len(unrelated) < _ENOUGH or not shifts:
        return max(significance, _FLOOR), False
    found = [
        search(prepared, pair, shifts[place % len(shifts)], reach)
        for place, pair in enumerate(unrelated)
    ]
    if is_periodic(found):
        return max(significance, _FLOOR), True
    best = [item.best for item in found]
    middle = float(np.median(best))
    spread = 1.4826 * float(np.median(np.abs(np.array(best) - middle)))
    return max(significance, middle + significance * spread), False
