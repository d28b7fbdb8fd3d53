"""Map the differences between two scans of one area, block by block."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from napari_semsr.analysis import (
    ErrorMapOptions,
    RepeatabilitySums,
    ScanComparison,
    ScanPair,
    match_grey_levels,
)
from napari_semsr.core import (
    LEVELS,
    Box,
    Float32Array,
    FloatPair,
    Job,
    Micrograph,
    Progress,
    Quantity,
    create_property,
    declare_quantity,
    format_shift,
    get_central_box,
    map_parallel,
    warn,
)
from napari_semsr.jobs.measure.offset import (
    PERCENT,
    MapScale,
    Offset,
    find_offset_or_warn,
)
from napari_semsr.jobs.verb import MapResult, Run

# Root mean squares of all differences for the brightest colour; chosen: usual values
# are mid-range, and what noise does not explain stands out
_BRIGHTEST = {"all": 2.0, "rest": 1.0}
_MOSTLY = 0.5
SCANS = "scans"  # key of the part of an error map in its history
_MIN_SHOWN = 0.9  # of the first scan, else warn; chosen: drift costs some %


@dataclass(frozen=True, slots=True)
class RepeatabilityReport(MapResult):
    """Differences between two scans of one area, in grey levels of the first.

    `sd` is that of one scan, the root mean square of the differences over √2. Of that,
    `noise` is uncorrelated between neighbouring pixels, and `rest` is drift, charging,
    contamination, distortion. First = `offset` + `gain` · second; `correlation` is
    Pearson's r over squares of 4 px, `range` the 0.1th and 99.9th percentile.
    """

    sd: Annotated[
        float,
        Quantity(
            *("Repeatability s.d.", LEVELS),
            also="sd_percent",
            verdict="verdict",
            large=True,
        ),
    ]
    sd_percent: Annotated[float, Quantity("The same", PERCENT, ".3g")]
    noise: Annotated[float, Quantity("Of which noise", LEVELS, also="noise_percent")]
    noise_percent: Annotated[float, Quantity("The same", PERCENT, ".3g")]
    rest: Annotated[float, Quantity("Of which the rest", LEVELS, also="rest_percent")]
    rest_percent: Annotated[float, Quantity("The same", PERCENT, ".3g")]
    noise_share: Annotated[float | None, Quantity("Noise's share", form=".1%")]
    mean: Annotated[float, Quantity("Map, mean", LEVELS, also="mean_percent")]
    mean_percent: Annotated[float, Quantity("The same", PERCENT, ".3g")]
    p95: Annotated[float, Quantity("Map, 95th percentile", LEVELS, also="p95_percent")]
    p95_percent: Annotated[float, Quantity("The same", PERCENT, ".3g")]
    gain: Annotated[float, Quantity("Gain")]
    offset: Annotated[float, Quantity("Offset", LEVELS)]
    correlation: Annotated[float, Quantity("Correlation", form=".4f")]
    shift_px: Annotated[FloatPair, Quantity("Shift", "px", shown=False)]
    shift_error_px: Annotated[float | None, Quantity("Its error", "px", shown=False)]
    range: Annotated[FloatPair, declare_quantity("Range", LEVELS)]
    pixels: Annotated[int, Quantity("Pixels", shown=False)]
    part: str
    window: int

    @property
    def verdict(self) -> str:
        """Assessment of the standard deviation."""
        share = self.noise_share
        if share is None:
            return ""
        if share >= _MOSTLY:
            return "mostly noise: averaging more scans reduces it"
        return "mostly not noise: drift, charging or focus changed between the scans"

    shift_text = create_property(
        lambda result: format_shift(result.shift_px), "Moved by", tabled=False
    )


def compare_scans(
    run: Run[ErrorMapOptions], one: Micrograph, other: Micrograph
) -> Job[RepeatabilityReport]:
    """Map the differences between two scans of one area; neither is ground truth."""
    settings = run.options
    pair, offset = ScanPair.from_images(one, other), Offset()
    if settings.align:
        yield Progress(0, 0, "looking for a shift")
        offset = find_offset_or_warn(
            "scans", pair.read, pair.shape, settings.search_radius_px
        )
    shift = offset.shift or (0.0, 0.0)
    pair = ScanPair.from_images(one, other, shift)
    whole, shared_pixels = (rows * columns for rows, columns in (one.shape, pair.shape))
    if shared_pixels < _MIN_SHOWN * whole:
        warn(
            f"The scans overlap in {100 * shared_pixels / whole:.0f} % of {one.name}; "
            "the map is limited to this overlap.",
            "partly-covered",
        )
    match = yield from match_grey_levels(pair)
    if match.correlation <= 0:
        warn(
            f"The grey levels of {other.name} are inverted relative to {one.name} (r "
            f"= {match.correlation:.2f}): they show different areas, or one of them "
            "is inverted.",
            "contrast-inverted",
        )
    yield Progress(0, 0, "measuring the range of grey levels")
    scale = MapScale.from_image(one, settings.unit)
    repeat_field = ScanComparison(pair, match, settings.part, settings.window)
    tally = RepeatabilitySums(repeat_field)

    def compute_blocks(boxes: list[Box]) -> Iterator[Float32Array]:
        for part in map_parallel(repeat_field.compare, boxes):
            tally.add(part)  # in order
            yield part.values * np.float32(scale.factor)

    kind = "repeatability" if settings.part == "all" else "repeatability without noise"
    count, power, *_ = repeat_field.compare(
        get_central_box(pair.shape, min(512, *pair.shape))
    ).sums
    top = _BRIGHTEST[settings.part] * math.sqrt(power / max(count, 1.0))
    about = scale.create_metadata(f"{kind} of {one.name}", one, pair.first.grid, top)
    scan_map = yield from run.write_map(compute_blocks, about, part=SCANS)
    if tally.sd == 0:
        warn(
            f"{one.name} and {other.name} are identical: use an "
            "independent second scan, not a copy.",
            "same-image",
        )
    names = ("sd", "noise", "rest", "mean", "p95")
    figures = {name: getattr(tally, name) for name in names}
    return RepeatabilityReport(
        **run.get_result_fields(one),
        output=run.output,
        **figures,
        **{f"{name}_percent": grey * scale.percent for name, grey in figures.items()},
        noise_share=min(1.0, tally.noise**2 / tally.sd**2) if tally.sd > 0 else None,
        gain=match.gain,
        offset=match.offset,
        correlation=match.correlation,
        shift_px=shift,
        shift_error_px=offset.error_px,
        range=scale.span,
        pixels=tally.pixel_count,
        part=settings.part,
        window=settings.window,
        unit=settings.unit,
        shape=pair.shape,
        map=scan_map,
    )
