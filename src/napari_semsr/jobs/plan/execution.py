"""Execute plans: run each call that has no valid result, locally or on workers."""

import hashlib
import json
import os
import queue
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from pydantic import Field

from napari_semsr.core import (
    Cancelled,
    Job,
    Message,
    Micrograph,
    OptionError,
    Options,
    Progress,
    ReadError,
    SemsrError,
    capture_warnings,
    describe_error,
    digest_with_progress,
    get_cells,
    get_error_code,
    get_software_versions,
    list_files_recursively,
    map_progress,
    read_bytes,
    run,
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
from napari_semsr.jobs.verb import FileInput, ImageInput
from napari_semsr.reporting import write_json

T = TypeVar("T")
Task = TypeVar("Task", bound="PlanTask")
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


def read_file_state(path: Path) -> list[Cell]:
    """Describe a file by name, size and modification time; a folder by its files."""
    try:
        if not path.is_dir():
            return [path.name, path.stat().st_size, path.stat().st_mtime_ns]
        files = [
            (str(one.relative_to(path)), one.stat())
            for one in list_files_recursively(path)
        ]
    except (OSError, ValueError):  # missing or not accessible
        return [path.name, 0, 0]
    facts = sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in files)
    text = json.dumps(facts, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return [path.name, sum(size for _, size, _ in facts), digest]


class CallRecord(Options):
    """Recorded result of a call.

    Attributes
    ----------
    figures : dict
        Numbers of its result by the names of columns of a table.
    warnings : list of str
        Sentences.
    codes : list of str
        Code of each warning; empty if it has none.
    outputs : dict
        Name, size and modification time of each file that it wrote, by path.
    key : str
        Digest of everything that the result depends on.
    """

    figures: dict[str, Cell]
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
            equal_steps=step.equal_steps and inner.equal_steps,
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
        is_all = len(plan.calls) == 1  # calls differ in time
        step = Progress(_PARTS * number, total, call.name, equal_steps=is_all)
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
    columns = {name: record.get(name) for name in result.NUMBERS}
    return CallRecord(
        figures=to_json_value(get_cells(result) if verb.makes_table else columns),
        warnings=[*messages],
        codes=[*messages.values()],
    )


# Many plans: in this process, in local processes, or on a cluster.


@dataclass(frozen=True, slots=True)
class PlanTask:
    """A plan to execute, with everything that a worker needs."""

    name: str  # in progress messages
    plan: Plan  # without placeholders
    folder: str = ""  # of its outputs
    state: Path | None = None  # file of results; if None, every call runs
    cells: dict[str, Cell] = field(default_factory=dict)  # of its row in a table
    number: int = 0  # of that row


@dataclass(frozen=True, slots=True)
class PlanOutcome:
    """Result of a plan: records of the calls that have a result, keyed by name."""

    records: dict[str, CallRecord]
    error: str | None = None  # a `Message`: the reason why the next call failed
    warnings: tuple[str, ...] = ()  # of the last call that ran
    ran: int = 0  # number of calls that ran; others had a result


def execute_plans(
    tasks: Sequence[Task],
    report: Callable[[Task, PlanOutcome], object],
    keep: Callable[[], object],
    *,
    workers: int = 1,
    scheduler: str | None = None,
    mark: Path | None = None,
) -> Job[None]:
    """Execute independent plans, which do not read each other's outputs.

    Parameters
    ----------
    tasks : sequence of PlanTask
        Their names differ if workers execute them.
    report : callable
        Receives each task with its `PlanOutcome`, as soon as it is known.
    keep : callable
        Saves results periodically and at the end.
    workers : int
        Number of local processes; 1 for the current one.
    scheduler : str, optional
        Address of a Dask cluster to use instead; its workers must see the same files.
    mark : Path, optional
        File that names this execution, so that workers of another one in the same
        folder end; workers need it.

    Raises
    ------
    SemsrError
        If the workers are lost. The error of a call is in its `PlanOutcome`.
    """
    written_at = float("-inf")

    def add_outcome(task: Task, outcome: PlanOutcome) -> None:
        nonlocal written_at
        report(task, outcome)
        if time.monotonic() - written_at >= _PAUSE_S:
            keep()
            written_at = time.monotonic()

    count = min(workers, len(tasks))
    try:
        if mark is not None and scheduler is not None:
            yield from _execute_plans_on_workers(tasks, add_outcome, scheduler, mark)
        elif mark is not None and count > 1:
            with _start_local_cluster(count) as address:
                yield from _execute_plans_on_workers(tasks, add_outcome, address, mark)
        else:
            with nullcontext() if mark is None else _write_execution_token(mark):
                yield from _execute_plans_locally(tasks, add_outcome)
    finally:
        keep()


def execute_task(task: PlanTask) -> Job[PlanOutcome]:
    """Execute a plan, and return the error if one stops it."""
    results, error = Results(task.state, Path(task.folder)), None
    try:
        yield from execute(task.plan, Path(task.folder), results)
    except Cancelled:
        raise
    except Exception as fault:  # noqa: BLE001 - the other plans continue
        error = Message(describe_error(fault), get_error_code(fault))
    return PlanOutcome(results.records, error, tuple(results.warnings), results.ran)


@contextmanager
def _write_execution_token(mark: Path) -> Iterator[str]:
    """Write a token for this execution that stops workers of other executions."""
    token = uuid.uuid4().hex
    with replace_atomically(mark) as place:
        place.write_text(token, encoding="utf-8")
    try:
        yield token
    finally:
        mark.unlink(missing_ok=True)


def _execute_plans_locally(
    tasks: Sequence[Task], report: Callable[[Task, PlanOutcome], object]
) -> Job[None]:
    """Execute plans one after the other."""
    total, before = sum(len(task.plan.calls) for task in tasks), 0
    for task in tasks:
        job = execute_task(task)
        report(
            task,
            (
                yield from map_progress(
                    job, partial(_compute_total_progress, task, before, total)
                )
            ),
        )
        before += len(task.plan.calls)
    yield Progress(total, total, "done")


def _compute_total_progress(
    task: PlanTask, before: int, total: int, step: Progress
) -> Progress:
    """Return the overall progress; a plan counts as complete only with its result."""
    count = len(task.plan.calls)
    steps_done = before + min(int(count * step.fraction), max(0, count - 1))
    return Progress(steps_done, total, f"{task.name}: {step.message}")


# On workers. A task contains the values of a plan; files are not sent.


@contextmanager
def _start_local_cluster(workers: int) -> Iterator[str]:
    """Start a local Dask cluster, which is closed after the execution."""
    import logging

    from distributed import LocalCluster

    with LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address=None,
        silence_logs=logging.CRITICAL,
    ) as cluster:
        yield str(cluster.scheduler_address)


