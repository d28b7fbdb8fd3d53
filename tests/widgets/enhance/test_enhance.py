import re
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.analysis import FAMILIARITY, BlockFeatures
from napari_semsr.core import InputRecord, Provenance, digest_path, measure_percentiles
from napari_semsr.core.micrograph import Micrograph, parse_pixel_size
from napari_semsr.core.progress import Progress, run
from napari_semsr.io import NETWORK_KEY, STORE_KEY, STRENGTH_KEY, read, write
from napari_semsr.jobs import ENHANCE, digest_values, get_check_figures
from napari_semsr.models import find_model
from napari_semsr.widgets import base
from napari_semsr.widgets.base import form, results
from napari_semsr.widgets.base.manual import get_manual_folder, get_manual_url
from napari_semsr.widgets.enhance import models as models_module
from napari_semsr.widgets.enhance.models import (
    format_model_card,
    format_model_card_details,
    list_installed_models,
)
from napari_semsr.widgets.enhance.panel import EnhancePanel
from napari_semsr.widgets.layers import get_network_name, micrograph_from_layer
from tests.children import LIMIT_MS
from tests.stopping import stop_at
from tests.tiny_models import write_tiny_model

TRAINED_ON = {"recipe": {"data": {"sources": {"superlens": 1.0}}}}


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
def asked(panel, finish, replace_command):
    """Press Run, and give what the service is asked for; it does nothing."""

    def press() -> dict[str, object]:
        seen = {}

        def note(**options: object):
            seen.update(options)
            yield Progress(0, 1, "Enhancing tiles")
            msg = "enough"
            raise ValueError(msg)

        replace_command(ENHANCE, note)
        panel.run_button.click()
        finish(panel)
        return seen

    return press


def test_card_is_shown(panel):
    card, text = panel.model.card, panel.model.text.text()
    assert card["description"] in text
    assert re.search(r"Shown correctly, held-out images, \w+: \d+ % of \d+ discs", text)
    assert card["limits"] not in text
    assert not panel.model.more.header.isChecked()
    for part in ("Trained on", "Receptive field", card["licence"], card["limits"]):
        assert part in panel.model.details.text()


@pytest.mark.broad
def test_links_of_a_card_open_the_manual_where_it_is_told(panel, opened):
    from qtpy.QtCore import QUrl

    told = ("Does it show what is there?", "Which model for which image")
    links = re.findall(r'href="([^"]+)"', panel.model.text.text())
    for link, title in zip(links, told, strict=True):
        panel.model.text.anchorClicked.emit(QUrl(link))
        assert opened.pop() == get_manual_url(link)
        page = get_manual_folder() / link.partition("#")[0]
        assert title in page.read_text("utf-8")


@pytest.mark.broad
def test_card_warns_of_an_untrained_pixel_size():
    card = {"name": "sharp", "pixel_size_nm": (5.0, 20.0), "receptive_field": 8}
    amber = 'class="warning"'

    def text(size, *resample):
        return format_model_card(card, parse_pixel_size(size), *resample)

    assert "the result is unreliable" in text(100)
    assert amber in text(100)
    assert "5 to 20 nm per pixel" in format_model_card_details(card)
    assert "The field has" not in text(10) + text(None)
    assert "is resampled to 20 nm" in text(30)
    assert amber not in text(30)
    assert "remains on that grid" in text(30, "keep")
    assert "not resampled, as requested" in text(30, "never")
    assert amber in text(30, "never")


def test_card_tells_what_its_checks_found():
    shares = {"discs": 9, "enhanced": 0.978, "degraded": 0.5}
    wide = dict.fromkeys(("inserted", "erased", "together"), shares)
    worse = {"together": {**shares, "enhanced": 0.64}}
    conditions = {"fog": {"resolved": wide}, "blur": {"resolved": worse}}
    card = {"name": "n", "checks": {"discs": {"held_out": {"conditions": conditions}}}}
    worst = "Shown correctly, held-out images, blur: 64 % of 9 discs (input: 50 %)"
    assert worst in format_model_card(card, None)
    assert "98 %" in format_model_card_details(card)
    count = {"objects": 50, "drawn_percent": 28.0, "drawn_interval": [17.5, 41.7]}
    none = {"objects": 0, "drawn_percent": None, "drawn_interval": None}
    groups = {"light_tells": count, "light_cannot_tell": none}
    rows = dict.fromkeys(("model", "linear filter"), groups)
    card["checks"] = {"removals": {"rows": rows}}
    assert "28 % of 50 (95 % interval 18 to 42 %; linear filter: 28 %)" in (
        format_model_card(card, None)
    )
    assert list(get_check_figures(card)) == [
        "Drawn though removed, if the optical image shows the object"
    ]
    assert "has not been checked" in format_model_card({"name": "n"}, None)
    assert "discs" not in format_model_card_details({"name": "n"})


