"""Train a small network on one's own place, and enhance the whole sample with it.

One SEM image of a part of a mosaic is enough: it is registered, the area that both show
is divided into a part to train on and a part to evaluate on, and the model is kept only
if it is ahead of everything simpler on the latter. Then the mosaic is enhanced, and
further images of the same sample.
"""

import datetime
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr import inference, models, training
from napari_semsr.analysis import (
    FAMILIARITY,
    FOCUS,
    CutOff,
    Falloff,
    Familiarity,
    find_cut_off,
    match_affine,
)
from napari_semsr.core import (
    DB,
    Affine,
    Figure,
    FloatArray,
    FloatPair,
    Grid,
    InputRecord,
    Job,
    Micrograph,
    OptionError,
    Progress,
    Provenance,
    Quantity,
    ShapeError,
    Warped,
    available_cores,
    declared_figures,
    device_option,
    field_range,
    find_strays,
    option,
    recorded,
    retell,
    warn,
)
from napari_semsr.inference import EnhanceOptions
from napari_semsr.io import (
    StoredTransform,
    file_stem,
    read_transform,
    write_transform,
)
from napari_semsr.jobs.adapt.areas import (
    AdaptRefused,
    SharedArea,
    check_related,
    share_area,
)
from napari_semsr.jobs.adapt.evaluate import (
    ADAPTED,
    Evaluated,
    evaluate,
    require_gain,
)
from napari_semsr.jobs.adapt.look import filter_mosaic, look_here
from napari_semsr.jobs.adapt.page import write_report
from napari_semsr.jobs.check_record import LINEAR
from napari_semsr.jobs.enhance import ENHANCE
from napari_semsr.jobs.images import (
    Image,
    Result,
    jsonable,
    made_by,
    name_of,
    open_image,
    record_input,
    rewrite,
)
from napari_semsr.jobs.judge import INPUT
from napari_semsr.jobs.leakage import LEARNT, LIGHT
from napari_semsr.jobs.models import MOSAIC_MODEL, find_model
from napari_semsr.jobs.register import (
    COSTLY_PX,
    LANDMARKS_IN,
    TRANSFORM_IN,
    Registered,
    RegisterOptions,
    map_facts,
    register_as,
    require_pixel_sizes,
)
from napari_semsr.jobs.verb import ImageIn, Output, Run, Verb
from napari_semsr.registration import RegistrationRefused
from napari_semsr.reporting import write_numbers
from napari_semsr.restoration import fit_place_filter

STOP = "stop"
"""Name of a file in the folder of the run that ends the training early."""

_REPORT, _STATE, _TRANSFORM = "report.html", "training.pt", "registration-{}.json"
_WORST_PX = 1.0  # expected error of the registration; chosen: pairs then teach a blur


class AdaptOptions(RegisterOptions):
    """How to register, and how long to train."""

    minutes: float | None = option(
        None,
        "Minutes",
        "How long to train; by default 960 steps, one to two minutes of a core, longer "
        "on a busy computer. More time gives a better model.",
        gt=0,
        le=600,
    )
    cut_off_nm: CutOff = None
    seed: int = option(0, "Seed", "Makes the training repeatable.", ge=0)
    device: str = device_option()


@dataclass(frozen=True, slots=True)
class AdaptProgress(Progress):
    """How far the training has come, and what the model makes of the held-out part.

    `shown` are the input, the model's present result and the SEM image of the first
    area, in the grey values of the last; empty if nothing is new. Gains are over the
    input, on the held-out part.
    """

    seconds: float = 0.0  # trained
    gain_db: float | None = None
    linear_gain_db: float | None = None
    shown: tuple[FloatArray, ...] = ()


@dataclass(frozen=True, slots=True)
class AppliedImage(Result):
    """An image that the adapted model enhanced.

    `unfamiliar_percent` is the share of its blocks that are unlike the training place;
    None if the place is too small to tell.
    """

    image: str
    output: str
    unfamiliar_percent: Annotated[
        float | None, Quantity("Unlike the training place", "% of the area", ".0f")
    ]


