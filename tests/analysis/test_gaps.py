from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage, special

from napari_semsr.analysis.gaps import GapOptions, measure_gaps
from napari_semsr.core import Micrograph, ReadError, ShapeError, parse_pixel_size, run
from tests.refusals import refused


def discs(*each, shape=(80, 160), level=30.0) -> np.ndarray:
    """Bright discs ``(y, x, radius, height)`` with antialiased rims."""
    y, x = np.indices(shape, dtype=float)
    image = np.full(shape, level)
    for cy, cx, radius, height in each:
        cover = np.clip(radius + 0.5 - np.hypot(y - cy, x - cx), 0, 1)
        image = np.maximum(image, level + height * cover)
    return image


def gaps_of(*images, options=None):
    return run(measure_gaps(*images, options=options))


def micrograph(data, pixel=None, name="image") -> Micrograph:
    return Micrograph(data, parse_pixel_size(pixel), name)


def row(gap: float, heights=(100, 100)) -> np.ndarray:
    """Two discs of radius 20 with a gap between their rims."""
    left = 60.0
    right = left + 40 + gap
    return discs((40, left, 20, heights[0]), (40, right, 20, heights[1]))


def test_noise_is_no_particles(rng):
    empty = rng.normal(30, 2, (128, 128))
    found = gaps_of(micrograph(empty))
    assert (found.particles, found.pairs) == (0, 0)
    seen = row(8.0, (20, 20)) + rng.normal(0, 2, (80, 160))
    assert gaps_of(micrograph(seen)).particles == 2


@pytest.mark.parametrize("size", [(3.5, 5.0), (5.0, 3.5), (3.0, 4.5)])
def test_the_blur_of_discs_in_oblong_pixels_is_no_particles(size):
    y, x = np.indices((int(1560 / size[0]), int(2080 / size[1])))
    off = np.hypot(y * size[0] % 520 - 260, x * size[1] % 520 - 260) - 80
    image = 20 + 50 * special.erfc(off / (8 * 2**0.5))
    assert gaps_of(micrograph(image, size)).particles == 12


@pytest.mark.parametrize("width", [3.0, 8.0])
def test_width_is_that_between_the_rims(width):
    found = gaps_of(micrograph(row(width), 2.0))
    assert (found.particles, found.pairs, len(found.found_gaps)) == (2, 1, 1)
    (gap,) = found.found_gaps
    # 80 % of a rim one or two pixels wide lies 0.3 to 0.6 px inside the outline
    assert width + 0.5 < gap.width_px < width + 1.4
    assert gap.width_nm == pytest.approx(2 * gap.width_px)
    assert gap.place_px == pytest.approx((40, 60 + 20 + width / 2), abs=0.5)
    assert found.background == 30
    assert found.undetected_fraction is found.undetected_interval is None
    assert found.invented_interval is found.own is None


def test_a_strip_of_a_few_rows_has_particles():
    assert gaps_of(micrograph(row(6.0)[38:42])).particles == 2


def test_blurred_gap_is_undetected_and_counted():
    upper = [(25, 40, 15, 100), (25, 72, 15, 100)]
    lower = [(90, 40, 15, 100), (90, 82, 15, 100)]
    sharp = discs(*upper, *lower, shape=(120, 160))
    blurred = ndimage.gaussian_filter(sharp, 4.0)
    found = gaps_of(
        micrograph(blurred, 4.0), micrograph(sharp, 4.0), options=GapOptions(reach=0.5)
    )
    shown = [gap.detected for gap in found.found_gaps]
    widths = [round(gap.reference_px) for gap in found.found_gaps]
    assert dict(zip(widths, shown, strict=True)) == {3: False, 13: True}
    assert found.undetected_fraction == 1 - sum(shown) / len(shown)
    assert found.compute_width_errors("nm").size == sum(shown)


