"""The demonstration as a job, from an empty folder to the report."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np

from napari_semsr import training
from napari_semsr.analysis import (
    FrcResult,
    find_cut_off,
    measure_agreement,
    measure_frc,
)
from napari_semsr.core import (
    DB,
    Job,
    Micrograph,
    Options,
    Progress,
    Quantity,
    RealArray,
    SemsrError,
    WriteError,
    add_threshold_line,
    create_property,
    crop_to_box,
    get_error_code,
    get_software_versions,
    option,
)
from napari_semsr.demonstration.runs import (
    FILES,
    VIEW,
    WIENER,
    ImageComparison,
    StitchedScan,
    apply_wiener_filter,
    compute_rms,
    create_demo_plan,
    create_other_scan_options,
    create_scan_options,
    read_record,
)
from napari_semsr.io import read_transform
from napari_semsr.jobs import (
    ADAPTED_MODEL,
    FRC,
    REPLACING,
    SEM_IMAGE,
    AdaptationError,
    Output,
    Result,
    Results,
    Run,
    SharedArea,
    SimulateOptions,
    Verb,
    check_target_folder,
    create_shared_area,
    draw_held_out_images,
    execute,
    open_image,
    overwrite_image,
    to_json_value,
)
from napari_semsr.models import DEFAULT_MODEL, MOSAIC_MODEL
from napari_semsr.reporting import (
    choose_grey_limits,
    draw_image_png,
    draw_overlaps_png,
    draw_overlay_png,
    draw_plot_png,
    draw_position_errors_png,
    format_value,
    list_provenance,
    paste_frames,
    write_json,
    write_page,
)
from napari_semsr.stitching import PairReport, compute_valid_mask

_MINUTES = (1.0, 2.0, 4.0, 8.0, 16.0)  # tried in turn; slow or busy computers need more


class DemoOptions(Options):
    """Options for the demonstration."""

    frame_px: int = option(
        224,
        "Frame",
        "Side length of a superlens frame in px, with pixels of 20 nm.",
        unit="px",
        ge=144,
        le=512,
    )
    seed: int = option(
        0, "Seed", ("Seed for samples, stage errors, haze and noise."), ge=0
    )


@dataclass(frozen=True, slots=True)
class DemoResult(Result):
    """Report path, metrics, and images of the area on a common grid."""

    report: Annotated[str, Quantity("Report")]
    seconds: float
    frames: str  # folder of the simulated frames
    mosaic: str
    place_sem: str  # the SEM image on the grid of the mosaic
    enhanced: str  # result of the adapted model for the mosaic
    model: str
    figures: dict[str, Any]  # the figures on the page

    placed_frames = create_property(
        lambda result: "{placed} of {frames} placed".format(**result.figures["scan"]),
        "Frames",
    )
    # root mean square distances from the ground truth
    nominal = create_property(
        lambda result: result.figures["scan"]["nominal_error_px"],
        *("Error of nominal positions", "px", ".3g"),
    )
    solved = create_property(
        lambda result: result.figures["scan"]["solved_error_px"],
        *("Error of solved positions", "px", ".3g"),
    )
    resolved = create_property(
        lambda result: result.figures["mosaic"]["halves"]["resolution_nm"],
        *("Mosaic resolves", "nm", ".3g"),
    )
    # on the held-out part of the area, compared with the optical image
    gains = create_property(
        lambda result: _format_gains(result.figures["adapt"]["evaluated"]),
        "Held-out part, below the cut-off",
    )
    objects = create_property(
        lambda result: "; ".join(
            "{} {shown} of {objects} shown, {invented} of {drawn} invented".format(
                name, **evaluation["objects"]
            )
            for name, evaluation in result.figures["adapt"]["evaluated"].items()
        ),
        "Its objects",
    )
    elsewhere = create_property(
        lambda result: _format_gains(result.figures["elsewhere"]["versions"]),
        "Another relief, below the cut-off",
    )
    unlike = create_property(
        lambda result: result.figures["elsewhere"]["unfamiliar_percent"],
        *("Unlike the training area", "% of its area", ".0f"),
    )
    restoration_quality = create_property(
        lambda result: "; ".join(
            f"{name} {quality['psnr_db']:.2f} {DB}"
            for name, quality in result.figures["electron_image"]["versions"].items()
        ),
        "SEM image, PSNR",
    )

    @property
    def open_command(self) -> Annotated[str, Quantity("In napari")]:
        """Command that opens the images of the area in napari."""
        paths = self.mosaic, self.place_sem, self.enhanced
        return " ".join(["napari --plugin napari-semsr", *(f'"{p}"' for p in paths)])


def _format_gains(versions: Mapping[str, Any]) -> str:
    """Return the gain of each version over the first, as text."""
    _, *others = versions.items()
    return "; ".join(
        f"{name} {format_value(gain['gain_below_cutoff_db'], '+.2f')} {DB}"
        for name, gain in others
    )


def _run_demonstration(run: Run[DemoOptions]) -> Job[DemoResult]:
    """Run the steps that have no stored result, and write the report."""
    start = time.monotonic()
    settings = run.options
    yield Progress(0, 0, "checking")
    paths = _prepare_folder(run)
    options = create_scan_options(frame_px=settings.frame_px, seed=settings.seed)
    yield from _run_steps(run.required_target, paths["results"], options)
    yield Progress(0, 0, "writing the report")
    scan = StitchedScan.read(run.required_target, "mosaic", "scan", options)
    other = StitchedScan.read(
        run.required_target,
        "elsewhere",
        "elsewhere_scan",
        create_other_scan_options(options),
    )
    resolutions = yield from _measure_mosaic(scan, paths)
    place = _TrainingArea.read(scan, paths)
    overwrite_image(place.area.sem, paths["place_sem"])
    elsewhere = _compare_other_sample(other, paths, place)
    sem = _compare_sem(paths)
    figures = to_json_value(
        {
            "scan": scan.stitch_record
            | {
                "placed": int(scan.placement.has_place.sum()),
                "nominal_error_px": compute_rms(scan.placement.nominal_error_px),
                "solved_error_px": compute_rms(scan.placement.solved_error_px),
                "expected_error_px": compute_rms(scan.sigma_px),
            },
            "mosaic": {
                "halves": _get_pair_metrics(resolutions[0]),
                "truth": _get_pair_metrics(resolutions[1]),
            },
            "adapt": place.record,
            "elsewhere": _get_other_sample_metrics(elsewhere),
            "electron_image": {
                "versions": _get_version_metrics(sem.versions),
                "two_exposures": _get_pair_metrics(sem.exposures),
                "enhance": read_record(paths["sem_enhanced_record"]),
            },
            "options": settings.model_dump(mode="json"),
            "versions": get_software_versions(),
        }
    )
    write_json(paths["figures"], figures)
    write_page(
        paths["report"],
        Path(__file__).with_name("report.html"),
        **_draw_stitching(scan),
        **draw_held_out_images(
            {
                **place.planes,
                SEM_IMAGE: place.area.crop(place.area.held_out)[1].array(),
            },
            place.area.sem.pixel_size_nm,
            place.curve,
            place.record["held_out"],
        ),
        scan=scan,
        resolved=resolutions,
        correlations=_plot_correlations(resolutions, scan.mosaic.mean_pixel_size_nm),
        place=place.record,
        area=place.area,
        aligned=draw_overlay_png(
            place.area.light.array(),
            place.area.sem.array(),
            place.area.sem.pixel_size_nm,
            boxes={
                "trained on": place.area.training_box,
                "held out": place.area.held_out,
            },
        ),
        elsewhere=elsewhere,
        others=_draw_crops(elsewhere.versions, elsewhere.truth),
        sem=sem,
        restored=_draw_crops(sem.versions, sem.truth),
        paths=paths,
        enhanced=place.enhanced_files,
        provenance=list_provenance(figures["options"], _list_digests(place, paths)),
    )
    return DemoResult(
        report=str(paths["report"]),
        seconds=round(time.monotonic() - start, 2),
        frames=str(paths["scan"]),
        mosaic=str(paths["mosaic"]),
        place_sem=str(paths["place_sem"]),
        enhanced=str(place.enhanced_files[0]),
        model=str(paths["adapted"] / Path(place.record["model"]).name),
        figures=figures,
    )


def _run_steps(folder: Path, state: Path, options: SimulateOptions) -> Job[None]:
    """Run all steps, training for longer if a short training brings no gain."""
    for minutes in _MINUTES:
        plan, results = create_demo_plan(options, minutes), Results(state, folder)
        try:
            yield from execute(plan, folder, results)
        except AdaptationError as refused:
            if refused.reason != "no-gain" or minutes == _MINUTES[-1]:
                msg = (
                    f"The model cannot be trained on this sample: {refused} Use "
                    "another seed."
                )
                raise SemsrError(msg, code=get_error_code(refused)) from refused
        else:
            results.repeat_warnings("adapted")
            return


def get_demo_paths(folder: Path) -> dict[str, Path]:
    """Return the paths of the demonstration files, keyed by role."""
    return {role: folder / name for role, name in FILES.items()}


def _prepare_folder(run: Run[DemoOptions]) -> dict[str, Path]:
    """Create the output folders; raise an error if a path cannot be written."""
    paths = get_demo_paths(run.required_target)
    if run.existing.overwrite:
        paths["results"].unlink(missing_ok=True)
    elif not paths["results"].is_file():
        check_target_folder(run.required_target)
    for role in ("report", "figures", "results", "positions"):
        if paths[role].is_dir():
            msg = (
                f"{paths[role]} is a folder, but a file must be written to this "
                "path; move the folder."
            )
            raise WriteError(msg, code="output-is-folder")
    try:
        for place in sorted({path.parent for path in paths.values()}):
            place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        msg = (
            f"The folder {error.filename} cannot be created ({reason}); choose another "
            "folder."
        )
        raise WriteError(msg) from error
    for path in paths.values():
        if path.suffix in (".tif", ".zarr"):
            Output("").check_path(path, (), REPLACING)
    return paths


# Measurements of the files.


@dataclass(frozen=True, slots=True)
class _TrainingArea:
    """The area that the model was trained on, and its evaluation."""

    record: dict[str, Any]  # result of `adapt`
    area: SharedArea
    enhanced_files: list[Path]  # the mosaic, and that of the other sample
    planes: dict[str, RealArray]  # held-out part, matched to the SEM image
    curve: list[dict[str, object]]

    @classmethod
    def read(cls, scan: StitchedScan, paths: Mapping[str, Path]) -> Self:
        """Read the run folder, which may have been moved."""
        folder = paths["adapted"]
        record = read_record(folder / "report.json")
        enhanced_files = [
            folder / Path(one["output"]).name for one in record["applied"]
        ]
        sem = open_image(scan.folder / VIEW)
        stored_transform = read_transform(folder / "registration-1.json")
        area = create_shared_area(scan.mosaic, sem, stored_transform.transform)
        held_out = area.crop(area.held_out)[1]
        linear = folder / Path(record["linear"]).name
        images = (None, linear, paths["mosaic_untouched"], enhanced_files[0])
        planes = {}
        for name, path in zip(record["evaluated"], images, strict=True):
            image = scan.mosaic if path is None else open_image(path)
            plane = crop_to_box(crop_to_box(image, area.box), area.held_out)
            planes[name] = ImageComparison.from_image(plane, held_out).image.array()
        state = training.load_area_state(folder / "training.pt")
        return cls(record, area, enhanced_files, planes, state["curve"])


@dataclass(frozen=True, slots=True)
class _OtherSample:
    """Sample that differs from the training area: its mosaic and model outputs."""

    scan: StitchedScan
    versions: dict[str, ImageComparison]  # the mosaic, and the results of models
    truth: Micrograph  # its SEM image, on the mosaic's grid
    unfamiliar_percent: float | None

    def gains(self) -> dict[str, tuple[float | None, float | None]]:
        """Return the gain of each version over the mosaic below the cut-off, in dB."""
        first = next(iter(self.versions.values()))
        return {name: one.compute_gain(first) for name, one in self.versions.items()}


@dataclass(frozen=True, slots=True)
class _SemComparison:
    """Acquired SEM image and its restorations, compared with the ground truth."""

    versions: dict[str, ImageComparison]
    truth: Micrograph
    exposures: FrcResult  # correlation of two exposures


def _measure_mosaic(
    scan: StitchedScan, paths: Mapping[str, Path]
) -> Job[tuple[FrcResult, FrcResult]]:
    """Correlate the halves of a mosaic, and the mosaic with the simulated sample."""
    resolution = yield from FRC.job(paths["mosaic"])
    _, part, truth = scan.crop_with_ground_truth("truth/object.ome.tif")
    truth = truth.replace(data=truth.array() * np.float32(scan.options.full_scale))
    overwrite_image(truth, paths["mosaic_truth"])
    return resolution.result, measure_agreement(part, truth)


def _compare_other_sample(
    scan: StitchedScan, paths: Mapping[str, Path], place: _TrainingArea
) -> _OtherSample:
    """Compare the outputs of two models for a mosaic with the sample's SEM image."""
    box, part, truth = scan.crop_with_ground_truth("sem/sem.ome.tif")
    overwrite_image(truth, paths["elsewhere_sem"])
    images = {"mosaic": part}
    for name, path in (
        (MOSAIC_MODEL, paths["elsewhere_untouched"]),
        (ADAPTED_MODEL, place.enhanced_files[1]),
    ):
        images[name] = crop_to_box(open_image(path), box)
    cut_off, range_ = find_cut_off(scan.mosaic), float(np.ptp(truth.array()))
    versions = {
        name: ImageComparison.from_image(
            image, truth, data_range=range_, cut_off_nm=cut_off
        )
        for name, image in images.items()
    }
    return _OtherSample(
        scan, versions, truth, place.record["applied"][1]["unfamiliar_percent"]
    )


