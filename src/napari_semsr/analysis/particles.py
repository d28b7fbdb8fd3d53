"""Particle sizes, as diameters of discs of equal area."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import measure, segmentation

from napari_semsr.analysis.gaps import ParticleOptions, find_particles
from napari_semsr.core import (
    FloatArray,
    Job,
    Micrograph,
    ShapeError,
    compute_relative_pitch,
)

_MAX_PARTS = 2  # average objects per label; chosen: grey levels have more
# A clear particle shares less than this part of its outline with others, and fills
# more than this share of the ellipse of its moments (a square 0.955, a triangle 0.83)
_MAX_SHARED, _MIN_FILL, _NEAR_PX = 0.5, 0.95, 2
_PROPERTIES = (
    *("label", "centroid", "area", "eccentricity"),
    *("axis_major_length", "axis_minor_length"),
)


@dataclass(frozen=True, slots=True)
class Particles:
    """Particles entirely inside the field, and counts of the excluded ones.

    Lengths and areas are in pixels of mean size, which differ from `centres_px` only if
    pixels are not square. `clear` is the fraction, by diameter, of particles that are
    round or convex and isolated, None for labels.
    """

    labels: NDArray[np.integer]  # (N,)
    centres_px: FloatArray  # (N, 2), ``(y, x)``
    areas_px: FloatArray  # (N,)
    diameters_px: FloatArray  # (N,), of discs of the same areas
    eccentricities: FloatArray  # (N,), of ellipses of the same second moments
    cut: int  # by the border or by missing pixels
    too_small: int
    known_px: int  # pixels of the field that have a value
    clear: float | None


def measure_particles(
    image: Micrograph, options: ParticleOptions | None = None, *, is_labels: bool
) -> Job[Particles]:
    """Measure the particles of an image (Y, X), or the objects of a label image.

    Missing pixels cut particles like the border.

    Raises
    ------
    ReadError
        If no pixel has a value.
    ShapeError
        If a label image has values other than object numbers and 0.
    """
    settings = options or ParticleOptions()
    labels: NDArray[Any]
    if is_labels:
        values = np.nan_to_num(image.array(), nan=0, posinf=0, neginf=0)
        numbers, labels = np.unique(np.append(0, values), return_inverse=True)
        labels, too_small = labels[1:].reshape(values.shape), 0
        parts, count = measure.label(labels, connectivity=2, return_num=True)
        integer = numbers[0] == 0 and np.array_equal(numbers, np.rint(numbers))
        if numbers.size == 2 and count > 1 and integer:  # a mask
            labels, numbers = parts, np.arange(count + 1)
        elif not integer or count > _MAX_PARTS * (numbers.size - 1):
            msg = (
                "A label image must have an integer label for each object and 0 "
                f"elsewhere, but {image.name} has grey levels; omit `labels` to find "
                "particles."
            )
            raise ShapeError(msg, code="not-labels")
        numbers = numbers.astype(int)
        del values, parts
    else:
        labels, too_small = yield from find_particles(image, settings)
        numbers = np.arange(labels.max() + 1)
    pitch = compute_relative_pitch(image.scale)
    regions = measure.regionprops_table(labels, properties=_PROPERTIES, spacing=pitch)
    diameters = np.sqrt(regions["area"] * 4 / np.pi)
    is_known = np.isfinite(image.array())
    edge = ndimage.binary_dilation(~is_known, np.ones((3, 3)), border_value=1)
    large = diameters >= settings.min_diameter_px
    whole = large & ~np.isin(regions["label"], labels[edge])
    regions = {name: values[whole] for name, values in regions.items()}
    centres = [regions[f"centroid-{axis}"] / pitch[axis] for axis in (0, 1)]
    return Particles(
        labels=numbers[regions["label"]],
        centres_px=np.stack(centres, axis=1),
        areas_px=regions["area"],
        diameters_px=diameters[whole],
        eccentricities=regions["eccentricity"],
        cut=int((large & ~whole).sum()),
        too_small=too_small + int((~large).sum()),
        known_px=int(is_known.sum()),
        clear=None if is_labels else _clear_fraction(labels, regions),
    )


def _clear_fraction(labels: NDArray[np.int32], regions: dict[str, Any]) -> float | None:
    """Return the diameter-weighted fraction of compact, isolated particles."""
    outline = segmentation.find_boundaries(labels, connectivity=2, mode="inner")
    window = 2 * _NEAR_PX + 1
    others = np.where(labels > 0, labels, np.iinfo(labels.dtype).max)
    contact = ndimage.maximum_filter(labels, window) != labels
    contact |= ndimage.minimum_filter(others, window) != labels
    length = np.bincount(labels[outline], minlength=labels.max() + 1)
    touching = np.bincount(labels[outline & contact], minlength=length.size)
    axes = regions["axis_major_length"] * regions["axis_minor_length"]
    clear = touching[regions["label"]] < _MAX_SHARED * length[regions["label"]]
    clear &= regions["area"] > _MIN_FILL * np.pi / 4 * axes
    sizes = np.sqrt(regions["area"])
    return float(sizes[clear].sum() / sizes.sum()) if sizes.size else None
