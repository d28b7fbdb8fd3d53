"""Scanning electron microscope: simulated SEM images of optically imaged surfaces.

The contrast is not that of an optical image. More secondary electrons leave a slope
than a plane (bright edges), fewer leave a depression (shadows at the foot of walls and
pits), and their number depends on the material; there is no interference. The probe is
a few nanometres wide and has such a small convergence angle that its width hardly
changes with height: the depth of field is hundreds of times that of the microsphere.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.core import Float32Array, FloatArray, Options, option
from napari_semsr.simulation.canvas import apply_varying_blur
from napari_semsr.simulation.specimen import Specimen

# Scan effects: drift, charging, shot noise and read noise.
#
# In images, 0 is black and 1 is white. A field is scanned row by row from the top, each
# row from the left. The models are simple, meant for tests of corrections, and not
# fitted to an instrument.

_DECAY_PX = 40.0  # decay length of a charge; chosen
_TURNS = 4  # knots of the path of the drift; chosen

SCAN = "Scan and noise"
"""Title of the option group in a panel."""


class EffectOptions(Options):
    """Options for effects added to an image; none by default."""

    drift_px: float = option(
        0.0,
        "Drift",
        "drift of the field during the scan, in a random direction",
        unit="px",
        group=SCAN,
        ge=0,
    )
    line_jitter_px: float = option(
        0.0,
        "Line jitter",
        "standard deviation of the lateral jumps between rows",
        unit="px",
        step=0.1,
        group=SCAN,
        ge=0,
    )
    charging: float = option(
        0.0,
        "Charging",
        "strength of dark tails behind bright structures, over the range",
        step=0.1,
        group=SCAN,
        ge=0,
        le=2,
    )
    photons: float = option(
        0.0,
        "Electrons or photons",
        "electrons or photons per white pixel, for Poisson noise; 0 for none. White "
        "is the maximum of the data type, or of the image if it has floats or values "
        "below 0. Black is 0, or the minimum if it is lower",
        group=SCAN,
        ge=0,
    )
    read_noise: float = option(
        0.0,
        "Read noise",
        "standard deviation of Gaussian noise, on a scale from 0 to 255",
        group=SCAN,
        ge=0,
    )

    @property
    def has_effects(self) -> bool:
        """Whether any effect is added."""
        return any(getattr(self, name) > 0 for name in EffectOptions.model_fields)


def apply_drift(
    image: FloatArray, drift_px: float, line_jitter_px: float, rng: Generator
) -> tuple[FloatArray, FloatArray]:
    """Shift the rows of a scanned field; also return the shift of each row, (Y, 2)."""
    rows, columns = image.shape
    time = np.linspace(0, 1, rows)
    angle = rng.uniform(0, 2 * np.pi)
    knots = np.linspace(0, 1, _TURNS + 2)
    sideways = np.zeros(_TURNS + 2)
    # chosen: the path deviates by a third of its length
    sideways[1:-1] = rng.normal(0, 0.3, _TURNS)
    sigma, course = max(rows / (2 * _TURNS), 1e-3), np.interp(time, knots, sideways)
    aside = ndimage.gaussian_filter1d(course, sigma, mode="nearest")
    aside -= aside[0] + time * (aside[-1] - aside[0])
    path = np.outer(time, [np.sin(angle), np.cos(angle)])
    path += np.outer(aside, [np.cos(angle), -np.sin(angle)])
    shifts = drift_px * path
    shifts[:, 1] += line_jitter_px * rng.standard_normal(rows)
    y = (np.arange(rows) + shifts[:, 0])[:, None] + np.zeros((1, columns))
    x = np.arange(columns)[None, :] + shifts[:, 1][:, None]
    drifted: FloatArray = ndimage.map_coordinates(image, [y, x], mode="mirror")
    return drifted, shifts


def add_charging(image: FloatArray, strength: float) -> FloatArray:
    """Add tails along the scan behind structures brighter or darker than the mean."""
    from scipy import signal  # takes long to import

    decay = float(np.exp(-1 / _DECAY_PX))
    current = (image - image.mean()).ravel()
    stored_charge = signal.lfilter([0.0, 1 - decay], [1.0, -decay], current)
    return np.asarray(image - strength * stored_charge.reshape(image.shape))


def add_noise(
    image: FloatArray, photons: float, read_noise: float, rng: Generator
) -> FloatArray:
    """Add shot noise and read noise to an expected signal (Y, X).

    The signal ``s``, which must not be negative, has a variance of ``s / photons +
    read_noise**2``: `photons` are electrons per white pixel, 0 for no Poisson noise,
    and `read_noise` is over the range.
    """
    if photons > 0:
        image = rng.poisson(np.maximum(image, 0) * photons) / photons
    return np.asarray(image + rng.normal(0, read_noise, image.shape))


def add_effects(
    image: FloatArray, options: EffectOptions, *, seed: int = 0
) -> tuple[FloatArray, dict[str, object]]:
    """Add drift, charging and noise, in this order.

    In the image (Y, X), 0 is black and 1 is white; the result is not rounded or
    clipped, and all parameters are returned with it. The seed has separate streams for
    drift and noise.
    """
    parameters: dict[str, object] = {}
    if options.drift_px > 0 or options.line_jitter_px > 0:
        rng = np.random.default_rng([seed, 1])
        drift, jitter = options.drift_px, options.line_jitter_px
        image, shifts = apply_drift(image, drift, jitter, rng)
        parameters |= {"drift_px": drift, "line_jitter_px": jitter}
        parameters["last_row_shift_px"] = shifts[-1].tolist()
    if options.charging > 0:
        image = add_charging(image, options.charging)
        parameters |= {"charging": options.charging, "charge_decay_px": _DECAY_PX}
    if options.photons > 0 or options.read_noise > 0:
        rng = np.random.default_rng([seed, 2])
        image = add_noise(image, options.photons, options.read_noise / 255, rng)
        parameters |= {"photons": options.photons, "read_noise": options.read_noise}
    return image, parameters


# Beam, detector and contrast; chosen.
_WALL_CAP = 3.0  # emission of a vertical wall over that of a plane, minus one
_EDGES, _SHADOWS = 0.5, 0.6  # brightness added by slopes, and lost in depressions
_SHADOW_NM = 90.0  # distance over which walls cast shadows
_ELECTRONS = 300.0  # per pixel at white


def compute_sem_contrast(
    surface: Specimen, *, edges: float = _EDGES, shadows: float = _SHADOWS
) -> Float32Array:
    """Compute the emission (Y, X) of a surface under a beam, without noise."""
    height, pixel = surface.height_nm, surface.pixel_nm
    near = 8.0 / pixel  # nm; chosen: depth from which electrons escape
    slope = ndimage.gaussian_gradient_magnitude(height, near, mode="nearest") / pixel
    wall = np.minimum(np.sqrt(1 + slope**2) - 1, _WALL_CAP) / _WALL_CAP
    around = ndimage.gaussian_filter(height, _SHADOW_NM / pixel, mode="nearest")
    depth = np.clip((around - height) / _SHADOW_NM, 0, 1)
    own = 0.30 + 0.22 * surface.material
    emission = (own + edges * wall) * (1 - shadows * depth)
    # width of the probe, and half of its angle; chosen
    width = np.hypot(6.0, 2 * 5e-3 * height) / pixel
    return np.clip(apply_varying_blur(emission.astype(np.float32), width), 0, 1)


def simulate_sem_image(
    surface: Specimen, electrons: float = _ELECTRONS, *, rng: Generator
) -> NDArray[np.uint8]:
    """Simulate an SEM image (Y, X) of a surface, on the grid of the surface."""
    light = compute_sem_contrast(surface).astype(np.float64)
    if electrons > 0:
        light = rng.poisson(light * electrons) / electrons
    grey = np.clip(np.rint(255 * light), 0, 255)
    return np.asarray(grey, dtype=np.uint8)
