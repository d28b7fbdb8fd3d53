"""Area shared by a mosaic and SEM images, and evaluation of models on a part of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr import analysis, core
from napari_semsr.io import StoredTransform, write_transform
from napari_semsr.jobs import register
from napari_semsr.jobs.images import (
    Image,
    Result,
    get_image_name,
    open_image,
    to_json_value,
)
from napari_semsr.jobs.pairs import check_images_differ
from napari_semsr.jobs.verb import ImageInput, Output, Run, command
from napari_semsr.registration import Landmarks, RegistrationRefused

HELD_OUT = 0.3  # chosen: two thirds train, and the rest has room for 16 parts
APART_PX = 32  # between the two parts; chosen: more than the linear filter's margin
MIN_PX = 160  # along the longer side: two parts of 64 px, and the gap between them
_MIN_ACROSS_PX = 64  # along the shorter side: the side of a patch
_PARTS = 4  # along each side of a held-out part; their scatter gives the error
_CERTAIN = 4.0  # standard errors: one false match in a thousand
_NEAR_PX = 2.0  # chosen: about what light resolves
_COARSE_PX = 24.0  # chosen: slower grey values are illumination and charging


class AdaptationError(core.SemsrError):
    """Error for images that are not suitable for training; `reason` is a short code."""

    def __init__(self, message: str, reason: str, **facts: object) -> None:
        super().__init__(message, code=reason)
        self.reason = reason
        self.facts = facts

    def to_json(self) -> dict[str, object]:
        """Return the reason and the figures known so far."""
        return {"model": None, "reason": self.reason, **self.facts}


@dataclass(frozen=True, slots=True)
class SharedArea:
    """Gap-free rectangle shared by a mosaic and an SEM image, on the mosaic grid."""

    name: str  # of the SEM image
    light: core.Micrograph = field(metadata={"json": False})
    sem: core.Micrograph = field(metadata={"json": False})
    box: core.Box  # in the mosaic
    training_box: core.Box  # in the rectangle: the part to train on
    held_out: core.Box  # and the part to evaluate on
    # from the mosaic to the SEM image
    transform: core.Affine | core.Elastic = field(metadata={"json": False})
    excluded: tuple[core.Box, ...] = ()  # from training, near others' held-out parts

    @property
    def training_boxes(self) -> list[core.Box]:
        """Disjoint boxes that cover what is trained on."""
        is_trained, boxes = np.isfinite(self.crop_training_part()[1]), []
        while (box := core.find_gap_free_box(is_trained)) is not None:
            boxes.append(box.move(self.training_box.corner))
            is_trained[box.slices] = False
        return boxes

    def crop_training_part(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return both images (Y, X) of the training part; NaN where excluded."""
        light, sem = (one.array().copy() for one in self.crop(self.training_box))
        for part in self.excluded:
            inner = part.intersection(self.training_box).relative_to(self.training_box)
            light[inner.slices] = sem[inner.slices] = np.nan
        return light, sem

    def crop(self, box: core.Box) -> tuple[core.Micrograph, core.Micrograph]:
        """Crop both images to a box."""
        return core.crop_to_box(self.light, box), core.crop_to_box(self.sem, box)


def create_shared_area(
    mosaic: core.Micrograph, sem: core.Micrograph, transform: core.Affine | core.Elastic
) -> SharedArea:
    """Resample an SEM image to the grid of the mosaic, and split the overlap.

    Raises
    ------
    AdaptationError
        If both share less than 64 x 160 px.
    """
    back = core.WarpedImage(sem, core.Grid.from_image(mosaic), transform.inverse())
    sem_there = back.read().astype(np.float32)
    light = np.asarray(
        core.read_box(mosaic.data, core.Box.from_shape(mosaic.shape)), dtype=np.float32
    )
    box = core.find_gap_free_box(
        np.isfinite(sem_there) & np.isfinite(light), least=_MIN_ACROSS_PX
    )
    if box is None or max(box.shape) < MIN_PX:
        has = "none" if box is None else f"{box.shape[0]} x {box.shape[1]} px"
        msg = (
            f"{mosaic.name} and {sem.name} must share a gap-free rectangle of at least "
            f"{_MIN_ACROSS_PX} x {MIN_PX} px of the mosaic, got {has}: use an SEM "
            "image of a larger area."
        )
        raise AdaptationError(msg, "not-registered")
    split = split_training_area(core.Box.from_shape(box.shape))
    parts = [
        mosaic.replace(
            name=one.name,
            data=np.ascontiguousarray(data[box.slices]),
            origin=core.Grid.from_image(mosaic).box_origin(box),
            provenance=one.provenance,
        )
        for one, data in ((mosaic, light), (sem, sem_there))
    ]
    return SharedArea(sem.name, parts[0], parts[1], box, *split, transform)


