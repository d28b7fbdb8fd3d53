"""The centred spectrum as a layer, and the rings that make it readable.

A spectrum's axes are frequencies, but a viewer has one unit: a layer in µm⁻¹, or one
in pixels, would switch the scale bar of all layers off. So the spectrum is laid
beside its image, as large as the image itself and in the image's unit, and its own
scale is drawn onto it: rings labelled with the period that they stand for.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.widgets._layers import contrast_limits, layer_keywords

if TYPE_CHECKING:
    import napari.viewer

__all__ = ["add_rings", "add_spectrum_layer", "ring_periods"]

_GAP = 1.06
_RADII = (0.85, 0.5, 0.25)
_NICE = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
_STEPS = np.outer(10.0 ** np.arange(-3, 8), _NICE).ravel()
_LEAST_RADIUS_PX = 6
_COLOUR = "#ffd400"


def beside(image: Micrograph, shape: tuple[int, int], place: int = 1) -> Micrograph:
    """Grid of a plane as large as an image, to its right.

    Parameters
    ----------
    image : Micrograph
        The image.
    shape : tuple of int
        Rows and columns of the plane.
    place : int, default=1
        How many image widths to the right.

    Returns
    -------
    Micrograph
        An empty plane with the image's unit.
    """
    pitch = tuple(
        p * n / m for p, n, m in zip(image.scale, image.shape, shape, strict=True)
    )
    y, x = image.origin
    origin = (y, x + place * _GAP * image.shape[1] * image.scale[1])
    calibrated = image.pixel_size_nm is not None
    return Micrograph(
        data=np.broadcast_to(np.float32(0), shape),
        pixel_size_nm=image.replace(pixel_size_nm=pitch).pixel_size_nm
        if calibrated
        else None,
        spacing_px=(1.0, 1.0) if calibrated else (pitch[0], pitch[1]),
        origin=origin,
        name=image.name,
    )


def ring_periods(image: Micrograph) -> list[float]:
    """Round periods that an image's spectrum can show.

    Parameters
    ----------
    image : Micrograph
        The image.

    Returns
    -------
    list of float
        Up to three, the finest first; in nm when calibrated, else in pixels.
    """
    pitch = image.scale if image.pixel_size_nm is not None else (1.0, 1.0)
    finest = 2 * max(pitch)
    coarsest = min(p * n for p, n in zip(pitch, image.shape, strict=True))
    coarsest /= _LEAST_RADIUS_PX
    wanted = [float(_STEPS[0.999 * finest / radius <= _STEPS][0]) for radius in _RADII]
    return [period for period in wanted if period <= coarsest]


def add_spectrum_layer(
    viewer: "napari.viewer.Viewer",
    image: Micrograph,
    plane: NDArray[Any],
    *,
    place: int = 1,
) -> Any:
    """Show a centred log power spectrum beside its image.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer.
    image : Micrograph
        What the spectrum is of.
    plane : (Y, X) numpy.ndarray
        Logarithm of power, zero frequency at ``(Y // 2, X // 2)``.
    place : int, default=1
        How many image widths to the right of the image.

    Returns
    -------
    napari.layers.Image
        The layer; its metadata hold the frequency of one pixel.
    """
    pitch = image.scale if image.pixel_size_nm is not None else (1.0, 1.0)
    step = tuple(1.0 / (n * p) for n, p in zip(image.shape, pitch, strict=True))
    per = "nm" if image.pixel_size_nm is not None else "px"
    grid = beside(image, (plane.shape[0], plane.shape[1]), place)
    keywords = layer_keywords(
        grid,
        name=f"Spectrum of {image.name}",
        contrast_limits=contrast_limits(plane, 25, 99.95),
        colormap="magma",
        interpolation2d="nearest",
    )
    keywords["metadata"] = {
        "spectrum": {f"frequency_step_per_{per}": step, "quantity": "log10 power"}
    }
    return viewer.add_image(plane, **keywords)


def add_rings(viewer: "napari.viewer.Viewer", image: Micrograph, layer: Any) -> Any:
    """Draw rings of round periods onto a spectrum layer.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer.
    image : Micrograph
        What the spectrum is of.
    layer : napari.layers.Image
        The spectrum.

    Returns
    -------
    napari.layers.Shapes or None
        The rings; None where the image is too small for any.
    """
    periods = ring_periods(image)
    if not periods:
        return None
    calibrated = image.pixel_size_nm is not None
    pitch = image.scale if calibrated else (1.0, 1.0)
    rows, columns = layer.data.shape[-2:]
    centre = np.array([rows // 2, columns // 2], dtype=float)
    extent = np.array([n * p for n, p in zip(image.shape, pitch, strict=True)])
    radii = [extent / period for period in periods]
    boxes = [np.stack([centre - radius, centre + radius]) for radius in radii]
    corners = [
        np.array([[a[0], a[1]], [a[0], b[1]], [b[0], b[1]], [b[0], a[1]]])
        for a, b in boxes
    ]
    labels = [_label(period, calibrated=calibrated) for period in periods]
    return viewer.add_shapes(
        corners,
        shape_type="ellipse",
        name=f"Periods of {image.name}",
        features={"period": labels},
        text={
            "string": "{period}",
            "anchor": "upper_left",
            "color": _COLOUR,
            "size": 10,
        },
        edge_color=_COLOUR,
        edge_width=max(1.0, rows / 250),
        face_color="transparent",
        opacity=1.0,
        scale=layer.scale,
        translate=layer.translate,
        units=layer.units,
        axis_labels=("y", "x"),
    )


def _label(period: float, *, calibrated: bool) -> str:
    if not calibrated:
        return f"{period:g} px"
    return f"{period:g} nm"
