"""Training of a small network on one area of a sample, to enhance the sample.

One SEM image of a part of a mosaic is enough: it is registered, the area that both show
is divided into a part to train on and a part to evaluate on, and the model is kept only
if it is better than every simpler method on the latter. Then the mosaic is enhanced,
and further images of the same sample.
"""

import datetime
import math
import os
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
    BlockFeatures,
    CutOff,
    Falloff,
    find_cut_off,
    fit_gain_and_offset,
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
    WarpedImage,
    count_available_cores,
    declare_device_option,
    declare_quantity,
    digest_path,
    find_stray_pixels,
    get_declared_figures,
    map_progress,
    measure_percentiles,
    option,
    warn,
)
from napari_semsr.inference import EnhanceOptions
from napari_semsr.io import (
    StoredTransform,
    create_file_stem,
    read_transform,
    write_transform,
)
from napari_semsr.jobs.adapt.areas import (
    AdaptationError,
    SharedArea,
    check_correlation,
    create_shared_area,
)
from napari_semsr.jobs.adapt.evaluate import (
    ADAPTED_MODEL,
    Evaluation,
    evaluate,
    require_gain,
)
from napari_semsr.jobs.adapt.look import create_difference_map, filter_mosaic
from napari_semsr.jobs.adapt.page import write_report
from napari_semsr.jobs.adapt.process import fit_in_process
from napari_semsr.jobs.check_record import LINEAR
from napari_semsr.jobs.enhance import ENHANCE
from napari_semsr.jobs.images import (
    Image,
    Result,
    compose_provenance,
    get_image_name,
    open_image,
    overwrite_image,
    record_input,
    to_json_value,
)
from napari_semsr.jobs.judge import INPUT
from napari_semsr.jobs.leakage import LIGHT, TRAINED_ON
from napari_semsr.jobs.models import MOSAIC_MODEL, find_model
from napari_semsr.jobs.register import (
    COSTLY_PX,
    LANDMARKS_IN,
    TRANSFORM_IN,
    Registered,
    RegisterOptions,
    check_pixel_sizes,
    describe_registration,
    register_image_pair,
)
from napari_semsr.jobs.verb import ImageInput, Output, Run, Verb
from napari_semsr.registration import RegistrationRefused
from napari_semsr.reporting import write_json
from napari_semsr.restoration import fit_cross_validated_filter

STOP = "stop"
"""Name of the file in the run folder that ends the training early."""

_REPORT, _STATE, _TRANSFORM = "report.html", "training.pt", "registration-{}.json"
_SEARCH = "search"  # key of a stored registration: options of its search
_WORST_PX = 1.0  # expected error of the registration; chosen: beyond, pairs teach blur


class AdaptOptions(RegisterOptions):
    """Options of registration and training."""

    minutes: float | None = option(
        None,
        "Minutes",
        "Training time in minutes; by default, a fixed number of steps, which takes "
        "about three minutes on two cores and longer on a busy computer. Longer "
        "training gives a better model.",
        gt=0,
        le=600,
    )
    cut_off_nm: CutOff = None
    seed: int = option(0, "Seed", "Random seed, for reproducible training.", ge=0)
    device: str = declare_device_option()


@dataclass(frozen=True, slots=True)
class AdaptProgress(Progress):
    """Training progress, with results on the held-out part.

    `preview_images` are the input, the model's present result and the SEM image of the
    first area, in the grey values of the last; empty if nothing is new. Gains are over
    the input, on the held-out part.
    """

    seconds: float = 0.0  # of training
    gain_db: float | None = None
    linear_gain_db: float | None = None
    preview_images: tuple[FloatArray, ...] = ()


@dataclass(frozen=True, slots=True)
class EnhancedImage(Result):
    """Image enhanced by the adapted model.

    `unfamiliar_percent` is the share of its blocks that are unlike the training area;
    None if the area is too small to decide.
    """

    image: str
    output: str
    unfamiliar_percent: Annotated[
        float | None, Quantity("Unlike the training area", "% of the area", ".0f")
    ]


