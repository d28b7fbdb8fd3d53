"""Simulated scan: frames cut from a scene at exactly known positions.

The stage misses the nominal positions on a grid: it may have a wrong scale or a skew,
it drifts, and each stop has an error, uniform within ``jitter_px`` on each axis. Frames
are numbered in the order of acquisition.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal, TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import field_validator
from scipy import ndimage

from napari_semsr import core
from napari_semsr.simulation import microscope
from napari_semsr.simulation.canvas import FWHM
from napari_semsr.simulation.microscope import MicroscopeOptions
from napari_semsr.simulation.sem import simulate_sem_image
from napari_semsr.simulation.specimen import (
    PhantomOptions,
    Specimen,
    declare_option,
    draw_specimen,
)

# Scene: image of the whole scanned area by an ideal camera, finer than the frames.
#
# The scene is imaged first and then sampled. It is the cubic spline through its fine
# pixels: a continuous function, of which frames are exact samples at their true
# positions. Once imaged, it has no detail beyond the sampling of a frame. Aberrations
# depend on the position in the field: with them the part of each frame is imaged
# separately, and the whole scene as at the centre of a field.
#
# Coordinates are frame pixels: pixel centres are integers, and (0, 0) is the nominal
# top-left pixel of the first frame.

_BAND = 256  # rows resampled at once; chosen: limits the memory


_Real = TypeVar("_Real", np.float32, np.float64)


@dataclass(frozen=True, slots=True)
class ScanExtent:
    """Area required by a scan, in frame pixels."""

    low: core.FloatPair  # First ``(y, x)`` of a pixel centre of any frame
    high: core.FloatPair  # Last one

    def get_fine_grid(self, oversampling: int) -> tuple[core.IntPair, core.FloatPair]:
        """Return the shape of a fine grid over the area, and its first pixel centre."""
        first = [int(np.floor(v)) for v in self.low]
        last = [int(np.ceil(v)) for v in self.high]
        pairs = zip(first, last, strict=True)
        rows, columns = ((end - start + 1) * oversampling for start, end in pairs)
        half = 0.5 - 0.5 / oversampling
        return (rows, columns), (first[0] - half, first[1] - half)

    def get_image_size(self, oversampling: int, binning: float) -> core.IntPair:
        """Return the size of the image area that a scan needs."""
        (rows, columns), _ = self.get_fine_grid(oversampling)
        share = binning / oversampling
        return int(np.ceil(rows * share)), int(np.ceil(columns * share))


@dataclass(frozen=True, slots=True)
class Scene:
    """A scene on a grid finer than the frames."""

    sharp: core.Float32Array  # (Y, X) Reflectance before any optics
    image: core.Float32Array  # (Y, X) Its image on the camera's pixels
    # Simulated sample on the same grid; None for a scene from an image
    surface: Specimen | None
    oversampling: int  # Fine pixels per frame pixel, along an axis
    # Frame coordinate ``(y, x)`` of the centre of fine pixel (0, 0)
    origin_px: core.FloatPair
    fine_nm: float  # Fine pixel in nm, or a substitute if unknown
    fwhm_px: float  # Width of a point in focus, in frame pixels
    options: MicroscopeOptions  # Optics of the image
    # Pixel of the source image on which frame coordinate (0, 0) lies
    image_offset_px: core.FloatPair | None = None

    @classmethod
    def from_surface(
        cls,
        surface: Specimen,
        origin_px: core.FloatPair,
        oversampling: int,
        options: MicroscopeOptions,
    ) -> "Scene":
        """Image a simulated surface; `origin_px`: centre of its first pixel."""
        fine_nm, wavelength = surface.pixel_nm, options.wavelength_nm
        planes = surface.height_nm, surface.material, fine_nm
        sharp = microscope.compute_reflectance(*planes, wavelength_nm=wavelength)
        sizes = fine_nm, options.fwhm_nm / (fine_nm * oversampling)
        scene = cls(sharp, sharp, surface, oversampling, origin_px, *sizes, options)
        return scene.with_optics(options)

    @classmethod
    def from_image(
        cls,
        image: core.RealArray,
        extent: ScanExtent,
        oversampling: int,
        binning: float,
        options: MicroscopeOptions,
        frame_nm: core.FloatPair | None,
    ) -> "Scene":
        """Create a flat scene from an image's centre; grey values are reflectance."""
        if not np.all(np.isfinite(image)):
            msg = "The image contains NaN or Inf pixels; fill them before scanning it."
            raise core.OptionError(msg, code="pixels-missing")
        if options.resolution_nm is not None and frame_nm is None:
            msg = "A resolution in nm needs a pixel size: set `pixel_size_nm`."
            raise core.OptionError(msg, code="pixel-size-missing")
        has_blur = options.optics == "pupil" or options.resolution_nm is not None
        if frame_nm is None or not has_blur:
            # chosen: an optical image is usually sampled with three pixels per point
            frame_nm = 2 * (options.fwhm_nm / 3.0,)
        elif max(frame_nm) > (1 + 0.01) * min(frame_nm):
            # chosen: up to 1 %, cut-offs are correct to half a percent
            y, x = frame_nm
            msg = (
                f"Optics in nm need square pixels, got {y:g} x {x:g} nm: resample the "
                "image, or set only `optics=gaussian`, whose width is in pixels."
            )
            raise core.OptionError(msg, code="pixels-not-square")
        pixel_nm = float(np.sqrt(frame_nm[0] * frame_nm[1]))
        shape, origin = extent.get_fine_grid(oversampling)
        rows, columns = extent.get_image_size(oversampling, binning)
        if rows > image.shape[0] or columns > image.shape[1]:
            msg = (
                f"This scan needs an image of {rows} x {columns} px, got "
                f"{image.shape[0]} x {image.shape[1]}: use fewer or smaller frames."
            )
            raise core.ShapeError(msg, code="image-too-small")
        top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
        part = core.Box.from_shape((rows, columns), (top, left))
        grey = np.asarray(image[part.slices], dtype=np.float32)
        low, high = np.percentile(grey, (0.1, 99.9))  # without a few extreme pixels
        if high <= low:
            grey = np.full(grey.shape, 0.5, np.float32)
        else:
            dark, bright = 0.08, 0.92  # reflectance; chosen: of common materials
            grey = np.clip((grey - low) / (high - low), 0, 1)
            grey = np.asarray(dark + (bright - dark) * grey, dtype=np.float32)
        sharp = _resample(grey, shape, oversampling / binning)
        del grey
        per_fine = binning / oversampling
        pairs = zip((top, left), origin, strict=True)
        y, x = (s - 0.5 + per_fine * (0.5 - o * oversampling) for s, o in pairs)
        sizes = pixel_nm / oversampling, options.fwhm_nm / pixel_nm
        offset = float(y), float(x)
        scene = cls(sharp, sharp, None, oversampling, origin, *sizes, options, offset)
        return scene.with_optics(options)

    def with_optics(
        self, options: MicroscopeOptions, place: microscope.Place | None = None
    ) -> "Scene":
        """Image the same sample with other optics, or at a position in the field."""
        height = None if self.surface is None else self.surface.height_nm
        sample, box_px = (self.sharp, height, self.fine_nm), self.oversampling
        image = microscope.simulate_image(*sample, options, place=place, box_px=box_px)
        return replace(self, image=image, options=options)

    def crop_to_frame(self, corner: core.FloatArray, side: int) -> "Scene":
        """Image the area of one frame, with the aberrations of the whole field."""
        fine, options = self.oversampling, self.options
        spare = 2 * self.fwhm_px + 2 + abs(options.distortion) * side
        lines, parts = [], []
        sides = zip(corner, self.origin_px, self.sharp.shape, strict=True)
        for at, first, count in sides:
            low = max(0, int((at - spare - first) * fine))
            high = min(count, int((at + side + spare - first) * fine) + 1)
            frame = first + np.arange(low, high) / fine - at - (side - 1) / 2
            lines.append(frame / (side / 2 * options.field_radius))
            parts.append(slice(low, high))
        surface = self.surface
        if surface is not None:
            planes = (surface.height_nm, surface.material)
            height, material = (plane[tuple(parts)] for plane in planes)
            surface = replace(surface, height_nm=height, material=material)
        starts = zip(self.origin_px, parts, strict=True)
        y, x = (float(first + part.start / fine) for first, part in starts)
        sharp = self.sharp[tuple(parts)]
        part = replace(self, sharp=sharp, surface=surface, origin_px=(y, x))
        return part.with_optics(options, (lines[0][:, None], lines[1][None]))

    def compute_spline_coefficients(self) -> core.Float32Array:
        """Compute the spline coefficients (Y, X) of `image`, for `sample`."""
        spline = ndimage.spline_filter(self.image, order=3, output=np.float32)
        return np.asarray(spline)

    def sample(
        self, coefficients: core.Float32Array, y: core.FloatArray, x: core.FloatArray
    ) -> core.FloatArray:
        """Evaluate the scene at arbitrary coordinates; `coefficients` (Y, X)."""
        pairs = zip((y, x), self.origin_px, strict=True)
        where = np.stack([(at - first) * self.oversampling for at, first in pairs])
        return _evaluate_spline(coefficients, where, np.float64)


