"""What is taken as an image: lists, arrays of every library, and named axes."""

import json
from dataclasses import dataclass, field
from typing import Any

import dask.array as da
import numpy as np
import pytest

import napari_semsr as semsr
from napari_semsr.core import Affine, Micrograph, OptionError, ReadError, ShapeError
from napari_semsr.io import (
    ImageIdentity,
    StoredTransform,
    array_to_image,
    read,
    read_transform,
    write,
    write_transform,
)
from napari_semsr.models import ModelCard
from tests.refusals import refused, warned

GREY = np.random.default_rng(0).random((40, 48))


@dataclass
class Coordinate:
    """As of xarray: places along an axis."""

    places: Any
    attrs: dict[str, Any] = field(default_factory=dict)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self.places, dtype)


@dataclass
class Labelled:
    """As of xarray: an array whose axes have names."""

    data: Any
    dims: tuple[str, ...]
    coords: dict[str, Coordinate] = field(default_factory=dict)
    name: str | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.data.shape)

    @property
    def dtype(self) -> Any:
        return self.data.dtype


class Roof:
    """As a dataset of xarray: several arrays of the same axes."""

    dims = ("y", "x")
    coords = ()


def calibrated(y: float, x: float, unit: str = "nm") -> dict[str, Coordinate]:
    return {
        "y": Coordinate(100 + np.arange(40) * y, {"units": unit}),
        "x": Coordinate(np.arange(48) * x, {"units": unit}),
    }


