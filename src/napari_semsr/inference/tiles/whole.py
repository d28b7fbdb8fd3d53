"""A field in one pass: for networks whose statistics or reach are global."""

import itertools
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import Box, IntPair, Progress, TilePlan, to_dtype
from napari_semsr.inference.exact import MeasuredMoments
from napari_semsr.inference.network_input import Regrid, set_missing
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.tiles.executors import LocalExecutor, Work
from napari_semsr.inference.tiles.seams import edges_of, sample_of
from napari_semsr.inference.tiles.worker import EnhancePlan, TiledRun, TileResult

# Ways that run a field as one, for a network that sees it on another grid.
#
# Networks that are run whole or in lockstep give their output on their own grid into a
# scratch array; a tile of the output is made as soon as all lies there that it needs.

_IN_MEMORY_BYTES = 64 << 20


def run_regridded(
    run: TiledRun,
    regrid: Regrid,
    places: Sequence[IntPair],
    folder: Path,
    begin: Callable[[TiledRun, list[IntPair]], Work],
) -> Work:
    """Enhance a field on the network's grid, and write it on its own."""
    waiting = {
        place: _tiles_over(
            run.plan.tiles, regrid.core(run.plan.outputs.tile(*place).core)
        )
        for place in places
    }
    needed = sorted(set().union(*waiting.values()))
    if not needed:
        return
    rows, columns = (side * regrid.scale for side in run.plan.tiles.shape)
    count = 0
    with _scratch((rows, columns), folder) as array:
        inner = replace(run, target=array, plan=replace(run.plan, regrid=None))
        with closing(begin(inner, needed)) as groups:
            for group in groups:
                if group is None or isinstance(group, Progress):
                    yield group
                    continue
                landed = {piece.index for piece in group}
                count += len(landed)
                notes = tuple(dict.fromkeys(n for piece in group for n in piece.notes))
                for missing in waiting.values():
                    missing -= landed
                ready = [place for place, missing in waiting.items() if not missing]
                for place in ready:
                    del waiting[place]
                    yield [_write(run, place, array, notes)]
                if not ready:
                    yield Progress(count, len(needed), "Enhancing the resampled field")


def _tiles_over(plan: TilePlan, box: Box) -> set[IntPair]:
    """List the tiles whose cores share a pixel with a box."""
    rows = range(box.y0 // plan.core, -(-box.y1 // plan.core))
    columns = range(box.x0 // plan.core, -(-box.x1 // plan.core))
    return set(itertools.product(rows, columns))


def _write(
    run: TiledRun, place: IntPair, array: NDArray[Any], notes: tuple[str, ...]
) -> TileResult:
    """Make one tile of the output."""
    core = run.plan.outputs.tile(*place).core
    made, inner = run.plan.deliver(core, array, Box.of(run.plan.tiles.shape))
    values = made[inner.slices]
    converted, clipped = to_dtype(values, run.target.dtype)
    run.target[core.scaled(run.plan.loaded.card.scale).slices] = converted
    return TileResult(place, clipped, edges_of(made, inner), sample_of(values), notes)


@contextmanager
def _scratch(shape: tuple[int, int], folder: Path) -> Iterator[NDArray[Any]]:
    """Make an array that lies in a nameless file when it is large."""
    size = shape[0] * shape[1] * np.dtype(np.float32).itemsize
    if size <= _IN_MEMORY_BYTES:
        yield np.zeros(shape, np.float32)
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        file.truncate(size)
        yield np.memmap(file, np.float32, "r+", shape=shape)


def run_whole(
    run: TiledRun, predictor: Predictor, places: Sequence[tuple[int, int]]
) -> Generator[list[TileResult] | None]:
    """Enhance a field in one pass and write it tile by tile."""
    if not places:
        return
    with LocalExecutor(run, predictor) as executor:
        result = yield from executor.call(_whole_field, run.plan, predictor)
    scale = run.plan.loaded.card.scale
    for place in places:
        core = run.plan.tiles.tile(*place).core.scaled(scale)
        converted, clipped = to_dtype(result[core.slices], run.target.dtype)
        run.target[core.slices] = converted
        sample = sample_of(result[core.slices])
        yield [TileResult(place, clipped, edges_of(result, core), sample)]


def _whole_field(plan: EnhancePlan, predictor: Predictor) -> NDArray[np.float32]:
    """Enhance a field with its padding; gives (Y * scale, X * scale)."""
    window, missing = plan.read(Box.of(plan.tiles.padded_shape))
    with MeasuredMoments():
        result = predictor.predict(window, plan.scaling)
    set_missing(result, missing, plan.loaded.card.scale)
    return result
