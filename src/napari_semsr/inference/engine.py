"""Tiled engine that applies a network to a field of any size.

Grey values are scaled by percentiles of the whole field. Tiles are planned so that each
result equals the same pixels of an untiled pass, run with bounded memory, and written
directly into the output, one writer per chunk. A tile is marked as done after its
pixels are written (`StoreSink.finish_tile`), so that an interrupted run can be resumed
from the store alone, with the tiles without a mark (`StoreSink.list_pending_tiles`).
Networks with live normalisation layers are run whole, or in tiles with statistics from
a sample (`napari_semsr.inference.plan`).
"""

import itertools
import logging
import math
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Self, TypeVar

import numpy as np
import psutil

from napari_semsr import core
from napari_semsr.inference import tiles
from napari_semsr.inference.ensemble import MeasuredMoments
from napari_semsr.inference.live import LiveField
from napari_semsr.inference.network_input import mask_missing_pixels
from napari_semsr.inference.options import (
    EnhanceOptions,
    EnhanceReport,
    OutputPlan,
    plan_output,
)
from napari_semsr.inference.plan import (
    EnhancePlan,
    SampledStatistics,
    choose_block,
    choose_strategy,
    measure_sample,
    plan_enhancement,
)
from napari_semsr.inference.predictor import Predictor
from napari_semsr.io import OmeZarrStore
from napari_semsr.models import LoadedModel

_T = TypeVar("_T")
Groups = Iterator[Sequence[core.IntPair]]
"""Tiles that are run together; none to wait."""
Work = Generator[list[tiles.TileResult] | core.Progress | None]
"""Generator that yields tiles as they are written, or None while tasks are still
running.
"""
STRATEGY_KEY = "way"
_STATISTICS_KEY = "frozen"  # key of the statistics in a store
_PERIOD_S = 0.05  # between two readings of memory use; chosen
_ROUNDING = 0.999  # share of a width that remains after logarithm and exponential
_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Tally:
    """Totals over the tiles of a run."""

    meter: tiles.SeamMeter = field(default_factory=tiles.SeamMeter)
    clipped_pixels: int = 0
    pixels: int = 0
    notes: list[str] = field(default_factory=list)

    def add_tile(self, piece: tiles.TileResult, plan: core.TilePlan) -> None:
        self.clipped_pixels += piece.clipped_pixels
        rows, columns = plan.tile(*piece.index).core.shape
        self.pixels += rows * columns
        self.meter.add(piece.index, piece.edges, piece.sample)
        for note in piece.notes:
            if note not in self.notes:
                _logger.warning(note)
                self.notes.append(note)


class MemoryMonitor:
    """Monitor of this process's resident memory, and the time when it was created."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._first = int(self._process.memory_info().rss)
        self.start = time.perf_counter()
        self.peak_mb = 0.0

    @property
    def memory_growth_bytes(self) -> int:
        """Growth of resident memory since this object was created."""
        return max(0, int(self._process.memory_info().rss) - self._first)

    def _poll_memory(self) -> None:
        has_ended = False
        while not has_ended:
            has_ended = self._stop.wait(_PERIOD_S)
            self.peak_mb = max(self.peak_mb, self._process.memory_info().rss / 1e6)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll_memory, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A fully planned run, ready to process its first tile."""

    plan: EnhancePlan
    predictor: Predictor  # The network on its device
    watch: MemoryMonitor  # Memory use and time so far
    scheduler: str | None  # Address of a dask cluster; None for this process


