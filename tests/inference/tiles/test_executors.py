"""Tiles as tasks of this process: order, patience, and an end between two layers."""

import threading
import time

import numpy as np
import pytest
from torch import nn

from napari_semsr.core import Micrograph, Progress, run
from napari_semsr.inference import EnhanceOptions, enhance_in_memory
from napari_semsr.inference.engine import run_in_thread
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.tiles import TileWorker
from napari_semsr.models import LoadedModel, ModelCard
from tests.children import LIMIT_S
from tests.enhancing import fill, store_for

FP32 = EnhanceOptions(tile=32, precision="fp32", device="cpu")
_AFTER: list[int] = []


class _Gate(nn.Module):
    """A layer that can be held, and says when it is."""

    held = threading.Event()  # not copied with the network
    reached = threading.Event()
    opened = threading.Event()

    def forward(self, x):
        if self.held.is_set():
            self.reached.set()
            assert self.opened.wait(LIMIT_S)
        return x


class _After(nn.Module):
    def forward(self, x):
        if _Gate.held.is_set():
            _AFTER.append(1)
        return x


@pytest.fixture
def gated():
    """A network that waits in its first layer once it is told to."""
    for event in (_Gate.held, _Gate.reached, _Gate.opened):
        event.clear()
    _AFTER.clear()
    card = ModelCard(name="gated", architecture="srcnn", receptive_field=0)
    return LoadedModel(nn.Sequential(_Gate(), _After()).eval(), card, "sha256:0")


def test_no_layer_runs_after_a_cancel(gated, rng, tmp_path, monkeypatch):
    image = Micrograph(rng.random((100, 100), dtype=np.float32))
    store = store_for(tmp_path / "a.zarr", image, gated, FP32)
    job = fill(image, gated, store, FP32)
    while not next(job).message.startswith("Enhancing"):
        pass
    _Gate.held.set()
    while not _Gate.reached.is_set():  # steps go on while a layer computes
        next(job)
    done = len(store.pending_units())
    stop = TileWorker.stop

    def end_layer_when_stopped(worker):
        worker._cancel.set()  # noqa: SLF001 - the first that stopping does
        _Gate.opened.set()
        stop(worker)

    monkeypatch.setattr(TileWorker, "stop", end_layer_when_stopped)
    job.close()  # returns when the layer has ended, and nothing computes any more
    assert not _AFTER
    assert len(store.pending_units()) == done


class _Looks:
    """A predictor whose network has one layer after another, without an end."""

    def __init__(self):
        self.released = False

    def add_layer_check(self, check, *, probing):
        assert probing
        self.check = check
        return lambda: setattr(self, "released", True)


def test_a_step_that_never_ends_is_stopped_when_its_job_is_closed():
    looks, ended = _Looks(), []

    def job():
        yield Progress(1, 2, "measuring")
        try:
            while True:
                looks.check()
                time.sleep(0.001)
        finally:
            ended.append(True)

    driven = run_in_thread(job(), looks)
    told = [next(driven) for _ in range(3)]
    assert told[-1] == Progress(1, 2, "measuring")  # again, while the step goes on
    driven.close()
    assert ended
    assert looks.released


@pytest.mark.parametrize("kind", ["plain", "double"])
def test_tiles_share_windows_where_memory_allows(make_loaded, rng, monkeypatch, kind):
    loaded, shapes = make_loaded(kind), []
    real = Predictor.predict

    def predict(self, windows, scaling, keep=None):
        shapes.extend(window.shape for window in windows)
        return real(self, windows, scaling, keep)

    monkeypatch.setattr(Predictor, "predict", predict)
    data = rng.random((600, 540), dtype=np.float32)
    data[200:210, 500:530] = np.nan
    image, options = Micrograph(data), EnhanceOptions(precision="fp32")
    shared = run(enhance_in_memory(image, loaded, options))
    alone = run(enhance_in_memory(image, loaded, options.replace(memory_gb=1e-3)))
    assert len(shapes) == 1 + 4
    np.testing.assert_allclose(shared.data, alone.data, atol=1e-5)
    assert shared.metadata["enhance"]["tile_mismatch"] < 1e-5
