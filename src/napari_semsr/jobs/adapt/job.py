"""Training of a small network on one area of a sample, to enhance the sample.

One SEM image of a part of a mosaic is enough: it is registered, the area that both show
is divided into a part to train on and a part to evaluate on, and the model is kept only
if it is better than every simpler method on the latter. Then the mosaic is enhanced,
and further images of the same sample.

Each step has a record beside its output in the run folder, so that a run repeats only
what changed. The report is made from the files of the run.
"""

import datetime
import glob
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations, count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from napari_semsr import core, io, reporting
from napari_semsr.analysis import choose_gain
from napari_semsr.jobs import images, register
from napari_semsr.jobs.adapt import train
from napari_semsr.jobs.adapt.areas import (
    ADAPTED_MODEL,
    INPUT,
    LINEAR,
    MOSAIC_IN,
    SEM_IN,
    Evaluation,
    register_sem,
)
from napari_semsr.jobs.enhance import enhance
from napari_semsr.jobs.models import get_model_origin
from napari_semsr.jobs.pairs import check_images_differ
from napari_semsr.jobs.resume import Step, StepRecord, run_step
from napari_semsr.jobs.verb import ImageInput, Output, Run, Verb, command
from napari_semsr.models import MOSAIC_MODEL
from napari_semsr.registration import Landmarks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


_WHOLE_PX, _DETAIL_PX = 480, 400
_DETAIL = 128  # side of the detail of the held-out part


def write_report(
    result: "Adapted",
    record: "Mapping[str, Any]",
    planes: "Mapping[str, NDArray[Any]]",
) -> None:
    """Write the report page from the record of the training and its images."""
    reporting.write_page(
        Path(result.report),
        Path(__file__).with_name("adapt.html"),
        result=result,
        held_out_shape=planes[train.SEM_IMAGE].shape,
        **draw_held_out_images(
            planes,
            record["pixel_size_nm"],
            record["curve"],
            result.held_out,
        ),
        provenance=reporting.list_provenance(
            record["provenance"]["options"],
            [(one["name"], one["digest"]) for one in record["provenance"]["inputs"]],
        ),
    )


