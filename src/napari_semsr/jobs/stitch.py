"""Stitch a folder of frames into one calibrated mosaic.

`stitch` checks the outputs, follows a running scan if requested, opens the frames (at
each height, if there are several), records them, chooses the distortion to correct,
solves the positions, plans the mosaic, writes it block by block with its companions,
and reports. Below, functions stand in this order.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal
from unicodedata import normalize

import numpy as np
from pydantic import Field, field_validator

from napari_semsr import core, io, stitching
from napari_semsr.jobs import follow, images, verb

HEIGHT = "height"
"""Name of the height map: the height at which each pixel is sharpest."""
HALF = "half"
"""History key under which the name and frames of a half are recorded."""


class StitchFolderOptions(stitching.StitchOptions):
    """Options for stitching a folder of frames."""

    pixel_size_nm: io.TypedSize = Field(
        default=None,
        description="pixel size in nm, one number or Y,X; overrides that of the scan",
    )
    focus: Literal["max", "none"] = core.option(
        "none",
        "Heights",
        "max: combine the heights listed in heights.csv, each area from the "
        "sharpest one, with a map of heights; none: only the folder's own frames",
        choices={"all, where sharpest": "max", "the folder's frames": "none"},
        group="Frames",
    )
    pixel_size_sd_nm: io.TypedSize = Field(
        default=None,
        description="standard deviation of that pixel size in nm, as stated by a "
        "calibration",
    )
    # `_choose_distortion` replaces None before frames are solved
    distortion: float | Literal["auto", "none"] | None = Field(  # type: ignore[assignment]
        default=None,
        description="radial displacement at the rim, over the radius; auto: from the "
        "overlaps, corrected if significant; none; default: from the "
        "calibration, otherwise auto",
    )
    halves: bool = core.option(
        False,
        "Two halves for FRC",
        "also write two mosaics of half of the frames each, from which frc-map and "
        "frc measure the resolution; writing them takes as long as writing the mosaic",
        group="Mosaic",
    )
    known_distortion: core.FieldDistortion | None = Field(
        default=None, description="field distortion, according to a calibration"
    )
    databar_rows: int | None = core.option(
        None,
        "Data bar",
        "rows of data bar to remove from every frame, regardless of the headers",
        unit="rows",
        ge=0,
    )
    colour: Literal["refuse", "luminance"] = io.ReadOptions.model_fields["colour"]  # type: ignore[assignment]
    series: int | None = core.option(
        None,
        "Series",
        "image in frames with several, or scene of a CZI; the first is 0; default: "
        "all scenes, which must touch",
        ge=0,
    )
    channel: int | None = io.ReadOptions.model_fields["channel"]  # type: ignore[assignment]
    dtype: Literal["float32", "float64", "uint8", "uint16"] = Field(
        default="float32",
        description="dtype of the grey values; integers are rounded and clipped, and "
        "are 0 where there is no frame",
    )
    other_frames: Literal["refuse", "leave-out"] = Field(
        default="refuse",
        description="frames with another shape or dtype than most: reject the scan, "
        "or exclude them, as `follow` does",
    )
    follow: bool = core.option(
        False,
        description="follow a scan that is running: place and fuse each frame as it "
        "arrives; Ctrl-C, `until` or `idle` end it, and all frames are "
        "then solved again",
        user_only=True,
    )
    until: int | None = core.option(
        None,
        description="end `follow` after this many frames",
        user_only=True,
        when={"follow": [True]},
        ge=2,
    )
    idle: float | None = core.option(
        None,
        description="end `follow` after this time without a new frame, such as 8s or "
        "10min",
        user_only=True,
        metavar="TIME",
        when={"follow": [True]},
        gt=0,
    )

    @field_validator("idle", mode="before")
    @classmethod
    def _parse_idle_time(cls, value: object) -> object:
        return follow.parse_duration(value) if isinstance(value, str) else value

    corrections: stitching.Corrections | None = core.option(
        None,
        description="corrections by hand: overlaps to reject, frames to exclude or "
        "place, shifts to use instead",
        metavar="JSON",
    )

    @field_validator("corrections", mode="before")
    @classmethod
    def _read_corrections(cls, value: object) -> object:
        """Read the corrections from a file, if a path is given."""
        if isinstance(value, (str, PathLike)):
            return io.read_json_object(Path(value))
        return value

    @field_validator("grid", mode="before")
    @classmethod
    def _parse_grid(cls, value: object) -> object:
        """Parse a grid such as ``4x5``; an empty string means no grid."""
        if not isinstance(value, str):
            return value
        if not value.strip():
            return None
        parts = value.lower().replace("\N{MULTIPLICATION SIGN}", "x").split("x")
        try:
            rows, columns = (int(part) for part in parts)
        except ValueError:
            msg = "must be rows x columns, such as 4x5"
            raise ValueError(core.Message(msg, "wrong-type")) from None
        return rows, columns


_OF_USED = "(overlaps used)"


@dataclass(frozen=True, slots=True, kw_only=True)
class StitchedFile(images.Result):
    """Stitched mosaic and the positions of its frames.

    `coverage` is the path of the image of the number of frames at each pixel, `height`
    that of the map of the sharpest height in nm. `halves` has ``output, frames`` of
    each; `heights` ``folder, z_nm, y_px, x_px, scatter_px``, with the shift from the
    one that was solved, null if it was excluded; `positions` ``frame, y_px, x_px``
    of every frame, `position_sd_px` in the same order their standard deviations
    ``(y, x)``, null for a frame without a position. `pairs` are the overlaps that were
    compared, with the fields of `stitching.PairReport`; a `score` below
    `score_threshold` is not accepted. The pixel size is the recorded one,
    otherwise that estimated from the stage: stage nanometres over solved pixels.
    `pairs_used` are the overlaps that determine the positions; `residual_px` is the RMS
    distance between their shifts and the positions, weighted by information;
    `residual_median_px` and `residual_worst_px` are median and maximum, all null
    if the overlaps form no loop, as nothing can contradict them. The `pairs_rejected`
    overlaps that are not used are in none of these; `pairs` has the residual of each
    that is above chance, and the summary their number and the largest one. `distortion`
    is the displacement at the rim over the radius, as corrected in every frame; 0 if it
    is not significant or was not to be corrected. `dark_level` is the grey level
    without light that was subtracted, as given or as fitted. `stage_to_camera` has
    ``angle_deg, scale, shear`` of the map from stated positions to camera pixels: a
    step of the stage along x appears rotated by the angle, clockwise on the screen, and
    scaled; shear is the tangent of the deviation from a right angle. It is null
    without positions, and so are values that the frames do not determine.
    `remaining_shading_percent` is the RMS difference of corrected frames where they
    overlap in the mosaic, excluding noise, in % of the mean. If frames without
    positions could not be placed, `likely_grids` has ``grid, order, neighbours, of`` of
    those that match the overlaps: the number of `neighbours` that match, `of` all.
    """

    output: str
    coverage: Annotated[str, core.Quantity("Coverage")]
    height: Annotated[str | None, core.Quantity("Heights")]
    halves: tuple[dict[str, Any], ...]
    heights: tuple[dict[str, Any], ...]
    shape: core.IntPair
    dtype: Annotated[str, core.Quantity("Type")]
    pixel_size_nm: core.FloatPair | None
    pixel_size_sd_nm: core.FloatPair | None
    stage_pixel_size_nm: core.FloatPair | None
    frames: int
    pairs_used: int
    pairs_rejected: int
    residual_px: Annotated[
        float | None,
        core.Quantity("RMS residual", "px", ".3g", also="residual_nm", note=_OF_USED),
    ]
    residual_median_px: Annotated[
        float | None, core.Quantity("Median residual", "px", ".3g", note=_OF_USED)
    ]
    residual_worst_px: Annotated[
        float | None, core.Quantity("Worst residual", "px", ".3g", note=_OF_USED)
    ]
    distortion: float
    distortion_sd: float | None
    distortion_centre_px: core.FloatPair
    distortion_from: Literal["overlaps", "calibration", "option"] | None
    dark_level: float
    remaining_shading_percent: Annotated[
        float, core.Quantity("Remaining shading", "% of the mean", ".2g")
    ]
    stage_to_camera: dict[str, float | None] | None
    warnings: tuple[str, ...]
    positions: tuple[dict[str, Any], ...]
    position_sd_px: tuple[list[float] | None, ...]
    left_out: tuple[core.UnusedFrame, ...]
    likely_grids: tuple[dict[str, object], ...]
    pairs: tuple[dict[str, object], ...]
    score_threshold: float
    seconds: Annotated[float, core.Quantity("Time", "s", ".3g")]
    frame_shape: core.IntPair = field(metadata={"json": False})
    solution: "stitching.StitchSolution" = field(metadata={"json": False})
    scans: "_ScanSet" = field(metadata={"json": False}, repr=False)
    plan: "stitching.FusionPlan | stitching.FocusPlan" = field(
        metadata={"json": False}, repr=False
    )
    provenance: core.Provenance = field(metadata={"json": False})

    @property
    def corners(self) -> dict[str, core.FloatPair | None]:
        """Frame corners ``(y, x)`` in px by frame name; None for unplaced frames."""
        rows = ((item["frame"], item["y_px"], item["x_px"]) for item in self.positions)
        return {name: None if y is None else (y, x) for name, y, x in rows}

    @property
    def pixel_size(self) -> Annotated[str, core.Quantity("Pixel size")]:
        """Pixel size with its uncertainty, as text."""
        return core.describe_pixel_size(self.pixel_size_nm, self.pixel_size_sd_nm)

    @property
    def by_stage(self) -> Annotated[str | None, core.Quantity("Pixel size from stage")]:
        """Pixel size that the stage's positions imply, as text."""
        size = self.stage_pixel_size_nm
        return None if size is None else core.format_pixel_size(size)

    @property
    def verdict(self) -> str:
        """One-line quality assessment of the mosaic."""
        if not self.solution.has_sufficient_placement:
            return "too few to be reliable: see the warnings"
        if self.left_out:
            text = "check the frames left out, and the reasons"
        elif self.residual_median_px is None or self.residual_worst_px is None:
            text = "not verified: the overlaps form no loop"
        else:
            text = (
                f"residuals of the overlaps used: {self.residual_median_px:.2g} px "
                f"median, {self.residual_worst_px:.2g} px maximum"
            )
        pairs = self.solution.pairs
        for what, on in (("not refined", True), ("not used", False)):
            rest = [p for p in pairs if p.used is on and not (on and p.sigma_px > 0)]
            # other overlaps show nothing to compare
            known = [p.residual_px for p in rest if p.score > self.score_threshold]
            if worst := max(filter(np.isfinite, known), default=None):
                text += f"; {len(rest)} of {len(pairs)} overlaps {what}"
                text += f", up to {worst:.2g} px off"
        return text

    @property
    def placed_frames(
        self,
    ) -> Annotated[str, core.Quantity("Frames", verdict="verdict", large=True)]:
        """Number of placed frames, out of all frames."""
        return f"{self.frames - len(self.left_out)} of {self.frames} placed"

    @property
    def joints(self) -> Annotated[str, core.Quantity("Overlaps")]:
        """Numbers of overlaps used and rejected."""
        return f"{self.pairs_used} used, {self.pairs_rejected} rejected"

    @property
    def residual_nm(
        self,
    ) -> Annotated[float | None, core.Quantity("RMS residual", "nm", ".3g")]:
        """Residual in nm."""
        return _convert_to_nm(self.residual_px, self.pixel_size_nm)

    @property
    def stage_error_px(
        self,
    ) -> Annotated[
        float | None,
        core.Quantity("RMS stage error", "px", ".3g", also="stage_error_nm"),
    ]:
        """RMS distance of the frames from their nominal positions, if known."""
        stage = self.solution.stage
        has_both = stage is not None and self.solution.nominal_px is not None
        return float(stage.scatter_px) if stage is not None and has_both else None

    @property
    def stage_error_nm(
        self,
    ) -> Annotated[float | None, core.Quantity("RMS stage error", "nm", ".3g")]:
        """Error of the stage in nm."""
        return _convert_to_nm(self.stage_error_px, self.pixel_size_nm)

    @property
    def stage_axes(self) -> Annotated[str | None, core.Quantity("Stage to camera")]:
        """Orientation of the stage axes in the images, if positions are known."""
        axes = self.stage_to_camera
        if axes is None:
            return None
        angle, scale, shear = axes["angle_deg"], axes["scale"], axes["shear"]
        parts = [f"{angle:.2f}\N{DEGREE SIGN}"]
        parts += [] if scale is None else [f"scale {scale:.4f}"]
        parts += [] if shear is None else [f"shear {shear:.4f}"]
        return ", ".join(parts)

    def figures(self) -> dict[str, core.Figure]:
        """Return the figures, plus distortion, halves, heights and excluded frames."""
        share, sd = 100 * self.distortion, self.distortion_sd
        note = "at the rim"
        if self.distortion_from == "calibration" and sd is not None:
            note += ", by calibration"
        elif not share:
            note += ", none found"
        distortion = core.Figure("not measured")
        if sd is not None or share:
            error = None if sd is None else 100 * sd
            distortion = core.Figure(share, "%", ".3g", note, error)
        rows = {**core.get_declared_figures(self), "Distortion": distortion}
        for name, half in zip("ab", self.halves, strict=False):
            text = f"{half['output']} ({len(half['frames'])} frames)"
            rows[f"Half {name}"] = core.Figure(text)
        for item in self.heights:
            note = "left out"
            if item["y_px"] is not None:
                note = f"shifted by ({item['y_px']:+.2f}, {item['x_px']:+.2f}) px"
            figure = core.Figure(item["z_nm"], "nm", note=note)
            rows[f"Height {item['folder']}"] = figure
        for fault in self.left_out:
            rows[f"Left out: {fault.frame}"] = core.Figure(fault.reason)
        return rows


