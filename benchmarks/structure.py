"""Measure how often backgrounds pass as structure, and structure as background.

Backgrounds of many kinds of noise, and fields of simulated samples, soft and sharp,
with fresh seeds; real images with ``--data``.
"""

import io
import sys
import time
from collections import defaultdict
from pathlib import Path

import _share_out as shared
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from napari_semsr.io import read
from napari_semsr.restoration.method import read_sample_blocks
from napari_semsr.restoration.structure import has_structure
from napari_semsr.simulation import draw_phantom

Plane = NDArray[np.float64]

BACKGROUNDS = (
    *("white", "counts", "blurred 1", "blurred 2", "blurred 3", "blurred counts"),
    *("resampled linear", "resampled cubic", "binned", "median 3", "median 5"),
    *("gradient", "blurred gradient", "shaded counts", "rows", "columns blurred"),
    *("hot pixels", "blurred hot pixels", "slow lines", "blurred and white", "jpeg"),
    *("blurred jpeg", "total variation", "bilateral"),
)
SAMPLES = "circuit", "particles", "pits", "fracture"


# a branch for each kind
def background(  # noqa: C901, PLR0912, PLR0915
    kind: str, side: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Draw a background of 8 bits."""
    shape = (side, side)
    x = rng.standard_normal(shape)
    y, across = np.mgrid[:side, :side] / side
    words = kind.split()
    if "counts" in words:
        mean = rng.uniform(3, 40)
        if "shaded" in words:
            mean = mean * (1.3 + np.cos(2 * y + across))
        x = rng.poisson(mean, shape) - mean
    if words[0] == "blurred":
        x = ndimage.gaussian_filter(x, float(words[1]) if words[1].isdigit() else 1.5)
    elif words[0] == "resampled":
        large = rng.standard_normal((side + 2, side + 2))
        order = 1 if words[1] == "linear" else 3
        x = ndimage.zoom(large, 1.3, order=order, mode="reflect")[:side, :side]
    elif kind == "binned":
        wide = ndimage.gaussian_filter(rng.standard_normal((2 * side, 2 * side)), 1.5)
        x = wide.reshape(side, 2, side, 2).mean((1, 3))
    elif words[0] == "median":
        x = ndimage.median_filter(x, int(words[1]))
    elif kind == "slow lines":
        x = ndimage.gaussian_filter1d(x, rng.uniform(1, 3), axis=1)
    x = x * rng.uniform(6, 14) / x.std()
    if kind == "columns blurred":
        x = ndimage.gaussian_filter(x, 1.2)
        x = x * 10 / x.std() + rng.normal(0, 6, (1, side))
    elif kind == "rows":
        x = x + rng.normal(0, 8, (side, 1))
    elif kind == "blurred and white":
        x = ndimage.gaussian_filter(x, rng.uniform(1, 3))
        x = x * 10 / x.std() + rng.normal(0, rng.uniform(2, 8), shape)
    elif "gradient" in words:
        if "blurred" in words:
            x = ndimage.gaussian_filter(rng.standard_normal(shape), rng.uniform(1, 3))
            x = x * 10 / x.std()
        x = x * (1 + 0.5 * y) + 60 * (y + 0.5 * across)
    elif "hot" in words:
        for place in rng.integers(0, side, (8, 2)):
            x[tuple(place)] += rng.uniform(60, 120)
    elif kind == "total variation":
        from skimage.restoration import denoise_tv_chambolle

        x = denoise_tv_chambolle(x, weight=0.7 * x.std())
        x = x * 8 / x.std()
    elif kind == "bilateral":
        from skimage.restoration import denoise_bilateral

        scaled = (x - x.min()) / np.ptp(x)
        x = denoise_bilateral(scaled, win_size=5, sigma_color=0.15, sigma_spatial=1.5)
        x = (x - x.mean()) * 8 / x.std()
    grey = np.clip(np.rint(x + 100), 0, 255).astype(np.uint8)
    if words[-1] == "jpeg":
        if words[0] == "blurred":
            x = ndimage.gaussian_filter(rng.standard_normal(shape), 1.2)
            grey = np.rint(100 + 10 * x / x.std()).astype(np.uint8)
        packed = io.BytesIO()
        Image.fromarray(grey).save(packed, "JPEG", quality=int(rng.integers(75, 96)))
        grey = np.asarray(Image.open(packed))
    return grey


def field(
    kind: str, side: int, blur: float, noise: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Draw a sample of 8 bits; `noise` over its range."""
    seed = int(rng.integers(1 << 30))
    sharp = draw_phantom(
        kind, (side, side), seed=seed, pitch_px=float(rng.uniform(10, 24))
    )
    soft = ndimage.gaussian_filter(sharp.astype(float), blur)
    soft = (soft - soft.min()) / np.ptp(soft)
    grey = 40 + 120 * (soft + rng.normal(0, noise, soft.shape))
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def shows(image: NDArray[np.uint8]) -> bool:
    """Whether an image counts as structure."""
    return has_structure(read_sample_blocks(image))


def main() -> int:  # noqa: C901, PLR0912
    """Print the shares of errors by kind."""
    asked = shared.read_options(
        __doc__,
        "--seeds=3 --first=81000000 --data=FILE --sides=96,128,256 --kinds=WORD",
    )
    kinds = asked.kinds.split(",") if asked.kinds else None
    wrong: dict[str, list[str]] = defaultdict(list)
    count: dict[str, int] = defaultdict(int)
    slowest = 0.0

    def judge(kind: str, text: str, image: NDArray[np.uint8], *, right: bool) -> None:
        nonlocal slowest
        begun = time.process_time()
        found = shows(image)
        slowest = max(slowest, time.process_time() - begun)
        count[kind] += 1
        if found is not right:
            wrong[kind].append(text)

    sides = asked.sides
    for number, kind in enumerate(BACKGROUNDS):
        if kinds and kind not in kinds:
            continue
        for side in sides:
            for seed in range(asked.first, asked.first + asked.seeds):
                rng = np.random.default_rng([seed, number, side])
                judge(kind, f"{side}/{seed}", background(kind, side, rng), right=False)
    for number, kind in enumerate(SAMPLES):
        if kinds and kind not in kinds:
            continue
        for side in sides:
            for place, blur in enumerate((0.0, 1.5, 3.0)):
                for noise in (0.02, 0.1, 0.2):
                    rng = np.random.default_rng([asked.first, number, side, place])
                    image = field(kind, side, blur, noise, rng)
                    judge(kind, f"{side}/blur {blur:g}/{noise:g}", image, right=True)
    if asked.data:
        paths = sorted(Path(asked.data).rglob("*.*"))
        for path in paths:
            if path.suffix.lower() not in (".tif", ".png", ".jpg", ".bmp"):
                continue
            try:
                opened = read(path)
            except Exception as error:  # noqa: BLE001 - a colour image, or not one
                print(path.name, error, file=sys.stderr)
                continue
            folder = path.relative_to(asked.data).parts[0]
            judge(folder, path.name, np.asarray(opened.data), right=True)
    for kind, total in count.items():
        print(f"{kind:20} {len(wrong[kind]):3} of {total:3}  {' '.join(wrong[kind])}")
    print(f"slowest {slowest:.2f} s of processor time")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
