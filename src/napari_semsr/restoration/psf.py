"""Point spread functions: kernels with odd sides and weights that sum to one."""

import math
import re
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np

from napari_semsr.core import FloatArray, FloatPair, OptionError, PixelSize, RealArray

_LARGEST = 129  # side of a kernel in pixels; chosen: halos and time grow with it

_WIDTH = re.compile(r"^\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(px|nm)\s*$")
_FLAT = re.compile(r"^\s*flat\s*([0-9]+)\s*px\s*$")
# matches numbers without a unit, with another unit, or below 0
_NUMBER = re.compile(
    r"^\s*[+-]?[0-9.,]+(?:[eE][+-]?[0-9]+)?\s*[a-zA-Z\u00b5\u03bc]*\s*$"
)
_REACH = 4.0  # sigmas at which a Gaussian is truncated: 6e-5 of its weight is beyond
_SHARPEST = 0.05  # px; chosen: a narrower one is a single pixel in double precision
_ALIKE = 1e-3  # px from the centre, or share of a pixel size; chosen: no visible effect
_BEYOND = 1e-3  # weight of a kernel that may be cropped; chosen, as for filters
_LOBES = 3  # lobes of the Lanczos kernel
_ROUNDING = 1e-6  # negative weights due to a Fourier convolution; chosen


@dataclass(frozen=True, slots=True)
class PsfChoice:
    """Requested point spread function."""

    kind: Literal["gaussian", "flat", "file", "estimate"]  # Source of the kernel
    sigma: float = 0.0  # Standard deviation of a Gaussian in `unit`; 0 for the others
    unit: str = "px"  # Unit of `sigma`
    path: str = ""  # The file; empty for the others
    side: int = 0  # Side of a flat kernel in pixels; 0 for the others

    def compute_sigma_px(self, pixel_size: PixelSize | None) -> FloatPair:
        """Convert the width of a Gaussian to pixels, ``(y, x)``."""
        if self.unit == "px":
            return self.sigma, self.sigma
        if pixel_size is None:
            msg = (
                f"A blur of {self.sigma:g} nm needs an image with a pixel size, but "
                "this image has none: set `pixel_size_nm`, or give the blur in px."
            )
            raise OptionError(msg, code="pixel-size-missing")
        return self.sigma / pixel_size[0], self.sigma / pixel_size[1]


@dataclass(frozen=True, slots=True)
class PointSpreadFunction:
    """A blur kernel and its source."""

    kernel: FloatArray  # (N, M) Weights, odd sides, summing to one
    kind: str  # ``gaussian``, ``flat``, ``file``, ``estimated`` or ``blind``
    sigma_px: FloatPair  # Root mean square width ``(y, x)``

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
            lines.append(np.exp(-0.5 * (x / max(sigma, _SHARPEST)) ** 2))
        kernel = np.outer(*lines)
        return cls(kernel / kernel.sum(), kind, (sigma_px[0], sigma_px[1]))

    @classmethod
    def from_image(cls, values: RealArray, name: str, *, kind: str = "file") -> Self:
        """Create a kernel from an image of a point; `values` (N, M)."""
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
        kernel = np.maximum(kernel, 0)
        kernel = np.pad(kernel, [(0, 1 - n % 2) for n in kernel.shape])
        kernel = kernel / kernel.sum()
        return cls(kernel, kind, _compute_rms_widths(kernel))

    def resample_centred(self, steps: FloatPair = (1.0, 1.0)) -> Self:
        """Resample to pixels `steps` times as large, centred on the centroid.

        With Lanczos weights of three lobes, stretched if the new pixels are larger.
        Raises an `OptionError` if the kernel is too wide in them.
        """
        places = [_compute_positions(self.kernel.sum(axis)) for axis in (1, 0)]
        off = [float(at[0]) + at.size // 2 for at in places]
        if np.allclose([*off, *steps], [0, 0, 1, 1], rtol=0, atol=_ALIKE):
            return self
        taps, kernel = [], self.kernel
        for axis, (at, step) in enumerate(zip(places, steps, strict=True)):
            widest = _LARGEST // 2
            reach = math.ceil(min(widest, max(1, np.abs(at[[0, -1]]).max() / step)))
            beyond = np.abs(at) > (widest + 0.5) * step
            if kernel.sum(1 - axis)[beyond].sum() > _BEYOND:
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

    @property
    def radius(self) -> int:
        """Radius of the kernel in pixels."""
        return int(max(self.kernel.shape)) // 2

    def to_json(self) -> dict[str, object]:
        """Return a description of the kernel, for JSON."""
        return {
            "kind": self.kind,
            "sigma_px": [round(s, 4) for s in self.sigma_px],
            "size_px": list(self.kernel.shape),
        }


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


def _compute_rms_widths(kernel: FloatArray) -> FloatPair:
    """Compute the root mean square widths of a kernel."""
    widths: list[float] = []
    for axis in (1, 0):
        line = kernel.sum(axis)
        widths.append(math.sqrt(float((_compute_positions(line) ** 2 * line).sum())))
    return widths[0], widths[1]


def _compute_positions(line: FloatArray) -> FloatArray:
    """Return positions relative to the centroid of weights that sum to one."""
    x = np.arange(line.size)
    return np.asarray(x - float((x * line).sum()))
