"""From superlens frames to a measured, SEM-like mosaic.

Every name of the public interface is imported when it is first used, so that importing
the package loads neither torch nor a graphical toolkit.
"""

import warnings
from typing import Any

import lazy_loader

_public, _names, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]

_FORMER = {
    "cut_pairs": "pairs",
    "restore_image": "restore",
    "simulate_scan": "simulate",
    "stitch_frames": "stitch",
}
"""Names of version 0.1 for what is now called as its command."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("napari-semsr")
    if name in _FORMER:
        msg = f"napari_semsr.{name} is now napari_semsr.{_FORMER[name]}."
        warnings.warn(msg, DeprecationWarning, stacklevel=2)
        name = _FORMER[name]
    return _public(name)


def __dir__() -> list[str]:
    return [*_names(), "__version__"]
