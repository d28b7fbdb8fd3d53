"""Sun's and Wang's tables: superlens images brought to what an electron beam sees.

Samples, scores and sites are those of ``benchmarks/superlens.py``. All models of one
scale see the same fields, which are drawn once.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _superlens_fields import chip, series
from numpy.typing import NDArray
from superlens import (
    PHOTONS,
    SIDE,
    SIZES,
    Judge,
    held_out_pairs,
    in_focus,
    inner,
    median,
    resolved,
    scores,
    site_dips,
)

from napari_semsr.analysis.frc.map import FrcMapOptions, measure_frc_map
from napari_semsr.analysis.metrics import match_affine, measure_histogram
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import run
from napari_semsr.models.checkpoint import load_model
from napari_semsr.simulation.superlens.pairs import SsumPair
from napari_semsr.simulation.superlens.specimens import SAMPLE_KINDS
from napari_semsr.training.recipe import load_recipe
from paper_tables.plan import FOLDER

__all__ = [
    "CHIP_PITCH_NM",
    "CHIP_RELIEF_NM",
    "Shown",
    "judges_of",
    "matched",
    "measure_quality",
    "measure_sizes",
    "sharpness_map",
    "show",
]

Image = NDArray[np.float64]
Say = Callable[[str], None]
PIXEL_NM = 20.0
CHIP_PITCH_NM, CHIP_RELIEF_NM = 160.0, 60.0
BLOCK, STEP = 64, 32  # of a resolution map
FORMS = ("lines", "discs")
RELIEF_NM = 60
SEED = 50
_LEARNT = FOLDER / "sun.yaml"  # whose microscope all learn from


@dataclass(frozen=True, slots=True)
class Shown:
    """One field as everything shows it.

    Attributes
    ----------
    images : dict
        The optical image, the oracle's, that of each model, and the truth.
    pixel_nm : float
        Of all of them.
    scale : int
        Their pixels per pixel of the optical image.
    """

    images: dict[str, Image]
    pixel_nm: float
    scale: int


def judges_of(models: dict[str, Path | str], fields: int) -> dict[str, Judge]:
    """Load models; the first one's judge fits the oracle too.

    Parameters
    ----------
    models : dict
        Model files and bundled models, of one scale, by what they are called.
    fields : int
        Fields of each kind of sample.
    """
    return {
        name: Judge(load_model(model), fields, number == 0)
        for number, (name, model) in enumerate(models.items())
    }


def show(pair: SsumPair, judges: dict[str, Judge]) -> Shown:
    """Enhance a field by all models.

    Parameters
    ----------
    pair : SsumPair
        The field.
    judges : dict
        As `judges_of` gives them.
    """
    images: dict[str, Image] = {}
    base: dict[str, Image] = {}
    for name, judge in judges.items():
        made = judge.images(pair)
        base = base or {k: made[k] for k in ("optical", "linear") if k in made}
        images[name], truth = made["enhanced"], made["truth"]
    scale = next(iter(judges.values())).scale
    everything = {**base, **images, "truth": truth}
    return Shown(everything, pair.pixel_nm / scale, scale)


def _fields(judge: Judge) -> Iterable[tuple[str, str, SsumPair]]:
    """Yield held-out fields by group and kind: in focus, in any focus, and a chip."""
    learnt = load_recipe(_LEARNT).data.superlens
    sharp = learnt.replace(
        resolution_nm=(80, 80),
        depth_of_field_nm=(100, 100),
        wavelength_nm=(550, 550),
        defocus_nm=0,
        photons=(PHOTONS, PHOTONS),
        shading=0.01,
        joined=0,
        eight_bit=0,
    )
    for group, options in (("in focus", sharp), ("any focus", learnt)):
        for kind in SAMPLE_KINDS:
            for pair in held_out_pairs(kind, judge, options):
                yield group, kind, pair
    for index in range(judge.fields):
        surface = chip(CHIP_PITCH_NM, index, CHIP_RELIEF_NM)
        yield "chip", "80 nm lines", in_focus(surface, judge, index)


def measure_quality(judges: dict[str, Judge], say: Say) -> dict[str, Any]:
    """Judge models on held-out fields.

    Parameters
    ----------
    judges : dict
        As `judges_of` gives them.
    say : callable
        Told what is done.

    Returns
    -------
    dict
        By group of fields (``in focus``, ``any focus``, ``chip``) and image: means of
        PSNR, SSIM and the earth mover's distance of grey levels; medians of the
        resolution, of the whole field and over the blocks of a map.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for group, kind, pair in _fields(next(iter(judges.values()))):
        say(f"superlens, {group}: {kind}")
        shown = show(pair, judges)
        found = scores(shown.images, shown.pixel_nm, shown.scale)
        for name, row in found.items():
            row["emd"] = grey_distance(shown, name)
            row |= sharpness_map(shown, name)
        rows.setdefault(group, []).append(found)
    return {group: _summary(found) for group, found in rows.items()}


