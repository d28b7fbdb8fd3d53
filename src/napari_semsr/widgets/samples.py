"""Sample data of the File menu, as calibrated layers."""

from typing import Any

__all__ = ["degraded_and_truth", "gold_pair", "superlens_scan", "two_exposures"]

LayerData = tuple[Any, dict[str, Any], str]


def _layers(micrographs: Any) -> list[LayerData]:
    from napari_semsr.widgets._layers import layer_keywords

    return [(item.data, layer_keywords(item), "image") for item in micrographs]


def degraded_and_truth() -> list[LayerData]:
    """Make an SEM-like image and its degraded twin.

    Returns
    -------
    list of tuple
        Truth and degraded image, as layer data.
    """
    from napari_semsr.services import samples

    return _layers(reversed(samples.degraded_and_truth()))


def two_exposures() -> list[LayerData]:
    """Make two exposures of one field with independent noise.

    Returns
    -------
    list of tuple
        Both exposures, as layer data.
    """
    from napari_semsr.services import samples

    return _layers(samples.two_exposures())


def gold_pair() -> list[LayerData]:
    """Make gold on carbon at two magnifications, one over the other.

    Returns
    -------
    list of tuple
        Fine and coarse image, as layer data.
    """
    from napari_semsr.services import samples

    return _layers(reversed(samples.gold_pair()))


def superlens_scan() -> list[LayerData]:
    """Simulate a superlens scan into a temporary folder, and show its frames.

    Returns
    -------
    list of tuple
        Frames at their nominal places and their outlines, as layer data; the panel
        *Stitch mosaic* finds the folder by them.
    """
    from napari_semsr.core.progress import run
    from napari_semsr.io.scan_layers import read_scan_layers
    from napari_semsr.services import samples
    from napari_semsr.widgets._cache import new_folder_path

    folder = new_folder_path("ssum-scan")
    run(samples.superlens_scan(folder))
    return read_scan_layers(str(folder))
