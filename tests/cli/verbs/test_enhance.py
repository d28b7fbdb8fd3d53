import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile

from napari_semsr.core.errors import IncompleteError
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.io.formats import read, write
from napari_semsr.models import DEFAULT_MODEL
from tests import children
from tests.tiny_models import write_tiny_model

SMALL = ("--device", "cpu", "--precision", "fp32", "--tile", "32")


@pytest.mark.quick(1)
@pytest.mark.parametrize("suffix", [".ome.tif", ".tif"])
def test_enhance_into_a_file_equals_the_store(semsr, images, suffix):
    said = semsr("enhance", "first.tif", "-o", "out.ome.zarr", *SMALL)
    assert said.code == 0
    assert "no seam: tiles are equal" in said.out
    assert semsr("enhance", "first.tif", "-o", f"out{suffix}", *SMALL).code == 0
    store, file = read(images / "out.ome.zarr"), read(images / f"out{suffix}")
    np.testing.assert_array_equal(store.array(), file.array())
    assert file.pixel_size_nm == store.pixel_size_nm == (10, 10)
    assert not [p for p in images.iterdir() if p.name.startswith(".")]


@pytest.mark.broad
def test_what_a_network_made_stays_marked_in_what_is_made_of_it(semsr, images):
    assert semsr("enhance", "first.tif", "-o", "net.ome.zarr", *SMALL).code == 0
    for line in (
        ("crop", "net.ome.zarr", "-o", "part.ome.tif", "--box", 4, 4, 36, 36),
        ("convert", "part.ome.tif", "part.png", "--dtype", "uint8"),
        ("frc-map", "first.tif", "net.ome.zarr", "-o", "map.tif", "--block", 32),
        ("spectrum", "net.ome.zarr", "-o", "power.tif"),
        ("restore", "net.ome.zarr", "-o", "sharp.tif", "--psf", "1px"),
    ):
        assert semsr(*line).code == 0, line
    made = ("part.ome.tif", "part.png", "map.tif", "power.tif", "sharp.tif")
    for name in ("net.ome.zarr", *made):
        assert semsr("info", name, "--json").record["network"] == DEFAULT_MODEL, name
        assert "made by network" in semsr("info", name).out
    assert semsr("info", "first.tif", "--json").record["network"] is None
    assert "network" not in semsr("info", "first.tif").out


@pytest.mark.broad
def test_enhance_one_pixel_and_holes(semsr, images):
    for name in ("one", "holes", "constant"):
        said = semsr(
            "enhance", f"{name}.tif", "-o", f"{name}.ome.zarr", *SMALL, "--json"
        )
        assert said.code == 0, said.err
        assert said.record["tiles"] >= 1


