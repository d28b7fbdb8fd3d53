import numpy as np
import pytest

from napari_semsr.core.micrograph import Micrograph, parse_pixel_size
from napari_semsr.io.formats import read, write

SCAN = (
    "--phantom", "circuit", "--frames-grid", "2x2", "--frame-px", "128",
    "--overlap", "0.5", "--field", "square", "--focus-nm", "80", "--seed", "2",
    "--optics", "gaussian",  # light that interferes shows what electrons do not
)  # fmt: skip


@pytest.mark.broad
def test_from_a_scan_to_figures_against_its_truth(semsr, tmp_path):
    def record(*words):
        said = semsr(*words, "--json")
        assert said.code == 0, said.err
        return said.record

    record("simulate", "scan", "--sem", *SCAN)
    record("stitch", "scan", "-o", "mosaic.ome.zarr")
    truth, mosaic = "scan/sem/sem.ome.tif", "mosaic.ome.zarr"
    assert "semsr crop" in semsr("frc", mosaic, truth, "--reference").err
    told = record(
        "crop", truth, "--like", mosaic, "--align", "--search", "24", "--gap-free",
        "-o", "truth.ome.zarr", "--like-out", "cut.ome.zarr",
    )  # fmt: skip
    places = np.genfromtxt(tmp_path / "scan/truth/positions.csv", delimiter=",",
                           skip_header=1, usecols=(1, 2))  # fmt: skip
    assert told["shift_px"] == pytest.approx(-places.min(axis=0), abs=0.5)
    assert told["pixel_size_nm"] == [20, 20]
    pair = ("cut.ome.zarr", "truth.ome.zarr")
    assert 60 < record("frc", *pair, "--reference")["resolution_nm"] < 600
    assert record("metrics", *pair, "--match", "affine")["psnr_db"] > 10
    record("crop", mosaic, "--like", "truth.ome.zarr", "-o", "same.tif")
    same, cut = (read(tmp_path / name).array() for name in ("same.tif", pair[0]))
    np.testing.assert_array_equal(same, cut)


def test_box_in_pixels_and_in_nm(semsr, tmp_path):
    grey = np.random.default_rng(1).integers(0, 255, (40, 50), dtype=np.uint8)
    write(Micrograph(grey, parse_pixel_size(10)), tmp_path / "a.ome.tif")
    said = semsr("crop", "a.ome.tif", "--box", 3, 4, 23, 44, "-o", "b.ome.tif")
    assert said.code == 0, said.err
    found = read(tmp_path / "b.ome.tif").array()
    np.testing.assert_array_equal(found, grey[3:23, 4:44])
    said = semsr("crop", "a.ome.tif", "--box-nm", -200, -5, 100, 95, "-o", "c.ome.zarr",
                 "--dtype", "float32", "--json")  # fmt: skip
    assert said.record["area"] == [0, 0, 10, 10]
    assert "extends beyond a.ome.tif" in said.record["warnings"][0]
    assert said.record["dtype"] == "float32"
