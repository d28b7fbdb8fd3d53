"""Decide once for a whole field how it is restored; every tile is then treated alike.

What depends on the image (the blur's width, the noise, the weight of smoothness, the
kernel of blind deconvolution) is measured on a few blocks of the field, never on a
tile. A field of any size then goes through tile by tile, in bounded memory.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from napari_semsr.core import (
    Box,
    Float32Array,
    FloatArray,
    FloatPair,
    IntPair,
    Micrograph,
    OptionError,
    Options,
    ReadError,
    Tile,
    TilePlan,
    field_range,
    finite_mean,
    plan_tiles,
    read_box,
)
from napari_semsr.restoration.estimate import Grain, RadialPower, sample_blocks
from napari_semsr.restoration.filters import (
    TV_REACH,
    Taps,
    cls_balance,
    estimate_kernel,
    richardson_lucy,
    smoothing_taps,
    unsupervised_balance,
    wiener_taps,
)
from napari_semsr.restoration.psf import PointSpread, parse_psf

Method = Literal["wiener", "unsupervised-wiener", "richardson-lucy", "blind", "cls"]

_ITERATIONS = 10
"""Iterations of Gao et al.'s blind deconvolution, and of both iterative methods."""


class RestoreOptions(Options):
    """How to restore."""

    method: Method = Field(
        default="wiener",
        description="Wiener filter, the same with unsupervised weights, "
        "Richardson-Lucy, blind deconvolution, constrained least squares",
    )
    psf: str = Field(
        default="estimate",
        description="blur: sigma of a Gaussian with its unit, such as 1.5px or 12nm, "
        "an image file of the kernel, microscope.json of a simulation, or estimate",
    )
    iterations: int = Field(
        default=_ITERATIONS,
        ge=1,
        le=1000,
        description="iterations of richardson-lucy and blind",
    )
    tv: float = Field(
        default=0.0,
        ge=0,
        le=0.2,
        description="weight of total variation in richardson-lucy and blind; "
        "0.002 is usual",
    )
    balance: float | None = Field(
        default=None,
        gt=0,
        description="weight of smoothness in the linear methods; chosen from the "
        "image's noise if not given",
    )
    seed: int = Field(
        default=0, ge=0, description="makes unsupervised-wiener repeatable"
    )
    tile: int | None = Field(
        default=None, ge=32, description="side of a tile in px; 512 if not given"
    )
    dtype: str | None = Field(
        default=None,
        description="type of the grey values in the output; float32 if not given",
    )

    @field_validator("psf")
    @classmethod
    def _readable(cls, value: str) -> str:
        """Refuse what is neither a width, a file name nor a word."""
        try:
            parse_psf(value)
        except OptionError as error:
            raise ValueError(str(error)) from None
        return value


LARGEST_HALO = 160
"""Halo in pixels beyond which iterative methods are cut off, with a tolerance.

Chosen: a tile of 512 px is then read as 832, 2.6 times its pixels; what the cut costs
is measured for each field (`tolerance`).
"""

_SHARPEST_PX = 0.3  # chosen: a Gaussian of less hardly reaches a neighbour
_QUIETEST = 1e-5  # least noise assumed, over the grey range; chosen: else 1 / 0


_TILE = 512  # px; chosen: with the largest halo still below 10 MB of doubles
_PROBE = 48  # px; chosen: the tolerance is measured at the cost of one small tile


