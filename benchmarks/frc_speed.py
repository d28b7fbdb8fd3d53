"""Time of one block's Fourier ring correlation, beside NanoPyx on the same blocks.

NanoPyx wants its own versions of numpy, so give it an environment of its own::

    python -m venv /tmp/peers && /tmp/peers/bin/pip install nanopyx
    python benchmarks/frc_speed.py --peer-python /tmp/peers/bin/python

``SEMSR_PEER_PYTHON`` does the same as the option; without either, this environment is
tried, and the run says so when NanoPyx is in neither. All are timed in turn, several
times, and the best time of each counts: other work on the machine then disturbs least.
"""

import sys
import time
from functools import partial

import numpy as np
from _shared import PEER, Seconds, by_peer, find_peer, least_of, read_options, verdict
from frc_accuracy import draw_pairs

from napari_semsr.analysis import FrcMapOptions, measure_frc_map
from napari_semsr.analysis.frc.blocks import correlate_blocks
from napari_semsr.core import Micrograph, run

BLOCK = 64
STEP = 16
BATCH = 64
GOALS = {"plain": 50.0, "exact": 20.0}

RUN = """
import json, sys, time
import numpy as np
from nanopyx.core.analysis.frc import FIRECalculator
first, second = np.load(sys.argv[1])
times = []
for a, b in zip(first, second):
    start = time.perf_counter()
    FIRECalculator(pixel_size=1, units="pixel").calculate_fire_number(a, b)
    times.append(time.perf_counter() - start)
print(json.dumps(sum(times) / len(times)))
"""


def draw(side: int) -> list[np.ndarray]:
    """Two exposures of a field with a resolution of 5 px."""
    return [stack[0] for stack in draw_pairs(side, 5, 50, count=1, seed=0)]


def blocks_of(image: np.ndarray) -> np.ndarray:
    """Blocks of an image, side by side."""
    many = image.shape[0] // BLOCK
    cut = image.reshape(many, BLOCK, many, BLOCK).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(cut.reshape(-1, BLOCK, BLOCK))


def time_blocks(pair: tuple[np.ndarray, np.ndarray], estimator: str) -> Seconds:
    """Seconds per block on one core, status rules and fit included."""
    start = time.perf_counter()
    for k in range(0, len(pair[0]), BATCH):
        correlate_blocks(
            pair[0][k : k + BATCH], pair[1][k : k + BATCH], estimator=estimator
        )
    return Seconds((time.perf_counter() - start) / len(pair[0]))


def time_map(pair: list[Micrograph], estimator: str) -> tuple[float, int]:
    """Seconds of a whole map, and its blocks."""
    options = FrcMapOptions(block=BLOCK, step=STEP, estimator=estimator)
    start = time.perf_counter()
    found = run(measure_frc_map(*pair, options))
    return time.perf_counter() - start, found.blocks


def main() -> int:
    """Print times and ratios; exit code 1 means that a ratio missed its goal."""
    given = read_options(
        __doc__, "--repeats=5", peer_python=PEER, side=(2048, "of the map's field")
    )
    pair = tuple(blocks_of(image) for image in draw(1024))
    field = [Micrograph(image) for image in draw(given.side)]
    peer = find_peer(given.peer_python, "nanopyx.core.analysis.frc")
    some = np.stack([part[:100] for part in pair])
    for name in GOALS:
        time_blocks(pair, name)
    ways = {name: partial(time_blocks, pair, name) for name in GOALS}
    if peer:
        ways["NanoPyx"] = lambda: Seconds(by_peer(peer, RUN, some))
    best = least_of(given.repeats, ways)
    print(f"Blocks of {BLOCK} px, best of the repeats, time per block:")
    for name, seconds in best.items():
        print(f"  {name:8s} {1e3 * seconds:7.3f} ms")
    met = True
    for name, goal in GOALS.items() if peer else ():
        ratio = best["NanoPyx"] / best[name]
        met &= ratio >= goal
        told = f"{ratio:.0f} x as fast as NanoPyx, goal {goal:g}"
        print(f"  {name}: {told}: {verdict(ratio >= goal)}")
    for name in GOALS:
        seconds, blocks = min(time_map(field, name) for _ in range(2))
        told = (
            f"{blocks} blocks in {seconds:.1f} s ({1e3 * seconds / blocks:.3f} ms each)"
        )
        print(f"Map of {given.side} x {given.side} px, step {STEP}, {name}: {told}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
