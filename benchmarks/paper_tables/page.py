"""Put benchmarks/paper_tables/tables.md together from what was measured."""

from collections.abc import Iterable
from typing import Any

from paper_tables import page_evidence, page_gao, page_lens
from paper_tables.curves import best_gain
from paper_tables.given import legend
from paper_tables.goals import goals
from paper_tables.markdown import how_trained, paragraphs, table
from paper_tables.omitted import not_repeated
from paper_tables.plan import NARROW_ONLY
from paper_tables.reached import reached

_HEAD = """
# Results: the papers' tables beside ours

*A record of what the papers' systems, the bundled models and classical filters reach on
one set of images. Written by `{command}`: edit nothing here, run that again.* Superlens
images on this page are blurred by the simulator's Gaussian of 70 to 95 nm, for which no
lens is fine enough; gains through lenses that could exist are in
[the record](../../docs/validation/model-ssum-sem.md).

None of the papers' data is public. What follows was measured on real SEM images, which
the simulator degraded, and on simulated instruments. No image that is judged here shows
a place that trained a model or chose a checkpoint, as far as correlation tells
(`benchmarks/leakage.py`: at most 0.33 on the images, 0.70 on real gold, where two scans
of one place have 0.94). Rows in italics are the papers' own figures, on
their own data: they stand beside ours and are not to be compared digit by digit.

{data}

{trained}

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
([training](../../docs/training.md)); superlens samples were a second time, when the
simulated optics had changed, and *any focus* a third time, when it was drawn as
elsewhere.
`sem-restore` has no row on the images: it was judged on them before, and is not again.
Of real gold and of line profiles there are no final data; what stands here of them is
of development.
"""

_FULL = "The recipes of `recipes/tables` were run as they are, on {devices}."
_NARROW = """
**Short forms.** The files in `recipes/tables/narrow` stand in for those in
`recipes/tables`, with narrower networks and fewer scenes; each file says what it leaves
out. {count} trainings{jobs}, on {devices}, whose hours are in the table of runs. {note}
"""
_BLURS = """
{names}: unpaired, a learnt blur ([Training](../../docs/training.md)) in place of the
second generator; not Gao's system, which `gao-a`, `gao-b` and `gao-c` are.
"""

_TRAINED = """
## How the models were trained

*As a correction*: the network's output is added to its input, and begins at zero. That
is in none of the papers. The checkpoint was chosen by the gain in PSNR on validation
images, whose truth is known; that uses pairs, even where the training did not. The best
of these gains stands in the last column.
"""
_CURVES = """
```{image} images/results-curves.png
:alt: Validation gain of every run against its hours
:width: 100%
```

Validation gain of every run against hours, which are shared evenly among its steps.
"""

_BUNDLED = {
    "ssum-sem": "117 000 steps, 13.5 h",
}
_NOTHING_DB = 0.05
_WIENER = "Wiener, true kernel"

_GAO = """
## Gao et al. 2024: degraded SEM images

The middles, up to {side} px, of {images}.
Means over images, ± one standard error. *Matched* is after an affine fit of grey levels
to the truth; how much of an image's contrast is lost to haze cannot be known. A gain is
over the degraded image, in PSNR as is or matched; 16 px of border are left out of
everything. The oracle linear filter has 21 x 21 taps and an offset. Classical methods
are those of `semsr restore` with their defaults. The paper gives K₂ = 0.02 for SSIM in
its loss and does not say which constant its tables have.
"""

_UNSTRETCHED = """
### Sets B and C, not stretched

The same, left as the haze leaves it (`semsr degrade --no-stretch`): the paper's words
can be read so too. Models are those of the sets above.
"""

_SHARP = """
### Table 2: sharpness without a reference

Means over the same images, as they are, ± one standard error, and the least image in
brackets: average gradient, contrast, spatial frequency. The paper's are of one image in
each set.
"""

