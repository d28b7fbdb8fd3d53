"""Which patches are worth learning from, and which of the three sets each goes to.

A patch must be finite and not empty; those of a pair must show the same at the same
place, and two unpaired sets must show equally much pattern.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import filters

from napari_semsr.core import (
    Box,
    FloatArray,
    FloatPair,
    IntPair,
    Job,
    Micrograph,
    OptionError,
    Progress,
    ShapeError,
    read_box,
)
from napari_semsr.pairing.grid import align, one_side
from napari_semsr.pairing.options import SPLITS, PairOptions

REASONS = {
    "not-finite": "pixels are NaN or infinite",
    "empty": "hardly any contrast in LOW or HIGH",
    "uncorrelated": "LOW and HIGH do not show the same",
    "shifted": "LOW and HIGH fit better when moved",
}
"""Why a patch is left out."""


@dataclass(frozen=True, slots=True)
class Place:
    """A patch before it is cut."""

    source: int  # Which image, or pair of images
    block: IntPair  # Row and column of its block; a block goes to one set
    box: Box  # In pixels of LOW


@dataclass(frozen=True, slots=True)
class PairChoice:
    """What will be written."""

    kind: str  # ``paired`` or ``unpaired``
    sets: dict[str, list[tuple[Place, Place]]]  # LOW and HIGH of each set
    images: dict[str, list[Micrograph]]  # Of each side, on their final grids
    scale: int  # HIGH pixels for each LOW pixel
    sources: dict[str, list[dict[str, Any]]]  # What the store says of the images
    candidates: int  # Patches that were judged
    rejected: dict[str, int]  # How many were left out, by reason
    pixel_nm: float | None  # Pixel of HIGH, where all agree
    resampled: bool  # Whether any image was brought to another grid

    def read(self, side: str, source: int, box: Box) -> NDArray[Any]:
        """Read a patch.

        Parameters
        ----------
        side : {"low", "high"}
            Which images.
        source : int
            Number of the image.
        box : Box
            In pixels of LOW.

        Returns
        -------
        (Y, X) numpy.ndarray
            In the type that all images of the side have in common.
        """
        wanted = box if side == "low" else box.scaled(self.scale)
        common = np.result_type(*(image.dtype for image in self.images[side]))
        return read_box(self.images[side][source].data, wanted).astype(common)


def choose_paired(
    lows: Sequence[Micrograph], highs: Sequence[Micrograph], options: PairOptions
) -> Job[PairChoice]:
    """Choose patches of places that both images of a pair show.

    Parameters
    ----------
    lows, highs : sequence of Micrograph
        Images of the same fields, in the same order.
    options : PairOptions
        Patch, scale, sets, and what is demanded.

    Returns
    -------
    PairChoice
        Each pair is one place twice.

    Yields
    ------
    Progress
        Images brought to one grid, patches judged.
    """
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
    """Choose patches of two sets that show equally much pattern.

    Parameters
    ----------
    lows, highs : sequence of Micrograph
        Images of two sets.
    options : PairOptions
        Patch, scale, sets, and what is demanded.

    Returns
    -------
    PairChoice
        Pairs of patches from the same class of density.

    Yields
    ------
    Progress
        Patches judged.
    """
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


# Patches laid over an image, and whether they are of use.

_SMOOTH_PX = 1.0  # chosen: the noise of single pixels says nothing of the place
_BETTER = 0.02  # a moved pair must correlate better by this; chosen: less is chance


def lay_out(source: int, shape: IntPair, options: PairOptions) -> Iterator[Place]:
    """Lay patches over an image, in blocks that share no pixel.

    Without overlap a block is one patch; with overlap it holds as many patches as fit
    into two sides.
    """
    side, step = options.patch, options.step or options.patch
    within = 1 if step >= side else 1 + side // step
    block = side + (within - 1) * step
    if min(shape) < block:  # small images: blocks of one patch
        within, block = 1, side
    pitch = max(block, step) if within == 1 else block
    counts = [max(0, (n - block) // pitch + 1) for n in shape]
    spare = [
        (n - (c - 1) * pitch - block) // 2 for n, c in zip(shape, counts, strict=True)
    ]
    for row, column in np.ndindex(counts[0], counts[1]):
        for i, j in np.ndindex(within, within):
            y = spare[0] + row * pitch + i * step
            x = spare[1] + column * pitch + j * step
            yield Place(source, (row, column), Box.of((side, side), (y, x)))


def judge_one(
    patch: NDArray[Any], value_range: FloatPair, options: PairOptions
) -> str | None:
    """Tell by a key of `REASONS` why one patch (Y, X) is of no use; None if it is."""
    values = patch.astype(float)
    if not np.isfinite(values).all():
        return "not-finite"
    span = value_range[1] - value_range[0]
    spread = float(values.std())
    return "empty" if spread == 0 or spread < options.min_contrast * span else None


def judge(
    low: NDArray[Any],
    high: NDArray[Any],
    ranges: tuple[FloatPair, FloatPair],
    options: PairOptions,
) -> str | None:
    """Tell by a key of `REASONS` why a pair of patches is of no use; None if it is.

    `low` (Y, X), `high` (Y * scale, X * scale); `ranges`: percentiles of both fields.
    """
    for patch, value_range in zip((low, high), ranges, strict=True):
        wrong = judge_one(patch, value_range, options)
        if wrong is not None:
            return wrong
    a, b = _plain(low), _plain(_binned(high, high.shape[0] // low.shape[0]))
    here = abs(float((a * b).mean()))
    if here < options.min_correlation:
        return "uncorrelated"
    moved, best = _best_shift(a, b)
    further = float(np.hypot(*moved)) > options.max_shift_px
    return "shifted" if further and best > here + _BETTER else None


def _binned(patch: NDArray[Any], scale: int) -> NDArray[Any]:
    """Average blocks of pixels."""
    if scale == 1:
        return patch
    rows, columns = (n // scale for n in patch.shape)
    blocks = patch.reshape(rows, scale, columns, scale).astype(float)
    return np.asarray(blocks.mean(axis=(1, 3)))


def _plain(patch: NDArray[Any]) -> FloatArray:
    """Smooth a patch, and bring it to mean 0 and deviation 1."""
    values = ndimage.gaussian_filter(patch.astype(float), _SMOOTH_PX)
    values -= values.mean()
    return np.asarray(values / max(float(values.std()), 1e-300))


def _best_shift(a: FloatArray, b: FloatArray) -> tuple[IntPair, float]:
    """Find the shift, up to an eighth of the side, of the strongest correlation.

    Only what both share at a shift is compared, so that the border costs nothing.
    """
    reach = max(1, a.shape[0] // 8)
    inner = b[reach:-reach, reach:-reach]
    inner = inner - inner.mean()
    size = [m + n - 1 for m, n in zip(a.shape, inner.shape, strict=True)]
    product = np.fft.rfft2(a, size) * np.fft.rfft2(inner[::-1, ::-1], size)
    full = np.fft.irfft2(product, size)
    top, left = (n - 1 for n in inner.shape)
    sums = full[top : top + 2 * reach + 1, left : left + 2 * reach + 1]
    window = np.ones(inner.shape)
    spread = _window_deviation(a, window.shape)
    found = np.abs(sums) / (inner.size * np.maximum(spread * inner.std(), 1e-12))
    y, x = np.unravel_index(int(np.argmax(found)), found.shape)
    return (int(y) - reach, int(x) - reach), float(found[y, x])


def _window_deviation(values: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """Compute the standard deviation of every window that lies inside."""
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
# Where two sets show different amounts of pattern, a network that is trained between
# them learns to add or remove pattern. Density is the share of a patch's pixels whose
# gradient is an edge's, by Otsu's threshold over the whole image; it does not mind
# which phase is the bright one.

# Chosen: an edge is wider than noise; a million pixels settle Otsu's threshold; with
# more classes of density fewer patches find a partner.
_SIGMA_PX = 1.5
_SAMPLE = 1024
_BINS = 5


class DensityMeter:
    """Measures how much pattern patches of one image hold.

    Up to 1024 x 1024 px in its middle decide what an edge is.
    """

    def __init__(self, image: Micrograph) -> None:
        y, x = (max(0, (n - _SAMPLE) // 2) for n in image.shape)
        middle = Box.of((_SAMPLE, _SAMPLE), (y, x)).intersection(Box.of(image.shape))
        sample = read_box(image.data, middle)
        edges = _gradient(sample)
        flat = float(edges.max()) <= float(edges.min())
        self._threshold = np.inf if flat else float(filters.threshold_otsu(edges))

    def measure(self, patch: NDArray[Any]) -> float:
        """Share of edge pixels of a patch (Y, X), in [0, 1]."""
        return float((_gradient(patch) > self._threshold).mean())


def _gradient(values: NDArray[Any]) -> FloatArray:
    """Gradient magnitude of smoothed grey values; NaN counts as 0."""
    known = np.nan_to_num(values.astype(float), posinf=0, neginf=0)
    made: FloatArray = ndimage.gaussian_gradient_magnitude(known, _SIGMA_PX)
    return made


def balance(
    low: Sequence[float], high: Sequence[float], rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Choose equally many patches of equal density from two sets.

    `low`, `high`: densities of their patches; gives indices of both, ordered by class
    of density: fifths of all densities together.
    """
    both = np.array([*low, *high])
    if not both.size:
        return [], []
    edges = np.quantile(both, np.linspace(0, 1, _BINS + 1)[1:-1])
    first, second = (np.searchsorted(edges, np.array(side)) for side in (low, high))
    chosen: tuple[list[int], list[int]] = ([], [])
    for number in range(_BINS):
        members = [np.flatnonzero(side == number) for side in (first, second)]
        count = min(len(members[0]), len(members[1]))
        for kept, found in zip(chosen, members, strict=True):
            kept += [int(i) for i in rng.permutation(found)[:count]]
    return chosen


