"""Passes of a network whose live calls answer otherwise than by the image given.

A mode watches the functional calls that every layer ends in, so that statistics taken
without a module are seen too. `napari_semsr.models.live_calls` says which they are.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from napari_semsr.core.errors import SemsrError
from napari_semsr.models.live_calls import LiveCall, Moments, live_call

__all__ = ["Answering", "FixedMoments", "WithoutNorms", "blank_moments"]


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
