"""Two images of one drawn place, of other contrast, whose map is known."""

from pathlib import Path

import numpy as np
from scipy import ndimage

from napari_semsr.core import Affine, Grid, Micrograph, WarpedImage
from napari_semsr.io import ImageIdentity, StoredTransform, write, write_transform

PIXEL_NM = 20.0
"""Of the fixed image; pixels of the moving one are 1.2 times as large."""


def draw_views(
    side: int = 256,
    *,
    degrees: float = 7.0,
    shift_nm: tuple[float, float] = (150.0, -260.0),
    seed: int = 0,
    eroded_px: int = 0,
) -> tuple[Micrograph, Micrograph, Affine]:
    """Draw patches of two materials: moving image, fixed image, the map between them.

    The moving one is blurred, and brightest where the fixed one is of middle grey; or
    as the fixed one is, but for what is bright being smaller by some pixels all around.
    """
    rng = np.random.default_rng(seed)
    wide = 2 * side
    coarse, fine = (
        ndimage.gaussian_filter(rng.standard_normal((wide, wide)), sigma) > 0
        for sigma in (10, 6)
    )
    scene = ndimage.gaussian_filter((fine + 0.6 * coarse) / 1.6, 1)
    low = side // 2
    cut = scene[low : low + side, low : low + side]
    noise = rng.normal(0, 6, cut.shape)
    grey = np.clip(30 + 180 * cut + noise, 0, 255).astype(np.uint8)
    fixed = Micrograph(grey, (PIXEL_NM, PIXEL_NM), "fixed")
    light = 1 - np.abs(scene - 0.4)
    if eroded_px:
        light = ndimage.grey_erosion(scene, 2 * eroded_px + 1)
    light = ndimage.gaussian_filter(light, 1.5)
    at = -low * PIXEL_NM
    canvas = Micrograph(light, (PIXEL_NM, PIXEL_NM), origin=(at, at))
    middle = side * PIXEL_NM / 2
    truth = Affine.create_similarity(
        degrees, scale=1.03, about=(middle, middle), shift=shift_nm
    )
    pitch, count = 1.2 * PIXEL_NM, round(side / 1.2)
    grid = Grid((count, count), (pitch, pitch), (-pitch / 2, -pitch / 2))
    view = WarpedImage(canvas, grid, truth.inverse()).read()
    view = 200 * view + rng.normal(0, 4, view.shape)
    moving = np.clip(view, 0, 255).astype(np.uint8)
    return Micrograph(moving, (pitch, pitch), "moving"), fixed, truth


def write_views(
    folder: Path, side: int, moving_name: str = "moving", fixed_name: str = "fixed"
) -> tuple[Micrograph, Micrograph, StoredTransform]:
    """Write such images as TIFF, and their map as map.json."""
    moving, fixed, truth = draw_views(side)
    write(moving, folder / f"{moving_name}.tif")
    write(fixed, folder / f"{fixed_name}.tif")
    quality = {"error_nm": 3.0, "error_px": 0.125}
    stored = StoredTransform(
        truth,
        ImageIdentity.from_image(moving),
        ImageIdentity.from_image(fixed),
        quality,
    )
    write_transform(folder / "map.json", stored)
    return moving, fixed, stored
