"""The user's own folders, where each system has them."""

from pathlib import Path

import platformdirs

_NAME = "napari-semsr"


def user_data_folder() -> Path:
    """Give the folder for models and runs, which a user wants to keep."""
    new = platformdirs.user_data_path(_NAME, appauthor=False)
    return kept_folder(new, Path.home() / ".local" / "share" / _NAME)


def user_cache_folder() -> Path:
    """Give the folder for what can be made again."""
    return platformdirs.user_cache_path(_NAME, appauthor=False)


def kept_folder(new: Path, old: Path) -> Path:
    """Choose the folder of an earlier version where only that is there.

    Up to 0.1 all systems had the folder of Linux.
    """
    return old if old.is_dir() and not new.exists() else new
