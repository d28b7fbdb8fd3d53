"""The measuring jobs of resolution: ring correlation, its map, one image, spectra."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr import analysis
from napari_semsr.core import (
    Box,
    FloatPair,
    IntPair,
    Job,
    Look,
    Micrograph,
    Progress,
    Provenance,
    SemsrError,
    contrast_limits,
    read_box,
    warn,
)
from napari_semsr.io import ReadOptions, half_paths, read, replacing, write
from napari_semsr.jobs.crop import cut_gaps
from napari_semsr.jobs.images import (
    Image,
    Result,
    calibrated_of,
    check_image_target,
    check_target_file,
    jsonable,
    made_by,
    name_of,
    names_of,
    open_image,
    open_pair,
    paths_of,
    pixel_size_record,
    record_input,
)
from napari_semsr.jobs.leakage import tell_learnt
from napari_semsr.jobs.measure.offset import Offset, find_offset
from napari_semsr.jobs.stitch import HALF

# The halves of a mosaic, which lie beside it.

Halves = tuple[Micrograph, Micrograph]
ALONE = "It is measured as a single image."
"""What is said of a mosaic whose halves are not used."""


def find_halves(
    mosaic: Path, opened: Micrograph
) -> tuple[tuple[Micrograph, Micrograph] | None, str | None]:
    """Find the halves that belong to a mosaic, or say why there are none.

    Parameters
    ----------
    mosaic : pathlib.Path
        Where it is stored.
    opened : Micrograph
        What was read from there, perhaps with another pixel size.

    Returns
    -------
    tuple of Micrograph or None
        Both halves, lying as `opened` does; None where they are not to be used.
    str or None
        A sentence that says why; None where there are halves, or where the image was
        not stitched.
    """
    paths = half_paths(mosaic)
    there = [path for path in paths if path.exists()]
    made = opened.provenance
    if not there and (made is None or made.essence().job != "stitch"):
        return None, None
    fault = (
        "has no halves beside it; stitch with --halves for its resolution"
        if not there
        else f"has {there[0].name} beside it, but not the other half"
    )
    if len(there) == len(paths):
        try:
            halves = read(paths[0]), read(paths[1])
            fault = _foreign(mosaic, opened, halves)
        except (SemsrError, OSError) as error:
            fault = f"has halves beside it that cannot be read ({error})"
        if not fault:
            first, second = (
                opened.replace(data=half.data, name=half.name, look=half.look)
                for half in halves
            )
            return (first, second), None
    return None, f"The mosaic {mosaic.name} {fault}."


def _foreign(mosaic: Path, opened: Micrograph, halves: Halves) -> str:
    """Say why halves are not those of the mosaic beside them; empty where they are."""
    if mosaic.suffix.lower() == ".png":
        return "is a PNG, whose grey values are not those of its halves"
    stored = read(mosaic)
    for half in halves:
        lying = [(item.shape, item.scale, item.origin) for item in (stored, half)]
        if lying[0] != lying[1] or opened.shape != half.shape:
            return "has halves beside it that lie on another grid"
    wanted = _recipe(stored.provenance)
    if any(wanted is None or _recipe(half.provenance) != wanted for half in halves):
        return (
            "has halves beside it that were made of other frames or in another way; "
            "stitch it again with --halves"
        )
    return ""


def _recipe(made: Provenance | None) -> dict[str, Any] | None:
    """Tell what a mosaic and its halves have in common; None for other images."""
    if made is None or made.essence().job != "stitch":
        return None
    recipe = made.essence().making()
    recipe["options"].pop(HALF, None)
    return recipe


def _uncovered(result: "analysis.FrcMap") -> str | None:
    """Say how many blocks have no resolution for want of a second frame."""
    if not result.incomplete:
        return None
    said = (
        f"{result.incomplete} of {result.blocks} blocks are not covered by both halves"
    )
    if result.incomplete < result.blocks:
        return f"{said}."
    return f"{said}: take smaller blocks, or scan with more overlap."


# How far the second image lies off the first.

_REACH_PX = 10  # that is searched; chosen: what lies further off was not one grid


def _offset(first: Micrograph, second: Micrograph | None, *, register: bool) -> Offset:
    """Find the shift of the second image, if one is asked for."""
    if second is None or not register or first.shape != second.shape:
        return Offset()
    images = first.data, second.data

    def read_both(box: Box) -> tuple[NDArray[Any], NDArray[Any]]:
        return read_box(images[0], box), read_box(images[1], box)

    return find_offset(read_both, first.shape, reach=_REACH_PX)


def _doubted(placed: Offset) -> str | None:
    """Say that two images were not registered, and why."""
    return f"The images were not registered. {placed.doubt}" if placed.doubt else None


def _cut(box: Box | None, *, halves: bool) -> str | None:
    """Say where images with gaps were measured."""
    if box is None:
        return None
    where = "that both halves cover" if halves else "without gaps"
    rows, columns = box.shape
    return (
        f"Measured in the largest rectangle {where}, {rows} x {columns} px at "
        f"({box.y0}, {box.x0})."
    )


# Fourier ring correlation of one or two images or files.


@dataclass(frozen=True, slots=True)
class FrcReport(Result):
    """Fourier ring correlation of one or two images.

    Attributes
    ----------
    images : tuple of str
        Names of what was compared.
    pixel_size_nm : tuple of float or None
        ``(y, x)``; None when unknown.
    pixel_size_sd_nm : tuple of float or None
        Its standard deviation; None where no calibration told it.
    result : FrcResult
        Resolution, curve, criterion, method and reason.
    note : str or None
        Why a mosaic's halves were not used, that only a part could be measured, or why
        the images were not registered.
    found_shift_px : tuple of float or None
        ``(y, x)`` by which the second image was found to lie off; None where nothing
        was looked for, or found. The result's ``shift_px`` is by what it was moved.
    found_shift_sd_px : float or None
        Its standard error.
    """

    images: tuple[str, ...]
    pixel_size_nm: FloatPair | None
    pixel_size_sd_nm: FloatPair | None
    result: "analysis.FrcResult"
    note: str | None = None
    found_shift_px: FloatPair | None = None
    found_shift_sd_px: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the result as one flat record.

        Returns
        -------
        dict
            The result's fields, with the images' names and pixel size.
        """
        return {
            "images": list(self.images),
            **pixel_size_record(self.pixel_size_nm, self.pixel_size_sd_nm),
            "note": self.note,
            "found_shift_px": jsonable(self.found_shift_px),
            "found_shift_sd_px": self.found_shift_sd_px,
            **jsonable(self.result),
        }


