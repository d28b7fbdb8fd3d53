"""How well, how surely and how honestly images of two instruments are registered.

Run: ``python benchmarks/registration.py --data FOLDER [--processes 2] [--every 1]
[--sets affine,elastic,dwell,negative] [--only WORD] [--json FILE]
[--peers orb,sift,elastix,elastix-started]``.

FOLDER holds the real images of `_registration_cases`. All is drawn from the numbers
below. ``--json`` keeps a row for each case as soon as it is done; what is there already
is not run again. ``--every 10`` takes each tenth case.

- ``affine``: 200 cases that can be registered, half of them turned by up to 12 degrees
  and searched ``near``, half at any turn, mirrored or not, and searched ``full``; of
  512 px, drawn samples of up to 2048 px.
- ``elastic``: 48 of the first kind with 4 px of smooth bending.
- ``dwell``: 13 real pairs of one microscope, without averaging and over 50 lines, that
  drifted by some px; their true map is not known. Median distance of held-out patches
  from the map, and correlation of both images before and after.
- ``negative``: 20 each of no overlap, blank, foreign, periodic (shifted by a period),
  and less than 30 % overlap.

An error is the distance between found and true map over the overlap, RMS, in pixels of
the coarser image. A case fails silently where a map is given without a warning, and
its error is above 2 px and three times what is stated; where there is none, any map is
wrong.
The stated error covers the true one where that is below 1.45 times as large: were the
values of an affine map normal and of one size, the sum of their six squares would be
below that in 95 % of the cases. How many of the places of patches lie within their
ellipse of 95 % is told as well. Seconds of the wall say something with
``--processes 1`` on an idle machine only.

Peers see the moving image on pixels of the fixed one, gaps filled with its median, both
from the 0.5th to the 99.5th percentile on 8 bits:
scikit-image's ORB and SIFT with RANSAC, ITKElastix (``pip install itk-elastix``) with
its default affine map (and B-spline for bent cases), and the same after our map.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import _registration_cases as cases
import numpy as np
from _shared import read_options
from scipy import ndimage
from skimage import feature

from napari_semsr.core import (
    Affine,
    Elastic,
    Grid,
    Micrograph,
    SemsrError,
    WarpedImage,
    run,
)
from napari_semsr.jobs import REGISTER, RegisterOptions

KINDS = (*cases.SAMPLES, *cases.REAL)
AFFINE, ELASTIC, EACH_NEGATIVE = 200, 48, 20
DWELL = [n for n in range(1, 16) if n not in (1, 7)]  # places of other pairs
GROUPS = ("affine", "elastic", "dwell", "negative")
FIRST_SEED = {"affine": 1000, "elastic": 5000, "negative": 9000}
BEND_PX = 4.0
NEGATIVES = ("no-overlap", "blank", "foreign", "periodic", "little-overlap")
COVERED = 1.45  # see above
ELLIPSE = 1.731  # of a distance in a plane, by its root mean square, normal: 95 %
GOOD_PX = 0.5


@dataclass(frozen=True)
class Task:
    """A case by its numbers, so that every process draws it for itself."""

    group: str
    kind: str
    seed: int
    size: int = 512
    search: str = "near"
    what: str = ""

    @property
    def name(self) -> str:
        """Name of its row."""
        parts = (self.group, self.what, self.kind, self.size, self.search, self.seed)
        return " ".join(str(part) for part in parts if part != "")


def all_tasks() -> list[Task]:
    """Every case, shuffled, so that each tenth is a fair sample."""
    tasks = []
    for number in range(AFFINE):
        kind = KINDS[number % len(KINDS)]
        turn = number // len(KINDS)
        size = 512
        if kind in cases.SAMPLES:
            size = {2: 1024, 5: 2048, 8: 768, 11: 1024}.get(turn, 512)
        search = "full" if (number + turn) % 2 else "near"
        seed = FIRST_SEED["affine"] + number
        tasks.append(Task("affine", kind, seed, size, search))
    for number in range(ELASTIC):
        kind = KINDS[number % len(KINDS)]
        tasks.append(Task("elastic", kind, FIRST_SEED["elastic"] + number))
    for number in range(EACH_NEGATIVE * len(NEGATIVES)):
        what = NEGATIVES[number % len(NEGATIVES)]
        kind = cases.SAMPLES[number // len(NEGATIVES) % len(cases.SAMPLES)]
        seed = FIRST_SEED["negative"] + number
        tasks.append(Task("negative", kind, seed, what=what))
    shuffled = [tasks[k] for k in np.random.default_rng(0).permutation(len(tasks))]
    return shuffled + [Task("dwell", f"line/{n:03d}", n) for n in DWELL]


def draw(task: Task, data: Path) -> cases.Case | tuple[Micrograph, Micrograph]:
    """Draw a case; two images without a true map where there is none."""
    if task.group == "negative":
        return DRAWN[task.what](task, data)
    if task.group == "dwell":
        return cases.scanned_twice(task.kind, data)
    bend = BEND_PX if task.group == "elastic" else 0.0
    return cases.make(
        task.kind,
        task.seed,
        size=task.size,
        search=task.search,
        bend_px=bend,
        data=data,
    )


def _blank(task, data):
    """One of both images shows noise alone."""
    case = cases.make(task.kind, task.seed, size=task.size, data=data)
    rng = np.random.default_rng(task.seed)
    pair = [case.moving, case.fixed]
    number = task.seed // len(NEGATIVES) % 2
    noise = rng.poisson(rng.uniform(20, 120), pair[number].shape)
    pair[number] = pair[number].replace(data=noise.astype(np.uint8))
    return tuple(pair)


def _foreign(task, data):
    """Two images of two places."""
    first, second = (
        cases.make(task.kind, task.seed + more, size=task.size, data=data)
        for more in (0, 100_000)
    )
    return first.moving, second.fixed


def _cut(task, data, share):
    """Cut both images so that they share no more than a part of the smaller one.

    What is left of the fixed image ends where what is left of the moving one begins.
    """
    case = cases.make(task.kind, task.seed, size=768, data=data)
    fixed = case.fixed.replace(data=case.fixed.data[:, :400])
    rows, columns = case.moving.shape
    end = 400 * fixed.scale[1]
    edge = np.array([[y, 0.0] for y in np.linspace(0, rows - 1, 33)])
    for first in range(columns):
        places = (edge + np.array([0, first])) * case.moving.scale
        if (case.truth(places)[:, 1] > end).all():
            break
    cut = replace(case, fixed=fixed)
    while True:
        origin = (0.0, first * case.moving.scale[1])
        moving = case.moving.replace(data=case.moving.data[:, first:], origin=origin)
        cut = replace(case, moving=moving, fixed=fixed)
        if share == 0 or _share(cut) >= share or first == 0:
            return cut
        first = max(0, first - 8)


def _share(case):
    """Share of the smaller image that the other shows."""
    areas = [np.prod(i.shape) * np.prod(i.scale) for i in (case.moving, case.fixed)]
    return case.overlap * areas[1] / min(areas)


def _no_overlap(task, data):
    """Two places of one sample, beside each other."""
    case = _cut(task, data, 0)
    return case.moving, case.fixed


def _little_overlap(task, data):
    """Two images that share 5 to 25 % of the smaller one."""
    share = np.random.default_rng(task.seed).uniform(0.05, 0.25)
    return _cut(task, data, share)


def _periodic(task, data):
    """Draw a lattice of discs, and the same some periods on."""
    rng = np.random.default_rng(task.seed)
    pixel, side = cases.PIXEL_NM, task.size
    pitch = rng.uniform(250, 900) / pixel
    angle = rng.uniform(0, np.pi)
    corner = np.pi / rng.choice([2, 3])
    first, second = (
        pitch * np.array([np.sin(angle + more), np.cos(angle + more)])
        for more in (0, corner)
    )
    y, x = np.meshgrid(*(np.arange(-side, 2 * side),) * 2, indexing="ij")
    places = np.stack([y, x], -1)
    parts = places @ np.linalg.inv(np.stack([first, second]))
    parts -= np.round(parts)
    away = np.linalg.norm(parts @ np.stack([first, second]), axis=-1)
    discs = ndimage.gaussian_filter((away < 0.3 * pitch).astype(np.float32), 1)
    steps = rng.integers(-2, 3, 2)
    steps[0] = steps[0] or 1
    shift = np.rint(steps @ np.stack([first, second])).astype(int)
    looks = (discs, cases._blurred(1 - 0.7 * discs))
    images = []
    for look, by, name in zip(looks, ((0, 0), shift), ("fixed", "moving"), strict=True):
        low = np.add(side, by)
        part = look[low[0] : low[0] + side, low[1] : low[1] + side]
        counts = rng.uniform(100, 400)
        grey = rng.poisson((0.1 + 0.8 * part) * counts) / counts
        grey = np.clip(np.rint(grey * 230), 0, 255).astype(np.uint8)
        images.append(Micrograph(grey, (pixel, pixel), name))
    return images[1], images[0]


DRAWN = {
    "no-overlap": _no_overlap,
    "blank": _blank,
    "foreign": _foreign,
    "periodic": _periodic,
    "little-overlap": _little_overlap,
}


def measure(task: Task, data: Path, peers: tuple[str, ...]) -> dict:
    """Register a case and say what came of it."""
    drawn = draw(task, data)
    known = isinstance(drawn, cases.Case)
    moving, fixed = (drawn.moving, drawn.read_fixed) if known else drawn
    row = {"name": task.name, **vars(task), "shapes": [moving.shape, fixed.shape]}
    if known:
        row["photons"] = drawn.photons
    model = "elastic" if task.group == "elastic" else "affine"
    options = RegisterOptions(model=model, search=task.search)
    found = None
    start, used = time.perf_counter(), time.process_time()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            found = run(REGISTER.job(moving, fixed, options=options)).registration
        except SemsrError as refusal:
            row |= {"refused": str(refusal), **refusal.to_json()}
    row["seconds"] = round(time.perf_counter() - start, 2)
    row["cpu_seconds"] = round(time.process_time() - used, 2)
    row["warnings"] = [str(item.message) for item in told]
    if found is not None:
        reliable = found.residuals.reliable
        row |= {
            "stated_px": found.error_px,
            "overlap": found.overlap,
            "searched": found.search_name,
            "score": found.score,
            "patches": len(reliable),
            "unreliable": 1 - float(np.mean(reliable)),
            "information": [
                found.mutual_information_before,
                found.mutual_information_after,
            ],
        }
    if known and found is not None:
        row |= _errors(drawn.errors_px(found.transform))
        row["reliable_px"] = _where_reliable(drawn, found)
        row["within"] = _within(drawn, found)
    if task.group == "dwell" and found is not None:
        row |= _agreement(moving, fixed, found)
    row["silent"] = task.group != "dwell" and _is_silent(row, known)
    for peer in peers if known else ():
        start = time.perf_counter()
        try:
            back = PEERS[peer](drawn, found)
            row[peer] = {} if back is None else _errors(_peer_errors(drawn, back))
        except ImportError:
            row[peer] = {"missing": True}
        except Exception as error:  # noqa: BLE001 - a peer may fail in its own way
            row[peer] = {"failed": f"{type(error).__name__}: {error}"}
        row[peer]["seconds"] = round(time.perf_counter() - start, 2)
    return row


def _errors(off: np.ndarray) -> dict[str, float]:
    """Distances in one row."""
    if not off.size:
        return {"rms_px": float("inf"), "median_px": float("inf")}
    return {
        "rms_px": float(np.sqrt(np.mean(off**2))),
        "median_px": float(np.median(off)),
        "p95_px": float(np.percentile(off, 95)),
    }


def _where_reliable(case: cases.Case, found) -> list[float]:
    """Median and 95th percentile at patches that are called reliable."""
    places = found.residuals.places_nm[found.residuals.reliable]
    off = case.truth(found.transform.inverse()(places)) - places
    if not len(off):
        return [0.0, 0.0]
    return [
        float(np.percentile(np.hypot(*off.T), q)) / case.coarser_nm for q in (50, 95)
    ]


def _within(case: cases.Case, found) -> float:
    """Share of the patches where the true place lies in the ellipse of 95 %."""
    places = found.residuals.places_nm
    off = case.truth(found.transform.inverse()(places)) - places
    return float(np.mean(np.hypot(*off.T) <= ELLIPSE * found.residuals.error_nm))


def _agreement(moving: Micrograph, fixed: Micrograph, found) -> dict:
    """Residuals, and the correlation of grey values before and after."""
    off = np.hypot(*found.residuals.off_nm.T) / max(*moving.scale, *fixed.scale)
    row = {"residual_px": float(np.median(off))}
    for name, transform in (("before", Affine()), ("after", found.transform)):
        seen = WarpedImage(moving, Grid.from_image(fixed), transform).read()
        there = np.isfinite(seen)
        both = np.corrcoef(seen[there], fixed.array()[there])
        row[f"correlation_{name}"] = float(both[0, 1])
    return row


def _is_silent(row: dict, known: bool) -> bool:
    """Whether a wrong map was given without a word."""
    if "stated_px" not in row or row["warnings"]:
        return False
    if not known:
        return True
    stated = row["stated_px"]
    return row["rms_px"] > max(2.0, 3 * stated if np.isfinite(stated) else 2.0)


# Peers: each gives a function from places of the fixed image, in nm, to the moving one.


def _alike(case: cases.Case) -> tuple[np.ndarray, np.ndarray]:
    """Both images as 8 bits on pixels of one size, the moving one at its origin."""
    pitch = case.fixed.scale
    pairs = zip(case.moving.shape, case.moving.scale, pitch, strict=True)
    rows, columns = (round(n * own / other) for n, own, other in pairs)
    grid = Grid((rows, columns), pitch, Grid.from_image(case.moving).corner)
    seen = WarpedImage(case.moving, grid, Affine()).read()
    return _filled(seen), _filled(case.fixed.array())


def _filled(image: np.ndarray) -> np.ndarray:
    """Fill gaps with the median, and use the range of 8 bits."""
    known = np.isfinite(image)
    filled = np.where(known, image, np.median(image[known]))
    low, high = np.percentile(image[known], (0.5, 99.5))
    grey = (filled - low) / max(high - low, 1e-6) * 255
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def _peer_errors(case: cases.Case, back) -> np.ndarray:
    """Distances over the overlap between a map back and the true one."""
    rows, columns = (np.linspace(0, n - 1, 41) for n in case.fixed.shape)
    grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    places = grid * case.fixed.scale
    true = case.truth.inverse()(places)
    lies = Grid.from_image(case.moving)
    inside = ((true >= lies.corner) & (true <= lies.end)).all(-1)
    return np.hypot(*(back(places[inside]) - true[inside]).T) / case.coarser_nm


def _by_features(detector, case, found):
    """Register by features, with RANSAC."""
    from skimage.measure import ransac
    from skimage.transform import AffineTransform

    kept = []
    for image in _alike(case):
        detector.detect_and_extract(image)
        kept.append((detector.keypoints, detector.descriptors))
    pairs = feature.match_descriptors(kept[0][1], kept[1][1], cross_check=True)
    if len(pairs) < 4:
        return None
    one, two = (kept[side][0][pairs[:, side]] for side in (0, 1))
    model, inside = ransac(
        (two, one), AffineTransform, 3, residual_threshold=2, max_trials=2000, rng=0
    )
    if model is None or inside is None or inside.sum() < 6:
        return None
    pitch = np.array(case.fixed.scale)
    # centres of the first pixels: that of the fixed image is 0
    first = np.array(Grid.from_image(case.moving).corner) + pitch / 2
    return lambda places: model(places / pitch) * pitch + first


def _elastix(case, found):
    """ITKElastix from where the origins say."""
    moving, fixed = _alike(case)
    first = (
        np.array(Grid.from_image(case.moving).corner) + np.array(case.fixed.scale) / 2
    )
    bent = isinstance(case.truth, Elastic)
    return _by_elastix(moving, fixed, case.fixed.scale, first, bent=bent)


def _elastix_started(case, found):
    """ITKElastix on the image that our map has brought there."""
    if found is None:
        return None
    seen = WarpedImage(case.moving, Grid.from_image(case.fixed), found.transform).read()
    bent = isinstance(case.truth, Elastic)
    rest = _by_elastix(
        _filled(seen),
        _filled(case.fixed.array()),
        case.fixed.scale,
        np.zeros(2),
        bent=bent,
    )
    return lambda places: found.transform.inverse()(rest(places))


def _by_elastix(moving, fixed, pitch, first, *, bent):
    """Give elastix's displacement as a function of places of the fixed image."""
    import itk

    def made(image, origin):
        view = itk.image_view_from_array(np.ascontiguousarray(image, np.float32))
        view.SetSpacing([float(v) for v in pitch[::-1]])
        view.SetOrigin([float(v) for v in origin[::-1]])
        return view

    parameters = itk.ParameterObject.New()
    for stage in ("affine", "bspline") if bent else ("affine",):
        parameters.AddParameterMap(parameters.GetDefaultParameterMap(stage))
    there, here = made(fixed, np.zeros(2)), made(moving, first)
    _, result = itk.elastix_registration_method(
        there, here, parameter_object=parameters, log_to_console=False
    )
    # elastix writes the field into the current folder as well
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        field = np.asarray(itk.transformix_deformation_field(here, result))[..., ::-1]

    def back(places):
        at = (places / np.array(pitch)).T
        moves = [
            ndimage.map_coordinates(field[..., axis], at, order=1, mode="nearest")
            for axis in (0, 1)
        ]
        return places + np.stack(moves, axis=-1)

    return back


