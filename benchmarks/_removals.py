"""Paired hallucination test: image each sample with and without an object.

The share of removed objects that are not drawn is not enough: an image without
contrast draws none. So each position is imaged by the same simulated microscope with
same noise, once with the object and once without, and an image is evaluated by how
often it shows the object, and how often it draws it although removed. A network can
only guess what the optical image does not show, so positions are grouped by how much
the object changes that image: the output of a matched filter, in standard deviations
of its noise.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from math import hypot
from typing import Any

import numpy as np
from _discs import (
    MARGIN_PX,
    DiscPositions,
    Discs,
    DiscTrial,
    compute_matching_gain,
    measure_local_contrast,
)
from scipy import ndimage, signal

from napari_semsr.analysis.gaps import compute_fraction_interval
from napari_semsr.core import (
    BoolArray,
    FloatArray,
    FloatPair,
    Job,
    Micrograph,
    OptionError,
    Progress,
    ReadError,
    RealArray,
    parse_pixel_size,
)
from napari_semsr.jobs.adapt.areas import LINEAR
from napari_semsr.restoration import fit_linear_filter
from napari_semsr.simulation import (
    HELD_OUT_SEED,
    ImagingSettings,
    MicroscopeOptions,
    PhantomOptions,
    Specimen,
    SsumPair,
    SsumPairOptions,
    draw_specimen,
    get_surface_shape,
    simulate_ssum_pair,
)

# The paired test of removed objects.

MODEL, LIGHT = "model", "light"
"""Rows of the paired test, besides the linear filter: the checked model, its input."""
# chosen: J of the linear filter is 69 points from there on and 9 below
TELLS_SD = 9.0
"""Change of the optical image in standard deviations of its noise that shows an
object.
"""
_MIN_REMOVED = 40  # below, the 95 % interval of a share is up to 30 points wide


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovalCount:
    """Counts of positions imaged with and without an object.

    Shares are in per cent, intervals 95 % ones; all are None below 40 positions.
    """

    objects: int  # positions
    shown: int  # positions where the image with the object shows it
    drawn: int  # positions where the image without the object still shows it

    def __add__(self, other: "RemovalCount") -> "RemovalCount":
        """Add two counts."""
        mine, others = asdict(self), asdict(other)
        return RemovalCount(**{name: mine[name] + others[name] for name in mine})

    @property
    def is_sufficient(self) -> bool:
        """Whether there are enough object positions to give a percentage."""
        return self.objects >= _MIN_REMOVED

    @property
    def shown_percent(self) -> float | None:
        """Percentage of present objects that are shown."""
        return 100 * self.shown / self.objects if self.is_sufficient else None

    @property
    def drawn_percent(self) -> float | None:
        """Percentage of removed objects that are still shown."""
        return 100 * self.drawn / self.objects if self.is_sufficient else None

    @property
    def difference(self) -> float | None:
        """Youden's J in percentage points: `shown_percent` minus `drawn_percent`."""
        percent = 100 * (self.shown - self.drawn) / max(self.objects, 1)
        return percent if self.is_sufficient else None

    @property
    def drawn_interval(self) -> FloatPair | None:
        """95 % Wilson interval of `drawn_percent`."""
        return self._compute_interval(self.drawn)

    @property
    def difference_interval(self) -> FloatPair | None:
        """95 % interval of `difference` (Newcombe's score interval [1]_).

        It assumes independent shares, and is too wide for shares of the same positions.

        References
        ----------
        .. [1] R. G. Newcombe, Stat. Med. 17, 873 (1998), method 10.
        """
        middle, shown_interval, drawn_interval = (
            self.difference,
            self._compute_interval(self.shown),
            self.drawn_interval,
        )
        if middle is None or shown_interval is None or drawn_interval is None:
            return None
        one, other = (100 * n / self.objects for n in (self.shown, self.drawn))
        down = hypot(one - shown_interval[0], drawn_interval[1] - other)
        up = hypot(shown_interval[1] - one, other - drawn_interval[0])
        return middle - down, middle + up

    def _compute_interval(self, count: int) -> FloatPair | None:
        shares = compute_fraction_interval(count, self.objects)
        if shares is None or not self.is_sufficient:
            return None
        return 100 * shares[0], 100 * shares[1]

    def to_json(self) -> dict[str, object]:
        """Return counts, percentages and intervals."""
        return asdict(self) | {
            "shown_percent": _round_values(self.shown_percent),
            "shown_interval": _round_values(self._compute_interval(self.shown)),
            "drawn_percent": _round_values(self.drawn_percent),
            "drawn_interval": _round_values(self.drawn_interval),
            "j_points": _round_values(self.difference),
            "j_interval": _round_values(self.difference_interval),
        }