@pytest.mark.parametrize(
    "checks",
    [
        3,
        [],
        {"discs": 3},
        {"discs": {"drawn": 1}},
        {"discs": {"drawn": {"conditions": {"blur": {}}}}},
        {"removals": {"rows": 1}},
        {"removals": {"rows": {"model": {}}}},
    ],
)
def test_a_card_with_nonsense_tells_nothing(checks):
    assert get_check_figures({"checks": checks}) == {}


def test_result_is_a_calibrated_layer_over_its_store(panel, model, run_panel, tmp_path):
    output = tmp_path / "made.ome.zarr"
    panel.output.value = output
    said = run_panel(panel)
    assert "megapixels/s" in said
    layer = model.layers["field · sem-restore"]
    found = micrograph_from_layer(layer)
    assert found.pixel_size_nm == (10.0, 10.0)
    assert found.shape == (96, 96)
    assert np.isfinite(found.array()).all()
    assert not layer.rgb
    assert layer.axis_labels == ("y", "x")
    assert [str(unit) for unit in model.layers.units] == ["nanometer", "nanometer"]
    assert found.provenance is not None
    assert found.provenance.network_digests()
    assert output.is_dir()
    assert get_network_name(layer) == panel.model.value
    assert layer.metadata[NETWORK_KEY]["digest"] in found.provenance.network_digests()
    text = panel.results.remarks.text()
    assert text.startswith(
        "<p>Made by a network: <b>sem-restore</b>. The image content is an estimate"
    )
    for name in ("Tiles", "Speed", "Tile mismatch", "Seam index", str(output)):
        assert name in panel.figures.text()
    assert "no seam: tiles are equal" in panel.figures.text()


@pytest.mark.broad
def test_without_a_path_the_cache_is_used(asked):
    results.remove_cache()
    path = asked()["output"]
    assert path.name == "field_sem-restore.ome.zarr"
    path.mkdir()
    assert asked()["output"].name == "field_sem-restore-2.ome.zarr"
    results.remove_cache()
    assert not path.exists()


def test_large_result_needs_a_path(panel, monkeypatch):
    monkeypatch.setattr(results, "get_preference", lambda *_: 1e-6)
    panel.run()
    assert "needs an output path" in panel.status.text()
    assert not panel.runner.is_busy


@pytest.mark.quick(1)
@pytest.mark.parametrize("chosen", [False, True], ids=["temporary", "chosen"])
def test_cancel_stops_the_service(
    panel, model, qtbot, finish, replace_command, tmp_path, chosen
):
    closed, stores = threading.Event(), []

    def endless(output: Path, **_: object):
        stores.append(output)
        output.mkdir()
        try:
            for step in range(10_000):
                time.sleep(0.01)
                yield Progress(step, 10_000, "Enhancing tiles")
        finally:
            closed.set()

    replace_command(ENHANCE, endless)
    if chosen:
        panel.output.value = tmp_path / "made.ome.zarr"
    panel.run_button.click()
    qtbot.waitUntil(lambda: "Enhancing" in panel.status.text(), timeout=LIMIT_MS)
    panel.cancel_button.click()
    finish(panel)
    assert closed.is_set()
    assert "cancelled" in panel.status.text()
    assert len(model.layers) == 1
    assert stores[0].exists() is chosen
    assert ("resume it" in panel.status.text()) is chosen


@pytest.mark.quick(1)
@pytest.mark.parametrize("existing", ["refuse", "resume", "replace"])
def test_existing_store_is_treated_as_chosen(panel, asked, existing):
    panel.output.value = Path("made.ome.zarr")
    panel.existing.value = existing
    seen = asked()
    assert seen["overwrite"] is (existing == "replace")
    assert seen["resume"] is (existing == "resume")


def test_advanced_options_are_folded_away_and_reach_the_run(panel, asked):
    assert not panel.advanced.header.isChecked()
    seen = asked()
    assert seen["cluster"].scheduler is None
    assert seen["options"].memory_gb is None
    panel.advanced.set_values(self_ensemble=False)
    assert not panel.advanced.header.isChecked()
    panel.advanced.set_values(memory_gb=2.5, halo_tolerance=0.001)
    panel.advanced.cluster.get_widget("scheduler").value = " tcp://127.0.0.1:8786 "
    assert panel.advanced.header.isChecked()
    seen = asked()
    assert seen["cluster"].scheduler == "tcp://127.0.0.1:8786"
    assert seen["options"].memory_gb == 2.5
    assert seen["options"].halo_tolerance == 0.001
    assert not seen["options"].self_ensemble
    panel.advanced.set_values(self_ensemble=True)
    assert asked()["options"].self_ensemble


