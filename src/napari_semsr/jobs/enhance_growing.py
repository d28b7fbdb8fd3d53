"""Enhance the blocks of a growing mosaic during the scan."""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from napari_semsr import inference, models
from napari_semsr.core import (
    Box,
    Cancelled,
    Float32Array,
    IntPair,
    Micrograph,
    OptionError,
)
from napari_semsr.io import GrowingMosaic, GrowingWindow
from napari_semsr.jobs.follow import LiveDisplay
from napari_semsr.models import find_model

_QUIET_S = 1.0  # seconds; chosen: overlapping frames of a row arrive within that time
_MIN_REST_S = 0.1  # seconds; chosen: frames hardly wait
_LOOK_S = 0.1  # seconds between searches for a block; chosen: responsive
# of the range; chosen: a quarter of a grey level of 255, half the work of deep models
_TOLERANCE = 0.001


@dataclass(frozen=True, slots=True)
class _PausingWindow(GrowingWindow):
    """Mosaic window that delays reading while frames are being placed."""

    pause: Callable[[], None]

    def __getitem__(self, index: object) -> Float32Array:
        self.pause()
        return GrowingWindow.__getitem__(self, index)


class GrowingEnhancement:
    """Enhancement of the visible area of a growing mosaic, in a single thread.

    A block is enhanced once its pixels, and those in the network's context margin, have
    not changed for a second, and again after a change. The thread computes only while
    the scan pauses; otherwise it waits, also between two layers of a pass. Grey values
    are measured over the mosaic so far, and again once its number of pixels has
    doubled; all blocks are then enhanced again.

    Parameters
    ----------
    model : str or path
        Name of a model, or its file.
    place : path
        Store of the enhanced blocks; an existing one is overwritten.
    display : LiveDisplay
        Display of the mosaic.
    show : callable
        Called with each enhanced block: the enhanced mosaic, and a box in its pixels.

    Raises
    ------
    OptionError
        If the network needs the whole field at once (`receptive-field-unbounded`).
    CheckpointError
        If the file is not a model.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        place: Path,
        display: LiveDisplay,
        show: Callable[[GrowingMosaic, Box], None],
    ) -> None:
        self._model = models.load_model(find_model(model))
        field = np.random.default_rng(0).random((64, 64), np.float32)
        boxes = inference.prepare_preview(
            Micrograph(field, None, "test"), self._model, halo_tolerance=_TOLERANCE
        )
        if not boxes.exact:
            msg = (
                f"Model {self._model.card.name} uses whole-image statistics, but the "
                "mosaic is still incomplete: choose another model, or enhance the "
                "finished mosaic."
            )
            raise OptionError(msg, code="receptive-field-unbounded")
        boxes.enhance(Box.from_shape(field.shape))  # a network that fails, fails here
        self._place, self._display, self._show = place, display, show
        self._mosaic: GrowingMosaic | None = None
        self._output: GrowingMosaic | None = None
        self._boxes: Any = None  # `BoxPreview` of the mosaic at the last measurement
        self._measured_box = Box(0, 0, 0, 0)  # extent of the mosaic at that time
        self._written_px = 0  # pixels written since then
        self._changes: dict[IntPair, float] = {}  # time of the last change of blocks
        self._blocks_done: set[IntPair] = set()
        self._view: Box | None = None
        self._lock = threading.Lock()
        self._resting, self._stop = threading.Event(), threading.Event()
        self._pool = ThreadPoolExecutor(1, "semsr-grow")

    def __enter__(self) -> Self:
        self._pool.submit(self._run_thread)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._pool.shutdown()
        self._mosaic = self._output = self._boxes = None  # their stores have locks

    # Called in the thread that follows the scan.

    def allow_enhancement(self, seconds: float) -> None:
        """Allow blocks to be enhanced for a given time, or for a short minimum time."""
        self._resting.set()
        time.sleep(max(seconds, _MIN_REST_S))
        self._resting.clear()

    def show_warning(self, sentence: str) -> None:
        """Show a warning about a frame."""
        self._display.show_warning(sentence)

    def show_block(self, mosaic: GrowingMosaic, box: Box) -> None:
        """Register a newly written rectangle, in mosaic pixels."""
        self._display.show_block(mosaic, box)
        now, side = time.monotonic(), mosaic.chunk
        with self._lock:
            self._mosaic = mosaic
            self._written_px += box.shape[0] * box.shape[1]
            reach = 0 if self._boxes is None else self._boxes.context_margin
            wide = box.grow(reach)
            for row in range(wide.y0 // side, -(-wide.y1 // side)):
                for column in range(wide.x0 // side, -(-wide.x1 // side)):
                    self._changes[row, column] = now

    # Called by the viewer.

    def set_view(self, view: Box | None) -> None:
        """Set the visible box in mosaic pixels, or None if nothing is visible."""
        self._view = view

    # Run in the thread.

    def _wait_for_pause(self) -> None:
        """Wait until the scan pauses; raise `Cancelled` if it has ended."""
        while not self._resting.wait(_LOOK_S):
            if self._stop.is_set():
                break
        if self._stop.is_set():
            msg = "The scan has ended."
            raise Cancelled(msg)

    def _run_thread(self) -> None:
        try:
            while True:
                self._wait_for_pause()
                place = self._find_next_block()
                if place is None:
                    time.sleep(_LOOK_S)
                else:
                    self._enhance_block(place)
        except Cancelled:
            return
        except Exception as error:  # noqa: BLE001 - in any case, the scan continues
            self.show_warning(f"Enhancement of the growing mosaic stopped: {error}")

    def _get_block_box(self, place: IntPair) -> Box:
        assert self._mosaic is not None  # noqa: S101 - it has blocks
        side = self._mosaic.chunk
        block = Box.from_shape((side, side), (place[0] * side, place[1] * side))
        return block.intersection(self._mosaic.box)

    def _find_next_block(self) -> IntPair | None:
        """Return the visible, unchanging block nearest to the view centre."""
        view, latest = self._view, time.monotonic() - _QUIET_S
        if view is None:
            return None
        with self._lock:
            quiet = [
                place
                for place, changed_s in self._changes.items()
                if changed_s < latest and self._get_block_box(place).overlaps(view)
            ]

            def view_distance(place: IntPair) -> float:
                box = self._get_block_box(place)
                down = box.y0 + box.y1 - view.y0 - view.y1
                return float(np.hypot(down, box.x0 + box.x1 - view.x0 - view.x1))

            place = min(quiet, key=view_distance, default=None)
            if place is not None:  # changes make it due again
                del self._changes[place]
            return place

    def _create_input(self, box: Box) -> Micrograph:
        assert self._mosaic is not None  # noqa: S101 - it has blocks
        window = _PausingWindow(self._mosaic, box, self._wait_for_pause)
        size = self._mosaic.store.record.pixel_size_nm
        return Micrograph(window, size, "the mosaic so far")

    def _enhance_block(self, place: IntPair) -> None:
        """Enhance a block from its current pixels, unless it is empty."""
        mosaic, block = self._mosaic, self._get_block_box(place)
        assert mosaic is not None  # noqa: S101 - it has blocks
        if not np.isfinite(mosaic.read(block)).any():
            return
        whole, (rows, columns) = mosaic.box, self._measured_box.shape
        if self._written_px >= rows * columns:
            # measure the grey values again, and queue all blocks
            with self._lock:
                self._written_px = 0
            boxes = inference.prepare_preview(
                self._create_input(whole), self._model, halo_tolerance=_TOLERANCE
            )
            boxes.predictor.add_layer_check(self._wait_for_pause)
            with self._lock:
                self._boxes, self._measured_box = boxes, whole
                for finished_place in self._blocks_done:
                    self._changes.setdefault(finished_place, 0.0)
                self._blocks_done.clear()
        boxes = self._boxes
        if whole != self._measured_box:
            corner = self._measured_box.relative_to(whole).corner
            boxes = boxes.extend(self._create_input(whole), corner)
        inside = block.relative_to(whole)
        stride = boxes.plan.outputs.stride
        y, x = (v - v % stride for v in inside.corner)
        box, values = boxes.enhance(Box(y, inside.y1, x, inside.x1))
        if self._output is None:
            frame = boxes.plan.output.frame
            about = Micrograph(
                np.zeros((1, 1), np.float32), frame.pixel_size_nm, "enhanced",
                origin=frame.origin, spacing_px=frame.spacing_px,
            )  # fmt: skip
            side = mosaic.chunk * self._model.card.scale
            self._output = GrowingMosaic.create(self._place, about, side)
        fine = box.move(whole.corner).scale(self._model.card.scale)
        self._output.write(fine, values)
        with self._lock:
            self._blocks_done.add(place)
        self._show(self._output, fine)
