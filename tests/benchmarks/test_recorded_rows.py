"""The pages' figures are those of the rows that are kept beside the benchmarks."""

import json
from pathlib import Path

import _gao_tables
import adapt
import finetuning
import frc_accuracy
import gold
import magnify
import pytest
import yaml
from _shared import mean_and_error
from _superlens_tables import by_distance
from own_image import table
from paper_tables.goals import goals
from paper_tables.reached import judged_apart, reached
from paper_tables.real_gold import real_gold_table, reference_words, summarise
from restorer import told_table

ROOT = Path(__file__).resolve().parents[2]
ROWS = ROOT / "benchmarks" / "rows"
MINUS = "\N{MINUS SIGN}"


def rows_of(name: str) -> list[dict]:
    """Read rows that a benchmark has written."""
    text = (ROWS / name).read_text("utf-8")
    if name.endswith(".json"):
        return json.loads(text)
    return [json.loads(line) for line in text.splitlines()]


def page(name: str) -> str:
    """Read a page."""
    return (ROOT / "docs" / name).read_text("utf-8")


def joined(name: str) -> str:
    """Read a page, its lines joined."""
    return " ".join(page(name).split())


def test_what_adapt_gains() -> None:
    record = page("validation/adapt.md")
    for section in adapt.table(rows_of("adapt.jsonl")).split("\n\n"):
        assert section in record


def test_frc_intervals() -> None:
    rows = rows_of("frc_intervals.jsonl")
    tables = frc_accuracy.interval_table(rows)
    for each in tables.split("\n\n"):
        assert each in page("validation/frc.md")
    known = [row for row in rows if row["object"].endswith(frc_accuracy.KNOWN)]
    assert {row["block"] for row in known} == {64, 128, 512}
    assert not frc_accuracy.misses_goal(known)


def test_real_pairs() -> None:
    rows = rows_of("real_pairs.json")
    gains = [row["gain"] for row in rows]
    mean = mean_and_error(gains)
    assert f"{mean} dB, on {len(rows)} pairs" in joined("models.md")
    record = joined("validation/models.md")
    before, gaussian, oracle = (
        sum(row[name] for row in rows) / len(rows)
        for name in ("before", "gaussian", "oracle")
    )
    after = before + sum(gains) / len(rows)
    assert (
        f"{before:.2f} → {after:.2f} dB, **{mean}**, worst {min(gains):+.2f}" in record
    )
    assert f"Gaussian gains {gaussian:.2f} and the oracle {oracle:.2f}" in record
    soft = [row["soft"] for row in rows]
    told = f"at {sum(soft) / len(soft):.1f} dB in the mean and {min(soft):.1f} at worst"
    assert told in joined("validation/models.md")


def test_what_the_default_gains_on_final_images() -> None:
    rows, record = rows_of("restorer.jsonl"), page("validation/models.md")
    goals = yaml.safe_load((ROOT / "benchmarks" / "restorer_goals.yaml").read_text())
    quiet = {}
    for case in dict.fromkeys(row["case"] for row in rows):
        own = [row for row in rows if row["case"] == case]
        still = [row for row in own if row["image"] in goals["quiet"]]
        quiet[case] = [row.get("gain", row["after"]) for row in still]
        if case in goals["cases"] and case != "sharp":
            gains = [row["gain"] for row in own]
            before, oracle = (
                sum(row[name] for row in own) / len(own)
                for name in ("before", "oracle")
            )
            cells = f"| {before:.2f} | {mean_and_error(gains)} | {min(gains):+.2f} | "
            assert f"{cells}{oracle:+.2f} |".replace("-", MINUS) in record
    mean = {
        case: f"{sum(gains) / len(gains):+.2f}".replace("-", MINUS)
        for case, gains in quiet.items()
    }
    told = " ".join(record.split())
    assert f"noise 15 {mean['noise 15']} (" in told
    assert f"noise 40 {mean['noise 40']} (" in told
    assert f"set A {mean['set A']} (" in told
    assert f"B {mean['set B']} and C {mean['set C']} (" in told
    assert f"blur 0.4 px {mean['blur 0.4']} (" in told


