"""The tiled engine: a field of any size through a network.

The field is scaled by percentiles measured over all of it. Tiles are planned so that
each result equals the same pixels of an untiled pass, run with bounded memory, and
written straight into the output, one writer to a chunk. A tile is marked as done
after its pixels are written, so that an interrupted run can be resumed from the store
alone. Networks with live normalisation layers are run whole, in lockstep, or with
statistics from a sample (`napari_semsr.inference.strategy`).
"""

import logging
import math
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from napari_semsr.core import (
    DeviceMemoryError,
    InputRecord,
    Job,
    Micrograph,
    Progress,
    Provenance,
    TilePlan,
    software_versions,
)
from napari_semsr.inference.exact import (
    WAY,
    Frozen,
    LockstepPlan,
    plan_lockstep,
    run_lockstep,
)
from napari_semsr.inference.layout import fit_of, output_frame
from napari_semsr.inference.live import LiveField, LiveSink, run_live
from napari_semsr.inference.options import EnhanceOptions, EnhanceReport, MemoryWatch
from napari_semsr.inference.plan import Prepared, prepare
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.strategy import frozen_statistics, memory_budget
from napari_semsr.inference.tiles import (
    ArraySink,
    Piece,
    Places,
    Run,
    SeamMeter,
    Sink,
    StoreSink,
    run_here,
    run_regridded,
    run_whole,
)
from napari_semsr.io import OmeZarrStore
from napari_semsr.models import LoadedModel

# A field whole; in lockstep when memory does not hold it after all.


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


_logger = logging.getLogger(__name__)
_Work = Generator[list[Piece] | Progress] | Generator[list[Piece]]


@dataclass(slots=True)
class _Tally:
    """What comes in while tiles land."""

    meter: SeamMeter = field(default_factory=SeamMeter)
    clipped: int = 0
    pixels: int = 0
    notes: list[str] = field(default_factory=list)

    def take(self, piece: Piece, plan: TilePlan) -> None:
        """Count one tile."""
        self.clipped += piece.clipped
        rows, columns = plan.tile(*piece.index).core.shape
        self.pixels += rows * columns
        self.meter.add(piece.index, piece.edges, piece.sample)
        for note in piece.notes:
            if note not in self.notes:
                _logger.warning(note)
                self.notes.append(note)


def enhance_to_store(
    micrograph: Micrograph,
    loaded: LoadedModel,
    store: OmeZarrStore,
    options: EnhanceOptions | None = None,
    *,
    scheduler: str | None = None,
    live: LiveField | None = None,
) -> Job[EnhanceReport]:
    """Enhance a field into a store, tile by tile, and finish the store.

    Tiles that the store has already are skipped.

    Parameters
    ----------
    micrograph : Micrograph
        The input; a dask array is read window by window.
    loaded : LoadedModel
        The network.
    store : OmeZarrStore
        From `create_output` with the same arguments.
    options : EnhanceOptions, optional
        How the network is run.
    scheduler : str, optional
        Address of a dask cluster that sees the same files; the default runs in this
        process.
    live : LiveField, optional
        What a viewer draws meanwhile; it chooses the order, and the work is done in
        the thread that asks for it. Together with `scheduler` it only draws what the
        cluster has written.

    Returns
    -------
    EnhanceReport
        What was done and how well.

    Yields
    ------
    Progress
        Tiles done. Closing the job keeps what is done and stops between tiles.

    Raises
    ------
    WriteError
        If the store was begun with another input, model or option; it says which.
    ShapeError
        If the store's shape or chunks do not fit.
    DeviceMemoryError
        If the device's memory does not even hold the smallest piece.
    """
    chosen = options or EnhanceOptions()
    stored = StoreSink(store)
    sink = stored if live is None else LiveSink(stored, live)
    report = yield from _enhance(
        micrograph, loaded, chosen, sink, scheduler=scheduler, live=live
    )
    if not store.complete:
        store.note("report", _plain(report))
        yield from store.finish()
    return report