def _round_values(value: Any) -> object:
    if isinstance(value, tuple):
        return tuple(_round_values(one) for one in value)
    return None if value is None else round(value, 2)


_GROUPS = "light_tells", "light_cannot_tell", "all"


@dataclass(frozen=True, slots=True)
class RemovalTest:
    """Counts of present and removed objects shown, in the same simulated samples.

    `light_tells` and `light_cannot_tell` count positions for each image, by its name:
    those where the object changes the optical image by 9 standard deviations of its
    noise or more, and those where by less.
    """

    fields: int  # simulated fields
    light_tells: Mapping[str, RemovalCount]
    light_cannot_tell: Mapping[str, RemovalCount]

    def get_counts(self, name: str) -> dict[str, RemovalCount]:
        """Return the counts for one image, by optical visibility of the objects."""
        tells, cannot = self.light_tells[name], self.light_cannot_tell[name]
        return dict(zip(_GROUPS, (tells, cannot, tells + cannot), strict=True))

    def to_json(self) -> dict[str, object]:
        """Return a JSON record for the model card."""
        rows = {
            name: {
                group: count.to_json() for group, count in self.get_counts(name).items()
            }
            for name in self.light_tells
        }
        return {"fields": self.fields, "light_tells_from_sd": TELLS_SD, "rows": rows}


EnhanceCall = Callable[[Micrograph], RealArray]
"""Function that creates an image (S Y, S X) from an optical image (Y, X) at scale S."""
SUPERLENS = MicroscopeOptions(photons=3500.0)
"""Microscope used in the test, with a numerical aperture of 1.8."""

_STREAM = 0x9A12ED  # seed; not used for training or for any choice
_FIT_FIELDS = (
    4  # chosen: fields for the linear filter; of 256 px, 600 pixels for each tap
)
_AT_ONCE = 28  # objects of each change in one field; chosen: as many as fit into 512 px
_FINE = 2  # pixels of a specimen per optical pixel
_MIN_RELIEF_NM = 20.0  # relief of inserted objects if the sample is flat
_RADII_PX = (2, 3, 4, 5)  # chosen: the smaller ones are invisible at 550 nm
_PART_FIELDS, _PARTS = 4, 20  # of `change_fields`, and objects in each
_PART_MARGIN, _GROUND = 60, 0.05  # fine pixels from the border; material of no object
_GAP_NM, _PARTS_APART_NM = 160.0, 300.0
_HALF = 0.5  # of relief and material, inserted; of contrast, to count as shown


