"""The three degradations of Gao et al. (2024): blur, fog, and hybrid blur with fog.

The image is put on a 0-255 scale by its type's range (floats: by their own range),
degraded there, and returned in its own type. Fog is ``I = f t + A (1 - t)`` with
``t = exp(-beta d)``, ``d = 1`` and ``beta`` a smooth random field in [1.5, 2.5].

The paper's ``A = 3`` on the 0-1 scale leaves 16 dB where its Table 1 states 26 dB, and
``A = 3`` on the 0-255 scale leaves 21 dB; the airlight that comes nearest to the table
is the image's own mean, followed by a stretch back to the mean and standard deviation
that the image had before the fog. That reading is the default, and `airlight` takes
any other level. ``benchmarks/fog_readings.py`` prints the comparison.
"""

import functools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from napari_semsr.core import OptionError

Kind = Literal["blur", "fog", "hybrid"]
KINDS: tuple[Kind, ...] = ("blur", "fog", "hybrid")

BETA_RANGE = (1.5, 2.5)  # Gao et al., Methods
BLUR_SIGMA_PX = 1.0  # 7 x 7 kernel, stated
BLUR_SIZE_PX = 7
MOTION_LENGTH_PX = 10.0  # at 0 degrees, stated
DEFOCUS_RADIUS_PX = 5.0  # stated
FOG_SCALE = 1 / 8  # correlation length over the shorter side; chosen


@dataclass(frozen=True, slots=True)
class Degraded:
    """A degraded image and how it was made."""

    image: NDArray[Any]  # (Y, X) Degraded grey values in the input's type
    parameters: dict[str, Any]  # Every number that shaped it


def gaussian_kernel(sigma_px: float, size_px: int) -> NDArray[np.float64]:
    """Gaussian blur kernel, truncated to a square and normalised.

    Parameters
    ----------
    sigma_px : float
        Standard deviation.
    size_px : int
        Odd side of the square.

    Returns
    -------
    (size, size) numpy.ndarray
        Weights that sum to one.
    """
    x = np.arange(size_px) - size_px // 2
    line = np.exp(-0.5 * (x / sigma_px) ** 2)
    kernel = np.outer(line, line)
    return np.asarray(kernel / kernel.sum())


