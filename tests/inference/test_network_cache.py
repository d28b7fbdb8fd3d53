"""Figures of a network that are kept, and never believed of anybody else."""

import json

import pytest

from napari_semsr.inference import predictor as measured
from napari_semsr.inference.predictor import Predictor, cache_folder


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty cache for each test."""
    monkeypatch.setenv("SEMSR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "networks"


def _figures(loaded):
    predictor = Predictor(loaded, device="cpu", precision="fp32")
    narrow = predictor.effective_probe(0.01)
    return predictor.probe, narrow, predictor.bytes_per_pixel


@pytest.mark.parametrize("kind", ["norm", "plain", "global"])
def test_a_second_start_measures_nothing(kind, make_loaded, monkeypatch):
    loaded = make_loaded(kind)
    first = _figures(loaded)
    models = "napari_semsr.models"
    monkeypatch.setattr(f"{models}.probe_network", None)
    monkeypatch.setattr(f"{models}.measure_effective_halo", None)
    monkeypatch.setattr(measured, "measure_peak_bytes", None)
    again = make_loaded(kind)  # a network of the same weights, as after a new start
    assert again.module is not loaded.module
    assert _figures(again) == first


def test_what_a_card_claims_is_not_believed(make_loaded, caplog):
    loaded = make_loaded("plain", receptive_field=1)
    assert Predictor(loaded, device="cpu").probe.halo == 3
    assert "states a receptive field of 1 px, but 3 px were measured" in caplog.text


@pytest.mark.parametrize("damage", ["[1, 2]", {"halo": 16}])
def test_what_is_damaged_is_measured_anew(damage, make_loaded, folder):
    loaded = make_loaded("norm")
    expected = Predictor(loaded, device="cpu").probe
    (path,) = folder.iterdir()
    if isinstance(damage, str):
        path.write_text(damage)
    else:
        (key,) = json.loads(path.read_text())
        path.write_text(json.dumps({key: damage}))
    assert Predictor(make_loaded("norm"), device="cpu").probe == expected
    (key,) = json.loads(path.read_text())
    assert json.loads(path.read_text())[key]["halo"] == expected.halo


def test_a_cache_is_done_without_if_need_be(make_loaded, tmp_path, monkeypatch):
    monkeypatch.delenv("SEMSR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "napari-semsr"
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("SEMSR_CACHE", str(file))
    assert Predictor(make_loaded("plain"), device="cpu").probe.halo == 3
