"""Follow a scan: place and fuse frames while the microscope writes them."""

import errno
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeVar

import numpy as np

from napari_semsr import core, io, stitching

T = TypeVar("T")

_CHUNK = 256  # px; chosen: a frame of 256 px touches four chunks
_CHUNK_STEP = 16  # px; levels down to 1/16 share chunk borders
_POLL_S = 0.25  # seconds; chosen: a file unchanged for this time is complete
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_MOVED_PX = 1.0  # px; chosen: larger moves by the final solution are reported
_RETRIES = 2  # of waiting frames per new frame; chosen: they catch up
_MAX_NAMES = 5  # frames named in a message; chosen: one line


class LiveDisplay(Protocol):
    """Display of a growing mosaic, called from the thread of the follower."""

    def show_block(self, mosaic: io.GrowingMosaic, box: core.Box) -> None:
        """Show a newly written rectangle, in mosaic pixels."""

    def show_warning(self, sentence: str) -> None:
        """Show a one-sentence warning about a frame."""


class LiveScan:
    """Mosaic store that grows with the frames of a scan.

    Parameters
    ----------
    place : path
        Path of the store; an existing one is overwritten.
    read : callable
        Returns the grey values (Y, X) of a frame by its name.
    options : StitchOptions
        How frames are placed and blended.
    flat, dark : (Y, X) array, optional
        Flat-field image and dark frame or level, if the options name them.
    display : LiveDisplay, optional
        Display of the mosaic.
    """

    def __init__(
        self,
        place: Path,
        read: Callable[[str], core.RealArray],
        options: stitching.StitchOptions,
        flat: core.RealArray | None = None,
        dark: core.RealArray | float | None = None,
        display: LiveDisplay | None = None,
    ) -> None:
        self._place, self._read, self._flat, self._dark = place, read, flat, dark
        self._display = display
        self._options = options
        self.placement: stitching.LivePlacement | None = None
        self.watch: stitching.ScanMonitor | None = None
        self.doubts: list[str] = []  # one sentence each, in order of time
        self._mosaic: io.GrowingMosaic | None = None
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._settling: core.Job[None] | None = None

    def __len__(self) -> int:
        return len(self._numbers)

    def positions(self) -> dict[str, core.FloatPair | None]:
        """Return the corner ``(y, x)`` of each frame in px.

        None for a frame that is not placed by its content, wherever it is shown.
        """
        if self.placement is None:
            return {}
        live = self.placement
        rows = zip(self._names, live.is_placed, live.positions, strict=True)
        return {name: (float(y), float(x)) if at else None for name, at, (y, x) in rows}

    def add_frame(
        self,
        name: str,
        pixels: core.RealArray,
        stated_corner: core.FloatPair | None = None,
        *,
        unit: str = "px",
        pixel_size_nm: core.PixelSize | None = None,
    ) -> list[str]:
        """Place a new or rewritten frame, and return new warnings."""
        placement = self.placement
        if placement is None:
            shape = (int(pixels.shape[0]), int(pixels.shape[1]))
            placement = self.placement = stitching.LivePlacement(
                lambda index: self._read(self._names[index]), shape, pixels.dtype,
                self._options, unit=unit,
                pixel_size_nm=pixel_size_nm, flat=self._flat, dark=self._dark,
            )  # fmt: skip
            self.watch = stitching.ScanMonitor(placement)
            about = core.Micrograph(
                np.zeros((1, 1), np.float32), pixel_size_nm, "scan being taken"
            )
            chunk = max(_CHUNK, min(2 * _CHUNK, max(shape)))
            chunk += -chunk % _CHUNK_STEP
            self._mosaic = io.GrowingMosaic.create(self._place, about, chunk)
        if name in self._numbers:
            index = self._numbers[name]
            placement.reload_frame(index)
        else:
            self._numbers[name] = len(self._names)
            self._names.append(name)
            index = placement.add_frame(name, stated_corner)
        if stated_corner is not None:
            placement.set_stated_corner(index, stated_corner, unit)
        assert self.watch is not None  # noqa: S101 - created with the placement
        doubts = self.watch.check_blank(index, pixels)
        placement.place_frame(index)
        placement.retry_pending(_RETRIES)
        doubts += self.watch.compare_frame(index) + self.watch.report_unplaced()
        self.add_warnings(doubts)
        return doubts

    def add_warnings(self, doubts: Sequence[str]) -> None:
        """Add one-sentence warnings about frames."""
        self.doubts += doubts
        if self._display is not None:
            for sentence in doubts:
                self._display.show_warning(sentence)

    def set_position(self, name: str, stated_corner: core.FloatPair, unit: str) -> None:
        """Set the stated corner of a frame that arrived earlier."""
        if self.placement is not None:
            index = self._numbers[name]
            self.placement.set_stated_corner(index, stated_corner, unit)
            if not self.placement.is_placed[index]:
                self.placement.place_frame(index)

    def fuse_frame(self, name: str) -> None:
        """Fuse the blocks around a new frame; `run_step` fuses moved frames again.

        Raises an `OSError` if the disk is full; the rest is fused later.
        """
        index = self._numbers.get(name)
        if self.placement is not None and index in self.placement.list_changed_frames():
            self._fuse_blocks(index)

    def _fuse_blocks(self, index: int) -> None:
        placement, mosaic = self.placement, self._mosaic
        assert placement is not None and mosaic is not None  # noqa: S101, PT018
        shape = placement.frames.frame_shape
        places = placement.get_fused_position(index), placement.positions[index]
        boxes = [
            core.Box.from_shape(shape, (round(float(y)), round(float(x))))
            for y, x in places
            if np.isfinite((y, x)).all()
        ]
        if len(boxes) == 2 and boxes[0].overlaps(boxes[1]):
            boxes = [boxes[0].union(boxes[1])]
        plan = placement.plan_mosaic((0, 0), shape)
        for box in boxes:
            mosaic.write(box, plan.compute_block(box)[0])
            if self._display is not None:
                self._display.show_block(mosaic, box)
        placement.mark_fused(index)

    def run_step(self) -> bool:
        """Run one step of deferred work, and return whether there was any.

        Frames are placed before moved ones are fused again.
        """
        placement = self.placement
        if placement is None:
            return False
        if self._settling is None and placement.is_solution_due:
            self._settling = placement.solve_all_frames()
        if self._settling is not None:
            try:
                next(self._settling)
            except StopIteration:
                self._settling = None
            return True
        if placement.retry_pending():
            return True
        frames_changed = placement.list_changed_frames()
        if frames_changed:
            self._fuse_blocks(frames_changed[-1])  # the newest first, as users watch it
        return bool(frames_changed)

    def close(self) -> None:
        """Stop pending work, but keep the store."""
        if self._settling is not None:
            self._settling.close()


