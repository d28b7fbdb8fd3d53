"""Networks with live normalisation through the engine: exact, frozen, resumed."""

import dataclasses

import dask.array as da
import numpy as np
import pytest
import torch
from torch import nn

from napari_semsr.core import Micrograph, WriteError, run
from napari_semsr.inference import enhance_array, enhance_lazy, lockstep as stepping
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.inference.plan import choose_strategy
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.sampled import SampledStatistics, draw_evenly, stratified
from napari_semsr.inference.statistics import Statistics
from napari_semsr.io.formats import read
from tests.enhancing import fill, store_for, tiles_of

SMALL = EnhanceOptions(tile=32, precision="fp32", device="cpu", memory_gb=1e-6)


def _uneven(rng, shape, dtype=np.uint8):
    field = rng.random(shape) * np.linspace(0.2, 1, shape[1])
    return (field * 255).astype(dtype)


def test_a_field_that_does_not_fit_runs_in_lockstep(make_loaded, whole, rng):
    image, loaded = _uneven(rng, (101, 75)), make_loaded("norm")
    expected = whole(image, loaded)
    steps = []
    for tile in (16, 40):
        options = SMALL.replace(tile=tile, norm="whole")
        job = enhance_array(Micrograph(image), loaded, options)
        result = run(job, steps.append)
        assert np.abs(result.data - expected).max() <= 1e-5 * np.ptp(expected)
        report = result.metadata["enhance"]
        assert report["norm"] == "whole"
        assert report["tile_mismatch"] <= 1e-5
        assert report["seam_index"] > 0.5
        assert report["tiles"] == np.prod([-(-n // tile) for n in image.shape])
        assert "step together through 2 layers" in report["notes"][0]
        assert "on disk" in report["notes"][0]
    messages = {step.message for step in steps}
    assert "Layer 2 of 2: tiles step together" in messages


def test_lockstep_knows_missing_pixels_types_and_lazy_input(make_loaded, rng):
    image = _uneven(rng, (70, 64), np.float32)
    image[20:23, 30:33] = np.nan
    loaded = make_loaded("norm")
    once = run(enhance_array(Micrograph(image), loaded, SMALL.replace(memory_gb=None)))
    lazy = Micrograph(da.from_array(image, chunks=25))
    tiled = run(enhance_array(lazy, loaded, SMALL.replace(norm="whole")))
    np.testing.assert_array_equal(np.isnan(tiled.data), np.isnan(image))
    np.testing.assert_allclose(tiled.data, once.data, atol=1e-3)
    options = SMALL.replace(norm="whole", dtype="uint8")
    assert run(enhance_array(Micrograph(image), loaded, options)).dtype == np.uint8


def test_lockstep_runs_in_mixed_precision(make_loaded, whole, rng):
    image, loaded = _uneven(rng, (72, 60)), make_loaded("norm")
    expected = whole(image, loaded)
    options = SMALL.replace(norm="whole", precision="bf16")
    result = run(enhance_array(Micrograph(image), loaded, options))
    assert np.abs(result.data - expected).max() <= 0.03 * np.ptp(expected)


@pytest.mark.broad
def test_exact_statistics_serve_a_lazy_field(make_loaded, whole, rng):
    image, loaded = _uneven(rng, (90, 75)), make_loaded("norm")
    expected = whole(image, loaded)
    lazy = enhance_lazy(Micrograph(image), loaded, SMALL.replace(norm="whole"))
    assert lazy.numblocks == (3, 3)
    assert np.abs(lazy.compute() - expected).max() <= 1e-5 * np.ptp(expected)
    sampled = enhance_lazy(Micrograph(image), loaded, SMALL.replace(norm="sampled"))
    assert 0 < np.abs(sampled.compute() - expected).max() < np.ptp(expected)


def _store(tmp_path, image, loaded, options, **how):
    return store_for(tmp_path / "out.ome.zarr", image, loaded, options, **how)


@pytest.mark.parametrize(
    "norm", ["whole", pytest.param("sampled", marks=pytest.mark.broad)]
)
def test_a_resumed_run_is_identical(norm, make_loaded, rng, tmp_path, monkeypatch):
    image, loaded = Micrograph(_uneven(rng, (161, 130))), make_loaded("norm")
    options = SMALL.replace(norm=norm)
    expected = run(enhance_array(image, loaded, options))
    store = _store(tmp_path, image, loaded, options)
    job = fill(image, loaded, store, options)
    while len(store.pending()) > 23:
        next(job)
    job.close()
    notes = store.notes()
    kept = notes["statistics" if norm == "whole" else "frozen"]
    if norm == "whole":
        assert Statistics.from_json(kept).exact
        monkeypatch.setattr(stepping.Gathered, "pooled", None)  # nothing measured again
    else:
        assert SampledStatistics.from_json(kept).sampled >= 8
        monkeypatch.setattr("napari_semsr.inference.sampled.measure_sample", None)
    again = _store(tmp_path, image, loaded, options, resume=True)
    report = run(fill(image, loaded, again, options))
    assert 0 < report.resumed < 30
    found = read(tmp_path / "out.ome.zarr").array()
    np.testing.assert_array_equal(found, expected.data)


def test_damaged_statistics_are_a_sentence():
    damaged = (
        (Statistics, {"layers": [{"mean": "?"}]}),
        (SampledStatistics, {"statistics": 3}),
    )
    for kind, notes in damaged:
        with pytest.raises(WriteError, match="--overwrite"):
            kind.from_json(notes)


@pytest.mark.broad
def test_sampled_statistics_say_how_far_off_they_are(make_loaded, whole, rng):
    image = _uneven(rng, (320, 320))
    image[:, 160:] //= 2
    loaded = make_loaded("norm")
    expected = whole(image, loaded)
    options = SMALL.replace(norm="sampled", tile=16)
    result = run(enhance_array(Micrograph(image), loaded, options))
    report = result.metadata["enhance"]
    assert report["norm"] == "sampled"
    assert "Approximate" in report["notes"][0]
    measured = float(np.sqrt(np.mean((result.data - expected) ** 2)) / expected.std())
    assert measured / 3 < report["norm_error"] < 3 * measured
    naive = run(enhance_array(Micrograph(image), loaded, options.replace(norm="tile")))
    worse = np.sqrt(np.mean((naive.data - expected) ** 2)) / expected.std()
    assert measured < worse
    assert report["tile_mismatch"] <= 1e-5 < naive.metadata["enhance"]["tile_mismatch"]


def _way(loaded, shape, before=None, **options):
    chosen = SMALL.replace(**options)
    predictor = Predictor(loaded, device="cpu", precision="fp32")
    plan = tiles_of(shape, loaded, predictor.probe, chosen)
    return choose_strategy(predictor, chosen, plan, before)


def test_the_way_follows_from_network_memory_wish_and_what_was_begun(make_loaded):
    norm, shape = make_loaded("norm"), (400, 400)
    once = _way(norm, shape, memory_gb=8)
    assert once.kind == "whole"
    assert "run whole" in once.notes[0]
    assert _way(norm, shape).kind == "lockstep"
    assert _way(norm, shape, norm="sampled").kind == "tiles"
    assert _way(norm, shape, norm="tile").norm == "tile"
    assert _way(make_loaded("plain"), shape, norm="sampled").norm == "none"
    begun = _way(norm, shape, tile=16, memory_gb=4e-3)
    assert begun.lockstep.tiles.core > 16
    for memory in (1e-6, 8):
        again = _way(norm, shape, begun.record(), tile=16, memory_gb=memory)
        assert again.lockstep.tiles == begun.lockstep.tiles
    for stored in ("sampled", "frozen"):  # its former name
        record = {"norm": stored, "kind": "tiles", "core": None}
        assert _way(norm, shape, record).norm == "sampled"


def test_exactness_is_given_up_only_where_it_is_too_dear(make_loaded, monkeypatch):
    norm, shape = make_loaded("norm"), (400, 400)
    monkeypatch.setattr("napari_semsr.inference.plan.TOO_DEAR", 1e-3)
    assert _way(norm, shape, norm="whole").norm == "whole"
    given_up = _way(norm, shape)
    assert given_up.norm == "sampled"
    assert "--norm whole insists" in given_up.notes[0]


def test_strata_draw_evenly(rng):
    mean = rng.random(100)
    order = stratified(mean, rng.random(100), 10)
    assert sorted(order) == list(range(100))
    drawn = draw_evenly(order, 10, rng)
    assert len(set(drawn)) == 10
    assert abs(mean[drawn].mean() - mean.mean()) < 0.1
    assert draw_evenly(order, 500, rng) == order


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
        result = run(enhance_array(Micrograph(image), loaded, options))
        errors.append(np.abs(result.data - expected).max() / np.ptp(expected))
    report = result.metadata["enhance"]
    assert 5 < report["halo_px"] < 21
    assert "instead of the exact 21" in report["notes"][0]
    assert errors[0] <= 1e-5 < errors[1] < 0.05