PEERS = {
    "orb": partial(_by_features, feature.ORB(n_keypoints=2000)),
    "sift": partial(_by_features, feature.SIFT()),
    "elastix": _elastix,
    "elastix-started": _elastix_started,
}


# What all cases say together.


def summarise(rows: list[dict], peers: tuple[str, ...]) -> list[str]:
    """Say the figures, a line each."""
    lines = []
    for group, search in (("affine", "near"), ("affine", "full"), ("elastic", "near")):
        part = [r for r in rows if r["group"] == group and r["search"] == search]
        if part:
            lines += _group(f"{group} {search}", part)
        for peer in peers if part else ():
            errors = [r.get(peer, {}).get("rms_px", np.inf) for r in part]
            good = np.mean(np.array(errors) <= GOOD_PX)
            lines.append(
                f"    {peer}: median {np.median(errors):.3f} px, "
                f"{good:.1%} to {GOOD_PX} px"
            )
    lines += _dwell([r for r in rows if r["group"] == "dwell"])
    for what in NEGATIVES:
        part = [r for r in rows if r["what"] == what]
        if part:
            ends = Counter(
                r.get("reason", "warned" if r["warnings"] else "map") for r in part
            )
            said = ", ".join(f"{end} {count}" for end, count in ends.most_common())
            lines.append(f"{what}: {len(part)} cases: {said}")
    silent = [r["name"] for r in rows if r["silent"]]
    lines.append(f"silent failures: {len(silent)} of {len(rows)}")
    return lines + [f"    {name}" for name in silent]


