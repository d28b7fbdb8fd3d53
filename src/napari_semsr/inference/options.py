"""What a user may choose when enhancing; importable without torch."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from napari_semsr.core import Options, by_person

_ROUNDING = 1e-6  # of the range; sums of single precision in another order differ less


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
    strength : float
        Share of all that a model which tells faults apart changes; 0 leaves the field
        as it is.
    denoise : float
        Share of the noise that is taken off, by models that tell faults apart.
    deblur : float
        Share of the blur that is undone, by models that tell faults apart.
    dehaze : float
        Share of the haze that is lifted, by models that lift it.
    noise_percent : float or None
        Standard deviation of the noise that a model which tells faults apart goes by,
        in per cent of the range of grey values; None takes what it finds.
    blur_px : float or None
        Standard deviation in pixels of the blur that such a model undoes: 0 is off, it
        undoes none; None takes what it finds.
    self_ensemble : bool
        Whether each tile is enhanced flipped and turned too, and the mean is taken:
        eight passes, or the four flips of a model that tells faults apart. Steadier,
        at as many times the cost.
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
    strength: float = Field(default=1.0, ge=0, le=1)
    denoise: float = Field(default=1.0, ge=0, le=1)
    deblur: float = Field(default=1.0, ge=0, le=1)
    dehaze: float = Field(default=1.0, ge=0, le=1)
    noise_percent: float | None = Field(default=None, ge=0, le=50)
    blur_px: float | None = Field(default=None, ge=0, le=10)
    self_ensemble: bool = False
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


class ClusterOptions(Options):
    """Where work is done that is not done here.

    Attributes
    ----------
    scheduler : str or None
        Address of a dask scheduler to run on, such as ``tcp://127.0.0.1:8786``; its
        workers see the same files.
    """

    scheduler: str | None = by_person(None)


# What a run of the engine says of itself; importable without torch.


@dataclass(frozen=True, slots=True)
class EnhanceReport:
    """Figures of one run.

    Attributes
    ----------
    tiles : int
        Tiles of the field.
    resumed : int
        Those of them that an earlier run had finished.
    tile_px, halo_px : int
        Side of a core and context around it, in input pixels; in those of the model's
        grid where the result is left on it.
    seconds : float
        Time from the first look at the field to the last tile.
    megapixels_per_second : float
        Input pixels enhanced in this run, over `seconds`.
    peak_memory_mb : float
        Largest resident memory of this process during the run.
    device : str
        Where the network ran.
    precision : {"fp32", "bf16"}
        Its arithmetic.
    model : str
        Name of the model.
    norm : {"none", "exact", "frozen", "tile"}
        Where live normalisations took their statistics; ``none`` without such layers.
    tile_mismatch : float
        RMS difference between neighbouring tiles' predictions of the same pixels at
        their borders (up to 256 of each line), over the output's 1-99 % range
        (sampled); 0 where there is one tile; NaN where no tile looked beyond its
        border, or none of this run has a neighbour.
    seam_index : float
        Mean absolute step across tile borders over that between the pixels one row
        further in; 1 where there is one tile. A report, not a proof.
    clipped : int
        Pixels that the output's type could not hold.
    haze_gain : tuple of float or None
        Least and largest gain that lifted haze; None when it was not looked for.
    noise_percent, blur_px : float or None
        What the model went by; None where it looks for neither.
    seen_pixel_size_nm : tuple of float or None
        ``(y, x)`` pixel size that the network saw: the field's own, or the one that the
        field was resampled to; None when the field has none.
    norm_error : float or None
        Estimated root mean square error of ``frozen`` statistics, over the standard
        deviation of the output; None for other ways.
    notes : tuple of str
        What else the user should know: how it was run, memory that was short.
    """

    tiles: int
    resumed: int
    tile_px: int
    halo_px: int
    seconds: float
    megapixels_per_second: float
    peak_memory_mb: float
    device: str
    precision: str
    model: str
    norm: str
    tile_mismatch: float
    seam_index: float
    clipped: int
    haze_gain: tuple[float, float] | None = None
    noise_percent: float | None = None
    blur_px: float | None = None
    seen_pixel_size_nm: tuple[float, float] | None = None
    norm_error: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def seam(self) -> str:
        """The seam index, or why it says nothing: steps in the image raise it too."""
        if self.tiles == 1:
            return "none: one tile"
        if math.isnan(self.tile_mismatch):
            return "not measured"
        if not self.tile_mismatch:
            return "no seam: tiles are equal"
        if self.tile_mismatch < _ROUNDING:
            return "no seam: tiles are equal but for rounding"
        return f"{self.seam_index:.3f} (1: no seam)"
