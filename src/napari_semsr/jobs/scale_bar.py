"""Find the scale bar printed into an image, and what it says where its number is given.

Its number is read, too, and suggested: nothing is calibrated by what only looks like a
bar, or was only read by a network.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_semsr.analysis import find_scale_bar, read_scale_label
from napari_semsr.core import (
    BarCalibration,
    FloatPair,
    Job,
    OptionError,
    Progress,
    ReadError,
    warn,
)
from napari_semsr.io import ReadOptions, parse_length_nm, to_nm, write_calibration
from napari_semsr.jobs.images import (
    Image,
    Result,
    check_target_file,
    jsonable,
    name_of,
    open_image,
    paths_of,
)

_APART = 4.0  # standard deviations beyond which bar and header are told to disagree


@dataclass(frozen=True, slots=True)
class ScaleBarReport(Result):
    """A printed scale bar, and what it says where its length is known.

    Attributes
    ----------
    image : str
        Name of the image.
    output : str or None
        Path of the calibration, where it was to be written.
    bar_px, bar_sd_px : float
        Length of the bar and its standard deviation.
    box : tuple of int
        Where it lies, ``(y0, x0, y1, x1)``.
    label, label_nm : str and float, or None
        What is printed beside it, as far as that can be read; check it.
    calibration : BarCalibration or None
        None where the printed length was not given.
    stated_nm : tuple of float or None
        Pixel size ``(y, x)`` that the file states.
    """

    image: str
    output: str | None
    bar_px: float
    bar_sd_px: float
    box: tuple[int, int, int, int]
    label: str | None
    label_nm: float | None
    calibration: BarCalibration | None
    stated_nm: FloatPair | None

    @property
    def suggested_nm(self) -> float | None:
        """Pixel size that the label asks for, if it was read rightly."""
        return None if self.label_nm is None else self.label_nm / self.bar_px

    def to_json(self) -> dict[str, Any]:
        """Give one flat record.

        Returns
        -------
        dict
            The pixel size is null where the printed length was not given; what is
            suggested is what the label says, where it can be read.
        """
        sizes = ("pixel_size_nm", "pixel_size_sd_nm", "bar_nm")
        found = jsonable(self.calibration) or dict.fromkeys(sizes)
        return {
            "image": self.image,
            "output": self.output,
            "bar_px": self.bar_px,
            "bar_sd_px": self.bar_sd_px,
            "box": list(self.box),
            "label": self.label,
            "label_nm": self.label_nm,
            "suggested_pixel_size_nm": self.suggested_nm,
            **found,
            "stated_pixel_size_nm": jsonable(self.stated_nm),
        }


def bar_length_nm(text: str | float) -> float:
    """Read a printed length, such as ``"50 um"``; a number alone is nm."""
    try:
        length = to_nm(float(text), "nm")
    except ValueError:
        length = parse_length_nm(str(text))
    if length is None:
        msg = f"The length of a bar is one such as '50 um' or '200 nm', got {text!r}."
        raise OptionError(msg)
    return length


def scale_bar_job(
    image: Image,
    output: str | os.PathLike[str] | None = None,
    *,
    length: str | float | None = None,
    opening: ReadOptions | None = None,
    overwrite: bool = False,
) -> Job[ScaleBarReport]:
    """Find the scale bar that is printed into an image.

    Parameters
    ----------
    image : Micrograph or path
        With its data bar.
    output : path, optional
        Ends in ``.json``; what others take as their calibration.
    length : str or float, optional
        What the bar's label says, such as ``"50 um"``; a number alone is nm.
    opening : ReadOptions, optional
        How to read the file; its data bar is kept.
    overwrite : bool, default=False
        Replace an existing output.

    Returns
    -------
    ScaleBarReport
        With a pixel size only where the length is given.

    Yields
    ------
    Progress
        Reading, looking.

    Raises
    ------
    ReadError, WriteError, OptionError
        If it shows no bar or cannot be read, or an output is asked for without the
        bar's length.
    """
    yield Progress(0, 2, "reading")
    length_nm = None if length is None else bar_length_nm(length)
    target = None if output is None else Path(output)
    if target is not None:
        if length_nm is None:
            msg = (
                f"{target} needs the bar's printed length to be written: read it off "
                "the image and give it, as in --bar '50 um'."
            )
            raise OptionError(msg)
        check_target_file(
            target, suffixes=(".json",), inputs=paths_of(image), overwrite=overwrite
        )
    chosen = (opening or ReadOptions()).replace(crop_databar=False, databar_rows=None)
    opened = open_image(image, chosen)
    yield Progress(1, 2, "looking for the bar")
    bar = find_scale_bar(opened.data)
    if bar is None:
        msg = (
            f"{name_of(image)} shows no printed scale bar that can be told from the "
            "rest: draw a line over it (Open mosaic, Calibrate a layer), or give the "
            "pixel size."
        )
        raise ReadError(msg)
    label = read_scale_label(opened.data, bar)
    found = None
    if length_nm is not None:
        pitch = length_nm / bar.length_px
        error = pitch * bar.sd_px / bar.length_px
        found = BarCalibration(
            (pitch, pitch), (error, error), bar.length_px, bar.sd_px, length_nm
        )
        _compare(found, opened.pixel_size_nm)
        if label is not None and not math.isclose(label.length_nm, found.bar_nm):
            warn(f"The bar's label seems to read {label.text}: check what was typed.")
        if target is not None:
            write_calibration(target, found)
    yield Progress(2, 2, "done")
    return ScaleBarReport(
        name_of(image),
        None if target is None else str(target),
        bar.length_px,
        bar.sd_px,
        bar.box,
        None if label is None else label.text,
        None if label is None else label.length_nm,
        found,
        opened.pixel_size_nm,
    )


def _compare(found: BarCalibration, stated: FloatPair | None) -> None:
    """Warn where a file states another pixel size than its bar tells."""
    if stated is None:
        return
    told, error = found.pixel_size_nm[1], found.pixel_size_sd_nm[1]
    if not math.isclose(told, stated[1], abs_tol=_APART * error):
        warn(
            f"The bar tells {told:.4g} nm a pixel, but the file states "
            f"{stated[1]:.4g} nm: check the length that was typed."
        )
