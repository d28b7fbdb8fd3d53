from pathlib import Path

import numpy as np
import pytest

from napari_semsr.analysis import FAMILIARITY, BlockFeatures
from napari_semsr.core import InputRecord, Provenance, digest_path
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import Progress, run
from napari_semsr.inference import EnhanceOptions
from napari_semsr.io import NETWORK_KEY, STORE_KEY, STRENGTH_KEY, read, write
from napari_semsr.jobs import ENHANCE, Verb, digest_values, get_check_figures
from napari_semsr.models import find_model
from napari_semsr.widgets.base import results
from napari_semsr.widgets.enhance import models
from napari_semsr.widgets.enhance.panel import EnhancePanel
from napari_semsr.widgets.layers import get_network_name, micrograph_from_layer
from tests.children import LIMIT_MS
from tests.stopping import stop_at
from tests.tiny_models import write_tiny_model
from tests.widgets.scenes import create_classical, exposures_of


@pytest.fixture
def field(model, add, exposures) -> Micrograph:
    first = exposures[0].replace(data=exposures[0].data[:96, :96], name="field")
    add(model, first)
    return first


@pytest.fixture
def panel(model, hold, field) -> EnhancePanel:
    made = hold(EnhancePanel(model))
    made.form.set_values(tile=64, precision="fp32")
    return made


@pytest.fixture
def knowing(tmp_path) -> Path:
    """A tiny network that learnt from a simulated instrument."""
    sources = {"superlens": 1.0}
    recipe = {"data": {"sources": sources}}
    return write_tiny_model(tmp_path, training={"recipe": recipe})


@pytest.fixture
def asked(panel, finish, monkeypatch):
    """Press Run, and give what the service is asked for; it does nothing."""

    def press() -> dict[str, object]:
        seen = {}

        def note(_verb: Verb, *_: object, **values: object):
            seen.update(values)
            yield Progress(0, 1, "Enhancing tiles")
            msg = "enough"
            raise ValueError(msg)

        monkeypatch.setattr(Verb, "job", note)
        panel.run_button.click()
        finish(panel)
        return seen

    return press


def test_card_tells_what_its_checks_found():
    shares = {"discs": 9, "enhanced": 0.978, "degraded": 0.5}
    wide = dict.fromkeys(("inserted", "erased", "together"), shares)
    worse = {"together": {**shares, "enhanced": 0.64}}
    conditions = {"fog": {"resolved": wide}, "blur": {"resolved": worse}}
    card = {"name": "n", "checks": {"discs": {"held_out": {"conditions": conditions}}}}
    assert "has not been checked" not in models.format_model_card(card, None)
    details = models.format_model_card_details(card)
    assert ("98 %" in details, "64 % of 9 discs (input: 50 %)" in details) == (
        True,
        True,
    )
    count = {"objects": 50, "drawn_percent": 28.0, "drawn_interval": [17.5, 41.7]}
    none = {"objects": 0, "drawn_percent": None, "drawn_interval": None}
    groups = {"light_tells": count, "light_cannot_tell": none}
    rows = dict.fromkeys(("model", "linear filter"), groups)
    card["checks"] = {"removals": {"rows": rows}}
    told = "28 % of 50 (95 % interval 18 to 42 %; linear filter: 28 %)"
    assert told in models.format_model_card_details(card)
    assert "has not been checked" in models.format_model_card({"name": "n"}, None)
    for nonsense in (3, {"discs": {"drawn": 1}}, {"removals": {"rows": 1}}):
        assert get_check_figures({"checks": nonsense}) == {}


def test_result_is_a_calibrated_layer_over_its_store(panel, model, run_panel, tmp_path):
    output = tmp_path / "made.ome.zarr"
    panel.output.value = output
    assert run_panel(panel).startswith("sem-restore removed noise of ")
    layer = model.layers["field · sem-restore"]
    found = micrograph_from_layer(layer)
    assert found.pixel_size_nm == (10.0, 10.0)
    assert found.shape == (96, 96)
    assert np.isfinite(found.array()).all()
    assert get_network_name(layer) == panel.model.value
    assert layer.metadata[NETWORK_KEY]["digest"] in found.provenance.network_names()
    text = panel.results.remarks.text()
    assert text.startswith("<p>Made by a network: <b>sem-restore</b>.")
    for name in ("Tiles", "Speed", "Tile mismatch", "Seam index", str(output)):
        assert name in panel.figures.text()


