"""Registration of two images: search, refinement, elastic fit, and evaluation."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal, TypeVar, cast

import numpy as np
from scipy import fft, ndimage

from napari_semsr import core
from napari_semsr.registration import quality, refine
from napari_semsr.registration.elastic import ElasticFit, fit_elastic
from napari_semsr.registration.landmarks import Landmarks, fit_landmarks

# Global search: position, rotation and scale of one image relative to another.
#
# The moving image is rotated, scaled and mirrored in steps; for each, one correlation
# of the orientation fields gives the score of every shift [1]_. A score is in standard
# deviations of chance: the correlation over its standard deviation for unrelated fields
# with this overlap, over the robust standard deviation of all scores. Small images are
# searched first; finer ones only if no candidate stands out.
#
# .. [1] J. Öfverstedt, J. Lindblad, N. Sladoje, arXiv:2110.10156.


_LOST_PX = 2.0  # largest movement of the corners by a step: the width of a line
_RADIUS = 0.35  # of the side: half of the mean distance from the centre, doubled


@dataclass(frozen=True, slots=True)
class SearchRanges:
    """Search ranges of rotation and scale."""

    turn_degrees: float  # in both directions; 180 for all
    stretch: float  # largest relative change of scale
    with_mirror: bool = False  # whether to try mirrored images as well

    def list_steps(self, side: int) -> list[tuple[float, float, bool]]:
        """Return rotations, scales and mirror flags for images of `side` pixels."""
        step = _LOST_PX / (_RADIUS * side)
        if self.turn_degrees >= 180:
            count = int(np.ceil(2 * np.pi / step))
            turns = np.arange(count) * 360 / count - 180
        else:
            turns = _create_search_values(self.turn_degrees, np.degrees(step))
        scales = np.exp(_create_search_values(np.log1p(self.stretch), step))
        mirrors = (False, True) if self.with_mirror else (False,)
        return list(itertools.product(turns, scales, mirrors))

    def list_nearby_steps(
        self, places: "Sequence[TransformCandidate]", side: int
    ) -> list[tuple[float, float, bool]]:
        """Return rotations, scales and mirror flags near candidates at `side` px."""
        step = _LOST_PX / (_RADIUS * side)
        steps_tried = {
            (
                round(place.affine.degrees / np.degrees(step)) + turn,
                round(np.log(place.affine.scale) / step) + stretch,
                place.affine.is_mirrored,
            )
            for place in places
            for turn, stretch in itertools.product((-1, 0, 1), repeat=2)
        }
        return [
            (turn * float(np.degrees(step)), float(np.exp(stretch * step)), is_mirrored)
            for turn, stretch, is_mirrored in sorted(steps_tried)
        ]


def _create_search_values(reach: float, step: float) -> core.FloatArray:
    """Return values from -reach to reach in steps of at most `step`."""
    count = int(np.ceil(reach / step))
    return np.linspace(-reach, reach, 2 * count + 1)


@dataclass(frozen=True, slots=True)
class TransformCandidate:
    """Candidate transform found by a search."""

    score: float  # standard deviations of chance
    affine: core.Affine  # from the moving image to the fixed one


class CorrelationSearch:
    """Correlation search of an image pair at one pixel size."""

    def __init__(
        self, moving: core.Micrograph, fixed: core.Micrograph, pitch_nm: float
    ) -> None:
        self.pitch = pitch_nm
        self._fixed_image = refine.resample_to_pitch(fixed, pitch_nm)
        self._moving = refine.resample_to_pitch(moving, pitch_nm)
        self._field = _subtract_mean(
            refine.compute_orientations(self._fixed_image.data, refine.SEARCH_WIDTH_PX)
        )
        sides = (np.array(self._moving.shape) - 1) / 2 * pitch_nm
        self._centre = np.array(self._moving.origin) + sides

    def run(
        self, steps_tried: Sequence[tuple[float, float, bool]], keep: int
    ) -> core.Job[list[TransformCandidate]]:
        """Try rotations, scales and mirroring; return the candidates, best first."""
        if not (steps_tried and self._field.any()):
            return []
        largest = max(scale for _, scale, _ in steps_tried)
        side = int(np.ceil(np.hypot(*self._moving.shape) * largest)) + 2
        shape = [fft.next_fast_len(n + side - 1) for n in self._fixed_image.shape]
        spectra = _compute_spectra(self._field, shape)
        places_found, chance = [], []
        # a mirrored image at one angle shows the reflected field at the opposite angle
        order = sorted(steps_tried, key=_get_unmirrored_step)
        unmirrored_step, plain_field = None, self._field
        for number, step in enumerate(order):
            yield core.Progress(number, len(order), "searching")
            if _get_unmirrored_step(step) != unmirrored_step:
                unmirrored_step = _get_unmirrored_step(step)
                turn = -step[0] if step[2] else step[0]
                affine = self._rotate_about_centre(turn, step[1])
                plain_field = self._compute_field(affine, side)
            affine = self._rotate_about_centre(*step)
            field = np.conj(plain_field[:, ::-1]) if step[2] else plain_field
            score_map = self._score_shifts(field, shape, spectra)
            if score_map is None:
                continue
            scores, enough = score_map
            chance.append(float(np.median(np.abs(scores[enough]))))
            at = np.array(np.unravel_index(int(scores.argmax()), scores.shape))
            shift = _unwrap_shifts(at, shape, side)
            places_found.append((float(scores.max()), affine, shift))
        sigma = 1.4826 * float(np.median(chance)) if chance else 1.0
        places_found.sort(key=lambda item: -item[0])
        return [
            TransformCandidate(
                score / max(sigma, 1e-12), self._create_transform(affine, at, side)
            )
            for score, affine, at in places_found[:keep]
        ]

    def find_rivals(self, affine: core.Affine, keep: int) -> list[TransformCandidate]:
        """Find other high-scoring shifts at the same rotation and scale."""
        shift = np.array(affine.shift) - affine(self._centre)
        centred_map = core.Affine.from_matrix(affine.linear, shift)
        side = int(np.ceil(np.hypot(*self._moving.shape) * affine.scale)) + 4
        shape = [fft.next_fast_len(n + side - 1) for n in self._fixed_image.shape]
        spectra = _compute_spectra(self._field, shape)
        field = self._compute_field(centred_map, side)
        score_map = self._score_shifts(field, shape, spectra)
        if score_map is None:
            return []
        scores, _ = score_map
        # peaks are narrower than 9 px
        peaks = scores == ndimage.maximum_filter(scores, 9, mode="wrap")
        places = np.argwhere(peaks & (scores > 0))
        heights = scores[tuple(places.T)]
        return [
            TransformCandidate(
                float(heights[k]),
                self._create_transform(
                    centred_map, _unwrap_shifts(places[k], shape, side), side
                ),
            )
            for k in np.argsort(-heights)[:keep]
        ]

    def _rotate_about_centre(
        self, degrees: float, scale: float, is_mirrored: bool = False
    ) -> core.Affine:
        """Return the transform that also moves the moving image's centre to 0."""
        y, x = self._centre.tolist()
        return core.Affine.create_similarity(
            degrees, scale=scale, is_mirrored=is_mirrored, about=(y, x), shift=(-y, -x)
        )

    def _compute_field(self, affine: core.Affine, side: int) -> refine.Field:
        """Compute the orientations of the moving image, rotated about its centre."""
        corner = -side / 2 * self.pitch
        grid = core.Grid((side, side), (self.pitch, self.pitch), (corner, corner))
        image = core.WarpedImage(self._moving, grid, affine).read()
        orientations = refine.compute_orientations(image, refine.SEARCH_WIDTH_PX)
        return _subtract_mean(orientations)

    @staticmethod
    def _score_shifts(
        field: refine.Field,
        shape: list[int],
        spectra: tuple[refine.Field, refine.Field],
    ) -> tuple[core.FloatArray, core.BoolArray] | None:
        """Score all shifts of a field of the moving image.

        `spectra`: of the fixed image's field and of its power. Returns the scores, and
        a mask of sufficient overlap.
        """
        transforms, power = _compute_spectra(field, shape)
        sums = fft.ifft2(spectra[0] * np.conj(transforms), workers=-1).real
        by_chance = fft.irfft2(spectra[1] * np.conj(power), shape, workers=-1) / 2
        if by_chance.max() <= 0:
            return None
        # below a tenth of the largest overlap, scores depend on few pixels
        enough = by_chance > 0.1 * by_chance.max()
        scores = sums / np.sqrt(np.where(enough, by_chance, 1))
        return np.where(enough, scores, 0), enough

    def _create_transform(
        self, affine: core.Affine, at: core.FloatArray, side: int
    ) -> core.Affine:
        """Return the transform for the position of a score, in pixels."""
        middle = at * self.pitch + (side - 1) / 2 * self.pitch
        shift = np.array(affine.shift) + self._fixed_image.origin + middle
        return core.Affine.from_matrix(affine.linear, shift)


