"""Judge by SEM: evaluate an image and network outputs against an SEM image."""

from functools import partial
from pathlib import Path

from magicgui.widgets import Select
from napari.viewer import Viewer

from napari_semsr.core import (
    Job,
    Micrograph,
    get_figures,
)
from napari_semsr.jobs import JUDGE, Judged, JudgeOptions
from napari_semsr.models import DEFAULT_MODEL, MOSAIC_MODEL
from napari_semsr.registration import RegistrationRefused
from napari_semsr.widgets.base import (
    PanelTask,
    find_free_store_path,
)
from napari_semsr.widgets.enhance import list_installed_models
from napari_semsr.widgets.layers import get_vendor
from napari_semsr.widgets.register.pair import PairPanel
from napari_semsr.widgets.register.panel import (
    describe_refusal,
)


def _judge_images(
    *images: Micrograph | Path, **how: object
) -> Job[Judged | RegistrationRefused]:
    """Evaluate images; return a refusal as a result, to list alternative positions."""
    try:
        return (yield from JUDGE.job(*images, **how))
    except RegistrationRefused as refused:
        return refused


class JudgePanel(PairPanel):
    """Panel that registers a layer to its SEM image, enhances it, and lists metrics."""

    help_place = "judge.md#in-napari"

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer, "Judge by SEM", "Judge")
        self.after_cancel = "no report was written"
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
        is_vendor_file = layer is not None and get_vendor(layer)
        name = DEFAULT_MODEL if is_vendor_file else MOSAIC_MODEL
        self.networks.value = [name] if name in self.networks.choices else []

    def job(self) -> PanelTask:
        """Create the job from the form."""
        images = self.read_images()
        make = partial(
            _judge_images,
            *images,
            find_free_store_path(f"{images[0].name} judged", ".html"),
            models=list(self.networks.value),
            **self.create_arguments(),
        )
        return PanelTask(make, self.show_outcome)

    def show_outcome(self, result: Judged | RegistrationRefused) -> None:
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
