"""Which arithmetic the processor has units for."""

from typing import Any

import torch


def has_fast_bf16() -> bool:
    """Tell whether the processor computes in bf16 faster than in fp32.

    False where PyTorch is too old to say.
    """
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
