from fractions import Fraction

import numpy as np
from hypothesis import given, settings, strategies as st

from napari_semsr.core import Box, Resampling


def _all(image, resampling):
    rows, columns = resampling.shape
    place = Box(0, image.shape[0], 0, image.shape[1])
    return resampling.resample(image, place, Box(0, rows, 0, columns))


sides = st.integers(1, 70)
ratios = st.fractions("1/4", 4, max_denominator=40)


@settings(max_examples=60, deadline=None)
@given(size=st.tuples(sides, sides), steps=st.tuples(ratios, ratios), data=st.data())
def test_parts_equal_the_whole_to_the_last_bit(size, steps, data):
    image = np.random.default_rng(1).random(size).astype(np.float32)
    resampling = Resampling(size, steps)
    spans = []
    for count in resampling.shape:
        start = data.draw(st.integers(0, count - 1))
        spans += [start, data.draw(st.integers(start + 1, count))]
    box = Box(*spans)
    place = resampling.source_region(box)
    assert place.intersection(Box.from_shape(size)) == place
    part = resampling.resample(image[place.slices], place, box)
    np.testing.assert_array_equal(part, _all(image, resampling)[box.slices])


def test_a_coarser_grid_does_not_alias():
    wave = np.cos(2 * np.pi * np.arange(256) / 2.5)[:, None] + np.zeros((1, 256))
    made = _all(wave, Resampling(wave.shape, (Fraction(2), Fraction(2))))
    assert np.abs(made[8:-8]).max() < 0.05
    assert np.abs(wave[::2]).max() > 0.9


def test_a_step_of_one_leaves_its_axis_as_it_is(rng):
    image = (rng.random((40, 50)) * 65535).astype(np.uint16)
    made = _all(image, Resampling(image.shape, (Fraction(1), Fraction(1))))
    np.testing.assert_array_equal(made, image)
    level = np.tile(image[0], (40, 1))
    made = _all(level, Resampling(image.shape, (Fraction(3, 2), Fraction(1))))
    np.testing.assert_allclose(made, level[: len(made)], rtol=1e-6)
    made = _all(level.T, Resampling(image.shape[::-1], (Fraction(1), Fraction(3, 2))))
    np.testing.assert_allclose(made, level.T[:, : made.shape[1]], rtol=1e-6)
