"""Restore: undo a layer's blur by a classical method, into a calibrated store."""

from collections.abc import Iterator
from functools import partial
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
    Work,
    add_opened,
    add_stack,
    store_edit,
    store_target,
    typed_store,
    written,
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
        return typed_store(self.output, stack=self.takes_stack())

    def job(self) -> Work:
        """Read the form."""
        source, stack = self.layer.value, self.takes_stack()
        image = self.micrograph(source)
        options: RestoreOptions = self.form.options()
        planes = planes_of(source) if stack else []
        name = result_name(self.viewer, image.name, options.method)
        target = store_target(self.output, name, image.shape, planes=len(planes))
        restore = RESTORE.anew if self.replace.value else RESTORE.job

        def make() -> Job[Outcome]:
            return written(
                restore(planes or image, target.path, options=options), target
            )

        return make, partial(self.show_outcome, source, image)

    def show_outcome(
        self, source: "Image", image: Micrograph, outcome: Outcome
    ) -> Iterator[None]:
        """Add the result as a layer, and write the parameters, of the first plane."""
        made: RestoredFile = outcome.made
        name = what = image.name
        title = result_name(self.viewer, name, made.method)
        if outcome.planes:
            layer = add_stack(self.viewer, outcome, source, title)
            what = f"{len(outcome.planes)} planes"
        else:
            layer = add_opened(self.viewer, outcome.opened, name=title)
        yield
        self.look.finished(layer, source, image, outcome)
        said = f"Restored {what} ({made.called}).{told_of_change(made.change)[1]}"
        rows: Numbers = {**figures_of(made), "Store": str(made.output)}
        self.show_result(rows, said)
