"""Decide once for a whole field how it is restored; every tile is then treated alike.

What depends on the image (the blur's width, the noise, the weight of smoothness, the
kernel of blind deconvolution) is measured on a few blocks of the field, never on a
tile.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.errors import ReadError
from napari_semsr.core.intensity import field_range
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.restore.grain import Grain, Rings, measure_rings, sample_blocks
from napari_semsr.restore.iterative import estimate_kernel, reach_of, richardson_lucy
from napari_semsr.restore.linear import (
    Taps,
    apply_taps,
    cls_balance,
    smoothing_taps,
    unsupervised_balance,
    wiener_taps,
)
from napari_semsr.restore.options import RestoreOptions
from napari_semsr.restore.psf import (
    PointSpread,
    gaussian,
    parse_psf,
    recorded,
    sigma_in_px,
)

__all__ = ["LARGEST_HALO", "Restorer", "choose"]

Array = NDArray[np.float64]
LARGEST_HALO = 160
"""Halo in pixels beyond which iterative methods are cut off, with a tolerance."""

_SHARPEST_PX = 0.3
_QUIETEST = 1e-5  # least noise assumed, over the grey range


@dataclass(frozen=True, slots=True)
class Restorer:
    """A restoration, ready to be run on any window of its field.

    Attributes
    ----------
    low, high : float
        Smallest and largest grey value of the field.
    psf : PointSpread
        The blur that is undone.
    options : RestoreOptions
        What was asked for.
    taps : Taps or None
        The filter of a linear method.
    halo : int
        Pixels that a window needs around what is kept of it.
    reach : int
        How far a result looks; more than `halo` where it was cut off.
    chosen : dict
        The numbers measured on the field.
    """

    low: float
    high: float
    psf: PointSpread
    options: RestoreOptions
    taps: Taps | None
    halo: int
    reach: int
    chosen: dict[str, Any]

    @property
    def exact(self) -> bool:
        """Whether a tile equals the same pixels of the whole, rounding apart."""
        return self.reach <= self.halo

    def parameters(self) -> dict[str, Any]:
        """Give every number that shapes the result.

        Returns
        -------
        dict
            Made of what JSON can hold.
        """
        found: dict[str, Any] = {"psf": self.psf.to_json(), **self.chosen}
        if self.taps is None:
            found |= {"iterations": self.options.iterations, "tv": self.options.tv}
        else:
            found["left_out"] = self.taps.left_out
        return {**found, "halo_px": self.halo, "exact": self.exact}

    def apply(self, window: NDArray[Any], halo: int | None = None) -> Array:
        """Restore a window.

        Parameters
        ----------
        window : (Y, X) numpy.ndarray
            Finite grey values with `halo` pixels around what is kept.
        halo : int, optional
            Another width of the halo, not below that of a linear method.

        Returns
        -------
        (Y - 2 halo, X - 2 halo) numpy.ndarray
            Restored grey values, without the halo.
        """
        width = self.halo if halo is None else halo
        span = self.high - self.low
        values = window.astype(float)
        if span <= 0:
            return values[_inner(values.shape, width)]
        values = (values - self.low) / span
        if self.taps is not None:
            spare = width - self.taps.radius
            made = apply_taps(values[_inner(values.shape, spare)], self.taps)
        else:
            made = richardson_lucy(
                np.maximum(values, 0),
                self.psf.kernel,
                iterations=self.options.iterations,
                tv=self.options.tv,
            )[_inner(values.shape, width)]
        return np.asarray(made * span + self.low)


def _inner(shape: tuple[int, ...], width: int) -> tuple[slice, slice]:
    """Index of a window without a border."""
    rows, columns = shape
    return slice(width, rows - width), slice(width, columns - width)


def choose(
    micrograph: Micrograph, options: RestoreOptions, kernel: Micrograph | None = None
) -> Restorer:
    """Measure a field and prepare its restoration.

    Parameters
    ----------
    micrograph : Micrograph
        The field; a few blocks and the extremes are read.
    options : RestoreOptions
        Method and blur.
    kernel : Micrograph, optional
        The blur, where `options` name a file.

    Returns
    -------
    Restorer
        Applies to every window of this field.

    Raises
    ------
    ReadError
        If the field has no finite pixel.
    OptionError
        If the blur cannot be used.
    """
    low, high = _extremes(micrograph)
    blocks = sample_blocks(micrograph.data)
    rings = measure_rings(blocks, micrograph.dtype)
    psf = _known_psf(micrograph, options, kernel)
    flat = high <= low
    if psf is None:
        sigma = _SHARPEST_PX if flat else rings.fit().sigma_px or 0.0
        sigma = max(sigma, _SHARPEST_PX)
        psf = gaussian((sigma, sigma), kind="estimated")
    if options.method == "blind" and not flat:
        psf = _blind_psf(blocks, psf, options, low, high)
    if options.method in ("blind", "richardson-lucy"):
        reach = reach_of(psf.radius, options.iterations, tv=options.tv > 0)
        halo = min(reach, LARGEST_HALO)
        return Restorer(low, high, psf, options, None, halo, reach, {})
    grain = Grain(1.0, 2.0, 1.0) if flat else rings.fit(psf.kernel)
    noise = max(grain.noise, (_QUIETEST * (high - low)) ** 2)
    grain = Grain(grain.amplitude, grain.exponent, noise)
    taps, chosen = _filter(psf, grain, rings, blocks, options)
    chosen["noise_std"] = float(np.sqrt(noise))
    return Restorer(low, high, psf, options, taps, taps.radius, taps.radius, chosen)


def _extremes(micrograph: Micrograph) -> tuple[float, float]:
    """Smallest and largest grey value, of finite pixels."""
    low, high = field_range(micrograph.data, 0, 100)
    if low == high == 0 and _all_missing(micrograph):
        msg = (
            f"An image to restore needs finite pixels, and {micrograph.name} has none."
        )
        raise ReadError(msg)
    return low, high


def _all_missing(micrograph: Micrograph) -> bool:
    """Whether no pixel of a field is finite."""
    step = max(1, (1 << 22) // micrograph.shape[1])
    return not any(
        np.isfinite(np.asarray(micrograph.data[row : row + step])).any()
        for row in range(0, micrograph.shape[0], step)
    )


def _known_psf(
    micrograph: Micrograph, options: RestoreOptions, kernel: Micrograph | None
) -> PointSpread | None:
    """Make the kernel that was asked for; None where it must be estimated."""
    choice = parse_psf(options.psf)
    if choice.kind == "gaussian":
        return gaussian(sigma_in_px(choice, micrograph.pixel_size_nm))
    if choice.kind == "file" and kernel is not None:
        return recorded(kernel.array(), kernel.name)
    return None


def _blind_psf(
    blocks: list[Array],
    start: PointSpread,
    options: RestoreOptions,
    low: float,
    high: float,
) -> PointSpread:
    """Estimate the kernel on the block with the most contrast."""
    block = (max(blocks, key=lambda b: float(b.std())) - low) / (high - low)
    kernel = estimate_kernel(
        np.maximum(block, 0), start.kernel, iterations=options.iterations
    )
    return recorded(kernel, "the estimate", kind="blind")


def _filter(
    psf: PointSpread,
    grain: Grain,
    rings: Rings,
    blocks: list[Array],
    options: RestoreOptions,
) -> tuple[Taps, dict[str, Any]]:
    """Make the filter of a linear method, and say what it rests on."""
    balance = options.balance
    if options.method == "wiener" and balance is None:
        taps = wiener_taps(psf.kernel, grain, rings)
        return taps, {"balance": None, "exponent": grain.exponent}
    if balance is None and options.method == "cls":
        balance = cls_balance(psf.kernel, rings, grain.noise)
    elif balance is None:
        block = max(blocks, key=lambda b: float(b.std()))
        balance = unsupervised_balance(psf.kernel, block, grain.noise, options.seed)
    return smoothing_taps(psf.kernel, balance), {"balance": balance}
