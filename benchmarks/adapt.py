"""What training on one place of a sample gains on another place of it.

Run: ``python benchmarks/adapt.py --part PART [--rows ROWS] [--only NAME;...]``, where
PART is one of ``samples`` (the command's own run on each sample), ``focus``,
``elsewhere`` (each model on the places of all other samples, and what is proposed
there), ``rivals``, ``useless`` (what must be refused), ``removals`` (what a model draws
of removed objects), ``copies`` (the same on three kinds of samples), ``instrument``
(place B scanned otherwise), ``place`` (the sample of the File menu, by other seeds),
``table``, which prints what ROWS holds, and ``picture``, a detail for README.
What has its row is not run again. `adapt_goals.yaml` names samples and goals.

Two places A and B of each sample are scanned by the simulated superlens microscope (5 x
5 frames of 256 px at 20 nm, numerical aperture 1.8), and A is shown by a simulated
electron microscope (own pixel of 8 nm, turned, sheared, bent, noisy, charging). Frames
are stitched, and ``semsr adapt`` runs on the mosaic of A and its electron image. B is
judged: decibels below the optical cut-off over the optical image, against the
noise-free electron image, after the best gain and offset.

Time is counted in steps, since a shared processor has no seconds.
"""

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import PIL.Image
import yaml
from _removals import (
    count_removals,
    count_removed_parts,
    simulate_circuits,
    simulate_specimens,
)
from _scans import taken
from _shared import PEER, ROOT, Rows, mean_and_error, read_options, verdict
from _superlens_mosaic import electrons
from numpy.typing import NDArray

from napari_semsr.analysis import (
    UNLIKE_PERCENT,
    compute_psnr_gain,
    measure_metrics,
)
from napari_semsr.core import (
    Affine,
    Box,
    Grid,
    Micrograph,
    SemsrError,
    find_gap_free_box,
    measure_percentiles,
    parse_pixel_size,
    run,
)
from napari_semsr.inference import EnhanceOptions, enhance_in_memory
from napari_semsr.io import (
    STORE_KEY,
    ImageIdentity,
    StoredTransform,
    read_transform,
)
from napari_semsr.jobs import (
    ADAPT,
    FIGURE,
    AdaptationError,
    AdaptOptions,
    FigureOptions,
    create_shared_area,
)
from napari_semsr.jobs.adapt import train as training_call
from napari_semsr.jobs.enhance import compare_detail, compare_with_training_area
from napari_semsr.models import LoadedModel, load_model
from napari_semsr.restoration import fit_linear_filter
from napari_semsr.simulation import (
    PhantomOptions,
    ScanOptions,
    SemViewOptions,
    simulate_scan,
    simulate_sem_view,
)
from napari_semsr.stitching import plan_fusion, solve_mosaic
from napari_semsr.training import AreaImages, AreaOptions, fit_area
from napari_semsr.widgets.hooks import optical_and_sem

Image = NDArray[np.floating]
FOLDER = Path(__file__).resolve().parent
PLAN: dict[str, Any] = yaml.safe_load((FOLDER / "adapt_goals.yaml").read_text())
WORK = ROOT / "runs" / "adapt"
BORDER_PX = 24  # of a mosaic without gaps, in which filters lack what lies beyond
REMOVALS_PX, REMOVALS = 512, 80  # side of fields, objects to remove and to put in
COMMON = {"frames_grid": (5, 5), "frame_px": 256, "numerical_aperture": 1.8}
PICTURE_PX = 220


@dataclass(frozen=True)
class Sample:
    """What is scanned at places that differ by their seed, and how."""

    name: str
    seed: int
    options: dict[str, Any] = field(default_factory=dict)


SAMPLES = tuple(Sample(**one) for one in PLAN["samples"])
COPIES = tuple(Sample(**one) for one in PLAN["copies"]["samples"])
INSTRUMENT = tuple(Sample(**one) for one in PLAN["instrument"]["samples"])
CLOSELY = tuple(one for one in SAMPLES if one.name in PLAN["closely"])


@dataclass(frozen=True)
class Place:
    """A place by light, by its electron microscope, and without noise on one grid."""

    mosaic: Micrograph
    sem: Micrograph
    clean: Image  # (Y, X)
    cut_off_nm: float


