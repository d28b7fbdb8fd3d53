"""Image quality: PSNR, SSIM and NRMSE against a reference; AG, CON and SF without one.

Every figure states the data range it is based on. Grey levels are compared unchanged
unless an affine match is requested.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import numpy as np
import scipy  # the submodules are loaded lazily
from numpy.typing import NDArray

from napari_semsr import core
from napari_semsr.analysis import frc
from napari_semsr.analysis.light import CutOff, find_cut_off, split_frequencies

# Grey-level distributions and the distance between two of them.

_SHORT = 2  # bytes of a grey value; chosen: one table counts all 65 536 levels


_PIXELS = "% of the pixels"


@dataclass(frozen=True, slots=True)
class Histogram:
    """Grey-level histogram of an image, and of a reference with the same bins.

    `emd` is the earth mover's distance of all pixel values, not of the bins; None
    without a reference. `missing_percent` counts pixels that are not finite, and
    `saturated_percent` those at the maximum of an integer type or its bit depth; None
    for other types.
    """

    # (N + 1,) Edges in grey levels; the last bin includes its right one
    bins: core.FloatArray
    counts: NDArray[np.int64]
    reference_counts: NDArray[np.int64] | None
    mean: Annotated[float, core.Quantity("Mean grey level", core.LEVELS, method="")]
    sd: Annotated[float, core.Quantity("Standard deviation", core.LEVELS, method="")]
    median: Annotated[float, core.Quantity("Median grey level", core.LEVELS, method="")]
    lowest: Annotated[float, core.Quantity("Lowest grey level", core.LEVELS, method="")]
    highest: Annotated[
        float, core.Quantity("Highest grey level", core.LEVELS, method="")
    ]
    emd: Annotated[
        float | None, core.Quantity("Distance of grey levels", core.LEVELS, method="")
    ]
    missing_percent: Annotated[
        float, core.declare_quantity("Without a grey level", _PIXELS, method="")
    ]
    saturated_percent: Annotated[
        float | None, core.declare_quantity("Saturated", _PIXELS, method="")
    ]


def _read_finite_pixels(m: core.Micrograph) -> NDArray[np.generic]:
    """Return the finite pixels of an image, flattened."""
    values: NDArray[np.generic] = m.array().ravel()
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    if not values.size:
        msg = f"A histogram needs at least one finite pixel, but {m.name} has none."
        raise core.ReadError(msg, code="no-finite-values")
    return values


def earth_movers_distance(
    first: NDArray[np.generic], second: NDArray[np.generic]
) -> float:
    """Compute the mean grey-level shift that turns one distribution into the other.

    `first`, `second` (N,). Special cases are handled, in which SciPy's function takes
    two to four times as long.
    """
    types = first.dtype, second.dtype
    if all(one.kind in "ui" and one.itemsize <= _SHORT for one in types):
        low = int(min(first.min(), second.min()))
        size = int(max(first.max(), second.max())) - low + 1
        shares = [
            np.cumsum(np.bincount(v.astype(np.int64) - low, minlength=size)) / v.size
            for v in (first, second)
        ]
        return float(np.abs(shares[0] - shares[1]).sum())
    if first.size != second.size:
        from scipy.stats import wasserstein_distance  # slow to import

        return float(wasserstein_distance(first, second))
    one, two = (np.sort(v.astype(np.float64)) for v in (first, second))
    return float(np.abs(one - two).mean())


def measure_histogram(
    image: core.Micrograph, reference: core.Micrograph | None = None, *, bins: int = 256
) -> Histogram:
    """Compute the grey-level histogram and its distance to a reference histogram.

    Pixels that are not finite are ignored; the reference may have any shape. Integer
    images get bins of whole grey levels, possibly fewer than `bins`.
    """
    values = _read_finite_pixels(image)
    other = None if reference is None else _read_finite_pixels(reference)
    parts = [values] if other is None else [values, other]
    low = float(min(part.min() for part in parts))
    high = float(max(part.max() for part in parts))
    if all(part.dtype.kind in "ui" for part in parts):  # whole levels
        width = max(1.0, np.ceil((high - low + 1) / bins))
        count = int(np.ceil((high - low + 1) / width))
        edges = low - 0.5 + width * np.arange(count + 1)
    else:
        if high <= low:
            low, high = low - 0.5, high + 0.5
        edges = np.linspace(low, high, bins + 1)
    top, share = values.max(), None
    if values.dtype.kind in "ui":
        is_top = core.is_white(float(top), values.dtype, image.significant_bits)
        share = 100 * float(np.mean(values == top)) if is_top else 0.0
    return Histogram(
        edges,
        np.histogram(values, edges)[0].astype(np.int64),
        None if other is None else np.histogram(other, edges)[0].astype(np.int64),
        mean=float(values.mean(dtype=np.float64)),
        sd=float(values.std(dtype=np.float64)),
        median=float(np.median(values.astype(np.float64))),
        lowest=float(values.min()),
        highest=float(values.max()),
        emd=None if other is None else earth_movers_distance(values, other),
        missing_percent=100 * (1 - values.size / math.prod(image.shape)),
        saturated_percent=share,
    )


RangeSource = Literal["given", "file", "type", "values"]
_USER_SOURCE: RangeSource = "given"
"""Source of a data range: the user, the file's bit depth, the data type, or the values.
"""

# Window of SSIM: 11 x 11 px, sigma 1.5 px (Wang et al. 2004, cited below).
_BORDER = 5
_SIGMA = 1.5

# 8 bits, as in Gao's paper, so that AG, CON and SF can be compared with its own.
_FULL_SCALE = 255.0
_PROPORTION = 1e12  # chosen: beyond any grey scale, but squares do not overflow


class MetricsOptions(core.Options):
    """Options for comparing two images."""

    data_range: float | None = core.option(
        None,
        "Range",
        "Data range for PSNR and SSIM; by default taken from the bit depth stated in "
        "the file, otherwise 255 for 8-bit images, 65535 for 16-bit images, or the "
        "span of the reference.",
        unit=core.LEVELS,
        gt=0,
    )
    match: Literal["affine"] | None = core.option(
        None,
        "Grey levels",
        "Fit gain and offset before the comparison.",
        choices={"as they are": None, "fit gain and offset": "affine"},
    )
    cut_off_nm: CutOff = None
    bins: int = core.option(
        256, "Histogram bins", "Number of grey-level bins.", ge=2, le=65536
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Similarity of an image to a reference, its sharpness, and the data range used.

    `ssim_gao` has K₂ = 0.02. `average_gradient`, `contrast` and `spatial_frequency` are
    those of the image itself, unmatched, on the scale where the data range is 255.
    `gain` and `offset` are those of the match. PSNR on both sides of the cut-off uses
    the gain that fits below it (see `split_frequencies`); `psnr_above_blank_db` is that
    of an image without frequencies above it. `band_errors` are squared errors below and
    above, over the data range, as from `sum_section_errors`. `levels` is the histogram
    of grey levels, if requested.
    """

    psnr_db: Annotated[
        float | None,
        core.Quantity(
            *("PSNR", core.DB, ".2f"),
            reason="missing_psnr_reason",
            verdict="relative_error_text",
            large=True,
        ),
    ] = None
    ssim: Annotated[
        float | None, core.Quantity("SSIM", "", ".4f", reason="missing_ssim_reason")
    ] = None
    ssim_gao: Annotated[
        float | None, core.declare_quantity("SSIM, K₂ = 0.02", "", ".4f")
    ] = None
    nrmse: Annotated[float | None, core.Quantity("NRMSE", "", ".4f")] = None
    cut_off_nm: Annotated[float | None, core.Quantity("Optical cut-off", "nm")] = None
    psnr_below_db: Annotated[
        float | None, core.Quantity("PSNR below the optical cut-off", core.DB, ".2f")
    ] = None
    psnr_above_db: Annotated[
        float | None, core.Quantity("PSNR above the optical cut-off", core.DB, ".2f")
    ] = None
    psnr_above_blank_db: Annotated[
        float | None,
        core.Quantity("PSNR above it of an image without detail", core.DB, ".2f"),
    ] = None
    average_gradient: Annotated[float, core.Quantity("Average gradient")]
    contrast: Annotated[float, core.Quantity("Contrast")]
    spatial_frequency: Annotated[float, core.Quantity("Spatial frequency")]
    data_range: Annotated[
        float, core.Quantity("Data range", core.LEVELS, verdict="data_range_basis")
    ]
    data_range_from: Annotated[RangeSource, core.Quantity("Stated by", shown=False)] = (
        "given"
    )
    match: str | None = None
    gain: Annotated[float, core.Quantity("Gain", shown=False)] = 1.0
    offset: Annotated[float, core.Quantity("Offset", core.LEVELS, shown=False)] = 0.0
    identical: Annotated[bool, core.Quantity("Identical", shown=False)] = False
    band_errors: tuple[core.FloatArray, core.FloatArray] | None = field(
        default=None, repr=False, compare=False, metadata={"json": False}
    )
    levels: Histogram | None = field(
        default=None, repr=False, compare=False, metadata=core.FLAT
    )
    # Measured pixels ``(y0, x0, y1, x1)`` of an image with gaps
    box: Annotated[core.BoxEnds | None, core.declare_quantity("Box", "px")] = None

    measured_in = property(core.describe_measured_box)

    @property
    def match_text(
        self,
    ) -> Annotated[str | None, core.Quantity("Matched", tabled=False)]:
        """Gain and offset fitted before the comparison, as text."""
        if self.match is None:
            return None
        return f"gain {self.gain:.4g}, offset {self.offset:.4g} {core.LEVELS}"

    @property
    def data_range_basis(self) -> str:
        """Source of the data range, as text."""
        return {
            "given": "as set",
            "file": f"{math.log2(self.data_range + 1):.0f} bits, as stated in the file",
            "type": "assumed: full scale of the type",
            "values": "span of the values, as their type has no full scale",
        }[self.data_range_from]

    @property
    def relative_error_text(self) -> str | None:
        """PSNR expressed as a relative error, as text."""
        if self.psnr_db is None:
            return None
        share = 100 * 10 ** (-self.psnr_db / 20)
        scale = core.format_number(self.data_range, ".6g")
        return (
            f"RMS error of {share:.2g} % of the data range, {scale} "
            f"({self.data_range_basis})"
        )

    @property
    def method(self) -> Annotated[str, core.declare_quantity("Method")]:
        """Data range, match of grey levels and cut-off, as text."""
        scale = f"{core.format_number(self.data_range)} ({self.data_range_basis})"
        parts = [f"data range {scale}"]
        if self.match is not None:
            fit = f"gain {self.gain:.4g} and offset {self.offset:.4g}"
            parts.append(f"grey levels first matched with {fit}")
        elif self.psnr_db is not None:
            parts.append("grey levels unchanged")
        if self.cut_off_nm is not None:
            parts.append(f"optical cut-off {self.cut_off_nm:.4g} nm")
        return "; ".join(parts)

    @property
    def missing_psnr_reason(
        self,
    ) -> Annotated[
        str | None, core.Quantity("Why PSNR is missing", shown=False, tabled=False)
    ]:
        """Reason for a missing value despite a reference."""
        return "infinite: all pixels are equal" if self.identical else None

    @property
    def missing_ssim_reason(
        self,
    ) -> Annotated[
        str | None, core.Quantity("Why SSIM is missing", shown=False, tabled=False)
    ]:
        """Reason for a missing value despite a reference."""
        was_compared = self.psnr_db is not None or self.identical
        small = was_compared and self.ssim is None
        why = "the images are smaller than 11 px, or every window of 11 px has gaps"
        return why if small else None