def count_removals(
    enhance: Mapping[str, EnhanceCall],
    specimens: Iterable[Specimen],
    optics: MicroscopeOptions = SUPERLENS,
    *,
    side: int,
    scale: int = 1,
    objects: int = 200,
    seed: int = 0,
) -> Job[RemovalTest]:
    """Count objects that images show when present, and still show when removed.

    Spots of 2 to 5 px radius are removed from each specimen, in height and material,
    and others are inserted elsewhere. An image shows an object if its contrast
    with the rim is at least half of that in the noise-free SEM image, after the gain
    that gives both images the same standard deviation. The optical image and the best
    linear filter, fitted to the first four specimens, are evaluated in the same way.

    Parameters
    ----------
    enhance : mapping of str to callable
        Functions that enhance an optical `Micrograph` (side, side), by name; the result
        has `scale` times the pixels along each axis.
    specimens : iterable of Specimen
        Samples of `surface_shape(side)`; the first four are not evaluated.
    optics : MicroscopeOptions, optional
        Microscope; its focus is set to the median height of each specimen.
    side : int
        Side of the optical images in px.
    scale : int, default=1
        Pixels of an SEM image for each optical one, 1 or 2.
    objects : int, default=200
        Objects to remove, and to insert; specimens are used until there are as many.
    seed : int, default=0
        Seed of positions, noise and inserted objects.

    Returns
    -------
    Removals
        Counts for each of `enhance`, the optical image, and the linear filter.

    Raises
    ------
    OptionError
        If the images have no room for an object.
    ReadError
        If no specimen is left for the test, or none has room for an object.
    """
    least = 4 * MARGIN_PX
    if side * scale < least:
        msg = (
            f"The SEM image must be at least {least} px wide to contain objects, got "
            f"{side * scale} px."
        )
        raise OptionError(msg, code="out-of-range")
    specimen_iterator = iter(specimens)
    yield Progress(0, 2 * objects, "fitting a linear filter")
    filters = []
    for index, surface in enumerate(islice(specimen_iterator, _FIT_FIELDS)):
        pair = MicroscopePair(optics, side, scale, seed, index).simulate_images(surface)
        filters.append((_enlarge_image(pair.low, scale), pair.high))
    linear = fit_linear_filter(filters)
    calls: dict[str, EnhanceCall] = {
        **enhance,
        LIGHT: lambda light: _enlarge_image(light.array(), scale),
        LINEAR: lambda light: linear.apply(_enlarge_image(light.array(), scale)),
    }
    none = RemovalCount(objects=0, shown=0, drawn=0)
    tells, cannot = dict.fromkeys(calls, none), dict.fromkeys(calls, none)
    fields, left = 0, [objects, objects]
    for index, surface in enumerate(specimen_iterator, _FIT_FIELDS):
        instrument = MicroscopePair(optics, side, scale, seed, index)
        counts = min(left[0], _AT_ONCE), min(left[1], _AT_ONCE)
        places = ChangedSample.create(surface, instrument, counts)
        counts_found = len(places.inserted_discs), len(places.erased_discs)
        if not any(counts_found):
            continue
        fields += 1
        change = places.measure_optical_change()
        for name, call in calls.items():
            done_count = 2 * objects - sum(left)
            yield Progress(done_count, 2 * objects, f"field {fields}, {name}")
            shown_there, drawn_there = places.find_shown_objects(call)
            tells[name] += _count_objects(shown_there, drawn_there, change >= TELLS_SD)
            cannot[name] += _count_objects(shown_there, drawn_there, change < TELLS_SD)
        left = [max(0, n - more) for n, more in zip(left, counts_found, strict=True)]
        if not any(left):
            break
    if fields == 0:
        msg = (
            "No simulated sample has space for an object; use larger fields "
            f"(`size_px`), or more than {_FIT_FIELDS} of them."
        )
        raise ReadError(msg, code="nothing-to-measure")
    return RemovalTest(fields, tells, cannot)


def simulate_circuits(side: int, *, count: int, seed: int = 0) -> Iterable[Specimen]:
    """Simulate circuits at the optical limit, with seeds reserved for evaluation.

    Wires have a pitch of 240 nm, 1.6 times the shortest period that is resolved,
    and a relief of 40 nm, within the depth of focus. The optical image shows some
    objects and hides others, and a linear filter can enhance those that it shows.
    """
    look = PhantomOptions(phantom="circuit", pitch_nm=240.0, relief_nm=40.0)
    return simulate_specimens(look, side, count=count, seed=seed)


def simulate_specimens(
    look: PhantomOptions, side: int, *, count: int, seed: int = 0, raised: bool = False
) -> Iterable[Specimen]:
    """Simulate samples of a kind, with seeds reserved for evaluation."""
    for index in range(count):
        draw = {"options": look, "seed": HELD_OUT_SEED + (seed << 16) + index}
        yield draw_surface(get_surface_shape(side), raised=raised, **draw)


