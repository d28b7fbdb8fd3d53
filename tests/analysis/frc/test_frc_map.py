import dask.array as da
import numpy as np
import pytest

from napari_semsr.analysis import FrcMapOptions, measure_frc_map
from napari_semsr.core import Micrograph, OptionError, ShapeError, parse_pixel_size, run
from tests.refusals import refused


@pytest.fixture
def pair(make_pair):
    return [Micrograph(x) for x in make_pair((160, 224), 5.0)]


def test_map_lies_on_the_block_centres_and_agrees_with_its_statistics(pair):
    nm = parse_pixel_size((10.0, 10.0))
    a = pair[0].replace(pixel_size_nm=nm, origin=(5.0, 7.0))
    found = run(measure_frc_map(a, pair[1], FrcMapOptions(step=32)))
    assert found.map.shape == ((160 - 64) // 32 + 1, (224 - 64) // 32 + 1)
    assert found.map.pixel_size_nm == (320.0, 320.0)
    assert found.map.origin == (5.0 + 315.0, 7.0 + 315.0)
    assert found.blocks == found.map.data.size
    assert found.failed == sum(found.reason_counts.values())
    assert found.median_nm == pytest.approx(np.nanmedian(found.measured_values))
    assert found.p10_nm <= found.median_nm <= found.p90_nm
    assert found.median_nm == pytest.approx(50, rel=0.1)


def test_lazy_input_and_strips_give_the_same_map(pair, monkeypatch):
    options = FrcMapOptions(step=32)
    whole = run(measure_frc_map(*pair, options))
    lazy = [m.replace(data=da.from_array(m.data, chunks=50)) for m in pair]
    parts = run(measure_frc_map(*lazy, options))
    np.testing.assert_allclose(whole.measured_values, parts.measured_values, rtol=1e-5)
    monkeypatch.setattr("napari_semsr.analysis.frc.map.STRIP_PIXELS", 1)
    strips = run(measure_frc_map(*pair, options))
    np.testing.assert_allclose(whole.measured_values, strips.measured_values, rtol=1e-5)


def test_failed_blocks_are_nan_with_a_reason_and_filling_is_visible(pair) -> None:
    data = pair[0].data.copy()
    data[:64, :64] = np.nan
    data[:, 200:] = 3.0
    holes = pair[0].replace(data=data)
    bare = run(measure_frc_map(holes, pair[1], FrcMapOptions(step=32)))
    full = run(measure_frc_map(holes, pair[1], FrcMapOptions(step=32, fill="nearest")))
    assert np.isnan(bare.measured_values[0, 0])
    assert bare.reason_names[bare.reasons[0, 0] - 1] == "no-signal"
    assert np.isfinite(full.map.data).all()
    np.testing.assert_array_equal(full.measured_values, bare.measured_values)
    np.testing.assert_array_equal(full.reasons, bare.reasons)


def test_shared_noise_is_seen_in_the_field_before_a_block_shows_it(draw) -> None:
    rng = np.random.default_rng(9)
    field = draw((320, 320), 5.0, 50.0, rng) + 0.32 * rng.standard_normal((320, 320))
    a, b = (Micrograph(field + rng.standard_normal(field.shape)) for _ in range(2))
    found = run(measure_frc_map(a, b, FrcMapOptions(step=64)))
    assert found.field_reason == "correlated-noise"


def test_blocks_per_axis_lie_side_by_side_and_must_fit(pair):
    found = run(measure_frc_map(*pair, FrcMapOptions(blocks_per_axis=2)))
    assert (found.block, found.step) == (80, 80)
    assert found.map.shape == (2, 2)
    with refused(OptionError, "too-many-blocks", match="10 "):
        run(measure_frc_map(*pair, FrcMapOptions(blocks_per_axis=11)))
    with refused(ShapeError, "image-too-small"):
        run(measure_frc_map(*pair, FrcMapOptions(block=200)))
    low = pair[0].replace(data=pair[0].data[:15])
    with refused(OptionError, "image-too-small"):
        run(measure_frc_map(low, low, FrcMapOptions(blocks_per_axis=1)))


def test_identical_blocks_say_nothing_of_the_field(pair) -> None:
    found = run(measure_frc_map(pair[0], pair[0]))
    assert found.reason_counts == {"identical": found.blocks}
    assert np.isnan(found.map.data).all()
    assert found.percentile(50) is None
    assert found.field_reason is None


def test_some_of_the_blocks_are_summed_up(pair) -> None:
    found = run(measure_frc_map(*pair, FrcMapOptions(step=32)))
    inside = np.zeros(found.measured_values.shape, bool)
    inside[0] = True
    some = found.summarise(inside)
    expected = np.nanpercentile(found.measured_values[0], (10, 50, 90))
    assert some.blocks == inside[0].size
    assert (some.p10, some.median, some.p90) == pytest.approx(tuple(expected))


def test_grey_levels_of_any_size_give_the_same_map(pair) -> None:
    options = FrcMapOptions(step=48)
    plain = run(measure_frc_map(*pair, options))
    scaled = [m.replace(data=1e-25 * (m.data + 3)) for m in pair]
    found = run(measure_frc_map(*scaled, options))
    np.testing.assert_allclose(found.measured_values, plain.measured_values, rtol=1e-3)
    assert found.failed == plain.failed


def test_blocks_with_an_interval_wider_than_the_value_have_none(make_pair) -> None:
    noisy = [Micrograph(x) for x in make_pair((160, 224), 8.0)]
    found = run(measure_frc_map(*noisy, FrcMapOptions(block=24)))
    assert found.reason_counts["undetermined"] > 0
    assert np.nanmax(found.relative_sd) < 0.2456
    low, high = found.median_interval
    assert high - low < found.percentile(50)


def test_uncalibrated_map_is_in_pixels(pair) -> None:
    found = run(measure_frc_map(*pair, FrcMapOptions(step=32, estimator="plain")))
    assert found.unit == "px"
    assert found.median_nm is None
    assert found.map.scale == (32.0, 32.0)
    assert found.percentile(50) == pytest.approx(5.0, rel=0.12)
