"""What training on one place of a sample gains on another place of it.

Run: ``python benchmarks/adapt.py --rows ROWS.jsonl [--only NAME;...] [--steps 480]``;
``--trials`` takes the samples that numbers were chosen on, ``--table`` prints what ROWS
holds, and ``--removals`` measures instead what a network trained with defect copies on
the circuit's place A draws of removed objects, on other circuits. A sample that has its
row is not run again.

Two places A and B of each sample are scanned by the simulated superlens microscope (5 x
5 frames of 256 px at 20 nm, numerical aperture 1.8), and A is shown by a simulated
electron microscope (own pixel of 8 nm, turned, sheared, bent, noisy, charging). Frames
are stitched, the electron image is registered to the mosaic, a third of it is held out,
and the network is trained on the rest. B is judged: decibels below the optical cut-off
over the optical image, against the noise-free electron image, after the best gain and
offset. Rivals: the linear filter of 21 x 21 taps fitted to what the network is trained
on, and ``ssum-sem``.

Time is counted in steps, since a shared processor has no seconds: one AVX2 thread that
nothing else used did about 480 in 60 s.
"""

import json
import os
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from _scans import taken
from _shared import Rows, mean_and_error, read_options
from _superlens_mosaic import electrons
from numpy.typing import NDArray

from napari_semsr.analysis import light_gain, measure_metrics
from napari_semsr.core import (
    Box,
    Grid,
    Micrograph,
    SemsrError,
    Warped,
    parse_pixel_size,
    run,
)
from napari_semsr.demonstration.runs import gap_free_box, place_truth
from napari_semsr.inference import EnhanceOptions, enhance_array
from napari_semsr.jobs import REGISTER, fine_circuits, paired_removals
from napari_semsr.models import LoadedModel, load_model
from napari_semsr.restoration import fit_place_filter
from napari_semsr.simulation import ScanOptions, ViewOptions, simulate_scan, take_view
from napari_semsr.stitching import plan_fusion, solve_mosaic
from napari_semsr.training import PlaceFit, PlaceImages, PlaceOptions, fit_place

Image = NDArray[np.floating]
BORDER_PX = 24  # of a mosaic without gaps, in which filters lack what lies beyond
HELD_OUT = 1 / 3  # of the columns of A
REMOVALS_PX, REMOVALS = 512, 80  # side of fields, objects to remove and to put in
COMMON = {"frames_grid": (5, 5), "frame_px": 256, "numerical_aperture": 1.8}


@dataclass(frozen=True)
class Sample:
    """What is scanned at two places, by their seeds, and how."""

    name: str
    seeds: tuple[int, int]
    options: dict[str, Any] = field(default_factory=dict)


def kinds(first: int) -> tuple[Sample, ...]:
    """Give a sample of each of the four kinds, in focus."""
    options: dict[str, dict[str, Any]] = {
        "circuit": {"phantom": "circuit", "pitch_nm": 240.0, "relief_nm": 40.0},
        "particles": {"phantom": "particles"},
        "pits": {"phantom": "pits"},
        "fracture": {"phantom": "fracture", "relief_nm": 150.0},
    }
    return tuple(
        Sample(name, (first + 2 * number, first + 2 * number + 1), more)
        for number, (name, more) in enumerate(options.items())
    )


SAMPLES = kinds(7300)
TRIALS = kinds(4100)


@dataclass(frozen=True)
class Place:
    """One place by light, and its noise-free electron image on the same grid."""

    mosaic: Micrograph
    clean: Image  # (Y, X)
    sem: Image | None  # (Y, X), registered; NaN where it shows nothing
    cut_off_nm: float
    error_px: float | None  # that the registration expects


def look(sample: Sample, seed: int, *, with_sem: bool) -> Place:
    """Scan a place, stitch the frames, and register its electron image."""
    options = ScanOptions.parse({**COMMON, **sample.options, "seed": seed})
    scan = run(simulate_scan(options))
    frames = taken(scan)
    solution = run(solve_mosaic(frames))
    plan = plan_fusion(frames, solution)
    seen, _ = plan.block(Box.of(plan.shape))
    mosaic = Micrograph(seen, scan.pixel_size_nm, "mosaic")
    placed = place_truth(solution.positions_px, scan.nominal_px, scan.true_px)
    origin = placed.origin_px + np.nanmin(solution.positions_px, axis=0)
    clean = electrons(scan, origin, Box.of(plan.shape), 1)
    sem, error_px = None, None
    if with_sem:
        view = take_view(scan, ViewOptions())
        shown = Micrograph(view.image, parse_pixel_size(view.pixel_nm), "sem")
        found = run(REGISTER.job(mosaic, shown))
        back = found.stored.transform.inverse()
        sem = Warped(shown, Grid.of(mosaic), back).read().astype(np.float32)
        error_px = found.registration.error_px
    if options.cut_off_nm is None:
        msg = "These optics have no cut-off."
        raise ValueError(msg)
    return Place(mosaic, clean, sem, options.cut_off_nm, error_px)


def gain_db(place: Place, image: Image) -> float:
    """Decibels below the cut-off over the optical image."""
    box = gap_free_box(np.isfinite(place.mosaic.array())).grow(-BORDER_PX)
    inner = box.slices
    truth = Micrograph(place.clean[inner].astype(float), place.mosaic.pixel_size_nm)
    made, before = (
        measure_metrics(
            Micrograph(np.asarray(one, float)[inner], place.mosaic.pixel_size_nm),
            truth,
            data_range=1.0,
            match="affine",
            cut_off_nm=place.cut_off_nm,
        )
        for one in (image, place.mosaic.array())
    )
    found = light_gain(made, before).gain_below_db
    return float("nan") if found is None else found


