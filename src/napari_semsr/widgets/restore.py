"""Restore: undo a layer's blur by a classical method, into a calibrated store."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import CheckBox

from napari_semsr.core import Job, Micrograph, figures_of
from napari_semsr.jobs import RESTORE, RestoredFile
from napari_semsr.restoration import RestoreOptions
from napari_semsr.widgets.base import (
    Form,
    Numbers,
    OptionsForm,
    Outcome,
    Panel,
    StackOutcome,
    Work,
    add_opened,
    add_stack,
    stack_target,
    store_edit,
    store_target,
    typed_stack,
    typed_store,
    written,
    written_stack,
)
from napari_semsr.widgets.compare import CompareControls, told_of_change
from napari_semsr.widgets.layers import planes_of, result_name

if TYPE_CHECKING:
    import napari.viewer
    from napari.layers import Image

_ITERATIVE = ("richardson-lucy", "blind")


class RestorePanel(Panel):
    """Restores a layer by a classical method."""

    help_place = "restore.md"

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__(viewer, "Restore", "Restore")
        self.layer = self.new_layer_box("layer", "Layer", "The grey image to restore.")
        self.form = OptionsForm(RestoreOptions)
        self.output = store_edit()
        self.replace = CheckBox(
            name="replace",
            text="Replace an existing store",
            tooltip="Otherwise it is left alone.",
        )
        self.add_group("Image", Form(self.layer, self.new_planes_box()))
        self.add_group("How", self.form, Form(self.output, self.replace))
        self.look = CompareControls(self)
        self.add_group("Compare", self.look)
        self.add_results("Result")
        self.form.on_change("method", self._show_rows)
        self._show_rows(self.form.values()["method"])
        self.layer.changed.connect(self.look.compare)
        self.take_input(self.layer)

    def _show_rows(self, method: Any) -> None:
        for name in ("iterations", "tv"):
            self.form.show_row(name, method in _ITERATIVE)

    def writes(self) -> Path | None:
        """Give the path that was chosen."""
        typed = typed_stack if self.takes_stack() else typed_store
        return typed(self.output)

    def job(self) -> Work:
        """Read the form."""
        source = self.layer.value
        micrograph = self.micrograph(source)
        options: RestoreOptions = self.form.options()
        if self.takes_stack():
            return self._stack_job(self.layer.value, options)
        name = result_name(self.viewer, micrograph.name, options.method)
        target = store_target(self.output, name, micrograph.shape)
        restore = RESTORE.anew if self.replace.value else RESTORE.job

        def make() -> Job[Outcome]:
            return written(restore(micrograph, target.path, options=options), target)

        return make, lambda outcome: self.show_outcome(outcome, source, micrograph)

    def _stack_job(self, layer: "Image", options: RestoreOptions) -> Work:
        """Read the rest of the form, for all planes."""
        planes = planes_of(layer)
        restore = RESTORE.anew if self.replace.value else RESTORE.job
        name = result_name(self.viewer, layer.name, options.method)
        target = stack_target(self.output, name, planes)

        def make() -> Job[StackOutcome]:
            return written_stack(restore(planes, target.path, options=options), target)

        return make, lambda outcome: self.show_stack(outcome, layer)

    def show_stack(self, outcome: StackOutcome, layer: "Image") -> Iterator[None]:
        """Add the stack as a layer, and write the parameters of its first plane."""
        title = result_name(self.viewer, layer.name, outcome.made.method)
        made = add_stack(self.viewer, outcome, layer, title)
        yield
        self.look.finished_stack(made, layer, outcome.planes)
        self._show_made(outcome.made, f"{len(outcome.planes)} planes")

    def show_outcome(
        self, outcome: Outcome, source: "Image", image: Micrograph
    ) -> Iterator[None]:
        """Add the result as a layer, and write its parameters."""
        name = image.name
        title = result_name(self.viewer, name, outcome.made.method)
        layer = add_opened(self.viewer, outcome.opened, name=title)
        yield
        self.look.finished(layer, source, image, outcome.opened)
        self._show_made(outcome.made, name)

    def _show_made(self, made: RestoredFile, what: str) -> None:
        """Write how it was restored, and say so."""
        said = f"Restored {what} ({made.called}).{told_of_change(made.change)[1]}"
        rows: Numbers = {**figures_of(made), "Store": str(made.output)}
        self.show_result(rows, said)
