"""How the learning rate goes over a run."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_semsr.training.recipes import Recipe

__all__ = ["learning_rate_factor"]


def learning_rate_factor(step: int, recipe: "Recipe") -> float:
    """Share of the full learning rate at a step.

    A linear rise, a plateau, and a fall to zero along a cosine or a line; or a rise
    and a factor at each milestone.

    Parameters
    ----------
    step : int
        Optimiser steps done.
    recipe : Recipe
        Gives the lengths of the three parts.

    Returns
    -------
    float
        Factor in [0, 1].
    """
    rise = min(1.0, (step + 1) / max(1, recipe.warmup_steps))
    if recipe.schedule == "milestones":
        passed = sum(step >= milestone for milestone in recipe.milestones)
        return rise * recipe.milestone_factor**passed
    left = recipe.steps - step
    if left >= recipe.decay_steps:
        return rise
    share = max(0, left) / recipe.decay_steps
    if recipe.schedule == "linear":
        return rise * share
    return rise * 0.5 * (1 - math.cos(math.pi * share))