@dataclass(frozen=True, slots=True)
class Adapted(Result):
    """A model of one's own place, its figures on the held-out part, and its results.

    `registration` has the keys of `Registered`, for the first SEM image;
    `registrations` are those of all. `held_out` has the model's gains over the input,
    next to those of the linear filter that was fitted on the training part and of the
    untouched `ssum-sem`, and the objects of all four. `linear` is what that filter
    makes of the mosaic, and `look_here` how far the enhanced mosaic is from it.
    """

    output: str
    model: Annotated[str, Quantity("Model")]
    report: Annotated[str, Quantity("Report")]
    registration: Annotated[dict[str, Any], recorded("Registration", keys=Registered)]
    registrations: list[dict[str, Any]]
    evaluated: Annotated[
        dict[str, Evaluated],
        recorded("Evaluated", keys=Evaluated),
    ]
    applied: list[AppliedImage]
    linear: Annotated[str, Quantity("Result of the linear filter")]
    look_here: Annotated[str, Quantity("Look here")]
    cut_off_nm: float | None
    steps: Annotated[int, Quantity("Steps", form="d")]
    minutes: Annotated[float, Quantity("Trained", "minutes", ".3g")]
    seconds: Annotated[float, Quantity("Time", "s", ".0f")]
    warnings: tuple[str, ...]
    curve: list[dict[str, Any]] = field(metadata={"json": False})
    areas: tuple[SharedArea, ...] = field(metadata={"json": False}, repr=False)
    provenance: Provenance = field(metadata={"json": False})

    @property
    def held_out(self) -> dict[str, Any]:
        """Give the figures of the held-out part."""
        own, linear, untouched = (
            self.evaluated[name] for name in (ADAPTED, LINEAR, MOSAIC_MODEL)
        )
        record = own.to_json()
        return {
            **{key: record[key] for key in _GAINS},
            "linear_gain_db": linear.gain_db,
            "linear_gain_below_cutoff_db": linear.gain_below_cutoff_db,
            "untouched_gain_db": untouched.gain_db,
            "untouched_gain_below_cutoff_db": untouched.gain_below_cutoff_db,
            "objects": {
                **record["objects"],
                **{
                    name: jsonable(row.objects)
                    for name, row in self.evaluated.items()
                    if name != ADAPTED
                },
            },
        }

    def to_json(self) -> dict[str, Any]:
        """Give the record that a command prints."""
        return {**Result.to_json(self), "held_out": jsonable(self.held_out)}

    def figures(self) -> dict[str, Figure]:
        """Write gains and objects on the held-out part, and what was enhanced."""
        rows: dict[str, Figure] = {}
        for name, row in self.evaluated.items():
            if name != INPUT:
                gain, error = row.gain_below_cutoff_db, row.gain_below_cutoff_sd_db
                if gain is None:
                    gain, error = row.gain_db, row.gain_sd_db
                rows[f"Gain, {name}"] = Figure(gain, DB, "+.2f", sd=error)
            counts = row.objects
            rows[f"Objects, {name}"] = Figure(
                f"{counts.shown} of {counts.objects} shown, {counts.invented} of "
                f"{counts.drawn} invented"
            )
        rows |= declared_figures(self)
        for one in self.applied:
            unlike = one.unfamiliar_percent
            share = "" if unlike is None else f", {unlike:.0f} % unlike the place"
            rows[f"Enhanced, {one.image}"] = Figure(f"{one.output}{share}")
        return rows


_GAINS = ["gain_db", "gain_sd_db", "gain_below_cutoff_db", "gain_below_cutoff_sd_db"]


def _adapt(run: Run[AdaptOptions]) -> Job[Adapted]:
    """Register, train, evaluate, enhance, and write the page."""
    result, warnings = yield from run.collect(_adapted(run, time.monotonic()))
    result = replace(result, warnings=warnings)
    yield Progress(0, 0, "writing the report")
    write_report(Path(result.report), result)
    write_numbers(
        Path(result.report).with_suffix(".json"), {"kind": "adapt", **result.to_json()}
    )
    return result


