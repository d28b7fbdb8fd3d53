"""Parts of a field that stand for all of it, drawn evenly over mean and spread."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.tiling import TilePlan, plan_tiles, round_up

__all__ = ["Strata", "sample_plan"]

_SIDE = 256


@dataclass(frozen=True, slots=True)
class Strata:
    """Tiles in the order of their local mean, then of their local spread.

    Attributes
    ----------
    order : tuple of int
        Numbers of tiles; neighbours in this order are alike.
    """

    order: tuple[int, ...]

    @classmethod
    def sorted_by(
        cls, mean: NDArray[np.float64], spread: NDArray[np.float64], draws: int
    ) -> "Strata":
        """Sort tiles into bands of equal mean, and within a band by spread.

        Parameters
        ----------
        mean, spread : (N,) numpy.ndarray
            Of each tile.
        draws : int
            How many tiles will be drawn; there are about as many bands as draws in
            one band.

        Returns
        -------
        Strata
            Every second band runs backwards, so that the order has no jumps.
        """
        bands = np.array_split(np.argsort(mean, kind="stable"), round(math.sqrt(draws)))
        order: list[int] = []
        for number, band in enumerate(bands):
            ranked = band[np.argsort(spread[band], kind="stable")]
            order += (ranked[::-1] if number % 2 else ranked).tolist()
        return cls(tuple(order))

    def draw(self, count: int, rng: np.random.Generator) -> list[int]:
        """Draw one tile from each of equal stretches of the order.

        Parameters
        ----------
        count : int
            How many; all when there are not more.
        rng : numpy.random.Generator
            Source of chance.

        Returns
        -------
        list of int
            Different tiles, in this order.
        """
        if count >= len(self.order):
            return list(self.order)
        stretches = np.array_split(np.array(self.order), count)
        return [int(rng.choice(stretch)) for stretch in stretches]

    def without(self, taken: Sequence[int]) -> "Strata":
        """Leave tiles out.

        Parameters
        ----------
        taken : sequence of int
            Which.

        Returns
        -------
        Strata
            The others, in the same order.
        """
        gone = set(taken)
        return Strata(tuple(tile for tile in self.order if tile not in gone))


def sample_plan(plan: TilePlan, halo: int) -> TilePlan:
    """Cut a field into small tiles, of which a sample is taken.

    Parameters
    ----------
    plan : TilePlan
        The output's tiles.
    halo : int
        The network's exact halo; half of it leaves an error of 0.1 %.

    Returns
    -------
    TilePlan
        Cores of at most 256 px partition the padded field.
    """
    side = min(_SIDE, plan.core)
    return plan_tiles(
        plan.padded_shape,
        core=round_up(side, plan.stride),
        halo=round_up(halo // 2, plan.stride),
        stride=plan.stride,
        constant=False,
    )