def frc_job(
    a: Image,
    b: Image | None = None,
    *,
    halves: tuple[Micrograph, Micrograph] | None = None,
    register: bool = True,
    options: "analysis.FrcOptions | None" = None,
    opening: ReadOptions | None = None,
) -> Job[FrcReport]:
    """Measure resolution by Fourier ring correlation.

    Parameters
    ----------
    a : Micrograph or path
        An image; beside the file of a mosaic its halves are looked for.
    b : Micrograph or path, optional
        A second, independent image of the same field.
    halves : tuple of Micrograph, optional
        Halves of the mosaic `a`, which has no second image.
    register : bool, default=True
        Move `b` onto `a` by parts of a pixel first.
    options : FrcOptions, optional
        Criterion, estimator, window.
    opening : ReadOptions, optional
        How to read files.

    Returns
    -------
    FrcReport
        Without a crossing its resolution is None and its reason says why.

    Yields
    ------
    Progress
        Reading, correlating.
    """
    yield Progress(0, 2, "reading")
    first, second = open_pair(a, b, opening)
    calibrated = calibrated_of(first, second)
    if b is not None and second is not None:
        tell_learnt([(a, first), (b, second)], opening)
    chosen, note = options or analysis.FrcOptions(), None
    alone = b is None and halves is None and chosen.split == "diagonal"
    if alone and not isinstance(a, Micrograph):
        halves, note = find_halves(Path(a), first)
    if note is not None:
        warn(note := f"{note} {ALONE}")
    box: Box | None = None
    if halves is not None:
        (first, one, other), box = yield from cut_gaps(first, *halves)
    elif second is None:
        (first,), box = yield from cut_gaps(first)
    elif first.shape == second.shape:
        (first, second), box = yield from cut_gaps(first, second)
    placed = _offset(first, second, register=register)
    yield Progress(1, 2, "correlating")
    if halves is None:
        result = analysis.measure_frc(first, second, chosen, shift_px=placed.moved)
    else:
        result = analysis.measure_frc(one, other, chosen, whole=first)
    said = [
        _doubted(placed),
        note,
        _cut(box, halves=halves is not None),
        result.beyond_cut_off,
    ]
    yield Progress(2, 2, "done")
    return FrcReport(
        names_of(a, b),
        calibrated.pixel_size_nm,
        calibrated.pixel_size_sd_nm,
        result,
        " ".join(filter(None, said)) or None,
        placed.shift_px,
        placed.error_px,
    )


