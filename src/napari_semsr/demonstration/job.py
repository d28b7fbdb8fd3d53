"""The demonstration as a job, from an empty folder to the report."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from napari_semsr.core import (
    DB,
    Job,
    OptionError,
    Options,
    Progress,
    Quantity,
    WriteError,
    option,
    software_versions,
)
from napari_semsr.demonstration.fields import EXPOSURES, FieldFigures, Half
from napari_semsr.demonstration.place import PlaceRun, run_place
from napari_semsr.demonstration.runs import ScanRun, rms, run_scan, run_sem
from napari_semsr.demonstration.sections import write_report
from napari_semsr.jobs import (
    DEFAULT_MODEL,
    MOSAIC_MODEL,
    REPLACING,
    Output,
    RegisterOptions,
    Result,
    Run,
    Verb,
    find_model,
    jsonable,
)
from napari_semsr.reporting import resolution, write_numbers

_STEPS = 200  # chosen: about a minute on two cores
_FILES = {
    "report": "report.html",
    "figures": "figures.json",
    "scan": "scan",
    "scan_again": "scan-again",
    "mosaic": "mosaic/mosaic.ome.zarr",
    "mosaic_again": "mosaic/mosaic-again.ome.zarr",
    "mosaic_truth": "mosaic/truth.ome.tif",
    "mosaic_two_exposures": "mosaic/frc-map-exposures.ome.tif",
    "mosaic_degraded_against_truth": "mosaic/frc-map-before.ome.tif",
    "positions": "mosaic/solved-positions.csv",
    "place_sem": "place/sem.ome.tif",
    "place_map": "place/mosaic-to-sem.json",
    "place_mosaic": "place/mosaic.ome.zarr",
    "place_pairs": "place/pairs.zarr",
    "place_training": "place/training",
    "place_enhanced": "place/enhanced.ome.zarr",
    "place_tuned": "place/fine-tuned.ome.zarr",
    "place_wiener": "place/wiener.ome.tif",
    "place_linear": "place/linear-filter.ome.tif",
    "place_mosaic_against_sem": "place/frc-map-mosaic.ome.tif",
    "place_enhanced_against_sem": "place/frc-map-enhanced.ome.tif",
    "place_tuned_against_sem": "place/frc-map-fine-tuned.ome.tif",
    "sem_truth": "sem/truth.tif",
    "sem_first": "sem/exposure-1.tif",
    "sem_second": "sem/exposure-2.tif",
    "sem_baseline": "sem/wiener.tif",
    "sem_enhanced": "sem/enhanced.ome.zarr",
    "sem_two_exposures": "sem/frc-map-exposures.ome.tif",
    "sem_degraded_against_truth": "sem/frc-map-before.ome.tif",
    "sem_enhanced_against_truth": "sem/frc-map-after.ome.tif",
}


class DemoOptions(Options):
    """What the demonstration shows."""

    model: str = option(
        MOSAIC_MODEL,
        "",
        "Model for the mosaic, which is fine-tuned: on the shelf, or a file.",
    )
    restorer: str = option(
        DEFAULT_MODEL,
        "",
        "Model for the electron image at the end: on the shelf, or a file.",
    )
    steps: int = option(
        _STEPS,
        "Training steps",
        "Steps of fine-tuning on half of the place; the other half judges.",
        step=50,
        ge=1,
    )
    registration: Literal["affine", "elastic"] = option(
        "elastic",
        "",
        "Map from the mosaic to the electron image of its place, which is bent a "
        "little.",
    )
    frame_px: int = option(
        224,
        "Frame",
        "Side of a superlens frame, in pixels of 20 nm.",
        unit="px",
        ge=144,
        le=512,
    )
    size: int = option(
        640,
        "Electron image",
        "Rows of the electron image, in pixels of 10 nm.",
        unit="px",
        ge=192,
        le=4096,
    )
    seed: int = option(
        0, "Seed", "Other specimens, stage errors, haze and noise.", ge=0
    )


@dataclass(frozen=True, slots=True)
class DemoResult(Result):
    """Where the report is, and what it says; images of the place, on one grid."""

    report: Annotated[str, Quantity("Report")]
    seconds: float
    frames: str  # folder of the simulated frames
    mosaic: str
    registered: str  # the mosaic on the grid of the electron image
    place_sem: str
    enhanced: str  # what the model made of it, before fine-tuning
    tuned: str  # and after
    frc_map: str  # where that agrees with the electron image
    figures: dict[str, Any]  # the numbers on the page
    scan: ScanRun = field(metadata={"json": False})
    place: PlaceRun = field(metadata={"json": False})
    sem: Half = field(metadata={"json": False})

    @property
    def placed(self) -> Annotated[str, Quantity("Frames")]:
        """How many frames have a place."""
        scan = self.figures["scan"]
        return f"{scan['placed']} of {scan['frames']} placed"

    @property
    def nominal(
        self,
    ) -> Annotated[float, Quantity("Error of nominal positions", "px", ".3g")]:
        """Root mean square, from the truth."""
        error: float = self.figures["scan"]["nominal_error_px"]
        return error

    @property
    def solved(
        self,
    ) -> Annotated[float, Quantity("Error of solved positions", "px", ".3g")]:
        """Root mean square, from the truth."""
        error: float = self.figures["scan"]["solved_error_px"]
        return error

    @property
    def resolved(self) -> Annotated[str, Quantity("Mosaic resolves")]:
        """By two exposures."""
        return resolution(self.scan.measured.pair)

    @property
    def expected(
        self,
    ) -> Annotated[float | None, Quantity("Expected error of the map", "nm", ".3g")]:
        """Of the map from the mosaic to the electron image."""
        return self.place.registered.error_nm

    @property
    def true(self) -> Annotated[float, Quantity("True error of the map", "nm", ".3g")]:
        """As the drawing knows it."""
        return self.place.true_error_nm

    @property
    def judged(self) -> Annotated[str, Quantity("Half of the place")]:
        """Against its electron image; nothing learnt from that half."""
        return _versions(self.place.measured)

    @property
    def restored(self) -> Annotated[str, Quantity("Electron image")]:
        """Against the truth."""
        return _versions(self.sem.measured)

    @property
    def opened(self) -> Annotated[str, Quantity("In napari")]:
        """The command that shows the place."""
        shown = self.registered, self.place_sem, self.enhanced, self.tuned
        return " ".join(["napari --plugin napari-semsr", *(f'"{p}"' for p in shown)])


def _versions(measured: FieldFigures) -> str:
    """Say PSNR and resolution of each version of a field against its aim."""
    return "; ".join(
        f"{item.label} {item.metrics.psnr_db:.2f} {DB}, {resolution(item.cross)}"
        for item in measured.versions
        if item.cross is not None
    )


def _demonstrate(run: Run[DemoOptions]) -> Job[DemoResult]:
    """Go the whole way: frames, mosaic, electron image of its place, trained network.

    At last an electron image is restored.
    """
    started = time.monotonic()
    chosen = run.options
    yield Progress(0, 0, "checking")
    for name in (chosen.model, chosen.restorer):
        _check_model(name)
    paths = _prepare_folder(run.place)
    scan = yield from run_scan(paths, frame_px=chosen.frame_px, seed=chosen.seed)
    place = yield from run_place(
        paths,
        scan,
        model=chosen.model,
        steps=chosen.steps,
        registering=RegisterOptions(model=chosen.registration),
    )
    sem = yield from run_sem(
        paths, model=chosen.restorer, size=chosen.size, seed=chosen.seed
    )
    yield Progress(0, 0, "writing the report")
    figures = jsonable(
        {
            "scan": _scan_figures(scan),
            "mosaic": _figures(scan.measured),
            "place": _place_figures(place),
            "electron_image": _figures(sem.measured) | {"enhance": sem.made.to_json()},
            "options": chosen.model_dump(mode="json"),
            "versions": software_versions(),
        }
    )
    write_numbers(paths["figures"], figures)
    write_report(scan, place, sem, paths, figures["options"])
    return DemoResult(
        report=str(paths["report"]),
        seconds=round(time.monotonic() - started, 2),
        frames=str(paths["scan"]),
        mosaic=str(paths["mosaic"]),
        registered=str(paths["place_mosaic"]),
        place_sem=str(paths["place_sem"]),
        enhanced=str(paths["place_enhanced"]),
        tuned=str(paths["place_tuned"]),
        frc_map=str(paths["place_tuned_against_sem"]),
        figures=figures,
        scan=scan,
        place=place,
        sem=sem,
    )


def _check_model(name: str) -> None:
    """Refuse a model that is not there, or whose pixels would not fit the others."""
    from napari_semsr.models import read_card

    scale = read_card(find_model(name)).scale
    if scale != 1:
        msg = (
            f"The demonstration compares images of one pixel size, and {name} makes "
            f"pixels {scale} times as small: take a model of scale 1."
        )
        raise OptionError(msg)


def demo_paths(folder: Path) -> dict[str, Path]:
    """Name what the demonstration writes, by role."""
    return {role: folder / name for role, name in _FILES.items()}


def _prepare_folder(folder: Path) -> dict[str, Path]:
    """Refuse a folder that cannot be filled, before anything is computed."""
    paths = demo_paths(folder)
    for role in ("report", "figures", "positions"):
        if paths[role].is_dir():
            msg = f"{paths[role]} is a folder where a file shall go: move it away."
            raise WriteError(msg)
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


_METRICS = "psnr_db ssim nrmse average_gradient contrast spatial_frequency"
_OF_A_PAIR = "resolution_nm interval_nm reason"
_OF_A_MAP = "blocks failed median_nm p10_nm p90_nm"


def _scan_figures(half: ScanRun) -> dict[str, Any]:
    """Numbers of the stitching: frames, joints and positions against the truth."""
    placement = half.placement
    return {
        **half.stitched.to_json(),
        "placed": int(placement.placed.sum()),
        "nominal_error_px": rms(placement.nominal_error_px),
        "solved_error_px": rms(placement.solved_error_px),
        "expected_error_px": rms(half.stitched.solution.sigma_px),
        "measured_part": half.box,
    }


def _place_figures(place: PlaceRun) -> dict[str, Any]:
    """Numbers of the place: its map, its halves, what training and models brought."""
    found = place.measured
    gains = {item.label: item.gain_over(found.before) for item in found.versions[1:-1]}
    return {
        "registration": place.registered.to_json()
        | {"true_error_nm": place.true_error_nm},
        "learnt_from": place.taught,
        "judged": place.judged,
        "pairs": place.pairs.to_json(),
        "training": place.trained.to_json(),
        **_figures(found),
        "gain_db": {label: gain for label, (gain, _) in gains.items()},
        "gain_sd_db": {label: error for label, (_, error) in gains.items()},
        "enhance": place.untouched.to_json(),
        "enhance_tuned": place.tuned.to_json(),
    }


def _figures(found: FieldFigures) -> dict[str, Any]:
    """Numbers of one field, by version and kind."""

    def picked(item: object, names: str) -> dict[str, Any]:
        return {n: None if item is None else getattr(item, n) for n in names.split()}

    alone = {} if found.pair is None else {EXPOSURES: picked(found.pair, _OF_A_PAIR)}
    return {
        "versions_of_the_field": {
            item.label: picked(item.metrics, _METRICS)
            | picked(item.cross, "resolution_nm reason")
            for item in found.versions
        },
        **alone,
        "maps": {
            role: picked(item, _OF_A_MAP) | {"reasons": item.reason_counts}
            for role, (_, item) in found.maps.items()
        },
    }


DEMO = Verb(
    "demo",
    (),
    DemoOptions,
    DemoResult,
    _demonstrate,
    title="samples and model",
    output=Output(
        "where images and report go",
        name="folder",
        flag="",
        metavar="OUT_DIR",
        default="demo-output",
        ending="",
        is_image=False,
    ),
    reads=False,
)