def test_a_wide_particle_leaves_the_gaps_of_others_as_they_are():
    each = [(y, x, 5, 100) for y in range(20, 181, 16) for x in range(20, 221, 16)]
    alone = gaps_of(micrograph(discs(*each, shape=(360, 240))))
    wide = discs(*each, (280, 120, 70, 100), shape=(360, 240))
    found = gaps_of(micrograph(wide))
    assert found.particles == alone.particles + 1
    near = [one for one in found.found_gaps if one.place_px[0] <= 180]
    assert [one.place_px for one in near] == [one.place_px for one in alone.found_gaps]
    assert len(found.found_gaps) > len(near)  # those beside the wide one


def test_which_neighbours_have_a_gap():
    found = gaps_of(micrograph(row(6.0, (100, 70))))
    assert (found.pairs, found.excluded, len(found.found_gaps)) == (1, 1, 0)
    assert gaps_of(micrograph(row(6.0, (100, 85)))).excluded == 0
    data = discs((40, 30, 12, 100), (40, 60, 12, 100), (40, 90, 12, 100))
    assert gaps_of(micrograph(data), options=GapOptions(reach=3.0)).pairs == 2
    found = gaps_of(micrograph(row(-4.0)))
    assert (found.particles, found.pairs, len(found.found_gaps)) == (2, 1, 0)


def test_dark_particles_and_directions_in_nm_change_no_gap():
    data = row(6.0)
    bright = gaps_of(micrograph(data))
    dark = gaps_of(micrograph(255 - data), options=GapOptions(dark=True))
    assert dark.found_gaps == bright.found_gaps
    assert dark.background == pytest.approx(225)
    for image, side in ((micrograph(data, (3, 2)), 2), (micrograph(data.T, (3, 2)), 3)):
        (gap,) = gaps_of(image).found_gaps
        assert gap.width_nm == pytest.approx(side * gap.width_px)