def _plain(report: EnhanceReport) -> dict[str, object]:
    """Give a report in JSON types, which have no infinite seam index."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in asdict(report).items()
    }


def enhance_array(
    micrograph: Micrograph, loaded: LoadedModel, options: EnhanceOptions | None = None
) -> Job[Micrograph]:
    """Enhance a field in memory.

    Parameters
    ----------
    micrograph : Micrograph
        The input.
    loaded : LoadedModel
        The network.
    options : EnhanceOptions, optional
        How the network is run.

    Returns
    -------
    Micrograph
        The result, in float32 unless `options` ask for another type, calibrated, with
        its provenance; ``metadata["enhance"]`` holds the figures of `EnhanceReport`.

    Yields
    ------
    Progress
        Tiles done.

    Raises
    ------
    DeviceMemoryError
        If the device's memory does not even hold the smallest piece.
    """
    chosen = options or EnhanceOptions()
    fit = fit_of(micrograph, loaded.card, chosen)
    frame = output_frame(micrograph, loaded.card.scale, fit)
    result = np.empty(frame.shape, dtype=np.dtype(chosen.dtype or np.float32))
    report = yield from _enhance(micrograph, loaded, chosen, ArraySink(result))
    record = InputRecord(
        role="image", name=micrograph.name, provenance=micrograph.provenance
    )
    made = Provenance(
        job="enhance",
        options=chosen.model_dump(mode="json"),
        inputs=(record,),
        model_name=loaded.card.name,
        model_digest=loaded.digest,
        versions=software_versions(),
    )
    return Micrograph(
        data=result,
        pixel_size_nm=frame.pixel_size_nm,
        name=micrograph.name,
        provenance=made,
        origin=frame.origin,
        spacing_px=frame.spacing_px,
        metadata={**micrograph.metadata, "enhance": asdict(report)},
    )


def _enhance(
    micrograph: Micrograph,
    loaded: LoadedModel,
    options: EnhanceOptions,
    target: Sink,
    *,
    scheduler: str | None = None,
    live: LiveField | None = None,
) -> Job[EnhanceReport]:
    """Prepare, run, and sum up."""
    begun = time.perf_counter()
    with MemoryWatch() as memory:
        ready = yield from prepare(
            micrograph, loaded, options, target, scattered=scheduler is not None
        )
        run, predictor, way, places = (
            ready.run,
            ready.predictor,
            ready.way,
            ready.places,
        )
        if scheduler is not None:
            run = replace(run, target=target.shared)
        tally = _Tally(notes=list(ready.notes))
        frozen = None
        if way.norm == "frozen" and places:
            frozen = yield from frozen_statistics(run, predictor, options, target)
            tally.notes.append(frozen.sentence())
            run = replace(run, statistics=frozen.statistics)
            predictor.statistics = frozen.statistics
        if way.kind != "tiles":
            asked = options.memory_gb is not None  # counts from the start of the run
            held = memory.grown_bytes if asked else 0
            work: _Work = _as_one(
                replace(ready, run=run), options, target, scheduler, held
            )
        elif live is not None and scheduler is None:
            work = run_live(run, predictor, live)
        else:
            work = _independent(run, predictor, places, scheduler)
        yield from _land(work, target, run.outputs, tally, len(places))
    return _report(ready, tally, frozen, time.perf_counter() - begun, memory.peak_mb)


def _report(
    ready: Prepared,
    tally: _Tally,
    frozen: Frozen | None,
    seconds: float,
    peak_memory_mb: float,
) -> EnhanceReport:
    """Say what was done."""
    run, way, plan = ready.run, ready.way, ready.run.outputs
    halo = (run.plan if way.lockstep is None else way.lockstep.tiles).halo
    return EnhanceReport(
        tiles=len(plan),
        resumed=len(plan) - len(ready.places),
        tile_px=plan.core,
        halo_px=math.ceil(halo / ready.fit.factor),
        seconds=seconds,
        megapixels_per_second=tally.pixels / 1e6 / seconds,
        peak_memory_mb=peak_memory_mb,
        device=str(ready.predictor.device),
        precision=ready.predictor.precision,
        model=run.loaded.card.name,
        norm=way.norm,
        norm_error=None if frozen is None else frozen.error,
        tile_mismatch=tally.meter.mismatch,
        seam_index=tally.meter.seam_index,
        clipped=tally.clipped,
        haze_gain=None if run.haze is None else run.haze.spread,
        seen_pixel_size_nm=ready.fit.seen_nm,
        notes=tuple(tally.notes),
    )


def _as_one(
    ready: Prepared,
    options: EnhanceOptions,
    target: Sink,
    scheduler: str | None,
    held: int,
) -> _Work:
    """Run tiles that depend on each other: whole, or in lockstep.

    Bytes that the run holds already, libraries among them, are not there for layers.
    """
    run, predictor, lockstep = ready.run, ready.predictor, ready.way.lockstep
    budget = max(0, memory_budget(predictor, options) - held)
    if lockstep is not None:
        left = max(0, lockstep.memory_bytes - held)
        lockstep = replace(lockstep, memory_bytes=left)

    def begin(run: Run, places: Places) -> _Work:
        if scheduler is not None:
            return _as_one_there(run, predictor, places, lockstep, target, scheduler)
        if lockstep is not None:
            return run_lockstep(run, predictor, places, lockstep, target)
        return run_whole_or_lockstep(run, predictor, places, target, budget)

    if run.regrid is None:
        return begin(run, ready.places)
    return run_regridded(run, run.regrid, ready.places, target.folder, begin)


def _as_one_there(
    run: Run,
    predictor: Predictor,
    places: Places,
    lockstep: LockstepPlan | None,
    target: Sink,
    scheduler: str,
) -> _Work:
    """Run tiles that depend on each other on a cluster."""
    from napari_semsr.inference.lockstep_there import (
        run_lockstep_there,
        run_whole_there,
    )  # dask starts slowly

    if lockstep is None:
        return run_whole_there(run, places, scheduler)
    return run_lockstep_there(run, predictor, places, lockstep, target, scheduler)


def _independent(
    run: Run, predictor: Predictor, places: Places, scheduler: str | None
) -> Generator[list[Piece]]:
    """Run tiles that need nothing of each other, here or on a cluster."""
    if scheduler is None:
        return run_here(run, predictor, places)
    from napari_semsr.inference.tiles import run_there  # dask starts slowly

    return run_there(run, predictor, places, scheduler)


def _land(
    work: _Work,
    sink: Sink,
    plan: TilePlan,
    tally: _Tally,
    total: int,
) -> Iterator[Progress]:
    """Mark tiles as they come, and say so."""
    skipped = len(plan) - total
    done = skipped
    said = f", {skipped} of them before" if skipped else ""
    yield Progress(done, len(plan), "Enhancing tiles")
    with closing(work) as pieces:
        for group in pieces:
            if isinstance(group, Progress):
                yield group
                continue
            for piece in group:
                sink.finish_tile(piece.index)
                tally.take(piece, plan)
                done += 1
            notes = group[-1].notes if group else ("Waiting for the view to move",)
            message = notes[0] if notes else f"Enhancing tiles{said}"
            yield Progress(done, len(plan), message)
