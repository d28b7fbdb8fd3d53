"""Numbers of a report: each with its unit, interval, threshold and method."""

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
    declared_by,
    is_white,
    quantities_of,
    value_of,
)
from napari_semsr.jobs.images import jsonable
from napari_semsr.jobs.measure import ErrorMapReport
from napari_semsr.reporting import NO_VALUE, written

_PLUS_MINUS = "\N{PLUS-MINUS SIGN}"


@dataclass(frozen=True, slots=True)
class Number:
    """A number, or why there is none."""

    name: str
    value: float | str | None  # None where it was refused
    unit: str = ""  # of the value and of its interval
    also: str = ""  # in another unit, or what it must be taken with
    interval: FloatPair | None = None
    within: str = "95 %"  # what the interval holds
    threshold: str = ""
    method: str = ""
    reason: str = ""
    form: str = ".4g"
    sd: float | None = None  # standard deviation

    @property
    def said(self) -> str:
        """The value with its unit."""
        if self.value is None:
            return "refused" if self.reason else NO_VALUE
        if isinstance(self.value, str):
            return self.value
        also = f" ({self.also})" if self.also else ""
        error = "" if self.sd is None else f" {_PLUS_MINUS} {written(self.sd, '.2g')}"
        return f"{written(self.value, self.form)}{error} {self.unit}".rstrip() + also

    @property
    def spread(self) -> str:
        """The interval with its unit, and what it holds where that is not 95 %."""
        if self.interval is None:
            return NO_VALUE
        low, high = (written(end, self.form) for end in self.interval)
        told = f"{low} to {high} {self.unit}".rstrip()
        return told if self.within in ("", "95 %") else f"{told} ({self.within})"

    @property
    def how(self) -> str:
        """The method, or why there is no number."""
        return f"{self.reason} {self.method}".strip() if self.reason else self.method

    def to_json(self) -> dict[str, Any]:
        """Give what is known of it, without what only serves to write it."""
        record = jsonable(self)
        for name in ("form", "also"):
            del record[name]
        if self.interval is None:
            del record["within"]
        if self.sd is None:
            del record["sd"]
        return {key: value for key, value in record.items() if value != ""}


@dataclass(slots=True)
class Measured:
    """What was measured of an image or a pair: numbers, whole results, notes."""

    numbers: list[Number] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def refuse(self, names: Sequence[str], error: Exception) -> None:
        """Note that something could not be measured, and why."""
        self.numbers += [Number(name, None, reason=str(error)) for name in names]

    @property
    def refused(self) -> list[Number]:
        """Numbers that there are not, with their reasons."""
        return [item for item in self.numbers if item.reason]

    def number(self, name: str) -> Number | None:
        """Find a number by its name."""
        return next((item for item in self.numbers if item.name == name), None)


# Numbers of each measure.


def _labels(kind: type, *names: str) -> tuple[str, ...]:
    """Name fields of a result, also of one that could not be measured."""
    return tuple(quantities_of(kind)[name][0].label for name in names)


_ROOT = "\N{SQUARE ROOT}"
FRC = "Resolution, FRC"
DECORRELATION = "Cut-off, decorrelation"
_SHARPNESS = ("average_gradient", "contrast", "spatial_frequency")
SHARPNESS = _labels(Metrics, *_SHARPNESS)
AS_THEY_ARE = _labels(Metrics, "psnr_db", "ssim", "nrmse")
_FITTED = ", grey levels fitted"
MATCHED = tuple(f"{name}{_FITTED}" for name in AS_THEY_ARE)
(EMD,) = _labels(Histogram, "emd")
ERRORS = _labels(ErrorMapReport, "rse", "rsp", "sigma_px", "alpha", "beta")


def number_of(
    declared: Mapping[str, Quantity],
    name: str,
    get: Callable[[str], Any],
    /,
    **more: Any,
) -> Number:
    """Get what is declared, or why there is none; `more` stands in place of that.

    A number that is there in another unit alone is given in that.
    """
    told, value = declared[name], get(name)
    other = get(told.also) if told.also else None
    if value is None and other is not None:
        return number_of(declared, told.also, get, **more)
    also, interval = "", None
    ends: Any = get(told.interval) if told.interval else None
    if isinstance(other, int | float):
        second = declared[told.also]
        also = f"{written(other, second.form)} {second.unit}".rstrip()
    if isinstance(ends, list | tuple) and len(ends) == 2 and None not in ends:
        interval = (float(ends[0]), float(ends[1]))
    sd = get(told.sd) if told.sd else None
    reason = get(told.reason) if value is None and told.reason else None
    made = Number(
        told.label,
        value,
        told.unit,
        also,
        interval,
        told.within,
        reason=f"{reason}." if reason else "",
        form=told.form,
        sd=float(sd) if isinstance(sd, int | float) else None,
    )
    return replace(made, **more)


def _told(found: Any, name: str, /, **more: Any) -> Number:
    get = partial(value_of, found)
    return number_of(declared_by(type(found)), name, get, **more)


