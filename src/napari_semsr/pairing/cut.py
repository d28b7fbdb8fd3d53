"""Selection of patches for training and their assignment to the three sets.

Images are used on one grid: as they are, or resampled to one pixel size. A patch
must be finite and not empty; those of a pair must show the same content, and
two unpaired sets must have the same pattern density. A patch is rejected for one of
these reasons:

not-finite
    pixels are NaN or infinite
empty
    hardly any contrast in LOW or HIGH
uncorrelated
    LOW and HIGH do not show the same content
shifted
    LOW and HIGH match better after a shift
unreliable
    the transform from LOW to HIGH is unreliable there
border
    they overlap patches of two sets
density
    the other set has no patch of the same pattern density
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import exposure, filters, restoration

from napari_semsr.core import (
    Affine,
    Area,
    Box,
    Elastic,
    FloatArray,
    FloatPair,
    Grid,
    IntPair,
    Job,
    Micrograph,
    OptionError,
    Progress,
    RealArray,
    ShapeError,
    WarpedImage,
    field_range,
    noise_level,
    read_box,
)
from napari_semsr.pairing.groups import Groups, find_matches
from napari_semsr.pairing.options import SPLITS, PairOptions

# Patches of images and their assignment to sets: no pixel is in two sets.
#
# Overlapping patches are on a lattice. A held-out set gets whole images if these are
# small enough, otherwise rectangles of the lattice; patches that overlap the border are
# lost. Rectangles with small losses and about the requested share are chosen.


@dataclass(frozen=True, slots=True)
class Place:
    """A patch before it is cut."""

    source: int  # Which image, or pair of images
    index: IntPair  # Row and column on the lattice of its image
    box: Box  # In pixels of LOW


def lay_out(source: int, shape: IntPair, options: PairOptions) -> Iterator[Place]:
    """Yield the patches of an image, a step apart, with equal margins."""
    side, step = options.patch, options.step or options.patch
    counts = [max(0, (n - side) // step + 1) for n in shape]
    spare = [
        (n - (c - 1) * step - side) // 2 for n, c in zip(shape, counts, strict=True)
    ]
    for row, column in np.ndindex(counts[0], counts[1]):
        corner = (spare[0] + row * step, spare[1] + column * step)
        yield Place(source, (row, column), Box.of((side, side), corner))


def split(
    places: Sequence[Place],
    options: PairOptions,
    *,
    salt: int = 0,
    groups: Groups | None = None,
) -> dict[str, list[Place]]:
    """Assign patches to the three sets, so that no two sets show the same area.

    Patches of congruent images, by `groups`, are assigned like those of one image.
    Other images of one area are in one set, the training set if there are enough
    others; see `_split` for the rest.
    """
    if groups is None or not places:
        return _split(places, options, salt=salt)
    first = {place.source: groups.numbers[place.source] for place in places}
    members: dict[Place, list[Place]] = {}
    for place in places:
        one = place
        if first[place.source] in groups.congruent:
            one = replace(place, source=first[place.source])
        members.setdefault(one, []).append(place)
    whole = [
        one for one in members if groups.numbers[one.source] not in groups.congruent
    ]
    free = [one for one in members if groups.numbers[one.source] in groups.congruent]
    if not whole:
        sets = _split(free, options, salt=salt)
    elif options.whole_images or len(free) < _ENOUGH * len(members):
        sets = _split_groups(members, groups, options, salt)
    else:
        sets = _split(free, _with_shares(options, len(members) / len(free)), salt=salt)
        rng = np.random.default_rng([options.seed, salt, 1])
        train = sets[SPLITS[0]] + whole
        sets[SPLITS[0]] = [train[i] for i in rng.permutation(len(train))]
    return {
        name: [place for one in pairs_found for place in members[one]]
        for name, pairs_found in sets.items()
    }


_ENOUGH = 0.2  # least fraction of the patches from which to hold out; chosen
_MAX_HELD = 0.8  # largest fraction of them that may be held out


def _with_shares(options: PairOptions, times: float) -> PairOptions:
    """Increase the shares for a part of the patches, so that they hold for all."""
    share_out = options.validation + options.test
    times = min(times, _MAX_HELD / share_out) if share_out else 1.0
    if times <= 1:
        return options
    return options.replace(
        validation=times * options.validation, test=times * options.test
    )


def _split_groups(
    members: Iterable[Place], groups: Groups, options: PairOptions, salt: int
) -> dict[str, list[Place]]:
    """Assign whole groups of images to sets."""
    by_group: dict[int, list[Place]] = {}
    for one in members:
        by_group.setdefault(groups.numbers[one.source], []).append(one)
    names = [name for name in SPLITS if options.shares[name] > 0]
    if len(by_group) < len(names):
        msg = (
            f"{len(names)} sets that show different areas need at least "
            f"{len(names)} areas, but the images show {len(by_group)}: add images "
            "of other areas, one image of each area, or use fewer sets "
            "(`validation=0`, `test=0`)."
        )
        raise OptionError(msg, code="too-few-places")
    stand_ins = [Place(number, (0, 0), own[0].box) for number, own in by_group.items()]
    sets = _split(stand_ins, options.replace(whole_images=True), salt=salt)
    return {
        name: [one for stand_in in pairs_found for one in by_group[stand_in.source]]
        for name, pairs_found in sets.items()
    }


def _split(
    places: Sequence[Place], options: PairOptions, *, salt: int = 0
) -> dict[str, list[Place]]:
    """Assign patches to the three sets, shuffled, in the order of `SPLITS`.

    Patches of two sets share no pixel; those that would are in none. The random draw
    only depends on the seed and on `salt`, for another draw. Without patches the sets
    are empty.
    """
    if not places:
        return {name: [] for name in SPLITS}
    in_order = sorted(places, key=lambda place: (place.source, place.index))
    rng = np.random.default_rng([options.seed, salt])
    apart = -(-options.patch // (options.step or options.patch))
    sources = sorted({place.source for place in places})
    names = [name for name in SPLITS if options.shares[name] > 0]
    if options.whole_images:
        sets_of_sources = dict(
            zip(sources, _deal(len(sources), options, rng), strict=True)
        )
        sets = np.array([sets_of_sources[place.source] for place in in_order])
    elif apart == 1:
        sets = _deal(len(in_order), options, rng)
    else:
        sets = _held_out(in_order, options, apart, rng)
    places_by_set = {
        name: [in_order[i] for i in rng.permutation(np.flatnonzero(sets == number))]
        for number, name in enumerate(SPLITS)
    }
    if not all(places_by_set[name] for name in names):
        if options.whole_images:
            msg = (
                f"{len(names)} sets of whole images need at least {len(names)} "
                f"images with patches, got {len(sources)}: add images, or omit "
                "`whole_images`."
            )
            raise OptionError(msg, code="too-few-images")
        msg = (
            f"{len(names)} disjoint sets need at least {len(names)} separate patches "
            f"of {options.patch} px, got too few of {len(places)}: lower `patch`, "
            "use larger images, or cut pairs for fewer sets (`validation=0`, "
            "`test=0`)."
        )
        raise OptionError(msg, code="too-few-patches")
    return places_by_set


def _deal(
    count: int, options: PairOptions, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Return the set numbers of patches that share no pixel."""
    sets = np.zeros(count, int)
    left = rng.permutation(count)
    for number in (2, 1):
        share = options.shares[SPLITS[number]]
        count_taken = min(max(round(share * count), int(share > 0)), len(left) - 1)
        sets[left[:count_taken]] = number
        left = left[count_taken:]
    return sets


