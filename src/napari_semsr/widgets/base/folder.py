"""Images of a folder, processed or measured with the settings of a panel."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from magicgui.widgets import ComboBox
from qtpy.QtCore import QObject

from napari_semsr import core, jobs
from napari_semsr.widgets.base.form import create_button
from napari_semsr.widgets.base.results_group import TABLE_FILTERS
from napari_semsr.widgets.base.saving import ask_existing_folder, ask_output_file

if TYPE_CHECKING:
    from napari_semsr.widgets.base.panel import VerbPanel

_Values = Mapping[str, object] | core.Options


class FolderRun(QObject):
    """Button next to Run that asks for folders, and processes all their images.

    `read` returns the options of a measurement, or the arguments of a command that
    makes images; those that exist are replaced if `replaces` is true, and otherwise
    skipped. `images` are the lists of the images that are measured together.
    """

    def __init__(
        self,
        panel: "VerbPanel",
        read: Callable[[], _Values],
        *,
        images: Sequence[ComboBox] = (),
        replaces: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(panel)
        self._panel, self._read = panel, read
        self._images, self._replaces = images, replaces
        tooltip = "Process all images of a folder with these settings."
        button = create_button("Apply to a folder…", self.start, tooltip)
        panel.buttons.insert_widget(1, button)

    def start(self) -> None:
        """Ask for the folders, and process all images; those done are skipped."""
        with self._panel.messages.show_errors():
            values = self._read()
            folder = ask_existing_folder(self._panel, "Folder of images")
            if folder is not None and isinstance(values, core.Options):
                self._measure(folder, values)
            elif folder is not None and not isinstance(values, core.Options):
                self._convert(folder, values)

    def _convert(self, folder: Path, values: Mapping[str, object]) -> None:
        """Ask for the folder of the outputs, and make an image from each."""
        panel = self._panel
        output = ask_existing_folder(panel, "Folder of the results")
        if output is not None:
            existing = jobs.OverwritePolicy(overwrite=self._replaces(), resume=True)
            images = jobs.find_images(folder)
            make = partial(jobs.apply_to_images, panel.verb, images, output, values)
            panel.controls.start(partial(make, existing=existing), self._show_images)

    def _measure(self, folder: Path, options: core.Options) -> None:
        """Ask for a table, and for the references if one is chosen; fill it."""
        panel, second = self._panel, None
        others = self._images[1 : len(panel.verb.images)]
        chosen = [box for box in others if box.value is not None]
        if chosen:
            second = ask_existing_folder(panel, f"Folder of {chosen[0].label}")
            if second is None:
                return
        name = panel.verb.name
        table = ask_output_file(panel, "Save table", name, TABLE_FILTERS)
        if table is not None:
            make = partial(
                jobs.measure_table_job,
                *(name, folder, second),
                table=table,
                options=options,
                existing=jobs.OverwritePolicy(resume=True),
            )
            panel.controls.start(make, self._show_table)

    def _show_images(self, result: jobs.ManyImages) -> None:
        """Show how many images were processed, and why others were not."""
        columns = ("image", "message")
        rows = {name: [one[name] for one in result.failures] for name in columns}
        self._panel.results.show_result(
            {**core.get_figures(result), "Folder": result.output},
            f"{result.done} images done, {result.skipped} were done before, "
            f"{result.failed} failed.",
            tables={"Failed": rows} if result.failures else {},
        )

    def _show_table(self, result: jobs.MeasuredTable) -> None:
        """Show the means over a folder, and why images have no row."""
        means: dict[str, list[float | str | None]] = {
            "column": list(result.summary),
            **{
                name: [numbers[name] for numbers in result.summary.values()]
                for name in ("mean", "sd", "images")
            },
        }
        failed = [row for row in result.rows if row["error"]]
        image = next(iter(result.rows[0])) if result.rows else ""
        rows = {name: [row[name] for row in failed] for name in (image, "error")}
        self._panel.results.show_result(
            {"Table": str(result.table)},
            f"{result.measured} images measured, {result.kept} rows kept, "
            f"{result.failed} failed; saved as {result.table}.",
            tables={"Means": means, **({"Failed": rows} if failed else {})},
        )
