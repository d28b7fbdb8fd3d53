"""Decide which patches go to which set: pairs of one place, or of one density."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import (
    Box,
    FloatPair,
    IntPair,
    Job,
    Micrograph,
    Progress,
    ShapeError,
    read_box,
)
from napari_semsr.pairing import (
    SPLITS,
    DensityMeter,
    PairOptions,
    Place,
    align,
    balance,
    judge,
    judge_one,
    lay_out,
    one_side,
    split,
)


@dataclass(frozen=True, slots=True)
class PairChoice:
    """What will be written."""

    kind: str  # ``paired`` or ``unpaired``
    # Pairs of places, LOW and HIGH, of each set
    sets: dict[str, list[tuple[Place, Place]]]
    images: dict[str, list[Micrograph]]  # Images of each side on their final grids
    scale: int  # HIGH pixels for each LOW pixel
    # What the store says of the images of each side
    sources: dict[str, list[dict[str, Any]]]
    candidates: int  # Patches that were judged
    rejected: dict[str, int]  # How many were left out, by reason
    pixel_nm: float | None  # Pixel of HIGH, where all agree
    resampled: bool  # Whether any image was brought to another grid

    def read(self, side: str, source: int, box: Box) -> NDArray[Any]:
        """Read a patch; `box`: in pixels of LOW; gives (Y, X)."""
        wanted = box if side == "low" else box.scaled(self.scale)
        common = np.result_type(*(image.dtype for image in self.images[side]))
        return read_box(self.images[side][source].data, wanted).astype(common)


def choose_paired(
    lows: Sequence[Micrograph], highs: Sequence[Micrograph], options: PairOptions
) -> Job[PairChoice]:
    """Choose patches of places that both images of a pair show."""
    aligned = []
    for low, high in zip(lows, highs, strict=True):
        yield Progress(0, 0, f"bringing {low.name} and {high.name} to one grid")
        aligned.append(align(low, high, options))
    places = _places([item.low for item in aligned], options)
    passed: list[Place] = []
    rejected: Counter[str] = Counter()
    for number, place in enumerate(places):
        source = aligned[place.source]
        ranges = source.low_range, source.high_range
        reason = judge(*source.read(place.box), ranges, options)
        if reason is None:
            passed.append(place)
        else:
            rejected[reason] += 1
        yield Progress(number + 1, len(places), "judging patches")
    sets = split(passed, options) if passed else {name: [] for name in SPLITS}
    images = {
        "low": [item.low for item in aligned],
        "high": [item.high for item in aligned],
    }
    ranges_of = {
        "low": [item.low_range for item in aligned],
        "high": [item.high_range for item in aligned],
    }
    return PairChoice(
        kind="paired",
        sets={name: [(place, place) for place in sets[name]] for name in SPLITS},
        images=images,
        scale=options.factor,
        sources={side: _told(images[side], ranges_of[side]) for side in images},
        candidates=len(places),
        rejected=dict(rejected),
        pixel_nm=_common_pixel(images["high"]),
        resampled=any(item.resampled for item in aligned),
    )


def choose_unpaired(
    lows: Sequence[Micrograph], highs: Sequence[Micrograph], options: PairOptions
) -> Job[PairChoice]:
    """Choose patches of two sets that show equally much pattern."""
    images: dict[str, list[Micrograph]] = {}
    ranges: dict[str, list[FloatPair]] = {}
    found: dict[str, dict[str, list[Place]]] = {}
    densities: dict[tuple[str, Place], float] = {}
    rejected: Counter[str] = Counter()
    candidates, resampled = 0, False
    pitch = options.pixel_nm or _common_pixel(highs)
    for salt, (side, given) in enumerate((("low", lows), ("high", highs))):
        scale = options.factor if side == "high" else 1
        coarse = None if pitch is None else pitch * options.factor / scale
        sides = [one_side(image, coarse, options) for image in given]
        images[side] = [image for image, _, _ in sides]
        ranges[side] = [value_range for _, value_range, _ in sides]
        resampled |= any(changed for _, _, changed in sides)
        places = _places(images[side], options, scale)
        candidates += len(places)
        meters = [DensityMeter(image) for image in images[side]]
        passed = []
        for number, place in enumerate(places):
            box = place.box.scaled(scale)
            patch = read_box(images[side][place.source].data, box)
            reason = judge_one(patch, ranges[side][place.source], options)
            if reason is None:
                passed.append(place)
                densities[side, place] = meters[place.source].measure(patch)
            else:
                rejected[reason] += 1
            yield Progress(number + 1, len(places), f"judging patches of {side}")
        empty: dict[str, list[Place]] = {name: [] for name in SPLITS}
        found[side] = split(passed, options, salt=salt) if passed else empty
    sets = _balanced(found, densities, options, rejected)
    return PairChoice(
        kind="unpaired",
        sets=sets,
        images=images,
        scale=options.factor,
        sources={side: _told(images[side], ranges[side]) for side in images},
        candidates=candidates,
        rejected=dict(rejected),
        pixel_nm=_common_pixel(images["high"]),
        resampled=resampled,
    )


def _balanced(
    found: dict[str, dict[str, list[Place]]],
    densities: dict[tuple[str, Place], float],
    options: PairOptions,
    rejected: Counter[str],
) -> dict[str, list[tuple[Place, Place]]]:
    """Leave patches out until both sides of each set are equally dense."""
    sets: dict[str, list[tuple[Place, Place]]] = {}
    for number, name in enumerate(SPLITS):
        rng = np.random.default_rng([options.seed, 2, number])
        first, second = found["low"][name], found["high"][name]
        chosen = balance(
            [densities["low", place] for place in first],
            [densities["high", place] for place in second],
            rng,
        )
        pairs = [
            (first[i], second[j]) for i, j in zip(chosen[0], chosen[1], strict=True)
        ]
        left = len(first) + len(second) - 2 * len(pairs)
        if left:
            rejected["density"] += left
        sets[name] = [pairs[i] for i in rng.permutation(len(pairs))]
    return sets


def _places(
    images: Sequence[Micrograph], options: PairOptions, scale: int = 1
) -> list[Place]:
    """Lay patches over all images; boxes are in pixels of LOW."""
    places = [
        place
        for number, image in enumerate(images)
        for place in lay_out(number, _coarse(image, scale), options)
    ]
    if places:
        return places
    largest = max(images, key=lambda image: min(image.shape))
    rows, columns = _coarse(largest, scale)
    msg = (
        f"A patch of {options.patch} px needs an image of at least that size, got "
        f"{rows} x {columns} px in {largest.name}: lower --patch."
    )
    raise ShapeError(msg)


def _coarse(image: Micrograph, scale: int) -> IntPair:
    """Rows and columns of an image in pixels of LOW."""
    return image.shape[0] // scale, image.shape[1] // scale


def _told(
    images: Sequence[Micrograph], ranges: Sequence[FloatPair]
) -> list[dict[str, Any]]:
    """Say what a store keeps of its sources."""
    return [
        {
            "name": image.name,
            "range": [float(v) for v in value_range],
            "shape": list(image.shape),
            "pixel_size_nm": None
            if image.pixel_size_nm is None
            else list(image.pixel_size_nm),
            "origin": list(image.origin),
        }
        for image, value_range in zip(images, ranges, strict=True)
    ]


def _common_pixel(images: Sequence[Micrograph]) -> float | None:
    """Pixel size of images that agree in it."""
    sizes = [image.mean_pixel_size_nm for image in images]
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes) or not np.allclose(known, known[0], rtol=1e-3):
        return None
    return known[0]
