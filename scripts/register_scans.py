"""Register the slow scans of `dwell_pairs/time` to the fast ones, to learn from.

Run: ``python scripts/register_scans.py DWELL_PAIRS OUT``.

OUT gets ``NNN-fast.tif`` as it was scanned, without its data bar, and ``NNN-slow.tif``
on the grid of the fast scan, NaN where it shows nothing. The affine map is taken, or
the elastic one where that raises the mutual information. A pair whose affine map is
uncertain by more than 0.2 px is left out, and told.
"""

import argparse
from pathlib import Path

import numpy as np
import tifffile

from napari_semsr.core import Micrograph, SemsrError, parse_pixel_size, run
from napari_semsr.io import read
from napari_semsr.jobs import REGISTER, RegisterOptions

PIXEL = parse_pixel_size(5.8)
DATABAR_ROWS = 39
MAX_UNCERTAIN_PX = 0.2
BETTER = 0.01  # of mutual information: a bending that is worth its freedom


def scan(path: Path) -> Micrograph:
    """Read a scan as grey values."""
    made = read(path, colour="luminance", databar_rows=DATABAR_ROWS)
    return Micrograph(made.array().astype(np.float32), PIXEL)


def main() -> None:
    """Register every pair that is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for path in sorted((arguments.data / "time").glob("*_100ns.tif")):
        number = path.stem.partition("_")[0]
        target = arguments.out / f"{number}-slow.tif"
        if target.exists():
            continue
        slow, fast = (
            scan(path.with_name(f"{number}_{name}.tif")) for name in ("30us", "100ns")
        )
        try:
            affine, elastic = (
                run(REGISTER.job(slow, fast, options=RegisterOptions(model=model)))
                for model in ("affine", "elastic")
            )
        except SemsrError as error:
            print(f"{number} left out: {error}")
            continue
        one, other = affine.registration, elastic.registration
        if one.error_px > MAX_UNCERTAIN_PX:
            print(f"{number} left out: uncertain by {one.error_px:.2f} px")
            continue
        gained = other.mutual_information_after - one.mutual_information_after
        best = elastic if gained > BETTER else affine
        tifffile.imwrite(arguments.out / f"{number}-fast.tif", fast.array())
        tifffile.imwrite(target, best.image.array())
        print(f"{number} {best.registration.model}", flush=True)


if __name__ == "__main__":
    main()