def _convert_to_nm(px: float | None, size: core.FloatPair | None) -> float | None:
    """Convert a distance to nm; None if the distance or pixel size is unknown."""
    if px is None or size is None or not np.isfinite(px):
        return None
    return px * float(np.mean(size))


@verb.command(title="frames, overlaps and blending", reads=False, resumes=True)
def stitch(
    run: verb.Run[StitchFolderOptions],
    folder: Annotated[
        str | Path,
        verb.FileInput(
            help="folder of frames, or one multi-page file",
            metavar="FRAMES_DIR",
        ),
    ],
    output: Annotated[
        Path,
        verb.Output(
            "file of the mosaic; its suffix sets the format",
            ending=".ome.zarr",
        ),
    ],
    *,
    options: StitchFolderOptions,
    positions: Annotated[
        str | Path | None,
        verb.FileInput(
            help="nominal top-left corners, header frame,y_px,x_px or "
            "frame,y_nm,x_nm, or those of Fiji (TileConfiguration.txt) or "
            "Micro-Manager (metadata.txt, .pos); none: positions are not used "
            "(default: a table in the folder, positions.csv first)",
            metavar="CSV",
        ),
    ] = None,
    positions_out: Annotated[
        Path | None,
        verb.Output(
            "write the solved positions as a table; .txt for Fiji's stitching",
            remade=True,
            metavar="CSV",
            ending=".csv",
            also=(".txt",),
        ),
    ] = None,
    again: "StitchedFile | None" = None,
) -> core.Job[StitchedFile]:
    """Stitch a folder of frames into one calibrated mosaic.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     scan = f"{folder}/scan"
    ...     made = semsr.simulate(
    ...         scan, phantom="particles", frames_grid=(1, 2), frame_px=64, overlap=0.4
    ...     )
    ...     mosaic = semsr.stitch(scan, f"{folder}/mosaic.ome.tif")
    >>> mosaic.frames, mosaic.pairs_used, mosaic.shape
    (2, 1, (71, 96))
    """
    table = None if positions is None else Path(positions)
    task = _Stitching(run, Path(folder), table, output, positions_out, again)
    _check_outputs(task)
    return _stitch_frames(task)


