"""Growing mosaic of a folder to which a microscope writes during a scan.

The job's thread passes on blocks of the store as they are written; another thread
passes on enhanced blocks, which grow in a second layer. A timer of the main thread
shows them at most ten times a second, and only while the canvas is visible.
"""

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import CheckBox, ComboBox
from qtpy.QtWidgets import QWidget

from napari_semsr.core import (
    Box,
    Float32Array,
    Job,
    Micrograph,
    OptionError,
    Progress,
)
from napari_semsr.io import (
    LIVE_KEY,
    GrowingMosaic,
    GrowingWindow,
    find_scan_instrument,
)
from napari_semsr.jobs import (
    STITCH,
    FollowedScan,
    GrowingEnhancement,
    StitchFolderOptions,
    follow_scan,
    open_frame_folder,
)
from napari_semsr.models import MODELS_BY_INSTRUMENT
from napari_semsr.stitching import UnplacedFramesError
from napari_semsr.widgets import host
from napari_semsr.widgets.base import (
    Form,
    JobOutput,
    OutputTarget,
    RichTextLabel,
    VerbPanel,
    create_button,
    create_timer,
    find_free_store_path,
    get_entered_path,
    is_alive,
    run_and_open,
    stack_widgets,
    switch_panel,
)
from napari_semsr.widgets.enhance import NEWS, QUESTION, list_installed_models
from napari_semsr.widgets.layers import (
    create_layer_keywords,
    find_free_name,
    get_display_fit,
    get_visible_box,
    layer_to_world,
    world_to_layer,
)

if TYPE_CHECKING:
    from napari.layers import Image

_EVERY_MS = 100  # between two updates of the layer
_HALVINGS = 4  # levels in memory; chosen: 16 384 px are shown as 1 024
_GRID = 2**_HALVINGS
_MORE = 1.25  # growth in blocks from one adjustment of the contrast to the next; chosen
_SAMPLE_PX = 256  # a side whose grey values are measured; chosen: 2 ms
_LINES = 8  # warnings in view; chosen: more would push the buttons away
_FOLLOW, _STOP = "Follow this folder", "Stop and finish"
_TIP = (
    "Place and fuse frames while the microscope writes them to the folder. Press Stop "
    "and finish to end this and recompute the positions of all frames."
)


