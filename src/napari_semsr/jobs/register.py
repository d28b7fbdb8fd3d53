"""Register an image to another of the same area, and store the transform."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from napari_semsr import core, io
from napari_semsr.jobs import verb
from napari_semsr.jobs.images import (
    Result,
    collect_digests,
    create_lazy_array,
    record_file,
    to_json_value,
    write_pixels,
)
from napari_semsr.registration import (
    AlternativeTransform,
    Landmarks,
    Registration,
    RegistrationOptions,
    RegistrationResiduals,
    evaluate_transform,
    fit_landmarks,
    register as register_images,
    register_landmarks,
    register_uncalibrated_images,
    rescale_pixel_size,
)

Where = str | os.PathLike[str]
Role = Literal["moving", "fixed"]

_CHUNK = 1024  # side of a block of computation in px; chosen: little memory
_SPARE_PAIRS = 4  # fewest landmarks that leave a residual after an affine fit
_LITTLE = 0.3  # share of the smaller image; registration is untested below it
COSTLY_PX = 0.5  # expected error; such pairs lost 0.3 dB and more in training
_DOUBTFUL_PX = 1.0  # expected error; chosen: details of one pixel cannot be compared
_UNRELIABLE = 0.3  # share of patches; chosen: above, whole areas are wrong
_ASTRAY_PX = 10.0  # distance to the map; chosen: clicks are a few px off


class RegisterOptions(RegistrationOptions):
    """Options for registration and landmarks."""

    landmarks_only: bool = core.option(
        False,
        "Use landmarks only",
        "compute the map from the landmarks alone, ignoring the images; otherwise "
        "they are the starting point",
    )


_SEARCHES = {
    "near": "search near the stated pixel sizes",
    "full": "search of all rotations",
    "landmarks": "landmarks",
    "stored": "stored transform",
}


_ERROR = core.Quantity("Expected error", "px", ".2g", verdict="verdict", large=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered(Result):
    """Image resampled onto the grid of another, with registration quality.

    `found_pixel_size_nm` is the estimated size of the image `found_size_of`; both are
    None if both images had a pixel size.

    If nothing is written, `image` is a lazy dask array. It is NaN where the moving
    image has no data. `registration` is the map, `stored_transform` its form for
    `write_transform`. `transform` has the affine matrix ``[[yy, yx, y], [xy, xx, x]]``
    from the moving to the fixed image in nm; also as ``degrees``, ``scale`` and
    ``mirrored``; for an elastic map also the ``spacing_nm`` of its knots and
    ``largest_nm``, its largest displacement at tested positions. The expected error is
    the root mean square over the overlap, in pixels of the coarser image and in nm, the
    mutual information in bits, before and after registration; `score` is the
    height of the search's best peak in standard deviations of chance. Residuals are at
    patches or landmarks that were held out; `unreliable` is the fraction of patches
    where the map is not reliable.
    """

    found_size_of: Annotated[str | None, core.Quantity("Pixel size estimated for")]
    found_pixel_size_nm: Annotated[
        float | None, core.Quantity("Estimated pixel size", "nm", ".4g")
    ]
    output: str | None
    transform_output: Annotated[str | None, core.Quantity("Transform")]
    shape: core.IntPair
    dtype: Annotated[str, core.Quantity("Type")]
    pixel_size_nm: Annotated[
        core.FloatPair, core.declare_quantity("Pixel size", "nm", ".6g")
    ]
    pixel_size_sd_nm: core.FloatPair | None
    origin: Annotated[core.FloatPair, core.declare_quantity("Origin", "nm")]
    model: Annotated[str, core.declare_quantity("Model")]
    transform: Annotated[dict[str, Any], core.declare_quantity("Transform")]
    error_px: Annotated[float | None, _ERROR]
    error_nm: Annotated[
        float | None,
        replace(_ERROR, unit="nm", form=".3g", also="error_px", reason="no_error"),
    ]
    overlap: Annotated[float, core.Quantity("Overlap", "of the smaller image", ".0%")]
    mutual_information_before: Annotated[
        float, core.Quantity("Mutual information before", "bit", ".2f")
    ]
    mutual_information_after: Annotated[
        float, core.Quantity("Mutual information", "bit", ".2f")
    ]
    searched: Annotated[str, core.declare_quantity("Searched")]
    score: Annotated[float | None, core.declare_quantity("Score")]
    rivals: Annotated[
        list[dict[str, object]],
        core.declare_quantity("Rivals", keys=AlternativeTransform),
    ]
    residual_median_nm: Annotated[float | None, core.Quantity("Residual", "nm", ".3g")]
    residual_p95_nm: Annotated[float | None, core.Quantity("95 % under", "nm", ".3g")]
    patches: Annotated[int, core.declare_quantity("Patches", form="d")]
    unreliable: Annotated[
        float | None, core.Quantity("Unreliable", "of the patches", ".0%")
    ]
    image: core.Micrograph | None = field(metadata={"json": False})
    registration: Registration = field(metadata={"json": False})
    stored_transform: io.StoredTransform = field(metadata={"json": False})

    @property
    def verdict(self) -> str:
        """Assessment of the error."""
        if self.error_px is None:
            return ""
        if self.error_px <= 1:
            return "less than a pixel of the coarser image"
        return f"{self.error_px:.2g} pixels of the coarser image: check the overlay"

    no_error: ClassVar = "not known"

    @property
    def pixel_size(self) -> Annotated[str, core.Quantity("Pixel size")]:
        """Pixel size with its uncertainty, as text."""
        return core.describe_pixel_size(self.pixel_size_nm, self.pixel_size_sd_nm)

    @property
    def map_text(self) -> Annotated[str, core.Quantity("Map")]:
        """Model of the map, and how it was found."""
        return f"{self.model}, by {_SEARCHES[self.searched]}"

    @property
    def shift(self) -> Annotated[str, core.Quantity("Shift")]:
        """Shift of the centre of the moving image."""
        side = self.stored_transform.moving
        half = (np.array(side.shape) - 1) / 2
        middle = np.array(side.origin_nm) + half * np.array(side.pixel_size_nm)
        down, right = (self.stored_transform.transform(middle[None]) - middle)[0]
        return core.describe_shift((float(down), float(right)))

    @property
    def turn(self) -> Annotated[str, core.Quantity("Rotation")]:
        """Rotation angle and its direction as text."""
        turn_degrees = round(self.transform["degrees"], 2)
        return (
            f"{abs(turn_degrees):.2f}° "
            f"{'anticlockwise' if turn_degrees < 0 else 'clockwise'}"
        )

    @property
    def scale(self) -> Annotated[float, core.Quantity("Scale", form=".4f")]:
        """Factor by which the map magnifies."""
        return float(self.transform["scale"])

    @property
    def is_mirrored(self) -> Annotated[bool, core.Quantity("Mirrored")]:
        """Whether the map mirrors."""
        return bool(self.transform["mirrored"])

    @property
    def bending(
        self,
    ) -> Annotated[float | None, core.Quantity("Bends by", "nm", ".3g")]:
        """Largest displacement by an elastic map."""
        return self.transform.get("largest_nm")

    @property
    def tested_on(self) -> Annotated[str | None, core.Quantity("Tested on")]:
        """Number of landmarks or patches that the residuals were measured on."""
        kind = "landmarks held out" if self.unreliable is None else "patches held out"
        return None if self.residual_median_nm is None else f"{self.patches} {kind}"

    @property
    def next_best(self) -> Annotated[str | None, core.Quantity("Second-best position")]:
        """Second-best position, if any."""
        rivals = self.registration.rivals
        return describe_alternative(rivals[0]) if rivals else None


def check_pixel_sizes(**images: core.Micrograph) -> None:
    """Raise an error if an image lacks the pixel size that a measurement needs."""
    for role, image in images.items():
        if image.pixel_size_nm is None:
            msg = (
                f"The {role} image {image.name} has no pixel size, which this "
                f"measurement requires: set `{role}_pixel_size_nm`, or estimate it by "
                "registering the two images."
            )
            raise core.RegistrationError(msg, code="pixel-size-missing")


def describe_alternative(rival: AlternativeTransform) -> str:
    """Describe an alternative position and how well it fits."""
    share = rival.score
    alike = f"{100 * share:.0f} %" if share <= 1 else f"{share:.1f} times"
    return (
        f"fits {alike} as well, {core.describe_shift(rival.shift_nm)} from the best "
        f"position, rotated by {rival.degrees:+.1f}°"
    )


def _find_uncalibrated_role(
    run: verb.Run[RegisterOptions], moving: core.Micrograph, fixed: core.Micrograph
) -> Role | None:
    """Return the role of the uncalibrated image, after assigning a temporary size.

    A stored transform provides it; otherwise landmarks or the images determine it.
    """
    if moving.pixel_size_nm is None and fixed.pixel_size_nm is None:
        msg = (
            f"Neither {moving.name} nor {fixed.name} has a pixel size: set "
            "one of them (`moving_pixel_size_nm` or `fixed_pixel_size_nm`), and the "
            "other is estimated."
        )
        raise core.RegistrationError(msg, code="pixel-size-missing")
    if moving.pixel_size_nm is not None and fixed.pixel_size_nm is not None:
        return None
    role: Role = "moving" if moving.pixel_size_nm is None else "fixed"
    image = moving if role == "moving" else fixed
    origin = tuple(np.divide(image.origin, image.spacing_px).tolist())
    run.images[role] = image.replace(
        pixel_size_nm=(1.0, 1.0), origin=origin, spacing_px=(1.0, 1.0)
    )
    return role


def _set_estimated_size(
    run: verb.Run[RegisterOptions], role: Role, factor: float
) -> None:
    """Set the estimated pixel size of an image, and report it."""
    moving, fixed = run.get_images("moving", "fixed")
    image, other = (moving, fixed) if role == "moving" else (fixed, moving)
    image = rescale_pixel_size(image, factor)
    how = f"by registration: {other.pixel_size_from or f'that of {other.name}'}"
    origin = core.create_size_source(how, image.scale)
    metadata = {**image.metadata, core.ORIGIN_KEY: origin}
    run.images[role] = image.replace(metadata=metadata)
    core.warn(
        f"The pixel size of {image.name}, {core.format_rounded(factor)} nm, was "
        f"estimated by registration with {other.name}.",
        "pixel-size-found",
    )


# Find the map between the two images, or read it.


def _create_metadata(
    run: verb.Run[RegisterOptions],
    moving: core.Micrograph,
    fixed_image: core.Micrograph,
    facts: Mapping[str, object],
    files: Mapping[str, object],
) -> core.Job[core.Micrograph]:
    """Return the name, calibration and history of the result, without reading data."""
    guides, places = [], {}
    for name, file_given in files.items():
        if isinstance(file_given, Landmarks):
            places = {name: {"moving": file_given.moving, "fixed": file_given.fixed}}
        elif isinstance(file_given, (str, os.PathLike)) and Path(file_given).is_file():
            guides.append(record_file(file_given, name))
    name_text = f"pixel size of {run.records['fixed'].name}, to which it was registered"
    origin = core.create_size_source(
        f"{name_text}: {fixed_image.pixel_size_from}", fixed_image.scale
    )
    more = {
        # the model found replaces the one requested
        "asked": run.options.model_dump(mode="json"),
        # not an input: the position of an image does not change what it shows
        "fixed": run.records["fixed"].name,
        "fixed_digest": run.records["fixed"].digest,
        # lengths in the result have the uncertainty of the fixed image
        "pixel_size_nm": fixed_image.pixel_size_nm,
        "pixel_size_sd_nm": fixed_image.pixel_size_sd_nm,
        core.ORIGIN_KEY: origin,
        "reading": {side: run.get_read_options(side) for side in ("moving", "fixed")},
        **places,
        **facts,
    }
    result_image = moving.replace(
        pixel_size_nm=fixed_image.pixel_size_nm,
        origin=fixed_image.origin,
        metadata={**moving.metadata, core.ORIGIN_KEY: origin},
        provenance=(
            yield from run.compose_history(
                *guides, led_by="fixed", **to_json_value(more)
            )
        ),
    )
    return result_image.with_size_error(fixed_image.pixel_size_sd_nm)


def _apply_transform(
    run: verb.Run[RegisterOptions],
    transform: io.StoredTransform | Where,
    landmarks: Landmarks | Where | None,
    unsized_role: Role | None,
) -> core.Job[Registration]:
    """Apply a stored transform, from which an image may take its pixel size."""
    usual = RegisterOptions().model_dump()
    options = run.options.model_dump().items()
    flags = [f"`{name}`" for name, value in options if value != usual[name]]
    flags += [] if landmarks is None else ["`landmarks`"]
    if flags:
        msg = (
            f"A stored transform is applied unchanged: omit {', '.join(flags)}, "
            "or the transform."
        )
        raise core.OptionError(msg, code="options-contradict")
    if not isinstance(transform, io.StoredTransform):
        transform = io.read_transform(Path(transform))
    if unsized_role is not None:
        side = transform.moving if unsized_role == "moving" else transform.fixed
        _set_estimated_size(run, unsized_role, float(side.pixel_size_nm[0]))
    moving, fixed_image = run.get_images("moving", "fixed")
    records = run.records
    sides = (moving, records["moving"]), (fixed_image, records["fixed"])
    check_transform_images(transform, *sides)
    yield core.Progress(0, 0, "applying the transform")
    error = transform.quality.get("error_nm")
    return evaluate_transform(
        transform.transform,
        moving,
        fixed_image,
        model=transform.kind,
        search_name="stored",
        error_nm=float(error) if isinstance(error, (int, float)) else np.nan,
        residuals=read_residuals(transform),
    )


def _find_transform(
    run: verb.Run[RegisterOptions],
    landmarks: Landmarks | Where | None,
    unsized_role: Role | None,
) -> core.Job[Registration]:
    """Find the transform from image structure, optionally starting from landmarks."""
    options = run.options
    moving, fixed_image = run.get_images("moving", "fixed")
    if landmarks is None and unsized_role is not None and not options.landmarks_only:
        factor, registration = yield from register_uncalibrated_images(
            moving, fixed_image, options, unsized_role=unsized_role
        )
        _set_estimated_size(run, unsized_role, factor)
        return registration
    if landmarks is None:
        if options.landmarks_only:
            msg = "`landmarks_only` needs landmarks: set `landmarks` as well."
            raise core.OptionError(msg, code="missing-value")
        return (yield from register_images(moving, fixed_image, options))
    if not isinstance(landmarks, Landmarks):
        landmarks = Landmarks(*io.read_landmarks(Path(landmarks), moving, fixed_image))
    if unsized_role is not None:
        scale = fit_landmarks(landmarks, "similarity").transform.scale
        factor = scale if unsized_role == "moving" else 1 / scale
        _set_estimated_size(run, unsized_role, factor)
        moving, fixed_image = run.get_images("moving", "fixed")
        places = {"moving": landmarks.moving, "fixed": landmarks.fixed}
        places[unsized_role] = places[unsized_role] * factor
        landmarks = Landmarks(places["moving"], places["fixed"])
    grids = map(core.Grid.from_image, (moving, fixed_image))
    landmarks.check_bounds(*grids)
    if options.landmarks_only:
        if options.model == "elastic":
            msg = (
                "Landmarks alone can only determine a similarity or affine transform: "
                "set `model` to one of these, or let the images refine the result."
            )
            raise core.OptionError(msg, code="options-contradict")
        yield core.Progress(0, 0, "fitting the landmarks")
        return register_landmarks(moving, fixed_image, landmarks, options.model)
    stiff = options.model == "similarity" or len(landmarks) < _SPARE_PAIRS
    start = fit_landmarks(landmarks, "similarity" if stiff else "affine").transform
    registration = yield from register_images(moving, fixed_image, options, start=start)
    # warn of landmarks that the images contradict
    off = np.hypot(*(registration.transform(landmarks.moving) - landmarks.fixed).T)
    limit = _ASTRAY_PX * max(*moving.scale, *fixed_image.scale)
    astray = np.flatnonzero(off > limit)
    if astray.size:
        worst = int(off.argmax())
        core.warn(
            f"Landmark {worst + 1} is {off[worst]:.0f} nm from its position in the "
            f"images ({astray.size} of {len(landmarks)} are more than {limit:.0f} nm "
            "off): check that each pair marks the same point.",
            "landmarks-contradict",
        )
    return registration


def check_transform_images(
    transform_file: io.StoredTransform,
    moving: tuple[core.Micrograph, core.InputRecord],
    fixed_side: tuple[core.Micrograph, core.InputRecord],
) -> None:
    """Raise an error for a transform of other images; warn if only the area matches."""
    theirs = transform_file.fixed.digest, transform_file.moving.digest
    pairs = zip(theirs, (moving[1], fixed_side[1]), strict=True)
    is_exchanged = all(
        one is not None and one in collect_digests(image_seen)
        for one, image_seen in pairs
    )
    if is_exchanged and theirs[0] != theirs[1]:
        msg = (
            f"The transform maps {transform_file.moving.name} onto "
            f"{transform_file.fixed.name}, not the reverse: swap the images, or "
            "register them in this order."
        )
        raise core.RegistrationError(msg, code="images-exchanged")
    for (image, record), side, which in (
        (moving, transform_file.moving, "moving"),
        (fixed_side, transform_file.fixed, "fixed"),
    ):
        fault = side.describe_difference(image)
        if fault is not None:
            msg = (
                f"The transform is for {side.name} as the {which} image, not for "
                f"{image.name}: {fault}. Use the images that it was computed from, or "
                "register again."
            )
            raise core.RegistrationError(msg, code="transform-of-other-image")
        if side.digest is None or side.digest in collect_digests(record, in_place=True):
            continue
        if side.digest in collect_digests(record):
            core.warn(
                f"{image.name} was derived from {side.name}, for which the transform "
                "was computed, but has since been registered or stitched: its pixels "
                "have moved, and the transform may be applied twice. Use "
                f"{side.name}, or register again.",
                "transform-applied-twice",
            )
        else:
            core.warn(
                f"{image.name} differs from {side.name}, the image that the "
                "transform was computed from, but has the same extent: check that "
                "both show the same area.",
                "transform-of-other-image",
            )


# Records of a map.


def read_residuals(transform_file: io.StoredTransform) -> RegistrationResiduals:
    """Read the residuals of a stored transform; empty if it has none."""
    residuals = transform_file.quality.get("residuals")
    if not isinstance(residuals, Mapping):
        return RegistrationResiduals()
    try:
        read = RegistrationResiduals(
            np.array(residuals["places_nm"], dtype=float).reshape(-1, 2),
            np.array(residuals["off_nm"], dtype=float).reshape(-1, 2),
            np.array(residuals["reliable"], dtype=bool).reshape(-1),
            float(residuals["side_nm"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        msg = f"The residuals of the transform are damaged ({error}): register again."
        raise core.ReadError(msg, code="file-damaged") from error
    if not len(read.places_nm) == len(read.off_nm) == len(read.reliable):
        msg = "The residuals of the transform are incomplete: register again."
        raise core.ReadError(msg, code="file-damaged")
    return read


def describe_registration(registration: Registration) -> dict[str, Any]:
    """Return the parameters and quality measures of a registration."""
    off = np.hypot(*registration.residuals.off_nm.T)
    off = off[np.isfinite(off)]
    none = off.size == 0
    return {
        "model": registration.model,
        "transform": create_transform_record(
            registration.transform, registration.residuals.places_nm
        ),
        "error_px": _replace_nonfinite(registration.error_px),
        "error_nm": _replace_nonfinite(registration.error_nm),
        "overlap": registration.overlap,
        "mutual_information_before": registration.mutual_information_before,
        "mutual_information_after": registration.mutual_information_after,
        "searched": registration.search_name,
        "score": registration.score
        if registration.search_name in ("near", "full")
        else None,
        "rivals": to_json_value(registration.rivals),
        "residual_median_nm": None if none else float(np.median(off)),
        "residual_p95_nm": None if none else float(np.percentile(off, 95)),
        "patches": len(registration.residuals.places_nm),
        "unreliable": _compute_unreliable_fraction(registration),
    }


def _replace_nonfinite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _compute_unreliable_fraction(registration: Registration) -> float | None:
    """Return the fraction of patches in which the registration is unreliable."""
    residuals = registration.residuals
    is_measured = residuals.reliable.size and residuals.side_nm > 0
    return 1 - float(residuals.reliable.mean()) if is_measured else None


def create_transform_record(
    transform: core.Affine | core.Elastic, residuals: core.FloatArray
) -> dict[str, Any]:
    """Return the parameters of a transform (incomplete for an elastic one).

    Its knots extend beyond the overlap, where they are not constrained: the largest
    displacement is that at tested positions of the fixed image.
    """
    affine = transform.affine if isinstance(transform, core.Elastic) else transform
    pairs = zip(affine.matrix, affine.shift, strict=True)
    record = {
        "matrix": [[*row, move] for row, move in pairs],
        "degrees": affine.degrees,
        "scale": affine.scale,
        "mirrored": affine.is_mirrored,
    }
    if isinstance(transform, core.Elastic):
        bending = transform.bending
        record["spacing_nm"] = list(bending.spacing)
        moves = bending.displacement(residuals) if len(residuals) else None
        largest = None if moves is None else float(np.hypot(*moves.T).max())
        record["largest_nm"] = largest
    return record


def _warn_if_unreliable(registration: Registration, options: RegisterOptions) -> None:
    """Warn about anything that makes a registration unreliable."""
    transform = registration.transform
    if registration.search_name == "full" and options.search == "near":
        affine = transform.affine if isinstance(transform, core.Elastic) else transform
        mirror_note = "mirrored, " if affine.is_mirrored else ""
        core.warn(
            "No match was found near the stated pixel sizes, so all rotations were "
            f"searched: {mirror_note}rotated by {affine.degrees:.1f} degrees, scaled "
            f"by {affine.scale:.3f}. Compare the images.",
            "found-elsewhere",
        )
    if registration.overlap < _LITTLE:
        core.warn(
            f"The overlap covers only {100 * registration.overlap:.0f} % of the "
            f"smaller image, less than {100 * _LITTLE:.0f} %: the transform is "
            "reliable in the overlap, and extrapolated elsewhere.",
            "overlap-small",
        )
    if registration.error_px > _DOUBTFUL_PX:
        core.warn(
            f"The expected error of the transform is {registration.error_px:.2g} px "
            f"({core.format_rounded(registration.error_nm)} nm): do not compare "
            "details of that size.",
            "map-imprecise",
        )
    elif not np.isfinite(registration.error_px):
        core.warn(
            "The error of the transform is unknown: add another landmark, or let the "
            "images refine the transform."
            if registration.search_name == "landmarks"
            else "The stored transform does not include an expected error.",
            "map-error-unknown",
        )
    share = _compute_unreliable_fraction(registration)
    if share is not None and share > _UNRELIABLE:
        or_else = "one is distorted (try `model=elastic`)"
        if isinstance(transform, core.Elastic):
            or_else = "have too little detail for an elastic map (try `model=affine`)"
        core.warn(
            f"The transform is not confirmed in {100 * share:.0f} % of the overlap: "
            f"the images differ there, or {or_else}.",
            "map-unconfirmed",
        )


LANDMARKS_IN = verb.FileInput(
    "landmarks",
    "pairs of corresponding points, from which the map is refined",
    flag="--landmarks",
    metavar="CSV",
)
TRANSFORM_IN = verb.FileInput(
    "transform",
    "apply this stored map instead of searching for one",
    flag="--transform",
    metavar="JSON",
)


@verb.command(title="registration", gives=Registered)
def register(
    run: verb.Run[RegisterOptions],
    moving: Annotated[
        core.Micrograph,
        verb.ImageInput(
            help="the image to be registered: the optical mosaic",
            side="moving",
        ),
    ],
    fixed: Annotated[
        core.Micrograph,
        verb.ImageInput(
            help="the image that defines the result's pixel grid: the SEM image",
            side="fixed",
        ),
    ],
    output: Annotated[
        Path | None,
        verb.Output(
            "output: MOVING resampled on the grid of FIXED; its suffix sets the format",
            may_stay_in_memory=True,
        ),
    ],
    *,
    options: RegisterOptions,
    landmarks: Annotated[
        Landmarks | Mapping[str, object] | str | Path | None, LANDMARKS_IN
    ] = None,
    transform: Annotated[io.StoredTransform | str | Path | None, TRANSFORM_IN] = None,
    transform_out: Annotated[
        Path | None,
        verb.Output(
            "write the map here: .json for other images, or .tfm (ITK), "
            ".ngff.json or .csv (napari) for other programs, not for elastic "
            "maps",
            metavar="FILE",
            ending=".json",
            also=io.TRANSFORM_SUFFIXES[1:],
        ),
    ] = None,
) -> core.Job[Registered]:
    """Register an image to another of the same area, whatever its contrast.

    Examples
    --------
    >>> from napari_semsr.registration import Landmarks
    >>> image = semsr.Micrograph(np.eye(64), (10.0, 10.0))
    >>> places = np.array([[0.0, 0.0], [0.0, 600.0], [600.0, 0.0], [600.0, 600.0]])
    >>> marks = Landmarks(places, places)
    >>> found = semsr.register(image, image, landmarks=marks, landmarks_only=True)
    >>> found.image.shape, round(found.registration.transform.scale, 6)
    ((64, 64), 1.0)
    """
    if isinstance(landmarks, Mapping):  # as histories record them
        landmarks = Landmarks(*map(np.array, landmarks.values()))
    if transform_out is not None and output is None:
        msg = (
            "A transform can only be written together with an image: also set an "
            "output."
        )
        raise core.OptionError(msg, code="missing-value")
    for role, image in run.images.items():  # the names that the user knows
        run.images[role] = image.replace(name=run.get_image_name(role))
    moving, fixed = run.get_images("moving", "fixed")
    run.roles = {"moving": "image"}
    unsized_role = _find_uncalibrated_role(run, moving, fixed)
    for role in ("moving", "fixed"):  # after all checks, as it reads large images
        yield from run.record_image(role)
    if transform is not None:
        finding = _apply_transform(run, transform, landmarks, unsized_role)
    else:
        finding = _find_transform(run, landmarks, unsized_role)
    registration = yield from finding
    moving, fixed = run.get_images("moving", "fixed")
    _warn_if_unreliable(registration, options)
    facts = describe_registration(registration)
    quality = {name: value for name, value in facts.items() if name != "transform"}
    if len(registration.residuals.places_nm):  # so that others can use them
        quality["residuals"] = registration.residuals
    transform_file = io.StoredTransform(
        registration.transform,
        io.ImageIdentity.from_image(moving, run.records["moving"].digest),
        io.ImageIdentity.from_image(fixed, run.records["fixed"].digest),
        to_json_value(quality),
    )
    if transform_out is not None:  # before the image, as the map took longest
        io.write_transform(transform_out, transform_file)
    files = {"landmarks": landmarks, "transform": transform}
    about = yield from _create_metadata(run, moving, fixed, facts, files)
    grid = core.Grid.from_image(fixed)
    warped_image = core.WarpedImage(moving, grid, registration.transform)
    image_made, dtype = None, str(warped_image.dtype)
    if output is None:
        image_made = about.replace(
            data=create_lazy_array(warped_image, _CHUNK),
            metadata={**about.metadata, "register": to_json_value(facts)},
        )
    else:
        written_file = yield from write_pixels(
            warped_image, about, output, message="writing", existing=run.existing
        )
        dtype = written_file.dtype
    sized_image = {None: None, "moving": moving, "fixed": fixed}[unsized_role]
    return Registered(
        found_size_of=None if sized_image is None else sized_image.name,
        found_pixel_size_nm=None
        if sized_image is None
        else float(sized_image.scale[0]),
        output=run.output,
        transform_output=None if transform_out is None else str(transform_out),
        shape=fixed.shape,
        dtype=dtype,
        pixel_size_nm=fixed.scale,
        pixel_size_sd_nm=fixed.pixel_size_sd_nm,
        origin=fixed.origin,
        image=image_made,
        registration=registration,
        stored_transform=transform_file,
        **facts,
    )
