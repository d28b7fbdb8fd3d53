import numpy as np
import pytest

from napari_semsr.io.formats import read

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
