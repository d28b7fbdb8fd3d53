"""How large patches must be for the discriminator that judges them."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from napari_semsr.core import CheckpointError, OptionError
from napari_semsr.models import (
    Deblurred,
    Unveiled,
    build,
    build_discriminator,
    load_model,
    read_card,
    resolve,
)
from napari_semsr.training.data import (
    BankBatches,
    Report,
    SceneDataset,
    ScenePatches,
    StoredPatches,
    fitting_store,
    open_bank,
    stored_validation,
)
from napari_semsr.training.learners import (
    CycleGan,
    Learner,
    PairedGan,
    Supervised,
    SupervisedL1,
)
from napari_semsr.training.recipe import SAME, Recipe
from napari_semsr.training.validation import (
    ValidationPair,
    coarse_pairs,
    simulated_pairs,
    validation_pairs,
)

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


# What a run begins with: the network, its data, and what learns.

_LEARNERS: dict[str, type[Learner]] = {
    "supervised-l1": SupervisedL1,
    "supervised": Supervised,
    "paired-gan": PairedGan,
    "cycle-gan": CycleGan,
}


def settled(recipe: Recipe) -> Recipe:
    """Fill in the architecture of a recipe that takes over that of a model.

    Parameters
    ----------
    recipe : Recipe
        With ``architecture: same`` for that of `start_from`.

    Returns
    -------
    Recipe
        With an architecture and its options.

    Raises
    ------
    CheckpointError
        If the model has no valid card.
    """
    if recipe.architecture != SAME or recipe.start_from is None:
        return recipe
    card = read_card(resolve(recipe.start_from))
    return recipe.replace(
        architecture=card.architecture, architecture_options=card.options
    )


def first_network(recipe: Recipe) -> nn.Module:
    """Build the network that training starts from.

    Parameters
    ----------
    recipe : Recipe
        Names its architecture, and a model whose weights it may take over.

    Returns
    -------
    torch.nn.Module
        The network.

    Raises
    ------
    CheckpointError
        If the architecture is unknown, or few of the model's weights fit.
    """
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
    if isinstance(network, Unveiled):
        return network.local
    return network.corrector if isinstance(network, Deblurred) else network


def _scale(network: nn.Module) -> int:
    """Output pixels of a network per input pixel."""
    return int(getattr(network, "scale", 1))


def check_patches(network: nn.Module, recipe: Recipe) -> None:
    """Refuse patches that the network cannot take, before a run's folder is touched.

    Parameters
    ----------
    network : torch.nn.Module
        Its `stride` and `scale`, if any, say which sides and pairs it takes.
    recipe : Recipe
        Says how large patches are, and names a store of pairs or none.

    Raises
    ------
    OptionError
        If the side of a patch is no multiple of the network's stride, or too small for
        the discriminator.
    ShapeError
        If the pairs of the store do not fit.
    """
    if recipe.data.pairs is not None:
        fitting_store(recipe, _scale(network))
    stride, side = int(getattr(network, "stride", 1)), recipe.data.patch_px
    if side % stride:
        near = max(side // stride, 1) * stride
        msg = (
            f"Patches must be a multiple of the network's {stride} px, got patch_px = "
            f"{side}; {near} would do."
        )
        raise OptionError(msg)
    check_judged(recipe, _scale(network), stride)


def make_learner(network: nn.Module, recipe: Recipe) -> Learner:
    """Join a network, a recipe, and the fields that choose the checkpoint.

    Parameters
    ----------
    network : torch.nn.Module
        What is trained.
    recipe : Recipe
        How.

    Returns
    -------
    Learner
        Of the recipe's kind.
    """
    return _LEARNERS[recipe.kind](network, recipe, _judged(recipe, _scale(network)))


def _judged(recipe: Recipe, scale: int) -> list[ValidationPair]:
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


def _unheard(_done: int, _count: int) -> None:
    """Tell nobody."""


class _Shared(Dataset[Any]):
    """Every n-th item of a dataset, for one of n processes."""

    def __init__(self, dataset: Dataset[Any], share: tuple[int, int]) -> None:
        self.dataset, (self.number, self.of) = dataset, share

    def __len__(self) -> int:
        return len(self.dataset) // self.of  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index * self.of + self.number]


def batches(
    recipe: Recipe,
    network: nn.Module,
    done: int,
    report: Report = _unheard,
    *,
    share: tuple[int, int] = (0, 1),
) -> DataLoader[Any] | BankBatches:
    """Batches from the first one that a run of `done` steps has not seen.

    Parameters
    ----------
    recipe : Recipe
        What to learn from.
    network : torch.nn.Module
        Its scale says how clear and degraded patches are related.
    done : int
        Steps before this start.
    report : Report
        Told how far the making of a bank of scenes is.
    share : tuple of int, default=(0, 1)
        Number of this process, and how many learn together.

    Returns
    -------
    torch.utils.data.DataLoader or BankBatches
        As many batches as the whole run has steps, since Lightning counts on from
        `done`.
    """
    whole = recipe.data.pairs is not None
    if recipe.data.bank and not whole:
        bank = open_bank(recipe, _scale(network), report)
        return BankBatches(bank, recipe, done, share)
    per_item = 1 if whole else recipe.data.patches_per_scene
    per_step = max(1, recipe.batch // per_item)
    of_all = per_step * share[1]
    span = {"first": done * of_all, "count": recipe.steps * of_all}
    dataset: Dataset[Any]
    if whole:
        dataset = StoredPatches(recipe, scale=_scale(network), **span)
    elif recipe.kind == "supervised-l1":
        dataset = SceneDataset(recipe, **span)
    else:
        dataset = ScenePatches(recipe, scale=_scale(network), **span)
    return DataLoader(
        dataset if share[1] == 1 else _Shared(dataset, share),
        batch_size=per_step,
        num_workers=recipe.workers,
        prefetch_factor=4 if recipe.workers else None,
        persistent_workers=False,
    )
