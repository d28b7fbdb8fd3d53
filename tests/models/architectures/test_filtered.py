"""Wiener filters of a known blur, mixed; a network corrects what they leave."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_semsr.core.errors import CheckpointError
from napari_semsr.models.checkpoint import build
from napari_semsr.models.probing import probe
from napari_semsr.simulation.degrade import gaussian_kernel
from tests.children import run_python

SMALL = {"width": 4, "fine_blocks": 1, "dilations": [1]}


def _blurred(sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(3)
    clear = ndimage.gaussian_filter(rng.random((64, 64)), 1.0, mode="wrap") * 4
    seen = ndimage.convolve(clear, gaussian_kernel(sigma, 7), mode="wrap")
    seen = np.rint(seen * 255) / 255
    low, high = (torch.as_tensor(a).float()[None, None] for a in (seen, clear))
    return low, high


def test_an_untrained_network_undoes_most_of_the_blur() -> None:
    low, high = _blurred(1.0)
    with torch.no_grad():
        made = build("deblurred", SMALL).eval()(low)
    inner = (..., slice(16, -16), slice(16, -16))
    before, after = (
        float((image - high)[inner].square().mean()) for image in (low, made)
    )
    assert after < before / 4


def test_a_constant_image_stays_as_it_is() -> None:
    flat = torch.full((1, 1, 32, 32), 0.4)
    torch.testing.assert_close(build("deblurred", SMALL).eval()(flat), flat)


def test_the_other_filters_are_learnt_from_the_first_step() -> None:
    network = build("deblurred", SMALL)
    low, high = _blurred(1.0)
    (network(low) - high).square().mean().backward()
    last = network.mixer[-1].weight
    assert last.grad is not None
    assert float(last.grad.abs().max()) > 0


def test_its_reach_counts_the_filter() -> None:
    network = build("deblurred", SMALL).eval()
    alone = probe(network.corrector, stride=4).halo
    assert probe(network, stride=4).halo > alone + network.taps.shape[-1] // 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma_px": 0}, "must be positive, got 0"),
        ({"balances": []}, r"must be positive, got 1 and \[\]"),
        ({"size_px": 6}, "size_px must be odd, got 6"),
    ],
)
def test_wrong_options_are_named(options, message) -> None:
    with pytest.raises(CheckpointError, match=message):
        build("deblurred", {**SMALL, **options})


def test_other_models_load_without_the_filters_library() -> None:
    code = "import sys, napari_semsr.models.checkpoint; print('skimage' in sys.modules)"
    assert run_python(code).strip() == "False"
