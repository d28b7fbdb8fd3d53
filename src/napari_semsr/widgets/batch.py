"""Batch: run processing steps on every image in a folder or table."""

from typing import Any

import yaml
from magicgui.types import FileDialogMode
from magicgui.widgets import CheckBox, FileEdit
from napari.layers import Layer
from qtpy.QtGui import QShowEvent

from napari_semsr.core import (
    OptionError,
    SemsrError,
    count_available_cores,
    get_figures,
)
from napari_semsr.io import replace_atomically
from napari_semsr.jobs import (
    BATCH,
    VERBS,
    BatchOptions,
    BatchReport,
    OverwritePolicy,
    extract_command_names,
    extract_steps,
    plan_batch,
)
from napari_semsr.widgets.base import (
    Form,
    Labels,
    PanelCall,
    RichTextLabel,
    SelectableTable,
    VerbPanel,
    WrappingRow,
    ask_output_file,
    copy_to_clipboard,
    create_button,
    create_option_widget,
    format_tab_separated_rows,
    get_command_labels,
    get_entered_path,
    is_alive,
    show_file,
)
from napari_semsr.widgets.layers import get_provenance, list_image_layers

_TABLE_HEIGHT = 220  # px; chosen: eight rows
_MAX_ROWS = 500  # rows shown; chosen: larger tables are opened elsewhere
_PATTERN = frozenset("*?[")
_FIRST = ("name", "error", "warnings")  # columns that are shown first
_ABOUT = (
    "Process one image first, for example in Enhance. Its steps are then repeated for "
    "every image in a folder. After a stop, or after adding images, run again: "
    "finished results are kept."
)
_FILE = "no layer: a steps file"
_YAML = {"Steps (*.yaml)": ".yaml"}


