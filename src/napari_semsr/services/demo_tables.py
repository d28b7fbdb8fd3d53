"""Maps and metrics of the demonstration, with the figures behind them."""

from collections.abc import Sequence

import numpy as np

from napari_semsr.analysis.frc_map import FrcMap
from napari_semsr.services.demo_measure import Measured, Version
from napari_semsr.services.report_blocks import Gallery, Picture, Table, Text
from napari_semsr.services.report_images import map_png
from napari_semsr.services.report_text import fixed, length, resolution

__all__ = ["show_maps", "show_metrics"]


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
        (measured.pair_label, measured.map_pair),
        (f"{measured.degraded.label} against truth", measured.map_degraded),
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
            _reasons(found),
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
        "valid crossing, and none of them is filled; beyond-nyquist means that both "
        "images agree up to the finest period that the pixels can hold."
    )
    header = ("Map", "Blocks", "Without", "Reasons", "10 %", "Median", "90 %")
    return [Text((told,)), Gallery(pictures, columns=3), Table(header, rows)]


def _reasons(found: FrcMap) -> str:
    """Count the blocks that have no crossing, by reason."""
    counts = found.reason_counts.items()
    told = ", ".join(f"{count} {name}" for name, count in counts if count)
    return told or "\N{EN DASH}"


def _map_limits(maps: Sequence[FrcMap]) -> tuple[float, float]:
    """Choose one colour scale for all maps."""
    kept = [np.asarray(found.measured).ravel() for found in maps]
    values = np.concatenate(kept)
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, (2, 98)))
    return low, max(high, low * 1.05)


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
        f"data range {measured.data_range:g}. AG (average gradient), CON (contrast) "
        "and SF (spatial frequency) need no truth and rise with noise as well as with "
        "sharpness. The Wiener filter was told the width of the blur; the model was "
        "not."
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
        "\N{EN DASH}" if item.cross is None else resolution(item.cross),
    )
