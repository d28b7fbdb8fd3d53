"""Forms: magicgui widgets for the fields of a pydantic option set, one row each.

A label is above its control if the dock is too narrow for both, every control has a
tooltip, and an optional number shows *automatic* at the low end of its range.
"""

import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

from magicgui import widgets
from magicgui.application import use_app
from magicgui.widgets import CheckBox, ComboBox, FileEdit, LineEdit
from magicgui.widgets.bases import Widget
from pydantic.fields import FieldInfo
from qtpy import QtWidgets
from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QDropEvent, QWheelEvent

from napari_semsr import core
from napari_semsr.io import ReadOptions
from napari_semsr.jobs import FUNCTIONS, get_verb
from napari_semsr.widgets.base import folding
from napari_semsr.widgets.base.navigation import find_title
from napari_semsr.widgets.base.places import get_start_folder

FormState = tuple[list[str], list[bool], list[list[str]]]
"""Texts, ticks and selected rows of a form."""
Labels = Mapping[str, tuple[str, Mapping[str, str]]]
"""Panel labels of options and their values, keyed by option name."""

_O = TypeVar("_O", bound=core.Options)
_Part = TypeVar("_Part", bound=QtWidgets.QWidget)
_AUTOMATIC = "automatic"
_REFITTING = {QEvent.Type.LayoutRequest, QEvent.Type.Show, QEvent.Type.FontChange}
# napari's selection is hardly visible in either theme; text on this one is readable
_SELECTION_STYLE = (
    "QListView::item:selected { background-color: rgba(80, 110, 230, 150); }"
)
_GAP_PX = 6  # distance of a label from its control
_LARGEST_INT = 1_000_000  # bound of a box without one; chosen
_LARGEST_FLOAT = 1e9


