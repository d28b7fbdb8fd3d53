"""Simulate a scan: a folder of superlens frames with known ground truth."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import psutil
from pydantic import Field

from napari_semsr import core, io, simulation
from napari_semsr.jobs import images
from napari_semsr.jobs.verb import ImageInput, Output, Run, command

_MARK = Path("truth") / "microscope.json"
"""File that identifies a simulated scan."""
_OURS = (
    "positions.csv",
    "scan.json",
    "heights.csv",
    "exposures",
    "focal",
    "sem",
    _MARK.parts[0],
)
_OUR_FOLDERS = "z_[0-9][0-9][0-9]"  # folders of a focal series
_MAX_HEIGHTS = 1000  # limit of three digits
_OF_PHANTOMS = (
    *simulation.PhantomOptions.model_fields,
    "objective",
    "microsphere",
    "camera_pixel_um",
)
"""Phantom and pixel-size options, which do not apply to an image."""
_FRAME_BYTES = 2  # uint16
_SCENE_BYTES = 8  # bytes per pixel: sharp and blurred, in float32


class SimulateOptions(simulation.ScanOptions, simulation.SemViewOptions):
    """Options for a simulated scan and its further images."""

    positions: Literal["px", "nm", "none"] = Field(
        default="px",
        description="unit of the nominal positions; none: no positions.csv",
    )
    pixel_size_error: float = Field(
        default=0.0,
        gt=-0.5,
        lt=0.5,
        description="relative error of the pixel size stated in scan.json and in the "
        "frames",
    )
    exposures: int = Field(
        default=0, ge=0, description="repeated exposures of the central field"
    )
    focal_series: int = Field(
        default=0,
        ge=0,
        le=_MAX_HEIGHTS,
        description="number of heights of the focal plane, in folders z_000 and "
        "following",
    )
    focal_fields: Literal["all", "middle"] = Field(
        default="all",
        description="focal series of all fields, or only of the central one, in the "
        "folder focal",
    )
    focal_shift_px: float = Field(
        default=1.5,
        ge=0,
        description="largest lateral shift between heights of a focal series, per axis",
    )
    sem: bool = Field(
        default=False, description="also an SEM image of the whole area of a phantom"
    )
    sem_view: bool = Field(
        default=False,
        description="also a realistic SEM image of a phantom: with its own pixel "
        "size, field, rotation, drift and noise",
    )

    live: float | None = Field(
        default=None,
        gt=0,
        description="seconds per frame; frames are written as by an instrument: in "
        "parts, with a growing table",
    )
    live_faults: bool = Field(
        default=False,
        description="with `live`: write one frame twice, swap two, make one black "
        "and lose one",
    )

    @property
    def tilt_shift_px(self) -> float:
        """Largest lateral shift that the scene must accommodate, in px."""
        return self.focal_shift_px if self.has_heights else 0.0

    def count_simulated_pixels(self) -> int:
        """Count the pixels of the scene and of all frames."""
        rows, columns = self.compute_extent().get_fine_grid(self.fine_factor)[0]
        series = self.focal_series * (self.frame_count if self.has_heights else 1)
        images_taken = self.frame_count + self.exposures + series
        return rows * columns + images_taken * self.frame_px**2

    @property
    def has_heights(self) -> bool:
        """Whether every field is imaged at several heights."""
        return self.focal_series > 0 and self.focal_fields == "all"


@dataclass(frozen=True, slots=True)
class SimulatedScan(images.Result):
    """Result of a simulation.

    `pixel_size_nm` is the true one; `bad_frames` are blank or foreign, `extra` are
    folders of further acquisitions.
    """

    frames: int
    truth: Annotated[str, core.Quantity("Truth")]
    output: str
    grid: core.IntPair
    frame_shape: core.IntPair
    pixel_size_nm: core.FloatPair | None
    bad_frames: dict[str, str]
    extra: tuple[str, ...]

    @property
    def scan(self) -> Annotated[str, core.Quantity("Scan")]:
        """Number and size of the frames."""
        rows, columns = self.grid
        size = core.format_shape(self.frame_shape)
        return f"{self.frames} frames ({rows} x {columns}) of {size}"

    @property
    def pixel(self) -> Annotated[str, core.Quantity("Pixel size")]:
        """Pixel size as text."""
        return core.format_pixel_size(self.pixel_size_nm)

    @property
    def also(self) -> Annotated[str | None, core.Quantity("Also")]:
        """Further images that were simulated, if any."""
        return ", ".join(self.extra) or None

    @property
    def bad(self) -> Annotated[str | None, core.Quantity("Bad frames")]:
        """Bad frames with their faults, if any."""
        return ", ".join(f"{n}: {k}" for n, k in self.bad_frames.items()) or None


@command(
    title="sample, microscope and scan", not_read=("pixel_size_nm", "pixel_size_sd_nm")
)
def simulate(
    run: Run[SimulateOptions],
    out_dir: Annotated[
        Path, Output("folder for the frames and their ground truth", flag="", ending="")
    ],
    *,
    options: SimulateOptions,
    image: Annotated[
        core.Micrograph | None,
        ImageInput(help="scan this image, not a phantom", flag="--from"),
    ] = None,
) -> core.Job[SimulatedScan]:
    """Simulate a folder of superlens frames with ground truth.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = semsr.simulate(
    ...         folder, phantom="particles", frames_grid=(2, 3), frame_px=64
    ...     )
    >>> made.grid, made.frame_shape, made.pixel_size_nm
    ((2, 3), (64, 64), (20.0, 20.0))
    """
    images.check_target_folder(out_dir, empty=not run.existing.overwrite)
    settings = options
    _check_scan(out_dir, image, settings)
    source, inputs = None, list[core.InputRecord]()
    if image is not None:
        settings = _fit_options_to_image(image, settings)
        images.require_all_pixels(image)
        source = image.array()
        inputs.append((yield from run.record_image("image")))
    shape, _ = settings.compute_extent().get_fine_grid(settings.fine_factor)
    frames = settings.frame_count * settings.frame_px**2 * _FRAME_BYTES
    least = shape[0] * shape[1] * _SCENE_BYTES + frames
    if least > psutil.virtual_memory().available:
        need = (
            f"at least {least / 1000000000.0:.3g} GB of memory, more than is available"
        )
        raise _create_size_error(settings, need)
    try:
        scan = yield from simulation.simulate_scan(settings, source)
    except MemoryError as error:
        raise _create_size_error(settings, "more memory than is free") from error
    inputs_read = tuple(inputs), run.opening
    if settings.live is not None:
        faults = _LiveFaults.from_options(settings)
        scan = faults.add_to_scan(scan)
        with io.convert_write_errors(out_dir), io.use_temporary_path(out_dir) as place:
            place.mkdir()
            writer = _ScanWriter(place, scan, settings, *inputs_read)
            extra = yield from _write_live_scan(out_dir, settings, writer, faults)
    else:
        with _stage_scan_folder(out_dir) as place:
            writer = _ScanWriter(place, scan, settings, *inputs_read)
            yield from writer.write_frames()
            yield core.Progress(0, 0, "writing the ground truth")
            writer.write_tables()
            writer.write_ground_truth()
            extra = yield from writer.write_further_images()
    return SimulatedScan(
        frames=len(scan.frames),
        truth=str(out_dir / "truth"),
        output=str(out_dir),
        grid=settings.frames_grid,
        frame_shape=(settings.frame_px, settings.frame_px),
        pixel_size_nm=scan.pixel_size_nm,
        bad_frames={scan.names[i]: kind for i, kind in sorted(scan.bad.items())},
        extra=tuple(str(out_dir / name) for name in extra),
    )


# Checks before anything is simulated or written.


def _check_scan(
    target: Path, image: core.Micrograph | None, options: SimulateOptions
) -> None:
    """Raise an error for a folder with other files, or for incompatible options."""
    if image is not None and "phantom" in options.model_fields_set:
        msg = "Set `phantom` or `image`, not both."
        raise core.OptionError(msg, code="options-contradict")
    stranger = target.is_dir() and core.list_folder(target)
    if stranger and not (target / _MARK).is_file():
        msg = (
            f"The folder {target} contains files that do not belong to a simulated "
            "scan, so it was not overwritten; choose another folder."
        )
        raise core.WriteError(msg, code="foreign-files")
    if (options.sem or options.sem_view) and image is not None:
        msg = "An SEM image requires a simulated sample (`phantom`), got an image."
        raise core.OptionError(msg, code="options-contradict")
    usual = simulation.SemViewOptions().model_dump()
    views = options.model_dump(include={*usual})
    if views != usual and not options.sem_view:
        msg = "The `view_…` options require `sem_view`: set it as well."
        raise core.OptionError(msg, code="option-without-effect")
    if options.live_faults and options.live is None:
        msg = "`live_faults` requires `live`: set both."
        raise core.OptionError(msg, code="option-without-effect")
    if options.live_faults and options.frame_count < _LIVE_FAULTS:
        msg = (
            f"`live_faults` requires at least {_LIVE_FAULTS} frames, got "
            f"{options.frame_count}."
        )
        raise core.OptionError(msg, code="too-few-frames")
    if options.focal_series == 1:
        msg = "A focal series needs at least 2 steps, got 1."
        raise core.OptionError(msg, code="out-of-range")


def _fit_options_to_image(
    image: core.Micrograph, options: SimulateOptions
) -> SimulateOptions:
    """Set the binning and pixel size of the frames from the image."""
    usual = SimulateOptions()
    idle = {
        name: getattr(usual, name)
        for name in _OF_PHANTOMS
        if getattr(options, name) != getattr(usual, name)
    }
    for name in idle:
        core.warn(
            f"`{name}` has no effect when an image is scanned; it applies only to a "
            "`phantom`.",
            "option-without-effect",
        )
    binning = options.fit_binning(image.shape)
    if options.image_binning is None and binning < 1:
        msg = (
            f"The image of {image.shape[0]} x {image.shape[1]} px is too small for "
            f"this scan and is enlarged by a factor of {1 / binning:.3g}."
        )
        core.warn(msg, "resampled")
    options = options.replace(image_binning=binning, **idle)
    if options.pixel_size_nm is None and image.pixel_size_nm is not None:
        y, x = (v * binning for v in image.pixel_size_nm)
        options = options.replace(pixel_size_nm=(y, x))
    if options.positions == "nm" and options.pixel_size_nm is None:
        msg = (
            "Positions in nm require a pixel size, but the image has none; set "
            "`pixel_size_nm`."
        )
        raise core.OptionError(msg, code="pixel-size-missing")
    return options


def _create_size_error(options: SimulateOptions, need: str) -> core.DeviceMemoryError:
    """Return the error for a scan that is too large."""
    rows, columns = options.frames_grid
    msg = (
        f"A scan of {rows} x {columns} frames of {options.frame_px} px requires "
        f"{need}: use fewer or smaller frames, or less oversampling (`frames_grid`, "
        "`frame_px`, `oversampling`)."
    )
    return core.DeviceMemoryError(msg, code="memory")


# A simulated scan on disk: frames, tables, ground truth, and further images.


@contextmanager
def _stage_scan_folder(target: Path) -> Iterator[Path]:
    """Write to a hidden folder, and rename it to the target when complete.

    Only its contents are moved if the target is a link, is the current folder, or has
    other files; the mark comes first, so that an interrupted run can be repeated.
    """
    with io.convert_write_errors(target), io.use_temporary_path(target) as place:
        place.mkdir()
        yield place
        present = core.list_folder(target) if target.is_dir() else []
        others = set(present).difference(_list_scan_files(target))
        if not (others or target.is_symlink() or target.resolve() == Path.cwd()):
            io.replace_output(place, target)
            return
        _clear_scan_folder(target)
        names = sorted(path.name for path in place.iterdir())
        for name in sorted(names, key=lambda name: name != _MARK.parts[0]):
            io.move(place / name, target / name)


def _list_scan_files(folder: Path) -> list[Path]:
    """List the files of a scan that may be in a folder, the mark last."""
    frames = (*folder.glob("frame_*.tif"), *folder.glob(_OUR_FOLDERS))
    return [*frames, *(folder / name for name in _OURS)]


def _clear_scan_folder(target: Path) -> None:
    """Create the folder of a scan, removing the files of an earlier scan."""
    target.mkdir(exist_ok=True)
    for old in _list_scan_files(target):
        io.remove_target(old)


_Grid = Literal["frames", "truth", "scene"]


@dataclass(frozen=True, slots=True)
class _ScanWriter:
    """Writer of one scan into a folder."""

    place: Path  # The folder
    scan: "simulation.Scan"  # the scan
    options: SimulateOptions  # its options
    inputs: tuple[core.InputRecord, ...]  # the scanned image, if any
    opening: io.ReadOptions  # its reading options

    def _write_image(
        self, data: core.RealArray, path: Path, grid: _Grid = "frames"
    ) -> None:
        """Write one image on the grid of a frame or of the scene, which is finer.

        Frames have the nominal pixel size, the ground truth the true one.
        """
        scene, size = self.scan.scene, self.scan.pixel_size_nm
        finer, share = scene.oversampling if grid == "scene" else 1, 1.0
        if grid == "frames":
            share += self.options.pixel_size_error
        (down, right), origin = size or (1.0, 1.0), (0.0, 0.0)
        if grid == "scene":
            origin = (scene.origin_px[0] * down, scene.origin_px[1] * right)
        options = self.options.model_dump(mode="json")
        if self.inputs:  # its pixel size is that of the frames in the options
            sizes = {"pixel_size_nm", "pixel_size_sd_nm"}
            options["reading"] = self.opening.model_dump(mode="json", exclude=sizes)
        part = path.relative_to(self.place).as_posix()
        micrograph = core.Micrograph(
            data,
            core.parse_pixel_size(size and [v * share / finer for v in size]),
            path.name.partition(".")[0],
            provenance=images.compose_provenance(
                "simulate", options, *self.inputs, part=part
            ),
            origin=origin,
            spacing_px=(1 / finer, 1 / finer),
        )
        path.parent.mkdir(exist_ok=True)
        io.write(micrograph, path)

    @property
    def _file_names(self) -> list[str]:
        return [f"{name}.tif" for name in self.scan.names]

    def write_frames(self) -> Iterator[core.Progress]:
        total = len(self.scan.frames)
        frames = zip(self.scan.names, self.scan.frames, strict=True)
        for index, (name, frame) in enumerate(frames):
            yield core.Progress(index, total, f"writing {name}.tif")
            self._write_image(frame, self.place / f"{name}.tif")

    def write_tables(self, folder: Path | None = None) -> None:
        """Write the nominal positions and the microscope's description."""
        place = folder or self.place
        options, size = self.options, self.scan.pixel_size_nm
        nominal = self.scan.nominal_px
        if options.positions == "nm" and size is not None:
            nominal = nominal * size
        if options.positions != "none":
            path, files = place / "positions.csv", self._file_names
            places = dict(zip(files, nominal, strict=True))
            images.write_positions(path, places, options.positions)
        share = 1 + options.pixel_size_error
        sides = size and [v * share for v in size]
        record = {
            "pixel_size_nm": sides[0] if sides and sides[0] == sides[1] else sides,
            "grid": list(options.frames_grid),
            "overlap": options.overlap or None,
            "order": options.frame_order,
            "first": options.first,
            "wavelength_nm": options.wavelength_nm,
            "objective": f"{options.objective:g}x",
            "microsphere_um": options.microsphere_um,
        }
        _write_json(place / "scan.json", record)

    def write_ground_truth(self) -> None:
        """Write true positions, object, illumination and all parameters."""
        scan, folder = self.scan, self.place / "truth"
        folder.mkdir()
        places = dict(zip(self._file_names, scan.true_px, strict=True))
        images.write_positions(folder / "positions.csv", places)
        scene = scan.scene
        self._write_image(scene.sharp, folder / "object.ome.tif", "scene")
        self._write_image(scene.image, folder / "seen.ome.tif", "scene")
        self._write_image(scan.flat, folder / "flat.ome.tif", "truth")
        if scene.surface is not None:
            height = scene.surface.height_nm
            self._write_image(height, folder / "height.ome.tif", "scene")
        options = self.options
        per_photon = options.full_scale / options.photons if options.photons else None
        good = [i for i in range(len(scan.names)) if i not in scan.bad]
        # everything that determined the frames, set or random
        parameters = {
            "options": options.model_dump(mode="json"),
            "source": self.inputs[0].name if self.inputs else options.phantom,
            "pixel_size_nm": scan.pixel_size_nm,
            "psf_fwhm_px": scene.fwhm_px,
            **options.model_dump(mode="json", include=set(simulation.OPTICS)),
            "cut_off_period_nm": options.cut_off_nm if scan.pixel_size_nm else None,
            "rim": options.rim_brightness,
            "dark_counts": options.offset,
            "counts_per_photon": per_photon,
            "object_oversampling": scene.oversampling,
            "object_origin_px": scene.origin_px,
            # origin of the mosaic of all good frames: 0, 0 in a stitched one
            "mosaic_origin_px": scan.true_px[good or slice(None)].min(axis=0),
            "image_offset_px": scene.image_offset_px,
            "gains": dict(zip(scan.names, scan.gains, strict=True)),
            "bad_frames": {scan.names[i]: kind for i, kind in sorted(scan.bad.items())},
            "versions": core.get_software_versions(),
        }
        _write_json(folder / "microscope.json", parameters)

    def write_further_images(self) -> core.Job[tuple[str, ...]]:
        """Simulate and write the further images."""
        parts = []
        if self.options.exposures:
            yield core.Progress(0, 0, "repeating exposures")
            exposures = self.scan.simulate_exposures(self.options.exposures)
            for index, frame in enumerate(exposures):
                name = f"exposure_{index:02d}.tif"
                self._write_image(frame, self.place / "exposures" / name)
            parts.append("exposures")
        if self.options.has_heights:
            parts += yield from self._write_height_scans(self.options.focal_series)
        elif self.options.focal_series:
            yield core.Progress(0, 0, "focusing")
            steps = self.scan.simulate_focal_series(self.options.focal_series)
            for index, step in enumerate(steps):
                name = f"focus_{index:02d}_{step.focus_nm:+.0f}nm.tif"
                self._write_image(step.frame, self.place / "focal" / name)
            parts.append("focal")
        if self.options.sem:
            yield core.Progress(0, 0, "simulating the SEM image")
            picture = self.scan.simulate_sem_image()
            self._write_image(picture, self.place / "sem" / "sem.ome.tif", "scene")
            parts.append("sem")
        if self.options.sem_view:
            yield core.Progress(0, 0, "simulating the realistic SEM image")
            view = simulation.simulate_sem_view(self.scan, self.options)
            path = self.place / "sem" / "view.tif"
            path.parent.mkdir(exist_ok=True)
            size = core.parse_pixel_size(view.pixel_nm)
            moving = core.Micrograph(view.image, size, path.stem)
            io.write_fei_tiff(moving, path)
            other = self.place / "truth" / "object.ome.tif"
            transform_file = io.StoredTransform(  # from the image to the scan
                view.transform,
                io.ImageIdentity.from_image(moving, core.digest_path(path)),
                io.ImageIdentity.from_image(io.read(other), core.digest_path(other)),
            )
            io.write_transform(self.place / "truth" / "view.json", transform_file)
            parts += [] if self.options.sem else ["sem"]
        return tuple(parts)

    def _write_height_scans(self, count: int) -> core.Job[list[str]]:
        """Write one scan for each focal height, and a table of the heights."""
        names, rows = [], []
        for index, height in enumerate(self.scan.simulate_height_scans(count)):
            name = f"z_{index:03d}"
            yield core.Progress(index, count, f"focusing: {name}")
            for stem, frame in zip(self.scan.names, height.frames, strict=True):
                self._write_image(frame, self.place / name / f"{stem}.tif")
            self.write_tables(self.place / name)
            y, x = height.shift_px
            rows.append([name, f"{height.focus_nm:.6g}", f"{y:.6f}", f"{x:.6f}"])
            names.append(name)
        header = ["folder", "z_nm", "y_px", "x_px"]
        io.write_csv(self.place / "truth" / "heights.csv", [header, *rows])
        rows_shown = [row[:2] for row in (header, *rows)]
        io.write_csv(self.place / "heights.csv", rows_shown)
        return names


