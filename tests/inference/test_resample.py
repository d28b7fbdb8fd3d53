"""A field at another pixel size: as if resampled by hand, and without seams."""

from fractions import Fraction

import dask.array as da
import numpy as np
import pytest

from napari_semsr import core
from napari_semsr.inference import create_enhanced_array, enhance_in_memory
from napari_semsr.inference.network_input import ResampledField
from napari_semsr.inference.options import EnhanceOptions

FP32 = EnhanceOptions(tile=32, precision="fp32", device="cpu")
TRAINED = {"pixel_size_nm": (10.0, 10.0)}


def _field(rng, shape, size, dtype=np.uint8):
    smooth = rng.random((shape[0] // 6 + 2, shape[1] // 6 + 2)).repeat(6, 0)
    image = smooth.repeat(6, 1)[: shape[0], : shape[1]] + 0.2 * rng.random(shape)
    values = (image * 200).astype(dtype)
    return core.Micrograph(values, core.parse_pixel_size(size), origin=(70.0, -20.0))


def _resample(image, resampling, shape):
    place = core.Box(0, image.shape[0], 0, image.shape[1])
    return resampling.resample(image, place, core.Box(0, shape[0], 0, shape[1]))


def _by_hand(field, loaded, steps):
    """Resample, enhance whole at the trained pixel size, resample back."""
    there = core.Resampling(field.shape, steps)
    seen = core.Micrograph(_resample(field.array(), there, there.shape))
    options = FP32.replace(tile=None, norm="whole")
    made = core.run(enhance_in_memory(seen, loaded, options)).data
    back = core.Resampling(made.shape, (1 / steps[0], 1 / steps[1]))
    scale = loaded.card.scale
    return _resample(made, back, (field.shape[0] * scale, field.shape[1] * scale))


CASES = {
    "twice": (20.0, (Fraction(1, 2), Fraction(1, 2))),
    "half": (5.0, (Fraction(2), Fraction(2))),
    "odd": ((7.3, 12.7), (Fraction(100, 73), Fraction(100, 127))),
}


PAIRS = [("double", "half"), ("strided", "odd")]


@pytest.mark.quick(3)
@pytest.mark.parametrize(
    ("kind", "size"), [("plain", "twice"), *PAIRS, ("informed", "twice")]
)
def test_tiles_equal_resampling_by_hand(kind, size, make_loaded, rng):
    pixel, steps = CASES[size]
    field, loaded = _field(rng, (101, 75), pixel), make_loaded(kind, **TRAINED)
    expected = _by_hand(field, loaded, steps)
    for tile in (16, None):
        result = core.run(enhance_in_memory(field, loaded, FP32.replace(tile=tile)))
        assert result.shape == expected.shape
        error = np.abs(result.data - expected).max()
        assert error <= 1e-5 * np.ptp(expected)
        report = result.metadata["enhance"]
        assert report["tile_mismatch"] <= 1e-5
        seen = np.multiply(field.pixel_size_nm, [float(step) for step in steps])
        assert report["seen_pixel_size_nm"] == pytest.approx(seen)


@pytest.mark.parametrize(
    ("kind", "scale", "size"), [("identity", 1, 5.0), ("double", 2, 16.0)]
)
def test_the_result_lies_where_the_field_does(kind, scale, size, make_loaded, rng):
    field, loaded = _field(rng, (61, 48), size), make_loaded(kind, **TRAINED)
    options = FP32.replace(resample="never")
    plain = core.run(enhance_in_memory(field, loaded, options))
    result = core.run(enhance_in_memory(field, loaded, FP32))
    assert result.shape == plain.shape == (61 * scale, 48 * scale)
    assert result.pixel_size_nm == plain.pixel_size_nm == (size / scale,) * 2
    assert result.origin == plain.origin
    note = plain.metadata["enhance"]["notes"][0]
    assert core.get_error_code(note) == "not-resampled"


@pytest.mark.parametrize(
    ("size", "code"), [(None, "pixel-size-missing"), (21.0, "pixel-size-unsuitable")]
)
def test_what_cannot_be_resampled_is_run_as_it_is_with_one_note(
    size, code, make_loaded, rng
):
    field = _field(rng, (70, 60), size)
    expected = core.run(enhance_in_memory(field, make_loaded("plain"), FP32))
    made = core.run(enhance_in_memory(field, make_loaded("plain", **TRAINED), FP32))
    np.testing.assert_array_equal(made.data, expected.data)
    notes = made.metadata["enhance"]["notes"]
    assert [core.get_error_code(note) for note in notes] == [code]


@pytest.mark.parametrize(
    ("kind", "shape", "size"),
    [
        *(("plain", (1, 1), 20.0), ("double", (1, 70), 5.0), ("strided", (3, 5), 20.0)),
        ("sharpener", (1, 70), 20.0),
    ],
)
def test_thin_fields_work(kind, shape, size, make_loaded, rng):
    field, loaded = _field(rng, shape, size), make_loaded(kind, **TRAINED)
    result = core.run(enhance_in_memory(field, loaded, FP32))
    assert result.shape == tuple(n * loaded.card.scale for n in shape)
    assert np.isfinite(result.data).all()


@pytest.mark.quick(4)
@pytest.mark.parametrize(
    ("kind", "source", "size"),
    [
        *(("double", "numpy", (16, 7)), ("strided", "dask", (16, 7))),
        *(("double", "numpy", None), ("norm", "dask", None)),
        ("informed", "dask", (16, 7)),
    ],
)
def test_lazy_equals_the_engine(kind, source, size, make_loaded, rng):
    field = _field(rng, (95, 78), size, np.float32)
    field.data[3, 4], field.data[40, 30] = np.nan, 3000
    assert core.run(core.survey_pixels(field.data)).strays is not None
    data = field.data if source == "numpy" else da.from_array(field.data, chunks=25)
    loaded, given = make_loaded(kind, **TRAINED), field.replace(data=data)
    array = create_enhanced_array(given, loaded, FP32)
    expected = core.run(enhance_in_memory(field, loaded, FP32)).data
    assert (array.shape, array.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(array.compute(), expected, atol=1e-3)


@pytest.mark.parametrize(("kind", "size"), [*PAIRS, ("norm", "half")])
def test_results_may_stay_on_the_models_grid(kind, size, make_loaded, rng):
    pixel, steps = CASES[size]
    field, loaded = _field(rng, (101, 75), pixel), make_loaded(kind, **TRAINED)
    scale, there = loaded.card.scale, core.Resampling(field.shape, steps)
    seen = core.Micrograph(_resample(field.array(), there, there.shape))
    expected = core.run(enhance_in_memory(seen, loaded, FP32)).data
    options = FP32.replace(resample="keep")
    result = core.run(enhance_in_memory(field, loaded, options))
    np.testing.assert_allclose(result.data, expected, atol=1e-5 * np.ptp(expected))
    for axis in (0, 1):
        pitch = field.pixel_size_nm[axis] * float(steps[axis]) / scale
        assert result.pixel_size_nm[axis] == pytest.approx(pitch)
        border = field.origin[axis] - field.pixel_size_nm[axis] / 2
        assert result.origin[axis] - pitch / 2 == pytest.approx(border)
        extent = field.shape[axis] * field.pixel_size_nm[axis]
        assert 0 <= result.shape[axis] * pitch - extent < pitch * scale
    lazy = create_enhanced_array(field, loaded, options).compute()
    np.testing.assert_allclose(lazy, result.data, atol=1e-3)


def test_missing_pixels_are_missing_on_the_grid_of_the_model(make_loaded, rng):
    field = _field(rng, (60, 64), 20.0, np.float32)
    field.data[20:23, 30:33] = np.nan
    options = FP32.replace(resample="keep")
    made = core.run(enhance_in_memory(field, make_loaded("double", **TRAINED), options))
    gaps = np.isnan(field.data).repeat(4, 0).repeat(4, 1)
    np.testing.assert_array_equal(np.isnan(made.data), gaps)


def test_a_resampled_field_reads_like_an_array(rng):
    image = (rng.random((1300, 40)) * 255).astype(np.uint8)
    there = core.Resampling(image.shape, (Fraction(2, 3), Fraction(3, 2)))
    field = ResampledField(da.from_array(image, chunks=100), there)
    whole = _resample(image, there, there.shape)
    assert field.shape == whole.shape == (1950, 27)
    np.testing.assert_array_equal(field[700:1499, 3:20], whole[700:1499, 3:20])
