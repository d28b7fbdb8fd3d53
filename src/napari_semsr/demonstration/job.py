"""The demonstration: commands in turn on simulated samples, then one page."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from napari_semsr import core, io, jobs, reporting
from napari_semsr.core import DB, Figure, Job, Options, Progress, option
from napari_semsr.jobs import SimulateOptions, StepRecord
from napari_semsr.models import DEFAULT_MODEL, MOSAIC_MODEL

_MOST_MINUTES = 16.0  # of training; slow or busy computers need more than one


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
        shown = {"Report": Figure(self.report), **self.shown}
        shown |= {f"Step, {k}": Figure(v, "s", ".1f") for k, v in self.steps.items()}
        return {**shown, "In napari": command}


def _run_step(
    seconds: dict[str, float],
    again: bool,
    name: str,
    place: Path,
    command: str,
    inputs: Mapping[str, Any],
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
    run_step: Callable[[dict[str, float]], Job[StepRecord]], options: dict[str, float]
) -> Job[StepRecord]:
    """Train on the SEM image, for twice as long if that brings no gain."""
    try:
        return (yield from run_step(options))
    except jobs.AdaptationError as refused:
        if refused.reason != "no-gain" or options["minutes"] >= _MOST_MINUTES:
            raise
    longer = {**options, "minutes": 2 * options["minutes"]}
    return (yield from _train(run_step, longer))


_PLACES = {
    "mosaic": "mosaic/mosaic.ome.zarr",
    "SEM image of a part": "mosaic/sem.ome.tif",
    "enhanced": "adapted/mosaic-enhanced.ome.zarr",
    "another chip": "elsewhere/other-relief.ome.zarr",
    "the same model": "adapted/other-relief-enhanced.ome.zarr",
    MOSAIC_MODEL: "elsewhere/ssum-sem.ome.zarr",
    "its SEM image": "elsewhere/scan/sem/sem.ome.tif",
    "specimen": "sem/truth.tif",
    "SEM image": "sem/exposure.tif",
    DEFAULT_MODEL: "sem/enhanced.ome.zarr",
    "figure": "figure.png",
}
"""Images of the demonstration by name, in its folder."""


@jobs.command(title="samples and model", reads=False)
def demo(
    run: jobs.Run[DemoOptions],
    folder: Annotated[
        Path,
        jobs.Output(
            "folder of the images and the report",
            flag="",
            metavar="OUT_DIR",
            ending="",
        ),
    ] = Path("demo-output"),
    *,
    options: DemoOptions,
) -> Job[DemoResult]:
    """Run all steps on simulated samples, from frames to a report.

    A step whose record agrees is not run again.
    """
    started, seconds, seed = time.monotonic(), dict[str, float](), options.seed
    if not (run.existing.overwrite or (folder / ".scan.done.json").is_file()):
        jobs.check_target_folder(folder)
    scan = options.create_scan_options()
    # four times as high, so that light and SEM relate differently
    other = scan.replace(relief_nm=160.0, frames_grid=(2, 3), sem_view=False, sem=True)
    places = {name: folder / place for name, place in _PLACES.items()}
    view_file = folder / "scan/sem/view.tif"
    scans = {"scan": folder / "scan", "another scan": folder / "elsewhere/scan"}
    plain: dict[str, Any] = {"mode": "json", "exclude_unset": True}
    other_chip, none = places["another chip"], {"distortion": "none"}
    specimen, sem_image = places["specimen"], places["SEM image"]
    steps: dict[str, tuple[str, dict[str, Any], Mapping[str, object]]] = {
        "scan": ("simulate", {}, scan.model_dump(**plain)),
        "mosaic": ("stitch", {"folder": scans["scan"]}, {**none, "halves": True}),
        "another scan": ("simulate", {}, other.model_dump(**plain)),
        "another chip": ("stitch", {"folder": scans["another scan"]}, none),
        MOSAIC_MODEL: ("enhance", {"image": other_chip}, {"model": MOSAIC_MODEL}),
        "specimen": ("specimen", {}, {"shape": [384, 540], "seed": seed}),
        "SEM image": ("exposure", {"truth": specimen}, {"seed": seed, "noise_seed": 1}),
        DEFAULT_MODEL: ("enhance", {"image": sem_image}, {"model": DEFAULT_MODEL}),
    }
    run_step = partial(_run_step, seconds, run.existing.overwrite)
    records = {}
    for name, step in steps.items():
        records[name] = yield from run_step(name, (places | scans)[name], *step)
    area = {"mosaic": places["mosaic"], "sem": [view_file], "apply": [other_chip]}
    train = partial(run_step, "training", folder / "adapted", "adapt", area)
    adapted = (yield from _train(train, {"minutes": 1.0, "seed": seed})).values
    found = yield from jobs.FRC.job(places["mosaic"])
    yield Progress(0, 0, "writing the report")
    mosaic, sem = jobs.open_image(places["mosaic"]), jobs.open_image(view_file)
    back = io.read_transform(folder / "adapted/registration-1.json").transform.inverse()
    warped = core.WarpedImage(sem, core.Grid.from_image(mosaic), back).read()
    part = mosaic.replace(data=warped, name="sem")
    io.write(part, places["SEM image of a part"], overwrite=True)
    drawn = [name for name in places if name not in ("specimen", "figure")]
    # the part's own file bears a new date
    shown_images = {**places, "SEM image of a part": part}
    images = {"images": [shown_images[name] for name in drawn]}
    yield from run_step("figure", places["figure"], "figure", images, {})
    shown = _measure_positions(scans["scan"], records["mosaic"])
    shown["Mosaic resolves"] = Figure(found.result.resolution_nm, "nm", ".3g")
    shown |= _list_evaluation(adapted)
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
        result=result,
        names=[f"{'abcdefghij'[n]}: {name}" for n, name in enumerate(drawn)],
        picture_png=places["figure"].read_bytes(),
        adapted=adapted,
        provenance=reporting.list_provenance(options.model_dump(mode="json")),
    )
    return result


def _list_evaluation(adapted: Mapping[str, Any]) -> dict[str, Figure]:
    """List how well the model predicts the held-out part, and fits another chip."""
    shown = {}
    for name, row in [*adapted["evaluated"].items()][1:]:
        gain, error = row["gain_below_cutoff_db"], row["gain_below_cutoff_sd_db"]
        label = f"Held-out part, below the cut-off, {name}"
        shown[label] = Figure(gain, DB, "+.2f", sd=error)
    unlike = adapted["applied"][1]["unfamiliar_percent"]
    shown["Another chip"] = Figure(unlike, "% unlike the training area", ".0f")
    return shown


def _measure_positions(scan: Path, stitched: StepRecord) -> dict[str, Figure]:
    """Count the placed frames, and measure nominal and solved positions."""
    frames = core.run(io.open_frames(scan, positions=scan / "truth/positions.csv"))
    true, nominal = frames.nominal_px, core.run(io.open_frames(scan)).nominal_corners()
    assert true is not None and nominal is not None  # noqa: PT018, S101 - simulated
    rows = {row["frame"]: row for row in stitched.values["positions"]}
    found = [(rows[name]["y_px"], rows[name]["x_px"]) for name in frames.names]
    solved = np.array(found, dtype=float)
    placed = np.isfinite(solved[:, 0])
    shown = {"Frames placed": Figure(f"{placed.sum()} of {len(placed)}")}
    for name, one in (("nominal", nominal), ("solved", solved)):
        off = (one - true)[placed]
        rms = float(np.sqrt(off.var(axis=0).sum()))
        shown[f"Error of {name} positions"] = Figure(rms, "px", ".3g")
    return shown
