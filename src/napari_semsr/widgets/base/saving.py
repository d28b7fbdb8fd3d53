"""Layer saving for panels, and the writer functions that napari calls."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakSet

from napari.layers import Image, Labels, Layer
from napari.utils.notifications import show_warning
from npe2 import PluginManager
from npe2.manifest.utils import import_python_name
from qtpy.QtWidgets import QApplication, QFileDialog, QMessageBox, QWidget

from napari_semsr import core, io
from napari_semsr.jobs import (
    FIGURE,
    ConvertedFile,
    FigureOptions,
    save_image,
    save_images,
)
from napari_semsr.widgets import layers
from napari_semsr.widgets.base.form import relabel_errors
from napari_semsr.widgets.base.places import get_start_folder, remember_output_folder

_FILTERS = {
    "OME-Zarr, calibrated (*.ome.zarr)": ".ome.zarr",
    "OME-TIFF, calibrated (*.ome.tif)": ".ome.tif",
    "TIFF for ImageJ, calibrated (*.tif)": ".tif",
    "PNG, 8-bit for viewing (*.png)": ".png",
}
_STACK_FILTERS = {
    text: suffix for text, suffix in _FILTERS.items() if suffix.endswith(".tif")
}


def ask_save_path(parent: QWidget, layer: Layer) -> Path | None:
    """Ask where to save a layer; return None if the user cancels."""
    filters = _FILTERS if layer.ndim == 2 else _STACK_FILTERS
    if layers.is_from_tiff(layer):
        filters = _STACK_FILTERS | filters  # in the format of the user's file
    return ask_output_file(parent, f"Save {layer.name}", layer.name, filters)


def ask_output_file(
    parent: QWidget, title: str, name: str, filters: Mapping[str, str]
) -> Path | None:
    """Ask for a file name with a valid suffix; return None if the user cancels."""
    place, kinds = get_start_folder() / io.create_file_stem(name), ";;".join(filters)
    path_typed, kind = QFileDialog.getSaveFileName(parent, title, str(place), kinds)
    if not path_typed:
        return None
    path = _complete_path(Path(path_typed), filters[kind], parent, filters)
    if path is not None:
        remember_output_folder(path)
    return path


def ask_existing_file(
    parent: QWidget, title: str, filters: Iterable[str]
) -> Path | None:
    """Ask for an existing file; return None if the user cancels."""
    place, kinds = str(get_start_folder()), ";;".join(filters)
    path_chosen, _ = QFileDialog.getOpenFileName(parent, title, place, kinds)
    return Path(path_chosen) if path_chosen else None


def ask_existing_folder(parent: QWidget, title: str) -> Path | None:
    """Ask for a folder; return None if the user cancels."""
    place = str(get_start_folder())
    path_chosen = QFileDialog.getExistingDirectory(parent, title, place)
    return Path(path_chosen) if path_chosen else None


def ask_new_project_path(parent: QWidget | None) -> Path | None:
    """Ask for the path of a new project; return None if the user cancels."""
    place = get_start_folder() / f"project{io.PROJECT_SUFFIX}"
    path_typed, _ = QFileDialog.getSaveFileName(
        parent, "New project", str(place), f"Project (*{io.PROJECT_SUFFIX})"
    )
    if not path_typed:
        return None
    path = io.get_project_folder(Path(path_typed))
    inside = [item for item in path.parents if item.suffix == io.PROJECT_SUFFIX]
    path = inside[-1] if inside else path
    if path.suffix != io.PROJECT_SUFFIX:
        path = path.with_name(f"{path.name}{io.PROJECT_SUFFIX}")
    remember_output_folder(path)
    return path


def _complete_path(
    path: Path,
    suffix: str,
    parent: QWidget | None = None,
    filters: Mapping[str, str] = _FILTERS,
) -> Path | None:
    """Add a missing suffix; return None if an existing file must not be replaced.

    A dialog confirms only the name that was typed. It descends into a chosen store, so
    a name in a store means the store.
    """
    stores = [item for item in path.parents if item.name.endswith(".ome.zarr")]
    target = stores[-1] if stores else path
    is_known = target.suffix.lower() in filters.values()
    if filters.keys() <= _FILTERS.keys():  # any suffix of a writable format
        try:
            io.get_output_format(target)
            is_known = True
        except core.WriteError:
            is_known = False
    if not is_known:
        target = target.with_name(f"{target.name}{suffix}")
    if target == path or not target.exists():
        return target
    if QApplication.instance() is None:
        return None
    yes = QMessageBox.StandardButton.Yes
    question = f"{target} already exists. Replace it?"
    return target if QMessageBox.question(parent, "Save", question) == yes else None


def check_output_not_source(
    image: core.Micrograph, metadata: dict[str, Any], path: Path
) -> None:
    """Raise an error if saving a layer would replace the store it is read from."""
    store = Path(metadata.get(io.STORE_KEY) or "")
    if image.is_lazy and path.resolve() in (store, *store.parents):
        msg = (
            f"Layer {image.name!r} is displayed from {path.name} and cannot replace "
            "it; choose another name."
        )
        raise core.OptionError(msg, code="output-is-input")


def record_saved_path(metadata: dict[str, object], saved_file: ConvertedFile) -> None:
    """Record the saved path in a layer's metadata, unless the file is a PNG."""
    if not saved_file.output.lower().endswith(".png"):
        metadata[io.SAVED_KEY] = saved_file.output
        about, size = metadata.get("micrograph"), saved_file.pixel_size_nm
        if isinstance(about, dict):
            metadata["micrograph"] = {**about, "pixel_size_nm": size}


