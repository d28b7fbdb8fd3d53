"""Projects, which store the open layers of a session in a folder.

``NAME.semsr/project.json`` lists the layers, the location of their pixels and their
display settings. Computed pixels are in the folder; inputs stay in place, and are found
again by path and digest.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import platformdirs
from pydantic import BaseModel, ConfigDict
from pydantic_core import to_jsonable_python

from napari_semsr import core
from napari_semsr.io import files as io_files, formats, frames, layers as io_layers
from napari_semsr.io.layers import FOLDER_KEY, READ_KEY, STORE_KEY, LayerTuple, Paths

PROJECT_SUFFIX = ".semsr"
"""Suffix of project folder names."""

_LONGEST = 1000  # characters of a path in a message; chosen: longer than real paths
_FILE = "project.json"
_VERSION = 1
_FORMAT = "napari-semsr project"
_MAX_RECENT = 10
_IN_MEMORY = 1 << 28  # bytes; chosen: arrays up to this size are edited in memory
_PLACES = (
    *(STORE_KEY, io_layers.SAVED_KEY, FOLDER_KEY, io_layers.LIVE_KEY, READ_KEY),
    *(io_layers.PROJECT_KEY, io_layers.DRAWN_KEY, io_layers.STRENGTH_KEY),
    *(io_layers.ROWS_KEY, io_layers.SHAPE_KEY),
)
"""Layer metadata keys that are valid only in this session on this computer."""

Kind = Literal["image", "labels", "shapes", "points", "vectors", "tracks"]
_OF_PIXELS = ("image", "labels")


class _ProjectSection(BaseModel):
    """Section of the project file; fields of later minor versions are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ProjectInput(_ProjectSection):
    """Input file or folder outside the project."""

    path: str  # relative to the project's folder, with "/", or absolute
    absolute: str  # absolute path when the project was saved
    # size in bytes and modification time (ns); if unchanged, no digest is computed
    stamp: tuple[int, int]


class ProjectLayer(_ProjectSection):
    """A layer of the project."""

    kind: Kind  # kind in napari
    name: str
    attributes: core.JsonObject = {}  # keywords as JSON: transform, look, metadata
    store: str | None = None  # name of the store in the project's folder
    # digest of the input that it shows, or whose frames it outlines
    input: str | None = None
    # ``{"frames": True}`` with options, ``{"layer": N}`` for one of the layers that our
    # reader returns to napari, or options
    read: core.JsonObject | None = None
    data: list[object] | None = None  # vertices, points, vectors or tracks, in pixels

    @property
    def has_frames_input(self) -> bool:
        """Whether the input of the layer is a folder of frames."""
        return bool(self.read and self.read.get("frames"))


class Project(_ProjectSection):
    """Contents of ``project.json``."""

    format: Literal["napari-semsr project"] = "napari-semsr project"
    version: int = _VERSION
    saved: str = ""  # when, in UTC
    versions: dict[str, str] = {}  # version of the software that saved it
    inputs: dict[str, ProjectInput] = {}  # by digest
    layers: tuple[ProjectLayer, ...] = ()  # bottom first
    options: dict[str, dict[str, object]] = {}  # forms of the panels, by their titles
    window: core.JsonObject = {}  # camera, axes and the chosen layer


def get_project_folder(path: Path) -> Path:
    """Return the project folder, given the folder or its ``project.json``."""
    return path.parent if path.name == _FILE else path


def is_project(path: Path) -> bool:
    """Return whether a path has a ``project.json``, or the suffix of a project."""
    folder = get_project_folder(path)
    return folder.suffix == PROJECT_SUFFIX or (folder / _FILE).is_file()


def read_project(path: Path) -> Project:
    """Read and validate a project from its folder or ``project.json``."""
    file = get_project_folder(path) / _FILE
    try:
        values = json.loads(io_files.read_text(file))
        if values["format"] == _FORMAT and values["version"] > _VERSION:
            version = core.shorten_value(values["version"])
            msg = f"{file} has project version {version}: update napari-semsr."
            raise core.ReadError(msg, code="other-version")
        return Project.model_validate(values)
    except FileNotFoundError as error:
        msg = f"{file.parent} has no {_FILE}: choose a folder NAME{PROJECT_SUFFIX}."
        raise core.ReadError(msg, code="file-missing") from error
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        msg = f"{file} is damaged ({reason}): copy it again, or open its images alone."
        damage = core.Message(msg, "file-damaged")
        raise core.ReadError(
            core.describe_access_error(file, error) or damage
        ) from error