def enhanced(place: Place, model: LoadedModel) -> Image:
    """Enhance a mosaic as the product does."""
    return run(enhance_array(place.mosaic, model, EnhanceOptions())).array()


def model_of(fit: PlaceFit) -> LoadedModel:
    """Give a trained network as a model."""
    return LoadedModel(fit.network, fit.card("place"), "sha256:" + "0" * 64)


def train(
    images: PlaceImages,
    options: PlaceOptions,
    steps: int,
    threads: int,
    state: dict[str, Any] | None = None,
) -> PlaceFit:
    """Train on one place for so many steps, or go on from a state."""
    return run(
        fit_place(
            [images],
            options,
            seconds=None,
            steps=steps,
            threads=threads,
            state=state,
            report_every_s=float("inf"),
        )
    )


def place_images(place: Place) -> PlaceImages:
    """Hold a third of a place out."""
    sem = np.asarray(place.sem)
    held_out = np.zeros(sem.shape, bool)
    held_out[:, int((1 - HELD_OUT) * sem.shape[1]) :] = True
    return PlaceImages(place.mosaic.array(), sem, held_out)


def measure_removals(sample: Sample, steps: int, threads: int) -> dict[str, Any]:
    """Train on A with defect copies, and remove objects from other circuits; a row."""
    images = place_images(look(sample, sample.seeds[0], with_sem=True))
    fit = train(images, PlaceOptions(), steps, threads)
    # as `semsr adapt` writes it: the range of grey levels is that of each image
    card = fit.card("place", input_scaling="percentiles")
    model = LoadedModel(fit.network, card, "sha256:" + "0" * 64)

    def enhance(light: Micrograph) -> Image:
        return run(enhance_array(light, model, EnhanceOptions())).array()

    side, seed = REMOVALS_PX, sample.seeds[0]
    surfaces = fine_circuits(side, count=60, seed=seed)
    job = paired_removals(
        {"adapted": enhance}, surfaces, side=side, objects=REMOVALS, seed=seed
    )
    found = run(job)
    name = f"{sample.name}, removals"
    return {"name": name, "seed": seed, "steps": steps, **found.to_json()}


def measure(
    sample: Sample, steps: Iterable[int], threads: int, **options: Any
) -> dict[str, Any]:
    """Train on A with and without defect copies, and judge on B; a row of figures."""
    row: dict[str, Any] = {"name": sample.name, "seed": sample.seeds[0]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            one = look(sample, sample.seeds[0], with_sem=True)
        except SemsrError as error:
            return {**row, "refused": str(error)}
        other = look(sample, sample.seeds[1], with_sem=False)
    images = place_images(one)
    trained_on = np.where(images.held_out, np.nan, images.high)
    linear = fit_place_filter([(images.low, trained_on)])
    forward = fit_place_filter([(trained_on, images.low)])
    row |= {
        "registered_to_px": one.error_px,
        "light_explained": forward.explained,  # by SEM, through the linear filter
        "linear": gain_db(other, linear.apply(other.mosaic.array())),
        "ssum-sem": gain_db(other, enhanced(other, load_model("ssum-sem"))),
    }
    for name, copies in (("without defects", 0), ("with defects", 6)):
        chosen, state = PlaceOptions(copies=copies, **options), None
        row[name] = {}
        for count in steps:
            fit = train(images, chosen, count, threads, state)
            state = fit.state
            row[name][str(count)] = gain_db(other, enhanced(other, model_of(fit)))
    return row


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Write a line for each sample, and the means."""
    rows = list(rows)
    judged = [row for row in rows if "ssum-sem" in row]
    trained = [
        (name, count)
        for name in ("without defects", "with defects")
        for count in (judged[0][name] if judged else ())
    ]
    head = ["sample", "linear filter", "`ssum-sem`"]
    head += [f"{name}, {count} steps" for name, count in trained]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]

    def values(row: dict[str, Any]) -> list[float]:
        found = [row["linear"], row["ssum-sem"]]
        return found + [row[name][count] for name, count in trained]

    for row in judged:
        cells = [f"{value:+.2f}" for value in values(row)]
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    lines += [f"| {r['name']} | {r['refused']} |" for r in rows if "refused" in r]
    if judged:
        means = [
            mean_and_error(column) for column in zip(*map(values, judged), strict=True)
        ]
        lines.append(f"| **mean** | {' | '.join(means)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what has no row yet."""
    args = read_options(
        __doc__,
        "--trials --table --removals",
        rows={"type": Path, "required": True},
        only={"default": "", "metavar": "NAME;NAME"},
        steps=([240, 480], "steps of the training, judged after each"),
        threads=(1, "of the training"),
    )
    rows = Rows(args.rows, "name", "seed")
    if args.table:
        print(table(rows))
        return
    samples = TRIALS if args.trials else SAMPLES
    if args.removals:
        print(
            json.dumps(
                rows.add(measure_removals(samples[0], args.steps[-1], args.threads))
            )
        )
        return
    for sample in samples:
        named = not args.only or sample.name in args.only.split(";")
        if not named or (sample.name, sample.seeds[0]) in rows:
            continue
        row = rows.add(measure(sample, args.steps, args.threads))
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
