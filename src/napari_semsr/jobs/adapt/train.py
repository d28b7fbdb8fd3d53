"""Training of a network on one area, and its evaluation on the held-out part."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr import analysis, core, inference, models, training
from napari_semsr.inference import EnhanceOptions
from napari_semsr.io import read_transform, write_atomically
from napari_semsr.jobs import register
from napari_semsr.jobs.adapt.areas import (
    ADAPTED_MODEL,
    INPUT,
    LINEAR,
    MOSAIC_IN,
    SEM_IN,
    AdaptationError,
    Evaluation,
    SharedArea,
    check_correlation,
    create_shared_area,
    evaluate,
    exclude_held_out_parts,
    require_gain,
)
from napari_semsr.jobs.adapt.process import fit_in_process
from napari_semsr.jobs.images import (
    Image,
    Result,
    compose_provenance,
    create_focus_warning,
    get_image_name,
    open_image,
    record_input,
    to_json_value,
)
from napari_semsr.jobs.leakage import LIGHT, TRAINED_ON
from napari_semsr.jobs.verb import FileInput, Output, Run, command
from napari_semsr.models import MOSAIC_MODEL, find_model
from napari_semsr.restoration import fit_linear_filter

STOP = "stop"
"""Name of the file in the run folder that ends the training early."""
TRAINING_STATE = "training.pt"
"""Name of the file in the run folder from which a training resumes."""
SEM_IMAGE = "SEM image"
"""Name of the SEM image among the images of the held-out part."""


class AdaptOptions(register.RegisterOptions):
    """Options of registration and training."""

    minutes: float | None = core.option(
        None,
        "Minutes",
        "Training time in minutes; by default, a fixed number of steps, which takes "
        "about three minutes on two cores and longer on a busy computer. Longer "
        "training gives a better model.",
        gt=0,
        le=600,
    )
    cut_off_nm: analysis.CutOff = None
    seed: int = core.option(0, "Seed", "Random seed, for reproducible training.", ge=0)
    device: str = core.declare_device_option()


@dataclass(frozen=True, slots=True)
class AdaptProgress(core.Progress):
    """Training progress, with results on the held-out part.

    `preview_images` are the input, the model's present result and the SEM image of the
    first area, in the grey values of the last; empty if nothing is new. Gains are over
    the input, on the held-out part: in the whole band, and below the optical cut-off.
    """

    seconds: float = 0.0  # of training
    gain_db: float | None = None
    linear_gain_db: float | None = None
    gain_below_cutoff_db: float | None = None
    linear_gain_below_cutoff_db: float | None = None
    preview_images: tuple[core.FloatArray, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainedArea(Result):
    """Model trained on one area, with its evaluation on the held-out part.

    `curve` is the gain over the time of the training, and `provenance` that of the
    results of the run.
    """

    output: str
    registrations: list[dict[str, Any]]
    areas: list[SharedArea]
    pixel_size_nm: core.FloatPair | None
    evaluations: dict[str, Evaluation]
    cut_off_nm: float | None
    explained_percent: float | None
    steps: int
    minutes: float
    curve: list[dict[str, Any]]
    provenance: core.Provenance


@command(opens=False)
def train_on_sem(
    run: Run[AdaptOptions],
    mosaic: Annotated[Image, MOSAIC_IN],
    sem: Annotated[Sequence[Image], SEM_IN],
    transforms: Annotated[
        Sequence[str],
        FileInput(help="the transform of the mosaic to each SEM image", many=True),
    ],
    output: Annotated[
        Path,
        Output("the model, if it is better than all others", ending=".safetensors"),
    ],
    *,
    options: AdaptOptions,
    planes: Annotated[Path, Output("images of the held-out part", ending=".npz")],
) -> core.Job[TrainedArea]:
    """Train on one part of each area, and keep the model if it is the best there is."""
    mosaic_image = open_image(mosaic, run.opening).replace(name=get_image_name(mosaic))
    # as the model receives this mosaic: its range, without stray pixels
    measured_image, shown_image = mosaic_image.data, mosaic_image
    survey = yield from core.survey_pixels(mosaic_image.data)
    if (strays := survey.strays) is not None:
        measured_image = strays.mask(mosaic_image.data)
        shown_image = mosaic_image.replace(data=strays.fill(mosaic_image.data))
    levels = core.measure_percentiles(measured_image)
    if (sentence := create_focus_warning(mosaic_image)) is not None:
        core.warn(sentence)
    run.records[LIGHT] = yield from record_input(
        mosaic, mosaic_image, run.opening, role=LIGHT
    )
    areas, registrations = yield from _open_areas(run, shown_image, sem, transforms)
    cut_off = analysis.find_cut_off(mosaic_image, options.cut_off_nm)
    yield core.Progress(0, 0, "fitting the linear filter")
    linear = fit_linear_filter([area.crop_training_part() for area in areas])
    check_correlation(areas, linear.kernel)
    lights = [(area.light.array(), area.held_out.slices) for area in areas]
    images: dict[str, list[NDArray[Any]]] = {INPUT: [x[part] for x, part in lights]}
    images[LINEAR] = [linear.apply(light)[part] for light, part in lights]
    before = evaluate(areas, images, cut_off)
    fit = yield from _fit_network(run, output, areas, levels, before, cut_off)
    card = create_card(run, output.stem, mosaic_image, areas, fit, levels)
    images = yield from _enhance_held_out(
        areas, models.LoadedModel(fit.network, card, ""), levels, options.device
    )
    evaluations = evaluate(areas, images, cut_off, before)
    try:
        require_gain(evaluations, ADAPTED_MODEL)
    except AdaptationError as error:
        error.facts |= {"steps": fit.steps, "registration": registrations[0]}
        raise
    if fit.light_explained is not None and not fit.copies:
        core.warn(
            "The model was trained without copies in which objects are missing or "
            f"added: SEM predicts only {100 * fit.light_explained:.0f} % of the "
            "optical image: it may draw usual objects where there are none.",
            "no-copies",
        )
    yield core.Progress(0, 0, "writing the model")
    truth = areas[0].crop(areas[0].held_out)[1]
    arrays = {name: row.images[0] for name, row in evaluations.items()}
    arrays[SEM_IMAGE] = truth.array()
    with write_atomically(planes) as place, place.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]
    models.save_model(output, fit.network, card, beside=fit.state["light"])
    return TrainedArea(
        output=str(output),
        registrations=registrations,
        areas=areas,
        pixel_size_nm=truth.pixel_size_nm,
        evaluations=evaluations,
        cut_off_nm=cut_off,
        explained_percent=100 * fit.explained["share"] if fit.explained else None,
        steps=fit.steps,
        minutes=fit.seconds / 60,
        curve=fit.curve,
        provenance=compose_provenance(
            "adapt", options.model_dump(mode="json"), *run.records.values()
        ),
    )


def _open_areas(
    run: Run[AdaptOptions],
    mosaic: core.Micrograph,
    images: Sequence[Image],
    transforms: Sequence[str],
) -> core.Job[tuple[list[SharedArea], list[dict[str, Any]]]]:
    """Crop the overlaps of the SEM images with the mosaic; describe the transforms."""
    areas, registrations = [], []
    for number, (image, transform_file) in enumerate(
        zip(images, transforms, strict=True), 1
    ):
        reading, role = run.get_read_options("sem"), f"sem {number}"
        sem = open_image(image, reading).replace(name=get_image_name(image))
        run.records[role] = yield from record_input(image, sem, reading, role=role)
        stored_transform = read_transform(Path(transform_file))
        places = register.read_residuals(stored_transform).places_nm
        found = register.create_transform_record(stored_transform.transform, places)
        quality = dict(stored_transform.quality)
        quality.pop("residuals", None)
        record = {"model": quality["model"], "transform": to_json_value(found)}
        registrations.append(record | quality)
        areas.append(create_shared_area(mosaic, sem, stored_transform.transform))
    return exclude_held_out_parts(areas), registrations


def _fit_network(
    run: Run[AdaptOptions],
    output: Path,
    areas: Sequence[SharedArea],
    levels: core.FloatPair,
    before: Mapping[str, Evaluation],
    cut_off_nm: float | None,
) -> core.Job["training.AreaFitResult"]:
    """Train on the training parts, resuming an interrupted training."""
    settings, state_file = run.options, output.with_name(TRAINING_STATE)
    stop_file = output.with_name(STOP)
    for file in (stop_file,) if run.existing.resume else (stop_file, state_file):
        file.unlink(missing_ok=True)
    images = []
    for area in areas:
        sem = np.full_like(area.sem.array(), np.nan)
        sem[area.training_box.slices] = area.crop_training_part()[1]
        sem[area.held_out.slices] = area.crop(area.held_out)[1].array()
        preview_values = np.zeros(sem.shape, dtype=bool)
        preview_values[area.held_out.slices] = True
        images.append(training.AreaImages(area.light.array(), sem, preview_values))
    # in a separate process: torch's compiler must not run in that of the window
    job = fit_in_process(
        images,
        training.AreaOptions(seed=settings.seed),
        state_file=state_file,
        stop_file=stop_file,
        levels=levels,
        cut_off_nm=cut_off_nm,
        pixel_size_nm=areas[0].light.pixel_size_nm,
        seconds=None if settings.minutes is None else 60 * settings.minutes,
        threads=core.count_available_cores(),
        device=str(models.find_device(settings.device).device),
    )
    sem = areas[0].crop(areas[0].held_out)[1].array().astype(float)

    def convert_progress(step: core.Progress) -> core.Progress:
        if not isinstance(step, training.AreaProgress):
            return step
        preview: tuple[core.FloatArray, ...] = ()
        if step.images:
            now = step.images[0].astype(float)
            gain, offset = analysis.fit_gain_and_offset(now, sem)
            preview = before[INPUT].images[0], gain * now + offset, sem
        common = step.done, step.total, step.message, step.seconds_left
        linear = before[LINEAR]
        gains = step.gain_db, linear.gain_db
        below = step.gain_below_cutoff_db, linear.gain_below_cutoff_db
        return AdaptProgress(*common, step.seconds, *gains, *below, preview)

    return (yield from core.map_progress(job, convert_progress))


def create_card(
    run: Run[AdaptOptions],
    name: str,
    mosaic: core.Micrograph,
    areas: Sequence[SharedArea],
    fit: "training.AreaFitResult",
    levels: core.FloatPair,
) -> models.ModelCard:
    """Create the card of the model."""
    vendor = next((a.sem.metadata.get("vendor") for a in areas), None)
    today = datetime.datetime.now().astimezone().date().isoformat()
    low, high = levels
    unit_range = [(one.crop_training_part()[0] - low) / (high - low) for one in areas]
    place = analysis.BlockFeatures.from_parts(unit_range)
    return fit.create_card(
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
                _record_trained_area(run.records[role], area)
                for number, area in enumerate(areas, 1)
                for role in (LIGHT, f"sem {number}")
            ],
            **({} if place is None else {analysis.FAMILIARITY: place.to_json()}),
        },
    )


def _record_trained_area(record: core.InputRecord, area: SharedArea) -> dict[str, Any]:
    """Record the area of an image that was trained on, in the format of `leakage`."""
    grid, regions = core.Grid.from_image(area.light), []
    for box in area.training_boxes:
        places = grid.corner + np.reshape(box.ends, (2, 2)) * np.array(grid.pitch)
        if record.role != LIGHT:  # in the plane of the SEM image
            around = np.array([[y, x] for y in places[:, 0] for x in places[:, 1]])
            mapped_places = area.transform(around)
            places = np.array([mapped_places.min(axis=0), mapped_places.max(axis=0)])
        regions.append([float(v) for v in places.ravel()])
    facts = record.model_dump(include={"role", "name", "digest"})
    return {**facts, "unit": "nm", "areas": regions}


def _enhance_held_out(
    areas: Sequence[SharedArea],
    adapted_model: "models.LoadedModel",
    levels: core.FloatPair,
    device: str,
) -> core.Job[dict[str, list[NDArray[Any]]]]:
    """Enhance the held-out parts with both models, in the mosaic's grey range."""
    level_options = {"input_scaling": "levels", "input_levels": levels}
    options = EnhanceOptions(device=device)
    images: dict[str, list[NDArray[Any]]] = {}
    mosaic_model = models.load_model(find_model(MOSAIC_MODEL))
    compared = {MOSAIC_MODEL: mosaic_model, ADAPTED_MODEL: adapted_model}
    for name, model in compared.items():
        yield core.Progress(0, 0, f"evaluating the {name}")
        model = replace(model, card=model.card.model_copy(update=level_options))
        images[name] = []
        for area in areas:
            output = yield from inference.enhance_in_memory(area.light, model, options)
            if output.shape != area.light.shape:  # a model for another pixel size
                grid = core.Grid.from_image(area.light)
                data = core.WarpedImage(output, grid, core.Affine()).read()
                output = area.light.replace(data=data)
            values = output.array()[area.held_out.slices]
            images[name].append(values.astype(np.float32))
    return images
