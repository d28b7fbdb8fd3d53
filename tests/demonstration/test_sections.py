"""What the demonstration says of a model follows from its figures."""

import numpy as np
import pytest

from napari_semsr.core.micrograph import Micrograph, parse_pixel_size
from napari_semsr.core.progress import run
from napari_semsr.demonstration.runs import measure_field
from napari_semsr.demonstration.sections import judge_mosaic, psnr_gain
from napari_semsr.jobs.models import DEFAULT_MODEL


def image(data) -> Micrograph:
    return Micrograph(np.asarray(data, np.float32), parse_pixel_size(20))


@pytest.fixture(scope="module")
def case() -> dict[str, Micrograph]:
    """A field, two noisy exposures, and restorations that are half as noisy."""
    rng = np.random.default_rng(3)
    truth = 100 + 40 * rng.standard_normal((96, 96))
    noise = 30 * rng.standard_normal((2, 96, 96))
    first, second = (image(truth + n) for n in noise)
    half = image(truth + noise[0] / 2)
    images = image(truth), first, second, half, half
    names = ("truth", "first", "second", "baseline", "enhanced")
    return dict(zip(names, images, strict=True))


def test_judge_mosaic_tells_a_gain(case):
    measured = run(measure_field(**case, label="Mosaic"))
    left = [1600 * noise / (1600 + noise) for noise in (900, 225)]  # after the match
    assert psnr_gain(measured) == pytest.approx(
        10 * np.log10(left[0] / left[1]), abs=0.3
    )
    said, better = judge_mosaic(measured, DEFAULT_MODEL)
    assert better
    assert "still gains: PSNR +" in said
    assert "no superlens mosaic" in said


def test_judge_mosaic_warns_where_there_is_no_gain(case):
    worse = image(2 * case["first"].array() - case["truth"].array())
    measured = run(measure_field(**(case | {"enhanced": worse}), label="Mosaic"))
    said, better = judge_mosaic(measured, "another")
    assert not better
    assert "brings no gain" in said
    assert "Do not use it" in said
    assert "its card must say" in said
    assert "dB ahead of it" in said
