"""Times and heights of a stack, each chosen by itself, in every format."""

import numpy as np
import pytest
import tifffile
import zarr

import napari_semsr as semsr
from napari_semsr.core import ReadError, WriteError
from napari_semsr.io import Source, layers
from napari_semsr.io.read_image import ReadOptions
from tests.refusals import refused

TIMES, HEIGHTS, CHANNELS = 3, 5, 2
SIZES = {"t": TIMES, "z": HEIGHTS, "c": CHANNELS}
NUMBERS = 1 + np.arange(TIMES * HEIGHTS * CHANNELS).reshape(TIMES, HEIGHTS, CHANNELS)


def axes_of(path, options=None):
    return Source.from_path(path).read_axes(options or ReadOptions())


def grey(axes="tzc"):
    """Planes (48, 64) of which each grey value is the number."""
    order = ["tzc".index(axis) for axis in axes]
    flat = NUMBERS.transpose(order)[..., None, None]
    return np.broadcast_to(flat, (*flat.shape[:-2], 48, 64)).astype(np.uint16)


def write_tiff(path, axes="tzc"):
    tifffile.imwrite(path, grey(axes), metadata={"axes": f"{axes.upper()}YX"})


def write_zarr(path, axes="tzc"):
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    group.create_array("0", data=grey(axes), chunks=(1, 1, 1, 48, 64))
    about = {"version": "0.4", "axes": [*axes, "y", "x"], "datasets": [{"path": "0"}]}
    group.attrs["multiscales"] = [about]


def write_imagej(path):
    tifffile.imwrite(path, grey(), imagej=True, metadata={"axes": "TZCYX"})


WRITERS = {
    "a.ome.tif": write_tiff,
    "a.tif": write_imagej,
    "a.zarr": write_zarr,
}


@pytest.fixture(params=WRITERS)
def path(request, tmp_path):
    WRITERS[request.param](tmp_path / request.param)
    return tmp_path / request.param


def test_info_names_the_axes(path):
    facts = semsr.info(path).facts
    assert facts["axes"] == SIZES
    assert (facts["planes"], facts["channels"]) == (TIMES * HEIGHTS, CHANNELS)


def test_each_axis_is_chosen_and_planes_count_over_the_others(path):
    def number(**where):
        return semsr.read(path, channel=1, **where).array()[0, 0]

    assert number(time=2, z=3) == NUMBERS[2, 3, 1]
    assert number(time=2, plane=3) == NUMBERS[2, 3, 1]
    assert number(z=3, plane=2) == NUMBERS[2, 3, 1]
    assert number(plane=13) == NUMBERS[2, 3, 1]


@pytest.mark.parametrize(
    ("where", "code", "values"),
    [
        (
            {"channel": 0},
            "several-images",
            r"15 planes \(t 3, z 5, c 2\).* time 0 to 2 and z 0 to 4, or plane 0 to 14",
        ),
        (
            {"channel": 0, "time": 1},
            "several-images",
            r"5 planes \(t 3, .* z 0 to 4, or plane 0",
        ),
        (
            {"plane": 0},
            "several-images",
            r"2 channels \(t 3, z 5, c 2\).* channel 0 to 1",
        ),
        ({"channel": 0, "time": 3, "z": 0}, "plane-missing", "time 3; .* 0 to 2"),
        ({"channel": 0, "time": 0, "z": 5}, "plane-missing", "z 5; .* 0 to 4"),
        ({"channel": 0, "time": 0, "plane": 5}, "plane-missing", "plane 5; .* 0 to 4"),
    ],
)
def test_what_is_not_chosen_is_refused_with_the_axes(path, where, code, values):
    with refused(ReadError, code, match=values):
        semsr.read(path, **where)


def test_pages_without_names_count_as_planes_alone(tmp_path):
    pages = np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1) * np.ones((48, 64), "u1")
    tifffile.imwrite(tmp_path / "a.tif", pages, photometric="minisblack")
    assert semsr.info(tmp_path / "a.tif").facts["axes"] == {"plane": 6}
    found = [semsr.read(tmp_path / "a.tif", plane=n).array()[0, 0] for n in range(6)]
    assert found == [0, 1, 2, 3, 4, 5]
    with refused(ReadError, "several-images", match=" 6 planes"):
        semsr.read(tmp_path / "a.tif")
    with refused(ReadError, "plane-missing", match=" time 1; .* 0 to 0"):
        semsr.read(tmp_path / "a.tif", time=1, plane=0)


