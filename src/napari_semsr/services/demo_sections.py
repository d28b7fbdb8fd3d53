"""Sections of the demonstration's page: pictures, curves, maps and tables."""

from collections.abc import Sequence

import numpy as np

from napari_semsr.analysis.frc import FrcResult
from napari_semsr.analysis.frc_map import FrcMap
from napari_semsr.services.demo_steps import Measured, Version
from napari_semsr.services.report_figures import (
    Curve,
    curves_png,
    image_png,
    map_png,
)
from napari_semsr.services.report_page import Gallery, Picture, Table, Text
from napari_semsr.services.report_text import fixed, length

__all__ = [
    "resolution_text",
    "show_fields",
    "show_maps",
    "show_metrics",
    "show_resolution",
    "show_spectra",
]

_CROP_PX = 128
_COLOURS = {"truth": 0, "degraded": 1, "baseline": 2, "enhanced": 3}
_SQRT_SEVENTH = (1 / 7) ** 0.5
_ABOUT_FRC = (
    "Fourier ring correlation asks up to which spatial frequency two images agree. Two "
    "exposures of one place give the resolution of the exposures without any truth "
    "(threshold 1/7). Against the truth, which has no noise, the threshold is √(1/7), "
    "and for the degraded image both ways should agree within their intervals."
)
_ABOUT_SELF = (
    "Two enhanced images are not compared with each other: a network draws the same "
    "texture twice, so their agreement would prove nothing. The truth judges them."
)


def show_fields(measured: Measured) -> list[Gallery | Text]:
    """Show whole fields, then crops at full size.

    Parameters
    ----------
    measured : Measured
        All figures.

    Returns
    -------
    list of Block
        Contents of the section.
    """
    wholes = (measured.degraded, measured.enhanced)
    fields = tuple(
        Picture(
            _grey(item, width_px=720),
            f"{item.label}: the whole field, with a scale bar",
            item.label,
        )
        for item in wholes
    )
    blocks: list[Gallery | Text] = [Gallery(fields, columns=2)]
    for number, (y, x) in enumerate(_places(measured.truth.image.shape), start=1):
        box = (slice(y, y + _CROP_PX), slice(x, x + _CROP_PX))
        pictures = tuple(
            Picture(
                _grey(item, box=box, width_px=400),
                f"{item.label}: crop {number}, {_CROP_PX} px wide, with a scale bar",
                item.label,
            )
            for item in measured.versions()
        )
        blocks.append(Gallery(pictures, columns=4))
    note = (
        "Each picture shows its own 0.5 to 99.5 % range of grey levels; a crop has "
        "that of its whole field."
    )
    return [*blocks, Text((note,))]


