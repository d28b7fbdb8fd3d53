"""Plots in a panel: what they leave to it."""

from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication

from napari_semsr.widgets.base.plots import PlotCanvas


def test_the_wheel_over_a_plot_is_left_to_the_panel_which_scrolls(model, hold):
    plot = hold(PlotCanvas(model, height=200))
    for part in (plot.canvas, plot):
        turn = QWheelEvent(
            QPointF(50, 50),
            QPointF(50, 50),
            QPoint(),
            QPoint(0, -120),
            Qt.MouseButton.NoButton,
            Qt.KeyboardModifier.NoModifier,
            Qt.ScrollPhase.NoScrollPhase,
            False,
        )
        QApplication.sendEvent(part, turn)
        assert not turn.isAccepted()  # which Qt then gives to the widget around it
