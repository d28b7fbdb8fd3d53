"""Smooth surfaces over a frame: what a first flat field may still lack.

Three even powers of the distance from the field's centre, free, and cubic B-splines on
a grid, held near zero and smooth. Overlaps do not reach the middle of a frame: there
the even powers, found where frames do overlap, go on.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline

__all__ = ["SurfaceBasis"]

FloatArray = NDArray[np.float64]

_ROUGHNESS = 30.0
_RIDGE = 10.0
_FREE = 1e-3
_POWERS = (2, 4, 6)


class SurfaceBasis:
    """Functions over a frame that a surface is made of.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of a frame.
    knots : int
        Intervals of the splines along each side.
    centre : tuple of float, optional
        ``(y, x)`` of the field; the frame's own centre when not given.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        knots: int,
        centre: tuple[float, float] | None = None,
    ) -> None:
        self.shape = shape
        self.knots = knots
        rows, columns = shape
        self.centre = ((rows - 1) / 2, (columns - 1) / 2) if centre is None else centre

    def at(self, place: FloatArray) -> FloatArray:
        """Evaluate all functions.

        Parameters
        ----------
        place : (M, 2) numpy.ndarray
            ``(y, x)`` in pixels of a frame.

        Returns
        -------
        (M, F) numpy.ndarray
            One column for each function.
        """
        rows = self._axis(place[:, 0], self.shape[0])
        columns = self._axis(place[:, 1], self.shape[1])
        splines = np.einsum("na,nb->nab", rows, columns).reshape(len(place), -1)
        return np.concatenate([self._radial(place), splines], axis=1)

    def _radial(self, place: FloatArray) -> FloatArray:
        half = max(self.shape) / 2
        unit = np.hypot(*((place - np.array(self.centre)) / half).T)
        return np.stack([unit**power for power in _POWERS], axis=1)

    def _axis(self, place: FloatArray, size: int) -> FloatArray:
        unit = np.clip((place + 0.5) / size, 0, 1 - 1e-9) * self.knots
        joints = np.arange(-3, self.knots + 4, dtype=float)
        basis: FloatArray = BSpline.design_matrix(unit, joints, 3).toarray()
        return basis

    def prior(self) -> FloatArray:
        """Inverse covariance of the coefficients before anything is measured.

        Returns
        -------
        (F, F) numpy.ndarray
            Nearly free powers; splines of size 0.1 and second differences of 0.03.
        """
        size = self.knots + 3
        second = np.diff(np.eye(size), n=2, axis=0)
        rough = np.concatenate(
            [np.kron(second, np.eye(size)), np.kron(np.eye(size), second)]
        )
        splines = _ROUGHNESS**2 * rough.T @ rough + _RIDGE**2 * np.eye(size**2)
        free = len(_POWERS)
        whole = np.zeros((free + size**2, free + size**2))
        whole[:free, :free] = _FREE * np.eye(free)
        whole[free:, free:] = splines
        return whole

    def shapes(self, place: FloatArray) -> FloatArray:
        """Evaluate the broad shapes that a mean frame can tell.

        Parameters
        ----------
        place : (M, 2) numpy.ndarray
            ``(y, x)`` in pixels of a frame.

        Returns
        -------
        (M, 4) numpy.ndarray
            Tilt along y and x, second and fourth power of the distance from the
            centre; lengths in half frames.
        """
        half = max(self.shape) / 2
        unit = (place - np.array(self.centre)) / half
        radius2 = (unit**2).sum(axis=1)
        return np.column_stack([unit, radius2, radius2**2])

    def shape_reader(self, place: FloatArray) -> FloatArray:
        """Matrix that turns coefficients into the surface's broad shapes.

        Parameters
        ----------
        place : (M, 2) numpy.ndarray
            Where the surface counts.

        Returns
        -------
        (4, F) numpy.ndarray
            Amount of each shape for each coefficient.
        """
        shapes = self.shapes(place.astype(float))
        centred = shapes - shapes.mean(axis=0)
        reader: FloatArray = np.linalg.pinv(centred) @ self.at(place.astype(float))
        return reader

    def surface(self, coefficients: FloatArray) -> FloatArray:
        """Evaluate a surface at every pixel of a frame.

        Parameters
        ----------
        coefficients : (F,) numpy.ndarray
            One for each function.

        Returns
        -------
        (Y, X) numpy.ndarray
            Its values.
        """
        free, size = len(_POWERS), self.knots + 3
        rows = self._axis(np.arange(self.shape[0], dtype=float), self.shape[0])
        columns = self._axis(np.arange(self.shape[1], dtype=float), self.shape[1])
        grid = np.indices(self.shape).reshape(2, -1).T.astype(float)
        radial = (self._radial(grid) @ coefficients[:free]).reshape(self.shape)
        splines: FloatArray = rows @ coefficients[free:].reshape(size, size) @ columns.T
        return radial + splines
