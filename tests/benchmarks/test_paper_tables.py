"""Tests of the papers' tables: shares, keys, scores, markdown, a short run."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import yaml
from paper_tables import evaluate as judging, published, runs as running
from paper_tables.__main__ import main
from paper_tables.curves import best_gain, draw_curves, read_curve
from paper_tables.evaluate import Extent, evaluate, judged, records_of, results_of
from paper_tables.gao import SETS, gao_sets, measure_sets, score, summary
from paper_tables.given import CLASSICAL, LEGEND, given, given_to_model, legend
from paper_tables.goals import GOALS, goals, read_goals
from paper_tables.markdown import number
from paper_tables.omitted import NOT_REPEATED
from paper_tables.page import page
from paper_tables.plan import (
    BY_STEPS,
    NARROW,
    NARROW_ONLY,
    RECIPES,
    Planned,
    key_of,
    plan,
    shared_out,
)
from paper_tables.published import publish
from paper_tables.theirs import GAO_TABLE_1

from napari_semsr.models import (
    ModelCard,
    build_network,
    load_training_networks,
    save_model,
    save_weights,
)
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


def test_only_the_short_forms_have_a_learnt_blur_and_only_under_its_own_name() -> None:
    names = {p.name for p in plan(narrow=True)} - {p.name for p in plan(narrow=False)}
    assert names == set(NARROW_ONLY)
    for letter in "abc":
        gao, blur = (
            next(p for p in plan(narrow=True) if p.name == f"{kind}-{letter}").recipe()
            for kind in ("gao", "blur")
        )
        assert gao.gan.kernel is None
        assert blur.gan.kernel is not None
        assert blur.gan.kernel.learnt
        assert gao.degradations == blur.degradations
        text = (NARROW / f"blur-{letter}.yaml").read_text()
        assert "not Gao's system" in text


def test_key_tells_apart_what_is_trained_differently() -> None:
    planned = plan(narrow=True, only=("wang", "gao-a"))
    assert len({key_of(p, 20.0) for p in planned}) == len(planned)
    assert key_of(planned[0], 20.0) == key_of(planned[0], 20.0)
    assert key_of(planned[0], 20.0) != key_of(planned[0], 60.0)


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


@pytest.mark.parametrize(("gain", "reached"), [(1.5, "no"), (1.61, "yes")])
def test_own_system_must_gain_more_than_the_aim_and_its_error(
    gain: float, reached: str
) -> None:
    sets = {"A": rows(**{"gao-a": gain})}
    text = goals({"gao": sets}, narrow=False)
    assert f"+1.40 dB | {gain:+.2f} ± 0.20 dB | {reached} |" in text


def test_goals_are_read_from_the_file_and_half_of_the_papers_gains() -> None:
    read = read_goals()
    assert read == yaml.safe_load(GOALS.read_text())
    for name, aim in read["gao"].items():
        theirs = GAO_TABLE_1[name]
        half = (theirs["their CycleGAN"][1] - theirs["degraded"][1]) / 2
        assert aim["gain_db"] == pytest.approx(half, abs=0.0051)
    assert read["develop"]["haze_seed"] < 10_000 <= read["final"]["haze_seed"]
    assert read["develop"]["first_seed"] < 10_000 <= read["final"]["first_seed"]
    for final in (True, False):
        one = read["final" if final else "develop"]
        assert Extent.planned(final=final).gold_fields == one["gold_fields"]


def test_superlens_is_held_against_its_input() -> None:
    def row(gain: float, resolution: float) -> dict[str, float]:
        return {"gain_db": gain, "ssim": 0.5, "resolution_nm": resolution}

    group = {
        "optical": row(0.0, 200.0),
        "sun": row(0.9, 90.0),
        "pix2pix-ssum": row(-0.1, 100.0),
        "srgan-ssum": row(-0.1, 300.0),
        "ssum-sem": row(5.1, 60.0),
    }
    text = goals({"superlens": {"any focus": group}}, narrow=False)
    said = {
        line.split("`")[1]: line.split("|")[-2].strip()
        for line in text.splitlines()
        if "any focus" in line
    }
    assert said == {
        "sun": "no",
        "pix2pix-ssum": "yes",
        "srgan-ssum": "no",
        "esrgan-ssum": number(None, 0),
        "ssum-sem": "yes",
    }


@pytest.mark.parametrize(
    ("name", "kind", "marks"),
    [
        ("gao-b", "fog", "unpaired, saw these degradations in training"),
        ("gao-b", "blur", "unpaired, blind"),
        (
            "blur-a",
            "blur",
            (
                "unpaired, a learnt blur in place of the second generator, saw these "
                "degradations in training"
            ),
        ),
        ("kernel-a", "blur", "true kernel"),
        ("kernel-a", "hybrid", "a kernel"),
        ("pix2pix-ssum", None, "pairs"),
        ("sun", None, "unpaired"),
    ],
)
def test_what_a_row_was_given_follows_from_its_recipe(
    name: str, kind: Any, marks: str
) -> None:
    recipe = next(p for p in plan(narrow=True) if p.name == name).recipe()
    found = given(recipe.to_card_record(), kind)
    if marks.endswith("kernel"):
        assert marks in found.split(", ")
        assert "blind" not in found
    else:
        assert found == marks


def test_bundled_models_say_what_they_were_given() -> None:
    found = given_to_model("sem-restore", "blur")
    assert found == "pairs, started from a bundled model, blind"
    assert given_to_model("ssum-sem") == "pairs, started from a bundled model"
    assert set(CLASSICAL.values()) <= set(LEGEND)


def test_models_of_a_set_saw_another_where_it_is_not_stretched() -> None:
    recipe = plan(narrow=True, only=("gao-b",))[0].recipe().to_card_record()
    found = given(recipe, "fog", stretched=False)
    assert found == "unpaired, saw these degradations stretched in training"
    said = legend(["pairs, blind", found])
    assert said.count("\n- ") == 4
    assert "- *true kernel*" not in said
    assert legend([""]) == ""


def test_sets_that_are_not_stretched_keep_the_low_contrast_of_haze() -> None:
    clear = [
        np.rint(draw_phantom("circuit", (64, 64), seed=s) * 255).astype(np.uint8)
        for s in (1, 2)
    ]
    stretched, low = gao_sets(clear, 5), gao_sets(clear, 5, stretch=False)
    assert list(stretched) == ["A", "B", "C"]
    assert list(low) == ["B", "C"]
    for name, pairs in low.items():
        for (hazy, truth), (again, same) in zip(pairs, stretched[name], strict=True):
            assert np.array_equal(truth, same)
            assert hazy.std() < 0.5 * again.std()
    other = gao_sets(clear, 6)["B"][0][0]
    assert np.array_equal(other, gao_sets(clear, 6, stretch=True)["B"][0][0])
    assert not np.array_equal(other, stretched["B"][0][0])


def test_best_validation_gain_and_its_step_come_from_the_curve(tmp_path: Path) -> None:
    assert read_curve(tmp_path) == []
    assert best_gain({}) == number(None, 0)
    with (tmp_path / "curve.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["step", "loss", "gain_db"])
        writer.writerows([[250, 1, 0.5], [500, 1, 1.25], [750, 1, ""], [800, 1, "nan"]])
    record = {**RECORD, "curve": read_curve(tmp_path)}
    assert record["curve"] == [(250, 0.5), (500, 1.25)]
    assert best_gain(record) == "+1.25 dB at 500"
    drawn = tmp_path / "curves.png"
    assert not draw_curves(drawn, {"gao-a": RECORD})
    assert draw_curves(drawn, {"gao-a": record})
    assert drawn.stat().st_size > 1000
    text = page({}, {"gao-a": record}, MADE)
    assert "images/results-curves.png" in text
    assert "| +1.25 dB at 500 |" in text
    assert "results-curves" not in page({}, {"gao-a": RECORD}, MADE)


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


SMALL_CYCLE = """
name: gao-a
kind: cycle-gan
architecture: correction
architecture_options: {network: srcnn, options: {widths: [4, 4]}}
gan: {discriminator_options: {width: 4}, history: 0}
data: {phantoms: 1, scene_px: 32, patch_px: 32, patches_per_scene: 1, bank: 4,
       bank_folder: banks}
