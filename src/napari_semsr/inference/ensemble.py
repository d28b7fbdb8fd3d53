"""Self-ensemble: mean network output over flips and rotations of the input.

Flips and rotations map the grid of a network's stride onto itself, since windows start
and end on it, so that tiles remain exact. A network that is conditioned on the faults
of a field was trained on streaks along rows only. Its input is flipped but not rotated,
and its condition is that of the flipped field.
"""

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import astuple
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from napari_semsr.core import Box, IntPair


class Orientation(NamedTuple):
    """Orientation of images (B, C, H, W): flips and transposition."""

    rows: bool  # Whether the order of the rows is reversed
    columns: bool
    transpose: bool  # Whether rows and columns are exchanged first

    def apply(self, image: Tensor) -> Tensor:
        """Convert an image to this orientation."""
        pose_image = image.transpose(2, 3) if self.transpose else image
        return pose_image.flip(self._flip_axes)

    def undo(self, image: Tensor) -> Tensor:
        """Convert an image from this orientation to the original one."""
        original_pose = image.flip(self._flip_axes)
        return original_pose.transpose(2, 3) if self.transpose else original_pose

    def transform_box(self, box: Box, shape: IntPair) -> Box:
        """Transform a box in an image of the given shape to this orientation."""
        (rows, columns), (y0, y1, x0, x1) = shape, astuple(box)
        if self.transpose:
            rows, columns, y0, y1, x0, x1 = columns, rows, x0, x1, y0, y1
        if self.rows:
            y0, y1 = rows - y1, rows - y0
        if self.columns:
            x0, x1 = columns - x1, columns - x0
        return Box(y0, y1, x0, x1)

    @property
    def _flip_axes(self) -> list[int]:
        return [axis for axis, on in ((2, self.rows), (3, self.columns)) if on]


ALL = tuple(Orientation(*bits) for bits in itertools.product((False, True), repeat=3))
FLIPS = tuple(turn for turn in ALL if not turn.transpose)


def run_network(network: nn.Module, image: Tensor, keep: Box | None) -> Tensor:
    """Run a network on `image` (B, 1, H, W); return the output or its part `keep`.

    If the network supports it, only what that part needs is computed.
    """
    if getattr(network, "leaves_out", False):
        output: Tensor = network(image, keep)
        return output
    output = network(image)
    if keep is None:
        return output
    return output[..., *keep.scale(output.shape[-1] // image.shape[-1]).slices]


Around = Callable[[], AbstractContextManager[object]]


class SelfEnsemble(nn.Module):
    """Ensemble of a network over orientations of its input.

    `networks` has one network for each of `turns`, which may be the same.
    """

    def __init__(
        self, networks: Sequence[nn.Module], turns: Sequence[Orientation]
    ) -> None:
        super().__init__()
        self.networks, self.turns = nn.ModuleList(networks), tuple(turns)

    def forward(
        self, image: Tensor, keep: Box | None = None, around: Around = nullcontext
    ) -> Tensor:
        """Return the mean output for an image (B, 1, H, W) or its region `keep`.

        `around` is a context for each pass.
        """
        shape = image.shape[2], image.shape[3]
        outputs = []
        for turn, network in zip(self.turns, self.networks, strict=True):
            there = None if keep is None else turn.transform_box(keep, shape)
            with around():
                outputs.append(
                    turn.undo(run_network(network, turn.apply(image), there)).float()
                )
        return torch.stack(outputs).mean(0)


class _CoredSharpening(nn.Module):
    """Network whose corrections of blur are suppressed where they are small."""

    leaves_out = True

    def __init__(self, networks: Sequence[nn.Module], threshold: float) -> None:
        super().__init__()
        self.networks, self.threshold = nn.ModuleList(networks), threshold

    def forward(self, image: Tensor, keep: Box | None = None) -> Tensor:
        """Return the output for an image (B, 1, H, W) or its region `keep`."""
        less, more = (run_network(one, image, keep) for one in self.networks)
        output: Tensor = less + core_step(more - less, self.threshold)
        return output


def core_sharpening(networks: Sequence[nn.Module], threshold: float) -> nn.Module:
    """Combine networks that remove noise alone, and blur too, with a threshold."""
    return _CoredSharpening(networks, threshold) if threshold else networks[-1]


def core_step(step: Any, threshold: float) -> Any:
    """Suppress steps (an array or a tensor) far below a threshold."""
    return step * (step * step / (step * step + threshold**2))


def create_self_ensemble(module: nn.Module) -> SelfEnsemble:
    """Create the ensemble of a network over all eight orientations."""
    return SelfEnsemble([module] * len(ALL), ALL)
