"""Result paths, and opening and display of written results."""

import atexit
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, ref

import numpy as np
from dask.threaded import get
from magicgui.types import FileDialogMode
from magicgui.widgets import FileEdit
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from napari.utils.events import Event
from napari.utils.notifications import Notification, notification_manager
from napari.viewer import Viewer
from qtpy.QtCore import QTimer
from qtpy.QtGui import QFont, QFontMetricsF

from napari_semsr import core, io
from napari_semsr.widgets import host, layers
from napari_semsr.widgets.base.form import get_preference
from napari_semsr.widgets.base.navigation import show_panel
from napari_semsr.widgets.base.places import (
    create_temporary_folder,
    is_temporary,
    remove_temporary_folder,
)
from napari_semsr.widgets.base.runner import has_active_jobs
from napari_semsr.widgets.base.saving import watch_napari_writers

_GIB = 2**30
_PYRAMID = 4 / 3  # size of a store relative to its finest level; 1/(1 - 1/4)
_FLOAT = 4
_folder: list[Path] = []
_project: list[Path] = []
_given_paths: set[Path] = set()
"""Paths created by this process, with symbolic links resolved."""


def get_cache_parent() -> Path | None:
    """Return the folder that the user chose for temporary results, if any."""
    parent = str(get_preference("storage", "cache_folder")).strip()
    return Path(parent) if parent else None


def get_cache_folder() -> Path:
    """Return the cache folder, created on first use and removed when napari closes."""
    if not _folder or not _folder[0].is_dir():
        parent = get_cache_parent()
        try:
            _folder[:] = [create_temporary_folder(parent)]
        except OSError as error:
            msg = (
                f"The cache folder {parent} must exist and be writable "
                f"({error.strerror}); choose another under Preferences, Storage."
            )
            raise core.WriteError(msg) from error
        atexit.register(remove_cache)
    return _folder[0]


def remove_cache() -> None:
    """Remove the cache folder and its contents."""
    for folder in _folder:
        remove_temporary_folder(folder)
    _folder.clear()


def remove_layer_store(layer: Layer, others: Iterable[Layer]) -> None:
    """Remove the store of a layer whose removal is final.

    A store that another layer shows, or a job may read, is kept until napari closes;
    one in a project, while the project lists it. Stores of other processes are kept.
    """
    store = layer.metadata.get(io.STORE_KEY)
    is_shared = any(
        store in (item.metadata.get(io.STORE_KEY), *item.metadata.get(io.DRAWN_KEY, ()))
        for item in others
    )
    if not store or is_shared or has_active_jobs():
        return
    path = Path(store)
    if not is_temporary(store):
        if path.parent not in _project:
            return
        try:
            layers_listed = io.read_project(path.parent).layers
        except core.ReadError:  # a damaged project may list the store
            return
        if any(item.store == path.name for item in layers_listed):
            return
    remove_created_store(path)


def is_created_path(path: Path) -> bool:
    """Return whether this process chose a path, rather than the user."""
    return path.resolve() in _given_paths


def remove_created_store(path: Path) -> None:
    """Remove a store and its unfinished parts, if this process created it."""
    if is_created_path(path):
        for one in (path.resolve(), *path.parent.glob(f".{path.name}.*")):
            shutil.rmtree(one, ignore_errors=True)


def set_project_folder(folder: Path | None) -> None:
    """Set the project for new results; None restores the temporary folder."""
    _project[:] = [] if folder is None else [folder.resolve()]


def is_unsaved(layer: Layer) -> bool:
    """Return whether a finished layer exists only in memory or temporary folders.

    Also true if its pixel size has changed since, unless an open project keeps it.
    """
    metadata = layer.metadata
    # at full strength
    store = None if io.STRENGTH_KEY in metadata else metadata.get(io.STORE_KEY)
    stores = [Path(item) for item in (metadata.get(io.SAVED_KEY), store) if item]
    if has_new_pixel_size(layer):
        stores = [item for item in stores if item.parent in _project]
    temporary = all(is_temporary(str(item)) for item in stores)
    return temporary and not metadata.get(io.LIVE_KEY)


def has_new_pixel_size(layer: Layer) -> bool:
    """Return whether a layer's pixel size differs from the pixel size in its file."""
    about, has_size = layers.get_image_record(layer), layers.is_calibrated(layer)
    if "pixel_size_nm" not in about:
        return has_size and core.SIZE_ERROR_KEY in about  # set here, error known or not
    recorded_size = about["pixel_size_nm"]
    if recorded_size is None or not has_size:
        return has_size or recorded_size is not None
    return not np.allclose(recorded_size, layers.get_layer_pixel_size(layer))


