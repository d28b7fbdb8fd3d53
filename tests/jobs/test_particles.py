"""Sizes of particles: right for drawn discs, whatever cuts them."""

import csv
import math

import numpy as np
import pytest

import napari_semsr as semsr
from napari_semsr.core import Micrograph, ReadError, ShapeError
from napari_semsr.jobs import get_verb
from tests.refusals import refused, warned

RADII = (9.0, 12.0, 15.0, 20.0)


def draw(*discs, shape=(200, 220), pitch=(1.0, 1.0)):
    """Draw discs (y, x, radius), in units of which a pixel has `pitch`."""
    y, x = np.indices(shape) * np.reshape(pitch, (2, 1, 1))
    field = np.zeros(shape)
    for row, column, radius in discs:
        edge = radius - np.hypot(y - row, x - column)
        field = np.maximum(field, np.clip(edge + 0.5, 0, 1))
    return 40 + 120 * field


CENTRES = (50.3, 45.1), (50.2, 150.7), (149.6, 50.5), (140.2, 150.3)
FIELD = draw(*((y, x, r) for (y, x), r in zip(CENTRES, RADII, strict=True)))


@pytest.fixture
def noisy(rng):
    return FIELD + rng.normal(0, 3, FIELD.shape)


@pytest.mark.parametrize("dark", [False, True])
def test_discs_have_their_diameters(noisy, dark):
    found = semsr.particles(200 - noisy if dark else noisy, dark=dark, pixel_size_nm=5)
    sizes = sorted(found.get_diameters("nm"))
    assert sizes == pytest.approx([10 * r for r in RADII], rel=0.01)
    assert found.median_nm == pytest.approx(135, rel=0.01)
    assert found.mean_nm == pytest.approx(140, rel=0.01)
    assert found.spread_nm == pytest.approx(np.std(sizes, ddof=1))
    quartiles = found.lower_quartile_nm, found.upper_quartile_nm
    assert quartiles == pytest.approx(np.quantile(sizes, (0.25, 0.75)).tolist())
    assert (found.cut, found.smaller, found.counted) == (0, 0, 1)
    area = math.pi * sum(r**2 for r in RADII) / FIELD.size
    assert found.covered == pytest.approx(area, rel=0.02)


def test_pixels_that_are_not_square_have_their_own_scale():
    field = draw((120, 90, 60), (120, 270, 50), shape=(120, 90), pitch=(2, 4))
    found = semsr.particles(field, pixel_size_nm=(2, 4))
    rows = sorted(found.rows, key=lambda row: row["x_nm"])
    assert [row["equivalent_diameter_nm"] for row in rows] == pytest.approx(
        [120, 100], rel=0.01
    )
    assert [row["x_nm"] for row in rows] == pytest.approx([90, 270], abs=0.5)
    assert [row["y_px"] for row in rows] == pytest.approx([60, 60], abs=0.1)
    assert max(row["eccentricity"] for row in rows) < 0.2


def test_the_error_of_the_scale_is_in_every_diameter(noisy):
    found = semsr.particles(noisy, pixel_size_nm=5, pixel_size_sd_nm=0.1)
    for row in found.rows:
        error = 0.02 * row["equivalent_diameter_nm"]
        assert row["equivalent_diameter_sd_nm"] == pytest.approx(error)
    assert found.median_sd_nm == pytest.approx(0.02 * found.median_nm)
    known = semsr.particles(noisy, pixel_size_nm=5)
    assert known.median_sd_nm is None
    assert known.rows[0]["equivalent_diameter_sd_nm"] is None


def test_an_unknown_scale_stays_unknown(noisy, tmp_path):
    with warned("pixel-size-missing"):
        found = semsr.particles(noisy, tmp_path / "sizes.csv")
    assert found.median_px == pytest.approx(27, rel=0.01)
    assert found.median_nm is None
    with (tmp_path / "sizes.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["equivalent_diameter_nm"] for row in rows] == [""] * 4
    sizes = [float(row["equivalent_diameter_px"]) for row in rows]
    assert sorted(sizes) == pytest.approx([2 * r for r in RADII], rel=0.01)


def test_what_the_border_cuts_is_left_out_and_counted():
    field = draw((100, 100, 15), (100, -3, 12), (0, 150, 14), (199, 219, 18))
    found = semsr.particles(field, pixel_size_nm=1)
    assert (found.particles, found.cut) == (1, 3)
    assert found.median_nm == pytest.approx(30, rel=0.01)
    alike = semsr.particles(field > 100, labels=True, pixel_size_nm=1)
    assert (alike.particles, alike.cut) == (1, 3)


def test_missing_pixels_cut_as_the_border_does(noisy):
    noisy[:, 150] = np.nan  # through two of them
    noisy[50, 45] = np.nan  # within one
    found = semsr.particles(noisy, pixel_size_nm=1)
    assert found.get_diameters("nm") == pytest.approx([2 * RADII[2]], rel=0.01)
    assert found.cut > 1
    assert found.counted == pytest.approx(1 - 200 / FIELD.size, abs=1e-4)


def test_a_particle_up_to_missing_pixels_is_cut(rng):
    field = draw((100.4, 60.3, 15), (100, 110, 20)) + rng.normal(0, 3, (200, 220))
    field[:, 110:] = np.inf  # half of the field
    found = semsr.particles(field, pixel_size_nm=1)
    assert (found.particles, found.cut) == (1, 1)
    assert found.median_nm == pytest.approx(30, rel=0.01)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.float32])
