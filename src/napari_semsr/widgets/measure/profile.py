"""Line profile: grey levels of several layers along a movable line."""

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
from magicgui.widgets import CheckBox
from napari.layers import Image, Shapes
from napari.utils.events import Event

from napari_semsr import analysis, core
from napari_semsr.jobs import PROFILE, MeasuredCurve
from napari_semsr.widgets import base, layers

if TYPE_CHECKING:
    from matplotlib.lines import Line2D

_LIST_HEIGHT = 90  # height of the list of layers; chosen
_LINE_LAYER = "profile line"
_MAX_POINTS = 4000  # samples of a curve in the plot, which is some hundred pixels wide
_ROOM = 0.15  # share of their range, above and below moving curves; chosen
_HINT = (
    "Press 'Draw a line' and drag across a structure. The curve is updated when you "
    "move the line or its ends."
)


@dataclass(frozen=True, slots=True, eq=False)
class _ReadRequest:
    """Image, transform and reader needed to read the profile of a layer."""

    image: core.Micrograph
    to_plane: core.Affine  # from its pixels to nm, or to px of the viewer
    reader: analysis.LineReader


_Request = tuple[
    list[_ReadRequest], tuple[float, float, float, float], float, dict[str, Any]
]


@dataclass(frozen=True, slots=True, eq=False)
class LayerProfile:
    """Profile of one layer along the line, or the reason why there is none."""

    name: str
    profile: analysis.Profile
    curve: MeasuredCurve | None
    problem: str


@dataclass(frozen=True, slots=True, eq=False)
class ProfileSet:
    """Profiles of several layers along one line."""

    layers: tuple[LayerProfile, ...]
    problems: tuple[str, ...]
    unit: str  # of the axis
    is_fitted: bool


def _measure_profiles(
    requests: Sequence[_ReadRequest],
    line: tuple[float, float, float, float],
    width: float,
    options: Mapping[str, Any],
    *,
    fits: bool = True,
) -> core.Job[ProfileSet]:
    """Read profiles of several layers along a line, and fit them."""
    profiles, problems = [], []
    for number, one in enumerate(requests):
        yield core.Progress(number, len(requests), f"reading {one.image.name}")
        try:
            profile = analysis.read_profile(
                one.image,
                line,
                to_plane=one.to_plane,
                width=width,
                reader=one.reader,
            )
        except core.ShapeError as error:
            problems.append(core.Message(str(error), core.get_error_code(error)))
            continue
        curve, problem = None, ""
        try:
            if fits:
                curve = MeasuredCurve(
                    pixel_size_nm=one.image.pixel_size_nm,
                    pixel_size_sd_nm=one.image.pixel_size_sd_nm,
                    profile=profile,
                    readings=analysis.measure_profile(profile, **options),
                )
        except core.SemsrError as error:
            problem = core.Message(str(error), core.get_error_code(error))
        profiles.append(LayerProfile(one.image.name, profile, curve, problem))
    if not profiles:
        raise core.ShapeError(problems[0])
    yield core.Progress(len(requests), len(requests), "done")
    unit = "nm" if profiles[0].profile.is_calibrated else "px"
    return ProfileSet(tuple(profiles), tuple(problems), unit, fits)


