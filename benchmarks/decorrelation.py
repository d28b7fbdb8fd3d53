"""Decorrelation analysis on images of a known cut-off, beside NanoPyx.

Images are drawn, cut off by an ideal filter at a known period, and given white noise::

    python benchmarks/decorrelation.py --peer-python /tmp/peers/bin/python

NanoPyx wants an environment of its own, as for `benchmarks/error_map.py`; without one
its columns are left out. Of `points` and `texture` the signal goes on to the
cut-off; of `discs` it falls off, as that of edges does, so that light noise hides its
end: what can be seen there is coarser than what was drawn, and no goal is set.
"""

import argparse
import sys

import numpy as np
from _shared import (
    PEER,
    by_peer,
    find_peer,
    mean_and_error,
    read_options,
    verdict,
)

from napari_semsr.analysis import measure_decorrelation
from napari_semsr.core import Micrograph, run

KINDS = ("points", "texture", "discs")
PERIODS = (3, 4, 6, 8, 12)
RATIOS = (5, 15, 50)
FIRST_SEED = 20_000
GOAL = 0.05

RUN = """
import json, sys
import numpy as np
from nanopyx.core.analysis.decorr import DecorrAnalysis
found = []
for image in np.load(sys.argv[1]):
    made = DecorrAnalysis()
    made.run_analysis(image)
    found.append(float(made.resolution))
print(json.dumps(found))
"""


def draw(kind: str, side: int, period: float, ratio: float, seed: int) -> np.ndarray:
    """Draw an image that ends at a period, with noise of a deviation 1 / ratio."""
    rng = np.random.default_rng(seed)
    if kind == "points":
        image = np.zeros((side, side))
        places = rng.integers(0, side, (2, side * side // 200))
        np.add.at(image, tuple(places), rng.uniform(0.5, 1.5, places.shape[1]))
    elif kind == "texture":
        image = rng.standard_normal((side, side))
    else:
        image = np.zeros((side, side))
        rows, columns = np.mgrid[:side, :side]
        for _ in range(side * side // 2000):
            (y, x), radius = rng.uniform(0, side, 2), rng.uniform(4, 20)
            low = [max(0, int(v - radius - 1)) for v in (y, x)]
            high = [int(v + radius + 2) for v in (y, x)]
            part = slice(low[0], high[0]), slice(low[1], high[1])
            image[part] += np.hypot(rows[part] - y, columns[part] - x) < radius
    plane = np.fft.rfft2(image)
    q = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    plane[q > 1 / period] = 0
    image = np.fft.irfft2(plane, s=image.shape)
    image *= ratio / image.std()
    noisy = image + rng.standard_normal(image.shape)
    return (100 + noisy).astype(np.float32)


def ours(image: np.ndarray) -> float:
    """Cut-off in px; NaN without one."""
    found = run(measure_decorrelation(Micrograph(image))).resolution_px
    return np.nan if found is None else found


def accuracy(given: argparse.Namespace, peer: str | None) -> bool:
    """Print the errors by kind, period and signal-to-noise ratio."""
    print(
        f"Error of the cut-off, {given.side} x {given.side} px, {given.seeds} seeds "
        f"from {FIRST_SEED}: mean ± s.e. (worst) in %; NanoPyx on the first "
        f"{given.peer_seeds}"
    )
    met = True
    for kind in KINDS:
        worst = 0.0
        for period in PERIODS:
            for ratio in RATIOS:
                images = [
                    draw(kind, given.side, period, ratio, FIRST_SEED + seed)
                    for seed in range(given.seeds)
                ]
                errors = np.array([ours(image) / period - 1 for image in images])
                missed = int(np.isnan(errors).sum())
                far = float(np.nanmax(np.abs(errors))) if missed < len(errors) else 1.0
                worst = max(worst, 1.0 if missed else far)
                known = 100 * errors[np.isfinite(errors)]
                line = (
                    f"  {kind:8s} {period:3d} px, SNR {ratio:3d}: "
                    f"{mean_and_error(known)} ({100 * far:.1f})"
                )
                if missed:
                    line += f", none in {missed}"
                if peer is not None:
                    some = np.stack(images[: given.peer_seeds])
                    found = np.array(by_peer(peer, RUN, some)) / period - 1
                    line += f"   NanoPyx {100 * found.mean():+7.2f}"
                print(line, flush=True)
        good = worst <= GOAL or kind == "discs"
        met &= good
        told = "no goal" if kind == "discs" else verdict(good)
        print(f"  {kind}: worst {100 * worst:.1f} %, goal {100 * GOAL:g} %: {told}")
    return met


def main() -> int:
    """Print the figures; exit code 1 means that a goal was missed."""
    given = read_options(
        __doc__,
        "--side=512 --seeds=8 --peer-seeds=1",
        peer_python=PEER,
    )
    peer = find_peer(given.peer_python, "nanopyx.core.analysis.decorr")
    return int(not accuracy(given, peer))


if __name__ == "__main__":
    sys.exit(main())