@dataclass(slots=True)
class _Stitching:
    """A scan to stitch: its folder, and where its mosaic and companions go."""

    run: verb.Run[StitchFolderOptions]
    folder: Path
    table: Path | None  # of positions
    target: Path
    positions_out: Path | None
    former: "StitchedFile | None"  # mosaic that this run corrects
    start: float = field(default_factory=time.monotonic)

    @property
    def options(self) -> StitchFolderOptions:
        """Options of the run; a scan that was followed changes them."""
        return self.run.options

    @property
    def height_path(self) -> Path | None:
        """Map of heights, if several are combined."""
        has_several = self.options.focus == "max"
        return io.get_companion_path(self.target, "height") if has_several else None

    @property
    def half_paths(self) -> tuple[Path, ...]:
        """Mosaics of half of the frames, if they are requested."""
        return io.get_half_paths(self.target) if self.options.halves else ()


def _check_outputs(task: _Stitching) -> None:
    """Raise an error for invalid outputs or outputs inside the frame folder."""
    table, target, folder = task.table, task.target, task.folder
    if task.options.grid is not None and table not in (None, io.NO_POSITIONS):
        msg = "Set `grid` or `positions`, not both."
        raise core.OptionError(msg, code="options-contradict")
    if task.options.focus == "max" and task.options.halves:
        msg = (
            "`halves` cannot be combined with `focus=max`, because halves need a "
            "single height: stitch the folder of one height with `halves`."
        )
        raise core.OptionError(msg, code="options-contradict")
    fields = list(_get_field_paths(task).values())
    for path in (target, *fields):
        if path.absolute().parent.resolve() == folder.resolve():
            msg = (
                f"{path.name} must not be in the frame folder {folder}, where it would "
                "be mistaken for a frame: choose another folder."
            )
            raise core.WriteError(msg, code="output-is-input")
    inputs = [folder, *fields, *([] if table is None else [table])]
    images.check_output_not_input(target, inputs)
    coverage = io.get_label_path(target, io.COVERAGE)
    labels = [coverage] if coverage.parent == target.parent else []
    for more in (*labels, task.height_path, *task.half_paths):
        if more is not None:
            verb.Output("").check_path(more, inputs, task.run.existing)
    if task.positions_out is not None:
        inputs.append(folder / "positions.csv")
        images.check_output_not_input(task.positions_out, inputs)


