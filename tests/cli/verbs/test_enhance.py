import os
import signal
import sys
import time

import numpy as np
import pytest

from napari_semsr.core import IncompleteError, Micrograph
from napari_semsr.inference import cluster
from napari_semsr.io.formats import read, write
from napari_semsr.models import DEFAULT_MODEL
from tests import children

SMALL = ("--device", "cpu", "--precision", "fp32", "--tile", "32")


@pytest.mark.broad
def test_enhance_into_a_file_equals_the_store(semsr, images):
    said = semsr("enhance", "first.tif", "-o", "out.ome.zarr", *SMALL)
    assert said.code == 0
    assert "no seam: tiles are equal" in said.out
    assert semsr("enhance", "first.tif", "-o", "out.ome.tif", *SMALL).code == 0
    store, file = read(images / "out.ome.zarr"), read(images / "out.ome.tif")
    np.testing.assert_array_equal(store.array(), file.array())
    assert file.pixel_size_nm == store.pixel_size_nm == (10, 10)
    assert not [p for p in images.iterdir() if p.name.startswith(".")]


@pytest.mark.broad
def test_what_a_network_made_stays_marked_in_what_is_made_of_it(semsr, images):
    for line in (
        ("enhance", "first.tif", "-o", "net.ome.zarr", *SMALL),
        ("crop", "net.ome.zarr", "-o", "part.ome.tif", "--box", 4, 4, 36, 36),
        ("convert", "part.ome.tif", "part.png", "--dtype", "uint8"),
        ("frc-map", "first.tif", "net.ome.zarr", "-o", "map.tif", "--block", 32),
        ("restore", "net.ome.zarr", "-o", "sharp.tif", "--psf", "1px"),
    ):
        assert semsr(*line).code == 0, line
    for name in ("net.ome.zarr", "part.ome.tif", "part.png", "map.tif", "sharp.tif"):
        assert semsr("info", name, "--json").record["network"] == DEFAULT_MODEL, name
        assert "made by network" in semsr("info", name).out
    assert semsr("info", "first.tif", "--json").record["network"] is None


def test_enhance_refuses_what_it_cannot_do(refused, images):
    for option, value in (
        ("--model", "nobody"),
        ("--model", "text.tif"),
        ("--tile", "1"),
        ("--tile", "x"),
        ("--device", "tpu"),
        ("--dtype", "complex64"),
        ("--channel", "4"),
        ("--plane", "4"),
    ):
        said = refused("enhance", "first.tif", "-o", "out.ome.zarr", option, value)
        assert option.strip("-") in said
        assert not (images / "out.ome.zarr").exists()
        assert not [p for p in images.iterdir() if p.name.startswith(".")]


@pytest.mark.slow
def test_interrupted_enhance_keeps_what_is_done_and_resumes(semsr, images):
    big = np.tile(read(images / "first.tif").array(), (3, 2))
    write(Micrograph(big), images / "big.tif")
    line = ("enhance", "big.tif", "-o", "big.ome.zarr", *SMALL)
    done = images / "big.ome.zarr" / "done"
    with children.started(
        [sys.executable, "-m", "napari_semsr", *line],
        cwd=images,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        while process.poll() is None and len(list(done.glob("c/*/*"))) < 3:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=children.LIMIT_S)
    if process.returncode == 0:
        pytest.skip("the run was over before it could be interrupted")
    assert process.returncode == 130
    with pytest.raises(IncompleteError):
        read(images / "big.ome.zarr")
    again = semsr(*line, "--resume", "--json")
    assert again.code == 0, again.err
    assert again.record["resumed"] >= 1


@pytest.mark.broad
def test_scheduler_is_named_while_it_is_called(semsr, images, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE_S", 0.1)
    words = ("enhance", images / "first.tif", "-o", images / "o.tif")
    said = semsr(*words, "--scheduler", "tcp://127.0.0.1:9")
    assert said.code == 2
    first, second = said.err.splitlines()
    assert "connecting to the dask scheduler at tcp://127.0.0.1:9" in first
    assert "No dask scheduler responds" in second


@pytest.mark.broad
def test_memory_that_cannot_be_kept_is_told(semsr, images):
    words = ("enhance", "first.tif", "--device", "cpu", "--memory-gb")
    assert "exceeds the limit" in semsr(*words, "1e-6", "-o", "o.tif").out
    assert "exceeds the limit" not in semsr(*words, "50", "-o", "p.tif").out
