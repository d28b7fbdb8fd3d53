"""Time a card: images of de Haan's size, and large fields from and to OME-Zarr.

Beside each bundled model, on the same card and in turns with it, run MONAI's sliding
window and the bare network in one pass. These two have the field in memory and write
nothing.
"""

import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _networks import field, random_model
from gpu.kit import Report, device_of, read_call, rounded, seconds_of, use_tf32
from torch import nn

import napari_semsr as semsr
from napari_semsr.core import DeviceMemoryError, Micrograph, run
from napari_semsr.inference import EnhanceOptions, enhance_in_memory, plan_run
from napari_semsr.inference.options import plan_output
from napari_semsr.inference.predictor import Predictor
from napari_semsr.io import write
from napari_semsr.models import list_bundled_models, load_model

HAAN_PX, HAAN_THEIRS, HAAN_GOAL = 780, 3.66, 100.0  # on a GTX 1080 Ti
HAAN = {"width": 32, "levels": 4, "scale": 2}  # as recipes/de-haan.yaml
ROUNDS = 2
LOOK_S = 0.02


class BusyWatch:
    """How much of the time a card computes, as its driver counts it."""

    def __init__(self, device: torch.device) -> None:
        self.seen: list[float] = []
        self.device, self.stop = device, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        with suppress(Exception):  # without the driver's library it is not known
            while not self.stop.wait(LOOK_S):
                self.seen.append(torch.cuda.utilization(self.device) / 100)

    def __enter__(self) -> "BusyWatch":
        if self.device.type == "cuda":
            self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        if self.device.type == "cuda":
            self.thread.join()

    @property
    def share(self) -> float | None:
        """Mean over the looks; None where nothing was seen."""
        return rounded(float(np.mean(self.seen))) if self.seen else None


def de_haan(device: torch.device, side: int, rounds: int) -> dict[str, Any]:
    """Count images a second of de Haan's U-Net, alone and through the product."""
    loaded = random_model("de-haan-unet", HAAN, scale=2)
    stride = loaded.card.stride
    padded = -(-side // stride) * stride
    found: dict[str, Any] = {"side_px": side, "theirs": HAAN_THEIRS, "goal": HAAN_GOAL}
    options = EnhanceOptions(device=str(device), tile=4096)
    image = Micrograph(field((side, side)))
    for mode in ("fp32", "tf32", "bf16"):
        use_tf32(mode == "tf32")
        precision = "bf16" if mode == "bf16" else "fp32"
        alone = Predictor(loaded, device=str(device), precision=precision)
        batch = torch.rand(1 if device.type == "cpu" else 8, 1, padded, padded)
        batch = batch.to(device, memory_format=torch.channels_last)

        def network(alone: Predictor = alone, batch: torch.Tensor = batch) -> None:
            with alone.compute_context("images"):
                alone._module(batch)

        def product(precision: str = precision) -> None:
            run(enhance_in_memory(image, loaded, options.replace(precision=precision)))

        for name, work, images in (
            ("alone", network, len(batch)),
            ("array_to_array", product, 1),
        ):
            work()
            spent = seconds_of(partial(_several, work, rounds), device)
            found[f"{name}_{mode}_images_per_s"] = rounded(rounds * images / spent)
    use_tf32(False)
    return found


def _several(work: Callable[[], Any], rounds: int) -> None:
    for _ in range(rounds):
        work()


def prepared(name: str, device: torch.device) -> Predictor:
    """Bring a model to a card as a run does, after its look at a field."""
    loaded, image = load_model(name), Micrograph(field((128, 128)))
    options = EnhanceOptions(device=str(device))
    output = plan_output(image, loaded.card.model_dump(), options)
    return run(plan_run(image, output, loaded, options)).predictor


def window_way(predictor: Predictor, image: Any) -> Callable[[], Any] | None:
    """Give MONAI's sliding window at its usual overlap; None without MONAI."""
    try:
        from monai.inferers import sliding_window_inference
    except ImportError:
        return None
    side = min(512, min(image.shape))

    def way() -> Any:
        x = torch.from_numpy(image)[None, None].to(predictor.device)
        with predictor.compute_context("MONAI's windows"):
            y = sliding_window_inference(x, (side, side), 8, predictor._module, 0.25)
        return y.float().cpu()

    return way


def whole_way(network: nn.Module, predictor: Predictor, image: Any) -> Any:
    """Give the bare pass over an image, and how many pixels fit into one."""
    side = image.shape[0]
    while side > 64:
        x = torch.from_numpy(image[:side, :side])[None, None]

        def way(x: torch.Tensor = x) -> Any:
            with predictor.compute_context("one pass"):
                return network(x.to(predictor.device)).float().cpu()

        try:
            way()
        except DeviceMemoryError:
            torch.cuda.empty_cache()
            side //= 2
        else:
            return way, side
    return None, 0


def large_field(
    name: str, device: torch.device, store: Path, image: Any, report: Report
) -> None:
    """Time a model on a large field in turns with the others; tell each round."""
    predictor = prepared(name, device)
    scaled = (image / np.float32(255)).astype(np.float32)
    side = image.shape[0]
    megapixels = side**2 / 1e6
    bare, bare_side = whole_way(predictor._module, predictor, scaled)
    window = window_way(predictor, scaled)
    rows: dict[str, list[float]] = {"ours": [], "monai": [], "whole": []}
    found: dict[str, Any] = {"side_px": side, "precision": predictor.precision}
    spent_s = 0.0
    for number in range(ROUNDS):
        late = report.seconds + spent_s > report.limit  # as long as the last round
        if number and (late or device.type == "cpu"):
            break
        since = report.seconds
        with tempfile.TemporaryDirectory() as folder, BusyWatch(device) as watch:
            out = Path(folder) / "out.ome.zarr"
            made: list[Any] = []

            def ours(out: Path = out, made: list[Any] = made) -> None:
                told = {"model": name, "device": str(device)}
                made.append(semsr.enhance(store, out, **told))

            spent = seconds_of(ours, device)
        rows["ours"].append(megapixels / spent)
        found["until_pyramid_mp_per_s"] = made[0].report.megapixels_per_second
        found["tile_px"] = made[0].report.tile_px
        found["busy_share"] = watch.share
        if window is not None:
            if not number:
                window()
            rows["monai"].append(megapixels / seconds_of(window, device))
        if bare is not None:
            rows["whole"].append(bare_side**2 / 1e6 / seconds_of(bare, device))
        found["whole_side_px"] = bare_side
        for way, rates in rows.items():
            found[f"{way}_mp_per_s"] = [rounded(rate) for rate in rates]
        spent_s = report.seconds - since
        report.add(f"models, {name}", found)


def main() -> int:
    """Write what was timed, one model after the other."""
    given = read_call(__doc__)
    device = device_of(given)
    report = Report(given, "fast")
    with report.trying("de Haan"):
        side, rounds = (64, 1) if given.dry else (HAAN_PX, 10)
        report.add("de_haan", de_haan(device, side, rounds))
    part, times = (64, 2) if given.dry else (1024, 8)
    image = np.tile(field((part, part)), (times, times))
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "field.ome.zarr"
        write(Micrograph(image), store)
        for name in sorted(list_bundled_models()):
            with report.trying(name):
                large_field(name, device, store, image, report)
    return report.close()


if __name__ == "__main__":
    sys.exit(main())
