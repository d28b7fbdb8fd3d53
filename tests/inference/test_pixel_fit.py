"""When a field is resampled, to what, and what is said."""

import pytest
from pydantic import ValidationError

from napari_semsr.core import get_error_code, parse_pixel_size
from napari_semsr.inference import TrainedPixelSizes, plan_resampling
from napari_semsr.models import ModelCard

TEN = TrainedPixelSizes("ten", (10.0, 10.0))


def _fit(size, trained=TEN, resample="auto"):
    return plan_resampling(parse_pixel_size(size), trained, resample)


@pytest.mark.parametrize(("size", "steps"), [(5, "2"), (15, "2/3"), (12.5, "4/5")])
def test_a_field_is_resampled_to_the_trained_size(size, steps):
    fit = _fit(size)
    assert [str(step) for step in fit.steps] == [steps, steps]
    assert fit.seen_nm == pytest.approx((10.0, 10.0))
    assert fit.resampling_factor == pytest.approx(size / 10)
    assert not fit.beyond
    assert get_error_code(fit.note) == "resampled"


def test_axes_ranges_and_cards_without_a_size_are_met():
    fit = _fit((10.2, 15.0))
    assert [str(step) for step in fit.steps] == ["1", "2/3"]
    assert fit.seen_nm == pytest.approx((10.2, 10.0))
    assert fit.resampling_factor == 1.5
    assert _fit(3000, TrainedPixelSizes("any", None)).note == ""
    assert get_error_code(_fit(None).note) == "pixel-size-missing"
    trained = TrainedPixelSizes("range", (8.0, 16.0))
    assert _fit(12, trained).steps is None
    assert _fit(4, trained).seen_nm == pytest.approx((8, 8))
    assert _fit(32, trained).seen_nm == pytest.approx((16, 16))
    for size in (5, 20, 20.000001, 4.999999):
        assert not _fit(size).beyond


@pytest.mark.parametrize("size", [4.9, 20.1, (10, 50)])
def test_beyond_the_range_one_sentence_warns(size):
    fit = _fit(size)
    assert fit.steps is None
    assert fit.beyond
    assert get_error_code(fit.note) == "pixel-size-unsuitable"
    wide = TrainedPixelSizes("wide", (10.0, 10.0), (0.1, 10.0))
    assert _fit(size, wide).steps is not None


@pytest.mark.parametrize(
    "bad", [{"pixel_size_nm": (12, 8)}, {"resample_factors": (1.2, 2)}], ids=str
)
def test_cards_refuse_sizes_that_mean_nothing(bad):
    values = {"name": "x", "architecture": "y", "receptive_field": 3}
    card = ModelCard(**values, pixel_size_nm=(8, 12))
    trained = TrainedPixelSizes.from_card(card.model_dump())
    assert trained == TrainedPixelSizes("x", (8.0, 12.0))
    with pytest.raises(ValidationError):
        ModelCard(**values, **bad)
