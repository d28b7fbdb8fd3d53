import dask.array as da
import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

import napari_semsr as semsr
from napari_semsr.core import Micrograph, OptionError, Provenance, ReadError, SemsrError
from napari_semsr.io.read_image import ReadOptions
from napari_semsr.jobs.images import create_input_record, open_image
from tests.refusals import refused, warned


@pytest.mark.parametrize("suffix", [".ome.tif", ".ome.zarr"])
def test_an_image_has_the_name_of_its_file_not_of_an_ancestor(tmp_path, suffix):
    path = tmp_path / f"mine{suffix}"
    noisy = np.random.default_rng(1).normal(size=(96, 96)).astype(np.float32)
    semsr.write(Micrograph(noisy, (5.0, 5.0), "ancestor"), path)
    assert open_image(path).name == "mine"
    with refused(SemsrError, "too-little-detail", match="mine"):
        semsr.restore(path, method="wiener")


@pytest.mark.parametrize("known", [None, (320.0, 320.0)], ids=["pixels", "lengths"])
def test_a_map_that_goes_by_a_pixel_size_takes_no_other(tmp_path, known):
    made, path = Provenance(job="frc-map"), tmp_path / "map.ome.tif"
    found = Micrograph(np.full((8, 8), 4, np.float32), known, "map", made)
    semsr.write(found, path)
    for image in (found, path):
        with refused(OptionError, "pixel-size-contradicts"):
            open_image(image, ReadOptions(pixel_size_nm=(10, 10)))
        if known is not None:
            assert open_image(image, ReadOptions(pixel_size_nm=known)).scale == known


def finer_pair(rng, blur_px: float = 0) -> tuple[Micrograph, Micrograph]:
    """Give an image without a pixel size, and one of half its pixels made of it.

    The first is blurred by so many pixels of the second.
    """
    grey = gaussian_filter(rng.normal(100, 200, (160, 160)), 5).astype(np.float32)
    half = {"spacing_px": (0.5, 0.5), "origin": (-0.25, -0.25)}
    coarse = gaussian_filter(grey, blur_px).reshape(80, 2, 80, 2).mean((1, 3))
    return Micrograph(coarse, name="coarse"), Micrograph(grey, name="fine", **half)


@pytest.mark.parametrize("blur_px", [0, 3], ids=["no blur", "blur of 3 fine pixels"])
def test_one_pixel_size_of_two_images_is_that_of_the_coarser(rng, blur_px):
    coarse, fine = finer_pair(rng, blur_px)
    bare, sized = (
        semsr.error_map(coarse, fine, pixel_size_nm=size) for size in (None, 10)
    )
    assert bare.rsp > 0.999
    assert sized.rsp == pytest.approx(bare.rsp, abs=1e-4)
    assert bare.sigma_nm is None
    for found in (bare, sized):  # in pixels of the enhanced image, of 5 nm
        assert found.sigma_px == pytest.approx(blur_px, abs=0.01)
    assert sized.sigma_nm == pytest.approx(5 * blur_px, abs=0.05)


@pytest.mark.parametrize("verb", ["write", "crop"])
@pytest.mark.parametrize("error", [None, (0.24, 0.12)], ids=["unknown", "known"])
def test_error_of_a_pixel_size_is_that_of_the_image_in_memory(tmp_path, verb, error):
    first, made = tmp_path / "first.tif", tmp_path / "made.ome.tif"
    grey = np.random.default_rng(0).random((64, 64), np.float32)
    semsr.convert(grey, first, pixel_size_nm=10, pixel_size_sd_nm=0.1)
    image = semsr.read(first, pixel_size_nm=12, pixel_size_sd_nm=error)
    more = {"box": (0, 0, 40, 40)} if verb == "crop" else {}
    getattr(semsr, verb)(image, made, **more)
    stored = semsr.read(made)
    assert stored.pixel_size_nm == (12, 12)
    assert stored.pixel_size_sd_nm == (error if error is None else pytest.approx(error))


@pytest.mark.parametrize("verb", ["convert", "enhance"])
def test_type_that_would_keep_few_grey_levels_is_told(tmp_path, rng, verb):
    image = Micrograph(rng.random((64, 64)).astype(np.float32), name="unit")
    with warned("values-rounded", match="^uint8 "):
        getattr(semsr, verb)(image, tmp_path / "made.ome.tif", dtype="uint8")


