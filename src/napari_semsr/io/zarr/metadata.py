"""The metadata of an OME-Zarr image: axes, units, and where each level lies.

Composed and validated by yaozarrs: what it refuses is never written.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.io.record import Record

if TYPE_CHECKING:
    from yaozarrs import v05

# Coarser levels of an image: means of two by two pixels.


def level_shapes(
    shape: tuple[int, int], *, smallest: int = 256
) -> list[tuple[int, int]]:
    """Plan the levels of a pyramid.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the finest level.
    smallest : int, default=256
        Halving goes on while the longer side exceeds this.

    Returns
    -------
    list of tuple of int
        Shape of every level, the finest first; odd sides round up.
    """
    shapes = [shape]
    while max(shapes[-1]) > max(smallest, 1):
        rows, columns = shapes[-1]
        shapes.append(((rows + 1) // 2, (columns + 1) // 2))
    return shapes


def level_origin(
    origin: tuple[float, float], scale: tuple[float, float], level: int
) -> tuple[float, float]:
    """Centre ``(y, x)`` of the first pixel of a level; `origin` is the finest level's.

    It is the centre of the ``2**level`` pixels that it averages.
    """
    shift = (2**level - 1) / 2
    return origin[0] + shift * scale[0], origin[1] + shift * scale[1]


def halve(block: NDArray[Any]) -> NDArray[Any]:
    """Average two by two pixels.

    NaN pixels are left out of the mean; a pixel made of NaN only stays NaN. At odd
    sides the last row or column is averaged with itself.

    Parameters
    ----------
    block : (Y, X) numpy.ndarray
        Any real or boolean type.

    Returns
    -------
    (ceil(Y / 2), ceil(X / 2)) numpy.ndarray
        Same type; integers are rounded, booleans decided by the majority.
    """
    rows, columns = block.shape
    padded = np.pad(block, ((0, rows % 2), (0, columns % 2)), mode="edge")
    work = np.float32 if block.dtype.itemsize < 4 or block.dtype == "f4" else np.float64
    shape = padded.shape[0] // 2, padded.shape[1] // 2
    total, count = np.zeros(shape, work), np.zeros(shape, np.uint8)
    with np.errstate(invalid="ignore", over="ignore"):
        for quarter in (padded[i::2, j::2] for i in (0, 1) for j in (0, 1)):
            known = ~np.isnan(quarter) if block.dtype.kind == "f" else True
            np.add(total, quarter, out=total, where=known, casting="unsafe")
            count += known
        mean = np.divide(
            total, count, out=np.full(shape, np.nan, work), where=count > 0
        )
        if block.dtype.kind == "b":
            return np.asarray(mean >= 0.5)
        if block.dtype.kind in "ui":
            np.rint(mean, out=mean)
        return np.asarray(mean.astype(block.dtype))


def multiscales(record: Record, levels: int) -> dict[str, Any]:
    """Compose the OME-Zarr 0.5 metadata, the value of the group's ``ome`` attribute.

    Units stand in the axes when the image is calibrated; without a calibration there
    is no unit, and the scale counts pixels of the parent image.
    """
    from yaozarrs import v05

    image = _multiscale(record, record.name, levels, "mean")
    return v05.Image(multiscales=[image]).model_dump(exclude_none=True)


def label_metadata(record: Record, name: str, levels: int) -> dict[str, Any]:
    """Compose the metadata of a label image that lies on an image of a record."""
    from yaozarrs import v05

    said = {
        "multiscales": [_multiscale(record, name, levels)],
        "image-label": v05.ImageLabel(source=v05.LabelSource(image="../../")),
    }
    return v05.LabelImage.model_validate(said).model_dump(exclude_none=True)


def labels_metadata(names: list[str]) -> dict[str, Any]:
    """Compose the metadata of the group that holds the label images of an image."""
    from yaozarrs import v05

    return v05.LabelsGroup(labels=names).model_dump(exclude_none=True)


def _multiscale(
    record: Record, name: str, levels: int, method: str | None = None
) -> "v05.Multiscale":
    """Say where each level lies, and by which method it was made."""
    from yaozarrs import v05

    unit = None if record.pixel_size_nm is None else "nanometer"
    pitch = record.spacing_px if record.pixel_size_nm is None else record.pixel_size_nm
    datasets = [
        v05.Dataset(
            path=str(level),
            coordinateTransformations=[
                v05.ScaleTransformation(scale=[side * 2**level for side in pitch]),
                v05.TranslationTransformation(
                    translation=list(level_origin(record.origin, pitch, level))
                ),
            ],
        )
        for level in range(levels)
    ]
    axes: list[Any] = [v05.SpaceAxis(name=axis, unit=unit) for axis in ("y", "x")]
    return v05.Multiscale(name=name, axes=axes, datasets=datasets, type=method)
