"""How well the field's distortion is found with the positions, over simulated scans.

Run: ``python benchmarks/distortion.py [--seeds 2] [--phantoms circuit,pits,…]
[--cases square,noisy,jitter,round] [--amounts 0,0.03,-0.03,0.01]``.

Each scan is taken without distortion and with each amount, all else alike, and stitched
with the defaults. ``bound`` is Cramer and Rao's for the scan without distortion: RMS of
the positions with the picture unknown, and shading, gains and dark level known; with
``free`` the coefficient is unknown as well. A row passes where the RMS is within twice
the bound and the coefficient within 5 %; 0 must give the very positions of
``--distortion none``.
"""

import time

import numpy as np
from _scans import MOVES, STEP, information, taken
from _shared import in_line, read_options

from napari_semsr.core import compute_radial_displacement, run
from napari_semsr.simulation import scan as superlens
from napari_semsr.stitching import StitchOptions, StitchSolution, solve_mosaic
from tests.stitching import scans

PHANTOMS = ("circuit", "pits", "particles", "fracture", "grating")
CASES = {
    "square": {"field": "square", "frame_px": 256, "overlap": 0.25},
    "noisy": {"field": "square", "frame_px": 256, "overlap": 0.3, "photons": 300},
    "jitter": {"field": "square", "frame_px": 320, "overlap": 0.3, "jitter_px": 16},
    "round": {"field": "round", "frame_px": 256, "overlap": 0.4},
}


def take(phantom: str, case: str, amount: float, seed: int) -> superlens.Scan:
    """Simulate a scan of 4x4 frames."""
    options = superlens.ScanOptions(
        phantom=phantom,
        frames_grid=(4, 4),
        distortion=amount,
        seed=seed,
        **{"jitter_px": 6, **CASES[case]},
    )
    return superlens.run_scan_simulation(None, options)


def solve(
    scan: superlens.Scan, distortion: str = "auto"
) -> tuple[StitchSolution, float, float]:
    """Stitch a scan: the solution, the RMS of its positions, seconds of processor."""
    start = time.process_time()
    solution = run(solve_mosaic(taken(scan), StitchOptions(distortion=distortion)))
    seconds = time.process_time() - start
    rms = scans.errors(solution.positions_px, scan.true_px)[1]
    return solution, rms, seconds


def bounds(scan: superlens.Scan) -> tuple[float, float, float]:
    """Cramer-Rao bounds of a scan without distortion.

    RMS of the positions, the same with the coefficient unknown, and its deviation.
    """
    options, slopes, weights = scan.options, [], []
    count, side = len(scan.true_px), options.frame_px
    coefficients = scan.scene.compute_spline_coefficients()
    bend = np.stack(
        compute_radial_displacement(*np.indices((side, side), float), (side, side))
    )
    for index, place in enumerate(scan.true_px):
        light = scan.flat * scan.gains[index]
        clean, *moved = (
            superlens.simulate_clean_frame(
                scan.scene, coefficients, place + by, options
            )
            for by in (0, *MOVES, *(-move for move in MOVES))
        )
        slopes.append([(moved[k] - moved[k + 2]) / (2 * STEP) for k in (0, 1)])
        shot = clean * light / options.photons if options.photons else 0
        read = (options.read_noise**2 + 1 / 12) / options.full_scale**2
        weights.append(
            np.where(light > 0.15 * light.max(), light**2 / (shot + read), 0)
        )
    matrix = information(scan.true_px, np.array(slopes), np.array(weights), bend)
    plain = np.linalg.pinv(matrix[:-1, :-1], rcond=1e-9)
    free = np.linalg.pinv(matrix, rcond=1e-9)
    rim = side / 2
    return (
        float(np.sqrt(np.trace(plain) / count)),
        float(np.sqrt(np.trace(free[:-1, :-1]) / count)),
        float(np.sqrt(free[-1, -1]) / rim),
    )


def rows_of(
    phantom: str, case: str, amounts: list[float], seed: int
) -> list[dict[str, object]]:
    """One row for each amount of distortion."""
    still = take(phantom, case, 0.0, seed)
    bound, free, sigma = bounds(still)
    before, rms_before, seconds_before = solve(still, "none")
    rows = []
    for amount in amounts:
        solution, rms, seconds = solve(take(phantom, case, amount, seed))
        found, told = solution.distortion, solution.distortion_sd
        row: dict[str, object] = {
            "phantom": phantom,
            "case": case,
            "seed": seed,
            "distortion": amount,
            "rms": rms,
            "rms_before": rms_before,
            "bound": bound,
            "free": free,
            "found": found,
            "sd": told,
            "sd_bound": sigma,
            "placed": int(solution.is_placed.sum()),
            "placed_before": int(before.is_placed.sum()),
            "seconds": seconds,
            "seconds_before": seconds_before,
        }
        if amount:
            row["within"] = rms <= 2 * bound
            row["coefficient"] = abs(found / amount - 1) <= 0.05
            row["deviations"] = (found - amount) / told if told else float("nan")
        else:
            row["same"] = np.array_equal(
                solution.positions_px, before.positions_px, equal_nan=True
            )
        rows.append(row)
        print(in_line(row), flush=True)
    return rows


def main() -> None:
    """Print a row for each scan, then a line for each case."""
    asked = read_options(
        __doc__,
        "--seeds=2",
        phantoms=",".join(PHANTOMS),
        cases=",".join(CASES),
        amounts="0,0.03,-0.03,0.01",
    )
    amounts = [float(part) for part in asked.amounts.split(",")]
    rows = [
        row
        for case in asked.cases.split(",")
        for phantom in asked.phantoms.split(",")
        for seed in range(asked.seeds)
        for row in rows_of(phantom, case, amounts, seed)
    ]
    for case in asked.cases.split(","):
        own = [row for row in rows if row["case"] == case]
        bent = [row for row in own if row["distortion"]]
        still = [row for row in own if not row["distortion"]]
        ratio = [row["rms"] / row["bound"] for row in bent]
        known = [row["rms"] / row["free"] for row in bent]
        print(
            f"{case}: {len(bent)} distorted, RMS over bound median "
            f"{np.median(ratio):.2f} worst {max(ratio):.2f}, over the bound with the "
            f"coefficient unknown {np.median(known):.2f} and {max(known):.2f}, within "
            f"twice the bound {sum(row['within'] for row in bent)}, coefficient within "
            f"5 % {sum(row['coefficient'] for row in bent)}; {len(still)} without, the "
            f"same as with none {sum(row['same'] for row in still)}, "
            f"{sum(r['seconds'] for r in still):.1f} s for "
            f"{sum(r['seconds_before'] for r in still):.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
