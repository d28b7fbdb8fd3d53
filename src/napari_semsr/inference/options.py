"""What a user may choose when enhancing; importable without torch."""

from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from napari_semsr.core.options import Options

__all__ = ["EnhanceOptions"]


class EnhanceOptions(Options):
    """How a network is run over a field.

    Attributes
    ----------
    tile : int or None
        Side of a tile's core in input pixels, rounded up to the model's stride; None
        chooses. A tile is a chunk of the output.
    norm : {"auto", "exact", "frozen", "tile"}
        Where a live normalisation layer takes its statistics: the whole field
        (``exact``), a tenth of it (``frozen``, approximate), or each tile alone
        (``tile``, which leaves seams). ``auto`` is exact unless that takes over three
        times the work of frozen. Of no effect on networks without such layers.
    memory_gb : float or None
        Memory that a run may take, in 10^9 bytes; None takes what is free. Beyond it,
        networks that look at the whole field are run in lockstep, on disk if need be.
    halo_tolerance : float or None
        Largest change, over the output's range, that pixels beyond a tile's halo may
        make; None takes the exact halo. Narrower halos save work for deep networks.
    haze : bool
        Whether a model that looks for haze over the whole field lifts it. Switch it off
        where contrast differs across the sample by nature.
    resample : {"auto", "keep", "never"}
        What is done with a field at another pixel size than the model was trained for:
        resample it to that, within the range on the model's card, and the result back
        to the field's grid (``auto``), or leave the result on the model's (``keep``);
        or run the network on the field as it is (``never``).
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    precision : {"auto", "fp32", "bf16"}
        ``auto`` is bf16 where the device has instructions for it.
    dtype : str or None
        Type of the output; None keeps float32. Others are rounded and clipped.
    batch : int or None
        Tiles in one pass of a GPU; None chooses. Of no effect on a CPU.
    """

    tile: int | None = Field(default=None, ge=16, le=4096)
    norm: Literal["auto", "exact", "frozen", "tile"] = "auto"
    memory_gb: float | None = Field(default=None, gt=0)
    halo_tolerance: float | None = Field(default=None, gt=0, lt=1)
    haze: bool = True
    resample: Literal["auto", "keep", "never"] = "auto"
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    dtype: str | None = None
    batch: int | None = Field(default=None, ge=1, le=256)

    @field_validator("dtype")
    @classmethod
    def _known_type(cls, value: str | None) -> str | None:
        """Accept integer and floating types by name."""
        if value is None:
            return None
        try:
            found = np.dtype(value)
        except TypeError:
            found = np.dtype(object)
        if found.kind not in "uif":
            msg = "must name an integer or floating type such as uint8 or float32"
            raise ValueError(msg)
        return found.name
