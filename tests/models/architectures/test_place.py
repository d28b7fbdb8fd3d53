"""The network that is trained on one place."""

import numpy as np
import torch

from napari_semsr.core import Micrograph, run
from napari_semsr.inference import EnhanceOptions, enhance_in_memory
from napari_semsr.models import LoadedModel, ModelCard, probe_network
from napari_semsr.models.architectures.two_scale import PlaceNet
from tests.models.reach import count_weights


def drawn(**options: object) -> PlaceNet:
    """Give a network with weights that all matter."""
    torch.manual_seed(0)
    network = PlaceNet(**options)  # type: ignore[arg-type]
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1)
    return network.eval()


def test_an_untrained_network_returns_its_input() -> None:
    image = torch.rand(2, 1, 24, 40)
    assert torch.equal(PlaceNet(width=4)(image), image)


def test_it_has_0_13_million_weights() -> None:
    assert count_weights(PlaceNet()) == 131_812


def test_tiles_equal_the_whole() -> None:
    network = drawn(width=4, dilations=(1, 2))
    halo = probe_network(network, stride=2).halo
    assert halo is not None
    card = ModelCard(
        name="place",
        architecture="place",
        options={"width": 4, "dilations": [1, 2]},
        stride=2,
        receptive_field=halo,
        input_scaling="levels",
        input_levels=(0, 2),
    )
    model = LoadedModel(network, card, "sha256:" + "0" * 64)
    image = Micrograph(np.random.default_rng(0).random((101, 90), np.float32))
    whole = run(
        enhance_in_memory(image, model, EnhanceOptions(tile=128, precision="fp32"))
    ).array()
    tiled = run(
        enhance_in_memory(image, model, EnhanceOptions(tile=32, precision="fp32"))
    )
    assert tiled.metadata["enhance"]["tiles"] > 1
    np.testing.assert_allclose(tiled.array(), whole, atol=2e-6)
    given = torch.from_numpy(np.pad(image.array(), ((0, 1), (0, 0)), mode="reflect"))
    with torch.no_grad():
        plain = 2 * network(given[None, None] / 2)[0, 0, :101].numpy()
    np.testing.assert_allclose(whole, plain, atol=2e-6)
