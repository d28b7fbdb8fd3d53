"""What is wrong with an image, told as numbers and read back."""

import numpy as np
import pytest

from napari_semsr.core.condition import (
    FAULTS,
    get_blur,
    get_noise,
    mirror_condition,
    override_condition,
)

PLAIN = tuple(0.1 * place for place in range(len(FAULTS)))


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.3])
@pytest.mark.parametrize("blur", [0.0, 0.7, 3.0])
def test_what_is_told_is_read(noise, blur):
    told = override_condition(PLAIN, noise, blur)
    assert get_noise(told) == pytest.approx(noise, abs=1e-12)
    assert get_blur(told) == pytest.approx(blur, abs=1e-12)
    assert len(told) == len(PLAIN)


def test_what_is_not_told_is_kept():
    assert override_condition(PLAIN, None, None) == PLAIN
    assert get_blur(override_condition(PLAIN, 0.1, None)) == get_blur(PLAIN)
    assert get_noise(override_condition(PLAIN, None, 1.0)) == get_noise(PLAIN)
    changed = [
        a != b for a, b in zip(override_condition(PLAIN, 0.1, 1.0), PLAIN, strict=True)
    ]
    assert np.flatnonzero(changed).tolist() == [0, 5, 6, 7]


def test_an_oblong_blur_counts_by_its_mean_square():
    wide, narrow = (override_condition(PLAIN, None, blur) for blur in (3.0, 1.0))
    both = (*wide[:6], narrow[6], *wide[7:])
    assert get_blur(both) == pytest.approx(5**0.5)


def test_a_mirrored_field_slants_the_other_way():
    there = mirror_condition(PLAIN)
    assert mirror_condition(there) == PLAIN
    changed = [a != b for a, b in zip(there, PLAIN, strict=True)]
    assert sum(changed) == 1
    assert get_blur(there) == get_blur(PLAIN)
    assert there[changed.index(True)] == -PLAIN[changed.index(True)]
