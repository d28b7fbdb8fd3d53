"""Enhance an image, or a stack plane by plane.

`enhance` opens the image; `_load_model` loads the model, compares the image with what
it was trained on, and records both. Without an output the enhanced image is returned;
otherwise it plans the output, `_write_enhanced` fills the store tile by tile and
compares the result with the input, and the requested maps are written. Below, functions
stand in this order.

A new store is filled in place. Other formats are written from a hidden store next to
the output; an existing store is kept until the hidden one is complete. A stopped run
keeps both and can be resumed: the store records which tiles are done, and is refused
if input, model or options differ (`napari_semsr.io.zarr_store`).
"""

import itertools
import math
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil

from napari_semsr import analysis, core, inference, io, models, training
from napari_semsr.inference import ClusterOptions, EnhanceOptions, EnhanceReport
from napari_semsr.jobs import images, verb
from napari_semsr.jobs.leakage import TRAINED_ON

MISFIT = "misfit"
"""Output name of the misfit map."""
UNFAMILIAR = "unfamiliar_map"
"""Name of the map of distance from the training area, as output and argument."""
_VALUES = "values"
"""Key of a store note that contains the digest of the input grey values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnhancedFile(images.ImageResult):
    """Result of an enhancement, with its computational cost.

    `misfit`, the residual of the image, is known for models trained on a simulated
    instrument, or if its map was requested. `unfamiliar_percent` is the share of the
    blocks of the image that are unlike the area that the model was trained on; None for
    models that do not state it, and for images smaller than a block.
    `explained_percent` is the share of the finest optical detail that the result
    predicts, for the same models.
    """

    report: EnhanceReport = field(metadata=core.FLAT)
    provenance: core.Provenance = field(metadata={"json": False})
    misfit: analysis.Misfit | None = field(default=None, metadata={"json": False})
    misfit_map: Annotated[str | None, core.Quantity("Misfit map")] = None  # its path
    unfamiliar_percent: Annotated[
        float | None, core.Quantity("Unlike the training area", "% of the area", ".0f")
    ] = None
    unfamiliar_map: Annotated[
        str | None, core.Quantity("Map of distance from the training area")
    ] = None  # its path
    explained_percent: Annotated[
        float | None, core.Quantity("Finest optical detail explained", "%", ".0f")
    ] = None

    @property
    def misfit_percent(
        self,
    ) -> Annotated[
        float | None,
        core.Quantity(
            "Misfit",
            "% of the input's contrast",
            ".0f",
            verdict="misfit_verdict",
            large=True,
        ),
    ]:
        """Misfit of the result."""
        return None if self.misfit is None else 100 * self.misfit.share

    @property
    def misfit_verdict(self) -> str | None:
        """Assessment of the misfit."""
        return None if self.misfit is None else self.misfit.verdict

    def figures(self) -> dict[str, core.Figure]:
        """Return the misfit and the computational cost."""
        figures = core.get_declared_figures(self)
        misfit = {name: one for name, one in figures.items() if name == "Misfit"}
        return misfit | figures

    def to_json(self) -> dict[str, object]:
        """Return the JSON record, including the model digest."""
        digest = {"model_digest": self.provenance.model_digest}
        return images.Result.to_json(self) | digest


def _summarise_planes(results: Sequence[EnhancedFile]) -> dict[str, object]:
    """Sum the cost over the planes, and keep the worst quality measures."""
    reports = [item.report for item in results]
    seconds = sum(item.seconds for item in reports)
    pixels = sum(item.megapixels_per_second * item.seconds for item in reports)
    notes = dict.fromkeys(note for item in reports for note in item.notes)
    clipped_count = sum(item.clipped for item in reports)
    mismatches = [i.tile_mismatch for i in reports if not math.isnan(i.tile_mismatch)]
    misfits = [item.misfit for item in results if item.misfit is not None]
    shares = (item.explained_percent for item in results)
    explained = [share for share in shares if share is not None]
    gains = [gain for item in reports for gain in item.haze_gain or ()]
    report = replace(
        reports[0],
        tiles=sum(item.tiles for item in reports),
        resumed=sum(item.resumed for item in reports),
        seconds=seconds,
        megapixels_per_second=pixels / seconds if seconds else 0.0,
        peak_memory_mb=max(item.peak_memory_mb for item in reports),
        tile_mismatch=max(mismatches, default=math.nan),
        seam_index=max(item.seam_index for item in reports),
        clipped=clipped_count,
        haze_gain=(min(gains), max(gains)) if gains else None,
        noise_percent=_get_largest_value(item.noise_percent for item in reports),
        blur_px=_get_largest_value(item.blur_px for item in reports),
        norm_error=_get_largest_value(item.norm_error for item in reports),
        notes=tuple(notes),
    )
    return {
        "report": report,
        "clipped": clipped_count,
        "misfit": max(misfits, key=lambda misfit: misfit.share, default=None),
        "unfamiliar_percent": _get_largest_value(
            item.unfamiliar_percent for item in results
        ),
        "explained_percent": min(explained, default=None),
    }


def _get_largest_value(values: Iterable[float | None]) -> float | None:
    """Return the largest known value, or None."""
    return max((value for value in values if value is not None), default=None)


@verb.command(
    title="tiles",
    result=EnhancedFile,
    opens=False,
    resumes=True,
    sum_up=_summarise_planes,
)
def enhance(
    run: verb.Run[EnhanceOptions],
    image: Annotated[
        images.Image,
        verb.ImageInput(help="the image to enhance", stack=True, several=True),
    ],
    output: Annotated[Path | None, verb.IMAGE_OUT],
    *,
    options: EnhanceOptions,
    model: Annotated[
        str | Path | None,
        replace(
            verb.MODEL_IN,
            help=f"{verb.MODEL_IN.help}; default: {models.MOSAIC_MODEL} for an image "
            f"that states a light microscope, otherwise {models.DEFAULT_MODEL}",
            flag="--model",
            metavar="NAME|FILE",
            default=None,
        ),
    ] = None,
    residual_map: Annotated[
        Path | None,
        verb.Output(
            "write a map of the misfit between the blurred result and the image",
            remade=True,
            metavar="FILE",
        ),
    ] = None,
    unfamiliar_map: Annotated[
        Path | None,
        verb.Output(
            "write a map of how far each block of the image is from the area "
            "that the model was trained on, relative to the limit of similarity",
            remade=True,
            metavar="FILE",
        ),
    ] = None,
    cluster: ClusterOptions | None = None,
    live: "inference.LiveField | None" = None,
) -> core.Job[Any]:
    """Sharpen and clean an image tile by tile with a model.

    Examples
    --------
    >>> field = np.random.default_rng(0).random((96, 64), dtype=np.float32)
    >>> sharp = semsr.enhance(field, model="sem-restore", tile=32)
    >>> sharp.shape, sharp.dtype, sharp.provenance.job
    ((96, 64), dtype('float32'), 'enhance')
    """
    source = run.open_image()
    memory_before, start = psutil.Process().memory_info().rss, time.perf_counter()
    if output is None and (residual_map, unfamiliar_map) != (None, None):
        msg = f"{run.verb} requires an output."
        raise core.OptionError(msg, code="missing-value")
    network, notes, provenance, comparison = yield from _load_model(
        run, image, source, model, wants_map=unfamiliar_map is not None
    )
    unlike, distances, explained_percent = comparison
    if output is None:
        result = yield from inference.enhance_in_memory(
            source, network, options, provenance=provenance
        )
        record = result.metadata["enhance"]
        record = {**record, "notes": (*record["notes"], *notes)}
        return result.replace(metadata={**result.metadata, "enhance": record})
    if run.existing.resume:
        place = io.get_output_store_path(output, resume=True)
        source, provenance = yield from _get_recorded_input(
            place, image, source, provenance
        )
    output_plan = live and live.output
    if output_plan is None:
        output_plan = inference.plan_output(source, network.card.model_dump(), options)
    scheduler = None if cluster is None else cluster.scheduler
    written_file = yield from _write_enhanced(
        run,
        source,
        output,
        output_plan,
        network,
        provenance,
        wants_map=residual_map is not None,
        scheduler=scheduler,
        live=live,
    )
    report, (misfit, misfit_map) = written_file.result
    report = _add_notes(report, notes, None if scheduler else options, memory_before)
    seconds = time.perf_counter() - start
    speed = report.megapixels_per_second * report.seconds / seconds
    report = replace(report, seconds=seconds, megapixels_per_second=speed)
    # the precision that the run started with
    provenance = provenance.model_copy(update={"precision": report.precision})
    if residual_map is not None and misfit_map is None:
        core.warn(
            f"No misfit map was written: {source.name} shows little more than noise, "
            "or has too many gaps.",
            "nothing-to-measure",
        )
    sized_image = source.with_pixel_size(written_file.pixel_size_nm)
    return EnhancedFile(
        output=str(output),
        shape=written_file.shape,
        dtype=written_file.dtype,
        **verb.get_pixel_size_fields(sized_image),
        clipped=report.clipped,
        report=report,
        provenance=provenance,
        misfit=misfit,
        misfit_map=_write_map(misfit_map, provenance, MISFIT, residual_map),
        unfamiliar_percent=unlike,
        explained_percent=explained_percent,
        unfamiliar_map=_write_map(distances, provenance, UNFAMILIAR, unfamiliar_map),
    )


def _load_model(
    run: verb.Run[EnhanceOptions],
    image: images.Image,
    source: core.Micrograph,
    model: str | Path | None,
    *,
    wants_map: bool,
) -> core.Job[
    tuple[
        "models.LoadedModel",
        tuple[core.Message, ...],
        core.Provenance,
        tuple[float | None, core.Micrograph | None, float | None],
    ]
]:
    """Load the model, compare the image with its training area, and record both.

    Also returns a note on the choice of the model.
    """
    name, notes = choose_model(source) if model is None else (model, ())
    path = models.find_model(name)
    yield core.Progress(0, 0, f"loading the model {path.stem}")
    network = models.load_model(path)
    unlike, distances = yield from compare_with_training_area(
        source, network, run.options, wants_map=wants_map
    )
    explained_percent = yield from compare_detail(source, network, path, run.options)
    yield core.Progress(0, 0, f"recording the input {images.get_image_name(image)}")
    provenance = yield from _create_provenance(run, network, path)
    return network, notes, provenance, (unlike, distances, explained_percent)


def choose_model(image: core.Micrograph) -> tuple[str, tuple[core.Message, ...]]:
    """Return the bundled model for the instrument of an image; a note if unknown."""
    if image.instrument is not None:
        return models.MODELS_BY_INSTRUMENT[image.instrument], ()
    note = core.Message(
        f"The file of {image.name} does not state the microscope, so "
        f"{models.DEFAULT_MODEL}, a model of SEM images, is used: for a superlens "
        f"image, set `model` to {models.MOSAIC_MODEL}.",
        "model-unsuitable",
    )
    return models.DEFAULT_MODEL, (note,)


def compare_with_training_area(
    source: core.Micrograph,
    model: "models.LoadedModel",
    options: EnhanceOptions,
    *,
    wants_map: bool = False,
) -> core.Job[tuple[float | None, core.Micrograph | None]]:
    """Compare an image with the training area of a model; warn if they differ.

    Also warns if a model of optical images gets one that is out of focus. Returns the
    percentage that is unlike the area, and the map of `create_unfamiliarity_map` if
    requested. Both are None for models that do not record their training area;
    requesting a map is then an error.
    """
    card = model.card
    place = analysis.BlockFeatures.from_model_card(card.training)
    if is_instrument_model(card.model_dump()):
        sentence = images.create_focus_warning(source)
        if sentence is not None:
            core.warn(sentence)
    if place is None and not wants_map:
        return None, None
    far, shape = yield from _measure_distances(
        place, source, model, options, wants_map=wants_map
    )
    percent = analysis.compute_unfamiliar_percentage(far)
    if percent is not None and percent > analysis.UNLIKE_PERCENT:
        core.warn(
            f"{percent:.0f} % of {source.name} differs from the area that "
            f"{card.name} was trained on: enhance the image with "
            f"{models.MOSAIC_MODEL}, or train a model on an area of the image.",
            "image-unfamiliar",
        )
    return percent, _create_distance_map(far, source, shape) if wants_map else None


_WINDOWS = 6  # along an axis; chosen: seconds, and a standard error of 1 %
_EDGE_PX = 48  # of a window, where a network lacks context


def compare_detail(
    source: core.Micrograph,
    model: "models.LoadedModel",
    path: Path,
    options: EnhanceOptions,
) -> core.Job[float | None]:
    """Measure how much of the finest detail of an image its enhanced version explains.

    In percent; None for models that do not record it, and for images that are too
    small. Warns if it is less than on the part of the training area that was held out.
    """
    place = analysis.ExplainedDetail.from_model_card(model.card.training)
    if place is None:
        return None
    field, scaling = inference.prepare_model_input(source, model, options)
    block = analysis.get_detail_side(place.cut_off_px)
    side, starts = block + 2 * _EDGE_PX, []
    for length in field.input.shape:
        count = min(_WINDOWS, max(0, 2 * (length - side) // block + 1))
        starts.append(np.linspace(0, length - side, count).round().astype(int).tolist())
    windows, corners = [], list(itertools.product(*starts))
    for number, corner in enumerate(corners):
        yield core.Progress(number, len(corners), "comparing with the training field")
        box = core.Box.from_shape((side, side), corner)
        window = np.asarray(core.read_box(field.input, box), np.float32)
        if np.isfinite(window).all():
            windows.append((window - scaling.low) / (scaling.high - scaling.low or 1.0))
    light_weights = models.load_training_networks(path)
    found = training.explain_detail(model, light_weights, windows)
    if found is None:
        return None
    if found.is_below(place):
        core.warn(
            f"{model.card.name} explains only {100 * found.share:.0f} % of the finest "
            f"detail of {source.name}, {100 * place.share:.0f} % on the area that it "
            "was trained on: focus or instrument differ, which may cost several "
            f"decibels. Enhance the image with {models.MOSAIC_MODEL}, scan at that "
            "focus, or train a model on an area of the image.",
            "image-unfamiliar",
        )
    return 100 * found.share


def _measure_distances(
    place: analysis.BlockFeatures | None,
    source: core.Micrograph,
    model: "models.LoadedModel",
    options: EnhanceOptions,
    *,
    wants_map: bool,
) -> core.Job[tuple[core.FloatArray, core.IntPair]]:
    """Measure block distances; also return the image shape at the model's scale."""
    if place is None:
        msg = (
            "A map of the distance from the training area requires a model that "
            "records this area, such as a model trained with adapt, got "
            f"{model.card.name}."
        )
        raise core.OptionError(msg, code="model-unsuitable")
    field, scaling = inference.prepare_model_input(source, model, options)
    how = {"as_map": wants_map, "is_resampled": field.input.shape != source.shape}
    far = yield from place.compare(field.input, (scaling.low, scaling.high), **how)
    return far, field.input.shape


