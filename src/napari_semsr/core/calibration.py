"""What a grating, or a printed scale bar, says of a microscope."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from napari_semsr.core.options import Options
from napari_semsr.core.quantities import Figure, Quantity
from napari_semsr.core.types import FloatPair, IntPair


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a grating says of a microscope.

    Attributes
    ----------
    pixel_size_nm, pixel_size_sd_nm : tuple of float
        ``(y, x)`` and standard deviation, at the middle of the field. Lines tell it
        across themselves alone: pixels are then taken to be square.
    skew, skew_sd : float or None
        Departure of the axes from a right angle in degrees; None of lines.
    distortion, distortion_sd : float
        Displacement at the rim over its radius, as `simulate` and `stitch` have it.
    rotation_deg : float
        Direction of the first wave vector, from x towards y.
    lattice : {"lines", "square", "hexagonal"}
        What repeats.
    pitch_nm : float
        As stated.
    periods : float
        Across the shorter side.
    residual_nm : float
        RMS distance of the grating's phases from the fit.
    shape : tuple of int
        Rows and columns of the picture, whose rim `distortion` refers to.
    centre_px, centre_sd_px : tuple of float or None
        Centre of the distortion off the middle of the picture, ``(y, x)``, where that
        is beyond doubt; pixel size and skew are then those at that centre.
    uneven_px : float or None
        How far places move at the rim by terms of second order that no centre explains,
        as those of a tilted grating; None where there are none beyond doubt.
    """

    pixel_size_nm: FloatPair
    pixel_size_sd_nm: FloatPair
    skew: Annotated[float | None, Quantity("Skew", "degrees", ".3g", sd="skew_sd")]
    skew_sd: float | None
    distortion: float
    distortion_sd: float
    rotation_deg: float
    lattice: Literal["lines", "square", "hexagonal"]
    pitch_nm: float
    periods: float
    residual_nm: Annotated[float, Quantity("Residual", "nm RMS", ".3g")]
    shape: IntPair
    centre_px: FloatPair | None = None
    centre_sd_px: FloatPair | None = None
    uneven_px: float | None = None

    @property
    def distortion_percent(
        self,
    ) -> Annotated[
        float, Quantity("Distortion", "% at the rim", ".3g", sd="distortion_sd_percent")
    ]:
        """The distortion in per cent."""
        return 100 * self.distortion

    @property
    def distortion_sd_percent(self) -> float:
        """Its standard deviation."""
        return 100 * self.distortion_sd

    @property
    def grating(self) -> Annotated[str, Quantity("Grating")]:
        """What repeats, and how often."""
        return f"{self.lattice}, {self.periods:.1f} periods"

    @property
    def centre(self) -> Annotated[str | None, Quantity("Centre of the distortion")]:
        """Where it lies, where that is not the middle."""
        if self.centre_px is None or self.centre_sd_px is None:
            return None
        y, x = (
            str(Figure(at, form="+.1f", sd=error))
            for at, error in zip(self.centre_px, self.centre_sd_px, strict=True)
        )
        return f"y {y}, x {x} px off the middle"


@dataclass(frozen=True, slots=True)
class BarCalibration:
    """What a printed scale bar says of an image, its printed length being known.

    Attributes
    ----------
    pixel_size_nm, pixel_size_sd_nm : tuple of float
        ``(y, x)`` and standard deviation; pixels are taken to be square.
    bar_px, bar_sd_px : float
        Length of the bar, and how well its ends can be placed.
    bar_nm : float
        As printed.
    """

    pixel_size_nm: FloatPair
    pixel_size_sd_nm: FloatPair
    bar_px: float
    bar_sd_px: float
    bar_nm: float


class FieldDistortion(Options):
    """Distortion of a field as a calibration has it.

    Attributes
    ----------
    amount, sd : float
        Displacement at the rim over its radius, and standard deviation.
    shape : tuple of int or None
        Rows and columns of the picture that this rim is of; None where nobody knows.
    centre_px : tuple of float
        Centre of the distortion off the middle of that picture, ``(y, x)``.
    """

    amount: float
    sd: float = Field(ge=0)
    shape: tuple[PositiveInt, PositiveInt] | None = None
    centre_px: FloatPair = (0.0, 0.0)

    def on(self, shape: IntPair) -> "FieldDistortion":
        """Give the same distortion in frames of another size and the same pixels.

        They are taken to share their middle with the picture. Displacement grows with
        the third power of the radius, so that the amount goes with its square. Itself
        where its own shape is not known.
        """
        if self.shape is None:
            return self
        k = (min(shape) / min(self.shape)) ** 2
        return self.replace(amount=k * self.amount, sd=k * self.sd, shape=shape)
