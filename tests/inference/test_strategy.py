"""Networks with live norms through the engine: whole, by a sample, resumed."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from napari_semsr.core import DeviceMemoryError, Micrograph, SemsrError, WriteError, run
from napari_semsr.inference import EnhanceOptions, enhance_in_memory
from napari_semsr.inference.ensemble import FixedMoments, MeasuredMoments
from napari_semsr.inference.plan import (
    SampledStatistics,
    choose_strategy,
    draw_stratified_sample,
    stratify_tiles,
)
from napari_semsr.inference.predictor import Predictor
from napari_semsr.io import read
from tests.enhancing import fill, store_for, tiles_of
from tests.refusals import refused

SMALL = EnhanceOptions(tile=32, precision="fp32", device="cpu", memory_gb=1e-6)


def _uneven(rng, shape, dtype=np.uint8):
    field = rng.random(shape) * np.linspace(0.2, 1, shape[1])
    return (field * 255).astype(dtype)


def _apart(one, other):
    return float(np.sqrt(np.mean((one - other) ** 2)) / other.std())


@pytest.mark.parametrize("shape", [(101, 75), (160, 144)])
def test_a_field_that_does_not_fit_takes_statistics_of_a_sample(
    shape, make_loaded, whole, rng
):
    image, loaded = _uneven(rng, shape), make_loaded("norm")
    expected = whole(image, loaded)
    result = run(enhance_in_memory(Micrograph(image), loaded, SMALL.replace(tile=48)))
    report = result.metadata["enhance"]
    assert report["norm"] == "sampled"
    assert report["tile_mismatch"] <= 1e-5
    # all of the smaller field is in the sample: windows that end make the rest
    assert (report["norm_error"] == 0) == (shape[0] < 150)
    assert _apart(result.data, expected) <= max(0.02, 3 * report["norm_error"])


def test_a_pass_that_runs_out_of_memory_is_done_in_tiles(make_loaded, rng, monkeypatch):
    image, loaded = Micrograph(_uneven(rng, (160, 144))), make_loaded("norm")
    expected = run(enhance_in_memory(image, loaded, SMALL))
    predict = Predictor.predict

    def limited(self, windows, *given):
        if windows[0].size > 120 * 120:
            raise DeviceMemoryError("Device cuda has no memory left.")
        return predict(self, window, *given)

    monkeypatch.setattr(Predictor, "predict", limited)
    options = SMALL.replace(memory_gb=8.0)
    made = run(enhance_in_memory(image, loaded, options))
    report = made.metadata["enhance"]
    assert report["norm"] == "sampled"
    assert "Not enough memory: Device cuda has no memory left." in report["notes"]
    assert _apart(made.data, expected.data) < report["norm_error"]
    with refused(DeviceMemoryError, "field-too-large", match="`norm=sampled`"):
        run(enhance_in_memory(image, loaded, options.replace(norm="whole")))


def test_moments_in_double_precision_change_nothing_and_fit_one_network(make_loaded):
    network, field = make_loaded("norm").module, torch.rand(1, 1, 64, 52)
    with torch.no_grad():
        expected = network(field)
    with torch.no_grad(), MeasuredMoments() as mode:
        made = network(field)
    assert mode.count == 2
    assert float((made - expected).abs().max()) <= 1e-5 * float(expected.std())
    with torch.no_grad(), FixedMoments([]), refused(SemsrError, "statistics-mismatch"):
        network(field)


def _store(tmp_path, image, loaded, options, **how):
    return store_for(tmp_path / "out.ome.zarr", image, loaded, options, **how)


def test_a_resumed_run_is_identical(make_loaded, rng, tmp_path, monkeypatch):
    image, loaded = Micrograph(_uneven(rng, (161, 130))), make_loaded("norm")
    expected = run(enhance_in_memory(image, loaded, SMALL))
    store = _store(tmp_path, image, loaded, SMALL)
    job = fill(image, loaded, store, SMALL)
    while len(store.pending_units()) > 23:
        next(job)
    job.close()
    kept = store.read_notes()["frozen"]
    assert SampledStatistics.from_json(kept).sample_tiles >= 8
    monkeypatch.setattr("napari_semsr.inference.engine.measure_sample", None)
    again = _store(tmp_path, image, loaded, SMALL, resume=True)
    options = SMALL.replace(memory_gb=8)  # in which the field would fit by now
    report = run(fill(image, loaded, again, options))
    assert 0 < report.resumed < 30
    found = read(tmp_path / "out.ome.zarr").array()
    np.testing.assert_array_equal(found, expected.data)


def test_damaged_statistics_are_a_sentence():
    for layers in (3, [("?", [1.0])], {"layers": []}):
        with refused(WriteError, "file-damaged"):
            SampledStatistics.from_json({"statistics": layers})


def _way(loaded, shape, before=None, *, is_scattered=False, **options):
    chosen = SMALL.replace(**options)
    predictor = Predictor(loaded, device="cpu", precision="fp32")
    plan = tiles_of(shape, loaded, predictor.probe, chosen)
    return choose_strategy(predictor, chosen, plan, before, is_scattered=is_scattered)


def test_the_way_follows_from_network_memory_wish_and_what_was_begun(make_loaded):
    norm, shape = make_loaded("norm"), (400, 400)
    once = _way(norm, shape, memory_gb=8)
    assert once.kind == once.norm == "whole"
    assert "whole field is processed in one pass" in once.notes[0]
    assert _way(norm, shape, memory_gb=8, is_scattered=True) == once
    assert _way(norm, shape, norm="sampled").kind == "tiles"
    assert _way(norm, shape, norm="tile").norm == "tile"
    assert _way(make_loaded("plain"), shape, norm="sampled").norm == "none"
    assert _way(norm, shape, once.to_record(), memory_gb=8) == once
    with refused(DeviceMemoryError, "field-too-large", match="`overwrite`"):
        _way(norm, shape, once.to_record())
    for stored in ("sampled", "frozen"):  # its former name
        record = {"norm": stored, "kind": "tiles", "core": None}
        assert _way(norm, shape, record, memory_gb=8).norm == "sampled"


def test_strata_draw_evenly(rng):
    mean = rng.random(100)
    order = stratify_tiles(mean, rng.random(100), 10)
    assert sorted(order) == list(range(100))
    drawn = draw_stratified_sample(order, 10, rng)
    assert len(set(drawn)) == 10
    assert abs(mean[drawn].mean() - mean.mean()) < 0.1
    assert draw_stratified_sample(order, 500, rng) == order


def test_a_tolerance_narrows_the_halo_and_says_so(make_loaded, whole, rng):
    blur = nn.Conv2d(1, 1, 41, padding=20, bias=False)
    taps = torch.exp(-((torch.arange(41.0) - 20) ** 2) / 32)
    with torch.no_grad():
        blur.weight.copy_((taps[:, None] * taps)[None, None] / taps.sum() ** 2)
    image, plain = _uneven(rng, (90, 75)), make_loaded("plain")
    loaded = dataclasses.replace(plain, module=blur)
    expected = whole(image, loaded)
    errors = []
    for tolerance in (None, 0.01):
        options = SMALL.replace(halo_tolerance=tolerance)
        result = run(enhance_in_memory(Micrograph(image), loaded, options))
        errors.append(np.abs(result.data - expected).max() / np.ptp(expected))
    report = result.metadata["enhance"]
    assert 5 < report["halo_px"] < 21
    assert "instead of 21" in report["notes"][0]
    assert errors[0] <= 1e-5 < errors[1] < 0.05