_TIMES = {"": 1.0, "s": 1.0, "min": 60.0, "h": 3600.0}  # seconds per unit
_TIME = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)\s*")


def parse_duration(text: str) -> float:
    """Convert a duration such as ``8s``, ``10min`` or ``1h``, or raise `ValueError`."""
    match = _TIME.fullmatch(text.lower())
    if match is None or match[2] not in _TIMES:
        msg = "must be a time such as 8s, 10min or 1h"
        raise ValueError(core.Message(msg, "wrong-type"))
    return float(match[1]) * _TIMES[match[2]]


def open_frame_folder(
    folder: Path, table: Path | None, options: core.Options
) -> io.FrameFolder:
    """Open a frame folder with the reading and layout options of a scan."""
    names = (
        ("databar_rows", "colour", "pixel_size_nm"),
        ("grid", "order", "first", "overlap", "pixel_size_nm"),
    )
    read, layout = ({name: getattr(options, name) for name in some} for some in names)
    return io.FrameFolder(folder, table, read, layout)


@dataclass(slots=True)
class FollowedScan:
    """Result of following a scan, for computing the final solution."""

    frames: int
    positions: dict[str, core.FloatPair | None]
    doubts: tuple[str, ...]
    lock: io.StoreLock  # of the output until it is written

    def warnings(
        self, final_corners: dict[str, core.FloatPair | None]
    ) -> tuple[str, ...]:
        """List the warnings and the frames that the final solution moved.

        `final_corners`: corners ``(y, x)`` in px by the names of the frames.
        """
        return (*self.doubts, *list_moved_frames(self.positions, final_corners))


