"""FRC map: resolution of each block, displayed over its image."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import CheckBox
from napari.layers import Image, Labels, Layer
from napari.viewer import Viewer
from numpy.typing import NDArray

from napari_semsr import core, io, jobs
from napari_semsr.analysis import (
    REASON_TEXTS,
    REASONS,
    get_reason_code,
)
from napari_semsr.widgets import base, layers
from napari_semsr.widgets.measure import regions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TITLE = "FRC map"
_DIFFERENCE_KEY = "frc_difference"  # a difference of maps is not a map of resolutions
_APART = 0.3  # fraction of a step by which blocks may be apart; chosen: 5 px of 16
_BINS = 40  # bins of the histogram; chosen
# colours of regions in the histogram, unlike those of the marks; more are in the table
REGION_COLOURS = "#e19696", "#785a1e", "#d21e78", "#2d4bff", "#87962d", "#0ff01e"

_ONE_MOSAIC = (
    "A stitched mosaic needs two exposures: choose a second image, or stitch the "
    "mosaic with its halves. Blending correlates the noise of neighbouring pixels, so "
    "two halves of a single mosaic agree too well. Tick Split the mosaic anyway to "
    "measure it regardless."
)
_HALVES = "The stored halves of this mosaic are compared in the area that both cover."

# Colours that do not occur in viridis, so that a failed block is never read as a
# number.
REASON_COLOURS = {
    "no-signal": "#78695a",
    "correlated-noise": "#a50f00",
    "identical": "#875af0",
    "periodic": "#c36900",
    "too-small": "#690f2d",
    "beyond-nyquist": "#ffffff",
    "not-independent": "#ffa5ff",
    "undetermined": "#a0a0a0",
    "inverted": "#000099",
}


def add_failed_blocks_layer(
    viewer: Viewer,
    result: core.Micrograph,
    codes: NDArray[np.uint8],
    name: str,
) -> Labels | None:
    """Add a layer of the blocks that have no resolution, coloured by reason.

    `codes` (Y, X) are 0 where there is a resolution. Returns the layer, or None if no
    block failed.
    """
    if not np.any(codes):
        return None
    colours = [
        (get_reason_code(name), REASON_COLOURS[name], REASON_TEXTS[name])
        for name in REASONS
    ]
    look = core.DisplaySettings(
        limits=(0.0, float(len(REASONS))),
        classes=((0, "#00000000", ""), *colours),
        opacity=0.8,
    )
    name = layers.create_result_name(viewer, name, "failed blocks")
    keywords = io.create_layer_attributes(
        result.replace(data=codes, name=name, look=look)
    )
    del keywords["rgb"]
    keywords["metadata"] |= {io.HELPER_KEY: _TITLE}
    return viewer.add_labels(codes, **keywords)


@dataclass(frozen=True, slots=True)
class FrcOutcome:
    """Resolution map and whole-field FRC curve of the same images.

    If gaps were cropped, the curve is that of a part; without a curve, the reason is
    given. The note concerns a mosaic's halves.
    """

    blocks: jobs.FrcMapReport
    whole: jobs.FrcReport | None
    alone: jobs.DecorrelationReport | None  # of the first image
    part: core.Micrograph | None
    why: str
    note: str | None = None
    regions: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)


def _measure_frc(
    images: Sequence[core.Micrograph],
    options: jobs.FrcMapJobOptions,
    store: Path | None,
    *,
    needs_halves: bool = False,
    regions: Sequence[regions.Region] = (),
) -> core.Job[FrcOutcome]:
    """Measure the FRC of one or two images, for the whole field and each block.

    A single mosaic is measured by its halves, if they are next to its store; one that
    `needs_halves` raises an error without them.
    """
    halves, note = None, None
    if store is not None and len(images) == 1 and options.split == "diagonal":
        halves, note = jobs.find_halves(store, images[0])
    if needs_halves and halves is None:
        raise core.OptionError(
            " ".join(filter(None, (_ONE_MOSAIC, note))), code="halves-missing"
        )
    options_shared = {
        name: getattr(options, name)
        for name in jobs.FrcJobOptions.model_fields
        if name != "estimator"
    }
    whole, alone, part, why = None, None, None, ""
    try:
        parts, box = yield from jobs.crop_to_gap_free_box(*images, *(halves or ()))
        part = parts[0] if box else None
        frc_options = jobs.FrcJobOptions(**options_shared)
        if halves is None:
            whole = yield from jobs.FRC.job(*parts, options=frc_options)
        else:
            both = parts[1], parts[2]
            whole = yield from jobs.FRC.job(parts[0], halves=both, options=frc_options)
        alone = yield from jobs.DECORRELATION.job(parts[0])
    except core.SemsrError as error:  # the map raises its own error
        why = str(error)
    blocks = yield from jobs.FRC_MAP.job(*images, options=options, halves=halves)
    grid = blocks.result.map
    rows, columns = np.indices(grid.shape)
    centres = np.stack([rows.ravel(), columns.ravel()], axis=1) * grid.scale
    centres = centres + np.array(grid.origin)
    within = {one.name: one.contains(centres).reshape(grid.shape) for one in regions}
    return FrcOutcome(blocks, whole, alone, part, why, blocks.note or note, within)


class FrcMapPanel(base.VerbPanel):
    """Panel that maps the resolution of two layers, or of one layer that is split."""

    plots = applies_to_folder = True
    help_place = "frc.md#maps"
    title, run_label = _TITLE, "Map resolution"
    verb = jobs.FRC_MAP

    def build_form(self) -> None:
        """Build the form."""
        self.first = self.input_layers.create_box(
            "first", "Image", "The image to measure."
        )
        self.second = self.input_layers.create_box(
            "second",
            "Second image",
            "Independent exposure of the same field of view. Without it, the image "
            "is split into halves, which is valid only if its noise is white; for a "
            "mosaic, the halves that were stitched with it are used.",
            none="none",
        )
        self.split_mosaic = CheckBox(
            name="split_mosaic",
            value=False,
            text="Split the mosaic anyway",
            tooltip=(
                "Split a single mosaic instead of comparing its stored halves. Because "
                "the frames are blended, the measured resolution is then too fine or "
                "too coarse."
            ),
        )
        self.regions = regions.create_region_box(
            self,
            "blocks are summarised for each region that contains their centre, in a "
            "table and in the histogram.",
        )
        self.form = base.OptionsForm(jobs.FrcMapJobOptions)
        self.advice = base.RichTextLabel()
        self.layers = base.Form(
            self.first, self.second, self.split_mosaic, self.regions
        )
        self.add_group("Layers", self.advice, self.layers)
        self.add_group("Blocks", self.form)

        def list_maps() -> list[Image]:
            return [
                item
                for item in layers.list_image_layers(self.viewer)
                if layers.get_last_job_name(item) == "frc-map"
                and _DIFFERENCE_KEY not in item.metadata
            ]

        self.before, self.after = (
            self.input_layers.create_box(
                name, label, tip, layers=list_maps, none="none"
            )
            for name, label, tip in (
                (
                    "before",
                    "Before",
                    "Resolution map, for example of the image before enhancement.",
                ),
                ("after", "After", "Another map of the same blocks."),
            )
        )
        self.compare_button = base.create_button(
            "Compare maps",
            self.compare_maps,
            "Show both maps on a common colour scale, and add their difference as a "
            "layer.",
        )
        two = base.Form(self.before, self.after, self.compare_button)
        self.add_group("Two maps", two)
        self.add_results("Resolution", helpers="Show failed blocks and outline")
        self._found_none = False
        # not magicgui's signal, which is not emitted for None
        for box in (self.first, self.second):
            box.native.currentIndexChanged.connect(self._update_advice)
        self.split_mosaic.changed.connect(self._update_advice)
        self.input_layers.follow_active_layer(self.first)
        self.input_layers.propose_partner(
            self.first,
            self.second,
            _have_same_processing,
            keeps=lambda first, other: (
                self.form.create_options().reference
                or _have_same_processing(first, other)
            ),
        )
        self._update_advice()

    def accepts_layer(self, layer: Layer) -> bool:
        """Reject network outputs, for which no resolution is defined."""
        return super().accepts_layer(layer) and layers.get_network_name(layer) is None

    @property
    def asks_question(self) -> bool:
        """Whether no block had a resolution."""
        return self._found_none

    def _update_advice(self, _: object = None) -> None:
        """Show a note if the only image is a stitched mosaic."""
        first, second = self.first.value, self.second.value
        alone = first is not None and second is None and layers.is_stitched(first)
        store = _get_store_path(first) if alone else None
        there = store is not None and all(
            path.exists() for path in io.get_half_paths(store)
        )
        text = _HALVES if there else _ONE_MOSAIC
        is_needed = alone and not self.split_mosaic.value
        self.advice.setText(text if is_needed else "")
        self.layers.show_row("split_mosaic", alone)

    def create_request(self) -> base.JobRequest:
        """Read the form, and return the request of the job that Run starts."""
        options = self.form.create_options()
        layer, second = self.first.value, self.second.value
        if layer is second is not None:
            msg = (
                f"Layer {layer.name!r} is chosen as both images; choose another "
                "exposure of the field of view as the second image, or 'none'."
            )
            raise core.ShapeError(msg, code="same-image")
        images = regions.read_image_pair(self, layer, second)
        layers.get_common_unit(images)
        work = partial(
            _measure_frc,
            images,
            options,
            None if self.split_mosaic.value else _get_store_path(layer),
            needs_halves=(
                second is None
                and options.split == "diagonal"
                and layers.is_stitched(layer)
                and not self.split_mosaic.value
            ),
            regions=regions.read_regions(self, self.regions.value, layer),
        )
        return base.JobRequest(work, partial(self.show_resolution, layer))

    def compare_maps(self) -> None:
        """Show two maps on a common colour scale, and add their difference."""
        with self.messages.show_errors():
            before, after = self.before.value, self.after.value
            if before is after or None in (before, after):
                msg = (
                    "Choose two different maps as Before and After; compute them first "
                    "if necessary."
                )
                raise core.OptionError(msg, code="missing-value")
            first = self.input_layers.read(before)
            second = self.input_layers.read(after)
            first, values = _crop_to_common_blocks(first, second)
            limits = core.contrast_limits(values, 1, 99)
            for layer in (before, after):
                layer.contrast_limits = limits
                layer.colormap = before.colormap
            apart = values[1] - values[0]
            finite = apart[np.isfinite(apart)]
            if not finite.size:
                msg = (
                    "No block has a resolution in both maps; choose maps of the same "
                    "area."
                )
                raise core.OptionError(msg, code="nothing-to-measure")
            unit = "nm" if first.pixel_size_nm is not None else "px"
            difference_layer = self._add_difference_map(first, apart, (before, after))
            sentence = (
                "Both maps are scaled to "
                f"{base.DASH.join(map(core.format_number, limits))} {unit}. "
                f"{difference_layer.name!r}: median {np.median(finite):+.4g} {unit}; "
                f"magenta is finer, green is coarser. {apart.size - finite.size} of "
                f"{apart.size} blocks have no resolution in at least one map."
            )
            self.messages.show_status(sentence)

    def _add_difference_map(
        self, grid: core.Micrograph, apart: core.FloatArray, maps: tuple[Image, Image]
    ) -> Image:
        """Add a layer with the difference of two maps, with a diverging colour map."""
        most = max(abs(end) for end in core.contrast_limits(apart, 1, 99))
        look = core.DisplaySettings(
            limits=(-most, most),
            colormap="PiYG",
            colour_bar=True,
        )
        before, after = maps
        past = [
            history
            for history in map(layers.get_provenance, maps)
            if history is not None
        ]
        difference_history = core.Provenance(
            job="frc-map",
            options={"difference": [before.name, after.name]},
            inputs=tuple(item for history in past for item in history.inputs),
        )
        history = grid.replace(data=apart, look=look, provenance=difference_history)
        with self.result_layers.replace_earlier(*maps) as earlier:
            for _ in self.result_layers.remove_earlier(earlier):
                pass
            name = f"{after.name} \N{MINUS SIGN} {before.name}"
            keywords = layers.create_layer_keywords(
                history, name=layers.find_free_name(self.viewer, name)
            )
            about = {
                _DIFFERENCE_KEY: True,
                layers.SOURCES_KEY: layers.get_source_identities(maps),
            }
            keywords["metadata"] |= about
            layer = self.viewer.add_image(history.array(), **keywords)
        layers.show_colour_bar(layer)
        return layer

    def show_resolution(self, layer: Image, outcome: FrcOutcome) -> Iterator[None]:
        """Add the layers, draw the plots and show the metrics, step by step."""
        report = outcome.blocks
        self._found_none = report.failed == report.blocks
        where = f"the map is not shown because its image {layer.name!r} was removed"
        if layer in self.viewer.layers:
            where = "the map is shown over the image"
            result, name = report.result, report.images[0]
            with self.result_layers.replace_earlier(
                *self.result_layers.sources
            ) as earlier:
                yield from self.result_layers.remove_earlier(earlier)
                if self._found_none:
                    where = "so no map is shown"
                else:
                    title = f"FRC map ({result.map.unit})"
                    title = layers.create_result_name(self.viewer, name, title)
                    look = layers.create_layer_keywords(result.map, name=title)
                    map_layer = self.viewer.add_image(result.map.array(), **look)
                    layers.hide_other_maps(self.viewer, map_layer)
                    yield
                    yield from layers.show_colour_bar_in_steps(map_layer)
                    yield
                    add_failed_blocks_layer(
                        self.viewer, result.map, result.reasons, name
                    )
                    yield
            if not self._found_none:
                layer.visible = True
                above = list(self.viewer.layers)[self.viewer.layers.index(layer) + 1 :]
                # network outputs that cover the image: the map would seem to be theirs
                layers_hidden = [
                    item
                    for item in above
                    if item.visible and layers.get_network_name(item) is not None
                ]
                for item in layers_hidden:
                    item.visible = False
                hidden_note = " and ".join(item.name for item in layers_hidden)
                where += f"; hidden: {hidden_note}" if hidden_note else ""
            layers.show_scale_bar(self.viewer)
            yield
        part = outcome.part
        yield from regions.show_area_outlines(self, {layer: [part]} if part else {})
        yield from self._draw_plots(outcome)
        yield
        self.results.show_result(
            _get_metrics(outcome),
            f"{self._describe_result(outcome)}; {where}.",
            curves=_create_curves(outcome),
            tables=_create_region_tables(outcome),
            more=_format_reasons(outcome),
        )

    def _describe_result(self, outcome: FrcOutcome) -> str:
        """Describe how many blocks have a resolution, or why none has."""
        report = outcome.blocks
        median = _get_statistics(report)["Median"]
        known_count = report.blocks - report.failed
        sentence = (
            f"{known_count or 'None'} of {report.blocks} blocks have a resolution"
        )
        if median is not None:
            return f"{sentence}, median {core.Figure(median, report.unit)}"
        # the halves of a mosaic have too little in common
        if outcome.note and self.second.value is None:
            note = outcome.note.removesuffix(".")
            return f"{sentence} ({note}, or tick {self.split_mosaic.text})"
        if report.reason is None:
            return sentence
        sentence += f" ({report.why})"
        if report.reason == "beyond-nyquist" and self.second.value is None:
            sentence += "; choose another exposure of the field as Second image"
        return sentence

    def _draw_plots(self, outcome: FrcOutcome) -> Iterator[None]:
        """Plot the block resolutions and the whole-field correlation."""
        from napari_semsr.widgets.base import draw_plot

        plot = self.results.clear_plot(rows=2, height=280, place=1)
        yield
        _plot_resolutions(plot.axes[0], outcome)
        yield
        alone = outcome.alone
        if outcome.whole is not None:
            # none if too small
            for frc in core.get_plots(outcome.whole, jobs.FRC.curves):
                if alone is not None and alone.result.resolution_px is not None:
                    (other,) = core.get_plots(alone, jobs.DECORRELATION.curves)
                    line = replace(other.lines[-1], label="decorrelation")
                    frc = replace(frc, lines=(*frc.lines, line))
                draw_plot(plot.axes[1], frc)
        plot.refresh()


def _crop_to_common_blocks(
    before: core.Micrograph, after: core.Micrograph
) -> tuple[core.Micrograph, core.FloatArray]:
    """Crop two maps to their common blocks; return the first map and both arrays.

    Registering crops some pixels, so blocks may be a fraction of a step apart.
    """
    pitch = np.array(before.scale)
    apart = np.subtract(after.origin, before.origin) / pitch
    whole_blocks = np.rint(apart).astype(int)
    alike = before.unit == after.unit and np.allclose(pitch, after.scale, rtol=1e-3)
    start = np.maximum(whole_blocks, 0)
    stop = np.minimum(before.shape, whole_blocks + after.shape)
    if (
        not alike
        or np.any(stop <= start)
        or np.abs(apart - whole_blocks).max() > _APART
    ):
        msg = (
            f"Both maps must share a block grid, but {before.name!r} and "
            f"{after.name!r} are on different grids; compute both with the same block "
            "size and step."
        )
        raise core.ShapeError(msg, code="grid-mismatch")
    ours, theirs = (
        image.array()[tuple(map(slice, start - by, stop - by))]
        for image, by in ((before, 0), (after, whole_blocks))
    )
    y, x = (before.origin + start * pitch).tolist()
    return before.replace(data=ours, origin=(y, x)), np.stack([ours, theirs])


def _have_same_processing(first: Image, other: Image) -> bool:
    """Return whether two layers were acquired and processed in the same way."""
    return (
        layers.is_acquired(first)
        and layers.is_acquired(other)
        and layers.get_job_names(first) == layers.get_job_names(other)
    )


def _get_store_path(layer: Image) -> Path | None:
    """Return the path of a layer's store or file."""
    store = layer.metadata.get(io.STORE_KEY) or layers.get_file_path(layer)
    return Path(store) if store else None


