import numpy as np
import pytest
from numpy.typing import NDArray

from napari_semsr.analysis.frc.validity import is_periodic

ROWS, COLUMNS = np.mgrid[:128, :128]


def grating(period: float, angle: float, *, square: bool) -> NDArray[np.float64]:
    phase = (COLUMNS * np.cos(angle) + ROWS * np.sin(angle)) / period
    wave = np.sin(2 * np.pi * phase)
    return np.sign(wave) if square else wave


def exposures(field, noise=1.0):
    rng = np.random.default_rng(2)
    pair = [field + noise * rng.standard_normal(field.shape) for _ in range(2)]
    return [((v - v.mean()) / v.std())[None].astype(np.float32) for v in pair]


@pytest.mark.parametrize(
    ("period", "angle", "square"), [(5.3, 0.4, False), (12.0, 0.0, True)]
)
def test_gratings_are_periodic(period: float, angle: float, *, square: bool) -> None:
    assert is_periodic(*exposures(grating(period, angle, square=square)))[0]


def test_lattices_and_halves_of_gratings_are_periodic():
    field = grating(9, 0.2, square=False) + grating(9, 0.2 + np.pi / 2, square=False)
    assert is_periodic(*exposures(field))[0]
    (image,) = exposures(grating(14, 0.3, square=False))[:1]
    assert is_periodic(image)[0]


@pytest.mark.parametrize("contrast", [10, 1e4])
def test_ordinary_fields_are_not(draw, contrast: float) -> None:
    field = draw((128, 128), 6.0, contrast, np.random.default_rng(0))
    pair = exposures(field)
    assert not is_periodic(*pair)[0]
    assert not is_periodic(pair[0])[0]


def test_edges_and_random_lines_are_not():
    field = 20.0 * (COLUMNS + 0.3 * ROWS > 80)
    assert not is_periodic(*exposures(field))[0]
    assert not is_periodic(exposures(field)[0])[0]
    line = np.random.default_rng(4).standard_normal(128)
    assert not is_periodic(*exposures(4 * np.repeat(line[None, :], 128, axis=0)))[0]
