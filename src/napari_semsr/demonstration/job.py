"""The demonstration as a job, from an empty folder to the report."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.analysis import FrcResult
from napari_semsr.core import (
    DB,
    Job,
    Micrograph,
    Options,
    Progress,
    Quantity,
    WriteError,
    against_truth,
    figure,
    option,
    software_versions,
)
from napari_semsr.demonstration.runs import (
    Compared,
    ElsewhereRun,
    ScanRun,
    SemRun,
    measure_mosaic,
    rms,
    run_elsewhere,
    run_place,
    run_scan,
    run_sem,
    scan_options,
)
from napari_semsr.jobs import (
    FRC,
    REPLACING,
    Adapted,
    Output,
    Result,
    Run,
    StitchFolderOptions,
    Verb,
    fit_in_process,
    held_out_pictures,
    jsonable,
    rewrite,
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

_FILES = {
    "report": "report.html",
    "figures": "figures.json",
    "scan": "scan",
    "mosaic": "mosaic/mosaic.ome.zarr",
    "mosaic_truth": "mosaic/truth.ome.tif",
    "positions": "mosaic/solved-positions.csv",
    "place_sem": "mosaic/sem.ome.tif",
    "adapted": "adapted",
    "elsewhere_scan": "elsewhere/scan",
    "elsewhere": "elsewhere/other-relief.ome.zarr",
    "elsewhere_untouched": "elsewhere/ssum-sem.ome.zarr",
    "elsewhere_sem": "elsewhere/sem.ome.tif",
    "sem_truth": "sem/truth.tif",
    "sem_first": "sem/exposure-1.tif",
    "sem_second": "sem/exposure-2.tif",
    "sem_enhanced": "sem/enhanced.ome.zarr",
}
_STITCHING = StitchFolderOptions(distortion="none")  # the simulated lens has none
_ELSEWHERE: dict[str, Any] = {
    "relief_nm": 160.0,  # four times that of the place: light and SEM relate otherwise
    "frames_grid": (2, 3),
    "sem_view": False,
    "sem": True,
}


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
    seed: int = option(0, "Seed", "Other samples, stage errors, haze and noise.", ge=0)


@dataclass(frozen=True, slots=True)
class DemoResult(Result):
    """Path and figures of the report, and images of the place on one grid."""

    report: Annotated[str, Quantity("Report")]
    seconds: float
    frames: str  # folder of the simulated frames
    mosaic: str
    place_sem: str  # the SEM image on the grid of the mosaic
    enhanced: str  # result of the adapted model for the mosaic
    model: str
    figures: dict[str, Any]  # the figures on the page

    placed = figure(
        lambda made: "{placed} of {frames} placed".format(**made.figures["scan"]),
        "Frames",
    )
    # root mean square distances from the truth
    nominal = figure(
        lambda made: made.figures["scan"]["nominal_error_px"],
        *("Error of nominal positions", "px", ".3g"),
    )
    solved = figure(
        lambda made: made.figures["scan"]["solved_error_px"],
        *("Error of solved positions", "px", ".3g"),
    )
    resolved = figure(
        lambda made: made.figures["mosaic"]["halves"]["resolution_nm"],
        *("Mosaic resolves", "nm", ".3g"),
    )
    # on the held-out part of the place, over the light
    gains = figure(
        lambda made: _gains(made.figures["adapt"]["evaluated"]),
        "Held-out part, below the cut-off",
    )
    objects = figure(
        lambda made: _objects(made.figures["adapt"]["evaluated"]), "Its objects"
    )
    elsewhere = figure(
        lambda made: _gains(made.figures["elsewhere"]["versions"]),
        "Another relief, below the cut-off",
    )
    unlike = figure(
        lambda made: made.figures["elsewhere"]["unfamiliar_percent"],
        *("Unlike the training place", "% of its area", ".0f"),
    )
    restored = figure(
        lambda made: "; ".join(
            f"{name} {found['psnr_db']:.2f} {DB}"
            for name, found in made.figures["electron_image"]["versions"].items()
        ),
        "SEM image, PSNR",
    )

    @property
    def opened(self) -> Annotated[str, Quantity("In napari")]:
        """Command that opens the place."""
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
    """Return the numbers of objects that each version shows and invents."""
    return "; ".join(
        "{} {shown} of {objects} shown, {invented} of {drawn} invented".format(
            name, **objects["objects"]
        )
        for name, objects in versions.items()
    )


def _demonstrate(run: Run[DemoOptions]) -> Job[DemoResult]:
    """Run all steps, from frames to an adapted model, and restore an SEM image."""
    start = time.monotonic()
    settings = run.options
    yield Progress(0, 0, "checking")
    paths = _prepare_folder(run.place)
    options = scan_options(frame_px=settings.frame_px, seed=settings.seed)
    scan = yield from run_scan(
        paths["scan"],
        paths["mosaic"],
        options,
        options=_STITCHING.replace(halves=True),
        positions_out=paths["positions"],
    )
    resolutions = yield from measure_mosaic(scan, paths["mosaic_truth"])
    other = yield from run_scan(
        paths["elsewhere_scan"],
        paths["elsewhere"],
        options.replace(**_ELSEWHERE),
        options=_STITCHING,
    )
    place = yield from run_place(
        scan,
        [paths["elsewhere"]],
        paths["adapted"],
        seed=settings.seed,
        # in a separate process: torch's compiler must not run in that of a window
        fit=run.named.get("fit", fit_in_process),
    )
    rewrite(place.areas[0].sem, paths["place_sem"])
    elsewhere = yield from run_elsewhere(
        other, place.applied[1], paths["elsewhere_untouched"], paths["elsewhere_sem"]
    )
    sem = yield from run_sem(paths, seed=settings.seed)
    yield Progress(0, 0, "writing the report")
    figures = jsonable(
        {
            "scan": _scan_figures(scan),
            "mosaic": {
                "halves": _of_pair(resolutions[0]),
                "truth": _of_pair(resolutions[1]),
            },
            "adapt": place.to_json(),
            "elsewhere": _elsewhere_figures(elsewhere),
            "electron_image": {
                "versions": _versions(sem.versions),
                "two_exposures": _of_pair(sem.exposures),
                "enhance": sem.made.to_json(),
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
        **held_out_pictures(place),
        scan=scan,
        resolved=resolutions,
        correlations=_correlations(resolutions, scan.mosaic.mean_pixel_size_nm),
        place=place,
        aligned=_show_alignment(place),
        elsewhere=elsewhere,
        others=_crops(elsewhere.versions, elsewhere.truth),
        sem=sem,
        restored=_crops(sem.versions, sem.truth),
        paths=paths,
        enhanced=[Path(one.output) for one in place.applied],
        provenance=making(figures["options"], _digests(place, sem)),
    )
    return DemoResult(
        report=str(paths["report"]),
        seconds=round(time.monotonic() - start, 2),
        frames=str(paths["scan"]),
        mosaic=str(paths["mosaic"]),
        place_sem=str(paths["place_sem"]),
        enhanced=place.applied[0].output,
        model=place.model,
        figures=figures,
    )


def demo_paths(folder: Path) -> dict[str, Path]:
    """Return the paths that the demonstration writes, by role."""
    return {role: folder / name for role, name in _FILES.items()}


def _prepare_folder(folder: Path) -> dict[str, Path]:
    """Refuse a folder that cannot be written, before any computation."""
    paths = demo_paths(folder)
    for role in ("report", "figures", "positions"):
        if paths[role].is_dir():
            msg = (
                f"{paths[role]} is a folder, but a file must be written there: move it."
            )
            raise WriteError(msg, code="output-is-folder")
    try:
        for place in sorted({path.parent for path in paths.values()}):
            place.mkdir(exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        msg = f"{error.filename} cannot be made a folder ({reason}): choose another."
        raise WriteError(msg) from error
    for path in paths.values():
        if path.suffix in (".tif", ".zarr"):
            Output("").check(path, (), REPLACING)
    return paths


# Figures.


def _scan_figures(scan: ScanRun) -> dict[str, Any]:
    """Return figures of the stitching: frames, overlaps, errors of positions."""
    placement = scan.placement
    return {
        **scan.stitched.to_json(),
        "placed": int(placement.placed.sum()),
        "nominal_error_px": rms(placement.nominal_error_px),
        "solved_error_px": rms(placement.solved_error_px),
        "expected_error_px": rms(scan.stitched.solution.sigma_px),
    }


def _elsewhere_figures(run: ElsewhereRun) -> dict[str, Any]:
    """Return figures of the sample that is unlike the training place."""
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


def _versions(versions: Mapping[str, Compared]) -> dict[str, dict[str, Any]]:
    """Return PSNR and SSIM of each version."""
    return {
        name: {"psnr_db": one.metrics.psnr_db, "ssim": one.metrics.ssim}
        for name, one in versions.items()
    }


def _of_pair(result: FrcResult) -> dict[str, Any]:
    """Return the measurements of a pair of images."""
    names = ("resolution_nm", "interval_nm", "reason")
    return {name: getattr(result, name) for name in names}


# Figures. Their text is in the template of the page.

_FRAMES_SHOWN = 4  # frames on the page; chosen
_WEAKEST = 5  # overlaps on the page; chosen
_JOINT_PX = 120  # side of an overlap's image; chosen
_CROP_PX = 160  # side of a detail; chosen


def _stitching(scan: ScanRun) -> dict[str, Any]:
    """Draw frames, their positions, and the confidence in these."""
    frames, mosaic, pixel = scan.frames, scan.mosaic.array(), scan.mosaic.pixel_size_nm
    solution, placement = scan.stitched.solution, scan.placement
    sample = np.linspace(0, len(frames) - 1, _FRAMES_SHOWN).round().astype(int)
    raw = {frames.names[i]: frames.read(int(i)) for i in sample}
    look: Any = {"limits": grey_limits(np.stack([*raw.values()])), "width_px": 320}

    nominal = np.where(placement.placed[:, None], placement.nominal_px, np.nan)
    in_light, shape = solution.flat.valid, mosaic.shape
    images = {
        "Raw, nominal positions": lay_frames(frames, nominal, in_light, shape),
        "Raw, solved positions": lay_frames(
            frames, solution.positions_px, in_light, shape
        ),
        "Mosaic": mosaic,
    }
    centres = solution.positions_px + (np.array(scan.stitched.frame_shape) - 1) / 2
    worst = _worst_joint(scan, centres)
    joints = [
        p for p in solution.pairs if solution.has_place[[p.first, p.second]].all()
    ]
    pairs_in_use = sorted(
        (p for p in solution.pairs if p.used), key=lambda p: p.quality
    )
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
            ("Solved, as the program expects", rms(solution.sigma_px), None),
        ],
        "pixel_nm": scan.mosaic.mean_pixel_size_nm or np.nan,
        "cloud": errors_png(before, after),
        "weakest": pairs_in_use[:_WEAKEST],
        "stems": [name.rpartition(".")[0] or name for name in frames.names],
    }


def _worst_joint(scan: ScanRun, centres: NDArray[Any]) -> tuple[slice, slice]:
    """Return rows and columns around the overlap with the largest nominal error."""
    solution = scan.stitched.solution
    error = scan.placement.nominal_px - solution.positions_px
    pairs_in_use = [(p.first, p.second) for p in solution.pairs if p.used] or [(0, 0)]
    first, second = np.array(pairs_in_use).T
    worst = int(np.nanargmax(np.hypot(*(error[second] - error[first]).T)))
    middle = (centres[first[worst]] + centres[second[worst]]) / 2
    return _window(middle, scan.mosaic.shape, _JOINT_PX)


def _crops(
    versions: Mapping[str, Compared], truth: Micrograph
) -> list[tuple[str, bytes]]:
    """Draw the centre of all versions and of the truth, in its range of grey levels."""
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
    """Plot the mosaic's correlation, between its halves and with the truth."""
    names = "two halves of the frames", "mosaic and truth"
    lines = [
        resolution.line(name, colour)
        for colour, (name, resolution) in enumerate(
            zip(names, resolutions, strict=True), 1
        )
    ]
    over = [line.over_um(pixel_nm) for line in against_truth(lines)]
    return plot_png(FRC.curves[0].combine(over, has_size=pixel_nm is not None))


def _show_alignment(place: Adapted) -> bytes:
    """Draw the overlay of light and SEM, and both parts."""
    area = place.areas[0]
    return overlay_png(
        area.light.array(),
        area.sem.array(),
        area.sem.pixel_size_nm,
        boxes={"trained on": area.taught, "held out": area.held_out},
    )


def _digests(place: Adapted, sem: SemRun) -> list[tuple[str, str | None]]:
    """Return the digests of all images and models."""
    history = sem.made.provenance
    items = (*place.provenance.inputs, *history.inputs)
    model = f"the model {history.model_name}", history.model_digest
    return [model, *((item.name, item.digest) for item in items)]


def _window(
    centre: Sequence[float] | NDArray[Any], shape: tuple[int, int], side: int
) -> tuple[slice, slice]:
    """Return rows and columns of a square around a place, shifted into the image."""
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
    ),
    reads=False,
)
