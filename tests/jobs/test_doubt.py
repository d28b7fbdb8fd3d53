"""Lengths in nm hold the truth as often as they say, with the error of the pixel size.

An image whose pixels truly have 5 nm is measured with pixel sizes that are drawn about
that from their standard deviation. Truths are known from how the images are drawn.
"""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

import napari_semsr as semsr
from napari_semsr.analysis import ProfileOptions
from napari_semsr.core import Micrograph, parse_pixel_size, run
from napari_semsr.jobs import FRC, PROFILE, FrcJobOptions
from tests.refusals import warned

NM = 5.0
FAR = 4.0  # standard errors that a share of hits may lie off


def sized(data: NDArray, size: float, sd: float | None = None) -> Micrograph:
    """Give an image a pixel size, and how sure it is."""
    image = Micrograph(data, parse_pixel_size(size))
    return image if sd is None else image.with_size_error((sd, sd))


def holds(truth: float, interval: tuple[float, float]) -> bool:
    return interval[0] <= truth <= interval[1]


def check(held: list[bool]) -> None:
    """Compare a share of hits with the 95 % that are said, by its standard error."""
    error = math.sqrt(0.95 * 0.05 / len(held))
    assert np.mean(held) == pytest.approx(0.95, abs=FAR * error)


def pair(rng: np.random.Generator, period: float, side: int) -> list[NDArray]:
    """Draw two exposures of a field that agree down to a period, which is known."""
    q = np.hypot(np.fft.fftfreq(2 * side)[:, None], np.fft.rfftfreq(2 * side)[None])
    density = 50 * np.exp(-math.log(300) * (q * period) ** 2)
    plane = np.fft.rfft2(rng.standard_normal((2 * side, 2 * side)))
    field = np.fft.irfft2(plane * np.sqrt(density), s=(2 * side, 2 * side))
    seen = field[:side, :side]
    return [seen + rng.standard_normal(seen.shape) for _ in range(2)]


@pytest.mark.broad
def test_width_of_a_line_is_held():
    rng, held, narrow = np.random.default_rng(11), [], []
    line = np.exp(-4 * math.log(2) * ((np.arange(80) - 40.3) / 9.0) ** 2)
    options = ProfileOptions(line=(6, 2, 6, 77), width=7, pixel="point")
    for _ in range(200):
        data = line + rng.normal(0, 0.1, (12, 80))
        size = NM * (1 + 0.03 * rng.normal())
        report = run(PROFILE.job(sized(data, size, 0.03 * NM), options=options))
        found = report.to_json()
        held.append(holds(9.0 * NM, found["fwhm_interval_nm"]))
        low, high = found["fwhm_interval_px"]
        narrow.append(holds(9.0 * NM, (low * size, high * size)))
    check(held)
    assert np.mean(narrow) < 0.85  # of what the reading alone leaves open


@pytest.mark.broad
def test_resolution_of_a_pair_is_held():
    rng, held = np.random.default_rng(12), []
    for _ in range(120):
        size = NM * (1 + 0.03 * rng.normal())
        images = [sized(image, size, 0.03 * NM) for image in pair(rng, 6.0, 128)]
        found = run(FRC.job(*images, options=FrcJobOptions(register=False))).result
        held.append(holds(6.0 * NM, found.interval_nm))
    check(held)


def test_a_size_that_the_reference_lends_has_its_error():
    y, x = np.mgrid[:60, :200]
    dots = sum(np.hypot(y - 30, x - at) < 12 for at in (30, 62, 95, 130)) * 100.0
    known = sized(dots, NM, 0.5)
    own = semsr.gaps(known, known)
    with warned("pixel-size-missing"):
        lent = semsr.gaps(Micrograph(dots), known)
    assert lent.size_error == own.size_error == pytest.approx(0.5 / NM)
    assert lent.mean_width_nm == own.mean_width_nm


def test_cut_off_lies_between_its_rings_and_the_pixel_size_widens_them(rng):
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None])
    plane = np.fft.rfft2(rng.standard_normal((256, 256)))
    plane[frequency > 1 / 5] = 0
    field = np.fft.irfft2(plane, s=(256, 256))
    data = field / field.std() + rng.normal(0, 0.05, field.shape)
    stated, calibrated = (
        semsr.decorrelation(sized(data, NM, sd)) for sd in (None, 0.1)
    )
    assert holds(5.0, stated.interval_px)
    low, high = stated.interval_px
    assert stated.interval_nm == pytest.approx((low * NM, high * NM))
    reach = 1.959964 * 0.02 * calibrated.resolution_nm
    assert calibrated.interval_nm[1] - calibrated.resolution_nm == pytest.approx(
        math.hypot((high - stated.resolution_px) * NM, reach)
    )
