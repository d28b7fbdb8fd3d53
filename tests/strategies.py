"""Hypothesis strategies shared by the tests."""

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from napari_semsr.core.micrograph import Micrograph, parse_pixel_size

IMAGE_DTYPES = ("uint8", "int8", "uint16", "int16", "float32", "float64")


def shapes(low: int = 1, high: int = 40) -> st.SearchStrategy[tuple[int, int]]:
    """Rows and columns, each from `low` to `high`."""
    side = st.integers(low, high)
    return st.tuples(side, side)


def pixel_sizes() -> st.SearchStrategy[tuple[float, float]]:
    """Plausible ``(y, x)`` pixel sizes, 10 pm to 1 mm in nm."""
    size = st.floats(0.01, 1e6, allow_nan=False, allow_infinity=False)
    return st.tuples(size, size)


@st.composite
def images(
    draw: st.DrawFn,
    *,
    dtypes: tuple[str, ...] = IMAGE_DTYPES,
    low: int = 1,
    high: int = 40,
) -> np.ndarray[Any, Any]:
    """Finite 2-D images of the types that microscopes write."""
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    elements = (
        {"min_value": -1000, "max_value": 1000, "allow_nan": False}
        if dtype.kind == "f"
        else {}
    )
    values = npst.from_dtype(dtype, **elements)
    return draw(npst.arrays(dtype, draw(shapes(low, high)), elements=values))


@st.composite
def micrographs(draw: st.DrawFn, **kwargs: Any) -> Micrograph:
    """Micrographs with and without calibration."""
    size = draw(st.none() | pixel_sizes())
    return Micrograph(draw(images(**kwargs)), parse_pixel_size(size), "drawn")