def _adapted(run: Run[AdaptOptions], started: float) -> Job[Adapted]:
    folder, chosen = run.place, run.options
    mosaic = open_image(run.given["mosaic"], run.opening)
    mosaic = mosaic.replace(name=name_of(run.given["mosaic"]))
    folder.mkdir(parents=True, exist_ok=True)
    # as the model will be given this mosaic: range and pixels without stray ones
    measured, shown = mosaic.data, mosaic
    if (strays := find_strays(mosaic.data)) is not None:
        measured = strays.masked(mosaic.data)
        shown = mosaic.replace(data=strays.filled(mosaic.data))
    levels = field_range(measured)
    areas = yield from _share(run, mosaic, shown)
    cut_off = find_cut_off(mosaic, chosen.cut_off_nm)
    yield Progress(0, 0, "fitting the linear filter")
    linear = fit_place_filter(
        [
            (light.array(), sem.array())
            for light, sem in (area.part(area.taught) for area in areas)
        ]
    )
    check_related(areas, linear.kernel)
    images: dict[str, list[NDArray[Any]]] = {INPUT: [], LINEAR: []}  # held-out parts
    for area in areas:
        light = area.light.array()
        images[INPUT].append(light[area.held_out.slices])
        images[LINEAR].append(linear.apply(light)[area.held_out.slices])
    before = evaluate(areas, images, cut_off)
    fit = yield from _train(run, areas, levels, before)
    model = yield from _write_model(run, mosaic, areas, fit, levels)
    images = {}
    for name, path in ((MOSAIC_MODEL, find_model(MOSAIC_MODEL)), (ADAPTED, model)):
        yield Progress(0, 0, f"evaluating the {name}")
        images[name] = yield from _enhanced(areas, models.load_model(path), run, levels)
    evaluated = evaluate(areas, images, cut_off, before)
    registrations = [map_facts(area.registered.registration) for area in areas]
    try:
        require_gain(evaluated, ADAPTED)
    except AdaptRefused as refused:
        model.unlink()
        refused.facts["steps"] = fit.steps
        refused.facts["registration"] = jsonable(registrations[0])
        raise
    applied = yield from _apply(run, model)
    provenance = made_by(
        "adapt", run.options.model_dump(mode="json"), *run.records.values()
    )
    stem = _stem(run.given["mosaic"])
    linear_file, look_file = (
        folder / f"{stem}-{end}.ome.zarr" for end in ("linear", "look-here")
    )
    filtered = yield from filter_mosaic(shown, linear, provenance)
    rewrite(filtered, linear_file)
    rewrite(look_here(filtered, open_image(applied[0].output), provenance), look_file)
    return Adapted(
        output=str(folder),
        model=str(model),
        report=str(folder / _REPORT),
        registration=registrations[0],
        registrations=registrations,
        evaluated=evaluated,
        applied=applied,
        linear=str(linear_file),
        look_here=str(look_file),
        cut_off_nm=cut_off,
        steps=fit.steps,
        minutes=fit.seconds / 60,
        seconds=round(time.monotonic() - started, 1),
        warnings=(),
        curve=fit.curve,
        areas=tuple(areas),
        provenance=provenance,
    )


# Register, and divide what both show.


def _share(
    run: Run[AdaptOptions], mosaic: Micrograph, shown: Micrograph
) -> Job[list[SharedArea]]:
    """Register every SEM image, and cut out what the mosaic shows too.

    `shown` is the mosaic without stray pixels, which is trained on.
    """
    sems = run.given["sem"]
    transform, landmarks = run.named["transform"], run.named["landmarks"]
    if len(sems) > 1 and not (transform is None and landmarks is None):
        msg = (
            "A transform or landmarks belong to one SEM image, got "
            f"{len(sems)} images: adapt to one of them."
        )
        raise OptionError(msg, code="options-contradict")
    given = run.given["mosaic"]
    yield from _record(run, LIGHT, given, mosaic, run.opening)
    areas = []
    for number, image in enumerate(sems, 1):
        opened = open_image(image, run.reading("sem")).replace(name=name_of(image))
        require_pixel_sizes(mosaic=mosaic, sem=opened)
        yield from _record(run, f"sem {number}", image, opened, run.reading("sem"))
        kept = run.place / _TRANSFORM.format(number)
        if run.existing.resume and transform is None and kept.is_file():
            transform = read_transform(kept)
        registered = yield from register_sem(run, image, opened.name, transform)
        if not kept.is_file() or run.named["transform"] is None:
            write_transform(kept, registered.stored)
        transform = None
        try:
            areas.append(share_area(shown, opened, registered))
        except ShapeError as error:
            raise AdaptRefused(str(error), "not-registered") from error
    return areas


def _record(
    run: Run[AdaptOptions], role: str, image: Image, opened: Micrograph, reading: Any
) -> Job[InputRecord]:
    """Record an image for the histories of what is made, once."""
    if role not in run.records:
        job = record_input(image, opened, reading, role=role)
        run.records[role] = yield from job
    return run.records[role]