def _create_distance_map(
    far: core.FloatArray, source: core.Micrograph, shape: core.IntPair
) -> core.Micrograph:
    if not far.size:
        side = analysis.BLOCK_PX
        msg = (
            f"{source.name} must contain at least one block of {side} x {side} px to "
            "map its distance from the training area."
        )
        raise core.ShapeError(msg, code="image-too-small")
    grid = core.Grid.from_image(source)
    y, x = (
        analysis.BLOCK_PX * n / m * p
        for n, m, p in zip(source.shape, shape, grid.pitch, strict=True)
    )
    return core.Micrograph(
        far.astype("float32"),
        None if source.pixel_size_nm is None else core.parse_pixel_size((y, x)),
        f"distance of {source.name} from the training area",
        origin=(grid.corner[0] + y / 2, grid.corner[1] + x / 2),
        spacing_px=(1.0, 1.0) if source.pixel_size_nm is not None else (y, x),
        look=core.DisplaySettings(
            limits=(0.0, 2.0),  # the limit at the centre
            colormap="magma",
            colour_bar=True,
        ),
    )


def _create_provenance(
    run: verb.Run[EnhanceOptions], model: "models.LoadedModel", path: Path
) -> core.Job[core.Provenance]:
    """Create the provenance of an enhanced image."""
    training_images = model.card.training.get("learnt_from")
    where = images.get_record_path(path)
    model_record = core.InputRecord(
        role="model", name=path.name, digest=model.digest, path=where
    )
    history = yield from run.compose_history(
        model_record, **({TRAINED_ON: training_images} if training_images else {})
    )
    return history.model_copy(update=inference.get_network_details(run.options, model))


