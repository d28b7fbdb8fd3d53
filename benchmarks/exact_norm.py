"""Tiles of networks with normalisation layers, against the whole field.

::

    OMP_NUM_THREADS=1 python benchmarks/exact_norm.py
    OMP_NUM_THREADS=1 python benchmarks/exact_norm.py --spill --side 4096 --width 16
    python benchmarks/exact_norm.py --cancel

For each network (random weights, published widths unless ``--width`` says otherwise):
the largest difference between tiles in lockstep and the whole field, over the whole
result's range, at three core sizes on a field of odd sides, and the processor time over
that of the whole pass. For the residual generator also ``sampled`` (the stated error
beside the measured one, several draws) and ``tile``, as others do it. ``--spill`` runs
one field whose layers lie on disk, without a whole pass beside it. ``--cancel`` stops
runs at several moments of planning, measuring and enhancing: the longest wait between
two moments at which a cancel is looked for, and until nothing is computed any more (the
goals are 0.3 and 1 s). Exit code 1 means
that a gate was missed; the one for the stated error holds for all draws together, since
a single draw can be luckier than it may claim to be.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _networks import field, random_model
from _shared import in_line, read_options
from numpy.typing import NDArray
from torch import nn

from napari_semsr.core import Box, Micrograph, TilePlan, read_box, run as finish
from napari_semsr.inference import EnhanceOptions
from napari_semsr.inference.as_one import run_lockstep
from napari_semsr.inference.engine import MemoryWatch, enhance_array
from napari_semsr.inference.lockstep_plan import halo_and_trace, plan_lockstep
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.sampled import measure_sample
from napari_semsr.inference.tiles import ArraySink, SeamMeter, TiledRun
from napari_semsr.models import LoadedModel
from tests.enhancing import plan_of

ERROR_GATE = 1e-5
TIME_GATE = 1.3
STATED_GATE = 1.5
CANCEL_SEEN_S, CANCEL_ENDED_S = 0.3, 1.0
MOMENTS_S = (0.3, 1.1, 2.3, 4.1, 7.3)
PLENTY = 2**40
DRAWS = 4
NETWORKS: dict[str, tuple[str, int, tuple[int, ...]]] = {
    "resnet": ("resnet", 64, (128, 256, 384)),
    "resnet-batch": ("resnet", 64, (128, 256, 384)),
    "unet": ("multi-scale-unet", 64, (128, 256, 384)),
}


def _norms_replaced(module: nn.Module) -> None:
    """Put batch norms with some statistics in place of instance norms."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.InstanceNorm2d):
            made = nn.BatchNorm2d(child.num_features)
            made.running_mean.normal_(0, 0.3)
            made.running_var.uniform_(0.5, 2)
            setattr(module, name, made)
        else:
            _norms_replaced(child)


def network(name: str, width: int | None, seed: int = 0) -> LoadedModel:
    """Make a network with random weights."""
    architecture, published, _ = NETWORKS[name]
    options = {"width": width or published}
    made = random_model(architecture, options, seed, input_percentiles=(1.0, 99.0))
    if name.endswith("batch"):
        _norms_replaced(made.module)
    for weights in made.module.parameters():
        if weights.ndim > 1:
            nn.init.kaiming_uniform_(weights, a=5**0.5)
    made.module.eval()
    return made


def work(
    loaded: LoadedModel, image: NDArray[Any], core: int
) -> tuple[Predictor, TiledRun, TilePlan]:
    """Set up what the engine would."""
    predictor = Predictor(loaded, device="cpu", precision="fp32")
    options = EnhanceOptions(tile=core, norm="tile", haze=False)
    planned = plan_of(Micrograph(image), loaded, options, predictor)
    run = TiledRun(planned, np.empty(image.shape, np.float32))
    return predictor, run, planned.tiles


def whole(predictor: Predictor, run: TiledRun) -> NDArray[np.float32]:
    """Run the field in one pass, with the engine's memory layout."""
    padded = read_box(run.plan.data, Box.of(run.plan.tiles.padded_shape))
    rows, columns = run.plan.tiles.shape
    return predictor.predict(padded, run.plan.scaling)[:rows, :columns]