def register_sem(
    run: Run[AdaptOptions],
    sem: Image,
    name: str,
    transform: StoredTransform | str | None,
) -> Job[Registered]:
    """Register a mosaic to an SEM image, bent where a rigid map is half a pixel off."""
    chosen = run.options
    # as they were given, so that a transform knows them by their files
    images = run.given["mosaic"], sem, run.reading("sem")
    try:
        found = yield from register_as(run, *images, transform=transform)
        bent = transform is None and chosen.model == "affine"
        if bent and not _fits(found, COSTLY_PX) and not chosen.landmarks_only:
            other = yield from register_as(run, *images, model="elastic")
            found = min(found, other, key=_error_px)
    except RegistrationRefused as refused:
        msg = f"{name} cannot be registered: {refused}"
        facts = jsonable(refused.to_json())
        raise AdaptRefused(msg, "not-registered", registration=facts) from refused
    if not _fits(found, _WORST_PX):
        msg = (
            f"The registration of {name} is expected to be {found.error_px:.2g} px "
            f"off, and pairs must fit within {_WORST_PX:g} px: mark places as "
            "landmarks."
        )
        facts = jsonable(map_facts(found.registration))
        raise AdaptRefused(msg, "not-registered", registration=facts)
    if not _fits(found, COSTLY_PX):
        warn(
            f"The registration of {name} is expected to be {found.error_px:.2g} px "
            "off, which costs 0.3 dB or more: landmarks may improve it.",
            "map-imprecise",
        )
    return found


def _error_px(found: Registered) -> float:
    """Give the expected error; of one that is not known, infinity."""
    error = found.error_px
    return math.inf if error is None or math.isnan(error) else error


def _fits(found: Registered, limit_px: float) -> bool:
    """Whether a registration is good enough; a stored one may not state its error."""
    return (found.searched == "stored" and math.isinf(_error_px(found))) or (
        _error_px(found) <= limit_px
    )


# Train, and write the model.


def _train(
    run: Run[AdaptOptions],
    areas: Sequence[SharedArea],
    levels: FloatPair,
    before: Mapping[str, Evaluated],
) -> Job["training.PlaceFit"]:
    """Train on the training parts, from where an interrupted run has ended."""
    chosen, folder = run.options, run.place
    state_file, stop = folder / _STATE, folder / STOP
    stop.unlink(missing_ok=True)
    resumed = run.existing.resume and state_file.is_file()
    state = training.load_place_state(state_file) if resumed else None
    images = []
    for area in areas:
        held = np.ones(area.light.shape, dtype=bool)
        held[area.taught.slices] = False
        shown = np.zeros_like(held)
        shown[area.held_out.slices] = True
        sem = area.sem.array().copy()
        sem[held & ~shown] = np.nan
        images.append(training.PlaceImages(area.light.array(), sem, shown))
    fit = run.named.get("fit", training.fit_place)
    job = fit(
        images,
        training.PlaceOptions(seed=chosen.seed),
        levels=levels,
        seconds=None if chosen.minutes is None else 60 * chosen.minutes,
        threads=available_cores(),
        device=str(models.find_device(chosen.device).device),
        state=state,
        should_stop=stop.is_file,
        save=partial(training.save_place_state, state_file),
    )
    sem = areas[0].part(areas[0].held_out)[1].array().astype(float)

    def show(step: Progress) -> Progress:
        if not isinstance(step, training.PlaceReport):
            return step
        shown: tuple[FloatArray, ...] = ()
        if step.images:
            now = step.images[0].astype(float)
            gain, offset = match_affine(now, sem)
            shown = before[INPUT].images[0], gain * now + offset, sem
        common = step.done, step.total, step.message, step.seconds_left
        gains = step.gain_db, before[LINEAR].gain_db
        return AdaptProgress(*common, step.seconds, *gains, shown)

    found: training.PlaceFit = yield from retell(job, show)
    return found


def _write_model(
    run: Run[AdaptOptions],
    mosaic: Micrograph,
    areas: Sequence[SharedArea],
    fit: "training.PlaceFit",
    levels: FloatPair,
) -> Job[Path]:
    """Write the model with its card."""
    yield Progress(0, 0, "writing the model")
    vendor = next((a.sem.metadata.get("vendor") for a in areas), None)
    today = datetime.datetime.now().astimezone().date().isoformat()
    name = f"{_stem(run.given['mosaic'])[:80]}-{today}"
    scaled = [
        (area.light.array()[area.taught.slices] - levels[0]) / (levels[1] - levels[0])
        for area in areas
    ]
    place, focus = Familiarity.of(scaled), Falloff.of(mosaic, run.options.cut_off_nm)
    card = fit.card(
        name,
        description=f"Trained on {mosaic.name} and {', '.join(a.name for a in areas)}"
        f"{f' ({vendor})' if vendor else ''}, {today}.",
        limits="For this sample, at this focus. It draws what usually is there: where "
        "the light cannot show an object, its presence or absence is a guess.",
        # of the field itself, so that another exposure of the sample is scaled alike
        input_scaling="percentiles",
        pixel_size_nm=mosaic.pixel_size_nm and (mosaic.mean_pixel_size_nm,) * 2,
        training={
            LEARNT: [
                _trained_area(run, area, role)
                for number, area in enumerate(areas, 1)
                for role in (LIGHT, f"sem {number}")
            ],
            **({} if place is None else {FAMILIARITY: place.to_json()}),
            **({} if focus is None else {FOCUS: focus.to_json()}),
        },
    )
    path = run.place / f"{name}.safetensors"
    models.save_model(path, fit.network, card)
    return path