# Resume a store that was started differently: from a layer, or from a file.
#
# A layer is recorded by the digest of its grey values, a file by that of its bytes, and
# the store notes that of its grey values too. If the grey values are equal, the store
# keeps the record of its input.


def _get_recorded_input(
    place: Path,
    image: images.Image,
    source: core.Micrograph,
    provenance: core.Provenance,
) -> core.Job[tuple[core.Micrograph, core.Provenance]]:
    """Return the input and provenance as recorded in the store to resume."""
    record, notes, _ = io.read_store_state(place)
    history = None if record is None else record.provenance
    if record is None or history is None or len(history.inputs) != 1:
        return source, provenance
    before = history.inputs[0]
    of_file = not isinstance(image, core.Micrograph)
    if of_file and before.digest == provenance.inputs[0].digest:
        return source, provenance
    values = yield from images.digest_values(source)
    if values not in (before.digest, notes.get(_VALUES)):
        return source, provenance
    options = {**provenance.options, "reading": history.options.get("reading")}
    same = provenance.model_copy(update={"inputs": (before,), "options": options})
    return source.replace(name=record.name), same


_Comparison = tuple[analysis.Misfit | None, core.Micrograph | None]
"""Misfit of the result, and misfit map."""


def _write_enhanced(
    run: verb.Run[EnhanceOptions],
    source: core.Micrograph,
    target: Path,
    output_plan: Any,
    model: "models.LoadedModel",
    provenance: core.Provenance,
    *,
    wants_map: bool,
    scheduler: str | None,
    live: "inference.LiveField | None",
) -> core.Job[io.WrittenOutput[tuple[EnhanceReport, _Comparison]]]:
    """Fill the store of the output tile by tile, and compare it with the input."""
    options, existing = run.options, run.existing
    place = io.get_output_store_path(target, resume=existing.resume)

    def create_store(place: Path) -> io.OmeZarrStore:
        return inference.create_output_store(
            place,
            output_plan,
            name=source.name,
            provenance=provenance,
            **existing.get_write_options(place, target),
        )

    def fill_store(
        store: io.OmeZarrStore,
    ) -> core.Job[tuple[EnhanceReport, _Comparison]]:
        from_file = not isinstance(run.image_inputs["image"], core.Micrograph)
        digest = None
        if from_file and _VALUES not in store.read_notes():
            digest = images.ValueDigest(source)
        if scheduler is not None:
            yield core.WaitingProgress(
                0, 0, f"connecting to the dask scheduler at {scheduler}"
            )
        plan = yield from inference.plan_run(
            source,
            output_plan,
            model,
            options,
            store=store,
            scheduler=scheduler,
            see_rows=None if digest is None else digest.add_rows,
        )
        if digest is not None:
            store.write_note(_VALUES, str(digest))
        report = yield from inference.enhance_to_store(plan, store, live=live)
        about = store.record
        result = core.Micrograph(
            store.level0,
            *(about.pixel_size_nm, about.name, about.provenance, about.origin),
            about.spacing_px,
        )
        comparison = yield from _compare_result(
            source, result, model, wants_map=wants_map
        )
        if live is not None and place != target:  # until the store is renamed
            live.level0 = None
        return report, comparison

    written_file = yield from io.write_blocks(
        target, create_store, fill_store, kept_store=place
    )
    if live is not None and place != target:
        live.level0 = io.read(target).data
    return written_file


