"""Growing mosaic of a folder to which a microscope writes during a scan.

The job's thread passes on blocks of the store as they are written. A timer of the main
thread shows them at most ten times a second, and only while the canvas is visible.
"""

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QWidget

from napari_semsr import core, jobs
from napari_semsr.core import Box, Float32Array, Job
from napari_semsr.io import LIVE_KEY, GrowingMosaic, GrowingWindow
from napari_semsr.stitching import UnplacedFramesError
from napari_semsr.widgets import base, host, layers

if TYPE_CHECKING:
    from napari.layers import Image

_EVERY_MS = 100  # between two updates of the layer
_HALVINGS = 4  # levels in memory; chosen: 16 384 px are shown as 1 024
_GRID = 2**_HALVINGS
_MORE = 1.25  # growth in blocks from one adjustment of the contrast to the next; chosen
_SAMPLE_PX = 256  # a side whose grey values are measured; chosen: 2 ms
_LINES = 8  # warnings in view; chosen: more would push the buttons away
_FOLLOW, _STOP = "Follow this folder", "Stop and finish"
# share of the time at the end of each stage; measured with 16 frames
_STAGES = {
    "Opening": 0.01,
    "hashing": 0.02,
    "Estimating the flat field of the": 0.04,
    "Comparing neighbouring": 0.07,
    "Comparing possible": 0.1,
    "Refining flat": 0.35,
    "Checking overlaps": 0.6,
    "Refining all": 0.65,
    "Measuring the distortion": 0.7,
    "Estimating the flat field of half a": 0.8,
    "Estimating the flat field of half b": 0.9,
    "Fusing": 0.97,
    "Building": 1.0,
}
_Settings = tuple[jobs.StitchFolderOptions, Path, dict[str, object]]
_TIP = (
    "Place and fuse frames while the microscope writes them to the folder. Press Stop "
    "and finish to end this and recompute the positions of all frames."
)


def stitch_scan(folder: Path, target: Path, **how: Any) -> Job[base.JobResult]:
    """Stitch a folder of frames with one progress of the whole, and open the mosaic."""
    job = jobs.STITCH.job(folder, target, keep=False, **how)
    return base.run_and_open(core.count_stages(job, _STAGES), target)


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
                level[y : y + values.shape[0], x : x + values.shape[1]] = values
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
    options: jobs.StitchFolderOptions,
    display: GrowingLevels,
    is_stopped: Callable[[], bool],
    **how: Any,
) -> Job[tuple[base.JobResult | UnplacedFramesError, jobs.FollowedScan]]:
    """Follow a scan until the user stops it, then stitch its frames.

    `places`: the store that grows, and the mosaic; `how`: ``positions, overwrite``.
    """
    files = jobs.open_frame_folder(folder, how["positions"], options)
    followed_scan = yield from jobs.follow_scan(
        files, places[0], options, is_stopped=is_stopped, display=display
    )
    followed_scan.lock.release()
    options_left = options.replace(other_frames="leave-out")
    try:
        outcome = yield from stitch_scan(folder, places[1], options=options_left, **how)
    except UnplacedFramesError as error:
        return error, followed_scan
    stitched_file = outcome.report
    warnings = (*stitched_file.warnings, *followed_scan.warnings(stitched_file.corners))
    report = replace(stitched_file, warnings=warnings)
    return replace(outcome, report=report), followed_scan


class GrowingLayer:
    """Layer that shows a growing mosaic, which stays in view until the user moves it.

    Contrast limits follow the grey values until the user changes them.
    """

    def __init__(self, panel: base.VerbPanel, place: Path | None = None) -> None:
        self.levels = GrowingLevels()
        self.layer: Image | None = None
        self._panel, self._place = panel, place
        self._changes_shown = 0  # changes that are in the layer
        self._box: Box | None = None
        self._start = np.zeros(2)  # position of the mosaic's origin
        self._limits = (0.0, 1.0)  # contrast limits that were not the user's choice
        self._limits_at = 0  # changes when they were measured
        # size of the canvas, centre and zoom, as they were set here
        self._view: tuple[float, ...] | None = None

    def update(self) -> bool:
        """Show additions since the last update; return whether there were any."""
        levels, viewer = self.levels, self._panel.viewer
        if levels.changes == self._changes_shown:
            return False
        self._changes_shown = levels.changes
        data, box = levels.levels()
        if not data:
            return True
        if self.layer is None:
            self._add(data, box)
        elif self.layer not in viewer.layers:
            return True
        elif box == self._box:
            self.layer.refresh(thumbnail=False, extent=False)
        else:
            self.layer.data = data
            translate = self._start + np.array(box.corner) * self.layer.scale
            if not np.array_equal(translate, self.layer.translate):
                self.layer.translate = translate  # which slices it again
        layer = self.layer
        if layer is not None and box != self._box and not self._is_view_moved():
            layers.fill_view(viewer, layer)
            self._view = self._get_view()
        self._box = box
        # unless the user has changed them
        if layer is not None and self._limits == tuple(layer.contrast_limits):
            limits = self._measure_contrast_limits(data[1])
            if limits and limits != self._limits:
                layer.contrast_limits = limits
                self._limits = tuple(layer.contrast_limits)
        return True

    def _get_view(self) -> tuple[float, ...]:
        viewer = self._panel.viewer
        return *host.get_viewbox_size(viewer), *layers.get_view(viewer)

    def _is_view_moved(self) -> bool:
        """Return whether the user has moved the view, rather than resized it."""
        now = self._get_view()
        # the zoom follows the size of the canvas
        same = 7 if self._view is not None and now[:2] == self._view[:2] else 5
        return self._view is not None and now[2:same] != self._view[2:same]

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

    def _add(self, data: list[Any], box: Box) -> None:
        """Add the layer as soon as its first pixels have contrast."""
        mosaic = self.levels.mosaic
        measured_limits = self._measure_contrast_limits(data[1])
        if mosaic is None or measured_limits is None:
            return
        record, place = mosaic.store.record, mosaic.store.path
        name = place.name.removesuffix(".ome.zarr")
        about = core.Micrograph(
            np.zeros((1, 1), np.float32), record.pixel_size_nm, name,
            origin=mosaic.start_position, spacing_px=record.spacing_px,
        )  # fmt: skip
        keywords = layers.create_layer_keywords(about, contrast_limits=measured_limits)
        self._start = np.array(keywords["translate"])
        keywords["metadata"] = keywords.get("metadata", {}) | {LIVE_KEY: True}
        keywords["name"] = layers.find_free_name(self._panel.viewer, name)
        keywords["translate"] = self._start + np.array(box.corner) * keywords["scale"]
        with self._panel.history.make_removals_final():
            self.layer = self._panel.viewer.add_image(data, multiscale=True, **keywords)
        self._limits = tuple(self.layer.contrast_limits)

    def remove(self) -> None:
        """Remove the layer and its store."""
        self._panel.history.remove_layers([self.layer])
        self.layer = None
        if self._place is not None:
            shutil.rmtree(self._place, ignore_errors=True)


