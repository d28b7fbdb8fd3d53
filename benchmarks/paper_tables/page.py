"""Put docs/results.md together from what was measured."""

from collections.abc import Iterable
from typing import Any

from paper_tables import page_evidence, page_gao, page_lens
from paper_tables.goals import goals
from paper_tables.markdown import how_trained, paragraphs, table
from paper_tables.plan import edge_run

__all__ = ["page"]

_HEAD = """
# Results: the papers' tables beside ours

*Written by `{command}`. Edit nothing here: run that again.*

None of the papers' data is public. What follows was measured on real SEM images, which
the simulator degraded, and on simulated instruments; nothing that is judged here was
trained on, and nothing here chose a model. Rows in italics are the papers' own figures,
on their own data: they stand beside ours and are not to be compared digit by digit.

{trained}

Trained models lie in `runs/tables/NAME/NAME.safetensors` and are not bundled; the
command makes them anew. A row without a run's name is a bundled model
([models](models.md)).
"""

_FULL = "The recipes of `recipes/tables` were run as they are, on {devices}."
_NARROW = """
**Short forms.** There was no GPU. The files in `recipes/tables/narrow` stand in for
those in `recipes/tables`: narrower networks, smaller patches, fewer scenes and steps,
and minutes of the clock in place of hours: {count} trainings, {jobs} at a time, whose
minutes are in the table of runs. {note}Each file says what it leaves out.

Such figures say that the systems work and what they are worth after a minute or two;
they say nothing of what they reach when they are run as in the papers.

The short forms of `gao-a`, `gao-b` and `gao-c` are not the paper's system: in place of
the second generator, which needs longer to learn than there is, they learn **a blur**
([](training.md)), and have L1 as cycle loss, beside which the others are weighed down.
They see no pairs, and nothing tells them of blur or haze. `kernel-a` is given the blur,
and has the losses and the weights of the paper, but for the adversarial one.
"""

_TRAINED = """
## How the models were trained

*As a correction*: the network's output is added to its input, and begins at zero. That
is in none of the papers; without it, a short training is spent on learning to repeat
the input. The checkpoint was chosen by the gain in PSNR on validation images, whose
truth is known; that uses pairs, even where the training did not. A run has minutes,
not steps: where runs of one network and equal minutes differ in steps, the machine had
other work.
"""

_NOTHING_DB = 0.05
_WIENER = "Wiener, true kernel"

_GAO = """
## Gao et al. 2024: degraded SEM images

The middles, up to {side} px, of the eight images that `recipes/data/sem-images.yaml`
holds out. *Matched* is after an affine fit of grey levels to the truth, which the haze
makes necessary: how much of an image's contrast is lost to it cannot be known. The
gain is in matched PSNR over the degraded image; 16 px of border are left out of
everything. The oracle linear filter (21 x 21 taps and an offset) is fitted to the truth
of that very image, so no real filter reaches it; the Wiener filter is given the true
kernel, the blind deconvolution nothing. The paper gives K₂ = 0.02 for SSIM in its loss
and does not say which constant its tables have.

### Table 1: SSIM and PSNR
"""

_SHARP = """
### Table 2: sharpness without a reference

Means over the same images, as they are: average gradient, contrast, spatial frequency.
The paper's are of one image in each set. Noise and invented structure raise all three.
"""

_EDGE = """
### Weight of the edge loss

Set A, the recipe of `gao-a` with other weights (the paper's gamma), each for {share:g}
of the time that most trainings have. The paper sweeps them from 0 to 20, finds
both of its figures best at 10, and prints no numbers; it names Kirsch's operator as no
worse than Sobel's, which is not repeated here.
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
of 255.
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
"""