def _get_field_paths(task: _Stitching) -> dict[str, Path]:
    """Return the files of the flat field and the dark level, by option."""
    flat, dark = task.options.flat_field, task.options.dark
    paths = {} if flat in ("auto", "none") else {"flat_field": Path(flat)}
    return paths | ({"dark": Path(dark)} if isinstance(dark, str) else {})


def _follow_scan(task: _Stitching) -> core.Job[follow.FollowedScan | None]:
    """Follow a scan that is still running, if requested."""
    options = task.options
    if not options.follow:
        if task.run.existing.resume:
            # interrupted while, or after, following a scan: its frames already exist
            place, record = io.get_output_store_path(task.target, resume=True), None
            if io.is_live_mosaic(place):
                io.remove_target(place)
            else:
                record = io.read_store_state(place)[0]
            if record is not None and record.provenance is not None:
                left = record.provenance.options.get("other_frames", "refuse")
                task.run.options = options.replace(other_frames=left)
        return None
    if task.options.focus == "max":
        msg = (
            "Heights can be combined only after all have been acquired: omit `follow` "
            "or `focus`."
        )
        raise core.OptionError(msg, code="options-contradict")
    folder = follow.open_frame_folder(task.folder, task.table, options)
    outcome = yield from follow.follow_scan(
        folder,
        task.target,
        options,
        **_read_field_images(task)[0],
        until=options.until,
        idle_s=options.idle,
    )
    task.run.options = options.replace(other_frames="leave-out")
    task.run.existing = images.OverwritePolicy(overwrite=True, keep=True)
    return outcome


@dataclass(frozen=True, slots=True)
class _ScanSet:
    """Frames acquired at one or several heights."""

    folders: tuple[Path, ...]  # one for each height, ascending; none for one scan
    z_nm: tuple[float, ...]
    acquisitions: tuple[core.Acquisition, ...]
    number: int = 0  # index of the solved height
    power: int = 0  # exponent of 2; grey values are multiplied by this power

    @property
    def solved_scan(self) -> core.Acquisition:
        """Scan whose frame positions are computed."""
        return self.acquisitions[self.number]


@dataclass(frozen=True, slots=True)
class _DistortionCorrection:
    """Distortion to correct and its source."""

    options: StitchFolderOptions  # with a choice or a number for it
    # that of the calibration, at the rim of a frame
    measurement: core.FieldDistortion | None = None
    warnings: tuple[str, ...] = ()

    @property
    def field_distortion(self) -> core.FieldDistortion | None:
        """Calibrated distortion, if it is the one to correct."""
        return self.measurement if self.source == "calibration" else None

    @property
    def source(self) -> Literal["overlaps", "calibration", "option"] | None:
        """Source of the distortion."""
        distortion = self.options.distortion
        if isinstance(distortion, str):
            return "overlaps" if distortion == "auto" else None
        return "option" if distortion is not None else "calibration"


def _stitch_frames(task: _Stitching) -> core.Job[StitchedFile]:
    """Compute the frame positions and write the mosaic."""
    former = task.former
    outcome = yield from _follow_scan(task)
    with ExitStack() as stack:
        if outcome is not None:
            stack.callback(outcome.lock.release)
        scans = former.scans if former else (yield from _open_scans(task))
        acquisition, corrections = scans.solved_scan, task.options.corrections
        if corrections is not None:
            stitching.check_corrections(corrections, acquisition)
        field_images, records = _read_field_images(task, scans.power)
        yield core.Progress(0, 0, "recording the frames")
        provenance = yield from _create_provenance(task, scans, records)
        correction = _choose_distortion(task.options, acquisition.frame_shape)
        if former is not None:
            solution = former.solution.base or former.solution
        else:
            nominal = acquisition.nominal_corners()
            if nominal is not None:
                _check_one_image_per_place(acquisition, nominal)
            solution = yield from stitching.solve_mosaic(
                acquisition,
                # the layout was determined when the scan was opened
                correction.options.replace(
                    grid=None, order=None, first=None, overlap=None
                ),
                **field_images,
                field_distortion=correction.field_distortion,
            )
            if nominal is None:
                _check_one_image_per_place(
                    acquisition, solution.positions_px, may_be_repeated=True
                )
        if corrections is not None:
            solution = yield from stitching.correct_mosaic(solution, corrections)
        result = task, scans, solution, correction, provenance, outcome
        return (yield from _write_result(*result))


