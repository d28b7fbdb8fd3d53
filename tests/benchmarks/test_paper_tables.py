"""Tests of the papers' tables: shares, keys, scores, markdown, a short run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from paper_tables import evaluate as judging, runs as running
from paper_tables.__main__ import main
from paper_tables.evaluate import Extent, judged, records_of, results_of
from paper_tables.gao import SETS, gao_sets, measure_sets, score, summary
from paper_tables.goals import goals
from paper_tables.omitted import NOT_REPEATED
from paper_tables.page import page
from paper_tables.plan import (
    NARROW,
    RECIPES,
    plan,
)
from paper_tables.theirs import GAO_TABLE_1

from napari_semsr.pairing import open_pairs
from napari_semsr.simulation.canvas import draw_phantom
from napari_semsr.simulation.degrade import degrade_plane

pytestmark = pytest.mark.broad

MADE = {
    "command": "make tables",
    "minutes": 20.0,
    "jobs": 2,
    "side": 512,
    "gold_fields": 4,
    "gold_side": 256,
}
RECORD = {
    "key": "k",
    "name": "gao-a",
    "narrow": True,
    "steps": 700,
    "minutes": 2.5,
    "device": "CPU",
    "threads": 1,
    "weights": 12345,
    "architecture": "correction",
    "options": {"network": "srcnn", "options": {"widths": [32, 16]}},
    "batch": 4,
    "patch_px": 64,
    "scenes": 300,
    "validation": {},
}


def rows(**gains: float) -> dict[str, dict[str, float]]:
    """Give the rows of one set, whose figures follow from the gains."""
    return {
        name: {
            "psnr": 20 + gain,
            "psnr_matched": 20 + gain,
            "ssim": 0.8,
            "ssim_gao": 0.7,
            "ssim_gao_matched": 0.75,
            "ag": 2.0,
            "con": 30.0,
            "sf": 5.0,
            "gain": gain,
            "gain_se": 0.2,
            "gain_as_is": gain,
            "worst_gain": gain - 0.1,
            "images": 8,
        }
        for name, gain in gains.items()
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


def test_score_does_not_mind_another_scale_of_greys_once_matched() -> None:
    truth = np.rint(draw_phantom("circuit", (64, 64), seed=1) * 255)
    found = score(0.5 * truth + 40, truth)
    assert found["psnr"] < 20 < 40 < found["psnr_matched"]
    assert found["ssim_gao"] < found["ssim_gao_matched"]
    same = score(truth, truth)
    assert same["ssim"] == same["ssim_gao"] == pytest.approx(1)
    assert same["con"] > found["con"] > 0


def test_summary_gives_means_their_errors_and_the_worst_gain() -> None:
    before = [{"psnr_matched": 20.0}, {"psnr_matched": 30.0}]
    after = [{"psnr_matched": 23.0}, {"psnr_matched": 31.0}]
    assert summary(after, before) == pytest.approx(
        {
            "psnr_matched": 27.0,
            "psnr_matched_se": 4.0,
            "psnr_matched_least": 23.0,
            "gain": 2.0,
            "gain_se": 1.0,
            "gain_least": 1.0,
            "worst_gain": 1.0,
            "images": 2,
        }
    )
    assert summary(after[:1], before[:1])["gain_se"] is None


def test_goals_say_what_was_not_reached() -> None:
    own = {"gao-a": 1.39, "oracle linear filter": 5.0, "sem-restore": 4.1}
    sets = {"A": rows(degraded=0.0, **own)}
    text = goals({"gao": sets}, narrow=True)
    assert "+1.40 dB | +1.39 ± 0.20 dB | no |" in text
    assert "own system (short form), `gao-a`, set A" in text
    assert "own system, `gao-a`, set A" in goals({"gao": sets}, narrow=False)
    assert "+4.00 dB | +4.10 ± 0.20 dB | yes |" in text
    assert "set B" in text
    assert "| +0.99 dB | not measured |" in text
    assert goals({}, narrow=True) == ""


def test_page_marks_the_papers_figures_and_leaves_out_what_is_missing() -> None:
    sets = {
        name: rows(degraded=0.0, truth=9.0, **{"Wiener, true kernel": 2.0})
        for name in SETS
    }
    sets["A"] |= rows(**{"Wiener, true kernel": 2.0, "gao-a": 1.5})
    text = page({"gao": sets}, {"gao-a": RECORD}, MADE)
    assert "than `gao-a` (+2.00 dB against +1.50 dB)." in text
    assert "Written by `make tables`:" in text
    assert "Short forms" in text
    assert "700" in text
    for name, methods in GAO_TABLE_1.items():
        assert f"**Set {name}" in text
        for method, (_, psnr) in methods.items():
            marked = [
                line
                for line in text.splitlines()
                if f"{method}: theirs, on their data*" in line and f"{psnr:.2f}" in line
            ]
            assert marked, method
    assert "de Haan et al., network" not in text
    assert "## De Haan et al. 2019" not in text
    last = text.split("\n## ")[-1]
    assert last.startswith("What is not repeated")
    for _, what, why in NOT_REPEATED:
        assert f"{what} | {why} |" in last


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
    assert record["given"] == "pairs"
    truth = np.rint(draw_phantom("circuit", (64, 64), seed=3) * 255)
    low = degrade_plane(truth.astype(np.uint8), "blur").image.astype(float)
    models = {"A": {"gao-a": folder / "gao-a.safetensors"}}
    said: list[str] = []
    found = measure_sets({"A": [(low, truth)]}, models, said.append, peers=False)
    assert list(found["A"]) == ["degraded", "gao-a", "truth"]
    assert found["A"]["gao-a"]["given"] == "pairs, saw these degradations in training"
    assert records_of(tmp_path / "runs")["gao-a"]["curve"]
    measured = tmp_path / "runs" / "measured"
    measured.mkdir()
    (measured / "gao.json").write_text(json.dumps(found))
    text = page(results_of(tmp_path / "runs"), {"gao-a": record}, MADE)
    row = "| gao-a (3 steps, 0.00 h) | pairs, saw these degradations in training | 0."
    assert row in text


@pytest.fixture
def finally_seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stand in for the final images and the measuring; give what was judged."""
    seen: list[Any] = []

    def pretend(sets: Any, models: Any, *_: Any, **__: Any) -> Any:
        seen.append((sets, models))
        return {name: rows(degraded=0.0, truth=9.0) for name in sets}

    image = np.rint(draw_phantom("circuit", (32, 32), seed=1) * 255).astype(np.uint8)
    monkeypatch.setattr(judging, "final_images", lambda _side: [image])
    monkeypatch.setattr(judging, "measure_sets", pretend)
    return seen