def page(results: dict[str, Any], runs: dict[str, dict[str, Any]], made: Any) -> str:
    """Write the page.

    Parameters
    ----------
    results : dict
        What was measured, by part; parts that are missing are left out.
    runs : dict
        ``finished.json`` of the trained models by name.
    made : dict
        The command, and the settings of training and evaluation.

    Returns
    -------
    str
        Markdown.
    """
    narrow = any(record["narrow"] for record in runs.values())
    parts = [
        _HEAD.format(command=made["command"], trained=_said(runs, made)),
        goals(results, narrow=narrow),
        _caution(results) if narrow else "",
        _trained(runs.values()),
    ]
    if "gao" in results:
        sets = results["gao"]
        parts += [_GAO.format(side=made["side"]), page_gao.similarity(sets)]
        parts += [_SHARP, page_gao.sharpness(sets)]
    if results.get("edge"):
        parts += [_EDGE.format(share=made["edge_share"])]
        steps = {
            w: runs.get(edge_run(float(w)), {}).get("steps") for w in results["edge"]
        }
        parts.append(page_gao.ablation(results["edge"], steps))
    if "gold" in results:
        asked = {"fields": made["gold_fields"], "side": made["gold_side"]}
        parts += [_GOLD.format(**asked), page_lens.gold(results["gold"])]
        parts.append(page_evidence.gap_widths(results["gold"]))
    parts.append(page_evidence.real_gold(results.get("real_gold", {})))
    if "superlens" in results:
        parts += [_SUN, _idle(results["superlens"])]
        parts.append(page_lens.fields(results["superlens"]))
    if "profiles" in results:
        parts.append(_PROFILES)
    if "superlens_2x" in results:
        parts.append("### On pixels half as wide")
        parts.append(page_lens.fields(results["superlens_2x"]))
    parts += page_evidence.after_lens(results)
    if "sizes" in results:
        series = results["sizes"]
        parts += [_WANG, page_lens.sizes(series), page_lens.fewer(series)]
    parts.append(page_evidence.light(results.get("light", {})))
    return paragraphs(*parts) + "\n"


def _caution(results: dict[str, Any]) -> str:
    """Say where the classical filter that is given the same blur gains more."""
    better = [
        f"{name} ({rows[_WIENER]['gain']:+.2f} dB against {rows[own]['gain']:+.2f} dB)"
        for name, rows in results.get("gao", {}).items()
        if {own := f"gao-{name.lower()}", _WIENER} <= rows.keys()
        and rows[_WIENER]["gain"] > rows[own]["gain"]
    ]
    if not better:
        return ""
    sets = "set" if len(better) == 1 else "sets"
    return (
        f"The Wiener filter, which is given the same blur, gains more on {sets} "
        f"{', '.join(better)}."
    )


def _idle(groups: dict[str, Any]) -> str:
    """Name the models that change next to nothing in their short forms."""
    rows = groups.get("in focus", {})
    names = [
        f"`{name}`"
        for name, row in rows.items()
        if name not in ("optical", "linear") and abs(row["gain_db"]) < _NOTHING_DB
    ]
    if not names:
        return ""
    return (
        f"{' and '.join(names)} changed next to nothing in the time that there was: "
        "that says how long the training was, not what the system is worth."
    )


def _said(runs: dict[str, dict[str, Any]], made: Any) -> str:
    """Say in which form the recipes were run."""
    if not runs:
        return "No model was trained for this page: only bundled ones are judged."
    if any(record["narrow"] for record in runs.values()):
        note = f"{made['note']} " if made.get("note") else ""
        said = _NARROW.format(count=len(runs), jobs=made["jobs"], note=note)
        return said.strip()
    devices = sorted({str(record["device"]) for record in runs.values()})
    return _FULL.format(devices=", ".join(devices))


def _trained(records: Iterable[dict[str, Any]]) -> str:
    """List the trainings."""
    head = (
        "run",
        "network",
        "weights, millions",
        "batch",
        "steps",
        "minutes",
        "device",
    )
    rows = [[f"`{r['name']}`", *how_trained(r)] for r in records]
    return paragraphs(_TRAINED, table(head, rows)) if rows else ""
