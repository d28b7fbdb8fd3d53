from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_semsr.core import (
    CheckpointError,
    DeviceMemoryError,
    OptionError,
    SemsrError,
)
from napari_semsr.inference.network_input import Scaling
from napari_semsr.inference.predictor import (
    Predictor,
    measure_peak_bytes,
    resolve_precision,
)
from tests.refusals import refused


@pytest.fixture
def window(rng):
    return rng.integers(0, 255, (24, 32)).astype(np.uint8)


def test_predict_returns_the_grey_scale_of_the_input(make_loaded, window):
    predictor = Predictor(make_loaded("identity"), precision="fp32")
    result = predictor.predict([window], Scaling(10.0, 200.0))[0]
    np.testing.assert_allclose(result, window, atol=1e-4)
    unit = predictor.predict([window], Scaling(10.0, 200.0, back=False))[0]
    np.testing.assert_allclose(unit, (window - 10.0) / 190, atol=1e-6)


def test_batches_are_halved_until_they_fit(make_loaded, rng):
    predictor = Predictor(make_loaded("tiny"), precision="fp32")
    predictor.batch = 8
    windows = list(rng.random((5, 40, 40), dtype=np.float32))
    results = predictor.predict(windows, Scaling(0, 1))
    assert predictor.batch == 4
    alone = [predictor.predict([w], Scaling(0, 1))[0] for w in windows]
    np.testing.assert_allclose(np.stack(results), np.stack(alone), atol=1e-5)


def test_errors_of_torch_and_wrong_cards_become_sentences(make_loaded, rng):
    predictor = Predictor(make_loaded("tiny"), precision="fp32")
    with refused(DeviceMemoryError, "device-memory", match="90x90 px"):
        predictor.predict([rng.random((90, 90))], Scaling(0, 1))
    strided = Predictor(make_loaded("strided"), precision="fp32")
    with refused(SemsrError, "computation-failed", match=" 1 window") as caught:
        strided.predict([rng.random((7, 7))], Scaling(0, 1))
    assert not isinstance(caught.value, RuntimeError)
    loaded = make_loaded("identity")
    wrong = replace(loaded, card=loaded.card.model_copy(update={"scale": 2}))
    with refused(CheckpointError, "card-contradicts-network"):
        Predictor(wrong, precision="fp32").predict([rng.random((8, 8))], Scaling(0, 1))


def test_precisions_are_chosen_or_refused(monkeypatch):
    with refused(OptionError, "unknown-value"):
        resolve_precision("fp8", torch.device("cpu"))
    for able, expected in ((True, "bf16"), (False, "fp32")):
        found = {"avx512_bf16": able}
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda found=found: found, raising=False
        )
        assert resolve_precision("auto", torch.device("cpu")) == expected
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # as in PyTorch 2.6
    assert resolve_precision("auto", torch.device("cpu")) == "fp32"


def test_the_peak_is_what_is_alive_at_once(make_loaded):
    layers = (torch.nn.Conv2d(1, 1, 3, padding=1) for _ in range(9))
    chain, field = torch.nn.Sequential(*layers), 4 * 50 * 40
    small = measure_peak_bytes(chain, (50, 40))
    assert 2 * field <= small <= 4 * field
    assert measure_peak_bytes(chain, (500, 400)) == pytest.approx(100 * small, rel=0.01)
    predictor = Predictor(make_loaded("plain"), device="cpu")
    counted = 1.25 * measure_peak_bytes(predictor.source, (256, 304))
    assert counted <= predictor.peak_bytes((256, 304)) <= 1.05 * counted
