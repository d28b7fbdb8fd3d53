"""Values of a report: each with its unit, interval, threshold and method."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from napari_semsr.analysis import (
    REASON_TEXTS,
    Decorrelation,
    FrcResult,
    Histogram,
    Metrics,
)
from napari_semsr.core import (
    FloatPair,
    Micrograph,
    Quantity,
    get_quantities,
    get_record_quantities,
    get_value,
    is_white,
)
from napari_semsr.jobs.images import to_json_value
from napari_semsr.jobs.measure import ErrorMapReport
from napari_semsr.reporting import NO_VALUE, format_value

_PLUS_MINUS = "\N{PLUS-MINUS SIGN}"


@dataclass(frozen=True, slots=True)
class Number:
    """Measured value, or the reason why it is missing."""

    name: str
    value: float | str | None  # None if it could not be measured
    unit: str = ""  # of the value and of its interval
    also: str = ""  # in another unit, or a restriction
    interval: FloatPair | None = None
    within: str = "95 %"  # coverage of the interval
    threshold: str = ""
    method: str = ""
    reason: str = ""
    form: str = ".4g"
    sd: float | None = None  # standard deviation

    @property
    def text(self) -> str:
        """Value with its unit as text."""
        if self.value is None:
            return "refused" if self.reason else NO_VALUE
        if isinstance(self.value, str):
            return self.value
        also = f" ({self.also})" if self.also else ""
        error = (
            "" if self.sd is None else f" {_PLUS_MINUS} {format_value(self.sd, '.2g')}"
        )
        return (
            f"{format_value(self.value, self.form)}{error} {self.unit}".rstrip() + also
        )

    @property
    def interval_text(self) -> str:
        """Interval with its unit, and its coverage if it is not 95 %."""
        if self.interval is None:
            return NO_VALUE
        low, high = (format_value(end, self.form) for end in self.interval)
        interval_text = f"{low} to {high} {self.unit}".rstrip()
        return (
            interval_text
            if self.within in ("", "95 %")
            else f"{interval_text} ({self.within})"
        )

    @property
    def explanation(self) -> str:
        """Method, preceded by the reason if there is no value."""
        return f"{self.reason} {self.method}".strip() if self.reason else self.method

    def to_json(self) -> dict[str, Any]:
        """Return the number as a record, without formatting fields."""
        record = to_json_value(self)
        for name in ("form", "also"):
            del record[name]
        if self.interval is None:
            del record["within"]
        if self.sd is None:
            del record["sd"]
        return {key: value for key, value in record.items() if value != ""}


@dataclass(slots=True)
class Measurements:
    """Measurements of an image or a pair: values, results and notes."""

    numbers: list[Number] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add_failures(self, names: Sequence[str], error: Exception) -> None:
        """Record that values could not be measured, with the reason."""
        self.numbers += [Number(name, None, reason=str(error)) for name in names]

    @property
    def refusals(self) -> list[Number]:
        """Values that could not be measured, with reasons."""
        return [item for item in self.numbers if item.reason]

    def find_number(self, name: str) -> Number | None:
        """Find a number by its name."""
        return next((item for item in self.numbers if item.name == name), None)


# Values of each measure.


def _get_labels(kind: type, *names: str) -> tuple[str, ...]:
    """Return the labels of result fields, also for failed measurements."""
    return tuple(get_quantities(kind)[name][0].label for name in names)


_ROOT = "\N{SQUARE ROOT}"
FRC = "Resolution, FRC"
DECORRELATION = "Cut-off, decorrelation"
_SHARPNESS = ("average_gradient", "contrast", "spatial_frequency")
SHARPNESS = _get_labels(Metrics, *_SHARPNESS)
(DATA_RANGE,) = _get_labels(Metrics, "data_range")
AS_THEY_ARE = _get_labels(Metrics, "psnr_db", "ssim", "nrmse")
_FIT_SUFFIX = ", grey levels fitted"
MATCHED_NAMES = tuple(f"{name}{_FIT_SUFFIX}" for name in AS_THEY_ARE)
(EMD,) = _get_labels(Histogram, "emd")
ERRORS = _get_labels(ErrorMapReport, "rse", "rsp", "sigma_px", "alpha", "beta")


def create_number(
    quantities: Mapping[str, Quantity],
    name: str,
    get: Callable[[str], Any],
    /,
    **more: Any,
) -> Number:
    """Create a number from a declared value, or from the reason if it is missing.

    A value that exists only in another unit is returned in that unit.
    """
    quantity, value = quantities[name], get(name)
    other = get(quantity.also) if quantity.also else None
    if value is None and other is not None:
        return create_number(quantities, quantity.also, get, **more)
    also, interval = "", None
    ends: Any = get(quantity.interval) if quantity.interval else None
    if isinstance(other, int | float):
        second = quantities[quantity.also]
        also = f"{format_value(other, second.form)} {second.unit}".rstrip()
    if isinstance(ends, list | tuple) and len(ends) == 2 and None not in ends:
        interval = (float(ends[0]), float(ends[1]))
    sd = get(quantity.sd) if quantity.sd else None
    reason = get(quantity.reason) if value is None and quantity.reason else None
    number = Number(
        quantity.label,
        value,
        quantity.unit,
        also,
        interval,
        quantity.within,
        reason=f"{reason}." if reason else "",
        form=quantity.form,
        sd=float(sd) if isinstance(sd, int | float) else None,
    )
    return replace(number, **more)


def _create_result_number(result: Any, name: str, /, **more: Any) -> Number:
    get = partial(get_value, result)
    return create_number(get_record_quantities(type(result)), name, get, **more)


def _create_length_number(
    result: FrcResult | Decorrelation, image: Micrograph, name: str
) -> Number:
    """Return a length in nm, or in px without a pixel size, or why it is missing."""
    in_nm = result.resolution_nm is not None or image.pixel_size_nm is not None
    number = _create_result_number(
        result, f"resolution_{'nm' if in_nm else 'px'}", name=name
    )
    nothing = "" if number.value is not None else "no crossing."
    return replace(number, method=result.method, reason=number.reason or nothing)


def create_frc_number(
    result: FrcResult, image: Micrograph, note: str | None = None
) -> Number:
    """Return the resolution by Fourier ring correlation."""
    number = _create_length_number(result, image, FRC)
    doubt = REASON_TEXTS[result.reason] if result.reason and number.value else ""
    return replace(
        number,
        also="; ".join(filter(None, [number.also, doubt])),
        # as named by the method: the square root for a noise-free reference
        threshold=f"{_ROOT}(1/7)" if _ROOT in result.method else result.criterion,
        method=result.method if note is None else f"{result.method}. {note}",
    )


def create_decorrelation_number(result: Decorrelation, image: Micrograph) -> Number:
    """Return the cut-off by decorrelation, with the spread of blocks as interval."""
    number = _create_length_number(result, image, DECORRELATION)
    low, high = (getattr(result, f"{end}_{number.unit}") for end in ("p10", "p90"))
    return replace(
        number,
        interval=None if low is None or high is None else (low, high),
        within=f"10 to 90 % of {result.blocks} blocks",
        threshold="none needed",
    )


def create_grey_numbers(image: Micrograph) -> list[Number]:
    """Return mean, standard deviation and range of grey levels, and missing pixels."""
    data = image.array()
    finite = data[np.isfinite(data)] if data.dtype.kind == "f" else data.ravel()
    wide = finite.astype(np.float64, copy=False)
    unit = "grey levels"
    say = partial(Number, method="over all pixels with a grey level")
    low, high = (
        (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    )
    numbers = [
        say("Mean grey level", float(wide.mean()) if finite.size else None, unit),
        say("Standard deviation", float(wide.std()) if finite.size else None, unit),
        say(
            "Range of grey levels",
            f"{format_value(low, '.6g')} to {format_value(high, '.6g')}",
        ),
    ]
    if finite.size < data.size:
        share = 100 * (1 - finite.size / data.size)
        numbers.append(say("Without a grey level", share, "% of the pixels"))
    if finite.size and is_white(high, data.dtype, image.significant_bits):
        share = 100 * float(np.mean(finite == high))
        numbers.append(say("Saturated", share, "% of the pixels"))
    return numbers


def create_map_numbers(image: Micrograph) -> list[Number]:
    """Return the median and the spread of a map."""
    data = image.array().astype(np.float64)
    finite = data[np.isfinite(data)]
    unit = (image.quantity or "").partition("(")[2].rstrip(")")
    low, middle, high = (
        np.percentile(finite, (10, 50, 90)) if finite.size else [0.0] * 3
    )
    share = 100 * (1 - finite.size / data.size)
    method = f"of {finite.size} positions with a value"
    return [
        Number(
            "Median of the map",
            float(middle) if finite.size else None,
            unit,
            interval=(float(low), float(high)) if finite.size else None,
            within="10 to 90 % of the positions",
            method=method,
        ),
        Number("Without a value", share, "% of the positions", method="counted"),
    ]


def create_sharpness_numbers(metrics: Metrics) -> list[Number]:
    """Return the sharpness measures of a single image, and their data range."""
    span = f"{format_value(metrics.data_range)} ({metrics.data_range_basis})"
    method = f"with the data range, {span}, scaled to 255"
    return [
        *(_create_result_number(metrics, name, method=method) for name in _SHARPNESS),
        _create_result_number(metrics, "data_range", method=metrics.data_range_basis),
    ]


def create_metric_numbers(metrics: Metrics) -> list[Number]:
    """Return the metrics of an image against a reference."""
    span = f"data range {format_value(metrics.data_range)} ({metrics.data_range_basis})"
    how, match_text = f"{span}; grey levels unchanged", ""
    if metrics.match is not None:
        match_text = _FIT_SUFFIX
        how = (
            f"{span}; grey levels first matched with gain {format_value(metrics.gain)} "
            f"and offset {format_value(metrics.offset)}"
        )
    methods = {
        "psnr_db": how,
        "ssim": f"{how}; Gaussian window 11 x 11, standard deviation 1.5 px",
        "nrmse": f"{how}; normalised by the root mean square of the reference",
    }
    numbers = [
        _create_result_number(metrics, name, method=method)
        for name, method in methods.items()
    ]
    numbers = [replace(number, name=f"{number.name}{match_text}") for number in numbers]
    end = metrics.cut_off_nm if metrics.match else None
    if end is not None:
        for name, which in (("psnr_below_db", "longer"), ("psnr_above_db", "shorter")):
            periods = f"{how}; error at periods {which} than {end:.4g} nm"
            numbers.append(_create_result_number(metrics, name, method=periods))
    return numbers


def create_emd_numbers(histogram: Histogram) -> list[Number]:
    """Return the earth mover's distance between two grey-level distributions."""
    method = "earth mover's distance of all pixel values"
    return [_create_result_number(histogram, "emd", method=method)]


def create_error_numbers(report: ErrorMapReport) -> list[Number]:
    """Return the measures of agreement of an enhanced image with its reference."""
    method = (
        f"enhanced image shifted by {report.shift_text}, blurred with a Gaussian, "
        f"matched in gain and offset; {report.pixels} pixels"
    )
    names = ("rse", "rsp", "sigma_nm", "alpha", "beta")
    return [_create_result_number(report, name, method=method) for name in names]
