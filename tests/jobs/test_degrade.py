import numpy as np
import pytest

import napari_semsr
from napari_semsr.core.errors import OptionError
from napari_semsr.core.progress import run
from napari_semsr.jobs.degrade import DEGRADE, DegradeOptions
from tests.refusals import refused


@pytest.fixture
def grey(scene):
    return scene.truth.replace(data=np.rint(scene.truth.data * 255).astype(np.uint8))


def test_noise_alone_has_the_stated_variance(grey):
    flat = grey.replace(data=np.full((200, 200), 128, np.uint8))
    made = napari_semsr.degrade(flat, kind="none", photons=100, read_noise=3)
    assert made.dtype == np.uint8
    variance = 255**2 * (128 / 255) / 100 + 9 + 1 / 12
    assert made.array().astype(float).var() == pytest.approx(variance, rel=0.05)
    assert made.provenance.options["photons"] == 100


def test_values_below_zero_keep_their_contrast(grey):
    signed = grey.replace(data=grey.data.astype(np.int16) * 100 - 20000)
    made = napari_semsr.degrade(signed, kind="none", photons=200)
    assert made.array().min() < -15000
    assert np.corrcoef(made.array().ravel(), signed.data.ravel())[0, 1] > 0.9


def test_effects_come_on_top_of_a_kind(grey):
    plain = napari_semsr.degrade(grey, kind="hybrid", seed=1).array().astype(float)
    quiet = napari_semsr.degrade(grey, kind="hybrid", seed=1, read_noise=0.01)
    assert np.abs(quiet.array() - plain).max() <= 1  # rounding, once
    moved = napari_semsr.degrade(grey, kind="hybrid", seed=1, drift_px=5)
    assert np.abs(moved.array() - plain).max() > 5


def test_haze_draws_to_one_grey_level_whatever_else_is_done(grey):
    dim = grey.replace(data=grey.data // 3 + 60)
    haze = {"kind": "fog", "uniform_fog": True, "airlight": 200.0, "stretch": False}
    plain, quiet = (
        napari_semsr.degrade(dim, **haze, **more).array().astype(float)
        for more in ({}, {"read_noise": 0.01})
    )
    assert np.abs(quiet - plain).max() <= 1  # rounding, once


def test_parameters_are_told_and_the_file_is_repeatable(grey, tmp_path):
    options = DegradeOptions(kind="fog", charging=0.3, photons=200, seed=2)
    first, second = (
        run(DEGRADE.job(grey, output=tmp_path / f"{name}.tif", options=options))
        for name in "ab"
    )
    assert {"beta", "charging", "photons", "white"} <= set(first.parameters)
    assert str(first.figures()["Beta"]) == "1.5, 2.5"
    np.testing.assert_array_equal(
        *(napari_semsr.read(m.output).array() for m in (first, second))
    )


def test_missing_pixels_are_refused(grey):
    hole = grey.replace(data=np.diag([np.nan] * 9).astype(np.float32))
    for how in ({"kind": "none", "photons": 5}, {"kind": "fog"}):
        with refused(OptionError, "pixels-missing", match=f"{grey.name} .* 9 "):
            napari_semsr.degrade(hole, **how)


def test_missing_pixels_of_a_scanned_image_are_refused_by_its_name(grey, tmp_path):
    hole = grey.replace(data=np.diag([np.nan] * 200).astype(np.float32))
    with refused(OptionError, "pixels-missing", match=grey.name):
        napari_semsr.simulate(
            tmp_path / "scan", hole, frames_grid=(1, 2), frame_px=64, field="square"
        )


def test_none_and_nothing_returns_the_image(grey):
    made = napari_semsr.degrade(grey, kind="none")
    np.testing.assert_array_equal(made.array(), grey.array())
