"""Scale and bound of a model's error, and how far a field is from others."""

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.analysis.trust import (
    CLUES,
    REACH_PX,
    bound_factor,
    clues,
    distance_to_fields,
    error_scale,
    fit_scale,
    look_of_field,
)


def parts(rng, side=96):
    before, after = rng.random((2, side, side))
    return before, after, 0.02 + 0.1 * rng.random((side, side))


def test_clues_are_finite_end_in_one_and_look_no_farther_than_they_say(rng):
    found = clues(*parts(rng))
    assert found.shape == (96, 96, CLUES)
    assert np.isfinite(found).all()
    assert (found[..., -1] == 1).all()
    flat = clues(*np.zeros((3, 40, 40)))
    assert np.isfinite(flat).all()
    before, after, spread = parts(rng, 128)
    whole = clues(before, after, spread)
    cut = (slice(20, 120), slice(10, 110))
    part = clues(before[cut], after[cut], spread[cut])
    inner = (slice(REACH_PX, -REACH_PX),) * 2
    np.testing.assert_allclose(part[inner], whole[cut][inner], atol=1e-12)


def test_weights_of_a_law_are_found_again(rng):
    seen = np.column_stack([rng.normal(size=(40_000, CLUES - 1)), np.ones(40_000)])
    true = np.append(rng.normal(0, 0.3, CLUES - 1), 0.0)
    errors = np.exp(seen @ true) * rng.exponential(size=len(seen))
    found = fit_scale(seen, errors)
    np.testing.assert_allclose(found, true, atol=0.05)
    np.testing.assert_allclose(
        error_scale(seen, true), np.minimum(np.exp(seen @ true), 1)
    )


def test_clues_that_never_change_have_no_say(rng):
    seen = np.ones((500, CLUES))
    found = fit_scale(seen, rng.exponential(size=500))
    assert np.isfinite(found).all()
    assert error_scale(seen[:1], found)[0] == pytest.approx(1.0, abs=0.1)


@pytest.mark.broad
def test_bound_holds_for_the_share_that_is_stated_on_other_fields(rng):
    share = 0.9

    def fields(count):
        # each has a scale that is foretold wrongly by a factor of its own
        scales = [np.exp(rng.normal(size=400)) for _ in range(count)]
        wrong = np.exp(rng.normal(0, 0.3, count))
        errors = [
            w * s * rng.exponential(size=400)
            for w, s in zip(wrong, scales, strict=True)
        ]
        return errors, scales

    factor = bound_factor(*fields(400), share)
    below = [float((e < factor * s).mean()) for e, s in zip(*fields(1500), strict=True)]
    error = np.std(below) / np.sqrt(1500) + np.std(below) / np.sqrt(400)
    assert np.mean(below) == pytest.approx(share, abs=4 * error)


def test_few_fields_make_the_bound_wider(rng):
    ratios = [rng.exponential(size=1000) for _ in range(40)]
    ones = [np.ones(1000)] * 40
    assert bound_factor(ratios[:5], ones[:5], 0.8) > bound_factor(ratios, ones, 0.8)


def test_fields_of_another_kind_are_far(rng):
    def look(sigma):
        image = ndimage.gaussian_filter(rng.normal(size=(128, 128)), sigma)
        image = 0.5 + 0.2 * image / image.std()
        return look_of_field(image, image, np.full_like(image, 0.02))

    usual = np.array([look(rng.uniform(2, 3)) for _ in range(40)])
    limit = np.quantile(distance_to_fields(usual, usual, among=True), 0.95)
    same = distance_to_fields(np.array([look(2.5) for _ in range(8)]), usual)
    other = distance_to_fields(np.array([look(0.7) for _ in range(8)]), usual)
    assert (same < limit).mean() > 0.7
    assert (other > limit).all()
