"""What stands beside the tables: maps, light, gap widths, real gold, a whole field."""

from typing import Any

from paper_tables.frc_maps import ELECTRONS, maps_table
from paper_tables.light import light_table
from paper_tables.markdown import paragraphs
from paper_tables.pictures import tradeoff_points
from paper_tables.real_gold import real_gold_table, reference_words
from paper_tables.whole_field import whole_table

_PICTURE = """
```{{image}} images/{file}
:alt: {alt}
:width: {width}%
```
"""

_GAPS = """
± is the standard error over fields, and the worst field stands in brackets. Histograms
of the widths that each method shows, the truth's in grey; the red bar on the left
counts the truth's gaps that it does not show, which are left out of its mean. *Width by
a Gaussian* is the mean of the one fitted to the histogram below 80 nm, as de Haan has
it, with the error of the fit (no Gaussian has the long tail of these widths); his own
means are in his picture only.
"""

_REAL = """
### Real gold on carbon

Scans of gold balls on carbon from a real microscope (`dwell_pairs`, 5.8 nm): one fast
scan, and the same place with 50 lines averaged, registered elastically to a fraction of
a pixel. This is no magnification, only noise, and gaps between balls are wider than
those between islands. The averaged scan is the reference and no truth: it has noise
too, and two scans differ. The Gaussian has, pair by pair, the width that comes nearest
to the reference in PSNR, which is known in hindsight only. Noise deepens minima and
raises peaks: a noisy scan misses few gaps, and reads their widths wrongly. ± is over
pairs, and the worst stands in brackets; narrow gaps are of all pairs together.

These pairs are no unseen data: `sem-restore` has learnt from fast and slow scans of
like samples in this very microscope, among others ([Models and their
limits](../../docs/models.md)), and was developed with these pairs in sight. On another
microscope it may do less. Two of the 15 pairs are
left out: 001 shows the place of `time/002`, which trained, and 007 two thirds of 009.

**Gaps that the averaged scan shows** ({reference})
"""

_LEARNT = """
`gold-real` has learnt from the forty pairs of `time`: like samples in the same
microscope, at other places than these, as far as correlation tells.
"""

_MAPS = """
### FRC maps

Blocks side by side, 10 and 5 along each side of the field, threshold 1/7, as Sun's
figure 5 has them. *Against the electron image* is Sun's way; ours has no noise, and the
threshold that means the same is then the root of 1/7. The electron image itself is a
scan with {electrons:.0f} electrons in a white pixel. *Two exposures* are two pictures
of one place, whose noise is independent: of a model that says how far it repeats
itself, which is **no resolution**. Medians and percentiles are of the blocks that have
an answer, ± over fields. Blocks that follow the other image up to Nyquist's frequency
have none, although they are the finest: so much of the share without an answer (worst
field in brackets) stands beside it.
"""

_MAPS_SHOWN = """
A chip with 80 nm lines against the electron image, on one scale. Where a block has no
answer its nearest neighbour's stands in the picture, under a cross; in the table it
does not count.
"""

_WHOLE = """
### A whole field of {side:.1f} µm

One simulated chip with 80 nm lines in focus, {pixels} pixels of 20 nm along a side, at
the default settings of `semsr enhance`, tiled as they tile it. Time is that of one run.
"""

_TRADEOFF = """
### Likeness against resolution

All superlens models on held-out fields of every kind, in focus: gain in PSNR with its
standard error, against the median cross-FRC. A model can have one without the other.
Gains of models that halve the pixels are over the optical image brought to these.
"""

_LIGHT = """
### Vignetting and contrast

The same lines and discs, all sizes together, before any match of grey levels, which
would hide both. *Ring over middle* is the mean of the background in a ring at the rim
over that in the middle of the field, with 1 for even light, and *uneven by* the mean
distance from 1; *contrast* is Michelson's, between objects and background. Images have
the grey levels of a file: a network keeps the scale of the image that it is given, here
reflectance; the electron image has a scale of its own, and is as uneven as the sample
makes it. *One frame's light* has 0.65 of the centre's light in the corners, as one
frame of the simulator's microscope has without a flat field; no model has learnt from
such. ± is over fields, and the worst stands in brackets.
"""


def _picture(file: str, alt: str, width: int = 100) -> str:
    return _PICTURE.format(file=file, alt=alt, width=width)


def gap_widths(rows: dict[str, Any]) -> str:
    """Show the histograms of gap widths, where they were measured."""
    if "truth" not in rows:
        return ""
    shown = _picture("results-gaps.png", "Histograms of gap widths by method")
    return paragraphs(_GAPS, shown)


def real_gold(rows: dict[str, Any]) -> str:
    """Write what is shown of real gold."""
    if not rows:
        return ""
    reference = reference_words(rows)
    learnt = _LEARNT if "gold-real" in rows else ""
    text = _REAL.format(reference=reference)
    return paragraphs(text, real_gold_table(rows), learnt)


def after_lens(results: dict[str, Any]) -> list[str]:
    """Write maps, a whole field, and the trade-off of all models."""
    parts = []
    if "frc_maps" in results:
        parts += [_MAPS.format(electrons=ELECTRONS), maps_table(results["frc_maps"])]
        parts.append(_picture("results-frc-maps.png", "FRC maps of one field"))
        parts.append(_MAPS_SHOWN)
    if "whole" in results:
        rows = results["whole"]
        first = next(iter(rows.values()))
        text = _WHOLE.format(side=first["field_um"], pixels=first["side"])
        parts += [text, whole_table(rows)]
    if tradeoff_points(results):
        shown = _picture("results-tradeoff.png", "PSNR gain against cross-FRC", 80)
        parts += [_TRADEOFF, shown]
    return parts


def light(found: dict[str, Any]) -> str:
    """Write vignetting and contrast."""
    return paragraphs(_LIGHT, light_table(found)) if found else ""
