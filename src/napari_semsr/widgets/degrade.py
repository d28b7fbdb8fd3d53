"""Degrade: make a layer worse as an instrument would, to try models and methods."""

from napari.viewer import Viewer

from napari_semsr.jobs import DEGRADE, DegradeOptions
from napari_semsr.widgets.measure import VerbOutcome, VerbPanel


class DegradePanel(VerbPanel):
    """Degrades a layer."""

    title = run_label = "Degrade"
    verb = DEGRADE
    help_place = "simulation.md#degraded-images"

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        self.layer = self.boxes["image"]
        (self.effects,) = self.frames.values()

    def step(self, options: DegradeOptions) -> str:
        """Name the degradation."""
        return "degraded" if options.kind == "none" else options.kind

    def sentence(self, outcome: VerbOutcome) -> str:
        """Say what was degraded."""
        return f"Degraded {outcome.images[0].name}."
