"""Lazy enhancement of images as dask arrays, and previews of single boxes.

Names in the graph are derived from the field, the options and the model's digest, so
that tiles cached for an older version of a model are never used.
"""

import threading
import weakref
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.delayed import delayed
from torch import nn

from napari_semsr.core import (
    Box,
    IntPair,
    Micrograph,
    RealArray,
    convert_dtype,
    run as finish,
)
from napari_semsr.inference.ensemble import Statistics
from napari_semsr.inference.network_input import ResampledField, get_source_box
from napari_semsr.inference.options import EnhanceOptions, plan_output
from napari_semsr.inference.plan import (
    EnhancePlan,
    ExecutionStrategy,
    measure_sample,
    plan_enhancement,
)
from napari_semsr.inference.predictor import Predictor
from napari_semsr.models import LoadedModel

_ready: weakref.WeakKeyDictionary[object, dict[tuple[str, str], Predictor]]
_ready = weakref.WeakKeyDictionary()
_one_at_a_time = threading.Lock()


@dataclass(frozen=True, slots=True)
class _FieldRegion:
    """Image region indexed in whole-image coordinates."""

    block: RealArray  # (Y, X) The pixels
    corner: IntPair  # First pixel of the block in the field
    shape: IntPair  # Rows and columns of the field

    ndim = 2

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return self.block.dtype

    def __getitem__(self, index: tuple[slice, slice]) -> RealArray:
        rows, columns = (
            slice(s.start - first, s.stop - first)
            for s, first in zip(index, self.corner, strict=True)
        )
        return self.block[rows, columns]


@dataclass(frozen=True, slots=True)
class _TileWindows:
    """Array-like view of an in-memory image as concatenated windows, one per tile."""

    field: RealArray  # (Y, X)
    rows: Sequence[slice]  # Rows of the field, for each row of tiles
    columns: Sequence[slice]

    ndim = 2

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return self.field.dtype

    @property
    def shape(self) -> IntPair:
        rows, columns = (
            sum(part.stop - part.start for part in parts)
            for parts in (self.rows, self.columns)
        )
        return rows, columns

    def __getitem__(self, index: tuple[slice, slice]) -> RealArray:
        rows, columns = map(_get_field_slice, (self.rows, self.columns), index)
        return self.field[rows, columns]


def _get_field_slice(windows: Sequence[slice], index: slice) -> slice:
    """Convert a slice of the concatenated windows to a slice of the image."""
    starts = [0, *accumulate(part.stop - part.start for part in windows)]
    number = bisect_right(starts, index.start) - 1
    back = windows[number].start - starts[number]
    return slice(index.start + back, index.stop + back)


def _get_predictor(model: LoadedModel, device: str, precision: str) -> Predictor:
    """Return the predictor of a network, created once per process."""
    predictors = _ready.setdefault(model.module, {})
    if (device, precision) not in predictors:
        predictors[device, precision] = Predictor(
            model, device=device, precision=precision
        )
    return predictors[device, precision]


def _enhance_tile(
    block: RealArray,
    *,
    model: LoadedModel,
    plan: EnhancePlan,
    shape: IntPair,
    statistics: Statistics | None,
    block_id: IntPair,
) -> RealArray:
    """Enhance one tile, given its input window and the image `shape`."""
    tile = plan.tile(block_id)
    source = _get_source_box(plan, block_id, shape)
    part = _FieldRegion(block, (source.y0, source.x0), shape)
    plan = replace(plan, data=_replace_source(plan.data, part), model=model)
    with _one_at_a_time:
        predictor = _get_predictor(model, plan.options.device, plan.options.precision)
        predictor.statistics = statistics
        core_values = plan.compute_tiles(predictor, [tile])[0]
        predictor.statistics = None
    core = plan.outputs.tile(*tile.index).core
    part_values, inner = plan.convert_output(core, *core_values)
    return convert_dtype(part_values[inner.slices], plan.output.dtype)[0]


def create_enhanced_array(
    micrograph: Micrograph, model: LoadedModel, options: EnhanceOptions | None = None
) -> da.Array:
    """Enhance an image lazily.

    The range of grey values is measured immediately, over the whole field. For a
    network with live normalisation layers, a field that can be run whole is one chunk;
    otherwise its statistics are measured on a sample, immediately, too. The chunks of
    the result, (Y * scale, X * scale), are the tiles' cores.
    """
    settings = options or EnhanceOptions()
    with _one_at_a_time:
        predictor = _get_predictor(model, settings.device, settings.precision)
    output = plan_output(micrograph, model.card.model_dump(), settings)
    job = plan_enhancement(micrograph, output, model, settings, predictor, apart=True)
    plan, statistics = finish(job), None
    if plan.strategy.norm == "sampled":
        statistics = finish(measure_sample(plan, predictor)).statistics
    return _build_dask_array(micrograph, plan, statistics)


