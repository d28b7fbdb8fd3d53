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
    against_truth,
    code_of,
    cut_box,
    figure,
    option,
    software_versions,
    warn,
)
from napari_semsr.demonstration.runs import (
    FILES,
    VIEW,
    WIENER,
    Compared,
    StitchedScan,
    demo_plan,
    elsewhere_options,
    read_record,
    rms,
    scan_options,
    wiener,
)
from napari_semsr.io import read_transform
from napari_semsr.jobs import (
    ADAPTED_MODEL,
    DEFAULT_MODEL,
    FRC,
    MOSAIC_MODEL,
    REPLACING,
    AdaptRefused,
    CallRecord,
    Output,
    Result,
    Results,
    Run,
    SharedArea,
    SimulateOptions,
    Verb,
    check_target_folder,
    execute,
    held_out_pictures,
    jsonable,
    open_image,
    rewrite,
    share_area,
)
from napari_semsr.reporting import (
    errors_png,
    grey_limits,
    image_png,
    joints_png,
    lay_frames,
    making,
    overlay_png,
    plot_png,
    write_number,
    write_numbers,
    write_page,
)
from napari_semsr.stitching import PairReport, valid_mask

_MINUTES = (1.0, 2.0, 4.0, 8.0, 16.0)  # tried in turn; slow or busy computers need more


class DemoOptions(Options):
    """Options of the demonstration."""

    frame_px: int = option(
        224,
        "Frame",
        "Side of a superlens frame, in pixels of 20 nm.",
        unit="px",
        ge=144,
        le=512,
    )
    seed: int = option(0, "Seed", "Varies samples, stage errors, haze and noise.", ge=0)


@dataclass(frozen=True, slots=True)
class DemoResult(Result):
    """Path and figures of the report, and images of the area on one grid."""

    report: Annotated[str, Quantity("Report")]
    seconds: float
    frames: str  # folder of the simulated frames
    mosaic: str
    place_sem: str  # the SEM image on the grid of the mosaic
    enhanced: str  # result of the adapted model for the mosaic
    model: str
    figures: dict[str, Any]  # the figures on the page

    placed = figure(
        lambda result: "{placed} of {frames} placed".format(**result.figures["scan"]),
        "Frames",
    )
    # root mean square distances from the ground truth
    nominal = figure(
        lambda result: result.figures["scan"]["nominal_error_px"],
        *("Error of nominal positions", "px", ".3g"),
    )
    solved = figure(
        lambda result: result.figures["scan"]["solved_error_px"],
        *("Error of solved positions", "px", ".3g"),
    )
    resolved = figure(
        lambda result: result.figures["mosaic"]["halves"]["resolution_nm"],
        *("Mosaic resolves", "nm", ".3g"),
    )
    # on the held-out part of the area, compared with the optical image
    gains = figure(
        lambda result: _gains(result.figures["adapt"]["evaluated"]),
        "Held-out part, below the cut-off",
    )
    objects = figure(
        lambda result: _objects(result.figures["adapt"]["evaluated"]), "Its objects"
    )
    elsewhere = figure(
        lambda result: _gains(result.figures["elsewhere"]["versions"]),
        "Another relief, below the cut-off",
    )
    unlike = figure(
        lambda result: result.figures["elsewhere"]["unfamiliar_percent"],
        *("Unlike the training area", "% of its area", ".0f"),
    )
    restored = figure(
        lambda result: "; ".join(
            f"{name} {found['psnr_db']:.2f} {DB}"
            for name, found in result.figures["electron_image"]["versions"].items()
        ),
        "SEM image, PSNR",
    )

    @property
    def opened(self) -> Annotated[str, Quantity("In napari")]:
        """Command that opens the images of the area in napari."""
        paths = self.mosaic, self.place_sem, self.enhanced
        return " ".join(["napari --plugin napari-semsr", *(f'"{p}"' for p in paths)])


