"""Train Sun's and Gao's own systems at the papers' length, all of a step on a card.

The networks are small, so that launching kernels and loading patches would take most of
a step. Here scenes, the choice of patches, remembered images, rates and running means
lie on the card, and the package's own ``training_step`` is captured once as a CUDA
graph and replayed. It begins with the networks in ``benchmarks/campaign``, with new
ones where there are none, and writes ``NAME.tar`` of the same files every minute:
``scripts/gpu_kit.sh keep FOLDER`` puts them back, and this or ``scripts/campaign.py``
continues from there.
"""

import argparse
import contextlib
import copy
import io
import math
import os
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import campaign
import numpy as np
import torch
import yaml
from gpu.kit import IMAGES, Report, device_of, read_call, rounded, settle, use_tf32
from torch import Tensor, nn

from napari_semsr.models import (
    LoadedModel,
    load_model,
    load_training_networks,
    read_card,
)
from napari_semsr.training import Recipe
from napari_semsr.training.adversarial import ImageBuffer
from napari_semsr.training.batches import CachedBatches, SceneCache, normalise_scenes
from napari_semsr.training.callbacks import create_model_card
from napari_semsr.training.cycle_gan import EXPECTED_GAIN, CycleGan
from napari_semsr.training.fit import build_initial_network
from napari_semsr.training.learner import Learner, compute_learning_rate_factor
from napari_semsr.training.patches import Patches
from napari_semsr.training.validation import collect_validation_fields

CHUNK = 100  # steps whose chances lie on the card at once; chosen
SAVE_S = 60.0
RESERVE_S = 6.0  # for the last validation; chosen
WARM = 3  # steps on a side stream before a capture, as PyTorch asks
TRIAL = 100  # steps of each arithmetic
SAME = 0.01  # of the mean loss: an arithmetic that differs less is as good; chosen
GOALS = {"sun": 200.0, "gao-a": 100.0}  # steps a second
ARITHMETIC = ("fp32", "tf32", "bf16")


class CardHistory(ImageBuffer):
    """Remembered images whose exchange is decided ahead, and asks the card nothing."""

    place: Tensor  # (B,) where each image may go
    take: Tensor  # (B,) whether an old one is shown in its place
    put: Tensor  # (B,) whether it is remembered

    def __init__(self, other: ImageBuffer) -> None:
        nn.Module.__init__(self)
        self.seed, self.filled = other.seed, int(other.count)
        self.register_buffer("images", other.images.clone())
        self.register_buffer("count", other.count.clone())

    def decide(self, step: int, batch: int) -> list[list[int]]:
        """Draw `place`, `take` and `put` of a step, by the chances of `ImageBuffer`."""
        size, found = len(self.images), []
        rng = np.random.default_rng([self.seed, step])
        for _ in range(batch):
            if not size:
                found.append((0, 0, 0))
            elif self.filled < size:
                found.append((self.filled, 0, 1))
                self.filled += 1
            else:
                place, old = int(rng.integers(size)), int(rng.random() < 0.5)
                found.append((place, old, old))
        return [list(column) for column in zip(*found, strict=True)]

    @torch.no_grad()
    def swap_images(self, fresh: Tensor, step: int) -> Tensor:
        """Show new images, or old ones, whose places they take, as was decided."""
        fresh = fresh.detach()
        if not len(self.images):
            return fresh
        shown = []
        for number, image in enumerate(fresh):
            at = self.place[number : number + 1]
            old = self.images.index_select(0, at)[0]
            shown.append(torch.where(self.take[number], old, image))
            kept = torch.where(self.put[number], image, old)
            self.images.index_copy_(0, at, kept[None])
        return torch.stack(shown)


