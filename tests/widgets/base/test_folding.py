"""Controls that fold outlive the events of their own end."""

from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QApplication, QComboBox

from napari_semsr.widgets.base.folding import elide_combo_box


def test_combo_box_is_asked_only_to_be_painted(hold):
    """One that is being destroyed sends events too, and crashes when it is asked."""

    class Asked(QComboBox):
        times = 0

        def style(self):
            self.times += 1
            return super().style()

    box = hold(Asked())
    elide_combo_box(box)
    box.times = 0
    for kind in (QEvent.Type.ParentChange, QEvent.Type.User):
        QApplication.sendEvent(box, QEvent(kind))
    assert box.times == 0
    box.grab()
    assert box.times > 0
