"""Look for places that trained a model among the images that judge.

Run: ``python benchmarks/leakage.py --data FOLDER [--rows FILE]``.

FOLDER holds the real images. Every image on which a published figure rests is laid on
every image of the same source folder that trained a model or chose one of its states,
and the largest correlation over all shifts at which they share a tenth of the smaller
one is printed, with the share: of two scans of one place it is high, of two places of
one kind of sample it is what chance gives. Turned or rescaled copies are not found.
Both are smoothed by 2 px, freed of what is broader than 16 px, and halved first.

`test_leakage.py` holds that no image that is judged reaches `MOST`, where the images
are at hand.
"""

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _shared import Rows, read_options
from magnify import FINAL as FINAL_PICTURES
from numpy.typing import NDArray
from restorer import DATABAR_ROWS, FINAL, LEFT_OUT, PAIRS, RECIPE
from scipy import fft, ndimage

from napari_semsr.io import read
from napari_semsr.training import load_recipe
from napari_semsr.training.recipe import ImageEntry
from napari_semsr.training.scenes import load_clear_image

Image = NDArray[np.float64]
MOST = 0.8  # of two places; chance reached 0.70 (two large balls), one place 0.94
MIN_SHARED = 0.1
FINE_PX, BROAD_PX = 2.0, 16.0
DEVELOPED = ("03", "13", "14", "26", "31")  # pictures; recipes/sem-2x-pictures.yaml


@dataclass(frozen=True)
class Shown:
    """An image by its name, and what it is for."""

    name: str
    path: Path
    crop_bottom: int = 0
    databar_rows: int = 0

    def read(self) -> Image:
        """Give its details: band-passed, halved, of mean 0 and deviation 1."""
        if self.databar_rows:
            with warnings.catch_warnings():  # of a line in colour along the border
                warnings.simplefilter("ignore", UserWarning)
                opened = read(
                    self.path, colour="luminance", databar_rows=self.databar_rows
                )
            grey = np.asarray(opened.array(), dtype=float)
        else:
            entry = ImageEntry(file=self.path.name, crop_bottom=self.crop_bottom)
            grey = np.asarray(load_clear_image(self.path.parent, entry), dtype=float)
        fine, broad = (ndimage.gaussian_filter(grey, s) for s in (FINE_PX, BROAD_PX))
        detail = (fine - broad)[::2, ::2]
        return (detail - detail.mean()) / detail.std()


def likeness(one: Image, other: Image) -> tuple[float, float]:
    """Give the largest correlation of two images over shifts, and the share shared.

    At each shift it is of the pixels that both show, each less its mean there.
    """
    shape = [
        fft.next_fast_len(a + b - 1, real=True)
        for a, b in zip(one.shape, other.shape, strict=True)
    ]

    def transform(image: Image) -> NDArray[np.complex128]:
        return fft.rfft2(image, shape)

    a, aa, known_a = (transform(part) for part in (one, one**2, np.ones_like(one)))
    b, bb, known_b = (
        np.conj(transform(part)) for part in (other, other**2, np.ones_like(other))
    )

    def slide(left: NDArray[Any], right: NDArray[Any]) -> Image:
        return np.asarray(fft.irfft2(left * right, shape))

    count = np.maximum(slide(known_a, known_b), 1.0)
    sum_a, sum_b = slide(a, known_b), slide(known_a, b)
    cross = slide(a, b) - sum_a * sum_b / count
    power_a = slide(aa, known_b) - sum_a**2 / count
    power_b = slide(known_a, bb) - sum_b**2 / count
    least = MIN_SHARED * min(one.size, other.size)
    found = cross / np.sqrt(np.maximum(power_a * power_b, 1e-6 * count**2))
    found[count < least] = -1
    best = int(np.argmax(found))
    share = count.flat[best] / min(one.size, other.size)
    return float(found.flat[best]), float(share)


def groups(data: Path) -> Iterator[tuple[str, list[Shown], list[Shown]]]:
    """Give what judges and what trained, of images that could show one place."""
    recipe = load_recipe(RECIPE).data

    def entries(root: Path, found: Any) -> list[Shown]:
        return [Shown(e.file, root / e.file, e.crop_bottom) for e in found]

    trained = entries(data / "sem", (*recipe.train, *recipe.validation))
    yield "held out", entries(data / "sem", recipe.held_out), trained
    yield "final", entries(data / "final", FINAL), trained
    scans = data / "dwell_pairs"

    def lines(numbers: Any) -> list[Shown]:
        return [
            Shown(f"line/{n:03d}", scans / "line" / f"{n:03d}_50x.tif", 0, DATABAR_ROWS)
            for n in numbers
        ]

    slow = [
        Shown(f"time/{p.stem}", p, 0, DATABAR_ROWS)
        for p in sorted((scans / "time").glob("*_30us.tif"))
    ]
    judged = [n for n in range(1, PAIRS + 1) if n not in LEFT_OUT]
    yield "line", lines(judged), slow
    yield "line, left out", lines(LEFT_OUT), slow + lines(judged)
    pictures = [
        Shown(p.stem, p) for p in sorted((data / "magnification_pairs").glob("*_low.*"))
    ]
    kept = [p for p in pictures if p.name[:2] in (*FINAL_PICTURES, *DEVELOPED)]
    yield "pictures", kept, [p for p in pictures if p not in kept]


def measure(data: Path, rows: Rows) -> None:
    """Lay every image that judges on all that trained of its source."""
    for group, judged, trained in groups(data):
        of_place = [shown.read() for shown in trained]
        for shown in judged:
            if (group, shown.name) in rows:
                continue
            own = shown.read()
            found = [likeness(own, other) for other in of_place]
            best = max(range(len(found)), key=lambda n: found[n][0])
            row = {"group": group, "judged": shown.name, "trained": trained[best].name}
            row |= {
                "correlation": round(found[best][0], 3),
                "share": round(found[best][1], 2),
            }
            print(json.dumps(rows.add(row)), flush=True)


def main() -> None:
    """Print a row for each image that judges."""
    args = read_options(__doc__, rows=Path, data={"type": Path, "required": True})
    measure(args.data, Rows(args.rows, "group", "judged"))


if __name__ == "__main__":
    main()
