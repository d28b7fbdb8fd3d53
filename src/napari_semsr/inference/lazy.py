"""Lazy enhancement of images as dask arrays, and previews of single boxes.

Names in the graph are derived from the field, the options and the model's digest, so
that tiles cached for an older version of a model are never used.
"""

import threading
import weakref
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
from dask.array.core import normalize_chunks
from dask.base import tokenize
from dask.delayed import delayed

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
from napari_semsr.inference.tiles import TiledRun
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

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return self.block.dtype

    def __getitem__(self, index: tuple[slice, slice]) -> RealArray:
        rows, columns = (
            slice(s.start - first, s.stop - first)
            for s, first in zip(index, self.corner, strict=True)
        )
        return self.block[rows, columns]


def _get_predictor(model: LoadedModel, device: str, precision: str) -> Predictor:
    """Return the predictor of a network, created once per process."""
    with _one_at_a_time:
        predictors = _ready.setdefault(model.module, {})
        if (device, precision) not in predictors:
            predictors[device, precision] = Predictor(
                model, device=device, precision=precision
            )
        return predictors[device, precision]


def _enhance_tile(block: RealArray, *, run: TiledRun, block_id: IntPair) -> RealArray:
    """Enhance one tile, given its input window."""
    plan, options = run.plan, run.plan.options
    corner = _get_source_box(plan, block_id).corner
    region = _FieldRegion(block, corner, plan.source[0])
    plan = replace(plan, data=_replace_source(plan.data, region))
    predictor = _get_predictor(plan.model, options.device, options.precision)
    box = plan.outputs.tile(*block_id).core
    return _enhance_box(plan, predictor, box, run.statistics)


def _enhance_box(
    plan: EnhancePlan,
    predictor: Predictor,
    box: Box,
    statistics: Statistics | None = None,
) -> RealArray:
    """Return the result for a box, given in input pixels."""
    with _one_at_a_time:
        predictor.statistics = statistics
        core_values = plan.compute_tiles(predictor, [plan.create_tile(box)])[0]
    part, inner = plan.convert_output(box, *core_values)
    return convert_dtype(part[inner.slices], plan.output.dtype)[0]


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
    predictor = _get_predictor(model, settings.device, settings.precision)
    output = plan_output(micrograph, model.card.model_dump(), settings)
    job = plan_enhancement(micrograph, output, model, settings, predictor, apart=True)
    plan, statistics = finish(job), None
    if plan.strategy.norm == "sampled":
        statistics = finish(measure_sample(plan, predictor)).statistics
    return _build_dask_array(micrograph, TiledRun(plan, None, statistics))


def _build_dask_array(micrograph: Micrograph, run: TiledRun) -> da.Array:
    """Build a dask array with one task per tile."""
    plan, data = run.plan, micrograph.data
    field = data.name if micrograph.is_lazy else _tokenize_field(data)
    token = tokenize(field, plan.identity(), plan.outputs.core)
    if not micrograph.is_lazy:  # `from_array` copies an array, even a mapped file
        source = delayed(data, name=f"semsr-field-{token}", traverse=False)
        data = da.from_delayed(source, data.shape, data.dtype)
    # tasks receive their field and the network by name
    task_run = replace(run, plan=replace(plan, data=_replace_source(plan.data, None)))
    # windows in a row of tiles share rows, those in a column share columns
    rows, columns = (range(count) for count in plan.outputs.grid)
    spans = [_get_source_box(plan, (row, 0)).slices[0] for row in rows]
    lines = da.concatenate([data[span].rechunk({0: -1}) for span in spans])
    spans = [_get_source_box(plan, (0, column)).slices[1] for column in columns]
    parts = [lines[:, span].rechunk({1: -1}) for span in spans]
    tiled_array: da.Array = da.map_blocks(
        _enhance_tile,
        da.concatenate(parts, axis=1),
        run=delayed(task_run, name=f"semsr-run-{token}", traverse=False),
        name=f"semsr-tile-{token}",
        dtype=plan.output.dtype,
        chunks=normalize_chunks(plan.output.tile_shape, plan.output.frame.shape),
        meta=np.empty((0, 0), plan.output.dtype),
    )
    return tiled_array


def _tokenize_field(field: Any) -> str:
    """Return a dask token for an image, based on its pixels or memory-mapped file."""
    whole = field
    while isinstance(getattr(whole, "base", None), np.ndarray):
        whole = whole.base
    path = Path(getattr(whole, "filename", None) or "")
    is_mapped = isinstance(whole, np.memmap) and whole.mode == "r"
    if not (is_mapped and path.is_file()):
        return str(tokenize(field))
    file = path.stat()
    place = field.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    part = place + whole.offset, field.shape, field.strides, field.dtype.str
    return str(tokenize(path, file.st_mtime_ns, file.st_size, file.st_ino, *part))


def _replace_source(field: Any, image: object) -> Any:
    """Return the field of a plan, patched or resampled, of another source image."""
    if "source" not in getattr(field, "__dataclass_fields__", ()):
        return image
    return replace(field, source=_replace_source(field.source, image))


def _get_source_box(plan: EnhancePlan, index: IntPair) -> Box:
    """Return the image region required to compute a tile."""
    window = plan.tile(index).window
    if isinstance(plan.data, ResampledField):
        return plan.data.source_box(window)
    return get_source_box(window, plan.source[0])


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
        outputs, sides = self.plan.outputs, box.shape
        y, x = (
            min(max(first, 0), max(0, size - side)) // outputs.stride * outputs.stride
            for first, side, size in zip(box.corner, sides, outputs.shape, strict=True)
        )
        place = Box.from_shape(sides, (y, x))
        place = place.intersection(Box.from_shape(outputs.shape))
        return place, _enhance_box(self.plan, self.predictor, place)


def prepare_preview(
    micrograph: Micrograph, model: LoadedModel, settings: EnhanceOptions
) -> BoxPreview:
    """Prepare a preview of individual boxes in an image."""
    predictor = Predictor(model, device=settings.device, precision=settings.precision)
    probe = predictor.probe
    # a box costs little, and is on the field's own grid in any case
    resample = "auto" if settings.resample == "keep" else settings.resample
    settings = settings.replace(halo_tolerance=None, resample=resample)
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