def _places(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Corners of two crops, one on each half of the specimen."""
    rows, columns = shape
    side = _CROP_PX
    wanted = [(0.30, 0.22), (0.45, 0.78)]
    return [
        (
            min(max(0, round(rows * y) - side // 2), max(0, rows - side)),
            min(max(0, round(columns * x) - side // 2), max(0, columns - side)),
        )
        for y, x in wanted
    ]


def _grey(
    item: Version, *, width_px: int, box: tuple[slice, slice] | None = None
) -> bytes:
    """Draw a version or a part of it."""
    data = item.image.array()
    low, high = (float(value) for value in np.percentile(data, (0.5, 99.5)))
    return image_png(
        data if box is None else data[box],
        item.image.pixel_size_nm,
        limits=(low, max(high, low + 1e-6)),
        width_px=width_px,
    )


def show_resolution(measured: Measured) -> list[Text | Table | Picture]:
    """Show curves and crossings of Fourier ring correlation.

    Parameters
    ----------
    measured : Measured
        All figures.

    Returns
    -------
    list of Block
        Contents of the section.
    """
    pixel = measured.truth.image.mean_pixel_size_nm
    explained = Text((_ABOUT_FRC, _ABOUT_SELF))
    pairs = [("Two exposures", measured.pair)]
    versions = (measured.degraded, measured.baseline, measured.enhanced)
    pairs += [(f"{v.label} and truth", v.cross) for v in versions if v.cross]
    rows = tuple(
        (
            name,
            resolution_text(found),
            _interval(found),
            fixed(found.resolution_px, 2),
            _said(found),
        )
        for name, found in pairs
    )
    header = ("Compared", "Resolution", "95 % interval", "Pixels", "Note")
    curves = [
        Curve(
            f"{item.label} and truth",
            item.cross.frequency_per_px,
            item.cross.correlation,
            _mark(item.cross),
            _COLOURS[role],
        )
        for role, item in (
            ("degraded", measured.degraded),
            ("baseline", measured.baseline),
            ("enhanced", measured.enhanced),
        )
        if item.cross is not None
    ]
    png = curves_png(
        curves, pixel, ylabel="correlation", threshold=("√(1/7)", _SQRT_SEVENTH)
    )
    alt = (
        "Fourier ring correlation with the truth over spatial frequency. "
        + "; ".join(f"{name}: {resolution_text(found)}" for name, found in pairs[1:])
    )
    caption = (
        "Dots on the threshold mark the resolutions; they come from a likelihood fit, "
        "which is steadier than the first crossing of single rings. Upper axis: the "
        "period in nm."
    )
    return [explained, Table(header, rows), Picture(png, alt, caption)]


def show_maps(measured: Measured) -> list[Text | Gallery | Table]:
    """Show three maps of local resolution on one colour scale.

    Parameters
    ----------
    measured : Measured
        All figures.

    Returns
    -------
    list of Block
        Contents of the section.
    """
    named = (
        ("Two exposures", measured.map_pair),
        ("Degraded against truth", measured.map_degraded),
        ("Enhanced against truth", measured.map_enhanced),
    )
    limits = _map_limits([found for _, found in named])
    pictures = tuple(
        Picture(
            map_png(
                np.asarray(found.measured),
                found.map.pixel_size_nm,
                limits=limits,
                label="resolution (nm)",
            ),
            f"{name}: map of local resolution, median {length(found.median_nm)}",
            name,
        )
        for name, found in named
    )
    rows = tuple(
        (
            name,
            str(found.blocks),
            str(found.failed),
            length(found.p10_nm),
            length(found.median_nm),
            length(found.p90_nm),
        )
        for name, found in named
    )
    first = measured.map_pair
    told = (
        f"Each pixel is a square block with sides of {first.block} px, one every "
        f"{first.step} px. Bright is fine, dark is coarse; hatched blocks have no "
        "valid crossing, and none of them is filled."
    )
    header = ("Map", "Blocks", "Without", "10 %", "Median", "90 %")
    return [Text((told,)), Gallery(pictures, columns=3), Table(header, rows)]


def _map_limits(maps: Sequence[FrcMap]) -> tuple[float, float]:
    """Choose one colour scale for all maps."""
    kept = [np.asarray(found.measured).ravel() for found in maps]
    values = np.concatenate(kept)
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, (2, 98)))
    return low, max(high, low * 1.05)


def show_spectra(measured: Measured) -> list[Text | Picture]:
    """Show the radial power of all versions.

    Parameters
    ----------
    measured : Measured
        All figures.

    Returns
    -------
    list of Block
        Contents of the section.
    """
    by_role = (
        ("truth", measured.truth),
        ("degraded", measured.degraded),
        ("baseline", measured.baseline),
        ("enhanced", measured.enhanced),
    )
    curves = [
        Curve(
            item.label,
            item.spectrum.frequency_per_px,
            np.asarray(item.spectrum.power) * (item.metrics.gain or 1.0) ** 2,
            None,
            _COLOURS[role],
        )
        for role, item in by_role
    ]
    png = curves_png(
        curves,
        measured.truth.image.mean_pixel_size_nm,
        ylabel="power (grey levels² px²)",
        log=True,
    )
    alt = (
        "Radially averaged power spectra of truth, degraded input, Wiener filter and "
        "enhanced image, over spatial frequency"
    )
    told = (
        "Power at each spatial frequency, averaged over all directions, after the gain "
        "that fits each version to the truth. A good restoration follows the truth as "
        "far as the signal goes; power above the truth is noise or invention."
    )
    return [Text((told,)), Picture(png, alt, "Upper axis: the period in nm.")]


def show_metrics(measured: Measured) -> list[Text | Table]:
    """Show the table of metrics.

    Parameters
    ----------
    measured : Measured
        All figures.

    Returns
    -------
    list of Block
        Contents of the section.
    """
    header = ("Version", "PSNR (dB)", "SSIM", "NRMSE", "AG", "CON", "SF", "Resolution")
    rows = tuple(_metrics_row(item) for item in measured.versions())
    told = (
        "PSNR, SSIM and NRMSE against the truth after an affine match of grey levels, "
        "data range 255. AG (average gradient), CON (contrast) and SF (spatial "
        "frequency) need no truth and rise with noise as well as with sharpness. The "
        "Wiener filter was told the width of the blur; the model was not."
    )
    table = Table(header, rows, marked=2)
    return [Text((told,)), table]


def _metrics_row(item: Version) -> tuple[str, ...]:
    """Figures of one version."""
    found = item.metrics
    return (
        item.label,
        fixed(found.psnr_db, 2),
        fixed(found.ssim, 3),
        fixed(found.nrmse, 3),
        fixed(found.average_gradient, 2),
        fixed(found.contrast, 1),
        fixed(found.spatial_frequency, 2),
        "\N{EN DASH}" if item.cross is None else resolution_text(item.cross),
    )


def _interval(found: FrcResult) -> str:
    """Say an interval."""
    if found.interval_nm is None:
        return "\N{EN DASH}"
    low, high = found.interval_nm
    return f"{fixed(low, 1)}\N{EN DASH}{fixed(high, 1)} nm"


def _said(found: FrcResult) -> str:
    """Say why there is no resolution, or by which threshold there is one."""
    if found.reason is not None:
        return str(found.reason)
    return "threshold √(1/7)" if "√" in found.method else f"threshold {found.criterion}"


def _mark(found: FrcResult) -> float | None:
    """Frequency of the crossing."""
    return None if found.resolution_px is None else 1 / found.resolution_px


def resolution_text(found: FrcResult | None) -> str:
    """Say a resolution, or that there is none.

    Parameters
    ----------
    found : FrcResult or None
        A measurement.

    Returns
    -------
    str
        In nm.
    """
    if found is None or found.resolution_nm is None:
        return "none"
    return length(found.resolution_nm)
