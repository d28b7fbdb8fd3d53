"""Particles and gaps of simulated fields against their ground truth.

Run: ``python benchmarks/particles.py --first SEED --fields 2``.

Ground truth, fixed before the method was changed:

- A field has 320 x 320 px. *Sparse*: discs that are 3 px and more apart. *Touching*:
  clusters, in which each disc is 0.92 to 1.08 times the sum of the radii from one that
  is there. *Powder*: balls of 12 to 56 px in random order of depth that cover 0.7 of
  the field and hide a part of each other (centres at least 0.75 of the sum of the radii
  apart), with bright rims, a texture of 8 % and dark contact shadows 3 px wide.
  Diameters of discs are 8 to 40 px, drawn from a uniform law of their logarithm.
- The contrast of the brightest is 1. Half of the discs have 0.85 to 1, the others 0.1
  to 1, those of a cluster alike to 10 %; balls of powder have 0.4 to 1. The ground has
  no texture. The probe is a Gaussian of 1 px, the noise white, 0 to 20 % of the
  contrast, and the ground and the brightest are 10 % and 80 % of 8, 12 or 16 bits.
- A particle is to be *found* if its contrast times the root of its visible area is 15
  times the noise or more, and if 60 % of it are visible. Others are neither missed nor
  wrong. It is found if a measured centre is within 0.35 of its diameter, and the
  measured diameter within 2/3 and 3/2 of that of its visible part.
- *Recall* is the share of particles that are found, *precision* the share of measured
  particles that match one, those that are hard to see included.
- A gap is *across* an object if 2 px of its inner part (2 px from either end) are
  on one particle that is to be found, or if both ends are on one particle.
- The *width* of a gap is the ground between two outlines along its line; the points of
  80 % are 1.68 px further apart behind a probe of 1 px, which is taken off.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from _shared import read_options
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.analysis import Gaps, measure_gaps
from napari_semsr.core import Micrograph, run

Image = NDArray[np.float64]
SIDE, PROBE_PX = 320, 1.0
KINDS = ("sparse", "touching", "powder")
NOISES = (0.0, 0.05, 0.1, 0.2)
BITS = (8, 12, 16)
ROSE, VISIBLE = 15.0, 0.6
NEAR, RATIO = 0.35, 1.5
INNER_PX, ON_PX = 2.0, 2.0
WIDER_PX = 1.68 * PROBE_PX  # 2 x 0.842: a blurred edge has 80 % there


@dataclass(frozen=True)
class Field:
    """A simulated field and what is visible of its particles."""

    image: Micrograph
    owner: NDArray[np.int32]  # number of the particle of each pixel, 0 on the ground
    centres: Image
    diameters: Image
    wanted: NDArray[np.bool_]  # whether it is to be found


def place_discs(kind: str, rng: np.random.Generator) -> list[list[float]]:
    """Place discs ``[y, x, radius, contrast]``."""
    discs: list[list[float]] = []
    most, covered = {"sparse": 0.22, "touching": 0.35, "powder": 0.8}[kind], 0.0
    small, large = (6.0, 28.0) if kind == "powder" else (4.0, 20.0)
    for _ in range(4000):
        if covered >= most * SIDE**2:
            break
        radius = float(np.exp(rng.uniform(np.log(small), np.log(large))))
        y, x = rng.uniform(0, SIDE, 2)
        bright = rng.uniform(0.85, 1.0)
        contrast = bright if rng.random() < 0.5 else 10 ** rng.uniform(-1, 0)
        apart = 3.0
        if kind == "powder":
            contrast = rng.uniform(0.4, 1.0)
        elif kind == "touching" and discs and rng.random() < 0.85:
            near = discs[rng.integers(len(discs))]
            way, turn = rng.uniform(0.92, 1.08), rng.uniform(0, 2 * math.pi)
            reach = way * (near[2] + radius)
            y, x = near[0] + reach * math.sin(turn), near[1] + reach * math.cos(turn)
            contrast = min(1.0, near[3] * rng.uniform(0.9, 1.1))
            apart = min(0.0, (way - 1) * (near[2] + radius) - 1e-6)
        if not (0 <= y < SIDE and 0 <= x < SIDE):
            continue
        if kind == "powder":
            free = all(
                math.hypot(y - a, x - b) >= 0.75 * (radius + r) for a, b, r, _ in discs
            )
        else:
            free = all(
                math.hypot(y - a, x - b) >= radius + r + apart for a, b, r, _ in discs
            )
        if free:
            discs.append([y, x, radius, contrast])
            covered += math.pi * radius**2
    return discs


def simulate(kind: str, noise: float, bits: int, seed: int) -> Field:
    """Simulate a field."""
    rng = np.random.default_rng(seed)
    discs = place_discs(kind, rng)
    y, x = np.indices((SIDE, SIDE), dtype=float)
    level, owner = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE), np.int32)
    for number, (cy, cx, radius, contrast) in enumerate(discs, 1):
        away = np.hypot(y - cy, x - cx)
        cover = np.clip(radius + 0.5 - away, 0, 1)
        if kind == "powder":
            shadow = np.clip((away - radius) / 3, 0, 1)
            level *= np.where(cover > 0, 1, 0.3 + 0.7 * shadow)
            own = contrast * (0.8 + 0.2 * np.clip(away / radius, 0, 1) ** 4)
        else:
            own = np.full_like(level, contrast)
        if kind == "powder":
            level = (1 - cover) * level + cover * own
        else:
            level = np.maximum(level, cover * own)
        owner[cover >= 0.5] = number
    if kind == "powder":
        texture = ndimage.gaussian_filter(rng.normal(size=level.shape), 1.5)
        level *= 1 + 0.08 * texture / texture.std()
    level = ndimage.gaussian_filter(level, PROBE_PX)
    level += rng.normal(0, noise, level.shape)
    top = 2**bits - 1
    stored = np.clip(np.rint((0.1 + 0.7 * level) * top), 0, top)
    numbers = np.arange(1, len(discs) + 1)
    area = np.bincount(owner.ravel(), minlength=len(discs) + 1)[1:].astype(float)
    whole = math.pi * np.array([d[2] for d in discs]) ** 2
    seen = np.array([d[3] for d in discs]) * np.sqrt(area) >= ROSE * noise
    return Field(
        Micrograph(stored.astype(np.uint8 if bits == 8 else np.uint16)),
        owner,
        np.array(ndimage.center_of_mass(owner > 0, owner, numbers)),
        2 * np.sqrt(area / math.pi),
        (area >= VISIBLE * whole) & seen,
    )


def match(field: Field, found: Gaps) -> tuple[int, int]:
    """Count particles that are found, and measured ones that match any."""
    places = np.array([one.place_px for one in found.sizes]).reshape(-1, 2)
    sizes = np.array([one.diameter_px for one in found.sizes])
    pairs = []
    for number, (place, diameter) in enumerate(
        zip(field.centres, field.diameters, strict=True)
    ):
        if not diameter or not len(places):
            continue
        off = np.hypot(*(places - place).T)
        ratio = np.maximum(sizes / diameter, diameter / sizes)
        near = np.flatnonzero((off <= NEAR * diameter) & (ratio <= RATIO))
        pairs += [(off[other], number, int(other)) for other in near]
    used: set[int] = set()
    taken: set[int] = set()
    for _, number, other in sorted(pairs):
        if number not in used and other not in taken:
            used.add(number)
            taken.add(other)
    return sum(bool(field.wanted[number]) for number in used), len(taken)


def inner_owners(field: Field, ends: Any, margin: float) -> NDArray[np.int32]:
    """Owners of the points of a gap, a quarter of a pixel apart."""
    start, stop = np.array(ends)
    length = math.dist(start, stop)
    if length <= 2 * margin:
        return np.zeros(0, np.int32)
    at = np.arange(margin, length - margin, 0.25) / length
    points = start[:, None] + (stop - start)[:, None] * at
    return np.asarray(
        ndimage.map_coordinates(field.owner, points, order=0, mode="nearest")
    )


def is_across(field: Field, ends: Any) -> bool:
    """Whether a gap is across an object."""
    owners = inner_owners(field, ends, INNER_PX)
    counts = np.bincount(owners, minlength=len(field.wanted) + 1)[1:] * 0.25
    if np.any(counts[field.wanted] >= ON_PX):
        return True
    whole = inner_owners(field, ends, 0.0)
    return bool(whole.size and whole.min() == whole.max() > 0)


def width_error(field: Field, gap: Any) -> float:
    """Width less the ground between two outlines, and less the probe's share."""
    ground = inner_owners(field, gap.ends_px, 0.0) == 0
    return float(gap.width_px - np.count_nonzero(ground) * 0.25 - WIDER_PX)


