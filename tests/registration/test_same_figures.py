"""What was found of some views is found again.

It is in ``same_figures.json``. A change that is meant writes that file anew:
``python -m tests.registration.test_same_figures``.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from napari_semsr.core import Affine, Elastic, run
from napari_semsr.registration import (
    Landmarks,
    Registration,
    RegistrationOptions,
    find_shift,
    register,
    register_landmarks,
)
from napari_semsr.registration.register_images import CorrelationSearch, SearchRanges
from tests.same_figures import assert_same, write_record
from tests.two_views import draw_views

RECORD = Path(__file__).with_name("same_figures.json")
PLACES = np.array([[300.0, 400], [2000, 500], [500, 2100], [2100, 2000], [1200, 900]])
OFF = np.array([[30.0, -20], [-10, 25], [20, 15], [-25, 5], [5, -30]])

views = cache(draw_views)


def summary(found: Registration) -> list[object]:
    transform = found.transform
    affine, knots = transform, None
    if isinstance(transform, Elastic):
        affine, knots = transform.affine, transform.bending.coefficients
    quality = found.error_nm, found.overlap, found.score, found.residuals, found.rivals
    before, after = found.mutual_information_before, found.mutual_information_after
    return [affine.matrix, affine.shift, knots, quality, before, after]


def registered(model: str, side: int = 128, **how: float) -> list[object]:
    moving, fixed, truth = views(side, **how)
    start = truth.compose(Affine(shift=(30.0, -20.0)))
    options = RegistrationOptions(model=model)
    return summary(run(register(moving, fixed, options, start=start)))


def searched() -> list[object]:
    moving, fixed, truth = views(128, degrees=5.0, seed=4)
    search = CorrelationSearch(moving, fixed, pitch_nm=40.0)
    best = run(search.run(SearchRanges(15.0, 0.05).list_steps(64), keep=5))
    found = [*best, *search.find_rivals(truth, 5)]
    return [(one.score, one.affine.matrix, one.affine.shift) for one in found]


def landmarks(model: str) -> list[object]:
    moving, fixed, truth = views(128, degrees=5.0, seed=4)
    pairs = Landmarks(PLACES, truth(PLACES) + OFF)
    return summary(register_landmarks(moving, fixed, pairs, model))


def shift() -> object:
    _, fixed, _ = views(128, degrees=5.0, seed=4)
    grey = fixed.array().astype(float)
    return find_shift(grey[:100, :100], 300 - grey[4:104, 7:107] ** 1.1, reach=16)


MEASURES = {
    "near": lambda: summary(run(register(*views(128, degrees=-6.0, seed=3)[:2]))),
    "similarity": lambda: registered("similarity", seed=5),
    "affine": lambda: registered("affine", degrees=12.0, eroded_px=1),
    "elastic": lambda: registered("elastic", 160, seed=6),
    "search": searched,
    "landmarks": lambda: [landmarks(model) for model in ("affine", "similarity")],
    "shift": shift,
}


@pytest.mark.parametrize("name", MEASURES)
def test_figures_stay_the_same(name):
    assert_same(RECORD, name, MEASURES[name]())


if __name__ == "__main__":
    write_record(RECORD, MEASURES)
