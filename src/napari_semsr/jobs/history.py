"""Read a stored history as the call that made a file.

A history names a job, its options and inputs, each input with its own history. Forms
stored by earlier versions are first converted to the current one, by a function for
each job (`_CURRENT`).
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_semsr import core
from napari_semsr.io import COVERAGE, HEIGHTS, ReadOptions, convert_decoding_errors
from napari_semsr.jobs.enhance import MISFIT
from napari_semsr.jobs.images import Result
from napari_semsr.jobs.index import PLACES, describe_former_name
from napari_semsr.jobs.stitch import HALF
from napari_semsr.jobs.verb import FileInput, Verb, get_verb
from napari_semsr.simulation import SemViewOptions

SCAN = "folder"
"""Argument of a folder of frames."""
_OTHERS = "simulate", "gaps"  # whose images are not their main output
_DEEPEST = 8  # calls before the last one; chosen: ends cycles


@dataclass(frozen=True, slots=True)
class RecordedInput:
    """Input of a recorded call: a file, the output of another call, or both.

    `call` is None if the file has no history that can be read. An image that was only
    in memory has neither digest nor path.
    """

    role: str  # as the history names it
    name: str
    path: str
    digest: str | None
    call: "RecordedCall | None" = None

    @property
    def is_saved(self) -> bool:
        """Whether the input was a file or has a digest."""
        return self.digest is not None or bool(self.path)


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """Call of a command that made a file, as its history describes it.

    `options` are JSON values of the command and of reading, by name; `inputs` are by
    the names of the command's images and files, or of an option with a file as its
    value. `part` names one of several outputs, and `record` is the stored history.
    """

    verb: Verb[core.Options, Result]
    options: Mapping[str, object]
    inputs: Mapping[str, tuple[RecordedInput, ...]]
    part: str | None
    record: core.Provenance


def read_history(
    history: core.Provenance, file: Path, *, depth: int = 0
) -> RecordedCall:
    """Convert the history of a file to the call that made it.

    Parameters
    ----------
    history : Provenance
        As the file stores it.
    file : Path
        The file, named in messages.
    depth : int, optional
        Number of calls after this one.

    Returns
    -------
    RecordedCall
        An input has a call of its own if its history can be read.

    Raises
    ------
    ReadError
        If the job cannot be run again, or the history is damaged.
    OptionError
        If it sets an option that only a user may set.
    """
    # the job, a set option or the part may have left this package
    parts = [name for name, value in history.options.items() if value]
    parts += [history.part] if history.part else []
    for name in (history.job, *(f"{history.job} --{part}" for part in parts)):
        shown = f"{name!r}, which made {file.name},"
        if former := describe_former_name(name, shown):
            raise core.ReadError(former)
    verb = _get_job_command(history.job)
    if verb is None:
        repeatable = ", ".join(filter(_get_job_command, PLACES))
        msg = (
            f"{file.name} was made by {history.job!r}, which cannot be run again; jobs "
            f"that can be run again: {repeatable}."
        )
        raise core.ReadError(msg, code="history-unknown")
    with convert_decoding_errors(file, "a history"):
        current = _add_guides(verb, history)
        if history.job in _CURRENT:
            current = _CURRENT[history.job](current, file)
        options = _get_options(verb, current, file)
    is_coverage = file.name.endswith(f".{COVERAGE}.tif")  # history of a mosaic
    if depth == 0 and history.job == "stitch" and is_coverage:
        current = current.model_copy(update={"part": COVERAGE})
    inputs = _get_inputs(verb, current, file, depth)
    return RecordedCall(verb, options, inputs, current.part, history)


def _get_job_command(job: str) -> Verb[core.Options, Result] | None:
    """Return the command that reproduces a job's output; None if there is none."""
    verb = get_verb(job)
    return verb if verb and (verb.makes_image or job in _OTHERS) else None


def _get_options(
    verb: Verb[core.Options, Result], history: core.Provenance, file: Path
) -> dict[str, object]:
    """Return the options of a call, including the reading options."""
    options_stored, fields = history.options, verb.options.model_fields
    own = {name: options_stored[name] for name in fields if name in options_stored}
    core.check_user_only_options(
        own, core.get_user_only_options(verb.options), "A history"
    )
    try:
        options = verb.options.from_history(own)
    except core.OptionError as error:
        msg = f"The history of {file} cannot be read: {error}"
        raise core.ReadError(msg, code="history-unknown") from error
    values_given: dict[str, object] = options.model_dump(
        mode="json", exclude_unset=True
    )
    reading = dict(options_stored.get("reading") or {})
    for side in verb.reading_prefixes or ("",):
        values = dict(reading.get(side) or {}) if side else reading
        before = f"{side}_" if side else ""
        values_given |= {
            f"{before}{name}": values[name]
            for name in ReadOptions.model_fields
            if name in values and (side or name not in fields)
        }
    for item in verb.files:  # e.g. landmarks that were not in a file
        stored = options_stored.get(item.name)
        if isinstance(stored, dict) or stored == "none":
            values_given[item.name] = stored
    return values_given