def _gains(versions: Mapping[str, Any]) -> str:
    """Return the gain of each version over the first."""
    _, *others = versions.items()
    return "; ".join(
        f"{name} {write_number(gain['gain_below_cutoff_db'], '+.2f')} {DB}"
        for name, gain in others
    )


def _objects(versions: Mapping[str, Any]) -> str:
    """Return how many objects each version shows and invents."""
    return "; ".join(
        "{} {shown} of {objects} shown, {invented} of {drawn} invented".format(
            name, **objects["objects"]
        )
        for name, objects in versions.items()
    )


def _demonstrate(run: Run[DemoOptions]) -> Job[DemoResult]:
    """Run the steps that have no result yet, and write the page."""
    start = time.monotonic()
    settings = run.options
    yield Progress(0, 0, "checking")
    paths = _prepare_folder(run)
    options = scan_options(frame_px=settings.frame_px, seed=settings.seed)
    adapted = (yield from _run_steps(run.place, paths["results"], options))["adapted"]
    for sentence, code in zip(adapted.warnings, adapted.codes, strict=True):
        warn(sentence, code)
    yield Progress(0, 0, "writing the report")
    scan = StitchedScan.read(run.place, "mosaic", "scan", options)
    other = StitchedScan.read(
        run.place, "elsewhere", "elsewhere_scan", elsewhere_options(options)
    )
    resolutions = yield from _measure_mosaic(scan, paths)
    place = _Place.read(scan, paths)
    rewrite(place.area.sem, paths["place_sem"])
    elsewhere = _compare_elsewhere(other, paths, place)
    sem = _compare_sem(paths)
    figures = jsonable(
        {
            "scan": scan.stitched | _errors_of(scan),
            "mosaic": {
                "halves": _of_pair(resolutions[0]),
                "truth": _of_pair(resolutions[1]),
            },
            "adapt": place.record,
            "elsewhere": _elsewhere_figures(elsewhere),
            "electron_image": {
                "versions": _versions(sem.versions),
                "two_exposures": _of_pair(sem.exposures),
                "enhance": read_record(paths["sem_enhanced_record"]),
            },
            "options": settings.model_dump(mode="json"),
            "versions": software_versions(),
        }
    )
    write_numbers(paths["figures"], figures)
    write_page(
        paths["report"],
        Path(__file__).with_name("report.html"),
        **_stitching(scan),
        **held_out_pictures(
            place.area,
            place.planes,
            place.curve,
            place.record["held_out"]["linear_gain_db"],
        ),
        scan=scan,
        resolved=resolutions,
        correlations=_correlations(resolutions, scan.mosaic.mean_pixel_size_nm),
        place=place.record,
        area=place.area,
        aligned=_show_alignment(place.area),
        elsewhere=elsewhere,
        others=_crops(elsewhere.versions, elsewhere.truth),
        sem=sem,
        restored=_crops(sem.versions, sem.truth),
        paths=paths,
        enhanced=place.enhanced,
        provenance=making(figures["options"], _digests(place, paths)),
    )
    return DemoResult(
        report=str(paths["report"]),
        seconds=round(time.monotonic() - start, 2),
        frames=str(paths["scan"]),
        mosaic=str(paths["mosaic"]),
        place_sem=str(paths["place_sem"]),
        enhanced=str(place.enhanced[0]),
        model=str(paths["adapted"] / Path(place.record["model"]).name),
        figures=figures,
    )


def _run_steps(
    folder: Path, state: Path, options: SimulateOptions
) -> Job[dict[str, CallRecord]]:
    """Run all steps; train longer if a short training gains nothing."""
    for minutes in _MINUTES:
        plan, results = demo_plan(options, minutes), Results(state, folder)
        try:
            return (yield from execute(plan, folder, results))
        except AdaptRefused as refused:
            if refused.reason != "no-gain" or minutes == _MINUTES[-1]:
                msg = f"This sample cannot be trained on: {refused} Use another seed."
                raise SemsrError(msg, code=code_of(refused)) from refused
    raise AssertionError


