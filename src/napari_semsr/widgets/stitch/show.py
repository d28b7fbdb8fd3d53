"""What the panel Stitch mosaic shows of a scan: layers, plots, words and numbers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_semsr.core import Acquisition, FloatArray, Micrograph
from napari_semsr.io import nominal_corners
from napari_semsr.jobs import StitchedFile
from napari_semsr.widgets.base import DASH, SIGMA, TIMES, table
from napari_semsr.widgets.calibrate import format_nm

if TYPE_CHECKING:
    import napari.viewer
    from matplotlib.axes import Axes

    from napari_semsr.stitching import PairReport
    from napari_semsr.widgets.base import PlotCanvas

# Colours that viridis has not, so that a bad joint is never read as a poor one.
_REJECTED = "#e05d44"
_AMBIGUOUS = "#ff9f1c"
_LOST = "#e05d44"
_NOMINAL = "#5a9bd8"
_SOLVED = "#ffffff"
_THIN = 0.006


def quality_colour(quality: float) -> tuple[float, float, float, float]:
    """Colour of a joint that is used."""
    from matplotlib import colormaps

    red, green, blue, alpha = colormaps["viridis"](float(np.clip(quality, 0, 1)))
    return float(red), float(green), float(blue), float(alpha)


def _aligned_nominal(made: StitchedFile) -> FloatArray | None:
    """Nominal corners, moved as a whole onto the solved ones.

    Gives (N, 2), in px of the mosaic; None where nothing was nominal.
    """
    nominal, solved = made.solution.nominal_px, made.solution.positions_px
    if nominal is None:
        return None
    placed = made.solution.placed & np.isfinite(nominal).all(axis=1)
    moved: FloatArray = nominal + (solved - nominal)[placed].mean(axis=0)
    return moved


def _keywords(mosaic: Micrograph, frame: tuple[int, int]) -> dict[str, Any]:
    """Give what all layers share: calibrated in nm, thin lines."""
    return {
        "scale": mosaic.scale,
        "translate": mosaic.origin,
        "units": (mosaic.unit, mosaic.unit),
        "axis_labels": ("y", "x"),
        "edge_width": max(0.5, _THIN * min(frame)),
        "face_color": "transparent",
    }


def _boxes(corners: FloatArray, frame: tuple[int, int]) -> list[FloatArray]:
    """Rectangles at the outer edges of the frames' pixels."""
    rows, columns = frame
    box = np.array([[0, 0], [0, columns], [rows, columns], [rows, 0]]) - 0.5
    return [box + corner for corner in corners]


def _add_frame_layers(
    viewer: "napari.viewer.Viewer", made: StitchedFile, mosaic: Micrograph, name: str
) -> list[Any]:
    """Add outlines of the frames, nominal and solved."""
    keywords = _keywords(mosaic, made.frame_shape)
    solution = made.solution
    names = np.array(solution.names)
    layers = []
    nominal = _aligned_nominal(made)
    if nominal is not None:
        known = np.isfinite(nominal).all(axis=1)
        colours = [_NOMINAL if ok else _LOST for ok in solution.placed[known]]
        layers.append(
            viewer.add_shapes(
                _boxes(nominal[known], made.frame_shape),
                shape_type="rectangle",
                name=f"{name} outlines, nominal",
                edge_color=colours,
                features={"frame": names[known], "placed": solution.placed[known]},
                opacity=0.6,
                **keywords,
            )
        )
    placed = solution.placed
    layers.append(
        viewer.add_shapes(
            _boxes(solution.positions_px[placed], made.frame_shape),
            shape_type="rectangle",
            name=f"{name} outlines, solved",
            edge_color=_SOLVED,
            features={
                "frame": names[placed],
                "y_px": solution.positions_px[placed, 0],
                "x_px": solution.positions_px[placed, 1],
            },
            opacity=0.5,
            **keywords,
        )
    )
    return layers


def joint_colour(pair: "PairReport") -> tuple[float, float, float, float]:
    """Colour of one joint, faint where it is not used."""
    from matplotlib.colors import to_rgba

    if not pair.used:
        red, green, blue, _ = to_rgba(_REJECTED)
        return red, green, blue, 0.45
    if pair.ambiguous:
        red, green, blue, alpha = to_rgba(_AMBIGUOUS)
        return red, green, blue, alpha
    return quality_colour(pair.quality)


def _joint_features(
    pairs: "Sequence[PairReport]", names: Sequence[str]
) -> Mapping[str, Any]:
    """Figures of the joints, shown where the cursor is."""
    return {
        "first": [names[pair.first] for pair in pairs],
        "second": [names[pair.second] for pair in pairs],
        "used": [pair.used for pair in pairs],
        "quality": [pair.quality for pair in pairs],
        "score": [pair.score for pair in pairs],
        "residual_px": [pair.residual_px for pair in pairs],
        "sigma_px": [pair.sigma_px for pair in pairs],
        "ambiguous": [pair.ambiguous for pair in pairs],
        "reason": [pair.reason for pair in pairs],
    }


