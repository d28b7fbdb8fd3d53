"""Condition of a micrograph: nine numbers that describe its degradation.

A simulation draws them, a network estimates them, and a user may override two.
"""

import math
from collections.abc import Sequence

FAULTS = (
    "noise",  # log of the noise's standard deviation, relative to the grey range
    "shot",  # fraction of the variance that grows with the signal
    "along",  # correlation of the noise of neighbours on a line, 0 for white noise
    "across",  # the same from line to line
    "streaks",  # fraction of the variance that is common to whole lines
    "blur_rows",  # log of the blur's standard deviation across rows, in pixels
    "blur_columns",  # the same across columns
    "slant",  # correlation between rows and columns, as in diagonal motion blur
    "flatness",  # how much sharper the edge of the blur is than that of a Gaussian
)
# added to standard deviations before the logarithm is taken
NO_NOISE = 1 / 512  # about the error of rounding to 8 bits
WIDEST_BLUR = 6.0  # px; wider blurs are not restored
NO_BLUR = 0.25  # px; a smaller blur cannot be detected

_NOISE, _BLUR = 0, slice(5, 7)
_SLANT = 7


def get_noise(condition: Sequence[float]) -> float:
    """Return the standard deviation of the noise as a fraction of the grey range."""
    return max(math.exp(condition[_NOISE]) - NO_NOISE, 0.0)


def get_blur(condition: Sequence[float]) -> float:
    """Return the RMS blur over both axes, as a standard deviation in px."""
    parts = [max(math.exp(v) - NO_BLUR, 0.0) for v in condition[_BLUR]]
    return math.sqrt(sum(part**2 for part in parts) / len(parts))


def override_condition(
    condition: Sequence[float], noise: float | None, blur: float | None
) -> tuple[float, ...]:
    """Replace the estimated noise or blur with the given standard deviations.

    Noise is a fraction of the range of grey values, blur is isotropic in px; None keeps
    the estimate.
    """
    values = list(condition)
    if noise is not None:
        values[_NOISE] = math.log(noise + NO_NOISE)
    if blur is not None:
        values[_BLUR] = [math.log(blur + NO_BLUR)] * 2
        values[_SLANT] = 0.0
    return tuple(values)


def mirror_condition(condition: Sequence[float]) -> tuple[float, ...]:
    """Return the condition of an image after flipping its rows or columns."""
    values = list(condition)
    values[_SLANT] *= -1
    return tuple(values)
