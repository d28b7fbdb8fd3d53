"""Tests of the papers' tables: shares, keys, scores, markdown, a short run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from paper_tables import runs as running
from paper_tables.evaluate import records_of, results_of
from paper_tables.gao import measure_sets, summary
from paper_tables.page import page
from paper_tables.plan import NARROW, RECIPES, plan

from napari_semsr.simulation import degrade_plane, draw_phantom

pytestmark = pytest.mark.broad

MADE = {
    "command": "make tables",
    "minutes": 20.0,
    "jobs": 2,
    "side": 512,
    "gold_fields": 4,
    "gold_side": 256,
}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_a_short_form_of_the_same_kind_and_data(name: str) -> None:
    full, short = (
        next(p for p in plan(narrow=narrow) if p.name == name).recipe()
        for narrow in (False, True)
    )
    assert short.name == full.name == name
    assert short.kind == full.kind
    assert short.data.sources == full.data.sources
    assert short.data.train == full.data.train
    assert short.data.held_out == full.data.held_out
    for kind in ("blur", "fog", "hybrid", "as_paper"):
        assert getattr(short.degradations, kind) == getattr(full.degradations, kind)
    first = (NARROW / f"{name}.yaml").read_text().splitlines()[0]
    assert first.startswith(f"# Short form of {name} for a CPU")


def test_summary_gives_means_their_errors_and_the_worst_gain() -> None:
    before = [{"psnr": 20.0, "psnr_matched": matched} for matched in (20.0, 30.0)]
    after = [{"psnr": 20.0, "psnr_matched": matched} for matched in (23.0, 31.0)]
    assert summary(after, before) == pytest.approx(
        {
            "psnr": 20.0,
            "psnr_se": 0.0,
            "psnr_matched": 27.0,
            "psnr_matched_se": 4.0,
            "gain": 2.0,
            "gain_se": 1.0,
            "worst_gain": 1.0,
            "images": 2,
        }
    )
    assert summary(after[:1], before[:1])["gain_se"] is None


RECIPE = """
name: gao-a
kind: supervised
loss: l1
architecture: correction
architecture_options: {network: srcnn, options: {widths: [4, 4]}}
data: {phantoms: 1, scene_px: 32, patch_px: 16, patches_per_scene: 2, bank: 4,
       bank_folder: banks}
degradations: {blur: 1, fog: 0, hybrid: 0, as_paper: 1}
batch: 2
steps: 3
warmup_steps: 0
decay_steps: 0
workers: 0
"""


def test_short_run_ends_in_a_row_of_the_page(tmp_path: Path) -> None:
    (tmp_path / "gao-a.yaml").write_text(RECIPE)
    first = plan(narrow=True, only=("gao-a",))[0]
    planned = replace(first, path=tmp_path / "gao-a.yaml")
    folder = tmp_path / "runs" / "gao-a"
    folder.mkdir(parents=True)
    (folder / "asked.json").write_text(json.dumps({"key": "k", "minutes": None}))
    record = running.train_one(planned, folder)
    assert running.finished(folder, "k") == record
    assert running.finished(folder, "other") is None
    assert record["steps"] == 3
    truth = np.rint(draw_phantom("circuit", (64, 64), seed=3) * 255)
    low = degrade_plane(truth.astype(np.uint8), "blur").image.astype(float)
    models = {"A": {"gao-a": folder / "gao-a.safetensors"}}
    said: list[str] = []
    found = measure_sets({"A": [(low, truth)]}, models, said.append)
    assert list(found["A"])[:3] == ["degraded", "Wiener, true kernel", "gao-a"]
    measured = tmp_path / "runs" / "measured"
    measured.mkdir()
    (measured / "gao.json").write_text(json.dumps(found))
    assert records_of(tmp_path / "runs") == {"gao-a": record}
    text = page(results_of(tmp_path / "runs"), {"gao-a": record}, MADE)
    assert "| gao-a | " in text
    assert "| `gao-a` | srcnn, as a correction, width 4 and 4 |" in text