def _from_distance(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cover pixels that a shape's signed distance (negative inside) touches."""
    kernel = np.clip(0.5 - distance, 0, 1)
    return np.asarray(kernel / kernel.sum())


def disk_kernel(radius_px: float) -> NDArray[np.float64]:
    """Out-of-focus blur: a uniform disc with antialiased rim.

    Gives (N, N).
    """
    half = int(np.ceil(radius_px + 0.5))
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    return _from_distance(np.hypot(y, x) - max(radius_px, 0.5))


def motion_kernel(length_px: float, angle_deg: float) -> NDArray[np.float64]:
    """Motion blur: a line one pixel wide.

    Gives (N, N).
    """
    half = int(np.ceil(length_px / 2 + 1))
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    angle = np.deg2rad(angle_deg)
    along = x * np.cos(angle) - y * np.sin(angle)
    across = x * np.sin(angle) + y * np.cos(angle)
    end = np.clip(length_px / 2 + 0.5 - np.abs(along), 0, 1)
    kernel = end * np.clip(1 - np.abs(across), 0, 1)
    return np.asarray(kernel / kernel.sum())


def smooth_field(
    shape: tuple[int, int],
    correlation_px: float,
    rng: np.random.Generator,
    *,
    window: tuple[slice, slice] | None = None,
) -> NDArray[np.float64]:
    """Random field in [0, 1] that varies smoothly.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns.
    correlation_px : float
        Standard deviation of the Gaussian that smooths the noise.
    rng : numpy.random.Generator
        Source of the noise.
    window : tuple of slice, optional
        Part of the field to return; the whole field when not given.

    Returns
    -------
    (Y, X) numpy.ndarray
        Field that spans 0 to 1 over the whole of `shape`.
    """
    step = max(1, int(correlation_px // 4))
    coarse = [int(np.ceil((n - 1) / step)) + 1 for n in shape]
    field = ndimage.gaussian_filter(
        rng.standard_normal(coarse), correlation_px / step, mode="reflect"
    )
    low, high = field.min(), field.max()
    if high <= low:
        field = np.full(shape, 0.5)
        return np.asarray(field if window is None else field[window])
    field = (field - low) / (high - low)
    box = window or (slice(0, shape[0]), slice(0, shape[1]))
    if step == 1:
        return np.asarray(field[box])
    rows, columns = (np.arange(s.start, s.stop) / step for s in box)
    return _interpolated(field, rows, columns)


def _interpolated(
    field: NDArray[np.float64], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Bilinear values on a grid: smooth where knots are a quarter sigma apart."""
    for axis, where in ((0, rows), (1, columns)):
        low = np.minimum(where.astype(int), max(field.shape[axis] - 2, 0))
        high = np.minimum(low + 1, field.shape[axis] - 1)
        share = (where - low).reshape((-1, 1) if axis == 0 else (1, -1))
        field = (
            np.take(field, low, axis) * (1 - share) + np.take(field, high, axis) * share
        )
    return field


def fog(
    image: NDArray[np.float64], beta: NDArray[np.float64] | float, airlight: float
) -> NDArray[np.float64]:
    """Veil an image: ``f exp(-beta) + A (1 - exp(-beta))`` (Gao et al., Methods).

    `image` (Y, X); `beta` (Y, X); gives (Y, X).
    """
    transmission = np.exp(-np.asarray(beta))
    return np.asarray(image * transmission + airlight * (1 - transmission))


def _scale_of(image: NDArray[Any]) -> tuple[float, float]:
    """Grey levels that stand for 0 and 255."""
    if image.dtype.kind == "b":
        return 0.0, 1.0
    if image.dtype.kind in "iu":
        info = np.iinfo(image.dtype)
        return float(max(info.min, 0)), float(info.max)
    low, high = float(np.min(image)), float(np.max(image))
    return (low, high) if high > low else (low, low + 1.0)


def kernels_of(kind: Kind) -> list[NDArray[np.float64]]:
    """Give the blur kernels of a set, in the order in which they are applied.

    Gives (K, L).
    """
    kernels = [gaussian_kernel(BLUR_SIGMA_PX, BLUR_SIZE_PX)]
    if kind == "hybrid":
        kernels += [
            motion_kernel(MOTION_LENGTH_PX, 0.0),
            disk_kernel(DEFOCUS_RADIUS_PX),
        ]
    return kernels


def blur_width_px(kind: Kind) -> float:
    """Give the width of a set's blur, along the axis on which it is wider.

    Parameters
    ----------
    kind : {"blur", "fog", "hybrid"}
        Set A, B or C.

    Returns
    -------
    float
        Width at half maximum of all kernels together.
    """
    kernel = functools.reduce(signal.convolve, kernels_of(kind))
    half = [n // 2 for n in kernel.shape]
    lines = kernel[half[0]], kernel[:, half[1]]
    return max(_width(line) for line in lines)


def _width(line: NDArray[np.float64]) -> float:
    """Width of a profile at half of its maximum, interpolated."""
    level = line.max() / 2
    above = np.flatnonzero(line >= level)
    first, last = int(above[0]), int(above[-1])
    padded = np.pad(line, 1)
    rise = (padded[first + 1] - level) / (padded[first + 1] - padded[first])
    fall = (padded[last + 1] - level) / (padded[last + 1] - padded[last + 2])
    return float(last - first + rise + fall)


def _blurred(image: NDArray[np.float64], kind: Kind) -> NDArray[np.float64]:
    for kernel in kernels_of(kind):
        image = ndimage.convolve(image, kernel, mode="reflect")
    return image


def degrade_plane(
    image: NDArray[Any],
    kind: Kind,
    *,
    seed: int = 0,
    uniform_fog: bool = False,
    airlight: float | None = None,
) -> Degraded:
    """Degrade an image as Gao et al. made their sets A, B and C.

    Parameters
    ----------
    image : (Y, X) numpy.ndarray
        Clear image, any real type, finite.
    kind : {"blur", "fog", "hybrid"}
        Set A (Gaussian), B (Gaussian and fog) or C (Gaussian, motion, defocus, fog).
    seed : int, default=0
        Seed of the fog's field.
    uniform_fog : bool, default=False
        One ``beta`` for the whole image (the middle of the range): a mere affine
        change of grey levels, undone by the stretch.
    airlight : float, optional
        Grey level ``A`` on the 0-255 scale; the image's mean when not given.

    Returns
    -------
    Degraded
        Image in the input's type, rounded and clipped to it, and the parameters.

    Raises
    ------
    OptionError
        If `kind` is unknown or the image has pixels that are not finite.

    References
    ----------
    .. [1] X. Gao et al., Sci. Rep. 14 (2024), Methods, simulated data sets.
    """
    if kind not in KINDS:
        msg = (
            f"The kind of degradation must be one of {', '.join(KINDS)}, got {kind!r}."
        )
        raise OptionError(msg)
    if not np.all(np.isfinite(image)):
        msg = "An image to degrade must be finite, got NaN or Inf pixels; fill them."
        raise OptionError(msg)
    low, high = _scale_of(image)
    clear = (image.astype(float) - low) * (255 / (high - low))
    result = _blurred(clear, kind)
    parameters = _blur_parameters(kind)
    if kind != "blur":
        result, found = _fogged(
            result, seed, uniform_fog=uniform_fog, airlight=airlight
        )
        parameters |= found
    grey = result * ((high - low) / 255) + low
    return Degraded(_quantised(grey, image.dtype), parameters)


def _blur_parameters(kind: Kind) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "gaussian_sigma_px": BLUR_SIGMA_PX,
        "gaussian_size_px": BLUR_SIZE_PX,
    }
    if kind == "hybrid":
        parameters |= {
            "motion_length_px": MOTION_LENGTH_PX,
            "motion_angle_deg": 0.0,
            "defocus_radius_px": DEFOCUS_RADIUS_PX,
        }
    return parameters


def _fogged(
    image: NDArray[np.float64],
    seed: int,
    *,
    uniform_fog: bool,
    airlight: float | None,
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Fog and stretch back to the mean and deviation before."""
    low, high = BETA_RANGE
    level = float(image.mean()) if airlight is None else float(airlight)
    correlation = FOG_SCALE * min(image.shape)
    beta: NDArray[np.float64] | float = (low + high) / 2
    if not uniform_fog:
        rng = np.random.default_rng(seed)
        beta = low + (high - low) * smooth_field(image.shape, correlation, rng)
    veiled = fog(image, beta, level)
    spread = veiled.std()
    gain = image.std() / spread if spread > 0 else 1.0
    parameters = {
        "beta": [low, high] if not uniform_fog else [beta, beta],
        "beta_field": "uniform" if uniform_fog else "smooth random",
        "correlation_px": None if uniform_fog else correlation,
        "airlight": level,
        "depth": 1.0,
        "normalisation": "mean and standard deviation of the blurred image",
        "seed": seed,
    }
    return (veiled - veiled.mean()) * gain + image.mean(), parameters


def _quantised(grey: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind == "b":
        return grey >= 0.5
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return np.clip(np.rint(grey), info.min, info.max).astype(dtype)
    return grey.astype(dtype)
