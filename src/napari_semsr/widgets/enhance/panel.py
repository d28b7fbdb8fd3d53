"""Enhance: run a model or a classical method over a layer, into a calibrated store."""

import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import CheckBox, ComboBox
from napari.components import ViewerModel
from napari.layers import Image
from qtpy.QtCore import QObject, QTimer
from qtpy.QtGui import QShowEvent

from napari_semsr import core, io, jobs
from napari_semsr.analysis import FAMILIARITY, map_misfit
from napari_semsr.inference import (
    ADVANCED_GROUP,
    WEIGHTS,
    ClusterOptions,
    EnhanceOptions,
)
from napari_semsr.models import MODELS_BY_INSTRUMENT
from napari_semsr.widgets import base, layers
from napari_semsr.widgets.compare import CompareControls, OverlayLayer
from napari_semsr.widgets.enhance.models import (
    ModelChooser,
    read_training_digests,
)

if TYPE_CHECKING:
    from napari.utils.events import Event as NapariEvent

    from napari_semsr.inference import LiveField

# Chosen: by then napari has drawn the panel, and one opened only briefly is closed.
_AHEAD_MS = 1000

_torch_imported = Event()


def start_torch() -> core.Job[None]:
    """Import torch in the job's thread, unless it is already imported."""
    if not _torch_imported.is_set():
        message = "Starting torch (some seconds, once per napari session)"
        yield core.Progress(0, 0, message)
        _import_torch()


def _import_torch() -> None:
    core.load_torch_libraries()
    importlib.import_module("torch")
    _torch_imported.set()


@cache
def _preload_torch() -> None:
    """Import torch once in the background, while a panel is idle."""

    def load_in_background() -> None:
        # a run reports the error
        with core.use_background_priority(), suppress(Exception):
            _import_torch()

    # not a daemon: Python must not exit during the import
    Thread(target=load_in_background, name="semsr-torch").start()


_TILES = "Enhancing tiles", "Restoring tiles"  # by a model, by a classical method
_DRAW_MS = 50  # between two updates of the live field; chosen
_SMALL_PX = 1 << 20  # pixels of a level that is read as a whole; chosen
_RUN_KEY = "semsr_begun"
_INCOMPLETE = " (incomplete)"
# with the number that napari adds if the name exists
_INCOMPLETE_END = re.compile(rf"{re.escape(_INCOMPLETE)}( \[\d+\])?$")


# layer, model, options, and the plane and its place
_Request = tuple[Image, str, EnhanceOptions, tuple[object, ...]]


def create_live_field(
    micrograph: core.Micrograph,
    layer: Image,
    card: Mapping[str, object],
    options: EnhanceOptions,
    *,
    name: str,
    whole: bool,
) -> tuple["LiveField", dict[str, object]]:
    """Return a live field that shows tiles as they are enhanced, and layer keywords.

    It has the calibration of the result, and the contrast of the layer.
    """
    from napari_semsr.inference import LiveField, plan_output

    output = plan_output(micrograph, card, options)
    levels: list[core.ReadableArray] = [micrograph.data]
    if layer.multiscale and layer.ndim == micrograph.data.ndim:
        levels += list(layer.data)[1:]
    # those that can be displayed without computation
    sources = [item for item in levels if isinstance(item, np.ndarray)]
    coarsest = levels[-1]
    if not sources and coarsest.shape[0] * coarsest.shape[1] <= _SMALL_PX:
        sources = [np.asarray(coarsest)]
    if not sources:  # a medium grey
        sources = [np.full((1, 1), float(np.mean(layer.contrast_limits)))]
    own = card.get("grey", "input") != "input"  # its grey levels are those of the model
    grey = core.contrast_limits(sources) if own else None
    live = LiveField(output, sources, grey=grey, whole=whole)
    result = core.Micrograph(
        data=live.levels[-1][:, :],
        pixel_size_nm=output.frame.pixel_size_nm,
        name=name,
        provenance=jobs.compose_derived_provenance("enhance", {}, image=micrograph),
        origin=output.frame.origin,
        spacing_px=output.frame.spacing_px,
    )
    limits = (0.0, 1.0) if own else tuple(layer.contrast_limits)
    keywords = layers.create_layer_keywords(result, contrast_limits=limits)
    mark = {"model": str(card.get("name")), "digest": None}  # not known yet
    keywords["metadata"][io.NETWORK_KEY] = mark
    return live, keywords


def find_unfinished_layers(viewer: ViewerModel) -> "list[LiveLayer]":
    """Return the unfinished live layers of a viewer, newest first."""
    live_layers = [getattr(layer, _RUN_KEY, None) for layer in reversed(viewer.layers)]
    return [live for live in live_layers if live is not None and live.is_partial]


