r"""Count the objects that an image shows, misses or invents.

Objects are bright or dark blobs of one diameter: local extrema of the smaller principal
curvature at :math:`\sigma = d / \sqrt 8` [1]_. Particles, pits, line ends and crossings
have such extrema; straight lines and edges do not. The diameter is the one at which the
reference has the most contrast beyond its noise. All images use the same filter and
threshold, at the contrast of their display (1st to 99th percentile), so that the count
includes what a viewer sees, not what a linear fit could reveal.

References
----------
.. [1] T. Lindeberg, Int. J. Comput. Vis. 30, 79 (1998), doi:10.1023/A:1008045108935.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import scipy  # the submodules are loaded lazily
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.distance import cdist
from skimage.feature import peak_local_max

from napari_semsr import core

_DIAMETERS_PX = tuple(np.geomspace(4, 24, 9))  # chosen: between noise and shading
_SHARE = 0.35  # chosen: share of the strongest objects' response; fainter are not seen
_RADIUS, _MIN_PX = 1 / 3, 1.5  # chosen: search radius, over the diameter, and in px
_MIN_DIAMETERS = 4  # smallest side of an image, in diameters


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectCount:
    """Counts of the objects that an image shows, misses and invents.

    `inverted` objects are missed ones for which the image has the opposite contrast.
    `drawn` counts all objects of the image, `invented` those that the reference does
    not have. Intervals are 95 % intervals (Wilson) of shares in per cent.
    """

    diameter_px: float
    objects: Annotated[int, core.Quantity("Objects in the reference", form="d")]
    shown: Annotated[int, core.Quantity("Shown", form="d")]
    missed: Annotated[int, core.Quantity("Missed", form="d")]
    inverted: Annotated[int, core.Quantity("Inverted", form="d")]
    drawn: Annotated[int, core.Quantity("Objects in the image", form="d")]
    invented: Annotated[int, core.Quantity("Invented", form="d")]

    def __add__(self, other: "ObjectCount") -> "ObjectCount":
        """Add the counts of two images for the same diameter."""
        names = ["objects", "shown", "missed", "inverted", "drawn", "invented"]
        sums = {name: getattr(self, name) + getattr(other, name) for name in names}
        return ObjectCount(diameter_px=self.diameter_px, **sums)

    @core.create_property("Shown, 95 % interval")
    def shown_interval(self) -> core.FloatPair | None:
        """95 % Wilson interval of the percentage of objects shown."""
        return compute_percent_interval(self.shown, self.objects)

    @core.create_property("Invented, 95 % interval")
    def invented_interval(self) -> core.FloatPair | None:
        """95 % Wilson interval of the percentage of objects drawn but not there."""
        return compute_percent_interval(self.invented, self.drawn)


def compute_percent_interval(count: int, total: int) -> core.FloatPair | None:
    """Estimate the 95 % Wilson interval of a percentage; None if the total is 0."""
    from napari_semsr.analysis.gaps import compute_fraction_interval  # slow to import

    interval = compute_fraction_interval(count, total)
    return interval and (100 * interval[0], 100 * interval[1])


def find_object_diameter(reference: core.FloatArray) -> float:
    """Find the diameter in pixels at which an image (Y, X) has the most contrast.

    Maximises the variance of the scale-normalised Laplacian minus that of white noise
    of the same strength as in the image.
    """
    noise = core.estimate_noise_level(reference)
    plane = np.asarray(reference, dtype=np.float64)

    def compute_contrast(diameter: float) -> float:
        sigma = diameter / math.sqrt(8)
        responses = sigma**2 * ndimage.gaussian_laplace(plane, sigma)
        # of a Laplacian of white noise: two second derivatives and their cross term
        chance = noise**2 * _compute_noise_response(diameter) ** 2 * 8 / 3
        return float(np.var(responses)) - chance

    return float(max(_DIAMETERS_PX, key=compute_contrast))


def count_objects(
    image: core.FloatArray, reference: core.FloatArray, diameter_px: float | None = None
) -> ObjectCount:
    """Count the objects that an image shows, misses or invents.

    An object is shown if the image has an extremum of the same sign within a radius of
    it, at least half as high as an object must be; each extremum is one object.

    Parameters
    ----------
    image, reference : (Y, X) numpy.ndarray
        Planes on one grid, without gaps.
    diameter_px : float, optional
        By default from `find_object_diameter`; use one value for all images to compare.

    Raises
    ------
    ShapeError
        If the planes differ in shape, or a side is shorter than four diameters.
    """
    if image.shape != reference.shape:
        msg = (
            f"Both images must have the same shape, got "
            f"{core.format_shape(image.shape)} and "
            f"{core.format_shape(reference.shape)}."
        )
        raise core.ShapeError(msg, code="sizes-differ")
    diameter = diameter_px or find_object_diameter(reference)
    if min(reference.shape) < _MIN_DIAMETERS * diameter:
        msg = (
            f"Counting objects of {diameter:.0f} px needs an image of at least "
            f"{math.ceil(_MIN_DIAMETERS * diameter)} px on each side, got "
            f"{min(reference.shape)} px."
        )
        raise core.ShapeError(msg, code="image-too-small")
    displayed = [_scale_to_display_range(one, diameter) for one in (image, reference)]
    responses = [_compute_response(one, diameter) for one in displayed]
    noise = core.estimate_noise_level(displayed[1]) * _compute_noise_response(diameter)
    extrema = [_find_extrema(response, diameter) for response in responses]
    heights = np.abs(extrema[1].heights)
    # percentile of extrema heights that represents the strongest objects
    strong = float(np.percentile(heights, 95)) if heights.size else 0.0
    # standard deviations of noise; one in ten million pixels exceeds it
    # of the displayed range: less contrast means no objects
    threshold = max(5.0 * noise, _SHARE * strong, 1e-6)
    there, here = extrema[1].select_above(threshold), extrema[0].select_above(threshold)
    # of the threshold: those between are not counted; chosen
    weak = [found.select_above(0.5 * threshold) for found in extrema]
    is_shown = _match_extrema(there, weak[0], diameter)
    opposite = _Extrema(weak[0].places, -weak[0].heights)
    is_inverted = ~is_shown & _match_extrema(there, opposite, diameter)
    is_true = _match_extrema(here, weak[1], diameter)
    return ObjectCount(
        diameter_px=diameter,
        objects=is_shown.size,
        shown=int(is_shown.sum()),
        missed=int((~is_shown).sum()),
        inverted=int(is_inverted.sum()),
        drawn=is_true.size,
        invented=int((~is_true).sum()),
    )


def _scale_to_display_range(image: core.FloatArray, diameter: float) -> core.FloatArray:
    """Scale an image so that its display range is 0 to 1."""
    plane = np.asarray(image, dtype=np.float64)
    # of the diameter: noise must not widen the displayed range
    soft = ndimage.gaussian_filter(plane, 0.25 * diameter)
    # percentiles between which a viewer displays an image
    low, high = np.percentile(soft, (1, 99))
    return np.asarray((plane - low) / max(high - low, np.finfo(np.float32).tiny))


def _compute_response(image: core.FloatArray, diameter: float) -> core.FloatArray:
    """Compute the smaller principal curvature; 0 if the two differ in sign."""
    sigma = diameter / math.sqrt(8)
    yy, xx, yx = (
        sigma**2 * ndimage.gaussian_filter(image, sigma, order=order)
        for order in ((2, 0), (0, 2), (1, 1))
    )
    mean, apart = (yy + xx) / 2, np.hypot((yy - xx) / 2, yx)
    return np.asarray(-np.sign(mean) * np.maximum(np.abs(mean) - apart, 0))


def _compute_noise_response(diameter: float) -> float:
    """Return the standard deviation of the second derivative of unit white noise."""
    sigma = diameter / math.sqrt(8)
    side = 2 * math.ceil(2 * diameter) + 1
    point = np.zeros((side, side))
    point[side // 2, side // 2] = 1
    second = sigma**2 * ndimage.gaussian_filter(point, sigma, order=(2, 0))
    return float(np.sqrt((second**2).sum()))


@dataclass(frozen=True, slots=True)
class _Extrema:
    """Positions (N, 2) of maxima and minima, and their signed heights (N,)."""

    places: NDArray[np.int_]
    heights: core.FloatArray

    def select_above(self, threshold: float) -> "_Extrema":
        """Return the extrema whose height reaches a threshold."""
        high_enough = np.abs(self.heights) >= threshold
        return _Extrema(self.places[high_enough], self.heights[high_enough])


def _find_extrema(response: core.FloatArray, diameter: float) -> _Extrema:
    """Find the extrema of both signs, at least a radius from the border."""
    places = [
        peak_local_max(
            sign * response,
            min_distance=max(1, round(diameter / 4)),
            threshold_abs=0.0,
            exclude_border=math.ceil(diameter / 2),
        )
        for sign in (1, -1)
    ]
    both = np.concatenate(places)
    return _Extrema(both, np.asarray(response[tuple(both.T)]))


def _match_extrema(
    targets: _Extrema, candidates: _Extrema, diameter: float
) -> NDArray[np.bool_]:
    """Match extrema one to one with partners of the same sign within a radius."""
    has_partner = np.zeros(len(targets.places), dtype=bool)
    for sign in (1, -1):
        one, other = (
            np.flatnonzero(sign * e.heights > 0) for e in (targets, candidates)
        )
        if not one.size or not other.size:
            continue
        apart = cdist(targets.places[one], candidates.places[other])
        near = np.minimum(apart, diameter)  # so that distant pairs have no influence
        rows, columns = scipy.optimize.linear_sum_assignment(near)
        limit = max(_MIN_PX, _RADIUS * diameter)
        has_partner[one[rows]] = apart[rows, columns] <= limit
    return has_partner