def plan_run(
    micrograph: core.Micrograph,
    output: OutputPlan,
    model: LoadedModel,
    options: EnhanceOptions | None = None,
    *,
    store: OmeZarrStore | None = None,
    scheduler: str | None = None,
    see_rows: Callable[[core.RealArray], object] | None = None,
) -> core.Job[PlannedRun]:
    """Move the network to its device, measure the image, and plan the run.

    `output` is from `plan_output` with the same image and options; `store` from
    `create_output_store`: an interrupted run is resumed with the strategy and the
    precision that it recorded. `scheduler` is the address of a dask cluster with access
    to the same files; without one the run stays in this process. `see_rows` receives
    all pixels of the image in bands of rows, since they are read here.
    """
    settings = options or EnhanceOptions()
    history = None if store is None else store.record.provenance
    precision: str = settings.precision
    if precision == "auto" and history is not None:
        precision = history.precision or precision
    with MemoryMonitor() as watch:
        predictor = Predictor(model, device=settings.device, precision=precision)
        planning = plan_enhancement(
            micrograph,
            output,
            model,
            settings,
            predictor,
            before=None if store is None else store.read_notes().get(STRATEGY_KEY),
            is_scattered=scheduler is not None,
            see_rows=see_rows,
        )
        plan = yield from run_in_thread(planning, predictor)
        blur_px = plan.options.blur_px
        is_deblurred = plan.options.strength * plan.options.deblur
        if blur_px and plan.condition is not None and is_deblurred:
            corrected_px = core.get_blur(plan.condition)
            if corrected_px < _ROUNDING * blur_px:
                core.warn(
                    f"This image has more fine detail than a blur of {blur_px:g} px "
                    f"allows, so only a blur of {corrected_px:.2g} px is corrected, "
                    "the largest that is consistent with the image.",
                    "blur-overstated",
                )
        if predictor.note is not None:
            plan = replace(plan, notes=(predictor.note, *plan.notes))
        first_device = history and history.device and history.device.split(":")[0]
        if first_device and first_device != predictor.device.type:
            sentence = (
                f"This run was started on {first_device} and is being resumed on "
                f"{predictor.device.type}, so the tiles may differ by rounding errors. "
                "Start again (`overwrite`) for identical arithmetic."
            )
            note = core.Message(sentence, "device-changed")
            plan = replace(plan, notes=(*plan.notes, note))
        if plan.model is not model:
            predictor = predictor.create_field_predictor(plan.model)
    return PlannedRun(plan, predictor, watch, scheduler)


def enhance_to_store(
    run: PlannedRun,
    store: OmeZarrStore,
    *,
    live: LiveField | None = None,
) -> core.Job[EnhanceReport]:
    """Enhance an image tile by tile into a store, and complete the store.

    Tiles that are already in the store are skipped. `live` shows the result in a viewer
    and chooses the order of tiles. Progress is reported at least ten times a second;
    closing the job keeps finished tiles and stops within a layer of the network.
    """
    report = yield from _execute_run(run, tiles.StoreSink(store, live))
    if not store.is_complete:
        plain = {  # JSON has no NaN or infinity
            name: None if isinstance(one, float) and not math.isfinite(one) else one
            for name, one in asdict(report).items()
        }
        store.write_note("report", plain)
        yield from store.finish()
    return report


def enhance_in_memory(
    micrograph: core.Micrograph,
    model: LoadedModel,
    options: EnhanceOptions | None = None,
    *,
    provenance: core.Provenance | None = None,
) -> core.Job[core.Micrograph]:
    """Enhance an image in memory.

    The result is float32 unless `options` specify another type, calibrated, with its
    `provenance`; ``metadata["enhance"]`` has the figures of `EnhanceReport`.
    """
    settings = options or EnhanceOptions()
    output = plan_output(micrograph, model.card.model_dump(), settings)
    frame = output.frame
    result = np.empty(frame.shape, dtype=output.dtype)
    run = yield from plan_run(micrograph, output, model, settings)
    report = yield from _execute_run(run, tiles.ArraySink(result))
    return core.Micrograph(
        data=result,
        pixel_size_nm=frame.pixel_size_nm,
        name=micrograph.name,
        provenance=provenance,
        origin=frame.origin,
        spacing_px=frame.spacing_px,
        metadata={**micrograph.metadata, "enhance": asdict(report)},
    )