class ProfilePanel(base.VerbPanel):
    """Panel that plots layer profiles along a line and updates as the line moves."""

    plots = applies_to_folder = True
    help_place = "profile.md"
    queue = None  # a profile is quick, and must not wait for long computations

    title, run_label = "Profile", "Measure"
    verb = PROFILE

    def build_form(self) -> None:
        """Build the form."""
        self.profiles: ProfileSet | None = None
        self._readers: dict[int, tuple[object, object, analysis.LineReader]] = {}
        # events and mouse callback of the layer of lines
        self._lines_watched: Any = ()
        self._profiles_drawn: tuple[object, ...] = ()  # profiles shown in the plot
        self._lines: list[Line2D] = []  # its curves
        self._names_drawn: list[str] = []  # their profiles, while they move
        self._waiting = False  # whether the line has moved since the last reading
        self._is_held = False  # whether the mouse is dragging on the layer of lines
        tooltip = "Layers whose profiles are plotted together"
        self.layers = self.input_layers.create_list(tooltip, _LIST_HEIGHT)
        self.line = self.input_layers.create_box(
            "line",
            "Line",
            "Shapes layer whose selected line is measured, or its last line if none "
            "is selected.",
            layers=lambda: layers.list_user_layers(self.viewer, Shapes),
        )
        self.draw_button = base.create_button(
            "Draw a line",
            self.start_drawing,
            "Add a Shapes layer or use the chosen one, and select its line tool; "
            "then drag across a structure.",
        )
        self.hint = base.RichTextLabel(_HINT)
        self.form = base.OptionsForm(analysis.ProfileOptions)
        self.live = CheckBox(
            name="live",
            text="Follow the line",
            tooltip=(
                "Update the curve while the line is dragged, and measure it after the "
                "mouse is released."
            ),
            value=True,
        )
        self.alike = CheckBox(
            name="alike",
            text="All curves from 0 to 1",
            tooltip=(
                "Scale each layer from its minimum to its maximum, to compare layers "
                "with different grey levels."
            ),
        )
        form = base.Form(self.layers.native, self.line, self.draw_button)
        self.add_group("Layers", form, self.hint)
        ticks = base.Form(self.live, self.alike)
        self.add_group("Profile", self.form, ticks)
        self.add_results("Profile")
        self.follower = base.JobRunner(self)
        self.follower.returned.connect(self._show_live_profiles)
        self.follower.failed.connect(self.messages.show_status)
        for runner in (self.runner, self.follower):
            runner.busy_changed.connect(self._measure_if_line_moved)
        self.input_layers.follow_active_layer(self.layers)
        self.line.changed.connect(self._watch_line_layer)
        self.alike.changed.connect(self._redraw_profiles)
        for name in self.form.option_names:
            self.form.get_widget(name).changed.connect(self._on_line_moved)
        self.layers.changed.connect(self._on_line_moved)
        self._watch_line_layer()

    # -- the line --------------------------------------------------------------

    def start_drawing(self) -> None:
        """Select the line tool of the chosen Shapes layer, or of a new one."""
        with self.messages.show_errors():
            images = self._list_images()
            line = self.line.value
            if line is None:
                line = layers.add_drawing_layer(self.viewer, images[0], _LINE_LAYER)
                self.line.value = line
            self.viewer.layers.selection.active = line
            line.mode = "add_line"
            self.messages.show_status("Drag across a structure in the image.")

    def _watch_line_layer(self, _: object = None) -> None:
        """Connect to the chosen line layer, which references the panel only weakly."""
        if self._lines_watched:
            events, (callbacks, callbacks_known) = self._lines_watched
            for event in events:
                event.disconnect(self._on_line_moved)
            callbacks.remove(callbacks_known)
            self._lines_watched = ()
        lines, panel = self.line.value, ref(self)
        self.hint.setVisible(lines is None or self._find_line_ends(lines) is None)
        if lines is None:
            return

        def set_held(is_held: bool) -> None:
            alive = panel()
            if alive is not None:
                alive._is_held = is_held  # noqa: SLF001 - its own
                alive._on_line_moved()  # noqa: SLF001

        def track_drag(_: object, event: Event) -> Iterator[None]:
            set_held(True)
            try:
                yield
                while event.type == "mouse_move":
                    yield
            finally:
                set_held(False)

        # emitted while a line is drawn, dragged or chosen
        events = lines.events.data, lines.events.set_data, lines.events.highlight
        for event in events:
            event.connect(self._on_line_moved)
        # before napari's callback that starts the line
        lines.mouse_drag_callbacks.insert(0, track_drag)
        self._lines_watched = events, (lines.mouse_drag_callbacks, track_drag)
        self._on_line_moved()

    def _find_line_ends(self, lines: Shapes) -> core.FloatArray | None:
        """Return the ends (2, 2) of the selected or last line, in world coordinates."""
        kinds = lines.shape_type
        indices = layers.find_visible_shapes(lines, self.viewer.dims)
        lines_in_view = [place for place in indices if kinds[place] == "line"]
        lines_chosen = [
            place for place in lines_in_view if place in lines.selected_data
        ]
        if not lines_in_view:
            return None
        vertices = np.asarray(
            lines.data[(lines_chosen or lines_in_view)[-1]], dtype=float
        )
        world = [lines.data_to_world(vertex) for vertex in vertices[:2]]
        return np.array(world)[:, -2:]

    # -- measuring ---------------------------------------------------------------

    def read_values(self) -> dict[str, Any]:
        """Return the options, with the line in pixels of the first layer."""
        layer, lines = self._list_images()[0], self.line.value
        ends = None if lines is None else self._find_line_ends(lines)
        if ends is None:
            msg = "Draw a line first; it is measured in every image."
            raise core.OptionError(msg, code="line-missing")
        point = np.array(self.viewer.dims.point, dtype=float)
        places = []
        for end in ends:
            point[-2:] = end
            places += [f"{value:.3f}" for value in layer.world_to_data(point)[-2:]]
        return {**self.form.values(), "line": ",".join(places)}

    def _list_images(self) -> list[Image]:
        layers_chosen = (
            list(self.layers.value) or layers.list_grey_layers(self.viewer)[-1:]
        )
        if not layers_chosen:
            self.input_layers.read(None)  # the message says what to do
        return layers_chosen

    def _create_read_request(self, layer: Image, first: Image) -> _ReadRequest:
        """Prepare a layer and its position in the plane for reading; cache its reader.

        `first`: the layer whose coordinates define the plane, if it is fitted to the
        view.
        """
        image = self.input_layers.read(layer, is_unturned=True, colour=True)
        place = layers.get_displayed_plane(layer, self.viewer.dims)
        reader = self._readers.get(id(layer))
        if reader is None or reader[0] is not layer.data or reader[1] != place:
            reader = (layer.data, place, analysis.LineReader(image.data))
            self._readers[id(layer)] = reader
        linear, shift = layers.get_display_transform(layer)
        linear = linear / layers.get_display_fit(first)[0]
        shift = layers.world_to_layer(first, shift)
        has_size = layers.is_calibrated(layer)
        k = layers.get_nm_scale(layer) if has_size else np.ones(2)
        size = tuple(np.linalg.norm(k[:, None] * linear, axis=0).tolist())
        if has_size and image.pixel_size_nm != size:
            image = image.replace(pixel_size_nm=size)
        return _ReadRequest(
            image, core.Affine.from_matrix(k[:, None] * linear, k * shift), reader[2]
        )

    def _create_measure_request(self) -> _Request:
        """Return the parameters of the measurement: layers, line, width and options."""
        images = self._list_images()
        requests = [self._create_read_request(layer, images[0]) for layer in images]
        layers.get_common_unit([one.image for one in requests])
        lines = self.line.value
        ends = None if lines is None else self._find_line_ends(lines)
        if lines is None or ends is None:
            msg = (
                "There is no line in the displayed plane; press Draw a line, and drag "
                "across a structure."
            )
            raise core.OptionError(msg, code="line-missing")
        # in the coordinates in which the images are measured
        ends = layers.world_to_layer(images[0], ends) * layers.get_drawing_scale(
            lines, images[0]
        )
        (y0, x0), (y1, x1) = ends.tolist()
        line = y0, x0, y1, x1
        values = self.form.create_options(line=line).model_dump(exclude={"line"})
        width = values.pop("width") * min(one.to_plane.scale for one in requests)
        return requests, line, width, values

    def create_request(self) -> base.JobRequest:
        """Return the request of the job that measures the layers along a line."""
        images, request = self._list_images(), self._create_measure_request()
        here = {id(layer) for layer in self.viewer.layers}  # others are released
        self._readers = {
            key: reader for key, reader in self._readers.items() if key in here
        }
        measure = partial(_measure_profiles, *request)
        return base.JobRequest(
            measure, self.show_profiles, partial(self._record_sources, images)
        )

    def _record_sources(self, images: Sequence[Image]) -> None:
        self.result_layers.sources = self.input_layers.get_planes(images)

    def _measure_if_line_moved(self, busy: bool) -> None:
        """Measure again if the line moved during the last measurement."""
        if self._waiting and not busy:
            self._on_line_moved()

    def _on_line_moved(self, _: object = None) -> None:
        """Measure again if the line has moved, after any measurement in progress.

        While the mouse drags the line, only its curve is drawn.
        """
        if not base.is_alive(self) or self.line.value is None or not self.live.value:
            return
        ends = self._find_line_ends(self.line.value)
        self.hint.setVisible(ends is None)
        if ends is None or not np.ptp(ends, axis=0).any():
            return
        if self.follower.is_busy or self.is_busy:
            self._waiting = True
            return
        self._waiting = False
        try:
            request = self._create_measure_request()
        except core.SemsrError as error:
            self.messages.show_status(str(error))
            return
        state = (self._is_held, [id(one.reader) for one in request[0]], *request[1:])
        if state == self._profiles_drawn:
            return
        self._profiles_drawn = state
        read = partial(_measure_profiles, *request, fits=not self._is_held)
        if base.is_plotting_imported() and (self._is_held or self.profiles is not None):
            self._record_sources(self._list_images())
            self.follower.start(self.title, base.JobRequest(read))
        elif self._is_held:  # which imports the plotting packages
            self.controls.start(read, self._show_live_profiles, self.title)
        else:
            self.run()

    def _show_live_profiles(self, profiles: ProfileSet) -> None:
        """Show the profiles of a line that is being moved, or was just released."""
        if not base.is_alive(self):
            return
        self._draw_profiles(profiles, moving=not profiles.is_fitted)
        if profiles.is_fitted:
            self._show_numbers(profiles, reveal=not self.figures.text())
        elif self.results.isHidden():
            self.results.reveal()
            self.messages.show_status("Release the mouse to measure the line.")

    # -- showing -------------------------------------------------------------------

    def show_profiles(self, profiles: ProfileSet) -> Iterator[None]:
        """Draw the curves and show the metrics."""
        self._draw_profiles(profiles)
        yield
        self._show_numbers(profiles, reveal=True)

    def _redraw_profiles(self, _: object = None) -> None:
        if self.profiles is not None and base.is_alive(self):
            self._draw_profiles(self.profiles)

    def _show_numbers(self, profiles: ProfileSet, *, reveal: bool) -> None:
        numbers: dict[str, core.Figure] = {}
        tables: dict[str, base.Columns] = {}
        several = len(profiles.layers) > 1
        for one in profiles.layers:
            before, of = (f"{one.name}: ", f" of {one.name}") if several else ("", "")
            if one.curve is not None:
                for label, figure in one.curve.figures().items():
                    first = not numbers and not several
                    numbers[f"{before}{label}"] = replace(figure, large=first)
                for title, table in one.curve.tables().items():
                    tables[f"{title}{of}"] = table
        more = "<br>".join(
            html.escape(text)
            for text in (*profiles.problems, *(one.problem for one in profiles.layers))
            if text
        )
        curves: dict[str, base.Columns] = {}
        x, y = PROFILE.curves[0].axis_labels(profiles.unit)
        for number, one in enumerate(profiles.layers, start=1):
            name = f"{one.name} ({number})" if one.name in curves else one.name
            curves[name] = {
                x: one.profile.distance_px * one.profile.per_px,
                y: one.profile.intensity,
            }
        count = len(profiles.layers)
        long = profiles.layers[0].profile
        length = f"{core.format_number(long.length_px * long.per_px)} {profiles.unit}"
        sentence = f"{count} profile{'s'[: count != 1]} along {length}"
        self.results.show_result(
            numbers,
            f"{sentence}: {_summarise_profile(profiles.layers[0])}."
            if count == 1
            else f"{sentence}.",
            curves=curves,
            tables=tables,
            more=more,
            reveal=reveal,
        )

    def _draw_profiles(self, profiles: ProfileSet, *, moving: bool = False) -> None:
        """Draw the curves, keeping the axes while the line moves."""
        from napari_semsr.widgets.base import (
            COLOURS,
            add_legend,
            format_label,
            shorten_label,
        )

        self.profiles = profiles
        curves, scales = [], []
        for one in profiles.layers:
            x, y = _downsample_profile(one.profile)
            low, high = (
                _get_curve_bounds([(x, y)])[:2] if self.alike.value else (0.0, 1.0)
            )
            low, high = (low, high) if high > low else (0.0, 1.0)
            scales.append((low, high))
            curves.append((x * one.profile.per_px, (y - low) / (high - low)))
        names = [shorten_label(one.name) for one in profiles.layers]
        if moving and self._update_curves(curves, [*names, profiles.unit]):
            return
        canvas = self.results.clear_plot(height=260)
        # its layout takes longer than drawing
        canvas.figure.set_layout_engine("none" if moving else "constrained")
        axes = canvas.axes[0]
        self._lines = []
        for one, curve, name, (low, high), colour in zip(
            profiles.layers, curves, names, scales, cycle(COLOURS), strict=False
        ):
            look: Any = {"color": colour, "lw": 1.2, "label": name, "animated": moving}
            self._lines += axes.plot(*curve, **look)
            for at, values in one.curve.readings.curves if one.curve else ():
                scaled_values = (values - low) / (high - low)
                k = one.profile.per_px
                axes.plot(
                    at * k, scaled_values, color=colour, lw=1.0, ls="--", alpha=0.8
                )
        along, grey = PROFILE.curves[0].axis_labels(profiles.unit)
        axes.set_xlabel(format_label(along))
        axes.set_ylabel(format_label(f"{grey}, scaled" if self.alike.value else grey))
        axes.margins(x=0)
        if len(profiles.layers) > 1:
            add_legend(axes)
        axes.grid(visible=True, alpha=0.15)
        self._names_drawn = [*names, profiles.unit] if moving else []
        if moving:
            axes.margins(y=_ROOM)
            axes.set_xlim(0, (1 + _ROOM) * _get_curve_bounds(curves)[2])
            axes.set_ylim(*axes.get_ylim())
            canvas.redraw_lines(self._lines)
        canvas.refresh()

    def _update_curves(
        self,
        curves: Sequence[tuple[core.FloatArray, core.FloatArray]],
        names: list[str],
    ) -> bool:
        """Update the curves if they match the current plot and fit its axes."""
        if self.plot is None or self._names_drawn != names:
            return False
        axes = self.plot.axes[0]
        (_, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        low, high, longest = _get_curve_bounds(curves)
        if not (bottom <= low and high <= top and right / 2 <= longest <= right):
            return False
        for line, curve in zip(self._lines, curves, strict=True):
            line.set_data(*curve)
        self.plot.redraw_lines(self._lines)
        return True


def _get_curve_bounds(
    curves: Sequence[tuple[core.FloatArray, core.FloatArray]],
) -> tuple[float, float, float]:
    """Return the minimum and maximum of the curves, and the longest curve's length."""
    values = np.concatenate([y for _, y in curves])
    finite = values[np.isfinite(values)]
    longest = max(float(x[-1]) for x, _ in curves)
    if not finite.size:
        return 0.0, 0.0, longest
    return float(finite.min()), float(finite.max()), longest


def _downsample_profile(
    profile: analysis.Profile,
) -> tuple[core.FloatArray, core.FloatArray]:
    """Downsample a profile, if long, to the minimum and maximum of each section."""
    x, y = profile.distance_px, profile.intensity
    step = -(-2 * len(x) // _MAX_POINTS)
    if step <= 2:
        return x, y
    count = len(x) // step
    parts = y[: count * step].reshape(count, step)
    finite: core.BoolArray = np.asarray(np.isfinite(parts).all(axis=1))
    without_gaps = np.where(finite[:, None], parts, 0.0)
    at = np.arange(count)[:, None] * step
    ends = np.sort(
        np.stack([without_gaps.argmin(axis=1), without_gaps.argmax(axis=1)], axis=1)
    )
    indices = (at + ends).ravel()
    return x[indices], np.where(np.repeat(finite, 2), y[indices], np.nan)


def _summarise_profile(one: LayerProfile) -> str:
    """Summarise the profile of one layer in a few words."""
    if one.curve is None:
        return "no readings"
    if one.curve.readings.reason is not None:
        return "neither line nor edge"
    label, figure = next(iter(one.curve.figures().items()))
    name = f"{label[:1].lower()}{label[1:]}"
    if isinstance(figure.value, str):
        return f"{name.partition(',')[0]} without a fit"
    figure_shown = replace(figure, note="")
    return f"{name} {figure_shown}" if figure.unit else f"{figure_shown} {name}"
