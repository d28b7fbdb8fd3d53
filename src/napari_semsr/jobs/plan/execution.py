"""Execute plans: run each call that has no valid result, locally or on workers."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from pydantic import Field

from napari_semsr.core import (
    Job,
    Micrograph,
    OptionError,
    Options,
    Progress,
    ReadError,
    SemsrError,
    capture_warnings,
    digest_with_progress,
    get_error_code,
    get_software_versions,
    map_progress,
    read_bytes,
    warn,
)
from napari_semsr.io import (
    Cell,
    ReadOptions,
    get_output_store_path,
    list_companion_files,
    path_exists,
    read_store_state,
    replace_atomically,
)
from napari_semsr.jobs.images import (
    OverwritePolicy,
    digest_values,
    open_image,
    to_json_value,
)
from napari_semsr.jobs.plan.call import (
    Call,
    CallOutput,
    File,
    Input,
    Placeholder,
    Plan,
    require_verb,
)
from napari_semsr.jobs.resume import read_file_state
from napari_semsr.jobs.verb import FileInput, ImageInput
from napari_semsr.reporting import write_json

T = TypeVar("T")
Digest = Callable[[Path], Job[str]]

RECORD = "json"
"""Key in `Call.outputs` for the file with the record that the command prints."""

_LARGEST = 1 << 24  # bytes of a file of results; chosen: a hundred calls need a tenth
_PAUSE_S = 2.0  # seconds between saves of results; chosen: little work is lost
_LISTEN_S = 0.25  # seconds; chosen: cancelling is immediate
_WAITING = 2  # waiting plans per worker; chosen: no worker idles
_PARTS = 1000  # steps of one call in progress; chosen: 4 s of an hour


# Paths of a call's files.


def find_output_path(call: Call, folder: Path, part: str | None = None) -> Path | None:
    """Find a file that a call wrote below a folder.

    Parameters
    ----------
    call : Call
        The call.
    folder : Path
        The folder of its plan.
    part : str, optional
        Another output by its name, a file by its path below an output that is a folder,
        or a file that the command writes next to its output. Other names refer to its
        output.

    Returns
    -------
    Path or None
        None if the call has no such file.
    """
    verb = require_verb(call.verb)
    if part in call.outputs:
        return folder / call.outputs[part]
    if verb.output is None or verb.output.name not in call.outputs:
        return None
    main = folder / call.outputs[verb.output.name]
    if part is not None and verb.output.ending == "":
        below = {item.relative_to(main).as_posix() for item in main.rglob("*")}
        return main / part if part in below else None
    return verb.output.parts(main).get(part or "", main)


def collect_arguments(
    call: Call,
    calls: Mapping[str, Call],
    folder: Path,
    values: Mapping[str, object] = MappingProxyType({}),
) -> dict[str, object]:
    """Return the arguments of `Verb.start`.

    `calls` maps names to the plan's calls, and `values` placeholders to their values.
    """

    def get_input(one: Input) -> object:
        if isinstance(one, Placeholder) and one.name in values:
            return values[one.name]
        path: str | Path | None = None
        if isinstance(one, File):
            path = one.path
        elif isinstance(one, CallOutput):
            path = find_output_path(calls[one.call], folder, one.part)
        if path is None:
            msg = f"An input must be a file or the output of a call, got {one!r:.200}."
            raise OptionError(msg, code="unknown-value")
        return str(path)

    inputs = {
        role: [*map(get_input, one)] if isinstance(one, tuple) else get_input(one)
        for role, one in call.inputs.items()
    }
    outputs = {name: str(folder / path) for name, path in call.outputs.items()}
    return {**call.options, **inputs, **outputs}


# Digests of file contents, as histories record them.


def digest_file(path: Path) -> Job[str]:
    """Compute the digest of a file such as a table, PSF or model."""
    if path.is_dir():
        msg = f"{path} must be a file, got a folder."
        raise ReadError(msg, code="not-a-file")
    return (yield from digest_with_progress(path))


def digest_grey_values(path: Path, reading: ReadOptions | None = None) -> Job[str]:
    """Compute the digest of a file's grey values, as for an image in memory."""
    return digest_values(open_image(path, reading, blank=True))


