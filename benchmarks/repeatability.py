"""What `semsr error-map --scans` makes of scans whose noise and drift are known.

    python benchmarks/repeatability.py
    python benchmarks/repeatability.py --pairs FOLDER --rows 429

Drawn: a scene that is smooth over 2.5 px, two scans of it with noise, moved by up to
3 px, the second with another gain; with and without a bright cloud (charging) and a
stretch by 1 % (drift). Printed: error of the noise's and of the rest's standard
deviation, mean ± s.e. over seeds, and the worst. FOLDER holds pairs of images whose
names begin alike, such as ``001_off.tif`` and ``001_50x.tif``; three pixels are cut off
at each side.
"""

import math
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
from _shared import mean_and_error, read_options
from scipy import ndimage

import napari_semsr as semsr
from napari_semsr.core import Micrograph

FIRST_SEED = 20000
SIDE = 384
NOISE = 4.0


def draw(seed: int, kind: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Draw two scans, and the root mean square over √2 of what is not noise."""
    rng = np.random.default_rng(seed)
    wide = SIDE + 40
    seen = 100 + 300 * ndimage.gaussian_filter(rng.normal(size=(wide, wide)), 2.5)
    y, x = np.indices(seen.shape, dtype=float)
    again = seen
    if kind == "stretched":
        again = ndimage.map_coordinates(
            seen, [y + 0.01 * (y - wide / 2), x], order=5, mode="nearest"
        )
    if kind == "charged":
        place = rng.uniform(0.3 * wide, 0.7 * wide, 2)
        apart = (y - place[0]) ** 2 + (x - place[1]) ** 2
        again = seen + 25 * np.exp(-apart / (2 * 30**2))
    inner = np.s_[20:-20, 20:-20]
    rest = float((again - seen)[inner].std()) / math.sqrt(2)
    moved = ndimage.shift(again, rng.uniform(-3, 3, 2), order=5, mode="nearest")
    noise = rng.normal(0, NOISE, (2, SIDE, SIDE))
    if kind == "lines":  # a detector that is slow along them
        noise = ndimage.gaussian_filter1d(noise, 1.0, axis=2)
        noise *= NOISE / noise.std()
    return seen[inner] + noise[0], 1.5 * (moved[inner] + noise[1]) - 20, rest


def drawn(seeds: int) -> None:
    """Print the errors on drawn scans."""
    for kind in ("plain", "lines", "charged", "stretched"):
        noises, rests = [], []
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            first, second, rest = draw(seed, kind)
            found = semsr.error_map(first, second, scans=True)
            noises.append(100 * (found.noise / NOISE - 1))
            rests.append((found.rest, rest))
        made, true = np.array(rests).T
        most = np.abs(made - true).max()
        print(
            f"{kind:10s} noise off by {mean_and_error(noises)} % (worst "
            f"{max(noises, key=abs):+.2f}); rest {mean_and_error(made, '.2f')} of "
            f"{true.mean():.2f} (largest difference {most:.2f} grey levels)"
        )


def read(path: Path, rows: int | None) -> Micrograph:
    """Read an image without its frame and data bar."""
    image = semsr.read(path, colour="luminance")
    return image.replace(data=image.array()[3:rows, 3:-3].astype(np.float32))


def real(folder: Path, rows: int | None) -> None:
    """Print the figures of pairs of images."""
    paths = sorted(folder.glob("*.tif"))
    for one, other in pairwise(paths):
        if one.name.partition("_")[0] != other.name.partition("_")[0]:
            continue
        found = semsr.error_map(read(one, rows), read(other, rows), scans=True)
        print(
            f"{one.name} {other.name}: s.d. {found.sd:.2f} ({found.sd_percent:.1f} %), "
            f"noise {found.noise:.2f}, rest {found.rest:.2f}, noise's share "
            f"{100 * (found.noise_share or 0):.0f} %, moved by {found.shift_text}"
        )


def main() -> None:
    """Print the tables."""
    asked = read_options(__doc__, "--seeds=12 --pairs=FILE --rows=N")
    warnings.simplefilter("ignore")
    if asked.pairs is not None:
        real(asked.pairs, asked.rows)
    else:
        drawn(asked.seeds)


if __name__ == "__main__":
    main()
