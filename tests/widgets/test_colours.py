"""Colours that eyes without one kind of cone tell apart too."""

from itertools import combinations, product
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from skimage.color import deltaE_ciede2000, rgb2lab

from napari_semsr.reporting.figures import CURVE_COLOURS
from napari_semsr.widgets.base import COLOURS
from napari_semsr.widgets.measure.particles import LOOKS
from napari_semsr.widgets.measure.resolution import REASON_COLOURS
from napari_semsr.widgets.stitch.panel import get_overlap_colour

# What eyes see of linear red, green and blue, after Machado, Oliveira & Fernandes
# (2009), doi:10.1109/TVCG.2009.113, where a kind of cone is missing.
EYES = {
    "no red": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "no green": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
APART = 15.0  # CIEDE2000; 2 is just seen side by side, small marks need far more
JOINTS = [
    get_overlap_colour(SimpleNamespace(used=used, ambiguous=used, quality=1.0))[:3]
    for used in (True, False)
]
BACKGROUNDS = "#262930", "#efebe9"  # of the legend, in both themes of napari
CLASSES = {
    "plots": COLOURS,
    "report": CURVE_COLOURS,
    "reasons": tuple(REASON_COLOURS.values()),
    "gaps": tuple(look[0] for look in LOOKS.values()),
    "joints": JOINTS,
}


def seen(colours, eye):
    """Lab values that an eye has of colours, (N, 3)."""
    red_green_blue = np.array([to_rgb(colour) for colour in colours])
    curved = ((red_green_blue + 0.055) / 1.055) ** 2.4
    linear = np.where(red_green_blue <= 0.04045, red_green_blue / 12.92, curved)
    light = np.clip(linear @ EYES[eye].T, 0, 1)
    back = 1.055 * light ** (1 / 2.4) - 0.055
    return rgb2lab(np.where(light <= 0.0031308, 12.92 * light, back)[None])[0]


@pytest.mark.parametrize("eye", EYES)
def test_classes_are_told_apart(eye):
    for name, colours in CLASSES.items():
        for one, two in combinations(seen(colours, eye), 2):
            assert deltaE_ciede2000(one, two) >= APART, name


def test_the_legend_of_failed_blocks_is_seen_in_both_themes():
    texts = *REASON_COLOURS.values(), *BACKGROUNDS
    *reasons, dark, light = rgb2lab([[to_rgb(text) for text in texts]])[0]
    for one, back in product(reasons, (dark, light)):
        assert deltaE_ciede2000(one, back) >= APART
        assert back is light or one[0] - back[0] >= APART
