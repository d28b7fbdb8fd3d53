"""The panel Train: what it asks for, what it shows, how it stops and goes on."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication, QLabel
from scipy import ndimage

import napari_semsr as semsr
from napari_semsr.core import Affine, DeviceMemoryError, Grid, Micrograph, WarpedImage
from napari_semsr.io import ImageIdentity, StoredTransform, write, write_transform
from napari_semsr.jobs import TRAIN, Trained, TrainStep, train_process
from napari_semsr.models import ModelCard, build_network, save_model
from napari_semsr.pairing.store import open_pairs
from napari_semsr.widgets.enhance.models import OWN_IMAGE_TIME
from napari_semsr.widgets.enhance.panel import EnhancePanel
from napari_semsr.widgets.layers import list_grey_layers, micrograph_from_layer
from napari_semsr.widgets.train.panel import TrainPanel
from tests.children import LIMIT_MS
from tests.widgets.scenes import grain

NETWORK = {"width": 4, "fine_blocks": 1, "dilations": [1]}
TINY = """
name: tiny
kind: supervised
architecture: two-scale
architecture_options: {width: 4, fine_blocks: 1, dilations: [1]}
data: {patch_px: 16}
batch: 2
steps: 100000
validate_every: 5
precision: fp32
workers: 0
"""


class FakeTraining:
    """Stands in for the other process; leaves in the folder what a run leaves."""

    def __init__(self) -> None:
        self.requests, self.closed, self.last, self.error = [], 0, 3, None
        self.comparison, self.kept = None, True

    def __call__(self, values, existing):
        facts = {"pairs": None, "start_from": None, **values}
        facts |= TRAIN.parse(values)["options"].model_dump()
        facts |= {"run_dir": values["output"], "resume": existing.resume}
        facts["name"] = name = facts["name"] or "again"
        self.requests.append(SimpleNamespace(**facts))
        folder = Path(facts["run_dir"])
        folder.mkdir(exist_ok=True)
        (folder / "recipe.yaml").write_text(f"name: {name}\n")
        try:
            for step in range(1, self.last + 1):
                self.validate(folder, step)
                yield TrainStep(step, self.last, "loss", 90.0, 1 / step)
            if self.error:
                raise self.error
            record = {"gain_db": 1.5, "step": self.last}
            places = str(folder / f"{name}.safetensors"), str(folder)
            return Trained(self.last, record, *places, self.comparison, self.kept)
        finally:
            self.closed += 1

    def validate(self, folder: Path, step: int) -> None:
        rows = [f"{n},{1 / n},{n / 2},0.5\n" for n in range(1, step + 1)]
        (folder / "curve.csv").write_text("step,loss,gain_db,ssim\n" + "".join(rows))
        best = f"step: {step}\ngain_db: {step / 2}\nssim: 0.5\n"
        (folder / "best.yaml").write_text(best)
        made = Micrograph(np.full((8, 30), step, np.float32), (5.0, 5.0))
        write(made, folder / "preview.tif", overwrite=True)
        (folder / "last.ckpt").touch()
        about = {"architecture": "two-scale", "options": NETWORK, "receptive_field": 0}
        card = ModelCard(name=self.requests[-1].name, **about)
        path = folder / f"{card.name}.safetensors"
        save_model(path, build_network("two-scale", NETWORK), card)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """Runs and models of this test alone."""
    monkeypatch.setenv("SEMSR_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SEMSR_MODELS", str(tmp_path / "models"))
    return tmp_path


@pytest.fixture
def training(monkeypatch) -> FakeTraining:
    """No other process."""
    made = FakeTraining()
    monkeypatch.setattr(train_process, "train_in_subprocess", made)
    return made


@pytest.fixture
def panel(model, hold, add) -> TrainPanel:
    """A soft and a sharp image of one field, 5 nm pixels."""
    sharp = grain((128, 128))
    for image, name in ((sharp, "sharp"), (ndimage.gaussian_filter(sharp, 1), "soft")):
        add(model, Micrograph(image, (5.0, 5.0), name))
    made = hold(TrainPanel(model))
    made.have.value = "pairs"
    made.low.value, made.high.value = model.layers["soft"], model.layers["sharp"]
    made.patch.value = 32
    return made


@pytest.fixture
def recipe(folder) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(TINY)
    return path


def use_file(panel: TrainPanel, path: Path) -> None:
    panel.recipe.box.value = panel.recipe.box.choices[-1]
    panel.recipe.file.value = path


def test_layers_are_cut_and_the_model_comes_to_the_lists(
    panel, training, run_panel, hold, folder
):
    models = hold(EnhancePanel(panel.viewer)).model
    panel.name.value, panel.steps.value = "mine", 500
    said = run_panel(panel)
    assert "Trained mine in 3 steps (+1.50 dB on held-out pairs)" in said
    (asked,) = training.requests
    assert (asked.name, asked.steps, asked.patch) == ("mine", 500, 32)
    assert (asked.start_from, asked.from_scratch) == (None, False)
    assert asked.run_dir == str(folder / "runs" / "mine")
    store = open_pairs(Path(asked.pairs))
    assert store.path == folder / "runs" / "mine-pairs.zarr"
    assert store.record["patch"] == 32
    assert min(store.counts.values()) > 0
    models.box.value = "mine"
    assert models.card["architecture"] == "two-scale"


@pytest.mark.broad
def test_model_that_is_no_better_is_not_listed_and_what_it_lost_to_is_shown(
    panel, training, run_panel, folder
):
    psnr_db = {"input": 22.0, "linear filter": 23.0, "trained": 24.25}
    training.kept = False
    training.comparison = {"set": "test", "pairs": 6, "begun_with": "sem-restore"}
    training.comparison |= {"kept": False, "map_error_nm": 12.4, "map_error_px": 0.62}
    training.comparison["rows"] = {
        name: {"psnr_db": psnr, "ssim": 0.8, "frc_per_px": 0.25}
        for name, psnr in psnr_db.items()
    }
    panel.name.value = "mine"
    said = run_panel(panel)
    assert "no model better than sem-restore on held-out pairs" in said
    assert not list(folder.glob("models/*"))
    shown = panel.figures.text()
    assert "24.25 dB, SSIM" in shown
    assert "12.4 nm (0.62 px)" in shown


def two_instruments(add, viewer) -> tuple[object, object, Affine]:
    """Layers of one place, turned and on other pixels, and the map between them."""
    fixed = Micrograph(grain((240, 240), seed=3), (10.0, 10.0), "electrons")
    true = Affine.create_similarity(4, shift=(60, -40), about=(1000, 1000))
    seen = WarpedImage(fixed, Grid.from_image(fixed), true.inverse()).read()
    dark = 1 - np.nan_to_num(seen, nan=0.5)
    moving = fixed.replace(data=dark.astype(np.float32), name="light")
    return add(viewer, moving), add(viewer, fixed), true


def stored_map(folder, low, high, true) -> Path:
    path = folder / "map.json"
    sides = (
        ImageIdentity.from_image(micrograph_from_layer(layer), None)
        for layer in (low, high)
    )
    write_transform(path, StoredTransform(true, *sides))
    return path


@pytest.mark.broad
def test_register_goes_on_to_train(
    make_napari_viewer_proxy, training, add, finish, folder
):
    viewer = make_napari_viewer_proxy(show=True)
    low, high, true = two_instruments(add, viewer)
    _, window = viewer.window.add_plugin_dock_widget("napari-semsr", "Start here")
    register = window.show_panel("Register")
    register.moving.value, register.fixed.value = low, high
    register.train_button.click()
    assert "Register two layers first" in register.status.text()
    register.apply_file(stored_map(folder, low, high, true))
    finish(register)
    register.train_button.click()
    (train,) = [one for one in QApplication.allWidgets() if isinstance(one, TrainPanel)]
    assert (train.low.value, train.high.value) == (low, high)
    train.have.value = "pairs"
    assert (train.low.value, train.high.value) == (low, high)
    assert train.images.placed.value == "found"
    train.run_button.click()
    finish(train)
    (asked,) = training.requests
    assert asked.start_from == "ssum-sem"
    store = open_pairs(Path(asked.pairs))
    assert store.record["pixel_size_nm"] == 20.0  # for which ssum-sem was trained
    assert store.record["provenance"]["options"]["transform"]


@pytest.mark.broad
def test_preview_is_renewed_beside_the_images(model, panel, training, run_panel):
    run_panel(panel)
    layer = panel.view.layer
    assert layer.name == "low | output | truth (3)"
    assert np.all(layer.data == 3)
    np.testing.assert_allclose(layer.scale, (5, 5))
    assert layer.translate[1] > 128 * 5
    assert layer not in list_grey_layers(model)
    found = panel.findings()
    assert found.numbers["Held-out gain"].value == pytest.approx(1.5)
    assert list(found.curves["held out"]["step"])[-1] == 3


def test_stop_keeps_the_best_model_and_resume_goes_on(
    panel, training, finish, qtbot, folder
):
    training.last = 100_000
    panel.name.value = "mine"
    panel.run_button.click()
    qtbot.waitUntil(lambda: panel.steps_done > 0, timeout=LIMIT_MS)
    assert "2 min left" in panel.status.text()
    panel.cancel_button.click()
    assert "saving the state" in panel.status.text()
    qtbot.waitUntil(lambda: "Resume continues" in panel.status.text(), timeout=LIMIT_MS)
    finish(panel)
    assert training.closed == 1
    assert (folder / "models" / "mine.safetensors").is_file()
    training.last = 2
    panel.resume_button.click()
    finish(panel)
    asked = training.requests[-1]
    assert asked.resume
    assert sum("low |" in layer.name for layer in panel.viewer.layers) == 1
    assert asked.recipe == str(folder / "runs" / "mine" / "recipe.yaml")


def test_error_of_the_training_is_shown(panel, training, run_panel, model):
    training.error = DeviceMemoryError("Memory ran out; lower the batch.")
    assert run_panel(panel) == "Memory ran out; lower the batch."
    assert panel.view.layer in model.layers  # what was reached is still seen
    assert panel.resume_button.isEnabled()


def test_wrong_input_is_one_sentence(
    panel, training, run_panel, folder, choose, monkeypatch
):
    (folder / "notes.txt").touch()
    (folder / "models").mkdir()
    (folder / "models" / "taken.safetensors").touch()
    wrong = [
        (panel.high, panel.low.value, "must be different layers, got soft"),
        (panel.patch, 128, "lower 'Patch (px)'"),
        (panel.images.source, "store", "Choose a .zarr store under Store"),
        (panel.name, "sem-restore", "model sem-restore already exists"),
        (panel.name, "../mine", "got '../mine'"),
        (panel.name, "taken", "or set 'Replace an earlier one'"),
        (panel.folder, folder, "already contains other files; choose another name"),
    ]
    for control, value, needs in wrong:
        usual, control.value = control.value, value
        assert needs in run_panel(panel)
        control.value = usual
    choose(folder)
    panel.resume_button.click()
    assert "No run to resume in" in panel.status.text()
    place = "napari_semsr.widgets.base.get_preference"
    monkeypatch.setattr(place, lambda *_: "xpu")  # models run there, but do not train
    assert "must be auto, cpu, cuda or mps" in run_panel(panel)
    assert not training.requests


def test_rows_and_starts_follow_what_is_chosen_and_a_wrong_key_is_named(
    panel, recipe, training, run_panel
):
    panel.show()
    assert panel.low.native.isVisibleTo(panel)
    panel.images.source.value = "store"
    assert not panel.low.native.isVisibleTo(panel)
    assert panel.images.store.native.isVisibleTo(panel)
    first, fresh, *models = panel.recipe.start.choices
    panel.recipe.start.value = fresh
    assert panel.recipe.read_start() == (None, True)
    panel.recipe.start.value = "sem-restore"
    assert panel.recipe.read_start() == ("sem-restore", False)
    use_file(panel, recipe)
    assert panel.recipe.start.choices == (first, *models)
    assert panel.name.value == "tiny"
    panel.recipe.box.value = "de-haan"
    assert panel.recipe.facts.architecture_options["scale"] == 2
    recipe.write_text(TINY.replace("batch:", "batches:"))
    use_file(panel, recipe)
    assert "batches" in panel.recipe.text.text()
    assert "batches" in run_panel(panel)
    assert not training.requests


def test_recipe_for_one_image_asks_for_one_layer(panel, training, run_panel, model):
    panel.show()
    panel.take_noisy(None)
    panel.take_noisy(model.layers["soft"])
    assert (panel.have.value, panel.recipe.box.value) == ("alone", "own-image")
    assert (panel.low.value, panel.high.value) == (model.layers["soft"], None)
    assert OWN_IMAGE_TIME in panel.status.text()
    labels = [text.text() for text in panel.images.findChildren(QLabel)]
    assert "Image" in labels
    assert "Image to improve" not in labels
    panel.high.value = model.layers["soft"]
    assert "must be different layers" in run_panel(panel)
    panel.high.value = None
    panel.name.value = "mine"
    assert run_panel(panel).startswith("Trained mine in 3 steps")
    (asked,) = training.requests
    assert Path(asked.recipe).stem == "own-image"
    store = open_pairs(Path(asked.pairs))
    np.testing.assert_array_equal(*(part[0] for part in store.get_arrays("train")))
    panel.recipe.box.value = "fine-tune"
    assert panel.have.value == "pairs"
    assert panel.images.cuts


def test_degrade_makes_the_pair_of_a_sharp_image(panel, model, finish):
    panel.degradation.set_values(kind="blur", seed=3)
    panel.degrade()
    finish(panel)
    made = model.layers["sharp degraded"]
    assert (panel.low.value, panel.high.value) == (made, model.layers["sharp"])
    again = semsr.degrade(micrograph_from_layer(panel.high.value), seed=3)
    np.testing.assert_array_equal(made.data, again.array())


def test_the_form_follows_what_the_user_has(model, hold, add):
    light = Micrograph(grain((96, 96)), (40.0, 40.0), "light")
    low = add(model, light)
    panel = hold(TrainPanel(model))
    assert (panel.have.value, panel.low.value) == ("alone", low)
    assert panel.name.value == panel.recipe.facts.name == "own-image"
    high = add(model, Micrograph(grain((64, 64)), (10.0, 10.0), "electrons"))
    assert panel.have.value == "sem"
    assert (panel.low.value, panel.high.value) == (low, high)
    assert panel.form.isVisibleTo(panel)
    panel.take_noisy(low)
    add(model, light.replace(name="second"))
    assert panel.have.value == "alone"  # the user's answer stays
    assert not panel.form.isVisibleTo(panel)
