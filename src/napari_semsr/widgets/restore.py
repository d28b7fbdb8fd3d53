"""Restore a layer by a classical method, into a calibrated store."""

from collections.abc import Iterator
from functools import partial

from magicgui.widgets import CheckBox, FileEdit
from napari.layers import Image

from napari_semsr import core
from napari_semsr.jobs import RESTORE
from napari_semsr.widgets import base, layers
from napari_semsr.widgets.compare import CompareControls


class RestorePanel(base.VerbPanel):
    """Panel that restores a layer by a classical method and compares the result."""

    title = run_label = "Restore"
    verb = RESTORE
    help_place = "restore.md"
    applies_to_folder = True
    output: FileEdit

    def build_form(self) -> None:
        """Build the form."""
        (self.layer,) = self.input_layers.create_image_boxes(RESTORE, first="image")
        self.all_planes = self.input_layers.create_planes_box()
        self.form = base.OptionsForm(RESTORE.options)
        self.settings = {"image": self.layer, "form": self.form}  # keys of a project
        self.output = base.create_store_edit()
        self.replace = CheckBox(
            name="replace",
            text="Replace an existing store",
            tooltip="If unticked, an existing store is kept.",
        )
        image, target = (
            base.Form(self.layer, self.all_planes),
            base.Form(self.output, self.replace),
        )
        self.add_group("Layers", image, self.form, target)
        self.look = CompareControls(self)
        self.add_group("Compare", self.look)
        self.layer.changed.connect(self.look.select_layers)
        self.add_results("Result")
        self.input_layers.follow_active_layer(self.layer)

    @property
    def replaces_output(self) -> bool:
        """Whether existing outputs are replaced."""
        return bool(self.replace.value)

    def create_request(self) -> base.JobRequest:
        """Read the form, and return the request of the job that Run starts."""
        layer = self.layer.value
        image, options = self.input_layers.read(layer), self.form.create_options()
        takes_all = self.input_layers.uses_all_planes()
        planes = layers.list_planes(layer) if takes_all else []
        title = layers.create_result_name(self.viewer, image.name, options.method)
        path = base.choose_store_path(
            self.output, title, image.shape, planes=len(planes)
        )
        job = RESTORE.job(
            planes or image, path, options=options, overwrite=self.replaces_output
        )
        return base.JobRequest(
            partial(base.run_and_open, job, path),
            partial(self.show_restored, layer, image, options.method),
        )

    def show_restored(
        self, layer: Image, image: core.Micrograph, step: str, outcome: base.JobResult
    ) -> Iterator[None]:
        """Add the restored image or stack, prepare its comparison, and show figures."""
        title = layers.create_result_name(self.viewer, image.name, step)
        layer_made = (
            base.add_stack(self.viewer, outcome, layer, title)
            if outcome.planes
            else base.add_opened_image(self.viewer, outcome.opened[0], name=title)
        )
        yield
        self.look.set_result(layer_made, layer, image, outcome)
        yield
        report, count = outcome.report, len(outcome.planes)
        what = f"{count} planes" if count else image.name
        self.results.show_result(
            {**core.get_figures(report), "Store": str(report.output)},
            f"Restored {what} ({report.method_text}).",
            curves=report.tables(),
        )
