"""Joint refinement: to the noise limit, and honest about it."""

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.stitching.flat_field import FlatField
from napari_semsr.stitching.frames import LOBES, CorrectedFrames
from napari_semsr.stitching.nominal import find_overlapping_pairs
from napari_semsr.stitching.pairwise import ResampledFrames, resample_frame
from napari_semsr.stitching.refine import refine_positions
from tests.stitching import scans


def known(scan):
    """Frames corrected by the true shading."""
    flat = (scan.flat / scan.flat.max()).astype(np.float32)
    field = FlatField(flat, 2000.0, flat > 0.15, "known")
    return CorrectedFrames(scan.acquisition, field, scan.gains)


def test_resample_moves_smooths_and_differentiates(rng):
    image = ndimage.gaussian_filter(rng.normal(size=(60, 60)), 3).astype(np.float32)
    moved, slope_y, slope_x = resample_frame(image, (0.3, -0.4), 1.0)
    spectrum = ndimage.fourier_gaussian(np.fft.fft2(image), 1.0)
    expected = np.fft.ifft2(ndimage.fourier_shift(spectrum, (0.3, -0.4))).real
    inner = (slice(12, -12), slice(12, -12))
    assert np.abs(moved - expected)[inner].max() < 0.01 * np.abs(expected).max()
    for slope, axis in ((slope_y, 0), (slope_x, 1)):
        reference = np.gradient(expected, axis=axis)
        scale = np.abs(reference[inner]).max()
        assert np.abs(slope - reference)[inner].max() < 0.1 * scale


def test_a_resampled_frame_is_trusted_away_from_its_own_gaps(square_scan):
    frames = square_scan.acquisition.frames.astype(np.float32)
    frames[1, 40:60, 30:50] = np.nan
    flat = np.ones((128, 128), np.float32)
    field = FlatField(flat, 0.0, flat > 0, "known")
    prepared = CorrectedFrames(square_scan.acquisition.replace(frames=frames), field)
    resampled = ResampledFrames(prepared, square_scan.truth, 1.0)
    near = resampled.margin
    whole = np.zeros((128, 128), bool)
    whole[near:-near, near:-near] = True
    for number in (0, 1, 2):
        weight, *planes = resampled.get_planes(number)
        expected = whole.copy()
        if number == 1:
            far = near + LOBES  # where a frame is resampled for the mosaic, too
            expected[40 - far : 60 + far, 30 - far : 50 + far] = False
        assert np.array_equal(weight > 0, expected)
        assert all(np.isfinite(plane).all() for plane in planes)


@pytest.mark.parametrize("name", ["square_scan", "round_scan"])
def test_refine_reaches_the_spread_that_it_states(name, request):
    scan = request.getfixturevalue(name)
    start = np.round(scan.truth)
    pairs = find_overlapping_pairs(start, (128, 128))
    sweeps = list(
        refine_positions(known(scan), start, pairs, (2.0, 2.0, 1.0, 1.0, 1.0, 1.0))
    )
    _, before = scans.errors(start, scan.truth)
    _, after = scans.errors(sweeps[-1].positions, scan.truth)
    stated = float(np.sqrt((sweeps[-1].sigma_px ** 2).sum(axis=1).mean()))
    assert after < before / 10
    assert 0.4 < after / stated < 1.6


def test_refine_leaves_out_what_has_no_place_and_ends_when_nothing_moves(square_scan):
    start = square_scan.truth.copy()
    start[4] = np.nan
    pairs = find_overlapping_pairs(start, (128, 128))
    assert all(4 not in pair for pair in pairs)
    sweeps = list(refine_positions(known(square_scan), start, pairs, (1.0,) * 9))
    assert len(sweeps) < 9
    assert np.isnan(sweeps[-1].positions[4]).all()
    assert scans.errors(sweeps[-1].positions, square_scan.truth)[1] < 0.05


@pytest.mark.parametrize("limit", [1500, 4])
def test_a_group_that_no_pair_ties_to_the_others_has_no_finite_error(
    square_scan, monkeypatch, limit
):
    monkeypatch.setattr("napari_semsr.stitching.refine.DENSE_LIMIT", limit)
    start = square_scan.truth.copy()
    start[2] = np.nan
    pairs = find_overlapping_pairs(start, (128, 128))
    inside = [pair for pair in pairs if (pair[0] < 6) == (pair[1] < 6)]
    (sweep,) = refine_positions(known(square_scan), start, inside, (1.0,))
    assert np.isposinf(sweep.sigma_px[6:]).all()
    assert np.isnan(sweep.sigma_px[2]).all()
    held = sweep.sigma_px[[0, 1, 3, 4, 5]]
    assert np.isnan(held).all() if limit == 4 else (held < 0.05).all()