@dataclass(frozen=True, slots=True)
class Adapted(Result):
    """Model trained on one area, with held-out evaluation and enhanced images.

    `registration` has the keys of `Registered`, for the first SEM image;
    `registrations` are those of all. `held_out` has the model's gains over the input,
    next to those of the linear filter that was fitted on the training part and of the
    untouched `ssum-sem`, and the objects of all four. `linear` is that filter's result
    for the mosaic, and `look_here` the difference of the enhanced mosaic from it.
    """

    output: str
    model: Annotated[str, Quantity("Model")]
    report: Annotated[str, Quantity("Report")]
    registration: Annotated[
        dict[str, Any], declare_quantity("Registration", keys=Registered)
    ]
    registrations: list[dict[str, Any]]
    evaluated: Annotated[
        dict[str, Evaluation],
        declare_quantity("Evaluation", keys=Evaluation),
    ]
    applied: list[EnhancedImage]
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
        """Evaluation on the held-out part."""
        own, linear, untouched_model = (
            self.evaluated[name] for name in (ADAPTED_MODEL, LINEAR, MOSAIC_MODEL)
        )
        record = own.to_json()
        return {
            **{key: record[key] for key in _GAINS},
            "linear_gain_db": linear.gain_db,
            "linear_gain_below_cutoff_db": linear.gain_below_cutoff_db,
            "untouched_gain_db": untouched_model.gain_db,
            "untouched_gain_below_cutoff_db": untouched_model.gain_below_cutoff_db,
            "objects": {
                **record["objects"],
                **{
                    name: to_json_value(row.objects)
                    for name, row in self.evaluated.items()
                    if name != ADAPTED_MODEL
                },
            },
        }

    def to_json(self) -> dict[str, Any]:
        """Return the record that the command prints."""
        return {**Result.to_json(self), "held_out": to_json_value(self.held_out)}

    def figures(self) -> dict[str, Figure]:
        """Return gains and object counts on the held-out part, and enhanced images."""
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
        rows |= get_declared_figures(self)
        for one in self.applied:
            unlike = one.unfamiliar_percent
            share = (
                "" if unlike is None else (f", {unlike:.0f} % unlike the training area")
            )
            rows[f"Enhanced, {one.image}"] = Figure(f"{one.output}{share}")
        return rows


_GAINS = ["gain_db", "gain_sd_db", "gain_below_cutoff_db", "gain_below_cutoff_sd_db"]


def _run_adaptation(run: Run[AdaptOptions]) -> Job[Adapted]:
    """Register, train, evaluate, enhance, and write the report page."""
    result, warnings = yield from run.run_with_warnings(
        _adapt_model(run, time.monotonic())
    )
    result = replace(result, warnings=warnings)
    yield Progress(0, 0, "writing the report")
    write_report(Path(result.report), result)
    write_json(
        Path(result.report).with_suffix(".json"), {"kind": "adapt", **result.to_json()}
    )
    return result


