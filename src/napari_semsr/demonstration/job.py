"""The demonstration as a job, from an empty folder to the report."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_semsr.analysis import FrcMap, code_of
from napari_semsr.core import (
    DB,
    Job,
    Line,
    OptionError,
    Options,
    Progress,
    Quantity,
    WriteError,
    against_truth,
    figure,
    option,
    software_versions,
)
from napari_semsr.demonstration.fields import (
    EXPOSURES,
    WIENER,
    FieldFigures,
    Half,
    Version,
)
from napari_semsr.demonstration.runs import (
    LINEAR,
    TUNED,
    PlaceRun,
    ScanRun,
    rms,
    run_place,
    run_scan,
    run_sem,
)
from napari_semsr.jobs import (
    DEFAULT_MODEL,
    FRC,
    MOSAIC_MODEL,
    REPLACING,
    SPECTRUM,
    Output,
    RegisterOptions,
    Result,
    Run,
    Verb,
    find_model,
    jsonable,
)
from napari_semsr.reporting import (
    errors_png,
    grey_limits,
    image_png,
    joints_png,
    lay_frames,
    making,
    map_png,
    overlay_png,
    plot_png,
    resolution,
    spread,
    write_numbers,
    write_page,
)

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

    placed = figure(
        lambda made: "{placed} of {frames} placed".format(**made.figures["scan"]),
        "Frames",
    )
    # root mean squares, from the truth
    nominal = figure(
        lambda made: rms(made.scan.placement.nominal_error_px),
        *("Error of nominal positions", "px", ".3g"),
    )
    solved = figure(
        lambda made: rms(made.scan.placement.solved_error_px),
        *("Error of solved positions", "px", ".3g"),
    )
    resolved = figure(  # by two exposures
        lambda made: resolution(made.scan.measured.pair), "Mosaic resolves"
    )
    # of the map from the mosaic to the electron image, which the drawing knows
    expected = figure(
        lambda made: made.place.registered.error_nm,
        *("Expected error of the map", "nm", ".3g"),
    )
    true = figure(
        lambda made: made.place.true_error_nm, "True error of the map", "nm", ".3g"
    )
    # against its electron image, as nothing learnt from that half; against the truth
    judged = figure(lambda made: _versions(made.place.measured), "Half of the place")
    restored = figure(lambda made: _versions(made.sem.measured), "Electron image")

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
    """Go the whole way, from frames to a judged network, and restore an SEM image."""
    from napari_semsr.models import read_card

    started = time.monotonic()
    chosen = run.options
    yield Progress(0, 0, "checking")
    for name in (chosen.model, chosen.restorer):
        scale = read_card(find_model(name)).scale
        if scale != 1:
            msg = (
                f"The demonstration compares images of one pixel size, and {name} "
                f"makes pixels {scale} times as small: take a model of scale 1."
            )
            raise OptionError(msg)
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
        **{name: str(paths[role]) for name, role in _SHOWN.items()},
        seconds=round(time.monotonic() - started, 2),
        figures=figures,
        scan=scan,
        place=place,
        sem=sem,
    )


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


_SHOWN = {  # of a result, by the roles of files
    "report": "report",
    "frames": "scan",
    "mosaic": "mosaic",
    "place_sem": "place_sem",
    "registered": "place_mosaic",
    "enhanced": "place_enhanced",
    "tuned": "place_tuned",
    "frc_map": "place_tuned_against_sem",
}
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


# Pictures and figures of the page. What it says of them stands in its template.

_FRAMES_SHOWN = 4
_WEAKEST = 5
_JOINT_PX = 120
_CROP_PX = 128
_CROPS = ((0.30, 0.22), (0.45, 0.78))  # one on each half of the specimen
_LINEAR = (WIENER, LINEAR)  # not among the first pictures; the first table has them
_CURVES = 5  # that a plot holds, as many as it has colours


def write_report(
    scan: ScanRun,
    place: PlaceRun,
    sem: Half,
    paths: dict[str, Path],
    options: dict[str, Any],
) -> None:
    """Write the page."""
    made = [item.provenance for item in (place.untouched, place.tuned, sem.made)]
    digests = [(f"the model {one.model_name}", one.model_digest) for one in made]
    digests += [(item.name, item.digest) for one in made for item in one.inputs]
    write_page(
        paths["report"],
        Path(__file__).with_name("report.html"),
        **_stitching(scan),
        scan=scan,
        place=place,
        mosaic=_field(scan.measured),
        judged=_field(place.measured),
        electron=_field(sem.measured),
        verdict=verdict(place),
        aligned=overlay_png(
            place.mosaic.array(),
            place.sem.array(),
            place.sem.pixel_size_nm,
            boxes={"learnt from": place.taught, "judged": place.judged},
        ),
        apart=place.apart_px,
        reports=[item.report for item in (place.untouched, place.tuned)],
        restored=sem.made.report,
        paths=paths,
        provenance=making(options | made[0].options, digests),
    )


def verdict(place: PlaceRun) -> list[str]:
    """Say what the network and its training on this place brought, and what not."""
    found = place.measured
    named = {item.label: item for item in found.versions}
    network, linear = named[place.untouched.report.model], named[LINEAR]
    tuned = named[TUNED]
    gain, simple = (item.gain_over(found.before) for item in (network, linear))
    brought = (
        f"On the half that nothing learnt from, {network.label} brings the mosaic "
        f"{spread(gain)} {DB} nearer to the SEM image; the best linear filter brings "
        f"{spread(simple)} {DB}."
    )
    trained = place.trained
    taught = (
        f"{trained.steps} steps of fine-tuning on the other half of this place, with "
        f"{place.pairs.train} pairs,"
    )
    more = tuned.gain_over(network)
    if not trained.kept:
        taught += " made nothing better on pairs that were held out: it was not kept."
    elif (more[0] or 0) > 0:
        taught += f" bring another {spread(more)} {DB}."
    else:
        taught += (
            " made held-out pairs of that half better, but not the half that judges: "
            f"{spread(more)} {DB}."
        )
    return [brought, taught]


def _stitching(scan: ScanRun) -> dict[str, Any]:
    """Show frames, where they lie, and how far to trust that."""
    frames, mosaic, pixel = scan.frames, scan.mosaic.array(), scan.mosaic.pixel_size_nm
    solution, placement = scan.stitched.solution, scan.placement
    chosen = np.linspace(0, len(frames) - 1, _FRAMES_SHOWN).round().astype(int)
    raw = {frames.names[i]: frames.read(int(i)) for i in chosen}
    look: Any = {"limits": grey_limits(np.stack([*raw.values()])), "width_px": 320}

    nominal = np.where(placement.placed[:, None], placement.nominal_px, np.nan)
    lit, shape = solution.flat.valid, mosaic.shape
    laid = {
        "Raw, nominal positions": lay_frames(frames, nominal, lit, shape),
        "Raw, solved positions": lay_frames(frames, solution.positions_px, lit, shape),
        "Mosaic": mosaic,
    }
    centres = solution.positions_px + (np.array(scan.stitched.frame_shape) - 1) / 2
    worst = _worst_joint(scan, centres)
    joints = [p for p in solution.pairs if solution.placed[[p.first, p.second]].all()]
    used = sorted((p for p in solution.pairs if p.used), key=lambda p: p.quality)
    before, after = placement.nominal_error_px, placement.solved_error_px

    def drawn(box: Any) -> list[tuple[str, bytes]]:
        return [
            (name, image_png(image[box], pixel, limits=grey_limits(image)))
            for name, image in laid.items()
        ]

    return {
        "frames": [(n, image_png(i, pixel, **look)) for n, i in raw.items()],
        "laid": drawn(...),
        "enlarged": drawn(worst),
        "joined": joints_png(mosaic, centres, joints, pixel),
        "placed": int(placement.placed.sum()),
        "quality": np.median([p.quality for p in used] or [np.nan]),
        "errors": [
            ("Nominal positions", rms(before), np.nanmax(np.hypot(*before.T))),
            ("Solved positions", rms(after), np.nanmax(np.hypot(*after.T))),
            ("Solved, as the program expects", rms(solution.sigma_px), None),
        ],
        "pixel_nm": scan.mosaic.mean_pixel_size_nm or np.nan,
        "cloud": errors_png(before, after),
        "weakest": used[:_WEAKEST],
        "stems": [name.rpartition(".")[0] or name for name in frames.names],
    }


def _worst_joint(scan: ScanRun, centres: NDArray[Any]) -> tuple[slice, slice]:
    """Rows and columns around the joint whose nominal shift was most in error."""
    solution = scan.stitched.solution
    error = scan.placement.nominal_px - solution.positions_px
    used = [(p.first, p.second) for p in solution.pairs if p.used] or [(0, 0)]
    first, second = np.array(used).T
    worst = int(np.nanargmax(np.hypot(*(error[second] - error[first]).T)))
    middle = (centres[first[worst]] + centres[second[worst]]) / 2
    return _window(middle, scan.mosaic.shape, _JOINT_PX)


def _field(found: FieldFigures) -> dict[str, Any]:
    """Show one field: whole, crops at full size, curves, maps."""
    aim = found.aim.image
    limits, shape, pixel = grey_limits(aim.array()), aim.shape, aim.pixel_size_nm
    pitch, aim_label = aim.mean_pixel_size_nm, found.aim.label.replace("Truth", "truth")

    def grey(item: Version, box: Any, width_px: int) -> tuple[str, bytes]:
        image = item.image.array()[box]
        return item.label, image_png(image, pixel, limits=limits, width_px=width_px)

    corners = [(round(shape[0] * y), round(shape[1] * x)) for y, x in _CROPS]
    boxes = [_window(corner, shape, _CROP_PX) for corner in corners]
    crops = [[grey(item, box, 400) for item in found.versions] for box in boxes]
    many = len(found.versions) > _CURVES
    drawn = [v for v in found.versions[:-1] if not (many and v.label == WIENER)]
    correlations = [
        item.cross.line(f"{item.label} and {aim_label}", colour)
        for colour, item in enumerate(drawn, start=1)
        if item.cross is not None
    ]
    spectra = [
        Line(item.label, item.spectrum.frequency_per_px, item.spectrum.power)
        for item in (found.aim, *drawn)
    ]

    def together(verb: Verb[Any, Any], lines: Sequence[Line]) -> bytes:
        over = [line.over_um(pitch) for line in lines]
        calibrated = pitch is not None
        return plot_png(verb.curves[0].together(over, calibrated=calibrated))

    return {
        "measured": found,
        "aim": aim_label,
        "shape": shape,
        "pixel_nm": pitch or 0.0,
        "wholes": [grey(item, ..., 720) for item in (found.before, found.after)],
        "crops": crops,
        "glance": [[one for one in row if one[0] not in _LINEAR] for row in crops],
        "crop_px": _CROP_PX,
        "correlations": together(FRC, against_truth(correlations)),
        "maps": _maps(found),
        "spectra": together(SPECTRUM, spectra),
    }


def _maps(measured: FieldFigures) -> list[tuple[str, FrcMap, bytes]]:
    """Draw maps of local resolution on one colour scale."""
    maps = list(measured.maps.values())
    values = np.concatenate([np.ravel(found.measured) for _, found in maps])
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, (2, 98)) if values.size else (0.0, 1.0)
    ends = (float(low), max(float(high), float(low) * 1.05))
    look: Any = {"limits": ends, "label": "resolution (nm)"}
    return [
        (
            name,
            found,
            map_png(
                found.measured,
                found.map.pixel_size_nm,
                finer=found.reasons == code_of("beyond-nyquist"),
                **look,
            ),
        )
        for name, found in maps
    ]


def _window(
    centre: Sequence[float] | NDArray[Any], shape: tuple[int, int], side: int
) -> tuple[slice, slice]:
    """Rows and columns of a square around a place, moved into the image."""
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
        "where images and report go",
        name="folder",
        flag="",
        metavar="OUT_DIR",
        default="demo-output",
        ending="",
    ),
    reads=False,
    step="it draws its own samples",
)
