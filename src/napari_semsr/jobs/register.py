"""Bring an image onto another of the same place, and keep the map between them."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from napari_semsr.core import (
    Affine,
    Box,
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
    ReadError,
    RegistrationError,
    Warped,
    in_digits,
    warn,
)
from napari_semsr.io import (
    EXPORTS,
    ReadOptions,
    Side,
    StoredTransform,
    export_transform,
    read_landmarks,
    read_transform,
    with_calibration,
    write_transform,
)
from napari_semsr.jobs.images import (
    Existing,
    Image,
    Result,
    as_guide,
    check_apart,
    check_image_target,
    check_target_file,
    jsonable,
    made_by,
    name_of,
    open_image,
    paths_of,
    record_file,
    record_input,
    write_area,
)
from napari_semsr.registration import (
    NO_RESIDUALS,
    Landmarks,
    Registration,
    RegistrationOptions,
    Residuals,
    fit_landmarks,
    register,
    register_landmarks,
    take_map,
)

Where = str | os.PathLike[str]

_CHUNK = 1024  # pixels along each side of what is computed at once; chosen
_SPARE_PAIRS = 4  # landmarks from which on an affine start leaves a number to judge it
_LITTLE = 0.3  # of the smaller image; below it registration was not tested
COSTLY_PX = 0.5  # expected error; pairs as far off lost 0.3 dB and more in training
_DOUBTFUL_PX = 1.0  # expected error; chosen: details of a pixel are then not compared
_UNRELIABLE = 0.3  # share of patches; chosen: the map is then wrong over whole areas
_ASTRAY_PX = 10.0  # landmark off the found map; chosen: clicks land within a few pixels


class RegisterOptions(RegistrationOptions):
    """How an image is brought onto another, and what landmarks decide."""

    landmarks_only: bool = Field(
        default=False,
        description="take the map from the landmarks alone, whatever the images show",
    )


@dataclass(frozen=True, slots=True)
class RegisteredImage:
    """A moving image on the grid of a fixed one, computed where it is looked at.

    Attributes
    ----------
    image : Micrograph
        A dask array; NaN where the moving image shows nothing.
    registration : Registration
        The map, and what it is worth.
    stored : StoredTransform
        The same with what tells both images again, as `write_transform` takes it.
    """

    image: Micrograph
    registration: Registration
    stored: StoredTransform

    def facts(self) -> dict[str, Any]:
        """Say what the map is and what it is worth.

        Returns
        -------
        dict
            From ``model`` to ``unreliable``, as `Registered` has it.
        """
        return _facts(self.registration)


@dataclass(frozen=True, slots=True)
class Registered(Result):
    """What was written, and what the map is worth.

    Attributes
    ----------
    output : str
        Path of the file or store.
    transform_output : str or None
        Path of the stored transform.
    shape : tuple of int
        Rows and columns, those of the fixed image.
    dtype : str
        Type of the grey values in the output.
    pixel_size_nm, origin : tuple of float
        ``(y, x)``, those of the fixed image.
    pixel_size_sd_nm : tuple of float or None
        Standard deviation of that pixel size; None where no calibration told it.
    model : str
        ``"similarity"``, ``"affine"`` or ``"elastic"``.
    transform : dict
        The affine ``matrix`` ``[[yy, yx, y], [xy, xx, x]]`` from the moving to the
        fixed image in nm; the same as ``degrees``, ``scale`` and ``mirrored``; of an
        elastic map also the ``spacing_nm`` of its knots and ``largest_nm``, by which it
        bends at most where it was tested.
    error_px, error_nm : float or None
        Expected distance from the true map, root mean square over the overlap, in
        pixels of the coarser image and in nm; None where nothing tells it.
    overlap : float
        Share of the smaller image that the other shows.
    mutual_information_before, mutual_information_after : float
        In bits, by the origins alone and after registration.
    searched : str
        ``"near"``, ``"full"``, ``"landmarks"`` or ``"stored"``: where the map is from.
    score : float or None
        Height of the search's best place in deviations of chance.
    rivals : list of dict
        Other places that fit: ``shift_nm``, ``degrees`` and ``score`` over the best.
    residual_median_nm, residual_p95_nm : float or None
        Of patches that were held out, or of landmarks.
    patches : int
        How many of them there are.
    unreliable : float or None
        Share of them where the map cannot be believed.
    """

    output: str
    transform_output: str | None
    shape: IntPair
    dtype: str
    pixel_size_nm: FloatPair
    pixel_size_sd_nm: FloatPair | None
    origin: FloatPair
    model: str
    transform: dict[str, Any]
    error_px: float | None
    error_nm: float | None
    overlap: float
    mutual_information_before: float
    mutual_information_after: float
    searched: str
    score: float | None
    rivals: list[dict[str, Any]]
    residual_median_nm: float | None
    residual_p95_nm: float | None
    patches: int
    unreliable: float | None


def register_job(
    moving: Image,
    fixed: Image,
    output: Where,
    *,
    options: RegisterOptions | None = None,
    landmarks: Landmarks | Where | None = None,
    transform: StoredTransform | Where | None = None,
    transform_out: Where | None = None,
    opening: ReadOptions | None = None,
    fixed_opening: ReadOptions | None = None,
    overwrite: bool = False,
) -> Job[Registered]:
    """Bring an image onto another and write it on the grid of that one.

    Parameters
    ----------
    moving, fixed : Micrograph or path
        Calibrated images of one place.
    output : path
        Ends in ``.ome.zarr``, ``.ome.tif``, ``.tif`` or ``.png``.
    options : RegisterOptions, optional
        Kind of map, how far to search.
    landmarks : Landmarks or path, optional
        Pairs of places, in nm or as CSV, from which the map starts.
    transform : StoredTransform or path, optional
        A map that is applied; none is searched for.
    transform_out : path, optional
        Receives the map: ``.json`` of this program, or for others ``.tfm`` (ITK),
        ``.ngff.json`` or ``.csv`` (napari), which hold no elastic one.
    opening, fixed_opening : ReadOptions, optional
        How to read the moving image and the fixed one.
    overwrite : bool, default=False
        Replace existing outputs.

    Returns
    -------
    Registered
        What was written.

    Yields
    ------
    Progress
        Searching, refining, writing.

    Raises
    ------
    ReadError, WriteError, OptionError, RegistrationError
        If images cannot be read, belong to no stored map, or an output cannot be made.
    RegistrationRefused
        If no map can be believed; nothing is written then.
    """
    yield Progress(0, 0, "checking")
    chosen = options or RegisterOptions()
    tables = [
        Path(given)
        for given in (landmarks, transform)
        if isinstance(given, (str, os.PathLike))
    ]
    inputs = [*paths_of(moving, fixed), *tables]
    target = check_image_target(output, inputs=inputs, overwrite=overwrite)
    beside = None
    if transform_out is not None:
        beside = check_target_file(
            transform_out,
            suffixes=(".json", *EXPORTS),
            inputs=inputs,
            overwrite=overwrite,
        )
        check_apart(target, beside)
    pair = yield from _open(moving, fixed, opening, fixed_opening)
    pair = pair.led_by(landmarks, transform)
    found, stored = yield from _mapped(pair, chosen, landmarks, transform)
    if beside is not None:  # before the image: what took long is kept in any case
        foreign = beside.name.lower().endswith(EXPORTS)
        (export_transform if foreign else write_transform)(beside, stored)
    about = pair.about(chosen, found, stored)
    seen = Warped(pair.moving, Grid.of(pair.fixed), found.transform)
    written = yield from write_area(
        seen, about, target, message="writing", existing=Existing(overwrite)
    )
    return Registered(
        output=str(target),
        transform_output=None if beside is None else str(beside),
        shape=pair.fixed.shape,
        dtype=written.dtype,
        pixel_size_nm=pair.fixed.scale,
        pixel_size_sd_nm=pair.fixed.pixel_size_sd_nm,
        origin=pair.fixed.origin,
        **_facts(found),
    )


def register_in_memory(
    moving: Image,
    fixed: Image,
    *,
    options: RegisterOptions | None = None,
    landmarks: Landmarks | Where | None = None,
    transform: StoredTransform | Where | None = None,
    opening: ReadOptions | None = None,
    fixed_opening: ReadOptions | None = None,
) -> Job[RegisteredImage]:
    """Bring an image onto another, and compute its pixels where they are looked at.

    Parameters
    ----------
    moving, fixed : Micrograph or path
        Calibrated images of one place.
    options : RegisterOptions, optional
        Kind of map, how far to search.
    landmarks : Landmarks or path, optional
        Pairs of places, in nm or as CSV, from which the map starts.
    transform : StoredTransform or path, optional
        A map that is applied; none is searched for.
    opening, fixed_opening : ReadOptions, optional
        How to read the moving image and the fixed one.

    Returns
    -------
    RegisteredImage
        The image on the other's grid, and the map.

    Yields
    ------
    Progress
        Searching, refining.
    """
    chosen = options or RegisterOptions()
    pair = yield from _open(moving, fixed, opening, fixed_opening)
    pair = pair.led_by(landmarks, transform)
    found, stored = yield from _mapped(pair, chosen, landmarks, transform)
    seen = Warped(pair.moving, Grid.of(pair.fixed), found.transform)
    about = pair.about(chosen, found, stored)
    facts = {**about.metadata, "register": jsonable(_facts(found))}
    image = about.replace(data=_lazy(seen), metadata=facts)
    return RegisteredImage(image, found, stored)


def both_openings(values: Mapping[str, Any]) -> tuple[ReadOptions, ReadOptions]:
    """Say how to read two images of options for both and for one of them.

    Parameters
    ----------
    values : mapping
        Reading options by name, and perhaps a ``calibration``, for both images; with
        ``moving_`` or ``fixed_`` before it, an option is that of one image.

    Returns
    -------
    tuple of ReadOptions
        Of the moving image and of the fixed one.

    Raises
    ------
    OptionError
        If a name is unknown or a value is out of range.
    """
    both, moving, fixed = (
        with_calibration(
            {
                name: values[side + name]
                for name in (*ReadOptions.model_fields, "calibration")
                if side + name in values
            },
            [ReadOptions],
        )
        for side in ("", "moving_", "fixed_")
    )
    for own in (moving, fixed):
        if "pixel_size_nm" in own:  # the spread of another size is none of this one
            own.setdefault("pixel_size_sd_nm", None)
    return (
        ReadOptions.parse({**both, **moving}),
        ReadOptions.parse({**both, **fixed}),
    )


# Open both images, and find the map, or take it.


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two opened images, and their records."""

    moving: Micrograph
    fixed: Micrograph
    moving_record: InputRecord
    fixed_record: InputRecord
    reading: dict[str, Any]
    guides: tuple[InputRecord, ...] = ()
    places: dict[str, Any] | None = None  # landmarks that lie in no file

    def led_by(
        self,
        landmarks: Landmarks | Where | None,
        transform: StoredTransform | Where | None,
    ) -> "_Pair":
        """Record what leads from one image to the other."""
        guides, places = [as_guide(self.fixed_record, "fixed")], None
        if isinstance(landmarks, Landmarks):
            places = {"moving": landmarks.moving, "fixed": landmarks.fixed}
        elif landmarks is not None and Path(landmarks).is_file():
            guides.append(record_file(landmarks, "landmarks"))
        if isinstance(transform, (str, os.PathLike)) and Path(transform).is_file():
            guides.append(record_file(transform, "transform"))
        return replace(self, guides=tuple(guides), places=places)

    def about(
        self, options: RegisterOptions, found: Registration, stored: StoredTransform
    ) -> Micrograph:
        """Name, calibration and history of the result; the data are not looked at."""
        asked = options.model_dump(mode="json")
        said = {
            **asked,
            "asked": asked,  # the model that was found stands in its place
            # no input: what an image shows is not made of where it lies
            "fixed": self.fixed_record.name,
            "fixed_digest": self.fixed_record.digest,
            # lengths in the result are as sure as those in the fixed image
            "pixel_size_nm": self.fixed.pixel_size_nm,
            "pixel_size_sd_nm": self.fixed.pixel_size_sd_nm,
            "reading": self.reading,
            **({"landmarks": self.places} if self.places else {}),
            **_facts(found),
        }
        made = self.moving.replace(
            pixel_size_nm=self.fixed.pixel_size_nm,
            origin=self.fixed.origin,
            provenance=made_by(
                "register", jsonable(said), self.moving_record, guides=self.guides
            ),
        )
        return made.with_size_error(self.fixed.pixel_size_sd_nm)