class BatchPanel(VerbPanel):
    """Panel that runs steps on many images and shows a table of the results."""

    help_place = "batch.md#in-napari"
    title, run_label = "Batch", "Run the steps"
    verb = BATCH
    output: FileEdit
    after_cancel = "finished results are kept, run again to continue"

    def build_form(self) -> None:
        """Build the form."""
        self.layer = self.input_layers.create_box(
            "layer",
            "Repeat the steps of",
            "The steps in this layer's history are applied to every image.",
            layers=self._find_layers_with_steps,
            none=_FILE,
        )
        self.plan_note = RichTextLabel()
        self.steps_button = create_button(
            "Save the steps…",
            self.save_steps,
            "Write the steps, input images and output folder to a file for `batch()`.",
        )
        self.steps = FileEdit(
            name="steps",
            label="Steps",
            tooltip=(
                "A YAML file with inputs, output and steps; see the manual for an "
                "example."
            ),
            mode=FileDialogMode.EXISTING_FILE,
            filter="*.yaml *.yml",
        )
        self.inputs = FileEdit(
            name="inputs",
            label="Images",
            tooltip=(
                "Folder of images. You can also enter a glob pattern such as "
                "scans/*.tif, or a CSV table with a column named image. If empty, the "
                "images given in the steps file are used."
            ),
            mode=FileDialogMode.EXISTING_DIRECTORY,
        )
        self.output = FileEdit(
            name="output",
            label="Output folder",
            tooltip=(
                "New folder, or the folder of an earlier run to continue that run. If "
                "empty, the folder given in the steps file is used."
            ),
            mode=FileDialogMode.EXISTING_DIRECTORY,
        )
        self.workers = create_option_widget(BatchOptions, "workers")
        self.workers.max = max(1, count_available_cores())
        self.overwrite = CheckBox(
            name="overwrite",
            label="Overwrite results",
            tooltip="Rerun finished steps; other files in the folder are kept.",
        )
        self._output_proposed = get_entered_path(
            self.output
        )  # none yet; typed text is kept
        tooltip = "Table in the output folder, with one column per value."
        self.rows = SelectableTable(tooltip, _TABLE_HEIGHT)
        self.report: BatchReport | None = None
        self.report_button = create_button(
            "Open the report",
            self.open_report,
            "Show the first page of the report in the web browser.",
        )
        buttons = WrappingRow(
            create_button(
                "Copy the table",
                self.copy_table,
                "Copy all rows and columns as tab-separated text, for a spreadsheet.",
            ),
            create_button(
                "Open the folder",
                self.open_folder,
                "Show the output folder in the system's file manager.",
            ),
            self.report_button,
        )
        self.add_group("What it does", RichTextLabel(_ABOUT))
        self.files = Form(self.layer, self.steps, self.inputs, self.output)
        self.add_group("Files", self.files, self.plan_note, self.steps_button)
        self.add_group("Running", Form(self.workers, self.overwrite))
        self.add_results("Table", self.rows, buttons)
        self.inputs.changed.connect(self._propose_output_folder)
        for row in (self.layer, self.inputs, self.output):
            row.changed.connect(self._show_plan)
        self._show_plan()

    # -- the steps of a layer --------------------------------------------------

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802 - Qt's name
        """Propose the last result, unless a steps file is chosen."""
        super().showEvent(event)
        self._propose_layer()

    def restore_values(self, values: dict[str, Any]) -> None:
        """Restore form values; a project may have been saved without any result."""
        super().restore_values(values)
        self._propose_layer()

    def _propose_layer(self) -> None:
        results = [layer for layer in self.layer.choices if layer is not None]
        if (
            results
            and self.layer.value is None
            and get_entered_path(self.steps) is None
        ):
            self.layer.value = results[0]

    def _find_layers_with_steps(self) -> list[Layer]:
        images = list_image_layers(self.viewer)
        return [layer for layer in images if extract_layer_command_names(layer)]

    def _read_plan(self) -> dict[str, object]:
        """Return the steps and images in the format of a steps file."""
        inputs, output = get_entered_path(self.inputs), get_entered_path(self.output)
        if inputs is None or output is None:
            what = "images" if inputs is None else "output"
            msg = f"Choose a folder for the {what}."
            raise OptionError(msg, code="missing-value")
        return {
            "inputs": str(inputs.absolute()),
            "output": str(output.absolute()),
            "report": True,
            "steps": extract_layer_steps(self.layer.value)[0],
        }

    def _propose_output_folder(self, _: object = None) -> None:
        """Propose an output folder next to the images, unless one was entered."""
        inputs, output = get_entered_path(self.inputs), get_entered_path(self.output)
        if self.layer.value is None or output != self._output_proposed or not inputs:
            return
        place = inputs
        while _PATTERN & set(str(place)):
            place = place.parent
        if place.name:  # not the root or the working directory
            self._output_proposed = place.with_name(f"{place.stem} results")
            self.output.value = self._output_proposed

    def _show_plan(self, _: object = None) -> None:
        """Show the steps of a layer, and the number of images."""
        if not is_alive(self):
            return
        layer = self.layer.value
        self.files.show_row("steps", layer is None)
        self.steps_button.setVisible(layer is not None)
        self.plan_note.setText("")
        if layer is None:
            return
        lines = []
        try:
            steps, before = extract_layer_steps(layer)
            if before:
                lines = [
                    (f"The step that created the first image ({before}) is omitted.")
                ]
            lines += [f"{n}. {describe_step(step)}" for n, step in enumerate(steps, 1)]
            count = len(plan_batch(self._read_plan()).images)
            lines.append(
                f"Will be applied to {count} image{('' if count == 1 else 's')}."
            )
        except SemsrError as error:
            lines.append(self.translate(str(error)))
        self.plan_note.setText("\n".join(lines))

    def get_labels(self) -> Labels:
        """Return the panel labels of the step options."""
        names = extract_layer_command_names(self.layer.value) or VERBS
        return {**get_command_labels(names), **super().get_labels()}

    def save_steps(self) -> None:
        """Ask for a file name, and write the steps file."""
        with self.messages.show_errors():
            plan = self._read_plan()
            path = ask_output_file(self, "Save the steps", "steps", _YAML)
            if path is not None:
                text = yaml.safe_dump(plan, sort_keys=False, allow_unicode=True)
                with replace_atomically(path) as place:
                    place.write_text(text, encoding="utf-8")
                self.messages.notify(f"Steps saved as {path}.")

    # -- running ---------------------------------------------------------------

    def get_output_path(self) -> None:
        """Return None: the output is a folder, to which several runs may add."""

    def create_call(self) -> PanelCall:
        """Read the form, and return the call that Run starts."""
        has_layer = self.layer.value is not None
        steps = self._read_plan() if has_layer else get_entered_path(self.steps)
        if steps is None:
            msg = "Choose a layer that was created here, or a steps file."
            raise OptionError(msg, code="missing-value")
        inputs, output = get_entered_path(self.inputs), get_entered_path(self.output)
        return self.compose_call(
            {"steps": steps, "inputs": inputs, "output": output},
            self.show_table,
            existing=OverwritePolicy(overwrite=bool(self.overwrite.value)),
            options=BatchOptions(workers=int(self.workers.value)),
        )

    def show_table(self, report: BatchReport) -> None:
        """Show the results table and the number of processed images."""
        self.report = report
        rows = report.rows[:_MAX_ROWS]
        columns = [k for k in rows[0] if any(row[k] is not None for row in rows)]
        heads = [name for name in _FIRST if name in columns]
        heads += [name for name in columns if name not in (*_FIRST, "image")]
        self.rows.fill(
            {name: [_format_cell(row[name]) for row in rows] for name in heads}
        )
        self.report_button.setVisible(bool(report.report))
        failure_text = (
            f", {report.failed} failed (see the error column)" if report.failed else ""
        )
        self.results.show_result(
            get_figures(report),
            f"{report.done} image{'s'[: report.done != 1]} done{failure_text}.",
        )

    def copy_table(self) -> None:
        """Copy the table."""
        if self.report is not None:
            rows = self.report.rows
            text = format_tab_separated_rows([rows[0], *(row.values() for row in rows)])
            self.messages.show_status(copy_to_clipboard(text))

    def open_folder(self) -> None:
        """Show the output folder."""
        if self.report is not None:
            show_file(self.report.output)

    def open_report(self) -> None:
        """Show the report."""
        if self.report is not None and self.report.report:
            show_file(self.report.report[0])


def extract_layer_steps(layer: Layer | None) -> tuple[list[dict[str, object]], str]:
    """Return the steps in a layer's history, and the preceding command, if any."""
    history = None if layer is None else get_provenance(layer)
    return ([], "") if history is None else extract_steps(history)


def extract_layer_command_names(layer: Layer | None) -> list[str]:
    """Return the step commands recorded in a layer's history."""
    history = None if layer is None else get_provenance(layer)
    return [] if history is None else extract_command_names(history)


def describe_step(step: dict[str, Any]) -> str:
    """Describe a step in one line: its command and non-default options."""
    ((verb, options),) = step.items()
    options_text = (
        f"{name} {' '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in options.items()
    )
    return f"{verb}: {', '.join(options_text)}" if options else verb


def _format_cell(cell: object) -> str:
    """Format a table cell with five significant digits."""
    if cell is None:
        return ""
    return f"{cell:.5g}" if isinstance(cell, float) else str(cell)
