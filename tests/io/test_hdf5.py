"""HDF5: which dataset, what its axes are, and how large a pixel is."""

import json

import numpy as np
import pytest

from napari_semsr.core.errors import OptionError, ReadError
from napari_semsr.io import formats as registry
from napari_semsr.io.layers import read_layers

h5py = pytest.importorskip("h5py", reason="needs h5py, the extra [hdf5]")


@pytest.fixture
def make(tmp_path):
    """Write arrays by path, with attributes by path."""

    def write(arrays, attributes=None, name="a.h5", **options):
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            for key, data in arrays.items():
                file.create_dataset(key, data=data, **options)
            for key, values in (attributes or {}).items():
                file.require_group(key) if key not in file else None
                file[key].attrs.update(values)
        return path

    return write


def test_the_only_image_of_a_file_is_read(make, grey):
    path = make({"data/image": grey, "time": np.arange(9.0), "name": b"x"})
    found = registry.read(path)
    assert np.array_equal(found.array(), grey)
    assert found.name == "a"
    assert found.pixel_size_nm is None
    assert found.metadata["dataset"] == "/data/image"
    info = registry.describe(path)
    assert (info.format, info.shape, info.dtype) == ("HDF5", (37, 53), "uint8")


def test_one_of_several_datasets_is_chosen(make, grey):
    wanted = "b/high"
    path = make({"low": grey, "b/high": grey[::-1]})
    with pytest.raises(ReadError, match=r"2 datasets.*give dataset /b/high, /low"):
        registry.read(path)
    found = registry.read(path, dataset=wanted)
    assert np.array_equal(found.array(), grey[::-1])
    assert found.name == "a b/high"
    told = registry.describe(path).metadata["datasets"]
    assert told == {"/b/high": "37 x 53 uint8", "/low": "37 x 53 uint8"}
    assert registry.describe(path, dataset=wanted).metadata["dataset"] == "/b/high"
    with pytest.raises(ReadError, match=r"no dataset 'none' .*one of /b/high, /low"):
        registry.read(path, dataset="none")


def test_a_dataset_of_another_format_is_refused(forge, grey):
    path = forge(grey)
    for call in (registry.read, registry.describe):
        with pytest.raises(ReadError, match="no HDF5 file"):
            call(path, dataset="/a")
    with pytest.raises(OptionError):
        registry.read(path, dataset="")


