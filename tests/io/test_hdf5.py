"""HDF5: which dataset, what its axes are, and how large a pixel is."""

import json

import numpy as np
import pytest

from napari_semsr.core.errors import OptionError, ReadError
from napari_semsr.io import formats as registry
from napari_semsr.io.layers import read_layers
from tests.refusals import refused

h5py = pytest.importorskip("h5py", reason="needs h5py, the extra [hdf5]")


@pytest.fixture
def make(tmp_path):
    """Write arrays by path, with attributes by path."""

    def write(arrays, attributes=None, name="a.h5"):
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            for key, data in arrays.items():
                file[key] = data
            for key, values in (attributes or {}).items():
                file[key].attrs.update(values)
        return path

    return write


def test_one_of_several_datasets_is_chosen(make, grey):
    wanted = "b/high"
    path = make({"low": grey, "b/high": grey[::-1]})
    with refused(ReadError, "several-images", match="/b/high, /low"):
        registry.read(path)
    found = registry.read(path, dataset=wanted)
    assert np.array_equal(found.array(), grey[::-1])
    assert found.name == "a b/high"
    told = registry.describe(path).metadata["datasets"]
    assert told == {"/b/high": "37 x 53 uint8", "/low": "37 x 53 uint8"}
    assert registry.describe(path, dataset=wanted).metadata["dataset"] == "/b/high"
    with refused(ReadError, "dataset-missing"):
        registry.read(path, dataset="none")


def test_a_dataset_of_another_format_is_refused(forge, grey):
    path = forge(grey)
    for call in (registry.read, registry.describe):
        with refused(ReadError, "option-without-effect"):
            call(path, dataset="/a")
    with pytest.raises(OptionError):
        registry.read(path, dataset="")


