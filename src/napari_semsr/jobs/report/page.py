"""Pictures and tables of the page that ``semsr report`` writes.

What the page says of them stands in ``report.html``, which lies beside this module.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_semsr.core import (
    Job,
    Micrograph,
    Progress,
    Provenance,
    parse_pixel_size,
)
from napari_semsr.jobs.figure import FigureOptions, plate_image
from napari_semsr.jobs.images import jsonable
from napari_semsr.jobs.report.numbers import Measured, Number
from napari_semsr.jobs.report.records import curves_of
from napari_semsr.reporting import (
    NO_VALUE,
    POWER,
    TIMES,
    FrequencyCurve,
    PlateImage,
    bar_lengths,
    bar_words,
    curves_png,
    draw_plate,
    lines_png,
    making,
    write_page,
    written,
)

if TYPE_CHECKING:
    from napari_semsr.jobs.report.job import (
        Picture,
        ReportMade,
        ReportOptions,
        ReportParts,
    )

_WHOLE = FigureOptions(width_mm=100, dpi=195)  # chosen: text is 7 points high here
_SHEET_MM = 200.0  # chosen: of A4, with title and margins
_STRIP_MM = 3.0  # chosen: width of what is one pixel wide
_SMALL = FigureOptions(width_mm=62, dpi=140)  # chosen: three in a row
_PLOT = (560, 340)  # px; chosen: two in a row
_COLUMNS = 4  # images in a table; chosen: what fits on a sheet
_LARGEST = 1e300  # of a plot; chosen: any true one
_CURVES = 5  # in a plot: so many colours there are


def write_report(
    path: Path,
    result: "ReportMade",
    options: "ReportOptions",
    parts: "ReportParts",
    made: Provenance,
) -> Job[None]:
    """Draw pictures and plots, and write the page."""
    pictures, pairs = parts.pictures, parts.pairs
    total = len(pictures) + len(pairs) + 1
    shown: list[tuple[Any, ...]] = []
    plates: list[PlateImage] = []
    for number, item in enumerate(pictures):
        yield Progress(number, total, f"drawing {item.label}")
        plate = yield from plate_image(item.image, item.image, _WHOLE, 1)
        drawn = list(_plots_of(item.measured, item.image, [item.label]))
        png, told = _drawn(plate, _WHOLE), _told(plate)
        shown.append((item, png, told, list(_facts(item)), drawn))
        small = yield from plate_image(item.image, item.image, _SMALL, 1)
        plates.append(small)
    compared = []
    for number, pair in enumerate(pairs):
        yield Progress(len(pictures) + number, total, f"drawing {pair.label}")
        errors = None
        if pair.map is not None:
            plate = yield from plate_image(pair.map, pair.map, _WHOLE, 1)
            errors = _drawn(plate, _WHOLE)
        names = [pair.compared.label, pair.reference.label]
        drawn = list(_plots_of(pair.measured, pair.reference.image, names))
        compared.append((pair, errors, drawn))
    yield Progress(total - 1, total, "writing the page")
    groups = [{number} for number in range(len(plates))]
    if options.greys == "common":
        groups = _alike(plates)
    write_page(
        path,
        Path(__file__).with_name("report.html"),
        title=options.title,
        result=result,
        lede=_lede(parts),
        images=shown,
        pairs=compared,
        records=[
            (item, list(_plots(item.verb, item.content))) for item in parts.records
        ],
        found=parts.found,
        small=_gallery(pictures, plates, groups) if len(pictures) > 1 else [],
        greys=_greys(pictures, groups),
        tables=list(_tables(pictures)),
        curves=_together(pictures),
        provenance=making(made.options),
        when=made.created.replace("T", " ").removesuffix("+00:00") + " UTC",
        numbers=Path(result.numbers).name,
    )


def _lede(parts: "ReportParts") -> str:
    """Say in a line what the page is on."""
    counts = (
        (parts.pictures, "image", "images"),
        (parts.pairs, "pair", "pairs"),
        (parts.records, "file of measurements", "files of measurements"),
        (parts.found, "result of a panel", "results of a panel"),
    )
    told = [f"{len(n)} {one if len(n) == 1 else many}" for n, one, many in counts if n]
    return ", ".join(told) + "."


# Pictures.


def _drawn(plate: PlateImage, options: FigureOptions) -> bytes:
    """Draw an image with its bar, narrower where it would not go on a sheet."""
    high, wide = plate.size
    fitting = max(_SHEET_MM * wide / high, _STRIP_MM)
    width = min(options.width_mm, fitting)
    size: Any = {"width_mm": width, "dpi": options.dpi}
    return draw_plate([plate], kind="png", **size).data


def _told(plate: PlateImage) -> str:
    """Say the length of a bar, and what is shown black and white."""
    low, high = map(written, plate.limits)
    words = bar_words(*bar_lengths([plate]), calibrated=plate.calibrated)
    return f"Bar {words}; shown from {low} to {high}."


def _alike(plates: Sequence[PlateImage]) -> list[set[int]]:
    """Put images together whose middle grey levels lie in each other's contrast."""

    def fits(one: PlateImage, other: PlateImage) -> bool:
        if one.unit is not None or other.unit is not None:
            return False
        middle = float(np.nanmedian(one.values))
        return other.limits[0] < middle < other.limits[1]

    groups: list[set[int]] = []
    for number, plate in enumerate(plates):
        for group in groups:
            members = [plates[i] for i in group]
            if all(fits(plate, m) and fits(m, plate) for m in members):
                group.add(number)
                break
        else:
            groups.append({number})
    return groups


