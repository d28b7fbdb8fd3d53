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

from napari_semsr.core.errors import WriteError
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
