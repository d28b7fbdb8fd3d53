"""The metadata of an OME-Zarr image: axes, units, and where each level lies."""

from typing import Any

from napari_semsr.io.pyramid import level_origin
from napari_semsr.io.record import Record

__all__ = ["multiscales"]


def multiscales(record: Record, levels: int) -> dict[str, Any]:
    """Compose the OME-Zarr 0.5 metadata, the value of the group's ``ome`` attribute.

    Units stand in the axes when the image is calibrated; without a calibration there
    is no unit, and the scale counts pixels of the parent image.

    Parameters
    ----------
    record : Record
        Name and calibration.
    levels : int
        Levels of the pyramid, the finest among them.

    Returns
    -------
    dict
        As JSON can hold it.
    """
    unit = {} if record.pixel_size_nm is None else {"unit": "nanometer"}
    pitch = record.spacing_px if record.pixel_size_nm is None else record.pixel_size_nm
    datasets = []
    for level in range(levels):
        origin = level_origin(record.origin, pitch, level)
        scale = [pitch[0] * 2**level, pitch[1] * 2**level]
        transformations = [
            {"type": "scale", "scale": scale},
            {"type": "translation", "translation": list(origin)},
        ]
        datasets.append(
            {"path": str(level), "coordinateTransformations": transformations}
        )
    axes = [{"name": name, "type": "space", **unit} for name in ("y", "x")]
    image = {"name": record.name, "axes": axes, "datasets": datasets, "type": "mean"}
    return {"version": "0.5", "multiscales": [image]}