def _trained_area(
    run: Run[AdaptOptions], area: SharedArea, role: str
) -> dict[str, Any]:
    """Record which area of an image was trained on, as `leakage` reads it."""
    record, grid = run.records[role], Grid.of(area.light)
    box = area.taught
    corners = np.array([[box.y0, box.x0], [box.y1, box.x1]])
    places = grid.corner + corners * np.array(grid.pitch)
    if role != LIGHT:  # in the plane of the SEM image
        around = np.array([[y, x] for y in places[:, 0] for x in places[:, 1]])
        mapped = area.registered.registration.transform(around)
        places = np.array([mapped.min(axis=0), mapped.max(axis=0)])
    return {
        "role": role,
        "name": record.name,
        "digest": record.digest,
        "unit": "nm",
        "areas": [[float(v) for v in places.ravel()]],
    }


def _stem(image: Image) -> str:
    """Begin the names of files with that of an image, without its own suffix."""
    name = name_of(image)
    if not isinstance(image, Micrograph):
        name = re.sub(r"(\.ome)?\.\w+$", "", name)
    return file_stem(name)


# Evaluate.


def _enhanced(
    areas: Sequence[SharedArea],
    loaded: "models.LoadedModel",
    run: Run[AdaptOptions],
    levels: FloatPair,
) -> Job[list[NDArray[Any]]]:
    """Enhance the areas, scaled as the mosaic is, and give their held-out parts."""
    fixed = {"input_scaling": "levels", "input_levels": levels}
    loaded = replace(loaded, card=loaded.card.model_copy(update=fixed))
    found = []
    for area in areas:
        options = EnhanceOptions(device=run.options.device)
        made = yield from inference.enhance_array(area.light, loaded, options)
        if made.shape != area.light.shape:  # a model for other pixels
            data = Warped(made, Grid.of(area.light), Affine()).read()
            made = area.light.replace(data=data)
        found.append(made.array()[area.held_out.slices].astype(np.float32))
    return found


# Enhance the rest.


def _apply(run: Run[AdaptOptions], model: Path) -> Job[list[AppliedImage]]:
    """Enhance all images, which are compared with the training place."""
    given = [run.given["mosaic"], *(run.given.get("apply") or ())]
    options = EnhanceOptions(device=run.options.device)
    found: list[AppliedImage] = []
    for image in given:
        stem = _stem(image)
        taken = {Path(one.output).name for one in found}
        names = (
            f"{stem}-enhanced{n}.ome.zarr"
            for n in ("", *map("-{}".format, range(2, 10**4)))
        )
        target = run.place / next(name for name in names if name not in taken)
        resumed = run.existing.resume and target.exists()
        made = yield from ENHANCE.job(
            image,
            target,
            model=model,
            options=options,
            opening=run.opening,
            overwrite=not resumed,
            resume=resumed,
        )
        found.append(
            AppliedImage(name_of(image), made.output or "", made.unfamiliar_percent)
        )
    return found


ADAPT = Verb(
    "adapt",
    (
        ImageIn("mosaic", "the optical image of the sample, such as a mosaic"),
        ImageIn(
            "sem",
            "SEM images of places that MOSAIC shows; one is enough",
            label="SEM",
            metavar="SEM",
            many=True,
        ),
        ImageIn(
            "apply",
            "further images of the same sample, which are enhanced too",
            label="Also enhance",
            optional=True,
            flag="--apply",
            many=True,
        ),
    ),
    AdaptOptions,
    Adapted,
    _adapt,
    title="registration and training",
    files=(LANDMARKS_IN, TRANSFORM_IN),
    output=Output(
        "folder of the run: registration, model, enhanced images, page",
        metavar="RUN_DIR",
        ending="",
        remade=True,
    ),
    opens=False,
    sides=("mosaic", "sem"),
    resumes=True,
    step="it trains a model, which the next steps take by its file",
)
