import numpy as np
import pytest

from napari_semsr.core import Grid, Micrograph, OptionError, WarpedImage
from napari_semsr.simulation import ScanOptions, SemViewOptions, simulate_sem_view
from napari_semsr.simulation.scan import run_scan_simulation
from napari_semsr.simulation.sem import compute_sem_contrast
from tests.refusals import refused

SCAN = ScanOptions(
    phantom="particles", frames_grid=(2, 2), frame_px=128, jitter_px=2.0, seed=3
)
STILL = SemViewOptions(view_electrons=0, view_charging=0)


@pytest.fixture(scope="module")
def scan():
    return run_scan_simulation(None, SCAN)


def shift_between(image, other):
    """Shift of a small block that fits best, gain and offset left free."""
    down, across = np.gradient(other)
    terms = np.stack([down, across, other, np.ones_like(other)], axis=-1)
    return np.linalg.lstsq(terms.reshape(-1, 4), image.ravel(), rcond=None)[0][:2]


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    "changes",
    [
        {"view_turn_deg": -33.0, "view_mirror": True, "view_bending_nm": 60.0},
        {"view_pixel_nm": 13.0, "view_shear": 0.08},
    ],
    ids=["turned, mirrored, bent", "coarse, sheared"],
)
def test_the_map_lays_a_view_on_the_straight_image(scan, changes):
    scene, view = scan.scene, simulate_sem_view(scan, STILL.replace(**changes))
    grey = 255 * compute_sem_contrast(scene.surface).astype(float)
    origin = tuple(20.0 * v for v in scene.origin_px)
    straight = Micrograph(grey, (10.0, 10.0), origin=origin)
    shown = Micrograph(view.image, (view.pixel_nm,) * 2)
    laid = WarpedImage(shown, Grid.from_image(straight), view.transform).read()
    shifts = []
    for y in range(0, laid.shape[0] - 64, 64):
        for x in range(0, laid.shape[1] - 64, 64):
            part = np.s_[y : y + 64, x : x + 64]
            if np.isfinite(laid[part]).all():
                shifts.append(shift_between(laid[part], straight.data[part]))
    assert len(shifts) >= 3
    assert np.abs(shifts).max() < 0.05


def test_a_map_is_what_was_asked_for(scan):
    turned = STILL.replace(view_turn_deg=12.0, view_shear=0.0, view_bending_nm=0.0)
    found = simulate_sem_view(scan, turned).transform
    assert found.is_similarity
    assert found.degrees == pytest.approx(12.0)
    mirrored = simulate_sem_view(scan, turned.replace(view_mirror=True)).transform
    assert mirrored.is_mirrored
    drifted = simulate_sem_view(scan, turned.replace(view_shear=0.05)).transform
    moved = drifted.linear - found.linear
    assert np.hypot(*moved) == pytest.approx((0.05, 0))


@pytest.mark.broad
def test_a_strip_is_shown_in_part_rather_than_beyond_its_border():
    strip = run_scan_simulation(None, SCAN.replace(frames_grid=(1, 6)))
    view = simulate_sem_view(strip, STILL.replace(view_turn_deg=20.0))
    assert view.image.shape[1] < 0.7 * strip.scene.sharp.shape[1] / 0.8


def test_what_cannot_be_shown_is_refused(scan, rng):
    for options in (
        {"view_field": 1.0, "view_turn_deg": 45.0},
        {"view_bending_nm": 2000.0, "view_field": 0.2},
    ):
        with refused(OptionError, "out-of-range"):
            simulate_sem_view(scan, STILL.replace(**options))
    one = SCAN.replace(frames_grid=(1, 1))
    with refused(OptionError, "heights-missing"):
        simulate_sem_view(run_scan_simulation(rng.random((200, 200)), one), STILL)
