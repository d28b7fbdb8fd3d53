"""Laws of error maps: what is fitted, what is counted, and that parts are the whole."""

import numpy as np
import pytest
from scipy import ndimage, stats

from napari_semsr.analysis import AlignedPair, ErrorSums, FittedPair, fit_blur_and_gain
from napari_semsr.core import (
    Box,
    Micrograph,
    ShapeError,
    parse_pixel_size,
    run,
)
from tests.refusals import refused, warned


def scene(rng: np.random.Generator, shape: tuple[int, int], width: float) -> np.ndarray:
    return 10 * ndimage.gaussian_filter(rng.normal(size=shape), width)


def pair_of(reference, enhanced, **place) -> AlignedPair:
    return AlignedPair.from_images(Micrograph(reference), Micrograph(enhanced), **place)


def tally_of(pair: AlignedPair, boxes: list[Box] | None = None):
    fit = run(fit_blur_and_gain(pair))
    field, tally = FittedPair(pair, fit), ErrorSums()
    for box in boxes or [Box.from_shape(pair.shape)]:
        tally.add(*field.read(box))
    return fit, tally


@pytest.mark.parametrize("sigma", [0.7, 5.0])
def test_known_blur_gain_and_offset_are_found(rng, sigma):
    sharp = scene(rng, (160, 210), 1)
    seen = 50 - 3 * ndimage.gaussian_filter(sharp, sigma)
    fit, tally = tally_of(pair_of(seen, sharp))
    assert fit.sigma_px == pytest.approx(sigma, abs=0.01)
    assert fit.alpha == pytest.approx(-3, rel=0.01)
    assert fit.beta == pytest.approx(50, abs=0.01)
    assert tally.rse < 0.02
    assert tally.rsp == pytest.approx(1, abs=1e-4)
    assert fit.looked_at == 1


@pytest.mark.parametrize("offset", [1e6, -1e6])
def test_a_large_offset_of_the_grey_levels_changes_nothing_else(rng, offset):
    sharp = scene(rng, (96, 130), 1)
    seen = ndimage.gaussian_filter(sharp, 1.5) + rng.normal(0, 0.1, sharp.shape)
    plain, plain_sums = tally_of(pair_of(seen, sharp))
    fit, sums = tally_of(pair_of(seen + offset, sharp - offset))
    assert fit.sigma_px == pytest.approx(plain.sigma_px, abs=1e-3)
    assert fit.alpha == pytest.approx(plain.alpha, rel=1e-4)
    assert sums.rse == pytest.approx(plain_sums.rse, rel=1e-4)
    assert sums.rsp == pytest.approx(plain_sums.rsp, abs=1e-6)


def test_fit_is_the_least_that_any_blur_leaves(rng):
    sharp = scene(rng, (120, 140), 1)
    seen = ndimage.gaussian_filter(sharp, 2) + rng.normal(0, 0.3, sharp.shape)
    sharp[40:60, 50:70] += 5
    fit, tally = tally_of(pair_of(seen, sharp))

    def left(sigma: float) -> float:
        blurred = ndimage.gaussian_filter(sharp, sigma).ravel()
        line = stats.linregress(blurred, seen.ravel())
        rest = seen.ravel() - line.slope * blurred - line.intercept
        return float(np.sqrt(np.mean(rest**2)))

    assert tally.rse == pytest.approx(left(fit.sigma_px), rel=1e-5)
    assert fit.residual == pytest.approx(tally.rse, rel=1e-5)
    assert all(left(s) >= tally.rse * (1 - 1e-6) for s in np.linspace(0.1, 6, 60))
    blurred = ndimage.gaussian_filter(sharp, fit.sigma_px)
    expected = np.corrcoef(blurred.ravel(), seen.ravel())[0, 1]
    assert tally.rsp == pytest.approx(expected, abs=1e-6)


def test_finer_image_is_blurred_on_its_own_pixels(rng):
    fine = scene(rng, (288, 360), 1)
    blurred = ndimage.gaussian_filter(fine, 3.9)
    seen = 7 + 2 * blurred.reshape(96, 3, 120, 3).mean((1, 3))
    fit, tally = tally_of(pair_of(seen, fine))
    assert fit.sigma_px == pytest.approx(3.9, abs=0.02)
    assert fit.alpha == pytest.approx(2, rel=0.01)
    assert fit.residual < 0.01 * seen.std()
    assert tally.rse == pytest.approx(fit.residual, abs=1e-4)


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("mean", [0, 1e4])
def test_rounding_is_not_read_as_a_blur(rng, factor, mean):
    fine = scene(rng, (60 * factor, 72 * factor), 2 * factor) + mean
    means = 3 * fine.reshape(60, factor, 72, factor).mean((1, 3)) - 7
    for seen in (means, means.astype(np.float32)):
        fit, tally = tally_of(pair_of(seen, fine))
        assert fit.sigma_px == 0
        assert fit.alpha == pytest.approx(3, rel=1e-5)
        assert tally.rsp == pytest.approx(1)


