from typing import Literal

import pytest

from napari_semsr.core.errors import OptionError
from napari_semsr.core.options import Options, option
from napari_semsr.widgets.base.form import OptionsForm
from tests.refusals import refused


class Example(Options):
    """One field of each kind."""

    count: int = option(3, "Count", "how many", unit="px", ge=1, le=9)
    share: float = option(0.5, "Share", "a share", step=0.1, ge=0, le=1)
    side: int | None = option(None, "Side", unit="px", step=16, ge=16)
    index: int | None = option(None, "Index", ge=0)
    name: str | None = option(None, "Name")
    loud: bool = option(False, "Loud")
    kind: Literal["a", "b"] = option("b", "Kind", choices={"first": "a", "second": "b"})
    fill: Literal["x"] | None = option(None, "Fill")
    hidden: int = 7
    volume: int = option(5, "Volume", when={"loud": (True,)})


@pytest.fixture
def form(hold) -> OptionsForm:
    return hold(OptionsForm(Example))


def test_a_choice_that_is_made_by_the_job_is_called_automatic(hold):
    class Chosen(Options):
        kind: Literal["auto", "bright"] = option("auto", "Lines are")

    form = hold(OptionsForm(Chosen))
    box = form.get_widget("kind")
    entries = [box.native.itemText(row) for row in range(box.native.count())]
    assert entries == ["automatic", "bright"]
    assert form.values() == {"kind": "auto"}
    assert form.get_labels()["kind"][1]["auto"] == "automatic"


def test_form_round_trips_values(form):
    values = {
        "count": 9,
        "share": 0.25,
        "side": 64,
        "index": 0,
        "name": "n",
        "loud": True,
        "kind": "a",
        "fill": "x",
        "volume": 8,
    }
    form.set_values(**values)
    assert form.create_options(hidden=1) == Example(**values, hidden=1)
    gone = {"side": None, "index": None, "name": None, "fill": None}
    form.set_values(**gone)
    assert form.values() == values | gone


def test_optional_number_shows_automatic(form):
    assert form.get_widget("side").native.text() == "automatic"


def test_bounds_come_from_the_fields(form):
    assert (form.get_widget("count").min, form.get_widget("count").max) == (1, 9)


def test_out_of_range_is_one_sentence(form):
    form.set_values(side=3)
    with refused(OptionError, "out-of-range", match=r"`side` .*16.*got 3\."):
        form.create_options()


def test_show_row_hides_control_and_label(form):
    form.show_row("side", visible=False)
    assert form.get_widget("side").native.isHidden()
    form.show_row("side", visible=True)
    assert not form.get_widget("side").native.isHidden()


def test_on_change_gives_the_value(form):
    seen: list[object] = []
    form.on_change("side", seen.append)
    form.set_values(side=32)
    form.set_values(side=None)
    assert seen == [32, None]


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


def test_wheel_changes_nothing_without_focus(form):
    from qtpy.QtCore import QPoint, QPointF, Qt
    from qtpy.QtGui import QWheelEvent
    from qtpy.QtWidgets import QApplication

    for name in ("count", "kind"):
        control = form.get_widget(name).native
        turn = QWheelEvent(
            QPointF(5, 5),
            QPointF(5, 5),
            QPoint(),
            QPoint(0, 120),
            Qt.MouseButton.NoButton,
            Qt.KeyboardModifier.NoModifier,
            Qt.ScrollPhase.NoScrollPhase,
            False,
        )
        QApplication.sendEvent(control, turn)
    assert form.create_options() == Example()
