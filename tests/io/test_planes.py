"""Times and heights of a stack, each chosen by itself, in every format."""

from functools import partial

import numpy as np
import pytest
import tifffile
import zarr

import napari_semsr as semsr
from napari_semsr.core import ReadError, WriteError
from napari_semsr.io import ReadOptions, Source, layers
from tests.refusals import refused

TIMES, HEIGHTS, CHANNELS = 2, 3, 2
SIZES = {"t": TIMES, "z": HEIGHTS, "c": CHANNELS}
NUMBERS = 1 + np.arange(TIMES * HEIGHTS * CHANNELS).reshape(TIMES, HEIGHTS, CHANNELS)


def axes_of(path, options=None):
    return Source.from_path(path).read_axes(options or ReadOptions())


def grey(axes="tzc"):
    """Planes (48, 64) of which each grey value is the number."""
    order = ["tzc".index(axis) for axis in axes]
    flat = NUMBERS.transpose(order)[..., None, None]
    return np.broadcast_to(flat, (*flat.shape[:-2], 48, 64)).astype(np.uint16)


def write_tiff(path, **how):
    tifffile.imwrite(path, grey(), metadata={"axes": "TZCYX"}, **how)


def write_zarr(path, axes="tzc"):
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    group.create_array("0", data=grey(axes), chunks=(1, 1, 1, 48, 64))
    about = {"version": "0.4", "axes": [*axes, "y", "x"], "datasets": [{"path": "0"}]}
    group.attrs["multiscales"] = [about]


WRITERS = {"a.ome.tif": write_tiff, "a.zarr": write_zarr}
WRITERS["a.tif"] = partial(write_tiff, imagej=True)


@pytest.fixture(params=WRITERS)
def path(request, tmp_path):
    WRITERS[request.param](tmp_path / request.param)
    return tmp_path / request.param


def test_each_axis_is_chosen_and_planes_count_over_the_others(path):
    facts = semsr.info(path).facts
    assert facts["axes"] == SIZES
    assert (facts["planes"], facts["channels"]) == (TIMES * HEIGHTS, CHANNELS)
    for where in (
        {"time": 1, "z": 2},
        {"time": 1, "plane": 2},
        {"z": 2, "plane": 1},
        {"plane": 5},
    ):
        found = semsr.read(path, channel=1, **where).array()
        assert found[0, 0] == NUMBERS[1, 2, 1], where


@pytest.mark.parametrize(
    ("where", "code", "values"),
    [
        ({"channel": 0}, "several-images", r"6 planes \(t 2, z 3, c 2\)"),
        ({"channel": 0, "time": 1}, "several-images", "3 planes .* z 0 to 2"),
        ({"plane": 0}, "several-images", "2 channels .* channel 0 to 1"),
        ({"channel": 0, "time": 3, "z": 0}, "plane-missing", "time 3; .* 0 to 1"),
        ({"channel": 0, "time": 0, "plane": 5}, "plane-missing", "plane 5; .* 0 to 2"),
    ],
)
def test_what_is_not_chosen_is_refused_with_the_axes(path, where, code, values):
    with refused(ReadError, code, match=values):
        semsr.read(path, **where)


def test_times_below_heights_are_kept_in_their_order_or_refused(tmp_path):
    path, made = tmp_path / "a.zarr", tmp_path / "made.ome.tif"
    write_zarr(path, "ztc")
    how = {"psf": "1px", "method": "wiener", "channel": 0}
    assert semsr.restore(path, made, **how).shape == (HEIGHTS, TIMES, 48, 64)
    assert axes_of(made) == {"z": HEIGHTS, "t": TIMES}
    middle = semsr.read(made, time=1, z=2).array()[24, 32]
    assert middle == pytest.approx(NUMBERS[1, 2, 0], abs=1e-3)
    with refused(WriteError, "axis-order"):
        semsr.restore(path, tmp_path / "made.tif", **how)


def test_a_viewer_has_a_slider_for_each_axis(path):
    found = layers.read_layers(str(path))
    assert len(found) == CHANNELS
    for channel, (shown, about, _) in enumerate(found):
        assert np.array_equal(np.asarray(shown), grey()[:, :, channel])
        assert about["axis_labels"] == ("t", "z", "y", "x")
        assert {len(about[key]) for key in ("scale", "translate", "units")} == {4}
        assert about["scale"][:2] == (1, 1)


def test_axes_without_a_name_are_apart_where_times_are_between(tmp_path):
    numbers = np.arange(12).reshape(2, 3, 2)
    grey = np.broadcast_to(numbers[..., None, None], (2, 3, 2, 16, 20))
    about = {"metadata": {"axes": "QTIYX"}, "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.tif", grey.astype(np.uint8), **about)
    [(shown, about, _)] = layers.read_layers(str(tmp_path / "a.tif"))
    assert about["axis_labels"] == ("plane", "t", "plane-2", "y", "x")
    assert np.array_equal(np.asarray(shown)[..., 0, 0], numbers)
    assert semsr.read(tmp_path / "a.tif", time=1, plane=3).array()[0, 0] == 9