def test_large_result_needs_a_path(panel, monkeypatch):
    monkeypatch.setattr(results, "get_preference", lambda *_: 1e-6)
    panel.run()
    assert "needs an output path" in panel.status.text()
    assert not panel.runner.is_busy


def test_existing_store_is_treated_as_chosen(panel, asked):
    panel.output.value = Path("made.ome.zarr")
    for existing in ("refuse", "resume", "replace"):
        panel.existing.value = existing
        seen = asked()
        assert seen["overwrite"] is (existing == "replace")
        assert seen["resume"] is (existing == "resume")


def test_advanced_options_are_folded_away_and_reach_the_run(panel, asked):
    seen = asked()
    assert seen["cluster"].scheduler is None
    assert seen["options"].memory_gb is None
    panel.advanced.set_values(self_ensemble=False)
    assert not panel.advanced.header.isChecked()
    panel.advanced.set_values(memory_gb=2.5)
    panel.cluster.get_widget("scheduler").value = " tcp://127.0.0.1:8786 "
    assert panel.advanced.header.isChecked()
    seen = asked()
    assert seen["cluster"].scheduler == "tcp://127.0.0.1:8786"
    assert seen["options"].memory_gb == 2.5
    assert not seen["options"].self_ensemble


@pytest.mark.broad
@pytest.mark.filterwarnings("ignore:uint8 stores only integers")  # of a field 0 to 1
def test_what_the_command_left_unfinished_is_resumed(
    panel, model, run_panel, field, tmp_path
):
    file, output = tmp_path / "field.ome.tif", tmp_path / "left.ome.zarr"
    write(field, file)
    tiny = write_tiny_model(tmp_path)
    options = EnhanceOptions(
        tile=32, precision="fp32", device="cpu", dtype="uint8", memory_gb=1.0
    )
    job = ENHANCE.job(file, output, model=tiny, options=options)
    stop_at(job, "Enhancing", 3)
    panel.model.add_file(tiny)
    panel.output.value = output
    panel.existing.value = "resume"
    assert "tiny enhanced field" in run_panel(panel)
    assert panel.form.create_options().tile == 32
    assert panel.advanced.form.values()["memory_gb"] == 1.0
    layer = model.layers["field · tiny"]
    assert micrograph_from_layer(layer).dtype == np.uint8
    made = read(output)
    assert made.provenance.inputs[0].name == "field.ome.tif"
    run(ENHANCE.job(file, tmp_path / "b.ome.zarr", model=tiny, options=options))
    np.testing.assert_array_equal(made.array(), read(tmp_path / "b.ome.zarr").array())


def test_model_file_is_added_and_chosen_and_a_damaged_one_told(panel, tmp_path):
    copy = tmp_path / "mine.safetensors"
    copy.write_bytes(Path(find_model(panel.model.value)).read_bytes())
    panel.model.add_file(copy)
    assert panel.model.value == str(copy)
    assert panel.model.card["receptive_field"] > 0
    path = tmp_path / "bad.safetensors"
    path.write_bytes(b"not a model")
    panel.model.add_file(path)
    assert "bad.safetensors" in panel.model.text.text()


def test_an_image_unlike_the_training_place_is_warned_of_and_mapped(
    panel, model, run_panel, tmp_path, rng
):
    place = BlockFeatures.from_parts([rng.random((300, 300))])
    training = {FAMILIARITY: place.to_json()}
    panel.model.add_file(write_tiny_model(tmp_path, training=training))
    panel.unfamiliar.value = True
    run_panel(panel)
    assert "differs from the area that tiny" in panel.warning_label.text()
    assert "Unlike the training area" in panel.figures.text()
    shown = model.layers["field · tiny · distance to training area (unlike it above 1)"]
    assert shown.scale == pytest.approx((960, 960))
    assert shown.data.min() > 1


@pytest.mark.broad
def test_a_result_that_is_there_is_mapped_and_not_made_again(
    model, panel, run_panel, knowing, computed, field
):
    assert not panel.misfit.native.isVisibleTo(panel)
    panel.model.add_file(knowing)
    assert panel.misfit.native.isVisibleTo(panel)
    run_panel(panel)
    assert "of the input's contrast" in panel.figures.text()
    tiles, names = len(computed), [layer.name for layer in model.layers]
    panel.misfit.value = True
    run_panel(panel)
    mapped = "field · tiny · misfit (%)"
    assert [layer.name for layer in model.layers] == [*names, mapped]
    assert len(computed) == tiles
    shown = model.layers[mapped]
    assert shown.data.shape == (24, 24)
    assert tuple(shown.contrast_limits) == (0, 100)
    assert shown.scale == pytest.approx(4 * np.array(field.pixel_size_nm))


