import numpy as np
import pytest

from napari_semsr.analysis.gaps import (
    choose_bin_edges,
    compute_fraction_interval,
    compute_mean_interval,
    compute_width_histogram,
)
from napari_semsr.core import OptionError
from tests.refusals import refused


def test_gaussian_finds_the_mean_of_known_widths():
    widths = [*np.random.default_rng(7).normal(31.0, 6.0, 4000), 300.0]
    found = compute_width_histogram(widths, choose_bin_edges(widths))
    assert found.beyond >= 1
    assert sum(found.counts) + found.beyond == 4001
    assert found.fit.mean == pytest.approx(31.0, abs=4 * found.fit.error)
    assert 0 < found.fit.error < 0.5
    assert found.fit.sigma == pytest.approx(6.0, abs=0.4)
    step = found.edges[1] - found.edges[0]
    sides = found.fit.evaluate([found.fit.mean - 6, found.fit.mean, found.fit.mean + 6])
    assert sides[0] == pytest.approx(sides[2])
    assert sides[1] == pytest.approx(4000 * step / (6 * np.sqrt(2 * np.pi)), rel=0.1)


def test_too_few_widths_have_no_gaussian():
    assert compute_width_histogram([30.0, 31.0], np.arange(0, 82, 2)).fit is None
    assert compute_width_histogram([], choose_bin_edges([])).counts == (0,)
    assert compute_width_histogram([5.0] * 20, choose_bin_edges([5.0] * 20)).beyond == 0
    whole = compute_width_histogram([1.0, 2.0, 3.0, 3.5], [0.0, 1.0, 2.0, 3.0])
    assert (sum(whole.counts), whole.beyond) == (3, 1)  # the last edge is in its bin


def test_bins_hold_nearly_all_and_are_as_wide_as_asked():
    widths = np.random.default_rng(1).gamma(4, 3, 300)
    for asked in (None, 0.75):
        edges = choose_bin_edges(widths, asked)
        assert edges[0] == 0
        assert np.mean(widths <= edges[-1]) > 0.97
    assert float(edges[1]) == 0.75
    # as wide as allowed before it is rounded, and a most narrow peak; none is refused
    for spread in (*np.geomspace(0.01, 0.1, 30), 1e-6, 0.0):
        edges = choose_bin_edges(30 + spread * np.array([-1.5, -0.5, 0.5, 1.5]))
        assert 10 <= len(edges) <= 1001
    assert choose_bin_edges([0.0] * 5).tolist() == [0, 1]
    with refused(OptionError, "out-of-range", match="bin_width .* 1000 "):
        choose_bin_edges(widths, 1e-6)


def test_wilson_knows_the_share_of_none_and_of_all():
    # by hand: z2 / (n + z2) with z2 = 3.8415
    assert compute_fraction_interval(0, 57) == (0, pytest.approx(0.06314, abs=1e-5))
    assert compute_fraction_interval(0, 0) is None
    # Newcombe (1998), table I: 81 of 263
    found = compute_fraction_interval(81, 263)
    assert found == pytest.approx((0.2553, 0.3662), abs=1e-4)


@pytest.mark.broad
@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda rng: rng.normal(0.5, 2, 40), 0.5),
        (lambda rng: rng.exponential(3, 40), 3.0),  # skewed, as absolute errors are
    ],
)
def test_intervals_of_means_hold_the_truth(draw, truth):
    rng = np.random.default_rng(11)
    ends = [compute_mean_interval(draw(rng)) for _ in range(250)]
    assert 0.91 < np.mean([low <= truth <= high for low, high in ends]) < 0.985