def test_blur_that_is_told() -> None:
    rows = rows_of("told_blur.json")
    for case in ("told", "too much"):
        assert told_table(rows, case) in page("validation/models.md")
    gains = [row["gain"] for row in rows if row["case"] == "told 1.0"]
    assert f"| {mean_and_error(gains)} | {min(gains):+.2f} |" in page("models.md")


@pytest.mark.parametrize(
    ("optics", "band"),
    [
        ("lens", "whole"),
        ("lens", "below the cut-off"),
        ("lens", "above it"),
        ("lens, first", "whole"),
        ("Gaussian", "whole"),
    ],
)
def test_gains_by_distance_from_the_focus(optics: str, band: str) -> None:
    table = by_distance(rows_of("by_focus.jsonl"), optics, band)
    assert table in page("validation/superlens.md")


def test_denoisers_side_by_side() -> None:
    rows, record = rows_of("own_image.jsonl"), page("validation/training.md")
    assert table(rows) in record
    assert table(rows, ahead=True) in record


def test_gaps_of_real_gold() -> None:
    found = summarise(rows_of("real_gold.jsonl"))
    record = page("validation/results.md")
    assert real_gold_table(found) in record
    assert f"({reference_words(found)})" in record


def test_gaps_of_drawn_gold() -> None:
    rows = rows_of("gold.jsonl")
    record = page("validation/gold.md")
    assert gold.table(rows) in record
    found = {name: gold.pooled(each) for name, each in gold.by_method(rows).items()}
    for name in ("cubic splines (input)", "best linear filter", "sem-2x"):
        one = found[name]
        told = [
            f"{one['undetected_percent']:.1f} ± {one['undetected_spread_percent']:.1f}",
            f"{one['width_error_nm']:.2f}",
            f"{one['invented_percent']:.1f}",
        ]
        row = f"| {name} | {' | '.join(told)} |"
        assert row in page("gold.md").replace("**", "").replace("`", "")


def test_pictures_scanned_twice() -> None:
    table = magnify.pictures_table(rows_of("pictures.jsonl"))
    assert table.split("\n\n")[1] in page("validation/gold.md")


def test_suns_own_system() -> None:
    rows = rows_of("sun.jsonl")
    record = joined("validation/training.md")
    *_, model = rows[0]
    gains = [row[model]["whole"] for row in rows]
    focused = [row[model]["whole"] for row in rows if abs(row["defocus"]) <= 1]
    told = f"{mean_and_error(gains)} dB against its input at any focus, worst"
    assert f"{told} {min(gains):+.2f} (in focus {mean_and_error(focused)})" in record
    linear = mean_and_error([row["linear"]["whole"] for row in rows])
    assert f"filter of each field gains {linear} (`" in record


def test_fine_tuning() -> None:
    rows, record = rows_of("finetuning.jsonl"), page("validation/training.md")
    assert finetuning.table(rows) in record
    assert finetuning.shifted(rows) in record


def test_self_ensemble_of_superlens_fields() -> None:
    alone = {
        row["number"]: row["ssum-sem"]["whole"]
        for row in rows_of("by_focus.jsonl")
        if row["optics"] == "lens"
    }
    rows, record = rows_of("self_ensemble.jsonl"), page("validation/tiling.md")
    for within, words in ((1, "43 fields in focus"), (3, "128 at any focus")):
        own = [row for row in rows if abs(row["defocus"]) <= within]
        before = sum(alone[row["number"]] for row in own) / len(own)
        after = sum(row["ssum-sem"]["whole"] for row in own) / len(own)
        assert f"{words} | {before:+.2f} | {after:+.2f} |" in record
    more = [row["ssum-sem"]["whole"] - alone[row["number"]] for row in rows]
    assert f"gain {mean_and_error(more)} dB by it" in record


