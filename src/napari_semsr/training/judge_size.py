"""How large patches must be for the discriminator that judges them."""

import torch
from torch import nn

from napari_semsr.core.errors import OptionError
from napari_semsr.models.registry import build_discriminator
from napari_semsr.training.recipes import Recipe

__all__ = ["check_judged"]

_LARGEST_PX = 2048  # of the patches that a recipe may ask for


def check_judged(recipe: Recipe, scale: int, stride: int) -> None:
    """Refuse patches that are too small for the discriminator, before any work.

    Parameters
    ----------
    recipe : Recipe
        Names the discriminator, if its kind has one, and says how large patches are.
    scale, stride : int
        Output pixels per input pixel of the generator, and what the side of its
        patches must be a multiple of.

    Raises
    ------
    OptionError
        If nothing would be left of a patch within the discriminator.
    CheckpointError
        If the discriminator or one of its options is unknown.
    """
    if not recipe.kind.endswith("-gan"):
        return
    name, options = recipe.gan.discriminator, recipe.gan.discriminator_options
    with torch.device("meta"):  # sizes alone; no random numbers are drawn
        judge = build_discriminator(name, options)
    side, whole = recipe.data.patch_px, recipe.data.pairs is not None
    count = max(recipe.batch, 1 if whole else recipe.data.patches_per_scene)
    shape = count, int(options.get("channels", 1))
    if _takes(judge, shape, side * scale):
        return
    for larger in range(side + stride, _LARGEST_PX + 1, stride):
        if _takes(judge, shape, larger * scale):
            msg = (
                f"The discriminator {name} is too deep for patch_px = {side}: it needs "
                f"at least {larger}."
            )
            raise OptionError(msg)


def _takes(judge: nn.Module, shape: tuple[int, int], side: int) -> bool:
    """Whether patches of a side pass through a network."""
    try:
        judge(torch.empty((*shape, side, side), device="meta"))
    except (RuntimeError, ValueError):
        return False
    return True
