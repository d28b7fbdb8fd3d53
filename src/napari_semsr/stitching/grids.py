"""Likely acquisition grids, inferred from overlaps between frames.

In the right grid most neighbours along an axis are one step apart. For each grid with
as many cells as frames, the step is the one on which most matches along each axis
agree; the grid that explains most matches comes first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import (
    Acquisition,
    FirstFrame,
    FrameOrder,
    IntPair,
    RegistrationError,
    compute_grid_cells,
)

if TYPE_CHECKING:
    from napari_semsr.stitching.layout import Overlap

# Steps of 12 to 98 % of a frame are searched, within 15 % of the axis; chosen.
MIN_STEP, MAX_STEP, ASIDE = 0.12, 0.98, 0.15
_SAME_STEP = 0.06  # share of the longer side; chosen: twice a stage error of 3 %
# Neighbours that must be one step apart; chosen: two may be by chance.
_FEWEST = 3
_AS_LIKELY = 0.6  # share of the best one's matches; chosen: others are not worth a try
_MOST = 3  # chosen: a question needs few answers


@dataclass(frozen=True, slots=True)
class LikelyGrid:
    """Possible acquisition grid of the frames."""

    grid: IntPair  # Rows and columns
    order: FrameOrder
    first: FirstFrame  # corner of the first frame
    neighbours: int  # pairs of neighbours that match in this grid
    of: int  # all pairs of neighbours

    def __str__(self) -> str:
        rows, columns = self.grid
        return f"{rows}x{columns}, order {self.order}, first {self.first}"

    def to_json(self) -> dict[str, object]:
        """Return the fields as JSON-compatible values."""
        return asdict(self)


class UnplacedFramesError(RegistrationError):
    """Error for frames that cannot be placed from their images alone.

    `grids` are those that fit the overlaps, the most likely first.
    """

    def __init__(
        self, message: str, grids: Sequence[LikelyGrid], code: str | None = None
    ) -> None:
        super().__init__(message + describe_grids(grids), code=code)
        self.grids = tuple(grids)

    def to_json(self) -> dict[str, object]:
        """Return the likely grids as JSON-compatible values."""
        return {"likely_grids": [item.to_json() for item in self.grids]}


def describe_grids(grids: Sequence[LikelyGrid]) -> str:
    """Return a sentence describing the best grid, to append to a message."""
    if not grids:
        return ""
    return f" The grid that fits the overlaps best is {grids[0]}."


def find_likely_grids(
    acquisition: Acquisition, joints: "Sequence[Overlap]"
) -> tuple[LikelyGrid, ...]:
    """Find grids, other than the scan's own, that fit the matched pairs best."""
    grids: list[tuple[float, LikelyGrid]] = []
    for slots in acquisition.slots or (acquisition.names,):
        numbers = [slots.index(n) if n in slots else -1 for n in acquisition.names]
        for grid, order, first in _list_grids(len(slots)):
            cells = compute_grid_cells(len(slots), grid, order, first)
            axes = [
                _weigh_axis_matches(acquisition, cells, numbers, joints, k)
                for k in range(2)
            ]
            fits, pairs = sum(a[1] for a in axes), sum(a[2] for a in axes)
            if fits >= _FEWEST:
                weight = sum(a[0] for a in axes)
                grids.append((weight, LikelyGrid(grid, order, first, fits, pairs)))
    grids.sort(key=lambda item: -item[0])
    least = _AS_LIKELY * grids[0][0] if grids else 0.0
    likely = dict.fromkeys(item for weight, item in grids if weight >= least)
    own = acquisition.grid, acquisition.order, acquisition.first
    likeliest = [*likely][:_MOST]
    descriptions = [(item.grid, item.order, item.first) for item in likeliest]
    if own in descriptions[:1]:
        return ()  # the overlaps support the scan's own grid
    return tuple(
        item for item, name in zip(likeliest, descriptions, strict=True) if name != own
    )


def _list_grids(count: int) -> Iterator[tuple[IntPair, FrameOrder, FirstFrame]]:
    """Yield all grids with `count` frames; a single line has only one order."""
    for rows in range(1, count + 1):
        if count % rows:
            continue
        is_line = rows in (1, count)
        for first in get_args(FirstFrame):
            if (rows == 1 and first.startswith("bottom")) or (
                rows == count and first.endswith("right")
            ):
                continue  # the same as its other end
            for order in get_args(FrameOrder)[: 1 if is_line else None]:
                yield (rows, count // rows), order, first


def _weigh_axis_matches(
    acquisition: Acquisition,
    cells: NDArray[np.int64],
    numbers: Sequence[int],
    joints: "Sequence[Overlap]",
    axis: int,
) -> tuple[float, int, int]:
    """Sum the weights of neighbour matches that agree on one step along an axis.

    `numbers`: index of each frame in the cells, -1 for none. Returns the weight, the
    number of agreeing pairs, and of all pairs.
    """
    side = np.array(acquisition.frame_shape)
    cell = {k: tuple(cells[n]) for k, n in enumerate(numbers) if n >= 0}
    step = (1, 0) if axis == 0 else (0, 1)
    there = set(cell.values())
    pairs = sum((r + step[0], c + step[1]) in there for r, c in there)
    shifts, weights, which = [], [], []
    for joint in joints:
        if joint.first not in cell or joint.second not in cell:
            continue
        apart = np.subtract(cell[joint.second], cell[joint.first])
        sign = int(apart.sum())
        if abs(sign) != 1 or not apart[axis]:
            continue
        shift = sign * np.array(joint.shift) / side
        if MIN_STEP <= shift[axis] <= MAX_STEP and abs(shift[1 - axis]) <= ASIDE:
            shifts.append(shift * side)
            weights.append(joint.weight)
            which.append((joint.first, joint.second))
    best, steps = (0.0, 0), np.array(shifts)
    for shift in steps:
        agrees = np.abs(steps - shift).max(axis=1) <= _SAME_STEP * side.max()
        heaviest: dict[IntPair, float] = {}  # only the best match of a pair counts
        for k in np.flatnonzero(agrees).tolist():
            heaviest[which[k]] = max(heaviest.get(which[k], 0.0), weights[k])
        best = max(best, (sum(heaviest.values()), len(heaviest)))
    return *best, pairs
