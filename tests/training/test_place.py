import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_semsr.analysis import measure_metrics
from napari_semsr.core import (
    CheckpointError,
    Micrograph,
    ShapeError,
    capture_warnings,
    get_error_code,
    run,
)
from napari_semsr.jobs import ENHANCE
from napari_semsr.models import save_model
from napari_semsr.training import (
    AreaImages,
    AreaOptions,
    AreaProgress,
    fit_area,
    load_area_state,
    place as area_training,
    save_area_state,
)
from tests.refusals import refused

QUICK = AreaOptions(patch_px=32, batch=2, copies=1, learning_rate=2e-3)


def place(seed=0, side=96):
    rng = np.random.default_rng(seed)
    high = np.zeros((side, side))
    for _ in range(side**2 // 300):
        y, x = rng.integers(0, side, 2)
        high[y : y + rng.integers(3, 12), x : x + rng.integers(3, 12)] = rng.random()
    low = 500 + 200 * ndimage.gaussian_filter(high, 2) + rng.normal(0, 1, high.shape)
    held_out = np.zeros(high.shape, bool)
    held_out[2 * side // 3 :] = True
    return AreaImages(low.astype(np.float32), (90 * high).astype(np.float32), held_out)


def fit(images, steps, options=QUICK, **more):
    more = {"seconds": None, "threads": 1, "report_every_s": 1e9, **more}
    return run(fit_area(images, options, steps=steps, **more))


def weights(found):
    return torch.cat([value.flatten() for value in found.network.state_dict().values()])


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(area_training, "_LIGHT_STEPS", 5)


@pytest.fixture(scope="module")
def images():
    return [place()]


def test_a_training_gains_on_what_is_held_out(images):
    assert fit(images, 0).curve == []
    found = fit(images, 60)
    assert found.curve[-1]["gain_db"] > 0.5
    assert found.explained is None  # without a cut-off


def test_a_resumed_training_equals_an_uninterrupted_one(images, tmp_path):
    first = fit(images, 2)
    save_area_state(tmp_path / "state.pt", first.state)
    state = load_area_state(tmp_path / "state.pt")
    resumed = fit(images, 5, state=state)
    assert resumed.steps == 5
    optics = [found.state["light"].values() for found in (first, resumed)]
    assert all(torch.equal(*pair) for pair in zip(*optics, strict=True))
    assert torch.equal(weights(resumed), weights(fit(images, 5)))


def test_a_state_of_other_options_is_refused(images):
    state, (one,) = fit(images, 1).state, images
    high = one.high.copy()
    high[5, 5] += 1
    changed = [AreaImages(one.low, high, one.held_out)]
    for given, options in ((images, QUICK.replace(batch=3)), (changed, QUICK)):
        with refused(CheckpointError, "other-run"):
            fit(given, 2, options, state=state)


def test_a_damaged_state_is_refused(tmp_path):
    path = tmp_path / "state.pt"
    path.write_bytes(b"nothing")
    with refused(CheckpointError, "file-damaged"):
        load_area_state(path)


def test_the_gain_below_the_cut_off_is_that_of_the_evaluation(images):
    optics = {"cut_off_nm": 200.0, "pixel_size_nm": (20.0, 20.0)}
    reports, (one,) = [], images
    job = fit_area(images, QUICK, seconds=None, steps=30, threads=1, **optics)
    run(job, lambda one: reports.append(one) if isinstance(one, AreaProgress) else None)
    truth = Micrograph(one.high[64:].astype(float), (20.0, 20.0))
    how = {"match": "affine", "data_range": 90.0, "cut_off_nm": 200.0}
    (shown,) = reports[-1].images
    assert 450 < np.median(shown) < 750  # grey values of light
    before, after = (
        measure_metrics(truth.replace(data=plane.astype(float)), truth, **how)
        for plane in (one.low[64:], shown)
    )
    left = [found.band_errors[0].sum() for found in (before, after)]
    gain = 10 * np.log10(left[0] / left[1])
    assert reports[-1].gain_below_cutoff_db == pytest.approx(gain, abs=0.01)
    assert reports[-1].gain_db != pytest.approx(gain, abs=0.1)


def test_nothing_is_learnt_from_what_is_held_out(images):
    (one,) = images
    spoilt = one.high.copy()
    spoilt[one.held_out] = 1e3
    other = AreaImages(one.low, spoilt, one.held_out)
    assert torch.equal(weights(fit([other], 2)), weights(fit(images, 2)))


@pytest.mark.broad
def test_a_scan_of_which_less_is_explained_is_warned_of(tmp_path, monkeypatch):
    monkeypatch.setattr(area_training, "_LIGHT_STEPS", 60)
    pixel = (20.0, 20.0)
    found = fit([place(side=288)], 60, cut_off_nm=100.0, pixel_size_nm=pixel)
    percent = 100 * found.explained["share"]
    assert 50 < percent < 100
    path, scan = tmp_path / "own.safetensors", place(1, 240).low
    card = found.create_card("own", input_scaling="percentiles", pixel_size_nm=pixel)
    save_model(path, found.network, card, beside=found.state["light"])
    noise = np.random.default_rng(1).normal(0, 80, scan.shape).astype(np.float32)
    for data, is_warned in ((scan, False), (scan + noise, True)):
        heard, target = [], tmp_path / f"{is_warned}.ome.zarr"
        with capture_warnings(heard.append):
            made = run(ENHANCE.job(Micrograph(data, pixel, "m"), target, model=path))
        assert ("image-unfamiliar" in map(get_error_code, heard)) == is_warned
        assert (
            made.explained_percent < 100 * found.explained["share"] - 1
        ) == is_warned


@pytest.mark.broad
def test_copies_are_made_where_a_network_predicts_the_light(monkeypatch):
    monkeypatch.setattr(area_training, "_LIGHT_STEPS", 240)
    one, other = place(side=128), place(1, 128)
    folded = np.abs(one.high - 45)  # raised and sunk look alike, so that no filter does
    for high, copies in ((folded, 1), (other.high, 0)):
        found = fit([AreaImages(one.low, high, one.held_out)], 1)
        assert (found.copies, found.light_explained > 0.5) == (copies, copies == 1)


def test_the_state_is_saved_when_a_job_is_closed(images):
    saved = []
    job = fit_area(images, QUICK, seconds=None, threads=1, save=saved.append)
    while not isinstance(next(job), AreaProgress):
        pass
    job.close()
    assert saved[-1]["steps"] > 0


def test_a_card_states_grey_values_and_halo(images):
    card = fit(images, 1, levels=(400.0, 900.0)).create_card("mine")
    assert card.input_scaling == "levels"
    assert card.input_levels == (400.0, 900.0)  # of a larger image
    assert card.receptive_field > 50
    assert not card.norms
    assert card.training["steps"] == 1


def test_images_of_two_grids_and_a_place_without_sem_are_refused(images):
    with refused(ShapeError, "sizes-differ"):
        AreaImages(np.zeros((8, 8)), np.zeros((8, 9)))
    (one,) = images
    with refused(ShapeError, "nothing-to-train"):
        fit([AreaImages(one.low, np.full_like(one.high, np.nan))], 1)


def test_several_parts_missing_pixels_and_equal_images_are_trained_on(images):
    (one,) = images
    holed, dark = one.high.copy(), one.low.copy()
    holed[:20] = np.nan
    dark[75:, :30] = np.nan
    found = fit([one, AreaImages(dark, holed, one.held_out)], 2)
    assert torch.isfinite(weights(found)).all()
    same = AreaImages(one.low, one.low)
    assert torch.isfinite(weights(fit([same], 2, QUICK.replace(copies=0)))).all()