def _compute_histograms(
    outcome: FrcOutcome,
) -> tuple[core.FloatArray, dict[str, core.FloatArray]]:
    """Compute resolution histograms of all regions: edges (K + 1,), counts (K,).

    The whole field comes first; there are no edges if no block has a resolution.
    """
    values = np.asarray(outcome.blocks.result.measured_values, dtype=float)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return np.zeros(0), {}
    low, high = np.percentile(finite, (0.5, 99.5))
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    parts = {"whole field": np.isfinite(values), **outcome.regions}
    return edges, {
        name: np.histogram(values[inside & np.isfinite(values)], edges)[0]
        for name, inside in parts.items()
    }


def _plot_resolutions(axes: "Axes", outcome: FrcOutcome) -> None:
    """Plot the distribution of block resolutions in nm or px."""
    from napari_semsr.widgets.base import COLOURS, add_legend, shorten_label

    report = outcome.blocks
    edges, counts = _compute_histograms(outcome)
    if not counts:
        return
    look: Any = {"align": "edge", "color": COLOURS[0], "alpha": 0.85}
    axes.bar(edges[:-1], counts.pop("whole field"), np.diff(edges), **look)
    for (name, own), colour in zip(counts.items(), REGION_COLOURS, strict=False):
        axes.stairs(own, edges, color=colour, lw=1.4, label=shorten_label(name))
    marks = {k: v for k, v in _get_statistics(report).items() if v is not None}
    # the median first: the first colour stands out from the bars
    marks = {name: marks[name] for name in sorted(marks, key="Median".__ne__)}
    for (name, value), colour in zip(marks.items(), COLOURS[1:], strict=False):
        label_text = name.replace("th percentile", " % below")
        label = f"{label_text} {core.format_number(value, '.3g')} {report.unit}"
        axes.axvline(value, color=colour, lw=1.3, ls="--", label=label)
    add_legend(axes)
    axes.set_xlabel(f"Resolution ({report.unit})")
    axes.set_ylabel("Blocks")


