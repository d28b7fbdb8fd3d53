"""Train: a model of this place, of pairs, or of one image alone.

Trainings run in another process. Closing the panel or the viewer stops one, and keeps
its state.
"""

import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from magicgui.types import FileDialogMode
from magicgui.widgets import CheckBox, ComboBox, FileEdit, FloatSpinBox
from napari.layers import Image, Layer
from napari.utils.events import Event
from psygnal import Signal
from qtpy.QtWidgets import QFileDialog, QGroupBox

from napari_semsr import core, jobs, training
from napari_semsr.analysis import choose_gain
from napari_semsr.io import StoredTransform, replace_atomically
from napari_semsr.models import MOSAIC_MODEL
from napari_semsr.widgets import base, layers
from napari_semsr.widgets.enhance import NEWS, OWN_IMAGE_TIME, list_installed_models
from napari_semsr.widgets.register import find_image_pair
from napari_semsr.widgets.train.view import TrainingView

_PAGES = {"Report (*.html)": ".html"}
_RESULTS_KEPT = shutil.ignore_patterns(jobs.STOP, "*.zarr", "*.safetensors", "*.html")
_LIST_HEIGHT = 70
_LONGEST = 10_000_000  # largest number of steps; chosen
_LARGEST_PATCH = 2048  # largest value; chosen
_STATE, _RECIPE = "last.ckpt", "recipe.yaml"
_SEM, _PAIRS, _ALONE = "sem", "pairs", "alone"
_ANSWERS = [
    ("an SEM image of this place", _SEM),
    ("pairs of images", _PAIRS),
    ("only this image", _ALONE),
]
_STORE, _LAYERS, _OWN = "store", "layers", "recipe"
_SOURCES = [
    ("a blurred and a sharp layer", _LAYERS),
    ("a store of pairs", _STORE),
    ("the data of the recipe", _OWN),
]
_IMAGES = {  # labels and tooltips of the two layer lists, by the answer
    _SEM: (
        ("Mosaic", "The optical image of the sample, such as a mosaic."),
        ("SEM image", "SEM image of an area within the mosaic."),
    ),
    _PAIRS: (
        ("Image to improve", "The image to improve."),
        (
            "Reference image",
            "The target: an image of the same field, on the same grid or registered.",
        ),
    ),
    _ALONE: (
        ("Image", "Noisy image for which the model is trained."),
        (
            "Second scan",
            "A second scan of the same area, if there is one; it is registered first.",
        ),
    ),
}
_UNPLACED = {_SEM: "by the images", _PAIRS: "on one grid", _ALONE: ""}
_REGISTERED, _SAVED, _NONE = "found", "stored", "search"
_FILE = "a YAML file …"
_AS_IT_SAYS, _FRESH = "<recipe>", "<fresh>"  # not names of models
_TRAINING = "model: training,"
# share of the time at the end of each stage; measured with 960 steps
_STAGES = {
    "registering": 0.02,
    "model: fitting": 0.09,
    "model: starting": 0.1,
    "model: learning": 0.2,
    "model: copying": 0.24,
    _TRAINING: 0.93,
    "enhancing": 0.97,
    "writing": 1.0,
}
_FIRST = "fine-tune"
_BY_ITSELF = "own-image"


def _create_count_box(name: str, *, most: int, step: int) -> FloatSpinBox:
    """Create a number box whose default is given by the recipe."""
    box: FloatSpinBox = base.create_option_widget(jobs.TrainOptions, name)
    box.max, box.step = most, step
    box.native.setSpecialValueText("as in the recipe")
    return box