def _evaluate_spline(
    coefficients: core.Float32Array, where: core.FloatArray, kind: type[_Real]
) -> NDArray[_Real]:
    """Evaluate a cubic spline at positions (2, ...)."""
    values: NDArray[_Real] = ndimage.map_coordinates(
        coefficients, where, output=kind, order=3, mode="mirror", prefilter=False
    )
    return values


def _resample(
    image: core.Float32Array, shape: core.IntPair, factor: float
) -> core.Float32Array:
    """Resample an image to the fine grid; pixel areas are aligned."""
    if factor == 1:
        return image[: shape[0], : shape[1]]
    if factor < 1:
        image = ndimage.gaussian_filter(image, 0.4 / factor, mode="reflect")
    smooth = ndimage.spline_filter(image, order=3, output=np.float32)
    y, x = ((np.arange(n) + 0.5) / factor - 0.5 for n in shape)
    values = np.empty(shape, np.float32)
    for top in range(0, shape[0], _BAND):
        rows = slice(top, top + _BAND)
        grid = np.stack(np.meshgrid(y[rows], x, indexing="ij"))
        values[rows] = _evaluate_spline(smooth, grid, np.float32)
    return values


class RandomStream(IntEnum):
    """Purposes of random numbers, each with an independent stream."""

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
    VIEW = 23
    HEIGHT = 24
    LEAN = 25


