"""What ails a micrograph, in nine numbers: the condition that it is in.

A simulation draws them, a network finds them, and a user may overrule two.
"""

import math
from collections.abc import Sequence

FAULTS = (
    "noise",  # log of the noise's deviation, over the range of grey values
    "shot",  # share of the variance that grows with the signal
    "along",  # likeness of the noise of neighbours on a line, 0 for white noise
    "across",  # the same from line to line
    "streaks",  # share of the variance that whole lines have in common
    "blur_rows",  # log of the blur's deviation from row to row, in pixels
    "blur_columns",  # the same from column to column
    "slant",  # correlation of both: how far a streak of blur lies on the diagonal
    "flatness",  # how far the blur's rim is sharper than a Gaussian's
)
# added to deviations before the logarithm is taken
NO_NOISE = 1 / 512  # about what rounding to 8 bits leaves
WIDEST_BLUR = 6.0  # px, of those that are undone
NO_BLUR = 0.25  # px, below which a blur cannot be told from none

_NOISE, _BLUR = 0, slice(5, 7)
_SLANT = 7


def noise_of(condition: Sequence[float]) -> float:
    """Give the deviation of the noise, as a share of the range of grey values."""
    return max(math.exp(condition[_NOISE]) - NO_NOISE, 0.0)


def blur_of(condition: Sequence[float]) -> float:
    """Give the deviation of the blur in pixels, root mean square of both axes."""
    parts = [max(math.exp(v) - NO_BLUR, 0.0) for v in condition[_BLUR]]
    return math.sqrt(sum(part**2 for part in parts) / len(parts))


def override_condition(
    condition: Sequence[float], noise: float | None, blur: float | None
) -> tuple[float, ...]:
    """Put other deviations in place of what was found; a blur is then a round one.

    The noise as a share of the range of grey values, the blur in pixels; None keeps
    what was found.
    """
    values = list(condition)
    if noise is not None:
        values[_NOISE] = math.log(noise + NO_NOISE)
    if blur is not None:
        values[_BLUR] = [math.log(blur + NO_BLUR)] * 2
        values[_SLANT] = 0.0
    return tuple(values)


def mirror_condition(condition: Sequence[float]) -> tuple[float, ...]:
    """Tell the condition of a field whose rows, or whose columns, are turned about."""
    values = list(condition)
    values[_SLANT] *= -1
    return tuple(values)
