"""A field at other pixel sizes than a model's: tiles against the whole, time, and loss.

The bundled weights are given a card that says they were trained at 10 nm. *Difference*
is the largest between tiles of 128 px and the same by hand (resample the field, enhance
it whole, resample the result), over its range. *Time* is processor time over that of a
run without resampling on the same field. *Loss* is what the way there and back alone
takes from the image: an identity in place of the network, the root mean square
difference over the image's standard deviation; for a drawn image with detail of single
pixels, and for the same blurred by a Gaussian of 1 px.

    OMP_NUM_THREADS=1 python benchmarks/pixel_size.py

Exit code 1 means that a difference exceeds 1e-5.
"""

import sys
import time
from functools import partial
from typing import Any

import numpy as np
from _shared import least_of, read_options
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from napari_semsr.core import Box, Micrograph, Resampling, parse_pixel_size, run
from napari_semsr.inference import (
    EnhanceOptions,
    TrainedPixelSizes,
    enhance_in_memory,
    plan_resampling,
)
from napari_semsr.models import LoadedModel, load_model
from napari_semsr.simulation import draw_phantom

GATE = 1e-5
TRAINED_NM = 10.0
SIZES_NM = (5.0, 7.3, 9.0, 12.5, 14.0, 20.0)


def stating(loaded: LoadedModel, module: nn.Module) -> LoadedModel:
    """Give a network a card that states a pixel size."""
    size = {"pixel_size_nm": (TRAINED_NM, TRAINED_NM)}
    return LoadedModel(module, loaded.card.model_copy(update=size), loaded.digest)


def resampled(
    image: NDArray[Any], grid: Resampling, shape: tuple[int, int]
) -> NDArray[Any]:
    """Resample a whole image."""
    place = Box(0, image.shape[0], 0, image.shape[1])
    return grid.resample(image, place, Box(0, shape[0], 0, shape[1]))


def enhanced(
    field: Micrograph, loaded: LoadedModel, options: EnhanceOptions
) -> NDArray[Any]:
    """Enhance a field."""
    return np.asarray(run(enhance_in_memory(field, loaded, options)).data)


def grid_of(field: Micrograph, loaded: LoadedModel) -> Resampling:
    """Say on which pixels the network sees a field."""
    trained = TrainedPixelSizes.from_card(loaded.card.model_dump())
    steps = plan_resampling(field.pixel_size_nm, trained).steps
    return Resampling(field.shape, steps or (1.0, 1.0))


def by_hand(
    field: Micrograph, loaded: LoadedModel, options: EnhanceOptions
) -> NDArray[Any]:
    """Resample, enhance whole, resample back."""
    there = grid_of(field, loaded)
    if there.shape == field.shape:
        return enhanced(field, loaded, options)
    seen = Micrograph(resampled(field.array(), there, there.shape))
    made = enhanced(seen, loaded, options)
    back = Resampling(made.shape, tuple(1 / step for step in there.steps))
    return resampled(made, back, field.shape)


def loss(
    field: Micrograph, identity: LoadedModel, options: EnhanceOptions, blur: float
) -> float:
    """Measure what the way there and back takes from an image."""
    image = ndimage.gaussian_filter(field.array(), blur) if blur else field.array()
    same = enhanced(field.replace(data=image), identity, options)
    return float(np.sqrt(np.mean((same - image) ** 2)) / image.std())


def main() -> int:
    """Print one row for each pixel size."""
    side = read_options(__doc__, side=(701, "columns of the field")).side
    loaded = load_model("sem-restore")
    options = EnhanceOptions(tile=128, device="cpu", precision="fp32")
    whole = options.replace(tile=2048)
    image = draw_phantom("fracture", (side * 3 // 4, side), seed=2) * 200
    network, identity = stating(loaded, loaded.module), stating(loaded, nn.Identity())
    worst = 0.0
    head = f"{'pixel':>8} {'seen':>12} {'difference':>11} {'time':>6}"
    print(head, f"{'loss':>6} {'soft':>6}")
    for size in SIZES_NM:
        field = Micrograph(image, parse_pixel_size(size))
        made = enhanced(field, network, options)
        expected = by_hand(field, network, whole)
        error = float(np.abs(made - expected).max() / np.ptp(expected))
        worst = max(worst, error)
        ways = {
            how: partial(
                enhanced, field, network, options.replace(tile=None, resample=how)
            )
            for how in ("auto", "never")
        }
        took = least_of(3, ways, time.process_time)
        ratio = took["auto"] / took["never"]
        lost = [loss(field, identity, options, blur) for blur in (0, 1)]
        seen = "x".join(str(n) for n in grid_of(field, network).shape)
        row = f"{size:5.1f} nm {seen:>12} {error:11.1e} {ratio:6.2f}"
        print(row, *(f"{value:6.3f}" for value in lost), flush=True)
    return int(worst > GATE)


if __name__ == "__main__":
    sys.exit(main())
