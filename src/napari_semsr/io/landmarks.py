"""Landmarks as CSV: places that show the same in two images, a pair in each row.

The header names the columns, in any order: ``moving_y_nm``, ``moving_x_nm``,
``fixed_y_nm`` and ``fixed_x_nm``, or ``_px`` in place of ``_nm`` for an image whose
places are given in its pixels, counted from the centre of the first. Other columns are
left alone, and semicolons with decimal commas are taken as spreadsheets write them.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from napari_semsr.core import FloatArray, Micrograph, ReadError, one_line, shown as told
from napari_semsr.io.sheets import (
    read_sheet,
    write_rows,
)

_COLUMNS = ("moving_y_nm", "moving_x_nm", "fixed_y_nm", "fixed_x_nm")


def read_landmarks(
    path: Path, moving: Micrograph, fixed: Micrograph
) -> tuple[FloatArray, FloatArray]:
    """Read pairs of landmarks: places ``(y, x)`` (N, 2) in moving and fixed image.

    The table is as `write_landmarks` writes it, or has pixels, which pixel size and
    origin of the images turn into nm; places stay in pixels for images without a pixel
    size.
    """
    sheet = read_sheet(path, "landmarks")
    found = {}
    for side, image in (("moving", moving), ("fixed", fixed)):
        found[side] = _unit(path, sheet.names, side, image)
    places: dict[str, list[list[float]]] = {side: [] for side in found}
    for line, row in sheet.rows:
        cells = dict(zip(sheet.names, row, strict=False))
        for side, unit in found.items():
            here = [cells.get(f"{side}_{axis}_{unit}", "") for axis in "yx"]
            where = f"{path} line {line}"
            places[side].append([_number(cell, sheet.mark, where) for cell in here])
    return (
        _in_nm(places["moving"], found["moving"], moving),
        _in_nm(places["fixed"], found["fixed"], fixed),
    )


def _unit(path: Path, names: Sequence[str], side: str, image: Micrograph) -> str:
    """Find out in what unit the places of an image are given."""
    for unit in ("nm", "px"):
        if {f"{side}_y_{unit}", f"{side}_x_{unit}"} <= set(names):
            if unit == "nm" and image.pixel_size_nm is None:
                msg = (
                    f"{path} has landmarks in nm, but {image.name} has no pixel size: "
                    "give one, or landmarks in pixels "
                    f"({side}_y_px, {side}_x_px)."
                )
                raise ReadError(msg)
            return unit
    given = one_line(", ".join(names)) or "nothing"
    msg = (
        f"{path} must begin with {','.join(_COLUMNS)} (or _px in place of _nm), got "
        f"{given}."
    )
    raise ReadError(msg)


def _number(shown: str, mark: str, where: str) -> float:
    """Read a finite number."""
    try:
        value = float(shown if mark == "," else shown.replace(",", "."))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        msg = (
            f"{where} must hold four finite numbers, got {told(shown)} for one of them."
        )
        raise ReadError(msg)
    return value


def _in_nm(places: list[list[float]], unit: str, image: Micrograph) -> FloatArray:
    """Turn pixels into places of the plane."""
    found = np.array(places, dtype=float).reshape(-1, 2)
    return found if unit == "nm" else found * image.scale + image.origin


def write_landmarks(path: Path, moving: FloatArray, fixed: FloatArray) -> None:
    """Write pairs of landmarks (N, 2), ``(y, x)`` in nm, whole or not at all."""
    rows = np.hstack([moving, fixed]).tolist()
    cells = ([f"{value:.6f}" for value in row] for row in rows)
    write_rows(path, [_COLUMNS, *cells])