def demo_paths(folder: Path) -> dict[str, Path]:
    """Return the paths that the demonstration writes, by role."""
    return {role: folder / name for role, name in FILES.items()}


def _prepare_folder(run: Run[DemoOptions]) -> dict[str, Path]:
    """Raise an error if a folder cannot be written, before any computation."""
    paths = demo_paths(run.place)
    if run.existing.overwrite:
        paths["results"].unlink(missing_ok=True)
    elif not paths["results"].is_file():
        check_target_folder(run.place)
    for role in ("report", "figures", "results", "positions"):
        if paths[role].is_dir():
            msg = (
                f"{paths[role]} is a folder, but a file must be written there: move it."
            )
            raise WriteError(msg, code="output-is-folder")
    try:
        for place in sorted({path.parent for path in paths.values()}):
            place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        msg = f"{error.filename} cannot be made a folder ({reason}): choose another."
        raise WriteError(msg) from error
    for path in paths.values():
        if path.suffix in (".tif", ".zarr"):
            Output("").check(path, (), REPLACING)
    return paths


# Measurements of the files.


@dataclass(frozen=True, slots=True)
class _Place:
    """The area that the model was trained on, and its evaluation."""

    record: dict[str, Any]  # result of `adapt`
    area: SharedArea
    enhanced: list[Path]  # the mosaic, and that of the other sample
    planes: dict[str, RealArray]  # held-out part, matched to the SEM image
    curve: list[dict[str, object]]

    @classmethod
    def read(cls, scan: StitchedScan, paths: Mapping[str, Path]) -> Self:
        """Read the folder of the run, which may have been moved."""
        folder = paths["adapted"]
        record = read_record(folder / "report.json")
        enhanced = [folder / Path(one["output"]).name for one in record["applied"]]
        sem = open_image(scan.folder / VIEW)
        stored = read_transform(folder / "registration-1.json")
        area = share_area(scan.mosaic, sem, stored.transform)
        held_out = area.part(area.held_out)[1]
        linear = folder / Path(record["linear"]).name
        images = (None, linear, paths["mosaic_untouched"], enhanced[0])
        planes = {}
        for name, path in zip(record["evaluated"], images, strict=True):
            image = scan.mosaic if path is None else open_image(path)
            plane = cut_box(cut_box(image, area.box), area.held_out)
            planes[name] = Compared.of(plane, held_out).image.array()
        state = training.load_place_state(folder / "training.pt")
        return cls(record, area, enhanced, planes, state["curve"])


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """A sample unlike the training area: its mosaic and the results of models."""

    scan: StitchedScan
    versions: dict[str, Compared]  # the mosaic, and the results of models
    truth: Micrograph  # its SEM image, on the mosaic's grid
    unfamiliar_percent: float | None

    def gains(self) -> dict[str, tuple[float | None, float | None]]:
        """Return each gain over the mosaic below the optical cut-off, in dB."""
        first = next(iter(self.versions.values()))
        return {name: one.gain_over(first) for name, one in self.versions.items()}


@dataclass(frozen=True, slots=True)
class _Sem:
    """An SEM image as acquired and as restored, compared with the ground truth."""

    versions: dict[str, Compared]
    truth: Micrograph
    exposures: FrcResult  # correlation of two exposures


def _measure_mosaic(
    scan: StitchedScan, paths: Mapping[str, Path]
) -> Job[tuple[FrcResult, FrcResult]]:
    """Correlate the halves of a mosaic, and the mosaic with the simulated sample."""
    resolution = yield from FRC.job(paths["mosaic"])
    _, part, truth = scan.truth_below("truth/object.ome.tif")
    truth = truth.replace(data=truth.array() * np.float32(scan.options.full_scale))
    rewrite(truth, paths["mosaic_truth"])
    return resolution.result, measure_agreement(part, truth)