@dataclass(frozen=True, slots=True)
class RestoredTile:
    """One restored tile.

    Attributes
    ----------
    tile : Tile
        Where it belongs.
    values : (Y, X) numpy.ndarray of float32
        Grey values of its core; NaN where the input had none.
    """

    tile: Tile
    values: Float32Array


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

    def apply(self, window: NDArray[Any], halo: int | None = None) -> FloatArray:
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
            made = self.taps.apply(values[_inner(values.shape, spare)])
        else:
            made = richardson_lucy(
                np.maximum(values, 0),
                self.psf.kernel,
                iterations=self.options.iterations,
                tv=self.options.tv,
            )[_inner(values.shape, width)]
        return np.asarray(made * span + self.low)

    def plan(self, shape: IntPair) -> TilePlan:
        """Cut a field into tiles.

        Parameters
        ----------
        shape : tuple of int
            Rows and columns.

        Returns
        -------
        TilePlan
            Cores partition the field; windows have the halo.
        """
        core = min(self.options.tile or _TILE, max(shape))
        return plan_tiles(shape, core=core, halo=self.halo)

    def tiles(
        self, data: Any, plan: TilePlan, places: Collection[IntPair] | None = None
    ) -> Iterator[RestoredTile]:
        """Restore a field tile by tile.

        Parameters
        ----------
        data : (Y, X) numpy.ndarray or dask.array.Array
            The field that was measured.
        plan : TilePlan
            From `plan`.
        places : collection of tuple of int, optional
            Rows and columns of the tiles wanted; all when not given.

        Yields
        ------
        RestoredTile
            A tile.
        """
        mean = _mean_of(data)
        for index in [tile.index for tile in plan] if places is None else places:
            tile = plan.tile(*index)
            values = self._restored(data, tile.core, mean, self.halo)
            yield RestoredTile(tile, values)

    def tolerance(self, data: Any, plan: TilePlan) -> float:
        """Measure what a cut-off halo costs, in the middle of the field.

        Parameters
        ----------
        data : (Y, X) numpy.ndarray or dask.array.Array
            The field.
        plan : TilePlan
            Its tiles.

        Returns
        -------
        float
            Largest difference between a corner of a tile and the same pixels with as
            much halo as the method looks far, over the field's range; 0 where tiles are
            exact.
        """
        span = self.high - self.low
        if self.exact or span <= 0:
            return 0.0
        row, column = (n // 2 for n in plan.grid)
        core = plan.tile(row, column).core
        side = min(_PROBE, *core.shape)
        box = Box.of((side, side), core.corner)
        mean = _mean_of(data)
        near = self._restored(data, box, mean, self.halo)
        far = self._restored(data, box, mean, min(self.reach, 3 * self.halo))
        gap = np.abs(near.astype(float) - far)
        return float(np.nanmax(gap, initial=0.0)) / span

    def _restored(self, data: Any, box: Box, mean: float, halo: int) -> Float32Array:
        """Restore a box of a field; beyond its border the field is reflected."""
        window = read_box(data, box.grow(halo))
        if window.dtype.kind != "f":
            return self.apply(window, halo).astype(np.float32)
        missing = ~np.isfinite(window)
        if missing.any():
            window = np.where(missing, mean, window)
        made = self.apply(window, halo).astype(np.float32)
        made[missing[_inner(window.shape, halo)]] = np.nan
        return made


def _mean_of(data: Any) -> float:
    """Give what missing pixels are filled with; only floats can miss any."""
    return finite_mean(data) if np.dtype(data.dtype).kind == "f" else 0.0


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
    rings = RadialPower.of(blocks, micrograph.dtype)
    psf = _known_psf(micrograph, options, kernel)
    flat = high <= low
    if psf is None:
        sigma = _SHARPEST_PX if flat else rings.fit().sigma_px or 0.0
        sigma = max(sigma, _SHARPEST_PX)
        psf = PointSpread.gaussian((sigma, sigma), kind="estimated")
    if options.method == "blind" and not flat:
        psf = _blind_psf(blocks, psf, options, low, high)
    if options.method in ("blind", "richardson-lucy"):
        reach = options.iterations * (2 * psf.radius + (TV_REACH if options.tv else 0))
        halo = min(reach, LARGEST_HALO)
        return Restorer(low, high, psf, options, None, halo, reach, {})
    grain = Grain(1.0, 2.0, 1.0) if flat else rings.fit(psf.kernel)
    noise = max(grain.noise, (_QUIETEST * (high - low)) ** 2)
    grain = Grain(grain.amplitude, grain.exponent, noise)
    taps, chosen = _filter(psf, grain, rings, blocks, options)
    chosen["noise_std"] = float(np.sqrt(noise))
    return Restorer(low, high, psf, options, taps, taps.radius, taps.radius, chosen)


def _extremes(micrograph: Micrograph) -> FloatPair:
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
        return PointSpread.gaussian(choice.sigma_px(micrograph.pixel_size_nm))
    if choice.kind == "file" and kernel is not None:
        return PointSpread.recorded(kernel.array(), kernel.name)
    return None


def _blind_psf(
    blocks: list[FloatArray],
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
    return PointSpread.recorded(kernel, "the estimate", kind="blind")


def _filter(
    psf: PointSpread,
    grain: Grain,
    rings: RadialPower,
    blocks: list[FloatArray],
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
