"""``semsr crop``, and the way from a scan to figures against its truth."""

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
    for words in (
        ("simulate", "scan", "--sem", *SCAN),
        ("stitch", "scan", "-o", "mosaic.ome.zarr"),
    ):
        said = semsr(*words, "--quiet")
        assert said.code == 0, said.err
    truth, mosaic = "scan/sem/sem.ome.tif", "mosaic.ome.zarr"
    assert "semsr crop" in semsr("frc", mosaic, truth, "--reference").err
    assert "semsr crop" in semsr("metrics", mosaic, truth).err
    said = semsr(
        "crop", truth, "--like", mosaic, "--align", "--search", "24", "--gap-free",
        "-o", "truth.ome.zarr", "--like-out", "cut.ome.zarr", "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    told = said.record
    places = np.genfromtxt(tmp_path / "scan/truth/positions.csv", delimiter=",",
                           skip_header=1, usecols=(1, 2))  # fmt: skip
    assert told["shift_px"] == pytest.approx(-places.min(axis=0), abs=0.5)
    assert told["pixel_size_nm"] == [20, 20]
    assert told["quarters"] >= 3
    found = semsr("frc", "cut.ome.zarr", "truth.ome.zarr", "--reference", "--json")
    assert found.code == 0, found.err
    assert 60 < found.record["resolution_nm"] < 600
    found = semsr("metrics", "cut.ome.zarr", "truth.ome.zarr", "--match", "affine",
                  "--json")  # fmt: skip
    assert found.code == 0, found.err
    assert found.record["psnr_db"] > 10
    said = semsr("crop", mosaic, "--like", "truth.ome.zarr", "-o", "same.tif")
    assert said.code == 0, said.err
    assert "unchanged" in said.out
    np.testing.assert_array_equal(
        read(tmp_path / "same.tif").array(), read(tmp_path / "cut.ome.zarr").array()
    )


@pytest.fixture
def images(tmp_path):
    grey = np.random.default_rng(1).integers(0, 255, (40, 50), dtype=np.uint8)
    size = parse_pixel_size(10)
    write(Micrograph(grey, size), tmp_path / "a.ome.tif")
    write(Micrograph(grey), tmp_path / "bare.png")
    return grey


def test_box_in_pixels_and_in_nm(semsr, images, tmp_path):
    said = semsr("crop", "a.ome.tif", "--box", 3, 4, 23, 44, "-o", "b.ome.tif")
    assert said.code == 0, said.err
    assert "rows 3 to 23, columns 4 to 44" in said.out
    np.testing.assert_array_equal(
        read(tmp_path / "b.ome.tif").array(), images[3:23, 4:44]
    )
    said = semsr("crop", "a.ome.tif", "--box-nm", -200, -5, 100, 95, "-o", "c.ome.zarr",
                 "--dtype", "float32", "--json")  # fmt: skip
    assert said.record["area"] == [0, 0, 10, 10]
    assert "extends beyond a.ome.tif" in said.record["warnings"][0]
    assert said.record["dtype"] == "float32"
    said = semsr("crop", "a.ome.tif", "--gap-free", "-o", "d.ome.tif")
    assert said.code == 0, said.err
    assert read(tmp_path / "d.ome.tif").shape == images.shape
