import numpy as np
import pytest

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.inference.layout import choose_tiles, plan_output
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.models.probing.receptive_field import Probe


@pytest.mark.parametrize(
    ("shape", "scale", "stride", "tile", "core"),
    [
        ((5000, 3000), 1, 4, None, 512),
        ((5000, 3000), 2, 4, None, 512),
        ((5000, 3000), 3, 4, None, 340),
        ((300, 201), 1, 4, None, 300),
        ((301, 201), 1, 4, None, 304),
        ((1, 1), 1, 16, None, 16),
        ((5000, 3000), 1, 4, 130, 132),
        ((100, 100), 2, 4, 512, 100),
    ],
)
def test_cores_are_sensible_chunks(shape, scale, stride, tile, core, make_loaded):
    card = make_loaded("plain", scale=scale, stride=stride).card
    field = Micrograph(np.broadcast_to(np.uint8(0), shape))
    output = plan_output(field, card.model_dump(), EnhanceOptions(tile=tile))
    assert output.core == core
    assert output.unit == tuple(min(core * scale, n * scale) for n in shape)
    assert choose_tiles(shape, card, Probe(8, 0, stride), tile=tile).core == core