def _create_curves(outcome: FrcOutcome) -> Mapping[str, base.Columns]:
    """Return tables of all blocks with their positions, and of all curves."""
    report = outcome.blocks
    result, grid = report.result, report.result.map
    rows, columns = np.indices(result.measured_values.shape)
    names = np.array(["", *result.reason_names], dtype=object)
    curves: dict[str, base.Columns] = {
        "blocks": {
            f"y ({grid.unit})": (grid.origin[0] + rows * grid.scale[0]).ravel(),
            f"x ({grid.unit})": (grid.origin[1] + columns * grid.scale[1]).ravel(),
            f"resolution ({result.unit})": result.measured_values.ravel(),
            "relative standard deviation": result.relative_sd.ravel(),
            "the same including that of the pixel size": np.hypot(
                result.relative_sd, result.size_error
            ).ravel(),
            "reason for none": names[result.reasons].ravel(),
        }
    }
    if outcome.whole is not None:
        curve, pixel = outcome.whole.result, outcome.whole.pixel_size_nm
        per = "µm⁻¹" if pixel else "px⁻¹"
        per_px = 1000.0 / float(np.sqrt(np.prod(pixel))) if pixel else 1.0
        curves["whole field"] = {
            f"frequency ({per})": curve.frequency_per_px * per_px,
            "FRC": curve.correlation,
            **{f"threshold {name}": level for name, level in curve.thresholds.items()},
        }
        if outcome.alone is not None:
            found_alone = outcome.alone.result
            curves["decorrelation"] = {
                f"frequency ({per})": found_alone.frequency_per_px * per_px,
                "unfiltered": found_alone.correlation,
                "filtered": found_alone.filtered,
            }
    if outcome.regions:
        edges, counts = _compute_histograms(outcome)
        if counts:
            middles = {f"resolution ({result.unit})": (edges[1:] + edges[:-1]) / 2}
            curves["histogram"] = {**middles, **counts}
    return curves