def list_digest_functions(call: Call, role: str, file: File) -> tuple[Digest, ...]:
    """Return the functions that may have computed an input's recorded digest.

    An image in a file is recorded by the file's bytes and the index of the image, one
    in memory by its grey values, a scan of frames by all that is read.
    """
    verb = require_verb(call.verb)
    item = verb.arguments.get(role)
    if isinstance(item, FileInput):
        if item.digest is None:
            return (digest_file,)
        files = {k: v.path for k, v in call.iterate_inputs() if isinstance(v, File)}
        return (partial(item.digest, values={**call.options, **files}),)
    selection = (file.digest or "").partition("#")[2]

    def digest_bytes(path: Path) -> Job[str]:
        digest = yield from digest_with_progress(path)
        return f"{digest}#{selection}" if selection else digest

    reading: ReadOptions | None = None
    if isinstance(item, ImageInput):
        sets = verb.parse(call.options)
        reading = sets.get(f"{role}_opening") or sets.get("opening") or ReadOptions()
        if item.reading is not None:
            reading = item.reading(sets["options"], reading)
    return digest_bytes, partial(digest_grey_values, reading=reading)


def _check_file_digest(call: Call, role: str, file: File) -> Job[None]:
    """Raise an error for a file whose content does not match its digest."""
    if file.digest is None:
        return
    for digest in list_digest_functions(call, role, file):
        with suppress(SemsrError):  # a file may not be an image
            if (yield from digest(Path(file.path))) == file.digest:
                return
    msg = (
        f"The {role} {file.name or Path(file.path).name} of {call.name} has changed "
        f"since it was recorded with {file.digest}: pass the file with this digest."
    )
    raise ReadError(msg, code="content-changed")


# Validity of results.
#
# A result is valid if its key equals the recorded one and its outputs are unchanged.
# The key depends on the command, version and options, the contents of inputs, and the
# keys of the calls whose outputs are read, with the contents of those that are not
# images. A changed call therefore only repeats calls that depend on it.


class CallRecord(Options):
    """Recorded result of a call.

    Attributes
    ----------
    warnings : list of str
        Sentences.
    codes : list of str
        Code of each warning; empty if it has none.
    outputs : dict
        Name, size and modification time of each file that it wrote, by path.
    key : str
        Digest of everything that the result depends on.
    """

    figures: dict[str, Cell] = Field(default_factory=dict)  # of former versions
    warnings: list[str]
    codes: list[str] = Field(default_factory=list)
    outputs: dict[str, list[Cell]] = Field(default_factory=dict)
    key: str = ""


class _ResultsFile(Options):
    """Plan results by call name, and file digests from the last read."""

    format: Literal[2] = 2
    calls: dict[str, CallRecord] = Field(default_factory=dict)
    # for unfinished calls that write a folder: digests of everything but the options
    begun: dict[str, str] = Field(default_factory=dict)
    files: dict[str, tuple[list[Cell], str]] = Field(default_factory=dict)