class _WheelEventFilter(QObject):
    """Event filter that passes the mouse wheel from unfocused controls to the panel."""

    def eventFilter(self, control: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Pass the wheel on if the control has no focus."""
        if (
            isinstance(event, QWheelEvent)
            and isinstance(control, QtWidgets.QWidget)
            and not control.hasFocus()
        ):
            event.ignore()
            return True
        return super().eventFilter(control, event)


class _TextReporter(QObject):
    """Child of a text field that emits `changed` when typing has ended.

    A dropped path or text replaces that of the field.
    """

    def __init__(self, edit: LineEdit) -> None:
        self._line: QtWidgets.QLineEdit = edit.native
        super().__init__(self._line)
        self._edit = edit
        self._line.textChanged.connect(self.report_set_text)
        self._line.editingFinished.connect(self.report_typed_text)
        self._line.installEventFilter(self)

    def report_set_text(self) -> None:
        """Report a text that a program has set."""
        if not self._line.isModified():
            self._edit.changed.emit(self._line.text())

    def report_typed_text(self) -> None:
        """Report a text that a person has typed."""
        if self._line.isModified():
            self._line.setModified(False)
            self._edit.changed.emit(self._line.text())

    def eventFilter(self, line: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Enter what is dropped, as if a path had been chosen."""
        if not (
            isinstance(event, QDropEvent) and isinstance(line, QtWidgets.QLineEdit)
        ):
            return super().eventFilter(line, event)
        data = event.mimeData()
        if data is None or not data.hasText():  # files are text too
            return False
        event.acceptProposedAction()
        if event.type() == QEvent.Type.Drop:
            paths = filter(None, (url.toLocalFile() for url in data.urls()))
            line.setText(next(paths, data.text()))
        return True


def _set_up_text_field(control: FileEdit | LineEdit) -> None:
    """Emit `changed` of a text field when typing has ended, not at each key.

    A change may inspect a file, show or hide rows, or report an error, and part of a
    path is the path of something else.
    """
    edit = control.line_edit if isinstance(control, FileEdit) else control
    line: QtWidgets.QLineEdit = edit.native
    if isinstance(control, FileEdit):  # "Choose directory" leaves it no room
        control.choose_btn.text = "Choose…"
        control.choose_btn.changed.disconnect()  # starts in the working directory
        control.choose_btn.changed.connect(partial(_choose_path, control))

    line.textChanged.disconnect()  # magicgui's, at each key
    _TextReporter(edit)


def end_typing(panel: QtWidgets.QWidget) -> None:
    """Let the text field of a panel that has the focus report its text."""
    line = panel.focusWidget()
    if isinstance(line, QtWidgets.QLineEdit):
        line.editingFinished.emit()


def create_button(
    text: str, call: Callable[..., object], tooltip: str
) -> QtWidgets.QPushButton:
    """Create a button that calls a function."""
    button = QtWidgets.QPushButton(text)
    button.setToolTip(tooltip)
    folding.wrap_button_text(button)
    button.clicked.connect(call)
    return button


def _choose_path(edit: FileEdit) -> None:
    """Ask for a path, starting at the entered path or next to the data."""
    text = edit.line_edit.value.strip()
    path_typed = Path(text).expanduser().absolute()
    begin = path_typed if text and path_typed.parent.is_dir() else get_start_folder()
    ask, title = use_app().get_obj("show_file_dialog"), edit.label
    path_chosen = ask(edit.mode, title, str(begin), edit.filter, edit.native)
    if path_chosen:
        edit.value = path_chosen


class Form(QtWidgets.QWidget):
    """Column of labelled controls that fits a narrow dock."""

    def __init__(self, *controls: Widget | QtWidgets.QWidget) -> None:
        super().__init__()
        self._layout = QtWidgets.QFormLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setRowWrapPolicy(QtWidgets.QFormLayout.RowWrapPolicy.WrapLongRows)
        growth = QtWidgets.QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow
        self._layout.setFieldGrowthPolicy(growth)
        self._layout.setHorizontalSpacing(0)  # Qt ignores it when it wraps rows
        self._layout.setLabelAlignment(Qt.AlignmentFlag.AlignLeft)
        policies = QtWidgets.QSizePolicy.Policy
        self.setSizePolicy(policies.Preferred, policies.Minimum)
        self._rows: dict[str, tuple[QtWidgets.QWidget, QtWidgets.QLabel | None]] = {}
        self._controls_by_name: dict[str, Any] = {}
        self._guard = _WheelEventFilter(self)
        for control in controls:
            self.add_row(control)

    def add_row(self, control: Any) -> None:
        """Add one row: a magicgui widget with its label, or a Qt widget alone.

        Both have a tooltip; a tick box has its text next to it.
        """
        native = getattr(control, "native", control)
        tooltip = getattr(control, "tooltip", None) or native.toolTip()
        native.setToolTip(tooltip)  # magicgui sets a slider's on a part of it
        if isinstance(native, QtWidgets.QAbstractSpinBox | QtWidgets.QComboBox):
            native.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
            native.installEventFilter(self._guard)
        if isinstance(native, QtWidgets.QDoubleSpinBox):
            folding.accept_decimal_separators(native)
        if isinstance(native, QtWidgets.QComboBox):
            folding.elide_combo_box(native)
        if isinstance(native, QtWidgets.QAbstractItemView):
            folding.elide_items(native)
            native.setStyleSheet(_SELECTION_STYLE)
        grows = QtWidgets.QSizePolicy.Policy.Expanding
        if isinstance(native, QtWidgets.QAbstractButton):
            folding.wrap_button_text(native)
            grows = QtWidgets.QSizePolicy.Policy.Ignored  # its text wraps
        if isinstance(control, FileEdit | LineEdit):
            _set_up_text_field(control)
        native.setSizePolicy(grows, native.sizePolicy().verticalPolicy())
        label = "" if isinstance(control, CheckBox) else getattr(control, "label", "")
        text = QtWidgets.QLabel(label) if label else None
        if text is None:
            self._layout.addRow(native)
        elif (
            isinstance(control, FileEdit)
            or label.endswith("?")
            or native.findChild(folding.WrappingRow)
        ):
            # paths, answers and wrapping texts need the whole width
            self._layout.addRow(text)
            self._layout.addRow(native)
        else:
            self._layout.addRow(text, native)
        if text is not None:
            text.setToolTip(tooltip)
            text.setContentsMargins(0, 0, _GAP_PX, 0)
        name = getattr(control, "name", "")
        self._rows[name], self._controls_by_name[name] = (native, text), control

    def event(self, event: QEvent | None) -> bool:
        """Give all controls the minimum width that their texts need.

        It is the same for all, since Qt decides by a single row whether a label is next
        to its control.
        """
        was_handled = super().event(event)
        if event is not None and event.type() in _REFITTING:
            rows = [native for native, label in self._rows.values() if label]
            shown = (native for native in rows if not native.isHidden())
            room = max(map(folding.compute_minimum_width, shown), default=0)
            for native in rows:
                native.setMinimumWidth(room)
        return was_handled

    def get_labels(self) -> Labels:
        """Return the row and entry labels, keyed by option name."""
        all_labels = {}
        for name, control in self._controls_by_name.items():
            label = getattr(control, "text", "") or getattr(control, "label", "")
            choices = control.choices if isinstance(control, ComboBox) else ()
            texts = {str(v): control.native.itemText(n) for n, v in enumerate(choices)}
            all_labels[name] = str(label), texts
        return all_labels

    def relabel(self, name: str, label: str, tooltip: str) -> None:
        """Change the label of a row."""
        native, text = self._rows[name]
        native.setToolTip(tooltip)
        if text is not None:
            text.setText(label)
            text.setToolTip(tooltip)

    def show_row(self, name: str, visible: bool) -> None:
        """Show or hide one row with its label."""
        for part in self._rows[name]:
            if part is not None:
                part.setVisible(visible)


def _get_plain_type(annotation: object) -> tuple[Any, bool]:
    """Return the plain type of an annotation, and whether None is allowed."""
    union = get_origin(annotation) in (Union, types.UnionType)
    parts = get_args(annotation) if union else (annotation,)
    kind = next(part for part in parts if part is not type(None))
    is_annotated = get_origin(kind) is Annotated
    return get_args(kind)[0] if is_annotated else kind, type(None) in parts


def _get_option_entries(field: FieldInfo) -> dict[str, object]:
    """Return the values of an option, keyed by the entries shown in a panel."""
    kind, _ = _get_plain_type(field.annotation)
    values = get_args(kind) if get_origin(kind) is Literal else ()
    entries = {_AUTOMATIC if value == "auto" else str(value): value for value in values}
    return dict(core.get_display(field).choices or entries)


class _OptionControl:
    """Widget for editing the value of an option."""

    def __init__(self, name: str, field: FieldInfo) -> None:
        self.kind, self.optional = _get_plain_type(field.annotation)
        self._none: float = 0
        display = core.get_display(field)
        default = field.get_default(call_default_factory=True)
        if display.choices is not None or get_origin(self.kind) is Literal:
            texts = _get_option_entries(field)
            if self.optional and None not in texts.values():
                texts = {_AUTOMATIC: None} | texts
            choices = list(texts.items())
            widget: Any = ComboBox(name=name, choices=choices, value=default)
        elif self.kind in (int, float):
            widget = self._create_spin_box(name, field, default)
        elif self.kind is bool:
            widget = CheckBox(name=name, value=bool(default), text=display.full_label)
        else:
            value = "" if default is None else default
            widget = widgets.create_widget(value=value, annotation=self.kind, name=name)
        self.widget = widget
        self.widget.label = display.full_label
        self.widget.tooltip = field.description or display.full_label

    def _create_spin_box(self, name: str, field: FieldInfo, default: Any) -> Any:
        # the range is that of the field
        least: float = 0 if self.kind is int else -_LARGEST_FLOAT
        most: float = _LARGEST_INT if self.kind is int else _LARGEST_FLOAT
        for item in field.metadata:
            least = getattr(item, "ge", None) or getattr(item, "gt", None) or least
            most = getattr(item, "le", None) or getattr(item, "lt", None) or most
            if getattr(item, "ge", None) == 0 or getattr(item, "gt", None) == 0:
                least = 0
        options: dict[str, Any] = {"min": self.kind(least), "max": self.kind(most)}
        step = core.get_display(field).step
        if step is not None:
            options["step"] = step
        if not self.optional:
            about: Any = {"annotation": self.kind, "options": options}
            return widgets.create_widget(value=default, name=name, **about)
        # 0 may be a value, so "automatic" is one step below it.
        zero = any(getattr(item, "ge", None) == 0 for item in field.metadata)
        below: float = -1 if self.kind is int else -(step or 1)
        self._none = below if zero else 0
        options["min"] = self._none
        value = self._none if default is None else default
        widget = widgets.FloatSpinBox(name=name, value=value, **options)
        if self.kind is int:
            widget.native.setDecimals(0)
        widget.native.setSpecialValueText(_AUTOMATIC)
        return widget

    @property
    def value(self) -> Any:
        """Value of the option; None if *automatic* is shown."""
        value = self.widget.value
        if self.optional and self.kind in (int, float):
            return None if value == self._none else self.kind(value)
        if self.optional and self.kind is str and value == "":
            return None
        return value

    @value.setter
    def value(self, value: object) -> None:
        if value is None and not isinstance(self.widget, ComboBox):
            value = "" if self.kind is str else self._none
        self.widget.value = value


_OTHER_NAMES = {
    "overwrite": ("existing", "replace"),
    "resume": ("existing",),
    "pairs": ("store",),
    "start_from": ("start",),
    "from_scratch": ("start",),
}
_ENTRIES = {"overwrite": ("replace", "True"), "resume": ("resume",)}
_ELSEWHERE = {
    "overwrite": "'Replace'",
    "resume": "'Resume'",
    "transform_out": "'Save transform'",
    "dataset": "'Dataset' in Open",
    "halves": "'Two halves for FRC' in Stitch",
}
_INNER = r"(?:[^()]|\([^()]*\))*"
_BRACKETS = re.compile(rf" \(({_INNER}`{_INNER})\)")
_BETWEEN = re.compile(r", or | or | and |, |; ")
_UNKNOWN = "\0"


def convert_names_to_panel_labels(text: str, read: Callable[[], Labels] = dict) -> str:
    """Replace names of options and commands in a sentence with panel labels.

    `read` returns the labels of the panel that shows the sentence. Advice in brackets
    that names options without a control in any panel is left out.
    """
    if "`" not in text:
        return text
    labels = read()
    name = partial(_find_panel_label, labels)

    def replace_part(match: re.Match[str]) -> str:
        known_name = partial(name, unknown=_UNKNOWN)
        between = _BETWEEN.split(match[1])
        parts = (core.replace_option_names(part, known_name) for part in between)
        parts_known = (part for part in parts if _UNKNOWN not in part)
        parts_named = ", ".join(dict.fromkeys(parts_known))
        return f" ({parts_named})" if parts_named else ""

    return core.replace_option_names(_BRACKETS.sub(replace_part, text), name)


def _find_panel_label(
    labels: Labels, verb: str, option: str, value: str, unknown: str = ""
) -> str:
    """Return the panel label of a command, or of an option and its value."""
    value = "" if value == "…" else value
    if verb:
        verb = FUNCTIONS.get(verb, verb)
        panel = find_title(verb) or f"'{verb}'"
        row = _find_row_label(option, value, get_command_labels([verb]))
        return f"{row} in {panel}" if row else panel
    if row := _find_row_label(option, value, labels):
        return row
    if option.endswith(("pixel_size_nm", "pixel_nm")):
        return "'Pixel size' in Open"
    if row := _find_row_label(option, value, _get_option_labels(ReadOptions)):
        return f"{row} in Open"
    plain = f"'{option.replace('_', ' ')}{f': {value}' if value else ''}'"
    return _ELSEWHERE.get(option, unknown or plain)


def _find_row_label(option: str, value: str, labels: Labels) -> str:
    """Return the label of a panel row and its entry, or an empty string."""
    names = (option, *_OTHER_NAMES.get(option, ()))
    label, choices = next((labels[name] for name in names if name in labels), ("", {}))
    entries = (value, *_ENTRIES.get(option, ()))
    entry = next((choices[one] for one in entries if one in choices), value)
    entry = "" if entry == "True" else entry
    return label and (f"'{label}: {entry}'" if entry else f"'{label}'")


@contextmanager
def relabel_errors() -> Iterator[None]:
    """Use panel labels in the errors that napari shows."""
    try:
        yield
    except core.SemsrError as error:
        error.args = (convert_names_to_panel_labels(str(error)),)
        raise


def create_option_widget(model: type[core.Options], name: str) -> Any:
    """Create the control of one option, outside a form."""
    return _OptionControl(name, model.model_fields[name]).widget


def get_command_labels(names: Iterable[str]) -> Labels:
    """Return the panel labels of command options, keyed by option name."""
    labels: Labels = {}
    for verb in filter(None, map(get_verb, names)):
        own = _get_option_labels(*(one.options for one in verb.option_groups))
        labels = {**labels, **own}
    return labels


def _get_option_labels(*models: type[core.Options]) -> Labels:
    """Return the row and entry labels of options, keyed by option name."""
    labels = {}
    for name, info in chain(*(model.model_fields.items() for model in models)):
        if (words := core.get_display(info)).label:
            entries = {str(v): k for k, v in _get_option_entries(info).items()}
            labels[name] = words.full_label, entries
    return labels


class OptionsForm(Form, Generic[_O]):
    """Form for the labelled fields in one group of an option set."""

    def __init__(self, model: type[_O], *, group: str = "") -> None:
        groups: dict[str, list[str]] = {group: [], core.MORE: []}
        for name, info in model.model_fields.items():
            display = core.get_display(info)
            if display.label and display.group in groups:
                groups[display.group].append(name)
        rows, more = groups[group], [] if group else groups[core.MORE]
        controls = {n: _OptionControl(n, model.model_fields[n]) for n in (*rows, *more)}
        super().__init__(*(controls[name].widget for name in rows))
        self._model, self._controls, self._more = model, controls, tuple(more)
        if more:
            self._more_rows = Form(*(controls[name].widget for name in more))
            tooltip = "Settings that are rarely needed."
            self._fold = folding.CollapsibleSection(core.MORE, tooltip, self._more_rows)
            self.add_row(self._fold)
        whens = {n: core.get_display(model.model_fields[n]).when for n in controls}
        self._when = {name: when for name, when in whens.items() if when}
        for other in {other for when in self._when.values() for other in when}:
            self.on_change(other, self._update_visibility)
        self._update_visibility()
        if "device" in controls:
            self.set_values(device=get_preference("computing", "device"))

    @property
    def option_names(self) -> Sequence[str]:
        """Names of the options that are shown."""
        return tuple(self._controls)

    def get_widget(self, name: str) -> Any:
        """Return the magicgui widget of one option."""
        return self._controls[name].widget

    @property
    def saved_values(self) -> dict[str, object]:
        """Values without those that only the user may set, not a loaded file."""
        own = core.get_user_only_options(self._model)
        return {name: one for name, one in self.values().items() if name not in own}

    def values(self) -> dict[str, Any]:
        """Return the current values."""
        return {name: control.value for name, control in self._controls.items()}

    def set_values(self, **values: object) -> None:
        """Set values in the form."""
        for name, value in values.items():
            self._controls[name].value = value
            if name in self._more and value != self._model.model_fields[name].default:
                self._fold.set_expanded()

    def show_row(self, name: str, visible: bool) -> None:
        """Show or hide a row with its label, including rows in the collapsed group."""
        if name in self._more:
            self._more_rows.show_row(name, visible)
        else:
            super().show_row(name, visible)

    def _has_effect(self, name: str) -> bool:
        """Return whether an option has an effect, given the values of other rows."""
        when = self._when.get(name, {}).items()
        return all(self._controls[other].value in allowed for other, allowed in when)

    def _update_visibility(self, _: object = None) -> None:
        for name in self._when:
            self.show_row(name, self._has_effect(name))

    def create_options(self, **more: object) -> _O:
        """Validate the values; options without effect keep their defaults."""
        values = {k: v for k, v in self.values().items() if self._has_effect(k)}
        return self._model.parse(values | more)

    def on_change(self, name: str, call: Callable[..., None]) -> None:
        """Call a function whenever an option changes."""
        control = self._controls[name]
        control.widget.changed.connect(lambda _: call(control.value))


_PLUGIN = "napari-semsr"
DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "computing": {"device": "auto", "tile_px": 0, "precision": "auto"},
    "storage": {"cache_folder": "", "cache_gib": 4.0},
}
"""Defaults of ``configurations`` in the manifest (their equality is tested)."""


