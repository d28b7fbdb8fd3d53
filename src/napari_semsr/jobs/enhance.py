"""Enhance an image, or a stack plane by plane.

A store is filled in place and stays resumable. Any other format is written from a
hidden store beside the output, which is removed once the output is whole.
"""

import math
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

from napari_semsr.analysis import (
    Change,
    Misfit,
    map_misfit,
    measure_change,
    measure_misfit,
)
from napari_semsr.core import (
    InputRecord,
    Job,
    Micrograph,
    OptionError,
    Progress,
    Provenance,
    Waiting,
    WriteError,
    warn,
)
from napari_semsr.io import (
    ReadOptions,
    filling_store,
    output_kind,
    write,
    write_blocks,
    write_pages,
)
from napari_semsr.jobs.images import (
    Image,
    Result,
    check_image_target,
    check_tiled_target,
    digest_values,
    image_in,
    jsonable,
    made_by,
    name_of,
    of_all_planes,
    open_image,
    path_of,
    paths_of,
    record_input,
)
from napari_semsr.jobs.leakage import LEARNT
from napari_semsr.jobs.models import DEFAULT_MODEL, find_model

if TYPE_CHECKING:
    from napari_semsr.inference import EnhanceOptions, EnhanceReport, LiveField
    from napari_semsr.io import OmeZarrStore
    from napari_semsr.models import LoadedModel

# Go on with a store that was begun another way: from a layer, or from a file.
#
# A layer is recorded by the digest of its grey values, a file by that of its bytes, and
# the store notes that of its grey values too. When the grey values are those that a
# store was begun with, it keeps what it says of its input.

MISFIT = "misfit"
"""Part of a run: the map of what the result does not explain."""

_VALUES = "values"
"""Key of a store's note: the digest of the grey values that it is made of."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A result that was left before its end."""

    model: str  # Name of its model
    options: dict[str, Any]  # How it was run, as an `EnhanceOptions` takes it
    done: int  # Tiles that are finished, and all
    tiles: int  # Tiles that are finished, and all


def unfinished(path: Path) -> Unfinished | None:
    """Read how a store was begun that is not finished.

    Parameters
    ----------
    path : pathlib.Path
        The store; it need not exist.

    Returns
    -------
    Unfinished or None
        None for what is finished, or was not made by `enhance`.
    """
    from napari_semsr.io import done_of, noted, recorded

    found = recorded(path)
    if found is None or noted(path).get("complete"):
        return None
    made, counts = found.provenance, done_of(path)
    if made is None or made.job != "enhance" or counts is None:
        return None
    options = {k: v for k, v in made.options.items() if k not in ("reading", LEARNT)}
    return Unfinished(made.model_name or "", options, *counts)


def _as_begun(
    place: Path, image: Image, source: Micrograph, provenance: Provenance
) -> Job[tuple[Micrograph, Provenance]]:
    """Name an input as the store that is to be resumed names it."""
    from napari_semsr.io import noted, recorded

    found = recorded(place)
    if found is None or found.provenance is None or len(found.provenance.inputs) != 1:
        return source, provenance
    before = found.provenance.inputs[0]
    of_file = not isinstance(image, Micrograph)
    if of_file and before.digest == provenance.inputs[0].digest:
        return source, provenance
    values = yield from digest_values(source)
    if values not in (before.digest, noted(place).get(_VALUES)):
        return source, provenance
    reading = found.provenance.options.get("reading")
    same = provenance.model_copy(
        update={
            "inputs": (before,),
            "options": {**provenance.options, "reading": reading},
        }
    )
    return source.replace(name=found.name), same


