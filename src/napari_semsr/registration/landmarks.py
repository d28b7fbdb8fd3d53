"""A transform from places that someone found in both images.

Landmarks are fitted by least squares, a similarity in closed form [1]_. A landmark that
was set wrongly draws the fit towards itself, so that its residual flatters it: what
counts is how far the fit of all others misses it. From the same fit follows how far off
the transform itself is expected anywhere, a place at a time: the scatter of the
residuals, carried along by the linear model.

.. [1] S. Umeyama, IEEE Trans. Pattern Anal. Mach. Intell. 13, 376 (1991),
   doi:10.1109/34.88573.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from napari_semsr.core import Affine, FloatArray, Grid, RegistrationError
from napari_semsr.registration.refine import Model, design_of

_LEAST = 3  # pairs; of two nothing tells a wrong one
_PARAMETERS = {"similarity": 4, "affine": 6}

# Chosen: of landmarks this much flatter than long a fit follows their errors across the
# line twenty times enlarged.
_FLATTEST = 0.05
_TOGETHER = 1e-3  # of the extent of all; chosen: the same place, set twice


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Places ``(y, x)`` that show the same in two images, in one unit for both."""

    moving: FloatArray  # (N, 2)
    fixed: FloatArray  # (N, 2)

    def __post_init__(self) -> None:
        shapes = self.moving.shape, self.fixed.shape
        if shapes[0] != shapes[1] or len(shapes[0]) != 2 or shapes[0][1] != 2:
            count = " and ".join(str(len(side)) for side in (self.moving, self.fixed))
            msg = f"Landmarks come in pairs, got {count}: set each in both images."
            raise RegistrationError(msg, code="landmarks-unpaired")
        if not (np.isfinite(self.moving).all() and np.isfinite(self.fixed).all()):
            msg = "A landmark has two finite numbers in each image, y and x."
            raise RegistrationError(msg, code="landmarks-invalid")

    def __len__(self) -> int:
        return len(self.moving)

    def without(self, number: int) -> "Landmarks":
        """Leave one pair out, counted from 0."""
        both_places = self.moving, self.fixed
        return Landmarks(*(np.delete(each, number, axis=0) for each in both_places))

    def check(self, moving: Grid, fixed: Grid) -> None:
        """Refuse, by a `RegistrationError`, those outside their image.

        The grids of the images are in the unit of the landmarks.
        """
        sides = ("moving", self.moving, moving), ("fixed", self.fixed, fixed)
        for name, places, grid in sides:
            outside = ((places < grid.corner) | (places > grid.end)).any(axis=1)
            if outside.any():
                number = int(np.argmax(outside))
                y, x = places[number]
                (top, left), (bottom, right) = grid.corner, grid.end
                msg = (
                    f"Landmark {number + 1} lies outside the {name} image: at "
                    f"{y:.6g}, {x:.6g}, where it reaches from {top:.6g}, {left:.6g} "
                    f"to {bottom:.6g}, {right:.6g}. Move it or delete it, and check "
                    "the unit and the order (y, x)."
                )
                raise RegistrationError(msg, code="landmark-outside")


@dataclass(frozen=True, eq=False)
class LandmarkFit:
    """What landmarks tell."""

    landmarks: Landmarks  # What was fitted
    model: Model
    transform: Affine  # From the moving image to the fixed one

    @cached_property
    def residuals(self) -> FloatArray:
        """By how much (N, 2) the mapped landmarks lie off those of the fixed image."""
        return np.asarray(self.transform(self.landmarks.moving) - self.landmarks.fixed)

    @property
    def distances(self) -> FloatArray:
        """Length (N,) of each residual."""
        return np.asarray(np.hypot(*self.residuals.T))

    @property
    def scatter(self) -> float | None:
        """Standard error of a landmark along an axis; None without a spare number."""
        spare = 2 * len(self.landmarks) - _PARAMETERS[self.model]
        if spare <= 0:
            return None
        return float(np.sqrt((self.residuals**2).sum() / spare))

    @cached_property
    def misses(self) -> FloatArray:
        """By how much (N, 2) the fit of all others misses each; NaN if that is open."""
        all_misses = np.full((len(self.landmarks), 2), np.nan)
        for number in range(len(self.landmarks)):
            rest = self.landmarks.without(number)
            if len(rest) * 2 < _PARAMETERS[self.model] or _flatness(rest) < _FLATTEST:
                continue
            other = _fit(rest, self.model, is_mirrored=self.transform.is_mirrored)
            place = other(self.landmarks.moving[number])
            all_misses[number] = place - self.landmarks.fixed[number]
        return all_misses

    @property
    def left_out(self) -> FloatArray:
        """Length (N,) of each of these misses."""
        return np.asarray(np.hypot(*self.misses.T))

    def expected_error(self, places: FloatArray) -> FloatArray | None:
        """Root mean square (N,) by which the transform may be off at places (N, 2).

        Of the moving image; None where no landmark is spare.
        """
        if self.scatter is None:
            return None
        is_mirrored = self.transform.is_mirrored
        middle = self.landmarks.moving.mean(axis=0)
        design = _rows(
            self.landmarks.moving - middle, self.model, is_mirrored=is_mirrored
        )
        target_rows = _rows(
            np.asarray(places) - middle, self.model, is_mirrored=is_mirrored
        )
        spread = np.linalg.pinv(design.T @ design)
        variance = np.einsum("ij,jk,ik->i", target_rows, spread, target_rows)
        return np.asarray(self.scatter * np.sqrt(variance.reshape(-1, 2).sum(axis=1)))


