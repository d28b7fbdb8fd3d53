"""How exactly and how fast frames are placed, beside the bound and beside the peers.

Run: ``python benchmarks/stitching.py [--seeds 10] [--cases square,grid,round]
[--light centred,off-centre,tilted] [--bad 0.05]
[--peer-python PYTHON --peer-seeds 1]``.
It needs the real images of ``../shared/data`` beside the checkout; the peers
(multiview-stitcher, ASHLAR, m2stitch) live in an environment of their own.

Frames are cut at sub-pixel places from real SEM images that were enlarged 1.5 times, so
that they hold little above 0.33 cycles per pixel, shaded, and given white noise.
RMS is the two-dimensional distance in px after the mean offset is taken off. The bound
is Cramer and Rao's with the picture unknown and eliminated jointly, and with flat
field, gains and dark level known. Peers get the grid positions where we get none.
With ``--bad`` that share of the frames, one at least, is replaced by blank and foreign
ones in turn; error and bound are those of the others.
"""

import argparse
import itertools
import json
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from _scans import MOVES, STEP, information
from _shared import ROOT, in_line, read_options
from scipy import ndimage
from skimage import io as skio

from napari_semsr.core import run
from napari_semsr.core.acquisition import compute_grid_cells
from napari_semsr.stitching import solve_mosaic
from tests.stitching import scans

DATA = ROOT.parent / "shared" / "data" / "sem"
IMAGES = (
    "axondeepseg-sem/sub-rat7_sample-Maxo03img60_SEM.png",
    "ampis-powder/Sc1Tile_001-001-000_0-000.png",
    "nasa/EBC1__train__0215193_1426C-100cyc0008.tif",
    "karido-3d-sem/DSA_01.png",
    "ampis-powder/Sc2Tile_001-001-000_0-000.png",
    "axondeepseg-sem/sub-rat1_sample-data1_SEM.png",
    "nasa/EBC1__train__0503173_S0440019.tif",
    "nasa/EBC1__train__0705161_S1160020.tif",
    "ampis-powder/Sc2Tile_010-006-000_0-000.png",
    "nasa/EBC1__train__S879_0622163-31cyc0030.tif",
)
PEERS = ("multiview-stitcher", "ashlar", "m2stitch")


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of scan."""

    grid: tuple[int, int]
    side: int
    overlap: float
    sigma: float
    shape: str
    known: str
    drift: float = 0.0


LIGHTS = {
    "centred": {},
    "off-centre": {"centre": (0.07, -0.06)},
    "tilted": {"tilt": 0.3},
}
CASES = {
    "square": Case((4, 4), 256, 0.20, 5.0, "square", "positions"),
    "grid": Case((5, 5), 300, 0.25, 5.0, "square", "grid"),
    "round": Case((6, 6), 320, 0.32, 6.0, "round", "positions", 0.2),
}


def scene_of(path: Path, size: int) -> np.ndarray:
    """Real image as a band-limited scene in [0, 1], at least `size` on each side."""
    image = skio.imread(path).astype(float)
    image = image[..., :3].mean(axis=-1) if image.ndim == 3 else image
    side = min(image.shape)
    image = image[:side, :side]
    factor = max(1.5, (size + 2) / side)
    image = ndimage.zoom(image, factor, order=3, mode="reflect")
    image = ndimage.gaussian_filter(image, 0.5)
    low, high = np.percentile(image, (0.5, 99.5))
    return np.clip((image - low) / (high - low), 0, 1.1) * 0.8 + 0.1


def flat_of(case: Case, light: str) -> np.ndarray:
    """Shading of a case, its light where it should be or not."""
    shape = scans.square_flat if case.shape == "square" else scans.round_flat
    how = dict(LIGHTS[light])
    tilt = how.pop("tilt", 0.0)
    x = np.linspace(-0.5, 0.5, case.side)
    return shape(case.side, **how) * (1 + tilt * x)


def make(
    case: Case, image: Path, seed: int, light: str = "centred"
) -> tuple[scans.Scan, np.ndarray]:
    """Cut a scan and keep its scene."""
    rows, columns = case.grid
    extent = case.side * (1 + (max(rows, columns) - 1) * (1 - case.overlap))
    scene = scene_of(image, int(extent) + 2 * scans.MARGIN + 24)
    flat = flat_of(case, light)
    scan = scans.cut_scan(
        scene,
        grid=case.grid,
        side=case.side,
        overlap=case.overlap,
        sigma=case.sigma,
        flat=flat,
        drift=case.drift,
        seed=seed,
        known=case.known,
    )
    return scan, scene


def spoil(scan: scans.Scan, share: float, seed: int) -> tuple[scans.Scan, np.ndarray]:
    """Replace some frames by blank and foreign ones; tell which."""
    rng = np.random.default_rng(1000 + seed)
    count = len(scan.truth)
    bad = np.sort(rng.choice(count, max(1, round(share * count)), replace=False))
    data = scan.acquisition.frames.copy()
    side = scan.flat.shape[0]
    for turn, index in enumerate(bad):
        content = np.full((side, side), 0.5)
        if (turn + seed) % 2:
            image = DATA / IMAGES[(seed + 3) % len(IMAGES)]
            content = scene_of(image, 2 * side)[:side, :side]
        frame = scans.FULL * content * scan.flat * scan.gains[index] + 2000
        frame += rng.normal(0, scan.sigma, frame.shape)
        data[index] = np.clip(np.rint(frame), 0, 65535)
    spoilt = scan.acquisition.replace(frames=data)
    return replace(scan, acquisition=spoilt), bad


def bound(
    scan: scans.Scan, scene: np.ndarray, without: np.ndarray | None = None
) -> tuple[float, np.ndarray]:
    """Cramér-Rao bound: RMS over all sound frames, and each frame's own."""
    count, side = len(scan.truth), scan.flat.shape[0]
    sound = np.ones(count, bool)
    sound[[] if without is None else without] = False
    weights = (scan.flat * scan.gains[:, None, None]) ** 2 / scan.sigma**2
    slopes = [
        [
            scans.cut(scene, place + move, side) - scans.cut(scene, place - move, side)
            for move in MOVES
        ]
        for place in scan.truth
    ]
    matrix = information(
        scan.truth,
        np.array(slopes) * scans.FULL / (2 * STEP),
        weights * sound[:, None, None],
    )
    covariance = np.linalg.pinv(matrix, rcond=1e-9)
    variance = np.diag(covariance).reshape(count, 2).sum(axis=1)
    return float(np.sqrt(variance[sound].mean())), np.sqrt(np.maximum(variance, 0))


