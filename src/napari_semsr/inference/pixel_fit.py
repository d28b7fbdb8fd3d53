"""Does a field's pixel size suit a model, and if not, what is done; without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from napari_semsr.core.micrograph import PixelSize, parse_pixel_size

__all__ = ["PixelFit", "Trained", "fit_pixels"]

_TOLERANCE = 1.05
_LARGEST_DENOMINATOR = 1000
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Trained:
    """What a model's card says of pixel sizes.

    Attributes
    ----------
    name : str
        The model's.
    pixel_size_nm : tuple of float or None
        Least and largest pixel size that it was trained for; None when it is open.
    resample_factors : tuple of float
        Least and largest pixel size of a field that is resampled, over the trained one.
    scale : int
        Output pixels per input pixel.
    """

    name: str
    pixel_size_nm: tuple[float, float] | None
    resample_factors: tuple[float, float] = (0.5, 2.0)
    scale: int = 1

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> "Trained":
        """Take what is said of pixel sizes from a card.

        Parameters
        ----------
        card : mapping
            The card's values by name; missing ones have their defaults.

        Returns
        -------
        Trained
            The same, without the rest.
        """
        size = card.get("pixel_size_nm")
        low, high = card.get("resample_factors") or (0.5, 2.0)
        return cls(
            name=str(card.get("name") or "the model"),
            pixel_size_nm=None if size is None else (float(size[0]), float(size[1])),
            resample_factors=(float(low), float(high)),
            scale=int(card.get("scale") or 1),
        )

    def sentence(self) -> str:
        """Say for which pixel sizes the model was trained.

        Returns
        -------
        str
            A part of a sentence.
        """
        if self.pixel_size_nm is None:
            return "any pixel size"
        return f"{_range(*self.pixel_size_nm)} per pixel"


@dataclass(frozen=True, slots=True)
class PixelFit:
    """How a field is brought before a network.

    Attributes
    ----------
    steps : tuple of fractions.Fraction or None
        ``(y, x)`` pixels of the field in one pixel that the network sees; None when it
        sees the field as it is.
    seen_nm : tuple of float or None
        ``(y, x)`` pixel size that the network sees; None when the field has none.
    note : str
        What the user should know; empty when there is nothing to say.
    beyond : bool
        Whether the pixel size is one that the model cannot be trusted with.
    keep : bool
        Whether the result stays on the grid that the network saw.
    """

    steps: tuple[Fraction, Fraction] | None
    seen_nm: PixelSize | None
    note: str = ""
    beyond: bool = False
    keep: bool = False

    @property
    def factor(self) -> float:
        """Pixels that the network sees for one of the run's, on the denser axis."""
        if self.steps is None or self.keep:
            return 1.0
        return float(1 / min(self.steps))


def fit_pixels(
    pixel_size_nm: PixelSize | None,
    trained: Trained,
    resample: Literal["auto", "keep", "never"] = "auto",
) -> PixelFit:
    """Compare a field's pixel size with the one that a model was trained for.

    Parameters
    ----------
    pixel_size_nm : tuple of float or None
        ``(y, x)`` of the field.
    trained : Trained
        What the model's card says.
    resample : {"auto", "keep", "never"}
        Whether the field may be resampled, and the result then left on that grid.

    Returns
    -------
    PixelFit
        Unchanged when either pixel size is unknown, or when they are within 5 % of
        each other. Else the field is resampled to the nearest trained pixel size, if
        that lies within the card's range on both axes.
    """
    if pixel_size_nm is None or trained.pixel_size_nm is None:
        return PixelFit(None, pixel_size_nm, _of_unknown(trained))
    wanted = [_nearest(size, trained.pixel_size_nm) for size in pixel_size_nm]
    ratios = [size / aim for size, aim in zip(pixel_size_nm, wanted, strict=True)]
    if all(ratio == 1 for ratio in ratios):
        return PixelFit(None, pixel_size_nm)
    least, most = trained.resample_factors
    beyond = min(ratios) < least * (1 - _ROUNDING) or max(ratios) > most * (
        1 + _ROUNDING
    )
    said = f"The field has {_size(*pixel_size_nm)} per pixel and {trained.name} was "
    said += f"trained for {_range(*trained.pixel_size_nm)}"
    if beyond:
        said += (
            f". That is beyond the {least:g} to {most:g} times for which it is "
            "resampled: the network runs on the field as it is, and its result should "
            "not be trusted."
        )
        return PixelFit(None, pixel_size_nm, said, beyond=True)
    if resample == "never":
        said += ": it is not resampled, as was asked."
        return PixelFit(None, pixel_size_nm, said)
    steps = _step(ratios[0]), _step(ratios[1])
    seen = parse_pixel_size(
        tuple(p * float(s) for p, s in zip(pixel_size_nm, steps, strict=True))
    )
    said += f": it is resampled to {_size(*wanted)}, and the result "
    if resample == "keep":
        said += "is left on that grid."
        return PixelFit(steps, seen, said, keep=True)
    said += "to its own grid"
    if max(steps) > 1:
        finest = 2 * max(wanted) / trained.scale
        said += f", where it holds no detail finer than {finest:.3g} nm"
    return PixelFit(steps, seen, f"{said}.")


def _nearest(size: float, trained: tuple[float, float]) -> float:
    """Give the pixel size itself where it will do, else the nearest trained one."""
    low, high = trained
    if low / _TOLERANCE <= size <= high * _TOLERANCE:
        return size
    return low if size < low else high


def _step(ratio: float) -> Fraction:
    """Turn field over trained pixel size into field pixels per network pixel."""
    if ratio >= 1:
        return 1 / Fraction(ratio).limit_denominator(_LARGEST_DENOMINATOR)
    return Fraction(1 / ratio).limit_denominator(_LARGEST_DENOMINATOR)


def _size(y: float, x: float) -> str:
    """Write a pixel size."""
    one, other = f"{y:.4g}", f"{x:.4g}"
    return f"{one} nm" if one == other else f"{one} x {other} nm"


def _range(low: float, high: float) -> str:
    """Write a range of pixel sizes."""
    return f"{low:.4g} nm" if low == high else f"{low:.4g} to {high:.4g} nm"


def _of_unknown(trained: Trained) -> str:
    """Say that a field's pixel size is missing, where a model was trained for one."""
    if trained.pixel_size_nm is None:
        return ""
    return (
        f"{trained.name} was trained for {_range(*trained.pixel_size_nm)} per pixel "
        "and the field's pixel size is unknown: it is taken as it is; give "
        "its pixel size."
    )
