"""Error map: where a layer is not its reference, or two scans are not one another."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import ComboBox
from napari.layers import Image, Layer

from napari_semsr.analysis import ErrorMapOptions, RepeatabilityOptions
from napari_semsr.core import FloatArray, Job, Micrograph, ShapeError
from napari_semsr.jobs import (
    ErrorMapReport,
    RepeatabilityReport,
    error_map_job,
    repeatability_job,
)
from napari_semsr.widgets.base import (
    SIGMA,
    Columns,
    Form,
    Numbers,
    OptionsForm,
    Outcome,
    Panel,
    Quantity,
    Row,
    Target,
    Work,
    add_opened,
    new_store_path,
    require_room,
    written,
)
from napari_semsr.widgets.calibrate import say_pixel_size
from napari_semsr.widgets.layers import (
    grey_layers,
    network_of,
    result_name,
)
from napari_semsr.widgets.measure.regions import (
    Cell,
    Region,
    box_of,
    cut_out,
    new_region_box,
    read_regions,
    region_table,
)

if TYPE_CHECKING:
    import napari.viewer

_NEAR = 0.02  # of a side: what two edges that lie on each other differ by; chosen
_ROWS = {
    "unit": Row(
        "Map in",
        "Grey levels of the reference, or per cent of their range (0.1 to 99.9 %).",
        {"grey levels": "grey", "per cent of the range": "percent"},
    ),
    "align": Row(
        "Find the shift first",
        "Find by what part of a pixel the enhanced image lies off, and move it.",
    ),
    "search": Row("Search (px)", "Largest shift that is looked for."),
}


@dataclass(frozen=True, slots=True)
class ErrorOutcome:
    """A map, and the figures of regions."""

    written: Outcome
    regions: Mapping[str, Columns]


def _map(
    job: Job[ErrorMapReport] | Job[RepeatabilityReport],
    target: Target,
    regions: Sequence[Region],
) -> Job[ErrorOutcome]:
    """Make the map, and sum it up in regions."""
    outcome = yield from written(job, target)
    shown = outcome.opened.micrograph
    rows = yield from region_table(regions, partial(_errors_in, outcome.made, shown))
    return ErrorOutcome(outcome, rows)


def _errors_in(
    report: ErrorMapReport | RepeatabilityReport, shown: Micrograph, region: Region
) -> Mapping[str, Cell]:
    """Sum up the errors in one region."""
    values = cut_out(region, shown, box_of(region, shown)).array()
    kept = values[np.isfinite(values)]
    if not kept.size:
        msg = "no pixel is known there"
        raise ShapeError(msg)
    name = "RSE" if isinstance(report, ErrorMapReport) else "r.m.s."
    unit = "grey levels" if report.unit == "grey" else "%"
    return {
        "pixels": int(kept.size),
        f"{name} ({unit})": float(np.sqrt(np.square(kept).mean())),
        f"median ({unit})": float(np.median(kept)),
        f"95 % below ({unit})": float(np.percentile(kept, 95)),
    }


_SCAN_ROWS = {
    "part": Row(
        "Map of",
        "All differences, or those that noise does not explain: drift, charging, "
        "contamination, distortion.",
        {"all differences": "all", "what is not noise": "rest"},
    ),
    "window": Row(
        "Window (px)",
        "Side of the window over which the root mean square is taken; 1 maps each "
        "pixel's own difference.",
    ),
    "unit": Row(
        "Map in",
        "Grey levels of the first scan, or per cent of their range (0.1 to 99.9 %).",
        {"grey levels": "grey", "per cent of the range": "percent"},
    ),
    "align": Row(
        "Find the shift first",
        "Find by what part of a pixel the second scan lies off, and move both to the "
        "middle.",
    ),
    "search": Row("Search (px)", "Largest shift that is looked for."),
}
# Names of both layer boxes, and what they are for
_NAMED = {
    "error": (
        ("Enhanced", "What was made of the reference, with pixels as fine or finer."),
        ("Reference", "The image as it was taken."),
    ),
    "scans": (
        ("Second scan", "Another of the same place, taken alike."),
        ("First scan", "Its grey levels are the unit; neither scan is the truth."),
    ),
}


class ErrorMapPanel(Panel):
    """Maps where a layer is not its reference, or two scans are not one another."""

    help_place = "error_map.md"

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__(viewer, "Error map", "Map errors")
        self.enhanced = self.new_layer_box(
            "enhanced",
            "Enhanced",
            "What was made of the reference, with pixels as fine or finer.",
        )
        self.reference = self.new_layer_box(
            "reference", "Reference", "The image as it was taken."
        )
        self.kind = ComboBox(
            name="kind",
            label="Compare",
            tooltip="A layer with the image that it was made of, or two scans of one "
            "place, which tell how repeatable the microscope is.",
            choices=[
                ("with its reference", "error"),
                ("two scans", "scans"),
            ],
        )
        self.form = OptionsForm(ErrorMapOptions, _ROWS)
        self.regions = new_region_box(
            self,
            "the error is summed up for each of its regions. Blur, gain and offset are "
            "those of the whole field.",
        )
        self.scans = OptionsForm(RepeatabilityOptions, _SCAN_ROWS)
        self._layers = Form(self.kind, self.reference, self.enhanced, self.regions)
        self.add_group("Layers", self._layers, self.form, self.scans)
        self.add_results("Figures")
        for form in (self.form, self.scans):
            form.on_change("align", partial(_show_search, form))
            _show_search(form, form.values()["align"])
        self.kind.changed.connect(self._show_kind)
        self._show_kind()
        self.enhanced.changed.connect(self._propose)
        self.take_input(self.enhanced)
        self._propose()

    def _show_kind(self, _: object = None) -> None:
        """Name the layers by what they are, and show the options of the kind."""
        for box, (label, tooltip) in zip(
            (self.enhanced, self.reference), _NAMED[self.kind.value], strict=True
        ):
            self._layers.relabel(box.name, label, tooltip)
        self.form.setVisible(self.kind.value == "error")
        self.scans.setVisible(self.kind.value == "scans")

    def _propose(self, _: object = None) -> None:
        """Propose the layer of the same place that no network made."""
        enhanced, chosen = self.enhanced.value, self.reference.value
        kept = chosen not in (None, enhanced) and _on_one_place(enhanced, chosen)
        if enhanced is None or (kept and network_of(chosen) is None):
            return
        found: list[Layer] = [
            layer
            for layer in reversed(grey_layers(self.viewer))
            if layer is not enhanced and _on_one_place(enhanced, layer)
        ]
        plain = [layer for layer in found if network_of(layer) is None]
        best = next(iter([*plain, *found]), None)
        if best is not None:
            self.reference.value = best

    def job(self) -> Work:
        """Read the form."""
        enhanced, reference = self.enhanced.value, self.reference.value
        second, first = self.micrograph(enhanced), self.micrograph(reference)
        if self.kind.value == "scans":
            return self._compare_scans(first, second, reference)
        if enhanced is reference:
            msg = (
                f"The reference is the layer {reference.name!r} itself; choose the "
                "image that the enhanced one was made of."
            )
            raise ShapeError(msg)
        require_room(first.shape, 1)
        options = self.form.options()
        title = result_name(self.viewer, second.name, "error map")
        target = Target(Path(new_store_path(title)), temporary=True)

        regions = read_regions(self, self.regions.value, reference)

        def make() -> Job[ErrorOutcome]:
            job = error_map_job(first, second, target.path, options=options)
            return _map(job, target, regions)

        return make, lambda outcome: self.show_outcome(outcome, enhanced)

    def _compare_scans(
        self, first: Micrograph, second: Micrograph, layer: Image
    ) -> Work:
        """Read the form for two scans."""
        if self.enhanced.value is layer:
            msg = (
                f"The second scan is the layer {layer.name!r}, which is the first one; "
                "choose another scan of the same place."
            )
            raise ShapeError(msg)
        require_room(first.shape, 1)
        options = self.scans.options()
        title = result_name(self.viewer, first.name, "repeatability")
        target = Target(Path(new_store_path(title)), temporary=True)
        regions = read_regions(self, self.regions.value, layer)

        def make() -> Job[ErrorOutcome]:
            job = repeatability_job(first, second, target.path, options=options)
            return _map(job, target, regions)

        return make, lambda outcome: self.show_outcome(outcome, layer)

    def show_outcome(self, found: ErrorOutcome, layer: Image) -> Iterator[None]:
        """Add the map as a layer over the images, and write the figures."""
        outcome = found.written
        report: ErrorMapReport | RepeatabilityReport = outcome.made
        unit = "grey levels" if report.unit == "grey" else "%"
        kind, figures = "error map", _figures
        if isinstance(report, RepeatabilityReport):
            figures = _scan_figures
            kind = "repeatability" if report.part == "all" else "not noise"
        with self.in_place(f"{kind} of {' and '.join(report.images)}") as earlier:
            yield from self.take_away(earlier)
            title = result_name(self.viewer, layer.name, f"{kind} ({unit})")
            add_opened(self.viewer, outcome.opened, name=title)
            yield
        shown = figures(report)
        first = list(shown.items())[: 2 if kind == "error map" else 1]
        told = ", ".join(f"{name} {value}" for name, value in first)
        said = f"Compared {report.images[1]} with {report.images[0]}: {told}."
        self.show_result(shown, said, tables=found.regions)


def _show_search(form: OptionsForm, align: Any) -> None:
    form.show_row("search", bool(align))


def _on_one_place(first: Layer, second: Layer) -> bool:
    """Whether two layers cover the same area, whatever their pixels."""
    (low, high), (other_low, other_high) = map(_edges, (first, second))
    apart = np.abs([other_low - low, other_high - high]).max()
    alike = first.units[-2:] == second.units[-2:]
    return alike and bool(apart <= _NEAR * np.abs(high - low).max())


def _edges(layer: Layer) -> tuple[FloatArray, FloatArray]:
    """Find where the outer corners of a layer are shown."""
    low, high = np.zeros(layer.ndim), np.zeros(layer.ndim)
    low[-2:] = -0.5
    high[-2:] = layer.extent.data[1][-2:] + 0.5
    first, last = (np.asarray(layer.data_to_world(end)) for end in (low, high))
    return first[-2:], last[-2:]


def _scan_figures(report: Any) -> Numbers:
    """Say the figures of two scans in words."""

    def both(grey: float, percent: float) -> Quantity:
        return Quantity(grey, "grey levels", ".4g", note=f"({percent:.2f} %)")

    share = report.noise_share
    return {
        "Repeatability s.d.": both(report.sd, report.sd_percent),
        "Of that, noise": both(report.noise, report.noise_percent),
        "Of that, the rest": both(report.rest, report.rest_percent),
        "Noise's share": Quantity(None if share is None else 100 * share, "%", ".1f"),
        "Map, mean": both(report.mean, report.mean_percent),
        "Map, 95th percentile": both(report.p95, report.p95_percent),
        "Gain": Quantity(report.gain, "", ".4g"),
        "Offset": Quantity(report.offset, "grey levels", ".4g"),
        "Correlation": Quantity(report.correlation, "", ".4f"),
        "Moved by": report.moved,
        "Pixel size": say_pixel_size(report.pixel_size_nm, report.pixel_size_sd_nm),
    }


def _figures(report: Any) -> Numbers:
    """Say the figures in words."""
    percent = f"({report.rse_percent:.2f} % of the reference's range)"
    in_nm = "" if report.sigma_nm is None else f"({report.sigma_nm:.3g} nm)"
    rows: dict[str, Quantity | str] = {
        "RSE": Quantity(report.rse, "grey levels", ".4g", note=percent),
        "RSP": Quantity(report.rsp, "", ".4f"),
        f"Blur, {SIGMA}": Quantity(report.sigma_px, "px", ".2f", note=in_nm),
        "Gain": Quantity(report.alpha, "", ".4g"),
        "Offset": Quantity(report.beta, "grey levels", ".4g"),
        "Moved by": report.moved,
        "Pixel size": say_pixel_size(report.pixel_size_nm, report.pixel_size_sd_nm),
    }
    if report.looked_at < 1:
        share = 100 * report.looked_at
        rows["Fitted on"] = Quantity(share, "%", ".1f", note="of the field")
    return rows
