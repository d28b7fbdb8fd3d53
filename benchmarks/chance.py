"""Measure how often frames that share nothing are joined.

Unrelated frames, which show different places of one kind of sample, come as scans of
4x4 with stated positions: each has 42 pairs that may touch. Those above the level of
chance in any search are counted.

Goal, set before the first run: one in a thousand unrelated pairs of all kinds together
is joined.
"""

import argparse

import numpy as np
from _shared import ROOT, read_options
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import beta
from skimage import io as skio

from napari_semsr.core import Acquisition
from napari_semsr.core.acquisition import compute_grid_cells
from napari_semsr.stitching.frames import CorrectedFrames, estimate_initial_flat
from napari_semsr.stitching.layout import count_shifts, measure_chance_level
from napari_semsr.stitching.nominal import find_touching_pairs
from napari_semsr.stitching.pairwise import compute_rounded_shift, search_shifts

Image = NDArray[np.float64]
DATA = ROOT.parent / "shared" / "data" / "sem"
LEVEL, CONTRAST = 110.0, 25.0
GRID, PAIRS = (4, 4), 42  # of a scan; pairs of direct and diagonal neighbours


def _scaled(scene: Image) -> Image:
    return LEVEL + CONTRAST * (scene - scene.mean()) / max(float(scene.std()), 1e-9)


