"""The page of the demonstration, and its numbers for a machine to read."""

from pathlib import Path
from typing import Any

from napari_semsr.analysis.frc_map import FrcMap
from napari_semsr.core.provenance import software_versions
from napari_semsr.services.demo_sections import (
    resolution_text,
    show_fields,
    show_maps,
    show_metrics,
    show_resolution,
    show_spectra,
)
from napari_semsr.services.demo_steps import Measured
from napari_semsr.services.enhance import EnhancedFile
from napari_semsr.services.report_page import Facts, Page, Section, Text
from napari_semsr.services.report_text import fixed, signed

__all__ = ["compose", "figures_of"]


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
        "haze and independent noise; enhanced tile by tile; and measured. The model "
        "has seen drawn specimens of these kinds in training, but not this one."
    )
    return Page(
        title="Demonstration: degrade, enhance, measure",
        lede=lede,
        sections=(
            Section("In short", (_headline(measured, made),)),
            Section("Before and after", tuple(show_fields(measured))),
            Section("Resolution", tuple(show_resolution(measured))),
            Section("Where the field is resolved", tuple(show_maps(measured))),
            Section("Radial spectra", tuple(show_spectra(measured))),
            Section("Nearness to the truth", tuple(show_metrics(measured))),
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
            (
                "Resolution",
                f"{resolution_text(before.cross)} → {resolution_text(after.cross)}",
            ),
            ("Enhanced in", f"{fixed(report.seconds, 1)} s, {report.tiles} tiles"),
        ),
        large=True,
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