def list_moved_frames(
    live: dict[str, core.FloatPair | None],
    final_corners: dict[str, core.FloatPair | None],
) -> Iterator[str]:
    """List the frames that the final solution moved by more than a pixel."""
    moves = {
        name: np.subtract(new, old)
        for name, new in final_corners.items()
        if new is not None and (old := live.get(name)) is not None
    }
    if not moves:
        return
    apart = np.array([*moves.values()])
    away = np.hypot(*(apart - np.median(apart, axis=0)).T)
    descriptions = [
        f"{name} by {far:.1f} px"
        for name, far in zip(moves, away, strict=True)
        if far > _MOVED_PX
    ]
    if descriptions:
        text = ", ".join(descriptions[:_MAX_NAMES])
        if descriptions[_MAX_NAMES:]:
            text += f" and {len(descriptions) - _MAX_NAMES} more"
        yield core.Message(
            f"The final solution moved frames from their displayed positions: {text}.",
            "frames-moved",
        )


@dataclass(slots=True)
class ScanFollower:
    """Single run of `follow_scan` that polls the folder and passes on new frames."""

    folder: io.FrameFolder
    scan: LiveScan
    until: int | None
    idle_s: float | None
    is_stopped: Callable[[], bool]
    _since: float = field(default_factory=time.monotonic)
    # frames without a row in the table
    _unlisted_frames: set[str] = field(default_factory=set)
    _changes: int = 0  # changes of the table at the last search

    def run(self) -> core.Job[None]:
        """Process new frames until the scan ends."""
        while not (self.folder.exists or self.has_ended() or self._is_idle()):
            yield core.WaitingProgress(
                0, 0, f"waiting for the folder {self.folder.folder} to appear"
            )
            time.sleep(_POLL_S)
        while not self.has_ended():
            last = time.monotonic()
            for frame in self.folder.poll():
                yield from self._add_frame(frame)
                if self.has_ended():
                    return
            self._set_late_positions()
            if self.folder.is_busy:
                self._since = time.monotonic()
            if self._is_idle():
                return
            yield self._get_progress()
            while not self.has_ended() and (yield from self._run_deferred_step()):
                if time.monotonic() - last >= _POLL_S:
                    break  # new frames come first
            time.sleep(max(0.0, min(_POLL_S - (time.monotonic() - last), _POLL_S)))

    def _set_late_positions(self) -> None:
        """Set the positions of frames whose table rows arrived later."""
        if self._changes == self.folder.changes:
            return
        self._changes = self.folder.changes
        for name in sorted(self._unlisted_frames):
            corner = self.folder.frame_corner(name)
            if corner is not None:
                self._unlisted_frames.remove(name)
                self.scan.set_position(name, corner, self.folder.unit)

    def has_ended(self) -> bool:
        """Return whether the scan was stopped or is complete."""
        is_full = self.until is not None and len(self.scan) >= self.until
        return is_full or self.is_stopped()

    def _is_idle(self) -> bool:
        """Return whether no new frame arrived within the idle time."""
        return self.idle_s is not None and time.monotonic() - self._since > self.idle_s

    def _get_progress(self) -> core.Progress:
        frame_count = len(self.scan)
        if not frame_count:
            return core.WaitingProgress(
                0, 0, f"waiting for frames in {self.folder.folder}"
            )
        return core.Progress(
            frame_count,
            self.until or 0,
            f"following the scan: {frame_count} frame{'s'[: frame_count != 1]} "
            "processed",
        )

    def _add_frame(self, frame: Any) -> core.Job[None]:
        if frame.pixels is None:
            sentence = f"Frame {frame.name} is not used: {frame.reason}."
            self.scan.add_warnings([core.Message(sentence, "frames-left-out")])
            yield core.WaitingProgress(0, 0, sentence)
            return
        folder = self.folder
        size = folder.layout_values.get("pixel_size_nm") or frame.pixel_size_nm
        corner = folder.frame_corner(frame.name)
        if corner is None:
            self._unlisted_frames.add(frame.name)
        take = partial(
            self.scan.add_frame,
            frame.name,
            frame.pixels,
            corner,
            unit=folder.unit,
            pixel_size_nm=size,
        )
        for doubt in (yield from self._retry_file_access(take)) or ():
            yield core.WaitingProgress(0, 0, doubt)
        yield from self._retry_file_access(partial(self.scan.fuse_frame, frame.name))
        # one step, even if frames arrive without a pause
        yield from self._run_deferred_step()
        self._since = time.monotonic()
        yield self._get_progress()

    def _run_deferred_step(self) -> core.Job[bool]:
        return bool((yield from self._retry_file_access(self.scan.run_step)))

    def _retry_file_access(self, work: Callable[[], T]) -> core.Job[T | None]:
        """Retry reading and writing while the disk is full or frames are missing."""
        while True:
            try:
                return work()
            except core.ReadError as error:
                sentence = str(error).rstrip(".")
                message = f"{sentence}: waiting until the frame can be read again"
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                message = "the disk is full: waiting until there is space"
            yield core.WaitingProgress(0, 0, message)
            if self.is_stopped() or self._is_idle():
                return None
            time.sleep(_POLL_S)