class ImagesForm(base.Form):
    """Form for what the user has: layers and how they lie, or a store of pairs."""

    def __init__(self, inputs: Any) -> None:
        super().__init__()
        label, tip = "What do you have?", "Images that the model is trained on."
        self.have = ComboBox(name="have", label=label, choices=_ANSWERS, tooltip=tip)
        about: Any = {"label": "Pairs from", "tooltip": "Source of training pairs."}
        self.source = ComboBox(name="source", choices=_SOURCES, **about)
        low, high = _IMAGES[_SEM]
        self.low = inputs.create_box("low", *low)
        self.high = inputs.create_box("high", *high, none="none")
        self.more = inputs.create_list(
            "SEM images of further areas of the mosaic, also for training",
            _LIST_HEIGHT,
            name="more",
            label="Further SEM images",
            accepts=self._fits_as_further_image,
        )
        self._map_given: StoredTransform | None = None
        tip = "Transform from the first to the second image, as from Register."
        self.placed = ComboBox(
            name="placed", label="Alignment", choices=[_NONE], tooltip=tip
        )
        tip = ".json file saved by Register: first image moving, second fixed."
        words: Any = {"label": "Transform", "filter": "*.json", "nullable": True}
        self.transform = FileEdit(name="transform", tooltip=tip, **words)
        tip = "A .zarr store of previously cut training pairs (see the manual)."
        mode = FileDialogMode.EXISTING_DIRECTORY
        about = {"label": "Store", "mode": mode, "nullable": True}
        self.store = FileEdit(name="store", tooltip=tip, **about)
        rows = self.have, self.source, self.low, self.high, self.more, self.placed
        for control in (*rows, self.transform, self.store):
            self.add_row(control)
        for box in (self.low, self.high):
            box.changed.connect(lambda _: inputs.refresh())
        for choice in (self.have, self.source, self.placed, self.low, self.high):
            choice.changed.connect(self.update_rows)
        self.update_rows()

    def _fits_as_further_image(self, layer: Layer) -> bool:
        """Return whether a layer may be another SEM image, not yet registered."""
        chosen = [one for one in (self.low.value, self.high.value) if one is not None]
        fits = [layers.fits_beside(one, layer, anywhere=True) for one in chosen]
        return layer is not self.high.value and all(fits)

    @property
    def cuts(self) -> bool:
        """Whether pairs are to be cut from two layers."""
        return bool(self.have.value == _PAIRS and self.source.value == _LAYERS)

    @property
    def has_transform(self) -> bool:
        """Whether a transform is available, from a registration or a file."""
        return self.placed.value in (_REGISTERED, _SAVED)

    def update_rows(self, _: object = None) -> None:
        """Show the rows that the answer needs, under its names."""
        have = self.have.value
        for name, words in zip(("low", "high"), _IMAGES[have], strict=True):
            self.relabel(name, *words)
            self.show_row(name, have != _PAIRS or self.cuts)
        self.show_row("source", have == _PAIRS)
        self.show_row("store", have == _PAIRS and self.source.value == _STORE)
        is_placed, chosen = have == _SEM or self.cuts, self.placed.value
        ways = [(_UNPLACED[have], _NONE), ("by a saved transform …", _SAVED)]
        if self._map_given is not None:
            both = f"{self._map_given.moving.name} to {self._map_given.fixed.name}"
            ways.insert(0, (f"as registered: {both}", _REGISTERED))
        with self.placed.changed.blocked():
            self.placed.choices = ()  # magicgui would list a new one last
            self.placed.choices = ways
            self.placed.value = chosen
        self.show_row("placed", is_placed)
        self.show_row("transform", is_placed and chosen == _SAVED)
        # a registration has one SEM image
        more = have == _SEM and bool(self.more.choices) and not self.has_transform
        self.show_row("more", more)

    def take(self, low: Layer, high: Layer, transform_file: StoredTransform) -> None:
        """Select two registered layers and their transform."""
        self.low.value, self.high.value = low, high
        self._map_given = transform_file
        self.update_rows()
        self.placed.value = _REGISTERED

    def get_transform(self) -> StoredTransform | Path | None:
        """Return the selected transform, or None."""
        if self.placed.value != _SAVED:
            return self._map_given if self.has_transform else None
        path_typed = base.get_entered_path(self.transform)
        if path_typed is None:
            other = _UNPLACED[self.have.value]
            msg = f"Choose a file saved by Register under {self.transform.label}, or "
            msg += f"'{other}'."
            raise core.OptionError(msg, code="missing-value")
        return path_typed

    def get_store(self) -> str | None:
        """Return the path of the chosen store of pairs; None for the recipe's data."""
        path_typed = base.get_entered_path(self.store)
        if path_typed is None and self.source.value == _STORE:
            msg = f"Choose a .zarr store under {self.store.label}, or two layers."
            raise core.OptionError(msg, code="missing-value")
        return str(path_typed) if self.source.value == _STORE else None


