"""Stitch a folder of frames: read, place, fuse, write, tell how far to trust it."""

import csv
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from napari_semsr.core import (
    Acquisition,
    Fault,
    InputRecord,
    Job,
    Micrograph,
    OptionError,
    Progress,
    Provenance,
    SemsrError,
    WriteError,
    digest_path,
)
from napari_semsr.io import (
    OmeZarrStore,
    TypedSize,
    label_path,
    natural_key,
    replacing,
    store_of,
    write_blocks,
)
from napari_semsr.jobs.images import (
    Result,
    check_image_target,
    check_target_file,
    input_record,
    jsonable,
    made_by,
    open_image,
)
from napari_semsr.stitching import StitchOptions

if TYPE_CHECKING:
    from napari_semsr.stitching import FusionPlan, StitchSolution

# A frames folder as the services see it: opened by options, digested for records.


def open_scan(
    folder: Path,
    *,
    positions: Path | None = None,
    options: "StitchFolderOptions | None" = None,
) -> Job[Acquisition]:
    """Open the frames of a scan with what the user says of it.

    Parameters
    ----------
    folder : pathlib.Path
        Frames folder, or one file of many pages.
    positions : pathlib.Path, optional
        Table of nominal positions, in place of the folder's own.
    options : StitchFolderOptions, optional
        Grid, order, overlap and pixel size override what the folder says.

    Returns
    -------
    Acquisition
        The frames, read when needed.

    Yields
    ------
    Progress
        While frames are opened.
    """
    from napari_semsr.io import open_frames

    yield Progress(0, 0, f"opening the frames of {folder.name}")
    names = ("grid", "order", "overlap", "pixel_size_nm")
    said = {} if options is None else {n: getattr(options, n) for n in names}
    return (yield from open_frames(folder, positions=positions, **said))


def _digest_scan(folder: Path, acquisition: Acquisition) -> str:
    """Digest the files of a scan: its frames and its tables."""
    if folder.is_file():
        return digest_path(folder)
    items = {p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")}
    items |= {folder / n for n in acquisition.names if (folder / n).exists()}
    digest = hashlib.sha256()
    for item in sorted(items):
        digest.update(item.relative_to(folder).as_posix().encode())
        digest.update(digest_path(item).encode())
    return f"sha256:{digest.hexdigest()}"


def _first_history(folder: Path, acquisition: Acquisition) -> Provenance | None:
    """History that the first frame itself carries, for all of them."""
    from napari_semsr.io import read

    path = folder if folder.is_file() else folder / acquisition.names[0]
    try:
        return read(path, plane=0).provenance
    except (SemsrError, OSError):
        return None


# A planned mosaic onto the disk: block by block, whole or not at all.
#
# Everything is written under hidden names beside the output, and renamed at the end, so
# that a run that fails or is cancelled leaves nothing.

_COVERAGE = "coverage"


@dataclass(frozen=True, slots=True)
class MosaicFile:
    """What is on the disk."""

    coverage: str  # Where the number of frames at each pixel is; 0 where there is none
    dtype: str  # Type of the grey values in the output
    clipped: int  # Covered pixels that had no place in that type


def _write_mosaic(
    plan: "FusionPlan", about: Micrograph, target: Path, *, dtype: str
) -> Job[MosaicFile]:
    """Compute a mosaic block by block and write it."""
    empty = 0

    def make(place: Path) -> OmeZarrStore:
        return store_of(about, place, shape=plan.shape, dtype=dtype)

    def fill(store: OmeZarrStore) -> Job[int]:
        return store.fill(blocks(store), "Fusing the mosaic")

    def blocks(store: OmeZarrStore) -> Iterator[NDArray[Any]]:
        nonlocal empty
        coverage = store.add_label(_COVERAGE)
        for box in store.boxes():
            image, count = plan.block(box)
            coverage[box.slices] = count
            empty += int(np.count_nonzero(count == 0))
            yield image
        store.finish_label(_COVERAGE, coverage)

    written = yield from write_blocks(target, make, fill)
    # what no frame covers is NaN, which an integer type has no place for
    lost = empty if np.dtype(dtype).kind in "ui" else 0
    return MosaicFile(
        str(label_path(target, _COVERAGE)), written.dtype, written.told - lost
    )


def _write_positions(
    path: Path, names: Sequence[str], corners: Sequence[tuple[float, float] | None]
) -> None:
    """Write solved top-left corners ``(y, x)`` in px; None leaves cells empty."""
    with replacing(path) as place, place.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["frame", "y_px", "x_px"])
        for name, corner in zip(names, corners, strict=True):
            cells = ("", "") if corner is None else (f"{v:.6f}" for v in corner)
            writer.writerow([name, *cells])