def _dwell(rows: list[dict]) -> list[str]:
    """Figures of the pairs without a known map."""
    found = [r for r in rows if "residual_px" in r]
    if not found:
        return [f"dwell: {len(rows)} pairs, none registered"] if rows else []
    off = [r["residual_px"] for r in found]
    risen = [r["correlation_after"] - r["correlation_before"] for r in found]
    refused = len(rows) - len(found)
    said = (
        f"dwell: {len(rows)} pairs, refused {refused}; "
        f"held-out patches: median {np.median(off):.3f} px, worst {max(off):.3f}; "
        f"correlation rises in {np.sum(np.array(risen) > 0)}, "
        f"by {np.median(risen):.3f} (least {min(risen):.3f})"
    )
    return [said]


def _group(name: str, rows: list[dict]) -> list[str]:
    """Figures of the cases that can be registered."""
    found = [r for r in rows if "rms_px" in r]
    refused = len(rows) - len(found)
    lines = [
        f"{name}: {len(rows)} cases, refused {refused} ({refused / len(rows):.1%})"
    ]
    if not found:
        return lines
    errors = np.array([r["rms_px"] for r in found])
    ratio = errors / np.array([r["stated_px"] for r in found])
    seconds = np.array([r["cpu_seconds"] for r in rows])
    lines.append(
        f"    error: median {np.median(errors):.3f} px, "
        f"95 % {np.percentile(errors, 95):.3f}, worst {errors.max():.2f}; "
        f"{np.sum(errors <= GOOD_PX) / len(rows):.1%} of all to {GOOD_PX} px"
    )
    lines.append(
        f"    true over stated: median {np.median(ratio):.2f}, "
        f"95 % {np.percentile(ratio, 95):.2f}; covered {np.mean(ratio <= COVERED):.1%}"
        f"{_by_noise(found, ratio)}; "
        f"of the places {np.mean([r['within'] for r in found]):.1%}"
    )
    lines.append(
        f"    warned {np.mean([bool(r['warnings']) for r in found]):.1%}; "
        f"seconds of processor: median {np.median(seconds):.1f}, "
        f"worst {seconds.max():.1f}"
    )
    if rows[0]["group"] == "elastic":
        middle, high = ([r[k] for r in found] for k in ("median_px", "p95_px"))
        every = list(zip(middle, high, strict=True))
        met = [_is_met(pair) for pair in every]
        besides = [_is_met(r["reliable_px"]) for r in found if "reliable_px" in r]
        lines.append(
            f"    by case: median of medians {np.median(middle):.3f} px, of 95 % "
            f"{np.median(high):.3f}; {np.mean(met):.1%} to 0.35 and 0.9 px, "
            f"{np.mean(besides):.1%} where the map is called reliable"
        )
    return lines


