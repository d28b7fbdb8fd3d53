"""Plan of a run: strategy, tiles, measurements before the first tile, and statistics.

`plan_enhancement` measures the whole image and decides whether it is run in tiles or
whole. An `EnhancePlan` maps output tiles to windows of the input and back. Statistics
of live normalisations may be measured on a sample.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from napari_semsr import core, models
from napari_semsr.inference import ensemble, network_input
from napari_semsr.inference.options import (
    EnhanceOptions,
    OutputPlan,
    TrainedPixelSizes,
    plan_resampling,
)
from napari_semsr.inference.predictor import Predictor

_NOTHING = nullcontext()
ComputedTile = tuple[core.Float32Array, core.Box, core.BoolArray | None]
"""Network output, its position, and the mask of its missing pixels."""


@dataclass(frozen=True, slots=True)
class ExecutionStrategy:
    """Execution strategy: tiles or a single pass, and the source of statistics."""

    # Source of the statistics of live normalisations; ``none`` without any
    norm: Literal["none", "whole", "sampled", "tile"]
    kind: Literal["tiles", "whole"]  # Independent tiles, or one pass
    notes: tuple[str, ...] = ()  # Notes for the user on the choice

    def to_record(self) -> dict[str, object]:
        """Return the strategy as JSON types, for resuming the run."""
        return {"norm": self.norm, "kind": self.kind}


@dataclass(frozen=True, slots=True)
class EnhancePlan:
    """Complete plan of a run, made before its first tile."""

    model: models.LoadedModel  # The network
    options: EnhanceOptions  # Options of the run
    source: tuple[core.IntPair, str]  # Shape of the input, and name of its type
    output: OutputPlan  # The result: frame, calibration, chunks
    data: Any  # (Y, X) The field on the network's grid
    tiles: core.TilePlan  # The tiles of that field
    # Relation of the output's tiles to the network's grid; None if that is the same as
    # the input's
    regrid: network_input.GridMapping | None
    strategy: ExecutionStrategy  # How the field is run
    scaling: network_input.Scaling  # The field's scaling
    haze: network_input.HazeMap | None = None  # Haze that is removed from each window
    # Faults of the field that the network is conditioned on, as in `core.FAULTS`
    condition: tuple[float, ...] | None = None
    notes: tuple[str, ...] = ()  # Notes for the user

    @property
    def outputs(self) -> core.TilePlan:
        """Output tiles, in input pixels."""
        return self.tiles if self.regrid is None else self.regrid.outputs

    def identity(self) -> dict[str, object]:
        """Return the properties that a resumed run must match, as JSON types.

        The scaling represents the grey values of the input. Keys are used in messages.
        """
        option_values = self.options.model_dump(
            mode="json", exclude={"batch", "memory_gb"}
        )
        level_values = self.scaling.low, self.scaling.high, self.scaling.mean
        steps = self.output.fit.steps
        return {
            "input": [*self.source[0], self.source[1], *level_values],
            "model": self.model.digest,
            "resampling": None if steps is None else [str(step) for step in steps],
            **{f"option {name}": value for name, value in option_values.items()},
        }

    def tile(self, place: core.IntPair) -> core.Tile:
        """Return the network input tile for an output tile."""
        return self.create_tile(self.outputs.tile(*place).core, place)

    def create_tile(self, inner: core.Box, index: core.IntPair = (0, 0)) -> core.Tile:
        """Return the network input tile for any output box.

        `inner` is in pixels of the input; without resampling it starts on the stride.
        The result is in pixels of the network's grid.
        """
        if self.regrid is None:
            return self.tiles.create_tile(inner, index)
        return self.regrid.create_tile(self.tiles, inner, index)

    def convert_output(
        self,
        inner: core.Box,
        values: core.Float32Array,
        box: core.Box,
        missing: core.BoolArray | None = None,
    ) -> tuple[core.Float32Array, core.Box]:
        """Convert the network output for a box to the matching part of the output.

        `inner` is in pixels of the input, `box` and `missing` in those of the network's
        grid.
        """
        scale = self.model.card.scale
        if self.regrid is not None:
            return self.regrid.resample_output(self.data.source, inner, values, box)
        network_input.mask_missing_pixels(values, missing, scale)
        return values, inner.relative_to(box).scale(scale)

    def read_clean_window(
        self, box: core.Box
    ) -> tuple[core.RealArray, core.BoolArray | None]:
        """Read a filled, dehazed window and the mask of its missing pixels."""
        window, missing = network_input.read_window(self.data, box, self.scaling.mean)
        return (
            window if self.haze is None else self.haze.remove_haze(window, box)
        ), missing

    def compute_tiles(
        self,
        predictor: Predictor,
        tiles: Sequence[core.Tile],
        reading: AbstractContextManager[object] = _NOTHING,
        passing: AbstractContextManager[object] = _NOTHING,
    ) -> list[ComputedTile]:
        """Run tiles through the network, with contexts for reading and the passes.

        Of a single tile, only the core with a pixel around it, by which borders are
        compared, is computed.
        """
        windows: list[core.RealArray] = []
        masks: list[core.BoolArray | None] = []
        for tile in tiles:
            with reading:
                window, missing = self.read_clean_window(tile.window)
            windows.append(window)
            masks.append(missing)
        boxes, keep = [tile.window for tile in tiles], None
        if len(tiles) == 1:
            boxes = [tiles[0].core.grow(1).intersection(boxes[0])]
            keep = boxes[0].relative_to(tiles[0].window)
            masks = [None if m is None else m[keep.slices] for m in masks]
        with passing:
            outputs = predictor.predict(windows, self.scaling, keep)
        return list(zip(outputs, boxes, masks, strict=True))


_DEEP_HALO = 192  # halo in pixels above which a narrower one is tried; chosen
_LARGEST_SIDE = 1024  # px that share a window; twice that takes the same time, measured
# default memory of a window: with the loaded libraries, a run stays below 1.5 GB
_SHARE_OF_FREE, _MAX_BYTES = 0.25, 1.1e9


def plan_enhancement(
    micrograph: core.Micrograph,
    output: OutputPlan,
    model: models.LoadedModel,
    options: EnhanceOptions,
    predictor: Predictor,
    *,
    before: Mapping[str, object] | None = None,
    is_scattered: bool = False,
    strategy: ExecutionStrategy | None = None,
    apart: bool = False,
    see_rows: Callable[[core.RealArray], object] | None = None,
) -> core.Job[EnhancePlan]:
    """Measure the whole image and plan its enhancement.

    `before` is the recorded strategy of an interrupted run; `is_scattered` whether
    tiles go to other processes; `apart` whether tiles are requested individually at any
    time; a field that cannot be run in tiles is then one tile. `see_rows` receives all
    pixels of the image in bands of rows.
    """
    yield core.Progress(0, 0, "Measuring the grey values")
    card, probe = model.card, predictor.effective_probe(options.halo_tolerance)
    field = yield from network_input.prepare_field(
        micrograph, output.fit, shared=not apart, see_rows=see_rows
    )
    shown_field = field.input
    constant = predictor.device.type != "cpu" and not apart
    tiles, regrid = network_input.plan_field_tiles(
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
        tiles, regrid = network_input.plan_field_tiles(
            shown_field, output, card, predictor.probe
        )
    notes = (*filter(None, (output.fit.note, field.note)), *strategy.notes)
    yield from (core.Progress(0, 0, note) for note in notes)
    scaling = network_input.compute_scaling(field, card)
    is_fixed = card.input_scaling == "levels"  # no measurement is needed
    if (is_fixed or scaling.low == scaling.high == 0) and core.is_empty(
        micrograph.data
    ):
        msg = (
            f"{micrograph.name} has no finite pixels: check that the file is complete."
        )
        raise core.ReadError(msg, code="no-finite-values")
    survey = network_input.FieldSurvey()
    _check_weights(model, options)
    if isinstance(model.module, models.InformedRestorer):
        yield core.Progress(0, 0, "Measuring the whole field")
        # wrong haze does more harm to a filter for a known blur than it helps
        certain = model.module.sharpener is not None and bool(options.blur_px)
        survey = network_input.survey_field(
            field.samples, model.module, scaling, haze=options.haze, certain=certain
        )
        model, survey = _configure_network(
            model, survey, options, (field.samples, scaling)
        )
    if options.self_ensemble and not isinstance(model.module, ensemble.SelfEnsemble):
        networks = [model.module] * len(ensemble.ALL)
        model = replace(model, module=ensemble.SelfEnsemble(networks, ensemble.ALL))
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


def _check_weights(model: models.LoadedModel, options: EnhanceOptions) -> None:
    usual = EnhanceOptions()
    option_names = [n for n in _WEIGHTS if getattr(options, n) != getattr(usual, n)]
    if option_names and not isinstance(model.module, models.InformedRestorer):
        names = ", ".join(name.replace("_", " ") for name in option_names)
        msg = (
            f"Model {model.card.name} does not correct noise, blur and haze "
            f"separately: leave {names} at the default, or use a model with the "
            "'informed' architecture."
        )
        raise core.OptionError(msg, code="option-without-effect")


def _configure_network(
    model: models.LoadedModel,
    survey: network_input.FieldSurvey,
    options: EnhanceOptions,
    field: tuple[core.ReadableArray, network_input.Scaling],
) -> tuple[models.LoadedModel, network_input.FieldSurvey]:
    """Configure a network for a surveyed image and the user's correction weights.

    `field` is the field and its scaling; a sharpener needs their spectrum.
    """
    haze = survey.haze and survey.haze.scale_strength(options.strength * options.dehaze)
    module, condition = model.module, survey.condition
    if isinstance(module, models.InformedRestorer) and condition is not None:
        percent, blur = options.noise_percent, options.blur_px
        noise = None if percent is None else percent / 100
        spectrum = None
        # not with the estimated width, since a soft sample would look blurred
        if module.sharpener is not None and blur:
            spectrum = network_input.measure_spectrum(*field, haze)
            blur = models.estimate_widest_blur(spectrum, blur, noise)
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
        threshold = (
            network_input.find_coring_threshold(*field, haze, networks)
            if amount
            else 0.0
        )
        network = ensemble.core_sharpening(networks, threshold)
        if options.self_ensemble:
            if spectrum is not None:
                spectrum = spectrum.flip(0).roll(1, 0)
            mirrored = build_networks(core.mirror_condition(condition))
            about = ensemble.core_sharpening(mirrored, threshold)
            turned = [network if t.rows == t.columns else about for t in ensemble.FLIPS]
            network = ensemble.SelfEnsemble(turned, ensemble.FLIPS)
        model = replace(model, module=network)
    return model, network_input.FieldSurvey(haze, condition)


def configure_model_for_image(
    micrograph: core.Micrograph, model: models.LoadedModel, options: EnhanceOptions
) -> tuple[models.LoadedModel, tuple[float, ...] | None]:
    """Return the network configured for an image, and the image's degradations.

    A network that surveys fields becomes a plain one for this field, without removal
    of haze; any other is returned unchanged. The faults are in the order of
    `core.FAULTS`; None without a survey.
    """
    field, scaling = prepare_model_input(micrograph, model, options)
    measured_field = field.samples
    survey = network_input.survey_field(
        measured_field, model.module, scaling, haze=False
    )
    model, survey = _configure_network(
        model, survey, options, (measured_field, scaling)
    )
    return model, survey.condition


def prepare_model_input(
    micrograph: core.Micrograph, model: models.LoadedModel, options: EnhanceOptions
) -> tuple[network_input.PreparedField, network_input.Scaling]:
    """Return an image resampled to the network grid, and its grey-value scaling."""
    trained_sizes = TrainedPixelSizes.from_card(model.card.model_dump())
    fit = plan_resampling(micrograph.pixel_size_nm, trained_sizes, options.resample)
    field = core.run(network_input.prepare_field(micrograph, fit))
    return field, network_input.compute_scaling(field, model.card)


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
    is_tiled = record.get("kind") == "tiles" and previous != "whole"  # a former pair
    if is_tiled or (is_bounded and is_scattered):
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
        free = models.get_free_memory(predictor.device)
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

    def compute_work(block: core.IntPair) -> tuple[float, int]:
        lengths = (computed_length(block[axis], axis) for axis in (0, 1))
        return math.prod(lengths), math.prod(block)

    most = max(1, _LARGEST_SIDE // outputs.core)
    rows, columns = (range(1, min(most, n) + 1) for n in outputs.grid)
    fitting = (
        (down, across)
        for down, across in itertools.product(rows, columns)
        if window_side(down, 0) * window_side(across, 1) * per_pixel <= budget
    )
    return min(fitting, key=compute_work, default=(1, 1))


# Statistics estimated from a sample of the image, with their error.
#
# A tenth of the field is sampled in small tiles: they are sorted by local mean and,
# within bands of equal mean, by local standard deviation, and one is drawn from each
# interval of that order. The sampled tiles are one batch of the network, over which the
# statistics of each norm are pooled; memory limits their number. The same is done with
# four parts of the sample. The differences of their results on tiles outside the sample
# estimate the error of the whole sample: the mean of four parts has a quarter of the
# variance of a part, which is a third of the variance between each part and the mean of
# all. The error is reduced by the share of the field that is sampled.


_SAMPLED_SIDE = 256  # side of a window from which statistics are sampled; chosen


def stratify_tiles(
    mean: core.FloatArray, spread: core.FloatArray, draws: int
) -> list[int]:
    """Order tiles in bands of similar mean, each sorted by standard deviation.

    Every second band is reversed, so that neighbours in this order are similar.
    """
    bands = np.array_split(np.argsort(mean, kind="stable"), round(math.sqrt(draws)))
    order: list[int] = []
    for number, band in enumerate(bands):
        by_spread = band[np.argsort(spread[band], kind="stable")]
        order += (by_spread[::-1] if number % 2 else by_spread).tolist()
    return order


def draw_stratified_sample(
    order: Sequence[int], count: int, rng: np.random.Generator
) -> list[int]:
    """Draw one tile at random from each of `count` equal intervals of a ranking."""
    if count >= len(order):
        return list(order)
    stretches = np.array_split(np.array(order), count)
    return [int(rng.choice(stretch)) for stretch in stretches]


_SAMPLED_SHARE = 0.1  # share of the tiles that is sampled; chosen
_FEWEST = 8  # minimum number of sampled tiles; chosen
_HELD_OUT_TILES = 8  # tiles held out to evaluate the sample; chosen
_PARTS = 4  # parts of the sample from which its error is estimated; chosen
_OF_MEMORY = 0.5  # share of memory for a batch; the rest is for other data of the run


@dataclass(frozen=True, slots=True)
class SampledStatistics:
    """Statistics of a sample of tiles, with their estimated error."""

    statistics: ensemble.Statistics  # For each live norm
    # Estimated root mean square error of the result, over its standard deviation
    error: float
    sample_tiles: int  # Small tiles in the sample
    tiles: int  # Small tiles in the field

    def describe(self) -> str:
        """Describe the sample and its error."""
        return (
            f"Approximate: the statistics were measured on {self.sample_tiles} of "
            f"{self.tiles} small tiles of the field. As estimated on held-out tiles, "
            f"the RMS difference from the exact result is about {self.error:.2g} of "
            "the result's standard deviation."
        )

    def to_json(self) -> dict[str, object]:
        """Convert to JSON types without loss of precision."""
        layers = [(m.mean.tolist(), m.variance.tolist()) for m in self.statistics]
        return {**asdict(self), "statistics": layers}

    @classmethod
    def from_json(cls, value: Any) -> "SampledStatistics":
        """Create an object from the output of `to_json`."""
        double = partial(torch.tensor, dtype=torch.float64)
        try:
            layers = [
                ensemble.Moments(double(mean), double(variance))
                for mean, variance in value["statistics"]
            ]
            counts = int(value["sample_tiles"]), int(value["tiles"])
            return cls(tuple(layers), float(value["error"]), *counts)
        except (KeyError, TypeError, ValueError) as error:
            msg = (
                "Cannot read the statistics stored in the output: use `overwrite` to "
                "start again."
            )
            raise core.WriteError(msg, code="file-damaged") from error


def measure_sample(
    plan: EnhancePlan, predictor: Predictor, *, seed: int = 0
) -> core.Job[SampledStatistics]:
    """Measure statistics on a sample, and estimate their error."""
    field, halo = plan.tiles, predictor.probe.halo or 0
    cut = core.plan_tiles(
        field.padded_shape,
        core=core.round_up(min(_SAMPLED_SIDE, field.core), field.stride),
        halo=core.round_up(halo // 2, field.stride),
        stride=field.stride,
        constant=False,
    )
    tiles, sampler = cut.tiles, _Sampler(plan, predictor, cut)
    budget = _OF_MEMORY * predictor.memory_budget(plan.options.memory_gb)
    fitting = int(budget // max(1, predictor.peak_bytes(sampler.window_shape)))
    count = max(_FEWEST, min(round(_SAMPLED_SHARE * len(tiles)), fitting))
    yield core.Progress(
        0, 0, "Sorting parts of the field by mean and standard deviation"
    )
    mean, spread = np.zeros(len(tiles)), np.zeros(len(tiles))
    for number, tile in enumerate(tiles):  # read each tile once
        values = plan.read_clean_window(tile.core)[0]
        mean[number], spread[number] = values.mean(), values.std()
    order = stratify_tiles(mean, spread, count)
    rng = np.random.default_rng(seed)
    sample_indices = draw_stratified_sample(order, count, rng)
    sample_set = set(sample_indices)
    rest = [number for number in order if number not in sample_set] or order
    held_out = [tiles[i] for i in draw_stratified_sample(rest, _HELD_OUT_TILES, rng)]
    sample = [tiles[i] for i in sample_indices]
    yield core.Progress(0, 0, "Statistics of a sample")
    whole = sampler.measure_moments(sample)
    if len(sample_indices) == len(tiles):
        return SampledStatistics(tuple(whole), 0.0, len(tiles), len(tiles))
    expected_results = sampler.compute_results(whole, held_out)
    squares = []
    for part in range(_PARTS):
        yield core.Progress(part, _PARTS, "Estimating the error of the statistics")
        some = sampler.measure_moments(sample[part::_PARTS])
        away = sampler.compute_results(some, held_out) - expected_results
        squares.append(float(np.mean(away**2)))
    left = 1 - len(sample_indices) / len(tiles)
    rms = math.sqrt(left * float(np.mean(squares)) / (_PARTS - 1))
    overall = float(expected_results.std())
    error = rms / overall if overall > 0 else 0.0
    return SampledStatistics(tuple(whole), error, len(sample_indices), len(tiles))


class _BatchMoments(models.NormInterceptor):
    """Interceptor that normalises a batch by the pooled moments of all its cores.

    `cores` are in pixels of the windows, which all have the shape `side`.
    """

    def __init__(self, cores: Sequence[core.Box], side: core.IntPair) -> None:
        super().__init__()
        self.moments: list[ensemble.Moments] = []
        self._cores, self._side = cores, side

    def _normalise(self, norm: models.InstanceNormCall) -> torch.Tensor:
        images = norm.input
        finer = [
            Fraction(side, size)
            for side, size in zip(images.shape[2:], self._side, strict=True)
        ]
        sums = []
        for number, box in enumerate(self._cores):
            rows, columns = (
                slice(int(part.start * ratio), int(part.stop * ratio))
                for part, ratio in zip(box.slices, finer, strict=True)
            )
            sums.append(
                ensemble.compute_sums(images[number : number + 1, :, rows, columns])
            )
        side = ensemble.pool_sums(sums, images.device)
        self.moments.append(side)
        return side.normalise(images, norm)


@dataclass(frozen=True, slots=True)
class _Sampler:
    """Runner that treats a sample of tiles as the whole image."""

    plan: EnhancePlan
    predictor: Predictor
    cut: core.TilePlan

    @property
    def window_shape(self) -> core.IntPair:
        """Window shape (rows, columns), the same for all tiles of a batch."""
        across = self.cut.core + 2 * self.cut.halo
        rows, columns = self.cut.padded_shape
        return min(across, rows), min(across, columns)

    def find_window(self, tile: core.Tile) -> core.Box:
        """Return the window around a tile, shifted to stay inside the image."""
        outer = tile.core.grow(self.cut.halo)
        corner = [
            min(max(start, 0), size - side)
            for start, size, side in zip(
                (outer.y0, outer.x0),
                self.cut.padded_shape,
                self.window_shape,
                strict=True,
            )
        ]
        return core.Box.from_shape(self.window_shape, (corner[0], corner[1]))

    def network_input(self, box: core.Box) -> torch.Tensor:
        window = self.plan.read_clean_window(box)[0]
        plane = torch.from_numpy(self.plan.scaling.normalise(window))[None, None]
        return plane.to(self.predictor.device)

    def measure_moments(self, sample: Sequence[core.Tile]) -> list[ensemble.Moments]:
        boxes = [self.find_window(tile) for tile in sample]
        cores = [t.core.relative_to(box) for t, box in zip(sample, boxes, strict=True)]
        batch = torch.cat([self.network_input(box) for box in boxes])
        pooling = _BatchMoments(cores, self.window_shape)
        with self.predictor.compute_context("a sample of tiles"), pooling:
            self.predictor.network(batch)
        return pooling.moments

    def compute_results(
        self, moments: Sequence[ensemble.Moments], tiles: Sequence[core.Tile]
    ) -> core.RealArray:
        fixed_moments = ensemble.move_to_device(moments, self.predictor.device)
        scale = self.plan.model.card.scale
        parts = []
        for tile in tiles:
            window = self.network_input(tile.window)
            with (
                self.predictor.compute_context("a held-out tile"),
                ensemble.FixedMoments(fixed_moments),
            ):
                output = self.predictor.network(window)[0, 0]
            inner = tile.local_core.scale(scale).slices
            parts.append(output[inner].to("cpu", torch.float64).numpy().ravel())
        return np.concatenate(parts)
