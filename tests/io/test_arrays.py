"""What is taken as an image: lists, arrays of every library, and named axes."""

from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import pytest

import napari_semsr as semsr
from napari_semsr.core import Micrograph, ReadError, ShapeError
from napari_semsr.io import array_to_image
from tests.refusals import refused, warned

GREY = np.random.default_rng(0).random((40, 48))
LAZY = da.from_array(GREY, 16)


@dataclass
class Coordinate:
    """As of xarray: places along an axis."""

    places: Any
    attrs: dict[str, Any]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self.places, dtype)


class Labelled:
    """As of xarray: an array whose axes have names."""

    def __init__(self, data, dims, coords=(), name=None):
        self.data, self.dims, self.name = data, dims, name
        self.coords = dict(coords)
        self.shape, self.dtype = data.shape, data.dtype


def calibrated(y: float, x: float, unit: str = "nm") -> dict[str, Coordinate]:
    return {
        "y": Coordinate(100 + np.arange(40) * y, {"units": unit}),
        "x": Coordinate(np.arange(48) * x, {"units": unit}),
    }


TAKEN = {
    "list": GREY.tolist(),
    "rows": list(GREY),
    "dask": LAZY,
    "buffer": memoryview(GREY),
    "matrix": GREY.view(np.matrix),
    "masked": np.ma.masked_less(GREY, -1),
    "turned": Labelled(GREY.T, ("x", "y")),
    "upper": Labelled(GREY[None, None], ("T", "C", "Y", "X")),
    "unnamed": Labelled(LAZY, ("dim_0", "dim_1")),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_every_array_is_taken_as_numpys_is(kind):
    assert semsr.metrics(TAKEN[kind]).contrast == semsr.metrics(GREY).contrast
    found = array_to_image(TAKEN[kind])
    assert np.array_equal(found.array(), GREY)
    assert found.is_lazy == (kind in ("dask", "unnamed"))


@pytest.mark.parametrize("unit", ["nm", "um", "micrometer", "Å"])
def test_coordinates_are_the_pixel_size(unit):
    sizes = {"nm": 1.0, "um": 1e3, "micrometer": 1e3, "Å": 0.1}
    array = Labelled(GREY.T, ("x", "y"), calibrated(7.5, 5.0, unit), "field")
    found = array_to_image(array)
    assert found.pixel_size_nm == pytest.approx((7.5 * sizes[unit], 5.0 * sizes[unit]))
    assert found.origin == pytest.approx((100 * sizes[unit], 0))
    assert found.name == "field"
    assert semsr.spectrum(array).pixel_size_nm == found.pixel_size_nm


UNEVEN = {"x": Coordinate(np.arange(48) ** 2, {"units": "nm"})}


@pytest.mark.parametrize(
    "coordinates",
    [
        calibrated(7.5, 5.0, "degrees"),
        calibrated(7.5, 5.0) | UNEVEN,
        calibrated(0.0, 5.0),
    ],
    ids=["no length", "uneven", "none apart"],
)
def test_coordinates_that_tell_no_pixel_size_are_told_of(coordinates):
    with warned("pixel-size-invalid"):
        found = array_to_image(Labelled(GREY, ("y", "x"), coordinates))
    assert found.pixel_size_nm is None


@pytest.mark.parametrize(
    ("value", "error", "code"),
    [
        *((value, ShapeError, "wrong-type") for value in (3, None, b"a.tif", [])),
        *((value, ShapeError, "wrong-type") for value in ([GREY], [[1, 2], [3]])),
        *((value, ShapeError, "wrong-shape") for value in (GREY[0], GREY[None])),
        (LAZY[LAZY[:, 0] > 0.5], ShapeError, "wrong-shape"),
        (GREY * 1j, ReadError, "complex-values"),
        (Labelled(np.zeros((3, 4, 5)), "zyx"), ShapeError, "too-many-axes"),
        (Labelled(GREY, ("y", "z")), ShapeError, "axis-missing"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_image_is_refused(value, error, code):
    with refused(error, code):
        semsr.metrics(value)
    if not isinstance(value, Labelled):
        with pytest.raises((ShapeError, ReadError)):
            Micrograph(value)