def _get_inputs(
    verb: Verb[core.Options, Result], history: core.Provenance, file: Path, depth: int
) -> dict[str, tuple[RecordedInput, ...]]:
    """Return the inputs of the call by argument name."""
    inputs: dict[str, tuple[RecordedInput, ...]] = {}
    left = list(history.inputs)
    guides = {one.role: one for one in history.guides}
    several = sum(item.name not in guides for item in verb.images) > 1
    for item in verb.images:
        records = left  # the planes of a stack
        if item.name in guides:
            records = [guides[item.name]]
        elif several:
            named = [one for one in left if one.role == item.name]
            records = named[:1] or [one for one in left if one.role == "image"][:1]
        left = [one for one in left if one not in records]
        if records[1:] and not item.stack:  # not planes of a stack
            msg = f"The history of {file.name} has several images for a single input."
            raise core.ReadError(msg, code="several-images")
        if records:
            opened = (_create_image_input(one, file, depth) for one in records)
            inputs[item.name] = tuple(opened)
    for record in (*left, *history.guides):
        name = SCAN if record.role == "frames" else record.role.replace(" ", "_")
        if isinstance(verb.arguments.get(name), FileInput):
            where = record.path or "", record.digest
            one = RecordedInput(record.role, record.name, *where)
            inputs.setdefault(name, (one,))
        elif name in verb.options.model_fields:
            inputs.setdefault(name, (_create_image_input(record, file, depth),))
    if any(not item.optional and item.name not in inputs for item in verb.inputs):
        msg = f"The history of {file.name} lacks a required input."
        raise core.ReadError(msg, code="history-incomplete")
    # the scan last, as its digest depends on other files
    return dict(sorted(inputs.items(), key=lambda one: one[0] == SCAN))


def _create_image_input(
    record: core.InputRecord, file: Path, depth: int
) -> RecordedInput:
    """Return an image input, with the call that made it if its history is readable."""
    call = None
    if record.provenance is not None and depth < _DEEPEST:
        with suppress(core.SemsrError):  # a history that cannot be read: the file alone
            call = read_history(record.provenance, file, depth=depth + 1)
    path = record.path or ""
    return RecordedInput(record.role, record.name, path, record.digest, call)


# Convert older and job-specific forms to one form: options and ``reading`` by name,
# files as guides or inputs by the names of their arguments.


def _replace_options(
    history: core.Provenance, options: Mapping[str, object], **more: object
) -> core.Provenance:
    return history.model_copy(update={"options": dict(options), **more})


def _add_guides(
    verb: Verb[core.Options, Result], history: core.Provenance
) -> core.Provenance:
    """Record as guides the files that earlier versions recorded as options."""
    options, roles = history.options, {record.role for record in history.guides}
    guides = [
        core.InputRecord(
            role=k, name=Path(options[k]).name, digest=options[f"{k}_digest"]
        )
        for k in verb.arguments
        if f"{k}_digest" in options and k not in roles
    ]
    if any(item.name == "model" for item in verb.files):
        name = f"{history.model_name or ''}.safetensors"
        usual = core.InputRecord(role="model", name=name)
        model = next((one for one in history.guides if one.role == "model"), usual)
        guides.append(model.model_copy(update={"digest": history.model_digest}))
    roles = {record.role for record in guides}
    others = (record for record in history.guides if record.role not in roles)
    return history.model_copy(update={"guides": (*others, *guides)})


def _update_convert_history(history: core.Provenance, file: Path) -> core.Provenance:
    """Extract the reading options, which `convert` stores next to the data type."""
    if "dtype" not in history.options:
        msg = (
            f"{file.name} was averaged by the demonstration, which creates "
            "all of its images: run `demo()` again."
        )
        raise core.ReadError(msg, code="history-unknown")
    options = {"dtype": history.options["dtype"], "reading": history.options}
    return _replace_options(history, options)


