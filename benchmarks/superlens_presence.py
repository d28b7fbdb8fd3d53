"""Does an enhanced image show what is there? Discs put into samples and taken out.

Each sample is taken twice, with discs of 3 to 6 px radius and without them; a disc is
half as high as the sample's relief and half of the way to the other material. Its local
contrast (mean of the disc less that of a ring around it) is compared with those of the
electron images with and without it: nearer to the one with it means that it is shown.
Images are matched to the electron image by gain and offset first.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from superlens_fields import FINE_NM, KEPT_SEED, SIDE, margin_nm

from napari_semsr.analysis.metrics import match_affine
from napari_semsr.simulate.canvas import Canvas
from napari_semsr.simulate.objects import Surface
from napari_semsr.simulate.ssum_pair import surface_shape
from napari_semsr.simulate.ssum_samples import SampleRanges, random_surface

Image = NDArray[np.float64]
KINDS = ("grating", "pits", "lattice", "circuit", "fracture", "shapes")
RADII_NM = (60.0, 80.0, 100.0, 120.0)
DISCS = 24
_FAINT = 8.0  # grey levels of 255 that a disc must change in the electron image


@dataclass(frozen=True, slots=True)
class Discs:
    """Places and radii in nm, from the corner of the drawn sample."""

    centres: Image
    radii: Image


def disc_fields(count: int) -> list[tuple[Surface, Surface, Discs]]:
    """Draw samples without discs and with them, and say where they are."""
    found = []
    for index in range(count):
        rng = np.random.default_rng([KEPT_SEED, 5, index])
        ranges = SampleRanges(
            kinds=(KINDS[index % len(KINDS)],), joined=0, strewn=0, bent=0
        )
        plain = random_surface(
            surface_shape(SIDE),
            pixel_nm=FINE_NM,
            rng=rng,
            ranges=ranges,
            held_out=True,
        )
        discs = _scattered(rng)
        found.append((plain, _with(plain, discs), discs))
    return found


def _scattered(rng: np.random.Generator) -> Discs:
    """Places apart from one another and from the border."""
    first, last = margin_nm() + 400, margin_nm() + 2 * SIDE * FINE_NM - 400
    centres: list[Image] = []
    while len(centres) < DISCS:
        place = rng.uniform(first, last, 2)
        if all(np.hypot(*(place - other)) > 700 for other in centres):
            centres.append(place)
    return Discs(np.array(centres), np.resize(RADII_NM, DISCS))


def _with(plain: Surface, discs: Discs) -> Surface:
    """Put discs onto a sample."""
    height, material = plain.height_nm.copy(), plain.material.copy()
    canvas = Canvas((height.shape[0], height.shape[1]), FINE_NM, 12.0)
    step = 0.5 * max(float(np.ptp(height)), 20.0)
    for (cy, cx), radius in zip(discs.centres, discs.radii, strict=True):
        box = canvas.window((cy, cx), (radius, radius))
        if box is None:
            continue
        y, x = canvas.grid(box)
        inside = canvas.cover(np.hypot(y - cy, x - cx) - radius)
        height[box] += np.float32(step) * inside
        other = 1.0 if float(material[box].mean()) < 0.5 else 0.0
        material[box] += 0.5 * inside * (other - material[box])
    return Surface(height, material, FINE_NM, plain.kind)


def local_contrast(image: Image, discs: Discs, pixel_nm: float) -> Image:
    """Mean of each disc less that of a ring around it."""
    y, x = ((np.arange(n) + 0.5) * pixel_nm + margin_nm() for n in image.shape)
    found = []
    for (cy, cx), radius in zip(discs.centres, discs.radii, strict=True):
        rows = np.abs(y - cy) < 2.2 * radius
        columns = np.abs(x - cx) < 2.2 * radius
        part = image[np.ix_(rows, columns)]
        away = np.hypot((y[rows] - cy)[:, None], (x[columns] - cx)[None, :]) / radius
        inside, around = part[away < 0.9], part[(away > 1.3) & (away < 2)]
        found.append(float(inside.mean() - around.mean()))
    return np.array(found)


def presence(
    take: Callable[[Surface, int], dict[str, Image]], count: int, pixel_nm: float
) -> dict[str, dict[float, dict[str, float]]]:
    """Share of discs that are rightly shown or not, by image and radius.

    `take` gives the images of a sample, the truth among them.
    """
    right: dict[str, dict[float, list[tuple[bool, bool]]]] = {}
    for index, (plain, dotted, discs) in enumerate(disc_fields(count)):
        seen = [take(sample, index) for sample in (plain, dotted)]
        without, having = (
            local_contrast(images["truth"], discs, pixel_nm) for images in seen
        )
        clear = np.abs(having - without) > _FAINT
        for name in seen[0]:
            shares = [
                (_matched(images, name, discs, pixel_nm) - without)
                / np.where(clear, having - without, 1)
                for images in seen
            ]
            table = right.setdefault(name, {r: [] for r in RADII_NM})
            for at in np.flatnonzero(clear):
                verdict = bool(shares[1][at] > 0.5), bool(shares[0][at] <= 0.5)
                table[float(discs.radii[at])].append(verdict)
    return {
        name: {
            radius: {
                "inserted": float(np.mean([v[0] for v in verdicts])),
                "erased": float(np.mean([v[1] for v in verdicts])),
                "discs": len(verdicts),
            }
            for radius, verdicts in table.items()
        }
        for name, table in right.items()
    }


def _matched(
    images: dict[str, Image], name: str, discs: Discs, pixel_nm: float
) -> Image:
    """Local contrasts of an image on the scale of the truth."""
    gain, offset = match_affine(images[name], images["truth"])
    return local_contrast(gain * images[name] + offset, discs, pixel_nm)
