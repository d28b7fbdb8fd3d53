"""Laws of error maps: what is fitted, what is counted, and that parts are the whole."""

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.analysis import AlignedPair, ErrorSums, FittedPair, fit_blur_and_gain
from napari_semsr.core import Box, Micrograph, ShapeError, run
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


def test_known_blur_gain_and_offset_are_found(rng):
    sigma = 0.7
    sharp = scene(rng, (160, 210), 1)
    seen = 50 - 3 * ndimage.gaussian_filter(sharp, sigma)
    fit, tally = tally_of(pair_of(seen, sharp))
    assert fit.sigma_px == pytest.approx(sigma, abs=0.01)
    assert fit.alpha == pytest.approx(-3, rel=0.01)
    assert fit.beta == pytest.approx(50, abs=0.01)
    assert tally.rse < 0.02
    assert tally.rsp == pytest.approx(1, abs=1e-4)
    assert fit.looked_at == 1


def test_rounding_is_not_read_as_a_blur(rng):
    fine = scene(rng, (60, 72), 2) + 1e4
    fit, tally = tally_of(pair_of((3 * fine - 7).astype(np.float32), fine))
    assert fit.sigma_px == 0
    assert fit.alpha == pytest.approx(3, rel=1e-5)
    assert tally.rsp == pytest.approx(1)


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


def test_what_cannot_be_compared_or_tells_nothing_is_refused(rng):
    flat, square = np.full((64, 64), 3.0), rng.normal(size=(64, 64))
    for code, *images in (
        ("sizes-differ", square, square[:60, :60]),
        ("nothing-to-measure", square[:10], square[:10]),
        ("image-blank", square, flat),
        ("image-blank", flat, square),
    ):
        with refused(ShapeError, code):
            run(fit_blur_and_gain(pair_of(*images)))
    near = Micrograph(square, (5.0, 5.0))
    # exchanging them helps only if one is coarser along both axes
    for size, can_exchange in (((20.0, 20.0), True), ((20.0, 2.0), False)):
        with refused(ShapeError, "reference-finer") as caught:
            AlignedPair.from_images(near, Micrograph(square, size, "other"))
        assert ("exchange both" in str(caught.value)) == can_exchange
    with refused(ShapeError, "no-overlap"):
        AlignedPair.from_images(near, near.replace(origin=(9000.0, 0.0)))


@pytest.mark.broad
def test_sampled_field_is_fitted_as_the_whole_is(rng):
    from dask import array as da

    sharp = da.tile(da.from_array(scene(rng, (256, 256), 1), 256), (17, 17))
    blur = {"depth": 12, "boundary": "reflect", "sigma": 2}
    seen = sharp.map_overlap(ndimage.gaussian_filter, **blur)
    fit = run(fit_blur_and_gain(pair_of(seen, sharp)))
    assert fit.looked_at < 0.5
    assert fit.sigma_px == pytest.approx(2, abs=0.02)
