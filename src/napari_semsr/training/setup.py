"""How large patches must be for the discriminator that judges them."""

from pathlib import Path

import torch
from torch import nn

from napari_semsr.core import CheckpointError, OptionError
from napari_semsr.models import (
    Deblurred,
    DehazingRestorer,
    build,
    build_discriminator,
    load_model,
    read_card,
    resolve,
)
from napari_semsr.training.data import fitting_store, stored_validation
from napari_semsr.training.learners import CycleGan, Learner, PairedGan, Supervised
from napari_semsr.training.recipe import SAME, Recipe
from napari_semsr.training.validation import (
    ValidationPair,
    coarse_pairs,
    simulated_pairs,
    validation_pairs,
)

_LARGEST_PX = 2048  # of the patches that a recipe may ask for


def check_discriminator_field(recipe: Recipe, scale: int, stride: int) -> None:
    """Refuse patches that are too small for the discriminator, before any work.

    `scale` is output pixels per input pixel of the generator, and the side of its
    patches must be a multiple of `stride`.
    """
    if not recipe.adversarial:
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


# Set-up of a run: the network, the checks before any work, and what learns.

_LEARNERS: dict[str, type[Learner]] = {
    "supervised-l1": Supervised,
    "supervised": Supervised,
    "paired-gan": PairedGan,
    "cycle-gan": CycleGan,
}


def settled(recipe: Recipe) -> Recipe:
    """Fill in the architecture of a recipe that takes over that of a model."""
    if recipe.architecture != SAME or recipe.start_from is None:
        return recipe
    card = read_card(resolve(recipe.start_from))
    return recipe.replace(
        architecture=card.architecture, architecture_options=card.options
    )


def first_network(recipe: Recipe) -> nn.Module:
    """Build the network that training starts from, with weights that it takes over."""
    torch.manual_seed(recipe.seed)
    network = build(recipe.architecture, recipe.architecture_options)
    if recipe.start_from is not None:
        _take_over(network, recipe.start_from)
    if recipe.local_from is not None:
        _take_over(getattr(network, "local", network), recipe.local_from)
    return network


def _take_over(network: nn.Module, name: str) -> None:
    """Copy the weights of another model where names and shapes agree.

    Of two of which one alone looks for haze, or filters, the parts that both have are
    taken.
    """
    module = load_model(name).module
    if type(network) is not type(module):
        network, module = _within(network), _within(module)
    given = module.state_dict()
    own = network.state_dict()
    same = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
    if 2 * len(same) < len(given):
        msg = (
            f"Only {len(same)} of {len(given)} weights of {Path(name).name} fit this "
            "architecture; drop start_from."
        )
        raise CheckpointError(msg)
    network.load_state_dict({**own, **same})


def _within(network: nn.Module) -> nn.Module:
    """Give the part that works on what a look for haze or a filter has prepared."""
    if isinstance(network, DehazingRestorer):
        return network.local
    return network.corrector if isinstance(network, Deblurred) else network


def scale_of(network: nn.Module) -> int:
    """Output pixels of a network per input pixel."""
    return int(getattr(network, "scale", 1))


def check_patches(network: nn.Module, recipe: Recipe) -> None:
    """Refuse patches that network, discriminator or store cannot give or take.

    This is done before a run's folder is touched.
    """
    if recipe.data.pairs is not None:
        fitting_store(recipe, scale_of(network))
    stride, side = int(getattr(network, "stride", 1)), recipe.data.patch_px
    if side % stride:
        near = max(side // stride, 1) * stride
        msg = (
            f"Patches must be a multiple of the network's {stride} px, got patch_px = "
            f"{side}; {near} would do."
        )
        raise OptionError(msg)
    check_discriminator_field(recipe, scale_of(network), stride)


def make_learner(network: nn.Module, recipe: Recipe) -> Learner:
    """Join a network, a recipe, and the fields that choose the checkpoint."""
    pairs = _validation(recipe, scale_of(network))
    return _LEARNERS[recipe.kind](network, recipe, pairs)


def _validation(recipe: Recipe, scale: int) -> list[ValidationPair]:
    """Gather the fields whose truth is known."""
    if recipe.data.pairs is not None:
        return stored_validation(recipe, scale)
    made: list[ValidationPair] = []
    for name, share in recipe.data.sources.items():
        if share > 0 and name == "images":
            made += coarse_pairs(validation_pairs(recipe), scale)
        elif share > 0:
            made += simulated_pairs(recipe, name, scale)
    return made
