"""Train a rival of `semsr adapt` on the same pairs.

Run: ``python benchmarks/_adapt_rivals.py RIVAL SECONDS GIVEN MADE``. GIVEN holds light
and SEM of the training part in units of their ranges, NaN where they are not trained
on, and the light of another place; MADE receives what the rival makes of it, and its
steps. SECONDS are of the processor. Each rival is its best published form: CARE of
CAREamics is trained by CAREamics; the U-Net is that of MONAI (five levels, residual
units) with L1, Adam at 1e-3 and batches of 16 patches of 64 px, as its tutorials train
it; Pix2Pix and the CycleGAN of Sun et al. have the losses, rates and sizes of our
recipes (`recipes/pix2pix.yaml`, `recipes/sun-cyclegan.yaml`), with patches of 256 px
one at a time. Their networks are normalised by the batch also when applied, as Pix2Pix
states.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

PATCHES_PX = {"care": 64, "monai": 64, "pix2pix": 256, "cyclegan": 256}


class Pairs:
    """Patches of the training part, turned and mirrored."""

    def __init__(self, low: np.ndarray, high: np.ndarray, side: int) -> None:
        known = np.isfinite(low) & np.isfinite(high)
        table = np.pad(known.astype(np.int64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
        side = min(side, *_extent(known))
        sums = table[side:, side:] - table[:-side, side:]
        sums = sums - table[side:, :-side] + table[:-side, :-side]
        self.corners = np.argwhere(sums == side**2)
        self.side, self.rng = side, np.random.default_rng(0)
        self.planes = torch.from_numpy(
            np.stack([np.nan_to_num(low), np.nan_to_num(high)]).astype(np.float32)
        )

    def take(self, count: int) -> tuple[Tensor, Tensor]:
        """Cut (B, 1, side, side) of both."""
        found = []
        for y, x in self.rng.choice(self.corners, count):
            patch = self.planes[:, y : y + self.side, x : x + self.side]
            patch = torch.rot90(patch, int(self.rng.integers(4)), (1, 2))
            found.append(patch.flip(2) if self.rng.random() < 0.5 else patch)
        both = torch.stack(found)
        return both[:, :1], both[:, 1:]


def _extent(known: np.ndarray) -> tuple[int, int]:
    return int(known.any(1).sum()), int(known.any(0).sum())


def until(seconds: float, step: Callable[[], object]) -> int:
    """Repeat a step for so long; how often."""
    began, count = time.process_time(), 0
    while time.process_time() - began < seconds:
        step()
        count += 1
    return count


@torch.no_grad()
def apply(network: nn.Module, light: np.ndarray, multiple: int) -> np.ndarray:
    """Apply a network to a whole image, mirrored up to a multiple of its strides."""
    rows, columns = light.shape
    pad = (0, -columns % multiple, 0, -rows % multiple)
    plane = torch.from_numpy(np.nan_to_num(light).astype(np.float32))[None, None]
    return network(functional.pad(plane, pad, "reflect"))[0, 0, :rows, :columns].numpy()


def monai(pairs: Pairs, seconds: float, light: np.ndarray) -> tuple[np.ndarray, int]:
    """Train MONAI's U-Net."""
    from monai.networks.nets import UNet

    network = UNet(2, 1, 1, (16, 32, 64, 128, 256), (2, 2, 2, 2), num_res_units=2)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)

    def step() -> None:
        low, high = pairs.take(16)
        optimizer.zero_grad()
        functional.l1_loss(network(low), high).backward()
        optimizer.step()

    steps = until(seconds, step)
    return apply(network.eval(), light, 16), steps