@pytest.mark.parametrize("pitch", [(2, 3), (3, 2), (2, 4), (4, 2)])
def test_oblong_pixels_change_no_neighbours(pitch):
    each = [(75, 75), (75, 145), (150, 75), (150, 150), (215, 90), (215, 165)]
    fine = discs(*((y, x, 27.5, 200) for y, x in each), shape=(300, 300))
    fine = ndimage.gaussian_filter(fine, 1.5)

    def seen(pitch):
        down, right = pitch
        binned = fine.reshape(300 // down, down, 300 // right, right).mean((1, 3))
        return gaps_of(micrograph(binned, pitch), options=GapOptions(reach=1.1))

    expected, found = seen((2, 2)), seen(pitch)
    assert found.particles == 6
    assert len(found.found_gaps) == len(expected.found_gaps)
    assert np.mean([gap.width_nm for gap in found.found_gaps]) == pytest.approx(
        np.mean([gap.width_nm for gap in expected.found_gaps]), rel=0.05
    )


@pytest.mark.parametrize("data", [np.zeros((20, 20)), discs((40, 40, 10, 90))])
def test_without_two_particles_there_is_no_gap(data):
    found = gaps_of(micrograph(data), micrograph(data))
    assert found.found_gaps == ()
    assert found.undetected_fraction is None


def test_each_gap_is_found_missed_or_invented():
    upper = [(25, 40, 15, 100), (25, 76, 15, 100)]
    lower = [(95, 40, 15, 100), (95, 80, 15, 100)]
    bridge = [(25, 58, 9, 100)]  # closes the reference's upper gap in the image
    apart = [(95, 125, 12, 100), (95, 153, 12, 100)]  # one particle of the reference
    truth = discs(*upper, *lower, (95, 139, 26, 100), shape=(130, 180))
    taken = discs(*upper, *bridge, *lower, *apart, shape=(130, 180))
    found = gaps_of(
        micrograph(taken, 2.0), micrograph(truth, 2.0), options=GapOptions(reach=0.7)
    )
    kinds = {
        (round(gap.place_px[0]), round(gap.place_px[1])): gap.kind
        for gap in (*found.found_gaps, *found.invented_gaps)
    }
    assert kinds[(25, 58)] == "missed"
    assert kinds[(95, 60)] == "found"
    assert kinds[(95, 139)] == "invented"
    assert found.invented_fraction == len(found.invented_gaps) / found.own
    low, high = found.undetected_interval
    assert low < found.undetected_fraction < high
    (wrong,) = found.invented_gaps
    assert wrong.width_px > 3
    assert wrong.reference_px is None
    back = gaps_of(micrograph(truth), micrograph(taken), options=GapOptions(reach=0.7))
    assert [gap.place_px for gap in back.found_gaps if not gap.detected] == [
        wrong.place_px
    ]


def test_ends_lie_on_the_rims_as_far_apart_as_the_gap_is_wide():
    image = micrograph(row(6.0), 2.0).replace(origin=(100.0, -40.0))
    (gap,) = gaps_of(image).found_gaps
    (y0, x0), (y1, x1) = gap.ends_px
    assert np.hypot(y1 - y0, x1 - x0) == pytest.approx(gap.width_px)
    assert (x0, x1) == pytest.approx((79.5, 86.5), abs=0.5)
    assert gap.place_nm == pytest.approx(
        (100 + 2 * gap.place_px[0], -40 + 2 * gap.place_px[1])
    )


def test_particles_have_the_diameters_of_their_discs_and_cut_ones_are_left_out():
    data = discs((40, 40, 10, 100), (40, 100, 15, 100), (0, 140, 12, 100))
    found = gaps_of(micrograph(data, (3.0, 2.0)))
    assert found.particles == 3
    assert sorted(found.get_diameters("px")) == pytest.approx([20, 30], rel=0.05)
    assert [one.whole for one in found.sizes].count(False) == 1
    np.testing.assert_allclose(
        found.get_diameters("nm"), found.get_diameters("px") * np.sqrt(6), rtol=1e-12
    )


def test_table_and_histograms_hold_each_gap():
    image = micrograph(row(6.0), 2.0)
    found = gaps_of(image, image)
    table = found.create_table()
    assert table["kind"] == ["found"]
    assert table["error_nm"] == [0]
    assert table["y_nm"] == pytest.approx([80], abs=1)
    assert table["x_px"] == pytest.approx([83], abs=0.5)
    assert gaps_of(micrograph(row(6.0))).create_table()["y_nm"] == [None]
    first, second = found.compute_histograms("nm", 2.5)
    assert first.edges == second.edges
    assert np.diff(first.edges) == pytest.approx(2.5)
    assert first.counts == second.counts
    assert first.fit is None
    alone, none = gaps_of(image).compute_histograms("nm")
    assert none is None
    assert sum(first.counts) == sum(alone.counts) == 1


def test_wrong_input_is_refused():
    with refused(ShapeError, "sizes-differ"):
        gaps_of(micrograph(np.zeros((9, 9))), micrograph(np.zeros((9, 8))))
    with refused(ReadError, "pixels-missing", match="hole .* 81 "):
        gaps_of(micrograph(np.full((9, 9), np.nan), name="hole"))


@pytest.mark.broad
def test_the_error_of_the_mean_in_nm_has_that_of_the_pixel_size():
    found = gaps_of(micrograph(row(6.0), 2.0))
    widths = np.random.default_rng(0).normal(12, 2, 60)
    gaps = tuple(
        replace(found.found_gaps[0], width_px=w, width_nm=2 * w) for w in widths
    )
    sure = replace(found, found_gaps=gaps)
    unsure = replace(sure, size_error=0.1)
    in_px, in_nm = (
        each.compute_histograms(("px"), 1.0)[0].fit for each in (sure, unsure)
    )
    assert in_px.mean == pytest.approx(12, abs=1)
    assert unsure.compute_histograms("px", 1.0)[0].fit == in_px
    plain = sure.compute_histograms("nm", 2.0)[0].fit
    doubted = unsure.compute_histograms("nm", 2.0)[0].fit
    assert doubted.mean == plain.mean == pytest.approx(2 * in_nm.mean)
    assert doubted.error == pytest.approx(np.hypot(plain.error, 0.1 * plain.mean))


def test_faint_particles_are_found_beside_bright_ones(rng):
    bright = [(60, 60, 25, 180), (60, 180, 25, 180), (180, 120, 25, 180)]
    faint = [(y, x, 6, 55) for y in (110, 130) for x in range(20, 230, 24)]
    drawn = discs(*bright, *faint, shape=(230, 240), level=20)
    for turn in (drawn, drawn.max() - drawn):
        for store in (np.uint8, np.float32):
            noisy = ndimage.gaussian_filter(turn, 1.0) + rng.normal(0, 3, turn.shape)
            image = np.clip(noisy, 0, 255).astype(store)
            found = gaps_of(
                micrograph(image), options=GapOptions(dark=turn is not drawn)
            )
            assert found.particles == len(bright) + len(faint)
            assert found.median_diameter_px == pytest.approx(12, abs=1.5)
            assert found.bright == found.particles
            cover = np.pi * (3 * 25**2 + len(faint) * 6**2) / drawn.size
            assert found.covered == pytest.approx(cover, rel=0.1)


def test_particles_of_a_twentieth_of_the_contrast_are_found_in_little_noise(rng):
    bright, faint = (30, 30, 14, 180), ((30, 80, 8, 10), (30, 102, 8, 10))
    image = ndimage.gaussian_filter(discs(bright, *faint, shape=(60, 130)), 1.0)
    found = gaps_of(micrograph(image + rng.normal(0, 0.5, image.shape)))
    assert found.particles == 3
    assert len(found.found_gaps) == 1  # between the faint ones


@pytest.mark.parametrize("height", [25, 60])
def test_no_gap_lies_across_an_object(height):
    pair = (40, 40, 20, 180), (40, 118, 20, 180)
    apart = gaps_of(micrograph(discs(*pair)))
    assert (len(apart.found_gaps), apart.across) == (1, 0)
    # between them an object that is too small to be a particle, or too faint
    between = discs(*pair, (40, 79, 9, height))
    options = GapOptions(min_diameter_px=30)
    found = gaps_of(micrograph(between), options=options)
    assert (found.particles, found.pairs) == (2, 1)
    assert (len(found.found_gaps), found.across) == (0, 1)
    assert found.bright == 3
    assert "2 particles of 3 regions" in found.count_text


def test_a_gap_does_not_lie_on_a_particle_with_a_dark_middle():
    left = discs((40, 40, 30, 180)) - discs((40, 52, 12, 120)) + 30
    image = np.maximum(left, discs((40, 120, 30, 180)))
    found = gaps_of(micrograph(image))
    for gap in found.found_gaps:
        assert gap.width_px < 30


def test_the_share_of_the_field_with_particles_is_stated():
    each = [(y, x, 4, 100) for y in range(8, 128, 16) for x in range(8, 128, 16)]
    whole = gaps_of(micrograph(discs(*each, shape=(128, 128))))
    assert whole.populated == 1
    half = [one for one in each if one[1] < 64]
    found = gaps_of(micrograph(discs(*half, shape=(128, 128))))
    assert found.populated == pytest.approx(0.5)
    assert "32 particles, distributed over 50 % of the field" in found.count_text


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_particles_on_sloping_ground_are_those_on_level_ground(share, rng):
    each = [(y, x, 6, 100) for y in range(16, 200, 20) for x in range(16, 200, 20)]
    drawn = ndimage.gaussian_filter(discs(*each, shape=(208, 208)), 1.0)
    drawn += rng.normal(0, 2, drawn.shape)
    slope = 100 * share * np.linspace(0, 1, 208)
    level, sloping = (gaps_of(micrograph(i)) for i in (drawn, drawn + slope))
    assert sloping.particles == level.particles == len(each)
    assert len(sloping.found_gaps) == len(level.found_gaps)
    assert sloping.mean_width_px == pytest.approx(level.mean_width_px, rel=0.02)
