import numpy as np
import pytest
from scipy import ndimage

from napari_semsr import core
from napari_semsr.analysis.gaps import GapOptions, measure_gaps
from napari_semsr.core import Micrograph, ReadError, parse_pixel_size, run
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


def test_which_neighbours_have_a_gap():
    found = gaps_of(micrograph(row(6.0, (100, 70))))
    assert (found.pairs, found.excluded, len(found.found_gaps)) == (1, 1, 0)
    assert gaps_of(micrograph(row(6.0, (100, 85)))).excluded == 0
    data = discs((40, 30, 12, 100), (40, 60, 12, 100), (40, 90, 12, 100))
    assert gaps_of(micrograph(data), options=GapOptions(reach=3.0)).pairs == 2


def test_dark_particles_and_directions_in_nm_change_no_gap():
    data = row(6.0)
    bright = gaps_of(micrograph(data))
    dark = gaps_of(micrograph(255 - data), options=GapOptions(dark=True))
    assert dark.found_gaps == bright.found_gaps
    assert dark.background == pytest.approx(225)
    mask, options = micrograph(data < 80), GapOptions(labels=True, dark=True)
    assert gaps_of(mask, options=options).particles == 2
    for image, side in ((micrograph(data, (3, 2)), 2), (micrograph(data.T, (3, 2)), 3)):
        (gap,) = gaps_of(image).found_gaps
        assert gap.width_nm == pytest.approx(side * gap.width_px)


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
    options = GapOptions(reach=0.7)
    found = gaps_of(micrograph(taken, 2.0), micrograph(truth, 2.0), options=options)
    kinds = {
        (round(gap.place_px[0]), round(gap.place_px[1])): gap.kind
        for gap in (*found.found_gaps, *found.invented_gaps)
    }
    assert kinds[(25, 58)] == "missed"
    assert kinds[(95, 60)] == "found"
    assert kinds[(95, 139)] == "invented"
    assert found.invented_fraction == len(found.invented_gaps) / found.own
    low, high = (core.get_cells(found)[f"undetected_{end}"] for end in ("low", "high"))
    assert low < found.undetected_fraction < high


def test_particles_have_the_diameters_of_their_discs_and_cut_ones_are_left_out():
    data = discs((40, 40, 10, 100), (40, 100, 15, 100), (0, 140, 12, 100))
    found = gaps_of(micrograph(data, (3.0, 2.0)))
    assert found.particles == 3
    assert sorted(found.get_diameters("px")) == pytest.approx([20, 30], rel=0.05)
    assert [one.whole for one in found.sizes].count(False) == 1
    np.testing.assert_allclose(
        found.get_diameters("nm"), found.get_diameters("px") * np.sqrt(6), rtol=1e-12
    )


def test_outlines_of_a_reference_do_not_depend_on_the_blur_of_the_image():
    sharp, soft = np.zeros((80, 160)), discs((40, 80, 25, 100))
    sharp[20:60, 50:62] = sharp[20:60, 65:77] = (
        100  # with a gap within the image's blur
    )
    soft = micrograph(ndimage.gaussian_filter(soft, 5))
    found = gaps_of(soft, micrograph(sharp))
    assert found.clear == gaps_of(micrograph(sharp)).clear == 1


def test_table_and_histograms_hold_each_gap():
    image = micrograph(row(6.0), 2.0)
    found = gaps_of(image, image)
    table = found.create_table()
    assert table["kind"] == ["found"]
    assert table["error_nm"] == [0]
    assert table["y_nm"] == pytest.approx([80], abs=1)
    assert table["x_px"] == pytest.approx([83], abs=0.5)
    first, second = found.compute_histograms("nm", 2.5)
    assert first.edges == second.edges
    assert np.diff(first.edges) == pytest.approx(2.5)
    assert first.counts == second.counts


def test_wrong_input_is_refused():
    with refused(ReadError, "pixels-missing", match=" 81 .* hole "):
        gaps_of(micrograph(np.full((9, 9), np.nan), name="hole"))


def test_faint_particles_are_found_beside_bright_ones(rng):
    bright = [(60, 60, 25, 180), (60, 180, 25, 180), (180, 120, 25, 180)]
    faint = [(y, x, 6, 55) for y in (110, 130) for x in range(20, 230, 24)]
    drawn = discs(*bright, *faint, shape=(230, 240), level=20)
    image = ndimage.gaussian_filter(drawn, 1.0) + rng.normal(0, 3, drawn.shape)
    found = gaps_of(micrograph(np.clip(image, 0, 255).astype(np.uint8)))
    assert found.particles == found.bright == len(bright) + len(faint)
    assert found.median_diameter_px == pytest.approx(12, abs=1.5)
    cover = np.pi * (3 * 25**2 + len(faint) * 6**2) / drawn.size
    assert found.covered == pytest.approx(cover, rel=0.1)


@pytest.mark.parametrize(("sigma", "seed"), [(3, 0), (4, 3)])
def test_spot_without_an_edge_is_one_particle(sigma, seed):
    places = np.zeros((128, 192))
    places[32::64, 32::64] = 200 * np.pi * sigma**2  # peaks of 100
    noise = np.random.default_rng(seed).normal(0, 0.5, places.shape)
    found = gaps_of(micrograph(ndimage.gaussian_filter(places, sigma) + noise))
    assert found.particles == found.bright == 6


def test_no_gap_lies_across_an_object():
    pair = (40, 40, 20, 180), (40, 118, 20, 180)
    apart = gaps_of(micrograph(discs(*pair)))
    assert (len(apart.found_gaps), apart.across) == (1, 0)
    # between them an object that is too small to be a particle
    between = micrograph(discs(*pair, (40, 79, 9, 60)))
    found = gaps_of(between, options=GapOptions(min_diameter_px=30))
    assert (found.particles, found.pairs, found.bright) == (2, 1, 3)
    assert (len(found.found_gaps), found.across) == (0, 1)


def test_particles_on_sloping_ground_are_those_on_level_ground(rng):
    each = [(y, x, 6, 100) for y in range(16, 200, 20) for x in range(16, 200, 20)]
    drawn = ndimage.gaussian_filter(discs(*each, shape=(208, 208)), 1.0)
    drawn += rng.normal(0, 2, drawn.shape)
    slope = 100 * np.linspace(0, 1, 208)
    level, sloping = (gaps_of(micrograph(i)) for i in (drawn, drawn + slope))
    assert sloping.particles == level.particles == len(each)
    assert len(sloping.found_gaps) == len(level.found_gaps)
    assert sloping.mean_width_px == pytest.approx(level.mean_width_px, rel=0.02)


@pytest.mark.parametrize(("width", "degrees"), [(4, 10), (6, 20), (11, 33)])
def test_oblique_rod_and_ring_are_one_particle_each(rng, width, degrees):
    y, x = np.indices((4 * 96, 4 * 192)) / 4  # drawn finer than a pixel
    turn = np.exp(-1j * np.deg2rad(degrees))
    place = (x - 48 + 1j * (y - 48)) * turn
    rod = (np.abs(place.real) < 30) & (np.abs(place.imag) < width / 2)
    radius = np.hypot(x - 144.1, y - 48.3)
    drawn = rod | ((radius < 25) & (radius > 25 - width))
    pixels = drawn.reshape(96, 4, 192, 4).mean((1, 3))
    image = 150 * ndimage.gaussian_filter(pixels, 1) + rng.normal(0, 3, pixels.shape)
    assert gaps_of(micrograph(image)).particles == 2