class Stepped:
    """An optimiser as `training_step` asks for it; its rate is a number on the card."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.param_groups: list[dict[str, Any]] = [{}]  # what is written here is lost
        self.step = optimizer.step


class CardGan(CycleGan):
    """The package's learner without a trainer: its step can be captured."""

    step = 0

    @property
    def global_step(self) -> int:
        """The step that is made."""
        return self.step

    def equip(self, recipe: Recipe) -> None:
        """Make optimisers and histories on the device that the networks are on."""
        device = self.device
        on_card = device.type == "cuda"
        numbers = torch.zeros(3, device=device)
        self.rates, self.share = (numbers[0:1], numbers[1:2]), numbers[2]
        self.numbers = numbers
        self.held = [
            Stepped(
                torch.optim.Adam(
                    network.parameters(),
                    lr=rate.squeeze(),
                    betas=recipe.betas,
                    capturable=on_card,
                    fused=on_card,
                )
            )
            for network, rate in zip(
                (self.generators(), self.discriminators()), self.rates, strict=True
            )
        ]
        for name, history in self.histories.items():
            self.histories[name] = CardHistory(history).to(device)
        mean, present = (n.state_dict() for n in (self.best_network, self.network))
        pairs = [(mean[k], present[k]) for k in mean]
        self.moved = [p for p in pairs if p[0].is_floating_point()]
        self.copied = [p for p in pairs if not p[0].is_floating_point()]

    def optimizers(self, use_pl_optimizer: bool = True) -> Any:
        """Give both optimisers."""
        return self.held

    def manual_backward(self, loss: Tensor, *_: Any, **__: Any) -> None:
        """Find gradients."""
        loss.backward()

    @torch.no_grad()
    def update_average(self, step: int) -> None:
        """Move the mean weights by the share that lies on the card."""
        if self.averaged is None:
            return
        means, present = (list(side) for side in zip(*self.moved, strict=True))
        apart = torch._foreach_sub(present, means)
        torch._foreach_mul_(apart, self.share)
        torch._foreach_add_(means, apart)
        for mean, now in self.copied:
            mean.copy_(now)


@dataclass
class Chances:
    """What is drawn of some steps, a row for each."""

    whole: Tensor  # (K, N) places in the banks, and of remembered images
    real: Tensor  # (K, 3) rates of both optimisers, share of the mean


class Stepper:
    """Steps of a learner in one arithmetic; on a card they are replayed."""

    def __init__(
        self, learner: CardGan, recipe: Recipe, batches: CachedBatches, mode: str
    ) -> None:
        self.learner, self.recipe, self.batches = learner, recipe, batches
        self.mode, self.device = mode, learner.device
        self.low = batches.low.to(self.device).flatten()
        high = batches.high.to(self.device)
        parts = high[:, None].split(256)  # as many as torch takes quantiles of
        self.high = torch.cat([normalise_scenes(p.float()) for p in parts]).flatten()
        self.width = int(high.shape[-1])
        side = recipe.data.patch_px
        down, across = torch.meshgrid(
            *(torch.arange(side, device=self.device),) * 2, indexing="ij"
        )
        self.offsets = down * self.width + across
        self.batch = batches.per_step * recipe.data.patches_per_scene
        self.judges = [*learner.histories.values()]
        columns = self.batch * (2 + 3 * len(self.judges))
        self.whole = torch.zeros(CHUNK, columns, dtype=torch.int64, device=self.device)
        self.real = torch.zeros(CHUNK, 3, device=self.device)
        self.row = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.total = torch.zeros((), device=self.device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.why_eager = "on a CPU" if self.device.type == "cpu" else ""
        if recipe.gan.discriminator_every != 1:
            raise ValueError("a captured step teaches the discriminators each time")

    def chances(self, first: int, count: int) -> Chances:
        """Draw what `count` steps from `first` on need, by the package's chances."""
        whole, real = [], []
        recipe, start = self.recipe, self.recipe.gan.content_only_steps
        for step in range(first, first + count):
            drawn = self.batches.select_patches(step)
            row: list[int] = []
            for numbers, corners in (
                (drawn.low, drawn.corners),
                (drawn.high, drawn.high_corners),
            ):
                scene = numbers[:, None] * self.width**2
                place = scene + corners[..., 0] * self.width + corners[..., 1]
                row += place.flatten().tolist()
            for judge in self.judges:
                told = [[0] * self.batch] * 3
                if step >= start:
                    told = judge.decide(step, self.batch)
                row += [number for column in told for number in column]
            whole.append(row)
            rate = recipe.learning_rate * compute_learning_rate_factor(step, recipe)
            decay = min(recipe.ema, (1 + step) / (10 + step))
            real.append((rate, rate * recipe.gan.discriminator_rate, 1 - decay))
        return Chances(torch.tensor(whole), torch.tensor(real))

    def load(self, chances: Chances) -> None:
        """Bring chances to the card, when it is done with the last ones."""
        for own, drawn in ((self.whole, chances.whole), (self.real, chances.real)):
            given = drawn.pin_memory() if self.device.type == "cuda" else drawn
            own[: len(given)].copy_(given, non_blocking=True)
        self.row.zero_()

    def body(self) -> None:
        """Make one step, by the next row of chances."""
        learner = self.learner
        now = self.whole.index_select(0, self.row)[0].split(self.batch)
        learner.numbers.copy_(self.real.index_select(0, self.row)[0])
        for number, judge in enumerate(self.judges):
            judge.place, take, put = now[2 + 3 * number : 5 + 3 * number]
            judge.take, judge.put = take.bool(), put.bool()
        low, high = (
            torch.take(bank, place[:, None, None] + self.offsets).float()
            for bank, place in zip((self.low, self.high), now[:2], strict=True)
        )
        mixed = self.mode == "bf16"
        with (
            patch.object(Learner, "check_finite", lambda *_: None),  # asks the card
            torch.autocast(self.device.type, torch.bfloat16, enabled=mixed),
        ):
            batch = Patches(low[:, None, None], high[:, None, None])
            made = learner.training_step(batch, 0)
        self.total += made["loss"]
        self.row += 1

    def capture(self) -> None:
        """Capture a step, on rows that are not counted; else they are made singly."""
        use_tf32(self.mode == "tf32")
        if self.device.type == "cpu":
            return
        learner = self.learner
        before = {k: v.clone() for k, v in learner.state_dict().items()}
        rates = self.real.clone()
        self.real.zero_()  # so that warming up changes no weight
        try:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM):
                    self.row.zero_()
                    self.body()
            torch.cuda.current_stream().wait_stream(stream)
            for one in learner.held:
                one.optimizer.zero_grad(set_to_none=True)
            self.row.zero_()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.body()
            self.graph = graph
        except Exception as error:  # noqa: BLE001 - single steps are better than none
            self.why_eager = f"{type(error).__name__}: {error}"[:1000]
            settle(self.device)
        self.real.copy_(rates)
        learner.load_state_dict(before)
        for one in learner.held:  # moments of the steps that warmed up
            for state in one.optimizer.state.values():
                for value in state.values():
                    value.zero_()
        self.row.zero_()
        self.total.zero_()

    def advance(self, count: int) -> None:
        """Make some steps of the rows that are loaded."""
        if self.graph is None:
            for _ in range(count):
                self.body()
            return
        for _ in range(count):
            self.graph.replay()


