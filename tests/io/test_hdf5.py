"""HDF5: which dataset, what its axes are, and how large a pixel is."""

import numpy as np
import pytest

from napari_semsr.core.errors import OptionError, ReadError
from napari_semsr.io import formats as registry
from napari_semsr.io.layers import read_layers
from tests.refusals import refused, warned

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


@pytest.mark.parametrize("size", [[1, 0, 1], b"many"])
def test_a_bad_element_size_is_left_unknown_and_said(make, grey, size):
    with warned("pixel-size-invalid"):
        found = registry.read(make({"a": grey}, {"a": {"element_size_um": size}}))
    assert found.pixel_size_nm is None
    assert "left unknown" in found.metadata["warnings"][0]


@pytest.mark.parametrize("options", [{}, {"chunks": (8, 8), "compression": "gzip"}])
def test_large_datasets_are_read_lazily(make, monkeypatch, grey, options):
    path = make({"a": grey, "b": np.ones(3)} if not options else {"a": grey}, **options)
    monkeypatch.setattr("napari_semsr.io.read_image.LAZY_BYTES", 100)
    found = registry.read(path)
    assert found.is_lazy
    assert np.array_equal(found.array(), grey)


@pytest.mark.parametrize("side", [3, 4])
def test_a_last_axis_of_three_or_four_bytes_is_colour(make, grey, side):
    path = make({"a": np.stack([grey] * side, -1)})
    info = registry.describe(path)
    assert (info.shape, info.planes) == ((37, 53), 1)
    assert np.array_equal(registry.read(path, colour="luminance").array(), grey)
    deep = make({"a": np.stack([grey.astype(np.uint16)] * side, -1)}, name="b.h5")
    info = registry.describe(deep)
    assert (info.shape, info.planes) == ((53, side), 37)


def test_more_than_three_axes_are_no_image(make, grey):
    path = make({"a": grey, "b": np.zeros((2, 3, 37, 53), np.uint8)})
    assert registry.read(path).metadata["dataset"] == "/a"


def test_a_file_that_another_program_writes_is_refused_in_a_sentence(make, grey):
    fcntl = pytest.importorskip("fcntl", reason="needs locks of POSIX")
    path = make({"a": grey})
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # as HDF5 holds what it writes
        with refused(ReadError, "file-in-use"):
            registry.read(path)


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


@pytest.mark.parametrize("keep", [8, 1500])
def test_a_file_that_is_cut_short_is_refused_in_one_sentence(make, grey, keep):
    path = make({"a": grey})
    path.write_bytes(path.read_bytes()[:keep])
    with refused(ReadError, "file-damaged", match="HDF5"):
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
    with warned("several-images", match=" 15 .* 12 "):
        assert len(read_layers(str(path))) == 12
