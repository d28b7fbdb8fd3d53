"""Options for cutting pairs."""

from typing import Literal, Self

from pydantic import Field, model_validator

from napari_semsr.core import Message, Options

SPLITS = ("train", "validation", "test")
"""Names of the three sets, in the order of assignment."""


class PairOptions(Options):
    """Options for cutting pairs of patches."""

    patch: int = Field(
        default=256, ge=16, le=4096, description="side of a LOW patch in px"
    )
    crop: int | None = Field(
        default=None,
        ge=16,
        description="side of the LOW window to resize to a patch, such as 512; "
        "by default that of the patch",
    )
    step: int | None = Field(
        default=None,
        ge=4,
        description="distance between patches in px, by default the patch's side; "
        "with less, patches of one set overlap",
    )
    scale: int | None = Field(
        default=None,
        ge=1,
        le=4,
        description="HIGH pixels per LOW pixel; by default from the pixel sizes "
        "of pairs (2 for 14.2 and 7.1 nm), otherwise 1",
    )
    pixel_nm: float | None = Field(
        default=None,
        gt=0,
        description="HIGH pixel size to which both images are resampled; by default "
        "HIGH's own",
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
        description="patches with a smaller standard deviation, relative to the "
        "image's range, are empty",
    )
    min_correlation: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="pairs with a smaller absolute correlation are rejected; by "
        "default 0.3, or with a transform its residuals are used instead",
    )
    max_shift_px: float = Field(
        default=2.0,
        ge=0,
        description="pairs that match better after a larger shift are rejected",
    )
    denoise: bool = Field(default=False, description="prepare by non-local means")
    sharpen: bool = Field(default=False, description="prepare by an unsharp mask")
    equalise: bool = Field(
        default=False, description="prepare by local histogram equalisation (CLAHE)"
    )
    second_scan: bool = Field(
        default=False,
        description="HIGH is another scan by LOW's instrument: LOW's grey range is "
        "used for both",
    )
    align: bool = Field(
        default=False,
        description="align HIGH with LOW first (shift, scale, drift), and its grey "
        "levels: for two scans by one type of detector",
    )
    prepare: Literal["both", "low", "high"] = Field(
        default="both", description="which images to prepare, if preparation is chosen"
    )
    match: Literal["none", "name"] = Field(
        default="none",
        description="two folders: unpaired sets, or pairs of files of the same name; "
        "with `align=always` pairs",
    )
    whole_images: bool = Field(
        default=False, description="put all patches of an image into one set"
    )
    leave_out: str = Field(
        default="", description="names in two folders to omit: 36,37"
    )
    seed: int = Field(default=0, ge=0, description="makes the sets repeatable")

    @model_validator(mode="after")
    def _check_fractions(self) -> Self:
        """Check that some patches remain for training."""
        if self.validation + self.test >= 1:
            msg = (
                "Validation and test fractions must leave patches for training, got "
                f"{self.validation:g} and {self.test:g}"
            )
            raise ValueError(Message(msg, "options-contradict"))
        return self

    @property
    def scale_factor(self) -> int:
        """HIGH pixels per LOW pixel, 1 if not given."""
        return self.scale or 1

    @property
    def shrink_factor(self) -> float:
        """LOW pixels of the cropped window per patch pixel."""
        return 1.0 if self.crop is None else self.crop / self.patch

    @property
    def has_preparation(self) -> bool:
        """Whether any preparation step is enabled."""
        return self.denoise or self.sharpen or self.equalise

    @property
    def split_fractions(self) -> dict[str, float]:
        """Fraction of each set, in the order of `SPLITS`."""
        rest = 1 - self.validation - self.test
        return dict(zip(SPLITS, (rest, self.validation, self.test), strict=True))