def split(
    places: Sequence[Place], options: PairOptions, *, salt: int = 0
) -> dict[str, list[Place]]:
    """Deal blocks of patches out to the three sets, shuffled, in the order of `SPLITS`.

    All patches of a block go to one set, and blocks share no pixel. The dealing is a
    draw that depends on the seed alone; `salt` makes a second draw another one.
    """
    blocks: dict[tuple[int, IntPair], list[Place]] = {}
    for place in places:
        blocks.setdefault((place.source, place.block), []).append(place)
    wanted = [name for name in SPLITS if options.shares[name] > 0]
    if len(blocks) < len(wanted):
        msg = (
            f"{len(wanted)} disjoint sets need at least {len(wanted)} separate patches "
            f"of {options.patch} px, got {len(blocks)}: lower --patch or --step, or "
            "set --validation 0 and --test 0."
        )
        raise OptionError(msg)
    rng = np.random.default_rng([options.seed, salt])
    keys = sorted(blocks)
    order = [keys[i] for i in rng.permutation(len(keys))]
    found: dict[str, list[Place]] = {}
    for name in reversed(SPLITS):
        share = options.shares[name]
        count = len(order) if name == "train" else round(share * len(keys))
        if name != "train" and share > 0:
            count = max(1, count)
        left = 1 if name != "train" else 0
        count = min(count, max(len(order) - left, 0))
        taken, order = order[:count], order[count:]
        members = [place for key in taken for place in blocks[key]]
        found[name] = [members[i] for i in rng.permutation(len(members))]
    return {name: found[name] for name in SPLITS}
