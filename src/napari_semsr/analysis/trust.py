r"""How far a picture that a network made may be off, and what tells it.

Where a network follows its input it makes the same of it however it lies: the *spread*
of what it makes of the field flipped and turned tells where it does not. With the
gradient and the local contrast of the picture, and the grey levels before and after, it
gives the scale of the error at a pixel,

.. math:: s = \exp\Bigl(\sum_k w_k c_k\Bigr),

whose weights make errors of known truth most likely under Laplace's law, the mean of
:math:`\ln s + |e| / s` least; that is a convex problem, with one answer. A network in
place of the sum, which saw clues, picture and input, told no more
(docs/validation/trust.md).

The *bound* is ``factor * s``. The factor is calibrated by split conformal prediction
[1]_ on fields whose truth is known and which taught nothing: the share of their pixels
whose error is below the bound, averaged over the fields, is the one that is stated.
That carries over to a field of the same kinds, and to no other. So it is told how far a
field is from those: the mean distance to the five nearest of them in a table of what
fields are like (power by spatial frequency before and after, grey levels, spread), each
column over its deviation. One in twenty fields of the same kinds is farther than the
limit.

References
----------
.. [1] A. N. Angelopoulos and S. Bates, Found. Trends Mach. Learn. 16, 494 (2023),
   doi:10.1561/2200000101.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage, optimize

from napari_semsr.core import FloatArray

CLUES = 12
REACH_PX = 26  # of the widest Gaussian, four deviations, and a pixel for the gradient
NEAREST = 5  # fields that the distance is measured to; chosen
_SPREADS_PX, _GRADIENTS_PX, _CONTRAST_PX = (0.0, 2.0, 6.0), (1.0, 3.0), 6.0  # chosen
_FAINT = 0.003  # of spread and gradient: half a step of 8 bits and more is rounding
_FLAT = 0.01  # of contrast; chosen
_ERROR = 0.002  # added to errors, so that a lucky pixel asks for no scale of nought
_RIDGE = 1e-4  # on weights of clues that are all but one; chosen
_BANDS, _COARSEST_PX = 7, 64.0  # of power; chosen
_PERCENTILES = (5, 25, 50, 75, 95)
_NO_POWER = 1e-7  # below rounding in 8 bits


def clues(before: FloatArray, after: FloatArray, spread: FloatArray) -> FloatArray:
    """Gather what tells the error of a picture: (Y, X, 12), the last of them 1.

    What was enhanced, and the result, are on the scale where the model's percentiles of
    the field are 0 and 1, as is the spread of the model over flips and turns. Clues
    within 26 px of a border that is not the field's own depend on what lies beyond.
    """
    planes = [np.log(_soft(spread, sigma) + _FAINT) for sigma in _SPREADS_PX]
    for sigma in _GRADIENTS_PX:
        slope = np.hypot(*np.gradient(_soft(after, sigma)))
        planes.append(np.log(slope + _FAINT))
    planes += [np.log(_contrast(image) + _FLAT) for image in (after, before)]
    planes += [after, after**2, before, before**2, np.ones_like(before)]
    return np.stack(planes, axis=-1)


def _soft(image: FloatArray, sigma: float) -> FloatArray:
    if not sigma:
        return image
    return np.asarray(ndimage.gaussian_filter(image, sigma))


def _contrast(image: FloatArray) -> FloatArray:
    """Local standard deviation."""
    square = _soft(image**2, _CONTRAST_PX) - _soft(image, _CONTRAST_PX) ** 2
    return np.sqrt(np.maximum(square, 0))


def fit_scale(seen: FloatArray, errors: FloatArray) -> FloatArray:
    """Find the weights (12,) of clues that make errors most likely.

    `seen` (N, 12) are clues of some pixels of many fields, `errors` (N,) the absolute
    errors there.
    """
    middle, spread = seen[:, :-1].mean(0), seen[:, :-1].std(0)
    spread = np.where(spread > 0, spread, 1.0)
    unit = np.column_stack([(seen[:, :-1] - middle) / spread, seen[:, -1]])
    held = np.append(np.full(spread.size, _RIDGE), 0.0)

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        log = unit @ weights
        ratio = (errors + _ERROR) * np.exp(-log)
        slope = unit.T @ (1 - ratio) / len(ratio) + 2 * held * weights
        return float((log + ratio).mean() + held @ weights**2), slope

    start = np.append(np.zeros(spread.size), np.log(errors.mean() + _ERROR))
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B").x
    own = found[:-1] / spread
    return np.append(own, found[-1] - own @ middle)


def error_scale(seen: FloatArray, weights: FloatArray) -> FloatArray:
    """Tell the scale of the error, (...), from clues, (..., 12), by fitted weights.

    On the scale of the pictures that the clues came from; not above 1, which is the
    whole range of grey levels.
    """
    return np.asarray(np.exp(np.minimum(seen @ weights, 0.0)))


def bound_factor(
    errors: Sequence[NDArray[np.floating]],
    scales: Sequence[NDArray[np.floating]],
    share: float,
) -> float:
    """Find the factor that makes a bound of a scale, by split conformal prediction.

    `errors` are absolute errors of the pixels of each field, `scales` what was foretold
    of them; `share` of the pixels, averaged over fields, err less than the bound.
    """
    ratios = [np.ravel(e) / np.ravel(s) for e, s in zip(errors, scales, strict=True)]
    weights = np.concatenate([np.full(r.size, 1 / r.size) for r in ratios])
    values = np.concatenate(ratios)
    order = np.argsort(values)
    # a field more, of which nothing is known, counts as beyond: that is the guarantee
    reached = np.cumsum(weights[order]) / (len(ratios) + 1)
    place = min(int(np.searchsorted(reached, share)), values.size - 1)
    return float(values[order][place])


def look_of_field(
    before: FloatArray, after: FloatArray, spread: FloatArray
) -> FloatArray:
    """Describe a block of a field, (26,), to tell fields of one kind from others.

    Of planes as `clues` takes them: logarithms of power by bands, percentiles of grey
    levels, mean and deviation of the spread's logarithm.
    """
    log = np.log(spread + _FAINT)
    parts = [
        _powers(before),
        _powers(after),
        np.percentile(before, _PERCENTILES),
        np.percentile(after, _PERCENTILES),
        np.array([log.mean(), log.std()]),
    ]
    return np.concatenate(parts)


def _powers(image: FloatArray) -> FloatArray:
    """Logarithm of the mean power in bands of spatial frequency, without the mean."""
    rows, columns = image.shape
    window = np.outer(np.hanning(rows), np.hanning(columns))
    power = np.abs(fft.rfft2((image - image.mean()) * window)) ** 2
    power /= (window**2).sum()
    y, x = np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None]
    edges = np.geomspace(1 / _COARSEST_PX, 0.5, _BANDS + 1)
    band = np.digitize(np.hypot(y, x), edges)
    means = [power[band == n].mean() for n in range(1, _BANDS + 1)]
    return np.log10(np.array(means) + _NO_POWER)


def distance_to_fields(
    look: FloatArray, fields: FloatArray, *, among: bool = False
) -> FloatArray:
    """Tell how far fields (N, F) are from those (M, F) that a bound was calibrated on.

    Rows are as `look_of_field` gives them. Gives the mean distance to the five nearest,
    each column over its deviation. `among`: the first are the second, each of which is
    its own nearest.
    """
    spread = fields.std(axis=0)
    away = (look[:, None] - fields[None]) / np.where(spread > 0, spread, 1.0)
    distances = np.sort(np.sqrt((away**2).sum(-1)), axis=1)
    first = 1 if among else 0
    return np.asarray(distances[:, first : first + NEAREST].mean(1))
