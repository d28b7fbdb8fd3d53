"""Measure a microscope by the picture of a grating."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_semsr.analysis import CalibrateOptions, measure_grating
from napari_semsr.core import Calibration, Job, Progress
from napari_semsr.io import ReadOptions, write_calibration
from napari_semsr.jobs.images import (
    Image,
    Result,
    check_target_file,
    jsonable,
    name_of,
    open_image,
    paths_of,
)


@dataclass(frozen=True, slots=True)
class CalibrationReport(Result):
    """What a grating says of a microscope.

    Attributes
    ----------
    image : str
        Name of the picture.
    output : str or None
        Path of the calibration, where it was to be written.
    calibration : Calibration
        Pixel size, skew and distortion with their standard deviations.
    warnings : tuple of str
        One sentence each.
    """

    image: str
    output: str | None
    calibration: Calibration
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Give one flat record.

        Returns
        -------
        dict
            The calibration's fields, with the picture's name and the output.
        """
        return {
            "image": self.image,
            "output": self.output,
            **jsonable(self.calibration),
            "warnings": list(self.warnings),
        }


def calibrate_job(
    image: Image,
    output: str | os.PathLike[str] | None = None,
    *,
    options: CalibrateOptions,
    opening: ReadOptions | None = None,
    overwrite: bool = False,
) -> Job[CalibrationReport]:
    """Find pixel size, skew and distortion by a known grating.

    Parameters
    ----------
    image : Micrograph or path
        Picture of the grating.
    output : path, optional
        Ends in ``.json``; what others take as their calibration.
    options : CalibrateOptions
        What is known of the grating.
    opening : ReadOptions, optional
        How to read the file.
    overwrite : bool, default=False
        Replace an existing output.

    Returns
    -------
    CalibrationReport
        With standard deviations.

    Yields
    ------
    Progress
        Reading, measuring.

    Raises
    ------
    RegistrationError
        If the picture does not show a grating.
    ReadError, WriteError
        If it cannot be read, or the output not be written.
    """
    yield Progress(0, 2, "reading")
    target = None if output is None else Path(output)
    if target is not None:
        check_target_file(
            target, suffixes=(".json",), inputs=paths_of(image), overwrite=overwrite
        )
    opened = open_image(image, opening)
    yield Progress(1, 2, "measuring the grating")
    found = measure_grating(opened.array(), options)
    if target is not None:
        write_calibration(target, found)
    yield Progress(2, 2, "done")
    shown = None if target is None else str(target)
    return CalibrationReport(name_of(image), shown, found, _warnings(found))


def _warnings(found: Calibration) -> tuple[str, ...]:
    """Collect what the user must know."""
    if found.uneven_px is None:
        return ()
    said = (
        "The scale changes from one side of the field to the other, by up to "
        f"{found.uneven_px:.2g} px at the rim, as on a tilted grating: level it, or "
        "take the picture anew; pixel size and distortion are those of the middle."
    )
    return (said,)