def _compare_elsewhere(
    scan: StitchedScan, paths: Mapping[str, Path], place: _Place
) -> _Elsewhere:
    """Compare the results of two models for a mosaic with the sample's SEM image."""
    box, part, truth = scan.truth_below("sem/sem.ome.tif")
    rewrite(truth, paths["elsewhere_sem"])
    images = {"mosaic": part}
    for name, path in (
        (MOSAIC_MODEL, paths["elsewhere_untouched"]),
        (ADAPTED_MODEL, place.enhanced[1]),
    ):
        images[name] = cut_box(open_image(path), box)
    cut_off, range_ = find_cut_off(scan.mosaic), float(np.ptp(truth.array()))
    versions = {
        name: Compared.of(image, truth, data_range=range_, cut_off_nm=cut_off)
        for name, image in images.items()
    }
    return _Elsewhere(
        scan, versions, truth, place.record["applied"][1]["unfamiliar_percent"]
    )


def _compare_sem(paths: Mapping[str, Path]) -> _Sem:
    """Compare an exposure, and images restored from it, with the simulated specimen."""
    specimen, first, second, enhanced = (
        open_image(paths[f"sem_{name}"])
        for name in ("truth", "first", "second", "enhanced")
    )
    images = {"as taken": first, WIENER: wiener(first), DEFAULT_MODEL: enhanced}
    versions = {
        name: Compared.of(image, specimen, data_range=255.0)
        for name, image in images.items()
    }
    return _Sem(versions, specimen, measure_frc(first, second))


# Figures.


def _errors_of(scan: StitchedScan) -> dict[str, object]:
    """Return how many frames are placed, and the errors of their positions."""
    placement = scan.placement
    return {
        "placed": int(placement.placed.sum()),
        "nominal_error_px": rms(placement.nominal_error_px),
        "solved_error_px": rms(placement.solved_error_px),
        "expected_error_px": rms(scan.sigma_px),
    }


def _elsewhere_figures(run: _Elsewhere) -> dict[str, object]:
    """Return figures of the sample that is unlike the training area."""
    versions = _versions(run.versions)
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


def _versions(versions: Mapping[str, Compared]) -> dict[str, dict[str, object]]:
    """Return PSNR and SSIM of each version."""
    return {
        name: {"psnr_db": one.metrics.psnr_db, "ssim": one.metrics.ssim}
        for name, one in versions.items()
    }


def _of_pair(result: FrcResult) -> dict[str, object]:
    """Return the measurements of a pair of images."""
    names = ("resolution_nm", "interval_nm", "reason")
    return {name: getattr(result, name) for name in names}


# Figures. Their text is in the template of the page.

_FRAMES_SHOWN = 4  # frames on the page; chosen: one row
_WEAKEST = 5  # overlaps on the page; chosen: fit in one row
_JOINT_PX = 120  # side of an overlap's image; chosen: fits a row of them
_CROP_PX = 160  # side of a detail; chosen: single pixels are visible


