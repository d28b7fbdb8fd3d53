"""Heights of a scan become one mosaic on disk, with a map of heights beside it."""

import shutil

import numpy as np
import pytest
import zarr

import napari_semsr
from napari_semsr.core import ReadError, run
from napari_semsr.io import read
from napari_semsr.jobs import STITCH, StitchFolderOptions
from tests.refusals import refused

FOCUS = StitchFolderOptions(focus="max")


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans") / "scan"
    napari_semsr.simulate(
        folder, phantom="particles", frames_grid=(2, 2), frame_px=96, overlap=0.5,
        jitter_px=2, field="square", focal_series=3, seed=1,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def made(scan):
    output = scan.parent / "mosaic.ome.zarr"
    return napari_semsr.stitch(scan, output, focus="max")


def test_mosaic_and_heights_lie_on_one_grid(made, scan):
    mosaic, height = read(made.output), read(made.height)
    assert made.height == str(scan.parent / "mosaic.height.ome.zarr")
    assert mosaic.shape == height.shape == made.shape
    assert mosaic.pixel_size_nm == height.pixel_size_nm == (20, 20)
    values = height.array()
    known = np.isfinite(values)
    low, high = (made.heights[k]["z_nm"] for k in (0, -1))
    assert known.mean() > 0.5
    assert low <= values[known].min()
    assert values[known].max() <= high
    assert height.look.limits == (low, high)
    counts = zarr.open_array(made.coverage + "/0", mode="r")[:]
    assert np.array_equal(counts > 0, np.isfinite(mosaic.array()))
    assert counts.max() % 3 == 0


@pytest.mark.broad
def test_only_frames_of_all_heights_are_joined(scan, tmp_path):
    less = shutil.copytree(scan, tmp_path / "less")
    (less / "z_001" / "frame_002.tif").unlink()
    done = run(STITCH.job(less, tmp_path / "m.ome.tif", options=FOCUS))
    assert [item["frame"] for item in done.positions if item["y_px"] is not None] == [
        "frame_000.tif",
        "frame_001.tif",
        "frame_003.tif",
    ]


@pytest.mark.broad
def test_heights_of_other_frames_are_refused(scan, tmp_path):
    odd = shutil.copytree(scan, tmp_path / "odd")
    (odd / "z_001" / "positions.csv").unlink()
    (odd / "positions.csv").unlink()
    for path in (odd / "z_001").glob("frame_*.tif"):
        path.rename(path.with_name(f"b{path.name}"))
    with refused(ReadError, "frames-differ"):
        run(STITCH.job(odd, tmp_path / "m.ome.tif", options=FOCUS))