def look(sample: Sample, seed: int, higher_nm: float = 0.0) -> Place:
    """Scan a place and stitch the frames, once."""
    focus = sample.options.get("focus_nm", 0.0) + higher_nm
    chosen = {**COMMON, **sample.options, "seed": seed, "focus_nm": focus}
    options = ScanOptions.parse(chosen)
    if options.cut_off_nm is None:
        msg = "These optics have no cut-off."
        raise ValueError(msg)
    kept = WORK / f"{sample.name}-{seed}-{higher_nm:g}.npz"
    if not kept.exists():
        scan = run(simulate_scan(options))
        frames = taken(scan)
        solution = run(solve_mosaic(frames))
        plan = plan_fusion(frames, solution)
        offset = np.nanmean(scan.true_px - solution.positions_px, axis=0)
        origin = offset + np.nanmin(solution.positions_px, axis=0)
        view = simulate_sem_view(scan, SemViewOptions())
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}.npz")
        np.savez(
            partial,
            mosaic=plan.compute_block(Box.from_shape(plan.shape))[0].astype(np.float32),
            clean=electrons(scan, origin, Box.from_shape(plan.shape), 1).astype(
                np.float32
            ),
            sem=view.image,
            pixels_nm=[parse_pixel_size(scan.pixel_size_nm)[0], view.pixel_nm],
        )
        partial.rename(kept)
    with np.load(kept) as stored:
        light, electron = (parse_pixel_size(float(v)) for v in stored["pixels_nm"])
        return Place(
            Micrograph(stored["mosaic"], light, f"mosaic-{seed}"),
            Micrograph(stored["sem"], electron, f"sem-{seed}"),
            stored["clean"],
            options.cut_off_nm,
        )


def gain_db(place: Place, image: Image) -> float:
    """Decibels below the cut-off over the optical image."""
    light = place.mosaic.array()
    box = find_gap_free_box(np.isfinite(light))
    if box is None:
        msg = "The mosaic has no rectangle without gaps."
        raise ValueError(msg)
    inner = box.grow(-BORDER_PX).slices
    pixel = place.mosaic.pixel_size_nm
    truth = Micrograph(place.clean[inner].astype(float), pixel)
    made, before = (
        measure_metrics(
            Micrograph(np.asarray(one, float)[inner], pixel),
            truth,
            data_range=1.0,
            match="affine",
            cut_off_nm=place.cut_off_nm,
        )
        for one in (image, light)
    )
    if made.band_errors is None or before.band_errors is None:
        return float("nan")
    found, _ = compute_psnr_gain(made.band_errors[0], before.band_errors[0])
    return float("nan") if found is None else found


def enhanced(place: Place, model: LoadedModel) -> Image:
    """Enhance a mosaic as the product does."""
    return run(enhance_in_memory(place.mosaic, model, EnhanceOptions())).array()


def fit_for(steps: int) -> AbstractContextManager[object]:
    """Train in this process meanwhile, for so many steps of one thread."""

    def fit(
        images: Any,
        options: AreaOptions,
        *,
        state_file: Path,
        stop_file: Path,
        **how: Any,
    ) -> Any:
        count = {"seconds": None, "steps": steps, "threads": 1}
        return fit_area(images, options, **{**how, **count})

    return patch.object(training_call, "fit_in_process", fit)


