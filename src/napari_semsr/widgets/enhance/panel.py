"""Enhance: run a model over a layer tile by tile, into a calibrated store."""

import importlib
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from html import escape
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import CheckBox, ComboBox, FloatSpinBox
from napari.components import ViewerModel
from napari.layers import Image
from napari.viewer import Viewer
from psygnal import Signal
from qtpy.QtCore import QObject, QTimer
from qtpy.QtGui import QShowEvent

from napari_semsr.analysis import FAMILIARITY, map_misfit
from napari_semsr.core import (
    Box,
    InputRecord,
    Job,
    Micrograph,
    OptionError,
    PixelSize,
    Progress,
    RealArray,
    SemsrError,
    ShapeError,
    contrast_limits,
    figures_of,
    in_background,
    load_torch_libraries,
    run,
)
from napari_semsr.inference import (
    ADVANCED_GROUP,
    WEIGHTS,
    ClusterOptions,
    EnhanceOptions,
)
from napari_semsr.io import (
    LIVE_KEY,
    NETWORK_KEY,
    SINGLE_PX,
    STORE_KEY,
    STRENGTH_KEY,
    move,
)
from napari_semsr.jobs import (
    ENHANCE,
    MISFIT,
    MOSAIC_MODEL,
    UNFAMILIAR,
    PreviewDesk,
    check_image_target,
    digest_image,
    digest_values,
    digests_of,
    find_unfinished,
    learnt_from_instrument,
    map_unfamiliar,
    preview_job,
)
from napari_semsr.restoration import parse_psf
from napari_semsr.widgets.base import (
    Folded,
    Form,
    JobRunner,
    Opened,
    OptionsForm,
    Outcome,
    Panel,
    RichLabel,
    Target,
    Work,
    add_opened,
    add_stack,
    is_alive,
    new_timer,
    open_panel,
    preference,
    store_edit,
    store_target,
    typed_store,
    write_outcome,
)
from napari_semsr.widgets.compare import (
    CompareControls,
    OverLayer,
    describe_small_change,
)
from napari_semsr.widgets.enhance.models import ModelChooser, models_of_place
from napari_semsr.widgets.layers import (
    field_in_view,
    free_name,
    hide_other_maps,
    is_superlens,
    layer_keywords,
    network_of,
    pixels_at,
    plane_at,
    planes_of,
    provenance_of,
    result_name,
    show_scale_bar,
    step_before,
    without_cache,
)

if TYPE_CHECKING:
    from napari.utils.events import Event as NapariEvent

    from napari_semsr.inference import LiveField

# Chosen: by then napari has drawn the panel, and one opened only briefly is closed.
_AHEAD_MS = 1000

_models_imported = Event()


def start_torch() -> Job[None]:
    """Import torch in the thread of a job, if it is not imported yet."""
    if not _models_imported.is_set():
        yield Progress(0, 0, "Starting torch (some seconds, once per napari session)")
        _import_torch()


def _import_torch() -> None:
    load_torch_libraries()
    importlib.import_module("torch")
    _models_imported.set()


@cache
def _import_ahead() -> None:
    """Import torch once, while a panel is idle."""

    def load() -> None:
        with in_background(), suppress(Exception):  # a run reports the error
            _import_torch()

    # not a daemon: Python must not exit during the import
    Thread(target=load, name="semsr-torch").start()


_DRAW_MS = 50  # between two updates of the live field; chosen
_SMALL_PX = 1 << 20  # pixels of a level that is read as a whole; chosen
_RUN_KEY = "semsr_begun"
_INCOMPLETE = " (incomplete)"
# with the number that napari adds if the name exists
_INCOMPLETE_END = re.compile(rf"{re.escape(_INCOMPLETE)}( \[\d+\])?$")


def live_field(
    micrograph: Micrograph,
    layer: Image | None,
    card: Mapping[str, object],
    options: EnhanceOptions,
    *,
    name: str,
    whole: bool,
) -> tuple["LiveField", dict[str, object]]:
    """Return the field drawn while an image is enhanced, and the keywords of its layer.

    It has the calibration of the result, and the contrast of the layer.
    """
    from napari_semsr.inference import LiveField, plan_output

    output = plan_output(micrograph, card, options)
    sources = _in_memory(micrograph, layer)
    own = card.get("grey", "input") != "input"  # its grey levels are those of the model
    grey = contrast_limits(sources) if own else None
    live = LiveField(output, sources, grey=grey, whole=whole)
    result = Micrograph(
        data=live.levels[-1][:, :],
        pixel_size_nm=output.frame.pixel_size_nm,
        name=name,
        origin=output.frame.origin,
        spacing_px=output.frame.spacing_px,
    )
    look: dict[str, Any] = {}
    if own:
        look["contrast_limits"] = (0.0, 1.0)
    elif layer is not None:
        look["contrast_limits"] = tuple(layer.contrast_limits)
    keywords = layer_keywords(result, **look)
    mark = {"model": str(card.get("name")), "digest": None}  # not known yet
    keywords["metadata"][NETWORK_KEY] = mark
    return live, keywords