# The FRC map of one or two images, written as an image in nm.


@dataclass(frozen=True, slots=True)
class FrcMapReport(Result):
    """What the blocks of one or two images resolve.

    Attributes
    ----------
    images : tuple of str
        Names of what was compared.
    output : str or None
        Path of the map, if it was written.
    pixel_size_nm : tuple of float or None
        ``(y, x)`` of the images; None when unknown.
    pixel_size_sd_nm : tuple of float or None
        Its standard deviation; None where no calibration told it.
    blocks, failed : int
        Block positions, and those without a crossing.
    median_nm, p10_nm, p90_nm : float or None
        Spread of the blocks' resolution; None when uncalibrated.
    median_px, p10_px, p90_px : float or None
        The same in pixels of the images.
    median_interval_nm, median_interval_px : tuple of float or None
        95 % interval of the median: by the noise of the blocks and, in nm, the pixel
        size.
    reasons : dict
        How many blocks failed for each reason.
    unit : str
        Unit of the map's values, ``"nm"`` or ``"px"``.
    block, step : int
        Side of a block and distance between blocks, px.
    shape : tuple of int
        Rows and columns of the map.
    method : str
        What was done, in words.
    field_reason : str or None
        Noise that both images share, seen in all blocks pooled.
    note : str or None
        Why a mosaic's halves were not used, how many blocks they do not cover, or why
        the images were not registered.
    shift_px : tuple of float or None
        ``(y, x)`` by which the second image was moved; None where it was not.
    found_shift_px : tuple of float or None
        By which it was found to lie off; None where nothing was looked for, or found.
    found_shift_sd_px : float or None
        Its standard error.
    result : FrcMap
        The map itself.
    """

    images: tuple[str, ...]
    output: str | None
    pixel_size_nm: FloatPair | None
    pixel_size_sd_nm: FloatPair | None
    blocks: int
    failed: int
    median_nm: float | None
    p10_nm: float | None
    p90_nm: float | None
    median_px: float | None
    p10_px: float | None
    p90_px: float | None
    median_interval_nm: FloatPair | None
    median_interval_px: FloatPair | None
    reasons: dict[str, int]
    unit: str
    block: int
    step: int
    shape: IntPair
    method: str
    field_reason: str | None
    note: str | None
    shift_px: FloatPair | None
    found_shift_px: FloatPair | None
    found_shift_sd_px: float | None
    result: "analysis.FrcMap" = field(metadata={"json": False})