def is_saved_by_user(layer: Layer) -> bool:
    """Return whether the user saved a layer to a path of their choice."""
    paths = filter(None, map(layer.metadata.get, (io.SAVED_KEY, io.STORE_KEY)))
    kept = (path for path in paths if Path(path).parent not in _project)
    return not all(map(is_temporary, kept))


def find_free_store_path(name: str, suffix: str = ".ome.zarr") -> Path:
    """Return an unused path in the open project, or the cache folder."""
    there = [folder for folder in _project if folder.is_dir()]
    return find_free_path(there[0] if there else get_cache_folder(), name, suffix)


def find_free_path(folder: Path, name: str, suffix: str) -> Path:
    """Return an unused path in a folder."""
    stem = io.create_file_stem(name)
    path, number = folder / f"{stem}{suffix}", 1
    while path.resolve() in _given_paths or path.exists() or path.is_symlink():
        number += 1
        path = folder / f"{stem}-{number}{suffix}"
    _given_paths.add(path.resolve())
    return path


def check_cache_space(shape: tuple[int, int], scale: int) -> None:
    """Raise an error if a result is too large for the cache folder.

    `scale`: output pixels per input pixel along each axis.
    """
    need = shape[0] * shape[1] * scale**2 * _FLOAT * _PYRAMID / _GIB
    limit = float(get_preference("storage", "cache_gib"))
    if need > limit and not _project:
        msg = (
            f"A result of {need:.1f} GiB needs an output path, since the cache is "
            f"limited to {limit:g} GiB; choose a path, open a project in Save, "
            "or raise the limit under Preferences."
        )
        raise core.OptionError(msg, code="cache-too-small")


def create_store_edit(what: str = "result") -> FileEdit:
    """Create the optional output path field of a result."""
    return FileEdit(
        name="output",
        label="Save as",
        tooltip=(
            f"Store to write, NAME.ome.zarr. If empty, the {what} is stored in a "
            "temporary folder that is removed when napari closes. Use Save… to write "
            "TIFF or PNG afterwards."
        ),
        mode=FileDialogMode.OPTIONAL_FILE,
        filter="*.ome.zarr",
    )


def get_entered_path(edit: FileEdit) -> Path | None:
    """Return the path in an optional field, or None if it is empty."""
    text = str(edit.value or "").strip()
    return None if text in ("", ".") else Path(text)


_IMAGES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".czi", ".h5", ".hdf5")


def get_entered_store(edit: FileEdit, *, stack: bool = False) -> Path | None:
    """Return the entered path of a store, or of a TIFF for a stack; None if empty."""
    path = get_entered_path(edit)
    if path is None:
        return None
    ending = path.suffix.lower()
    if stack and ending == ".zarr":
        msg = (
            f"A stack of all planes is saved as .ome.tif, got {path.name}: change the "
            "name under Save as."
        )
        raise core.OptionError(msg, code="suffix-unknown")
    if stack:
        tiff = ending in (".tif", ".tiff")
        return path if tiff else path.with_name(f"{path.name}.ome.tif")
    if path.name.lower().endswith(".ome.zarr"):
        return path
    if ending in _IMAGES:
        msg = (
            "Results are first written as a store, NAME.ome.zarr: remove the suffix of "
            f"{path.name} under Save as, and use Save… afterwards for another format."
        )
        raise core.OptionError(msg, code="suffix-unknown")
    stem = path.stem if ending == ".zarr" else path.name
    return path.with_name(f"{stem}.ome.zarr")


def choose_store_path(
    edit: FileEdit | None,
    name: str,
    shape: tuple[int, int],
    scale: int = 1,
    *,
    planes: int = 0,
) -> Path:
    """Return the entered output path, or a temporary one if there is enough space.

    `scale`: output pixels per input pixel along each axis; `planes`: of a stack, which
    goes into one TIFF.
    """
    path = None if edit is None else get_entered_store(edit, stack=planes > 0)
    if path is not None:
        _given_paths.discard(path.resolve())  # it is the user's from now on
        return path
    check_cache_space((max(planes, 1) * shape[0], shape[1]), scale)
    suffix = ".ome.tif" if planes else ".ome.zarr"
    return find_free_store_path(name, suffix)


