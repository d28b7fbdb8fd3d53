"""All images through their steps: here, on workers or on a cluster, to one table."""

import hashlib
import json
import queue
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from napari_semsr.core import (
    Cancelled,
    Job,
    OptionError,
    Progress,
    Quantity,
    SemsrError,
    WriteError,
    code_of,
    compact_memory,
    figure,
    list_folder,
    option,
    retell,
    run,
    sentence_of,
    warn,
)
from napari_semsr.inference import ClusterOptions
from napari_semsr.io import Cell, replacing, write_sheet
from napari_semsr.jobs.batch.steps import (
    REPORT,
    STATE,
    BatchPlan,
    ImageTask,
    plan_batch,
)
from napari_semsr.jobs.images import OverwritePolicy, Result
from napari_semsr.jobs.measure import path_in_table
from napari_semsr.jobs.plan import Results, execute, file_state, known_verb
from napari_semsr.jobs.verb import FileIn, Run, Verb, check_devices

_PAUSE_S = 2.0  # between writings of the table; chosen: nobody looks more often
_LISTEN_S = 0.25  # chosen: a cancel is heard at once
_WAITING = 2  # images for each worker beside the one that it runs; chosen
_MOST_WORKERS = 256  # chosen: more are a cluster
_PENDING = "not run yet"
_RUN = "run"  # file that names the run whose workers may go on
_ON_A_PAGE = 20  # images; a report shows 40 pictures, before and after

Cells = dict[str, Cell]


@dataclass(frozen=True, slots=True)
class ImageDone:
    """What the steps of an image came to."""

    cells: Cells = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    error: str | None = None
    ran: int = 0  # steps
    kept: int = 0


def image_job(task: ImageTask) -> Job[ImageDone]:
    """Carry out the plan of an image; a fault ends it, and is what it returns."""
    results, error = Results(task.state, Path(task.folder)), None
    job = execute(task.plan, Path(task.folder), results)
    try:
        yield from retell(
            job, lambda step: replace(step, message=f"{task.name}: {step.message}")
        )
    except Cancelled:
        raise
    except Exception as fault:  # noqa: BLE001 - the other images go on
        failed = task.plan.calls[len(results.found)].name
        error = f"{failed}: {' '.join(sentence_of(fault).split())}"
    cells: Cells = {}
    warnings: list[str] = []
    for call in task.plan.calls[: len(results.found)]:
        found, prefix = results.found[call.name], call.name.replace("-", "_")
        output = known_verb(call.verb).output
        if output is not None and output.name in call.outputs:
            cells[f"{prefix}_output"] = call.outputs[output.name]
        cells |= {f"{prefix}_{name}": cell for name, cell in found.figures.items()}
        warnings += [f"{call.name}: {one}" for one in found.warnings]
    kept = len(results.found) - results.ran
    return ImageDone(cells, tuple(warnings), error, results.ran, kept)


_DONE = Quantity("Images done", "", "d", verdict="verdict", large=True)


@dataclass(frozen=True, slots=True)
class BatchReport(Result):
    """What a batch came to: how many images are done, its table, a row for each.

    `ran` and `kept` count steps; `report` are its pages.
    """

    done: Annotated[int, _DONE]
    failed: Annotated[int, Quantity("Images failed", "", "d")]
    ran: Annotated[int, Quantity("Steps run", "", "d")]
    kept: Annotated[int, Quantity("Steps kept", "", "d")]
    table: Annotated[str, Quantity("Table")]
    report: tuple[str, ...]
    output: str
    rows: list[Cells]

    @property
    def verdict(self) -> str:
        """What to think of it."""
        return f"{self.failed} failed: see why below" if self.failed else "none failed"

    pages = figure(lambda made: ", ".join(made.report) or None, "Report")

    def tables(self) -> dict[str, dict[str, list[Any]]]:
        """Say which images failed, and why."""
        failed = [row for row in self.rows if row["error"]]
        columns = ("name", "error")
        listed = {name: [row[name] for row in failed] for name in columns}
        return {"Failed": listed} if failed else {}


