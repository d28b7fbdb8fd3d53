"""Degrade an image as published test sets do, and as a scanning microscope does."""

import os
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from napari_semsr.core import Job, Micrograph, OptionError, Progress, to_dtype
from napari_semsr.io import ReadOptions
from napari_semsr.jobs.images import (
    Image,
    Result,
    check_image_target,
    input_record,
    jsonable,
    made_by,
    name_of,
    open_image,
    paths_of,
)
from napari_semsr.simulation import EffectOptions, add_effects


class DegradeOptions(EffectOptions):
    """How to degrade."""

    kind: Literal["blur", "fog", "hybrid", "none"] = Field(
        default="blur",
        description="Gaussian blur, blur with haze, three blurs with haze, or none of "
        "these",
    )
    uniform_fog: bool = Field(
        default=False,
        description="haze of one strength instead of a smooth random field",
    )
    airlight: float | None = Field(
        default=None,
        ge=0,
        le=255,
        description="grey level that haze draws to, on the 0-255 scale; by default the "
        "image's mean",
    )
    stretch: bool = Field(
        default=True,
        description="bring mean and contrast back to what they were before the haze",
    )
    seed: int = Field(default=0, ge=0, description="makes what is random repeatable")

    @model_validator(mode="after")
    def _airlight_of_some_haze(self) -> Self:
        if self.airlight is not None and self.kind not in ("fog", "hybrid"):
            msg = (
                f"airlight is that of haze: kind must be fog or hybrid, got {self.kind}"
            )
            raise ValueError(msg)
        return self


@dataclass(frozen=True, slots=True)
class DegradedFile(Result):
    """What was degraded, and how.

    Attributes
    ----------
    output : str
        Path of the file or store.
    kind : str
        The degradation.
    parameters : dict
        Its numbers, as drawn.
    shape : tuple of int
        Rows and columns.
    pixel_size_nm : tuple of float or None
        ``(y, x)``; None when unknown.
    """

    output: str
    kind: str
    parameters: dict[str, Any]
    shape: tuple[int, int]
    pixel_size_nm: tuple[float, float] | None


def degrade_job(
    image: Image,
    output: str | os.PathLike[str],
    *,
    options: DegradeOptions | None = None,
    opening: ReadOptions | None = None,
    overwrite: bool = False,
) -> Job[DegradedFile]:
    """Blur and haze an image, let it drift, charge and be noisy, in its own type.

    Parameters
    ----------
    image : Micrograph or path
        A sharp image.
    output : path
        Where the degraded one goes; its suffix names the format.
    options : DegradeOptions, optional
        Kind, effects and seed.
    opening : ReadOptions, optional
        How to read a file.
    overwrite : bool, default=False
        Replace an existing output.

    Returns
    -------
    DegradedFile
        What was done.

    Yields
    ------
    Progress
        Reading, degrading, writing.

    Raises
    ------
    ReadError, WriteError
        If the image cannot be read, or the output not be made.
    """
    from napari_semsr.io import write

    chosen = options or DegradeOptions()
    yield Progress(0, 3, "checking")
    path = check_image_target(output, inputs=paths_of(image), overwrite=overwrite)
    yield Progress(1, 3, f"degrading {name_of(image)}")
    made, parameters = degrade_image(image, options=chosen, opening=opening)
    yield Progress(2, 3, f"writing {path.name}")
    write(made, path, overwrite=overwrite)
    yield Progress(3, 3, "done")
    return DegradedFile(
        output=str(path),
        kind=chosen.kind,
        parameters=parameters,
        shape=made.shape,
        pixel_size_nm=made.pixel_size_nm,
    )


def degrade_image(
    image: Image,
    *,
    options: DegradeOptions | None = None,
    opening: ReadOptions | None = None,
) -> tuple[Micrograph, dict[str, Any]]:
    """Blur and haze an image in memory.

    Parameters
    ----------
    image : Micrograph or path
        A sharp image.
    options : DegradeOptions, optional
        Kind, effects and seed.
    opening : ReadOptions, optional
        How to read a file.

    Returns
    -------
    degraded : Micrograph
        In the input's own type, with its history.
    parameters : dict
        Every number that shaped it.
    """
    chosen = options or DegradeOptions()
    source = open_image(image, opening)
    data, parameters = _degraded(source.array(), chosen)
    record = input_record(image, source, opening)
    reading = (opening or ReadOptions()).model_dump(mode="json")
    said = {**chosen.model_dump(mode="json"), "reading": reading}
    provenance = made_by("degrade", said, record)
    made = source.replace(data=data, provenance=provenance)
    return made, jsonable(parameters)


def _degraded(
    image: NDArray[Any], options: DegradeOptions
) -> tuple[NDArray[Any], dict[str, Any]]:
    """Degrade grey values; those of integers are rounded once, at the end."""
    from napari_semsr.simulation import degrade_plane

    kind = options.kind
    said: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("seed", "uniform_fog", "airlight", "stretch")
    }
    if not options.any and kind != "none":
        made = degrade_plane(image, kind, **said)
        return made.image, made.parameters
    if not np.all(np.isfinite(image)):
        msg = "An image to degrade must be finite, got NaN or Inf pixels; fill them."
        raise OptionError(msg)
    low, high = _black_and_white(image)
    grey, parameters = image.astype(np.float64), {}
    if kind != "none":
        blurred = degrade_plane(grey, kind, **said)
        grey, parameters = blurred.image, blurred.parameters
    values, found = add_effects((grey - low) / (high - low), options, seed=options.seed)
    made_grey = to_dtype(values * (high - low) + low, image.dtype)[0]
    return made_grey, {**parameters, **found, "black": low, "white": high}


def _black_and_white(image: NDArray[Any]) -> tuple[float, float]:
    """Grey levels of black and white: of integers the type's, of floats their own."""
    if image.dtype.kind in "iu":
        info = np.iinfo(image.dtype)
        return float(max(info.min, 0)), float(info.max)
    low, high = float(image.min()), float(image.max())
    return (low, high) if high > low else (low, low + 1.0)