def _compare_result(
    source: core.Micrograph,
    output: core.Micrograph,
    model: "models.LoadedModel",
    *,
    wants_map: bool,
) -> core.Job[_Comparison]:
    """Compare a result with its input."""
    is_judged = is_instrument_model(model.card.model_dump())
    if not (wants_map or is_judged):
        return None, None
    misfit = yield from analysis.measure_misfit(source, output)
    if misfit is None:
        return None, None
    if is_judged and not misfit.is_consistent:
        remedy = "train a model on an area of the image"
        if source.instrument != "optical":
            remedy = (
                f"if it is an SEM image, use {models.DEFAULT_MODEL}, otherwise {remedy}"
            )
        core.warn(
            f"The result of {model.card.name} does not agree with {source.name}: the "
            f"misfit is {100 * misfit.share:.0f} %, that of true SEM images at most "
            f"{100 * misfit.LIMIT:.0f} %. Do not use the result; {remedy}.",
            "image-unfamiliar",
        )
    if not wants_map:
        return misfit, None
    return misfit, (yield from analysis.map_misfit(source, output, misfit))


def is_instrument_model(card: dict[str, Any]) -> bool:
    """Return whether a model translates images between two instruments."""
    recipe = card.get("training", {}).get("recipe")
    data = recipe.get("data") if isinstance(recipe, dict) else None
    sources = data.get("sources") if isinstance(data, dict) else None
    return isinstance(sources, dict) and "images" not in sources


