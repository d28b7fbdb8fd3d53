"""Lazy reading of scans from a folder of frames, a multi-page TIFF, or a CZI."""

import hashlib
import os
import re
from collections.abc import Collection, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import starmap
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BeforeValidator, ConfigDict, PositiveInt

from napari_semsr import core
from napari_semsr.io import files as io_files, read_image
from napari_semsr.io.czi import is_czi, open_tiles
from napari_semsr.io.files import get_disk_spelling, path_exists, read_json_object
from napari_semsr.io.formats import FORMATS, Source, create_missing_file_error
from napari_semsr.io.positions import (
    Positions,
    find_foreign_positions,
    read_foreign_positions,
    read_ome_positions,
)
from napari_semsr.io.read_image import FileInfo, ReadOptions, TypedSize
from napari_semsr.io.sheets import read_sheet
from napari_semsr.io.tiff_read import list_set_files

# Frames on disk: in separate files, pages of one file, or a selection of these.

# Cache of recently read frames of all scans; chosen: 128 frames of 512 px of one byte
_RECENT = core.BoundedCache(32 << 20)

_Place = tuple[Path, Mapping[str, int]]
"""File of a frame, and the series and plane that are read from it."""


def _get_cache_key(path: Path, options: ReadOptions) -> Hashable:
    """Return a key of a frame that changes with its file; None if it has none."""
    try:
        state = io_files.read_file_state(path)
        # the chunks of a store may change while its own state does not
        return None if path.is_dir() else (path, options, state)
    except OSError:
        return None  # reading it reports the error


@dataclass(frozen=True, slots=True)
class StoredFrames:
    """Frames of equal shape and type in separate files or pages of a file."""

    places: tuple[_Place, ...]
    shape: tuple[int, int, int]  # Frames, rows and columns
    dtype: np.dtype[np.generic]
    how: ReadOptions

    def __getitem__(self, index: int) -> core.RealArray:
        path, selection = self.places[index]
        options = self.how.model_copy(update=dict(selection))
        key = _get_cache_key(path, options)
        grey: core.RealArray | None = None if key is None else _RECENT.get(key)
        if grey is None:
            # the warnings were shown at opening
            with core.capture_warnings(lambda _: None):
                image = Source.from_path(path).read(options)
                if (image.shape, image.dtype) != (self.shape[1:], self.dtype):
                    opened = describe_kind(self.shape[1:], self.dtype)
                    now = describe_kind(image.shape, image.dtype)
                    msg = f"{path} had {opened} when the scan was opened, but has {now}"
                    msg += ": open the scan again."
                    raise core.ReadError(msg, code="content-changed")
                grey = core.mask_fill_values(image.array(), path.name)
            if key is not None:
                _RECENT.put(key, grey)
        return np.array(grey)  # the caller may write into it


def describe_kind(shape: Sequence[int], dtype: object) -> str:
    """Describe the shape and type of a frame."""
    return f"{shape[0]}x{shape[1]} px of {dtype}"


@dataclass(frozen=True, slots=True)
class _SelectedFrames:
    """Selected frames of a scan."""

    whole: core.Frames
    indices: tuple[int, ...]  # Selected frames

    @property
    def shape(self) -> tuple[int, int, int]:
        return (len(self.indices), *self.whole.shape[1:])

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return self.whole.dtype

    def __getitem__(self, index: int) -> core.RealArray:
        return self.whole[self.indices[index]]


# The small files next to frames: ``positions.csv``, ``scan.json``, ``heights.csv``.

HEIGHTS = "heights.csv"
NO_POSITIONS = Path("none")  # Instead of a table: positions are not used
SCENES_KEY = "scenes_apart"  # Key in the metadata of frames of a CZI
POSITIONS, SCAN = "positions.csv", "scan.json"
_COPY = "pixel for pixel the same as"
_BLANK = "one grey value everywhere"
_HEADERS = {tuple(f"frame,y_{n},x_{n}".split(",")): n for n in ("px", "nm")}


def _check_frame_name(folder: Path, name: str, path: Path) -> str:
    """Check that a frame name refers to a file inside its folder."""
    target, inside = folder / name, False
    if name and not Path(name).is_absolute():
        with suppress(OSError, ValueError):
            target.exists()  # raises an error for names that the system does not allow
            inside = target.resolve().is_relative_to(folder.resolve())
    if not inside:
        msg = f"{path.name} must list frames inside {folder}, but lists {name!r}."
        raise core.ReadError(msg, code="outside-folder")
    return get_disk_spelling(target).relative_to(folder).as_posix()


