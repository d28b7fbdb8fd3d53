import pytest

from napari_semsr.widgets.calibrate import PixelSizeEdit


@pytest.fixture
def edit(hold) -> PixelSizeEdit:
    return hold(PixelSizeEdit())


def test_decimal_comma_is_shown_and_typed(german, edit):
    edit.value = (55.82, 20.0)
    box = edit.height_box.native
    assert box.text() == "y 55,82"
    box.lineEdit().setText("y 7,125")
    box.interpretText()
    assert edit.value == (7.125, 20.0)


def test_either_mark_is_a_decimal_point_where_it_is_pasted(german, edit, qapp):
    qapp.clipboard().setText("0.25")
    line = edit.height_box.native.lineEdit()
    line.selectAll()
    line.paste()
    edit.height_box.native.interpretText()
    assert edit.value == (0.25, 0.25)


def test_both_axes_move_together_until_they_differ(edit):
    edit.height_box.value = 5.0
    assert edit.value == (5.0, 5.0)
    edit.width_box.value = 4.0
    edit.height_box.value = 6.0
    assert edit.value == (6.0, 4.0)


def test_unit_keeps_the_numbers(edit):
    edit.value = (55.82, 55.82)
    edit.unit_box.value = "µm"
    assert edit.value == pytest.approx((55820.0, 55820.0))
    assert "55820 nm" in edit.note.text()


@pytest.mark.parametrize(
    ("size", "unit"),
    [((7.7, 7.7), "nm"), ((2614.5, 2614.5), "µm"), ((0.05, 0.05), "pm")],
)
def test_unit_suits_the_size(edit, size, unit):
    edit.value = size
    assert edit.unit_box.value == unit
    assert edit.value == pytest.approx(size)
