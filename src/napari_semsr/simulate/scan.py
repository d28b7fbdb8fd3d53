"""A scan: frames cut from a scene at positions that are known exactly.

The stage goes to nominal positions on a grid and arrives elsewhere: it may have the
wrong scale or a skew, it drifts, and each stop has an error of its own, uniform within
``jitter_px`` on each axis. Frames are numbered in the order in which they are taken.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from napari_semsr.core.errors import OptionError, ShapeError
from napari_semsr.core.micrograph import parse_pixel_size
from napari_semsr.core.progress import Job, Progress, run
from napari_semsr.simulate.camera import expose
from napari_semsr.simulate.canvas import Plane
from napari_semsr.simulate.microscope import (
    MicroscopeOptions,
    distort,
    illumination_field,
)
from napari_semsr.simulate.objects import (
    ObjectOptions,
    Surface,
    draw_object,
)
from napari_semsr.simulate.scene import (
    PHANTOM_FWHM_NM,
    Extent,
    Scene,
    fine_grid,
    scene_from_image,
    scene_from_surface,
)

__all__ = [
    "Scan",
    "ScanOptions",
    "ScanPlan",
    "clean_frame",
    "cut_scan",
    "make_scene",
    "plan_scan",
    "simulate_scan",
]

_LARGE_SCENE = 60_000_000  # pixels; each takes about 60 bytes while a scan is made

# One stream of random numbers for each purpose: changing one leaves the others.
_JITTER, _DRIFT, _LIGHT, _FIELD, _NOISE, _BAD, _FOREIGN = range(7)


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
    image_binning: int = Field(
        default=1, ge=1, le=64, description="pixels of the image per frame pixel"
    )
    pixel_size_nm: tuple[float, float] | None = Field(
        default=None,
        description="pixel of the frames in nm; follows from the magnifications for a "
        "phantom, from the file for an image",
    )
    seed: int = Field(default=0, ge=0, description="makes random work repeatable")

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

    def rng(self, purpose: int, index: int = 0) -> np.random.Generator:
        """Random numbers for one purpose.

        Parameters
        ----------
        purpose : int
            Number of the stream.
        index : int, default=0
            Number within the stream, such as a frame's.

        Returns
        -------
        numpy.random.Generator
            Independent of all others.
        """
        return np.random.default_rng([self.seed, 3, purpose, index])


@dataclass(frozen=True, slots=True)
class ScanPlan:
    """Where frames are meant to be, where they are, and how they are lit.

    Attributes
    ----------
    cells : (N, 2) numpy.ndarray of int
        Row and column of each frame in the grid, in order of acquisition.
    nominal_px, true_px : (N, 2) numpy.ndarray of float
        Top-left pixels ``(y, x)`` in frame pixels.
    gains : (N,) numpy.ndarray of float
        Light of each frame; the mean of the extremes is 1.
    bad : dict
        ``"blank"`` or ``"foreign"`` for the frames that are not what they should be.
    """

    cells: NDArray[np.int64]
    nominal_px: NDArray[np.float64]
    true_px: NDArray[np.float64]
    gains: NDArray[np.float64]
    bad: dict[int, str]


@dataclass(frozen=True, slots=True)
class Scan:
    """Frames and all that is true of them.

    Attributes
    ----------
    frames : (N, Y, X) numpy.ndarray of uint16
        Camera counts in order of acquisition.
    names : tuple of str
        Stem of each frame's file name.
    nominal_px, true_px : (N, 2) numpy.ndarray of float
        Top-left pixels ``(y, x)`` in frame pixels.
    flat : (Y, X) numpy.ndarray of float32
        Illumination of a frame, as multiplied in.
    gains : (N,) numpy.ndarray of float
        Light of each frame.
    bad : dict
        ``"blank"`` or ``"foreign"`` by number of the frame.
    pixel_size_nm : tuple of float or None
        Frame pixel ``(y, x)``.
    scene : Scene
        What the frames were cut from.
    plan : ScanPlan
        The same positions, with cells of the grid.
    options : ScanOptions
        What was asked for.
    """

    frames: NDArray[np.uint16]
    names: tuple[str, ...]
    nominal_px: NDArray[np.float64]
    true_px: NDArray[np.float64]
    flat: Plane
    gains: NDArray[np.float64]
    bad: dict[int, str]
    pixel_size_nm: tuple[float, float] | None
    scene: Scene
    plan: ScanPlan
    options: ScanOptions


def plan_scan(options: ScanOptions) -> ScanPlan:
    """Lay out a scan.

    Parameters
    ----------
    options : ScanOptions
        Grid, stage and light.

    Returns
    -------
    ScanPlan
        Frames in order of acquisition.

    Raises
    ------
    OptionError
        If more frames are to be bad than there are.
    """
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
    true += options.rng(_JITTER).uniform(-1, 1, (count, 2)) * options.jitter_px
    true += _drift(options, count)
    chosen = options.rng(_BAD).permutation(count)[: options.bad_frames]
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
    start, turn = options.rng(_DRIFT).uniform([0, -1.5], [2 * np.pi, 1.5])
    along = np.linspace(0, 1, count)[:, None]
    angle = start + turn * np.linspace(0, 1, count)
    way = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    return np.asarray(options.drift_px * along * way)


def _gains(options: ScanOptions, count: int) -> NDArray[np.float64]:
    """Light of the frames: slow, with a little unrest, of the stated span."""
    rng = options.rng(_LIGHT)
    time = np.linspace(0, 1, count)
    course = np.sin(2 * np.pi * (rng.uniform(0.4, 1.2) * time + rng.uniform()))
    course = course + 0.1 * rng.standard_normal(count)
    span = float(np.ptp(course))
    if span == 0:
        return np.ones(count)
    course = (course - course.min()) / span - 0.5
    return np.asarray(1 + options.illumination_drift * course)


def make_scene(
    source: Surface | NDArray[Any] | None, options: ScanOptions
) -> tuple[Scene, tuple[float, float] | None]:
    """Make what a scan will be cut from.

    Parameters
    ----------
    source : Surface, (Y, X) numpy.ndarray or None
        A drawn surface whose pixel is the frames' over ``oversampling``, any image, or
        None to draw ``options.phantom``.
    options : ScanOptions
        Sample, microscope, stage.

    Returns
    -------
    scene : Scene
        Blurred and fine.
    pixel_size_nm : tuple of float or None
        Frame pixel; None for an image of unknown scale.

    Raises
    ------
    ShapeError
        If the surface or image is too small for the scan.
    OptionError
        If options contradict each other.
    """
    extent = _extent(options, plan_scan(options))
    if isinstance(source, np.ndarray):
        size = options.pixel_size_nm
        pixel = None if size is None else float(np.sqrt(size[0] * size[1]))
        scene = scene_from_image(
            source, extent, options.fine, options.image_binning, options, pixel
        )
        return scene, size
    pixel = _phantom_pixel(options)
    extent = _widened(extent, 2 * (options.resolution_nm or PHANTOM_FWHM_NM) / pixel)
    shape, origin = fine_grid(extent, options.fine)
    fine = pixel / options.fine
    surface = source or draw_object(
        options.phantom, shape, pixel_nm=fine, options=options, seed=options.seed
    )
    _check_surface(surface, shape, fine)
    scene = scene_from_surface(surface, origin, options.fine, options)
    return scene, (pixel, pixel)


def _phantom_pixel(options: ScanOptions) -> float:
    """Frame pixel of a drawn sample: as stated, or as magnified."""
    if options.pixel_size_nm is None:
        return options.magnified_pixel_nm
    y, x = options.pixel_size_nm
    if y != x:
        msg = f"The pixels of a phantom's frames must be square, got {y:g} x {x:g} nm."
        raise OptionError(msg)
    return y


def _check_surface(surface: Surface, shape: tuple[int, int], fine_nm: float) -> None:
    """Refuse a surface that does not lie on the fine grid."""
    if not np.isclose(surface.pixel_nm, fine_nm, rtol=1e-6):
        msg = (
            f"The surface must have pixels of {fine_nm:g} nm, the frames' over the "
            f"oversampling, got {surface.pixel_nm:g} nm."
        )
        raise OptionError(msg)
    have = surface.height_nm.shape
    if have[0] < shape[0] or have[1] < shape[1]:
        msg = (
            f"This scan needs a surface of {shape[0]} x {shape[1]} px, got "
            f"{have[0]} x {have[1]}."
        )
        raise ShapeError(msg)


def _extent(options: ScanOptions, plan: ScanPlan) -> Extent:
    """Area that the frames may touch, whatever the jitter's draw."""
    last = options.frame_px - 1
    spare = options.jitter_px + options.drift_px + 1
    spare += abs(options.distortion) * options.frame_px
    stage = _on_stage(plan.nominal_px, options)
    low = stage.min(axis=0) - spare
    high = stage.max(axis=0) + last + spare
    return Extent((float(low[0]), float(low[1])), (float(high[0]), float(high[1])))


