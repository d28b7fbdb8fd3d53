"""How right `semsr calibrate` is, and how right the errors that it states.

Run: ``OMP_NUM_THREADS=1 python benchmarks/calibrate.py [--first-seed 1000]
[--seeds 240] [--scans 48] [--groups "centred,tilted"]``. Seeds from 0 to 59 were looked
at while it was written.

Drawn gratings: each seed draws kind (lines, dots on a square or hexagonal lattice),
side 240 to 400 px, pitch 7 to 25 px with 9 periods at least, any turn, noise of 0.02
to 0.5 of the contrast, blur up to a fifth of the pitch, distortion of -8 to 8 % at the
rim, and for a lattice skew up to 1.5 degrees and pixels up to 3 % from square; half of
the fields are round and dark at the rim. Three groups: ``centred``; ``off centre``,
where the distortion's centre lies 5 to 20 % of the half side off the middle and its
amount is 1 to 8 % either way; ``tilted``, where one side of the grating is farther off
than the other by 0.5 to 3 % of the scale. Scans: frames that `semsr simulate` takes of
its grating, whose edges are rough, at 0, 3, -3 and 8 %.

Goals, set before the first run: the coefficient within 5 % where it is 3 % or more;
90 to 97 % of all figures within 1.96 of their stated deviations; none beyond 5; no
picture refused; the centre found in 95 % of ``off centre`` and in none of ``centred``;
``tilted`` told in 95 %. Exit code 1 where one is missed.
"""

import sys
from typing import Any

import numpy as np
from _shared import read_options
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.analysis import CalibrateOptions, measure_grating
from napari_semsr.core import Calibration, RegistrationError, distort_positions
from napari_semsr.simulation import scan as superlens

NM = 20.0
GROUPS = ("centred", "off centre", "tilted")
KINDS = ("lines", "square", "hexagonal")
Row = dict[str, Any]


def drawn(group: str, seed: int) -> tuple[NDArray[Any], float, Row]:
    """Draw a grating: the picture, its pitch in px of x, and the truth."""
    rng = np.random.default_rng([GROUPS.index(group), seed])
    kind = KINDS[seed % 3]
    side = int(rng.integers(240, 401))
    pitch = rng.uniform(7, min(25, side / 9))
    bent = float(rng.uniform(-0.08, 0.08))
    centre, tilt = (0.0, 0.0), 0.0
    if group == "off centre":
        bent = float(rng.choice((-1, 1)) * rng.uniform(0.01, 0.08))
        off, way = rng.uniform(0.05, 0.2) * side / 2, rng.uniform(0, 2 * np.pi)
        centre = (float(off * np.sin(way)), float(off * np.cos(way)))
    if group == "tilted":
        tilt = float(rng.uniform(0.005, 0.03))
    skew, tall = (0.0, 1.0)
    if kind != "lines":
        skew, tall = float(rng.uniform(-1.5, 1.5)), float(rng.uniform(0.97, 1.03))
    shape = (side, side)
    truth = {
        "kind": kind,
        "pixel_size_nm": (tall * NM, NM),
        "skew": skew,
        "distortion": bent,
        "centre_px": centre,
        "side": side,
        "pitch": pitch,
        "tilt": tilt,
    }
    image = seen(truth, shape, way=rng.uniform(0, np.pi), turn=rng.uniform(0, np.pi))
    blur = rng.uniform(0, 0.2)
    image = ndimage.gaussian_filter(image, blur * pitch)
    contrast = float(np.ptp(image))
    if rng.random() < 0.5:
        places = np.indices(shape) - (side - 1) / 2
        radius = np.hypot(*places) / (side / 2)
        image = (image + 0.2) * 0.35 ** (radius**2) * (radius < 0.98)
    noise = rng.uniform(0.02, 0.5)
    image += noise * contrast * rng.normal(size=shape)
    truth |= {"noise": noise, "blur": blur}
    return image, pitch, truth


def seen(
    truth: Row, shape: tuple[int, int], *, way: float, turn: float
) -> NDArray[Any]:
    """Draw a grating without noise, tilted along a way."""
    centre, side, pitch = truth["centre_px"], truth["side"], truth["pitch"]
    y, x = distort_positions(
        *np.indices(shape, float), shape, truth["distortion"], centre=centre
    )
    y, x = y - (side - 1) / 2 - centre[0], x - (side - 1) / 2 - centre[1]
    near = 1 + truth["tilt"] * (y * np.sin(way) + x * np.cos(way)) / side
    y, x = truth["pixel_size_nm"][0] / NM * y / near, x / near
    lean = np.deg2rad(truth["skew"])
    down, along = y * np.cos(lean), x + y * np.sin(lean)

    def wave(more: float, share: float = 1.0) -> NDArray[Any]:
        to = turn + np.deg2rad(more)
        place = along * np.cos(to) + down * np.sin(to)
        return np.asarray(np.cos(2 * np.pi * share * place / pitch + 0.7))

    if truth["kind"] == "lines":
        return np.asarray(0.5 + 0.5 * np.tanh(2 * wave(0)))
    if truth["kind"] == "square":
        return np.asarray(np.clip(wave(0), 0, 1) * np.clip(wave(90), 0, 1))
    waves = [wave(angle, 2 / np.sqrt(3)) for angle in (0, 60, 120)]
    return np.asarray(0.5 + np.sum(waves, axis=0) / 6)


