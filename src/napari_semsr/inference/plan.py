"""What is measured and decided before the first tile of a run."""

from collections.abc import Mapping
from typing import Any

from napari_semsr.core import Job, Micrograph, Progress, Provenance, any_finite
from napari_semsr.inference.haze import find_haze
from napari_semsr.inference.layout import OutputPlan, plan_output
from napari_semsr.inference.normalise import measure_scaling
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.resample import plan_network_input
from napari_semsr.inference.strategy import choose_strategy
from napari_semsr.inference.tiles import EnhancePlan, ExecutionStrategy
from napari_semsr.models import LoadedModel


def plan_enhance(
    micrograph: Micrograph,
    loaded: LoadedModel,
    options: EnhanceOptions,
    predictor: Predictor,
    *,
    output: OutputPlan | None = None,
    before: Mapping[str, Any] | None = None,
    scattered: bool = False,
    strategy: ExecutionStrategy | None = None,
    apart: bool = False,
    provenance: Provenance | None = None,
) -> Job[EnhancePlan]:
    """Measure what holds for the whole field, and decide how it is run."""
    yield Progress(0, 0, "Measuring the grey values")
    card, probe = loaded.card, predictor.probe_within(options.halo_tolerance)
    output = output or plan_output(micrograph, card.model_dump(), options)
    constant = predictor.device.type != "cpu" and not apart
    seen = plan_network_input(micrograph, output, card, probe, constant=constant)
    predictor.choose_batch(seen.tiles.tile(0, 0).window.shape, options.batch)
    if strategy is None:
        strategy = choose_strategy(
            predictor, options, seen.tiles, before, scattered=scattered
        )
    if apart and (strategy.kind == "whole" or predictor.probe.halo is None):
        side = max(*micrograph.shape, *seen.tiles.padded_shape)
        output = plan_output(micrograph, card.model_dump(), options, tile=side)
        seen = plan_network_input(micrograph, output, card, predictor.probe)
    notes = (*((output.fit.note,) if output.fit.note else ()), *strategy.notes)
    yield from (Progress(0, 0, note) for note in notes)
    back = card.grey == "input"
    scaling = measure_scaling(seen.data, card.input_percentiles, back=back)
    haze = None
    if options.haze:
        yield Progress(0, 0, "Looking for haze")
        haze = find_haze(seen.data, loaded.module, scaling)
    if scaling.low == scaling.high == 0 and not any_finite(micrograph.data):
        notes += ("The image has no finite pixel, nor has the result.",)
    return EnhancePlan(
        loaded=loaded,
        options=options,
        source=(micrograph.shape, micrograph.dtype.str),
        output=output,
        data=seen.data,
        tiles=seen.tiles,
        regrid=seen.regrid,
        strategy=strategy,
        scaling=scaling,
        haze=haze,
        provenance=provenance,
        notes=notes,
    )
