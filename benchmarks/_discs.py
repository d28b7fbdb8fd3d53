"""Hallucination test that inserts and erases discs.

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
    """Discs on a pixel grid, given by centre and radius."""

    # (N, 2) ``(y, x)`` in pixels; the centre of the first pixel is (0, 0)
    centres: FloatArray
    radii: FloatArray  # (N,) In pixels

    def __len__(self) -> int:
        return len(self.radii)

    @property
    def pixel_indices(self) -> tuple[NDArray[np.int64], ...]:
        """Indices of the pixels at the disc centres."""
        return tuple(np.rint(self.centres).astype(np.int64).T)

    def select(self, which: BoolArray) -> "Discs":
        """Return the subset of the discs selected by a mask (N,)."""
        return Discs(self.centres[which], self.radii[which])

    def to_grid(self, factor: float, margin_px: int = 0) -> "Discs":
        """Return the discs on a finer or coarser grid with a margin."""
        centres = (self.centres + 0.5) * factor - 0.5 + margin_px
        return Discs(centres, self.radii * factor)

    def measure_contrast(self, image: FloatArray) -> FloatArray:
        """Return the contrast between each disc and its surrounding ring."""
        contrasts = np.empty(len(self))
        for index, (centre, radius) in enumerate(self):
            box = _get_box_slices(centre, 2 * radius + 1, image.shape)
            away = _compute_distances(box, centre)
            part = image[box]
            ring = (away >= radius + 1) & (away <= 2 * radius + 1)
            contrasts[index] = part[away <= radius - 0.5].mean() - part[ring].mean()
        return contrasts

    def sum_pixels(self, image: FloatArray) -> FloatArray:
        """Sum the pixels of each disc and its ring; return an array (N,)."""
        disc_sums = np.empty(len(self))
        for index, (centre, radius) in enumerate(self):
            box = _get_box_slices(centre, 2 * radius + 1, image.shape)
            disc_sums[index] = image[box][
                _compute_distances(box, centre) <= 2 * radius + 1
            ].sum()
        return disc_sums

    def insert_into(self, image: FloatArray, steps: FloatArray) -> FloatArray:
        """Add discs with edges smoothed over one pixel, keeping the texture inside."""
        changed_image = image.copy()
        for (centre, radius), step in zip(self, steps, strict=True):
            box = _get_box_slices(centre, radius + 1, image.shape)
            changed_image[box] += step * np.clip(
                radius + 0.5 - _compute_distances(box, centre), 0, 1
            )
        return changed_image

    def erase_from(self, image: FloatArray) -> FloatArray:
        """Fill discs, enlarged by half a pixel, by harmonic interpolation."""
        changed_image = image.copy()
        for centre, radius in self:
            box = _get_box_slices(centre, radius + 2, image.shape)
            part = changed_image[box]
            part[...] = _fill_masked_pixels(
                part, _compute_distances(box, centre) <= radius + 0.5
            )
        return changed_image

    def __iter__(self) -> Iterator[tuple[FloatArray, float]]:
        """Iterate over pairs of centre and radius."""
        return zip(self.centres, self.radii, strict=True)


@dataclass(frozen=True, slots=True)
class DiscPositions:
    """Positions of discs to insert and to erase."""

    inserted_discs: Discs  # no disc touches another's ring
    erased_discs: Discs

    @classmethod
    def choose(
        cls,
        image: FloatArray,
        counts: IntPair,
        rng: np.random.Generator,
        radii: tuple[int, ...] = RADII_PX,
    ) -> Self:
        """Choose positions of `counts` discs to insert and erase; fewer if crowded.

        All radii occur equally often.
        """
        places: dict[Change, list[tuple[int, int, int]]] = {
            "inserted": [],
            "erased": [],
        }
        if min(image.shape) >= _WINDOW:
            for change, place in _choose_positions(image, counts, rng, radii):
                places[change].append(place)
        tables = (
            np.array(places[change], dtype=float).reshape(-1, 3)
            for change in ("inserted", "erased")
        )
        return cls(*(Discs(table[:, :2], table[:, 2]) for table in tables))

    def apply_changes(
        self,
        image: FloatArray,
        rng: np.random.Generator,
        bounds: FloatPair = (-np.inf, np.inf),
    ) -> FloatArray:
        """Erase discs from an image and insert others with random contrast signs.

        A disc whose mean would leave the range of grey levels, `bounds`, gets the
        opposite sign.
        """
        discs = self.inserted_discs
        sizes = _SHARE * measure_local_contrast(image)[discs.pixel_indices]
        steps: FloatArray = sizes * rng.choice([-1.0, 1.0], len(discs))
        for index, (centre, radius) in enumerate(discs):
            box = _get_box_slices(centre, radius, image.shape)
            new_value = (
                image[box][_compute_distances(box, centre) <= radius].mean()
                + steps[index]
            )
            if not bounds[0] <= new_value <= bounds[1]:
                steps[index] *= -1
        return discs.insert_into(self.erased_discs.erase_from(image), steps)


def measure_local_contrast(image: FloatArray) -> FloatArray:
    """Measure the local contrast at each pixel in the nearest square window."""
    windows = sliding_window_view(image, (_WINDOW, _WINDOW))[::_STEP, ::_STEP]
    flat = windows.reshape(*windows.shape[:2], -1)
    low, high = np.percentile(flat, _PERCENTILES, axis=-1)
    rows, columns = (
        np.clip(np.rint((np.arange(n) - _WINDOW // 2) / _STEP), 0, count - 1)
        for n, count in zip(image.shape, windows.shape[:2], strict=True)
    )
    coarse = high - low
    return np.asarray(coarse[np.ix_(rows.astype(int), columns.astype(int))])


def _choose_positions(
    image: FloatArray,
    counts: IntPair,
    rng: np.random.Generator,
    radii: tuple[int, ...],
) -> Iterator[tuple[Change, tuple[int, int, int]]]:
    """Choose random positions one by one, alternating between changes and radii."""
    contrast = measure_local_contrast(image)
    low, high = np.percentile(image, _PERCENTILES)
    free = np.zeros(image.shape, dtype=bool)
    free[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX] = True
    free &= (contrast > 0) & (contrast >= _LEAST * (high - low))
    fits: dict[int, dict[Change, BoolArray]] = {}
    for radius in radii:
        disc = _compute_ring_mean(image, 0, radius - 0.5)
        rim = _compute_ring_mean(image, radius + 0.5, radius + 1.5)
        ring = _compute_ring_mean(image, radius + 1, 2 * radius + 1)
        step = _SHARE * contrast
        something = np.abs(disc - rim)
        plain = np.abs(rim - ring) <= _PLAIN * something
        fits[radius] = {
            "erased": (something >= step) & plain,
            "inserted": np.abs(disc - ring) <= _PLAIN * step,
        }
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
            box = _get_box_slices((y, x), reach, image.shape)
            free[box] &= _compute_distances(box, (y, x)) > reach


def _compute_ring_mean(image: FloatArray, inner: float, outer: float) -> FloatArray:
    """Compute the mean over a ring around each pixel, mirroring image borders."""
    half = int(np.ceil(outer))
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    away = np.hypot(y, x)
    weights = ((away >= inner) & (away <= outer)).astype(float)
    padded_image = np.pad(image, half, mode="symmetric")
    return np.asarray(
        scipy.signal.fftconvolve(padded_image, weights / weights.sum(), mode="valid")
    )


def _fill_masked_pixels(part: FloatArray, inside: BoolArray) -> FloatArray:
    """Fill masked pixels by solving Laplace's equation."""
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


