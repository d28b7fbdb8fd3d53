"""Put benchmarks/paper_tables/tables.md together from what was measured."""

from collections.abc import Iterable
from typing import Any

from paper_tables.markdown import how_trained, number, paragraphs, plus_minus, table
from paper_tables.plan import before_adversary
from paper_tables.reached import judged_apart, reached
from paper_tables.spread import cells
from paper_tables.theirs import GAO_GAIN_DB, GAO_SHORT, HAAN, SUN_GAIN_DB

_HEAD = """
# Results: the papers' tables beside ours

*What the papers' systems, the bundled models and classical filters reach on one set of
images. Written by `{command}`: edit nothing here, run that again.* Superlens images on
this page are blurred by the simulator's Gaussian of 70 to 95 nm, for which no lens is
fine enough; gains through lenses that could exist are in
[the record](../../docs/validation/model-ssum-sem.md).

None of the papers' data is public. What follows was measured on real SEM images, which
the simulator degraded, and on simulated instruments. No image that is judged here shows
a place that trained a model or chose a checkpoint, as far as correlation tells
(`benchmarks/leakage.py`). Rows in italics are the papers' own figures, on their own
data: they stand beside ours and are not to be compared digit by digit. What was aimed
for stands in `goals.yaml`, as it was before the runs, and what was reached in
[the record](../../docs/validation/results.md).

{data}

Trained models lie in `runs/tables/NAME/NAME.safetensors` and are not bundled; the
command makes them anew. A row without a run's name is a classical method or a bundled
model ([models](../../docs/models.md)).
"""
_DEVELOP = """
**On development data.** The images are those that `recipes/data/sem-images.yaml` holds
out, the numbers of drawn samples lie below 10 000. Both may be looked at while a recipe
is being written; `make tables FINAL=1` judges on others
([training](../../docs/training.md)).
"""
_FINAL = """
**On final data**, by `make tables FINAL=1`: images that `benchmarks/restorer.py` judges
on, and drawn samples from number 10 000 on. The images are judged on once
([training](../../docs/training.md)); superlens samples were judged on three times.
`sem-restore` has no row on the images: it was judged on them before, and is not again.
"""
_TRAINED = """
## How the models were trained

*As a correction*: the network's output is added to its input, and begins at zero. That
is in none of the papers. The checkpoint was chosen by the gain in PSNR on validation
images, whose truth is known; that uses pairs, even where the training did not. Its gain
stands in the last column.
"""
_SHORT = """
**Short forms.** The files in `recipes/tables/narrow` stand in for those in
`recipes/tables`, with narrower networks and fewer scenes; each file says what it leaves
out.
"""
_GAO = """
## Gao et al. 2024: degraded SEM images

The middles, up to {side} px, of {images} images. Means over images, ± one standard
error. *Matched* is after an affine fit of grey levels to the truth. A gain is over the
degraded image; 16 px of border are left out of everything. The oracle is a linear
filter of 21 x 21 taps and an offset, fitted to the truth of that very image; the Wiener
filter is that of `semsr restore`, with the very blur of the set.
"""
_GOLD = """
## De Haan et al. 2019: gold on carbon at half the magnification

{fields} simulated fields of {side} x {side} px at 14.2 nm, brought to 7.1 nm, by
`benchmarks/gold.py`, which says what each column is. The simulation was tuned so that
its input reads near the paper's. ± is the standard error over fields, and the worst
field stands in brackets. Real gold is in
[the record](../../docs/validation/results.md).
"""
_SUN = """
## Sun et al.: superlens images to electron images

Held-out fields of every kind, at any focus and any noise learnt from ({count} fields),
by `benchmarks/superlens.py`: PSNR after an affine match to the electron image, ± the
standard error over fields, and the worst field in brackets.

**Not equal company.** `ssum-sem` had thirteen and a half hours of one core, the others
minutes, as the [table of runs](#how-the-models-were-trained) says. Their rank says
nothing of the methods.
"""
_WANG = """
## Z. Wang: objects of 50 to 300 nm

Lines and discs as far apart as they are wide, in focus: mean dip of the gap below its
neighbours, and in brackets the share of gaps whose dip is at least Rayleigh's 26.4 %.
{count} fields of each size, which differ in noise and in how the objects lie on the
pixels: ± is the standard error over them, and the worst share is told where it differs.
"""
_THEIRS = "*{}: theirs, on their data*"
_NAMES = {"linear": "oracle linear filter", "optical": "optical image"}