def score(kind: str, noise: float, bits: int, seeds: Iterator[int]) -> dict[str, Any]:
    """Measure fields of one kind."""
    found = wanted = right = measured = gaps = 0
    across, errors = [], []
    for seed in seeds:
        field = simulate(kind, noise, bits, seed)
        result = run(measure_gaps(field.image))
        hits, matches = match(field, result)
        found, wanted = found + hits, wanted + int(field.wanted.sum())
        right, measured = right + matches, measured + result.particles
        gaps += result.gaps
        wrong = [is_across(field, gap.ends_px) for gap in result.found_gaps]
        across.append(sum(wrong))
        errors += [
            width_error(field, gap)
            for gap, bad in zip(result.found_gaps, wrong, strict=True)
            if not bad and gap.width_px is not None
        ]
    return {
        "wanted": wanted,
        "recall": 100 * found / max(wanted, 1),
        "precision": 100 * right / max(measured, 1),
        "gaps": gaps,
        "across": sum(across),
        "worst": max(across),
        "error": float(np.median(errors)) if errors else math.nan,
        "spread": 1.4826 * float(np.median(np.abs(errors - np.median(errors))))
        if errors
        else math.nan,
    }


def main() -> None:
    """Print a row for each kind of field and noise."""
    arguments = read_options(
        __doc__, "--first=N --fields=2", kinds=([*KINDS], "kinds of fields")
    )
    print(
        "| fields | noise, % | particles | recall, % | precision, % | gaps | across "
        "an object (worst field) | width error, px (spread) |\n|" + "---|" * 8
    )
    seed = arguments.first
    for kind in arguments.kinds:
        for noise in NOISES:
            rows = []
            for bits in BITS:
                seeds = iter(range(seed, seed + arguments.fields))
                seed += arguments.fields
                rows.append(score(kind, noise, bits, seeds))
            total = {k: sum(r[k] for r in rows) for k in ("wanted", "gaps", "across")}
            mean = {
                k: np.nanmean([r[k] for r in rows])
                for k in ("recall", "precision", "error", "spread")
            }
            print(
                f"| {kind} | {100 * noise:.0f} | {total['wanted']} | "
                f"{mean['recall']:.1f} | {mean['precision']:.1f} | {total['gaps']} | "
                f"{total['across']} ({max(r['worst'] for r in rows)}) | "
                f"{mean['error']:+.2f} ({mean['spread']:.2f}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