def get_preference(category: str, name: str) -> Any:
    """Return a value that the user set under Preferences."""
    try:
        from napari.settings import get_plugin_settings

        return getattr(getattr(get_plugin_settings(_PLUGIN), category), name)
    # an older napari, or one that has not registered the plugin
    except (ImportError, AttributeError, KeyError):
        return DEFAULTS[category][name]


def read_form_state(
    content: QtWidgets.QWidget, ignored_parts: Sequence[QtWidgets.QWidget]
) -> FormState:
    """Return the texts, ticks and selected rows of a form, except in some parts."""

    def find_widgets(kind: type[_Part]) -> list[_Part]:
        items = content.findChildren(kind)
        return [i for i in items if not any(p.isAncestorOf(i) for p in ignored_parts)]

    texts = [item.text() for item in find_widgets(QtWidgets.QLineEdit)]
    texts += [item.currentText() for item in find_widgets(QtWidgets.QComboBox)]
    ticks = [
        item.isChecked()
        for item in find_widgets(QtWidgets.QAbstractButton)
        if not isinstance(item.parent(), folding.CollapsibleSection)
    ]
    lists = find_widgets(QtWidgets.QListWidget)
    rows = [[row.text() for row in item.selectedItems()] for item in lists]
    return texts, ticks, rows
