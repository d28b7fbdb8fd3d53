"""Killed runs, killed workers, a full disk: nothing lost, identical output."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from napari_semsr.core.errors import SemsrError, WriteError
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import run
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.io.formats import read, write
from napari_semsr.jobs.enhance import ENHANCE
from tests import children
from tests.refusals import refused

TINY = EnhanceOptions(tile=32, precision="fp32", device="cpu")
LINE = ("--tile", "32", "--precision", "fp32", "--device", "cpu")
PROCESSES, WORKERS = 20, 10  # that are killed
ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def field(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("field") / "field.tif"
    pixels = np.random.default_rng(0).random((132, 140)) * 255
    write(Micrograph(pixels.astype(np.uint8)), path)
    return path


@pytest.fixture(scope="module")
def expected(field) -> np.ndarray:
    made = run(ENHANCE.job(field, field.with_name("whole.ome.zarr"), options=TINY))
    return read(made.output).array()


@pytest.fixture
def image(field, tmp_path) -> Path:
    return Path(shutil.copy(field, tmp_path))


LINE_OF = (sys.executable, "-m", "napari_semsr", "enhance")


def started(*words: object) -> AbstractContextManager[subprocess.Popen]:
    return children.started(
        [*LINE_OF, *words, *LINE], env=ALONE, stderr=subprocess.PIPE
    )


def semsr(*words: object) -> subprocess.CompletedProcess[str]:
    return children.run([*LINE_OF, *words, *LINE], env=ALONE)


def tiles_done(store: Path) -> int:
    return len(list(store.glob("done/c/*/*")))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
@pytest.mark.slow
def test_killed_runs_are_resumed_to_the_same_pixels(image, expected):
    chance = random.Random(20)  # noqa: S311
    store = image.with_name("killed.ome.zarr")
    total, killed = 25, 0
    while killed < PROCESSES:
        goal = min(total - 2, 1 + tiles_done(store) + chance.randrange(3))
        with started(image, "-o", store, "--resume") as child:
            while child.poll() is None and tiles_done(store) < goal:
                time.sleep(0.003)
            time.sleep(chance.random() * 0.02)
            child.kill()
            child.communicate()
        killed += child.returncode == -signal.SIGKILL
        if read_complete(store):
            shutil.rmtree(store)
    run(ENHANCE.job(image, store, options=TINY, resume=True))
    np.testing.assert_array_equal(read(store).array(), expected)
    assert not list(store.rglob("*.partial"))


def read_complete(store: Path) -> bool:
    """Tell whether a run reached its end before it was killed."""
    return store.is_dir() and not (store / "done").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_killed_workers_of_a_cluster_lose_nothing(image, expected, rng):
    from distributed import LocalCluster

    store = image.with_name("cluster.ome.zarr")
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
        silence_logs=50,
    ) as cluster:
        how = {"options": TINY, "scheduler": cluster.scheduler_address}
        killed, last, finished = 0, 0, False
        while not finished:
            try:
                for step in ENHANCE.job(image, store, **how):
                    if killed < WORKERS and step.done >= last + 2:
                        last = step.done
                        # one that has not joined yet would not be started again
                        joined = cluster.scheduler.workers
                        nannies = [
                            one
                            for one in cluster.workers.values()
                            if one.pid and one.worker_address in joined
                        ]
                        if nannies:
                            os.kill(nannies[killed % len(nannies)].pid, signal.SIGKILL)
                            killed += 1
                finished = True
            except SemsrError as error:  # Dask gives up what four were killed with
                assert "run again with `resume`" in str(error)  # noqa: PT017
                how["resume"] = True
        assert killed
    np.testing.assert_array_equal(read(store).array(), expected)


@pytest.mark.broad
def test_a_full_disk_is_one_sentence_and_the_run_is_resumed(
    image, expected, monkeypatch
):
    from napari_semsr.inference.tiles import TiledRun

    output = image.with_name("full.ome.zarr")
    write_tile, written = TiledRun.write_tile, []

    def full(self, place, *rest):
        if len(written) == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(place)
        return write_tile(self, place, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(TiledRun, "write_tile", full)
        with refused(WriteError, "disk-full") as caught:
            run(ENHANCE.job(image, output, options=TINY))
    assert "\n" not in str(caught.value)
    made = run(ENHANCE.job(image, output, options=TINY, resume=True))
    assert made.report.resumed == 5
    np.testing.assert_array_equal(read(output).array(), expected)


@pytest.mark.slow
def test_a_small_file_system_that_fills_up(image, expected, tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(place)]
    if shutil.which("mount") is None or children.run(words).returncode:
        pytest.skip("a small file system can only be mounted by root")
    try:
        store = place / "full.ome.zarr"
        done = semsr(image, "-o", store)
        assert done.returncode == 2
        assert "No space left" in done.stderr.splitlines()[-1]
        assert "--resume" in done.stderr.splitlines()[-1]
        before = tiles_done(store)
        assert 0 < before < 25
        larger = ["mount", "-o", "remount,size=20m", str(place)]
        assert children.run(larger).returncode == 0
        done = semsr(image, "-o", store, "--resume")
        assert done.returncode == 0, done.stderr
        np.testing.assert_array_equal(read(store).array(), expected)
    finally:
        children.run(["umount", place])
