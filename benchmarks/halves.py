"""The resolution of a mosaic from its own halves, against that from two whole scans.

Six kinds of samples are drawn, each scanned twice with 50 % overlap: the same stage and
the same light, another draw of the camera's noise. Both scans are placed and fused by
themselves, and their two mosaics give the map that halves are held against. The first
scan's halves, which share its positions, give the other one. Run::

    python benchmarks/halves.py [--seeds 1] [--grid 5x5] [--frame-px 256] [--photons 2000]

Printed is the median over the blocks that have a resolution in both maps. Exit code 1
means that the median over the samples of the deviation missed its goal of 5 %. Beside it
stands what ``2 r / (1 + r)`` would give, as if both halves had twice the noise of the
mosaic everywhere, and what true positions give in place of solved ones.
"""

import argparse
import sys
from dataclasses import replace

import numpy as np

from napari_semsr.analysis import FrcMapOptions, measure_frc_map
from napari_semsr.core import Acquisition, Box, Micrograph, run
from napari_semsr.core.acquisition import ArrayFrames
from napari_semsr.jobs import SimulateOptions
from napari_semsr.simulation import Scan, simulate_scan
from napari_semsr.stitching import (
    FusionPlan,
    StitchSolution,
    plan_fusion,
    plan_halves,
    solve_mosaic,
)

KINDS = ("pits", "particles", "rods", "circuit", "fracture", "gold")
FIRST_SEED = 20_000
GOAL = 0.05
MAP = FrcMapOptions()


def acquisition_of(scan: Scan) -> Acquisition:
    """Take the frames of a scan with their nominal places."""
    return Acquisition(ArrayFrames(scan.frames), scan.names, nominal_px=scan.nominal_px)


def fuse(plan: FusionPlan, box: Box) -> Micrograph:
    """Compute a part of a mosaic."""
    return Micrograph(plan.block(box)[0])


def solve(scan: Scan) -> tuple[Acquisition, StitchSolution, FusionPlan]:
    """Place and plan a scan."""
    taken = acquisition_of(scan)
    solution = run(solve_mosaic(taken))
    return taken, solution, plan_fusion(taken, solution)


def block_map(a: Micrograph, b: Micrograph, whole: Micrograph | None = None):
    """Resolution of each block in px, and why there is none."""
    found = run(measure_frc_map(a, b, MAP, whole=whole))
    return found.measured


def at_true_places(plan: FusionPlan, scan: Scan) -> FusionPlan:
    """Put frames where they are, on the grid of a mosaic that was solved."""
    placed = np.isfinite(plan.positions).all(axis=1)
    true = scan.true_px + (plan.positions - scan.true_px)[placed].mean(axis=0)
    return replace(plan, positions=np.where(placed[:, None], true, np.nan))


def compare(kind: str, seed: int, given: argparse.Namespace) -> dict[str, float]:
    """Measure one sample."""
    rows, columns = (int(part) for part in given.grid.split("x"))
    options = SimulateOptions(
        phantom=kind,
        frames_grid=(rows, columns),
        frame_px=given.frame_px,
        overlap=0.5,
        photons=given.photons,
        seed=seed,
    )
    scans = [
        run(simulate_scan(options.replace(noise_seed=number))) for number in (0, 1)
    ]
    taken, solution, whole = solve(scans[0])
    _, _, again = solve(scans[1])
    halves = run(plan_halves(taken, solution, whole))
    box = Box(0, *(0,) * 0, 0, 0, 0) if False else Box.of(
        (min(whole.shape[0], again.shape[0]), min(whole.shape[1], again.shape[1]))
    )
    first, second = fuse(whole, box), fuse(again, box)
    parts = [fuse(half.plan, box) for half in halves]
    two = block_map(first, second)
    own = block_map(*parts, whole=first)
    mean = Micrograph((parts[0].data + parts[1].data) / 2)
    plain = block_map(*parts, whole=mean)
    places = [at_true_places(half.plan, scans[0]) for half in halves]
    known = block_map(
        *(fuse(plan, box) for plan in places),
        whole=fuse(at_true_places(whole, scans[0]), box),
    )
    return {
        "two": _median(two, two, own),
        "halves": _median(own, two, own),
        "plain": _median(plain, two, own),
        "true": _median(known, two, own),
        "blocks": int(np.isfinite(own).sum()),
        "of": int(np.isfinite(two).sum()),
        "all": own.size,
    }


def _median(values: np.ndarray, *both: np.ndarray) -> float:
    known = np.logical_and.reduce([np.isfinite(item) for item in (values, *both)])
    return float(np.median(values[known])) if known.any() else float("nan")


def main() -> None:
    """Measure all samples."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1, help="samples of each kind")
    parser.add_argument("--kinds", nargs="+", default=KINDS)
    parser.add_argument("--grid", default="5x5")
    parser.add_argument("--frame-px", type=int, default=256)
    parser.add_argument("--photons", type=float, default=2000)
    given = parser.parse_args()
    off = []
    for number, kind in enumerate(given.kinds):
        for seed in range(given.seeds):
            found = compare(kind, FIRST_SEED + 100 * number + seed, given)
            off.append(found["halves"] / found["two"] - 1)
            print(kind, found, flush=True)
    print(np.median(np.abs(off)))


if __name__ == "__main__":
    main()
