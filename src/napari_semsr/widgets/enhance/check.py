"""Check model: whether a model shows discs that are there, and none that are not."""

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_semsr.core import Figure, OptionError, figures_of
from napari_semsr.jobs import MODELS_CHECK, CheckOptions, DiscRecord, ModelCheck
from napari_semsr.widgets.base import (
    Form,
    OptionsForm,
    Panel,
    Work,
    preference,
)
from napari_semsr.widgets.enhance.models import NEWS, ModelChooser

if TYPE_CHECKING:
    import napari.viewer


class CheckPanel(Panel):
    """Checks a model on drawn samples, or on a clear layer of the user's."""

    help_place = "models.md#does-it-show-what-is-there"

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__(viewer, "Check model", "Check")
        self.model = ModelChooser(viewer)
        self.image = self.new_layer_box(
            "image",
            "On",
            "A clear grey image, into which discs are put before it is degraded; "
            "without one samples are drawn.",
            none="drawn samples",
        )
        self.form = OptionsForm(CheckOptions)
        self.form.set_values(device=preference("computing", "device"))
        self.add_group("Model", self.model)
        self.add_group("Discs", Form(self.image), self.form)
        self.add_results("Found")

    def job(self) -> Work:
        """Read the form."""
        model, layer = self.model.value, self.image.value
        if model is None:
            msg = "A model must be chosen, but none is installed; add a model file."
            raise OptionError(msg)
        images = [] if layer is None else [self.micrograph(layer)]
        options = self.form.options()
        return (
            lambda: MODELS_CHECK.job(model, images=images, options=options),
            self.show_outcome,
        )

    def show_outcome(self, made: ModelCheck) -> None:
        """Write the shares, and let the cards show them."""
        if made.written:
            NEWS.changed.emit()
        record = DiscRecord(made.to_card())
        found, figures = record.summary(), figures_of(made)
        said = f"Discs that {made.model} shows rightly: {found}."
        if found:
            name, enhanced, degraded = record.worst()
            beside = f"(its input {100 * degraded:.0f} %; at worst: {name})"
            worst = Figure(100 * enhanced, "% of the discs", ".0f", beside)
            told = replace(worst, verdict=record.verdict().rstrip("."), large=True)
            figures = {"Shown rightly": told, **figures}
        else:
            said = f"Of the discs of {made.model} none was wide enough to be judged."
        more = "<p>In brackets: in the degraded image, which the model was given.</p>"
        self.show_result(figures, said, curves=made.tables(), more=more)
