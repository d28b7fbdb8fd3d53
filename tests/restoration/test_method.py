"""Restoring in tiles equals restoring whole, and constant or missing pixels stay."""

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.core import Micrograph, OptionError, ReadError, parse_pixel_size, run
from napari_semsr.restoration import RestoreOptions, prepare_restoration
from napari_semsr.restoration.method import LARGEST_HALO
from tests.refusals import refused

METHODS = ["wiener", "unsupervised-wiener", "richardson-lucy", "blind", "cls"]
EXAMPLES = ["wiener", "blind"]  # one linear, one iterative


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """Discs, and the same blurred by 1.5 px with a little noise."""
    rng = np.random.default_rng(5)
    y, x = np.indices((150, 170))
    sharp = np.full(y.shape, 40.0)
    for _ in range(40):
        cy, cx, r = rng.uniform(0, 150), rng.uniform(0, 170), rng.uniform(3, 10)
        sharp[np.hypot(y - cy, x - cx) < r] = rng.uniform(90, 220)
    blurred = ndimage.gaussian_filter(sharp, 1.5, mode="mirror")
    return sharp, blurred + rng.normal(0, 1.0, sharp.shape)


def restored(image: Micrograph, *, tile: int | None = None, **options) -> np.ndarray:
    how = RestoreOptions(tile=tile, **options)
    restorer = run(prepare_restoration(image, how))
    result = np.full(image.shape, -1e9, np.float32)
    for tile_, values in restorer.restore_tiles(
        image.data, restorer.create_plan(image.shape)
    ):
        result[tile_.core.slices] = values
    return result


@pytest.mark.parametrize(
    ("method", "psf"), [*((m, "estimate") for m in METHODS), ("wiener", "1.5px")]
)
def test_result_is_nearer_to_the_truth(pair, method, psf):
    sharp, blurred = pair
    made = restored(Micrograph(blurred), method=method, psf=psf)
    inner = np.s_[8:-8, 8:-8]
    before = np.sqrt(np.mean((blurred - sharp)[inner] ** 2))
    after = np.sqrt(np.mean((made - sharp)[inner] ** 2))
    assert after < 0.9 * before


@pytest.mark.parametrize("method", ["wiener", "unsupervised-wiener", "cls"])
def test_a_quiet_image_gets_sharper_and_its_border_no_worse(method):
    sharp = np.full((200, 200), 10.0)
    for y, x in np.random.default_rng(3).integers(30, 170, (60, 2)):
        sharp[y - 1 : y + 2, x - 1 : x + 2] = 80
    blurred = np.rint(600 * ndimage.gaussian_filter(sharp, 1.8)).astype(np.uint16)
    # the border is flat, or it cuts structures, or gaps do
    cut = np.s_[60:150, 55:150]
    gaps = np.where(ndimage.binary_dilation(np.eye(90, 95), iterations=9), np.nan, 1)
    for part, known, most in (np.s_[:], 1, 0.6), (cut, 1, 0.75), (cut, gaps, 0.8):
        made = restored(Micrograph(blurred[part] * known), method=method, psf="1.8px")
        before, after = (
            np.sqrt(np.nanmean((image / 600 - sharp[part]) ** 2 * known))
            for image in (blurred[part], made)
        )
        assert after < most * before


@pytest.mark.parametrize("what", ["lines", "dots"])
def test_what_repeats_is_no_noise(what):
    y, x = np.indices((300, 320))
    bright = (x % 9 < 4) & ((what == "lines") | (y % 9 < 4))
    sharp = np.where(bright, 180.0, 60.0)
    low = ndimage.gaussian_filter(sharp, 1.2, mode="mirror")
    low = low + np.random.default_rng(3).normal(0, 2, low.shape)
    seen = np.rint(np.clip(low, 0, 255)).astype(np.uint8)
    inner = np.s_[16:-16, 16:-16]
    made = restored(Micrograph(seen), psf="1.2px")[inner]
    before, after = (
        np.sqrt(np.mean((image - sharp[inner]) ** 2)) for image in (seen[inner], made)
    )
    assert after < 0.9 * before
    assert made.mean() == pytest.approx(seen[inner].mean(), abs=2)