class BatchOptions(ClusterOptions):
    """Who takes the images."""

    workers: int = option(
        1,
        "Processes",
        "Processes that take images side by side; each needs memory.",
        ge=1,
        le=_MOST_WORKERS,
    )


def _batch(run: Run[BatchOptions]) -> Job[BatchReport]:
    """Take every image of a folder, glob or table through steps."""
    workers, scheduler = run.options.workers, run.options.scheduler
    steps, inputs, output = (run.named[k] for k in ("steps", "inputs", "output"))
    yield Progress(0, 0, "checking the steps")
    if scheduler is not None and workers != 1:
        msg = "Give workers or a scheduler, which has its own, not both."
        raise OptionError(msg, code="options-contradict")
    plan = plan_batch(steps, inputs=inputs, output=output)
    if scheduler is None:  # whose workers have devices of their own
        for call in plan.images[0].plan.calls:
            check_devices(known_verb(call.verb).parse(call.options).values())
    token = _claim(plan, run.existing)
    table = _Table(plan)
    try:
        if scheduler is not None:
            yield from _there(plan, table, scheduler, token)
        elif workers > 1 and len(plan.images) > 1:
            count = min(workers, len(plan.images))
            with _local_cluster(count) as address:
                yield from _there(plan, table, address, token)
        else:
            yield from _here(plan, table)
    finally:
        _end(plan)
        _keep(plan, table)
    pages = yield from _report(plan, table)
    _tell(table)
    found = table.found.values()
    return BatchReport(
        done=sum(one.error is None for one in found),
        failed=sum(one.error is not None for one in found),
        ran=sum(one.ran for one in found),
        kept=sum(one.kept for one in found),
        table=str(plan.table),
        report=pages,
        output=str(plan.folder),
        rows=table.rows,
    )


def _claim(plan: BatchPlan, existing: OverwritePolicy) -> str:
    """Take the output folder, which is new, empty, or that of a batch."""
    folder, state = plan.folder, plan.folder / STATE
    foreign = folder.is_dir() and not state.is_dir() and list_folder(folder)
    if foreign and not existing.overwrite:
        msg = (
            f"{folder} holds files that no batch wrote; name a new folder, or give "
            "`overwrite` to write between them."
        )
        raise WriteError(msg, code="foreign-files")
    if state.is_symlink():
        msg = f"{state} must be a folder that a batch made, got a link: remove it."
        raise WriteError(msg, code="outside-folder")
    token = uuid.uuid4().hex
    try:
        if existing.overwrite and state.is_dir():
            shutil.rmtree(state)
        state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{folder} cannot be written: {error.strerror or error}."
        raise WriteError(msg) from error
    with replacing(state / _RUN) as place:
        place.write_text(token, encoding="utf-8")
    return token


def _end(plan: BatchPlan) -> None:
    """Tell workers that the run is over."""
    (plan.folder / STATE / _RUN).unlink(missing_ok=True)


def _keep(plan: BatchPlan, table: "_Table") -> None:
    """Write the table; of a run that never began, nothing stays."""
    state = plan.folder / STATE
    if table.found or any(state.glob("*")):
        table.write()
        return
    with suppress(OSError):  # the folder may have gone away
        state.rmdir()


# The table.


class _Table:
    """Rows, in the order of the images, whatever the order in which they are done."""

    def __init__(self, plan: BatchPlan) -> None:
        self.plan = plan
        self.found: dict[str, ImageDone] = {}
        self._written = float("-inf")

    @property
    def rows(self) -> list[Cells]:
        """All rows; those of images that wait say so."""
        rows: list[Cells] = []
        for image in self.plan.images:
            done = self.found.get(image.name) or ImageDone(error=_PENDING)
            path = path_in_table(Path(image.image), self.plan.table)
            row: Cells = {"image": path, "name": image.name, **image.given}
            row |= {name: done.cells.get(name) for name in self.plan.columns}
            said = " ".join(done.warnings)
            rows.append({**row, "warnings": said or None, "error": done.error})
        return rows

    @property
    def finished(self) -> int:
        """Steps that need no further look."""
        return len(self.plan.images[0].plan.calls) * len(self.found)

    def add(self, task: ImageTask, done: ImageDone) -> None:
        """Take in what an image came to."""
        self.found[task.name] = done
        if time.monotonic() - self._written >= _PAUSE_S:
            self.write()

    def write(self) -> None:
        """Write the table, whole or not at all."""
        rows = self.rows
        write_sheet(self.plan.table, {k: [row[k] for row in rows] for k in rows[0]})
        self._written = time.monotonic()