class System:
    """One of the papers' systems: what it begins with, its steps, and what is kept."""

    def __init__(
        self, name: str, given: argparse.Namespace, runs: Path, report: Report
    ) -> None:
        self.name, self.given, self.report = name, given, report
        self.device = device_of(given)
        self.folder = given.folder / name
        training = campaign.Training(f"campaign/{name}.yaml", 1.0)
        training.run = runs / name
        self.fresh = given.fresh or not (training.kept / "last.safetensors").exists()
        if self.fresh:
            training.record["steps"] = 0
        self.kept, self.record = training.kept, training.record
        self.recipe = _on_this(Recipe.parse(yaml.safe_load(training.settled())), given)
        self.done, self.best = 0, dict(training.record.get("best") or {})
        if self.fresh:
            self.best = {}
        self.told: dict[str, Any] = {
            "steps_before": self.record["steps"],
            "steps_of_the_paper": self.record["steps"] + self.recipe.steps,
            "goal_steps_per_s": GOALS[name],
            "batch": f"{self.recipe.batch} of {self.recipe.data.patch_px} px",
        }
        self.rows: list[dict[str, float]] = []

    def make_scenes(self) -> None:
        """Make or open the bank of scenes, on all cores."""
        began = time.perf_counter()
        self.cache = SceneCache.open(self.recipe, 1, lambda _done, _count: None)
        self.told["scenes"] = len(self.cache.low)
        self.told["scenes_s"] = rounded(time.perf_counter() - began)
        self._tell()

    def prepare(self) -> None:
        """Build the learner, and choose its arithmetic by some steps of each."""
        recipe = self.recipe
        learner = CardGan(
            build_initial_network(recipe), recipe, collect_validation_fields(recipe, 1)
        )
        if recipe.start_from is not None:
            learner.load_auxiliary_networks(load_training_networks(recipe.start_from))
        learner.to(self.device).train()
        learner.on_train_start()  # lays weights out for a card
        learner.equip(recipe)
        self.learner = learner
        self.batches = CachedBatches(self.cache, recipe, 0)
        begun = {k: v.clone() for k, v in learner.state_dict().items()}
        count = 2 if self.given.dry else TRIAL
        trials: dict[str, dict[str, Any]] = {}
        for mode in ARITHMETIC[: 1 if self.given.dry else None]:
            with self.report.trying(f"{self.name}, {mode}"):
                stepper = self._begin(begun, mode)
                drawn = stepper.chances(recipe.gan.content_only_steps, count)
                stepper.load(drawn)
                stepper.capture()
                settle(self.device)
                began = time.perf_counter()
                stepper.advance(count)
                settle(self.device)
                spent = time.perf_counter() - began
                trials[mode] = {
                    "steps_per_s": rounded(count / spent),
                    "mean_loss": rounded(float(stepper.total) / count),
                    "captured": stepper.graph is not None,
                    "why_not": stepper.why_eager,
                    **_kernel_time(stepper, count, spent),
                }
                self.told["arithmetic"] = trials
                self._tell()
        exact = trials.get("fp32", {}).get("mean_loss", math.nan)
        alike = [
            mode
            for mode, trial in trials.items()
            if abs(trial["mean_loss"] - exact) <= SAME * abs(exact)
        ]
        alike = alike or ["fp32"]
        self.mode = max(alike, key=lambda m: trials.get(m, {}).get("steps_per_s", 0.0))
        self.told["chosen"] = self.mode
        self.told["loss_alike_within"] = SAME
        self.begun = begun

    def _begin(self, begun: dict[str, Tensor], mode: str) -> Stepper:
        """Put the learner back to where it began."""
        learner = self.learner
        learner.load_state_dict(begun)
        learner.equip(self.recipe)
        for history in learner.histories.values():
            history.filled = 0
        learner.step = self.recipe.gan.content_only_steps
        return Stepper(learner, self.recipe, self.batches, mode)

    def train(self, seconds: float) -> None:
        """Train for so long, or to the end; save every minute and at the end."""
        recipe, learner, dry = self.recipe, self.learner, self.given.dry
        began = saved = time.perf_counter()
        learned_s, loss, drawn = 0.0, math.nan, None
        stepper = self._begin(self.begun, self.mode)
        start = recipe.gan.content_only_steps
        last = min(recipe.steps, 4) if dry else recipe.steps
        while self.done < last:
            left = seconds - (time.perf_counter() - began)
            if left <= 0 and not (dry and not self.done):
                break
            count = self._next(self.done, start, last)
            stepper.load(drawn or stepper.chances(self.done, count))
            if self.done in (0, start):  # a graph is of one phase
                learner.step, stepper.graph = self.done, None
                stepper.capture()
            since = time.perf_counter()
            stepper.advance(count)
            self.done += count
            ahead = self._next(self.done, start, last)
            # while the card works
            drawn = stepper.chances(self.done, ahead) if ahead else None
            loss = float(stepper.total) / count  # waits for the card
            stepper.total.zero_()
            learned_s += time.perf_counter() - since
            if not math.isfinite(loss):
                self.told["ended"] = f"the loss is not finite at step {self.done}"
                break
            if time.perf_counter() - saved >= SAVE_S:
                self._keep(loss, learned_s, stepper)
                saved = time.perf_counter()
        if math.isfinite(loss):
            self._keep(loss, learned_s, stepper)
        self.told["seconds_in_all"] = rounded(time.perf_counter() - began)
        self._tell()

    def _next(self, done: int, start: int, last: int) -> int:
        """Count the steps that are made at once from one on."""
        end = start if done < start else last
        return max(0, min(2 if self.given.dry else CHUNK, end - done))

    def _keep(self, loss: float, learned_s: float, stepper: Stepper) -> None:
        """Judge the networks, and write them as the campaign does."""
        learner = self.learner
        learner.check_weights()
        found = learner.validate_pairs()
        terms = {name: float(value) for name, value in learner.terms.items()}
        row = {"step": self.done, "loss": loss, **found, **terms}
        self.rows.append({name: rounded(value) for name, value in row.items()})
        if (
            found[EXPECTED_GAIN] > self.best.get(EXPECTED_GAIN, -math.inf)
            or not self._kept_best()
        ):
            self.best = {**found, "step": self.done}
            self.best_network = copy.deepcopy(learner.best_network).cpu().eval()
        steps = self.record["steps"] + self.done
        over = self.done >= self.recipe.steps
        record = self.record | {
            "steps": steps,
            "best": self.best,
            "last": {name: f"{value:.6g}" for name, value in row.items()},
            "state": "ended" if over else "waiting",
        }
        card = self._card()
        best = getattr(self, "best_network", None)
        if best is None:
            best = load_model(self.kept / "best.safetensors").module
        held = {k: v.detach().cpu() for k, v in learner.state_dict().items()}
        model = LoadedModel(copy.deepcopy(best), card, "sha256:" + "0" * 64)
        campaign.write_kept(self.folder, model, held, record)
        _pack(self.folder, self.given.folder / f"{self.name}.tar")
        self.told |= {
            "steps_made": self.done,
            "steps_in_all": steps,
            "steps_per_s": rounded(self.done / learned_s),
            "captured": stepper.graph is not None,
            "why_not": stepper.why_eager,
            "rows": self.rows,
            "best": self.best,
        }
        self._tell()

    def _kept_best(self) -> bool:
        """Say whether a best network is known already."""
        return hasattr(self, "best_network") or (
            not self.fresh and (self.kept / "best.safetensors").exists()
        )

    def _card(self) -> Any:
        """Write the card; what it learnt from is told by the first run's."""
        path = self.kept / "best.safetensors"
        figures = {k: round(float(v), 4) for k, v in self.best.items()}
        if not path.exists():
            return create_model_card(self.recipe, self.learner.best_network, figures)
        card = read_card(path)
        training = card.training | {
            "recipe": self.recipe.to_card_record(),
            "validation": figures,
        }
        return card.model_copy(update={"training": training})

    def _tell(self) -> None:
        self.report.add(self.name, self.told)


