"""What is computed on a grid is written as it is read, in whatever order it is made."""

import numpy as np
import pytest

from napari_semsr import core
from napari_semsr.io import read
from napari_semsr.jobs.images import write_pixels

PITCH = (2.0, 2.0)
BENT = core.Elastic(
    core.Affine.create_similarity(5, about=(900, 900)),
    core.BSplineDisplacement(
        (0.0, 0.0), (600.0, 600.0), np.random.default_rng(2).normal(0, 9, (2, 4, 4))
    ),
)


@pytest.fixture
def image():
    data = np.random.default_rng(0).integers(0, 255, (900, 800), dtype=np.uint8)
    return core.Micrograph(data, core.parse_pixel_size(PITCH), name="field")


def _about(area, origin=(0.0, 0.0)):
    shown = np.broadcast_to(np.float32(0), area.grid.shape)
    return core.Micrograph(
        shown, core.parse_pixel_size(area.grid.pitch), "seen", origin=origin
    )


@pytest.mark.parametrize("suffix", [".ome.zarr", ".tif"])
def test_a_warped_image_is_written_as_it_is_read(image, tmp_path, suffix):
    seen = core.WarpedImage(image, core.Grid((1100, 700), PITCH, (-100.0, 100.0)), BENT)
    target = tmp_path / f"seen{suffix}"
    written = core.run(write_pixels(seen, _about(seen, (-99.0, 101.0)), target))
    made = read(target)
    assert (written.dtype, written.shape) == ("float32", (1100, 700))
    assert (made.pixel_size_nm, made.origin) == (PITCH, (-99.0, 101.0))
    np.testing.assert_allclose(made.array(), seen.read(), atol=1e-4)
    assert 0.05 < np.isnan(made.array()).mean() < 0.4
