"""The printed scale bar: drawn ones of each style, and those of real microscopes."""

import dask.array as da
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


def test_a_bar_that_its_label_breaks_is_whole(field):
    _line(field, 365, 350, 400)
    _line(field, 365, 440, 492)
    _ticks(field, 365, 350, 492, 5)
    field[358:374, 410:412] = field[358:374, 420:423] = 255  # the label
    assert find_scale_bar(field).length_px == 140


@pytest.mark.parametrize(
    ("left", "gap", "right", "found"),
    [
        *((40, 4, 40, True), (40, 3, 40, False)),
        *((30, 180, 30, True), (30, 182, 30, False)),  # three quarters of all
        *((30, 60, 48, True), (30, 60, 49, False), (49, 60, 30, False)),
    ],
)
def test_halves_of_a_bar_are_alike_and_not_far_apart(left, gap, right, found):
    image = np.zeros((300, 600), np.uint8)
    _line(image, 280, 60, 60 + left)
    _line(image, 280, 60 + left + gap, 60 + left + gap + right)
    bar = find_scale_bar(image)
    assert (bar is not None) == found
    if found:
        assert bar.length_px == left + gap + right
        assert bar.box == (280, 60, 282, 60 + left + gap + right)


@pytest.mark.parametrize(
    ("length", "thick", "reach", "found"),
    [
        *((100, 20, 0, True), (100, 21, 0, False)),
        *((60, 2, 11, True), (60, 2, 12, False)),
        *((360, 2, 0, True), (361, 2, 0, False), (16, 2, 0, True), (15, 2, 0, False)),
    ],
)
def test_a_bar_is_thin_with_short_ticks_and_neither_short_nor_long(
    length, thick, reach, found
):
    image = np.zeros((600, 600), np.uint8)
    _line(image, 560, 60, 60 + length, thick)
    if reach:
        _ticks(image, 560, 60, 60 + length, reach)
    bar = find_scale_bar(image)
    assert (bar is not None) == found
    if found:
        assert bar.length_px == length - (2 if reach else 0)
        assert bar.sd_px == pytest.approx(np.hypot(*[1 if reach else 0.5] * 2))


@pytest.mark.parametrize("kind", ["float32", "uint16"])
def test_a_dark_bar_on_a_light_ground_is_found_in_any_type(field, kind):
    _line(field, 365, 350, 470)
    _ticks(field, 365, 350, 470, 7)
    dark = (255 - field.astype(kind)) * 100
    bar = find_scale_bar(dark)
    assert bar.length_px == 118
    assert not bar.light


def test_ticks_may_touch_the_specimen(field):
    field[340:342] = 0
    field[342:, 300:302] = 0
    _line(field, 346, 350, 470)
    field[336:353, [350, 351, 468, 469]] = 255
    assert find_scale_bar(field).length_px == 118


def test_a_bar_at_the_top_is_found_and_lazy_images_are_read_in_part(field):
    _line(field, 365, 350, 470)
    turned = da.from_array(field[::-1], chunks=100)
    bar = find_scale_bar(turned)
    assert (bar.length_px, bar.box) == (120, (33, 350, 35, 470))


def test_rules_letters_specimen_and_two_bars_are_no_bar(field, rng):
    assert find_scale_bar(field) is None
    assert find_scale_bar(rng.random((200, 300))) is None
    ruled = field.copy()
    _line(ruled, 372, 302, 600)  # a rule between two rows of text
    assert find_scale_bar(ruled) is None
    _line(field, 352, 350, 470)
    _line(field, 385, 350, 450)
    assert find_scale_bar(field) is None


def test_images_without_anything_or_a_bar_of_few_pixels_have_none():
    flats = [np.full((200, 200), v) for v in (0.0, np.nan)]
    for image in (np.zeros((1, 1)), np.eye(3), np.full((90, 200), np.inf), *flats):
        assert find_scale_bar(image) is None
    for length in (15, 16):
        image = np.zeros((300, 400), np.uint8)
        _line(image, 280, 60, 60 + length)
        assert (find_scale_bar(image) is not None) == (length == 16)


REAL = {
    # label as printed, in nm; pixel size of the header, where there is one
    "sem/nanoballs/R5_K3Me3_SiO2_2-3.TIF": (5000, None),
    "sem/nanoballs/R5_K3Me3_SiO2_3-2.TIF": (2000, None),
    "sem/morpholopy/a1XG3p_1000x_003.tif": (50_000, 145.703),
    "sem/scientific-python-lectures/MV_HFV_012.jpg": (1_000_000, 3_250_000 / 1024),
    "sem/matchmaker-jeol/JEOL_Exp_Reference_6005_T6_05.bmp": (10_000, None),
    "vendor/FEI-Helios-Ebeam-16bits.tif": (500_000, 3372.4),
    "vendor/fei-sem-rbc.tif": (4000, 7.70833),
    "vendor/test_tiff_Zeiss_SEM_1k.tif": (200_000, 2614.514),
    "dwell_pairs/time/001_30us.tif": (1000, 5.828),
    "dwell_pairs/line/001_off.tif": (1000, 5.828),
}


@pytest.mark.broad
@pytest.mark.parametrize("name", REAL)
def test_bars_of_real_microscopes_agree_with_their_headers(shared_data, name):
    printed_nm, stated_nm = REAL[name]
    image = read(shared_data / name, crop_databar=False, colour="luminance")
    bar = find_scale_bar(image.array())
    assert bar is not None
    if stated_nm is not None:  # MV_HFV prints the width of its field
        assert bar.length_px == pytest.approx(printed_nm / stated_nm, abs=2 * bar.sd_px)


@pytest.mark.broad
def test_two_magnifications_of_one_microscope_agree(shared_data):
    sizes = []
    for name in list(REAL)[:2]:
        image = read(shared_data / name, crop_databar=False).array()
        sizes.append(REAL[name][0] / find_scale_bar(image).length_px)
    assert sizes[0] / sizes[1] == pytest.approx(25_000 / 10_000, rel=0.02)


@pytest.mark.broad
@pytest.mark.parametrize("folder", ["ampis-powder", "nasa", "axondeepseg-sem"])
def test_real_images_without_a_bar_have_none(shared_data, folder):
    for path in sorted((shared_data / "sem" / folder).iterdir()):
        assert find_scale_bar(read(path, colour="luminance").array()) is None
