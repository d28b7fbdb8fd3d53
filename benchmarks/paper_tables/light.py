"""Vignetting and contrast of a superlens image, before any match of grey levels.

Grey levels are those of a file: the network's output keeps the scale of the image that
it was given, here reflectance; the electron image's scale is its own emission. *Ring*
is the mean of the background in a ring at the rim over that in the middle: 1 is even
light. *Contrast* is Michelson's, between objects and background: the difference of
their means over the sum.

Fields are seen in even light, as a mosaic's flat field leaves it, and as one frame of
the simulator's microscope is lit, whose corners have 0.65 of the light of the centre.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from superlens import BORDER, SIZES, Judge, in_focus

from napari_semsr.simulation import Specimen, SsumPair
from napari_semsr.simulation.microscope import (
    MicroscopeOptions,
    create_illumination_field,
)
from paper_tables.lens import FORMS, SEED, series_at
from paper_tables.markdown import number, table
from paper_tables.page_lens import NAMES
from paper_tables.spread import with_spread, written

Image = NDArray[np.float64]
Mask = NDArray[np.bool_]
RING, MIDDLE = 0.85, 0.4  # of half the side; chosen, as far apart as fields allow
AWAY_NM = 150.0  # of the background from objects: two widths of the blur
FRAME = MicroscopeOptions(field="square")  # a lamp's, without dust
LIGHTS = {"even": "even light", "frame": "one frame's light"}
_PERCENTILES = (0.1, 99.9)  # as pairs are scaled


def ring_over_middle(image: Image, background: Mask) -> float | None:
    """Mean of the background in a ring at the rim, over that in the middle."""
    lines = [np.abs(np.linspace(-1, 1, count)) for count in image.shape]
    away = np.hypot(lines[0][:, None], lines[1][None])
    ring, middle = background & (away >= RING), background & (away <= MIDDLE)
    if not (ring.any() and middle.any()):
        return None
    return float(image[ring].mean() / image[middle].mean())


def michelson(image: Image, objects: Mask, background: Mask) -> float:
    """Contrast between objects and background; 0 for none, never negative."""
    first, second = float(image[objects].mean()), float(image[background].mean())
    return abs(first - second) / max(abs(first + second), 1e-9)


def masks(surface: Specimen, side: int) -> tuple[Mask, Mask]:
    """Find objects and background on the mosaic's pixels, (side, side)."""
    away = ndimage.distance_transform_edt(surface.material < 0.5) * surface.pixel_nm
    first = (surface.material.shape[0] - 2 * side) // 2
    part = (slice(first, first + 2 * side, 2),) * 2
    return np.asarray(surface.material > 0.99)[part], np.asarray(away >= AWAY_NM)[part]


def lit(pair: SsumPair, light: Image | None) -> SsumPair:
    """Put the optical image on the scale of reflectance, under a light."""
    low, high = pair.low_range
    seen = pair.low * (high - low) + low
    if light is not None:
        seen = seen * light
    bounds = np.percentile(seen, _PERCENTILES)
    return replace(
        pair,
        low=np.asarray(seen, np.float32),
        low_range=(float(bounds[0]), float(bounds[1])),
    )


def measure_light(
    judges: dict[str, Judge],
    say: Callable[[str], None],
    *,
    fields: int = 8,
    side: int = 256,
    first_seed: int = 0,
) -> dict[str, Any]:
    """Measure vignetting and contrast of lines and discs of 50 to 300 nm.

    By form, light and image: means over the fields of all sizes of ``ring``, ``uneven``
    (its distance from 1) and ``contrast``; ``at 50`` and so on hold the contrast by
    size.
    """
    first = next(iter(judges.values()))
    frame = create_illumination_field(FRAME, side, np.random.default_rng(SEED))
    lights = {"even": None, "frame": np.asarray(frame, float)}
    table: dict[str, Any] = {}
    for form in FORMS:
        rows: dict[str, dict[str, list[dict[str, Any]]]] = {k: {} for k in lights}
        for size in SIZES:
            say(f"superlens, vignetting and contrast: {form} of {size} nm")
            for seed in range(first_seed, first_seed + fields):
                surface, _ = series_at(size, form, side, seed)
                pair = in_focus(surface, first, SEED + seed, side)
                where = masks(surface, side)
                for name, light in lights.items():
                    images = _images(lit(pair, light), judges)
                    for called, image in images.items():
                        row = {"size": size, **_row(image, *where)}
                        rows[name].setdefault(called, []).append(row)
        table[form] = {
            name: {called: _summary(found) for called, found in images.items()}
            for name, images in rows.items()
        }
    return table


def _images(pair: SsumPair, judges: dict[str, Judge]) -> dict[str, Image]:
    """Give the optical image, what models make of it, and the truth, as they are."""
    low, high = pair.high_range
    found = {"optical": np.asarray(pair.low, float)}
    for name, judge in judges.items():
        found[name] = judge.images(pair, linear=False)["enhanced"]
    found["truth"] = np.asarray(pair.high, float) * (high - low) + low
    return found


def _row(image: Image, objects: Mask, background: Mask) -> dict[str, float | None]:
    """Measure one image, its border left out."""
    inside = (slice(BORDER, -BORDER),) * 2
    objects, background = objects[inside], background[inside]
    ring = ring_over_middle(image[inside], background)
    return {
        "ring": ring,
        "uneven": None if ring is None else abs(ring - 1),
        "contrast": michelson(image[inside], objects, background),
    }


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Put fields of all sizes together; without a ring they count for contrast."""
    known = [row for row in rows if row["ring"] is not None]
    found = with_spread(rows, {"contrast": "low"})
    rings = with_spread(known, {"ring": "low", "uneven": "high"})
    errors = {key: found[key] | rings[key] for key in ("se", "worst")}
    found = {**rings, **found, **errors, "fields": len(rows), "rings": len(known)}
    for size in dict.fromkeys(row["size"] for row in rows):
        mine = [row["contrast"] for row in rows if row["size"] == size]
        found[f"at {size}"] = float(np.mean(mine))
    return found


def light_table(found: dict[str, Any]) -> str:
    """Write vignetting and contrast in either light, lines and discs."""
    head = ["image"]
    for text in LIGHTS.values():
        head += [f"{text}: ring over middle", "uneven by", "contrast"]
    parts = []
    for form, lights in found.items():
        names = list(lights["even"])
        fields = lights["even"][names[0]]["fields"]
        cells = []
        for name in names:
            row = [NAMES.get(name, name)]
            for light in LIGHTS:
                one = lights[light][name]
                row.append(written({**one, "worst": {}}, "ring", 3))
                row += [written(one, "uneven", 3), written(one, "contrast", 3)]
            cells.append(row)
        parts += [f"**{form.capitalize()}** ({fields} fields)", table(head, cells)]
    parts += ["**Contrast by size, even light**", _by_size(found)]
    return "\n\n".join(parts)


def _by_size(found: dict[str, Any]) -> str:
    """Write the contrast of lines and of discs by their size."""
    names = list(next(iter(found.values()))["even"])
    head = ["nm", *(f"{form}: {NAMES.get(n, n)}" for form in found for n in names)]
    cells = [
        [
            str(size),
            *(
                number(lights["even"][name].get(f"at {size}"), 3)
                for lights in found.values()
                for name in names
            ),
        ]
        for size in SIZES
    ]
    return table(head, cells)
