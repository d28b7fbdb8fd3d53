"""Image files that the services read."""

from pathlib import Path

import pytest

from napari_semsr.io.formats import write


@pytest.fixture
def folder(tmp_path, scene) -> Path:
    """A folder with the scene's exposures and truth as calibrated TIFF."""
    for image in (scene.truth, scene.first, scene.second):
        write(image, tmp_path / f"{image.name}.tif")
    return tmp_path


@pytest.fixture
def own_shelf(tmp_path, monkeypatch) -> Path:
    """Where models are imported to, in the folder of the test."""
    folder = tmp_path / "data" / "shelf"
    monkeypatch.setenv("SEMSR_MODELS", str(folder))
    return folder