@pytest.mark.parametrize("method", ["wiener", "cls"])
@pytest.mark.parametrize(("period", "blur"), [(10, 1.5)])
def test_a_grating_tells_no_blur_that_none_told(method, period, blur):
    lines = np.tile(
        np.where(np.arange(256) % period < period / 2, 190.0, 60.0), (256, 1)
    )
    seen = ndimage.gaussian_filter(lines, blur) if blur else lines
    seen = seen + np.random.default_rng(1).normal(0, 2, seen.shape)
    made = restored(Micrograph(seen), method=method)
    assert made.std() == pytest.approx(seen.std(), rel=0.5)


@pytest.mark.parametrize(
    "options",
    [
        *({"method": method} for method in ("wiener", "cls")),
        *({"method": "blind", "iterations": 4, "tv": tv} for tv in (0.0, 0.005)),
    ],
    ids=str,
)
def test_tiles_equal_the_whole(pair, options):
    image = Micrograph(pair[1].astype(np.float32))
    options = {**options, "psf": "0.8px"}
    assert run(prepare_restoration(image, RestoreOptions(**options))).is_exact
    whole = restored(image, tile=400, **options)
    tiles = restored(image, tile=48, **options)
    assert np.abs(tiles - whole).max() < 1e-4 * np.ptp(whole)


@pytest.mark.broad
def test_cut_off_halo_has_a_small_measured_tolerance(pair):
    image = Micrograph(pair[1])
    options = RestoreOptions(method="richardson-lucy", psf="1px", iterations=24)
    restorer = run(prepare_restoration(image, options))
    assert restorer.halo == LARGEST_HALO
    assert not restorer.is_exact
    plan = restorer.create_plan(image.shape)
    assert 0 <= run(restorer.measure_tolerance(image.data, plan)) < 1e-4
    # each iteration is a step at which a run can be cancelled
    first = [values for _, values in restorer.restore_tiles(image.data, plan, [(0, 0)])]
    assert [values is None for values in first] == [True] * 24 + [False]


@pytest.mark.parametrize("method", METHODS)
def test_constant_field_stays(method):
    image = Micrograph(np.full((40, 50), 7, np.uint8))
    made = restored(image, method=method, psf="1px")
    np.testing.assert_allclose(made, 7, rtol=1e-6)


@pytest.mark.parametrize("method", EXAMPLES)
def test_missing_pixels_stay_missing_and_alone(pair, method):
    data = pair[1].astype(np.float32)
    data[40, 50], data[90:93, 20] = np.nan, np.inf
    made = restored(Micrograph(data), method=method, psf="1px", tile=64)
    np.testing.assert_array_equal(np.isfinite(made), np.isfinite(data))


@pytest.mark.parametrize("method", ["wiener", "richardson-lucy"])
def test_no_stripes_are_drawn_beside_a_gap_however_it_is_tiled(method):
    edge = np.where(np.arange(150) < 50, 50.0, 200.0)
    data = ndimage.gaussian_filter1d(np.tile(edge, (90, 1)), 2)
    data += np.random.default_rng(0).normal(0, 0.5, data.shape)
    data[:, 110:], data[70:, :] = np.nan, np.nan
    image = Micrograph(data.astype(np.float32))
    options = {"method": method, "psf": "2px", "iterations": 3}
    whole = restored(image, tile=150, **options)
    np.testing.assert_allclose(whole[20:60, 90:110], 200, atol=12)
    np.testing.assert_allclose(restored(image, tile=32, **options), whole, atol=2e-4)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 17)], ids=str)
@pytest.mark.parametrize("method", EXAMPLES)
def test_small_fields_are_restored(shape, method):
    data = np.random.default_rng(0).random(shape).astype(np.float32)
    made = restored(Micrograph(data), method=method, psf="1px", tile=32)
    assert np.isfinite(made).all()


def test_measuring_a_field_can_be_interrupted_between_its_steps(pair):
    options = RestoreOptions(psf="1px")
    assert len([*prepare_restoration(Micrograph(pair[1]), options)]) > 3


def test_width_in_nm_needs_a_pixel_size_and_a_field_finite_pixels(pair):
    calibrated = Micrograph(pair[1], parse_pixel_size((10.0, 5.0)))
    found = run(prepare_restoration(calibrated, RestoreOptions(psf="12nm")))
    assert found.psf.sigma_px == pytest.approx((1.2, 2.4))
    with refused(OptionError, "pixel-size-missing"):
        run(prepare_restoration(Micrograph(pair[1]), RestoreOptions(psf="12nm")))
    with refused(ReadError, "no-finite-values", match="hole"):
        hole = Micrograph(np.full((9, 9), np.nan), name="hole")
        run(prepare_restoration(hole, RestoreOptions()))