def _widened(extent: Extent, by: float) -> Extent:
    """Leave room for the blur at the border."""
    low, high = extent.low, extent.high
    return Extent((low[0] - by, low[1] - by), (high[0] + by, high[1] + by))


def clean_frame(
    scene: Scene, coefficients: Plane, corner: NDArray[np.float64], options: ScanOptions
) -> NDArray[np.float64]:
    """Cut one frame: reflectance without illumination and noise.

    Parameters
    ----------
    scene : Scene
        What is cut from.
    coefficients : (Y, X) numpy.ndarray
        Of that scene.
    corner : (2,) numpy.ndarray
        True position of the top-left pixel ``(y, x)``.
    options : ScanOptions
        Side and distortion of the frame.

    Returns
    -------
    (frame_px, frame_px) numpy.ndarray of float
        Reflectance.
    """
    size = options.frame_px
    y, x = np.meshgrid(*2 * [np.arange(size, dtype=float)], indexing="ij")
    if options.distortion:
        y, x = distort(y, x, size, options.distortion)
    return scene.sample(coefficients, y + corner[0], x + corner[1])


def _light_of(
    scene: Scene, coefficients: Plane, plan: ScanPlan, index: int, options: ScanOptions
) -> NDArray[np.float64]:
    """Reflectance that a frame sees: its own place, another, or none."""
    kind = plan.bad.get(index)
    if kind == "blank":
        return np.zeros((options.frame_px, options.frame_px))
    corner = plan.true_px[index]
    if kind is None:
        return clean_frame(scene, coefficients, corner, options)
    rng = options.rng(_FOREIGN, index)
    low, high = plan.true_px.min(axis=0), plan.true_px.max(axis=0)
    elsewhere = clean_frame(scene, coefficients, rng.uniform(low, high), options)
    return elsewhere[::-1].T  # mirrored: it fits nowhere


