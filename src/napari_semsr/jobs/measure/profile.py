"""Command `profile`: profile along a line, with line widths, edge and pairs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import numpy as np

from napari_semsr import analysis, core
from napari_semsr.jobs import images, verb

_SEVERAL = 2  # fewest lines that are listed in a table
_PLUS_MINUS = "\N{PLUS-MINUS SIGN}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeasuredCurve(images.PixelSizeResult):
    """Profile along a line, with its measurements."""

    profile: analysis.Profile
    readings: analysis.ProfileReadings = field(metadata=core.FLAT)

    @property
    def unit(self) -> str:
        """Unit of the position axis."""
        return "nm" if self.profile.is_calibrated else "px"

    def convert_to_axis_unit(self, length: analysis.Estimate) -> analysis.Estimate:
        """Convert a length to the axis unit, including the calibration error."""
        length_nm = _convert_to_nm(self.profile, length)
        if length_nm is not None:
            return length_nm
        parts = (length.value, length.sd, length.low, length.high)
        return analysis.Estimate(*(self.profile.per_px * part for part in parts))

    def figures(self) -> dict[str, core.Figure]:
        """Return the measurements by name; medians if there are several lines."""
        readings, rows = self.readings, dict[str, core.Figure]()
        if readings.reason is not None:
            rows["No reading"] = core.Figure(readings.reason)
        kind = "Dark line" if readings.dark else "Line"
        if readings.edge is not None:
            edge = readings.edge
            rows["Edge, 10 to 90 %"] = self._format_length(edge.width, edge.plain_width)
            rows["Edge at"] = self._format_length(edge.place, None)
        if len(readings.lines) == 1:
            (line,) = readings.lines
            rows[f"{kind}, FWHM"] = self._format_length(line.fwhm, line.plain_fwhm)
            rows[f"{kind} at"] = self._format_length(line.place, line.plain_place)
        elif readings.lines:
            rows[f"{kind}s"] = core.Figure(len(readings.lines))
            widths = [line.fwhm.value for line in readings.lines if line.fwhm]
            rows |= self._format_median("FWHM, median", widths)
            apart = [pair.distance.value for pair in readings.pairs if pair.distance]
            rows |= self._format_median("Distance, median", apart)
            reasons = [pair.reason for pair in readings.pairs if pair.reason]
            if reasons:
                note = f"({len(reasons)} of {len(readings.pairs)} pairs)"
                rows["Dip undecided"] = core.Figure(reasons[0], note=note)
        rows["Pixel size"] = core.Figure(self.pixel_size)
        return rows

    def _format_length(
        self, fit_length: analysis.Estimate | None, plain: float | None
    ) -> core.Figure:
        """Format a fitted length with its interval, and the value from crossings."""
        k = self.profile.per_px
        crossing = "" if plain is None else f"plain {plain * k:.4g}"
        if fit_length is None:
            missing = "not determined by a fit"
            return core.Figure(f"{crossing} {self.unit}, " * bool(crossing) + missing)
        length = self.convert_to_axis_unit(fit_length)
        ends = f"95 %: {length.low:.4g} to {length.high:.4g}"
        note = f"({ends}{', ' * bool(crossing)}{crossing})"
        return core.Figure(length.value, self.unit, note=note, sd=length.sd)

    def _format_median(
        self, name: str, values: Sequence[float]
    ) -> dict[str, core.Figure]:
        if not values:
            return {}
        middle, *ends = self.profile.per_px * np.quantile(values, (0.5, 0, 1))
        low, high = map(core.format_number, ends)
        note = f"(of {len(values)}, {low} to {high})" if len(values) > 1 else "(of 1)"
        return {name: core.Figure(float(middle), self.unit, note=note)}

    def tables(self) -> dict[str, Mapping[str, Sequence[float | str | None]]]:
        """Return tables of lines and pairs, if there are several lines."""
        readings = self.readings
        if len(readings.lines) < _SEVERAL:
            return {}
        lines, k, unit = readings.lines, self.profile.per_px, self.unit
        fits = [line.fwhm and self.convert_to_axis_unit(line.fwhm) for line in lines]
        plain = [line.plain_fwhm for line in lines]
        tables: dict[str, Mapping[str, Sequence[float | str | None]]] = {}
        tables["Dark lines" if readings.dark else "Lines"] = {
            "line": range(1, len(lines) + 1),
            f"at ({unit})": [k * line.position for line in lines],
            f"FWHM ({unit})": [one.value if one else None for one in fits],
            f"{_PLUS_MINUS} ({unit})": [one.sd if one else None for one in fits],
            f"plain ({unit})": [None if one is None else k * one for one in plain],
            f"95 % from ({unit})": [one.low if one else None for one in fits],
            f"95 % to ({unit})": [one.high if one else None for one in fits],
        }
        if not readings.pairs:
            return tables
        pairs = readings.pairs
        apart = [
            pair.distance and self.convert_to_axis_unit(pair.distance) for pair in pairs
        ]
        dips = [pair.dip for pair in pairs]
        tables["Neighbours"] = {
            "lines": [f"{pair.first + 1}, {pair.first + 2}" for pair in pairs],
            f"apart ({unit})": [one.value if one else None for one in apart],
            "dip (%)": [100 * one.value if one else None for one in dips],
            f"Rayleigh {100 * analysis.RAYLEIGH_DIP:.3g} %": [
                pair.rayleigh for pair in pairs
            ],
            f"{_PLUS_MINUS} ({unit})": [one.sd if one else None for one in apart],
            f"{_PLUS_MINUS} (%)": [100 * one.sd if one else None for one in dips],
            "Sparrow": [pair.sparrow for pair in pairs],
            "plain dip (%)": [100 * pair.plain_dip for pair in pairs],
        }
        return tables


# record keys of each line, of two neighbours, and of an edge
_OF_LINE = {
    "model": core.Quantity("Model"),
    "height": core.Quantity("Height", core.LEVELS),
    **core.declare_length("place", "At"),
    **core.declare_length("fwhm", "FWHM"),
    **core.declare_length("fwhm_plain", "FWHM, plain"),
}
_OF_PAIR = {
    **core.declare_length("distance", "Apart"),
    **core.declare_length("distance_plain", "Apart, plain"),
    "dip": core.Quantity("Dip", form=".3g", sd="dip_sd"),
    "dip_plain": core.Quantity("Dip, plain", form=".3g"),
    "rayleigh": core.Quantity("Rayleigh"),
    "sparrow": core.Quantity("Sparrow"),
    "reason": core.Quantity("Why no dip"),
}
_OF_EDGE = {
    "step": core.Quantity("Step", core.LEVELS),
    **core.declare_length("place", "at"),
    **core.declare_length("width_10_90", "10 to 90 %"),
    **core.declare_length("width_10_90_plain", "10 to 90 %, plain"),
}


_LENGTHS = {"fwhm": "FWHM", "distance": "Distance", "edge_10_90": "Edge, 10 to 90 %"}
_PARTS = {"sd": "Its s.d.", "interval": "Its interval", "plain": "FWHM, plain"}


def _create_columns(stem: str, part: str = "") -> tuple[property, property]:
    """Create properties for two columns: a length, or a part of it, in nm and in px."""
    name = "_".join(filter(None, (stem, part)))
    errors = {item: f"{stem}_{item}_{{unit}}" for item in ("sd", "interval")}
    return core.create_length_properties(
        lambda result, unit: result.lengths(stem)[f"{name}_{unit}"],
        *(name, _PARTS[part] if part else _LENGTHS[stem]),
        shown=False,
        tabled=part != "interval",
        **({} if part else errors),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProfileReport(MeasuredCurve):
    """Profile of an image along a line: the curve and its measurements.

    In the record ``fwhm_`` is that of the highest line, and lengths are in nm and in px
    along the line.
    """

    image: str
    options: analysis.ProfileOptions

    fwhm_nm, fwhm_px = _create_columns("fwhm")
    fwhm_sd_nm, fwhm_sd_px = _create_columns("fwhm", "sd")
    fwhm_interval_nm, fwhm_interval_px = _create_columns("fwhm", "interval")
    fwhm_plain_nm, fwhm_plain_px = _create_columns("fwhm", "plain")
    distance_nm, distance_px = _create_columns("distance")
    distance_sd_nm, distance_sd_px = _create_columns("distance", "sd")
    distance_interval_nm, distance_interval_px = _create_columns("distance", "interval")
    edge_10_90_nm, edge_10_90_px = _create_columns("edge_10_90")
    edge_10_90_sd_nm, edge_10_90_sd_px = _create_columns("edge_10_90", "sd")
    edge_10_90_interval_nm, edge_10_90_interval_px = _create_columns(
        "edge_10_90", "interval"
    )

    @property
    def lines_averaged(
        self,
    ) -> Annotated[int, core.Quantity("Lines averaged", shown=False, tabled=False)]:
        """Parallel lines whose mean was measured."""
        return self.profile.lines

    @property
    def line(self) -> Annotated[tuple[float, ...], core.declare_quantity("Line", "px")]:
        """End points of the line, ``y0, x0, y1, x1``."""
        return self.options.line

    @property
    def peaks_px(self) -> Annotated[list[float], core.declare_quantity("Peaks", "px")]:
        """Positions of lines in px."""
        return [line.position for line in self.readings.lines]

    @property
    def peaks_nm(
        self,
    ) -> Annotated[
        list[float] | None, core.declare_quantity("Peaks", "nm", also="peaks_px")
    ]:
        """Positions of lines in nm."""
        k = self.profile.nm_per_px
        return None if k is None else [place * k for place in self.peaks_px]

    @property
    def lines(
        self,
    ) -> Annotated[
        list[dict[str, object]], core.declare_quantity("Lines", keys=_OF_LINE)
    ]:
        """Measurements of each line."""
        length = partial(_create_length_record, self.profile)
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
    ) -> Annotated[
        list[dict[str, object]], core.declare_quantity("Neighbours", keys=_OF_PAIR)
    ]:
        """Measurements of each pair of neighbouring lines."""
        length = partial(_create_length_record, self.profile)
        return [
            {
                "lines": [pair.first, pair.first + 1],
                **length("distance", pair.distance, pair.plain_distance),
                **_create_estimate_record("dip", pair.dip),
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
    ) -> Annotated[
        dict[str, object] | None, core.declare_quantity("Edge", keys=_OF_EDGE)
    ]:
        """Measurements of the edge, if there is one."""
        edge, length = self.readings.edge, partial(_create_length_record, self.profile)
        if edge is None:
            return None
        return {
            "step": edge.step,
            **length("place", edge.place, None),
            **length("width_10_90", edge.width, edge.plain_width),
        }

    @property
    def height(self) -> Annotated[float | None, core.Quantity("Height", core.LEVELS)]:
        """Height of the highest line."""
        line = self.readings.highest_line
        return None if line is None else line.height

    @property
    def dip(self) -> Annotated[float | None, core.Quantity("Dip")]:
        """Dip between the first two lines, as a fraction of the lower one."""
        dips = [pair.dip for pair in self.readings.pairs]
        return dips[0].value if dips and dips[0] else None

    # why there is neither line nor edge
    @property
    def reason(self) -> Annotated[str | None, core.Quantity("No reading")]:
        """Reason why nothing was read."""
        return self.readings.reason

    def lengths(self, stem: str) -> Mapping[str, object]:
        """Return a length record: main line width, edge width, or first distance."""
        readings = self.readings
        fit_length, plain = None, None
        if stem == "fwhm" and readings.highest_line is not None:
            fit_length = readings.highest_line.fwhm
            plain = readings.highest_line.plain_fwhm
        elif stem == "distance" and readings.pairs:
            fit_length = readings.pairs[0].distance
            plain = readings.pairs[0].plain_distance
        elif stem == "edge_10_90" and readings.edge is not None:
            fit_length, plain = readings.edge.width, readings.edge.plain_width
        return _create_length_record(self.profile, stem, fit_length, plain)

    def figures(self) -> dict[str, core.Figure]:
        """Return the settings and measurements of the curve."""
        profile = self.profile
        long = core.Figure(profile.length_px * profile.per_px, self.unit)
        wide = core.Figure(profile.lines, note="lines averaged")
        return {"Length": long, "Width": wide, **MeasuredCurve.figures(self)}

    def to_json(self) -> dict[str, object]:
        """Return the curve and its measurements as one record."""
        record: dict[str, object] = images.to_json_value(
            {
                "image": self.image,
                **{name: core.get_value(self, name) for name in images.SIZES},
                **self.options.model_dump(),
                **self.lengths("fwhm"),
                **{name: core.get_value(self, name) for name in _RECORD_NAMES},
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


def _convert_to_nm(
    profile: analysis.Profile, length: analysis.Estimate | None
) -> analysis.Estimate | None:
    """Convert a length to nm, including the calibration error."""
    k = profile.nm_per_px
    if length is None or k is None:
        return None
    sd = math.hypot(length.sd, length.value * profile.length_sd)
    read = k * length.low, k * length.high
    low, high = core.widen_interval(k * length.value, read, profile.length_sd)
    return analysis.Estimate(k * length.value, k * sd, low, high)


def _create_length_record(
    profile: analysis.Profile,
    name: str,
    fit_length: analysis.Estimate | None,
    plain: float | None,
) -> dict[str, object]:
    """Create the record of a length in nm and px, fitted and from crossings."""
    in_nm = None
    if plain is not None and profile.is_calibrated:
        in_nm = plain * profile.per_px
    return {
        **_create_estimate_record(name, _convert_to_nm(profile, fit_length), "_nm"),
        **_create_estimate_record(name, fit_length, "_px"),
        f"{name}_plain_nm": in_nm,
        f"{name}_plain_px": plain,
    }


def _create_estimate_record(
    name: str, estimate: analysis.Estimate | None, unit: str = ""
) -> dict[str, object]:
    """Create the record of an estimate with standard deviation and interval."""
    return {
        f"{name}{unit}": estimate and estimate.value,
        f"{name}_sd{unit}": estimate and estimate.sd,
        f"{name}_interval{unit}": estimate and [estimate.low, estimate.high],
    }


@verb.command(
    title="profile",
    makes_table=True,
    curves=(
        core.CurveDeclaration(
            "Grey levels along the line",
            "distance_{unit}",
            "intensity",
            "distance ({unit})",
            "grey level",
        ),
    ),
)
def profile(
    run: verb.Run[analysis.ProfileOptions],
    image: Annotated[core.Micrograph, verb.ImageInput(help="an image")],
    *,
    options: analysis.ProfileOptions,
) -> core.Job[ProfileReport]:
    """Measure line widths, edges and distances along a line.

    Examples
    --------
    >>> y, x = np.mgrid[:32, :64]
    >>> bright = np.exp(-4 * np.log(2) * ((x - 30) / 8) ** 2)
    >>> line = (16, 0, 16, 63)
    >>> found = semsr.profile(bright, line, pixel="point", pixel_size_nm=5).to_json()
    >>> round(found["fwhm_nm"], 1), round(found["peaks_nm"][0], 1)
    (40.0, 150.0)
    """
    sized_image = images.get_calibrated_image(image, None)
    analysis.check_line_bounds(sized_image, options.line)
    profile = analysis.read_profile(sized_image, options.line, width_px=options.width)
    yield core.Progress(1, 2, "measuring")
    how = options.model_dump(include={"polarity", "prominence", "pixel"})
    return ProfileReport(
        image=run.image_names[0],
        **verb.get_pixel_size_fields(sized_image),
        options=options,
        profile=profile,
        readings=analysis.measure_profile(profile, **how),
    )
