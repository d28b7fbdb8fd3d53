"""Demonstration: the whole way on drawn samples, ending in layers and a report."""

from collections.abc import Iterator
from pathlib import Path

from magicgui.types import FileDialogMode
from magicgui.widgets import FileEdit
from napari.viewer import Viewer

from napari_semsr.core import Job, figures_of
from napari_semsr.demonstration import DEMO, DemoOptions, DemoResult
from napari_semsr.widgets.base import (
    Form,
    Opened,
    OptionsForm,
    Panel,
    RichLabel,
    Work,
    add_opened,
    free_path,
    new_store_path,
    open_store,
    push_button,
    show_file,
    typed_path,
)
from napari_semsr.widgets.layers import free_name, result_name
from napari_semsr.widgets.measure import add_failed_layer

_NAME = "demonstration"
_MOSAIC, _SEM = "mosaic", "SEM image"
_TUNED = "fine-tuned"
_ABOUT = (
    "Frames are drawn and stitched, brought onto an SEM image of their place, and "
    "enhanced by a network that goes on learning on one half of it; the other half "
    "judges. It takes minutes. The images become layers, and a report tells what was "
    "found."
)


# what becomes layers, from the bottom to the top
_SHOWN = ("mosaic", "registered", "place_sem", "enhanced", "tuned", "frc_map")


def _demonstrate(
    folder: Path, options: DemoOptions
) -> Job[tuple[DemoResult, dict[str, Opened]]]:
    made = yield from DEMO.job(folder=folder, options=options)
    opened = {}
    for name in _SHOWN:
        opened[name] = yield from open_store(getattr(made, name))
    return made, opened


class DemoPanel(Panel):
    """Runs the demonstration, and opens its images and its report."""

    reports = False
    help_place = "demonstration.md#in-napari"

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer, "Demonstration", "Run the demonstration")
        self.form = OptionsForm(DemoOptions)
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
        self.add_group("What it does", RichLabel(_ABOUT))
        self.add_group("Samples", self.form, Form(self.folder))
        self.add_results("Found", self.report_button)

    def job(self) -> Work:
        """Read the form."""
        options, kept = self.form.options(), typed_path(self.folder)
        place = free_path(kept, _NAME, "") if kept else new_store_path(_NAME, "")
        return lambda: _demonstrate(place, options), self.show_outcome

    def show_outcome(
        self, outcome: tuple[DemoResult, dict[str, Opened]]
    ) -> Iterator[None]:
        """Add the images as layers, and write what was found.

        The mosaic as it was stitched lies on other axes than the rest, so it is hidden.
        """
        made, opened = outcome
        self.report = made.report
        name = free_name(self.viewer, _MOSAIC)
        model = str(made.place.untouched.provenance.model_name)
        add_opened(self.viewer, opened["mosaic"], name=name, visible=False)
        yield
        seen = result_name(self.viewer, name, "registered")
        add_opened(self.viewer, opened["registered"], name=seen)
        yield
        sem = free_name(self.viewer, _SEM)
        add_opened(self.viewer, opened["place_sem"], name=sem)
        for image, step in (("enhanced", model), ("tuned", _TUNED)):
            yield
            title = result_name(self.viewer, name, step)
            shown = add_opened(self.viewer, opened[image], name=title)
        yield
        mapped = result_name(self.viewer, title, "FRC map (nm)")
        add_opened(self.viewer, opened["frc_map"], name=mapped)
        yield
        _, found = made.place.measured.maps["tuned_against_sem"]
        add_failed_layer(self.viewer, found.map, found.reasons, title)
        self.viewer.layers.selection.active = shown
        yield
        self.show_result(
            figures_of(made),
            f"Done in {made.seconds:.0f} s: the layers show one place, and the "
            "report tells what was found.",
            network=f"{model} and its fine-tuned form",
        )

    def open_report(self) -> None:
        """Show the report."""
        show_file(self.report)
