"""Tiles that step together on a cluster against the same tiles in one process."""

import logging
import os
import signal

import numpy as np
import psutil
import pytest
import torch
from distributed import Client, LocalCluster

from napari_semsr.core.errors import SemsrError
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import run
from napari_semsr.inference import lockstep_step
from napari_semsr.inference.engine import enhance_array, enhance_to_store
from napari_semsr.inference.exact.replay import TilePass
from napari_semsr.inference.layout import create_output
from napari_semsr.inference.lockstep_files import FileShelf
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.inference.tiles import cluster as clusters, worker as tasks

SMALL = EnhanceOptions(
    tile=32, precision="fp32", device="cpu", memory_gb=1e-6, norm="exact"
)
LOOPBACK = {
    "dashboard_address": "127.0.0.1:0",
    "worker_dashboard_address": "127.0.0.1:0",
}


@pytest.fixture(scope="module")
def address():
    """A cluster of one worker with two threads in this process."""
    with Client(
        processes=False,
        n_workers=1,
        threads_per_worker=2,
        memory_limit=0,
        silence_logs=logging.CRITICAL,
        set_as_default=False,
        **LOOPBACK,
    ) as client:
        yield client.cluster.scheduler_address


@pytest.fixture
def field(rng):
    values = rng.random((101, 75)) * np.linspace(50, 250, 75)
    return Micrograph(values.astype(np.uint8))


def _begin(tmp_path, field, loaded, options, scheduler=None, **how):
    path = tmp_path / "out.ome.zarr"
    store = create_output(path, field, loaded, options, **how)
    return store, enhance_to_store(field, loaded, store, options, scheduler=scheduler)


def _left(tmp_path):
    return [path.name for path in tmp_path.iterdir() if path.name != "out.ome.zarr"]


