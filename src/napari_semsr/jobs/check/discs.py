"""What a network invents or removes, tested with discs put in and taken out.

A truth is changed before an instrument looks at it: discs are put in at some places
and taken out at others. Places are chosen at random, apart from one another and from
the border. The *local contrast* of an image at a place is the distance of its
percentiles 5 and 95 in a square of 49 px; that of a disc is the mean over its pixels
less the mean over a ring that reaches from one pixel beyond its rim to one beyond twice
its radius.

A disc is inserted where nothing of its kind lies: half the local contrast is added to
the grey levels or taken from them. One is erased where something is: a spot whose mean
differs from that of its rim by half the local contrast. It is filled with the harmonic
function that its rim spans, the smoothest one, whose mean is that of the rim.

An image of the changed truth shows a disc where its local contrast lies past the middle
between those of the truth without the disc and with it. It is right where it shows what
was put in, and where it does not show what was taken out.

Grey levels are matched to the truth first, by the gain and offset that give its mean
and standard deviation, with a negative gain where the two are anticorrelated. A gain by
least squares would shrink with all that an image has wrong, so that one full of false
structure would seem to show nothing, and pass on all that was taken out.

An image without any contrast shows nothing: it is wrong on every inserted disc and
right on every erased one. Only both together tell something.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import scipy  # the rest of it is loaded when it is used
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import spsolve

from napari_semsr.core import BoolArray, FloatArray, FloatPair, IntPair

Change = Literal["inserted", "erased"]

# The trial is described in docs/models.md; its numbers are chosen. Discs of less than a
# third of the local contrast are left out, as those whose place has half of it without.
RADII_PX = (3, 4, 5, 6)  # about the blurs that models undo
MARGIN_PX = 24  # a centre's distance from the border: half the square of local contrast
_SHARE = 0.5  # of the local contrast: plain to see, and no more than is there already
_PLAIN = 0.25  # of a disc's contrast that its place may have without it, when chosen
_LEAST = 0.125  # local contrast over that of the whole image; below, noise decides
_WINDOW, _STEP = 49, 16  # = 2 * 24 + 1; every third of it is enough, and much faster
_PERCENTILES = (5, 95)  # not the extremes, which are noise
_APART_PX = 2  # between the rings of two discs

# Also chosen. A deviation of less, over the largest value, is rounding of float32 (some
# 1e-7). A place may have so much of a disc's contrast without it: less than the half
# from which a disc counts as shown, else an image that shows nothing would be right.
_ROUNDING = 1e-6
_HIDDEN = 0.45
_TOLD = 1 / 3  # contrast that a disc must have made or lost, over the local contrast


@dataclass(frozen=True, slots=True)
class Discs:
    """Discs on a grid."""

    # (N, 2) ``(y, x)`` in pixels; the centre of the first pixel is (0, 0)
    centres: FloatArray
    radii: FloatArray  # (N,) In pixels

    def __len__(self) -> int:
        return len(self.radii)

    @property
    def pixels(self) -> tuple[NDArray[np.int64], ...]:
        """Index of the pixels at the centres."""
        return tuple(np.rint(self.centres).astype(np.int64).T)

    def chosen(self, which: BoolArray) -> "Discs":
        """Leave some out; `which` (N,)."""
        return Discs(self.centres[which], self.radii[which])

    def on_grid(self, factor: float, margin_px: int = 0) -> "Discs":
        """Give the same discs on another grid, which begins some pixels earlier."""
        centres = (self.centres + 0.5) * factor - 0.5 + margin_px
        return Discs(centres, self.radii * factor)

    def contrast(self, image: FloatArray) -> FloatArray:
        """Mean of each disc less that of the ring around it; both lie in the image."""
        found = np.empty(len(self))
        for index, (centre, radius) in enumerate(self):
            box = _box(centre, 2 * radius + 1, image.shape)
            away = _away(box, centre)
            part = image[box]
            ring = (away >= radius + 1) & (away <= 2 * radius + 1)
            found[index] = part[away <= radius - 0.5].mean() - part[ring].mean()
        return found

    def sums(self, image: FloatArray) -> FloatArray:
        """Sum over each disc and its ring (N,)."""
        found = np.empty(len(self))
        for index, (centre, radius) in enumerate(self):
            box = _box(centre, 2 * radius + 1, image.shape)
            found[index] = image[box][_away(box, centre) <= 2 * radius + 1].sum()
        return found

    def insert_into(self, image: FloatArray, steps: FloatArray) -> FloatArray:
        """Add discs with rims smoothed over one pixel; texture within is kept."""
        made = image.copy()
        for (centre, radius), step in zip(self, steps, strict=True):
            box = _box(centre, radius + 1, image.shape)
            made[box] += step * np.clip(radius + 0.5 - _away(box, centre), 0, 1)
        return made

    def erase_from(self, image: FloatArray) -> FloatArray:
        """Fill discs, and half a pixel more, harmonically from their rims."""
        made = image.copy()
        for centre, radius in self:
            box = _box(centre, radius + 2, image.shape)
            part = made[box]
            part[...] = _harmonic(part, _away(box, centre) <= radius + 0.5)
        return made

    def __iter__(self) -> Iterator[tuple[FloatArray, float]]:
        """Go through centres and radii."""
        return zip(self.centres, self.radii, strict=True)


@dataclass(frozen=True, slots=True)
class DiscPlaces:
    """Where discs go in, and where some come out."""

    inserted: Discs  # none of them touches another's ring
    erased: Discs

    @classmethod
    def choose(
        cls,
        image: FloatArray,
        counts: IntPair,
        rng: np.random.Generator,
        radii: tuple[int, ...] = RADII_PX,
    ) -> Self:
        """Choose places for `counts` discs to insert and to erase, fewer without room.

        All radii are equally often.
        """
        found: dict[Change, list[tuple[int, int, int]]] = {"inserted": [], "erased": []}
        if min(image.shape) >= _WINDOW:
            for change, place in _draw_places(image, counts, rng, radii):
                found[change].append(place)
        tables = (
            np.array(found[change], dtype=float).reshape(-1, 3)
            for change in ("inserted", "erased")
        )
        return cls(*(Discs(table[:, :2], table[:, 2]) for table in tables))

    def change(
        self,
        image: FloatArray,
        rng: np.random.Generator,
        bounds: FloatPair = (-np.inf, np.inf),
    ) -> FloatArray:
        """Take discs out of an image, and put others in, brighter or darker at random.

        One whose mean would leave the least or largest grey level, `bounds`, goes the
        other way.
        """
        discs = self.inserted
        sizes = _SHARE * local_contrast(image)[discs.pixels]
        steps: FloatArray = sizes * rng.choice([-1.0, 1.0], len(discs))
        for index, (centre, radius) in enumerate(discs):
            box = _box(centre, radius, image.shape)
            made = image[box][_away(box, centre) <= radius].mean() + steps[index]
            if not bounds[0] <= made <= bounds[1]:
                steps[index] *= -1
        return discs.insert_into(self.erased.erase_from(image), steps)


def local_contrast(image: FloatArray) -> FloatArray:
    """Local contrast at each pixel: that of the nearest square within the image."""
    windows = sliding_window_view(image, (_WINDOW, _WINDOW))[::_STEP, ::_STEP]
    flat = windows.reshape(*windows.shape[:2], -1)
    low, high = np.percentile(flat, _PERCENTILES, axis=-1)
    rows, columns = (
        np.clip(np.rint((np.arange(n) - _WINDOW // 2) / _STEP), 0, count - 1)
        for n, count in zip(image.shape, windows.shape[:2], strict=True)
    )
    coarse = high - low
    return np.asarray(coarse[np.ix_(rows.astype(int), columns.astype(int))])


def _draw_places(
    image: FloatArray,
    counts: IntPair,
    rng: np.random.Generator,
    radii: tuple[int, ...],
) -> Iterator[tuple[Change, tuple[int, int, int]]]:
    """Draw places and radii one after the other, of each change and radius in turn."""
    contrast = local_contrast(image)
    low, high = np.percentile(image, _PERCENTILES)
    free = np.zeros(image.shape, dtype=bool)
    free[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX] = True
    free &= (contrast > 0) & (contrast >= _LEAST * (high - low))
    fits = {radius: _fitting(image, contrast, radius) for radius in radii}
    spread = 2 * max(radii) + 1 + _APART_PX
    wanted: dict[Change, int] = {"inserted": counts[0], "erased": counts[1]}
    for number in range(max(counts)):
        radius = radii[number % len(radii)]
        for change, where in fits[radius].items():
            places = np.flatnonzero(where & free)
            if places.size == 0 or number >= wanted[change]:
                continue
            y, x = divmod(int(rng.choice(places)), image.shape[1])
            yield change, (y, x, radius)
            reach = 2 * radius + 1 + spread
            box = _box((y, x), reach, image.shape)
            free[box] &= _away(box, (y, x)) > reach


def _fitting(
    image: FloatArray, contrast: FloatArray, radius: int
) -> dict[Change, BoolArray]:
    """Tell where a disc of this radius may go in, or come out."""
    disc = _mean(image, 0, radius - 0.5)
    rim = _mean(image, radius + 0.5, radius + 1.5)
    ring = _mean(image, radius + 1, 2 * radius + 1)
    step = _SHARE * contrast
    something = np.abs(disc - rim)
    plain = np.abs(rim - ring) <= _PLAIN * something
    return {
        "erased": (something >= step) & plain,
        "inserted": np.abs(disc - ring) <= _PLAIN * step,
    }


def _mean(image: FloatArray, inner: float, outer: float) -> FloatArray:
    """Mean over a ring around each pixel; beyond its border an image is mirrored."""
    half = int(np.ceil(outer))
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    away = np.hypot(y, x)
    weights = ((away >= inner) & (away <= outer)).astype(float)
    padded = np.pad(image, half, mode="symmetric")
    return np.asarray(
        scipy.signal.fftconvolve(padded, weights / weights.sum(), mode="valid")
    )


def _harmonic(part: FloatArray, inside: BoolArray) -> FloatArray:
    """Replace some pixels by the solution of Laplace's equation."""
    index = np.full(part.shape, -1)
    index[inside] = np.arange(inside.sum())
    ys, xs = np.nonzero(inside)
    unknowns = len(ys)
    right = np.zeros(unknowns)
    rows, columns = [], []
    for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        other = index[ys + dy, xs + dx]
        known = other < 0
        right[known] += part[ys[known] + dy, xs[known] + dx]
        rows.append(np.flatnonzero(~known))
        columns.append(other[~known])
    at = np.concatenate(rows), np.concatenate(columns)
    links = sparse.coo_array((np.ones(len(at[0])), at), shape=(unknowns, unknowns))
    system = sparse.csc_array(4 * sparse.eye_array(unknowns) - links)
    filled = part.copy()
    filled[inside] = spsolve(system, right)
    return filled