def test_a_plain_image_has_no_axes_to_choose_on(tmp_path):
    semsr.write(semsr.Micrograph(np.eye(48, dtype=np.uint8)), tmp_path / "a.png")
    assert semsr.info(tmp_path / "a.png").facts["axes"] == {}
    assert axes_of(tmp_path / "a.png") == {}
    for name in ("time", "z"):
        with refused(ReadError, "plane-missing", match=f"{name} 1"):
            semsr.read(tmp_path / "a.png", **{name: 1})


@pytest.mark.parametrize("name", ["made.ome.tif", "made.tif"])
def test_a_stack_that_is_restored_keeps_times_and_heights_apart(name, tmp_path):
    path = tmp_path / "a.ome.tif"
    write_tiff(path)
    made = semsr.restore(path, tmp_path / name, psf="1px", method="wiener", channel=1)
    assert made.shape == (TIMES, HEIGHTS, 48, 64)
    assert semsr.info(tmp_path / name).facts["axes"] == {"t": TIMES, "z": HEIGHTS}
    with tifffile.TiffFile(tmp_path / name) as file:
        assert file.series[0].axes == "TZYX"
    middle = semsr.read(tmp_path / name, time=2, z=3).array()[24, 32]
    assert middle == pytest.approx(NUMBERS[2, 3, 1], abs=1e-3)
    report = semsr.replay(tmp_path / name)
    assert (report.identical, report.differs) == (True, ())


def test_of_one_time_the_heights_are_restored(tmp_path):
    path = tmp_path / "a.zarr"
    write_zarr(path)
    target = tmp_path / "made.ome.tif"
    how = {"psf": "1px", "method": "wiener", "channel": 1, "time": 2}
    assert semsr.restore(path, target, **how).shape == (HEIGHTS, 48, 64)
    assert axes_of(target) == {"z": HEIGHTS}
    middle = semsr.read(target, z=3).array()[24, 32]
    assert middle == pytest.approx(NUMBERS[2, 3, 1], abs=1e-3)


def test_times_below_heights_are_kept_in_their_order_or_refused(tmp_path):
    write_zarr(tmp_path / "a.zarr", "ztc")
    how = {"psf": "1px", "method": "wiener", "channel": 0}
    made = semsr.restore(tmp_path / "a.zarr", tmp_path / "made.ome.tif", **how)
    assert made.shape == (HEIGHTS, TIMES, 48, 64)
    assert axes_of(tmp_path / "made.ome.tif") == {"z": HEIGHTS, "t": TIMES}
    with refused(WriteError, "axis-order"):
        semsr.restore(tmp_path / "a.zarr", tmp_path / "made.tif", **how)


def test_axes_that_are_chosen_are_not_counted(path):
    assert axes_of(path, ReadOptions(time=1)) == {"z": HEIGHTS}
    assert axes_of(path, ReadOptions(time=1, z=0)) == {}


def test_a_viewer_has_a_slider_for_each_axis(path):
    found = layers.read_layers(str(path))
    assert len(found) == CHANNELS
    for channel, (shown, about, _) in enumerate(found):
        assert np.array_equal(np.asarray(shown), grey()[:, :, channel])
        assert about["axis_labels"] == ("t", "z", "y", "x")
        assert {len(about[key]) for key in ("scale", "translate", "units")} == {4}


def test_axes_without_a_name_are_apart_where_times_are_between(tmp_path):
    numbers = np.arange(12).reshape(2, 3, 2)
    grey = np.broadcast_to(numbers[..., None, None], (2, 3, 2, 16, 20))
    about = {"metadata": {"axes": "QTIYX"}, "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.tif", grey.astype(np.uint8), **about)
    [(shown, about, _)] = layers.read_layers(str(tmp_path / "a.tif"))
    assert about["axis_labels"] == ("plane", "t", "plane-2", "y", "x")
    assert np.array_equal(np.asarray(shown)[..., 0, 0], numbers)
    assert semsr.read(tmp_path / "a.tif", time=1, plane=3).array()[0, 0] == 9
