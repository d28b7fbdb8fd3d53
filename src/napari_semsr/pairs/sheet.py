"""A contact sheet: some pairs of each set side by side, to be looked at."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.pairs.options import SPLITS
from napari_semsr.pairs.store import PairStore

__all__ = ["contact_sheet"]

_THUMB = 96
_ACROSS = 6
_MOST = {"train": 24, "validation": 12, "test": 12}
_GAP, _BETWEEN = 2, 8
_WHITE = 255


def contact_sheet(store: PairStore) -> NDArray[np.uint8]:
    """Draw a contact sheet.

    Parameters
    ----------
    store : PairStore
        The pairs.

    Returns
    -------
    (Y, X) numpy.ndarray of uint8
        LOW left and HIGH right of each pair, evenly picked; training above validation
        above test, white lines between them.
    """
    bands = [_band(store, name) for name in SPLITS if store.counts[name]]
    line = np.full((_BETWEEN, bands[0].shape[1]), _WHITE, np.uint8)
    parts = [part for band in bands for part in (line, band)]
    return np.concatenate([*parts, line])


def _band(store: PairStore, name: str) -> NDArray[np.uint8]:
    """Draw the pairs of one set."""
    count = store.counts[name]
    shown = min(_MOST[name], count)
    picked = np.unique(np.linspace(0, count - 1, shown).astype(int))
    arrays = store.arrays(name)
    cells = []
    for index in picked:
        ranges = store.ranges(name, int(index))
        pair = [
            _thumbnail(np.asarray(array[int(index)]), value_range)
            for array, value_range in zip(arrays, ranges, strict=True)
        ]
        cells.append(np.pad(np.hstack(pair), ((0, _GAP), (0, _BETWEEN))))
    rows = []
    for first in range(0, len(cells), _ACROSS):
        row = cells[first : first + _ACROSS]
        blank = np.zeros_like(cells[0])
        rows.append(np.hstack([*row, *[blank] * (_ACROSS - len(row))]))
    return np.vstack(rows)


def _thumbnail(
    patch: NDArray[np.generic], value_range: tuple[float, float]
) -> NDArray[np.uint8]:
    """Shrink a patch and bring it to 8 bits."""
    low, high = value_range
    values = (patch.astype(float) - low) / max(high - low, 1e-300)
    ratio = patch.shape[0] / _THUMB
    if ratio > 1:
        values = ndimage.gaussian_filter(values, (ratio - 1) / 2)
    small = ndimage.affine_transform(
        values,
        [ratio, ratio],
        offset=(ratio - 1) / 2,
        output_shape=(_THUMB, _THUMB),
        order=1,
        mode="nearest",
    )
    shown = np.rint(np.clip(small, 0, 1) * _WHITE)
    return np.asarray(shown, dtype=np.uint8)