def quietly(call: Callable[[], Any]) -> Any:
    """Run without warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()


# The parts: each gives rows.


def run_sample(sample: Sample, known: set[Any]) -> Iterator[dict[str, Any]]:
    """Run the command on A, and judge its model on B."""
    if "" in known:
        return
    one, other = look(sample, sample.seed), look(sample, sample.seed + 1)
    folder = WORK / sample.name
    began = time.process_time()
    try:
        with fit_for(PLAN["steps"]):
            made = run(
                ADAPT.job(
                    one.mosaic,
                    [one.sem],
                    folder,
                    options=AdaptOptions.parse({"cut_off_nm": one.cut_off_nm}),
                    overwrite=folder.exists(),
                )
            )
    except SemsrError as error:
        yield {"case": "", "refused": str(error)}
        return
    spent = time.process_time() - began
    transform = read_transform(folder / "registration-1.json").transform
    area = create_shared_area(one.mosaic, one.sem, transform)
    np.savez(
        folder / "area.npz",
        light=area.light.array(),
        sem=area.sem.array(),
        rows=[area.training_box.y0, area.training_box.y1],
        columns=[area.training_box.x0, area.training_box.x1],
    )
    model = load_model(made.model)
    yield {
        "case": "",
        "processor_s": round(spent, 1),
        "steps": made.steps,
        "registered_to_px": made.registration["error_px"],
        "model": Path(made.model).name,
        "held_out": made.held_out,
        "warnings": list(made.warnings),
        **judged(other, model, linear_filter(sample)),
    }


_KNOWN: dict[tuple[str, float], float] = {}


def untouched(place: Place) -> float:
    """Judge `ssum-sem` on a place, once."""
    key = place.mosaic.name, float(np.nansum(place.mosaic.array()))
    if key not in _KNOWN:
        _KNOWN[key] = gain_db(place, enhanced(place, load_model("ssum-sem")))
    return _KNOWN[key]


def judged(
    place: Place, model: LoadedModel, linear: Callable[[Image], Image]
) -> dict[str, Any]:
    """Compare the three that may be used on a place, and say which is proposed."""
    light = place.mosaic.array()
    compared = compare_with_training_area(place.mosaic, model, EnhanceOptions())
    unlike, _ = quietly(lambda: run(compared))
    return {
        "linear": gain_db(place, linear(light)),
        "ssum-sem": untouched(place),
        "adapted": gain_db(place, enhanced(place, model)),
        "unfamiliar_percent": unlike,
        "proposed": "ssum-sem" if (unlike or 0) > UNLIKE_PERCENT else "adapted",
    }


def trained_area(sample: Sample) -> AreaImages:
    """Give the part of A that the command trained on."""
    with np.load(WORK / sample.name / "area.npz") as stored:
        light, sem = stored["light"], stored["sem"].copy()
        spans = [stored["rows"], stored["columns"]]
    outside = np.ones(sem.shape, bool)
    outside[tuple(slice(int(a), int(b)) for a, b in spans)] = False
    sem[outside] = np.nan
    return AreaImages(light, sem)


def linear_filter(sample: Sample) -> Callable[[Image], Image]:
    """Fit the linear filter to what the command trained on."""
    area = trained_area(sample)
    return fit_linear_filter([(area.low, area.high)]).apply


def own_model(sample: Sample) -> LoadedModel:
    """Load what the command has written."""
    return load_model(next((WORK / sample.name).glob("*.safetensors")))


def run_focus(sample: Sample, known: set[Any]) -> Iterator[dict[str, Any]]:
    """Judge on B as it is scanned at another focus."""
    model, linear = own_model(sample), linear_filter(sample)
    for higher in sorted(set(PLAN["focus_nm"]) - known):
        place = look(sample, sample.seed + 1, higher)
        yield {"case": higher, **judged(place, model, linear)}


def run_instrument(sample: Sample, known: set[Any]) -> Iterator[dict[str, Any]]:
    """Run the command, and judge on 3 x 3 frames of B as others would scan it."""
    yield from run_sample(sample, known)
    model, linear = own_model(sample), linear_filter(sample)
    path = next((WORK / sample.name).glob("*.safetensors"))
    for case, change in PLAN["instrument"]["changes"].items():
        if case not in known:
            options = {**sample.options, "frames_grid": (3, 3), **change}
            other = Sample(f"{sample.name}, {case}", sample.seed + 1, options)
            place = look(other, other.seed)
            compared = compare_detail(place.mosaic, model, path, EnhanceOptions())
            row = {"case": case, "explained_percent": run(compared)}
            yield {**row, **judged(place, model, linear)}


def run_elsewhere(sample: Sample, known: set[Any]) -> Iterator[dict[str, Any]]:
    """Judge on the places B of the other samples."""
    model, linear = own_model(sample), linear_filter(sample)
    for other in SAMPLES:
        if other != sample and other.name not in known:
            place = look(other, other.seed + 1)
            yield {"case": other.name, **judged(place, model, linear)}


def run_rivals(sample: Sample, known: set[Any]) -> Iterator[dict[str, Any]]:
    """Train others on the same pairs for the same time of the processor."""
    if set(PLAN["rivals"]) <= known:
        return
    other, area = look(sample, sample.seed + 1), trained_area(sample)
    fit_began = time.process_time()
    how = {"steps": PLAN["steps"], "threads": 1, "report_every_s": float("inf")}
    run(fit_area([area], AreaOptions(), **how))
    seconds = time.process_time() - fit_began
    given, made = WORK / f"{sample.name}-given.npz", WORK / f"{sample.name}-made.npz"
    low, high = (measure_percentiles(i.ravel()[None]) for i in (area.low, area.high))
    light = other.mosaic.array()
    own = measure_percentiles(light.ravel()[None])
    np.savez(
        given,
        low=(area.low - low[0]) / (low[1] - low[0]),
        high=(area.high - high[0]) / (high[1] - high[0]),
        light=(light - own[0]) / (own[1] - own[0]),
    )
    for rival in PLAN["rivals"]:
        if rival in known:
            continue
        python = PEER if rival in ("care", "monai") else sys.executable
        script = FOLDER / "_adapt_rivals.py"
        command = [python, str(script), rival, str(seconds), str(given), str(made)]
        subprocess.run(command, check=True)
        with np.load(made) as stored:
            yield {
                "case": rival,
                "processor_s": round(seconds, 1),
                "steps": int(stored["steps"]),
                "adapted": gain_db(other, stored["image"]),
            }


def run_useless(sample: Sample, known: set[Any]) -> Iterator[dict[str, Any]]:
    """Run the command on what cannot help; each has to be refused.

    Where the electron image is of something else, its place is stated by a stored
    transform in every second case, so that the registration cannot refuse.
    """
    one = look(sample, sample.seed)
    number = SAMPLES.index(sample)
    neighbour = SAMPLES[(number + 3) % len(SAMPLES)]
    rng = np.random.default_rng(sample.seed)
    sem = one.sem.array()
    tiles = [t for rows in np.array_split(sem, 8) for t in np.array_split(rows, 8, 1)]
    order = rng.permutation(len(tiles))
    least = [min(t.shape[axis] for t in tiles) for axis in (0, 1)]
    tiles = [tiles[i][: least[0], : least[1]] for i in order]
    shuffled = np.block([tiles[8 * row : 8 * row + 8] for row in range(8)])
    flat = rng.normal(0.5, 0.05, one.mosaic.shape).astype(np.float32)
    cases = {
        "another place": (one.mosaic, look(sample, sample.seed + 1).sem),
        "another sample": (one.mosaic, look(neighbour, neighbour.seed).sem),
        "shuffled": (one.mosaic, one.sem.replace(data=shuffled)),
        "flat field": (one.mosaic.replace(data=flat), one.sem),
    }
    for position, (name, (mosaic, image)) in enumerate(cases.items()):
        if name in known:
            continue
        stated = (number + position) % 2 == 1
        how = {} if not stated else {"transform": _centred(mosaic, image)}
        folder = WORK / f"useless-{sample.name}-{position}"
        try:
            with fit_for(PLAN["steps"] // 2):
                made = run(
                    ADAPT.job(
                        mosaic,
                        [image],
                        folder,
                        options=AdaptOptions.parse({"cut_off_nm": one.cut_off_nm}),
                        overwrite=folder.exists(),
                        **how,
                    )
                )
            yield {"case": name, "stated": stated, "kept": made.held_out}
        except SemsrError as error:
            reason = getattr(error, "reason", type(error).__name__)
            yield {"case": name, "stated": stated, "refused": reason}


def _centred(mosaic: Micrograph, sem: Micrograph) -> StoredTransform:
    """State that both images have one centre."""
    own, other = (
        Grid.from_image(one).box_origin(Box.from_shape(one.shape))
        for one in (mosaic, sem)
    )
    shift = Affine.from_matrix(np.eye(2), np.subtract(other, own))
    return StoredTransform(
        shift, ImageIdentity.from_image(mosaic), ImageIdentity.from_image(sem)
    )


def run_removals(sample: Sample, known: set[Any]) -> Iterator[dict[str, Any]]:
    """Remove objects from other circuits; a row for the first sample."""
    if known:
        return
    model = own_model(sample)

    def enhance(light: Micrograph) -> Image:
        return run(enhance_in_memory(light, model, EnhanceOptions())).array()

    side, seed = REMOVALS_PX, sample.seed
    surfaces = simulate_circuits(side, count=60, seed=seed)
    job = count_removals(
        {"adapted": enhance}, surfaces, side=side, objects=REMOVALS, seed=seed
    )
    yield {"case": "removals", "steps": PLAN["steps"], **run(job).to_json()}


def run_copies(sample: Sample, known: set[Any]) -> Iterator[dict[str, Any]]:
    """Run the command, and remove discs of circuits, particles, or pieces of lines."""
    if "network" in known:
        return
    for row in run_sample(sample, set()):
        model, look = own_model(sample), PhantomOptions.parse(sample.options)

        def enhance(light: Micrograph, model: LoadedModel = model) -> Image:
            return run(enhance_in_memory(light, model, EnhanceOptions())).array()

        how: dict[str, Any] = {"side": REMOVALS_PX, "seed": sample.seed}
        if look.phantom == "circuit":
            surfaces = simulate_specimens(look, REMOVALS_PX, count=60, seed=sample.seed)
            job = count_removals({"m": enhance}, surfaces, objects=REMOVALS, **how)
            count = run(job).light_tells["m"]
        else:
            count = count_removed_parts(enhance, look, **how)
        yield {**row, "case": "network", "removed": count.to_json()}


def run_place(_: Sample, known: set[Any]) -> Iterator[dict[str, Any]]:
    """Run the command on the sample of the File menu, drawn by other seeds."""
    for seed in PLAN["place"]["seeds"]:
        cases = {f"{seed}, {steps} steps": steps for steps in PLAN["place"]["steps"]}
        if known >= cases.keys():
            continue
        images = [
            attributes["metadata"][STORE_KEY]
            for _, attributes, _ in optical_and_sem(seed)
        ]
        folder = WORK / f"place-{seed}"
        WORK.mkdir(parents=True, exist_ok=True)
        for case, steps in cases.items():
            began, row = time.process_time(), {"case": case, "kept": True}
            try:
                how = {"overwrite": folder.exists()}
                with fit_for(steps):
                    made = run(ADAPT.job(images[0], images[1:], folder, **how))
                found = made.to_json()["held_out"]
                gains = {
                    "adapted": found["gain_below_cutoff_db"],
                    "linear": found["linear_gain_below_cutoff_db"],
                    "ssum-sem": found["untouched_gain_below_cutoff_db"],
                }
            except AdaptationError as error:
                row |= {"kept": False, "refused": str(error)}
                found = error.facts.get("held_out", {})
                gains = {key: one["gain_below_cutoff_db"] for key, one in found.items()}
            spent = round(time.process_time() - began, 1)
            yield {**row, "processor_s": spent, "gain_below_cutoff_db": gains}


def draw_picture(sample: Sample) -> Path:
    """Draw a detail of place B: mosaic, enhanced, and electron image."""
    place = look(sample, sample.seed + 1)
    image = enhanced(place, own_model(sample))
    first = [(side - PICTURE_PX) // 2 for side in place.mosaic.shape]
    middle = tuple(slice(start, start + PICTURE_PX) for start in first)
    target = ROOT / "docs" / "images" / "own-place.webp"
    pixel = place.mosaic.pixel_size_nm
    details = [
        Micrograph(np.asarray(data, np.float32)[middle], pixel, name)
        for name, data in (
            ("mosaic", place.mosaic.array()),
            ("enhanced", image),
            ("electron image", place.clean),
        )
    ]
    options = FigureOptions(width_mm=170.0, dpi=130, columns=3, no_caption=True)
    drawn = WORK / target.with_suffix(".png").name
    run(FIGURE.job(details, drawn, options=options, overwrite=True))
    PIL.Image.open(drawn).convert("RGB").save(target, quality=90, method=6)
    return target


PARTS: dict[str, tuple[Sequence[Sample], Callable[[Sample, set[Any]], Any]]] = {
    "samples": (SAMPLES, run_sample),
    "focus": (CLOSELY, run_focus),
    "elsewhere": (SAMPLES, run_elsewhere),
    "rivals": (CLOSELY, run_rivals),
    "useless": (SAMPLES, run_useless),
    "removals": (SAMPLES[:1], run_removals),
    "copies": (COPIES, run_copies),
    "instrument": (INSTRUMENT, run_instrument),
    "place": ((Sample("place", 0),), run_place),
}


CHOICES = ("adapted", "ssum-sem", "linear")


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Write what the rows hold, and which goals are met."""
    parts: dict[str, list[dict[str, Any]]] = {name: [] for name in PARTS}
    order = [sample.name for samples, _ in PARTS.values() for sample in samples]
    for row in sorted(rows, key=lambda row: order.index(row["name"])):
        parts[row["part"]].append(row)
    own = {r["name"]: r for r in parts["samples"]}
    sections = [
        table_of_samples([*own.values()]),
        table_of_rivals(parts["rivals"], own),
        table_of_focus(parts["focus"]),
        proposals([*own.values(), *parts["focus"], *parts["elsewhere"]]),
        table_of_useless(parts["useless"]),
        *(found_removals(row) for row in parts["removals"]),
        table_of_copies(parts["copies"]),
        table_of_places(parts["place"]),
    ]
    return "\n\n".join(section for section in sections if section)


