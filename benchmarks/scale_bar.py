"""In how many images `semsr calibrate --bar` finds the printed bar, and how well.

Run: ``python benchmarks/scale_bar.py FOLDER_OR_FILE … [--again]``. A row for each image
tells length, deviation and place of its bar. ``--again`` looks into copies of each,
too: as JPEG of quality 90, 75 and 50, and resampled to 0.5, 0.7 and 2 times the pixels;
by how many of its stated deviations each length departs from that of the image itself.
"""

import io
from collections.abc import Iterator

import numpy as np
from _shared import read_options
from numpy.typing import NDArray
from PIL import Image

from napari_semsr.analysis.scale_bar import ScaleBar, find_scale_bar
from napari_semsr.core import SemsrError
from napari_semsr.io import read

QUALITIES = (90, 75, 50)
SCALES = (0.5, 0.7, 2.0)


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


def main() -> None:
    """Print a row for each image, and the sums."""
    chosen = read_options(__doc__, "images* --again")
    files = [
        item
        for path in chosen.images
        for item in (sorted(path.rglob("*.*")) if path.is_dir() else [path])
    ]
    looked, bars, tried, again = 0, 0, 0, list[float]()
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
        print(f"{path.name:48} {said}")
    if files:
        print(f"{bars} bars in {looked} images")
    if again:
        print(f"{len(again)} of {tried} copies, off by {max(again):.2f} sd at most")


if __name__ == "__main__":
    main()
