"""What is measured and decided before the first tile of a run.

Above all, how a network gets over a field: in tiles, or whole.
"""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from napari_semsr.core import (
    DeviceMemoryError,
    IntPair,
    Job,
    Message,
    Micrograph,
    OptionError,
    Progress,
    ReadError,
    TilePlan,
    WriteError,
    current_value,
    is_empty,
    mirror_condition,
    override_condition,
    round_up,
)
from napari_semsr.inference.ensemble import FLIPS, SelfEnsemble, ensemble_of
from napari_semsr.inference.layout import OutputPlan, TrainedPixelSizes, fit_pixels
from napari_semsr.inference.network_input import (
    FieldSurvey,
    Scaling,
    SeenField,
    cut_field,
    field_spectrum,
    scaling_of,
    see_field,
    survey_field,
)
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.sampled import SampledStatistics, measure_sample
from napari_semsr.inference.tiles import EnhancePlan, ExecutionStrategy, Sink, TiledRun
from napari_semsr.models import (
    InformedRestorer,
    LoadedModel,
    free_memory,
    widest_blur,
)

_DEEP_HALO = 192  # pixels of halo from which the narrower one is tried; chosen
_SAMPLED = "frozen"  # its name in stores
_LARGEST_SIDE = 2048  # px that share a window: the margin is a ninth of the work then
# for a window, where nobody says: with what is loaded, a run stays below 1.5 GB
_SHARE_OF_FREE, _MOST_BYTES = 0.25, 1.1e9


def plan_enhance(
    micrograph: Micrograph,
    output: OutputPlan,
    model: LoadedModel,
    options: EnhanceOptions,
    predictor: Predictor,
    *,
    before: Mapping[str, Any] | None = None,
    is_scattered: bool = False,
    strategy: ExecutionStrategy | None = None,
    apart: bool = False,
) -> Job[EnhancePlan]:
    """Measure what holds for the whole field, and decide how it is run.

    `before`: what an interrupted run kept of its strategy; `is_scattered`: whether
    tiles go to other processes; `apart`: whether each is asked for on its own, at any
    time, so that what cannot be run in tiles is made one.
    """
    yield Progress(0, 0, "Measuring the grey values")
    card, probe = model.card, predictor.probe_within(options.halo_tolerance)
    field = see_field(micrograph, output.fit)
    shown_field = field.shown
    constant = predictor.device.type != "cpu" and not apart
    tiles, regrid = cut_field(shown_field, output, card, probe, constant=constant)
    predictor.choose_batch(tiles.tile(0, 0).window.shape, options.batch)
    if strategy is None:
        strategy = choose_strategy(
            predictor, options, tiles, before, is_scattered=is_scattered
        )
    if apart and (strategy.kind == "whole" or predictor.probe.halo is None):
        side = max(output.frame.shape) // output.scale
        output = replace(output, core=round_up(side, card.stride))
        tiles, regrid = cut_field(shown_field, output, card, predictor.probe)
    notes = (*filter(None, (output.fit.note, field.note)), *strategy.notes)
    yield from (Progress(0, 0, note) for note in notes)
    scaling = scaling_of(field.measured, card)
    is_fixed = card.input_scaling == "levels"  # and measured nothing
    if (is_fixed or scaling.low == scaling.high == 0) and is_empty(micrograph.data):
        msg = (
            f"An image to enhance needs finite pixels, and {micrograph.name} has none: "
            "see whether it was written, or copied, whole."
        )
        raise ReadError(msg, code="no-finite-values")
    survey = FieldSurvey()
    _check_weights(model, options)
    if isinstance(model.module, InformedRestorer):
        yield Progress(0, 0, "Looking at the whole field")
        # a lift that errs costs a filter for a known blur more than it gains
        certain = model.module.sharpener is not None and bool(options.blur_px)
        survey = survey_field(
            field.measured, model.module, scaling, haze=options.haze, certain=certain
        )
        model, survey = _tell_network(model, survey, options, (field.measured, scaling))
    if options.self_ensemble and not isinstance(model.module, SelfEnsemble):
        model = replace(model, module=ensemble_of(model.module))
    return EnhancePlan(
        loaded=model,
        options=options,
        source=(micrograph.shape, micrograph.dtype.str),
        output=output,
        data=shown_field,
        tiles=tiles,
        regrid=regrid,
        strategy=strategy,
        scaling=scaling,
        haze=survey.haze,
        condition=survey.condition,
        notes=notes,
    )


_WEIGHTS = ("strength", "denoise", "deblur", "dehaze", "noise_percent", "blur_px")


