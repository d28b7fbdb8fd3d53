r"""Small objects that a network's picture shows, and how likely the sample has them.

An *object* is a round spot of 3 to 6 px: the mean over a disc less that over the ring
around it is largest there among its neighbours, and at least a third of the local
contrast, 3.3 deviations within some 12 px, which is the distance of the percentiles 5
and 95 of Gaussian grey levels.

It is *invented* if the sample shows less than half of that contrast at the place. How
likely that is, its *doubt*, is told from what 15 numbers say of it: what the data show
there, over discs of several sizes, against what they would show if the object were
there, by the local regression of the data on the smoothed picture; how far the model
disagrees with itself over flips and turns; the scale of the error of `error_scale`; its
own contrast, sign, size and grey level. All contrasts are shares of local ones, so that
fainter fields than those it learnt from do not mislead it. A logistic function of these
numbers, their squares and products is fitted to objects of known truth, a convex
problem with one answer.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from napari_semsr.analysis.hallucination import RADII_PX, ring_weights, weighted
from napari_semsr.core import BoolArray, FloatArray

OBJECT_REACH_PX = 64  # of the widest windows, one after the other
OBJECT_NUMBERS = 15
_BORDER_PX = 2 * max(RADII_PX) + 1  # disc and ring lie within the picture
_LEAST = 1 / 3  # of the local contrast; chosen
_FAINT = 1 / 8  # local contrast over that of the picture, below which noise decides
_AROUND_PX = 12.0  # deviation of the window of local contrast and regression; chosen
_RANGE = 3.3  # deviations between the percentiles 5 and 95
_APART_PX = 7  # of the window in which an object is the strongest; chosen
_SOFT_PX = 1.5  # about the blur that models undo
_SMALL = 0.02  # of the range, added to what divides; chosen
_INVENTED = 0.5  # share of the shown contrast that the sample lacks
_FAR = 2.0  # deviations beyond which a number says no more; chosen
_RIDGE = 1e-4


@dataclass(frozen=True, slots=True)
class Objects:
    """Objects of a picture.

    Attributes
    ----------
    centres : (N, 2) numpy.ndarray of int
        Rows and columns.
    radii : (N,) numpy.ndarray
        In pixels.
    contrast : (N,) numpy.ndarray
        Disc less ring, in grey levels of the picture; below 0 if darker.
    seen : (N, 15) numpy.ndarray
        What tells whether they are there.
    """

    centres: NDArray[np.int64]
    radii: FloatArray
    contrast: FloatArray
    seen: FloatArray

    def __len__(self) -> int:
        return len(self.radii)

    def chosen(self, which: BoolArray) -> "Objects":
        """Leave some out.

        Parameters
        ----------
        which : (N,) numpy.ndarray of bool
            Those to keep.

        Returns
        -------
        Objects
            The rest.
        """
        return Objects(
            self.centres[which],
            self.radii[which],
            self.contrast[which],
            self.seen[which],
        )

    def lies_in(self, known: BoolArray) -> BoolArray:
        """Tell which of them lie, with their rings, where all pixels are known.

        Parameters
        ----------
        known : (Y, X) numpy.ndarray of bool
            Of the picture.

        Returns
        -------
        (N,) numpy.ndarray of bool
            Those.
        """
        side = 2 * _BORDER_PX + 1
        whole = ndimage.minimum_filter(known.astype(np.uint8), side, mode="nearest")
        return np.asarray(whole[tuple(self.centres.T)] > 0)

    def invented(self, truth: FloatArray, after: FloatArray) -> BoolArray:
        """Tell which of them a truth does not show.

        Parameters
        ----------
        truth, after : (Y, X) numpy.ndarray
            What the sample shows, and the picture of it, of any gain and offset.

        Returns
        -------
        (N,) numpy.ndarray of bool
            Those of which the truth has less than half the contrast, with the gain that
            makes the deviations of both equal.
        """
        gain = float(truth.std()) / max(float(after.std()), 1e-12)
        shown = [_steps(truth, radius) for radius in RADII_PX]
        place = (self.radii.astype(int) - RADII_PX[0], *self.centres.T)
        there = np.stack(shown)[place] * np.sign(self.contrast)
        return np.asarray(there < _INVENTED * gain * np.abs(self.contrast))


def find_objects(
    before: FloatArray,
    after: FloatArray,
    spread: FloatArray,
    scale: FloatArray,
    *,
    deviation: float | None = None,
) -> Objects:
    """Find the objects of a picture, and gather what tells whether they are there.

    Parameters
    ----------
    before, after, spread : (Y, X) numpy.ndarray
        As `clues` takes them; finite.
    scale : (Y, X) numpy.ndarray
        Of the error, as `error_scale` gives it.
    deviation : float, optional
        Of the grey levels of the whole picture, where this is a part of it; else that
        of `after`.

    Returns
    -------
    Objects
        In the order of rows; none within 13 px of the border. Those within
        `OBJECT_REACH_PX` of a border that is not the field's own depend on what lies
        beyond.
    """
    around, local = _around(before), _around(after)
    whole = float(after.std()) if deviation is None else deviation
    shown = {radius: _steps(after, radius) for radius in RADII_PX}
    strength = np.stack([np.abs(one) for one in shown.values()]) / (local + 1e-9)
    best, which = strength.max(axis=0), strength.argmax(axis=0)
    peaks = (ndimage.maximum_filter(best, _APART_PX) == best) & (best >= _LEAST)
    peaks &= local >= max(_FAINT * _RANGE * whole, 1e-6)
    within = np.zeros_like(peaks)
    within[_BORDER_PX:-_BORDER_PX, _BORDER_PX:-_BORDER_PX] = True
    rows, columns = np.nonzero(peaks & within)
    kind = which[rows, columns]
    steps = np.stack(list(shown.values()))[kind, rows, columns]
    radii = np.array(RADII_PX, float)[kind]
    at = _At(rows, columns, kind)
    seen = _numbers(at, (before, after, spread, scale), (around, local), steps)
    return Objects(np.stack([rows, columns], axis=1), radii, steps, seen)


@dataclass(frozen=True, slots=True)
class _At:
    """Where objects lie, and which of the radii each has."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    kind: NDArray[np.int64]

    def of(self, image: FloatArray) -> FloatArray:
        """Read an image at the centres."""
        return np.asarray(image[self.rows, self.columns])

    def steps(self, image: FloatArray) -> FloatArray:
        """Contrast of each disc with its ring."""
        stack = np.stack([_steps(image, radius) for radius in RADII_PX])
        return np.asarray(stack[self.kind, self.rows, self.columns])

    def means(self, image: FloatArray) -> FloatArray:
        """Mean over each disc."""
        stack = np.stack([_steps(image, radius, ring=False) for radius in RADII_PX])
        return np.asarray(stack[self.kind, self.rows, self.columns])


