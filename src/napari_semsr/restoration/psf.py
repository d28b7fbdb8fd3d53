"""Point spread functions: kernels with odd sides and weights that sum to one."""

import math
import re
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
from scipy import ndimage

from napari_semsr.core import FloatArray, FloatPair, OptionError, RealArray

_LARGEST = 129  # side of a kernel in pixels; chosen: halos and time grow with it

_WIDTH = re.compile(r"^\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(px|nm)\s*$")
_FLAT = re.compile(r"^\s*flat\s*([0-9]+)\s*px\s*$")
# matches numbers without a unit, with another unit, or below 0
_NUMBER = re.compile(
    r"^\s*[+-]?[0-9.,]+(?:[eE][+-]?[0-9]+)?\s*[a-zA-Z\u00b5\u03bc]*\s*$"
)
_REACH = 4.0  # sigmas at which a Gaussian is truncated: 6e-5 of its weight is beyond
_LOBES = 3  # lobes of the Lanczos kernel
_ROUNDING = 1e-6  # negative weights due to a Fourier convolution; chosen
# Largest fall of a background from the middles of the border to its corners, over its
# level and over the peak above it: a tail of 1 / r^2 falls by 0.47 of its level, and a
# Gaussian cut above two thirds of its peak by 0.26 of what is left of that
_FALL = 0.25


@dataclass(frozen=True, slots=True)
class PsfChoice:
    """Requested point spread function."""

    kind: Literal["gaussian", "flat", "file", "estimate"]  # Source of the kernel
    sigma: float = 0.0  # Standard deviation of a Gaussian in `unit`; 0 for the others
    unit: str = "px"  # Unit of `sigma`
    path: str = ""  # The file; empty for the others
    side: int = 0  # Side of a flat kernel in pixels; 0 for the others


