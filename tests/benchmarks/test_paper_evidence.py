"""Tests of what stands beside the papers' tables: spread, maps, light, gaps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from paper_tables.frc_maps import blocks, draw_maps, map_rows, maps_table
from paper_tables.gap_widths import EDGES_NM, width_row
from paper_tables.lens import dip_rows, series_at, summary
from paper_tables.light import lit, michelson, ring_over_middle
from paper_tables.page_lens import fields, sizes
from paper_tables.pictures import tradeoff_points
from paper_tables.real_gold import best_gaussian, gap_row, measure_real_gold
from paper_tables.spread import standard_error, worst
from scipy import ndimage
from superlens import held_out_pairs, look

from napari_semsr.analysis.frc.map import FrcMapOptions, measure_frc_map
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import run
from napari_semsr.simulation.microscope import (
    MicroscopeOptions,
    create_illumination_field,
)
from napari_semsr.simulation.pairs import SsumPairOptions, simulate_ssum_pair

pytestmark = pytest.mark.broad

Image = NDArray[np.float64]


def scores(**psnr: float) -> dict[str, dict[str, Any]]:
    """Give the scores of one field."""
    return {
        name: {
            "psnr_db": value,
            "ssim": value / 100,
            "emd": 20 - value / 2,
            "map_answered": 90.0,
            "resolution_nm": 1000 / value,
            "map_median_nm": None if value < 11 else 900 / value,
        }
        for name, value in psnr.items()
    }


def test_standard_error_is_that_of_a_mean_and_of_one_field_there_is_none() -> None:
    assert standard_error([1.0, 2.0, 3.0, 4.0]) == pytest.approx(np.sqrt(5 / 12))
    assert standard_error([1.0, None, 3.0]) == pytest.approx(1.0)
    assert standard_error([5.0]) is None


def test_worst_lies_on_the_bad_side_and_nothing_is_worse_than_a_missing_one() -> None:
    assert worst([1.0, 3.0], "low") == 1.0
    assert worst([1.0, 3.0], "high") == 3.0
    assert worst([1.0, None], "high") is None


def test_summary_of_fields_has_errors_of_gains_and_not_of_levels() -> None:
    rows = [scores(optical=10.0, mine=13.0), scores(optical=20.0, mine=22.0)]
    found = summary(rows)["mine"]
    assert found["gain_db"] == 2.5
    assert found["se"]["gain_db"] == pytest.approx(0.5)
    assert found["se"]["psnr_db"] == pytest.approx(4.5)
    assert found["worst_gain_db"] == found["worst"]["gain_db"] == 2.0
    assert found["worst"]["resolution_nm"] == pytest.approx(1000 / 13)
    assert found["fields"] == 2
    assert summary(rows)["optical"]["worst"]["map_median_nm"] is None
    text = fields({"in focus": summary(rows)})
    assert "(2 fields)" in text
    assert "+2.50 ± 0.50 (+2.00)" in text


def test_dips_of_fields_count_gaps_together_and_errors_over_fields() -> None:
    found = dip_rows({"mine": [np.array([0.0, 1.0]), np.array([1.0])]})["mine"]
    assert found["dip"] == pytest.approx(2 / 3)
    assert found["resolved"] == pytest.approx(2 / 3)
    assert found["se"]["dip"] == pytest.approx(0.25)
    assert found["worst"] == {"dip": 0.5, "resolved": 0.5}
    assert "0.67 ± 0.25 (67 %, worst 50 %)" in sizes({"lines": {"50": {"mine": found}}})


def test_seeds_lay_the_same_lines_otherwise() -> None:
    one, again, other = (series_at(100, "lines", 192, seed) for seed in (1, 1, 2))
    assert np.array_equal(one[0].material, again[0].material)
    assert not np.array_equal(one[0].material, other[0].material)
    assert one[1].size_nm == other[1].size_nm == 100


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


def test_contrast_is_michelsons_and_an_offset_lowers_it() -> None:
    objects = np.zeros((8, 8), bool)
    objects[:4] = True
    image = np.where(objects, 3.0, 1.0)
    assert michelson(image, objects, ~objects) == pytest.approx(0.5)
    assert michelson(5 * image, ~objects, objects) == pytest.approx(0.5)
    assert michelson(image + 2, objects, ~objects) == pytest.approx(0.25)


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


def test_blocks_lie_side_by_side_and_those_without_an_answer_do_not_count() -> None:
    rng = np.random.default_rng(3)
    scene = 10 * ndimage.gaussian_filter(rng.standard_normal((172, 172)), 1.5)
    scene[:, :60] = 0  # nothing to see here but noise
    pair = [scene + rng.standard_normal(scene.shape) for _ in range(2)]
    images = [Micrograph(image, (20.0, 20.0)) for image in pair]
    for count in (10, 5):
        options = FrcMapOptions(blocks_per_axis=count, fill="nearest")
        found = run(measure_frc_map(images[0], images[1], options))
        assert found.measured_values.shape == (count, count)
        assert found.block == 172 // count
        row = blocks(found)
        missing = int(np.isnan(found.measured_values).sum())
        assert missing >= count
        assert len(row["values"]) == count**2 - missing
        assert row["missing"] == pytest.approx(100 * missing / count**2)
        assert np.isfinite(found.map.array()).all()


MAP = {"values": [40.0, 50.0, 60.0], "median_nm": 50.0, "missing": 25.0, "fine": 10.0}


def test_maps_of_fields_are_pooled_by_block(tmp_path: Path) -> None:
    other = {**MAP, "values": [100.0], "median_nm": 100.0, "missing": 75.0}
    found = map_rows([MAP, other])
    assert found["median_nm"] == 55.0
    assert found["p10_nm"] < 50 < 60 < found["p90_nm"]
    assert found["missing"] == 50.0
    assert found["worst"]["missing"] == 75.0
    empty = map_rows([{"values": [], "median_nm": None, "missing": 100.0, "fine": 0.0}])
    assert empty["median_nm"] is None
    rows = {"10": {"mine": found, "scan": empty}, "5": {"mine": found, "scan": empty}}
    text = maps_table({"rows": {"chip": {"reference": rows, "pair": rows}}})
    assert "**Chip** (2 fields)" in text
    assert "50 ± 25 (75); 10 up to Nyquist" in text
    assert "electron image, a noisy scan | \N{EN DASH} | 100 |" in text
    shown = {
        "nm": [[40.0, None], [50.0, 60.0]],
        "missing": [[False, True], [False, False]],
    }
    draw_maps(tmp_path / "maps.png", {"10": {"mine": shown}, "5": {"mine": shown}})
    assert (tmp_path / "maps.png").stat().st_size > 1000


def test_gaussian_finds_the_mean_of_known_widths() -> None:
    rng = np.random.default_rng(7)
    widths = rng.normal(31.0, 6.0, 4000)
    fit = width_row([*widths, 300.0])["gaussian"]
    assert fit is not None
    assert fit["mean_nm"] == pytest.approx(31.0, abs=4 * fit["error_nm"])
    assert 0 < fit["error_nm"] < 0.5
    assert fit["sigma_nm"] == pytest.approx(6.0, abs=0.4)
    row = width_row([10.0, 10.5, 79.0, 200.0])
    assert row["gaussian"] is None
    assert row["seen"] == 4
    assert sum(row["width_counts"]) == 3
    assert len(row["width_counts"]) == len(EDGES_NM) - 1


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


def test_best_gaussian_quietens_noise_and_leaves_a_clean_image_alone() -> None:
    clean = balls()
    noisy = clean + 40 * np.random.default_rng(1).standard_normal(clean.shape)
    made = best_gaussian(noisy, clean)
    assert np.std(made - clean) < 0.3 * np.std(noisy - clean)


def test_real_gold_is_skipped_visibly_without_images(tmp_path: Path) -> None:
    said: list[str] = []
    assert measure_real_gold({}, said.append, data=tmp_path) == {}
    assert "skipped" in said[0]


def test_tradeoff_has_each_model_once_and_none_without_a_resolution() -> None:
    row = {"gain_db": 1.0, "resolution_nm": 90.0, "se": {"gain_db": 0.2}}
    lost = {**row, "resolution_nm": None}
    results = {
        "superlens": {
            "in focus": {"optical": row, "one": row, "lost": lost, "two": row}
        },
    }
    points = tradeoff_points(results)
    assert [p["name"] for p in points] == ["optical image", "one", "two"]
    assert [p["model"] for p in points] == [False, True, True]
