"""Error maps: where an image that is to be sharper does not agree with its reference.

SQUIRREL [1]_ asks whether an enhanced image E, blurred as the microscope blurs, is the
reference again: a (E * G(s)) + b. Blur and grey levels are fitted, and what is left is
mapped. Over all pixels its root mean square is the resolution-scaled error (RSE), and
Pearson's r of both sides the resolution-scaled correlation (RSP).

For each width s the best a and b are those of a line, so that s alone is searched. A
Gaussian of an image that is reflected at its border is a product of cosine transforms:
two transforms of a block serve all s, and each costs one look at their coefficients.
Where the enhanced image is finer, it is blurred on its own pixels and averaged over
those of the reference, which in coefficients is folding: no data are interpolated.

.. [1] S. Culley et al., Nat. Methods 15, 263 (2018), doi:10.1038/nmeth.4605.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Literal, Self

import numpy as np
import scipy  # the rest of it is loaded when it is used
from pydantic import model_validator
from scipy import fft, ndimage

from napari_semsr.analysis.change import block_means, spread_boxes
from napari_semsr.core import (
    Area,
    Box,
    Float32Array,
    FloatArray,
    FloatPair,
    Grid,
    IntPair,
    Job,
    Micrograph,
    Options,
    Progress,
    ShapeError,
    available_cores,
    gap_free_box,
    mean_pitch,
    option,
    warn,
)

_WHOLE = 2048  # longest side that is fitted as a whole; chosen: 0.3 GB
_SIDE = 1024  # of the blocks that stand for a larger field; chosen: 2 s
_FITTED = 8  # of them, evenly spread; chosen
_LEAST = 16  # side of a part without gaps that can tell a blur; chosen
_PART = 1024  # pixels along each side of what is mapped at once; chosen: 0.1 GB
_COUNTED = 1 << 18  # pixels that are counted at once; chosen: 10 MB
_REACH = 4.0  # standard deviations at which a Gaussian ends, as scipy's do
_WIDEST_PX = 16.0  # of the reference: the largest sigma; chosen, a blur of 38 px
_STEPS = 12  # of sigma that are looked at before the best is refined; chosen
_FINEST_PX = 0.25  # the first of them above 0; chosen: less changes nothing
_CLOSE_PX = 1e-3  # to which sigma is refined; chosen
_FLAT = 1e-12  # of the mean square: a variance that is rounding alone
_COARSER = 1.25  # from here on an enhanced image has larger pixels, not the same
_LEAST_KNOWN = 0.5  # weight of known pixels under a Gaussian; chosen
_SEARCH = {False: 8, True: 16}  # px, of an enhanced image and of two scans; chosen
_TELLS_NOISE = 8  # px, side of the smallest window whose noise is known to 20 %; chosen


class ErrorMapOptions(Options):
    """How an error map is made, or how two scans of one place are compared."""

    scans: bool = option(
        False,
        "Compare",
        "Both images are scans of one place, taken alike, and neither is the truth: by "
        "how much they differ, and how much of it is noise.",
        choices={"with its reference": False, "two scans": True},
    )
    part: Literal["all", "rest"] = option(
        "all",
        "Map of",
        "Of the differences of two scans that is mapped: all, or what white noise does "
        "not explain (drift, charging, contamination, distortion).",
        choices={"all differences": "all", "what is not noise": "rest"},
        when={"scans": (True,)},
    )
    window: int = option(
        32,
        "Window",
        "Side of the window in px over which the root mean square of two scans' "
        "differences is taken; 1 maps each pixel's own difference.",
        unit="px",
        when={"scans": (True,)},
        ge=1,
        le=512,
    )
    unit: Literal["grey", "percent"] = option(
        "grey",
        "Map in",
        "Of the map: grey levels of the reference or the first scan, or per cent of "
        "their range (0.1 to 99.9 %).",
        choices={"grey levels": "grey", "per cent of the range": "percent"},
    )
    align: bool = option(
        True,
        "Find the shift first",
        "Find by what part of a pixel the second image lies off, and move it, of two "
        "scans both to the middle.",
    )
    search: int | None = option(
        None,
        "Search",
        "Largest shift that is looked for, in pixels of the reference; 8 if not given, "
        "of two scans 16.",
        unit="px",
        when={"align": (True,)},
        ge=1,
        le=512,
    )

    @property
    def search_px(self) -> int:
        """Largest shift that is looked for."""
        return self.search or _SEARCH[self.scans]

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.part == "rest" and self.window < _TELLS_NOISE:
            msg = (
                f"window must be {_TELLS_NOISE} px or more to tell noise from the "
                f"rest, got {self.window}; choose a larger one, or map all."
            )
            raise ValueError(msg)
        return self


@dataclass(frozen=True, slots=True)
class ErrorFit:
    """What makes a reference of an enhanced image."""

    alpha: float  # gain and offset of its grey levels
    beta: float
    # standard deviation of the Gaussian, in pixels of the enhanced image as it was laid
    # over the reference, of oblong ones in their geometric mean
    sigma_px: float
    # root mean square of what was left in the fit, grey levels of the reference
    residual: float
    # part of the pixels that were fitted: 1 unless the field is large or has gaps
    looked_at: float
    widest: bool  # whether the search ended at its largest sigma

    def warn_of_doubt(self, reference: str, enhanced: str) -> None:
        """Warn if it says that the images, by name, do not belong together."""
        if self.widest:
            warn(
                f"The blur between {enhanced} and {reference} reaches the largest that "
                f"is looked for ({self.sigma_px:.3g} px), so they may not show the "
                "same place, or shading differs; the error map counts that as error.",
                "blur-too-wide",
            )
        if self.alpha <= 0:
            warn(
                f"The grey levels of {enhanced} run against those of {reference} "
                f"(gain {self.alpha:.3g}): invert one of them, or take another "
                "reference.",
                "contrast-inverted",
            )


@dataclass(frozen=True, slots=True)
class ErrorPair:
    """A reference, and an enhanced image laid over it."""

    reference: Area  # its part that both show
    enhanced: Area  # the same area in pixels that are `factor` times finer
    factor: int  # pixels of the enhanced image along a side of one of the reference

    @classmethod
    def of(
        cls,
        reference: Micrograph,
        enhanced: Micrograph,
        shift_px: FloatPair = (0.0, 0.0),
    ) -> Self:
        """Lay an enhanced image over a reference; nothing is read yet.

        The enhanced one has the same pixels or finer ones, and is moved by `shift_px`,
        in pixels of the reference.
        """
        grid, lies = Grid.of(reference), _place_over(reference, enhanced)
        ratio = [a / b for a, b in zip(grid.pitch, lies.pitch, strict=True)]
        if min(ratio) * _COARSER < 1:
            msg = (
                "The enhanced image must have the reference's pixels or finer ones, "
                f"got {enhanced.name} with pixels {1 / min(ratio):.3g} times as large; "
                "name the reference first."
            )
            raise ShapeError(msg, code="reference-finer")
        down, right = (s * p for s, p in zip(shift_px, grid.pitch, strict=True))
        lies = lies.moved((down, right))
        box = grid.covered_by(lies)
        if box is None:
            msg = (
                f"{enhanced.name} and {reference.name} do not overlap; check their "
                "origins and pixel sizes, or register them (`register()`)."
            )
            raise ShapeError(msg, code="no-overlap")
        factor = max(1, round(math.sqrt(ratio[0] * ratio[1])))
        area = Area.of(reference, grid).part(box)
        y, x = (pitch / factor for pitch in grid.pitch)
        fine = Grid(box.scaled(factor).shape, (y, x), area.grid.corner)
        return cls(area, Area.of(enhanced, fine, lies), factor)

    @property
    def shape(self) -> IntPair:
        """Rows and columns of the map."""
        return self.reference.grid.shape

    def along_axes(self, sigma_px: float) -> FloatPair:
        """Give standard deviations (y, x), px, of a Gaussian that is round in nm."""
        y, x = mean_pitch(self.enhanced.grid.pitch)
        return sigma_px / y, sigma_px / x

    def read(self, box: Box) -> tuple[FloatArray, FloatArray]:
        """Read a part of both, in pixels of the reference's part.

        Each comes on its own pixels: the enhanced image is `factor` times finer.
        """
        fixed = self.reference.read(box).astype(np.float64)
        fine = self.enhanced.read(box.scaled(self.factor))
        return fixed, fine.astype(np.float64)


def _place_over(reference: Micrograph, enhanced: Micrograph) -> Grid:
    """Lay an enhanced image, perhaps without a pixel size, over a reference."""
    grid, lies = Grid.of(reference), Grid.of(enhanced)
    ratio = [a / b for a, b in zip(lies.shape, grid.shape, strict=True)]
    whole = ratio[0] if ratio[0] == ratio[1] and ratio[0] == int(ratio[0]) else None
    known = reference.unit == enhanced.unit
    alike = known and np.allclose(lies.pitch, grid.pitch, rtol=1e-3)
    placed = reference.origin != (0.0, 0.0) or enhanced.origin != (0.0, 0.0)
    if whole and (not known or (alike and whole > 1 and not placed)):
        if reference.unit != "pixel" and known:
            warn(
                f"{enhanced.name} is taken as {whole:g} times finer than "
                f"{reference.name}, by its shape, though both state one pixel size: if "
                "it is a larger field, state its origin, or crop it.",
                "pixel-size-contradicts",
            )
        y, x = (pitch / whole for pitch in grid.pitch)
        return Grid(lies.shape, (y, x), grid.corner)
    if not known or (alike and reference.unit == "pixel" and whole is None):
        said = (f"{shape[0]}x{shape[1]} px" for shape in (grid.shape, lies.shape))
        msg = (
            "Images without pixel sizes must have one shape, or the enhanced one a "
            f"whole multiple of it, got {' and '.join(said)}; give pixel sizes, or "
            "bring them onto one grid (`crop()`, `register()`)."
        )
        raise ShapeError(msg, code="sizes-differ")
    return lies if placed else Grid(lies.shape, lies.pitch, grid.corner)


@dataclass(frozen=True, slots=True)
class _Block:
    """Cosine coefficients of a block, and what does not depend on the blur."""

    # (Y, X) Of the reference where the enhanced image is finer; else their product with
    # those of the enhanced image
    coefficients: FloatArray
    # (factor Y, factor X) Of the enhanced image where that is finer; else their squares
    enhanced: FloatArray
    means: FloatPair  # coefficients of the zero frequency of both
    square: float  # sum of the reference's squares

    @classmethod
    def of(cls, reference: FloatArray, enhanced: FloatArray) -> Self:
        """Transform a block that has no gap."""
        cores = available_cores()
        first, second = (
            fft.dctn(part, norm="ortho", workers=cores)
            for part in (reference, enhanced)
        )
        means, square = (first[0, 0], second[0, 0]), float(np.vdot(first, first))
        if first.shape == second.shape:
            first *= second
            second *= second
        return cls(first, second, means, square)

    def moments(
        self,
        gains: Callable[[int, float], FloatArray],
        sigmas: FloatPair,
        factor: int,
    ) -> FloatArray:
        """Give sums over the pixels of 1, r, p, r², p², rp; p is the blurred image."""
        rows, columns = map(gains, self.enhanced.shape, sigmas)
        count = self.coefficients.size
        mean = self.means[1] * rows[0] * columns[0]
        if factor == 1:
            power = float(rows**2 @ (self.enhanced @ columns**2))
            product = float(rows @ (self.coefficients @ columns))
        else:
            made = self.enhanced * rows[:, None]
            made *= columns
            made = _folded(_folded(made, factor).T, factor).T
            mean, power = made[0, 0], float(np.vdot(made, made))
            product = float(np.vdot(self.coefficients, made))
        sums = self.means[0] * math.sqrt(count), mean * math.sqrt(count)
        return np.array([count, *sums, self.square, power, product])


def _folded(coefficients: FloatArray, factor: int) -> FloatArray:
    """Keep every so many samples: fold cosine coefficients along the first axis."""
    size = coefficients.shape[0] // factor
    made = coefficients[:size].copy()
    for number in range(1, factor):
        part = coefficients[number * size : (number + 1) * size]
        turn = -1.0 if (number + 1) // 2 % 2 else 1.0
        if number % 2:
            made[1:] += turn * part[:0:-1]
        else:
            made[1:] += turn * part[1:]
            made[0] += turn * math.sqrt(2) * part[0]
    return made


def _gain(size: int, sigma: float, factor: int) -> FloatArray:
    """Give what a Gaussian, and the mean of `factor` samples, leave of each cosine."""
    wave = np.pi * np.arange(size) / size
    reach = int(_REACH * sigma + 0.5)
    made = np.ones(size)
    if reach:
        places = np.arange(1, reach + 1)
        weights = np.exp(-0.5 * (places / sigma) ** 2)
        waves: FloatArray = np.cos(wave[:, None] * places) @ weights
        made = (1 + 2 * waves) / (1 + 2 * weights.sum())
    if factor > 1:
        offsets = np.arange(factor) - (factor - 1) / 2
        made *= np.cos(wave[:, None] * offsets).mean(axis=1) / math.sqrt(factor)
    return made


def _line(moments: FloatArray) -> tuple[float, float, float]:
    """Best gain and offset, and the mean square that they leave."""
    count, first, second, squares, powers, product = moments
    spread = powers / count - (second / count) ** 2
    shared = product / count - first * second / count**2
    whole = squares / count - (first / count) ** 2
    if spread <= _FLAT * max(powers / count, np.finfo(np.float64).tiny):
        return 0.0, first / count, whole
    gain = shared / spread
    return gain, (first - gain * second) / count, max(0.0, whole - gain * shared)


def fit_error(pair: ErrorPair) -> Job[ErrorFit]:
    """Fit blur, gain and offset that make a reference of an enhanced image.

    Images of up to 2048 px are fitted as a whole, of larger ones eight blocks of 1024
    px that lie evenly; of what has gaps the largest parts without.
    """
    whole = Box.of(pair.shape)
    boxes = [whole]
    if max(pair.shape) * pair.factor > _WHOLE:
        boxes = spread_boxes(whole, _FITTED, max(_LEAST, _SIDE // pair.factor))
    blocks: list[_Block] = []
    for number, box in enumerate(boxes):
        yield Progress(number, len(boxes), "fitting blur and grey levels")
        both = _gap_free(*pair.read(box), pair.factor)
        if both is not None:
            blocks.append(_Block.of(*both))
    if not blocks:
        msg = (
            f"An error map needs {_LEAST}x{_LEAST} px or more without a gap that both "
            f"images show, found none in {pair.reference.image.name} and "
            f"{pair.enhanced.image.name}."
        )
        raise ShapeError(msg, code="nothing-to-measure")

    def moments(sigma: float) -> FloatArray:
        gains = cache(partial(_gain, factor=pair.factor))
        sigmas = pair.along_axes(sigma)
        made = [block.moments(gains, sigmas, pair.factor) for block in blocks]
        return np.asarray(np.sum(made, axis=0))

    unblurred = moments(0.0)
    _refuse_constant(pair, unblurred)
    widest = _WIDEST_PX * pair.factor
    steps = np.geomspace(_FINEST_PX, widest, _STEPS - 1)
    places = np.concatenate([[0.0], steps])
    left = [_line(moments(float(sigma)))[2] for sigma in places]
    best = int(np.argmin(left))
    found = scipy.optimize.minimize_scalar(
        lambda sigma: _line(moments(sigma))[2],
        bounds=(places[max(0, best - 1)], places[min(best + 1, len(places) - 1)]),
        method="bounded",
        options={"xatol": _CLOSE_PX},
    )
    sigma = float(found.x if found.fun < left[best] else places[best])
    # differences that are rounding alone depend on the processor and show no blur
    rounding = _FLAT * unblurred[3] / unblurred[0]
    if left[0] <= min(found.fun, left[best]) + rounding:
        sigma = 0.0
    total = moments(sigma)
    gain, offset, rest = _line(total)
    return ErrorFit(
        alpha=float(gain),
        beta=float(offset),
        sigma_px=sigma,
        residual=math.sqrt(rest),
        looked_at=float(total[0]) / (pair.shape[0] * pair.shape[1]),
        widest=sigma > widest - 2 * _CLOSE_PX,
    )


def _gap_free(
    reference: FloatArray, enhanced: FloatArray, factor: int
) -> tuple[FloatArray, FloatArray] | None:
    """Cut a block to its largest part in which both images have grey values."""
    known = np.isfinite(reference) & (block_means(np.isfinite(enhanced), factor) == 1)
    box: Box | None = Box.of(known.shape)
    if not known.all():
        box = gap_free_box(known, least=_LEAST)
    if box is None or min(box.shape) < _LEAST:
        return None
    return reference[box.slices], enhanced[box.scaled(factor).slices]


def _refuse_constant(pair: ErrorPair, moments: FloatArray) -> None:
    """Refuse an image without contrast, which fits anything or nothing."""
    count, first, second, squares, powers, _ = moments
    for area, total, square in (
        (pair.reference, first, squares),
        (pair.enhanced, second, powers),
    ):
        if square / count - (total / count) ** 2 <= _FLAT * square / count:
            msg = (
                f"An error map needs contrast, but {area.image.name} is constant "
                "where both images lie; choose another image."
            )
            raise ShapeError(msg, code="image-blank")


@dataclass
class ErrorTally:
    """Sums over the pixels that were compared, from which RSE and RSP come."""

    level: float  # near the mean, so that squares lose no digits
    _sums: FloatArray = field(default_factory=lambda: np.zeros(6))

    def add(self, fixed: Float32Array, made: Float32Array) -> None:
        """Count the pixels that are known in both: reference, and what should be it."""
        step = max(1, _COUNTED // fixed.shape[1])
        for row in range(0, fixed.shape[0], step):  # little is held in double precision
            both = fixed[row : row + step], made[row : row + step]
            known = np.isfinite(both[0]) & np.isfinite(both[1])
            first, second = (
                part[known].astype(np.float64) - self.level for part in both
            )
            sums = first.size, first.sum(), second.sum()
            rest = first - second
            self._sums += [*sums, first @ first, second @ second, rest @ rest]

    @property
    def pixels(self) -> int:
        """How many were compared."""
        return int(self._sums[0])

    @property
    def rse(self) -> float:
        """Root mean square difference, grey levels of the reference."""
        return math.sqrt(self._sums[5] / self._sums[0])

    @property
    def rsp(self) -> float:
        """Pearson's r."""
        count, first, second, squares, powers, rest = self._sums
        shared = (squares + powers - rest) / 2 - first * second / count
        spread = (squares - first**2 / count) * (powers - second**2 / count)
        return float(shared / math.sqrt(spread)) if spread > 0 else 0.0