def _numbers(
    at: _At,
    images: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
    contrasts: tuple[FloatArray, FloatArray],
    steps: FloatArray,
) -> FloatArray:
    """Gather the numbers of each object."""
    before, after, spread, scale = images
    data, local = (at.of(one) + _SMALL for one in contrasts)
    sign, size = np.sign(steps), np.abs(steps) + _SMALL
    soft = ndimage.gaussian_filter(after, _SOFT_PX)
    slope, alike = _regression(soft, before)
    asked = sign * at.steps(soft) * at.of(slope)
    found = sign * at.steps(before)
    small, large = RADII_PX[0], RADII_PX[-1]
    return np.stack(
        [
            *(size / local, found / data),
            sign * at.of(_steps(before, small)) / data,
            sign * at.of(_steps(before, large)) / data,
            *(at.means(spread) / size, at.means(scale) / size),
            *(at.of(alike), asked / data, (found - asked) / data),
            *(np.array(RADII_PX, float)[at.kind], sign),
            *(at.of(after), at.of(before)),
            sign * at.of(_steps(after, small)) / local,
            sign * at.of(_steps(after, large)) / local,
        ],
        axis=1,
    )


def _regression(one: FloatArray, other: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Slope of the second on the first around each pixel, and their correlation."""

    def mean(image: FloatArray) -> FloatArray:
        return np.asarray(ndimage.gaussian_filter(image, _AROUND_PX))

    first, second = mean(one), mean(other)
    shared = mean(one * other) - first * second
    spread = np.maximum(mean(one**2) - first**2, 0)
    others = np.maximum(mean(other**2) - second**2, 0)
    return shared / (spread + 1e-4), shared / np.sqrt(spread * others + 1e-6)


def _around(image: FloatArray) -> FloatArray:
    """Local contrast."""
    mean = ndimage.gaussian_filter(image, _AROUND_PX)
    square = ndimage.gaussian_filter(image**2, _AROUND_PX) - mean**2
    return np.asarray(_RANGE * np.sqrt(np.maximum(square, 0)))


def _steps(image: FloatArray, radius: int, *, ring: bool = True) -> FloatArray:
    """Mean over a disc around each pixel, less that over the ring around it."""
    half = 2 * radius + 1
    weights = ring_weights(0, radius - 0.5, half)
    if ring:
        weights = weights - ring_weights(radius + 1, half, half)
    return weighted(image, weights)


@dataclass(frozen=True, slots=True)
class ObjectDoubt:
    """How likely an object is invented.

    Attributes
    ----------
    middle, deviation : (15,) numpy.ndarray
        Of the numbers of the objects that it was fitted to.
    weights : (136,) numpy.ndarray
        Of the numbers, of their squares and products, and a constant.
    """

    middle: FloatArray
    deviation: FloatArray
    weights: FloatArray

    @classmethod
    def fitted(cls, seen: FloatArray, invented: BoolArray) -> "ObjectDoubt":
        """Fit it to objects of known truth.

        Parameters
        ----------
        seen : (N, 15) numpy.ndarray
            Of the objects.
        invented : (N,) numpy.ndarray of bool
            Whether each is.

        Returns
        -------
        ObjectDoubt
            The one that makes them most likely.
        """
        middle, deviation = seen.mean(axis=0), seen.std(axis=0)
        deviation = np.where(deviation > 0, deviation, 1.0)
        terms = _terms((seen - middle) / deviation)
        wrong = invented.astype(float)

        def loss(weights: FloatArray) -> tuple[float, FloatArray]:
            score = terms @ weights
            off = 1 / (1 + np.exp(-score)) - wrong
            value = np.logaddexp(0, score) - wrong * score
            held = _RIDGE * weights
            held[-1] = 0.0
            slope = terms.T @ off / len(off) + 2 * held
            return float(value.mean() + held @ weights), slope

        start = np.zeros(terms.shape[1])
        found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B").x
        return cls(middle, deviation, found)

    def of(self, seen: FloatArray) -> FloatArray:
        """Give the doubt of objects, 0 to 1.

        Parameters
        ----------
        seen : (N, 15) numpy.ndarray
            Of the objects.

        Returns
        -------
        (N,) numpy.ndarray
            Chances.
        """
        score = _terms((seen - self.middle) / self.deviation) @ self.weights
        return np.asarray(1 / (1 + np.exp(-score)))


def _terms(numbers: FloatArray) -> FloatArray:
    """Numbers within bounds, their squares and products, and 1."""
    held = np.clip(numbers, -_FAR, _FAR)
    first, second = np.triu_indices(held.shape[1])
    ones = np.ones((len(held), 1))
    return np.concatenate([held, held[:, first] * held[:, second], ones], axis=1)