def shading_percent(scan: scans.Scan, flat: np.ndarray, valid: np.ndarray) -> float:
    """Measure what a flat field leaves, RMS in % of the mean of the valid part."""
    true = scan.flat / scan.flat.max()
    inside = valid & (true > 0.15)
    ratio = flat[inside] / true[inside]
    return float(100 * ratio.std() / ratio.mean())


def run_peer(
    python: Path, name: str, scan: scans.Scan, case: Case
) -> dict[str, object]:
    """RMS and seconds of a peer, or why it has none."""
    cells = compute_grid_cells(len(scan.truth), case.grid)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.npz"
        np.savez(
            path,
            frames=scan.acquisition.frames,
            nominal=cells * case.side * (1 - case.overlap),
            cells=cells,
        )
        script = ROOT / "benchmarks" / "stitching_peers.py"
        done = subprocess.run(
            [python, script, path, name], capture_output=True, text=True, check=False
        )
    try:
        result = json.loads(done.stdout)
    except json.JSONDecodeError:
        return {"error": done.stderr.strip().splitlines()[-1:] or "no answer"}
    if "positions" in result:
        result["rms"] = scans.errors(np.array(result.pop("positions")), scan.truth)[1]
    return result


def one(
    case: Case, seed: int, light: str = "centred", bad_share: float = 0.0
) -> tuple[dict[str, object], scans.Scan]:
    """Solve one scan and compare it with its truth and its bound."""
    image = DATA / IMAGES[seed % len(IMAGES)]
    scan, scene = make(case, image, seed, light)
    bad = np.zeros(0, int)
    if bad_share:
        scan, bad = spoil(scan, bad_share, seed)
    limit, each = bound(scan, scene, bad)
    start, start_cpu = time.perf_counter(), time.process_time()
    solution = run(solve_mosaic(scan.acquisition))
    seconds = time.perf_counter() - start
    cpu_seconds = time.process_time() - start_cpu
    unnamed = sum(bool(np.isfinite(solution.positions_px[k]).all()) for k in bad)
    positions = solution.positions_px.copy()
    positions[bad] = np.nan
    error, rms = scans.errors(positions, scan.truth)
    away = np.hypot(*error.T)
    return {
        "image": image.stem[:24],
        "rms": rms,
        "bound": limit,
        "ratio": rms / limit,
        "largest_bound": float(each.max()),
        "worst": float(np.nanmax(away)),
        "misplaced": int(np.sum(away > 1)),
        "left_out": int(np.sum(~np.isfinite(positions[:, 0]))) - len(bad),
        "bad": len(bad),
        "bad_placed": unnamed,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "shading_percent": shading_percent(
            scan, solution.flat.flat, solution.flat.valid
        ),
        "remaining_percent": solution.remaining_shading_percent,
        "dark": solution.flat.dark,
        "warnings": list(solution.warnings),
    }, scan


def compare(args: argparse.Namespace) -> None:
    """Print one line for each scan, then medians."""
    lights = args.light.split(",")
    for name, light in itertools.product(args.cases.split(","), lights):
        own = []
        for seed in range(args.first, args.first + args.seeds):
            row, scan = one(CASES[name], seed, light, args.bad)
            row = {"case": name, "light": light, "seed": seed, **row}
            print(in_line(row), flush=True)
            if args.peer_python is not None and seed < args.peer_seeds:
                row["peers"] = {
                    peer: run_peer(args.peer_python, peer, scan, CASES[name])
                    for peer in PEERS
                }
                print("   peers:", row["peers"], flush=True)
            own.append(row)
        print(
            f"{name}, {light} light: "
            f"median RMS {np.median([r['rms'] for r in own]):.4f} px, bound "
            f"{np.median([r['bound'] for r in own]):.4f}, ratio median "
            f"{np.median([r['ratio'] for r in own]):.2f} worst "
            f"{max(r['ratio'] for r in own):.2f}, misplaced "
            f"{sum(r['misplaced'] for r in own)}, left out "
            f"{sum(r['left_out'] for r in own)}, bad ones placed "
            f"{sum(r['bad_placed'] for r in own)} of {sum(r['bad'] for r in own)}, "
            f"shading median {np.median([r['shading_percent'] for r in own]):.2f} % "
            f"worst {max(r['shading_percent'] for r in own):.2f} %, "
            f"{np.median([r['cpu_seconds'] for r in own]):.1f} s of processor time",
            flush=True,
        )


def main() -> None:
    """Run what was asked for."""
    args = read_options(
        __doc__,
        "--seeds=10 --light=centred --bad=0.0 --peer-python=FILE --peer-seeds=1",
        first=(0, "first seed"),
        cases="square,grid,round",
    )
    compare(args)


if __name__ == "__main__":
    main()
