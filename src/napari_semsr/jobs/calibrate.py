"""Calibrate a microscope from an image of a grating or a printed scale bar.

The label of a bar is not read, as something else may only look like a bar.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np

from napari_semsr import core
from napari_semsr.analysis import CalibrateOptions, find_scale_bar, measure_grating
from napari_semsr.io import parse_length_nm, write_calibration
from napari_semsr.jobs.images import Image, Result, to_json_value
from napari_semsr.jobs.verb import ImageInput, Output, Run, command

_OFF = 0.1  # chosen: headers err by some percent; beyond, the pitch or order is wrong
_APART = 4.0  # standard deviations between bar and header that cause a warning


@dataclass(frozen=True, slots=True)
class CalibrationReport(Result):
    """Calibration of a microscope from a grating image, with standard errors."""

    image: str
    output: str | None
    calibration: core.Calibration = field(metadata=core.FLAT)
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the calibration as one flat record."""
        return dict(to_json_value(self))

    def figures(self) -> dict[str, core.Figure]:
        """Return the displayed values, starting with the pixel size."""
        calibration = self.calibration
        size = core.format_pixel_size(
            calibration.pixel_size_nm, calibration.pixel_size_sd_nm
        )
        return {"Pixel size": core.Figure(size), **core.get_declared_figures(self)}


@dataclass(frozen=True, slots=True)
class ScaleBarReport(Result):
    """Printed scale bar, and the calibration if its length is known.

    `box` is ``(y0, x0, y1, x1)``; `calibration` is None if the printed length was not
    given; `stated_nm` is the pixel size ``(y, x)`` that the file states.
    """

    image: str
    output: str | None
    bar_px: Annotated[float, core.Quantity("Bar", "px", "g", sd="bar_sd_px")]
    bar_sd_px: float
    box: tuple[int, int, int, int]
    calibration: core.BarCalibration | None = field(metadata=core.FLAT)
    stated_nm: core.FloatPair | None

    def to_json(self) -> dict[str, object]:
        """Return the calibration as one flat record.

        The pixel size is null if the printed length was not given. The label is not
        read: the keys of the values that it suggests are kept, as null.
        """
        sizes = ("pixel_size_nm", "pixel_size_sd_nm", "bar_nm")
        values = to_json_value(self.calibration) or dict.fromkeys(sizes)
        return {
            "image": self.image,
            "output": self.output,
            "bar_px": self.bar_px,
            "bar_sd_px": self.bar_sd_px,
            "box": list(self.box),
            **dict.fromkeys(("label", "label_nm", "suggested_pixel_size_nm")),
            **values,
            "stated_pixel_size_nm": to_json_value(self.stated_pixel_size_nm),
        }

    @property
    def stated_pixel_size_nm(
        self,
    ) -> Annotated[
        core.FloatPair | None, core.declare_quantity("Stated pixel size", "nm")
    ]:
        """Pixel size stated in the file, under its key in the JSON record."""
        return self.stated_nm

    @property
    def place(self) -> Annotated[str, core.Quantity("Place")]:
        """Position of the scale bar."""
        y0, x0, y1, x1 = self.box
        return f"rows {y0} to {y1 - 1}, columns {x0} to {x1 - 1}"

    @property
    def pixel_size(self) -> Annotated[str, core.Quantity("Pixel size")]:
        """Pixel size, or the missing information needed to compute it."""
        calibration = self.calibration
        if calibration is None:
            return "unknown: read the bar's label, and run with `bar='50 um'`"
        return core.format_pixel_size(
            calibration.pixel_size_nm, calibration.pixel_size_sd_nm
        )

    @property
    def stated_size(self) -> Annotated[str | None, core.Quantity("Stated in the file")]:
        """Pixel size stated in the file, as text."""
        size = self.stated_nm
        return None if size is None else core.format_pixel_size(size)


