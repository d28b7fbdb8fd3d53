"""Detection of new frames in a folder to which a microscope is writing.

A frame is complete when its size and time stamp have not changed since the last poll,
and all of it can be read. Time stamps are never compared with a clock, which may jump,
or belong to another machine.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from napari_semsr import core
from napari_semsr.io import frames
from napari_semsr.io.files import read_file_state, read_json_object, read_text
from napari_semsr.io.formats import Source
from napari_semsr.io.read_image import ReadOptions

# Polls of an unchanged, unreadable file before it is reported and before it is tried
# again; chosen: copies over a network pause for a second or two.
_NAMED_AFTER = 12
_OWN = (".csv", ".tsv")  # tables of which only added rows are read
# Completed files that are checked again at each poll; chosen: 900 files within four
# polls, fast enough on a network.
FILES_A_LOOK = 256


def _extract_numbers(name: str) -> list[int]:
    """Extract the numbers from a frame name."""
    return [int(digits) for digits in re.findall(r"\d+", Path(name).stem)]


@dataclass(frozen=True, slots=True)
class NewFrame:
    """A new frame file, complete or unusable."""

    name: str
    pixels: core.RealArray | None = None  # (Y, X); None if it cannot be used
    pixel_size_nm: core.PixelSize | None = None  # as the file states it
    reason: str = ""  # why it cannot be used


@dataclass(slots=True)
class _PollState:
    """State of a file at the last poll."""

    state: tuple[int, int, int]  # as by `read_file_state`
    number: int = 0  # in the order of their first polls
    times: int = 0  # polls with this state
    is_taken: bool = False
    is_named: bool = False


@dataclass(slots=True)
class FrameFolder:
    """Folder to which a microscope writes frames.

    `positions`: a table used instead of ``positions.csv`` in the folder; `how`: the
    reading options of `open_frames`; `layout`: its grid, order, first, overlap and
    pixel size, None if the scan states them.
    """

    folder: Path
    positions: Path | None = None
    how: Mapping[str, object] = field(default_factory=dict)
    layout: Mapping[str, object] = field(default_factory=dict)
    # of the first frame
    kind: tuple[core.IntPair, np.dtype[np.generic]] | None = None
    unit: str = "px"  # of the corners
    is_busy: bool = False  # whether a file had changed at the last poll
    layout_values: core.JsonObject = field(init=False)
    """Grid, overlap and pixel size, from the user or from ``scan.json``."""
    changes: int = 0  # stated positions so far
    _looks: dict[str, _PollState] = field(default_factory=dict)
    _turn: int = 0  # which of the completed files are checked
    _first_number: int = 1  # in names, 0 or 1
    _table: _PollState | None = None
    _rows: str = ""  # of the table, all that were read
    _corners: dict[str, core.FloatPair] = field(default_factory=dict)
    _has_values: bool = False  # whether ``scan.json`` was read

    def __post_init__(self) -> None:
        self.layout_values = {k: v for k, v in self.layout.items() if v is not None}

    @property
    def exists(self) -> bool:
        """Whether the folder exists and can be listed."""
        try:
            return self.folder.is_dir()
        except OSError:
            return False

    def count_files(self) -> int:
        """Count the images in the folder, complete or not."""
        try:
            return len(frames.list_image_entries(self.folder))
        except OSError:
            return 0

    def poll(self) -> Iterator[NewFrame]:
        """Poll the folder and yield newly completed frames, oldest first."""
        self._read_table()
        place = self.folder / frames.SCAN
        with suppress(OSError, core.SemsrError):  # as for the table
            if not self._has_values and place.is_file():
                stated = read_json_object(place)
                stated = frames.parse_scan_values(stated, self.folder, self.layout)
                self.layout_values = {**stated, **self.layout_values}
                self._has_values = True
                self.changes += 1
        self.is_busy, changed = False, []
        for path in self._list_files_to_check():
            try:
                state = read_file_state(path)
            except OSError:
                continue  # it was removed, or is not readable now
            look = self._looks.get(path.name)
            if look is None or look.state != state:
                number = len(self._looks) if look is None else look.number
                self._looks[path.name] = _PollState(state, number)
                self.is_busy = True
                if _extract_numbers(path.name)[-1:] == [0]:
                    self._first_number = 0
            elif not look.is_taken:
                look.times += 1
                order = state[1], frames.natural_sort_key(path.name)
                changed.append((order, path, look))
        for _, path, look in sorted(changed, key=lambda item: item[0]):
            if (look.times - 1) % _NAMED_AFTER == 0:
                yield from self._read_frame(path, look)

    def _list_files_to_check(self) -> Iterator[Path]:
        """Yield the files that may have changed since the last poll.

        Completed files with an unchanged file number are only checked a few at a time.
        """
        try:
            entries = frames.list_image_entries(self.folder)
        except OSError:
            return
        turns = 1 + len(entries) // FILES_A_LOOK
        self._turn += 1
        for entry in entries:
            look = self._looks.get(entry.name)
            with suppress(OSError):  # a link in a circle
                if (
                    look is None
                    or not look.is_taken
                    or entry.inode() != look.state[2]
                    or (look.number + self._turn) % turns == 0
                ) and entry.is_file():
                    yield self.folder / entry.name

    def _read_frame(self, path: Path, look: _PollState) -> Iterator[NewFrame]:
        """Read a file that has stopped changing; report repeated failure only once."""
        try:
            image = self._read_image(path)
        except core.SemsrError as error:
            if look.times > 1 and not look.is_named:
                look.is_named = True
                why = str(error).removeprefix(f"{path} ").rstrip(".")
                yield NewFrame(path.name, reason=why)
            return
        look.is_taken = True
        pixels = core.mask_fill_values(image.array(), path.name)
        if self.kind is None:
            self.kind = image.shape, pixels.dtype
        if (pixels.shape, pixels.dtype) != self.kind:
            kind = frames.describe_kind(pixels.shape, pixels.dtype)
            first = frames.describe_kind(*self.kind)
            why = f"has {kind}, but the first frame has {first}"
            yield NewFrame(path.name, reason=why)
            return
        yield NewFrame(path.name, pixels, image.pixel_size_nm)

    def _read_image(self, path: Path) -> core.Micrograph:
        # the final solution warns about them
        with core.capture_warnings(lambda _: None):
            source = Source.from_path(path)
            info = source.read_info()
            count = info.planes * info.channels
            if count > 1:
                msg = f"{path} contains {count} images instead of one."
                raise core.ReadError(msg, code="several-images")
            return source.read(ReadOptions.model_validate(self.how))

    def read(self, name: str) -> core.RealArray:
        """Read the grey values (Y, X) of a completed frame again."""
        if self.kind is None:
            msg = f"{self.folder} has no complete frame yet."
            raise core.ReadError(msg, code="frames-missing")
        (shape, dtype), how = self.kind, ReadOptions.model_validate(self.how)
        place: tuple[Path, dict[str, int]] = (self.folder / name, {})
        return frames.StoredFrames((place,), (1, *shape), dtype, how)[0]

    # Stated positions of frames.

    def frame_corner(self, name: str) -> core.FloatPair | None:
        """Return the recorded corner ``(y, x)`` of a frame in `unit`, or None."""
        if self._corners:
            return self._corners.get(name)
        # based on the number in its name
        layout, numbers = self.layout_values, _extract_numbers(name)
        grid, overlap = layout.get("grid"), layout.get("overlap")
        if grid is None or overlap is None or not numbers or self.kind is None:
            return None
        count, number = grid[0] * grid[1], numbers[-1] - self._first_number
        if not 0 <= number < count:
            return None
        order, first = layout.get("order", "row"), layout.get("first", "top-left")
        row, column = core.compute_grid_cells(count, grid, order, first)[number]
        (rows, columns), new = self.kind[0], 1 - overlap
        return float(row * rows * new), float(column * columns * new)

    def _read_table(self) -> None:
        """Read the positions table if it changed, omitting an incomplete last row."""
        path = self.positions or self.folder / frames.POSITIONS
        if self.layout.get("grid") is not None:
            return
        try:
            state = read_file_state(path)
            look = self._table
            if look is not None and look.state == state:
                look.times += 1
                if look.is_taken:
                    return
            else:
                look = self._table = _PollState(state)
            # the last row may be incomplete, unless nothing was written for a while
            is_still = look.times >= _NAMED_AFTER
            if path.suffix.lower() in _OWN:
                look.is_taken = self._read_rows(path, is_still=is_still)
                self.changes += 1
                return
            with core.open_file(path) as stream:
                stream.seek(max(0, state[0] - 1))
                look.is_taken = is_still or stream.read(1) in (b"\n", b"\r")
            positions = frames.read_positions(path, self.folder)
        except (OSError, core.SemsrError, UnicodeDecodeError):
            return  # it is being written; if not, the final solution refuses it
        self.unit, self._corners = positions.unit, dict(positions.corners)
        if self._corners and not look.is_taken:
            self._corners.popitem()
        self.changes += 1

    def _read_rows(self, path: Path, *, is_still: bool) -> bool:
        """Read new rows of the table; return whether the whole table was read.

        All rows if the table does not start with those already read.
        """
        text = read_text(path, "utf-8-sig")
        rows = text if is_still else text[: text.rfind("\n") + 1]
        read = self._rows if rows.startswith(self._rows) else ""
        header = read[: read.find("\n") + 1]
        positions = frames.read_positions_table(
            path, self.folder, header + rows[len(read) :]
        )
        if not read:
            self._corners = {}
        elif self._corners.keys() & positions.corners.keys():
            # rejects duplicates
            positions = frames.read_positions_table(path, self.folder, rows)
        self.unit = positions.unit
        self._corners.update(positions.corners)
        # a cell in quotes may hold the end of a line
        is_cut = rows.endswith("\n") and rows.count('"') % 2 == 0
        self._rows = rows if is_cut else ""
        return len(rows) == len(text)
