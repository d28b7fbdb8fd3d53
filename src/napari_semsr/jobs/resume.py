"""Records beside outputs, by which a later run skips the steps that are done.

A `Step` is a name, its inputs, its options and its outputs. `run_step` runs a job and
writes a record beside the first output, as the hidden file ``.NAME.done.json``; the
next time it finds that record and does not start the job. A record agrees if the step,
its options and the versions of the software are the same, and each input and output has
the same content. Inputs may be paths (with the files that belong to them, such as
halves), images in memory, lists of these, or values with a JSON form; an option that is
the path of a file counts as an input, too. Contents are compared by digest, computed
only if the size or the time of a file has changed: a run folder may be moved or copied.

Steps in a row need no more than this, since the outputs of one are the inputs of the
next::

    places = {"mosaic": mosaic, "sem": sem}
    step = Step("register", places, options, (folder / "r.json",))
    record, result = yield from run_step(step, lambda: register_sem.rerun(...))
    step = Step("model", {"mosaic": mosaic, "transform": folder / "r.json"}, ...)

`result` is None if the step was done before; `record.values` is then what `result`
gives as JSON, and its warnings are issued again. A changed input or option repeats the
step, and those after it only if its outputs have changed. What a step keeps of an
interrupted run (a store, a state of a training) is not recorded here: the job itself
resumes it.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field

from napari_semsr import core
from napari_semsr.io import Cell, list_companion_files, path_exists, replace_atomically
from napari_semsr.jobs import images

R = TypeVar("R", bound=images.Result)

_LARGEST = 1 << 24  # bytes of a record; chosen: a table of 10 000 places needs a tenth


@dataclass(frozen=True, slots=True)
class Step:
    """Step that is done if its record agrees.

    Attributes
    ----------
    name : str
        Its name, such as that of its command.
    inputs : mapping of str to object
        Paths, images in memory, lists of these, or values with a JSON form.
    options : mapping of str to object
        Options in JSON form; what cannot change the outputs is left out.
    outputs : tuple of Path
        Files, folders or stores that it writes; its record is beside the first.
    """

    name: str
    inputs: Mapping[str, object]
    options: Mapping[str, object]
    outputs: tuple[Path, ...]

    @property
    def record_path(self) -> Path:
        """Path of its record."""
        first = self.outputs[0]
        return first.with_name(f".{first.name}.done.json")


class FileContent(core.Options):
    """Digest of a file, and its state when the digest was computed."""

    state: list[Cell]
    digest: str


class StepRecord(core.Options):
    """Record of a step that is done.

    Attributes
    ----------
    values : dict
        Its result as JSON.
    warnings, codes : list of str
        Its warnings, and the code of each; empty if it has none.
    """

    format: Literal["napari-semsr record"] = "napari-semsr record"
    version: Literal[1] = 1
    step: str
    options: dict[str, object]
    versions: dict[str, str]
    inputs: dict[str, str]  # digest of each
    outputs: dict[str, str]  # digest of each, by name
    files: list[FileContent] = Field(default_factory=list)  # in the order they are read
    values: dict[str, Any] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)
    codes: list[str] = Field(default_factory=list)


def read_file_state(path: Path) -> list[Cell]:
    """Describe a file by name, size and modification time; a folder by its files."""
    try:
        if not path.is_dir():
            return [path.name, path.stat().st_size, path.stat().st_mtime_ns]
        files = [
            (str(one.relative_to(path)), one.stat())
            for one in core.list_files_recursively(path)
        ]
    except (OSError, ValueError):  # missing or not accessible
        return [path.name, 0, 0]
    facts = sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in files)
    text = json.dumps(facts, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return [path.name, sum(size for _, size, _ in facts), digest]


def find_step_record(step: Step) -> core.Job[StepRecord | None]:
    """Return the record of a step that is done, or None."""
    record = _read_record(step)
    if record is None or not all(path.exists() for path in step.outputs):
        return None
    same = record.options == images.to_json_value(step.options)
    if not same or record.versions != core.get_software_versions():
        return None
    inputs, outputs, _ = yield from _compute_contents(step, record.files)
    return record if (record.inputs, record.outputs) == (inputs, outputs) else None


def run_step(
    step: Step, start: Callable[[], core.Job[R]], *, again: bool = False
) -> core.Job[tuple[StepRecord, R | None]]:
    """Run the job of a step and record it, unless it is done; `start` creates the job.

    `again`: run it even if it is done. Existing outputs must be overwritten, resumed or
    refused by that job.
    """
    record = None if again else (yield from find_step_record(step))
    if record is not None:
        for sentence, code in zip(record.warnings, record.codes, strict=True):
            core.warn(sentence, code)
        return record, None
    sentences: list[str] = []
    result = yield from images.collect_warnings(start(), sentences)
    messages = {" ".join(one.split()): core.get_error_code(one) for one in sentences}
    inputs, outputs, files = yield from _compute_contents(step)
    record = StepRecord(
        step=step.name,
        options=images.to_json_value(step.options),
        versions=core.get_software_versions(),
        inputs=inputs,
        outputs=outputs,
        files=files,
        values=images.to_json_value(result.to_json()),
        warnings=[*messages],
        codes=[*messages.values()],
    )
    with replace_atomically(step.record_path) as place:
        text = json.dumps(record.model_dump(), allow_nan=False)
        place.write_text(text, encoding="utf-8")  # non-UTF-8 names are escaped
    return record, result


def _read_record(step: Step) -> StepRecord | None:
    """Read the record of a step; None repeats it, if missing, damaged or foreign."""
    with suppress(core.ReadError, OSError, ValueError, RecursionError):
        text = core.read_bytes(step.record_path, _LARGEST)
        record = StepRecord.model_validate(json.loads(text))
        return record if record.step == step.name else None
    return None


def _compute_contents(
    step: Step, known: Sequence[FileContent] = ()
) -> core.Job[tuple[dict[str, str], dict[str, str], list[FileContent]]]:
    """Return the digests of inputs and outputs, and of all files in order."""
    digests = _Digests(known)
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    for name, value in step.inputs.items():
        inputs[name] = yield from digests.digest_input(value)
    for name, value in step.options.items():  # such as a point-spread function
        with suppress(OSError, ValueError):  # text that cannot be a path
            if isinstance(value, str) and Path(value).is_file():
                inputs[name] = yield from digests.digest_file(Path(value))
    for path in step.outputs:
        outputs[path.name] = yield from digests.digest_file(path)
    return inputs, outputs, digests.files


class _Digests:
    """Digests of files, of which those `known` in the same order are not read again."""

    def __init__(self, known: Sequence[FileContent]) -> None:
        self.known = known
        self.files: list[FileContent] = []

    def digest_file(self, path: Path) -> core.Job[str]:
        """Return the digest of a file or folder."""
        number, state = len(self.files), read_file_state(path)
        if number < len(self.known) and self.known[number].state == state:
            content = self.known[number]
        else:
            digest = yield from core.digest_with_progress(path)
            content = FileContent(state=state, digest=digest)
        self.files.append(content)
        return content.digest

    def digest_input(self, value: object) -> core.Job[str]:
        """Return the digest of an input's content, whatever its path."""
        content: list[object] = []
        if isinstance(value, list | tuple):
            for one in value:
                content.append((yield from self.digest_input(one)))  # noqa: PERF401 - yields
        elif isinstance(value, core.Micrograph):
            fields = "name", "pixel_size_nm", "pixel_size_sd_nm", "origin", "provenance"
            content = [images.to_json_value(getattr(value, name)) for name in fields]
            content.append((yield from images.digest_values(value)))
        elif isinstance(value, str | os.PathLike):
            path = Path(value)
            for one in (path, *filter(path_exists, list_companion_files(path))):
                content.append((yield from self.digest_file(one)))
        else:
            content.append(images.to_json_value(value))
        text = json.dumps(content, sort_keys=True)
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