_METHODS = ("auto", "none")


class StitchFolderOptions(StitchOptions):
    """How a folder of frames becomes a calibrated mosaic."""

    pixel_size_nm: TypedSize = Field(
        default=None,
        description="pixel size in nm, one number or Y,X; overrides that of the scan",
    )
    dtype: Literal["float32", "float64", "uint8", "uint16"] = Field(
        default="float32",
        description="type of the grey values; integers are rounded and clipped, and "
        "hold 0 where no frame reaches",
    )

    @field_validator("grid", mode="before")
    @classmethod
    def _grid_of_text(cls, value: object) -> object:
        """Accept ``4x5`` as well as two numbers; an empty text is no grid."""
        if not isinstance(value, str):
            return value
        if not value.strip():
            return None
        parts = value.lower().replace("\N{MULTIPLICATION SIGN}", "x").split("x")
        try:
            rows, columns = (int(part) for part in parts)
        except ValueError:
            msg = "A grid is rows x columns, such as 4x5"
            raise ValueError(msg) from None
        return rows, columns


@dataclass(frozen=True, slots=True)
class StitchedFile(Result):
    """A mosaic that was written, and how its frames were placed.

    Attributes
    ----------
    output : str
        Path of the mosaic.
    coverage : str
        Path of the number of frames at each pixel.
    shape : tuple of int
        Rows and columns.
    dtype : str
        Type of the grey values in the output.
    pixel_size_nm : tuple of float or None
        ``(y, x)``, as stated, else as estimated from the stage.
    stage_pixel_size_nm : tuple of float or None
        Stage nanometres over solved pixels; None without such positions.
    frames : int
        Number of frames that the scan has.
    pairs_used, pairs_rejected : int
        Joints that the positions rest on, and those that were not believed.
    residual_px : float
        RMS residual of the joints in use.
    distortion : float
        Displacement at the rim over its radius that was taken back from every frame; 0
        where there is none beyond doubt, or was not to be.
    distortion_sd : float or None
        Its standard deviation; None where it was not measured.
    shading_percent : float
        What the flat field leaves, in % of the mean.
    warnings : tuple of str
        One sentence each.
    positions : tuple of dict
        ``frame, y_px, x_px`` of every frame; null where it was left out.
    left_out : tuple of Fault
        Frames that are not in the mosaic, and why.
    seconds : float
        Time that it took.
    frame_shape : tuple of int
        Rows and columns of a frame.
    solution : StitchSolution
        Joints, nominal positions, shading.
    provenance : Provenance
        Inputs, options, versions.
    """

    output: str
    coverage: str
    shape: tuple[int, int]
    dtype: str
    pixel_size_nm: tuple[float, float] | None
    stage_pixel_size_nm: tuple[float, float] | None
    frames: int
    pairs_used: int
    pairs_rejected: int
    residual_px: float
    distortion: float
    distortion_sd: float | None
    shading_percent: float
    warnings: tuple[str, ...]
    positions: tuple[dict[str, Any], ...]
    left_out: tuple[Fault, ...]
    seconds: float
    frame_shape: tuple[int, int] = field(metadata={"json": False})
    solution: "StitchSolution" = field(metadata={"json": False})
    provenance: Provenance = field(metadata={"json": False})


