"""Batch job that runs the steps on all images, in local processes or on a cluster."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from napari_semsr.core import (
    Job,
    OptionError,
    Progress,
    Quantity,
    SemsrError,
    WriteError,
    create_property,
    get_error_code,
    list_folder,
    option,
    warn,
)
from napari_semsr.inference import ClusterOptions
from napari_semsr.io import Cell, remove_leftovers, write_sheet
from napari_semsr.jobs.batch.steps import (
    REPORT,
    STATE,
    BatchPlan,
    ImageTask,
    plan_batch,
)
from napari_semsr.jobs.images import OverwritePolicy, Result
from napari_semsr.jobs.measure import format_table_path
from napari_semsr.jobs.plan import (
    Call,
    File,
    Plan,
    PlanOutcome,
    PlanTask,
    execute_plans,
    execute_task,
    require_verb,
)
from napari_semsr.jobs.verb import FileInput, Run, Verb, check_devices

_MAX_WORKERS = 256  # chosen: more need a cluster
_PENDING = "not run yet"
_RUN = "run"  # file that names the run whose workers may continue
_PAGES = "pages"  # folder with the inputs of the report's pages
_ON_A_PAGE = 20  # images; a report shows 40, each before and after


Cells = dict[str, Cell]
_DONE_COUNT = Quantity("Images done", "", "d", verdict="verdict", large=True)


@dataclass(frozen=True, slots=True)
class BatchReport(Result):
    """Result of a batch: counts, and a table with one row per image.

    `ran` and `kept` count steps; `report` lists its pages.
    """

    done: Annotated[int, _DONE_COUNT]
    failed: Annotated[int, Quantity("Images failed", "", "d")]
    ran: Annotated[int, Quantity("Steps run", "", "d")]
    kept: Annotated[int, Quantity("Steps kept", "", "d")]
    table: Annotated[str, Quantity("Table")]
    report: tuple[str, ...]
    output: str
    rows: list[Cells]

    @property
    def verdict(self) -> str:
        """Short summary of the result."""
        return f"{self.failed} failed: reasons below" if self.failed else "none failed"

    pages = create_property(lambda result: ", ".join(result.report) or None, "Report")

    def tables(self) -> Mapping[str, Mapping[str, Sequence[object]]]:
        """Return a table of the failed images, with the reasons."""
        failures = [row for row in self.rows if row["error"]]
        columns = ("name", "error")
        columns_shown = {name: [row[name] for row in failures] for name in columns}
        return {"Failed": columns_shown} if failures else {}


class BatchOptions(ClusterOptions):
    """Options of a batch run."""

    workers: int = option(
        1,
        "Processes",
        "Number of images processed in parallel; memory use grows with this number.",
        ge=1,
        le=_MAX_WORKERS,
    )


def _run_batch(run: Run[BatchOptions]) -> Job[BatchReport]:
    """Run the steps on every image from a folder, glob or table."""
    workers, scheduler = run.options.workers, run.options.scheduler
    steps, inputs, output = (run.parameters[k] for k in ("steps", "inputs", "output"))
    yield Progress(0, 0, "checking the steps")
    if scheduler is not None and workers != 1:
        msg = (
            "Set either `workers` or `scheduler`, not both: a scheduler has its own "
            "workers."
        )
        raise OptionError(msg, code="options-contradict")
    plan = plan_batch(steps, inputs=inputs, output=output)
    if scheduler is None:  # a cluster's workers choose their own devices
        for call in plan.images[0].plan.calls:
            check_devices(require_verb(call.verb).parse(call.options).values())
    _prepare_output_folder(plan, run.existing)
    table, mark = _ResultTable(plan), plan.folder / STATE / _RUN
    how: Any = {"workers": workers, "scheduler": scheduler, "mark": mark}
    yield from execute_plans(plan.images, table.add_result, table.write_table, **how)
    pages = yield from _write_report_pages(plan, table)
    table.warn_about_failures()
    results = table.outcomes.values()
    ran = sum(one.ran for one in results)
    return BatchReport(
        done=sum(one.error is None for one in results),
        failed=sum(one.error is not None for one in results),
        ran=ran,
        kept=sum(len(one.records) for one in results) - ran,
        table=str(plan.table_path),
        report=pages,
        output=str(plan.folder),
        rows=table.rows(),
    )


def _prepare_output_folder(plan: BatchPlan, existing: OverwritePolicy) -> None:
    """Prepare the output folder, which must be new, empty, or from a batch run."""
    folder, state = plan.folder, plan.folder / STATE
    foreign = folder.is_dir() and not state.is_dir() and list_folder(folder)
    if foreign and not existing.overwrite:
        msg = (
            f"{folder} contains files not written by a batch run; choose an empty "
            "folder, or use `overwrite` to write alongside them."
        )
        raise WriteError(msg, code="foreign-files")
    if state.is_symlink():
        msg = f"{state} must be a batch folder, but is a link: remove it."
        raise WriteError(msg, code="outside-folder")
    try:
        if existing.overwrite and state.is_dir():
            shutil.rmtree(state)
        state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"Cannot write to {folder}: {error.strerror or error}."
        raise WriteError(msg) from error
    for one in (folder, state):
        remove_leftovers(one)


# The table.


class _ResultTable:
    """Rows of the result table, in the order of the images."""

    def __init__(self, plan: BatchPlan) -> None:
        self.plan = plan
        self.outcomes: dict[str, PlanOutcome] = {}

    def rows(self) -> list[Cells]:
        """Return all rows; images not yet processed are marked as pending."""
        outcomes, pending = self.outcomes, PlanOutcome({}, _PENDING)
        rows: list[Cells] = []
        for task in self.plan.images:
            outcome = outcomes.get(task.name, pending)
            cells: Cells = {}
            for call in task.plan.calls[: len(outcome.records)]:
                record, prefix = outcome.records[call.name], call.name.replace("-", "_")
                output = require_verb(call.verb).output
                if output is not None and output.name in call.outputs:
                    cells[f"{prefix}_output"] = call.outputs[output.name]
                figures = record.figures.items()
                cells |= {f"{prefix}_{name}": cell for name, cell in figures}
            rows.append(
                {
                    "image": format_table_path(Path(task.image), self.plan.table_path),
                    "name": task.name,
                    **task.cells,
                    **{name: cells.get(name) for name in self.plan.columns},
                    "warnings": " ".join(_get_warnings(outcome)) or None,
                    "error": outcome.error,
                }
            )
        return rows

    def add_result(self, task: ImageTask, result: PlanOutcome) -> None:
        """Add the result of an image, or the failed step with its error."""
        if result.error is not None:
            failed_name = task.plan.calls[len(result.records)].name
            result = replace(
                result, error=f"{failed_name}: {' '.join(result.error.split())}"
            )
        self.outcomes[task.name] = result

    def write_table(self) -> None:
        """Write the table, unless the batch never started."""
        state = self.plan.folder / STATE
        if self.outcomes or any(state.glob("*")):
            rows = self.rows()
            write_sheet(
                self.plan.table_path, {k: [row[k] for row in rows] for k in rows[0]}
            )
            return
        with suppress(OSError):  # the folder may have been removed
            state.rmdir()

    def warn_about_failures(self) -> None:
        """Warn about failed images and images with warnings."""
        rows = [row for row in self.rows() if row["name"] in self.outcomes]
        count, failures = len(rows), [row["error"] for row in rows if row["error"]]
        if failures:
            first = f"the first: {failures[0]}"
            if len(failures) == count:
                what = "The image" if count == 1 else f"None of {count} images"
                verb = "did not complete" if count == 1 else "completed"
                msg = f"{what} {verb} all steps, {first}"
                raise SemsrError(msg, code="all-images-failed")
            message = (
                f"{len(failures)} of {count} images failed (see column error), {first}"
            )
            warn(message, "images-failed")
        warnings_heard = [
            one for one in map(_get_warnings, self.outcomes.values()) if one
        ]
        if warnings_heard:
            warn(
                f"{len(warnings_heard)} of {count} images have warnings (see column "
                f"warnings), the first: {warnings_heard[0][0]}",
                "images-with-warnings",
            )


def _get_warnings(outcome: PlanOutcome) -> list[str]:
    """Prefix each warning with its step."""
    each = outcome.records.items()
    return [f"{name}: {one}" for name, record in each for one in record.warnings]


# The report.


def _write_report_pages(plan: BatchPlan, table: _ResultTable) -> Job[tuple[str, ...]]:
    """Write the report pages of all images, unless they are up to date."""
    if plan.report is None:
        return ()
    done_images = [one for one in plan.images if table.outcomes[one.name].error is None]
    parts = [
        done_images[i : i + _ON_A_PAGE] for i in range(0, len(done_images), _ON_A_PAGE)
    ]
    options, files = {"title": f"Batch {plan.title}", **plan.report}, []
    for number, part in enumerate(parts, start=1):
        name = f"{REPORT}-{number}" if len(parts) > 1 else REPORT
        pages = []
        for image in part:
            last = () if image.last is None else (str(plan.folder / image.last),)
            pages += [File(path=path) for path in (image.image, *last)]
        call = Call(
            name=name,
            verb=REPORT,
            inputs={"inputs": tuple(pages)},
            options=options,
            outputs={"output": f"{name}.html"},
        )
        place = plan.folder / STATE / _PAGES / f"{name}.json"
        task = PlanTask(name, Plan(calls=(call,)), str(plan.folder), place)
        results = yield from execute_task(task)
        for one in results.warnings:
            warn(one)
        if results.error is not None:  # the table and the other pages are kept
            code = get_error_code(results.error)
            warn(f"Cannot write {name}.html: {results.error}", code)
        else:
            files.append(str(plan.folder / call.outputs["output"]))
    return tuple(files)


BATCH = Verb(
    "batch",
    (),
    BatchOptions,
    BatchReport,
    _run_batch,
    title="running",
    files=(
        FileInput(
            "steps",
            "a YAML file: inputs, output, and steps in order",
            optional=False,
            metavar="STEPS",
            takes=Mapping[str, Any],
        ),
        FileInput(
            "inputs",
            "folder, quoted glob, or CSV table with a column image; replaces the "
            "file's",
            flag="--inputs",
            metavar="IN",
        ),
        FileInput(
            "output",
            "output folder; replaces the file's; finished results in it are kept",
            flag="-o",
            metavar="OUT",
        ),
    ),
    reads=False,
    replaces=True,
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
