import numpy as np
import pytest

from napari_semsr.core import CurveDeclaration, Line, Plot
from napari_semsr.reporting import draw_image_png, draw_plot_png
from napari_semsr.reporting.figures import choose_scale_bar_length

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("extent", [0.3, 1, 7.77, 64, 999, 12345, 3.4e6])
def test_bar_length_is_round_and_fits(extent):
    found = choose_scale_bar_length(extent)
    assert 0.1 * extent <= found <= 0.28 * extent
    assert f"{found:.0e}"[0] in "125"


def test_image_png_is_the_same_every_time_and_has_the_aspect():
    one, again = (
        draw_image_png(np.eye(10, 20), None, limits=(0, 1), width_px=100)
        for _ in range(2)
    )
    assert one == again
    assert (one[19], one[23]) == (100, 50)


def test_dollar_signs_in_names_of_curves_are_no_formula():
    line = np.linspace(0.01, 0.5, 20)
    lines = tuple(Line(name, line, line) for name in ("$\\frac$", "b"))
    assert draw_plot_png(Plot("title", "x", "y", lines)).startswith(PNG)


@pytest.mark.parametrize(("pixel", "log"), [(None, False), (7.7, True)])
def test_plot_png_with_gaps(pixel, log):
    frequency = np.linspace(0.01, 0.5, 20)
    values = np.where(frequency > 0.4, np.nan, np.exp(-frequency))
    lines = [
        Line("a", frequency, values, 0.2, "5 px"),
        Line("c", frequency[::19], np.full(2, 0.38), kind="threshold"),
    ]
    curve = CurveDeclaration("FRC", "frequency_per_px", "correlation", "", "y", log=log)
    over = [line.convert_to_per_um(pixel) for line in lines]
    plot = curve.combine(over, has_size=pixel is not None)
    assert draw_plot_png(plot, (300, 200)).startswith(PNG)