def execute_task_on_worker(task: PlanTask, mark: Path, token: str) -> PlanOutcome:
    """Execute a plan on a worker, until another execution starts or this one ends."""
    looked_at = float("-inf")

    def check_execution(_: Progress) -> None:
        nonlocal looked_at
        if time.monotonic() - looked_at < 1:
            return
        looked_at = time.monotonic()
        if not mark.parent.is_dir():
            folder = mark.parent.parent
            msg = (
                f"A worker cannot access {folder}: all workers must have access to the "
                "same files."
            )
            raise SemsrError(msg, code="folder-missing")
        with suppress(OSError):
            if mark.read_text(encoding="utf-8") == token:
                return
        msg = "Another execution has started, or this one has ended."
        raise Cancelled(msg)

    return run(execute_task(task), check_execution)


def _execute_plans_on_workers(
    tasks: Sequence[Task],
    report: Callable[[Task, PlanOutcome], object],
    address: str,
    mark: Path,
) -> Job[None]:
    """Execute plans on workers, with a few plans queued at a time."""
    from napari_semsr.inference import connect_client, report_missing_workers

    total, steps_done = sum(len(task.plan.calls) for task in tasks), 0
    yield Progress(0, total, "connecting to the workers")
    waiting = list(reversed(tasks))
    running: dict[object, Task] = {}
    ended_tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with connect_client(address) as client:
        try:
            with _write_execution_token(
                mark
            ) as token:  # removed first, so that workers stop soon
                while waiting or running:
                    threads = sum(client.nthreads().values())
                    while waiting and len(running) < (1 + _WAITING) * max(1, threads):
                        task = waiting.pop()
                        key = f"plan-{task.name}-{token[:8]}"
                        how: Any = {"pure": False, "key": key}
                        future = client.submit(
                            execute_task_on_worker, task, mark, token, **how
                        )
                        running[future] = task
                        future.add_done_callback(ended_tasks.put)
                    with suppress(queue.Empty):
                        future = ended_tasks.get(timeout=_LISTEN_S)
                        task = running.pop(future)
                        report(task, _fetch_outcome(future))
                        steps_done += len(task.plan.calls)
                        future.release()
                    ended_count = len(tasks) - len(waiting) - len(running)
                    step: Progress = report_missing_workers(address)
                    if threads:
                        step = Progress(0, 0, f"{ended_count} of {len(tasks)} images")
                    yield replace(step, done=steps_done, total=total)
        finally:
            client.cancel(list(running))
    yield Progress(total, total, "done")


def _fetch_outcome(future: Any) -> PlanOutcome:
    """Fetch the result of a plan; a killed worker counts as an error of the plan."""
    from distributed.comm.core import CommClosedError
    from distributed.scheduler import KilledWorker

    try:
        outcome: PlanOutcome = future.result()
    except KilledWorker:
        fault = (
            "the workers that took the image were killed or ran out of memory; use "
            "more, then run again."
        )
        return PlanOutcome({}, Message(fault, "process-died"))
    except (CancelledError, CommClosedError) as error:
        msg = (
            "The connection to the workers was lost: restart the workers, then run the "
            "batch again. Finished steps are kept."
        )
        raise SemsrError(msg, code="cluster-lost") from error
    return outcome