def _open(
    moving: Image,
    fixed: Image,
    opening: ReadOptions | None,
    fixed_opening: ReadOptions | None,
) -> Job[_Pair]:
    """Open both images."""
    opened, records, reading = [], [], {}
    for image, how, which in (
        (moving, opening, "moving"),
        (fixed, fixed_opening, "fixed"),
    ):
        yield Progress(0, 0, f"reading {name_of(image)}")
        one = open_image(image, how).replace(name=name_of(image))
        if one.pixel_size_nm is None:
            msg = (
                f"The {which} image {one.name} has no pixel size, without which its "
                f"size on the other is unknown: give --{which}-pixel-size-nm, or Open "
                "mosaic in napari."
            )
            raise RegistrationError(msg)
        opened.append(one)
        records.append((yield from record_input(image, one, how)))
        reading[which] = (how or ReadOptions()).model_dump(mode="json")
    return _Pair(opened[0], opened[1], records[0], records[1], reading)


def _mapped(
    pair: _Pair,
    options: RegisterOptions,
    landmarks: Landmarks | Where | None,
    transform: StoredTransform | Where | None,
) -> Job[tuple[Registration, StoredTransform]]:
    """Find the map, or take one that is given."""
    if transform is not None:
        _check_stored(options, landmarks)
        if not isinstance(transform, StoredTransform):
            transform = read_transform(Path(transform))
        check_sides(
            transform,
            (pair.moving, pair.moving_record),
            (pair.fixed, pair.fixed_record),
        )
        yield Progress(0, 0, "applying the transform")
        found = _taken(pair, transform)
    else:
        found = yield from _found(pair, options, landmarks)
    _tell(found, options)
    stored = StoredTransform(
        found.transform,
        Side.of(pair.moving, pair.moving_record.digest),
        Side.of(pair.fixed, pair.fixed_record.digest),
        _quality(found),
    )
    return found, stored


