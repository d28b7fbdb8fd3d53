"""The electron microscope: how a beam sees the surface that light has seen.

Contrast is of another kind than light's. Secondary electrons leave a slope more easily
than a plane (bright edges), leave a hollow less easily (shadows at the foot of a wall
and in pits), and depend on the material; there is no interference. The probe is a few
nanometres wide and converges so slowly that its width hardly changes with height: a
depth of field hundreds of times that of the microsphere.
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from napari_semsr.core.options import Options
from napari_semsr.simulate.blur import blur_by_width
from napari_semsr.simulate.canvas import Plane
from napari_semsr.simulate.objects import Surface

__all__ = ["SemOptions", "acquire_sem", "sem_contrast"]

_WALL_CAP = 3.0  # emission of a vertical wall over that of a plane, less one


class SemOptions(Options):
    """Beam, detector and contrast of the electron microscope."""

    beam_nm: float = Field(
        default=6.0, gt=0, description="width of the probe at half maximum in nm"
    )
    convergence_mrad: float = Field(
        default=5.0, ge=0, description="half angle of the probe in milliradians"
    )
    focus_nm: float = Field(
        default=0.0, description="height of the probe's waist above the lowest surface"
    )
    edges: float = Field(
        default=0.5, ge=0, le=2, description="brightness added by slopes"
    )
    shadows: float = Field(
        default=0.6, ge=0, le=1, description="brightness lost in deep places"
    )
    escape_nm: float = Field(
        default=8.0, gt=0, description="depth from which electrons escape"
    )
    shadow_nm: float = Field(
        default=90.0, gt=0, description="distance over which walls cast shadows"
    )
    electrons: float = Field(
        default=300.0, ge=0, description="electrons per pixel at white; 0 for no noise"
    )


def sem_contrast(surface: Surface, options: SemOptions | None = None) -> Plane:
    """Emission of a surface under a beam, free of noise.

    Parameters
    ----------
    surface : Surface
        Height and material.
    options : SemOptions, optional
        Beam and contrast.

    Returns
    -------
    (Y, X) numpy.ndarray of float32
        Brightness in [0, 1].
    """
    chosen = options or SemOptions()
    height, pixel = surface.height_nm, surface.pixel_nm
    near = chosen.escape_nm / pixel
    slope = ndimage.gaussian_gradient_magnitude(height, near, mode="nearest") / pixel
    wall = np.minimum(np.sqrt(1 + slope**2) - 1, _WALL_CAP) / _WALL_CAP
    around = ndimage.gaussian_filter(height, chosen.shadow_nm / pixel, mode="nearest")
    sunk = np.clip((around - height) / chosen.shadow_nm, 0, 1)
    own = 0.30 + 0.22 * surface.material
    emitted = (own + chosen.edges * wall) * (1 - chosen.shadows * sunk)
    off = height - chosen.focus_nm
    width = np.hypot(chosen.beam_nm, 2e-3 * chosen.convergence_mrad * off) / pixel
    return np.clip(blur_by_width(emitted.astype(np.float32), width), 0, 1)


def acquire_sem(
    surface: Surface,
    options: SemOptions | None = None,
    *,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Take an electron image of a surface, on the surface's own grid.

    Parameters
    ----------
    surface : Surface
        Height and material.
    options : SemOptions, optional
        Beam, contrast, dose.
    rng : numpy.random.Generator
        Source of the shot noise.

    Returns
    -------
    (Y, X) numpy.ndarray of uint8
        Electron image.
    """
    chosen = options or SemOptions()
    light = sem_contrast(surface, chosen).astype(np.float64)
    if chosen.electrons > 0:
        light = rng.poisson(light * chosen.electrons) / chosen.electrons
    grey = np.clip(np.rint(255 * light), 0, 255)
    return np.asarray(grey, dtype=np.uint8)
