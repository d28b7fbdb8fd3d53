import dask.array as da
import numpy as np
import pytest
from hypothesis import given, strategies as st
from napari.components import ViewerModel
from napari.layers import Image

from napari_semsr.core.errors import OptionError, ShapeError
from napari_semsr.core.micrograph import (
    InputRecord,
    Micrograph,
    Provenance,
    parse_pixel_size,
)
from napari_semsr.io.layers import NETWORK_KEY
from napari_semsr.widgets.layers import (
    create_layer_keywords,
    create_result_name,
    find_free_name,
    get_common_unit,
    get_network_name,
    have_same_grid,
    micrograph_from_layer,
)
from tests.refusals import refused

IMAGE = np.arange(35, dtype=np.uint8).reshape(5, 7)
COLOUR = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)
sizes = st.floats(1e-3, 1e5)


@given(y=sizes, x=sizes, oy=st.floats(-1e5, 1e5), calibrated=st.booleans())
def test_layer_round_trip_keeps_calibration(y, x, oy, calibrated):
    before = Micrograph(
        IMAGE,
        parse_pixel_size((y, x)) if calibrated else None,
        "grain",
        origin=(oy, 3.0),
        spacing_px=(1.0, 1.0) if calibrated else (y, x),
        provenance=Provenance(job="test"),
    )
    after = micrograph_from_layer(Image(IMAGE, **create_layer_keywords(before)))
    assert after.unit == before.unit
    np.testing.assert_allclose(after.scale, before.scale)
    np.testing.assert_allclose(after.origin, before.origin, atol=1e-9)
    assert after.provenance == before.provenance
    assert after.name == "grain"
    np.testing.assert_array_equal(after.array(), IMAGE)


@pytest.mark.parametrize(
    ("unit", "nm"),
    [("nm", 1), ("um", 1e3), ("µm", 1e3), ("pm", 1e-3), ("angstrom", 0.1), ("m", 1e9)],
)
def test_micrograph_from_layer_converts_lengths(unit, nm):
    layer = Image(IMAGE, scale=(2, 3), units=(unit, unit), affine=np.diag([5, 4, 1]))
    found = micrograph_from_layer(layer).pixel_size_nm
    assert found == pytest.approx((10 * nm, 12 * nm))


def made_by_network(job: str = "enhance") -> Provenance:
    return Provenance(job=job, model_name="sem-restore", model_digest="sha256:1")


def test_network_of_knows_what_made_a_layer_or_what_it_comes_from():
    before = InputRecord(role="image", name="a", provenance=made_by_network())
    cut = Provenance(job="crop", inputs=(before,))
    for made in (made_by_network(), cut):
        layer = Image(
            IMAGE, **create_layer_keywords(Micrograph(IMAGE, provenance=made))
        )
        assert get_network_name(layer) == "sem-restore"
        mark = layer.metadata[NETWORK_KEY]
        assert mark == {"model": "sem-restore", "digest": "sha256:1"}
        layer.metadata.pop("micrograph")  # as a layer of another kind has it
        assert get_network_name(layer) == "sem-restore"
    plain = Micrograph(IMAGE, provenance=Provenance(job="stitch"))
    assert get_network_name(Image(IMAGE, **create_layer_keywords(plain))) is None
    assert get_network_name(Image(IMAGE)) is None


@pytest.mark.parametrize(
    ("axis", "own", "other"), [(0.5, "um", "nm"), (2000, "nm", "um"), (2, "s", "ms")]
)
def test_the_plane_shown_is_found_beside_a_layer_in_another_unit(axis, own, other):
    stack = np.stack([IMAGE + n for n in range(10)])
    viewer = ViewerModel()
    viewer.add_image(np.zeros((3, 5, 7)), units=(other, "nm", "nm"))
    layer = viewer.add_image(stack, scale=(axis, 2, 3), units=(own, "nm", "nm"))
    viewer.layers.units = (other, "nm", "nm")
    factor = {"nm": 1000, "um": 0.001, "ms": 1000}[other]
    viewer.dims.set_point(0, 4 * axis * factor)
    found = micrograph_from_layer(layer, viewer.dims)
    np.testing.assert_array_equal(found.array(), IMAGE + 4)
    assert found.pixel_size_nm == (2.0, 3.0)


