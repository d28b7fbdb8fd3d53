"""Demonstration: the whole way on drawn samples, ending in layers and a report."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from magicgui.types import FileDialogMode
from magicgui.widgets import FileEdit
from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices

from napari_semsr.core import Job
from napari_semsr.demonstration import DemoOptions, DemoResult, demo_job
from napari_semsr.widgets.base import (
    Form,
    Numbers,
    Opened,
    OptionsForm,
    Panel,
    Quantity,
    Row,
    Work,
    add_opened,
    free_path,
    new_store_path,
    open_store,
    push_button,
    typed_path,
)
from napari_semsr.widgets.layers import free_name, result_name

if TYPE_CHECKING:
    import napari.viewer

_NAME = "demonstration"
_MOSAIC = "demonstration mosaic"
_ROWS = {
    "frame_px": Row("Frame (px)", "Side of a superlens frame, in pixels of 20 nm."),
    "size": Row("Electron image (px)", "Its rows, in pixels of 10 nm."),
    "seed": Row("Seed", "Another number draws other samples, stage errors and noise."),
}


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """What was made, and its mosaics opened again."""

    made: DemoResult
    mosaic: Opened
    enhanced: Opened


def _demonstrate(folder: Path, options: DemoOptions) -> Job[DemoOutcome]:
    """Run the demonstration, and open its mosaics."""
    made = yield from demo_job(folder, options=options)
    mosaic = yield from open_store(made.mosaic)
    enhanced = yield from open_store(made.enhanced)
    return DemoOutcome(made, mosaic, enhanced)


class DemoPanel(Panel):
    """Runs the demonstration, and opens its mosaics and its report."""

    help_place = "first-steps.md#by-typing"

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__(viewer, "Demonstration", "Run the demonstration")
        self.form = OptionsForm(DemoOptions, _ROWS)
        self.folder = FileEdit(
            name="folder",
            label="Keep it in",
            tooltip="A folder, in which it gets one of its own; empty keeps it in a "
            "temporary folder that is removed when napari ends.",
            mode=FileDialogMode.EXISTING_DIRECTORY,
        )
        self.report_button = push_button(
            "Open the report",
            self.open_report,
            "Show the report in the web browser; it needs no network.",
        )
        self.report = ""
        self.add_group("Samples", self.form, Form(self.folder))
        self.add_results("Found", self.report_button)

    def job(self) -> Work:
        """Read the form."""
        options, kept = self.form.options(), typed_path(self.folder)
        place = free_path(kept, _NAME, "") if kept else new_store_path(_NAME, "")
        return lambda: _demonstrate(place, options), self.show_outcome

    def show_outcome(self, outcome: DemoOutcome) -> None:
        """Add the mosaics as layers, and write what was found."""
        self.report = outcome.made.report
        name = free_name(self.viewer, _MOSAIC)
        model = str(outcome.made.scan.made.provenance.model_name)
        add_opened(self.viewer, outcome.mosaic, name=name)
        title = result_name(self.viewer, name, model)
        add_opened(self.viewer, outcome.enhanced, name=title)
        self.show_result(
            _figures(outcome.made),
            f"Done in {outcome.made.seconds:.0f} s: two mosaics are layers, and the "
            "report tells what was found.",
            network=model,
        )

    def open_report(self) -> None:
        """Show the report."""
        QDesktopServices.openUrl(QUrl.fromLocalFile(self.report))


def _figures(made: DemoResult) -> Numbers:
    """Say what the report begins with."""
    scan = made.figures["scan"]
    rows: dict[str, Quantity | str] = {
        "Frames": f"{scan['placed']} of {scan['frames']} placed",
        "Error of nominal positions": Quantity(scan["nominal_error_px"], "px", ".3g"),
        "Error of solved positions": Quantity(scan["solved_error_px"], "px", ".3g"),
    }
    for half, of in ((made.scan, "scan"), (made.sem, "electron image")):
        for version in half.measured.versions:
            if version.cross is not None:
                psnr = Quantity(version.metrics.psnr_db, "dB", ".2f")
                rows[f"PSNR of {of}: {version.label}"] = psnr
    return rows | {"Report": made.report}