def care(pairs: Pairs, seconds: float, light: np.ndarray) -> tuple[np.ndarray, int]:
    """Train CARE by CAREamics, on patches that cover the training part."""
    import pytorch_lightning as lightning

    if find_spec("torchvision") is None:  # CAREamics uses it for its LVAE alone
        for name in ("", ".transforms", ".transforms.functional"):
            sys.modules[f"torchvision{name}"] = ModuleType(f"torchvision{name}")
        sys.modules["torchvision"].__version__ = "none"  # type: ignore[attr-defined]
    from careamics import CAREamist
    from careamics.config import create_care_configuration

    class Limit(lightning.Callback):
        def __init__(self) -> None:
            self.began, self.steps = time.process_time(), 0

        def on_train_batch_end(self, trainer: Any, *_: object) -> None:
            self.steps += 1
            if time.process_time() - self.began >= seconds:
                trainer.should_stop = True

    images = [part.numpy()[:, 0] for part in pairs.take(256)]
    limit = Limit()
    with tempfile.TemporaryDirectory() as work:
        config = create_care_configuration(
            "care", "array", "SYX", [64, 64], 16, num_epochs=10000
        )
        trainer = CAREamist(config, work_dir=work, callbacks=[limit])
        trainer.train(
            train_source=images[0][32:],
            train_target=images[1][32:],
            val_source=images[0][:32],
            val_target=images[1][:32],
        )
        found = trainer.predict(
            np.nan_to_num(light).astype(np.float32),
            axes="YX",
            tile_size=(256, 256),
            tile_overlap=(48, 48),
        )
    return np.asarray(found[0], np.float32).squeeze(), limit.steps


def pix2pix(pairs: Pairs, seconds: float, light: np.ndarray) -> tuple[np.ndarray, int]:
    """Train Pix2Pix."""
    from napari_semsr.models import build_discriminator, build_network

    network = build_network("pix2pix", {"width": 64, "levels": 8, "bounded": False})
    judge = build_discriminator(
        "patch-gan",
        {"width": 64, "norm": "batch", "dropout": 0, "first_norm": False}
        | {"channels": 2},
    )
    first, second = (
        torch.optim.Adam(n.parameters(), 2e-4, (0.5, 0.999)) for n in (network, judge)
    )

    def score(image: Tensor, low: Tensor, real: float) -> Tensor:
        found = judge(torch.cat([low, image], 1))
        wanted = torch.full_like(found, real)
        return functional.binary_cross_entropy_with_logits(found, wanted)

    def step() -> None:
        low, high = pairs.take(1)
        made = network(low)
        first.zero_grad()
        loss = score(made, low, 1.0) + 100 * functional.l1_loss(made, high)
        loss.backward()
        first.step()
        second.zero_grad()
        (score(high, low, 1.0) + score(made.detach(), low, 0.0)).mul(0.5).backward()
        second.step()

    steps = until(seconds, step)
    return apply(network, light, 256), steps


def cyclegan(pairs: Pairs, seconds: float, light: np.ndarray) -> tuple[np.ndarray, int]:
    """Train the CycleGAN of Sun et al."""
    from napari_semsr.models import build_discriminator, build_network

    options = {"width": 64, "blocks": 9, "norm": "batch", "dropout": 0.2}
    options["slope"] = "learnt"
    there, back = (build_network("multi-residual", options) for _ in range(2))
    judges = [
        build_discriminator("patch-gan", {"width": 64, "norm": "instance"})
        for _ in range(2)
    ]
    first = torch.optim.Adam(
        [*there.parameters(), *back.parameters()], 2e-4, (0.5, 0.999)
    )
    second = torch.optim.Adam(
        [p for judge in judges for p in judge.parameters()], 2e-4, (0.5, 0.999)
    )

    def step() -> None:
        low, (_, high) = pairs.take(1)[0], pairs.take(1)  # without pairs
        clear, coarse = there(low), back(high)
        first.zero_grad()
        loss = (judges[0](clear) - 1).square().mean()
        loss = loss + (judges[1](coarse) - 1).square().mean()
        cycles = functional.l1_loss(back(clear), low)
        cycles = cycles + functional.l1_loss(there(coarse), high)
        same = functional.l1_loss(there(high), high)
        same = same + functional.l1_loss(back(low), low)
        (loss + 10 * cycles + 5 * same).backward()
        first.step()
        second.zero_grad()
        for judge, real, made in ((judges[0], high, clear), (judges[1], low, coarse)):
            right = (judge(real) - 1).square().mean()
            (0.5 * (right + judge(made.detach()).square().mean())).backward()
        second.step()

    steps = until(seconds, step)
    for module in there.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    return apply(there, light, 16), steps


def main() -> None:
    """Train, apply, write."""
    rival, seconds, given, made = sys.argv[1:]
    torch.manual_seed(0)
    torch.set_num_threads(1)
    with np.load(given) as stored:
        pairs = Pairs(stored["low"], stored["high"], PATCHES_PX[rival])
        light = stored["light"]
    image, steps = globals()[rival](pairs, float(seconds), light)
    np.savez(Path(made), image=image, steps=steps)


if __name__ == "__main__":
    main()