def scanned(seed: int) -> tuple[NDArray[Any], float, Row]:
    """Take one frame of a simulated scan: as `drawn`."""
    bent = (0.0, 0.03, -0.03, 0.08)[seed % 4]
    options = superlens.ScanOptions(
        phantom="grating",
        frames_grid=(1, 2),
        frame_px=320,
        distortion=bent,
        field=("round", "square")[seed // 4 % 2],
        seed=seed,
    )
    frame = np.asarray(superlens.run_scan_simulation(None, options).frames[0])
    size = options.magnified_pixel_nm
    truth = {
        "kind": "lines",
        "pixel_size_nm": (size, size),
        "skew": 0.0,
        "distortion": bent,
        "centre_px": (0.0, 0.0),
        "tilt": 0.0,
    }
    return frame, 300 / NM, truth


def deviations(found: Calibration, truth: Row) -> dict[str, float]:
    """Errors of each figure in its stated deviation."""
    told = {
        "pixel size": (found.pixel_size_nm[1], found.pixel_size_sd_nm[1]),
        "distortion": (found.distortion, found.distortion_sd),
    }
    true = {"pixel size": truth["pixel_size_nm"][1], "distortion": truth["distortion"]}
    if found.lattice != "lines":
        told["pixel size y"] = (found.pixel_size_nm[0], found.pixel_size_sd_nm[0])
        true["pixel size y"] = truth["pixel_size_nm"][0]
    if found.skew is not None and found.skew_sd is not None:
        told["skew"], true["skew"] = (found.skew, found.skew_sd), truth["skew"]
    if found.centre_px is not None and found.centre_sd_px is not None:
        for axis, value, error, at in zip(
            "yx", found.centre_px, found.centre_sd_px, truth["centre_px"], strict=True
        ):
            told[f"centre {axis}"], true[f"centre {axis}"] = (value, error), at
    return {name: (told[name][0] - true[name]) / told[name][1] for name in told}


def measured(group: str, seed: int) -> Row:
    """Measure one picture."""
    scan = group == "scans"
    image, pitch, truth = scanned(seed) if scan else drawn(group, seed)
    row: Row = {"group": group, "seed": seed, **truth}
    options = CalibrateOptions(pitch_nm=pitch * NM, lattice=truth["kind"])
    try:
        found = measure_grating(image, options)
    except RegistrationError as error:
        return {**row, "refused": str(error)}
    size = found.pixel_size_nm[1]
    return {
        **row,
        "off": deviations(found, truth),
        "size_error": size / truth["pixel_size_nm"][1] - 1,
        "distortion_error": found.distortion - truth["distortion"],
        "distortion_sd": found.distortion_sd,
        "size_sd": found.pixel_size_sd_nm[1] / size,
        "centre": found.centre_px,
        "uneven": found.uneven_px,
        "periods": found.periods,
    }


def told_right(group: str, rows: list[Row]) -> bool:
    """Whether what is said of the centre is true often enough."""
    centres = np.mean([row["centre"] is not None for row in rows])
    uneven = np.mean([row["uneven"] is not None for row in rows])
    print(f"  centre told in {centres:.1%}, uneven in {uneven:.1%}")
    if group == "off centre":
        return bool(centres >= 0.95)
    return bool(uneven >= 0.95) if group == "tilted" else not centres + uneven


def summarised(group: str, rows: list[Row]) -> bool:
    """Print what a group says; whether all goals are reached."""
    good = [row for row in rows if "off" in row]
    refused = len(rows) - len(good)
    print(f"{group}: {len(rows)} pictures, {refused} refused")
    passed = told_right(group, good) and not refused
    for name in ("pixel size", "pixel size y", "skew", "distortion"):
        off = np.abs([row["off"][name] for row in good if name in row["off"]])
        passed &= _covered(name, off)
    centre = [v for row in good for k, v in row["off"].items() if k[:6] == "centre"]
    if group == "off centre":
        passed &= _covered("centre", np.abs(centre))
    size = np.abs([row["size_error"] for row in good])
    print(f"  pixel size off by median {np.median(size):.3%}, worst {size.max():.3%}")
    bent = [row for row in good if abs(row["distortion"]) >= 0.03]
    if not bent:
        return passed
    share = np.abs([row["distortion_error"] / row["distortion"] for row in bent])
    print(
        f"  coefficient of 3 % and more off by median {np.median(share):.2%}, worst "
        f"{share.max():.2%}, within 5 %: {(share <= 0.05).sum()} of {len(share)}"
    )
    return bool(passed and (share <= 0.05).all())


def _covered(name: str, off: NDArray[Any]) -> bool:
    """Print how often errors lie within what is stated."""
    if not len(off):
        return True
    share = float((off < 1.96).mean())
    told = f"{share:.1%} of {len(off)} within 1.96 deviations"
    print(f"  {name}: {told}, worst {off.max():.1f}")
    return 0.9 <= share <= 0.97 and bool(off.max() <= 5)


def main() -> int:
    """Print each group."""
    asked = read_options(
        __doc__,
        "--first-seed=1000 --seeds=240 --scans=48",
        groups=",".join((*GROUPS, "scans")),
    )
    counts = {**dict.fromkeys(GROUPS, asked.seeds), "scans": asked.scans}
    counts = {group: counts[group] for group in asked.groups.split(",")}
    passed = True
    for group, count in counts.items():
        rows = [measured(group, asked.first_seed + seed) for seed in range(count)]
        passed &= summarised(group, rows)
        sys.stdout.flush()
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