degradations: {blur: 1, fog: 0, hybrid: 0, as_paper: 1}
batch: 1
steps: 2
warmup_steps: 0
decay_steps: 0
validate_every: 1
workers: 0
"""


def test_run_goes_on_from_its_table_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "MODELS", tmp_path / "models")
    (tmp_path / "gao-a.yaml").write_text(SMALL_CYCLE)
    first = plan(narrow=True, only=("gao-a",))[0]
    planned = replace(first, path=tmp_path / "gao-a.yaml")
    runs, models, said = tmp_path / "runs", tmp_path / "models", []
    for go_on in (False, True):
        folder = runs / "gao-a"
        folder.mkdir(parents=True, exist_ok=True)
        asked = {"key": f"{go_on}", "minutes": None, "go_on": go_on}
        (folder / "asked.json").write_text(json.dumps(asked))
        record = running.train_one(planned, folder)
        record["validation"]["gain_db"] += 1.0 if go_on else 0.0
        (folder / "finished.json").write_text(json.dumps(record))
        assert record["steps"] == (4 if go_on else 2)
        assert publish(("gao-a",), runs, models, said.append) == ["gao-a"]
        steps = [step for step, _ in read_curve(models / "gao-a")]
        assert steps == ([1, 2, 3, 4] if go_on else [1, 2])
        # counted with those of the table model, as its curve is
        assert record["validation"]["step"] in ((3, 4) if go_on else (1, 2))
    assert publish(("gao-a", "sun"), runs, models, said.append) == []
    assert said[-1] == "gao-a: the one that is there is as good"
    held = models / "gao-a" / "gao-a.safetensors"
    assert any(key.startswith("back.") for key in load_training_networks(held))
    assert records_of(models)["gao-a"]["steps"] == 4


@pytest.fixture
def run_of_sun(tmp_path: Path) -> Path:
    """Give the folder of a finished run."""
    folder = tmp_path / "runs" / "sun"
    folder.mkdir(parents=True)
    options = {"widths": [4, 4]}
    card = ModelCard(
        name="sun", architecture="srcnn", options=options, stride=1, receptive_field=8
    )
    save_model(folder / "sun.safetensors", build_network("srcnn", options), card)
    (folder / "finished.json").write_text(json.dumps(RECORD))
    return folder


@pytest.mark.usefixtures("run_of_sun")
def test_model_that_is_too_large_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "LARGEST", 100)
    said: list[str] = []
    assert publish(("sun",), tmp_path / "runs", tmp_path / "models", said.append) == []
    assert said[0].endswith("is too large")
    assert not list((tmp_path / "models").iterdir())


def test_networks_beside_that_make_a_model_too_large_are_left_out(
    tmp_path: Path, run_of_sun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = {"other.weight": torch.ones(20_000)}
    save_weights(run_of_sun / "networks.safetensors", large)
    monkeypatch.setattr(published, "LARGEST", 20_000)
    said: list[str] = []
    models = tmp_path / "models"
    assert publish(("sun",), tmp_path / "runs", models, said.append) == ["sun"]
    assert said[0].endswith("without the networks beside")
    assert load_training_networks(models / "sun" / "sun.safetensors") == {}


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


def test_parts_without_final_data_are_those_of_development(tmp_path: Path):
    for folder in ("measured", "measured-final"):
        (tmp_path / folder).mkdir()
        for part in ("gao", "real_gold"):
            path = tmp_path / folder / f"{part}.json"
            path.write_text(json.dumps({"of": folder}))
    assert results_of(tmp_path, final=True) == {
        "gao": {"of": "measured-final"},
        "real_gold": {"of": "measured"},
    }
    assert results_of(tmp_path)["gao"] == {"of": "measured"}


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


def test_development_judges_the_restorer_and_is_not_counted(
    tmp_path: Path, finally_seen: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.zeros((32, 32), np.uint8)
    monkeypatch.setattr(judging, "develop_images", lambda _side: [image])
    evaluate(tmp_path, ("gao",), Extent.planned(final=False), lambda _text: None)
    assert "sem-restore" in finally_seen[0][1]["A"]
    assert judged(tmp_path) == ()
    assert "**On development data.**" in page(results_of(tmp_path), {}, MADE)


def test_parts_without_final_data_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unready = [part for part in judging.PARTS if part not in judging.FINAL_PARTS]
    for part in unready:
        call = ["evaluate", "--final", "--runs", str(tmp_path), "--parts", part]
        assert main(call) == 2
        assert f"got {part}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "minutes", "command"),
    [
        (["--hours", "2"], 120.0, "make tables HOURS=2"),
        (["--minutes", "30"], 30.0, "make tables MINUTES=30"),
        ([], 60.0, "make tables"),
    ],
)
def test_hours_are_shared_out_as_minutes_are(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: list[str],
    minutes: float,
    command: str,
) -> None:
    given_to: list[Any] = []

    def pretend(planned: Any, runs: Any, **settings: Any) -> list[str]:
        given_to.append((len(planned), runs, settings["minutes"]))
        return []

    monkeypatch.setattr("paper_tables.__main__.train_all", pretend)
    monkeypatch.setattr("paper_tables.__main__.make_gold_pairs", lambda *_: True)
    assert main(["train", "--narrow", "--runs", str(tmp_path), *asked]) == 0
    assert given_to == [(len(plan(narrow=True)), tmp_path, minutes)]
    made = json.loads((tmp_path / "made.json").read_text())
    assert made["command"] == command


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


@pytest.mark.parametrize(
    "call", [["train", "gao-a", "--go-on"], ["evaluate", "--parts", "gold"]]
)
def test_table_models_that_are_not_here_are_asked_for(
    call: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "gao-a"
    folder.mkdir()
    (folder / "finished.json").write_text(json.dumps(RECORD))
    for module in ("published", "__main__"):
        monkeypatch.setattr(f"paper_tables.{module}.MODELS", tmp_path)
    assert main([*call, "--narrow", "--runs", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "gao-a" in told
    assert "git restore --source=" in told