def _compare_sem(paths: Mapping[str, Path]) -> _SemComparison:
    """Compare an exposure and its restorations with the simulated specimen."""
    specimen, first, second, enhanced_image = (
        open_image(paths[f"sem_{name}"])
        for name in ("truth", "first", "second", "enhanced")
    )
    images = {
        "as taken": first,
        WIENER: apply_wiener_filter(first),
        DEFAULT_MODEL: enhanced_image,
    }
    versions = {
        name: ImageComparison.from_image(image, specimen, data_range=255.0)
        for name, image in images.items()
    }
    return _SemComparison(versions, specimen, measure_frc(first, second))


# Figures.


def _get_other_sample_metrics(run: _OtherSample) -> dict[str, object]:
    """Return the metrics of the sample that differs from the training area."""
    versions = _get_version_metrics(run.versions)
    for name, (gain, error) in run.gains().items():
        versions[name] |= {
            "gain_below_cutoff_db": gain,
            "gain_below_cutoff_sd_db": error,
        }
    return {
        "relief_nm": run.scan.options.relief_nm,
        "unfamiliar_percent": run.unfamiliar_percent,
        "versions": versions,
    }


def _get_version_metrics(
    versions: Mapping[str, ImageComparison],
) -> dict[str, dict[str, object]]:
    """Return PSNR and SSIM of each version."""
    return {
        name: {"psnr_db": one.metrics.psnr_db, "ssim": one.metrics.ssim}
        for name, one in versions.items()
    }


