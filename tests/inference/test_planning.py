import numpy as np
import pytest

from napari_semsr.core import Micrograph, OptionError
from napari_semsr.inference import EnhanceOptions, plan_output
from napari_semsr.models import ProbeResult
from tests.enhancing import tiles_of
from tests.refusals import refused


@pytest.mark.parametrize(
    ("shape", "scale", "stride", "tile", "core"),
    [
        ((5000, 3000), 1, 4, None, 512),
        ((5000, 3000), 3, 4, None, 340),
        ((301, 201), 1, 4, None, 304),
        ((5000, 3000), 1, 4, 130, 132),
        ((100, 100), 2, 4, 512, 100),
    ],
)
def test_cores_are_sensible_chunks(shape, scale, stride, tile, core, make_loaded):
    loaded = make_loaded("plain", scale=scale, stride=stride)
    field = Micrograph(np.broadcast_to(np.uint8(0), shape))
    options = EnhanceOptions(tile=tile)
    output = plan_output(field, loaded.card.model_dump(), options)
    assert output.core == core
    assert output.tile_shape == tuple(min(core * scale, n * scale) for n in shape)
    assert tiles_of(shape, loaded, ProbeResult(8, 0, stride), options).core == core


@pytest.mark.parametrize(
    ("grey", "dtype", "kept"),
    [("unit", "float16", True), ("unit", "uint16", False), ("input", "uint16", True)],
)
def test_levels_from_0_to_1_are_not_rounded(grey, dtype, kept, make_loaded):
    card = make_loaded("plain").card.model_copy(update={"grey": grey}).model_dump()
    field, options = Micrograph(np.zeros((8, 8))), EnhanceOptions(dtype=dtype)
    if kept:
        assert plan_output(field, card, options).dtype == dtype
        return
    with refused(OptionError, "type-too-coarse"):
        plan_output(field, card, options)
