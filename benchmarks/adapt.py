"""What training on one place of a sample gains on another place of it.

Run: ``python benchmarks/adapt.py --part PART [--rows ROWS] [--only NAME;...]``, where
PART is one of ``samples`` (the command's own run on each sample), ``elsewhere`` (each
model on the places of all other samples), ``useless`` (what
must be refused), ``removed`` (what a model draws of removed objects), ``bound`` (the
same, trained on copies whose light comes from the simulated optics), ``instrument``
(place B scanned otherwise), ``real`` (pairs of scans in `../shared/data`),
``table``, which prints what ROWS holds, and ``picture``, a
detail for README. What has its row is not run again. `adapt_goals.yaml` names samples
and goals. Commit 80a7c7ea has the programs of the other parts in ROWS.

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
import sys
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import PIL.Image
import yaml
from _removals import change_fields, draw_surface
from _scans import taken
from _shared import ROOT, Rows, mean_and_error, read_options, verdict
from _superlens_mosaic import electrons
from numpy.typing import NDArray
from restorer import PIXEL_NM, WHITE, common, read_pair, register_pair
from scipy import ndimage

from napari_semsr.analysis import (
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
from napari_semsr.inference import (
    EnhanceOptions,
    enhance_in_memory,
)
from napari_semsr.io import (
    ImageIdentity,
    StoredTransform,
    read_transform,
)
from napari_semsr.jobs import (
    ADAPT,
    FIGURE,
    AdaptOptions,
    FigureOptions,
    create_shared_area,
)
from napari_semsr.jobs.adapt import train as training_call
from napari_semsr.jobs.enhance import compare_detail, compare_with_training_area
from napari_semsr.models import (
    LoadedModel,
    load_model,
)
from napari_semsr.pairing.augment import DefectCopy, _ObjectShape
from napari_semsr.restoration import fit_linear_filter
from napari_semsr.simulation import (
    PhantomOptions,
    ScanOptions,
    SemViewOptions,
    Specimen,
    simulate_scan,
    simulate_sem_view,
)
from napari_semsr.simulation.scan import Scene
from napari_semsr.simulation.sem import compute_sem_contrast
from napari_semsr.stitching import plan_fusion, solve_mosaic
from napari_semsr.training import (
    AreaImages,
    AreaOptions,
    fit_area,
    place as training_place,
)

Image = NDArray[np.floating]
FOLDER = Path(__file__).resolve().parent
PLAN: dict[str, Any] = yaml.safe_load((FOLDER / "adapt_goals.yaml").read_text())
WORK = ROOT / "runs" / "adapt"
DATA = ROOT / ".." / "shared" / "data"
BORDER_PX = 24  # of a mosaic without gaps, in which filters lack what lies beyond
REMOVALS_PX = 512  # side of fields in which objects are removed
SURFACE_PX = 2000  # side of a raised lattice; chosen: as 5 x 5 frames need
COMMON = {"frames_grid": (5, 5), "frame_px": 256, "numerical_aperture": 1.8}
PICTURE_PX = 220


@dataclass(frozen=True)
class Sample:
    """What is scanned at places that differ by their seed, and how."""

    name: str
    seed: int
    options: dict[str, Any] = field(default_factory=dict)


SAMPLES = tuple(Sample(**one) for one in PLAN["samples"])
REMOVED = tuple(
    Sample(f"{kind} {seed}", seed, options)
    for seed in PLAN["removed"]["seeds"]
    for kind, options in PLAN["removed"]["kinds"].items()
)
REAL = tuple(Sample(f"real {number:03d}", number) for number in PLAN["real"]["places"])
INSTRUMENT = tuple(Sample(**one) for one in PLAN["instrument"]["samples"])


@dataclass(frozen=True)
class Place:
    """A place by light, by its electron microscope, and without noise on one grid."""

    mosaic: Micrograph
    sem: Micrograph
    clean: Image  # (Y, X)
    cut_off_nm: float


def scan_options(
    sample: Sample, seed: int, focus_nm: float
) -> tuple[ScanOptions, Specimen | None]:
    """Give the options of a scan, and the sample where the options cannot say it."""
    chosen = {**COMMON, **sample.options, "seed": seed, "focus_nm": focus_nm}
    raised = chosen.pop("raised", False)
    options = ScanOptions.parse(chosen)
    how = {"options": options, "seed": seed, "raised": raised}
    return options, draw_surface((SURFACE_PX,) * 2, **how) if raised else None


def look(sample: Sample, seed: int, higher_nm: float = 0.0) -> Place:
    """Scan a place and stitch the frames, once."""
    focus = sample.options.get("focus_nm", 0.0) + higher_nm
    options, source = scan_options(sample, seed, focus)
    if options.cut_off_nm is None:
        msg = "These optics have no cut-off."
        raise ValueError(msg)
    kept = WORK / f"{sample.name}-{seed}-{higher_nm:g}.npz"
    if not kept.exists():
        scan = run(simulate_scan(options, source))
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
            origin=origin,
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


# The parts: each gives rows.


def run_sample(
    sample: Sample, known: set[Any], grid: tuple[int, int] = (5, 5)
) -> Iterator[dict[str, Any]]:
    """Run the command on A, and judge its model on B."""
    if "" in known:
        return
    small = replace(sample, options={**sample.options, "frames_grid": grid})
    one, other = look(sample, sample.seed), look(small, sample.seed + 1)
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
        corner=[area.box.y0, area.box.x0],
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


def judged(
    place: Place, model: LoadedModel, linear: Callable[[Image], Image]
) -> dict[str, Any]:
    """Compare the three that may be used on a place."""
    light = place.mosaic.array()
    compared = compare_with_training_area(place.mosaic, model, EnhanceOptions())
    with warnings.catch_warnings(action="ignore"):
        unlike, _ = run(compared)
    return {
        "linear": gain_db(place, linear(light)),
        "ssum-sem": gain_db(place, enhanced(place, load_model("ssum-sem"))),
        "adapted": gain_db(place, enhanced(place, model)),
        "unfamiliar_percent": unlike,
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
    return load_model(model_path(sample))


def model_path(sample: Sample) -> Path:
    """Name the model that the command has written."""
    return next((WORK / sample.name).glob("*.safetensors"))


def run_instrument(sample: Sample, known: set[Any]) -> Iterator[dict[str, Any]]:
    """Run the command, and judge on 3 x 3 frames of B as others would scan it."""
    yield from run_sample(sample, known)
    model, linear = own_model(sample), linear_filter(sample)
    path = model_path(sample)
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


def run_removed(sample: Sample, known: set[Any]) -> Iterator[dict[str, Any]]:
    """Run the command, and change fields of other places of the sample."""
    if "default" in known:
        return
    stored = WORK / f"{sample.name}.json"  # so that a model is trained once
    for row in () if stored.exists() else run_sample(sample, set(), (3, 3)):
        stored.write_text(json.dumps(row))
    row = json.loads(stored.read_text())
    if "model" in row:
        row |= count_changed(sample, own_model(sample))
    yield {**row, "case": "default"}


def run_bound(sample: Sample, known: set[Any]) -> Iterator[dict[str, Any]]:
    """Train the same network on copies whose light comes from the simulated optics."""
    if known:
        return
    place, model = look(sample, sample.seed), own_model(sample)
    levels = measure_percentiles(place.mosaic.array().ravel()[None])
    how = {"steps": PLAN["steps"], "threads": 1, "report_every_s": float("inf")}
    with patch.object(training_place, "add_defects", optical_copies(sample)):
        options = AreaOptions(least_explained=0.0)
        fit = run(fit_area([trained_area(sample)], options, levels=levels, **how))
    model = replace(model, module=fit.network)
    small = replace(sample, options={**sample.options, "frames_grid": (3, 3)})
    gain = gain_db(other := look(small, sample.seed + 1), enhanced(other, model))
    yield {"case": "optics", "adapted": gain, **count_changed(sample, model)}


def optical_copies(sample: Sample) -> Callable[..., DefectCopy]:
    """Give what copies the area of A with objects that its simulated sample lacks."""
    scan = run(simulate_scan(*scan_options(sample, sample.seed, 0.0)))
    scene, surface = scan.scene, scan.scene.surface
    with (
        np.load(WORK / sample.name / "area.npz") as area,
        np.load(WORK / f"{sample.name}-{sample.seed}-0.npz") as stored,
    ):
        corner, shape = area["corner"] + stored["origin"], area["light"].shape
    y, x = np.meshgrid(
        *(np.arange(n) + c for n, c in zip(shape, corner, strict=True)), indexing="ij"
    )
    fine = scene.oversampling

    def show(changed: Specimen) -> list[Image]:
        own = Scene.from_surface(changed, scene.origin_px, fine, scene.options)
        sem = ndimage.uniform_filter(compute_sem_contrast(changed), fine)
        spline = ndimage.spline_filter(sem, order=3, output=np.float32)
        light = own.compute_spline_coefficients()
        return [own.sample(planes, y, x) for planes in (light, spline)]

    before = show(surface)

    def copy_area(
        low: Image, high: Image, _: Any, seed: Any, *, share: float
    ) -> DefectCopy:
        finite = np.isfinite(high)
        sites = np.stack(
            [(y - scene.origin_px[0]) * fine, (x - scene.origin_px[1]) * fine]
        )
        sites = sites.round().astype(int)
        count = share * finite.sum() * fine**2
        rng = np.random.default_rng(seed)
        other, changed = add_physical_defects(
            surface, sites[:, finite], count, rng, fine
        )
        copies = [
            image + (new - old) * np.polyfit(old[finite], image[finite], 1)[0]
            for image, old, new in zip((low, high), before, show(other), strict=True)
        ]
        planes = (one.astype(np.float32) for one in copies)
        return DefectCopy(*planes, changed[tuple(sites)])

    return copy_area


def add_physical_defects(
    surface: Specimen,
    sites: NDArray[np.intp],
    count: float,
    rng: np.random.Generator,
    fine: int,
) -> tuple[Specimen, NDArray[np.bool_]]:
    """Change so many pixels of a sample near sites (2, N), as `add_defects` does."""
    planes = [surface.height_nm.copy(), surface.material.copy()]
    spans = [float(np.ptp(plane)) or 1.0 for plane in planes]
    changed = np.zeros(surface.material.shape, bool)
    for _ in range(int(count)):
        if changed.sum(dtype=int) >= count:
            break
        form = _ObjectShape.random(rng)
        form = replace(form, half_axes=tuple(fine * a for a in form.half_axes))
        centre, source = (tuple(sites[:, at]) for at in rng.choice(sites.shape[1], 2))
        box = form.find_box(centre, changed.shape)
        if box is None:
            continue
        distance = form.compute_distance()
        cover = np.clip(0.5 - distance, 0, 1).astype(np.float32)
        rim, inside = (distance > 0.5) & (distance <= 3), cover > 0.5
        is_other = rng.random() < 0.5
        news = [p[source] if is_other else np.median(p[box][rim]) for p in planes]
        steps = zip(planes, news, spans, strict=True)
        if max(abs(new - p[box][inside]).mean() / s for p, new, s in steps) < 0.1:
            continue
        for plane, new in zip(planes, news, strict=True):
            plane[box] += cover * (new - plane[box])
        changed[box] |= inside
    return replace(surface, height_nm=planes[0], material=planes[1]), changed


def run_real(sample: Sample, known: set[Any]) -> Iterator[dict[str, Any]]:
    """Run the command on a real pair of scans, and judge its model on other pairs."""
    if known:
        return
    folder, plan = DATA / "dwell_pairs" / "time", PLAN["real"]
    low, high = (to_micrograph(one) for one in read_pair(folder, sample.seed))
    target = WORK / sample.name
    WORK.mkdir(parents=True, exist_ok=True)
    try:
        with fit_for(PLAN["steps"]):
            how = {"options": AdaptOptions(), "overwrite": target.exists()}
            made = run(ADAPT.job(low, [high], target, **how))
    except SemsrError as error:
        yield {"case": "default", "refused": str(error)}
        return
    models = {
        "adapted": load_model(made.model),
        "sem-restore": load_model("sem-restore"),
    }
    gains: dict[str, list[float]] = {name: [] for name in models}
    for number in plan["others"]:
        fast, slow = read_pair(folder, number)
        truth = register_pair(fast, slow)
        inside = common(fast, truth)
        options = {"data_range": WHITE, "match": "affine"}
        reference = Micrograph(truth[inside].astype(float))
        before = measure_metrics(
            Micrograph(fast[inside].astype(float)), reference, **options
        )
        for name, model in models.items():
            job = enhance_in_memory(to_micrograph(fast), model, EnhanceOptions())
            image = Micrograph(run(job).array().astype(float)[inside])
            after = measure_metrics(image, reference, **options)
            gains[name].append(round(after.psnr_db - before.psnr_db, 3))
    yield {"case": "default", "held_out": made.held_out, "gains": gains}


def to_micrograph(image: Image) -> Micrograph:
    """Give a scan its pixel size."""
    return Micrograph(image.astype(np.float32), parse_pixel_size(PIXEL_NM))


def light_levels(sample: Sample) -> tuple[float, float]:
    """Give the reflectances that a model receives as 0 and 1, those of the mosaic of A.

    A field by itself has another range, without the noise of a mosaic's rim.
    """
    scene = run(simulate_scan(*scan_options(sample, sample.seed, 0.0))).scene
    with np.load(WORK / f"{sample.name}-{sample.seed}-0.npz") as stored:
        mosaic, origin = stored["mosaic"], stored["origin"]
    inner = Box.from_shape(mosaic.shape).grow(-mosaic.shape[0] // 4).slices
    places = np.indices(mosaic.shape)
    y, x = (one[inner] + start for one, start in zip(places, origin, strict=True))
    light = scene.sample(scene.compute_spline_coefficients(), y, x)
    gain, offset = np.polyfit(light.ravel(), mosaic[inner].ravel(), 1)
    low, high = measure_percentiles(mosaic.ravel()[None])
    return (low - offset) / gain, (high - offset) / gain


def count_changed(sample: Sample, model: LoadedModel) -> dict[str, Any]:
    """Count objects that are shown, and drawn, where light can show them."""
    options = {key: v for key, v in sample.options.items() if key != "raised"}
    kind, raised = PhantomOptions.parse(options), options != sample.options
    levels = {"input_scaling": "levels", "input_levels": light_levels(sample)}
    model = replace(model, card=model.card.model_copy(update=levels))
    how = {"side": REMOVALS_PX, "seed": sample.seed, "raised": raised}
    found = {name: Counter[str]() for name in ("removed", "inserted")}
    for one in change_fields(kind, **how):
        jobs = [enhance_in_memory(i, model, EnhanceOptions()) for i in one.lights]
        shown = one.find_shown([np.asarray(run(job).array(), float) for job in jobs])
        for site, states in zip(one.sites, shown, strict=True):
            if site.is_detectable:
                count = found["inserted" if site.present else "removed"]
                count["objects"] += 1
                count["shown"] += int(states[site.present])
                count["drawn"] += int(states[1 - site.present])
    return found


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
    "elsewhere": (SAMPLES, run_elsewhere),
    "useless": (SAMPLES, run_useless),
    "removed": (REMOVED, run_removed),
    "bound": (REMOVED, run_bound),
    "instrument": (INSTRUMENT, run_instrument),
    "real": (REAL, run_real),
}


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Write what the rows hold, and which goals are met."""
    order = [sample.name for samples, _ in PARTS.values() for sample in samples]
    rows = [row for row in rows if row["name"] in order]
    parts = defaultdict[str, list[dict[str, Any]]](list)
    for row in sorted(rows, key=lambda row: order.index(row["name"])):
        parts[row["part"]].append(row)
    sections = [
        table_of_samples(parts["samples"]),
        table_of_useless(parts["useless"]),
        table_of_removed(parts["removed"], parts["bound"]),
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
    others = ("linear", "ssum-sem")
    over = {name: [row["adapted"] - row[name] for row in kept] for name in others}
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


def table_of_useless(rows: list[dict[str, Any]]) -> str:
    """Count what is refused."""
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        own = [row for row in rows if row["case"] == case]
        reasons = [row["refused"] for row in own if "refused" in row]
        counts = [f"{reasons.count(r)} {r}" for r in dict.fromkeys(reasons)]
        lines.append((case, len(own), len(reasons), ", ".join(counts)))
    return markdown(("images", "cases", "refused", "as"), lines) if lines else ""


def table_of_removed(rows: list[dict[str, Any]], bounds: list[dict[str, Any]]) -> str:
    """Write what models draw of removed objects, by kind and seed, and the bound."""
    by_optics = {row["name"]: percent(row, "removed", "drawn") for row in bounds}
    head = ("sample", "objects", "shown, %", "drawn", "bound", "inserted, shown", "dB")
    lines = []
    for row in (row for row in rows if "removed" in row):
        line = [row["name"], row["removed"]["objects"]]
        line += [percent(row, "removed", key) for key in ("shown", "drawn")]
        line += [by_optics.get(row["name"], ""), percent(row, "inserted", "shown")]
        lines.append([*line, f"{row['adapted']:+.1f}"])
    if not lines:
        return ""
    goal, kinds = PLAN["goals"]["drawn_percent"], defaultdict[str, list[float]](list)
    for name, _, _, drawn, *_ in lines:
        kinds[name.split()[0]].append(float(drawn))
    means = [float(np.mean(drawn)) for drawn in kinds.values()]
    worst, mean = max(means), float(np.mean(means))
    said = (
        f"drawn of the worst kind: {worst:.0f} % (goal {goal['worst']}: "
        f"{verdict(worst <= goal['worst'])}), mean of kinds {mean:.0f} % (goal "
        f"{goal['mean']}: {verdict(mean <= goal['mean'])})"
    )
    return "\n".join([markdown(head, lines), "", said])


def percent(row: dict[str, Any], group: str, key: str) -> str:
    """Write a share of the objects of a group."""
    count = row[group]
    total = count.get("objects", 0)
    return f"{100 * count.get(key, 0) / total:.0f}" if total else ""


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
        if args.only and sample.name not in args.only.split(";"):
            continue
        known = {key[2] for key in rows.known if key[:2] == (args.part, sample.name)}
        found = measure(sample, known)
        for row in found:
            named = {"part": args.part, "name": sample.name, **row}
            print(json.dumps(rows.add(named)), flush=True)


if __name__ == "__main__":
    main()