_FACTOR = 4  # factor of a coarse level over the previous one
STRIP_PX = 1 << 24  # pixels that are averaged at once; chosen


@dataclass(frozen=True, slots=True)
class OpenedImage:
    """Opened image with its pyramid and reading options."""

    micrograph: core.Micrograph  # the finest level asked for
    levels: tuple[core.Micrograph, ...]  # finest first; one entry without a pyramid
    path: Path | None = None  # of the file or store
    options: io.ReadOptions = field(default_factory=io.ReadOptions)  # as requested


def open_image_levels(
    path: Path, options: io.ReadOptions, *, levels: int = 1
) -> core.Job[OpenedImage]:
    """Open an image and, for level 0, the pyramid that is stored with it.

    `options`: which image of it, its pixel size and its data bar.
    """
    if not path.exists():
        raise io.create_missing_file_error(path)
    many = options.level == 0 and not options.databar_rows
    count, images = levels if many else 1, []
    for level in range(count):
        yield core.Progress(level, count, f"opening {path.name}")
        one = options if not level else options.replace(level=level, pixel_size_nm=None)
        images.append(io.read(path, **one.model_dump()))
        if max(images[0].shape) <= io.SINGLE_PX:
            if images[0].is_lazy:
                whole = _compute_dask_array(images[0].data)
                images = [images[0].replace(data=whole, look=images[0].look)]
            break
    if len(images) == 1 and images[0].is_lazy and min(images[0].shape) >= _FACTOR:
        images += yield from create_coarse_levels(images[0])
    io.warn_about_missing_blocks(path, options.series or 0, options.level)
    return OpenedImage(images[0], tuple(images), path, options)


def open_store(path: str | Path) -> core.Job[OpenedImage]:
    """Open a store that was just written, with its pyramid."""
    levels = io.describe(path).levels
    job = open_image_levels(Path(path), io.ReadOptions(), levels=levels)
    # a name in a temporary folder is not the user's
    return (
        yield from core.map_progress(
            job, lambda _: core.Progress(0, 0, "opening the result")
        )
    )


@dataclass(frozen=True, slots=True)
class JobResult:
    """Result of a panel's job: what its command returned, and images opened for it."""

    report: Any  # of the command
    opened: tuple[OpenedImage, ...] = ()  # images that it wrote
    planes: tuple[core.Micrograph, ...] = ()  # of a stack; the first is the opened one

    @property
    def image(self) -> core.Micrograph:
        """Finest level of the image that was written."""
        return self.opened[0].micrograph


def run_and_open(
    job: core.Job[Any],
    path: Path,
    *,
    beside: Path | None = None,
    keep: Callable[[], object] = lambda: False,
) -> core.Job[JobResult]:
    """Run a job that writes a store, two stores or a stack, and open the output.

    If the job does not finish, those that no user named are removed, unless `keep` is
    true.
    """
    try:
        report = yield from job
    except BaseException:
        if not keep():
            for store in filter(None, (path, beside)):
                remove_created_store(store)
        raise
    if path.suffix.lower() != ".zarr":  # a stack
        count, planes = report.shape[0], []
        for number in range(count):
            yield core.Progress(0, 0, "opening the result")
            planes.append(io.read(path, plane=number))
        return JobResult(report, (OpenedImage(planes[0], (planes[0],)),), tuple(planes))
    opened = [(yield from open_store(report.output))]
    if beside is not None:
        opened.append((yield from open_store(beside)))
    return JobResult(report, tuple(opened))


