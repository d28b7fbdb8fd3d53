"""Frame positions from Fiji, Micro-Manager and OME-TIFF.

Fiji's stitching: ``TileConfiguration.txt``, a line ``NAME; ; (x, y)`` for each frame,
in pixels; ``TileConfiguration.registered.txt`` has registered ones. Micro-Manager:
stage positions in micrometres, in ``metadata.txt`` of each folder,
``NAME_metadata.txt`` next to ``NAME.ome.tif``, tag 51123 of these, or a list of
positions (``.pos``, JSON). If the camera is rotated or mirrored, ``PixelSizeAffine``
(or ``AffineTransform`` of the summary) maps its pixels to the stage, as in the
program's own tiling. OME-TIFF: ``PositionX`` and ``PositionY`` of each plane, with a
unit of length.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import tifffile

from napari_semsr import core
from napari_semsr.io import files as io_files
from napari_semsr.io.read_image import convert_to_nm, decode_text
from napari_semsr.io.tiff_read import read_stage_positions

FIJI_REGISTERED, FIJI = "TileConfiguration.registered.txt", "TileConfiguration.txt"
_LISTS = (".pos", ".json")
_TILE = re.compile(r"\s*(.+?)\s*;\s*([0-9]*?)\s*;\s*\(([^()]*)\)\s*")
_SETTING = re.compile(r"\s*(dim|multiseries)\s*=\s*(\S+)\s*", re.IGNORECASE)
_STACK = re.compile(r"_MMStack_.*\.tiff?$", re.IGNORECASE)
_MICRO_MANAGER = 51123  # TIFF tag
_FRAME_MAP, _SUMMARY_MAP = "PixelSizeAffine", "AffineTransform"  # of Micro-Manager
# Relative; chosen: a real calibration states 0.1056 and measures 0.103 to 0.107 um, and
# another objective differs by more.
_SIZE_TOLERANCE = 0.1
_NM = 1000.0  # in a micrometre


@dataclass(frozen=True, slots=True)
class Positions:
    """Nominal corners of frames, read from a file."""

    path: Path
    unit: str  # ``"px"`` or ``"nm"``
    corners: dict[str, core.FloatPair]  # ``(y, x)`` by name of the frame
    unplaced_names: tuple[str, ...] = ()  # Listed frames with empty cells
    pixel_size_nm: core.PixelSize | None = None  # If the file states it
    files: tuple[Path, ...] = ()  # All files with a part of them
    # File that contains all frames; `corners` then has their indices in it
    container: str = ""


def find_foreign_positions(folder: Path) -> Path | None:
    """Find a file other than ``positions.csv`` with the positions of the frames.

    Returns the folder itself if they are in several files or the frames, or damaged.
    """
    for name in (FIJI_REGISTERED, FIJI):
        if (folder / name).is_file():
            return folder / name
    try:
        positions = _read_micro_manager_positions(folder)
    except core.ReadError:
        return folder  # reading it raises the error again
    if len(set(positions.corners.values())) > 1:
        return folder
    lists = _list_position_lists(folder)
    return folder if len(lists) > 1 else next(iter(lists), None)


def read_foreign_positions(path: Path, folder: Path) -> Positions | None:
    """Read Fiji or Micro-Manager positions; return None for other tables."""
    if path.is_dir():
        positions, lists = _read_micro_manager_positions(path), []
        if len(set(positions.corners.values())) < 2:
            lists = _list_position_lists(path)
        if len(lists) > 1:
            names = ", ".join(item.name for item in lists)
            msg = f"{path} has several position lists: pass {names} (`positions`)."
            raise core.ReadError(msg, code="several-images")
        return _check_not_empty(positions)
    if path.suffix.lower() in _LISTS:
        return _read_position_list(path, folder)
    if path.suffix.lower() != ".txt":
        return None
    with io_files.convert_decoding_errors(path, "text"):
        # Java wrote it in the encoding of the machine, on Windows until 2022
        text = decode_text(io_files.read_text(path, "latin-1").encode("latin-1"))
    if text.lstrip().startswith("{"):
        return _check_not_empty(_read_metadata_positions(path.parent, [path], folder))
    return _parse_fiji_positions(path, text)


# Fiji


def _parse_fiji_positions(path: Path, text: str) -> Positions:
    images: dict[tuple[str, str], core.FloatPair] = {}
    dim, heights = None, set[float]()
    for number, line in enumerate(text.split("\n"), 1):
        where = f"{path} line {number}"
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if setting := _SETTING.fullmatch(line):
            if setting[1].lower() == "dim" and setting[2] not in ("2", "3"):
                got = core.shorten_value(line)
                msg = f"{where} must be 'dim = 2' or 'dim = 3', got {got}."
                raise core.ReadError(msg, code="positions-invalid")
            dim = int(setting[2]) if setting[1].lower() == "dim" else dim
            continue
        tile = _TILE.fullmatch(line)
        numbers = _parse_numbers(tile[3]) if tile else None
        if tile is None or not numbers or len(numbers) != (dim or len(numbers)):
            form = "(x, y, z)" if dim == 3 else "(x, y)"
            got = core.shorten_value(core.format_one_line(line))
            msg = f"{where} must have the form NAME; ; {form}, got {got}."
            raise core.ReadError(msg, code="positions-invalid")
        # from any system to a relative path with forward slashes
        windows = PureWindowsPath(tile[1])
        is_absolute = windows.anchor or PurePosixPath(tile[1]).is_absolute()
        name = windows.name if is_absolute else windows.as_posix()
        if (name, tile[2]) in images:
            msg = f"{where} repeats frame {name}: keep one entry."
            raise core.ReadError(msg, code="names-alike")
        images[name, tile[2]] = numbers[1], numbers[0]
        heights |= set(numbers[2:])
        dim = len(numbers)
    if len(heights) > 1:
        msg = f"{path} has frames at {len(heights)} heights: stitch each separately."
        raise core.ReadError(msg, code="heights-differ")
    if not images:
        msg = f"{path} must contain a line NAME; ; (x, y) for each frame, but has none."
        raise core.ReadError(msg, code="positions-invalid")
    return _assign_fiji_images(path, images)


def _assign_fiji_images(
    path: Path, images: Mapping[tuple[str, str], core.FloatPair]
) -> Positions:
    """Return the positions by file, or by index if all are in one file."""
    names, indices = zip(*images, strict=True)
    corners, container = dict(zip(names, images.values(), strict=True)), ""
    if len(corners) < len(images) or not {*indices} <= {"", "0"}:
        container = names[0]
        if len(corners) > 1 or "" in indices:
            shown = ", ".join(corners)
            msg = f"{path} has {len(images)} images in {shown}: list those of one file."
            raise core.ReadError(msg, code="several-images")
        corners = dict(zip(indices, images.values(), strict=True))
    return Positions(path, "px", corners, files=(path,), container=container)


def _parse_numbers(text: str) -> list[float] | None:
    """Parse two or three comma-separated finite numbers; return None if invalid."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return None
    finite = all(map(math.isfinite, numbers))
    return numbers if finite and len(numbers) in (2, 3) else None