def _create_region_tables(outcome: FrcOutcome) -> Mapping[str, base.Columns]:
    if not outcome.regions:
        return {}
    result = outcome.blocks.result
    rows = [result.summarise(inside) for inside in outcome.regions.values()]
    unit = result.unit
    return {
        "Regions": {
            "region": list(outcome.regions),
            "blocks": [row.blocks for row in rows],
            "failed": [row.failed for row in rows],
            f"10 % ({unit})": [row.p10 for row in rows],
            f"median ({unit})": [row.median for row in rows],
            f"90 % ({unit})": [row.p90 for row in rows],
        }
    }


def _get_statistics(report: jobs.FrcMapReport) -> Mapping[str, float | None]:
    """Return the percentiles of the block resolutions, in the map's unit."""
    marks = {"10th percentile": 10, "Median": 50, "90th percentile": 90}
    return {label: report.result.percentile(share) for label, share in marks.items()}


def _get_metrics(outcome: FrcOutcome) -> base.Numbers:
    """Return the metrics of the blocks and of the whole field."""
    blocks = core.get_figures(outcome.blocks)
    whole = core.get_figures(outcome.whole) if outcome.whole else {}
    rows: dict[str, core.Figure | str] = {
        name: blocks[name] for name in _get_statistics(outcome.blocks) if name in blocks
    }
    resolution = whole.pop("Resolution", None)
    where = regions.format_measured_area_note(outcome.part) if outcome.part else ""
    rows["Whole field"] = (
        f"left out: {outcome.why}"
        if resolution is None
        else replace(resolution, note=f"{resolution.note} {where}".strip())
    )
    # the reasons of failed blocks follow below
    for name, figure in (whole or blocks).items():
        if name != "Note" and not name.startswith(("Failed", "In all")):
            rows.setdefault(name, figure)
    if outcome.alone is not None:
        cut_off = core.get_figures(outcome.alone)["Cut-off"]
        note = f"{cut_off.note}, measured on {outcome.alone.image} only"
        rows["Decorrelation"] = replace(cut_off, note=note)
        rows["Its method"] = outcome.alone.result.method
    return rows | {"Failed": blocks["Failed"]}


def _format_reasons(outcome: FrcOutcome) -> str:
    """Format the reasons for failed blocks with their colours, and any notes."""
    report = outcome.blocks
    lines = [
        f'<span style="color:{REASON_COLOURS[reason]}">■</span> {count} {base.TIMES} '
        f"{REASON_TEXTS[reason]}"
        for reason, count in report.reasons.items()
        if count
    ]
    if report.result.field_reason:
        reason = REASON_TEXTS[report.result.field_reason]
        lines.append(f"All blocks together: {reason}")
    beyond = outcome.whole.result.cut_off_warning if outcome.whole else ""
    lines += filter(None, (outcome.note, beyond))
    return "<br>".join(lines)
