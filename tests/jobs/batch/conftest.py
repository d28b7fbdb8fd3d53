"""Six small scans, and a way to run steps over them in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import napari_semsr
from napari_semsr.core import Micrograph
from napari_semsr.io import write
from napari_semsr.jobs import BatchReport

NUMBERS = (0, 1, 2, 3, 10, 11)
STEPS = [{"degrade": {"kind": "blur"}}, "frc", {"metrics": {"reference": "{input}"}}]


@pytest.fixture
def scans(tmp_path) -> Path:
    """A folder of six images, each other than the rest."""
    folder = tmp_path / "scans"
    folder.mkdir()
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:72, :64]
    for number in NUMBERS:
        wave = 120 + 60 * np.sin(x / (3 + number / 4)) * np.cos(y / 5)
        grey = wave + rng.normal(0, 6, wave.shape)
        image = Micrograph(grey.clip(0, 255).astype(np.uint8), (5, 5), f"s{number}")
        write(image, folder / f"s{number}.tif")
    return folder


@pytest.fixture
def save(tmp_path) -> Callable[..., Path]:
    """Write a steps file."""

    def put(steps: Any = STEPS, name: str = "steps.yaml", **more: Any) -> Path:
        content = {"inputs": "scans", "output": "made", "steps": steps, **more}
        path = tmp_path / name
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return path

    return put


@pytest.fixture
def batch() -> Callable[..., BatchReport]:
    """Run a batch to its end."""

    def go(steps: Any, **how: Any) -> BatchReport:
        report = how.pop("report", None)
        return napari_semsr.batch(steps, progress=report, **how)

    return go