def write_project(folder: Path, project: Project) -> None:
    """Write ``project.json`` atomically."""
    values = project.model_dump(mode="json")
    values["saved"] = datetime.now(UTC).isoformat(timespec="seconds")
    values["versions"] = core.get_software_versions()
    text = json.dumps(values, indent=1, allow_nan=False)
    with io_files.convert_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with io_files.replace_atomically(folder / _FILE) as place:
        place.write_text(text + "\n", "utf-8")


# -- pixels into the folder ---------------------------------------------------------


def copy_with_links(source: Path, target: Path) -> None:
    """Copy a store or a folder, using hard links if possible.

    Its files are never modified. The halves of a mosaic, which are next to it,
    are copied too.
    """
    halves = (io_files.get_half_paths(one) for one in (source, target))
    for old, new in ((source, target), *zip(*halves, strict=True)):
        if old == source or old.is_dir():
            with io_files.replace_atomically(new) as place:
                shutil.copytree(old, place, copy_function=_link_or_copy_file)


def _link_or_copy_file(source: str, target: str) -> None:
    """Hard-link a file, or copy it if linking fails."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def write_array(data: core.ReadableArray, path: Path) -> None:
    """Write the pixels of a stack, colour image or labels as a zarr array.

    It appears when it is complete.
    """
    import zarr

    with io_files.replace_atomically(path) as place:
        if hasattr(data, "dask"):
            import dask.array as da

            da.to_zarr(data, str(place))
        else:
            array = np.asarray(data)
            shape, dtype = array.shape, array.dtype
            zarr.create_array(str(place), shape=shape, dtype=dtype)[...] = array


def read_array(path: Path) -> Any:
    """Read an array written by `write_array`, lazily if it is large."""
    import dask.array as da
    import zarr

    with io_files.convert_decoding_errors(path, "an array"):
        array = zarr.open_array(core.FolderStore(path, read_only=True), mode="r")
        return array[...] if array.nbytes <= _IN_MEMORY else da.from_zarr(array)


# -- attributes of layers as JSON ---------------------------------------------------


def to_json_value(value: object) -> Any:
    """Convert napari values to JSON types, and unknown values to text.

    Infinite and NaN numbers are converted.
    """
    how: Any = {"inf_nan_mode": "null", "bytes_mode": "base64"}
    return to_jsonable_python(value, fallback=_simplify, **how)


def _simplify(value: object) -> object:
    """Return the contents of a mapping or an array, and any other value as text."""
    if isinstance(value, Mapping):
        return dict(value)
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def to_json_attributes(attributes: Mapping[str, Any]) -> dict[str, object]:
    """Convert layer keyword arguments (``layer.as_layer_data_tuple()``) to JSON.

    Without metadata that are valid on this machine only.
    """
    values = dict(attributes)
    features = values.pop("features", None)
    metadata = dict(values.pop("metadata", {}))
    values = {name: to_json_value(value) for name, value in values.items()}
    values["metadata"] = {
        str(key): to_json_value(value)
        for key, value in metadata.items()
        if key not in _PLACES and _is_json_value(value)
    }
    if features is not None and len(features):
        columns = {str(name): np.asarray(features[name]) for name in features}
        values["features"] = {
            name: {"dtype": str(column.dtype), "values": to_json_value(column)}
            for name, column in columns.items()
        }
    return values


def _is_json_value(value: object) -> bool:
    """Return whether a layer metadata value can be stored as JSON."""
    if isinstance(value, Mapping):
        names = [isinstance(key, str) and key.isprintable() for key in value]
        return all(names) and all(map(_is_json_value, value.values()))
    if isinstance(value, list | tuple):
        return all(_is_json_value(item) for item in value)
    plain_types = bool | int | float | str | BaseModel | Path | np.generic
    return value is None or isinstance(value, plain_types)


def _restore_keywords(layer: ProjectLayer) -> core.JsonObject:
    """Convert stored layer attributes back to keyword arguments."""
    keywords = dict(layer.attributes, name=layer.name)
    metadata = (keywords.get("metadata") or {}).items()
    keywords["metadata"] = {key: it for key, it in metadata if key not in _PLACES}
    features = keywords.get("features")
    if features:
        columns = {}
        for name, item in features.items():
            values, dtype = item["values"], item["dtype"]
            if dtype.startswith("float"):  # missing numbers are NaN
                values = [math.nan if value is None else value for value in values]
            dtype = "object" if dtype.startswith("<U") else dtype
            columns[name] = np.array(values, dtype=dtype)
        keywords["features"] = columns
    if layer.kind == "labels" and isinstance(keywords.get("colormap"), dict):
        colours = keywords["colormap"].items()
        named = {None if key == "None" else int(key): it for key, it in colours}
        keywords["colormap"] = named
    if "graph" in keywords:  # of tracks, by their numbers
        keywords["graph"] = {int(key): item for key, item in keywords["graph"].items()}
    return keywords


# -- inputs -------------------------------------------------------------------------


def _list_input_files(path: Path, is_scan: bool) -> list[Path]:
    """Return the files of an input; for a scan, only those that are read."""
    if path.is_file():
        return [path]
    if is_scan:
        return frames.list_scan_files(path)
    inside = core.list_files_recursively(path)
    return [file for file in inside if not file.name.startswith(".")]


def _compute_file_stamp(files: Iterable[Path]) -> tuple[int, int]:
    """Return the total size in bytes and latest modification time of an input."""
    stats = [file.stat() for file in files]
    return sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)


def _compute_digest(path: Path, is_scan: bool, files: Iterable[Path]) -> str:
    """Compute the digest of an input; for a scan, only its own files are included."""
    if path.is_file() or not is_scan:
        return core.digest_path(path)
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(core.encode_path(Path(file.name)))
        digest.update(core.digest_path(file).encode())
    return f"sha256:{digest.hexdigest()}"


def record_input(
    folder: Path, path: Path, inputs: Mapping[str, ProjectInput], *, frames: bool
) -> tuple[str, ProjectInput]:
    """Return the digest and the record of a project input.

    The digest is computed unless one of the `inputs`, by digest, has it.
    """
    files = _list_input_files(path, frames)
    stamp, absolute = _compute_file_stamp(files), str(path.resolve())
    place = absolute
    with suppress(ValueError):  # another drive
        place = Path(os.path.relpath(absolute, folder.resolve())).as_posix()
    new_input = ProjectInput(path=place, absolute=absolute, stamp=stamp)
    for digest, one in inputs.items():
        if (one.absolute, one.stamp) == (absolute, stamp):
            return digest, new_input
    return _compute_digest(path, frames, files), new_input


def _find_input(
    folder: Path, digest: str, one: ProjectInput, is_scan: bool
) -> tuple[Path | None, bool]:
    """Find an input by digest or name; also return whether the digest matches."""
    name = PurePosixPath(one.path).name
    candidates = [folder / one.path, Path(one.absolute), folder.parent / name]
    places = filter(io_files.path_exists, map(io_files.get_disk_spelling, candidates))
    # a device, which may be endless, is neither
    there = [place for place in places if place.is_file() or place.is_dir()]
    for place in there:
        files = _list_input_files(place, is_scan)
        stamp = _compute_file_stamp(files)
        same = stamp == one.stamp
        if not same and stamp[0] == one.stamp[0]:  # touched: its contents are read
            same = _compute_digest(place, is_scan, files) == digest
        if same:
            return place.resolve(), True
    return (there[0].resolve() if there else None), False


# -- opening ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenedProject:
    """A project with its readable layers."""

    folder: Path
    project: Project
    # per layer its entry in the file, and its data, keywords and kind for napari
    layers: tuple[tuple[ProjectLayer, LayerTuple], ...]
    missing: tuple[ProjectLayer, ...]  # layers that could not be read
    # a sentence for each input or store that is missing, damaged or changed
    messages: tuple[str, ...]


def open_project(path: Path) -> core.Job[OpenedProject]:
    """Open a project with all layers whose pixels are available."""
    folder = get_project_folder(path).resolve()
    project = read_project(folder)
    scans = {layer.input for layer in project.layers if layer.has_frames_input}
    paths: dict[str, Path | None] = {}
    messages: list[str] = []
    for digest, one in project.inputs.items():
        name = PurePosixPath(one.path).name
        yield core.Progress(len(paths), len(project.inputs), f"looking for {name}")
        place, same = _find_input(folder, digest, one, digest in scans)
        paths[digest] = place
        if place is None:
            lost = core.format_one_line(one.absolute, _LONGEST)
            sentence = f"{lost} is missing: copy it back next to {folder.name}."
            messages.append(core.Message(sentence, "file-missing"))
        elif not same:
            sentence = f"{place} has changed since the project was saved."
            messages.append(core.Message(sentence, "content-changed"))
    layers: list[tuple[ProjectLayer, LayerTuple]] = []
    missing: list[ProjectLayer] = []
    for layer in project.layers:
        yield core.Progress(len(layers), len(project.layers), f"opening {layer.name}")
        decoding = io_files.convert_decoding_errors(folder, f"layer {layer.name!r}")
        try:
            with core.capture_warnings(messages.append), decoding:
                layers.append((layer, _read_layer(folder, layer, paths)))
        except core.SemsrError as error:
            missing.append(layer)
            if layer.input is None or paths.get(layer.input):
                sentence = f"Layer {layer.name!r} was not loaded: {error}"
                messages.append(core.Message(sentence, core.get_error_code(error)))
    # levels of one image share a message
    unreadable = tuple(missing), tuple(dict.fromkeys(messages))
    return OpenedProject(folder, project, tuple(layers), *unreadable)


def _read_layer(
    folder: Path, layer: ProjectLayer, inputs: Mapping[str, Path | None]
) -> LayerTuple:
    """Read the pixels of a layer and restore its attributes."""
    keywords, source = _restore_keywords(layer), inputs.get(layer.input or "")
    if layer.kind not in _OF_PIXELS:
        data: Any = [np.array(item, dtype=float) for item in layer.data or ()]
        if layer.kind != "shapes":
            data = np.array(layer.data or (), dtype=float)
        if source is not None:
            keywords["metadata"] = {**keywords["metadata"], FOLDER_KEY: str(source)}
        return data if len(data) else None, keywords, layer.kind
    data, own, _ = _read_pixels(folder, layer, source)
    scale = own.get("scale") or ()
    more = len(scale) - len(keywords.get("scale") or scale)
    if more > 0:  # saved when all planes of a file were on one axis
        for name in ("scale", "translate", "units", "axis_labels"):
            own[name] = own[name][more:]
        data = io_layers.map_levels(
            data, lambda level: level.reshape(-1, *level.shape[more + 1 :])
        )
    here = own.pop("metadata", {})
    metadata = {key: here[key] for key in _PLACES if key in here}
    metadata |= keywords.pop("metadata")
    if hasattr(data[0] if isinstance(data, list) else data, "dask"):
        own["cache"] = False
    return data, {**own, **keywords, "metadata": metadata}, layer.kind


def _read_pixels(folder: Path, layer: ProjectLayer, source: Path | None) -> LayerTuple:
    if layer.store is not None:
        path = folder / layer.store
        plain_name = Path(layer.store).name == layer.store != ".."
        if not plain_name or not io_files.path_exists(path):
            msg = f"its store {layer.store} is missing from {folder}; copy it there."
            raise core.ReadError(msg, code="file-missing")
        if layer.store.endswith(".ome.zarr"):
            return io_layers.read_layers(str(path))[0]
        return read_array(path), {"metadata": {STORE_KEY: str(path)}}, layer.kind
    if source is None:
        msg = "its input is missing."
        raise core.ReadError(msg, code="file-missing")
    if layer.has_frames_input:
        options = (layer.read or {}).items()
        how: Any = {key: it for key, it in options if key in frames.FRAMES_OPTIONS}
        scan = core.run(frames.open_frames(source, **how))
        return io_layers.create_scan_layers(scan, source, **how)[0]
    if layer.read and "layer" not in layer.read:
        image = formats.read(source, **layer.read)
        # with its pyramid, if any
        many = {"level", "databar_rows"}.isdisjoint(layer.read) and image.is_lazy
        coarse = range(1, formats.describe(source).levels) if many else ()
        rest = {key: it for key, it in layer.read.items() if key != "pixel_size_nm"}
        levels = (formats.read(source, level=n, **rest) for n in coarse)
        data = [image.data, *(one.data for one in levels)]
        if max(image.shape) <= io_layers.SINGLE_PX:
            data = [image.array()]
        shown = data if len(data) > 1 else data[0]
        values, own, kind = io_layers.create_layer(image, data=shown, coarsest=data[-1])
        own["metadata"] |= {STORE_KEY: str(source), READ_KEY: layer.read}
        return values, own, kind
    layers = io_layers.read_layers(str(source))
    which = int((layer.read or {}).get("layer", 0))
    if which >= len(layers):
        msg = f"{source} no longer has channel {which}."
        raise core.ReadError(msg, code="plane-missing")
    found, rows = layers[which], (layer.read or {}).get("databar_rows")
    return io_layers.crop_bottom_rows(found, int(rows)) if rows else found


# -- recent projects ----------------------------------------------------------------


def _get_recent_projects_path() -> Path:
    return platformdirs.user_state_path("napari-semsr", appauthor=False) / "recent.json"


def list_recent_projects() -> list[Path]:
    """List recently opened projects that still exist, most recent first."""
    try:
        paths = json.loads(_get_recent_projects_path().read_text("utf-8"))
        return [Path(item) for item in paths if (Path(item) / _FILE).is_file()]
    except (OSError, ValueError, TypeError):
        return []  # the list is written again when a project is opened


def add_recent_project(folder: Path) -> None:
    """Move a project to the top of the list of recent projects."""
    others = [path for path in list_recent_projects() if path != folder]
    text = json.dumps([*map(str, [folder, *others][:_MAX_RECENT])])
    file = _get_recent_projects_path()
    with suppress(OSError, core.WriteError):  # opening a project does not need the list
        file.parent.mkdir(parents=True, exist_ok=True)
        with io_files.replace_atomically(file) as place:
            place.write_text(text, "utf-8")


# Reader hook for napari, as registered in the manifest.
#
# Discovery imports nothing; the first call imports this module, which stays light.


def is_preferred_reader(path: Paths) -> bool:
    """Return whether to prefer this package over napari's own readers for paths."""
    paths = [Path(one) for one in ([path] if isinstance(path, str) else path)]
    if len(paths) == 1 and is_project(paths[0]):
        return True
    try:
        return bool(paths) and all(map(io_layers.can_read_more_than_napari, paths))
    except (core.ReadError, OSError, ValueError, TypeError):  # also for damaged headers
        return False