def _remove_missing_pixels(values: core.FloatArray) -> core.FloatArray:
    """Return the finite pixels (N,), or the array itself if all pixels are finite."""
    finite = np.isfinite(values)
    return values if finite.all() else values[finite]


def average_gradient(image: core.FloatArray) -> float:
    """Compute the mean gradient of grey levels, √((Δx² + Δy²) / 2).

    `image` (Y, X); the mean is over pixels that have both a right and a lower
    neighbour; 0 if none has.
    """
    dx = np.diff(image, axis=1)[:-1]
    dy = np.diff(image, axis=0)[:, :-1]
    slopes = _remove_missing_pixels(np.sqrt((dx**2 + dy**2) / 2))
    return float(slopes.mean()) if slopes.size else 0.0


def contrast(image: core.FloatArray) -> float:
    """Compute the mean square grey-level difference of 4-neighbours, Σ δ² P(δ).

    `image` (Y, X); over all horizontal and vertical pairs; 0 for a single pixel.
    """
    dx, dy = (_remove_missing_pixels(np.diff(image, axis=axis)) for axis in (1, 0))
    pairs = dx.size + dy.size
    return float(((dx**2).sum() + (dy**2).sum()) / pairs) if pairs else 0.0


def spatial_frequency(image: core.FloatArray) -> float:
    """Compute √(mean Δx² + mean Δy²) over rows and columns; `image` (Y, X)."""
    rows, columns = (_remove_missing_pixels(np.diff(image, axis=k)) for k in (1, 0))
    return math.sqrt(sum(float((d**2).mean()) for d in (rows, columns) if d.size))


