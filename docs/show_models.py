"""Show the results of the bundled models on ten real images, for the manual.

``python docs/show_models.py FOLDER``; the folder holds the real images. Each is
enhanced as a whole with default settings; the figure shows a detail of it before and
after, both on the grey scale of the original image, from its 0.2th to its 99.8th
percentile. The figures of `which-model.md` and `models.md` are overwritten, and the
values measured by the models are printed; only the images are chosen by hand.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import napari_semsr as semsr
from napari_semsr.io import read

PICTURE = Path(__file__).parent / "images" / "which-model.webp"
DETAIL = 200  # px of the original image
ACROSS = 2  # pairs per row
FOR_MODELS = {"model-sem-restore.webp": (0, 5), "model-sem-2x.webp": (9,)}  # of IMAGES
SHARES = (0.2, 99.8)


@dataclass(frozen=True)
class Shown:
    """A real image, and the model applied to it."""

    name: str
    file: str
    model: str = "sem-restore"
    rows: int | None = None  # Above the data bar


IMAGES = (
    Shown("gold on carbon, one fast scan", "dwell_pairs/line/009_off.tif", rows=432),
    Shown("the same, 50 lines averaged", "dwell_pairs/line/009_50x.tif", rows=432),
    Shown("superalloy, noisy", "sem/nasa/Super1__train__spot3_180d_2.tif"),
    Shown("superalloy, etched", "sem/nasa/Super2__different_test__lshr_15kx_3kv_0.tif"),
    Shown("coating", "sem/nasa/EBC1__train__0215193_1426C-100cyc0008.tif"),
    Shown("nerve tissue", "sem/axondeepseg-sem/sub-rat1_sample-data1_SEM.png"),
    Shown("brain, FIB-SEM", "sem/neuroproof-fibsem/iso.03590.png"),
    Shown("fibres, JPEG", "sem/sem-fiber-analysis/K1.jpg"),
    Shown("metal powder", "sem/ampis-powder/Sc2Tile_010-006-000_0-000.png"),
    Shown("gold, slow scan", "dwell_pairs/time/036_30us.tif", "sem-2x", rows=432),
)


def neighbours(image: NDArray[np.floating], span: float) -> float:
    """Measure the noise between neighbouring pixels, in grey levels of 255."""
    apart = np.diff(image.astype(float), axis=1)
    return float(apart.std()) / np.sqrt(2) / span * 255


def grey(image: NDArray[np.floating], low: float, span: float) -> NDArray[np.uint8]:
    """Convert a detail to eight bits."""
    return np.asarray(np.clip((image - low) / span, 0, 1) * 255, np.uint8)


def shown(root: Path, what: Shown) -> tuple[Image.Image, str]:
    """Enhance an image; return its details side by side, and its table row."""
    before = read(root / what.file, colour="luminance").array()[: what.rows]
    before = before.astype(np.float32)
    made = semsr.enhance(before, model=what.model)
    after = np.asarray(made.array())
    scale = after.shape[0] // before.shape[0]
    low, high = np.percentile(before, SHARES)
    span = float(high - low)
    sides = [min(DETAIL, n) for n in before.shape]
    corner = [(n - side) // 2 for n, side in zip(before.shape, sides, strict=True)]
    parts = []
    for image, zoom in ((before, 2), (after, 2 // scale)):
        (y, x), (h, w) = ([n * (2 // zoom) for n in both] for both in (corner, sides))
        detail = Image.fromarray(grey(image[y : y + h, x : x + w], low, span))
        parts.append(detail.resize((2 * DETAIL, 2 * DETAIL), Image.Resampling.NEAREST))
    pair = Image.new("L", (4 * DETAIL + 4, 2 * DETAIL + 20), 255)
    pair.paste(parts[0], (0, 20))
    pair.paste(parts[1], (2 * DETAIL + 4, 20))
    ImageDraw.Draw(pair).text((4, 4), f"{what.name}: before, and after {what.model}")
    told = made.metadata["enhance"]
    noise, blur = told.get("noise_percent"), told.get("blur_px")
    named = "" if noise is None else f"noise {noise:.1f} %, blur {blur:.1f} px"
    change = f"{neighbours(before, span):.1f}"
    if scale == 1:
        change += f" → {neighbours(after, span):.1f}"
    return pair, f"| {what.name} | `{what.model}` | {named} | {change} |"


def save_sheet(pairs: Sequence[Image.Image], target: Path) -> None:
    """Save pairs in a grid."""
    width, height = pairs[0].size
    across = min(ACROSS, len(pairs))
    down = -(-len(pairs) // across)
    sheet = Image.new("L", (across * width + 12 * (across - 1), down * height), 255)
    for n, pair in enumerate(pairs):
        sheet.paste(pair, (n % across * (width + 12), n // across * height))
    sheet.save(target, quality=50, method=6)


def main() -> None:
    """Write the figures, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    pairs, rows = zip(*(shown(folder, what) for what in IMAGES), strict=True)
    save_sheet(pairs, PICTURE)
    for name, numbers in FOR_MODELS.items():
        save_sheet([pairs[n] for n in numbers], PICTURE.with_name(name))
    print("\n".join((HEAD, *rows)))


HEAD = """| image | model | measured by the model | noise between neighbours, of 255 |
|---|---|---|---|"""


if __name__ == "__main__":
    main()
