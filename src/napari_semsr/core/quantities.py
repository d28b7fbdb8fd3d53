"""Result quantities: labels, units and formats, declared once.

A field of a result that a user reads is annotated with its `Quantity`, as is the return
value of a property that is shown but not stored. Summaries of commands, figures of
panels, columns of tables, numbers of reports and the manual are generated from these.
Plots of a result are declared by a `Curve`, next to its command.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache, partial
from typing import Annotated, Any, Literal, Self, get_args, get_origin

import numpy as np

from napari_semsr.core.micrograph import parse_pixel_size
from napari_semsr.core.types import FloatArray, FloatPair

_FORM = ".4g"  # of a number
_PLAIN_BELOW = 1e7  # chosen: grey levels of 16 bits and counts without an exponent
_NONE = "\N{EN DASH}"
_PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
SIGMA = "\N{GREEK SMALL LETTER SIGMA}"
LEVELS = "grey levels"
"""Unit of grey values."""
DB = "dB"
"""Unit of PSNR and of its gains."""
FLAT = {"flat": True}
"""Metadata of a field whose subfields are stored in the parent record."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """Label, unit and format for displaying a field of a result."""

    label: str
    unit: str = ""
    form: str = _FORM
    # fields shown with it: the same in another unit (used instead of it if it is
    # None), its standard deviation, its interval
    also: str = ""
    sd: str = ""
    interval: str = ""
    within: str = "95 %"  # coverage of the interval
    # field with the reason why the value is missing; without it, None is not shown
    reason: str = ""
    method: str = "method"  # field with the method of the result, if it applies
    note: str = ""  # text shown after it everywhere
    verdict: str = ""  # field with an assessment of the value
    column: str = ""  # name in tables; by default from the field's name and unit
    # whether a panel shows it in large type, and in its summary sentence
    large: bool = False
    # whether it is shown as a figure, and as a column of tables
    shown: bool = True
    tabled: bool = True
    # declaration of the keys of a nested record, of several by name, or of a list: a
    # type of result, or quantities by keys
    keys: object = None


def declare_quantity(
    label: str, unit: str = "", form: str = _FORM, **more: Any
) -> Quantity:
    """Declare a quantity of a record that is neither a figure nor a column."""
    return Quantity(label, unit, form, shown=False, tabled=False, **more)


def describe_measured_box(
    result: object,
) -> Annotated[str | None, Quantity("Measured in")]:
    """Describe the `box` of a result; None if the whole image was measured."""
    box = get_value(result, "box")
    if box is None:
        return None
    y0, x0, y1, x1 = box
    return f"largest gap-free rectangle, rows {y0} to {y1}, columns {x0} to {x1}"


def create_length_properties(
    get: Callable[..., object], key: str, label: str, **more: Any
) -> tuple[property, property]:
    """Create properties for a length in nm and px, each with its `Quantity`.

    `get` receives the result and the unit; ``{unit}`` in `more` is replaced by it.
    """

    def create_length_property(unit: str, also: str = "") -> property:
        texts = {n: one for n, one in more.items() if isinstance(one, str)}
        settings = more | {n: text.format(unit=unit) for n, text in texts.items()}
        quantity = Quantity(label, unit, also=also, **settings)

        def get_length(result: object) -> object:
            return get(result, unit)

        get_length.__annotations__["return"] = Annotated[float | None, quantity]
        return property(get_length)

    return create_length_property("nm", f"{key}_px"), create_length_property("px")


@dataclass(frozen=True, slots=True)
class Figure:
    """Number or text with its unit and format."""

    value: float | str | None  # None or NaN if missing
    unit: str = ""
    form: str = _FORM
    note: str = ""  # text after it, such as its interval
    sd: float | None = None  # its standard deviation or error
    verdict: str = ""  # an assessment of the value
    large: bool = False  # whether a panel shows it in large type

    @property
    def error_text(self) -> str:
        """Formatted error of the number."""
        sd = self.sd
        return "" if sd is None else f"{_PLUS_MINUS} {format_number(sd, '.2g')}"

    @property
    def value_text(self) -> str:
        """Formatted number without unit and error."""
        if isinstance(self.value, str):
            return self.value
        if self.value is None or math.isnan(self.value):
            return _NONE
        return format_number(self.value, self.form)

    def __str__(self) -> str:
        number = self.value_text
        if number == _NONE:
            return f"{_NONE} {self.note}".rstrip()
        parts = number, self.error_text, self.unit, self.note
        text = " ".join(filter(None, parts))
        return f"{text} {_NONE} {self.verdict}" if self.verdict else text


def declare_length(key: str, label: str) -> dict[str, Quantity]:
    """Declare a length that a record has in both nm and px."""
    nm, px = (
        Quantity(label, unit, sd=f"{key}_sd_{unit}", interval=f"{key}_interval_{unit}")
        for unit in ("nm", "px")
    )
    return {f"{key}_nm": replace(nm, also=f"{key}_px"), f"{key}_px": px}


def format_number(value: float, form: str = ".4g") -> str:
    """Format a number; integers keep all digits, and large numbers have no exponent."""
    text = f"{value:{form}}".replace("%", " %")
    if "e+" not in text or abs(value) >= _PLAIN_BELOW:
        return text
    return f"{value if float(value).is_integer() else float(text):.0f}"


def get_quantities(kind: object) -> dict[str, tuple[Quantity, object]]:
    """Return the quantities of a result type, followed by those of its base classes.

    Each is a quantity and type, by the name of its field or property; a flat field is
    replaced by the quantities of its type.
    """
    return _collect_quantities(kind)


@cache
def _collect_quantities(kind: type) -> dict[str, tuple[Quantity, object]]:
    quantities: dict[str, tuple[Quantity, object]] = {}
    own_fields = fields(kind) if is_dataclass(kind) else ()
    flat = {item.name for item in own_fields if item.metadata.get("flat")}
    for cls in kind.__mro__:
        annotations = dict(vars(cls).get("__annotations__", {}))
        for name, item in vars(cls).items():
            if isinstance(item, property) and item.fget is not None:
                annotations[name] = item.fget.__annotations__.get("return")
        for name, annotation in annotations.items():
            if name in flat:
                inner = _get_types(annotation)[0]
                quantities |= get_quantities(inner) if is_dataclass(inner) else {}
            elif hasattr(annotation, "__metadata__"):
                bare, *notes = get_args(annotation)
                for note in notes:
                    if isinstance(note, Quantity):
                        quantities.setdefault(name, (note, bare))
    return quantities


def _get_types(annotation: object) -> list[object]:
    """Return the possible types of a field, except None."""
    parts = get_args(annotation) if get_origin(annotation) is not tuple else ()
    return [one for one in parts or (annotation,) if one is not type(None)]


def get_value(result: Any, name: str) -> Any:
    """Return the value of a result's field or property, or of its flat fields."""
    if hasattr(result, name):
        return getattr(result, name)
    flat_names = (item.name for item in fields(result) if item.metadata.get("flat"))
    parts = (getattr(result, one) for one in flat_names)
    values = (get_value(part, name) for part in parts if is_dataclass(part))
    return next((value for value in values if value is not None), None)