@pytest.mark.parametrize("kind", ["norm", "rich"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_cluster_gives_the_same_bits(
    kind, precision, make_loaded, field, address, tmp_path
):
    loaded, options = make_loaded(kind), SMALL.replace(precision=precision)
    expected = run(enhance_array(field, loaded, options))
    store, job = _begin(tmp_path, field, loaded, options, address)
    steps = []
    report = run(job, steps.append)
    np.testing.assert_array_equal(store.level0[:], expected.data)
    before = expected.metadata["enhance"]
    assert report.norm == before["norm"] == "exact"
    for name in ("tiles", "halo_px", "tile_mismatch", "seam_index", "clipped"):
        assert getattr(report, name) == before[name]
    assert any(step.message.startswith("Layer 2 of") for step in steps)
    assert not _left(tmp_path)
    assert not tasks._workers
    assert not lockstep_step._steppers


def test_a_cluster_is_used_though_memory_would_do(
    make_loaded, field, address, tmp_path, whole
):
    loaded, options = make_loaded("norm"), SMALL.replace(memory_gb=None)
    store, job = _begin(tmp_path, field, loaded, options, address)
    steps = []
    run(job, steps.append)
    assert any("tiles step together" in step.message for step in steps)
    expected = whole(field.array(), loaded)
    assert np.abs(store.level0[:] - expected).max() <= 1e-5 * np.ptp(expected)


def test_what_cannot_step_together_is_run_whole_on_a_worker(
    make_loaded, field, address, tmp_path, whole, monkeypatch
):
    loaded, options = make_loaded("global"), SMALL.replace(memory_gb=None)
    called = []
    original = clusters.Client.submit
    monkeypatch.setattr(
        clusters.Client,
        "submit",
        lambda self, function, *a, **k: (
            called.append(function.__name__) or original(self, function, *a, **k)
        ),
    )
    store, job = _begin(tmp_path, field, loaded, options, address)
    run(job)
    assert called == ["make_whole"]
    expected = whole(field.array(), loaded)
    assert np.abs(store.level0[:] - expected).max() <= 1e-5 * np.ptp(expected)


def test_stopping_keeps_statistics_and_leaves_no_layers(
    make_loaded, field, address, tmp_path
):
    loaded = make_loaded("norm")
    expected = run(enhance_array(field, loaded, SMALL))
    store, job = _begin(tmp_path, field, loaded, SMALL, address)
    while len(store.pending()) > 9:
        step = next(job)
        if step.message.startswith("Layer 2"):
            assert len(_left(tmp_path)) == 1
    job.close()
    assert not _left(tmp_path)
    assert not tasks._workers
    assert store.notes()["statistics"]["exact"]
    _, again = _begin(tmp_path, field, loaded, SMALL, address, resume=True)
    report = run(again)
    assert 0 < report.resumed < 12
    np.testing.assert_array_equal(store.level0[:], expected.data)


def test_stopping_between_layers_leaves_nothing(make_loaded, field, address, tmp_path):
    store, job = _begin(tmp_path, field, make_loaded("norm"), SMALL, address)
    for step in job:
        if step.message.startswith("Layer 1") and step.done == 3:
            break
    job.close()
    assert not _left(tmp_path)
    assert not store.done[:].any()


def test_layers_of_a_run_that_died_are_taken_away(
    make_loaded, field, address, tmp_path
):
    loaded = make_loaded("norm")
    store, job = _begin(tmp_path, field, loaded, SMALL, address)
    dead = tmp_path / ".semsr-layers-dead"
    dead.mkdir()
    store.note("layers", dead.name)
    next(step for step in job if step.message.startswith("Layer 1"))
    assert not dead.exists()
    job.close()
    away = tmp_path / "kept"
    away.mkdir()
    store.note("layers", "../kept")
    _, again = _begin(tmp_path, field, loaded, SMALL, address, resume=True)
    run(again)
    assert away.is_dir()


def test_a_step_that_is_made_twice_changes_nothing(
    make_loaded, field, address, tmp_path, monkeypatch
):
    loaded = make_loaded("rich")
    expected = run(enhance_array(field, loaded, SMALL))
    step, land = lockstep_step.Stepper.step, lockstep_step.Stepper.land

    def twice(made):
        def make(self, *arguments):
            made(self, *arguments)
            return made(self, *arguments)

        return make

    monkeypatch.setattr(lockstep_step.Stepper, "step", twice(step))
    monkeypatch.setattr(lockstep_step.Stepper, "land", twice(land))
    store, job = _begin(tmp_path, field, loaded, SMALL, address)
    run(job)
    np.testing.assert_array_equal(store.level0[:], expected.data)


def test_files_that_are_read_no_more_are_taken_away(
    make_loaded, field, address, tmp_path
):
    most = 0
    _, job = _begin(tmp_path, field, make_loaded("rich"), SMALL, address)
    for step in job:
        for folder in tmp_path.glob(".semsr-layers-*"):
            names = {p.name for p in folder.iterdir()}
            layers = [n for n in names if n.startswith("layer")]
            most = max(most, len(layers))
            if step.message.startswith("Layer 3") and step.done > 1:
                assert "layer-0" not in names
                assert "state-0" not in names
    assert 0 < most <= 3


@pytest.mark.parametrize("tile", [64])
def test_memory_that_is_short_on_a_worker_halves_tiles(
    tile, make_loaded, field, address, tmp_path, monkeypatch, whole
):
    begin = TilePass.begin

    def guarded(self, window):
        if window.numel() > 60 * 60:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return begin(self, window)

    monkeypatch.setattr(TilePass, "begin", guarded)
    loaded, options = make_loaded("norm"), SMALL.replace(tile=tile)
    store, job = _begin(tmp_path, field, loaded, options, address)
    report = run(job)
    assert any("cut to 32 px" in note for note in report.notes)
    expected = whole(field.array(), loaded)
    assert np.abs(store.level0[:] - expected).max() <= 1e-5 * np.ptp(expected)
    assert not _left(tmp_path)


def test_an_error_on_a_worker_is_told(
    make_loaded, field, address, tmp_path, monkeypatch
):
    def fail(self, window):
        raise RuntimeError("kaputt")

    monkeypatch.setattr(TilePass, "begin", fail)
    _, job = _begin(tmp_path, field, make_loaded("norm"), SMALL, address)
    with pytest.raises(SemsrError, match="kaputt"):
        run(job)
    assert not _left(tmp_path)


@pytest.mark.parametrize("kind", ["norm", "plain"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_cluster_that_vanishes_is_a_sentence(kind, make_loaded, field, tmp_path):
    cluster = LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, silence_logs=50, **LOOPBACK
    )
    small = SMALL.replace(tile=16)
    address = cluster.scheduler_address
    store, job = _begin(tmp_path, field, make_loaded(kind), small, address)
    seen = 0
    while seen < 5:
        seen += next(job).message.startswith(("Layer", "Enhancing"))
    cluster.close(timeout=1)
    with pytest.raises(SemsrError, match=r"was lost.*--resume") as caught:
        run(job)
    assert "\n" not in str(caught.value)
    assert not _left(tmp_path)
    assert not tasks._workers
    assert len(store.pending()) < 35 or kind == "norm"


def test_a_folder_that_is_not_shared_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_semsr.inference.lockstep_files._PATIENCE_S", 0.0)
    shelf = FileShelf(tmp_path, 1, {"a": ("keep-0/0-0-1-0.pt", "cpu")})
    with pytest.raises(SemsrError, match="share it"):
        shelf.get("a")


def _listening(process):
    found = process.net_connections(kind="inet")
    return {c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
@pytest.mark.parametrize(
    "kills", [1, pytest.param(6, marks=pytest.mark.slow)], ids=["short", "long"]
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_killed_workers_lose_nothing(kills, field, tmp_path):
    from napari_semsr.models.cards import ModelCard
    from napari_semsr.models.checkpoint import LoadedModel
    from napari_semsr.models.registry import build

    torch.manual_seed(0)
    options = {"blocks": 2, "width": 4}
    card = ModelCard(
        name="resnet",
        architecture="resnet",
        options=options,
        stride=4,
        receptive_field=0,
    )
    loaded = LoadedModel(build("resnet", options).eval(), card, "sha256:0")
    small = SMALL.replace(tile=40)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as dask does in its workers: sums are rounded alike
    expected = run(enhance_array(field, loaded, small))
    torch.set_num_threads(threads)
    with LocalCluster(
        n_workers=2, threads_per_worker=1, silence_logs=50, **LOOPBACK
    ) as cluster:
        _, job = _begin(tmp_path, field, loaded, small, cluster.scheduler_address)
        killed = count = 0
        for step in job:
            count += step.message.startswith("Layer")
            if killed < kills and count >= 8 * (killed + 1):
                workers = [w for w in cluster.workers.values() if w.pid]
                if len(workers) == 2:
                    for worker in workers:
                        ips = _listening(psutil.Process(worker.pid))
                        assert ips <= {"127.0.0.1"}
                    os.kill(workers[killed % 2].pid, signal.SIGKILL)
                    killed += 1
        assert killed == kills
    found = create_output(
        tmp_path / "out.ome.zarr", field, loaded, small, resume=True
    ).level0[:]
    np.testing.assert_array_equal(found, expected.data)
    assert not _left(tmp_path)