def _box(
    centre: FloatPair | FloatArray, reach: float, shape: tuple[int, ...]
) -> tuple[slice, slice]:
    """Pixels of an image within a distance along either axis."""
    y, x = (
        slice(max(0, int(np.floor(at - reach))), min(n, int(np.ceil(at + reach)) + 1))
        for at, n in zip(centre, shape, strict=True)
    )
    return y, x


def _away(box: tuple[slice, slice], centre: FloatPair | FloatArray) -> FloatArray:
    """Distance of the pixels of a box from a place."""
    y, x = (
        np.arange(part.start, part.stop) - at
        for part, at in zip(box, centre, strict=True)
    )
    return np.asarray(np.hypot(y[:, None], x[None, :]))


@dataclass(frozen=True, slots=True)
class Trial:
    """A truth before and after it was changed, and where."""

    original: FloatArray  # (Y, X) What a perfect image would show, on one grey scale
    changed: FloatArray
    places: DiscPlaces  # discs that were put in, and taken out

    @classmethod
    def of(cls, original: FloatArray, changed: FloatArray, places: DiscPlaces) -> Self:
        """Keep the discs by which a truth can be told, after `_TOLD` and `_HIDDEN`."""
        local = local_contrast(original)

        def kept(discs: Discs, absent: FloatArray, present: FloatArray) -> Discs:
            without = discs.contrast(absent)
            step = np.abs(discs.contrast(present) - without)
            clear = step > _TOLD * local[discs.pixels]
            return discs.chosen(clear & (np.abs(without) <= _HIDDEN * step))

        inserted = kept(places.inserted, original, changed)
        erased = kept(places.erased, changed, original)
        return cls(original, changed, DiscPlaces(inserted, erased))

    def judge(self, image: FloatArray) -> dict[Change, BoolArray]:
        """Tell of each disc whether an image, of any grey scale, shows it rightly."""
        seen = matched_gain(image, self.changed) * image

        def shown(discs: Discs, absent: FloatArray, present: FloatArray) -> BoolArray:
            without, having, found = (
                discs.contrast(one) for one in (absent, present, seen)
            )
            share = (found - without) / (having - without)
            return np.asarray(share > 0.5)

        places = self.places
        return {
            "inserted": shown(places.inserted, self.original, self.changed),
            "erased": ~shown(places.erased, self.changed, self.original),
        }