def _get_unmirrored_step(step: tuple[float, float, bool]) -> tuple[float, float]:
    """Return rotation, rounded, and scale of the unmirrored image of a step."""
    turn = -step[0] if step[2] else step[0]
    return round((turn + 180) % 360, 6), step[1]


def _subtract_mean(field: refine.Field) -> refine.Field:
    """Subtract the mean, which biases all shifts if all lines are parallel."""
    usable = field != 0
    mean = field.sum() / max(int(usable.sum()), 1)
    return np.where(usable, field - mean, 0)


def _compute_spectra(
    field: refine.Field, shape: Sequence[int]
) -> tuple[refine.Field, refine.Field]:
    """Return the Fourier transforms of a field and of its power, zero-padded."""
    power = np.square(np.abs(field))
    return fft.fft2(field, shape, workers=-1), fft.rfft2(power, shape, workers=-1)


def _unwrap_shifts(
    at: core.RealArray, shape: Sequence[int], side: int
) -> core.FloatArray:
    """Convert indices of a circular correlation to signed shifts."""
    return np.where(at > np.array(shape) - side, at - np.array(shape), at).astype(float)


T = TypeVar("T")
Reason = Literal["ambiguous", "no-overlap", "no-structure"]
Step = Literal["near", "full"]

_RANGES: dict[Step, SearchRanges] = {
    "near": SearchRanges(15.0, 0.10),
    "full": SearchRanges(180.0, 0.20, with_mirror=True),
}
# Searches for each option: a narrow one is followed by a full one, with a warning.
_STEPS: dict[Step, tuple[Step, ...]] = {"near": ("near", "full"), "full": ("full",)}
# Pixels along the longer side of the larger image in each search, and the number of
# best candidates of the previous one to examine; None tries all. All rotations of 128
# px take six times as long as those near 64 candidates, which usually suffice.
_SIDES: dict[Step, tuple[tuple[int, int | None], ...]] = {
    "near": ((128, None), (256, 16)),
    "full": ((64, None), (128, 64), (128, None), (256, 16)),
}
_CLEAR = 7.0  # s.d. of chance; unrelated images reach 5.6 in 2000 positions
_MIN_PX = 64  # side of an image: smaller ones hold no patches
_CANDIDATES = 16  # of these that may be the true one or its rivals
_SAME_PX = 4.0  # of a search's pixels: closer candidates count as one
_MAX_RATIO = 8.0  # ratio of fields' lengths; chosen: the shorter has 16 px of 128
# Pixels along the longer side of the larger image, and the number of best ratios to
# examine further; chosen: all of 128 px would take seven times as long.
_RATIO_SIDES = ((64, 6), (128, 3))
_PERCENT = 100  # total of the progress of a search
_RIVALS = 8  # other shifts to examine
_ALIKE = 0.85  # of the best correlation; a lattice's period reaches 0.95 and more