@pytest.mark.parametrize("wrap", [np.asarray, da.from_array], ids=["numpy", "dask"])
def test_colour_layer_of_equal_channels_is_taken_as_its_grey(wrap):
    samples = np.stack([IMAGE, IMAGE, IMAGE, np.full_like(IMAGE, 255)], axis=-1)
    layer = Image(wrap(samples), rgb=True, scale=(2, 3), units=("um", "um"))
    found = micrograph_from_layer(layer)
    np.testing.assert_array_equal(found.array(), IMAGE)
    assert found.pixel_size_nm == pytest.approx((2000, 3000))
    pile = Image(np.stack([samples, samples + 1]), rgb=True)
    np.testing.assert_array_equal(
        micrograph_from_layer(pile, plane=(1,)).array(), IMAGE + 1
    )


@pytest.mark.parametrize(
    ("layer", "code"),
    [
        (None, "missing-value"),
        (Image(COLOUR, rgb=True), "colour-image"),
        (Image(IMAGE, rotate=10), "layer-turned"),
        (Image(IMAGE, shear=[0.1]), "layer-turned"),
        (Image(IMAGE, scale=(-1, 1)), "layer-turned"),
        (Image(IMAGE, affine=np.eye(3)[[1, 0, 2]]), "layer-turned"),
    ],
    ids=["none", "rgb", "rotated", "sheared", "flipped", "affine"],
)
def test_micrograph_from_layer_refuses(layer, code):
    with refused(ShapeError, code):
        micrograph_from_layer(layer)


@pytest.mark.parametrize(
    ("shown", "same"),
    [
        ({}, True),
        ({"scale": (1, 1), "affine": np.diag([2.0, 2.0, 1.0])}, True),
        ({"affine": np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])}, False),
        ({"rotate": 5}, False),
        ({"affine": np.array([[1, 0, 4], [0, 1, 0], [0, 0, 1]])}, False),
        ({"translate": (0, 2)}, False),
        ({"units": "um"}, False),
        ({"units": "um", "scale": (0.002, 0.002)}, True),
    ],
    ids=["equal", "scaled", "mirrored", "turned", "moved", "away", "unit", "µm"],
)
def test_layers_lie_on_one_grid_as_they_are_shown(shown, same):
    first = Image(IMAGE, scale=(2, 2), units="nm")
    second = Image(IMAGE, **{"scale": (2, 2), "units": "nm"} | shown)
    assert have_same_grid(first, second) is same
    pile = Image(np.stack([IMAGE, IMAGE]), scale=(1, 2, 2), units=("pixel", "nm", "nm"))
    assert have_same_grid(pile, second) is same


def test_same_unit_names_the_layer_without_pixel_size():
    bare = Micrograph(IMAGE, name="bare")
    with refused(OptionError, "pixel-size-missing", match="'bare'"):
        get_common_unit([Micrograph(IMAGE, parse_pixel_size(1.0)), bare])


def test_results_are_named_by_what_made_them(model):
    assert create_result_name(model, "mosaic", "ssum-sem") == "mosaic · ssum-sem"
    model.add_image(IMAGE, name="mosaic · ssum-sem")
    assert create_result_name(model, "mosaic", "ssum-sem") == "mosaic · ssum-sem 2"
    model.add_image(IMAGE, name="mosaic · ssum-sem 2")
    assert create_result_name(model, "mosaic", "ssum-sem") == "mosaic · ssum-sem 3"
    name = "mosaic · ssum-sem 2"
    for step, named in [
        ("wiener", "mosaic · ssum-sem 2 · wiener"),
        ("crop", "mosaic · … · wiener · crop"),
        ("spectrum", "mosaic · … · crop · spectrum"),
    ]:
        name = create_result_name(model, name, step)
        assert name == named
    assert find_free_name(model, "mosaic") == "mosaic"


def test_masked_pixels_of_a_layer_are_unknown():
    mask = np.eye(5, 7, dtype=bool)
    for data in (IMAGE, np.stack([IMAGE] * 2)):
        layer = Image(np.ma.array(data, mask=np.broadcast_to(mask, data.shape)))
        image = micrograph_from_layer(layer)
        np.testing.assert_array_equal(np.isnan(image.array()), mask)
