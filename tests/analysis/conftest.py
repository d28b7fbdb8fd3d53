"""Scenes whose analytic resolution is known."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

Pair = tuple[NDArray[np.float64], NDArray[np.float64]]


def draw_field(
    shape: tuple[int, int],
    resolution: float,
    contrast: float,
    rng: np.random.Generator,
    pitch: tuple[float, float] = (1.0, 1.0),
) -> NDArray[np.float64]:
    """Gaussian-filtered white field whose spectral density meets 1/6 at 1/resolution.

    Drawn on a torus four times as large, so that blocks cut from it are not periodic.
    """
    rows, columns = 2 * shape[0], 2 * shape[1]
    q = np.hypot(
        np.fft.fftfreq(rows, pitch[0])[:, None],
        np.fft.rfftfreq(columns, pitch[1])[None, :],
    )
    density = contrast * np.exp(-np.log(6 * contrast) * (q * resolution) ** 2)
    spectrum = np.fft.rfft2(rng.standard_normal((rows, columns))) * np.sqrt(density)
    return np.fft.irfft2(spectrum, s=(rows, columns))[: shape[0], : shape[1]]


@pytest.fixture
def draw() -> Callable[..., NDArray[np.float64]]:
    """`draw_field`, for tests that make their own noise."""
    return draw_field


@pytest.fixture
def make_pair() -> Callable[..., Pair]:
    """Two exposures of one field, white noise of variance 1 on each."""

    def make(
        shape: tuple[int, int] = (128, 128),
        resolution: float = 5.0,
        contrast: float = 50.0,
        seed: int = 0,
        pitch: tuple[float, float] = (1.0, 1.0),
    ) -> Pair:
        rng = np.random.default_rng(seed)
        field = draw_field(shape, resolution, contrast, rng, pitch)
        return (field + rng.standard_normal(shape), field + rng.standard_normal(shape))

    return make
