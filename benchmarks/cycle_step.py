"""One training step of a CycleGAN against the textbook loop of the same networks.

Run it with nothing else on the machine::

    python benchmarks/cycle_step.py

The networks are the textbook's: nine residual blocks, 70 x 70 PatchGANs, 256 x 256,
batch 1, L1 cycle and identity. *Textbook* is a plain PyTorch loop in fp32, kept here:
six passes of generators, each by itself. *Ours* is the package's own training step in
Lightning, in the precision that it would choose. Both take turns, and the least time of
several rounds counts; the first round is not counted. In fp32 both must first agree on
the loss of one step. On a machine that is busy with other work ``OMP_NUM_THREADS=1 ...
--clock cpu`` compares the work done instead of the time. Exit code 1 means that the
gate was missed: 1.5 on a CPU, 2 on a GPU.
"""

import argparse
import copy
import itertools
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as lightning
import torch
from _shared import read_options
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.models import build_discriminator, build_network
from napari_semsr.training import Recipe
from napari_semsr.training.cycle_gan import CycleGan
from napari_semsr.training.patches import Patches

GATES = {"cpu": 1.5, "cuda": 2.0}
HISTORY = 50


class Textbook:
    """The plain loop: fp32, one pass after another."""

    def __init__(self, networks: list[nn.Module], device: torch.device) -> None:
        g, f, judge_high, judge_low = (n.to(device).train() for n in networks)
        self.g, self.f, self.judge_high, self.judge_low = g, f, judge_high, judge_low
        both = itertools.chain(g.parameters(), f.parameters())
        judges = itertools.chain(judge_high.parameters(), judge_low.parameters())
        self.first = torch.optim.Adam(both, lr=2e-4, betas=(0.5, 0.999))
        self.second = torch.optim.Adam(judges, lr=2e-4, betas=(0.5, 0.999))
        self.pools: tuple[list[Tensor], list[Tensor]] = ([], [])

    def step(self, low: Tensor, high: Tensor) -> float:
        """Take one step, and return the loss of the generators."""
        self._learn_to_judge(wanted=False)
        self.first.zero_grad()
        fake_high, fake_low = self.g(low), self.f(high)
        cycle = functional.l1_loss(self.f(fake_high), low)
        cycle = cycle + functional.l1_loss(self.g(fake_low), high)
        same = functional.l1_loss(self.g(high), high)
        same = same + functional.l1_loss(self.f(low), low)
        told = (self.judge_high(fake_high) - 1).square().mean()
        told = told + (self.judge_low(fake_low) - 1).square().mean()
        loss: Tensor = told / 2 + 10 * cycle + 5 * same
        loss.backward()  # type: ignore[no-untyped-call]
        self.first.step()
        self._learn_to_judge(wanted=True)
        self.second.zero_grad()
        self._judge(self.judge_high, high, fake_high, self.pools[0])
        self._judge(self.judge_low, low, fake_low, self.pools[1])
        self.second.step()
        return float(loss.detach())

    def _learn_to_judge(self, *, wanted: bool) -> None:
        for judge in (self.judge_high, self.judge_low):
            judge.requires_grad_(wanted)

    def _judge(
        self, judge: nn.Module, real: Tensor, fake: Tensor, pool: list[Tensor]
    ) -> None:
        pool.append(fake.detach())
        del pool[:-HISTORY]
        loss = (judge(real) - 1).square().mean() + judge(pool[-1]).square().mean()
        (loss / 2).backward()


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """Give the recipe of the same training."""
    side = arguments.side
    return Recipe.parse(
        {
            "name": "step",
            "kind": "cycle-gan",
            "architecture": "resnet",
            "architecture_options": {
                "width": arguments.width,
                "blocks": arguments.blocks,
            },
            "data": {"scene_px": side, "patch_px": side, "patches_per_scene": 1},
            "gan": {"discriminator_options": judge_options(arguments)},
            "batch": 1,
            "learning_rate": 2e-4,
            "warmup_steps": 0,
            "betas": [0.5, 0.999],
            "clip_norm": None,
        }
    )


