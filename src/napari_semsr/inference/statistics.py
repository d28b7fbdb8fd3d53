"""Image statistics at each normalisation layer of a network, in float64."""

import base64
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_semsr.core import SemsrError, WriteError
from napari_semsr.models import InstanceNormCall, NormInterceptor, has_float64

_BLOCK_VALUES = 2**17  # values summed at once, so that rounding is small; chosen
_CARDS_BLOCK_VALUES = 2**24  # 128 MB; for a GPU, where calls take most time


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and variance of each channel over all pixels, in float64, ``(C,)``."""

    count: float  # Pixels
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
    (moments,) = move_to_device([Moments(count, mean, variance)], device)
    return moments


@contextmanager
def convert_read_errors() -> Iterator[None]:
    """Raise a `WriteError` if stored statistics are damaged."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        msg = (
            "Cannot read the statistics stored in the output: use `overwrite` to "
            "start again."
        )
        raise WriteError(msg, code="file-damaged") from error


@dataclass(frozen=True, slots=True)
class Statistics:
    """Moments for each live norm of a pass."""

    moments: tuple[Moments, ...]  # In the order of the calls

    def to_json(self) -> dict[str, object]:
        """Convert to JSON types without loss of precision."""
        layers = [
            {
                "count": layer.count,
                "mean": _encode_tensor(layer.mean),
                "variance": _encode_tensor(layer.variance),
            }
            for layer in self.moments
        ]
        return {"encoding": "float64-le base64", "layers": layers}

    @classmethod
    def from_json(cls, value: Any) -> "Statistics":
        """Create an object from the output of `to_json`."""
        with convert_read_errors():
            moments = tuple(
                Moments(
                    float(layer["count"]),
                    _decode_tensor(layer["mean"]),
                    _decode_tensor(layer["variance"]),
                )
                for layer in value["layers"]
            )
            return cls(moments)


def _encode_tensor(values: Tensor) -> str:
    raw = values.cpu().numpy().astype("<f8").tobytes()
    return base64.b64encode(raw).decode("ascii")


def _decode_tensor(text: str) -> Tensor:
    raw = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f8")
    return torch.from_numpy(raw.astype(np.float64))


def move_to_device(moments: Sequence[Moments], device: torch.device) -> list[Moments]:
    """Move moments to a device, or to the CPU if the device lacks double precision."""
    device = device if has_float64(device) else torch.device("cpu")
    return [Moments(m.count, m.mean.to(device), m.variance.to(device)) for m in moments]


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
            raise SemsrError(msg, code="statistics-mismatch")
        return self._moments[self.count].normalise(norm.input, norm)
