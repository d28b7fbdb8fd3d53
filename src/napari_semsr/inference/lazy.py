"""A lazily enhanced field, for people who compose their own dask graphs.

Names in the graph are made from the field, the options and the model's digest, so that
a retrained model never meets tiles that were cached for the old one.
"""

import threading
import weakref
from dataclasses import dataclass, replace
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.delayed import delayed
from numpy.typing import NDArray

from napari_semsr.core import Box, Micrograph, Tile, TilePlan, run as finish, to_dtype
from napari_semsr.inference.exact import Statistics, exact_statistics
from napari_semsr.inference.haze import HazeMap, find_haze
from napari_semsr.inference.normalise import Scaling, measure_scaling, source_box
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.resample import Regrid, ResampledField, show
from napari_semsr.inference.strategy import Way, choose_way, frozen_statistics
from napari_semsr.inference.tiles import ArraySink, Run
from napari_semsr.models import LoadedModel

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

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        return self.block.dtype

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


@dataclass(frozen=True, slots=True)
class _Known:
    """What was measured on the whole field, and how it is cut.

    Attributes
    ----------
    scaling : Scaling
        The field's scaling.
    haze : HazeMap or None
        Haze that is lifted.
    statistics : Statistics or None
        What live normalisations use.
    plan : TilePlan
        Tiles of what the network sees.
    regrid : Regrid or None
        How the output's tiles lie on that grid.
    resampled : ResampledField or None
        How that grid is made of the field, without the field.
    """

    scaling: Scaling
    haze: HazeMap | None
    statistics: Statistics | None
    plan: TilePlan
    regrid: Regrid | None
    resampled: ResampledField | None

    def run(self, part: Any, loaded: LoadedModel) -> Run:
        """Set up the work for a part of the field that answers for all of it."""
        seen = self.resampled
        return Run(
            part if seen is None else replace(seen, source=part),
            None,
            loaded,
            self.plan,
            self.scaling,
            self.haze,
            statistics=self.statistics,
            regrid=self.regrid,
        )


def _enhance_part(
    block: NDArray[Any],
    loaded: LoadedModel,
    place: tuple[Tile, Box, tuple[int, int]],
    known: _Known,
    options: EnhanceOptions,
) -> NDArray[Any]:
    """Enhance one tile from the pixels that it needs."""
    tile, source, shape = place
    run = known.run(_Part(block, (source.y0, source.x0), shape), loaded)
    window, missing = run.read(tile.window)
    with _one_at_a_time:
        predictor = _predictor(loaded, options.device, options.precision)
        predictor.statistics = known.statistics
        result = predictor.predict(window, known.scaling)
        predictor.statistics = None
    core = run.outputs.tile(*tile.index).core
    made, inner = run.deliver(core, result, tile.window, missing)
    return to_dtype(made[inner.slices], np.dtype(options.dtype or np.float32))[0]


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
    card, probe = loaded.card, predictor.probe_within(chosen.halo_tolerance)
    shown = show(micrograph, card, probe, chosen)
    way = choose_way(predictor, chosen, shown.plan)
    if way.kind == "whole" or predictor.probe.halo is None:
        side = max(*micrograph.shape, *shown.plan.padded_shape)
        shown = show(micrograph, card, predictor.probe, chosen, tile=side)
    data, back = shown.data, card.grey == "input"
    scaling = measure_scaling(data, card.input_percentiles, back=back)
    haze = find_haze(data, loaded.module, scaling) if chosen.haze else None
    run = Run(data, None, loaded, shown.plan, scaling, haze, regrid=shown.regrid)
    known = _Known(
        scaling=scaling,
        haze=haze,
        statistics=_statistics(run, predictor, way, chosen),
        plan=shown.plan,
        regrid=shown.regrid,
        resampled=(
            replace(data, source=None) if isinstance(data, ResampledField) else None
        ),
    )
    return _assemble(micrograph, run, known, chosen)


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
    micrograph: Micrograph, run: Run, known: _Known, options: EnhanceOptions
) -> da.Array:
    """Make one delayed task for each tile, and join them."""
    loaded, data, outputs = run.loaded, micrograph.data, run.outputs
    if not micrograph.is_lazy:
        data = da.from_array(data, chunks=outputs.core)
    told = options.model_dump(mode="json", exclude={"batch", "memory_gb"})
    seen = run.data if isinstance(run.data, ResampledField) else None
    steps = None if seen is None else [str(step) for step in seen.there.steps]
    token = tokenize(data.name, loaded.digest, told, outputs.core, known.scaling, steps)
    model = delayed(loaded, name=f"semsr-model-{token}", traverse=False)
    task = delayed(_enhance_part, traverse=False)
    dtype = np.dtype(options.dtype or np.float32)
    rows: list[list[da.Array]] = []
    for output in outputs:
        tile = run.tile(output.index)
        if seen is None:
            source = source_box(tile.window, micrograph.shape)
        else:
            source = seen.needed(tile.window)
        made = task(
            data[source.slices],
            model,
            (tile, source, micrograph.shape),
            known,
            options,
            dask_key_name=f"semsr-tile-{token}-{tile.index[0]}-{tile.index[1]}",
        )
        shape = output.core.scaled(loaded.card.scale).shape
        if tile.index[1] == 0:
            rows.append([])
        rows[-1].append(da.from_delayed(made, shape=shape, dtype=dtype))
    joined: da.Array = da.block(rows)
    return joined


