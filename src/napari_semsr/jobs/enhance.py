"""Enhance one plane tile by tile: read, run the model, write, tell what it cost.

A store is filled in place and stays resumable. Any other format is written from a
hidden store beside the output, which is removed once the output is whole.
"""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from napari_semsr.core import (
    Job,
    Micrograph,
    Progress,
    Provenance,
    Waiting,
    software_versions,
)
from napari_semsr.io import ReadOptions, filling_store, write_blocks
from napari_semsr.jobs.images import (
    Image,
    Result,
    check_tiled_target,
    digest_values,
    input_record,
    jsonable,
    name_of,
    open_image,
    paths_of,
)
from napari_semsr.jobs.models import DEFAULT_MODEL, find_model

if TYPE_CHECKING:
    from napari_semsr.inference import EnhanceOptions, EnhanceReport, LiveField
    from napari_semsr.io import OmeZarrStore
    from napari_semsr.models import LoadedModel

# Go on with a store that was begun another way: from a layer, or from a file.
#
# A layer is recorded by the digest of its grey values, a file by that of its bytes, and
# the store notes that of its grey values too. When the grey values are those that a
# store was begun with, it keeps what it says of its input.

_VALUES = "values"
"""Key of a store's note: the digest of the grey values that it is made of."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A result that was left before its end."""

    model: str  # Name of its model
    options: dict[str, Any]  # How it was run, as an `EnhanceOptions` takes it
    done: int  # Tiles that are finished, and all
    tiles: int  # Tiles that are finished, and all


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
    from napari_semsr.io import done_of, noted, recorded

    found = recorded(path)
    if found is None or noted(path).get("complete"):
        return None
    made, counts = found.provenance, done_of(path)
    if made is None or made.job != "enhance" or counts is None:
        return None
    options = {k: v for k, v in made.options.items() if k != "reading"}
    return Unfinished(made.model_name or "", options, *counts)


def _as_begun(
    place: Path, image: Image, source: Micrograph, provenance: Provenance
) -> tuple[Micrograph, Provenance]:
    """Name an input as the store that is to be resumed names it."""
    from napari_semsr.io import noted, recorded

    found = recorded(place)
    if found is None or found.provenance is None or len(found.provenance.inputs) != 1:
        return source, provenance
    before = found.provenance.inputs[0]
    of_file = not isinstance(image, Micrograph)
    if of_file and before.digest == provenance.inputs[0].digest:
        return source, provenance
    if digest_values(source) not in (before.digest, noted(place).get(_VALUES)):
        return source, provenance
    reading = found.provenance.options.get("reading")
    same = provenance.model_copy(
        update={
            "inputs": (before,),
            "options": {**provenance.options, "reading": reading},
        }
    )
    return source.replace(name=found.name), same


@dataclass(frozen=True, slots=True)
class EnhancedFile(Result):
    """What was written, and what it cost.

    Attributes
    ----------
    output : str
        Path of the file or store.
    shape : tuple of int
        Rows and columns; planes before them for a stack.
    dtype : str
        Type of the grey values in the output.
    pixel_size_nm : tuple of float or None
        ``(y, x)`` of the output; None when unknown.
    report : EnhanceReport
        Tiles, time, memory, device, model, and how well neighbouring tiles agree.
    provenance : Provenance
        Input, model, options, versions.
    """

    output: str
    shape: tuple[int, ...]
    dtype: str
    pixel_size_nm: tuple[float, float] | None
    report: "EnhanceReport"
    provenance: Provenance = field(metadata={"json": False})

    def to_json(self) -> dict[str, Any]:
        """Give the report as one flat record.

        Returns
        -------
        dict
            The engine's figures, with what was written.
        """
        return {
            **jsonable(self.report),
            "output": self.output,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "pixel_size_nm": jsonable(self.pixel_size_nm),
            "model_digest": self.provenance.model_digest,
        }


def enhance_plane(
    image: Image,
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    options: "EnhanceOptions | None" = None,
    opening: ReadOptions | None = None,
    overwrite: bool = False,
    resume: bool = False,
    scheduler: str | None = None,
    live: "LiveField | None" = None,
) -> Job[EnhancedFile]:
    """Enhance a plane into a store or a file."""
    held = psutil.Process().memory_info().rss
    yield Progress(0, 0, "checking")
    target = check_tiled_target(
        output, inputs=paths_of(image), overwrite=overwrite, resume=resume
    )
    path = find_model(model)
    source = open_image(image, opening)
    yield Progress(0, 0, f"loading the model {path.stem}")
    from napari_semsr.inference import (
        EnhanceOptions,
        create_output,
        enhance_to_store,
        plan_output,
        plan_run,
    )
    from napari_semsr.models import load_model

    chosen = options or EnhanceOptions()
    loaded = load_model(path)
    yield Progress(0, 0, f"recording the input {name_of(image)}")
    provenance = provenance_of(image, source, loaded, chosen, opening)
    place = filling_store(target)
    if resume:
        source, provenance = _as_begun(place, image, source, provenance)
    output_plan = (
        plan_output(source, loaded.card.model_dump(), chosen)
        if live is None
        else live.output
    )

    def make(place: Path) -> "OmeZarrStore":
        store = create_output(
            place,
            output_plan,
            name=source.name,
            provenance=provenance,
            overwrite=overwrite or place != target,
            resume=resume,
        )
        if _VALUES not in store.notes() and not isinstance(image, Micrograph):
            store.note(_VALUES, digest_values(source))
        return store

    def fill(store: "OmeZarrStore") -> Job["EnhanceReport"]:
        if scheduler is not None:
            yield Waiting(0, 0, f"connecting to the dask scheduler at {scheduler}")
        planned = yield from plan_run(
            source, output_plan, loaded, chosen, store=store, scheduler=scheduler
        )
        report = yield from enhance_to_store(planned, store, live=live)
        return report if scheduler else _told_of_memory(report, chosen, held)

    written = yield from write_blocks(target, make, fill, resumable=True)
    return EnhancedFile(
        output=str(target),
        shape=written.shape,
        dtype=written.dtype,
        pixel_size_nm=written.pixel_size_nm,
        report=written.told,
        provenance=provenance,
    )


def _told_of_memory(
    report: "EnhanceReport", options: "EnhanceOptions", held: int
) -> "EnhanceReport":
    """Add a note where a run took more than it was to take."""
    if options.memory_gb is None or report.device != "cpu":
        return report
    taken = report.peak_memory_mb / 1e3 - held / 1e9
    if taken <= options.memory_gb:
        return report
    said = (
        f"The run took {taken:.2g} GB, libraries included, and could not keep within "
        f"the {options.memory_gb:g} GB of memory_gb: it needs about {taken:.2g} GB."
    )
    return replace(report, notes=(*report.notes, said))


def provenance_of(
    image: Image,
    source: Micrograph,
    loaded: "LoadedModel",
    options: "EnhanceOptions",
    opening: ReadOptions | None,
) -> Provenance:
    """Record what makes an enhanced image."""
    reading = (opening or ReadOptions()).model_dump(mode="json")
    return Provenance(
        job="enhance",
        options={**options.model_dump(mode="json"), "reading": reading},
        inputs=(input_record(image, source, opening),),
        model_name=loaded.card.name,
        model_digest=loaded.digest,
        versions=software_versions(),
    )
