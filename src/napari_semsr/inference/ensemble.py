"""Passes of a network: self-ensemble, and the statistics that live norms use.

A self-ensemble is the mean network output over flips and rotations of the input.
Flips and rotations map the grid of a network's stride onto itself, since windows start
and end on it, so that tiles remain exact. A network that is conditioned on the faults
of a field was trained on streaks along rows only. Its input is flipped but not rotated,
and its condition is that of the flipped field.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from napari_semsr import core
from napari_semsr.models import InstanceNormCall, NormInterceptor, has_float64


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

    def transform_box(self, box: core.Box, shape: core.IntPair) -> core.Box:
        """Transform a box in an image of the given shape to this orientation."""
        (rows, columns), (y0, y1, x0, x1) = shape, astuple(box)
        if self.transpose:
            rows, columns, y0, y1, x0, x1 = columns, rows, x0, x1, y0, y1
        if self.rows:
            y0, y1 = rows - y1, rows - y0
        if self.columns:
            x0, x1 = columns - x1, columns - x0
        return core.Box(y0, y1, x0, x1)

    @property
    def _flip_axes(self) -> list[int]:
        return [axis for axis, on in ((2, self.rows), (3, self.columns)) if on]


ALL = tuple(Orientation(*bits) for bits in itertools.product((False, True), repeat=3))
FLIPS = tuple(turn for turn in ALL if not turn.transpose)


def run_network(network: nn.Module, image: Tensor, keep: core.Box | None) -> Tensor:
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
        self, image: Tensor, keep: core.Box | None = None, around: Around = nullcontext
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

    def forward(self, image: Tensor, keep: core.Box | None = None) -> Tensor:
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


# Live norms: statistics of the input of each, measured or given.

_BLOCK_VALUES = 2**17  # values summed at once, so that rounding is small; chosen
_CARDS_BLOCK_VALUES = 2**24  # 128 MB; for a GPU, where calls take most time


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and variance of each channel over all pixels, in float64, ``(C,)``."""

    mean: Tensor
    variance: Tensor  # Population variance

    def normalise(self, x: Tensor, norm: InstanceNormCall) -> Tensor:
        """Apply ``(x - mean) / sqrt(variance + eps) * weight + bias``.

        `x` (B, C, H, W), the norm's input or a window of it; the result has its type.
        """
        gain = (self.variance + norm.eps).rsqrt()
        if norm.weight is not None:
            gain = gain * norm.weight.reshape(-1).to(gain.device).double()
        shift = -self.mean * gain
        if norm.bias is not None:
            shift = shift + norm.bias.reshape(-1).to(gain.device).double()
        plane = (1, x.shape[1], 1, 1)
        gain, shift = (v.float().reshape(plane).to(x.device) for v in (gain, shift))
        return torch.addcmul(shift, x.float(), gain).to(x.dtype)


@dataclass(frozen=True, slots=True)
class TileSums:
    """Sums over one tile, used to compute the statistics of a layer."""

    count: float  # Pixels
    first: Tensor  # (C,) Sum of the values of each channel
    second: Tensor  # (C,) Sum of their squares


def compute_sums(values: Tensor) -> TileSums:
    """Sum an image `values` (1, C, Y, X) in float64, a few rows at a time."""
    here = values.device if has_float64(values.device) else torch.device("cpu")
    rows = values[0].to(here).permute(1, 2, 0)
    height, width, channels = rows.shape
    most = _BLOCK_VALUES if here.type == "cpu" else _CARDS_BLOCK_VALUES
    step = max(1, most // max(1, width * channels))
    first = torch.zeros(channels, dtype=torch.float64, device=here)
    second = torch.zeros_like(first)
    block = first.new_empty(min(step, height), width, channels)
    for top in range(0, height, step):
        part = rows[top : top + step]
        part_values = block[: len(part)]
        part_values.copy_(part)
        flat = part_values.view(-1, channels)
        first += flat.sum(0)
        second += flat.square_().sum(0)
    return TileSums(float(height * width), first.cpu(), second.cpu())


def pool_sums(tiles: Iterable[TileSums], device: torch.device) -> Moments:
    """Pool tile sums into moments, in the given order."""
    sums = list(tiles)
    count = sum(t.count for t in sums)
    mean = torch.stack([t.first for t in sums]).sum(0) / count
    second = torch.stack([t.second for t in sums]).sum(0) / count
    variance = (second - mean**2).clamp_min_(0)
    (moments,) = move_to_device([Moments(mean, variance)], device)
    return moments


Statistics = tuple[Moments, ...]
"""Moments for each live norm of a pass, in the order of the calls."""


def move_to_device(moments: Sequence[Moments], device: torch.device) -> list[Moments]:
    """Move moments to a device, or to the CPU if the device lacks double precision."""
    device = device if has_float64(device) else torch.device("cpu")
    return [Moments(m.mean.to(device), m.variance.to(device)) for m in moments]


class MeasuredMoments(NormInterceptor):
    """Interceptor that normalises by double-precision moments of the input."""

    def _normalise(self, norm: InstanceNormCall) -> Tensor:
        """Normalise each image by its own moments."""
        here = norm.input.device
        answers = [
            pool_sums([compute_sums(image)], here).normalise(image, norm)
            for image in torch.split(norm.input, 1)
        ]
        return torch.cat(answers) if len(answers) > 1 else answers[0]


class FixedMoments(NormInterceptor):
    """Interceptor that normalises by previously measured moments, one per norm.

    With the moments of a whole field, each tile equals its part of the whole field.
    """

    def __init__(self, moments: Sequence[Moments]) -> None:
        super().__init__()
        self._moments = moments

    def _normalise(self, norm: InstanceNormCall) -> Tensor:
        has_answer = self.count < len(self._moments)
        channels = int(norm.input.shape[1])
        if not has_answer or len(self._moments[self.count].mean) != channels:
            msg = (
                f"Statistics for {len(self._moments)} layers do not match this "
                f"network, whose layer {self.count + 1} has {channels} channels: "
                "measure the statistics again."
            )
            raise core.SemsrError(msg, code="statistics-mismatch")
        return self._moments[self.count].normalise(norm.input, norm)
