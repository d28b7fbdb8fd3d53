"""Go on with a store that was begun another way: from a layer, or from a file.

A layer is recorded by the digest of its grey values, a file by that of its bytes. When
the grey values of a file are those of the layer that a store was begun with, the store
keeps what it says of its input.
"""

from pathlib import Path

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.provenance import Provenance
from napari_semsr.services.opening import Image, input_record

__all__ = ["as_begun"]


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
    from napari_semsr.io.zarr_store import recorded

    found = recorded(place)
    if found is None or found.provenance is None or len(found.provenance.inputs) != 1:
        return source, provenance
    before = found.provenance.inputs[0]
    of_file = not isinstance(image, Micrograph)
    if of_file and before.digest == provenance.inputs[0].digest:
        return source, provenance
    if before.digest != input_record(source, source).digest:
        return source, provenance
    reading = found.provenance.options.get("reading")
    same = provenance.model_copy(
        update={
            "inputs": (before,),
            "options": {**provenance.options, "reading": reading},
        }
    )
    return source.replace(name=found.name), same
