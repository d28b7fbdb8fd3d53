"""Self-ensemble: a window goes through flipped and turned, and the mean is taken.

Flips and turns bring the grid of a network's stride onto itself, since windows start
and end on it, so that tiles stay exact. A network that is told what ails a field is
told of lines: its streaks lie along rows, and were never seen along columns. It is
flipped, but not turned, and told the condition of the flipped field.
"""

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import astuple
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from napari_semsr.core import Box, IntPair


class Pose(NamedTuple):
    """One way to lay an image down, (B, C, H, W)."""

    rows: bool  # Whether the order of the rows is turned about
    columns: bool
    swapped: bool  # Whether rows and columns were exchanged before

    def apply(self, image: Tensor) -> Tensor:
        """Lay an image down."""
        pose_image = image.transpose(2, 3) if self.swapped else image
        return pose_image.flip(self._axes)

    def undo(self, image: Tensor) -> Tensor:
        """Bring it back."""
        original_pose = image.flip(self._axes)
        return original_pose.transpose(2, 3) if self.swapped else original_pose

    def place(self, box: Box, shape: IntPair) -> Box:
        """Find where a part of an image of some shape lies then."""
        (rows, columns), (y0, y1, x0, x1) = shape, astuple(box)
        if self.swapped:
            rows, columns, y0, y1, x0, x1 = columns, rows, x0, x1, y0, y1
        if self.rows:
            y0, y1 = rows - y1, rows - y0
        if self.columns:
            x0, x1 = columns - x1, columns - x0
        return Box(y0, y1, x0, x1)

    @property
    def _axes(self) -> list[int]:
        return [axis for axis, on in ((2, self.rows), (3, self.columns)) if on]


ALL = tuple(Pose(*bits) for bits in itertools.product((False, True), repeat=3))
FLIPS = tuple(turn for turn in ALL if not turn.swapped)


def pass_of(network: nn.Module, image: Tensor, keep: Box | None) -> Tensor:
    """Run a network once; `image` (B, 1, H, W); gives all of it, or what is in `keep`.

    Where the network can, it leaves out what that part does not need.
    """
    if getattr(network, "leaves_out", False):
        output: Tensor = network(image, keep)
        return output
    output = network(image)
    if keep is None:
        return output
    return output[..., *keep.scale(output.shape[-1] // image.shape[-1]).slices]


Around = Callable[[], AbstractContextManager[Any]]


class SelfEnsemble(nn.Module):
    """Networks, and how an image is laid down for each.

    `networks`: the same one for all turns, or one that suits each.
    """

    def __init__(self, networks: Sequence[nn.Module], turns: Sequence[Pose]) -> None:
        super().__init__()
        self.networks, self.turns = nn.ModuleList(networks), tuple(turns)

    def forward(
        self, image: Tensor, keep: Box | None = None, around: Around = nullcontext
    ) -> Tensor:
        """Give the mean of the passes of an image (B, 1, H, W), or of `keep` in it.

        `around` surrounds each pass.
        """
        shape = image.shape[2], image.shape[3]
        outputs = []
        for turn, network in zip(self.turns, self.networks, strict=True):
            there = None if keep is None else turn.place(keep, shape)
            with around():
                outputs.append(
                    turn.undo(pass_of(network, turn.apply(image), there)).float()
                )
        return torch.stack(outputs).mean(0)


def ensemble_of(module: nn.Module) -> SelfEnsemble:
    """Lay images down in all eight ways for a network that is told of no axis."""
    return SelfEnsemble([module] * len(ALL), ALL)