def draw_surface(
    shape: tuple[int, int], *, options: PhantomOptions, seed: int, raised: bool
) -> Specimen:
    """Draw a sample; `raised` has discs in place of the holes of a lattice."""
    pixel_nm = SsumPairOptions().pixel_nm / _FINE
    how = {"pixel_nm": pixel_nm, "options": options, "seed": seed}
    surface = draw_specimen(options.phantom, shape, **how)
    if not raised:
        return surface
    height = surface.height_nm.max() - surface.height_nm
    return replace(surface, height_nm=height, material=1 - surface.material)


@dataclass(frozen=True, slots=True)
class Site:
    """Object that only one state of a field has."""

    box: tuple[slice, slice]
    pixels: BoolArray  # (Y, X) of the field
    change: FloatArray  # of the box, in SEM, by the object
    weights: FloatArray  # of the box, whose sum with a change is the contrast
    present: int  # the state that has it, 0 before the change and 1 after it
    is_detectable: bool  # in the optical image, by a filter that knows the object


@dataclass(frozen=True, slots=True)
class ChangedField:
    """Field before and after objects are removed and inserted, in one noise."""

    lights: tuple[Micrograph, Micrograph]  # reflectances
    truths: tuple[FloatArray, FloatArray]  # SEM images on one grey scale
    sites: list[Site]

    def find_shown(self, images: Sequence[FloatArray]) -> BoolArray:
        """Find the objects that images of both states show (N, 2).

        An image shows an object with half of its contrast in the noise-free SEM image.
        """
        both = []
        for image, truth in zip(images, self.truths, strict=True):
            gain = compute_matching_gain(image, truth)
            both.append(gain * (image - image.mean()) + truth.mean())
        shown = np.zeros((len(self.sites), 2), bool)
        for number, site in enumerate(self.sites):
            without = self.truths[1 - site.present][site.box]
            contrast = (site.weights * site.change).sum()
            for state, image in enumerate(both):
                found = (site.weights * (image[site.box] - without)).sum()
                shown[number, state] = found / contrast >= _HALF
        return shown


def change_fields(
    look: PhantomOptions, *, side: int, seed: int, raised: bool = False
) -> Iterator[ChangedField]:
    """Remove and insert objects in fields, with the focus at the lowest surface.

    They are spots in circuits, gaps of 160 nm in the lines of gratings, and otherwise
    whole objects.
    """
    # of the spots of a circuit, light can show few
    count = _PART_FIELDS * (2 if look.phantom == "circuit" else 1)
    how = {"count": count, "seed": seed, "raised": raised}
    for index, surface in enumerate(simulate_specimens(look, side, **how)):
        instrument = MicroscopePair(SUPERLENS, side, 1, seed, index)
        margin = (surface.material.shape[0] - _FINE * side) // 2
        before = instrument.simulate_images(surface, 0.0)
        places: DiscPositions | None = None
        groups: list[list[BoolArray]]
        if look.phantom == "circuit":
            rng = instrument.create_rng(0)
            original = _restore_grey_scale(before.high, before.high_range)
            places = DiscPositions.choose(
                original, (_AT_ONCE, _AT_ONCE), rng, _RADII_PX
            )
            other = _change_surface(surface, places, instrument, rng)
        else:
            other, groups = _change_parts(surface, look, margin + _PART_MARGIN, index)
        pairs = before, instrument.simulate_images(other, 0.0)
        truths = tuple(_restore_grey_scale(one.high, one.high_range) for one in pairs)
        if places is not None:
            places = DiscTrial.from_truths(*truths, places).places
            groups = [
                [_draw_disc(one, radius, surface, margin) for one, radius in discs]
                for discs in (places.erased_discs, places.inserted_discs)
            ]
        clean = [_restore_grey_scale(one.noiseless, one.low_range) for one in pairs]
        low = _restore_grey_scale(before.low, before.low_range)
        noise, sites = float(np.std(low - clean[0])), list[Site]()
        for present, masks in enumerate(groups):
            for mask in masks:
                pixels = mask[margin:-margin, margin:-margin][::_FINE, ::_FINE]
                ys, xs = np.nonzero(pixels)
                wide, box = (
                    tuple(slice(max(0, v.min() - n), v.max() + n + 1) for v in (ys, xs))
                    for n in (12, 4 if places is None else 8)
                )
                seen = (clean[0] - clean[1])[wide]
                weights = change = (truths[present] - truths[1 - present])[box]
                if places is not None:  # as `Discs.measure_contrast` does
                    away = ndimage.distance_transform_edt(~pixels[box])
                    ring = (away > 1) & (away <= np.sqrt(len(ys) / np.pi) + 1)
                    weights = pixels[box] / len(ys) - ring / ring.sum()
                    seen = (clean[0] - clean[1])[box][pixels[box] | ring]  # its own
                shows = bool(np.linalg.norm(seen) >= TELLS_SD * noise)
                sites.append(Site(box, pixels, change, weights, present, shows))
        lights = [
            Micrograph(
                _restore_grey_scale(one.low, one.low_range).astype(np.float32),
                parse_pixel_size(one.pixel_nm),
                "light",
            )
            for one in pairs
        ]
        yield ChangedField((lights[0], lights[1]), (truths[0], truths[1]), sites)


