import signal
import sys
import time
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest

import napari_semsr as semsr
from napari_semsr.core import Micrograph, Provenance, parse_pixel_size, run
from napari_semsr.core.errors import (
    DeviceMemoryError,
    OptionError,
    ReadError,
    ShapeError,
)
from napari_semsr.inference import EnhanceOptions, engine, enhance_in_memory
from napari_semsr.io import create_store, read, write
from tests import children
from tests.enhancing import fill, store_for
from tests.refusals import refused
from tests.stopping import stop_at

FP32 = EnhanceOptions(tile=32, precision="fp32", device="cpu")


def _field(rng, shape, dtype=np.uint8):
    return (rng.random(shape) * 255).astype(dtype)


def _enhanced(image, loaded, **options):
    return run(enhance_in_memory(Micrograph(image), loaded, FP32.replace(**options)))


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        *(("plain", (101, 75)), ("plain", (130, 2)), ("double", (1, 1))),
        *(("double", (33, 31)), ("strided", (101, 75)), ("finer", (101, 75))),
        ("place", (101, 75)),
    ],
    ids=str,
)
def test_tiles_equal_the_whole(kind, shape, make_loaded, whole, rng):
    image, loaded = _field(rng, shape), make_loaded(kind)
    expected = whole(image, loaded)
    for tile in (16, 40):
        result = _enhanced(image, loaded, tile=tile)
        assert result.dtype == np.float32
        error = np.abs(result.data - expected).max()
        assert error <= 1e-5 * max(np.ptp(expected), 1)
        report = result.metadata["enhance"]
        assert report["norm"] == "none"
        if kind in ("plain", "double", "strided"):
            assert report["tiles"] == np.prod([-(-n // tile) for n in shape])
            assert not report["tile_mismatch"] > 1e-5


@pytest.mark.parametrize("dtype", ["int16", ">u2", "i4", "f4", "f8", "bool"])
def test_an_identity_returns_its_input_for_any_type(dtype, make_loaded, rng):
    image = (rng.random((40, 50)) * 3000).astype(dtype)
    result = _enhanced(image, make_loaded("identity"))
    np.testing.assert_allclose(result.data, image.astype(np.float64), atol=1e-3)
    lazy = da.from_array(image, chunks=(13, 29))
    same = _enhanced(lazy, make_loaded("identity"))
    np.testing.assert_array_equal(same.data, result.data)


def test_missing_pixels_stay_missing_and_do_not_spread(make_loaded, rng):
    image = _field(rng, (70, 64), np.float32)
    image[20:23, 30:33] = np.nan
    image[40, 32] = np.inf
    for kind, scale in (("plain", 1), ("double", 2)):
        loaded = make_loaded(kind)
        results = [_enhanced(image, loaded, tile=t).data for t in (16, 32, 80)]
        blocks = np.isfinite(image).repeat(scale, 0).repeat(scale, 1)
        for result in results:
            np.testing.assert_array_equal(np.isfinite(result), blocks)
            np.testing.assert_allclose(result, results[0], atol=1e-3)
    with refused(ReadError, "no-finite-values"):
        _enhanced(np.full((20, 20), np.nan), make_loaded("plain"))


def test_scale_and_calibration_go_together(make_loaded, rng):
    plain, size = _field(rng, (20, 30)), parse_pixel_size((4.0, 6.0))
    image = Micrograph(plain, size, origin=(100.0, 0.0))
    made = Provenance(job="enhance")
    result = run(enhance_in_memory(image, make_loaded("double"), FP32, provenance=made))
    assert result.provenance == made
    assert result.shape == (40, 60)
    assert result.pixel_size_nm == (2.0, 3.0)
    assert result.origin == (99.0, -1.5)
    unsized = _enhanced(plain, make_loaded("double"))
    assert unsized.pixel_size_nm is None
    assert unsized.spacing_px == (0.5, 0.5)


def test_conversion_rounds_clips_and_is_reported(make_loaded, rng):
    image = _field(rng, (40, 40), np.float32) * 2
    result = _enhanced(image, make_loaded("identity"), dtype="uint8")
    assert result.dtype == np.uint8
    assert np.abs(result.data - np.clip(np.rint(image), 0, 255)).max() <= 1
    assert result.metadata["enhance"]["clipped"] == (np.rint(image) > 255).sum()


@pytest.mark.parametrize("kind", ["norm", "global"])
def test_live_statistics_run_the_field_whole(kind, make_loaded, whole, rng):
    image, loaded = _field(rng, (72, 90)), make_loaded(kind)
    result, expected = _enhanced(image, loaded), whole(image, loaded)
    assert np.abs(result.data - expected).max() <= 1e-5 * np.ptp(expected)
    report = result.metadata["enhance"]
    assert (report["norm"], report["tiles"]) == ("whole", 9)


def test_statistics_of_each_tile_leave_seams_and_say_so(make_loaded, rng):
    image = _field(rng, (64, 64))
    image[:, :32] //= 4
    report = _enhanced(image, make_loaded("norm"), norm="tile").metadata["enhance"]
    assert report["norm"] == "tile"
    assert report["tile_mismatch"] > 1e-3


def test_what_is_not_there_is_refused_in_a_sentence(make_loaded, monkeypatch):
    image = np.zeros((40, 40), np.uint8)
    for norm in ("tile", "sampled"):
        with refused(OptionError, "receptive-field-unbounded"):
            _enhanced(image, make_loaded("global"), norm=norm)
    monkeypatch.setattr(engine.Predictor, "fits_in_memory", lambda *_: False)
    with refused(DeviceMemoryError, "field-too-large"):
        _enhanced(image, make_loaded("global"))
    plain = _enhanced(image, make_loaded("plain"), norm="sampled")
    assert plain.metadata["enhance"]["norm"] == "none"
    for name, value in (("dtype", "complex64"), ("device", "tpu")):
        with refused(OptionError, "unknown-value", match=f"`{name}`"):
            EnhanceOptions.parse({name: value})


def test_short_memory_cuts_tiles_and_says_so(make_loaded, whole, rng, monkeypatch):
    image, loaded = _field(rng, (150, 140)), make_loaded("tiny")
    result = _enhanced(image, loaded, tile=128)
    monkeypatch.setattr(type(loaded.module), "limit", 10**9)
    expected = whole(image, loaded)
    assert np.abs(result.data - expected).max() <= 1e-5 * np.ptp(expected)
    (note,) = result.metadata["enhance"]["notes"]
    assert note == "Not enough memory: tiles are computed in pieces of 64 px."
    monkeypatch.setattr(type(loaded.module), "limit", 30 * 30)
    with refused(DeviceMemoryError, "device-memory", match="38 px"):
        _enhanced(image, loaded, tile=128)


def _store(tmp_path, image, loaded, options=FP32, **how):
    return store_for(tmp_path / "out.ome.zarr", image, loaded, options, **how)


def test_a_store_holds_what_an_array_would(make_loaded, rng, tmp_path):
    image = Micrograph(_field(rng, (90, 70)), parse_pixel_size(5.0), "chip")
    loaded = make_loaded("double")
    store = _store(tmp_path, image, loaded)
    report = run(fill(image, loaded, store, FP32))
    found = read(tmp_path / "out.ome.zarr")
    expected = run(enhance_in_memory(image, loaded, FP32))
    np.testing.assert_array_equal(found.array(), expected.data)
    assert found.pixel_size_nm == (2.5, 2.5)
    assert found.origin == expected.origin
    assert store.unit == (64, 64)
    assert report.tiles == store.read_notes()["report"]["tiles"] == 9
    assert report.peak_memory_mb > 1


def test_fields_that_step_at_borders_have_a_report(make_loaded, tmp_path, rng):
    image = Micrograph(_field(rng, (4, 4)).repeat(16, 0).repeat(16, 1))
    loaded, options = make_loaded("identity"), FP32.replace(tile=16)
    store = _store(tmp_path, image, loaded, options)
    report = run(fill(image, loaded, store, options))
    assert report.seam_index == np.inf
    assert report.seam == "no seam: tiles are equal"
    differing = replace(report, tile_mismatch=0.1, seam_index=2.874)
    assert differing.seam == "2.874 (1: no seam)"
    assert replace(differing, tiles=1).seam == "none: one tile"
    assert store.read_notes()["report"]["seam_index"] is None


def test_a_stopped_run_is_resumed_where_it_was(make_loaded, rng, tmp_path):
    image, loaded = Micrograph(_field(rng, (130, 100))), make_loaded("strided")
    store = _store(tmp_path, image, loaded)
    stop_at(fill(image, loaded, store, FP32), "", 4)
    again = _store(tmp_path, image, loaded, resume=True)
    assert not again.is_complete
    left = len(again.pending_units())
    assert left <= 20 - 4
    report = run(fill(image, loaded, again, FP32))
    assert (report.tiles, report.resumed) == (20, 20 - left)
    complete = _store(tmp_path, image, loaded, resume=True)
    nothing = run(fill(image, loaded, complete, FP32))
    assert nothing.resumed == 20
    assert complete.read_notes()["report"]["resumed"] == report.resumed
    expected = run(enhance_in_memory(image, loaded, FP32)).data
    np.testing.assert_array_equal(read(tmp_path / "out.ome.zarr").array(), expected)


def test_a_tile_is_marked_only_after_its_pixels_are_written(
    make_loaded, rng, tmp_path, monkeypatch
):
    image, loaded = Micrograph(_field(rng, (60, 60))), make_loaded("identity")
    store = _store(tmp_path, image, loaded)
    marked = []

    def check(self, row, column):
        core = np.s_[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32]
        np.testing.assert_allclose(self.level0[core], image.data[core], atol=1e-3)
        marked.append((row, column))
        self.done_marks[row, column] = 1

    monkeypatch.setattr(type(store), "mark_done", check)
    run(fill(image, loaded, store, FP32))
    assert sorted(marked) == [(0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.mark.broad
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_a_killed_run_is_resumed_to_the_same_pixels(rng, tmp_path):
    image, path = tmp_path / "a.tif", tmp_path / "a.ome.zarr"
    write(Micrograph(_field(rng, (300, 280))), image)
    words = [sys.executable, "-m", "napari_semsr", "enhance", image, "-o", path]
    words += ["--tile", "32", "--precision", "fp32", "--device", "cpu"]
    with children.started(words) as child:
        while not list(path.glob("done/c/*/*")):
            assert child.poll() is None
            time.sleep(0.003)
        child.kill()
    assert children.run([*words, "--resume"]).returncode == 0
    whole = semsr.enhance(image, tile=32, precision="fp32", device="cpu")
    np.testing.assert_array_equal(read(path).array(), whole.array())


@pytest.mark.parametrize(
    ("device", "precision", "notes"),
    [("cpu: one", "bf16", 0), ("cuda:0: another", "fp32", 1)],
)
def test_a_run_goes_on_in_the_arithmetic_that_it_was_begun_in(
    device, notes, precision, make_loaded, rng, tmp_path
):
    image, loaded = Micrograph(_field(rng, (60, 60))), make_loaded("plain")
    made = Provenance(job="enhance", device=device, precision=precision)
    options = EnhanceOptions(tile=32, device="cpu")
    store = store_for(tmp_path / "a.ome.zarr", image, loaded, options, provenance=made)
    report = run(fill(image, loaded, store, options))
    assert (report.precision, len(report.notes)) == (precision, notes)
    alike = run(enhance_in_memory(image, loaded, options.replace(precision=precision)))
    np.testing.assert_array_equal(store.level0[:], alike.data)


def test_a_store_with_other_chunks_is_refused(make_loaded, tmp_path):
    image, loaded = Micrograph(np.zeros((60, 60))), make_loaded("plain")
    for shape in ((60, 60), (9, 9)):
        how = {"shape": shape, "dtype": "float32", "chunk": 20}
        store = create_store(tmp_path / f"{shape[0]}.zarr", **how)
        with refused(ShapeError, "grid-mismatch"):
            run(fill(image, loaded, store, FP32))
