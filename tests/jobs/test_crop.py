"""Cutting keeps pixels, places and history; two images end on one grid."""

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr import crop, read
from napari_semsr.core.errors import ReadError, SemsrError, ShapeError
from napari_semsr.core.micrograph import Micrograph, parse_pixel_size
from napari_semsr.core.progress import run
from napari_semsr.jobs import CROP, CropOptions, crop_to_gap_free_box
from tests.refusals import refused, warned


def _image(shape=(90, 80), *, size=10.0, origin=(0.0, 0.0), name="image", seed=0):
    data = np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)
    return Micrograph(data, parse_pixel_size(size), name, origin=origin)


def _waves(shape, size, origin, name="waves"):
    """Something smooth that is known everywhere, in float32."""
    y, x = (o + size * np.arange(n) for o, n in zip(origin, shape, strict=True))
    data = np.sin(y[:, None] / 70) + np.cos(x / 90)
    return Micrograph(
        data.astype(np.float32), parse_pixel_size(size), name, origin=origin
    )


def test_box_keeps_pixels_type_and_place(tmp_path):
    image = _image(origin=(100.0, -40.0))
    options = CropOptions(box=(5, 7, 45, 60))
    made = run(CROP.job(image, output=tmp_path / "a.ome.zarr", options=options))
    part = read(made.output)
    np.testing.assert_array_equal(part.array(), image.data[5:45, 7:60])
    assert part.dtype == np.uint8
    assert part.origin == made.origin == (150.0, 30.0)
    assert made.area == (5, 7, 45, 60)
    assert part.provenance.options["box"] == [5, 7, 45, 60]
    again = crop(image, box_nm=(145, 25, 545, 555))
    np.testing.assert_array_equal(again.array(), part.array())
    assert again.origin == part.origin


def test_like_an_image_on_the_same_grid_copies_pixels(tmp_path):
    whole = _image((200, 150), origin=(0.0, 0.0))
    reference = _image((60, 300), origin=(500.0, -200.0), name="reference")
    with warned("part-of-reference", match="rows 0 to 60, columns 20 to 170"):
        crop(whole, like=reference)
    how = {"like": reference, "like_output": tmp_path / "b.tif"}
    made = crop(whole, tmp_path / "a.tif", **how)
    both = [read(path) for path in (made.output, made.like_output)]
    np.testing.assert_array_equal(both[0].array(), whole.data[50:110])
    np.testing.assert_array_equal(both[1].array(), reference.data[:, 20:170])
    assert [image.origin for image in both] == [(500, 0), (500, 0)]


@pytest.mark.parametrize("size", [6.0, 10.0, 25.0])
def test_like_another_grid_shows_the_same_place(size):
    source = _waves((240, 220), 10.0, (30.0, -70.0))
    reference = _waves((500, 40), size, (403.0, 111.0), "reference")
    with warned("part-of-reference"):
        part = crop(source, like=reference)
    y0, x0, y1, x1 = part.metadata["crop"]["area"]
    assert part.metadata["crop"]["resampled"]
    assert part.pixel_size_nm == (size, size)
    inner = np.s_[8:-8, 4:-4]
    expected = reference.data[y0:y1, x0:x1]
    np.testing.assert_allclose(part.array()[inner], expected[inner], atol=0.02)
    last = part.origin[0] + (part.shape[0] - 0.5) * size
    assert last <= 30 + 239.5 * 10 + 0.1 * size


def test_blocks_equal_the_whole(tmp_path):
    source = _image((700, 640), origin=(3.0, 4.0), seed=3)
    reference = _image((1100, 1000), size=6.0, name="reference")
    with warned("part-of-reference"):
        made = run(CROP.job(source, output=tmp_path / "a.ome.zarr", like=reference))
    with warned("part-of-reference"):
        whole = crop(source, like=reference)
    np.testing.assert_array_equal(read(made.output).array(), whole.array())
    assert made.dtype == "float32"


def test_gaps_are_left_out_of_both(tmp_path):
    source = _waves((150, 140), 10.0, (0.0, 0.0))
    holed = source.data.copy()
    holed[:17], holed[60, 130:] = np.nan, np.nan
    source = source.replace(data=holed)
    reference = _waves((140, 150), 9.0, (50.0, 50.0), "reference")
    how = {"like": reference, "like_output": tmp_path / "b.ome.zarr"}
    made = crop(source, tmp_path / "a.ome.zarr", gap_free=True, **how)
    one, two = (read(p) for p in (made.output, made.like_output))
    assert one.shape == two.shape
    assert np.isfinite(one.array()).all()
    np.testing.assert_allclose(one.array(), two.array(), atol=0.03)
    assert min(one.shape) > 90