def _draw_disc(
    centre: FloatArray, radius: float, surface: Specimen, margin: int
) -> BoolArray:
    """Draw a disc of the optical grid on that of its specimen."""
    y, x = ((np.arange(n) - margin + 0.5) / _FINE - 0.5 for n in surface.material.shape)
    return np.hypot(y[:, None] - centre[0], x - centre[1]) <= radius


def _change_parts(
    surface: Specimen, look: PhantomOptions, margin: int, index: int
) -> tuple[Specimen, list[list[BoolArray]]]:
    """Remove objects that are apart, and insert copies of others on free ground."""
    rng = np.random.default_rng([5, index])
    planes = [surface.height_nm.copy(), surface.material.copy()]
    share = planes[1]
    if look.phantom == "pits":
        share = 1 - surface.height_nm / surface.height_nm.max()
    apart = int(_PARTS_APART_NM / surface.pixel_nm)
    free, groups = np.ones(share.shape, bool), [list[BoolArray](), list[BoolArray]()]

    def take(part: BoolArray, group: int) -> bool:
        ys, xs = np.nonzero(part)
        around = tuple(
            slice(max(0, v.min() - apart), v.max() + apart) for v in (ys, xs)
        )
        if len(groups[group]) == _PARTS or not free[around].all():
            return False
        free[around] = False
        groups[group].append(part)
        return True

    inside = np.zeros_like(free)
    inside[margin:-margin, margin:-margin] = True
    ground = share <= _GROUND
    for part in _iterate_parts(share > _HALF, look, margin, rng):
        if len(groups[0]) < _PARTS:
            take(part, 0)
        elif look.phantom in ("particles", "pits") and len(groups[1]) < _PARTS:
            [box] = ndimage.find_objects(part.astype(np.uint8))
            stamp = part[box].astype(float)
            blocked = signal.fftconvolve(~ground | ~free, stamp[::-1, ::-1], "valid")
            corners = np.argwhere(
                (blocked < _HALF) & inside[: len(blocked), : blocked.shape[1]]
            )
            if not len(corners):
                continue
            corner = corners[rng.integers(len(corners))]
            copy = np.zeros_like(part)
            target = tuple(
                slice(c, c + n) for c, n in zip(corner, stamp.shape, strict=True)
            )
            copy[target] = part[box]
            if not copy[~inside].any() and take(copy, 1):
                for plane, source in zip(
                    planes, (surface.height_nm, surface.material), strict=True
                ):
                    plane[copy] = source[part]
        else:
            break
    gone = np.any(groups[0], axis=0)
    nearest = ndimage.distance_transform_edt(
        gone | ~ground, return_distances=False, return_indices=True
    )
    height, material = (
        np.where(gone, plane[tuple(nearest)], plane).astype(np.float32)
        for plane in planes
    )
    return replace(surface, height_nm=height, material=material), groups