_GOLD = """
## De Haan et al. 2019: gold on carbon at half the magnification

{fields} simulated fields of {side} x {side} px at 14.2 nm, brought to 7.1 nm, by
`benchmarks/gold.py`, which says what each column is. The simulation was tuned so that
its input reads near the paper's. Bands end at 0.125, 0.25, 0.375 and 0.5 per fine
pixel; what lies beyond the second is inferred.
"""

_SUN = """
## Sun et al.: superlens images to electron images

By `benchmarks/superlens.py`, which says how everything is scored: PSNR and SSIM after
an affine match to the electron image, cross-FRC to it without noise. The map is of
blocks of 64 optical pixels; one that follows the electron image up to Nyquist's
frequency, or nowhere, has no answer. The distance of grey levels is the earth mover's,
of 255. *In focus* and *any focus* are those of the Gaussian microscope
([the record](../../docs/validation/model-ssum-sem.md)).

Sun et al. report +0.74 dB in their preprint and +1.64 dB as published (Microsyst.
Nanoeng. 2025, doi:10.1038/s41378-025-01060-9).

**Not equal company.** `ssum-sem` had thirteen and a half hours of one core, the others
3 to 11 minutes, as their rows here and the
[table of runs](#how-the-models-were-trained) say. In no table of superlens images does
their rank say anything of the methods.
"""

_PROFILES = """
```{image} images/results-superlens.png
:alt: A line profile, grey levels and radial spectra of one field
:width: 100%
```

A chip with 80 nm lines, in focus: a line across it, the grey levels, and the radially
averaged power spectra, of what several models make of it and of the electron image.
"""

_WANG = """
## Z. Wang: objects of 50 to 300 nm

Lines and discs as far apart as they are wide, in focus: mean dip of the gap below its
neighbours, and in brackets the share of gaps whose dip is at least Rayleigh's 26.4 %.
Wang prints no table: his network sharpens 100 to 300 nm, fails at 50 to 60 nm, and
attention is proposed for those.

**His failure is not repeated here, and attention adds nothing.** At 50 and 60 nm `wang`
shows more than its input, and with attention it shows as much, within 0.02 of a dip.
The oracle linear filter shows more than both, so a blur this narrow hides nothing that
a filter could not lift. Contrast falls in both ([below](#vignetting-and-contrast)).
"""


def page(results: dict[str, Any], runs: dict[str, dict[str, Any]], made: Any) -> str:
    """Write the page."""
    narrow = any(record["narrow"] for record in runs.values())
    parts = [
        _HEAD.format(
            command=made["command"],
            data=(_FINAL if made.get("final") else _DEVELOP).strip(),
            trained=_said(runs, made),
        ),
        goals(results, narrow=narrow, apart=reached() if made.get("final") else ()),
        _caution(results),
        _trained(runs.values()),
        *_gao(results, runs, made),
    ]
    if "gold" in results:
        asked = {"fields": made["gold_fields"], "side": made["gold_side"]}
        rows = _with_effort(results["gold"], runs)
        parts += [_GOLD.format(**asked), page_lens.gold(rows)]
        parts.append(page_evidence.gap_widths(results["gold"]))
    parts.append(page_evidence.real_gold(results.get("real_gold", {})))
    if "superlens" in results:
        parts += [_SUN, _idle(results["superlens"])]
        parts.append(page_lens.fields(_all_with_effort(results["superlens"], runs)))
    if "profiles" in results:
        parts.append(_PROFILES)
    parts += page_evidence.after_lens(results)
    if "sizes" in results:
        series = results["sizes"]
        parts += [_WANG, page_lens.sizes(series), page_lens.fewer(series)]
    parts.append(page_evidence.light(results.get("light", {})))
    return paragraphs(*parts, not_repeated()) + "\n"