def matched(shown: Shown, name: str) -> tuple[Image, Image]:
    """Bring an image's greys to those of the truth; leave out the border of both.

    Parameters
    ----------
    shown : Shown
        A field.
    name : str
        Which image of it.
    """
    image, truth = (inner(shown.images[n], shown.scale) for n in (name, "truth"))
    gain, offset = match_affine(image, truth)
    return np.clip(gain * image + offset, 0, 255), truth


def grey_distance(shown: Shown, name: str) -> float:
    """Earth mover's distance of grey levels from the truth's, of 255.

    Parameters
    ----------
    shown : Shown
        A field.
    name : str
        Which image of it.
    """
    image, truth = (
        Micrograph(np.rint(part).astype(np.uint8)) for part in matched(shown, name)
    )
    return float(measure_histogram(image, truth).emd or 0.0)


def sharpness_map(shown: Shown, name: str) -> dict[str, float | None]:
    """Median resolution over the blocks of a map, and the share with an answer.

    Parameters
    ----------
    shown : Shown
        A field.
    name : str
        Which image of it.
    """
    size = (shown.pixel_nm,) * 2
    image, truth = (Micrograph(part, size) for part in matched(shown, name))
    scale = shown.scale
    options = FrcMapOptions(block=BLOCK * scale, step=STEP * scale, reference=True)
    found = run(measure_frc_map(image, truth, options))
    answered = 100 * (1 - found.failed / found.blocks)
    return {"map_median_nm": found.median_nm, "map_answered": answered}


def _summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Put the scores of several fields together."""
    found: dict[str, dict[str, Any]] = {}
    for name in rows[0]:
        mine = [row[name] for row in rows]
        gains = [row[name]["psnr_db"] - row["optical"]["psnr_db"] for row in rows]
        found[name] = {
            measure: float(np.mean([row[measure] for row in mine]))
            for measure in ("psnr_db", "ssim", "emd", "map_answered")
        }
        found[name] |= {
            "gain_db": float(np.mean(gains)),
            "worst_gain_db": float(min(gains)),
            "resolution_nm": median([row["resolution_nm"] for row in mine]),
            "map_median_nm": median([row["map_median_nm"] for row in mine]),
            "fields": len(rows),
        }
    return found


def measure_sizes(judges: dict[str, Judge], say: Say) -> dict[str, Any]:
    """Measure the gaps between lines and discs of 50 to 300 nm.

    Parameters
    ----------
    judges : dict
        As `judges_of` gives them, of scale 1.
    say : callable
        Told what is done.

    Returns
    -------
    dict
        By form, size and image: mean dip, share of gaps resolved, and their number.
    """
    table: dict[str, Any] = {}
    first = next(iter(judges.values()))
    for form in FORMS:
        for size in SIZES:
            say(f"superlens, {form} of {size} nm")
            found: dict[str, list[Image]] = {}
            surface, sites = series(size, form, RELIEF_NM, SIDE)
            for index in range(first.fields):
                shown = show(in_focus(surface, first, SEED + index), judges)
                dips = site_dips(shown.images, sites, shown.pixel_nm)
                for name, values in dips.items():
                    found.setdefault(name, []).append(values)
            table.setdefault(form, {})[str(size)] = resolved(found)
    return table
