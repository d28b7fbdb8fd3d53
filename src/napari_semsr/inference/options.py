"""Enhancement options and report, importable without torch."""

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
    declare_device_option,
    option,
)

WEIGHTS, ADVANCED_GROUP = "Noise, blur and haze", "Advanced"
"""Option groups in the panel."""

_ROUNDING = 1e-6  # of the range; summing in another order changes less


def _declare_weight_option(label: str, description: str) -> Any:
    """Declare an option that sets the fraction of a correction to apply."""
    return option(1.0, label, description, step=0.1, group=WEIGHTS, ge=0, le=1)


class EnhanceOptions(Options):
    """Options for applying a network to an image."""

    device: str = declare_device_option()
    tile: int | None = option(
        None,
        "Tile",
        "Tile size in input pixels, rounded up to a multiple of the model's stride; "
        "automatic adapts to the model and memory. The result does not depend on it.",
        unit="px",
        step=64,
        ge=16,
        le=4096,
    )
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto",
        "Precision",
        "Floating-point precision; automatic uses bf16 if the device supports it.",
        choices={"automatic": "auto", "fp32": "fp32", "bf16": "bf16"},
    )
    norm: Literal["auto", "whole", "sampled", "tile"] = option(
        "auto",
        "Normalisation",
        "Source of the normalisation-layer statistics: the whole image (exact), a "
        "sample of one tenth of it (approximate, no seams), or each tile separately "
        "(with seams); automatic uses the whole image if it fits into memory, "
        "otherwise a sample.",
    )
    haze: bool = option(
        True,
        "Remove haze",
        "Remove haze, for models that estimate it over the whole image; switch this "
        "off if the contrast of the sample itself varies across the image.",
    )
    resample: Literal["auto", "keep", "never"] = option(
        "auto",
        "Resample",
        "Resample the image to the pixel size that the model was trained on, within "
        "the limits of its model card, and resample the result back (auto) or leave "
        "it on that grid (keep), or apply the model without resampling (never).",
        choices={
            "to the model's pixels and back": "auto",
            "to the model's pixels": "keep",
            "never": "never",
        },
        flags={"no_resample": "never"},
    )
    denoise: float = _declare_weight_option(
        "Noise removed",
        "Fraction of the noise to remove, for models with separate corrections.",
    )
    deblur: float = _declare_weight_option(
        "Blur removed",
        "Fraction of the blur to correct, for models with separate corrections.",
    )
    dehaze: float = _declare_weight_option(
        "Haze removed", "Fraction of the haze to remove, for models that remove haze."
    )
    noise_percent: float | None = option(
        None,
        "Noise",
        "Standard deviation of the noise as a percentage of the grey-value range, "
        "for models with separate corrections; automatic uses the model's estimate, "
        "which is reported with the result.",
        unit="%",
        step=0.5,
        group=WEIGHTS,
        ge=0,
        le=50,
    )
    memory_gb: float | None = option(
        None,
        "Memory",
        "Memory limit of a run, in GB (10^9 bytes); automatic uses the free memory. "
        "The limit determines whether a model that needs the whole image can process "
        "it in one pass.",
        unit="GB",
        step=0.5,
        group=ADVANCED_GROUP,
        gt=0,
    )
    halo_tolerance: float | None = option(
        None,
        "Halo tolerance",
        "Largest change in the result, relative to its range, allowed when pixels "
        "beyond a tile's halo are ignored; automatic allows none. A value of 0.001 "
        "makes deep models faster.",
        step=0.0001,
        group=ADVANCED_GROUP,
        gt=0,
        lt=1,
    )
    self_ensemble: bool = option(
        False,
        "Self-ensemble",
        "Average the results of flipped and rotated tiles: slightly more stable, but "
        "eight times slower (four times for models with separate corrections).",
        group=ADVANCED_GROUP,
    )
    strength: float = option(
        1.0,
        "",
        "Overall strength of a model with separate corrections; 0 leaves the image "
        "unchanged.",
        ge=0,
        le=1,
    )
    blur_px: float | None = option(
        None,
        "",
        "Standard deviation, in px, of the blur to remove, for models with separate "
        "corrections; 0 removes none, and automatic uses the model's estimate.",
        ge=0,
        le=WIDEST_BLUR,
    )
    dtype: GreyType = option(
        None,
        "",
        "Output data type, float32 by default; for other types, values are rounded "
        "and clipped.",
    )
    batch: int | None = option(
        None,
        "",
        "Number of tiles per GPU pass, automatic by default; has no effect on a CPU.",
        ge=1,
        le=256,
    )