class ScanOptions(MicroscopeOptions, PhantomOptions):
    """Options for a simulated scan: sample, microscope, stage."""

    frames_grid: core.IntPair = declare_option((4, 4), "rows x columns of frames")
    frame_px: int = declare_option(256, "side of a frame in pixels", ge=16, le=8192)
    overlap: float = declare_option(
        0.35, "share of a frame that its neighbour also covers", ge=0, lt=1
    )
    jitter_px: float = declare_option(6.0, "largest stage error per axis, in px", ge=0)
    drift_px: float = declare_option(0.0, "drift during the scan, in pixels", ge=0)
    stage_scale: float = declare_option(1.0, "true over nominal step", gt=0.5, lt=2)
    stage_skew: float = declare_option(
        0.0, "shift along x per px of y", ge=-0.2, le=0.2
    )
    order: Literal["raster", "row", "serpentine", "column", "column-serpentine"] = (
        declare_option("raster", "order of the frames; raster is row by row")
    )
    first: core.FirstFrame = declare_option("top-left", "corner of the first frame")

    @property
    def frame_order(self) -> core.FrameOrder:
        """Name of the frame order in an acquisition."""
        return "row" if self.order == "raster" else self.order

    illumination_drift: float = declare_option(
        0.0, "brightest minus darkest frame, over the mean", ge=0, lt=1
    )
    bad_frames: int = declare_option(0, "frames blank or of another area", ge=0)
    focus_drift_nm: float = declare_option(0.0, "rise of the focal plane over the scan")
    contact_lost_from: int | None = declare_option(
        None,
        "first frame after the microsphere lost contact: points are three times as "
        "wide, and the contrast is halved",
        ge=0,
    )
    light_fall: float = declare_option(
        0.0, "share of the light lost gradually until the last frame", ge=0, lt=1
    )
    oversampling: int | None = declare_option(
        None,
        "fine pixels of the scene per frame pixel; 2, or 1 if the scan needed more "
        "than 60 million",
        ge=1,
        le=8,
    )
    image_binning: float | None = declare_option(
        None,
        "pixels of the image per frame pixel, along an axis; 1, or less if the image "
        "is too small for the scan",
        ge=0.25,
        le=64,
    )
    pixel_size_nm: core.FloatPair | None = declare_option(
        None,
        "pixel of the frames in nm; from the magnifications for a phantom, from the "
        "file for an image",
    )
    seed: int = declare_option(0, "seed of all random numbers", ge=0)
    noise_seed: int = declare_option(
        0,
        "seed of the camera noise; two scans that differ only in this number are two "
        "exposures of each field, as needed for FRC",
        ge=0,
    )

    @field_validator("frames_grid", mode="before")
    @classmethod
    def _parse_grid(cls, value: object) -> object:
        """Parse a grid given as ``4x4`` or as two numbers."""
        parts = value.lower().split("x") if isinstance(value, str) else value
        try:
            rows, columns = (int(part) for part in parts)  # type: ignore[attr-defined]
        except (TypeError, ValueError):
            msg = "must be ROWSxCOLUMNS, such as 4x4"
            raise ValueError(core.Message(msg, "wrong-type")) from None
        if not (1 <= rows <= 1000 and 1 <= columns <= 1000):
            msg = "must be from 1x1 to 1000x1000"
            raise ValueError(core.Message(msg, "out-of-range"))
        return rows, columns

    @field_validator("pixel_size_nm", mode="before")
    @classmethod
    def _parse_pixel_size(cls, value: object) -> object:
        """Parse a pixel size given as text, or as one number for both axes."""
        try:
            parts = value.split(",") if isinstance(value, str) else value
            return core.parse_pixel_size(parts)
        except core.OptionError:
            msg = "must be one or two positive numbers, such as 20 or 20,21"
            raise ValueError(core.Message(msg, "pixel-size-invalid")) from None

    @property
    def frame_count(self) -> int:
        """Number of frames."""
        return self.frames_grid[0] * self.frames_grid[1]

    @property
    def tilt_shift_px(self) -> float:
        """Largest lateral shift of a whole scan on each axis."""
        return 0.0

    @property
    def step_px(self) -> float:
        """Nominal distance between neighbouring frames."""
        return self.frame_px * (1 - self.overlap)

    @property
    def fine_factor(self) -> int:
        """Fine pixels of the scene per frame pixel."""
        if self.oversampling is not None:
            return self.oversampling
        sides = self.frames_grid
        rows, columns = (self.frame_px + (n - 1) * self.step_px for n in sides)
        # chosen: a pixel needs about 60 bytes during a simulation, 3.6 GB in all
        return 2 if 4 * rows * columns <= 60_000_000 else 1

    def compute_extent(self) -> ScanExtent:
        """Compute the largest area, in frame pixels, that jittered frames may cover."""
        last = self.frame_px - 1
        spare = self.jitter_px + self.drift_px + self.tilt_shift_px + 1
        spare += abs(self.distortion) * self.frame_px
        stage = _apply_stage_geometry(plan_scan(self).nominal_px, self)
        top, left = (stage.min(axis=0) - spare).tolist()
        bottom, right = (stage.max(axis=0) + last + spare).tolist()
        return ScanExtent((top, left), (bottom, right))

    def fit_binning(self, shape: tuple[int, ...]) -> float:
        """Choose the number of image pixels per frame pixel for a given image shape.

        ``image_binning`` if set, otherwise 1 if the image is large enough, or the
        largest value that fits the scan into the image, at least 0.25.
        """
        if self.image_binning is not None:
            return self.image_binning
        size = self.compute_extent().get_image_size(self.fine_factor, 1.0)
        fit = min(have / need for have, need in zip(shape, size, strict=True))
        return 1.0 if fit >= 1 else max(0.25, float(np.floor(fit * 1000) / 1000))

    def create_rng(self, purpose: RandomStream, index: int = 0) -> Generator:
        """Return the random generator for a given purpose and frame or other index."""
        key = [self.seed, 3, int(purpose), index]
        if self.noise_seed and purpose.name in ("NOISE", "REPEAT", "FOCUS", "HEIGHT"):
            key.append(self.noise_seed)
        return np.random.default_rng(key)