def _length(found: FrcResult | Decorrelation, image: Micrograph, name: str) -> Number:
    """Say a length in nm where pixels have a size, else in px; or why there is none."""
    in_nm = found.resolution_nm is not None or image.pixel_size_nm is not None
    number = _told(found, f"resolution_{'nm' if in_nm else 'px'}", name=name)
    nothing = "" if number.value is not None else "no crossing."
    return replace(number, method=found.method, reason=number.reason or nothing)


def frc_number(found: FrcResult, image: Micrograph, note: str | None = None) -> Number:
    """Say a resolution by ring correlation."""
    number = _length(found, image, FRC)
    doubt = REASON_TEXTS[found.reason] if found.reason and number.value else ""
    return replace(
        number,
        also="; ".join(filter(None, [number.also, doubt])),
        # as the method names it: against a noise-free reference it is the root
        threshold=f"{_ROOT}(1/7)" if _ROOT in found.method else found.criterion,
        method=found.method if note is None else f"{found.method}. {note}",
    )


def decorrelation_number(found: Decorrelation, image: Micrograph) -> Number:
    """Say a cut-off by decorrelation; its interval is the spread of the blocks."""
    number = _length(found, image, DECORRELATION)
    low, high = (getattr(found, f"{end}_{number.unit}") for end in ("p10", "p90"))
    return replace(
        number,
        interval=None if low is None or high is None else (low, high),
        within=f"10 to 90 % of {found.blocks} blocks",
        threshold="none needed",
    )


def grey_numbers(image: Micrograph) -> list[Number]:
    """Say mean, deviation and range of the grey levels, and what has none."""
    data = image.array()
    known = data[np.isfinite(data)] if data.dtype.kind == "f" else data.ravel()
    wide = known.astype(np.float64, copy=False)
    unit = "grey levels"
    say = partial(Number, method="over all pixels that have a grey level")
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    found = [
        say("Mean grey level", float(wide.mean()) if known.size else None, unit),
        say("Standard deviation", float(wide.std()) if known.size else None, unit),
        say("Range of grey levels", f"{written(low, '.6g')} to {written(high, '.6g')}"),
    ]
    if known.size < data.size:
        share = 100 * (1 - known.size / data.size)
        found.append(say("Without a grey level", share, "% of the pixels"))
    if known.size and is_white(high, data.dtype, image.significant_bits):
        share = 100 * float(np.mean(known == high))
        found.append(say("Saturated", share, "% of the pixels"))
    return found


def map_numbers(image: Micrograph) -> list[Number]:
    """Say the middle and the spread of a map."""
    data = image.array().astype(np.float64)
    known = data[np.isfinite(data)]
    unit = (image.quantity or "").partition("(")[2].rstrip(")")
    low, middle, high = np.percentile(known, (10, 50, 90)) if known.size else [0.0] * 3
    share = 100 * (1 - known.size / data.size)
    method = f"of {known.size} places with a value"
    return [
        Number(
            "Median of the map",
            float(middle) if known.size else None,
            unit,
            interval=(float(low), float(high)) if known.size else None,
            within="10 to 90 % of the places",
            method=method,
        ),
        Number("Without a value", share, "% of the places", method="counted"),
    ]


def sharpness_numbers(found: Metrics) -> list[Number]:
    """Say what is told of an image by itself."""
    span = f"{written(found.data_range)} ({found.data_range_basis})"
    method = f"on the scale where the data range, {span}, is 255"
    return [_told(found, name, method=method) for name in _SHARPNESS]


def metric_numbers(found: Metrics) -> list[Number]:
    """Say how near an image comes to a reference."""
    span = f"data range {written(found.data_range)} ({found.data_range_basis})"
    how, fitted = f"{span}; grey levels as they are", ""
    if found.match is not None:
        fitted = _FITTED
        how = (
            f"{span}; grey levels fitted first, gain {written(found.gain)} and offset "
            f"{written(found.offset)}"
        )
    methods = {
        "psnr_db": how,
        "ssim": f"{how}; Gaussian window 11 x 11, standard deviation 1.5 px",
        "nrmse": f"{how}; over the reference's root mean square",
    }
    numbers = [_told(found, name, method=method) for name, method in methods.items()]
    numbers = [replace(number, name=f"{number.name}{fitted}") for number in numbers]
    end = found.cut_off_nm if found.match else None
    if end is not None:
        for name, which in (("psnr_below_db", "longer"), ("psnr_above_db", "shorter")):
            periods = f"{how}; error in periods {which} than {end:.4g} nm"
            numbers.append(_told(found, name, method=periods))
    return numbers


def emd_number(found: Histogram) -> list[Number]:
    """Say how far two distributions of grey levels lie apart."""
    method = "earth mover's distance of all pixel values"
    return [_told(found, "emd", method=method)]


def error_numbers(found: ErrorMapReport) -> list[Number]:
    """Say how an enhanced image, blurred again, agrees with its reference."""
    method = (
        f"enhanced image moved by {found.moved}, blurred by a Gaussian and fitted in "
        f"gain and offset; {found.pixels} pixels"
    )
    names = ("rse", "rsp", "sigma_nm", "alpha", "beta")
    return [_told(found, name, method=method) for name in names]
