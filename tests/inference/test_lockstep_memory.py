"""Memory that runs out while tiles step together."""

import logging

import numpy as np
import pytest
import torch

from napari_semsr.core.errors import DeviceMemoryError
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import run
from napari_semsr.inference import whole as once
from napari_semsr.inference.engine import (
    EnhanceOptions,
    create_output,
    enhance_array,
    enhance_to_store,
)
from napari_semsr.inference.lockstep_plan import halved, plan_lockstep
from napari_semsr.inference.lockstep_replay import TilePass
from napari_semsr.inference.lockstep_storage import NoRoomError, Room
from napari_semsr.inference.planning import choose_tiles
from napari_semsr.inference.predictor import Predictor

SMALL = EnhanceOptions(
    tile=64, precision="fp32", device="cpu", memory_gb=1e-6, norm="exact"
)


def _uneven(rng, shape):
    return (rng.random(shape) * np.linspace(50, 250, shape[1])).astype(np.uint8)


@pytest.fixture
def short(monkeypatch):
    """Let windows above a number of pixels fail, and count them."""
    failed = []

    def limit(pixels):
        begin = TilePass.begin

        def guarded(self, window):
            if window.numel() > pixels:
                failed.append(tuple(window.shape[2:]))
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
            return begin(self, window)

        monkeypatch.setattr(TilePass, "begin", guarded)
        return failed

    return limit


@pytest.mark.parametrize("tile", [64, 128])
def test_tiles_in_lockstep_are_halved_and_it_is_said(
    tile, make_loaded, whole, rng, short, tmp_path, caplog
):
    image, loaded = _uneven(rng, (145, 130)), make_loaded("norm")
    expected = whole(image, loaded)
    failed = short(60 * 60)
    micrograph, options = Micrograph(image), SMALL.replace(tile=tile)
    store = create_output(tmp_path / "a.ome.zarr", micrograph, loaded, options)
    steps = []
    with caplog.at_level(logging.WARNING, "napari_semsr"):
        report = run(enhance_to_store(micrograph, loaded, store, options), steps.append)
    assert len(failed) == tile // 64
    note = "Memory was short: tiles in lockstep were cut to 32 px."
    assert note in report.notes
    assert note in caplog.text
    assert note in {step.message for step in steps}
    assert store.notes()["way"]["core"] == 32
    assert np.abs(store.level0[:] - expected).max() <= 1e-5 * np.ptp(expected)


def test_a_run_that_was_cut_is_resumed_as_it_was(make_loaded, rng, short, tmp_path):
    image, loaded = Micrograph(_uneven(rng, (145, 130))), make_loaded("norm")
    short(60 * 60)
    path = tmp_path / "a.ome.zarr"
    store = create_output(path, image, loaded, SMALL)
    expected = run(enhance_array(image, loaded, SMALL)).data
    job = enhance_to_store(image, loaded, store, SMALL)
    while len(store.pending()) > 5:
        next(job)
    job.close()
    again = create_output(path, image, loaded, SMALL, resume=True)
    report = run(enhance_to_store(image, loaded, again, SMALL))
    assert report.resumed == 4
    np.testing.assert_array_equal(again.level0[:], expected)


def test_the_smallest_tile_that_fails_is_a_sentence(make_loaded, rng, short):
    image, loaded = Micrograph(_uneven(rng, (145, 130))), make_loaded("norm")
    short(100)
    with pytest.raises(DeviceMemoryError, match=r"cut to windows of \d+ px") as caught:
        run(enhance_array(image, loaded, SMALL))
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_not_met_with_smaller_tiles(
    make_loaded, rng, monkeypatch, tmp_path
):
    asked = []

    def take(self, size):
        asked.append(size)
        raise NoRoomError("full")

    monkeypatch.setattr(Room, "take", take)
    image, loaded = Micrograph(_uneven(rng, (145, 130))), make_loaded("norm")
    with pytest.raises(NoRoomError, match="full"):
        run(enhance_array(image, loaded, SMALL))
    assert len(asked) == 1


def test_a_field_that_does_not_fit_after_all_goes_in_lockstep(
    make_loaded, whole, rng, monkeypatch
):
    image, loaded = _uneven(rng, (145, 130)), make_loaded("norm")
    expected = whole(image, loaded)

    def fail(self, window, scaling):
        raise DeviceMemoryError("Device cuda has no memory left.")

    monkeypatch.setattr(once.Predictor, "predict", fail)
    options = SMALL.replace(memory_gb=8.0)
    made = run(enhance_array(Micrograph(image), loaded, options))
    report = made.metadata["enhance"]
    assert any("the field is not run whole" in note for note in report["notes"])
    assert np.abs(made.data - expected).max() <= 1e-5 * np.ptp(expected)


def test_halves_divide_the_tiles_of_the_output(make_loaded):
    loaded = make_loaded("norm")
    predictor = Predictor(loaded, device="cpu", precision="fp32")
    plan = choose_tiles((1000, 900), loaded.card, predictor.probe, tile=96)
    found = plan_lockstep(predictor, plan, 10**12, core=480)
    cores = []
    while found is not None:
        cores.append(found.tiles.core)
        found = halved(predictor, found, 96)
    assert cores == [480, 192, 96, 48]
