"""Tiles on a dask cluster against those of one process."""

import logging
import os
import signal
import socket
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from distributed import Client, LocalCluster

from napari_semsr.core import (
    Cancelled,
    MemoryReuse,
    OptionError,
    SemsrError,
    WaitingProgress,
    run,
)
from napari_semsr.core.micrograph import Micrograph, parse_pixel_size
from napari_semsr.inference import EnhanceOptions, cluster, enhance_in_memory
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.tiles import TileWorker
from tests.enhancing import fill, store_for
from tests.refusals import refused

LOOPBACK = {
    "dashboard_address": "127.0.0.1:0",
    "worker_dashboard_address": "127.0.0.1:0",
    "silence_logs": logging.CRITICAL,
}
OPTIONS = EnhanceOptions(tile=16, precision="fp32", device="cpu")


@pytest.fixture
def address():
    """A cluster of one worker with two threads in this process."""
    one = {"n_workers": 1, "threads_per_worker": 2, "memory_limit": 0}
    with Client(processes=False, set_as_default=False, **one, **LOOPBACK) as client:
        yield client.cluster.scheduler_address


def test_closing_waits_for_running_tiles_and_forgets_the_run(
    make_loaded, rng, tmp_path, address, monkeypatch
):
    tokens, kept = [], cluster.register_run

    def register(token, *rest):
        tokens.append(token)
        worker = kept(token, *rest)
        assert isinstance(worker.passing, MemoryReuse)  # one window at a time
        return worker

    monkeypatch.setattr(cluster, "register_run", register)
    image, loaded = Micrograph(rng.random((160, 160))), make_loaded("plain")
    store = store_for(tmp_path / "d.zarr", image, loaded, OPTIONS)
    job = fill(image, loaded, store, OPTIONS, scheduler=address)
    while next(job).done < 2:
        assert len(tokens) <= 1
    job.close()
    with pytest.raises(Cancelled):
        cluster.enhance_tiles(tokens[0], [(0, 0)])
    assert 2 <= int((store.done_marks[:] > 0).sum()) < 100