# Small boxes of a field, enhanced just as a run of the whole field would do it.


@dataclass(frozen=True, slots=True)
class BoxPreview:
    """Everything that a box needs, measured on the whole field.

    Attributes
    ----------
    run : Run
        The field, its plan and its grey values.
    predictor : Predictor
        The network on its device.
    exact : bool
        Whether a box shows what the run will show. It does not where normalisation
        layers take their statistics from the whole field.
    """

    run: Run
    predictor: Predictor
    exact: bool

    def enhance(self, box: Box) -> tuple[Box, NDArray[Any]]:
        """Enhance one box.

        Parameters
        ----------
        box : Box
            In pixels of the input; moved onto the grid of the model and into the field.

        Returns
        -------
        Box
            What was enhanced, in pixels of the input.
        numpy.ndarray
            Its pixels, `scale` times finer.
        """
        place = self._settle(box)
        tile = self.run.around(place)
        window, missing = self.run.read(tile.window)
        result = self.predictor.predict(window, self.run.scaling)
        made, inner = self.run.deliver(place, result, tile.window, missing)
        return place, to_dtype(made[inner.slices], self.run.target.dtype)[0]

    def _settle(self, box: Box) -> Box:
        """Move a box onto the stride and into the field, cutting what is too large."""
        stride = self.run.outputs.stride
        spans = []
        for first, last, size in zip(
            (box.y0, box.x0), (box.y1, box.x1), self.run.outputs.shape, strict=True
        ):
            start = min(max(first, 0), max(0, size - (last - first)))
            start -= start % stride
            spans.append((start, min(start + last - first, size)))
        return Box(*spans[0], *spans[1])


def preview_boxes(
    micrograph: Micrograph, loaded: LoadedModel, options: EnhanceOptions | None = None
) -> BoxPreview:
    """Measure what boxes of a field need.

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
    BoxPreview
        Enhances boxes one after the other.
    """
    chosen, card = options or EnhanceOptions(), loaded.card
    predictor = Predictor(loaded, device=chosen.device, precision=chosen.precision)
    found = predictor.probe
    if chosen.resample == "keep":  # a box lies on the field's own grid all the same
        chosen = chosen.replace(resample="auto")
    shown = show(micrograph, card, found, chosen)
    data, back = shown.data, card.grey == "input"
    scaling = measure_scaling(data, card.input_percentiles, back=back)
    haze = find_haze(data, loaded.module, scaling) if chosen.haze else None
    run = Run(
        data=data,
        target=np.empty((0, 0), np.dtype(chosen.dtype or np.float32)),
        loaded=loaded,
        plan=shown.plan,
        scaling=scaling,
        haze=haze,
        device=chosen.device,
        precision=chosen.precision,
        regrid=shown.regrid,
    )
    return BoxPreview(run, predictor, not found.norms and found.halo is not None)