class Results:
    """Results of a plan's calls, read once and rewritten after each call.

    Parameters
    ----------
    place : Path or None
        JSON file of the results; an unreadable one counts as empty. If None, nothing is
        stored and every call runs.
    folder : Path
        The folder of the plan.
    values : dict of str to object, optional
        Values of the plan's placeholders: images in memory, paths, and other values
        with a JSON form.

    Attributes
    ----------
    records : dict of str to CallRecord
        Results of the calls, by name, whether reused or new.
    results : dict of str to Result
        What the commands returned for the calls that ran, by name.
    """

    def __init__(
        self,
        place: Path | None,
        folder: Path,
        values: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        self.place, self.folder, self.values = place, folder, values
        self.keys: dict[str, str] = {}
        self._calls: dict[str, Call] = {}
        self.records: dict[str, CallRecord] = {}
        self.results: dict[str, Any] = {}
        self.warnings: list[str] = []  # warnings of the call that ran last
        self.ran = 0
        self._file = _ResultsFile()
        with suppress(ReadError, OSError, ValueError, RecursionError):
            text = b"{}" if place is None else read_bytes(place, _LARGEST)
            self._file = _ResultsFile.model_validate(json.loads(text))

    def find_valid_record(self, call: Call) -> Job[CallRecord | None]:
        """Return the valid result of a call, if any, and delete an invalid one."""
        if self.place is None:
            return None
        self._calls[call.name] = call
        self.keys[call.name] = key = yield from self._compute_call_key(
            call, call.options
        )
        record = self._file.calls.get(call.name)
        there = all((self.folder / path).exists() for path in call.outputs.values())
        same = record is not None and there and record.key == key
        if (
            record is not None
            and same
            and record.outputs == self._get_output_states(call)
        ):
            return record
        if self._file.calls.pop(call.name, None) is not None:
            self._write_results()  # before the call changes its outputs
        return None

    def mark_started(self, call: Call) -> Job[bool]:
        """Record that a call has started; return whether it was interrupted before.

        Its options may have changed: the command checks whether it can resume.
        """
        if self.place is None:
            return False
        key = yield from self._compute_call_key(call, None)
        was_begun = self._file.begun.get(call.name) == key
        self._file.begun[call.name] = key
        self._write_results()
        return was_begun

    def add(self, call: Call, result: CallRecord) -> CallRecord:
        """Record the result of a call that ran."""
        self.ran += 1
        if self.place is None:
            return result
        self._file.begun.pop(call.name, None)
        states = {"key": self.keys[call.name], "outputs": self._get_output_states(call)}
        self._file.calls[call.name] = record = result.model_copy(update=states)
        self._write_results()
        return record

    def repeat_warnings(self, *calls: str) -> None:
        """Issue warnings of calls again; by default of all, even one that failed."""
        codes = {
            sentence: code
            for name, record in self.records.items()
            if name in calls or not calls
            for sentence, code in zip(record.warnings, record.codes, strict=True)
        }
        for one in () if calls else self.warnings:
            codes[" ".join(one.split())] = get_error_code(one)
        for sentence, code in codes.items():
            warn(sentence, code)

    def _get_output_states(self, call: Call) -> dict[str, list[Cell]]:
        return {
            path: read_file_state(self.folder / path) for path in call.outputs.values()
        }

    def _compute_call_key(
        self, call: Call, options: Mapping[str, object] | None
    ) -> Job[str]:
        marks = []
        for role, one in call.iterate_inputs():
            if isinstance(one, CallOutput):
                mark = f"{self.keys[one.call]} {one.part or ''}"
                path = find_output_path(self._calls[one.call], self.folder, one.part)
                item = require_verb(call.verb).arguments.get(role)
                if isinstance(item, FileInput) and path is not None and path.is_file():
                    # a repeated training with the same key may give another model
                    digest = yield from self._get_digest(path)
                    mark = f"{mark} {digest}"
                marks.append([role, mark])
                continue
            # by its content, independently of its path
            value = one.path if isinstance(one, File) else self.values[one.name]
            if not isinstance(value, str | os.PathLike):
                marks.append([role, (yield from _digest_value(value))])
                continue
            path = Path(value)
            digests = [(yield from self._get_digest(path))]
            for other in filter(path_exists, list_companion_files(path)):
                digests.append((yield from self._get_digest(other)))  # noqa: PERF401 - yields
            marks.append([role, " ".join(digests)])
        version = get_software_versions().get("napari-semsr")
        content = [call.verb, version, options, marks, call.outputs]
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _get_digest(self, path: Path) -> Job[str]:
        """Return the digest of a file, recomputed only if the file changed."""
        now = read_file_state(path)
        stamp = self._file.files.get(str(path))
        if stamp is None or stamp[0] != now:
            stamp = now, (yield from digest_with_progress(path))
            self._file.files[str(path)] = stamp
        return stamp[1]

    def _write_results(self) -> None:
        assert self.place is not None  # noqa: S101 - checked by callers
        self.place.parent.mkdir(parents=True, exist_ok=True)
        with replace_atomically(self.place) as place:
            text = json.dumps(self._file.model_dump(), allow_nan=False)
            place.write_text(text, encoding="utf-8")  # non-UTF-8 names are escaped


def _digest_value(value: object) -> Job[str]:
    """Compute the digest of a value in memory: of an image, or of its JSON form."""
    content: list[object] = [to_json_value(value)]
    if isinstance(value, Micrograph):
        fields = "name", "pixel_size_nm", "pixel_size_sd_nm", "origin", "provenance"
        content = [to_json_value(getattr(value, name)) for name in fields]
        content.append((yield from digest_values(value)))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _run_job_with_progress(
    step: Progress, job: Job[T], hear: Callable[[str], object] = id, share: int = 0
) -> Job[T]:
    """Run a job, reporting its progress as a part of the overall progress."""

    def convert_progress(inner: Progress) -> Progress:
        steps_done = step.done + int(share * inner.fraction)
        more = "" if inner.message == "done" else f": {inner.message}"
        return replace(  # of its own class, such as that of a training
            inner,
            done=steps_done,
            total=step.total,
            message=f"{step.message}{more}",
            seconds_left=None,
        )

    return map_progress(job, convert_progress, within=lambda: capture_warnings(hear))


def execute(
    plan: Plan,
    folder: Path,
    results: Results | None = None,
    *,
    within: Callable[[Call], AbstractContextManager[object]] = lambda _: nullcontext(),
) -> Job[dict[str, CallRecord]]:
    """Run the calls of a plan in order, except those with a valid result.

    Parameters
    ----------
    plan : Plan
        Its placeholders have values in `results`.
    folder : Path
        Folder of its outputs; existing ones are overwritten, but a store of a call is
        resumed.
    results : Results, optional
        Results of earlier executions in this folder, which are reused and extended.
        Without them every call runs.
    within : callable, optional
        Returns a context manager for each call, such as a limit of threads.

    Returns
    -------
    dict of str to CallRecord
        Results by the names of calls.

    Raises
    ------
    ReadError
        If the digest of a file differs from that in the plan. Errors of calls are
        raised, too.
    """
    results = results or Results(None, folder)
    plan.check_placeholders(results.values)
    calls = {call.name: call for call in plan.calls}
    total = _PARTS * len(plan.calls)
    for number, call in enumerate(plan.calls):
        step = Progress(_PARTS * number, total, call.name)
        yield step
        for role, one in call.iterate_inputs():
            if isinstance(one, File):
                yield from _run_job_with_progress(
                    step, _check_file_digest(call, role, one)
                )
        result_kept = yield from _run_job_with_progress(
            step, results.find_valid_record(call)
        )
        if result_kept is None:
            results.warnings = []
            verb, resume = require_verb(call.verb), False
            if verb.resumes and verb.output is not None and verb.output.ending == "":
                resume = yield from results.mark_started(
                    call
                )  # a store records its own state
            with within(call):
                result_kept = yield from _run_call(
                    call, calls, folder, step, results, resume=resume
                )
            result_kept = results.add(call, result_kept)
        results.records[call.name] = result_kept
    yield Progress(total, total, "done")
    return results.records


def start_call(
    call: Call,
    values: Mapping[str, object],
    existing: OverwritePolicy,
    *,
    calls: Mapping[str, Call] = MappingProxyType({}),
    folder: Path = Path(),
) -> Job[Any]:
    """Start a call as its command would.

    Parameters
    ----------
    call : Call
        The call.
    values : dict of str to object
        Values of its placeholders.
    existing : OverwritePolicy
        How existing outputs are treated.
    calls : dict of str to Call, optional
        The calls whose outputs it reads, by name.
    folder : Path, optional
        Folder of its outputs.
    """
    verb = require_verb(call.verb)
    arguments = collect_arguments(call, calls, folder, values)
    # what only its function takes, such as the halves of a mosaic in memory
    more = {name: arguments[name] for name in call.inputs if name not in verb.arguments}
    if verb.resumes:
        more["keep"] = existing.keep
    return verb.start(
        arguments, overwrite=existing.overwrite, resume=existing.resume, **more
    )


def _run_call(
    call: Call,
    calls: Mapping[str, Call],
    folder: Path,
    step: Progress,
    results: Results,
    *,
    resume: bool,
) -> Job[CallRecord]:
    """Run a call as its command would; keep its warnings and its result."""
    for path in call.outputs.values():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    verb = require_verb(call.verb)
    start = partial(start_call, call, results.values, calls=calls, folder=folder)
    places = [
        get_output_store_path(folder / path, resume=True)
        for path in call.outputs.values()
    ]
    is_begun = verb.resumes and (
        resume
        or any(read_store_state(one)[1].get("complete") is False for one in places)
    )
    how: dict[str, Any] = {"hear": results.warnings.append, "share": _PARTS}
    job = start(OverwritePolicy(overwrite=True, resume=is_begun, keep=True))
    try:
        result = yield from _run_job_with_progress(step, job, **how)
    except SemsrError as error:
        if not is_begun or error.code not in ("other-run", "not-resumable"):
            raise
        job = start(OverwritePolicy(overwrite=True, keep=True))
        result = yield from _run_job_with_progress(step, job, **how)
    results.results[call.name] = result
    record = result.to_json()
    if RECORD in call.outputs:
        numbers = {"kind": call.verb, **to_json_value(record)}
        write_json(folder / call.outputs[RECORD], numbers)
    own = record.get("warnings")  # a job may return warnings
    messages = {
        " ".join(one.split()): get_error_code(one)
        for one in (*(own if isinstance(own, list) else ()), *results.warnings)
    }
    return CallRecord(
        warnings=[*messages],
        codes=[*messages.values()],
    )
