"""Command `gaps`: measure particles and the gaps between them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np

from napari_semsr import core
from napari_semsr.analysis import GapOptions, Gaps, WidthHistogram, measure_gaps
from napari_semsr.io import Cell, write, write_csv, write_sheet
from napari_semsr.jobs import images, verb
from napari_semsr.jobs.crop import crop_to_gap_free_box
from napari_semsr.jobs.measure.offset import warn_about_offset

# record keys of each gap
_OF_GAP = {
    "kind": core.Quantity("Kind"),
    **core.declare_length("y", "y"),
    **core.declare_length("x", "x"),
    **core.declare_length("reference_width", "In the reference"),
    **core.declare_length("width", "Width"),
    **core.declare_length("error", "Error"),
}

# record keys of each particle
_OF_PARTICLE = {
    "label": core.Quantity("Label"),
    **core.declare_length("y", "y"),
    **core.declare_length("x", "x"),
    "area_nm2": core.Quantity("Area", "nm²", also="area_px"),
    "area_px": core.Quantity("Area", "px²"),
    **core.declare_length("diameter", "Diameter"),
    "diameter_sd_nm": core.Quantity("Error of the diameter", "nm"),
    "eccentricity": core.Quantity("Eccentricity"),
}
# Share of the diameters that clear particles have: 0.47 and more of 9 of 10 real
# powders, balls and carbides, 0.31 and less of 25 of 29 surfaces and tissues; chosen
_MIN_CLEAR, _MIN_COUNT = 0.4, 10  # of fewer particles, a share is uncertain


@dataclass(frozen=True, slots=True)
class GapReport(images.ImageMeasurement):
    """Particles and gaps in an image, and the histograms of the widths of the gaps.

    These are of the image's gaps and, if there is one, of the reference's, in `unit`.
    `origin_nm` is the position ``(y, x)`` of the first pixel.
    """

    result: Gaps = field(metadata=core.FLAT)
    histograms: tuple[WidthHistogram, WidthHistogram | None] = field(
        metadata={"json": False}
    )
    origin_nm: core.FloatPair = field(metadata={"json": False})
    table: Annotated[str | None, core.Quantity("Table", tabled=False)] = None
    labels_out: Annotated[str | None, core.Quantity("Labels", tabled=False)] = None

    widths_nm, widths_px = core.create_length_properties(
        lambda result, unit: [
            getattr(gap, f"width_{unit}") for gap in result.result.found_gaps
        ],
        *("widths", "Widths"),
        shown=False,
        tabled=False,
    )
    reference_widths_nm, reference_widths_px = core.create_length_properties(
        lambda result, unit: [
            getattr(gap, f"reference_{unit}") for gap in result.result.found_gaps
        ],
        *("reference_widths", "Widths, reference"),
        shown=False,
        tabled=False,
    )
    diameters_nm, diameters_px = core.create_length_properties(
        lambda result, unit: list(result.result.get_diameters(unit)),
        *("diameters", "Diameters"),
        shown=False,
        tabled=False,
    )

    @property
    def own_gaps(
        self,
    ) -> Annotated[int | None, core.declare_quantity("Gaps of the image")]:
        """Number of gaps found in the image alone, if there is a reference."""
        return self.result.own

    @property
    def rows(
        self,
    ) -> Annotated[
        list[dict[str, object]], core.declare_quantity("Each gap", keys=_OF_GAP)
    ]:
        """Measured values of each gap."""
        columns = self.result.create_table()
        cells = zip(*columns.values(), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in cells]

    def tables(self) -> Mapping[str, Mapping[str, Sequence[object]]]:
        """Return the table of particles, with lengths in px if there are none in nm."""
        rows = self.particle_rows
        known = [
            key for key in _OF_PARTICLE if any(row[key] is not None for row in rows)
        ]
        replaced = {_OF_PARTICLE[key].also for key in known}
        shown = {
            f"{of.label} ({of.unit})".removesuffix(" ()"): [row[key] for row in rows]
            for key, of in _OF_PARTICLE.items()
            if key in known and key not in replaced
        }
        return {"Particles": shown} if shown else {}

    @property
    def particle_rows(
        self,
    ) -> Annotated[
        list[dict[str, Cell]], core.declare_quantity("Each particle", keys=_OF_PARTICLE)
    ]:
        """Measured values of each particle that the border does not cut."""
        error, nm = self.result.size_error, self.pixel_size_nm
        rows: list[dict[str, Cell]] = []
        for one in self.result.sizes:
            if not one.whole:
                continue
            y, x = one.place_px
            y_nm = x_nm = area_nm2 = None
            if nm is not None and one.diameter_nm is not None:
                y_nm, x_nm = np.add(self.origin_nm, np.multiply((y, x), nm)).tolist()
                area_nm2 = one.area_px * math.prod(nm)
            row: dict[str, Cell] = {
                "label": one.label,
                "y_nm": y_nm,
                "y_px": y,
                "x_nm": x_nm,
                "x_px": x,
                "area_nm2": area_nm2,
                "area_px": one.area_px,
                "diameter_nm": one.diameter_nm,
                "diameter_px": one.diameter_px,
                "diameter_sd_nm": (one.diameter_nm or 0.0) * error or None,
                "eccentricity": one.eccentricity,
            }
            rows.append(row)
        return rows

    def discs(self) -> tuple[core.FloatArray, core.FloatArray]:
        """Return centres ``(y, x)`` (N, 2) and diameters (N,) in px for plots."""
        whole = [one for one in self.result.sizes if one.whole]
        centres = np.array([one.place_px for one in whole]).reshape(-1, 2)
        return centres, np.array([one.diameter_px for one in whole])

    @property
    def places_px(
        self,
    ) -> Annotated[
        list[core.FloatPair], core.declare_quantity("Position of each gap", "px")
    ]:
        """Centres ``(y, x)`` of the gaps."""
        return [gap.place_px for gap in self.result.found_gaps]

    @property
    def histogram(
        self,
    ) -> Annotated[dict[str, object], core.declare_quantity("Histograms of widths")]:
        """Counts and fitted Gaussians of image and reference, with bin edges."""
        image, reference = images.to_json_value(self.histograms)
        edges = image.pop("edges")
        (reference or {}).pop("edges", None)
        both = {"image": image, "reference": reference}
        return {"unit": self.unit, "edges": edges, **both}

    @property
    def unit(self) -> str:
        """Unit of the plots: ``"nm"``, or ``"px"`` if not calibrated."""
        return "px" if self.pixel_size_nm is None else "nm"

    @property
    def invented(self) -> Annotated[int | None, core.Quantity("Invented", shown=False)]:
        """Number of gaps in the image that the reference does not show."""
        return None if self.result.own is None else len(self.result.invented_gaps)

    def figures(self) -> dict[str, core.Figure]:
        """Return median widths, and means of the fitted Gaussians."""
        gaps, unit = self.result, self.unit
        rows = core.get_declared_figures(self)
        for name, widths, histogram in zip(
            ("", ", reference"), gaps.get_widths(unit), self.histograms, strict=True
        ):
            if widths.size:
                middle = float(np.median(widths))
                rows[f"Median width{name}"] = core.Figure(middle, unit, ".3g")
            if histogram is not None and histogram.fit is not None:
                mean, error = histogram.fit.mean, histogram.fit.error
                figure = core.Figure(mean, unit, ".3g", sd=error)
                rows[f"Gaussian's mean{name}"] = figure
        sizes = gaps.get_diameters(unit)
        if sizes.size:
            ends = np.quantile(sizes, [0.1, 0.9]).tolist()
            limits = " to ".join(core.format_number(end, ".3g") for end in ends)
            rows["Diameters, 10 to 90 %"] = core.Figure(f"{limits} {unit}")
        return rows

    def plots(self) -> list[core.Plot]:
        """Plot the width distributions with their Gaussians, and the diameters."""
        unit, lines = self.unit, []
        for number, (name, histogram) in enumerate(
            zip(self.images, self.histograms, strict=False)
        ):
            if histogram is None or not sum(histogram.counts):
                continue
            edges, fit, label = np.array(histogram.edges), histogram.fit, name
            if fit is not None:
                error = f"\N{PLUS-MINUS SIGN} {core.format_number(fit.error, '.2g')}"
                label = f"{name}: {core.format_number(fit.mean, '.3g')} {error} {unit}"
                fine = np.linspace(0, edges[-1], _FINE)
                at = fit.evaluate(fine)
                lines.append(
                    core.Line("", fine, at, fit.mean, colour=number, kind="fit")
                )
            counts = np.array(histogram.counts, dtype=float)
            lines.append(core.Line(label, edges, counts, colour=number))
        widths = core.Plot("Widths", f"gap width ({unit})", "gaps", tuple(lines))
        widths_drawn, sizes = [widths] if lines else [], self.result.get_diameters(unit)
        if not sizes.size:
            return widths_drawn
        last = len(self.images) - 1  # the image in which they were found
        end = _WIDEST * float(np.percentile(sizes, 99))
        usual, wider = sizes[sizes <= end], ""
        if usual.size < sizes.size:  # otherwise the others would share one bar
            count = sizes.size - usual.size
            wider = f"; {count} above {core.format_number(end, '.2g')}"
        counts, edges = np.histogram(usual, "fd")
        across = core.Line("Diameters", edges, counts.astype(float), colour=last)
        xlabel = f"particle diameter ({unit}){wider}"
        return [*widths_drawn, core.Plot("Diameters", xlabel, "particles", (across,))]


_FINE = 200  # points of a plotted Gaussian
_WIDEST = 1.5  # times the 99th percentile of diameters; chosen: end of the axis


LABELS, _PARTICLES = "labels_out", ".particles.csv"


@verb.command(title="gaps", makes_table=True, value="result", gives=Gaps)
def gaps(
    run: verb.Run[GapOptions],
    image: Annotated[
        core.Micrograph, verb.ImageInput(help="an image of particles, or a label image")
    ],
    reference: Annotated[
        core.Micrograph | None,
        verb.ImageInput(
            help="a reference image of the same field: its gaps are searched for in "
            "the image; without it the image's own gaps are measured"
        ),
    ] = None,
    *,
    options: GapOptions,
    table: Annotated[
        Path | None,
        verb.Output(
            "write a row for each gap of one image into this file, and a row "
            "for each particle into NAME.particles.csv beside it; or a row for "
            "each of many images (.csv or .parquet)",
            metavar="CSV",
            ending=".csv",
        ),
    ] = None,
    labels_out: Annotated[
        Path | None,
        verb.Output("write an image of the particles' numbers", metavar="FILE"),
    ] = None,
) -> core.Job[GapReport]:
    """Count and measure particles, and the gaps between them.

    Examples
    --------
    >>> y, x = np.mgrid[:64, :96]
    >>> distance = np.minimum(np.hypot(y - 32, x - 30), np.hypot(y - 32, x - 62))
    >>> two = 1 / (1 + np.exp(distance - 12))
    >>> found = semsr.gaps(two, pixel_size_nm=2)
    >>> found.particles, [round(gap.width_nm, 1) for gap in found.found_gaps]
    (2, [22.4])
    >>> [round(size) for size in found.get_diameters("nm")], found.cut
    ([48, 48], 0)
    """
    particles = None if table is None else table.with_suffix(_PARTICLES)
    if particles is not None:
        verb.Output("", ending=_PARTICLES).check_path(
            particles, run.inputs, run.existing
        )
    if reference is not None:
        run.warn_if_trained_on()
        warn_about_offset(image, reference)
    sized_image = images.get_calibrated_image(image, reference)
    size = sized_image.pixel_size_nm
    measured_image, box = image, None
    if sized_image is reference:
        measured_image = image.replace(pixel_size_nm=size, origin=sized_image.origin)
        measured_image = measured_image.with_size_error(sized_image.pixel_size_sd_nm)
    parts = tuple(one for one in (measured_image, reference) if one is not None)
    if not options.labels and parts[0].shape == parts[-1].shape:
        parts, box = yield from crop_to_gap_free_box(*parts)
    gaps = yield from measure_gaps(*parts, options=options)
    if box is not None:
        gaps = gaps.move_to_image(box, image.shape)
    _warn_if_unclear(gaps, sized_image.name)
    in_png = labels_out is not None and labels_out.suffix.lower() == ".png"
    largest = int(np.asarray(gaps.labels).max()) if in_png and gaps.particles else 0
    if largest > np.iinfo(np.uint8).max:  # they would be stretched
        msg = (
            f"{labels_out} can only store labels up to 255, got {largest}: write "
            ".ome.zarr or .ome.tif instead."
        )
        raise core.WriteError(msg, code="out-of-range")
    report = GapReport(
        images=run.image_names,
        **verb.get_pixel_size_fields(sized_image),
        result=gaps,
        histograms=gaps.compute_histograms(
            "px" if size is None else "nm", options.bin_width
        ),
        origin_nm=sized_image.origin,
        table=None if table is None else str(table),
        labels_out=None if labels_out is None else str(labels_out),
    )
    if table is not None and particles is not None:
        _write_tables(report, table, particles)
    if labels_out is not None:
        history = yield from run.compose_history()
        labelled = image if reference is None else reference
        image_made = labelled.replace(
            data=gaps.labels,
            name=f"particles of {labelled.name}",
            provenance=history.model_copy(update={"part": LABELS}),
        )
        write(image_made, labels_out, overwrite=True)
    return report


def _warn_if_unclear(gaps: Gaps, name: str) -> None:
    """Warn if most of what was found does not look like particles."""
    is_unclear = gaps.clear is not None and gaps.clear < _MIN_CLEAR
    if is_unclear and gaps.particles - gaps.cut >= _MIN_COUNT:
        core.warn(
            f"Only {100 * (gaps.clear or 0):.0f} % of the particles found in {name}, "
            "weighted by diameter, are round or convex and isolated: check the "
            "outlines. The image may contain no particles, or only dark ones (`dark`).",
            "particles-doubtful",
        )


def _write_tables(report: GapReport, table: Path, particles: Path) -> None:
    """Write a row for each gap, and one for each particle; unknown cells are empty."""
    columns = report.result.create_table()
    rows = (
        [f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row]
        for row in zip(*columns.values(), strict=True)
    )
    write_csv(table, [list(columns), *rows])
    each = report.particle_rows
    write_sheet(particles, {key: [row[key] for row in each] for key in _OF_PARTICLE})