# A live scan, written as by an instrument: frame by frame, each in parts.

_LIVE_FAULTS = 10  # frames; chosen: four faults, with good frames between them
_FIRST_PART, _PAUSE = 0.4, 0.2  # fractions of a file, and of a frame's time
_STEP_S = 0.1  # s; chosen: cancelling takes no longer
_AGAIN_AFTER = 2  # frames; chosen: a program that follows has read it by then


@dataclass(frozen=True, slots=True)
class _LiveFaults:
    """Indices of the frames with faults; -1 for none."""

    twice: int = -1  # written with another frame's pixels, then correctly
    late: int = -1  # written after its successor
    black: int = -1
    lost_frame: int = -1  # has a row in the table, but no file

    @classmethod
    def from_options(cls, options: SimulateOptions) -> "_LiveFaults":
        """Choose non-adjacent frames for the faults, if requested."""
        if not options.live_faults:
            return cls()
        rng = np.random.default_rng([options.seed, 26])
        odd = rng.permutation(np.arange(1, options.frame_count - 1, 2))
        return cls(*odd[:4].tolist())

    def add_to_scan(self, scan: "simulation.Scan") -> "simulation.Scan":
        """Blacken a frame of a scan, and record the faults."""
        if self.black < 0:
            return scan
        frames, options = scan.frames.copy(), scan.options
        rng = np.random.default_rng([options.seed, 27])
        dark = rng.normal(options.offset, options.read_noise, frames[0].shape)
        frames[self.black] = np.clip(np.rint(dark), 0, np.iinfo(frames.dtype).max)
        bad = {**scan.bad, self.black: "blank", self.lost_frame: "lost"}
        return replace(scan, frames=frames, bad=bad)


