"""Run a command on many images, one after the other: one that fails stops no other."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Generic, TypeVar
from unicodedata import normalize

from napari_semsr import core
from napari_semsr.io import convert_write_errors, get_output_format, remove_suffixes
from napari_semsr.jobs.images import (
    OverwritePolicy,
    Result,
    check_output_not_input,
    check_target_folder,
)
from napari_semsr.jobs.resume import Step, StepRecord, run_step
from napari_semsr.jobs.verb import Verb, check_devices
from napari_semsr.models import find_model

T = TypeVar("T")

SUFFIX = ".ome.tif"
"""Format of an output whose input has a format that images are not written in."""

_KEPT_SUFFIXES = (".ome.zarr", ".ome.tif", ".ome.tiff", ".tif", ".tiff")
_PARTS = 100  # steps of one image in progress


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """Result of the job of one image, or the reason why there is none."""

    result: T | None
    error: core.Message | None
    warnings: tuple[str, ...]


def run_each(
    names: Sequence[str],
    start: Callable[[int], core.Job[T]],
    report: Callable[[int, Outcome[T]], object],
    *,
    parts: int = 1,
) -> core.Job[None]:
    """Run a job for each name; `report` receives each outcome as soon as it is known.

    `start` creates the job with a number, in the order of the names; each has `parts`
    steps of the progress.
    """
    total = parts * len(names)

    def convert_progress(number: int, step: core.Progress) -> core.Progress:
        # an image counts as complete only with its result
        done = parts * number + min(int(parts * step.fraction), parts - 1)
        return core.Progress(done, total, f"{names[number]}: {step.message}")

    for number in range(len(names)):
        sentences: list[str] = []
        within = partial(core.capture_warnings, sentences.append)
        result, error = None, None
        change = partial(convert_progress, number)
        try:
            result = yield from core.map_progress(start(number), change, within=within)
        except core.Cancelled:
            raise
        except Exception as fault:  # noqa: BLE001 - the other images continue
            error = core.Message(core.describe_error(fault), core.get_error_code(fault))
        report(number, Outcome(result, error, tuple(sentences)))
    yield core.Progress(total, total, "done")


@dataclass(frozen=True, slots=True)
class ManyImages(Result):
    """Result of a command for many images.

    `outputs` are those done and skipped; `failures` have the ``image``, the ``code``
    and the ``message`` of each image without an output.
    """

    done: Annotated[int, core.Quantity("Images done", "", "d")]
    skipped: Annotated[int, core.Quantity("Images skipped", "", "d")]
    failed: Annotated[int, core.Quantity("Images failed", "", "d")]
    outputs: tuple[str, ...]
    failures: tuple[dict[str, str], ...]
    output: str


def apply_to_images(
    verb: Verb[core.Options, Result],
    images: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    values: Mapping[str, object],
    *,
    suffix: str | None = None,
    existing: OverwritePolicy | None = None,
) -> core.Job[ManyImages]:
    """Run a command that makes one image from one, on each of several files.

    Parameters
    ----------
    verb : Verb
        The command.
    images : sequence of path
        Files, named differently apart from their suffixes.
    folder : path
        Folder of the outputs, which are named as the images; it may exist.
    values : mapping of str to object
        Other inputs and options by the names of the command's arguments.
    suffix : str, optional
        Suffix of the outputs, which sets their format; by default that of each image,
        or `SUFFIX` if images are not written in its format.
    existing : OverwritePolicy, optional
        With `resume`, an output is skipped if its record agrees (`jobs.resume`).

    Raises
    ------
    OptionError
        If two images have the same name, or an option is not valid for several images.
    """
    existing = existing or OverwritePolicy()
    yield core.Progress(0, 0, "checking the images")
    for output in verb.outputs:
        if values.get(output.name) is not None:
            msg = f"`{output.name}` needs an output file, got the folder {folder}."
            raise core.OptionError(msg, code="options-contradict")
    sets = verb.parse(values)
    check_devices(sets.values())
    paths = [Path(image) for image in images]
    place = check_target_folder(folder, empty=False)
    if not place.is_dir() and remove_suffixes(place.name) != place.name:
        msg = f"The output of several images must be a folder, got {place.name}."
        raise core.OptionError(msg, code="options-contradict")
    targets = _name_outputs(paths, place, suffix)
    for target in targets:
        check_output_not_input(target, paths)
    with convert_write_errors(place):
        place.mkdir(exist_ok=True)
    outcomes: dict[int, Outcome[tuple[StepRecord, Result | None]]] = {}

    def start(number: int) -> core.Job[tuple[StepRecord, Result | None]]:
        return _start_step(verb, paths[number], targets[number], values, sets, existing)

    names = [path.name for path in paths]
    yield from run_each(names, start, outcomes.__setitem__, parts=_PARTS)
    core.warn_once(
        [
            f"{paths[number].name}: {sentence}"
            for number, outcome in outcomes.items()
            for sentence in outcome.warnings
        ],
        "images",
    )
    results = [one.result for one in outcomes.values() if one.result is not None]
    skipped = sum(result is None for _, result in results)
    return ManyImages(
        done=len(results) - skipped,
        skipped=skipped,
        failed=len(outcomes) - len(results),
        outputs=tuple(
            str(targets[number])
            for number, outcome in outcomes.items()
            if outcome.result is not None
        ),
        failures=tuple(
            {
                "image": str(paths[number]),
                "code": outcome.error.code,
                "message": str(outcome.error),
            }
            for number, outcome in outcomes.items()
            if outcome.error is not None
        ),
        output=str(place),
    )


def _name_outputs(
    paths: Sequence[Path], folder: Path, suffix: str | None
) -> list[Path]:
    """Return the output of each image; raise an error if two have the same name."""
    if suffix is not None:
        get_output_format(Path(f"*{suffix}"))
    outputs: dict[str, tuple[Path, Path]] = {}
    for path in paths:
        stem = remove_suffixes(path.name)
        own = path.name[len(stem) :].lower()
        ending = suffix or (own if own in _KEPT_SUFFIXES else SUFFIX)
        # as file systems of Windows and macOS compare names
        key = normalize("NFC", stem).casefold()
        if key in outputs:
            msg = (
                f"{outputs[key][0]} and {path} would have the same output "
                f"{folder / stem}{ending}: rename one, or choose two folders."
            )
            raise core.OptionError(msg, code="outputs-coincide")
        outputs[key] = path, folder / f"{stem}{ending}"
    return [target for _, target in outputs.values()]


def _start_step(
    verb: Verb[core.Options, Result],
    path: Path,
    target: Path,
    values: Mapping[str, object],
    sets: Mapping[str, core.Options],
    existing: OverwritePolicy,
) -> core.Job[tuple[StepRecord, Result | None]]:
    """Run a command on one image, unless the record of its output says it is done."""
    inputs: dict[str, object] = {verb.images[0].name: path}
    for item in verb.inputs[1:]:
        value = values.get(item.name, getattr(item, "default", None))
        if value is not None:
            named = getattr(item, "takes_name", False)
            inputs[item.name] = find_model(str(value)) if named else value
    options = {
        name: value
        for group in ("opening", "options")
        for name, value in sets[group].model_dump(mode="json").items()
    }
    output = verb.output
    assert output is not None  # noqa: S101 - it makes an image

    def start(*, resume: bool) -> core.Job[Result]:
        arguments = {**values, verb.images[0].name: path, output.name: target}
        how = {"resume": True} if resume and verb.resumes else {}
        return verb.start(arguments, overwrite=existing.overwrite, **how)

    def start_or_restart() -> core.Job[Result]:
        try:
            return (yield from start(resume=existing.resume))
        except core.SemsrError as error:
            is_other = error.code in ("other-run", "not-resumable")
            if not (existing.overwrite and is_other):
                raise
        return (yield from start(resume=False))

    step = Step(verb.name, inputs, options, (target,))
    return (yield from run_step(step, start_or_restart, again=not existing.resume))
