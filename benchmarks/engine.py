"""Processor time of tiled inference with a network that passes its input through.

Run: ``python benchmarks/engine.py [--sides=4096,8192] [--model NAME] >> rows.jsonl``.
An ONNX graph of one convolution enhances a tiled 16-bit TIFF into OME-Zarr; next to
`convert`, and to zarr and torch alone on the same blocks. A row has wall seconds, then
user and system seconds of all threads, and of stages in the threads that call them.
"""

import gc
import json
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from resource import RUSAGE_SELF, RUSAGE_THREAD, getrusage
from typing import Any

import numpy as np
from _shared import read_options, usage_of

STAGES = {
    "open": "jobs.verb.Run.open_images",
    "digest": "jobs.images.ValueDigest.add_rows",
    "strays": "core.strays.compute_stray_pixel_masks",
    "statistics": "inference.network_input.compute_scaling",
    "survey": "inference.network_input.survey_field",
    "cut": "inference.plan.EnhancePlan.read_clean_window",
    "copy": "inference.network_input.Scaling.normalise",
    "pass": "inference.predictor.Predictor._run_batch",
    "write": "inference.tiles.TiledRun.write_output",
    "pyramid": "io.zarr_store.downsample_block",
    "comparison": "jobs.enhance._compare_result",
    "close": "io.zarr_store.OmeZarrStore.finish",
}
PLAIN = """
import numpy, tifffile, torch, zarr
image = zarr.open(tifffile.imread(words[0], aszarr=True), mode="r")
output = zarr.create(image.shape, chunks=512, dtype="f4", store=words[2])
network = torch.nn.Conv2d(1, 1, 3, padding=1).requires_grad_(False)
for place in numpy.ndindex(*output.cdata_shape):
    block = torch.from_numpy(image.blocks[place].astype("f4"))[None, None]
    output.blocks[place] = network(block)[0, 0].numpy()
"""
SPENT: Any = {stage: np.zeros(2) for stage in ("all", *STAGES)}


def make_inputs(folder: Path, side: int) -> None:
    """Write a noisy field, and a model of one convolution that changes nothing."""
    import tifffile
    import torch

    from napari_semsr import models

    field = np.random.default_rng(0).normal(2e4, 3e3, (side, side)).astype("u2")
    tifffile.imwrite(folder / "field.tif", field, tile=(512, 512))
    layer = torch.nn.Conv2d(1, 1, 3, padding=1, bias=False).requires_grad_(False)
    layer.weight[:] = torch.nn.functional.pad(torch.ones(1, 1, 1, 1), [1] * 4)
    card = models.ModelCard(name="n", architecture="onnx", receptive_field=1, stride=1)
    graph = models.probe_onnx_network(models.export_onnx(layer, card))[0]
    models.save_model(folder / "n.safetensors", graph, card)


@contextmanager
def count(stage: str) -> Any:
    """Count the seconds that a stage takes in this thread."""
    begun = getrusage(RUSAGE_THREAD)[:2]
    yield
    SPENT[stage] += np.subtract(getrusage(RUSAGE_THREAD)[:2], begun)


def watch(stage: str, holder: Any, name: str) -> None:
    """Count a function, and the steps of the job that it returns."""
    call, within = getattr(holder, name), lambda: count(stage)

    def watched(*args: Any, **options: Any) -> Any:
        with within():
            made = call(*args, **options)
        repeat = resolve_name("napari_semsr.core.map_progress")
        return repeat(made, within=within) if hasattr(made, "send") else made

    setattr(holder, name, watched)


def run_part(part: str, *words: str) -> None:
    """Run a part in this process, and print what it took."""
    if part == "enhance":  # as the command does, before torch is loaded
        gc.set_threshold(resolve_name("napari_semsr.cli.command._COLLECTION_INTERVAL"))
        resolve_name("napari_semsr.core.configure_allocator")()
    for stage, place in STAGES.items() if part == "enhance" else ():
        holder, name = f"napari_semsr.{place}".rsplit(".", 1)
        watch(stage, resolve_name(holder), name)
    run = exec if part == "plain" else resolve_name("napari_semsr.cli.main")
    # the command reads this process's arguments
    run(*([PLAIN, {"words": words}] if run is exec else []))
    SPENT["all"] += getrusage(RUSAGE_SELF)[:2]
    print(json.dumps({name: [*seconds.round(2)] for name, seconds in SPENT.items()}))


def main() -> None:
    """Run all parts, each in its process."""
    options = read_options(__doc__, "--sides=4096,8192 --model=WORD")
    for side in options.sides:
        with tempfile.TemporaryDirectory() as name:
            make_inputs(folder := Path(name), side)
            enhance = "enhance", "--model", options.model or folder / "n.safetensors"
            for part, *more in enhance, ("convert",), ("plain",):
                ends = folder / "field.tif", "-o", folder / f"{part}.ome.zarr"
                used = usage_of([sys.executable, __file__, part, *ends, *more])
                spent = used.said.splitlines()[-1]
                print(f'["{part}", {side}, {used.seconds:.2f}, {spent}]', flush=True)


if __name__ == "__main__":
    run_part(*sys.argv[1:]) if "-o" in sys.argv else main()