def _get_pair_metrics(result: FrcResult) -> dict[str, object]:
    """Return the measurements of an image pair."""
    names = ("resolution_nm", "interval_nm", "reason")
    return {name: getattr(result, name) for name in names}


# Figures. Their text is in the template of the page.

_FRAMES_SHOWN = 4  # frames on the page; chosen: one row
_WEAKEST = 5  # overlaps on the page; chosen: fit in one row
_JOINT_PX = 120  # side of an overlap's image; chosen: fits a row of them
_CROP_PX = 160  # side of a detail; chosen: single pixels are visible


def _draw_stitching(scan: StitchedScan) -> dict[str, object]:
    """Draw the frames, their positions and their position errors."""
    frames, mosaic, pixel = scan.frames, scan.mosaic.array(), scan.mosaic.pixel_size_nm
    solved_px, placement = scan.solved_px, scan.placement
    sample = np.linspace(0, len(frames) - 1, _FRAMES_SHOWN).round().astype(int)
    raw = {frames.names[i]: frames.read(int(i)) for i in sample}
    look: Any = {
        "limits": choose_grey_limits(np.stack([*raw.values()])),
        "width_px": 320,
    }

    nominal = np.where(placement.has_place[:, None], placement.nominal_px, np.nan)
    flat = open_image(scan.folder / "truth" / "flat.ome.tif").array()
    in_light, shape = compute_valid_mask(flat), mosaic.shape
    images = {
        "Raw, nominal positions": paste_frames(frames, nominal, in_light, shape),
        "Raw, solved positions": paste_frames(frames, solved_px, in_light, shape),
        "Mosaic": mosaic,
    }
    centres = solved_px + (np.array(frames.frame_shape) - 1) / 2
    number = {name: index for index, name in enumerate(frames.names)}
    pairs = [
        PairReport(**row | {end: number[row[end]] for end in ("first", "second")})
        for row in scan.stitch_record["pairs"]
    ]
    joints = [p for p in pairs if placement.has_place[[p.first, p.second]].all()]
    pairs_in_use = sorted((p for p in pairs if p.used), key=lambda p: p.quality)
    # around the overlap with the largest nominal error
    error = placement.nominal_px - solved_px
    ends = [(p.first, p.second) for p in pairs_in_use] or [(0, 0)]
    first, second = np.array(ends).T
    worst = int(np.nanargmax(np.hypot(*(error[second] - error[first]).T)))
    middle = (centres[first[worst]] + centres[second[worst]]) / 2
    window = _get_window(middle, scan.mosaic.shape, _JOINT_PX)
    before, after = placement.nominal_error_px, placement.solved_error_px

    def draw_images(box: Any) -> list[tuple[str, bytes]]:
        return [
            (name, draw_image_png(image[box], pixel, limits=choose_grey_limits(image)))
            for name, image in images.items()
        ]

    return {
        "frames": [(n, draw_image_png(i, pixel, **look)) for n, i in raw.items()],
        "laid": draw_images(...),
        "enlarged": draw_images(window),
        "joined": draw_overlaps_png(mosaic, centres, joints, pixel),
        "placed": int(placement.has_place.sum()),
        "quality": np.median([p.quality for p in pairs_in_use] or [np.nan]),
        "errors": [
            ("Nominal positions", compute_rms(before), np.nanmax(np.hypot(*before.T))),
            ("Solved positions", compute_rms(after), np.nanmax(np.hypot(*after.T))),
            ("Solved positions, expected error", compute_rms(scan.sigma_px), None),
        ],
        "pixel_nm": scan.mosaic.mean_pixel_size_nm or np.nan,
        "cloud": draw_position_errors_png(before, after),
        "weakest": pairs_in_use[:_WEAKEST],
        "stems": [name.rpartition(".")[0] or name for name in frames.names],
    }


