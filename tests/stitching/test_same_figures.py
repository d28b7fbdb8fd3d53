"""What was found of some scans is found again.

It is in ``same_figures.json``. A change that is meant writes that file anew:
``python -m tests.stitching.test_same_figures``.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.core import Box, run
from napari_semsr.stitching import (
    Corrections,
    LivePlacement,
    StitchOptions,
    StitchSolution,
    correct_mosaic,
    plan_fusion,
    plan_mosaic_halves,
    solve_mosaic,
)
from tests.same_figures import assert_same, write_record
from tests.stitching import scans

RECORD = Path(__file__).with_name("same_figures.json")


def summary(found: StitchSolution) -> list[Any]:
    flat = found.flat.flat, found.flat.dark, found.flat.valid
    places = found.positions_px, found.sigma_px, found.gains, found.offsets, found.turns
    levels = found.noise, found.threshold, found.residual_px, found.residual_median_px
    bends = found.residual_worst_px, found.distortion, found.distortion_sd
    rest = found.pedestal, found.remaining_shading_percent, found.pairs
    stage = found.estimated_pixel_size_nm, found.stage, found.stage_to_camera
    return [*places, *levels, *bends, *rest, *stage, flat]


@cache
def scan(side: int = 80, **how: Any) -> scans.Scan:
    scene = scans.texture((330, 330), seed=5)
    flat = scans.square_flat(side, 0.7, centre=(0.04, -0.03))
    return scans.cut_scan(scene, side=side, flat=flat, flicker=0.04, seed=7, **how)


@cache
def solved(known: str = "positions", **options: Any) -> StitchSolution:
    acquisition = scan(known=known, overlap=0.4, pixel_size_nm=5).acquisition
    return run(solve_mosaic(acquisition, StitchOptions(**options)))


def by_stage() -> StitchSolution:
    stage = ((0.99, 0.03), (-0.03, 1.02))
    acquisition = scan(overlap=0.35, stage=stage, jitter=1.0).acquisition
    nominal_nm = 12 * acquisition.nominal_px
    return run(
        solve_mosaic(acquisition.replace(nominal_px=None, nominal_nm=nominal_nm))
    )


def of_a_lattice() -> StitchSolution:
    scene = scans.lattice((330, 330), 10.7, 1, disorder=0.1)
    flat = scans.round_flat(96)
    cut = scans.cut_scan(scene, side=96, overlap=0.42, flat=flat, jitter=3, seed=1)
    return run(solve_mosaic(cut.acquisition))


def turned() -> StitchSolution:
    base = scan(overlap=0.4)
    frames = [
        ndimage.rotate(
            frame.astype(float), 0.4 * (k % 3 - 1), reshape=False, mode="nearest"
        )
        for k, frame in enumerate(base.acquisition.frames)
    ]
    acquisition = base.acquisition.replace(frames=np.array(frames, np.float32))
    return run(solve_mosaic(acquisition, StitchOptions(rotation=True)))


def with_holes() -> StitchSolution:
    base = scan(overlap=0.4).acquisition
    frames = base.frames.astype(np.float32)
    frames[2, 18:40, 30:52] = frames[5, :, 70:] = np.nan
    return run(solve_mosaic(base.replace(frames=frames)))


def of_lines() -> StitchSolution:
    row = scans.texture((8, 330), seed=3)[4]
    scene = np.broadcast_to(row, (330, 330)) + 0.02 * scans.texture((330, 330), seed=4)
    cut = scans.cut_scan(scene, side=80, overlap=0.4, jitter=2.0, sigma=3.0, seed=2)
    return run(solve_mosaic(cut.acquisition, StitchOptions(max_shift_px=2.5)))


def fused(blend: str) -> list[Any]:
    acquisition = scan(known="positions", overlap=0.4, pixel_size_nm=5).acquisition
    plan = plan_fusion(acquisition, solved(), StitchOptions(blend=blend))
    halves = run(plan_mosaic_halves(acquisition, solved(), plan))
    return [
        one.compute_block(Box.from_shape(plan.shape))
        for one in (plan, *(h.plan for h in halves))
    ]


def corrected() -> StitchSolution:
    entries = {
        "strike": [("f000", "f001")],
        "join": [{"first": "f004", "second": "f005", "shift_px": (1.0, 49.5)}],
        "place": {"f008": {"y_px": 97.0, "x_px": 99.0}},
    }
    return run(correct_mosaic(solved(), Corrections.parse(entries)))


def live() -> list[Any]:
    acquisition = scan(known="positions", overlap=0.4, pixel_size_nm=5).acquisition
    shape, kind = acquisition.frame_shape, acquisition.dtype
    found = LivePlacement(acquisition.read, shape, kind)
    for index, name in enumerate(acquisition.names):
        found.place_frame(found.add_frame(name, acquisition.nominal_px[index]))
        if index == 4:
            run(found.solve_all_frames())
    return [found.positions, found.is_placed]


MEASURES = {
    "positions": lambda: summary(solved()),
    "grid": lambda: summary(solved("grid", stage_model="shift", match_gain=False)),
    "images alone": lambda: summary(solved("nothing")),
    "holes": lambda: summary(with_holes()),
    "lines": lambda: summary(of_lines()),
    "distortion": lambda: summary(solved(distortion=0.02)),
    "stage": lambda: summary(by_stage()),
    "lattice": lambda: summary(of_a_lattice()),
    "turned": lambda: summary(turned()),
    "fused": lambda: [fused("feather"), fused("seam")],
    "corrected": lambda: summary(corrected()),
    "live": live,
}


@pytest.mark.parametrize("name", MEASURES)
def test_figures_stay_the_same(name):
    assert_same(RECORD, name, MEASURES[name](), within=1e-3)  # of many rounds


if __name__ == "__main__":
    write_record(RECORD, MEASURES)
