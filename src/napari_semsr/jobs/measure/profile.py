"""The measuring job of a line: its profile, widths, edge and pairs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from napari_semsr.analysis import (
    Estimate,
    Profile,
    ProfileOptions,
    Readings,
    measure_profile,
    read_profile,
    require_inside,
)
from napari_semsr.core import FloatPair, Job, Progress, widened
from napari_semsr.io import ReadOptions
from napari_semsr.jobs.images import (
    Image,
    Result,
    calibrated_of,
    jsonable,
    name_of,
    open_image,
    pixel_size_record,
)


@dataclass(frozen=True, slots=True)
class ProfileReport(Result):
    """Profile of an image along a line.

    Attributes
    ----------
    image : str
        Name of the image.
    pixel_size_nm, pixel_size_sd_nm : tuple of float or None
        ``(y, x)``, and standard deviation where a calibration told it; None when
        unknown.
    options : ProfileOptions
        Line, band, and what was looked for.
    profile : Profile
        The curve.
    readings : Readings
        Lines, pairs and edge.
    """

    image: str
    pixel_size_nm: FloatPair | None
    pixel_size_sd_nm: FloatPair | None
    options: ProfileOptions
    profile: Profile
    readings: Readings

    def to_json(self) -> dict[str, Any]:
        """Give curve and readings as one record.

        Returns
        -------
        dict
            Lengths in nm, which are None without calibration, and in px along the
            line; ``fwhm_`` is that of the highest line.
        """
        found, main = self.readings, self.readings.main
        widths = _widths(
            self.profile,
            "fwhm",
            None if main is None else main.fwhm,
            None if main is None else main.plain_fwhm,
        )
        places = [line.place.value for line in found.lines]
        return {
            "image": self.image,
            **pixel_size_record(self.pixel_size_nm, self.pixel_size_sd_nm),
            **jsonable(self.options),
            "lines_averaged": self.profile.lines,
            "dark": found.dark,
            "reason": found.reason,
            **widths,
            "peaks_nm": jsonable([in_nm(self.profile, one) for one in places])
            if self.profile.nm_per_px
            else None,
            "peaks_px": jsonable(places),
            "lines": [self._line(number) for number in range(len(found.lines))],
            "pairs": [self._pair(number) for number in range(len(found.pairs))],
            "edge": self._edge(),
            "background": jsonable(found.background),
            "noise": jsonable(found.noise),
            "distance_nm": jsonable(self.profile.distance_nm),
            "distance_px": jsonable(self.profile.distance_px),
            "intensity": jsonable(self.profile.intensity),
        }

    def _line(self, number: int) -> dict[str, Any]:
        line = self.readings.lines[number]
        return {
            "model": line.model,
            "height": jsonable(line.height),
            **_widths(self.profile, "place", line.place, line.plain_place),
            **_widths(self.profile, "fwhm", line.fwhm, line.plain_fwhm),
        }

    def _pair(self, number: int) -> dict[str, Any]:
        pair = self.readings.pairs[number]
        dip = pair.dip
        return {
            "lines": [pair.first, pair.first + 1],
            **_widths(self.profile, "distance", pair.distance, pair.plain_distance),
            "dip": None if dip is None else jsonable(dip.value),
            "dip_sd": None if dip is None else jsonable(dip.sd),
            "dip_interval": None if dip is None else jsonable([dip.low, dip.high]),
            "dip_plain": jsonable(pair.plain_dip),
            "rayleigh": pair.rayleigh,
            "sparrow": pair.sparrow,
        }

    def _edge(self) -> dict[str, Any] | None:
        edge = self.readings.edge
        if edge is None:
            return None
        return {
            "step": jsonable(edge.step),
            **_widths(self.profile, "place", edge.place, None),
            **_widths(self.profile, "width_10_90", edge.width, edge.plain_width),
        }


def in_nm(profile: Profile, length_px: float | None) -> float | None:
    """Turn a length along a line into nm.

    Parameters
    ----------
    profile : Profile
        Of that line.
    length_px : float or None
        In px along the line.

    Returns
    -------
    float or None
        None without a length or a pixel size.
    """
    k = profile.nm_per_px
    return None if length_px is None or k is None else length_px * k


def length_in_nm(profile: Profile, length: Estimate | None) -> Estimate | None:
    """Turn a length into nm, with the error of the calibration in its own.

    Parameters
    ----------
    profile : Profile
        Of the line that it was read on.
    length : Estimate or None
        In px along the line.

    Returns
    -------
    Estimate or None
        None without a length or a pixel size.
    """
    k = profile.nm_per_px
    if length is None or k is None:
        return None
    sd = math.hypot(length.sd, length.value * profile.length_sd)
    read = k * length.low, k * length.high
    low, high = widened(k * length.value, read, profile.length_sd)
    return Estimate(k * length.value, k * sd, low, high)


def _widths(
    profile: Profile, name: str, fitted: Estimate | None, plain: float | None
) -> Mapping[str, Any]:
    """Record a length in nm and px, by its fit and plainly."""
    record: dict[str, Any] = {}
    for unit, one in (("nm", length_in_nm(profile, fitted)), ("px", fitted)):
        record[f"{name}_{unit}"] = None if one is None else jsonable(one.value)
        record[f"{name}_sd_{unit}"] = None if one is None else jsonable(one.sd)
        record[f"{name}_interval_{unit}"] = (
            None if one is None else jsonable([one.low, one.high])
        )
    record[f"{name}_plain_nm"] = jsonable(in_nm(profile, plain))
    record[f"{name}_plain_px"] = jsonable(plain)
    return record


def profile_job(
    image: Image,
    *,
    options: ProfileOptions,
    opening: ReadOptions | None = None,
) -> Job[ProfileReport]:
    """Measure along a line.

    Parameters
    ----------
    image : Micrograph or path
        An image; only what lies under the line is read of a lazy one.
    options : ProfileOptions
        Line, band, and what is looked for.
    opening : ReadOptions, optional
        How to read a file.

    Returns
    -------
    ProfileReport
        Curve, lines, pairs and edge.

    Yields
    ------
    Progress
        Reading, measuring.

    Raises
    ------
    OptionError
        If the line leaves the image or has no length.
    ReadError
        If the image is constant along it.
    ShapeError
        If no grey value lies under it.
    """
    yield Progress(0, 2, "reading")
    opened = open_image(image, opening)
    sized = calibrated_of(opened, None)
    require_inside(sized, options.line)
    profile = read_profile(sized, options.line, width_px=options.width)
    yield Progress(1, 2, "measuring")
    readings = measure_profile(
        profile,
        polarity=options.polarity,
        prominence=options.prominence,
        pixel=options.pixel,
    )
    yield Progress(2, 2, "done")
    return ProfileReport(
        name_of(image),
        sized.pixel_size_nm,
        sized.pixel_size_sd_nm,
        options,
        profile,
        readings,
    )
