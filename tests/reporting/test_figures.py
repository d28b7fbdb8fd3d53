"""Pictures of a report."""

import numpy as np
import pytest

from napari_semsr.core import CurveDeclaration, Line, Plot, add_threshold_line
from napari_semsr.core.acquisition import Acquisition
from napari_semsr.reporting.figures import (
    choose_scale_bar_length,
    draw_image_png,
    draw_overlaps_png,
    draw_plot_png,
    paste_frames,
)
from napari_semsr.stitching.solution import PairReport

PNG = b"\x89PNG\r\n\x1a\n"


def test_lay_frames_puts_the_last_on_top_and_cuts_at_the_border():
    data = np.stack([np.full((10, 10), v, np.uint16) for v in (1, 2, 3)])
    frames = Acquisition(data, ("a", "b", "c"))
    lit = np.ones((10, 10), bool)
    lit[0] = False
    corners = np.array([[0.0, 0.0], [4.4, 6.0], [np.nan, np.nan]])
    found = paste_frames(frames, corners, lit, (12, 12))
    assert np.isnan(found[0]).all()
    assert found[1, 0] == 1
    assert found[4, 6] == 1  # the second frame's first row is dark
    assert found[5, 6] == found[11, 11] == 2
    assert 3 not in found


@pytest.mark.parametrize(("pixel", "used"), [(None, ()), ((20.0, 20.0), (True, False))])
def test_joints_png_of_any_joints(pixel, used):
    centres = np.array([[5.0, 5.0], [20.0, 30.0], [8.0, 8.0]])
    joints = [
        PairReport(0, 1 + i, (15.0, 25.0), 0.5, 9.0, kept, ambiguous=i > 0)
        for i, kept in enumerate(used)
    ]
    mosaic = np.full((40, 60), np.nan)
    mosaic[5:30, 5:50] = 1
    made = draw_overlaps_png(mosaic, centres, joints, pixel)
    assert made.startswith(PNG)


@pytest.mark.parametrize("extent", [0.3, 1, 7.77, 64, 999, 12345, 3.4e6])
def test_bar_length_is_round_and_fits(extent):
    found = choose_scale_bar_length(extent)
    assert 0.1 * extent <= found <= 0.28 * extent
    assert f"{found:.0e}"[0] in "125"


def test_image_png_is_the_same_every_time_and_has_the_aspect():
    drawn = [
        draw_image_png(np.eye(10, 20), None, limits=(0, 1), width_px=100)
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1]
    assert drawn[0].startswith(PNG)
    assert (drawn[0][19], drawn[0][23]) == (100, 50)


def test_dollar_signs_in_names_of_curves_are_no_formula():
    line = np.linspace(0.01, 0.5, 20)
    lines = tuple(Line(name, line, line) for name in ("$\\frac$", "b"))
    for period in ("", "px"):
        plot = Plot("title", "x", "y", lines, period=period)
        assert draw_plot_png(plot).startswith(PNG)


@pytest.mark.parametrize(("pixel", "log"), [(None, False), (7.7, True)])
def test_plot_png_with_gaps(pixel, log):
    frequency = np.linspace(0.01, 0.5, 20)
    values = np.exp(-frequency)
    values[3] = np.nan
    lines = add_threshold_line(
        [
            Line("a", frequency, values, 0.2, "5 px"),
            Line("b", frequency, values, colour=3),
        ]
    )
    curve = CurveDeclaration("FRC", "frequency_per_px", "correlation", "", "y", log=log)
    over = [line.convert_to_per_um(pixel) for line in lines]
    plot = curve.combine(over, has_size=pixel is not None)
    made = draw_plot_png(plot, (300, 200))
    assert made.startswith(PNG)
