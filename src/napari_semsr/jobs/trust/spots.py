"""Look in a field for objects that its model may have invented."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_semsr.analysis import (
    OBJECT_NUMBERS,
    OBJECT_REACH_PX,
    REACH_PX,
    ObjectDoubt,
    Objects,
    clues,
    error_scale,
    find_objects,
    spread_boxes,
)
from napari_semsr.core import (
    BoolArray,
    Box,
    CheckpointError,
    FloatArray,
    FloatPair,
    Job,
    Progress,
)
from napari_semsr.io import write_sheet
from napari_semsr.jobs.images import computed

if TYPE_CHECKING:
    from napari_semsr.models import Trust, TrustOfObjects

_BLOCK = 512  # pixels along each side of what is looked at once; chosen
_SAMPLED, _SIDE = 16, 256  # blocks whose grey levels give those of the field

Read = Callable[[Box], tuple[FloatArray, FloatArray, FloatArray]]
"""Reads before, after and spread in a part of the field, on the model's scale."""


@dataclass(frozen=True, slots=True)
class DoubtedObjects:
    """Small objects of an enhanced image, and how likely each is invented.

    Attributes
    ----------
    places_px : (N, 2) numpy.ndarray
        ``(y, x)`` in pixels of the map of the bound.
    places_nm : (N, 2) numpy.ndarray or None
        In the plane of the images; None without a pixel size.
    radii_px : (N,) numpy.ndarray
        In pixels of the map.
    contrast : (N,) numpy.ndarray
        Disc less ring, in per cent of the range of grey levels; below 0 if darker.
    doubt : (N,) numpy.ndarray
        How likely the sample shows less than half of that contrast, 0 to 1.
    limit : float
        Doubt that one in twenty of the calibration's objects that are there exceeds.
    """

    places_px: FloatArray
    places_nm: FloatArray | None
    radii_px: FloatArray
    contrast: FloatArray
    doubt: FloatArray
    limit: float

    def __len__(self) -> int:
        return len(self.doubt)

    @property
    def doubtful(self) -> BoolArray:
        """Which of them are beyond the limit."""
        return np.asarray(self.doubt > self.limit)

    def columns(self) -> dict[str, list[float] | list[int]]:
        """Give a table; index and axes are what napari reads as points.

        Returns
        -------
        dict
            Columns by their names.
        """
        table: dict[str, list[float] | list[int]] = {
            "index": list(range(len(self))),
            "axis-0": self.places_px[:, 0].tolist(),
            "axis-1": self.places_px[:, 1].tolist(),
        }
        if self.places_nm is not None:
            table["y_nm"] = self.places_nm[:, 0].tolist()
            table["x_nm"] = self.places_nm[:, 1].tolist()
        return table | {
            "radius_px": self.radii_px.tolist(),
            "contrast_percent": self.contrast.tolist(),
            "doubt": self.doubt.tolist(),
            "doubtful": self.doubtful.astype(int).tolist(),
        }

    def write(self, path: Path) -> None:
        """Write the table.

        Parameters
        ----------
        path : pathlib.Path
            Ends in ``.csv`` or ``.parquet``.
        """
        write_sheet(path, self.columns())


def doubt_objects(
    read: Read,
    field: Box,
    trust: "Trust",
    *,
    pitch: FloatPair,
    origin: FloatPair | None,
) -> Job[DoubtedObjects | None]:
    """Find the objects of a field block by block, and tell how likely each is invented.

    `origin` is the centre of the field's first pixel in nm, `pitch` a pixel's side.
    None comes back where nothing was learnt of objects.
    """
    known = trust.objects
    if known is None:
        return None
    boxes = spread_boxes(field, None, _BLOCK)
    deviation = _deviation(read, field)

    def look(box: Box) -> Objects:
        return _objects_in(read, box, field, trust, deviation)

    found = []
    for number, part in enumerate(computed(look, boxes)):
        found.append(part)
        yield Progress(number + 1, len(boxes), "looking at objects")
    places = np.concatenate([part.centres for part in found]).astype(float)
    places -= np.array(field.corner)
    return DoubtedObjects(
        places_px=places,
        places_nm=None if origin is None else places * pitch + np.array(origin),
        radii_px=np.concatenate([part.radii for part in found]),
        contrast=100 * np.concatenate([part.contrast for part in found]),
        doubt=doubt_of(known, np.concatenate([part.seen for part in found])),
        limit=known.limit,
    )


def doubt_of(known: "TrustOfObjects", seen: FloatArray) -> FloatArray:
    """Tell how likely objects are invented, by what a trust file holds.

    Parameters
    ----------
    known : TrustOfObjects
        What was learnt of a model's objects.
    seen : (N, 15) numpy.ndarray
        As `napari_semsr.analysis.find_objects` gives it.

    Returns
    -------
    (N,) numpy.ndarray
        Chances, 0 to 1.

    Raises
    ------
    CheckpointError
        If what was learnt has other numbers.
    """
    if len(known.middle) != OBJECT_NUMBERS:
        msg = (
            f"What was learnt of objects must have {OBJECT_NUMBERS} numbers, got "
            f"{len(known.middle)}; run semsr models trust again."
        )
        raise CheckpointError(msg)
    parts = known.middle, known.deviation, known.weights
    return ObjectDoubt(*map(np.array, parts)).of(seen)


def _deviation(read: Read, field: Box) -> float:
    """Deviation of the grey levels, from some of the field's blocks."""
    boxes = spread_boxes(field, _SAMPLED, _SIDE)
    values = np.concatenate([read(box)[1].ravel() for box in boxes])
    known = values[np.isfinite(values)]
    return float(known.std()) if known.size else 0.0


def _objects_in(
    read: Read, box: Box, field: Box, trust: "Trust", deviation: float
) -> Objects:
    """Find the objects whose centres lie in a block, and all of which is known."""
    grown = box.grow(OBJECT_REACH_PX + REACH_PX).intersection(field)
    parts = read(grown)
    known = np.asarray(np.isfinite(parts).all(axis=0))
    filled = [
        np.where(known, part, part[known].mean() if known.any() else 0.0)
        for part in parts
    ]
    before, after, spread = filled
    scale = error_scale(clues(before, after, spread), np.array(trust.weights))
    found = find_objects(before, after, spread, scale, deviation=deviation)
    inner = box.within(grown)
    rows, columns = found.centres.T
    here = (rows >= inner.y0) & (rows < inner.y1)
    here &= (columns >= inner.x0) & (columns < inner.x1)
    here &= found.lies_in(known)
    kept = found.chosen(here)
    moved = kept.centres + np.array(grown.corner)
    return Objects(moved, kept.radii, kept.contrast, kept.seen)