def get_stored_names(kind: type) -> list[str]:
    """Return the names of the stored quantities, including properties.

    Texts, and shown quantities without a unit and a format, are left out, except the
    method of a value and the reason why it is missing.
    """
    quantities = get_quantities(kind)
    texts = {n for one, _ in quantities.values() for n in (one.reason, one.method)}
    names = []
    for name, (quantity, bare) in quantities.items():
        is_number = not quantity.shown or quantity.unit or quantity.form != _FORM
        if name in texts or (is_number and bare not in (str, str | None)):
            names.append(name)
    return names


def get_figures(result: object) -> dict[str, Figure]:
    """Return the figures of a result keyed by label, in field order.

    If it has a method `figures`, returns its result.
    """
    figures: dict[str, Figure]
    own = getattr(result, "figures", None)
    figures = own() if callable(own) else get_declared_figures(result)
    return figures


def get_declared_figures(result: object) -> dict[str, Figure]:
    """Return annotated fields and properties of a result as figures keyed by label."""
    quantities = get_quantities(type(result))
    declared = [quantity for quantity, _ in quantities.values()]
    secondary = {name for q in declared for name in (q.also, q.sd, q.interval)}
    figures = {}
    for name, (quantity, _) in quantities.items():
        if quantity.shown and name not in secondary:
            shown, figure = _create_figure(result, name, quantity)
            if figure is not None:
                figures[shown.label] = figure
    return figures