def _get_box_slices(
    centre: FloatPair | FloatArray, reach: float, shape: tuple[int, ...]
) -> tuple[slice, slice]:
    """Return slices of the box within a given distance of a centre."""
    y, x = (
        slice(max(0, int(np.floor(at - reach))), min(n, int(np.ceil(at + reach)) + 1))
        for at, n in zip(centre, shape, strict=True)
    )
    return y, x


def _compute_distances(
    box: tuple[slice, slice], centre: FloatPair | FloatArray
) -> FloatArray:
    """Return the distance of each pixel in a box from a centre."""
    y, x = (
        np.arange(part.start, part.stop) - at
        for part, at in zip(box, centre, strict=True)
    )
    return np.asarray(np.hypot(y[:, None], x[None, :]))


@dataclass(frozen=True, slots=True)
class DiscTrial:
    """Ground truth before and after inserting and erasing discs."""

    original: FloatArray  # (Y, X) what a perfect image would show, on one grey scale
    with_changes: FloatArray
    places: DiscPositions  # discs that were inserted, and erased

    @classmethod
    def from_truths(
        cls, original: FloatArray, changed_truth: FloatArray, places: DiscPositions
    ) -> Self:
        """Create a trial from the discs clearly visible in the ground truth."""
        local = measure_local_contrast(original)

        def keep_discs(discs: Discs, absent: FloatArray, present: FloatArray) -> Discs:
            without = discs.measure_contrast(absent)
            step = np.abs(discs.measure_contrast(present) - without)
            clear = step > _CLEAR_CONTRAST * local[discs.pixel_indices]
            return discs.select(clear & (np.abs(without) <= _HIDDEN_CONTRAST * step))

        inserted_discs = keep_discs(places.inserted_discs, original, changed_truth)
        erased_discs = keep_discs(places.erased_discs, changed_truth, original)
        return cls(original, changed_truth, DiscPositions(inserted_discs, erased_discs))

    def find_shown_discs(self, image: FloatArray) -> dict[Change, BoolArray]:
        """Find the discs reproduced correctly by an image of any grey scale."""
        matched_image = compute_matching_gain(image, self.with_changes) * image

        def is_shown(
            discs: Discs, absent: FloatArray, present: FloatArray
        ) -> BoolArray:
            without, having, contrasts = (
                discs.measure_contrast(one) for one in (absent, present, matched_image)
            )
            share = (contrasts - without) / (having - without)
            return np.asarray(share > 0.5)

        places = self.places
        return {
            "inserted": is_shown(
                places.inserted_discs, self.original, self.with_changes
            ),
            "erased": ~is_shown(places.erased_discs, self.with_changes, self.original),
        }