@pytest.mark.quick(1)
@pytest.mark.parametrize("changed", ["plane", "strength"])
def test_a_result_of_another_kind_than_is_shown_is_not_mapped_as_it_is(
    model, panel, run_panel, knowing, finish, field, changed
):
    planes = np.stack([field.data, field.data[::-1]])
    stack = model.add_image(
        planes, name="stack", scale=(1, 10, 10), units=("pixel", "nm", "nm")
    )
    model.dims.set_point(0, 0)
    panel.layer.value = stack
    panel.model.add_file(knowing)
    run_panel(panel)
    result = model.layers["stack · tiny"]
    if changed == "plane":
        model.dims.set_point(0, 1)
    else:
        panel.look.strength.value = 20
        finish(panel)
        assert result.metadata[STRENGTH_KEY] == 0.2
    panel.misfit.value = True
    run_panel(panel)
    shown = model.layers[-2]
    assert (shown is not result, "misfit" in model.layers[-1].name) == (True, True)
    assert STRENGTH_KEY not in shown.metadata


def test_a_map_that_cannot_be_made_is_not_offered(model, panel, run_panel, tmp_path):
    panel.misfit.value = True
    assert not panel.misfit.native.isVisibleTo(panel)
    panel.model.add_file(write_tiny_model(tmp_path))
    assert "tiny enhanced field" in run_panel(panel)
    assert [layer.name for layer in model.layers] == ["field", "field · tiny"]


@pytest.mark.parametrize("of", ["values", "history", "file", "sem"])
def test_a_model_of_the_same_place_is_proposed_first(
    model, hold, add, field, tmp_path, monkeypatch, qtbot, of
):
    shelf, path = tmp_path / "shelf", tmp_path / "field.ome.tif"
    shelf.mkdir()
    monkeypatch.setenv("SEMSR_MODELS", str(shelf))
    write(field, path)
    image = read(path) if of == "file" else field.replace(provenance=None)
    if of in ("history", "sem"):
        source = InputRecord(role="image", name="mosaic", digest="sha256:1")
        image = image.replace(provenance=Provenance(job="crop", inputs=(source,)))
    digest = {"history": "sha256:1", "file": digest_path(path), "sem": "sha256:2"}
    entry = {"name": "field", "unit": "nm", "areas": []}
    learnt = [
        entry | {"role": "mosaic", "digest": digest.get(of, run(digest_values(image)))},
        entry | {"role": "sem 1", "digest": "sha256:1"},
    ]
    write_tiny_model(shelf, name="own-2026-01-02", training={"learnt_from": learnt})
    model.layers.clear()
    layer = add(model, image)
    if of == "file":
        layer.metadata[STORE_KEY] = str(path)
    monkeypatch.setattr("napari_semsr.core.digest_path", None)  # is slow
    panel = hold(EnhancePanel(model))
    qtbot.waitUntil(lambda: not panel.finder.is_busy, timeout=LIMIT_MS)
    assert (panel.model.value == "own-2026-01-02") == (of != "sem")


@pytest.fixture
def classical(model, hold, add) -> EnhancePanel:
    add(model, exposures_of((96, 96), sharp=True)[0].replace(name="field"))
    return hold(create_classical(model, psf="10nm"))


@pytest.mark.quick(1)
@pytest.mark.parametrize("method", ["wiener", "blind"])
def test_a_classical_method_makes_a_calibrated_layer(
    classical, model, run_panel, method
):
    panel = classical
    panel.model.show_model(f"classical: {method}")
    assert not panel.form.isVisibleTo(panel)
    called = panel.model.box.native.currentText()
    assert run_panel(panel).startswith(f"{called} removed a blur (")
    assert f"<b>{called}</b>" in panel.figures.text()
    found = micrograph_from_layer(model.layers[f"field · {method}"])
    assert found.pixel_size_nm == (10, 10)
    assert found.provenance.options["method"] == method
    assert np.isfinite(found.array()).all()
    assert ("Iterations" in panel.figures.text()) == (method == "blind")
    box = panel.model.box.native
    rows = [box.model().item(row) for row in range(box.count())]
    titles = [row.text() for row in rows if not row.isEnabled()]
    assert titles == ["Models", "Classical methods"]
    panel.model.choose("sem-restore")
    assert panel.form.isVisibleTo(panel)
    assert not panel.classical.isVisibleTo(panel)
