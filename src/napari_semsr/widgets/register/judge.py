"""Judge by SEM: evaluate an image and network outputs against an SEM image."""

from pathlib import Path

from magicgui.widgets import Select

from napari_semsr.core import (
    get_figures,
)
from napari_semsr.jobs import JUDGE, Judged, JudgeOptions
from napari_semsr.models import MODELS_BY_INSTRUMENT, MOSAIC_MODEL
from napari_semsr.registration import RegistrationRefused
from napari_semsr.widgets.base import (
    PanelCall,
    find_free_store_path,
)
from napari_semsr.widgets.enhance import list_installed_models
from napari_semsr.widgets.layers import get_instrument
from napari_semsr.widgets.register.pair import PairPanel
from napari_semsr.widgets.register.panel import (
    describe_refusal,
    run_unless_refused,
)


class JudgePanel(PairPanel):
    """Panel that registers a layer to its SEM image, enhances it, and lists metrics."""

    help_place = "judge.md#in-napari"
    title, run_label = "Judge by SEM", "Judge"
    verb = JUDGE
    after_cancel = "no report was written"

    def build_form(self) -> None:
        """Build the form."""
        self.optical, self.sem = self.input_layers.create_image_boxes(JUDGE)
        self.networks = Select(
            name="networks",
            label="Networks",
            tooltip=(
                "Models for enhancing the optical image (optional). The image itself "
                "and the best linear filter are always evaluated."
            ),
            choices=lambda _: list_installed_models(),
        )
        self.networks.native.setMaximumHeight(110)
        self.add_inputs(self.optical, self.sem, self.networks, JudgeOptions)
        self.add_report("Evaluation")
        self.optical.changed.connect(self._propose_model)
        self._propose_model()

    def _propose_model(self, _: object = None) -> None:
        """Select the network that best suits the layer."""
        layer = self.optical.value
        kind = None if layer is None else get_instrument(layer)
        name = MODELS_BY_INSTRUMENT.get(kind or "", MOSAIC_MODEL)
        self.networks.value = [name] if name in self.networks.choices else []

    def create_call(self) -> PanelCall:
        """Read the form, and return the call that Run starts."""
        optical, sem = self.read_pair()
        report = find_free_store_path(f"{optical.name} judged", ".html")
        options, settings = self.read_settings()
        models = list(self.networks.value)
        return self.compose_call(
            {"optical": optical, "sem": sem, "models": models, **settings},
            self.show_evaluation,
            outputs={"output": report},
            work=run_unless_refused,
            options=options,
        )

    def show_evaluation(self, result: Judged | RegistrationRefused) -> None:
        """Show the main results of the report, or the reason for a refusal."""
        has_result = not isinstance(result, RegistrationRefused)
        for button in (self.report_button, self.keep_button):
            button.setEnabled(has_result)
        if isinstance(result, RegistrationRefused):
            self.results.show_result(describe_refusal(result), str(result))
            raise result
        self.report = Path(result.output)
        self.results.show_result(
            get_figures(result),
            f"Evaluated {result.optical} against {result.sem}. The report is deleted "
            "when napari is closed; use Save report… to keep it.",
            curves={
                f"{item.name} and SEM": {
                    "frequency (1/px)": item.frc.frequency_per_px,
                    "correlation": item.frc.correlation,
                }
                for item in result.pictures
            },
            network=", ".join(result.models) or None,
        )
