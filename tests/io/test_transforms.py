"""A transform comes back as it was stored, and damage is said."""

import functools
import json
import operator

import numpy as np
import pytest

from napari_semsr import core
from napari_semsr.io import (
    ImageIdentity,
    StoredTransform,
    read_transform,
    write_transform,
)
from tests.refusals import refused

RNG = np.random.default_rng(0)
SIMILAR = core.Affine.create_similarity(
    12.3456789, scale=1 / 3, shift=(1e5, -7.1), about=(3, 4)
)
SHEARED = core.Affine(((1.1, 0.2), (-0.1, -0.9)), (1 / 7, 3e6))
BENT = core.Elastic(
    SHEARED,
    core.BSplineDisplacement((-5.0, 1 / 3), (50.0, 40.0), RNG.normal(0, 5, (2, 4, 6))),
)
SIZES = {"shape": (300, 400), "pixel_size_nm": (40.0, 41.5), "origin_nm": (120.5, -3.0)}
MOVING = ImageIdentity(name="optical.tif", digest="sha256:ab", **SIZES)
FIXED = ImageIdentity(name="SEM ünï.tif", shape=(1000, 900), pixel_size_nm=(5.0, 5.0))


def _stored(transform=BENT, **quality):
    return StoredTransform(transform, MOVING, FIXED, quality)


@pytest.mark.parametrize(
    ("transform", "kind"),
    [(SIMILAR, "similarity"), (SHEARED, "affine"), (BENT, "elastic")],
)
def test_a_transform_comes_back_to_the_last_digit(tmp_path, transform, kind):
    path = tmp_path / "map.json"
    write_transform(path, _stored(transform, error_px=0.1, ways=["near"]))
    again = read_transform(path)
    assert again.kind == kind
    assert (again.moving, again.fixed) == (MOVING, FIXED)
    assert again.quality == {"error_px": 0.1, "ways": ["near"]}
    places = RNG.uniform(-1e3, 1e4, (50, 2))
    np.testing.assert_array_equal(again.transform(places), transform(places))
    if kind != "elastic":
        assert again.transform == transform


def test_a_transform_that_cannot_be_written_leaves_the_one_before(tmp_path):
    path = tmp_path / "map.json"
    write_transform(path, _stored(SIMILAR))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        write_transform(path, _stored(error=float("nan")))
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["map.json"]


@pytest.fixture
def values(tmp_path):
    path = tmp_path / "whole.json"
    write_transform(path, _stored())
    return json.loads(path.read_text("utf-8"))


