"""Selection of training patches, and their split into the three sets.

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

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import scipy  # the submodules are loaded lazily
from numpy.typing import NDArray
from scipy import ndimage
from skimage import exposure, filters, restoration

from napari_semsr import core
from napari_semsr.pairing.groups import ImageGroups, ImageMatch, find_matching_images
from napari_semsr.pairing.options import SPLITS, PairOptions

# Patches of images and their assignment to sets: no pixel is in two sets.
#
# Overlapping patches are on a lattice. A held-out set gets whole images if these are
# small enough, otherwise rectangles of the lattice; patches that overlap the border are
# lost. Rectangles with small losses and about the requested share are chosen.


@dataclass(frozen=True, slots=True)
class PatchPosition:
    """Position of a patch to be cut from an image."""

    source: int  # Which image, or pair of images
    index: core.IntPair  # Row and column on the lattice of its image
    box: core.Box  # In pixels of LOW


def generate_patches(
    source: int, shape: core.IntPair, options: PairOptions
) -> Iterator[PatchPosition]:
    """Yield the regularly spaced patches of an image, with equal margins."""
    side, step = options.patch, options.step or options.patch
    counts = [max(0, (n - side) // step + 1) for n in shape]
    sides = zip(shape, counts, strict=True)
    top, left = ((n - (c - 1) * step - side) // 2 for n, c in sides)
    for row, column in np.ndindex(counts[0], counts[1]):
        corner = (top + row * step, left + column * step)
        box = core.Box.from_shape((side, side), corner)
        yield PatchPosition(source, (row, column), box)


def split_patches(
    places: Sequence[PatchPosition],
    options: PairOptions,
    *,
    salt: int = 0,
    groups: ImageGroups | None = None,
) -> dict[str, list[PatchPosition]]:
    """Split patches into three sets that show different areas.

    Patches of congruent images, by `groups`, are assigned like those of one image.
    Other images of one area are in one set, the training set if there are enough
    others; see `_split_patches` for the rest.
    """
    if groups is None or not places:
        return _split_patches(places, options, salt=salt)
    first = {place.source: groups.numbers[place.source] for place in places}
    members: dict[PatchPosition, list[PatchPosition]] = {}
    for place in places:
        one = place
        if first[place.source] in groups.congruent:
            one = replace(place, source=first[place.source])
        members.setdefault(one, []).append(place)
    whole, free = list[PatchPosition](), list[PatchPosition]()
    for one in members:
        is_free = groups.numbers[one.source] in groups.congruent
        (free if is_free else whole).append(one)
    if not whole:
        sets = _split_patches(free, options, salt=salt)
    elif options.whole_images or len(free) < _ENOUGH * len(members):
        sets = _split_groups(members, groups, options, salt)
    else:
        # larger held-out fractions of these match those of all patches
        held_out = options.validation + options.test
        times = len(members) / len(free)
        times = min(times, _MAX_HELD / held_out) if held_out else 1.0
        if times > 1:
            shares = {n: times * options.split_fractions[n] for n in SPLITS[1:]}
            options = options.replace(**shares)
        sets = _split_patches(free, options, salt=salt)
        rng = np.random.default_rng([options.seed, salt, 1])
        train = sets[SPLITS[0]] + whole
        sets[SPLITS[0]] = [train[i] for i in rng.permutation(len(train))]
    return {
        name: [place for one in pairs_found for place in members[one]]
        for name, pairs_found in sets.items()
    }


_ENOUGH = 0.2  # least fraction of the patches from which to hold out; chosen
_MAX_HELD = 0.8  # largest fraction of them that may be held out


def _split_groups(
    members: Iterable[PatchPosition],
    groups: ImageGroups,
    options: PairOptions,
    salt: int,
) -> dict[str, list[PatchPosition]]:
    """Assign whole groups of images to sets."""
    by_group: dict[int, list[PatchPosition]] = {}
    for one in members:
        by_group.setdefault(groups.numbers[one.source], []).append(one)
    names = [name for name in SPLITS if options.split_fractions[name] > 0]
    if len(by_group) < len(names):
        msg = (
            f"A split by area into {len(names)} sets needs at least {len(names)} "
            f"areas, but the images show only {len(by_group)}: add images of other "
            "areas, pass one image per area, or use fewer sets (`validation=0`, "
            "`test=0`)."
        )
        raise core.OptionError(msg, code="too-few-places")
    stand_ins = [
        PatchPosition(number, (0, 0), own[0].box) for number, own in by_group.items()
    ]
    sets = _split_patches(stand_ins, options.replace(whole_images=True), salt=salt)
    return {
        name: [one for stand_in in pairs_found for one in by_group[stand_in.source]]
        for name, pairs_found in sets.items()
    }


def _split_patches(
    places: Sequence[PatchPosition], options: PairOptions, *, salt: int = 0
) -> dict[str, list[PatchPosition]]:
    """Assign shuffled patches to the three sets, in the order of `SPLITS`.

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
    names = [name for name in SPLITS if options.split_fractions[name] > 0]
    if options.whole_images:
        numbers = _assign_random_sets(len(sources), options, rng)
        sets_of_sources = dict(zip(sources, numbers, strict=True))
        sets = np.array([sets_of_sources[place.source] for place in in_order])
    elif apart == 1:
        sets = _assign_random_sets(len(in_order), options, rng)
    else:
        sets = _assign_separated_sets(in_order, options, apart, rng)
    places_by_set = {
        name: [in_order[i] for i in rng.permutation(np.flatnonzero(sets == number))]
        for number, name in enumerate(SPLITS)
    }
    if not all(places_by_set[name] for name in names):
        if options.whole_images:
            msg = (
                f"A split of whole images into {len(names)} sets needs at least "
                f"{len(names)} images with patches, got {len(sources)}: add images, or "
                "omit `whole_images`."
            )
            raise core.OptionError(msg, code="too-few-images")
        msg = (
            f"A split into {len(names)} disjoint sets needs at least {len(names)} "
            f"non-overlapping patches of {options.patch} px, which the {len(places)} "
            "patches do not provide: lower `patch`, use larger images, or cut pairs "
            "for fewer sets (`validation=0`, `test=0`)."
        )
        raise core.OptionError(msg, code="too-few-patches")
    return places_by_set