def _found(
    pair: _Pair, options: RegisterOptions, landmarks: Landmarks | Where | None
) -> Job[Registration]:
    """Find the map by structure, from landmarks or not."""
    if landmarks is None:
        if options.landmarks_only:
            msg = "A map of landmarks alone needs landmarks: give --landmarks as well."
            raise OptionError(msg)
        return (yield from register(pair.moving, pair.fixed, options))
    if not isinstance(landmarks, Landmarks):
        places = read_landmarks(Path(landmarks), pair.moving, pair.fixed)
        landmarks = Landmarks(*places)
    landmarks.check(Grid.of(pair.moving), Grid.of(pair.fixed))
    if options.landmarks_only:
        if options.model == "elastic":
            msg = (
                "Landmarks alone give a similarity or an affine map: choose one of "
                "them (--model), or let the images refine it."
            )
            raise OptionError(msg)
        yield Progress(0, 0, "fitting the landmarks")
        return register_landmarks(pair.moving, pair.fixed, landmarks, options.model)
    stiff = options.model == "similarity" or len(landmarks) < _SPARE_PAIRS
    start = fit_landmarks(landmarks, "similarity" if stiff else "affine").transform
    found = yield from register(pair.moving, pair.fixed, options, start=start)
    _tell_astray(pair, found, landmarks)
    return found