LayerTuple = tuple[Any, dict[str, Any], str]


@relabel_errors()
def _write_layers(suffix: str, path: str, items: Sequence[LayerTuple]) -> list[str]:
    """Save layers in the format of the path's suffix; the default is `suffix`."""
    opened_layers: list[Image | Labels] = []
    attributes_opened: list[dict[str, Any]] = []
    others: list[str] = []
    for item in items:
        layer = Layer.create(*item)
        if isinstance(layer, Image | Labels):
            layers.show_colour_bar(layer)  # napari passes everything except this
            opened_layers.append(layer)
            attributes_opened.append(item[1])
        else:
            others.append(f"{layer.name} ({item[2]})")
    images: list[tuple[core.Micrograph, ...]] = []
    for layer in opened_layers:
        first, *more = layers.list_planes(layer)
        images.append((first.replace(look=layers.get_display_settings(layer)), *more))
    target = _choose_save_path(path, suffix)
    for layer, (first, *_) in zip(opened_layers, images, strict=True):
        check_output_not_source(first, layer.metadata, target)
        check_stack_format(layer, target)
    if len(images) == 1:
        [planes] = images
        results = [core.run(save_image(planes if planes[1:] else planes[0], target))]
    else:
        results = core.run(save_images([first for first, *_ in images], target))
    for attributes, result in zip(attributes_opened, results, strict=True):
        record_saved_path(attributes.get("metadata", {}), result)
    if others:
        show_warning(
            f"Not saved: {', '.join(others)}; an OME-Zarr store can contain only "
            "images and labels."
        )
    return [str(target)]


def _write_layer(
    suffix: str, path: str, data: object, attributes: dict[str, object]
) -> list[str]:
    """Save one layer, using the signature of a napari single-layer writer."""
    kind = "image" if "contrast_limits" in attributes else "labels"
    return _write_layers(suffix, path, [(data, attributes, kind)])


def _choose_save_path(
    path: str, suffix: str, filters: Mapping[str, str] = _FILTERS
) -> Path:
    """Return the path with its suffix; raise an error if an existing file is kept."""
    target = _complete_path(Path(path), suffix, filters=filters)
    if target is None:
        msg = (
            f"Nothing was saved because the existing {path} was kept; choose another "
            "name."
        )
        raise core.WriteError(msg, code="output-exists")
    return target


@relabel_errors()
def write_figure(path: str, items: Sequence[LayerTuple]) -> list[str]:
    """Save the visible images of several layers as one figure."""
    images = []
    for layer in (Layer.create(*item) for item in items):
        if isinstance(layer, Image) and layer.visible:
            image = layers.micrograph_from_layer(layer, colour=True)
            images.append(image.replace(look=layers.get_display_settings(layer)))
    target = _choose_save_path(path, ".pdf", {"PDF (*.pdf)": ".pdf"})
    return [core.run(FIGURE.rerun(images, target, options=FigureOptions())).path]


def check_stack_format(layer: Layer, path: Path) -> None:
    """Raise an error if a stack would be saved in a format without planes."""
    if layer.ndim > 3:
        msg = (
            f"Layer {layer.name!r} has {layer.ndim} axes, but a TIFF file cannot store "
            "the first one. Right-click the layer in the layer list, choose Split "
            "Stack, and save the stacks one by one."
        )
        raise core.OptionError(msg, code="too-many-axes")
    if layer.ndim > 2 and io.get_output_format(path) not in ("ome-tiff", "tiff"):
        msg = (
            f"Layer {layer.name!r} is a stack and must be saved as .ome.tif or .tif, "
            f"got {path.name}. Choose one of these formats, or right-click the layer "
            "in the layer list, choose Split Stack, and save one plane."
        )
        raise core.OptionError(msg, code="suffix-unknown")


write_ome_zarr = partial(_write_layers, ".ome.zarr")
write_tiff = partial(_write_layer, ".ome.tif")
write_png = partial(_write_layer, ".png")

_NAPARIS = ("napari.write_image", "napari.write_labels")
_watched_registries: WeakSet[Any] = WeakSet()


def watch_napari_writers() -> None:
    """Warn whenever napari's own writers save a layer without its pixel size.

    napari proposes them first, in the order in which it found the plugins, and has no
    event for a saved file; the plugin engine's commands can be registered again.
    """
    manager = PluginManager.instance()
    commands = manager.commands
    if commands in _watched_registries or "napari" not in manager:
        return
    _watched_registries.add(commands)
    for name in _NAPARIS:
        write = str(manager.get_command(name).python_name)
        commands.unregister(name)
        commands.register(name, partial(_write_by_napari, write))


def _write_by_napari(
    writer: str, path: str, data: object, attributes: dict[str, Any]
) -> object:
    """Save a layer by a writer of napari, and warn if its pixel size is lost."""
    written = import_python_name(writer)(path, data, attributes)
    units = attributes.get("units") or ("pixel",)
    is_ours = "micrograph" in attributes.get("metadata", {})
    if written and is_ours and all(map(layers.get_nm_per_unit, units[-2:])):
        show_warning(
            f"{Path(str(written)).name} has no pixel size, because napari's own writer "
            "does not store it: save the layer again, and choose 'Superlens SEM TIFF, "
            "calibrated' as the type of file."
        )
    return written
