"""What a run is fed with, when several processes learn together."""

import os
from typing import Any

import pytorch_lightning as lightning
import torch
from torch import nn

from napari_semsr.core.errors import OptionError
from napari_semsr.training.bank import Report
from napari_semsr.training.recipes import Recipe
from napari_semsr.training.starting import batches

__all__ = ["Feed", "check_devices", "is_first"]

_WHOLE_RANKS = ("RANK", "SLURM_PROCID")
_PARTIAL_RANKS = ("NODE_RANK", "LOCAL_RANK")


class Feed(lightning.LightningDataModule):
    """Batches of a run, asked for once each process knows its number.

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
    """

    def __init__(
        self, recipe: Recipe, network: nn.Module, done: int, report: Report
    ) -> None:
        super().__init__()
        self.recipe, self.network, self.done = recipe, network, done
        self.report = report

    def train_dataloader(self) -> Any:
        """Give the batches of this process.

        Returns
        -------
        torch.utils.data.DataLoader or BankBatches
            Those of one process are never those of another.
        """
        trainer = self.trainer
        share = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        return batches(self.recipe, self.network, self.done, self.report, share=share)


def check_devices(recipe: Recipe) -> None:
    """Refuse more devices than this machine has, before processes are started.

    Parameters
    ----------
    recipe : Recipe
        Says how many are wanted on each machine.

    Raises
    ------
    OptionError
        If there are fewer.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there, what = (gpus, "GPUs") if gpus else (os.cpu_count() or 1, "processors")
    if recipe.devices > there:
        msg = (
            f"devices must not exceed the {there} {what} of this machine, got "
            f"{recipe.devices}."
        )
        raise OptionError(msg)


def is_first(recipe: Recipe) -> bool:
    """Whether this process is the one that writes and speaks.

    Lightning starts the other ones with the same command and their numbers in the
    environment; so do torchrun and SLURM.

    Parameters
    ----------
    recipe : Recipe
        Says how many processes there are.

    Returns
    -------
    bool
        True for the only process, and for the first of several.
    """
    if recipe.devices * recipe.nodes == 1:
        return True
    for name in _WHOLE_RANKS:
        if name in os.environ:
            return int(os.environ[name]) == 0
    return all(int(os.environ.get(name, "0")) == 0 for name in _PARTIAL_RANKS)