def _adapt_model(run: Run[AdaptOptions], start: float) -> Job[Adapted]:
    folder, settings = run.required_target, run.options
    mosaic = open_image(run.image_inputs["mosaic"], run.opening)
    mosaic = mosaic.replace(name=get_image_name(run.image_inputs["mosaic"]))
    folder.mkdir(parents=True, exist_ok=True)
    # as the model receives this mosaic: its range, without stray pixels
    measured_image, shown_image = mosaic.data, mosaic
    if (strays := find_stray_pixels(mosaic.data)) is not None:
        measured_image = strays.mask(mosaic.data)
        shown_image = mosaic.replace(data=strays.fill(mosaic.data))
    levels = measure_percentiles(measured_image)
    areas, registrations = yield from _prepare_areas(run, mosaic, shown_image)
    cut_off = find_cut_off(mosaic, settings.cut_off_nm)
    yield Progress(0, 0, "fitting the linear filter")
    linear = fit_cross_validated_filter(
        [
            (light.array(), sem.array())
            for light, sem in (area.crop(area.training_box) for area in areas)
        ]
    )
    check_correlation(areas, linear.kernel)
    images: dict[str, list[NDArray[Any]]] = {INPUT: [], LINEAR: []}  # held-out parts
    for area in areas:
        light = area.light.array()
        images[INPUT].append(light[area.held_out.slices])
        images[LINEAR].append(linear.apply(light)[area.held_out.slices])
    before = evaluate(areas, images, cut_off)
    fit = yield from _train_model(run, areas, levels, before)
    trained_file = yield from _write_model(run, mosaic, areas, fit, levels)
    try:
        images = yield from _enhance_held_out(run, areas, trained_file, levels)
        evaluations = evaluate(areas, images, cut_off, before)
        require_gain(evaluations, ADAPTED_MODEL)
    except BaseException as error:
        trained_file.unlink()  # a model of an earlier training is kept
        if isinstance(error, AdaptationError):
            error.facts["steps"] = fit.steps
            error.facts["registration"] = to_json_value(registrations[0])
        raise
    model, is_new = _publish(trained_file)
    applied_images = yield from _enhance_images(run, model, is_new=is_new)
    provenance = compose_provenance(
        "adapt", run.options.model_dump(mode="json"), *run.records.values()
    )
    stem = _get_output_stem(run.image_inputs["mosaic"])
    linear_file, look_file = (
        folder / f"{stem}-{end}.ome.zarr" for end in ("linear", "look-here")
    )
    filter_result = yield from filter_mosaic(shown_image, linear, provenance)
    overwrite_image(filter_result, linear_file)
    overwrite_image(
        create_difference_map(
            filter_result, open_image(applied_images[0].output), provenance
        ),
        look_file,
    )
    return Adapted(
        output=str(folder),
        model=str(model),
        report=str(folder / _REPORT),
        registration=registrations[0],
        registrations=registrations,
        evaluated=evaluations,
        applied=applied_images,
        linear=str(linear_file),
        look_here=str(look_file),
        cut_off_nm=cut_off,
        steps=fit.steps,
        minutes=fit.seconds / 60,
        seconds=round(time.monotonic() - start, 1),
        warnings=(),
        curve=fit.curve,
        areas=tuple(areas),
        provenance=provenance,
    )


def _publish(trained_file: Path) -> tuple[Path, bool]:
    """Publish a trained model, and return whether it differs from the existing one."""
    model = trained_file.with_name(trained_file.name.removeprefix("."))
    is_new = not model.is_file() or model.read_bytes() != trained_file.read_bytes()
    trained_file.replace(model)
    return model, is_new


# Register, and divide the overlap.


def _prepare_areas(
    run: Run[AdaptOptions], mosaic: Micrograph, shown_image: Micrograph
) -> Job[tuple[list[SharedArea], list[dict[str, Any]]]]:
    """Register all SEM images, and crop their overlaps with the mosaic.

    `shown_image` is the mosaic without stray pixels, used for training.
    """
    sems = run.image_inputs["sem"]
    transform, landmarks = run.parameters["transform"], run.parameters["landmarks"]
    if len(sems) > 1 and not (transform is None and landmarks is None):
        msg = (
            f"A transform or landmarks apply to a single SEM image, got {len(sems)} "
            "images: adapt to one of them."
        )
        raise OptionError(msg, code="options-contradict")
    mosaic_given = run.image_inputs["mosaic"]
    yield from _record_image(run, LIGHT, mosaic_given, mosaic, run.opening)
    areas, facts = [], []
    if isinstance(landmarks, (str, os.PathLike)):
        landmarks = digest_path(Path(landmarks))
    search_options = run.options.model_dump(
        mode="json", include={*RegisterOptions.model_fields}
    )
    search = {**search_options, "landmarks": to_json_value(landmarks)}
    for number, image in enumerate(sems, 1):
        sem_image = open_image(image, run.get_read_options("sem")).replace(
            name=get_image_name(image)
        )
        check_pixel_sizes(mosaic=mosaic, sem=sem_image)
        yield from _record_image(
            run, f"sem {number}", image, sem_image, run.get_read_options("sem")
        )
        transform_file = run.required_target / _TRANSFORM.format(number)
        resumed_transform = None
        if run.existing.resume and transform is None and transform_file.is_file():
            resumed_transform = read_transform(transform_file)
            if resumed_transform.quality.get(_SEARCH, search) != search:
                resumed_transform = None
        registration = yield from register_sem(
            run, image, sem_image.name, resumed_transform
        )
        if not transform_file.is_file() or transform is None:
            stored_transform = registration.stored_transform
            quality = {**stored_transform.quality, _SEARCH: search}
            write_transform(transform_file, replace(stored_transform, quality=quality))
        found_registration = registration.registration
        facts.append(describe_registration(found_registration))
        try:
            areas.append(
                create_shared_area(shown_image, sem_image, found_registration.transform)
            )
        except ShapeError as error:
            raise AdaptationError(str(error), "not-registered") from error
    return areas, facts


