"""Frames in memory: placed and fused as they are handed over."""

import csv

import numpy as np
import pytest

import napari_semsr
from napari_semsr.core.errors import OptionError, ShapeError
from napari_semsr.io.formats import read
from tests.refusals import refused
from tests.stitching import scans

SIZE = 20.0


@pytest.fixture(scope="module")
def scan():
    return scans.cut_scan(scans.texture((420, 420)), grid=(2, 3), seed=3)


def added(mosaic, scan, numbers, *, stated=True):
    for number in numbers:
        frame = scan.acquisition.read(number)
        corner = scan.acquisition.nominal_px[number] * SIZE if stated else None
        mosaic.add(frame, corner, name=f"f{number}")


@pytest.mark.quick(1)
@pytest.mark.parametrize("stated", [True, False], ids=["stage", "images alone"])
def test_the_end_is_that_of_stitch(scan, tmp_path, stated):
    mosaic = napari_semsr.LiveMosaic(tmp_path / "m.ome.zarr", pixel_size_nm=SIZE)
    added(mosaic, scan, [0, 1, 2, 4, 3, 5], stated=stated)
    assert len(mosaic) == 6
    made = mosaic.finish()
    offline = napari_semsr.stitch(
        tmp_path / "m.frames", tmp_path / "n.ome.zarr", pixel_size_nm=SIZE
    )
    assert made.positions == offline.positions
    assert np.array_equal(
        read(made.output).array(), read(offline.output).array(), equal_nan=True
    )
    found = np.array([(p["y_px"], p["x_px"]) for p in made.positions])
    assert scans.errors(found, scan.truth)[1] < 0.1
    assert napari_semsr.replay(made.output, inputs=tmp_path).identical


def test_another_shape_is_refused_and_nothing_is_lost(scan, tmp_path):
    mosaic = napari_semsr.LiveMosaic(tmp_path / "m.ome.zarr")
    added(mosaic, scan, [0])
    for frame in (np.zeros((9, 9), np.uint16), np.zeros((2, 9, 9)), np.zeros(4)):
        with pytest.raises(ShapeError):
            mosaic.add(frame)
    for corner in ((0, np.nan), (0, None), ("a", 0), (0,), 5):
        with refused(OptionError, "positions-invalid"):
            mosaic.add(scan.acquisition.read(1), corner)
    with refused(OptionError, "name-invalid"):
        mosaic.add(scan.acquisition.read(1), name="../f1")
    assert len(mosaic) == 1
    with (tmp_path / "m.frames" / "positions.csv").open(newline="") as stream:
        assert len(list(csv.reader(stream))) == 2


@pytest.mark.quick(2)
@pytest.mark.parametrize("kind", ["int16", "float64", "int64", ">u2", "float16"])
def test_frames_of_all_types_are_placed_and_taken_up(scan, tmp_path, kind):
    frames = [scan.acquisition.read(number).astype(kind) for number in range(3)]
    if kind == "float64":
        frames[0] += 1 / 3  # others are whole numbers, which a smaller type can store
        frames[2] = np.zeros_like(frames[0])
    output, end = tmp_path / "m.ome.zarr", {"pixel_size_nm": SIZE}
    with napari_semsr.LiveMosaic(output, **end) as mosaic:
        mosaic.add(frames[0], scan.acquisition.nominal_px[0] * SIZE)
    mosaic = napari_semsr.LiveMosaic(output, **end, resume=True)
    for number in (1, 2):
        mosaic.add(frames[number], scan.acquisition.nominal_px[number] * SIZE)
    assert len(mosaic) == 3
    made = mosaic.finish()
    assert made.frames >= 2
    stored = sorted((tmp_path / "m.frames").glob("*.tif"))
    for path, frame in zip(stored, frames, strict=True):
        assert np.array_equal(read(path).array(), frame)
