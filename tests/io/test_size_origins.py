"""What stated a pixel size, through files and steps."""

import numpy as np
import pytest
import tifffile

import napari_semsr as semsr
from napari_semsr.core import Micrograph
from napari_semsr.io import describe, read, write

DATA = np.random.default_rng(0).integers(0, 255, (40, 48)).astype(np.uint8)
OME = {"PhysicalSizeX": 5, "PhysicalSizeXUnit": "nm"}
OME |= {"PhysicalSizeY": 5, "PhysicalSizeYUnit": "nm", "axes": "YX"}


@pytest.fixture
def path(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", DATA, ome=True, metadata=OME)
    return tmp_path / "a.ome.tif"


def test_metadata_of_the_file_and_what_is_typed_over_them(path):
    assert read(path).pixel_size_from == "from the OME-TIFF metadata"
    assert describe(path).pixel_size_from == "from the OME-TIFF metadata"
    known = read(path, pixel_size_nm=7, pixel_size_sd_nm=0.1)
    assert known.pixel_size_from == "from a calibration"
    assert Micrograph(DATA).pixel_size_from is None
    assert Micrograph(DATA, (5, 5)).pixel_size_from == "given with its array"


@pytest.mark.parametrize("name", ["b.ome.tif", "b.tif", "b.ome.zarr"])
def test_what_was_typed_is_known_in_copies_of_copies(path, tmp_path, name):
    write(read(path, pixel_size_nm=7), tmp_path / name)
    assert read(tmp_path / name).pixel_size_from == "typed by the user"
    semsr.crop(tmp_path / name, output=tmp_path / "c.tif", box=(0, 0, 20, 20))
    assert read(tmp_path / "c.tif").pixel_size_from == "typed by the user"
    semsr.crop(path, output=tmp_path / "d.tif", box=(0, 0, 20, 20))
    assert read(tmp_path / "d.tif").pixel_size_from == "from the OME-TIFF metadata"