@dataclass(frozen=True, slots=True)
class ScanPlan:
    """Nominal positions, true positions and illumination of the frames."""

    nominal_px: core.FloatArray  # (N, 2) Top-left pixels ``(y, x)`` in frame pixels
    true_px: core.FloatArray  # (N, 2) True positions
    # (N,) Light of each frame; the mean of the smallest and largest is 1
    gains: core.FloatArray
    # ``"blank"`` or ``"foreign"`` for the bad frames
    bad: dict[int, str]


def plan_scan(options: ScanOptions) -> ScanPlan:
    """Plan the positions and illumination of the frames of a scan."""
    count = options.frame_count
    if options.bad_frames > count:
        msg = f"bad_frames must be at most {count}, got {options.bad_frames}."
        raise core.OptionError(msg, code="out-of-range")
    grid, first = options.frames_grid, options.first
    cells = core.compute_grid_cells(count, grid, options.frame_order, first)
    nominal = np.asarray(cells * options.step_px, dtype=float)
    true = _apply_stage_geometry(nominal, options)
    errors = options.create_rng(RandomStream.JITTER).uniform(-1, 1, (count, 2))
    true += errors * options.jitter_px
    # slow drift of the sample: an arc whose ends are the given distance apart
    rng = options.create_rng(RandomStream.DRIFT)
    start, turn = rng.uniform([0, -1.5], [2 * np.pi, 1.5])
    along = np.linspace(0, 1, count)
    angle = start + turn * along
    way = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    true += options.drift_px * along[:, None] * way
    order = options.create_rng(RandomStream.BAD).permutation(count)
    kinds, chosen = ("blank", "foreign"), enumerate(order[: options.bad_frames])
    bad = {int(frame): kinds[i % 2] for i, frame in chosen}
    # light level of each frame: slow drift with slight noise
    rng = options.create_rng(RandomStream.LIGHT)
    course = np.sin(2 * np.pi * (rng.uniform(0.4, 1.2) * along + rng.uniform()))
    course = course + 0.1 * rng.standard_normal(count)
    span = float(np.ptp(course))
    gains = np.asarray(1 - options.light_fall * along)
    if span != 0:
        course = (course - course.min()) / span - 0.5
        gains = (1 + options.illumination_drift * course) * gains
    return ScanPlan(nominal, true, gains, bad)


