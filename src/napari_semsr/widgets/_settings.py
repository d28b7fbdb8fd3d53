"""What the user set under Preferences; the manifest holds the defaults."""

from collections.abc import Mapping
from typing import Any

__all__ = ["DEFAULTS", "preference"]

PLUGIN = "napari-semsr"
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "computing": {"device": "auto", "tile_px": 0, "precision": "auto"},
    "storage": {"cache_folder": "", "cache_gib": 4.0},
}
"""The same values as ``configurations`` in the manifest; a test holds them equal."""


def preference(category: str, name: str) -> Any:
    """Read one setting.

    Parameters
    ----------
    category, name : str
        Its place in `DEFAULTS`.

    Returns
    -------
    object
        The user's value, or the default where napari is too old for plugin
        settings (before 0.9) or does not know this plugin.
    """
    default = DEFAULTS[category][name]
    try:
        from napari.settings import get_plugin_settings
    except ImportError:
        return default
    try:
        group = getattr(get_plugin_settings(PLUGIN), category)
        return getattr(group, name)
    except (AttributeError, KeyError):
        return default