def _add_notes(
    report: EnhanceReport,
    notes: tuple[core.Message, ...],
    options: EnhanceOptions | None,
    memory_before: int,
) -> EnhanceReport:
    """Add notes to the report, also if a run exceeded the memory limit of `options`."""
    limit = None if options is None else options.memory_gb
    taken = report.peak_memory_mb / 1e3 - memory_before / 1e9
    if limit is not None and report.device == "cpu" and taken > limit:
        note = core.Message(
            f"The run used {taken:.2g} GB, including libraries, which exceeds the "
            f"limit of {limit:g} GB: set memory_gb to at least {taken:.2g} GB.",
            "memory",
        )
        notes = (*notes, note)
    return replace(report, notes=(*report.notes, *notes))


def _write_map(
    image: core.Micrograph | None,
    provenance: core.Provenance,
    part: str,
    path: Path | None,
) -> str | None:
    """Write a map that was requested, and return its path."""
    if image is None or path is None:
        return None
    history = provenance.model_copy(update={"part": part})
    io.write(image.replace(provenance=history), path, overwrite=True)
    return str(path)


def create_unfamiliarity_map(
    source: core.Micrograph, model: str | os.PathLike[str], options: EnhanceOptions
) -> core.Job[core.Micrograph]:
    """Map each block's distance from the training area, relative to the limit.

    Raises
    ------
    OptionError
        If the model does not record its training area.
    ShapeError
        If the image is smaller than a block.
    """
    model_file = models.load_model(models.find_model(model))
    place = analysis.BlockFeatures.from_model_card(model_file.card.training)
    far, shape = yield from _measure_distances(
        place, source, model_file, options, wants_map=True
    )
    return _create_distance_map(far, source, shape)