class GrowingLevels:
    """Resolution levels of a growing mosaic.

    The finest level stays in the store; the coarser ones, together a third as large,
    are in memory.
    """

    def __init__(self) -> None:
        self.mosaic: GrowingMosaic | None = None
        self.doubts: list[str] = []
        self.changes = 0  # blocks and warnings so far
        self._box = Box(0, 0, 0, 0)
        self._coarse: list[Float32Array] = []
        self._lock = threading.Lock()

    def show_warning(self, sentence: str) -> None:
        """Record a warning about a frame."""
        self.doubts.append(sentence)
        self.changes += 1

    def show_block(self, mosaic: GrowingMosaic, box: Box) -> None:
        """Record a newly written rectangle, in pixels of the mosaic."""
        whole = mosaic.box
        inside = box.relative_to(whole)
        low = [v // _GRID * _GRID for v in inside.corner]
        high = [-(-v // _GRID) * _GRID for v in (inside.y1, inside.x1)]
        part = Box(low[0], high[0], low[1], high[1])
        values = mosaic.read(part.move(whole.corner))
        with self._lock:
            if whole != self._box:
                self._extend(mosaic, whole)
            for number, level in enumerate(self._coarse, 1):
                # the mean of 2 x 2 pixels is NaN if any of the four is
                rows = values[::2] + values[1::2]
                values = np.asarray((rows[:, ::2] + rows[:, 1::2]) / np.float32(4))
                y, x = (v >> number for v in part.corner)
                level[
                    Box.from_shape((values.shape[0], values.shape[1]), (y, x)).slices
                ] = values
        self.changes += 1

    def _extend(self, mosaic: GrowingMosaic, whole: Box) -> None:
        old, coarse = self._box.relative_to(whole), []
        for number in range(1, _HALVINGS + 1):
            rows, columns = (n >> number for n in whole.shape)
            level = np.full((rows, columns), np.nan, np.float32)
            if self._coarse:
                y, x = (v >> number for v in old.corner)
                former = self._coarse[number - 1]
                level[y : y + former.shape[0], x : x + former.shape[1]] = former
            coarse.append(level)
        self.mosaic, self._box, self._coarse = mosaic, whole, coarse

    def levels(self) -> tuple[list[Any], Box]:
        """Return the levels, finest first, and the rectangle that they cover."""
        with self._lock:
            if self.mosaic is None:
                return [], self._box
            return [GrowingWindow(self.mosaic, self._box), *self._coarse], self._box


def follow_and_stitch_scan(
    folder: Path,
    places: tuple[Path, Path],
    options: StitchFolderOptions,
    display: GrowingLevels | GrowingEnhancement,
    is_stopped: Callable[[], bool],
    **how: Any,
) -> Job[tuple[JobOutput | UnplacedFramesError, FollowedScan]]:
    """Follow a scan until the user stops it, then stitch its frames.

    `places`: the store that grows, and the mosaic; `how`: ``positions, overwrite``.
    """
    files = open_frame_folder(folder, how["positions"], options)
    follow_options: dict[str, Any] = {"is_stopped": is_stopped, "display": display}
    with ExitStack() as stack:
        if isinstance(display, GrowingEnhancement):
            follow_options["rest"] = stack.enter_context(display).allow_enhancement
        followed_scan = yield from follow_scan(
            files, places[0], options, **follow_options
        )
    followed_scan.release_lock()
    options_left = options.replace(other_frames="leave-out")
    job = STITCH.job(folder, places[1], options=options_left, keep=False, **how)
    try:
        outcome = yield from run_and_open(job, OutputTarget(places[1]))
    except UnplacedFramesError as error:
        return error, followed_scan
    stitched_file = outcome.result
    warnings = (*stitched_file.warnings, *followed_scan.warnings(stitched_file.corners))
    return replace(
        outcome, result=replace(stitched_file, warnings=warnings)
    ), followed_scan


class GrowingLayer:
    """Layer that shows a growing mosaic without changing the view.

    Contrast limits follow the grey values until the user changes them.
    """

    def __init__(self, panel: VerbPanel, place: Path | None = None) -> None:
        self.levels = GrowingLevels()
        self.layer: Image | None = None
        self._panel, self._place = panel, place
        self._changes_shown = 0  # changes that are in the layer
        self._box: Box | None = None
        self._start = np.zeros(2)  # position of the mosaic's origin
        self._limits = (0.0, 1.0)  # contrast limits that were not the user's choice
        self._limits_at = 0  # changes when they were measured

    def update(self, limits: tuple[float, ...] | None = None) -> bool:
        """Show additions since the last update; return whether there were any.

        `limits`: contrast limits to show; by default those of the grey values.
        """
        levels, viewer = self.levels, self._panel.viewer
        if levels.changes == self._changes_shown:
            if limits is not None:
                self._set_contrast_limits(limits)
            return False
        self._changes_shown = levels.changes
        data, box = levels.levels()
        if not data:
            return True
        if self.layer is None:
            self._add(data, box, limits)
        elif self.layer not in viewer.layers:
            return True
        elif box == self._box:
            self.layer.refresh(thumbnail=False, extent=False)
        else:
            self.layer.data = data
            translate = self._start + np.array(box.corner) * self.layer.scale
            if not np.array_equal(translate, self.layer.translate):
                self.layer.translate = translate  # which slices it again
        self._box = box
        if self.layer is not None:
            self._set_contrast_limits(
                limits or self._measure_contrast_limits(data[1]) or self._limits
            )
        return True

    def _set_contrast_limits(self, limits: tuple[float, ...]) -> None:
        """Set the contrast limits, unless the user has changed them."""
        layer = self.layer
        if layer is None or self._limits != tuple(layer.contrast_limits):
            return
        if limits != self._limits:
            layer.contrast_limits = limits
            self._limits = tuple(layer.contrast_limits)

    def _measure_contrast_limits(self, level: Float32Array) -> tuple[float, ...] | None:
        """Measure contrast limits if enough was added; None if there is no contrast."""
        if self._changes_shown < _MORE * self._limits_at:
            return None
        some = level[tuple(slice(None, None, 1 + n // _SAMPLE_PX) for n in level.shape)]
        some = some[np.isfinite(some)]
        if not some.size or some.min() == some.max():
            return None
        self._limits_at = self._changes_shown
        return tuple(map(float, np.quantile(some, (0.001, 0.999))))

    def _add(self, data: list[Any], box: Box, limits: tuple[float, ...] | None) -> None:
        """Add the layer as soon as its first pixels have contrast."""
        mosaic, measured_limits = (
            self.levels.mosaic,
            self._measure_contrast_limits(data[1]),
        )
        if mosaic is None or measured_limits is None:
            return
        record, place = mosaic.store.record, mosaic.store.path
        name = place.name.removesuffix(".ome.zarr")
        about = Micrograph(
            np.zeros((1, 1), np.float32), record.pixel_size_nm, name,
            origin=mosaic.start_position, spacing_px=record.spacing_px,
        )  # fmt: skip
        keywords = create_layer_keywords(
            about, contrast_limits=limits or measured_limits
        )
        self._start = np.array(keywords["translate"])
        keywords["metadata"] = keywords.get("metadata", {}) | {LIVE_KEY: True}
        keywords["name"] = find_free_name(self._panel.viewer, name)
        keywords["translate"] = self._start + np.array(box.corner) * keywords["scale"]
        with self._panel.history.make_removals_final():
            self.layer = self._panel.viewer.add_image(data, multiscale=True, **keywords)
        self._limits = tuple(self.layer.contrast_limits)

    def view(self) -> Box | None:
        """Return the visible area in mosaic pixels; None if not visible."""
        viewer, layer, box = self._panel.viewer, self.layer, self._box
        if layer is None or box is None or layer not in viewer.layers:
            return None
        view = get_visible_box(viewer, layer) if host.is_on_screen(viewer) else None
        return None if view is None else view.move(box.corner)

    def remove(self) -> None:
        """Remove the layer and its store."""
        self._panel.history.remove_layers([self.layer])
        self.layer = None
        if self._place is not None:
            shutil.rmtree(self._place, ignore_errors=True)


class FolderFollower(QWidget):
    """Button for following the folder of a panel, with the growing layers.

    `read`: returns the form's values, ``(options, mosaic's path, how)``; `show`: is
    called with the final outcome.
    """

    has_settings = True

    def __init__(
        self,
        panel: VerbPanel,
        read: Callable[[Path], tuple[StitchFolderOptions, Path, dict[str, object]]],
        show: Callable[..., Iterator[None]],
    ) -> None:
        super().__init__()
        self._panel, self._read, self._show = panel, read, show
        self.button = create_button(_FOLLOW, self.press, _TIP)
        self.enhance = CheckBox(
            name="enhance",
            text="Enhance as it grows",
            tooltip=(
                "Show enhanced blocks in a second layer: visible blocks that have not "
                "changed for a second. New frames have priority. When the scan ends, "
                "Enhance processes the whole mosaic."
            ),
        )
        self.model = ComboBox(
            name="model",
            label="Model",
            tooltip="A bundled, imported or trained model.",
            choices=lambda _: self._list_model_choices(),
        )
        self._model_proposed: str | None = None
        self.question = RichTextLabel()
        self._model_row = Form(self.question, self.model)
        self.enhance.changed.connect(self._update_model_row)
        self.model.changed.connect(self._update_question)
        NEWS.changed.connect(self._update_model_row)
        self._update_model_row()
        self.doubts = RichTextLabel()
        stack_widgets(
            self, self.button, self.enhance.native, self._model_row, self.doubts
        )
        self._mosaic, self._enhanced_layer = GrowingLayer(panel), GrowingLayer(panel)
        self._enhancement: GrowingEnhancement | None = None
        self._stop = threading.Event()
        self._end = threading.Event()
        self._timer = create_timer(self, self.update_layer, _EVERY_MS)

    @property
    def is_following(self) -> bool:
        """Whether a folder is being followed."""
        return self._timer.isActive()

    @property
    def layer(self) -> "Image | None":
        """Layer of the growing mosaic."""
        return self._mosaic.layer

    @property
    def enhanced_layer(self) -> "Image | None":
        """Layer of the enhanced mosaic, which grows with the mosaic."""
        return self._enhanced_layer.layer

    def _list_model_choices(self) -> list[tuple[str, str | None]]:
        nothing = [("choose a model", None)]
        return [*nothing, *list_installed_models()] if self.enhance.value else []

    def _update_model_row(self, _: object = None) -> None:
        if is_alive(self):
            self.model.reset_choices()
            self._propose_model()
            self._model_row.setVisible(self.enhance.value)

    def _propose_model(self) -> None:
        """Propose the model for the folder's microscope, unless the user has chosen."""
        is_chosen = self.model.value not in (None, self._model_proposed)
        if is_chosen or not self.enhance.value:
            return
        folder = get_entered_path(self._panel.folder)  # type: ignore[attr-defined]
        kind = None if folder is None else find_scan_instrument(folder)
        self._model_proposed = MODELS_BY_INSTRUMENT.get(kind or "")
        self.model.value = self._model_proposed
        self._update_question()

    def _update_question(self, _: object = None) -> None:
        self.question.setText("" if self.model.value else QUESTION, "warning")

    def press(self) -> None:
        """Start following, or stop and recompute all positions."""
        if self.is_following:
            self._stop.set()
            self.button.setEnabled(False)
            return
        with self._panel.messages.show_errors():
            self._start_following()

    def _start_following(self) -> None:
        folder = get_entered_path(self._panel.folder)  # type: ignore[attr-defined]
        if folder is None:
            msg = "Choose a folder of frames first."
            raise OptionError(msg, code="missing-value")
        self._propose_model()  # the folder may be another one by now
        model: str | None = self.model.value if self.enhance.value else None
        if self.enhance.value and model is None:
            raise OptionError(QUESTION, code="model-missing")
        options, target, how = self._read(folder)
        place = find_free_store_path(f"{folder.name}-growing")
        fine_place = find_free_store_path(f"{folder.name}-growing-enhanced")
        mosaic_layer, fine_layer = (
            GrowingLayer(self._panel, path) for path in (place, fine_place)
        )
        stop, end = threading.Event(), threading.Event()

        def make() -> Job[object]:
            is_done = False
            display: GrowingLevels | GrowingEnhancement = mosaic_layer.levels
            try:
                if model is not None:
                    from napari_semsr.widgets.enhance import start_torch  # slow

                    yield from start_torch()
                    yield Progress(0, 0, "Loading the model")
                    display = self._enhancement = GrowingEnhancement(
                        model,
                        fine_place,
                        mosaic_layer.levels,
                        fine_layer.levels.show_block,
                    )
                result = yield from follow_and_stitch_scan(
                    folder, (place, target), options, display, stop.is_set, **how
                )
                is_done = True
            finally:
                if not is_done:
                    end.set()  # cancelled, or an error
            return result

        show = partial(self._show_final_mosaic, folder, options, how, model)
        self._enhancement = None
        if not self._panel.controls.start(make, show, _FOLLOW):
            return
        self._panel.messages.clear_warnings()
        self._mosaic, self._enhanced_layer = mosaic_layer, fine_layer
        self._stop, self._end = stop, end
        self.doubts.setText("")
        self.button.setText(_STOP)
        self._timer.start()

    def update_layer(self) -> None:
        """Show additions since the last update, if the canvas is visible."""
        if self._end.is_set():
            self._end_following()
            return
        if self._enhancement is not None:
            self._enhancement.set_view(self._mosaic.view())
        if not host.is_on_screen(self._panel.viewer):
            return
        if self._mosaic.update():
            lines = self._mosaic.levels.doubts
            earlier = len(lines) - _LINES
            more = [f"{earlier} earlier ones."] if earlier > 0 else []
            html = "".join(f"<p>{text}</p>" for text in [*more, *lines[-_LINES:]])
            self.doubts.setText(html)
        if self.layer is not None:
            self._enhanced_layer.update(tuple(self.layer.contrast_limits))

    def _end_following(self) -> None:
        """Reset the button, and remove the layers and their stores."""
        self._timer.stop()
        self._enhancement = None
        self.button.setText(_FOLLOW)
        self.button.setEnabled(True)
        self._mosaic.remove()
        self._enhanced_layer.remove()

    def _show_final_mosaic(
        self,
        folder: Path,
        options: StitchFolderOptions,
        how: Mapping[str, object],
        model: str | None,
        result: tuple[JobOutput | UnplacedFramesError, FollowedScan],
    ) -> Iterator[None]:
        """Replace the growing mosaic with the final one, keeping view and contrast."""
        outcome, followed_scan = result
        camera, layer = host.get_camera(self._panel.viewer), self.layer
        center, zoom = np.array(camera.center), camera.zoom
        self._end_following()
        yield from self._show(outcome, folder, how["positions"], options)
        if isinstance(outcome, UnplacedFramesError):
            return
        mosaic = self._panel.viewer.layers[outcome.output.micrograph.name]
        if layer is not None:
            mosaic.contrast_limits = layer.contrast_limits
            # median shift in px from the live to the final positions
            corners, live = outcome.result.corners, followed_scan.positions
            both = [(at, corners.get(name)) for name, at in live.items()]
            steps = [np.subtract(new, old) for old, new in both if old and new]
            shift = np.median(steps, axis=0) if steps else np.zeros(2)
            own = world_to_layer(layer, center[-2:])
            own = own + shift * layer.scale + mosaic.translate
            center[-2:] = layer_to_world(mosaic, own)
            fits = get_display_fit(layer)[0] / get_display_fit(mosaic)[0]
            camera.center, camera.zoom = tuple(center), zoom * fits
        if model is not None:
            yield
            enhance: Any = switch_panel(self._panel, self._panel.viewer, "Enhance")
            enhance.layer.value = mosaic
            enhance.model.show_model(model)
            enhance.run()