def read_positions(path: Path, folder: Path) -> Positions:
    """Read nominal corners from ``positions.csv`` or another program's file."""
    others = read_foreign_positions(path, folder)
    if others is None:
        return read_positions_table(path, folder)
    if others.container:  # all frames are in this file
        _check_frame_name(folder, others.container, path)
        return others
    rows = others.corners.items()
    inside = {_check_frame_name(folder, name, path): place for name, place in rows}
    return replace(others, corners=inside)


def read_positions_table(
    path: Path, folder: Path, text: str | None = None
) -> Positions:
    """Read nominal corners from ``positions.csv``, or from its contents `text`."""
    sheet = read_sheet(path, "positions", text)
    unit = _HEADERS.get(sheet.names[:3])
    if unit is None:
        sheet.raise_other_header(path, " or ".join(map(",".join, _HEADERS)))
    corners: dict[str, core.FloatPair] = {}
    unplaced: list[str] = []
    for line, row in sheet.rows:
        frame, y, x = (*row, "", "", "")[:3]
        name, where = _check_frame_name(folder, frame, path), f"{path} line {line}"
        if name in corners or name in unplaced:
            msg = f"{where} repeats frame {name}: keep one entry."
            raise core.ReadError(msg, code="table-invalid")
        if not y and not x:
            unplaced.append(name)
            continue
        what = "two finite numbers, got {}"
        down, across = (sheet.parse_number(one, where, what) for one in (y, x))
        corners[name] = down, across
    return Positions(path, unit, corners, tuple(unplaced), files=(path,))


def find_positions_file(folder: Path) -> Path | None:
    """Find the file with frame positions in a folder, if any."""
    own = folder / POSITIONS
    return own if own.is_file() else find_foreign_positions(folder)


def read_heights(folder: Path) -> tuple[tuple[Path, float], ...]:
    """Read the frame folders of a scan and their heights in nm, in ascending order.

    The folder contains ``heights.csv`` with the header ``folder,z_nm``, and the folders
    listed there.
    """
    path = folder / HEIGHTS
    if not path_exists(path):
        msg = f"{folder} must contain {HEIGHTS}, with a folder of frames per height."
        raise core.ReadError(msg, code="file-missing")
    sheet = read_sheet(path, "heights")
    if sheet.names[:2] != ("folder", "z_nm"):
        sheet.raise_other_header(path, "folder,z_nm")
    heights: dict[Path, float] = {}
    for line, row in sheet.rows:
        (name, z_nm), where = (*row, "", "")[:2], f"{path} line {line}"
        place = folder / _check_frame_name(folder, name, path)
        height = sheet.parse_number(z_nm, where, "a finite number, got {}")
        if not place.is_dir():
            msg = f"{where} must name a folder next to the file, got {name!r}."
            raise core.ReadError(msg, code="folder-missing")
        if place in heights or height in heights.values():
            msg = f"{where} must not repeat a folder or a height."
            raise core.ReadError(msg, code="table-invalid")
        heights[place] = height
    if len(heights) < 2:
        msg = f"{path} must list at least two heights, got {len(heights)}."
        raise core.ReadError(msg, code="too-few-heights")
    return tuple(sorted(heights.items(), key=lambda item: item[1]))


