"""Message area of a panel: status, errors with their links, and warnings."""

import html
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import QEvent, QObject, QSize, Qt, QUrl
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QScrollArea, QWidget

from napari_semsr.core import SemsrError
from napari_semsr.io import HELPER_KEY
from napari_semsr.widgets import layers
from napari_semsr.widgets.base import folding
from napari_semsr.widgets.base.history import MADE_KEY
from napari_semsr.widgets.base.navigation import find_manual_section
from napari_semsr.widgets.base.runner import create_timer

if TYPE_CHECKING:
    from napari_semsr.widgets.base.panel import VerbPanel

_LINES = 4  # lines kept free for messages; chosen: most are shorter
_LOOK_MS = 500  # ms between two checks whether the cause of an error is gone; chosen
_WHAT_TO_DO = "What to do"


def _get_modification_time(path: str) -> int | None:
    """Return the modification time of a path in ns, or None if it does not exist."""
    try:
        return Path(path).stat().st_mtime_ns
    except (OSError, ValueError):
        return None


class Messages(QScrollArea):
    """Messages of a panel; an error disappears when its cause may have been resolved.

    They take the height that they need from the form; only those that are higher than
    the panel scroll.
    """

    def __init__(self, panel: "VerbPanel") -> None:
        texts = [folding.RichTextLabel() for _ in range(4)]
        super().__init__()
        content = QWidget()
        folding.stack_widgets(content, *texts).addStretch(1)
        folding.set_up_scroll_area(self, content)
        self.status, self.warning_label, self.unsaved_label, self.plane = texts
        self._panel, self._viewer, self.title = panel, panel.viewer, panel.title
        content.installEventFilter(self)
        self.translate: Callable[[str], str] = panel.translate
        self.parts: list[QWidget] = [self]  # painted together, after several steps
        self._mending = create_timer(self, self._check_resolved_error, _LOOK_MS)
        # causes of the error that is shown
        self._causes: tuple[object, ...] | None = None

    def eventFilter(self, source: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Adapt the height to the texts."""
        if event is not None and event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
            if (layout := self._panel.layout()) is not None:
                layout.activate()
            self._update_scroll_bar()
        return super().eventFilter(source, event)

    def resizeEvent(self, event: QResizeEvent | None) -> None:  # noqa: N802 - Qt's name
        """Show the scroll bar only if the panel is too small for the texts."""
        super().resizeEvent(event)
        self._update_scroll_bar()

    def _update_scroll_bar(self) -> None:
        # "as needed" would keep a bar from before the height followed
        kinds, fits = Qt.ScrollBarPolicy, self.sizeHint().height() <= self.height()
        kind = kinds.ScrollBarAlwaysOff if fits else kinds.ScrollBarAsNeeded
        self.setVerticalScrollBarPolicy(kind)

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return the height that is kept free for messages."""
        return QSize(0, _LINES * self.fontMetrics().lineSpacing())

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return the height of the texts."""
        content, view, least = self.widget(), self.viewport(), self.minimumSizeHint()
        if content is None or view is None:
            return least
        frame = self.height() - view.height()  # of the theme
        return least.expandedTo(content.minimumSizeHint() + QSize(0, frame))

    def set_updates_enabled(self, *, on: bool = True) -> None:
        """Paint the messages and the progress, or delay this."""
        for part in self.parts:
            part.setUpdatesEnabled(on)

    def show_status(self, text: str) -> None:
        """Show a status message, replacing the last one."""
        self.set_updates_enabled()
        self.show_step(text)

    def show_step(self, text: str) -> None:
        """Show a status message, which may be painted later."""
        self._mending.stop()
        self.status.setText(self.translate(text))

    def notify(self, text: str) -> None:
        """Show a success message in the panel, or as a notification if it is hidden."""
        self.show_status(text)
        self.show_if_hidden(text)

    def show_if_hidden(self, text: str) -> None:
        """Show a message as a notification if the panel is hidden."""
        if not self._panel.isVisible():
            show_info(text)

    def show_problem(self, text: str) -> None:
        """Show an error in the panel and as a notification.

        It is removed when a value changes, a layer is added, removed or resized, or a
        file named in the form appears or disappears.
        """
        sentence, place = self.translate(text), find_manual_section(text)
        self._causes = self._find_error_causes()
        self._mending.start()
        self.set_updates_enabled()
        self.status.setText(sentence, "problem")
        label = _WHAT_TO_DO if place else "Troubleshooting"
        self.status.add_link(label, place or "troubleshooting.md")
        show_error(sentence)

    def show_job_problem(self, text: str) -> None:
        """Show why a job failed, keeping the error during clean-up by the panel."""
        self.show_problem(text)
        self._causes = None

    @contextmanager
    def show_errors(self) -> Iterator[None]:
        """Show errors raised in this context instead of propagating them."""
        try:
            yield
        except SemsrError as error:
            self.show_problem(str(error))

    def _find_error_causes(self) -> tuple[object, ...]:
        """Return possible causes of an error: the form, its files, other layers."""
        texts, *others = self._panel.read_form()
        files = [_get_modification_time(text) for text in texts if os.sep in text]
        shown = [
            (id(item), item.name, tuple(item.scale), layers.count_items(item))
            for item in self._viewer.layers
            if self.title not in map(item.metadata.get, (MADE_KEY, HELPER_KEY))
        ]
        return texts, others, files, shown

    def clear_resolved_error(self) -> None:
        """Clear an error whose cause may have been resolved."""
        has_causes = self._mending.isActive() and self._causes is not None
        if has_causes and self._causes != self._find_error_causes():
            self.show_status("")

    def _check_resolved_error(self) -> None:
        if self._causes is None:
            self._causes = self._find_error_causes()
        self.clear_resolved_error()

    def show_log_link(self, path: str) -> None:
        """Add a link to the log of failed jobs."""
        self.status.add_link("Open the log", QUrl.fromLocalFile(path).toString())

    def show_warning(self, text: str) -> None:
        """Show a warning about a result, until the next run."""
        sentence, place = self.translate(text), find_manual_section(text)
        link = "" if place is None else f" {folding.create_link(_WHAT_TO_DO, place)}"
        line = f'<p class="warning">{html.escape(sentence, quote=False)}{link}</p>'
        if line not in self.warning_label.text():
            self.warning_label.setText(self.warning_label.text() + line)
            if not self._panel.isVisible():
                show_warning(sentence)

    def clear_warnings(self) -> None:
        """Clear the warnings of the last run."""
        self.warning_label.setText("")
