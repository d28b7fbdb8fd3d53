"""No pixel of one set lies within a patch of another."""

import numpy as np
from hypothesis import given, strategies as st

from napari_semsr.core.errors import OptionError
from napari_semsr.pairing.cut import generate_patches, split_patches
from napari_semsr.pairing.options import SPLITS, PairOptions
from tests.refusals import refused


@st.composite
def layouts(draw):
    side = draw(st.integers(16, 40))
    shape = tuple(draw(st.integers(side, 6 * side)) for _ in range(2))
    step = draw(st.one_of(st.none(), st.integers(side // 4, 2 * side)))
    seed = draw(st.integers(0, 99))
    return shape, PairOptions(patch=side, step=step, seed=seed)


def painted(places, shape) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for place in places:
        mask[place.box.slices] = True
    return mask


@given(layouts())
def test_sets_share_no_pixel_and_lie_inside(layout):
    shape, options = layout
    places = list(generate_patches(0, shape, options))
    for place in places:
        box = place.box
        assert box.shape == (options.patch, options.patch)
        assert min(box.y0, box.x0) >= 0
        assert box.y1 <= shape[0]
        assert box.x1 <= shape[1]
    apart = -(-options.patch // (options.step or options.patch))
    lattice = np.max([place.index for place in places], axis=0) + 1
    if np.prod(-(-lattice // apart)) < 3:
        with refused(OptionError, "too-few-patches", match=" 3"):
            split_patches(places, options)
        return
    sets = split_patches(places, options)
    assert all(sets[name] for name in SPLITS)
    assert split_patches(places[::-1], options) == sets
    masks = [painted(sets[name], shape) for name in SPLITS]
    assert np.sum(masks, axis=0).max() == 1


def test_shares_are_kept_and_of_many_small_images_whole_ones_are_held_out():
    options = PairOptions(patch=32, step=16)
    places = [
        place for n in range(20) for place in generate_patches(n, (64, 64), options)
    ]
    sets = split_patches(places, options)
    assert [len(sets[name]) for name in SPLITS] == [16 * 9, 18, 18]
    options = PairOptions(patch=16, validation=0.25, test=0.25)
    places = list(generate_patches(0, (160, 160), options))
    sets = split_patches(places, options)
    assert [len(sets[name]) for name in SPLITS] == [50, 25, 25]
    assert sets["test"] != split_patches(places, options.replace(seed=1))["test"]


@given(st.integers(3, 9), st.sampled_from([None, 8]), st.integers(0, 99))
def test_whole_images_give_patches_to_one_set_each(count, step, seed):
    options = PairOptions(patch=16, step=step, seed=seed, whole_images=True)
    places = [p for n in range(count) for p in generate_patches(n, (40, 40), options)]
    sets = split_patches(places, options)
    images = [{place.source for place in sets[name]} for name in SPLITS]
    assert sum(map(len, images)) == len(set.union(*images)) == count
    assert sum(map(len, sets.values())) == len(places)
