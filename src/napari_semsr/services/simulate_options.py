"""What is asked of a simulated scan, as a user types it."""

from typing import Literal

from pydantic import Field

from napari_semsr.simulate.scan import ScanOptions

__all__ = ["SimulateOptions"]


class SimulateOptions(ScanOptions):
    """A scan, and what is taken and written beside it."""

    positions: Literal["px", "nm", "none"] = Field(
        default="px",
        description="unit of the nominal positions; none writes no positions.csv",
    )
    pixel_size_error: float = Field(
        default=0.0,
        gt=-0.5,
        lt=0.5,
        description="how far the pixel size said in scan.json and in the frames is "
        "off, as a share",
    )
    exposures: int = Field(
        default=0, ge=0, description="repeated exposures of the middle field"
    )
    focal_series: int = Field(
        default=0, ge=0, description="pictures of the middle field through focus"
    )
    sem: bool = Field(
        default=False, description="an electron image of the whole area, of a phantom"
    )
