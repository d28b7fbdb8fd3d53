"""Degrade a layer as an instrument would, to test models and methods."""

from napari_semsr.jobs import DEGRADE, DegradeOptions
from napari_semsr.widgets.base import CommandOutcome, VerbPanel


class DegradePanel(VerbPanel):
    """Panel that degrades a layer."""

    title = run_label = "Degrade"
    verb = DEGRADE
    help_place = "simulation.md#degraded-images"

    def build_form(self) -> None:
        """Build the form."""
        super().build_form()
        self.layer = self.boxes["image"]
        (self.effects,) = self.frames.values()

    def step(self, options: DegradeOptions) -> str:
        """Return the name of the degradation."""
        return "degraded" if options.kind == "none" else options.kind

    def sentence(self, outcome: CommandOutcome) -> str:
        """Return a sentence that reports the degradation."""
        return f"Degraded {outcome.images[0].name}."
