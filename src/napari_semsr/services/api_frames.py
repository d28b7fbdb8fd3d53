"""The Python interface to scans: frames made of a sample, and joined again."""

from typing import TYPE_CHECKING, Any

from napari_semsr.core.progress import run
from napari_semsr.services.calling import (
    PathLike,
    Report,
    Source,
    as_optional,
    parse_each,
)
from napari_semsr.services.opening import OpenOptions

if TYPE_CHECKING:
    from napari_semsr.services.simulate import SimulatedScan
    from napari_semsr.services.stitch import StitchedFile

__all__ = ["simulate_scan", "stitch_frames"]


def simulate_scan(
    folder: PathLike,
    image: Source | None = None,
    *,
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Any,
) -> "SimulatedScan":
    """Make a folder of superlens frames whose truth is known.

    The command is ``semsr simulate``; the name ``simulate`` belongs to the package of
    the phantoms and the microscope.

    Parameters
    ----------
    folder : path
        Receives frames, nominal positions and the truth.
    image : Micrograph, (Y, X) numpy.ndarray or path, optional
        What is scanned; a phantom is drawn when not given.
    overwrite : bool, default=False
        Replace an earlier simulation.
    progress : callable, optional
        Receives every `Progress`.
    **options : object
        Flags of the command, such as ``phantom``, ``frames_grid`` and ``seed``, and
        reading options.

    Returns
    -------
    SimulatedScan
        Number of frames, and where the truth is.
    """
    from napari_semsr.services import simulate as service

    chosen, opening = parse_each(options, service.SimulateOptions, OpenOptions)
    job = service.simulate(
        folder,
        image=as_optional(image),
        options=chosen,
        opening=opening.replace(pixel_size_nm=None),
        overwrite=overwrite,
    )
    return run(job, progress)


def stitch_frames(
    folder: PathLike,
    output: PathLike,
    *,
    positions: PathLike | None = None,
    positions_out: PathLike | None = None,
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Any,
) -> "StitchedFile":
    """Join the frames of a folder to one calibrated mosaic.

    The command is ``semsr stitch``; the name ``stitch`` belongs to the package that
    places the frames.

    Parameters
    ----------
    folder : path
        Frames, with ``positions.csv`` and ``scan.json`` where known.
    output : path
        Its suffix names the format.
    positions : path, optional
        Table of nominal positions, in place of the folder's own.
    positions_out : path, optional
        Receives the solved positions as a table.
    overwrite : bool, default=False
        Replace existing outputs.
    progress : callable, optional
        Receives every `Progress`.
    **options : object
        Flags of the command, such as ``grid``, ``overlap`` and ``flat_field``.

    Returns
    -------
    StitchedFile
        Positions, joints, warnings, and what was written.
    """
    from napari_semsr.services import stitch as service

    (chosen,) = parse_each(options, service.StitchFolderOptions)
    job = service.stitch(
        folder,
        output,
        positions=positions,
        positions_out=positions_out,
        options=chosen,
        overwrite=overwrite,
    )
    return run(job, progress)