def markdown(head: Iterable[str], lines: Iterable[Iterable[object]]) -> str:
    """Write a table."""
    head = [*head]
    ruled = ["|" + "|".join(["---", *["---:"] * (len(head) - 1)]) + "|"]
    rows = ["| " + " | ".join(map(str, line)) + " |" for line in (head, *lines)]
    return "\n".join([rows[0], *ruled, *rows[1:]])


def table_of_samples(rows: list[dict[str, Any]]) -> str:
    """Compare the command's model with what is simpler, on place B."""
    goals, kept = PLAN["goals"], [row for row in rows if "adapted" in row]
    head = ("sample", "linear filter", "`ssum-sem`", "adapted", "over linear")
    head += ("over `ssum-sem`", "unlike A, %")
    lines: list[list[str]] = []
    over = {name: [row["adapted"] - row[name] for row in kept] for name in CHOICES[1:]}
    for number, row in enumerate(kept):
        gains = [row[name] for name in ("linear", "ssum-sem", "adapted")]
        gains += [over[name][number] for name in ("linear", "ssum-sem")]
        unlike = row["unfamiliar_percent"]
        cells = [f"{gain:+.2f}" for gain in gains]
        lines.append([row["name"], *cells, "" if unlike is None else f"{unlike:.0f}"])
    lines += [[row["name"], row["refused"]] for row in rows if "refused" in row]
    if len(kept) < 2:
        return markdown(head, lines)
    columns = [
        [row[name] for row in kept] for name in ("linear", "ssum-sem", "adapted")
    ]
    columns += [over["linear"], over["ssum-sem"]]
    lines.append(["**mean**", *map(mean_and_error, columns), ""])
    said = []
    for name, goal in (("linear", "over_linear_db"), ("ssum-sem", "over_ssum_sem_db")):
        wanted, gains = goals[goal], over[name]
        said.append(
            f"over {name}: mean {np.mean(gains):+.2f} (goal {wanted['mean']:+g}: "
            f"{verdict(np.mean(gains) >= wanted['mean'])}), worst {min(gains):+.2f} "
            f"(goal {wanted['worst']:+g}: {verdict(min(gains) >= wanted['worst'])})"
        )
    refused = len(rows) - len(kept)
    said.append(
        f"refused: {refused} of {len(rows)} samples "
        f"({verdict(refused <= goals['refused_of_samples'])})"
    )
    return "\n".join([markdown(head, lines), "", *said])


