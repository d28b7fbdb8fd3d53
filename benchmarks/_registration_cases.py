"""Pairs of images of one place whose map is known: drawn samples and real images.

The fixed image is an electron image. The moving one is what a superlens would show of
the same place: drawn samples in their own reflectance, real images through a contrast
curve of which a part is inverted, both blurred to 80 nm and with shot noise. All is
drawn from the number of the case.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from napari_semsr.core import (
    Affine,
    Box,
    BSplineDisplacement,
    Elastic,
    Grid,
    Micrograph,
    WarpedImage,
)
from napari_semsr.io import read
from napari_semsr.simulation.microscope import compute_reflectance
from napari_semsr.simulation.sem import compute_sem_contrast
from napari_semsr.simulation.specimen import SampleRanges, create_random_surface

PIXEL_NM = 15.0  # of the canvas, on which all is drawn
BLUR_NM = 80.0  # full width at half maximum of the superlens
_ROWS, _DWELL_NM = 432, 5.8  # of an image that was scanned twice, and its pixel size
SAMPLES = ("circuit", "pits", "particles", "fracture", "shapes", "letters")
REAL = (
    "nasa/Super2__different_test__lshr_15kx_3kv_0.tif",
    "nanoballs/R5_K3Me3_SiO2_2-3.TIF",
    "karido-3d-sem/DSA_01.png",
    "matchmaker-jeol/JEOL_Exp_Reference_6005_T6_05.bmp",
    "ampis-powder/Sc1Tile_001-001-000_0-000.png",
    "axondeepseg-sem/sub-rat7_sample-Maxo03img60_SEM.png",
)


@dataclass(frozen=True)
class Case:
    """A pair and the map from the moving image to the fixed one, in nm."""

    name: str
    moving: Micrograph
    fixed: Micrograph
    truth: Affine | Elastic
    photons: tuple[float, float]  # at full brightness, of both images

    @property
    def coarser_nm(self) -> float:
        """Larger pixel size of the two."""
        return max(*self.moving.scale, *self.fixed.scale)

    def errors_px(self, found) -> np.ndarray:
        """Distances over the overlap between a found map and the true one."""
        rows, columns = (np.linspace(0, n - 1, 41) for n in self.moving.shape)
        grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1)
        places = grid * self.moving.scale + np.array(self.moving.origin)
        true = self.truth(places)
        end = np.array(self.fixed.shape) * self.fixed.scale
        inside = ((true >= 0) & (true <= end)).all(-1)
        off = found(places[inside]) - true[inside]
        return np.hypot(*off.T) / self.coarser_nm

    @property
    def overlap(self) -> float:
        """Share of the fixed image that the moving one shows."""
        seen = WarpedImage(self.moving, Grid.from_image(self.fixed), self.truth).read()
        return float(np.isfinite(seen).mean())


def make(
    kind: str,
    seed: int,
    *,
    size: int = 512,
    search: str = "near",
    bend_px: float = 0.0,
    least_overlap: float = 0.5,
    data: Path,
) -> Case:
    """Make a pair; `kind` is one of `SAMPLES`, or a file of `data`."""
    rng = np.random.default_rng([seed, sum(map(ord, kind))])
    canvas = 2 * size
    if kind in SAMPLES:
        optical, electrons = _drawn(kind, canvas, rng)
    else:
        optical, electrons = _real(data / "sem" / kind, canvas, rng)
    low = np.maximum((np.array(electrons.shape) - size) // 2, 0)
    box = Box(low[0], low[0] + size, low[1], low[1] + size)
    cut = electrons[box.y0 : box.y1, box.x0 : box.x1]
    photons = rng.uniform(100, 400)
    grey = rng.poisson(np.clip(cut, 0, 1) * photons) / photons
    fixed = Micrograph(
        np.clip(np.rint(grey * 255), 0, 255).astype(np.uint8),
        pixel_size_nm=(PIXEL_NM, PIXEL_NM),
        name="fixed",
    )
    origin = tuple(float(-PIXEL_NM * v) for v in low)
    seen = Micrograph(optical, pixel_size_nm=(PIXEL_NM, PIXEL_NM), origin=origin)
    for _ in range(200):
        truth, grid = _placed(size, search, bend_px, rng)
        mark = Micrograph(np.ones(grid.shape, np.uint8), pixel_size_nm=grid.pitch)
        cover = WarpedImage(mark, Grid.from_image(fixed), truth).read()
        if np.isfinite(cover).mean() >= least_overlap:
            break
    # from the canvas, in the plane of the fixed image, to the plane of the moving one
    view = WarpedImage(seen, grid, truth.inverse()).read()
    known = np.isfinite(view)
    counts = rng.uniform(150, 3000)
    noisy = rng.poisson(np.clip(np.where(known, view, 0), 0, None) * counts) / counts
    noisy = np.clip(np.rint(noisy * 200), 0, 255).astype(np.uint8)
    data_ = noisy if known.all() else np.where(known, noisy, np.nan).astype(np.float32)
    moving = Micrograph(data_, pixel_size_nm=grid.pitch, name="moving")
    name = f"{kind} {seed} {search} {size}"
    return Case(name, moving, fixed, truth, (counts, photons))


def scanned_twice(name: str, data: Path) -> tuple[Micrograph, Micrograph]:
    """Two electron images of one place, in haste and averaged; no data bar."""
    images = []
    for end in ("off", "50x"):
        file = data / "dwell_pairs" / f"{name}_{end}.tif"
        image = read(file, colour="luminance")  # their bars are in colour
        grey = np.asarray(image.data)[:_ROWS]
        images.append(Micrograph(grey, (_DWELL_NM, _DWELL_NM), end))
    return images[0], images[1]


def _placed(size, search, bend_px, rng):
    """Draw a map, and the grid of the moving image."""
    pitch = float(rng.choice([15.0, 18.0, 22.0]))
    side = round(size * PIXEL_NM / pitch * rng.uniform(0.85, 1.1))
    rows, columns = side, round(side * rng.uniform(0.8, 1.2))
    about = (rows * pitch / 2, columns * pitch / 2)
    middle = size * PIXEL_NM / 2
    if search == "near":
        degrees, spread, mirrored = rng.uniform(-12, 12), 0.06, False
    else:
        degrees, spread, mirrored = rng.uniform(-180, 180), 0.15, rng.random() < 0.5
    scale = 1 + rng.uniform(-spread, spread)
    off = rng.uniform(-0.3, 0.3, 2) * size * PIXEL_NM
    base = Affine.create_similarity(
        degrees, scale=scale, is_mirrored=mirrored, about=about
    )
    skew = np.eye(2) + rng.uniform(-0.01, 0.01, (2, 2))
    linear = skew @ base.linear
    shift = np.array([middle, middle]) + off - linear @ np.array(about)
    truth = Affine.from_matrix(linear, shift)
    grid = Grid((rows, columns), (pitch, pitch), (-pitch / 2, -pitch / 2))
    if bend_px:
        return _bent(truth, size, bend_px, rng), grid
    return truth, grid


def _bent(affine, size, bend_px, rng):
    """Add two waves of bending, of 330 to 520 px."""
    spacing = 20 * PIXEL_NM
    first = -0.5 * size * PIXEL_NM
    count = int(2 * size * PIXEL_NM / spacing) + 4
    at = first + spacing * np.arange(count)
    y, x = np.meshgrid(at, at, indexing="ij")
    moves = []
    for _ in range(2):
        angle, phase = rng.uniform(0, 2 * np.pi, 2)
        wave = rng.uniform(330, 520) * PIXEL_NM
        along = y * np.sin(angle) + x * np.cos(angle)
        moves.append(bend_px * PIXEL_NM * np.sin(2 * np.pi * along / wave + phase))
    return Elastic(
        affine, BSplineDisplacement((first, first), (spacing, spacing), np.array(moves))
    )


def _drawn(kind, side, rng):
    """Reflectance and emission of a drawn sample."""
    if kind == "letters":
        return _letters(side, rng)
    ranges = SampleRanges(kinds=(kind,), pitch_nm=(200, 900), joined=0.0)
    surface = create_random_surface(
        (side, side), pixel_nm=PIXEL_NM, rng=rng, ranges=ranges
    )
    light = compute_reflectance(surface.height_nm, surface.material, PIXEL_NM)
    return _blurred(light), compute_sem_contrast(surface)


def _letters(side, rng):
    """Letters of metal on silicon, at random places, sizes and turns."""
    from PIL import Image, ImageDraw, ImageFont

    from napari_semsr.simulation import Specimen

    sheet = Image.new("L", (side, side), 0)
    for _ in range(int((side / 64) ** 2 * 1.2)):
        size = int(rng.uniform(24, 90))
        tile = Image.new("L", (2 * size, 2 * size), 0)
        sign = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"[rng.integers(32)]
        ImageDraw.Draw(tile).text(
            (size // 2, size // 2), sign, 255, ImageFont.load_default(size)
        )
        tile = tile.rotate(rng.uniform(0, 360))
        at = tuple(int(v) for v in rng.uniform(0, side - size, 2))
        sheet.paste(255, at, tile)
    cover = ndimage.gaussian_filter(np.asarray(sheet, np.float32) / 255, 0.7)
    height = cover * rng.uniform(40, 150)
    surface = Specimen(height.astype(np.float32), cover, PIXEL_NM, "letters")
    return _blurred(compute_reflectance(height, cover, PIXEL_NM)), compute_sem_contrast(
        surface
    )


def _real(path, side, rng):
    """Take a real image, and what a superlens might show of it."""
    image = np.asarray(read(path).data, np.float32)
    image = image[: int(image.shape[0] * 0.93)]  # no data bar
    y, x = (int(rng.integers(max(n - side, 0) + 1)) for n in image.shape)
    image = image[y : y + side, x : x + side]
    low, high = np.percentile(image, (0.5, 99.5))
    grey = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    turn = rng.uniform(0.45, 0.8)
    curve = np.interp(grey, [0, turn, 1], [0.1, 0.9, 0.9 - rng.uniform(0.3, 0.8)])
    return _blurred(curve), 0.05 + 0.9 * grey


def _blurred(light):
    """Blur to the resolution of the superlens."""
    sigma = BLUR_NM / PIXEL_NM / 2.3548
    return ndimage.gaussian_filter(np.asarray(light, np.float32), sigma)
