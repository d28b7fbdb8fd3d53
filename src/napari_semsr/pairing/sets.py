"""Patches laid over images, and the set that each goes to: no pixel is in two sets.

Patches that overlap lie on a lattice. A set that is held out takes whole images where
these are small enough, else rectangles of the lattice, and what overlaps them is lost
to the border. Of all rectangles those are taken that lose few and come near the share.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import Box, IntPair, OptionError
from napari_semsr.pairing.options import SPLITS, PairOptions


@dataclass(frozen=True, slots=True)
class Place:
    """A patch before it is cut."""

    source: int  # Which image, or pair of images
    index: IntPair  # Row and column on the lattice of its image
    box: Box  # In pixels of LOW


def lay_out(source: int, shape: IntPair, options: PairOptions) -> Iterator[Place]:
    """Lay patches over an image, a step apart, with equal margins."""
    side, step = options.patch, options.step or options.patch
    counts = [max(0, (n - side) // step + 1) for n in shape]
    spare = [
        (n - (c - 1) * step - side) // 2 for n, c in zip(shape, counts, strict=True)
    ]
    for row, column in np.ndindex(counts[0], counts[1]):
        corner = (spare[0] + row * step, spare[1] + column * step)
        yield Place(source, (row, column), Box.of((side, side), corner))


def split(
    places: Sequence[Place], options: PairOptions, *, salt: int = 0
) -> dict[str, list[Place]]:
    """Deal patches out to the three sets, shuffled, in the order of `SPLITS`.

    Patches of two sets share no pixel; those that would are in none. The dealing is a
    draw that depends on the seed alone; `salt` makes a second draw another one. Of no
    place come empty sets.
    """
    if not places:
        return {name: [] for name in SPLITS}
    ordered = sorted(places, key=lambda place: (place.source, place.index))
    rng = np.random.default_rng([options.seed, salt])
    apart = -(-options.patch // (options.step or options.patch))
    sources = sorted({place.source for place in places})
    wanted = [name for name in SPLITS if options.shares[name] > 0]
    if options.whole_images:
        dealt = dict(zip(sources, _dealt(len(sources), options, rng), strict=True))
        sets = np.array([dealt[place.source] for place in ordered])
    elif apart == 1:
        sets = _dealt(len(ordered), options, rng)
    else:
        sets = _held_out(ordered, options, apart, rng)
    found = {
        name: [ordered[i] for i in rng.permutation(np.flatnonzero(sets == number))]
        for number, name in enumerate(SPLITS)
    }
    if not all(found[name] for name in wanted):
        if options.whole_images:
            msg = (
                f"{len(wanted)} sets of whole images need at least {len(wanted)} "
                f"images with patches, got {len(sources)}: give more images, or drop "
                "--whole-images."
            )
            raise OptionError(msg)
        msg = (
            f"{len(wanted)} disjoint sets need at least {len(wanted)} separate patches "
            f"of {options.patch} px, got too few of {len(places)}: lower --patch, "
            "take larger images, or cut pairs for fewer sets (--validation 0, "
            "--test 0)."
        )
        raise OptionError(msg)
    return found


def _dealt(
    count: int, options: PairOptions, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Deal patches that share no pixel: numbers of their sets."""
    sets = np.zeros(count, int)
    left = rng.permutation(count)
    for number in (2, 1):
        share = options.shares[SPLITS[number]]
        taken = min(max(round(share * count), int(share > 0)), len(left) - 1)
        sets[left[:taken]] = number
        left = left[taken:]
    return sets


# Chosen: a patch missing or too many in a set weighs as two that are lost; some draws
# of corners and of the order find the best but for one or two patches; a lattice of 24
# lines each way has 90 000 rectangles, tried in milliseconds. Held-out blocks of a
# large field are scattered over regions as large as lose 5 % of the patches where a
# fifth is held out.
_MISSED = 2.0
_DRAWS = 6
_LINES = 24
_REGION = 54
_NONE, _LOST = -1, 3  # no patch; a patch that overlaps two sets