def _create_figure(
    result: object, name: str, quantity: Quantity
) -> tuple[Quantity, Figure | None]:
    """Return the figure of a field; None if both value and reason are missing."""
    value, also = get_value(result, name), quantity.also
    if value is None and also and get_value(result, also) is not None:
        return _create_figure(result, also, get_quantities(type(result))[also][0])
    unit, form, large = quantity.unit, quantity.form, quantity.large
    if value is None:
        reason = get_value(result, quantity.reason) if quantity.reason else None
        if reason is None:
            return quantity, None
        return quantity, Figure(None, unit, form, f"({reason})", large=large)
    if isinstance(value, bool):
        value = "yes" if value else "no"
    verdict = (get_value(result, quantity.verdict) if quantity.verdict else None) or ""
    if isinstance(value, str):
        return quantity, Figure(value or _NONE, verdict=verdict, large=large)
    sd = get_value(result, quantity.sd) if quantity.sd else None
    note = _format_note(result, quantity)
    return quantity, Figure(value, unit, form, note, sd, verdict, large)


def _format_note(result: object, quantity: Quantity) -> str:
    parts = []
    if quantity.also and get_value(result, quantity.also) is not None:
        other = get_quantities(type(result))[quantity.also][0]
        other_figure = Figure(get_value(result, quantity.also), other.unit, other.form)
        parts.append(f"({other_figure})")
    ends = get_value(result, quantity.interval) if quantity.interval else None
    if ends is not None:
        low, high = (format_number(end, quantity.form) for end in ends)
        holds = f"{quantity.within}: " if quantity.within else ""
        parts.append(f"({holds}{low} to {high} {quantity.unit}".rstrip() + ")")
    parts += [quantity.note] if quantity.note else []
    return " ".join(parts)


# Columns of tables, whose names contain the unit.

_AXES = ("y", "x")
_ENDS = ("low", "high")
_UNITS = ("_nm", "_px")


def get_columns(kind: type) -> tuple[str, ...]:
    """Return the names of the table columns of a result type."""
    return tuple(name for name, _, _ in _collect_columns(kind))


def get_cells(result: object) -> dict[str, object]:
    """Return a result as a table row: cells by column name."""
    row = {}
    for column, name, place in _collect_columns(type(result)):
        value = get_value(result, name)
        value = value if place is None or value is None else value[place]
        is_finite = not isinstance(value, float) or math.isfinite(value)
        row[column] = value if is_finite else None
    return row


def _collect_columns(kind: object) -> tuple[tuple[str, str, int | None], ...]:
    """Return each table column with its field and its index in a pair."""
    quantities = get_quantities(kind)
    intervals = {quantity.interval for quantity, _ in quantities.values()}
    columns: list[tuple[str, str, int | None]] = []
    for name, (quantity, bare) in quantities.items():
        if not quantity.tabled:
            continue
        column = quantity.column or name
        if quantity.unit == LEVELS and not quantity.column:
            column = f"{column}_grey"
        if any(one == FloatPair for one in _get_types(bare)):
            marks = _ENDS if name in intervals else _AXES
            unit = column[-3:] if column.endswith(_UNITS) else ""
            stem = column.removesuffix(unit)
            columns += [(f"{stem}_{m}{unit}", name, n) for n, m in enumerate(marks)]
        else:
            columns.append((column, name, None))
    return tuple(columns)


