"""Stitching options."""

from typing import Literal

from pydantic import Field, field_validator

from napari_semsr.core import (
    MAX_DISTORTION,
    FirstFrame,
    FrameOrder,
    Message,
    Options,
    option,
)


class StitchOptions(Options):
    """Stitching options; None means that a value is taken from the scan or measured."""

    flat_field: str = Field(
        default="auto",
        description="auto: from the frames; none: no correction; or an image file",
    )
    grid: tuple[int, int] | None = Field(
        default=None, description="rows and columns of the scan"
    )
    order: FrameOrder | None = option(
        None,
        "Order",
        "acquisition order: row by row or column by column; a serpentine reverses "
        "every second one",
    )
    first: FirstFrame | None = option(
        None,
        "First frame",
        "corner of the grid with the first frame; top-left unless the scan states it",
    )
    overlap: float | None = option(
        None,
        "Overlap",
        "overlap of neighbours as a share of a frame; measured if not given",
        unit="share",
        step=0.05,
        gt=0,
        lt=1,
    )
    max_shift_px: float | None = option(
        None,
        "Stage error",
        "largest error of a nominal position; estimated if not given",
        unit="px",
        step=5,
        gt=0,
    )
    stage_model: Literal["affine", "shift"] = Field(
        default="affine",
        description="global transform from nominal to solved positions: affine "
        "(scale, rotation, shear) or translation only",
    )
    rotation: bool = option(
        False,
        "Rotate and scale frames",
        "also estimate a small rotation and scale of each frame",
    )
    distortion: float | Literal["auto", "none"] = Field(
        default="auto",
        description="radial displacement at the rim over its radius; auto: estimated "
        "from the overlaps, and corrected if it is significant",
    )
    blend: Literal["feather", "seam"] = option(
        "feather",
        "Blending",
        "weighted mean of all frames, or the best frame at each pixel",
        choices={"weighted mean": "feather", "best frame": "seam"},
    )
    match_gain: bool = option(
        True,
        "Match brightness",
        "match gain and offset of the frames, if automatic brightness changed them",
    )
    significance: float = option(
        4.0,
        "Certainty of overlaps",
        "standard deviations by which overlaps must exceed unrelated pairs of frames",
        step=0.5,
        ge=2,
        le=20,
    )

    @field_validator("distortion", mode="before")
    @classmethod
    def _validate_distortion(cls, value: object) -> object:
        """Validate a keyword or a number (also as text) that does not fold a frame."""
        if value is None or value in ("auto", "none"):
            return value
        try:
            amount = float("nan" if isinstance(value, bool) else value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            amount = float("nan")
        if not abs(amount) <= MAX_DISTORTION:
            most = f"from -{MAX_DISTORTION} to {MAX_DISTORTION}, such as 0.03"
            msg = f"must be auto, none or a number {most}"
            raise ValueError(Message(msg, "out-of-range"))
        return amount

    @field_validator("grid")
    @classmethod
    def _validate_grid(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and min(value) < 1:
            rows, columns = value
            msg = f"A grid needs at least one row and one column, got {rows}x{columns}"
            raise ValueError(Message(msg, "out-of-range"))
        return value
