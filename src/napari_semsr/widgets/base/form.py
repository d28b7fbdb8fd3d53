"""Forms: magicgui widgets made from a frozen pydantic option set, one row each.

A label stands above its control where the dock is too narrow for both, every control
has a tooltip, and an optional number shows *automatic* at the low end of its range.
"""

import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from magicgui.widgets import CheckBox, ComboBox, FileEdit, FloatSpinBox, create_widget
from pydantic.fields import FieldInfo
from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QWidget,
)

from napari_semsr.core import Labels, Options, persons_options
from napari_semsr.widgets.base.folding import (
    Foldable,
    FoldingRow,
    elide_items,
    fold_combo,
    fold_text,
    least_width,
    take_either_mark,
)

_AUTOMATIC = "automatic"
_LARGEST_INT = 1_000_000
_LARGEST_FLOAT = 1e9


@dataclass(frozen=True, slots=True)
class Row:
    """How one option is shown."""

    label: str  # with its unit in brackets
    tooltip: str = ""  # empty takes the option's own description
    choices: Mapping[str, Any] | None = None  # text to value, of a closed list
    step: float | None = None  # of a spin box


CUT_OFF = {"cut_off_nm": Row("Optical cut-off (nm)")}
"""Row of the option that splits a comparison with the truth."""


class _WheelGuard(QObject):
    """Leaves the wheel to the panel, unless a control was clicked first."""

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Pass the wheel on where the control has no focus."""
        if (
            isinstance(event, QWheelEvent)
            and isinstance(watched, QWidget)
            and not watched.hasFocus()
        ):
            event.ignore()
            return True
        return super().eventFilter(watched, event)


def push_button(text: str, call: Callable[..., object], tooltip: str) -> QPushButton:
    """Make a button that calls something."""
    button = QPushButton(text)
    button.setToolTip(tooltip)
    fold_text(button)
    button.clicked.connect(call)
    return button


def _called(control: Any) -> tuple[str, Mapping[str, str]]:
    """Give the label of a control, and of each of its entries."""
    label = getattr(control, "text", "") or getattr(control, "label", "")
    if not isinstance(control, ComboBox):
        return str(label), {}
    box = control.native
    shown = enumerate(control.choices)
    return str(label), {str(value): box.itemText(place) for place, value in shown}


def _wished_width(control: QWidget) -> int:
    """Width at which a control may stay beside its label."""
    row: FoldingRow | None = control.findChild(
        FoldingRow
    )  # which would need more lines there
    return least_width(control) if row is None else row.sizeHint().width()


class Form(Foldable):
    """A column of labelled controls that fits a narrow dock."""

    def __init__(self, *controls: Any) -> None:
        super().__init__()
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setColumnStretch(1, 1)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        self._rows: dict[str, QWidget] = {}
        self._named: dict[str, Any] = {}
        self._labels: dict[QWidget, QLabel | None] = {}
        self._beside: set[QWidget] = set()  # controls that have their label to the left
        self._guard = _WheelGuard(self)
        for control in controls:
            self.add(control)

    def add(self, control: Any) -> None:
        """Add one row: a magicgui widget with its label, or a Qt widget alone.

        Both bring their tooltip; a tick box has its text beside it.
        """
        native = getattr(control, "native", control)
        tooltip = getattr(control, "tooltip", None) or native.toolTip()
        native.setToolTip(tooltip)  # magicgui gives that of a slider to a part of it
        if isinstance(native, QAbstractSpinBox | QComboBox):
            native.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
            native.installEventFilter(self._guard)
        if isinstance(native, QDoubleSpinBox):
            take_either_mark(native)
        if isinstance(native, QComboBox):
            fold_combo(native)
        if isinstance(native, QAbstractItemView):
            elide_items(native)
        if isinstance(native, QCheckBox):
            fold_text(native)
        if isinstance(control, FileEdit):  # "Choose directory" leaves no room for one
            control.choose_btn.text = "Choose\N{HORIZONTAL ELLIPSIS}"
        policy = native.sizePolicy()
        native.setSizePolicy(QSizePolicy.Policy.Expanding, policy.verticalPolicy())
        label = "" if isinstance(control, CheckBox) else getattr(control, "label", "")
        text = QLabel(label) if label else None
        row = 2 * len(self._labels)
        if text is not None:
            text.setToolTip(tooltip)
            self._grid.addWidget(text, row, 0, 1, 2)
        self._grid.addWidget(native, row + 1, 0, 1, 2)
        self._labels[native] = text
        name = getattr(control, "name", "")
        self._rows[name], self._named[name] = native, control

    def _parts(self) -> Iterable[QWidget]:
        labels = (text for text in self._labels.values() if text is not None)
        return [*self._labels, *labels]

    def _fold(self) -> None:
        """Put labels beside their controls where the width allows it, else above."""
        widths = {
            native: (label.sizeHint().width(), _wished_width(native))
            for native, label in self._labels.items()
            if label is not None and not native.isHidden()
        }
        room = self.width() - self._grid.horizontalSpacing()
        while (
            widths
            and max(a for a, _ in widths.values()) + max(b for _, b in widths.values())
            > room
        ):
            del widths[max(widths, key=lambda native: sum(widths[native]))]
        if widths.keys() == self._beside:
            return
        self._beside = set(widths)
        for number, (native, label) in enumerate(self._labels.items()):
            if label is None:
                continue
            beside = native in widths
            self._grid.addWidget(label, 2 * number, 0, 1, 1 if beside else 2)
            if beside:
                self._grid.addWidget(native, 2 * number, 1)
            else:
                self._grid.addWidget(native, 2 * number + 1, 0, 1, 2)

    def labels(self) -> Labels:
        """Tell what the rows and their entries are called, by the options' names."""
        return {name: _called(control) for name, control in self._named.items()}

    def relabel(self, name: str, label: str, tooltip: str) -> None:
        """Say what the control of a row is for now."""
        native = self._rows[name]
        native.setToolTip(tooltip)
        text = self._labels[native]
        if text is not None:
            text.setText(label)
            text.setToolTip(tooltip)
        self._fold()

    def show_row(self, name: str, visible: bool) -> None:
        """Show or hide one row with its label."""
        native = self._rows[name]
        native.setVisible(visible)
        label = self._labels[native]
        if label is not None:
            label.setVisible(visible)


