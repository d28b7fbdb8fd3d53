"""Manual corrections to a mosaic."""

from typing import Self

import numpy as np
from pydantic import Field, model_validator

from napari_semsr.core import FloatPair, Message, Options

_CONTRADICTS = 0.5  # px; chosen: the error of moving a frame by hand


class PlacedFrame(Options):
    """Fixed top-left corner of a frame, in mosaic coordinates (see `positions`)."""

    y_px: float
    x_px: float


class JoinedPair(Options):
    """Manual pairwise shift: second frame position minus first, ``(y, x)``."""

    first: str
    second: str
    shift_px: FloatPair


class Corrections(Options):
    """Manual corrections to a mosaic, with frames identified by name.

    `strike`: overlaps that are not used; `drop`: frames that are left out; `place`:
    fixed frames, in the coordinates of the mosaic without corrections; `join`: shifts
    that replace those measured in the images.
    """

    strike: tuple[tuple[str, str], ...] = ()
    drop: tuple[str, ...] = ()
    place: dict[str, PlacedFrame] = Field(default_factory=dict)
    join: tuple[JoinedPair, ...] = ()

    @property
    def names(self) -> set[str]:
        """Names of all corrected frames."""
        pairs = [*self.strike, *((item.first, item.second) for item in self.join)]
        return {*self.drop, *self.place, *(name for pair in pairs for name in pair)}

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        """Raise an error if any corrections contradict each other."""
        struck_pairs = {frozenset(pair) for pair in self.strike}
        joined_pairs = [frozenset((item.first, item.second)) for item in self.join]
        for pair in (*struck_pairs, *joined_pairs):
            if len(pair) == 1:
                msg = (
                    f"an overlap needs two different frames, but frame {min(pair)} is "
                    "given twice"
                )
                raise ValueError(Message(msg, "same-frame"))
            if pair in struck_pairs and pair in joined_pairs:
                first, second = sorted(pair)
                msg = (
                    f"the overlap of {first} and {second} is listed in both strike "
                    "and join"
                )
                raise ValueError(Message(msg, "corrections-contradict"))
        for what, names in (
            ("placed", {*self.place}),
            ("joined", {name for pair in joined_pairs for name in pair}),
        ):
            if both := sorted(names & {*self.drop}):
                msg = f"frame {both[0]} is both dropped and {what}"
                raise ValueError(Message(msg, "corrections-contradict"))
        misfit = self._compute_misfit()
        if misfit > _CONTRADICTS:
            msg = (
                f"placed frames and joins disagree by {misfit:.3g} px: remove the "
                "incorrect ones"
            )
            raise ValueError(Message(msg, "positions-contradict"))
        return self

    def _compute_misfit(self) -> float:
        """Compute the largest misfit between placed frames and joins, in px."""
        names = sorted(self.names)
        rows, values = [], []
        for item in self.join:
            row = np.zeros(len(names))
            row[names.index(item.second)] = 1
            row[names.index(item.first)] = -1
            rows.append(row)
            values.append(item.shift_px)
        for name, place in self.place.items():
            rows.append(np.eye(len(names))[names.index(name)])
            values.append((place.y_px, place.x_px))
        if not rows:
            return 0.0
        matrix, targets = np.array(rows), np.array(values)
        solution = np.linalg.lstsq(matrix, targets)[0]
        return float(np.hypot(*(matrix @ solution - targets).T).max())
