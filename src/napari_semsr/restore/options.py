"""What a user may choose of a classical restoration."""

from typing import Literal

from pydantic import Field, field_validator

from napari_semsr.core.errors import OptionError
from napari_semsr.core.options import Options
from napari_semsr.restore.psf import parse_psf

__all__ = ["ITERATIONS", "Method", "RestoreOptions"]

Method = Literal["wiener", "unsupervised-wiener", "richardson-lucy", "blind", "cls"]

ITERATIONS = 10
"""Iterations of Gao et al.'s blind deconvolution, and of both iterative methods."""


class RestoreOptions(Options):
    """How to restore."""

    method: Method = Field(
        default="wiener",
        description="Wiener filter, the same with unsupervised weights, "
        "Richardson-Lucy, blind deconvolution, constrained least squares",
    )
    psf: str = Field(
        default="estimate",
        description="blur: sigma of a Gaussian with its unit, such as 1.5px or 12nm, "
        "an image file of the kernel, microscope.json of a simulation, or estimate",
    )
    iterations: int = Field(
        default=ITERATIONS,
        ge=1,
        le=1000,
        description="iterations of richardson-lucy and blind",
    )
    tv: float = Field(
        default=0.0,
        ge=0,
        le=0.2,
        description="weight of total variation in richardson-lucy and blind; "
        "0.002 is usual",
    )
    balance: float | None = Field(
        default=None,
        gt=0,
        description="weight of smoothness in the linear methods; chosen from the "
        "image's noise if not given",
    )
    seed: int = Field(
        default=0, ge=0, description="makes unsupervised-wiener repeatable"
    )
    tile: int | None = Field(
        default=None, ge=32, description="side of a tile in px; 512 if not given"
    )
    dtype: str | None = Field(
        default=None,
        description="type of the grey values in the output; float32 if not given",
    )

    @field_validator("psf")
    @classmethod
    def _readable(cls, value: str) -> str:
        """Refuse what is neither a width, a file name nor a word."""
        try:
            parse_psf(value)
        except OptionError as error:
            raise ValueError(str(error)) from None
        return value