def _apply_stage_geometry(
    nominal: core.FloatArray, options: ScanOptions
) -> core.FloatArray:
    """Apply the scale and skew of a stage to nominal positions."""
    skewed = nominal + nominal[:, :1] * np.array([0.0, options.stage_skew])
    return np.asarray(options.stage_scale * skewed)


@dataclass(frozen=True, slots=True)
class FocalStep:
    """One image of a focal series."""

    focus_nm: float  # Height of the focal plane above the lowest surface
    frame: NDArray[np.uint16]  # (Y, X) Camera counts


@dataclass(frozen=True, slots=True)
class HeightScan:
    """All frames of a scan with the focal plane at one height."""

    focus_nm: float  # Height of the focal plane above the lowest surface
    frames: NDArray[np.uint16]  # (N, Y, X) Camera counts
    shift_px: core.FloatPair  # ``(y, x)`` offset of the frames from those of the scan


@dataclass(frozen=True, slots=True)
class Scan(ScanPlan):
    """Simulated frames and their ground truth."""

    frames: NDArray[np.uint16]  # (N, Y, X) Camera counts in order of acquisition
    names: tuple[str, ...]  # Stem of each frame's file name
    flat: core.Float32Array  # (Y, X) Illumination of a frame, a factor
    pixel_size_nm: core.FloatPair | None  # Frame pixel ``(y, x)``
    scene: Scene  # Scene that the frames were cut from
    options: ScanOptions  # Options of the scan

    @property
    def central_index(self) -> int:
        """Index of the frame nearest to the centre of the scan."""
        low, high = self.nominal_px.min(axis=0), self.nominal_px.max(axis=0)
        off = self.nominal_px - (low + high) / 2
        return int(np.argmin(np.hypot(off[:, 0], off[:, 1])))

    def simulate_exposures(self, count: int) -> NDArray[np.uint16]:
        """Simulate repeated exposures (count, Y, X) of the central field."""
        light, options = self._simulate_central_light(self.scene), self.options
        streams = [(RandomStream.REPEAT, index) for index in range(count)]
        noise = [options.create_rng(*stream) for stream in streams]
        return np.stack(
            [microscope.simulate_camera_counts(light, options, rng) for rng in noise]
        )

    def simulate_focal_series(self, count: int) -> tuple[FocalStep, ...]:
        """Simulate the central field with the focal plane at several ascending heights.

        Heights are evenly spaced: over the relief of a simulated sample, or one depth
        of focus above and below an image.
        """
        steps = []
        for index, height in enumerate(self._choose_heights(count)):
            light = self._simulate_central_light(self._create_refocused_scene(height))
            noise = self.options.create_rng(RandomStream.FOCUS, index)
            frame = microscope.simulate_camera_counts(light, self.options, noise)
            steps.append(FocalStep(height, frame))
        return tuple(steps)

    def simulate_height_scans(self, count: int) -> Iterator[HeightScan]:
        """Simulate all fields with the focal plane at each height of the focal series.

        Stage positions and illumination are the same. A tilt in the microscope shifts
        each height laterally.
        """
        options, total = self.options, len(self.frames)
        for level, height in enumerate(self._choose_heights(count)):
            rng = options.create_rng(RandomStream.LEAN, level)
            lean = rng.uniform(-1, 1, 2) * options.tilt_shift_px
            scene = self._create_refocused_scene(height)
            coefficients = scene.compute_spline_coefficients()
            plan = replace(self, true_px=self.true_px + lean)
            frames = np.empty_like(self.frames)
            for index in range(total):
                light = _simulate_frame_light(scene, coefficients, plan, index, options)
                noise = options.create_rng(RandomStream.HEIGHT, level * total + index)
                light = light * self.flat * self.gains[index]
                frames[index] = microscope.simulate_camera_counts(light, options, noise)
            yield HeightScan(height, frames, (float(lean[0]), float(lean[1])))

    def _choose_heights(self, count: int) -> list[float]:
        if count < 2:
            msg = f"A focal series needs at least 2 steps, got {count}."
            raise core.OptionError(msg, code="out-of-range")
        depth = microscope.compute_focus_depth_nm(self.options)
        low, high = -depth, depth
        if self.scene.surface is not None:
            relief = self.scene.surface.height_nm
            low, high = float(relief.min()), float(relief.max())
        heights: list[float] = np.linspace(low, high, count).tolist()
        return heights

    def simulate_sem_image(self) -> NDArray[np.uint8]:
        """Simulate an SEM image of the whole scanned area, on the grid of the scene."""
        if self.scene.surface is None:
            msg = "An SEM image needs a simulated sample (`phantom`), got an image."
            raise core.OptionError(msg, code="heights-missing")
        rng = self.options.create_rng(RandomStream.SEM)
        return simulate_sem_image(self.scene.surface, rng=rng)

    def _create_refocused_scene(self, height_nm: float) -> Scene:
        return self.scene.with_optics(self.options.replace(focus_nm=height_nm))

    def _simulate_central_light(self, scene: Scene) -> core.FloatArray:
        """Compute the light of the illuminated central field at its true position."""
        index, spline = self.central_index, scene.compute_spline_coefficients()
        clean = simulate_clean_frame(scene, spline, self.true_px[index], self.options)
        return np.asarray(clean * self.flat * self.gains[index])


