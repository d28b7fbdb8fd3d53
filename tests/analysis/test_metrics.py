import numpy as np
import pytest
from skimage.metrics import (
    normalized_root_mse,
    peak_signal_noise_ratio,
    structural_similarity as skimage_ssim,
)

from napari_semsr.analysis import (
    compute_psnr_gain,
    measure_gaps,
    measure_metrics,
    structural_similarity,
    sum_section_errors,
)
from napari_semsr.core import Micrograph, OptionError, ReadError, ShapeError, run
from tests.refusals import refused, warned


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    clean = rng.integers(20, 230, (40, 57))
    noisy = np.clip(clean + rng.normal(0, 9, clean.shape), 0, 255)
    return noisy.astype(np.uint8), clean.astype(np.uint8)


@pytest.mark.parametrize("k2", [0.03, 0.02])
def test_ssim_equals_scikit_image(images, k2):
    a, b = (x.astype(float) for x in images)
    how = {"data_range": 255, "gaussian_weights": True, "sigma": 1.5, "K2": k2}
    expected = skimage_ssim(a, b, use_sample_covariance=False, **how)
    assert structural_similarity(a, b, 255, k2=k2) == pytest.approx(expected, rel=1e-9)


def test_figures_of_a_pair_are_those_of_scikit_image_and_of_the_data_range(images):
    a, b = images
    found = measure_metrics(Micrograph(a), Micrograph(b))
    assert found.data_range == 255
    psnr = peak_signal_noise_ratio(b, a, data_range=255)
    assert found.psnr_db == pytest.approx(psnr, rel=1e-9)
    assert found.nrmse == pytest.approx(normalized_root_mse(b, a), rel=1e-9)
    values = a.astype(float), b.astype(float)
    assert found.ssim == pytest.approx(structural_similarity(*values, 255))
    assert found.ssim_gao == pytest.approx(structural_similarity(*values, 255, k2=0.02))
    wide = measure_metrics(Micrograph(a), Micrograph(b), data_range=1000)
    assert wide.ssim == pytest.approx(structural_similarity(*values, 1000))


def test_no_reference_figures_are_on_the_scale_of_255(images) -> None:
    small = measure_metrics(Micrograph(images[0]))
    deep = measure_metrics(Micrograph(images[0].astype(np.uint16) * 257))
    assert deep.data_range == 65535
    assert deep.contrast == pytest.approx(small.contrast)
    assert deep.average_gradient == pytest.approx(small.average_gradient)
    assert small.psnr_db is None


@pytest.mark.parametrize("level", [0, 100.1])  # one and the other side of rounding
def test_match_of_a_constant_is_blank_and_to_a_constant_refused(images, level):
    image, flat = Micrograph(images[0]), Micrograph(np.full(images[0].shape, level))
    blank = measure_metrics(flat, image, data_range=255, match="affine")
    assert (blank.gain, blank.offset) == (0, pytest.approx(images[0].mean()))
    assert blank.psnr_db == pytest.approx(20 * np.log10(255 / images[0].std()))
    with refused(OptionError, "image-blank"):
        measure_metrics(image, flat, data_range=255, match="affine")
    plain = measure_metrics(image, flat, data_range=255)
    assert plain.ssim < 0.5


def test_data_range_follows_the_type_of_the_reference() -> None:
    real = Micrograph(np.array([[-1.0, 4.0], [0.0, 0.0]]))
    byte = Micrograph(np.array([[1, 2], [3, 4]], np.uint8))
    short = Micrograph(byte.data.astype(np.int16))
    assert measure_metrics(byte).data_range == 255
    assert measure_metrics(short).data_range == 65535
    assert measure_metrics(byte, real).data_range == 5
    assert measure_metrics(real, byte).data_range == 255


def test_one_range_serves_images_of_two_types():
    rng = np.random.default_rng(0)
    byte = rng.integers(0, 255, (20, 20)).astype(np.uint8)
    deep = Micrograph(byte * np.uint16(16), metadata={"significant_bits": 12})
    # 8 bits in 16, of which the file states nothing, against 8 bits
    found = measure_metrics(Micrograph(byte), Micrograph(byte.astype(np.uint16) + 1))
    assert (found.data_range, found.data_range_from) == (255, "type")
    # 12 bits that one of both files states
    other = Micrograph(deep.data + np.uint16(2))
    for pair in ((other, deep), (deep, other)):
        found = measure_metrics(*pair)
        assert (found.data_range, found.data_range_from) == (4095, "file")
        assert found.psnr_db == pytest.approx(20 * np.log10(4095 / 2))
    for pair in ((deep, Micrograph(byte)), (Micrograph(byte), deep)):
        with refused(OptionError, "grey-scales-differ"):
            measure_metrics(*pair)
        own = 255 if pair[1].dtype == np.uint8 else 4095
        assert measure_metrics(*pair, match="affine").data_range == own