def _without_none(annotation: Any) -> tuple[Any, bool]:
    """Take None out of a union, and what pydantic notes; say whether it was there."""
    if get_origin(annotation) in (Union, types.UnionType):
        kept = [arg for arg in get_args(annotation) if arg is not type(None)]
        return _without_notes(kept[0]), len(kept) < len(get_args(annotation))
    return _without_notes(annotation), False


def _without_notes(annotation: Any) -> Any:
    """Give the type of, say, a `FiniteFloat`."""
    noted = get_origin(annotation) is Annotated
    return get_args(annotation)[0] if noted else annotation


def _bounds(field: FieldInfo, kind: type) -> dict[str, Any]:
    """Range of a spin box from the bounds of a pydantic field."""
    least: float = 0 if kind is int else -_LARGEST_FLOAT
    most: float = _LARGEST_INT if kind is int else _LARGEST_FLOAT
    for item in field.metadata:
        least = getattr(item, "ge", None) or getattr(item, "gt", None) or least
        most = getattr(item, "le", None) or getattr(item, "lt", None) or most
        if getattr(item, "ge", None) == 0 or getattr(item, "gt", None) == 0:
            least = 0
    return {"min": kind(least), "max": kind(most)}


def _allows_zero(field: FieldInfo) -> bool:
    """Whether a bound of a pydantic field says that 0 is a value."""
    return any(getattr(item, "ge", None) == 0 for item in field.metadata)


