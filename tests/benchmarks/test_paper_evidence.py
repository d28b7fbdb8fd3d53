"""Tests of what stands beside the papers' tables: spread, maps, light, gaps."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from paper_tables.lens import series_at
from paper_tables.light import lit, ring_over_middle
from paper_tables.real_gold import gap_row
from paper_tables.spread import worst
from scipy import ndimage
from superlens import held_out_pairs, look

from napari_semsr.simulation.microscope import (
    MicroscopeOptions,
    create_illumination_field,
)
from napari_semsr.simulation.pairs import SsumPairOptions, simulate_ssum_pair

pytestmark = pytest.mark.broad

Image = NDArray[np.float64]


def test_worst_lies_on_the_bad_side_and_nothing_is_worse_than_a_missing_one() -> None:
    assert worst([1.0, 3.0], "low") == 1.0
    assert worst([1.0, 3.0], "high") == 3.0
    assert worst([1.0, None], "high") is None


class OneField:
    """What `held_out_pairs` asks of a judge."""

    fields, scale = 1, 1


def test_a_final_judgement_draws_other_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def drawn(*_: Any, first: int, **__: Any) -> list[Any]:
        asked.append(first)
        return []

    monkeypatch.setattr("superlens.simulate_validation_pairs", drawn)
    judge: Any = OneField()
    for first_seed in (0, 10_000):
        list(held_out_pairs("circuit", judge, SsumPairOptions(), first_seed))
    assert asked[0] < 10_000 <= asked[1]
    assert asked[1] - asked[0] == 10_000


def test_ring_over_middle_reads_a_known_shade() -> None:
    y, x = np.mgrid[-1:1:201j, -1:1:201j]
    shade = 1 - 0.3 * (y**2 + x**2)
    everywhere = np.ones(shade.shape, bool)
    ring = ring_over_middle(shade, everywhere)
    # the ring's mean square radius lies between 0.85^2 and 2, the middle's is 0.4^2 / 2
    assert ring is not None
    assert 0.6 < ring < 0.8
    assert ring_over_middle(7 * shade, everywhere) == pytest.approx(ring)
    assert ring_over_middle(np.full(shade.shape, 0.4), everywhere) == pytest.approx(1)
    objects = x > 0.5
    spoilt = np.where(objects, 9.0, shade)
    assert ring_over_middle(spoilt, ~objects) == pytest.approx(ring, abs=0.01)
    assert ring_over_middle(shade, y < -0.9) is None


def test_a_frames_light_falls_on_the_optical_image_as_it_is() -> None:
    surface, _ = series_at(50, "lines", 64, 1)
    rng = np.random.default_rng(1)
    pair = simulate_ssum_pair(surface, 64, look(30), rng)
    low, high = pair.low_range
    even = lit(pair, None)
    assert even.low == pytest.approx(pair.low * (high - low) + low, abs=1e-6)
    light = create_illumination_field(MicroscopeOptions(field="square"), 64, rng)
    shaded = lit(pair, light.astype(float))
    assert shaded.low == pytest.approx(even.low * light, abs=1e-6)
    assert shaded.low_range[0] < even.low_range[0]
    assert np.array_equal(shaded.high, pair.high)


def balls(shift: float = 0.0) -> Image:
    """Draw two rows of bright balls."""
    y, x = np.mgrid[:160, :160]
    image = np.zeros((160, 160))
    for row in (50, 110):
        for column in (35, 80, 125):
            image += 200 / (1 + np.exp(np.hypot(y - row, x - column - shift) - 18))
    return image


def test_gaps_of_real_gold_are_all_seen_in_the_reference_itself() -> None:
    clean = balls()
    row = gap_row(clean, clean)
    assert row["gaps"] is not None
    assert row["gaps"] > 4
    assert row["undetected_percent"] == row["invented_percent"] == 0
    assert row["width_error_nm"] == pytest.approx(0, abs=1e-6)
    blurred = gap_row(ndimage.gaussian_filter(clean, 6.0), clean)
    assert blurred["width_error_nm"] is not None
    assert blurred["width_error_nm"] > 1
