"""Judge by SEM: evaluate an image and network outputs against an SEM image."""

import shutil
from functools import partial
from pathlib import Path

from magicgui.widgets import Select
from napari.layers import Layer
from napari.utils.events import Event
from napari.viewer import Viewer

from napari_semsr.core import (
    Job,
    Micrograph,
    ShapeError,
    get_figures,
)
from napari_semsr.io import StoredTransform, replace_atomically
from napari_semsr.jobs import (
    DEFAULT_MODEL,
    JUDGE,
    MOSAIC_MODEL,
    Judged,
    JudgeOptions,
)
from napari_semsr.registration import RegistrationRefused
from napari_semsr.widgets.base import (
    Form,
    OptionsForm,
    Panel,
    PanelTask,
    WrappingRow,
    convert_names_to_panel_labels,
    create_button,
    find_free_store_path,
    show_file,
)
from napari_semsr.widgets.enhance import list_installed_models
from napari_semsr.widgets.layers import get_vendor
from napari_semsr.widgets.placement import TransformSelector
from napari_semsr.widgets.register.panel import (
    describe_refusal,
    find_image_pair,
)

_PAGES = {"Report (*.html)": ".html"}


def _judge_images(
    *images: Micrograph | Path, **how: object
) -> Job[Judged | RegistrationRefused]:
    """Evaluate images; return a refusal as a result, to list alternative positions."""
    try:
        return (yield from JUDGE.job(*images, **how))
    except RegistrationRefused as refused:
        return refused


class JudgePanel(Panel):
    """Panel that registers a layer to its SEM image, enhances it, and lists metrics."""

    reports = False
    help_place = "judge.md#in-napari"

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer, "Judge by SEM", "Judge")
        self.after_cancel = "no report was written"
        self.optical, self.sem = self.create_image_boxes(JUDGE)
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
        where = Form()
        self._map = TransformSelector(
            where,
            "Registration",
            "Transform from Optical to SEM. In Register to SEM, the button 'Judge by "
            "SEM' selects the registration result here.",
            images=("Optical", "SEM"),
            otherwise=("by the images", "search"),
            remedy="let the images be registered",
        )
        self.placed, self.transform = self._map.kind_box, self._map.transform
        self.form = OptionsForm(JudgeOptions)
        self.form.show_row("landmarks_only", visible=False)
        self.add_group("Images", Form(self.optical, self.sem, self.networks))
        self.add_group("Settings", where, self.form)
        self.report_button = create_button(
            "Open the report",
            self.open_report,
            "Open the report in the web browser.",
        )
        self.keep_button = create_button(
            "Save report…",
            self.save_report,
            "Save the report, and a .json file with all its numbers next to it.",
        )
        self.add_results(
            "Evaluation", WrappingRow(self.report_button, self.keep_button)
        )
        self.report: Path | None = None
        self._layers_offered: tuple[Layer | None, ...] = ()
        self.placed.changed.connect(self._update_form_rows)
        self.optical.changed.connect(self._propose_model)
        self._propose_layers()
        self._propose_model()
        self._update_form_rows()

    # -- which layers -------------------------------------------------------------

    def _on_layers_changed(self, event: Event | None = None) -> None:
        """Update the lists of layers, and propose newly opened layers."""
        super()._on_layers_changed(event)
        if not self.is_busy:
            self._propose_layers()

    def _propose_layers(self) -> None:
        """Propose a mosaic and an SEM image, unless the user has already chosen."""
        boxes = self.optical, self.sem
        if self._layers_offered and self._layers_offered != tuple(
            box.value for box in boxes
        ):
            return
        pair = find_image_pair(self.viewer, self.own_layers)
        if pair is None:  # without pixel sizes; a layer cannot be its own reference
            left = [item for item in self.optical.choices if item is not self.sem.value]
            if self.optical.value is not self.sem.value or not left:
                return
            pair = left[0], self.sem.value
        self.optical.value, self.sem.value = pair
        self._layers_offered = pair

    def _propose_model(self, _: object = None) -> None:
        """Select the network that best suits the layer."""
        layer = self.optical.value
        is_vendor_file = layer is not None and get_vendor(layer)
        name = DEFAULT_MODEL if is_vendor_file else MOSAIC_MODEL
        self.networks.value = [name] if name in self.networks.choices else []

    def _update_form_rows(self, _: object = None) -> None:
        for name in ("model", "search"):
            self.form.show_row(name, not self._map.has_transform)

    def take_registered(
        self, optical: Layer, sem: Layer, transform_file: StoredTransform
    ) -> None:
        """Select two registered layers and their transform for evaluation."""
        self.optical.value, self.sem.value = optical, sem
        self._layers_offered = (None, None)  # they were chosen
        self._map.select_registration(transform_file)

    # -- running --------------------------------------------------------------------

    def job(self) -> PanelTask:
        """Create the batch task from the form."""
        optical, sem = self.optical.value, self.sem.value
        images = self.read_layer(optical), self.read_layer(sem)
        if optical is sem:
            msg = (
                f"Layer {images[0].name!r} cannot be its own reference: open an SEM "
                "image of the same area, and choose it under SEM."
            )
            raise ShapeError(msg, code="same-image")
        transform, options = self._map.get_transform(), self.form.create_options()
        if transform is not None:
            options = options.replace(model="affine", search="near")  # not used
        labels = self.get_labels()  # read now: the job runs in a thread
        make = partial(
            _judge_images,
            *images,
            find_free_store_path(f"{images[0].name} judged", ".html"),
            translate=partial(convert_names_to_panel_labels, read=lambda: labels),
            models=list(self.networks.value),
            options=options,
            transform=transform,
        )
        return PanelTask(make, self.show_outcome)

    def translate(self, text: str) -> str:
        """Rephrase messages for this panel, which has no landmarks of its own."""
        place = "as landmarks in Register to SEM"
        return super().translate(text).replace("as landmarks", place)

    def show_outcome(self, result: Judged | RegistrationRefused) -> None:
        """Show the main results of the report, or the reason for a refusal."""
        has_result = not isinstance(result, RegistrationRefused)
        for button in (self.report_button, self.keep_button):
            button.setEnabled(has_result)
        if isinstance(result, RegistrationRefused):
            self.show_result(describe_refusal(result), str(result))
            raise result
        self.report = Path(result.output)
        self.show_result(
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

    # -- the report -------------------------------------------------------------------

    def open_report(self) -> None:
        """Open the report in the web browser."""
        if self.report is not None:
            show_file(self.report)

    def save_report(self) -> None:
        """Ask for a file name, and save the report and its numbers."""
        report = self.report
        if report is None:
            return

        def keep(path: Path) -> None:
            for suffix in (".html", ".json"):
                with replace_atomically(path.with_suffix(suffix)) as place:
                    shutil.copyfile(report.with_suffix(suffix), place)

        sentence = "Report saved as {}, with its numbers next to it."
        self.save_file("Save report", report.stem, _PAGES, keep, sentence)