def draw_held_out_images(
    planes: "Mapping[str, NDArray[Any]]",
    pixel_size_nm: "core.FloatPair | None",
    curve: "Sequence[Mapping[str, Any]]",
    held_out: "Mapping[str, Any]",
) -> dict[str, Any]:
    """Draw the held-out part of an area: `wholes`, `details` and the `curve`.

    `planes` are the evaluated images of that part in the grey levels of the SEM image,
    by name, and the SEM image; `curve` has the gains of the training over its time,
    and `held_out` those of the linear filter.
    """
    limits, pixel = reporting.choose_grey_limits(planes[train.SEM_IMAGE]), pixel_size_nm
    shape = planes[train.SEM_IMAGE].shape
    rows, columns = (min(_DETAIL, n) for n in shape)
    y, x = ((n - side) // 2 for n, side in zip(shape, (rows, columns), strict=True))

    def draw_plane(plane: Any, width_px: int) -> bytes:
        return reporting.draw_image_png(plane, pixel, limits=limits, width_px=width_px)

    curve_png = None
    key, title = choose_gain(curve[-1]) if curve else ("", "")
    rows_measured = [row for row in curve if row.get(key) is not None]
    if len(rows_measured) >= 2:
        seconds, gains = (
            np.array([row[name] for row in rows_measured]) for name in ("seconds", key)
        )
        linear = np.full(2, held_out[f"linear_{key}"] or np.nan)
        lines = (
            core.Line(ADAPTED_MODEL, seconds, gains),
            core.Line(LINEAR, seconds[[0, -1]], linear, kind="threshold"),
        )
        curve_png = reporting.draw_plot_png(
            core.Plot("Training", "time (s)", f"{title} ({core.DB})", lines)
        )
    return {
        "wholes": {
            name: draw_plane(plane, _WHOLE_PX) for name, plane in planes.items()
        },
        "details": {
            name: draw_plane(plane[y : y + rows, x : x + columns], _DETAIL_PX)
            for name, plane in planes.items()
        },
        "curve": curve_png,
    }


_REPORT, _PLANES = "report.html", "held-out.npz"
_TRAINING = "training.json"  # record of the training, with the evaluation
_FROM_TRAINING = (
    "registrations",
    "cut_off_nm",
    "explained_percent",
    "steps",
    "minutes",
    "areas",
)  # its keys


@dataclass(frozen=True, slots=True)
class EnhancedImage(images.Result):
    """Image enhanced by the adapted model.

    `unfamiliar_percent` is the share of its blocks that are unlike the training area;
    None if the area is too small to decide.
    """

    image: str
    output: str
    unfamiliar_percent: Annotated[
        float | None, core.Quantity("Unlike the training area", "% of the area", ".0f")
    ]


@dataclass(frozen=True, slots=True)
class Adapted(images.Result):
    """Model trained on one area, with held-out evaluation and enhanced images.

    `registration` has the keys of `Registered`, for the first SEM image;
    `registrations` are those of all. `held_out` has the model's gains over the input,
    next to those of the linear filter that was fitted on the training part and of the
    untouched `ssum-sem`.
    `areas` are the boxes of each area in the mosaic, and of its parts in that box.
    `explained_percent` is the share of the finest detail of the held-out optical image
    that its enhanced version predicts, None without an optical cut-off.
    """

    output: str
    model: Annotated[str, core.Quantity("Model")]
    report: Annotated[str, core.Quantity("Report")]
    registration: Annotated[
        dict[str, Any], core.declare_quantity("Registration", keys=register.Registered)
    ]
    registrations: list[dict[str, Any]]
    evaluated: Annotated[
        dict[str, Evaluation],
        core.declare_quantity("Evaluation", keys=Evaluation),
    ]
    applied: list[EnhancedImage]
    cut_off_nm: float | None
    explained_percent: Annotated[
        float | None, core.Quantity("Finest optical detail explained", "%", ".0f")
    ]
    steps: Annotated[int, core.Quantity("Steps", form="d")]
    minutes: Annotated[float, core.Quantity("Trained", "minutes", ".3g")]
    seconds: Annotated[float, core.Quantity("Time", "s", ".0f")]
    warnings: tuple[str, ...]
    areas: list[dict[str, Any]]

    @property
    def held_out(self) -> dict[str, Any]:
        """Evaluation on the held-out part."""
        record = self.evaluated[ADAPTED_MODEL].to_json()
        gains = {key: record[key] for key in _GAINS}
        for name, key in ((LINEAR, "linear"), (MOSAIC_MODEL, "untouched")):
            row = self.evaluated[name]
            gains[f"{key}_gain_db"] = row.gain_db
            gains[f"{key}_gain_below_cutoff_db"] = row.gain_below_cutoff_db
        return gains

    def to_json(self) -> dict[str, Any]:
        """Return the record that the command prints."""
        held_out = images.to_json_value(self.held_out)
        return {**images.Result.to_json(self), "held_out": held_out}

    def figures(self) -> dict[str, core.Figure]:
        """Return gains on the held-out part, and enhanced images."""
        rows: dict[str, core.Figure] = {}
        for name, row in self.evaluated.items():
            if name != INPUT:
                record = row.to_json()
                key, title = choose_gain(record)
                error = record[key.replace("_db", "_sd_db")]
                label = f"{title.capitalize()}, {name}"
                rows[label] = core.Figure(record[key], core.DB, "+.2f", sd=error)
        rows |= core.get_declared_figures(self)
        for one in self.applied:
            unlike = one.unfamiliar_percent
            share = f", {unlike or 0:.0f} % unlike the training area"
            share = "" if unlike is None else share
            rows[f"Enhanced, {one.image}"] = core.Figure(f"{one.output}{share}")
        return rows


_GAINS = ["gain_db", "gain_sd_db", "gain_below_cutoff_db", "gain_below_cutoff_sd_db"]


@command(title="registration and training", opens=False, resumes=True)
def adapt(
    run: Run[train.AdaptOptions],
    mosaic: Annotated[images.Image, MOSAIC_IN],
    sem: Annotated[Sequence[images.Image], SEM_IN],
    output: Annotated[
        Path,
        Output(
            "folder of the run: registration, model, enhanced images, page",
            metavar="RUN_DIR",
            ending="",
        ),
    ],
    *,
    options: train.AdaptOptions,
    apply: Annotated[
        Sequence[images.Image] | None,
        ImageInput(
            help="further images of the same sample, which are enhanced too",
            label="Also enhance",
            many=True,
        ),
    ] = None,
    landmarks: Annotated[Landmarks | str | Path | None, register.LANDMARKS_IN] = None,
    transform: Annotated[
        io.StoredTransform | str | Path | None, register.TRANSFORM_IN
    ] = None,
    translate: Callable[[str], str] | None = None,
) -> core.Job[Adapted]:
    """Train a small network on one SEM image of a mosaic, and enhance with it."""
    start = time.monotonic()
    existing = run.existing
    images.check_target_folder(
        output, empty=not (existing.overwrite or existing.resume)
    )
    sem_count = len(sem)
    if sem_count > 1 and (landmarks, transform) != (None, None):
        msg = (
            f"A transform or landmarks apply to a single SEM image, got {sem_count} "
            "images: adapt to one of them."
        )
        raise core.OptionError(msg, code="options-contradict")
    _check_images(run, (mosaic, *(apply or ())), sem)
    parts = (output / name for name in (train.TRAINING_STATE, _TRAINING))
    if (
        not existing.overwrite
        and any(part.is_file() for part in parts)
        and not any(output.glob(".registration-*.done.json"))
    ):
        msg = (
            f"The run in {output} has no records, as if of an earlier version, and "
            "cannot be resumed: choose another folder or set `overwrite`."
        )
        raise core.WriteError(msg, code="not-resumable")
    output.mkdir(parents=True, exist_ok=True)
    places = {"landmarks": landmarks, "transform": transform}
    steps = _Steps(
        run,
        output,
        _get_output_stem(mosaic),
        mosaic,
        sem,
        apply or (),
        {name: place for name, place in places.items() if place is not None},
    )
    sentences: list[str] = []
    model, applied = yield from images.collect_warnings(steps.run(), sentences)
    warnings = (
        core.Message((translate or str)(text), core.get_error_code(text))
        for text in sentences
    )
    yield core.Progress(0, 0, "writing the report")
    # a run of an earlier version has no share, and counts of objects
    record = {"explained_percent": None, **io.read_json_object(output / _TRAINING)}
    for row in record["evaluations"].values():
        row.pop("objects", None)
    result = Adapted(
        output=str(output),
        model=str(model),
        report=str(output / _REPORT),
        registration=record["registrations"][0],
        **{name: record[name] for name in _FROM_TRAINING},
        evaluated={
            name: Evaluation(name, **row) for name, row in record["evaluations"].items()
        },
        applied=applied,
        seconds=round(time.monotonic() - start, 1),
        warnings=tuple(dict.fromkeys(warnings)),
    )
    with np.load(output / _PLANES) as planes:
        write_report(result, record, dict(planes))
    numbers = {"kind": "adapt", **result.to_json()}
    reporting.write_json(Path(result.report).with_suffix(".json"), numbers)
    return result


def _check_images(
    run: Run[train.AdaptOptions],
    lights: Sequence[images.Image],
    sem: Sequence[images.Image],
) -> None:
    """Raise an error, before anything is replaced, for inputs that cannot be used."""
    for path in run.inputs:
        if not io.path_exists(path):
            raise io.create_missing_file_error(path)
    with core.capture_warnings(lambda _: None):  # each step opens, and warns, again
        for one in lights:
            images.open_image(one, run.opening)
        sems = [images.open_image(one, run.get_read_options("sem")) for one in sem]
    for pair in combinations(sems, 2):
        check_images_differ(pair[:1], pair[1:])


@dataclass(frozen=True, slots=True)
class _Steps:
    """Steps of a run in its folder; `stem` begins the names of their outputs."""

    task: Run[train.AdaptOptions]
    folder: Path
    stem: str
    mosaic: images.Image
    sems: Sequence[images.Image]
    apply: Sequence[images.Image]
    places: "Mapping[str, Any]"  # landmarks or a transform, if given

    def run(self) -> core.Job[tuple[Path, list[EnhancedImage]]]:
        """Run all steps; returns the model and the enhanced images."""
        mosaic, folder = self.mosaic, self.folder
        transforms = yield from self._register()
        model = folder / self._choose_model_name()
        outputs = {"output": model, "planes": folder / _PLANES}
        inputs = {"mosaic": mosaic, "sem": self.sems, "transforms": transforms}
        yield from self._run_step(
            "model", train.train_on_sem, inputs, outputs, _TRAINING
        )
        applied: dict[str, EnhancedImage] = {}  # by the names of their steps
        for image in (mosaic, *self.apply):
            stem = _get_output_stem(image)
            name = f"{stem}-enhanced"
            names = chain([name], (f"{name}-{number}" for number in count(2)))
            name = next(one for one in names if one not in applied)
            place = folder / f"{name}.ome.zarr"
            inputs = {"image": image, "model": model}
            record = yield from self._run_step(
                f"enhancing {stem}", enhance, inputs, {"output": place}, f"{name}.json"
            )
            unlike = record.values["unfamiliar_percent"]
            applied[name] = EnhancedImage(
                images.get_image_name(image), str(place), unlike
            )
        return model, [*applied.values()]

    def _register(self) -> core.Job[list[Path]]:
        """Register the mosaic to each SEM image; return the files of the transforms."""
        transforms, files = [], dict[str, Any](self.places)
        given = files.get("transform")
        for number, sem in enumerate(self.sems, 1):
            place = self.folder / f"registration-{number}.json"
            if isinstance(given, str | os.PathLike) and (
                Path(given).resolve() == place.resolve()
            ):  # of this run: read before it is written again
                files["transform"] = io.read_transform(place)
            inputs = {"mosaic": self.mosaic, "sem": sem, **files}
            activity = f"registering SEM image {number}"
            yield from self._run_step(activity, register_sem, inputs, {"output": place})
            transforms.append(place)
        return transforms

    def _choose_model_name(self) -> str:
        """Return the name of the model's file; a resumed run keeps it."""
        if self.task.existing.resume:
            names_before = f"{glob.escape(self.stem[:80])}-????-??-??*.safetensors"
            for path in sorted(self.folder.glob(names_before)):
                return path.name
        today = datetime.datetime.now().astimezone().date().isoformat()
        name = f"{self.stem[:80]}-{today}"
        # a model of an earlier run stays in the library
        names = chain([name], (f"{name}-{number}" for number in count(2)))
        return f"{next(one for one in names if not get_model_origin(one))}.safetensors"

    def _run_step(
        self,
        activity: str,
        verb: Verb[Any, Any],
        inputs: "Mapping[str, Any]",
        outputs: "Mapping[str, Path]",
        record_name: str | None = None,
    ) -> core.Job[StepRecord]:
        """Run a command with the options of this run, unless its record agrees.

        `record_name` is the file of its JSON result.
        """
        run = self.task
        options = verb.list_values(
            options=run.options,
            opening=run.opening,
            sem_opening=run.get_read_options("sem"),
        )
        places = {key: str(place) for key, place in outputs.items()}
        values = {**options, **inputs, **places}
        step = Step(verb.name, inputs, options, (*outputs.values(),))
        record, result = yield from core.map_progress(
            run_step(
                step,
                lambda: _start_step(verb, values, again=run.existing.overwrite),
                again=run.existing.overwrite,
            ),
            lambda one: replace(one, message=f"{activity}: {one.message}"),
        )
        if result is not None and record_name is not None:
            numbers = {"kind": verb.name, **record.values}
            reporting.write_json(self.folder / record_name, numbers)
        return record


def _start_step(
    verb: Verb[Any, Any], values: dict[str, Any], *, again: bool
) -> core.Job[Any]:
    """Start a command; an interrupted store of the same run is resumed."""
    begun = not again
    if verb.resumes:
        store = io.get_output_store_path(Path(values["output"]), resume=True)
        begun = io.read_store_state(store)[1].get("complete") is False
    try:
        return (yield from verb.start(values, overwrite=True, resume=begun))
    except core.SemsrError as error:
        if not begun or error.code not in ("other-run", "not-resumable"):
            raise
    return (yield from verb.start(values, overwrite=True))


def _get_output_stem(image: images.Image) -> str:
    """Return the stem of output names, which is the image name without its suffix."""
    name = images.get_image_name(image)
    if not isinstance(image, core.Micrograph):
        name = re.sub(r"(\.ome)?\.\w+$", "", name)
    return io.create_file_stem(name)