def _execute_run(run: PlannedRun, sink: tiles.Sink) -> core.Job[EnhanceReport]:
    """Execute a planned run and return its report."""
    plan, predictor, watch = run.plan, run.predictor, run.watch
    with watch:
        sink.prepare(plan)
        if sink.read_value(STRATEGY_KEY) is None:
            sink.store_value(STRATEGY_KEY, plan.strategy.to_record())
        places = sink.list_pending_tiles(plan.outputs)
        tally, memory_error, statistics = _Tally(notes=list(plan.notes)), None, None
        if plan.strategy.kind == "whole":
            work = _run_whole_field(tiles.TiledRun(plan, sink.array), predictor, places)
            try:
                yield from _collect_tiles(work, sink, plan.outputs, tally, len(places))
            except core.DeviceMemoryError as error:
                memory_error = error.with_traceback(None)  # its frames keep tensors
        if memory_error is not None:
            is_complete = len(places) == len(plan.outputs)
            before = None if is_complete else sink.read_value(STRATEGY_KEY)
            try:
                strategy = choose_strategy(
                    predictor, plan.options, plan.tiles, before, fits=False
                )
            except core.DeviceMemoryError as refused:
                raise refused from memory_error
            sink.store_value(STRATEGY_KEY, strategy.to_record())
            run = replace(run, plan=replace(plan, strategy=strategy))
            note = core.Message(
                f"Not enough memory: {memory_error}", core.get_error_code(memory_error)
            )
            tally.notes += [note, *run.plan.strategy.notes]
            yield core.Progress(0, 0, tally.notes[-1])
        if run.plan.strategy.kind == "tiles":
            statistics = yield from _run_tiles(run, sink, places, tally)
    plan, seconds = run.plan, time.perf_counter() - watch.start
    outputs, condition = plan.outputs, plan.condition
    return EnhanceReport(
        tiles=len(outputs),
        resumed=len(outputs) - len(places),
        tile_px=outputs.core,
        halo_px=math.ceil(plan.tiles.halo / plan.output.fit.resampling_factor),
        seconds=seconds,
        megapixels_per_second=tally.pixels / 1e6 / seconds,
        peak_memory_mb=watch.peak_mb,
        device=str(predictor.device),
        precision=predictor.precision,
        model=plan.model.card.name,
        norm=plan.strategy.norm,
        norm_error=None if statistics is None else statistics.error,
        tile_mismatch=tally.meter.mismatch if len(outputs) > 1 else 0.0,
        seam_index=tally.meter.seam_index,
        clipped=tally.clipped_pixels,
        haze_gain=None if plan.haze is None else plan.haze.gain_range,
        noise_percent=None if condition is None else 100 * core.get_noise(condition),
        blur_px=None if condition is None else core.get_blur(condition),
        seen_pixel_size_nm=plan.output.fit.seen_nm,
        notes=tuple(tally.notes),
    )


def _run_tiles(
    planned: PlannedRun, sink: tiles.Sink, places: tiles.Places, tally: _Tally
) -> core.Job[SampledStatistics | None]:
    """Run independent tiles; return the sample statistics, if they were needed."""
    plan, predictor, scheduler = planned.plan, planned.predictor, planned.scheduler
    run = tiles.TiledRun(plan, sink.array)
    has_limit = plan.options.memory_gb is not None  # limits growth since the start
    grown_before = planned.watch.memory_growth_bytes if has_limit else 0
    statistics = None
    if plan.strategy.norm == "sampled" and places:
        before = sink.read_value(_STATISTICS_KEY)
        if before is None:
            sampling = measure_sample(plan, predictor)
            statistics = yield from run_in_thread(sampling, predictor)
            sink.store_value(_STATISTICS_KEY, statistics.to_json())
        else:
            statistics = SampledStatistics.from_json(before)
        tally.notes.append(core.Message(statistics.describe(), "statistics-sampled"))
        run = replace(run, statistics=statistics.statistics)
    predictor.statistics = run.statistics
    batch = predictor.batch or 1
    groups: Groups = (places[at : at + batch] for at in range(0, len(places), batch))
    if sink.live is not None:
        groups = iter(partial(sink.live.take_tiles, batch), None)
    elif scheduler is not None or predictor.device.type == "cpu":
        groups = _group_tiles(places, choose_block(plan, predictor, grown_before))
    work = _run_independent_tiles(run, predictor, groups, scheduler)
    yield from _collect_tiles(work, sink, plan.outputs, tally, len(places))
    return statistics


