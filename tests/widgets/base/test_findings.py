"""Numbers, curves and plots leave a panel: by the clipboard, as CSV, PNG and SVG."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from qtpy.QtWidgets import QApplication

from napari_semsr.core import Figure, Provenance
from napari_semsr.widgets.base.results_group import Findings, SelectableTable
from napari_semsr.widgets.measure.quality import QualityPanel


@pytest.fixture
def choose(choose, tmp_path):
    """Answer the dialog with a name and one of the kinds that it offers."""

    def answer(name: str, suffix: str) -> Path:
        choose(tmp_path / name if name else "", suffix)
        return tmp_path / f"{name}{suffix}"

    return answer


@pytest.fixture
def panel(model, hold, exposures, add, run_panel):
    """A panel with numbers and a plot of two layers, one made by a network."""
    made = Provenance(job="enhance", model_name="a-network", model_digest="0" * 64)
    first = add(model, exposures[0])
    second = add(model, exposures[1].replace(provenance=made))
    panel = hold(QualityPanel(model))
    panel.image.value, panel.reference.value = second, first
    assert not panel.sharing.isVisibleTo(panel)
    run_panel(panel)
    assert panel.sharing.isVisibleTo(panel)
    return panel


def read_rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.reader(stream))


def test_numbers_are_copied_and_saved_with_curves_units_and_origin(panel, choose):
    panel.sharing.copy_button.click()
    rows = [line.split("\t") for line in QApplication.clipboard().text().splitlines()]
    numbers = panel.findings().numbers
    assert [row[0] for row in rows[:-1]] == list(numbers)
    for row, found in zip(rows, numbers.values(), strict=False):
        if isinstance(found, Figure) and isinstance(found.value, float):
            assert float(row[1]) == pytest.approx(found.value, rel=1e-9)
            assert row[2] == found.unit
    assert "a-network" in rows[-1][0]
    path = choose("numbers", ".csv")
    panel.sharing.save_button.click()
    assert str(path) in panel.status.text()
    rows = read_rows(path)
    told = [",".join(row) for row in rows if row and row[0].startswith("# ")]
    assert panel.title in told[0]
    assert "# first" in told
    assert any(line.startswith("# second") and "a-network" in line for line in told)
    cut = rows.index([])
    assert rows[len(told)] == ["quantity", "value", "unit", "note"]
    assert len(rows[len(told) + 1 : cut]) == len(numbers)
    heads, *cells = rows[cut + 1 :]
    for name, curve in panel.findings().curves.items():
        for head, values in curve.items():
            at = heads.index(f"{name}: {head}")
            found = [float(row[at] or "nan") for row in cells[: len(values)]]
            np.testing.assert_allclose(found, values, rtol=1e-6)


@pytest.mark.broad
def test_saved_plot_is_dark_on_white_whatever_the_theme(panel, model, choose):
    pictures = []
    for theme in ("dark", "light"):
        model.theme = theme
        path = choose(theme, ".png")
        panel.sharing.plot_button.click()
        pictures.append(np.asarray(Image.open(path).convert("RGB")))
    assert pictures[0].shape[1] > 1500
    assert np.median(pictures[0]) == 255
    np.testing.assert_array_equal(*pictures)
    path = choose("plot", ".svg")
    panel.sharing.plot_button.click()
    assert "made by the network a-network" in path.read_text(encoding="utf-8")


def test_what_is_not_chosen_or_gone_is_not_saved(panel, choose, tmp_path):
    said = panel.status.text()
    ways = ((panel.sharing.save_button, ".csv"), (panel.sharing.plot_button, ".svg"))
    for button, suffix in ways:
        choose("", suffix)
        button.click()
        assert panel.status.text() == said
    for button, suffix in ways:
        choose("gone/numbers", suffix)
        button.click()
        assert "could not be written" in panel.status.text()
    assert list(tmp_path.iterdir()) == []


def test_what_has_no_number_is_a_dash_and_a_large_one_has_its_digits():
    for value in (None, float("nan")):
        assert str(Figure(value, "nm")) == "\N{EN DASH}"
        text = Findings("x", numbers={"a": Figure(value, "nm")}).to_text()
        assert text == "a\t\tnm\t"
    assert str(Figure(2891.4, "nm", ".3g")) == "2890 nm"
    assert str(Figure(20000.0, "nm", ".3g")) == "20000 nm"


def test_a_table_fits_a_narrow_dock(qtbot):
    names = ("at (nm)", "FWHM (nm)", "95 % from (nm)", "Rayleigh 26.4 %", "plain (nm)")
    sheet = SelectableTable("tip", "Lines")
    qtbot.addWidget(sheet)
    sheet.resize(380, 200)
    sheet.fill({name: ["resolved", 641.5] for name in names})
    sheet.show()
    assert sheet.horizontalHeader().length() <= sheet.viewport().width()
    assert sheet.to_text().startswith("at (nm)\tFWHM (nm)")
