"""Shape, calibration and chunks of an enhanced image; does not import torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from napari_semsr.core import (
    FloatPair,
    IntPair,
    Message,
    Micrograph,
    OptionError,
    PixelSize,
    Provenance,
    Resampling,
    parse_pixel_size,
    round_up,
)
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.io import OmeZarrStore, create_store

# Whether a field's pixel size suits a model, and how it is resampled otherwise.

_TOLERANCE = 1.05  # ratio of pixel sizes up to which a field is not resampled; chosen
_LARGEST_DENOMINATOR = 1000  # largest denominator of the resampling fraction; chosen
_ROUNDING = 1e-6  # relative tolerance of the bounds of pixel sizes; chosen


@dataclass(frozen=True, slots=True)
class TrainedPixelSizes:
    """Pixel sizes that a model was trained for, from its model card."""

    name: str  # The model's
    # Smallest and largest pixel size that it was trained for; None if unrestricted
    pixel_size_nm: FloatPair | None
    # Smallest and largest pixel size of fields that are resampled, over the trained one
    resample_factors: FloatPair = (0.5, 2.0)
    scale: int = 1  # Output pixels per input pixel

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> "TrainedPixelSizes":
        """Read the pixel sizes from a model card, with defaults for missing fields."""
        size = card.get("pixel_size_nm")
        low, high = card.get("resample_factors") or (0.5, 2.0)
        return cls(
            name=str(card.get("name") or "the model"),
            pixel_size_nm=None if size is None else (float(size[0]), float(size[1])),
            resample_factors=(float(low), float(high)),
            scale=int(card.get("scale") or 1),
        )

    def describe(self) -> str:
        """Describe the trained pixel sizes as a sentence fragment."""
        if self.pixel_size_nm is None:
            return "any pixel size"
        return f"{_format_range(*self.pixel_size_nm)} per pixel"


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
    if pixel_size_nm is None or trained_sizes.pixel_size_nm is None:
        note = ""
        if trained_sizes.pixel_size_nm is not None:
            note = (
                f"{trained_sizes.name} was trained for "
                f"{_format_range(*trained_sizes.pixel_size_nm)} "
            )
            note += "per pixel, but the field's pixel size is unknown, so it is not "
            note += "resampled; set its pixel size."
            note = Message(note, "pixel-size-missing")
        return ResamplingPlan(None, pixel_size_nm, note)
    low, high = trained_sizes.pixel_size_nm
    target_sizes = [
        size
        if low / _TOLERANCE <= size <= high * _TOLERANCE
        else min(max(size, low), high)
        for size in pixel_size_nm
    ]
    ratios = [size / aim for size, aim in zip(pixel_size_nm, target_sizes, strict=True)]
    if all(ratio == 1 for ratio in ratios):
        return ResamplingPlan(None, pixel_size_nm)
    least, most = trained_sizes.resample_factors
    beyond = min(ratios) < least * (1 - _ROUNDING) or max(ratios) > most * (
        1 + _ROUNDING
    )
    note = (
        f"The field has a pixel size of {_format_size(*pixel_size_nm)}, and "
        f"{trained_sizes.name} was "
    )
    note += f"trained for {_format_range(*trained_sizes.pixel_size_nm)}"
    if beyond:
        note += (
            f". The ratio is outside the range {least:g} to {most:g}, so the field is "
            "not resampled, and the result is unreliable."
        )
        note = Message(note, "pixel-size-unsuitable")
        return ResamplingPlan(None, pixel_size_nm, note, beyond=True)
    if resample == "never":
        note += ": it is not resampled, as requested."
        return ResamplingPlan(None, pixel_size_nm, Message(note, "not-resampled"))
    steps = _compute_resampling_step(ratios[0]), _compute_resampling_step(ratios[1])
    network_size = parse_pixel_size(
        tuple(p * float(s) for p, s in zip(pixel_size_nm, steps, strict=True))
    )
    note += (
        f": the field is resampled to {_format_size(*target_sizes)}, and the result "
    )
    if resample == "keep":
        note += "remains on that grid."
        return ResamplingPlan(
            steps, network_size, Message(note, "resampled"), keep=True
        )
    note += "to its own grid"
    if max(steps) > 1:
        finest = 2 * max(target_sizes) / trained_sizes.scale
        note += f", with no detail finer than {finest:.3g} nm"
    return ResamplingPlan(steps, network_size, Message(f"{note}.", "resampled"))


def _compute_resampling_step(ratio: float) -> Fraction:
    """Return the number of image pixels per network pixel for a pixel-size ratio."""
    if ratio >= 1:
        return 1 / Fraction(ratio).limit_denominator(_LARGEST_DENOMINATOR)
    return Fraction(1 / ratio).limit_denominator(_LARGEST_DENOMINATOR)


def _format_size(y: float, x: float) -> str:
    one, other = f"{y:.4g}", f"{x:.4g}"
    return f"{one} nm" if one == other else f"{one} x {other} nm"


def _format_range(low: float, high: float) -> str:
    return f"{low:.4g} nm" if low == high else f"{low:.4g} to {high:.4g} nm"


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
    steps = fit.steps if fit.keep else None
    rows, columns = micrograph.shape
    fine = micrograph.scale[0] / scale, micrograph.scale[1] / scale
    if steps is not None:
        rows, columns = Resampling((rows, columns), steps).shape
        fine = fine[0] * float(steps[0]), fine[1] * float(steps[1])
    # The outer borders of both images coincide at the top and left, so that the centre
    # of pixel (0, 0) moves with the pixel size; a resampled image may end beyond the
    # border at the bottom and right.
    first, second = (
        origin - (pitch - new) / 2
        for origin, pitch, new in zip(
            micrograph.origin, micrograph.scale, fine, strict=True
        )
    )
    has_size = micrograph.pixel_size_nm is not None
    is_same_grid = scale == 1 and steps is None
    frame = OutputGrid(
        shape=(rows * scale, columns * scale),
        pixel_size_nm=parse_pixel_size(fine) if has_size else None,
        origin=micrograph.origin if is_same_grid else (first, second),
        spacing_px=micrograph.spacing_px if has_size else fine,
    )
    core = options.tile
    if core is None:
        usual = round(_CORE / 2.0 ** round(math.log2(fit.resampling_factor)))
        core = max(min(usual, _LARGEST_CHUNK // scale) // stride * stride, stride)
    core = round_up(min(core, max(frame.shape) // scale), stride)
    return OutputPlan(frame, fit, core, scale, dtype)


def create_output_store(
    path: Path,
    output: OutputPlan,
    *,
    name: str = "image",
    provenance: Provenance | None = None,
    **how: Any,
) -> OmeZarrStore:
    """Create or reopen the output store for `enhance_to_store`.

    The name of its folder ends in ``.zarr``; its write units are the tiles' cores.
    `how` is `overwrite` and `resume` of `create_store`.
    """
    frame = output.frame
    return create_store(
        path,
        shape=frame.shape,
        dtype=output.dtype,
        chunk=output.core * output.scale,
        pixel_size_nm=frame.pixel_size_nm,
        origin=frame.origin,
        spacing_px=frame.spacing_px,
        name=name,
        provenance=provenance,
        **how,
    )
