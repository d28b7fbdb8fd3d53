"""Degrade an image in one of the three ways of the published test sets."""

import os
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.options import Options
from napari_semsr.core.progress import Job, Progress
from napari_semsr.core.provenance import Provenance, software_versions
from napari_semsr.services.opening import (
    Image,
    OpenOptions,
    input_record,
    name_of,
    open_image,
    paths_of,
)
from napari_semsr.services.results import Result, jsonable
from napari_semsr.services.targets import check_image_target

__all__ = ["DegradeOptions", "DegradedFile", "degrade", "degrade_image"]


class DegradeOptions(Options):
    """How to degrade."""

    kind: Literal["blur", "fog", "hybrid"] = Field(
        default="blur",
        description="Gaussian blur, blur with haze, or three blurs with haze",
    )
    uniform_fog: bool = Field(
        default=False,
        description="haze of one strength instead of a smooth random field",
    )
    seed: int = Field(default=0, ge=0, description="makes the random haze repeatable")


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


def degrade(
    image: Image,
    output: str | os.PathLike[str],
    *,
    options: DegradeOptions | None = None,
    opening: OpenOptions | None = None,
    overwrite: bool = False,
) -> Job[DegradedFile]:
    """Blur and haze an image, quantised to its own type.

    Parameters
    ----------
    image : Micrograph or path
        A sharp image.
    output : path
        Where the degraded one goes; its suffix names the format.
    options : DegradeOptions, optional
        Kind and seed.
    opening : OpenOptions, optional
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
    from napari_semsr.io import registry

    chosen = options or DegradeOptions()
    yield Progress(0, 3, "checking")
    path = check_image_target(output, inputs=paths_of(image), overwrite=overwrite)
    yield Progress(1, 3, f"degrading {name_of(image)}")
    made, parameters = degrade_image(image, options=chosen, opening=opening)
    yield Progress(2, 3, f"writing {path.name}")
    registry.write(made, path, overwrite=overwrite)
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
    opening: OpenOptions | None = None,
) -> tuple[Micrograph, dict[str, Any]]:
    """Blur and haze an image in memory.

    Parameters
    ----------
    image : Micrograph or path
        A sharp image.
    options : DegradeOptions, optional
        Kind and seed.
    opening : OpenOptions, optional
        How to read a file.

    Returns
    -------
    degraded : Micrograph
        In the input's own type, with its history.
    parameters : dict
        Every number that shaped it.
    """
    from napari_semsr.simulate import degrade as simulation

    chosen = options or DegradeOptions()
    source = open_image(image, opening)
    degraded = simulation.degrade(
        source.array(),
        chosen.kind,
        seed=chosen.seed,
        uniform_fog=chosen.uniform_fog,
    )
    provenance = Provenance(
        job="degrade",
        options=chosen.model_dump(mode="json"),
        inputs=(input_record(image, source, opening),),
        versions=software_versions(),
    )
    made = source.replace(data=degraded.image, provenance=provenance)
    return made, jsonable(degraded.parameters)