def test_element_size_is_the_pixel_size(make, grey):
    stack = np.stack([grey, grey // 2])
    path = make({"t0": stack}, {"t0": {"element_size_um": [0.05, 0.008, 0.007]}})
    found = registry.read(path, plane=1)
    assert found.pixel_size_nm == (8.0, 7.0)
    assert np.array_equal(found.array(), grey // 2)
    with refused(ReadError, "several-images", match="2 planes"):
        registry.read(path)


@pytest.mark.parametrize("chunks", [(50, 700), (40, 5000)])
def test_a_large_plane_is_read_in_whole_chunks(tmp_path, monkeypatch, chunks):
    monkeypatch.setattr("napari_semsr.io.read_image.LAZY_BYTES", 0)
    data = np.arange(3_000_000, dtype=np.uint32).reshape(600, 5000)
    with h5py.File(path := tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", data=data, chunks=chunks)
    found = registry.read(path)
    assert np.array_equal(found.array(), data)
    assert not any(np.mod([sides[0] for sides in found.data.chunks], chunks))


@pytest.mark.parametrize("by", ["axistags", "label", "signal"])
@pytest.mark.parametrize("axes", ["xy", "yxc", "xyc", "yxz", "cxtyz"])
def test_stated_axes_are_followed(make, grey, lazily, by, axes):
    lengths = {"y": 37, "x": 53, "c": 3 if axes == "xyc" else 2, "t": 2, "z": 3}
    turned = grey if axes.index("y") < axes.index("x") else grey.T
    others = [n for n, axis in enumerate(axes) if axis not in "yx"]
    data = np.broadcast_to(np.expand_dims(turned, others), [lengths[a] for a in axes])
    with h5py.File(path := make({"g/a": data}), "a") as file:
        tags = {"axes": [{"key": axis} for axis in axes]}
        stated = {by: json.dumps(tags) if by == "axistags" else "a", "axes": [*axes]}
        file["g/a" if by == "axistags" else "g"].attrs.update(stated)
        for side, axis in zip(file["g/a"].dims, axes * (by == "label"), strict=False):
            side.label = axis.upper()
    options = {"c": "channel", "t": "time", "z": "z"}  # colour has no channels
    chosen = {o: 1 for a, o in options.items() if a in axes and axes != "xyc"}
    assert np.array_equal(registry.read(path, **chosen).array(), grey)


@pytest.mark.parametrize("stated", ["uint16", "int16", None])
def test_big_data_viewer_stores_unsigned_integers_as_signed(make, lazily, stated):
    values = np.linspace(0, 60000, 64 * 80).reshape(1, 64, 80).astype("u2")
    tables = {f"s00/{n}": np.ones((2, 3)) for n in ("resolutions", "subdivisions")}
    cells = {"t00000/s00/0/cells": values.view("i2")}
    path = make(cells | tables, {"s00": {"dataType": stated} if stated else {}})
    assert registry.describe(path).metadata["dataset"] == "/t00000/s00/0/cells"
    found = registry.read(path).array()
    assert np.array_equal(found, values[0].view(stated or "u2"))


def test_the_padding_of_imaris_is_no_image(make, grey, lazily):
    group = "DataSet/ResolutionLevel 0/TimePoint 0/Channel 0"
    sizes = zip("XYZ", (b"53", b"37", b"1"), strict=True)
    about = {f"ImageSize{axis}": np.frombuffer(text, "S1") for axis, text in sizes}
    padded = np.pad(grey, ((0, 27), (0, 11)))[None].repeat(2, 0)
    path = make({f"{group}/Data": padded}, {group: about}, "a.ims")
    found, info = registry.read(path), registry.describe(path)
    assert np.array_equal(found.array(), grey)
    assert (info.shape, info.planes) == ((37, 53), 1)


@pytest.mark.parametrize(
    ("steps", "unit", "expected"),
    [
        ((-0.008, 0.0075), "um", (8.0, 7.5)),
        ((8, 7), "nm", (8.0, 7.0)),
        ((8, 7), "1/nm", None),
        ((0, 7), "nm", None),
    ],
)
def test_coordinates_of_nexus_give_the_pixel_size(make, grey, steps, unit, expected):
    places = [
        (0.3 + step * np.arange(n)).astype("f4" if unit == "um" else float)
        for n, step in zip(grey.shape, steps, strict=True)
    ]
    path = make(
        {"g/counts": grey, "g/axis_j": places[0], "g/axis_i": places[1]},
        {
            "g": {"signal": "counts", "axes": ["axis_j", "axis_i"]},
            **{key: {"units": unit} for key in ("g/axis_j", "g/axis_i")},
        },
        "a.nxs",
    )
    assert registry.read(path).pixel_size_nm == expected


@pytest.mark.parametrize("level", [0, 1])
def test_the_extent_of_imaris_gives_the_pixel_size(make, grey, level):
    group = f"DataSet/ResolutionLevel {level}/TimePoint 0/Channel 0"
    shape = [n >> level for n in (36, 52)]
    texts = {"Z": "1", "Y": f"{shape[0]}", "X": f"{shape[1]}"}
    sizes = {f"ImageSize{a}": np.array([*n], "S1") for a, n in texts.items()}
    extent = {"ExtMin0": "1.0", "ExtMax0": "6.2", "ExtMin1": "-2", "ExtMax1": "5.2"}
    about = {key: np.array([*value], "S1") for key, value in extent.items()}
    about["Unit"] = np.frombuffer("µm".encode(), "S1")
    path = make({f"{group}/Data": grey[None]}, {group: sizes}, "a.ims")
    with h5py.File(path, "a") as file:
        file.create_group("DataSetInfo/Image").attrs.update(about)
    found = registry.read(path)
    assert found.shape == tuple(shape)
    assert found.pixel_size_nm == (200.0 * 2**level, 100.0 * 2**level)


def test_links_out_of_the_file_are_not_followed(make, tmp_path, grey):
    make({"secret": grey}, name="b.h5")
    path = make({"a": grey // 2})
    with h5py.File(path, "a") as file:
        file["out"] = h5py.ExternalLink(str(tmp_path / "b.h5"), "/secret")
    found = registry.read(path)
    assert found.metadata["dataset"] == "/a"
    with refused(ReadError, "dataset-missing"):
        registry.read(path, dataset="out")


@pytest.mark.parametrize(
    "arrays", [{"a": np.arange(5)}, {"a": np.zeros((1, 9)), "b": 1j * np.eye(4)}]
)
def test_a_file_without_an_image_is_refused(make, arrays):
    with refused(ReadError, "no-image"):
        registry.read(make(arrays))


def test_napari_gets_a_layer_of_each_dataset(make, grey):
    layers = read_layers(str(make({"a": grey, "b": np.stack([grey, grey])})))
    assert [about["name"] for _, about, _ in layers] == ["a a", "a b"]
    assert [data.shape for data, _, _ in layers] == [(37, 53), (2, 37, 53)]
