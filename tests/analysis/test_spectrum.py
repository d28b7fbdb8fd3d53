import dask.array as da
import numpy as np
import pytest

from napari_semsr import core
from napari_semsr.analysis import SpectrumOptions, measure_gaps, measure_spectrum
from napari_semsr.analysis.frc.correlation import measure_frc
from napari_semsr.analysis.metrics import measure_metrics
from tests.refusals import refused


@pytest.mark.parametrize(("shape", "tukey"), [((64, 64), 0.5), ((51, 90), 0.0)])
def test_white_noise_has_its_variance_at_every_frequency(shape, tukey):
    noise = 3 * np.random.default_rng(0).standard_normal(shape) + 100
    found = measure_spectrum(
        core.Micrograph(noise), SpectrumOptions(tukey=tukey)
    ).radial
    assert found.power[2:].mean() == pytest.approx(9, rel=0.1)
    assert found.frequency_per_px[-1] <= 0.5
    assert found.frequency_per_um is None


def test_a_wave_peaks_at_its_physical_frequency() -> None:
    rows = np.sin(2 * np.pi * np.arange(96) / 8)[:, None] * np.ones((1, 200))
    nm = core.parse_pixel_size((20.0, 10.0))
    found = measure_spectrum(core.Micrograph(rows, pixel_size_nm=nm)).radial
    peak = found.frequency_per_um[np.argmax(found.power)]
    assert peak == pytest.approx(1000 / 160, abs=1000 / (96 * 20))


def test_an_image_without_contrast_is_refused() -> None:
    with refused(core.ShapeError, "image-blank", match="blank"):
        measure_spectrum(core.Micrograph(np.full((4, 5), 7.0), name="blank"))


def test_missing_pixels_are_refused() -> None:
    with refused(core.ReadError, "pixels-missing", match=" 1 .* image "):
        measure_spectrum(core.Micrograph(np.array([[np.nan, 1.0], [2.0, 3.0]])))


@pytest.mark.parametrize(
    "measure", [measure_spectrum, measure_frc, measure_metrics, measure_gaps]
)
def test_what_memory_cannot_hold_is_refused_before_it_is_read(measure):
    side = 1 << 24  # of which no machine holds a square
    pixels = da.zeros((side, side), dtype=np.uint8, chunks=side >> 3)
    image = core.Micrograph(pixels, core.parse_pixel_size(5), "huge")
    with refused(core.DeviceMemoryError, "memory", match=r"16777216 x 16777216 px"):
        core.run(measure(image))
