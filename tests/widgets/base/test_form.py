from typing import Literal

import napari.settings
import pytest
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication

from napari_semsr.core import OptionError, Options, option
from napari_semsr.widgets.base import OptionsForm, PlotCanvas, get_preference
from tests.refusals import refused


class Example(Options):
    """One field of each kind."""

    count: int = option(3, "Count", "how many", unit="px", ge=1, le=9)
    share: float = option(0.5, "Share", "a share", step=0.1, ge=0, le=1)
    side: int | None = option(None, "Side", unit="px", step=16, ge=16)
    name: str | None = option(None, "Name")
    loud: bool = option(False, "Loud")
    kind: Literal["a", "b"] = option("b", "Kind", choices={"first": "a", "second": "b"})
    fill: Literal["x"] | None = option(None, "Fill")
    hidden: int = 7
    volume: int = option(5, "Volume", when={"loud": (True,)})


@pytest.fixture
def form(hold) -> OptionsForm:
    return hold(OptionsForm(Example))


def test_form_round_trips_values(form):
    values = {"count": 9, "share": 0.25, "side": 64, "name": "n", "loud": True}
    values |= {"kind": "a", "fill": "x", "volume": 8}
    form.set_values(**values)
    assert form.create_options(hidden=1) == Example(**values, hidden=1)
    gone = {"side": None, "name": None, "fill": None}
    form.set_values(**gone)
    assert form.values() == values | gone
    form.set_values(side=3)
    with refused(OptionError, "out-of-range", match=r"`side` .*16.*got 3\."):
        form.create_options()


def test_a_row_without_a_part_is_hidden_and_at_its_default(form):
    native = form.get_widget("volume").native
    assert native.isHidden()
    form.set_values(loud=True, volume=8)
    assert not native.isHidden()
    assert form.create_options().volume == 8
    form.set_values(loud=False)
    assert native.isHidden()
    assert form.create_options().volume == 5
    assert form.values()["volume"] == 8


def turn_wheel(widget) -> QWheelEvent:
    place, none = QPointF(5, 5), QPoint()
    buttons, keys = Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier
    phase = Qt.ScrollPhase.NoScrollPhase
    turn = QWheelEvent(place, place, none, QPoint(0, 120), buttons, keys, phase, False)
    QApplication.sendEvent(widget, turn)
    return turn


def test_wheel_changes_nothing_without_focus(form):
    for name in ("count", "kind"):
        turn_wheel(form.get_widget(name).native)
    assert form.create_options() == Example()


def test_the_wheel_over_a_plot_is_left_to_the_panel_which_scrolls(model, hold):
    plot = hold(PlotCanvas(model, height=200))
    for part in (plot.canvas, plot):
        assert not turn_wheel(part).isAccepted()


@pytest.mark.skipif(
    not hasattr(napari.settings, "get_plugin_settings"),
    reason="napari before 0.9 has no preferences of plugins",
)
def test_preference_is_what_the_user_set(plugin_settings, registered):
    napari.settings.get_plugin_settings("napari-semsr").computing.device = "cpu"
    assert get_preference("computing", "device") == "cpu"
    assert get_preference("computing", "precision") == "auto"