def _write_result(
    task: _Stitching,
    scans: _ScanSet,
    solution: "stitching.StitchSolution",
    correction: _DistortionCorrection,
    provenance: core.Provenance,
    outcome: follow.FollowedScan | None,
) -> core.Job[StitchedFile]:
    """Plan and write the mosaic with its companions, and describe the result."""
    acquisition = scans.solved_scan
    values = _get_estimated_values(task.options, acquisition, solution, correction)
    provenance = provenance.model_copy(update={"options": provenance.options | values})
    plan, shifts, halves = yield from _plan_mosaic(scans, solution, correction.options)
    about = core.Micrograph(
        np.zeros((1, 1), np.float32),
        solution.pixel_size_nm,
        f"{acquisition.name} mosaic",
        provenance=provenance,
    )
    written_file = yield from _write_mosaic(plan, halves, about, task, scans.power)
    focus = None
    if not scans.folders and provenance.optical_cut_off_nm() is not None:
        focus = images.create_focus_warning(images.open_image(task.target))
    corners = _index_corners(acquisition, solution)
    if task.positions_out is not None:
        images.write_positions(task.positions_out, corners)
    height, axes = task.height_path, solution.stage_to_camera
    errors = dict(zip(solution.names, solution.sigma_px.tolist(), strict=True))
    return StitchedFile(
        output=str(task.target),
        coverage=str(io.get_label_path(task.target, io.COVERAGE)),
        height=None if height is None else str(height),
        halves=tuple(
            {"output": str(path), "frames": list(half.frames)}
            for half, path in zip(halves, task.half_paths, strict=True)
        ),
        heights=tuple(
            {
                "folder": path.name,
                "z_nm": shift.z_nm,
                "y_px": shift.shift_px and shift.shift_px[0],
                "x_px": shift.shift_px and shift.shift_px[1],
                "scatter_px": shift.shift_px and shift.scatter_px,
            }
            for path, shift in zip(scans.folders, shifts, strict=True)
        ),
        shape=plan.shape,
        dtype=written_file.dtype,
        pixel_size_sd_nm=about.pixel_size_sd_nm,
        frames=len(corners),
        distortion_from=correction.source,
        warnings=(
            *_collect_warnings(scans, solution, correction, written_file, shifts),
            *(outcome.warnings(corners) if outcome else ()),
            *([focus] if focus else []),
        ),
        positions=tuple(
            {"frame": name, "y_px": at and at[0], "x_px": at and at[1]}
            for name, at in corners.items()
        ),
        position_sd_px=tuple(
            None if at is None else errors.get(name) for name, at in corners.items()
        ),
        **{name: getattr(solution, name) for name in _OF_SOLUTION},
        stage_pixel_size_nm=solution.estimated_pixel_size_nm,
        stage_to_camera=None if axes is None else axes.to_json(),
        likely_grids=tuple(item.to_json() for item in solution.grids),
        score_threshold=solution.threshold,
        pairs=tuple(
            asdict(pair)
            | {end: solution.names[getattr(pair, end)] for end in ("first", "second")}
            for pair in solution.pairs
        ),
        dark_level=float(np.ldexp(np.median(solution.flat.dark), -scans.power)),
        seconds=time.monotonic() - task.start,
        frame_shape=acquisition.frame_shape,
        solution=solution,
        scans=scans,
        plan=plan,
        provenance=provenance,
    )


def _open_scans(task: _Stitching) -> core.Job[_ScanSet]:
    """Open the frames of a scan, at each height if there are several."""
    if task.options.focus != "max":
        scan = yield from open_scan(
            task.folder, positions=task.table, options=task.options
        )
        scenes = scan.metadata.get(io.SCENES_KEY, 0)
        if scenes and scan.nominal_px is not None:
            msg = (
                f"{task.folder} has {scenes} scenes that are not all connected, "
                "so they do not form a single mosaic: choose one (`series`, 0 to "
                f"{scenes - 1})."
            )
            raise core.ReadError(msg, code="several-images")
        [in_float32], power = stitching.rescale_extreme_values([scan])
        return _ScanSet((), (), (in_float32,), power=power)
    heights = io.read_heights(task.folder)
    scans = []
    sentences: list[str] = []
    for folder, _ in heights:
        table = choose_height_table(folder, task.folder, task.table)
        job = open_scan(folder, positions=table, options=task.options)
        opening = core.map_progress(
            job, within=lambda: core.capture_warnings(sentences.append)
        )
        scans.append((yield from opening))
    core.warn_once(sentences, "heights")
    yield core.Progress(0, 0, "looking for the sharpest height")
    common = set(scans[0].names).intersection(*(scan.names for scan in scans))
    shapes = {scan.frame_shape for scan in scans}
    if len(shapes) > 1 or len(common) < 2:
        msg = (
            f"All heights must have the same frame names and shape; {len(common)} of "
            f"{len(scans[0])} names are common to all heights, and the shapes are "
            f"{', '.join((f'{y}x{x}' for y, x in sorted(shapes)))}."
        )
        raise core.ReadError(msg, code="frames-differ")
    kept_scans, power = stitching.rescale_extreme_values(
        [io.select_frames(scan, common) for scan in scans]
    )
    number = stitching.find_sharpest(kept_scans)
    kept_scans[number] = kept_scans[number].replace(name=task.folder.resolve().name)
    folders, z_nm = zip(*heights, strict=True)
    return _ScanSet(folders, z_nm, tuple(kept_scans), number, power)


def open_scan(
    folder: Path,
    *,
    positions: Path | None = None,
    options: "StitchFolderOptions | None" = None,
) -> core.Job[core.Acquisition]:
    """Open the frames of a scan with the user's options."""
    yield core.Progress(0, 0, f"opening the frames of {folder.name}")
    names = (*io.FRAMES_OPTIONS, "other_frames")
    values = {} if options is None else {n: getattr(options, n) for n in names}
    return (yield from io.open_frames(folder, positions=positions, **values))


def choose_height_table(folder: Path, top: Path, table: Path | None) -> Path | None:
    """Choose a height's position table: the given, its own or the shared one."""
    own, shared_table = folder / "positions.csv", top / "positions.csv"
    is_shared = table is None and not own.is_file() and shared_table.is_file()
    return shared_table if is_shared else table


def _read_field_images(
    task: _Stitching, power: int = 0
) -> tuple[dict[str, Any], list[core.InputRecord]]:
    """Read the flat field and the dark level, if given, and record their files.

    As the frames, their grey values are multiplied by 2 to this `power`.
    """
    arrays, records, dark = {}, [], task.options.dark
    for name, path in _get_field_paths(task).items():
        image, role = images.open_image(path), name.replace("_", " ")
        arrays[name] = np.ldexp(image.array(), power) if power else image.array()
        records.append(images.create_input_record(path, image, role=role))
    level = dark if isinstance(dark, int | float) else None
    level = None if level is None else float(np.ldexp(level, power))
    flat = arrays.get("flat_field")
    return {"flat": flat, "dark": arrays.get("dark", level)}, records


def _create_provenance(
    task: _Stitching, scans: _ScanSet, more: Sequence[core.InputRecord]
) -> core.Job[core.Provenance]:
    """Create the provenance of the mosaic."""
    former = task.former
    if former is not None:  # the frames that were solved
        update = {"options": _get_recorded_options(task)}
        return former.provenance.model_copy(update=update)
    folders = scans.folders or (task.folder,)
    inputs = []
    for folder, scan in zip(folders, scans.acquisitions, strict=True):
        record = core.InputRecord(
            role="frames",
            name=folder.resolve().name,
            digest=(yield from digest_scan(folder, scan)),
            provenance=scan.provenance,
            path=images.get_record_path(folder.resolve()),
        )
        inputs.append(record)
    inputs += more
    table = task.table
    if table is not None and table != io.NO_POSITIONS:
        inputs.append(images.record_file(table, "positions"))
    guides = []
    if task.options.focus == "max":
        path = task.folder.resolve() / io.HEIGHTS
        guides.append(images.record_file(path, "heights"))
    return images.compose_provenance(
        "stitch", _get_recorded_options(task), *inputs, guides=guides
    )