class ClusterOptions(Options):
    """Options for computing on a cluster."""

    scheduler: str | None = option(
        None,
        "Scheduler",
        "Address of a dask scheduler, such as tcp://127.0.0.1:8786, whose workers "
        "have access to the same files under the same paths.",
        user_only=True,
    )


# Report of a run; importable without torch.


@dataclass(frozen=True, slots=True)
class EnhanceReport:
    """Key figures of one enhancement run."""

    # Sides of core and surrounding context of tiles: input pixels, or pixels of the
    # model's grid if the result remains on it
    tiles: Annotated[int, Quantity("Tiles", form="d")]
    resumed: int  # Tiles finished by an earlier run
    tile_px: Annotated[int, Quantity("Side of a tile", "px", "d")]
    halo_px: Annotated[int, Quantity("Halo of a tile", "px", "d")]
    # From the first access to the field to the last tile
    seconds: Annotated[float, Quantity("Time", "s", ".2f")]
    # Input pixels enhanced in this run, over `seconds`
    megapixels_per_second: Annotated[float, Quantity("Speed", "MP/s", ".2f")]
    # Largest resident memory of this process during the run
    peak_memory_mb: Annotated[float, Quantity("Peak memory", "MB", ".0f")]
    device: Annotated[str, Quantity("Device")]
    precision: Annotated[str, Quantity("Precision")]  # ``fp32`` or ``bf16``
    model: Annotated[str, Quantity("Model")]
    # Source of the statistics of normalisation layers: ``whole``, ``sampled`` or
    # ``tile``; ``none`` without such layers
    norm: Annotated[str, Quantity("Normalisation")]
    # RMS difference between predictions of the same border pixels by neighbouring tiles
    # (up to 256 per line), over the output's 1-99 % range (sampled); 0 for one tile;
    # NaN if tiles have no halo, or none of this run has a neighbour
    tile_mismatch: float
    # Mean absolute step across tile borders over the step one row further inside; 1 for
    # one tile. An indication only
    seam_index: float
    clipped: int  # Pixels outside the range of the output's type
    # Smallest and largest gain that removed haze; None if it was not estimated
    haze_gain: FloatPair | None = None
    # Noise and blur as used by the model, for a stack the largest; None if not
    # estimated
    noise_percent: Annotated[
        float | None, Quantity("Noise", "% of the range of grey values", ".2g")
    ] = None
    blur_px: Annotated[float | None, Quantity(f"Blur, {SIGMA}", "px", ".2f")] = None
    # ``(y, x)`` pixel size of the network's input: that of the field, or the one it was
    # resampled to; None if the field has none
    seen_pixel_size_nm: FloatPair | None = None
    # Estimated root mean square error of ``sampled`` statistics, over the standard
    # deviation of the output
    norm_error: float | None = None
    # Further notes for the user, such as lack of memory
    notes: tuple[str, ...] = ()

    @property
    def haze(self) -> Annotated[str | None, Quantity("Haze")]:
        """Range of the dehazing gain, or None if haze was not estimated."""
        if self.haze_gain is None:
            return None
        least, most = (f"{gain:.2f}" for gain in self.haze_gain)
        if least == most == "1.00":
            return "none found: contrast is unchanged"
        return f"contrast multiplied by {least} to {most} across the field"

    @property
    def mismatch(
        self,
    ) -> Annotated[float | str, Quantity("Tile mismatch", "of the range", ".2e")]:
        """Mismatch between neighbouring tiles, or the reason why it is unknown."""
        has_seams = self.tiles > 1 and not math.isnan(self.tile_mismatch)
        return self.tile_mismatch if has_seams else self.seam

    @property
    def seam(self) -> Annotated[str, Quantity("Seam index")]:
        """Seam index, or the reason why it is missing; image edges increase it."""
        if self.tiles == 1:
            return "none: one tile"
        if math.isnan(self.tile_mismatch):
            return "not measured"
        if not self.tile_mismatch:
            return "no seam: tiles are equal"
        if self.tile_mismatch < _ROUNDING:
            return "no seam: tiles are equal except for rounding"
        return f"{self.seam_index:.3f} (1: no seam)"

    @property
    def notes_text(self) -> Annotated[str | None, Quantity("Notes")]:
        """All notes joined into one string, or None."""
        return " ".join(self.notes) or None
