import numpy as np
import pytest
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from napari_semsr.analysis import find_scale_bar, read_scale_label

FONT = f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf"


def print_bar(text, *, light=True, size=18, beside=""):
    """Draw an image with a data bar, a bar of 120 px, and a text above its middle."""
    noise = np.random.default_rng(1).normal(128, 30, (400, 600))
    image = Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))
    ground, ink = (0, 255) if light else (255, 0)
    drawing = ImageDraw.Draw(image)
    drawing.rectangle((0, 340, 600, 400), fill=ground)
    drawing.line((350, 385, 469, 385), fill=ink, width=3)
    font = ImageFont.truetype(FONT, size)
    drawing.text((410, 378), text, fill=ink, font=font, anchor="mb")
    drawing.text((20, 380), beside, fill=ink, font=font, anchor="lb")
    return np.asarray(image)


def label_of(image):
    bar = find_scale_bar(image)
    assert bar is not None
    return read_scale_label(image, bar)


@pytest.mark.parametrize(
    ("text", "length_nm"),
    [
        ("200 nm", 200),
        ("500nm", 500),
        ("1 µm", 1000),
        ("5 um", 5000),
        ("20 µm", 20_000),
        ("250 nm", 250),
        ("1.5 µm", 1500),
    ],
)
@pytest.mark.parametrize("light", [True, False], ids=["white", "black"])
def test_the_number_beside_a_bar_is_read(text, length_nm, light):
    label = label_of(print_bar(text, light=light))
    assert label is not None
    assert label.length_nm == pytest.approx(length_nm)
    assert label.text.replace(" ", "") == text.replace(" ", "").replace("um", "µm")
    assert 0.5 < label.sure <= 1


@pytest.mark.parametrize("text", ["", "SE2", "5.00 kV", "20.00 K X", "137 nm", "nm"])
def test_what_is_no_length_of_a_bar_is_not_read(text):
    assert label_of(print_bar(text)) is None


def test_what_stands_far_from_the_bar_is_not_taken():
    assert label_of(print_bar("", beside="500 nm")) is None
    found = label_of(print_bar("2 µm", beside="500 nm"))
    assert found is not None
    assert found.length_nm == 2000


def test_two_lengths_at_one_bar_are_no_reading():
    image = print_bar("2 µm")
    place = Image.fromarray(image.copy())
    font = ImageFont.truetype(FONT, 18)
    ImageDraw.Draw(place).text((480, 392), "5 µm", fill=255, font=font, anchor="lb")
    assert label_of(np.asarray(place)) is None
