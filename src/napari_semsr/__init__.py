"""Stitching, enhancement and measurement of superlens and SEM images.

Every name of the public interface is imported when it is first used, so that importing
the package loads neither torch nor a graphical toolkit.
"""

from pathlib import Path
from typing import Any

import lazy_loader

_public, _names, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("napari-semsr")
    try:
        return _public(name)
    except AttributeError:
        is_room = Path(__file__).with_name(name).is_dir()  # which is imported next
        if name in __all__ or name.startswith("_") or is_room:
            raise
        from difflib import get_close_matches

        from napari_semsr.jobs import describe_former_name

        if sentence := describe_former_name(name, f"napari_semsr.{name}"):
            raise AttributeError(sentence) from None
        near = get_close_matches(name, __all__, 1)
        hint = f"; did you mean {near[0]}?" if near else "."
        msg = f"napari_semsr has no function or class {name}{hint}"
        raise AttributeError(msg) from None


def __dir__() -> list[str]:
    return [*_names(), "__version__"]