@dataclass(frozen=True, slots=True)
class UnfinishedResult:
    """Unfinished result of an enhancement."""

    image: str  # name of the input
    model: str  # Name of the model
    options: dict[str, object]  # Options of the run, as for `EnhanceOptions`
    tiles_done: int  # Finished tiles
    tiles: int  # All tiles


def find_unfinished_result(path: Path) -> UnfinishedResult | None:
    """Read the settings of an unfinished output, or return None."""
    store_path = io.get_output_store_path(path, resume=True)
    record, notes, counts = io.read_store_state(store_path)
    if record is None or notes.get("complete"):
        return None
    history = record.provenance
    if history is None or history.job != "enhance" or counts is None:
        return None
    names = EnhanceOptions.model_fields
    options = {k: v for k, v in history.options.items() if k in names}
    image = history.inputs[0].name if history.inputs else ""
    return UnfinishedResult(image, history.model_name or "", options, *counts)


_PATIENCE_S = 0.1  # seconds between checks for a request; chosen: responsive
Answer = tuple[core.Box, core.RealArray]


class PreviewChannel:
    """Channel for preview requests and results that keeps only the latest."""

    def __init__(self) -> None:
        self._wishes: deque[core.Box] = deque(maxlen=1)
        self._answers: deque[Answer] = deque(maxlen=1)
        self._request = threading.Event()

    def request_box(self, box: core.Box) -> None:
        """Request a box, replacing an older request."""
        self._wishes.append(box)
        self._request.set()

    def take_result(self) -> Answer | None:
        """Return and remove the latest result, if any."""
        return self._answers.pop() if self._answers else None

    def wait_for_request(self) -> core.Box | None:
        """Wait briefly for a request; return None if there is none."""
        self._request.wait(_PATIENCE_S)
        self._request.clear()
        return self._wishes.pop() if self._wishes else None

    def put_result(self, answer: Answer) -> None:
        """Store the pixels of a box."""
        self._answers.append(answer)


def run_preview(
    image: images.Image,
    desk: PreviewChannel,
    *,
    model: str | os.PathLike[str],
    options: inference.EnhanceOptions,
) -> core.Job[None]:
    """Enhance the requested boxes until the job is closed."""
    yield core.Progress(0, 0, "preparing the preview")
    path = models.find_model(model)
    source = images.open_image(image)
    boxes = inference.prepare_preview(source, models.load_model(path), options)
    title = "preview" if boxes.exact else "preview (with the statistics of the box)"
    while True:
        wish = desk.wait_for_request()
        if wish is not None:
            desk.put_result(boxes.enhance(wish))
        yield core.Progress(0, 0, title)