def split_training_area(box: core.Box) -> tuple[core.Box, core.Box]:
    """Split a rectangle across its longer side into training and held-out parts.

    They are 32 px apart.
    """
    rows, columns = box.shape
    length = max(rows, columns)
    held_out_px = max(_MIN_ACROSS_PX, round(HELD_OUT * (length - APART_PX)))
    cut = held_out_px + APART_PX
    if rows >= columns:
        return replace(box, y1=box.y1 - cut), replace(box, y0=box.y1 - held_out_px)
    return replace(box, x1=box.x1 - cut), replace(box, x0=box.x1 - held_out_px)


def exclude_held_out_parts(areas: Sequence[SharedArea]) -> list[SharedArea]:
    """Exclude from training what is within 32 px of any held-out part.

    SEM images may overlap, but no pixel is both trained on and evaluated.

    Raises
    ------
    AdaptationError
        If nothing of an area is left.
    """
    near = [one.held_out.move(one.box.corner).grow(APART_PX) for one in areas]
    areas_apart = []
    for area in areas:
        parts = (part.relative_to(area.box) for part in near)
        excluded = tuple(part for part in parts if part.overlaps(area.training_box))
        areas_apart.append(replace(area, excluded=excluded))
        if not np.isfinite(areas_apart[-1].crop_training_part()).any():
            msg = (
                f"Nothing of {area.name} is left to train on, since the held-out parts "
                "of other SEM images cover it: leave it out."
            )
            raise AdaptationError(msg, "not-registered")
    return areas_apart


def check_correlation(areas: Sequence[SharedArea], kernel: NDArray[Any]) -> None:
    """Raise an error if the structures of the images do not match.

    `kernel` is the linear filter fitted on the training parts. Its result for the
    held-out optical image must correlate with the SEM image, or the local contrast of
    both images must, as for shards, whose images are not related linearly. Over 16
    parts of each area, one of the mean products must exceed four times its standard
    error; unrelated images do so in one of a thousand cases (Student's t, 15 degrees of
    freedom).

    Raises
    ------
    AdaptRefused
        With the code ``pairs-uncorrelated``.
    """
    parts = [area.crop(area.held_out) for area in areas]
    planes = [[one.array().astype(float) for one in part] for part in parts]
    images = [
        (
            _remove_slow_variations(ndimage.correlate(light, kernel, mode="mirror")),
            _remove_slow_variations(sem),
        )
        for light, sem in planes
    ]
    contrasts = [tuple(map(_measure_contrast, both)) for both in planes]
    for pairs in (images, contrasts):
        products = [
            part.mean()
            for first, second in pairs
            for rows in np.array_split(first * second, _PARTS, axis=0)
            for part in np.array_split(rows, _PARTS, axis=1)
        ]
        error = float(np.std(products, ddof=1)) / math.sqrt(len(products))
        if error > 0 and float(np.mean(products)) > _CERTAIN * error:
            return
    names = ", ".join(area.name for area in areas)
    correlations = []
    for light, sem in images:  # both have a mean of zero
        scale = math.sqrt(float((light**2).mean() * (sem**2).mean()))
        correlations.append(float((light * sem).mean()) / scale if scale else 0.0)
    msg = (
        "No usable training patches: the optical image does not correlate with "
        f"{names} (correlation {np.mean(correlations):.2f} on the held-out part). "
        "Check that all images show the same area, or mark corresponding points as "
        "landmarks."
    )
    raise AdaptationError(msg, "pairs-uncorrelated")


def _measure_contrast(image: core.FloatArray) -> core.FloatArray:
    """Measure the local contrast, without slow variations."""
    power = ndimage.gaussian_filter(
        _remove_slow_variations(image) ** 2, _NEAR_PX, mode="mirror"
    )
    return _remove_slow_variations(np.sqrt(power))


def _remove_slow_variations(image: core.FloatArray) -> core.FloatArray:
    """Remove the mean and slow variations, such as illumination and charging."""
    fine = image - ndimage.gaussian_filter(image, _COARSE_PX, mode="mirror")
    return np.asarray(fine - fine.mean())


