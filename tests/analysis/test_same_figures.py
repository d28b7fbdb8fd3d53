"""What was measured of some pictures is measured again.

It is in ``same_figures.json``. A change that is meant writes that file anew:
``python -m tests.analysis.test_same_figures``.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

import napari_semsr as semsr
from napari_semsr import analysis
from napari_semsr.core import Micrograph, distort_positions, run
from tests.same_figures import assert_same, write_record

RECORD = Path(__file__).with_suffix("").with_name("same_figures.json")
SIDE = 256


@cache
def noise(seed: int) -> np.ndarray:
    draw = np.random.RandomState(seed)  # the same in each NumPy
    return draw.standard_normal((SIDE, SIDE))


def lines(pitch: float) -> np.ndarray:
    y, x = np.indices((SIDE, SIDE))
    wave = np.cos(2 * np.pi * (0.96 * x + 0.28 * y) / pitch)
    return 60 + 90 * np.clip(wave, 0.2, 1) ** 2 * (1 + 0.3 * np.sin(y / 40))


def discs() -> np.ndarray:
    image = np.full((SIDE, SIDE), 30.0)
    y, x = np.indices(image.shape)
    for k in range(25):
        row, column = 28 + 49 * (k // 5) + 3 * (k % 3), 28 + 48 * (k % 5) - 4 * (k % 2)
        cover = np.clip(15.5 + k % 4 - np.hypot(y - row, x - column), 0, 1)
        image = np.maximum(image, 30 + (80 + 4 * (k % 7)) * cover)
    return ndimage.gaussian_filter(image, 1.2) + noise(0)


def scene(seed: int = 1) -> np.ndarray:
    fine, broad = (ndimage.gaussian_filter(noise(seed), width) for width in (2, 6))
    return 100 + 40 * fine / fine.std() + 25 * broad / broad.std()


def image(data: np.ndarray, pixel_nm: float | None = 20.0) -> Micrograph:
    return Micrograph(data, pixel_nm, "picture")


def oblong(data: np.ndarray) -> Micrograph:
    return Micrograph(data, (20.0, 28.0), "oblong")


def pair() -> tuple[Micrograph, Micrograph]:
    return image(scene() + 12 * noise(2)), image(scene() + 12 * noise(3))


def damaged_pair() -> tuple[Micrograph, Micrograph]:
    first, second = (one.array().copy() for one in pair())
    first[:90, :90], second[170:, 170:] = 7, np.nan
    return image(first), image(second)


def coarser(data: np.ndarray, factor: int) -> Micrograph:
    blocks = data.reshape(SIDE // factor, factor, SIDE // factor, factor)
    return image(
        blocks.mean(axis=(1, 3)) + 2 * noise(6)[::factor, ::factor], 20.0 * factor
    )


def profile(width: int, *places: float, data: np.ndarray | None = None) -> Any:
    data = lines(23.0) + 4 * noise(4) if data is None else data
    read = analysis.read_profile(image(data), places, width_px=width)
    return analysis.measure_profile(read)


def edge() -> np.ndarray:
    y, x = np.indices((SIDE, SIDE))
    return 50 + 40 * np.tanh((0.8 * x + 0.6 * y - 180) / 3) + 2 * noise(5)


def blurred() -> np.ndarray:
    return 20 + 0.8 * ndimage.gaussian_filter(scene(), 1.7) + 3 * noise(6)


def bent() -> np.ndarray:
    """Crossed lines, distorted about a place beside the middle."""
    at = distort_positions(
        *np.indices((SIDE, SIDE), float), (SIDE, SIDE), -0.03, centre=(-25, 14)
    )
    both = lines(21.7) + np.rot90(lines(21.7))
    return ndimage.map_coordinates(both, at, order=3, mode="nearest")


def grating(data: np.ndarray) -> Any:
    options = analysis.CalibrateOptions(pitch_nm=500, pitch_sd_nm=2)
    return analysis.measure_grating(data + 5 * noise(7), options)


MEASURES = {
    "profile": lambda: profile(5, 40, 20, 200, 230),
    "profile of a line": lambda: profile(1, 100, 60.5, 103, 80),
    "profile of dark lines": lambda: profile(
        3, 100, 20, 100, 230, data=250 - lines(23.0) + 4 * noise(4)
    ),
    "profile of an edge": lambda: profile(9, 60, 60, 190, 215, data=edge()),
    "gaps": lambda: run(analysis.measure_gaps(image(discs()))),
    "gaps of a pair": lambda: run(
        analysis.measure_gaps(
            image(ndimage.gaussian_filter(discs(), 3) + 4 * noise(8)), image(discs())
        )
    ),
    "gaps of dark discs": lambda: run(
        analysis.measure_gaps(
            oblong(250 - discs()), options=analysis.GapOptions(dark=True, reach=0.6)
        )
    ),
    "gaps on texture": lambda: run(
        analysis.measure_gaps(
            image(discs() + ndimage.gaussian_filter(40 * noise(8), 3))
        )
    ),
    "grating": lambda: grating(lines(21.7)),
    "bent grating": lambda: grating(bent()),
    "square grating": lambda: grating(lines(21.7) + np.rot90(lines(21.7))),
    "frc": lambda: analysis.measure_frc(*pair()),
    "frc of one": lambda: analysis.measure_frc(pair()[0]),
    "frc of counts": lambda: analysis.measure_frc(
        image(np.rint(scene().clip(0))), options=analysis.FrcOptions(split="binomial")
    ),
    "frc of small fields": lambda: [
        analysis.measure_frc(
            *(oblong(one.array()[:90, :72]) for one in pair()),
            analysis.FrcOptions(criterion=criterion),
        )
        for criterion in ("3-sigma", "half-bit")
    ],
    "frc with a reference": lambda: analysis.measure_frc(
        pair()[0], image(scene()), analysis.FrcOptions(reference=True, cut_off_nm=110)
    ),
    "frc map of one": lambda: run(
        analysis.measure_frc_map(
            image(scene() + noise(3)), options=analysis.FrcMapOptions(block=96)
        )
    ),
    "frc of lines": lambda: [
        analysis.measure_frc(image(data + 20 * noise(2)), options=options)
        for data in (lines(6.1), np.rot90(lines(6.1)), scene() + lines(5.3))
        for options in (None, analysis.FrcOptions(criterion="half-bit"))
    ],
    "frc map": lambda: run(
        analysis.measure_frc_map(*pair(), analysis.FrcMapOptions(blocks_per_axis=3))
    ),
    "frc map with gaps": lambda: run(
        analysis.measure_frc_map(
            *damaged_pair(), analysis.FrcMapOptions(blocks_per_axis=3)
        )
    ),
    "decorrelation": lambda: run(analysis.measure_decorrelation(pair()[0])),
    "decorrelation of blocks": lambda: run(
        analysis.measure_decorrelation(
            oblong(pair()[0].array()), analysis.DecorrelationOptions(block=128)
        )
    ),
    "metrics": lambda: analysis.measure_metrics(
        image(blurred()), image(scene()), match="affine", cut_off_nm=140
    ),
    "misfit": lambda: run(analysis.measure_misfit(image(blurred()), image(scene()))),
    "spectrum": lambda: analysis.measure_spectrum(pair()[0]),
    "error": lambda: semsr.error_map(image(blurred()), image(scene())),
    "error of finer pixels": lambda: semsr.error_map(
        coarser(ndimage.gaussian_filter(scene(), 3), 4), image(scene())
    ),
    "familiarity": lambda: run(
        analysis.BlockFeatures.from_parts([scene()]).compare(scene(9), (0, 1))
    ),
}


@pytest.mark.parametrize("name", MEASURES)
def test_figures_stay_the_same(name):
    assert_same(RECORD, name, MEASURES[name]())


if __name__ == "__main__":
    write_record(RECORD, MEASURES)