def _run_whole_field(
    run: tiles.TiledRun, predictor: Predictor, places: tiles.Places
) -> Work:
    """Enhance a padded image in one pass and write it tile by tile."""
    if not places:
        return
    plan = run.plan

    def enhance_field() -> core.Job[core.Float32Array]:
        yield step
        window, missing = plan.read_clean_window(
            core.Box.from_shape(plan.tiles.padded_shape)
        )
        with MeasuredMoments():
            (output,) = predictor.predict([window], plan.scaling)
        mask_missing_pixels(output, missing, plan.model.card.scale)
        return output

    count = len(plan.outputs)
    step = core.Progress(count - len(places), count, "Enhancing tiles")
    try:
        result = yield from run_in_thread(enhance_field(), predictor, step)
    finally:
        predictor.release_memory()
    field = core.Box.from_shape(plan.tiles.shape)
    inner = result[field.scale(plan.model.card.scale).slices]
    for place in places:
        yield [run.write_output(place, inner, field)]


def _run_independent_tiles(
    run: tiles.TiledRun,
    predictor: Predictor,
    groups: Groups,
    scheduler: str | None,
) -> Work:
    """Run groups of independent tiles in this process or on a cluster.

    Yields lists of results; an empty one if no task is running, None if one is. Closing
    this iterator stops tasks within a layer of the network.
    """
    executor: tiles.Executor
    if scheduler is None:
        executor = LocalExecutor(run, predictor)
    else:
        from napari_semsr.inference.cluster import ClusterExecutor  # slow to import

        # the same precision on all workers, whatever they support; they write one level
        options = run.plan.options.replace(precision=predictor.precision)
        plan, level0 = replace(run.plan, options=options), run.target.store.level0
        run = replace(run, plan=plan, target=level0)
        executor = ClusterExecutor(run, scheduler)
    more = True
    with executor:
        while more or executor.waiting:
            while more and executor.waiting < executor.slots:
                places = next(groups, None)
                more = places is not None
                if not places:
                    break
                executor.submit(places)
            if executor.waiting:
                yield executor.result()
            elif more:
                yield []


def _collect_tiles(
    work: Work,
    sink: tiles.Sink,
    plan: core.TilePlan,
    tally: _Tally,
    total: int,
) -> Iterator[core.Progress]:
    """Mark tiles as done when results arrive, and report progress."""
    skipped_count = len(plan) - total
    done_count = skipped_count
    note = f", {skipped_count} of them in an earlier run" if skipped_count else ""
    step = core.Progress(done_count, len(plan), "Enhancing tiles")
    yield step
    with closing(work) as pieces:
        for group in pieces:
            if isinstance(group, core.WaitingProgress):
                yield replace(group, done=done_count, total=len(plan))
                continue
            if group is None or isinstance(group, core.Progress):
                step = group or step
                yield step
                continue
            for piece in group:
                sink.finish_tile(piece.index)
                tally.add_tile(piece, plan)
                done_count += 1
            if not group:
                yield core.WaitingProgress(
                    done_count, len(plan), "Waiting for the view to move"
                )
                continue
            notes = group[-1].notes
            message = notes[0] if notes else f"Enhancing tiles{note}"
            step = core.Progress(done_count, len(plan), message)
            yield step


# Execution on threads of this process. A few tasks are submitted at a time, in an order
# that may change during a run. The loop never waits long for a task, so that it can be
# stopped; a stop is checked between the layers of the network.

_MAX_GPU_THREADS = 4  # threads that read and write for one GPU


