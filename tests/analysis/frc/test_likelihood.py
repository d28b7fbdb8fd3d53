import numpy as np
import pytest

from napari_semsr.analysis.frc.blocks import correlate_blocks
from napari_semsr.analysis.frc.crossing import (
    FrcCriterion,
    create_mixing_matrix,
    fit_crossing,
)
from napari_semsr.analysis.frc.rings import plan_geometry


def test_mixing_conserves_white_power_and_a_range_is_part_of_the_whole():
    geometry = plan_geometry((48, 32), (1.0, 1.0), 0.5)
    matrix, nodes = create_mixing_matrix(geometry)
    assert matrix.shape == (geometry.rings.complete - 1, nodes.size)
    np.testing.assert_allclose(matrix[3:-2].sum(axis=1), 1, atol=2e-3)
    assert matrix.min() >= 0
    geometry = plan_geometry((400, 400), (1.0, 1.0), 0.5)
    whole, nodes = create_mixing_matrix(geometry, 1, 60)
    part, some = create_mixing_matrix(geometry, 40, 50)
    offset = int(np.searchsorted(nodes, some[0] - 1e-12))
    clear = slice(4, -12)
    np.testing.assert_allclose(
        part[:, clear], whole[39:49, offset : offset + some.size][:, clear], atol=1e-12
    )


@pytest.mark.broad
def test_mixing_predicts_leakage(draw) -> None:
    geometry = plan_geometry((32, 32), (1.0, 1.0), 0.5)
    rng = np.random.default_rng(3)
    field = draw((768, 768), 5.0, 1000.0, rng)
    blocks = field.reshape(24, 32, 24, 32).transpose(0, 2, 1, 3).reshape(-1, 32, 32)
    blocks = (blocks - blocks.mean(axis=(1, 2), keepdims=True)).astype(np.float32)
    power = geometry.project(np.abs(geometry.transform(blocks)) ** 2).mean(axis=0)
    measured = power[1:9] / geometry.rings.samples[1:9] / 1024
    matrix, nodes = create_mixing_matrix(geometry, 1, 9)
    density = 1000.0 * np.exp(-np.log(6000.0) * (nodes * 5.0) ** 2)
    np.testing.assert_allclose(matrix @ density, measured, rtol=0.15)


def falling(q, resolution, power):
    """Signal-to-noise of an object whose spectrum falls by a power of the frequency."""
    return np.maximum(q * resolution, 1e-3) ** -power / 6


@pytest.mark.parametrize("form", ["Gaussian", "1/q³"])
@pytest.mark.parametrize("reference", [False, True], ids=["pair", "reference"])
def test_fit_recovers_a_noise_free_model(form: str, *, reference: bool) -> None:
    geometry = plan_geometry((64, 64), (1.0, 1.0), 0.5)
    matrix, nodes = create_mixing_matrix(geometry)
    density = 40 * np.exp(-np.log(240) * (nodes * 4.0) ** 2)
    ratio = matrix @ (density if form == "Gaussian" else falling(nodes, 4.0, 3))
    rho = ratio / (1 + ratio)
    rho = np.sqrt(rho) if reference else rho
    curve = np.concatenate([[0.0], rho])[None, :]
    question = FrcCriterion("1/7", "exact", reference, False)
    threshold = question.compute_threshold(geometry.rings.samples[: curve.shape[1]])
    floor = np.full(threshold.shape, 1 / 7)
    fit = fit_crossing(curve, geometry, threshold, floor, reference=reference)
    assert 1 / fit.crossing[0] == pytest.approx(4.0, rel=0.01)
    assert fit.above[0]
    assert 0 < fit.spread[0] < 0.2


@pytest.mark.parametrize("contrast", [1e3, pytest.param(10.0, marks=pytest.mark.broad)])
def test_exact_estimator_meets_the_analytic_crossing(draw, contrast: float) -> None:
    rng = np.random.default_rng(5)
    field = draw((384, 384), 5.0, contrast, rng)
    blocks = field.reshape(6, 64, 6, 64).transpose(0, 2, 1, 3).reshape(-1, 64, 64)
    noisy = [blocks + rng.standard_normal(blocks.shape) for _ in range(2)]
    found = correlate_blocks(*(n.astype(np.float32) for n in noisy), estimator="exact")
    error = 1 / found.crossing / 5.0 - 1
    assert abs(error.mean()) < 0.04
    assert np.sqrt((error**2).mean()) < 0.12
    inside = np.abs(np.log(1 / found.crossing / 5.0)) < 1.96 * found.spread
    assert inside.mean() > 0.85


@pytest.mark.parametrize("images", [1, 2])
def test_an_object_whose_spectrum_has_no_end_is_read(images: int) -> None:
    q = np.hypot(np.fft.fftfreq(1024)[:, None], np.fft.rfftfreq(1024)[None, :])
    q[0, 0] = np.inf
    ratios = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        white = np.fft.rfft2(rng.standard_normal((1024, 1024)))
        field = np.fft.irfft2(white * np.sqrt(falling(q, 12, 3)))[None, :512, :512]
        noisy = [field + rng.standard_normal(field.shape) for _ in range(images)]
        stacks = [one.astype(np.float32) for one in noisy]
        found = correlate_blocks(stacks[0], stacks[1] if images == 2 else None)
        ratios.append(1 / found.crossing[0] / 12)
    assert np.isfinite(ratios).all()
    assert np.median(ratios) == pytest.approx(1, abs=0.15)


def test_interval_holds_where_a_lens_ends() -> None:
    side, resolution, contrast = 64, 4.0, 1000.0
    end = 0.951 * resolution  # of the transfer, where its square is 1/6000
    q = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512)[None, :])
    x = np.clip(q * end, 0, 1)
    transfer = 2 / np.pi * (np.arccos(x) - x * np.sqrt(1 - x**2))
    rng = np.random.default_rng(7)
    white = np.fft.rfft2(rng.standard_normal((512, 512)))
    field = np.fft.irfft2(white * np.sqrt(contrast) * transfer, s=(512, 512))
    blocks = field.reshape(8, side, 8, side).swapaxes(1, 2).reshape(-1, side, side)
    noisy = [blocks + rng.standard_normal(blocks.shape) for _ in range(2)]
    found = correlate_blocks(*(n.astype(np.float32) for n in noisy))
    error = np.abs(np.log(1 / found.crossing / resolution))
    assert (error < 1.96 * found.spread).mean() > 0.95
    assert (found.misfit < found.spread).all()
