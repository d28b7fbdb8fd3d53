"""What stated a pixel size, through files and steps."""

from datetime import datetime

import numpy as np
import pytest
import tifffile

import napari_semsr as semsr
from napari_semsr.core import Micrograph, Provenance, micrograph
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
    typed = read(path, pixel_size_nm=7)
    assert typed.pixel_size_from == "typed by the user"
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


def test_steps_that_change_a_pixel_size_are_named():
    source = Micrograph(DATA, (5, 5)).calibrate((6, 6))
    made = Provenance(job="enhance", options=dict(source.metadata))
    finer = source.replace(provenance=made).with_pixel_size((3, 3))
    told = "typed by the user as 6 nm, divided by 2 by its step enhance"
    assert finer.pixel_size_from == told
    assert finer.replace(metadata={}).pixel_size_from == told
    assert finer.calibrate((3, 3)).pixel_size_from == "typed by the user"


@pytest.mark.parametrize(
    ("name", "dtype"), [("a.ome.tif", "uint8"), ("a.tif", "uint8"), ("a.tif", "f8")]
)
def test_a_typed_size_is_kept_when_writing_takes_a_while(
    tmp_path, monkeypatch, name, dtype
):
    seconds = iter(range(60))

    class Slow(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 1, 0, 0, next(seconds), tzinfo=tz)

    monkeypatch.setattr(micrograph, "datetime", Slow)
    image = Micrograph(np.eye(8).astype(dtype) * 0.1, (5.0, 5.0))
    write(image.with_size_source("typed"), tmp_path / name)
    assert "typed" in read(tmp_path / name).pixel_size_from
