"""A paragraph that is never cut off, however narrow the dock."""

from qtpy.QtCore import Qt
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QLabel, QSizePolicy, QWidget

__all__ = ["Note"]


class Note(QLabel):
    """Text that wraps and always has the height that its width asks for.

    Nested layouts do not hand a label's height for its width on, so that long
    texts lose their last lines; this one sets its own height.

    Parameters
    ----------
    text : str
        Plain or rich text.
    parent : QWidget, optional
        Where it lives.
    """

    def __init__(self, text: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWordWrap(True)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.setText(text)

    def setText(self, text: str | None) -> None:  # noqa: N802 - Qt's name
        """Show another text.

        Parameters
        ----------
        text : str
            Plain or rich text; empty takes no room.
        """
        super().setText(text)
        self.setVisible(bool(text))
        self._fit()

    def resizeEvent(self, event: QResizeEvent | None) -> None:  # noqa: N802
        """Take the height that the new width asks for.

        Parameters
        ----------
        event : QResizeEvent
            The new size.
        """
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        height = max(self.heightForWidth(self.width()), 0)
        if height != self.minimumHeight():
            self.setFixedHeight(height)