def write_fiji_positions(
    path: Path, places: Mapping[str, Iterable[float] | None]
) -> None:
    """Write top-left corners ``(y, x)`` in px as ``(x, y)`` for Fiji's stitching.

    A frame without a position, None, is listed in a comment. A name that starts like a
    comment, or with a space, which Fiji removes, is preceded by its folder.
    """
    lines = ["# Define the number of dimensions we are working on", "dim = 2", ""]
    lines.append("# Define the image coordinates")
    for name, corner in places.items():
        if corner is None:
            lines.append(f"# {name} has no position")
        else:
            y, x = corner
            before = "./" if re.match(r"[#\s]", name) else ""
            lines.append(f"{before}{name}; ; ({x:.6f}, {y:.6f})")
    with io_files.replace_atomically(path) as place:
        text = "\n".join(lines) + "\n"
        place.write_text(text, "utf-8", errors="backslashreplace", newline="")


# Micro-Manager


def _list_metadata_files(folder: Path) -> list[Path]:
    """List Micro-Manager's metadata files in a folder and its subfolders."""
    there = core.list_folder(folder)
    places = [folder, *(item for item in there if item.is_dir())]
    files = [place / "metadata.txt" for place in places]
    files += [item for item in there if item.name.endswith("_metadata.txt")]
    metadata_files = []
    for item in filter(Path.is_file, files):
        with core.open_file(item) as stream:
            if re.search(rb'"(?:Summary|FrameKey|XPositionUm)', stream.read(4096)):
                metadata_files.append(item)
    return sorted(metadata_files)