class _Control:
    """One option's widget, and the value it stands for."""

    def __init__(self, name: str, field: FieldInfo, row: Row) -> None:
        self.kind, self.optional = _without_none(field.annotation)
        self._none = 0
        default = field.get_default(call_default_factory=True)
        self.widget = self._make(name, field, row, default)
        self.widget.label = row.label
        self.widget.tooltip = row.tooltip or field.description or row.label

    def _make(self, name: str, field: FieldInfo, row: Row, default: Any) -> Any:
        if row.choices is not None or get_origin(self.kind) is Literal:
            return self._combo(name, row, default)
        if self.kind in (int, float):
            return self._number(name, field, row, default)
        if self.kind is bool:
            return CheckBox(name=name, value=bool(default), text=row.label)
        value = "" if default is None else default
        return create_widget(value=value, annotation=self.kind, name=name)

    def _combo(self, name: str, row: Row, default: Any) -> ComboBox:
        shown = dict(row.choices or {str(v): v for v in get_args(self.kind)})
        if self.optional and None not in shown.values():
            shown = {_AUTOMATIC: None} | shown
        return ComboBox(name=name, choices=list(shown.items()), value=default)

    def _number(self, name: str, field: FieldInfo, row: Row, default: Any) -> Any:
        options = _bounds(field, self.kind)
        if row.step is not None:
            options["step"] = row.step
        if not self.optional:
            return create_widget(
                value=default, annotation=self.kind, name=name, options=options
            )
        # An index may be 0, so that "automatic" stands one below it.
        self._none = -1 if self.kind is int and _allows_zero(field) else 0
        options["min"] = self._none
        value = self._none if default is None else default
        widget = FloatSpinBox(name=name, value=value, **options)
        if self.kind is int:
            widget.native.setDecimals(0)
        widget.native.setSpecialValueText(_AUTOMATIC)
        return widget

    @property
    def value(self) -> Any:
        """Value of the option; None where *automatic* is shown."""
        value = self.widget.value
        if self.optional and self.kind in (int, float):
            return None if value == self._none else self.kind(value)
        if self.optional and self.kind is str and value == "":
            return None
        return value

    @value.setter
    def value(self, value: Any) -> None:
        if value is None and not isinstance(self.widget, ComboBox):
            value = "" if self.kind is str else self._none
        self.widget.value = value


class OptionsForm(Form):
    """A form over some fields of an option set."""

    def __init__(self, model: type[Options], rows: Mapping[str, Row]) -> None:
        controls = {
            name: _Control(name, model.model_fields[name], row)
            for name, row in rows.items()
        }
        super().__init__(*(control.widget for control in controls.values()))
        self._model, self._controls = model, controls

    @property
    def names(self) -> Sequence[str]:
        """Options that are shown."""
        return tuple(self._controls)

    def widget(self, name: str) -> Any:
        """Look up the magicgui widget of one option."""
        return self._controls[name].widget

    @property
    def by_person(self) -> frozenset[str]:
        """Options that a person alone gives, never a file."""
        return persons_options(self._model)

    def values(self) -> dict[str, Any]:
        """Read what is typed now."""
        return {name: control.value for name, control in self._controls.items()}

    def set_values(self, **values: Any) -> None:
        """Type values into the form."""
        for name, value in values.items():
            self._controls[name].value = value

    def options(self, **more: Any) -> Any:
        """Validate what is typed."""
        return self._model.parse(self.values() | more)

    def on_change(self, name: str, call: Callable[[Any], None]) -> None:
        """Call something when one option changes."""
        control = self._controls[name]
        control.widget.changed.connect(lambda _: call(control.value))


_PLUGIN = "napari-semsr"
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "computing": {"device": "auto", "tile_px": 0, "precision": "auto"},
    "storage": {"cache_folder": "", "cache_gib": 4.0},
}
"""The same values as ``configurations`` in the manifest; a test holds them equal."""


def preference(category: str, name: str) -> Any:
    """Read what the user set under Preferences."""
    default = DEFAULTS[category][name]
    try:
        from napari.settings import get_plugin_settings
    except ImportError:
        return default
    try:
        group = getattr(get_plugin_settings(_PLUGIN), category)
        return getattr(group, name)
    except (AttributeError, KeyError):
        return default
