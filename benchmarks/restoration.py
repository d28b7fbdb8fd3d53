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
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
from _shared import middle, read_options
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage, signal
from skimage import restoration

from napari_semsr.core import Micrograph, run
from napari_semsr.inference import EnhanceOptions, enhance_array
from napari_semsr.models import LoadedModel, load_model
from napari_semsr.simulation import degrade as gao
from napari_semsr.training import load_recipe
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


def least_squares(parts: Iterable[tuple[Image, Image]], small: float) -> Image:
    """Solve for what brings rows nearest to their targets, summed over parts."""
    normal, right = 0.0, 0.0
    for rows, targets in parts:
        normal, right = normal + rows.T @ rows, right + rows.T @ targets
    return np.linalg.solve(normal + small * np.eye(len(normal)), right)


def seen(low: Image) -> Iterable[tuple[slice, Image]]:
    """Give what a filter of 21 x 21 taps and an offset sees, some lines at a time.

    The border is left out.
    """
    windows = sliding_window_view(low, (TAPS, TAPS))
    skip = BORDER - TAPS // 2
    windows = windows[skip : windows.shape[0] - skip, skip : windows.shape[1] - skip]
    for i in range(0, windows.shape[0], 16):
        part = windows[i : i + 16].reshape(-1, TAPS**2)
        yield slice(i, i + 16), np.c_[part, np.ones(len(part))]


def oracle(low: Image, truth: Image) -> Image:
    """Best 21 x 21 linear filter with an offset, in hindsight.

    Of a truth on finer pixels each has its own, of as many pixels of the image as it
    is, so that all reach as far in nm.
    """
    scale = truth.shape[0] // low.shape[0]
    shape = tuple(n - 2 * BORDER for n in low.shape)
    edge = np.s_[BORDER * scale : -BORDER * scale]
    # each pixel of the image holds scale x scale of the truth
    wanted = truth[edge, edge].reshape(shape[0], scale, shape[1], scale)
    wanted = wanted.transpose(0, 2, 1, 3).reshape(*shape, scale**2)
    low = low / 255
    parts = ((rows, wanted[at].reshape(-1, scale**2)) for at, rows in seen(low))
    weights = least_squares(parts, 1e-9)
    fitted = np.concatenate([rows @ weights for _, rows in seen(low)])
    fitted = fitted.reshape(*shape, scale, scale).transpose(0, 2, 1, 3)
    result = truth.copy()
    result[edge, edge] = fitted.reshape(shape[0] * scale, shape[1] * scale)
    return result


def clear_images(recipe: Path, side: int) -> list[NDArray[np.uint8]]:
    """Read the middles of the held-out images, 8-bit."""
    data = load_recipe(recipe).data
    found = (load_clear(Path(data.root), entry) for entry in data.held_out)
    return [np.rint(middle(image, side) * 255).astype(np.uint8) for image in found]


def tuned(
    method: Callable[[Image, float], Image],
    settings: tuple[float, ...],
    pairs: list[tuple[Image, Image]],
) -> tuple[float, list[float]]:
    """Find the setting of a peer with the best mean over a set, and its scores."""
    scores = {s: [psnr_db(method(low, s), t) for low, t in pairs] for s in settings}
    best = max(scores, key=lambda s: float(np.mean(scores[s])))
    return best, scores[best]


def peers(kernel: Image) -> dict[str, tuple[Callable[..., Image], tuple[float, ...]]]:
    """Give scikit-image's methods with the true kernel, and the settings to try."""

    def padded(low: Image, method: Callable[[Image], Image]) -> Image:
        """Reflect so far that the wrap-around of a Fourier transform stays outside."""
        return (
            np.asarray(method(np.pad(low / 255, 32, mode="reflect")))[32:-32, 32:-32]
            * 255
        )

    def wiener(low: Image, balance: float) -> Image:
        return padded(low, lambda x: restoration.wiener(x, kernel, balance, clip=False))

    def richardson_lucy(low: Image, count: float) -> Image:
        return padded(low, lambda x: restoration.richardson_lucy(x, kernel, int(count)))

    return {
        "wiener": (wiener, BALANCES),
        "richardson_lucy": (richardson_lucy, ITERATIONS),
    }


def main() -> None:
    """Print the table, and as JSON with ``--json``."""
    arguments = read_options(
        __doc__,
        "--model=sem-restore --side=512 --seed=100 --no-peers --json",
        recipe=Path("recipes/sem-restore.yaml"),
        airlight=(float, "fog level, 0-255; default: mean"),
        sigma_px=(
            {"type": float, "nargs": "*", "default": ()},
            "Gaussian blurs besides the sets, without peers",
        ),
    )
    table = evaluate(arguments)
    if arguments.json:
        print(json.dumps(table))


def evaluate(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Measure every set."""
    loaded = load_model(arguments.model)
    clear = [c.astype(float) for c in clear_images(arguments.recipe, arguments.side)]
    table: dict[str, dict[str, float]] = {}
    columns = "degraded   model    gain   worst  wiener      RL  oracle   MP/s"
    print(f"{'set':8s}{columns}   (dB; {len(clear)} images)")
    cases = {kind: partial(measure, kind) for kind in gao.KINDS}
    cases |= {f"{sigma:g} px": partial(softened, sigma) for sigma in arguments.sigma_px}
    for name, case in cases.items():
        table[name] = row = case(clear, loaded, arguments)
        print(f"{name:8s}" + "".join(f"{v:8.2f}" for v in row.values()), flush=True)
    return table


def softened(
    sigma: float, clear: list[Image], loaded: LoadedModel, _: argparse.Namespace
) -> dict[str, float]:
    """One row of a Gaussian blur."""
    pairs = [(np.rint(ndimage.gaussian_filter(t, sigma)), t) for t in clear]
    return gains(pairs, loaded)[0]


def gains(
    pairs: list[tuple[Image, Image]], loaded: LoadedModel
) -> tuple[dict[str, float], float]:
    """Mean PSNR of input and model, mean and least gain; and seconds."""
    before = np.array([psnr_db(low, truth) for low, truth in pairs])
    start = time.perf_counter()
    restored = [
        run(enhance_array(Micrograph(low.astype(np.uint8)), loaded, EnhanceOptions()))
        for low, _ in pairs
    ]
    seconds = time.perf_counter() - start
    after = [
        psnr_db(r.array().astype(float), t)
        for r, (_, t) in zip(restored, pairs, strict=True)
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
    kind: gao.Kind, clear: list[Image], loaded: LoadedModel, asked: argparse.Namespace
) -> dict[str, float]:
    """One row: mean PSNR of input and model, gains of the model and of the peers."""
    pairs = []
    for index, truth in enumerate(clear):
        seed, level = asked.seed + index, asked.airlight
        made = gao.degrade_plane(
            truth.astype(np.uint8), kind, seed=seed, airlight=level
        )
        pairs.append((made.image.astype(float), truth))
    row, seconds = gains(pairs, loaded)
    row |= dict.fromkeys(("wiener", "richardson_lucy", "oracle"), float("nan"))
    if not asked.no_peers:
        for name, (method, settings) in peers(true_kernel(kind)).items():
            row[name] = np.mean(tuned(method, settings, pairs)[1]) - row["degraded"]
        best = [psnr_db(oracle(low, truth), truth) for low, truth in pairs]
        row["oracle"] = np.mean(best) - row["degraded"]
    row["mp_s"] = sum(truth.size for truth in clear) / seconds / 1e6
    return {k: float(v) for k, v in row.items()}


if __name__ == "__main__":
    main()
