"""The printed scale bar: drawn ones of each style, and those of real microscopes."""

import numpy as np
import pytest

from napari_semsr.analysis import find_scale_bar
from napari_semsr.io import read


@pytest.fixture
def field(rng):
    """Specimen with a data bar below it, black, with a rule above and some letters."""
    rough = np.clip(rng.normal(120, 30, (400, 600)), 0, 255).astype(np.uint8)
    rough[340:] = 0
    rough[340:342] = 255
    rough[342:, 300:302] = 255  # a rule that parts two cells
    for x in range(20, 120, 9):
        rough[360:372, x : x + 2] = 255
        rough[365, x : x + 6] = 255
    return rough


def _line(image, y, x0, x1, thick=2, value=255):
    image[y : y + thick, x0:x1] = value


def _ticks(image, y, x0, x1, reach, value=255):
    for x in (x0, x1 - 2):
        image[y - reach : y + 2 + reach, x : x + 2] = value


def test_a_bar_is_measured_from_end_to_end_and_ticks_between_their_middles(field):
    ticked = field.copy()
    _line(field, 360, 350, 470, thick=5)
    bar = find_scale_bar(field)
    assert (bar.length_px, bar.box) == (120, (360, 350, 365, 470))
    assert bar.light
    assert bar.sd_px == pytest.approx(np.hypot(0.5, 0.5))
    _line(ticked, 365, 350, 470)
    _ticks(ticked, 365, 350, 470, 7)
    assert find_scale_bar(ticked).length_px == 118


@pytest.mark.parametrize(
    ("left", "gap", "right", "found"),
    [(40, 4, 40, True), (40, 3, 40, False), (30, 182, 30, False), (30, 60, 49, False)],
)
def test_halves_of_a_bar_are_alike_and_not_far_apart(left, gap, right, found):
    image = np.zeros((300, 600), np.uint8)
    _line(image, 280, 60, 60 + left)
    _line(image, 280, 60 + left + gap, 60 + left + gap + right)
    bar = find_scale_bar(image)
    assert (bar and bar.length_px) == (left + gap + right if found else None)


@pytest.mark.parametrize(
    ("length", "thick", "found"),
    [(100, 20, 100), (100, 21, None), (360, 2, 360), (361, 2, None), (15, 2, None)],
)
def test_a_bar_is_thin_and_neither_short_nor_long(length, thick, found):
    image = np.zeros((600, 600), np.uint8)
    _line(image, 560, 60, 60 + length, thick)
    bar = find_scale_bar(image)
    assert (bar and bar.length_px) == found


def test_a_dark_bar_on_a_light_ground_is_found_in_any_type(field):
    _line(field, 365, 350, 470)
    _ticks(field, 365, 350, 470, 7)
    dark = (255 - field.astype("float32")) * 100
    bar = find_scale_bar(dark)
    assert bar.length_px == 118
    assert not bar.light


def test_rules_letters_specimen_and_two_bars_are_no_bar(field, rng):
    assert find_scale_bar(field) is None
    assert find_scale_bar(rng.random((200, 300))) is None
    ruled = field.copy()
    _line(ruled, 372, 302, 600)  # a rule between two rows of text
    assert find_scale_bar(ruled) is None
    _line(field, 352, 350, 470)
    _line(field, 385, 350, 450)
    assert find_scale_bar(field) is None


REAL = {
    # label as printed, in nm; pixel size of the header
    "sem/morpholopy/a1XG3p_1000x_003.tif": (50_000, 145.703),
    "sem/scientific-python-lectures/MV_HFV_012.jpg": (1_000_000, 3_250_000 / 1024),
    "vendor/FEI-Helios-Ebeam-16bits.tif": (500_000, 3372.4),
    "vendor/fei-sem-rbc.tif": (4000, 7.70833),
    "vendor/test_tiff_Zeiss_SEM_1k.tif": (200_000, 2614.514),
}


@pytest.mark.broad
@pytest.mark.parametrize("name", REAL)
def test_bars_of_real_microscopes_agree_with_their_headers(shared_data, name):
    printed_nm, stated_nm = REAL[name]
    image = read(shared_data / name, crop_databar=False, colour="luminance")
    bar = find_scale_bar(image.array())
    assert bar.length_px == pytest.approx(printed_nm / stated_nm, abs=2 * bar.sd_px)


@pytest.mark.broad
def test_real_images_without_a_bar_have_none(shared_data):
    for path in sorted((shared_data / "sem" / "nasa").iterdir()):
        assert find_scale_bar(read(path, colour="luminance").array()) is None
