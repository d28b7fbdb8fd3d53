"""How the learning rate goes over a run."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_semsr.training.recipes import Recipe

__all__ = ["learning_rate_factor", "with_steps"]


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


def with_steps(recipe: "Recipe", steps: int) -> "Recipe":
    """Give a recipe another length, and all parts of its schedule in proportion.

    Parameters
    ----------
    recipe : Recipe
        The recipe.
    steps : int
        Optimiser steps in all.

    Returns
    -------
    Recipe
        The changed recipe.
    """
    share = steps / recipe.steps

    def scaled(count: int) -> int:
        return round(count * share)

    stop = recipe.stop_after
    return recipe.replace(
        steps=steps,
        stop_after=None if stop is None else max(1, scaled(stop)),
        warmup_steps=scaled(recipe.warmup_steps),
        decay_steps=scaled(recipe.decay_steps),
        milestones=tuple(scaled(milestone) for milestone in recipe.milestones),
        validate_every=min(recipe.validate_every, steps),
        gan=recipe.gan.replace(
            content_only_steps=scaled(recipe.gan.content_only_steps)
        ),
    )
