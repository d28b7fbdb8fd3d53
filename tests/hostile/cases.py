"""Every case by its name."""

from importlib.util import find_spec

from tests.hostile.commands import Commands, commands
from tests.hostile.documents import DOCUMENTS
from tests.hostile.exchange import EXCHANGE
from tests.hostile.images import IMAGES
from tests.hostile.play import LONGEST_S, Case
from tests.hostile.wellformed import WELL_FORMED

CASES: dict[str, Case] = {
    case.name: case
    for case in (*IMAGES, *DOCUMENTS, *EXCHANGE, *WELL_FORMED, *commands())
}

_NEEDS = {
    **dict.fromkeys(("onnx", "package"), ("onnx", "onnxruntime")),
    "hdf5": ("h5py",),
}


def is_verb(name: str) -> bool:
    """Tell cases that are command lines."""
    return isinstance(CASES[name], Commands)


def lacking(name: str) -> str | None:
    """Say why a case cannot be played here; None where it can."""
    absent = [
        one
        for one in _NEEDS.get(name.removeprefix("well-formed-"), ())
        if find_spec(one) is None
    ]
    return f"{' and '.join(absent)} not installed" if absent else None


def longest_of(name: str) -> float | None:
    """Give the seconds of processor time that an input may take.

    None for verbs and recipes: they run whole jobs, which may take long.
    """
    works = is_verb(name) or name == "well-formed-training"
    return None if works else LONGEST_S
