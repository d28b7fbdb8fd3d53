"""What the panel Stitch mosaic says in words and numbers."""

from collections.abc import Mapping

import numpy as np

from napari_semsr.core.acquisition import Acquisition
from napari_semsr.io.scan_layers import nominal_corners
from napari_semsr.services.stitch import StitchedFile
from napari_semsr.widgets._pixel_size import format_nm
from napari_semsr.widgets._stitch_layers import AMBIGUOUS, REJECTED
from napari_semsr.widgets._text import DASH, TIMES

__all__ = ["facts", "figures", "legend", "trouble"]


def facts(acquisition: Acquisition) -> str:
    """Say what a scan is.

    Parameters
    ----------
    acquisition : Acquisition
        The scan.

    Returns
    -------
    str
        Some lines of plain text.
    """
    (rows, columns), kind = acquisition.frame_shape, acquisition.dtype
    lines = [
        f"{len(acquisition)} frames of {rows} {TIMES} {columns} px, {kind}",
        f"Pixel size: {format_nm(acquisition.pixel_size_nm)}",
    ]
    grid = acquisition.grid
    if nominal_corners(acquisition) is not None and grid is None:
        lines.append("Nominal positions are known.")
    elif acquisition.nominal_nm is not None:
        lines.append("Nominal positions are known in nm, the pixel size is not.")
    elif grid is not None:
        lines.append(
            f"Grid of {grid[0]} {TIMES} {grid[1]}, {acquisition.order} by row."
        )
    else:
        lines.append("No positions: they will be found from the images.")
    lines += [f"{fault.frame}: {fault.reason}" for fault in acquisition.faults]
    return "\n".join(lines)


def _nm(made: StitchedFile, px: float) -> str:
    """Say a small distance in px, and in nm where that is known."""
    if not np.isfinite(px):
        return DASH
    size = made.pixel_size_nm
    nm = "" if size is None else f" ({px * float(np.mean(size)):.3g} nm)"
    return f"{px:.3g} px{nm}"


def figures(made: StitchedFile) -> Mapping[str, str]:
    """Say a mosaic in words and numbers.

    Parameters
    ----------
    made : StitchedFile
        A stitched scan.

    Returns
    -------
    dict
        Names and values.
    """
    rows, columns = made.shape
    shown = {
        "Mosaic": f"{rows} {TIMES} {columns} px",
        "Pixel size": format_nm(made.pixel_size_nm),
        "Frames": f"{made.frames - len(made.left_out)} of {made.frames}",
        "Joints": f"{made.pairs_used} used, {made.pairs_rejected} rejected",
        "Residual": f"{_nm(made, made.residual_px)} RMS",
        "Shading left": f"{made.shading_percent:.2g} % of the mean",
        "Store": made.output,
    }
    if made.stage_pixel_size_nm is not None:
        shown["Pixel by stage"] = format_nm(made.stage_pixel_size_nm)
    stage = made.solution.stage
    if stage is not None:
        shown["Stage error"] = f"{_nm(made, stage.scatter_px)} RMS"
    return shown


def legend(made: StitchedFile) -> str:
    """Explain the colours of the joints.

    Parameters
    ----------
    made : StitchedFile
        A stitched scan.

    Returns
    -------
    str
        Rich text.
    """
    lines = ['<span style="color:#440154">■</span> to <span style="color:#fde725">■']
    lines[0] += "</span> used, by correlation from 0 to 1"
    if any(pair.ambiguous for pair in made.solution.pairs):
        lines.append(f'<span style="color:{AMBIGUOUS}">■</span> another shift fits too')
    if made.pairs_rejected:
        lines.append(f'<span style="color:{REJECTED}">■</span> not used')
    return f"<p>Joints: {'<br>'.join(lines)}</p>"


def trouble(made: StitchedFile) -> str:
    """List warnings and frames that were left out.

    Parameters
    ----------
    made : StitchedFile
        A stitched scan.

    Returns
    -------
    str
        Rich text; empty when there is no trouble.
    """
    lost = [f"<b>{item.frame}</b>: {item.reason}" for item in made.left_out]
    parts = [f"<p>{text}</p>" for text in made.warnings]
    if lost:
        parts.append(f"<p>Left out:<br>{'<br>'.join(lost)}</p>")
    return "".join(parts)
