"""What jobs return, as JSON without NaN, and where outputs may go."""

import math
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import date
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from pydantic import BaseModel

from napari_semsr.core import WriteError
from napari_semsr.io import check_target, filling_store


def jsonable(value: object) -> Any:
    """Turn a value into what JSON can hold.

    Parameters
    ----------
    value : object
        Numbers, arrays, mappings, sequences, dataclasses, pydantic models, paths.

    Returns
    -------
    object
        The same made of dict, list, str, int, float, bool and None; numbers that are
        not finite become None, and what JSON has no word for becomes its text.
    """
    if isinstance(value, (np.ndarray, np.generic)):
        return jsonable(value.tolist())
    if isinstance(value, BaseModel):
        return jsonable(value.model_dump())
    if is_dataclass(value) and not isinstance(value, type):
        return {
            item.name: jsonable(getattr(value, item.name)) for item in fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(item) for item in value]
    return _scalar(value)


def _scalar(value: object) -> Any:
    """Turn one value that holds no others."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, (PurePath, date, complex)):
        return str(value)
    return str(value)


@dataclass(frozen=True, slots=True)
class Result:
    """Base of what a job returns.

    Fields whose metadata say ``json=False`` stay out of the record: arrays and other
    things that a panel wants and a command does not print.
    """

    def to_json(self) -> dict[str, Any]:
        """Give the record that a command prints.

        Returns
        -------
        dict
            Made only of what JSON can hold.
        """
        return {
            item.name: jsonable(getattr(self, item.name))
            for item in fields(self)
            if item.metadata.get("json", True)
        }


# Where outputs may go: asked before any work, so that nothing long is done in vain.


def check_image_target(
    output: str | os.PathLike[str],
    *,
    inputs: Iterable[str | os.PathLike[str]] = (),
    overwrite: bool = False,
) -> Path:
    """Refuse a place where an image cannot or must not be written.

    Parameters
    ----------
    output : path
        Where the image shall go; its suffix names the format.
    inputs : iterable of path, optional
        Files that the job reads; none of them may be the output.
    overwrite : bool, default=False
        Whether an existing output may be replaced.

    Returns
    -------
    pathlib.Path
        The output.

    Raises
    ------
    WriteError
        If the output exists, is an input, or cannot be made.
    """
    path = Path(output)
    check_not_input(path, inputs)
    _check_parent(path)
    check_target(path, overwrite=overwrite)
    return path


def check_tiled_target(
    output: str | os.PathLike[str],
    *,
    inputs: Iterable[str | os.PathLike[str]] = (),
    overwrite: bool = False,
    resume: bool = False,
) -> Path:
    """Refuse a place for an image made tile by tile, unless it goes on there."""
    path = Path(output)
    if resume and path.exists() and filling_store(path) == path:
        check_not_input(path, inputs)
        return path
    return check_image_target(output, inputs=inputs, overwrite=overwrite)


def check_target_file(
    output: str | os.PathLike[str],
    *,
    suffixes: Collection[str],
    inputs: Iterable[str | os.PathLike[str]] = (),
    overwrite: bool = False,
) -> Path:
    """Refuse a place where a table, page or model cannot or must not be written."""
    path = Path(output)
    if not path.name.lower().endswith(tuple(suffixes)):
        wanted = " or ".join(suffixes)
        msg = f"The output must end in {wanted}, got {path.name}."
        raise WriteError(msg)
    check_not_input(path, inputs)
    _check_parent(path)
    if path.is_dir():
        msg = f"{path} is a folder; name a file."
        raise WriteError(msg)
    if path.exists() and not overwrite:
        msg = f"{path} exists; choose another name or give --overwrite."
        raise WriteError(msg)
    return path


def check_target_folder(
    output: str | os.PathLike[str], *, overwrite: bool, parents: bool = False
) -> Path:
    """Refuse a folder that holds something already.

    Parameters
    ----------
    output : path
        The folder; made when the job starts.
    overwrite : bool
        Whether files inside may be replaced.
    parents : bool, default=False
        Whether the job makes the folders above it, too, where they are missing.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    WriteError
        If it is a file, holds files, or the folder above it is missing or read-only.
    """
    path = Path(output)
    first = path
    while parents and not first.absolute().parent.exists():
        first = first.absolute().parent
    _check_parent(first)
    if path.exists() and not path.is_dir():
        msg = f"{path} is a file; name a folder."
        raise WriteError(msg)
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        msg = f"The folder {path} is not empty; choose another or give --overwrite."
        raise WriteError(msg)
    return path


def check_not_input(path: Path, inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Refuse to write over what is being read."""
    for item in inputs:
        source = Path(item).resolve()
        if source == path.resolve():
            msg = f"The output {path} is the input itself; choose another name."
            raise WriteError(msg)
        if source.suffix == ".zarr" and source in path.resolve().parents:
            msg = f"The output {path} lies inside the input {item}; choose another."
            raise WriteError(msg)


def _check_parent(path: Path) -> None:
    """Refuse a folder that is missing or read-only."""
    parent = path.absolute().parent
    if parent.exists() and not parent.is_dir():
        msg = f"{parent} is a file, so nothing can be written below it; choose another."
        raise WriteError(msg)
    if not parent.is_dir():
        msg = f"The folder {parent} does not exist; make it first."
        raise WriteError(msg)
    if not os.access(parent, os.W_OK):
        msg = f"The folder {parent} cannot be written to; choose another."
        raise WriteError(msg)