def _add_joint_layer(
    viewer: "napari.viewer.Viewer", made: StitchedFile, mosaic: Micrograph, name: str
) -> Any:
    """Add a line for each joint between two frames that are placed."""
    solution = made.solution
    pairs = [p for p in solution.pairs if solution.placed[[p.first, p.second]].all()]
    if not pairs:
        return None
    # those that are used lie on top
    pairs.sort(key=lambda pair: pair.used)
    centres = solution.positions_px + (np.array(made.frame_shape) - 1) / 2
    keywords = _keywords(mosaic, made.frame_shape)
    keywords["edge_width"] *= 2
    return viewer.add_shapes(
        [centres[[pair.first, pair.second]] for pair in pairs],
        shape_type="line",
        name=f"{name} joints",
        edge_color=np.array([joint_colour(pair) for pair in pairs]),
        features=_joint_features(pairs, solution.names),
        **keywords,
    )


def add_shapes_layers(
    viewer: "napari.viewer.Viewer", made: StitchedFile, mosaic: Micrograph, name: str
) -> list[Any]:
    """Add outlines of the frames, nominal and solved, and their joints."""
    layers = _add_frame_layers(viewer, made, mosaic, name)
    joints = _add_joint_layer(viewer, made, mosaic, name)
    return layers if joints is None else [*layers, joints]


# Plots of a stitched scan: how joints disagree, and how the stage missed.

_JOINT, _LINE, _STAGE, _NONE = "#4ca3dd", "#f2a33a", "#59b368", "#d9655b"


def _empty(axes: "Axes", text: str) -> None:
    """Say in the plot that there is nothing to draw."""
    axes.text(0.5, 0.5, text, ha="center", color=_NONE, transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])


def _draw_residuals(axes: "Axes", made: StitchedFile) -> None:
    """Draw the residual of each joint over what noise alone would leave."""
    rows = [
        (pair.sigma_px, pair.residual_px, pair.used)
        for pair in made.solution.pairs
        if np.isfinite([pair.sigma_px, pair.residual_px]).all()
    ]
    if not rows:
        _empty(axes, "no joint was refined")
        return
    values = np.array(rows, dtype=float)
    sigma, residual = np.maximum(values[:, :2].T, 1e-4)
    used = values[:, 2] > 0
    axes.plot(
        sigma[used], residual[used], "o", ms=4, color=_JOINT, alpha=0.8, label="used"
    )
    if not used.all():
        axes.plot(
            sigma[~used], residual[~used], "x", ms=4, color=_NONE, label="not used"
        )
    ends = np.array([sigma.min() / 1.5, sigma.max() * 1.5])
    axes.plot(ends, 2 * ends, "--", lw=1, color=_LINE, label=f"2 {SIGMA} of noise")
    axes.set_xscale("log")
    axes.set_yscale("log")
    from matplotlib.ticker import FuncFormatter

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    axes.set_xlabel(f"{SIGMA} of the joint by noise (px)")
    axes.set_ylabel("Residual (px)")
    axes.legend(loc="best")


def _draw_stage(axes: "Axes", made: StitchedFile) -> None:
    """Draw how far each frame lies from its nominal place."""
    nominal = _aligned_nominal(made)
    if nominal is None:
        _empty(axes, "no nominal positions")
        return
    missed = (made.solution.positions_px - nominal)[made.solution.placed]
    axes.plot(missed[:, 1], missed[:, 0], "o", ms=4, color=_STAGE, alpha=0.8)
    axes.axhline(0, lw=0.8, alpha=0.4, color=_LINE)
    axes.axvline(0, lw=0.8, alpha=0.4, color=_LINE)
    reach = 1.15 * float(np.nanmax(np.abs(missed))) or 1.0
    axes.set_xlim(-reach, reach)
    axes.set_ylim(reach, -reach)  # y points down, as in the image
    axes.set_aspect("equal")
    axes.set_xlabel("Solved less nominal, x (px)")
    axes.set_ylabel("y (px)")


def draw_stitching(canvas: "PlotCanvas", made: StitchedFile) -> None:
    """Draw both plots of a scan."""
    canvas.clear()
    _draw_residuals(canvas.axes[0], made)
    _draw_stage(canvas.axes[1], made)
    canvas.refresh()


def facts(acquisition: Acquisition) -> str:
    """Say what a scan is."""
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


def _figures(made: StitchedFile) -> Mapping[str, str]:
    """Say a mosaic in words and numbers."""
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


def _legend(made: StitchedFile) -> str:
    """Explain the colours of the joints."""
    lines = ['<span style="color:#440154">■</span> to <span style="color:#fde725">■']
    lines[0] += "</span> used, by correlation from 0 to 1"
    if any(pair.ambiguous for pair in made.solution.pairs):
        lines.append(
            f'<span style="color:{_AMBIGUOUS}">■</span> another shift fits too'
        )
    if made.pairs_rejected:
        lines.append(f'<span style="color:{_REJECTED}">■</span> not used')
    return f"<p>Joints: {'<br>'.join(lines)}</p>"


def summary(made: StitchedFile) -> str:
    """Write the figures as a small table, then what the colours of joints mean."""
    return table(_figures(made)) + _legend(made)


def trouble(made: StitchedFile) -> str:
    """List warnings and frames that were left out."""
    lost = [f"<b>{item.frame}</b>: {item.reason}" for item in made.left_out]
    parts = [f"<p>{text}</p>" for text in made.warnings]
    if lost:
        parts.append(f"<p>Left out:<br>{'<br>'.join(lost)}</p>")
    return "".join(parts)
