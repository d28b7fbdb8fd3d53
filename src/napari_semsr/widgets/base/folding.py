"""Widgets for narrow docks and any font: text wraps or is elided, rows wrap."""

import html
import math
import re

from qtpy import QtWidgets
from qtpy.QtCore import QEvent, QObject, QRect, QSize, Qt, QTimerEvent, QUrl
from qtpy.QtGui import (
    QDesktopServices,
    QHelpEvent,
    QKeyEvent,
    QPaintEvent,
    QResizeEvent,
    QTextDocument,
)
from superqt.utils import QFlowLayout

from napari_semsr.widgets.base.navigation import open_manual

_STYLE_EVENTS = {QEvent.Type.FontChange, QEvent.Type.StyleChange, QEvent.Type.Show}
_REBREAKING = _STYLE_EVENTS | {QEvent.Type.Resize}
_PADDING_PX, _SPIN_BUTTONS_PX = 24, 40  # padding of a spin box in napari's style
_MIN_DIGITS = "0" * 7
_GAP_PX, _NARROW_PX, _ANY_WIDTH = 6, 40, 1 << 20
TEXTS = "other_texts"
"""Qt property of a button with all its possible labels, which determine its width."""
# characters of a name in a list or field: the rest is elided or scrolled
_MIN_LETTERS = 7

_RIGHT = "\N{BLACK RIGHT-POINTING SMALL TRIANGLE}"
_DOWN = "\N{BLACK DOWN-POINTING SMALL TRIANGLE}"

# colours of plots, safe for colour-blind users
COLOURS = ("#4ca3dd", "#e69f00", "#c38769", "#c34b78", "#696900", "#2d4bf0")
# Each has a contrast ratio above 4.5 on its theme's background.
_ON_DARK = {".problem": "#ff8370", ".warning": "#e3b617", "a": "#6cb6ff"}
_ON_LIGHT = {".problem": "#b3261e", ".warning": "#7a5900", "a": "#0b5cad"}
_MIDDLE = 128
_BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:[nµm]m|px|dB)\b|%)")  # never a line's end


def set_widget_visible(part: QtWidgets.QWidget, on: bool) -> None:
    """Show or hide a part of a panel.

    A part without a parent would flash as a window; it is shown with its parent.
    """
    if on and part.parent() is None:
        part.setAttribute(Qt.WidgetAttribute.WA_WState_ExplicitShowHide, False)
    else:
        part.setVisible(on)


