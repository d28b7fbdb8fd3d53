"""The OME-XML document of a TIFF: physical sizes, names, our own annotation."""

from typing import TYPE_CHECKING

from napari_semsr.core.micrograph import PixelSize
from napari_semsr.io.lengths import pixel_size, to_nm
from napari_semsr.io.record import RECORD_KEY, Record

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["ome_image", "ome_record", "parse_ome"]

_DEFAULT_UNIT = "\u00b5m"
_NO_LENGTH = ("pixel", "reference frame")


def parse_ome(text: str) -> "Element | None":
    """Parse an OME-XML document.

    Parameters
    ----------
    text : str
        The document.

    Returns
    -------
    xml.etree.ElementTree.Element or None
        Its root; None when it is damaged, or defines entities of its own, which could
        swell without bound.
    """
    from xml.etree import ElementTree as ET

    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return None
    try:
        return ET.fromstring(text.strip().rstrip("\0"))  # noqa: S314
    except ET.ParseError:
        return None


def _local(element: "Element") -> str:
    """Name of an element without its schema."""
    return element.tag.rpartition("}")[2]


def ome_image(
    root: "Element", series: int, warnings: list[str]
) -> tuple[PixelSize | None, str | None]:
    """Read ``PhysicalSizeX`` and ``PhysicalSizeY`` of an OME image.

    Parameters
    ----------
    root : xml.etree.ElementTree.Element
        The document.
    series : int
        Which image.
    warnings : list of str
        Receives a sentence when there is a calibration that cannot be used.

    Returns
    -------
    tuple
        Pixel size ``(y, x)`` in nm or None, and the image's name or None.
    """
    images = [e for e in root if _local(e) == "Image"]
    if series >= len(images):
        return None, None
    image = images[series]
    pixels = next((e for e in image if _local(e) == "Pixels"), None)
    if pixels is None:
        return None, image.get("Name")
    stated = [
        (
            pixels.get(f"PhysicalSize{a}"),
            pixels.get(f"PhysicalSize{a}Unit", _DEFAULT_UNIT),
        )
        for a in "YX"
    ]
    size = pixel_size([None if v is None else to_nm(v, u) for v, u in stated])
    given = [f"{v} {u}" for v, u in stated if v is not None and u not in _NO_LENGTH]
    if size is None and given:
        warnings.append(
            f"The OME physical size must be two positive lengths, got {given}: the "
            "pixel size is left unknown."
        )
    return size, image.get("Name")


def ome_record(root: "Element") -> Record | None:
    """Find our record among the annotations of a document.

    Parameters
    ----------
    root : xml.etree.ElementTree.Element
        The document.

    Returns
    -------
    Record or None
        None when there is none, or it is damaged.
    """
    for element in root.iter():
        if element.get("K") == RECORD_KEY and element.text:
            return Record.from_json(element.text)
    return None
