"""Curves of the demonstration: ring correlation and radial spectra."""

import numpy as np

from napari_semsr.analysis.frc import FrcResult
from napari_semsr.services.demo_measure import Measured
from napari_semsr.services.report_blocks import Picture, Table, Text
from napari_semsr.services.report_curves import Curve, curves_png
from napari_semsr.services.report_text import fixed, resolution

__all__ = ["show_resolution", "show_spectra"]

_COLOURS = {"truth": 0, "degraded": 1, "baseline": 2, "enhanced": 3}
_SQRT_SEVENTH = (1 / 7) ** 0.5
_ABOUT_FRC = (
    "Fourier ring correlation asks up to which spatial frequency two images agree. Two "
    "exposures of one place give the resolution of the exposures without any truth "
    "(threshold 1/7). Against the truth, which has no noise, the threshold is √(1/7), "
    "and for the image as it was taken both ways should agree within their intervals."
)
_ABOUT_SELF = (
    "Two enhanced images are not compared with each other: a network draws the same "
    "texture twice, so their agreement would prove nothing. The truth judges them. "
    "Where an enhanced image agrees with it beyond the input's own resolution, the "
    "network has inferred edges from what it saw in training; that holds for specimens "
    "like those, and is not resolution of the microscope."
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
    pairs = [(measured.pair_label, measured.pair)]
    versions = (measured.degraded, measured.baseline, measured.enhanced)
    pairs += [(f"{v.label} and truth", v.cross) for v in versions if v.cross]
    rows = tuple(
        (
            name,
            resolution(found),
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
        + "; ".join(f"{name}: {resolution(found)}" for name, found in pairs[1:])
    )
    caption = (
        "Dots on the threshold mark the resolutions; they come from a likelihood fit, "
        "which is steadier than the first crossing of single rings. Upper axis: the "
        "period in nm."
    )
    return [explained, Table(header, rows), Picture(png, alt, caption)]


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
        "Radially averaged power spectra of the truth, the image as taken, the Wiener "
        "filter and the enhanced image, over spatial frequency"
    )
    told = (
        "Power at each spatial frequency, averaged over all directions, after the gain "
        "that fits each version to the truth. A good restoration follows the truth as "
        "far as the signal goes; power above the truth is noise or invention."
    )
    return [Text((told,)), Picture(png, alt, "Upper axis: the period in nm.")]


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
