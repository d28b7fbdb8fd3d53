import numpy as np
import pytest
from scipy import ndimage

import napari_semsr as semsr
from napari_semsr.core import CheckpointError, WriteError, run
from napari_semsr.jobs import models as shelf
from napari_semsr.models import DEFAULT_MODEL, find_model, load_model, save_model
from tests.refusals import refused

pytestmark = pytest.mark.usefixtures("own_shelf")


@pytest.fixture
def other(tmp_path):
    """A model file with a name of its own."""
    loaded = load_model(find_model(DEFAULT_MODEL))
    path = tmp_path / "file.safetensors"
    card = loaded.card.model_copy(update={"name": "other"})
    save_model(path, loaded.module, card)
    return path


def test_export_then_import_then_find(other, own_shelf, tmp_path):
    made = run(shelf.import_model.job(other))
    assert not made.bundled
    assert find_model("other") == own_shelf / "other.safetensors"
    assert "other" in [row["name"] for row in run(shelf.list_models.job()).models]
    copy = run(shelf.export_model.job("other", tmp_path / "copy.safetensors"))
    assert copy.digest == made.digest == run(shelf.model_info.job(str(other))).digest


def test_import_never_replaces_unasked(other):
    run(shelf.import_model.job(other))
    with refused(WriteError, "name-taken"):
        run(shelf.import_model.job(other))
    run(shelf.import_model.job(other, overwrite=True))


def test_import_refuses_the_name_of_a_bundled_model():
    path = find_model(DEFAULT_MODEL)
    with refused(CheckpointError, "name-taken"):
        run(shelf.import_model.job(path, overwrite=True))


def test_list_models_names_the_fault_of_a_damaged_one(own_shelf):
    own_shelf.mkdir(parents=True)
    (own_shelf / "bad.safetensors").write_bytes(b"nothing")
    rows = {row["name"]: row for row in run(shelf.list_models.job()).models}
    assert "safetensors" in rows["bad"]["fault"]


@pytest.mark.parametrize("name", ["nobody", "../bad", "/etc/passwd/x", ""])
def test_find_model_refuses_unknown_names(name):
    with refused(CheckpointError, "model-unknown"):
        find_model(name)


def test_the_default_draws_no_stripes_beside_a_gap(rng):
    edge = np.where(np.arange(160) < 48, 50.0, 200.0)
    field = ndimage.gaussian_filter1d(np.tile(edge, (64, 1)), 4)
    field += rng.normal(0, 0.5, field.shape)
    field[:, 112:] = np.nan
    made = semsr.enhance(field.astype(np.float32), blur_px=4, device="cpu").array()
    np.testing.assert_allclose(made[16:48, 96:112], 200, atol=10)


@pytest.mark.parametrize(
    ("blur", "noise", "asked", "gap"),
    [
        (0, 0.6, 0.4, False),
        (1, 0.6, 1.0, False),
        (2, 2.4, None, False),
        (1, 0.6, 1.0, True),
    ],
    ids=str,
)
def test_sharpening_leaves_flat_areas_no_noisier(rng, blur, noise, asked, gap):
    y, x = np.mgrid[:192, :192]
    scene = 60 + 120.0 * (np.hypot(y % 96 - 48, x % 96 - 48) < 14)
    image = ndimage.gaussian_filter(scene, blur) + rng.normal(0, noise, scene.shape)
    image = np.rint(image).astype(np.uint8)
    if gap:
        image = np.where(y + x > 0, image, np.nan)
    made = semsr.enhance(image, model="sem-restore", blur_px=asked, device="cpu")
    flat = (np.hypot(y % 96 - 48, x % 96 - 48) > 34) & np.isfinite(image)
    assert made.array()[flat].std() < 1.02 * image[flat].std()
    if blur and asked:  # while edges are sharpened
        error, left = (np.nanstd(grey - scene) for grey in (image, made.array()))
        assert left < 0.75 * error
