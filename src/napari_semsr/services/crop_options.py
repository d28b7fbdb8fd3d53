"""What part of an image is wanted, as a user types it."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from napari_semsr.core.errors import OptionError
from napari_semsr.core.options import Options
from napari_semsr.services.opening import OpenOptions

__all__ = ["CropOptions"]

Corners = tuple[float, float, float, float]


class CropOptions(Options):
    """An area, and what is done to bring two images onto it."""

    box: tuple[int, int, int, int] | None = Field(
        default=None,
        description="first row, first column, and the row and column after the last, "
        "in pixels of the image",
    )
    box_nm: Corners | None = Field(
        default=None,
        description="the same as places in nm, where the image's origin counts",
    )
    align: bool = Field(
        default=False,
        description="find by how much the image lies off the reference, and move it",
    )
    search: int = Field(
        default=32,
        ge=1,
        le=2048,
        description="largest shift that is looked for, in pixels of the reference",
    )
    gap_free: bool = Field(
        default=False,
        description="shrink the area to a rectangle in which no pixel is empty",
    )
    like_pixel_size_nm: tuple[float, float] | None = Field(
        default=None,
        description="pixel size of the reference in nm, one number or Y,X; overrides "
        "the file's",
    )
    dtype: Literal["uint8", "uint16", "float32"] | None = Field(
        default=None,
        description="type of the output, rounded and clipped; the image's own, or "
        "float32 where it is resampled",
    )

    @field_validator("like_pixel_size_nm", mode="before")
    @classmethod
    def _size_of_text(cls, value: object) -> object:
        """Accept one number, or text of one or two; refuse what no image can have."""
        if value is None:
            return value
        try:
            text = str(value) if isinstance(value, int | float) else value
            return OpenOptions.parse({"pixel_size_nm": text}).pixel_size_nm
        except OptionError:
            msg = (
                "A pixel size is one or two positive numbers in nm, such as 7.7 or 8,7"
            )
            raise ValueError(msg) from None

    @model_validator(mode="after")
    def _one_area(self) -> Self:
        """Refuse two areas, and areas without a pixel."""
        if self.box is not None and self.box_nm is not None:
            msg = "An area is given once: box or box_nm, not both"
            raise ValueError(msg)
        corners = self.box or self.box_nm
        if corners and not (corners[0] < corners[2] and corners[1] < corners[3]):
            msg = (
                "A box is Y0 X0 Y1 X1 with Y0 below Y1 and X0 below X1, got "
                f"{' '.join(f'{v:g}' for v in corners)}"
            )
            raise ValueError(msg)
        return self
