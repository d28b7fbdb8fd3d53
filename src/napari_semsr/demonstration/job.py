"""The demonstration: commands in turn on simulated samples, then one page."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from napari_semsr import core, io, jobs, reporting
from napari_semsr.core import DB, Figure, Job, Options, Progress, option
from napari_semsr.jobs import SimulateOptions, StepRecord
from napari_semsr.models import DEFAULT_MODEL, MOSAIC_MODEL

_MINUTES = (1.0, 2.0, 4.0, 8.0, 16.0)  # tried in turn; slow or busy computers need more
_SEM_SHAPE, _TILE_PX = (384, 540), 256  # chosen: several tiles, in a few seconds


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
        0, "Seed", "Seed for samples, stage errors, haze and noise.", ge=0
    )

    def create_scan_options(self) -> SimulateOptions:
        """Return the options of the scan of a chip, with an SEM image of a part."""
        return SimulateOptions(
            phantom="circuit",
            pitch_nm=240.0,  # lines of 120 nm, which light resolves
            relief_nm=40.0,  # thin: light of higher lines cancels that of the substrate
            frames_grid=(4, 5),
            frame_px=self.frame_px,
            overlap=0.4,
            jitter_px=min(10.0, self.frame_px / 20),
            illumination_drift=0.2,
            photons=4000.0,
            focus_nm=40.0,
            positions="nm",
            sem_view=True,
            seed=self.seed,
        )


@dataclass(frozen=True, slots=True)
class DemoResult(jobs.Result):
    """Page of the demonstration, its figures, and its images by name."""

    report: str
    seconds: float
    steps: dict[str, float]  # seconds of each step that ran
    images: dict[str, str]
    shown: dict[str, Figure] = field(metadata={"json": False})

    def figures(self) -> dict[str, Figure]:
        """Return what was found, and how to open the images."""
        paths = " ".join(f'"{one}"' for one in [*self.images.values()][:3])
        command = Figure(f"napari --plugin napari-semsr {paths}")
        steps = {f"Step, {k}": Figure(v, "s", ".1f") for k, v in self.steps.items()}
        report = Figure(self.report)
        return {"Report": report, **self.shown, **steps, "In napari": command}


def _run_step(
    seconds: dict[str, float],
    again: bool,
    name: str,
    command: str,
    inputs: Mapping[str, Any],
    place: Path,
    options: Mapping[str, object],
) -> Job[StepRecord]:
    """Run a command `again` or if its record does not agree; report its time."""
    verb, started = jobs.get_verb(command), time.monotonic()
    assert verb is not None and verb.output is not None  # noqa: PT018, S101
    place.parent.mkdir(parents=True, exist_ok=True)
    values = {**options, **inputs, verb.output.name: place}
    policy = {"resume" if command == "adapt" and not again else "overwrite": True}
    step = jobs.Step(command, inputs, options, (place,))
    record, result = yield from core.map_progress(
        jobs.run_step(step, lambda: verb.start(values, **policy), again=again),
        lambda one: replace(one, message=f"{name}: {one.message}"),
    )
    if result is not None:
        seconds[name] = round(time.monotonic() - started, 1)
        yield Progress(0, 0, f"{name}: done in {seconds[name]} s")
    return record


def _train(
    run_step: Callable[..., Job[StepRecord]], area: object, place: Path, seed: int
) -> Job[StepRecord]:
    """Train on the SEM image, for longer if a short training brings no gain."""
    for minutes in _MINUTES:
        options = {"minutes": minutes, "seed": seed}
        try:
            return (yield from run_step("training", "adapt", area, place, options))
        except jobs.AdaptationError as refused:
            if refused.reason != "no-gain" or minutes == _MINUTES[-1]:
                raise
    raise AssertionError


def _run_demonstration(run: jobs.Run[DemoOptions]) -> Job[DemoResult]:
    """Run each command whose record does not agree, then write the page."""
    started, seconds = time.monotonic(), dict[str, float]()
    folder, seed = run.required_target, run.options.seed
    if not (run.existing.overwrite or (folder / ".scan.done.json").is_file()):
        jobs.check_target_folder(folder)
    scan = run.options.create_scan_options()
    # four times as high, so that light and SEM relate differently
    view = {"sem_view": False, "sem": True}
    other = scan.replace(relief_nm=160.0, frames_grid=(2, 3), **view)
    places = {
        "mosaic": folder / "mosaic/mosaic.ome.zarr",
        "SEM image of a part": folder / "mosaic/sem.ome.tif",
        "enhanced": folder / "adapted/mosaic-enhanced.ome.zarr",
        "another chip": folder / "elsewhere/other-relief.ome.zarr",
        "the same model": folder / "adapted/other-relief-enhanced.ome.zarr",
        MOSAIC_MODEL: folder / "elsewhere/ssum-sem.ome.zarr",
        "its SEM image": folder / "elsewhere/scan/sem/sem.ome.tif",
        "specimen": folder / "sem/truth.tif",
        "SEM image": folder / "sem/exposure.tif",
        DEFAULT_MODEL: folder / "sem/enhanced.ome.zarr",
        "figure": folder / "figure.png",
    }
    view_file, none = folder / "scan/sem/view.tif", {"distortion": "none"}
    plain: dict[str, Any] = {"mode": "json", "exclude_unset": True}
    scans = {"mosaic": folder / "scan", "another chip": folder / "elsewhere/scan"}
    area = {"mosaic": places["mosaic"], "sem": [view_file]}
    area["apply"] = [places["another chip"]]
    steps: list[tuple[str, str, dict[str, Any], Path, dict[str, object]]] = [
        ("scan", "simulate", {}, scans["mosaic"], scan.model_dump(**plain)),
        ("mosaic", "stitch", {"folder": scans["mosaic"]}, places["mosaic"],
         {**none, "halves": True}),
        ("another scan", "simulate", {}, scans["another chip"],
         other.model_dump(**plain)),
        ("another chip", "stitch", {"folder": scans["another chip"]},
         places["another chip"], {**none}),
        (MOSAIC_MODEL, "enhance", {"image": places["another chip"]},
         places[MOSAIC_MODEL], {"model": MOSAIC_MODEL}),
        ("specimen", "specimen", {}, places["specimen"],
         {"shape": [*_SEM_SHAPE], "seed": seed}),
        ("SEM image", "exposure", {"truth": places["specimen"]}, places["SEM image"],
         {"seed": seed, "noise_seed": 1}),
        (DEFAULT_MODEL, "enhance", {"image": places["SEM image"]},
         places[DEFAULT_MODEL], {"model": DEFAULT_MODEL, "tile": _TILE_PX}),
    ]  # fmt: skip
    run_step = partial(_run_step, seconds, run.existing.overwrite)
    records = {}
    for step in steps:
        records[step[0]] = yield from run_step(*step)
    adapted = (yield from _train(run_step, area, folder / "adapted", seed)).values
    found = yield from jobs.FRC.job(places["mosaic"])
    yield Progress(0, 0, "writing the report")
    mosaic, sem = jobs.open_image(places["mosaic"]), jobs.open_image(view_file)
    back = io.read_transform(folder / "adapted/registration-1.json").transform.inverse()
    warped = core.WarpedImage(sem, core.Grid.from_image(mosaic), back).read()
    part = mosaic.replace(data=warped, name="sem")
    jobs.overwrite_image(part, places["SEM image of a part"])
    drawn = [name for name in places if name not in ("specimen", "figure")]
    shown_images = {**places, "SEM image of a part": part}  # its file bears a new date
    images = {"images": [shown_images[name] for name in drawn]}
    yield from run_step("figure", "figure", images, places["figure"], {})
    shown = _measure_positions(scans["mosaic"], records["mosaic"])
    resolution = found.result.resolution_nm
    shown["Mosaic resolves"] = Figure(resolution, "nm", ".3g")
    for name, row in [*adapted["evaluated"].items()][1:]:
        gain, error = row["gain_below_cutoff_db"], row["gain_below_cutoff_sd_db"]
        label = f"Held-out part, below the cut-off, {name}"
        shown[label] = Figure(gain, DB, "+.2f", sd=error)
    unlike = adapted["applied"][1]["unfamiliar_percent"]
    shown["Another chip"] = Figure(unlike, "% unlike the training area", ".0f")
    result = DemoResult(
        report=str(folder / "report.html"),
        seconds=round(time.monotonic() - started, 1),
        steps=seconds,
        images={name: str(place) for name, place in places.items()},
        shown=shown,
    )
    reporting.write_page(
        Path(result.report),
        Path(__file__).with_name("report.html"),
        shown=shown,
        command=result.figures()["In napari"],
        names=[f"{'abcdefghij'[n]}: {name}" for n, name in enumerate(drawn)],
        picture_png=places["figure"].read_bytes(),
        adapted=adapted,
        steps=seconds,
        provenance=reporting.list_provenance(run.options.model_dump(mode="json")),
    )
    return result


def _measure_positions(scan: Path, stitched: StepRecord) -> dict[str, Figure]:
    """Count the placed frames, and measure nominal and solved positions."""
    frames = core.run(io.open_frames(scan, positions=scan / "truth/positions.csv"))
    true, nominal = frames.nominal_px, core.run(io.open_frames(scan)).nominal_corners()
    assert true is not None and nominal is not None  # noqa: PT018, S101 - simulated
    rows = {row["frame"]: row for row in stitched.values["positions"]}
    solved = np.array(
        [[rows[name][axis] for axis in ("y_px", "x_px")] for name in frames.names],
        dtype=float,
    )
    placed = np.isfinite(solved[:, 0])
    shown = {"Frames placed": Figure(f"{placed.sum()} of {len(placed)}")}
    for name, one in (("nominal", nominal), ("solved", solved)):
        off = (one - true)[placed]
        rms = float(np.sqrt(off.var(axis=0).sum()))
        shown[f"Error of {name} positions"] = Figure(rms, "px", ".3g")
    return shown


DEMO = jobs.Verb(
    "demo",
    (),
    DemoOptions,
    DemoResult,
    _run_demonstration,
    title="samples and model",
    output=jobs.Output(
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