def table_of_rivals(rows: list[dict[str, Any]], own: dict[str, dict[str, Any]]) -> str:
    """Write the gains of other networks, next to those of the command's model."""
    if not rows:
        return ""
    cases = [*dict.fromkeys(row["case"] for row in rows)]
    found = {(row["name"], row["case"]): row for row in rows}
    lines = []
    for name in dict.fromkeys(row["name"] for row in rows):
        cells = [found.get((name, case)) for case in cases]
        shown = [
            f"{row['adapted']:+.2f} ({row['steps']} steps)" if row else ""
            for row in cells
        ]
        usual = own.get(name, {}).get("adapted")
        lines.append([name, *shown, "" if usual is None else f"{usual:+.2f}"])
    return markdown(["rivals", *map(str, cases), "as by default"], lines)


def table_of_focus(rows: list[dict[str, Any]]) -> str:
    """Write what another focus costs."""
    head = ("sample", "higher by, nm", *CHOICES, "unlike A, %", "proposed")
    lines = [
        (
            row["name"],
            row["case"],
            *(f"{row[choice]:+.2f}" for choice in CHOICES),
            ""
            if row["unfamiliar_percent"] is None
            else f"{row['unfamiliar_percent']:.0f}",
            row["proposed"],
        )
        for row in rows
    ]
    return markdown(head, lines) if lines else ""


