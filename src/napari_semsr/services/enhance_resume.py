"""Go on with a store that was begun another way: from a layer, or from a file.

A layer is recorded by the digest of its grey values, a file by that of its bytes, and
the store notes that of its grey values too. When the grey values are those that a store
was begun with, it keeps what it says of its input.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.provenance import Provenance
from napari_semsr.services.opening import Image, digest_values

__all__ = ["VALUES", "Unfinished", "as_begun", "unfinished"]

VALUES = "values"
"""Key of a store's note: the digest of the grey values that it is made of."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A result that was left before its end.

    Attributes
    ----------
    model : str
        Name of its model.
    options : dict
        How it was run, as an `EnhanceOptions` takes it.
    done, tiles : int
        Tiles that are finished, and all.
    """

    model: str
    options: dict[str, Any]
    done: int
    tiles: int


def unfinished(path: Path) -> Unfinished | None:
    """Read how a store was begun that is not finished.

    Parameters
    ----------
    path : pathlib.Path
        The store; it need not exist.

    Returns
    -------
    Unfinished or None
        None for what is finished, or was not made by `enhance`.
    """
    from napari_semsr.io.zarr_state import done_of, noted
    from napari_semsr.io.zarr_store import recorded

    found = recorded(path)
    if found is None or noted(path).get("complete"):
        return None
    made, counts = found.provenance, done_of(path)
    if made is None or made.job != "enhance" or counts is None:
        return None
    options = {k: v for k, v in made.options.items() if k != "reading"}
    return Unfinished(made.model_name or "", options, *counts)


def as_begun(
    place: Path, image: Image, source: Micrograph, provenance: Provenance
) -> tuple[Micrograph, Provenance]:
    """Name an input as the store that is to be resumed names it.

    Parameters
    ----------
    place : pathlib.Path
        The store; it need not exist.
    image : Micrograph or path
        What was given.
    source : Micrograph
        The same, opened.
    provenance : Provenance
        What would be recorded of it.

    Returns
    -------
    Micrograph
        With the name that the store has, if its grey values are the same.
    Provenance
        With the input that the store has, if its grey values are the same.
    """
    from napari_semsr.io.zarr_state import noted
    from napari_semsr.io.zarr_store import recorded

    found = recorded(place)
    if found is None or found.provenance is None or len(found.provenance.inputs) != 1:
        return source, provenance
    before = found.provenance.inputs[0]
    of_file = not isinstance(image, Micrograph)
    if of_file and before.digest == provenance.inputs[0].digest:
        return source, provenance
    if digest_values(source) not in (before.digest, noted(place).get(VALUES)):
        return source, provenance
    reading = found.provenance.options.get("reading")
    same = provenance.model_copy(
        update={
            "inputs": (before,),
            "options": {**provenance.options, "reading": reading},
        }
    )
    return source.replace(name=found.name), same