class RegistrationOptions(core.Options):
    """Registration options."""

    model: Literal["similarity", "affine", "elastic"] = core.option(
        "affine",
        "Transform type",
        "similarity (rotation, scale), affine (also shear), or elastic (affine and a "
        "smooth displacement, if the images determine it)",
        choices={
            "similarity: rotation, scale": "similarity",
            "affine: also shear": "affine",
            "elastic: also smooth displacement": "elastic",
        },
    )
    search: Literal["near", "full"] = core.option(
        "near",
        "Search",
        "near: rotated by at most 15 degrees and scaled by at most 10 %, then, with a "
        "warning, full; full: any rotation, also mirrored, scaled by at most 20 %",
        choices={"rotated by up to 15°": "near", "any rotation, mirrored": "full"},
    )

    @property
    def linear_model(self) -> refine.Model:
        """Linear model that is fitted first."""
        return "similarity" if self.model == "similarity" else "affine"


class RegistrationRefused(core.RegistrationError):
    """Error raised if no reliable transform is found; `reason` is the message code.

    `rivals` are alternatives that fit equally well.
    """

    def __init__(
        self,
        message: str,
        reason: Reason,
        rivals: Sequence[quality.AlternativeTransform] = (),
    ) -> None:
        super().__init__(message, code=reason)
        self.reason = reason
        self.rivals = tuple(rivals)

    def to_json(self) -> dict[str, object]:
        """Return the reason and rivals as JSON-compatible values."""
        rivals = [asdict(rival) for rival in self.rivals]
        return {"reason": self.reason, "rivals": rivals}


@dataclass(frozen=True, slots=True, eq=False)
class RegistrationResiduals:
    """Residuals of held-out patches or landmarks, possibly empty."""

    # (N, 2) centres of the patches in the plane of the fixed image
    places_nm: core.FloatArray = field(default_factory=lambda: np.empty((0, 2)))
    # (N, 2) residuals of the transform there
    off_nm: core.FloatArray = field(default_factory=lambda: np.empty((0, 2)))
    # (N,) whether the transform is reliable there
    reliable: core.BoolArray = field(default_factory=lambda: np.empty(0, dtype=bool))
    side_nm: float = 0.0  # of a patch; 0 for landmarks, which confirm no area
    # (N,) expected error of the transform there; empty if unknown
    error_nm: core.FloatArray = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """Transform from one image to another, with its quality."""

    # from the moving image to the fixed one, in nm
    transform: core.Affine | core.Elastic
    model: str  # type of the transform
    # expected RMS error of the transform over the overlap, in pixels of the coarser
    # image: from the scatter of the patches, and the change by another filter
    error_px: float
    error_nm: float  # The same in nm
    overlap: float  # Fraction of the smaller image that the other shows
    mutual_information_before: float  # in bits, with the images at their origins
    mutual_information_after: float
    residuals: RegistrationResiduals
    score: float  # of the search's best candidate, in standard deviations of chance
    search_name: str  # source of the transform: near, full, landmarks or stored
    rivals: tuple[
        quality.AlternativeTransform, ...
    ] = ()  # alternatives, the best first


