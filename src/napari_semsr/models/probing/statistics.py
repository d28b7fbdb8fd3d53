"""Instance norms that take their statistics from the image itself.

They are the only operations of a loadable network that look at a whole image, and are
found by what is called, not by class. Each answers from the moments of its input's
channels, so that moments of a whole field can be put in place of those of a tile. Norms
that use running statistics act on each pixel by itself and are not among them. Another
operation that looks at everything has no bounded reach, and its network is run whole.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from napari_semsr.core import SemsrError


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and variance of each channel over all pixels, in float64.

    ``count`` is the number of pixels; ``mean`` and ``variance``, of the population,
    have shape ``(C,)``.
    """

    count: float
    mean: Tensor
    variance: Tensor


@dataclass(frozen=True, slots=True)
class LiveNorm:
    """One call of a norm on an image ``(B, C, H, W)``."""

    input: Tensor
    weight: Tensor | None
    bias: Tensor | None
    eps: float

    def normalised(self, x: Tensor, moments: Moments) -> Tensor:
        """Apply ``(x - mean) / sqrt(variance + eps) * weight + bias``.

        Parameters
        ----------
        x : (B, C, H, W) torch.Tensor
            What is normalised; the norm's input or a window of it.
        moments : Moments
            Mean and variance of each channel, ``(C,)``.

        Returns
        -------
        (B, C, H, W) torch.Tensor
            In the type of `x`.
        """
        gain = (moments.variance + self.eps).rsqrt()
        if self.weight is not None:
            gain = gain * self.weight.reshape(-1).double().to(gain.device)
        shift = -moments.mean * gain
        if self.bias is not None:
            shift = shift + self.bias.reshape(-1).double().to(gain.device)
        plane = (1, x.shape[1], 1, 1)
        gain, shift = (v.float().reshape(plane).to(x.device) for v in (gain, shift))
        return torch.addcmul(shift, x.float(), gain).to(x.dtype)


def live_norm(
    func: object, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> LiveNorm | None:
    """Read a torch call that normalises a plane by its own statistics.

    Parameters
    ----------
    func : object
        The torch function that is called.
    args, kwargs : tuple and dict
        Its arguments.

    Returns
    -------
    LiveNorm or None
        None for every other call.
    """
    if func is not functional.instance_norm:
        return None
    return _read(*args, **kwargs)


def _read(
    input: Tensor,  # noqa: A002 - torch's names
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> LiveNorm | None:
    """Give the arguments of `torch.nn.functional.instance_norm` their names."""
    live = use_input_stats or running_mean is None
    return LiveNorm(input, weight, bias, eps) if live and input.dim() == 4 else None


# Passes of a network whose live norms answer otherwise than by the image given.


class Answering(TorchFunctionMode):
    """Answer the live norms of a pass in the thread that enters, and count them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def answer(self, norm: LiveNorm) -> Tensor:
        """Give the normalised image; for subclasses.

        Parameters
        ----------
        norm : LiveNorm
            The call, on an image ``(B, C, H, W)``.

        Returns
        -------
        (B, C, H, W) torch.Tensor
            What the network goes on with.
        """
        raise NotImplementedError

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Answer a live norm; let other calls happen."""
        named = kwargs or {}
        norm = live_norm(func, args, named)
        if norm is None:
            return func(*args, **named)
        result = self.answer(norm)
        self.count += 1
        return result


class WithoutNorms(Answering):
    """Replace every live norm by the identity, and count them."""

    def answer(self, norm: LiveNorm) -> Tensor:
        """Return the norm's input."""
        return norm.input


class FixedMoments(Answering):
    """Answer live norms from moments that were measured before, one for each in order.

    With the moments of a whole field, each tile is what it is in the whole field.

    Parameters
    ----------
    moments : sequence of Moments
        One for each norm, in the order of the calls.
    """

    def __init__(self, moments: Sequence[Moments]) -> None:
        super().__init__()
        self._moments = moments

    def answer(self, norm: LiveNorm) -> Tensor:
        """Normalise by the next of the moments.

        Parameters
        ----------
        norm : LiveNorm
            The call, on an image ``(B, C, H, W)``.

        Returns
        -------
        (B, C, H, W) torch.Tensor
            The normalised image.

        Raises
        ------
        SemsrError
            If the moments are those of another network.
        """
        known = self.count < len(self._moments)
        channels = int(norm.input.shape[1])
        if not known or len(self._moments[self.count].mean) != channels:
            msg = (
                f"Statistics for {len(self._moments)} layers do not fit this network, "
                f"whose layer {self.count + 1} has {channels} channels: measure anew."
            )
            raise SemsrError(msg)
        return norm.normalised(norm.input, self._moments[self.count])
