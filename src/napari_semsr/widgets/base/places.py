"""Start folders of file dialogs: next to the data, or the last choice for them."""

from pathlib import Path

from napari import current_viewer
from napari.utils.history import get_save_history, update_save_history

from napari_semsr.io import FOLDER_KEY
from napari_semsr.widgets.base.temporary import is_temporary
from napari_semsr.widgets.layers import file_of

_output_folders: dict[Path, Path] = {}  # last output folder of data in a folder


def begin_at() -> Path:
    """Return the start folder of a dialog: that of the data, or its last choice.

    Frames have their own folder; their results go next to it.
    """
    data = _data_folder()
    if data is None:
        return Path(get_save_history()[0])
    folder_chosen = _output_folders.get(data, data)
    return folder_chosen if folder_chosen.is_dir() else data


def _data_folder() -> Path | None:
    """Return the folder of the topmost layer that shows a user's file."""
    viewer = current_viewer()
    for layer in reversed([] if viewer is None else list(viewer.layers)):
        folder = layer.metadata.get(FOLDER_KEY) or file_of(layer)
        if folder and not is_temporary(str(folder)) and Path(folder).parent.is_dir():
            return Path(folder).parent
    return None


def note_chosen(path: Path) -> None:
    """Remember an output folder, for later results of the same data."""
    update_save_history(str(path))
    data = _data_folder()
    if data is not None:
        _output_folders[data] = path.parent
