"""What networks with live norms lose where a field does not fit into memory.

::

    OMP_NUM_THREADS=1 python benchmarks/sampled_norm.py

A narrow residual generator with random weights on 1024² px, cut into parts of 64 px:
the error that ``sampled`` states beside the measured one, several draws, and that of
``tile``, as others do it. Exit code 1 means that the gate for the stated error was
missed; it holds for all draws together, since a single draw can be luckier than it may
claim to be.
"""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from _networks import field, random_model
from _shared import in_line, read_options
from torch import nn

from napari_semsr.core import Micrograph, run as finish
from napari_semsr.inference import EnhanceOptions
from napari_semsr.inference.engine import enhance_in_memory
from napari_semsr.inference.plan import measure_sample
from napari_semsr.inference.predictor import Predictor
from napari_semsr.models import LoadedModel
from tests.enhancing import plan_of

STATED_GATE = 1.5
WIDTH, SIDE, PART = 8, 1024, 64
DRAWS = 4


def network() -> LoadedModel:
    """Make a network with random weights."""
    percentiles = {"input_percentiles": (1.0, 99.0)}
    made = random_model("resnet", {"width": WIDTH}, 0, **percentiles)
    for weights in made.module.parameters():
        if weights.ndim > 1:
            nn.init.kaiming_uniform_(weights, a=5**0.5)
    made.module.eval()
    return made


def compare() -> Iterator[dict[str, Any]]:
    """Compare the error that is stated with the one that is measured."""
    loaded, image = network(), Micrograph(field((SIDE, SIDE)))
    options = EnhanceOptions(tile=PART, norm="tile", precision="fp32", device="cpu")
    whole = options.replace(norm="whole", memory_gb=100)
    expected = finish(enhance_in_memory(image, loaded, whole)).data

    def error(result: Any) -> float:
        return float(np.sqrt(np.mean((result - expected) ** 2)) / expected.std())

    predictor = Predictor(loaded, device="cpu", precision="fp32")
    plan = plan_of(image, loaded, options, predictor)
    for seed in range(DRAWS):
        predictor.statistics = None
        found = finish(measure_sample(plan, predictor, seed=seed))
        predictor.statistics = found.statistics
        result = predictor.predict([np.asarray(image.data)], plan.scaling)[0]
        yield {
            "sampled": found.sample_tiles,
            "of": found.tiles,
            "stated": found.error,
            "measured": error(result),
        }
    result = finish(enhance_in_memory(image, loaded, options))
    report = result.metadata["enhance"]
    yield {
        "tile": error(result.data),
        "tile_mismatch": report["tile_mismatch"],
        "seam_index": report["seam_index"],
    }


def main() -> int:
    """Measure, print, and judge."""
    read_options(__doc__)
    rows = []
    for row in compare():
        print(in_line(row, ".3g"))
        rows += [row] if "stated" in row else []
    stated, measured = (
        sum(row[k] ** 2 for row in rows) for k in ("stated", "measured")
    )
    bound = STATED_GATE**2
    return int(not 1 / bound <= stated / measured <= bound)


if __name__ == "__main__":
    sys.exit(main())
