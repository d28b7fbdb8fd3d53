import logging
import socket

import numpy as np
import psutil
import pytest
from distributed import Client
from distributed.protocol.pickle import dumps

from napari_semsr.core.errors import Cancelled, OptionError
from napari_semsr.core.micrograph import Micrograph, parse_pixel_size
from napari_semsr.core.progress import run
from napari_semsr.inference.engine import enhance_array, enhance_to_store
from napari_semsr.inference.layout import create_output
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.inference.tiles import cluster, worker as tasks

OPTIONS = EnhanceOptions(tile=16, precision="fp32", device="cpu")


@pytest.fixture
def address():
    """A cluster of one worker with two threads in this process."""
    with Client(
        processes=False,
        n_workers=1,
        threads_per_worker=2,
        memory_limit=0,
        silence_logs=logging.CRITICAL,
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
        set_as_default=False,
    ) as client:
        yield client.cluster.scheduler_address


def _listening():
    found = psutil.Process().net_connections(kind="inet")
    return {c.laddr for c in found if c.status == psutil.CONN_LISTEN}


def test_nothing_listens(make_loaded, rng):
    before = _listening()
    job = enhance_array(Micrograph(rng.random((80, 80))), make_loaded("plain"), OPTIONS)
    for _ in job:
        assert _listening() <= before


def test_few_tiles_wait_and_none_carries_the_model(
    make_loaded, rng, monkeypatch, tmp_path, address
):
    submitted, sizes, most = 0, [], 0
    original = cluster.Client.submit

    def submit(self, function, *args, **how):
        nonlocal submitted
        submitted += 1
        sizes.append(len(dumps((function, args))))
        return original(self, function, *args, **how)

    monkeypatch.setattr(cluster.Client, "submit", submit)
    image = Micrograph(rng.random((160, 160)).astype(np.float32))
    loaded = make_loaded("plain")
    store = create_output(tmp_path / "c.zarr", image, loaded, OPTIONS)
    for step in enhance_to_store(image, loaded, store, OPTIONS, scheduler=address):
        if step.message.startswith("Enhancing"):
            most = max(most, submitted - step.done)
    assert submitted == 100
    assert most <= 5
    assert max(sizes) < 500


def test_closing_waits_for_running_tiles_and_forgets_the_run(
    make_loaded, rng, tmp_path, address
):
    image, loaded = Micrograph(rng.random((160, 160))), make_loaded("plain")
    store = create_output(tmp_path / "d.zarr", image, loaded, OPTIONS)
    job = enhance_to_store(image, loaded, store, OPTIONS, scheduler=address)
    while next(job).done < 2:
        assert len(tasks._workers) <= 1
    job.close()
    assert not tasks._workers
    assert 2 <= int((store.done[:] > 0).sum()) < 100


def test_an_unknown_run_is_refused():
    with pytest.raises(Cancelled, match="finished tiles are kept"):
        tasks.run_tiles("nobody", [(0, 0)])


def test_a_stopped_worker_takes_no_more(make_loaded, rng):
    from napari_semsr.core.tiling import plan_tiles
    from napari_semsr.inference.normalise import Scaling

    image = rng.random((16, 16), dtype=np.float32)
    plan = plan_tiles(image.shape, core=16, halo=2)
    work = tasks.Run(image, image.copy(), make_loaded("plain"), plan, Scaling(0, 1))
    worker = tasks.register("one", work)
    assert tasks.register("one", work) is worker
    assert [p.index for p in tasks.run_tiles("one", [(0, 0)])] == [(0, 0)]
    tasks.unregister("one")
    with pytest.raises(Cancelled):
        worker.enhance([(0, 0)])


def test_an_absent_scheduler_is_named(make_loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_PATIENCE", "200ms")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
    image, loaded = Micrograph(np.zeros((20, 20))), make_loaded("plain")
    store = create_output(tmp_path / "a.zarr", image, loaded, OPTIONS)
    with pytest.raises(OptionError, match=f"answers at {address}"):
        run(enhance_to_store(image, loaded, store, OPTIONS, scheduler=address))


def test_a_scheduler_address_is_used(make_loaded, rng, tmp_path, address):
    image = Micrograph(rng.random((50, 60)).astype(np.float32))
    loaded = make_loaded("identity")
    store = create_output(tmp_path / "b.zarr", image, loaded, OPTIONS)
    report = run(enhance_to_store(image, loaded, store, OPTIONS, scheduler=address))
    assert not tasks._workers
    assert report.tiles == 16
    np.testing.assert_allclose(store.level0[:], image.data, atol=1e-5)


@pytest.mark.parametrize("kind", ["strided", "norm"])
def test_a_resampled_field_is_the_same_on_a_cluster(
    kind, make_loaded, rng, tmp_path, address
):
    loaded = make_loaded(kind, pixel_size_nm=(10, 10))
    data = rng.random((90, 75)).astype(np.float32)
    image = Micrograph(data, parse_pixel_size(16.0))
    options = OPTIONS.replace(tile=32, norm="exact", memory_gb=1e-6)
    here = create_output(tmp_path / "here.zarr", image, loaded, options)
    run(enhance_to_store(image, loaded, here, options))
    there = create_output(tmp_path / "there.zarr", image, loaded, options)
    report = run(enhance_to_store(image, loaded, there, options, scheduler=address))
    assert report.tiles == 9
    assert report.seen_pixel_size_nm == pytest.approx((10, 10))
    np.testing.assert_allclose(there.level0[:], here.level0[:], atol=1e-5)
