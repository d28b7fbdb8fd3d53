"""The page of the demonstration: pictures, curves and tables of what was measured."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_semsr.analysis.frc import FrcResult
from napari_semsr.analysis.frc_map import FrcMap
from napari_semsr.core.provenance import software_versions
from napari_semsr.services.demo_steps import Measured, Version
from napari_semsr.services.enhance import EnhancedFile
from napari_semsr.services.report_figures import (
    Curve,
    curves_png,
    image_png,
    map_png,
)
from napari_semsr.services.report_page import (
    Facts,
    Gallery,
    Page,
    Picture,
    Section,
    Table,
    Text,
)
from napari_semsr.services.report_text import fixed, length, signed

__all__ = ["compose", "figures_of"]

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


def compose(
    measured: Measured,
    made: EnhancedFile,
    paths: dict[str, Path],
    options: dict[str, Any],
) -> Page:
    """Compose the page.

    Parameters
    ----------
    measured : Measured
        Images, curves, maps and figures.
    made : EnhancedFile
        What the enhancement wrote and cost.
    paths : dict
        Files of the demonstration by role.
    options : dict
        What the demonstration was asked for.

    Returns
    -------
    Page
        Ready to be written.
    """
    pixel = measured.truth.image.mean_pixel_size_nm or 0.0
    rows, columns = measured.truth.image.shape
    lede = (
        f"A field of {rows} \N{MULTIPLICATION SIGN} {columns} px at {pixel:g} nm was "
        "drawn by the computer, so that its truth is known; taken twice with blur, "
        "haze and independent noise; enhanced tile by tile; and measured. The model has "
        "seen drawn specimens of these kinds in training, but not this one."
    )
    return Page(
        title="Demonstration: degrade, enhance, measure",
        lede=lede,
        sections=(
            Section("In short", (_headline(measured, made),)),
            Section("Before and after", tuple(_before_and_after(measured))),
            Section("Resolution", tuple(_resolution(measured))),
            Section("Where the field is resolved", tuple(_maps(measured))),
            Section("Radial spectra", tuple(_spectra(measured))),
            Section("Nearness to the truth", tuple(_metrics(measured))),
            Section("How it was run", tuple(_run(made))),
            Section("Open it in napari", (_napari(paths),)),
            Section("Provenance", (_provenance(made, options),)),
        ),
        footer=f"Written by napari-semsr {software_versions()['napari-semsr']}.",
    )


def figures_of(measured: Measured, made: EnhancedFile) -> dict[str, Any]:
    """Collect the numbers of the page.

    Parameters
    ----------
    measured : Measured
        All figures.
    made : EnhancedFile
        What the enhancement cost.

    Returns
    -------
    dict
        By version and kind, for a machine to read.
    """
    keys = (
        *("psnr_db", "ssim", "nrmse"),
        *("average_gradient", "contrast", "spatial_frequency"),
    )
    return {
        "versions_of_the_field": {
            item.label: {
                **{key: getattr(item.metrics, key) for key in keys},
                "resolution_nm": item.cross and item.cross.resolution_nm,
                "reason": item.cross and item.cross.reason,
            }
            for item in measured.versions()
        },
        "two_exposures": {
            "resolution_nm": measured.pair.resolution_nm,
            "interval_nm": measured.pair.interval_nm,
            "reason": measured.pair.reason,
        },
        "maps": {
            "two_exposures": _map_figures(measured.map_pair),
            "degraded_against_truth": _map_figures(measured.map_degraded),
            "enhanced_against_truth": _map_figures(measured.map_enhanced),
        },
        "enhance": made.to_json(),
    }


def _map_figures(found: FrcMap) -> dict[str, Any]:
    """Numbers of one map."""
    return {
        "blocks": found.blocks,
        "failed": found.failed,
        "median_nm": found.median_nm,
        "p10_nm": found.p10_nm,
        "p90_nm": found.p90_nm,
        "reasons": found.reason_counts,
    }


def _headline(measured: Measured, made: EnhancedFile) -> Facts:
    """Give the four figures that matter."""
    before, after = measured.degraded, measured.enhanced
    report = made.report
    gain = _difference(after.metrics.psnr_db, before.metrics.psnr_db)
    return Facts(
        (
            ("PSNR against the truth", f"{signed(gain, 2)} dB"),
            (
                "SSIM",
                f"{fixed(before.metrics.ssim, 3)} → {fixed(after.metrics.ssim, 3)}",
            ),
            ("Resolution", f"{_nm(before.cross)} → {_nm(after.cross)}"),
            ("Enhanced in", f"{fixed(report.seconds, 1)} s, {report.tiles} tiles"),
        ),
        large=True,
    )


def _before_and_after(measured: Measured) -> list[Gallery | Text]:
    """Whole fields, then crops at full size."""
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


def _resolution(measured: Measured) -> list[Text | Table | Picture]:
    """Curves and crossings of Fourier ring correlation."""
    pixel = measured.truth.image.mean_pixel_size_nm
    explained = Text((_ABOUT_FRC, _ABOUT_SELF))
    pairs = [("Two exposures", measured.pair)]
    versions = (measured.degraded, measured.baseline, measured.enhanced)
    pairs += [(f"{v.label} and truth", v.cross) for v in versions if v.cross]
    rows = tuple(
        (
            name,
            _nm(found),
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
        + "; ".join(f"{name}: {_nm(found)}" for name, found in pairs[1:])
    )
    caption = (
        "Dots on the threshold mark the resolutions; they come from a likelihood fit, "
        "which is steadier than the first crossing of single rings. Upper axis: the "
        "period in nm."
    )
    return [explained, Table(header, rows), Picture(png, alt, caption)]


def _maps(measured: Measured) -> list[Text | Gallery | Table]:
    """Three maps on one colour scale."""
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


def _spectra(measured: Measured) -> list[Text | Picture]:
    """Radial power of all versions."""
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


def _metrics(measured: Measured) -> list[Text | Table]:
    """Set the table of metrics."""
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
        "\N{EN DASH}" if item.cross is None else _nm(item.cross),
    )


def _run(made: EnhancedFile) -> list[Text | Facts]:
    """Tell what the engine says of itself."""
    report = made.report
    pairs = (
        ("Model", str(report.model)),
        ("Tiles", str(report.tiles)),
        ("Time", f"{fixed(report.seconds, 2)} s"),
        ("Speed", f"{fixed(report.megapixels_per_second, 2)} megapixel/s"),
        ("Peak memory", f"{fixed(report.peak_memory_mb, 0)} MB"),
        ("Device, precision", f"{report.device}, {report.precision}"),
        ("Tile mismatch", _tiny(report.tile_mismatch)),
        ("Seam index", fixed(report.seam_index, 3)),
    )
    told = (
        "Tiles carry a halo as wide as the network's measured receptive field, so the "
        "result does not depend on where they are cut. Tile mismatch is how far two "
        "neighbours differ on the same pixels, over the range of grey levels; a seam "
        "index near 1 means that steps across tile borders are like those beside them."
    )
    return [Text((told,)), Facts(pairs)]


def _napari(paths: dict[str, Path]) -> Text:
    """Say how to go on with the mouse."""
    store = paths["enhanced"].resolve()
    first = paths["first"].resolve()
    return Text(
        ("Open the degraded and the enhanced field, both with their pixel size:",),
        code=f'napari --with napari-semsr "{first}" "{store}"',
    )


def _provenance(made: EnhancedFile, options: dict[str, Any]) -> Facts:
    """Tell what made the page."""
    history = made.provenance
    asked = {**options, **_flat(history.options)}
    pairs = [(f"Option {name}", str(value)) for name, value in asked.items()]
    pairs.append(("Model digest", str(history.model_digest)))
    pairs += [(f"Digest of {item.name}", str(item.digest)) for item in history.inputs]
    pairs += [(f"Version of {n}", v) for n, v in software_versions().items()]
    return Facts(tuple(pairs))


def _difference(after: float | None, before: float | None) -> float | None:
    """Subtract where both are known."""
    return None if after is None or before is None else after - before


def _nm(found: FrcResult | None) -> str:
    """Say a resolution, or that there is none."""
    if found is None or found.resolution_nm is None:
        return "none"
    return length(found.resolution_nm)


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


def _tiny(value: float | None) -> str:
    """Say a share that may be zero or very small."""
    if value is None:
        return "\N{EN DASH}"
    return "0" if value == 0 else f"{value:.1e}"


def _flat(options: dict[str, Any]) -> dict[str, Any]:
    """Lay nested options side by side, those that nobody chose left out."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, dict):
            found |= {f"{name} {key}": item for key, item in _flat(value).items()}
        elif value is not None:
            found[name] = value
    return found
