"""Resolution: of the whole field and of each block, displayed over its image."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from magicgui.widgets import CheckBox, ComboBox
from magicgui.widgets.bases import Widget
from napari.layers import Image, Layer
from qtpy.QtWidgets import QWidget

from napari_semsr import core, io, jobs
from napari_semsr.analysis import REASON_TEXTS, REASONS, get_reason_code
from napari_semsr.widgets import base, layers
from napari_semsr.widgets.measure import panel

_BINS = 40  # bins of the histogram; chosen
_ONE_MOSAIC = (
    "A stitched mosaic needs two exposures: choose a second image, or stitch the "
    "mosaic with its halves. Blending correlates the noise of neighbouring pixels, so "
    "that a split mosaic agrees too well with itself."
)
_HALVES = "The stored halves of this mosaic are compared in the area that both cover."
_METHODS: dict[str, panel.Command] = {
    "Fourier ring correlation": jobs.FRC_MAP,
    "Decorrelation of one image": jobs.DECORRELATION,
}

# Colours that do not occur in viridis, so that a failed block is never read as a
# number.
REASON_COLOURS = {
    "no-signal": "#78695a",
    "correlated-noise": "#a50f00",
    "identical": "#875af0",
    "periodic": "#c36900",
    "too-small": "#a50078",
    "beyond-nyquist": "#2dffb4",
    "not-independent": "#ffa5ff",
    "undetermined": "#a0a0a0",
    "inverted": "#ffa51e",
}


@dataclass(frozen=True, slots=True)
class WholeField:
    """FRC of the whole field, next to the map of its blocks.

    If gaps were cropped, it is that of a part; without a report, `why` is the reason.
    The note concerns a mosaic's halves.
    """

    report: jobs.FrcReport | None
    part: core.Micrograph | None
    why: str
    note: str | None


class ResolutionPanel(panel.MeasurePanel):
    """Panel that maps the resolution of two layers, or of one layer that is split."""

    title, run_label = "Resolution", "Measure resolution"
    help_place = "frc.md#maps"
    verb: panel.Command = jobs.FRC_MAP
    helps = "Show failed blocks and outline"
    map_name = "FRC map"
    region_help = "blocks are summarised in each region that contains their centre."

    def create_rows(self) -> Sequence[Widget | QWidget]:
        """Create the list of methods, and the advice for mosaics."""
        tip = "A number and a map by FRC, or a number of one image, if noise is white."
        ways = [*_METHODS]
        self.method = ComboBox(name="method", label="Method", choices=ways, tooltip=tip)
        tip = "Split it instead of comparing its halves: too fine, or too coarse."
        text = "Split the mosaic anyway"
        self.split_mosaic = CheckBox(name="split_mosaic", text=text, tooltip=tip)
        self.advice = base.RichTextLabel()
        return self.split_mosaic, self.method, self.advice

    def build_form(self) -> None:
        """Build the form, and propose a second image."""
        super().build_form()
        self.first, self.second = self.boxes.values()
        # not magicgui's signal, which is not emitted for None
        for box in self.boxes.values():
            box.native.currentIndexChanged.connect(self._update_rows)
        for control in (self.split_mosaic, self.method):
            control.changed.connect(self._update_rows)
        self.input_layers.propose_partner(
            self.first,
            self.second,
            _have_same_processing,
            keeps=lambda *both: (
                self.form.create_options().reference or _have_same_processing(*both)
            ),
        )
        self._update_rows()

    def create_boxes(self) -> list[ComboBox]:
        """Create the lists of the two images."""
        second = (
            "Independent exposure of the same field. Without it, the image is split, "
            "which needs white noise; a mosaic has the halves stitched with it."
        )
        return [
            self.input_layers.create_box("first", "Image", "The image to measure."),
            self.input_layers.create_box("second", "Second image", second, none="none"),
        ]

    def accepts_layer(self, layer: Layer) -> bool:
        """Reject network outputs, for which no resolution is defined."""
        return super().accepts_layer(layer) and layers.get_network_name(layer) is None

    def _update_rows(self, _: object = None) -> None:
        """Show the rows of the method, and a note if the only image is a mosaic."""
        self.verb = _METHODS[self.method.value]
        maps = self.verb is jobs.FRC_MAP
        first, second = self.first.value, self.second.value
        alone = first is not None and second is None and layers.is_stitched(first)
        store = _get_store_path(first) if alone else None
        halves = [] if store is None else io.get_half_paths(store)
        text = _HALVES if store and all(p.exists() for p in halves) else _ONE_MOSAIC
        is_needed = alone and maps and not self.split_mosaic.value
        self.advice.setText(text if is_needed else "")
        self.form.setVisible(maps)
        for name in ("second", "regions"):
            self.layer_form.show_row(name, maps)
        self.layer_form.show_row("split_mosaic", alone and maps)

    def create_options(self, **more: object) -> Any:
        """Read the options of the method."""
        maps = self.verb is jobs.FRC_MAP
        return self.form.create_options(**more) if maps else self.verb.options()

    def read_more(self, images: Sequence[core.Micrograph]) -> dict[str, Any]:
        """Return the store of a mosaic with halves, and whether these are needed."""
        layers.get_common_unit(images)
        layer, alone = self.first.value, len(images) == 1
        maps = self.verb is jobs.FRC_MAP
        uses_halves = alone and maps and not self.split_mosaic.value
        uses_halves = uses_halves and self.form.create_options().split == "diagonal"
        return {
            "store": _get_store_path(layer) if uses_halves else None,
            "needs_halves": uses_halves and layers.is_stitched(layer),
        }

    def run_command(self, call: panel.Call, **_: object) -> core.Job[panel.Measurement]:
        """Measure the FRC of one or two images, for the whole field and each block.

        A single mosaic is measured by its halves, if they are next to its store; one
        that `needs_halves` raises an error without them.
        """
        start, store, images = super().run_command, call.more["store"], call.images
        if call.verb is jobs.DECORRELATION:
            return (yield from start(call))
        halves, note = None, None
        if store is not None:
            halves, note = jobs.find_halves(store, images["a"])
        if call.more["needs_halves"] and halves is None:
            msg = " ".join(filter(None, (_ONE_MOSAIC, note)))
            raise core.OptionError(msg, code="halves-missing")
        names = {*jobs.FrcJobOptions.model_fields} - {"estimator"}
        how = jobs.FrcJobOptions(**call.options.model_dump(include=names))
        whole, part, why = None, None, ""
        try:
            whole_images = *images.values(), *(halves or ())
            parts, box = yield from jobs.crop_to_gap_free_box(*whole_images)
            part = parts[0] if box else None
            given = dict(zip(images, parts, strict=False))
            both = parts[1:] if halves else None
            frc = jobs.FRC.job(**given, options=how, halves=both)
            whole = yield from core.count_stages(frc, {})  # the map has the bar
        except core.SemsrError as error:  # the map raises its own error
            why = str(error)
        outcome = yield from start(call, halves=halves)
        note = outcome.report.note or note
        return replace(outcome, more=WholeField(whole, part, why, note))

    def measure_region(
        self, outcome: panel.Measurement, region: panel.Region
    ) -> Mapping[str, panel.Cell]:
        """Summarise the blocks in one region."""
        result = outcome.report.result
        row, unit = result.summarise(_find_blocks(result.map, region)), result.unit
        return {
            "blocks": row.blocks,
            "failed": row.failed,
            f"10 % ({unit})": row.p10,
            f"median ({unit})": row.median,
            f"90 % ({unit})": row.p90,
        }

    # -- showing -------------------------------------------------------------------

    def add_layers(self, layer: Layer, outcome: panel.Measurement) -> Iterator[None]:
        """Add the map, and outline the part that was measured as a whole."""
        report = outcome.report
        self.asks_question = bool(outcome.opened and report.failed == report.blocks)
        yield from super().add_layers(layer, outcome)
        part = outcome.more and outcome.more.part
        yield from panel.show_area_outlines(self, {layer: [part]} if part else {})

    def add_map(
        self, outcome: panel.Measurement, opened: base.OpenedImage
    ) -> Iterator[None]:
        """Add the map, unless no block has a resolution, and the failed blocks."""
        result = outcome.report.result
        if self.asks_question:
            return
        yield from super().add_map(outcome, opened)
        if result.reasons.any():
            classes = [(0, "#00000000", "")]
            for reason in REASONS:
                colour, text = REASON_COLOURS[reason], REASON_TEXTS[reason]
                classes.append((get_reason_code(reason), colour, text))
            limits = 0.0, float(len(REASONS))
            look = core.DisplaySettings(limits=limits, classes=tuple(classes))
            source = outcome.report.images[0]
            name = layers.create_result_name(self.viewer, source, "failed blocks")
            grid = result.map.replace(data=result.reasons, name=name, look=look)
            made = base.add_opened_image(self.viewer, base.OpenedImage(grid, (grid,)))
            made.metadata[io.HELPER_KEY] = self.title
            yield

    def sentence(self, outcome: panel.Measurement) -> str:
        """Return the resolution, or why there is none, and how many blocks have one."""
        report, whole = outcome.report, outcome.more
        result = panel.describe_result(report, is_named=False)
        if whole is None:
            return result or f"No cut-off: {report.result.why}"
        known = report.blocks - report.failed
        if result:
            blocks = f"{known} of {report.blocks} blocks"
            return f"{result}: the median of {blocks}{_describe_field(whole)}"
        sentence = f"{known or 'None'} of {report.blocks} blocks have a resolution"
        if field := _describe_field(whole):
            return f"{sentence}{field}"
        # the halves of a mosaic have too little in common
        if whole.note and len(outcome.images) == 1:
            note = whole.note.removesuffix(".")
            return f"{sentence} ({note}, or tick {self.split_mosaic.text})"
        if report.reason == "beyond-nyquist":
            finest = core.format_number(report.result.finest, ".3g")
            count = report.reasons[report.reason]
            sentence = (
                f"Finer than {finest} {report.unit}, the limit of these pixels, in "
                f"{count} of {report.blocks} blocks"
            )
        elif report.reason is not None:
            sentence += f" ({report.why})"
        # of the other reasons, the text says what to do
        advised = "identical", "not-independent", "correlated-noise", "no-signal"
        if report.reason in ("too-small", "undetermined"):
            sentence += "; choose a larger Block"
        elif len(outcome.images) == 1 or report.reason in advised:
            sentence += "; choose another exposure as Second image, or another Method"
        return sentence

    def figures_of(self, outcome: panel.Measurement) -> base.Numbers:
        """Return the figures of the blocks and of the whole field."""
        blocks, field = core.get_figures(outcome.report), outcome.more
        if field is None:
            return blocks
        whole = core.get_figures(field.report) if field.report else {}
        rows: dict[str, core.Figure | str] = {}
        rows |= {name: blocks.pop(name) for name in _STATISTICS if name in blocks}
        if isinstance(median := rows.get("Median"), core.Figure):
            known = outcome.report.blocks - outcome.report.failed
            note = f"{median.note} of {known} blocks{_describe_field(field)}".strip()
            rows["Median"] = replace(median, note=note) if known else median
        resolution = whole.pop("Resolution", None)
        where = panel.format_measured_area_note(field.part) if field.part else ""
        rows["Whole field"] = f"left out: {field.why}"
        if resolution is not None:
            note = f"{resolution.note} {where}".strip()
            rows["Whole field"] = replace(resolution, note=note)
        # the reasons of failed blocks follow below
        for name, figure in (whole or blocks).items():
            if name != "Note" and not name.startswith(("Failed", "In all")):
                rows.setdefault(name, figure)
        return rows | {"Failed": blocks["Failed"]}

    def list_plots(self, outcome: panel.Measurement) -> list[core.Plot]:
        """Return the distributions of block resolutions, and the correlation."""
        report, field = outcome.report, outcome.more
        if field is None:
            return core.get_plots(report, jobs.DECORRELATION.curves)
        whole = field.report  # none if too small
        plots = [] if whole is None else core.get_plots(whole, jobs.FRC.curves)
        values = np.asarray(report.result.measured_values, dtype=float)
        known = np.isfinite(values)
        if not known.any():
            return plots
        low, high = np.percentile(values[known], (0.5, 99.5))
        edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
        parts = {"all blocks": known}
        for area in outcome.areas:
            parts[area.name] = known & _find_blocks(report.result.map, area)
        median = float(report.result.percentile(50))
        text = f"median {core.format_number(median, '.3g')} {report.unit}"
        lines = [
            core.Line(name, edges, np.histogram(values[inside], edges)[0].astype(float))
            for name, inside in parts.items()
        ]
        lines[0] = replace(lines[0], mark=median, mark_label=text)
        label = f"resolution ({report.unit})"
        return [core.Plot("Blocks", label, "blocks", tuple(lines)), *plots]

    def list_curves(self, outcome: panel.Measurement) -> dict[str, base.Columns]:
        """Return the table of all blocks with their positions."""
        if outcome.more is None:
            return {}
        result = outcome.report.result
        places, unit = _get_block_centres(result.map), result.map.unit
        names = np.array(["", *result.reason_names], dtype=object)
        in_nm = np.hypot(result.relative_sd, result.size_error).ravel()
        return {
            "blocks": {
                f"y ({unit})": places[:, 0],
                f"x ({unit})": places[:, 1],
                f"resolution ({result.unit})": result.measured_values.ravel(),
                "relative standard deviation": result.relative_sd.ravel(),
                "the same including that of the pixel size": in_nm,
                "reason for none": names[result.reasons].ravel(),
            }
        }

    def format_remarks(self, outcome: panel.Measurement) -> str:
        """Return the reasons of failed blocks with their colours, and any notes."""
        report, field = outcome.report, outcome.more
        if field is None:
            return ""
        lines = [
            f'<span style="color:{REASON_COLOURS[reason]}">\N{BLACK SQUARE}</span> '
            f"{count} {base.TIMES} {REASON_TEXTS[reason]}"
            for reason, count in report.reasons.items()
            if count
        ]
        if report.field_reason:
            lines.append(f"All blocks together: {REASON_TEXTS[report.field_reason]}")
        beyond = field.report.result.cut_off_warning if field.report else ""
        return "<br>".join([*lines, *filter(None, (field.note, beyond))])


_STATISTICS = "10th percentile", "Median", "90th percentile"


def _describe_field(field: WholeField) -> str:
    """Return the resolution of the whole field, which the plot shows, as a clause."""
    figures = core.get_figures(field.report) if field.report else {}
    figure = figures.get("Resolution")
    if figure is None or figure.value is None:
        return ""
    return f"; whole field: {figure.value_text} {figure.unit}"


def _get_block_centres(grid: core.Micrograph) -> core.FloatArray:
    """Return the centres ``(y, x)`` of the blocks of a map, (N, 2)."""
    places = np.indices(grid.shape).reshape(2, -1).T
    return np.asarray(places * grid.scale + grid.origin, dtype=float)


def _find_blocks(grid: core.Micrograph, region: panel.Region) -> core.BoolArray:
    """Return a mask (Y, X) of the blocks whose centres are in a region."""
    return region.contains(_get_block_centres(grid)).reshape(grid.shape)


def _have_same_processing(first: Image, other: Image) -> bool:
    """Return whether two layers were acquired and processed in the same way."""
    are_acquired = layers.is_acquired(first) and layers.is_acquired(other)
    return are_acquired and layers.get_job_names(first) == layers.get_job_names(other)


def _get_store_path(layer: Image) -> Path | None:
    """Return the path of a layer's store or file."""
    store = layer.metadata.get(io.STORE_KEY) or layers.get_file_path(layer)
    return Path(store) if store else None
