"""One store in two viewers: read at once, and written anew by one of them."""

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_semsr.core import Micrograph, ReadError, parse_pixel_size
from napari_semsr.io import write
from napari_semsr.widgets.layers import create_layer_keywords
from napari_semsr.widgets.open_mosaic import OpenMosaicPanel
from napari_semsr.widgets.restore import RestorePanel
from tests.refusals import refused
from tests.widgets.scenes import exposures_of

SIZE = parse_pixel_size(5.0)
SHAPE = (2100, 96)  # large enough to be read from its store when it is shown


@pytest.fixture(params=["reader", pytest.param("panel", marks=pytest.mark.broad)])
def show(request, registered, hold, finish, run_panel):
    """Open a store in a viewer, by our reader or by our panel; give its layer."""

    def opened(viewer, path):
        if request.param == "reader":
            [layer] = viewer.open(str(path), plugin="napari-semsr")
            return layer
        panel = hold(OpenMosaicPanel(viewer))
        panel.path.value = path
        finish(panel)
        run_panel(panel)
        return viewer.layers[-1]

    return opened


@pytest.fixture
def image(rng):
    data = rng.normal(100, 20, SHAPE).cumsum(1).astype(np.float32)
    return Micrograph(data, SIZE, "field")


def levels(layer):
    return [np.asarray(level) for level in layer.data]


@pytest.mark.broad
def test_a_viewer_tells_that_another_wrote_its_store_anew(
    show, image, tmp_path, hold, finish, run_panel
):
    path = tmp_path / "field.ome.zarr"
    write(image, path)
    one, other = ViewerModel(), ViewerModel()
    for viewer in (one, other):
        show(viewer, path)
    [layer] = other.layers
    sharp = exposures_of(image.shape, sharp=True)[0].replace(name="source")
    source = one.add_image(sharp.data, **create_layer_keywords(sharp))

    writing = hold(RestorePanel(one))
    finish(writing)
    writing.layer.value = source
    writing.output.value = path
    writing.replace.value = True
    assert run_panel(writing).startswith("Restored source"), writing.status.text()
    made = one.layers[-1]
    assert made.data[0].any()

    told = "was replaced or moved since it was opened: open it again."
    for level in layer.data:
        with refused(ReadError, "content-changed"):
            np.asarray(level)
    with refused(ReadError, "content-changed"):
        layer.data_level = 0  # as it is seen from near; napari holds the coarsest
    using = hold(RestorePanel(other))
    finish(using)
    said = run_panel(using)
    assert said == f"{path} {told}"
    assert len(other.layers) == 1

    # and what it tells to do is enough
    again = show(other, path)
    np.testing.assert_array_equal(levels(again)[0], levels(made)[0])
