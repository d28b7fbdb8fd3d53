"""Measurements and planning before the first tile of a run.

The main decision is whether a field is run in tiles or whole.
"""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from napari_semsr import core
from napari_semsr.inference.ensemble import (
    FLIPS,
    SelfEnsemble,
    core_sharpening,
    create_self_ensemble,
)
from napari_semsr.inference.network_input import (
    FieldSurvey,
    PreparedField,
    Scaling,
    compute_scaling,
    find_coring_threshold,
    measure_spectrum,
    plan_field_tiles,
    prepare_field,
    survey_field,
)
from napari_semsr.inference.options import (
    EnhanceOptions,
    OutputPlan,
    TrainedPixelSizes,
    plan_resampling,
)
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.sampled import SampledStatistics, measure_sample
from napari_semsr.inference.tiles import EnhancePlan, ExecutionStrategy, Sink, TiledRun
from napari_semsr.models import (
    InformedRestorer,
    LoadedModel,
    estimate_widest_blur,
    get_free_memory,
)

_DEEP_HALO = 192  # halo in pixels above which a narrower one is tried; chosen
_STATISTICS_KEY = "frozen"  # key of the statistics in a store
_LARGEST_SIDE = 1024  # px that share a window; twice that takes the same time, measured
# default memory of a window: with the loaded libraries, a run stays below 1.5 GB
_SHARE_OF_FREE, _MAX_BYTES = 0.25, 1.1e9


def plan_enhancement(
    micrograph: core.Micrograph,
    output: OutputPlan,
    model: LoadedModel,
    options: EnhanceOptions,
    predictor: Predictor,
    *,
    before: Mapping[str, object] | None = None,
    is_scattered: bool = False,
    strategy: ExecutionStrategy | None = None,
    apart: bool = False,
) -> core.Job[EnhancePlan]:
    """Measure the whole image and plan its enhancement.

    `before` is the recorded strategy of an interrupted run; `is_scattered` whether
    tiles go to other processes; `apart` whether tiles are requested individually at any
    time; a field that cannot be run in tiles is then one tile.
    """
    yield core.Progress(0, 0, "Measuring the grey values")
    card, probe = model.card, predictor.effective_probe(options.halo_tolerance)
    field = prepare_field(micrograph, output.fit, shared=not apart)
    shown_field = field.input
    constant = predictor.device.type != "cpu" and not apart
    tiles, regrid = plan_field_tiles(
        shown_field, output, card, probe, constant=constant
    )
    predictor.choose_batch(tiles.tile(0, 0).window.shape, options.batch)
    if strategy is None:
        strategy = choose_strategy(
            predictor, options, tiles, before, is_scattered=is_scattered
        )
    if apart and (strategy.kind == "whole" or predictor.probe.halo is None):
        side = max(output.frame.shape) // output.scale
        output = replace(output, core=core.round_up(side, card.stride))
        tiles, regrid = plan_field_tiles(shown_field, output, card, predictor.probe)
    notes = (*filter(None, (output.fit.note, field.note)), *strategy.notes)
    yield from (core.Progress(0, 0, note) for note in notes)
    scaling = compute_scaling(field.samples, card)
    is_fixed = card.input_scaling == "levels"  # no measurement is needed
    if (is_fixed or scaling.low == scaling.high == 0) and core.is_empty(
        micrograph.data
    ):
        msg = (
            f"{micrograph.name} has no finite pixels: check that the file is complete."
        )
        raise core.ReadError(msg, code="no-finite-values")
    survey = FieldSurvey()
    _check_weights(model, options)
    if isinstance(model.module, InformedRestorer):
        yield core.Progress(0, 0, "Measuring the whole field")
        # wrong haze does more harm to a filter for a known blur than it helps
        certain = model.module.sharpener is not None and bool(options.blur_px)
        survey = survey_field(
            field.samples, model.module, scaling, haze=options.haze, certain=certain
        )
        model, survey = _configure_network(
            model, survey, options, (field.samples, scaling)
        )
    if options.self_ensemble and not isinstance(model.module, SelfEnsemble):
        model = replace(model, module=create_self_ensemble(model.module))
    return EnhancePlan(
        model=model,
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
            f"Model {model.card.name} does not correct noise, blur and haze "
            f"separately: leave {names} at the default, or use a model with the "
            "'informed' architecture."
        )
        raise core.OptionError(msg, code="option-without-effect")


