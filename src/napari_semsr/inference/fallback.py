"""A field whole; in lockstep when memory does not hold it after all."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace

from napari_semsr.core.errors import DeviceMemoryError
from napari_semsr.core.progress import Progress
from napari_semsr.inference.lockstep_plan import plan_lockstep
from napari_semsr.inference.lockstep_run import WAY, run_lockstep
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.sinks import Sink
from napari_semsr.inference.tasks import Piece, Run
from napari_semsr.inference.whole import run_whole

__all__ = ["run_whole_or_lockstep"]


def run_whole_or_lockstep(
    run: Run,
    predictor: Predictor,
    places: Sequence[tuple[int, int]],
    target: Sink,
    budget: int,
) -> Generator[list[Piece] | Progress]:
    """Enhance a field in one pass; in lockstep where memory runs out.

    Parameters
    ----------
    run : Run
        The work.
    predictor : Predictor
        The network on its device.
    places : sequence of tuple of int
        Rows and columns of the tiles to write.
    target : Sink
        Where it is kept which way was taken.
    budget : int
        Bytes that tiles in lockstep may take.

    Yields
    ------
    Progress or list of Piece
        Tiles that are in the target.

    Raises
    ------
    DeviceMemoryError
        If memory holds neither the field nor the smallest tile.
    """
    short: DeviceMemoryError | None = None
    with closing(run_whole(run, predictor, places)) as pieces:
        try:
            yield from pieces
        except DeviceMemoryError as error:
            short = error.with_traceback(None)  # its frames hold tensors
    if short is None:
        return
    found = plan_lockstep(predictor, run.plan, budget, core=run.plan.core)
    if found is None:
        raise short
    record = {**(target.kept(WAY) or {}), "kind": "lockstep", "core": found.tiles.core}
    target.keep(WAY, record)
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
