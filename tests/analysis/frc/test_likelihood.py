import numpy as np
import pytest

from napari_semsr.analysis.frc.blocks import correlate_blocks
from napari_semsr.analysis.frc.crossing import (
    FrcCriterion,
    create_mixing_matrix,
    fit_crossing,
)
from napari_semsr.analysis.frc.rings import plan_geometry


@pytest.mark.parametrize("reference", [False, True], ids=["pair", "reference"])
def test_fit_recovers_a_noise_free_model(*, reference: bool) -> None:
    geometry = plan_geometry((64, 64), (1.0, 1.0), 0.5)
    matrix, nodes = create_mixing_matrix(geometry)
    density = 40 * np.exp(-np.log(240) * (nodes * 4.0) ** 2)
    ratio = matrix @ density
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


def test_exact_estimator_meets_the_analytic_crossing(draw) -> None:
    rng = np.random.default_rng(5)
    field = draw((384, 384), 5.0, 1e3, rng)
    blocks = field.reshape(6, 64, 6, 64).transpose(0, 2, 1, 3).reshape(-1, 64, 64)
    noisy = [blocks + rng.standard_normal(blocks.shape) for _ in range(2)]
    found = correlate_blocks(*(n.astype(np.float32) for n in noisy), estimator="exact")
    error = 1 / found.crossing / 5.0 - 1
    assert abs(error.mean()) < 0.04
    assert np.sqrt((error**2).mean()) < 0.12
    inside = np.abs(np.log(1 / found.crossing / 5.0)) < 1.96 * found.spread
    assert inside.mean() > 0.85