class RecipeForm(base.Form):
    """Form for the recipe, with its description and the initial weights."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.facts: training.Recipe | None = None
        self.fault = ""
        self._start_proposed = _AS_IT_SAYS  # proposed, until the user chooses
        self.box = ComboBox(
            name="recipe",
            label="Recipe",
            tooltip="Training recipe.",
            choices=[*jobs.list_bundled_recipes(), _FILE],
            value=_FIRST,
        )
        tip, kinds = "Your own recipe file.", "*.yaml *.yml"
        self.file = FileEdit(name="file", label="File", filter=kinds, tooltip=tip)
        tip = "Fine-tune a model, or start with random weights."
        self.start = ComboBox(name="start", label="Start from", choices=[], tooltip=tip)
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
        rows = [("random weights, as in the recipe", _AS_IT_SAYS)]
        if self.facts and (own := self.facts.start_from) is not None:
            first = (f"{Path(own).stem} (recipe)", _AS_IT_SAYS)
            rows = [first, ("fresh weights", _FRESH)]
        self.start.choices = []
        self.start.choices = [*rows, *list_installed_models()]
        self.start.value = self._start_proposed = start_chosen

    def refresh(self) -> None:
        """Read the selected recipe, and show its description."""
        self.show_row("file", self.box.value == _FILE)
        self.facts, self.fault = None, ""
        try:
            if self.box.value == _FILE and not Path(self.value).is_file():
                msg = "Choose a recipe file (YAML)."
                raise core.OptionError(msg, code="missing-value")
            self.recipe_path, self.facts = jobs.read_recipe(self.value)
        except core.SemsrError as error:
            self.fault = core.Message(str(error), core.get_error_code(error))
        text = self.fault
        if (facts := self.facts) is not None:
            own = facts.architecture == "same"
            patch = f"patches of {facts.data.patch_px} px"
            network = "the model's architecture" if own else facts.architecture
            numbers = f"{facts.kind}, {network}, {facts.steps} steps, {patch}"
            text = f"<p>{facts.description or 'No description.'}</p><p>{numbers}</p>"
        self.text.setText(text)
        self._list_initial_models(_AS_IT_SAYS)
        self.changed.emit()

    def require_path(self) -> str:
        """Return the path of the selected recipe, or raise an error if invalid."""
        if self.facts is None:
            raise core.OptionError(self.fault)
        return str(self.recipe_path)

    def read_start(self) -> tuple[str | None, bool]:
        """Return the model to start with, and whether to start with random weights."""
        start_chosen = self.start.value
        model = None if start_chosen in (_AS_IT_SAYS, _FRESH) else str(start_chosen)
        return model, start_chosen == _FRESH

    def propose_start(self, model: str | None) -> None:
        """Propose a model to fine-tune, or the recipe's; keep the user's choice."""
        tunes = self.facts is not None and self.facts.start_from is not None
        if self.start.value == self._start_proposed and tunes:
            is_listed = model is not None and model in self.start.choices
            self._start_proposed = str(model) if is_listed else _AS_IT_SAYS
            self.start.value = self._start_proposed


def _train(
    values: dict[str, Any], existing: jobs.OverwritePolicy
) -> core.Job[jobs.Trained]:
    """Train by a recipe, and add the model to the library."""
    job = jobs.train_and_import(values, existing)
    return core.count_stages(job, {"loss": 1.0})


def _run_adaptation(
    stopped: Path | None, folder: Path, **how: Any
) -> core.Job[tuple[jobs.Adapted, base.OpenedImage]]:
    """Train, add the model to the library, and open the enhanced mosaic.

    `stopped`: folder of a run whose training is resumed, and whose results are kept.
    """
    if stopped is not None:
        shutil.copytree(stopped, folder, ignore=_RESULTS_KEPT, dirs_exist_ok=True)
    pace = core.TimeEstimator()

    def add_time_left(step: core.Progress) -> core.Progress:
        trains = step.message.startswith(_TRAINING)  # which has a pace of its own
        return pace.add_time_left(step) if trains else step

    job = core.map_progress(jobs.ADAPT.job(output=folder, **how), add_time_left)
    adaptation = yield from core.count_stages(job, _STAGES)
    yield from core.count_stages(jobs.MODELS_IMPORT.rerun(Path(adaptation.model)), {})
    return adaptation, (yield from base.open_store(adaptation.applied[0].output))


class TrainPanel(base.VerbPanel):
    """Panel that trains a model on what the user has, and shows its held-out part."""

    plots = True
    help_place = "training.md#the-panel-train"
    queue = "training"  # runs for hours, in parallel with jobs of the panels
    title = run_label = "Train"
    verb: jobs.Verb[Any, Any] = jobs.TRAIN

    def build_form(self) -> None:
        """Build the form."""
        self.images = images = ImagesForm(self.input_layers)
        self.have, self.low, self.high = images.have, images.low, images.high
        self.form = base.OptionsForm(jobs.AdaptOptions)
        self.form.show_row("landmarks_only", visible=False)
        self.degradation = base.OptionsForm(jobs.DEGRADE.options)
        tooltip = "Make a pair: add a degraded copy of the reference image."
        degrade_button = base.create_button("Degrade", self.degrade, tooltip)
        parts = self.degradation, degrade_button
        self.degrading = base.CollapsibleSection("Degrade", tooltip, *parts)
        self.add_group("Images", self.images, self.degrading)
        self._of_place = [self.add_group("Settings", self.form)]
        self._of_recipe = self._build_recipe_groups()
        self._build_buttons()
        self.add_results("Training", self.report_row)
        self.view = TrainingView(self)
        self.runner.failed.connect(self.view.poll)  # shows the last state
        self._run_dir: Path | None = None  # of the last run
        self._request: tuple[object, ...] | None = None  # that of an SEM image's run
        self._offered: tuple[Layer | None, ...] | None = ()  # layers; None: the user's
        self._start_proposed = ""
        self._answer_proposed: object = self.have.value  # None: the user's stays
        self._left = False
        self.steps_done = 0
        self.input_layers.follow_active_layer(self.low)
        self._propose_high = self.input_layers.propose_partner(
            self.low,
            self.high,
            self._rank_reference,
            keeps=lambda low, high: bool(self._rank_reference(low, high)),
            lies=lambda *both: self._has_place or layers.have_common_area(*both),
            may=lambda *both: layers.fits_beside(*both, anywhere=self._has_place),
        )
        self._propose_layers()
        self._on_answer()
        self._propose_name()  # for the recipe of this answer
        self.have.changed.connect(self._on_answer)
        for choice in (self.images.source, self.images.placed):
            choice.changed.connect(self._update_rows)
        self.low.changed.connect(self._propose_initial_model)
        self.recipe.changed.connect(self._on_recipe_changed)
        self.name.changed.connect(lambda _: self._show_default_folder())

    def _build_recipe_groups(self) -> list[QGroupBox]:
        self.recipe = RecipeForm()
        self.name = base.create_option_widget(jobs.TrainOptions, "name")
        self.steps = _create_count_box("steps", most=_LONGEST, step=100)
        self.patch = _create_count_box("patch", most=_LARGEST_PATCH, step=16)
        tip = "State, curve and model; by default, a folder with the run's name."
        mode = FileDialogMode.EXISTING_DIRECTORY
        about: Any = {"label": "Run folder", "mode": mode, "nullable": True}
        self.folder = FileEdit(name="folder", tooltip=tip, **about)
        tip = "If unticked, an existing run or model of this name is kept."
        text = "Replace an earlier one"
        self.replace = CheckBox(name="replace", text=text, tooltip=tip)
        tooltip = "Patch size and run folder; rarely needed."
        more = base.Form(self.patch, self.folder)
        self.advanced_section = base.CollapsibleSection("Advanced", tooltip, more)
        where = base.Form(self.name, self.steps, self.replace)
        recipe = self.add_group("Recipe", self.recipe)
        return [recipe, self.add_group("Run", where, self.advanced_section)]

    def _build_buttons(self) -> None:
        tip = "End the training now, then evaluate and use the current model."
        self.stop_button = base.create_button("Stop here", self.stop_here, tip)
        tip = "Resume a stopped run, either of this panel or from a folder."
        self.resume_button = base.create_button("Resume", self.resume, tip)
        for button in (self.resume_button, self.stop_button):
            self.buttons.insert_widget(1, button)
        self.report: Path | None = None
        tip = "Open the report in the web browser."
        open_button = base.create_button("Open the report", self.open_report, tip)
        tip = "Save the report, and a .json file with its numbers next to it."
        save_button = base.create_button("Save report…", self.save_report, tip)
        self.report_row = base.WrappingRow(open_button, save_button)
        self.runner.busy_changed.connect(self._update_run_buttons)
        self.messages.translate = self._name_landmarks
        self.runner.stepped.connect(self._show_training_step)
        self.runner.cancelled.connect(self._report_stopped)
        self.closed.connect(self._on_closed)

    # -- what the user has ----------------------------------------------------------

    @property
    def _has_place(self) -> bool:
        """Whether the user has an SEM image of the place."""
        return bool(self.have.value == _SEM)

    def _on_answer(self, _: object = None) -> None:
        """Show the form of an answer, and propose its images and recipe."""
        have = self.have.value
        if have == _ALONE:
            self.recipe.box.value = _BY_ITSELF
        elif have == _PAIRS and self.recipe.box.value == _BY_ITSELF:
            self.recipe.box.value = _FIRST
        self.verb = jobs.ADAPT if self._has_place else jobs.TRAIN
        controls, keeps = self.controls, not self._has_place
        controls.cancel_label = "Stop and keep" if keeps else "Cancel"
        controls.stop_message = "Cancelling after this step …"
        if keeps:
            controls.stop_message = "Stopping after this step and saving the state …"
        controls.update_buttons()
        self._update_run_buttons(self.runner.is_busy)
        if self._has_place:
            self._propose_layers()
        elif have == _ALONE or self._offered is not None:  # not those of Register
            self.input_layers.active = None
            self.input_layers.select_active_layer()
            self._propose_high(is_own=True)
        self._propose_initial_model()
        self._update_rows()

    def _update_rows(self, _: object = None) -> None:
        for part in (*self._of_place, self.stop_button):
            part.setVisible(self._has_place)
        for part in (*self._of_recipe, self.resume_button):
            part.setVisible(not self._has_place)
        self.degrading.setVisible(self.images.cuts)
        self.report_row.setVisible(self._has_place and self.report is not None)
        for name in ("model", "search"):
            self.form.show_row(name, not self.images.has_transform)

    def accepts_layer(self, layer: Layer) -> bool:
        """Reject ground truth and SEM images as the image to improve."""
        is_better = self._has_place or layers.is_ground_truth(layer)
        # an SEM image next to an optical one
        if layers.is_sem_image(layer) and self.have.value == _PAIRS:
            images = filter(layers.is_acquired, layers.list_grey_layers(self.viewer))
            is_better = is_better or not all(map(layers.is_sem_image, images))
        return super().accepts_layer(layer) and not is_better

    def _rank_reference(self, _: Layer, other: Layer) -> int:
        """Rank a layer as the reference; no second scan is proposed."""
        if self.have.value != _PAIRS:
            return int(self._has_place)
        return 1 + 2 * layers.is_ground_truth(other) + layers.is_sem_image(other)

    def _on_layers_changed(self, event: Event | None = None) -> None:
        """Update the lists of layers, and propose newly opened layers."""
        super()._on_layers_changed(event)
        if base.is_alive(self):
            if not self.is_busy:
                self._propose_layers()
            self.images.update_rows()

    def _propose_layers(self) -> None:
        """Propose an answer, and a mosaic and an SEM image, unless the user chose."""
        pair = find_image_pair(self.viewer, self.result_layers.own)
        if self.have.value == self._answer_proposed:
            grey = layers.list_grey_layers(self.viewer)
            acquired = [layer for layer in grey if layers.is_acquired(layer)]
            answer = _ALONE if len(acquired) == 1 else _SEM
            if any(map(layers.is_ground_truth, grey)):
                answer = _PAIRS
            self.have.value = self._answer_proposed = answer
        low, high = both = self.low.value, self.high.value
        if not self._has_place or self._offered not in ((), both):
            return
        if pair is None and (low is high or high is None):  # without pixel sizes
            left = [one for one in self.high.choices if one not in (None, low)]
            pair = (low, left[0]) if left else None
        if pair is not None:
            self.low.value, self.high.value = self._offered = pair

    def take_registered(
        self, low: Layer, high: Layer, transform_file: StoredTransform
    ) -> None:
        """Select two registered layers and their transform."""
        self._answer_proposed = self._offered = None
        if self.have.value == _ALONE:
            self.have.value = _SEM
        self.images.take(low, high, transform_file)
        self.recipe.box.value = _FIRST
        if MOSAIC_MODEL in self.recipe.start.choices:
            self.recipe.start.value = MOSAIC_MODEL

    def take_noisy(self, layer: Layer | None) -> None:
        """Prepare training of a denoiser on a single noisy layer."""
        self._answer_proposed, self.have.value = None, _ALONE
        if layer is None or layer not in self.low.choices:
            self.messages.show_status("Choose the noisy image, then press Train.")
            return
        self.low.value, self.high.value = layer, None
        ready = f"Ready to train on {layer.name} alone: press Train."
        self.messages.show_status(f"{ready} {OWN_IMAGE_TIME}")

    def degrade(self) -> None:
        """Add a degraded copy of the reference image, as the image to improve."""
        with self.messages.show_errors():
            image = self.input_layers.read(self.high.value)
            options = self.degradation.create_options()
            make = partial(jobs.DEGRADE.job, image, options=options)
            self.controls.start(make, self._take_degraded, "Degrade")

    def _take_degraded(self, result: Any) -> None:
        sharp, name = self.high.value, f"{result.image.name} degraded"
        opened = base.OpenedImage(result.image, (result.image,))
        name = layers.find_free_name(self.viewer, name)
        layer = base.add_opened_image(self.viewer, opened, name=name)
        self.low.value, self.high.value = layer, sharp

    # -- the recipe ---------------------------------------------------------------

    def _propose_initial_model(self, _: object = None) -> None:
        """Propose an initial model that suits the selected images."""
        has_layers = self.have.value == _ALONE or self.images.cuts
        low = self.low.value if has_layers else None
        kind = None if low is None else layers.get_instrument(low)
        self.recipe.propose_start(MOSAIC_MODEL if kind == "optical" else None)

    def _on_recipe_changed(self) -> None:
        """Update the answer, name and initial model for the selected recipe."""
        kind = "" if self.recipe.facts is None else self.recipe.facts.kind
        have = _ALONE if kind == "blind-spot" else _PAIRS
        if not self._has_place:
            self.have.value = have
        self._propose_name()
        self._propose_initial_model()

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

    def _get_run_folder(self) -> Path:
        """Return the entered or default folder of the run."""
        default = jobs.get_runs_folder() / str(self.name.value)
        return base.get_entered_path(self.folder) or default

    # -- running --------------------------------------------------------------------

    def create_request(self) -> base.JobRequest:
        """Read the form, and return the request of the job that Run starts."""
        if self._has_place:
            return self._create_place_request()
        run_dir = self._get_run_folder()
        base.check_path_unused(run_dir)  # before a run in it is called resumable
        values = self._read_recipe()
        images: dict[str, object]
        if self.have.value == _ALONE:
            images = dict(zip(("image", "second"), self._read_images(), strict=False))
        elif self.images.cuts:
            images = dict(zip(("low", "high"), self._read_images(), strict=True))
            images["transform"] = self.images.get_transform()
        else:
            images = {"pairs": self.images.get_store()}
        # as JSON, since it trains in another process
        values |= {key: one for key, one in images.items() if one is not None}
        existing = jobs.OverwritePolicy(overwrite=bool(self.replace.value), keep=True)
        make = partial(_train, values, existing)
        begin = partial(self._watch_run, run_dir)
        return base.JobRequest(
            make, self.show_training, begin, writes=run_dir, saves_state=True
        )

    def _create_place_request(self) -> base.JobRequest:
        """Return the request of a training on an SEM image of the place."""
        low, high = self.low.value, self.high.value
        transform = self.images.get_transform()
        # a given registration is of one SEM image only
        more = () if self.images.has_transform else self.images.more.value
        further = [one for one in more if one is not high]
        images, options = self._read_images(*further), self.form.create_options()
        if transform is not None:
            options = options.replace(model="affine", search="near")  # not used
        # of unchanged layers; a longer training resumes a shorter one
        request = (
            tuple((id(one), id(one.data)) for one in (low, high, *further)),
            tuple(image.pixel_size_nm for image in images),
            options.replace(minutes=None),
            transform,
        )
        folder, stopped = self._run_dir, None
        resume = request == self._request and folder is not None and folder.is_dir()
        if resume and folder is not None and (folder / jobs.STOP).is_file():
            stopped = folder
        if folder is None or not resume or stopped is not None:
            folder = base.find_free_store_path(f"{images[0].name} adapted", "")
        labels = self.get_labels()  # read now: the job runs in a thread
        make = partial(
            _run_adaptation,
            stopped,
            folder,
            mosaic=images[0],
            sem=images[1:],
            options=options,
            transform=transform,
            resume=resume,
            translate=partial(base.convert_names_to_panel_labels, read=lambda: labels),
        )
        size = images[0].pixel_size_nm
        begin = partial(self._watch_run, folder, size, request, is_resumed=resume)
        show = partial(self.show_adaptation, low)
        return base.JobRequest(make, show, begin, saves_state=True)

    def _read_images(self, *more: Image) -> list[core.Micrograph]:
        """Read the layers; a transform replaces how they are rotated on the screen."""
        low, high, alone = self.low.value, self.high.value, self.have.value == _ALONE
        if low is not None and low is high:
            first, second = (label for label, _ in _IMAGES[self.have.value])
            msg = f"{first} and {second} must be different layers, got {low.name}."
            raise core.OptionError(msg, code="same-image")
        is_unturned = self.images.has_transform and not alone
        image = self.input_layers.read(low, is_unturned=is_unturned)
        others = [] if alone and high is None else [high, *more]
        read = partial(self.input_layers.read, is_unturned=alone)
        return [image, *map(read, others)]

    def _read_recipe(self) -> dict[str, Any]:
        """Return the arguments of a training without its images, and check its name."""
        path, name = self.recipe.require_path(), str(self.name.value).strip()
        replace, run_dir = bool(self.replace.value), self._get_run_folder()
        if not re.fullmatch(r"[\w.+-]+", name) or name.startswith("."):
            msg = f"A name has letters, digits, '_', '-', '+' or '.', got {name!r}."
            raise core.OptionError(msg, code="name-invalid")
        name_is_taken = jobs.get_model_origin(name)
        if name_is_taken == "bundled" or (name_is_taken and not replace):
            end = "." if name_is_taken == "bundled" else ", or set `overwrite`."
            msg = f"The model {name} already exists; choose another name{end}"
            raise core.OptionError(msg, code="name-taken")
        # before pairs are cut
        if not replace and run_dir.is_dir() and core.list_folder(run_dir):
            is_run = (run_dir / _RECIPE).is_file()
            contents = "a run; resume it, or" if is_run else "other files;"
            msg = f"{run_dir} already contains {contents} choose another name, or set "
            msg += "`overwrite`."
            raise core.WriteError(msg, code="output-exists")
        try:
            run_dir.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"The folder {run_dir.parent} cannot be created: {error.strerror}."
            raise core.WriteError(msg) from error
        start_from, from_scratch = self.recipe.read_start()
        options = jobs.TrainOptions(
            steps=int(self.steps.value) or None,
            name=name,
            patch=int(self.patch.value) or None,
            from_scratch=from_scratch,
        )
        values = {"recipe": path, "output": str(run_dir)}
        if start_from is not None:
            values["start_from"] = start_from
        place = self._get_environment()
        return {**self.verb.list_values(options=options, place=place), **values}

    def _get_environment(self) -> jobs.TrainingEnvironment:
        """Return where to train, as set under Preferences."""
        device = str(base.get_preference("computing", "device"))
        return jobs.TrainingEnvironment.parse({"device": device})

    def _watch_run(
        self,
        run_dir: Path,
        size: core.PixelSize | None = None,
        request: tuple[object, ...] | None = None,
        *,
        is_resumed: bool = False,
    ) -> None:
        """Start watching the progress of a run."""
        self._run_dir, self._request, self._left = run_dir, request, False
        self.steps_done, self._answer_proposed = 0, None
        if self._has_place and not is_resumed:
            self.history.remove_layers(self.result_layers.find_helpers())
        self.view.watch(run_dir, size, is_resumed=is_resumed)
        sentence = "A curve and a held-out part are shown during the training."
        self.results.show_result({}, sentence)
        self.report_row.setVisible(False)

    def stop_here(self) -> None:
        """End the training with the current model."""
        if self._run_dir is not None and self._run_dir.is_dir():
            (self._run_dir / jobs.STOP).touch()
            self.stop_button.setEnabled(False)
            self.messages.show_status("Ending the training with the current model …")

    def resume(self) -> None:
        """Resume the run with the entered name or folder, or ask for a folder."""
        if self.runner.is_busy:
            self.messages.show_status("A training run is in progress; stop it first.")
            return
        run_dir = self._get_run_folder()
        is_entered = base.get_entered_path(self.folder) is not None
        if not ((run_dir / _STATE).is_file() or is_entered):
            title, folder = "Folder of the run to resume", str(jobs.get_runs_folder())
            path_chosen = QFileDialog.getExistingDirectory(self, title, folder)
            if not path_chosen:
                return
            run_dir = Path(path_chosen)
        with self.messages.show_errors():
            values = jobs.list_resume_values(run_dir, place=self._get_environment())
            self._watch_run(run_dir, is_resumed=True)
            existing = jobs.OverwritePolicy(resume=True, keep=True)
            make = partial(_train, values, existing)
            self.controls.start(make, self.show_training)

    # -- watching ----------------------------------------------------------------

    def _name_landmarks(self, text: str) -> str:
        """Rephrase messages for this panel, which has no landmarks of its own."""
        advice = "as landmarks in Register, then press 'Train on these' there"
        return self.translate(text).replace("as landmarks", advice)

    def _update_run_buttons(self, busy: bool) -> None:
        self.resume_button.setEnabled(not busy)
        self.stop_button.setEnabled(False)
        self.have.enabled = not busy

    def _show_training_step(self, step: core.Progress) -> None:
        is_training = isinstance(step, jobs.AdaptProgress | jobs.TrainStep)
        self.stop_button.setEnabled(is_training)
        if is_training:
            self.steps_done = step.done
            self.view.add_step(step)

    def show_training(self, outcome: jobs.Trained) -> None:
        """Report the model's metrics, and update the lists of models."""
        self.view.poll()
        comparison, figures = outcome.comparison or {}, outcome.validation or {}
        first = str(comparison.get("begun_with") or "the initial model")
        over, linear = (outcome.compute_gain(n) for n in ("untouched", "linear filter"))
        gain, hidden_gain = figures.get("gain_db"), figures.get("hidden_db")
        held_out = ""
        if over is not None and linear is not None:
            gained = f"{over:+.2f} {core.DB} over {first} and {linear:+.2f} {core.DB}"
            pairs = f"on {comparison['pairs']} held-out pairs"
            held_out = f": {gained} over the best linear filter, {pairs}"
        elif hidden_gain is not None:
            more = "" if hidden_gain > 0 else "; more steps may help"
            gained = f"{hidden_gain:+.2f} {core.DB} on hidden pixels"
            held_out = f" ({gained} over a local mean{more})"
        elif gain is not None:
            held_out = f" ({gain:+.2f} {core.DB} on held-out pairs)"
        model = Path(outcome.model).stem
        sentence = f"Trained {model} in {outcome.steps} steps{held_out}; "
        sentence += "it is now listed in Enhance."
        if not outcome.kept:
            sentence = f"Training produced no model better than {first} on held-out "
            sentence += "pairs; none was added."
        NEWS.changed.emit()
        numbers: dict[str, core.Figure | str] = {**outcome.figures()}
        numbers["Folder of the run"] = str(self._run_dir)
        self.results.show_result(numbers, sentence, curves=self.view.curves)

    def show_adaptation(
        self, mosaic: Image, outcome: tuple[jobs.Adapted, base.OpenedImage]
    ) -> Iterator[None]:
        """Add the enhanced mosaic, and show the gain."""
        adaptation, opened = outcome
        was_stopped = (Path(adaptation.output) / jobs.STOP).is_file()
        if not was_stopped:
            self._request = None  # it is finished
        self.view.remove_layer()
        self.report = Path(adaptation.report)
        self.report_row.setVisible(True)
        name = Path(adaptation.model).stem
        # next to those of earlier trainings, which took minutes
        title = layers.create_result_name(self.viewer, mosaic.name, name)
        base.add_opened_image(self.viewer, opened, name=title)
        yield
        NEWS.changed.emit()
        own = adaptation.held_out
        key, gain = choose_gain(own)
        warnings = adaptation.warnings
        linear = f"best linear filter {own[f'linear_{key}']:+.1f} {core.DB}"
        resumed = " Train resumes the training." if was_stopped else ""
        self.results.show_result(
            core.get_figures(adaptation),
            f"{name} brings the held-out part {own[key]:.1f} {core.DB} nearer to the "
            f"SEM image ({gain}; {linear}); it is now listed in Enhance.{resumed} The "
            "report is deleted when napari is closed; use Save report… to keep it.",
            curves=self.view.curves,
            more="".join(f'<p class="warning">{text}</p>' for text in warnings),
            network=name,
        )

    def open_report(self) -> None:
        """Open the report in the web browser."""
        if self.report is not None:
            base.show_file(self.report)

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

    # -- stopping ----------------------------------------------------------------

    def _on_closed(self) -> None:
        """Record that the panel is closed, to avoid importing the model."""
        self._left = True

    def _report_stopped(self) -> None:
        """Report that the run stopped, and import the best model so far."""
        run_dir = self._run_dir
        if self._has_place:
            text = "Train was cancelled without a model; Train resumes the training."
            self.messages.show_status(text)
            return
        self.view.poll()
        if run_dir is None or not self.steps_done or not (run_dir / _STATE).is_file():
            text = "Stopped before the first step; nothing has changed."
            self.messages.show_status(text)
            return
        name = jobs.read_recipe(run_dir / _RECIPE)[1].name
        model = run_dir / f"{name}.safetensors"  # the best so far
        if self._left or not model.is_file():
            where = f"after step {self.steps_done}, before the first validation"
            self.messages.show_status(f"Stopped {where}; Resume continues from there.")
            return
        make = partial(jobs.MODELS_IMPORT.rerun, model)
        self.controls.start(make, self._report_stopped_run, "Keep")

    def _report_stopped_run(self, model: jobs.ModelFile) -> None:
        """Report that the run was stopped, and that its best model is listed."""
        NEWS.changed.emit()
        best = f"The best {model.card['name']} so far is now listed in Enhance"
        text = f"Stopped after step {self.steps_done}. {best}; Resume continues it."
        self.results.show_result({}, text, curves=self.view.curves)