def fit_gain_and_offset(
    image: core.FloatArray, reference: core.FloatArray
) -> core.FloatPair:
    """Fit the gain and offset that map an image (Y, X) or (N,) to a reference.

    Uses least squares; a constant image gets gain 0.
    """
    x, y = image - image.mean(), reference - reference.mean()
    # a constant minus its mean may differ from 0 by rounding
    varies = np.ptp(image) > 0
    gain = float((x * y).sum()) / float((x * x).sum()) if varies else 0.0
    return gain, float(reference.mean() - gain * image.mean())


_PARTS = 4  # parts along each side of a field, whose scatter gives errors; chosen


def sum_section_errors(
    image: core.RealArray, reference: core.RealArray
) -> core.FloatArray:
    """Sum the squared errors of an image (Y, X) in each section of the field.

    Returns the sums of 16 parts, row by row: (16,); fewer if the image has fewer rows.
    """
    squares = np.square(np.subtract(image, reference, dtype=np.float32))
    # no duplicates, for which reduceat would return a single row
    places = ({n * k // _PARTS for k in range(_PARTS)} for n in image.shape)
    rows, columns = map(sorted, places)
    sums = np.add.reduceat(squares, rows, axis=0, dtype=np.float64)
    return np.asarray(np.add.reduceat(sums, columns, axis=1).ravel())


def compute_psnr_gain(
    errors: core.FloatArray, before: core.FloatArray
) -> tuple[float | None, float | None]:
    """Compute the PSNR gain of one image over another, and its standard error.

    Both arguments are from `sum_section_errors`, (N,). The standard error is that of
    the jackknife, in which common errors cancel. None if an image has no error, or one
    whose square exceeds single precision.
    """
    if not (0 < errors.sum() < math.inf and 0 < before.sum() < math.inf):
        return None, None
    gain = 10 * math.log10(before.sum() / errors.sum())
    left, other_sum = before.sum() - before, errors.sum() - errors
    if not (left > 0).all() or not (other_sum > 0).all():
        return gain, None
    each = 10 * np.log10(left / other_sum)
    return gain, float(np.sqrt((len(errors) - 1) * each.var()))


def choose_gain(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return key and name of the gain of a report: that below the cut-off, if known."""
    key = "gain_below_cutoff_db"
    if row.get(key) is not None:
        return key, "gain below the cut-off"
    return "gain_db", "gain (whole band)"


def structural_similarity(
    image: core.FloatArray,
    reference: core.FloatArray,
    data_range: float,
    *,
    k2: float = 0.03,
) -> float | None:
    """Compute the mean structural similarity [1]_: Gaussian, 11x11, K₁ = 0.01.

    For images (Y, X), without a border of 5 px; sigma 1.5 px, population covariance.
    None if nothing is left. `data_range` is the number of grey levels from black to
    white, `k2` the constant of the contrast term.

    References
    ----------
    .. [1] Z. Wang et al., IEEE Trans. Image Process. 13, 600 (2004), eq. 13,
       doi:10.1109/TIP.2003.819861.
    """
    if min(image.shape) <= 2 * _BORDER:
        return None
    inner = np.s_[_BORDER:-_BORDER, _BORDER:-_BORDER]
    finite = np.isfinite(image) & np.isfinite(reference)
    whole = None  # all windows are without gaps
    if not finite.all():
        side = 2 * _BORDER + 1
        whole = scipy.ndimage.minimum_filter(finite.astype(np.uint8), side)[inner] > 0
        if not whole.any():
            return None
        image, reference = (
            np.where(finite, one, one[finite].mean()) for one in (image, reference)
        )
    # scikit-image returns identical values, but needs memory for 14 planes instead of 8

    def smooth(plane: core.FloatArray) -> core.FloatArray:
        return np.asarray(scipy.ndimage.gaussian_filter(plane, _SIGMA, radius=_BORDER))

    # squares of values around 0: those of a large offset would lose the contrast
    levels = image.mean(), reference.mean()
    image, reference = image - levels[0], reference - levels[1]
    mean_a, mean_b = smooth(image), smooth(reference)
    var_a = smooth(image * image) - mean_a**2
    var_b = smooth(reference * reference) - mean_b**2
    cov = smooth(image * reference) - mean_a * mean_b
    del image, reference
    mean_a += levels[0]
    mean_b += levels[1]
    c1, c2 = (0.01 * data_range) ** 2, (k2 * data_range) ** 2
    quality = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    quality /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return float((quality[inner] if whole is None else quality[inner][whole]).mean())


# Data range: as set, otherwise from the file's bit depth, otherwise from the type.


def _choose_data_range(
    image: core.Micrograph, reference: core.Micrograph | None, *, alike: bool
) -> tuple[float, RangeSource]:
    """Choose a common data range for both images; return it with its source.

    That of the reference, if there is one. If the grey scales must be `alike` and the
    bit depth of the reference is unknown, that of the image is used if all values fit
    into it. Raises an `OptionError` if the scales differ.
    """
    images = (image,) if reference is None else (reference, image)
    scales, dtype = [_find_full_scale(m) for m in images], images[0].dtype
    if alike and all(m.dtype.kind in "ui" for m in images):
        pairs = zip(images, scales, images[::-1], scales[::-1], strict=True)
        for m, (_, scale, _), other, (peak, *_) in pairs:
            # chosen: bit depths differ at least fourfold, overshoots of filters less
            if scale is not None and peak > 2.0 * scale:
                msg = (
                    f"The grey scales differ: {m.name} has a full scale of {scale:g}, "
                    f"but {other.name} has values up to {peak:g}. Fit gain and offset "
                    "first (`match=affine`), or set the range (`data_range`)."
                )
                raise core.OptionError(msg, code="grey-scales-differ")
    if dtype.kind == "b":
        return 1.0, "type"
    if dtype.kind in "ui":
        for _, scale, source in scales[: 1 + alike]:
            if scale is not None and scales[0][0] <= scale:
                return scale, source
        if dtype.itemsize <= _SHORT:
            return float((1 << (8 * dtype.itemsize)) - 1), "type"
    values = images[0].array()
    valid = values[np.isfinite(values)]
    return float(valid.max()) - float(valid.min()) if valid.size else 0.0, "values"


def _find_full_scale(m: core.Micrograph) -> tuple[float, float | None, RangeSource]:
    """Return the largest grey value of integers, the full scale and its source.

    The first is the span if values are negative, and 0 for other types. The full scale
    is that of the file's bit depth, unless a pixel exceeds it, or of 8 bits.
    """
    bits, peak = m.significant_bits, 0.0
    if m.dtype.kind in "ui":
        array = m.array()
        peak = float(array.max()) - min(0.0, float(array.min()))
    top = None if bits is None else float((1 << bits) - 1)
    if top is not None and peak <= top:
        return peak, top, "file"
    return peak, 255.0 if m.dtype == np.uint8 else None, "type"


def _read_plane(m: core.Micrograph) -> core.FloatArray:
    """Return the image in double precision, with NaN for missing pixels."""
    data: core.FloatArray = m.array().astype(np.float64)
    data[~np.isfinite(data)] = np.nan
    return data


def _read_planes(
    image: core.Micrograph, reference: core.Micrograph | None, cut_off_nm: float | None
) -> tuple[core.FloatArray, core.FloatArray | None]:
    """Return the planes to compare; the second is NaN where either is missing."""
    values = target = _read_plane(image)
    if reference is not None:
        target = _read_plane(reference)
        missing = ~(np.isfinite(values) & np.isfinite(target))
        if missing.any() and cut_off_nm is not None:
            msg = (
                "Splitting the error at the cut-off requires finite pixels, but "
                f"{int(missing.sum())} are missing; crop to a gap-free area "
                "(`crop(gap_free=True)`)."
            )
            raise core.ReadError(msg, code="pixels-missing")
        target[missing] = np.nan
    if not np.isfinite(target).any():
        msg = (
            f"Metrics need at least one finite pixel to compare, but {image.name} "
            "has none."
        )
        raise core.ReadError(msg, code="no-finite-values")
    return values, None if reference is None else target


def measure_metrics(
    image: core.Micrograph,
    reference: core.Micrograph | None = None,
    *,
    data_range: float | None = None,
    match: Literal["affine"] | None = None,
    cut_off_nm: float | None = None,
) -> Metrics:
    """Measure image quality, and similarity to a reference on the same grid.

    Pixels that are NaN or infinite in either image, and SSIM windows that contain one,
    are ignored. Raises a `ReadError` if none is left, or if a pixel is missing and the
    error is split at a cut-off.

    Parameters
    ----------
    image, reference : Micrograph
        The image, and its reference on the same grid.
    data_range : float, optional
        Grey levels from black to white; by default 2^n - 1 for the n bits stated in the
        file of the reference (or else of the image), 255 or 65535 for integers of 8 or
        16 bits, otherwise the range of its values. `Metrics.data_range_from` names the
        source.
    match : {"affine"}, optional
        Fit gain and offset first.
    cut_off_nm : float, optional
        Shortest period that the light transmitted; by default from the image's history.
    """
    if reference is not None:
        frc.check_same_grid(image, reference)
    for name, value in (("match", match), ("cut_off_nm", cut_off_nm)):
        if value is not None and reference is None:
            msg = f"Option `{name}` needs a reference, but only one image was given."
            raise core.OptionError(msg, code="second-image-missing")
    sizes = (one.pixel_size_nm for one in (image, reference) if one is not None)
    size = next(filter(None, sizes), None)
    if cut_off_nm is not None and size is None:
        msg = (
            f"The cut-off of {cut_off_nm:g} nm requires images with a pixel size; set "
            "`pixel_size_nm`."
        )
        raise core.OptionError(msg, code="pixel-size-missing")
    count = 1 if reference is None else 2
    # for each image; measured: growth of peak memory, 4000 x 4000 px
    core.require_memory(image.name, image.shape, count * 48.0)
    values, target = _read_planes(image, reference, cut_off_nm)
    span, source = data_range or 0.0, _USER_SOURCE
    if data_range is None:
        span, source = _choose_data_range(image, reference, alike=match is None)
    _check_data_range(span, values, (reference or image).name)
    scaled_values = values / span * _FULL_SCALE
    own = Metrics(
        average_gradient=average_gradient(scaled_values),
        contrast=contrast(scaled_values),
        spatial_frequency=spatial_frequency(scaled_values),
        data_range=float(span),
        data_range_from=source,
    )
    if reference is None or target is None:
        return own
    # every image would match a constant
    if match is not None and not np.ptp(_remove_missing_pixels(target)):
        msg = (
            "Matching grey levels needs a reference with contrast, but "
            f"{reference.name} is constant; compare the images without matching."
        )
        raise core.OptionError(msg, code="image-blank")
    cut_off = find_cut_off(image, cut_off_nm)
    return _add_reference_metrics(values, target, own, match, cut_off, size)


def _check_data_range(span: float, values: core.FloatArray, name: str) -> None:
    """Raise an error for a data range that cannot be that of the grey values."""
    if not span > 0:
        msg = (
            f"The data range must be positive, but {name} is constant; set "
            "`data_range`."
        )
        raise core.OptionError(msg, code="image-blank")
    peak = float(np.abs(_remove_missing_pixels(values)).max())
    if peak and not 1 / _PROPORTION < span / peak < _PROPORTION:
        msg = (
            "The data range must be of a similar magnitude to the grey values, got "
            f"{span:g} for values up to {peak:g}."
        )
        raise core.OptionError(msg, code="out-of-range")


def _add_reference_metrics(
    values: core.FloatArray,
    target: core.FloatArray,
    own: Metrics,
    match: Literal["affine"] | None,
    cut_off_nm: float | None,
    pixel_size_nm: core.FloatPair | None,
) -> Metrics:
    """Add the metrics that require a reference."""
    span = own.data_range
    values, target = values / span, target / span
    whole = bool(np.isfinite(target).all())
    if not whole:
        values[np.isnan(target)] = np.nan
    gain, offset = 1.0, 0.0
    if match == "affine":
        known = map(_remove_missing_pixels, (values, target))
        gain, offset = fit_gain_and_offset(*known)
        values = gain * values + offset
    error = float(np.mean(_remove_missing_pixels((values - target) ** 2)))
    energy = float(np.mean(_remove_missing_pixels(target**2)))
    metrics = replace(
        own,
        psnr_db=_compute_psnr(error),
        ssim=structural_similarity(values, target, 1.0),
        ssim_gao=structural_similarity(values, target, 1.0, k2=0.02),
        nrmse=math.sqrt(error / energy) if energy > 0 else None,
        match=match,
        gain=gain,
        offset=offset * span,
        identical=error == 0,
    )
    rings = whole and min(values.shape) > 1  # a spectrum needs two rows
    if not (cut_off_nm and pixel_size_nm and rings):
        return metrics
    image_bands, truth = (
        split_frequencies(plane, cut_off_nm, pixel_size_nm)
        for plane in (values, target)
    )
    # The gain is fitted again to the band below only: otherwise content above would
    # change it, and thus the error below.
    gain = 1.0 if match is None else fit_gain_and_offset(image_bands[0], truth[0])[0]
    below, above = (
        sum_section_errors(gain * one, other)
        for one, other in zip(image_bands, truth, strict=True)
    )
    return replace(
        metrics,
        cut_off_nm=cut_off_nm,
        psnr_below_db=_compute_psnr(float(below.sum()) / values.size),
        psnr_above_db=_compute_psnr(float(above.sum()) / values.size),
        psnr_above_blank_db=_compute_psnr(float(np.mean(truth[1] ** 2))),
        band_errors=(below, above),
    )


def _compute_psnr(error: float) -> float | None:
    """Convert a normalized mean square error into PSNR; None if the error is 0."""
    return -10 * math.log10(error) if error > 0 else None