def _gallery(
    pictures: "Sequence[Picture]",
    plates: Sequence[PlateImage],
    groups: Sequence[set[int]],
) -> list[tuple[str, bytes]]:
    """Draw all images small, those that are alike in one grey scale."""
    drawn = []
    for number, (item, plate) in enumerate(zip(pictures, plates, strict=True)):
        group = [plates[i] for i in next(g for g in groups if number in g)]
        low = min(one.limits[0] for one in group)
        high = max(one.limits[1] for one in group)
        drawn.append((item.label, _drawn(replace(plate, limits=(low, high)), _SMALL)))
    return drawn


def _greys(pictures: "Sequence[Picture]", groups: Sequence[set[int]]) -> str:
    """Say which images have one grey scale."""
    many = [group for group in groups if len(group) > 1]
    if not many:
        return "Each image has its own grey scale."
    if len(many) == len(groups) == 1:
        return "All images have one grey scale."
    told = [", ".join(pictures[i].label for i in sorted(group)) for group in many]
    return f"One grey scale each: {'; '.join(told)}. Others have their own."


# What is told of an image, a pair, a file.


def _facts(item: "Picture") -> Iterator[tuple[str, object]]:
    """Say what is known of an image, and of the exposure."""
    image = item.image
    yield "Size", _size(item)
    yield "Pixel size", _pixel(image)
    yield "Calibration", item.size_from
    wide = image.pixel_size_nm
    if wide is not None:
        y, x = (n * p / 1000 for n, p in zip(image.shape, wide, strict=True))
        yield "Field", f"{written(y)} {TIMES} {written(x)} µm"
    if item.path is not None:
        yield "File", Path(item.path).name
    yield "Digest", item.record.digest
    for name, digest in item.networks:
        yield f"Network {name}", digest
    yield from _instrument(image.metadata)


_INSTRUMENT = (
    ("Voltage", "EBeam.HV", 1e-3, "kV"),
    ("Voltage", "AP_ACTUALKV", None, ""),
    ("Working distance", "EBeam.WD", 1e3, "mm"),
    ("Working distance", "AP_WD", None, ""),
    ("Magnification", "AP_MAG", None, ""),
    ("Detector", "DP_DETECTOR_TYPE", None, ""),
    ("Dwell time", "Scan.Dwelltime", 1e6, "µs"),
)
"""Entries of metadata that a legend tells: FEI writes SI units, Zeiss its own."""


