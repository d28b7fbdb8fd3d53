"""Frames that show what their neighbours show, and frames that do not."""

import numpy as np
import pytest

from napari_semsr.core.acquisition import ArrayFrames
from napari_semsr.stitching.discovery import Agreement
from napari_semsr.stitching.flat_field import first_flat
from napari_semsr.stitching.frames import CorrectedFrames
from napari_semsr.stitching.nominal import overlapping_pairs
from tests.stitching import scans


def agreement_of(acquisition, positions):
    prepared = CorrectedFrames(acquisition, first_flat(acquisition))
    pairs = overlapping_pairs(positions, acquisition.frame_shape)
    return Agreement.measure(prepared, positions, pairs)


def test_frames_in_their_places_agree(square_scan):
    found = agreement_of(square_scan.acquisition, square_scan.truth)
    assert found.share(9).min() > 0.8
    assert found.misfits(9) == []


def test_misfits_are_foreign_or_misplaced_frames_alone(square_scan):
    data = square_scan.acquisition.frames.data.copy()
    other = scans.texture(data.shape[1:], 77) * square_scan.flat * scans.FULL
    data[4] = np.clip(2000 + other, 0, 65535)
    acquisition = square_scan.acquisition.replace(frames=ArrayFrames(data))
    positions = square_scan.truth.copy()
    positions[8] -= (9, 14)
    found = agreement_of(acquisition, positions)
    assert sorted(found.misfits(9)) == [4, 8]
    assert found.share(9, without=[4, 8])[[0, 1, 2, 3, 5, 6, 7]].min() > 0.7


def test_share_says_nothing_where_there_is_no_detail():
    pairs = np.array([[0, 1], [1, 2]])
    flat = Agreement(pairs, np.zeros(2), np.full(2, 1000.0), np.full(2, 1000.0))
    assert flat.noise == pytest.approx(1)
    assert np.isnan(flat.share(3)).all()
    assert flat.misfits(3) == []
