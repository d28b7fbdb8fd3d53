"""Curves as values: what is drawn, and what its axes are called, said once.

A verb declares as `Curve` which fields of its result are drawn. Of a result, or of a
record of one, that makes a `Plot`, which panels and pages draw each in their colours.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Self

import numpy as np

from napari_semsr.core.micrograph import parse_pixel_size
from napari_semsr.core.quantities import SIGMA, in_figures, value_of
from napari_semsr.core.types import FloatArray, FloatPair

Read = Callable[[str], Any]
"""Gives a field of a result by its name; None where there is none."""
Kind = Literal["", "points", "threshold", "other threshold", "fit"]
_FREQUENCY = "frequency_per_px"


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """A line of a plot."""

    label: str  # in the legend; without one it is not named there
    # (N,) abscissa, or (N + 1,) edges of bins, and ordinate
    x: FloatArray
    y: FloatArray
    mark: float | None = None  # abscissa that is marked, such as that of a crossing
    marked: str = ""  # what the legend says of it
    colour: int | None = None  # among those there are; by default its place in the plot
    # a threshold is what others are held against; a fit belongs to the line before it
    kind: Kind = ""

    @property
    def in_bins(self) -> bool:
        """Whether it is a histogram."""
        return len(self.x) > len(self.y)

    @property
    def middle(self) -> FloatArray:
        """Its abscissa, of bins the middle of each."""
        return (self.x[1:] + self.x[:-1]) / 2 if self.in_bins else self.x

    def over_um(self, pixel_nm: float | None) -> Self:
        """Give a line over cycles per pixel over µm⁻¹, where pixels have a size."""
        if pixel_nm is None:
            return self
        k = 1000.0 / pixel_nm
        mark = None if self.mark is None else self.mark * k
        return replace(self, x=self.x * k, mark=mark)


@dataclass(frozen=True, slots=True, eq=False)
class Plot:
    """Lines that are drawn together."""

    # of the plot and its axes, with units
    title: str
    xlabel: str
    ylabel: str
    lines: tuple[Line, ...]
    log: bool = False  # the ordinate
    ylim: FloatPair | None = None
    period: str = ""  # unit of the period, where the abscissa is a frequency

    @property
    def columns(self) -> dict[str, Mapping[str, FloatArray]]:
        """Each line as columns of a table."""
        columns: dict[str, Mapping[str, FloatArray]] = {}
        for number, line in enumerate(self.lines, start=1):
            label, x = line.label or self.title, line.middle
            period = np.full(x.shape, np.nan)
            np.divide(1000.0 if self.period == "nm" else 1.0, x, period, where=x > 0)
            beside = {f"period ({self.period})": period} if self.period else {}
            name = f"{label} ({number})" if label in columns else label
            columns[name] = {self.xlabel: x, **beside, self.ylabel: line.y}
        return columns


@dataclass(frozen=True, slots=True)
class Curve:
    """Fields of a result that are drawn as lines, and what axes are called."""

    # of the plot and its axes, with units
    title: str
    # fields that hold as many numbers; those drawn over bins are counts, and one more
    # edge. ``{unit}`` in names and labels is nm, or px where there is no such field
    x: str
    y: str | tuple[str, ...]
    xlabel: str  # nothing over frequency, which is in µm⁻¹ where pixels have a size
    ylabel: str
    # of lines; by default names of images where they are several, else the title
    labels: tuple[str, ...] = ()
    log: bool = False
    ylim: FloatPair | None = None
    shares: bool = False  # of all counts
    threshold: str = ""  # field of what the lines are held against, named by criterion
    mark: str = ""  # field, without its unit, of a period to mark on the last line

    @property
    def ordinates(self) -> tuple[str, ...]:
        """Names of the fields that are drawn over another."""
        return (self.y,) if isinstance(self.y, str) else self.y

    @property
    def fields(self) -> set[str]:
        """Names of all fields that it may draw."""
        names = (self.x, *self.ordinates)
        return {name.format(unit=unit) for unit in _UNITS for name in names}

    def axes(self, unit: str) -> tuple[str, str]:
        """Say what its axes are called where lengths are in nm or px."""
        return self.xlabel.format(unit=unit), self.ylabel

    def plot(self, read: Read, names: Sequence[str] = ()) -> Plot | None:
        """Take the lines of a result, of images of some names; None without any."""
        unit = "px" if read(self.x.format(unit="nm")) is None else "nm"
        x = _numbers(read(self.x.format(unit=unit)))
        named = names if len(self.ordinates) > 1 else ()
        labels = self.labels or named or (self.title,)
        lines = []
        for name, label in zip(self.ordinates, labels, strict=False):
            y = _numbers(read(name.format(unit=unit)))
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
            pixel = _mean_size(read("pixel_size_nm"))
            lines[-1:] = self._marked(lines[-1], read)
            moved = [line.over_um(pixel) for line in lines]
            return self.together(moved, calibrated=pixel is not None)
        return Plot(self.title, *self.axes(unit), tuple(lines), self.log, self.ylim)

    def together(self, lines: Sequence[Line], *, calibrated: bool) -> Plot:
        """Lay lines over frequency together: over µm⁻¹, or over cycles per pixel."""
        return Plot(
            self.title,
            "spatial frequency (µm⁻¹)" if calibrated else "frequency (cycles/px)",
            self.ylabel,
            tuple(lines),
            self.log,
            self.ylim,
            "nm" if calibrated else "px",
        )

    def _marked(self, line: Line, read: Read) -> Sequence[Line]:
        """Mark a line at its period; give with it what it is held against."""
        lines = [line]
        if self.threshold:
            chosen = str(read("criterion"))
            all_of = read(f"{self.threshold}s") or {chosen: read(self.threshold)}
            for name, values in all_of.items():
                level = _numbers(values)
                if level is not None and level.size == line.x.size:
                    is_it = len(all_of) == 1 or name == chosen
                    label = _threshold_label(name, reference=bool(read("reference")))
                    label += " (chosen)" if is_it and len(all_of) > 1 else ""
                    kind: Kind = "threshold" if is_it else "other threshold"
                    lines.append(Line(label, line.x, level, kind=kind))
        px, nm = (read(f"{self.mark}_{unit}") if self.mark else None for unit in _UNITS)
        if isinstance(px, (int, float)) and px >= 1:  # as any true period
            told = f"{in_figures(px)} px"
            if isinstance(nm, (int, float)):
                told = f"{in_figures(nm)} nm"
            lines[0] = replace(line, mark=1 / px, marked=told)
        elif self.mark and read("reason"):
            none = np.zeros(0)
            lines.append(Line(f"no {self.mark}: {read('reason')}", none, none))
        return lines


_UNITS = ("px", "nm")
_FEW = 32  # points that are drawn on their line, too; chosen: they stay apart
_LARGEST = 1e300  # of a plot; chosen: any true one
_WRITTEN = {"3-sigma": f"3{SIGMA}"}
_AGAINST_TRUTH = "√(1/7)"


def _threshold_label(name: str, *, reference: bool) -> str:
    return _AGAINST_TRUTH if reference else _WRITTEN.get(name, name)


def against_truth(lines: Sequence[Line]) -> list[Line]:
    """Add the threshold of correlations with an image that counts as free of noise."""
    x = np.array([0.0, max((float(line.x.max()) for line in lines), default=1.0)])
    level = np.full(2, (1 / 7) ** 0.5)
    return [*lines, Line(_AGAINST_TRUTH, x, level, kind="threshold")]


def _mean_size(stated: Any) -> float | None:
    """Give the mean pitch of a pixel size."""
    size = parse_pixel_size(stated)
    return None if size is None else math.sqrt(size[0] * size[1])


def _numbers(values: Any) -> FloatArray | None:
    """Read numbers; None stands for no number, as does what no axis can hold."""
    if not isinstance(values, (list, tuple, np.ndarray)):
        return None
    try:
        read = np.array([np.nan if v is None else float(v) for v in values])
    except (TypeError, ValueError):
        return None
    return np.where(np.abs(read) < _LARGEST, read, np.nan)


def plots_of(result: Any, curves: Sequence[Curve]) -> list[Plot]:
    """Draw a result: what its own `plots` gives, else the curves that are declared."""
    own = getattr(result, "plots", None)
    if callable(own):
        found: list[Plot] = own()
        return found
    names = getattr(result, "images", ())
    made = (curve.plot(partial(value_of, result), names) for curve in curves)
    return [plot for plot in made if plot is not None]
