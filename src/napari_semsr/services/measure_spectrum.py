"""The power spectrum of an image or file: radial curve and centred plane."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from napari_semsr.analysis.spectrum import RadialSpectrum, SpectrumOptions
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import Job, Progress
from napari_semsr.services.opening import (
    Image,
    OpenOptions,
    name_of,
    open_image,
    paths_of,
)
from napari_semsr.services.results import Result, jsonable
from napari_semsr.services.targets import check_image_target, check_target_file

__all__ = ["SpectrumReport", "spectrum_job"]


@dataclass(frozen=True, slots=True)
class SpectrumReport(Result):
    """Power spectrum of an image.

    Attributes
    ----------
    image : str
        Name of the image.
    pixel_size_nm : tuple of float or None
        ``(y, x)``; None when unknown.
    frequency_per_px, power : list of float
        Radial mean power over spatial frequency.
    frequency_per_um : list of float or None
        The same frequencies per µm; None when uncalibrated.
    centred : str or None
        Path of the 2-D spectrum, if it was written.
    table : str or None
        Path of the radial curve, if it was written.
    radial : RadialSpectrum
        The curve itself.
    """

    image: str
    pixel_size_nm: tuple[float, float] | None
    frequency_per_px: list[float]
    power: list[float]
    frequency_per_um: list[float] | None
    centred: str | None
    table: str | None
    radial: RadialSpectrum = field(metadata={"json": False})


def spectrum_job(
    image: Image,
    output: str | os.PathLike[str] | None = None,
    *,
    options: SpectrumOptions | None = None,
    opening: OpenOptions | None = None,
    overwrite: bool = False,
) -> Job[SpectrumReport]:
    """Measure the power spectrum of an image.

    Parameters
    ----------
    image : Micrograph or path
        An image.
    output : path, optional
        An image file gets the centred 2-D spectrum, a ``.csv`` file the radial curve.
    options : SpectrumOptions, optional
        Window.
    opening : OpenOptions, optional
        How to read a file.
    overwrite : bool, default=False
        Replace an existing output.

    Returns
    -------
    SpectrumReport
        The radial curve, and the path of what was written.

    Yields
    ------
    Progress
        Reading, transforming, writing.
    """
    from napari_semsr.analysis import spectrum

    yield Progress(0, 3, "checking")
    target = _spectrum_target(output, paths_of(image), overwrite=overwrite)
    source = open_image(image, opening)
    yield Progress(1, 3, "transforming")
    found = spectrum.measure_spectrum(source, options or SpectrumOptions())
    radial = found.radial
    yield Progress(2, 3, "writing" if target else "done")
    as_table = target is not None and target.suffix.lower() == ".csv"
    if target is not None and as_table:
        _write_curve(target, radial, source)
    elif target is not None:
        _write_image(found.image, target, overwrite=overwrite)
    yield Progress(3, 3, "done")
    return SpectrumReport(
        image=name_of(image),
        pixel_size_nm=source.pixel_size_nm,
        frequency_per_px=jsonable(radial.frequency_per_px),
        power=jsonable(radial.power),
        frequency_per_um=jsonable(radial.frequency_per_um),
        centred=str(target) if target and not as_table else None,
        table=str(target) if target and as_table else None,
        radial=radial,
    )


def _spectrum_target(
    output: str | os.PathLike[str] | None, inputs: list[Path], *, overwrite: bool
) -> Path | None:
    """Check the output of `spectrum_job`."""
    if output is None:
        return None
    if Path(output).suffix.lower() == ".csv":
        return check_target_file(
            output, suffixes=(".csv",), inputs=inputs, overwrite=overwrite
        )
    return check_image_target(output, inputs=inputs, overwrite=overwrite)


def _write_image(micrograph: Micrograph, path: Path, *, overwrite: bool) -> None:
    """Write an image in the format of its suffix."""
    from napari_semsr.io import registry

    registry.write(micrograph, path, overwrite=overwrite)


def _write_curve(path: Path, radial: RadialSpectrum, source: Micrograph) -> None:
    """Write a radial curve as CSV, with a column in µm⁻¹ when calibrated."""
    from napari_semsr.io.targets import replacing

    pixel = source.mean_pixel_size_nm
    header = "frequency_per_px,frequency_per_um,power"
    rows = [
        f"{q:.8g},{'' if pixel is None else f'{q * 1000 / pixel:.8g}'},{p:.8g}"
        for q, p in zip(
            radial.frequency_per_px.tolist(), radial.power.tolist(), strict=True
        )
    ]
    with replacing(path) as temporary:
        temporary.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
