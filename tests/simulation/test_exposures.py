import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.core.errors import OptionError
from napari_semsr.simulation.microscope import compute_focus_depth_nm
from napari_semsr.simulation.scan import ScanOptions, run_scan_simulation
from tests.refusals import refused

OPTIONS = ScanOptions(frames_grid=(1, 3), frame_px=64, field="square", vignetting=1)


@pytest.fixture(scope="module")
def scan():
    return run_scan_simulation(None, OPTIONS)


def test_exposures_share_the_light_and_not_the_noise(scan):
    taken = scan.simulate_exposures(3).astype(float)
    assert taken.shape == (3, 64, 64)
    mean = taken.mean(axis=0) - scan.options.offset
    shot = scan.options.full_scale / scan.options.photons * mean
    expected = 2 * (shot + scan.options.read_noise**2).mean()
    assert (taken[0] - taken[1]).var() == pytest.approx(expected, rel=0.08)
    frame = scan.frames[scan.central_index].astype(float)
    assert (frame - taken[0]).var() == pytest.approx(expected, rel=0.08)


def test_each_height_is_sharpest_when_in_focus(scan):
    how = {"photons": 0, "read_noise": 0, "relief_nm": 200.0, "depth_of_field_nm": 80}
    options = OPTIONS.replace(phantom="lattice", optics="gaussian", **how)
    steps = run_scan_simulation(None, options).simulate_focal_series(3)
    assert [step.focus_nm for step in steps] == pytest.approx((0, 100, 200), abs=0.1)
    assert len({round(step.frame.std(), 3) for step in steps}) == 3
    with refused(OptionError, "out-of-range"):
        scan.simulate_focal_series(1)


def test_heights_show_every_field_blurred_alike_wherever_it_lies(rng):
    picture = ndimage.gaussian_filter(rng.random((160, 260)), 1)
    scan = run_scan_simulation(picture, OPTIONS.replace(photons=0, read_noise=0))
    low, middle, high = scan.simulate_height_scans(3)
    depth = compute_focus_depth_nm(scan.options)
    assert [step.focus_nm for step in (low, middle, high)] == [-depth, 0, depth]
    assert middle.shift_px == (0, 0)
    assert np.array_equal(middle.frames, scan.frames)
    assert np.abs(low.frames.astype(int) - high.frames).max() <= 1
    assert low.frames.std() < middle.frames.std()


def test_electron_image_covers_the_scene(scan):
    assert scan.simulate_sem_image().shape == scan.scene.image.shape
    image = run_scan_simulation(np.random.default_rng(0).random((120, 220)), OPTIONS)
    with refused(OptionError, "heights-missing"):
        image.simulate_sem_image()
