"""A folder into which a microscope writes is followed; its mosaic grows in one layer.

The job's thread hands over blocks of the store as they are written. A timer of the main
thread shows them: at most ten times a second, and not while nobody sees the canvas.
"""

import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QWidget

from napari_semsr.core import (
    Box,
    Float32Array,
    FloatPair,
    IntPair,
    Job,
    Micrograph,
    OptionError,
)
from napari_semsr.io import GrowingMosaic
from napari_semsr.jobs import (
    STITCH,
    Followed,
    StitchFolderOptions,
    follow_scan,
    frame_folder,
)
from napari_semsr.stitching import UnplacedError
from napari_semsr.widgets import host
from napari_semsr.widgets.base import (
    Outcome,
    Panel,
    RichLabel,
    Target,
    lay_below,
    new_store_path,
    new_timer,
    push_button,
    typed_path,
    write_outcome,
)
from napari_semsr.widgets.layers import free_name, layer_keywords

if TYPE_CHECKING:
    from napari.layers import Image

_EVERY_MS = 100  # between two updates of the layer
_HALVINGS = 4  # levels in memory; chosen: 16 384 px are shown as 1 024
_GRID = 2**_HALVINGS
_LINES = 8  # of doubts that are in view; chosen: more would push the buttons away
_FOLLOW, _STOP = "Follow this folder", "Stop, and solve the whole"
_TIP = (
    "Place and fuse the frames that a microscope writes into the folder as they come. "
    "Stop ends this, and solves all frames once more."
)


def _halve(values: Float32Array) -> Float32Array:
    """Mean of two by two pixels; NaN where one of them is."""
    rows = values[::2] + values[1::2]
    return np.asarray((rows[:, ::2] + rows[:, 1::2]) / np.float32(4))


@dataclass(frozen=True, slots=True)
class _Finest:
    """A rectangle of a mosaic that grows, read from its store where it is looked at."""

    mosaic: GrowingMosaic
    box: Box
    dtype = np.dtype(np.float32)
    ndim = 2

    @property
    def shape(self) -> IntPair:
        return self.box.shape

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1]

    def __getitem__(self, index: Any) -> Float32Array:
        index = index if isinstance(index, tuple) else (index, slice(None))
        spans = [item.indices(n) for item, n in zip(index, self.shape, strict=True)]
        part = Box(spans[0][0], spans[0][1], spans[1][0], spans[1][1])
        values = self.mosaic.read(part.move(self.box.corner))
        return values[:: spans[0][2], :: spans[1][2]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self[:, :], dtype=dtype)