TAKEN = {
    "list": GREY.tolist(),
    "tuple": tuple(map(tuple, GREY.tolist())),
    "rows": list(GREY),
    "dask": da.from_array(GREY, 16),
    "buffer": memoryview(GREY),
    "matrix": GREY.view(np.matrix),
    "masked": np.ma.masked_less(GREY, -1),
    "named": Labelled(GREY, ("y", "x")),
    "turned": Labelled(GREY.T, ("x", "y")),
    "upper": Labelled(GREY[None, None], ("T", "C", "Y", "X")),
    "unnamed": Labelled(da.from_array(GREY, 16), ("dim_0", "dim_1")),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_every_array_is_taken_as_numpys_is(kind):
    assert semsr.metrics(TAKEN[kind]).contrast == semsr.metrics(GREY).contrast
    found = array_to_image(TAKEN[kind])
    assert np.array_equal(found.array(), GREY)
    assert found.is_lazy == (kind in ("dask", "unnamed"))


def test_several_images_are_several_arrays(tmp_path):
    made = semsr.figure(
        [GREY.tolist(), da.from_array(GREY, 16)], output=tmp_path / "a.png"
    )
    assert (tmp_path / "a.png").is_file(), made


@pytest.mark.parametrize("unit", ["nm", "um", "micrometer", "Å"])
def test_coordinates_are_the_pixel_size(unit):
    sizes = {"nm": 1.0, "um": 1e3, "micrometer": 1e3, "Å": 0.1}
    array = Labelled(GREY.T, ("x", "y"), calibrated(7.5, 5.0, unit), "field")
    found = array_to_image(array)
    assert found.pixel_size_nm == pytest.approx((7.5 * sizes[unit], 5.0 * sizes[unit]))
    assert found.origin == pytest.approx((100 * sizes[unit], 0))
    assert found.name == "field"
    assert semsr.spectrum(array).pixel_size_nm == found.pixel_size_nm


@pytest.mark.parametrize(
    "coordinates",
    [
        calibrated(7.5, 5.0, ""),
        calibrated(7.5, 5.0, "degrees"),
        calibrated(7.5, 5.0) | {"x": Coordinate(np.arange(48) ** 2, {"units": "nm"})},
        calibrated(0.0, 5.0),
    ],
    ids=["no unit", "no length", "uneven", "none apart"],
)
def test_coordinates_that_tell_no_pixel_size_are_told_of(coordinates):
    with warned("pixel-size-invalid"):
        found = array_to_image(Labelled(GREY, ("y", "x"), coordinates))
    assert found.pixel_size_nm is None


@pytest.mark.parametrize(
    ("value", "error", "code"),
    [
        *((value, ShapeError, "wrong-type") for value in (3, None, {}, b"a.tif", [])),
        *((value, ShapeError, "wrong-type") for value in ([[]], ["a.tif"], [GREY])),
        *((value, ShapeError, "wrong-shape") for value in (GREY[0], GREY[None])),
        *((value, ShapeError, "wrong-type") for value in ([[1, 2], [3]], [["a"]])),
        (object(), ShapeError, "wrong-type"),
        *((v, ReadError, "complex-values") for v in (np.array([["a"]]), GREY * 1j)),
        (
            Labelled(GREY[None].repeat(3, 0), ("z", "y", "x")),
            ShapeError,
            "too-many-axes",
        ),
        (Labelled(GREY, ("y", "z")), ShapeError, "axis-missing"),
        (Labelled(GREY[None], ("a", "b", "c")), ShapeError, "axis-missing"),
        (Labelled(GREY[None], ("Y", "y", "x")), ShapeError, "axis-missing"),
        (
            da.from_array(GREY, 16)[da.from_array(GREY[:, 0], 16) > 0.5],
            ShapeError,
            "wrong-shape",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_image_is_refused_in_a_sentence(value, error, code):
    with refused(error, code) as caught:
        semsr.metrics(value)
    assert "\n" not in str(caught.value)
    if not isinstance(value, Labelled):
        with pytest.raises((ShapeError, ReadError)):
            Micrograph(value)


def test_a_micrograph_takes_no_named_axes():
    with refused(ShapeError, "wrong-type"):
        Micrograph(TAKEN["turned"])


def test_several_arrays_under_one_roof_are_no_image():
    with refused(ShapeError, "several-images"):
        array_to_image(Roof())


def test_axes_without_coordinates_are_told_of_by_none():
    """xarray counts the pixels of an axis that has none, if it is asked for them."""

    class Counting(dict):
        def __missing__(self, _axis):
            return Coordinate(np.arange(40))

    found = array_to_image(Labelled(GREY, ("y", "x"), Counting()))
    assert found.pixel_size_nm is None


@pytest.mark.parametrize("size", [True, False, (True, True), (5, True), np.True_, "a"])
def test_a_truth_is_no_pixel_size(size):
    with refused(OptionError, "pixel-size-invalid"):
        Micrograph(GREY, size)
    with refused(OptionError, "pixel-size-invalid"):
        semsr.decorrelation(GREY, pixel_size_nm=size)


def test_a_truth_in_a_file_is_no_pixel_size(tmp_path):
    image = Micrograph(GREY, (5.0, 5.0))
    write(image, tmp_path / "a.ome.zarr")
    mark = tmp_path / "a.ome.zarr" / "zarr.json"
    told = json.loads(mark.read_text())
    level = told["attributes"]["ome"]["multiscales"][0]["datasets"][0]
    level["coordinateTransformations"][0]["scale"] = [True, 5.0]
    mark.write_text(json.dumps(told))
    with warned("pixel-size-invalid", match=" 0 .* 2 "):
        assert read(tmp_path / "a.ome.zarr").pixel_size_nm is None
    path = tmp_path / "a.json"
    side = ImageIdentity.from_image(image)
    write_transform(path, StoredTransform(Affine.create_similarity(), side, side))
    told = json.loads(path.read_text())
    told["from"]["pixel_size_nm"] = [5.0, True]
    path.write_text(json.dumps(told))
    with refused(ReadError, "file-damaged"):
        read_transform(path)
    with pytest.raises(ValueError, match="valid number"):
        ModelCard(
            name="a", architecture="srcnn", receptive_field=3, pixel_size_nm=(True, 5)
        )


@pytest.mark.parametrize("size", [5, [5], (5, 5), np.float32(5)])
def test_a_pixel_size_is_one_number_or_two(size):
    assert Micrograph(GREY, size).pixel_size_nm == (5, 5)