def matched_gain(image: FloatArray, truth: FloatArray) -> float:
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
    """Where an enhanced image, and the one that it was made of, are right."""

    places: DiscPlaces
    enhanced: dict[Change, BoolArray]  # as `Trial.judge` gives them
    degraded: dict[Change, BoolArray]


@dataclass(frozen=True, slots=True)
class PresenceRow:
    """How many discs of one radius are shown rightly."""

    radius_px: int
    change: Change  # what was done to the truth
    discs: int  # how many there were
    enhanced: int  # on how many of them each image is right
    degraded: int


def tally(verdicts: Iterable[Verdict]) -> tuple[PresenceRow, ...]:
    """Count by radius and change, inserted ones before erased ones."""
    changes: tuple[Change, ...] = ("inserted", "erased")
    counts = {(radius, change): [0, 0, 0] for radius in RADII_PX for change in changes}
    for verdict in verdicts:
        for change in changes:
            radii = getattr(verdict.places, change).radii
            rows = (radii, verdict.enhanced[change], verdict.degraded[change])
            for radius, enhanced, degraded in zip(*rows, strict=True):
                row = counts[int(radius), change]
                row[:] = row[0] + 1, row[1] + bool(enhanced), row[2] + bool(degraded)
    return tuple(PresenceRow(*key, *row) for key, row in counts.items() if row[0])
