"""Base of the panels that compare an optical and an SEM image, and write a report."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from magicgui.widgets import ComboBox
from magicgui.widgets.bases import CategoricalWidget
from napari.layers import Image, Layer
from napari.utils.events import Event

from napari_semsr.core import Micrograph, ShapeError
from napari_semsr.io import StoredTransform, replace_atomically
from napari_semsr.jobs import RegisterOptions
from napari_semsr.widgets.base import (
    Form,
    OptionsForm,
    VerbPanel,
    WrappingRow,
    convert_names_to_panel_labels,
    create_button,
    show_file,
)
from napari_semsr.widgets.placement import TransformSelector
from napari_semsr.widgets.register.panel import find_image_pair

_PAGES = {"Report (*.html)": ".html"}


class PairPanel(VerbPanel):
    """Panel for an optical image and an SEM image, with a transform and a report."""

    landmark_advice = "as landmarks in Register to SEM"  # there are none here

    def add_inputs(
        self,
        optical: ComboBox,
        sem: ComboBox,
        more: CategoricalWidget[Any],
        options: type[RegisterOptions],
    ) -> None:
        """Add the layer lists, the selection of a transform, and the options."""
        self._pair = optical, sem
        self.images = Form(optical, sem, more)
        where = Form()
        self.map = TransformSelector(
            where,
            "Registration",
            f"Transform from {optical.label} to {sem.label}. In Register to SEM, the "
            f"button '{self.title}' selects the registration result here, including "
            "landmarks.",
            images=(optical.label, sem.label),
            otherwise=("by the images", "search"),
            remedy="let the images be registered",
        )
        self.placed, self.transform = self.map.kind_box, self.map.transform
        self.form = OptionsForm(options)
        self.form.show_row("landmarks_only", visible=False)
        self.add_group("Images", self.images)
        self.add_group("Settings", where, self.form)
        self.placed.changed.connect(self._update_form_rows)
        self._layers_offered: tuple[Layer | None, ...] = ()
        self._propose_layers()
        self._update_form_rows()

    def add_report(self, title: str) -> None:
        """Add the results, with buttons for the report."""
        self.report: Path | None = None
        self.report_button = create_button(
            "Open the report", self.open_report, "Open the report in the web browser."
        )
        self.keep_button = create_button(
            "Save report…",
            self.save_report,
            "Save the report, and a .json file with all its numbers next to it.",
        )
        self.report_row = WrappingRow(self.report_button, self.keep_button)
        self.add_results(title, self.report_row)

    # -- which layers -------------------------------------------------------------

    def _on_layers_changed(self, event: Event | None = None) -> None:
        """Update the lists of layers, and propose newly opened layers."""
        super()._on_layers_changed(event)
        if not self.is_busy:
            self._propose_layers()
        self._update_form_rows()

    def _propose_layers(self) -> None:
        """Propose a mosaic and an SEM image, unless the user has already chosen."""
        optical, sem = self._pair
        layers = tuple(box.value for box in self._pair)
        if self._layers_offered and self._layers_offered != layers:
            return
        pair = find_image_pair(self.viewer, self.result_layers.own)
        if pair is None:  # without pixel sizes; a layer cannot be its own reference
            left = [item for item in optical.choices if item is not sem.value]
            if optical.value is not sem.value or not left:
                return
            pair = left[0], sem.value
        optical.value, sem.value = self._layers_offered = pair

    def _update_form_rows(self, _: object = None) -> None:
        for name in ("model", "search"):
            self.form.show_row(name, not self.map.has_transform)

    def take_registered(
        self, optical: Layer, sem: Layer, transform_file: StoredTransform
    ) -> None:
        """Select two registered layers and their transform."""
        for box, layer in zip(self._pair, (optical, sem), strict=True):
            box.value = layer
        self._layers_offered = (None, None)  # chosen by the user
        self.map.select_registration(transform_file)

    # -- running --------------------------------------------------------------------

    def read_pair(self, *more: Image) -> list[Micrograph]:
        """Read the optical image, the SEM image and `more` SEM images."""
        optical, sem = (box.value for box in self._pair)
        # the rotation of a layer on the screen is not used besides a transform
        has_transform = self.map.get_transform() is not None
        first = self.input_layers.read(optical, is_unturned=has_transform)
        images = [first, *map(self.input_layers.read, (sem, *more))]
        if optical in (sem, *more):
            label = self._pair[1].label
            msg = (
                f"Layer {first.name!r} is chosen as both images; open an SEM image of "
                f"the same area, and choose it under {label}."
            )
            raise ShapeError(msg, code="same-image")
        return images

    def read_settings(self) -> tuple[RegisterOptions, dict[str, Any]]:
        """Return the options, and the transform and wording of messages."""
        transform, options = self.map.get_transform(), self.form.create_options()
        if transform is not None:
            options = options.replace(model="affine", search="near")  # not used
        labels = self.get_labels()  # read now: the job runs in a thread
        translate = partial(convert_names_to_panel_labels, read=lambda: labels)
        return options, {"transform": transform, "translate": translate}

    def translate(self, text: str) -> str:
        """Rephrase messages for this panel, which has no landmarks of its own."""
        return super().translate(text).replace("as landmarks", self.landmark_advice)

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
        self.sharing.save_file("Save report", report.stem, _PAGES, keep, sentence)
