"""Restore a layer by a classical method, into a calibrated store."""

from napari.layers import Image, Layer

from napari_semsr.jobs import RESTORE, RestoredFile
from napari_semsr.restoration import RestoreOptions
from napari_semsr.widgets.base import CommandOutcome, VerbPanel
from napari_semsr.widgets.compare import CompareControls


class RestorePanel(VerbPanel):
    """Panel that restores a layer by a classical method and compares the result."""

    title = run_label = "Restore"
    verb = RESTORE
    help_place = "restore.md"
    applies_to_folder = True

    def build_form(self) -> None:
        """Build the form."""
        super().build_form()
        self.layer = self.boxes["image"]

    def add_groups(self) -> None:
        """Add the controls for comparing two layers."""
        self.look = CompareControls(self)
        self.add_group("Compare", self.look)
        self.boxes["image"].changed.connect(self.look.select_layers)

    def step(self, options: RestoreOptions) -> str:
        """Return the name of the restoration method."""
        return options.method

    def compare_with_source(
        self, layer: Image, source: Layer, outcome: CommandOutcome
    ) -> None:
        """Prepare the comparison of a result with its source, at any strength."""
        if outcome.output is not None:
            self.look.set_result(layer, source, outcome.images[0], outcome.output)

    def sentence(self, outcome: CommandOutcome) -> str:
        """Describe the result."""
        report: RestoredFile = outcome.report
        count = len(outcome.planes)
        what = f"{count} planes" if count else outcome.images[0].name
        return f"Restored {what} ({report.method_text})."
