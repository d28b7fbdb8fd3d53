"""Resolution criteria and the closed list of reasons for having no resolution."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.errors import OptionError

__all__ = ["REASONS", "Criterion", "Reason", "code_of", "reason_of", "threshold_curve"]

Criterion = Literal["1/7", "half-bit", "3-sigma"]

Reason = Literal[
    "no-signal",
    "correlated-noise",
    "identical",
    "periodic",
    "too-small",
    "beyond-nyquist",
    "not-independent",
]

REASONS: tuple[Reason, ...] = (
    "no-signal",
    "correlated-noise",
    "identical",
    "periodic",
    "too-small",
    "beyond-nyquist",
    "not-independent",
)
"""Why a curve has no valid crossing; code ``i + 1`` stands for ``REASONS[i]``."""

FIXED = 1 / 7


def code_of(reason: Reason | None) -> int:
    """Code of a reason in a map.

    Parameters
    ----------
    reason : str or None
        A member of `REASONS`; None where there is a resolution.

    Returns
    -------
    int
        0 for None, else the place in `REASONS` plus one.
    """
    return 0 if reason is None else REASONS.index(reason) + 1


def reason_of(code: int) -> Reason | None:
    """Reason that a code stands for.

    Parameters
    ----------
    code : int
        A code made by `code_of`.

    Returns
    -------
    str or None
        The reason; None for code 0.
    """
    return None if code == 0 else REASONS[code - 1]


def threshold_curve(
    criterion: Criterion, samples: NDArray[np.float64], *, reference: bool = False
) -> NDArray[np.float64]:
    """Correlation that a ring must reach.

    Parameters
    ----------
    criterion : {"1/7", "half-bit", "3-sigma"}
        Fixed threshold, half a bit of information per sample [1]_, or three standard
        deviations of the correlation of noise.
    samples : (K,) numpy.ndarray
        FFT samples of each ring in the full plane.
    reference : bool, default=False
        The second image is nearly free of noise: √(1/7) in place of 1/7.

    Returns
    -------
    (K,) numpy.ndarray
        Threshold of each ring; values of 1 and above cannot be reached.

    Raises
    ------
    OptionError
        If `reference` is asked for with another criterion than 1/7.

    References
    ----------
    .. [1] M. van Heel, M. Schatz, J. Struct. Biol. 151, 250 (2005), eq. 17,
       doi:10.1016/j.jsb.2005.05.009.
    """
    if reference and criterion != "1/7":
        msg = (
            f"A noise-free reference needs the criterion 1/7, got {criterion}; "
            "choose 1/7 or drop the reference option."
        )
        raise OptionError(msg)
    count = np.maximum(samples, 1)
    if criterion == "half-bit":
        return (0.2071 + 1.9102 / np.sqrt(count)) / (1.2071 + 0.9102 / np.sqrt(count))
    if criterion == "3-sigma":
        return 3 / np.sqrt(count / 2)
    return np.full(count.shape, FIXED**0.5 if reference else FIXED)
