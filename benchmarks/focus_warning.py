"""Which simulated scans are warned of as out of focus, by their distance from it.

Run: ``python benchmarks/focus_warning.py [SEED]``. A field of 770 px of each kind of
sample is imaged at several distances of the focal plane from the median height. Each of
its halves is looked at alone, and against the other half in focus, as against the place
that a model was trained on.
"""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from napari_semsr.analysis import Falloff
from napari_semsr.core import Micrograph, parse_pixel_size, run
from napari_semsr.simulation import ScanOptions, simulate_scan

KINDS = {
    "circuit": {"phantom": "circuit", "pitch_nm": 300.0, "relief_nm": 60.0},
    "particles": {"phantom": "particles"},
    "fracture": {"phantom": "fracture", "relief_nm": 80.0},
    "pits": {"phantom": "pits"},
}
OFF_NM = (0, 75, -200, -300, 300, -500, 500)
SCAN = {"frames_grid": (1, 1), "frame_px": 800, "field": "square", "vignetting": 0.9}
RIM_PX = 15


def halves(focus_nm: float, seed: int, kind: str) -> list[Falloff | None]:
    """Measure both halves of a field, which are some pixels apart."""
    options = ScanOptions.parse(
        {**SCAN, **KINDS[kind], "seed": seed, "focus_nm": focus_nm}
    )
    scan = run(simulate_scan(options))
    image = (scan.frames[0] - (options.dark_counts or 100.0)) / scan.flat
    image = image[RIM_PX:-RIM_PX, RIM_PX:-RIM_PX].astype(np.float32)
    middle, size = image.shape[1] // 2, parse_pixel_size(scan.pixel_size_nm)
    parts = image[:, : middle - 7], image[:, middle + 7 :]
    return [
        Falloff.from_image(
            Micrograph(np.ascontiguousarray(one), size), options.cut_off_nm
        )
        for one in parts
    ]


def main(first: int) -> None:
    """Print a row for each kind and distance, then the sums."""
    counts = {off: np.zeros(3, dtype=int) for off in OFF_NM}
    for number, kind in enumerate(KINDS):
        seed = first + 100 * number
        options = ScanOptions.parse({**SCAN, **KINDS[kind], "seed": seed})
        surface = run(simulate_scan(options)).scene.surface
        middle = float(np.median(surface.height_nm)) if surface is not None else 0.0
        places: list[Falloff | None] = []
        for off in OFF_NM:
            found = halves(middle + off, seed, kind)
            places = places or found  # the first is in focus
            for one, place in zip(found, places[::-1], strict=True):
                if one is None or place is None:
                    continue
                counts[off] += 1, one.is_out_of_focus(), one.is_out_of_focus(place)
                print(kind, off, f"{one.falloff_db:.1f} +- {one.error_db:.1f} dB")
    print("off (nm): determined, warned of alone, warned of against a place")
    for off, row in counts.items():
        print(f"{off:5d}: {row[0]} {row[1]} {row[2]}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 93000)
