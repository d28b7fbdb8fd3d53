"""The command `profile`: a profile along a line, with widths, edge and pairs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import numpy as np

from napari_semsr.analysis import (
    RAYLEIGH_DIP,
    Estimate,
    Profile,
    ProfileOptions,
    Readings,
    measure_profile,
    read_profile,
    require_inside,
)
from napari_semsr.core import (
    FLAT,
    LEVELS,
    Curve,
    Figure,
    Job,
    Micrograph,
    Progress,
    Quantity,
    figure,
    length_figures,
    lengths,
    record_quantity,
    value_of,
    widen_interval,
)
from napari_semsr.jobs.images import SIZES, calibrated_of, jsonable
from napari_semsr.jobs.verb import ImageIn, Run, Sized, Verb, size_of

_SEVERAL = 2  # fewest lines that are listed in a table
_PLUS_MINUS = "\N{PLUS-MINUS SIGN}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CurveFound(Sized):
    """A curve along a line, with its readings."""

    profile: Profile
    readings: Readings = field(metadata=FLAT)

    @property
    def unit(self) -> str:
        """Unit of the axis."""
        return "nm" if self.profile.calibrated else "px"

    def in_axis_unit(self, length: Estimate) -> Estimate:
        """Convert a length to the axis unit, with the calibration's error."""
        length_nm = _in_nm(self.profile, length)
        if length_nm is not None:
            return length_nm
        parts = (length.value, length.sd, length.low, length.high)
        return Estimate(*(self.profile.per_px * part for part in parts))

    def figures(self) -> dict[str, Figure]:
        """Return name and value of each reading; for many lines, their median."""
        readings, rows = self.readings, dict[str, Figure]()
        if readings.reason is not None:
            rows["No reading"] = Figure(readings.reason)
        kind = "Dark line" if readings.dark else "Line"
        if readings.edge is not None:
            edge = readings.edge
            rows["Edge, 10 to 90 %"] = self._length(edge.width, edge.plain_width)
            rows["Edge at"] = self._length(edge.place, None)
        if len(readings.lines) == 1:
            (line,) = readings.lines
            rows[f"{kind}, FWHM"] = self._length(line.fwhm, line.plain_fwhm)
            rows[f"{kind} at"] = self._length(line.place, line.plain_place)
        elif readings.lines:
            rows[f"{kind}s"] = Figure(len(readings.lines))
            widths = [line.fwhm.value for line in readings.lines if line.fwhm]
            rows |= self._middle("FWHM, median", widths)
            apart = [pair.distance.value for pair in readings.pairs if pair.distance]
            rows |= self._middle("Distance, median", apart)
            untold = [pair.reason for pair in readings.pairs if pair.reason]
            if untold:
                note = f"({len(untold)} of {len(readings.pairs)} pairs)"
                rows["Dip undecided"] = Figure(untold[0], note=note)
        rows["Pixel size"] = Figure(self.pixel_size)
        return rows

    def _length(self, fit_length: Estimate | None, plain: float | None) -> Figure:
        """Format a length with its interval, and its value from crossings."""
        k = self.profile.per_px
        beside = "" if plain is None else f"plain {plain * k:.4g}"
        if fit_length is None:
            return Figure(f"{beside} {self.unit}, no fit" if beside else "no fit")
        length = self.in_axis_unit(fit_length)
        ends = f"95 %: {length.low:.4g} to {length.high:.4g}"
        note = f"({ends}{', ' * bool(beside)}{beside})"
        return Figure(length.value, self.unit, note=note, sd=length.sd)

    def _middle(self, name: str, values: Sequence[float]) -> dict[str, Figure]:
        if not values:
            return {}
        middle = self.profile.per_px * float(np.median(values))
        return {name: Figure(middle, self.unit, note=f"(of {len(values)})")}

    def tables(self) -> dict[str, Mapping[str, Sequence[float | str | None]]]:
        """Return a row for each line and each pair, if there are several."""
        readings = self.readings
        if len(readings.lines) < _SEVERAL:
            return {}
        tables = {"Dark lines" if readings.dark else "Lines": self._lines()}
        return {**tables, "Neighbours": self._pairs()} if readings.pairs else tables

    def _lines(self) -> Mapping[str, Sequence[float | str | None]]:
        lines, k, unit = self.readings.lines, self.profile.per_px, self.unit
        fits = [line.fwhm and self.in_axis_unit(line.fwhm) for line in lines]
        plain = [line.plain_fwhm for line in lines]
        return {
            "line": range(1, len(lines) + 1),
            f"at ({unit})": [k * line.at for line in lines],
            f"FWHM ({unit})": [one.value if one else None for one in fits],
            f"{_PLUS_MINUS} ({unit})": [one.sd if one else None for one in fits],
            f"plain ({unit})": [None if one is None else k * one for one in plain],
            "95 % from": [one.low if one else None for one in fits],
            "95 % to": [one.high if one else None for one in fits],
        }

    def _pairs(self) -> Mapping[str, Sequence[float | str | None]]:
        pairs, unit = self.readings.pairs, self.unit
        apart = [pair.distance and self.in_axis_unit(pair.distance) for pair in pairs]
        dips = [pair.dip for pair in pairs]
        rayleigh = f"Rayleigh {100 * RAYLEIGH_DIP:.3g} %"
        return {
            "lines": [f"{pair.first + 1}, {pair.first + 2}" for pair in pairs],
            f"apart ({unit})": [one.value if one else None for one in apart],
            "dip (%)": [100 * one.value if one else None for one in dips],
            rayleigh: [pair.rayleigh for pair in pairs],
            f"{_PLUS_MINUS} ({unit})": [one.sd if one else None for one in apart],
            f"{_PLUS_MINUS} (%)": [100 * one.sd if one else None for one in dips],
            "Sparrow": [pair.sparrow for pair in pairs],
            "plain dip (%)": [100 * pair.plain_dip for pair in pairs],
        }


