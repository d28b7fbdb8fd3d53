"""Simulate a scan: a folder of superlens frames whose truth is known."""

import os
from dataclasses import dataclass

from napari_semsr.core.progress import Job, Progress
from napari_semsr.services.opening import Image, OpenOptions
from napari_semsr.services.results import Result
from napari_semsr.services.simulate_check import (
    check_memory,
    check_scan,
    open_source,
    too_large,
)
from napari_semsr.services.simulate_folder import ScanWriter, whole_folder
from napari_semsr.services.simulate_options import SimulateOptions

__all__ = ["SimulateOptions", "SimulatedScan", "simulate"]


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


def simulate(
    folder: str | os.PathLike[str],
    *,
    image: Image | None = None,
    options: SimulateOptions | None = None,
    opening: OpenOptions | None = None,
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
    opening : OpenOptions, optional
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
    from napari_semsr.simulate.scan import simulate_scan

    chosen = options or SimulateOptions()
    yield Progress(0, 0, "checking")
    target = check_scan(folder, image, chosen, overwrite=overwrite)
    source, inputs, chosen = open_source(image, chosen, opening)
    check_memory(chosen)
    try:
        scan = yield from simulate_scan(chosen, source)
    except MemoryError as error:
        raise too_large(chosen, None) from error
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