def _in_memory(micrograph: Micrograph, layer: Image | None) -> list[RealArray]:
    """Collect the levels of an image that can be displayed without computation."""
    levels: list[Any] = [micrograph.data]
    if layer is not None and layer.multiscale and layer.ndim == micrograph.data.ndim:
        levels += list(layer.data)[1:]
    levels_in_memory = [item for item in levels if isinstance(item, np.ndarray)]
    coarsest = levels[-1]
    if not levels_in_memory and coarsest.shape[0] * coarsest.shape[1] <= _SMALL_PX:
        levels_in_memory = [np.asarray(coarsest)]
    # otherwise a medium grey
    middle = 0.0 if layer is None else float(np.mean(layer.contrast_limits))
    return levels_in_memory or [np.full((1, 1), middle)]


def half_done(viewer: ViewerModel) -> "list[LiveLayer]":
    """Return the unfinished live layers of a viewer, the newest first."""
    live_layers = [getattr(layer, _RUN_KEY, None) for layer in reversed(viewer.layers)]
    return [live for live in live_layers if live is not None and live.is_partial]


class LiveLayer(QObject):
    """A layer that is being enhanced; it outlives the panel that started it."""

    def __init__(
        self,
        viewer: ViewerModel,
        live: "LiveField",
        keywords: dict[str, object],
        store: "Target",
        on_removed: Callable[[], None],
        request: tuple[Any, ...] = (),
    ) -> None:
        super().__init__()
        self.live = live
        self.store = store
        self.request = request  # source, model, options, and its plane and path
        self.is_wanted = (
            True  # otherwise the unfinished store is deleted when its run ends
        )
        self._viewer = viewer
        self._on_layer_removed = on_removed
        many = len(live.levels) > 1 and max(live.shape) > SINGLE_PX
        data: object = live.levels if many else live.levels[0]
        self.layer = viewer.add_image(data, multiscale=many, **keywords)
        self.layer.metadata[LIVE_KEY] = True
        setattr(self.layer, _RUN_KEY, self)
        viewer.layers.events.removed.connect(self._on_removed)
        self._view = field_in_view(viewer, self.layer)
        live.look_at(self._view)
        self._timer = new_timer(self, self.tick, _DRAW_MS)
        self._timer.start()

    @property
    def is_shown(self) -> bool:
        """Whether the layer is still in the viewer."""
        return self.layer in self._viewer.layers

    @property
    def is_partial(self) -> bool:
        """Whether a part of the layer is not enhanced yet."""
        return bool(self.layer.metadata.get(LIVE_KEY))

    def tick(self) -> None:
        """Pass the part in view to the run, and draw new tiles."""
        view = field_in_view(self._viewer, self.layer)
        if view != self._view:  # then napari has just read all of it again
            self._view = view
            self.live.look_at(view)
            return
        news = self.live.take_changed_box()
        if news is not None and view is not None and news.overlap(view):
            self.layer.refresh(extent=False, thumbnail=False, highlight=False)

    def resume(self, on_removed: Callable[[], None]) -> None:
        """Draw the same random numbers again, because the run resumes."""
        self._on_layer_removed = on_removed
        self._name(complete=True)
        self._timer.start()

    def pause(self) -> None:
        """Draw a last time, because the run has stopped; the layer is kept."""
        self._timer.stop()
        if self.is_shown:
            self._name(complete=False)
            self.live.take_changed_box()
            self.layer.refresh(extent=False, highlight=False)

    def _name(self, *, complete: bool) -> None:
        """Mark an unfinished layer in its name."""
        name = _INCOMPLETE_END.sub("", self.layer.name)
        if not complete:
            self.layer.name = f"{name}{_INCOMPLETE}"
        elif name != self.layer.name:
            self.layer.name = free_name(self._viewer, name)

    def finish(self, micrograph: Micrograph, levels: Sequence[object]) -> None:
        """Replace the live levels by the finished store."""
        self._timer.stop()
        if not self.is_shown:
            return
        self.layer.metadata.pop(LIVE_KEY, None)
        delattr(self.layer, _RUN_KEY)
        self.layer.data = list(levels) if self.layer.multiscale else levels[0]
        self.layer.metadata.update(layer_keywords(micrograph)["metadata"])
        self.layer.metadata[STORE_KEY] = str(self.store.path.resolve())
        without_cache(self.layer)

    def discard(self) -> None:
        """Remove the layer from the viewer."""
        self._timer.stop()
        self.is_wanted = False
        if self.is_shown:
            self._viewer.layers.remove(self.layer)

    def forget_store(self) -> None:
        """Remove the store, if it was a temporary one."""
        if self.store.temporary:
            shutil.rmtree(self.store.path, ignore_errors=True)

    def _on_removed(self, event: "NapariEvent") -> None:
        if is_alive(self) and event.value == self.layer:
            self._timer.stop()
            self.is_wanted = False
            self._on_layer_removed()


_TICK_MS = 100  # between two updates of a preview; chosen
_SIDE_PX = 192  # of the preview; chosen
_NAME = "preview"
Subject = tuple[Image, Micrograph, str, EnhanceOptions]
"""Layer, its image, model and options."""