def simulate_scan(
    options: ScanOptions, source: Surface | NDArray[Any] | None = None
) -> Job[Scan]:
    """Take a scan.

    Parameters
    ----------
    options : ScanOptions
        Sample, microscope, stage, camera.
    source : Surface or (Y, X) numpy.ndarray, optional
        What is scanned; ``options.phantom`` is drawn when not given.

    Returns
    -------
    Scan
        Frames and truth.

    Yields
    ------
    Progress
        Drawing, then frame by frame.

    Raises
    ------
    ShapeError, OptionError
        If the source is too small, or options contradict each other.
    """
    count = options.frames
    yield Progress(0, count + 1, "drawing the sample")
    plan = plan_scan(options)
    scene, pixel = make_scene(source, options)
    coefficients = scene.coefficients()
    flat = illumination_field(options, options.frame_px, options.rng(_FIELD))
    frames = np.empty((count, options.frame_px, options.frame_px), np.uint16)
    for index in range(count):
        yield Progress(index + 1, count + 1, f"frame {index + 1} of {count}")
        light = _light_of(scene, coefficients, plan, index, options)
        noise = options.rng(_NOISE, index)
        frames[index] = expose(light * flat * plan.gains[index], options, noise)
    yield Progress(count + 1, count + 1, "scanned")
    return Scan(
        frames=frames,
        names=tuple(
            f"frame_{index:0{max(3, len(str(count)))}d}" for index in range(count)
        ),
        nominal_px=plan.nominal_px,
        true_px=plan.true_px,
        flat=flat,
        gains=plan.gains,
        bad=plan.bad,
        pixel_size_nm=pixel,
        scene=scene,
        plan=plan,
        options=options,
    )


def cut_scan(source: Surface | NDArray[Any] | None, options: ScanOptions) -> Scan:
    """Take a scan, all at once.

    Parameters
    ----------
    source : Surface, (Y, X) numpy.ndarray or None
        A drawn surface, any image, or None to draw ``options.phantom``.
    options : ScanOptions
        Microscope, stage, camera.

    Returns
    -------
    Scan
        Frames and truth.
    """
    return run(simulate_scan(options, source))
