"""``semsr judge``: what it prints, and what it refuses."""

import json

import numpy as np
import pytest
import tifffile

from tests.two_views import write_views

LINE = ("judge", "optical.tif", "sem.tif", "-o", "page.html", "--models", "none")


@pytest.fixture
def pair(tmp_path):
    """Two images of one place, and their map."""
    write_views(tmp_path, 96, "optical", "sem")
    return tmp_path


def test_summary_is_a_table_and_json_is_that_of_the_file(semsr, pair):
    said = semsr(*LINE, "--transform", "map.json")
    assert said.code == 0, said.err
    rows = dict(line.split("  ", 1) for line in said.out.splitlines())
    assert rows["Expected error of the map"].split() == ["3", "nm", "=", "0.12", "px"]
    assert {"PSNR, linear filter", "SSIM, linear filter"} <= rows.keys()
    said = semsr(*LINE, "--transform", "map.json", "--overwrite", "--json")
    written = json.loads((pair / "page.json").read_text())
    printed = {**written, "seconds": 0, "warning_codes": []}
    assert {**said.record, "seconds": 0} == printed
    assert said.record["models"] == {}
    assert said.record["registration"]["searched"] == "stored"


def test_bad_input_is_refused_in_one_line(refused, pair):
    tifffile.imwrite(pair / "bare.tif", np.eye(90, dtype=np.uint8))
    wrong = ("judge", "bare.tif", "sem.tif", "-o", "page.html", "--models", "none")
    assert "set --moving-pixel-size-nm" in refused(*wrong)
    told = refused(*LINE, "--transform", "map.json", "--data-range", -1)
    assert "--data-range" in told
    assert not list(pair.glob("*page*"))


@pytest.mark.broad
def test_gains_below_and_above_the_cut_off_are_columns(semsr, pair):
    line = (*LINE, "--transform", "map.json", "--cut-off-nm", 150)
    rows = semsr(*line).out.splitlines()
    assert any(row.startswith("Below the cut-off, linear filter") for row in rows)
    record = json.loads((pair / "page.json").read_text())
    gained = record["baselines"]["linear filter"]["gain_above_db"]
    told = "\n".join(rows).replace("\N{MINUS SIGN}", "-")
    assert f"{gained:+.2f} dB ± " in told
