"""Parts of a training: history, losses of scores, kernels, schedules, figures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_semsr.core.errors import ReadError
from napari_semsr.training.callbacks import MetricsLogger
from napari_semsr.training.cycle_gan import Blur, create_kernel
from napari_semsr.training.learner import compute_learning_rate_factor
from napari_semsr.training.recipe import KernelOptions, Recipe
from napari_semsr.training.validation import (
    ValidationPair,
    Validator,
    compute_frc_cutoff_per_px,
)
from tests.refusals import refused


def test_blur_equals_the_convolution(rng: np.random.Generator) -> None:
    image = rng.random((20, 24)).astype(np.float32)
    kernel = rng.random((5, 3)).astype(np.float32)
    blurred = Blur(kernel)(torch.from_numpy(image)[None, None])[0, 0].numpy()
    expected = ndimage.convolve(image, kernel, mode="mirror")
    np.testing.assert_allclose(blurred, expected, rtol=1e-5)


def test_kernel_is_read_and_brought_to_one_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "psf.npy"
    with refused(ReadError, "file-missing", match=r"psf\.npy"):
        create_kernel(KernelOptions(file=str(path)))
    for shape, code in (((3, 5), None), ((4, 3), "kernel-invalid")):
        np.save(path, np.ones(shape))
        if code is None:
            kernel = create_kernel(KernelOptions(file=str(path)))
            np.testing.assert_allclose(kernel, 1 / 15, rtol=1e-6)
        else:
            with refused(ReadError, code):
                create_kernel(KernelOptions(file=str(path)))


def test_rate_falls_on_a_line_or_at_milestones() -> None:
    line = Recipe(name="a", steps=10, warmup_steps=0, decay_steps=5, schedule="linear")
    found = [compute_learning_rate_factor(s, line) for s in range(11)]
    assert found == pytest.approx([1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2, 0])
    steps = line.replace(schedule="milestones", milestones=(3, 6))
    assert [compute_learning_rate_factor(s, steps) for s in (2, 3, 6)] == [1, 0.5, 0.25]


def test_curve_keeps_its_columns(tmp_path):
    for row in ({"step": 1, "loss": 0.5}, {"step": 2, "ssim": 0.25}):
        MetricsLogger(tmp_path, []).log(row)
    path = tmp_path / "curve.csv"
    assert path.read_text().split() == ["step,loss", "1,0.5", "2,"]


@pytest.mark.parametrize("torn", ["", "6,0.", "step"])
def test_curve_has_each_step_once_after_a_kill(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "curve.csv"
    before = MetricsLogger(tmp_path, [])
    for step in (2, 4, 6):
        before.log({"step": step, "loss": 0.5})
    with path.open("a", encoding="utf-8") as stream:
        stream.write(torn)
    again = MetricsLogger(tmp_path, [])
    again.log({"step": 3, "loss": 0.25})
    again.log({"step": 1_000_001, "loss": 0.125})
    assert path.read_text().split() == ["step,loss", "2,0.5", "3,0.25", "1000001,0.125"]
    assert [item.name for item in tmp_path.iterdir()] == ["curve.csv"]


def test_judge_finds_no_gain_in_the_identity_and_all_in_the_truth(rng):
    truth = rng.integers(0, 255, (64, 64)).astype(np.uint8)
    low = np.clip(truth + rng.normal(0, 30, truth.shape), 0, 255).astype(np.uint8)
    validator = Validator([ValidationPair("blur", low, truth)], cross_frc=True)
    found = validator.evaluate(torch.nn.Identity())
    assert found["gain_db"] == found["gain_db_blur"] == pytest.approx(0, abs=1e-3)
    assert 0 < found["ssim"] < 1
    assert Validator([]).evaluate(torch.nn.Identity()) == {}
    assert compute_frc_cutoff_per_px(truth, truth) == 0.5
    noise = rng.normal(size=truth.shape)
    assert compute_frc_cutoff_per_px(noise, truth) < found["frc_per_px"] <= 0.5


def test_judge_allows_for_a_truth_that_lies_part_of_a_pixel_off(rng):
    fine = 90 * ndimage.gaussian_filter(rng.normal(size=(96, 96)), 2)
    pair = ValidationPair("pairs", fine, ndimage.shift(fine, (0.4, -0.3), order=5))
    judges = (Validator([pair], shift_px=most) for most in (0.0, 0.5))
    blind, fair = (judge.evaluate(torch.nn.Identity()) for judge in judges)
    assert fair["psnr_db"] > blind["psnr_db"] + 15
    assert fair["gain_db"] == pytest.approx(0, abs=1e-3)
