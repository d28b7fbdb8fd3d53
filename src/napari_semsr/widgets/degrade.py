"""Degrade: make a layer worse as an instrument would, to try models and methods."""

from typing import TYPE_CHECKING, Any

from napari_semsr.core import Job, figures_of
from napari_semsr.jobs import DEGRADE, DegradeOptions
from napari_semsr.widgets.base import (
    Form,
    OptionsForm,
    Outcome,
    Panel,
    Work,
    add_opened,
    store_target,
    written,
)
from napari_semsr.widgets.layers import result_name

if TYPE_CHECKING:
    import napari.viewer

_HAZY = ("fog", "hybrid")
_OF_HAZE = ("uniform_fog", "airlight", "stretch")


class DegradePanel(Panel):
    """Degrades a layer."""

    help_place = "simulation.md#degraded-images"

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__(viewer, "Degrade", "Degrade")
        self.layer = self.new_layer_box("layer", "Layer", "A sharp grey image.")
        self.form = OptionsForm(DegradeOptions)
        self.effects = OptionsForm(DegradeOptions, group="Scan and noise")
        self.add_group("Image", Form(self.layer))
        self.add_group("How", self.form)
        self.add_group("Scan and noise", self.effects)
        self.add_results("Result")
        self.form.on_change("kind", self._show_rows)
        self._show_rows(self.form.values()["kind"])
        self.take_input(self.layer)

    def _show_rows(self, kind: Any) -> None:
        for name in _OF_HAZE:
            self.form.show_row(name, kind in _HAZY)

    def job(self) -> Work:
        """Read the form."""
        micrograph = self.micrograph(self.layer.value)
        more = self.effects.values()
        if self.form.values()["kind"] not in _HAZY:
            more["airlight"] = None  # typed for haze before
        options: DegradeOptions = self.form.options(**more)
        step = "degraded" if options.kind == "none" else options.kind
        name = result_name(self.viewer, micrograph.name, step)
        target = store_target(None, name, micrograph.shape)

        def make() -> Job[Outcome]:
            job = DEGRADE.job(micrograph, output=target.path, options=options)
            return written(job, target)

        return make, lambda outcome: self.show_outcome(outcome, micrograph.name, step)

    def show_outcome(self, outcome: Outcome, source: str, step: str) -> None:
        """Add the result as a layer, and write what was drawn."""
        name = result_name(self.viewer, source, step)
        add_opened(self.viewer, outcome.opened, name=name)
        self.show_result(figures_of(outcome.made), f"Degraded {source}.")
