"""Cut an area out of an image: a box, or what another image shows, on its grid."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_semsr.core import (
    Box,
    InputRecord,
    Job,
    Micrograph,
    OptionError,
    Progress,
    Provenance,
    WriteError,
    software_versions,
    to_dtype,
)
from napari_semsr.io import OmeZarrStore, ReadOptions, Written, store_of, write_blocks
from napari_semsr.jobs.crop.areas import (
    Area,
    CropOptions,
    CropPlan,
    plan_box,
    plan_common,
)
from napari_semsr.jobs.images import Image, input_record, name_of, open_image, paths_of
from napari_semsr.jobs.outputs import Result, check_image_target, jsonable

Where = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Cropped(Result):
    """What was cut, and where it lies.

    Attributes
    ----------
    output : str
        Path of the file or store.
    like_output : str or None
        Path of the same area of the reference.
    shape : tuple of int
        Rows and columns.
    dtype : str
        Type of the grey values in the output.
    pixel_size_nm : tuple of float or None
        ``(y, x)``; None when unknown.
    origin : tuple of float
        Centre of the first pixel ``(y, x)``, in nm when calibrated.
    area : tuple of int
        ``(y0, x0, y1, x1)`` in pixels of the reference, or of the image without one.
    resampled : bool
        Whether grey values were interpolated.
    shift_px, shift_nm : tuple of float or None
        ``(y, x)`` by which the image was moved; None where that was not asked for.
    shift_error_px : float or None
        Standard error of the shift.
    quarters : int or None
        Quarters of the field, of four, that find this shift by themselves.
    runner_up : float or None
        How well the next best shift fits, over the best.
    correlation : float or None
        Of both images, band-passed, when moved; negative for inverted contrast.
    clipped : int
        Pixels that had no place in the type of the output.
    """

    output: str
    like_output: str | None
    shape: tuple[int, int]
    dtype: str
    pixel_size_nm: tuple[float, float] | None
    origin: tuple[float, float]
    area: tuple[int, int, int, int]
    resampled: bool
    shift_px: tuple[float, float] | None
    shift_nm: tuple[float, float] | None
    shift_error_px: float | None
    quarters: int | None
    runner_up: float | None
    correlation: float | None
    clipped: int = 0


@dataclass(frozen=True, slots=True)
class _Cut:
    """A plan, and the records of its outputs."""

    plan: CropPlan
    about: Micrograph
    reference: Micrograph | None


def crop_job(
    image: Image,
    output: Where,
    *,
    like: Image | None = None,
    like_output: Where | None = None,
    options: CropOptions | None = None,
    opening: ReadOptions | None = None,
    overwrite: bool = False,
) -> Job[Cropped]:
    """Cut an area out of an image and write it.

    Parameters
    ----------
    image : Micrograph or path
        What is cut.
    output : path
        Ends in ``.ome.zarr``, ``.ome.tif``, ``.tif`` or ``.png``.
    like : Micrograph or path, optional
        A reference, onto whose grid the image is brought where both overlap.
    like_output : path, optional
        Receives the same area of the reference.
    options : CropOptions, optional
        A box in place of a reference; shift, gaps, type.
    opening : ReadOptions, optional
        How to read the image.
    overwrite : bool, default=False
        Replace existing outputs.

    Returns
    -------
    Cropped
        What was written.

    Yields
    ------
    Progress
        Searching, writing.

    Raises
    ------
    ReadError, WriteError, OptionError, ShapeError, RegistrationError
        If images cannot be read or have nothing in common, no shift can be believed,
        or an output cannot be made.
    """
    yield Progress(0, 0, "checking")
    chosen = options or CropOptions()
    inputs = paths_of(image, like)
    target = check_image_target(output, inputs=inputs, overwrite=overwrite)
    beside = None
    if like_output is not None:
        beside = check_image_target(like_output, inputs=inputs, overwrite=overwrite)
        _check_apart(target, beside)
    cut = yield from _prepare(image, like, chosen, opening, both=beside is not None)
    plan = cut.plan
    dtype = np.dtype(chosen.dtype or plan.area.dtype)
    written = yield from _write(plan.area, cut.about, target, dtype)
    if beside is not None and plan.reference is not None and cut.reference is not None:
        kept = plan.reference
        yield from _write(kept, cut.reference, beside, kept.dtype)
    return Cropped(
        output=str(target),
        like_output=None if beside is None else str(beside),
        shape=plan.area.grid.shape,
        dtype=written.dtype,
        pixel_size_nm=cut.about.pixel_size_nm,
        origin=cut.about.origin,
        clipped=written.told,
        **_facts(plan),
    )


def crop_in_memory(
    image: Image,
    *,
    like: Image | None = None,
    options: CropOptions | None = None,
    opening: ReadOptions | None = None,
) -> Job[Micrograph]:
    """Cut an area out of an image, and keep it in memory.

    Parameters
    ----------
    image : Micrograph or path
        What is cut.
    like : Micrograph or path, optional
        A reference, onto whose grid the image is brought where both overlap.
    options : CropOptions, optional
        A box in place of a reference; shift, gaps, type.
    opening : ReadOptions, optional
        How to read the image.

    Returns
    -------
    Micrograph
        With its history; ``metadata["crop"]`` tells area and shift.

    Yields
    ------
    Progress
        Searching, cutting.
    """
    chosen = options or CropOptions()
    cut = yield from _prepare(image, like, chosen, opening, both=False)
    yield Progress(0, 0, "cutting")
    data = cut.plan.area.read()
    if chosen.dtype is not None:
        data, _ = to_dtype(data, chosen.dtype)
    about = {**cut.about.metadata, "crop": jsonable(_facts(cut.plan))}
    return cut.about.replace(data=np.array(data), metadata=about)


def _check_apart(target: Path, beside: Path) -> None:
    """Refuse two outputs of which the second would replace the first."""
    one, two = target.resolve(), beside.resolve()
    if one == two or one in two.parents or two in one.parents:
        msg = (
            "The part and that of the reference are written to two places, got "
            f"{target} and {beside}: choose another for one of them."
        )
        raise WriteError(msg)


def _prepare(
    image: Image,
    like: Image | None,
    options: CropOptions,
    opening: ReadOptions | None,
    *,
    both: bool,
) -> Job[_Cut]:
    """Open images, choose the area, and say what is made of them."""
    yield Progress(0, 0, f"reading {name_of(image)}")
    source = open_image(image, opening)
    record = input_record(image, source, opening)
    if like is None:
        if both:
            msg = "An area of a reference needs a reference: give --like as well."
            raise OptionError(msg)
        plan = yield from plan_box(_called(source, image), options)
        return _Cut(plan, _about(source, plan.area, record, options, opening), None)
    reading = ReadOptions(pixel_size_nm=options.like_pixel_size_nm)
    reference = open_image(like, reading)
    called = _called(reference, like)
    plan = yield from plan_common(_called(source, image), called, options)
    kept = input_record(like, reference, reading, role="image")
    # no input: two images do not share a source by where one of them lies
    more = {"like": kept.name, "like_digest": kept.digest, **_facts(plan)}
    about = _about(source, plan.area, record, options, opening, more)
    if plan.reference is None:
        return _Cut(plan, about, None)
    if not both and plan.box.shape != reference.shape:
        _tell_part(plan, called)
    box = options.replace(box=_corners(plan.box), align=False, gap_free=False)
    beside = _about(reference, plan.reference, kept, box, reading)
    return _Cut(plan, about, beside)


def _called(opened: Micrograph, image: Image) -> Micrograph:
    """Call an image as the user does: parts of one image share the name inside."""
    return opened.replace(name=name_of(image))


def _about(
    source: Micrograph,
    area: Area,
    record: InputRecord,
    options: CropOptions,
    opening: ReadOptions | None,
    more: dict[str, Any] | None = None,
) -> Micrograph:
    """Name, calibration and history of what is cut; the data are not looked at."""
    reading = (opening or ReadOptions()).model_dump(mode="json")
    said = {**options.model_dump(mode="json"), "reading": reading, **(more or {})}
    rows, columns = area.grid.shape
    origin = area.grid.centre(Box.of((rows, columns)))
    pitch = area.grid.pitch
    size = {"pixel_size_nm": pitch} if source.pixel_size_nm else {"spacing_px": pitch}
    return source.replace(
        origin=origin,
        provenance=Provenance(
            job="crop",
            options=jsonable(said),
            inputs=(record,),
            versions=software_versions(),
        ),
        **size,
    )


def _facts(plan: CropPlan) -> dict[str, Any]:
    """Say where an area lies, and how that was found."""
    shift = plan.shift
    return {
        "area": _corners(plan.box),
        "resampled": plan.area.is_resampled,
        "shift_px": shift and shift.shift_px,
        "shift_nm": plan.shift_nm,
        "shift_error_px": shift and shift.error_px,
        "quarters": shift and shift.quarters,
        "runner_up": shift and shift.runner_up,
        "correlation": shift and shift.correlation,
    }


def _corners(box: Box) -> tuple[int, int, int, int]:
    """Corners of a box as a user types them."""
    return box.y0, box.x0, box.y1, box.x1


def _tell_part(plan: CropPlan, reference: Micrograph) -> None:
    """Say that the reference shows more than the result."""
    box = plan.box
    warnings.warn(
        f"The result is rows {box.y0} to {box.y1}, columns {box.x0} to {box.x1} of "
        f"{reference.name}: write that part of it with --like-out to compare the two.",
        stacklevel=2,
    )


def _write(
    area: Area, about: Micrograph, target: Path, dtype: np.dtype[Any]
) -> Job[Written[int]]:
    """Compute an area block by block and write it; count clipped pixels."""

    def make(place: Path) -> OmeZarrStore:
        return store_of(about, place, shape=area.grid.shape, dtype=dtype)

    def fill(store: OmeZarrStore) -> Job[int]:
        blocks = (area.read(box) for box in store.boxes())
        return store.fill(blocks, f"cutting {target.name}")

    return (yield from write_blocks(target, make, fill))
