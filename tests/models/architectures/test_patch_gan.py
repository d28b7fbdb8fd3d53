"""The PatchGAN: what Sun, Gao and the textbook state of it."""

import torch

from napari_semsr.models.architectures.discriminators import PatchGAN
from tests.models.reach import count_weights


def test_textbook_form_has_the_published_number_of_weights() -> None:
    with torch.device("meta"):
        colour = PatchGAN(channels=3, first_norm=False, dropout=0)
        pair = PatchGAN(channels=6, norm="batch", first_norm=False, dropout=0)
    assert count_weights(colour) == 2_764_737
    assert count_weights(pair) == 2_768_705
