"""Tiles against the whole field: exactness and time, with peers beside them.

Run it twice, with the default allocator and with one that keeps its memory::

    python benchmarks/tiling.py
    MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8000000000 python benchmarks/tiling.py

All ways take turns within each round, and the least time of several rounds counts.
*Whole* is plain PyTorch on the field reflected to the stride, in the same precision and
memory layout, grey values scaled and restored just as the engine does. MONAI's sliding
window (256 px, an overlap of 0.25, its usual setting) is timed where it is installed,
or lies in the folder that ``--packages`` names. On a machine that others use,
``OMP_NUM_THREADS=1 ... --clock cpu`` compares the work done instead of the time.
Exit code 1 means that a gate was missed.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _networks import field
from _shared import least_of, read_options
from numpy.typing import NDArray

from napari_semsr.core import Box, Micrograph, round_up, run
from napari_semsr.inference import (
    EnhanceOptions,
    configure_model_for_image,
    enhance_in_memory,
)
from napari_semsr.inference.network_input import (
    HazeMap,
    Scaling,
    measure_scaling,
    read_window,
    survey_field,
)
from napari_semsr.inference.predictor import Predictor
from napari_semsr.models import LoadedModel, load_model

ERROR_GATE = 1e-5
TIME_GATE = 1.15
Way = Callable[[], NDArray[Any]]


def predictor_of(loaded: LoadedModel, image: NDArray[Any], precision: str) -> Predictor:
    """Make the network for a field, as the engine does of one that surveys fields."""
    network, _ = configure_model_for_image(Micrograph(image), loaded, EnhanceOptions())
    return Predictor(network, precision=precision)


def whole(
    loaded: LoadedModel, predictor: Predictor, image: NDArray[Any]
) -> NDArray[np.float32]:
    """Run a field in one pass."""
    card = predictor.card
    scaling, haze = survey(loaded, image)
    box = Box.from_shape(tuple(round_up(n, card.stride) for n in image.shape))
    padded = clear(image, box, scaling, haze)
    rows, columns = (n * card.scale for n in image.shape)
    return predictor.predict([padded], scaling)[0][:rows, :columns]


def survey(loaded: LoadedModel, image: NDArray[Any]) -> tuple[Scaling, HazeMap | None]:
    """Measure what holds for the whole field, as every way must."""
    scaling = measure_scaling(image, loaded.card.input_percentiles)
    return scaling, survey_field(image, loaded.module, scaling).haze


def clear(
    image: NDArray[Any], box: Box, scaling: Scaling, haze: HazeMap | None
) -> NDArray[Any]:
    """Read what the network is shown."""
    window, _ = read_window(image, box, scaling.mean)
    return window if haze is None else haze.remove_haze(window, box)


def tiled(loaded: LoadedModel, image: NDArray[Any], tile: int, precision: str) -> Any:
    """Run a field through the engine."""
    options = EnhanceOptions(tile=tile, precision=precision)
    return run(enhance_in_memory(Micrograph(image), loaded, options))


def monai(
    loaded: LoadedModel, predictor: Predictor, image: NDArray[Any]
) -> dict[str, Way]:
    """Set up MONAI's window with the same network, where it is installed."""
    try:
        from monai.inferers import sliding_window_inference
    except ImportError:
        return {}
    mixed = predictor.precision == "bf16"

    def way() -> NDArray[Any]:
        scaling, haze = survey(loaded, image)
        shown = clear(image, Box.from_shape(image.shape), scaling, haze)
        x = torch.from_numpy(scaling.normalise(shown))[None, None]
        with (
            torch.inference_mode(),
            torch.autocast(predictor.device.type, torch.bfloat16, enabled=mixed),
        ):
            y = sliding_window_inference(x, (256, 256), 1, predictor._module, 0.25)
        return scaling.restore(np.asarray(y[0, 0].float().numpy()))

    return {"monai 256, overlap 0.25": way}


def exactness(loaded: LoadedModel) -> float:
    """Give the largest error of tiles, over the range of the whole, in fp32."""
    worst = 0.0
    for shape in ((768, 1024), (701, 533), (1, 300), (37, 41)):
        image = field(shape)
        expected = whole(loaded, predictor_of(loaded, image, "fp32"), image)
        for tile in (128, 256, 512):
            made = tiled(loaded, image, tile, "fp32").data
            error = float(np.abs(made - expected).max() / np.ptp(expected))
            worst = max(worst, error)
    return worst


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def timing(
    loaded: LoadedModel, side: int, precision: str, rounds: int, clock: str
) -> dict[str, float]:
    """Time all ways in turn."""
    image = field((side, side))
    predictor = predictor_of(loaded, image, precision)
    ways: dict[str, Way] = {"whole": lambda: whole(loaded, predictor, image)}
    for tile in (256, 512, 1024):
        ways[f"tile {tile}"] = lambda t=tile: tiled(loaded, image, t, precision)  # type: ignore[misc]
    ways |= monai(loaded, predictor, image)
    return least_of(rounds, ways, CLOCKS[clock])


def main() -> int:
    """Measure, print, and judge."""
    chosen = read_options(
        __doc__,
        "--model=sem-restore --side=2048 --rounds=5",
        precision={"nargs": "*", "default": ["bf16", "fp32"]},
        clock={"choices": sorted(CLOCKS), "default": "wall"},
        packages=(str, "folder of packages to compare with"),
    )
    if chosen.packages:
        sys.path.append(chosen.packages)
    loaded = load_model(chosen.model)
    worst = exactness(loaded)
    print(f"largest error {worst:.1e} of the range (gate {ERROR_GATE:.0e})")
    passed = worst <= ERROR_GATE
    for precision in chosen.precision:
        best = timing(loaded, chosen.side, precision, chosen.rounds, chosen.clock)
        tiles = min(v for k, v in best.items() if k.startswith("tile"))
        ratio = tiles / best["whole"]
        passed &= ratio <= TIME_GATE
        print(
            f"{precision}: best tile / whole = {ratio:.2f} (gate {TIME_GATE}), "
            f"{chosen.clock} time, {torch.get_num_threads()} thread(s)"
        )
        for name, seconds in best.items():
            speed = chosen.side**2 / 1e6 / seconds
            print(f"  {name:24} {seconds:7.2f} s {speed:6.2f} megapixel/s")
    malloc = {k: v for k, v in os.environ.items() if k.startswith("MALLOC_")}
    print(f"allocator settings: {malloc or 'default'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