def _record_image(
    run: Run[AdaptOptions],
    role: str,
    image: Image,
    image_opened: Micrograph,
    reading: Any,
) -> Job[InputRecord]:
    """Record an image once for the histories of the results."""
    if role not in run.records:
        job = record_input(image, image_opened, reading, role=role)
        run.records[role] = yield from job
    return run.records[role]


def register_sem(
    run: Run[AdaptOptions],
    sem: Image,
    name: str,
    resumed_transform: StoredTransform | None,
) -> Job[Registered]:
    """Register a mosaic to an SEM image, elastically if affine is insufficient."""
    settings = run.options
    is_found = resumed_transform is not None or run.parameters["transform"] is not None
    # as given, so that a transform recognises their files
    images = run.image_inputs["mosaic"], sem, run.get_read_options("sem")
    try:
        registration = yield from register_image_pair(
            run, *images, resumed_transform=resumed_transform
        )
        bends = not is_found and settings.model == "affine"
        if (
            bends
            and not _is_accurate_registration(registration, COSTLY_PX)
            and not settings.landmarks_only
        ):
            other = yield from register_image_pair(run, *images, model="elastic")
            registration = min(registration, other, key=_get_error_px)
    except RegistrationRefused as refused:
        msg = f"{name} cannot be registered: {refused}"
        facts = to_json_value(refused.to_json())
        raise AdaptationError(msg, "not-registered", registration=facts) from refused
    if not _is_accurate_registration(registration, _WORST_PX):
        msg = (
            f"The expected registration error of {name} is {registration.error_px:.2g} "
            f"px, but image pairs must match within {_WORST_PX:g} px: mark "
            "corresponding points as landmarks."
        )
        facts = to_json_value(describe_registration(registration.registration))
        raise AdaptationError(msg, "not-registered", registration=facts)
    if not _is_accurate_registration(registration, COSTLY_PX):
        warn(
            f"The expected registration error of {name} is "
            f"{registration.error_px:.2g} px, which costs 0.3 dB or more: landmarks "
            "may improve the registration.",
            "map-imprecise",
        )
    return registration


def _get_error_px(registration: Registered) -> float:
    """Return the expected error, or infinity if it is unknown."""
    error = registration.error_px
    return math.inf if error is None or math.isnan(error) else error


def _is_accurate_registration(registration: Registered, limit_px: float) -> bool:
    """Return whether the registration error is small enough or unknown."""
    return (
        registration.searched == "stored" and math.isinf(_get_error_px(registration))
    ) or (_get_error_px(registration) <= limit_px)


# Train, and write the model.


