"""Calls that take statistics from the image itself, whatever layer makes them.

They are found by what is called, not by class: instance, group and layer norms, batch
norms without running statistics, and means, variances or sums over all pixels, as a
module or as a function. Each answers from the moments of its input's channels, so that
moments of a whole field can be put in place of those of a tile. Norms that use running
statistics act on each pixel by itself and are no live calls, nor is a layer norm over
channels only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from napari_semsr.core import SemsrError

_PLANE = {2, 3}
_ALIASES = {"self": "input", "axis": "dim", "keepdims": "keepdim"}


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and variance of each channel over all pixels, in float64.

    Attributes
    ----------
    count : float
        Pixels.
    mean, variance : (C,) torch.Tensor
        Of each channel; the variance is that of the population.
    """

    count: float
    mean: Tensor
    variance: Tensor

    def pooled(self, groups: int) -> "Moments":
        """Pool neighbouring channels.

        Parameters
        ----------
        groups : int
            Number of groups; a divisor of the number of channels.

        Returns
        -------
        Moments
            Moments of the groups.
        """
        mean = self.mean.reshape(groups, -1)
        spread = self.variance.reshape(groups, -1)
        centre = mean.mean(1, keepdim=True)
        variance = (spread + (mean - centre) ** 2).mean(1)
        return Moments(self.count * mean.shape[1], centre[:, 0], variance)


@dataclass(frozen=True, slots=True)
class LiveCall:
    """One call that looks at a whole image.

    Attributes
    ----------
    input : (1, C, H, W) torch.Tensor
        What it looks at.
    norm : bool
        Whether it returns a normalised image; otherwise a number for each channel.
    answer : callable
        Computes the result from the input and its moments.
    """

    input: Tensor
    norm: bool
    answer: Callable[[Tensor, Moments], Any]


