"""The page of the demonstration."""

from pathlib import Path
from typing import Any

from napari_semsr.core.provenance import software_versions
from napari_semsr.services.demo_curves import show_resolution, show_spectra
from napari_semsr.services.demo_fields import show_fields
from napari_semsr.services.demo_figures import distance_rms
from napari_semsr.services.demo_joints import show_joints
from napari_semsr.services.demo_mosaic import show_frames, show_positions
from napari_semsr.services.demo_run import show_provenance, show_run
from napari_semsr.services.demo_scan import ScanHalf
from napari_semsr.services.demo_sem import Half
from napari_semsr.services.demo_tables import show_maps, show_metrics
from napari_semsr.services.demo_verdict import judge_mosaic, psnr_gain
from napari_semsr.services.report_blocks import Facts, Page, Part, Section, Text
from napari_semsr.services.report_text import resolution, signed

__all__ = ["compose"]

_LEDE = (
    "Everything here was drawn by the computer, so that the truth is known and every "
    "claim can be checked. First, small superlens frames become one calibrated mosaic, "
    "which is enhanced and measured. Then the bundled model does what it was trained "
    "for: it restores an electron image."
)


def compose(
    scan: ScanHalf, sem: Half, paths: dict[str, Path], options: dict[str, Any]
) -> Page:
    """Compose the page.

    Parameters
    ----------
    scan, sem : Half
        What was made and measured.
    paths : dict
        Files of the demonstration by role.
    options : dict
        What the demonstration was asked for.

    Returns
    -------
    Page
        Ready to be written.
    """
    return Page(
        title="Demonstration: from superlens frames to a measured image",
        lede=_LEDE,
        sections=(
            Section("In short", (_headline(scan, sem),)),
            _scan_part(scan, options),
            _sem_part(sem),
            Section("Open it in napari", _napari(paths)),
            Section("Provenance", (show_provenance((scan, sem), options),)),
        ),
        footer=f"Written by napari-semsr {software_versions()['napari-semsr']}.",
    )


def _scan_part(scan: ScanHalf, options: dict[str, Any]) -> Part:
    """Compose the part that begins with frames."""
    measured = scan.measured
    rows, columns = measured.truth.image.shape
    pixel = measured.truth.image.mean_pixel_size_nm or 0.0
    told = (
        f"Measured on the {rows} \N{MULTIPLICATION SIGN} {columns} px without a gap "
        f"({pixel:g} nm each). The truth is the sample before the microscope blurs it, "
        "averaged over each pixel; both mosaics were stitched on their own, so that "
        "errors of the stitching count in their resolution too."
    )
    verdict = judge_mosaic(measured, str(options["model"]))
    return Part(
        "From frames to a mosaic",
        "A microsphere shows a small, round, unevenly lit field at a time. The joints "
        "between such fields, measured on the images, make them one mosaic.",
        (
            Section("Raw frames", tuple(show_frames(scan))),
            Section("Nominal and solved positions", tuple(show_positions(scan))),
            Section("How far to trust the joints", tuple(show_joints(scan))),
            Section(
                "The mosaic, enhanced",
                (verdict, Text((told,)), *show_fields(measured)),
            ),
            Section("Resolution of the mosaic", tuple(show_resolution(measured))),
            Section("Where the mosaic is resolved", tuple(show_maps(measured))),
            Section("Spectra of the mosaic", tuple(show_spectra(measured))),
            Section("The mosaic against the truth", tuple(show_metrics(measured))),
            Section("How the model was run", tuple(show_run(scan.made))),
        ),
    )


def _sem_part(sem: Half) -> Part:
    """Compose the part on an electron image."""
    measured = sem.measured
    rows, columns = measured.truth.image.shape
    pixel = measured.truth.image.mean_pixel_size_nm or 0.0
    return Part(
        "An electron image, restored",
        f"A field of {rows} \N{MULTIPLICATION SIGN} {columns} px at {pixel:g} nm, "
        "taken twice with blur, haze and independent noise. The bundled model has seen "
        "drawn specimens of these kinds in training, but not this one.",
        (
            Section("Before and after", tuple(show_fields(measured))),
            Section("Resolution", tuple(show_resolution(measured))),
            Section("Where the field is resolved", tuple(show_maps(measured))),
            Section("Radial spectra", tuple(show_spectra(measured))),
            Section("Nearness to the truth", tuple(show_metrics(measured))),
            Section("How it was run", tuple(show_run(sem.made))),
        ),
    )


def _headline(scan: ScanHalf, sem: Half) -> Facts:
    """Give the figures that matter."""
    placement, mosaic = scan.placement, scan.measured
    before, after = (
        distance_rms(errors)
        for errors in (placement.nominal_error_px, placement.solved_error_px)
    )
    count = int(placement.placed.sum())
    return Facts(
        (
            ("Frames placed", f"{count} of {scan.stitched.frames}"),
            ("Off their true places", f"{before:.1f} → {after:.3f} px"),
            ("Mosaic resolves", resolution(mosaic.pair)),
            ("Mosaic, PSNR gained", f"{signed(psnr_gain(mosaic), 2)} dB"),
            ("Electron image, same", f"{signed(psnr_gain(sem.measured), 2)} dB"),
        ),
        large=True,
    )


def _napari(paths: dict[str, Path]) -> tuple[Text, ...]:
    """Say how to go on with the mouse."""

    def line(*roles: str) -> str:
        files = " ".join(f'"{paths[role].resolve()}"' for role in roles)
        return f"napari --with napari-semsr {files}"

    return (
        Text(
            ("The mosaic before and after, and its resolution map, in nm:",),
            code=line("mosaic", "mosaic_enhanced", "mosaic_map"),
        ),
        Text(
            ("Raw frames where the stage says; the panel Stitch mosaic joins them:",),
            code=line("scan"),
        ),
        Text(
            ("The electron image before and after, and its truth:",),
            code=line("sem_first", "sem_enhanced", "sem_truth"),
        ),
    )