class RichTextLabel(QtWidgets.QTextBrowser):
    """Rich-text label that wraps and adapts its height to its width.

    Rich text may mark a part with ``class="problem"`` or ``class="warning"``, which are
    coloured by the theme. Links open in the web browser; one that is not an address is
    a section of the manual.
    """

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self._text, self._kind, self._page = "", "", QTextDocument(self)
        self._links: list[tuple[str, str]] = []
        self.setFrameShape(QtWidgets.QFrame.Shape.NoFrame)
        self.setStyleSheet(
            "QTextBrowser, QTextBrowser > QWidget "
            "{ background: transparent; border: 0px; padding: 0px; }"
        )
        self.setOpenLinks(False)
        self.anchorClicked.connect(self._open_link)
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        policies, off = QtWidgets.QSizePolicy.Policy, Qt.ScrollBarPolicy
        self.setSizePolicy(policies.Ignored, policies.Fixed)
        self.setHorizontalScrollBarPolicy(off.ScrollBarAlwaysOff)
        self.setVerticalScrollBarPolicy(off.ScrollBarAlwaysOff)
        option = self._page.defaultTextOption()
        option.setWrapMode(option.WrapMode.WrapAtWordBoundaryOrAnywhere)
        self._page.setDefaultTextOption(option)
        self._page.setDocumentMargin(0)
        self.setDocument(self._page)
        self.setText(text)

    def text(self) -> str:
        """Return the text as it was set."""
        return self._text

    def setText(self, text: str | None, kind: str = "") -> None:  # noqa: N802
        """Set the text, optionally styled as a `kind` such as a warning."""
        set_widget_visible(self, bool(text))
        if (text or "", kind, []) == (self._text, self._kind, self._links):
            return
        self._text, self._kind, self._links = text or "", kind, []
        self._update_text()

    def add_link(self, label: str, target: str) -> None:
        """Add a link after the text, to an address or a section of the manual."""
        self._links.append((label, target))
        self._update_text()

    def _open_link(self, link: QUrl) -> None:
        if link.scheme():
            QDesktopServices.openUrl(link)
        else:
            open_manual(link.toString())

    def _update_text(self) -> None:
        text = _BEFORE_UNIT.sub("\N{NO-BREAK SPACE}", self._text)
        light = self.palette().text().color().lightness() < _MIDDLE
        colours = (_ON_LIGHT if light else _ON_DARK).items()
        sheet = "\n".join(f"{name} {{ color: {value}; }}" for name, value in colours)
        self._page.setDefaultStyleSheet(sheet)
        if self._kind:
            links = " · ".join(create_link(*link) for link in self._links)
            self.setHtml(f'<b class="{self._kind}">{html.escape(text)}</b> {links}')
        elif re.search(r"</\w+>|<br>", text):
            self.setHtml(text)
        else:
            self.setPlainText(text)
        self._fit_height()

    def resizeEvent(self, event: QResizeEvent | None) -> None:  # noqa: N802
        """Fit the height to the new width."""
        super().resizeEvent(event)
        self._fit_height()

    def changeEvent(self, event: QEvent | None) -> None:  # noqa: N802 - Qt's name
        """Update colours and height for a new theme or font."""
        super().changeEvent(event)
        if event is not None and event.type() in _STYLE_EVENTS:
            self._update_text()

    def _fit_height(self) -> None:
        self._page.setTextWidth(max(self.width(), 1))
        height = math.ceil(self._page.size().height()) if self._text else 0
        if height != self.maximumHeight():
            self.setFixedHeight(height)
            # lays out the content, which Qt omits while showing
            self.setViewportMargins(0, 0, 0, 0)


def create_link(label: str, target: str) -> str:
    """Return a link as rich text without line breaks."""
    words = html.escape(label).replace(" ", "&nbsp;")
    return f'<a href="{html.escape(target)}">{words}</a>'


def stack_widgets(
    holder: QtWidgets.QWidget, *widgets: QtWidgets.QWidget
) -> QtWidgets.QVBoxLayout:
    """Lay out widgets vertically in a parent, without margins."""
    column = QtWidgets.QVBoxLayout(holder)
    column.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        column.addWidget(widget)
    return column


def set_up_scroll_area(area: QtWidgets.QScrollArea, content: QtWidgets.QWidget) -> None:
    """Set up a frameless scroll area for a widget of the same width."""
    area.setWidgetResizable(True)
    area.setStyleSheet("QScrollArea { border: 0px; }")  # napari draws one
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setWidget(content)