def _draw_crops(
    versions: Mapping[str, ImageComparison], truth: Micrograph
) -> list[tuple[str, bytes]]:
    """Draw the centre of each version and of the ground truth, with common limits."""
    images = {name: one.image for name, one in versions.items()} | {"truth": truth}
    middle = np.array(truth.shape) // 2
    box = _get_window(middle, truth.shape, _CROP_PX)
    look: Any = {"limits": choose_grey_limits(truth.array()), "width_px": 400}
    return [
        (name, draw_image_png(image.array()[box], image.pixel_size_nm, **look))
        for name, image in images.items()
    ]


def _plot_correlations(
    resolutions: tuple[FrcResult, FrcResult], pixel_nm: float | None
) -> bytes:
    """Plot the mosaic's correlation, between its halves and with the ground truth."""
    names = "two halves of the frames", "mosaic and ground truth"
    lines = [
        resolution.create_line(name, colour)
        for colour, (name, resolution) in enumerate(
            zip(names, resolutions, strict=True), 1
        )
    ]
    over = [line.convert_to_per_um(pixel_nm) for line in add_threshold_line(lines)]
    return draw_plot_png(FRC.curves[0].combine(over, has_size=pixel_nm is not None))


def _list_digests(
    place: _TrainingArea, paths: Mapping[str, Path]
) -> Iterator[tuple[str, str | None]]:
    """Yield the digests of all images and models."""
    linear = paths["adapted"] / Path(place.record["linear"]).name
    for path in (paths["sem_enhanced"], linear):
        history = open_image(path).provenance
        if history is not None:
            if history.model_name:
                yield f"the model {history.model_name}", history.model_digest
            yield from ((item.name, item.digest) for item in history.inputs)


def _get_window(
    centre: Sequence[float] | RealArray, shape: tuple[int, int], side: int
) -> tuple[slice, slice]:
    """Return rows and columns of a square around a position, shifted into the image."""
    y, x = (
        int(min(max(0, middle - side // 2), max(0, size - side)))
        for middle, size in zip(centre, shape, strict=True)
    )
    return slice(y, y + side), slice(x, x + side)


DEMO = Verb(
    "demo",
    (),
    DemoOptions,
    DemoResult,
    _run_demonstration,
    title="samples and model",
    output=Output(
        "folder of the images and the report",
        name="folder",
        flag="",
        metavar="OUT_DIR",
        default="demo-output",
        ending="",
        grows=True,
    ),
    reads=False,
)
