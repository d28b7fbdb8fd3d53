"""What the default model gains on images it never saw, beside classical peers.

Run: ``python benchmarks/restoration.py`` (needs the images that the recipe names).

PSNR is taken on 8-bit images after an affine match of grey levels to the truth, 16 px
of border left out. Peers: scikit-image's Wiener and Richardson-Lucy, given the true
blur kernel and tuned for each set; the oracle linear filter (21 x 21 taps and an
offset, fitted by least squares to the truth of that very image), which no real filter
reaches.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage, signal
from skimage import restoration

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import run
from napari_semsr.inference.engine import enhance_array
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.models.checkpoint import load_model
from napari_semsr.simulation import degrade as gao
from napari_semsr.training.recipe import load_recipe
from napari_semsr.training.scenes import load_clear

Image = NDArray[np.float64]
BORDER = 16
TAPS = 21
BALANCES = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)
ITERATIONS = (1, 2, 4, 8, 16, 32)


def inner(image: Image) -> Image:
    """Leave out the border."""
    return image[BORDER:-BORDER, BORDER:-BORDER]


def psnr_db(image: Image, truth: Image) -> float:
    """PSNR after an affine match, rounded to 8 bits, border left out."""
    x, y = inner(image).ravel(), inner(truth).ravel()
    gain, offset = np.polyfit(x, y, 1)
    fitted = np.clip(np.rint(gain * x + offset), 0, 255)
    return float(10 * np.log10(255**2 / np.mean((fitted - y) ** 2)))


def true_kernel(kind: str) -> Image:
    """Give the blur of a set, as `degrade` applies it."""
    kernel = gao.gaussian_kernel(gao.BLUR_SIGMA_PX, gao.BLUR_SIZE_PX)
    if kind == "hybrid":
        kernel = signal.convolve(kernel, gao.motion_kernel(gao.MOTION_LENGTH_PX, 0.0))
        kernel = signal.convolve(kernel, gao.disk_kernel(gao.DEFOCUS_RADIUS_PX))
    return np.asarray(kernel)


def oracle(low: Image, truth: Image) -> Image:
    """Best 21 x 21 linear filter with an offset, in hindsight.

    Of a truth on finer pixels each has its own, of as many pixels of the image as it
    is, so that all reach as far in nm.
    """
    half, count = TAPS // 2, TAPS**2 + 1
    scale = truth.shape[0] // low.shape[0]
    windows = sliding_window_view(low / 255, (TAPS, TAPS))
    skip = BORDER - half
    windows = windows[skip : windows.shape[0] - skip, skip : windows.shape[1] - skip]
    shape = windows.shape[:2]
    edge = np.s_[BORDER * scale : -BORDER * scale]
    # each pixel of the image holds scale x scale of the truth
    wanted = truth[edge, edge].reshape(shape[0], scale, shape[1], scale)
    wanted = wanted.transpose(0, 2, 1, 3).reshape(*shape, scale**2)
    normal, right = np.zeros((count, count)), np.zeros((count, scale**2))

    def rows(i: int) -> Image:
        part = windows[i : i + 16].reshape(-1, TAPS**2)
        return np.c_[part, np.ones(len(part))]

    for i in range(0, shape[0], 16):
        part = rows(i)
        normal += part.T @ part
        right += part.T @ wanted[i : i + 16].reshape(-1, scale**2)
    weights = np.linalg.solve(normal + 1e-9 * np.eye(count), right)
    fitted = np.concatenate([rows(i) @ weights for i in range(0, shape[0], 16)])
    fitted = fitted.reshape(*shape, scale, scale).transpose(0, 2, 1, 3)
    result = truth.copy()
    result[edge, edge] = fitted.reshape(shape[0] * scale, shape[1] * scale)
    return result


def tuned(
    method: Callable[[Image, float], Image],
    settings: tuple[float, ...],
    pairs: list[tuple[Image, Image]],
) -> tuple[float, list[float]]:
    """Find the setting of a peer with the best mean over a set, and its scores."""
    scores = {s: [psnr_db(method(low, s), t) for low, t in pairs] for s in settings}
    best = max(scores, key=lambda s: float(np.mean(scores[s])))
    return best, scores[best]


def padded(low: Image) -> Image:
    """Reflect far enough that a peer's Fourier wrap-around stays outside."""
    return np.pad(low / 255, 32, mode="reflect")