def _check_stored(
    options: RegisterOptions, landmarks: Landmarks | Where | None
) -> None:
    """Refuse to find a map that is given."""
    usual = RegisterOptions().model_dump()
    given = (name for name, v in options.model_dump().items() if v != usual[name])
    asked = [f"--{name.replace('_', '-')}" for name in given]
    if landmarks is not None:
        asked.append("--landmarks")
    if asked:
        msg = (
            f"A stored transform is applied as it is: leave out {', '.join(asked)}, or "
            "the transform."
        )
        raise OptionError(msg)


def check_sides(
    stored: StoredTransform,
    moving: tuple[Micrograph, InputRecord],
    fixed: tuple[Micrograph, InputRecord],
) -> None:
    """Refuse a map of other images, and say where another image shows the same area."""
    theirs = stored.fixed.digest, stored.moving.digest
    pairs = zip(theirs, (moving[1], fixed[1]), strict=True)
    exchanged = all(one is not None and one in _digests(seen) for one, seen in pairs)
    if exchanged and theirs[0] != theirs[1]:
        msg = (
            f"The transform brings {stored.moving.name} onto {stored.fixed.name}, not "
            "the other way round: exchange the images, or register them so."
        )
        raise RegistrationError(msg)
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
            raise RegistrationError(msg)
        if side.digest is not None and side.digest not in _digests(record):
            warn(
                f"{image.name} is not the image that the transform was found with, "
                f"{side.name}, but covers the same area: check that both show one "
                "place.",
            )


def _digests(record: InputRecord) -> Iterator[str]:
    """Digests of an image and of all that it was made of."""
    if record.digest is not None:
        yield record.digest
    for item in record.provenance.inputs if record.provenance else ():
        yield from _digests(item)


def _taken(pair: _Pair, stored: StoredTransform) -> Registration:
    """Look at a stored map, with what its file tells of its error."""
    known = stored.quality
    error = known.get("error_nm")
    return take_map(
        stored.transform,
        pair.moving,
        pair.fixed,
        model=stored.kind,
        searched="stored",
        error_nm=float(error) if isinstance(error, (int, float)) else np.nan,
        residuals=residuals_of(stored),
    )


# What is known of a map, for the record and for its file.