def _by_noise(rows: list[dict], ratio: np.ndarray) -> str:
    """Tell the same of the noisier and of the quieter half of the cases.

    The image with fewer photons tells which.
    """
    counts = np.array([min(r["photons"]) for r in rows])
    noisy = counts <= np.median(counts)
    parts = [np.mean(ratio[part] <= COVERED) for part in (noisy, ~noisy) if part.any()]
    return (
        f" ({' and '.join(f'{share:.1%}' for share in parts)} with more and less noise)"
    )


def _is_met(median_and_p95) -> bool:
    """Whether a bent case is as good as was aimed at."""
    return median_and_p95[0] <= 0.35 and median_and_p95[1] <= 0.9


def _run_all(tasks: list[Task], asked: argparse.Namespace, rows: list[dict]) -> None:
    """Measure what is left, and keep each row."""

    def keep(row: dict) -> None:
        rows.append(row)
        end = row.get("reason") or f"{row.get('rms_px', float('nan')):.3f} px"
        print(f"{len(rows):4d} {row['name']}: {end}, {row['seconds']} s", flush=True)
        if asked.json is not None:
            asked.json.write_text(json.dumps(rows, indent=1, default=float))

    if asked.processes == 1:
        for task in tasks:
            keep(measure(task, asked.data, asked.peers))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(asked.processes, mp_context=context) as pool:
        waiting = [pool.submit(measure, t, asked.data, asked.peers) for t in tasks]
        for done in as_completed(waiting):
            keep(done.result())


def main() -> None:
    """Run what was asked for and print the figures."""

    def listed(text: str) -> tuple[str, ...]:
        return tuple(filter(None, text.split(",")))

    asked = read_options(
        __doc__,
        "--processes=2 --every=1 --json=FILE",
        data={"type": Path, "required": True},
        sets={"type": listed, "default": GROUPS},
        only="",
        peers={"type": listed, "default": ()},
    )
    rows = []
    if asked.json is not None and asked.json.exists():
        rows = json.loads(asked.json.read_text())
    there = {row["name"] for row in rows}
    tasks = [t for t in all_tasks() if t.group in asked.sets and asked.select in t.name]
    tasks = [t for t in tasks[:: asked.every] if t.name not in there]
    _run_all(tasks, asked, rows)
    print("\n".join(summarise(rows, asked.peers)))


if __name__ == "__main__":
    main()