def test_an_absent_scheduler_is_named(make_loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE_S", 0.2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
    image, loaded = Micrograph(np.zeros((20, 20))), make_loaded("plain")
    store = store_for(tmp_path / "a.zarr", image, loaded, OPTIONS)
    with refused(OptionError, "cluster-unreachable", match=address):
        run(fill(image, loaded, store, OPTIONS, scheduler=address))


def test_a_peer_that_takes_a_call_and_is_silent_is_left(monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with refused(OptionError, "cluster-unreachable"):
            cluster.connect_client(address)


@pytest.mark.parametrize("address", ["", "127.0.0.1", "tcp://[::1", "tcp://a:70000"])
def test_what_is_no_address_is_refused(address):
    with refused(OptionError, "address-invalid"):
        cluster.connect_client(address)


def test_an_error_on_a_worker_is_told(make_loaded, rng, tmp_path, address, monkeypatch):
    def fail(self, windows, scaling, keep):
        raise RuntimeError("kaputt")

    monkeypatch.setattr(Predictor, "predict", fail)
    image, loaded = Micrograph(rng.random((60, 50))), make_loaded("plain")
    store = store_for(tmp_path / "h.zarr", image, loaded, OPTIONS)
    with refused(SemsrError, "computation-failed"):
        run(fill(image, loaded, store, OPTIONS, scheduler=address))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_cluster_that_vanishes_is_a_sentence(make_loaded, rng, tmp_path):
    cluster = LocalCluster(processes=False, threads_per_worker=1, **LOOPBACK)
    image, loaded = Micrograph(rng.random((101, 75))), make_loaded("plain")
    store = store_for(tmp_path / "i.zarr", image, loaded, OPTIONS)
    address = cluster.scheduler_address
    job = fill(image, loaded, store, OPTIONS, scheduler=address)
    while next(job).done < 2:
        pass
    cluster.close(timeout=1)
    # as a job does: what the lost cluster still refers to may hold the store open
    with store.release_lock_on_exit(), refused(SemsrError, "cluster-lost") as caught:
        run(job)
    assert "\n" not in str(caught.value)
    assert len(store.pending_units()) < 35


@pytest.mark.broad
def test_a_cluster_without_workers_is_waited_for_aloud(make_loaded, rng, tmp_path):
    image, loaded = Micrograph(rng.random((60, 50))), make_loaded("plain")
    store = store_for(tmp_path / "l.zarr", image, loaded, OPTIONS)
    said = []
    with LocalCluster(n_workers=0, processes=False, **LOOPBACK) as there:
        address = there.scheduler_address
        for step in fill(image, loaded, store, OPTIONS, scheduler=address):
            if isinstance(step, WaitingProgress) and not said:
                said.append(step)
                there.scale(1)
    assert "has no workers" in said[0].message
    assert (said[0].done, said[0].total) == (0, 16)
    assert not store.pending_units()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_killed_workers_lose_nothing(make_loaded, rng, tmp_path):
    loaded = make_loaded("finer")  # of the program, as workers import no tests
    image = Micrograph(rng.random((301, 275), dtype=np.float32))
    store = store_for(tmp_path / "k.zarr", image, loaded, OPTIONS)
    with LocalCluster(n_workers=2, threads_per_worker=1, **LOOPBACK) as there:
        address, left = there.scheduler_address, [w.pid for w in there.workers.values()]
        for step in fill(image, loaded, store, OPTIONS, scheduler=address):
            if step.done >= 20 and len(left) == 2:
                os.kill(left.pop(), signal.SIGKILL)
    assert len(left) == 1
    expected = run(enhance_in_memory(image, loaded, OPTIONS)).data
    error = np.abs(store.level0[:] - expected).max()
    assert error <= 1e-5 * np.ptp(expected)


def test_a_block_is_one_window_without_a_card_and_several_with_one(
    make_loaded, rng, tmp_path, address, monkeypatch
):
    blocks, kept = [], TileWorker.enhance
    monkeypatch.setattr(
        TileWorker, "enhance", lambda *one: blocks.append(one) or kept(*one)
    )
    image, options = Micrograph(rng.random((600, 600))), OPTIONS.replace(tile=None)
    loaded = make_loaded("plain")
    store = store_for(tmp_path / "b.zarr", image, loaded, options)
    run(fill(image, loaded, store, options, scheduler=address))
    expected = run(enhance_in_memory(image, loaded, options)).data
    np.testing.assert_array_equal(store.level0[:], expected)
    (worker, places), *_ = blocks
    assert len(places) == 4
    looks, result = worker.predictor, np.empty_like(expected)
    card = SimpleNamespace(device=SimpleNamespace(type="cuda"), batch=2)
    card.predict, card.add_layer_check = looks.predict, lambda _check: None
    other = TileWorker(replace(worker.run, target=result), card)
    kept(other, places)
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.broad
@pytest.mark.parametrize("kind", ["strided", "norm"])
def test_resampled_fields_are_the_same_there(kind, make_loaded, rng, tmp_path, address):
    loaded = make_loaded(kind, pixel_size_nm=(10, 10))
    data = rng.random((90, 75)).astype(np.float32)
    image = Micrograph(data, parse_pixel_size(16.0))
    options = OPTIONS.replace(tile=32, norm="sampled")
    here = store_for(tmp_path / "here.zarr", image, loaded, options)
    run(fill(image, loaded, here, options))
    there = store_for(tmp_path / "there.zarr", image, loaded, options)
    report = run(fill(image, loaded, there, options, scheduler=address))
    assert report.tiles == 9
    assert report.seen_pixel_size_nm == pytest.approx((10, 10))
    np.testing.assert_allclose(there.level0[:], here.level0[:], atol=1e-5)


def _listening(process=None):
    found = psutil.Process(process).net_connections(kind="inet")
    return {c.laddr for c in found if c.status == psutil.CONN_LISTEN}


def test_nothing_listens(make_loaded, rng):
    before = _listening()
    job = enhance_in_memory(
        Micrograph(rng.random((80, 80))), make_loaded("plain"), OPTIONS
    )
    for _ in job:
        assert _listening() <= before
