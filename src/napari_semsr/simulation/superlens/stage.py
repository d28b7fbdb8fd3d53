"""The stage: where frames are meant to be, where they are, and how they are lit.

The stage goes to nominal positions on a grid and arrives elsewhere: it may have the
wrong scale or a skew, it drifts, and each stop has an error of its own, uniform within
``jitter_px`` on each axis. Frames are numbered in the order in which they are taken.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from napari_semsr.core import OptionError, parse_pixel_size
from napari_semsr.simulation.phantoms import ObjectOptions
from napari_semsr.simulation.superlens.microscope import MicroscopeOptions
from napari_semsr.simulation.superlens.scene import Extent

# Pixels; each takes about 60 bytes while a scan is made, 3.6 GB in all; chosen.
_LARGE_SCENE = 60_000_000


class Stream(IntEnum):
    """Purposes of random numbers: changing what one draws leaves the others."""

    JITTER = 0
    DRIFT = 1
    LIGHT = 2
    FIELD = 3
    NOISE = 4
    BAD = 5
    FOREIGN = 6
    REPEAT = 20
    FOCUS = 21
    SEM = 22


class ScanOptions(MicroscopeOptions, ObjectOptions):
    """The whole of a simulated scan: sample, microscope, stage."""

    frames_grid: tuple[int, int] = Field(
        default=(4, 4), description="rows x columns of frames, as in 4x4"
    )
    frame_px: int = Field(default=256, ge=16, le=8192, description="side of a frame")
    overlap: float = Field(
        default=0.35, ge=0, lt=1, description="share of a frame that its neighbour sees"
    )
    jitter_px: float = Field(
        default=6.0, ge=0, description="greatest error of the stage on each axis"
    )
    drift_px: float = Field(
        default=0.0, ge=0, description="way of the slow drift over the whole scan"
    )
    stage_scale: float = Field(
        default=1.0,
        gt=0.5,
        lt=2,
        description="true over nominal distance of the stage's steps",
    )
    stage_skew: float = Field(
        default=0.0,
        ge=-0.2,
        le=0.2,
        description="shift of a row along x for each pixel along y",
    )
    order: Literal["raster", "serpentine"] = Field(
        default="raster", description="way of the stage over the grid"
    )
    illumination_drift: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="brightest minus darkest frame's light, over the mean",
    )
    bad_frames: int = Field(
        default=0, ge=0, description="frames that are blank or show another place"
    )
    oversampling: int | None = Field(
        default=None,
        ge=1,
        le=8,
        description="fine pixels of the scene per frame pixel; 2, or 1 for scans that "
        "would need more than 60 million of them",
    )
    image_binning: float | None = Field(
        default=None,
        ge=0.25,
        le=64,
        description="pixels of the image per frame pixel, along an axis; 1, or less "
        "where the scan needs more of the image than there is",
    )
    pixel_size_nm: tuple[float, float] | None = Field(
        default=None,
        description="pixel of the frames in nm; follows from the magnifications for a "
        "phantom, from the file for an image",
    )
    seed: int = Field(default=0, ge=0, description="makes random work repeatable")
    noise_seed: int = Field(
        default=0,
        ge=0,
        description="another draw of the camera's noise; two scans that differ in it "
        "alone are two exposures of each field, as FRC needs them",
    )

    @field_validator("frames_grid", mode="before")
    @classmethod
    def _grid(cls, value: object) -> object:
        """Accept ``4x4`` as well as two numbers."""
        parts = value.lower().split("x") if isinstance(value, str) else value
        try:
            rows, columns = (int(part) for part in parts)  # type: ignore[attr-defined]
        except (TypeError, ValueError):
            msg = "must be ROWSxCOLUMNS, such as 4x4"
            raise ValueError(msg) from None
        if not (1 <= rows <= 1000 and 1 <= columns <= 1000):
            msg = "must be from 1x1 to 1000x1000"
            raise ValueError(msg)
        return rows, columns

    @field_validator("pixel_size_nm", mode="before")
    @classmethod
    def _pixel(cls, value: object) -> object:
        """Accept one number for both axes, also as text."""
        try:
            return parse_pixel_size(
                value.split(",") if isinstance(value, str) else value
            )
        except OptionError:
            msg = "must be one or two positive numbers, such as 20 or 20,21"
            raise ValueError(msg) from None

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.frames_grid[0] * self.frames_grid[1]

    @property
    def step_px(self) -> float:
        """Nominal distance of neighbouring frames."""
        return self.frame_px * (1 - self.overlap)

    @property
    def fine(self) -> int:
        """Fine pixels of the scene per frame pixel."""
        if self.oversampling is not None:
            return self.oversampling
        rows, columns = (
            self.frame_px + (count - 1) * self.step_px for count in self.frames_grid
        )
        return 2 if 4 * rows * columns <= _LARGE_SCENE else 1

    def rng(self, purpose: Stream, index: int = 0) -> np.random.Generator:
        """Random numbers for one purpose.

        Parameters
        ----------
        purpose : Stream
            What they are for.
        index : int, default=0
            Number within the stream, such as a frame's.

        Returns
        -------
        numpy.random.Generator
            Independent of all others.
        """
        key = [self.seed, 3, int(purpose), index]
        if purpose is Stream.NOISE and self.noise_seed:
            key.append(self.noise_seed)
        return np.random.default_rng(key)


@dataclass(frozen=True, slots=True)
class ScanPlan:
    """Where frames are meant to be, where they are, and how they are lit."""

    # (N, 2) Row and column of each frame in the grid, in order of acquisition
    cells: NDArray[np.int64]
    nominal_px: NDArray[np.float64]  # (N, 2) Top-left pixels ``(y, x)`` in frame pixels
    true_px: NDArray[np.float64]  # (N, 2) Where they are
    # (N,) Light of each frame; the mean of the extremes is 1
    gains: NDArray[np.float64]
    # ``"blank"`` or ``"foreign"`` for the frames that are not what they should be
    bad: dict[int, str]


def plan_scan(options: ScanOptions) -> ScanPlan:
    """Lay out a scan."""
    count = options.frames
    if options.bad_frames > count:
        msg = f"bad_frames must be at most {count}, got {options.bad_frames}."
        raise OptionError(msg)
    rows, columns = np.divmod(np.arange(count), options.frames_grid[1])
    if options.order == "serpentine":
        columns = np.where(rows % 2, options.frames_grid[1] - 1 - columns, columns)
    cells = np.stack([rows, columns], axis=1)
    nominal = cells * options.step_px
    true = _on_stage(nominal, options)
    true += options.rng(Stream.JITTER).uniform(-1, 1, (count, 2)) * options.jitter_px
    true += _drift(options, count)
    chosen = options.rng(Stream.BAD).permutation(count)[: options.bad_frames]
    kinds = ("blank", "foreign")
    bad = {int(frame): kinds[i % 2] for i, frame in enumerate(chosen)}
    return ScanPlan(cells, nominal, true, _gains(options, count), bad)


def _on_stage(
    nominal: NDArray[np.float64], options: ScanOptions
) -> NDArray[np.float64]:
    """Where a stage of wrong scale and skew goes, errors and drift left out."""
    skewed = nominal + nominal[:, :1] * np.array([0.0, options.stage_skew])
    return np.asarray(options.stage_scale * skewed)


def _drift(options: ScanOptions, count: int) -> NDArray[np.float64]:
    """Slow way of the sample: an arc of the stated length, from zero on."""
    start, turn = options.rng(Stream.DRIFT).uniform([0, -1.5], [2 * np.pi, 1.5])
    along = np.linspace(0, 1, count)[:, None]
    angle = start + turn * np.linspace(0, 1, count)
    way = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    return np.asarray(options.drift_px * along * way)


def _gains(options: ScanOptions, count: int) -> NDArray[np.float64]:
    """Light of the frames: slow, with a little unrest, of the stated span."""
    rng = options.rng(Stream.LIGHT)
    time = np.linspace(0, 1, count)
    course = np.sin(2 * np.pi * (rng.uniform(0.4, 1.2) * time + rng.uniform()))
    course = course + 0.1 * rng.standard_normal(count)
    span = float(np.ptp(course))
    if span == 0:
        return np.ones(count)
    course = (course - course.min()) / span - 0.5
    return np.asarray(1 + options.illumination_drift * course)


def scan_extent(options: ScanOptions) -> Extent:
    """Find the area that frames may touch, whatever the jitter's draw.

    Parameters
    ----------
    options : ScanOptions
        Grid, stage, distortion.

    Returns
    -------
    Extent
        In frame pixels.
    """
    last = options.frame_px - 1
    spare = options.jitter_px + options.drift_px + 1
    spare += abs(options.distortion) * options.frame_px
    stage = _on_stage(plan_scan(options).nominal_px, options)
    low = stage.min(axis=0) - spare
    high = stage.max(axis=0) + last + spare
    return Extent((float(low[0]), float(low[1])), (float(high[0]), float(high[1])))
