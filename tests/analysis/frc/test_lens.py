"""Curves under a lens are read as ones that end, where it is known at which period."""

import numpy as np
import pytest
from scipy import optimize

import napari_semsr as semsr
from napari_semsr.analysis import FrcOptions, measure_frc
from napari_semsr.core import Micrograph, OptionError, Provenance, ideal_otf
from tests.refusals import refused

END = 6.0  # px, the shortest period that the lens passes
NM = 25.0


def crossing(contrast: float) -> float:
    """Frequency over the lens's end where the signal-to-noise is 1/6."""

    def over(x: float) -> float:
        return float(contrast * ideal_otf(np.array(x)) ** 2 - 1 / 6)

    return optimize.brentq(over, 1e-6, 1 - 1e-9)


def under_lens(shape, contrast, rng, *, end=END, pitch=(1.0, 1.0)):
    """White object under an ideal lens, cut from a larger one."""
    rows, columns = 2 * shape[0], 2 * shape[1]
    q = np.hypot(
        np.fft.fftfreq(rows, pitch[0])[:, None],
        np.fft.rfftfreq(columns, pitch[1])[None, :],
    )
    amplitude = np.sqrt(contrast) * ideal_otf(q * end)
    spectrum = np.fft.rfft2(rng.standard_normal((rows, columns))) * amplitude
    return np.fft.irfft2(spectrum, s=(rows, columns))[: shape[0], : shape[1]]


def exposures(field, rng, size=(NM, NM)):
    return [Micrograph(field + rng.standard_normal(field.shape), size) for _ in "ab"]


def told(numerical_aperture: float) -> Provenance:
    lens = {"wavelength_nm": 540.0, "numerical_aperture": numerical_aperture}
    return Provenance(job="simulate", options={"optics": "pupil", **lens})


def test_one_image_halves_reference_and_oblong_pixels_are_read_so_too(rng) -> None:
    contrast, cut_off = 1000.0, END * NM
    truth = cut_off / crossing(contrast)
    field = under_lens((384, 384), contrast, rng)
    one, two = exposures(field, rng)
    mean = one.replace(data=(one.array() + two.array()) / 2)
    better = END * NM / crossing(2 * contrast)
    options = FrcOptions(cut_off_nm=cut_off)
    coarse = under_lens((512, 512), contrast, rng, end=12.0)
    alone = measure_frc(exposures(coarse, rng)[0], None, FrcOptions(cut_off_nm=12 * NM))
    shown = measure_frc(
        one, Micrograph(field, (NM, NM)), options.replace(reference=True)
    )
    pitch = np.sqrt(0.5), np.sqrt(2)
    drawn = under_lens((512, 256), contrast, rng, pitch=pitch)
    oblong = exposures(drawn, rng, size=(NM * pitch[0], NM * pitch[1]))
    for found, wanted in (
        (measure_frc(one, two, options), truth),
        (shown, truth),
        (measure_frc(one, two, options, whole=mean), better),
        (alone, 2 * truth),
        (measure_frc(*oblong, options), truth),
    ):
        assert found.resolution_nm == pytest.approx(wanted, rel=0.02)
        assert "with ideal optics of cut-off" in found.method


def test_signal_beyond_a_cut_off_is_measured_and_told(rng) -> None:
    pair = exposures(under_lens((256, 256), 1000.0, rng), rng)
    found = measure_frc(*pair, FrcOptions(cut_off_nm=1.4 * END * NM))
    blind = measure_frc(*pair)
    assert found.resolution_nm == blind.resolution_nm
    assert found.interval_nm == blind.interval_nm
    assert found.method == blind.method
    assert "finer than the optical cut-off" in found.cut_off_warning
    assert found.verdict.startswith("finer than the optical cut-off of")


@pytest.mark.filterwarnings("ignore:.*has no pixel size")
def test_cut_off_must_be_that_of_both_and_needs_a_pixel_size(rng) -> None:
    field = under_lens((128, 128), 1000.0, rng)
    one, two = exposures(field, rng)
    known = [image.replace(provenance=told(1.8)) for image in (one, two)]
    assert measure_frc(*known).cut_off_nm == 150
    assert measure_frc(known[0]).cut_off_nm == 150
    for other in (two, two.replace(provenance=told(0.9))):
        found = measure_frc(known[0], other)
        assert found.cut_off_nm is None
        assert "lens" not in found.method
    bare = [Micrograph(image.array()) for image in (one, two)]
    for verb in (semsr.frc, semsr.frc_map):
        with refused(OptionError, "pixel-size-missing", match="150 nm"):
            verb(*bare, cut_off_nm=150)


def test_transfer_is_that_of_a_round_pupil() -> None:
    found = ideal_otf(np.array([0.0, 0.5, 1.0, 2.0]))
    np.testing.assert_allclose(found, [1, 2 / 3 - np.sqrt(3) / (2 * np.pi), 0, 0])