def judge_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Give the options of the textbook's discriminator."""
    return {"width": arguments.width, "dropout": 0, "first_norm": False}


def make_networks(arguments: argparse.Namespace) -> list[nn.Module]:
    """Build two generators and two discriminators."""
    options = {"width": arguments.width, "blocks": arguments.blocks}
    made = [build_network("resnet", options) for _ in range(2)]
    judges = [
        build_discriminator("patch-gan", judge_options(arguments)) for _ in range(2)
    ]
    return [*made, *judges]


def learner_of(networks: list[nn.Module], recipe: Recipe) -> CycleGan:
    """Put networks into the package's own training."""
    learner = CycleGan(networks[0], recipe, [])
    learner.back = networks[1]
    learner.judges["high"], learner.judges["low"] = networks[2:]
    return learner


class Turns(Callback):
    """Before each of our steps, the textbook takes one; both are timed."""

    def __init__(self, textbook: Textbook, clock: Callable[[], float]) -> None:
        self.textbook, self.clock = textbook, clock
        self.times: dict[str, list[float]] = {"textbook": [], "ours": []}
        self._start = 0.0

    def on_train_batch_start(
        self, _trainer: Any, _module: Any, batch: Patches, _index: int
    ) -> None:
        """Time the textbook, and start the clock for ours."""
        low, high = (part.flatten(0, 1) for part in batch)
        start = self._now()
        self.textbook.step(low, high)
        self.times["textbook"].append(self._now() - start)
        self._start = self._now()

    def on_train_batch_end(self, *_: Any) -> None:
        """Stop the clock for ours."""
        self.times["ours"].append(self._now() - self._start)

    def _now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return self.clock()


def batches(side: int, count: int) -> Iterator[Patches]:
    """Make batches of noise."""
    torch.manual_seed(1)
    for _ in range(count):
        yield Patches(torch.rand(1, 1, 1, side, side), torch.rand(1, 1, 1, side, side))


class Stream(torch.utils.data.IterableDataset[Patches]):
    """Batches as a data set."""

    def __init__(self, side: int, count: int) -> None:
        self.side, self.count = side, count

    def __iter__(self) -> Iterator[Patches]:
        return batches(self.side, self.count)


def agree(arguments: argparse.Namespace) -> float:
    """Compare the losses of one step in fp32; small images suffice."""
    torch.manual_seed(0)
    networks = make_networks(arguments)
    learner = learner_of(copy.deepcopy(networks), recipe_of(arguments))
    low, high = torch.rand(1, 1, 64, 64), torch.rand(1, 1, 64, 64)
    ours = float(learner.compute_generator_loss(low, high, 0).detach())
    theirs = Textbook(networks, torch.device("cpu")).step(low, high)
    return abs(ours - theirs) / theirs


def main() -> int:
    """Print both times and their quotient."""
    arguments = read_options(
        __doc__,
        "--side=256 --width=64 --blocks=9 --rounds=3 --precision=bf16-mixed "
        "--clock=wall|cpu",
    )
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    difference = agree(arguments)
    print(f"loss of one step in fp32: relative difference {difference:.1e}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    networks = make_networks(arguments)
    learner = learner_of(copy.deepcopy(networks), recipe_of(arguments))
    clock = time.process_time if arguments.clock == "cpu" else time.perf_counter
    turns = Turns(Textbook(networks, device), clock)
    trainer = lightning.Trainer(
        max_steps=arguments.rounds + 1,
        accelerator=device.type,
        devices=1,
        precision=arguments.precision,
        callbacks=[turns],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    stream = Stream(arguments.side, arguments.rounds + 1)
    trainer.fit(learner, torch.utils.data.DataLoader(stream, batch_size=None))
    least = {name: min(found[1:]) for name, found in turns.times.items()}
    quotient = least["textbook"] / least["ours"]
    for name, seconds in least.items():
        print(f"{name:9} {seconds:7.2f} s per step ({arguments.clock} clock)")
    print(f"quotient  {quotient:7.2f}, gate {GATES[device.type]}")
    return 0 if quotient >= GATES[device.type] and difference < 1e-4 else 1


if __name__ == "__main__":
    sys.exit(main())