class _Arguments:
    """Arguments of a call, by name, wherever they stand."""

    def __init__(
        self, names: Sequence[str], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        named = {_ALIASES.get(name, name): value for name, value in kwargs.items()}
        self._found = {**dict(zip(names, args, strict=False)), **named}

    def get(self, name: str, default: Any = None) -> Any:
        """Return an argument, or its default."""
        return self._found.get(name, default)


def _normalised(
    x: Tensor,
    moments: Moments,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    groups: int,
) -> Tensor:
    """Apply ``(x - mean) / sqrt(variance + eps) * weight + bias``."""
    channels = x.shape[1]
    pooled = moments.pooled(groups)
    mean, variance = (
        v.repeat_interleave(channels // groups) for v in (pooled.mean, pooled.variance)
    )
    gain = (variance + eps).rsqrt()
    if weight is not None:
        gain = gain * weight.reshape(-1).double().to(gain.device)
    shift = -mean * gain
    if bias is not None:
        shift = shift + bias.reshape(-1).double().to(gain.device)
    plane = (1, channels, 1, 1)
    gain, shift = (v.float().reshape(plane).to(x.device) for v in (gain, shift))
    return torch.addcmul(shift, x.float(), gain).to(x.dtype)


def _norm(read: _Arguments, groups: int | None = None) -> LiveCall | None:
    """Describe a normalisation over groups of channels."""
    x = read.get("input")
    weight, bias = read.get("weight"), read.get("bias")
    eps = float(read.get("eps", 1e-5))
    parts = groups or int(x.shape[1])
    return LiveCall(
        x, True, lambda y, moments: _normalised(y, moments, weight, bias, eps, parts)
    )


def _instance_norm(read: _Arguments) -> LiveCall | None:
    live = read.get("use_input_stats", True)
    return _norm(read) if live or read.get("running_mean") is None else None


def _batch_norm(read: _Arguments) -> LiveCall | None:
    return _norm(read) if read.get("training", False) else None


def _group_norm(read: _Arguments) -> LiveCall | None:
    return _norm(read, int(read.get("num_groups")))


def _layer_norm(read: _Arguments) -> LiveCall | None:
    sides = len(read.get("normalized_shape"))
    if sides < 2 or read.get("weight") is not None:  # weights fix the image's size
        return None
    return _norm(read, 1 if sides == 3 else None)


def _reduced(x: Tensor, values: Tensor, dims: set[int], keep: bool) -> Tensor:
    """Shape a number for each channel, or for all, like a reduction does."""
    shape = [1 if d in dims else int(n) for d, n in enumerate(x.shape)]
    kept = shape if keep else [n for d, n in enumerate(shape) if d not in dims]
    images = values.to(x.device, x.dtype).expand(shape[0], len(values))
    return images.reshape(kept)


def _dims(read: _Arguments, rank: int) -> set[int]:
    given = read.get("dim")
    if given is None or given == () or isinstance(given, bool):
        return set(range(rank))
    listed = [given] if isinstance(given, int) else list(given)
    return {int(d) % rank for d in listed}


def _mean(moments: Moments, read: _Arguments) -> Tensor:
    return moments.mean


def _sum(moments: Moments, read: _Arguments) -> Tensor:
    return moments.mean * moments.count


def _variance(moments: Moments, read: _Arguments) -> Tensor:
    only = read.get("dim")  # the one argument of ``x.var(False)``
    unbiased = only if isinstance(only, bool) else read.get("unbiased", True)
    less = read.get("correction", int(unbiased))
    less = 1 if less is None else less
    return moments.variance * (moments.count / max(moments.count - less, 1))


def _deviation(moments: Moments, read: _Arguments) -> Tensor:
    return _variance(moments, read).sqrt()


def _pool(
    read: _Arguments, measures: Sequence[Callable[[Moments, _Arguments], Tensor]]
) -> LiveCall | None:
    """Describe a reduction over all pixels."""
    x = read.get("input")
    dims = _dims(read, x.dim())
    if not dims >= _PLANE or read.get("dtype") is not None:
        return None
    keep = bool(read.get("keepdim", False))

    def answer(y: Tensor, moments: Moments) -> Any:
        pooled = moments.pooled(1) if 1 in dims else moments
        made = tuple(_reduced(y, m(pooled, read), dims, keep) for m in measures)
        return made if len(made) > 1 else made[0]

    return LiveCall(x, False, answer)


def _average_pool(read: _Arguments) -> LiveCall | None:
    size = read.get("output_size")
    if size not in (1, (1, 1), [1, 1]):
        return None
    merged = {"input": read.get("input"), "dim": (2, 3), "keepdim": True}
    return _pool(_Arguments((), (), merged), (_mean,))


def _pooling(
    *measures: Callable[[Moments, _Arguments], Tensor],
) -> Callable[[_Arguments], LiveCall | None]:
    return lambda read: _pool(read, measures)


_RUNNING = ("running_mean", "running_var")
_AFFINE = ("weight", "bias")
_REDUCTION = ("input", "dim", "keepdim")
_SPREAD = ("input", "dim", "unbiased", "keepdim")
_Rule = tuple[tuple[str, ...], Callable[[_Arguments], LiveCall | None]]
_RULES: dict[Any, _Rule] = {
    functional.instance_norm: (
        ("input", *_RUNNING, *_AFFINE, "use_input_stats", "momentum", "eps"),
        _instance_norm,
    ),
    torch.instance_norm: (
        ("input", *_AFFINE, *_RUNNING, "use_input_stats", "momentum", "eps"),
        _instance_norm,
    ),
    functional.batch_norm: (
        ("input", *_RUNNING, *_AFFINE, "training", "momentum", "eps"),
        _batch_norm,
    ),
    torch.batch_norm: (
        ("input", *_AFFINE, *_RUNNING, "training", "momentum", "eps"),
        _batch_norm,
    ),
    functional.group_norm: (("input", "num_groups", *_AFFINE, "eps"), _group_norm),
    torch.group_norm: (("input", "num_groups", *_AFFINE, "eps"), _group_norm),
    functional.layer_norm: (
        ("input", "normalized_shape", *_AFFINE, "eps"),
        _layer_norm,
    ),
    functional.adaptive_avg_pool2d: (("input", "output_size"), _average_pool),
    torch.mean: (_REDUCTION, _pooling(_mean)),
    Tensor.mean: (_REDUCTION, _pooling(_mean)),
    torch.sum: (_REDUCTION, _pooling(_sum)),
    Tensor.sum: (_REDUCTION, _pooling(_sum)),
    torch.var: (_SPREAD, _pooling(_variance)),
    Tensor.var: (_SPREAD, _pooling(_variance)),
    torch.std: (_SPREAD, _pooling(_deviation)),
    Tensor.std: (_SPREAD, _pooling(_deviation)),
    torch.var_mean: (_SPREAD, _pooling(_variance, _mean)),
    torch.std_mean: (_SPREAD, _pooling(_deviation, _mean)),
}


def live_call(
    func: object, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> LiveCall | None:
    """Tell whether a call takes statistics of a whole image, and how it answers.

    Parameters
    ----------
    func : callable
        The torch function that is called.
    args : tuple
        Its arguments.
    kwargs : dict
        Its named arguments.

    Returns
    -------
    LiveCall or None
        None for anything else, for images of more than four axes or fewer, and for
        reductions of an image of a single pixel.
    """
    try:
        rule = _RULES.get(func)
    except TypeError:  # not every callable can be looked up
        return None
    if rule is None:
        return None
    read = _Arguments(rule[0], args, kwargs)
    x = read.get("input")
    if not isinstance(x, Tensor) or x.dim() != 4:
        return None
    found = rule[1](read)
    if found is not None and not found.norm and x.shape[2:].numel() == 1:
        return None
    return found


# Passes of a network whose live calls answer otherwise than by the image given.
#
# A mode watches the functional calls that every layer ends in, so that statistics taken
# without a module are seen too. `napari_semsr.models.probing.statistics` says which
# they are.


def blank_moments(call: LiveCall) -> Moments:
    """Make moments that let an image through unchanged, but for its affine part.

    Parameters
    ----------
    call : LiveCall
        The call to be answered.

    Returns
    -------
    Moments
        Means of 0 and variances of 1.
    """
    channels = int(call.input.shape[1])
    zeros = torch.zeros(channels, dtype=torch.float64, device=call.input.device)
    return Moments(float(call.input.shape[2:].numel()), zeros, zeros + 1)


class Answering(TorchFunctionMode):
    """Answer the live calls of a pass, and count them.

    The mode acts in the thread that enters it.

    Attributes
    ----------
    count : int
        Live calls that were met.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def answer(self, call: LiveCall) -> Any:
        """Give the result of one live call.

        Parameters
        ----------
        call : LiveCall
            The call.

        Returns
        -------
        object
            What the network gets.

        Raises
        ------
        NotImplementedError
            Always: this is for subclasses.
        """
        raise NotImplementedError

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Answer one call.

        Parameters
        ----------
        func : callable
            The torch function that is being called.
        types : iterable of type
            Tensor types involved.
        args : tuple
            Its arguments.
        kwargs : dict, optional
            Its named arguments.

        Returns
        -------
        object
            The mode's answer to a live call, else what `func` returns.
        """
        named = kwargs or {}
        call = live_call(func, args, named)
        if call is None:
            return func(*args, **named)
        result = self.answer(call)
        self.count += 1
        return result


class WithoutNorms(Answering):
    """Replace every live normalisation by the identity, and count them.

    Live reductions answer as for an image of mean 0 and variance 1.

    Attributes
    ----------
    count : int
        Live calls that were met.
    """

    def answer(self, call: LiveCall) -> Any:
        """Return the input of a normalisation.

        Parameters
        ----------
        call : LiveCall
            The call.

        Returns
        -------
        object
            The call's input, or a constant for each channel.
        """
        if call.norm:
            return call.input
        return call.answer(call.input, blank_moments(call))


class FixedMoments(Answering):
    """Answer live calls from moments that were measured before.

    With the moments of a whole field, each tile is what it is in the whole field.

    Parameters
    ----------
    moments : sequence of Moments
        For each live call of a pass, in order.

    Attributes
    ----------
    count : int
        Live calls that were met.
    """

    def __init__(self, moments: Sequence[Moments]) -> None:
        super().__init__()
        self._moments = moments

    def answer(self, call: LiveCall) -> Any:
        """Answer from the list.

        Parameters
        ----------
        call : LiveCall
            The call.

        Returns
        -------
        object
            The normalised image, or a number for each channel.

        Raises
        ------
        SemsrError
            If the pass has more live calls than there are moments, or other channels.
        """
        known = self.count < len(self._moments)
        channels = int(call.input.shape[1])
        if not known or len(self._moments[self.count].mean) != channels:
            msg = (
                f"Statistics for {len(self._moments)} layers do not fit this network, "
                f"whose layer {self.count + 1} has {channels} channels: measure anew."
            )
            raise SemsrError(msg)
        return call.answer(call.input, self._moments[self.count])