@dataclass(frozen=True, slots=True)
class PointSpreadFunction:
    """A blur kernel and its source."""

    kernel: FloatArray  # (N, M) Weights, odd sides, summing to one
    kind: str  # ``gaussian``, ``flat``, ``file``, ``estimated`` or ``blind``
    sigma_px: FloatPair  # Root mean square width ``(y, x)``
    background: float = 0.0  # Level that was removed, over the peak above it
    # Of a file: ``(y, x)`` of the pixel that a point is blurred from
    origin_px: FloatPair | None = None

    @classmethod
    def from_sigma(cls, sigma_px: FloatPair, *, kind: str = "gaussian") -> Self:
        """Return a Gaussian kernel, truncated at four standard deviations."""
        lines = []
        for sigma in sigma_px:
            reach = max(1, math.ceil(_REACH * sigma))
            if 2 * reach + 1 > _LARGEST:
                most = (_LARGEST // 2) / _REACH
                msg = (
                    f"The sigma of a Gaussian blur must be at most {most:.0f} px, got "
                    f"{sigma:g}."
                )
                raise OptionError(msg, code="out-of-range")
            x = np.arange(-reach, reach + 1)
            # px; chosen: a narrower one is a single pixel in double precision
            lines.append(np.exp(-0.5 * (x / max(sigma, 0.05)) ** 2))
        kernel = np.outer(*lines)
        return cls(kernel / kernel.sum(), kind, (sigma_px[0], sigma_px[1]))

    @classmethod
    def from_image(cls, values: RealArray, name: str, *, kind: str = "file") -> Self:
        """Create a kernel from an image of a point; `values` (N, M).

        The background of a file is removed. Its origin is its centroid, or the middle
        pixel (N // 2, M // 2) if the kernel is not symmetric.
        """
        kernel = np.asarray(values, dtype=float)
        wrong = None
        if kernel.ndim != 2 or max(kernel.shape) > _LARGEST:
            sides = " x ".join(map(str, kernel.shape))
            wrong = f"at most {_LARGEST} x {_LARGEST} px, got {sides}"
        elif not np.isfinite(kernel).all() or kernel.min() < -_ROUNDING * kernel.max():
            wrong = "finite weights of 0 or more, got others"
        elif kernel.sum() <= 0:
            wrong = "weights above 0, got none"
        if wrong is not None:
            msg = f"A blur kernel must have {wrong} in {name}."
            raise OptionError(msg, code="blur-invalid")
        kernel, background, origin = np.maximum(kernel, 0), 0.0, None
        if kind == "file":
            kernel, background = _remove_background(kernel)
            origin = _find_origin(kernel)
        kernel = np.pad(kernel, [(0, 1 - n % 2) for n in kernel.shape])
        kernel = kernel / kernel.sum()
        return cls(kernel, kind, _compute_rms_widths(kernel), background, origin)

    def resample_centred(self, steps: FloatPair = (1.0, 1.0)) -> Self:
        """Resample to pixels `steps` times as large, centred on the origin.

        With Lanczos weights of three lobes, stretched if the new pixels are larger.
        Raises an `OptionError` if the kernel is too wide in them.
        """
        origin = self.origin_px or [n // 2 for n in self.kernel.shape]
        sides = zip(self.kernel.shape, origin, strict=True)
        places = [np.arange(n) - middle for n, middle in sides]
        off = [float(at[0]) + at.size // 2 for at in places]
        # px from the centre, or share of a pixel size; chosen: no visible effect
        if np.allclose([*off, *steps], [0, 0, 1, 1], rtol=0, atol=1e-3):
            return self
        taps, kernel = [], self.kernel
        for axis, (at, step) in enumerate(zip(places, steps, strict=True)):
            widest = _LARGEST // 2
            reach = math.ceil(min(widest, max(1, np.abs(at[[0, -1]]).max() / step)))
            beyond = np.abs(at) > (widest + 0.5) * step
            # weight of a kernel that may be cropped; chosen, as for filters
            if kernel.sum(1 - axis)[beyond].sum() > 1e-3:
                msg = (
                    f"A blur kernel must be at most {_LARGEST} image pixels wide, got "
                    f"{at.size / step:.0f}: use a smaller image of the point."
                )
                raise OptionError(msg, code="blur-invalid")
            far = step * np.arange(-reach, reach + 1)[:, None] - at
            far /= max(step, 1)
            taps.append(np.sinc(far) * np.sinc(far / _LOBES) * (np.abs(far) < _LOBES))
        kernel = np.maximum(taps[0] @ kernel @ taps[1].T, 0)
        kernel /= kernel.sum()
        return replace(self, kernel=kernel, sigma_px=_compute_rms_widths(kernel))

    def to_json(self) -> dict[str, object]:
        """Return a description of the kernel, for JSON."""
        record: dict[str, object] = {
            "kind": self.kind,
            "sigma_px": [round(s, 4) for s in self.sigma_px],
            "size_px": list(self.kernel.shape),
        }
        if self.origin_px is not None:
            record["origin_px"] = [round(place, 4) for place in self.origin_px]
            record["background"] = round(self.background, 6)
        return record


def parse_psf(text: str) -> PsfChoice:
    """Parse ``1.5px``, ``12nm``, ``flat7px``, ``estimate``, or a file name.

    Raises
    ------
    OptionError
        If it is a number without a unit, with another unit, or not positive.
    """
    match = _WIDTH.match(text)
    if match is not None and float(match[1]) > 0:
        return PsfChoice("gaussian", float(match[1]), match[2])
    if match is not None or _NUMBER.match(text) or not text.strip():
        msg = (
            "A blur must be a positive width with its unit, such as 1.5px or 12nm, a "
            f"file, or estimate; got {text!r}"
        )
        raise OptionError(msg, code="unknown-value")
    flat = _FLAT.match(text)
    if flat is not None:
        side = int(flat[1])
        if not 3 <= side <= _LARGEST or side % 2 == 0:
            msg = (
                f"A flat kernel must have an odd side from 3 to {_LARGEST} px, such as "
                f"flat7px; got {text!r}"
            )
            raise OptionError(msg, code="out-of-range")
        return PsfChoice("flat", side=side)
    if text.strip() == "estimate":
        return PsfChoice("estimate")
    return PsfChoice("file", path=text)


def _remove_background(kernel: FloatArray) -> tuple[FloatArray, float]:
    """Subtract a constant from a kernel whose border has one level all along.

    Returns the kernel and the level over the peak above it.
    """
    middles, corners = [], []
    for line in (kernel[0], kernel[-1], kernel[:, 0], kernel[:, -1]):
        start, end = line.size // 4, line.size - line.size // 4
        middles.append(line[start:end])
        corners += [line[:start], line[end:]]
    border = np.concatenate(corners)
    if not border.size or not np.ptp(kernel):  # sides below 4 px are all border
        return kernel, 0.0
    level = float(np.median(border))
    fall = abs(float(np.median(np.concatenate(middles))) - level)
    peak = float(kernel.max()) - level
    # of the peak: an Airy disc has less three widths out; chosen
    if level <= 2e-3 * peak or fall > _FALL * min(level, peak):
        return kernel, 0.0
    noise = 1.4826 * float(np.median(np.abs(border - level)))
    above = kernel - level
    # s.d. of the border below which a weight is noise; chosen
    return np.where(above > 3.0 * noise, above, 0.0), level / peak


def _find_origin(kernel: FloatArray) -> FloatPair:
    """Return the centroid of a symmetric kernel, and the middle pixel of others."""
    lines = (kernel.sum(axis) / kernel.sum() for axis in (1, 0))
    y, x = (-float(_compute_positions(line)[0]) for line in lines)
    rows, columns = np.indices(kernel.shape)
    turned = ndimage.map_coordinates(kernel, [2 * y - rows, 2 * x - columns])
    # weight unlike its point reflection; chosen: a noisy bead has 0.07
    if np.abs(kernel - turned).sum() / 2 <= 0.1 * kernel.sum():
        return y, x
    return kernel.shape[0] // 2, kernel.shape[1] // 2


def _compute_rms_widths(kernel: FloatArray) -> FloatPair:
    """Compute the root mean square widths of a kernel."""
    lines = (kernel.sum(axis) for axis in (1, 0))
    y, x = (float((_compute_positions(line) ** 2 * line).sum()) for line in lines)
    return math.sqrt(y), math.sqrt(x)


def _compute_positions(line: FloatArray) -> FloatArray:
    """Return positions relative to the centroid of weights that sum to one."""
    x = np.arange(line.size)
    return np.asarray(x - float((x * line).sum()))