def _held_out(
    places: Sequence[Place], options: PairOptions, apart: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Deal patches on lattices, sets `apart` steps: numbers of their sets."""
    shapes: dict[int, IntPair] = {}
    for place in places:
        rows, columns = shapes.get(place.source, (0, 0))
        row, column = place.index
        shapes[place.source] = max(rows, row + 1), max(columns, column + 1)
    blank = {source: np.full(shape, _NONE) for source, shape in shapes.items()}
    for place in places:
        blank[place.source][place.index] = 0
    shares = np.array([options.shares[name] for name in SPLITS])
    best, least, kept = np.zeros(len(places), int), np.inf, len(places)
    for draw in range(_DRAWS):
        dealing = _Dealing({k: v.copy() for k, v in blank.items()}, apart, rng)
        numbers = [n for n in (1, 2) if shares[n]]
        for number in numbers if draw % 2 else reversed(numbers):
            dealing.hold(number, float(shares[number] * kept))
        sets = np.array([dealing.sets[p.source][p.index] for p in places])
        counts = np.bincount(sets, minlength=_LOST + 1)
        kept = len(places) - int(counts[_LOST])
        missed = np.abs(counts[:_LOST] - shares * kept)[1:].sum()
        short = np.count_nonzero((counts[:_LOST] == 0) & (shares > 0))
        score = counts[_LOST] + _MISSED * missed + short * len(places)
        if score < least:
            best, least = sets, score
    return best


@dataclass
class _Dealing:
    """Sets of patches, on the lattice of each image."""

    sets: dict[int, NDArray[np.intp]]
    apart: int
    rng: np.random.Generator

    def hold(self, number: int, target: float) -> None:
        """Hold about `target` patches out of training, for a set."""
        order = [int(k) for k in self.rng.permutation(sorted(self.sets))]
        free = {k: int((self.sets[k] == 0).sum()) for k in order}
        for source in order:
            if 0 < free[source] <= target and sum(map(bool, free.values())) > 1:
                target -= free.pop(source)
                self.sets[source][self.sets[source] == 0] = number
        roomy = [k for k in order if free.get(k, 0) > target]
        if not roomy or (round(target) < 1 and len(free) < len(order)):
            return
        regions = list(self._regions(roomy[0]))
        for left, place in enumerate(self.rng.permutation(len(regions))):
            part = target / (len(regions) - left)
            target -= self._take(roomy[0], regions[place], number, part)

    def _regions(self, source: int) -> Iterator[tuple[slice, slice]]:
        """Regions of a lattice in each of which a block is held out."""
        side = _REGION * (self.apart - 1)
        lines = [
            np.linspace(0, n, max(1, n // side) + 1).astype(int)
            for n in self.sets[source].shape
        ]
        for row, column in np.ndindex(len(lines[0]) - 1, len(lines[1]) - 1):
            yield slice(*lines[0][row : row + 2]), slice(*lines[1][column : column + 2])

    def _take(
        self, source: int, region: tuple[slice, slice], number: int, target: float
    ) -> int:
        """Give the best rectangle of a region to a set; count its patches."""
        sets, reach = self.sets[source], self.apart - 1
        sums = np.pad((sets == 0).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        spans = [_spans(part) for part in region]
        count = _within(sums, spans[0], spans[1])
        wide = [
            np.clip(span + np.array([-reach, reach])[:, None], 0, n)
            for span, n in zip(spans, sets.shape, strict=True)
        ]
        reached = _within(sums, wide[0], wide[1])
        score = reached - count + _MISSED * np.abs(count - target)
        possible = (count > 0) & (reached < sums[-1, -1])
        if not possible.any():
            return 0
        score[~possible] = np.inf
        found = self.rng.choice(np.flatnonzero(score == score.min()))
        row, column = np.unravel_index(found, score.shape)
        inner = _area(sets, spans[0][:, row], spans[1][:, column])
        inner[inner == 0] = number
        outer = _area(sets, wide[0][:, row], wide[1][:, column])
        outer[outer == 0] = _LOST
        return int(count[row, column])


def _spans(part: slice) -> NDArray[np.intp]:
    """Give starts and stops (2, N) of stretches of a side of a lattice."""
    lines = np.unique(np.linspace(part.start, part.stop, _LINES + 1).astype(int))
    first, last = np.triu_indices(len(lines), 1)
    return np.stack([lines[first], lines[last]])


def _within(
    sums: NDArray[Any], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> NDArray[Any]:
    """Sum over the rectangles of all rows and columns, from running sums."""
    down = sums[rows[1]] - sums[rows[0]]
    found: NDArray[Any] = down[:, columns[1]] - down[:, columns[0]]
    return found


def _area(
    sets: NDArray[np.intp], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> NDArray[np.intp]:
    """View a rectangle of a lattice."""
    return sets[slice(*rows), slice(*columns)]
