"""What networks do on a GPU: megapixels per second, and images of de Haan's size.

Run: ``python benchmarks/gpu.py`` (where there is no CUDA device it says so and ends;
``--device cpu --tile 256 --side 512 --rounds 2 --eager`` tries the way itself).

For the default model and for a nine-block generator with fixed statistics: the network
alone on tiles that lie on the GPU, in fp32 and bf16, eager and compiled; and the whole
engine, from an array in memory to an array in memory. De Haan et al. give 3.66 images
of 780 x 780 a second, on another GPU of 2017 and their own network: ours is beside it.
TF32 stays off, so that fp32 is what it says.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _shared import read_options
from torch import nn

from napari_semsr.core import Micrograph, run
from napari_semsr.inference import EnhanceOptions, enhance_array
from napari_semsr.models import build, load_model

BATCH = 4
DE_HAAN = 780
THEIRS = 3.66


def seconds(way: Callable[[], Any], rounds: int, device: str) -> float:
    """Least time of a call, after warming up."""
    settle = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    for _ in range(min(rounds, 3)):
        way()
    found = []
    for _ in range(rounds):
        settle()
        start = time.perf_counter()
        way()
        settle()
        found.append(time.perf_counter() - start)
    return min(found)


def alone(
    network: nn.Module, shape: tuple[int, ...], given: argparse.Namespace
) -> dict[str, float]:
    """Time a network by itself, in each precision, eager and compiled."""
    device = given.device
    field = torch.rand(shape, device=device)
    field = field.contiguous(memory_format=torch.channels_last)
    ordered = network.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    made: dict[str, float] = {}
    for compiled in (False,) if given.eager else (False, True):
        net = torch.compile(ordered) if compiled else ordered
        for name, mixed in (("fp32", False), ("bf16", True)):

            def way(net: Any = net, mixed: bool = mixed) -> Any:
                with (
                    torch.inference_mode(),
                    torch.autocast(device, torch.bfloat16, enabled=mixed),
                ):
                    return net(field)

            label = f"{name}{', compiled' if compiled else ''}"
            made[label] = seconds(way, given.rounds, device)
    return made


def engine(model: str, precision: str, given: argparse.Namespace) -> float:
    """Megapixels per second of the whole engine."""
    rng = np.random.default_rng(0)
    field = Micrograph(rng.integers(0, 255, (given.side, given.side), dtype=np.uint8))
    loaded = load_model(model)
    options = EnhanceOptions(device=given.device, precision=precision, tile=given.tile)
    run(enhance_array(field, loaded, options))
    start = time.perf_counter()
    run(enhance_array(field, loaded, options))
    return given.side**2 / 1e6 / (time.perf_counter() - start)


def main() -> int:
    """Print the figures."""
    given = read_options(
        __doc__,
        "--side=8192 --rounds=10 --tile=1024 --device=cuda|cpu --output=FILE",
        eager=(False, "compile nothing"),
    )
    if given.device == "cuda" and not torch.cuda.is_available():
        print("There is no CUDA device here.")
        return 0
    print(torch.cuda.get_device_name() if given.device == "cuda" else "CPU")
    torch.backends.cudnn.benchmark = True
    default = load_model("sem-restore").module
    networks: dict[str, nn.Module] = {
        "default model, local part": getattr(default, "local", default),
        "nine blocks, batch norm": build(
            "multi-residual", {"width": 64, "blocks": 9, "norm": "batch"}
        ),
    }
    table: dict[str, Any] = {}
    for name, network in networks.items():
        found = alone(network, (BATCH, 1, given.tile, given.tile), given)
        pixels = BATCH * given.tile**2 / 1e6
        table[name] = {way: pixels / spent for way, spent in found.items()}
        for way, rate in table[name].items():
            print(f"{name}, {way}: {rate:.3g} megapixels/s", flush=True)
    generator = build("de-haan-unet", {"width": 32, "levels": 4, "scale": 2})
    padded = -(-DE_HAAN // generator.stride) * generator.stride
    found = alone(generator, (1, 1, padded, padded), given)
    table["de Haan's network, images/s"] = {w: 1 / s for w, s in found.items()}
    for way, spent in found.items():
        print(
            f"de Haan's network on {DE_HAAN} px, {way}: {1 / spent:.3g} images/s "
            f"(theirs {THEIRS} on a GTX 1080 Ti)",
            flush=True,
        )
    for precision in ("fp32", "bf16"):
        rate = engine("sem-restore", precision, given)
        table[f"engine, {precision}"] = rate
        print(f"engine, {given.side}², {precision}: {rate:.3g} megapixels/s")
    if given.output:
        given.output.write_text(json.dumps(table, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