def register(
    moving: core.Micrograph,
    fixed: core.Micrograph,
    options: RegistrationOptions | None = None,
    *,
    start: core.Affine | None = None,
) -> core.Job[Registration]:
    """Find the transform between two images of the same area.

    Both are calibrated; contrast may differ or be inverted, NaN is ignored. `start` is
    an approximate transform, such as from landmarks, which replaces the search.

    Raises
    ------
    RegistrationError
        If an image has no pixel size or is too small.
    RegistrationRefused
        If no reliable transform is found.
    """
    settings = options or RegistrationOptions()
    for image, which in ((moving, "moving"), (fixed, "fixed")):
        _check_image(image, which)
    fine = max(*moving.scale, *fixed.scale)
    model = settings.linear_model
    if start is None:
        search_result = yield from _find_transform(moving, fixed, settings, fine, model)
        fit, score, search_name, rivals = search_result
    else:
        yield core.Progress(0, 0, "refining")
        # the pixel size at which a start may have an error of a few pixels
        near = _compute_span(moving, fixed) / _SIDES["near"][0][0]
        pitch = max(near, *moving.scale, *fixed.scale)
        place = TransformCandidate(0.0, start)
        near_start = _refine_candidate(moving, fixed, place, pitch, model)
        if near_start is None:
            msg = (
                "The images do not match near the landmarks: check that each pair "
                "marks the same point in both images."
            )
            raise RegistrationRefused(msg, "no-overlap")
        fit, score, search_name, rivals = near_start, 0.0, "landmarks", ()
    registration = yield from _evaluate_fit(moving, fixed, fit, search_name, settings)
    return replace(registration, score=score, rivals=rivals)


Role = Literal["moving", "fixed"]


def rescale_pixel_size(image: core.Micrograph, factor: float) -> core.Micrograph:
    """Multiply the pixel size and the origin of an image by a factor."""
    size, origin = (
        (float(y) * factor, float(x) * factor) for y, x in (image.scale, image.origin)
    )
    return image.replace(pixel_size_nm=size, origin=origin)


def register_uncalibrated_images(
    moving: core.Micrograph,
    fixed: core.Micrograph,
    options: RegistrationOptions | None = None,
    *,
    unsized_role: Role,
) -> core.Job[tuple[float, Registration]]:
    """Register two images, one of which has an unknown pixel size.

    Pixels are assumed to be square. Sizes are tried at which one field is up to
    `_MAX_RATIO` times as long as the other; the best ones are registered as usual.
    Returns the factor of the pixel size of the `unsized_role` image, and the
    registration with that size.

    Raises
    ------
    RegistrationError
        If an image is too small.
    RegistrationRefused
        If no reliable transform is found at any size.
    """
    search_options = options or RegistrationOptions()
    images: dict[Role, core.Micrograph] = {"moving": moving, "fixed": fixed}
    for role, image in images.items():
        _check_image(image, role)
    stiff = search_options.replace(model=search_options.linear_model)
    lengths = {role: _compute_span(image) for role, image in images.items()}
    is_moving = unsized_role == "moving"
    alike = lengths["fixed" if is_moving else "moving"] / lengths[unsized_role]

    def resize_pair(factor: float) -> tuple[core.Micrograph, core.Micrograph]:
        both = images | {unsized_role: rescale_pixel_size(images[unsized_role], factor)}
        return both["moving"], both["fixed"]

    for step in _STEPS[search_options.search]:
        wide = _RANGES[step].stretch
        spread = _create_search_values(np.log(_MAX_RATIO), 2 * np.log1p(wide))
        best = [(0.0, alike * float(np.exp(exponent))) for exponent in spread]
        message = "trying pixel sizes" + (" and all rotations" * (step == "full"))
        search_counts = [len(spread), *(count for _, count in _RATIO_SIDES[:-1])]
        costs = [
            side * len(_RANGES[step].list_steps(side))
            for (side, _), count in zip(_RATIO_SIDES, search_counts, strict=True)
            for _ in range(count)
        ]
        parts = iter(_list_parts(costs))
        for side, kept_count in _RATIO_SIDES:
            ratios: list[tuple[float, float]] = []
            for _, factor in best:
                job = _search_best_candidate(*resize_pair(factor), step, side)
                place = yield from _report_part(job, next(parts), message)
                if place is not None:
                    scale = place.affine.scale
                    factor_seen = factor * scale if is_moving else factor / scale
                    ratios.append((place.score, factor_seen))
            best = sorted(ratios, reverse=True)[:kept_count]
        for factor in (factor for score, factor in best if score > _CLEAR):
            try:
                start = stiff.replace(search=step)
                first = yield from register(*resize_pair(factor), start)
            except RegistrationRefused as refused:
                if refused.reason == "no-overlap":
                    continue
                raise
            scale = cast("core.Affine", first.transform).scale  # of a linear model
            factor *= scale if is_moving else 1 / scale
            again = search_options.replace(search=step)
            return factor, (yield from register(*resize_pair(factor), again))
    msg = (
        f"{moving.name!r} was not found in {fixed.name!r} at any pixel size that makes "
        f"one field up to {_MAX_RATIO:g} times as long as the other: set the pixel "
        f"size of {images[unsized_role].name!r}, check that the images overlap by at "
        "least 30 %, or mark points as landmarks."
    )
    raise RegistrationRefused(msg, "no-overlap")


