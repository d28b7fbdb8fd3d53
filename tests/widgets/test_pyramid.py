import dask.array as da
import numpy as np
import pytest
from napari.components import ViewerModel

from napari_semsr.core import Micrograph, parse_pixel_size, run
from napari_semsr.widgets.base import OpenedImage, results
from napari_semsr.widgets.open_mosaic import OpenMosaicPanel

SIZE = parse_pixel_size(3.0)


@pytest.mark.parametrize("strip", [1, 700], ids=["thin", "some"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_coarse_levels_are_block_means_however_cut(monkeypatch, strip, dtype):
    monkeypatch.setattr(results, "STRIP_PX", strip)
    monkeypatch.setattr("napari_semsr.io.SINGLE_PX", 8)
    data = np.random.default_rng(0).integers(0, 200, (67, 81)).astype(dtype)
    lazy = Micrograph(da.from_array(data, chunks=16), SIZE)
    first, second = run(results.create_coarse_levels(lazy))
    mean = data[:64, :80].astype(float).reshape(16, 4, 20, 4).mean(axis=(1, 3))
    wanted = mean if dtype is np.float32 else np.rint(mean)
    np.testing.assert_allclose(first.array(), wanted, rtol=1e-6)
    assert first.dtype == dtype
    assert second.shape == (4, 5)


def test_large_lazy_image_is_shown_without_reading_it(hold):
    reads = []

    def block(block_info):
        reads.append(block_info[None]["chunk-location"])
        return np.zeros((256, 256), np.uint8)

    data = da.map_blocks(block, chunks=((256,) * 8, (256,) * 8), dtype=np.uint8)
    lazy = Micrograph(data, SIZE, "big")
    coarse = [
        lazy.replace(data=np.zeros((2048 // k, 2048 // k), np.uint8)) for k in (4, 16)
    ]
    reads.clear()
    viewer = ViewerModel()
    panel = hold(OpenMosaicPanel(viewer))
    panel.show_image(OpenedImage(lazy, (lazy, *coarse)))
    assert len(reads) < 64
    assert viewer.layers[0].multiscale