def _build_dask_array(
    micrograph: Micrograph, plan: EnhancePlan, statistics: Statistics | None
) -> da.Array:
    """Build a dask array with one task per tile."""
    loaded_model, outputs = plan.model, plan.outputs
    resampled_field = plan.data if isinstance(plan.data, ResampledField) else None
    data: Any = micrograph.data
    field = data.name if micrograph.is_lazy else _tokenize_field(data)
    option_values = plan.options.model_dump(mode="json", exclude={"batch", "memory_gb"})
    steps = (
        None
        if resampled_field is None
        else [str(step) for step in resampled_field.there.steps]
    )
    token = tokenize(
        field, loaded_model.digest, option_values, outputs.core, plan.scaling, steps
    )
    model = delayed(loaded_model, name=f"semsr-model-{token}", traverse=False)
    task_plan = replace(  # tasks receive their field and the network by name
        plan,
        data=_replace_source(plan.data, None),
        model=replace(loaded_model, module=nn.Identity()),
    )
    # windows in a row of tiles share rows, those in a column share columns
    count, scale = outputs.grid, loaded_model.card.scale
    rows = [
        _get_source_box(plan, (i, 0), micrograph.shape).slices[0]
        for i in range(count[0])
    ]
    columns = [
        _get_source_box(plan, (0, i), micrograph.shape).slices[1]
        for i in range(count[1])
    ]
    sides = tuple(
        tuple(part.stop - part.start for part in of) for of in (rows, columns)
    )
    if micrograph.is_lazy:
        lines = da.concatenate([data[part] for part in rows], axis=0)
        windows = da.concatenate([lines[:, part] for part in columns], axis=1)
        windows = windows.rechunk(sides)
    else:  # otherwise dask copies the array, even a whole mapped file
        window_source, name = _TileWindows(data, rows, columns), f"semsr-field-{token}"
        windows = da.from_array(window_source, chunks=sides, name=name, asarray=False)
    cores = [outputs.tile(i, 0).core.scale(scale).shape[0] for i in range(count[0])]
    breadths = [outputs.tile(0, i).core.scale(scale).shape[1] for i in range(count[1])]
    enhance = partial(  # dask would traverse keyword arguments
        _enhance_tile, plan=task_plan, shape=micrograph.shape, statistics=statistics
    )
    tiled_array: da.Array = da.map_blocks(
        enhance,
        windows,
        model=model,
        name=f"semsr-tile-{token}",
        dtype=plan.output.dtype,
        chunks=(tuple(cores), tuple(breadths)),
        meta=np.empty((0, 0), plan.output.dtype),
    )
    return tiled_array


def _tokenize_field(field: RealArray) -> str:
    """Return a dask token for an image, based on its pixels or memory-mapped file."""
    whole: object = field
    while whole is not None and not isinstance(whole, np.memmap):
        whole = whole.base if isinstance(whole, np.ndarray) else None
    while whole is not None and isinstance(whole.base, np.memmap):
        whole = whole.base
    if whole is None or whole.mode != "r" or whole.filename is None:
        return str(tokenize(field))
    try:
        file = Path(whole.filename).stat()
    except OSError:  # mapped, but the file was removed
        return str(tokenize(field))
    place = field.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    part = place + whole.offset, field.shape, field.strides, field.dtype.str
    key = str(whole.filename), file.st_mtime_ns, file.st_size, file.st_ino
    return str(tokenize(*key, *part))


def _replace_source(field: Any, image: object) -> Any:
    """Return the field of a plan, patched or resampled, of another source image."""
    if "source" not in getattr(field, "__dataclass_fields__", ()):
        return image
    return replace(field, source=_replace_source(field.source, image))


def _get_source_box(plan: EnhancePlan, index: IntPair, shape: IntPair) -> Box:
    """Return the image region required to compute a tile."""
    window = plan.tile(index).window
    if isinstance(plan.data, ResampledField):
        return plan.data.source_box(window)
    return get_source_box(window, shape)


# Small parts of a field, enhanced as in a run of the whole field.


@dataclass(frozen=True, slots=True)
class BoxPreview:
    """Preview of image regions, using statistics of the whole image."""

    plan: EnhancePlan  # The field, its tiles and its grey values
    predictor: Predictor  # The network on its device
    # Whether a box equals the result of the run; not so if normalisation layers compute
    # statistics of the whole field
    exact: bool

    def enhance(self, box: Box) -> tuple[Box, RealArray]:
        """Enhance one box, given in input pixels.

        The box is first aligned to the model's stride and moved into the field. Returns
        the enhanced box, in pixels of the input, and its pixels, `scale` times finer.
        """
        stride = self.plan.outputs.stride
        spans = []
        for first, last, size in zip(
            (box.y0, box.x0), (box.y1, box.x1), self.plan.outputs.shape, strict=True
        ):
            start = min(max(first, 0), max(0, size - (last - first)))
            start -= start % stride
            spans.append((start, min(start + last - first, size)))  # crop if needed
        place = Box(*spans[0], *spans[1])
        tile = self.plan.create_tile(place)
        core_values = self.plan.compute_tiles(self.predictor, [tile])[0]
        part, inner = self.plan.convert_output(place, *core_values)
        return place, convert_dtype(part[inner.slices], self.plan.output.dtype)[0]


def prepare_preview(
    micrograph: Micrograph, model: LoadedModel, settings: EnhanceOptions
) -> BoxPreview:
    """Prepare a preview of individual boxes in an image."""
    predictor = Predictor(model, device=settings.device, precision=settings.precision)
    probe = predictor.probe
    settings = settings.replace(halo_tolerance=None)  # a box costs little
    if settings.resample == "keep":  # a box is on the field's own grid in any case
        settings = settings.replace(resample="auto")
    job = plan_enhancement(
        micrograph,
        plan_output(micrograph, model.card.model_dump(), settings),
        model,
        settings,
        predictor,
        strategy=ExecutionStrategy("tile" if probe.norms else "none", "tiles"),
        apart=probe.halo is not None,
    )
    plan = finish(job)
    if plan.model is not model:
        predictor = predictor.create_field_predictor(plan.model)
    return BoxPreview(plan, predictor, not probe.norms and probe.halo is not None)
