"""Judge by SEM: evaluate an image, and results of networks, against an SEM image."""

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
    figures_of,
)
from napari_semsr.io import StoredTransform, replacing
from napari_semsr.jobs import (
    DEFAULT_MODEL,
    JUDGE,
    MOSAIC_MODEL,
    Judged,
    JudgeOptions,
)
from napari_semsr.registration import RegistrationRefused
from napari_semsr.widgets.base import (
    FoldingRow,
    Form,
    OptionsForm,
    Panel,
    Work,
    in_panel_words,
    new_store_path,
    push_button,
    show_file,
)
from napari_semsr.widgets.enhance import listed_models
from napari_semsr.widgets.layers import vendor_of
from napari_semsr.widgets.placement import PlacementRows
from napari_semsr.widgets.register.panel import (
    find_pair,
    refusal_numbers,
)

_PAGES = {"Report (*.html)": ".html"}


def _judge(
    *images: Micrograph | Path, **how: object
) -> Job[Judged | RegistrationRefused]:
    """Evaluate; return a refusal as a result, so that other positions can be listed."""
    try:
        return (yield from JUDGE.job(*images, **how))
    except RegistrationRefused as refused:
        return refused


class JudgePanel(Panel):
    """Registers a layer to its SEM image, enhances it, and reports all figures."""

    reports = False
    help_place = "judge.md#in-napari"

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer, "Judge by SEM", "Judge")
        self.after_cancel = "no report was written"
        self.optical, self.sem = self.boxes_of(JUDGE)
        self.networks = Select(
            name="networks",
            label="Networks",
            tooltip="Models that enhance the optical image; may be empty. The image "
            "itself and the best linear filter are always evaluated.",
            choices=lambda _: listed_models(),
        )
        self.networks.native.setMaximumHeight(110)
        where = Form()
        self._map = PlacementRows(
            where,
            "Registration",
            "Position of Optical on SEM. The button 'Judge by SEM' in Register to "
            "SEM selects its result here.",
            images=("Optical", "SEM"),
            otherwise=("by the images", "search"),
            remedy="let the images be registered",
        )
        self.placed, self.transform = self._map.placed, self._map.transform
        self.form = OptionsForm(JudgeOptions)
        self.form.show_row("landmarks_only", visible=False)
        self.add_group("Images", Form(self.optical, self.sem, self.networks))
        self.add_group("Settings", where, self.form)
        self.report_button = push_button(
            "Open the report",
            self.open_report,
            "Show the page in the web browser.",
        )
        self.keep_button = push_button(
            "Save report…",
            self.save_report,
            "Save the page, and a .json with all numbers next to it.",
        )
        self.add_results("Evaluation", FoldingRow(self.report_button, self.keep_button))
        self.report: Path | None = None
        self._layers_offered: tuple[Layer | None, ...] = ()
        self.placed.changed.connect(self._show_rows)
        self.optical.changed.connect(self._propose_model)
        self._propose()
        self._propose_model()
        self._show_rows()

    # -- which layers -------------------------------------------------------------

    def _on_layers(self, event: Event | None = None) -> None:
        """Also propose newly opened layers."""
        super()._on_layers(event)
        if not self.busy:
            self._propose()

    def _propose(self) -> None:
        """Propose a mosaic and an SEM image, unless the user has chosen."""
        boxes = self.optical, self.sem
        if self._layers_offered and self._layers_offered != tuple(
            box.value for box in boxes
        ):
            return
        pair = find_pair(self.viewer, self.own_layers)
        if pair is None:  # without pixel sizes; a layer cannot be its own reference
            left = [item for item in self.optical.choices if item is not self.sem.value]
            if self.optical.value is not self.sem.value or not left:
                return
            pair = left[0], self.sem.value
        self.optical.value, self.sem.value = pair
        self._layers_offered = pair

    def _propose_model(self, _: object = None) -> None:
        """Select the network that suits the layer."""
        layer = self.optical.value
        is_vendor_file = layer is not None and vendor_of(layer)
        name = DEFAULT_MODEL if is_vendor_file else MOSAIC_MODEL
        self.networks.value = [name] if name in self.networks.choices else []

    def _show_rows(self, _: object = None) -> None:
        for name in ("model", "search"):
            self.form.show_row(name, not self._map.has_map)

    def take_registered(
        self, optical: Layer, sem: Layer, transform_file: StoredTransform
    ) -> None:
        """Evaluate two registered layers."""
        self.optical.value, self.sem.value = optical, sem
        self._layers_offered = (None, None)  # they were chosen
        self._map.take(transform_file)

    # -- running --------------------------------------------------------------------

    def job(self) -> Work:
        """Read the form."""
        optical, sem = self.optical.value, self.sem.value
        images = self.micrograph(optical), self.micrograph(sem)
        if optical is sem:
            msg = (
                f"Layer {images[0].name!r} cannot be its own reference: open the SEM "
                "image of its area, and choose it under SEM."
            )
            raise ShapeError(msg, code="same-image")
        transform, options = self._map.map(), self.form.options()
        if transform is not None:
            options = options.replace(model="affine", search="near")  # not used
        labels = self.labels()  # read now: the job runs in a thread
        make = partial(
            _judge,
            *images,
            new_store_path(f"{images[0].name} judged", ".html"),
            translate=partial(in_panel_words, read=lambda: labels),
            models=list(self.networks.value),
            options=options,
            transform=transform,
        )
        return Work(make, self.show_outcome)

    def translate(self, text: str) -> str:
        """Rephrase messages for this panel; landmarks are not set here."""
        place = "as landmarks in Register to SEM"
        return super().translate(text).replace("as landmarks", place)

    def show_outcome(self, result: Judged | RegistrationRefused) -> None:
        """Show the main results of the page."""
        has_result = not isinstance(result, RegistrationRefused)
        for button in (self.report_button, self.keep_button):
            button.setEnabled(has_result)
        if isinstance(result, RegistrationRefused):
            self.show_result(refusal_numbers(result), str(result))
            raise result
        self.report = Path(result.output)
        self.show_result(
            figures_of(result),
            f"Evaluated {result.optical} against {result.sem}. The report is deleted "
            "when napari is closed; keep it with Save report….",
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
        """Show the page."""
        if self.report is not None:
            show_file(self.report)

    def save_report(self) -> None:
        """Ask for a file name, and save page and numbers."""
        report = self.report
        if report is None:
            return

        def keep(path: Path) -> None:
            for suffix in (".html", ".json"):
                with replacing(path.with_suffix(suffix)) as place:
                    shutil.copyfile(report.with_suffix(suffix), place)

        sentence = "The report is saved as {}, its numbers next to it."
        self.save_file("Save report", report.stem, _PAGES, keep, sentence)