@pytest.mark.broad
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_cluster_draws_into_the_layer(panel, model, run_panel, tmp_path):
    from distributed import Client

    panel.model.add_file(write_tiny_model(tmp_path))
    panel.form.set_values(tile=32)
    assert "megapixels/s" in run_panel(panel)
    expected = micrograph_from_layer(model.layers["field · tiny"]).array()
    model.layers.remove("field · tiny")
    own = {"processes": False, "n_workers": 1, "threads_per_worker": 1}
    here = {"dashboard_address": "127.0.0.1:0", "set_as_default": False}
    here["worker_dashboard_address"] = "127.0.0.1:0"
    with Client(memory_limit=0, **own, **here) as client:
        scheduler = panel.advanced.cluster.get_widget("scheduler")
        scheduler.value = client.cluster.scheduler_address
        assert "megapixels/s" in run_panel(panel)
    assert panel.live.live.tiles_done == 9
    found = micrograph_from_layer(model.layers["field · tiny"]).array()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.broad
@pytest.mark.filterwarnings("ignore:uint8 stores only integers")  # of a field 0 to 1
def test_what_the_command_left_unfinished_is_resumed(
    panel, model, run_panel, field, tmp_path
):
    from napari_semsr.inference.options import EnhanceOptions
    from napari_semsr.io.formats import read, write
    from napari_semsr.jobs.enhance import ENHANCE

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
    assert "megapixels/s" in run_panel(panel)
    shown = panel.form.create_options()
    assert (shown.tile, shown.precision, shown.device) == (32, "fp32", "cpu")
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


@pytest.mark.broad
def test_preferences_fill_the_form(model, hold, monkeypatch):
    wanted = {"device": "cpu", "tile_px": 128, "precision": "fp32"}
    for module in (base, form):
        monkeypatch.setattr(module, "get_preference", lambda _, name: wanted[name])
    panel = hold(EnhancePanel(model))
    found = panel.form.create_options()
    assert (found.device, found.tile, found.precision) == ("cpu", 128, "fp32")


@pytest.mark.broad
@pytest.mark.parametrize("resample", ["auto", "keep"])
def test_a_layer_at_another_pixel_size_is_resampled(
    resample, panel, model, run_panel, tmp_path
):
    panel.model.add_file(write_tiny_model(tmp_path, pixel_size_nm=(16, 16)))
    panel.form.set_values(tile=32, resample=resample)
    assert "is resampled to 16 nm" in panel.model.text.text()
    assert "megapixels/s" in run_panel(panel)
    layer, source = model.layers["field · tiny"], model.layers["field"]
    found = micrograph_from_layer(layer)
    if resample == "auto":
        assert found.shape == (96, 96)
        assert found.pixel_size_nm == (10.0, 10.0)
        np.testing.assert_array_equal(layer.extent.world, source.extent.world)
    else:
        assert found.shape == (60, 60)
        assert found.pixel_size_nm == pytest.approx((16.0, 16.0))
    borders = [
        np.asarray(item.translate) - np.asarray(item.scale) / 2
        for item in (layer, source)
    ]
    np.testing.assert_allclose(*borders)
    assert "is resampled to 16 nm" in panel.figures.text()


def test_training_on_this_image_alone_is_offered_where_the_model_does_not_fit(
    panel, tmp_path, monkeypatch
):
    offer = panel.model.own_button
    assert offer.isHidden()
    panel.model.add_file(write_tiny_model(tmp_path, pixel_size_nm=(300, 300)))
    assert not offer.isHidden()
    assert models_module.OWN_IMAGE_TIME in panel.model.text.text()
    taken = []
    train = SimpleNamespace(take_noisy=taken.append)
    monkeypatch.setattr("napari_semsr.widgets.base.open_panel", lambda *_: train)
    offer.click()
    assert taken == [panel.layer.value]
    panel.model.add_file(write_tiny_model(tmp_path, name="b"))
    assert offer.isHidden()


