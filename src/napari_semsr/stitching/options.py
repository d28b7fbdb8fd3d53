"""What a user may choose when frames are joined."""

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
    """How frames become a mosaic; None leaves a value to the scan or to measurement."""

    flat_field: str = Field(
        default="auto",
        description="auto: from the frames; none: as they are; or an image file",
    )
    grid: tuple[int, int] | None = Field(
        default=None, description="rows and columns of the scan"
    )
    order: FrameOrder | None = option(
        None,
        "Order",
        "how the grid was filled: row by row or column by column; a serpentine runs "
        "every second one backwards",
    )
    first: FirstFrame | None = option(
        None,
        "First frame",
        "corner of the grid where the first frame lies; top-left if nothing states it",
    )
    overlap: float | None = option(
        None,
        "Overlap",
        "share of a frame that its neighbour repeats; measured when not given",
        unit="share",
        step=0.05,
        gt=0,
        lt=1,
    )
    max_shift_px: float | None = option(
        None,
        "Stage error",
        "largest error of a nominal position; found when not given",
        unit="px",
        step=5,
        gt=0,
    )
    stage_model: Literal["affine", "shift"] = Field(
        default="affine",
        description="how solved positions may differ from nominal ones on the whole: "
        "scaled, turned and skewed, or only moved",
    )
    rotation: bool = option(
        False,
        "Turn and scale frames",
        "also find a small turn and scale of each frame",
    )
    distortion: float | Literal["auto", "none"] = Field(
        default="auto",
        description="displacement at the rim along the radius, over that radius; auto: "
        "from the overlaps, taken back where it is beyond doubt",
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
        "match gain and offset of the frames, which automatic brightness changes from "
        "frame to frame",
    )
    significance: float = option(
        4.0,
        "Certainty of joints",
        "joints must stand this far above unrelated pairs of frames",
        step=0.5,
        ge=2,
        le=20,
    )

    @field_validator("distortion", mode="before")
    @classmethod
    def _amount(cls, value: object) -> object:
        """Accept a word or a number that does not fold a frame, also as text."""
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
    def _positive(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and min(value) < 1:
            msg = "A grid needs at least one row and one column"
            raise ValueError(Message(msg, "out-of-range"))
        return value
