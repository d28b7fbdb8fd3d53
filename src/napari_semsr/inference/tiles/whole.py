"""A field as one: in one pass or in lockstep, for networks that look at all of it."""

import itertools
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import Box, DeviceMemoryError, IntPair, Progress, TilePlan
from napari_semsr.inference.exact import (
    STRATEGY_KEY,
    LockstepPlan,
    MeasuredMoments,
    plan_lockstep,
    run_lockstep,
)
from napari_semsr.inference.network_input import Regrid, set_missing
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.tiles.executors import LocalExecutor, Work
from napari_semsr.inference.tiles.run import (
    EnhancePlan,
    Places,
    Sink,
    TiledRun,
    TileResult,
    edges_of,
)


def run_as_one(
    run: TiledRun,
    predictor: Predictor,
    places: Places,
    lockstep: LockstepPlan | None,
    target: Sink,
    budget: int,
) -> Work:
    """Run tiles that depend on each other: whole, or in lockstep.

    Bytes that the run holds already, libraries among them, are not there for layers.
    """

    def begin(run: TiledRun, places: Places) -> Work:
        if lockstep is not None:
            return run_lockstep(run, predictor, places, lockstep, target)
        return _whole_or_lockstep(run, predictor, places, target, budget)

    if run.plan.regrid is None:
        return begin(run, places)
    return _run_regridded(run, run.plan.regrid, places, target.folder, begin)


def _whole_or_lockstep(
    run: TiledRun,
    predictor: Predictor,
    places: Places,
    target: Sink,
    budget: int,
) -> Work:
    """Enhance a field in one pass; in lockstep where memory runs out."""
    short: DeviceMemoryError | None = None
    with closing(_run_whole(run, predictor, places)) as pieces:
        try:
            yield from pieces
        except DeviceMemoryError as error:
            short = error.with_traceback(None)  # its frames hold tensors
    if short is None:
        return
    found = plan_lockstep(predictor, run.plan.tiles, budget, core=run.plan.tiles.core)
    if found is None or run.plan.options.self_ensemble:
        raise short
    record = {
        **(target.kept(STRATEGY_KEY) or {}),
        "kind": "lockstep",
        "core": found.tiles.core,
    }
    target.keep(STRATEGY_KEY, record)
    note = (
        "Memory was short: the field is not run whole, but tiles of "
        f"{found.tiles.core} px step together."
    )
    yield Progress(0, 0, note)
    with closing(run_lockstep(run, predictor, places, found, target)) as events:
        for event in events:
            if isinstance(event, Progress):
                yield event
            else:
                yield [replace(e, notes=(note, *e.notes)) for e in event]


def _run_whole(
    run: TiledRun, predictor: Predictor, places: Places
) -> Generator[list[TileResult] | None]:
    """Enhance a field in one pass and write it tile by tile."""
    if not places:
        return
    with LocalExecutor(run, predictor) as executor:
        result = yield from executor.call(_whole_field, run.plan, predictor)
    scale = run.plan.loaded.card.scale
    for place in places:
        core = run.plan.tiles.tile(*place).core.scaled(scale)
        yield [run.write(place, result[core.slices], edges_of(result, core))]


def _whole_field(plan: EnhancePlan, predictor: Predictor) -> NDArray[np.float32]:
    """Enhance a field with its padding; gives (Y * scale, X * scale)."""
    window, missing = plan.read(Box.of(plan.tiles.padded_shape))
    with MeasuredMoments():
        result = predictor.predict(window, plan.scaling)
    set_missing(result, missing, plan.loaded.card.scale)
    return result


# A network that sees the field on another grid gives its output on that grid into a
# scratch array; a tile of the output is made as soon as all lies there that it needs.

_IN_MEMORY_BYTES = 64 << 20


def _run_regridded(
    run: TiledRun,
    regrid: Regrid,
    places: Places,
    folder: Path,
    begin: Callable[[TiledRun, Places], Work],
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
    count, seen = 0, Box.of(run.plan.tiles.shape)
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
                    core = run.plan.outputs.tile(*place).core
                    made, at = run.plan.deliver(core, array, seen)
                    yield [run.write(place, made[at.slices], edges_of(made, at), notes)]
                if not ready:
                    yield Progress(count, len(needed), "Enhancing the resampled field")


def _tiles_over(plan: TilePlan, box: Box) -> set[IntPair]:
    """List the tiles whose cores share a pixel with a box."""
    rows = range(box.y0 // plan.core, -(-box.y1 // plan.core))
    columns = range(box.x0 // plan.core, -(-box.x1 // plan.core))
    return set(itertools.product(rows, columns))


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
