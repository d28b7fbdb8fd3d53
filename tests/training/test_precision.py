"""bf16 where the processor is fast at it, and never where its gradients are wrong."""

import pytest

from napari_semsr.core.errors import OptionError
from napari_semsr.models.checkpoint import build_network
from napari_semsr.training import Recipe
from napari_semsr.training.fit import should_use_bf16
from tests.refusals import refused

ODD, EVEN, PLAIN = (
    build_network(
        "two-scale", {"width": width, "fine_blocks": 1, "dilations": dilations}
    )
    for width, dilations in ((12, [1, 2]), (16, [1, 2]), (12, [1]))
)


@pytest.fixture(autouse=True)
def _fast_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_semsr.models.has_fast_bf16", lambda _device: True)


def _recipe(wanted: str) -> Recipe:
    data = {"pairs": "p.zarr"}
    return Recipe(name="a", kind="supervised", data=data, precision=wanted)


@pytest.mark.parametrize(
    ("network", "taken"), [(ODD, False), (EVEN, True), (PLAIN, True)]
)
def test_auto_leaves_bf16_where_gradients_would_be_wrong(network, taken) -> None:
    assert should_use_bf16(_recipe("auto"), network) is taken


def test_bf16_is_refused_where_it_fails_and_fp32_kept(monkeypatch):
    with refused(OptionError, "precision-unsupported", match=" 16, got 24"):
        should_use_bf16(_recipe("bf16"), ODD)
    assert should_use_bf16(_recipe("bf16"), EVEN)
    assert not should_use_bf16(_recipe("fp32"), EVEN)
    monkeypatch.setattr("napari_semsr.models.has_fast_bf16", lambda _device: False)
    assert not should_use_bf16(_recipe("auto"), EVEN)
    assert should_use_bf16(_recipe("bf16"), EVEN)
