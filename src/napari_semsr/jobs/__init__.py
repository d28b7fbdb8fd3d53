"""Jobs: generators that yield `Progress`, shared by panels and commands.

A command has its name in capitals here, as its module has that of its function.
"""

import ast
from importlib import import_module
from pathlib import Path

_PLACES = {}
for _node in ast.parse(Path(__file__).with_suffix(".pyi").read_text("utf-8")).body:
    match _node:
        case ast.ImportFrom(module=_module, names=_names):
            _PLACES |= {one.asname: (_module, one.name) for one in _names}
        case ast.Assign(targets=[ast.Name(id=_name)], value=ast.Name(id=_own)):
            _PLACES[_name] = _PLACES.pop(_own)
__all__ = sorted(_PLACES)


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    module, own_name = _PLACES[name]
    value = globals()[name] = getattr(import_module(f".{module}", __name__), own_name)
    return value


def __dir__() -> list[str]:
    return __all__