def proposals(rows: list[dict[str, Any]]) -> str:
    """Count how often what is proposed is nearly the best."""
    goal = PLAN["goals"]["proposed_within_db"]
    rows = [row for row in rows if "proposed" in row]
    if not rows:
        return ""
    lines = []
    for part in ("samples", "focus", "elsewhere"):
        own = [row for row in rows if row["part"] == part]
        if own:
            lines.append([part, len(own), *_within(own, goal["margin"])])
    lines.append(["all", len(rows), *_within(rows, goal["margin"])])
    head = ("images", "cases", f"proposed is within {goal['margin']} dB of the best")
    head += tuple(f"{choice} would be" for choice in CHOICES)
    return markdown(head, lines)


def _within(rows: list[dict[str, Any]], margin: float) -> list[str]:
    best = [max(row[choice] for choice in CHOICES) for row in rows]
    shares = []
    for choice in ("proposed", *CHOICES):
        gains = [
            row[row["proposed"] if choice == "proposed" else choice] for row in rows
        ]
        near = [top - gain <= margin for top, gain in zip(best, gains, strict=True)]
        shares.append(f"{100 * np.mean(near):.0f} %")
    return shares


def table_of_useless(rows: list[dict[str, Any]]) -> str:
    """Count what is refused."""
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        own = [row for row in rows if row["case"] == case]
        reasons = [row["refused"] for row in own if "refused" in row]
        counts = [f"{reasons.count(r)} {r}" for r in dict.fromkeys(reasons)]
        lines.append((case, len(own), len(reasons), ", ".join(counts)))
    return markdown(("images", "cases", "refused", "as"), lines) if lines else ""