def _list_parts(costs: Sequence[int]) -> list[tuple[float, float]]:
    """Return the start and end of each search, as fractions of the total cost."""
    ends = np.cumsum([0, *costs]) / sum(costs)
    return list(itertools.pairwise(ends.tolist()))


def _report_part(
    job: core.Job[T], part: tuple[float, float], message: str
) -> core.Job[T]:
    """Report the progress of one of several searches as a percentage of all."""
    start, end = part
    return core.map_progress(
        job,
        lambda step: core.Progress(
            int(_PERCENT * (start + step.fraction * (end - start))), _PERCENT, message
        ),
    )


def _search_best_candidate(
    moving: core.Micrograph, fixed: core.Micrograph, step: Step, side: int
) -> core.Job[TransformCandidate | None]:
    """Search for the best candidate, if any, in images of `side` pixels."""
    span = _compute_span(moving, fixed)
    pitch = max(span / side, *moving.scale, *fixed.scale)
    steps_tried = _RANGES[step].list_steps(round(span / pitch))
    places = yield from CorrelationSearch(moving, fixed, pitch).run(steps_tried, 1)
    return places[0] if places else None


# The fit at the finest pixels, its score, the search step, and alternatives.
_SearchResult = tuple[
    refine.TransformFit, float, str, tuple[quality.AlternativeTransform, ...]
]


def _check_image(image: core.Micrograph, which: str) -> None:
    if image.pixel_size_nm is None:
        msg = (
            f"The {which} image {image.name!r} has no pixel size, so its scale is "
            "unknown: set the pixel size (`pixel_size_nm`)."
        )
        raise core.RegistrationError(msg, code="pixel-size-missing")
    if min(image.shape) < _MIN_PX:
        rows, columns = image.shape
        msg = (
            f"Registration needs images of at least {_MIN_PX} px on each side, but the "
            f"{which} image {image.name!r} has {rows} x {columns} px."
        )
        raise core.RegistrationError(msg, code="image-too-small")


def _compute_span(*images: core.Micrograph) -> float:
    """Return the longest side of some images, in nm."""
    return float(max(max(np.multiply(i.shape, i.scale)) for i in images))


def _find_transform(
    moving: core.Micrograph,
    fixed: core.Micrograph,
    options: RegistrationOptions,
    fine: float,
    model: refine.Model,
) -> core.Job[_SearchResult]:
    """Search from coarse to fine until a candidate is confirmed at the finest level."""
    span = _compute_span(moving, fixed)
    for image in (moving, fixed):
        _check_structure(image, max(fine, span / 1024))  # so many pixels are enough
    for step in _STEPS[options.search]:
        places: list[TransformCandidate] = []
        finished_pitch = np.inf
        message = "searching" + (" all rotations" * (step == "full"))
        costs = [
            side * (len(_RANGES[step].list_steps(side)) if near is None else 9 * near)
            for side, near in _SIDES[step]
        ]
        parts = _list_parts(costs)
        for (side_wanted, near), part in zip(_SIDES[step], parts, strict=True):
            pitch = max(span / side_wanted, fine)
            # a larger pixel size than that adds no detail
            if pitch > 0.8 * finished_pitch:
                continue
            search = CorrelationSearch(moving, fixed, pitch)
            side = round(span / pitch)
            if near is None:
                finished_pitch = pitch
                steps_tried = _RANGES[step].list_steps(side)
            else:
                steps_tried = _RANGES[step].list_nearby_steps(places[:near], side)
            job = search.run(steps_tried, 64)  # the next search examines at most 64
            places = yield from _report_part(job, part, message)
            if not places or places[0].score < _CLEAR:
                continue
            yield core.Progress(0, 0, "refining")
            best = _select_best_candidate(
                moving, fixed, places[:_CANDIDATES], pitch, model
            )
            if best is None:
                continue
            fit, score = best
            yield core.Progress(0, 0, "looking for other positions that fit")
            rivals = _find_alternative_transforms(
                moving, fixed, search, places[:_CANDIDATES], fit, model
            )
            if rivals and rivals[0].score > _ALIKE:
                alike = [rival for rival in rivals if rival.score > _ALIKE]
                shift_text = core.describe_shift(alike[0].shift_nm)
                msg = (
                    f"The images match at {1 + len(alike)} or more positions, as for a "
                    f"repeating pattern; the second-best position is {shift_text} of "
                    "the best: mark three points as landmarks, or use a larger field."
                )
                raise RegistrationRefused(msg, "ambiguous", alike)
            return fit, score, step, tuple(rivals)
    msg = (
        f"{moving.name!r} was not found in {fixed.name!r} at any rotation, with or "
        "without mirroring, for scale differences of up to 20 %: check the pixel sizes "
        "and that the images overlap by at least 30 %, or mark points as landmarks."
    )
    raise RegistrationRefused(msg, "no-overlap")


