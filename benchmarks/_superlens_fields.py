"""Samples that judge a superlens model: known places of lines, discs and gaps.

Coordinates ``(y, x)`` in nm count from the corner of the drawn sample; `Sites` are
moved to the field's own corner before they are read.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.core import Float32Array
from napari_semsr.simulation import SsumPairOptions, get_surface_shape
from napari_semsr.simulation.canvas import Canvas, compute_box_distance
from napari_semsr.simulation.specimen import (
    Specimen,
)

FINE_NM = 10.0
SIDE = 384
DIP = 0.264
"""Dip between two Airy discs at Rayleigh's distance, over their peaks."""
KEPT_SEED = 2**31 + 77_000
"""Samples from here on are drawn neither in training nor to choose a checkpoint."""
Points = NDArray[np.float64]
PHOTONS = 3500.0
"""Of a mosaic whose frames have 2000 in full light."""
USUAL = SsumPairOptions(gaussian=1, relief_nm=(40.0, 160.0), any_focus=1)


def sharp(options: SsumPairOptions) -> SsumPairOptions:
    """Fix what differs from field to field: one mosaic, in focus."""
    return options.replace(
        resolution_nm=(80, 80),
        depth_of_field_nm=(100, 100),
        wavelength_nm=(550, 550),
        any_focus=0,
        photons=(PHOTONS, PHOTONS),
        shading=0.01,
        joined=0,
        eight_bit=0,
    )


@dataclass(frozen=True, slots=True)
class Sites:
    """Places where a gap of one width lies between two features of that width."""

    first: Points  # centres (N, 2) in nm of a feature, the gap, and the next feature
    gap: Points
    second: Points
    ground: Points  # places (M, 2) far from any feature
    size_nm: float  # width of the features and of the gap


def levels(
    image: Float32Array, places: Points, pixel_nm: float, size_nm: float
) -> Points:
    """Mean brightness of squares half as wide as a feature."""
    near = np.linspace(-size_nm / 4, size_nm / 4, 5)
    dy, dx = np.meshgrid(near, near, indexing="ij")
    y = places[:, :1] + dy.reshape(1, -1)
    x = places[:, 1:] + dx.reshape(1, -1)
    at = [y / pixel_nm - 0.5, x / pixel_nm - 0.5]
    values = ndimage.map_coordinates(
        np.asarray(image, np.float64), at, order=1, mode="nearest"
    )
    return np.asarray(values.mean(axis=1))


def dips(image: Float32Array, sites: Sites, pixel_nm: float) -> Points:
    """Depth of each gap below the weaker of its neighbours, over that one's height.

    Heights count from the ground, so gain and offset of the image do not matter, and
    neither does whether features are bright or dark: an image has one sign for all.
    1 is a gap as deep as the ground, 0 and less is none.
    """
    size = sites.size_nm
    ground = np.median(levels(image, sites.ground, pixel_nm, 40.0))
    first, gap, second = (
        levels(image, places, pixel_nm, size) - ground
        for places in (sites.first, sites.gap, sites.second)
    )
    both = np.concatenate([first, second])
    sign = 1.0 if np.median(both) >= 0 else -1.0
    weaker = np.minimum(sign * first, sign * second)
    enough = 0.1 * abs(float(np.median(both)))
    depth = (weaker - sign * gap) / np.maximum(weaker, max(enough, 1e-9))
    return np.asarray(np.clip(np.where(weaker > enough, depth, 0.0), -1, 1.5))


def moved(sites: Sites, by_nm: float, side_nm: float) -> Sites:
    """Count from the field's corner; leave out what is not well inside of it."""
    room = sites.size_nm + 60
    triples = np.stack([sites.first, sites.gap, sites.second]) - by_nm
    inside = np.all((triples > room) & (triples < side_nm - room), axis=(0, 2))
    ground = sites.ground - by_nm
    kept = np.all((ground > 60) & (ground < side_nm - 60), axis=1)
    first, gap, second = triples[:, inside]
    return Sites(first, gap, second, ground[kept], sites.size_nm)


def margin_nm(side: int = SIDE) -> float:
    """Distance from the corner of the drawn sample to that of the field."""
    return (get_surface_shape(side)[0] - 2 * side) / 2 * FINE_NM