def _create_scene(
    source: Specimen | core.RealArray | None, options: ScanOptions
) -> tuple[Scene, core.FloatPair | None]:
    """Create the scene of a scan; also return the pixel size of frames, or None."""
    extent = options.compute_extent()
    if isinstance(source, np.ndarray):
        size, binning = options.pixel_size_nm, options.fit_binning(source.shape)
        how = options.fine_factor, binning, options, size
        return Scene.from_image(source, extent, *how), size
    pixel, other = options.pixel_size_nm or 2 * (options.magnified_pixel_nm,)
    if pixel != other:
        size_text = f"{pixel:g} x {other:g} nm"
        msg = f"Frames of a phantom must have square pixels, got {size_text}."
        raise core.OptionError(msg, code="pixels-not-square")
    blur = 2 * options.fwhm_nm / pixel  # aberrated frames need a margin
    (top, left), (bottom, right) = extent.low, extent.high
    extent = ScanExtent((top - blur, left - blur), (bottom + blur, right + blur))
    shape, origin = extent.get_fine_grid(options.fine_factor)
    fine = pixel / options.fine_factor
    surface = source or draw_specimen(
        options.phantom, shape, pixel_nm=fine, options=options, seed=options.seed
    )
    have = surface.height_nm.shape
    on_grid = np.isclose(surface.pixel_nm, fine, rtol=1e-6)
    if not on_grid or have[0] < shape[0] or have[1] < shape[1]:
        msg = (
            f"This scan needs a sample of {shape[0]} x {shape[1]} px of {fine:g} nm, "
            f"got {have[0]} x {have[1]} px of {surface.pixel_nm:g} nm."
        )
        raise core.ShapeError(msg, code="image-too-small")
    scene = Scene.from_surface(surface, origin, options.fine_factor, options)
    return scene, (pixel, pixel)


