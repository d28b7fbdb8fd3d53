"""What a measure refuses or warns of has a code that says why."""

import numpy as np
import pytest

from napari_semsr.analysis import (
    measure_decorrelation,
    measure_frc,
    measure_metrics,
)
from napari_semsr.core import (
    Micrograph,
    SemsrError,
    capture_warnings,
    get_error_code,
    run,
)

NOISE = np.random.default_rng(0).random((64, 64), dtype=np.float32)
GAP = np.where(NOISE > 0.9, np.nan, NOISE)


def field(data=NOISE, *, nm=None, origin=(0.0, 0.0)):
    size = None if nm is None else (nm, nm)
    return Micrograph(data, pixel_size_nm=size, name="field", origin=origin)


@pytest.mark.parametrize(
    ("measure", "code"),
    [
        (lambda: run(measure_decorrelation(field(NOISE[:8, :8]))), "image-too-small"),
        (lambda: measure_frc(field(), field(NOISE[:32])), "sizes-differ"),
        (lambda: measure_frc(field(nm=5), field(nm=6)), "pixel-sizes-differ"),
        (lambda: measure_frc(field(GAP)), "pixels-missing"),
        (lambda: measure_metrics(field(), match="affine"), "second-image-missing"),
        (
            lambda: measure_metrics(field(), field(), cut_off_nm=100.0),
            "pixel-size-missing",
        ),
        (lambda: measure_metrics(field(NOISE * np.nan)), "no-finite-values"),
    ],
)
def test_a_refused_image_is_refused_by_a_code(measure, code):
    with pytest.raises(SemsrError) as refused:
        measure()
    assert get_error_code(refused.value) == code


def test_a_warning_of_images_in_two_places_has_a_code():
    warned = []
    with capture_warnings(warned.append):
        measure_frc(field(nm=5), field(NOISE.T.copy(), nm=5, origin=(500.0, 0.0)))
    assert [get_error_code(one) for one in warned] == ["origins-differ"]