def _write_live_scan(
    target: Path, options: SimulateOptions, writer: "_ScanWriter", faults: _LiveFaults
) -> core.Job[tuple[str, ...]]:
    """Write a scan frame by frame; return the names of further outputs.

    It is complete in the writer's hidden folder before the first frame is written.
    """
    yield from writer.write_frames()
    writer.write_tables()
    writer.write_ground_truth()
    _clear_scan_folder(target)
    for name in ("truth", "scan.json"):
        io.move(writer.place / name, target / name)
    table, rows = target / "positions.csv", list[str]()
    if (writer.place / table.name).is_file():
        text = (writer.place / table.name).read_text(encoding="utf-8")
        rows = text.splitlines(keepends=True)
        _append_text(table, rows.pop(0))
    names = [f"{name}.tif" for name in writer.scan.names]
    order, seconds, again = list(range(len(names))), options.live or 0.0, -1
    if faults.late >= 0:
        order[faults.late] += 1
        order[faults.late + 1] -= 1
    for done_count, number in enumerate(order):
        words = f"the microscope acquires {names[number]}"
        step = partial(core.Progress, done_count, len(order), words)
        # first the previous content of the instrument's buffer
        name_written = names[number - 1 if number == faults.twice else number]
        if number == faults.lost_frame:
            yield from _wait(seconds * _PAUSE, step)
        else:
            data = (writer.place / name_written).read_bytes()
            yield from _write_file_in_parts(target / names[number], data, seconds, step)
        if rows:
            half = len(rows[number]) // 2
            _append_text(table, rows[number][:half])
            yield from _wait(seconds * _PAUSE, step)
            _append_text(table, rows[number][half:])
        yield from _wait(seconds * (1 - 2 * _PAUSE), step)
        again = done_count + _AGAIN_AFTER if number == faults.twice else again
        if done_count == again:
            path = target / names[faults.twice]
            data = (writer.place / path.name).read_bytes()
            yield from _write_file_in_parts(path, data, seconds, step)
    extra = yield from writer.write_further_images()
    for name in (*extra, *(["heights.csv"] if options.has_heights else [])):
        io.move(writer.place / name, target / name)
    return extra


def _write_file_in_parts(
    path: Path, data: bytes, seconds: float, step: Callable[[], core.Progress]
) -> core.Job[None]:
    first = int(_FIRST_PART * len(data))
    path.write_bytes(data[:first])
    yield from _wait(seconds * _PAUSE, step)
    with path.open("ab") as stream:
        stream.write(data[first:])


def _append_text(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8", newline="") as stream:
        stream.write(text)


def _wait(seconds: float, step: Callable[[], core.Progress]) -> core.Job[None]:
    end = time.monotonic() + seconds
    while True:
        yield step()
        left = end - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(left, _STEP_S))


def _write_json(path: Path, record: Mapping[str, object]) -> None:
    values = images.to_json_value(record)
    text = json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
