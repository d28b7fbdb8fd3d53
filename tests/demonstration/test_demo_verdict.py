"""What the demonstration says of a model follows from its figures."""

from dataclasses import replace

import numpy as np
import pytest

from napari_semsr.core.micrograph import Micrograph, parse_pixel_size
from napari_semsr.core.progress import run
from napari_semsr.demonstration.measure import Case, measure_case
from napari_semsr.demonstration.sections import judge_mosaic, psnr_gain
from napari_semsr.jobs.models import DEFAULT_MODEL


def image(data) -> Micrograph:
    return Micrograph(np.asarray(data, np.float32), parse_pixel_size(20))


@pytest.fixture(scope="module")
def case() -> Case:
    """A field, two noisy exposures, and restorations that are half as noisy."""
    rng = np.random.default_rng(3)
    truth = 100 + 40 * rng.standard_normal((96, 96))
    noise = 30 * rng.standard_normal((2, 96, 96))
    first, second = (image(truth + n) for n in noise)
    half = image(truth + noise[0] / 2)
    return Case(image(truth), first, second, half, half, label="Mosaic")


def test_judge_mosaic_tells_a_gain(case):
    measured = run(measure_case(case))
    left = [1600 * noise / (1600 + noise) for noise in (900, 225)]  # after the match
    assert psnr_gain(measured) == pytest.approx(
        10 * np.log10(left[0] / left[1]), abs=0.3
    )
    said = judge_mosaic(measured, DEFAULT_MODEL)
    assert not said.warning
    assert "still gains: PSNR +" in said.paragraphs[0]
    assert "no superlens mosaic" in said.paragraphs[0]


def test_judge_mosaic_warns_where_there_is_no_gain(case):
    worse = image(2 * case.first.array() - case.truth.array())
    measured = run(measure_case(replace(case, enhanced=worse)))
    said = judge_mosaic(measured, "another")
    assert said.warning
    assert "brings no gain" in said.paragraphs[0]
    assert "Do not use it" in said.paragraphs[0]
    assert "its card must say" in said.paragraphs[0]
    assert "dB ahead of it" in said.paragraphs[0]
