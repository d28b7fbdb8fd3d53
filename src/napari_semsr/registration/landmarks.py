"""Transform fitted to landmarks marked in both images.

Landmarks are fitted by least squares, a similarity in closed form [1]_. A misplaced
landmark pulls the fit towards itself, so that its residual is too small: use its
distance from the fit of all others instead. The expected error of the transform at any
position follows from the scatter of the residuals, propagated by the linear model.

.. [1] S. Umeyama, IEEE Trans. Pattern Anal. Mach. Intell. 13, 376 (1991),
   doi:10.1109/34.88573.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from napari_semsr.core import Affine, FloatArray, Grid, RegistrationError
from napari_semsr.registration.refine import Model, build_design_matrix

_LEAST = 3  # pairs; with two a misplaced one cannot be detected
_PARAMETERS = {"similarity": 4, "affine": 6}

# Chosen: for landmarks with this ratio of width to length, a fit amplifies their errors
# across the line twenty times.
_FLATTEST = 0.05


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Corresponding points ``(y, x)`` in two images, in the same unit."""

    moving: FloatArray  # (N, 2)
    fixed: FloatArray  # (N, 2)

    def __post_init__(self) -> None:
        shapes = self.moving.shape, self.fixed.shape
        if shapes[0] != shapes[1] or len(shapes[0]) != 2 or shapes[0][1] != 2:
            count = " and ".join(str(len(side)) for side in (self.moving, self.fixed))
            msg = (
                f"Landmarks must come in pairs, got {count}: mark each point in both "
                "images."
            )
            raise RegistrationError(msg, code="landmarks-unpaired")
        if not (np.isfinite(self.moving).all() and np.isfinite(self.fixed).all()):
            msg = "Each landmark needs two finite coordinates (y, x) in both images."
            raise RegistrationError(msg, code="landmarks-invalid")

    def __len__(self) -> int:
        return len(self.moving)

    def remove_pair(self, number: int) -> "Landmarks":
        """Return the landmarks without the pair of the given index."""
        both_places = self.moving, self.fixed
        return Landmarks(*(np.delete(each, number, axis=0) for each in both_places))

    def check_bounds(self, moving: Grid, fixed: Grid) -> None:
        """Raise `RegistrationError` if a landmark is outside its image.

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
                    f"Landmark {number + 1} is outside the {name} image: it is at "
                    f"{y:.6g}, {x:.6g}, but the image extends from {top:.6g}, "
                    f"{left:.6g} to {bottom:.6g}, {right:.6g}. Move or delete it, and "
                    "check the unit and the order (y, x)."
                )
                raise RegistrationError(msg, code="landmark-outside")


@dataclass(frozen=True, eq=False)
class LandmarkFit:
    """Transform fitted to landmarks."""

    landmarks: Landmarks
    model: Model
    transform: Affine  # From the moving image to the fixed one

    @cached_property
    def residuals(self) -> FloatArray:
        """Differences (N, 2) between mapped and fixed landmarks."""
        return np.asarray(self.transform(self.landmarks.moving) - self.landmarks.fixed)

    @property
    def distances(self) -> FloatArray:
        """Length (N,) of each residual."""
        return np.asarray(np.hypot(*self.residuals.T))

    @property
    def scatter(self) -> float | None:
        """Standard error of a landmark along one axis; None without redundancy."""
        spare = 2 * len(self.landmarks) - _PARAMETERS[self.model]
        if spare <= 0:
            return None
        return float(np.sqrt((self.residuals**2).sum() / spare))

    @cached_property
    def held_out_residuals(self) -> FloatArray:
        """Residuals (N, 2) from the fit of all other landmarks; NaN if undetermined."""
        all_misses = np.full((len(self.landmarks), 2), np.nan)
        for number in range(len(self.landmarks)):
            rest = self.landmarks.remove_pair(number)
            is_determined = len(rest) * 2 >= _PARAMETERS[self.model]
            if is_determined and _compute_flatness(rest) >= _FLATTEST:
                is_mirrored = self.transform.is_mirrored
                other = _fit_affine(rest, self.model, is_mirrored=is_mirrored)
                place = other(self.landmarks.moving[number])
                all_misses[number] = place - self.landmarks.fixed[number]
        return all_misses

    @property
    def held_out_distances(self) -> FloatArray:
        """Length (N,) of each held-out residual."""
        return np.asarray(np.hypot(*self.held_out_residuals.T))

    def estimate_error(self, places: FloatArray) -> FloatArray | None:
        """Return the expected RMS error (N,) of the transform at positions (N, 2).

        Positions in the moving image; None if no landmark is redundant.
        """
        if self.scatter is None:
            return None
        is_mirrored = self.transform.is_mirrored
        middle = self.landmarks.moving.mean(axis=0)
        design, target_rows = (
            _build_design_rows(at - middle, self.model, is_mirrored=is_mirrored)
            for at in (self.landmarks.moving, np.asarray(places))
        )
        spread = np.linalg.pinv(design.T @ design)
        variance = np.einsum("ij,jk,ik->i", target_rows, spread, target_rows)
        return np.asarray(self.scatter * np.sqrt(variance.reshape(-1, 2).sum(axis=1)))


def fit_landmarks(landmarks: Landmarks, model: Model = "affine") -> LandmarkFit:
    """Fit the transform that maps landmarks in one image to those in the other.

    Parameters
    ----------
    landmarks : Landmarks
        Three pairs or more, not on one line.
    model : {"affine", "similarity"}
        Type of the transform; either may include a reflection.

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
    if len(landmarks) < _LEAST:
        msg = (
            f"A transform needs at least {_LEAST} landmark pairs, got "
            f"{len(landmarks)}: add more pairs, far apart."
        )
        raise RegistrationError(msg, code="too-few-landmarks")
    for name, places in (("moving", landmarks.moving), ("fixed", landmarks.fixed)):
        apart = np.hypot(*np.moveaxis(places[:, None] - places, -1, 0))
        apart[np.diag_indices(len(places))] = np.inf
        # chosen: landmarks closer than this share of the extent are one point set twice
        near = apart <= 1e-3 * np.hypot(*np.ptp(places, axis=0))
        if near.any():
            one, two = np.argwhere(near)[0] + 1
            msg = (
                f"Landmarks {one} and {two} coincide in the {name} image: delete or "
                "move one of them."
            )
            raise RegistrationError(msg, code="landmarks-alike")
    if _compute_flatness(landmarks) < _FLATTEST:
        msg = (
            f"The {len(landmarks)} landmarks lie on a line, which does not determine "
            "the transform: add one far from that line."
        )
        raise RegistrationError(msg, code="landmarks-on-line")
    linear = _fit_affine(landmarks, "affine", is_mirrored=False).linear
    is_mirrored = bool(np.linalg.det(linear) < 0)
    transform = _fit_affine(landmarks, model, is_mirrored=is_mirrored)
    return LandmarkFit(landmarks, model, transform)