def _list_position_lists(folder: Path) -> list[Path]:
    return sorted(p for p in core.list_folder(folder) if p.suffix.lower() == ".pos")


def _read_micro_manager_positions(folder: Path) -> Positions:
    files = _list_metadata_files(folder)
    if files:
        return _read_metadata_positions(folder, files, folder)
    entries = []
    stacks = [item for item in core.list_folder(folder) if _STACK.search(item.name)]
    for path in stacks if len(stacks) > 1 else ():
        with suppress(OSError, tifffile.TiffFileError), tifffile.TiffFile(path) as tif:
            value = tif.pages.first.tags.valueof(_MICRO_MANAGER)
            if isinstance(value, dict):
                entries.append((path, value))
    if not entries:
        entries = list(_iterate_ome_positions(folder))
    return _read_stage_positions(folder, folder, entries, [])


def _iterate_ome_positions(folder: Path) -> Iterator[tuple[Path, dict[str, object]]]:
    """Yield the OME-TIFFs of a folder with their positions, if each has one."""
    for path in sorted(core.list_folder(folder)):
        if path.name.lower().endswith((".ome.tif", ".ome.tiff")):
            places = {*read_stage_positions(path)}
            place = places.pop() if len(places) == 1 else None
            if place is None:
                return
            y, x = place
            yield path, {"YPositionUm": y / _NM, "XPositionUm": x / _NM}


def read_ome_positions(path: Path, count: int) -> Positions | None:
    """Read the positions of `count` images in an OME-TIFF; None if any lacks one."""
    places = [place for place in read_stage_positions(path) if place is not None]
    if not len(places) == len({*places}) == count:
        return None
    corners = {str(index): place for index, place in enumerate(places)}
    return Positions(path, "nm", corners, files=(path,), container=path.name)


def _read_metadata_positions(
    path: Path, files: Sequence[Path], folder: Path
) -> Positions:
    entries = []
    for file in files:
        # the last brace is written when the acquisition ends
        record = io_files.read_json_object(file, may_lack_brace=True)
        summary = record.get("Summary")
        turn = summary.get(_SUMMARY_MAP) if isinstance(summary, dict) else None
        for key, value in record.items():
            if not isinstance(value, dict) or "XPositionUm" not in value:
                continue
            file_name = value.get("FileName")
            if not isinstance(file_name, str):
                file_name = key.partition("-")[2] if key.startswith("Metadata-") else ""
            own = file.name.removesuffix("_metadata.txt")
            has_other_name = own != file.name and not (file.parent / file_name).exists()
            if not file_name or has_other_name:
                file_name = f"{own}.ome.tif"
            here, alone = file.parent, PureWindowsPath(file_name).name
            frames = [here / file_name, here.parent / file_name, here / alone]
            frame = next((path for path in frames if path.is_file()), frames[0])
            entries.append((frame, {_SUMMARY_MAP: turn, **value}))
    where = files[0] if len(files) == 1 else path
    return _read_stage_positions(where, folder, entries, files)


