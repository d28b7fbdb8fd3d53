"""Halves of one image tell what two images like the whole would."""

import numpy as np
import pytest

from napari_semsr.analysis.frc.blocks import correlate_blocks
from napari_semsr.analysis.frc.correlation import FrcOptions, measure_frc
from napari_semsr.analysis.frc.map import FrcMapOptions, measure_frc_map
from napari_semsr.core import Micrograph, OptionError, ShapeError, run
from tests.refusals import refused


def make_halves(draw, resolution, noise=(2.0, 2.0), *, shape=(64, 64), count=64):
    """Fields with white noise, and their mean, weighted by what each half knows."""
    rng = np.random.default_rng(5)
    fields = np.stack([draw(shape, resolution, 50.0, rng) for _ in range(count)])
    first, second = (np.sqrt(v) * rng.standard_normal(fields.shape) for v in noise)
    share = noise[1] / sum(noise)
    mean = share * first + (1 - share) * second
    return fields + first, fields + second, fields + mean


@pytest.mark.parametrize(
    ("noise", "estimator"), [((2, 2), "plain"), ((9 / 8, 9), "exact")]
)
def test_halves_read_as_two_images_would(draw, noise, estimator) -> None:
    how = {"estimator": estimator, "criterion": "half-bit"}
    first, second, whole = make_halves(draw, 4.0, noise)
    # of the same blocks, two images with the noise of the whole
    rng = np.random.default_rng(5)
    field = np.stack([draw((64, 64), 4.0, 50.0, rng) for _ in range(len(whole))])
    pair = (field + rng.standard_normal(field.shape) for _ in "ab")
    own = correlate_blocks(first, second, whole=whole, **how)
    two = correlate_blocks(*pair, **how)
    wanted, found = (np.nanmedian(item.crossing) for item in (two, own))
    # rings alone stop where noise pushes them under, in halves sooner
    tolerance = 0.02 if estimator == "exact" else 0.08
    assert found == pytest.approx(wanted, rel=tolerance)
    assert np.isfinite(own.crossing).mean() > 0.95


@pytest.fixture
def images(draw) -> list[Micrograph]:
    stacks = make_halves(draw, 5.0, (9 / 8, 9), shape=(160, 224), count=1)
    return [Micrograph(stack[0]).replace(pixel_size_nm=10.0) for stack in stacks]


def test_map_is_that_of_the_whole(images) -> None:
    first, second, whole = images
    named = whole.replace(name="mosaic")
    found = run(measure_frc_map(first, second, FrcMapOptions(step=32), whole=named))
    assert found.median_nm == pytest.approx(50, rel=0.05)
    assert found.method.startswith("mosaic-halves")
    assert found.incomplete == 0
    alone = run(measure_frc_map(first, second, FrcMapOptions(step=32)))
    assert np.nanmedian(alone.measured_values) > found.median_nm


def test_blocks_that_one_half_does_not_cover_are_counted(images) -> None:
    first, second, whole = images
    data = first.data.copy()
    data[:10, :10] = np.nan
    options = FrcMapOptions(step=64)
    found = run(measure_frc_map(first.replace(data=data), second, options, whole=whole))
    assert found.incomplete == 1
    assert np.isnan(found.measured_values[0, 0])
    assert found.reason_counts == {"no-signal": 1}


def test_what_does_not_fit_or_is_identical_is_refused(images):
    first, second, whole = images
    assert measure_frc(first, first, whole=whole).reason == "identical"
    with refused(ShapeError, "sizes-differ"):
        measure_frc(first, second, whole=whole.replace(data=whole.data[:-1]))
    with refused(OptionError, "options-contradict"):
        measure_frc(first, second, FrcOptions(reference=True), whole=whole)
