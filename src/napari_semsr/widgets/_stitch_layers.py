"""The layers of a stitched scan: outlines of the frames, and their joints."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.services.stitch import StitchedFile

if TYPE_CHECKING:
    import napari.viewer

    from napari_semsr.stitch.solution import PairReport

__all__ = [
    "AMBIGUOUS",
    "LOST",
    "REJECTED",
    "add_frame_layers",
    "add_joint_layer",
    "aligned_nominal",
    "quality_colour",
]

FloatArray = NDArray[np.float64]

# Colours that viridis has not, so that a bad joint is never read as a poor one.
REJECTED = "#e05d44"
AMBIGUOUS = "#ff9f1c"
LOST = "#e05d44"
_NOMINAL = "#5a9bd8"
_SOLVED = "#ffffff"
_THIN = 0.006


def quality_colour(quality: float) -> tuple[float, float, float, float]:
    """Colour of a joint that is used.

    Parameters
    ----------
    quality : float
        Correlation coefficient on the overlap.

    Returns
    -------
    tuple of float
        RGBA of viridis between 0 and 1.
    """
    from matplotlib import colormaps

    red, green, blue, alpha = colormaps["viridis"](float(np.clip(quality, 0, 1)))
    return float(red), float(green), float(blue), float(alpha)


def aligned_nominal(made: StitchedFile) -> FloatArray | None:
    """Nominal corners, moved as a whole onto the solved ones.

    Parameters
    ----------
    made : StitchedFile
        A stitched scan.

    Returns
    -------
    (N, 2) numpy.ndarray or None
        In px of the mosaic; None where nothing was nominal.
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


def add_frame_layers(
    viewer: "napari.viewer.Viewer", made: StitchedFile, mosaic: Micrograph, name: str
) -> list[Any]:
    """Add outlines of the frames, nominal and solved.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer.
    made : StitchedFile
        A stitched scan.
    mosaic : Micrograph
        Its mosaic, which gives the calibration.
    name : str
        What the scan is called.

    Returns
    -------
    list of napari.layers.Shapes
        Nominal outlines, where there are any (red where a frame was left out), and
        solved ones.
    """
    keywords = _keywords(mosaic, made.frame_shape)
    solution = made.solution
    names = np.array(solution.names)
    layers = []
    nominal = aligned_nominal(made)
    if nominal is not None:
        known = np.isfinite(nominal).all(axis=1)
        colours = [_NOMINAL if ok else LOST for ok in solution.placed[known]]
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


def _colour_of(pair: "PairReport") -> tuple[float, float, float, float]:
    """Colour of one joint, faint where it is not used."""
    from matplotlib.colors import to_rgba

    if not pair.used:
        red, green, blue, _ = to_rgba(REJECTED)
        return red, green, blue, 0.45
    if pair.ambiguous:
        red, green, blue, alpha = to_rgba(AMBIGUOUS)
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


def add_joint_layer(
    viewer: "napari.viewer.Viewer", made: StitchedFile, mosaic: Micrograph, name: str
) -> Any:
    """Add a line for each joint between two frames that are placed.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer.
    made : StitchedFile
        A stitched scan.
    mosaic : Micrograph
        Its mosaic, which gives the calibration.
    name : str
        What the scan is called.

    Returns
    -------
    napari.layers.Shapes or None
        Lines from centre to centre: viridis by correlation where used, orange where
        ambiguous, red where rejected; None when there is no joint.
    """
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
        edge_color=np.array([_colour_of(pair) for pair in pairs]),
        features=_joint_features(pairs, solution.names),
        **keywords,
    )