def _stitching(scan: StitchedScan) -> dict[str, object]:
    """Draw frames, their positions, and how certain these are."""
    frames, mosaic, pixel = scan.frames, scan.mosaic.array(), scan.mosaic.pixel_size_nm
    solved, placement = scan.solved_px, scan.placement
    sample = np.linspace(0, len(frames) - 1, _FRAMES_SHOWN).round().astype(int)
    raw = {frames.names[i]: frames.read(int(i)) for i in sample}
    look: Any = {"limits": grey_limits(np.stack([*raw.values()])), "width_px": 320}

    nominal = np.where(placement.placed[:, None], placement.nominal_px, np.nan)
    flat = open_image(scan.folder / "truth" / "flat.ome.tif").array()
    in_light, shape = valid_mask(flat), mosaic.shape
    images = {
        "Raw, nominal positions": lay_frames(frames, nominal, in_light, shape),
        "Raw, solved positions": lay_frames(frames, solved, in_light, shape),
        "Mosaic": mosaic,
    }
    centres = solved + (np.array(frames.frame_shape) - 1) / 2
    number = {name: index for index, name in enumerate(frames.names)}
    pairs = [
        PairReport(**row | {end: number[row[end]] for end in ("first", "second")})
        for row in scan.stitched["pairs"]
    ]
    joints = [p for p in pairs if placement.placed[[p.first, p.second]].all()]
    pairs_in_use = sorted((p for p in pairs if p.used), key=lambda p: p.quality)
    worst = _worst_joint(scan, pairs_in_use, centres)
    before, after = placement.nominal_error_px, placement.solved_error_px

    def draw_part(box: Any) -> list[tuple[str, bytes]]:
        return [
            (name, image_png(image[box], pixel, limits=grey_limits(image)))
            for name, image in images.items()
        ]

    return {
        "frames": [(n, image_png(i, pixel, **look)) for n, i in raw.items()],
        "laid": draw_part(...),
        "enlarged": draw_part(worst),
        "joined": joints_png(mosaic, centres, joints, pixel),
        "placed": int(placement.placed.sum()),
        "quality": np.median([p.quality for p in pairs_in_use] or [np.nan]),
        "errors": [
            ("Nominal positions", rms(before), np.nanmax(np.hypot(*before.T))),
            ("Solved positions", rms(after), np.nanmax(np.hypot(*after.T))),
            ("Solved positions, expected error", rms(scan.sigma_px), None),
        ],
        "pixel_nm": scan.mosaic.mean_pixel_size_nm or np.nan,
        "cloud": errors_png(before, after),
        "weakest": pairs_in_use[:_WEAKEST],
        "stems": [name.rpartition(".")[0] or name for name in frames.names],
    }


def _worst_joint(
    scan: StitchedScan, pairs: Sequence[PairReport], centres: RealArray
) -> tuple[slice, slice]:
    """Return rows and columns around the overlap with the largest nominal error."""
    error = scan.placement.nominal_px - scan.solved_px
    first, second = np.array([(p.first, p.second) for p in pairs] or [(0, 0)]).T
    worst = int(np.nanargmax(np.hypot(*(error[second] - error[first]).T)))
    middle = (centres[first[worst]] + centres[second[worst]]) / 2
    return _window(middle, scan.mosaic.shape, _JOINT_PX)


def _crops(
    versions: Mapping[str, Compared], truth: Micrograph
) -> list[tuple[str, bytes]]:
    """Draw the centre of all versions and of the ground truth, in its grey levels."""
    images = {name: one.image for name, one in versions.items()} | {"truth": truth}
    middle = np.array(truth.shape) // 2
    box = _window(middle, truth.shape, _CROP_PX)
    look: Any = {"limits": grey_limits(truth.array()), "width_px": 400}
    return [
        (name, image_png(image.array()[box], image.pixel_size_nm, **look))
        for name, image in images.items()
    ]


def _correlations(
    resolutions: tuple[FrcResult, FrcResult], pixel_nm: float | None
) -> bytes:
    """Plot the mosaic's correlation, between its halves and with the ground truth."""
    names = "two halves of the frames", "mosaic and ground truth"
    lines = [
        resolution.line(name, colour)
        for colour, (name, resolution) in enumerate(
            zip(names, resolutions, strict=True), 1
        )
    ]
    over = [line.over_um(pixel_nm) for line in against_truth(lines)]
    return plot_png(FRC.curves[0].combine(over, has_size=pixel_nm is not None))


def _show_alignment(area: SharedArea) -> bytes:
    """Draw the optical image over the SEM image, with both parts outlined."""
    return overlay_png(
        area.light.array(),
        area.sem.array(),
        area.sem.pixel_size_nm,
        boxes={"trained on": area.training_box, "held out": area.held_out},
    )


def _digests(
    place: _Place, paths: Mapping[str, Path]
) -> Iterator[tuple[str, str | None]]:
    """Yield the digests of all images and models."""
    linear = paths["adapted"] / Path(place.record["linear"]).name
    for path in (paths["sem_enhanced"], linear):
        history = open_image(path).provenance
        if history is not None:
            if history.model_name:
                yield f"the model {history.model_name}", history.model_digest
            yield from ((item.name, item.digest) for item in history.inputs)


def _window(
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
    _demonstrate,
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