def create_coarse_levels(
    micrograph: core.Micrograph,
) -> core.Job[list[core.Micrograph]]:
    """Downsample a lazy image strip by strip to in-memory levels down to 2048 px.

    napari computes every chunk of a single-scale lazy layer when it is added. With
    coarse levels made in the job's thread, it reads only what is visible.
    """
    rows, columns = micrograph.shape
    step = max(1, STRIP_PX // (columns * _FACTOR)) * _FACTOR
    starts = range(0, rows - rows % _FACTOR, step)
    strips, doing = [], f"creating an overview of {micrograph.name}"
    for number, start in enumerate(starts):
        yield core.Progress(number, len(starts), doing)
        part = micrograph.data[start : min(start + step, rows)]
        strips.append(_average_blocks(_compute_dask_array(part)))
    levels = [np.concatenate(strips)]
    while max(levels[-1].shape) > io.SINGLE_PX and min(levels[-1].shape) >= _FACTOR:
        levels.append(_average_blocks(levels[-1]))
    return [micrograph.replace(data=level) for level in levels]


def _compute_dask_array(part: Any) -> core.RealArray:
    """Compute with threads, bypassing napari's dask cache, which is not thread-safe.

    Naming the scheduler, or leaving it out, would import `distributed`.
    """
    whole: core.RealArray = np.asarray(part.compute(scheduler=get, callbacks=()))
    return whole


def _average_blocks(part: core.RealArray) -> core.RealArray:
    """Average blocks of `_FACTOR` by `_FACTOR` pixels, keeping the dtype."""
    rows, columns = (n // _FACTOR for n in part.shape)
    cut = part[: rows * _FACTOR, : columns * _FACTOR]
    blocks = cut.reshape(rows, _FACTOR, columns, _FACTOR)
    mean = blocks.mean(axis=(1, 3), dtype=np.float64)
    if part.dtype.kind in "iu":
        mean = np.rint(mean)
    shrunk: core.RealArray = mean.astype(part.dtype)
    return shrunk


def add_stack(viewer: Viewer, outcome: JobResult, source: Image, name: str) -> Image:
    """Add a stack computed plane by plane, using the axes of its source."""
    planes, lead = outcome.planes, source.ndim - 2
    keywords = layers.create_layer_keywords(planes[0], name=name)
    for key in ("scale", "translate", "units", "axis_labels"):
        keywords[key] = (*getattr(source, key)[:lead], *keywords[key])
    pixels = io.stack_planes([plane.data for plane in planes])
    counts = layers.get_finest_level(source).shape[:lead]
    layer = viewer.add_image(pixels.reshape(*counts, *pixels.shape[1:]), **keywords)
    layer.metadata[io.STORE_KEY] = str(Path(outcome.report.output).resolve())
    layers.show_scale_bar(viewer)
    return layer


def add_opened_image(
    viewer: Viewer, opened_store: OpenedImage, **keywords: object
) -> Image:
    """Add an opened image as a calibrated layer, with its pyramid."""
    data, image = [i.data for i in opened_store.levels], opened_store.micrograph
    many = len(data) > 1
    if image.look is not None and image.look.classes:
        kind, about = "labels", io.create_layer_attributes(image) | keywords
        del about["rgb"]
    else:
        kind = "image"
        about = layers.create_layer_keywords(image, levels=data, **keywords)
    add = getattr(viewer, f"add_{kind}")
    layer: Image = add(data if many else data[0], multiscale=many, **about)
    if opened_store.path is not None:
        read = opened_store.options.model_dump(exclude_defaults=True)
        store = str(opened_store.path.resolve())
        layer.metadata.update({io.STORE_KEY: store, io.READ_KEY: read})
    layers.show_colour_bar(layer)
    layers.show_scale_bar(viewer)
    return layer


# Handling of added images: scale bar, view, data bar.

_watched_viewers: WeakSet[ViewerModel] = WeakSet()
_warned_viewers: WeakSet[ViewerModel] = WeakSet()  # by napari, of mixed units
_layers_asked_about: WeakKeyDictionary[ViewerModel, set[str]] = WeakKeyDictionary()
_stated_sizes: WeakKeyDictionary[Layer, tuple[str, core.PixelSize | None]] = (
    WeakKeyDictionary()
)
_colour_layers: WeakKeyDictionary[Layer, bool] = WeakKeyDictionary()
_OURS = "napari-semsr"
_UNITS_WARNING = "Inconsistent units across layers"  # of napari
_LOOK_PX = 1000  # side of the sample that is checked for colour; chosen
_PLACE = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
_BAR_WIDTH = 90  # px of a colour bar with its numbers and margins
_NAME_PT, _MIN_PT = 10.0, 5.0  # font sizes: napari's, and the least readable one
_TEXT_FACTOR = 1.5  # width of text on napari's canvas over that in a widget; measured
_SAME_SIDE = 0.02  # relative, of a side; chosen: rounding of a scaled image's size


def watch_images(viewer: ViewerModel) -> None:
    """Set up scale bar, view and data bar for each added image.

    The first calibrated image switches the scale bar on. Images from files fill the
    view. One without a pixel size would be a speck next to others that have one, or
    hide them: it is displayed at the size of the field in view, without changing its
    data, and its pixel size is requested. If its lowest rows look like a data bar, a
    button to crop them is offered. The files of an image are forgotten if its pixels
    are replaced, and for layers that napari makes from parts of it. napari's own
    writers warn that they lose the pixel size. Mixed units are mentioned once, not with
    each added layer.
    """
    viewer = getattr(viewer, "__wrapped__", viewer)  # napari may pass a proxy
    if viewer in _watched_viewers:
        return
    watch_napari_writers()
    _watched_viewers.add(viewer)
    of_viewer = ref(viewer)

    def update_viewer(event: Event) -> None:
        model = of_viewer()
        if model is not None and event.type == "inserted":
            _track_pixel_changes(event.value)
            layers.use_comparable_units(model)
            _set_up_inserted_layer(model, event.value)
            event.value.events.visible.connect(update_viewer)
            if isinstance(event.value, Image):
                if io.BAR_KEY not in event.value.metadata:  # which may cover a map
                    _update_colour_bars(model)
                # after all other callbacks
                QTimer.singleShot(0, partial(_raise_drawing_layers, of_viewer))
        elif model is not None:
            if event.type == "removed":
                _release_fitted_layers(model)
            _update_scale_bar(model)
            _update_colour_bars(model)

    for layer in viewer.layers:
        _track_pixel_changes(layer)
    events, camera = viewer.layers.events, host.get_camera(viewer).events
    changes = events.inserted, events.removed, events.reordered, events.renamed
    for signal in (*changes, camera.center, camera.zoom):
        signal.connect(update_viewer)
    _keep_field_in_view(viewer)
    host.connect_to_resize(viewer, update_viewer)
    ready = notification_manager.notification_ready
    ready.connect(_drop_repeated_warning, position="first")


def _keep_field_in_view(viewer: ViewerModel) -> None:
    """Keep the field in view when the canvas is resized, such as by a new dock.

    Also when the unit of the viewer changes, which is that of the camera: if a layer
    in nm joins layers in µm, or one without a unit joins layers in mm.
    """
    of_viewer, camera = ref(viewer), host.get_camera(viewer)
    field = host.get_viewbox_size(viewer) / camera.zoom
    nm = layers.get_nm_per_unit((viewer.dims.units or ("pixel",))[-1])

    def record_field(_: Event) -> None:
        nonlocal field
        if (model := of_viewer()) is not None:
            field = host.get_viewbox_size(model) / host.get_camera(model).zoom

    def keep_field(_: Event) -> None:
        nonlocal field
        if (model := of_viewer()) is not None:
            before, size = field, host.get_viewbox_size(model)
            host.get_camera(model).zoom = float(np.min(size / before))
            field = before

    def keep_place(_: Event) -> None:
        nonlocal nm
        model = of_viewer()
        if model is not None and layers.use_comparable_units(model):
            before, nm = nm, layers.get_nm_of_viewer(model)
            ratio, view = (before or 1) / (nm or 1), host.get_camera(model)
            if before and nm and ratio != 1:
                view.center = tuple(np.array(view.center) * ratio)
                view.zoom /= ratio

    keep_place(Event("units"))
    viewer.dims.events.units.connect(keep_place)
    camera.events.zoom.connect(record_field)
    host.connect_to_resize(viewer, keep_field)


def _drop_repeated_warning(notification: Notification) -> None:
    """Drop napari's warning of mixed units if it has been given for these layers."""
    if notification.message.startswith(_UNITS_WARNING):
        mixed = {*filter(layers.have_mixed_units, _watched_viewers)}
        notification.blocked = bool(mixed) and mixed <= {*_warned_viewers}
        _warned_viewers.update(mixed)


# napari calls callbacks of its own modules first, and those show the notification
_drop_repeated_warning.__module__ = notification_manager.__module__


def _update_scale_bar(viewer: ViewerModel) -> bool:
    """Hide the scale bar if layers have no common unit; return whether that is so."""
    is_mixed = layers.update_scale_bar(viewer)
    if not is_mixed:
        _warned_viewers.discard(viewer)
    return is_mixed


def _update_colour_bars(viewer: ViewerModel) -> None:
    """Show one colour bar, with a name that fits on the canvas next to it."""
    layers.update_colour_bars(viewer)
    room = host.get_viewbox_size(viewer)[1] - _BAR_WIDTH
    for layer in viewer.layers:
        if layer.metadata.get(io.BAR_KEY) and layer.colorbar.visible:
            font = QFont()
            font.setPointSizeF(_NAME_PT)
            width = _TEXT_FACTOR * QFontMetricsF(font).horizontalAdvance(layer.name)
            size = _NAME_PT * min(1.0, room / max(width, 1.0))
            layer.name_overlay.font_size = max(size, _MIN_PT)


def _raise_drawing_layers(of_viewer: Callable[[], ViewerModel | None]) -> None:
    """Move drawing layers, such as the scale line, above later images."""
    if (viewer := of_viewer()) is None:
        return
    drawings = [item for item in viewer.layers if layers.DRAWING_KEY in item.metadata]
    images = [n for n, item in enumerate(viewer.layers) if isinstance(item, Image)]
    for item in drawings:
        if images and viewer.layers.index(item) < images[-1]:
            viewer.layers.move(viewer.layers.index(item), len(viewer.layers))


PIXEL_EVENTS = ("data", "paint", "labels_update")
"""Events that change the pixels of images and labels."""


def _track_pixel_changes(layer: Layer) -> None:
    """Forget the source files of an image if its pixels differ, now or later."""
    if isinstance(layer, Image | Labels):
        _record_shape(layer)
        for name in PIXEL_EVENTS:
            if name in layer.events:
                layer.events[name].connect(_on_pixels_changed)


def _on_pixels_changed(event: Event) -> None:
    """Forget the source files of replaced pixels and record the edit in the history."""
    layer = event.source
    layers.record_edit(layer)
    _forget_files(layer)


def _record_shape(layer: Image | Labels) -> None:
    """Record the shape of an image to recognise its crops and projections."""
    shape = layers.get_finest_level(layer).shape
    if layer.metadata.setdefault(io.SHAPE_KEY, shape) != shape:
        _forget_files(layer)


def _forget_files(layer: Image | Labels) -> None:
    """Forget source files whose pixels differ from the current pixels of an image.

    The image may still be displayed from them.
    """
    about = layer.metadata
    if store := about.pop(io.STORE_KEY, None):
        about[io.DRAWN_KEY] = [*about.get(io.DRAWN_KEY, ()), store]
    for key in (io.READ_KEY, io.SAVED_KEY, io.SHAPE_KEY):
        about.pop(key, None)
    _record_shape(layer)


def _set_up_inserted_layer(viewer: ViewerModel, layer: Layer) -> None:
    """Show scale bar and colour bar of an image, and position it among others."""
    identities = [item.metadata.get(layers.IDENTITY_KEY) for item in viewer.layers]
    # a copy is another layer
    if identities.count(layer.metadata.get(layers.IDENTITY_KEY)) > 1:
        layer.metadata.pop(layers.IDENTITY_KEY, None)
    _update_colour_bars(viewer)
    is_mixed = _update_scale_bar(viewer)
    images = layers.list_grey_layers(viewer)
    _fit_inserted_layer(viewer, layer)
    if layer not in images:
        return
    others = [item for item in images if item is not layer]
    if layers.is_calibrated(layer) and not any(map(layers.is_calibrated, others)):
        layers.show_scale_bar(viewer)
    if layer.source.path is not None:
        fit_view_to_image(viewer, layer)
    bare = next((i for i in (layer, *others) if not layers.is_calibrated(i)), None)
    if is_mixed and bare is not None:
        _ask_pixel_size(viewer, bare)
    if get_databar_row_count(layer):
        sentence = f"{describe_databar(layer)}, in {layer.name}."
        offer_action(sentence, "Crop it", lambda: crop_databar(viewer, layer))


def _fit_inserted_layer(viewer: ViewerModel, layer: Layer) -> None:
    """Display a layer without a pixel size at its image, or at the field in view."""
    images, has_size = layers.list_grey_layers(viewer), layers.is_calibrated(layer)
    if layer.ndim < 2 or has_size or layers.get_display_fit(layer)[0] != 1:
        return
    others = (i for i in images if i is not layer and not layers.is_calibrated(i))
    image = next((i for i in others if _belongs_to_image(layer, i)), None)
    if image is None:
        if layer in images:
            _fit_uncalibrated_images(viewer, [layer])
    elif layers.get_display_fit(image)[0] != 1:
        layers.fit_layer_to_field(layer, *layers.get_display_fit(image))


def fit_view_to_image(viewer: ViewerModel, layer: Layer) -> None:
    """Fill the view with an opened image, unless it is fitted to the view."""
    others = [item for item in layers.list_grey_layers(viewer) if item is not layer]
    if others and layers.get_display_fit(layer)[0] == 1:
        layers.fill_view(viewer, layer)
    if layers.is_calibrated(layer):
        bare = [item for item in others if not layers.is_calibrated(item)]
        _fit_uncalibrated_images(viewer, bare)


def _belongs_to_image(layer: Layer, image: Layer) -> bool:
    """Return whether a layer belongs to an image, by its history, mark or size.

    A layer that is still being enhanced has no history.
    """
    if layer.metadata.get(layers.MARK_KEY) == layers.get_identity(image):
        return True
    if not isinstance(layer, Image | Labels):
        return False
    history = layers.get_provenance(layer)
    inputs = () if history is None else history.defining_step().inputs
    if any(item.name == image.name for item in inputs):
        return True
    own, its = (np.ptp(item.extent.world[:, -2:], axis=0) for item in (layer, image))
    factor = layers.get_display_fit(image)[0]
    return bool(np.allclose(own * factor, its, rtol=_SAME_SIDE))


def _fit_uncalibrated_images(
    viewer: ViewerModel, layers_added: Sequence[Layer]
) -> None:
    """Scale images without a pixel size, as a group, to the extent of the others."""
    sized_layers = [*filter(layers.is_calibrated, layers.list_grey_layers(viewer))]
    plane = tuple(range(viewer.dims.ndim - 2, viewer.dims.ndim))
    if not (sized_layers and layers_added and tuple(viewer.dims.displayed) == plane):
        return
    for item in layers_added:
        layers.remove_display_fit(item)
    camera = host.get_camera(viewer)
    half = host.get_viewbox_size(viewer) / camera.zoom / 2
    middle = np.array(camera.center[-2:])
    low, high = view = np.array([middle - half, middle + half])
    layers_shown = [item for item in sized_layers if item.visible]
    if layers_shown:  # their visible part, unless all are out of view
        ends = np.array([item.extent.world[:, -2:] for item in layers_shown])
        start = np.maximum(ends[:, 0].min(axis=0), view[0])
        stop = np.minimum(ends[:, 1].max(axis=0), view[1])
        low, high = (start, stop) if np.all(stop > start) else view
    ends = np.array([item.extent.world[:, -2:] for item in layers_added])
    first, last = ends[:, 0].min(axis=0), ends[:, 1].max(axis=0)
    step = np.max([item.extent.step[-2:] for item in layers_added], axis=0)
    factor = float(np.min((high - low) / (last - first + step)))
    if factor > 0 and np.isfinite(factor):
        shift = (low + high) / 2 - factor * (first + last) / 2
        for item in layers_added:
            layers.fit_layer_to_field(item, factor, shift)


def _release_fitted_layers(viewer: ViewerModel) -> None:
    """Display images in pixel units again if none has a pixel size any more."""
    images = layers.list_grey_layers(viewer)
    if any(layers.is_calibrated(item) for item in images):
        return
    fitted = [one for one in viewer.layers if layers.get_display_fit(one)[0] != 1]
    for item in fitted:
        layers.remove_display_fit(item)
    if fitted:
        viewer.reset_view()


def _ask_pixel_size(viewer: ViewerModel, layer: Layer) -> None:
    """Ask once for an image's missing pixel size if other images have one."""
    layers_asked = _layers_asked_about.setdefault(viewer, set())
    if layer.name in layers_asked:
        return
    layers_asked.add(layer.name)
    of_viewer = ref(viewer)

    def open_size_panel() -> None:
        if (model := of_viewer()) is not None and layer in model.layers:
            show_panel(model, "Open").focus_pixel_size(layer)

    question = (
        f"Not to scale: {layer.name} has no pixel size and is shown at the size of the "
        "visible field, without a scale bar."
    )
    offer_action(question, "Set its pixel size", open_size_panel)


def offer_action(text: str, label: str, call: Callable[[], object]) -> None:
    """Show a notification with a button."""
    actions = ((label, lambda _: call()),)
    notification_manager.dispatch(_ActionNotification(text, "info", actions=actions))


class _ActionNotification(Notification):
    """Notification with a button and the plugin as its source."""

    @property
    def source(self) -> str:
        """Name of the plugin instead of a Python object, napari's default."""
        return "Superlens SEM"


def get_stated_pixel_size(layer: Layer | None) -> core.PixelSize | None:
    """Return the pixel size stated in a layer's file, if the layer has none.

    For layers opened by napari's readers: in nm, (y, x); None for others.
    """
    if not isinstance(layer, Image | Labels) or layers.is_calibrated(layer):
        return None
    path, own = layer.source.path, {io.READ_KEY, io.STORE_KEY} & {*layer.metadata}
    if path is None or own or layer.source.reader_plugin == _OURS:
        return None
    size_known = _stated_sizes.get(layer)
    if size_known is None or size_known[0] != path:
        colour = isinstance(layer, Image) and layer.rgb
        columns = layers.get_finest_level(layer).shape[-2 if colour else -1]
        size = None
        # napari could still read it
        with suppress(core.SemsrError, OSError, ValueError):
            facts = io.describe(Path(path))
            if facts.series == 1 and facts.shape[-1] == columns:
                size = facts.pixel_size_nm
        _stated_sizes[layer] = size_known = path, size
    return size_known[1]


def apply_stated_pixel_size(
    viewer: ViewerModel, layer: Layer, *, of: Layer | None = None
) -> None:
    """Set the pixel size of a layer to the one stated in its file.

    `of`: the layer of that file, if this one was made from it.
    """
    source = layer if of is None else of
    size = get_stated_pixel_size(source)
    if size is not None:
        file = Path(source.source.path or "")
        origin = core.create_size_source(f"by the file {file.name}", size)
        has_fit = layers.get_display_fit(layer)[0] != 1
        layers.apply_pixel_size(layer, size, origin=origin)
        layers.show_scale_bar(viewer)
        if has_fit or len(layers.list_grey_layers(viewer)) == 1:
            layers.fill_view(viewer, layer)


def is_coloured(layer: Layer | None) -> bool:
    """Return whether an image layer has colours, rather than grey stored as RGB."""
    if not (isinstance(layer, Image) and layer.rgb):
        return False
    if layer not in _colour_layers:
        values = layer.data[-1] if layer.multiscale else layer.data
        plane = values[(0,) * (values.ndim - 3)]
        step = max(1, max(plane.shape[:2]) // _LOOK_PX)
        grey = io.try_convert_to_grey(np.asarray(plane[::step, ::step]))
        _colour_layers[layer] = grey is None
    return _colour_layers[layer]


def mark_as_coloured(layer: Image) -> None:
    """Record that an image has colours, which may be between the checked pixels."""
    _colour_layers[layer] = True


def add_luminance_layer(viewer: ViewerModel, layer: Image) -> Image:
    """Add the luminance of a colour layer as a grey one, which becomes active.

    It has the pixel size of that layer, or the one stated in its file.
    """
    colours = layer.data if layer.multiscale else [layer.data]
    levels = [io.luminance(one[..., :3]) for one in colours]
    layer_made: Image = viewer.add_image(
        levels if layer.multiscale else levels[0],
        multiscale=layer.multiscale,
        rgb=False,
        name=layers.create_result_name(viewer, layer.name, "luminance"),
        **{name: getattr(layer, name) for name in _PLACE},
    )
    layers.record_edit(layer_made, of=layer)
    layers.record_pixel_size_metadata(layer_made, layers.get_pixel_size_metadata(layer))
    apply_stated_pixel_size(viewer, layer_made, of=layer)
    layer.visible = False
    viewer.layers.selection.active = layer_made
    return layer_made


def get_databar_row_count(layer: Layer | None) -> int:
    """Return the number of bottom rows that look like a data bar."""
    return 0 if layer is None else int(layer.metadata.get(io.ROWS_KEY) or 0)


def describe_databar(layer: Layer) -> str:
    """Describe where a data bar begins."""
    rows = layers.get_finest_level(layer).shape[-2]
    return f"Data bar below row {rows - get_databar_row_count(layer)}"


def crop_databar(viewer: ViewerModel, layer: Layer) -> None:
    """Replace a layer by an otherwise identical one without its data bar."""
    rows = get_databar_row_count(layer)
    if layer not in viewer.layers or not rows:
        return
    whole = layer.as_layer_data_tuple()
    cut, about, kind = io.crop_bottom_rows(whole, rows)
    if kind == "image" and not about["rgb"]:
        many, limits = about["multiscale"], core.contrast_limits
        before, after = (limits(list(d) if many else d) for d in (whole[0], cut))
        if np.array_equal(about["contrast_limits"], before):  # which the bar affected
            about["contrast_limits"] = after
    layer_made = Layer.create(cut, {**about, "cache": False}, kind)
    place, point = viewer.layers.index(layer), viewer.dims.point
    viewer.layers.remove(layer)
    viewer.layers.insert(place, layer_made)
    viewer.dims.point = point  # which is lost with the last layer
    viewer.layers.selection.active = layer_made