def frc_map_job(
    a: Image,
    b: Image | None = None,
    output: str | os.PathLike[str] | None = None,
    *,
    halves: tuple[Micrograph, Micrograph] | None = None,
    register: bool = True,
    options: "analysis.FrcMapOptions | None" = None,
    opening: ReadOptions | None = None,
    overwrite: bool = False,
) -> Job[FrcMapReport]:
    """Map the resolution of one or two images block by block.

    Parameters
    ----------
    a : Micrograph or path
        An image; beside the file of a mosaic its halves are looked for.
    b : Micrograph or path, optional
        A second, independent image of the same field.
    output : path, optional
        Where the map goes.
    halves : tuple of Micrograph, optional
        Halves of the mosaic `a`, which has no second image.
    register : bool, default=True
        Move `b` onto `a` by parts of a pixel first.
    options : FrcMapOptions, optional
        Block, step, criterion, filling.
    opening : ReadOptions, optional
        How to read files.
    overwrite : bool, default=False
        Replace an existing output.

    Returns
    -------
    FrcMapReport
        The map and its figures.

    Yields
    ------
    Progress
        Rows of blocks.
    """
    chosen = options or analysis.FrcMapOptions()
    yield Progress(0, 0, "reading")
    target = None
    if output is not None:
        taken = paths_of(a, b)
        target = check_image_target(output, inputs=taken, overwrite=overwrite)
    first, second = open_pair(a, b, opening)
    calibrated = calibrated_of(first, second)
    pairs: list[tuple[Image, Micrograph]] = [(a, first)]
    note = None
    alone = b is None and halves is None and chosen.split == "diagonal"
    if alone and not isinstance(a, Micrograph):
        halves, note = find_halves(Path(a), first)
    if note is not None:
        warn(note := f"{note} {ALONE}")
    placed = _offset(first, second, register=register)
    if halves is not None:
        result = yield from analysis.measure_frc_map(*halves, chosen, whole=first)
        note = _uncovered(result)
        pairs += [(half, half) for half in halves]
    else:
        result = yield from analysis.measure_frc_map(
            first, second, chosen, shift_px=placed.moved
        )
    if b is not None and second is not None:
        pairs.append((b, second))
        tell_learnt(pairs, opening)
    inputs = []
    for number, (image, opened) in enumerate(pairs):
        role = "half" if halves is not None and number else "image"
        inputs.append((yield from record_input(image, opened, opening, role=role)))
    reading = (opening or ReadOptions()).model_dump(mode="json")
    asked = {**chosen.model_dump(mode="json"), "register": register, "reading": reading}
    provenance = made_by("frc-map", asked, *inputs)
    shown = result.map.replace(provenance=provenance, look=_map_look(result.map))
    result = replace(result, map=shown)
    if target is not None:
        write(result.map, target, overwrite=overwrite)
    return FrcMapReport(
        images=names_of(a, b),
        output=None if target is None else str(target),
        pixel_size_nm=calibrated.pixel_size_nm,
        pixel_size_sd_nm=calibrated.pixel_size_sd_nm,
        blocks=result.blocks,
        failed=result.failed,
        median_nm=result.median_nm,
        p10_nm=result.p10_nm,
        p90_nm=result.p90_nm,
        reasons=dict(result.reason_counts),
        median_px=_in_px(result, calibrated, 50),
        p10_px=_in_px(result, calibrated, 10),
        p90_px=_in_px(result, calibrated, 90),
        median_interval_nm=result.median_interval if result.unit == "nm" else None,
        median_interval_px=_interval_px(result, calibrated),
        unit=result.unit,
        block=result.block,
        step=result.step,
        shape=result.map.shape,
        method=result.method,
        field_reason=result.field_reason,
        note=_doubted(placed) or note,
        shift_px=result.shift_px,
        found_shift_px=placed.shift_px,
        found_shift_sd_px=placed.error_px,
        result=result,
    )


def _map_look(shown: Micrograph) -> Look:
    """Lay a map over its image: translucent, with a colour bar."""
    data = shown.array()
    return Look(
        limits=contrast_limits(data, 1, 99),
        colormap="viridis",
        opacity=0.55,
        colour_bar=bool(np.isfinite(data).any()),
    )


def _interval_px(result: "analysis.FrcMap", image: Micrograph) -> FloatPair | None:
    """Give the interval of the median in pixels, where no pixel size errs."""
    found = replace(result, size_error=0.0).median_interval
    pixel = image.mean_pixel_size_nm or 1.0
    return None if found is None else (found[0] / pixel, found[1] / pixel)


def _in_px(result: "analysis.FrcMap", image: Micrograph, share: float) -> float | None:
    """Give a percentile in pixels of the images."""
    value = result.percentile(share)
    pixel = image.mean_pixel_size_nm
    return value if value is None or pixel is None else value / pixel


# The cut-off of one image or file by decorrelation analysis.


@dataclass(frozen=True, slots=True)
class DecorrelationReport(Result):
    """Cut-off of an image.

    Attributes
    ----------
    image : str
        Name of the image.
    pixel_size_nm : tuple of float or None
        ``(y, x)``; None when unknown.
    pixel_size_sd_nm : tuple of float or None
        Its standard deviation; None where no calibration told it.
    result : Decorrelation
        Cut-off, spread of the blocks, curves, method and reason.
    """

    image: str
    pixel_size_nm: FloatPair | None
    pixel_size_sd_nm: FloatPair | None
    result: "analysis.Decorrelation"

    def to_json(self) -> dict[str, Any]:
        """Give the result as one flat record.

        Returns
        -------
        dict
            The result's fields, with the image's name and pixel size.
        """
        return {
            "image": self.image,
            **pixel_size_record(self.pixel_size_nm, self.pixel_size_sd_nm),
            **jsonable(self.result),
        }


