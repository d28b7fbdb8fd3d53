"""Laws of what was done to an image, in grey levels and in its noise."""

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.analysis import Change, measure_change
from napari_semsr.core import Micrograph, parse_pixel_size, run

TEN = parse_pixel_size(10.0)


@pytest.fixture
def before(rng) -> Micrograph:
    scene = 300 * ndimage.gaussian_filter(rng.normal(size=(300, 420)), 3)
    values = 100 + scene + rng.normal(0, 4, scene.shape)
    return Micrograph(values.astype(np.float32), TEN, "before", origin=(30.0, -70.0))


def test_nothing_done_is_hardly_changed(before):
    found = run(measure_change(before, before))
    assert (found.mean, found.largest, found.share) == (0, 0, 0)
    assert found.hardly
    assert "has no effect here" in found.noise_comparison
    assert found.noise == pytest.approx(4, rel=0.1)


def test_noise_that_was_found_counts_where_it_is_more(before):
    after = before.replace(data=before.data + 6)
    assert run(measure_change(before, after)).mean_of_noise > 1
    assert run(measure_change(before, after, 12.0)).mean_of_noise == pytest.approx(0.5)
    assert run(measure_change(before, after, 1.0)).noise == pytest.approx(4, rel=0.1)


def test_what_was_added_is_found(before):
    data = before.data.copy()
    data[:30] += 20
    found = run(measure_change(before, before.replace(data=data)))
    assert found.mean == pytest.approx(2, rel=1e-3)
    assert found.largest == pytest.approx(20, rel=1e-3)
    assert found.share == pytest.approx(0.1)
    assert not found.hardly
    assert "almost unchanged" not in found.noise_comparison
    data = before.data.copy()
    data[::20, ::20] += 60  # a few pixels, much
    found = run(measure_change(before, before.replace(data=data)))
    assert found.mean < 0.1 * found.noise
    assert not found.hardly


@pytest.mark.parametrize("gap", [False, True], ids=["whole", "gap"])
def test_a_finer_result_is_averaged_onto_the_input(before, gap):
    data = np.repeat(np.repeat(before.data + 3, 2, 0), 2, 1)
    data[:2, :2] = np.nan if gap else data[:2, :2]
    data[::2] += 1
    data[1::2] -= 1
    fine = Micrograph(data, parse_pixel_size(5.0), origin=(27.5, -72.5))
    found = run(measure_change(before, fine))
    assert found.mean == pytest.approx(3, rel=1e-4)
    assert found.largest == pytest.approx(3, rel=1e-3)


def test_the_area_of_pixels_in_no_whole_ratio_counts():
    thirds = np.tile([6.0, 0.0, 3.0], (45, 20))
    halves = np.tile([4.0, 2.0], (30, 20))  # (6 + 0 / 2) / 1.5 and (0 / 2 + 3) / 1.5
    coarse = Micrograph(halves, parse_pixel_size(15.0), origin=(2.5, 2.5))
    found = run(measure_change(Micrograph(thirds, TEN), coarse))
    assert found.largest == pytest.approx(0, abs=1e-9)


def test_a_large_field_is_sampled_and_says_so():
    field = da.zeros((4096, 5120), dtype=np.uint8, chunks=1024)
    found = run(measure_change(Micrograph(field), Micrograph(field + np.uint8(5))))
    assert (found.mean, found.largest) == (5, 5)
    assert found.looked_at == pytest.approx(64 / 80)
    assert found.seen_in == "80 % of the field"
    assert found.level == 1  # of the type


def test_without_a_pixel_in_common_nothing_is_told(before):
    assert run(measure_change(before, before.replace(origin=(1e6, 0.0)))) is None
    empty = before.replace(data=np.full(before.shape, np.nan))
    assert run(measure_change(empty, before)) is None


@pytest.mark.parametrize(
    ("mean", "noise", "hardly", "said"),
    [
        (1.0, 2.0, False, "less than the noise of the input"),
        (2.0, 2.0, False, "more than the noise of the input: look at the difference"),
        (2.0, 0.0, False, ""),
        (1.0, 2.0, True, "almost unchanged: the method has no effect here"),
    ],
)
def test_a_change_is_compared_with_the_noise(mean, noise, hardly, said):
    found = Change(mean, 6.0, 0.1, noise, 1.0, 0.25, hardly)
    assert found.noise_comparison == said
    assert found.mean_of_noise == (mean / noise if noise else None)
    assert found.largest_of_noise == (3 if noise else None)
    assert found.seen_in == "25 % of the field"
    assert Change(mean, 6.0, 0.1, noise, 1.0, 1.0, hardly).seen_in is None
    assert (found.verdict is None) == (not hardly)