def _train_model(
    run: Run[AdaptOptions],
    areas: Sequence[SharedArea],
    levels: FloatPair,
    before: Mapping[str, Evaluation],
) -> Job["training.AreaFitResult"]:
    """Train on the training parts, resuming an interrupted run."""
    settings, folder = run.options, run.required_target
    state_file, stop = folder / _STATE, folder / STOP
    stop.unlink(missing_ok=True)
    resumes = run.existing.resume and state_file.is_file()
    state = training.load_area_state(state_file) if resumes else None
    images = []
    for area in areas:
        held_out = np.ones(area.light.shape, dtype=bool)
        held_out[area.training_box.slices] = False
        preview_values = np.zeros_like(held_out)
        preview_values[area.held_out.slices] = True
        sem = area.sem.array().copy()
        sem[held_out & ~preview_values] = np.nan
        images.append(training.AreaImages(area.light.array(), sem, preview_values))
    # in a separate process: torch's compiler must not run in that of the window
    fit = run.parameters.get("fit", fit_in_process)
    job = fit(
        images,
        training.AreaOptions(seed=settings.seed),
        levels=levels,
        seconds=None if settings.minutes is None else 60 * settings.minutes,
        threads=count_available_cores(),
        device=str(models.find_device(settings.device).device),
        state=state,
        should_stop=stop.is_file,
        save=partial(training.save_area_state, state_file),
    )
    sem = areas[0].crop(areas[0].held_out)[1].array().astype(float)

    def convert_progress(step: Progress) -> Progress:
        if not isinstance(step, training.AreaProgress):
            return step
        preview: tuple[FloatArray, ...] = ()
        if step.images:
            now = step.images[0].astype(float)
            gain, offset = fit_gain_and_offset(now, sem)
            preview = before[INPUT].images[0], gain * now + offset, sem
        common = step.done, step.total, step.message, step.seconds_left
        gains = step.gain_db, before[LINEAR].gain_db
        return AdaptProgress(*common, step.seconds, *gains, preview)

    place_fit: training.AreaFitResult = yield from map_progress(job, convert_progress)
    return place_fit


def _write_model(
    run: Run[AdaptOptions],
    mosaic: Micrograph,
    areas: Sequence[SharedArea],
    fit: "training.AreaFitResult",
    levels: FloatPair,
) -> Job[Path]:
    """Write the model with its card, under a hidden name until it proves a gain."""
    yield Progress(0, 0, "writing the model")
    vendor = next((a.sem.metadata.get("vendor") for a in areas), None)
    today = datetime.datetime.now().astimezone().date().isoformat()
    name = f"{_get_output_stem(run.image_inputs['mosaic'])[:80]}-{today}"
    unit_range = [
        (area.light.array()[area.training_box.slices] - levels[0])
        / (levels[1] - levels[0])
        for area in areas
    ]
    place, focus = (
        BlockFeatures.from_parts(unit_range),
        Falloff.from_image(mosaic, run.options.cut_off_nm),
    )
    card = fit.create_card(
        name,
        description=f"Trained on {mosaic.name} and {', '.join(a.name for a in areas)}"
        f"{f' ({vendor})' if vendor else ''}, {today}.",
        limits=(
            "Valid only for this sample at this focus. The model predicts typical "
            "structure: if light cannot show an object, its presence or absence is a "
            "guess."
        ),
        # range of the field itself, so that other exposures are scaled equally
        input_scaling="percentiles",
        pixel_size_nm=mosaic.pixel_size_nm and (mosaic.mean_pixel_size_nm,) * 2,
        training={
            TRAINED_ON: [
                _record_trained_area(run, area, role)
                for number, area in enumerate(areas, 1)
                for role in (LIGHT, f"sem {number}")
            ],
            **({} if place is None else {FAMILIARITY: place.to_json()}),
            **({} if focus is None else {FOCUS: focus.to_json()}),
        },
    )
    path = run.required_target / f".{name}.safetensors"
    models.save_model(path, fit.network, card)
    return path