def _configure_network(
    model: LoadedModel,
    survey: FieldSurvey,
    options: EnhanceOptions,
    field: tuple[core.ReadableArray, Scaling],
) -> tuple[LoadedModel, FieldSurvey]:
    """Configure a network for a surveyed image and the user's correction weights.

    `field` is the field and its scaling; a sharpener needs their spectrum.
    """
    share = options.strength * options.dehaze
    haze = None if survey.haze is None else survey.haze.scale_strength(share)
    module, condition = model.module, survey.condition
    if isinstance(module, InformedRestorer) and condition is not None:
        percent, blur = options.noise_percent, options.blur_px
        noise = None if percent is None else percent / 100
        spectrum = None
        # not with the estimated width, since a soft sample would look blurred
        if module.sharpener is not None and blur:
            spectrum = measure_spectrum(*field, haze)
            blur = estimate_widest_blur(spectrum, blur, noise)
        condition = core.override_condition(condition, noise, blur)
        mender = partial(
            module.build_restorer,
            rings=torch.tensor(survey.rings),
            denoise=options.strength * options.denoise,
            noise=noise,
        )
        amount = 0.0 if blur == 0 else options.strength * options.deblur

        def build_networks(condition: tuple[float, ...]) -> list[nn.Module]:
            restore = partial(mender, torch.tensor(condition), spectrum=spectrum)
            return [restore(deblur=share) for share in sorted({0.0, amount})]

        networks = build_networks(condition)
        threshold = find_coring_threshold(*field, haze, networks) if amount else 0.0
        network = core_sharpening(networks, threshold)
        if options.self_ensemble:
            if spectrum is not None:
                spectrum = spectrum.flip(0).roll(1, 0)
            mirrored = build_networks(core.mirror_condition(condition))
            about = core_sharpening(mirrored, threshold)
            turned = [network if t.rows == t.columns else about for t in FLIPS]
            network = SelfEnsemble(turned, FLIPS)
        model = replace(model, module=network)
    return model, FieldSurvey(haze, condition)


def configure_model_for_image(
    micrograph: core.Micrograph, model: LoadedModel, options: EnhanceOptions
) -> tuple[LoadedModel, tuple[float, ...] | None]:
    """Return the network configured for an image, and the image's degradations.

    A network that surveys fields becomes a plain one for this field, without removal
    of haze; any other is returned unchanged. The faults are in the order of
    `core.FAULTS`; None without a survey.
    """
    field, scaling = prepare_model_input(micrograph, model, options)
    measured_field = field.samples
    survey = survey_field(measured_field, model.module, scaling, haze=False)
    model, survey = _configure_network(
        model, survey, options, (measured_field, scaling)
    )
    return model, survey.condition


def prepare_model_input(
    micrograph: core.Micrograph, model: LoadedModel, options: EnhanceOptions
) -> tuple[PreparedField, Scaling]:
    """Return an image resampled to the network grid, and its grey-value scaling."""
    trained_sizes = TrainedPixelSizes.from_card(model.card.model_dump())
    fit = plan_resampling(micrograph.pixel_size_nm, trained_sizes, options.resample)
    field = prepare_field(micrograph, fit)
    return field, compute_scaling(field.samples, model.card)


def choose_strategy(
    predictor: Predictor,
    options: EnhanceOptions,
    plan: core.TilePlan,
    before: Mapping[str, object] | None = None,
    *,
    is_scattered: bool = False,
    fits: bool | None = None,
) -> ExecutionStrategy:
    """Choose between a single pass and tiles, and the source of the statistics.

    `before` is the recorded choice of an interrupted run; `is_scattered` whether tiles
    go to other processes; `fits` whether memory suffices for the whole field, if a pass
    has shown that it does not. Raises a DeviceMemoryError if the options require a
    single pass and memory does not suffice.
    """
    probe, record = predictor.probe, before or {}
    previous = core.update_value_name("norm", record.get("norm"))
    if record.get("kind") == "lockstep" or (
        record.get("kind") == "tiles" and previous == "whole"
    ):
        msg = (
            "This run was started in layer-by-layer mode, which is no longer "
            "supported: use `overwrite` to start again."
        )
        raise core.WriteError(msg, code="other-version")
    is_bounded = not probe.norms and probe.halo is not None
    if is_bounded and (options.halo_tolerance or (probe.halo or 0) <= _DEEP_HALO):
        notes: tuple[str, ...] = ()
        exact = probe.halo or 0
        if options.halo_tolerance is not None and plan.halo < exact:
            sentence = (
                f"The halo is {plan.halo} px instead of {exact} px, so tiles may "
                "differ from an untiled run by up to "
                f"{options.halo_tolerance:g} of the output range."
            )
            notes = (core.Message(sentence, "halo-cut"),)
        return ExecutionStrategy("none", "tiles", notes)
    if not is_bounded and options.norm in ("tile", "sampled"):
        return _requested_strategy(predictor, options)
    if record.get("kind") == "tiles" or (is_bounded and is_scattered):
        return ExecutionStrategy("none" if is_bounded else "sampled", "tiles")
    need = f"{predictor.peak_bytes(plan.padded_shape) / 1e9:.2g} GB"
    if fits is None:
        fits = predictor.fits_in_memory(plan.padded_shape, options.memory_gb)
    if fits:
        sentence = (
            "The whole field is processed in one pass, in which the layers need "
            f"{need}."
        )
        notes = (core.Message(sentence, "run-whole"),)
        return ExecutionStrategy("none" if is_bounded else "whole", "whole", notes)
    if is_bounded:
        return ExecutionStrategy("none", "tiles")
    return _choose_fallback_strategy(predictor, options, f"({need})", previous)


