"""More looks at the same sample: repeated exposures, focal series, electron images."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.errors import OptionError
from napari_semsr.simulate.camera import expose
from napari_semsr.simulate.microscope import blur_by_height
from napari_semsr.simulate.scan import Scan, clean_frame
from napari_semsr.simulate.scene import Scene
from napari_semsr.simulate.sem import SemOptions, acquire_sem
from napari_semsr.simulate.stage import Stream

__all__ = [
    "FocalStep",
    "focal_series",
    "focus_range",
    "middle_frame",
    "repeat_exposures",
    "sem_of_scan",
]


@dataclass(frozen=True, slots=True)
class FocalStep:
    """One picture of a focal series.

    Attributes
    ----------
    focus_nm : float
        Height of the focal plane above the lowest surface.
    frame : (Y, X) numpy.ndarray of uint16
        Camera counts.
    """

    focus_nm: float
    frame: NDArray[np.uint16]


def middle_frame(scan: Scan) -> int:
    """Find the frame nearest to the middle of the scan.

    Parameters
    ----------
    scan : Scan
        A scan.

    Returns
    -------
    int
        Index into its frames.
    """
    off = (
        scan.nominal_px
        - (scan.nominal_px.min(axis=0) + scan.nominal_px.max(axis=0)) / 2
    )
    return int(np.argmin(np.hypot(off[:, 0], off[:, 1])))


def repeat_exposures(
    scan: Scan, count: int, *, frame: int | None = None
) -> NDArray[np.uint16]:
    """Take one field again and again: the same light, new noise.

    Parameters
    ----------
    scan : Scan
        The scan whose sample and microscope are used.
    count : int
        Number of exposures.
    frame : int, optional
        Which field; the middle one when not given.

    Returns
    -------
    (count, Y, X) numpy.ndarray of uint16
        Camera counts.
    """
    light = _light(scan, scan.scene, frame)
    return np.stack(
        [
            expose(light, scan.options, scan.options.rng(Stream.REPEAT, i))
            for i in range(count)
        ]
    )


def focus_range(scan: Scan, count: int) -> tuple[float, ...]:
    """Heights at which to focus.

    Parameters
    ----------
    scan : Scan
        A scan; of a drawn sample the range is its relief, of an image it is once the
        depth of field up and down.
    count : int
        Number of heights, evenly spaced.

    Returns
    -------
    tuple of float
        Heights in nm, rising.

    Raises
    ------
    OptionError
        If `count` is below 2.
    """
    if count < 2:
        msg = f"A focal series needs at least 2 steps, got {count}."
        raise OptionError(msg)
    surface = scan.scene.surface
    depth = scan.options.depth_of_field_nm
    low, high = (-depth, depth)
    if surface is not None:
        low, high = float(surface.height_nm.min()), float(surface.height_nm.max())
    return tuple(float(v) for v in np.linspace(low, high, count))


def focal_series(
    scan: Scan, heights_nm: tuple[float, ...], *, frame: int | None = None
) -> tuple[FocalStep, ...]:
    """Take one field with the focal plane at several heights.

    Parameters
    ----------
    scan : Scan
        The scan whose sample and microscope are used.
    heights_nm : tuple of float
        Focal planes above the lowest surface.
    frame : int, optional
        Which field; the middle one when not given.

    Returns
    -------
    tuple of FocalStep
        One for each height.
    """
    steps = []
    for index, height in enumerate(heights_nm):
        light = _light(scan, _refocused(scan, height), frame)
        noise = scan.options.rng(Stream.FOCUS, index)
        steps.append(FocalStep(height, expose(light, scan.options, noise)))
    return tuple(steps)


def sem_of_scan(scan: Scan, options: SemOptions | None = None) -> NDArray[np.uint8]:
    """Take an electron image of the whole scanned area, on the scene's fine grid.

    Parameters
    ----------
    scan : Scan
        A scan of a drawn sample.
    options : SemOptions, optional
        Beam, contrast, dose.

    Returns
    -------
    (Y, X) numpy.ndarray of uint8
        Electron image.

    Raises
    ------
    OptionError
        If the scan is of an image, which has no height.
    """
    if scan.scene.surface is None:
        msg = (
            "An electron image needs a drawn sample (--phantom), got a scan of an "
            "image, which has no height map."
        )
        raise OptionError(msg)
    return acquire_sem(scan.scene.surface, options, rng=scan.options.rng(Stream.SEM))


def _refocused(scan: Scan, height_nm: float) -> Scene:
    """Blur a scan's sample as seen with another focal plane."""
    scene = scan.scene
    options = scan.options.replace(focus_nm=height_nm)
    height = None if scene.surface is None else scene.surface.height_nm
    width = scene.fwhm_px * scene.oversampling
    return replace(scene, seen=blur_by_height(scene.sharp, height, width, options))


def _light(scan: Scan, scene: Scene, frame: int | None) -> NDArray[np.float64]:
    """Light of one field, at its true position and with its illumination."""
    index = middle_frame(scan) if frame is None else frame
    corner = scan.true_px[index]
    clean = clean_frame(scene, scene.coefficients(), corner, scan.options)
    return np.asarray(clean * scan.flat * scan.gains[index])
