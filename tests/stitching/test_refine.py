"""Joint refinement: to the noise limit, and honest about it."""

import numpy as np

from napari_semsr.stitching.frames import CorrectedFrames, FlatField
from napari_semsr.stitching.nominal import find_overlapping_pairs
from napari_semsr.stitching.refine import refine_positions
from tests.stitching import scans


def known(scan):
    """Frames corrected by the true shading."""
    flat = (scan.flat / scan.flat.max()).astype(np.float32)
    field = FlatField(flat, 2000.0, flat > 0.15, "known")
    return CorrectedFrames(scan.acquisition, field, scan.gains)


def test_refine_reaches_the_spread_that_it_states(round_scan):
    start = np.round(round_scan.truth)
    pairs = find_overlapping_pairs(start, (128, 128))
    steps = (2.0, 2.0, 1.0, 1.0, 1.0, 1.0)
    sweeps = list(refine_positions(known(round_scan), start, pairs, steps))
    _, before = scans.errors(start, round_scan.truth)
    _, after = scans.errors(sweeps[-1].positions, round_scan.truth)
    stated = float(np.sqrt((sweeps[-1].sigma_px ** 2).sum(axis=1).mean()))
    assert after < before / 10
    assert 0.4 < after / stated < 1.6


def test_a_group_that_no_pair_ties_to_the_others_has_no_finite_error(square_scan):
    start = square_scan.truth.copy()
    start[2] = np.nan
    pairs = find_overlapping_pairs(start, (128, 128))
    inside = [pair for pair in pairs if (pair[0] < 6) == (pair[1] < 6)]
    (sweep,) = refine_positions(known(square_scan), start, inside, (1.0,))
    assert np.isposinf(sweep.sigma_px[6:]).all()
    assert np.isnan(sweep.sigma_px[2]).all()
    assert (sweep.sigma_px[[0, 1, 3, 4, 5]] < 0.05).all()
