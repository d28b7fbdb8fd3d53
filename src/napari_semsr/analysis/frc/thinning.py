"""One image of counts as two of half the dose, by binomial thinning.

Counts that are Poisson distributed fall into two halves by tossing a coin for each:
both are Poisson distributed again, with half of the mean, and independent of each
other. Read noise is no count: the halves of its value would share its sign. So a normal
deviate of the same power is added to one half and taken from the other, after which
their noise is uncorrelated: of a mean of m counts with read noise of variance R², both
halves have the variance m/2 + R²/2 and the covariance 0.
"""

from dataclasses import dataclass

import numpy as np

from napari_semsr.core import (
    BoolArray,
    Float32Array,
    FloatArray,
    Micrograph,
    OptionError,
)

_SEED = 0  # any: a measurement must give the same number again
_ROWS = 256  # chosen: of which the counts are split at once
_LARGEST = 2.0**62  # counts that the generator takes
_NEGATIVE = -5.0  # standard errors of a mean; chosen: no chance


@dataclass(frozen=True, slots=True)
class Counts:
    """What grey levels stand for.

    Attributes
    ----------
    gain : float
        Electrons or photons to a grey level.
    offset : float
        Grey level of no count.
    read_noise : float
        Standard deviation of a pixel without light, in electrons.
    """

    gain: float = 1.0
    offset: float = 0.0
    read_noise: float = 0.0

    def __str__(self) -> str:
        """Say it in words, to be quoted."""
        return (
            f"counts: gain {self.gain:g}, offset {self.offset:g}, read noise "
            f"{self.read_noise:g}"
        )


def thin(image: Micrograph, counts: Counts) -> tuple[Micrograph, Micrograph]:
    """Split the counts of an image into two images of half the dose.

    Parameters
    ----------
    image : Micrograph
        Grey levels that are counts but for gain, offset and read noise; NaN stays NaN.
    counts : Counts
        What grey levels stand for.

    Returns
    -------
    tuple of Micrograph
        Electrons, single precision; their sum is the image in electrons.

    Raises
    ------
    OptionError
        If grey levels lie below the offset by more than read noise explains.
    """
    exact = np.issubdtype(image.dtype, np.integer)
    # whole grey levels of several electrons hide which of them it was
    hidden = max(0.0, counts.gain**2 - 1) / 12 if exact else 0.0
    spread = np.sqrt(counts.read_noise**2 + hidden)
    halves = np.empty((2, *image.shape), np.float32)
    rng = np.random.default_rng(_SEED)
    below, total, number = 0.0, 0.0, 0
    for y in range(0, image.shape[0], _ROWS):
        rows = np.s_[y : y + _ROWS]
        grey = np.asarray(image.data[rows], dtype=np.float64)
        electrons = (grey - counts.offset) * counts.gain
        known = np.isfinite(electrons)
        total += float(electrons.sum(where=known))
        below += float(np.minimum(electrons, 0).sum(where=known))
        number += int(np.count_nonzero(known))
        halves[:, rows] = _split(electrons, known, spread, rng)
    # of noise alone, of mean 0, what lies below it has the mean 0.4 R
    allowed = -0.4 * spread * number + _NEGATIVE * spread * np.sqrt(number)
    if number and (total < 0 or below < allowed - 0.5):
        msg = (
            f"Counts must not be negative, got a mean of {total / number:.4g} "
            f"electrons in {image.name}, of which {below / number:.4g} below the "
            "offset; check --offset, --gain and --read-noise."
        )
        raise OptionError(msg)
    first, second = halves
    return image.replace(data=first), image.replace(data=second)


def _split(
    electrons: FloatArray, known: BoolArray, spread: float, rng: np.random.Generator
) -> Float32Array:
    """Give two halves (2, Y, X) of electrons (Y, X)."""
    electrons = np.where(known, electrons, np.nan)
    whole = np.clip(np.nan_to_num(np.rint(electrons)), 0, _LARGEST)
    heads = rng.binomial(whole.astype(np.int64), 0.5)
    # below no count the power of both together is still that of the mean
    power = np.maximum(spread**2 + np.nan_to_num(electrons - whole), 0)
    own = rng.standard_normal(electrons.shape) * np.sqrt(power) / 2
    half = heads - whole / 2 + own
    return np.stack([electrons / 2 + half, electrons / 2 - half]).astype(np.float32)
