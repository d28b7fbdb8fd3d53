"""Whether a network is trained in bf16."""

import torch
from torch import nn

from napari_semsr.core.errors import OptionError
from napari_semsr.training.recipes import Recipe

__all__ = ["takes_bf16"]

_BLOCK = 16  # channels


def takes_bf16(recipe: Recipe, network: nn.Module) -> bool:
    """Tell whether a network is trained in mixed precision.

    Parameters
    ----------
    recipe : Recipe
        Its `precision`: ``auto`` takes bf16 where the processor is fast at it and the
        network can be trained so.
    network : torch.nn.Module
        What is trained.

    Returns
    -------
    bool
        True for bf16, False for fp32.

    Raises
    ------
    OptionError
        If bf16 is asked for and the network cannot be trained in it.
    """
    if recipe.precision == "fp32":
        return False
    if torch.cuda.is_available():
        able = bool(torch.cuda.is_bf16_supported())
        return able or recipe.precision == "bf16"
    wrong = _wrong_on_cpu(network)
    if recipe.precision == "bf16":
        if wrong is not None:
            msg = (
                "precision: bf16 fails on a CPU where a dilated convolution has "
                f"{wrong} channels, not a multiple of {_BLOCK}; take fp32 or auto."
            )
            raise OptionError(msg)
        return True
    return wrong is None and _is_fast_on_cpu()


def _is_fast_on_cpu() -> bool:
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _wrong_on_cpu(network: nn.Module) -> int | None:
    """Channels of a convolution whose gradient would be wrong, if there is one.

    In bf16 and with channels last, PyTorch 2.13 gives NaN for the gradient of a
    dilated convolution whose channels do not fill oneDNN's blocks, or ends the process.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and max(module.dilation) > 1:
            for channels in (module.in_channels, module.out_channels):
                if channels % _BLOCK:
                    return channels
    return None
