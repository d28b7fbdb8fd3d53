"""Profile: grey levels of several layers along a movable line."""

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np
from magicgui.widgets import CheckBox
from napari.layers import Image, Shapes
from napari.utils.events import Event

from napari_semsr import analysis, core
from napari_semsr.jobs import PROFILE, MeasuredCurve
from napari_semsr.widgets import base, layers

_LIST_HEIGHT = 90  # height of the list of layers; chosen
_LINE_LAYER = "profile line"
_MAX_POINTS = 4000  # samples of a curve in the plot, which is some hundred pixels wide
_ROOM = 0.15  # share of their range, above and below moving curves; chosen
_HINT = (
    "Press 'Draw a line' and drag across a structure. The curve is updated when you "
    "move the line or its ends."
)
Curve = tuple[core.FloatArray, core.FloatArray]


@dataclass(frozen=True, slots=True, eq=False)
class _ReadRequest:
    """Image, transform and reader needed to read the profile of a layer."""

    image: core.Micrograph
    to_plane: core.Affine  # from its pixels to nm, or to px of the viewer
    reader: analysis.LineReader


_Line = tuple[float, float, float, float]
_Request = tuple[list[_ReadRequest], _Line, float, dict[str, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class LayerProfile:
    """Profile of one layer along the line."""

    name: str
    profile: analysis.Profile
    curve: MeasuredCurve | None = None  # None if it cannot be measured
    problem: str = ""  # the reason

    @property
    def widths(self) -> list[analysis.Estimate]:
        """Fitted widths of the lines, or of the edge, in the unit of the axis."""
        if self.curve is None:
            return []
        readings = self.curve.readings
        fits = [line.fwhm for line in readings.lines]
        fits += [readings.edge.width] if readings.edge else []
        return [self.curve.convert_to_axis_unit(fit) for fit in fits if fit is not None]

    @property
    def summary(self) -> str:
        """How wide the line is, or the reason why no width is known."""
        curve, widths = self.curve, self.widths
        if curve is None or curve.readings.reason is not None:
            why = self.problem if curve is None else curve.readings.reason
            return f"No width: {str(why).removesuffix('.')}"
        count, edge = len(curve.readings.lines), curve.readings.edge is not None
        what = "Edge" if edge else f"{count} lines" if count > 1 else "Line"
        if not widths:
            return f"No width: no fit determines it ({what.lower()})"
        if len(widths) < count:
            what = f"{len(widths)} of {what}"
        values = [one.value for one in widths]
        ends, rule = (min(values), max(values)), "FWHM, median; range"
        if len(widths) < 2:
            ends = widths[0].low, widths[0].high
            rule = "10 to 90 %; 95 %" if edge else "FWHM; 95 %"
        numbers = (core.format_number(n) for n in (float(np.median(values)), *ends))
        middle, low, high = numbers
        return f"{what} {middle} {curve.unit} wide ({rule}: {low} to {high})"


@dataclass(frozen=True, slots=True, eq=False)
class ProfileSet:
    """Profiles of several layers along one line."""

    layers: tuple[LayerProfile, ...]
    problems: tuple[str, ...]

    @property
    def unit(self) -> str:
        """Unit of the position axis."""
        return "nm" if self.layers[0].profile.is_calibrated else "px"


def _measure_profiles(
    requests: Sequence[_ReadRequest],
    line: _Line,
    width: float,
    options: Mapping[str, Any],
    *,
    fits: bool = True,
) -> core.Job[ProfileSet]:
    """Read profiles of several layers along a line, and fit them."""
    profiles, problems = [], []
    for number, one in enumerate(requests):
        image, profile, curve, problem = one.image, None, None, ""
        yield core.Progress(number, len(requests), f"reading {image.name}")
        how: Any = {"to_plane": one.to_plane, "width": width, "reader": one.reader}
        try:
            profile = analysis.read_profile(image, line, **how)
            if fits:
                curve = MeasuredCurve(
                    pixel_size_nm=image.pixel_size_nm,
                    pixel_size_sd_nm=image.pixel_size_sd_nm,
                    profile=profile,
                    readings=analysis.measure_profile(profile, **options),
                )
        except core.SemsrError as error:
            problem = core.Message(str(error), core.get_error_code(error))
        if profile is not None:
            profiles.append(LayerProfile(image.name, profile, curve, problem))
        else:
            problems.append(problem)
    if not profiles:
        raise core.ShapeError(problems[0])
    yield core.Progress(len(requests), len(requests), "done")
    return ProfileSet(tuple(profiles), tuple(problems))


class ProfilePanel(base.VerbPanel):
    """Panel that plots layer profiles along a line and updates as the line moves."""

    plots = True
    help_place = "profile.md"
    queue = None  # a profile is quick, and must not wait for long computations

    title, run_label = "Profile", "Measure"
    verb = PROFILE

    def build_form(self) -> None:
        """Build the form."""
        self.profiles: ProfileSet | None = None
        # by layer: its data and plane, and their reader
        self._readers = WeakKeyDictionary[Image, tuple[Any, ...]]()
        # events and mouse callback of the layer of lines
        self._lines_watched: Any = ()
        self._profiles_drawn: tuple[object, ...] = ()  # profiles shown in the plot
        self._waiting = False  # whether the line has moved since the last reading
        self._is_held = False  # whether the mouse is dragging on the layer of lines
        tooltip = "Layers whose profiles are plotted together"
        self.layers = self.input_layers.create_list(tooltip, _LIST_HEIGHT)
        tip, listed = "Shapes layer; its selected or last line.", self._list_line_layers
        self.line = self.input_layers.create_box("line", "Line", tip, layers=listed)
        tip = "Select the line tool of a Shapes layer; then drag across a structure."
        self.draw_button = base.create_button("Draw a line", self.start_drawing, tip)
        self.hint = base.RichTextLabel(_HINT)
        self.form = base.OptionsForm(analysis.ProfileOptions)
        text, tip = "Follow the line", "Update the curve, and measure at its end."
        self.live = CheckBox(name="live", text=text, value=True, tooltip=tip)
        tip = "Scale each layer from its minimum to its maximum."
        self.alike = CheckBox(name="alike", text="All curves from 0 to 1", tooltip=tip)
        form = base.Form(self.layers.native, self.line, self.draw_button)
        self.add_group("Layers", form, self.hint)
        self.add_group("Options", self.form, base.Form(self.live, self.alike))
        self.add_results("Result")
        base.FolderRun(self, self.read_options)
        self.follower = base.JobRunner(self)
        self.follower.returned.connect(self._show_moving_profiles)
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

    def _list_line_layers(self) -> list[Shapes]:
        """List Shapes layers, except those that other panels draw in."""
        key, own = layers.DRAWING_KEY, (None, True, _LINE_LAYER)
        shapes = layers.list_user_layers(self.viewer, Shapes)
        return [item for item in shapes if item.metadata.get(key) in own]

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

    def _find_line_ends(self, lines: Shapes | None) -> core.FloatArray | None:
        """Return the ends (2, 2) of the selected or last line, in world coordinates."""
        if lines is None:
            return None
        indices = layers.find_visible_shapes(lines, self.viewer.dims)
        in_view = [place for place in indices if lines.shape_type[place] == "line"]
        chosen = [place for place in in_view if place in lines.selected_data]
        if not in_view:
            return None
        vertices = np.asarray(lines.data[(chosen or in_view)[-1]], dtype=float)
        world = [lines.data_to_world(vertex) for vertex in vertices[:2]]
        return np.array(world)[:, -2:]

    # -- measuring ---------------------------------------------------------------

    def read_options(self) -> analysis.ProfileOptions:
        """Read the options, with the line in pixels of the first layer."""
        layer, ends = self._list_images()[0], self._find_line_ends(self.line.value)
        if ends is None:
            msg = "Draw a line first; it is measured in every image."
            raise core.OptionError(msg, code="line-missing")
        point = np.array(self.viewer.dims.point, dtype=float)
        places = []
        for end in ends:
            point[-2:] = end
            places += [f"{value:.3f}" for value in layer.world_to_data(point)[-2:]]
        return self.form.create_options(line=",".join(places))

    def _list_images(self) -> list[Image]:
        chosen = list(self.layers.value) or layers.list_grey_layers(self.viewer)[-1:]
        if not chosen:
            layers.micrograph_from_layer(None)  # the message says what to do
        return chosen

    def _create_read_request(self, layer: Image, first: Image) -> _ReadRequest:
        """Prepare a layer and its position in the plane for reading; cache its reader.

        `first`: the layer whose coordinates define the plane, if it is fitted to the
        view.
        """
        image = self.input_layers.read(layer, is_unturned=True, colour=True)
        place = layers.get_displayed_plane(layer, self.viewer.dims)
        reader = self._readers.get(layer)
        if reader is None or reader[0] is not layer.data or reader[1] != place:
            reader = (layer.data, place, analysis.LineReader(image.data))
            self._readers[layer] = reader
        linear, shift = layers.get_display_transform(layer)
        has_size = layers.is_calibrated(layer)
        k = layers.get_nm_scale(layer) if has_size else np.ones(2)
        to_plane = k[:, None] * linear / layers.get_display_fit(first)[0]
        size = tuple(np.linalg.norm(to_plane, axis=0).tolist())
        if has_size and image.pixel_size_nm != size:
            image = image.replace(pixel_size_nm=size)
        shift = k * layers.world_to_layer(first, shift)
        return _ReadRequest(image, core.Affine.from_matrix(to_plane, shift), reader[2])

    def _create_measure_request(self) -> _Request:
        """Return the parameters of the measurement: layers, line, width and options."""
        images, lines = self._list_images(), self.line.value
        requests = [self._create_read_request(layer, images[0]) for layer in images]
        layers.get_common_unit([one.image for one in requests])
        ends = self._find_line_ends(lines)
        if ends is None:
            msg = "No line in the displayed plane: press Draw a line, and drag one."
            raise core.OptionError(msg, code="line-missing")
        # in the coordinates in which the images are measured
        scale = layers.get_drawing_scale(lines, images[0])
        (y0, x0), (y1, x1) = (layers.world_to_layer(images[0], ends) * scale).tolist()
        line = y0, x0, y1, x1
        values = self.form.create_options(line=line).model_dump(exclude={"line"})
        width = values.pop("width") * min(one.to_plane.scale for one in requests)
        return requests, line, width, values

    def create_request(self) -> base.JobRequest:
        """Return the request of the job that measures the layers along a line."""
        measure = partial(_measure_profiles, *self._create_measure_request())
        return base.JobRequest(measure, self.show_profiles)

    def _measure_if_line_moved(self, busy: bool) -> None:
        """Measure again if the line moved during the last measurement."""
        if self._waiting and not busy:
            self._on_line_moved()

    def _on_line_moved(self, _: object = None) -> None:
        """Measure again if the line has moved, after any measurement in progress.

        While the mouse drags the line, only its curve is drawn. What cannot be measured
        is said when the user drags the line or presses the button, not before.
        """
        if not base.is_alive(self) or self.line.value is None or not self.live.value:
            return
        ends = self._find_line_ends(self.line.value)
        self.hint.setVisible(ends is None)
        if ends is None or not np.ptp(ends, axis=0).any():
            return
        self._waiting = self.follower.is_busy or self.is_busy
        if self._waiting:
            return
        try:
            request = self._create_measure_request()
        except core.SemsrError as error:
            if self._is_held:
                self.messages.show_status(str(error))
            return
        state = (self._is_held, [id(one.reader) for one in request[0]], *request[1:])
        if state == self._profiles_drawn:
            return
        self._profiles_drawn = state
        read = partial(_measure_profiles, *request, fits=False)
        if not self._is_held:
            self.run()
        elif base.is_plotting_imported():
            self.follower.start(self.title, base.JobRequest(read))
        else:  # which imports the plotting packages
            self.controls.start(read, self._show_moving_profiles, self.title)

    # -- showing -------------------------------------------------------------------

    def _show_moving_profiles(self, profiles: ProfileSet) -> None:
        """Show the profiles of a line that is being moved."""
        if base.is_alive(self):
            self._draw_profiles(profiles, moving=True)
            if self.results.isHidden():
                self.results.reveal()
                self.messages.show_status("Release the mouse to measure the line.")

    def show_profiles(self, profiles: ProfileSet) -> Iterator[None]:
        """Draw the curves and show the metrics."""
        self._draw_profiles(profiles)
        yield
        numbers: dict[str, core.Figure] = {}
        tables: dict[str, base.Columns] = {}
        curves: dict[str, base.Columns] = {}
        several = len(profiles.layers) > 1
        x, y = PROFILE.curves[0].axis_labels(profiles.unit)
        for number, one in enumerate(profiles.layers, start=1):
            before, of = (f"{one.name}: ", f" of {one.name}") if several else ("", "")
            is_answer = bool(one.widths) and not several  # the first length
            if one.curve is not None:
                for label, figure in one.curve.figures().items():
                    large = is_answer and bool(figure.unit)
                    is_answer = is_answer and not large
                    numbers[f"{before}{label}"] = replace(figure, large=large)
                for title, table in one.curve.tables().items():
                    tables[f"{title}{of}"] = table
            name = f"{one.name} ({number})" if one.name in curves else one.name
            distance = one.profile.distance_px * one.profile.per_px
            curves[name] = {x: distance, y: one.profile.intensity}
        long = profiles.layers[0].profile
        length = core.format_number(long.length_px * long.per_px)
        texts = [f"{one.name}: " * several + one.summary for one in profiles.layers]
        self.results.show_result(
            numbers,
            f"{'; '.join(texts)}, along {length} {profiles.unit}.",
            curves=curves,
            tables=tables,
            more="<br>".join(map(html.escape, profiles.problems)),
            reveal=self.results.isHidden() or not self.figures.text(),
        )

    def _redraw_profiles(self, _: object = None) -> None:
        if self.profiles is not None and base.is_alive(self):
            self._draw_profiles(self.profiles)

    def _draw_profiles(self, profiles: ProfileSet, *, moving: bool = False) -> None:
        """Draw the curves, with room around them while the line moves."""
        self.profiles = profiles
        curves, scales = list[Curve](), []
        for one in profiles.layers:
            x, y = _downsample_profile(one.profile)
            low, high = _get_ends(y)
            low, high = (low, high) if self.alike.value and high > low else (0.0, 1.0)
            scales.append((low, high))
            curves.append((x * one.profile.per_px, (y - low) / (high - low)))
        names = [base.shorten_label(one.name) for one in profiles.layers]
        canvas = self.results.clear_plot(height=260)
        # its layout takes longer than drawing
        canvas.figure.set_layout_engine("none" if moving else "constrained")
        axes = canvas.axes[0]
        drawn = zip(profiles.layers, curves, names, scales, strict=True)
        for (one, curve, name, (low, high)), colour in zip(
            drawn, cycle(base.COLOURS), strict=False
        ):
            axes.plot(*curve, color=colour, lw=1.2, label=name)
            look: Any = {"color": colour, "lw": 1.0, "ls": "--", "alpha": 0.8}
            for at, values in one.curve.readings.curves if one.curve else ():
                scaled = (values - low) / (high - low)
                axes.plot(at * one.profile.per_px, scaled, **look)
        along, grey = PROFILE.curves[0].axis_labels(profiles.unit)
        grey = f"{grey}, scaled" if self.alike.value else grey
        axes.set_xlabel(base.format_label(along))
        axes.set_ylabel(base.format_label(grey))
        axes.margins(x=0, y=_ROOM if moving else None)
        if len(profiles.layers) > 1:
            base.add_legend(axes)
        axes.grid(visible=True, alpha=0.15)
        canvas.refresh()


def _get_ends(values: core.FloatArray) -> tuple[float, float]:
    """Return the smallest and the largest finite value."""
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _downsample_profile(profile: analysis.Profile) -> Curve:
    """Downsample a profile, if long, to the minimum and maximum of each section.

    A section with a missing value is missing: NaN is both its minimum and maximum.
    """
    x, y = profile.distance_px, profile.intensity
    step = -(-2 * len(x) // _MAX_POINTS)
    if step <= 2:
        return x, y
    parts = y[: len(y) // step * step].reshape(-1, step)
    ends = np.sort(np.stack([parts.argmin(axis=1), parts.argmax(axis=1)], axis=1))
    indices = (np.arange(len(parts))[:, None] * step + ends).ravel()
    return x[indices], y[indices]