def _assign_random_sets(
    count: int, options: PairOptions, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Return random set numbers for non-overlapping patches."""
    sets = np.zeros(count, int)
    left = rng.permutation(count)
    for number in (2, 1):
        share = options.split_fractions[SPLITS[number]]
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


def _assign_separated_sets(
    places: Sequence[PatchPosition],
    options: PairOptions,
    apart: int,
    rng: np.random.Generator,
) -> NDArray[np.intp]:
    """Return set numbers for overlapping patches; sets are `apart` steps apart."""
    shapes: dict[int, core.IntPair] = {}
    for place in places:
        rows, columns = shapes.get(place.source, (0, 0))
        row, column = place.index
        shapes[place.source] = max(rows, row + 1), max(columns, column + 1)
    blank = {source: np.full(shape, _NONE) for source, shape in shapes.items()}
    for place in places:
        blank[place.source][place.index] = 0
    shares = np.array([options.split_fractions[name] for name in SPLITS])
    best, least, count_left = np.zeros(len(places), int), np.inf, len(places)
    for draw in range(_DRAWS):
        copies = {source: lattice.copy() for source, lattice in blank.items()}
        dealing = _LatticeAssignment(copies, apart, rng)
        numbers = [n for n in (1, 2) if shares[n]]
        for number in numbers if draw % 2 else reversed(numbers):
            dealing.assign_held_out(number, float(shares[number] * count_left))
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
class _LatticeAssignment:
    """Assignment of patches to sets on the lattice of each image."""

    sets: dict[int, NDArray[np.intp]]
    apart: int
    rng: np.random.Generator

    def assign_held_out(self, number: int, target: float) -> None:
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
        # regions of a lattice, one for each held-out block
        side = _REGION * (self.apart - 1)
        lines = [
            np.linspace(0, n, max(1, n // side) + 1).astype(int)
            for n in self.sets[roomy[0]].shape
        ]
        regions = [
            (slice(*lines[0][row : row + 2]), slice(*lines[1][column : column + 2]))
            for row, column in np.ndindex(len(lines[0]) - 1, len(lines[1]) - 1)
        ]
        for left, place in enumerate(self.rng.permutation(len(regions))):
            part = target / (len(regions) - left)
            target -= self._assign_rectangle(roomy[0], regions[place], number, part)

    def _assign_rectangle(
        self, source: int, region: tuple[slice, slice], number: int, target: float
    ) -> int:
        """Assign the best rectangle of a region to a set; return its patch count."""
        sets, reach = self.sets[source], self.apart - 1
        sums = np.pad((sets == 0).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        spans = []  # starts and stops (2, N) of intervals along each lattice axis
        for part in region:
            lines = np.linspace(part.start, part.stop, _LINES + 1).astype(int)
            lines = np.unique(lines)
            first, last = np.triu_indices(len(lines), 1)
            spans.append(np.stack([lines[first], lines[last]]))
        count = _sum_rectangles(sums, spans[0], spans[1])
        wide = [
            np.clip(span + np.array([-reach, reach])[:, None], 0, n)
            for span, n in zip(spans, sets.shape, strict=True)
        ]
        reachable = _sum_rectangles(sums, wide[0], wide[1])
        score = reachable - count + _COUNT_WEIGHT * np.abs(count - target)
        possible = (count > 0) & (reachable < sums[-1, -1])
        if not possible.any():
            return 0
        score[~possible] = np.inf
        choice = self.rng.choice(np.flatnonzero(score == score.min()))
        row, column = np.unravel_index(choice, score.shape)
        inner = sets[slice(*spans[0][:, row]), slice(*spans[1][:, column])]
        inner[inner == 0] = number
        outer = sets[slice(*wide[0][:, row]), slice(*wide[1][:, column])]
        outer[outer == 0] = _BORDER_SET
        return int(count[row, column])


def _sum_rectangles(
    sums: core.RealArray, rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> core.RealArray:
    """Sum over rectangles given by row and column intervals, from cumulative sums."""
    down = sums[rows[1]] - sums[rows[0]]
    return np.asarray(down[:, columns[1]] - down[:, columns[0]])


# Selection of patches.

# Chosen: pixel sizes are written with three or four digits; the percentiles ignore
# dead and hot pixels.
_MIN_CORRELATION = 0.3  # absolute correlation of a pair; chosen
_RELIABLE_SHARE = 0.5  # of the areas in a patch; chosen
_SAME = 1e-3  # relative difference of pixel sizes that count as equal
_BORDER = 17  # points along each side of an image for its outline; chosen
_PERCENTILES = (0.1, 99.9)  # of black and white; chosen


@dataclass(frozen=True, slots=True)
class AlignedImage:
    """Image on the common grid of LOW and HIGH."""

    image: core.Micrograph
    value_range: core.FloatPair  # percentiles 0.1 and 99.9 of the field
    is_resampled: bool

    @classmethod
    def from_image(cls, image: core.Micrograph, *, is_resampled: bool) -> Self:
        """Measure an image's grey range; use the full range if few pixels differ."""
        limits = core.measure_percentiles(image.data, *_PERCENTILES)
        if limits[0] == limits[1]:
            limits = core.measure_percentiles(image.data, 0, 100)
        return cls(image, limits, is_resampled)

    def to_json(self) -> dict[str, object]:
        """Return the image record for a store."""
        size = self.image.pixel_size_nm
        return {
            "name": self.image.name,
            "range": [float(v) for v in self.value_range],
            "shape": list(self.image.shape),
            "pixel_size_nm": None if size is None else list(size),
            "spacing_px": list(self.image.spacing_px),
            "origin": list(self.image.origin),
        }


_Sides = dict[str, list[AlignedImage]]  # Images of "low" and of "high"
# Patches in both, by the set's name
_Sets = dict[str, list[tuple[PatchPosition, PatchPosition]]]


@dataclass(frozen=True, slots=True)
class PairTransform:
    """Transform from LOW to HIGH, with its reliability."""

    # From the plane of LOW to that of HIGH, in nm
    transform: core.Affine | core.Elastic
    # (N, 2) centres, in the plane of HIGH, of the areas where it was tested
    places_nm: core.FloatArray
    reliable: NDArray[np.bool_]  # (N,) whether it is reliable there
    side_nm: float  # Side of these areas


@dataclass(frozen=True, slots=True)
class PairSelection:
    """Selected pairs, ready for writing."""

    kind: str  # ``paired`` or ``unpaired``
    sets: _Sets  # LOW and HIGH of each set
    images: dict[str, list[core.Micrograph]]  # of each side, on their final grids
    scale: int  # HIGH pixels per LOW pixel
    sources: dict[str, list[dict[str, object]]]  # records of the images for the store
    candidates: int  # number of checked patches
    rejections: dict[str, int]  # number of rejected patches by reason
    pixel_nm: float | None  # pixel size of HIGH, if all agree
    is_resampled: bool  # whether any image was resampled
    by_image: list[dict[str, object]]  # counts of each set and of rejections, for pairs
    same_place: list[list[str]]  # names of images that show the same area

    def read_patch(self, side: str, source: int, box: core.Box) -> NDArray[Any]:
        """Read a patch of a LOW or HIGH image; the box is in pixels of LOW.

        In the common type of all images of the side.
        """
        side_box = box if side == "low" else box.scale(self.scale)
        common = np.result_type(*(image.dtype for image in self.images[side]))
        return core.read_box(self.images[side][source].data, side_box).astype(common)


def select_pairs(
    lows: Sequence[core.Micrograph],
    highs: Sequence[core.Micrograph],
    options: PairOptions,
    *,
    is_paired: bool,
    pair_map: PairTransform | None = None,
) -> core.Job[PairSelection]:
    """Select training patches and split them into the three sets.

    `is_paired` images show the same fields, in the same order. Each pair then shows one
    area, otherwise two patches of the same density class. LOW is mapped to HIGH by
    `pair_map`, or by the origins if there is none.
    """
    rejections: Counter[str] = Counter()
    by_image: list[core.JsonObject] = []
    sides: _Sides = {"low": [], "high": []}
    if is_paired:
        for low, high in zip(lows, highs, strict=True):
            what = f"resampling {low.name} and {high.name} to a common grid"
            yield core.Progress(0, 0, what)
            pair = align_images(low, high, options, pair_map)
            sides["low"].append(pair[0])
            sides["high"].append(pair[1])
    else:
        sides = _resample_sets(lows, highs, options)
    images = {side: [one.image for one in own] for side, own in sides.items()}
    names = {side: [image.name for image in own] for side, own in images.items()}
    matches: dict[str, list[ImageMatch]] = {}
    for side in sides:
        matches[side] = yield from find_matching_images(images[side], side.upper())
    if is_paired:
        every = matches["low"] + matches["high"]
        groups = ImageGroups.from_matches(len(lows), every)
        same_place = groups.list_names(names["low"])
        sets, candidates, by_image = yield from _select_matching_patches(
            sides, options, pair_map, groups
        )
        for row in by_image:
            rejections.update(row["rejected"])
    else:
        groups_of = {
            side: ImageGroups.from_matches(len(images[side]), matches[side])
            for side in sides
        }
        same_place = [
            group for side in sides for group in groups_of[side].list_names(names[side])
        ]
        sets, candidates = yield from _select_similar_patches(
            sides, options, rejections, groups_of
        )
    coarse = images["low"] if is_paired and pair_map is None else []
    every_image = [one for own in sides.values() for one in own]
    return PairSelection(
        kind="paired" if is_paired else "unpaired",
        sets=sets,
        images=images,
        scale=options.scale_factor,
        sources={side: [one.to_json() for one in own] for side, own in sides.items()},
        candidates=candidates,
        rejections=dict(rejections),
        pixel_nm=_find_common_pixel_size(images["high"], coarse, options.scale_factor),
        is_resampled=any(one.is_resampled for one in every_image),
        by_image=by_image,
        same_place=same_place,
    )


def _select_matching_patches(
    sides: _Sides,
    options: PairOptions,
    pair_map: PairTransform | None,
    groups: ImageGroups,
) -> core.Job[tuple[_Sets, int, list[core.JsonObject]]]:
    """Select patches that match in both images; count candidates and rejections."""
    places = _list_patches(sides["low"], options)
    usable_places: list[PatchPosition] = []
    rejections: list[Counter[str]] = [Counter() for _ in sides["low"]]
    for number, place in enumerate(places):
        low, high = (sides[side][place.source] for side in ("low", "high"))
        reason = find_pair_rejection_reason(
            core.read_box(low.image.data, place.box),
            core.read_box(high.image.data, place.box.scale(options.scale_factor)),
            (low.value_range, high.value_range),
            options,
            is_mapped=pair_map is not None,
        )
        if reason is None and pair_map is not None:
            centre = np.array(core.Grid.from_image(low.image).box_origin(place.box))
            pitch = np.array(low.image.scale)
            corner = centre - pitch / 2
            stop = corner + pitch * options.patch
            if is_transform_unreliable(pair_map, corner, stop):
                reason = "unreliable"
        if reason is None:
            usable_places.append(place)
        else:
            rejections[place.source][reason] += 1
        yield core.Progress(number + 1, len(places), "checking patches")
    sets = split_patches(usable_places, options, groups=groups)
    rows = []
    for source, one in enumerate(sides["low"]):
        counts = {name: sum(p.source == source for p in sets[name]) for name in sets}
        usable_count = sum(place.source == source for place in usable_places)
        if lost_count := usable_count - sum(counts.values()):
            rejections[source]["border"] += lost_count
        row = {"name": one.image.name, **counts, "rejected": dict(rejections[source])}
        rows.append(row)
    pairs = {name: [(one, one) for one in sets[name]] for name in SPLITS}
    return pairs, len(places), rows


def _select_similar_patches(
    sides: _Sides,
    options: PairOptions,
    rejections: Counter[str],
    groups: dict[str, ImageGroups],
) -> core.Job[tuple[_Sets, int]]:
    """Select LOW and HIGH patches with equal pattern density; count all patches."""
    places_by_set: dict[str, dict[str, list[PatchPosition]]] = {}
    densities: dict[tuple[str, PatchPosition], float] = {}
    candidates = 0
    for salt, (side, scale) in enumerate((("low", 1), ("high", options.scale_factor))):
        places = _list_patches(sides[side], options, scale)
        candidates += len(places)
        meters = [create_density_meter(one.image) for one in sides[side]]
        usable_places = []
        for number, place in enumerate(places):
            source = sides[side][place.source]
            patch = core.read_box(source.image.data, place.box.scale(scale))
            reason = find_patch_rejection_reason(patch, source.value_range, options)
            if reason is None:
                usable_places.append(place)
                densities[side, place] = meters[place.source](patch)
            else:
                rejections[reason] += 1
            yield core.Progress(number + 1, len(places), f"checking {side} patches")
        places_by_set[side] = split_patches(
            usable_places, options, salt=salt, groups=groups[side]
        )
        assigned_count = sum(map(len, places_by_set[side].values()))
        if lost_count := len(usable_places) - assigned_count:
            rejections["border"] += lost_count
    sets: _Sets = {}
    for number, name in enumerate(SPLITS):
        rng = np.random.default_rng([options.seed, 2, number])
        first, second = places_by_set["low"][name], places_by_set["high"][name]
        selection = balance_densities(
            [densities["low", place] for place in first],
            [densities["high", place] for place in second],
            rng,
        )
        pairs = [(first[i], second[j]) for i, j in zip(*selection, strict=True)]
        left = len(first) + len(second) - 2 * len(pairs)
        if left:
            rejections["density"] += left
        sets[name] = [pairs[i] for i in rng.permutation(len(pairs))]
    return sets, candidates


def _list_patches(
    side: Sequence[AlignedImage], options: PairOptions, scale: int = 1
) -> list[PatchPosition]:
    """List the patches of all LOW or all HIGH images; boxes are in pixels of LOW."""
    places: list[PatchPosition] = []
    for number, one in enumerate(side):
        rows, columns = (n // scale for n in one.image.shape)
        places += generate_patches(number, (rows, columns), options)
    if places:
        return places
    largest = max(side, key=lambda one: min(one.image.shape)).image
    rows, columns = (n // scale for n in largest.shape)
    msg = (
        f"A patch of {options.patch} px needs an image of at least that size, but the "
        f"largest image, {largest.name}, has only {rows} x {columns} px: lower `patch`."
    )
    raise core.ShapeError(msg, code="image-too-small")


def _find_common_pixel_size(
    images: Sequence[core.Micrograph],
    lows: Sequence[core.Micrograph] = (),
    scale: int = 1,
) -> float | None:
    """Return the common pixel size of images, derived from LOW if missing."""
    sizes = [image.mean_pixel_size_nm for image in images]
    for number, low in enumerate(lows):
        coarse = low.mean_pixel_size_nm
        if sizes[number] is None and coarse is not None:
            sizes[number] = coarse / scale
    known_sizes = [size for size in sizes if size is not None]
    if len(known_sizes) < len(sizes):
        return None
    alike = np.allclose(known_sizes, known_sizes[0], rtol=_SAME)
    return known_sizes[0] if alike else None


# Checks of patches.


def is_transform_unreliable(
    pair_map: PairTransform, start: core.FloatArray, stop: core.FloatArray
) -> bool:
    """Return whether a transform is unreliable in at least half of a patch.

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


def find_patch_rejection_reason(
    patch: core.RealArray, value_range: core.FloatPair, options: PairOptions
) -> str | None:
    """Return the reason for rejecting a patch (Y, X), or None."""
    values = patch.astype(float)
    if not np.isfinite(values).all():
        return "not-finite"
    span = value_range[1] - value_range[0]
    spread = float(values.std())
    return "empty" if spread == 0 or spread < options.min_contrast * span else None


def find_pair_rejection_reason(
    low: core.RealArray,
    high: core.RealArray,
    ranges: tuple[core.FloatPair, core.FloatPair],
    options: PairOptions,
    *,
    is_mapped: bool = False,
) -> str | None:
    """Return the reason for rejecting a pair of patches, or None.

    `low` (Y, X), `high` (Y * scale, X * scale); `ranges`: percentiles of both fields.
    Registered patches may look quite different, like facets in the optical image and
    their steps in SEM: then the residuals of the transform are used instead.
    """
    for patch, value_range in zip((low, high), ranges, strict=True):
        wrong = find_patch_rejection_reason(patch, value_range, options)
        if wrong is not None:
            return wrong
    if is_mapped and options.min_correlation is None:
        return None
    blocks = core.reshape_into_blocks(high, high.shape[0] // low.shape[0]).astype(float)
    a, b = _normalise_patch(low), _normalise_patch(blocks.mean(axis=(1, 3)))
    here = abs(float((a * b).mean()))
    least = options.min_correlation
    if here < (_MIN_CORRELATION if least is None else least):
        return "uncorrelated"
    correlations = _correlate_shifts(a, b)
    y, x = np.unravel_index(int(np.argmax(correlations)), correlations.shape)
    middle = len(correlations) // 2
    further = math.hypot(y - middle, x - middle) > options.max_shift_px
    better = correlations[y, x] > here + _BETTER
    return "shifted" if further and better else None


def _normalise_patch(patch: core.RealArray) -> core.FloatArray:
    """Smooth a patch and normalise it to mean 0 and standard deviation 1."""
    values = ndimage.gaussian_filter(patch.astype(float), _SMOOTH_PX)
    values -= values.mean()
    return np.asarray(values / max(float(values.std()), 1e-300))


def _correlate_shifts(a: core.FloatArray, b: core.FloatArray) -> core.FloatArray:
    """Correlate two patches at all shifts up to an eighth of the side.

    Only the overlap is compared, so that the border has no effect.
    """
    reach = max(1, len(a) // 8)
    inner = b[reach:-reach, reach:-reach]
    inner = inner - inner.mean()
    half = len(inner) // 2  # means of every window inside the image
    windows = np.s_[half : half + 2 * reach + 1, half : half + 2 * reach + 1]
    mean, square = (ndimage.uniform_filter(p, len(inner))[windows] for p in (a, a**2))
    spread = np.sqrt(np.maximum(square - mean**2, 0)) * inner.std()
    sums = scipy.signal.fftconvolve(a, inner[::-1, ::-1], "valid")
    return np.asarray(np.abs(sums) / (inner.size * np.maximum(spread, 1e-12)))


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


def create_density_meter(
    image: core.Micrograph,
) -> Callable[[core.RealArray], float]:
    """Return a function from patches (Y, X) of an image to their fraction of edges.

    The threshold of edges is from up to 1024 x 1024 px at the centre of the image.
    """
    y, x = (max(0, (n - _SAMPLE) // 2) for n in image.shape)
    sample = core.Box.from_shape((_SAMPLE, _SAMPLE), (y, x))
    sample = sample.intersection(core.Box.from_shape(image.shape))
    edges = _compute_gradient(core.read_box(image.data, sample))
    edges = edges[np.isfinite(edges)]
    flat = not edges.size or float(edges.max()) <= float(edges.min())
    threshold = np.inf if flat else float(filters.threshold_otsu(edges))
    return lambda patch: float((_compute_gradient(patch) > threshold).mean())


def _compute_gradient(values: core.RealArray) -> core.FloatArray:
    """Return the gradient magnitude of smoothed values; NaN near missing pixels."""
    plane = values.astype(float)
    return np.asarray(ndimage.gaussian_gradient_magnitude(plane, _SIGMA_PX))


def balance_densities(
    low: Sequence[float], high: Sequence[float], rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Choose equal numbers of patches with equal density from two sets.

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


def align_images(
    low: core.Micrograph,
    high: core.Micrograph,
    options: PairOptions,
    pair_map: PairTransform | None = None,
) -> tuple[AlignedImage, AlignedImage]:
    """Resample two images of the same field to a common grid.

    Images that match pixel by pixel are not changed. Others need their pixel sizes; if
    neither has an origin, their outer corners are assumed to coincide, and only the
    common area is used. Without pixel sizes origins are in pixels of different parents
    and are not compared. With a transform only LOW is resampled, once, to the pixels of
    HIGH, unless another pixel size is requested.
    """
    if pair_map is not None:
        return _align_by_transform(low, high, options, pair_map.transform)
    if _are_pixels_aligned(low, high, options):
        one, other = (_downsample_image(n, options.shrink_factor) for n in (low, high))
    else:
        one, other = _resample_to_common_pixel_size(low, high, options)
    scale, sides = options.scale_factor, zip(one.shape, other.shape, strict=True)
    rows, columns = (min(a, b // scale) for a, b in sides)
    one = one.replace(data=one.data[:rows, :columns])
    other = other.replace(data=other.data[: rows * scale, : columns * scale])
    images = []
    for part, whole in ((one, low), (other, high)):
        box = core.Grid.from_image(part).to_box(core.Grid.from_image(whole))
        images.append(AlignedImage.from_image(part, is_resampled=box is None))
    first, second = images
    if options.second_scan or options.align:
        # use LOW's range for HIGH: percentiles also depend on the noise
        second = replace(second, value_range=first.value_range)
    return first, second


def _align_by_transform(
    low: core.Micrograph,
    high: core.Micrograph,
    options: PairOptions,
    transform: core.Affine | core.Elastic,
) -> tuple[AlignedImage, AlignedImage]:
    """Resample LOW to the part of HIGH that it covers, using a transform."""
    scale, grid = options.scale_factor, core.Grid.from_image(high)
    low_grid = core.Grid.from_image(low)
    along = np.linspace(0, 1, _BORDER)
    places = np.stack(np.meshgrid(along, along, indexing="ij"), axis=-1)
    outer = np.ones((_BORDER, _BORDER), bool)
    outer[1:-1, 1:-1] = False
    corner, end = np.array(low_grid.corner), np.array(low_grid.end)
    outline_places = transform(corner + places[outer] * (end - corner))
    pitch = np.array(grid.pitch)
    ends = outline_places.min(0), outline_places.max(0)
    first, last = ((border - grid.corner) / pitch for border in ends)
    start = np.clip(np.floor(first), 0, high.shape).astype(int)
    stop = np.clip(np.ceil(last), 0, high.shape).astype(int)
    box = core.Box(int(start[0]), int(stop[0]), int(start[1]), int(stop[1]))
    fine = (options.pixel_nm or pitch) * np.full(2, options.shrink_factor)
    rows, columns = ((stop - start) * pitch / (fine * scale) + 1e-6).astype(int)
    if min(rows, columns) < 1:
        what = f"Under this transform, {low.name} does not overlap {high.name}"
        msg = f"{what}: register again."
        raise core.ShapeError(msg, code="no-overlap")
    high = high.replace(data=high.data[box.slices], origin=grid.box_origin(box))
    is_resampled = not np.allclose(fine, pitch, rtol=_SAME)
    if is_resampled:
        high = _resample_image(high, np.zeros(2), fine, (rows * scale, columns * scale))
    else:
        fine = pitch
        high = high.replace(data=high.data[: rows * scale, : columns * scale])
    pitches, corner_of_high = fine * scale, core.Grid.from_image(high).corner
    pitch_pair = _convert_to_float_pair(pitches)
    high_grid = core.Grid((rows, columns), pitch_pair, corner_of_high)
    low = low.replace(
        data=core.WarpedImage(low, high_grid, transform).read(),
        pixel_size_nm=high_grid.pitch,
        origin=high_grid.box_origin(core.Box.from_shape(high_grid.shape)),
    )
    first_image = AlignedImage.from_image(low, is_resampled=True)
    return first_image, AlignedImage.from_image(high, is_resampled=is_resampled)


def _convert_to_float_pair(values: core.RealArray) -> core.FloatPair:
    return float(values[0]), float(values[1])


def _are_pixels_aligned(
    low: core.Micrograph, high: core.Micrograph, options: PairOptions
) -> bool:
    """Return whether two images match pixel by pixel."""
    high_shape = tuple(n * options.scale_factor for n in low.shape)
    if high_shape != high.shape:
        return False
    a, b = low.pixel_size_nm, high.pixel_size_nm
    if a is None or b is None:
        return options.pixel_nm is None
    ratio = np.array(a) / np.array(b) / options.scale_factor
    same = bool(np.all(np.abs(ratio - 1) < _SAME))
    target = options.pixel_nm
    same &= target is None or bool(np.allclose(b, target, rtol=_SAME))
    first, second = _get_pair_grids(low, high, options)
    second_grid = replace(second, corner=first.corner).to_box(second)
    return same and second_grid == core.Box.from_shape(high.shape)


def _resample_to_common_pixel_size(
    low: core.Micrograph, high: core.Micrograph, options: PairOptions
) -> tuple[core.Micrograph, core.Micrograph]:
    """Resample HIGH to the common pixel size and LOW to `scale` times that size."""
    a, b = low.pixel_size_nm, high.pixel_size_nm
    if a is None or b is None:
        bare = low.name if a is None else high.name
        sizes = [" x ".join(map(str, image.shape)) for image in (low, high)]
        msg = (
            f"Images of {sizes[0]} and {sizes[1]} px can be paired at scale "
            f"{options.scale_factor} only if both have a pixel size, but {bare} has "
            "none: set both (`low_pixel_nm`, `high_pixel_nm`), or crop the images to a "
            "common grid."
        )
        raise core.ShapeError(msg, code="pixel-size-missing")
    pixel = options.pixel_nm or float(np.sqrt(b[0] * b[1]))
    fine = np.full(2, pixel * options.shrink_factor)
    coarse = fine * options.scale_factor
    first, second = _get_pair_grids(low, high, options)
    start = np.maximum(first.corner, second.corner)
    stop = np.minimum(first.end, second.end)
    rows, columns = (int(n) for n in np.floor((stop - start) / coarse + 1e-6))
    if min(rows, columns) < 1:
        msg = (
            f"According to their origins and pixel sizes, {low.name} and {high.name} "
            "do not overlap: register them, or check the pixel sizes."
        )
        raise core.ShapeError(msg, code="no-overlap")
    fine_shape = (rows * options.scale_factor, columns * options.scale_factor)
    return (
        _resample_image(low, start - first.corner, coarse, (rows, columns)),
        _resample_image(high, start - second.corner, fine, fine_shape),
    )


def _get_pair_grids(
    low: core.Micrograph, high: core.Micrograph, options: PairOptions
) -> tuple[core.Grid, core.Grid]:
    """Return both grids, with a common corner if aligned or without origins."""
    first, second = core.Grid.from_image(low), core.Grid.from_image(high)
    if options.align or low.origin == high.origin == (0.0, 0.0):
        second = replace(second, corner=first.corner)
    return first, second


def _resample_image(
    image: core.Micrograph,
    offset: core.FloatArray,
    pitch: core.FloatArray,
    shape: core.IntPair,
) -> core.Micrograph:
    """Resample an image to a grid whose corner is shifted inwards by `offset`."""
    own, sides = core.Grid.from_image(image), _convert_to_float_pair(pitch)
    grid = core.Grid(shape, sides, _convert_to_float_pair(own.corner + offset))
    size = "spacing_px" if image.pixel_size_nm is None else "pixel_size_nm"
    return image.replace(
        data=core.GridImage.from_image(image, grid).read(),
        origin=grid.box_origin(core.Box.from_shape(shape)),
        **{size: sides},
    )


def _downsample_image(image: core.Micrograph, shrink: float) -> core.Micrograph:
    """Downsample an image by `shrink`; 1 leaves it unchanged."""
    if shrink == 1:
        return image
    rows, columns = (max(1, int(n / shrink + 1e-6)) for n in image.shape)
    pitch = np.array(image.scale) * shrink
    return _resample_image(image, np.zeros(2), pitch, (rows, columns))


def _resample_sets(
    lows: Sequence[core.Micrograph],
    highs: Sequence[core.Micrograph],
    options: PairOptions,
) -> _Sides:
    """Resample the images of two sets to the common pixel size, if it is known."""
    pitch = options.pixel_nm or _find_common_pixel_size(highs)
    sides: _Sides = {"low": [], "high": []}
    both = ("low", lows, 1), ("high", highs, options.scale_factor)
    for side, images, scale in both:
        for image in images:
            shrink, own = options.shrink_factor, image.mean_pixel_size_nm
            if pitch is not None and own is not None:
                # before the crop is resized
                ratio = pitch * options.scale_factor / scale / own
                shrink *= 1.0 if abs(ratio - 1) <= _SAME else ratio
            small = _downsample_image(image, shrink)
            one = AlignedImage.from_image(small, is_resampled=shrink != 1)
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
"""Chosen parameters of each preparation step."""


def prepare_image(image: core.Micrograph, options: PairOptions) -> core.Micrograph:
    """Apply the chosen preparation steps to a whole image.

    In float32, on the same grey scale.
    """
    low, high = core.measure_percentiles(image.data, 0.1, 99.9)
    if high <= low:
        return image
    values = (image.array().astype(np.float32) - low) / (high - low)
    missing = ~np.isfinite(values)
    values[missing] = 0
    if options.denoise:
        numbers, sigma = NUMBERS["denoise"], core.estimate_noise_level(values)
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
        share = numbers["kernel_share"]
        values = exposure.equalize_adapthist(
            np.clip(values, 0, 1),
            kernel_size=[max(8, round(n * share)) for n in values.shape],
            clip_limit=numbers["clip_limit"],
        )
    values = values.astype(np.float32)
    values[missing] = np.nan
    return image.replace(data=values * np.float32(high - low) + np.float32(low))
