"""Options, report and output grid of an enhancement; does not import torch."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from napari_semsr.core import (
    SIGMA,
    WIDEST_BLUR,
    FloatPair,
    GreyType,
    IntPair,
    Message,
    Micrograph,
    OptionError,
    Options,
    PixelSize,
    Quantity,
    Resampling,
    declare_device_option,
    option,
    parse_pixel_size,
    round_up,
)
from napari_semsr.io import OmeZarrStore, create_store

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
    blur_px: float | None = option(
        None,
        "Blur",
        "Standard deviation of the blur to remove, for models with separate "
        "corrections; automatic uses the model's estimate, which is reported with the "
        "result, and 0 removes none.",
        unit="px",
        step=0.1,
        group=WEIGHTS,
        ge=0,
        le=WIDEST_BLUR,
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
    # From loading the model to the finished output; of an array, to the last tile
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


# Whether a field's pixel size suits a model, and how it is resampled otherwise.

_TOLERANCE = 1.05  # ratio of pixel sizes up to which a field is not resampled; chosen
_LARGEST_DENOMINATOR = 1000  # largest denominator of the resampling fraction; chosen
_SIZE_TOLERANCE = 1e-6  # relative tolerance of the bounds of pixel sizes; chosen


@dataclass(frozen=True, slots=True)
class TrainedPixelSizes:
    """Pixel sizes that a model was trained for, from its model card."""

    name: str = "the model"
    # Smallest and largest pixel size that it was trained for; None if unrestricted
    pixel_size_nm: FloatPair | None = None
    # Smallest and largest pixel size of fields that are resampled, over the trained one
    resample_factors: FloatPair = (0.5, 2.0)
    scale: int = 1  # Output pixels per input pixel

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> "TrainedPixelSizes":
        """Read the pixel sizes from a model card, with defaults for missing fields."""
        return cls(
            **{one.name: card[one.name] for one in fields(cls) if one.name in card}
        )

    def describe(self) -> str:
        """Describe the trained pixel sizes as a sentence fragment."""
        if self.pixel_size_nm is None:
            return "any pixel size"
        return f"{_format_lengths(*self.pixel_size_nm, 'to')} per pixel"


@dataclass(frozen=True, slots=True)
class ResamplingPlan:
    """Resampling of an image for a network."""

    # ``(y, x)`` pixels of the field in one pixel of the network's input; None if the
    # field is not resampled
    steps: tuple[Fraction, Fraction] | None
    # ``(y, x)`` pixel size of the network's input; None if the field has none
    seen_nm: PixelSize | None
    note: str = ""  # Note for the user, or empty
    # Whether the pixel size is too far from those that the model was trained for
    beyond: bool = False
    keep: bool = False  # Whether the result stays on the grid of the network's input

    @property
    def resampling_factor(self) -> float:
        """Network input pixels per output pixel, along the finer axis."""
        if self.steps is None or self.keep:
            return 1.0
        return float(1 / min(self.steps))


def plan_resampling(
    pixel_size_nm: PixelSize | None,
    trained_sizes: TrainedPixelSizes,
    resample: Literal["auto", "keep", "never"] = "auto",
) -> ResamplingPlan:
    """Choose how to resample an image for a model, given both pixel sizes.

    The field is not resampled if either is unknown, or if they are within 5 % of each
    other. Otherwise the field is resampled to the nearest trained pixel size, if the
    ratio is within the card's range on both axes; `resample` states whether this is
    allowed, and whether the result keeps that grid.
    """
    if trained_sizes.pixel_size_nm is None:
        return ResamplingPlan(None, pixel_size_nm)
    if pixel_size_nm is None:
        note = Message(
            f"{trained_sizes.name} was trained for {trained_sizes.describe()}, but the "
            "field's pixel size is unknown, so it is not resampled; set its pixel "
            "size.",
            "pixel-size-missing",
        )
        return ResamplingPlan(None, None, note)
    sizes, (low, high) = np.array(pixel_size_nm), trained_sizes.pixel_size_nm
    is_near = (sizes >= low / _TOLERANCE) & (sizes <= high * _TOLERANCE)
    target_sizes = np.where(is_near, sizes, sizes.clip(low, high))
    if (sizes == target_sizes).all():
        return ResamplingPlan(None, pixel_size_nm)
    ratios = (sizes / target_sizes).tolist()
    least, most = trained_sizes.resample_factors
    beyond = min(ratios) < least * (1 - _SIZE_TOLERANCE) or max(ratios) > most * (
        1 + _SIZE_TOLERANCE
    )
    text = (
        f"The field has a pixel size of {_format_lengths(*pixel_size_nm, 'x')}, and "
        f"{trained_sizes.name} was trained for {_format_lengths(low, high, 'to')}"
    )
    if beyond:
        text += (
            f". The ratio is outside the range {least:g} to {most:g}, so the field is "
            "not resampled, and the result is unreliable."
        )
        note = Message(text, "pixel-size-unsuitable")
        return ResamplingPlan(None, pixel_size_nm, note, beyond=True)
    if resample == "never":
        text += ": it is not resampled, as requested."
        return ResamplingPlan(None, pixel_size_nm, Message(text, "not-resampled"))
    steps = _compute_resampling_step(ratios[0]), _compute_resampling_step(ratios[1])
    network_size = parse_pixel_size(sizes * np.array(steps, float))
    (y, x), keep = target_sizes.tolist(), resample == "keep"
    text += f": the field is resampled to {_format_lengths(y, x, 'x')}, and the result "
    text += "remains on that grid" if keep else "to its own grid"
    if max(steps) > 1 and not keep:
        finest = 2 * max(y, x) / trained_sizes.scale
        text += f", with no detail finer than {finest:.3g} nm"
    note = Message(f"{text}.", "resampled")
    return ResamplingPlan(steps, network_size, note, keep=keep)


def _compute_resampling_step(ratio: float) -> Fraction:
    """Return the number of image pixels per network pixel for a pixel-size ratio."""
    if ratio >= 1:
        return 1 / Fraction(ratio).limit_denominator(_LARGEST_DENOMINATOR)
    return Fraction(1 / ratio).limit_denominator(_LARGEST_DENOMINATOR)


def _format_lengths(first: float, second: float, between: str) -> str:
    one, other = f"{first:.4g}", f"{second:.4g}"
    return f"{one} nm" if one == other else f"{one} {between} {other} nm"


# default side of a tile; measured: 1024 is faster by a fifth to a quarter with an
# allocator that reuses memory, but 512 limits memory
_CORE = 512
_LARGEST_CHUNK = 1024  # largest chunk of a result; chosen


@dataclass(frozen=True, slots=True)
class OutputGrid:
    """Shape and calibration of an enhanced image."""

    shape: IntPair  # Rows and columns
    pixel_size_nm: PixelSize | None  # ``(y, x)``; None if unknown
    origin: FloatPair  # As in `Micrograph`
    spacing_px: FloatPair  # As in `Micrograph`


@dataclass(frozen=True, slots=True)
class OutputPlan:
    """Output layout, computed without torch from image, model card and options.

    `core` is the side of a tile in input pixels (or pixels of the model's grid, if the
    result stays on it); `fit` is the resampling of the input.
    """

    frame: OutputGrid
    fit: ResamplingPlan
    core: int
    scale: int
    dtype: np.dtype[np.generic]

    @property
    def tile_shape(self) -> IntPair:
        """Shape of an output tile, which is one chunk."""
        side = self.core * self.scale
        return min(side, self.frame.shape[0]), min(side, self.frame.shape[1])


def plan_output(
    micrograph: Micrograph,
    card: Mapping[str, Any],
    options: EnhanceOptions,
) -> OutputPlan:
    """Plan the grid, chunks and data type of the output before loading a network.

    `card` has the model's scale, stride and trained pixel sizes by name.
    """
    scale, stride = int(card.get("scale", 1)), int(card.get("stride", 1))
    dtype = np.dtype(options.dtype or np.float32)
    if card.get("grey") == "unit" and dtype.kind != "f":
        msg = (
            f"{card.get('name')} returns grey values from 0 to 1, which {dtype} cannot "
            "represent; use the data type float32, or write a .png with stretched "
            "contrast."
        )
        raise OptionError(msg, code="type-too-coarse")
    trained_sizes = TrainedPixelSizes.from_card(card)
    fit = plan_resampling(micrograph.pixel_size_nm, trained_sizes, options.resample)
    rows, columns = micrograph.shape
    pitch = np.array(micrograph.scale)
    fine = pitch / scale
    if fit.keep and fit.steps is not None:
        rows, columns = Resampling((rows, columns), fit.steps).shape
        fine *= np.array(fit.steps, float)
    # The outer borders of both images coincide at the top and left, so that the centre
    # of pixel (0, 0) moves with the pixel size; a resampled image may end beyond the
    # border at the bottom and right.
    y, x = (micrograph.origin - (pitch - fine) / 2).tolist()
    down, across = fine.tolist()
    has_size = micrograph.pixel_size_nm is not None
    frame = OutputGrid(
        shape=(rows * scale, columns * scale),
        pixel_size_nm=parse_pixel_size((down, across)) if has_size else None,
        origin=(y, x),
        spacing_px=micrograph.spacing_px if has_size else (down, across),
    )
    core = options.tile
    if core is None:
        usual = round(_CORE / 2.0 ** round(math.log2(fit.resampling_factor)))
        core = max(min(usual, _LARGEST_CHUNK // scale) // stride * stride, stride)
    core = round_up(min(core, max(frame.shape) // scale), stride)
    return OutputPlan(frame, fit, core, scale, dtype)


def create_output_store(path: Path, output: OutputPlan, **how: Any) -> OmeZarrStore:
    """Create or reopen the output store for `enhance_to_store`.

    The name of its folder ends in ``.zarr``; its write units are the tiles' cores.
    Further arguments, such as `overwrite`, are those of `create_store`.
    """
    how |= asdict(output.frame)
    side = output.core * output.scale
    return create_store(path, dtype=output.dtype, chunk=side, **how)
