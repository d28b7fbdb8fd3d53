"""Degrade: make a layer worse as an instrument would, to try models and methods."""

from typing import TYPE_CHECKING, Any

from napari_semsr.core import Job
from napari_semsr.jobs import DegradedFile, DegradeOptions, degrade_job
from napari_semsr.widgets.base import (
    Form,
    Numbers,
    OptionsForm,
    Outcome,
    Panel,
    Quantity,
    Row,
    Target,
    Work,
    add_opened,
    new_store_path,
    require_room,
    written,
)
from napari_semsr.widgets.layers import result_name

if TYPE_CHECKING:
    import napari.viewer

_ROWS = {
    "kind": Row(
        "Degradation",
        "Blur and haze, as published test sets have them; none leaves what is ticked "
        "below alone.",
        {
            "Gaussian blur": "blur",
            "blur and haze": "fog",
            "three blurs and haze": "hybrid",
            "none of these": "none",
        },
    ),
    "uniform_fog": Row(
        "Even haze", "Haze of one strength in place of a smooth random field."
    ),
    "airlight": Row(
        "Haze draws to",
        "Grey level from 0, black, to 255, white; automatic is the image's mean.",
    ),
    "stretch": Row(
        "Keep contrast", "Bring mean and contrast back to what they were before haze."
    ),
    "seed": Row("Seed", "Another number draws another blur, haze and noise."),
}
_EFFECTS = {
    "drift_px": Row(
        "Drift (px)", "How far the field moves in a scan, in a random direction."
    ),
    "line_jitter_px": Row(
        "Line jitter (px)", "Standard deviation of the jumps from row to row.", step=0.1
    ),
    "charging": Row(
        "Charging", "Strength of dark tails behind bright structures.", step=0.1
    ),
    "photons": Row(
        "Electrons or photons", "Of a white pixel, for Poisson noise; 0 for none."
    ),
    "read_noise": Row(
        "Read noise", "Standard deviation of Gaussian noise, of 255 grey levels."
    ),
}
_HAZY = ("fog", "hybrid")
_OF_HAZE = ("uniform_fog", "airlight", "stretch")
_UNITS = ("px", "nm")  # in which names of parameters end


class DegradePanel(Panel):
    """Degrades a layer."""

    help_place = "simulation.md#degraded-images"

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__(viewer, "Degrade", "Degrade")
        self.layer = self.new_layer_box("layer", "Layer", "A sharp grey image.")
        self.form = OptionsForm(DegradeOptions, _ROWS)
        self.effects = OptionsForm(DegradeOptions, _EFFECTS)
        self.add_group("Image", Form(self.layer))
        self.add_group("How", self.form)
        self.add_group("Scan and noise", self.effects)
        self.add_results("Result")
        self.form.on_change("kind", self._show_rows)
        self._show_rows(self.form.values()["kind"])
        self.take_input(self.layer)

    def _show_rows(self, kind: Any) -> None:
        for name in _OF_HAZE:
            self.form.show_row(name, kind in _HAZY)

    def job(self) -> Work:
        """Read the form."""
        micrograph = self.micrograph(self.layer.value)
        more = self.effects.values()
        if self.form.values()["kind"] not in _HAZY:
            more["airlight"] = None  # typed for haze before
        options: DegradeOptions = self.form.options(**more)
        require_room(micrograph.shape, 1)
        step = "degraded" if options.kind == "none" else options.kind
        name = result_name(self.viewer, micrograph.name, step)
        target = Target(new_store_path(name), temporary=True)

        def make() -> Job[Outcome]:
            job = degrade_job(micrograph, target.path, options=options)
            return written(job, target)

        return make, lambda outcome: self.show_outcome(outcome, micrograph.name, step)

    def show_outcome(self, outcome: Outcome, source: str, step: str) -> None:
        """Add the result as a layer, and write what was drawn."""
        name = result_name(self.viewer, source, step)
        add_opened(self.viewer, outcome.opened, name=name)
        self.show_result(_figures(outcome.made), f"Degraded {source}.")


def _figures(made: DegradedFile) -> Numbers:
    """Say what was drawn: numbers with their units, the rest in words."""
    rows: dict[str, Quantity | str] = {}
    for name, value in made.parameters.items():
        word, _, unit = name.rpartition("_")
        word, unit = (word, unit) if unit in _UNITS else (name, "")
        label = word.replace("_", " ").capitalize()
        number = isinstance(value, int | float) and not isinstance(value, bool)
        rows[label] = Quantity(value, unit) if number else str(value)
    return rows
