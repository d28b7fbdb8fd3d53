"""Hallucination test with discs: what a network invents or removes.

A ground truth is changed before it is imaged: discs are inserted at some positions and
erased at others. Positions are random, apart from one another and from the
border. The *local contrast* of an image at a position is the range from percentile 5
to 95 in a square of 49 px; that of a disc is the mean over its pixels less the mean
over a ring that reaches from one pixel beyond its rim to one beyond twice its radius.

A disc is inserted where there is no similar structure: half the local contrast is added
to the grey levels or subtracted from them. One is erased where there is a structure: a
spot whose mean differs from that of its rim by half the local contrast. It is filled
with the harmonic function of its rim, the smoothest one, which has the mean of the rim.

An image of the changed truth shows a disc if its local contrast is past the midpoint
between those of the truth without and with the disc. It is right if it shows what was
inserted, and does not show what was erased.

Grey levels are matched to the truth first, by the gain and offset that give its mean
and standard deviation, with a negative gain if the two are anticorrelated. A
least-squares gain would shrink with every error of an image: one full of false
structure would seem to show nothing, and pass on all erased discs.

An image without contrast shows nothing: it is wrong on all inserted discs and right on
all erased ones. Only both numbers together are meaningful.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import scipy  # the rest is loaded on use
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import spsolve

from napari_semsr.core import BoolArray, FloatArray, FloatPair, IntPair

Change = Literal["inserted", "erased"]

# The test is described in docs/models.md; its constants were chosen. Discs with less
# than a third of the local contrast are left out, as are positions that have half of it
# without the disc.
RADII_PX = (3, 4, 5, 6)  # the range of blurs that models undo
MARGIN_PX = 24  # a centre's distance from the border: half the square of local contrast
_SHARE = 0.5  # of the local contrast; chosen: clearly visible, yet not unusual
_PLAIN = 0.25  # share of a disc's contrast that its position may have without it
_LEAST = 0.125  # local contrast over that of the whole image; noise dominates below
_WINDOW, _STEP = 49, 16  # = 2 * 24 + 1; every third pixel is enough, and much faster
_PERCENTILES = (5, 95)  # not the extremes, which are noise
_APART_PX = 2  # between the rings of two discs

# Also chosen. A relative deviation below this is rounding of float32 (about 1e-7). A
# position may have this share of a disc's contrast without it: below the half from
# which a disc counts as shown, or an image that shows nothing would be right.
_ROUNDING = 1e-6
_HIDDEN_CONTRAST = 0.45
_CLEAR_CONTRAST = (
    1 / 3
)  # contrast that a disc must add or remove, relative to local contrast


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

    def choose(self, which: BoolArray) -> "Discs":
        """Return a subset of the discs by a mask (N,)."""
        return Discs(self.centres[which], self.radii[which])

    def on_grid(self, factor: float, margin_px: int = 0) -> "Discs":
        """Return the same discs on a grid that starts some pixels earlier."""
        centres = (self.centres + 0.5) * factor - 0.5 + margin_px
        return Discs(centres, self.radii * factor)

    def contrast(self, image: FloatArray) -> FloatArray:
        """Return the mean of each disc minus that of its ring; all must be inside."""
        contrasts = np.empty(len(self))
        for index, (centre, radius) in enumerate(self):
            box = _box(centre, 2 * radius + 1, image.shape)
            away = _away(box, centre)
            part = image[box]
            ring = (away >= radius + 1) & (away <= 2 * radius + 1)
            contrasts[index] = part[away <= radius - 0.5].mean() - part[ring].mean()
        return contrasts

    def sums(self, image: FloatArray) -> FloatArray:
        """Sum over each disc and its ring (N,)."""
        disc_sums = np.empty(len(self))
        for index, (centre, radius) in enumerate(self):
            box = _box(centre, 2 * radius + 1, image.shape)
            disc_sums[index] = image[box][_away(box, centre) <= 2 * radius + 1].sum()
        return disc_sums

    def insert_into(self, image: FloatArray, steps: FloatArray) -> FloatArray:
        """Add discs with rims smoothed over one pixel; the texture inside is kept."""
        changed_image = image.copy()
        for (centre, radius), step in zip(self, steps, strict=True):
            box = _box(centre, radius + 1, image.shape)
            changed_image[box] += step * np.clip(
                radius + 0.5 - _away(box, centre), 0, 1
            )
        return changed_image

    def erase_from(self, image: FloatArray) -> FloatArray:
        """Fill discs, and half a pixel more, harmonically from their rims."""
        changed_image = image.copy()
        for centre, radius in self:
            box = _box(centre, radius + 2, image.shape)
            part = changed_image[box]
            part[...] = _harmonic(part, _away(box, centre) <= radius + 0.5)
        return changed_image

    def __iter__(self) -> Iterator[tuple[FloatArray, float]]:
        """Iterate over centres and radii."""
        return zip(self.centres, self.radii, strict=True)


@dataclass(frozen=True, slots=True)
class DiscPlaces:
    """Positions of the discs to insert and to erase."""

    inserted: Discs  # no disc touches another's ring
    erased: Discs

    @classmethod
    def choose(
        cls,
        image: FloatArray,
        counts: IntPair,
        rng: np.random.Generator,
        radii: tuple[int, ...] = RADII_PX,
    ) -> Self:
        """Choose positions of `counts` discs to insert and to erase; fewer if crowded.

        All radii occur equally often.
        """
        places: dict[Change, list[tuple[int, int, int]]] = {
            "inserted": [],
            "erased": [],
        }
        if min(image.shape) >= _WINDOW:
            for change, place in _draw_places(image, counts, rng, radii):
                places[change].append(place)
        tables = (
            np.array(places[change], dtype=float).reshape(-1, 3)
            for change in ("inserted", "erased")
        )
        return cls(*(Discs(table[:, :2], table[:, 2]) for table in tables))

    def change(
        self,
        image: FloatArray,
        rng: np.random.Generator,
        bounds: FloatPair = (-np.inf, np.inf),
    ) -> FloatArray:
        """Erase discs from an image and insert others, brighter or darker at random.

        A disc whose mean would leave the range of grey levels, `bounds`, gets the
        opposite sign.
        """
        discs = self.inserted
        sizes = _SHARE * local_contrast(image)[discs.pixels]
        steps: FloatArray = sizes * rng.choice([-1.0, 1.0], len(discs))
        for index, (centre, radius) in enumerate(discs):
            box = _box(centre, radius, image.shape)
            new_value = image[box][_away(box, centre) <= radius].mean() + steps[index]
            if not bounds[0] <= new_value <= bounds[1]:
                steps[index] *= -1
        return discs.insert_into(self.erased.erase_from(image), steps)


def local_contrast(image: FloatArray) -> FloatArray:
    """Return the local contrast at each pixel, in the nearest square of the image."""
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
    """Choose random positions one by one, alternating changes and radii."""
    contrast = local_contrast(image)
    low, high = np.percentile(image, _PERCENTILES)
    free = np.zeros(image.shape, dtype=bool)
    free[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX] = True
    free &= (contrast > 0) & (contrast >= _LEAST * (high - low))
    fits = {radius: _fitting(image, contrast, radius) for radius in radii}
    spread = 2 * max(radii) + 1 + _APART_PX
    counts_wanted: dict[Change, int] = {"inserted": counts[0], "erased": counts[1]}
    for number in range(max(counts)):
        radius = radii[number % len(radii)]
        for change, where in fits[radius].items():
            places = np.flatnonzero(where & free)
            if places.size == 0 or number >= counts_wanted[change]:
                continue
            y, x = divmod(int(rng.choice(places)), image.shape[1])
            yield change, (y, x, radius)
            reach = 2 * radius + 1 + spread
            box = _box((y, x), reach, image.shape)
            free[box] &= _away(box, (y, x)) > reach


def _fitting(
    image: FloatArray, contrast: FloatArray, radius: int
) -> dict[Change, BoolArray]:
    """Return a mask of positions where a disc may be inserted or erased."""
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
    """Return the mean over a ring around each pixel; image borders are mirrored."""
    half = int(np.ceil(outer))
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    away = np.hypot(y, x)
    weights = ((away >= inner) & (away <= outer)).astype(float)
    padded_image = np.pad(image, half, mode="symmetric")
    return np.asarray(
        scipy.signal.fftconvolve(padded_image, weights / weights.sum(), mode="valid")
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
        is_inner = other < 0
        right[is_inner] += part[ys[is_inner] + dy, xs[is_inner] + dx]
        rows.append(np.flatnonzero(~is_inner))
        columns.append(other[~is_inner])
    at = np.concatenate(rows), np.concatenate(columns)
    links = sparse.coo_array((np.ones(len(at[0])), at), shape=(unknowns, unknowns))
    system = sparse.csc_array(4 * sparse.eye_array(unknowns) - links)
    filled_part = part.copy()
    filled_part[inside] = spsolve(system, right)
    return filled_part


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
    """Distance of the pixels of a box from a position."""
    y, x = (
        np.arange(part.start, part.stop) - at
        for part, at in zip(box, centre, strict=True)
    )
    return np.asarray(np.hypot(y[:, None], x[None, :]))


@dataclass(frozen=True, slots=True)
class Trial:
    """A ground truth before and after the change, and the discs."""

    original: FloatArray  # (Y, X) what a perfect image would show, on one grey scale
    with_changes: FloatArray
    places: DiscPlaces  # discs that were inserted, and erased

    @classmethod
    def of(
        cls, original: FloatArray, changed_truth: FloatArray, places: DiscPlaces
    ) -> Self:
        """Keep the discs that a ground truth shows clearly, by their contrasts."""
        local = local_contrast(original)

        def keep_discs(discs: Discs, absent: FloatArray, present: FloatArray) -> Discs:
            without = discs.contrast(absent)
            step = np.abs(discs.contrast(present) - without)
            clear = step > _CLEAR_CONTRAST * local[discs.pixels]
            return discs.choose(clear & (np.abs(without) <= _HIDDEN_CONTRAST * step))

        inserted_discs = keep_discs(places.inserted, original, changed_truth)
        erased_discs = keep_discs(places.erased, changed_truth, original)
        return cls(original, changed_truth, DiscPlaces(inserted_discs, erased_discs))

    def judge(self, image: FloatArray) -> dict[Change, BoolArray]:
        """Find the discs that an image, of any grey scale, shows correctly."""
        matched_image = matched_gain(image, self.with_changes) * image

        def is_shown(
            discs: Discs, absent: FloatArray, present: FloatArray
        ) -> BoolArray:
            without, having, contrasts = (
                discs.contrast(one) for one in (absent, present, matched_image)
            )
            share = (contrasts - without) / (having - without)
            return np.asarray(share > 0.5)

        places = self.places
        return {
            "inserted": is_shown(places.inserted, self.original, self.with_changes),
            "erased": ~is_shown(places.erased, self.with_changes, self.original),
        }


def matched_gain(image: FloatArray, truth: FloatArray) -> float:
    """Return the gain that makes two standard deviations equal.

    Contrasts do not depend on the offset. The gain is 0 if an image is constant.
    """
    off, truth_off = image - image.mean(), truth - truth.mean()
    spread = float(off.std())
    if spread <= _ROUNDING * float(np.abs(image).max()):
        return 0.0
    sign = -1.0 if float((off * truth_off).sum()) < 0 else 1.0
    return sign * float(truth_off.std()) / spread


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which discs an enhanced image and its input show correctly."""

    places: DiscPlaces
    enhanced: dict[Change, BoolArray]  # as `Trial.judge` returns them
    degraded: dict[Change, BoolArray]


@dataclass(frozen=True, slots=True)
class PresenceRow:
    """Number of discs of one radius that are shown correctly."""

    radius_px: int
    change: Change  # change of the ground truth
    discs: int  # number of discs
    enhanced: int  # number that each image shows correctly
    degraded: int


def tally(verdicts: Iterable[Verdict]) -> tuple[PresenceRow, ...]:
    """Count discs by radius and change, inserted before erased."""
    changes: tuple[Change, ...] = ("inserted", "erased")
    counts = {(radius, change): [0, 0, 0] for radius in RADII_PX for change in changes}
    for verdict in verdicts:
        for change in changes:
            radii = getattr(verdict.places, change).radii
            rows = (radii, verdict.enhanced[change], verdict.degraded[change])
            for radius, enhanced_right, degraded_right in zip(*rows, strict=True):
                row = counts[int(radius), change]
                row[:] = (
                    row[0] + 1,
                    row[1] + bool(enhanced_right),
                    row[2] + bool(degraded_right),
                )
    return tuple(PresenceRow(*key, *row) for key, row in counts.items() if row[0])