def digest_scan(folder: Path, acquisition: core.Acquisition) -> core.Job[str]:
    """Compute the digest of a scan's files: frames, metadata texts and tables."""
    if not acquisition.files:
        return (yield from io.digest_image_file(folder))
    whole, doing = hashlib.sha256(), f"hashing the frames of {folder.name}"
    # sorted regardless of how a disk stores names
    named_files = sorted(
        (Path(normalize("NFC", str(item.relative_to(folder)))), item)
        for item in acquisition.files
    )
    for number, (name, item) in enumerate(named_files, 1):
        whole.update(core.encode_path(name) + core.digest_path(item).encode())
        yield core.Progress(number, len(named_files), doing)
    return f"sha256:{whole.hexdigest()}"


_FOLLOWING = ("follow", "until", "idle")  # options without effect on the result


def _get_recorded_options(task: _Stitching) -> dict[str, object]:
    """Return the options to record in the history."""
    options: dict[str, object] = images.to_json_value(task.options)
    options |= {name: path.name for name, path in _get_field_paths(task).items()}
    # omitted, as in histories older than these options
    usual = {"other_frames": "refuse", "dark": None, "corrections": None}
    for name, value in [*options.items()]:
        if name in _FOLLOWING or (name in usual and value == usual[name]):
            del options[name]
    if task.table == io.NO_POSITIONS:
        options["positions"] = str(io.NO_POSITIONS)
    return options


# standard deviations; as for a distortion estimated from the overlaps
_BEYOND_DOUBT = 4.0


def _choose_distortion(
    options: StitchFolderOptions, shape: core.IntPair
) -> _DistortionCorrection:
    """Choose the distortion to correct for a given frame shape."""
    distortion, field_distortion = options.distortion, options.known_distortion
    if field_distortion is None or field_distortion.shape is None:
        shapeless = field_distortion and core.Message(
            f"The calibrated distortion of {field_distortion.amount:.4g} is not "
            "used, because the calibration does not record its image shape: "
            "calibrate again.",
            "calibration-incomplete",
        )
        if distortion is None:
            options = options.replace(distortion="auto")
        return _DistortionCorrection(options, None, (shapeless,) if shapeless else ())
    at_rim = field_distortion.adapt_to_shape(shape)
    about = f"{at_rim.amount:.4f} +- {at_rim.sd:.1g} at the rim of these frames"
    if isinstance(distortion, float):
        off = abs(distortion - at_rim.amount) > _BEYOND_DOUBT * at_rim.sd
        warning = core.Message(
            f"The distortion is set to {distortion:g}, but the calibration gives "
            f"{about}.",
            "distortion-contradicts",
        )
        return _DistortionCorrection(options, at_rim, (warning,) if off else ())
    if distortion is not None:
        return _DistortionCorrection(options, at_rim)
    picture, frame = (f"{y} x {x} px" for y, x in (field_distortion.shape, shape))
    if abs(at_rim.amount) > core.MAX_DISTORTION:
        msg = (
            f"The distortion calibrated on a {picture} image would be "
            f"{at_rim.amount:.2g} at the rim of {frame} frames: calibrate with an "
            "image of the frame size, or set `distortion=auto`."
        )
        raise core.OptionError(msg, code="distortion-too-large")
    beyond = core.Message(
        f"The {picture} calibration image does not reach the rim of the {frame} "
        "frames, where the distortion is extrapolated: calibrate with an image of "
        "the frame size.",
        "distortion-extrapolated",
    )
    return _DistortionCorrection(
        options, at_rim, (beyond,) if min(shape) > min(field_distortion.shape) else ()
    )


# Fraction of a frame, half of the error of a stage that is searched first: two places
# that are so close could not be told apart
_SAME_PLACE = 0.05
# Of the standard deviation; chosen: grey values of exposures repeat within percents
_SAME_LEVELS = 0.25


def _check_one_image_per_place(
    acquisition: core.Acquisition,
    corners: core.FloatArray,
    *,
    may_be_repeated: bool = False,
) -> None:
    """Raise `ReadError` if most places have several images, such as channels.

    With `may_be_repeated`, only if their grey values differ.
    """
    from scipy.spatial import KDTree

    placed = np.flatnonzero(np.isfinite(corners).all(axis=1))
    tree = KDTree(corners[placed] / np.array(acquisition.frame_shape))
    near = placed[tree.query_pairs(_SAME_PLACE, p=np.inf, output_type="ndarray")]
    all_pairs = len(placed) * (len(placed) - 1) // 2
    partners = np.bincount(near.ravel(), minlength=len(corners))
    # the images of one place are near each other, those of a dense scan form chains
    is_dense = 2 * np.count_nonzero(np.ptp(partners[near], axis=1)) > len(near)
    partners = partners[placed]
    is_alone = 2 * np.count_nonzero(partners) <= len(placed)
    if is_dense or len(near) == all_pairs or is_alone:
        return
    if may_be_repeated:
        levels = np.zeros((len(corners), 2))  # mean and standard deviation
        for index in np.unique(near).tolist():
            frame = acquisition.read(index)
            levels[index] = np.nanmean(frame), np.nanstd(frame)
        change = np.ptp(levels[near], axis=1).max(axis=1)
        differ = change > _SAME_LEVELS * levels[near, 1].max(axis=1)
        if 2 * np.count_nonzero(differ) <= len(near):
            return
    first, second = sorted(acquisition.names[index] for index in near[0])
    msg = (
        f"{acquisition.name} must have one image per position, but has {len(placed)} "
        f"images at {round(np.sum(1 / (1 + partners)))} positions, such as {first} and "
        f"{second}: pass a table (`positions`) with the frames of a single channel, or "
        "keep only these."
    )
    raise core.ReadError(msg, code="several-images")


