"""What share of an image another shows."""

import numpy as np
import pytest

from napari_semsr.core import Affine, Micrograph, parse_pixel_size
from napari_semsr.registration.quality import overlap_of

IMAGE = Micrograph(np.zeros((100, 200), np.float32), parse_pixel_size(10))


@pytest.mark.parametrize(
    ("transform", "share"),
    [
        (Affine(), 1),
        (Affine(shift=(10, 0)), 0.99),
        (Affine(shift=(-500, 500)), 0.5 * 0.75),
        (Affine(((0.5, 0), (0, 0.5))), 1),
        (Affine(shift=(2000, 0)), 0),
    ],
    ids=["itself", "a pixel off", "moved", "smaller", "elsewhere"],
)
def test_overlap_is_what_both_show_of_the_smaller(transform, share):
    assert overlap_of(transform, IMAGE, IMAGE) == pytest.approx(share, abs=0.006)