def _on_this(recipe: Recipe, given: argparse.Namespace) -> Recipe:
    """Fit a recipe to the machine: all its cores, images that were brought along."""
    data, workers = recipe.data, os.cpu_count() or 1
    if IMAGES.is_dir():
        data = data.replace(root=str(IMAGES))
    if not given.dry:
        return recipe.replace(data=data, workers=workers)
    drawn = {"train": (), "validation": (), "phantoms": 1.0}
    small = {"scene_px": 96, "patch_px": 64, "bank": 3}
    return recipe.replace(data=data.replace(**drawn, **small), batch=1, workers=0)


def _kernel_time(stepper: Stepper, count: int, spent: float) -> dict[str, Any]:
    """Add up the time of kernels alone, and its share of the whole: the limit."""
    if stepper.device.type == "cpu":
        return {"kernel_ms": None, "share_of_limit": None}
    from torch.profiler import ProfilerActivity, profile

    steps = min(20, count)
    stepper.row.zero_()
    with contextlib.suppress(Exception):
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            stepper.advance(steps)
            settle(stepper.device)
        busy_us = sum(float(e.self_device_time_total) for e in seen.key_averages())
        kernel_s = busy_us / 1e6 / steps
        return {
            "kernel_ms": rounded(1e3 * kernel_s),
            "share_of_limit": rounded(kernel_s * count / spent),
        }
    return {"kernel_ms": None, "share_of_limit": None}


def _pack(folder: Path, path: Path) -> None:
    """Put the files of a folder into one, in one step."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for file in sorted(folder.iterdir()):
            archive.add(file, arcname=f"{folder.name}/{file.name}")
    partial = path.with_suffix(".partial")
    partial.write_bytes(packed.getvalue())
    partial.replace(path)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


@contextlib.contextmanager
def _in_a_folder(given: argparse.Namespace) -> Iterator[Path]:
    """Give a folder for banks: they are large, and made again each time."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def main() -> int:
    """Train each system for its share of the time."""
    given = read_call(__doc__)
    report = Report(given, "train")
    with _in_a_folder(given) as runs:
        systems = []
        for name in given.systems:
            with report.trying(name):
                system = System(name, given, runs, report)
                system.make_scenes()  # before the card is used: by processes that fork
                systems.append(system)
        torch.backends.cudnn.benchmark = True  # all batches are of one shape
        for number, system in enumerate(systems):
            with report.trying(system.name):
                share = (report.left - RESERVE_S) / (len(systems) - number)
                since = time.perf_counter()
                system.prepare()
                system.train(share - (time.perf_counter() - since))
    return report.close()


if __name__ == "__main__":
    sys.exit(main())