MOSAIC_IN = ImageInput(
    "mosaic", "the optical image of the sample, such as a mosaic", side="mosaic"
)
SEM_IN = ImageInput(
    "sem",
    "SEM images of areas that MOSAIC shows; one is enough",
    label="SEM",
    metavar="SEM",
    many=True,
    side="sem",
)
_WORST_PX = 1.0  # expected error of the registration; chosen: beyond, pairs teach blur


@command(opens=False)
def register_sem(
    run: Run[register.RegisterOptions],
    mosaic: Annotated[Image, MOSAIC_IN],
    sem: Annotated[Image, replace(SEM_IN, many=False)],
    output: Annotated[Path, Output("the transform", ending=".json")],
    *,
    options: register.RegisterOptions,
    landmarks: Annotated[Landmarks | str | Path | None, register.LANDMARKS_IN] = None,
    transform: Annotated[
        StoredTransform | str | Path | None, register.TRANSFORM_IN
    ] = None,
) -> core.Job[register.Registered]:
    """Register a mosaic to an SEM image, elastically if affine is insufficient."""
    reading, name = run.get_read_options("sem"), get_image_name(sem)
    light = open_image(mosaic, run.opening).replace(name=get_image_name(mosaic))
    electrons = open_image(sem, reading).replace(name=name)
    check_images_differ([light], [electrons])
    register.check_pixel_sizes(mosaic=light, sem=electrons)

    def register_pair(**changes: object) -> core.Job[register.Registered]:
        return register.register.job(
            mosaic,  # as given, so that a transform recognises their files
            sem,
            options=options.replace(**changes),
            opening=run.opening,
            fixed_opening=reading,
            landmarks=landmarks,
            transform=transform,
        )

    is_elastic_allowed = (
        transform is None and options.model == "affine" and not options.landmarks_only
    )
    try:
        registration = yield from register_pair()
        if is_elastic_allowed and not _is_accurate(registration, register.COSTLY_PX):
            other = yield from register_pair(model="elastic")
            registration = min(registration, other, key=_get_error_px)
    except RegistrationRefused as refused:
        msg = f"{name} cannot be registered: {refused}"
        facts = to_json_value(refused.to_json())
        raise AdaptationError(msg, "not-registered", registration=facts) from refused
    if not _is_accurate(registration, _WORST_PX):
        msg = (
            f"The expected registration error of {name} is {registration.error_px:.2g} "
            f"px, but image pairs must match within {_WORST_PX:g} px: mark "
            "corresponding points as landmarks."
        )
        facts = to_json_value(register.describe_registration(registration.registration))
        raise AdaptationError(msg, "not-registered", registration=facts)
    if not _is_accurate(registration, register.COSTLY_PX):
        core.warn(
            f"The expected registration error of {name} is "
            f"{registration.error_px:.2g} px, which costs 0.3 dB or more: landmarks "
            "may improve the registration.",
            "map-imprecise",
        )
    write_transform(output, registration.stored_transform)
    return registration


def _get_error_px(registration: register.Registered) -> float:
    """Return the expected error, or infinity if it is unknown."""
    error = registration.error_px
    return math.inf if error is None or math.isnan(error) else error


def _is_accurate(registration: register.Registered, limit_px: float) -> bool:
    """Return whether the registration error is small enough or unknown."""
    error_px = _get_error_px(registration)
    is_stored = registration.searched == "stored" and math.isinf(error_px)
    return is_stored or error_px <= limit_px


ADAPTED_MODEL = "adapted model"
"""Name of the model in tables and in the report."""
INPUT, LINEAR = "input", "linear filter"
"""Names of the unprocessed image and of the linear filter among evaluated images."""
_NAMES = {INPUT: "the optical image", LINEAR: "the linear filter"}
SURE = 2.0
"""Number of standard errors by which a model must be better to be kept."""


@dataclass(frozen=True, slots=True)
class Evaluation(Result):
    """Evaluation of one image of the held-out part against the SEM image.

    Gains are over the input, after the gain and offset that best match each image to
    the SEM image, with standard errors from 16 parts of each area.
    """

    name: str = field(metadata={"json": False})
    psnr_db: Annotated[float | None, core.Quantity("PSNR", core.DB, ".2f")]
    gain_db: Annotated[
        float | None, core.Quantity("Over the input", core.DB, "+.2f", sd="gain_sd_db")
    ]
    gain_sd_db: float | None
    gain_below_cutoff_db: Annotated[
        float | None,
        core.Quantity(
            "Below the cut-off", core.DB, "+.2f", sd="gain_below_cutoff_sd_db"
        ),
    ]
    gain_below_cutoff_sd_db: float | None
    images: tuple[NDArray[Any], ...] = field(default=(), metadata={"json": False})
    errors: "SquaredErrors" = field(
        default_factory=lambda: SquaredErrors(), metadata={"json": False}, repr=False
    )


