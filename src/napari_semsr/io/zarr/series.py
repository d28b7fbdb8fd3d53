"""Several images in one OME-Zarr 0.5 store, in the bioformats2raw layout.

Each image is a numbered group, and the group ``OME`` lists them, in JSON and in the XML
that napari-ome-zarr and Bio-Formats read. An image of classes is a label image of the
first image on its grid; without such an image it has a number, too.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from napari_semsr.core import Grid, Job, Micrograph, escape_invisible_characters
from napari_semsr.io.files import LABELS, create_file_stem, replace_atomically
from napari_semsr.io.zarr.image import (
    create_image_store,
    get_ome_attributes,
    list_image_groups,
    write_image_to_store,
)
from napari_semsr.io.zarr.store import get_package_attributes, register_label

_LAYOUT = "bioformats2raw.layout"
_ORDER = "order"  # in our attributes of an image: its index among the layers


def _choose_groups(images: Sequence[Micrograph]) -> list[str]:
    """Choose the group of each image: ``0``, ``1``, or ``0/labels/particles``."""
    places: dict[int, str] = {}
    labels = [i for i, image in enumerate(images) if image.look and image.look.classes]
    parents = [i for i in range(len(images)) if i not in labels]
    for index in [*parents, *labels]:
        place = str(sum(LABELS not in place_taken for place_taken in places.values()))
        for parent in parents if index in labels else ():
            if Grid.from_image(images[parent]) == Grid.from_image(images[index]):
                name = create_file_stem(images[index].name)
                stem = place = f"{places[parent]}/{LABELS}/{name}"
                while place in places.values():
                    place = f"{stem}-{index}"
                break
        places[index] = place
    return [places[index] for index in range(len(images))]


def write_series(images: Sequence[Micrograph], path: Path) -> Job[list[Path]]:
    """Write images into one store, overwriting any existing one.

    Parameters
    ----------
    images : sequence of Micrograph
        Grey values (Y, X), or classes, which have colours in their `look`.
    path : Path
        Folder that ends in ``.ome.zarr``.

    Returns
    -------
    list of Path
        Path of each image in the store.

    Raises
    ------
    WriteError
        If the store cannot be written.
    """
    import zarr

    from napari_semsr.core import FolderStore

    places = _choose_groups(images)
    with replace_atomically(path) as folder:
        root = zarr.create_group(
            FolderStore(folder), attributes={"ome": {"version": "0.5", _LAYOUT: 3}}
        )
        # A label image comes after the image that it belongs to.
        for index in sorted(range(len(images)), key=lambda i: LABELS in places[i]):
            image, place = images[index], folder / places[index]
            if place.parent.name == LABELS:
                register_label(root[places[index].split("/")[0]], place.name)  # type: ignore[arg-type]
            store = create_image_store(image, place)
            with store.release_lock_on_exit():
                message = f"writing {path.name}: {image.name}"
                yield from write_image_to_store(store, image, message)
                yield from store.finish()
            store.write_note(_ORDER, index)
        image_indices = [i for i in range(len(images)) if LABELS not in places[i]]
        series = {"version": "0.5", "series": [places[i] for i in image_indices]}
        root.create_group("OME", attributes={"ome": series})
        xml = _create_ome_xml({places[i]: images[i] for i in image_indices})
        (folder / "OME" / "METADATA.ome.xml").write_text(xml, "utf-8")
    return [path / place for place in places]


def list_series(path: Path) -> list[Path]:
    """List the images of a multi-image store and label images from this package.

    In the order in which they were written; empty for any other store.
    """
    import zarr

    from napari_semsr.core import FolderStore

    try:
        root = zarr.open_group(FolderStore(path, read_only=True), mode="r")
    except (OSError, ValueError, TypeError, LookupError):
        return []
    attributes, _ = get_ome_attributes(root)
    if _LAYOUT not in attributes or "plate" in attributes:
        return []
    orders: dict[Path, int] = {}
    for number, name in enumerate(list_image_groups(path, root)):
        group: Any = root.get(name)  # if it is not a group, reading it says so
        own = get_package_attributes(group) if isinstance(group, zarr.Group) else {}
        order = own.get(_ORDER)
        orders[path / name] = order if type(order) is int else number
        labels: Any = own and group.get(LABELS)
        for label in labels.group_keys() if isinstance(labels, zarr.Group) else ():
            order = get_package_attributes(labels[label]).get(_ORDER)
            if type(order) is int:
                orders[path / name / LABELS / label] = order
    return sorted(orders, key=lambda place: orders[place])


def _create_ome_xml(images: dict[str, Micrograph]) -> str:
    """Describe numbered images as OME-XML, using its supported pixel types."""
    schema = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    types = {"float32": "float", "float64": "double", "bool": "bit", "float16": "float"}
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f'<OME xmlns="{schema}">']
    for place, image in images.items():
        rows, columns = image.shape
        kind = types.get(str(image.dtype), str(image.dtype))
        sizes = ""
        if image.pixel_size_nm is not None:
            y, x = image.pixel_size_nm
            sizes = (
                f' PhysicalSizeX="{x}" PhysicalSizeXUnit="nm"'
                f' PhysicalSizeY="{y}" PhysicalSizeYUnit="nm"'
            )
        pixels = (
            f'<Pixels ID="Pixels:{place}" DimensionOrder="XYZCT" Type="{kind}"'
            f' SizeX="{columns}" SizeY="{rows}" SizeZ="1" SizeC="1" SizeT="1"{sizes}>'
        )
        name = quoteattr(escape_invisible_characters(image.name))
        lines += [
            f'<Image ID="Image:{place}" Name={name}>',
            pixels,
            f'<Channel ID="Channel:{place}:0" SamplesPerPixel="1"/><MetadataOnly/>',
            "</Pixels></Image>",
        ]
    return "\n".join([*lines, "</OME>", ""])
