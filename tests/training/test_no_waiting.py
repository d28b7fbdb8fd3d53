"""What a training step does to its patches reads nothing back from the device.

A tensor on the meta device has no values, so that whoever would wait for a card to know
one raises an error there.
"""

import numpy as np
import pytest
import torch

from napari_semsr.models import InformedRestorer
from napari_semsr.models.architectures.wiener import (
    compute_ring_medians,
    compute_sharpening_taps,
)
from napari_semsr.training.learner import mask_pixels


@pytest.mark.parametrize("reach", [(0, 0), (1, 3)])
def test_pixels_are_hidden_without_reading_where(reach) -> None:
    hidden = mask_pixels(torch.empty(3, 1, 40, 50, device="meta"), 4, reach)
    assert {part.shape for part in hidden} == {torch.Size((3, 1, 40, 50))}


def test_medians_of_rings_are_those_of_their_pixels() -> None:
    spectrum = torch.rand(2, 64, 33, generator=torch.Generator().manual_seed(0))
    y, x = np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64)[None]
    ring = torch.from_numpy(np.rint(64 * np.hypot(y, x)))
    wanted = [spectrum[:, ring == n].median(1).values for n in range(46)]
    assert torch.equal(compute_ring_medians(spectrum), torch.stack(wanted, 1))


def test_a_spectrum_without_a_filter_gives_none_and_no_network() -> None:
    spectrum = torch.full((1, 64, 33), torch.nan)
    width = torch.ones(1)
    taps = compute_sharpening_taps(spectrum, (width, width, 0 * width))
    assert not taps.isfinite().any()
    network = InformedRestorer((8, 8, 8), sharpener=(8, 8, 8))
    with pytest.raises(RuntimeError, match="no Wiener filter"):
        network.build_restorer(torch.zeros(9), torch.ones(12), spectrum=spectrum[0])
