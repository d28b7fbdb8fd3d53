"""How restored images are judged, the blur of Gao's sets, and the best linear filter.

PSNR is taken on 8-bit images after an affine match of grey levels to the truth, 16 px
of border left out. The oracle linear filter has 21 x 21 taps and an offset, fitted by
least squares to the truth of that very image: no real filter reaches it.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from _shared import middle
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import signal

from napari_semsr.simulation import degrade as gao
from napari_semsr.training import load_recipe
from napari_semsr.training.scenes import load_clear_image

Image = NDArray[np.float64]
BORDER = 16
TAPS = 21
BAND = 0.05


def inner(image: Image) -> Image:
    """Leave out the border."""
    return image[BORDER:-BORDER, BORDER:-BORDER]


def psnr_db(image: Image, truth: Image) -> float:
    """PSNR after an affine match, rounded to 8 bits, border left out."""
    x, y = inner(image).ravel(), inner(truth).ravel()
    gain, offset = np.polyfit(x, y, 1)
    fitted = np.clip(np.rint(gain * x + offset), 0, 255)
    return float(10 * np.log10(255**2 / np.mean((fitted - y) ** 2)))


def by_frequency(image: Image, truth: Image) -> dict[str, list[float]]:
    """Tell by bands of 0.05 cycles a pixel, from 0.05 on, what is of the truth.

    The share of its amplitude that the image has, and the power of what the image has
    besides, over the truth's; after an affine match, border left out.
    """
    x, y = inner(image), inner(truth)
    gain, _ = np.polyfit(x.ravel(), y.ravel(), 1)
    window = np.outer(*(np.hanning(n) for n in y.shape))
    of, wanted = (np.fft.fft2((i - i.mean()) * window) for i in (gain * x, y))
    along = np.meshgrid(*(np.fft.fftfreq(n) for n in y.shape), indexing="ij")
    band = (np.hypot(*along) / BAND).astype(int)
    kept, drawn = [], []
    for number in range(1, round(0.5 / BAND)):
        one, true = of[band == number], wanted[band == number]
        power = np.sum(np.abs(true) ** 2)
        share = float(np.sum(one * true.conj()).real / power)
        kept.append(round(share, 3))
        drawn.append(round(float(np.sum(np.abs(one - share * true) ** 2) / power), 3))
    return {"kept": kept, "drawn": drawn}


def true_kernel(kind: str) -> Image:
    """Give the blur of a set, as `degrade` applies it."""
    kernel = gao.create_gaussian_kernel(gao.BLUR_SIGMA_PX, gao.BLUR_SIZE_PX)
    if kind == "hybrid":
        kernel = signal.convolve(
            kernel, gao.create_motion_kernel(gao.MOTION_LENGTH_PX, 0.0)
        )
        kernel = signal.convolve(kernel, gao.create_disk_kernel(gao.DEFOCUS_RADIUS_PX))
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
    found = (load_clear_image(Path(data.root), entry) for entry in data.held_out)
    return [np.rint(middle(image, side) * 255).astype(np.uint8) for image in found]