class FolderFollower(QWidget):
    """Button for following the folder of a panel, with the growing layer.

    `read`: returns the form's values, ``(options, mosaic's path, how)``; `show`: is
    called with the final outcome.
    """

    has_settings = True

    def __init__(
        self,
        panel: base.VerbPanel,
        read: Callable[[Path], _Settings],
        show: Callable[..., Iterator[None]],
    ) -> None:
        super().__init__()
        self._panel, self._read, self._show = panel, read, show
        self.button = base.create_button(_FOLLOW, self.press, _TIP)
        self.doubts = base.RichTextLabel()
        base.stack_widgets(self, self.button, self.doubts)
        self._mosaic = GrowingLayer(panel)
        self._stop = threading.Event()
        self._end = threading.Event()
        self._timer = base.create_timer(self, self.update_layer, _EVERY_MS)

    @property
    def is_following(self) -> bool:
        """Whether a folder is being followed."""
        return self._timer.isActive()

    @property
    def layer(self) -> "Image | None":
        """Layer of the growing mosaic."""
        return self._mosaic.layer

    def press(self) -> None:
        """Start following, or stop and recompute all positions."""
        if self.is_following:
            self._stop.set()
            self.button.setEnabled(False)
            return
        with self._panel.messages.show_errors():
            self._start_following()

    def _start_following(self) -> None:
        folder = self._panel.typed_folder()  # type: ignore[attr-defined]
        options, target, how = self._read(folder)
        place = base.find_free_store_path(f"{folder.name}-growing")
        mosaic_layer = GrowingLayer(self._panel, place)
        stop, end = threading.Event(), threading.Event()

        def make() -> Job[object]:
            places, levels, is_set = (place, target), mosaic_layer.levels, stop.is_set
            job = follow_and_stitch_scan(folder, places, options, levels, is_set, **how)
            try:
                return (yield from job)
            except BaseException:  # also if it is cancelled
                end.set()
                raise

        show = partial(self._show_final_mosaic, folder, options, how)
        if not self._panel.controls.start(make, show, _FOLLOW):
            return
        self._panel.messages.clear_warnings()
        self._mosaic = mosaic_layer
        self._stop, self._end = stop, end
        self.doubts.setText("")
        self.button.setText(_STOP)
        self._timer.start()

    def update_layer(self) -> None:
        """Show additions since the last update, if the canvas is visible."""
        if self._end.is_set():
            self._end_following()
            return
        if not host.is_on_screen(self._panel.viewer):
            return
        if self._mosaic.update():
            lines = self._mosaic.levels.doubts
            earlier = len(lines) - _LINES
            more = [f"{earlier} earlier ones."] if earlier > 0 else []
            html = "".join(f"<p>{text}</p>" for text in [*more, *lines[-_LINES:]])
            self.doubts.setText(html)

    def _end_following(self) -> None:
        """Reset the button, and remove the layer and its store."""
        self._timer.stop()
        self.button.setText(_FOLLOW)
        self.button.setEnabled(True)
        self._mosaic.remove()

    def _show_final_mosaic(
        self,
        folder: Path,
        options: jobs.StitchFolderOptions,
        how: Mapping[str, object],
        result: tuple[base.JobResult | UnplacedFramesError, jobs.FollowedScan],
    ) -> Iterator[None]:
        """Replace the growing mosaic with the final one, keeping view and contrast."""
        outcome, followed_scan = result
        camera, layer = host.get_camera(self._panel.viewer), self.layer
        center, zoom = np.array(camera.center), camera.zoom
        self._end_following()
        yield from self._show(outcome, folder, how["positions"], options)
        if isinstance(outcome, UnplacedFramesError):
            return
        mosaic = self._panel.viewer.layers[outcome.image.name]
        if layer is not None:
            mosaic.contrast_limits = layer.contrast_limits
            # median shift in px from the live to the final positions
            corners, live = outcome.report.corners, followed_scan.positions
            both = [(at, corners.get(name)) for name, at in live.items()]
            steps = [np.subtract(new, old) for old, new in both if old and new]
            shift = np.median(steps, axis=0) if steps else np.zeros(2)
            own = layers.world_to_layer(layer, center[-2:])
            own = own + shift * layer.scale + mosaic.translate
            center[-2:] = layers.layer_to_world(mosaic, own)
            fits = layers.get_display_fit(layer)[0] / layers.get_display_fit(mosaic)[0]
            camera.center, camera.zoom = tuple(center), zoom * fits