def plain(run: TiledRun) -> NDArray[np.float32]:
    """Run the field in one pass of plain PyTorch, the definition of *whole*."""
    padded = read_box(run.plan.data, Box.of(run.plan.tiles.padded_shape))
    rows, columns = run.plan.tiles.shape
    with torch.no_grad():
        x = torch.from_numpy(run.plan.scaling.normalise(padded))[None, None]
        y = run.plan.loaded.module(x)[0, 0].numpy()
    return run.plan.scaling.restore(y[:rows, :columns].copy())


def lockstep(
    predictor: Predictor, run: TiledRun, plan: TilePlan, budget: int
) -> tuple[SeamMeter, str]:
    """Run the field in lockstep."""
    found = plan_lockstep(predictor, plan, budget, core=plan.core)
    if found is None:
        raise SystemExit("no lockstep for this network")
    meter = SeamMeter()
    places = [tile.index for tile in plan]
    sink = ArraySink(run.target)
    for event in run_lockstep(run, predictor, places, found, sink):
        for piece in event if isinstance(event, list) else ():
            meter.add(piece.index, piece.edges, piece.sample)
    return meter, found.sentence()


def exactness(
    name: str, width: int | None, shape: tuple[int, int]
) -> Iterator[dict[str, Any]]:
    """Compare lockstep with the whole at three core sizes."""
    loaded, image = network(name, width), field(shape)
    expected: NDArray[np.float32] | None = None
    seconds = 0.0
    for core in NETWORKS[name][2]:
        predictor, run, plan = work(loaded, image, core)
        halo_and_trace(predictor)  # measured once for a network
        if expected is None:
            begun = time.process_time()
            whole(predictor, run)
            seconds = time.process_time() - begun
            expected = plain(run)
        begun = time.process_time()
        meter, _ = lockstep(predictor, run, plan, PLENTY)
        spent = time.process_time() - begun
        known = halo_and_trace(predictor)
        error = float(np.abs(run.target - expected).max() / np.ptp(expected))
        yield {
            "network": name,
            "core": core,
            "halo": known[0].halo if known else None,
            "full_halo": predictor.probe.halo,
            "max_error_of_range": error,
            "time_over_whole": spent / seconds,
            "tile_mismatch": meter.mismatch,
            "seam_index": meter.seam_index,
        }


def sampled_norm(width: int, side: int, core: int) -> Iterator[dict[str, Any]]:
    """Compare the error that is stated with the one that is measured."""
    loaded, image = network("resnet", width), field((side, side))
    predictor, run, _ = work(loaded, image, core)
    expected = whole(predictor, run)
    known = halo_and_trace(predictor)
    if known is None:
        raise SystemExit("no lockstep for this network")
    for seed in range(DRAWS):
        room = PLENTY, Path(tempfile.gettempdir())
        found = finish(measure_sample(run, predictor, known[1], room, seed=seed))
        fixed = Predictor(loaded, device="cpu", precision="fp32")
        fixed.statistics = found.statistics
        result = whole(fixed, replace(run))
        error = float(np.sqrt(np.mean((result - expected) ** 2)) / expected.std())
        yield {
            "sampled": found.sampled,
            "of": found.tiles,
            "stated": found.error,
            "measured": error,
        }


def naive(width: int, side: int, core: int) -> dict[str, float]:
    """Take the statistics of each tile, as others do."""
    loaded, image = network("resnet", width), field((side, side))
    predictor, run, _ = work(loaded, image, core)
    expected = whole(predictor, run)
    options = EnhanceOptions(tile=core, norm="tile", precision="fp32", device="cpu")
    result = finish(enhance_array(Micrograph(image), loaded, options))
    report = result.metadata["enhance"]
    error = np.sqrt(np.mean((result.data - expected) ** 2)) / expected.std()
    return {
        "measured": float(error),
        "max_error_of_range": float(
            np.abs(result.data - expected).max() / np.ptp(expected)
        ),
        "tile_mismatch": report["tile_mismatch"],
        "seam_index": report["seam_index"],
    }


