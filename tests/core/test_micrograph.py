import dask.array as da
import numpy as np
import pytest
from hypothesis import given

from napari_semsr.core.errors import OptionError, ReadError, ShapeError
from napari_semsr.core.micrograph import (
    DisplaySettings,
    InputRecord,
    Micrograph,
    Provenance,
    describe_size_source,
    parse_pixel_size,
)
from tests.refusals import refused
from tests.strategies import micrographs

INF, NAN = float("inf"), float("nan")


def test_what_is_no_length_and_no_image_is_refused():
    numbers = (0, -1.0, NAN, (1.0, INF), (1.0, 2.0, 3.0), (), [[1.0, 2.0]])
    for value in (*numbers, "wide", True, (5, True), np.True_):
        with refused(OptionError, "pixel-size-invalid"):
            parse_pixel_size(value)
    three = "one plane, array.0., or the mean of colours"
    for shape in ((4,), (2, 4, 4), (4, 4, 3), (0, 4), (4, 0)):
        with refused(ShapeError, "wrong-shape", match=three if shape[2:] else None):
            Micrograph(np.zeros(shape))


@given(micrographs())
def test_scale_and_unit_are_those_of_the_calibration(micrograph):
    size, mean = micrograph.pixel_size_nm, micrograph.mean_pixel_size_nm
    if size is None:
        assert (micrograph.unit, mean) == ("pixel", None)
        assert micrograph.scale == micrograph.spacing_px
    else:
        assert (micrograph.unit, micrograph.scale) == ("nm", size)
        assert min(size) * (1 - 1e-9) <= mean <= max(size) * (1 + 1e-9)


def test_replace_leaves_the_original_alone_and_checks_the_pixel_size():
    before = Micrograph(np.zeros((3, 4)), parse_pixel_size(2), "a")
    after = before.replace(name="b", pixel_size_nm=5)
    assert (before.name, before.pixel_size_nm) == ("a", (2.0, 2.0))
    assert (after.name, after.pixel_size_nm) == ("b", (5.0, 5.0))
    with refused(OptionError, "pixel-size-invalid"):
        before.replace(pixel_size_nm=-1)


@pytest.mark.parametrize(
    ("how", "origin"),
    [
        ({"pixel_size_nm": (4.0, 5.0)}, (20.0, 60.0)),
        ({"spacing_px": (2.0, 0.5)}, (40.0, 600.0)),
    ],
)
def test_with_pixel_size_keeps_the_place_in_pixels(how, origin):
    image = Micrograph(np.zeros((3, 4)), origin=(8.0, 30.0), **how)
    found = image.with_pixel_size((10.0, 10.0))
    assert (found.pixel_size_nm, found.origin) == ((10.0, 10.0), pytest.approx(origin))
    assert image.with_pixel_size(None) is image


def test_the_error_of_a_pixel_size_is_kept_as_a_share():
    image = Micrograph(np.zeros((2, 2)), parse_pixel_size((10.0, 20.0)))
    assert image.with_size_error(None) is image
    sure = image.with_size_error((0.1, 0.4))
    assert sure.pixel_size_sd_nm == pytest.approx((0.1, 0.4))
    finer = sure.replace(pixel_size_nm=parse_pixel_size((5.0, 5.0)))
    assert finer.pixel_size_sd_nm == pytest.approx((0.05, 0.1))
    assert sure.with_size_error(None).pixel_size_sd_nm is None
    bare = Micrograph(np.zeros((2, 2)))
    assert bare.with_size_error((0.1, 0.1)) is bare


def test_the_error_of_a_pixel_size_comes_from_the_step_that_stated_it():
    def error(*steps):
        size = parse_pixel_size((10.0, 10.0))
        made = Micrograph(np.zeros((2, 2)), size, provenance=history(*steps))
        return made.pixel_size_sd_nm

    told = {"pixel_size_nm": (20.0, 20.0), "pixel_size_sd_nm": (0.2, 0.4)}
    assert error(("a", told)) == pytest.approx((0.1, 0.2))
    assert error(("a", told), ("b", {})) == pytest.approx((0.1, 0.2))
    assert error(("a", {"reading": told}), ("b", {})) == pytest.approx((0.1, 0.2))
    assert error(("a", told), ("b", {"pixel_size_nm": (10.0, 10.0)})) is None
    for junk in ("abc", [0, 0], [1, 2, 3], {"y": 1}, [None, None]):
        assert error(("a", {"pixel_size_relative_sd": junk})) is None