def _total(plan: BatchPlan) -> int:
    return len(plan.images) * len(plan.images[0].plan.calls)


def _tell(table: _Table) -> None:
    """Say what failed, and what must be taken with care."""
    count = len(table.found)
    failed = [one.error for one in table.found.values() if one.error is not None]
    if failed:
        first = f"the first: {failed[0]}"
        if len(failed) == count:
            what = "The image" if count == 1 else f"None of {count} images"
            verb = "did not go" if count == 1 else "went"
            msg = f"{what} {verb} through all steps, {first}"
            raise SemsrError(msg, code="all-images-failed")
        message = f"{len(failed)} of {count} images failed (column error), {first}"
        warn(message, "images-failed")
    warned = [one.warnings for one in table.found.values() if one.warnings]
    if warned:
        warn(
            f"{len(warned)} of {count} images have warnings (column warnings), the "
            f"first: {warned[0][0]}",
            "images-with-warnings",
        )


# In this process.


def _here(plan: BatchPlan, table: _Table) -> Job[None]:
    """Take one image after the other."""
    total, each = _total(plan), len(plan.images[0].plan.calls)
    for task in plan.images:
        before = table.finished

        def tell(step: Progress, before: int = before) -> Progress:
            return Progress(before + int(each * step.fraction), total, step.message)

        table.add(task, (yield from retell(image_job(task), tell)))
    yield Progress(total, total, "done")


# On workers. A task is the values of an image's steps; files are not sent.


@contextmanager
def _local_cluster(workers: int) -> Iterator[str]:
    """Start processes of this machine, which end with the batch."""
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


def run_image(task: ImageTask, token: str) -> ImageDone:
    """Take an image through its steps: the task of a worker, which a new run ends."""
    looked = float("-inf")

    def look(_: Progress) -> None:
        nonlocal looked
        now = time.monotonic()
        if now - looked >= 1:
            looked = now
            _check_token(Path(task.folder, STATE, _RUN), token)

    return run(image_job(task), look)


def _check_token(mark: Path, token: str) -> None:
    """Stop where the run is over, or another one has begun."""
    if not mark.parent.is_dir():
        msg = f"A worker does not see {mark.parent.parent}: it needs the same files."
        raise SemsrError(msg, code="folder-missing")
    try:
        same = mark.read_text(encoding="utf-8") == token
    except OSError:
        same = False
    if not same:
        msg = "The batch has ended."
        raise Cancelled(msg)


def _there(plan: BatchPlan, table: _Table, address: str, token: str) -> Job[None]:
    """Let workers take images, a few of which wait at a time."""
    from napari_semsr.inference import remote_client, without_workers

    total = _total(plan)
    yield Progress(0, total, "joining the workers")
    waiting = list(reversed(plan.images))
    running: dict[Any, ImageTask] = {}
    finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with remote_client(address) as client:
        try:
            while waiting or running:
                threads = sum(client.nthreads().values())
                while waiting and len(running) < (1 + _WAITING) * max(1, threads):
                    task = waiting.pop()
                    key = f"batch-{task.name}-{token[:8]}"
                    future = client.submit(run_image, task, token, pure=False, key=key)
                    running[future] = task
                    future.add_done_callback(finished.put)
                with suppress(queue.Empty):
                    future = finished.get(timeout=_LISTEN_S)
                    task = running.pop(future)
                    table.add(task, _result_of(future, task))
                    future.release()
                said = f"{len(table.found)} of {len(plan.images)} images"
                step = Progress(0, 0, said) if threads else without_workers(address)
                yield replace(step, done=table.finished, total=total)
        finally:
            _end(plan)  # workers look for it, so that none goes on for long
            client.cancel(list(running))
    yield Progress(total, total, "done")