def natural_sort_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a case-insensitive sort key that puts frame 10 after frame 9."""
    parts = filter(None, re.split(r"(\d+)", name.casefold()))
    return tuple((0, int(n), "") if n.isdecimal() else (1, 0, n) for n in parts)


def list_image_paths(folder: Path) -> list[Path]:
    """List the visible images and stores of a folder by suffix, in natural order.

    Their contents are not checked.
    """
    paths = (folder / item.name for item in list_image_entries(folder))
    return sorted(paths, key=lambda item: natural_sort_key(item.name))


def list_image_entries(folder: Path) -> list["os.DirEntry[str]"]:
    """List the directory entries of images, unsorted and without reading files."""
    known_suffixes = tuple({suffix for row in FORMATS for suffix in row.suffixes})
    image_entries = []
    with os.scandir(folder) as entries:
        for item in entries:
            name = item.name.lower()
            is_hidden = name.startswith(".") or core.is_system_file(name)
            if is_hidden or not name.endswith(known_suffixes):
                continue
            is_folder = False
            with suppress(OSError):  # reading it reports the error
                is_folder = item.is_dir()  # or a valid link to one
            if is_folder == name.endswith(".zarr"):
                image_entries.append(item)
    return image_entries


def list_scan_files(folder: Path) -> list[Path]:
    """List the files that may be read when a folder is opened as a scan.

    These are images, text files of microscopes next to them, and tables.
    """
    images = [one for one in list_image_paths(folder) if one.is_file()]
    tables = [folder / POSITIONS, folder / HEIGHTS]
    own = find_positions_file(folder)
    if own is not None and own.name != POSITIONS:
        tables += read_positions(own, folder).files
    return _add_text_files(folder, images, tables)


def _add_text_files(
    folder: Path, images: Sequence[Path], tables: Sequence[Path]
) -> list[Path]:
    """Return the images of a scan together with their text files."""
    texts = (text for image in images for text in read_image.list_text_files(image))
    others = {path for path in (*texts, *tables, folder / SCAN) if path_exists(path)}
    return sorted(others.union(images))


def _may_be_frame(path: Path) -> bool:
    """Return whether a path is a file, or a folder with the suffix of a store."""
    return path.is_file() or (path.suffix.lower() == ".zarr" and path.is_dir())


_NO_FILE = "has a position, but there is no such file"  # of a frame


def _select_files(
    folder: Path, positions: Positions | None
) -> tuple[list[str], list[core.UnusedFrame]]:
    """Return the usable frames of a folder, and the unusable ones with reasons."""
    paths = list_image_paths(folder)
    # a store next to frames in files is a result
    files = [item for item in paths if item.is_file()]
    there = [item.name for item in files or paths]
    if positions is None:
        return there, []
    placed = positions.corners
    present = [name for name in placed if _may_be_frame(folder / name)]
    empty = [name for name in positions.unplaced_names if _may_be_frame(folder / name)]
    if not present:
        msg = (
            f"{positions.path.name} must list the frames of {folder}, but none of the "
            f"{len(placed)} listed frames exists{_format_heights_hint(folder)}."
        )
        raise core.ReadError(msg, code="frames-missing")
    why = f"no position in {positions.path.name}"
    reasons = dict.fromkeys(empty, f"{why}: its cells are empty")
    reasons |= {name: _NO_FILE for name in placed if name not in set(present)}
    reasons |= {name: why for name in there if name not in {*placed, *empty}}
    faults = [core.UnusedFrame(*one) for one in reasons.items()]
    return sorted(present, key=natural_sort_key), faults


@dataclass(frozen=True, slots=True)
class _FrameChecks:
    """Results of checking frames: blank, duplicate and overexposed ones."""

    histories: dict[str, core.Provenance | None] = field(default_factory=dict)
    instruments: dict[str, str | None] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)  # First frame of its kind
    empty_rows: dict[str, int] = field(default_factory=dict)  # Rows of 0 at the end
    blank: list[str] = field(default_factory=list)
    _white: dict[str, tuple[float, float]] = field(default_factory=dict)
    _first: dict[bytes, str] = field(default_factory=dict)

    def check_frame(self, name: str, pixels: core.RealArray) -> None:
        """Check whether a frame is blank, duplicate or overexposed."""
        if (pixels == pixels.flat[0]).all():
            self.blank.append(name)
            return
        if rows := int(np.argmax(np.asarray(pixels.any(axis=1))[::-1])):
            self.empty_rows[name] = rows
        level = core.find_clipped_level(pixels, share=core.OVEREXPOSED_SHARE)
        if level is None:
            self._white[name] = float(np.fmax.reduce(pixels, axis=None)), 0.0
        else:
            share = float(np.mean(core.mark_equal_values(pixels, level)))
            self._white[name] = level, share
        digest = hashlib.blake2b(np.ascontiguousarray(pixels).data).digest()
        first = self._first.setdefault(digest, name)
        if first != name:
            self.copies[name] = first

    def warn_if_overexposed(self, path: Path) -> None:
        """Warn if many pixels of a frame have the maximum grey value of the scan."""
        level = max((most for most, _ in self._white.values()), default=0.0)
        shares = {n: share for n, (most, share) in self._white.items() if most == level}
        over = [name for name, share in shares.items() if share]
        if over:
            worst = max(over, key=lambda name: shares[name])
            core.warn(
                f"{len(over)} of {len(self._white)} frames of {path} look "
                f"overexposed: pixels at the maximum grey value, {level:g}, cover up "
                f"to {100 * shares[worst]:.0f} % of a frame ({worst}), which biases "
                "positions and grey values. Record the frames with less light.",
                "saturated",
            )

    def candidate_names(self, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """Return candidate name lists: all frames, without copies, without blanks."""
        unlike = tuple(name for name in names if name not in self.copies)
        in_light = tuple(name for name in unlike if name not in self.blank)
        return tuple(dict.fromkeys((tuple(names), unlike, in_light)))


def _remove_frames(
    acquisition: core.Acquisition, reasons: Mapping[str, str]
) -> core.Acquisition:
    """Remove frames from an acquisition and record the reasons."""
    lost = {name: why for name, why in reasons.items() if name in acquisition.names}
    faults = (*acquisition.faults, *starmap(core.UnusedFrame, lost.items()))
    left = [name for name in acquisition.names if name not in lost]
    return select_frames(acquisition, left).replace(faults=faults)


def _describe_frames(
    title: str,
    places: Mapping[str, _Place],
    results: _FrameChecks,
    how: ReadOptions,
) -> core.Job[tuple[dict[str, FileInfo], list[core.UnusedFrame]]]:
    """Read and check every frame, a file or a page; list the unreadable ones."""
    infos: dict[str, FileInfo] = {}
    faults: list[core.UnusedFrame] = []
    sentences: list[str] = []
    source: Source | None = None
    for number, (name, (path, selection)) in enumerate(places.items()):
        yield core.Progress(number, len(places), f"Opening the frames of {title}")
        try:
            if source is None or source.path != path:
                source = Source.from_path(path)
                info = source.read_info(series=how.series)
            count = info.planes * (info.channels if how.channel is None else 1)
            if not selection and count > 1:
                why = f"contains {count} images instead of one"
                faults.append(core.UnusedFrame(name, why))
                continue
            # truncation of a file only shows on reading
            with core.capture_warnings(sentences.append):
                options = how.model_copy(update=dict(selection))
                image = source.read(options)
                grey = core.mask_fill_values(image.array(), path.name)
            results.check_frame(name, grey)
            results.histories[name] = image.provenance
            results.instruments[name] = image.instrument
            if (key := _get_cache_key(path, options)) is not None:
                _RECENT.put(key, np.asarray(grey))
        except core.SemsrError as error:
            why = str(error).removeprefix(f"{path} ").rstrip(".")
            faults.append(core.UnusedFrame(name, why))
            continue
        infos[name] = replace(info, shape=image.shape, dtype=str(image.dtype))
    core.warn_once(sentences, f"frames of {title}")
    return infos, faults


def _check_kinds(
    folder: Path, infos: dict[str, FileInfo], *, leave_out: bool
) -> list[core.UnusedFrame]:
    """Raise `ReadError` if frames differ in shape or type, or leave out the rarer."""
    kinds: dict[str, list[str]] = {}
    for name, info in infos.items():
        kinds.setdefault(describe_kind(info.shape, info.dtype), []).append(name)
    by_count = sorted(kinds.items(), key=lambda item: -len(item[1]))
    if len(kinds) > 1 and not leave_out:
        got = (f"{len(n)} of {kind} (such as {n[0]})" for kind, n in by_count[:3])
        msg = f"Frames of {folder} must have the same shape and type, got "
        msg += f"{'; '.join(got)}: move the others out of the folder."
        raise core.ReadError(msg, code="frames-differ")
    others = {name: kind for kind, names in by_count[1:] for name in names}
    for name in others:
        del infos[name]
    return [
        core.UnusedFrame(name, f"has {kind}, but most frames have {by_count[0][0]}")
        for name, kind in others.items()
    ]


# Relative; chosen: more than rounding in headers, less than a change of magnification.
ALIKE = 1e-3


def _common_pixel_size(
    folder: Path, infos: Mapping[str, FileInfo]
) -> core.PixelSize | None:
    """Return the common pixel size of frames; raise `ReadError` if they differ."""
    sizes = {n: one.pixel_size_nm for n, one in infos.items() if one.pixel_size_nm}
    first, common = next(iter(sizes.items()), ("", None))
    for name, size in sizes.items():
        if common and not read_image.are_pixel_sizes_close(size, common, ALIKE):
            one, other = map(core.format_pixel_size, (common, size))
            msg = f"In {folder}, {first} has a pixel size of {one} and {name} {other}"
            msg += ": stitch them separately, or correct the wrong one "
            msg += "(`convert(pixel_size_nm=…)`)."
            raise core.ReadError(msg, code="pixel-size-contradicts")
    return common


def _raise_too_few_frames(
    folder: Path, count: int, faults: Sequence[core.UnusedFrame]
) -> None:
    usable = f"{count} usable" if count or faults else "no image at all"
    why = f" ({faults[0].frame}: {faults[0].reason})" if faults else ""
    msg = (
        f"{folder} must contain at least two frames to stitch, but has {usable}{why}"
        f"{_format_heights_hint(folder)}."
    )
    code = "frames-unusable" if faults else "too-few-frames"
    if {fault.reason for fault in faults} == {_NO_FILE}:
        code = "frames-missing"
    raise core.ReadError(msg, code=code)


def _format_heights_hint(folder: Path) -> str:
    """Return a hint if a folder has frames at several heights."""
    if not (folder / HEIGHTS).is_file():
        return ""
    return f": {HEIGHTS} lists folders of frames at several heights, so set `focus=max`"


def _check_names_differ(folder: Path, names: Sequence[str]) -> None:
    """Raise `ReadError` if names differ only in case or suffix."""
    before: dict[str, str] = {}
    for name in names:
        stem = Path(name).with_suffix("").as_posix().casefold()
        if (other := before.setdefault(stem, name)) != name:
            msg = f"In {folder}, {other} and {name} differ only in case or suffix"
            msg += ": keep one."
            raise core.ReadError(msg, code="names-alike")


def _read_folder_positions(folder: Path, table: Path | None) -> Positions | None:
    """Read the positions of a folder, or those in `table`; None if not used."""
    if table is None:
        table = find_positions_file(folder)
    if table in (None, NO_POSITIONS):
        return None
    try:
        return read_positions(table, folder)
    except core.ReadError as error:
        # a replay has no such option
        remedy = "set `positions=none`, or move their file out of the folder"
        msg = f"{error}".removesuffix(".") + f"; to stitch without positions, {remedy}."
        raise core.ReadError(msg, code=error.code) from error


def _open_folder(
    folder: Path,
    table: Path | None,
    results: _FrameChecks,
    how: ReadOptions,
    *,
    leave_out: bool = False,
) -> core.Job[tuple[core.Acquisition, list[str]]]:
    """Open frames in separate files; also return the names of expected frames."""
    positions = _read_folder_positions(folder, table)
    tables = positions.files if positions is not None and table is None else ()
    single = "" if positions is None else positions.container
    if not single:
        names, faults = _select_files(folder, positions)
        if positions is None and len(names) == 1 and _has_several(folder / names[0]):
            single = names[0]
    if single:
        where = table if positions is None else positions.path
        acquisition = yield from _open_file(folder / single, where, results, how)
        parts = [folder / single, *list_set_files(folder / single)]
        inputs = _add_text_files(folder, parts, tables)
        return acquisition.replace(files=tuple(inputs)), []
    _check_names_differ(folder, names)
    files: dict[str, _Place] = {name: (folder / name, {}) for name in names}
    job = _describe_frames(folder.name, files, results, how)
    infos, unreadable = yield from job
    faults += unreadable
    faults += _check_kinds(folder, infos, leave_out=leave_out)
    # space may be reserved for a file before its pixels are written, which can only be
    # the last one
    if leave_out and infos and [*results.empty_rows] == [*infos][-1:]:
        last, _ = infos.popitem()
        why = f"its last {results.empty_rows[last]} rows were not written"
        faults.append(core.UnusedFrame(last, why))
    if len(infos) < 2:
        _raise_too_few_frames(folder, len(infos), faults)
    if how.databar_rows is None:
        rows = [info.suggested_databar_rows for info in infos.values()]
        _warn_about_databar(folder, rows)
    size = _common_pixel_size(folder, infos)
    if size is None and positions is not None:
        size = positions.pixel_size_nm
    frames = _create_frames(infos, files, how)
    acquisition = _create_acquisition(frames, [*infos], size, folder.name, positions)
    inputs = _add_text_files(folder, [folder / name for name in names], tables)
    return acquisition.replace(faults=tuple(faults), files=tuple(inputs)), names


def _create_frames(
    infos: Mapping[str, FileInfo], places: Mapping[str, _Place], how: ReadOptions
) -> StoredFrames:
    first, read = next(iter(infos.values())), tuple(places[name] for name in infos)
    return StoredFrames(read, (len(read), *first.shape), np.dtype(first.dtype), how)


def _warn_about_databar(path: Path, suggestions: Sequence[int]) -> None:
    """Warn if most frames seem to have a data bar of equal height."""
    middle = sorted(suggestions)[len(suggestions) // 2]
    alike = [rows for rows in suggestions if abs(rows - middle) <= 1]  # text differs
    if middle and 2 * len(alike) > len(suggestions):
        rows = max(alike)
        core.warn(
            f"The bottom {rows} rows of the frames of {path} look like a data bar, "
            f"which will be stitched too: crop it (`databar_rows={rows}`).",
            "databar-suspected",
        )


def _has_several(path: Path) -> bool:
    """Return whether a file has several planes or images; False if unreadable."""
    try:
        if path.is_file() and is_czi(path):
            return True
        info = Source.from_path(path, whole=False).read_info()
        return max(info.planes, info.series) > 1
    except core.SemsrError:
        return False


def _create_acquisition(
    frames: core.Frames,
    names: Sequence[str],
    size: core.PixelSize | None,
    title: str,
    positions: Positions | None,
) -> core.Acquisition:
    acquisition = core.Acquisition(frames, tuple(names), pixel_size_nm=size, name=title)
    if positions is None:
        return acquisition
    empty = [name for name in names if name in set(positions.unplaced_names)]
    count = len(names) - len(empty)
    if empty and count < 2:
        msg = f"{positions.path} must list at least two positions, got {count}."
        raise core.ReadError(msg, code="positions-invalid")
    why = f"no position in {positions.path.name}: its cells are empty"
    acquisition = _remove_frames(acquisition, dict.fromkeys(empty, why))
    lacking = [name for name in acquisition.names if name not in positions.corners]
    if lacking:
        msg = f"{positions.path} lacks {len(lacking)} frames, such as {lacking[0]}."
        raise core.ReadError(msg, code="positions-invalid")
    corners = [positions.corners[name] for name in acquisition.names]
    places = np.array(corners, dtype=float)
    return acquisition.replace(**{f"nominal_{positions.unit}": places})


def _select_images(
    path: Path, info: FileInfo, how: ReadOptions
) -> list[dict[str, int]]:
    """Return the series and plane of each frame in a file."""
    planes = [{"plane": plane} for plane in range(info.planes)]
    own = info.metadata.get(read_image.OWN_SERIES_KEY, info.series)
    if how.series is not None or own < 2:
        return planes
    source = Source.from_path(path)
    infos = [source.read_info(series=number) for number in range(info.series)]
    alike = [(one.shape, one.dtype) == (info.shape, info.dtype) for one in infos]
    others = [str(number) for number, same in enumerate(alike) if not same]
    if others:
        kind = describe_kind(info.shape, info.dtype)
        text = f"Series {', '.join(others)} of {path} are left out: the others"
        core.warn(f"{text} have {kind}.", "frames-left-out")
    return [
        {"series": number, "plane": plane}
        for number, one in enumerate(infos)
        for plane in range(one.planes if alike[number] else 0)
    ]


def _name_images(
    path: Path, selections: Sequence[Mapping[str, int]], positions: Positions | None
) -> tuple[list[str], Positions | None]:
    """Name the frames in a file; also return their positions by these names."""
    count = len(selections)
    names = [f"{path.stem}-{index:0{len(str(count - 1))}d}" for index in range(count)]
    if positions is None or positions.container != path.name:
        return names, positions
    # series are numbered in the file, pages in their order
    numbers = [one.get("series", 0) for one in selections]
    if len({*numbers}) < count:
        numbers = list(range(count))
    images = dict(zip(numbers, names, strict=True))
    corners = {}
    for index, corner in positions.corners.items():
        if int(index) not in images:
            msg = f"{positions.path} lists image {index} of only {count} frames."
            raise core.ReadError(msg, code="plane-missing")
        corners[images[int(index)]] = corner
    return names, replace(positions, corners=corners)


def _open_czi(
    path: Path,
    positions: Positions | None,
    results: _FrameChecks,
    how: ReadOptions,
    table: Path | None,
) -> core.Job[core.Acquisition]:
    """Open the tiles of a CZI; damaged ones are left out."""
    if how.databar_rows:
        msg = f"Tiles of {path} have no data bar: omit `databar_rows`."
        raise core.OptionError(msg, code="option-without-effect")
    tiles = open_tiles(path, how.colour, how.series, how.channel)
    names, size = [f"tile-{n:03d}" for n in range(tiles.shape[0])], tiles.pixel_size_nm
    results.instruments.update(dict.fromkeys(names, tiles.instrument))
    acquisition = _create_acquisition(tiles, names, size, path.stem, positions)
    if table is None:
        apart = {SCENES_KEY: tiles.scenes_apart}
        acquisition = acquisition.replace(nominal_px=tiles.corners, metadata=apart)
    lost: dict[str, str] = {}
    for index, name in enumerate(acquisition.names):
        yield core.Progress(index, len(names), f"Opening the frames of {path.stem}")
        try:
            acquisition.read(index)  # damage only shows on reading
        except core.ReadError as error:
            lost[name] = str(error).removeprefix(f"{path} ").rstrip(".")
    if len(lost) == len(acquisition):
        acquisition.read(0)  # the refusal of a tile applies to all
    return _remove_frames(acquisition, lost)


def _open_file(
    path: Path, table: Path | None, results: _FrameChecks, how: ReadOptions
) -> core.Job[core.Acquisition]:
    """Open frames that are tiles of a CZI, or pages of a TIFF or store."""
    positions = None
    if table is not None and table != NO_POSITIONS:
        positions = read_positions(table, path.parent)
    if path.is_file() and is_czi(path):
        return (yield from _open_czi(path, positions, results, how, table))
    source = Source.from_path(path)
    info = source.read_info(series=how.series)
    selections = _select_images(path, info, how)
    if len(selections) < 2:
        msg = f"{path} is a single image: stitch a folder of at least two frames."
        raise core.ReadError(msg, code="too-few-frames")
    if table is None:
        positions = read_ome_positions(path, len(selections))
    names, positions = _name_images(path, selections, positions)
    pages = {name: (path, one) for name, one in zip(names, selections, strict=True)}
    if how.databar_rows is None:
        _warn_about_databar(path, [info.suggested_databar_rows])
    infos, faults = yield from _describe_frames(path.stem, pages, results, how)
    if not infos:  # the refusal of a page applies to all
        source.read(how.model_copy(update=selections[0]))
    if len(infos) < 2:
        _raise_too_few_frames(path, len(infos), faults)
    frames, size = _create_frames(infos, pages, how), info.pixel_size_nm
    acquisition = _create_acquisition(frames, [*infos], size, path.stem, positions)
    return acquisition.replace(faults=(*faults, *acquisition.faults))


def _split_grid(grid: object) -> object:
    """Split a grid that is given as text, such as ``3x4``."""
    return re.findall(r"\d+", grid) if isinstance(grid, str) else grid


class _ScanValues(core.Options):
    """Layout of a scan in ``scan.json``, whose other entries are ignored."""

    model_config = ConfigDict(extra="ignore")

    grid: Annotated[
        tuple[PositiveInt, PositiveInt] | None, BeforeValidator(_split_grid)
    ] = None
    overlap: float | None = None
    pixel_size_nm: TypedSize = None
    order: core.FrameOrder | None = None
    first: core.FirstFrame | None = None


def parse_scan_values(
    stated: core.JsonObject, folder: Path, layout_given: Mapping[str, object]
) -> core.JsonObject:
    """Read the attributes of an acquisition from ``scan.json``.

    The order and the first frame are those of `layout_given`, if set.
    """
    given = {name: layout_given.get(name) for name in ("order", "first")}
    given = {name: value for name, value in given.items() if value is not None}
    try:
        return _ScanValues.parse(stated | given).model_dump(exclude_none=True)
    except core.OptionError as error:
        code = "unknown-value" if error.code == "unknown-value" else "content-invalid"
        msg = f"{folder / SCAN}: {error} Correct it, or set the option."
        raise core.ReadError(msg, code=code) from error


def select_frames(
    acquisition: core.Acquisition, names: Collection[str]
) -> core.Acquisition:
    """Select frames of a scan by their names.

    If frames are omitted, the result has positions instead of a grid.
    """
    indices = [i for i, name in enumerate(acquisition.names) if name in names]
    if len(indices) == len(acquisition):
        return acquisition
    places = acquisition.nominal_px
    if places is None:
        places = acquisition.grid_corners()
    corners = acquisition.nominal_nm
    return acquisition.replace(
        frames=_SelectedFrames(acquisition.frames, tuple(indices)),
        names=tuple(acquisition.names[i] for i in indices),
        nominal_px=None if places is None else places[indices],
        nominal_nm=None if corners is None else corners[indices],
        grid=None,
        cells=None,
    )


FRAMES_OPTIONS = (
    *("grid", "order", "first", "overlap", "pixel_size_nm"),
    *("databar_rows", "colour", "series", "channel"),
)
"""Options of `open_frames` that a panel and a project may set."""


def open_frames(
    path: str | Path,
    *,
    grid: tuple[int, int] | None = None,
    positions: str | Path | None = None,
    order: core.FrameOrder | None = None,
    first: core.FirstFrame | None = None,
    overlap: float | None = None,
    pixel_size_nm: float | Sequence[float] | None = None,
    databar_rows: int | None = None,
    colour: str = "refuse",
    other_frames: str = "refuse",
    series: int | None = None,
    channel: int | None = None,
) -> core.Job[core.Acquisition]:
    """Open the frames of a scan.

    Parameters
    ----------
    path : str or pathlib.Path
        A folder of frames, one multi-page TIFF, or one CZI.
    grid : tuple of int, optional
        Rows and columns; used instead of all positions of the scan.
    positions : str or pathlib.Path, optional
        Table of nominal top-left corners, instead of ``positions.csv`` in the folder;
        ``"none"``: no positions are used.
    order : {"row", "serpentine", "column", "column-serpentine"}, optional
        How the grid was filled; row by row if neither this nor the scan states it.
    first : {"top-left", "top-right", "bottom-left", "bottom-right"}, optional
        Corner of the grid with the first frame; likewise top-left.
    overlap : float, optional
        Overlap of neighbours as a fraction of a frame.
    pixel_size_nm : float or sequence of float, optional
        Overrides or supplies the calibration.
    databar_rows : int, optional
        Rows to crop at the bottom of every frame, instead of those of the headers.
    colour : {"refuse", "luminance"}
        How to handle colour frames.
    other_frames : {"refuse", "leave-out"}
        How to handle frames of different shape or type: refuse them all, or
        leave out those that are not of the most common kind.
    series : int, optional
        Index of the image in each file with several, or of the scene of a CZI; by
        default all scenes.
    channel : int, optional
        Channel of frames with several.

    Returns
    -------
    Acquisition
        Frames in natural order, read on demand. Those that cannot be read, and exact
        duplicates, are listed in its `faults`.

    Raises
    ------
    ReadError
        If there are fewer than two usable frames, they differ in shape or type, have
        confusable names, or the files next to them are invalid.
    OptionError
        If the grid does not match the frames, or order, first or overlap are given
        without a grid.
    """
    path = Path(path)
    if not path.exists():
        raise create_missing_file_error(path)
    given: dict[str, object] = {"databar_rows": databar_rows, "colour": colour}
    given |= {"pixel_size_nm": pixel_size_nm, "series": series, "channel": channel}
    how = ReadOptions.parse(given)
    is_folder = path.is_dir() and not path.name.lower().endswith(".zarr")
    table = None if positions is None else Path(positions)
    results, names = _FrameChecks(), list[str]()
    if is_folder:
        leave_out = other_frames == "leave-out"
        job = _open_folder(path, table, results, how, leave_out=leave_out)
        acquisition, names = yield from job
    else:
        acquisition = yield from _open_file(path, table, results, how)
    if not names:
        names = [*acquisition.names, *(fault.frame for fault in acquisition.faults)]
        names.sort(key=natural_sort_key)
    results.warn_if_overexposed(path)
    copies = {name: f"{_COPY} {other}" for name, other in results.copies.items()}
    acquisition = _remove_frames(acquisition, copies)
    if len(acquisition) < 2:
        _raise_too_few_frames(path, len(acquisition), acquisition.faults)
    kind = results.instruments.get(acquisition.names[0])
    facts = {} if kind is None else {core.INSTRUMENT_KEY: kind}
    acquisition = acquisition.replace(
        slots=results.candidate_names(names),
        provenance=results.histories.get(acquisition.names[0]),
        metadata={**acquisition.metadata, **facts},
    )
    scan = path / SCAN
    scan_record = read_json_object(scan) if is_folder and scan.is_file() else {}
    layout: core.JsonObject = {"grid": grid, "order": order, "first": first}
    layout |= {"overlap": overlap, "pixel_size_nm": pixel_size_nm}
    return _add_layout(acquisition, path, scan_record, layout)


def _add_layout(
    acquisition: core.Acquisition,
    path: Path,
    scan_record: dict[str, object],
    layout_given: core.JsonObject,
) -> core.Acquisition:
    """Add grid, overlap and pixel size from `layout_given` or ``scan.json``.

    Positions are preferred unless the grid is given.
    """
    values = parse_scan_values(scan_record, path, layout_given)
    size, other = acquisition.pixel_size_nm, values.get("pixel_size_nm")
    is_typed = layout_given["pixel_size_nm"] is not None
    differ = size and other and not read_image.are_pixel_sizes_close(size, other, ALIKE)
    if not is_typed and differ:
        own, used = core.format_pixel_size(size), core.format_pixel_size(other)
        core.warn(
            f"The frames of {path} have a pixel size of {own}, but {SCAN} has {used}, "
            "which is used: correct the wrong one, or set `pixel_size_nm`.",
            "pixel-size-contradicts",
        )
    values |= {name: value for name, value in layout_given.items() if value is not None}
    if layout_given["grid"] is not None:
        acquisition = acquisition.replace(nominal_px=None, nominal_nm=None)
    nominal = acquisition.nominal_px, acquisition.nominal_nm
    is_placed = any(places is not None for places in nominal)
    if is_placed:
        values.pop("grid", None)  # positions are more precise, and may have gaps
    core.check_grid_options(values.get("grid"), layout_given, has_positions=is_placed)
    if "grid" in values:
        order, first = values.pop("order", "row"), values.pop("first", "top-left")
        grid = values.pop("grid")
        slots = acquisition.slots or (acquisition.names,)
        fit = next((one for one in slots if len(one) == grid[0] * grid[1]), slots[0])
        in_order = core.compute_grid_cells(len(fit), grid, order, first)
        cells = dict(zip(fit, in_order, strict=True))
        # blank frames are omitted if the grid has no cells for them
        blank = {name: _BLANK for name in acquisition.names if name not in fit}
        acquisition = _remove_frames(acquisition, blank)
        places = None
        if len(acquisition) < len(fit):  # unused frames leave gaps
            places = np.stack([cells[name] for name in acquisition.names])
        values |= {"grid": grid, "order": order, "first": first, "cells": places}
    metadata = {**acquisition.metadata, **scan_record}
    return acquisition.replace(metadata=metadata, **values)
