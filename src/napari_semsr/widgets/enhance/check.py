"""Check model: whether a model shows discs that are there, and none that are not."""

from typing import TYPE_CHECKING

from magicgui.widgets import CheckBox

from napari_semsr.core import OptionError
from napari_semsr.jobs import CheckOptions, DiscRecord, ModelCheck, check_model_job
from napari_semsr.widgets.base import (
    Columns,
    Form,
    Numbers,
    OptionsForm,
    Panel,
    Quantity,
    Row,
    Work,
    preference,
)
from napari_semsr.widgets.enhance.models import NEWS, ModelChooser

if TYPE_CHECKING:
    import napari.viewer

_ROWS = {
    "task": Row(
        "Degraded as",
        "What degrades the samples before the model is run; automatic takes what the "
        "model was trained on.",
        {
            "automatic": "auto",
            "electron images": "images",
            "superlens images": "superlens",
            "coarse scan of gold": "gold",
        },
    ),
    "discs": Row("Discs", "So many are put in, and as many taken out."),
    "size_px": Row(
        "Side (px)",
        "Of a sample, in pixels of the result; of a larger layer the middle.",
    ),
    "seed": Row("Seed", "Another number puts the discs elsewhere."),
    "device": Row(
        "Device",
        "Where the model runs; automatic takes a GPU.",
        {"automatic": "auto", "CPU": "cpu", "GPU (CUDA)": "cuda"},
    ),
}


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
        self.form = OptionsForm(CheckOptions, _ROWS)
        self.form.set_values(device=preference("computing", "device"))
        self.keep = CheckBox(
            name="keep",
            text="Write it onto the model's card",
            tooltip="The weights stay as they are; the digest of the file changes.",
        )
        self.add_group("Model", self.model)
        self.add_group("Discs", Form(self.image), self.form, Form(self.keep))
        self.add_results("Found")

    def job(self) -> Work:
        """Read the form."""
        model, layer = self.model.value, self.image.value
        if model is None:
            msg = "A model must be chosen, but none is on the shelf; add a model file."
            raise OptionError(msg)
        images = [] if layer is None else [self.micrograph(layer)]
        options, keep = self.form.options(), bool(self.keep.value)
        return (
            lambda: check_model_job(model, images, options=options, write=keep),
            self.show_outcome,
        )

    def show_outcome(self, made: ModelCheck) -> None:
        """Write the shares, and let the cards show them."""
        if made.written:
            NEWS.changed.emit()
        record = DiscRecord(made.to_card())
        found = record.summary() or "none was wide enough to be judged"
        said = f"Discs that {made.model} shows rightly: {found}."
        more = "<p>In brackets: in the degraded image, which the model was given.</p>"
        curves = {"discs": _table(record)}
        self.show_result(_figures(made), said, curves=curves, more=more)


def _figures(made: ModelCheck) -> Numbers:
    """Shares of discs that are right, at radii that the blur resolves."""
    rows: dict[str, Quantity | str] = {}
    for name, found in made.to_card()["conditions"].items():
        for change in ("inserted", "erased"):
            shares = found["resolved"][change]
            if shares["discs"]:
                note = f"({100 * shares['degraded']:.0f} %) of {shares['discs']}"
                share = Quantity(100 * shares["enhanced"], "%", ".0f", note)
                rows[f"{name}, {change}"] = share
    return rows


def _table(record: DiscRecord) -> Columns:
    """All radii, as the command tells them."""
    head, *rows = record.rows()
    return dict(zip(head, zip(*rows, strict=True), strict=True))
