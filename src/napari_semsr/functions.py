"""Functions of the Python interface, generated from the commands.

``functions.pyi`` is written by ``scripts/write_stub.py``, for editors.
"""

from collections.abc import Callable

from napari_semsr.calls import get_function
from napari_semsr.jobs import FUNCTIONS


def __getattr__(name: str) -> Callable[..., object]:
    if name not in FUNCTIONS:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return get_function(FUNCTIONS[name])