class MousePreview(OverLayer):
    """Previews a model's output under the mouse."""

    found = Signal(object)  # the blur measured by the model, in px, or None

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
        self._desk = PreviewDesk()
        self.runner = JobRunner(self)
        self.runner.failed.connect(self._fail)
        self.runner.busy_changed.connect(self._start_again)
        self._timer = new_timer(self, self.tick, _TICK_MS)
        viewer.dims.events.point.connect(self._on_slider)

    def start(self) -> None:
        """Start, or restart, with the current settings of the panel."""
        self._is_wanted = True
        if self.runner.busy:
            self.runner.cancel()
            return
        try:
            subject = self._read()
        except SemsrError as error:
            self._fail(str(error))
            return
        _, image, model, options = subject
        self._subject, self._desk, self._place = subject, PreviewDesk(), ()
        desk = self._desk

        def make() -> Job[None]:
            yield from start_torch()
            yield from preview_job(image, desk, model=model, options=options)

        self.runner.start("Preview", make)
        self._timer.start()

    def change(self, _: object = None) -> None:
        """Restart because a setting of the panel changed; do nothing if off."""
        if self._is_wanted:
            self.start()

    def _on_slider(self, _: object = None) -> None:
        """Restart if another plane may be shown."""
        if is_alive(self) and self._subject is not None and self._subject[0].ndim > 2:
            self.change()

    def stop(self) -> None:
        """Stop, and remove the box."""
        self._is_wanted = False
        self._timer.stop()
        self.runner.cancel()
        self.remove()

    def tick(self) -> None:
        """Request the box under the mouse, and show finished results."""
        subject = self._subject
        if subject is None or subject[0] not in self._viewer.layers:
            self.stop()
            return
        layer, place = subject[0], tuple(self._viewer.cursor.position)
        if place != self._place:
            self._place = place
            pixel = pixels_at(layer, [place], self._viewer.dims)[0, -2:]
            y, x = (round(float(at)) - self.side_px // 2 for at in pixel)
            self._desk.ask(Box.of((self.side_px, self.side_px), (y, x)))
        answer = self._desk.take()
        if answer is not None:
            self._show(subject, *answer)
            if subject[3].blur_px is None:
                self.found.emit(self._desk.blur_px)

    def _show(self, subject: Subject, box: Box, pixels: RealArray) -> None:
        """Show the pixels at their position."""
        source, image, _, _ = subject
        pitch = np.asarray(image.scale) * np.asarray(box.shape) / pixels.shape
        corner = np.asarray(image.origin) + (
            (np.array([box.y0, box.x0]) - 0.5) * np.asarray(image.scale) + pitch / 2
        )
        limits = tuple(source.contrast_limits)
        look = layer_keywords(image, contrast_limits=limits, name=_NAME)
        self.put(pixels, look | {"scale": pitch, "translate": corner})

    def _start_again(self, busy: bool) -> None:
        if self._is_wanted and not busy:
            self.start()

    def _fail(self, text: str) -> None:
        self._is_wanted = False
        self.stop()
        self._say(text)


class EnhanceCompare(CompareControls):
    """Controls for comparing, and for previewing models under the mouse."""

    def __init__(self, panel: Panel, read: Callable[[], Subject]) -> None:
        super().__init__(panel)
        self.pointing = CheckBox(
            name="pointing",
            text="Preview at the mouse",
            tooltip="Enhance a small box under the mouse, to test models and options.",
        )
        self.add(self.pointing)
        self.preview = MousePreview(panel.viewer, read, panel.show_problem, self)
        self.pointing.changed.connect(self._point)
        self.preview.runner.failed.connect(self.stop_preview)

    def start_preview(self, _: object = None) -> None:
        """Show a preview, because the effect of a chosen option should be checked."""
        self.pointing.value = True

    def stop_preview(self, _: object = None) -> None:
        """Remove the preview, because a run starts or the preview failed."""
        self.pointing.value = False

    def _point(self, on: bool) -> None:
        if on:
            self.preview.start()
        else:
            self.preview.stop()


_INFORMED_NETWORK = "informed"  # architecture of models with weights as options


class _FoldedOptions(Folded):
    """A group of options that is folded by default."""

    has_settings = True

    def __init__(self, title: str, tooltip: str, *more: OptionsForm) -> None:
        self.form = OptionsForm(EnhanceOptions, group=title)
        super().__init__(title, tooltip, self.form, *more)

    def set_values(self, **values: object) -> None:
        """Set values, and unfold if one of them is not the default."""
        self.form.set_values(**values)
        usual = EnhanceOptions().model_dump()
        if any(value != usual[name] for name, value in values.items()):
            self.unfold()


class Advanced(_FoldedOptions):
    """The advanced options."""

    def __init__(self) -> None:
        self.cluster = OptionsForm(ClusterOptions)
        line = self.cluster.widget("scheduler").native
        line.setPlaceholderText("none: run in napari")
        tooltip = "Memory, tolerance, flips and rotations, cluster; few runs need them."
        super().__init__(ADVANCED_GROUP, tooltip, self.cluster)

    @property
    def options(self) -> ClusterOptions:
        """The scheduler to run on, if one was entered."""
        address = str(self.cluster.values()["scheduler"] or "").strip()
        return ClusterOptions(scheduler=address or None)


_OFF, _FROM_IMAGE = "off", "found"
_DIGESTED_PX = 1 << 24  # of a layer; chosen: a tenth of a second
_BEFORE_REGISTERED = (
    " Enhance the image from before the registration, and register the result."
)


class Sharpen(Form):
    """The blur to undo: none, the one the model measures, or a given width."""

    def __init__(self) -> None:
        self.kind = ComboBox(
            name="sharpen",
            label="Sharpen",
            tooltip="The blur to undo: none, the one that the model measures, or "
            "one of a known standard deviation. Check the preview under "
            "the mouse.",
            choices=[(n, n) for n in (_FROM_IMAGE, _OFF, "px", "nm")],
        )
        self.sigma = FloatSpinBox(
            name="blur_width",
            label="Width",
            tooltip="Standard deviation of the blur in the unit chosen above; a full "
            "width at half maximum is 2.35 times as much.",
            value=1.0,
            min=0.0,
            max=1e4,
            step=0.1,
        )
        self.sigma.native.setDecimals(3)
        super().__init__(self.kind, self.sigma)
        self.kind.changed.connect(self._show_width)
        self.show_measured_blur(None)
        self._show_width()

    def _show_width(self) -> None:
        self.show_row("blur_width", self.kind.value in ("px", "nm"))

    def show_measured_blur(self, blur_px: float | None) -> None:
        """Show next to the choice the blur that the model measured."""
        text_found = (
            _FROM_IMAGE if blur_px is None else f"{_FROM_IMAGE}: {blur_px:.2f} px"
        )
        texts = text_found, _OFF, "a width in px", "a width in nm"
        for place, text in enumerate(texts):
            self.kind.native.setItemText(place, text)

    def forget_found(self, _: object = None) -> None:
        """Clear the blur measured in another layer, or by another model."""
        self.show_measured_blur(None)

    def blur_px(self, size: PixelSize | None) -> float | None:
        """Return the option's value for a layer with a pixel size."""
        if self.kind.value == _FROM_IMAGE:
            return None
        if self.kind.value == _OFF or not self.sigma.value:
            return 0.0
        point_spread = parse_psf(f"{self.sigma.value:g}{self.kind.value}")
        return sum(point_spread.sigma_px(size)) / 2

    def choose(self, blur_px: float | None) -> None:
        """Set the choice from an option's value."""
        self.kind.value = _FROM_IMAGE if blur_px is None else "px" if blur_px else _OFF
        if blur_px:
            self.sigma.value = blur_px


_MAPS = {
    MISFIT: ("the misfit", "misfit (%)"),
    UNFAMILIAR: (
        "the distance to the training area",
        "distance to training area (unlike it above 1)",
    ),
}
"""Subject of each map, and the name of its layer."""
_EXISTING = {"refuse": "refuse", "resume it": "resume", "replace it": "replace"}


class EnhancePanel(Panel):
    """Enhances a layer with an installed model.

    The layer of the result is added immediately. It shows the input where nothing is
    enhanced yet, and the part in view is enhanced first.
    """

    help_place = "live.md"

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer, "Enhance", "Enhance")
        self.layer = self.new_layer_box("layer", "Layer", "The grey image to enhance.")
        self.model = ModelChooser(viewer, self._check_model)
        self.form = OptionsForm(EnhanceOptions)
        self.form.set_values(
            tile=int(preference("computing", "tile_px")) or None,
            precision=preference("computing", "precision"),
        )
        tooltip = (
            "How much noise, blur and haze is removed; by default as "
            "the model measures them."
        )
        self.weights, self.advanced = _FoldedOptions(WEIGHTS, tooltip), Advanced()
        self.sharpen = Sharpen()
        self.whole = CheckBox(
            name="whole",
            text="Whole field",
            tooltip="The part in view is always enhanced first. If unticked, the "
            "rest is enhanced only when it comes into view, or when this is "
            "ticked again.",
            value=True,
        )
        self.misfit = CheckBox(
            name="misfit",
            text="Map of the misfit",
            tooltip="Add a layer that shows where the result, blurred again, differs "
            "from the input: structures that it misses, or adds without "
            "evidence. In per cent of the input's contrast.",
        )
        self.unfamiliar = CheckBox(
            name="unfamiliar",
            text="Show distance to the training area",
            tooltip="Add a layer with the distance of each block of 96 px to the "
            "area that the model was trained on; above 1, a block is unlike "
            "that area.",
        )
        self.unmade = RichLabel()  # why a ticked map cannot be made
        self.output = store_edit()
        self.existing = ComboBox(
            name="existing",
            label="If it exists",
            tooltip="Keep an existing store, resume one that was interrupted here or "
            "on the command line with the settings it was started with, or "
            "overwrite it.",
            choices=list(_EXISTING.items()),
        )
        self.look = EnhanceCompare(self, self._subject)
        self.live: LiveLayer | None = None
        self._outcome: Outcome | None = None  # of the last run, whole
        self._options_shown: tuple[EnhanceOptions | None, EnhanceOptions | None] = (
            None,
            None,
        )  # options as read now, and those before
        self._project: Path | None = None  # folders searched for unfinished stores
        self._store_offered: Path | None = None  # the one of them to resume
        self._ticks = {MISFIT: self.misfit, UNFAMILIAR: self.unfamiliar}
        choices = Form(self.whole, *self._ticks.values())
        where = Form(self.output, self.existing)
        self.add_group("Image", Form(self.layer, self.new_planes_box()))
        self.add_group("Model", self.model)
        parts = self.form, self.sharpen, self.weights
        self.add_group("Settings", *parts, choices, self.unmade, where, self.advanced)
        self.add_group("Compare", self.look)
        self.add_results("Result")
        self._connect()
        self.take_input(self.layer)
        self._propose(self.layer.value)
        self._compare(self.layer.value)
        self._show_rows()
        self._offer_to_resume()

    def _connect(self) -> None:
        """Update cards, rows and the preview when a choice changes."""
        self.layer.changed.connect(self._propose)
        self.layer.changed.connect(self._compare)
        self.layer.changed.connect(self.look.compare)
        self.model.changed.connect(self._show_rows)
        self.form.on_change("resample", lambda _: self._compare(self.layer.value))
        self.whole.changed.connect(self._set_whole)
        planes = [] if self.all_planes is None else [self.all_planes.changed]
        ticks = [tick.changed for tick in self._ticks.values()]
        for signal in (*ticks, *planes, self.layer.changed):
            signal.connect(self._show_unmade)
        for change in (self.layer.changed, self.model.changed):
            change.connect(self.look.preview.change)
            change.connect(self.sharpen.forget_found)
        for form in (self.form, self.weights.form, self.advanced.form):
            for name in form.names:
                form.on_change(name, self.look.preview.change)
        for control in (self.sharpen.kind, self.sharpen.sigma):
            control.changed.connect(self.look.preview.change)
        # preview a choice of the user, but not one set by a run
        self.sharpen.kind.native.activated.connect(self.look.start_preview)
        self.look.preview.found.connect(self.sharpen.show_measured_blur)
        self.runner.failed.connect(self._stop_drawing)
        self.session.changed.connect(self._look_in_project)

    def _propose(self, layer: Image | None) -> None:
        """Propose the model that fits a layer."""
        fits = layer is not None and is_superlens(layer)
        own: list[str] = []  # a network's output is not what the model was trained on
        if layer is not None and network_of(layer) is None:
            own = models_of_place(partial(self._digests, layer))
        usual = MOSAIC_MODEL if fits else None
        self.model.propose(own[-1] if own else usual)

    def _digests(self, layer: Image) -> set[str]:
        """Return the digests of a layer, its file, and all its sources."""
        history = provenance_of(layer)
        digests = {*digests_of(InputRecord(role="image", name="", provenance=history))}
        try:
            image = self.micrograph(layer)
            if image.data.size <= _DIGESTED_PX:
                digests.add(run(digest_values(image)))
                file = Path(layer.metadata.get(STORE_KEY) or image.path or "")
                if file.name and file.exists():
                    digests.add(run(digest_image(file)))
        except (SemsrError, OSError):  # it cannot be enhanced, which a run reports
            pass
        return digests

    def _compare(self, layer: Image | None) -> None:
        try:
            size = self.micrograph(layer).pixel_size_nm
        except SemsrError:
            size = None
        is_registered = layer is not None and step_before(layer) == "register"
        advice = _BEFORE_REGISTERED if is_registered else ""
        self.model.show_for(size, self.form.values()["resample"], advice, layer)

    def _show_rows(self) -> None:
        self.form.show_row("norm", bool(self.model.card.get("norms")))
        model_has_size = self.model.card.get("pixel_size_nm") is not None
        self.form.show_row("resample", model_has_size)
        for part in (self.sharpen, self.weights):
            part.setVisible(self._has_separate_amounts())
        self._show_unmade()

    def _reasons_unmade(self) -> dict[str, str]:
        """Return the reasons why ticked maps cannot be made, by their names."""
        card, why = self.model.card, {}
        if self.misfit.value and not learnt_from_instrument(card):
            why[MISFIT] = (
                f"{card.get('name', self.model.value)} was not trained with a "
                "simulated instrument, so the blur is not known"
            )
        if self.unfamiliar.value and not _has_training_area(card):
            why[UNFAMILIAR] = (
                f"{card.get('name', self.model.value)} does not state its training "
                "area; models made by Train on SEM do"
            )
        if self.takes_stack():
            reason = "maps are not made of all planes; untick All planes to map one"
            why = {key: reason for key, tick in self._ticks.items() if tick.value}
        return why

    def _show_unmade(self, _: object = None) -> None:
        """Show the reasons below the tick boxes; no set tick box is hidden."""
        if not is_alive(self):
            return
        from_instrument = learnt_from_instrument(self.model.card)
        self.misfit.visible = from_instrument or bool(self.misfit.value)
        states_place = _has_training_area(self.model.card)
        self.unfamiliar.visible = states_place or bool(self.unfamiliar.value)
        lines = (
            f'<p class="warning">No map of {_MAPS[key][0]}: {escape(sentence)}.</p>'
            for key, sentence in self._reasons_unmade().items()
        )
        self.unmade.setText("".join(lines))

    def _has_separate_amounts(self) -> bool:
        """Return whether the model has separate amounts for noise, blur and haze."""
        return self.model.card.get("architecture") == _INFORMED_NETWORK

    def _check_model(self) -> None:
        panel: Any = open_panel(self.viewer, "Check model")
        panel.model.show_model(self.model.value)

    def _set_whole(self, whole: bool) -> None:
        if self.live is not None:
            self.live.live.queue.whole = whole

    def _subject(self) -> Subject:
        """Read layer, image, model and options."""
        layer, model = self.layer.value, self.model.value
        micrograph = self.micrograph(layer)
        if model is None:
            msg = "A model must be chosen, but none is installed; add a model file."
            raise OptionError(msg, code="model-missing")
        return layer, micrograph, model, self._options(micrograph.pixel_size_nm)

    def _options(self, size: PixelSize | None) -> EnhanceOptions:
        """Read the options; those of the unfinished store if none was changed."""
        weights = {}
        if self._has_separate_amounts():
            blur = self.sharpen.blur_px(size)
            weights = self.weights.form.values() | {"blur_px": blur}
        options_typed = self.form.options(**self.advanced.form.values(), **weights)
        read, whole = self._options_shown
        options: EnhanceOptions = options_typed
        return options if whole is None or options != read else whole

    # -- the output ----------------------------------------------------------

    def writes(self) -> Path | None:
        """Return the chosen output path."""
        return typed_store(self.output, stack=self.takes_stack())

    def _is_resuming(self) -> bool:
        """Whether to resume an interrupted store."""
        return bool(self.existing.value == "resume")

    def _result_name(self, micrograph: Micrograph, card: Mapping[str, object]) -> str:
        model = str(card.get("name") or Path(self.model.value or "").stem)
        return result_name(self.viewer, micrograph.name, model)

    def _options_before(self) -> EnhanceOptions | None:
        """Show the options of a store to be resumed, and return them."""
        path = None if self.takes_stack() else typed_store(self.output)
        store_record = None
        if path is not None and self._is_resuming():
            store_record = find_unfinished(path)
        if store_record is None:
            return None
        options = EnhanceOptions.parse(store_record.options)
        self.model.choose(store_record.model)
        self._show_options(options)
        return options

    def _show_options(self, options: EnhanceOptions) -> None:
        values = options.model_dump()
        self.form.set_values(**{name: values[name] for name in self.form.names})
        self.sharpen.choose(options.blur_px)
        for part in (self.weights, self.advanced):
            part.set_values(**{name: values[name] for name in part.form.names})
        self._options_shown = None, None
        self._options_shown = self._options(None), options  # the form rounds the values

    def _find_resumable(
        self, request: tuple[object, ...], path: Path | None, existing: str
    ) -> LiveLayer | None:
        """Find an unfinished layer with the same settings and plane.

        Its store is moved to the path, if one was chosen. A layer to be overwritten is
        removed.
        """
        live = next(
            (item for item in half_done(self.viewer) if item.request == request), None
        )
        if live is None:
            return None
        if existing == "replace":
            live.discard()
            live.forget_store()
            return None
        if path is not None and path != live.store.path:
            if not live.store.temporary:
                return None
            check_image_target(path, inputs=[])
            move(live.store.path, path)
            live.store = Target(path)
        live.store = Target(live.store.path, "resume", live.store.temporary)
        return live

    # -- running ---------------------------------------------------------------

    def job(self) -> Work:
        """Read the form; the layer is added when the run starts."""
        options_before = self._options_before()
        source, micrograph, model, options = self._subject()
        options = options_before or options
        self._compare(source)
        arguments = {
            "model": model,
            "options": options,
            "cluster": self.advanced.options,
        }
        planes = planes_of(source) if self.takes_stack() else []
        plane = plane_at(source, self.viewer.dims)
        place_seen = plane, micrograph.pixel_size_nm, micrograph.origin
        request, path = (source, model, options, place_seen), self.writes()
        ticks, unmade = self._ticks.items(), self._reasons_unmade()
        maps = {key: bool(one.value) and key not in unmade for key, one in ticks}
        there = self._outcome
        if there is not None and any(maps.values()) and self._is_made(request, path):
            job = partial(
                _make_maps, micrograph, there, maps, model, options, again=True
            )
            return Work(job, self._show_maps)
        card, existing = dict(self.model.card), str(self.existing.value)
        name, scale = self._result_name(micrograph, card), int(card.get("scale", 1))
        shape, count = micrograph.shape, len(planes)
        target = store_target(self.output, name, shape, scale, existing, planes=count)

        def begin() -> None:
            self.look.stop_preview()
            self._outcome = self.live = None
            if planes:  # they are not drawn during the run
                return
            live = self.live = self._find_resumable(request, path, existing)
            if live is None:
                field, keywords = live_field(
                    micrograph,
                    source,
                    card,
                    options,
                    name=self._result_name(micrograph, card),
                    whole=bool(self.whole.value),
                )
                self.live = LiveLayer(
                    self.viewer,
                    field,
                    keywords,
                    target,
                    self._on_layer_removed,
                    request,
                )
            else:
                live.resume(self._on_layer_removed)
            # the job need not wait for the window to be drawn
            QTimer.singleShot(0, partial(self._show_with_source, source))

        def make() -> Job[EnhancedOutcome]:
            place = target if self.live is None else self.live.store
            return _enhance(planes or micrograph, place, self.live, maps, **arguments)

        return Work(make, partial(self.show_outcome, source, micrograph), begin)

    def _is_made(self, request: tuple[object, ...], path: Path | None) -> bool:
        """Whether the result of these settings exists at the chosen path."""
        live = self.live
        return (
            live is not None
            and live.is_shown
            and live.request == request
            and STRENGTH_KEY not in live.layer.metadata
            and path in (None, live.store.path)
        )

    def _show_with_source(self, source: Image) -> None:
        """Show a layer that is being enhanced next to its source, with a scale bar."""
        if is_alive(self) and self.live is not None and self.live.is_shown:
            show_scale_bar(self.viewer)
            self.look.compare(source, self.live.layer)

    def show_outcome(
        self, source: Image, image: Micrograph, outcome_enhanced: "EnhancedOutcome"
    ) -> Iterator[None]:
        """Show the finished result and its figures."""
        outcome, live, layer = outcome_enhanced.outcome, self.live, None
        if outcome.planes:
            model = str(outcome.result.provenance.model_name)
            title = result_name(self.viewer, source.name, model)
            layer = add_stack(self.viewer, outcome, source, title)
        elif live is not None and live.is_shown:
            levels = [item.data for item in outcome.output.levels]
            live.finish(outcome.output.micrograph, levels)
            layer, source = live.layer, live.request[0]
        if layer is not None:
            yield
            apart = outcome.result.change is None
            self.look.finish(layer, source, image, outcome, apart=apart)
        self._outcome = outcome
        if self._store_offered == Path(
            outcome.result.output
        ):  # the next run chooses its own path
            self.output.line_edit.value, self.existing.value = "", "refuse"
        self._store_offered = None
        yield from self._show_maps(outcome_enhanced)

    def _show_maps(self, outcome_enhanced: "EnhancedOutcome") -> Iterator[None]:
        outcome = outcome_enhanced.outcome
        for kind, opened_store in outcome_enhanced.maps.items():
            assert self.live is not None  # noqa: S101 - it was drawn
            name = self.live.layer.name
            both = self.live.request[0], self.live.layer
            with self.in_place(kind, *both) as earlier:
                yield from self.take_away(earlier)
                title = result_name(self.viewer, name, _MAPS[kind][1])
                layer = add_opened(self.viewer, opened_store, name=title)
                hide_other_maps(self.viewer, layer)
                yield
        report = outcome.result.report
        for reason in outcome_enhanced.unmade:
            self.show_warning(reason)
        hardly = describe_small_change(outcome.result.change)
        whole = f"{outcome_enhanced.seconds:.1f} s"
        sentence = (
            f"Enhanced in {whole} at {report.megapixels_per_second:.2f} megapixels/s."
        )
        if outcome.planes:
            sentence = (
                f"Enhanced {len(outcome.planes)} planes in {report.seconds:.1f} s."
            )
        if outcome_enhanced.maps:
            sentence = (
                f"Enhanced and mapped in {whole}, of which {report.seconds:.1f} s "
            )
            sentence += "are the network's."
        if outcome_enhanced.again:
            sentence = f"Mapped in {whole}; the existing result was kept."
        self.show_result(
            {**figures_of(outcome.result), "Store": outcome.result.output},
            f"{sentence}{hardly}",
            network=outcome.result.provenance.model_name,
        )

    # -- stopping ----------------------------------------------------------------

    def _on_layer_removed(self) -> None:
        """Stop, because the user removed the layer."""
        live = self.live
        if live is None or not live.is_partial:
            return  # a finished layer is removed like any other
        if self.runner.running:
            self.stop()
        else:
            live.forget_store()

    def _stop_drawing(self, _: str = "") -> None:
        """Keep an unfinished layer in the viewer; remove one without enhanced tiles."""
        live = self.live
        if live is None:
            return
        if not live.is_shown:
            live.forget_store()
            self.after_cancel = "the layer was removed"
        elif live.live.tiles_done:
            live.pause()
            self.after_cancel = "the finished part is kept, and Enhance resumes from it"
            if self.existing.value == "replace":
                self.after_cancel += ", unless it is set to overwrite"
        else:
            live.discard()
            live.forget_store()
            self.live = None
            self.after_cancel = "no layer was added"
        if not live.store.temporary and live.store.path.exists():
            self.after_cancel += "; 'resume it' continues the store"

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802 - Qt's name
        """Prepare for a run while the panel is idle."""
        super().showEvent(event)
        self._look_in_project()
        QTimer.singleShot(_AHEAD_MS, self._look_ahead)

    def _look_ahead(self) -> None:
        if is_alive(self) and self.isVisible():
            _import_ahead()

    def leave(self) -> None:
        """Keep an unfinished run for a panel that is opened later."""
        super().leave()
        live = self.live
        if live is None or not live.is_partial or not live.is_shown:
            return
        if live.live.tiles_done:
            live.pause()
        else:
            live.discard()

    def _offer_to_resume(self) -> None:
        """Set the form to a run that another panel left unfinished."""
        live = next(iter(half_done(self.viewer)), None)
        if live is None or live.request[0] not in self.viewer.layers:
            return
        source, model, options, (plane, *_) = live.request
        self.layer.value = source
        self.model.show_model(model)
        self._show_options(options)
        elsewhere = plane != plane_at(source, self.viewer.dims)
        where = " when its plane is shown" if elsewhere else ""
        self.show_status(f"{live.layer.name} is unfinished; Enhance resumes it{where}.")

    def _look_in_project(self) -> None:
        """Offer to resume unfinished stores of the open project."""
        folder = self.session.folder
        if not is_alive(self) or not self.isVisible() or folder == self._project:
            return
        self._project, output_typed = folder, self.writes()
        if folder is None or self.busy:
            return
        stores = (
            sorted(folder.glob("*.ome.zarr"))
            if output_typed is None
            else [output_typed]
        )
        stores_shown = [live.store.path for live in half_done(self.viewer)]
        for path in stores:
            record = None if path in stores_shown else find_unfinished(path)
            if record is not None and (output_typed is None or self._is_resuming()):
                self._offer_store(path, record.image)
                return

    def _offer_store(self, path: Path, image: str) -> None:
        """Set the form to an unfinished store, to resume it."""
        layers_by_name = {layer.name: layer for layer in self.viewer.layers}
        if layers_by_name.get(image) in self.layer.choices:
            self.layer.value = layers_by_name[image]
        self._store_offered = path
        self.output.value, self.existing.value = path, "resume"
        with self.showing_errors():
            self._options_before()
            sentence = f"{path.name} is unfinished; Enhance resumes it."
            self.show_status(sentence)

    def _show_cancelled(self) -> None:
        self._stop_drawing()
        super()._show_cancelled()


