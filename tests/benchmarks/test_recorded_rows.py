"""The pages' figures are those of the rows that are kept beside the benchmarks."""

import json
from collections.abc import Callable
from pathlib import Path

import adapt
import frc_accuracy
import magnify
import pytest
import record
from _shared import mean_and_error
from own_image import table
from paper_tables.reached import judged_apart, reached
from paper_tables.real_gold import real_gold_table, reference_words, summarise

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


@pytest.mark.parametrize(
    ("name", "write"),
    [(name, write) for name, tables in record.TABLES.items() for write in tables],
)
def test_tables_of_the_record(name: str, write: Callable[[], str]) -> None:
    assert write() in page(f"validation/{name}")


def test_what_adapt_gains() -> None:
    found = joined("validation/model-own-place.md")
    removed = [row for row in rows_of("adapt.jsonl") if row["part"] == "removed"]
    for kind in ("circuit", "grating", "particles", "pits", "dots"):
        kept = [row for row in removed if kind in row["name"] and "removed" in row]
        cells = [str(len(kept)), str(sum(row["removed"]["objects"] for row in kept))]
        for part, key in (
            ("removed", "shown"),
            ("removed", "drawn"),
            ("inserted", "shown"),
        ):
            shares = {adapt.percent(row, part, key) for row in kept}
            ends = sorted(shares - {""}, key=float) or ["\N{EN DASH}"]
            cells.append("\N{EN DASH}".join(dict.fromkeys((ends[0], ends[-1]))))
        assert f"| {kind} | {' | '.join(cells)} |" in found
    refused = [row for row in rows_of("adapt.jsonl") if row["part"] == "useless"]
    assert f"all of {len(refused)} unusable" in found


def test_frc_intervals() -> None:
    rows = rows_of("frc_intervals.jsonl")
    blocks, _ = frc_accuracy.interval_table(rows).split("\n\n")
    assert blocks in page("validation/frc.md")
    known = [row for row in rows if row["object"].endswith(frc_accuracy.KNOWN)]
    assert {row["block"] for row in known} == {64, 128, 512}
    assert not frc_accuracy.misses_goal(known)


def test_what_the_default_gains() -> None:
    pairs = rows_of("real_pairs.json")
    mean = mean_and_error([row["gain"] for row in pairs])
    assert f"{mean} dB, on {len(pairs)} pairs" in joined("models.md")
    gaussian = sum(row["gaussian"] for row in pairs) / len(pairs)
    index = page("validation/index.md")
    assert f"{mean}" in index
    assert f"best Gaussian {gaussian:+.2f}" in index
    gains = [r["gain"] for r in rows_of("told_blur.json") if r["case"] == "told 1.0"]
    assert f"| {mean_and_error(gains)} | {min(gains):+.2f} |" in page("models.md")
    still = [
        row["after"] for row in rows_of("restorer.jsonl") if row["case"] == "sharp"
    ]
    mean = mean_and_error(still, ".1f")
    assert f"{mean} dB" in joined("validation/model-sem-restore.md")


def test_denoisers_side_by_side() -> None:
    assert table(rows_of("own_image.jsonl")) in page("validation/training.md")


def test_gaps_of_real_gold() -> None:
    found = summarise(rows_of("real_gold.jsonl"))
    results = page("validation/results.md")
    assert real_gold_table(found) in results
    assert reference_words(found) in results


def test_pictures_scanned_twice() -> None:
    rows = magnify.pictures_table(rows_of("pictures.jsonl")).splitlines()
    [ours] = [row for row in rows if row.startswith("| sem-2x |")]
    over = ours.split(" | ")[3]
    assert f"Gaussian {over} over images" in joined("validation/model-sem-2x.md")


def test_suns_own_system() -> None:
    rows = rows_of("sun.jsonl")
    *_, model = rows[0]
    gains = [row[model]["whole"] for row in rows]
    focused = [row[model]["whole"] for row in rows if abs(row["defocus"]) <= 1]
    linear = mean_and_error([row["linear"]["whole"] for row in rows])
    stated = f"{mean_and_error(gains)} dB, worst {min(gains):+.2f}, in focus "
    stated += f"{mean_and_error(focused)}; best linear filter {linear}"
    assert stated.replace("-", MINUS) in joined("validation/results.md")


def test_self_ensemble_of_superlens_fields() -> None:
    alone = {
        row["number"]: row["ssum-sem"]["whole"]
        for row in rows_of("by_focus.jsonl")
        if row["optics"] == "lens"
    }
    rows, engine = rows_of("self_ensemble.jsonl"), page("validation/engine.md")
    for within, words in ((1, "43 fields in focus"), (3, "128 at any focus")):
        own = [row for row in rows if abs(row["defocus"]) <= within]
        before = sum(alone[row["number"]] for row in own) / len(own)
        after = sum(row["ssum-sem"]["whole"] for row in own) / len(own)
        assert f"{words} | {before:+.2f} | {after:+.2f} |" in engine
    more = [row["ssum-sem"]["whole"] - alone[row["number"]] for row in rows]
    assert f"gain {mean_and_error(more)} dB by it" in engine


def test_gaos_own_system() -> None:
    last = [row["gain"] for row in rows_of("gao.jsonl") if row["state"] == "last"]
    results = page("validation/results.md")
    stated = f"{mean_and_error(last)}, worst {min(last):+.2f}".replace("-", MINUS)
    assert stated in results
    assert mean_and_error(last) in page("validation/index.md")


def test_what_was_judged_apart_is_on_the_page_with_its_steps() -> None:
    found = reached(ROWS)
    tables = ROOT / "benchmarks" / "paper_tables" / "tables.md"
    assert judged_apart(found) in tables.read_text("utf-8")
    names = {(one.model, one.data) for one in found}
    sets = {("sem-restore", f"set {letter}") for letter in "ABC"}
    assert sets | {("campaign/gao-a", "set A"), ("campaign/sun", "superlens")} <= names


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