def spill(name: str, width: int | None, side: int) -> dict[str, Any]:
    """Run one large field with its layers on disk."""
    loaded, image = network(name, width), field((side, side))
    predictor, run, plan = work(loaded, image, 512)
    halo_and_trace(predictor)
    begun = time.perf_counter()
    with MemoryWatch() as memory:
        before = memory.peak_mb
        meter, said = lockstep(predictor, run, plan, 0)
    return {
        "network": name,
        "side": side,
        "plan": said,
        "seconds": time.perf_counter() - begun,
        "peak_memory_mb": memory.peak_mb,
        "memory_before_mb": before,
        "tile_mismatch": meter.mismatch,
        "seam_index": meter.seam_index,
    }


def cancel(name: str, norm: str, moments: tuple[float, ...]) -> dict[str, Any]:
    """Stop a run of 1024 px at some moments, in seconds after its first word."""
    waits, ends = [0.0], []
    loaded, options = network(name, None), EnhanceOptions(norm=norm)
    for moment in moments:
        job = enhance_array(Micrograph(field((1024, 1024)), None, "f"), loaded, options)
        next(job)
        begun = last = time.perf_counter()
        while last - begun < moment and next(job, None):
            now = time.perf_counter()
            waits.append(now - last)
            last = now
        job.close()
        ends.append(time.perf_counter() - last)
    return {
        "cancel": name,
        "norm": norm,
        "longest_wait_s": max(waits),
        "longest_end_s": max(ends),
    }


def _judge(exact: list[dict[str, Any]], sampled: list[dict[str, Any]]) -> bool:
    """Hold the figures against the gates."""
    same = all(row["max_error_of_range"] <= ERROR_GATE for row in exact)
    ratios = [row["time_over_whole"] for row in exact if row["network"] == "resnet"]
    quick = not ratios or min(ratios) <= TIME_GATE
    stated, measured = (
        sum(row[key] ** 2 for row in sampled) for key in ("stated", "measured")
    )
    bound = STATED_GATE**2
    honest = not sampled or 1 / bound <= stated / measured <= bound
    return same and quick and honest


def main() -> int:
    """Measure, print, and judge."""
    chosen = read_options(
        __doc__,
        "--spill --cancel",
        network={"nargs": "*", "choices": sorted(NETWORKS)},
        width=(int, "channels; default: as published"),
        shape={"type": int, "nargs": 2, "default": (701, 533)},
        side=(4096, "of the spilled field"),
    )
    names = chosen.network or list(NETWORKS)
    if chosen.spill:
        for name in names:
            print(in_line(spill(name, chosen.width, chosen.side), ".3g"))
        return 0
    if chosen.cancel:
        rows = [
            cancel(n, norm, MOMENTS_S) for n in names for norm in ("whole", "sampled")
        ]
        for row in rows:
            print(in_line(row, ".3g"))
        waits, ends = zip(
            *((row["longest_wait_s"], row["longest_end_s"]) for row in rows),
            strict=True,
        )
        return int(max(waits) > CANCEL_SEEN_S or max(ends) > CANCEL_ENDED_S)
    exact, sampled = [], []
    for name in names:
        for row in exactness(name, chosen.width, tuple(chosen.shape)):
            exact.append(row)
            print(in_line(row, ".3g"))
    if "resnet" in names:
        for row in sampled_norm(8, 1024, 64):
            sampled.append(row)
            told = {"sampled": "resnet, width 8, 1024 px, parts of 64 px", **row}
            print(in_line(told, ".3g"))
        told = {"tile": "the same network and field", **naive(8, 1024, 64)}
        print(in_line(told, ".3g"))
    return 0 if _judge(exact, sampled) else 1


if __name__ == "__main__":
    sys.exit(main())
