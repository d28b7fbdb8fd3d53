"""Sample data of the File menu, as calibrated layers."""

from typing import Any

LayerData = tuple[Any, dict[str, Any], str]


def _layers(micrographs: Any) -> list[LayerData]:
    from napari_semsr.widgets.layers import layer_keywords

    return [(item.data, layer_keywords(item), "image") for item in micrographs]


def degraded_and_truth() -> list[LayerData]:
    """Make an SEM-like image and its degraded twin."""
    from napari_semsr.jobs import degraded_and_truth as draw_degraded_and_truth

    return _layers(reversed(draw_degraded_and_truth()))


def two_exposures() -> list[LayerData]:
    """Make two exposures of one field with independent noise."""
    from napari_semsr.jobs import two_exposures as draw_two_exposures

    return _layers(draw_two_exposures())


def gold_pair() -> list[LayerData]:
    """Make gold on carbon at two magnifications, one over the other."""
    from napari_semsr.jobs import gold_pair as draw_gold_pair

    return _layers(reversed(draw_gold_pair()))


def superlens_scan() -> list[LayerData]:
    """Simulate a superlens scan into a temporary folder, and show its frames."""
    from napari_semsr.core import run
    from napari_semsr.io import read_scan_layers
    from napari_semsr.jobs import superlens_scan as draw_superlens_scan
    from napari_semsr.widgets.base import new_store_path

    folder = new_store_path("ssum-scan", suffix="")
    run(draw_superlens_scan(folder))
    return read_scan_layers(str(folder))