def _read_stage_positions(
    path: Path,
    folder: Path,
    entries: Sequence[tuple[Path, Mapping[str, object]]],
    files: Sequence[Path],
) -> Positions:
    """Read the stage positions of all frames."""
    corners: dict[str, core.FloatPair] = {}
    sizes, maps = set[float | None](), set[tuple[float, ...] | None]()
    for frame, value in entries:
        # some systems write decimal commas
        x, y = (str(value.get(f"{n}PositionUm")).replace(",", ".") for n in "XY")
        numbers = _parse_numbers(f"{x},{y}")
        if numbers is None:
            continue
        try:
            name = frame.relative_to(folder).as_posix()
        except ValueError:
            name = frame.name
        corners.setdefault(name, (numbers[1] * _NM, numbers[0] * _NM))
        stated_size = value.get("PixelSizeUm", value.get("PixelSize_um"))
        sizes.add(convert_to_nm(str(stated_size).replace(",", "."), "um"))
        maps.add(_read_stage_matrix(path, value))
    if not corners:
        return Positions(path, "nm", {}, files=tuple(files))
    distinct = len(set(corners.values()))
    if 1 < distinct < len(corners) and len(corners) % distinct == 0:
        msg = f"{path} has {len(corners)} images at {distinct} positions: pass a table "
        msg += "(`positions`) with those of one channel, time and height."
        raise core.ReadError(msg, code="several-images")
    sizes -= {None} if len(sizes) > 1 else set()
    for name, count in ((_FRAME_MAP, len(maps)), ("PixelSizeUm", len(sizes))):
        if count > 1:
            msg = f"{path} has {count} values of {name}: stitch each separately."
            raise core.ReadError(msg, code="frames-differ")
    size = sizes.pop()
    pitch = None if size is None else core.PixelSize((size, size))
    if (stage_map := maps.pop()) is not None:
        pitch, corners = _convert_stage_positions(path, stage_map, size, corners)
    return Positions(path, "nm", corners, pixel_size_nm=pitch, files=tuple(files))


def _check_not_empty(positions: Positions) -> Positions:
    if not positions.corners:
        msg = f"{positions.path} must state XPositionUm and YPositionUm of its frames."
        raise core.ReadError(msg, code="positions-invalid")
    return positions


def _read_stage_matrix(
    path: Path, value: Mapping[str, object]
) -> tuple[float, ...] | None:
    """Read the matrix from pixels to stage micrometres, ``(xx, xy, yx, yy)``.

    None if none was measured: Micro-Manager then states zeros or the identity. A
    multiple of the identity states the pixel size, like any other matrix.
    """
    stage_map, name = value.get(_FRAME_MAP), _FRAME_MAP
    if stage_map is None:
        stage_map, name = value.get(_SUMMARY_MAP), _SUMMARY_MAP
    if stage_map in (None, "", "Undefined"):
        return None
    texts = str(stage_map).split(";" if name == _FRAME_MAP else "_")
    try:
        numbers = [float(text.replace(",", ".")) for text in texts]
        if not any(numbers):
            return None
        if name == _FRAME_MAP:
            xx, xy, _, yx, yy, _ = numbers
        else:
            xx, yx, xy, yy = numbers
    except ValueError:
        xx = xy = yx = yy = math.nan
    if not abs(xx * yy - xy * yx) > 0 or not all(map(math.isfinite, (xx, xy, yx, yy))):
        got = core.shorten_value(stage_map)
        msg = f"{path} has {got} as {name}: measure it again, or pass a table."
        raise core.ReadError(msg, code="positions-invalid")
    return None if (xx, xy, yx, yy) == (1, 0, 0, 1) else (xx, xy, yx, yy)


