"""Start folders of file dialogs: the data folder or the last folder chosen for it."""

from pathlib import Path

from napari import current_viewer
from napari.utils.history import get_save_history, update_save_history

from napari_semsr.io import FOLDER_KEY
from napari_semsr.widgets.base.temporary import is_temporary
from napari_semsr.widgets.layers import get_file_path

_output_folders: dict[Path, Path] = {}  # last output folder of data in a folder


def get_start_folder() -> Path:
    """Return a dialog's start folder: the data folder or the last one chosen for it.

    Frames have their own folder; their results go next to it.
    """
    data = _find_data_folder()
    if data is None:
        return Path(get_save_history()[0])
    folder_chosen = _output_folders.get(data, data)
    return folder_chosen if folder_chosen.is_dir() else data


def _find_data_folder() -> Path | None:
    """Return the folder of the topmost layer that shows a user's file."""
    viewer = current_viewer()
    for layer in reversed([] if viewer is None else list(viewer.layers)):
        folder = layer.metadata.get(FOLDER_KEY) or get_file_path(layer)
        if folder and not is_temporary(str(folder)) and Path(folder).parent.is_dir():
            return Path(folder).parent
    return None


def remember_output_folder(path: Path) -> None:
    """Remember an output folder for later results of the same data."""
    update_save_history(str(path))
    data = _find_data_folder()
    if data is not None:
        _output_folders[data] = path.parent