def test_labels_are_measured_as_they_are(kind):
    labels = np.zeros(FIELD.shape, kind)
    labels[20:40, 20:40] = 7  # two that touch
    labels[20:40, 40:50] = 200
    labels[100:102, 100:102] = 3  # too small
    found = semsr.particles(labels, labels=True, pixel_size_nm=2)
    assert [repr(row["label"]) for row in found.rows] == ["7", "200"]
    assert [row["area_nm2"] for row in found.rows] == [1600, 800]
    assert found.smaller == 1
    (row, _) = found.rows
    assert (row["y_px"], row["x_px"]) == (29.5, 29.5)
    assert row["equivalent_diameter_nm"] == pytest.approx(math.sqrt(1600 * 4 / math.pi))


def test_parts_of_a_mask_are_objects():
    found = semsr.particles(255 * (FIELD > 100), labels=True, pixel_size_nm=1)
    assert sorted(found.get_diameters("nm")) == pytest.approx(
        [2 * r for r in RADII], rel=0.01
    )


def test_what_is_no_label_image_is_refused(noisy):
    for wrong in (noisy, noisy.astype(np.uint8), -np.eye(64)):
        with refused(ShapeError, "not-labels"):
            semsr.particles(wrong, labels=True, pixel_size_nm=1)
    with refused(ReadError, "no-finite-values"):
        semsr.particles(np.full((64, 64), np.nan), pixel_size_nm=1)


def test_a_field_without_particles_has_none(rng, tmp_path):
    for empty in (np.full((80, 90), 7.0), rng.normal(100, 3, (80, 90))):
        found = semsr.particles(
            empty, tmp_path / "none.csv", pixel_size_nm=1, overwrite=True
        )
        assert (found.particles, found.median_nm) == (0, None)
        assert (tmp_path / "none.csv").read_text().count("\n") == 1
    alone = semsr.particles(draw((100, 100, 15)), pixel_size_nm=1)
    assert alone.spread_nm is None or math.isnan(alone.spread_nm)


def test_places_are_those_of_a_part_in_its_image():
    part = Micrograph(draw((60, 70, 15)), (2.0, 2.0), "part", origin=(1000.0, 50.0))
    (row,) = semsr.particles(part).rows
    assert (row["y_nm"], row["x_nm"]) == pytest.approx((1120, 190), abs=0.2)


def test_a_search_ends_between_its_steps(noisy):
    job = get_verb("particles").job(Micrograph(noisy, (5.0, 5.0), "balls"))
    steps = [step.message for step in job]
    assert steps[-1].endswith(": 4 found")
    assert sum(step.startswith("finding particles") for step in steps) > 4
    job = get_verb("particles").job(Micrograph(noisy, (5.0, 5.0), "balls"))
    while next(job).message != "finding particles: 4 found":
        pass
    job.close()
    assert next(job, None) is None


def test_a_search_says_how_far_it_is(noisy):
    job = get_verb("particles").job(Micrograph(noisy, (5.0, 5.0), "balls"))
    steps = [one for one in job if one.total]
    assert [one.done for one in steps] == sorted(one.done for one in steps)
    assert 0 == steps[0].done < steps[-1].done < steps[-1].total


def test_pieces_of_a_net_are_doubted_and_balls_are_not(rng):
    y, x = np.indices(FIELD.shape)
    rows, columns = rng.uniform(0, 200, (2, 60, 1, 1))
    nearest, second = np.sort(np.hypot(y - rows, x - columns), axis=0)[:2]
    net = 100 * np.exp(-(((second - nearest) / 4) ** 2))  # walls between cells
    with warned("particles-doubtful", match="net"):
        found = semsr.particles(Micrograph(net, (1.0, 1.0), "net"))
    assert found.particles > 10
    assert found.clear < 0.2
    balls = [(20 + 40 * i, 20 + 45 * j + 3 * i, 15) for i in range(4) for j in range(4)]
    dense = draw(*balls, (20, 47, 14)) + rng.normal(0, 3, FIELD.shape)  # two touch
    assert semsr.particles(dense, pixel_size_nm=1).clear > 0.7
    assert semsr.particles(dense > 100, labels=True, pixel_size_nm=1).clear is None