def _compute_flatness(landmarks: Landmarks) -> float:
    """Return the landmarks' width-to-length ratio in the image where it is smaller."""
    flatness = []
    for places in (landmarks.moving, landmarks.fixed):
        length, width = np.linalg.svd(places - places.mean(axis=0), compute_uv=False)
        flatness.append(width / length if length else 0.0)
    return float(min(flatness))


def _build_design_rows(
    places: FloatArray, model: Model, *, is_mirrored: bool
) -> FloatArray:
    """Return the design-matrix rows (2 N, parameters) for mapped y and x."""
    design = build_design_matrix(places, model, is_mirrored=is_mirrored)
    return design.reshape(-1, design.shape[-1])  # also of no places


def _fit_affine(landmarks: Landmarks, model: Model, *, is_mirrored: bool) -> Affine:
    """Fit an affine transform by least squares, centred for numerical precision."""
    first, second = landmarks.moving.mean(axis=0), landmarks.fixed.mean(axis=0)
    rows = _build_design_rows(landmarks.moving - first, model, is_mirrored=is_mirrored)
    solution = np.linalg.lstsq(rows, (landmarks.fixed - second).ravel(), rcond=None)[0]
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    at_zero, down, right = (
        build_design_matrix(corners, model, is_mirrored=is_mirrored) @ solution
    )
    linear = np.stack([down - at_zero, right - at_zero], axis=1)
    return Affine.from_matrix(linear, second + at_zero - linear @ first)
