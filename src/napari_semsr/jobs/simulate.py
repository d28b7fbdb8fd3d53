"""Simulate a scan: a folder of superlens frames whose truth is known."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from napari_semsr.core import (
    DeviceMemoryError,
    InputRecord,
    Job,
    OptionError,
    Progress,
    WriteError,
)
from napari_semsr.io import ReadOptions
from napari_semsr.jobs.images import Image, input_record, open_image, paths_of
from napari_semsr.jobs.outputs import Result, check_not_input, check_target_folder
from napari_semsr.jobs.simulate_folder import (
    MARK,
    ScanWriter,
    SimulateOptions,
    whole_folder,
)
from napari_semsr.simulation import fit_binning

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Whether a scan can be simulated: asked before anything is drawn or written.

_FRAME_BYTES = 2
_SCENE_BYTES = 8  # sharp and blurred, in float32; drawing takes more for a while


def _check_scan(
    folder: str | os.PathLike[str],
    image: Image | None,
    options: SimulateOptions,
    *,
    overwrite: bool,
) -> Path:
    """Refuse a folder that must not be written, and what cannot be had."""
    target = Path(folder)
    check_not_input(target, paths_of(image))
    check_target_folder(target, overwrite=overwrite)
    stranger = target.is_dir() and any(target.iterdir())
    if stranger and not (target / MARK).is_file():
        msg = (
            f"The folder {target} holds other things than a simulated scan, so it is "
            "not replaced; choose another."
        )
        raise WriteError(msg)
    if options.sem and image is not None:
        msg = "An electron image needs a drawn sample (--phantom), got an image."
        raise OptionError(msg)
    if options.focal_series == 1:
        msg = "A focal series needs at least 2 steps, got 1."
        raise OptionError(msg)
    return target


def _open_source(
    image: Image | None, options: SimulateOptions, opening: ReadOptions | None
) -> tuple["NDArray[Any] | None", tuple[InputRecord, ...], SimulateOptions]:
    """Open the image, and give its pixel size to frames that were given none.

    Gives values (Y, X), options with the binning and the pixel size that follow from
    the image.
    """
    if image is None:
        return None, (), options
    opened = open_image(image, opening)
    binning = fit_binning(opened.shape, options)
    if options.image_binning is None and binning < 1:
        msg = (
            f"The image of {opened.shape[0]} x {opened.shape[1]} px is small for this "
            f"scan and is enlarged {1 / binning:.3g} times."
        )
        warnings.warn(msg, stacklevel=2)
    options = options.replace(image_binning=binning)
    if options.pixel_size_nm is None and opened.pixel_size_nm is not None:
        y, x = (v * binning for v in opened.pixel_size_nm)
        options = options.replace(pixel_size_nm=(y, x))
    if options.positions == "nm" and options.pixel_size_nm is None:
        msg = (
            "Positions in nm need an image whose pixel size is known; give "
            "--pixel-size-nm."
        )
        raise OptionError(msg)
    return opened.array(), (input_record(image, opened, opening),), options


def _check_memory(options: SimulateOptions) -> None:
    """Refuse a scan that cannot be held, before anything is drawn."""
    from napari_semsr.simulation import fine_grid, scan_extent

    shape, _ = fine_grid(scan_extent(options), options.fine)
    rows, columns = options.frames_grid
    frames = rows * columns * options.frame_px**2 * _FRAME_BYTES
    least = shape[0] * shape[1] * _SCENE_BYTES + frames
    if least > psutil.virtual_memory().available:
        raise _too_large(options, least)


def _too_large(options: SimulateOptions, least: int | None) -> DeviceMemoryError:
    """Say which options make a scan smaller."""
    rows, columns = options.frames_grid
    need = "more memory than is free"
    if least is not None:
        need = f"at least {least / 1e9:.3g} GB of memory, more than is free"
    msg = (
        f"A scan of {rows} x {columns} frames of {options.frame_px} px takes {need}: "
        "lower --frames-grid, --frame-px or --oversampling."
    )
    return DeviceMemoryError(msg)


@dataclass(frozen=True, slots=True)
class SimulatedScan(Result):
    """What was simulated, and where it is.

    Attributes
    ----------
    frames : int
        Number of frames.
    truth : str
        Folder of true positions, object and parameters.
    output : str
        The frames folder.
    grid : tuple of int
        Rows and columns of frames.
    frame_shape : tuple of int
        Rows and columns of a frame.
    pixel_size_nm : tuple of float or None
        True pixel of the frames; None when unknown.
    bad_frames : dict
        Names of frames that are blank or foreign.
    extra : tuple of str
        Folders of further acquisitions.
    """

    frames: int
    truth: str
    output: str
    grid: tuple[int, int]
    frame_shape: tuple[int, int]
    pixel_size_nm: tuple[float, float] | None
    bad_frames: dict[str, str]
    extra: tuple[str, ...]


def simulate_job(
    folder: str | os.PathLike[str],
    *,
    image: Image | None = None,
    options: SimulateOptions | None = None,
    opening: ReadOptions | None = None,
    overwrite: bool = False,
) -> Job[SimulatedScan]:
    """Simulate a scan of a drawn sample or of an image, and write it as a folder.

    Parameters
    ----------
    folder : path
        Receives frames, ``positions.csv``, ``scan.json`` and ``truth``.
    image : Micrograph or path, optional
        What is scanned; ``options.phantom`` is drawn when not given.
    options : SimulateOptions, optional
        Sample, microscope, stage, camera.
    opening : ReadOptions, optional
        How to read an image file.
    overwrite : bool, default=False
        Replace an earlier simulation.

    Returns
    -------
    SimulatedScan
        What was written.

    Yields
    ------
    Progress
        Drawing, scanning, writing.

    Raises
    ------
    ReadError, WriteError, OptionError, ShapeError
        If the image cannot be used, the folder not be written, or options contradict
        each other.
    DeviceMemoryError
        If memory does not hold the scan.
    """
    from napari_semsr.simulation import simulate_scan

    chosen = options or SimulateOptions()
    yield Progress(0, 0, "checking")
    target = _check_scan(folder, image, chosen, overwrite=overwrite)
    source, inputs, chosen = _open_source(image, chosen, opening)
    _check_memory(chosen)
    try:
        scan = yield from simulate_scan(chosen, source)
    except MemoryError as error:
        raise _too_large(chosen, None) from error
    with whole_folder(target) as place:
        writer = ScanWriter(place, scan, chosen, inputs)
        yield from writer.frames()
        yield Progress(0, 0, "writing the truth")
        writer.tables()
        writer.truth()
        extra = yield from writer.more()
    return SimulatedScan(
        frames=len(scan.frames),
        truth=str(target / "truth"),
        output=str(target),
        grid=chosen.frames_grid,
        frame_shape=(chosen.frame_px, chosen.frame_px),
        pixel_size_nm=scan.pixel_size_nm,
        bad_frames={scan.names[i]: kind for i, kind in sorted(scan.bad.items())},
        extra=tuple(str(target / name) for name in extra),
    )