def fit_landmarks(landmarks: Landmarks, model: Model = "affine") -> LandmarkFit:
    """Find the transform that brings landmarks of one image onto those of another.

    Parameters
    ----------
    landmarks : Landmarks
        Three pairs or more, not on one line.
    model : {"affine", "similarity"}
        What the transform may do; either may swap left and right.

    Raises
    ------
    RegistrationError
        If the landmarks are too few, coincide, or lie on a line.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_semsr.registration import Landmarks, fit_landmarks
    >>> fixed = np.array([[0, 0], [0, 90], [70, 20], [60, 80.0]])
    >>> fit = fit_landmarks(Landmarks(fixed / 2 + 5, fixed), "similarity")
    >>> round(fit.transform.scale, 6)
    2.0
    >>> fit.transform(np.array([5.0, 50.0])).round(6) + 0.0
    array([ 0., 90.])
    """
    _check(landmarks)
    linear = _fit(landmarks, "affine", is_mirrored=False).linear
    is_mirrored = bool(np.linalg.det(linear) < 0)
    return LandmarkFit(
        landmarks, model, _fit(landmarks, model, is_mirrored=is_mirrored)
    )


def _check(landmarks: Landmarks) -> None:
    if len(landmarks) < _LEAST:
        msg = (
            f"A transform needs {_LEAST} pairs of landmarks or more, got "
            f"{len(landmarks)}: set more of them, far apart."
        )
        raise RegistrationError(msg, code="too-few-landmarks")
    for name, places in (("moving", landmarks.moving), ("fixed", landmarks.fixed)):
        apart = np.hypot(*np.moveaxis(places[:, None] - places, -1, 0))
        apart[np.diag_indices(len(places))] = np.inf
        near = apart <= _TOGETHER * np.hypot(*np.ptp(places, axis=0))
        if near.any():
            one, two = np.argwhere(near)[0] + 1
            msg = (
                f"Landmarks {one} and {two} are one place in the {name} image: delete "
                "one of them, or move it to where it belongs."
            )
            raise RegistrationError(msg, code="landmarks-alike")
    if _flatness(landmarks) < _FLATTEST:
        msg = (
            f"The {len(landmarks)} landmarks lie on a line, which leaves open what is "
            "beside it: set one more, far away from that line."
        )
        raise RegistrationError(msg, code="landmarks-on-line")


def _flatness(landmarks: Landmarks) -> float:
    """Width over length of the landmarks, in the image where they are flatter."""
    flatness = []
    for places in (landmarks.moving, landmarks.fixed):
        length, width = np.linalg.svd(places - places.mean(axis=0), compute_uv=False)
        flatness.append(width / length if length else 0.0)
    return float(min(flatness))


def _rows(places: FloatArray, model: Model, *, is_mirrored: bool) -> FloatArray:
    """Rows (2 N, parameters) of the linear model: the mapped y, x of each place."""
    return design_of(places, model, is_mirrored=is_mirrored).reshape(
        2 * len(places), -1
    )


def _fit(landmarks: Landmarks, model: Model, *, is_mirrored: bool) -> Affine:
    """Fit by least squares, about the means, so that places far away lose nothing."""
    first, second = landmarks.moving.mean(axis=0), landmarks.fixed.mean(axis=0)
    rows = _rows(landmarks.moving - first, model, is_mirrored=is_mirrored)
    solution = np.linalg.lstsq(rows, (landmarks.fixed - second).ravel(), rcond=None)[0]
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    at_zero, down, right = design_of(corners, model, is_mirrored=is_mirrored) @ solution
    linear = np.stack([down - at_zero, right - at_zero], axis=1)
    return Affine.of(linear, second + at_zero - linear @ first)