class LiveLayer(QObject):
    """Layer that is being enhanced, which outlives the panel that started it."""

    def __init__(
        self,
        viewer: ViewerModel,
        live: "LiveField",
        keywords: dict[str, object],
        store: Path,
        on_removed: Callable[[], None],
        request: _Request,
    ) -> None:
        super().__init__()
        self.live = live
        self.store = store
        self.request = request  # source, model, options, and its plane and path
        # otherwise the unfinished store is deleted when its run ends
        self.is_wanted = True
        self._viewer = viewer
        self._on_layer_removed = on_removed
        many = len(live.levels) > 1 and max(live.shape) > io.SINGLE_PX
        data: object = live.levels if many else live.levels[0]
        about: Any = keywords.get("metadata", {})
        keywords = keywords | {"metadata": {**about, io.LIVE_KEY: True}}
        self.layer = viewer.add_image(data, multiscale=many, **keywords)
        setattr(self.layer, _RUN_KEY, self)
        viewer.layers.events.removed.connect(self._on_any_layer_removed)
        self._view = layers.get_visible_box(viewer, self.layer)
        live.queue.set_view(self._view)
        self._timer = base.create_timer(self, self.on_timeout, _DRAW_MS)
        self._timer.start()

    @property
    def is_shown(self) -> bool:
        """Whether the layer is still in the viewer."""
        return self.layer in self._viewer.layers

    @property
    def is_partial(self) -> bool:
        """Whether part of the layer is not yet enhanced."""
        return bool(self.layer.metadata.get(io.LIVE_KEY))

    def on_timeout(self) -> None:
        """Report the visible area to the run, and draw new tiles."""
        view = layers.get_visible_box(self._viewer, self.layer)
        if view != self._view:  # then napari has just read all of it again
            self._view = view
            self.live.queue.set_view(view)
            return
        news = self.live.take_changed_box()
        if news is not None and view is not None and news.overlaps(view):
            self.layer.refresh(extent=False, thumbnail=False, highlight=False)

    def resume(self, on_removed: Callable[[], None]) -> None:
        """Continue updating the layer for a resumed run."""
        self._on_layer_removed = on_removed
        self._update_name(complete=True)
        self._timer.start()

    def pause(self) -> None:
        """Update the layer one last time after the run has stopped, and keep it."""
        self._timer.stop()
        if self.is_shown:
            self._update_name(complete=False)
            self.live.take_changed_box()
            self.layer.refresh(extent=False, highlight=False)

    def _update_name(self, *, complete: bool) -> None:
        """Add the "incomplete" suffix to the layer name, or remove it."""
        name = _INCOMPLETE_END.sub("", self.layer.name)
        if not complete:
            self.layer.name = f"{name}{_INCOMPLETE}"
        elif name != self.layer.name:
            self.layer.name = layers.find_free_name(self._viewer, name)

    def finish(self, micrograph: core.Micrograph, levels: Sequence[object]) -> None:
        """Replace the live levels with the finished store."""
        self._timer.stop()
        if not self.is_shown:
            return
        self.layer.metadata.pop(io.LIVE_KEY, None)
        delattr(self.layer, _RUN_KEY)
        self.layer.data = list(levels) if self.layer.multiscale else levels[0]
        self.layer.metadata.update(layers.create_layer_keywords(micrograph)["metadata"])
        self.layer.metadata[io.STORE_KEY] = str(self.store.resolve())
        layers.disable_cache(self.layer)

    def discard(self) -> None:
        """Remove the layer from the viewer."""
        self._timer.stop()
        self.is_wanted = False
        if self.is_shown:
            self._viewer.layers.remove(self.layer)

    def _on_any_layer_removed(self, event: "NapariEvent") -> None:
        if base.is_alive(self) and event.value == self.layer:
            self._timer.stop()
            self.is_wanted = False
            self._on_layer_removed()


_TICK_MS = 100  # between two updates of a preview; chosen
_SIDE_PX = 192  # of the preview; chosen
_NAME = "preview"
Subject = tuple[Image, core.Micrograph, str, EnhanceOptions]
"""Layer, its image, model and options."""


