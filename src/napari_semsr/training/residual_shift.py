"""What part of a pixel a truth still lies off: two scans are registered no better.

A truth is moved onto an image by steps of Gauss and Newton, both smoothed, and not by
what makes the error least: an interpolated truth is smoother, and half a pixel would be
best for that alone.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

_LOBES = 3  # of Lanczos's kernel
_STEPS = 2  # chosen: the second changes the shift by some hundredths of a pixel
_SIGMA_PX = 1.5  # chosen: finer is noise, which tells no place
_RIDGE = 1e-3  # of the gradients' power: flat patches stay where they are
_BORDER = 4  # where both are padded


@torch.no_grad()
def moved_onto(truth: Tensor, image: Tensor, most_px: float) -> Tensor:
    """Move truths onto images; by at most `most_px` along each axis; no gradients.

    `truth`, `image` (B, 1, H, W); gives (B, 1, H, W).
    """
    if most_px == 0:
        return truth
    seen = _smoothed(image)
    down, across = torch.gradient(seen, dim=(-2, -1))
    slopes = _inner(torch.cat([down, across], 1)).flatten(2)
    power = slopes @ slopes.transpose(1, 2)
    ridge = _RIDGE * power.diagonal(dim1=1, dim2=2).sum(-1) + torch.finfo().tiny
    power = power + ridge[:, None, None] * torch.eye(2).to(power)
    shift = truth.new_zeros(len(truth), 2)
    moved = truth
    for _ in range(_STEPS):
        apart = _inner(_smoothed(moved) - seen).flatten(2)
        apart = apart - apart.mean(-1, keepdim=True)
        step = torch.linalg.solve(power, slopes @ apart.transpose(1, 2))[..., 0]
        shift = (shift + step).clamp(-most_px, most_px)
        moved = _moved(truth, shift)
    return moved


def _inner(x: Tensor) -> Tensor:
    """Leave out the border."""
    return x[..., _BORDER:-_BORDER, _BORDER:-_BORDER]


def _moved(x: Tensor, shift: Tensor) -> Tensor:
    """Move images (B, 1, H, W) by (B, 2) pixels, with Lanczos's kernel."""
    reach = _LOBES + 1
    at = torch.arange(-reach, reach + 1).to(x) + shift[..., None]
    taps = torch.sinc(at) * torch.sinc(at / _LOBES) * (at.abs() < _LOBES)
    taps = (taps / taps.sum(-1, keepdim=True))[:, :, None]
    return _convolved(x, taps[:, 0, :, :, None], taps[:, 1, :, None])


def _smoothed(x: Tensor) -> Tensor:
    """Blur images (B, 1, H, W)."""
    taps = _gaussian().to(x).expand(len(x), 1, -1)
    return _convolved(x, taps[..., None], taps[:, :, None])


@lru_cache(maxsize=1)
def _gaussian() -> Tensor:
    places = torch.arange(-_BORDER, _BORDER + 1) / _SIGMA_PX
    taps = torch.exp(-(places**2) / 2)
    return taps / taps.sum()


def _convolved(x: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Convolve each image with two kernels of its own, (B, 1, K, 1), (B, 1, 1, K)."""
    half, count = across.shape[-1] // 2, len(x)
    wide = functional.pad(x, (half, half, half, half), mode="replicate")
    flat = wide.transpose(0, 1)
    for taps in (down, across):
        flat = functional.conv2d(flat, taps, groups=count)
    return flat.transpose(0, 1)