def _ground(material: Float32Array, away_nm: float) -> Points:
    """Places at least so far from any feature, on a coarse raster."""
    far = ndimage.distance_transform_edt(material < 0.02) * FINE_NM
    places = np.argwhere(far >= min(away_nm, 0.8 * float(far.max())))
    return (places[:: max(1, len(places) // 4000)] + 0.5) * FINE_NM


def _flat(material: Float32Array, relief_nm: float, kind: str) -> Specimen:
    """Raise a drawing of one material by one height."""
    cover = material.astype(np.float32)
    return Specimen(np.float32(relief_nm) * cover, cover, FINE_NM, kind)


def stars(relief_nm: float, seed: int, shape: tuple[int, int]) -> Specimen:
    """Draw rows of Siemens stars of 16 to 40 sectors, 2.5 to 4 um wide."""
    canvas = Canvas(shape, FINE_NM, 10.0)
    rng = np.random.default_rng([KEPT_SEED, seed])
    cover = np.zeros(shape, np.float32)
    pitch = 4200.0
    for row, column in np.ndindex(*(int(n // pitch) + 1 for n in canvas.extent_nm)):
        middle = (np.array([row, column]) + 0.5) * pitch
        rim, sectors = float(rng.uniform(1250, 2000)), int(rng.integers(16, 41))
        for box, dy, dx in canvas.iterate_window(middle, rim + 50):
            radius, period = np.hypot(dy, dx), 2 * np.pi / sectors
            turn = np.arctan2(dy, dx) + rng.uniform(0, period)
            off = np.abs(np.mod(turn, period) - period / 2) - period / 4
            cover[box] = canvas.compute_coverage(np.maximum(radius * off, radius - rim))
    return _flat(cover, relief_nm, "stars")


_STROKES = {
    "A": "00-21 21-40 11-31",
    "E": "00-02 00-40 01-31 02-42",
    "F": "00-02 02-42 01-31",
    "H": "00-02 40-42 01-41",
    "K": "00-02 01-42 01-40",
    "M": "00-02 02-21 21-42 42-40",
    "N": "00-02 02-40 40-42",
    "S": "00-40 40-41 41-01 01-02 02-42",
    "X": "00-42 02-40",
    "Z": "02-42 42-00 00-40",
}
"""Letters as strokes between points ``xy`` of a 5 x 3 grid, y upwards."""


def letters(relief_nm: float, seed: int, shape: tuple[int, int]) -> Specimen:
    """Draw lines of letters, strokes from 60 to 140 nm wide."""
    canvas = Canvas(shape, FINE_NM, 10.0)
    rng = np.random.default_rng([KEPT_SEED, seed])
    cover = np.zeros(canvas.shape, np.float32)
    top = 150.0
    while top < canvas.extent_nm[0]:
        stroke = float(rng.uniform(60, 140))
        height, left = 6.5 * stroke, float(rng.uniform(0, 400))
        while left < canvas.extent_nm[1]:
            letter = str(rng.choice(list(_STROKES)))
            _letter(canvas, cover, letter, (top, left), stroke)
            left += 7.2 * stroke
        top += 1.5 * height
    return _flat(cover, relief_nm, "letters")


def _letter(
    canvas: Canvas,
    onto: Float32Array,
    letter: str,
    corner: tuple[float, float],
    stroke: float,
) -> None:
    """Draw one letter."""
    for line in _STROKES[letter].split():
        (x0, y0), (x1, y1) = ((int(p[0]), int(p[1])) for p in line.split("-"))
        ends = np.array([[(2 - y0) * 2.6, x0 * 1.1], [(2 - y1) * 2.6, x1 * 1.1]])
        start, stop = ends * stroke + corner
        middle, half = (start + stop) / 2, (stop - start) / 2
        reach = np.abs(half) + stroke
        length = float(np.hypot(*half))
        for box, dy, dx in canvas.iterate_window(middle, *reach):
            along = (dy * half[0] + dx * half[1]) / length
            aside = (dy * half[1] - dx * half[0]) / length
            beyond = np.maximum(np.abs(along) - length, 0)
            inside = canvas.compute_coverage(np.hypot(beyond, aside) - stroke / 2)
            np.maximum(onto[box], inside, out=onto[box])


def series(
    size_nm: float,
    form: str,
    relief_nm: float,
    side: int = SIDE,
    corner_nm: tuple[float, float] = (300.0, 300.0),
) -> tuple[Specimen, Sites]:
    """Draw groups of lines or discs of one size, as far apart as they are wide.

    The first group begins at `corner_nm`: other corners lay it otherwise on the pixels.
    """
    canvas = Canvas(get_surface_shape(side), FINE_NM, 10.0)
    cover = np.zeros(canvas.shape, np.float32)
    number = 5
    block = (2 * number - 1) * size_nm
    step = block + 500
    tops, lefts = (
        np.arange(start, extent - block, step)
        for start, extent in zip(corner_nm, canvas.extent_nm, strict=True)
    )
    triples: list[Points] = []
    for k, (top, left) in enumerate((a, b) for a in tops for b in lefts):
        centres = (2 * np.arange(number) + 0.5) * size_nm
        if form == "discs":
            places = np.stack(np.meshgrid(top + centres, left + centres), axis=-1)
            half = (size_nm / 2, size_nm / 2)
        else:
            middle = np.full(number, top + block / 2)
            places = np.stack([middle, left + centres], axis=1)[None]
            half = (block / 2, size_nm / 2)
        turned = k % 2 == 1
        if turned and form == "lines":
            places = places[..., ::-1] - (left - top, top - left)
            half = half[::-1]
        for place in places.reshape(-1, 2):
            _feature(canvas, cover, place, half, form)
        rows = places.reshape(-1, number, 2)
        triples.append(
            np.stack(
                [rows[:, :-1], (rows[:, :-1] + rows[:, 1:]) / 2, rows[:, 1:]]
            ).reshape(3, -1, 2)
        )
    first, gap, second = np.concatenate(triples, axis=1)
    sites = Sites(first, gap, second, _ground(cover, 200.0), size_nm)
    return _flat(cover, relief_nm, f"{form} {size_nm:g}"), sites


def _feature(
    canvas: Canvas,
    onto: Float32Array,
    place: Points,
    half: tuple[float, float],
    form: str,
) -> None:
    """Draw one disc or line."""
    for box, dy, dx in canvas.iterate_window(place, *half):
        disc = form == "discs"
        distance = (
            np.hypot(dy, dx) - half[0] if disc else compute_box_distance(dy, dx, half)
        )
        np.maximum(onto[box], canvas.compute_coverage(distance), out=onto[box])
