"""Map where an enhanced image does not agree with its reference, block by block."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from napari_semsr.analysis import (
    ErrorField,
    ErrorFit,
    ErrorMapOptions,
    ErrorPair,
    ErrorTally,
    fit_error,
    tell_fit,
)
from napari_semsr.core import (
    Box,
    Float32Array,
    FloatArray,
    FloatPair,
    IntPair,
    Job,
    Look,
    Micrograph,
    Progress,
    field_range,
    return_free_memory,
    warn,
)
from napari_semsr.io import ReadOptions
from napari_semsr.jobs.images import (
    Image,
    Result,
    check_image_target,
    computed,
    made_by,
    names_of,
    open_image,
    paths_of,
    record_input,
)
from napari_semsr.jobs.leakage import tell_learnt
from napari_semsr.jobs.maps import keep_map
from napari_semsr.jobs.measure.offset import Offset, find_offset

_BRIGHTEST = 3.0  # RSEs at which the colours end; chosen: of normal errors 0.3 % more


@dataclass(frozen=True, slots=True)
class ErrorMapReport(Result):
    """How an enhanced image agrees with its reference.

    Attributes
    ----------
    images : tuple of str
        Names of reference and enhanced image.
    output : str or None
        Path of the map, if it was written.
    rse : float
        Root mean square difference, grey levels of the reference.
    rse_percent : float
        The same, per cent of `range`.
    rsp : float
        Pearson's r of reference and blurred enhanced image.
    sigma_px, sigma_nm : float or None
        Standard deviation of the blur, in pixels of the enhanced image and nm.
    alpha, beta : float
        Gain and offset of the enhanced image's grey levels.
    scale : int
        Its pixels along a side of one of the reference.
    shift_px : tuple of float
        ``(y, x)`` by which it was moved first, pixels of the reference.
    shift_error_px : float or None
        Standard error of what was looked for; None where none was found or asked for.
    range : tuple of float
        0.1th and 99.9th percentile of the reference's grey levels.
    looked_at : float
        Part of the field on which blur and grey levels were fitted.
    pixels : int
        Pixels that were compared: all that both images know.
    unit : str
        Of the map: ``"grey"`` or ``"percent"``.
    shape : tuple of int
        Rows and columns of the map.
    pixel_size_nm, pixel_size_sd_nm : tuple of float or None
        ``(y, x)`` of the map, which is the reference's, and its standard deviation;
        None when unknown.
    map : Micrograph or None
        Absolute differences, where they were not written.
    """

    images: tuple[str, ...]
    output: str | None
    rse: float
    rse_percent: float
    rsp: float
    sigma_px: float
    sigma_nm: float | None
    alpha: float
    beta: float
    scale: int
    shift_px: FloatPair
    shift_error_px: float | None
    range: FloatPair
    looked_at: float
    pixels: int
    unit: str
    shape: IntPair
    pixel_size_nm: FloatPair | None
    pixel_size_sd_nm: FloatPair | None
    map: Micrograph | None = field(default=None, metadata={"json": False})

    @property
    def moved(self) -> str:
        """How the enhanced image was moved, without signs.

        Returns
        -------
        str
            As ``0.42 px up, 1.10 px left``.
        """
        return in_words(self.shift_px)


def in_words(shift_px: FloatPair) -> str:
    """Say a shift by down and right without signs."""
    down, right = shift_px
    if not (down or right):
        return "nothing"
    return (
        f"{abs(down):.2f} px {'down' if down > 0 else 'up'}, "
        f"{abs(right):.2f} px {'right' if right > 0 else 'left'}"
    )


def error_map_job(
    reference: Image,
    enhanced: Image,
    output: str | os.PathLike[str] | None = None,
    *,
    options: ErrorMapOptions | None = None,
    opening: ReadOptions | None = None,
    overwrite: bool = False,
) -> Job[ErrorMapReport]:
    """Map where an enhanced image does not agree with its reference.

    Parameters
    ----------
    reference : Micrograph or path
        The image as it was taken.
    enhanced : Micrograph or path
        What was made of it, of the same pixels or finer ones.
    output : path, optional
        Where the map goes.
    options : ErrorMapOptions, optional
        Unit, and whether a shift is looked for.
    opening : ReadOptions, optional
        How to read files.
    overwrite : bool, default=False
        Replace an existing output.

    Returns
    -------
    ErrorMapReport
        The figures, and the map where it was not written.

    Yields
    ------
    Progress
        Searching, fitting, blocks.
    """
    chosen = options or ErrorMapOptions()
    yield Progress(0, 0, "reading")
    target = None
    if output is not None:
        taken = paths_of(reference, enhanced)
        target = check_image_target(output, inputs=taken, overwrite=overwrite)
    first, second = (open_image(image, opening) for image in (reference, enhanced))
    tell_learnt([(reference, first), (enhanced, second)], opening)
    pair, offset = ErrorPair.of(first, second), Offset()
    _tell_part(pair, first)
    if chosen.align:
        yield Progress(0, 0, "looking for a shift")
        offset = _offset(pair, chosen.search)
    moved = offset.moved or (0.0, 0.0)
    if offset.moved is not None:
        pair = ErrorPair.of(first, second, moved)
    fit = yield from fit_error(pair)
    tell_fit(fit, first.name, second.name)
    return_free_memory()  # of the fit, before the field is read
    yield Progress(0, 0, "measuring the range of grey levels")
    low, high = span = field_range(first.data)
    percent = 100 / (high - low) if high > low else float("nan")
    about = _about(first, pair, fit, percent, chosen)
    records = []
    for image, opened, role in (
        (reference, first, "reference"),
        (enhanced, second, "enhanced"),
    ):
        records.append((yield from record_input(image, opened, opening, role=role)))
    reading = (opening or ReadOptions()).model_dump(mode="json")
    said = {**chosen.model_dump(mode="json"), "reading": reading}
    about = about.replace(provenance=made_by("error-map", said, *records))
    tally = ErrorTally(float(np.mean(span)))
    factor = percent if chosen.unit == "percent" else 1.0
    mapped = _Mapped(ErrorField(pair, fit), tally, factor)
    made = yield from keep_map(mapped, about, target)
    known = first.pixel_size_nm is not None
    nm = float(np.sqrt(np.prod(pair.enhanced.grid.pitch))) if known else None
    return ErrorMapReport(
        images=names_of(reference, enhanced),
        output=None if target is None else str(target),
        rse=tally.rse,
        rse_percent=tally.rse * percent,
        rsp=tally.rsp,
        sigma_px=fit.sigma_px,
        sigma_nm=None if nm is None else fit.sigma_px * nm,
        alpha=fit.alpha,
        beta=fit.beta,
        scale=pair.factor,
        shift_px=moved,
        shift_error_px=offset.error_px,
        range=span,
        looked_at=fit.looked_at,
        pixels=tally.pixels,
        unit=chosen.unit,
        shape=pair.shape,
        pixel_size_nm=first.pixel_size_nm,
        pixel_size_sd_nm=first.pixel_size_sd_nm,
        map=made,
    )


def _offset(pair: ErrorPair, search: int) -> Offset:
    """Find by how much the enhanced image is to be moved; say why it is not."""

    def read_both(box: Box) -> tuple[FloatArray, FloatArray]:
        fixed, fine = pair.read(box)
        high, wide = box.shape
        squares = fine.reshape(high, pair.factor, wide, pair.factor)
        return fixed, squares.mean(axis=(1, 3))

    found = find_offset(read_both, pair.shape, reach=search, nearest=True)
    if found.doubt:
        warn(f"The images are compared as they lie. {found.doubt}")
    return found


def _tell_part(pair: ErrorPair, reference: Micrograph) -> None:
    """Say that the enhanced image shows a part of the reference alone."""
    whole, shown = (rows * columns for rows, columns in (reference.shape, pair.shape))
    if shown < 0.99 * whole:
        warn(
            f"The enhanced image covers {shown / whole:.0%} of {reference.name}, so "
            "the map does too.",
        )


def _about(
    reference: Micrograph,
    pair: ErrorPair,
    fit: ErrorFit,
    percent: float,
    options: ErrorMapOptions,
) -> Micrograph:
    """Give the map its place, its pixels and its look."""
    grid = pair.reference.grid
    factor = percent if options.unit == "percent" else 1.0
    top = _BRIGHTEST * fit.residual * factor
    unit = "grey levels" if options.unit == "grey" else "% of the range"
    return reference.replace(
        data=np.broadcast_to(np.float32(0), grid.shape),
        name=f"error map of {pair.enhanced.image.name} ({unit})",
        origin=grid.centre(Box.of(grid.shape)),
        metadata={},
        look=Look(
            limits=(0.0, top if top > 0 else 1.0), colormap="inferno", colour_bar=True
        ),
    )


@dataclass(frozen=True, slots=True)
class _Mapped:
    """A field whose errors are counted while they are mapped."""

    field: ErrorField
    tally: ErrorTally
    factor: float  # from grey levels to the unit of the map

    @property
    def shape(self) -> IntPair:
        """Rows and columns of the map."""
        return self.field.pair.shape

    def blocks(self, boxes: list[Box]) -> Iterator[Float32Array]:
        """Map parts, several at a time, and count their pixels in their order."""
        for fixed, made in computed(self.field.read, boxes):
            self.tally.add(fixed, made)
            made -= fixed
            np.abs(made, out=made)
            if self.factor != 1:
                made *= np.float32(self.factor)
            yield made
