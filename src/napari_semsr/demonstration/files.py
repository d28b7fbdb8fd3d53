"""What the demonstration writes, and where."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import Micrograph, WriteError
from napari_semsr.io import check_target
from napari_semsr.jobs import check_target_folder

_FILES = {
    "report": "report.html",
    "figures": "figures.json",
    "scan": "scan",
    "scan_again": "scan-again",
    "mosaic": "mosaic/mosaic.ome.zarr",
    "mosaic_again": "mosaic/mosaic-again.ome.zarr",
    "mosaic_enhanced": "mosaic/enhanced.ome.zarr",
    "mosaic_baseline": "mosaic/wiener.ome.tif",
    "mosaic_truth": "mosaic/truth.ome.tif",
    "mosaic_map": "mosaic/frc-map-exposures.ome.tif",
    "mosaic_map_before": "mosaic/frc-map-before.ome.tif",
    "mosaic_map_after": "mosaic/frc-map-after.ome.tif",
    "positions": "mosaic/solved-positions.csv",
    "sem_truth": "sem/truth.tif",
    "sem_first": "sem/exposure-1.tif",
    "sem_second": "sem/exposure-2.tif",
    "sem_baseline": "sem/wiener.tif",
    "sem_enhanced": "sem/enhanced.ome.zarr",
    "sem_map": "sem/frc-map-exposures.ome.tif",
    "sem_map_before": "sem/frc-map-before.ome.tif",
    "sem_map_after": "sem/frc-map-after.ome.tif",
}
_PAGES = ("report", "figures", "positions")
_IMAGES = (".tif", ".ome.zarr")


def demo_paths(folder: Path) -> dict[str, Path]:
    """Name what the demonstration writes.

    Parameters
    ----------
    folder : pathlib.Path
        Where.

    Returns
    -------
    dict
        Paths by role.
    """
    return {role: folder / name for role, name in _FILES.items()}


def prepare_folder(folder: Path, *, overwrite: bool) -> dict[str, Path]:
    """Refuse a folder that cannot be filled, before anything is computed.

    Parameters
    ----------
    folder : pathlib.Path
        Where; made if its parent exists.
    overwrite : bool
        Replace what an earlier run left there.

    Returns
    -------
    dict
        Paths by role; their folders exist.

    Raises
    ------
    WriteError
        If something is in the way, or the system refuses.
    """
    target = check_target_folder(folder, overwrite=overwrite)
    paths = demo_paths(target)
    for role in _PAGES:
        if paths[role].is_dir():
            msg = f"{paths[role]} is a folder where a file shall go: move it away."
            raise WriteError(msg)
    _make_folders(paths)
    for path in paths.values():
        if path.name.endswith(_IMAGES):
            check_target(path, overwrite=True)
    return paths


def _make_folders(paths: dict[str, Path]) -> None:
    """Make the folders of all files."""
    try:
        for place in sorted({path.parent for path in paths.values()}):
            place.mkdir(exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        msg = f"{error.filename} cannot be made a folder ({reason}): choose another."
        raise WriteError(msg) from error


def write_image(image: Micrograph, path: Path) -> None:
    """Write an image that the demonstration owns.

    Parameters
    ----------
    image : Micrograph
        What to write.
    path : pathlib.Path
        Where; replaced if it exists.
    """
    from napari_semsr.io import write

    write(image, path, overwrite=True)


# The classical restoration that the demonstration shows beside the network.


def estimate_wiener(image: Micrograph, *, sigma_px: float = 1.0) -> Micrograph:
    """Restore an image by scikit-image's unsupervised Wiener filter.

    Parameters
    ----------
    image : Micrograph
        A blurred, noisy image.
    sigma_px : float, default=1.0
        Width of the Gaussian blur, which the filter must be told.

    Returns
    -------
    Micrograph
        In float32 and the grey scale of the input.

    Notes
    -----
    The strength of the regularisation is sampled, not given [1]_; its draws are seeded.

    References
    ----------
    .. [1] F. Orieux, J.-F. Giovannelli, T. Rodet, J. Opt. Soc. Am. A 27, 1593 (2010),
       doi:10.1364/JOSAA.27.001593.
    """
    from skimage.restoration import unsupervised_wiener

    data = np.asarray(image.array(), dtype=np.float64)
    low, high = float(data.min()), float(data.max())
    span = max(high - low, 1e-12)
    restored, _ = unsupervised_wiener(
        (data - low) / span, _gaussian(sigma_px), clip=False, rng=0
    )
    grey = (restored * span + low).astype(np.float32)
    return image.replace(data=grey, name="wiener", provenance=None)


def _gaussian(sigma_px: float) -> NDArray[np.float64]:
    """Point-spread function of the blur."""
    half = max(1, round(3 * sigma_px))
    line = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma_px) ** 2)
    kernel: NDArray[np.float64] = np.outer(line, line)
    kernel /= kernel.sum()
    return kernel
