import pytest

from tests.tables import rows_of

SCAN = ("--frames-grid", "2x2", "--frame-px", "96", "--field", "square", "--seed", "5")


def test_record_has_the_keys_of_the_contract(semsr, tmp_path):
    assert semsr("simulate", "scan", "--phantom", "particles", *SCAN).code == 0
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
    assert record["pixel_size_nm"] == pytest.approx([20, 20])
    assert record["stage_to_camera"]["scale"] == pytest.approx(1, abs=0.1)
    written = [row["frame"] for row in rows_of(tmp_path / "solved.csv")]
    assert written == [item["frame"] for item in record["positions"]]
