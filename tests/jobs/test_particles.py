"""Sizes of particles: right for drawn discs, whatever cuts them."""

import math

import numpy as np
import pytest
from scipy import ndimage

import napari_semsr as semsr
from napari_semsr import core
from napari_semsr.analysis import GapOptions
from napari_semsr.jobs import GAPS
from tests import tables
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


def rows_of(values, pixel_size_nm, sd=None, **options):
    """Return the table of particles that a command gives."""
    image = core.Micrograph(values, pixel_size_nm, "balls").with_size_error(sd)
    return core.run(GAPS.job(image, options=GapOptions(**options))).particle_rows


@pytest.mark.parametrize("dark", [False, True])
def test_discs_have_their_diameters(noisy, dark):
    found = semsr.gaps(200 - noisy if dark else noisy, dark=dark, pixel_size_nm=5)
    sizes = sorted(found.get_diameters("nm"))
    assert sizes == pytest.approx([10 * r for r in RADII], rel=0.01)
    assert found.median_diameter_nm == pytest.approx(135, rel=0.01)
    assert found.mean_diameter_nm == pytest.approx(140, rel=0.01)
    assert (found.particles, found.cut) == (4, 0)
    area = math.pi * sum(r**2 for r in RADII) / FIELD.size
    assert found.covered == pytest.approx(area, rel=0.02)


def test_pixels_that_are_not_square_have_their_own_scale():
    field = draw((120, 90, 60), (120, 270, 50), shape=(120, 90), pitch=(2, 4))
    rows = sorted(rows_of(field, (2.0, 4.0)), key=lambda row: row["x_nm"])
    assert [row["diameter_nm"] for row in rows] == pytest.approx([120, 100], rel=0.01)
    assert [row["x_nm"] for row in rows] == pytest.approx([90, 270], abs=0.5)
    assert [row["y_px"] for row in rows] == pytest.approx([60, 60], abs=0.1)
    assert max(row["eccentricity"] for row in rows) < 0.2


def test_the_error_of_the_scale_is_in_every_diameter(noisy):
    for row in rows_of(noisy, (5.0, 5.0), sd=(0.1, 0.1)):
        assert row["diameter_sd_nm"] == pytest.approx(0.02 * row["diameter_nm"])
    assert rows_of(noisy, (5.0, 5.0))[0]["diameter_sd_nm"] is None


def test_an_unknown_scale_stays_unknown(noisy, tmp_path):
    with warned("pixel-size-missing"):
        found = semsr.gaps(noisy, table=tmp_path / "gaps.csv")
    assert found.median_diameter_px == pytest.approx(27, rel=0.01)
    assert found.median_diameter_nm is None
    rows = tables.rows_of(tmp_path / "gaps.particles.csv")
    assert [row["diameter_nm"] for row in rows] == [""] * 4
    sizes = [float(row["diameter_px"]) for row in rows]
    assert sorted(sizes) == pytest.approx([2 * r for r in RADII], rel=0.01)


def test_what_the_border_cuts_is_counted_and_has_no_size():
    field = draw((100, 100, 15), (100, -3, 12), (0, 150, 14), (199, 219, 18))
    found = semsr.gaps(field, pixel_size_nm=1)
    assert (found.particles, found.cut) == (4, 3)
    assert found.get_diameters("nm") == pytest.approx([30], rel=0.01)
    alike = semsr.gaps(field > 100, labels=True, pixel_size_nm=1)
    assert (alike.particles, alike.cut) == (4, 3)


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        *((kind, 200) for kind in (np.uint8, np.uint16, np.int32, np.float32)),
        *((np.int64, 2**62 + 1), (np.uint64, 2**64 - 1)),  # no floats hold these
    ],
)
def test_labels_are_measured_as_they_are(kind, other):
    labels = np.zeros(FIELD.shape, kind)
    labels[20:40, 20:40] = 7  # two that touch
    labels[20:40, 40:50] = other
    labels[100:102, 100:102] = 3  # too small
    rows = rows_of(labels, (2.0, 2.0), labels=True)
    assert [repr(row["label"]) for row in rows] == ["7", str(other)]
    assert [row["area_nm2"] for row in rows] == [1600, 800]
    assert (rows[0]["y_px"], rows[0]["x_px"]) == (29.5, 29.5)
    assert rows[0]["diameter_nm"] == pytest.approx(math.sqrt(1600 * 4 / math.pi))


