"""Where a recipe is trained, and what a card need not be waited for."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from napari_semsr import core
from napari_semsr.models import Device, devices
from napari_semsr.training import choose_training_device, fit as loop
from napari_semsr.training.batches import CachedBatches, SceneCache
from napari_semsr.training.learner import Learner
from tests.refusals import refused
from tests.stopping import stop_at
from tests.training.test_loop import RECIPE

CPU, CUDA, MPS = (torch.device(kind) for kind in ("cpu", "cuda", "mps"))


# Which device.


def test_devices_that_cannot_train_are_refused(monkeypatch):
    several = RECIPE.replace(devices=2)
    for name in ("cuda:1", "mps"):
        with refused(core.OptionError, "device-unsuitable", match=f" {name};"):
            choose_training_device(several, name)
    monkeypatch.setattr("napari_semsr.models.device_count", lambda kind: 4)
    assert choose_training_device(several) == CUDA
    assert choose_training_device(several, "cpu") == CPU
    with refused(core.OptionError, "device-missing", match=r"\(4\), got 8"):
        choose_training_device(RECIPE.replace(devices=8), "cuda")
    choose = "napari_semsr.models.devices.find_device"
    monkeypatch.setattr(choose, lambda _name: Device(CPU, "Device cuda is old."))
    heard: list[str] = []
    with core.capture_warnings(heard.append):
        assert choose_training_device(RECIPE) == CPU
    assert heard == ["Device cuda is old."]


# States of one device go on on another.


@pytest.mark.usefixtures("one_pair")
def test_a_state_of_a_card_is_resumed_on_the_cpu(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:  # tensors say that they are of a card
        patch.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")
        stop_at(loop.train(RECIPE, tmp_path, device="cpu"), "", 3)
    with pytest.raises(RuntimeError, match="CUDA device"):
        torch.load(tmp_path / "last.ckpt", weights_only=True)
    result = core.run(loop.train(RECIPE, tmp_path, resume=True, device="cpu"))
    assert result.steps == 6


# What a card is not waited for.


def test_losses_on_a_card_are_looked_at_now_and_then(monkeypatch):
    class OnCard(Tensor):
        device = CUDA

    monkeypatch.setattr(Learner, "global_step", 0)
    learner = Learner(nn.Conv2d(1, 1, 3), RECIPE, [])
    for step in range(1, 33):
        monkeypatch.setattr(Learner, "global_step", step)
        loss = torch.tensor(math.nan if step == 20 else 1.0).as_subclass(OnCard)
        if step < 32:
            learner.check_finite("loss is", loss)
    with refused(core.SemsrError, "training-diverged", match="step 32"):
        learner.check_finite("loss is", loss)


def test_scenes_lie_on_the_card_that_learns_where_they_fit(monkeypatch):
    to, card = Tensor.to, torch.device("cuda:1")

    def moved(self: Tensor, *given: Any, **more: Any) -> Tensor:
        return self if given and given[0] == card else to(self, *given, **more)

    monkeypatch.setattr(Tensor, "to", moved)
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    images = np.zeros((4, 64, 64), np.float16)
    cache = SceneCache(images, images, None, None, None, None)
    size, batches = 2 * images.nbytes, "napari_semsr.training.batches.get_free_memory"
    monkeypatch.setattr(batches, lambda _: 4 * size)
    held = CachedBatches(cache, RECIPE, 0, 0, card)
    assert held.device == card
    held.sample_batch(0)
    monkeypatch.setattr(batches, lambda _: 4 * size - 1)
    assert CachedBatches(cache, RECIPE, 0, 0, card).device == CPU
    assert CachedBatches(cache, RECIPE, 0, 0, CPU).device == CPU


# What Apple's cards lack.


def test_a_compiler_that_fails_is_told_in_a_sentence():
    kind = type("BackendCompilerFailed", (Exception,), {})
    kind.__module__ = "torch._dynamo.exc"
    made = vars(loop)["_translate_error"](kind("Cannot find a working triton.\nTrace"))
    assert isinstance(made, core.OptionError)
    assert "Cannot find a working triton." in str(made)
    full = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")
    assert isinstance(vars(loop)["_translate_error"](full), core.DeviceMemoryError)
    assert devices.is_out_of_memory_error(full)
