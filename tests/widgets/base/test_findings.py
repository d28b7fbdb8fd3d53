"""Numbers, curves and plots leave a panel: by the clipboard, as CSV, PNG and SVG."""

import csv
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from qtpy.QtWidgets import QApplication

from napari_semsr.core import Figure
from napari_semsr.core.micrograph import Provenance
from napari_semsr.widgets.base.findings import Findings
from napari_semsr.widgets.measure.frc_map import FrcMapPanel
from napari_semsr.widgets.measure.metrics import MetricsPanel


@pytest.fixture
def choose(choose, tmp_path):
    """Answer the dialog with a name and one of the kinds that it offers."""

    def answer(name: str, suffix: str) -> Path:
        choose(tmp_path / name if name else "", suffix)
        return tmp_path / f"{name}{suffix}"

    return answer


@pytest.fixture(
    params=[MetricsPanel, pytest.param(FrcMapPanel, marks=pytest.mark.broad)]
)
def panel(request, model, hold, exposures, add, run_panel):
    """A panel with numbers and a plot of two layers, one made by a network."""
    made = Provenance(job="enhance", model_name="a-network", model_digest="0" * 64)
    add(model, exposures[0])
    add(model, exposures[1].replace(provenance=made))
    panel = hold(request.param(model))
    first, second = model.layers
    if request.param is MetricsPanel:
        panel.image.value, panel.reference.value = second, first
    else:
        panel.first.value, panel.second.value = second, first
    assert not panel.sharing.isVisibleTo(panel)
    run_panel(panel)
    assert panel.sharing.isVisibleTo(panel)
    return panel


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def read_rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.reader(stream))


def test_numbers_are_copied_and_saved_with_curves_units_and_origin(panel, choose):
    panel.sharing.copy_button.click()
    rows = [line.split("\t") for line in QApplication.clipboard().text().splitlines()]
    numbers = panel.findings().numbers
    assert [row[0] for row in rows[:-1]] == list(numbers)
    for row, found in zip(rows, numbers.values(), strict=False):
        if isinstance(found, Figure) and isinstance(found.value, str):
            assert row[1] == found.value
        elif isinstance(found, Figure) and found.value is not None:
            assert float(row[1]) == pytest.approx(found.value, rel=1e-9)
            assert row[2] == found.unit
    assert "a-network" in rows[-1][0]
    path = choose("numbers", ".csv")
    panel.sharing.save_button.click()
    assert str(path) in panel.status.text()
    rows = read_rows(path)
    told = [",".join(row) for row in rows if row and row[0].startswith("# ")]
    assert panel.title in told[0]
    assert {"# first"} < set(told)
    assert any(line.startswith("# second") and "a-network" in line for line in told)
    cut = rows.index([])
    assert rows[len(told)] == ["quantity", "value", "unit", "note"]
    assert len(rows[len(told) + 1 : cut]) == len(panel.findings().numbers)
    heads, *cells = rows[cut + 1 :]
    for name, curve in panel.findings().curves.items():
        for head, values in curve.items():
            found = [row[heads.index(f"{name}: {head}")] for row in cells]
            assert len(found) >= len(values)
            for cell, value in zip(found, values, strict=False):
                if isinstance(value, str):
                    assert cell == value
                elif cell:
                    assert float(cell) == pytest.approx(value, rel=1e-6)
                else:
                    assert math.isnan(value)


@pytest.mark.broad
def test_saved_plot_is_dark_on_white_whatever_the_theme(panel, model, choose):
    plot = panel.plot
    theme, size = plot.figure.get_facecolor(), tuple(plot.figure.get_size_inches())
    path = choose("plot", ".png")
    panel.sharing.plot_button.click()
    picture = pixels(path)
    assert picture.shape[1] > 1500
    assert np.median(picture) == 255
    assert picture[:3].min() == 255
    assert plot.figure.get_facecolor() == theme  # as it was shown
    assert tuple(plot.figure.get_size_inches()) == size
    model.theme = "light"
    other = choose("other", ".png")
    panel.sharing.plot_button.click()
    np.testing.assert_array_equal(pixels(other), picture)
    path = choose("plot", ".svg")
    panel.sharing.plot_button.click()
    drawing = path.read_text(encoding="utf-8")
    for axes in panel.plot.axes:
        assert axes.get_xlabel() in drawing
    assert "made by the network a-network" in drawing


def test_what_is_not_chosen_or_gone_is_not_saved(panel, choose, tmp_path):
    said = panel.status.text()
    choose("", ".csv")
    panel.sharing.save_button.click()
    choose("", ".png")
    panel.sharing.plot_button.click()
    assert list(tmp_path.iterdir()) == []
    assert panel.status.text() == said
    choose("gone/numbers", ".csv")
    panel.sharing.save_button.click()
    assert "could not be written" in panel.status.text()
    choose("gone/plot", ".svg")
    panel.sharing.plot_button.click()
    assert "could not be written" in panel.status.text()
    assert list(tmp_path.iterdir()) == []


def test_columns_of_different_length_stand_side_by_side(tmp_path):
    curves = {"a": {"x (nm)": [1.0, 2.0]}, "b, c": {"y": [0.1 + 0.2]}}
    path = tmp_path / "x.csv"
    Findings("Trial", curves=curves).write_csv(path)
    assert read_rows(path)[1:] == [
        [],
        ["a: x (nm)", "b, c: y"],
        ["1", "0.3"],
        ["2", ""],
    ]


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [(2891.4, ".3g", "2890"), (20000.0, ".3g", "20000"), (1.8e-4, ".2e", "1.80e-04")],
)
def test_large_numbers_are_shown_in_digits(value, form, text):
    assert str(Figure(value, "nm", form)) == f"{text} nm"


@pytest.mark.parametrize("value", [None, float("nan")])
def test_what_has_no_number_is_a_dash(value):
    assert str(Figure(value, "nm")) == "\N{EN DASH}"
    assert Findings("x", numbers={"a": Figure(value, "nm")}).to_text() == "a\t\tnm\t"


def test_one_refused_measure_is_singular(panel, choose, opened, monkeypatch):
    made = SimpleNamespace(path="report.html", refused=1)
    monkeypatch.setattr(panel.controls, "start", lambda _, show, __: show(made))
    choose("report", ".html")
    panel.sharing.page_button.click()
    assert "1 measure was refused; see there why." in panel.status.text()
    assert len(opened) == 1


@pytest.mark.broad
def test_report_tells_of_what_was_measured_and_replaces_nothing(
    panel, choose, opened, qtbot
):
    path = choose("report", ".html")
    panel.sharing.page_button.click()
    qtbot.waitUntil(lambda: bool(opened))
    told = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert opened[0].toLocalFile() == str(path)
    images = {item["name"]: item for item in told["images"]}
    assert set(images) == {"first", "second"}
    assert told["pairs"][0]["reference"] == "first"  # what no network made
    assert images["second"]["networks"][0]["name"] == "a-network"
    [found] = told["found"]
    numbers = {k: str(v) for k, v in panel.findings().numbers.items()}
    assert found == {
        "title": panel.title,
        "of": list(panel.findings().origin),
        "numbers": numbers,
    }
    assert panel.title in path.read_text(encoding="utf-8")
    assert "report.html" in panel.status.text()
    path = choose("other", ".html")
    path.with_suffix(".json").write_text("mine")
    panel.sharing.page_button.click()
    qtbot.waitUntil(lambda: "exists" in panel.status.text())
    assert path.with_suffix(".json").read_text() == "mine"
    assert not path.exists()