def _check_weights(model: LoadedModel, options: EnhanceOptions) -> None:
    usual = EnhanceOptions()
    option_names = [n for n in _WEIGHTS if getattr(options, n) != getattr(usual, n)]
    if option_names and not isinstance(model.module, InformedRestorer):
        names = ", ".join(name.replace("_", " ") for name in option_names)
        msg = (
            f"Model {model.card.name} does not tell noise, blur and haze apart: leave "
            f"{names} as it is, or take one of architecture informed."
        )
        raise OptionError(msg, code="option-without-effect")


def _tell_network(
    model: LoadedModel,
    survey: FieldSurvey,
    options: EnhanceOptions,
    field: tuple[Any, Scaling],
) -> tuple[LoadedModel, FieldSurvey]:
    """Follow the user's weights, and make the network for the field that was found.

    `field`: the field and its scaling, of which a sharpener needs the spectrum.
    """
    share = options.strength * options.dehaze
    haze = None if survey.haze is None else survey.haze.weigh(share)
    module, condition = model.module, survey.condition
    if isinstance(module, InformedRestorer) and condition is not None:
        percent, blur = options.noise_percent, options.blur_px
        noise = None if percent is None else percent / 100
        spectrum = None
        # not by the width that is found: a sample soft by nature is read as blurred
        if module.sharpener is not None and blur:
            spectrum = field_spectrum(*field, haze)
            blur = widest_blur(spectrum, blur, noise)
        condition = override_condition(condition, noise, blur)
        mender = partial(
            module.mender,
            rings=torch.tensor(survey.rings),
            denoise=options.strength * options.denoise,
            deblur=0.0 if blur == 0 else options.strength * options.deblur,
            noise=noise,
        )
        network: nn.Module = mender(torch.tensor(condition), spectrum=spectrum)
        if options.self_ensemble:
            if spectrum is not None:
                spectrum = spectrum.flip(0).roll(1, 0)
            about = mender(torch.tensor(mirror_condition(condition)), spectrum=spectrum)
            networks = [network if t.rows == t.columns else about for t in FLIPS]
            network = SelfEnsemble(networks, FLIPS)
        model = replace(model, module=network)
    return model, FieldSurvey(haze, condition)


def told_of_field(
    micrograph: Micrograph, model: LoadedModel, options: EnhanceOptions
) -> tuple[LoadedModel, tuple[float, ...] | None]:
    """Make the network that runs on one field's tiles, and say what it was told.

    A network that surveys fields becomes a plain one for this field, whose haze is not
    looked for; any other comes back as it is. Beside it stands what ails the field, in
    the order of `core.FAULTS`; None where nothing was looked for.
    """
    field, scaling = field_for_model(micrograph, model, options)
    measured_field = field.measured
    survey = survey_field(measured_field, model.module, scaling, haze=False)
    model, survey = _tell_network(model, survey, options, (measured_field, scaling))
    return model, survey.condition


def field_for_model(
    micrograph: Micrograph, model: LoadedModel, options: EnhanceOptions
) -> tuple[SeenField, Scaling]:
    """Give a field on a network's grid, and the scaling of its grey values."""
    trained_sizes = TrainedPixelSizes.from_card(model.card.model_dump())
    fit = fit_pixels(micrograph.pixel_size_nm, trained_sizes, options.resample)
    field = see_field(micrograph, fit)
    return field, scaling_of(field.measured, model.card)


def choose_strategy(
    predictor: Predictor,
    options: EnhanceOptions,
    plan: TilePlan,
    before: Mapping[str, Any] | None = None,
    *,
    is_scattered: bool = False,
    fits: bool | None = None,
) -> ExecutionStrategy:
    """Choose whether a field is run whole or in tiles, and whose statistics they take.

    `before`: what an interrupted run kept of its choice; `is_scattered`: whether tiles
    go to other processes; `fits`: whether memory suffices for the field as one, where a
    pass has shown that it does not. Raises DeviceMemoryError where only one pass gives
    what was asked for, and memory does not suffice.
    """
    probe, record = predictor.probe, before or {}
    previous = current_value("norm", record.get("norm"))
    if record.get("kind") == "lockstep" or (
        record.get("kind") == "tiles" and previous == "whole"
    ):
        msg = (
            "This run was begun layer by layer, which is not done any more: use "
            "`overwrite` to start anew."
        )
        raise WriteError(msg, code="other-version")
    is_bounded = not probe.norms and probe.halo is not None
    if is_bounded and (options.halo_tolerance or (probe.halo or 0) <= _DEEP_HALO):
        notes = _narrower(probe.halo, options, plan)
        return ExecutionStrategy("none", "tiles", notes)
    if not is_bounded and options.norm in ("tile", "sampled"):
        return _as_asked(predictor, options)
    if record.get("kind") == "tiles" or (is_bounded and is_scattered):
        return ExecutionStrategy("none" if is_bounded else "sampled", "tiles")
    need = f"{predictor.peak_bytes(plan.padded_shape) / 1e9:.2g} GB"
    if fits is None:
        fits = predictor.fits(plan.padded_shape, options.memory_gb)
    if fits:
        sentence = f"The field is run whole, with {need} of layers."
        notes = (Message(sentence, "run-whole"),)
        return ExecutionStrategy("none" if is_bounded else "whole", "whole", notes)
    if is_bounded:
        return ExecutionStrategy("none", "tiles")
    return _without_memory(predictor, options, f"({need})", previous)


