import dask.array as da
import numpy as np
import pytest

from napari_semsr import core

SIZE = (4.0, 5.0)  # of a pixel of the image
ORIGIN = (30.0, -20.0)
SHAPE = (150, 130)
GRID = core.Grid((120, 140), (4.5, 4.5), (60.0, -10.0))
CENTRE = (320.0, 300.0)

TURNED = core.Affine.create_similarity(12, scale=1.05, shift=(9, -4), about=CENTRE)
BENT = core.Elastic(
    TURNED,
    core.BSplineDisplacement(
        (0.0, -100.0), (250.0, 250.0), np.random.default_rng(2).normal(0, 9, (2, 5, 5))
    ),
)
TRANSFORMS = {
    "identity": core.Affine(),
    "similarity": TURNED,
    "mirror": core.Affine.create_similarity(100, is_mirrored=True, about=CENTRE),
    "affine": core.Affine(((1.1, 0.2), (-0.1, 0.95)), (-20.0, 30.0)),
    "elastic": BENT,
    "inverted": BENT.inverse(),
}


def _wave(places):
    """A smooth image, defined everywhere; its finest wave is 40 long, 8 px or more."""
    y, x = np.moveaxis(np.asarray(places, dtype=float), -1, 0)
    return 120 + 30 * (np.sin(y / 8) * np.cos(x / 11) + np.cos((x + y) / 10))


def _centres(shape, pitch, first):
    at = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return at * pitch + first


def _image(data=None, **changes):
    if data is None:
        data = _wave(_centres(SHAPE, SIZE, ORIGIN))
    return core.Micrograph(data, core.parse_pixel_size(SIZE), origin=ORIGIN).replace(
        **changes
    )


def _direct(transform, grid=GRID):
    """Places in the image of the grid's pixels, and whether the image is there."""
    first = grid.box_origin(core.Box.from_shape(grid.shape))
    back = transform.inverse()(_centres(grid.shape, grid.pitch, first))
    pixels = (back - ORIGIN) / SIZE
    inside = ((pixels >= -0.5) & (pixels <= np.array(SHAPE) - 0.5)).all(axis=-1)
    # a mirrored border makes something else of a ramp
    inner = ((pixels >= 12) & (pixels <= np.array(SHAPE) - 13)).all(axis=-1)
    return back, inside, inner


@pytest.mark.parametrize("axis", [0, 1], ids=["y", "x"])
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_places_are_found_to_hundredths_of_a_pixel(transform, axis):
    """A ramp shows where a pixel was taken from: splines follow it exactly."""
    ramp = np.indices(SHAPE)[axis].astype(float)
    made = core.WarpedImage(_image(ramp), GRID, transform).read()
    back, inside, inner = _direct(transform)
    # where the bend is followed a place lies off by some thousandths of a pixel
    assert np.mean(np.isfinite(made) != inside) < 2e-3
    places = (back[..., axis] - ORIGIN[axis]) / SIZE[axis]
    assert inner.sum() > 3000
    np.testing.assert_allclose(made[inner], places[inner], atol=5e-3)


def test_on_its_own_grid_an_image_is_itself():
    image = _image(np.random.default_rng(0).random(SHAPE))
    made = core.WarpedImage(image, core.Grid.from_image(image), core.Affine()).read()
    np.testing.assert_allclose(made, image.data, atol=1e-12)


def _holed():
    data = np.random.default_rng(1).normal(100, 20, SHAPE)
    data[40:52, 60:90] = np.nan
    data[100, 20] = np.inf
    data[:, -9:] = np.nan
    return _image(data)


@pytest.mark.parametrize("coarser", [1, 3], ids=["fine", "coarse"])
@pytest.mark.parametrize("transform", [TURNED, BENT], ids=["affine", "elastic"])
def test_a_pixel_is_the_same_in_whatever_part_it_is_asked_for(transform, coarser):
    shape = tuple(n // coarser for n in GRID.shape)
    grid = core.Grid(shape, (4.5 * coarser, 4.5 * coarser), GRID.corner)
    seen = core.WarpedImage(_holed(), grid, transform)
    whole, blocks = seen.read(), da.from_array(_holed().data, chunks=(37, 41))
    lazy = core.WarpedImage(_image(blocks), grid, transform)
    assert 0.02 < np.isnan(whole).mean() < 0.6
    rows, columns = shape
    for box in (
        core.Box(0, 1, 0, 1),
        core.Box(3, 4, 0, columns),
        core.Box(rows // 2, rows, columns // 3, columns // 2),
        core.Box(rows - 7, rows, columns - 5, columns),
    ):
        np.testing.assert_allclose(seen.read(box), whole[box.slices], atol=1e-6)
        np.testing.assert_array_equal(lazy.read(box), seen.read(box))


def test_gaps_stay_gaps_and_do_not_grow():
    image = _image()
    data = image.data.copy()
    data[40:52, 60:90] = np.nan
    made = core.WarpedImage(_image(data), GRID, BENT).read()
    back, _, inner = _direct(BENT)
    pixels = (back - ORIGIN) / SIZE
    off = np.maximum([40, 60] - pixels, pixels - [51, 89]).max(axis=-1)
    assert np.isnan(made[inner & (off <= 0)]).all()
    beside = inner & (off >= 1.01)
    assert np.isfinite(made[beside]).all()
    # the gap was continued, so that no value rings beside it
    np.testing.assert_allclose(made[beside], _wave(back)[beside], atol=5)
    far = inner & (off >= 8)
    np.testing.assert_allclose(made[far], _wave(back)[far], atol=0.5)


@pytest.mark.parametrize("pitch", [4.5, 15.0])
def test_nothing_is_seen_of_an_image_without_values_or_elsewhere(pitch):
    nothing, size = _image(np.full(SHAPE, np.nan)), (pitch, pitch)
    seen = core.WarpedImage(nothing, core.Grid((20, 20), size, (60, 0)), TURNED)
    assert np.isnan(seen.read()).all()
    elsewhere = core.WarpedImage(_image(), core.Grid((20, 30), size, (1e5, 1e5)), BENT)
    assert elsewhere.read().shape == (20, 30)
    assert np.isnan(elsewhere.read()).all()


def test_of_a_coarse_grid_few_pixels_are_made_at_once():
    class Counted:
        shape, dtype, largest = (40_000, 40_000), np.dtype(np.uint8), 0

        def __getitem__(self, index):
            rows, columns = (s.stop - s.start for s in index)
            self.largest = max(self.largest, rows * columns)
            return np.broadcast_to(np.uint8(7), (rows, columns))

    data = Counted()
    grid = core.Grid((800, 800), (50.0, 50.0), (0.0, 0.0))
    seen = core.WarpedImage(core.Micrograph(data, (1.0, 1.0)), grid, core.Affine())
    np.testing.assert_allclose(seen.read(core.Box(300, 380, 300, 350)), 7, rtol=1e-5)
    assert data.largest < 12_000_000
