"""The steps of the manual's page run as they stand there."""

import re
from pathlib import Path

import pytest

from napari_semsr.io import read_sheet
from napari_semsr.jobs import is_image_collection

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def example() -> str:
    """The first steps file of the page."""
    page = (ROOT / "docs" / "batch.md").read_text("utf-8")
    found = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.broad
def test_example_of_the_manual_runs(scans, tmp_path, batch, example):
    for path in sorted(scans.iterdir())[2:]:
        path.unlink()
    steps = tmp_path / "steps.yaml"
    steps.write_text(example)
    report = batch(steps)
    assert (report.done, report.ran) == (2, 12)
    assert report.report == (str(tmp_path / "results" / "report.html"),)
    table = tmp_path / "results" / "table.csv"
    assert is_image_collection(table)
    names = read_sheet(table, "images").names
    assert {"frc_reason", "after_reason", "metrics_ssim", "error_map_rsp"} <= set(names)
    assert (tmp_path / "results" / "enhance" / "s0.ome.tif").is_file()