def _check_structure(image: core.Micrograph, pitch_nm: float) -> None:
    """Refuse an image that shows only noise at some pixel size."""
    if not refine.has_structure(refine.resample_to_pitch(image, pitch_nm).array()):
        msg = (
            f"{image.name!r} has no structure above its noise level: use an image with "
            "edges, or mark points as landmarks."
        )
        raise RegistrationRefused(msg, "no-structure")


def _select_best_candidate(
    moving: core.Micrograph,
    fixed: core.Micrograph,
    places: Sequence[TransformCandidate],
    pitch: float,
    model: refine.Model,
) -> tuple[refine.TransformFit, float] | None:
    """Refine the first distinct candidates and return the best-supported one."""
    middle = quality.get_overlap_positions(places[0].affine, moving, fixed)
    candidates: list[TransformCandidate] = []
    for place in places:
        apart = (
            np.abs(place.affine(middle) - other.affine(middle)).max()
            for other in candidates
        )
        if all(far > _SAME_PX * pitch for far in apart):
            candidates.append(place)
    best = None
    # the true candidate was first or third
    for place in candidates[:4]:
        if best is not None and place.score < _ALIKE * places[0].score:
            break
        fit = _refine_candidate(moving, fixed, place, pitch, model)
        if fit is None:
            continue
        support = float((fit.weights * fit.patches.strength).sum())
        if best is None or support > best[2]:
            best = fit, place.score, support
    return best and best[:2]


def _refine_candidate(
    moving: core.Micrograph,
    fixed: core.Micrograph,
    place: TransformCandidate,
    pitch: float,
    model: refine.Model,
) -> refine.TransformFit | None:
    """Refine a candidate from the search pixel size to the finest pixel size."""
    fine = max(*moving.scale, *fixed.scale)
    shortest = min(min(np.multiply(i.shape, i.scale)) for i in (moving, fixed))
    affine, levels = place.affine, [fine]
    while 2 * levels[-1] < pitch * 0.9:
        levels.append(2 * levels[-1])
    fit = None
    for level in reversed(levels):
        size = int(min(96 if level == fine else 64, 0.5 * shortest / level))
        if size < 24:  # px; a smaller patch has too little structure
            continue
        first = fit is None
        reaches = [8, 8, 5] if first else [8, 5, 4]
        reaches = reaches if level == fine else reaches[:2]
        plans = [refine.RefinementPlan(size, reach) for reach in reaches]
        coarse, plans = (plans[:2], plans[2:]) if first else ([], plans)
        pair = refine.PyramidLevel(moving, fixed, level)
        if coarse:
            fit = refine.refine_transform(pair, affine, coarse, model)
            if fit is None or not _is_consistent(fit, level):
                return None
            affine = fit.affine
        edge = 0.0
        if level == fine and fit is not None:
            edge = refine.find_edge_shift(pair, affine, plans[0], fit.edge_nm)
        if plans:
            fit = refine.refine_transform(pair, affine, plans, model, edge)
            if fit is None:
                return None
            affine = fit.affine
    return fit


def _is_consistent(fit: refine.TransformFit, pitch: float) -> bool:
    """Return whether enough of the significant patches agree with the transform."""
    # standard deviations of chance
    significant = fit.patches.strength > 5.0
    off = np.hypot(*fit.compute_residuals()[significant].T) / pitch
    # by chance 7 of 17 x 17 patches agree to 1.5 px
    agree = int((off < 1.5).sum())
    # of 16 significant patches that scatter at random, a transform through three
    # matches three more in one case of two, six more in one of 5000
    return agree >= 6 + 0.2 * int(significant.sum())


