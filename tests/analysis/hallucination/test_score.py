"""Laws of the judgement whether discs are shown."""

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.analysis.hallucination.discs import (
    DiscPlaces,
    Discs,
    choose_places,
    disc_steps,
    erase_discs,
    insert_discs,
)
from napari_semsr.analysis.hallucination.score import Verdict, make_trial, tally


@pytest.fixture
def trial(rng):
    """A textured truth in which discs were put in and taken out."""
    image = ndimage.gaussian_filter(rng.standard_normal((256, 256)), 2.2)
    image = 128 + 40 * image / image.std()
    places = choose_places(image, (10, 10), rng)
    steps = disc_steps(image, places.inserted, rng)
    erased = erase_discs(image, places.erased)
    changed = insert_discs(erased, places.inserted, steps)
    return make_trial(image, changed, places)


def shares(trial, image):
    found = trial.judge(image)
    return found["inserted"].mean(), found["erased"].mean()


def test_there_are_discs_to_judge(trial):
    assert len(trial.places.inserted) >= 8
    assert len(trial.places.erased) >= 4


@pytest.mark.parametrize(("gain", "offset"), [(1, 0), (0.2, 30), (-3, 7)])
def test_the_truth_is_right_in_any_grey_scale(trial, gain, offset):
    assert shares(trial, gain * trial.changed + offset) == (1, 1)


def test_the_original_is_wrong_everywhere(trial):
    assert shares(trial, trial.original) == (0, 0)


def test_a_constant_image_shows_nothing(trial):
    flat = np.full_like(trial.changed, 3.0)
    assert shares(trial, flat) == (0, 1)
    assert shares(trial, np.nextafter(flat, trial.changed)) == (0, 1)


def test_false_texture_does_not_pass_for_showing_nothing(trial, rng):
    false = ndimage.gaussian_filter(rng.standard_normal(trial.changed.shape), 2.2)
    false *= trial.original.std() / false.std()
    assert shares(trial, trial.original + false)[1] < 0.6


def test_blur_loses_inserted_discs(trial):
    soft = ndimage.gaussian_filter(trial.changed, 8)
    assert shares(trial, soft)[0] < 0.5


def test_make_trial_drops_discs_that_made_no_difference(trial):
    centres = np.vstack([trial.places.inserted.centres, [[40.0, 40.0]]])
    radii = np.append(trial.places.inserted.radii, 3.0)
    changed = trial.changed.copy()
    changed[20:60, 20:60] = trial.original[20:60, 20:60]
    more = DiscPlaces(Discs(centres, radii), trial.places.erased)
    kept = make_trial(trial.original, changed, more)
    assert [40.0, 40.0] not in kept.places.inserted.centres.tolist()


def test_tally_counts_by_radius_and_change(trial):
    right, wrong = (trial.judge(i) for i in (trial.changed, trial.original))
    rows = tally([Verdict(trial.places, right, wrong)] * 2)
    for change in ("inserted", "erased"):
        own = [row for row in rows if row.change == change]
        discs = sum(row.discs for row in own)
        assert discs == 2 * len(getattr(trial.places, change))
        assert sum(row.enhanced for row in own) == discs
        assert sum(row.degraded for row in own) == 0
    assert [row.radius_px for row in rows] == sorted(row.radius_px for row in rows)