def _requested_strategy(
    predictor: Predictor, options: EnhanceOptions
) -> ExecutionStrategy:
    """Return the tiled strategy with the requested source of statistics."""
    if predictor.probe.halo is None:
        msg = (
            f"{predictor.card.name} has an unbounded receptive field and cannot run "
            "in tiles: use `norm=whole`."
        )
        raise core.OptionError(msg, code="receptive-field-unbounded")
    if options.norm == "tile":
        return ExecutionStrategy("tile", "tiles")
    if options.self_ensemble:
        msg = (
            "`norm=sampled` cannot be combined with self-ensemble, whose flipped "
            "fields have different statistics: use `norm=whole`, or no self-ensemble."
        )
        raise core.OptionError(msg, code="options-contradict")
    return ExecutionStrategy("sampled", "tiles")


def _choose_fallback_strategy(
    predictor: Predictor, options: EnhanceOptions, need: str, previous: str | None
) -> ExecutionStrategy:
    """Return the tiled strategy with sampled statistics, or raise an error."""
    lacks = f"memory on {predictor.device} is insufficient {need}"
    short = f"{predictor.card.name} needs statistics of the whole field, for which "
    advice = ""
    if predictor.probe.halo is None:
        short = f"{predictor.card.name} needs the whole field in one pass, for which "
        advice = ": crop the field."
    elif options.self_ensemble:
        advice = ": leave self-ensemble off, or crop the field."
    elif options.norm == "whole":
        advice = ": crop the field, or use `norm=sampled`, which states its error."
    elif previous == "whole":
        advice = " now: free some, or use `overwrite` to start again."
    if advice:
        raise core.DeviceMemoryError(f"{short}{lacks}{advice}", code="field-too-large")
    sentence = f"{short}{lacks}: sampled statistics are used instead."
    notes = (core.Message(sentence, "statistics-sampled"),)
    return ExecutionStrategy("sampled", "tiles", notes)


def choose_block(
    plan: EnhancePlan, predictor: Predictor, held_bytes: int
) -> core.IntPair:
    """Choose how many rows and columns of tiles share one window on a CPU.

    Large windows need less work for their margins, but more memory: returns the choice
    with the least work within the memory limit minus `held_bytes`. If the user chose
    the side of tiles, each is run alone.
    """
    outputs, options = plan.outputs, plan.options
    if options.tile is not None or len(outputs) == 1:
        return 1, 1
    if options.memory_gb is None:
        free = get_free_memory(predictor.device)
        budget = min(_SHARE_OF_FREE * free, _MAX_BYTES)
    else:
        budget = options.memory_gb * 1e9 - held_bytes
    density = plan.output.fit.resampling_factor
    margin = plan.tiles.halo / density
    per_pixel = density**2 * predictor.bytes_per_pixel

    def window_side(count: int, axis: int) -> float:
        return min(count * outputs.core + 2 * margin, outputs.shape[axis])

    def computed_length(count: int, axis: int) -> float:
        inner_borders = -(-outputs.grid[axis] // count) - 1
        return outputs.shape[axis] + 2 * margin * inner_borders

    most = max(1, _LARGEST_SIDE // outputs.core)
    rows, columns = (range(1, min(most, n) + 1) for n in outputs.grid)
    blocks = itertools.product(rows, columns)
    fitting = [
        b
        for b in blocks
        if window_side(b[0], 0) * window_side(b[1], 1) * per_pixel <= budget
    ]
    return min(
        fitting,
        key=lambda b: (
            computed_length(b[0], 0) * computed_length(b[1], 1),
            b[0] * b[1],
        ),
        default=(1, 1),
    )


def get_sampled_statistics(
    run: TiledRun, predictor: Predictor, target: Sink
) -> core.Job[SampledStatistics]:
    """Return the statistics stored in a target, or measure them on a sample."""
    before = target.read_value(_STATISTICS_KEY)
    if before is not None:
        return SampledStatistics.from_json(before)
    statistics = yield from measure_sample(run, predictor)
    target.store_value(_STATISTICS_KEY, statistics.to_json())
    return statistics