def test_element_size_is_the_pixel_size(make, grey):
    stack = np.stack([grey, grey // 2])
    path = make({"t0": stack}, {"t0": {"element_size_um": [0.05, 0.008, 0.007]}})
    found = registry.read(path, plane=1)
    assert found.pixel_size_nm == (8.0, 7.0)
    assert np.array_equal(found.array(), grey // 2)
    with pytest.raises(ReadError, match="2 planes"):
        registry.read(path)


@pytest.mark.parametrize("size", [[1, 0, 1], b"many"])
def test_a_bad_element_size_is_left_unknown_and_said(make, grey, size):
    with pytest.warns(UserWarning, match="left unknown"):
        found = registry.read(make({"a": grey}, {"a": {"element_size_um": size}}))
    assert found.pixel_size_nm is None
    assert "left unknown" in found.metadata["warnings"][0]


def test_axistags_name_the_axes(make, grey):
    data = np.stack([np.stack([grey.T, grey.T // 2], -1)] * 3)  # z, x, y, c
    tags = json.dumps({"axes": [{"key": key} for key in "zxyc"]})
    path = make({"exported_data": data}, {"exported_data": {"axistags": tags}})
    info = registry.describe(path)
    assert (info.shape, info.planes, info.channels) == ((37, 53), 3, 2)
    found = registry.read(path, channel=1, plane=2)
    assert np.array_equal(found.array(), grey // 2)


def test_labels_of_dimensions_name_the_axes(make, grey):
    path = make({"a": np.stack([grey, grey // 2], -1)})
    with h5py.File(path, "a") as file:
        for axis, label in zip(file["a"].dims, ("y", "x", "channel"), strict=True):
            axis.label = label
    assert np.array_equal(registry.read(path, channel=1).array(), grey // 2)


NEXUS = {
    "/": {"default": "entry"},
    "entry": {"default": "data"},
    "entry/data": {"signal": "image", "axes": ["y", "x"]},
}


def _nexus(grey, step=2.5e-9):
    return {
        "entry/data/image": grey,
        "entry/data/y": np.arange(37) * 3e-9,
        "entry/data/x": 1e-3 + np.arange(53) * step,
        "entry/other": grey // 2,
    }


def test_nexus_tells_which_dataset_and_how_large_a_pixel_is(make, grey):
    units = {f"entry/data/{axis}": {"units": "m"} for axis in "xy"}
    path = make(_nexus(grey), NEXUS | units, name="a.nxs")
    found = registry.read(path)
    assert np.array_equal(found.array(), grey)
    assert found.pixel_size_nm == pytest.approx((3.0, 2.5))
    other = registry.read(path, dataset="/entry/other")
    assert other.pixel_size_nm is None


@pytest.mark.parametrize("unit", ["pixel", ""])
def test_nexus_axes_that_are_no_lengths_are_left_alone(make, grey, unit):
    units = {f"entry/data/{axis}": {"units": unit} for axis in "xy"}
    with pytest.warns(UserWarning, match="left unknown"):
        found = registry.read(make(_nexus(grey), NEXUS | units))
    assert found.pixel_size_nm is None
    assert "left unknown" in found.metadata["warnings"][0]


@pytest.mark.parametrize("options", [{}, {"chunks": (8, 8), "compression": "gzip"}])
def test_large_datasets_are_read_lazily(make, monkeypatch, grey, options):
    path = make({"a": grey, "b": np.ones(3)} if not options else {"a": grey}, **options)
    monkeypatch.setattr("napari_semsr.io.hdf5.LAZY_BYTES", 100)
    found = registry.read(path)
    assert found.is_lazy
    assert np.array_equal(found.array(), grey)


def test_links_out_of_the_file_are_not_followed(make, tmp_path, grey):
    make({"secret": grey}, name="b.h5")
    path = make({"a": grey // 2})
    with h5py.File(path, "a") as file:
        file["out"] = h5py.ExternalLink(str(tmp_path / "b.h5"), "/secret")
        file.attrs["default"] = "out"
    found = registry.read(path)
    assert found.metadata["dataset"] == "/a"
    with pytest.raises(ReadError, match="no dataset 'out'"):
        registry.read(path, dataset="out")


@pytest.mark.parametrize(
    "arrays", [{"a": np.arange(5)}, {"a": np.zeros((1, 9)), "b": 1j * np.eye(4)}]
)
def test_a_file_without_an_image_is_refused(make, arrays):
    with pytest.raises(ReadError, match="must hold a dataset of two axes"):
        registry.read(make(arrays))


@pytest.mark.parametrize("keep", [8, 1500])
def test_a_file_that_is_cut_short_is_refused_in_one_sentence(make, grey, keep):
    path = make({"a": grey})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ReadError, match="cannot be read as HDF5"):
        registry.read(path)


def test_napari_gets_a_layer_of_each_dataset(make, grey):
    path = make({"a": grey, "b": np.stack([grey, grey])})
    layers = read_layers(str(path))
    assert [about["name"] for _, about, _ in layers] == ["a a", "a b"]
    assert [data.shape for data, _, _ in layers] == [(37, 53), (2, 37, 53)]
    assert [about["metadata"]["semsr read"]["layer"] for _, about, _ in layers] == [
        0,
        1,
    ]


@pytest.mark.broad
def test_napari_gets_a_screenful_and_is_told_of_the_rest(make, grey):
    path = make({f"{n:02}": grey for n in range(15)})
    with pytest.warns(UserWarning, match="holds 15 datasets, of which the first 12"):
        assert len(read_layers(str(path))) == 12


@pytest.mark.broad
def test_file_of_which_the_library_comes_to_no_end_is_refused(make, grey):
    path = make({"a": grey}, {"a": {"axistags": "x" * 50}})
    data = bytearray(path.read_bytes())
    heap = (
        data.index(b"GCOL") + 16
    )  # its first object has 16 + 56 bytes, the rest is free
    data[heap + 72 + 8 : heap + 72 + 16] = bytes(8)
    path.write_bytes(data)
    for door in (registry.read, registry.describe):
        with pytest.raises(ReadError, match="did not come to the end of it"):
            door(path)
