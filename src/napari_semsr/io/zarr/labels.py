"""Label images on an image: inside its store, or beside a file of any other kind."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from napari_semsr.io.files import output_kind, without_suffix
from napari_semsr.io.zarr.metadata import label_metadata, labels_metadata
from napari_semsr.io.zarr.store import OmeZarrStore, build_levels, make_level, shapes_of

if TYPE_CHECKING:
    import zarr

LABELS = "labels"
"""Group of the label images in a store."""


def label_path(target: Path, name: str) -> Path:
    """Place of a label image of an output.

    Parameters
    ----------
    target : pathlib.Path
        Where the image goes.
    name : str
        Of the label image.

    Returns
    -------
    pathlib.Path
        Inside a store; beside any other file.
    """
    if output_kind(target) == "ome-zarr":
        return target / LABELS / name
    return target.with_name(f"{without_suffix(target)}.{name}.tif")


def add_label(store: OmeZarrStore, name: str) -> "zarr.Array[Any]":
    """Make the finest level of the one label image of a store.

    Parameters
    ----------
    store : OmeZarrStore
        The image.
    name : str
        Of the label image.

    Returns
    -------
    (Y, X) zarr.Array of uint16
        Empty, on the image's own grid and chunks.
    """
    labels = store.group.create_group(LABELS)
    labels.attrs["ome"] = labels_metadata([name])
    group = labels.create_group(name)
    shape = shapes_of(store.level0)[0]
    return make_level(group, "0", shape, store.level0, "uint16")


def finish_label(store: OmeZarrStore, name: str, finest: "zarr.Array[Any]") -> None:
    """Add the coarser levels, every second pixel of the finer one, and say what it is.

    Parameters
    ----------
    store : OmeZarrStore
        The image.
    name : str
        As `add_label` was given it.
    finest : zarr.Array
        From `add_label`, filled.
    """
    group = store.group.require_group(f"{LABELS}/{name}")
    for _ in build_levels(group, finest, store.unit, _thinned):
        pass
    levels = len(shapes_of(finest))
    group.attrs["ome"] = label_metadata(store.record, name, levels)


def _thinned(block: NDArray[Any]) -> NDArray[Any]:
    """Keep every second pixel: counts and classes have no mean."""
    return block[::2, ::2]