def _instrument(metadata: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give what the microscope said of the exposure."""
    for name, key, factor, unit in _INSTRUMENT:
        said = metadata.get(key)
        try:
            if said and factor is not None:
                yield name, f"{float(said) * factor:.4g} {unit}"
            elif said:
                yield name, str(said)
        except ValueError:
            continue


def _size(item: "Picture") -> str:
    rows, columns = item.image.shape
    return f"{rows} {TIMES} {columns} px, {item.image.dtype}"


def _pixel(image: Micrograph) -> str:
    """Say a pixel size with its error."""
    if image.pixel_size_nm is None:
        return "not known: lengths are in px"
    y, x = (written(v, ".6g") for v in image.pixel_size_nm)
    said = f"{y} nm" if y == x else f"{y} {TIMES} {x} nm (down {TIMES} across)"
    error = image.pixel_size_sd_nm
    if error is None:
        return said
    return f"{said} ± {written(max(error), '.2g')} nm (s.d.)"


# What is drawn of a measurement.

_OVER_FREQUENCY: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "frc": (
        "Fourier ring correlation",
        {"correlation": "correlation"},
        {"ylabel": "correlation"},
    ),
    "decorrelation": (
        "Decorrelation analysis",
        {"unfiltered": "correlation", "filtered": "filtered"},
        {"ylabel": "decorrelation d(r)"},
    ),
    "spectrum": ("Radial power spectrum", {"power": "power"}, POWER),
}
"""Title, names of lines with their fields, and axis."""


def _plots_of(
    measured: Measured, image: Micrograph, names: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    """Draw what was measured of an image, or of two of them."""
    size = {"pixel_size_nm": image.pixel_size_nm}
    for verb in (*_OVER_FREQUENCY, "histogram"):
        if verb in measured.results:
            yield from _plots(verb, jsonable(measured.results[verb]) | size, names)


def _plots(
    verb: str, found: Mapping[str, Any], names: Sequence[str] = ("image", "reference")
) -> Iterator[tuple[str, bytes]]:
    """Draw what a verb found, from its JSON; `names` are of images that it counted."""
    if verb in _OVER_FREQUENCY:
        yield from _over_frequency(found, *_OVER_FREQUENCY[verb])
    for told in curves_of(verb):
        lines = _lines({told.title: (_curve(found, told.x), _curve(found, told.y))})
        yield from _drawn_lines(told.title, lines, told.xlabel, told.ylabel)
    if verb == "profile":
        unit = "nm" if found.get("distance_nm") else "px"
        line = _curve(found, f"distance_{unit}"), _curve(found, "intensity")
        axes = f"distance ({unit})", "grey level"
        title = "Grey levels along the line"
        yield from _drawn_lines(title, _lines({"profile": line}), *axes)
    edges = _curve(found, "bins")
    if verb == "histogram" and edges is not None:
        middle = (edges[:-1] + edges[1:]) / 2
        counted = (_curve(found, key) for key in ("counts", "reference_counts"))
        lines = _lines({n: (middle, c) for n, c in zip(names, counted, strict=False)})
        lines = {n: (x, y / max(1.0, np.nansum(y))) for n, (x, y) in lines.items()}
        axes = "grey level", "share of pixels"
        yield from _drawn_lines("Grey levels", lines, *axes, filled=True)


def _over_frequency(
    found: Mapping[str, Any],
    title: str,
    fields: Mapping[str, str],
    look: Mapping[str, Any],
) -> Iterator[tuple[str, bytes]]:
    """Draw fields over frequency, the last one marked at the resolution."""
    frequency, level = _curve(found, "frequency_per_px"), _curve(found, "threshold")
    lines = _lines({n: (frequency, _curve(found, key)) for n, key in fields.items()})
    curves = [
        FrequencyCurve(n, *xy, None, i) for i, (n, xy) in enumerate(lines.items())
    ]
    if not curves or (look.get("log") and not (curves[0].value > 0).any()):
        return
    mark, threshold = found.get("resolution_px"), None
    if isinstance(mark, (int, float)) and mark >= 1:  # px, as of any true period
        curves[-1] = replace(curves[-1], mark_px=mark)
    if level is not None and level.size == frequency.size:
        if np.ptp(level) == 0:
            threshold = (written(float(level[0]), ".3f"), float(level[0]))
        else:
            name = f"threshold {found.get('criterion')}"
            curves.append(FrequencyCurve(name, frequency, level, colour=4))
    size = parse_pixel_size(found.get("pixel_size_nm"))
    pixel = None if size is None else math.sqrt(size[0] * size[1])
    how: Any = {**look, "threshold": threshold, "size_px": _PLOT}
    yield title, curves_png(curves, pixel, **how)


def _drawn_lines(
    title: str, lines: Mapping[str, Any], xlabel: str, ylabel: str, **look: Any
) -> Iterator[tuple[str, bytes]]:
    """Draw lines, where there are any."""
    if lines:
        look |= {"xlabel": xlabel, "ylabel": ylabel, "size_px": _PLOT}
        yield title, lines_png(lines, **look)


def _lines(found: Mapping[str, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
    """Leave out what is no line: fields that are missing or not as long."""
    return {
        name: (x, y)
        for name, (x, y) in found.items()
        if x is not None and y is not None and x.size == y.size > 0
    }


def _curve(found: Mapping[str, Any], key: str) -> Any:
    """Read a list of numbers; None stands for no number, as what no axis can hold."""
    values = found.get(key)
    if not isinstance(values, list):
        return None
    try:
        read = np.array([np.nan if v is None else float(v) for v in values])
    except (TypeError, ValueError):
        return None
    return np.where(np.abs(read) < _LARGEST, read, np.nan)


# What is told of all images together.


def _tables(
    pictures: "Sequence[Picture]",
) -> Iterator[tuple[list[str], list[tuple[str, list[str]]]]]:
    """Lay images beside each other, some in a table: heads, and rows by name."""
    names = list(
        dict.fromkeys(n.name for item in pictures for n in item.measured.numbers)
    )
    for first in range(0, len(pictures), _COLUMNS):
        part = pictures[first : first + _COLUMNS]
        rows: list[tuple[str, list[str]]] = [
            ("Size", [_size(item).partition(",")[0] for item in part]),
            ("Pixel size", [_short_pixel(item.image) for item in part]),
        ]
        if any(item.networks for item in pictures):
            made = [", ".join(n for n, _ in item.networks) or NO_VALUE for item in part]
            rows.append(("Made by the network", made))
        for name in names:
            found = [item.measured.number(name) for item in part]
            if any(one is not None for one in found):
                rows.append((name, [_cell(one) for one in found]))
        yield [item.label for item in part], rows


def _short_pixel(image: Micrograph) -> str:
    return _pixel(image).partition(":")[0]


def _cell(number: Number | None) -> str:
    """Say a number of the comparison, with its interval or why there is none."""
    if number is None:
        return NO_VALUE
    if number.reason and number.value is None:
        word, told, _ = number.reason.partition(":")
        return f"refused: {word}" if told else "refused"
    if number.interval is None or number.within != "95 %":
        return number.said
    return f"{number.said}; {number.spread}"


def _together(pictures: "Sequence[Picture]") -> bytes | None:
    """Plot the correlation of all images, where they have one pixel size."""
    done = [item for item in pictures if "frc" in item.measured.results]
    sizes = {item.image.pixel_size_nm for item in done}
    if not 1 < len(done) <= _CURVES or len(sizes) > 1:
        return None
    curves = [
        FrequencyCurve.of(item.label, item.measured.results["frc"], n, marked=False)
        for n, item in enumerate(done)
    ]
    return curves_png(curves, done[0].image.mean_pixel_size_nm, ylabel="correlation")
