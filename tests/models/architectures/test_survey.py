"""The survey of a whole field."""

import torch

from napari_semsr.models.architectures.two_scale import BLOCK, Haze, SurveyNet, dehaze


def test_statistics_are_of_each_block_its_own_mean_and_spectrum():
    survey = SurveyNet(4)
    rows = torch.arange(32.0)[:, None]
    # six half waves to a block, along the rows alone
    field = 0.4 + torch.cos(torch.pi / BLOCK * 6 * (rows + 0.5)).expand(32, 48)
    found = survey.compute_statistics(field[None, None])[0]
    assert torch.allclose(found[0], torch.full((2, 3), 0.4), atol=1e-6)
    rings = found[1:13].mean((1, 2))
    assert int(rings.argmax()) == 4  # from 5 to 6.5 half waves


def test_true_haze_is_taken_off() -> None:
    clear = torch.rand(1, 1, 64, 64)
    logs = 0.3 * torch.linspace(-1, 1, 4).expand(1, 1, 4, 4)
    dim = Haze(-logs, torch.full((1, 1, 1, 1), 0.4))
    again = dehaze(dehaze(clear, dim), Haze(logs, dim.airlight))
    assert (again - clear).abs().max() < 0.02
    assert (dehaze(clear, dim) - clear).abs().max() > 0.1


def _names_and_rings(survey: SurveyNet, field: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found = survey(survey.compute_statistics(field[None, None]))
    return torch.cat([found.condition[0], 100 * found.rings[0]])


def test_data_bar_changes_neither_names_nor_power() -> None:
    torch.manual_seed(0)
    survey = SurveyNet(4)
    torch.nn.init.normal_(survey.name[-1].weight, std=0.2)
    field = torch.rand(20 * BLOCK, 24 * BLOCK) * torch.linspace(0.2, 1, 24 * BLOCK)
    bar = torch.zeros(4 * BLOCK + 8, 24 * BLOCK)
    bar[10:40, 30:200:5] = 1  # text
    alone = _names_and_rings(survey, field)
    barred = _names_and_rings(survey, torch.cat([field[: 19 * BLOCK + 8], bar]))
    assert torch.allclose(barred, alone, rtol=0.02, atol=0.005)
    text = bar[:40].repeat(8, 1)
    assert not torch.allclose(_names_and_rings(survey, text), alone, atol=0.3)