# Numbers in sentences.

_IN_UM = 1e5  # nm; longer lengths are written in µm


def format_rounded(value: float) -> str:
    """Format a number with three significant digits, without a positive exponent.

    ``3040`` where Python's format returns ``3.04e+03``.
    """
    text = f"{value:.3g}"
    return f"{float(text):.0f}" if "e+" in text else text


def describe_shift(shift_nm: tuple[float, float]) -> str:
    """Describe a shift ``(y, x)`` in words: ``302 nm down, 41.5 nm left``."""
    down, right = shift_nm
    large = max(abs(down), abs(right)) >= _IN_UM
    unit, size = ("µm", 1e3) if large else ("nm", 1.0)
    return (
        f"{format_rounded(abs(down) / size)} {unit} {'down' if down > 0 else 'up'}, "
        f"{format_rounded(abs(right) / size)} {unit} {'right' if right > 0 else 'left'}"
    )


def format_shape(shape: Sequence[int]) -> str:
    """Format an image shape: ``480 x 640 px``, with a multiplication sign."""
    return " \N{MULTIPLICATION SIGN} ".join(map(str, shape)) + " px"


def format_shift(shift_px: tuple[float, float]) -> str:
    """Format a shift ``(y, x)`` without signs: ``1.25 px down, 0.50 px left``."""
    down, right = shift_px
    if not (down or right):
        return "nothing"
    return (
        f"{abs(down):.2f} px {'down' if down > 0 else 'up'}, "
        f"{abs(right):.2f} px {'right' if right > 0 else 'left'}"
    )


# Curves: the plots of a result, or of its record. A `Curve` creates a `Plot`, which
# panels and reports draw in their own colours.

Read = Callable[[str], Any]
"""Function that returns a field of a result by name, or None."""
Kind = Literal["", "points", "threshold", "other threshold", "fit"]
_FREQUENCY = "frequency_per_px"


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """Line in a plot."""

    label: str  # in the legend; empty for no entry
    # (N,) abscissa, or (N + 1,) edges of bins, and ordinate
    x: FloatArray
    y: FloatArray
    mark: float | None = None  # abscissa to mark, such as that of a crossing
    mark_label: str = ""  # of the mark in the legend
    colour: int | None = None  # index of the palette; by default the line's position
    # other lines are compared with a threshold; a fit belongs to the line before it
    kind: Kind = ""

    @property
    def is_histogram(self) -> bool:
        """Whether the line is a histogram."""
        return len(self.x) > len(self.y)

    @property
    def abscissa(self) -> FloatArray:
        """Abscissa of the line; for a histogram, the bin centres."""
        return (self.x[1:] + self.x[:-1]) / 2 if self.is_histogram else self.x

    def convert_to_per_um(self, pixel_nm: float | None) -> Self:
        """Convert the abscissa from cycles per pixel to µm⁻¹ if `pixel_nm` is given."""
        if pixel_nm is None:
            return self
        k = 1000.0 / pixel_nm
        mark = None if self.mark is None else self.mark * k
        return replace(self, x=self.x * k, mark=mark)


