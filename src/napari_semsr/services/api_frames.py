"""The Python interface to scans: frames made of a sample."""

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

__all__ = ["simulate_scan"]


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
