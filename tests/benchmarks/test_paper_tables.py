"""Tests of what makes docs/results.md: shares, keys, scores, markdown, a short run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paper_tables import runs as running
from paper_tables.evaluate import results_of
from paper_tables.gao import SETS, measure_sets, score, summary
from paper_tables.goals import goals
from paper_tables.markdown import how_trained, number, table
from paper_tables.page import page
from paper_tables.page_lens import fewer
from paper_tables.plan import (
    BY_STEPS,
    NARROW,
    RECIPES,
    Planned,
    key_of,
    plan,
    shared_out,
)
from paper_tables.theirs import GAO_TABLE_1

from napari_semsr.simulation.degrade import degrade_plane
from napari_semsr.simulation.phantoms.draw import draw

MADE = {
    "command": "make tables",
    "minutes": 20.0,
    "jobs": 2,
    "side": 512,
    "edge_share": 0.35,
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
            "worst_gain": gain - 0.1,
            "images": 8,
        }
        for name, gain in gains.items()
    }


def test_shares_of_the_minutes_add_up_to_all_of_the_processors() -> None:
    planned = plan(narrow=True)
    shares = shared_out(planned, 20.0, 2)
    assert set(BY_STEPS) == {p.name for p in planned} - set(shares)
    weights = {p.name: p.weight for p in planned}
    by_weight = {share / weights[name] for name, share in shares.items()}
    assert max(by_weight) == pytest.approx(min(by_weight))
    # what goes by steps has its part of the time too
    assert sum(weights.values()) * min(by_weight) == pytest.approx(40.0)


def test_those_that_are_compared_go_by_equal_steps() -> None:
    for narrow in (True, False):
        recipes = [p.recipe() for p in plan(narrow=narrow) if p.name in BY_STEPS]
        assert len({(r.steps, r.minutes, r.batch) for r in recipes}) == 1
        assert {(r.minutes, r.learning_rate) for r in recipes} == {(None, 1e-4)}


def test_one_training_has_all_the_minutes_and_no_more() -> None:
    assert shared_out(plan(narrow=True, only=("sun",)), 6.0, 2) == {"sun": 6.0}


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


def test_runs_that_compare_the_edge_loss_differ_in_nothing_else() -> None:
    found = [p.recipe() for p in plan(narrow=True, only=("gao-a-edge",))]
    assert [r.gan.edge_weight for r in found] == [0, 1, 5, 10, 20]
    same = {
        r.replace(name="n", gan=r.gan.replace(edge_weight=1)).model_dump_json()
        for r in found
    }
    assert len(same) == 1


def test_key_tells_apart_what_is_trained_differently() -> None:
    planned = plan(narrow=True, only=("wang", "gao-a"))
    assert len({key_of(p, 20.0) for p in planned}) == len(planned)
    assert key_of(planned[0], 20.0) == key_of(planned[0], 20.0)
    assert key_of(planned[0], 20.0) != key_of(planned[0], 60.0)


@pytest.mark.parametrize(
    ("value", "digits", "sign", "text"),
    [
        (1.236, 2, False, "1.24"),
        (0.5, 1, True, "+0.5"),
        (-0.001, 2, True, "+0.00"),
        (None, 1, False, "\N{EN DASH}"),
        (float("nan"), 1, True, "\N{EN DASH}"),
    ],
)
def test_number_is_written(
    value: float | None, digits: int, sign: bool, text: str
) -> None:
    assert number(value, digits, sign=sign) == text


def test_table_has_a_line_for_each_row_and_keeps_bars_apart() -> None:
    assert table(("a", "b"), [("x|y", "1")]) == "| a | b |\n|---|---:|\n| x\\|y | 1 |"
    with pytest.raises(ValueError, match="2 cells, got 1"):
        table(("a", "b"), [("x",)])


def test_training_is_told_with_width_steps_minutes_and_device() -> None:
    assert how_trained(RECORD) == [
        "srcnn, as a correction, width 32 and 16",
        "0.012",
        "4 of 64 px",
        "700",
        "2.5",
        "CPU, 1 thread",
    ]


def test_score_does_not_mind_another_scale_of_greys_once_matched() -> None:
    truth = np.rint(draw("circuit", (64, 64), seed=1) * 255)
    found = score(0.5 * truth + 40, truth)
    assert found["psnr"] < 20 < 40 < found["psnr_matched"]
    assert found["ssim_gao"] < found["ssim_gao_matched"]
    same = score(truth, truth)
    assert same["ssim"] == same["ssim_gao"] == pytest.approx(1)
    assert same["con"] > found["con"] > 0


def test_summary_gives_means_and_the_worst_gain() -> None:
    before = [{"psnr_matched": 20.0}, {"psnr_matched": 30.0}]
    after = [{"psnr_matched": 23.0}, {"psnr_matched": 31.0}]
    assert summary(after, before) == {
        "psnr_matched": 27.0,
        "gain": 2.0,
        "worst_gain": 1.0,
        "images": 2,
    }


def test_goals_say_what_was_not_reached() -> None:
    own = {"gao-a": 1.39, "oracle linear filter": 5.0, "sem-restore": 4.1}
    sets = {"A": rows(degraded=0.0, **own)}
    text = goals({"gao": sets}, narrow=True)
    assert "+1.40 dB | +1.39 dB | no |" in text
    full = goals({"gao": sets}, narrow=False)
    assert "the paper's system, set A: its gain | +2.80 dB | +1.39 dB | no |" in full
    assert "+4.00 dB | +4.10 dB | yes |" in text
    assert goals({}, narrow=True) == ""


def test_page_marks_the_papers_figures_and_leaves_out_what_is_missing() -> None:
    sets = {
        name: rows(degraded=0.0, truth=9.0, **{"Wiener, true kernel": 2.0})
        for name in SETS
    }
    sets["A"] |= rows(**{"Wiener, true kernel": 2.0, "gao-a": 1.5})
    text = page({"gao": sets}, {"gao-a": RECORD}, MADE)
    assert "more on set A (+2.00 dB against +1.50 dB)." in text
    assert "*Written by `make tables`." in text
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
    assert "de Haan et al. 2019" not in text.split("## ")[-1]


def test_models_that_show_fewer_gaps_than_they_were_given_are_named() -> None:
    def row(optical: float, mine: float) -> dict[str, dict[str, float]]:
        return {"optical": {"resolved": optical}, "mine": {"resolved": mine}}

    series = {"discs": {"50": row(0.2, 0.5), "60": row(0.9, 0.2), "80": row(1.0, 0.96)}}
    assert fewer(series).endswith("shows: `mine` (discs of 60 nm).")
    assert fewer({"lines": {"50": row(0.2, 0.2)}}) == ""


def test_finished_runs_are_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def pretend(planned: list[Planned], *_: Any) -> list[str]:
        asked.append(sorted(p.name for p in planned))
        for p in planned[:1]:
            record = {**RECORD, "key": key_of(p, 1.0), "name": p.name}
            (tmp_path / p.name / "finished.json").write_text(json.dumps(record))
        return []

    monkeypatch.setattr(running, "in_processes", pretend)
    monkeypatch.setattr(running, "make_scenes", lambda *_: None)
    planned = plan(narrow=True, only=("srgan", "esrgan"))
    said: list[str] = []
    for _ in range(3):
        running.train_all(planned, tmp_path, minutes=1.0, jobs=2, say=said.append)
    assert [len(names) for names in asked] == [2, 1, 0]
    assert f"{planned[0].name} is there already" in said
    running.train_all(planned, tmp_path, minutes=2.0, jobs=2, say=said.append)
    assert len(asked[-1]) == 2


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
    record = running.train_one(planned, folder, key="k")
    assert running.finished(folder, "k") == record
    assert running.finished(folder, "other") is None
    assert record["steps"] == 3
    truth = np.rint(draw("circuit", (64, 64), seed=3) * 255)
    low = degrade_plane(truth.astype(np.uint8), "blur").image.astype(float)
    models = {"A": {"gao-a": folder / "gao-a.safetensors"}}
    said: list[str] = []
    found = measure_sets({"A": [(low, truth)]}, models, said.append, peers=False)
    assert list(found["A"]) == ["degraded", "gao-a", "truth"]
    measured = tmp_path / "runs" / "measured"
    measured.mkdir()
    (measured / "gao.json").write_text(json.dumps(found))
    text = page(results_of(tmp_path / "runs"), {"gao-a": record}, MADE)
    assert "| gao-a | 0." in text
