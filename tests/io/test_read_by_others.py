"""What we write, read by the programs that our users have, by their own rules.

napari-ome-zarr reads through ``ome_zarr``; Fiji reads ImageJ's tags, and OME-XML by
Bio-Formats. None of them is started here: their rules are applied.
"""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_semsr.core import Micrograph
from napari_semsr.io import formats as registry

SIZE, ORIGIN = (7.5, 2.5), (30.0, 45.0)


@pytest.fixture
def image(rng):
    data = rng.integers(0, 60000, (300, 260)).astype(np.uint16)
    return Micrograph(data, SIZE, "image", origin=ORIGIN)


def _levels_as_napari_ome_zarr(path: Path):
    """Scale, place, unit and pixels of each level, as ``napari_ome_zarr`` asks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ome_zarr.io import parse_url
        from ome_zarr.reader import Reader

        (node, *_) = list(Reader(parse_url(str(path)))())
        levels = []
        found = node.metadata["coordinateTransformations"]
        for data, steps in zip(node.data, found, strict=True):
            told = {step["type"]: step[step["type"]] for step in steps}
            levels.append((told["scale"], told.get("translation", [0, 0]), data))
    return node.metadata["axes"], levels


@pytest.mark.broad
def test_ome_zarr_is_in_its_place_for_napari_ome_zarr(tmp_path, image):
    path = tmp_path / "a.ome.zarr"
    registry.write(image, path)
    axes, levels = _levels_as_napari_ome_zarr(path)
    assert [(a["name"], a["unit"]) for a in axes] == [
        ("y", "nanometer"),
        ("x", "nanometer"),
    ]
    scale, place, data = levels[0]
    assert scale == pytest.approx(SIZE)
    assert place == pytest.approx(ORIGIN)
    np.testing.assert_array_equal(np.asarray(data), image.data)
    for scale, place, data in levels[1:]:  # the same area, with fewer pixels
        for axis in (0, 1):
            first = place[axis] - scale[axis] / 2
            assert first == pytest.approx(ORIGIN[axis] - SIZE[axis] / 2)
            covered = scale[axis] * data.shape[axis]
            whole = SIZE[axis] * image.shape[axis]
            assert abs(covered - whole) <= scale[axis]


def test_tiff_has_its_scale_by_the_tags_of_imagej(tmp_path, image):
    path = tmp_path / "a.tif"
    registry.write(image, path)
    with tifffile.TiffFile(path) as tif:
        tags = tif.pages[0].tags
        said = dict(
            line.split("=", 1)
            for line in tags["ImageDescription"].value.splitlines()
            if "=" in line
        )
        per = [np.divide(*tags[f"{axis}Resolution"].value) for axis in "YX"]
    # ImageJ's Calibration: 1 / resolution, in the unit of the description
    assert said["unit"] == "nm"
    assert [1 / value for value in per] == pytest.approx(SIZE, rel=1e-6)
    assert re.match(r"\d", said["ImageJ"])


def test_ome_tiff_has_its_scale_by_ome_xml(tmp_path, image):
    path = tmp_path / "a.ome.tif"
    registry.write(image, path)
    with tifffile.TiffFile(path) as tif:
        pixels = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Pixels"]
    found = [pixels[f"PhysicalSize{axis}"] for axis in "YX"]
    (unit,) = {pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "YX"}
    nm = {"nm": 1.0, "µm": 1000.0}[unit]
    assert [nm * value for value in found] == pytest.approx(SIZE)
