"""Maps and rings tell where they read finer than the light that made the image."""

from dataclasses import replace

import pytest
from scipy import ndimage

from napari_semsr.core import Micrograph, Provenance, capture_warnings, get_figures, run
from napari_semsr.jobs import FRC, FRC_MAP


def seen(rng, numerical_aperture: float) -> list[Micrograph]:
    """Two exposures that resolve some 24 nm, by a light that is said to."""
    made = Provenance(
        job="simulate",
        options={
            "optics": "pupil",
            "wavelength_nm": 550.0,
            "numerical_aperture": numerical_aperture,
        },
    )
    truth = 4 * ndimage.gaussian_filter(rng.normal(size=(192, 192)), 2)
    return [
        Micrograph(truth + rng.normal(0, 0.3, truth.shape), (5.0, 5.0), n, made)
        for n in "ab"
    ]


@pytest.mark.parametrize(("aperture", "tells"), [(1.9, True), (15.0, False)])
def test_a_resolution_beyond_the_light_is_told(rng, aperture, tells):
    images = seen(rng, aperture)
    for verb in (FRC, FRC_MAP):
        warnings = []
        with capture_warnings(warnings.append):
            found = run(verb.job(*images))
        assert (
            "finer than the optical cut-off of 144.7 nm" in (found.note or "")
        ) == tells
        assert warnings == ([found.note] if tells else [])
        figure = next(f for f in get_figures(found).values() if f.large)
        assert ("finer than the optical cut-off" in figure.verdict) == tells


def test_a_median_of_few_blocks_says_that_most_are_finer(rng):
    found = run(FRC_MAP.job(*seen(rng, 15.0)))
    finer = {**found.reasons, "beyond-nyquist": found.blocks // 2 + 1}
    assert "most blocks" not in found.verdict
    assert f"{finer['beyond-nyquist']} of" in replace(found, reasons=finer).verdict
