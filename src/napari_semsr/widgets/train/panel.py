"""Train: train or fine-tune a model in a separate process, and watch its progress."""

import csv
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from magicgui.types import FileDialogMode
from magicgui.widgets import CheckBox, ComboBox, FileEdit, FloatSpinBox
from napari.layers import Image, Layer
from napari.viewer import Viewer
from numpy.typing import NDArray
from psygnal import Signal
from qtpy.QtWidgets import QFileDialog, QWidget

from napari_semsr import core, jobs
from napari_semsr.io import StoredTransform, read, read_text
from napari_semsr.models import MOSAIC_MODEL
from napari_semsr.widgets import base, layers
from napari_semsr.widgets.enhance import NEWS, OWN_IMAGE_TIME, list_installed_models
from napari_semsr.widgets.placement import TransformSelector

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOSS, _BEST, _GAIN = base.COLOURS[:3]
_SMOOTH_SHARE = 25  # share of the curve over which it is smoothed; chosen


def _draw_loss(
    axes: "Axes", losses: NDArray[np.float64], curve: dict[str, np.ndarray]
) -> None:
    """Plot all reported losses in a pale colour, with their running mean.

    In a resumed run, draw the losses of the validations before the first of them.
    """
    axes.set_ylabel("Loss")
    first_step = np.inf
    if len(losses):
        step, loss = losses.T
        first_step = step[0]
        axes.plot(step, loss, color=_LOSS, lw=0.8, alpha=0.35)
        width = max(1, len(loss) // _SMOOTH_SHARE)
        mean = np.convolve(loss, np.ones(width) / width, mode="valid")
        axes.plot(step[width - 1 :], mean, color=_LOSS, lw=1.5)
    if "loss" in curve:
        early = curve["step"] < first_step
        axes.plot(curve["step"][early], curve["loss"][early], "o", color=_LOSS, ms=3.5)


_GAINS = {  # labels by column of the curve
    "hidden_db": ("Hidden pixels", "neighbours' mean"),
    "gain_db": ("Held-out gain", "degraded"),
    "expected_gain_db": ("Expected gain", "degraded"),
}


def _draw_gain(
    axes: "Axes", curve: dict[str, np.ndarray], best: dict[str, float]
) -> None:
    """Plot the gain at each validation, and mark the gain of the best model."""
    keys = [key for key in _GAINS if np.isfinite(curve.get(key, np.zeros(0))).any()]
    key = keys[0] if keys else "gain_db"
    label, base = _GAINS[key]
    axes.set_ylabel(f"{label} ({core.DB})")
    if not keys:
        title = "no ground truth" if curve else "not yet evaluated"
        axes.text(0.5, 0.5, title, ha="center", color=_BEST, transform=axes.transAxes)
        axes.set_yticks([])
        return
    axes.plot(curve["step"], curve[key], "o-", color=_GAIN, lw=1.5, ms=3.5)
    if key in best:
        axes.plot(best["step"], best[key], "o", color=_BEST, ms=7, label="best")
    axes.axhline(0, color="#8d99ae", lw=1, ls="--", label=base)
    axes.legend(loc="lower right")


_CURVE, _PREVIEW, _BEST_FIGURES = "curve.csv", "preview.tif", "best.yaml"
_MAX_POINTS = 4000  # points of a drawn curve; chosen


def read_training_curve(path: Path) -> dict[str, np.ndarray]:
    """Read the training curve of a run, as far as it has been written."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.DictReader(stream) if row.get("step")]
    except OSError:
        return {}
    rows_by_step = {float(row["step"]): row for row in rows}
    rows_in_order = [rows_by_step[step] for step in sorted(rows_by_step)]
    names = [name for name in (rows_in_order[0] if rows_in_order else {}) if name]
    return {
        name: np.array([_number(row[name]) for row in rows_in_order]) for name in names
    }


def _number(text: str | None) -> float:
    """Convert a table cell to a number; truncated and empty cells become NaN."""
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def read_best_metrics(path: Path) -> dict[str, float]:
    """Read the step and metrics of a run's best model, if there is one."""
    try:
        best = {name: float(it) for name, it in yaml.safe_load(read_text(path)).items()}
    except (
        OSError,
        core.SemsrError,
        yaml.YAMLError,
        AttributeError,
        TypeError,
        ValueError,
    ):  # being written; the next look reads it
        return {}
    return best if "step" in best else {}


class TrainView(QWidget):
    """Widget with curves and metrics of a run, and a preview layer in the viewer."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self.plot: Any = None
        self.layer: Image | None = None
        self.figures = base.RichTextLabel()
        self.look_button = base.create_button(
            "Show the preview",
            self.look,
            "Fill the view with a held-out patch: degraded, restored, ground truth.",
        )
        self.look_button.setVisible(False)
        self._column = base.stack_widgets(self, self.figures, self.look_button)
        self._run: Path | None = None
        self._losses: list[tuple[float, float]] = []
        self._stamps_seen: dict[str, int] = {}
        self._left: float | None = None
        self._dirty = False
        self.comparison: Any = None  # of the finished run, as in `Trained`

    @property
    def curve(self) -> dict[str, np.ndarray]:
        """Columns of the run's training curve so far."""
        return {} if self._run is None else read_training_curve(self._run / _CURVE)

    @property
    def best(self) -> dict[str, float]:
        """Step and metrics of the run's best model so far."""
        return {} if self._run is None else read_best_metrics(self._run / _BEST_FIGURES)

    def watch(self, run_dir: Path, *, is_resumed: bool = False) -> None:
        """Start watching a run, or continue watching the previous one."""
        self._dirty = True
        if is_resumed and run_dir == self._run:
            return
        self._run = run_dir
        self.comparison = None
        self._losses.clear()
        self._stamps_seen.clear()
        self.layer = None

    def add_step(self, step: jobs.TrainStep) -> None:
        """Record a training step."""
        self._left = step.seconds_left
        late = self._losses and step.done <= self._losses[-1][0]  # events may be nested
        if step.loss is None or late:
            return
        if len(self._losses) >= _MAX_POINTS:
            del self._losses[1::2]
        self._losses.append((float(step.done), step.loss))
        self._dirty = True

    def settle(self) -> None:
        """Show the final state of a finished run."""
        self._left, self._dirty = None, True
        self.poll()

    def poll(self) -> None:
        """Show new files and new steps of the run."""
        if self._run is None:
            return
        if self._has_file_changed(_PREVIEW):
            self._show_preview(self._run / _PREVIEW)
        if any(
            [
                self._has_file_changed(_CURVE),
                self._has_file_changed(_BEST_FIGURES),
                self._dirty,
            ]
        ):
            self._dirty = False
            self._draw_curves()

    def _has_file_changed(self, name: str) -> bool:
        """Return whether a file of the run has changed since the last check."""
        assert self._run is not None  # noqa: S101 - poll has looked
        try:
            stamp = (self._run / name).stat().st_mtime_ns
        except OSError:  # not written yet
            return False
        has_changed = self._stamps_seen.get(name) != stamp
        self._stamps_seen[name] = stamp
        return has_changed

    def _draw_curves(self) -> None:
        """Show the metrics, and draw the curves once matplotlib is imported."""
        curve = self.curve
        self.figures.setText(base.format_value_table(self._create_result_rows()))
        if not base.is_plotting_imported():  # the job imports it in its thread
            self._dirty = True
            return
        from napari_semsr.widgets.base import PlotCanvas

        if self.plot is None:
            self.plot = PlotCanvas(self.viewer, rows=2, height=170)
            self._column.insertWidget(0, self.plot)
        self.plot.clear()
        above, below = self.plot.axes
        _draw_loss(above, np.array(self._losses), curve)
        _draw_gain(below, curve, self.best)
        axes_in_use = [axes for axes in (above, below) if axes.has_data()]
        last = max([axes.get_xlim()[1] for axes in axes_in_use] or [1.0])
        for axes in (above, below):
            axes.set_xlim(0, last)
            axes.grid(visible=True, alpha=0.15)
        below.set_xlabel("Step")
        self.plot.refresh()

    def findings(self, title: str) -> base.Findings:
        """Return the metrics and curves of the run so far."""
        curve = self.curve
        step, loss = np.array(self._losses).reshape(-1, 2).T
        curves = {"training": {"step": step, "loss": loss}} if len(step) else {}
        if curve:
            curves["held out"] = curve
        numbers = self._create_result_rows() if self._run is not None else {}
        # a plot without data is hidden
        plot = None if self.plot is None or self.plot.isHidden() else self.plot
        return base.Findings(title, (str(self._run),), numbers, curves, plot)

    def _create_result_rows(self) -> dict[str, core.Figure | str]:
        """Return rows with the best validation and the remaining time."""
        rows: dict[str, core.Figure | str] = {}
        best = self.best
        figures = {name: best[name] for name in jobs.HELD_OUT if name in best}
        if figures:
            rows["Best so far at step"] = core.Figure(best["step"], form=".0f")
            rows |= jobs.create_validation_figures(figures)
        rows |= jobs.create_comparison_figures(self.comparison)
        if self._left is not None:
            rows["Time left"] = core.format_time(self._left)
        rows["Folder of the run"] = str(self._run)
        return rows

    # -- the preview -----------------------------------------------------------

    def _show_preview(self, path: Path) -> None:
        """Add or update the preview layer, unless the user removed it."""
        try:
            picture = read(path)
        except core.SemsrError:  # it is being replaced; the next check finds it
            self._stamps_seen.pop(_PREVIEW, None)
            return
        data = np.asarray(picture.array(), dtype=np.float32)
        if self.layer is None:
            title = self._create_preview_title()
            picture = picture.replace(data=data)
            self.layer = layers.add_image_beside(
                self.viewer, picture, title, helper=True
            )
            self.look_button.setVisible(True)
            layers.show_scale_bar(self.viewer)
            self.viewer.reset_view()
        elif self.layer in self.viewer.layers:
            self.layer.data = data
            self.layer.name = self._create_preview_title()

    def _create_preview_title(self) -> str:
        """Return the name of the preview layer, including the step."""
        curve = self.curve
        parts = ["low", "output"] + ["truth"] * ("gain_db" in curve)
        steps = curve.get("step", np.zeros(0))
        at = f" ({steps[-1]:.0f})" if steps.size else ""
        return " | ".join(parts) + at

    def look(self) -> None:
        """Fill the view with the preview layer."""
        if self.layer in self.viewer.layers:
            layers.fill_view(self.viewer, self.layer)


_POLL_MS = 700  # ms between two checks of a run's folder; chosen
_LONGEST = 10_000_000  # largest number of steps; chosen
_STATE = "last.ckpt"
_RECIPE = "recipe.yaml"
_STORE, _LAYERS, _OWN = "store", "layers", "recipe"
_ALONE, _SCANS = "alone", "scans"
_SOURCES = [
    ("a blurred and a sharp layer", _LAYERS),
    ("one noisy layer alone", _ALONE),
    ("two scans of one area", _SCANS),
    ("a store of pairs", _STORE),
    ("the data of the recipe", _OWN),
]
_FILE = "a YAML file …"
_AS_IT_SAYS, _FRESH = "<recipe>", "<fresh>"  # not names of models
_FIRST = "fine-tune"
_BY_ITSELF = "own-image"
_LAYER_LABELS = {  # labels of the two layer lists, by the source of pairs
    _LAYERS: (
        ("Image to improve", "The image to improve."),
        (
            "Reference image",
            "The target: an image of the same field, on the same grid or registered.",
        ),
    ),
    _ALONE: (("Image", "Noisy image for which the model is trained."),) * 2,
    _SCANS: (
        ("Image", "Noisy image for which the model is trained."),
        (
            "Second scan",
            (
                "A second scan of the same area with the same microscope; it is "
                "registered first."
            ),
        ),
    ),
}
_LARGEST_PATCH = 2048  # largest value; chosen


def _create_count_box(name: str, *, most: int, step: int) -> FloatSpinBox:
    """Create a number box whose default is given by the recipe."""
    box: FloatSpinBox = base.create_option_widget(jobs.TrainOptions, name)
    box.max, box.step = most, step
    box.native.setSpecialValueText("as in the recipe")
    return box


class PairsForm(base.Form):
    """Form for the training data: one layer, two layers, or a store of pairs."""

    def __init__(self, layer_box: Callable[..., ComboBox]) -> None:
        super().__init__()
        self.source = ComboBox(
            name="source",
            label="Learn from",
            tooltip="Source of training pairs.",
            choices=_SOURCES,
        )
        low, high = _LAYER_LABELS[_LAYERS]
        self.low = layer_box("low", *low)
        self.high = layer_box("high", *high, none=base.NO_CHOICE)
        for control in (self.source, self.low, self.high):
            self.add_row(control)
        self.lies = TransformSelector(
            self,
            "Alignment",
            "Transform from Low to High. Images from two instruments must first be "
            "registered in Register to SEM; its button 'Train on these' selects the "
            "result here.",
            images=("Low", "High"),
            otherwise=("on one grid", "grid"),
            remedy="choose 'on one grid'",
        )
        self.placed, self.transform = self.lies.kind_box, self.lies.transform
        self.store = FileEdit(
            name="store",
            label="Store",
            tooltip="A .zarr store of previously cut training pairs (see the manual).",
            mode=FileDialogMode.EXISTING_DIRECTORY,
            nullable=True,
        )
        self.patch = _create_count_box("patch", most=_LARGEST_PATCH, step=16)
        self.add_row(self.store)
        self.source.changed.connect(self._update_form_rows)
        self._update_form_rows()

    def _update_form_rows(self, _: object = None) -> None:
        for name, words in zip(
            ("low", "high"), _LAYER_LABELS.get(self.source.value, ()), strict=False
        ):
            self.relabel(name, *words)
        self.show_row("low", self.cuts or self.own)
        self.show_row("high", self.cuts or self.source.value == _SCANS)
        self.lies.update_rows(is_asked=self.cuts)
        self.show_row("store", self.source.value == _STORE)

    def take(self, low: Layer, high: Layer, transform_file: StoredTransform) -> None:
        """Select two registered layers and their transform for training."""
        self.source.value = _LAYERS
        self.low.value, self.high.value = low, high
        self.lies.select_registration(transform_file)

    @property
    def cuts(self) -> bool:
        """Whether pairs are to be cut from layers."""
        return bool(self.source.value == _LAYERS)

    @property
    def own(self) -> bool:
        """Whether to train on a noisy image, alone or with a second scan."""
        return self.source.value in (_ALONE, _SCANS)

    def learn_by(self, kind: str) -> None:
        """Propose a source of pairs that suits the kind of recipe."""
        if kind == "blind-spot" and not self.own:
            self.source.value = _ALONE
        elif kind != "blind-spot" and self.source.value == _ALONE:
            self.source.value = _LAYERS

    def store_path(self) -> str | None:
        """Return the path of the chosen store of pairs."""
        if self.source.value == _OWN:
            return None
        path_typed = base.get_entered_path(self.store)
        if path_typed is None:
            msg = "Choose a .zarr store of pairs, or train on two layers."
            raise core.OptionError(msg, code="missing-value")
        return str(path_typed)


class RecipeForm(base.Form):
    """Form for the recipe, with its description and the initial weights."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.facts: jobs.RecipeInfo | None = None
        self.fault = ""
        self._start_proposed = _AS_IT_SAYS  # proposed, until the user chooses
        self.box = ComboBox(
            name="recipe",
            label="Recipe",
            tooltip="Training recipe.",
            choices=[*jobs.list_bundled_recipes(), _FILE],
            value=_FIRST,
        )
        self.file = FileEdit(
            name="file",
            label="File",
            tooltip="Your own recipe file.",
            mode=FileDialogMode.EXISTING_FILE,
            filter="*.yaml *.yml",
        )
        self.start = ComboBox(
            name="start",
            label="Start from",
            tooltip="Fine-tune a model, or start with random weights.",
            choices=[],
        )
        self.text = base.RichTextLabel()
        for row in (self.box, self.file, self.text, self.start):
            self.add_row(row)
        self.box.changed.connect(lambda _: self.refresh())
        self.file.changed.connect(lambda _: self.refresh())
        NEWS.changed.connect(self._refresh_model_list)
        self.refresh()

    @property
    def value(self) -> str:
        """Name or path of the selected recipe."""
        return str(self.file.value if self.box.value == _FILE else self.box.value)

    def _refresh_model_list(self) -> None:
        """Update the list of models after one was added."""
        if base.is_alive(self):
            self._list_initial_models(self.start.value)

    def _list_initial_models(self, start_chosen: str) -> None:
        """Fill the list of initial models in order, keeping the choice."""
        own = self.facts.start_from if self.facts else None
        rows = [("random weights, as in the recipe", _AS_IT_SAYS)]
        if own is not None:
            first = (f"{Path(own).stem} (recipe)", _AS_IT_SAYS)
            rows = [first, ("fresh weights", _FRESH)]
        self.start.choices = []
        self.start.choices = [*rows, *list_installed_models()]
        self.start.value = self._start_proposed = start_chosen

    def refresh(self) -> None:
        """Read the selected recipe, and show its description."""
        self.show_row("file", self.box.value == _FILE)
        self.facts, self.fault = None, ""
        if self.box.value != _FILE or Path(self.value).is_file():
            try:
                self.facts = jobs.read_recipe_info(self.value)
            except core.SemsrError as error:
                self.fault = core.Message(str(error), core.get_error_code(error))
        else:
            fault = "Choose a recipe file (YAML)."
            self.fault = core.Message(fault, "missing-value")
        text = self.fault
        if self.facts is not None:
            own = self.facts.architecture == "same"
            network = "the model's architecture" if own else self.facts.architecture
            text = (
                f"<p>{self.facts.description or 'No description.'}</p>"
                f"<p>{self.facts.kind}, {network}, {self.facts.steps} steps, patches "
                f"of {self.facts.patch_px} px</p>"
            )
        self.text.setText(text)
        self._list_initial_models(_AS_IT_SAYS)
        self.changed.emit()

    def require_facts(self) -> jobs.RecipeInfo:
        """Return the details of the selected recipe, or raise an error if invalid."""
        if self.facts is None:
            raise core.OptionError(self.fault)
        return self.facts

    def read_start(self) -> tuple[str | None, bool]:
        """Return the model to start with, and whether to start with random weights."""
        start_chosen = self.start.value
        model = None if start_chosen in (_AS_IT_SAYS, _FRESH) else str(start_chosen)
        return model, start_chosen == _FRESH

    def propose_start(self, model: str | None) -> None:
        """Propose a model to fine-tune; None for the one named in the recipe.

        The user's choice is kept.
        """
        tunes = self.facts is not None and self.facts.start_from is not None
        if self.start.value != self._start_proposed or not tunes:
            return
        is_listed = model is not None and model in self.start.choices
        self._start_proposed = str(model) if is_listed else _AS_IT_SAYS
        self.start.value = self._start_proposed

    def begin_with(self, model: str) -> None:
        """Select a model to fine-tune, if it is listed."""
        self.box.value = _FIRST
        if model in self.start.choices:
            self.start.value = model


class TrainPanel(base.VerbPanel):
    """Panel that trains a model on pairs, in a separate process.

    Closing the panel or the viewer stops the training and keeps its state.
    """

    plots = True
    help_place = "training.md#the-panel-train"
    queue = "training"  # runs for hours, in parallel with jobs of the panels

    title = run_label = "Train"
    verb = jobs.TRAIN

    def build_form(self) -> None:
        """Build the form."""
        self._build_buttons()
        self.pairs = PairsForm(self.input_layers.create_box)
        self.recipe = RecipeForm()
        self.name = base.create_option_widget(jobs.TrainOptions, "name")
        self.steps = _create_count_box("steps", most=_LONGEST, step=100)
        self.folder = FileEdit(
            name="folder",
            label="Run folder",
            tooltip=(
                "Folder for the state, curve and model; if empty, a folder with the "
                "run's name among your runs."
            ),
            mode=FileDialogMode.EXISTING_DIRECTORY,
            nullable=True,
        )
        self.replace = CheckBox(
            name="replace",
            text="Replace an earlier one",
            tooltip="If unticked, an existing run or model of this name is kept.",
        )
        self.view = TrainView(self.viewer)
        self._run_dir: Path | None = None  # of the last run
        self._start_proposed = ""
        self.steps_done = 0
        self._left = False
        self._clock = base.create_timer(self, self.view.poll, _POLL_MS)
        self.add_group("Pairs", self.pairs)
        self.add_group("Recipe", self.recipe)
        tooltip = "Patch size and run folder; rarely needed."
        more = base.Form(self.pairs.patch, self.folder)
        self.advanced_section = base.CollapsibleSection("Advanced", tooltip, more)
        where = base.Form(self.name, self.steps, self.replace)
        self.add_group("Run", where, self.advanced_section)
        self.add_results("Training", self.view)
        self.results.heading = ""  # the figures are always of this run
        self.recipe.changed.connect(self._on_recipe_changed)
        self.pairs.source.changed.connect(self._on_source_changed)
        self.name.changed.connect(lambda _: self._show_default_folder())
        self.runner.failed.connect(self._show_final_state)
        self._propose_name()
        self.input_layers.follow_active_layer(self.pairs.low)
        self._propose_high = self.input_layers.propose_partner(
            self.pairs.low,
            self.pairs.high,
            self._rank_reference,
            keeps=lambda low, high: bool(self._rank_reference(low, high)),
            lies=layers.have_common_area,
        )
        self._propose_initial_model()
        for signal in (self.pairs.low.changed, self.pairs.source.changed):
            signal.connect(self._propose_initial_model)

    def _propose_initial_model(self, _: object = None) -> None:
        """Propose an initial model that suits the selected images."""
        has_layers = self.pairs.cuts or self.pairs.own
        low = self.pairs.low.value if has_layers else None
        kind = None if low is None else layers.get_instrument(low)
        self.recipe.propose_start(MOSAIC_MODEL if kind == "optical" else None)

    def accepts_layer(self, layer: Layer) -> bool:
        """Reject ground truth and SEM images as Low."""
        is_better = layers.is_ground_truth(layer)
        # an SEM image next to an optical one
        if layers.is_sem_image(layer) and not self.pairs.own:
            images = filter(layers.is_acquired, layers.list_grey_layers(self.viewer))
            is_better = is_better or not all(map(layers.is_sem_image, images))
        return super().accepts_layer(layer) and not is_better

    def _rank_reference(self, _: Layer, other: Layer) -> int:
        """Rank a layer as High: ground truth, then SEM; truth is no second scan."""
        if self.pairs.own:
            return int(not layers.is_ground_truth(other))
        return 1 + 2 * layers.is_ground_truth(other) + layers.is_sem_image(other)

    def _build_buttons(self) -> None:
        self.controls.cancel_label = "Stop and keep"
        self.controls.stop_message = (
            "Stopping after the current step and saving the state …"
        )
        self.controls.update_buttons()
        self.cancel_button.setToolTip(
            "Stop after the current step, keeping the state and the best model for "
            "Resume."
        )
        self.resume_button = base.create_button(
            "Resume",
            self.resume,
            "Resume a stopped run, either of this panel or from a folder.",
        )
        self.buttons.insert_widget(1, self.resume_button)
        self.runner.busy_changed.connect(self._update_resume_button)
        self.runner.stepped.connect(self._show_training_step)
        self.closed.connect(self._on_closed)

    # -- reading the form ------------------------------------------------------

    def _on_recipe_changed(self) -> None:
        """Update the data source, name and initial model for the selected recipe."""
        if self.recipe.facts is not None:
            self.pairs.learn_by(self.recipe.facts.kind)
        self._propose_name()
        self._propose_initial_model()

    def _on_source_changed(self, _: object = None) -> None:
        """Select the recipe for noisy images if the source is a noisy image."""
        if self.pairs.own:
            self.recipe.box.value = _BY_ITSELF
        elif self.recipe.box.value == _BY_ITSELF and self.pairs.cuts:
            self.recipe.box.value = _FIRST
        self._propose_high(is_own=True)

    def _propose_name(self) -> None:
        """Propose an unused name, unless the user has entered one."""
        facts = self.recipe.facts
        if facts is None or self.name.value not in ("", self._start_proposed):
            return
        name, number = facts.name, 1
        while jobs.get_model_origin(name) or (jobs.get_runs_folder() / name).exists():
            number += 1
            name = f"{facts.name}-{number}"
        self._start_proposed = name
        self.name.value = name
        self._show_default_folder()

    def _show_default_folder(self) -> None:
        """Show the default folder of the run."""
        default = str(jobs.get_runs_folder() / str(self.name.value))
        self.folder.line_edit.native.setPlaceholderText(default)

    def get_output_path(self) -> Path:
        """Return the entered or default folder of the run."""
        return base.get_entered_path(self.folder) or jobs.get_runs_folder() / str(
            self.name.value
        )

    def create_request(self) -> base.JobRequest:
        """Read the form, and return the request of the job that Run starts."""
        facts, name = self.recipe.require_facts(), str(self.name.value).strip()
        replace = bool(self.replace.value)
        if not re.fullmatch(r"[\w.+-]+", name) or name.startswith("."):
            msg = (
                "Enter a model name of letters, digits, '_', '-', '+' and '.', got "
                f"{name!r}."
            )
            raise core.OptionError(msg, code="name-invalid")
        name_is_taken = jobs.get_model_origin(name)
        if name_is_taken == "bundled" or (name_is_taken and not replace):
            msg = f"The model {name} already exists; choose another name" + (
                "." if name_is_taken == "bundled" else ", or set `overwrite`."
            )
            raise core.OptionError(msg, code="name-taken")
        run_dir = self.get_output_path()
        # before pairs are cut
        if not replace and run_dir.is_dir() and core.list_folder(run_dir):
            contents = (
                "a run; resume it," if (run_dir / _RECIPE).is_file() else "other files;"
            )
            msg = (
                f"The folder {run_dir} already contains {contents} choose another "
                "name, or set `overwrite`."
            )
            raise core.WriteError(msg, code="output-exists")
        try:
            run_dir.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"The folder {run_dir.parent} cannot be created: {error.strerror}."
            raise core.WriteError(msg) from error
        cuts = self.pairs.own or self.pairs.cuts
        data = self._read_images() if cuts else {"pairs": self.pairs.store_path()}
        start_from, from_scratch = self.recipe.read_start()
        options = jobs.TrainOptions(
            steps=int(self.steps.value) or None,
            name=name,
            patch=int(self.pairs.patch.value) or None,
            from_scratch=from_scratch,
        )
        data |= {"recipe": facts.path, "start_from": start_from, "output": str(run_dir)}
        values = {
            # as JSON, since it trains in another process
            **self.verb.list_values(options=options, place=self._get_place()),
            **{key: one for key, one in data.items() if one is not None},
        }
        existing = jobs.OverwritePolicy(overwrite=replace, keep=True)
        return base.JobRequest(
            partial(jobs.train_and_import, values, existing),
            self.show_training,
            partial(self._watch_run, run_dir),
            saves_state=True,
        )

    def _get_place(self) -> jobs.TrainingEnvironment:
        """Return where to train, as set under Preferences."""
        device = str(base.get_preference("computing", "device"))
        return jobs.TrainingEnvironment.parse({"device": device})

    def _read_images(self) -> dict[str, object]:
        """Read the training layers: two, or a noisy one with optional second scan."""
        pairs, own = self.pairs, self.pairs.own
        # a transform, known or to be determined, relates both
        low = self.input_layers.read(
            pairs.low.value, is_unturned=not own and pairs.lies.has_transform
        )
        if pairs.source.value == _ALONE:
            return {"image": low}
        high = self.input_layers.read(pairs.high.value, is_unturned=own)
        if pairs.low.value is pairs.high.value:
            msg = f"Low and High must be different layers, got {low.name} for both."
            if own:
                msg = (
                    f"The second scan must be a different layer, got {low.name} for "
                    "both; to train on this layer alone, choose 'one noisy layer "
                    "alone'."
                )
            raise core.OptionError(msg, code="same-image")
        if own:
            return {"image": low, "second": high}
        return {"low": low, "high": high, "transform": pairs.lies.get_transform()}

    def take_noisy(self, layer: Layer | None) -> None:
        """Prepare training of a denoiser on a single noisy layer."""
        self.pairs.source.value = _ALONE
        if layer is None or layer not in self.pairs.low.choices:
            self.messages.show_status("Choose the noisy image, then press Train.")
            return
        self.pairs.low.value = layer
        ready = f"Ready to train on {layer.name} alone: press Train."
        self.messages.show_status(f"{ready} {OWN_IMAGE_TIME}")

    def take_registered(
        self, low: Layer, high: Layer, transform_file: StoredTransform
    ) -> None:
        """Prepare fine-tuning on two registered layers."""
        self.pairs.take(low, high, transform_file)
        self.recipe.begin_with(MOSAIC_MODEL)
        self.messages.show_status(
            f"Ready to fine-tune {MOSAIC_MODEL} on {low.name} and {high.name}: press "
            "Train."
        )

    def _watch_run(self, run_dir: Path, *, is_resumed: bool = False) -> None:
        """Start watching the progress of a run."""
        self._run_dir, self.steps_done, self._left = run_dir, 0, False
        self.view.watch(run_dir, is_resumed=is_resumed)
        self.view.poll()
        self.results.reveal()
        self._clock.start()

    def resume(self) -> None:
        """Resume the run with the entered name or folder, or ask for a folder."""
        if self.runner.is_busy:
            self.messages.show_status("A training run is in progress; stop it first.")
            return
        run_dir = self.get_output_path()
        if (
            not (run_dir / _STATE).is_file()
            and base.get_entered_path(self.folder) is None
        ):
            path_chosen = QFileDialog.getExistingDirectory(
                self, "Folder of the run to resume", str(jobs.get_runs_folder())
            )
            if not path_chosen:
                return
            run_dir = Path(path_chosen)
        with self.messages.show_errors():
            values = jobs.list_resume_values(run_dir, place=self._get_place())
            self._watch_run(run_dir, is_resumed=True)
            existing = jobs.OverwritePolicy(resume=True, keep=True)
            make = partial(jobs.train_and_import, values, existing)
            self.controls.start(make, self.show_training)

    # -- watching ----------------------------------------------------------------

    def findings(self) -> base.Findings:
        """Return the metrics and curves of the run so far."""
        return self.view.findings(self.title)

    def _update_resume_button(self, busy: bool) -> None:
        self.resume_button.setEnabled(not busy)
        if not busy:
            self._clock.stop()

    def _show_training_step(self, step: core.Progress) -> None:
        if not isinstance(step, jobs.TrainStep):
            return
        self.steps_done = step.done
        self.view.add_step(step)

    def _show_final_state(self, _: str = "") -> None:
        self._clock.stop()
        self.view.settle()

    def show_training(self, outcome: jobs.Trained) -> None:
        """Report the model's metrics, and update the lists of models."""
        self.view.comparison = outcome.comparison
        self._show_final_state()
        if not outcome.kept:
            self.messages.show_status(
                "Training produced no model better than "
                f"{_get_initial_model_name(outcome)} on held-out pairs, so no model "
                "was added to Enhance."
            )
            return
        NEWS.changed.emit()
        over, linear = (outcome.compute_gain(n) for n in ("untouched", "linear filter"))
        figures, held_out = outcome.validation or {}, ""
        gain, hidden_gain = figures.get("gain_db"), figures.get("hidden_db")
        if over is not None and linear is not None:
            pairs = outcome.comparison["pairs"]
            held_out = (
                f": {over:+.2f} {core.DB} over {_get_initial_model_name(outcome)} and "
                f"{linear:+.2f} {core.DB} over the best linear filter, on {pairs} "
                "held-out pairs"
            )
        elif hidden_gain is not None:
            more = "" if hidden_gain > 0 else "; more steps may help"
            held_out = (
                f" ({hidden_gain:+.2f} {core.DB} on hidden pixels over a local mean"
                f"{more})"
            )
        elif gain is not None:
            held_out = f" ({gain:+.2f} {core.DB} on held-out pairs)"
        self.messages.show_status(
            f"Trained {Path(outcome.model).stem} in {outcome.steps} steps"
            f"{held_out}; it is now listed in Enhance."
        )

    # -- stopping ----------------------------------------------------------------

    def _on_closed(self) -> None:
        """Record that the panel is closed, to avoid importing the model."""
        self._left = True

    def report_cancelled(self) -> None:
        """Report that the run stopped, and import the best model so far."""
        self._show_final_state()
        run_dir = self._run_dir
        if run_dir is None or not self.steps_done or not (run_dir / _STATE).is_file():
            self.messages.show_status(
                "Stopped before the first step; nothing has changed."
            )
            return
        name = jobs.read_recipe_info(run_dir / _RECIPE).name
        model = run_dir / f"{name}.safetensors"  # the best so far
        if self._left or not model.is_file():
            self.messages.show_status(
                f"Stopped after step {self.steps_done}, before the first validation; "
                "Resume continues from there."
            )
            return
        self.controls.start(
            lambda: jobs.MODELS_IMPORT.rerun(model), self._report_stopped_run, "Keep"
        )

    def _report_stopped_run(self, model: jobs.ModelFile) -> None:
        """Report that the run was stopped, and that its best model is listed."""
        NEWS.changed.emit()
        self.messages.show_status(
            f"Stopped after step {self.steps_done}. The best {model.card['name']} so "
            "far is now listed in Enhance; Resume continues from here."
        )


def _get_initial_model_name(outcome: jobs.Trained) -> str:
    """Return the name of the initial model."""
    comparison = outcome.comparison or {}
    return str(comparison.get("begun_with") or "the initial model")