def _find_alternative_transforms(
    moving: core.Micrograph,
    fixed: core.Micrograph,
    search: CorrelationSearch,
    places: Sequence[TransformCandidate],
    fit: refine.TransformFit,
    model: refine.Model,
) -> list[quality.AlternativeTransform]:
    """Find alternative transforms that fit, best first."""
    best, same = fit.affine, _SAME_PX * search.pitch
    middle = quality.get_overlap_positions(best, moving, fixed)

    def measure_distance(one: core.Affine, other: core.Affine) -> float:
        # Over half of the field: on a distorted image several transforms each fit a
        # part, which are not different candidates.
        return float(np.median(np.abs(one(middle) - other(middle)).max(axis=1)))

    finest = max(*moving.scale, *fixed.scale)
    # pixels along the longer side: distortion is small there
    pitch = max(finest, _compute_span(moving, fixed) / 192)
    pitches = search.pitch, pitch
    levels = [refine.PyramidLevel(moving, fixed, each) for each in pitches]
    grid = levels[-1].grid
    ours = quality.compute_orientation_field(fixed, grid, core.Affine())
    theirs = quality.compute_orientation_field(moving, grid, best)
    plans = [refine.RefinementPlan(32, 4, refine.SEARCH_WIDTH_PX)]
    rivals = []
    # scores near the best of the same search: a repeating pattern shifted by a period
    # hardly loses overlap; a fit of a corner alone is not evidence
    # of the best score; a period of a fifth of the field leaves 0.8
    comparable = [
        place
        for fit in (search.find_rivals(best, _RIVALS), places[:_RIVALS])
        for place in fit
        if place.score > 0.5 * fit[0].score
    ]
    for place in comparable:
        affine = place.affine
        if measure_distance(affine, best) < same:
            continue
        for level in levels:
            refined = refine.refine_transform(level, affine, plans, model)
            if refined and measure_distance(refined.affine, affine) < same:
                affine = refined.affine
        if measure_distance(affine, best) < same:
            continue
        other = quality.compute_orientation_field(moving, grid, affine)
        # a cell of 16 px counts as one observation of the difference
        score, sure = quality.compare_candidates(ours, theirs, other, 16)
        # of the best correlation; from there the difference is tested for significance,
        # in standard errors
        if score > 0.6 and sure < 4.0:
            score = max(score, 1.0)  # the difference is not significant
        centre = middle.mean(axis=0)
        y, x = (affine(centre) - best(centre)).tolist()
        turn = (affine.degrees - best.degrees + 180) % 360 - 180
        rivals.append(quality.AlternativeTransform((y, x), turn, score))
    return sorted(rivals, key=lambda rival: -rival.score)


def _evaluate_fit(
    moving: core.Micrograph,
    fixed: core.Micrograph,
    fit: refine.TransformFit,
    search_name: str,
    options: RegistrationOptions,
) -> core.Job[Registration]:
    """Fit the elastic transform if requested, and evaluate the registration."""
    fine = max(*moving.scale, *fixed.scale)
    level = refine.PyramidLevel(moving, fixed, fine)
    bending = None
    if options.model == "elastic":
        bending = yield from fit_elastic(level, fit.affine)
        if bending is None:
            core.warn(
                "Too few patches of the images match for an elastic transform: the "
                "affine transform is used.",
                "bending-undecided",
            )
    yield core.Progress(0, 0, "estimating the error")
    transform: core.Affine | core.Elastic = fit.affine
    model: str = options.linear_model
    if bending is not None:
        transform, model = bending.transform, options.model
    places = quality.get_overlap_positions(transform, moving, fixed)
    if bending is None:
        patches = fit.patches
        off = quality.compute_held_out_residuals(fit, options.linear_model)
        square_error = _estimate_affine_error(level, fit, options.linear_model, places)
    else:
        patches, off = bending.patches, bending.off_nm
        square_error = _estimate_elastic_error(level, bending)
    errors = np.sqrt(square_error(patches.moving_places))
    # residual of a held-out patch from which its position is unreliable
    is_doubtful = np.hypot(*off.T) >= 2.0 * fine
    # expected error from which a position is unreliable
    is_doubtful |= errors >= 1.0 * fine
    return evaluate_transform(
        transform,
        moving,
        fixed,
        model=model,
        search_name=search_name,
        error_nm=float(np.sqrt(square_error(places).mean())),
        residuals=RegistrationResiduals(
            patches.places, off, ~is_doubtful, patches.side_nm, errors
        ),
    )


# Squared errors (N,) in nm², both axes, at positions (N, 2) of the moving image.
_SquareError = Callable[[core.FloatArray], core.FloatArray]