def test_contrast_limits_of_a_look_rise():
    for limits in ((1.0, 1.0), (2.0, 1.0), (0.0, INF)):
        with pytest.raises(ValueError, match="Contrast limits"):
            DisplaySettings(limits=limits)


@pytest.mark.parametrize("lazy", [False, True], ids=["numpy", "dask"])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "float32"])
def test_what_a_mask_hides_is_unknown(dtype, lazy):
    values, mask = np.ones((3, 4), dtype), np.eye(3, 4, dtype=bool)
    masked = np.ma.array(values, mask=mask, fill_value=values.dtype.type(0))
    image = Micrograph(da.from_array(masked) if lazy else masked)
    assert image.dtype.kind == "f"
    assert not isinstance(image.array(), np.ma.MaskedArray)
    np.testing.assert_array_equal(np.isnan(image.array()), mask)
    np.testing.assert_array_equal(image.array()[~mask], 1)
    assert Micrograph(np.ma.array(values, mask=False)).dtype == dtype


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "S3", "object"])
@pytest.mark.parametrize("made", [np.ones, da.ones], ids=["numpy", "dask"])
def test_values_that_are_no_grey_values_are_refused(made, dtype):
    with refused(ReadError, "complex-values"):
        Micrograph(made((3, 4)).astype(dtype), name="field")


def history(*steps, **more):
    """Steps from the first to the last, each as its job and its options."""
    made = None
    for job, options in steps:
        source = InputRecord(role="image", name="a", provenance=made)
        made = Provenance(job=job, options=options, inputs=(source,), **more)
    return made


TYPED = {"how": "typed", "pixel_size_nm": [10.0, 10.0]}
CALIBRATED = {"pixel_size_nm": 10.0, "pixel_size_sd_nm": 0.1}


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (("crop", {"pixel_size_nm": 10}), "typed by the user"),
        (("a", {"reading": CALIBRATED}), "from a calibration"),
        (("simulate", {"pixel_size_nm": 10}), "simulation"),
        (("a", {"pixel_size_origin": TYPED}), "typed"),
        (("crop", {}), "does not record the source"),
        (("a", {"pixel_size_origin": "x"}), "does not record the source"),
        (("register", {"pixel_size_nm": 1, "fixed": "b"}), "registered"),
    ],
)
def test_the_origin_of_a_pixel_size_is_told(step, said):
    image = Micrograph(np.zeros((2, 2)), 10, provenance=history(step))
    assert said in image.pixel_size_from


@pytest.mark.parametrize(
    ("size", "change"),
    [(10.0, "typed"), (5.0, "divided by 2"), (20.0, "multiplied by 2")],
)
def test_an_own_origin_is_told_with_the_steps_since(size, change):
    said = describe_size_source((size, size), TYPED, history(("a", {})))
    assert change in said
    assert "changed" in describe_size_source((size, 7.0), TYPED, history(("a", {})))
    assert describe_size_source((size, size), None, None) == "given with its array"


def test_a_typed_size_is_recorded_and_an_unknown_one_has_no_origin():
    image = Micrograph(np.zeros((2, 2)), spacing_px=(4.0, 8.0), origin=(4.0, 8.0))
    assert image.pixel_size_from is None
    typed = image.calibrate(20)
    assert (typed.pixel_size_nm, typed.spacing_px) == ((20.0, 20.0), (4.0, 8.0))
    assert (typed.origin, typed.pixel_size_from) == ((20, 20), "typed by the user")
    known = typed.calibrate((40, 40), (1.0, 2.0))
    assert (known.pixel_size_sd_nm, known.spacing_px) == ((1.0, 2.0), (1.0, 1.0))
    assert known.pixel_size_from == "from a calibration"


def test_other_data_are_shown_by_default_and_lie_in_no_file():
    look = DisplaySettings(limits=(0.0, 1.0))
    image = Micrograph(np.zeros((2, 2)), look=look, path="a.tif")
    same, other = image.replace(name="b"), image.replace(data=np.ones((2, 2)))
    assert (same.look, same.path) == (look, "a.tif")
    assert (other.look, other.path) == (None, None)
    assert image.replace(data=np.ones((2, 2)), look=look).look is look
    assert Micrograph([[1, 2], [3, 4]]).shape == (2, 2)
    with refused(ShapeError, "wrong-type"):
        Micrograph([[1, 2], [3]])
