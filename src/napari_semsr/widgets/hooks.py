"""Readers and samples for the plugin engine; readers also work without napari."""

import gc
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any

from napari_semsr import core
from napari_semsr.io import get_reader as read_files, is_preferred_reader, read_paths

if TYPE_CHECKING:
    from napari_semsr.core import Micrograph

Paths = str | Sequence[str]
Reader = Callable[[Any], Sequence[tuple[object, ...]]]  # from paths to layers
# the plugin engine's sign for a file without layers
_NO_LAYERS: Sequence[tuple[object, ...]] = [(None,)]
# refusals of undamaged content that the panels do not take either
_OTHERS = {
    "format-unknown",
    "format-unsupported",
    "no-image",
    "too-few-frames",
    "too-many-planes",
}


def get_reader(path: Paths) -> Reader | None:
    """Return a reader for this plugin's files, which also shows colour bars.

    napari names the reader that its user has chosen, which therefore reads whatever the
    panels read, and calls napari's own reader for the rest. Other programs try one
    reader after another: for them, None is returned for other folders, colour images,
    more than three axes and complex values.
    """
    if sys.modules.get("napari"):
        return _read_in_napari
    return read_files(path) if is_preferred_reader(path) else None


def _read_in_napari(path: Paths) -> Sequence[tuple[object, ...]]:
    """Read layers, report warnings and errors as panels do, and set up the viewer.

    napari would show an exception with its traceback.
    """
    from napari.utils.notifications import show_error

    from napari_semsr.widgets.base import convert_names_to_panel_labels, relabel_errors
    from napari_semsr.widgets.host import is_opening_from_window

    sentences: list[str] = []
    layers: Sequence[tuple[object, ...]]
    try:
        with relabel_errors(), core.capture_warnings(sentences.append):
            layers = read_paths(path)
    except core.SemsrError as error:
        layers = _read_by_napari(path) if core.get_error_code(error) in _OTHERS else []
        if not layers and not is_opening_from_window():
            raise
        if not layers:
            show_error(str(error))
            return _NO_LAYERS
    for sentence in sentences:
        text = convert_names_to_panel_labels(sentence)
        core.warn(text, core.get_error_code(sentence))
    watch_viewer()
    return layers


def _read_by_napari(path: Paths) -> Sequence[tuple[object, ...]]:
    """Read layers by napari's own reader; return none if it cannot read them."""
    from npe2 import read

    paths = [path] if isinstance(path, str) else list(path)
    # of a mixed folder, napari reads the first file, and fails on others when shown
    if isinstance(path, str) and Path(path).is_dir() and not path.endswith(".zarr"):
        files = (item for item in core.list_folder(Path(path)) if item.is_file())
        if len({item.suffix for item in files}) > 1:
            return []
    layers: Sequence[tuple[object, ...]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries that it tries in vain
        with suppress(Exception):  # whatever they raise; our own refusal has the reason
            layers = read(paths, stack=not isinstance(path, str), plugin_name="napari")
        gc.collect()  # closes the files that they leave open
    return [] if any(layer[0] is None for layer in layers) else layers


# Samples of napari's File menu, as calibrated layers.

LayerData = tuple[object, dict[str, Any], str]


def watch_viewer() -> None:
    """Set up the current viewer, if there is one, for new layers."""
    from napari import current_viewer

    viewer = current_viewer()
    if viewer is not None:
        from napari_semsr.widgets.base import watch_images

        watch_images(viewer)


def _create_layer_data(*micrographs: "Micrograph") -> list[LayerData]:
    from napari_semsr.widgets.layers import create_layer_keywords

    if current_thread() is main_thread():  # a panel's job may not touch the window
        watch_viewer()
    return [(item.data, create_layer_keywords(item), "image") for item in micrographs]


def degraded_and_truth() -> list[LayerData]:
    """Simulate an SEM-like image and a degraded copy: blurred, hazy and noisy."""
    from napari_semsr.jobs import simulate_exposure, simulate_specimen

    truth = simulate_specimen()
    image = simulate_exposure(truth, noise_seed=1, name="degraded")
    return _create_layer_data(truth, image)


def two_exposures() -> list[LayerData]:
    """Simulate two exposures of one field of view with independent noise, for FRC."""
    from napari_semsr.jobs import simulate_exposure, simulate_specimen

    truth = simulate_specimen()
    first = simulate_exposure(truth, noise_seed=1, name="first exposure")
    second = simulate_exposure(truth, noise_seed=2, name="second exposure")
    return _create_layer_data(first, second)


def gold_pair() -> list[LayerData]:
    """Simulate gold on carbon at two magnifications of the same field of view."""
    from napari_semsr.jobs import simulate_gold_pair as draw_gold_pair

    return _create_layer_data(*reversed(draw_gold_pair()))


def superlens_scan() -> list[LayerData]:
    """Simulate a superlens scan in a temporary folder, and return its frames.

    They are round and vignetted; the ground truth is next to them.
    """
    from napari_semsr.core import run
    from napari_semsr.io import create_scan_layers, open_frames
    from napari_semsr.jobs import SIMULATE, SimulateOptions
    from napari_semsr.widgets.base import find_free_store_path

    folder = find_free_store_path("ssum-scan", suffix="")
    options = SimulateOptions(
        phantom="particles",
        frames_grid=(4, 4),
        overlap=0.6,  # so that half the frames cover much of what the others do
        jitter_px=8.0,
        illumination_drift=0.2,
    )
    run(SIMULATE.job(out_dir=folder, options=options))
    watch_viewer()
    return create_scan_layers(run(open_frames(folder)), folder)


def optical_and_sem(seed: int = 0) -> list[LayerData]:
    """Simulate an area in two microscopes: a stitched optical scan and an SEM image.

    The SEM image has its own pixel size, field and rotation, and is not registered: the
    true transform is in the scan's folder.
    """
    from napari_semsr.core import run
    from napari_semsr.io import STORE_KEY, read
    from napari_semsr.jobs import SIMULATE, STITCH, SimulateOptions
    from napari_semsr.widgets.base import find_free_store_path

    folder = find_free_store_path("one-place-scan", suffix="")
    mosaic = find_free_store_path("one-place-mosaic")
    options = SimulateOptions(
        phantom="circuit",
        frames_grid=(4, 4),
        frame_px=192,
        overlap=0.45,
        relief_nm=40.0,  # thin: light of higher wires cancels that of their ground
        focus_nm=40.0,
        illumination_drift=0.1,
        sem_view=True,
        seed=seed,
    )
    run(SIMULATE.job(out_dir=folder, options=options))
    run(STITCH.job(folder, mosaic))
    paths = {"optical mosaic": mosaic, "SEM image": folder / "sem" / "view.tif"}
    images = ((name, read(path)) for name, path in paths.items())
    named = (i.replace(name=name, data=i.array()) for name, i in images)
    layers = _create_layer_data(*named)
    for (_, attributes, _), path in zip(layers, paths.values(), strict=True):
        attributes["metadata"] |= {STORE_KEY: str(path.resolve())}
    return layers