@pytest.mark.parametrize("value", ["7.5nm", "7.5 nm", "7.5", "7.5,7.5"])
def test_a_pixel_size_may_be_typed_with_its_unit(value):
    assert ReadOptions.parse({"pixel_size_nm": value}).pixel_size_nm == (7.5, 7.5)


@pytest.mark.parametrize(
    "value",
    ["", "x", "1,2,3", "7,5 nm", "-1", (0, 1), "1e999", "1e308", "1e-320", (5, 1e10)],
)
def test_open_options_refuse_what_is_no_pixel_size(value):
    with refused(OptionError, "pixel-size-invalid"):
        ReadOptions.parse({"pixel_size_nm": value})


def test_the_first_of_several_images_is_taken_aloud(tmp_path):
    path = tmp_path / "two.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(np.zeros((30, 40), np.uint8), metadata=None)
        file.write(np.ones((20, 40), np.uint8), metadata=None)
    with warned("several-images", match=" 2 images"):
        assert open_image(path).shape == (30, 40)
    assert open_image(path, ReadOptions(series=0)).shape == (30, 40)
    assert open_image(path, ReadOptions(series=1)).shape == (20, 40)


@pytest.fixture
def barred(rng):
    """A frame whose lowest 30 of 200 rows are a data bar."""
    image = rng.normal(120, 30, (200, 200)).clip(0, 255).astype(np.uint8)
    image[-30:] = 0
    image[-20:-10, 20:180:6] = 255
    return image


def bars_told(warnings):
    told = [str(one.message) for one in warnings]
    return [said for said in told if "look like a data bar" in said]


def test_a_data_bar_that_would_count_as_sample_is_told(tmp_path, barred, recwarn):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, barred)
    semsr.metrics(path)
    (told,) = bars_told(recwarn)
    assert "(`databar_rows=30`)" in told
    recwarn.clear()
    semsr.metrics(path, databar_rows=30)
    semsr.crop(path, tmp_path / "b.ome.tif", box=(0, 0, 90, 90))
    assert not bars_told(recwarn)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("mosaic.tif", "mosaic.ome.zarr"),
        ("mosaik.ome.zarr", "mosaic.ome.zarr"),
        ("other.tif", None),
        ("a\0b", None),
    ],
)
def test_a_name_that_leads_nowhere_is_met_with_one_like_it(tmp_path, typed, meant):
    (tmp_path / "mosaic.ome.zarr").touch()
    with refused(ReadError, "file-missing", match=meant) as caught:
        open_image(tmp_path / typed)
    assert str(caught.value).count(str(tmp_path)) == (2 if meant else 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("chunks", [None, 8])
def test_open_image_refuses_what_holds_no_finite_pixel(value, chunks):
    data = np.full((20, 30), value, np.float32)
    image = Micrograph(da.from_array(data, chunks=chunks) if chunks else data)
    with refused(ReadError, "no-finite-values"):
        open_image(image)
    assert np.array_equal(open_image(image, blank=True).array(), data, equal_nan=True)
    data[19, 29] = 0
    assert open_image(Micrograph(data)).shape == (20, 30)


@pytest.mark.parametrize("chunks", [None, 7])
def test_a_data_bar_is_cut_off_an_image_in_memory_once(chunks):
    data = np.arange(600.0).reshape(20, 30)
    image = Micrograph(da.from_array(data, chunks=chunks) if chunks else data)
    options = ReadOptions(databar_rows=5)
    opened = open_image(image, options)
    assert np.array_equal(opened.array(), data[:15])
    assert open_image(opened, options).shape == (15, 30)
    assert semsr.crop(image, box=(0, 0, 20, 30), databar_rows=0).shape == (20, 30)
    for given, rows in ((image, 20), (opened, 4)):
        with refused(OptionError, "out-of-range", match=f"of {rows} rows"):
            open_image(given, ReadOptions(databar_rows=rows))


def test_input_record_tells_planes_of_one_file_apart(folder):
    path = folder / "first.tif"
    opened = open_image(path)
    digests = {
        create_input_record(path, opened, ReadOptions.parse({"plane": plane})).digest
        for plane in (None, 0, 1)
    }
    assert len(digests) == 3


def test_input_record_of_values_ignores_laziness_and_sees_each_value():
    values = np.arange(12.0).reshape(3, 4)
    digest = create_input_record(Micrograph(values), Micrograph(values)).digest
    lazy = Micrograph(da.from_array(values, chunks=2))
    assert create_input_record(lazy, lazy).digest == digest
    changed = values.copy()
    changed[2, 3] += 1
    other = Micrograph(changed)
    assert create_input_record(other, other).digest != digest
