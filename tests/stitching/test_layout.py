"""What unrelated frames reach by chance, from the peaks that were seen."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from napari_semsr.stitching.layout import ChanceLevel

CHANCE = ChanceLevel(((0, 50),), 8.0, 1.0, 48 * 33**2, 4.0, 0.5, False, 3.0)


def test_chance_is_an_exponential_tail_of_peaks_that_were_seen():
    # of 48 windows 48 peaks were above, so in one search of that size one is
    assert CHANCE.compute_chance_score(33**2, 1.0) == pytest.approx(np.sqrt(2 * 8))
    assert CHANCE.compute_chance_score(1, 1.0) == pytest.approx(4)  # and not less
    further = 60 * (1000 ** (1 / 60) - 1)  # by Lomax, of 48 peaks and 12 before
    assert CHANCE.compute_chance_score(33**2, 1e-3) == pytest.approx(
        np.sqrt(2 * (8 + further))
    )
    steep = replace(CHANCE, slope=2.0)
    found = steep.compute_chance_score(33**2, 1e-3)
    assert found == pytest.approx(np.sqrt(2 * (8 + further / 2)))


def test_chance_of_hardly_any_peak_is_that_of_normal_fields():
    bare = replace(CHANCE, slope=0.0)
    found = bare.compute_chance_score(100, 0.01)
    # as many trials as details: shifts * height^2 / 2 grain
    trials = 100 * found**2 / (2 * 3.0)
    assert norm.sf(found) == pytest.approx(0.01 / min(trials, 100), rel=1e-3)
    normal = bare.compute_chance_score(100, 1e-3 / 3)
    assert bare.compute_threshold(100, 3.0) == (normal, False)
    assert bare.compute_threshold(100, 30.0) == (30.0, False)
    repeats = replace(CHANCE, repeats=True)
    assert repeats.compute_threshold(100, 3.0) == (normal, True)