def get_reader(path: Paths) -> Callable[[Paths], list[LayerTuple]] | None:
    """Return a reader if all paths are supported by name and content, else None."""
    paths = [Path(one) for one in ([path] if isinstance(path, str) else path)]
    if len(paths) == 1 and is_project(paths[0]):
        return read_paths
    tests = io_layers.is_readable, io_layers.is_too_short
    can_read = (any(test(one) for test in tests) for one in paths)
    return read_paths if paths and all(can_read) else None


def read_paths(path: Paths) -> list[LayerTuple]:
    """Read a project, a scan, an image, or a stack of images as layers.

    Parameters
    ----------
    path : str or sequence of str
        One path, or the files of a stack.

    Returns
    -------
    list of tuple
        Values, attributes and kind of each layer.

    Raises
    ------
    ReadError
        If nothing here can be read.
    """
    paths = [Path(one) for one in ([path] if isinstance(path, str) else path)]
    try:
        if len(paths) > 1 or not is_project(paths[0]):
            return io_layers.read_layers(path)
        project = core.run(open_project(paths[0]))
        for sentence in project.messages:
            core.warn(sentence)
        for _, (_, keywords, _) in project.layers:
            keywords["metadata"][io_layers.PROJECT_KEY] = str(project.folder)
        return [layer for _, layer in project.layers]
    except OSError as error:
        message = core.describe_access_error(paths[0], error)
        if message is None:
            raise
        raise core.ReadError(message) from error