def _get_estimated_values(
    options: StitchFolderOptions,
    acquisition: core.Acquisition,
    solution: "stitching.StitchSolution",
    correction: "_DistortionCorrection",
) -> dict[str, object]:
    """Return facts to record in the history: distortion, pixel-size source, instrument.

    Distortion and source only if they were estimated, not set.
    """
    values: dict[str, object] = {}
    if solution.distortion_sd is not None and solution.distortion:
        names = ("distortion", "distortion_sd", "distortion_centre_px")
        found = {name: getattr(solution, name) for name in names}
        values["found"] = found | {"distortion_from": correction.source}
    if solution.pixel_size_nm is not None and options.pixel_size_nm is None:
        how = "from the metadata of the frames"
        if acquisition.pixel_size_nm is None:
            how = "from the positions of the stage"
        elif acquisition.metadata.get("pixel_size_nm") is not None:
            how = "from scan.json"
        values[core.ORIGIN_KEY] = core.create_size_source(how, solution.pixel_size_nm)
    kind = core.find_instrument(acquisition.metadata)
    return values | ({} if kind is None else {core.INSTRUMENT_KEY: kind})


def _plan_mosaic(
    scans: _ScanSet, solution: "stitching.StitchSolution", options: StitchFolderOptions
) -> core.Job[
    tuple[
        "stitching.FusionPlan | stitching.FocusPlan",
        tuple["stitching.HeightShift", ...],
        tuple["stitching.MosaicHalfPlan", ...],
    ]
]:
    """Plan a single-height mosaic and its halves, or a mosaic of several heights."""
    if scans.folders:
        heights = scans.acquisitions, scans.z_nm, scans.number
        focus_plan, shifts = yield from stitching.plan_focus(
            *heights, solution, options
        )
        return focus_plan, shifts, ()
    plan = stitching.plan_fusion(scans.solved_scan, solution, options)
    job = stitching.plan_mosaic_halves(scans.solved_scan, solution, plan, options)
    return plan, (), (yield from job) if options.halves else ()


# Write a planned mosaic block by block, completely or not at all.
#
# Everything is written under hidden names next to the output and renamed at the end, so
# a failed or cancelled run leaves nothing, unless it can be resumed.


def _write_mosaic(
    plan: "stitching.FusionPlan | stitching.FocusPlan",
    halves: "tuple[stitching.MosaicHalfPlan, ...]",
    about: core.Micrograph,
    task: "_Stitching",
    power: int,
) -> core.Job[io.WrittenOutput[int]]:
    """Compute and write a mosaic block by block, with its height map or halves.

    Its grey values were multiplied by 2 to this `power`, which is undone. The result
    counts the covered pixels that did not fit the output dtype. Blocks of a corrected
    mosaic are copied if nothing in them moved.
    """
    copy_block = _create_block_copier(plan, task)
    dtype, existing = task.options.dtype, task.run.existing
    companions = list(_create_companions(plan, halves, about, task))

    def create_store(place: Path) -> io.OmeZarrStore:
        return existing.open_store(
            about, place, task.target, shape=plan.shape, dtype=dtype
        )

    def fill_store(store: io.OmeZarrStore) -> core.Job[int]:
        parts = [
            stack.enter_context(_open_companion_store(*one, task)) for one in companions
        ]
        for part in parts:
            store.mark_unfinished(part.pending_units())  # e.g. damaged ones
        uncovered_counts: list[int] = []  # pixels, by block

        def fuse_blocks() -> Iterator[core.RealArray]:
            coverage = store.add_label(io.COVERAGE)
            for unit in store.pending_units():
                box = store.box(*unit)
                block_copied = None if parts else copy_block(box)
                if block_copied is not None:
                    image, coverage[box.slices] = block_copied
                    yield image
                    continue
                image, count, *more = plan.compute_block(box)
                more += [np.ldexp(h.plan.compute_block(box)[0], -power) for h in halves]
                for part, values in zip(parts, more, strict=True):
                    part.level0[box.slices] = values
                    part.mark_done(*unit)
                coverage[box.slices] = count
                uncovered_counts.append(int(np.count_nonzero(count == 0)))
                yield np.ldexp(image, -power)
            store.finish_label(io.COVERAGE, coverage)

        clipped_count = yield from store.fill(fuse_blocks(), "Fusing the mosaic")
        for part in parts:
            if not part.is_complete:
                yield from part.finish()
        # uncovered pixels are NaN, which integer dtypes lack
        is_integer = np.dtype(dtype).kind in "ui"
        return clipped_count - (sum(uncovered_counts) if is_integer else 0)

    kept_store = existing.find_resumable_store(task.target)
    with ExitStack() as stack:  # renamed when all are complete
        return (
            yield from io.write_blocks(
                task.target, create_store, fill_store, kept_store=kept_store
            )
        )


_Block = tuple[core.RealArray, core.RealArray]  # of a mosaic and its coverage


def _create_block_copier(
    plan: "stitching.FusionPlan | stitching.FocusPlan", task: "_Stitching"
) -> Callable[[core.Box], "_Block | None"]:
    """Return a function that copies blocks and coverage from the existing mosaic.

    It returns None for a block in which a frame moved.
    """
    former = task.former
    if former is None or np.dtype(former.dtype).kind != "f":
        return lambda _: None  # in integers, clipped pixels are unknown
    before, (place, label) = former.plan, (Path(former.output), Path(former.coverage))
    if isinstance(before, stitching.FocusPlan) or isinstance(plan, stitching.FocusPlan):
        return lambda _: None
    old_mosaic = images.open_image(place) if place.exists() and label.exists() else None
    if old_mosaic is None or old_mosaic.provenance != former.provenance:
        return lambda _: None
    mosaic, counts = old_mosaic.data, images.open_image(label).data

    def copy_unchanged_block(box: core.Box) -> "_Block | None":
        if not plan.has_same_pixels(before, box):
            return None
        return np.asarray(mosaic[box.slices]), np.asarray(counts[box.slices])

    return copy_unchanged_block