def test_gaos_own_system() -> None:
    rows, record = rows_of("gao.jsonl"), page("validation/training.md")
    assert _gao_tables.states(rows) in record
    assert _gao_tables.spectra(rows) in record
    assert _gao_tables.curve(ROWS / "gao_curve.csv") in record
    assert mean_and_error([r["gain"] for r in rows if r["state"] == "last"]) in joined(
        "validation/index.md"
    )


def test_what_was_judged_apart_is_on_the_page_with_its_steps() -> None:
    found, results = reached(ROWS), page("validation/results.md")
    assert judged_apart(found) in results
    names = {(one.model, one.data) for one in found}
    sets = {("sem-restore", f"set {letter}") for letter in "ABC"}
    assert sets | {("campaign/gao-a", "set A"), ("campaign/sun", "superlens")} <= names
    # a row of the page that has nothing of its own takes them
    before = {"optical": {"resolution_nm": 247.0}}
    page_of = {"gao": {"B": {}}, "superlens": {"any focus": before}}
    told = goals(page_of, narrow=True, apart=found)
    for line in told.splitlines():
        if line.endswith(" |") and (" steps" in line or "(judged apart)" in line):
            assert line in results
    assert "`gao-a`, set A" in told
    assert "(92845 steps) | no |" in told


def test_what_a_card_did():
    right, fast, adapted, tuned, trained = (
        json.loads((ROWS / "gpu" / f"{part}.json").read_text("utf-8"))
        for part in ("right", "fast", "adapt", "fine-tune", "train")
    )
    text, haan = page("validation/gpu.md"), fast["de_haan"]
    for name, found in right["arithmetic"].items():
        shown = "an untrained network with live norms" if "," in name else f"`{name}`"
        row = next(line for line in text.splitlines() if line.startswith(f"| {shown}"))
        worst = f"{found['fp32']['worst']:.1e}".replace("e-0", "e-")
        bf16 = found["bf16"]
        assert f"| {worst} | {bf16['rms']:.4f} | {bf16['worst']:.4f}" in row
        assert ("missed" in row) is not bf16["right"]
    assert right["too_large"]["right"]
    assert right["two_processes"]["right"]
    alone = [haan[f"alone_{kind}_images_per_s"] for kind in ("fp32", "tf32", "bf16")]
    assert "{:.1f} in fp32, {:.1f} in TF32, {:.1f} in bf16".format(*alone) in text
    for name in ("sem-2x", "sem-restore"):
        rates = fast[f"models, {name}"]
        ours, monai, whole = (
            rates[f"{way}_mp_per_s"][-1] for way in ("ours", "monai", "whole")
        )
        row = next(
            line for line in text.splitlines() if line.startswith(f"| `{name}`, ")
        )
        assert f"| {ours:.1f} |" in row
        assert f"{monai:.0f}" in row
        assert f"{whole:.0f}" in row
    before = json.loads((ROWS / "gpu" / "fast-before.json").read_text("utf-8"))
    assert f"was {before['models, sem-2x']['ours_mp_per_s'][0]:.1f} megapixels" in text
    place = adapted["place"]
    wanted, last = place["cpu"]["gain_db"], place["rows"][-1]["gain_db"]
    gains = f"+{wanted:.1f} dB after {place['seconds_to_cpu_gain']:.0f} s, +{last:.1f}"
    assert gains in text
    spent = tuned["place"]
    assert (
        f"| {spent['seconds_to_cpu_gain']:.0f} s | {spent['cpu']['seconds']:.0f} s"
        in text
    )
    for name, best in (("sun", "bf16"), ("gao-a", "fp32")):
        rate = trained[name]["arithmetic"][best]["steps_per_s"]
        assert f"| {rate:.0f} " in text