@pytest.mark.quick(3)
@pytest.mark.parametrize(
    ("words", "needs"),
    [
        (("--model", "nobody"), "nobody"),
        (("--model", "text.tif"), "safetensors"),
        (("--tile", "1"), "Option --tile"),
        (("--tile", "x"), "Option --tile"),
        (("--device", "tpu"), "tpu"),
        (("--dtype", "complex64"), "complex64"),
        (("--channel", "4"), "channel"),
        (("--plane", "4"), "plane"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_enhance_refuses_what_it_cannot_do(refused, images, words, needs):
    assert needs in refused("enhance", "first.tif", "-o", "out.ome.zarr", *words)
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
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        while process.poll() is None and len(list(done.glob("c/*/*"))) < 3:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=children.LIMIT_S)
    if process.returncode == 0:
        pytest.skip("the run was over before it could be interrupted")
    assert process.returncode == 130
    assert (
        err.decode().splitlines()[-1].endswith("with --resume to use finished results.")
    )
    with pytest.raises(IncompleteError):
        read(images / "big.ome.zarr")
    again = semsr(*line, "--resume", "--json")
    assert again.code == 0, again.err
    assert again.record["resumed"] >= 1
    assert semsr("info", "big.ome.zarr").code == 0


@pytest.mark.broad
@pytest.mark.quick(1)
@pytest.mark.parametrize("suffix", [".ome.tif", ".tif"])
def test_stack_goes_plane_by_plane(semsr, images, suffix):
    planes = np.stack([read(images / f"{n}.tif").array() for n in ("first", "second")])
    metadata = {"axes": "ZYX", "unit": "nm"}
    tifffile.imwrite(
        images / "stack.tif",
        planes[:, :40, :48],
        imagej=True,
        metadata=metadata,
        resolution=(0.1, 0.1),
    )
    line = ("enhance", "stack.tif", *SMALL)
    record = semsr(*line, "-o", f"out{suffix}", "--json").record
    assert record["shape"] == [2, 40, 48]
    assert record["tiles"] == 2 * 2 * 2
    assert semsr(*line, "-o", "one.ome.zarr", "--plane", 1).code == 0
    second = read(images / f"out{suffix}", plane=1)
    np.testing.assert_array_equal(second.array(), read(images / "one.ome.zarr").array())
    assert second.pixel_size_nm == (10, 10)
    assert second.provenance is not None
    assert second.provenance.model_name == DEFAULT_MODEL
    assert not [p for p in images.iterdir() if p.name.startswith(".")]


@pytest.mark.broad
def test_enhance_runs_a_model_at_the_pixel_size_it_was_trained_for(semsr, images):
    write_tiny_model(images, pixel_size_nm=(16, 16))
    line = ("enhance", "first.tif", *SMALL, "--model", "tiny.safetensors", "-o")
    auto = semsr(*line, "auto.ome.zarr", "--json").record
    assert auto["seen_pixel_size_nm"] == pytest.approx([16, 16])
    assert auto["pixel_size_nm"] == [10, 10]
    assert auto["shape"] == [*read(images / "first.tif").shape]
    assert "is resampled to 16 nm" in auto["notes"][0]
    never = semsr(*line, "a.tif", "--no-resample", "--json").record
    also = semsr(*line, "b.tif", "--resample", "never", "--json").record
    assert never["seen_pixel_size_nm"] == also["seen_pixel_size_nm"] == [10, 10]
    one, other = (read(images / f"{name}.tif") for name in ("a", "b"))
    np.testing.assert_array_equal(one.array(), other.array())
    assert one.provenance.options["resample"] == "never"
    assert np.any(one.array() != read(images / "auto.ome.zarr").array())
    kept = semsr(*line, "kept.ome.tif", "--resample", "keep", "--json").record
    assert kept["pixel_size_nm"] == pytest.approx([16, 16])
    assert read(images / "kept.ome.tif").pixel_size_nm == pytest.approx((16, 16))


@pytest.mark.broad
def test_scheduler_is_named_while_it_is_called(semsr, images, monkeypatch):
    from napari_semsr.inference import cluster

    monkeypatch.setattr(cluster, "PATIENCE_S", 0.1)
    words = ("enhance", images / "first.tif", "-o", images / "o.tif")
    said = semsr(*words, "--scheduler", "tcp://127.0.0.1:9")
    assert said.code == 2
    lines = said.err.splitlines()
    assert lines[0] == "semsr: connecting to the dask scheduler at tcp://127.0.0.1:9"
    assert "No dask scheduler responds" in lines[1]
    assert len(lines) == 2


@pytest.mark.broad
def test_memory_that_cannot_be_kept_is_told(semsr, images):
    words = ("enhance", images / "first.tif", "--device", "cpu", "--memory-gb")
    said = semsr(*words, "1e-6", "-o", images / "o.tif")
    assert said.code == 0
    assert "exceeds the limit of 1e-06 GB" in " ".join(said.out.split())
    said = semsr(*words, "50", "-o", images / "p.tif")
    assert "more than" not in " ".join(said.out.split())
