"""Map by how much two scans of one place differ, block by block."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from napari_semsr.analysis import (
    RepeatabilityOptions,
    RepeatField,
    RepeatTally,
    ScanPair,
    match_scans,
)
from napari_semsr.core import (
    Box,
    Float32Array,
    FloatPair,
    IntPair,
    Job,
    Look,
    Micrograph,
    Progress,
    field_range,
    warn,
)
from napari_semsr.io import ReadOptions
from napari_semsr.jobs.images import (
    Image,
    Result,
    check_image_target,
    computed,
    made_by,
    names_of,
    open_image,
    paths_of,
    record_input,
)
from napari_semsr.jobs.leakage import tell_learnt
from napari_semsr.jobs.maps import keep_map
from napari_semsr.jobs.measure.error_map import in_words
from napari_semsr.jobs.measure.offset import Both, Offset, find_offset

# Root mean squares of all differences at which the colours end; chosen: of all that is
# usual in the middle, and what noise does not explain stands out of its own scatter
_BRIGHTEST = {"all": 2.0, "rest": 1.0}
_LEAST_SHOWN = 0.9  # of the first scan: less is said; chosen, drift takes some per cent


@dataclass(frozen=True, slots=True)
class RepeatabilityReport(Result):
    """By how much two scans of one place differ.

    Attributes
    ----------
    images : tuple of str
        Names of both scans.
    output : str or None
        Path of the map, if it was written.
    sd, sd_percent : float
        Repeatability standard deviation, that of one scan: root mean square of the
        differences over √2, in grey levels of the first scan and per cent of `range`.
    noise, noise_percent : float
        Of that, by noise, which has no memory of the neighbouring pixel.
    rest, rest_percent : float
        Of that, by all else: drift, charging, contamination, distortion.
    noise_share : float or None
        Share of noise in the mean square.
    mean, mean_percent, p95, p95_percent : float
        Mean and 95th percentile of the map.
    gain, offset : float
        First = offset + gain · second, by equal means and standard deviations.
    correlation : float
        Pearson's r of both, over squares of 4 px.
    shift_px : tuple of float
        ``(y, x)`` by which the second scan was moved against the first.
    shift_error_px : float or None
        Standard error of what was looked for; None where none was found or asked for.
    range : tuple of float
        0.1th and 99.9th percentile of the first scan's grey levels.
    pixels : int
        Pixels that were compared: all that both scans know.
    part : str
        What is mapped: ``"all"`` or ``"rest"``.
    window : int
        Side of the map's windows, px.
    unit : str
        Of the map: ``"grey"`` or ``"percent"``.
    shape : tuple of int
        Rows and columns of the map.
    pixel_size_nm, pixel_size_sd_nm : tuple of float or None
        ``(y, x)`` of the scans, and its standard deviation; None when unknown.
    map : Micrograph or None
        Where it was not written.
    """

    images: tuple[str, ...]
    output: str | None
    sd: float
    sd_percent: float
    noise: float
    noise_percent: float
    rest: float
    rest_percent: float
    noise_share: float | None
    mean: float
    mean_percent: float
    p95: float
    p95_percent: float
    gain: float
    offset: float
    correlation: float
    shift_px: FloatPair
    shift_error_px: float | None
    range: FloatPair
    pixels: int
    part: str
    window: int
    unit: str
    shape: IntPair
    pixel_size_nm: FloatPair | None
    pixel_size_sd_nm: FloatPair | None
    map: Micrograph | None = field(default=None, metadata={"json": False})

    @property
    def moved(self) -> str:
        """How the second scan was moved, without signs.

        Returns
        -------
        str
            As ``0.42 px up, 1.10 px left``.
        """
        return in_words(self.shift_px)


def repeatability_job(
    first: Image,
    second: Image,
    output: str | os.PathLike[str] | None = None,
    *,
    options: RepeatabilityOptions | None = None,
    opening: ReadOptions | None = None,
    overwrite: bool = False,
) -> Job[RepeatabilityReport]:
    """Map by how much two scans of one place differ.

    Parameters
    ----------
    first, second : Micrograph or path
        Scans of one place, taken alike; neither counts as the truth.
    output : path, optional
        Where the map goes.
    options : RepeatabilityOptions, optional
        Part, window, unit, and whether a shift is looked for.
    opening : ReadOptions, optional
        How to read files.
    overwrite : bool, default=False
        Replace an existing output.

    Returns
    -------
    RepeatabilityReport
        The figures, and the map where it was not written.

    Yields
    ------
    Progress
        Searching, matching, blocks.
    """
    chosen = options or RepeatabilityOptions()
    yield Progress(0, 0, "reading")
    target = None
    if output is not None:
        taken = paths_of(first, second)
        target = check_image_target(output, inputs=taken, overwrite=overwrite)
    one, other = (open_image(image, opening) for image in (first, second))
    tell_learnt([(first, one), (second, other)], opening)
    pair, offset = ScanPair.of(one, other), Offset()
    if chosen.align:
        yield Progress(0, 0, "looking for a shift")
        offset = _offset(pair, chosen.search)
    moved = offset.moved or (0.0, 0.0)
    if offset.moved is not None:
        pair = ScanPair.of(one, other, moved)
    _tell_part(pair, one)
    match = yield from match_scans(pair)
    if match.correlation <= 0:
        warn(
            f"The grey levels of {other.name} run against those of {one.name} "
            f"(r {match.correlation:.2f}): they do not show one place, or one of them "
            "is inverted.",
        )
    yield Progress(0, 0, "measuring the range of grey levels")
    low, high = span = field_range(one.data)
    percent = 100 / (high - low) if high > low else float("nan")
    compared = RepeatField(pair, match, chosen.part, chosen.window)
    tally = RepeatTally(compared)
    factor = percent if chosen.unit == "percent" else 1.0
    records = []
    for image, opened, role in ((first, one, "first"), (second, other, "second")):
        records.append((yield from record_input(image, opened, opening, role=role)))
    reading = (opening or ReadOptions()).model_dump(mode="json")
    said = {**chosen.model_dump(mode="json"), "reading": reading}
    about = _about(compared, factor, chosen)
    about = about.replace(provenance=made_by("repeatability", said, *records))
    mapped = _Mapped(compared, tally, factor)
    made = yield from keep_map(mapped, about, target)
    sd, noise = tally.sd, tally.noise
    if sd == 0:
        warn(
            f"{one.name} and {other.name} are equal in every pixel: a copy is no "
            "second scan, and tells nothing of the microscope.",
        )
    return RepeatabilityReport(
        images=names_of(first, second),
        output=None if target is None else str(target),
        sd=sd,
        sd_percent=sd * percent,
        noise=noise,
        noise_percent=noise * percent,
        rest=tally.rest,
        rest_percent=tally.rest * percent,
        noise_share=min(1.0, noise**2 / sd**2) if sd > 0 else None,
        mean=tally.mean,
        mean_percent=tally.mean * percent,
        p95=tally.p95,
        p95_percent=tally.p95 * percent,
        gain=match.gain,
        offset=match.offset,
        correlation=match.correlation,
        shift_px=moved,
        shift_error_px=offset.error_px,
        range=span,
        pixels=tally.pixels,
        part=chosen.part,
        window=chosen.window,
        unit=chosen.unit,
        shape=pair.shape,
        pixel_size_nm=one.pixel_size_nm,
        pixel_size_sd_nm=one.pixel_size_sd_nm,
        map=made,
    )


def _offset(pair: ScanPair, search: int) -> Offset:
    """Find by how much the second scan is to be moved; say why it is not."""

    def read_both(box: Box) -> Both:
        return pair.read(box)

    found = find_offset(read_both, pair.shape, reach=search, nearest=True)
    if found.doubt:
        warn(f"The scans are compared as they lie. {found.doubt}")
    return found


def _tell_part(pair: ScanPair, first: Micrograph) -> None:
    """Say that both show a part of the first scan alone."""
    whole, shown = (rows * columns for rows, columns in (first.shape, pair.shape))
    if shown < _LEAST_SHOWN * whole:
        warn(f"Both scans show {shown / whole:.0%} of {first.name}, so the map does.")


def _about(
    compared: RepeatField, factor: float, options: RepeatabilityOptions
) -> Micrograph:
    """Give the map its place, its pixels and its look, by its middle."""
    first, grid = compared.pair.first.image, compared.pair.first.grid
    inner = Box.of(grid.shape)
    side = min(512, *grid.shape)
    corner = ((grid.shape[0] - side) // 2, (grid.shape[1] - side) // 2)
    count, power, *_ = compared.read(Box.of((side, side), corner)).sums
    usual = math.sqrt(power / max(count, 1.0))
    top = _BRIGHTEST[options.part] * factor * usual
    unit = "grey levels" if options.unit == "grey" else "% of the range"
    kind = "repeatability" if options.part == "all" else "repeatability without noise"
    return first.replace(
        data=np.broadcast_to(np.float32(0), grid.shape),
        name=f"{kind} of {first.name} ({unit})",
        origin=grid.centre(inner),
        metadata={},
        look=Look(
            limits=(0.0, top if top > 0 else 1.0), colormap="inferno", colour_bar=True
        ),
    )


@dataclass(frozen=True, slots=True)
class _Mapped:
    """Scans whose differences are counted while they are mapped."""

    field: RepeatField
    tally: RepeatTally
    factor: float  # from grey levels to the unit of the map

    @property
    def shape(self) -> IntPair:
        """Rows and columns of the map."""
        return self.field.pair.shape

    def blocks(self, boxes: list[Box]) -> Iterator[Float32Array]:
        """Map parts, several at a time, and count their pixels in their order."""
        for part in computed(self.field.read, boxes):
            self.tally.add(part)
            yield part.values * np.float32(self.factor)
