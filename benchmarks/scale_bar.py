"""In how many images `semsr calibrate --bar` finds the printed bar, and how well.

Run: ``python benchmarks/scale_bar.py FOLDER_OR_FILE …``. A row for each image tells
length, deviation and place of its bar.
"""

from _shared import read_options

from napari_semsr.analysis.scale_bar import find_scale_bar
from napari_semsr.core import SemsrError
from napari_semsr.io import read


def main() -> None:
    """Print a row for each image, and the sums."""
    chosen = read_options(__doc__, "images*")
    files = [
        item
        for path in chosen.images
        for item in (sorted(path.rglob("*.*")) if path.is_dir() else [path])
    ]
    looked = bars = 0
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
        length = f"{bar.length_px:8.1f} +- {bar.sd_px:.1f} px"
        print(f"{path.name:48} {length} at {bar.box}")
    if files:
        print(f"{bars} bars in {looked} images")


if __name__ == "__main__":
    main()