def _create_companions(
    plan: "stitching.FusionPlan | stitching.FocusPlan",
    halves: "tuple[stitching.MosaicHalfPlan, ...]",
    about: core.Micrograph,
    task: "_Stitching",
) -> Iterator[tuple[core.Micrograph, Path, core.IntPair]]:
    """Yield each image written alongside the mosaic, with its path and shape."""
    history = about.provenance
    assert history is not None  # noqa: S101 - as it was created
    if task.height_path is not None and isinstance(plan, stitching.FocusPlan):
        height_map = about.replace(
            name=f"{about.name} height",
            provenance=history.model_copy(update={"part": HEIGHT}),
            look=core.DisplaySettings(
                limits=(plan.z_nm[0], plan.z_nm[-1]),
                colormap="viridis",
                colour_bar=True,
            ),
        )
        yield height_map, task.height_path, plan.shape
    for half, path in zip(halves, task.half_paths, strict=True):
        half_record = {"name": half.name, "frames": list(half.frames)}
        options = history.options | {HALF: half_record}
        half_image = about.replace(
            name=f"{about.name} half {half.name}",
            provenance=history.model_copy(update={"options": options}),
        )
        yield half_image, path, half.plan.shape


@contextmanager
def _open_companion_store(
    values: core.Micrograph, target: Path, shape: core.IntPair, task: "_Stitching"
) -> Iterator[io.OmeZarrStore]:
    """Open a store finalised or removed with the mosaic; empty pixels are NaN."""
    existing = task.run.existing
    # integers have no NaN
    dtype = np.result_type(task.options.dtype, np.float32)
    store_context = io.write_atomically(target)
    if (kept_store := existing.find_resumable_store(target)) is not None:
        store_context = io.finalise_store(kept_store, target)
    with io.convert_write_errors(target), store_context as place:
        store = existing.open_store(values, place, target, shape=shape, dtype=dtype)
        try:
            yield store
        except BaseException:
            if len(store.pending_units()) == store.done_marks.size:
                io.remove_target(place)
            raise


def _index_corners(
    acquisition: core.Acquisition, solution: "stitching.StitchSolution"
) -> dict[str, tuple[float, float] | None]:
    """Return the computed frame corners by frame name, in natural order."""
    corners: dict[str, tuple[float, float] | None] = {
        name: (float(y), float(x)) if np.isfinite((y, x)).all() else None
        for name, (y, x) in zip(solution.names, solution.positions_px, strict=True)
    }
    corners |= {f.frame: None for f in acquisition.faults if f.frame not in corners}
    return {name: corners[name] for name in sorted(corners, key=io.natural_sort_key)}


def _collect_warnings(
    scans: _ScanSet,
    solution: "stitching.StitchSolution",
    correction: _DistortionCorrection,
    written_file: io.WrittenOutput[int],
    shifts: Sequence["stitching.HeightShift"],
) -> Iterator[str]:
    """Yield the warnings about a mosaic."""
    yield from correction.warnings
    at_rim, error = correction.measurement, solution.distortion_sd
    if at_rim is not None and correction.source == "overlaps" and error is not None:
        # the overlaps may contradict a calibration that is not used
        doubt = _BEYOND_DOUBT * float(np.hypot(error, at_rim.sd))
        # largest distortion that counts as none
        doubt += 0 if solution.distortion else _BEYOND_DOUBT * error
        if abs(solution.distortion - at_rim.amount) > doubt:
            shown = f"{solution.distortion:.4f}" if solution.distortion else "none"
            yield core.Message(
                f"The distortion at the rim is {shown} +- {error:.1g} from the "
                f"overlaps, but {at_rim.amount:.4f} +- {at_rim.sd:.1g} from the "
                "calibration: check that the calibration used the same sphere and the "
                "same camera region.",
                "distortion-contradicts",
            )
    for fault in scans.solved_scan.faults:
        yield core.Message(
            f"Frame {fault.frame} is left out: {fault.reason}.", "frames-left-out"
        )
    yield from solution.warnings
    for folder, shift in zip(scans.folders, shifts, strict=True):
        if shift.shift_px is None:
            yield core.Message(
                f"Height {folder.name} is left out: it does not correlate with the "
                "sharpest height.",
                "heights-left-out",
            )
    if solution.pixel_size_nm is None:
        yield core.Message(
            "The pixel size is unknown, so the mosaic is not calibrated: set "
            "`pixel_size_nm`.",
            "pixel-size-missing",
        )
    elif scans.solved_scan.pixel_size_nm is None:
        yield core.Message(
            f"The frames have no pixel size: {np.mean(solution.pixel_size_nm):.4g} nm "
            "was estimated from the stage positions.",
            "pixel-size-from-stage",
        )
    if written_file.result:
        yield core.Message(
            f"{written_file.result} pixels were outside the range of "
            f"{written_file.dtype} and were clipped.",
            "clipped",
        )


_OF_SOLUTION = (
    *("pixel_size_nm", "pairs_used", "pairs_rejected", "left_out"),
    *("residual_px", "residual_median_px", "residual_worst_px"),
    *("distortion", "distortion_sd", "distortion_centre_px"),
    "remaining_shading_percent",
)


# What a replay needs to know of a scan and its mosaic.


def digest_folder(folder: Path, values: Mapping[str, object]) -> core.Job[str]:
    """Compute the digest of the scan in a folder, or of the scans at its heights."""
    options = StitchFolderOptions.from_history(values)
    path = values.get("positions")
    positions, digests = Path(str(path)) if path else None, []
    scans = {folder: positions}
    if options.focus == "max":
        digests.append(core.digest_path(folder / io.HEIGHTS))
        folders = [place for place, _ in io.read_heights(folder)]
        scans = {one: choose_height_table(one, folder, positions) for one in folders}
    for place, table in scans.items():
        scan = yield from open_scan(place, positions=table, options=options)
        digests.append((yield from digest_scan(place, scan)))
    return core.combine_digests(digests)


def get_part_paths(mosaic: Path) -> dict[str, Path]:
    """Return the paths of a mosaic's companion images, keyed by part."""
    halves = dict(zip(("half-a", "half-b"), io.get_half_paths(mosaic), strict=True))
    height = io.get_companion_path(mosaic, "height")
    coverage = io.get_label_path(mosaic, io.COVERAGE)
    return {**halves, HEIGHT: height, io.COVERAGE: coverage}