def _estimate_affine_error(
    level: refine.PyramidLevel,
    fit: refine.TransformFit,
    model: refine.Model,
    places: core.FloatArray,
) -> _SquareError:
    """Estimate the error of an affine transform from scatter and filter variation."""
    size = round(fit.patches.side_nm / level.pitch)
    sure = quality.estimate_uncertainty(fit, model)
    variance = 0.0
    # for both images, and for either alone, since one is more blurred than the other
    for width, fixed_px in (
        (refine.OTHER_PX, None),
        (refine.WIDTH_PX, refine.OTHER_PX),
        (refine.OTHER_PX, refine.WIDTH_PX),
    ):
        plans = [refine.RefinementPlan(size, 5, width, fixed_px)]
        edge = fit.patches.edge_nm
        other = refine.refine_transform(level, fit.affine, plans, model, edge)
        if other is not None:
            change = other.affine(places) - fit.affine(places)
            variance += refine.BY_WIDTH * float((change**2).sum(axis=1).mean())

    def compute_squared_error(at: core.FloatArray) -> core.FloatArray:
        return np.asarray(np.trace(sure(at), axis1=1, axis2=2) + variance)

    return compute_squared_error


def _estimate_elastic_error(
    level: refine.PyramidLevel, bending: ElasticFit
) -> _SquareError:
    """Estimate the error of an elastic transform from scatter and filter variation."""
    size = round(bending.patches.side_nm / level.pitch)
    plan = refine.RefinementPlan(size, 5, refine.OTHER_PX, most=900)
    edge = bending.patches.edge_nm
    other = refine.measure_shifts(level, bending.transform, plan, edge)
    refit_transform = None if other is None else bending.refit(other)

    def compute_squared_error(places: core.FloatArray) -> core.FloatArray:
        mapped_places = bending.transform(places)
        variance = bending.compute_variance(mapped_places)
        if refit_transform is None:
            return variance
        # the full change: an elastic fit also follows the scatter with the other filter
        change = refit_transform(places) - mapped_places
        return np.asarray(variance + (change**2).sum(axis=1))

    return compute_squared_error


# Evaluation of a transform that was not found by structure: from landmarks, or stored.


def evaluate_transform(
    transform: core.Affine | core.Elastic,
    moving: core.Micrograph,
    fixed: core.Micrograph,
    *,
    model: str,
    search_name: str,
    error_nm: float,
    residuals: RegistrationResiduals,
) -> Registration:
    """Evaluate a given transform, in nm, between two calibrated images.

    `error_nm` is its expected error, NaN if unknown; `residuals` are of patches or
    landmarks. The result has no score and no rivals.

    Raises
    ------
    RegistrationRefused
        If the transformed moving image does not overlap the fixed one.
    """
    overlap = quality.compute_overlap_fraction(transform, moving, fixed)
    if overlap <= 0:
        msg = (
            f"Under this transform, {moving.name!r} does not overlap {fixed.name!r}: "
            "check pixel sizes and origins, or register again."
        )
        raise RegistrationRefused(msg, "no-overlap")
    # mutual information before and after, at a pixel size that limits the time
    finest = max(*moving.scale, *fixed.scale)
    pitch = max(finest, _compute_span(moving, fixed) / 512)
    onto = refine.resample_to_pitch(fixed, pitch)
    grid = core.Grid.from_image(onto)
    before, after = (
        quality.compute_mutual_information(
            onto.data, core.WarpedImage(moving, grid, kind).read()
        )
        for kind in (core.Affine(), transform)
    )
    return Registration(
        transform=transform,
        model=model,
        error_px=error_nm / finest,
        error_nm=error_nm,
        overlap=overlap,
        mutual_information_before=before,
        mutual_information_after=after,
        residuals=residuals,
        score=0.0,
        search_name=search_name,
    )


def register_landmarks(
    moving: core.Micrograph,
    fixed: core.Micrograph,
    landmarks: Landmarks,
    model: refine.Model = "affine",
) -> Registration:
    """Register two images by three or more landmarks that are not on a line.

    The residuals are of held-out landmarks, NaN if the others do not determine a
    transform, and the error is NaN without a redundant landmark.

    Raises
    ------
    RegistrationError
        If the landmarks do not determine a transform.
    """
    fit = fit_landmarks(landmarks, model)
    places = quality.get_overlap_positions(fit.transform, moving, fixed)
    expected_error = fit.estimate_error(places)
    error = np.nan
    if expected_error is not None and expected_error.size:
        error = float(np.sqrt(np.mean(expected_error**2)))
    return evaluate_transform(
        fit.transform,
        moving,
        fixed,
        model=model,
        search_name="landmarks",
        error_nm=error,
        residuals=RegistrationResiduals(
            places_nm=landmarks.fixed,
            off_nm=fit.held_out_residuals,
            reliable=np.ones(len(landmarks), dtype=bool),
        ),
    )
