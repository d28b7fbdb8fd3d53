"""What a user may choose when pairs are cut."""

from typing import Literal, Self

from pydantic import Field, model_validator

from napari_semsr.core import Message, Options

SPLITS = ("train", "validation", "test")
"""The three sets, in the order in which they are filled."""


class PairOptions(Options):
    """How to cut pairs of patches."""

    patch: int = Field(
        default=256, ge=16, le=4096, description="side of a LOW patch in px"
    )
    crop: int | None = Field(
        default=None,
        ge=16,
        description="side of the LOW window that is resized to a patch, such as 512; "
        "the patch's own if not given",
    )
    step: int | None = Field(
        default=None,
        ge=4,
        description="distance between patches in px; the patch's side if not given, "
        "less lets them overlap within one set",
    )
    scale: int | None = Field(
        default=None,
        ge=1,
        le=4,
        description="HIGH pixels for each LOW pixel; if not given, what the pixel "
        "sizes of pairs state (2 for 14.2 and 7.1 nm), else 1",
    )
    pixel_nm: float | None = Field(
        default=None,
        gt=0,
        description="HIGH pixel that both images are brought to; HIGH's own if not "
        "given",
    )
    low_pixel_nm: float | None = Field(
        default=None, gt=0, description="pixel size of LOW; overrides the file's"
    )
    high_pixel_nm: float | None = Field(
        default=None, gt=0, description="pixel size of HIGH; overrides the file's"
    )
    validation: float = Field(
        default=0.1, ge=0, le=0.9, description="share of the patches for validation"
    )
    test: float = Field(
        default=0.1, ge=0, le=0.9, description="share of the patches for the test"
    )
    min_contrast: float = Field(
        default=0.02,
        ge=0,
        lt=1,
        description="patches whose standard deviation is a smaller share of the "
        "image's range are empty",
    )
    min_correlation: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="pairs that correlate less, in either sign, misfit; 0.3 if not "
        "given, and with a transform its own residuals tell instead",
    )
    max_shift_px: float = Field(
        default=2.0,
        ge=0,
        description="pairs that would fit better when moved further than this misfit",
    )
    denoise: bool = Field(default=False, description="prepare by non-local means")
    sharpen: bool = Field(default=False, description="prepare by an unsharp mask")
    equalise: bool = Field(
        default=False, description="prepare by local histogram equalisation (CLAHE)"
    )
    second_scan: bool = Field(
        default=False,
        description="HIGH is another scan by LOW's instrument: its grey values count "
        "on LOW's range",
    )
    align: bool = Field(
        default=False,
        description="bring HIGH onto LOW first (shift, scale, drift), and its grey "
        "levels to LOW's: two scans by one kind of detector",
    )
    prepare: Literal["both", "low", "high"] = Field(
        default="both", description="which images are prepared, where any way is chosen"
    )
    match: Literal["none", "name"] = Field(
        default="none",
        description="two folders: unpaired sets, or pairs of files of one name; with "
        "`align=always` pairs",
    )
    whole_images: bool = Field(
        default=False, description="no image gives patches to more than one set"
    )
    leave_out: str = Field(
        default="", description="names in two folders that no set takes: 36,37"
    )
    seed: int = Field(default=0, ge=0, description="makes the sets repeatable")

    @model_validator(mode="after")
    def _room_for_training(self) -> Self:
        """Leave something to train on."""
        if self.validation + self.test >= 1:
            msg = (
                "Validation and test must leave patches to train on, got shares of "
                f"{self.validation:g} and {self.test:g}"
            )
            raise ValueError(Message(msg, "options-contradict"))
        return self

    @property
    def factor(self) -> int:
        """HIGH pixels for each LOW pixel, 1 if not given."""
        return self.scale or 1

    @property
    def shrink(self) -> float:
        """Pixels of LOW's window for each of a patch."""
        return 1.0 if self.crop is None else self.crop / self.patch

    @property
    def prepares(self) -> bool:
        """Whether any way of preparation is chosen."""
        return self.denoise or self.sharpen or self.equalise

    @property
    def shares(self) -> dict[str, float]:
        """Share of each set, in the order of `SPLITS`."""
        rest = 1 - self.validation - self.test
        return dict(zip(SPLITS, (rest, self.validation, self.test), strict=True))
