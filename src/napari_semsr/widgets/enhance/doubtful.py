"""Objects that a model likely invented, as rings over what it made."""

from typing import TYPE_CHECKING

import numpy as np

from napari_semsr.io import HELPER_KEY

if TYPE_CHECKING:
    import napari

    from napari_semsr.jobs import TrustReport

_WIDER = 2.5  # diameter of a ring over that of its object, which it leaves to be seen


def show_doubtful(
    viewer: "napari.viewer.Viewer", trust: "TrustReport", name: str
) -> None:
    """Add a layer of the objects that are likely invented; none without any."""
    found, about = trust.found, trust.map
    if found is None or about is None or not found.doubtful.any():
        return
    which = found.doubtful
    active = viewer.layers.selection.active
    viewer.add_points(
        found.places_px[which],
        name=f"likely invented in {name}",
        size=2 * _WIDER * found.radii_px[which],
        symbol="ring",
        face_color="doubt",
        face_colormap="plasma",
        face_contrast_limits=(0.0, 1.0),
        border_width=0,
        features={
            "doubt": np.round(found.doubt[which], 3),
            "contrast_percent": np.round(found.contrast[which], 1),
            "radius_px": found.radii_px[which],
        },
        scale=about.scale,
        translate=about.origin,
        units=(about.unit, about.unit),
        axis_labels=("y", "x"),
        metadata={HELPER_KEY: "Enhance"},
    )
    viewer.layers.selection.active = active