@pytest.mark.broad
def test_the_row_for_other_pixel_sizes_is_shown_for_models_that_have_one(
    panel, tmp_path
):
    row = panel.form.get_widget("resample").native
    assert row.isHidden()
    panel.model.add_file(write_tiny_model(tmp_path, pixel_size_nm=(30, 30)))
    assert not row.isHidden()
    assert "the result is unreliable" in panel.model.text.text()
    panel.model.add_file(write_tiny_model(tmp_path, name="b", pixel_size_nm=(20, 20)))
    assert "is resampled" in panel.model.text.text()
    panel.form.set_values(resample="never")
    assert "not resampled, as requested" in panel.model.text.text()
    assert panel.form.create_options().resample == "never"


@pytest.mark.broad
def test_misfit_of_an_instrument_is_told_and_mapped(
    model, panel, run_panel, tmp_path, field
):
    assert not panel.misfit.native.isVisibleTo(panel)
    panel.model.add_file(write_tiny_model(tmp_path, training=TRAINED_ON))
    assert panel.misfit.native.isVisibleTo(panel)
    run_panel(panel)
    assert "of the input's contrast" in panel.figures.text()
    before = len(model.layers)
    panel.misfit.value = True
    run_panel(panel)
    assert len(model.layers) == before + 1
    shown = model.layers[-1]
    assert shown.name == "field · tiny · misfit (%)"
    assert shown.data.shape == (24, 24)
    assert shown.opacity < 1
    assert shown.colormap.name == "magma"
    assert tuple(shown.contrast_limits) == (0, 100)
    assert shown.scale == pytest.approx(4 * np.array(field.pixel_size_nm))


def grain(seed: int, side: int = 288, width: float = 1.5) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(side, side))
    return ndimage.gaussian_filter(noise, width)


@pytest.mark.broad
def test_a_tick_shows_where_an_image_is_unlike_the_training_place(
    model, panel, run_panel, tmp_path, add
):
    half = grain(1)
    half[:, 192:] = 2 * grain(2, width=4.0)[:, 192:]
    low, high = measure_percentiles(half)
    place = BlockFeatures.from_parts(
        [(grain(seed) - low) / (high - low) for seed in (3, 4)]
    )
    panel.layer.value = add(model, Micrograph(half, (10.0, 10.0), "half"))
    assert not panel.unfamiliar.native.isVisibleTo(panel)
    panel.model.add_file(
        write_tiny_model(
            tmp_path,
            training={FAMILIARITY: place.to_json()},
            input_scaling="percentiles",
        )
    )
    assert panel.unfamiliar.native.isVisibleTo(panel)
    assert not panel.unfamiliar.value
    run_panel(panel)
    assert "Unlike the training area" in panel.figures.text()
    assert (
        "half · tiny · distance to training area (unlike it above 1)"
        not in model.layers
    )
    panel.unfamiliar.value = True
    assert "existing result was kept" in run_panel(panel)
    shown = model.layers["half · tiny · distance to training area (unlike it above 1)"]
    assert shown.data.shape == (3, 3)
    assert shown.scale == pytest.approx((960, 960))
    assert (shown.data[:, 2] > 1).all()
    assert (shown.data[:, 0] < 1).all()


@pytest.mark.broad
def test_a_small_image_has_no_unfamiliar_map_and_says_so(
    panel, model, run_panel, tmp_path, add
):
    place = BlockFeatures.from_parts([grain(3), grain(4)])
    panel.layer.value = add(model, Micrograph(grain(1, 80), (10.0, 10.0), "small"))
    panel.model.add_file(
        write_tiny_model(tmp_path, training={FAMILIARITY: place.to_json()})
    )
    panel.unfamiliar.value = True
    assert "Enhanced in" in run_panel(panel)
    assert "must contain at least one block of 96 x 96 px" in panel.warning_label.text()
    panel.model.add_file(write_tiny_model(tmp_path, name="plain"))
    assert "plain does not record its training area" in panel.unmade.text()


@pytest.fixture
def knowing(tmp_path) -> Path:
    """A tiny network that learnt from a simulated instrument."""
    return write_tiny_model(tmp_path, training=TRAINED_ON)


@pytest.mark.broad
def test_a_result_that_is_there_is_mapped_and_not_made_again(
    model, panel, run_panel, knowing, computed, hold
):
    panel.model.add_file(knowing)
    run_panel(panel)
    tiles, names = len(computed), [layer.name for layer in model.layers]
    assert "field · tiny" in names
    panel.misfit.value = True
    assert "existing result was kept" in run_panel(panel)
    mapped = "field · tiny · misfit (%)"
    assert [layer.name for layer in model.layers] == [*names, mapped]
    assert len(computed) == tiles
    panel.misfit.value = False
    run_panel(panel)  # asked for itself it is made again
    assert len(computed) > tiles


