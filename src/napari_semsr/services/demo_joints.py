"""Sections of the demonstration on joints, and on positions against the truth."""

import numpy as np

from napari_semsr.services.demo_mosaic import grey_limits
from napari_semsr.services.demo_scan import ScanHalf
from napari_semsr.services.report_blocks import Facts, Picture, Table, Text
from napari_semsr.services.report_scan import Joint, errors_png, joints_png
from napari_semsr.services.report_text import fixed

__all__ = ["show_joints"]

_WEAKEST = 5
_TIMES = "\N{MULTIPLICATION SIGN}"


def show_joints(half: ScanHalf) -> list[Text | Picture | Facts | Table]:
    """Show joints with their quality, and positions against the truth.

    Parameters
    ----------
    half : ScanHalf
        The first half.

    Returns
    -------
    list of Block
        Contents of the section.
    """
    solution, mosaic = half.stitched.solution, half.mosaic
    centres = solution.positions_px + (np.array(half.stitched.frame_shape) - 1) / 2
    joints = [
        Joint(centres[[p.first, p.second]], p.quality, p.used, p.ambiguous)
        for p in solution.pairs
        if solution.placed[[p.first, p.second]].all()
    ]
    image = mosaic.array()
    joined = joints_png(image, joints, mosaic.pixel_size_nm, limits=grey_limits(image))
    placement = half.placement
    cloud = errors_png(placement.nominal_error_px, placement.solved_error_px)
    told = (
        "Each line joins two frames that overlap. Coloured joints are used, orange "
        "ones fit at another place too, dotted red ones were not believed: their "
        "overlap is too small or too plain, and the other joints decide."
    )
    return [
        Text((told, *half.stitched.warnings)),
        Picture(joined, "The mosaic with its joints, coloured by correlation"),
        _facts(half),
        _error_table(half),
        Picture(
            cloud,
            "Errors of nominal and of solved positions, each on its own scale",
            "Every dot is a frame; the mean is taken off, since a mosaic may start "
            "anywhere. Mind the scales.",
        ),
        _weakest(half),
    ]


def _facts(half: ScanHalf) -> Facts:
    """Say what the stitching says of itself."""
    made, solution = half.stitched, half.stitched.solution
    quality = [p.quality for p in solution.pairs if p.used] or [float("nan")]
    stage = made.stage_pixel_size_nm
    told = (
        "\N{EN DASH}"
        if stage is None
        else " \N{MULTIPLICATION SIGN} ".join(fixed(v, 2) for v in stage)
    )
    stated = made.pixel_size_nm or (float("nan"),) * 2
    return Facts(
        (
            ("Frames placed", f"{int(solution.placed.sum())} of {made.frames}"),
            ("Joints used", f"{made.pairs_used}, and {made.pairs_rejected} not"),
            ("Median correlation of joints", fixed(float(np.median(quality)), 3)),
            ("Residual of the joints", f"{fixed(made.residual_px, 3)} px RMS"),
            ("Shading left", f"{fixed(made.shading_percent, 2)} % of the mean"),
            ("Pixel size as stated", f"{fixed(stated[0], 2)} nm"),
            ("Pixel size by the stage", f"{told} nm (y {_TIMES} x)"),
            ("Time to stitch", f"{fixed(made.seconds, 1)} s"),
        )
    )


def _error_table(half: ScanHalf) -> Table:
    """Give positions against the truth, beside what noise alone would leave."""
    pixel = half.mosaic.mean_pixel_size_nm or float("nan")
    rows = []
    named = (
        ("Nominal", half.placement.nominal_error_px),
        ("Solved", half.placement.solved_error_px),
    )
    for name, errors in named:
        far = np.hypot(errors[:, 0], errors[:, 1])
        rms = float(np.sqrt(np.nanmean(far**2)))
        most = float(np.nanmax(far))
        cells = (fixed(rms, 3), fixed(most, 3), fixed(rms * pixel, 2))
        rows.append((f"{name} positions", *cells))
    sigma = half.stitched.solution.sigma_px
    expected = float(np.sqrt(np.nanmean((sigma**2).sum(axis=1))))
    last = (fixed(expected, 3), "\N{EN DASH}", fixed(expected * pixel, 2))
    rows.append(("Solved, as the program expects", *last))
    header = ("Distance from the truth", "RMS (px)", "Largest (px)", "RMS (nm)")
    return Table(header, tuple(rows), marked=1)


def _weakest(half: ScanHalf) -> Table:
    """List the joints that agree least, the used ones."""
    solution = half.stitched.solution
    used = sorted((p for p in solution.pairs if p.used), key=lambda p: p.quality)
    rows = tuple(
        (
            f"{_stem(solution.names[p.first])} and {_stem(solution.names[p.second])}",
            fixed(p.quality, 3),
            fixed(p.score, 1),
            fixed(p.residual_px, 3),
            fixed(p.sigma_px, 3),
        )
        for p in used[:_WEAKEST]
    )
    header = ("Joint", "Correlation", "Score", "Residual (px)", "Expected (px)")
    caption = (
        f"The {len(rows)} used joints that agree least. A score below "
        f"{fixed(solution.threshold, 1)} would not have been believed."
    )
    return Table(header, rows, caption)


def _stem(name: str) -> str:
    """Name of a frame without its suffix."""
    return name.rpartition(".")[0] or name
