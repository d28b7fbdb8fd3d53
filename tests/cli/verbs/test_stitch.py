"""``semsr stitch``: keys, flags, refusals."""

import csv

import pytest

SCAN = ("--frames-grid", "2x2", "--frame-px", "96", "--field", "square", "--seed", "5")


@pytest.fixture
def scan(semsr, tmp_path):
    said = semsr("simulate", "scan", "--phantom", "particles", *SCAN)
    assert said.code == 0, said.err
    return tmp_path / "scan"


@pytest.mark.usefixtures("scan")
def test_record_has_the_keys_of_the_contract(semsr, tmp_path):
    said = semsr("stitch", "scan", "-o", "mosaic.ome.zarr", "--json",
                 "--positions-out", "solved.csv", "--blend", "seam")  # fmt: skip
    assert said.code == 0, said.err
    record = said.record
    assert set(record) >= {
        "shape", "pixel_size_nm", "frames", "pairs_used", "pairs_rejected",
        "residual_px", "warnings", "positions", "distortion", "distortion_sd",
    }  # fmt: skip
    assert record["frames"] == 4
    assert record["pairs_used"] >= 3
    assert "solution" not in record
    assert record["pixel_size_nm"] == pytest.approx([20, 20])
    assert set(record["positions"][0]) == {"frame", "y_px", "x_px"}
    assert set(record["stage_to_camera"]) == {"angle_deg", "scale", "shear"}
    assert record["stage_to_camera"]["scale"] == pytest.approx(1, abs=0.1)
    with (tmp_path / "solved.csv").open(newline="") as stream:
        assert [row["frame"] for row in csv.DictReader(stream)] == [
            item["frame"] for item in record["positions"]
        ]
    info = semsr("info", "mosaic.ome.zarr", "--json").record
    assert info["shape"] == record["shape"]
