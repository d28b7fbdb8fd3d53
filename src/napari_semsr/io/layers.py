"""Images and scans as napari layers with their metadata, and arrays as images.

Layers come calibrated in nanometres, with names for their axes and with contrast
limits, so that napari need not guess or compute them.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr import core
from napari_semsr.io import czi, formats, frames, read_image, tiff_read, zarr_image
from napari_semsr.io.files import ZARR_MARKS, get_display_name, read_text

_MICROSCOPES = {".czi", ".dm3", ".dm4", ".ser", ".emd", ".mrc", ".mrcs"}
_SHORTEST = 16  # bytes; smallest size of an image file
LayerTuple = tuple[Any, dict[str, Any], str]
Paths = str | Sequence[str]
# Entries of a layer's metadata
LIVE_KEY = "semsr live"  # while it grows or is being enhanced
STORE_KEY = "semsr store"  # file or store of its pixels
SAVED_KEY = "semsr saved"  # where its values were last saved
NETWORK_KEY = "semsr network"  # model and digest of the last network behind it
HELPER_KEY = "semsr helper"  # owner of a helper layer, which panels do not list
BAR_KEY = "semsr colour bar"  # whether it has a colour bar
PROJECT_KEY = "semsr project"  # project from which napari read it
# how it was read, a table of options; ``{"layer": N}`` is the Nth layer that our
# reader returns to napari for the file, perhaps cropped by `databar_rows`; with
# ``{"frames": True}`` the others describe how frames of a folder were placed
READ_KEY = "semsr read"
SHAPE_KEY = "semsr shape"  # of its pixels, as read or adopted by a viewer
STRENGTH_KEY = "semsr strength"  # share of the result in a mixture with the input
DRAWN_KEY = "semsr drawn from"  # further stores of its pixels
FOLDER_KEY = "frames_folder"  # folder of its frames
ROWS_KEY = "data bar rows"  # rows that look like a data bar and are not cropped

_MAX_READ = 5000  # planes of all channels and levels; chosen: each takes some ms
_MAX_DATASETS = 12  # of a file or folder, shown at once; chosen: a screenful

SINGLE_PX = 2048
"""Longest side up to which an image is shown without a pyramid, from memory.