@contextmanager
def _handle_interrupts() -> Iterator[Callable[[], bool]]:
    """Stop following on the first Ctrl-C, and the whole run on the second."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before, interrupt_event = signal.getsignal(signal.SIGINT), threading.Event()

    def handle_interrupt(number: int, frame: FrameType | None) -> None:
        if interrupt_event.is_set() and callable(before):
            before(number, frame)
        interrupt_event.set()

    signal.signal(signal.SIGINT, handle_interrupt)
    try:
        yield interrupt_event.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def follow_scan(
    folder: io.FrameFolder,
    target: Path,
    options: stitching.StitchOptions,
    *,
    flat: core.RealArray | None = None,
    dark: core.RealArray | float | None = None,
    until: int | None = None,
    idle_s: float | None = None,
    is_stopped: Callable[[], bool] | None = None,
    display: LiveDisplay | None = None,
) -> core.Job[FollowedScan]:
    """Place and fuse the frames that arrive in a folder, until the scan ends.

    Ends by Ctrl-C, by `is_stopped`, after `until` frames, or after `idle_s` seconds
    without a new one. The growing mosaic is at `target`, or next to it if another image
    is at that path.

    Raises
    ------
    ReadError
        If the folder contains fewer than two frames at the end.
    WriteError
        If another process follows a scan into the same target.
    """
    if folder.folder.is_file():
        msg = (
            "The scan to follow must be a folder of frames, got the file "
            f"{folder.folder}."
        )
        raise core.OptionError(msg, code="folder-missing")
    place = io.get_output_store_path(target, resume=False)
    with io.convert_write_errors(place):
        lock = io.StoreLock(place)  # even before the first frame
        if io.is_live_mosaic(place):
            io.remove_target(place)
    scan = LiveScan(place, folder.read, options, flat, dark, display)
    should_stop = is_stopped or (lambda: False)
    try:
        with _handle_interrupts() as interrupt:
            follower = ScanFollower(
                folder, scan, until, idle_s, lambda: interrupt() or should_stop()
            )
            yield from follower.run()
        # an early stop leaves frames to the final solution
        _check_frame_count(folder.folder, max(len(scan), folder.count_files()))
    except BaseException:
        lock.release()
        raise
    finally:
        scan.close()
    return FollowedScan(len(scan), scan.positions(), tuple(scan.doubts), lock)


def _check_frame_count(folder: Path, count: int) -> None:
    if count < 2:
        msg = (
            f"{folder} must contain at least two frames to stitch, but only {count} "
            "arrived before the scan ended."
        )
        raise core.ReadError(msg, code="too-few-frames")