@dataclass(frozen=True, slots=True)
class SquaredErrors:
    """Squared errors (N,) of the parts of all areas, in total and below the cut-off."""

    all: core.FloatArray = field(default_factory=lambda: np.empty(0))
    below: core.FloatArray | None = None

    @property
    def decisive_errors(self) -> core.FloatArray:
        """Errors used for the decision: those below the cut-off, if it is known."""
        return self.all if self.below is None else self.below


def evaluate(
    areas: Sequence[SharedArea],
    images: Mapping[str, Sequence[NDArray[Any]]],
    cut_off_nm: float | None,
    before: Mapping[str, Evaluation] | None = None,
) -> dict[str, Evaluation]:
    """Compare images of the held-out parts with the SEM images, `INPUT` first.

    Parameters
    ----------
    areas : sequence of SharedArea
        Areas that both images show.
    images : mapping of str to sequence of (Y, X) numpy.ndarray
        By name, one for the held-out part of each area.
    cut_off_nm : float or None
        Shortest period that the optical image can contain.
    before : mapping of str to Evaluated, optional
        Existing rows, which come first.
    """
    truths = [area.crop(area.held_out)[1] for area in areas]
    evaluations: dict[str, Evaluation] = dict(before or {})
    for name, planes in images.items():
        measured_images, matched_images = [], []
        for plane, truth in zip(planes, truths, strict=True):
            metrics = analysis.measure_metrics(
                truth.replace(data=plane, provenance=None),
                truth,
                match="affine",
                data_range=_get_grey_range(truths),
                cut_off_nm=cut_off_nm,
            )
            measured_images.append(metrics)
            gain, offset = np.float32(metrics.gain), np.float32(metrics.offset)
            matched_images.append(plane * gain + offset)
        split = [one.band_errors for one in measured_images]
        errors = SquaredErrors(
            np.concatenate(
                [
                    analysis.sum_section_errors(image, truth.array())
                    for image, truth in zip(matched_images, truths, strict=True)
                ]
            ),
            None
            if any(bands is None for bands in split)
            else np.concatenate([bands[0] for bands in split if bands is not None]),
        )
        first = next(iter(evaluations.values()), None)
        base = errors if first is None else first.errors
        below: tuple[float | None, float | None] = None, None
        if errors.below is not None and base.below is not None:
            below = analysis.compute_psnr_gain(errors.below, base.below)
        pixels = sum(truth.array().size for truth in truths)
        mean = float(errors.all.sum()) / pixels
        evaluations[name] = Evaluation(
            name,
            20 * math.log10(_get_grey_range(truths)) - 10 * math.log10(mean)
            if mean
            else None,
            *analysis.compute_psnr_gain(errors.all, base.all),
            *below,
            tuple(matched_images),
            errors,
        )
    return evaluations


def _get_grey_range(truths: Sequence[Any]) -> float:
    """Return the grey-value range of all SEM images."""
    planes = [truth.array() for truth in truths]
    return float(max(p.max() for p in planes)) - float(min(p.min() for p in planes))


def require_gain(evaluations: Mapping[str, Evaluation], name: str) -> None:
    """Raise an error unless a model beats all other images by two standard errors.

    The mean and the standard error of the gain, in dB, are those over the parts of the
    held-out areas, so that no single part decides.

    Raises
    ------
    AdaptRefused
        With the code ``no-gain``, and the figures of all.
    """
    errors = evaluations[name].errors.decisive_errors
    for rival, row in evaluations.items():
        if rival == name:
            continue
        with np.errstate(divide="ignore", invalid="ignore"):  # images without an error
            gains = 10 * np.log10(row.errors.decisive_errors / errors)
            gain, error = gains.mean(), gains.std(ddof=1) / math.sqrt(gains.size)
        if gain > SURE * error:
            continue
        msg = (
            f"The trained model is not better than {_NAMES.get(rival, rival)} on the "
            f"held-out part ({gain:+.2f} ± {error:.2f} dB, mean gain of its parts ± "
            "standard error) and is not kept: train longer (`minutes`), check the "
            "registration, or use an SEM image of a larger area."
        )
        figures = {key: each.to_json() for key, each in evaluations.items()}
        raise AdaptationError(msg, "no-gain", held_out=figures)