DAMAGE = {
    "version": (["semsr_transform"], 2, " 2, .* 1 "),
    "kind": (["kind"], "projective", "got 'projective'"),
    "unit": (["unit"], "um", "nm, got 'um'"),
    "axes": (["axes"], ["x", "y"], r"got \['x', 'y'\]"),
    "order": (["bspline", "order"], 1, "3, got 1"),
    "infinite": (["matrix", 1, 2], float("inf"), r"\(\(1\.1, 0\.2\), .*inf"),
    "rows": (["matrix"], [[1, 0], [0, 1], [0, 0]], r"\(3, 2\)"),
    "singular": (["matrix"], [[1, 1, 0], [1, 1, 0]], r"\(\(1\.0, 1\.0\), "),
    "coefficient": (["bspline", "coefficients", 0, 0, 0], float("nan"), "2"),
    "spacing": (["bspline", "spacing"], [0, 1], r"\(0\.0, 1\.0\)"),
    "no pixel size": (["to", "pixel_size_nm"], [0, 5], r"pixel_size_nm\[0\]"),
    "no pixels": (["from", "shape"], [0, 5], r"shape\[0\]"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_said(tmp_path, values, name):
    (*outer, last), value, stated = DAMAGE[name]
    functools.reduce(operator.getitem, outer, values)[last] = value
    path = tmp_path / "map.json"
    path.write_text(json.dumps(values))
    code = "other-version" if name == "version" else "file-damaged"
    with refused(core.ReadError, code, match=stated):
        read_transform(path)


@pytest.mark.parametrize("key", ["kind", "from", "matrix", "bspline"])
def test_what_is_missing_is_named(tmp_path, values, key):
    del values[key]
    path = tmp_path / "map.json"
    path.write_text(json.dumps(values))
    with refused(core.ReadError, "file-damaged", match=f"'{key}'"):
        read_transform(path)


@pytest.mark.parametrize(
    "data", [b"\x89PNG\r\n\xff\xfe", b"{}", b"[" * 100_000], ids=len
)
def test_other_files_are_no_transforms(tmp_path, data):
    path = tmp_path / "map.json"
    path.write_bytes(data)
    with refused(core.ReadError, "not-a-transform"):
        read_transform(path)


def _image(shape=(300, 400), size=(40.0, 41.5), origin=(120.5, -3.0)):
    about = core.parse_pixel_size(size)
    return core.Micrograph(np.zeros(shape, np.uint8), about, "optical", origin=origin)


@pytest.mark.parametrize(
    "image",
    [
        _image((150, 200), (80.0, 83.0), (140.5, 17.75)),
        _image((600, 800), (20.0, 20.75), (110.5, -13.375)),
        _image(size=(40.001, 41.499)),
        _image((300, 399)),
    ],
    ids=["coarser", "enhanced", "rounded", "cut by a pixel"],
)
def test_other_pixels_of_the_same_area_are_taken(image):
    assert MOVING.describe_difference(image) is None


@pytest.mark.parametrize(
    ("image", "match"),
    [
        (_image(size=None), "no pixel size"),
        (_image((300, 300)), "12450 nm, but the stored one covers 12000 x 16600 nm"),
        (_image(size=(20.0, 20.75)), "it covers 6000 x 8300 nm"),
        (_image(origin=(120.5, 900.0)), "begins at 100.5, 879.25 nm"),
    ],
    ids=["uncalibrated", "narrower", "finer", "elsewhere"],
)
def test_another_image_is_told(image, match):
    assert match in MOVING.describe_difference(image)


# For other programs, each by its own rules.

PLACES = RNG.uniform(-1e3, 1e4, (20, 2))


@pytest.mark.parametrize("transform", [SIMILAR, SHEARED])
def test_itk_maps_back_in_x_and_y(tmp_path, transform):
    path = tmp_path / "map.tfm"
    write_transform(path, _stored(transform))
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#Insight Transform File V1.0"
    told = dict(line.split(": ") for line in lines[2:])
    assert told["Transform"] == "AffineTransform_double_2_2"
    assert told["FixedParameters"] == "0 0"  # the centre
    values = np.array(told["Parameters"].split(), dtype=float)
    fixed_xy = transform(PLACES)[:, ::-1]
    back = fixed_xy @ values[:4].reshape(2, 2).T + values[4:]
    np.testing.assert_allclose(back, PLACES[:, ::-1], atol=1e-5)


@pytest.mark.parametrize("transform", [SIMILAR, SHEARED])
def test_ngff_and_napari_map_there_in_y_and_x(tmp_path, transform):
    write_transform(tmp_path / "map.ngff.json", _stored(transform))
    write_transform(tmp_path / "map.csv", _stored(transform))
    values = json.loads((tmp_path / "map.ngff.json").read_text(encoding="utf-8"))
    (step,) = values["coordinateTransformations"]
    names = [system["name"] for system in values["coordinateSystems"]]
    assert (step["type"], step["input"], step["output"]) == ("affine", *names)
    for system in values["coordinateSystems"]:
        axes = [(axis["name"], axis["unit"]) for axis in system["axes"]]
        assert axes == [("y", "nanometer"), ("x", "nanometer")]
    matrix = np.loadtxt(tmp_path / "map.csv", delimiter=",")
    np.testing.assert_array_equal(matrix[:2], step["affine"])
    ones = np.column_stack([PLACES, np.ones(len(PLACES))])
    np.testing.assert_allclose((ones @ matrix.T)[:, :2], transform(PLACES))


def test_a_bent_map_is_no_matrix(tmp_path):
    for ending in (".tfm", ".ngff.json", ".csv"):
        with refused(core.OptionError, "transform-unsupported"):
            write_transform(tmp_path / f"map{ending}", _stored(BENT))
    assert not list(tmp_path.iterdir())