class _TextWrapper(QObject):
    """Event filter that wraps the text of a button or tick box to its width."""

    def eventFilter(self, source: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Wrap the text again when the width or font changes."""
        must_break = event is not None and event.type() in _REBREAKING
        if must_break and isinstance(source, QtWidgets.QAbstractButton):
            metrics = source.fontMetrics()
            room = source.width() - _compute_frame_width(source)
            lines: list[str] = []
            for word in source.text().split():
                longer = f"{lines[-1]} {word}" if lines else word
                if lines and metrics.horizontalAdvance(longer) <= room:
                    lines[-1] = longer
                else:
                    lines.append(word)
            text = "\n".join(lines)
            if text != source.text():
                source.setText(text)
        return super().eventFilter(source, event)


def wrap_button_text(button: QtWidgets.QAbstractButton) -> None:
    """Let the text of a button or tick box wrap."""
    button.installEventFilter(_TextWrapper(button))


def _compute_frame_width(button: QtWidgets.QAbstractButton) -> int:
    """Return the width of a button without its text."""
    metrics, lines = button.fontMetrics(), button.text().split("\n")
    widest = max(metrics.horizontalAdvance(line) for line in lines)
    return button.sizeHint().width() - widest


class _ComboElider(QObject):
    """Event filter that elides long combo box entries and shows them in a tooltip."""

    def eventFilter(self, source: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Handle painting, and the tooltip of an elided entry."""
        # Other events come from a box that is being destroyed.
        is_ours = isinstance(event, QPaintEvent | QHelpEvent)
        if not is_ours or not isinstance(source, QtWidgets.QComboBox):
            return super().eventFilter(source, event)
        option = QtWidgets.QStyleOptionComboBox()
        option.initFrom(source)
        style = source.style()
        assert style is not None  # noqa: S101 - every widget has one
        kind = QtWidgets.QStyle.ComplexControl.CC_ComboBox
        field = QtWidgets.QStyle.SubControl.SC_ComboBoxEditField
        room = style.subControlRect(kind, option, field, source).width()
        middle = Qt.TextElideMode.ElideMiddle
        metrics = source.fontMetrics()
        text = metrics.elidedText(source.currentText(), middle, room - 2)
        if isinstance(event, QPaintEvent):
            option.currentText = text
            painter = QtWidgets.QStylePainter(source)
            painter.drawComplexControl(kind, option)
            label = QtWidgets.QStyle.ControlElement.CE_ComboBoxLabel
            painter.drawControl(label, option)
            painter.end()
            return True
        if isinstance(event, QHelpEvent) and text != source.currentText():
            tooltip = f"{source.currentText()}\n\n{source.toolTip()}"
            QtWidgets.QToolTip.showText(event.globalPos(), tooltip, source)
            return True
        return super().eventFilter(source, event)


def elide_combo_box(box: QtWidgets.QComboBox) -> None:
    """Allow a combo box to be narrower than its entries by eliding them."""
    box.setSizeAdjustPolicy(box.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(_MIN_LETTERS)
    view = box.view()
    if view is not None:
        elide_items(view)
    box.installEventFilter(_ComboElider(box))


def elide_items(view: QtWidgets.QAbstractItemView) -> None:
    """Elide long entries of a list in the middle, instead of scrolling."""
    view.setTextElideMode(Qt.TextElideMode.ElideMiddle)
    view.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)


def hide_trailing_zeros(box: QtWidgets.QDoubleSpinBox) -> None:
    """Hide trailing zeros in a spin box with many decimals."""
    shortening = _TrailingZeroRemover(box)
    box.textChanged.connect(shortening.on_text_changed)
    box.editingFinished.connect(shortening.remove_zeros)
    box.installEventFilter(shortening)


def accept_decimal_separators(box: QtWidgets.QDoubleSpinBox) -> None:
    """Accept both a dot and a comma as the decimal separator, typed or pasted.

    Qt reads one of them as a thousands separator, which our numbers do not have, and
    takes 0.25 for 25 in locales with a decimal comma.
    """
    line, marks = box.lineEdit(), _DecimalSeparatorFilter(box)
    box.installEventFilter(marks)
    if line is not None:
        line.installEventFilter(marks)
        line.textEdited.connect(marks.replace_separator)


class _DecimalSeparatorFilter(QObject):
    """Event filter that converts dots and commas to a box's decimal separator."""

    def eventFilter(self, source: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Enter the decimal separator when a dot or comma is typed."""
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            box, line, point = _get_spin_box_parts(self)
            if event.text() in (".", ",") and event.text() != point and box.decimals():
                line.insert(point)
                return True
        return super().eventFilter(source, event)

    def replace_separator(self, text: str) -> None:
        """Replace the decimal separator in pasted text that contains exactly one."""
        box, line, point = _get_spin_box_parts(self)
        other = "." if point == "," else ","
        if box.decimals() and point not in text and text.count(other) == 1:
            line.setSelection(text.index(other), 1)
            line.insert(point)
            line.setCursorPosition(len(text))


class _TrailingZeroRemover(QObject):
    """Helper that removes trailing zeros whenever a spin box updates its text.

    It keeps only Qt objects: Python's garbage collector may clear its attributes while
    Qt still has events for the box.
    """

    def remove_zeros(self) -> None:
        """Remove trailing zeros."""
        box, line, point = _get_spin_box_parts(self)
        text = line.text()
        short = text.rstrip("0").removesuffix(point) if point in text else text
        if short != text:
            line.setText(short)
            box.updateGeometry()

    def on_text_changed(self, _: str) -> None:
        """Remove trailing zeros after a change, unless the user is typing."""
        line = _get_spin_box_parts(self)[1]
        if not (line.isModified() and line.hasFocus()):
            self.remove_zeros()

    def eventFilter(self, source: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Remove trailing zeros soon after the box is shown or its style changes."""
        if event is not None and event.type() in _STYLE_EVENTS:
            self.startTimer(0)  # after Qt has processed the event
        return super().eventFilter(source, event)

    def timerEvent(self, event: QTimerEvent | None) -> None:  # noqa: N802
        """Remove trailing zeros when the timer fires."""
        if event is not None:
            self.killTimer(event.timerId())
            self.remove_zeros()


def _get_spin_box_parts(
    helper: QObject,
) -> tuple[QtWidgets.QDoubleSpinBox, QtWidgets.QLineEdit, str]:
    """Return a helper's spin box with its line edit and decimal separator."""
    box = helper.parent()
    assert isinstance(box, QtWidgets.QDoubleSpinBox)  # noqa: S101 - created for one
    line = box.lineEdit()
    assert line is not None  # noqa: S101 - every spin box has one
    return box, line, box.locale().decimalPoint()


def compute_minimum_width(widget: QtWidgets.QWidget) -> int:
    """Return the minimum width of a control at which only names are elided."""
    metrics = widget.fontMetrics()
    # which reserves room for its longest label
    if isinstance(widget, QtWidgets.QAbstractSpinBox):
        prefix = getattr(widget, "prefix", str)()
        texts = (widget.specialValueText(), prefix + _MIN_DIGITS, widget.text())
        bare = widget.buttonSymbols() == widget.ButtonSymbols.NoButtons
        widest = max(map(metrics.horizontalAdvance, texts))
        return widest + _PADDING_PX + (0 if bare else _SPIN_BUTTONS_PX)
    # whose text may wrap now
    if isinstance(widget, QtWidgets.QPushButton | QtWidgets.QCheckBox):
        text, others = " ".join(widget.text().split()), widget.property(TEXTS)
        if others:
            option, style, widths = QtWidgets.QStyleOptionButton(), widget.style(), []
            assert style is not None  # noqa: S101 - every widget has one
            option.initFrom(widget)
            kind = QtWidgets.QStyle.ContentsType.CT_PushButton
            for label in (text, *others):
                option.text = label
                size = QSize(metrics.horizontalAdvance(label), metrics.height())
                full = style.sizeFromContents(kind, option, size, widget)
                widths.append(full.width())
            return max(widths)
        return _compute_frame_width(widget) + metrics.horizontalAdvance(text)
    letters = _MIN_LETTERS * metrics.averageCharWidth()
    own = Qt.FindChildOption.FindDirectChildrenOnly
    field = isinstance(widget, QtWidgets.QLineEdit) or widget.findChild(
        QtWidgets.QLineEdit, options=own
    )
    return widget.minimumSizeHint().width() + (letters if field else 0)


class _FlowLayout(QFlowLayout):
    """Flow layout that distributes the remaining width of each line."""

    def heightForWidth(self, width: int) -> int:  # noqa: N802 - Qt's name
        """Return the height of all lines."""
        return self._lay_out_widgets(QRect(0, 0, width, 0), test=True)

    def setGeometry(self, rect: QRect) -> None:  # noqa: N802 - Qt's name
        """Lay out the widgets."""
        QtWidgets.QLayout.setGeometry(self, rect)
        self._lay_out_widgets(rect)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return the size of a single line."""
        lines = self._break_lines(_ANY_WIDTH)
        width = sum(width for line in lines for _, width in line)
        gaps = _GAP_PX * max(0, sum(map(len, lines)) - 1)
        return QSize(width + gaps, self.heightForWidth(_ANY_WIDTH))

    def minimumSize(self) -> QSize:  # noqa: N802 - Qt's name
        """Return the size of a narrow layout with wrapped button text."""
        return QSize(_NARROW_PX, self.heightForWidth(_ANY_WIDTH))

    def _break_lines(self, room: int) -> list[list[tuple[QtWidgets.QWidget, int]]]:
        """Break the widgets into lines; return each line's widgets and widths."""
        items = (self.itemAt(number) for number in range(self.count()))
        parts = [item.widget() for item in items if item and not item.isEmpty()]
        lines: list[list[tuple[QtWidgets.QWidget, int]]] = []
        left = -1
        for part in parts:
            if part is None:
                continue
            need = min(compute_minimum_width(part), room)
            if need > left:
                lines.append([])
                left = room
            lines[-1].append((part, need))
            left -= need + _GAP_PX
        return lines

    def _lay_out_widgets(self, rect: QRect, *, test: bool = False) -> int:
        """Lay out the widgets unless `test` is set; return the height."""
        top = rect.top()
        for line in self._break_lines(rect.width()):
            fixed_policy = QtWidgets.QSizePolicy.Policy.Fixed
            parts = [part for part, _ in line]
            policies = ((part, part.sizePolicy().horizontalPolicy()) for part in parts)
            grows = [part for part, policy in policies if policy != fixed_policy]
            width_used = sum(need for _, need in line) + _GAP_PX * (len(line) - 1)
            more = max(0, rect.width() - width_used) // max(1, len(grows))
            high = max(part.sizeHint().height() for part in parts)
            left = rect.left()
            for part, need in line:
                width = need + (more if part in grows else 0)
                if not test:
                    part.setGeometry(left, top, width, high)
                left += width + _GAP_PX
            top += high + _GAP_PX
        return max(0, top - _GAP_PX - rect.top())


class WrappingRow(QtWidgets.QWidget):
    """Row of widgets that wraps onto as many lines as their texts need."""

    def __init__(self, *widgets: QtWidgets.QWidget) -> None:
        super().__init__()
        self._lines = _FlowLayout(self)
        self._lines.setContentsMargins(0, 0, 0, 0)
        policies = QtWidgets.QSizePolicy.Policy
        self.setSizePolicy(policies.Preferred, policies.Minimum)
        for widget in widgets:
            self._lines.addWidget(widget)

    def insert_widget(self, place: int, widget: QtWidgets.QWidget) -> None:
        """Insert a widget at an index."""
        after = range(self._lines.count() - place)
        items = [self._lines.takeAt(place) for _ in after]
        self._lines.addWidget(widget)
        for item in items:
            self._lines.addItem(item)


class CollapsibleSection(QtWidgets.QWidget):
    """Collapsible section of widgets below a title."""

    def __init__(self, title: str, tooltip: str, *widgets: QtWidgets.QWidget) -> None:
        super().__init__()
        self._title = title
        self.header = QtWidgets.QPushButton()
        self.header.setCheckable(True)
        self.header.setToolTip(tooltip)
        self.header.setStyleSheet(
            "QPushButton, QPushButton:checked "
            "{ background: transparent; text-align: left; }"
        )
        self.content = QtWidgets.QWidget()
        stack_widgets(self.content, *widgets)
        stack_widgets(self, self.header, self.content)
        self.header.toggled.connect(self.set_expanded)
        self.set_expanded(on=False)

    def set_expanded(self, on: bool = True) -> None:
        """Expand or collapse the section."""
        self.header.setChecked(on)
        self.header.setText(f"{_DOWN if on else _RIGHT} {self._title}")
        self.content.setVisible(on)

    def expand_if_set(self, value: object) -> None:
        """Expand the section if one of its values is set."""
        if value:
            self.set_expanded()