@dataclass(frozen=True, slots=True)
class EnhancedOutcome:
    """The enhanced images, and their maps."""

    outcome: Outcome
    maps: Mapping[str, Opened]
    unmade: tuple[str, ...]  # why ticked maps were not made
    seconds: float = 0.0  # of the whole run
    again: bool = False  # whether the result existed before


def _has_training_area(card: Mapping[str, Any]) -> bool:
    """Whether a model states the area it was trained on."""
    return FAMILIARITY in (card.get("training") or {})


def _enhance(
    image: Any,
    target: Target,
    live_layer: LiveLayer | None,
    maps: Mapping[str, bool],
    **arguments: Any,
) -> Job[EnhancedOutcome]:
    """Enhance an image or planes, open the result, and make the requested maps.

    `maps`: keys of the maps to make.
    """
    start, live = time.monotonic(), None if live_layer is None else live_layer.live
    yield from start_torch()
    yield Progress(0, 0, "Loading the model")
    job = ENHANCE.job(
        image,
        target.path,
        overwrite=target.existing == "replace",
        resume=target.existing == "resume",
        live=live,
        **arguments,
    )
    outcome = yield from write_outcome(
        job,
        target,
        keep=lambda: live_layer and live_layer.is_wanted and live_layer.live.tiles_done,
    )
    how = arguments["model"], arguments["options"]
    maps_made = yield from _make_maps(image, outcome, maps, *how)
    return replace(maps_made, seconds=time.monotonic() - start)


