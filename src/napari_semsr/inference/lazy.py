"""A lazily enhanced field, for people who compose their own dask graphs.

Names in the graph are made from the field, the options and the model's digest, so that
a retrained model never meets tiles that were cached for the old one.
"""

import threading
import weakref
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.delayed import delayed
from numpy.typing import NDArray

from napari_semsr.core.intensity import to_dtype
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import run as finish
from napari_semsr.core.tiling import Box, Tile, TilePlan
from napari_semsr.inference.haze import HazeMap, find_haze, read_input
from napari_semsr.inference.lockstep_run import exact_statistics
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.inference.planning import choose_tiles
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.scaling import (
    Scaling,
    measure_scaling,
    set_missing,
    source_box,
)
from napari_semsr.inference.sinks import ArraySink
from napari_semsr.inference.statistics import Statistics
from napari_semsr.inference.tasks import Run
from napari_semsr.inference.ways import Way, choose_way, frozen_statistics
from napari_semsr.models.checkpoint import LoadedModel

__all__ = ["enhance_lazy"]

_ready: weakref.WeakKeyDictionary[Any, dict[tuple[str, str], Predictor]]
_ready = weakref.WeakKeyDictionary()
_one_at_a_time = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of a field that answers to the field's own coordinates.

    Attributes
    ----------
    block : (Y, X) numpy.ndarray
        The pixels.
    corner : tuple of int
        Where the block begins in the field.
    shape : tuple of int
        Rows and columns of the field.
    """

    block: NDArray[Any]
    corner: tuple[int, int]
    shape: tuple[int, int]

    def __getitem__(self, index: tuple[slice, slice]) -> NDArray[Any]:
        rows, columns = (
            slice(s.start - first, s.stop - first)
            for s, first in zip(index, self.corner, strict=True)
        )
        return self.block[rows, columns]


def _predictor(loaded: LoadedModel, device: str, precision: str) -> Predictor:
    """Make a predictor once for each network of this process."""
    made = _ready.setdefault(loaded.module, {})
    if (device, precision) not in made:
        made[device, precision] = Predictor(loaded, device=device, precision=precision)
    return made[device, precision]


def _enhance_part(
    block: NDArray[Any],
    loaded: LoadedModel,
    place: tuple[Tile, Box, tuple[int, int]],
    known: tuple[Scaling, HazeMap | None, Statistics | None],
    options: EnhanceOptions,
) -> NDArray[Any]:
    """Enhance one tile from the pixels that it needs."""
    tile, source, shape = place
    scaling, haze, statistics = known
    part = _Part(block, (source.y0, source.x0), shape)
    window, missing = read_input(part, tile.window, scaling, haze)
    with _one_at_a_time:
        predictor = _predictor(loaded, options.device, options.precision)
        predictor.statistics = statistics
        result = predictor.predict(window, scaling)
        predictor.statistics = None
    scale = loaded.card.scale
    set_missing(result, missing, scale)
    core = result[tile.inner.scaled(scale).slices]
    return to_dtype(core, np.dtype(options.dtype or np.float32))[0]


def enhance_lazy(
    micrograph: Micrograph, loaded: LoadedModel, options: EnhanceOptions | None = None
) -> da.Array:
    """Enhance a field when, and where, it is looked at.

    The grey values are measured at once, over the whole field. A network with live
    normalisation layers makes one chunk of a field that can be run whole; beyond that
    its statistics, exact or of a sample, are measured at once too.

    Parameters
    ----------
    micrograph : Micrograph
        The input.
    loaded : LoadedModel
        The network.
    options : EnhanceOptions, optional
        How it is run.

    Returns
    -------
    (Y * scale, X * scale) dask.array.Array
        Chunks are the tiles' cores.

    Raises
    ------
    OptionError
        If the options ask for what the network cannot do.
    """
    chosen = options or EnhanceOptions()
    with _one_at_a_time:
        predictor = _predictor(loaded, chosen.device, chosen.precision)
    probe = predictor.probe_within(chosen.halo_tolerance)
    plan = choose_tiles(micrograph.shape, loaded.card, probe, tile=chosen.tile)
    way = choose_way(predictor, chosen, plan)
    if way.kind == "whole" or predictor.probe.halo is None:
        side = max(plan.padded_shape)
        plan = choose_tiles(micrograph.shape, loaded.card, predictor.probe, tile=side)
    card = loaded.card
    scaling = measure_scaling(
        micrograph.data, card.input_percentiles, back=card.grey == "input"
    )
    haze = find_haze(micrograph.data, loaded.module, scaling) if chosen.haze else None
    run = Run(micrograph.data, None, loaded, plan, scaling, haze)
    statistics = _statistics(run, predictor, way, chosen)
    return _assemble(micrograph, loaded, plan, (scaling, haze, statistics), chosen)


def _statistics(
    run: Run, predictor: Predictor, way: Way, options: EnhanceOptions
) -> Statistics | None:
    """Measure the statistics that tiles need of the field, if they do."""
    if way.norm == "frozen":
        nowhere = ArraySink(np.empty(0))
        return finish(frozen_statistics(run, predictor, options, nowhere)).statistics
    if way.lockstep is not None and predictor.probe.norms:
        return finish(exact_statistics(run, predictor, way.lockstep))
    return None


def _assemble(
    micrograph: Micrograph,
    loaded: LoadedModel,
    plan: TilePlan,
    known: tuple[Scaling, HazeMap | None, Statistics | None],
    options: EnhanceOptions,
) -> da.Array:
    """Make one delayed task for each tile, and join them."""
    data = micrograph.data
    if not micrograph.is_lazy:
        data = da.from_array(data, chunks=plan.core)
    told = options.model_dump(mode="json", exclude={"batch", "memory_gb"})
    token = tokenize(data.name, loaded.digest, told, plan.core, known[0])
    model = delayed(loaded, name=f"semsr-model-{token}", traverse=False)
    task = delayed(_enhance_part, traverse=False)
    dtype = np.dtype(options.dtype or np.float32)
    rows: list[list[da.Array]] = []
    for tile in plan:
        source = source_box(tile.window, plan.shape)
        made = task(
            data[source.slices],
            model,
            (tile, source, plan.shape),
            known,
            options,
            dask_key_name=f"semsr-tile-{token}-{tile.index[0]}-{tile.index[1]}",
        )
        shape = tile.core.scaled(loaded.card.scale).shape
        if tile.index[1] == 0:
            rows.append([])
        rows[-1].append(da.from_delayed(made, shape=shape, dtype=dtype))
    joined: da.Array = da.block(rows)
    return joined