Writers of other plugins save one array and fail on a list of levels; 16 MB of float32
need neither levels nor chunks.
"""


def is_readable(path: Path) -> bool:
    """Return whether a path is a readable file or store, or contains one."""
    if not path.is_dir():
        return path.suffix.lower() in formats.FILE_SUFFIXES and _is_image(path)
    return _has_positions(path) or _is_image(path) or bool(_list_readable_images(path))


def is_too_short(path: Path) -> bool:
    """Return whether a microscope file is too short to contain an image.

    Never for names that napari's own reader supports.
    """
    has_vendor_name = path.suffix.lower() in _MICROSCOPES
    return has_vendor_name and path.is_file() and path.stat().st_size < _SHORTEST


def can_read_more_than_napari(path: Path) -> bool:
    """Return whether this package reads more from a path than napari itself.

    That is a scan with its table, grey values in up to three axes, or a file that is
    too short for an image. Checks only names, first bytes and metadata, since napari
    calls it for each folder and file that it opens.
    """
    if path.is_dir():
        marks = [path / name for name in ZARR_MARKS if (path / name).is_file()]
        if not marks:
            return _has_positions(path)
        text = "".join(map(read_text, marks))
        is_ome = any(word in text for word in ("multiscales", "bioformats2raw"))
        return is_ome and _is_image(path) and _has_real_pixels(path)
    if is_too_short(path):
        return True  # unreadable, and our reader states why
    if not is_readable(path):
        return False
    return path.suffix.lower() not in (".tif", ".tiff") or tiff_read.is_grey(path)


def _has_real_pixels(store: Path) -> bool:
    """Return whether an image in a store is real-valued, with at most three axes."""
    try:
        info = formats.describe(store)
    except core.ReadError:
        return True  # our reader states why
    axes = sum(size > 1 for size in info.axes.values())
    return "complex" not in info.dtype and axes <= 1


def _list_readable_images(folder: Path) -> list[Path]:
    shown = (n for n in core.list_folder(folder) if not n.name.startswith("."))
    files = filter(is_readable, filter(Path.is_file, shown))
    return sorted(files, key=lambda item: frames.natural_sort_key(item.name))


def _has_positions(path: Path) -> bool:
    """Return whether a folder has a positions file, which indicates a scan."""
    own = frames.find_positions_file(path)
    return own is not None or (path / frames.SCAN).is_file()


def _is_image(path: Path) -> bool:
    """Return whether a path is recognised by its content as an image or store."""
    try:
        return bool(formats.Source.from_path(path, whole=False))
    except (core.ReadError, OSError):
        return False


def is_scan(path: Path) -> bool:
    """Return whether a path is a scan: a folder of frames or a CZI with tiles."""
    if path.is_dir():
        return not _is_image(path)
    return path.is_file() and czi.is_mosaic(path)


def list_images(folder: Path) -> list[Path]:
    """List the images and stores in a folder of separate images.

    In natural order, without hidden ones; contents are not checked.
    """
    if _has_positions(folder) or (folder / frames.HEIGHTS).is_file():
        msg = f"{folder} has frames of a scan: stitch them, measure the mosaic."
        raise core.ReadError(msg, code="folder-is-scan")
    paths = frames.list_image_paths(folder)
    if not paths:
        there = core.list_folder(folder)
        inner = [item for item in there if item.is_dir()]
        holds = "holds none" if there else "is an empty folder"
        if inner:
            holds += f"; {str(folder / '*/*.tif')!r} selects those in its subfolders"
        msg = f"{folder} must be an image, a store or a folder of images, but {holds}."
        raise core.ReadError(msg, code="no-image")
    return paths


def read_layers(path: Paths) -> list[LayerTuple]:
    """Read a file, a folder of frames or images, or a stack of files as layers."""
    sentences: list[str] = []
    paths = [path] if isinstance(path, str) else path
    with core.capture_warnings(sentences.append):
        layers = _read_paths([Path(one) for one in paths])
    core.warn_once(sentences, "warnings")  # of files, or of the levels of one
    names = [repr(about["name"]) for _, about, _ in layers if about.get("rgb")]
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        text = f"{names[0]}{more} opened in colour, which is not measured or enhanced:"
        text += " read `colour=luminance`, or crop the coloured rows (`databar_rows`)."
        core.warn(text, "colour-image")
    return layers


def _read_paths(paths: list[Path]) -> list[LayerTuple]:
    """Read the layers of a single path, or stack several paths."""
    if len(paths) == 1:
        return _read_folder(paths[0]) if is_scan(paths[0]) else _read_file(paths[0])
    planes = [_read_plane(path) for path in paths]
    first = planes[0][0]
    kinds = {(image.shape, image.dtype, image.unit) for image, _ in planes}
    same = all(
        read_image.are_pixel_sizes_close(image.scale, first.scale, frames.ALIKE)
        for image, _ in planes
    )
    if len(kinds) > 1 or not same:
        msg = "Images of a stack must have the same shape, type and pixel size."
        raise core.ReadError(msg, code="sizes-differ")
    return [_stack_levels([planes], f"{paths[0].parent.name} stack")]


def _read_folder(path: Path) -> list[LayerTuple]:
    """Read a folder as a scan, or as separate images if they are not frames of one."""
    try:
        return create_scan_layers(core.run(frames.open_frames(path)), path)
    except core.ReadError:
        layers = _read_grey_scan(path)
        if not layers and path.is_file():
            layers = _read_scene(path)
        elif not layers and not _has_positions(path):
            images = _list_readable_images(path)
            _warn_if_many(path, len(images), "images that are not frames of one scan")
            shown = images[:_MAX_DATASETS]
            layers = [layer for item in shown for layer in _read_paths([item])]
        if not layers:
            raise
    return layers


def _warn_if_many(path: Path, count: int, what: str) -> None:
    if count > _MAX_DATASETS:
        text = f"Of {count} {what} in {path.name}, the first {_MAX_DATASETS} are shown."
        core.warn(text, "several-images")


def _read_grey_scan(path: Path) -> list[LayerTuple]:
    """Read a scan of colour frames as luminance; return no layers for other scans."""
    colour = "luminance"
    try:
        scan = core.run(frames.open_frames(path, colour=colour))
        layers = create_scan_layers(scan, path, colour=colour)
    except core.ReadError:
        return []
    text = f"The colour frames of {path.name} are shown as luminance, which"
    core.warn(f"{text} `stitch(colour=luminance)` uses, too.", "colour-image")
    return layers


def _read_scene(path: Path) -> list[LayerTuple]:
    """Read the channels of a CZI, or of its first readable scene."""
    scenes, channels = czi.count_scenes(path)
    for series in (None, *range(scenes)):
        layers: list[LayerTuple] = []
        try:
            for channel in range(channels):
                how = {"channel": channel}
                how |= {} if series is None else {"series": series}
                job = frames.open_frames(path, channel=channel, series=series)
                scan = core.run(job)
                if channels > 1:
                    scan = scan.replace(name=f"{scan.name} channel {channel}")
                more = create_scan_layers(scan, path, **how)
                layers += more[:1] if channel else more  # outlines once
        except core.ReadError:  # the scenes are tried one by one
            continue
        if series is not None:
            text = f"Of {scenes} images in {path.name}, series {series} is shown"
            core.warn(f"{text} (`series`).", "several-images")
        return layers
    return []


def _read_file(path: Path) -> list[LayerTuple]:
    """Read a file or store, with one layer per channel of each dataset."""
    series = zarr_image.list_series(path) if path.is_dir() else []
    if len(series) > 1:
        _warn_if_many(path, len(series), "images (`series`)")
        shown = series[:_MAX_DATASETS]
        return [layer for place in shown for layer in _read_file(place)]
    info = formats.describe(path)
    zarr_image.warn_about_missing_blocks(path)
    datasets = list(info.metadata.get("datasets", ()))
    images, which = read_image.count_series(info.metadata, info.series)
    _warn_if_many(path, len(datasets), "datasets (`dataset`)")
    if images > 1:
        text = f"Of {images} images in {path.name}, {which} is shown (`series`)."
        core.warn(text, "several-images")
    if not datasets:
        return _read_channels(path, info)
    layers: list[LayerTuple] = []
    for name in datasets[:_MAX_DATASETS]:
        info = formats.describe(path, dataset=name)
        layers += _read_channels(path, info, len(layers), dataset=name)
    return layers


def _read_channels(
    path: Path, info: read_image.FileInfo, before: int = 0, **which: str
) -> list[LayerTuple]:
    """Read an image as one layer per channel, preceded by `before` other layers."""
    layers = []
    small = max(info.shape) <= SINGLE_PX
    count = info.channels * info.planes * (1 if small else info.levels)
    if count > _MAX_READ:
        msg = f"{path} has {count} planes, more than {_MAX_READ}: open one (`plane`)."
        raise core.ReadError(msg, code="too-many-planes")
    for channel in range(info.channels):
        levels = [
            [
                _read_plane(path, level=level, channel=channel, plane=plane, **which)
                for plane in range(info.planes)
            ]
            for level in range(1 if small else info.levels)
        ]
        if len({image.shape for image, _ in levels[0]}) > 1:  # orientations differ
            msg = f"{path} has planes in portrait and landscape: open one (`plane`)."
            raise core.ReadError(msg, code="sizes-differ")
        if small and info.planes == 1:
            image, values = levels[0][0]
            whole = image.replace(data=image.array(), look=image.look)
            levels = [[(whole, np.asarray(values))]]
        name = levels[0][0][0].name
        name = name if which else get_display_name(path, name)
        if info.channels > 1:
            name = f"{name} channel {channel}"
        layer = _reshape_to_axes(_stack_levels(levels, name), info.axes)
        facts: dict[str, object] = {STORE_KEY: str(path.resolve())}
        facts[READ_KEY] = {"layer": before + channel}
        facts[SHAPE_KEY] = _get_finest_shape(layer[0])
        if info.suggested_databar_rows:
            facts[ROWS_KEY] = info.suggested_databar_rows
        layer[1]["metadata"] |= facts
        layers.append(layer)
    return layers


def _reshape_to_axes(layer: LayerTuple, axes: Mapping[str, int]) -> LayerTuple:
    """Reshape the planes of a layer to the axes of its file."""
    data, about, kind = layer
    sizes = {axis: size for axis, size in axes.items() if axis != "c" and size > 1}
    if sizes:
        more, outer = len(sizes) - 1, tuple(sizes.values())
        data = map_levels(data, lambda level: level.reshape(*outer, *level.shape[1:]))
        about["scale"] = (*(1.0,) * more, *about["scale"])
        about["translate"] = (*(0.0,) * more, *about["translate"])
        about["units"] = (*("pixel",) * more, *about["units"])
        about["axis_labels"] = (*sizes, "y", "x")
    return data, about, kind


def map_levels(data: Any, change: Callable[..., Any]) -> Any:
    """Apply a function to an array, or to each level of a pyramid."""
    return [change(level) for level in data] if isinstance(data, list) else change(data)


def _get_finest_shape(data: Any) -> tuple[int, ...]:
    """Return the shape of the finest level of a layer."""
    return tuple((data[0] if isinstance(data, list) else data).shape)


def _read_plane(path: Path, **which: int | str) -> tuple[core.Micrograph, object]:
    """Read one plane, both as an image and as displayed: (Y, X) or (Y, X, 3)."""
    try:
        image = formats.read(path, **which)  # type: ignore[arg-type]
    except read_image.ColourError as error:
        grey = formats.read(path, colour="luminance", **which)  # type: ignore[arg-type]
        return grey, grey.data if error.databar_rows else error.samples
    return image, image.data


def create_layer(
    image: core.Micrograph,
    *,
    data: Any = None,
    coarsest: object = None,
    rgb: bool = False,
) -> LayerTuple:
    """Create a calibrated napari layer for an image; its `data` may be in colour."""
    values = image.data if data is None else data
    first = values[0] if isinstance(values, list) else values
    attributes = create_layer_attributes(image, extra=first.ndim - (3 if rgb else 2))
    attributes |= {"multiscale": isinstance(values, list), "rgb": rgb}
    if image.look is not None and image.look.classes:
        del attributes["rgb"]
        # a TIFF holds some integers as floats, which napari refuses as labels
        if first.dtype.kind == "f":
            values = map_levels(values, lambda level: level.astype(np.int64))
        return values, attributes, "labels"
    if "contrast_limits" not in attributes:
        limits = core.contrast_limits(first if coarsest is None else coarsest)
        attributes["contrast_limits"] = limits
    return values, attributes, "image"


def create_layer_attributes(
    image: core.Micrograph, *, extra: int = 0
) -> dict[str, Any]:
    """Return the keyword arguments of a calibrated napari layer.

    `extra` axes precede y and x.
    """
    history, look = image.provenance, image.look
    network = None if history is None else history.last_network()
    marks: dict[str, object] = {}
    if network is not None:
        marks[NETWORK_KEY] = {"model": network[0], "digest": network[1]}
    keywords: dict[str, object] = {}
    if look is not None and look.classes:
        values, colours, meanings = zip(*look.classes, strict=True)
        by_value = {None: "transparent", **dict(zip(values, colours, strict=True))}
        legend = {"index": list(values), "meaning": list(meanings)}
        keywords = {"colormap": by_value, "features": legend}
    elif look is not None:
        colormap: object = look.colormap
        if look.colours:
            places = {"controls": look.places} if look.places else {}
            colormap = {"name": look.colormap, "colors": look.colours, **places}
        keywords = {"contrast_limits": look.limits, "colormap": colormap}
        keywords |= {"gamma": look.gamma, "interpolation2d": look.interpolation}
    if look is not None:
        keywords |= {"opacity": look.opacity, "blending": look.blending}
        marks |= {BAR_KEY: True} if look.colour_bar else {}
    about = {
        "pixel_size_nm": image.pixel_size_nm,
        "provenance": None if history is None else history.model_dump(mode="json"),
        **image.metadata,
    }
    return {
        "name": image.name,
        "scale": (*(1.0,) * extra, *image.scale),
        "translate": (*(0.0,) * extra, *image.origin),
        "units": (*("pixel",) * extra, image.unit, image.unit),
        "axis_labels": (*("plane",) * extra, "y", "x"),
        "rgb": False,
        "metadata": {"micrograph": about, **marks},
        **keywords,
    }


def _stack_levels(
    levels: list[list[tuple[core.Micrograph, Any]]], name: str
) -> LayerTuple:
    """Combine planes and levels into one layer, in colour if any of them is.

    Its history is that of the first plane made by a network, or of the first plane.
    """
    finest, coarsest = levels[0][0][0].replace(name=name), levels[-1][0][0].data
    histories = (image.provenance for image, _ in levels[0] if image.provenance)
    by_network = (history for history in histories if history.last_network())
    finest = finest.replace(provenance=next(by_network, finest.provenance))
    rgb = any(values.ndim > 2 for planes in levels for _, values in planes)
    data = []
    for planes in levels:
        stack = [values for _, values in planes]
        if rgb:  # grey planes get three equal channels, to match colour planes
            stack = [np.stack([v] * 3, axis=-1) if v.ndim == 2 else v for v in stack]
        data.append(stack_planes(stack))
    values = data if len(data) > 1 else data[0]
    return create_layer(finest, data=values, coarsest=coarsest, rgb=rgb)


def crop_bottom_rows(layer: LayerTuple, rows: int) -> LayerTuple:
    """Crop the bottom rows (a data bar) from all planes and levels of a layer.

    This is recorded in its metadata, for reading the file again.
    """
    data, about, kind = layer
    axis = -3 if about.get("rgb") else -2
    levels = data if about["multiscale"] else [data]
    height, cut = levels[0].shape[axis], []
    for level in levels:
        rows_left = max(1, (height - rows) * level.shape[axis] // height)
        cut.append(level[(..., slice(rows_left), *(slice(None),) * (-1 - axis))])
    left = (ROWS_KEY, SHAPE_KEY, SAVED_KEY)  # if there are more rows
    metadata = {key: it for key, it in about["metadata"].items() if key not in left}
    image = metadata.get("micrograph", {})
    rows_read = int(rows * image.get(read_image.LEVEL_KEY, 1))
    metadata[READ_KEY] = {**metadata.get(READ_KEY, {}), "databar_rows": rows_read}
    metadata["micrograph"] = {**image, read_image.CUT_KEY: rows}
    return cut if about["multiscale"] else cut[0], {**about, "metadata": metadata}, kind


def stack_planes(planes: list[Any]) -> Any:
    """Stack planes (Y, X) or (Y, X, 3) along a new first axis if there are several.

    Lazy planes stay lazy.
    """
    if len(planes) == 1:
        return planes[0]
    if any(hasattr(plane, "dask") for plane in planes):
        import dask.array as da

        return da.stack(planes)
    return np.stack(planes)


# A folder of frames as napari layers: every frame at its nominal position.

_LARGEST = 1 << 31  # bytes of one layer of frames; chosen
_EDGE = 0.008  # width of a frame's outline over the scan; chosen
_COLOUR = "#7fb2e5"


def _assemble_frames(
    acquisition: core.Acquisition, corners: NDArray[np.float64]
) -> core.RealArray:
    """Assemble frames at integer positions; overlaps show the brighter frame.

    Round fields are dark at their rims, so the brighter frame has better illumination.
    """
    places = np.round(corners - corners.min(axis=0)).astype(int)
    rows, columns = acquisition.frame_shape
    down, across = (int(n) for n in places.max(axis=0))
    high, wide, dtype = down + rows, across + columns, acquisition.dtype
    if high * wide * dtype.itemsize > _LARGEST:
        msg = f"Frames would cover {high} x {wide} px: check positions and pixel size."
        raise core.OptionError(msg, code="positions-invalid")
    canvas = np.full((high, wide), np.nan if dtype.kind == "f" else 0, dtype)
    for index, (y, x) in enumerate(places):
        part = canvas[y : y + rows, x : x + columns]
        np.fmax(part, acquisition.read(index), out=part)
    return canvas


def create_scan_layers(
    acquisition: core.Acquisition, folder: Path, **options: object
) -> list[LayerTuple]:
    """Create an image layer and an outline layer of frames at nominal positions.

    A stack of frames if positions are unknown. The metadata store the folder, and the
    `options` with which its frames were opened.
    """
    corners = acquisition.nominal_corners()
    size, name = acquisition.pixel_size_nm, acquisition.name
    how = "from the metadata of the frames"
    is_typed = options.get("pixel_size_nm") is not None
    if is_typed:
        how = "typed by the user"
    elif acquisition.metadata.get("pixel_size_nm") is not None:
        how = "from scan.json"
    if corners is None:
        count, pixels = len(acquisition), acquisition.read(0)
        if count * pixels.nbytes > _LARGEST:  # read when they are shown
            import dask.array as da
            from dask.delayed import delayed

            read, kind = delayed(acquisition.read), (pixels.shape, pixels.dtype)
            planes = [da.from_delayed(read(index), *kind) for index in range(count)]
        else:
            planes = [pixels, *(acquisition.read(index) for index in range(1, count))]
        stack = stack_planes(planes)
        image = core.Micrograph(pixels, size, f"{name} frames")
        image = image.with_size_source(how, in_file=not is_typed)
        sample = pixels if hasattr(stack, "dask") else stack
        layers = [create_layer(image, data=stack, coarsest=sample)]
    else:
        canvas = _assemble_frames(acquisition, corners)
        image = core.Micrograph(canvas, size, f"{name} frames, nominal")
        image = image.with_size_source(how, in_file=not is_typed)
        # a rectangle around each frame, at the outer edges of its pixels
        rows, columns = acquisition.frame_shape
        box = np.array([[0, 0], [0, columns], [rows, columns], [rows, 0]]) - 0.5
        outlines = {
            "name": f"{name} frame outlines",
            "shape_type": "rectangle",
            "edge_color": _COLOUR,
            "face_color": "transparent",
            "edge_width": max(0.5, _EDGE * min(rows, columns)),
            "opacity": 0.6,
            "features": {"frame": list(acquisition.names)},
            "metadata": {HELPER_KEY: "frames"},
            "scale": image.scale,
            "units": (image.unit, image.unit),
            "axis_labels": ("y", "x"),
        }
        rectangles = [box + corner for corner in corners - corners.min(axis=0)]
        layers = [create_layer(image), (rectangles, outlines, "shapes")]
    for _, attributes, _ in layers:
        attributes.setdefault("metadata", {})[FOLDER_KEY] = str(folder)
    metadata = layers[0][1]["metadata"]
    metadata[READ_KEY] = {"frames": True, **options}
    metadata[SHAPE_KEY] = _get_finest_shape(layers[0][0])
    return layers


# Lists, NumPy arrays, dask arrays and labelled arrays as images. Named axes (xarray,
# and types based on it) identify y and x, and their coordinates give the pixel size.

_INPUTS = "An image must be a path, a Micrograph or an array (Y, X)"
_NOWHERE = (0.0, 0.0)


def array_to_image(value: object) -> core.Micrograph:
    """Convert an array, or a nested list of numbers, to an image.

    A dask array stays lazy. Of named axes, ``y`` and ``x`` are used, others must have
    length 1, and evenly spaced coordinates with a unit of length give the pixel size.
    Raises a `ShapeError` if it is not an array with two axes.
    """
    if isinstance(value, core.Micrograph):
        return value
    if hasattr(value, "dims") and hasattr(value, "coords"):
        return _convert_labelled_array(value)
    return core.Micrograph(value if hasattr(value, "dask") else _to_numpy(value))


def is_array(value: object) -> bool:
    """Return whether a value is an array or a nested list of numbers.

    False for a path or images; true also if the array is not an image.
    """
    if isinstance(value, (list, tuple)):
        row = value[0] if value else None
        if isinstance(row, np.ndarray):
            return row.ndim == 1
        inner = row[0] if isinstance(row, (list, tuple)) and row else None
        return isinstance(inner, (int, float, np.number))
    return hasattr(value, "shape") or isinstance(value, memoryview)


def _to_numpy(value: object) -> object:
    """Convert a value to a NumPy array, keeping masks."""
    if isinstance(value, np.ma.MaskedArray):
        return value
    try:
        return np.asarray(value)
    except Exception as error:  # libraries raise any error
        reason = " ".join(str(error).split())[:120].rstrip(".")
        msg = f"{_INPUTS}, got an unusable {type(value).__name__} ({reason})."
        raise core.ShapeError(msg, code="wrong-type") from error


def _convert_labelled_array(value: Any) -> core.Micrograph:
    if not hasattr(value, "data"):  # a collection of arrays, such as xarray's Dataset
        msg = f"{_INPUTS}, got {type(value).__name__}: choose one of its arrays."
        raise core.ShapeError(msg, code="several-images")
    names = [str(name).lower() for name in value.dims]
    data: Any = value.data if hasattr(value.data, "dask") else _to_numpy(value.data)
    has_axes = names.count("y") == names.count("x") == 1
    if has_axes:
        pairs = zip(names, data.shape, strict=True)
        long = [name for name, size in pairs if name not in "yx" and size != 1]
        if long:
            axis = core.shorten_value(long[0])
            msg = f"{_INPUTS}, got an additional axis {axis}: select one index of it."
            raise core.ShapeError(msg, code="too-many-axes")
        order = [i for i, name in enumerate(names) if name not in "yx"]
        order += [names.index("y"), names.index("x")]
        data = data.transpose(order)[(0,) * (len(order) - 2)]
    elif len(names) != 2 or {"y", "x"} & set(names):
        axes = ", ".join(names) or "without names"
        msg = f"{_INPUTS}, got axes {axes}: name two of them y and x."
        raise core.ShapeError(msg, code="axis-missing")
    size, origin = _read_coordinates(value) if has_axes else (None, _NOWHERE)
    name = getattr(value, "name", None)
    name = "image" if name is None else str(name)
    return core.Micrograph(data, size, name, origin=origin)


def _read_coordinates(value: Any) -> tuple[core.PixelSize | None, tuple[float, float]]:
    """Read the pixel size and origin from the y and x coordinates."""
    lengths: list[float | None] = []
    starts: list[float] = []
    axes = {str(axis).lower(): axis for axis in value.dims}
    for axis in (axes["y"], axes["x"]):
        if axis not in value.coords:  # xarray would return pixel numbers
            return None, _NOWHERE
        along = value.coords[axis]
        places = np.asarray(along)
        attributes = getattr(along, "attrs", {})
        unit = str(attributes.get("units", attributes.get("unit", "")))
        step, _ = read_image.measure_step(places)
        lengths.append(read_image.convert_to_nm(abs(step), unit))
        nm = read_image.get_nm_per_unit(unit)
        starts.append(float(places[0]) * nm if nm and step > 0 else 0.0)
    size = read_image.create_pixel_size(lengths)
    if size is None:
        core.warn(
            "Image coordinates along y and x must be evenly spaced and have a length "
            "unit (attribute units): the pixel size remains unknown.",
            "pixel-size-invalid",
        )
        return None, _NOWHERE
    return size, (starts[0], starts[1])