class GrowingLevels:
    """What a mosaic that grows looks like from far and near.

    The finest level stays in the store; the coarser ones, a third as large together,
    are in memory.
    """

    def __init__(self) -> None:
        self.mosaic: GrowingMosaic | None = None
        self.doubts: list[str] = []
        self.changes = 0  # blocks and doubts so far
        self._box = Box(0, 0, 0, 0)
        self._coarse: list[Float32Array] = []
        self._lock = threading.Lock()

    def show_doubt(self, sentence: str) -> None:
        """Take what is wrong with a frame."""
        self.doubts.append(sentence)
        self.changes += 1

    def show_block(self, mosaic: GrowingMosaic, box: Box) -> None:
        """Take a rectangle that was written, in the mosaic's pixels."""
        whole = Box.of(mosaic.shape, mosaic.origin)
        inside = box.within(whole)
        low = [v // _GRID * _GRID for v in inside.corner]
        high = [-(-v // _GRID) * _GRID for v in (inside.y1, inside.x1)]
        part = Box(low[0], high[0], low[1], high[1])
        values = mosaic.read(part.move(whole.corner))
        with self._lock:
            if whole != self._box:
                self._extend(mosaic, whole)
            for number, level in enumerate(self._coarse, 1):
                values = _halve(values)
                y, x = (v >> number for v in part.corner)
                level[Box.of((values.shape[0], values.shape[1]), (y, x)).slices] = (
                    values
                )
        self.changes += 1

    def _extend(self, mosaic: GrowingMosaic, whole: Box) -> None:
        old, coarse = self._box.within(whole), []
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
        """Give the levels, the finest first, and the rectangle that they show."""
        with self._lock:
            if self.mosaic is None:
                return [], self._box
            return [_Finest(self.mosaic, self._box), *self._coarse], self._box


def follow_and_stitch(
    folder: Path,
    places: tuple[Path, Path],
    options: StitchFolderOptions,
    levels: GrowingLevels,
    is_stopped: Callable[[], bool],
    **how: Any,
) -> Job[tuple[Outcome | UnplacedError, Followed]]:
    """Follow a scan until it is stopped, then stitch its frames as `stitch` does.

    `places`: the store that grows, and the mosaic; `how`: ``positions, overwrite``.
    """
    files = frame_folder(folder, how["positions"], options)
    follow_options: dict[str, Any] = {"is_stopped": is_stopped, "display": levels}
    followed_scan = yield from follow_scan(files, places[0], options, **follow_options)
    followed_scan.release()
    options_left = options.replace(other_frames="leave-out")
    job = STITCH.job(folder, places[1], options=options_left, keep=False, **how)
    try:
        outcome = yield from write_outcome(job, Target(places[1]))
    except UnplacedError as error:
        return error, followed_scan
    stitched_file = outcome.made
    warnings = (*stitched_file.warnings, *followed_scan.warnings(stitched_file.corners))
    return replace(
        outcome, made=replace(stitched_file, warnings=warnings)
    ), followed_scan


class FolderFollower(QWidget):
    """The button that follows the folder of a panel, and the layer that grows.

    `read`: gives what the form holds, ``(options, mosaic's path, how)``; `show`: takes
    the outcome of the final solution.
    """

    def __init__(
        self,
        panel: Panel,
        read: Callable[[Path], tuple[StitchFolderOptions, Path, dict[str, Any]]],
        show: Callable[..., Iterator[None]],
    ) -> None:
        super().__init__()
        self._panel, self._read, self._show = panel, read, show
        self.button = push_button(_FOLLOW, self.press, _TIP)
        self.doubts = RichLabel()
        lay_below(self, self.button, self.doubts)
        self.layer: Image | None = None
        self._levels = GrowingLevels()
        self._changes_shown = 0  # changes that are in the layer
        self._box: Box | None = None
        self._place: Path | None = None
        self._stop = threading.Event()
        self._end = threading.Event()
        self._timer = new_timer(self, self.update_layer, _EVERY_MS)

    @property
    def is_following(self) -> bool:
        """Whether frames are taken."""
        return self._timer.isActive()

    def press(self) -> None:
        """Start to follow; or end it, and solve the whole."""
        if self.is_following:
            self._stop.set()
            self.button.setEnabled(False)
            return
        with self._panel.showing_errors():
            self._start()

    def _start(self) -> None:
        folder = typed_path(self._panel.folder)  # type: ignore[attr-defined]
        if folder is None:
            msg = "A folder of frames must be chosen first."
            raise OptionError(msg, code="missing-value")
        options, target, how = self._read(folder)
        place = new_store_path(f"{folder.name}-growing")
        levels, stop, end = GrowingLevels(), threading.Event(), threading.Event()

        def make() -> Job[Any]:
            is_done = False
            try:
                result = yield from follow_and_stitch(
                    folder, (place, target), options, levels, stop.is_set, **how
                )
                is_done = True
            finally:
                if not is_done:
                    end.set()  # cancelled, or an error
            return result

        show = partial(self._finish, folder, options, how)
        if not self._panel.start(make, show, _FOLLOW):
            return
        self._levels, self._stop, self._end = levels, stop, end
        self._place, self._changes_shown, self._box = place, 0, None
        self.doubts.setText("")
        self.button.setText(_STOP)
        self._timer.start()

    def update_layer(self) -> None:
        """Show what came since the last update, if the canvas is seen."""
        if self._end.is_set():
            self._leave()
            return
        levels, viewer = self._levels, self._panel.viewer
        if levels.changes == self._changes_shown or not host.is_seen(viewer):
            return
        self._changes_shown = levels.changes
        self._show_doubts()
        data, box = levels.levels()
        if not data:
            return
        if self.layer is None:
            self._add_layer(data, box)
        elif self.layer not in viewer.layers:
            return
        elif box == self._box:
            self.layer.refresh(thumbnail=False, extent=False)
        else:
            self.layer.data = data
            self.layer.translate = np.array(box.corner) * self.layer.scale
        self._box = box

    def _show_doubts(self) -> None:
        lines = self._levels.doubts
        earlier = len(lines) - _LINES
        more = [f"{earlier} earlier ones."] if earlier > 0 else []
        self.doubts.setText("".join(f"<p>{t}</p>" for t in [*more, *lines[-_LINES:]]))

    def _add_layer(self, data: list[Any], box: Box) -> None:
        """Add the layer once its first pixels show something; its contrast stays."""
        mosaic = self._levels.mosaic
        some = data[1][np.isfinite(data[1])]
        if mosaic is None or not some.size or some.min() == some.max():
            return
        about = Micrograph(
            np.zeros((1, 1), np.float32), mosaic.store.record.pixel_size_nm, "growing"
        )
        viewer, name = self._panel.viewer, self._place.name if self._place else ""
        keywords = layer_keywords(
            about, contrast_limits=tuple(map(float, np.quantile(some, (0.001, 0.999))))
        )
        keywords["name"] = free_name(viewer, name.removesuffix(".ome.zarr"))
        keywords["translate"] = np.array(box.corner) * keywords["scale"]
        with self._panel.history.quiet():
            self.layer = viewer.add_image(data, multiscale=True, **keywords)

    def _leave(self) -> None:
        """Take the layer and its store away."""
        self._timer.stop()
        self.button.setText(_FOLLOW)
        self.button.setEnabled(True)
        layer, self.layer = self.layer, None
        if layer is not None and layer in self._panel.viewer.layers:
            with self._panel.history.quiet():
                self._panel.viewer.layers.remove(layer)
        if self._place is not None:
            shutil.rmtree(self._place, ignore_errors=True)

    def _finish(
        self,
        folder: Path,
        options: StitchFolderOptions,
        how: dict[str, Any],
        result: tuple[Outcome | UnplacedError, Followed],
    ) -> Iterator[None]:
        """Put the final mosaic where the growing one was: view and contrast stay."""
        outcome, followed_scan = result
        camera, layer = host.camera(self._panel.viewer), self.layer
        center, zoom = np.array(camera.center), camera.zoom
        self._leave()
        yield from self._show(outcome, folder, how["positions"], options)
        if layer is None or isinstance(outcome, UnplacedError):
            return
        mosaic = self._panel.viewer.layers[outcome.opened.micrograph.name]
        mosaic.contrast_limits = layer.contrast_limits
        shift = _shift(followed_scan.positions, outcome.made.corners)
        center[-2:] += shift * layer.scale + mosaic.translate
        camera.center, camera.zoom = tuple(center), zoom


def _shift(
    live: dict[str, FloatPair | None], final_corners: dict[str, FloatPair | None]
) -> Any:
    """Shift in px, (2,), from places while following to those of the solution."""
    both = [(at, final_corners.get(name)) for name, at in live.items()]
    steps = [np.subtract(new, old) for old, new in both if old and new]
    return np.median(steps, axis=0) if steps else np.zeros(2)