def _with_effort(rows: dict[str, Any], runs: dict[str, dict[str, Any]]) -> Any:
    """Name rows of models with the steps and hours that they were trained for."""
    spent = dict(_BUNDLED)
    for name, run in runs.items():
        spent[name] = f"{run['steps']} steps, {run['minutes'] / 60:.2f} h"
    return {
        f"{name} ({spent[name]})" if name in spent else name: row
        for name, row in rows.items()
    }


def _all_with_effort(groups: dict[str, Any], runs: Any) -> dict[str, Any]:
    """Name the rows of every group so."""
    return {group: _with_effort(rows, runs) for group, rows in groups.items()}


def _gao(results: dict[str, Any], runs: Any, made: Any) -> Iterable[str]:
    """Write Gao's tables, of the sets as stretched and as the haze leaves them."""
    groups = [results.get(part, {}) for part in ("gao", "gao_unstretched")]
    rows = [row for sets in groups for one in sets.values() for row in one.values()]
    marks = legend(row.get("given", "") for row in rows)
    if "gao" in results:
        sets = results["gao"]
        images = "the images that `recipes/data/sem-images.yaml` holds out"
        if made.get("final"):
            images = "the images that are kept for the final judgement"
        yield _GAO.format(side=made["side"], images=images)
        yield marks
        yield "### Table 1: SSIM and PSNR"
        yield page_gao.similarity(_all_with_effort(sets, runs))
        yield _SHARP
        yield page_gao.sharpness(sets)
    if "gao_unstretched" in results:
        sets = results["gao_unstretched"]
        yield _UNSTRETCHED
        yield page_gao.similarity(sets, stretched=False)


def _caution(results: dict[str, Any]) -> str:
    """Say where the classical filter that is given the same blur gains more."""
    better = [
        f"`{own}` ({rows[_WIENER]['gain']:+.2f} dB against {rows[own]['gain']:+.2f} dB)"
        for name, rows in results.get("gao", {}).items()
        for own in (f"gao-{name.lower()}", f"blur-{name.lower()}")
        if {own, _WIENER} <= rows.keys() and rows[_WIENER]["gain"] > rows[own]["gain"]
    ]
    if not better:
        return ""
    return (
        "The Wiener filter, which is given the true kernel, gains more than "
        f"{', '.join(better)}."
    )


def _idle(groups: dict[str, Any]) -> str:
    """Name the models that change next to nothing."""
    rows = groups.get("in focus", {})
    names = [
        f"`{name}`"
        for name, row in rows.items()
        if name not in ("optical", "linear") and abs(row["gain_db"]) < _NOTHING_DB
    ]
    if not names:
        return ""
    return (
        f"{' and '.join(names)} changed the PSNR by less than {_NOTHING_DB:g} dB in "
        "focus."
    )


def _said(runs: dict[str, dict[str, Any]], made: Any) -> str:
    """Say in which form the recipes were run."""
    if not runs:
        return "No model was trained for this page: only bundled ones are judged."
    devices = ", ".join(sorted({str(record["device"]) for record in runs.values()}))
    if not any(record["narrow"] for record in runs.values()):
        return _FULL.format(devices=devices)
    said = _NARROW.format(
        count=len(runs),
        jobs=f", {made['jobs']} at a time" if "jobs" in made else "",
        devices=devices,
        note=made.get("note", ""),
    )
    names = [f"`{name}`" for name in NARROW_ONLY if name in runs]
    return paragraphs(said, _BLURS.format(names=", ".join(names)) if names else "")


def _trained(records: Iterable[dict[str, Any]]) -> str:
    """List the trainings, and show how each went."""
    head = (
        "run | learnt from | network | weights, millions | batch | steps | hours | "
        "device | best validation gain at step"
    )
    held = list(records)
    rows = [
        [f"`{r['name']}`", r.get("given", ""), *how_trained(r), best_gain(r)]
        for r in held
    ]
    if not rows:
        return ""
    drawn = any(r.get("curve") for r in held)
    return paragraphs(_TRAINED, table(head, rows, text=3), _CURVES if drawn else "")
