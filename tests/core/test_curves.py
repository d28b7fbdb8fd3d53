import numpy as np
import pytest

from napari_semsr.core import CurveDeclaration, Micrograph, get_plots, run
from napari_semsr.jobs import get_verb

OVER_FREQUENCY = CurveDeclaration(
    "FRC", "frequency_per_px", "frc", "", "frc", mark="resolution"
)


@pytest.fixture
def image(rng) -> Micrograph:
    grey = np.linspace(0, 80, 224) + rng.normal(0, 9, (224, 224))
    return Micrograph(grey, (5.0, 5.0), "noise")


@pytest.mark.parametrize("name", ["frc", "decorrelation", "spectrum", "metrics"])
def test_a_result_and_its_record_draw_alike(name, image):
    verb = get_verb(name)
    report = run(verb.job(image))
    record = report.to_json()
    drawn = get_plots(report, verb.curves)
    read = [curve.create_plot(record.get, ["noise"]) for curve in verb.curves]
    assert [plot.title for plot in drawn] == [plot.title for plot in read]
    for one, other in zip(drawn, read, strict=True):
        assert (one.xlabel, one.ylabel) == (other.xlabel, other.ylabel)
        np.testing.assert_allclose(one.lines[0].x, other.lines[0].x, rtol=1e-6)
        np.testing.assert_allclose(one.lines[0].y, other.lines[0].y, rtol=1e-6)


@pytest.mark.parametrize("size", [None, 20.0])
def test_frequencies_are_per_um_where_pixels_have_a_size(size):
    record = {
        "frequency_per_px": [0.1, 0.5],
        "frc": [1.0, 0.0],
        "pixel_size_nm": size,
        "resolution_px": 4.0,
        "resolution_nm": size and 4 * size,
    }
    plot = OVER_FREQUENCY.create_plot(record.get)
    (line,) = plot.lines
    k = 1 if size is None else 1000 / size
    np.testing.assert_allclose(line.x, [0.1 * k, 0.5 * k])
    assert line.mark == pytest.approx(k / 4)
    assert line.mark_label == ("4 px" if size is None else "80 nm")
    columns = plot.columns["FRC"]
    assert columns[f"period ({plot.period})"][1] == pytest.approx(2 * (size or 1))


def test_what_is_no_curve_is_not_drawn():
    for frequency, frc in (([0.1, 0.2], [1.0]), ("text", 0.3), ([], [])):
        record = {"frequency_per_px": frequency, "frc": frc}
        assert OVER_FREQUENCY.create_plot(record.get) is None
    assert OVER_FREQUENCY.create_plot({}.get) is None
