"""Whether each placed frame shows what its neighbours show.

Where two frames overlap, their band-passed pictures have a common part and noise. The
noise is what the differences of most pairs leave; the rest of their power must be in
their product as well. A frame of another sample, or one in a wrong place, has detail
beyond its noise that none of its neighbours knows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_semsr.stitch.offsets import NOISE_AREA, overlap_boxes
from napari_semsr.stitch.prepared import Prepared

__all__ = [
    "LEAST_SHARE",
    "Agreement",
    "agreement",
    "misfits",
    "overlap_sums",
    "shared_part",
]

FloatArray = NDArray[np.float64]
IntPair = tuple[int, int]

LEAST_SHARE = 0.4
_EVIDENT = 6.0
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Agreement:
    """How much of the detail of overlapping frames they have in common.

    Attributes
    ----------
    pairs : (M, 2) numpy.ndarray of int
        The frames of each pair.
    common : (M,) numpy.ndarray
        Sum of products over the overlap.
    power : (M,) numpy.ndarray
        Mean of both sums of squares.
    pixels : (M,) numpy.ndarray
        Pixels of the overlap.
    most_noise : float
        Largest noise power of a pixel that is thinkable.
    """

    pairs: NDArray[np.int64]
    common: FloatArray
    power: FloatArray
    pixels: FloatArray
    most_noise: float = float("inf")

    @property
    def noise(self) -> float:
        """Noise power of a pixel: what half of the pairs leave less of."""
        left = (self.power - self.common) / np.maximum(self.pixels, 1)
        return min(float(np.median(left)) if len(left) else 0.0, self.most_noise)

    def share(self, count: int, without: Sequence[int] = ()) -> FloatArray:
        """Part of each frame's detail that its neighbours show as well.

        Parameters
        ----------
        count : int
            Frames.
        without : sequence of int
            Frames that are no longer asked.

        Returns
        -------
        (N,) numpy.ndarray
            About 1 for a frame in its place, about 0 for one that belongs elsewhere;
            NaN where there is no detail beyond noise to compare.
        """
        asked = ~np.isin(self.pairs, np.array(without, dtype=np.int64)).any(axis=1)
        common, power, pixels = np.zeros((3, count))
        for column in range(2):
            frame = self.pairs[asked, column]
            np.add.at(common, frame, self.common[asked])
            np.add.at(power, frame, self.power[asked])
            np.add.at(pixels, frame, self.pixels[asked])
        return shared_part(common, power, pixels, self.noise)


def shared_part(
    common: FloatArray, power: FloatArray, pixels: FloatArray, noise: float
) -> FloatArray:
    """Part of the detail beyond noise that is common.

    Parameters
    ----------
    common, power, pixels : numpy.ndarray
        As in `Agreement`.
    noise : float
        Noise power of a pixel.

    Returns
    -------
    numpy.ndarray
        About 1 where both show the same; NaN where there is no detail beyond noise.
    """
    detail = power - pixels * noise
    doubt = noise * np.sqrt(2 * NOISE_AREA * np.maximum(pixels, 1))
    evident = detail > np.maximum(_EVIDENT * doubt, _TINY)
    part: FloatArray = np.where(
        evident, common / np.maximum(detail, _TINY), float("nan")
    )
    return part


def overlap_sums(
    prepared: Prepared, pair: IntPair, shift: IntPair
) -> tuple[float, float, int] | None:
    """Sum products and squares over the overlap of two frames.

    Parameters
    ----------
    prepared : Prepared
        Corrected frames.
    pair : tuple of int
        Which two.
    shift : tuple of int
        Position of the second less that of the first.

    Returns
    -------
    tuple or None
        Sum of products, mean of both sums of squares, pixels; None without overlap.
    """
    boxes = overlap_boxes(prepared.frame_shape, shift)
    if boxes is None:
        return None
    one, two = boxes[0].slices, boxes[1].slices
    first, second = prepared.banded(pair[0])[one], prepared.banded(pair[1])[two]
    count = first.size
    if not prepared.flat.valid.all():
        mask = (prepared.root[one] > 0) & (prepared.root[two] > 0)
        count = int(np.count_nonzero(mask))
        first, second = first * mask, second * mask
    if not count:
        return None
    power = float(np.vdot(first, first)) + float(np.vdot(second, second))
    return float(np.vdot(first, second)), power / 2, count


def agreement(
    prepared: Prepared,
    positions: FloatArray,
    pairs: Sequence[IntPair],
    most_noise: float = float("inf"),
) -> Agreement:
    """Compare all overlapping frames at their present places.

    Parameters
    ----------
    prepared : Prepared
        Corrected frames.
    positions : (N, 2) numpy.ndarray
        Top-left corners.
    pairs : sequence of tuple of int
        Placed frames that overlap.
    most_noise : float
        Largest noise power of a band-passed pixel that is thinkable.

    Returns
    -------
    Agreement
        Sums over each overlap.
    """
    kept, sums = [], []
    for pair in pairs:
        shift = np.round(positions[pair[1]] - positions[pair[0]])
        found = overlap_sums(prepared, pair, (int(shift[0]), int(shift[1])))
        if found is not None:
            kept.append(pair)
            sums.append(found)
    common, power, pixels = np.array(sums, dtype=float).reshape(-1, 3).T
    frames = np.array(kept, dtype=np.int64).reshape(-1, 2)
    return Agreement(frames, common, power, pixels, most_noise)


def misfits(found: Agreement, count: int) -> list[int]:
    """Frames that show detail which their neighbours do not.

    Parameters
    ----------
    found : Agreement
        Of all overlapping pairs.
    count : int
        Frames.

    Returns
    -------
    list of int
        The worst first; each is judged without those before it, so that good
        neighbours of a bad frame are spared.
    """
    taken: list[int] = []
    while True:
        share = found.share(count, taken)
        share[taken] = np.nan
        if not np.isfinite(share).any():
            return taken
        worst = int(np.nanargmin(share))
        if share[worst] >= LEAST_SHARE:
            return taken
        taken.append(worst)