def test_align_finds_what_the_origin_does_not_tell(rng):
    drawn = ndimage.gaussian_filter(rng.normal(size=(360, 360)), 3)
    truth = Micrograph(drawn, parse_pixel_size(5.0), "truth", origin=(-50.0, 20.0))
    grid = Micrograph(np.zeros((150, 150)), parse_pixel_size(10.0), origin=(0.0, 100.0))
    # a scan that lies 40 nm further down and 25 nm further left than it says
    seen = crop(truth, like=grid.replace(origin=(40.0, 75.0)), dtype="float32").replace(
        origin=grid.origin, name="seen", provenance=None
    )
    part = crop(truth, like=seen, align=True, search=16)
    told = part.metadata["crop"]
    assert told["shift_nm"] == pytest.approx([-40, 25], abs=0.5)
    y0, x0, y1, x1 = told["area"]
    close = part.array() - seen.data[y0:y1, x0:x1]
    assert np.std(close[4:-4, 4:-4]) < 0.02 * np.std(seen.data)


@pytest.mark.parametrize(
    ("like", "options", "code", "values"),
    [
        ({"origin": (5000.0, 0.0)}, {}, "no-overlap", "image covers y -5 to 895"),
        ({"size": None}, {}, "pixel-size-missing", "`like_pixel_size_nm`"),
        ({"size": 5000.0, "origin": (1.0, 0.0)}, {}, "pixel-sizes-differ", None),
        ({}, {"box": (0, 0, 5, 5)}, "options-contradict", None),
        ({}, {"align": True, "search": 64}, "image-too-small", "260 px"),
        (None, {}, "missing-value", None),
        (None, {"box": (5, 0, 5, 9)}, "box-empty", "5 0 5 9"),
        (None, {"box": (95, 0, 99, 9)}, "outside-image", "90 x 80"),
        (None, {"like_pixel_size_nm": (0, 5)}, "pixel-size-invalid", r"\(0, 5\)"),
        (None, {"search": 9, "box": (0, 0, 5, 5)}, "option-without-effect", "`align`"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Neither")
def test_what_cannot_be_cut_is_refused(like, options, code, values):
    reference = None if like is None else _image(name="reference", **like)
    with refused(SemsrError, code, match=values):
        crop(_image(), like=reference, **options)


def test_one_output_does_not_replace_the_other(tmp_path):
    image, place = _image(), tmp_path / "c.tif"
    with refused(SemsrError, "outputs-coincide"):
        crop(image, place, overwrite=True, like=image, like_output=place)
    assert not list(tmp_path.iterdir())


def test_gaps_of_two_images_are_cut_off_both_in_place():
    one, two = (_waves((60, 80), 10.0, (origin, 0.0)) for origin in (100.0, 0.0))
    one.data[:7] = np.nan
    two.data[:, -9:] = np.nan
    (first, second), box = run(crop_to_gap_free_box(one, two))
    assert (box.corner, box.shape) == ((7, 0), (53, 71))
    np.testing.assert_array_equal(first.array(), one.data[7:, :-9])
    np.testing.assert_array_equal(second.array(), two.data[7:, :-9])
    assert (first.origin, second.origin) == ((170.0, 0.0), (70.0, 0.0))
    assert run(crop_to_gap_free_box(first)) == ((first,), None)  # left as it is
    one.data[:30], two.data[30:] = np.nan, np.nan
    with refused(ShapeError, "gaps-everywhere"):
        run(crop_to_gap_free_box(one, two))


def test_fill_values_are_gaps_and_an_image_of_them_has_no_finite_pixels():
    image = _waves((60, 80), 10.0, (0.0, 0.0))
    image.data[:7] = 3e38
    with warned("pixels-marked-missing"):
        _, box = run(crop_to_gap_free_box(image))
    assert (box.corner, box.shape) == ((7, 0), (53, 80))
    image.data[:] = 3e38
    missing = warned("pixels-marked-missing")
    with missing, refused(ReadError, "no-finite-values", match="waves "):
        run(crop_to_gap_free_box(image))


def test_stripes_without_noise_are_no_frame():
    stripes = np.tile(np.arange(40) % 8, (32, 1)).astype(np.uint8)
    for data in (stripes, stripes.T):
        _, box = run(crop_to_gap_free_box(Micrograph(data)))
        assert box is None


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("dtype", ["u1", "f4"])
def test_a_uniform_frame_is_not_image_content(level, dtype, rng):
    data = np.full((60, 50), level, dtype)
    data[2:-1, 1:] = rng.integers(90, 110, (57, 49))
    (inner,), box = run(crop_to_gap_free_box(Micrograph(data)))
    assert box.ends == (2, 1, 59, 50)
    np.testing.assert_array_equal(inner.array(), data[2:-1, 1:])
    data[2:-1, 1:] = level  # background that continues within the border
    data[20:40, 20:40] = 100
    assert run(crop_to_gap_free_box(Micrograph(data)))[1] is None
    data[:] = np.arange(50) % 7  # a grating
    assert run(crop_to_gap_free_box(Micrograph(data)))[1] is None