@dataclass(frozen=True, slots=True, eq=False)
class Plot:
    """Lines in a plot with common axes."""

    # of the plot and its axes, with units
    title: str
    xlabel: str
    ylabel: str
    lines: tuple[Line, ...]
    log: bool = False  # whether the ordinate is logarithmic
    ylim: FloatPair | None = None
    period: str = ""  # unit of the period, if the abscissa is a frequency

    @property
    def columns(self) -> dict[str, Mapping[str, FloatArray]]:
        """Table columns of each line, keyed by line label."""
        columns: dict[str, Mapping[str, FloatArray]] = {}
        for number, line in enumerate(self.lines, start=1):
            label, x = line.label or self.title, line.abscissa
            period = np.full(x.shape, np.nan)
            np.divide(1000.0 if self.period == "nm" else 1.0, x, period, where=x > 0)
            extra = {f"period ({self.period})": period} if self.period else {}
            name = f"{label} ({number})" if label in columns else label
            columns[name] = {self.xlabel: x, **extra, self.ylabel: line.y}
        return columns


@dataclass(frozen=True, slots=True)
class CurveDeclaration:
    """Plot declaration: axis labels and the result fields to draw as lines."""

    # of the plot and its axes, with units
    title: str
    # fields with equally many numbers; for a histogram y are counts, and x one more
    # edge. ``{unit}`` in names and labels is nm, or px if there is no field in nm
    x: str
    y: str | tuple[str, ...]
    xlabel: str  # empty for frequency, which is in µm⁻¹ if the pixel size is known
    ylabel: str
    # of lines; by default names of images if there are several, otherwise the title
    labels: tuple[str, ...] = ()
    log: bool = False
    ylim: FloatPair | None = None
    shares: bool = False  # whether to draw counts as fractions of all
    threshold: str = ""  # field of the threshold curve, labelled by its criterion
    mark: str = ""  # field, without its unit, of a period to mark on the last line

    @property
    def y_names(self) -> tuple[str, ...]:
        """Names of the fields drawn as ordinates."""
        return (self.y,) if isinstance(self.y, str) else self.y

    def axis_labels(self, unit: str) -> tuple[str, str]:
        """Return the axis labels for lengths in nm or px."""
        return self.xlabel.format(unit=unit), self.ylabel

    def create_plot(self, read: Read, names: Sequence[str] = ()) -> Plot | None:
        """Create the plot of a result for named images; None without data."""
        unit = "px" if read(self.x.format(unit="nm")) is None else "nm"
        x = _to_float_array(read(self.x.format(unit=unit)))
        line_names = names if len(self.y_names) > 1 else ()
        labels = self.labels or line_names or (self.title,)
        lines = []
        for name, label in zip(self.y_names, labels, strict=False):
            y = _to_float_array(read(name.format(unit=unit)))
            if x is None or y is None or len(x) - len(y) != int(self.shares):
                continue
            if self.shares:
                y = y / max(1.0, float(np.nansum(y)))
            few = len(x) <= _FEW and self.x != _FREQUENCY and not self.shares
            lines.append(Line(label, x, y, kind="points" if few else ""))
        if not lines or not lines[0].y.size:
            return None
        if self.log and not any((line.y > 0).any() for line in lines):
            return None
        if self.x == _FREQUENCY:
            size = parse_pixel_size(read("pixel_size_nm"))
            pixel = None if size is None else math.sqrt(size[0] * size[1])
            lines[-1:] = self._add_marks(lines[-1], read)
            in_um = [line.convert_to_per_um(pixel) for line in lines]
            return self.combine(in_um, has_size=pixel is not None)
        axes = self.axis_labels(unit)
        return Plot(self.title, *axes, tuple(lines), self.log, self.ylim)

    def combine(self, lines: Sequence[Line], *, has_size: bool) -> Plot:
        """Create a plot of lines against frequency in µm⁻¹ or cycles per pixel."""
        unit = "nm" if has_size else "px"
        xlabel = "spatial frequency (µm⁻¹)" if has_size else "frequency (cycles/px)"
        axes = xlabel, self.ylabel
        return Plot(self.title, *axes, tuple(lines), self.log, self.ylim, unit)

    def _add_marks(self, line: Line, read: Read) -> Sequence[Line]:
        """Return a line with its marked period and its threshold curves."""
        lines = [line]
        if self.threshold:
            criterion = str(read("criterion"))
            all_of = read(f"{self.threshold}s") or {criterion: read(self.threshold)}
            for name, values in all_of.items():
                level = _to_float_array(values)
                if level is not None and level.size == line.x.size:
                    is_it = len(all_of) == 1 or name == criterion
                    label = _CRITERION_LABELS.get(name, name)
                    label = _AGAINST_TRUTH if read("reference") else label
                    label += " (chosen)" if is_it and len(all_of) > 1 else ""
                    kind: Kind = "threshold" if is_it else "other threshold"
                    lines.append(Line(label, line.x, level, kind=kind))
        names = [f"{self.mark}_{unit}" for unit in _LENGTHS]
        px, nm = map(read, names) if self.mark else (None, None)
        if isinstance(px, (int, float)) and px >= 1:  # real periods are longer
            period = f"{format_number(px)} px"
            if isinstance(nm, (int, float)):
                period = f"{format_number(nm)} nm"
            lines[0] = replace(line, mark=1 / px, mark_label=period)
        elif self.mark and read("reason"):
            none = np.zeros(0)
            lines.append(Line(f"no {self.mark}", none, none))
        return lines