def test_bad_input_is_refused(images):
    a, b = images
    with refused(ShapeError, "sizes-differ"):
        measure_metrics(Micrograph(a), Micrograph(b[1:]))
    with refused(OptionError, "out-of-range"):
        measure_metrics(Micrograph(a), data_range=1e300)
    with refused(OptionError, "second-image-missing"):
        measure_metrics(Micrograph(a), match="affine")
    with refused(OptionError, "image-blank"):
        measure_metrics(Micrograph(np.ones((3, 3))))
    left = np.arange(57) < 20
    halves = np.where(left, np.nan, b), np.where(left, b, np.nan)
    with refused(ReadError, "no-finite-values"):
        measure_metrics(*map(Micrograph, halves), data_range=1)
    pair = (Micrograph(image, (5.0, 5.0)) for image in (halves[0], b))
    with refused(ReadError, "pixels-missing"):
        measure_metrics(*pair, data_range=1, cut_off_nm=50)


@pytest.mark.parametrize("factor", [1e-150, 1e300])
def test_figures_do_not_depend_on_the_unit_of_grey_levels(images, factor):
    a, b = (image.astype(float) for image in images)
    plain = measure_metrics(Micrograph(a), Micrograph(b), match="affine")
    other = measure_metrics(
        Micrograph(a * factor), Micrograph(b * factor), match="affine"
    )
    for name in ("psnr_db", "ssim", "nrmse", "contrast", "gain"):
        assert getattr(other, name) == pytest.approx(getattr(plain, name))
    assert other.offset == pytest.approx(plain.offset * factor)


def test_gain_is_the_difference_of_psnr_and_its_error_the_jackknifes(images):
    noisy, clean = images
    half = ((noisy.astype(float) + clean) / 2).astype(np.float32)
    before, after = sum_section_errors(noisy, clean), sum_section_errors(half, clean)
    gain, error = compute_psnr_gain(after, before)
    psnr = [
        measure_metrics(Micrograph(image), Micrograph(clean), data_range=255).psnr_db
        for image in (half, noisy)
    ]
    assert gain == pytest.approx(psnr[0] - psnr[1], rel=1e-4)
    rows = [np.delete(np.arange(16), at) for at in range(16)]
    each = [10 * np.log10(before[kept].sum() / after[kept].sum()) for kept in rows]
    assert error == pytest.approx(np.sqrt(15 * np.var(each)))
    assert compute_psnr_gain(np.zeros(16), before) == (None, None)
    alone = np.where(np.arange(16) == 3, 5.0, 0)  # nothing is left without that part
    assert compute_psnr_gain(alone, before)[1] is None


@pytest.mark.parametrize(
    "measure", [measure_metrics, lambda *images: run(measure_gaps(*images))]
)
def test_pixels_and_places_of_both_are_compared(images, measure):
    image, reference = (Micrograph(one, (4.0, 4.0)) for one in images[:2])
    with refused(OptionError, "pixel-sizes-differ"):
        measure(image, reference.replace(pixel_size_nm=(8.0, 8.0)))
    with warned("origins-differ", match=" 0 and 400 nm"):
        measure(image, reference.replace(origin=(0.0, 400.0)))
    unsized = reference.replace(pixel_size_nm=None)
    measure(image, unsized)


def test_missing_pixels_are_left_out(rng):
    truth = rng.random((40, 50))
    image = truth + rng.normal(0, 0.1, truth.shape)
    cut = Micrograph(image[:, 20:]), Micrograph(truth[:, 20:])
    gaps = image.copy(), truth.copy()
    gaps[0][:, :13], gaps[1][:, 13:20] = np.nan, np.inf
    for match in (None, "affine"):
        how = {"data_range": 1, "match": match}
        found, whole = (
            measure_metrics(*map(Micrograph, gaps), **how),
            measure_metrics(*cut, **how),
        )
        for name in ("psnr_db", "ssim", "nrmse"):
            assert getattr(found, name) == pytest.approx(getattr(whole, name), abs=1e-9)
    alone = measure_metrics(Micrograph(gaps[0]), data_range=1)
    part = measure_metrics(Micrograph(image[:, 13:]), data_range=1)
    for name in ("average_gradient", "contrast", "spatial_frequency"):
        assert getattr(alone, name) == pytest.approx(getattr(part, name), rel=1e-9)