def test_labels_that_were_written_give_the_same_particles(noisy, tmp_path):
    image = core.Micrograph(noisy, (5.0, 5.0), "balls", origin=(20.0, -10.0))
    first = core.run(GAPS.job(image, labels_out=tmp_path / "labels.ome.tif"))
    stored = semsr.read(tmp_path / "labels.ome.tif")
    np.testing.assert_array_equal(stored.array(), first.result.labels)
    assert stored.pixel_size_nm == (5.0, 5.0)
    again = core.run(GAPS.job(stored, options=GapOptions(labels=True)))
    assert again.particle_rows == first.particle_rows
    assert again.result.cut == first.result.cut


def test_labels_of_64_bits_are_stored_or_refused(tmp_path):
    labels = np.zeros((60, 90), np.uint64)
    labels[20:40, 10:30], labels[20:40, 30:50] = 2**64 - 2, 2**64 - 1
    how = {"labels": True, "pixel_size_nm": 1}
    semsr.gaps(labels, labels_out=tmp_path / "labels.ome.zarr", **how)
    stored = semsr.read(tmp_path / "labels.ome.zarr")
    np.testing.assert_array_equal(stored.array(), labels)
    for name in ("labels.png", "labels.ome.tif"):
        with refused(core.WriteError, "out-of-range"):
            semsr.gaps(labels, labels_out=tmp_path / name, **how)


def test_gaps_between_labels_are_those_between_their_outlines():
    labels = np.zeros((60, 90), np.uint8)
    labels[20:40, 10:30], labels[20:40, 40:60] = 1, 2
    labels[20:40, 60:80] = 3  # touches the second
    found = semsr.gaps(labels, labels=True, pixel_size_nm=1)
    (gap,) = found.found_gaps
    assert gap.width_nm == pytest.approx(10, abs=0.01)


def test_what_is_no_label_image_is_refused(noisy):
    for wrong in (noisy, noisy.astype(np.uint8), -np.eye(64)):
        with refused(core.ShapeError, "not-labels"):
            semsr.gaps(wrong, labels=True, pixel_size_nm=1)
    with refused(core.OptionError, "options-contradict"):
        semsr.gaps(FIELD > 100, FIELD, labels=True, pixel_size_nm=1)
    with refused(core.ReadError, "no-finite-values"):
        semsr.gaps(np.full_like(FIELD, np.nan), pixel_size_nm=1)


def test_pieces_of_a_net_are_doubted_and_balls_are_not(rng):
    y, x = np.indices(FIELD.shape)
    rows, columns = rng.uniform(0, 200, (2, 60, 1, 1))
    nearest, second = np.sort(np.hypot(y - rows, x - columns), axis=0)[:2]
    net = 100 * np.exp(-(((second - nearest) / 4) ** 2))  # walls between cells
    with warned("particles-doubtful", match="net"):
        found = semsr.gaps(core.Micrograph(net, (1.0, 1.0), "net"))
    assert found.particles > 10
    assert found.clear < 0.2
    balls = [(20 + 40 * i, 20 + 45 * j + 3 * i, 15) for i in range(4) for j in range(4)]
    dense = draw(*balls, (20, 47, 14)) + rng.normal(0, 3, FIELD.shape)  # two touch
    assert semsr.gaps(dense, pixel_size_nm=1).clear > 0.7
    assert semsr.gaps(dense > 100, labels=True, pixel_size_nm=1).clear is None


@pytest.mark.parametrize("blur_px", [0.5, 3.0])
def test_balls_with_gaps_are_isolated_whatever_the_blur(blur_px, rng):
    gap = 1.7 * max(blur_px, 1)
    balls = [
        (30 + (40 + gap) * (i * math.sqrt(0.75)), 30 + (40 + gap) * (j + i % 2 / 2), 20)
        for i, j in np.ndindex(5, 5)
    ]
    sharp = draw(*balls, shape=(260, 300))
    image = ndimage.gaussian_filter(sharp, blur_px) + rng.normal(0, 1, sharp.shape)
    found = semsr.gaps(image, pixel_size_nm=1)
    assert (found.particles, found.gaps) == (25, 56)
    assert found.clear > 0.9