def decorrelation_job(
    image: Image,
    *,
    options: "analysis.DecorrelationOptions | None" = None,
    opening: ReadOptions | None = None,
) -> Job[DecorrelationReport]:
    """Measure the cut-off of one image by decorrelation analysis.

    Parameters
    ----------
    image : Micrograph or path
        An image.
    options : DecorrelationOptions, optional
        Blocks.
    opening : ReadOptions, optional
        How to read a file.

    Returns
    -------
    DecorrelationReport
        Without a cut-off its resolution is None and its reason says why.

    Yields
    ------
    Progress
        Reading, blocks.
    """
    yield Progress(0, 0, "reading")
    source = open_image(image, opening)
    calibrated = calibrated_of(source, None)
    result = yield from analysis.measure_decorrelation(source, options)
    network = source.provenance and source.provenance.network()
    if network:
        warn(
            f"{source.name} was made by the network {network[0]}, so decorrelation "
            "tells how fine the network draws, not what was resolved; measure the "
            "image before it, or hold it against another (semsr frc, error-map).",
        )
    return DecorrelationReport(
        name_of(image), calibrated.pixel_size_nm, calibrated.pixel_size_sd_nm, result
    )


# The power spectrum of an image or file: radial curve and centred plane.


@dataclass(frozen=True, slots=True)
class SpectrumReport(Result):
    """Power spectrum of an image.

    Attributes
    ----------
    image : str
        Name of the image.
    pixel_size_nm : tuple of float or None
        ``(y, x)``; None when unknown.
    pixel_size_sd_nm : tuple of float or None
        Its standard deviation; None where no calibration told it.
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
    pixel_size_nm: FloatPair | None
    pixel_size_sd_nm: FloatPair | None
    frequency_per_px: list[float]
    power: list[float]
    frequency_per_um: list[float] | None
    centred: str | None
    table: str | None
    radial: "analysis.RadialSpectrum" = field(metadata={"json": False})


def spectrum_job(
    image: Image,
    output: str | os.PathLike[str] | None = None,
    *,
    options: "analysis.SpectrumOptions | None" = None,
    opening: ReadOptions | None = None,
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
    opening : ReadOptions, optional
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
    yield Progress(0, 3, "checking")
    target = _spectrum_target(output, paths_of(image), overwrite=overwrite)
    source = open_image(image, opening)
    yield Progress(1, 3, "transforming")
    chosen = options or analysis.SpectrumOptions()
    found = analysis.measure_spectrum(source, chosen)
    reading = (opening or ReadOptions()).model_dump(mode="json")
    radial, said = (
        found.radial,
        {**chosen.model_dump(mode="json"), "reading": reading},
    )
    record = yield from record_input(image, source, opening)
    plane = found.image.replace(
        provenance=made_by("spectrum", said, record),
        look=spectrum_look(found.image.data),
    )
    yield Progress(2, 3, "writing" if target else "done")
    as_table = target is not None and target.suffix.lower() == ".csv"
    if target is not None and as_table:
        _write_curve(target, radial, source)
    elif target is not None:
        write(plane, target, overwrite=overwrite)
    yield Progress(3, 3, "done")
    return SpectrumReport(
        image=name_of(image),
        pixel_size_nm=source.pixel_size_nm,
        pixel_size_sd_nm=source.pixel_size_sd_nm,
        frequency_per_px=jsonable(radial.frequency_per_px),
        power=jsonable(radial.power),
        frequency_per_um=jsonable(radial.frequency_per_um),
        centred=str(target) if target and not as_table else None,
        table=str(target) if target and as_table else None,
        radial=radial,
    )


def spectrum_look(plane: NDArray[Any]) -> Look:
    """Choose how a centred spectrum is shown.

    Parameters
    ----------
    plane : (Y, X) numpy.ndarray
        Logarithm of the power.

    Returns
    -------
    Look
        Its peaks stand out of the noise.
    """
    return Look(limits=contrast_limits(plane, 25, 99.95), colormap="magma")


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


def _write_curve(
    path: Path, radial: "analysis.RadialSpectrum", source: Micrograph
) -> None:
    """Write a radial curve as CSV, with a column in µm⁻¹ when calibrated."""
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
