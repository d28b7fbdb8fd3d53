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
