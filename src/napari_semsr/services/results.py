"""What services return: frozen values that turn into JSON without NaN."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import date
from pathlib import PurePath
from typing import Any

import numpy as np
from pydantic import BaseModel

__all__ = ["Result", "jsonable"]


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
    """Base of what a service returns.

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
