"""The PatchGAN: what Sun, Gao and the textbook state of it."""

import torch
from torch import nn

from napari_semsr.models.architectures.discriminators import PatchGAN
from napari_semsr.models.architectures.translation import MultiScaleDiscriminator
from tests.models.reach import count_weights, patch_px


def _convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [m for m in network.modules() if isinstance(m, nn.Conv2d)]


def test_five_convolutions_of_64_to_512_maps_of_which_one_score_sees_70_px():
    assert patch_px(PatchGAN(width=4), 128) == 70
    assert patch_px(MultiScaleDiscriminator(width=4), 128) == 70
    layers = _convolutions(PatchGAN())
    assert [c.out_channels for c in layers] == [64, 128, 256, 512, 1]
    assert {c.kernel_size for c in layers} == {(4, 4)}
    for network in (PatchGAN(width=4), MultiScaleDiscriminator(width=4)):
        kinds = [type(m) for m in network.modules()]
        assert kinds.count(nn.InstanceNorm2d) == 4
        assert sum(issubclass(kind, nn.LeakyReLU) for kind in kinds) == 4
    layers = _convolutions(MultiScaleDiscriminator(width=4))
    assert [c.stride[0] for c in layers] == [2, 2, 2, 1, 1]


def test_textbook_form_has_the_published_number_of_weights() -> None:
    with torch.device("meta"):
        colour = PatchGAN(channels=3, first_norm=False, dropout=0)
        pair = PatchGAN(channels=6, norm="batch", first_norm=False, dropout=0)
    assert count_weights(colour) == 2_764_737
    assert count_weights(pair) == 2_768_705


def test_dropout_is_left_out_on_demand() -> None:
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        dropping, plain = PatchGAN(width=4, dropout=0.5), PatchGAN(width=4, dropout=0)
        assert not torch.equal(dropping(image), dropping(image))
        assert torch.equal(plain(image), plain(image))


def test_a_keen_one_sees_detail_that_a_shift_of_grey_leaves_alone() -> None:
    keen = PatchGAN(width=4, dropout=0, keen=True)
    first = _convolutions(keen)[0]
    assert first.in_channels == 2
    with torch.no_grad():
        first.weight[:, 0] = 0  # leaves the detail alone
        image = torch.rand(1, 1, 64, 64)
        torch.testing.assert_close(keen(image + 0.3), keen(image), rtol=0, atol=1e-5)
        assert not torch.allclose(keen(image), keen(0.2 * image.square()))
    assert patch_px(PatchGAN(width=4, keen=True), 128) == 72
