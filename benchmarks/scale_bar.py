"""In how many images `semsr calibrate --bar` finds the printed bar, and how well.

Run: ``python benchmarks/scale_bar.py FOLDER_OR_FILE … [--again]``. A row for each image
tells length, deviation and place of its bar, and how its label is read. ``--again``
looks into copies of each, too: as JPEG of quality 90, 75 and 50, and resampled to 0.5,
0.7 and 2 times the pixels; by how many of its stated deviations each length departs
from that of the image itself. ``--drawn FONTS`` prints bars with labels instead, in
fonts that reading was not learnt from (the folder holds them, and others), and counts
those read rightly, not at all, and wrongly; other text stands about, and a third of the
images have no label.
"""

import argparse
import io
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from napari_semsr.analysis import ScaleBar, find_scale_bar, read_scale_label
from napari_semsr.core import SemsrError
from napari_semsr.io import read

QUALITIES = (90, 75, 50)
SCALES = (0.5, 0.7, 2.0)
UNSEEN = ("OpenSans", "URWGothic", "P052", "Inconsolata")
"""Families that scripts/teach_scale_label.py leaves out."""
LENGTHS = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 250, 300, 500)
UNITS = {"nm": 1.0, "\N{MICRO SIGN}m": 1e3, "um": 1e3}
WORDS = (
    "EHT = 5.00 kV",
    "WD = 8.2 mm",
    "Mag = 20.00 K X",
    "SE2",
    "22 Nov 2026",
    "WD 10 mm",
)


def copies(grey: NDArray[np.uint8]) -> Iterator[tuple[str, NDArray[np.uint8], float]]:
    """Make copies: what was done, the copy, and its pixels for one of the image."""
    image = Image.fromarray(grey)
    for quality in QUALITIES:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality)
        yield f"JPEG {quality}", np.asarray(Image.open(stream)), 1.0
    for scale in SCALES:
        size = (round(image.width * scale), round(image.height * scale))
        small = image.resize(size, Image.Resampling.LANCZOS)
        yield f"x {scale:g}", np.asarray(small), scale


def departures(grey: NDArray[np.uint8], bar: ScaleBar) -> dict[str, float | None]:
    """Compare the bars of copies with that of the image; None where none is found."""
    found: dict[str, float | None] = {}
    for name, copy, scale in copies(grey):
        other = find_scale_bar(copy)
        found[name] = None
        if other is not None:
            found[name] = (other.length_px - scale * bar.length_px) / other.sd_px
    return found


def with_label(face: Path, rng: Random) -> tuple[NDArray[np.uint8], float | None]:
    """Draw a data bar; the length on its label in nm, None where it has none."""
    height, rows = rng.choice((480, 768, 1024)), rng.randint(40, 70)
    width = round(height * 4 / 3)
    noise = np.random.default_rng(rng.getrandbits(32)).normal(128, 30, (height, width))
    image = Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))
    drawing = ImageDraw.Draw(image)
    ground, ink = rng.choice(((0, 255), (255, 0), (30, 220)))
    drawing.rectangle((0, height - rows, width, height), fill=ground)
    font = ImageFont.truetype(str(face), round(rows * rng.uniform(0.3, 0.45)))
    number, unit = rng.choice(LENGTHS), rng.choice(tuple(UNITS))
    said = f"{number}{rng.choice(('', ' '))}{unit}"
    long = round(width * rng.uniform(0.1, 0.25))
    x, y = round(width * rng.uniform(0.4, 0.6)), height - round(rows * 0.3)
    drawing.line((x, y, x + long, y), fill=ink, width=2)
    if rng.random() < 0.5:
        for end in (x, x + long):
            drawing.line((end, y - 5, end, y + 5), fill=ink, width=2)
    labelled = rng.random() < 2 / 3
    if labelled:
        drawing.text((x + long / 2, y - 8), said, fill=ink, font=font, anchor="mb")
    place = (width * 0.03, height - rows * 0.6)
    drawing.text(place, rng.choice(WORDS), fill=ink, font=font, anchor="lm")
    if rng.random() < 0.5:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=rng.randint(60, 95))
        image = Image.open(stream)
    return np.asarray(image), number * UNITS[unit] if labelled else None


def judge_drawn(folder: Path, count: int) -> None:
    """Count labels in unseen fonts that are read rightly, not at all, and wrongly."""
    rng = Random(70_000)  # noqa: S311 - repeatable
    faces = [path for path in sorted(folder.rglob("*.[to]tf")) if is_unseen(path)]
    told = Counter[str]()
    for _ in range(count):
        image, length = with_label(rng.choice(faces), rng)
        bar = find_scale_bar(image)
        label = None if bar is None else read_scale_label(image, bar)
        kind = "without a label" if length is None else "with a label"
        if bar is None:
            told[f"{kind}: no bar found"] += 1
        elif label is None:
            told[f"{kind}: nothing read"] += 1
        else:
            right = length is not None and math.isclose(label.length_nm, length)
            told[f"{kind}: read {'rightly' if right else 'WRONGLY'}"] += 1
    for kind, number in sorted(told.items()):
        print(f"{kind:32} {number}")


def is_unseen(path: Path) -> bool:
    """Tell whether reading was not taught on a font."""
    return path.name.startswith(UNSEEN)


def main() -> None:
    """Print a row for each image, and the sums."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="*", type=Path)
    parser.add_argument("--drawn", type=Path, metavar="FONTS")
    parser.add_argument("--count", type=int, default=1000, help="of drawn images")
    parser.add_argument("--again", action="store_true")
    chosen = parser.parse_args()
    if chosen.drawn is not None:
        judge_drawn(chosen.drawn, chosen.count)
    files = [
        item
        for path in chosen.images
        for item in (sorted(path.rglob("*.*")) if path.is_dir() else [path])
    ]
    looked, bars, labels, tried, again = 0, 0, 0, 0, list[float]()
    for path in files:
        try:
            image = read(path, crop_databar=False, colour="luminance").array()
        except SemsrError:
            continue
        looked += 1
        bar = find_scale_bar(image)
        if bar is None:
            continue
        bars += 1
        said = f"{bar.length_px:8.1f} +- {bar.sd_px:.1f} px at {bar.box}"
        if chosen.again:
            low, high = float(np.nanmin(image)), float(np.nanmax(image))
            grey = ((image - low) / (high - low) * 255).astype(np.uint8)
            found = departures(grey, bar)
            tried += len(found)
            again += [abs(value) for value in found.values() if value is not None]
        label = read_scale_label(image, bar)
        labels += label is not None
        print(f"{path.name:48} {said}, reads {label.text if label else 'nothing'}")
    if files:
        print(f"{bars} bars in {looked} images, {labels} labels read")
    if again:
        print(f"{len(again)} of {tried} copies, off by {max(again):.2f} sd at most")


if __name__ == "__main__":
    main()