@dataclass(frozen=True, slots=True)
class _Request:
    """What was asked for, checked."""

    folder: Path
    target: Path
    table: Path | None
    positions_out: Path | None
    options: StitchFolderOptions

    @property
    def flat_path(self) -> Path | None:
        """Flat field file, where one is named."""
        named = self.options.flat_field
        return None if named in _METHODS else Path(named)


def stitch_job(
    folder: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    positions: str | os.PathLike[str] | None = None,
    positions_out: str | os.PathLike[str] | None = None,
    options: StitchFolderOptions | None = None,
    overwrite: bool = False,
) -> Job[StitchedFile]:
    """Join the frames of a folder to one calibrated mosaic.

    Parameters
    ----------
    folder : path
        Frames with an optional ``positions.csv`` and ``scan.json``, or one file of many
        pages.
    output : path
        Ends in ``.ome.zarr``, ``.ome.tif``, ``.tif`` or ``.png``.
    positions : path, optional
        Table of nominal positions, in place of the folder's own.
    positions_out : path, optional
        Receives the solved positions as a table.
    options : StitchFolderOptions, optional
        Grid, flat field, joints, blending.
    overwrite : bool, default=False
        Replace existing outputs.

    Returns
    -------
    StitchedFile
        What was written, where every frame lies, and what to know of it.

    Yields
    ------
    Progress
        Reading, comparing, placing, fusing.

    Raises
    ------
    ReadError, WriteError, OptionError, ShapeError, RegistrationError
        If frames cannot be read, joined, or the output not be made.
    """
    from napari_semsr.stitching import plan_fusion, solve_mosaic

    begun = time.monotonic()
    yield Progress(0, 0, "checking")
    request = _checked(
        _Request(
            Path(folder),
            Path(output),
            None if positions is None else Path(positions),
            None if positions_out is None else Path(positions_out),
            options or StitchFolderOptions(),
        ),
        overwrite=overwrite,
    )
    acquisition = yield from open_scan(
        request.folder, positions=request.table, options=request.options
    )
    flat, flat_record = _flat(request)
    yield Progress(0, 0, "recording the frames")
    provenance = _provenance(request, acquisition, flat_record)
    # the layout has been settled when the scan was opened
    settled = request.options.replace(grid=None, order=None, overlap=None)
    solution = yield from solve_mosaic(acquisition, settled, flat=flat)
    provenance = _with_distortion(provenance, solution)
    plan = plan_fusion(acquisition, solution, request.options)
    about = Micrograph(
        np.zeros((1, 1), np.float32),
        solution.pixel_size_nm,
        f"{acquisition.name} mosaic",
        provenance=provenance,
    )
    dtype = request.options.dtype
    written = yield from _write_mosaic(plan, about, request.target, dtype=dtype)
    placed = _placed(acquisition, solution)
    if request.positions_out is not None:
        _write_positions(request.positions_out, list(placed), list(placed.values()))
    return StitchedFile(
        output=str(request.target),
        coverage=written.coverage,
        shape=plan.shape,
        dtype=written.dtype,
        pixel_size_nm=solution.pixel_size_nm,
        stage_pixel_size_nm=solution.estimated_pixel_size_nm,
        frames=len(placed),
        pairs_used=solution.pairs_used,
        pairs_rejected=solution.pairs_rejected,
        residual_px=solution.residual_px,
        distortion=solution.distortion,
        distortion_sd=solution.distortion_sd,
        shading_percent=solution.shading_percent,
        warnings=_warnings(acquisition, solution, written),
        positions=tuple(_entry(name, at) for name, at in placed.items()),
        left_out=solution.left_out,
        seconds=time.monotonic() - begun,
        frame_shape=acquisition.frame_shape,
        solution=solution,
        provenance=provenance,
    )