def found_removals(row: dict[str, Any]) -> str:
    """Write what is drawn of removed objects."""
    goals, found = PLAN["goals"], row["rows"]["adapted"]
    told, everything = found["light_tells"], found["all"]
    drawn, points = told["drawn_percent"], everything["j_points"]
    low, high = told["drawn_interval"]
    return (
        f"removed objects that light tells, drawn: {drawn:.0f} % ({low:.0f} to "
        f"{high:.0f}; goal {goals['drawn_percent']}: "
        f"{verdict(drawn <= goals['drawn_percent'])}); J over all {points:.0f} (goal "
        f"{goals['j_points']}: {verdict(points >= goals['j_points'])})"
    )


def table_of_copies(rows: list[dict[str, Any]]) -> str:
    """Write what models draw of removed objects, by how the light of copies is made."""
    head = ("sample", "light of copies", "objects", "shown, %", "drawn, %", "dB")
    lines = []
    for row in rows:
        found = row["removed"]
        shares = [f"{found[f'{name}_percent']:.0f}" for name in ("shown", "drawn")]
        gain = f"{row['adapted']:+.1f}"
        lines.append((row["name"], row["case"], found["objects"], *shares, gain))
    return markdown(head, lines) if lines else ""


def table_of_places(rows: list[dict[str, Any]]) -> str:
    """Write which trainings on the sample of the File menu are kept."""
    head = ("sample *place*", "kept", "processor, s", "below the cut-off, dB")
    lines = [
        (
            row["case"],
            "yes" if row["kept"] else "no",
            row["processor_s"],
            ", ".join(f"{k} {v:+.2f}" for k, v in row["gain_below_cutoff_db"].items()),
        )
        for row in rows
    ]
    return markdown(head, lines) if lines else ""


def main() -> None:
    """Run what has no row yet."""
    args = read_options(
        __doc__,
        part={"choices": [*PARTS, "table", "picture"], "required": True},
        rows=(FOLDER / "rows" / "adapt.jsonl", "file of the rows"),
        only={"default": "", "metavar": "NAME;NAME"},
    )
    rows = Rows(args.rows, "part", "name", "case")
    if args.part == "table":
        print(table(rows))
        return
    if args.part == "picture":
        print(draw_picture(SAMPLES[0]))
        return
    samples, measure = PARTS[args.part]
    for sample in samples:
        if args.select and sample.name not in args.select.split(";"):
            continue
        known = {key[2] for key in rows.known if key[:2] == (args.part, sample.name)}
        found = measure(sample, known)
        for row in found:
            named = {"part": args.part, "name": sample.name, **row}
            print(json.dumps(rows.add(named)), flush=True)


if __name__ == "__main__":
    main()
