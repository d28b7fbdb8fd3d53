"""Reader functions for the plugin engine, with or without napari."""

import gc
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from napari_semsr import core
from napari_semsr.io import get_reader as read_files, is_preferred_reader, read_paths

Paths = str | Sequence[str]
Reader = Callable[[Any], list[Any]]  # from paths to layers
_NO_LAYERS = [(None,)]  # the plugin engine's sign for a file without layers
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


def _read_in_napari(path: Paths) -> list[Any]:
    """Read layers, report warnings and errors as panels do, and set up the viewer.

    napari would show an exception with its traceback.
    """
    from napari.utils.notifications import show_error

    from napari_semsr.widgets.base import convert_names_to_panel_labels, relabel_errors
    from napari_semsr.widgets.host import is_opening_from_window
    from napari_semsr.widgets.samples import watch_viewer

    sentences: list[str] = []
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
        core.warn(
            convert_names_to_panel_labels(sentence), core.get_error_code(sentence)
        )
    watch_viewer()
    return layers


def _read_by_napari(path: Paths) -> list[Any]:
    """Read layers by napari's own reader; return none if it cannot read them."""
    from npe2 import read

    paths = [path] if isinstance(path, str) else list(path)
    # of a mixed folder, napari reads the first file, and fails on others when shown
    if isinstance(path, str) and Path(path).is_dir() and not path.endswith(".zarr"):
        files = (item for item in core.list_folder(Path(path)) if item.is_file())
        if len({item.suffix for item in files}) > 1:
            return []
    layers: list[Any] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries that it tries in vain
        with suppress(Exception):  # whatever they raise; our own refusal has the reason
            layers = read(paths, stack=not isinstance(path, str), plugin_name="napari")
        gc.collect()  # closes the files that they leave open
    return [] if any(layer[0] is None for layer in layers) else layers