def _checked(request: _Request, *, overwrite: bool) -> _Request:
    """Refuse outputs that cannot be made, or that would be taken for frames."""
    inputs = [
        path
        for path in (request.folder, request.table, request.flat_path)
        if path is not None
    ]
    if request.table is not None and request.options.grid is not None:
        msg = "Give --grid or --positions, not both."
        raise OptionError(msg)
    for what, path in (("mosaic", request.target), ("flat field", request.flat_path)):
        if path is not None and _is_among(path, request.folder):
            msg = (
                f"The {what} must not lie among the frames in {request.folder}, where "
                "it would be taken for one: choose a place outside that folder."
            )
            raise WriteError(msg)
    target = check_image_target(request.target, inputs=inputs, overwrite=overwrite)
    beside = label_path(target, _COVERAGE)
    if beside.parent == target.parent:
        check_image_target(beside, inputs=inputs, overwrite=overwrite)
    if request.positions_out is not None:
        check_target_file(
            request.positions_out,
            suffixes=(".csv",),
            inputs=[*inputs, request.folder / "positions.csv"],
            overwrite=overwrite,
        )
    return request


def _is_among(path: Path, folder: Path) -> bool:
    """Whether a file lies directly in a folder."""
    return path.absolute().parent.resolve() == folder.resolve()


def _flat(request: _Request) -> tuple[NDArray[Any] | None, tuple[InputRecord, ...]]:
    """Read the flat field, where it is a file."""
    path = request.flat_path
    if path is None:
        return None, ()
    image = open_image(path)
    return image.array(), (input_record(path, image, role="flat field"),)


def _provenance(
    request: _Request, acquisition: Acquisition, more: tuple[InputRecord, ...]
) -> Provenance:
    """Record what makes the mosaic."""
    frames = InputRecord(
        role="frames",
        name=request.folder.resolve().name,
        digest=_digest_scan(request.folder, acquisition),
        provenance=_first_history(request.folder, acquisition),
    )
    inputs: tuple[InputRecord, ...] = (frames, *more)
    if request.table is not None:
        digest = digest_path(request.table)
        record = InputRecord(role="positions", name=request.table.name, digest=digest)
        inputs = (*inputs, record)
    options = jsonable(request.options)
    if request.flat_path is not None:
        options["flat_field"] = request.flat_path.name
    return made_by("stitch", options, *inputs)


def _with_distortion(provenance: Provenance, solution: "StitchSolution") -> Provenance:
    """Record the distortion that was found and taken back."""
    if solution.distortion_sd is None or not solution.distortion:
        return provenance
    found = {
        "distortion": solution.distortion,
        "distortion_sd": solution.distortion_sd,
    }
    options = {**provenance.options, "found": found}
    return provenance.model_copy(update={"options": options})


def _placed(
    acquisition: Acquisition, solution: "StitchSolution"
) -> dict[str, tuple[float, float] | None]:
    """Solved corner of every frame by name, in the order of the folder."""
    found: dict[str, tuple[float, float] | None] = {
        name: (float(y), float(x)) if np.isfinite((y, x)).all() else None
        for name, (y, x) in zip(solution.names, solution.positions_px, strict=True)
    }
    found |= {f.frame: None for f in acquisition.faults if f.frame not in found}
    return {name: found[name] for name in sorted(found, key=natural_key)}


def _entry(name: str, at: tuple[float, float] | None) -> dict[str, Any]:
    """Say one position as the contract has it."""
    y, x = (None, None) if at is None else at
    return {"frame": name, "y_px": y, "x_px": x}


def _warnings(
    acquisition: Acquisition, solution: "StitchSolution", written: MosaicFile
) -> tuple[str, ...]:
    """Collect what the user must know."""
    said = [f"Frame {f.frame} is left out: {f.reason}." for f in acquisition.faults]
    said += solution.warnings
    if solution.pixel_size_nm is None:
        said.append(
            "The pixel size is unknown, so the mosaic is not calibrated: give "
            "--pixel-size-nm."
        )
    elif acquisition.pixel_size_nm is None:
        size = float(np.mean(solution.pixel_size_nm))
        said.append(
            f"No pixel size is stated: {size:.4g} nm follows from the stage alone."
        )
    if written.clipped:
        said.append(
            f"{written.clipped} pixels had no place in {written.dtype} and were "
            "clipped."
        )
    return tuple(said)