def _as_asked(predictor: Predictor, options: EnhanceOptions) -> ExecutionStrategy:
    """Run tiles with the statistics that were asked for, which are not the field's."""
    if predictor.probe.halo is None:
        msg = (
            f"Tiles need a bounded receptive field, and {predictor.card.name} has "
            "none: use `norm=whole`, which runs the field at once."
        )
        raise OptionError(msg, code="receptive-field-unbounded")
    if options.norm == "tile":
        return ExecutionStrategy("tile", "tiles")
    if options.self_ensemble:
        msg = (
            "Statistics of a sample are not those of the field turned about, got "
            "`norm=sampled` with self-ensemble: use whole, or leave the other off."
        )
        raise OptionError(msg, code="options-contradict")
    return ExecutionStrategy("sampled", "tiles")


def _without_memory(
    predictor: Predictor, options: EnhanceOptions, need: str, previous: str | None
) -> ExecutionStrategy:
    """Take statistics of a sample where a field does not fit, if they may be taken."""
    lacks = f"memory on {predictor.device} does not suffice {need}"
    short = f"{predictor.card.name} takes statistics of the whole field, for which "
    advice = ""
    if predictor.probe.halo is None:
        short = f"{predictor.card.name} looks at the field as a whole, and "
        advice = ": crop the field."
    elif options.self_ensemble:
        advice = ": leave self-ensemble off, or crop the field."
    elif options.norm == "whole":
        advice = ": crop the field, or use `norm=sampled`, which states its error."
    elif previous == "whole":
        advice = " any more: free some, or use `overwrite` to start anew."
    if advice:
        raise DeviceMemoryError(f"{short}{lacks}{advice}")
    sentence = f"{short}{lacks}: those of a sample are used."
    notes = (Message(sentence, "statistics-sampled"),)
    return ExecutionStrategy("sampled", "tiles", notes)


def _narrower(
    exact: int | None, options: EnhanceOptions, plan: TilePlan
) -> tuple[str, ...]:
    """Say so when the halo is not the exact one."""
    if options.halo_tolerance is None or exact is None or plan.halo >= exact:
        return ()
    sentence = (
        f"A halo of {plan.halo} px instead of the exact {exact}: tiles may differ from "
        f"the whole by {options.halo_tolerance:g} of the output's range."
    )
    return (Message(sentence, "halo-cut"),)


def choose_block(plan: EnhancePlan, predictor: Predictor, held_bytes: int) -> IntPair:
    """Choose how many rows and columns of tiles share a window on a CPU.

    What lies around a window costs work, and a window costs memory: the least work that
    memory allows, of that which was asked for beyond the bytes that are `held_bytes`. A
    tile whose side the user chose stays alone.
    """
    outputs, options = plan.outputs, plan.options
    if options.tile is not None or len(outputs) == 1:
        return 1, 1
    if options.memory_gb is None:
        free = free_memory(predictor.device)
        budget = min(_SHARE_OF_FREE * free, _MOST_BYTES)
    else:
        budget = options.memory_gb * 1e9 - held_bytes
    density = plan.output.fit.factor
    margin = plan.tiles.halo / density
    per_pixel = density**2 * predictor.bytes_per_pixel

    def side(count: int, axis: int) -> float:
        return min(count * outputs.core + 2 * margin, outputs.shape[axis])

    def work(count: int, axis: int) -> float:
        inner_borders = -(-outputs.grid[axis] // count) - 1
        return outputs.shape[axis] + 2 * margin * inner_borders

    most = max(1, _LARGEST_SIDE // outputs.core)
    rows, columns = (range(1, min(most, n) + 1) for n in outputs.grid)
    blocks = itertools.product(rows, columns)
    fitting = [b for b in blocks if side(b[0], 0) * side(b[1], 1) * per_pixel <= budget]
    return min(
        fitting,
        key=lambda b: (work(b[0], 0) * work(b[1], 1), b[0] * b[1]),
        default=(1, 1),
    )


def sampled_statistics(
    run: TiledRun, predictor: Predictor, target: Sink
) -> Job[SampledStatistics]:
    """Take the statistics that a target keeps, or measure them on a sample."""
    before = target.read_value(_SAMPLED)
    if before is not None:
        return SampledStatistics.from_json(before)
    statistics = yield from measure_sample(run, predictor)
    target.keep(_SAMPLED, statistics.to_json())
    return statistics