def compute_matching_gain(image: FloatArray, truth: FloatArray) -> float:
    """Return the gain that matches an image's standard deviation to another's.

    Contrasts do not depend on the offset. The gain is 0 if an image is constant.
    """
    off, truth_off = image - image.mean(), truth - truth.mean()
    spread = float(off.std())
    if spread <= _ROUNDING * float(np.abs(image).max()):
        return 0.0
    sign = -1.0 if float((off * truth_off).sum()) < 0 else 1.0
    return sign * float(truth_off.std()) / spread


@dataclass(frozen=True, slots=True)
class DiscResult:
    """Discs reproduced correctly by an enhanced image and by its input."""

    places: DiscPositions
    enhanced_hits: dict[
        Change, BoolArray
    ]  # as `DiscTrial.find_shown_discs` returns them
    degraded_hits: dict[Change, BoolArray]


@dataclass(frozen=True, slots=True)
class DiscCount:
    """Number of correctly reproduced discs of one radius and change."""

    radius_px: int
    change: Change  # change of the ground truth
    discs: int  # number of discs
    enhanced: int  # number that each image shows correctly
    degraded: int


def count_discs(verdicts: Iterable[DiscResult]) -> tuple[DiscCount, ...]:
    """Count correctly reproduced discs by radius and change, inserted before erased."""
    changes: tuple[Change, ...] = ("inserted", "erased")
    counts = {(radius, change): [0, 0, 0] for radius in RADII_PX for change in changes}
    for verdict in verdicts:
        for change in changes:
            radii = getattr(verdict.places, f"{change}_discs").radii
            rows = (radii, verdict.enhanced_hits[change], verdict.degraded_hits[change])
            for radius, enhanced_right, degraded_right in zip(*rows, strict=True):
                row = counts[int(radius), change]
                row[:] = (
                    row[0] + 1,
                    row[1] + bool(enhanced_right),
                    row[2] + bool(degraded_right),
                )
    return tuple(DiscCount(*key, *row) for key, row in counts.items() if row[0])