@dataclass(frozen=True, slots=True)
class ErrorField:
    """A pair with its fit, read part by part."""

    pair: ErrorPair
    fit: ErrorFit  # how the one becomes the other

    def read(self, box: Box) -> tuple[Float32Array, Float32Array]:
        """Compute a part of the map, of any size: the reference, and what should be it.

        The second is the enhanced image, blurred and scaled; NaN where unknown.
        """
        fixed = self.pair.reference.read(box).astype(np.float32)
        made = np.empty(box.shape, np.float32)
        for part in spread_boxes(box, None, _PART):
            made[part.within(box).slices] = self._made(part)
        return fixed, made

    def _made(self, box: Box) -> Float32Array:
        """Blur and scale a part, which borders of the field reflect."""
        factor, sigmas = self.pair.factor, self.pair.along_axes(self.fit.sigma_px)
        reach = math.ceil(int(_REACH * max(sigmas) + 0.5) / factor)
        window = box.grow(reach).intersection(Box.of(self.pair.shape))
        fine = self.pair.enhanced.read(window.scaled(factor)).astype(np.float32)
        inner = box.within(window).scaled(factor).slices
        known = np.isfinite(fine)
        if known.all():
            blurred = _blurred(fine, sigmas)
        else:  # what is known, by its share of the weights; gaps stay gaps
            blurred = _blurred(np.where(known, fine, 0.0), sigmas)
            weight = _blurred(known.astype(np.float32), sigmas)
            blurred /= np.maximum(weight, _LEAST_KNOWN)
            blurred[~known | (weight < _LEAST_KNOWN)] = np.nan
        made = block_means(blurred[inner], factor)
        return np.asarray(self.fit.alpha * made + self.fit.beta, np.float32)


def _blurred(image: Float32Array, sigmas: FloatPair) -> Float32Array:
    """Blur by a Gaussian, reflected at the border."""
    return np.asarray(ndimage.gaussian_filter(image, sigmas, truncate=_REACH))
