import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from napari_semsr.analysis.frc.correlation import measure_frc
from napari_semsr.analysis.frc.rings import equivalent, half_threshold
from napari_semsr.core.micrograph import Micrograph


def single(image, **options):  # type: ignore[no-untyped-def]
    return measure_frc(Micrograph(image, **options))


def test_threshold_and_equivalent_are_inverse() -> None:
    level = np.linspace(0.05, 0.9, 9)
    np.testing.assert_allclose(equivalent(half_threshold(level)), level)
    assert equivalent(np.array([1.0]))[0] == 1
    assert equivalent(np.array([-0.1]))[0] == -equivalent(np.array([0.1]))[0]


@pytest.mark.parametrize("resolution", [8.0, 12.0])
def test_one_image_reads_as_two_exposures_would(make_pair, resolution: float) -> None:
    image, _ = make_pair((256, 256), resolution, 50.0, seed=3)
    found = single(image)
    assert found.resolution_px == pytest.approx(resolution, rel=0.12)
    assert found.method.startswith("single-image FRC")


def test_fine_detail_is_beyond_what_halves_can_show(make_pair) -> None:
    image, _ = make_pair((256, 256), 3.0, 200.0)
    found = single(image)
    assert found.resolution_px is None
    assert found.reason == "beyond-nyquist"


@pytest.mark.parametrize("kind", ["smoothed", "enlarged"])
def test_coloured_noise_is_refused(make_pair, kind: str) -> None:
    image, _ = make_pair((256, 256), 12.0, 50.0)
    changed = (
        gaussian_filter(image, 0.7)
        if kind == "smoothed"
        else zoom(image[:128, :128], 2, order=1)
    )
    found = single(changed)
    assert found.resolution_px is None
    assert found.reason in {"correlated-noise", "beyond-nyquist"}


def test_odd_sides_are_cropped(make_pair) -> None:
    image, _ = make_pair((201, 199), 9.0, 50.0)
    assert single(image).resolution_px == pytest.approx(9.0, rel=0.15)