def simulate_clean_frame(
    scene: Scene,
    coefficients: core.Float32Array,
    corner: core.FloatArray,
    options: ScanOptions,
) -> core.FloatArray:
    """Simulate one frame at its true position, without illumination and noise."""
    size = options.frame_px
    if scene.options.is_aberrated:
        scene = scene.crop_to_frame(corner, size)
        coefficients = scene.compute_spline_coefficients()
    y, x = np.meshgrid(*2 * [np.arange(size, dtype=float)], indexing="ij")
    if options.distortion:
        y, x = core.distort_positions(y, x, (size, size), options.distortion)
    return scene.sample(coefficients, y + corner[0], x + corner[1])


def _simulate_frame_light(
    scene: Scene,
    coefficients: core.Float32Array,
    plan: ScanPlan,
    index: int,
    options: ScanOptions,
) -> core.FloatArray:
    """Return the reflectance in a frame: of its own area, of another area, or none."""
    kind = plan.bad.get(index)
    if kind == "blank":
        return np.zeros((options.frame_px, options.frame_px))
    if kind is not None:
        rng = options.create_rng(RandomStream.FOREIGN, index)
        low, high = plan.true_px.min(axis=0), plan.true_px.max(axis=0)
        corner = rng.uniform(low, high)
        elsewhere = simulate_clean_frame(scene, coefficients, corner, options)
        return elsewhere[::-1].T  # mirrored: matches no area
    corner = plan.true_px[index]
    if options.focus_drift_nm:
        way = options.focus_drift_nm * index / max(options.frame_count - 1, 1)
        scene = replace(scene, options=options.replace(focus_nm=options.focus_nm + way))
        scene = scene.crop_to_frame(corner, options.frame_px)
        coefficients = scene.compute_spline_coefficients()
    image = simulate_clean_frame(scene, coefficients, corner, options)
    if options.contact_lost_from is None or index < options.contact_lost_from:
        return image
    # as the option says, three times as wide (a Gaussian), and half of the contrast
    sigma = scene.fwhm_px / FWHM * np.sqrt(3.0**2 - 1)
    mean = image.mean()
    wide = ndimage.gaussian_filter(image, sigma, mode="nearest")
    return np.asarray(mean + 0.5 * (wide - mean))


def simulate_scan(
    options: ScanOptions, source: Specimen | core.RealArray | None = None
) -> core.Job[Scan]:
    """Simulate a scan of a sample or an image (Y, X); the default is the phantom."""
    count = options.frame_count
    yield core.Progress(0, count + 1, "simulating the sample")
    plan = plan_scan(options)
    scene, pixel = _create_scene(source, options)
    coefficients = scene.compute_spline_coefficients()
    rng = options.create_rng(RandomStream.FIELD)
    flat = microscope.create_illumination_field(options, options.frame_px, rng)
    frames = np.empty((count, options.frame_px, options.frame_px), np.uint16)
    for index in range(count):
        yield core.Progress(index + 1, count + 1, f"frame {index + 1} of {count}")
        light = _simulate_frame_light(scene, coefficients, plan, index, options)
        noise = options.create_rng(RandomStream.NOISE, index)
        light = light * flat * plan.gains[index]
        frames[index] = microscope.simulate_camera_counts(light, options, noise)
    yield core.Progress(count + 1, count + 1, "scanned")
    digits = max(3, len(str(count)))
    return Scan(
        *(plan.nominal_px, plan.true_px, plan.gains, plan.bad),
        frames=frames,
        names=tuple(f"frame_{index:0{digits}d}" for index in range(count)),
        flat=flat,
        pixel_size_nm=pixel,
        scene=scene,
        options=options,
    )


def run_scan_simulation(
    source: Specimen | core.RealArray | None, options: ScanOptions
) -> Scan:
    """Simulate a whole scan without reporting progress; `source` (Y, X)."""
    return core.run(simulate_scan(options, source))