def page(results: dict[str, Any], runs: dict[str, dict[str, Any]], made: Any) -> str:
    """Write the page."""
    data = _FINAL if made.get("final") else _DEVELOP
    parts = [
        _HEAD.format(command=made["command"], data=data.strip()),
        judged_apart(reached() if made.get("final") else ()),
        _trained(runs.values()),
    ]
    if sets := results.get("gao"):
        count = int(sets["A"]["degraded"]["images"])
        parts += [_GAO.format(side=made["side"], images=count), *_gao(sets)]
    if rows := results.get("gold"):
        asked = {"fields": made["gold_fields"], "side": made["gold_side"]}
        parts += [_GOLD.format(**asked), _gold(rows)]
    if rows := results.get("superlens"):
        count = next(iter(rows.values()))["fields"]
        parts += [_SUN.format(count=count), _superlens(rows)]
    if series := results.get("sizes"):
        first = next(iter(next(iter(series.values())).values()))
        count = next(iter(first.values()))["fields"]
        parts += [_WANG.format(count=count), *_sizes(series)]
    return paragraphs(*parts) + "\n"


def _trained(records: Iterable[dict[str, Any]]) -> str:
    """List the trainings."""
    head = (
        "run | network | weights, millions | batch | steps | hours | device | "
        "validation gain at step"
    )
    held = list(records)
    rows = [[f"`{r['name']}`", *how_trained(r), _chosen(r)] for r in held]
    if not rows:
        return ""
    short = _SHORT if any(record["narrow"] for record in held) else ""
    return paragraphs(_TRAINED, short, table(head, rows, text=2))


def _chosen(record: dict[str, Any]) -> str:
    """Say the gain of the state that was kept, and its step."""
    kept = record["validation"]
    if before_adversary(record):
        return f"none: step {kept['step']} is from before the adversarial part"
    return f"{number(kept.get('gain_db'), 2, sign=True)} dB at {kept.get('step')}"


def _gao(sets: dict[str, dict[str, dict[str, Any]]]) -> Iterable[str]:
    """Write Gao's sets, each with the paper's gain."""
    head = (
        "method | PSNR as is, dB | PSNR matched, dB | gain matched, dB | worst image, "
        "gain matched, dB"
    )
    for name, rows in sets.items():
        lines = [
            [
                method,
                _mean(r, "psnr"),
                _mean(r, "psnr_matched"),
                _mean(r, "gain", sign=True) if method != "degraded" else "",
                number(r["worst_gain"], 2, sign=True) if method != "degraded" else "",
            ]
            for method, r in rows.items()
        ]
        theirs = f"+{GAO_GAIN_DB[name]:.2f}"
        called = _THEIRS.format("Gao et al., their CycleGAN")
        yield f"**Set {name}, {GAO_SHORT[name]}**"
        yield table(head, [*lines, [called, "", "", theirs, ""]])


def _mean(row: dict[str, Any], name: str, *, sign: bool = False) -> str:
    """Write a mean over images and its standard error."""
    return plus_minus(row[name], row[f"{name}_se"], 2, sign=sign)


def _gold(rows: dict[str, Any]) -> str:
    """Write gap statistics."""
    head = (
        "method | undetected gaps, % | width error, nm | signed, nm | invented gaps, % "
        "| PSNR, dB"
    )
    figures = ("undetected_percent 1", "width_error_nm 2", "signed_width_error_nm 2+")
    figures += ("invented_percent 1", "psnr_db 2")
    lines = [[name, *cells(r, *figures)] for name, r in rows.items()]
    for name, (missed, error) in HAAN.items():
        called = _THEIRS.format(f"de Haan et al., {name}")
        lines.append([called, number(missed, 1), number(error, 1), "", "", ""])
    return table(head, lines)


def _superlens(rows: dict[str, Any]) -> str:
    """Write PSNR and gain over the optical image."""
    lines = [
        [
            _NAMES.get(name, name),
            *cells(r, "psnr_db 2"),
            *(cells(r, "gain_db 2+") if name != "optical" else [""]),
        ]
        for name, r in rows.items()
    ]
    theirs = ", ".join(number(gain, 2, sign=True) for gain in SUN_GAIN_DB)
    lines.append([_THEIRS.format("Sun et al., preprint and published"), "", theirs])
    return table("image | PSNR, dB | gain, dB", lines)


def _sizes(series: dict[str, Any]) -> Iterable[str]:
    """Write dips and shares of resolved gaps by size, lines and discs."""
    for form, rows in series.items():
        names = list(next(iter(rows.values())))
        head = ["nm", *(_NAMES.get(name, name) for name in names)]
        lines = [[s, *(_dip(row[n]) for n in names)] for s, row in rows.items()]
        yield f"**{form.capitalize()}**"
        yield table(head, lines)


def _dip(found: dict[str, Any]) -> str:
    error = found.get("se", {}).get("dip")
    sure = "" if error is None else f" ± {error:.2f}"
    share = f"{100 * found['resolved']:.0f} %"
    least = f"{100 * found.get('worst', found)['resolved']:.0f} %"
    if least != share:
        share += f", worst {least}"
    return f"{found['dip']:.2f}{sure} ({share})"
