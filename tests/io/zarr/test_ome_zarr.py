"""OME-Zarr written by others, in both layouts, whole and damaged."""

import numpy as np
import pytest
import zarr

from napari_semsr.core.errors import ReadError
from napari_semsr.io import formats as registry
from napari_semsr.io.zarr.image import tell_missing


@pytest.fixture
def foreign(tmp_path, rng):
    """Write a store as others do."""

    def write(
        shape=(40, 50),
        *,
        axes="yx",
        unit="micrometer",
        scale=0.005,
        version="0.4",
        common=None,
        shift=None,
        name="a.ome.zarr",
        chunks=None,
    ):
        path = tmp_path / name
        data = rng.integers(0, 250, shape).astype(np.uint16)
        group = zarr.create_group(path, zarr_format=2 if version == "0.4" else 3)
        datasets = []
        for level in range(2):
            step = 2**level
            part = data[..., ::step, ::step]
            array = group.create_array(
                str(level),
                shape=part.shape,
                dtype=part.dtype,
                chunks=chunks or (16,) * part.ndim,
            )
            array[...] = part
            full = [1.0] * (part.ndim - 2) + [scale * step] * 2
            steps = [{"type": "scale", "scale": full}]
            if shift is not None:
                steps.append({"type": "translation", "translation": shift})
            datasets.append({"path": str(level), "coordinateTransformations": steps})
        kinds = {"c": "channel", "t": "time"}
        described = []
        for axis in axes:
            item = {"name": axis, "type": kinds.get(axis, "space")}
            if axis in "yx" and unit is not None:
                item["unit"] = unit
            described.append(item)
        image = {"axes": described, "datasets": datasets, "name": "theirs"}
        if common is not None:
            image["coordinateTransformations"] = common
        if version == "0.4":
            group.attrs["multiscales"] = [{**image, "version": "0.4"}]
        else:
            group.attrs["ome"] = {"version": version, "multiscales": [image]}
        return path, data

    return write


@pytest.mark.parametrize(
    ("version", "unit", "scale"),
    [("0.4", "micrometer", 0.005), ("0.5", "angstrom", 50.0)],
)
def test_read_takes_both_versions_lazily(foreign, version, unit, scale):
    path, data = foreign(version=version, unit=unit, scale=scale)
    info = registry.describe(path)
    assert info.format == f"OME-Zarr {version}"
    assert info.levels == 2
    found = registry.read(path)
    assert found.is_lazy
    assert found.pixel_size_nm == (5.0, 5.0)
    assert found.name == "theirs"
    assert np.array_equal(found.array(), data)
    coarse = registry.read(path, level=1)
    assert coarse.pixel_size_nm == (10.0, 10.0)
    assert np.array_equal(coarse.array(), data[::2, ::2])


def test_read_asks_for_channel_and_plane(foreign):
    path, data = foreign((2, 3, 4, 20, 24), axes="tczyx")
    info = registry.describe(path)
    assert (info.channels, info.planes) == (3, 8)
    with pytest.raises(ReadError, match="3 channels"):
        registry.read(path, plane=0)
    with pytest.raises(ReadError, match="8 planes"):
        registry.read(path, channel=0)
    found = registry.read(path, channel=2, plane=5)
    assert np.array_equal(found.array(), data[1, 2, 1])


def test_read_places_the_image(foreign):
    common = [{"type": "scale", "scale": [2.0, 2.0]}]
    path, _ = foreign(common=common, shift=[1.0, 3.0])
    found = registry.read(path)
    assert found.pixel_size_nm == (10.0, 10.0)
    assert found.origin == pytest.approx((2000.0, 6000.0))


@pytest.mark.parametrize("unit", [None, "pixel", "second"])
def test_read_never_invents_a_pixel_size(foreign, unit):
    path, _ = foreign(unit=unit, scale=0.5)
    found = registry.read(path, level=1)
    assert found.pixel_size_nm is None
    assert found.spacing_px == (2.0, 2.0)


@pytest.mark.parametrize("scale", [0.0, -1.0, 1e300])
def test_read_leaves_a_bad_scale_unknown_and_says_so(foreign, scale):
    path, data = foreign(scale=scale)
    found = registry.read(path)
    assert found.pixel_size_nm is None
    assert "left unknown" in found.metadata["warnings"][0]
    assert np.array_equal(found.array(), data)


def test_read_chooses_an_image_of_a_collection(foreign, tmp_path):
    root = zarr.create_group(tmp_path / "all.zarr", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    _, first = foreign(name="all.zarr/0")
    _, second = foreign(name="all.zarr/1")
    assert registry.describe(tmp_path / "all.zarr").series == 2
    for series, data in enumerate((first, second)):
        found = registry.read(tmp_path / "all.zarr", series=series)
        assert np.array_equal(found.array(), data)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, "without OME-Zarr metadata"),
        ({"multiscales": "x"}, "without OME-Zarr metadata"),
        ({"plate": {}}, "path of one field"),
        ({"multiscales": [{"datasets": []}]}, "cannot be read as OME-Zarr"),
        ({"multiscales": [{"datasets": [{"path": "0"}]}]}, "axes that end in y and x"),
        ({"multiscales": [{"axes": [1, 2], "datasets": [{"path": "0"}]}]}, "cannot be"),
    ],
)
def test_read_refuses_stores_with_damaged_metadata(tmp_path, attributes, message):
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("0", shape=(4, 4), dtype="u1", chunks=(4, 4))
    group.attrs.update(attributes)
    for verb in (registry.read, registry.describe):
        with pytest.raises(ReadError, match=message) as caught:
            verb(tmp_path / "a.zarr")
        assert "\n" not in str(caught.value)


def test_read_refuses_a_bare_array(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(4, 4), dtype="u1", chunks=(4, 4))
    with pytest.raises(ReadError, match="bare zarr array"):
        registry.read(tmp_path / "a.zarr")


@pytest.mark.parametrize(("version", "block"), [("0.4", "0.1"), ("0.5", "c/0/1")])
def test_blocks_without_a_file_are_told(foreign, version, block):
    path, _ = foreign(version=version)
    tell_missing(path)
    (path / "0" / block).unlink()
    (path / "1" / block).unlink()
    with pytest.warns(UserWarning, match="^1 of 12 blocks of .* are read as 0: copy"):
        tell_missing(path)
    with pytest.warns(UserWarning, match="^1 of 4 blocks of "):
        tell_missing(path, level=1)