def _texture(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> Image:
    return _scaled(ndimage.gaussian_filter(rng.normal(size=shape), sigma))


def _grains(
    rng: np.random.Generator, shape: tuple[int, int], side: int, count: int
) -> Image:
    """Bright grains on a dark ground, `count` on average in a frame."""
    scene = np.zeros(shape)
    total = rng.poisson(count * shape[0] * shape[1] / side**2)
    y, x = (rng.integers(0, n, total) for n in shape)
    spread = rng.choice([0.0, 0.3])
    np.add.at(scene, (y, x), rng.normal(1, spread, total).clip(0.3))
    sigma = rng.uniform(1.5, 4.0)
    scene = ndimage.gaussian_filter(scene, sigma) * 2 * np.pi * sigma**2
    return 50 + 100 * scene


def _circuit(rng: np.random.Generator, shape: tuple[int, int], side: int) -> Image:
    """Conductors of a few widths along both axes."""
    scene = np.zeros(shape)
    for _ in range(int(40 * shape[0] * shape[1] / side**2)):
        y, x = (int(rng.integers(0, n)) for n in shape)
        long, wide = int(rng.uniform(0.1, 0.5) * side), int(rng.choice([4, 6, 10]))
        rows, columns = (long, wide) if rng.random() < 0.5 else (wide, long)
        scene[y : y + rows, x : x + columns] = 1
    return _scaled(ndimage.gaussian_filter(scene, 1))


def _lattice(rng: np.random.Generator, shape: tuple[int, int]) -> Image:
    period, y0, x0 = rng.uniform(10, 30), *rng.uniform(0, 100, 2)
    y, x = np.indices(shape)
    waves = (np.cos(2 * np.pi * (c + c0) / period) for c, c0 in ((y, y0), (x, x0)))
    return _scaled(np.prod([wave.clip(0) for wave in waves], axis=0))


def _lines(rng: np.random.Generator, shape: tuple[int, int]) -> Image:
    """Parallel lines at random distances, in one direction."""
    angle = rng.uniform(0, np.pi)
    y, x = np.indices(shape)
    across = y * np.sin(angle) + x * np.cos(angle)
    profile = ndimage.gaussian_filter1d(rng.normal(size=4 * sum(shape)), 2)
    where = (across - across.min()).ravel()
    return _scaled(np.interp(where, np.arange(profile.size), profile).reshape(shape))


def _photographs(
    rng: np.random.Generator, shape: tuple[int, int], count: int
) -> list[Image]:
    """Cut parts of one real image that have nothing in common."""
    paths = sorted(DATA.glob("*/*.tif")) + sorted(DATA.glob("*/*.png"))
    while True:
        image = skio.imread(paths[rng.integers(len(paths))]).astype(float)
        image = image[..., :3].mean(axis=-1) if image.ndim == 3 else image
        image = image[: int(0.88 * image.shape[0])]  # without a data bar
        corners = [
            (y, x)
            for y in range(0, image.shape[0] - shape[0] + 1, shape[0])
            for x in range(0, image.shape[1] - shape[1] + 1, shape[1])
        ]
        if len(corners) < count:
            continue
        chosen = (corners[k] for k in rng.permutation(len(corners))[:count])
        parts = [image[y : y + shape[0], x : x + shape[1]] for y, x in chosen]
        if min(part.std() for part in parts) > 1:
            return [_scaled(part) for part in parts]


def scene_of(
    kind: str, rng: np.random.Generator, shape: tuple[int, int], side: int
) -> Image:
    """Draw a scene of one kind."""
    name, _, amount = kind.partition("-")
    if name == "grains":
        return _grains(rng, shape, side, int(amount))
    if name == "circuit":
        return _circuit(rng, shape, side)
    if name in ("lattice", "lines"):
        return (_lattice if name == "lattice" else _lines)(rng, shape)
    if name == "noise":
        return np.full(shape, LEVEL)
    if name == "pink":
        return _scaled(sum(_texture(rng, shape, s) for s in (1.0, 2.0, 4.0, 8.0, 16.0)))
    sigma = {"dense": 1.5, "saturated": 2.0}.get(name, rng.uniform(4, 8))
    if name in ("vignetted", "round", "dust"):
        sigma = rng.uniform(1.5, 4)
    return _texture(rng, shape, sigma)


def _camera(kind: str, rng: np.random.Generator, side: int) -> Image:
    """Draw the factor that the camera gives both frames alike."""
    y, x = np.meshgrid(*2 * [np.linspace(-1, 1, side)], indexing="ij")
    if kind == "vignetted":
        return 1 - 0.35 * (y**2 + x**2) + 0.1 * x
    if kind == "round":
        return np.clip(1.05 - 0.8 * (y**2 + x**2), 0, 1)
    if kind == "dust":
        specks = rng.random((side, side)) < 20 / side**2
        return 1 - 5 * ndimage.gaussian_filter(specks * 1.0, 2)
    return np.ones((side, side))


def scan_of(
    kind: str, rng: np.random.Generator, side: int, overlap: float
) -> Acquisition:
    """Draw a scan whose frames have nothing in common."""
    count = GRID[0] * GRID[1]
    clean = (
        _photographs(rng, (side, side), count)
        if kind == "real"
        else [scene_of(kind, rng, (side, side), side) for _ in range(count)]
    )
    frames = np.stack(clean) * _camera(kind, rng, side)
    frames += rng.normal(0, rng.uniform(2, 12), frames.shape)
    if kind == "saturated":
        frames = frames.clip(None, LEVEL + 0.5 * CONTRAST)
    frames = np.rint(frames).clip(0, 255).astype(np.uint8)
    names = tuple(f"{k}" for k in range(count))
    nominal = compute_grid_cells(count, GRID) * round((1 - overlap) * side)
    return Acquisition(frames, names, nominal_px=nominal.astype(float))


def joined_pairs(acquisition: Acquisition) -> tuple[int, int]:
    """Count pairs of unrelated frames above chance in any of a solution's searches.

    Returns these, and those that are known to repeat themselves instead: of them a
    solution decides otherwise. What it takes back later is counted.
    """
    prepared = CorrectedFrames(acquisition, estimate_initial_flat(acquisition))
    nominal = acquisition.nominal_corners()
    side = min(acquisition.frame_shape)
    pairs = find_touching_pairs(nominal, acquisition.frame_shape)
    shifts = [compute_rounded_shift(nominal, pair) for pair in pairs]
    chance = measure_chance_level(prepared, shifts)
    above, repeating = np.zeros((2, len(pairs)), bool)
    for share in (0.1, 0.2, 0.4):
        reach = (max(16, round(share * side)),) * 2
        limit, repeats = chance.compute_threshold(count_shifts(reach), 4.0)
        best = [
            search_shifts(prepared, pair, shift, reach).best_score
            for pair, shift in zip(pairs, shifts, strict=True)
        ]
        (repeating if repeats else above)[np.array(best) > limit] = True
    return int((above & ~repeating).sum()), int(repeating.sum())


def measure_scans(args: argparse.Namespace) -> None:
    """Print how many pairs of unrelated scans are joined, for each kind and together.

    The bound is the exact one of Clopper and Pearson.
    """
    total, pairs = np.zeros(2, int), 0
    for kind in args.kinds.split():
        own = np.zeros(2, int)
        for seed in range(args.scans):
            rng = np.random.default_rng([args.first + seed, *kind.encode()])
            side, overlap = int(rng.choice(args.sides)), rng.choice(args.overlaps)
            own += joined_pairs(scan_of(kind, rng, side, overlap))
        total, pairs = total + own, pairs + PAIRS * args.scans
        joined, repeating = own
        print(f"{kind:11s} joined {joined}, repeating {repeating}", flush=True)
    joined = int(total[0])
    bound = beta.ppf(0.95, joined + 1, pairs - joined)
    print(f"joined {joined} of {pairs} unrelated pairs, below {bound:.3%} (95 %)")


KINDS = (
    "grains-5 grains-9 grains-27 grains-100 dense smooth pink circuit noise real "
    "saturated vignetted round dust lattice lines"
)


def main() -> None:
    """Print one row for each kind."""
    args = read_options(
        __doc__,
        "--sides=128,200,300",
        kinds=(KINDS, "kinds of samples"),
        overlaps=[0.1, 0.2, 0.4],
        first=(1000, "first seed"),
        scans=(5, "of each kind"),
    )
    measure_scans(args)


if __name__ == "__main__":
    main()
