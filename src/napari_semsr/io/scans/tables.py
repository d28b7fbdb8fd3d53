"""The two small files beside frames: ``positions.csv`` and ``scan.json``."""

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import ReadError

_HEADERS: dict[tuple[str, ...], str] = {
    ("y_px", "x_px"): "px",
    ("y_nm", "x_nm"): "nm",
}


@dataclass(frozen=True, slots=True)
class Positions:
    """Nominal corners as a file states them."""

    path: Path  # The file
    unit: str  # ``"px"`` or ``"nm"``
    corners: dict[str, tuple[float, float]]  # ``(y, x)`` by name of the frame
    unplaced: tuple[str, ...] = ()  # Frames that are named, but whose cells are empty

    def array(self, names: tuple[str, ...]) -> NDArray[np.float64]:
        """Corners in the order of frames.

        Gives (N, 2).
        """
        return np.array([self.corners[name] for name in names], dtype=float)


def _inside(folder: Path, name: str, path: Path) -> str:
    """Name of a frame, which must lie in its folder."""
    target = Path(name)
    if (
        not name
        or target.is_absolute()
        or not (folder / target).resolve().is_relative_to(folder.resolve())
    ):
        msg = (
            f"{path.name} must name frames inside {folder}, but has {name!r}: no path "
            "may leave the folder."
        )
        raise ReadError(msg)
    return target.as_posix()


def _number(text: str | None, path: Path, line: int) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        msg = f"{path} line {line} must hold two finite numbers, got {text!r}."
        raise ReadError(msg)
    return value


def read_positions(path: Path, folder: Path) -> Positions:
    """Read nominal positions."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read as a table of positions ({error})."
        raise ReadError(msg) from error
    rows = csv.DictReader(text.splitlines())
    header = tuple(name.strip() for name in rows.fieldnames or ())
    rows.fieldnames = list(header)
    unit = _HEADERS.get(header[1:3]) if header[:1] == ("frame",) else None
    if unit is None:
        given = ",".join(header) or "nothing"
        msg = f"{path} must begin with frame,y_px,x_px or frame,y_nm,x_nm, got {given}."
        raise ReadError(msg)
    corners: dict[str, tuple[float, float]] = {}
    unplaced: list[str] = []
    for line, row in enumerate(rows, start=2):
        name = _inside(folder, (row["frame"] or "").strip(), path)
        if name in corners or name in unplaced:
            msg = f"{path} names frame {name} twice (again in line {line}): keep one."
            raise ReadError(msg)
        if not any((row[key] or "").strip() for key in header[1:3]):
            unplaced.append(name)
            continue
        corners[name] = (
            _number(row[header[1]], path, line),
            _number(row[header[2]], path, line),
        )
    return Positions(path, unit, corners, tuple(unplaced))


def read_scan(folder: Path) -> dict[str, Any]:
    """Read what ``scan.json`` says of a scan."""
    path = folder / "scan.json"
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{path} must be a JSON object, but cannot be read as one ({error})."
        raise ReadError(msg) from error
    if not isinstance(found, dict):
        msg = f"{path} must be a JSON object, got {type(found).__name__}."
        raise ReadError(msg)
    return found
