"""Whether an image shows what is there, and only that.

A truth is changed before an instrument looks at it: discs are put in at some places
and taken out at others. An image of the changed truth shows a disc where its local
contrast lies past the middle between those of the truth without the disc and with it.
It is right where it shows what was put in, and where it does not show what was taken
out.

Grey levels are matched to the truth first, by the gain and offset that give its mean
and standard deviation, with a negative gain where the two are anticorrelated. A gain by
least squares would shrink with all that an image has wrong, so that one full of false
structure would seem to show nothing, and pass on all that was taken out.

An image without any contrast shows nothing: it is wrong on every inserted disc and
right on every erased one. Only both together tell something.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from napari_semsr.analysis.hallucination.discs import (
    Change,
    DiscPlaces,
    Discs,
    disc_contrast,
    local_contrast,
)
from napari_semsr.core import (
    BoolArray,
    FloatArray,
)

# Both chosen. A deviation of less, over the largest value, is rounding of float32 (some
# 1e-7). A place may have so much of a disc's contrast without it: less than the half
# from which a disc counts as shown, else an image that shows nothing would be right.
_ROUNDING = 1e-6
_PLAIN = 0.45


@dataclass(frozen=True, slots=True)
class Trial:
    """A truth before and after it was changed, and where.

    Attributes
    ----------
    original, changed : (Y, X) numpy.ndarray
        What a perfect image would show, on one grey scale.
    places : DiscPlaces
        Discs that were put in, and taken out.
    """

    original: FloatArray
    changed: FloatArray
    places: DiscPlaces

    def judge(self, image: FloatArray) -> dict[Change, BoolArray]:
        """Tell where an image of the changed truth is right.

        Parameters
        ----------
        image : (Y, X) numpy.ndarray
            On the grid of the truth, in any grey scale.

        Returns
        -------
        dict
            For each change, whether each of its discs is shown rightly.
        """
        seen = _gain(image, self.changed) * image

        def shown(discs: Discs, absent: FloatArray, present: FloatArray) -> BoolArray:
            without, having, found = (
                disc_contrast(one, discs) for one in (absent, present, seen)
            )
            share = (found - without) / (having - without)
            return np.asarray(share > 0.5)

        places = self.places
        return {
            "inserted": shown(places.inserted, self.original, self.changed),
            "erased": ~shown(places.erased, self.changed, self.original),
        }


def _gain(image: FloatArray, truth: FloatArray) -> float:
    """Give the gain that makes two standard deviations equal; contrast needs no more.

    That of an image that is constant but for rounding is 0.
    """
    off, wanted = image - image.mean(), truth - truth.mean()
    spread = float(off.std())
    if spread <= _ROUNDING * float(np.abs(image).max()):
        return 0.0
    sign = -1.0 if float((off * wanted).sum()) < 0 else 1.0
    return sign * float(wanted.std()) / spread


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where an enhanced image, and the one that it was made of, are right.

    Attributes
    ----------
    places : DiscPlaces
        The discs.
    enhanced, degraded : dict
        As `Trial.judge` gives them.
    """

    places: DiscPlaces
    enhanced: dict[Change, BoolArray]
    degraded: dict[Change, BoolArray]


@dataclass(frozen=True, slots=True)
class PresenceRow:
    """How many discs of one radius are shown rightly.

    Attributes
    ----------
    radius_px : int
        Radius.
    change : {"inserted", "erased"}
        What was done to the truth.
    discs : int
        How many there were.
    enhanced, degraded : int
        On how many of them each image is right.
    """

    radius_px: int
    change: Change
    discs: int
    enhanced: int
    degraded: int


def make_trial(
    original: FloatArray,
    changed: FloatArray,
    places: DiscPlaces,
    *,
    least: float = 1 / 3,
) -> Trial:
    """Keep the discs by which a truth can be told.

    Parameters
    ----------
    original, changed : (Y, X) numpy.ndarray
        The truth before and after.
    places : DiscPlaces
        Discs that were put in and taken out.
    least : float, default=1/3
        Contrast that a disc must have made or lost, over the local contrast of the
        original.

    Returns
    -------
    Trial
        Without discs that made less, or whose places have nearly half of the disc's
        contrast without it: an image that shows nothing must not pass for showing them.
    """
    local = local_contrast(original)

    def kept(discs: Discs, absent: FloatArray, present: FloatArray) -> Discs:
        at = tuple(np.rint(discs.centres).astype(int).T)
        without = disc_contrast(absent, discs)
        step = np.abs(disc_contrast(present, discs) - without)
        clear = (step > least * local[at]) & (np.abs(without) <= _PLAIN * step)
        return discs.chosen(clear)

    inserted = kept(places.inserted, original, changed)
    erased = kept(places.erased, changed, original)
    return Trial(original, changed, DiscPlaces(inserted, erased))


def tally(verdicts: Iterable[Verdict]) -> tuple[PresenceRow, ...]:
    """Count by radius and change.

    Parameters
    ----------
    verdicts : iterable of Verdict
        Of several images.

    Returns
    -------
    tuple of PresenceRow
        By radius; inserted ones before erased ones.
    """
    counts: dict[tuple[int, Change], list[int]] = {}
    for verdict in verdicts:
        discs: dict[Change, Discs] = {
            "inserted": verdict.places.inserted,
            "erased": verdict.places.erased,
        }
        for change, where in discs.items():
            rows = (where.radii, verdict.enhanced[change], verdict.degraded[change])
            for radius, enhanced, degraded in zip(*rows, strict=True):
                row = counts.setdefault((int(radius), change), [0, 0, 0])
                row[0] += 1
                row[1] += bool(enhanced)
                row[2] += bool(degraded)
    order: tuple[Change, ...] = ("inserted", "erased")
    keys = sorted(counts, key=lambda key: (key[0], order.index(key[1])))
    return tuple(
        PresenceRow(radius, change, *counts[radius, change]) for radius, change in keys
    )
