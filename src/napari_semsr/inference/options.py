"""What a user may choose when enhancing; importable without torch."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from napari_semsr.core import (
    SIGMA,
    WIDEST_BLUR,
    FloatPair,
    GreyType,
    Options,
    Quantity,
    device_option,
    option,
)

WEIGHTS, ADVANCED = "Noise, blur and haze", "Advanced"
"""Frames of the panel that some options stand in."""

_ROUNDING = 1e-6  # of the range; sums of single precision in another order differ less


def _weight(label: str, description: str) -> Any:
    """Declare the share of a correction that is made."""
    return option(1.0, label, description, step=0.1, group=WEIGHTS, ge=0, le=1)


class EnhanceOptions(Options):
    """How a network is run over a field."""

    device: str = device_option()
    tile: int | None = option(
        None,
        "Tile",
        "Side of a tile in px of the input, rounded up to the model's stride; "
        "automatic fits model and memory. The result is the same.",
        unit="px",
        step=64,
        ge=16,
        le=4096,
    )
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto",
        "Precision",
        "Number format; automatic takes bf16 where the device has instructions for it.",
        choices={"automatic": "auto", "fp32": "fp32", "bf16": "bf16"},
    )
    norm: Literal["auto", "whole", "sampled", "tile"] = option(
        "auto",
        "Normalisation",
        "Where normalising layers take their statistics: from the whole field (exact), "
        "a sampled tenth of it (approximate, no seams), or each tile alone (leaves "
        "seams); automatic is whole where the field fits into memory, else sampled.",
    )
    haze: bool = option(
        True,
        "Remove haze",
        "Let a model that looks for haze over the whole field lift it; not where "
        "contrast differs across the sample by nature.",
    )
    resample: Literal["auto", "keep", "never"] = option(
        "auto",
        "Resample",
        "A field at another pixel size than the model was trained for is resampled to "
        "that, within the range on the model's card, and the result brought back "
        "(auto) or left there (keep); never runs the model on the field as it is.",
        choices={
            "to the model's pixels and back": "auto",
            "to the model's pixels": "keep",
            "never": "never",
        },
        flags={"no_resample": "never"},
    )
    denoise: float = _weight(
        "Noise removed",
        "Share of the noise that is taken off, by models that tell faults apart.",
    )
    deblur: float = _weight(
        "Blur removed",
        "Share of the blur that is undone, by models that tell faults apart.",
    )
    dehaze: float = _weight(
        "Haze removed", "Share of the haze that is lifted, by models that lift it."
    )
    noise_percent: float | None = option(
        None,
        "Noise",
        "Standard deviation of the noise that a model which tells faults apart goes "
        "by, in per cent of the range of grey values; automatic takes what it finds, "
        "which the result tells.",
        unit="%",
        step=0.5,
        group=WEIGHTS,
        ge=0,
        le=50,
    )
    memory_gb: float | None = option(
        None,
        "Memory",
        "Memory that a run may take, in 10^9 bytes; automatic takes what is free. It "
        "decides whether a model that looks at the whole field is run whole.",
        unit="GB",
        step=0.5,
        group=ADVANCED,
        gt=0,
    )
    halo_tolerance: float | None = option(
        None,
        "Halo tolerance",
        "Largest change that pixels beyond a tile's halo may make, over the range of "
        "the result; automatic makes none. 0.001 makes deep models faster.",
        step=0.0001,
        group=ADVANCED,
        gt=0,
        lt=1,
    )
    self_ensemble: bool = option(
        False,
        "Self-ensemble",
        "Enhance each tile flipped and turned too, and take the mean: a little "
        "steadier, at eight times the time (four for models that tell faults apart).",
        group=ADVANCED,
    )
    strength: float = option(
        1.0,
        "",
        "Share of all that a model which tells faults apart changes; 0 leaves the "
        "field as it is.",
        ge=0,
        le=1,
    )
    blur_px: float | None = option(
        None,
        "",
        "Standard deviation in px of the blur that a model which tells faults apart "
        "undoes; 0 undoes none, automatic takes what it finds.",
        ge=0,
        le=WIDEST_BLUR,
    )
    dtype: GreyType = option(
        None,
        "",
        "Type of the output, float32 if not given; others are rounded and clipped.",
    )
    batch: int | None = option(
        None,
        "",
        "Tiles in one pass of a GPU, chosen if not given; of no effect on a CPU.",
        ge=1,
        le=256,
    )


class ClusterOptions(Options):
    """Where work is done that is not done here."""

    scheduler: str | None = option(
        None,
        "Scheduler",
        "Address of a dask scheduler to run on, such as tcp://127.0.0.1:8786, whose "
        "workers see the same files under the same paths.",
        user_only=True,
    )


# What a run of the engine says of itself; importable without torch.


@dataclass(frozen=True, slots=True)
class EnhanceReport:
    """Figures of one run."""

    # Of tiles, side of a core and context around it: input pixels, or those of the
    # model's grid where the result is left on it
    tiles: Annotated[int, Quantity("Tiles", form="d")]
    resumed: int  # Those of them that an earlier run had finished
    tile_px: Annotated[int, Quantity("Side of a tile", "px", "d")]
    halo_px: Annotated[int, Quantity("Halo of a tile", "px", "d")]
    # From the first look at the field to the last tile
    seconds: Annotated[float, Quantity("Time", "s", ".2f")]
    # Input pixels enhanced in this run, over `seconds`
    megapixels_per_second: Annotated[float, Quantity("Speed", "MP/s", ".2f")]
    # Largest resident memory of this process during the run
    peak_memory_mb: Annotated[float, Quantity("Peak memory", "MB", ".0f")]
    device: Annotated[str, Quantity("Device")]
    precision: Annotated[str, Quantity("Precision")]  # ``fp32`` or ``bf16``
    model: Annotated[str, Quantity("Model")]
    # Where live normalisations took their statistics: ``whole``, ``sampled`` or
    # ``tile``; ``none`` without such layers
    norm: Annotated[str, Quantity("Normalisation")]
    # RMS difference between neighbouring tiles' predictions of the same pixels at their
    # borders (up to 256 of each line), over the output's 1-99 % range (sampled); 0
    # where there is one tile; NaN where no tile looked beyond its border, or none of
    # this run has a neighbour
    tile_mismatch: float
    # Mean absolute step across tile borders over that between the pixels one row
    # further in; 1 where there is one tile. A report, not a proof
    seam_index: float
    clipped: int  # Pixels that the output's type could not hold
    # Least and largest gain that lifted haze; None when it was not looked for
    haze_gain: FloatPair | None = None
    # What the model went by, of a stack the largest; None where it looks for neither
    noise_percent: Annotated[
        float | None, Quantity("Noise", "% of the range of grey values", ".2g")
    ] = None
    blur_px: Annotated[float | None, Quantity(f"Blur, {SIGMA}", "px", ".2f")] = None
    # ``(y, x)`` pixel size that the network saw: the field's own, or the one that the
    # field was resampled to; None when the field has none
    seen_pixel_size_nm: FloatPair | None = None
    # Estimated root mean square error of ``sampled`` statistics, over the standard
    # deviation of the output
    norm_error: float | None = None
    # What else the user should know: how it was run, memory that was short
    notes: tuple[str, ...] = ()

    @property
    def haze(self) -> Annotated[str | None, Quantity("Haze")]:
        """How it was lifted, if it was looked for."""
        if self.haze_gain is None:
            return None
        least, most = (f"{gain:.2f}" for gain in self.haze_gain)
        if least == most == "1.00":
            return "none found: contrast is as it was"
        return f"contrast times {least} to {most} across the field"

    @property
    def mismatch(
        self,
    ) -> Annotated[float | str, Quantity("Tile mismatch", "of the range", ".2e")]:
        """By how much neighbouring tiles disagree, or why that is not known."""
        has_seams = self.tiles > 1 and not math.isnan(self.tile_mismatch)
        return self.tile_mismatch if has_seams else self.seam

    @property
    def seam(self) -> Annotated[str, Quantity("Seam index")]:
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

    @property
    def noted(self) -> Annotated[str | None, Quantity("Notes")]:
        """All notes as one text."""
        return " ".join(self.notes) or None
