"""Numbers of a report: each with its unit, interval, threshold and method."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_semsr.analysis import (
    NO_CUT_OFF,
    REASON_TEXTS,
    Decorrelation,
    FrcResult,
    Histogram,
    Metrics,
)
from napari_semsr.core import FloatPair, Micrograph
from napari_semsr.jobs.images import jsonable
from napari_semsr.jobs.measure import ErrorMapReport

NO_VALUE = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"
_WRITTEN_OUT = 1e7  # chosen: grey levels of 16 bits and counts are read as digits


@dataclass(frozen=True, slots=True)
class Number:
    """A number, or why there is none.

    Attributes
    ----------
    name : str
        What it is.
    value : float, str or None
        None where it was refused.
    unit : str
        Of the value and of its interval.
    also : str
        The same in another unit, or what it must be taken with.
    interval : tuple of float or None
        Within which it lies.
    within : str
        What the interval holds.
    threshold : str
        By which it was decided.
    method : str
        How it was found.
    reason : str
        Why there is none.
    form : str
        How it is written.
    """

    name: str
    value: float | str | None
    unit: str = ""
    also: str = ""
    interval: FloatPair | None = None
    within: str = "95 %"
    threshold: str = ""
    method: str = ""
    reason: str = ""
    form: str = ".4g"

    @property
    def said(self) -> str:
        """The value with its unit."""
        if self.value is None:
            return "refused" if self.reason else NO_VALUE
        if isinstance(self.value, str):
            return self.value
        also = f" ({self.also})" if self.also else ""
        return f"{written(self.value, self.form)} {self.unit}".rstrip() + also

    @property
    def spread(self) -> str:
        """The interval with its unit, and what it holds where that is not 95 %."""
        if self.interval is None:
            return NO_VALUE
        low, high = (written(end, self.form) for end in self.interval)
        told = f"{low} to {high} {self.unit}".rstrip()
        return told if self.within == "95 %" else f"{told} ({self.within})"

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
        return {key: value for key, value in record.items() if value != ""}


def written(value: float, form: str = ".4g") -> str:
    """Write a number, a large one in digits rather than as 2e+04."""
    if not math.isfinite(value):
        return NO_VALUE
    whole = form == "d" and float(value).is_integer()
    text = f"{int(value):d}" if whole else f"{value:{form.replace('d', '.4g')}}"
    if "e+" in text and abs(value) < _WRITTEN_OUT:
        text = f"{float(text):.0f}"
    return text.replace("-", "\N{MINUS SIGN}") if text.startswith("-") else text


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

FRC = "Resolution, FRC"
DECORRELATION = "Cut-off, decorrelation"
SHARPNESS = ("Average gradient", "Contrast", "Spatial frequency")
GREY = ("Mean grey level", "Standard deviation", "Range of grey levels")
AS_THEY_ARE = ("PSNR", "SSIM", "NRMSE")
MATCHED = tuple(f"{name}, grey levels fitted" for name in AS_THEY_ARE)
EMD = "Distance of grey levels"
ERRORS = ("RSE", "RSP", "Blur, \N{GREEK SMALL LETTER SIGMA}", "Gain", "Offset")


def frc_number(found: FrcResult, image: Micrograph, note: str | None = None) -> Number:
    """Say a resolution by ring correlation."""
    in_nm = found.resolution_nm is not None or image.pixel_size_nm is not None
    value = found.resolution_nm if in_nm else found.resolution_px
    also = f"{written(found.resolution_px)} px" if in_nm and found.resolution_px else ""
    reason = ""
    if value is None:
        reason = _because(found.reason, REASON_TEXTS)
    elif found.reason is not None:
        also = "; ".join(filter(None, [also, REASON_TEXTS[found.reason]]))
    method = found.method if note is None else f"{found.method}. {note}"
    return Number(
        FRC,
        value,
        "nm" if in_nm else "px",
        also,
        found.interval_nm if in_nm else found.interval_px,
        threshold=_threshold(found.criterion, found.method),
        method=method,
        reason=reason,
    )


def _threshold(criterion: str, method: str) -> str:
    """Name a threshold as the method does, against a noise-free reference its root."""
    return "\N{SQUARE ROOT}(1/7)" if "\N{SQUARE ROOT}" in method else criterion


def decorrelation_number(found: Decorrelation, image: Micrograph) -> Number:
    """Say a cut-off by decorrelation; its interval is the spread of the blocks."""
    in_nm = found.resolution_nm is not None or image.pixel_size_nm is not None
    value = found.resolution_nm if in_nm else found.resolution_px
    ends = (found.p10_nm, found.p90_nm) if in_nm else (found.p10_px, found.p90_px)
    spread = None if ends[0] is None or ends[1] is None else (ends[0], ends[1])
    return Number(
        DECORRELATION,
        value,
        "nm" if in_nm else "px",
        f"{written(found.resolution_px)} px" if in_nm and found.resolution_px else "",
        spread,
        f"10 to 90 % of {found.blocks} blocks",
        threshold="none needed",
        method=found.method,
        reason="" if value is not None else _because(found.reason, NO_CUT_OFF),
    )


def _because(reason: str | None, texts: Mapping[str, str]) -> str:
    return f"{reason}: {texts.get(reason, '')}." if reason else "no crossing."


def grey_numbers(image: Micrograph) -> list[Number]:
    """Say mean, deviation and range of the grey levels, and what has none."""
    data = image.array()
    known = data[np.isfinite(data)] if data.dtype.kind == "f" else data.ravel()
    wide = known.astype(np.float64, copy=False)
    unit, method = "grey levels", "over all pixels that have a grey level"
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    found = [
        Number(GREY[0], float(wide.mean()) if known.size else None, unit),
        Number(GREY[1], float(wide.std()) if known.size else None, unit),
        Number(GREY[2], f"{written(low, '.6g')} to {written(high, '.6g')}"),
    ]
    if known.size < data.size:
        share = 100 * (1 - known.size / data.size)
        found.append(Number("Without a grey level", share, "% of the pixels"))
    if data.dtype.kind in "iu" and known.size and high == np.iinfo(data.dtype).max:
        share = 100 * float(np.mean(known == high))
        found.append(Number("Saturated", share, "% of the pixels", form=".2g"))
    return [_by(item, method) for item in found]


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


def _by(number: Number, method: str) -> Number:
    return Number(number.name, number.value, number.unit, method=method)


def sharpness_numbers(found: Metrics) -> list[Number]:
    """Say what is told of an image by itself."""
    method = f"on the scale where the data range, {written(found.data_range)}, is 255"
    values = (found.average_gradient, found.contrast, found.spatial_frequency)
    return [
        Number(name, value, method=method)
        for name, value in zip(SHARPNESS, values, strict=True)
    ]


def metric_numbers(found: Metrics, names: Sequence[str]) -> list[Number]:
    """Say how near an image comes to a reference."""
    how = f"data range {written(found.data_range)}; "
    if found.match is None:
        how += "grey levels as they are"
    else:
        how += (
            f"grey levels fitted first, gain {written(found.gain)} and offset "
            f"{written(found.offset)}"
        )
    same = "infinite: every pixel is equal." if found.identical else ""
    ssim = f"{how}; Gaussian window 11 x 11, standard deviation 1.5 px"
    small = "" if found.ssim is not None else "the images are smaller than 11 px."
    end = found.cut_off_nm if found.match else None
    split = [] if end is None else [
        Number(f"PSNR {where} the optical cut-off", value, "dB", method=f"{how}; error "
               f"in periods {which} than {end:.4g} nm", form=".2f")
        for where, which, value in (("below", "longer", found.psnr_below_db),
                                    ("above", "shorter", found.psnr_above_db))
    ]  # fmt: skip
    return [
        Number(names[0], found.psnr_db, "dB", method=how, reason=same, form=".2f"),
        Number(names[1], found.ssim, method=ssim, reason=small, form=".4f"),
        Number(names[2], found.nrmse, method=f"{how}; over the reference's root mean "
               "square", form=".4f"),
        *split,
    ]  # fmt: skip


def emd_number(found: Histogram) -> Number:
    """Say how far two distributions of grey levels lie apart."""
    bins = len(found.counts)
    method = f"earth mover's distance of {bins} bins"
    return Number(EMD, found.emd, "grey levels", method=method)


def error_numbers(found: ErrorMapReport) -> list[Number]:
    """Say how an enhanced image, blurred again, agrees with its reference."""
    percent = f"{written(found.rse_percent, '.3g')} % of the reference's range"
    in_nm = "" if found.sigma_nm is None else f"{written(found.sigma_nm, '.3g')} nm"
    method = (
        f"enhanced image moved by {found.moved}, blurred by a Gaussian and fitted in "
        f"gain and offset; {found.pixels} pixels"
    )
    levels = "grey levels"
    return [
        Number(ERRORS[0], found.rse, levels, percent, method=method),
        Number(ERRORS[1], found.rsp, method=f"Pearson's r; {method}", form=".4f"),
        Number(ERRORS[2], found.sigma_px, "px", in_nm, method="fitted", form=".3g"),
        Number(ERRORS[3], found.alpha, method="fitted"),
        Number(ERRORS[4], found.beta, levels, method="fitted"),
    ]
