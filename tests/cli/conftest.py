"""Small image files, and a way to run a command inside this process."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from napari_semsr.cli.command import main
from napari_semsr.core import run
from napari_semsr.io.formats import write
from napari_semsr.jobs.convert import convert


@dataclass(frozen=True, slots=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def record(self) -> dict[str, Any]:
        """The one JSON object on stdout; NaN and inf are refused."""
        return json.loads(self.out, parse_constant=pytest.fail)


@pytest.fixture
def semsr(capsys, monkeypatch, tmp_path) -> Callable[..., Said]:
    """Run ``semsr`` in this process, in the folder of the images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEMSR_MODELS", str(tmp_path / "shelf"))

    def run(*words: object) -> Said:
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return run


@pytest.fixture
def refused(semsr) -> Callable[..., str]:
    """Run a command that must be refused in one line, and give that line."""

    def run(*words: object) -> str:
        said = semsr(*words)
        assert (said.code, said.out) == (2, "")
        assert said.err.count("\n") == said.err.endswith("\n") == 1
        assert "Traceback" not in said.err
        assert "Unexpected" not in said.err
        return said.err

    return run


@pytest.fixture
def images(tmp_path, scene) -> Path:
    """A folder with two exposures, their truth, and troublesome files."""
    for image in (scene.truth, scene.first, scene.second):
        write(image, tmp_path / f"{image.name}.tif")
    run(convert.job(tmp_path / "first.tif", output=tmp_path / "made.tif"))
    (tmp_path / "text.tif").write_text("not an image")
    (tmp_path / "folder").mkdir()
    corners = "".join(f"{y},{x},{y},{x}\n" for y in (0, 30) for x in (0, 40))
    columns = "moving_y_px,moving_x_px,fixed_y_px,fixed_x_px\n"
    (tmp_path / "landmarks.csv").write_text(columns + corners)
    return tmp_path
