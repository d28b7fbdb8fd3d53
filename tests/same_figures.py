"""Figures of results, kept in a file beside their test, to be the same again."""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_semsr.core import Micrograph

WITHIN = 2e-4  # relative; other instructions of a processor change 2e-5 or less
Makers = Mapping[str, Callable[[], Any]]


def numbers(value: Any) -> list[tuple[float, float]]:
    """List the numbers of a result, each with its scale.

    Of an array its size, mean, deviation, and its mean on a slope.
    """
    if isinstance(value, Micrograph):
        value = value.array()
    if is_dataclass(value) and not isinstance(value, type):
        names = [item.name for item in fields(value)]
        names += [n for n, v in vars(type(value)).items() if isinstance(v, property)]
        value = [getattr(value, name) for name in dict.fromkeys(names)]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, tuple | list):
        return [x for item in value for x in numbers(item)]
    if isinstance(value, int | float | np.number):
        return [(float(value), abs(float(value)))] if np.isfinite(value) else []
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        return []
    known = value[np.isfinite(value)].astype(float)
    if not known.size:
        return []
    scale = float(np.sqrt((known**2).mean()))
    slope = np.linspace(-1, 1, known.size)
    means = known.mean(), known.std(), (known * slope).mean()
    return [(known.size, known.size), *((float(mean), scale) for mean in means)]


def assert_same(
    record: Path, name: str, result: object, within: float = WITHIN
) -> None:
    """Compare the figures of a result with those in the file."""
    expected = json.loads(record.read_text())[name]
    found, scale = np.transpose(numbers(result))
    assert len(found) == len(expected)
    assert (np.abs(found - expected) <= within * scale + 1e-9).all()


def write_record(record: Path, makers: Makers) -> None:
    rows = []
    for key, make in makers.items():
        values = [float(f"{value:.6g}") for value, _ in numbers(make())]
        rows.append(f"{json.dumps(key)}: {json.dumps(values)}")
    record.write_text("{\n" + ",\n".join(rows) + "\n}\n")