def _quality(found: Registration) -> dict[str, Any]:
    """Give what is stored of a map's worth, so that others can use its residuals."""
    facts = {k: v for k, v in _facts(found).items() if k != "transform"}
    if len(found.residuals.places_nm):
        facts["residuals"] = found.residuals
    kept: dict[str, Any] = jsonable(facts)
    return kept


def residuals_of(stored: StoredTransform) -> Residuals:
    """Read residuals of a stored map; none where there are none."""
    kept = stored.quality.get("residuals")
    if not isinstance(kept, Mapping):
        return NO_RESIDUALS
    try:
        read = Residuals(
            np.array(kept["places_nm"], dtype=float).reshape(-1, 2),
            np.array(kept["off_nm"], dtype=float).reshape(-1, 2),
            np.array(kept["reliable"], dtype=bool).reshape(-1),
            float(kept["side_nm"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        msg = f"The residuals of the transform are damaged ({error}): register again."
        raise ReadError(msg) from error
    if not len(read.places_nm) == len(read.off_nm) == len(read.reliable):
        msg = "The residuals of the transform are not whole: register again."
        raise ReadError(msg)
    return read


def _facts(found: Registration) -> dict[str, Any]:
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
    """Give a number, None where it is none."""
    return float(value) if np.isfinite(value) else None


def _unreliable(found: Registration) -> float | None:
    """Share of the patches where a map cannot be believed."""
    reliable = found.residuals.reliable
    return 1 - float(reliable.mean()) if reliable.size else None


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
    said = []
    if found.searched == "full" and options.search == "near":
        said.append(
            "Nothing was found near what pixel sizes say, so every turn was searched: "
            f"{_pose(found.transform)}. Compare the images."
        )
    if found.overlap < _LITTLE:
        said.append(
            f"The images share {found.overlap:.0%} of the smaller one, less than "
            f"{_LITTLE:.0%}: the map holds there, and is a guess elsewhere."
        )
    if found.error_px > _DOUBTFUL_PX:
        said.append(
            f"The map is expected to be {found.error_px:.2g} px "
            f"({in_digits(found.error_nm)} nm) off: do not compare details of that "
            "size."
        )
    elif not np.isfinite(found.error_px):
        said.append(
            "Nothing tells how far off the map is: mark another place, or let the "
            "images refine it."
            if found.searched == "landmarks"
            else "The transform does not say how far off it is."
        )
    share = _unreliable(found)
    if share is not None and share > _UNRELIABLE:
        or_else = "are bent (--model elastic)"
        if isinstance(found.transform, Elastic):
            or_else = "too little there to tell a bending (--model affine)"
        said.append(
            f"Over {share:.0%} of what both images show the map is not confirmed: they "
            f"show other things there, or {or_else}."
        )
    for message in said:
        warn(message)


def _pose(transform: Affine | Elastic) -> str:
    """Say how an image lies."""
    affine = transform.affine if isinstance(transform, Elastic) else transform
    turned = f"turned by {affine.degrees:.1f} degrees, scaled by {affine.scale:.3f}"
    return f"mirrored, {turned}" if affine.is_mirrored else turned


def _tell_astray(pair: _Pair, found: Registration, landmarks: Landmarks) -> None:
    """Say which landmarks the images contradict."""
    off = np.hypot(*(found.transform(landmarks.moving) - landmarks.fixed).T)
    limit = _ASTRAY_PX * max(*pair.moving.scale, *pair.fixed.scale)
    astray = np.flatnonzero(off > limit)
    if astray.size:
        worst = int(off.argmax())
        warn(
            f"Landmark {worst + 1} lies {off[worst]:.0f} nm from where the images say "
            f"({astray.size} of {len(landmarks)} farther than {limit:.0f} nm): check "
            "that each pair marks one place.",
        )


# An image that is computed where it is looked at.


@dataclass(frozen=True, slots=True)
class _Array:
    """Pixels of a grid as dask asks for them."""

    seen: Warped
    ndim = 2

    @property
    def shape(self) -> IntPair:
        """Rows and columns."""
        return self.seen.grid.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the grey values."""
        return self.seen.dtype

    def __getitem__(self, index: tuple[slice, slice]) -> NDArray[Any]:
        rows, columns = (
            range(n)[part] for n, part in zip(self.shape, index, strict=True)
        )
        return self.seen.read(Box(rows.start, rows.stop, columns.start, columns.stop))


def _lazy(seen: Warped) -> Any:
    """Make a dask array of pixels that are computed."""
    import dask.array as da

    return da.from_array(
        _Array(seen),
        chunks=_CHUNK,
        name=False,
        asarray=False,
        meta=np.empty((0, 0), seen.dtype),
    )