def _iterate_parts(
    solid: BoolArray, look: PhantomOptions, margin: int, rng: np.random.Generator
) -> Iterator[BoolArray]:
    """Yield single objects, or pieces of lines, in random order."""
    pixel_nm = SsumPairOptions().pixel_nm / _FINE
    inside = range(margin, solid.shape[0] - margin)
    if look.phantom != "grating":
        labels, count = ndimage.label(solid)
        sizes, boxes = np.bincount(labels.ravel())[1:], ndimage.find_objects(labels)
        for number in rng.permutation(count):
            ends = [end for one in boxes[number] for end in (one.start, one.stop - 1)]
            usual = abs(sizes[number] / np.median(sizes) - 1) < _HALF  # no clusters
            if usual and all(end in inside for end in ends):
                yield ndimage.binary_dilation(labels == number + 1, iterations=2)
        return
    y, x = np.nonzero(solid)
    down = int(_GAP_NM / 2 / pixel_nm)
    across = int((look.pitch_nm or 0) / 2 / pixel_nm)
    for one in rng.permutation(len(y)):
        if y[one] in inside[1:] and x[one] in inside[1:]:
            window = np.zeros_like(solid)
            rows = slice(y[one] - down, y[one] + down)
            window[rows, max(0, x[one] - across) : x[one] + across] = True
            labels, _ = ndimage.label(solid & window)
            piece = labels == labels[y[one], x[one]]
            yield ndimage.binary_dilation(piece, iterations=2, mask=window)


def _count_objects(
    shown_there: BoolArray, drawn_there: BoolArray, which: BoolArray
) -> RemovalCount:
    return RemovalCount(
        objects=int(which.sum()),
        shown=int((shown_there & which).sum()),
        drawn=int((drawn_there & which).sum()),
    )


def _enlarge_image(image: RealArray, scale: int) -> FloatArray:
    """Resample an optical image to the SEM image grid by cubic splines."""
    plane = np.asarray(image, np.float64)
    if scale == 1:
        return plane
    return np.asarray(
        ndimage.zoom(plane, scale, order=3, mode="nearest", grid_mode=True)
    )


@dataclass(frozen=True, slots=True)
class MicroscopePair:
    """Optical microscope and SEM for one simulated sample, with repeatable noise."""

    optics: MicroscopeOptions
    side: int
    scale: int
    seed: int
    index: int  # of the field

    def create_rng(self, purpose: int) -> np.random.Generator:
        """Create a random generator for this sample and a given purpose."""
        return np.random.default_rng([self.seed, self.index, purpose, _STREAM])

    def simulate_images(
        self, surface: Specimen, focus_nm: float | None = None
    ) -> SsumPair:
        """Simulate an optical and an SEM image of a sample, by default in focus."""
        if focus_nm is None:
            focus_nm = float(np.median(surface.height_nm))
        optics = self.optics.replace(focus_nm=focus_nm)
        look = ImagingSettings(optics, correlation_px=0.3, bits=12)
        return simulate_ssum_pair(
            surface, self.side, look, self.create_rng(1), scale=self.scale
        )