_LENGTHS = ("px", "nm")
# points up to which markers are drawn on the line; chosen: they do not overlap
_FEW = 32
_LARGEST = 1e300  # of a plot; chosen: larger than any measured value
_CRITERION_LABELS = {"3-sigma": f"3{SIGMA}"}
_AGAINST_TRUTH = "√(1/7)"


def _to_float_array(values: object) -> FloatArray | None:
    """Convert values to a float array, with None and extreme values as NaN.

    None if a result has no such curve.
    """
    if not isinstance(values, (list, tuple, np.ndarray)):
        return None
    try:
        read = np.array([np.nan if v is None else float(v) for v in values])
    except (TypeError, ValueError):
        return None
    return np.where(np.abs(read) < _LARGEST, read, np.nan)


def get_plots(result: object, curves: Sequence[CurveDeclaration]) -> list[Plot]:
    """Return the plots of a result, from its `plots` method or its curves."""
    own = getattr(result, "plots", None)
    if callable(own):
        plots: list[Plot] = own()
        return plots
    names = getattr(result, "images", ())
    read = partial(get_value, result)
    drawn = (curve.create_plot(read, names) for curve in curves)
    return [plot for plot in drawn if plot is not None]


def get_size_basis(
    size_nm: FloatPair | None, sd_nm: FloatPair | None
) -> Literal["calibrated", "stated", "unknown"]:
    """Return the basis of a pixel size: calibrated, stated or unknown."""
    if size_nm is None:
        return "unknown"
    return "stated" if sd_nm is None else "calibrated"


def format_pixel_size(size_nm: FloatPair | None, sd_nm: FloatPair | None = None) -> str:
    """Format a pixel size with the larger of its two standard deviations.

    Such as ``5 ± 0.02 nm``.
    """
    if size_nm is None:
        return "unknown"
    if sd_nm is not None:
        error = max(sd_nm)
        return f"{format_pixel_size(size_nm)} \N{PLUS-MINUS SIGN} {error:.2g} nm"
    y, x = size_nm
    if math.isclose(y, x, rel_tol=1e-6):
        return f"{y:.6g} nm"
    times = "\N{MULTIPLICATION SIGN}"
    return f"{y:.6g} {times} {x:.6g} nm (y {times} x)"


def describe_pixel_size(size_nm: FloatPair | None, sd_nm: FloatPair | None) -> str:
    """Format a pixel size and its basis: ``5 ± 0.02 nm (calibrated)``."""
    if size_nm is None:
        return "unknown, so lengths are in px"
    return f"{format_pixel_size(size_nm, sd_nm)} ({get_size_basis(size_nm, sd_nm)})"
