"""Figures for a paper: size, bars, caption, formats, and what is refused."""

from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from PIL import Image as Picture

from napari_semsr.core import DisplaySettings, Micrograph, Provenance, SemsrError, run
from napari_semsr.jobs import FIGURE, FigureOptions
from tests.refusals import refused


def frc_map(image: Micrograph) -> Micrograph:
    """Draw a map of an image, in blocks of 20 px, with an empty corner."""
    values = np.full([n // 20 for n in image.shape], 40.0, np.float32)
    values[0, 0] = np.nan
    values[-1, -1] = 50
    look = {"limits": (0, 100), "colormap": "viridis", "opacity": 0.5}
    return Micrograph(
        values,
        tuple(20 * size for size in image.pixel_size_nm),
        "map",
        origin=tuple(9.5 * size for size in image.pixel_size_nm),
        provenance=Provenance(job="frc-map"),
        look=DisplaySettings(**look, colour_bar=True),
    )


def coloured(path: Path) -> np.ndarray:
    """Tell which pixels of a picture have colour, beyond that of missing values."""
    with Picture.open(path) as picture:
        return np.ptp(np.asarray(picture.convert("RGB")).astype(int), axis=2) > 40


def micrograph(name: str = "A") -> Micrograph:
    """Draw a ramp."""
    data = np.add.outer(np.arange(60), np.arange(80)).astype(np.float32)
    return Micrograph(data, (5.0, 5.0), name)


def test_figure_has_the_width_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    options = FigureOptions(width_mm=50.8, dpi=100)
    made = run(FIGURE.job([micrograph()], path, options=options))
    assert made.shape[1] == pytest.approx(200, abs=1)
    assert made.caption == "A; bar 100 nm."
    with Picture.open(path) as picture:
        assert (picture.height, picture.width) == made.shape
        assert picture.info["dpi"][0] == pytest.approx(100, abs=0.1)
    run(FIGURE.job([micrograph()], tmp_path / "one.pdf", options=options))
    assert (tmp_path / "one.pdf").read_bytes().startswith(b"%PDF")


def test_network_is_named_even_without_a_caption(tmp_path: Path) -> None:
    plain = micrograph()
    history = Provenance(job="enhance", model_name="net", model_digest="a" * 64)
    made = plain.replace(provenance=history, name="B")
    options = FigureOptions(no_caption=True, caption="Two.")
    found = run(FIGURE.job([plain, made], tmp_path / "two.png", options=options))
    assert found.caption == f"Two. (b) Made by the network net ({'a' * 16})."
    assert found.networks == (f"net ({'a' * 16})",)


def test_detail_that_is_too_fine_for_the_figure_is_grey(tmp_path: Path) -> None:
    waves = 128 + 100 * np.sin(2 * np.pi * np.arange(1900) / 2.5)
    look = DisplaySettings(limits=(0.0, 255.0))
    image = micrograph().replace(data=np.tile(waves, (200, 1)), look=look)
    path = tmp_path / "a.png"
    run(FIGURE.job([image], path, options=FigureOptions(dpi=150)))
    assert colours_of(path)[20, 60:-60, 0].std() < 0.35 * waves.std()


def test_bar_is_as_long_as_it_says(tmp_path: Path) -> None:
    dark = Micrograph(np.zeros((50, 200), np.uint8) + 7, (10.0, 10.0), "dark")
    path = tmp_path / "dark.png"
    options = FigureOptions(width_mm=101.6, dpi=100, no_caption=True)
    run(FIGURE.job([dark], path, options=options))
    with Picture.open(path) as picture:
        grey = np.asarray(picture.convert("L")).astype(int)
    bar = grey[round(0.93 * len(grey)) : round(0.98 * len(grey)), 2:200].max(0)
    bright = np.flatnonzero(bar > 120)
    assert grey.shape[1] == 400
    # 2000 nm across 400 px: a bar of 500 nm is 100 px long
    assert np.ptp(bright) + 1 == pytest.approx(100, abs=3)


@pytest.mark.parametrize("nm", [5.0, None])
def test_part_is_the_same_place_of_every_image(
    tmp_path: Path, nm: float | None
) -> None:
    size, twice, half = ((nm, nm), (10.0, 10.0), 2.5) if nm else (None, None, 0.5)
    fine = Micrograph(np.zeros((120, 160), np.float32), size, "fine")
    fine.data[20:40, 20:60] = 1
    coarse = fine.data.reshape(60, 2, 80, 2).mean((1, 3))
    place = {"origin": (half, half), "spacing_px": (2.0, 2.0)}
    other = Micrograph(coarse, twice, "coarse", **place)
    how = {"inset": (20, 20, 40, 60), "no_caption": True, "greys": "common"}
    options, path = FigureOptions(width_mm=80, dpi=100, **how), tmp_path / "both.png"
    run(FIGURE.job([fine, other], path, options=options))
    below = colours_of(path)[-30:-15, :, 0]  # within both parts, above their bars
    halves = np.array_split(below, 2, axis=1)
    assert all((half[:, 30:-30] > 240).all() for half in halves)


def colours_of(path: Path) -> np.ndarray:
    with Picture.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


MIDDLE = np.s_[60:150, 120:300]  # of a figure, without bar and frame


@pytest.mark.parametrize(
    ("look", "brightest"),
    [
        ({"colormap": "green"}, (0, 255, 0)),
        ({"colormap": "#ff8800"}, (255, 136, 0)),
    ],
)
def test_image_has_the_colours_that_it_has_on_screen(
    tmp_path: Path, look: dict, brightest: tuple[int, ...]
) -> None:
    shown = micrograph().replace(look=DisplaySettings(limits=(0, 1), **look))
    options = FigureOptions(no_caption=True, dpi=100)
    run(FIGURE.job([shown], tmp_path / "own.png", options=options))
    assert (colours_of(tmp_path / "own.png")[MIDDLE] == brightest).all()


def test_pixels_that_are_not_known_count_for_nothing(tmp_path: Path) -> None:
    data = np.full((400, 400), 5.0)
    data[:, 200:] = 9.0
    data[::3, ::2] = np.nan
    lazy = Micrograph(da.from_array(data, chunks=130), None, "lazy")
    for name, image in (("lazy", lazy), ("eager", lazy.replace(data=data))):
        options = FigureOptions(no_caption=True, dpi=50, width_mm=50)
        run(FIGURE.job([image], tmp_path / f"{name}.png", options=options))
    drawn, other = (colours_of(tmp_path / f"{n}.png") for n in ("lazy", "eager"))
    np.testing.assert_array_equal(drawn, other)
    assert drawn[10:60, 5:45].max() == 0
    assert drawn[10:60, 55:95].min() == 255


@pytest.mark.parametrize(
    ("images", "options", "code"),
    [
        ([], {}, "out-of-range"),
        ([micrograph()], {"inset": (0, 0, 70, 10)}, "outside-image"),
        ([Micrograph(np.ones((900, 1)), None, "thin")], {}, "image-too-large"),
        ([frc_map(micrograph())], {"overlay": True}, "image-missing"),
        ([micrograph(), micrograph("B")], {"overlay": True}, "map-missing"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    tmp_path: Path, images: list[Micrograph], options: dict[str, object], code: str
) -> None:
    path = tmp_path / "bad.png"
    with refused(SemsrError, code):
        run(FIGURE.job(images, path, options=FigureOptions.parse(options)))
    assert not path.exists()


def test_overlay_lies_where_the_map_lies(tmp_path: Path) -> None:
    flat = Micrograph(np.full((60, 80), 7, np.uint8), (5.0, 5.0), "flat")
    options = FigureOptions(width_mm=101.6, dpi=100, overlay=True, no_caption=True)
    path = tmp_path / "over.png"
    run(FIGURE.job([flat, frc_map(flat)], path, options=options))
    seen = coloured(path)
    # the image has 76 % of 400 px, beside the bar: a pixel of it has 3.8 px
    rows, columns = np.nonzero(seen[:, :304])
    assert columns.max() == pytest.approx(303, abs=2)
    assert rows.max() == pytest.approx(227, abs=2)
    assert not seen[:74, :74].any()  # the block without a value
    assert seen[10:70, 80:290].all()
    assert seen[:, 308:].any()  # the colour bar