@dataclass(frozen=True, slots=True)
class ChangedSample:
    """Sample imaged before and after objects are inserted and removed."""

    pairs: tuple[SsumPair, SsumPair]  # before, after
    truths: tuple[FloatArray, FloatArray]  # their SEM images on one grey scale
    inserted_discs: Discs  # present in the second state
    erased_discs: Discs  # present in the first state

    @classmethod
    def create(
        cls, surface: Specimen, instrument: MicroscopePair, counts: tuple[int, int]
    ) -> "ChangedSample":
        """Change a sample, image both states, and discard ambiguous objects."""
        rng, focus = instrument.create_rng(0), float(np.median(surface.height_nm))
        before = instrument.simulate_images(surface, focus)
        original = _restore_grey_scale(before.high, before.high_range)
        places = DiscPositions.choose(original, counts, rng, _RADII_PX)
        after = instrument.simulate_images(
            _change_surface(surface, places, instrument, rng), focus
        )
        truths = original, _restore_grey_scale(after.high, after.high_range)
        kept_places = DiscTrial.from_truths(*truths, places).places
        return cls(
            (before, after),
            truths,
            kept_places.inserted_discs,
            kept_places.erased_discs,
        )

    def find_shown_objects(self, call: EnhanceCall) -> tuple[BoolArray, BoolArray]:
        """Find the objects an image shows when present, and when removed (N,)."""
        images = []
        for pair, truth in zip(self.pairs, self.truths, strict=True):
            light = Micrograph(pair.low, parse_pixel_size(pair.pixel_nm), "light")
            image = np.asarray(call(light), np.float64)
            images.append(compute_matching_gain(image, truth) * image)
        shown_there, drawn_there = [], []
        for discs, there in ((self.inserted_discs, 1), (self.erased_discs, 0)):
            true_contrast = discs.measure_contrast(self.truths[there])
            shown_there.append(
                discs.measure_contrast(images[there]) / true_contrast >= _HALF
            )
            drawn_there.append(
                discs.measure_contrast(images[1 - there]) / true_contrast >= _HALF
            )
        return np.concatenate(shown_there), np.concatenate(drawn_there)

    def measure_optical_change(self) -> FloatArray:
        """Measure how much each object changes the optical image, relative to noise."""
        scale = self.pairs[0].scale
        clean, noisy = (
            [
                _restore_grey_scale(getattr(pair, name), pair.low_range)
                for pair in self.pairs
            ]
            for name in ("noiseless", "low")
        )
        change = (clean[1] - clean[0]) ** 2
        noise = (noisy[0] - clean[0]) ** 2
        changes = []
        for discs in (self.inserted_discs, self.erased_discs):
            own = discs.to_grid(1 / scale)
            square = own.sum_pixels(noise) / own.sum_pixels(np.ones_like(noise))
            changes.append(np.sqrt(own.sum_pixels(change) / square))
        return np.concatenate(changes)


def _restore_grey_scale(image: RealArray, ends: tuple[float, float]) -> FloatArray:
    """Undo the scaling of grey-value percentiles to 0 and 1."""
    low, high = ends
    return np.asarray(image, np.float64) * (high - low) + low


def _change_surface(
    surface: Specimen,
    places: DiscPositions,
    instrument: MicroscopePair,
    rng: np.random.Generator,
) -> Specimen:
    """Insert discs into the height and material maps of a sample, and erase others.

    Inserted discs have half the local relief, up or down, and half of the other
    material.
    """
    factor = _FINE // instrument.scale
    margin = (surface.height_nm.shape[0] - _FINE * instrument.side) // 2
    inserted_discs, erased_discs = (
        discs.to_grid(factor, margin)
        for discs in (places.inserted_discs, places.erased_discs)
    )
    height, material = (
        erased_discs.erase_from(plane.astype(np.float64))
        for plane in (surface.height_nm, surface.material)
    )
    coarse = tuple((inserted_discs.centres / factor).astype(int).T)
    relief = measure_local_contrast(height[::factor, ::factor])[coarse]
    rise = _HALF * np.maximum(relief, _MIN_RELIEF_NM)
    up = (rng.random(len(inserted_discs)) < _HALF) | (
        height[inserted_discs.pixel_indices] < rise
    )
    own = material[inserted_discs.pixel_indices]
    towards = _HALF * (np.where(own < _HALF, 1.0, 0.0) - own)
    new_material = np.clip(inserted_discs.insert_into(material, towards), 0, 1)
    height = inserted_discs.insert_into(height, np.where(up, rise, -rise))
    return replace(
        surface,
        height_nm=height.astype(np.float32),
        material=new_material.astype(np.float32),
    )
