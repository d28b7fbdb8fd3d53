from dataclasses import replace

import numpy as np
import pytest

from napari_semsr.analysis.gaps import (
    Gap,
    Gaps,
    Particle,
    choose_bin_edges,
    compute_fraction_interval,
    compute_mean_interval,
    compute_width_histogram,
)
from napari_semsr.core import OptionError
from tests.refusals import refused


def test_gaussian_finds_the_mean_of_known_widths():
    widths = np.random.default_rng(7).normal(31.0, 6.0, 4000)
    found = compute_width_histogram(
        [*widths, 300.0], choose_bin_edges([*widths, 300.0])
    )
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


@pytest.mark.broad
def test_error_of_the_gaussian_holds_its_mean():
    rng, held = np.random.default_rng(3), []
    for _ in range(60):
        widths = rng.normal(30, 8, 60)
        fit = compute_width_histogram(widths, choose_bin_edges(widths)).fit
        held.append(abs(fit.mean - 30) < 1.96 * fit.error)
    assert np.mean(held) > 0.84


def test_bins_hold_nearly_all_and_are_as_wide_as_asked():
    widths = np.random.default_rng(1).gamma(4, 3, 300)
    for asked in (None, 0.75):
        edges = choose_bin_edges(widths, asked)
        assert edges[0] == 0
        assert np.mean(widths <= edges[-1]) > 0.97
    assert float(edges[1]) == 0.75
    with refused(OptionError, "out-of-range", match="bin_width .* 1000 "):
        choose_bin_edges(widths, 1e-6)


def test_wilson_knows_the_share_of_none_and_of_all():
    # by hand: z2 / (n + z2) with z2 = 3.8415
    assert compute_fraction_interval(0, 57) == (0, pytest.approx(0.06314, abs=1e-5))
    assert compute_fraction_interval(57, 57) == (
        pytest.approx(1 - 0.06314, abs=1e-5),
        1,
    )
    assert compute_fraction_interval(0, 0) is None
    # Newcombe (1998), table I: 81 of 263
    assert compute_fraction_interval(81, 263) == pytest.approx(
        (0.2553, 0.3662), abs=1e-4
    )


@pytest.mark.broad
@pytest.mark.parametrize("share", [0.02, 0.4])
def test_intervals_of_shares_hold_the_truth(share):
    missed = np.random.default_rng(5).binomial(80, share, 2000)
    ends = [compute_fraction_interval(k, 80) for k in missed]
    assert 0.92 < np.mean([low <= share <= high for low, high in ends]) < 0.99


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


def test_interval_of_a_mean_is_the_same_twice_and_none_of_few():
    values = np.random.default_rng(2).exponential(1, 20)
    low, high = compute_mean_interval(values)
    assert (low, high) == compute_mean_interval(values)
    assert (low, high) != compute_mean_interval(values, seed=1)
    mean = values.mean()
    assert high - mean > mean - low > 0  # longer on the side of the tail
    assert compute_mean_interval(values[:4]) is None
    assert compute_mean_interval([2.5] * 9) == (2.5, 2.5)
    assert compute_mean_interval([]) is None


@pytest.mark.parametrize("scale", [0.013, 3.4])
def test_bins_are_as_wide_as_a_reader_can_add_up(scale):
    widths = scale * np.random.default_rng(0).normal(10, 1, 300)
    edges = choose_bin_edges(widths)
    step = edges[1] - edges[0]
    digits = step / 10.0 ** np.floor(np.log10(step * 1.0001))
    assert min(abs(digits - one) for one in (1, 2, 2.5, 5, 10)) < 1e-6
    low, high = np.quantile(widths, [0.25, 0.75])
    plain = 2 * (high - low) / 300 ** (1 / 3)  # Freedman and Diaconis
    assert 0.6 < step / plain < 1.6


WIDTHS = [(3.0, 2.0), (4.0, 4.5), (None, 5.0), (6.0, 5.0), (2.0, 3.0), (8.0, 7.5)]


def made_gaps(**changes):
    """Six gaps of a reference, of which one is missed, and one invented."""
    found = [
        Gap(
            *((k, 2.0 * k), (5.0 * k, 10.0 * k), ((0, 0), (1, 1))),
            *(width, width and 5 * width, reference, reference and 5 * reference),
            "missed" if width is None else "found",
        )
        for k, (width, reference) in enumerate(WIDTHS)
    ]
    new = Gap((9, 9), None, ((0, 0), (1, 1)), 1.5, None, None, None, "invented")
    sizes = [Particle((k, k), 8.0 + k, None, k > 0, 50.0, k, 0.0) for k in range(4)]
    known = {"sizes": (*sizes,), "invented_gaps": (new,), "own": 6, "size_error": 0.1}
    counts = {"bright": 9, "covered": 0.126, "populated": 0.5}
    made = Gaps(4, 11, 0, (*found,), 3.0, 2.0, **known, **counts)
    return replace(made, **changes)


def test_gaps_are_summed_up_in_words():
    gaps = made_gaps()
    assert (gaps.gaps, gaps.detected, gaps.detection_text) == (6, 5, "5 of 6")
    assert gaps.verdict == "5 of 6 seen, 1 invented"
    assert gaps.count_text == (
        "4 particles of 9 regions, distributed over 50 % of the field and "
        "covering 13 % of its area"
    )
    assert made_gaps(bright=4).count_text.startswith("4 particles, distributed over")
    assert gaps.neighbours == "11"
    left_out = replace(gaps, excluded=2, across=1).neighbours
    assert (
        left_out
        == "11 (2 for unequal brightness, 1 with an object in the gap left out)"
    )
    assert gaps.undetected_fraction == pytest.approx(1 / 6)
    assert gaps.undetected_interval == compute_fraction_interval(1, 6)
    assert gaps.invented_fraction == pytest.approx(1 / 6)
    assert gaps.invented_interval == compute_fraction_interval(1, 6)
    alone = replace(gaps, reference_background=None, own=None)
    assert alone.verdict == "of this image only: errors need a reference image"
    assert (
        alone.detection_text,
        alone.undetected_fraction,
        alone.undetected_interval,
    ) == (None,) * 3
    assert (alone.invented_fraction, alone.invented_interval) == (None, None)
    assert replace(gaps, found_gaps=()).undetected_fraction is None