def _make_maps(
    micrograph: Micrograph,
    outcome: Outcome,
    maps: Mapping[str, bool],
    model: str,
    options: EnhanceOptions,
    *,
    again: bool = False,
) -> Job[EnhancedOutcome]:
    """Make the requested maps; warn about those that could not be made.

    The result is kept even if a map fails. `again`: it existed before.
    """
    start = time.monotonic()
    result_image, misfit = outcome.output.micrograph, outcome.result.misfit
    maps_shown: dict[str, Micrograph] = {}
    unmade: list[str] = []
    if maps[MISFIT] and misfit is None:
        unmade.append(
            f"No map of the misfit was made: {micrograph.name} shows little more than "
            "noise, or has too many gaps."
        )
    elif maps[MISFIT] and misfit is not None:
        maps_shown[MISFIT] = yield from map_misfit(micrograph, result_image, misfit)
    if maps[UNFAMILIAR]:
        try:
            maps_shown[UNFAMILIAR] = yield from map_unfamiliar(
                micrograph, model, options
            )
        except ShapeError as error:  # of an image smaller than a block
            unmade.append(str(error))
    for part, map_image in maps_shown.items():
        story = result_image.provenance and result_image.provenance.model_copy(
            update={"part": part}
        )
        maps_shown[part] = map_image.replace(provenance=story)
    stores = {name: Opened(item, (item,)) for name, item in maps_shown.items()}
    seconds = time.monotonic() - start
    return EnhancedOutcome(outcome, stores, tuple(unmade), seconds, again)