def _convert_stage_positions(
    path: Path,
    stage_places: tuple[float, ...],
    size: float | None,
    corners: Mapping[str, core.FloatPair],
) -> tuple[core.PixelSize, dict[str, core.FloatPair]]:
    """Convert stage positions to positions along rows and columns of the frames.

    The pixel size is the single number in the file if both sides of the map agree with
    it, otherwise the lengths of these sides.
    """
    xx, xy, yx, yy = stage_places
    area = xx * yy - xy * yx
    sides = math.hypot(xy, yy) * _NM, math.hypot(xx, yx) * _NM
    of_map = math.sqrt(abs(area)) * _NM
    if size is not None and not math.isclose(of_map, size, rel_tol=_SIZE_TOLERANCE):
        msg = f"{path} states {size:g} nm, but {_FRAME_MAP} {of_map:g} nm: correct one."
        raise core.ReadError(msg, code="pixel-size-contradicts")
    if size is not None:
        both = all(math.isclose(side, size, rel_tol=_SIZE_TOLERANCE) for side in sides)
        sides = (size, size) if both else sides
    places = {}
    for name, (y_nm, x_nm) in corners.items():
        y, x = y_nm / _NM, x_nm / _NM
        down, across = (xx * y - yx * x) / area, (yy * x - xy * y) / area
        places[name] = sides[0] * down, sides[1] * across
    return core.PixelSize(sides), places


def _read_position_list(path: Path, folder: Path) -> Positions:
    """Read a position list whose labels occur in file or folder names."""
    stage_places = dict(_iterate_positions(path, io_files.read_json_object(path)))
    if not stage_places:
        msg = f"{path} contains no positions of Micro-Manager."
        raise core.ReadError(msg, code="positions-invalid")
    suffixes = (".tif", ".tiff", ".png")
    places = [folder, *(item for item in core.list_folder(folder) if item.is_dir())]
    images = [
        item.relative_to(folder).as_posix()
        for place in places
        for item in sorted(core.list_folder(place))
        if item.suffix.lower() in suffixes
    ]
    corners: dict[str, core.FloatPair] = {}
    for label, corner in stage_places.items():
        alone = re.compile(rf"(?:^|[_/ -]){re.escape(label)}(?:[_/ .]|$)")
        matching = [name for name in images if alone.search(name)]
        if len(matching) > 1:
            msg = f"Position {label} of {path} has several images: keep one channel."
            raise core.ReadError(msg, code="several-images")
        corners |= dict.fromkeys(matching, corner)
    if not corners:
        label = core.shorten_value(next(iter(stage_places)))
        msg = f"No image in {folder} is named like {label} of {path}: rename them."
        raise core.ReadError(msg, code="frames-missing")
    return Positions(path, "nm", corners, files=(path,))


def _iterate_positions(
    path: Path, values: Mapping[str, object]
) -> Iterator[tuple[str, core.FloatPair]]:
    """Yield label and stage position ``(y, x)`` in nm, from Micro-Manager 1.4 or 2."""
    plain = _extract_property_values(values.get("map", values))
    rows = plain.get("POSITIONS") or plain.get("StagePositions") or []
    for row in rows if isinstance(rows, list) else []:
        try:
            label = row.get("LABEL") or row["Label"]
            stage = row.get("DEFAULT_XY_STAGE") or row.get("DefaultXYStage")
            devices = row.get("DEVICES") or row["DevicePositions"]
            names = [one.get("DEVICE") or one.get("Device") for one in devices]
            device = devices[names.index(stage)]
            at = device.get("Position_um") or (device["X"], device["Y"])
            x, y = float(at[0]), float(at[1])
        except (AttributeError, LookupError, TypeError, ValueError):
            label, x, y = "", math.nan, math.nan
        if not (math.isfinite(x) and math.isfinite(y)):
            got = core.shorten_value(row)
            msg = f"{path} must state a label, x and y for each position, got {got}."
            raise core.ReadError(msg, code="positions-invalid")
        yield str(label), (y * _NM, x * _NM)


def _extract_property_values(value: object) -> Any:
    """Extract the values from a property map with explicit types."""
    if isinstance(value, dict):
        for key in ("scalar", "array"):
            if key in value and "type" in value:
                return _extract_property_values(value[key])
        return {key: _extract_property_values(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_extract_property_values(item) for item in value]
    return value