def test_blur_is_round_where_pixels_are_oblong(rng):
    sharp = scene(rng, (150, 240), 1)
    seen = ndimage.gaussian_filter(sharp, (2, 4))
    size = parse_pixel_size((20, 10))
    pair = AlignedPair.from_images(Micrograph(seen, size), Micrograph(sharp, size))
    fit, tally = tally_of(pair)
    assert fit.sigma_px == pytest.approx(np.sqrt(8), abs=0.01)
    assert tally.rse < 0.01 * seen.std()


def test_parts_are_the_whole(rng):
    fine = scene(rng, (200, 260), 1)
    fine[50:70, 60:64] = np.nan
    seen = rng.normal(size=(100, 130)) + fine.reshape(100, 2, 130, 2)[:, 0, :, 0]
    pair = pair_of(np.nan_to_num(seen), fine)
    boxes = [Box(y, min(y + 37, 100), x, x + 65) for y in (0, 37, 74) for x in (0, 65)]
    _, whole = tally_of(pair)
    _, parts = tally_of(pair, boxes)
    assert parts.rse == pytest.approx(whole.rse, rel=1e-6)
    assert parts.rsp == pytest.approx(whole.rsp, rel=1e-6)
    assert parts.pixel_count == whole.pixel_count == 100 * 130 - 10 * 2


def test_gaps_stay_gaps_and_harm_nothing_else(rng):
    sharp = scene(rng, (128, 128), 1)
    seen = ndimage.gaussian_filter(sharp, 1.5)
    seen[:, 100:] = np.nan
    sharp[:20] = np.nan
    pair = pair_of(seen, sharp)
    fit = run(fit_blur_and_gain(pair))
    fixed, made = FittedPair(pair, fit).read(Box.from_shape(pair.shape))
    assert fit.sigma_px == pytest.approx(1.5, abs=0.1)
    assert np.isnan(made[:20]).all()
    assert np.isfinite(made[20:]).all()
    assert np.nanmax(np.abs(fixed - made)[30:]) < 0.1 * np.nanstd(seen)


def test_part_of_a_field_is_laid_where_it_is(rng):
    sharp = scene(rng, (150, 150), 1)
    seen = Micrograph(ndimage.gaussian_filter(sharp, 2), (10.0, 10.0), "seen")
    part = Micrograph(sharp[30:130, 40:120], (10.0, 10.0), origin=(300.0, 400.0))
    pair = AlignedPair.from_images(seen, part)
    assert pair.shape == (100, 80)
    assert pair.reference.grid.corner == (295.0, 395.0)
    assert run(fit_blur_and_gain(pair)).sigma_px == pytest.approx(2, abs=0.1)


def test_field_around_a_reference_is_no_finer_image(rng):
    sharp = Micrograph(scene(rng, (160, 240), 1), (10.0, 10.0), "sharp")
    seen = ndimage.gaussian_filter(sharp.array(), 2)[40:120, 60:180]
    part = Micrograph(seen, (10.0, 10.0), "seen", origin=(400.0, 600.0))
    pair = AlignedPair.from_images(part, sharp)
    assert pair.factor == 1
    assert run(fit_blur_and_gain(pair)).sigma_px == pytest.approx(2, abs=0.1)
    with warned("pixel-size-contradicts", match=" 2 "):
        assert (
            AlignedPair.from_images(part.replace(origin=(0.0, 0.0)), sharp).factor == 2
        )


@pytest.mark.broad
def test_sampled_field_is_fitted_as_the_whole_is(rng):
    from dask import array as da

    sharp = da.tile(da.from_array(scene(rng, (256, 256), 1), 256), (17, 17))
    blur = {"depth": 12, "boundary": "reflect", "sigma": 2}
    seen = sharp.map_overlap(ndimage.gaussian_filter, **blur)
    fit = run(fit_blur_and_gain(pair_of(seen, sharp)))
    assert fit.looked_at < 0.5
    assert fit.sigma_px == pytest.approx(2, abs=0.02)


def test_what_cannot_be_compared_or_tells_nothing_is_refused(rng):
    def image(*shape):
        return rng.normal(size=shape)

    flat, square = np.full((64, 64), 3.0), image(64, 64)
    for code, *images in (
        ("sizes-differ", square, image(60, 60)),
        ("sizes-differ", square, image(32, 32)),
        ("nothing-to-measure", image(10, 64), image(10, 64)),
        ("image-blank", square, flat),
        ("image-blank", flat, square),
    ):
        with refused(ShapeError, code):
            run(fit_blur_and_gain(pair_of(*images)))
    near = Micrograph(square, (5.0, 5.0))
    # exchanging them helps only if one is coarser along both axes
    for size, origin, code, can_exchange in (
        ((20.0, 20.0), (0.0, 0.0), "reference-finer", True),
        ((20.0, 2.0), (0.0, 0.0), "reference-finer", False),
        ((20.0, 20.0), (9000.0, 0.0), "no-overlap", False),
    ):
        other = Micrograph(square, size, "other", origin=origin)
        with refused(ShapeError, code) as caught:
            AlignedPair.from_images(near, other)
        if can_exchange:
            AlignedPair.from_images(other, near)
        assert ("exchange both" in str(caught.value)) == can_exchange
    with refused(ShapeError, "no-overlap"):
        AlignedPair.from_images(near, near.replace(origin=(9000.0, 0.0)))