def _result_of(future: Any, task: ImageTask) -> ImageDone:
    """Fetch what an image came to; a worker that died is an error of the image."""
    from distributed.comm.core import CommClosedError
    from distributed.scheduler import KilledWorker

    try:
        done: ImageDone = future.result()
    except KilledWorker:
        fault = (
            f"{task.plan.calls[0].name}: the workers that took the image were killed "
            "or ran out of memory; give them more, then run again."
        )
        return ImageDone(error=fault)
    except (CancelledError, CommClosedError) as error:
        msg = (
            "The workers were lost: start them again, then run the batch again; "
            "finished steps are kept."
        )
        raise SemsrError(msg, code="cluster-lost") from error
    return done


# The report.


def _report(plan: BatchPlan, table: _Table) -> Job[tuple[str, ...]]:
    """Write pages of all images before and after, unless they are as before."""
    if plan.report is None:
        return ()
    done = [one for one in plan.images if table.found[one.name].error is None]
    parts = [done[i : i + _ON_A_PAGE] for i in range(0, len(done), _ON_A_PAGE)]
    written = []
    for number, part in enumerate(parts, start=1):
        name = f"{REPORT}-{number}.html" if len(parts) > 1 else f"{REPORT}.html"
        try:
            yield from _page(plan, plan.folder / name, part)
        except SemsrError as error:  # the table and other pages stand all the same
            warn(f"{name} could not be written: {sentence_of(error)}", code_of(error))
        else:
            written.append(str(plan.folder / name))
    return tuple(written)


def _page(plan: BatchPlan, page: Path, images: Sequence[ImageTask]) -> Job[None]:
    """Write a page by the verb that makes it."""
    shown = []
    for image in images:
        shown.append(image.image)
        shown += [] if image.last is None else [str(plan.folder / image.last)]
    values = {"title": f"Batch {plan.title}", **(plan.report or {})}
    states = [file_state(Path(path)) for path in shown]
    mark = hashlib.sha256(json.dumps([shown, values, states]).encode()).hexdigest()
    record = plan.folder / STATE / f"{page.name}.txt"
    if page.is_file() and record.is_file() and record.read_text("utf-8") == mark:
        return
    values |= {"inputs": shown, "output": page}
    yield from known_verb(REPORT).start(values, overwrite=True)
    with replacing(record) as place:
        place.write_text(mark, encoding="utf-8")


BATCH = Verb(
    "batch",
    (),
    BatchOptions,
    BatchReport,
    _batch,
    title="running",
    files=(
        FileIn(
            "steps",
            "a YAML file: inputs, output, and steps in order",
            optional=False,
            metavar="STEPS",
            takes=Mapping[str, Any],
        ),
        FileIn(
            "inputs",
            "a folder, a glob in quotes, or a table (CSV) with the column image, in "
            "place of the file's",
            flag="--inputs",
            metavar="IN",
        ),
        FileIn(
            "output",
            "folder of all, in place of the file's; what is finished there is kept",
            flag="-o",
            metavar="OUT",
        ),
    ),
    reads=False,
    replaces=True,
    step="a batch does not run batches",
    prepare=compact_memory,
    example="""
    >>> image = semsr.Micrograph(np.random.default_rng(0).random((60, 80)), (5, 5), "A")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     semsr.write(image, f"{folder}/a.tif")
    ...     made = semsr.batch(
    ...         {
    ...             "inputs": f"{folder}/*.tif",
    ...             "output": f"{folder}/made",
    ...             "steps": [{"restore": {"psf": "1px"}}, "metrics"],
    ...         }
    ...     )
    >>> made.done, made.failed, round(made.rows[0]["metrics_mean_grey"], 1)
    (1, 0, 0.5)
    """,
)