def _record_trained_area(
    run: Run[AdaptOptions], area: SharedArea, role: str
) -> dict[str, Any]:
    """Record the area of an image that was trained on, in the format of `leakage`."""
    record, grid = run.records[role], Grid.from_image(area.light)
    box = area.training_box
    corners = np.array([[box.y0, box.x0], [box.y1, box.x1]])
    places = grid.corner + corners * np.array(grid.pitch)
    if role != LIGHT:  # in the plane of the SEM image
        around = np.array([[y, x] for y in places[:, 0] for x in places[:, 1]])
        mapped_places = area.transform(around)
        places = np.array([mapped_places.min(axis=0), mapped_places.max(axis=0)])
    return {
        "role": role,
        "name": record.name,
        "digest": record.digest,
        "unit": "nm",
        "areas": [[float(v) for v in places.ravel()]],
    }


def _get_output_stem(image: Image) -> str:
    """Return the stem of output names, which is the image name without its suffix."""
    name = get_image_name(image)
    if not isinstance(image, Micrograph):
        name = re.sub(r"(\.ome)?\.\w+$", "", name)
    return create_file_stem(name)


# Evaluate.


def _enhance_held_out(
    run: Run[AdaptOptions],
    areas: Sequence[SharedArea],
    trained_file: Path,
    levels: FloatPair,
) -> Job[dict[str, list[NDArray[Any]]]]:
    """Enhance the held-out parts with both models, in the mosaic's grey range."""
    level_options = {"input_scaling": "levels", "input_levels": levels}
    options = EnhanceOptions(device=run.options.device)
    images: dict[str, list[NDArray[Any]]] = {}
    for name, path in (
        (MOSAIC_MODEL, find_model(MOSAIC_MODEL)),
        (ADAPTED_MODEL, trained_file),
    ):
        yield Progress(0, 0, f"evaluating the {name}")
        model = models.load_model(path)
        model = replace(model, card=model.card.model_copy(update=level_options))
        images[name] = []
        for area in areas:
            output = yield from inference.enhance_in_memory(area.light, model, options)
            if output.shape != area.light.shape:  # a model for another pixel size
                data = WarpedImage(output, Grid.from_image(area.light), Affine()).read()
                output = area.light.replace(data=data)
            values = output.array()[area.held_out.slices]
            images[name].append(values.astype(np.float32))
    return images


# Enhance the rest.


def _enhance_images(
    run: Run[AdaptOptions], model: Path, *, is_new: bool
) -> Job[list[EnhancedImage]]:
    """Enhance all images, and compare them with the training area.

    Results of an earlier model are not resumed.
    """
    images_given = [run.image_inputs["mosaic"], *(run.image_inputs.get("apply") or ())]
    options = EnhanceOptions(device=run.options.device)
    results: list[EnhancedImage] = []
    for image in images_given:
        stem = _get_output_stem(image)
        names_in_use = {Path(one.output).name for one in results}
        names = (
            f"{stem}-enhanced{n}.ome.zarr"
            for n in ("", *map("-{}".format, range(2, 10**4)))
        )
        target = run.required_target / next(
            name for name in names if name not in names_in_use
        )
        resumes = run.existing.resume and target.exists() and not is_new
        enhanced_file = yield from ENHANCE.job(
            image,
            target,
            model=model,
            options=options,
            opening=run.opening,
            overwrite=not resumes,
            resume=resumes,
        )
        results.append(
            EnhancedImage(
                get_image_name(image),
                enhanced_file.output or "",
                enhanced_file.unfamiliar_percent,
            )
        )
    return results


ADAPT = Verb(
    "adapt",
    (
        ImageInput(
            "mosaic", "the optical image of the sample, such as a mosaic", side="mosaic"
        ),
        ImageInput(
            "sem",
            "SEM images of areas that MOSAIC shows; one is enough",
            label="SEM",
            metavar="SEM",
            many=True,
            side="sem",
        ),
        ImageInput(
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
    _run_adaptation,
    title="registration and training",
    files=(LANDMARKS_IN, TRANSFORM_IN),
    output=Output(
        "folder of the run: registration, model, enhanced images, page",
        metavar="RUN_DIR",
        ending="",
        remade=True,
    ),
    opens=False,
    resumes=True,
)
