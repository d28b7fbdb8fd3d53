"""Whether a scan can be simulated: asked before anything is drawn or written."""

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from napari_semsr.core.errors import DeviceMemoryError, OptionError, WriteError
from napari_semsr.core.provenance import InputRecord
from napari_semsr.services.opening import (
    Image,
    OpenOptions,
    input_record,
    open_image,
    paths_of,
)
from napari_semsr.services.simulate_folder import MARK
from napari_semsr.services.simulate_options import SimulateOptions
from napari_semsr.services.targets import check_not_input, check_target_folder
from napari_semsr.simulate.scan import fit_binning

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["check_memory", "check_scan", "open_source", "too_large"]

_FRAME_BYTES = 2
_SCENE_BYTES = 8  # sharp and blurred, in float32; drawing takes more for a while


def check_scan(
    folder: str | os.PathLike[str],
    image: Image | None,
    options: SimulateOptions,
    *,
    overwrite: bool,
) -> Path:
    """Refuse a folder that must not be written, and what cannot be had.

    Parameters
    ----------
    folder : path
        Where the scan shall go.
    image : Micrograph, path or None
        What is scanned.
    options : SimulateOptions
        What is asked for.
    overwrite : bool
        Whether an earlier simulation may be replaced.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    WriteError
        If the folder is an input, holds other things, or cannot be made.
    OptionError
        If options contradict each other or the image.
    """
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


def open_source(
    image: Image | None, options: SimulateOptions, opening: OpenOptions | None
) -> tuple["NDArray[Any] | None", tuple[InputRecord, ...], SimulateOptions]:
    """Open the image, and give its pixel size to frames that were given none.

    Parameters
    ----------
    image : Micrograph, path or None
        What is scanned; None for a drawn sample.
    options : SimulateOptions
        What is asked for.
    opening : OpenOptions or None
        How to read an image file.

    Returns
    -------
    values : (Y, X) numpy.ndarray or None
        Grey values of the image.
    inputs : tuple of InputRecord
        The same for the history.
    options : SimulateOptions
        With the binning and the pixel size that follow from the image.

    Raises
    ------
    ReadError, ShapeError
        If the image cannot be used.
    OptionError
        If positions in nm are wanted where no pixel size is known.
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


def check_memory(options: SimulateOptions) -> None:
    """Refuse a scan that cannot be held, before anything is drawn.

    Parameters
    ----------
    options : SimulateOptions
        Of which the sizes count.

    Raises
    ------
    DeviceMemoryError
        If free memory does not hold scene and frames.
    """
    from napari_semsr.simulate.scene import fine_grid
    from napari_semsr.simulate.stage import scan_extent

    shape, _ = fine_grid(scan_extent(options), options.fine)
    rows, columns = options.frames_grid
    frames = rows * columns * options.frame_px**2 * _FRAME_BYTES
    least = shape[0] * shape[1] * _SCENE_BYTES + frames
    if least > psutil.virtual_memory().available:
        raise too_large(options, least)


def too_large(options: SimulateOptions, least: int | None) -> DeviceMemoryError:
    """Say which options make a scan smaller.

    Parameters
    ----------
    options : SimulateOptions
        Of the scan that is too large.
    least : int or None
        Bytes that it takes at least, where they are known.

    Returns
    -------
    DeviceMemoryError
        To be raised.
    """
    rows, columns = options.frames_grid
    need = "more memory than is free"
    if least is not None:
        need = f"at least {least / 1e9:.3g} GB of memory, more than is free"
    msg = (
        f"A scan of {rows} x {columns} frames of {options.frame_px} px takes {need}: "
        "lower --frames-grid, --frame-px or --oversampling."
    )
    return DeviceMemoryError(msg)
