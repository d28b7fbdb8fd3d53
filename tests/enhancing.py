"""A field into a store, as the jobs do it: plan, make the store, run."""

from pathlib import Path
from typing import Any

import numpy as np

from napari_semsr.core import IntPair, Job, Micrograph, TilePlan
from napari_semsr.inference import LiveField, enhance_to_store, plan_run
from napari_semsr.inference.network_input import plan_field_tiles
from napari_semsr.inference.options import (
    EnhanceOptions,
    EnhanceReport,
    OutputPlan,
    create_output_store,
    plan_output,
)
from napari_semsr.io.zarr_store import OmeZarrStore
from napari_semsr.models import LoadedModel, ProbeResult


def output_of(
    image: Micrograph, loaded: LoadedModel, options: EnhanceOptions
) -> OutputPlan:
    """Lay out the result."""
    return plan_output(image, loaded.card.model_dump(), options)


def tiles_of(
    shape: IntPair, loaded: LoadedModel, probe: ProbeResult, options: EnhanceOptions
) -> TilePlan:
    """Cut a field at the model's pixel size into tiles."""
    field = np.broadcast_to(np.uint8(0), shape)
    output = output_of(Micrograph(field), loaded, options)
    return plan_field_tiles(field, output, loaded.card, probe)[0]


def store_for(
    path: Path,
    image: Micrograph,
    loaded: LoadedModel,
    options: EnhanceOptions,
    **how: Any,
) -> OmeZarrStore:
    """Make or reopen the store of a run."""
    output = output_of(image, loaded, options)
    return create_output_store(path, output, name=image.name, **how)


def fill(
    image: Micrograph,
    loaded: LoadedModel,
    store: OmeZarrStore,
    options: EnhanceOptions,
    *,
    scheduler: str | None = None,
    live: LiveField | None = None,
) -> Job[EnhanceReport]:
    output = output_of(image, loaded, options)
    planned = yield from plan_run(
        image, output, loaded, options, store=store, scheduler=scheduler
    )
    return (yield from enhance_to_store(planned, store, live=live))