def _update_crop_history(history: core.Provenance, _: Path) -> core.Provenance:
    """Remove the options for the `like` image if there is no such image."""
    if any(record.role == "like" for record in history.guides):
        return history
    of_like = ("like_pixel_size_nm", "search")
    left = {k: v for k, v in history.options.items() if k not in of_like}
    return _replace_options(history, left)


def _update_register_history(history: core.Provenance, file: Path) -> core.Provenance:
    """Extract the options of the call, and landmarks that were not in a file."""
    options, guides = dict(history.options), {record.role for record in history.guides}
    search = options.get("searched")
    if search == "stored" and "transform" not in guides:
        msg = (
            f"{file.name} was registered with a transform that was not recorded, so it "
            "cannot be reproduced."
        )
        raise core.ReadError(msg, code="history-incomplete")
    landmarks = options.get("landmarks")
    if search == "landmarks" and landmarks is None and "landmarks" not in guides:
        msg = (
            f"The landmarks used to register {file.name} were not recorded, so it "
            "cannot be reproduced."
        )
        raise core.ReadError(msg, code="history-incomplete")
    options |= options.get("asked", {})
    options.pop("transform", None)  # the resulting map
    if "transform" in guides:
        options = {"reading": options.get("reading")}
    if landmarks is not None:
        np.array([landmarks["moving"], landmarks["fixed"]], float)
    return _replace_options(history, options)


def _update_frc_map_history(history: core.Provenance, file: Path) -> core.Provenance:
    """Remove the halves, which older versions recorded after the mosaic."""
    if "difference" in history.options:
        msg = (
            f"{file.name} is the difference of two maps, computed in a napari panel: "
            "compute the maps again, then their difference."
        )
        raise core.ReadError(msg, code="history-unknown")
    images = [record for record in history.inputs if record.role == "image"]
    return history.model_copy(update={"inputs": images[:1] if images[2:] else images})


def _update_simulate_history(history: core.Provenance, file: Path) -> core.Provenance:
    """Remove the view options, and the phantom if an image was scanned."""
    if history.part is None:
        msg = (
            f"{file.name} does not record which of the simulated images it contains, "
            "so it cannot be reproduced."
        )
        raise core.ReadError(msg, code="history-incomplete")
    phantom = {"phantom"} if history.inputs else set()
    out = {*SemViewOptions.model_fields, "sem_view"} | phantom
    left = {k: v for k, v in history.options.items() if k not in out}
    return _replace_options(history, left)


def _update_stitch_history(history: core.Provenance, _: Path) -> core.Provenance:
    """Move the half from the options to `part`, and merge heights into one folder."""
    half = history.options.get(HALF)
    more = {"part": f"half-{half['name']}"} if half is not None else {}
    heights = next((one for one in history.guides if one.role == "heights"), None)
    if heights is None:
        return history.model_copy(update=more)
    frames = [record for record in history.inputs if record.role == "frames"]
    digests = [record.digest or "" for record in (heights, *frames)]
    folder = Path(heights.path or HEIGHTS).parent
    scan = core.InputRecord(
        role="frames",
        name=folder.name or ".",
        path=folder.as_posix() if heights.path else None,
        digest=core.combine_digests(digests),
    )
    others = [record for record in history.inputs if record.role != "frames"]
    return history.model_copy(update={**more, "inputs": (*others, scan), "guides": ()})


def _update_blend_history(history: core.Provenance, _: Path) -> core.Provenance:
    """Take the image from the history of the result, which has its digest."""
    before = {record.role: record for record in history.inputs}
    result = before.get("result")
    if result is not None and result.provenance and result.provenance.inputs:
        image = result.provenance.inputs[0]
        before["input"] = image.model_copy(update={"role": "input"})
    return history.model_copy(update={"inputs": tuple(before.values())})


_CURRENT: dict[str, Callable[[core.Provenance, Path], core.Provenance]] = {
    "convert": _update_convert_history,
    "crop": _update_crop_history,
    "register": _update_register_history,
    "frc-map": _update_frc_map_history,
    "simulate": _update_simulate_history,
    "stitch": _update_stitch_history,
    "enhance": lambda history, _: history.model_copy(
        # the name of the output of the misfit map
        update={"part": "residual_map"} if history.part == MISFIT else {}
    ),
    "blend": _update_blend_history,
    # an option selects the image, since the command creates one of two
    "gold": lambda history, _: _replace_options(
        history, {**history.options, "part": history.part}
    ),
}
"""Converters for histories whose stored form differs from the current options."""