def test_final_judgement_is_made_once_and_says_so(
    tmp_path: Path, finally_seen: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    runs, written = tmp_path / "runs", tmp_path / "results.md"
    call = ["evaluate", "--runs", str(runs), "--page", str(written), "--final"]
    assert main([*call, "--parts", "gao"]) == 2
    assert "must be of finished runs, got none" in capsys.readouterr().err
    (runs / "gao-a").mkdir()
    (runs / "gao-a" / "finished.json").write_text(json.dumps(RECORD))
    assert main([*call, "--parts", "gao"]) == 0
    sets, models = finally_seen[0]
    first = Extent.planned(final=True).haze_seed
    assert first >= 10_000
    same = gao_sets([sets["B"][0][1].astype(np.uint8)], first)["B"][0][0]
    assert np.array_equal(sets["B"][0][0], same)
    assert all("sem-restore" not in held for held in models.values())
    text = written.read_text()
    assert "**On final data**" in text
    assert "`sem-restore` has no row" in text
    assert judged(runs) == ("gao",)
    assert results_of(runs) == {}  # development has its own folder
    capsys.readouterr()
    assert main([*call, "--parts", "gao"]) == 2
    refusal = capsys.readouterr().err.strip()
    assert refusal.startswith("A final judgement of gao is already kept in ")
    assert refusal.count(". ") == 0
    assert main([*call, "--parts", "gao_unstretched"]) == 0
    assert judged(runs) == ("gao", "gao_unstretched")
    assert main(call) == 2
    assert len(finally_seen) == 2
    assert main([*call, "--none"]) == 0
    assert main([*call, "--parts", "gao", "--again"]) == 0
    assert len(finally_seen) == 3


def test_real_gold_is_cut_to_pairs_of_one_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from paper_tables import gold_pairs

    (tmp_path / "data" / "time").mkdir(parents=True)
    image = (255 * draw_phantom("particles", (224, 200), seed=3)).astype(np.uint8)
    for name, place in (("100ns", np.s_[:, :192]), ("30us", np.s_[:, 2:194])):
        tifffile.imwrite(tmp_path / "data" / "time" / f"001_{name}.tif", image[place])
    monkeypatch.setattr(gold_pairs, "SCANS", tmp_path / "data")
    assert gold_pairs.make_gold_pairs(tmp_path / "gold.zarr", lambda _: None)
    store = open_pairs(tmp_path / "gold.zarr")
    assert store.is_paired
    low, high = (np.asarray(a[0], float)[8:-8, 8:-8] for a in store.get_arrays("train"))
    assert np.abs(low - high).mean() < 2  # of 255
