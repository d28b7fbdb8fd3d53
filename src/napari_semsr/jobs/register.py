"""Bring an image onto another of the same place, and keep the map between them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from napari_semsr.core import (
    ORIGIN_KEY,
    Affine,
    Elastic,
    FloatArray,
    FloatPair,
    Grid,
    InputRecord,
    IntPair,
    Job,
    Micrograph,
    OptionError,
    Progress,
    Quantity,
    ReadError,
    RegistrationError,
    Warped,
    figure,
    in_digits,
    option,
    recorded,
    shift_in_words,
    size_origin,
    warn,
)
from napari_semsr.io import (
    TRANSFORM_SUFFIXES,
    ReadOptions,
    Side,
    StoredTransform,
    read_landmarks,
    read_transform,
    write_transform,
)
from napari_semsr.jobs.images import (
    Image,
    Result,
    digests_of,
    jsonable,
    lazy_pixels,
    name_of,
    record_file,
    write_area,
)
from napari_semsr.jobs.verb import (
    FileIn,
    ImageIn,
    Output,
    Run,
    Verb,
    size_figure,
)
from napari_semsr.registration import (
    AlternativeTransform,
    Landmarks,
    Registration,
    RegistrationOptions,
    Residuals,
    fit_landmarks,
    register,
    register_landmarks,
    register_unsized,
    resized,
    take_map,
)

Where = str | os.PathLike[str]
Role = Literal["moving", "fixed"]

_CHUNK = 1024  # pixels along each side of what is computed at once; chosen
_SPARE_PAIRS = 4  # landmarks from which on an affine start leaves a number to judge it
_LITTLE = 0.3  # of the smaller image; below it registration was not tested
COSTLY_PX = 0.5  # expected error; pairs as far off lost 0.3 dB and more in training
_DOUBTFUL_PX = 1.0  # expected error; chosen: details of a pixel are then not compared
_UNRELIABLE = 0.3  # share of patches; chosen: the map is then wrong over whole areas
_ASTRAY_PX = 10.0  # landmark off the found map; chosen: clicks land within a few pixels


class RegisterOptions(RegistrationOptions):
    """How an image is brought onto another, and what landmarks decide."""

    landmarks_only: bool = option(
        False,
        "Landmarks alone decide",
        "take the map from the landmarks alone, whatever the images show; else they "
        "are where it starts",
    )


_FOUND = {
    "near": "search near what the pixel sizes say",
    "full": "search of every turn",
    "landmarks": "landmarks",
    "stored": "stored transform",
}


_ERROR = Quantity("Expected error", "px", ".2g", verdict="verdict", large=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered(Result):
    """An image on the grid of another, written or not, and what the map is worth.

    `found_pixel_size_nm` is that of the image `found_size_of`, which had none; both are
    None where both images had one.

    What is not written is `image`, a dask array that is computed where it is looked at;
    NaN is where the moving image shows nothing. `registration` is the map, `stored` the
    same as `write_transform` takes it. `transform` has the affine ``matrix`` ``[[yy,
    yx, y], [xy, xx, x]]`` from the moving to the fixed image in nm; the same as
    ``degrees``, ``scale`` and ``mirrored``; of an elastic map also the ``spacing_nm``
    of its knots and ``largest_nm``, by which it bends at most where it was tested. The
    expected error is the root mean square over the overlap, in pixels of the coarser
    image and in nm, the mutual information in bits, by the origins alone and after
    registration, `score` the height of the search's best place in deviations of chance.
    Residuals are of patches or landmarks that were held out; `unreliable` is the share
    of the patches where the map cannot be believed.
    """

    found_size_of: Annotated[str | None, Quantity("Pixel size found of")]
    found_pixel_size_nm: Annotated[
        float | None, Quantity("Pixel size found", "nm", ".4g")
    ]
    output: str | None
    transform_output: Annotated[str | None, Quantity("Transform")]
    shape: IntPair
    dtype: Annotated[str, Quantity("Type")]
    pixel_size_nm: Annotated[FloatPair, recorded("Pixel size", "nm", ".6g")]
    pixel_size_sd_nm: FloatPair | None
    origin: Annotated[FloatPair, recorded("Origin", "nm")]
    model: Annotated[str, recorded("Model")]
    transform: Annotated[dict[str, Any], recorded("Transform")]
    error_px: Annotated[float | None, _ERROR]
    error_nm: Annotated[
        float | None,
        replace(_ERROR, unit="nm", form=".3g", also="error_px", reason="no_error"),
    ]
    overlap: Annotated[float, Quantity("Overlap", "of the smaller image", ".0%")]
    mutual_information_before: Annotated[
        float, Quantity("Mutual information before", "bit", ".2f")
    ]
    mutual_information_after: Annotated[
        float, Quantity("Mutual information", "bit", ".2f")
    ]
    searched: Annotated[str, recorded("Searched")]
    score: Annotated[float | None, recorded("Score")]
    rivals: Annotated[
        list[dict[str, Any]], recorded("Rivals", keys=AlternativeTransform)
    ]
    residual_median_nm: Annotated[float | None, Quantity("Residual", "nm", ".3g")]
    residual_p95_nm: Annotated[float | None, Quantity("95 % under", "nm", ".3g")]
    patches: Annotated[int, recorded("Patches", form="d")]
    unreliable: Annotated[float | None, Quantity("Unreliable", "of the patches", ".0%")]
    image: Micrograph | None = field(metadata={"json": False})
    registration: Registration = field(metadata={"json": False})
    stored: StoredTransform = field(metadata={"json": False})

    @property
    def verdict(self) -> str:
        """What to think of the error."""
        if self.error_px is None:
            return ""
        if self.error_px <= 1:
            return "less than a pixel of the coarser image"
        return f"{self.error_px:.2g} pixels of the coarser image: look at the overlay"

    no_error: ClassVar = "nothing tells it"
    pixel_size = size_figure()
    found = figure(lambda made: f"{made.model}, by {_FOUND[made.searched]}", "Map")

    @property
    def shift(self) -> Annotated[str, Quantity("Shift")]:
        """By how much the middle of the moving image goes."""
        side = self.stored.moving
        half = (np.array(side.shape) - 1) / 2
        middle = np.array(side.origin_nm) + half * np.array(side.pixel_size_nm)
        down, right = (self.stored.transform(middle[None]) - middle)[0]
        return shift_in_words((float(down), float(right)))

    @property
    def turn(self) -> Annotated[str, Quantity("Turn")]:
        """By how much it is turned, without a sign."""
        turned = round(self.transform["degrees"], 2)
        return f"{abs(turned):.2f}° {'anticlockwise' if turned < 0 else 'clockwise'}"

    scale = figure(lambda made: made.transform["scale"], "Scale", form=".4f")
    mirrored = figure(lambda made: bool(made.transform["mirrored"]), "Mirrored")
    bending = figure(
        lambda made: made.transform.get("largest_nm"), "Bends by", "nm", ".3g"
    )

    @property
    def tested(self) -> Annotated[str | None, Quantity("Tested on")]:
        """What the residuals are of."""
        kind = "landmarks left out" if self.unreliable is None else "patches held out"
        return None if self.residual_median_nm is None else f"{self.patches} {kind}"

    @property
    def next_best(self) -> Annotated[str | None, Quantity("Next best place")]:
        """Where else the image would lie."""
        found = self.registration.rivals
        return rival_in_words(found[0]) if found else None


def require_pixel_sizes(**images: Micrograph) -> None:
    """Refuse to measure by a pixel size that registering alone would find."""
    for role, image in images.items():
        if image.pixel_size_nm is None:
            msg = (
                f"The {role} image {image.name} has no pixel size, by which the result "
                f"is measured: give it (`{role}_pixel_size_nm`); registering the two "
                "images finds it."
            )
            raise RegistrationError(msg, code="pixel-size-missing")


def rival_in_words(rival: AlternativeTransform) -> str:
    """Say where another place lies, and how well it fits beside what was tried."""
    share = rival.score
    alike = f"{share:.0%}" if share <= 1 else f"{share:.1f} times"
    return (
        f"{alike} as well, {shift_in_words(rival.shift_nm)} of the first place, "
        f"turned by {rival.degrees:+.1f}°"
    )


def _register(
    run: Run[RegisterOptions], moving: Micrograph, fixed: Micrograph
) -> Job[Registered]:
    """Bring an image onto another: write it on the grid of that one, or give it."""
    given = run.named.get("landmarks")
    if isinstance(given, Mapping):  # as a history holds them
        run.named["landmarks"] = Landmarks(*map(np.array, given.values()))
    beside = run.targets.get("transform_out")
    if beside is not None and run.target is None:
        msg = "A map is written beside an image: give an output as well."
        raise OptionError(msg, code="missing-value")
    for role in ("moving", "fixed"):  # as the user calls them
        run.images[role] = run.images[role].replace(name=name_of(run.given[role]))
    unsized = _unsized(run)
    for role in run.images:  # once none is refused: large images are read for it
        yield from run.record(role)
    found, stored = yield from _mapped(run, unsized)
    moving, fixed = run.images["moving"], run.images["fixed"]
    if beside is not None:  # before the image: what took long is kept in any case
        write_transform(beside, stored)
    about = yield from _about(run, moving, fixed, found)
    seen = Warped(moving, Grid.of(fixed), found.transform)
    made, dtype = None, str(seen.dtype)
    if run.target is None:
        facts = {**about.metadata, "register": jsonable(map_facts(found))}
        made = about.replace(data=lazy_pixels(seen, _CHUNK), metadata=facts)
    else:
        how: dict[str, Any] = {"message": "writing", "existing": run.existing}
        dtype = (yield from write_area(seen, about, run.target, **how)).dtype
    sized = None if unsized is None else run.images[unsized]
    return Registered(
        found_size_of=None if sized is None else sized.name,
        found_pixel_size_nm=None if sized is None else float(sized.scale[0]),
        output=run.output,
        transform_output=None if beside is None else str(beside),
        shape=fixed.shape,
        dtype=dtype,
        pixel_size_nm=fixed.scale,
        pixel_size_sd_nm=fixed.pixel_size_sd_nm,
        origin=fixed.origin,
        image=made,
        registration=found,
        stored=stored,
        **map_facts(found),
    )


def register_as(
    run: Run[Any],
    moving: Image,
    fixed: Image,
    reading: ReadOptions,
    *,
    transform: StoredTransform | str | None = None,
    **changes: Any,
) -> Job[Registered]:
    """Register two images by the options and files of a run of another verb.

    `reading` is of the fixed image; `changes` are of the options.
    """
    chosen = run.options.model_dump(include={*RegisterOptions.model_fields})
    return (
        yield from REGISTER.job(
            moving,
            fixed,
            options=RegisterOptions(**(chosen | changes)),
            landmarks=run.named["landmarks"],
            transform=transform or run.named["transform"],
            opening=run.opening,
            fixed_opening=reading,
        )
    )


def _unsized(run: Run[RegisterOptions]) -> Role | None:
    """Name the image without a pixel size, of which one is assumed for now.

    A stored transform states it, and landmarks or the images let it be found.
    """
    roles: tuple[Role, Role] = ("moving", "fixed")
    lacking = [role for role in roles if run.images[role].pixel_size_nm is None]
    if len(lacking) == 2:
        one = run.images["moving"]
        msg = (
            f"Neither {one.name} nor {run.images['fixed'].name} has a pixel size: give "
            "one of them its own (`moving_pixel_size_nm`, `fixed_pixel_size_nm`), and "
            "that of the other is found."
        )
        raise RegistrationError(msg, code="pixel-size-missing")
    for role in lacking:
        image = run.images[role]
        origin = tuple(np.divide(image.origin, image.spacing_px).tolist())
        run.images[role] = image.replace(
            pixel_size_nm=(1.0, 1.0), origin=origin, spacing_px=(1.0, 1.0)
        )
    return lacking[0] if lacking else None


def _note_size(run: Run[RegisterOptions], role: Role, factor: float) -> None:
    """Give an image the pixel size that was found, and report it."""
    other = run.images["fixed" if role == "moving" else "moving"]
    image = resized(run.images[role], factor)
    how = f"found by registration: {other.pixel_size_from or f'that of {other.name}'}"
    origin = size_origin(how, image.scale)
    run.images[role] = image.replace(metadata={**image.metadata, ORIGIN_KEY: origin})
    warn(
        f"{image.name} has no pixel size; one of {in_digits(factor)} nm was found by "
        f"registering it with {other.name}.",
        "pixel-size-found",
    )


# Find the map between both images, or take it.


def _about(
    run: Run[RegisterOptions],
    moving: Micrograph,
    fixed: Micrograph,
    found: Registration,
) -> Job[Micrograph]:
    """Name, calibration and history of the result; the data are not looked at."""
    guides, places = [], {}
    for name in ("landmarks", "transform"):
        given = run.named.get(name)
        if isinstance(given, Landmarks):
            places = {name: {"moving": given.moving, "fixed": given.fixed}}
        elif isinstance(given, (str, os.PathLike)) and Path(given).is_file():
            guides.append(record_file(given, name))
    called = f"that of {run.records['fixed'].name}, to which it was registered"
    origin = size_origin(f"{called}: {fixed.pixel_size_from}", fixed.scale)
    more = {
        # the model that was found stands in place of the one asked for
        "asked": run.options.model_dump(mode="json"),
        # no input: what an image shows is not made of where it lies
        "fixed": run.records["fixed"].name,
        "fixed_digest": run.records["fixed"].digest,
        # lengths in the result are as sure as those in the fixed image
        "pixel_size_nm": fixed.pixel_size_nm,
        "pixel_size_sd_nm": fixed.pixel_size_sd_nm,
        ORIGIN_KEY: origin,
        "reading": {side: run.reading(side) for side in run.given},
        **places,
        **map_facts(found),
    }
    made = moving.replace(
        pixel_size_nm=fixed.pixel_size_nm,
        origin=fixed.origin,
        metadata={**moving.metadata, ORIGIN_KEY: origin},
        provenance=(yield from run.history(*guides, **jsonable(more))),
    )
    return made.with_size_error(fixed.pixel_size_sd_nm)


def _mapped(
    run: Run[RegisterOptions], unsized: Role | None
) -> Job[tuple[Registration, StoredTransform]]:
    """Find the map, or take one that is given; both as it is stored, too.

    The image without a pixel size has the one that was found afterwards.
    """
    options, landmarks = run.options, run.named.get("landmarks")
    transform, records = run.named.get("transform"), run.records
    if transform is not None:
        _check_stored(options, landmarks)
        if not isinstance(transform, StoredTransform):
            transform = read_transform(Path(transform))
        if unsized is not None:
            side = transform.moving if unsized == "moving" else transform.fixed
            _note_size(run, unsized, float(side.pixel_size_nm[0]))
        moving, fixed = run.images["moving"], run.images["fixed"]
        sides = (moving, records["moving"]), (fixed, records["fixed"])
        check_sides(transform, *sides)
        yield Progress(0, 0, "applying the transform")
        error = transform.quality.get("error_nm")
        found = take_map(
            transform.transform,
            moving,
            fixed,
            model=transform.kind,
            searched="stored",
            error_nm=float(error) if isinstance(error, (int, float)) else np.nan,
            residuals=residuals_of(transform),
        )
    else:
        found = yield from _found(run, options, landmarks, unsized)
        moving, fixed = run.images["moving"], run.images["fixed"]
    _tell(found, options)
    facts = {k: v for k, v in map_facts(found).items() if k != "transform"}
    if len(found.residuals.places_nm):  # so that others can use them
        facts["residuals"] = found.residuals
    stored = StoredTransform(
        found.transform,
        Side.of(moving, records["moving"].digest),
        Side.of(fixed, records["fixed"].digest),
        jsonable(facts),
    )
    return found, stored


def _found(
    run: Run[RegisterOptions],
    options: RegisterOptions,
    landmarks: Landmarks | Where | None,
    unsized: Role | None,
) -> Job[Registration]:
    """Find the map by structure, from landmarks or not."""
    moving, fixed = run.images["moving"], run.images["fixed"]
    if landmarks is None and unsized is not None and not options.landmarks_only:
        job = register_unsized(moving, fixed, options, unsized=unsized)
        factor, found = yield from job
        _note_size(run, unsized, factor)
        return found
    if landmarks is None:
        if options.landmarks_only:
            msg = "A map of landmarks alone needs landmarks: give `landmarks` as well."
            raise OptionError(msg, code="missing-value")
        return (yield from register(moving, fixed, options))
    if not isinstance(landmarks, Landmarks):
        landmarks = Landmarks(*read_landmarks(Path(landmarks), moving, fixed))
    if unsized is not None:
        scale = fit_landmarks(landmarks, "similarity").transform.scale
        factor = scale if unsized == "moving" else 1 / scale
        _note_size(run, unsized, factor)
        moving, fixed = run.images["moving"], run.images["fixed"]
        places = {"moving": landmarks.moving, "fixed": landmarks.fixed}
        places[unsized] = places[unsized] * factor
        landmarks = Landmarks(places["moving"], places["fixed"])
    landmarks.check(Grid.of(moving), Grid.of(fixed))
    if options.landmarks_only:
        if options.model == "elastic":
            msg = (
                "Landmarks alone give a similarity or an affine map: choose one of "
                "them (`model`), or let the images refine it."
            )
            raise OptionError(msg, code="options-contradict")
        yield Progress(0, 0, "fitting the landmarks")
        return register_landmarks(moving, fixed, landmarks, options.model)
    stiff = options.model == "similarity" or len(landmarks) < _SPARE_PAIRS
    start = fit_landmarks(landmarks, "similarity" if stiff else "affine").transform
    found = yield from register(moving, fixed, options, start=start)
    # say which landmarks the images contradict
    off = np.hypot(*(found.transform(landmarks.moving) - landmarks.fixed).T)
    limit = _ASTRAY_PX * max(*moving.scale, *fixed.scale)
    astray = np.flatnonzero(off > limit)
    if astray.size:
        worst = int(off.argmax())
        warn(
            f"Landmark {worst + 1} lies {off[worst]:.0f} nm from where the images say "
            f"({astray.size} of {len(landmarks)} farther than {limit:.0f} nm): check "
            "that each pair marks one place.",
            "landmarks-contradict",
        )
    return found


def _check_stored(
    options: RegisterOptions, landmarks: Landmarks | Where | None
) -> None:
    """Refuse to find a map that is given."""
    usual = RegisterOptions().model_dump()
    given = (name for name, v in options.model_dump().items() if v != usual[name])
    asked = [f"`{name}`" for name in given]
    if landmarks is not None:
        asked.append("`landmarks`")
    if asked:
        msg = (
            f"A stored transform is applied as it is: leave out {', '.join(asked)}, or "
            "the transform."
        )
        raise OptionError(msg, code="options-contradict")


def check_sides(
    stored: StoredTransform,
    moving: tuple[Micrograph, InputRecord],
    fixed: tuple[Micrograph, InputRecord],
) -> None:
    """Refuse a map of other images, and say where another image shows the same area."""
    theirs = stored.fixed.digest, stored.moving.digest
    pairs = zip(theirs, (moving[1], fixed[1]), strict=True)
    exchanged = all(one is not None and one in digests_of(seen) for one, seen in pairs)
    if exchanged and theirs[0] != theirs[1]:
        msg = (
            f"The transform brings {stored.moving.name} onto {stored.fixed.name}, not "
            "the other way round: exchange the images, or register them so."
        )
        raise RegistrationError(msg, code="images-exchanged")
    for (image, record), side, which in (
        (moving, stored.moving, "moving"),
        (fixed, stored.fixed, "fixed"),
    ):
        fault = side.differs(image)
        if fault is not None:
            msg = (
                f"The transform is for {side.name} as the {which} image, not for "
                f"{image.name}: {fault}. Take the images that it was found with, or "
                "register again."
            )
            raise RegistrationError(msg, code="transform-of-other-image")
        if side.digest is None or side.digest in digests_of(record, in_place=True):
            continue
        if side.digest in digests_of(record):
            warn(
                f"{image.name} was made of {side.name}, which the transform was found "
                "with, but was registered or stitched since: its pixels lie elsewhere, "
                f"and the transform may be applied twice. Take {side.name}, or "
                "register again.",
                "transform-applied-twice",
            )
        else:
            warn(
                f"{image.name} is not the image that the transform was found with, "
                f"{side.name}, but covers the same area: check that both show one "
                "place.",
                "transform-of-other-image",
            )


# What is known of a map, for the record and for its file.


def residuals_of(stored: StoredTransform) -> Residuals:
    """Read residuals of a stored map; none where there are none."""
    kept = stored.quality.get("residuals")
    if not isinstance(kept, Mapping):
        return Residuals()
    try:
        read = Residuals(
            np.array(kept["places_nm"], dtype=float).reshape(-1, 2),
            np.array(kept["off_nm"], dtype=float).reshape(-1, 2),
            np.array(kept["reliable"], dtype=bool).reshape(-1),
            float(kept["side_nm"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        msg = f"The residuals of the transform are damaged ({error}): register again."
        raise ReadError(msg, code="file-damaged") from error
    if not len(read.places_nm) == len(read.off_nm) == len(read.reliable):
        msg = "The residuals of the transform are not whole: register again."
        raise ReadError(msg, code="file-damaged")
    return read


def map_facts(found: Registration) -> dict[str, Any]:
    """Say what a map is and what it is worth."""
    off = np.hypot(*found.residuals.off_nm.T)
    off = off[np.isfinite(off)]
    none = off.size == 0
    return {
        "model": found.model,
        "transform": told(found.transform, found.residuals.places_nm),
        "error_px": _finite(found.error_px),
        "error_nm": _finite(found.error_nm),
        "overlap": found.overlap,
        "mutual_information_before": found.mutual_information_before,
        "mutual_information_after": found.mutual_information_after,
        "searched": found.searched,
        "score": found.score if found.searched in ("near", "full") else None,
        "rivals": jsonable(found.rivals),
        "residual_median_nm": None if none else float(np.median(off)),
        "residual_p95_nm": None if none else float(np.percentile(off, 95)),
        "patches": len(found.residuals.places_nm),
        "unreliable": _unreliable(found),
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _unreliable(found: Registration) -> float | None:
    """Share of the patches where a map cannot be believed."""
    reliable, is_patches = found.residuals.reliable, found.residuals.side_nm > 0
    return 1 - float(reliable.mean()) if reliable.size and is_patches else None


def told(transform: Affine | Elastic, tested: FloatArray) -> dict[str, Any]:
    """Say a map in numbers; all of an elastic one's are in its file.

    Its knots reach beyond what both images show, where nothing holds them: how far it
    bends is said of the places in the fixed image where it was tested.
    """
    affine = transform.affine if isinstance(transform, Elastic) else transform
    pairs = zip(affine.matrix, affine.shift, strict=True)
    said: dict[str, Any] = {
        "matrix": [[*row, move] for row, move in pairs],
        "degrees": affine.degrees,
        "scale": affine.scale,
        "mirrored": affine.is_mirrored,
    }
    if isinstance(transform, Elastic):
        bending = transform.bending
        said["spacing_nm"] = list(bending.spacing)
        moves = bending.displacement(tested) if len(tested) else None
        said["largest_nm"] = None if moves is None else float(np.hypot(*moves.T).max())
    return said


def _tell(found: Registration, options: RegisterOptions) -> None:
    """Say what makes a map doubtful."""
    if found.searched == "full" and options.search == "near":
        warn(
            "Nothing was found near what pixel sizes say, so every turn was searched: "
            f"{_pose(found.transform)}. Compare the images.",
            "found-elsewhere",
        )
    if found.overlap < _LITTLE:
        warn(
            f"The images share {found.overlap:.0%} of the smaller one, less than "
            f"{_LITTLE:.0%}: the map holds there, and is a guess elsewhere.",
            "overlap-small",
        )
    if found.error_px > _DOUBTFUL_PX:
        warn(
            f"The map is expected to be {found.error_px:.2g} px "
            f"({in_digits(found.error_nm)} nm) off: do not compare details of that "
            "size.",
            "map-imprecise",
        )
    elif not np.isfinite(found.error_px):
        warn(
            "Nothing tells how far off the map is: mark another place, or let the "
            "images refine it."
            if found.searched == "landmarks"
            else "The transform does not state how far off it is.",
            "map-error-unknown",
        )
    share = _unreliable(found)
    if share is not None and share > _UNRELIABLE:
        or_else = "are bent (`model=elastic`)"
        if isinstance(found.transform, Elastic):
            or_else = "too little there to tell a bending (`model=affine`)"
        warn(
            f"Over {share:.0%} of what both images show the map is not confirmed: they "
            f"show other things there, or {or_else}.",
            "map-unconfirmed",
        )


def _pose(transform: Affine | Elastic) -> str:
    """Say how an image lies."""
    affine = transform.affine if isinstance(transform, Elastic) else transform
    turned = f"turned by {affine.degrees:.1f} degrees, scaled by {affine.scale:.3f}"
    return f"mirrored, {turned}" if affine.is_mirrored else turned


LANDMARKS_IN = FileIn(
    "landmarks",
    "places that show the same in both, from which the map starts",
    flag="--landmarks",
    metavar="CSV",
    takes=Landmarks,
)
TRANSFORM_IN = FileIn(
    "transform",
    "apply this stored map, and search for none",
    flag="--transform",
    metavar="JSON",
    takes=StoredTransform,
)
REGISTER = Verb(
    "register",
    (
        ImageIn(
            "moving",
            "the image that is brought onto the other: the optical mosaic",
            role="image",
        ),
        ImageIn(
            "fixed",
            "the image that stays, and gives the result its pixels: the SEM image",
            guide=True,
        ),
    ),
    RegisterOptions,
    Registered,
    _register,
    title="registration",
    files=(LANDMARKS_IN, TRANSFORM_IN),
    output=Output(
        "where MOVING on the grid of FIXED goes; its suffix names the format",
        goes_on=True,
        kept=True,
    ),
    outputs=(
        Output(
            "write the map here: .json for other images, or .tfm (ITK), .ngff.json or "
            ".csv (napari) for other programs, which hold no elastic one",
            name="transform_out",
            required=False,
            flag="--transform-out",
            metavar="FILE",
            ending=".json",
            also=TRANSFORM_SUFFIXES[1:],
        ),
    ),
    sides=("moving", "fixed"),
    numbers=("error_px", "error_nm", "overlap", "mutual_information_after"),
    gives=Registered,
    example="""
    >>> from napari_semsr.registration import Landmarks
    >>> image = semsr.Micrograph(np.eye(64), (10.0, 10.0))
    >>> places = np.array([[0.0, 0.0], [0.0, 600.0], [600.0, 0.0], [600.0, 600.0]])
    >>> marks = Landmarks(places, places)
    >>> found = semsr.register(image, image, landmarks=marks, landmarks_only=True)
    >>> found.image.shape, round(found.registration.transform.scale, 6)
    ((64, 64), 1.0)
    """,
)
