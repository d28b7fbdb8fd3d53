"""The layers of an FRC map: resolutions in colour, failed blocks by their reason."""

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils import DirectLabelColormap
from numpy.typing import NDArray

from napari_semsr.analysis.criteria import REASONS, code_of
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.widgets._layers import contrast_limits, layer_keywords

if TYPE_CHECKING:
    import napari.viewer

__all__ = ["REASON_COLOURS", "REASON_TEXTS", "add_failed_layer", "add_map_layer"]

# Colours that viridis has not, so that a failed block is never read as a number.
REASON_COLOURS = {
    "no-signal": "#9aa0a6",
    "correlated-noise": "#d7263d",
    "identical": "#e040fb",
    "periodic": "#ff5722",
    "too-small": "#8c4a2f",
    "beyond-nyquist": "#ffffff",
    "not-independent": "#ff8fd8",
}
REASON_TEXTS = {
    "no-signal": "nothing but noise, or no contrast",
    "correlated-noise": "both images share their noise, so it never falls",
    "identical": "both images are the same",
    "periodic": "a grating or lattice, whose rings hold no curve",
    "too-small": "the block is too small for a resolution this coarse",
    "beyond-nyquist": "finer than the pixels can show",
    "not-independent": "both were made from one acquisition by a network",
}


def add_map_layer(viewer: "napari.viewer.Viewer", result: Micrograph, name: str) -> Any:
    """Add a map of resolutions as a translucent overlay.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer.
    result : Micrograph
        One pixel for each block position; NaN where there is no crossing.
    name : str
        What the map was made of.

    Returns
    -------
    napari.layers.Image
        The layer; its contrast limits are the 1st and 99th percentile.
    """
    data = np.asarray(result.array(), dtype=np.float32)
    keywords = layer_keywords(
        result,
        name=f"FRC map ({result.unit}) of {name}",
        contrast_limits=contrast_limits(data, 1, 99),
        colormap="viridis",
        blending="translucent",
        opacity=0.55,
        interpolation2d="nearest",
    )
    layer = viewer.add_image(data, **keywords)
    colorbar = getattr(layer, "colorbar", None)
    if colorbar is not None and np.isfinite(data).any():
        colorbar.visible = True
    return layer


def add_failed_layer(
    viewer: "napari.viewer.Viewer",
    result: Micrograph,
    codes: NDArray[np.uint8],
    name: str,
) -> Any:
    """Add the blocks without a resolution, coloured and named by their reason.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer.
    result : Micrograph
        The map; the layer lies on its grid.
    codes : (Y, X) numpy.ndarray of uint8
        0 where there is a resolution, else the code of a reason.
    name : str
        What the map was made of.

    Returns
    -------
    napari.layers.Labels or None
        The layer; None when no block failed.
    """
    if not np.any(codes):
        return None
    colours: dict[int | None, str] = {None: "transparent", 0: "transparent"}
    colours |= {code_of(reason): REASON_COLOURS[reason] for reason in REASONS}
    keywords = layer_keywords(result, contrast_limits=(0, 1))
    for unwanted in ("contrast_limits", "rgb"):
        keywords.pop(unwanted)
    keywords["name"] = f"Failed blocks of {name}"
    return viewer.add_labels(
        np.asarray(codes),
        colormap=DirectLabelColormap(color_dict=colours),
        features={
            "index": np.arange(len(REASONS) + 1),
            "reason": ["", *REASONS],
        },
        opacity=0.8,
        **keywords,
    )