def wiener(kernel: Image) -> Callable[[Image, float], Image]:
    """scikit-image's Wiener filter with the true kernel."""

    def apply(low: Image, balance: float) -> Image:
        result = restoration.wiener(padded(low), kernel, balance, clip=False)
        return np.asarray(result[32:-32, 32:-32]) * 255

    return apply


def richardson_lucy(kernel: Image) -> Callable[[Image, float], Image]:
    """scikit-image's Richardson-Lucy with the true kernel."""

    def apply(low: Image, iterations: float) -> Image:
        result = restoration.richardson_lucy(padded(low), kernel, int(iterations))
        return np.asarray(result[32:-32, 32:-32]) * 255

    return apply


def main() -> None:
    """Print the table, and as JSON with ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/sem-restore.yaml"))
    parser.add_argument("--model", default="sem-restore")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument(
        "--airlight", type=float, help="fog level, 0-255; default: mean"
    )
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument(
        "--sigma-px",
        type=float,
        nargs="*",
        default=(),
        help="Gaussian blurs besides the sets, without peers",
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    table = evaluate(arguments)
    if arguments.json:
        print(json.dumps(table))


def evaluate(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Measure every set."""
    recipe = load_recipe(arguments.recipe)
    loaded = load_model(arguments.model)
    root = Path(recipe.data.root)
    clear = []
    for entry in recipe.data.held_out:
        image = load_clear(root, entry)
        y, x = ((n - min(n, arguments.side)) // 2 for n in image.shape)
        crop = image[y : y + arguments.side, x : x + arguments.side]
        clear.append(np.rint(crop * 255))
    table: dict[str, dict[str, float]] = {}
    columns = "degraded   model    gain   worst  wiener      RL  oracle   MP/s"
    print(f"{'set':8s}{columns}   (dB; {len(clear)} images)")
    for kind in gao.KINDS:
        table[kind] = row = measure(kind, clear, loaded, arguments)
        print(f"{kind:8s}" + "".join(f"{v:8.2f}" for v in row.values()), flush=True)
    for sigma in arguments.sigma_px:
        pairs = [(np.rint(ndimage.gaussian_filter(t, sigma)), t) for t in clear]
        name = f"{sigma:g} px"
        table[name], _ = row, _ = gains(pairs, loaded)
        print(f"{name:8s}" + "".join(f"{v:8.2f}" for v in row.values()), flush=True)
    return table


def gains(
    pairs: list[tuple[Image, Image]], loaded: object
) -> tuple[dict[str, float], float]:
    """Mean PSNR of input and model, mean and least gain; and seconds."""
    before = np.array([psnr_db(low, truth) for low, truth in pairs])
    start = time.perf_counter()
    restored = [
        run(
            enhance_array(Micrograph(low.astype(np.uint8)), loaded, EnhanceOptions())  # type: ignore[arg-type]
        ).array()
        for low, _ in pairs
    ]
    seconds = time.perf_counter() - start
    after = [
        psnr_db(r.astype(float), t) for r, (_, t) in zip(restored, pairs, strict=True)
    ]
    gain = np.array(after) - before
    row = {
        "degraded": float(before.mean()),
        "model": float(np.mean(after)),
        "gain": float(gain.mean()),
        "worst": float(gain.min()),
    }
    return row, seconds


def measure(
    kind: gao.Kind, clear: list[Image], loaded: object, arguments: argparse.Namespace
) -> dict[str, float]:
    """One row: mean PSNR of input and model, gains of the model and of the peers."""
    pairs = []
    for index, truth in enumerate(clear):
        low = gao.degrade_plane(
            truth.astype(np.uint8),
            kind,
            seed=arguments.seed + index,
            airlight=arguments.airlight,
        ).image
        pairs.append((low.astype(float), truth))
    row, seconds = gains(pairs, loaded)
    nothing = float("nan")
    row |= dict.fromkeys(("wiener", "richardson_lucy", "oracle"), nothing)
    if not arguments.no_peers:
        kernel = true_kernel(kind)
        _, scores = tuned(wiener(kernel), BALANCES, pairs)
        row["wiener"] = np.mean(scores) - row["degraded"]
        _, scores = tuned(richardson_lucy(kernel), ITERATIONS, pairs)
        row["richardson_lucy"] = np.mean(scores) - row["degraded"]
        row["oracle"] = (
            np.mean([psnr_db(oracle(*p), p[1]) for p in pairs]) - row["degraded"]
        )
    pixels = sum(truth.size for truth in clear)
    return {k: float(v) for k, v in (row | {"mp_s": pixels / seconds / 1e6}).items()}


if __name__ == "__main__":
    main()