@dataclass(frozen=True, slots=True)
class EnhancedFile(Result):
    """What was written, and what it cost.

    Attributes
    ----------
    output : str
        Path of the file or store.
    shape : tuple of int
        Rows and columns; planes before them for a stack.
    dtype : str
        Type of the grey values in the output.
    pixel_size_nm : tuple of float or None
        ``(y, x)`` of the output; None when unknown.
    report : EnhanceReport
        Tiles, time, memory, device, model, and how well neighbouring tiles agree.
    provenance : Provenance
        Input, model, options, versions.
    change : Change or None
        By how much the image was changed; None where the model has grey levels of its
        own.
    misfit : Misfit or None
        What of the image the result does not explain: of models that learnt from a
        simulated instrument, or where a map of it was asked for.
    misfit_map : str or None
        Path of that map.
    """

    output: str
    shape: tuple[int, ...]
    dtype: str
    pixel_size_nm: tuple[float, float] | None
    report: "EnhanceReport"
    provenance: Provenance = field(metadata={"json": False})
    change: Change | None = None
    misfit: Misfit | None = field(default=None, metadata={"json": False})
    misfit_map: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the report as one flat record.

        Returns
        -------
        dict
            The engine's figures, with what was written.
        """
        return {
            **jsonable(self.report),
            "output": self.output,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "pixel_size_nm": jsonable(self.pixel_size_nm),
            "model_digest": self.provenance.model_digest,
            "change": jsonable(self.change),
            "misfit_percent": None if self.misfit is None else 100 * self.misfit.share,
            "misfit_map": self.misfit_map,
        }


def _enhance_plane(
    image: Image,
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    options: "EnhanceOptions | None" = None,
    opening: ReadOptions | None = None,
    overwrite: bool = False,
    resume: bool = False,
    scheduler: str | None = None,
    live: "LiveField | None" = None,
    misfit: str | os.PathLike[str] | None = None,
) -> Job[EnhancedFile]:
    """Enhance a plane into a store or a file."""
    held = psutil.Process().memory_info().rss
    yield Progress(0, 0, "checking")
    target = check_tiled_target(
        output, inputs=paths_of(image), overwrite=overwrite, resume=resume
    )
    map_path = None
    if misfit is not None:
        map_path = check_image_target(
            misfit, inputs=[*paths_of(image), target], overwrite=overwrite or resume
        )
    path = find_model(model)
    source = open_image(image, opening)
    yield Progress(0, 0, f"loading the model {path.stem}")
    from napari_semsr.inference import (
        EnhanceOptions,
        create_output,
        enhance_to_store,
        plan_output,
        plan_run,
    )
    from napari_semsr.models import load_model

    chosen = options or EnhanceOptions()
    loaded = load_model(path)
    yield Progress(0, 0, f"recording the input {name_of(image)}")
    provenance = yield from _provenance_of(image, source, loaded, chosen, opening, path)
    place = filling_store(target)
    if resume:
        source, provenance = yield from _as_begun(place, image, source, provenance)
    output_plan = (
        plan_output(source, loaded.card.model_dump(), chosen)
        if live is None
        else live.output
    )

    def make(place: Path) -> "OmeZarrStore":
        return create_output(
            place,
            output_plan,
            name=source.name,
            provenance=provenance,
            overwrite=overwrite or place != target,
            resume=resume,
        )

    def fill(store: "OmeZarrStore") -> Job[tuple["EnhanceReport", _Judged]]:
        if _VALUES not in store.notes() and not isinstance(image, Micrograph):
            store.note(_VALUES, (yield from digest_values(source)))
        if scheduler is not None:
            yield Waiting(0, 0, f"connecting to the dask scheduler at {scheduler}")
        planned = yield from plan_run(
            source, output_plan, loaded, chosen, store=store, scheduler=scheduler
        )
        report = yield from enhance_to_store(planned, store, live=live)
        if not scheduler:
            report = _told_of_memory(report, chosen, held)
        mapped = map_path is not None
        return report, (yield from _judge(source, image_in(store), loaded, mapped))

    written = yield from write_blocks(target, make, fill, resumable=True)
    report, judged = written.told
    if map_path is not None and judged.map is not None:
        told = provenance.model_copy(update={"part": MISFIT})
        write(judged.map.replace(provenance=told), map_path, overwrite=True)
    elif map_path is not None:
        warn(
            f"No map of the misfit was written: {source.name} shows hardly more than "
            "noise, or has gaps all over.",
            stacklevel=3,
        )
    return EnhancedFile(
        output=str(target),
        shape=written.shape,
        dtype=written.dtype,
        pixel_size_nm=written.pixel_size_nm,
        report=report,
        provenance=provenance,
        change=judged.change,
        misfit=judged.misfit,
        misfit_map=None if judged.map is None else str(map_path),
    )


@dataclass(frozen=True, slots=True)
class _Judged:
    """What was done to an image, and what of it the result does not explain."""

    change: Change | None = None
    misfit: Misfit | None = None
    map: Micrograph | None = None


def _judge(
    source: Micrograph, made: Micrograph, loaded: "LoadedModel", mapped: bool
) -> Job[_Judged]:
    """Compare a result with what it was made of."""
    change, misfit, drawn = None, None, None
    if loaded.card.grey == "input":
        change = yield from measure_change(source, made)
    if mapped or learnt_from_instrument(loaded.card.model_dump()):
        misfit = yield from measure_misfit(source, made)
    if mapped and misfit is not None:
        drawn = yield from map_misfit(source, made, misfit)
    return _Judged(change, misfit, drawn)


def learnt_from_instrument(card: dict[str, Any]) -> bool:
    """Tell whether a model turns the images of one instrument into another's.

    Parameters
    ----------
    card : dict
        What its card says.

    Returns
    -------
    bool
        Whether it learnt from a simulated instrument alone.
    """
    recipe = card.get("training", {}).get("recipe")
    data = recipe.get("data") if isinstance(recipe, dict) else None
    sources = data.get("sources") if isinstance(data, dict) else None
    return isinstance(sources, dict) and "images" not in sources


def _told_of_memory(
    report: "EnhanceReport", options: "EnhanceOptions", held: int
) -> "EnhanceReport":
    """Add a note where a run took more than it was to take."""
    if options.memory_gb is None or report.device != "cpu":
        return report
    taken = report.peak_memory_mb / 1e3 - held / 1e9
    if taken <= options.memory_gb:
        return report
    said = (
        f"The run took {taken:.2g} GB, libraries included, and could not keep within "
        f"the {options.memory_gb:g} GB of memory_gb: it needs about {taken:.2g} GB."
    )
    return replace(report, notes=(*report.notes, said))


def _provenance_of(
    image: Image,
    source: Micrograph,
    loaded: "LoadedModel",
    options: "EnhanceOptions",
    opening: ReadOptions | None,
    model: Path,
) -> Job[Provenance]:
    """Record what makes an enhanced image."""
    reading = (opening or ReadOptions()).model_dump(mode="json")
    said = {**options.model_dump(mode="json"), "reading": reading}
    learnt = loaded.card.training.get("learnt_from")
    if learnt:
        said[LEARNT] = learnt
    from napari_semsr.inference import machine_of

    record = yield from record_input(image, source, opening)
    found = InputRecord(
        role="model", name=model.name, digest=loaded.digest, path=path_of(model)
    )
    return made_by("enhance", said, record, guides=[found]).model_copy(
        update={
            "model_name": loaded.card.name,
            "model_digest": loaded.digest,
            **machine_of(options, loaded),
        }
    )


# Run a job that knows one plane over a stack or time series, plane by plane.

File = TypeVar("File", bound=Result)  # with its output, shape and provenance


def _count_planes(
    image: Image | Sequence[Micrograph], opening: ReadOptions | None = None
) -> int:
    """Count the planes that a job has to go through."""
    if isinstance(image, Sequence) and not isinstance(image, str):
        return len(image)
    chosen = opening is not None and opening.plane is not None
    if isinstance(image, Micrograph) or chosen or not Path(image).exists():
        return 1
    from napari_semsr.io import describe

    return describe(Path(image)).planes


def plane_by_plane(
    job: Callable[..., Job[File]],
    image: Image | Sequence[Micrograph],
    output: str | os.PathLike[str],
    sum_up: Callable[[list[File]], dict[str, Any]],
    *,
    opening: ReadOptions | None,
    overwrite: bool,
    resume: bool,
) -> Job[File]:
    """Run a job on an image, or on every plane of a stack.

    Each plane of a stack has its own scaling and goes into a hidden store beside the
    output, so that an interrupted run can go on; the stores are removed once the stack
    is whole.
    """
    yield Progress(0, 0, "checking")
    planes = _count_planes(image, opening)
    stack = None
    if isinstance(image, Sequence) and not isinstance(image, str):
        stack, image = image, image[0]
    if planes == 1:
        how = {"opening": opening, "overwrite": overwrite, "resume": resume}
        return (yield from job(image, output, **how))
    chosen = opening or ReadOptions()
    target = check_image_target(output, inputs=paths_of(image), overwrite=overwrite)
    if output_kind(target) not in ("ome-tiff", "tiff"):
        msg = (
            f"A stack of {planes} planes is written as .ome.tif or .tif, got "
            f"{target.name}: change the suffix, or choose one plane with --plane."
        )
        raise WriteError(msg)
    made: list[Any] = []
    for plane in range(planes):
        one = job(
            image if stack is None else stack[plane],
            target.with_name(f".{target.name}.{plane}.part.ome.zarr"),
            opening=chosen.replace(plane=plane) if stack is None else opening,
            overwrite=not resume,
            resume=resume,
        )
        made.append((yield from _named(one, f"plane {plane + 1} of {planes}")))
    yield Progress(0, 0, f"writing {target.name}")
    told = {**made[0].provenance.options, "reading": chosen.model_dump(mode="json")}
    history = made[0].provenance.model_copy(update={"options": told})
    inputs = tuple(record for item in made for record in item.provenance.inputs)
    if stack is None:  # the records of planes tell which one each is of
        inputs = (of_all_planes(inputs[0], chosen),)
    history = history.model_copy(update={"inputs": inputs})
    first: Micrograph = open_image(made[0].output).replace(provenance=history)
    pages = (open_image(item.output).array() for item in made)
    write_pages(first, planes, pages, target)
    for item in made:
        shutil.rmtree(item.output)
    summed: File = replace(
        made[0],
        output=str(target),
        shape=(planes, *first.shape),
        provenance=history,
        **sum_up(made),
    )
    return summed


def _named(job: Job[File], prefix: str) -> Job[File]:
    """Say in each step which plane it belongs to."""
    with closing(job):
        while True:
            try:
                step = next(job)
            except StopIteration as end:
                result: File = end.value
                return result
            yield replace(step, message=f"{prefix}: {step.message}")


def enhance_job(
    image: Image | Sequence[Micrograph],
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    options: "EnhanceOptions | None" = None,
    opening: ReadOptions | None = None,
    overwrite: bool = False,
    resume: bool = False,
    scheduler: str | None = None,
    live: "LiveField | None" = None,
    misfit: str | os.PathLike[str] | None = None,
) -> Job[EnhancedFile]:
    """Enhance an image, or a stack plane by plane, into a store or a file.

    Parameters
    ----------
    image : Micrograph, path, or sequence of Micrograph
        What to enhance; several images in memory are the planes of a stack.
    output : path
        Ends in ``.ome.zarr``, ``.ome.tif``, ``.tif`` or ``.png``; a stack needs a TIFF.
    model : str or path, default="sem-restore"
        A name on the shelf, or a ``.safetensors`` file.
    options : EnhanceOptions, optional
        Tile, normalisation, device, precision, type.
    opening : ReadOptions, optional
        How to read a file; its `plane` picks one plane of a stack.
    overwrite : bool, default=False
        Replace an existing output.
    resume : bool, default=False
        Go on with an output that was interrupted.
    scheduler : str, optional
        Address of a dask scheduler.
    live : LiveField, optional
        What a viewer draws meanwhile: one plane, into a store.
    misfit : path, optional
        Where a map goes of what the result does not explain of the image: of one plane.

    Returns
    -------
    EnhancedFile
        What was written, and what it cost.

    Yields
    ------
    Progress
        Tiles.

    Raises
    ------
    ReadError, WriteError, CheckpointError, DeviceMemoryError
        If the image cannot be read, the output not be made, or the model not be run.
    """
    job = partial(_enhance_plane, model=model, options=options, scheduler=scheduler)
    if misfit is not None:
        planes = _count_planes(image, opening)
        if planes != 1:
            msg = (
                f"A map of the misfit is made of one plane, got a stack of {planes}: "
                "choose one with --plane."
            )
            raise OptionError(msg)
        job = partial(job, misfit=misfit)
    if live is not None and _count_planes(image, opening) == 1:
        job = partial(job, live=live)
    return (
        yield from plane_by_plane(
            job,
            image,
            output,
            lambda made: {
                "report": _summed([item.report for item in made]),
                "change": overall_change([item.change for item in made]),
                "misfit": max(
                    (item.misfit for item in made if item.misfit is not None),
                    key=lambda misfit: misfit.share,
                    default=None,
                ),
            },
            opening=opening,
            overwrite=overwrite,
            resume=resume,
        )
    )


def _summed(reports: Sequence["EnhanceReport"]) -> "EnhanceReport":
    """Sum up what the planes cost, and keep the worst of what tells of quality."""
    seconds = sum(item.seconds for item in reports)
    pixels = sum(item.megapixels_per_second * item.seconds for item in reports)
    notes = dict.fromkeys(note for item in reports for note in item.notes)
    return replace(
        reports[0],
        tiles=sum(item.tiles for item in reports),
        resumed=sum(item.resumed for item in reports),
        seconds=seconds,
        megapixels_per_second=pixels / seconds if seconds else 0.0,
        peak_memory_mb=max(item.peak_memory_mb for item in reports),
        tile_mismatch=_largest(item.tile_mismatch for item in reports),
        seam_index=max(item.seam_index for item in reports),
        clipped=sum(item.clipped for item in reports),
        notes=tuple(notes),
    )


def _largest(values: Iterable[float]) -> float:
    """Largest of what was measured; NaN where nothing was."""
    return max((v for v in values if not math.isnan(v)), default=math.nan)


def overall_change(changes: Sequence[Change | None]) -> Change | None:
    """Sum up what was done to planes of one size."""
    known = [item for item in changes if item is not None]
    if not known:
        return None
    means = {
        name: fmean(getattr(item, name) for item in known)
        for name in ("mean", "share", "noise", "level", "looked_at")
    }
    return Change(
        **means,
        largest=max(item.largest for item in known),
        hardly=all(item.hardly for item in known),
    )


def enhance_in_memory(
    image: Image,
    *,
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    options: "EnhanceOptions | None" = None,
    opening: ReadOptions | None = None,
) -> Job[Micrograph]:
    """Enhance an image in memory.

    Parameters
    ----------
    image : Micrograph or path
        What to enhance.
    model : str or path, default="sem-restore"
        A name on the shelf, or a ``.safetensors`` file.
    options : EnhanceOptions, optional
        Tile, normalisation, device, precision, type.
    opening : ReadOptions, optional
        How to read a file.

    Returns
    -------
    Micrograph
        With its history.

    Yields
    ------
    Progress
        Tiles.
    """
    yield Progress(0, 0, "reading")
    path = find_model(model)
    source = open_image(image, opening)
    from napari_semsr.inference import EnhanceOptions, enhance_array
    from napari_semsr.models import load_model

    chosen = options or EnhanceOptions()
    loaded = load_model(path)
    provenance = yield from _provenance_of(image, source, loaded, chosen, opening, path)
    return (yield from enhance_array(source, loaded, chosen, provenance=provenance))