# Chosen: a missing or extra patch in a set weighs like two lost ones; a few draws
# of corners and of the order find the optimum to one or two patches; a lattice of 24
# lines each way has 90 000 rectangles, tried in milliseconds. Held-out blocks of a
# large field are distributed over regions of a size that loses 5 % of the patches if a
# fifth is held out.
_COUNT_WEIGHT = 2.0
_DRAWS = 6  # draws to compare; chosen
_LINES = 24  # lines each way as borders of rectangles; chosen
# steps along a region with one held-out block, for each step between sets; 5 % are lost
# at its border if a fifth is held out
_REGION = 54
_NONE, _BORDER_SET = -1, 3  # no patch; a patch that overlaps two sets


def _held_out(
    places: Sequence[Place], options: PairOptions, apart: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Return the set numbers of patches on lattices, with sets `apart` steps."""
    shapes: dict[int, IntPair] = {}
    for place in places:
        rows, columns = shapes.get(place.source, (0, 0))
        row, column = place.index
        shapes[place.source] = max(rows, row + 1), max(columns, column + 1)
    blank = {source: np.full(shape, _NONE) for source, shape in shapes.items()}
    for place in places:
        blank[place.source][place.index] = 0
    shares = np.array([options.shares[name] for name in SPLITS])
    best, least, count_left = np.zeros(len(places), int), np.inf, len(places)
    for draw in range(_DRAWS):
        dealing = _Dealing({k: v.copy() for k, v in blank.items()}, apart, rng)
        numbers = [n for n in (1, 2) if shares[n]]
        for number in numbers if draw % 2 else reversed(numbers):
            dealing.hold(number, float(shares[number] * count_left))
        sets = np.array([dealing.sets[p.source][p.index] for p in places])
        counts = np.bincount(sets, minlength=_BORDER_SET + 1)
        count_left = len(places) - int(counts[_BORDER_SET])
        error = np.abs(counts[:_BORDER_SET] - shares * count_left)[1:].sum()
        short = np.count_nonzero((counts[:_BORDER_SET] == 0) & (shares > 0))
        score = counts[_BORDER_SET] + _COUNT_WEIGHT * error + short * len(places)
        if score < least:
            best, least = sets, score
    return best


@dataclass
class _Dealing:
    """Assignment of patches to sets on the lattice of each image."""

    sets: dict[int, NDArray[np.intp]]
    apart: int
    rng: np.random.Generator

    def hold(self, number: int, target: float) -> None:
        """Assign about `target` patches to a held-out set."""
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
        """Yield regions of a lattice, each with one held-out block."""
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
        """Assign the best rectangle of a region to a set; return its patch count."""
        sets, reach = self.sets[source], self.apart - 1
        sums = np.pad((sets == 0).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        spans = [_spans(part) for part in region]
        count = _within(sums, spans[0], spans[1])
        wide = [
            np.clip(span + np.array([-reach, reach])[:, None], 0, n)
            for span, n in zip(spans, sets.shape, strict=True)
        ]
        reachable = _within(sums, wide[0], wide[1])
        score = reachable - count + _COUNT_WEIGHT * np.abs(count - target)
        possible = (count > 0) & (reachable < sums[-1, -1])
        if not possible.any():
            return 0
        score[~possible] = np.inf
        choice = self.rng.choice(np.flatnonzero(score == score.min()))
        row, column = np.unravel_index(choice, score.shape)
        inner = _area(sets, spans[0][:, row], spans[1][:, column])
        inner[inner == 0] = number
        outer = _area(sets, wide[0][:, row], wide[1][:, column])
        outer[outer == 0] = _BORDER_SET
        return int(count[row, column])


def _spans(part: slice) -> NDArray[np.intp]:
    """Return starts and stops (2, N) of intervals along a side of a lattice."""
    lines = np.unique(np.linspace(part.start, part.stop, _LINES + 1).astype(int))
    first, last = np.triu_indices(len(lines), 1)
    return np.stack([lines[first], lines[last]])


def _within(
    sums: RealArray, rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> RealArray:
    """Sum over the rectangles of all rows and columns, from cumulative sums."""
    down = sums[rows[1]] - sums[rows[0]]
    sums_within: RealArray = down[:, columns[1]] - down[:, columns[0]]
    return sums_within


def _area(
    sets: NDArray[np.intp], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Return a view of a rectangle of a lattice."""
    return sets[slice(*rows), slice(*columns)]


# Selection of patches.

# Chosen: pixel sizes are written with three or four digits; the percentiles ignore
# dead and hot pixels.
_MIN_CORRELATION = 0.3  # absolute correlation of a pair; chosen
_RELIABLE_SHARE = 0.5  # of the areas in a patch; chosen
_SAME = 1e-3  # relative difference of pixel sizes that count as equal
_BORDER = 17  # points along each side of an image for its outline; chosen
_PERCENTILES = (0.1, 99.9)  # of black and white; chosen


@dataclass(frozen=True, slots=True)
class OnGrid:
    """An image on the common grid of both sides."""

    image: Micrograph
    value_range: FloatPair  # percentiles 0.1 and 99.9 of the field
    is_resampled: bool

    @classmethod
    def of(cls, image: Micrograph, *, is_resampled: bool) -> Self:
        """Measure the range of an image; the full range if few pixels differ."""
        limits = field_range(image.data, *_PERCENTILES)
        if limits[0] == limits[1]:
            limits = field_range(image.data, 0, 100)
        return cls(image, limits, is_resampled)

    def to_json(self) -> dict[str, object]:
        """Return the record for a store."""
        size = self.image.pixel_size_nm
        return {
            "name": self.image.name,
            "range": [float(v) for v in self.value_range],
            "shape": list(self.image.shape),
            "pixel_size_nm": None if size is None else list(size),
            "spacing_px": list(self.image.spacing_px),
            "origin": list(self.image.origin),
        }


_Sides = dict[str, list[OnGrid]]  # Images of "low" and of "high"
_Sets = dict[str, list[tuple[Place, Place]]]  # Patches in both, by the set's name


@dataclass(frozen=True, slots=True)
class PairMap:
    """Transform from LOW to HIGH and its reliability."""

    transform: Affine | Elastic  # From the plane of LOW to that of HIGH, in nm
    # (N, 2) centres, in the plane of HIGH, of the areas where it was tested
    places_nm: FloatArray
    reliable: NDArray[np.bool_]  # (N,) whether it is reliable there
    side_nm: float  # Side of these areas


@dataclass(frozen=True, slots=True)
class PairChoice:
    """Chosen pairs, ready for writing."""

    kind: str  # ``paired`` or ``unpaired``
    sets: _Sets  # LOW and HIGH of each set
    images: dict[str, list[Micrograph]]  # of each side, on their final grids
    scale: int  # HIGH pixels per LOW pixel
    sources: dict[str, list[dict[str, object]]]  # records of the images for the store
    candidates: int  # number of checked patches
    rejections: dict[str, int]  # number of rejected patches by reason
    pixel_nm: float | None  # pixel size of HIGH, if all agree
    is_resampled: bool  # whether any image was resampled
    by_image: list[dict[str, object]]  # counts of each set and of rejections, for pairs
    same_place: list[list[str]]  # names of images that show the same area

    def read(self, side: str, source: int, box: Box) -> NDArray[Any]:
        """Read a patch of an image of one side; the box is in pixels of LOW.

        In the common type of all images of the side.
        """
        side_box = box if side == "low" else box.scale(self.scale)
        common = np.result_type(*(image.dtype for image in self.images[side]))
        return read_box(self.images[side][source].data, side_box).astype(common)


def choose_pairs(
    lows: Sequence[Micrograph],
    highs: Sequence[Micrograph],
    options: PairOptions,
    *,
    is_paired: bool,
    pair_map: PairMap | None = None,
) -> Job[PairChoice]:
    """Choose patches for training and assign them to the three sets.

    `is_paired` images show the same fields, in the same order. Each pair then shows one
    area, otherwise two patches of the same density class. LOW is mapped to HIGH by
    `pair_map`, or by the origins if there is none.
    """
    rejections: Counter[str] = Counter()
    by_image: list[dict[str, Any]] = []
    same_place: list[list[str]] = []
    if is_paired:
        sides: _Sides = {"low": [], "high": []}
        for low, high in zip(lows, highs, strict=True):
            yield Progress(0, 0, f"resampling {low.name} and {high.name} to one grid")
            pair = align(low, high, options, pair_map)
            sides["low"].append(pair[0])
            sides["high"].append(pair[1])
        matches = []
        for side in ("low", "high"):
            images_of = [one.image for one in sides[side]]
            matches += yield from find_matches(images_of, side.upper())
        groups = Groups.of(len(sides["low"]), matches)
        same_place = groups.names([one.image.name for one in sides["low"]])
        sets, candidates, by_image = yield from _same_places(
            sides, options, pair_map, groups
        )
        for row in by_image:
            rejections.update(row["rejected"])
    else:
        sides = _to_one_pitch(lows, highs, options)
        groups_of = {}
        for side in ("low", "high"):
            images_of = [one.image for one in sides[side]]
            matches = yield from find_matches(images_of, side.upper())
            groups_of[side] = Groups.of(len(images_of), matches)
            same_place += groups_of[side].names([one.name for one in images_of])
        sets, candidates = yield from _equal_patterns(
            sides, options, rejections, groups_of
        )
    images = {
        side: [one.image for one in pairs_found] for side, pairs_found in sides.items()
    }
    beside = images["low"] if is_paired and pair_map is None else []
    return PairChoice(
        kind="paired" if is_paired else "unpaired",
        sets=sets,
        images=images,
        scale=options.factor,
        sources={
            side: [one.to_json() for one in pairs_found]
            for side, pairs_found in sides.items()
        },
        candidates=candidates,
        rejections=dict(rejections),
        pixel_nm=_common_pixel(images["high"], beside, options.factor),
        is_resampled=any(
            one.is_resampled for pairs_found in sides.values() for one in pairs_found
        ),
        by_image=by_image,
        same_place=same_place,
    )


def _same_places(
    sides: _Sides, options: PairOptions, pair_map: PairMap | None, groups: Groups
) -> Job[tuple[_Sets, int, list[dict[str, Any]]]]:
    """Select patches with the same content; return counts, in all and by image."""
    places = _places(sides["low"], options)
    usable_places: list[Place] = []
    rejections: list[Counter[str]] = [Counter() for _ in sides["low"]]
    for number, place in enumerate(places):
        low, high = (sides[side][place.source] for side in ("low", "high"))
        reason = judge(
            read_box(low.image.data, place.box),
            read_box(high.image.data, place.box.scale(options.factor)),
            (low.value_range, high.value_range),
            options,
            is_mapped=pair_map is not None,
        )
        if reason is None and pair_map is not None:
            centre = np.array(Grid.of(low.image).centre(place.box))
            pitch = np.array(low.image.scale)
            corner = centre - pitch / 2
            if is_doubtful(pair_map, corner, corner + pitch * options.patch):
                reason = "unreliable"
        if reason is None:
            usable_places.append(place)
        else:
            rejections[place.source][reason] += 1
        yield Progress(number + 1, len(places), "checking patches")
    sets = split(usable_places, options, groups=groups)
    rows = []
    for source, one in enumerate(sides["low"]):
        own = {k: [p for p in v if p.source == source] for k, v in sets.items()}
        _count_border(
            rejections[source], [p for p in usable_places if p.source == source], own
        )
        counts = {name: len(pairs_found) for name, pairs_found in own.items()}
        row = {"name": one.image.name, **counts, "rejected": dict(rejections[source])}
        rows.append(row)
    pairs = {name: [(one, one) for one in sets[name]] for name in SPLITS}
    return pairs, len(places), rows


def _equal_patterns(
    sides: _Sides,
    options: PairOptions,
    rejections: Counter[str],
    groups: dict[str, Groups],
) -> Job[tuple[_Sets, int]]:
    """Select patches of two sets with equal pattern density; count all."""
    places_by_set: dict[str, dict[str, list[Place]]] = {}
    densities: dict[tuple[str, Place], float] = {}
    candidates = 0
    for salt, (side, scale) in enumerate((("low", 1), ("high", options.factor))):
        places = _places(sides[side], options, scale)
        candidates += len(places)
        meters = [DensityMeter(one.image) for one in sides[side]]
        usable_places = []
        for number, place in enumerate(places):
            source = sides[side][place.source]
            patch = read_box(source.image.data, place.box.scale(scale))
            reason = judge_one(patch, source.value_range, options)
            if reason is None:
                usable_places.append(place)
                densities[side, place] = meters[place.source].measure(patch)
            else:
                rejections[reason] += 1
            yield Progress(number + 1, len(places), f"checking patches of {side}")
        places_by_set[side] = split(
            usable_places, options, salt=salt, groups=groups[side]
        )
        _count_border(rejections, usable_places, places_by_set[side])
    return _balance_sets(places_by_set, densities, options, rejections), candidates


def _count_border(
    rejections: Counter[str], usable_places: list[Place], sets: dict[str, list[Place]]
) -> None:
    """Count the patches that are in no set."""
    lost_count = len(usable_places) - sum(
        len(pairs_found) for pairs_found in sets.values()
    )
    if lost_count:
        rejections["border"] += lost_count


def _balance_sets(
    places_by_set: dict[str, dict[str, list[Place]]],
    densities: dict[tuple[str, Place], float],
    options: PairOptions,
    rejections: Counter[str],
) -> _Sets:
    """Remove patches until both sides of each set have equal density."""
    sets: _Sets = {}
    for number, name in enumerate(SPLITS):
        rng = np.random.default_rng([options.seed, 2, number])
        first, second = places_by_set["low"][name], places_by_set["high"][name]
        selection = balance(
            [densities["low", place] for place in first],
            [densities["high", place] for place in second],
            rng,
        )
        pairs = [
            (first[i], second[j])
            for i, j in zip(selection[0], selection[1], strict=True)
        ]
        left = len(first) + len(second) - 2 * len(pairs)
        if left:
            rejections["density"] += left
        sets[name] = [pairs[i] for i in rng.permutation(len(pairs))]
    return sets


def _places(
    side: Sequence[OnGrid], options: PairOptions, scale: int = 1
) -> list[Place]:
    """Return the patches of all images of a side; boxes are in pixels of LOW."""
    places: list[Place] = []
    for number, one in enumerate(side):
        rows, columns = (n // scale for n in one.image.shape)
        places += lay_out(number, (rows, columns), options)
    if places:
        return places
    largest = max(side, key=lambda one: min(one.image.shape)).image
    rows, columns = (n // scale for n in largest.shape)
    msg = (
        f"A patch of {options.patch} px needs an image of at least that size, got "
        f"{rows} x {columns} px in {largest.name}: lower `patch`."
    )
    raise ShapeError(msg, code="image-too-small")


def _common_pixel(
    images: Sequence[Micrograph], lows: Sequence[Micrograph] = (), scale: int = 1
) -> float | None:
    """Return the common pixel size of images; by default that of LOW is used."""
    sizes = [image.mean_pixel_size_nm for image in images]
    for number, low in enumerate(lows):
        coarse = low.mean_pixel_size_nm
        if sizes[number] is None and coarse is not None:
            sizes[number] = coarse / scale
    known_sizes = [size for size in sizes if size is not None]
    if len(known_sizes) < len(sizes) or not np.allclose(
        known_sizes, known_sizes[0], rtol=_SAME
    ):
        return None
    return known_sizes[0]


# Checks of patches.


def is_doubtful(pair_map: PairMap, start: FloatArray, stop: FloatArray) -> bool:
    """Return whether a transform is unreliable in most of a patch.

    `start`, `stop`: corners of the patch in the plane of HIGH. At least half of the
    areas with their centres in the patch, or around the patch's centre, must be
    unreliable: a single one among reliable ones is rather due to noise.
    """
    reach = np.maximum(stop - start, pair_map.side_nm) / 2
    apart = np.abs(pair_map.places_nm - (start + stop) / 2)
    near = pair_map.reliable[np.all(apart <= reach, axis=1)]
    return bool(near.size and near.mean() <= _RELIABLE_SHARE)


_SMOOTH_PX = 1.0  # chosen: suppresses pixel noise
_BETTER = 0.02  # least gain of correlation by a shift; chosen: less is chance


def judge_one(
    patch: RealArray, value_range: FloatPair, options: PairOptions
) -> str | None:
    """Return the reason to reject one patch (Y, X), or None."""
    values = patch.astype(float)
    if not np.isfinite(values).all():
        return "not-finite"
    span = value_range[1] - value_range[0]
    spread = float(values.std())
    return "empty" if spread == 0 or spread < options.min_contrast * span else None


def judge(
    low: RealArray,
    high: RealArray,
    ranges: tuple[FloatPair, FloatPair],
    options: PairOptions,
    *,
    is_mapped: bool = False,
) -> str | None:
    """Return the reason to reject a pair of patches, or None.

    `low` (Y, X), `high` (Y * scale, X * scale); `ranges`: percentiles of both fields.
    Registered patches may look quite different, like facets in the optical image and
    their steps in SEM: then the residuals of the transform are used instead.
    """
    for patch, value_range in zip((low, high), ranges, strict=True):
        wrong = judge_one(patch, value_range, options)
        if wrong is not None:
            return wrong
    if is_mapped and options.min_correlation is None:
        return None
    rows, columns = low.shape
    scale = high.shape[0] // rows
    blocks = high.reshape(rows, scale, columns, scale).astype(float)
    a, b = _plain(low), _plain(blocks.mean(axis=(1, 3)))
    here = abs(float((a * b).mean()))
    least = options.min_correlation
    if here < (_MIN_CORRELATION if least is None else least):
        return "uncorrelated"
    correlation_moved, best = _best_shift(a, b)
    further = float(np.hypot(*correlation_moved)) > options.max_shift_px
    return "shifted" if further and best > here + _BETTER else None


def _plain(patch: RealArray) -> FloatArray:
    """Smooth a patch and normalise it to mean 0 and standard deviation 1."""
    values = ndimage.gaussian_filter(patch.astype(float), _SMOOTH_PX)
    values -= values.mean()
    return np.asarray(values / max(float(values.std()), 1e-300))


def _best_shift(a: FloatArray, b: FloatArray) -> tuple[IntPair, float]:
    """Find the shift, up to an eighth of the side, with the strongest correlation.

    Only the overlap is compared, so that the border has no effect.
    """
    reach = max(1, a.shape[0] // 8)
    inner = b[reach:-reach, reach:-reach]
    inner = inner - inner.mean()
    size = [m + n - 1 for m, n in zip(a.shape, inner.shape, strict=True)]
    product = np.fft.rfft2(a, size) * np.fft.rfft2(inner[::-1, ::-1], size)
    full = np.fft.irfft2(product, size)
    top, left = (n - 1 for n in inner.shape)
    sums = full[top : top + 2 * reach + 1, left : left + 2 * reach + 1]
    spread = _window_deviation(a, inner.shape)
    correlations = np.abs(sums) / (inner.size * np.maximum(spread * inner.std(), 1e-12))
    y, x = np.unravel_index(int(np.argmax(correlations)), correlations.shape)
    return (int(y) - reach, int(x) - reach), float(correlations[y, x])


def _window_deviation(values: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """Compute the standard deviation of every window inside."""
    sums = []
    for part in (values, values**2):
        table = np.pad(part.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        rows, columns = shape
        sums.append(
            table[rows:, columns:]
            - table[:-rows, columns:]
            - table[rows:, :-columns]
            + table[:-rows, :-columns]
        )
    count = shape[0] * shape[1]
    variance = sums[1] / count - (sums[0] / count) ** 2
    return np.asarray(np.sqrt(np.maximum(variance, 0)))


# Unpaired sets of equal pattern density.
#
# If two sets have different amounts of pattern, a network trained between them learns
# to add or remove pattern. Density is the fraction of a patch's pixels with the
# gradient of an edge, by Otsu's threshold for the whole image; it does not depend on
# which phase is the bright one.

# Chosen: an edge is wider than noise; a million pixels determine Otsu's threshold; with
# more classes of density fewer patches find a partner.
_SIGMA_PX = 1.5
_SAMPLE = 1024  # side of the central part of an image that is measured; chosen
_BINS = 5  # levels of density that are balanced; chosen


class DensityMeter:
    """Measure of the pattern density of patches of one image.

    The threshold of edges is from up to 1024 x 1024 px at its centre.
    """

    def __init__(self, image: Micrograph) -> None:
        y, x = (max(0, (n - _SAMPLE) // 2) for n in image.shape)
        middle = Box.of((_SAMPLE, _SAMPLE), (y, x)).intersection(Box.of(image.shape))
        sample = read_box(image.data, middle)
        edges = _gradient(sample)
        edges = edges[np.isfinite(edges)]
        flat = not edges.size or float(edges.max()) <= float(edges.min())
        self._threshold = np.inf if flat else float(filters.threshold_otsu(edges))

    def measure(self, patch: RealArray) -> float:
        """Return the fraction of edge pixels of a patch (Y, X), in [0, 1]."""
        return float((_gradient(patch) > self._threshold).mean())


def _gradient(values: RealArray) -> FloatArray:
    """Return the gradient magnitude of smoothed values; NaN near missing pixels."""
    return np.asarray(
        ndimage.gaussian_gradient_magnitude(values.astype(float), _SIGMA_PX)
    )


def balance(
    low: Sequence[float], high: Sequence[float], rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Choose equal numbers of patches of equal density from two sets.

    `low`, `high`: densities of their patches; returns indices of both, ordered by
    density class: fifths of all densities.
    """
    both = np.array([*low, *high])
    if not both.size:
        return [], []
    edges = np.quantile(both, np.linspace(0, 1, _BINS + 1)[1:-1])
    first, second = (np.searchsorted(edges, np.array(side)) for side in (low, high))
    selections: tuple[list[int], list[int]] = ([], [])
    for number in range(_BINS):
        members = [np.flatnonzero(side == number) for side in (first, second)]
        count = min(len(members[0]), len(members[1]))
        for selection, indices in zip(selections, members, strict=True):
            selection += [int(i) for i in rng.permutation(indices)[:count]]
    return selections


# Two images on one grid: as they are, or resampled to one physical pixel.


def align(
    low: Micrograph,
    high: Micrograph,
    options: PairOptions,
    pair_map: PairMap | None = None,
) -> tuple[OnGrid, OnGrid]:
    """Resample two images of one field to a common grid.

    Images that match pixel by pixel are not changed. Others need their pixel sizes; if
    neither has an origin, their outer corners are assumed to coincide, and only the
    common area is used. Without pixel sizes origins are in pixels of different parents
    and are not compared. With a transform only LOW is resampled, once, to the pixels of
    HIGH, unless another pixel size is requested.
    """
    if pair_map is not None:
        return _through(low, high, options, pair_map.transform)
    if _fit(low, high, options):
        pair = _rescale(low, options.shrink), _rescale(high, options.shrink)
    else:
        pair = _to_one_pixel(low, high, options)
    scale = options.factor
    rows, columns = (
        min(a, b // scale) for a, b in zip(pair[0].shape, pair[1].shape, strict=True)
    )
    parts = (
        pair[0].replace(data=pair[0].data[:rows, :columns]),
        pair[1].replace(data=pair[1].data[: rows * scale, : columns * scale]),
    )
    first, second = (
        OnGrid.of(part, is_resampled=Grid.of(part).box_in(Grid.of(whole)) is None)
        for part, whole in zip(parts, (low, high), strict=True)
    )
    if options.second_scan or options.align:
        # use LOW's range for HIGH: percentiles also depend on the noise
        second = replace(second, value_range=first.value_range)
    return first, second


def _through(
    low: Micrograph, high: Micrograph, options: PairOptions, transform: Affine | Elastic
) -> tuple[OnGrid, OnGrid]:
    """Resample LOW by a transform to the part of HIGH that it shows."""
    scale, grid = options.factor, Grid.of(high)
    outline_places = transform(_outline(Grid.of(low)))
    pitch = np.array(grid.pitch)
    corners = [
        (border - grid.corner) / pitch
        for border in (outline_places.min(0), outline_places.max(0))
    ]
    start = np.clip(np.floor(corners[0]), 0, high.shape).astype(int)
    stop = np.clip(np.ceil(corners[1]), 0, high.shape).astype(int)
    box = Box(int(start[0]), int(stop[0]), int(start[1]), int(stop[1]))
    fine = (options.pixel_nm or pitch) * np.full(2, options.shrink)
    rows, columns = ((stop - start) * pitch / (fine * scale) + 1e-6).astype(int)
    if min(rows, columns) < 1:
        msg = (
            f"With this transform {low.name} does not overlap {high.name}: register "
            "again."
        )
        raise ShapeError(msg, code="no-overlap")
    high = high.replace(data=high.data[box.slices], origin=grid.centre(box))
    is_resampled = not np.allclose(fine, pitch, rtol=_SAME)
    if is_resampled:
        high = _resample(high, np.zeros(2), fine, (rows * scale, columns * scale))
    else:
        fine = pitch
        high = high.replace(data=high.data[: rows * scale, : columns * scale])
    high_grid = Grid((rows, columns), _pair(fine * scale), Grid.of(high).corner)
    low = low.replace(
        data=WarpedImage(low, high_grid, transform).read(),
        pixel_size_nm=high_grid.pitch,
        origin=high_grid.centre(Box.of(high_grid.shape)),
    )
    return OnGrid.of(low, is_resampled=True), OnGrid.of(high, is_resampled=is_resampled)


def _outline(grid: Grid) -> FloatArray:
    """Return positions (N, 2) along the border of a grid."""
    along = np.linspace(0, 1, _BORDER)
    places = np.stack(np.meshgrid(along, along, indexing="ij"), axis=-1)
    corner, end = np.array(grid.corner), np.array(grid.end)
    outer = np.ones((_BORDER, _BORDER), bool)
    outer[1:-1, 1:-1] = False
    return np.asarray(corner + places[outer] * (end - corner))


def _pair(values: RealArray) -> FloatPair:
    return float(values[0]), float(values[1])


def _fit(low: Micrograph, high: Micrograph, options: PairOptions) -> bool:
    """Return whether two images match pixel by pixel."""
    high_shape = tuple(n * options.factor for n in low.shape)
    if high_shape != high.shape:
        return False
    a, b = low.pixel_size_nm, high.pixel_size_nm
    if a is None or b is None:
        return options.pixel_nm is None
    ratio = np.array(a) / np.array(b) / options.factor
    same = bool(np.all(np.abs(ratio - 1) < _SAME))
    target = options.pixel_nm
    same &= target is None or bool(np.allclose(b, target, rtol=_SAME))
    first, second = _grids(low, high, options)
    second_grid = replace(second, corner=first.corner).box_in(second)
    return same and second_grid == Box.of(high.shape)


def _to_one_pixel(
    low: Micrograph, high: Micrograph, options: PairOptions
) -> tuple[Micrograph, Micrograph]:
    """Resample both images, HIGH to the common pixel and LOW to `scale` times that."""
    a, b = low.pixel_size_nm, high.pixel_size_nm
    if a is None or b is None:
        bare = low.name if a is None else high.name
        sizes = [" x ".join(map(str, image.shape)) for image in (low, high)]
        msg = (
            f"Two images of {sizes[0]} and {sizes[1]} px can be paired at scale "
            f"{options.factor} by their pixel sizes, but {bare} has none: set "
            "both (`low_pixel_nm`, `high_pixel_nm`), "
            "or crop them to one grid."
        )
        raise ShapeError(msg, code="pixel-size-missing")
    pixel = options.pixel_nm or float(np.sqrt(b[0] * b[1]))
    fine = np.full(2, pixel * options.shrink)
    coarse = fine * options.factor
    first, second = _grids(low, high, options)
    start = np.maximum(first.corner, second.corner)
    stop = np.minimum(first.end, second.end)
    rows, columns = (int(n) for n in np.floor((stop - start) / coarse + 1e-6))
    if min(rows, columns) < 1:
        msg = (
            f"By the origins and pixel sizes {low.name} and {high.name} do not "
            "overlap: register them, or check the pixel sizes."
        )
        raise ShapeError(msg, code="no-overlap")
    fine_shape = (rows * options.factor, columns * options.factor)
    return (
        _resample(low, start - first.corner, coarse, (rows, columns)),
        _resample(high, start - second.corner, fine, fine_shape),
    )


def _grids(
    low: Micrograph, high: Micrograph, options: PairOptions
) -> tuple[Grid, Grid]:
    """Return the grids of two images, with one corner if aligned or without origins."""
    first, second = Grid.of(low), Grid.of(high)
    if options.align or low.origin == high.origin == (0.0, 0.0):
        second = replace(second, corner=first.corner)
    return first, second


def _resample(
    image: Micrograph, offset: FloatArray, pitch: FloatArray, shape: IntPair
) -> Micrograph:
    """Resample an image to a grid whose outer corner is `offset` inside its own."""
    own, sides = Grid.of(image), _pair(pitch)
    grid = Grid(shape, sides, _pair(own.corner + offset))
    size = "spacing_px" if image.pixel_size_nm is None else "pixel_size_nm"
    return image.replace(
        data=Area.of(image, grid).read(),
        origin=grid.centre(Box.of(shape)),
        **{size: sides},
    )


def _rescale(image: Micrograph, shrink: float) -> Micrograph:
    """Downsample an image by `shrink`; 1 leaves it unchanged."""
    if shrink == 1:
        return image
    rows, columns = (max(1, int(n / shrink + 1e-6)) for n in image.shape)
    pitch = np.array(image.scale) * shrink
    return _resample(image, np.zeros(2), pitch, (rows, columns))


def _to_one_pitch(
    lows: Sequence[Micrograph], highs: Sequence[Micrograph], options: PairOptions
) -> _Sides:
    """Resample the images of two sets to the common pixel size, if it is known."""
    pitch = options.pixel_nm or _common_pixel(highs)
    sides: _Sides = {"low": [], "high": []}
    for side, images, scale in (("low", lows, 1), ("high", highs, options.factor)):
        for image in images:
            shrink, own = options.shrink, image.mean_pixel_size_nm
            if pitch is not None and own is not None:
                side_pitch = (
                    pitch * options.factor / scale
                )  # before the crop is resized
                shrink *= (
                    1.0 if abs(side_pitch / own - 1) <= _SAME else side_pitch / own
                )
            one = OnGrid.of(_rescale(image, shrink), is_resampled=shrink != 1)
            sides[side].append(one)
    return sides


# Preparation of images before cutting: denoising, sharpening, contrast enhancement.
#
# Sun et al. prepare their sets by noise reduction, edge and contrast enhancement
# without naming the methods; here they are non-local means, an unsharp mask and CLAHE,
# in this order, with the parameters below. A network trained on prepared HIGH images
# learns the preparation too, so it is off by default, and recorded.

NUMBERS: dict[str, dict[str, float]] = {
    "denoise": {"patch_px": 5, "distance_px": 6, "h_over_sigma": 0.8},
    "sharpen": {"radius_px": 2.0, "amount": 0.7},
    "equalise": {"kernel_share": 0.125, "clip_limit": 0.01},
}
"""Parameters of each step; chosen."""


def prepare_image(image: Micrograph, options: PairOptions) -> Micrograph:
    """Apply the chosen preparation to a whole image.

    In float32, on the same grey scale.
    """
    low, high = field_range(image.data, 0.1, 99.9)
    if high <= low:
        return image
    values = (image.array().astype(np.float32) - low) / (high - low)
    missing = ~np.isfinite(values)
    values[missing] = 0
    if options.denoise:
        numbers, sigma = NUMBERS["denoise"], noise_level(values)
        values = restoration.denoise_nl_means(
            values,
            patch_size=int(numbers["patch_px"]),
            patch_distance=int(numbers["distance_px"]),
            h=numbers["h_over_sigma"] * max(sigma, 1e-6),
            sigma=sigma,
            fast_mode=True,
            preserve_range=True,
        )
    if options.sharpen:
        numbers = NUMBERS["sharpen"]
        values = filters.unsharp_mask(
            values, numbers["radius_px"], numbers["amount"], preserve_range=True
        )
    if options.equalise:  # locally, between the field's percentiles
        numbers = NUMBERS["equalise"]
        values = exposure.equalize_adapthist(
            np.clip(values, 0, 1),
            kernel_size=[
                max(8, round(n * numbers["kernel_share"])) for n in values.shape
            ],
            clip_limit=numbers["clip_limit"],
        )
    values = values.astype(np.float32)
    values[missing] = np.nan
    return image.replace(data=values * np.float32(high - low) + np.float32(low))
