"""Flat field and dark level from the frames themselves."""

import numpy as np
import pytest

from napari_semsr.stitching.flat_field import (
    field_centre,
    first_flat,
    radial_flat,
    valid_mask,
)
from tests.stitching import scans


def test_first_flat_finds_a_round_field_and_its_dark_level(round_scan):
    found = first_flat(round_scan.acquisition)
    inside = found.valid
    ratio = found.flat[inside] / round_scan.flat[inside]
    assert ratio.std() / ratio.mean() < 0.06
    assert found.dark == pytest.approx(2000, rel=0.05)
    assert found.method == "radial"


def test_first_flat_finds_no_dark_level_where_all_is_lit(square_scan):
    assert first_flat(square_scan.acquisition).dark == 0


@pytest.mark.parametrize("centre", [(0.0, 0.0), (0.06, -0.05)], ids=str)
def test_field_centre_lies_where_the_field_does(centre):
    flat = scans.round_flat(128, centre=centre, radius=0.43)
    found, _ = field_centre(flat)
    expected = 63.5 + 128 * np.array(centre)
    assert np.abs(np.array(found) - expected).max() < 0.7


def test_radial_flat_keeps_a_radial_field():
    flat = scans.square_flat(128)
    inside = np.hypot(*(np.indices(flat.shape) - 63.5)) < 85
    assert np.abs(radial_flat(flat) / flat / 1.0 - 1)[inside].max() < 0.02


def test_valid_mask_leaves_out_the_dark_and_its_edge():
    assert valid_mask(np.full((9, 9), 0.5)).all()
    flat = np.ones((40, 40))
    flat[:, :10] = 0.1
    mask = valid_mask(flat)
    assert not mask[:, :13].any()
    assert mask[20, 20]