# record keys of each line, of two neighbours, and of an edge
_OF_LINE = {
    "model": Quantity("Model"),
    "height": Quantity("Height", LEVELS),
    **lengths("place", "At"),
    **lengths("fwhm", "FWHM"),
    **lengths("fwhm_plain", "FWHM, plain"),
}
_OF_PAIR = {
    **lengths("distance", "Apart"),
    **lengths("distance_plain", "Apart, plain"),
    "dip": Quantity("Dip", form=".3g", sd="dip_sd"),
    "dip_plain": Quantity("Dip, plain", form=".3g"),
    "rayleigh": Quantity("Rayleigh"),
    "sparrow": Quantity("Sparrow"),
    "reason": Quantity("Why no dip"),
}
_OF_EDGE = {
    "step": Quantity("Step", LEVELS),
    **lengths("place", "at"),
    **lengths("width_10_90", "10 to 90 %"),
    **lengths("width_10_90_plain", "10 to 90 %, plain"),
}


def _cells(stem: str, label: str, part: str = "") -> tuple[property, property]:
    """Return the properties of two columns, a length in nm and in px."""
    name = "_".join(filter(None, (stem, part)))

    errors = {item: f"{stem}_{item}_{{unit}}" for item in ("sd", "interval")}
    return length_figures(
        lambda result, unit: result.lengths(stem)[f"{name}_{unit}"],
        *(name, label),
        shown=False,
        tabled=part != "interval",
        **({} if part else errors),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProfileReport(CurveFound):
    """Profile of an image along a line: the curve and its readings.

    In the record ``fwhm_`` is that of the highest line, and lengths are in nm and in px
    along the line.
    """

    image: str
    options: ProfileOptions

    fwhm_nm, fwhm_px = _cells("fwhm", "FWHM")
    fwhm_sd_nm, fwhm_sd_px = _cells("fwhm", "Its s.d.", "sd")
    fwhm_interval_nm, fwhm_interval_px = _cells("fwhm", "Its interval", "interval")
    fwhm_plain_nm, fwhm_plain_px = _cells("fwhm", "FWHM, plain", "plain")
    distance_nm, distance_px = _cells("distance", "Distance")
    distance_sd_nm, distance_sd_px = _cells("distance", "Its s.d.", "sd")
    distance_interval_nm, distance_interval_px = _cells(
        "distance", "Its interval", "interval"
    )
    edge_10_90_nm, edge_10_90_px = _cells("edge_10_90", "Edge, 10 to 90 %")
    edge_10_90_sd_nm, edge_10_90_sd_px = _cells("edge_10_90", "Its s.d.", "sd")
    edge_10_90_interval_nm, edge_10_90_interval_px = _cells(
        "edge_10_90", "Its interval", "interval"
    )
    lines_averaged = figure(
        lambda result: result.profile.lines, "Lines averaged", shown=False, tabled=False
    )

    @property
    def line(self) -> Annotated[tuple[float, ...], record_quantity("Line", "px")]:
        """Ends of the line, ``y0, x0, y1, x1``."""
        return self.options.line

    @property
    def peaks_px(self) -> Annotated[list[float], record_quantity("Peaks", "px")]:
        """Positions of lines in px."""
        return [line.at for line in self.readings.lines]

    @property
    def peaks_nm(
        self,
    ) -> Annotated[list[float] | None, record_quantity("Peaks", "nm", also="peaks_px")]:
        """Positions of lines in nm."""
        k = self.profile.nm_per_px
        return None if k is None else [place * k for place in self.peaks_px]

    @property
    def lines(self) -> Annotated[list[Any], record_quantity("Lines", keys=_OF_LINE)]:
        """Readings of each line."""
        length = partial(_record_length, self.profile)
        return [
            {
                "model": line.model,
                "height": line.height,
                **length("place", line.place, line.plain_place),
                **length("fwhm", line.fwhm, line.plain_fwhm),
            }
            for line in self.readings.lines
        ]

    @property
    def pairs(
        self,
    ) -> Annotated[list[Any], record_quantity("Neighbours", keys=_OF_PAIR)]:
        """Readings of each pair of neighbouring lines."""
        length = partial(_record_length, self.profile)
        return [
            {
                "lines": [pair.first, pair.first + 1],
                **length("distance", pair.distance, pair.plain_distance),
                **_record_estimate("dip", pair.dip),
                "dip_plain": pair.plain_dip,
                "rayleigh": pair.rayleigh,
                "sparrow": pair.sparrow,
                "reason": pair.reason,
            }
            for pair in self.readings.pairs
        ]

    @property
    def edge(
        self,
    ) -> Annotated[dict[str, Any] | None, record_quantity("Edge", keys=_OF_EDGE)]:
        """Readings of the edge, if there is one."""
        edge, length = self.readings.edge, partial(_record_length, self.profile)
        if edge is None:
            return None
        return {
            "step": edge.step,
            **length("place", edge.place, None),
            **length("width_10_90", edge.width, edge.plain_width),
        }

    height = figure(  # height of the highest line
        lambda result: result.readings.main and result.readings.main.height,
        "Height",
        LEVELS,
    )

    @property
    def dip(self) -> Annotated[float | None, Quantity("Dip")]:
        """Dip between the first two lines, as a fraction of the lower one."""
        dips = [pair.dip for pair in self.readings.pairs]
        return dips[0].value if dips and dips[0] else None

    # why there is neither line nor edge
    reason = figure(lambda result: result.readings.reason, "No reading")

    def lengths(self, stem: str) -> Mapping[str, object]:
        """Record the widths of the highest line or edge, or the first distance."""
        readings = self.readings
        fit_length, plain = None, None
        if stem == "fwhm" and readings.main is not None:
            fit_length, plain = readings.main.fwhm, readings.main.plain_fwhm
        elif stem == "distance" and readings.pairs:
            fit_length, plain = (
                readings.pairs[0].distance,
                readings.pairs[0].plain_distance,
            )
        elif stem == "edge_10_90" and readings.edge is not None:
            fit_length, plain = readings.edge.width, readings.edge.plain_width
        return _record_length(self.profile, stem, fit_length, plain)

    def figures(self) -> dict[str, Figure]:
        """Return the settings and readings of the curve."""
        profile = self.profile
        long = Figure(profile.length_px * profile.per_px, self.unit)
        wide = Figure(profile.lines, note="lines averaged")
        return {"Length": long, "Width": wide, **CurveFound.figures(self)}

    def to_json(self) -> dict[str, object]:
        """Return curve and readings as one record."""
        record: dict[str, object] = jsonable(
            {
                "image": self.image,
                **{name: value_of(self, name) for name in SIZES},
                **self.options.model_dump(),
                **self.lengths("fwhm"),
                **{name: value_of(self, name) for name in _RECORD_NAMES},
                "distance_nm": self.profile.distance_nm,
                "distance_px": self.profile.distance_px,
                "intensity": self.profile.intensity,
            }
        )
        return record


_RECORD_NAMES = (
    *("lines_averaged", "dark", "reason"),
    *("peaks_nm", "peaks_px", "lines", "pairs", "edge", "background", "noise"),
)


def _in_nm(profile: Profile, length: Estimate | None) -> Estimate | None:
    """Convert a length to nm, adding the error of the calibration."""
    k = profile.nm_per_px
    if length is None or k is None:
        return None
    sd = math.hypot(length.sd, length.value * profile.length_sd)
    read = k * length.low, k * length.high
    low, high = widen_interval(k * length.value, read, profile.length_sd)
    return Estimate(k * length.value, k * sd, low, high)


def _record_length(
    profile: Profile, name: str, fit_length: Estimate | None, plain: float | None
) -> dict[str, object]:
    """Record a length in nm and px, from its fit and from crossings."""
    in_nm = None
    if plain is not None and profile.calibrated:
        in_nm = plain * profile.per_px
    return {
        **_record_estimate(name, _in_nm(profile, fit_length), "_nm"),
        **_record_estimate(name, fit_length, "_px"),
        f"{name}_plain_nm": in_nm,
        f"{name}_plain_px": plain,
    }


def _record_estimate(
    name: str, estimate: Estimate | None, unit: str = ""
) -> dict[str, object]:
    """Record a number with its standard deviation and interval."""
    return {
        f"{name}{unit}": estimate and estimate.value,
        f"{name}_sd{unit}": estimate and estimate.sd,
        f"{name}_interval{unit}": estimate and [estimate.low, estimate.high],
    }


def _measure(run: Run[ProfileOptions], image: Micrograph) -> Job[ProfileReport]:
    settings, sized_image = run.options, calibrated_of(image, None)
    require_inside(sized_image, settings.line)
    profile = read_profile(sized_image, settings.line, width_px=settings.width)
    yield Progress(1, 2, "measuring")
    how = settings.model_dump(include={"polarity", "prominence", "pixel"})
    return ProfileReport(
        image=run.names[0],
        **size_of(sized_image),
        options=settings,
        profile=profile,
        readings=measure_profile(profile, **how),
    )


PROFILE = Verb(
    "profile",
    (ImageIn("image", "an image"),),
    ProfileOptions,
    ProfileReport,
    _measure,
    title="profile",
    makes_table=True,
    curves=(
        Curve(
            "Grey levels along the line",
            "distance_{unit}",
            "intensity",
            "distance ({unit})",
            "grey level",
        ),
    ),
    example="""
    >>> y, x = np.mgrid[:32, :64]
    >>> bright = np.exp(-4 * np.log(2) * ((x - 30) / 8) ** 2)
    >>> line = (16, 0, 16, 63)
    >>> found = semsr.profile(bright, line, pixel="point", pixel_size_nm=5).to_json()
    >>> round(found["fwhm_nm"], 1), round(found["peaks_nm"][0], 1)
    (40.0, 150.0)
    """,
)