@pytest.mark.parametrize("changed", ["plane", "pixel size", "strength"])
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
    elif changed == "pixel size":
        stack.scale = (1, 12, 12)
    else:
        panel.look.strength.value = 20
        finish(panel)
        assert result.metadata[STRENGTH_KEY] == 0.2
    panel.misfit.value = True
    assert "Enhanced and mapped" in run_panel(panel)
    shown = model.layers[-2]
    assert (shown is not result, "misfit" in model.layers[-1].name) == (True, True)
    assert STRENGTH_KEY not in shown.metadata


def test_a_ticked_map_that_cannot_be_made_says_why(model, panel, run_panel, tmp_path):
    panel.misfit.value = True
    assert "No map of the misfit: sem-restore" in panel.unmade.text()
    panel.model.add_file(write_tiny_model(tmp_path))
    assert "No map of the misfit: tiny" in panel.unmade.text()
    assert panel.misfit.native.isVisibleTo(panel)
    assert "Enhanced in" in run_panel(panel)
    assert [layer.name for layer in model.layers] == ["field", "field · tiny"]
    panel.misfit.value = False
    assert not panel.unmade.text()


def test_maps_that_fail_leave_the_result(panel, model, run_panel, knowing, add):
    flat = Micrograph(np.full((96, 96), 0.5, np.float32), (10.0, 10.0), "flat")
    panel.layer.value = add(model, flat)
    panel.model.add_file(knowing)
    panel.misfit.value = True
    assert "Enhanced in" in run_panel(panel)
    assert "flat shows little more than noise" in panel.warning_label.text()
    assert "flat · tiny" in model.layers


def test_stacks_have_no_maps_and_say_so(panel, model, knowing):
    stack = model.add_image(np.zeros((3, 96, 96), np.float32), name="stack")
    panel.model.add_file(knowing)
    panel.layer.value = stack
    panel.misfit.value = True
    assert not panel.unmade.text()
    panel.all_planes.value = True
    assert "untick All planes" in panel.unmade.text()


def adapted_model(shelf: Path, digest: str, name: str = "own-2026-01-02") -> None:
    """Put a model on the shelf that learnt from an optical image."""
    shelf.mkdir(parents=True, exist_ok=True)
    entry = {"digest": digest, "name": "field", "unit": "nm", "areas": []}
    learnt = [
        entry | {"role": "mosaic"},
        entry | {"role": "sem 1", "digest": "sha256:1"},
    ]
    write_tiny_model(shelf, name=name, training={"learnt_from": learnt})


@pytest.mark.parametrize("of", ["values", "history", "file", "sem", "none"])
def test_a_model_of_the_same_place_is_proposed_first(
    model, hold, add, exposures, tmp_path, monkeypatch, of
):
    shelf, path = tmp_path / "shelf", tmp_path / "field.ome.tif"
    monkeypatch.setenv("SEMSR_MODELS", str(shelf))
    image = exposures[0].replace(data=exposures[0].data[:96, :96], name="field")
    write(image, path)
    image = read(path) if of == "file" else image.replace(provenance=None)
    if of in ("history", "sem"):
        source = InputRecord(role="image", name="mosaic", digest="sha256:1")
        image = image.replace(provenance=Provenance(job="crop", inputs=(source,)))
    digest = {
        "values": lambda: run(digest_values(image)),
        "history": lambda: "sha256:1",
        "file": lambda: digest_path(path),
    }.get(of, lambda: "sha256:2")()
    adapted_model(shelf, digest)
    layer = add(model, image)
    if of == "file":
        layer.metadata[STORE_KEY] = str(path)
    panel = hold(EnhancePanel(model))
    own = panel.model.value == "own-2026-01-02"
    assert own == (of in ("values", "history", "file"))


def test_the_bundled_model_of_mosaics_is_called_a_preview(panel):
    panel.model.show_model("ssum-sem")
    assert "Preview model, trained on simulated samples" in panel.model.text.text()
    assert "Train on SEM" in panel.model.text.text()
    assert "ssum-sem (preview)" in [label for label, _ in list_installed_models()]


def test_an_image_unlike_the_training_place_is_warned_of(
    panel, run_panel, tmp_path, rng
):
    place = BlockFeatures.from_parts([rng.random((300, 300))])
    training = {FAMILIARITY: place.to_json()}
    panel.model.add_file(write_tiny_model(tmp_path, training=training))
    run_panel(panel)
    assert (
        "differs from the area that tiny was trained on" in panel.warning_label.text()
    )
    assert "Unlike the training area" in panel.figures.text()