class BackgroundThreads:
    """Background threads, usually one, that execute calls in submission order.

    They communicate by queues written in C: a keyboard interrupt may come at any line
    of Python, and within a lock of `concurrent.futures` it would leave it locked.
    """

    def __init__(
        self, name: str, answers: "SimpleQueue[CallResult]", *, threads: int = 1
    ) -> None:
        self._calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._answers = answers
        self._threads = [
            threading.Thread(target=self._run_calls, name=name, daemon=True)
            for _ in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Callable[[], object]) -> None:
        """Queue a call whose `CallResult` is put into the answer queue."""
        self._calls.put(call)

    def is_current_thread(self) -> bool:
        """Return whether the calling thread is one of these background threads."""
        return threading.current_thread() in self._threads

    def close(self) -> None:
        """Wait for submitted calls to finish, then end the threads."""
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()

    def _run_calls(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                answer = CallResult(call())
            except BaseException as error:  # noqa: BLE001 - raised by `CallResult`
                answer = CallResult(None, error)
            self._answers.put(answer)
            del answer, call


@dataclass(frozen=True, slots=True)
class CallResult:
    """Return value or exception of a call in another thread."""

    value: object
    error: BaseException | None = None

    def result(self) -> Any:
        """Return the value of the call, or raise its exception."""
        if self.error is not None:
            raise self.error
        return self.value


class LocalExecutor(tiles.Executor):
    """Executor on threads of this process.

    A GPU has two to four threads: while it computes, one waits for it and the others
    read the next tiles or write the last ones. A CPU has two, one of which is in the
    network: a window on all cores is as fast as one for each core (measured on two:
    10 % faster or slower) and needs the memory of one. With a viewer it has one, since
    the order of tiles that are not submitted may still change. dask would not help here
    (``docs/scaling.md``).
    """

    def __init__(self, run: tiles.TiledRun, predictor: Predictor) -> None:
        super().__init__()
        self._worker = tiles.TileWorker(run, predictor)
        self.slots = max(2, min(core.count_available_cores() // 2, _MAX_GPU_THREADS))
        if predictor.device.type == "cpu":
            self.slots = 2 if getattr(run.target, "live", None) is None else 1
        self._thread = BackgroundThreads(
            "semsr-tiles", self._results, threads=self.slots
        )

    def submit(self, places: Sequence[core.IntPair]) -> None:
        """Submit a group of tiles as one task."""
        self.waiting += 1
        self._thread.submit(partial(self._worker.enhance, places))

    def __exit__(self, *_: object) -> None:
        self._worker.stop()
        self._thread.close()


_MEASURING = core.Progress(0, 0, "Measuring the network")


def run_in_thread(
    job: core.Job[_T], predictor: Predictor, progress: core.Progress = _MEASURING
) -> core.Job[_T]:
    """Run a long-step job in a thread, repeating its last progress while waiting.

    This allows the caller to stop it: closing the generator ends it within a layer of
    the network.
    """
    stop, answers = threading.Event(), SimpleQueue[CallResult]()
    thread = BackgroundThreads("semsr-plan", answers)

    def check_stopped() -> None:
        if stop.is_set() and thread.is_current_thread():
            raise core.Cancelled(tiles.STOP_MESSAGE)

    release = predictor.add_layer_check(check_stopped, probing=True)
    try:
        while True:
            thread.submit(partial(next, job))
            while True:
                try:
                    answer = answers.get(timeout=tiles.HEARTBEAT_S)
                    break
                except Empty:
                    yield progress
            if isinstance(answer.error, StopIteration):
                result: _T = answer.error.value
                return result
            progress = answer.result()
            yield progress
    finally:
        stop.set()
        thread.submit(job.close)
        thread.close()
        release()


def _group_tiles(places: Sequence[core.IntPair], block: core.IntPair) -> Groups:
    """Group tiles by blocks (rows, columns) that share a window."""

    def get_block(place: core.IntPair) -> core.IntPair:
        return place[0] // block[0], place[1] // block[1]

    groups = itertools.groupby(sorted(places, key=get_block), get_block)
    return ([*group] for _, group in groups)