class MousePreview(OverlayLayer):
    """Preview of a model's output under the mouse."""

    def __init__(
        self,
        viewer: ViewerModel,
        read: Callable[[], Subject],
        say: Callable[[str], None],
        parent: QObject,
    ) -> None:
        super().__init__(viewer, parent)
        self._read, self._say = read, say
        self._is_wanted = False
        self.side_px = _SIDE_PX
        self._subject: Subject | None = None
        self._place: tuple[float, ...] = ()
        self._desk = jobs.PreviewChannel()
        self.runner = base.JobRunner(self)
        self.runner.failed.connect(self._report_failure)
        self.runner.busy_changed.connect(self._restart_preview_if_idle)
        self._timer = base.create_timer(self, self.on_timeout, _TICK_MS)
        viewer.dims.events.point.connect(self._on_plane_changed)

    def start(self) -> None:
        """Start or restart the preview with the current settings of the panel."""
        self._is_wanted = True
        if self.runner.is_busy:
            self.runner.cancel()
            return
        try:
            subject = self._read()
        except core.SemsrError as error:
            self._report_failure(str(error))
            return
        _, image, model, options = subject
        self._subject, self._desk, self._place = subject, jobs.PreviewChannel(), ()
        desk = self._desk

        def create_job() -> core.Job[None]:
            yield from start_torch()
            yield from jobs.run_preview(image, desk, model=model, options=options)

        self.runner.start("Preview", base.JobRequest(create_job))
        self._timer.start()

    def restart_if_active(self, _: object = None) -> None:
        """Restart the preview after a setting has changed; do nothing if it is off."""
        if self._is_wanted:
            self.start()

    def _on_plane_changed(self, _: object = None) -> None:
        """Restart the preview if the displayed plane may have changed."""
        if base.is_alive(self) and self._subject and self._subject[0].ndim > 2:
            self.restart_if_active()

    def stop(self) -> None:
        """Stop the preview, and remove its box."""
        self._is_wanted = False
        self._timer.stop()
        self.runner.cancel()
        self.remove()

    def on_timeout(self) -> None:
        """Request the box under the mouse, and show any finished result."""
        subject = self._subject
        if subject is None or subject[0] not in self._viewer.layers:
            self.stop()
            return
        layer, place = subject[0], tuple(self._viewer.cursor.position)
        if place != self._place:
            self._place = place
            pixel = layers.world_to_pixels(layer, [place], self._viewer.dims)[0, -2:]
            side = self.side_px
            y, x = (round(float(at)) - side // 2 for at in pixel)
            self._desk.request_box(core.Box.from_shape((side, side), (y, x)))
        answer = self._desk.take_result()
        if answer is not None:
            (box, pixels), image = answer, subject[1]
            scale, start = np.asarray(image.scale), np.array(box.corner) - 0.5
            pitch = scale * np.asarray(box.shape) / pixels.shape
            corner = np.asarray(image.origin) + (start * scale + pitch / 2)
            limits = {"contrast_limits": tuple(layer.contrast_limits)}
            look = layers.create_layer_keywords(image, name=_NAME, **limits)
            self.show_pixels(pixels, look | {"scale": pitch, "translate": corner})

    def _restart_preview_if_idle(self, busy: bool) -> None:
        if self._is_wanted and not busy:
            self.start()

    def _report_failure(self, text: str) -> None:
        self._is_wanted = False
        self.stop()
        self._say(text)


# the enhanced images, and their maps
_Outcome = tuple[base.JobResult, Mapping[str, base.OpenedImage]]
_INFORMED_NETWORK = "informed"  # architecture of models with weights as options


class _CollapsibleOptions(base.CollapsibleSection):
    """Group of options that is collapsed by default."""

    has_settings = True

    def __init__(self, title: str, tooltip: str, *more: base.OptionsForm[Any]) -> None:
        self.form = base.OptionsForm(EnhanceOptions, group=title)
        super().__init__(title, tooltip, self.form, *more)

    def set_values(self, **values: object) -> None:
        """Set values, and expand the group if one differs from its default."""
        self.form.set_values(**values)
        usual = EnhanceOptions().model_dump()
        if any(value != usual[name] for name, value in values.items()):
            self.set_expanded()


_DIGESTED_PX = 1 << 24  # of a layer; chosen: a second
_BEFORE_REGISTERED = (
    " Enhance the image from before the registration, and register the result."
)


_MAPS = {
    jobs.MISFIT: "misfit (%)",
    jobs.UNFAMILIAR: "distance to training area (unlike it above 1)",
}
"""The name of the layer of each map."""
_EXISTING = ("refuse", "refuse"), ("resume it", "resume"), ("replace it", "replace")


class EnhancePanel(base.VerbPanel):
    """Panel that enhances a layer with an installed model or a classical method.

    The layer of a model's result is added immediately. It shows the input where nothing
    is enhanced yet, and the part in view is enhanced first.
    """

    help_place = "live.md"
    title = run_label = "Enhance"
    verb = jobs.ENHANCE
    _project: Path | None = None  # folder searched for unfinished stores
    _store_offered: Path | None = None  # the one of them to resume

    def build_form(self) -> None:
        """Build the form."""
        self.live: LiveLayer | None = None
        self._outcome: base.JobResult | None = None  # of the last run, whole
        # options as read now, and those before
        self._options_shown: tuple[EnhanceOptions, EnhanceOptions] | None = None
        self.layer = self.input_layers.create_box(
            "layer", "Layer", "The grey image to enhance."
        )
        self.all_planes = self.input_layers.create_planes_box()
        self.model = ModelChooser(self)
        self.add_group("Image", base.Form(self.layer, self.all_planes))
        self.add_group("Method", self.model)
        self._build_settings()
        self.look = CompareControls(self)
        tip = "Enhance a small box under the mouse, to test models and options."
        text = "Preview at the mouse"
        self.pointing = CheckBox(name="pointing", text=text, tooltip=tip)
        self.look.add_row(self.pointing)
        say = self.messages.show_problem
        self.preview = MousePreview(self.viewer, self._read_run_inputs, say, self)
        self.add_group("Compare", self.look)
        self.add_results("Result")
        self.finder = base.JobRunner(self)
        self.finder.failed.connect(self.messages.show_job_problem)
        base.FolderRun(
            self, self.read_values, replaces=lambda: self.existing.value == "replace"
        )
        self._connect_signals()
        self.input_layers.follow_active_layer(self.layer)
        self._propose_model(self.layer.value)
        self._compare_model(self.layer.value)
        self._update_form_rows()
        self._offer_to_resume()

    def _build_settings(self) -> None:
        self.form = base.OptionsForm(EnhanceOptions)
        self.form.set_values(
            tile=int(base.get_preference("computing", "tile_px")) or None,
            precision=base.get_preference("computing", "precision"),
        )
        tooltip = "Amounts of noise, blur and haze to remove; by default, as measured."
        self.weights = _CollapsibleOptions(WEIGHTS, tooltip)
        self.cluster = base.OptionsForm(ClusterOptions)
        scheduler = self.cluster.get_widget("scheduler").native
        scheduler.setPlaceholderText("none: run in napari")
        tooltip = "Memory, tolerance, flips and rotations, cluster; rarely needed."
        self.advanced = _CollapsibleOptions(ADVANCED_GROUP, tooltip, self.cluster)
        self.classical = base.OptionsForm(jobs.RESTORE.options)
        self.classical.show_row("method", visible=False)  # it is in the list of models
        tip = "If unticked, only the part in view is enhanced. It is always the first."
        self.whole = CheckBox(name="whole", text="Whole field", value=True, tooltip=tip)
        tip = "Show where the result, blurred again, differs from the input."
        self.misfit = CheckBox(name="misfit", text="Map of the misfit", tooltip=tip)
        tip = "Show how far blocks of 96 px are from the training area: unlike above 1."
        text = "Show distance to the training area"
        self.unfamiliar = CheckBox(name="unfamiliar", text=text, tooltip=tip)
        self.output = base.create_store_edit()
        tip = "Keep a store, overwrite it, or resume its run with its settings."
        self.existing = ComboBox(
            name="existing", label="If it exists", tooltip=tip, choices=_EXISTING
        )
        self._ticks = {jobs.MISFIT: self.misfit, jobs.UNFAMILIAR: self.unfamiliar}
        choices = base.Form(self.whole, *self._ticks.values())
        # what a classical method does without
        self._of_models = self.form, choices, self.advanced
        self.add_group(
            "Settings",
            *(self.classical, self.form, self.weights, choices),
            base.Form(self.output, self.existing),
            self.advanced,
        )

    def _connect_signals(self) -> None:
        """Connect all choices to the model card, the rows and the preview."""
        preview, restart = self.preview, self.preview.restart_if_active
        self.pointing.changed.connect(
            lambda on: preview.start() if on else preview.stop()
        )
        preview.runner.failed.connect(self._stop_preview)
        self.runner.cancelled.connect(self._report_kept_layer)
        self.closed.connect(self._stop_preview)
        for call in (self._propose_model, self._compare_model, self.look.select_layers):
            self.layer.changed.connect(call)
        self.model.changed.connect(self._update_form_rows)
        self.form.on_change("resample", lambda _: self._compare_model(self.layer.value))
        self.whole.changed.connect(self._set_whole_image)
        for control in (self.all_planes, self.layer):
            control.changed.connect(self._update_maps)
        for form in (self.form, self.weights.form, self.advanced.form):
            for name in form.option_names:
                form.on_change(name, restart)
        for change in (self.layer.changed, self.model.changed):
            change.connect(restart)
        self.runner.failed.connect(self._keep_or_remove_layer)
        self.closed.connect(self._pause_unfinished_layer)
        self.session.changed.connect(self._check_project_stores)

    def _propose_model(self, layer: Image | None) -> None:
        """Propose the model for a layer's microscope, then one trained on the layer."""
        kind = None if layer is None else layers.get_instrument(layer)
        self.model.propose_model(MODELS_BY_INSTRUMENT.get(kind or ""), layer)
        self.finder.cancel()
        # a network's output is not what the model was trained on
        if layer is None or layers.get_network_name(layer) is not None:
            return
        if trained := read_training_digests():
            image = None
            with suppress(core.SemsrError, OSError):  # a run reports it
                image = self.input_layers.read(layer)
            make = partial(_find_own_model, layer, image, trained)
            show = partial(self._propose_own_model, layer)
            request = base.JobRequest(make, show, queue=f"models of {id(self)}")
            self.finder.start("Look for a model", request)

    def _propose_own_model(self, layer: Image, name: str | None) -> None:
        if name is not None and layer is self.layer.value:
            self.model.propose_model(name, layer)

    def _compare_model(self, layer: Image | None) -> None:
        size, advice = None, ""
        with suppress(core.SemsrError):  # it cannot be enhanced, which a run reports
            size = self.input_layers.read(layer).pixel_size_nm
        if layer is not None and layers.get_last_job_name(layer) == "register":
            advice = _BEFORE_REGISTERED
        resample = self.form.values()["resample"]
        self.model.compare_with_layer(size, resample, advice, layer)

    def _update_form_rows(self) -> None:
        """Show the settings of the chosen model or method."""
        card, method = self.model.card, self.model.method
        self.verb = jobs.ENHANCE if method is None else jobs.RESTORE
        if method is not None:
            self.classical.set_values(method=method)
            self._stop_preview()
        self.classical.setVisible(method is not None)
        for part in (*self._of_models, self.pointing.native):
            part.setVisible(method is None)
        self.form.show_row("norm", bool(card.get("norms")))
        self.form.show_row("resample", card.get("pixel_size_nm") is not None)
        self.weights.setVisible(self._has_separate_amounts())
        self._update_maps()

    def _list_possible_maps(self) -> dict[str, bool]:
        """Return whether each map can be made of the image by the model."""
        card, one_plane = self.model.card, not self.input_layers.uses_all_planes()
        return {
            jobs.MISFIT: one_plane and jobs.is_instrument_model(card),
            jobs.UNFAMILIAR: one_plane and FAMILIARITY in (card.get("training") or {}),
        }

    def _update_maps(self, _: object = None) -> None:
        """Offer the maps that can be made."""
        if base.is_alive(self):
            for key, is_possible in self._list_possible_maps().items():
                self._ticks[key].visible = is_possible

    def _has_separate_amounts(self) -> bool:
        """Return whether the model has separate amounts for noise, blur and haze."""
        return self.model.card.get("architecture") == _INFORMED_NETWORK

    def _set_whole_image(self, whole: bool) -> None:
        if self.live is not None:
            self.live.live.queue.whole = whole

    def read_values(self) -> dict[str, Any]:
        """Return the model and options, for images of any pixel size."""
        if self.model.method is not None:
            return self.verb.list_values(options=self.classical.create_options())
        model, cluster = self.model.require_model(), self._read_cluster()
        sets = {"options": self._get_options(), "cluster": cluster}
        return {**self.verb.list_values(**sets), "model": model}

    def _read_cluster(self) -> ClusterOptions:
        """Return the cluster options with the scheduler address, if one was entered."""
        address = str(self.cluster.values()["scheduler"] or "").strip()
        return ClusterOptions(scheduler=address or None)

    def _read_run_inputs(self) -> Subject:
        """Read the layer, image, model and options."""
        layer = self.layer.value
        micrograph = self.input_layers.read(layer)
        model = self.model.require_model()
        return layer, micrograph, model, self._get_options()

    def _get_options(self) -> EnhanceOptions:
        """Return the options, or the stored ones of an unfinished run if unchanged."""
        weights = self.weights.form.values() if self._has_separate_amounts() else {}
        options: EnhanceOptions = self.form.create_options(
            **self.advanced.form.values(), **weights
        )
        read, whole = self._options_shown or (None, options)
        return whole if options == read else options

    # -- the output ----------------------------------------------------------

    def _load_unfinished_options(self) -> EnhanceOptions | None:
        """Show and return the options of a store that will be resumed."""
        path = base.get_entered_store(self.output)
        if path is None or self.existing.value != "resume":
            return None
        base.check_path_unused(path)
        record = jobs.find_unfinished_result(path)
        if record is None or self.input_layers.uses_all_planes():
            return None
        options = EnhanceOptions.parse(record.options)
        self.model.choose(record.model)
        self._show_options(options)
        return options

    def _show_options(self, options: EnhanceOptions) -> None:
        values = options.model_dump()
        self.form.set_values(**{name: values[name] for name in self.form.option_names})
        for part in (self.weights, self.advanced):
            part.set_values(**{name: values[name] for name in part.form.option_names})
        self._options_shown = None
        self._options_shown = self._get_options(), options  # rounded by the form

    def _find_resumable_layer(
        self, request: tuple[object, ...], path: Path | None, *, replaces: bool
    ) -> LiveLayer | None:
        """Find an unfinished layer with the same settings and plane.

        Its store is moved to the path, if one was chosen. A layer to be overwritten is
        removed.
        """
        unfinished = find_unfinished_layers(self.viewer)
        live = next((item for item in unfinished if item.request == request), None)
        if live is None:
            return None
        if replaces:
            live.discard()
            base.remove_created_store(live.store)
            return None
        if path is not None and path != live.store:
            if not base.is_created_path(live.store):
                return None
            jobs.check_image_target(path, inputs=[])
            io.move(live.store, path)
            live.store = path
        return live

    # -- running ---------------------------------------------------------------

    def create_request(self) -> base.JobRequest:
        """Read the form, and return the request; a model's layer is added at its begin.

        With a result of the same request, only further maps are made.
        """
        is_classical, resumed = self.model.method is not None, None
        if not is_classical:
            resumed = self._load_unfinished_options()
        source: Image = self.layer.value
        micrograph, path = self.input_layers.read(source), self._get_output_path()
        takes_all = self.input_layers.uses_all_planes()
        planes = layers.list_planes(source) if takes_all else []
        card, shape = dict(self.model.card), micrograph.shape
        if is_classical:
            options = self.classical.create_options()
        else:
            model = self.model.require_model()
            options = resumed or self._get_options()
            self._compare_model(source)
            plane = layers.get_displayed_plane(source, self.viewer.dims)
            place_seen = plane, micrograph.pixel_size_nm, micrograph.origin
            request = source, model, options, place_seen
            possible = self._list_possible_maps()
            maps = {key: self._ticks[key].value and on for key, on in possible.items()}
            is_there = any(maps.values()) and self._has_result(request, path)
            if is_there and (there := self._outcome) is not None:
                make = partial(_create_maps, micrograph, there, maps, model, options)
                return base.JobRequest(make, self._show_maps)
        named = card.get("name") or Path(str(self.model.value)).stem
        step = str(self.model.method or named)
        image = planes or micrograph
        name = layers.create_result_name(self.viewer, micrograph.name, step)
        scale, count = int(card.get("scale", 1)), len(planes)
        target = base.choose_store_path(self.output, name, shape, scale, planes=count)
        how: dict[str, Any] = {
            "options": options,
            "overwrite": self.existing.value == "replace",
            "resume": self.existing.value == "resume",
        }
        show = partial(self.show_enhanced, source, micrograph, card, name)
        begin = self._prepare_view
        if is_classical:
            make = partial(_restore, jobs.RESTORE.job(image, target, **how), target)
        else:
            how |= {"model": model, "cluster": self._read_cluster()}
            make = partial(_enhance_and_create_maps, self, image, target, maps, how)
            if not planes:  # they are not drawn during the run
                draw = partial(self._draw_live_layer, request, micrograph, name, path)
                begin = partial(draw, card, target, how)
        return base.JobRequest(
            # maps take little time
            lambda: core.count_stages(make(), {_TILES[is_classical]: 1.0}),
            show,
            begin,
            writes=target,
        )

    def _get_output_path(self) -> Path | None:
        """Return the path entered for the output."""
        stack = self.input_layers.uses_all_planes()
        return base.get_entered_store(self.output, stack=stack)

    def _stop_preview(self, _: object = None) -> None:
        self.pointing.value = False

    def _prepare_view(self) -> None:
        """Forget the last run, and end the preview."""
        self._stop_preview()
        self._outcome = self.live = None

    def _draw_live_layer(
        self,
        request: _Request,
        micrograph: core.Micrograph,
        name: str,
        path: Path | None,
        card: Mapping[str, object],
        target: Path,
        how: dict[str, Any],
    ) -> None:
        """Add the layer of a run, or resume an unfinished one and its store."""
        self._prepare_view()
        source, _, options, _ = request
        live = self._find_resumable_layer(request, path, replaces=how["overwrite"])
        if live is None:
            about: Any = {"name": name, "whole": bool(self.whole.value)}
            shown = create_live_field(micrograph, source, card, options, **about)
            removed = self._on_layer_removed
            live = LiveLayer(self.viewer, *shown, target, removed, request)
        else:
            how.update(overwrite=False, resume=True)
            live.resume(self._on_layer_removed)
        self.live = live
        # the job need not wait for the window to be drawn
        QTimer.singleShot(0, partial(self._show_layer_with_source, source))

    def _has_result(self, request: tuple[object, ...], path: Path | None) -> bool:
        """Return whether a result with these settings exists at the chosen path."""
        live = self.live
        if live is None or not live.is_shown or io.STRENGTH_KEY in live.layer.metadata:
            return False
        return live.request == request and path in (None, live.store)

    def _show_layer_with_source(self, source: Image) -> None:
        """Show a layer that is being enhanced next to its source, with a scale bar."""
        if base.is_alive(self) and self.live is not None and self.live.is_shown:
            layers.show_scale_bar(self.viewer)
            self.look.select_layers(source, self.live.layer)

    def show_enhanced(
        self,
        source: Image,
        image: core.Micrograph,
        card: Mapping[str, object],
        name: str,
        enhanced: _Outcome,
    ) -> Iterator[None]:
        """Show the finished result and its metrics."""
        (outcome, _), live, layer = enhanced, self.live, None
        if outcome.planes:
            layer = base.add_stack(self.viewer, outcome, source, name)
        elif live is None:
            layer = base.add_opened_image(self.viewer, outcome.opened[0], name=name)
        elif live.is_shown:
            levels = [item.data for item in outcome.opened[0].levels]
            live.finish(outcome.image, levels)
            layer, source = live.layer, live.request[0]
        if layer is not None:
            yield
            apart = card.get("grey", "input") != "input"
            self.look.set_result(layer, source, image, outcome, apart=apart)
        self._outcome = outcome
        # the next run chooses its own path
        if self._store_offered == Path(outcome.report.output):
            self.output.line_edit.value, self.existing.value = "", "refuse"
        self._store_offered = None
        yield from self._show_maps(enhanced)

    def _show_maps(self, enhanced: _Outcome) -> Iterator[None]:
        outcome, maps = enhanced
        for kind, opened_store in maps.items():
            assert self.live is not None  # noqa: S101 - it was drawn
            name = self.live.layer.name
            both = self.live.request[0], self.live.layer
            with self.result_layers.replace_earlier(kind, *both) as earlier:
                yield from self.result_layers.remove_earlier(earlier)
                title = layers.create_result_name(self.viewer, name, _MAPS[kind])
                layer = base.add_opened_image(self.viewer, opened_store, name=title)
                layers.hide_other_maps(self.viewer, layer)
                yield
        report, planes = outcome.report, outcome.planes
        what = f"{len(planes)} planes" if planes else report.provenance.inputs[0].name
        self.results.show_result(
            {**core.get_figures(report), "Store": report.output},
            describe_enhancement(report, what),
            curves=report.tables(),
            network=report.provenance.model_name,
        )

    # -- stopping ----------------------------------------------------------------

    def _on_layer_removed(self) -> None:
        """Stop the run after the user has removed the layer."""
        live = self.live
        if live is None or not live.is_partial:
            return  # a finished layer is removed like any other
        if self.runner.is_running:
            self.controls.stop()
        else:
            base.remove_created_store(live.store)

    def _keep_or_remove_layer(self, _: str = "") -> None:
        """Keep an unfinished layer in the viewer; remove it if no tile is enhanced."""
        live = self.live
        if live is not None and live.is_shown and live.live.tiles_done:
            live.pause()
        elif live is not None:
            live.discard()
            base.remove_created_store(live.store)
            self.live = None

    def _report_kept_layer(self) -> None:
        """Keep or remove the layer of a cancelled run, and report a kept one."""
        self._keep_or_remove_layer()
        if self.live is not None:
            self.messages.show_status(
                f"{self.title} was cancelled; the finished part is kept, and Enhance "
                "resumes it."
            )

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802 - Qt's name
        """Check for unfinished stores, and import torch while the panel is idle."""
        super().showEvent(event)
        self._check_project_stores()
        QTimer.singleShot(_AHEAD_MS, self._preload_torch_if_visible)

    def _preload_torch_if_visible(self) -> None:
        if base.is_alive(self) and self.isVisible():
            _preload_torch()

    def _pause_unfinished_layer(self) -> None:
        """Keep an unfinished layer for the next panel."""
        live = self.live
        if live is not None and live.is_partial and live.is_shown:
            (live.pause if live.live.tiles_done else live.discard)()

    def _offer_to_resume(self) -> None:
        """Fill the form with the settings of a run left unfinished by another panel."""
        live = next(iter(find_unfinished_layers(self.viewer)), None)
        if live is None or live.request[0] not in self.viewer.layers:
            return
        source, model, options, (plane, *_) = live.request
        self.layer.value = source
        self.model.show_model(model)
        self._show_options(options)
        elsewhere = plane != layers.get_displayed_plane(source, self.viewer.dims)
        where = " when its plane is shown" if elsewhere else ""
        sentence = f"{live.layer.name} is unfinished; Enhance resumes it{where}."
        self.messages.show_status(sentence)

    def _check_project_stores(self) -> None:
        """Offer to resume unfinished stores of the open project."""
        folder = self.session.folder
        if not base.is_alive(self) or not self.isVisible() or folder == self._project:
            return
        self._project, output_typed = folder, self._get_output_path()
        if folder is None or self.is_busy:
            return
        if output_typed is not None and self.existing.value != "resume":
            return
        stores = [output_typed] if output_typed else sorted(folder.glob("*.ome.zarr"))
        stores_shown = [live.store for live in find_unfinished_layers(self.viewer)]
        for path in stores:
            record = None if path in stores_shown else jobs.find_unfinished_result(path)
            if record is not None:
                layers_by_name = {layer.name: layer for layer in self.viewer.layers}
                if layers_by_name.get(record.image) in self.layer.choices:
                    self.layer.value = layers_by_name[record.image]
                self._store_offered = path
                self.output.value, self.existing.value = path, "resume"
                with self.messages.show_errors():
                    self._load_unfinished_options()
                    sentence = f"{path.name} is unfinished; Enhance resumes it."
                    self.messages.show_status(sentence)
                return


def describe_enhancement(report: Any, image: str) -> str:
    """Say in a sentence what a model or method removed from an image."""
    if isinstance(report, jobs.RestoredFile):
        name, parts = report.method_text, [f"a blur ({report.blur})"]
    else:
        name, cost = str(report.provenance.model_name), report.report
        parts, share = [], cost.noise_percent
        if share:
            parts.append(f"noise of {share:.2g} % of the range of grey values")
        if blur_px := round(cost.blur_px or 0, 2):
            parts.append(f"a blur ({core.SIGMA}) of {blur_px:.2f} px")
    removed = f"removed {' and '.join(parts)} from" if parts else "enhanced"
    return f"{name} {removed} {image}."


def _find_own_model(
    layer: Image, image: core.Micrograph | None, trained: Mapping[str, set[str]]
) -> core.Job[str | None]:
    """Find a model that was trained on a layer, its file or any of its sources."""
    history = layers.get_provenance(layer)
    record = core.InputRecord(role="image", name="", provenance=history)
    digests = {*jobs.collect_digests(record)}
    with suppress(core.SemsrError, OSError):  # a run reports it
        if image is not None and image.data.size <= _DIGESTED_PX:
            digests.add((yield from jobs.digest_values(image)))
            file = Path(layer.metadata.get(io.STORE_KEY) or image.path or "")
            if file.name and file.exists():
                digests.add((yield from jobs.digest_image(file)))
    return max((name for name, of in trained.items() if of & digests), default=None)


def _restore(job: core.Job[jobs.RestoredFile], target: Path) -> core.Job[_Outcome]:
    """Run a classical method, and open its result."""
    return (yield from base.run_and_open(job, target)), {}


def _enhance_and_create_maps(
    panel: EnhancePanel,
    image: core.Micrograph | list[core.Micrograph],
    target: Path,
    maps: Mapping[str, bool],
    how: Mapping[str, Any],
) -> core.Job[_Outcome]:
    """Enhance an image or planes, open the result, and make the requested maps.

    `maps`: keys of the maps to make; `how`: options, model and what is replaced.
    """
    live_layer, live = panel.live, None
    if live_layer is not None:
        target, live = live_layer.store, live_layer.live
    yield from start_torch()
    yield core.Progress(0, 0, "Loading the model")
    outcome = yield from base.run_and_open(
        jobs.ENHANCE.job(image, output=target, live=live, **how),
        target,
        keep=lambda: live_layer and live_layer.is_wanted and live_layer.live.tiles_done,
    )
    return (yield from _create_maps(image, outcome, maps, how["model"], how["options"]))


def _create_maps(
    micrograph: Any,
    outcome: base.JobResult,
    maps: Mapping[str, bool],
    model: str,
    options: EnhanceOptions,
) -> core.Job[_Outcome]:
    """Make the requested maps, and warn about those that could not be made.

    The result is kept even if a map fails.
    """
    result_image, misfit = outcome.image, outcome.report.misfit
    maps_shown: dict[str, core.Micrograph] = {}
    if maps[jobs.MISFIT] and misfit is None:
        why = f"{micrograph.name} shows little more than noise, or has too many gaps"
        core.warn(f"No misfit map was made: {why}.", "too-little-detail")
    elif maps[jobs.MISFIT] and misfit is not None:
        job = map_misfit(micrograph, result_image, misfit)
        maps_shown[jobs.MISFIT] = yield from job
    if maps[jobs.UNFAMILIAR]:
        job = jobs.create_unfamiliarity_map(micrograph, model, options)
        try:
            maps_shown[jobs.UNFAMILIAR] = yield from job
        except core.ShapeError as error:  # of an image smaller than a block
            core.warn(str(error), core.get_error_code(error))
    stores, story = {}, result_image.provenance
    for part, item in maps_shown.items():
        own = story and story.model_copy(update={"part": part})
        shown = item.replace(provenance=own)
        stores[part] = base.OpenedImage(shown, (shown,))
    return outcome, stores