def _measure_scale_bar(
    run: Run[CalibrateOptions], image: core.Micrograph
) -> core.Job[ScaleBarReport]:
    length, length_nm = run.options.bar, None
    if length is not True:  # a bare number is in nm
        length_nm = parse_length_nm(str(length), "nm")
        if length_nm is None:
            msg = (
                "The length of a scale bar must be given as '50 um' or '1.5 um', "
                f"without a thousands separator (1000, not 1,000), got {length!r}."
            )
            raise core.OptionError(msg, code="wrong-type")
    if run.target is not None and length_nm is None:
        msg = (
            f"To write {run.target}, the printed length of the scale bar is required: "
            "read it from the image and set it, for example `bar='50 um'`."
        )
        raise core.OptionError(msg, code="missing-value")
    yield core.Progress(1, 2, "looking for the bar")
    bar = find_scale_bar(image.data)
    if bar is None:
        msg = (
            f"No printed scale bar was found in {run.image_names[0]}: draw a line "
            "along the bar (Open, Calibrate a layer), or set the pixel size."
        )
        raise core.ReadError(msg, code="scale-bar-missing")
    calibration = None
    if length_nm is not None:
        pitch = length_nm / bar.length_px
        error = pitch * bar.sd_px / bar.length_px
        oblong = image.scale[0] / image.scale[1]  # which the bar does not determine
        calibration = core.BarCalibration(
            (pitch * oblong, pitch),
            (error * oblong, error),
            bar.length_px,
            bar.sd_px,
            length_nm,
        )
        size = image.pixel_size_nm
        if size and not math.isclose(pitch, size[1], abs_tol=_APART * error):
            core.warn(
                f"The scale bar gives {pitch:.4g} nm per pixel, but the file states "
                f"{size[1]:.4g} nm: check the bar length that you entered.",
                "pixel-size-contradicts",
            )
        if run.target is not None:
            write_calibration(run.target, calibration)
    return ScaleBarReport(
        run.image_names[0],
        run.output,
        bar.length_px,
        bar.sd_px,
        bar.box,
        calibration,
        image.pixel_size_nm,
    )


@command(
    title="grating or bar",
    opens=False,
    not_read=("pixel_size_nm", "pixel_size_sd_nm"),
    gives=CalibrationReport | ScaleBarReport,
)
def calibrate(
    run: Run[CalibrateOptions],
    grating: Annotated[
        Image,
        ImageInput(
            help="image of a grating, or one with a printed scale bar",
        ),
    ],
    output: Annotated[
        Path | None, Output("output file of the calibration, .json", ending=".json")
    ] = None,
    *,
    options: CalibrateOptions,
) -> core.Job[CalibrationReport | ScaleBarReport]:
    """Measure pixel size, skew and distortion with a known grating.

    Examples
    --------
    >>> lines = np.tile(np.sin(2 * np.pi * np.arange(256) / 12.5), (256, 1))
    >>> found = semsr.calibrate(lines, pitch_nm=250).calibration
    >>> round(found.pixel_size_nm[1], 2), found.lattice
    (20.0, 'lines')
    """
    if options.bar is not False:  # with the data bar, where the scale bar is
        run.opening = run.opening.replace(crop_databar=False, databar_rows=None)
        return (yield from _measure_scale_bar(run, run.open_image("grating")))
    image = run.open_image("grating")
    yield core.Progress(1, 2, "measuring the grating")
    calibration = measure_grating(image.array(), options)
    if output is not None:
        write_calibration(output, calibration)
    uneven = calibration.uneven_px is not None and core.Message(
        f"The scale varies across the field by up to {calibration.uneven_px:.2g} px "
        "at the rim, as for a tilted grating: level the grating and image it again. "
        "Pixel size and distortion apply to the centre.",
        "scale-uneven",
    )
    warnings = (uneven,) if uneven else ()
    size = image.pixel_size_nm
    if size and not np.allclose(calibration.pixel_size_nm, size, rtol=_OFF):
        core.warn(
            f"The grating gives {core.format_pixel_size(calibration.pixel_size_nm)} "
            f"per pixel, but the file states {core.format_pixel_size(size)}: check the "
            "pitch. If both edges of the grating lines look the same, half the pitch "
            "may have been measured.",
            "pixel-size-contradicts",
        )
    return CalibrationReport(run.image_names[0], run.output, calibration, warnings)
