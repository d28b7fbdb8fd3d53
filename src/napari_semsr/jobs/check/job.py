"""Check a model for hallucinations by inserting and removing objects.

A network can draw objects that do not exist and remove ones that do. A model that turns
light into SEM-like images is tested at each position twice, with an object and with it
removed (`napari_semsr.jobs.check.removals`). For other models, discs of 3 to 6 px
radius and half the local contrast are inserted into ground truths and erased from them
before these are degraded; then each disc is looked for in the enhanced image, and in
the degraded image that the network was given.
"""

import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from scipy import ndimage

from napari_semsr import inference, models
from napari_semsr.analysis import compute_block_means
from napari_semsr.core import (
    Figure,
    FloatArray,
    Job,
    Micrograph,
    OptionError,
    Options,
    Progress,
    Quantity,
    ReadError,
    RealArray,
    declare_device_option,
    get_central_box,
    get_declared_figures,
    map_progress,
    option,
    parse_pixel_size,
    run,
)
from napari_semsr.io import ReadOptions
from napari_semsr.jobs.check.discs import (
    MARGIN_PX,
    DiscCount,
    DiscPositions,
    DiscResult,
    DiscTrial,
    count_discs,
)
from napari_semsr.jobs.check.removals import count_removals, simulate_circuits
from napari_semsr.jobs.check_record import CHANGES, MODEL, DiscRecord, RemovalTest
from napari_semsr.jobs.images import Image, Result, get_image_name, open_image
from napari_semsr.jobs.verb import MODEL_IN, FileInput, ImageInput, Run, Verb
from napari_semsr.models import find_model
from napari_semsr.simulation import (
    COARSE_NM,
    FINE_NM,
    KINDS,
    PHANTOMS,
    GoldOptions,
    add_noise,
    compute_blur_width_px,
    create_gaussian_kernel,
    degrade_plane,
    draw_phantom,
)


@dataclass(frozen=True, slots=True)
class ConditionCheck:
    """Disc counts for one kind of degradation."""

    condition: str  # kind of degradation
    blur_px: float  # full width at half maximum of the blur, in pixels of the result
    truths: int  # number of ground truths
    rows: tuple[DiscCount, ...]  # by radius and change

    def to_record(self) -> dict[str, object]:
        """Return fractions of correct discs, by radius and for all resolved radii."""
        radii = sorted({row.radius_px for row in self.rows})
        wide = [radius for radius in radii if 2 * radius >= self.blur_px]
        return {
            "blur_width_px": round(self.blur_px, 2),
            "truths": self.truths,
            "radii": [
                {"radius_px": one, "resolved": one in wide, **self._sum_discs([one])}
                for one in radii
            ],
            "resolved": self._sum_discs(wide),
        }

    def _sum_discs(self, radii: Sequence[int]) -> dict[str, object]:
        """Count discs of the given radii, by change and in total."""
        shares: dict[str, Any] = {}
        for name in (*CHANGES, "together"):
            rows = [row for row in self.rows if name in (row.change, "together")]
            rows = [row for row in rows if row.radius_px in radii]
            discs = sum(row.discs for row in rows)
            shares[name] = {"discs": discs}
            for which in ("enhanced", "degraded"):
                right = sum(getattr(row, which) for row in rows)
                shares[name][which] = round(right / discs, 4) if discs else None
        return shares


@dataclass(frozen=True, slots=True)
class ModelCheck(Result):
    """Result of a model check: fractions of correctly reproduced discs, by radius.

    `images` is the kind of ground truths: ``drawn``, ``given`` or ``held_out``; `seed`
    is that of the discs' positions.
    """

    model: Annotated[str, Quantity("Model")]
    path: str
    digest: str  # of the file, including its new card if it was written
    images: Annotated[str, Quantity("Images")]
    seed: int
    conditions: tuple[ConditionCheck, ...] = field(metadata={"json": False})
    # of a model for optical images; None for others
    removals: RemovalTest | None = field(metadata={"json": False})
    written: Annotated[bool, Quantity("Written into the card")]
    seconds: Annotated[float, Quantity("Time", "s", ".1f")]

    def to_card(self) -> dict[str, object]:
        """Return the disc test record for a model card."""
        conditions = {one.condition: one.to_record() for one in self.conditions}
        return {"seed": self.seed, "conditions": conditions}

    def figures(self) -> dict[str, Figure]:
        """Return the fractions of objects, and of discs resolved despite the blur."""
        figures_shown = {} if self.removals is None else self.removals.figures(MODEL)
        if self.conditions:
            record = DiscRecord(self.to_card())
            figures_shown |= record.headline() | record.resolved_figures()
        return figures_shown | get_declared_figures(self)

    def tables(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """Return fractions by radius, with those of the degraded input in brackets."""
        all_tables = {}
        if self.conditions:
            all_tables["discs"] = DiscRecord(self.to_card()).table()
        if self.removals is not None:
            all_tables["removed objects"] = self.removals.table()
        return all_tables

    def summary(self) -> str:
        """Summarise the result in one sentence."""
        if self.removals is not None:
            return self.removals.describe(MODEL)
        lines = DiscRecord(self.to_card()).summary()
        if not lines:
            return f"No disc was wide enough to evaluate {self.model}."
        return f"Discs reproduced correctly by {self.model}: {lines}."

    def to_json(self) -> dict[str, object]:
        """Return the record that the command prints."""
        removals = None if self.removals is None else self.removals.to_json()
        return {**Result.to_json(self), **self.to_card(), "removals": removals}


# Clear images for a check: given ones, or those held out from training.

_CLIP_PERCENTILES = (
    0.05,
    99.95,
)  # percentiles that become black and white; chosen: few pixels
_WHITE = 255.0


@dataclass(frozen=True, slots=True)
class ClearImageSet:
    """Clear images passed by the user, or held out from training."""

    images: tuple[Image, ...]
    # folder of the images that the card names as held out, instead of `images`
    held_out: str | os.PathLike[str] | None
    opening: ReadOptions  # how to read them

    def __post_init__(self) -> None:
        if self.images and self.held_out is not None:
            msg = "Pass either clear images or the folder of held-out images, not both."
            raise OptionError(msg, code="options-contradict")

    @property
    def kind(self) -> str:
        """Kind of images: ``"drawn"``, ``"given"`` or ``"held_out"``."""
        if self.held_out is not None:
            return "held_out"
        return "given" if self.images else "drawn"

    def load_images(self, card: "models.ModelCard", side: int) -> list[FloatArray]:
        """Read the central crop of each image, with grey values from 0 to 255."""
        if self.held_out is None:
            sources = [(image, self.opening, 0) for image in self.images]
        else:
            entries = get_training_data_info(card).get("held_out") or []
            if not entries:
                msg = (
                    f"The model card of {card.name} lists no held-out images; pass "
                    "clear images."
                )
                raise OptionError(msg, code="missing-value")
            folder = Path(self.held_out)
            sources = [
                (folder / entry["file"], self.opening, int(entry.get("crop_bottom", 0)))
                for entry in entries
            ]
        images_scaled = []
        for image, how, crop_rows in sources:
            clear, name = open_image(image, how), get_image_name(image)
            rows, columns = clear.shape[0] - crop_rows, clear.shape[1]
            box = get_central_box((rows, columns), side)
            part = np.asarray(clear.data[box.slices], np.float64)
            least = 4 * MARGIN_PX
            if min(part.shape, default=0) < least:
                msg = (
                    f"Clear images must be at least {least} px high and wide, but "
                    f"{name} has {rows} x {columns} px."
                )
                raise ReadError(msg, code="image-too-small")
            if not np.isfinite(part).all():
                msg = (
                    f"Clear images must be finite, but {name} contains NaN or Inf "
                    "pixels."
                )
                raise ReadError(msg, code="pixels-missing")
            low, high = np.percentile(part, _CLIP_PERCENTILES)
            unit_range = (part - low) * (_WHITE / max(high - low, 1e-12))
            del clear, part  # before the next image is read
            images_scaled.append(np.asarray(np.clip(np.rint(unit_range), 0, _WHITE)))
        return images_scaled


def get_training_data_info(card: "models.ModelCard") -> dict[str, Any]:
    """Return the training data description from a model card."""
    recipe = card.training.get("recipe")
    data = recipe.get("data") if isinstance(recipe, dict) else None
    return data if isinstance(data, dict) else {}


# A source yields ground truths, each changed and then degraded in every way that the
# source has.

_STREAM = 0xD15C  # seed; not used for training or for any choice
_PHANTOM_SEED = 1 << 33  # beyond the seeds of training and validation
_ELECTRONS = 1000.0  # dose per pixel of the simulated images; chosen: a slow scan


@dataclass(frozen=True, slots=True)
class DegradedInput:
    """Degraded network input, with its ground truth."""

    condition: str  # kind of degradation
    field: Micrograph  # the degraded image
    trial: DiscTrial  # the ground truth, on the grid of the network's output

    def resample_input(self, scale: int) -> FloatArray:
        """Resample the degraded image to the ground-truth grid by splines."""
        image = self.field.array().astype(np.float64)
        if scale == 1:
            return image
        return np.asarray(
            ndimage.zoom(image, scale, order=3, mode="nearest", grid_mode=True)
        )


class GroundTruthSource(ABC):
    """Source of ground truths."""

    # full width at half maximum of each condition's blur, in pixels of the ground truth
    widths_px: dict[str, float]
    # number of ground truths; None if unlimited
    count: int | None = None

    @abstractmethod
    def create_scenes(self, index: int, counts: tuple[int, int]) -> list[DegradedInput]:
        """Change one ground truth and apply each degradation to it."""


class ClearImages(GroundTruthSource):
    """Clear 8-bit images used as ground truth.

    `scale`: 1 for the three degradations of Gao et al.; above 1, images are blurred,
    binned by that factor, and exposed to few electrons.
    """

    def __init__(
        self,
        image: Callable[[int], FloatArray],
        count: int | None = None,
        *,
        scale: int,
        seed: int,
    ) -> None:
        self._image, self.count, self.scale, self.seed = image, count, scale, seed
        if scale == 1:
            self.widths_px = {kind: compute_blur_width_px(kind) for kind in KINDS}
        else:
            self.widths_px = {
                "binned": float(np.hypot(compute_blur_width_px("blur"), scale))
            }

    @classmethod
    def simulate(cls, side: int, *, scale: int, seed: int) -> "ClearImages":
        """Create a source of clear images from simulated samples."""

        def create_image(index: int) -> FloatArray:
            kind = PHANTOMS[index % len(PHANTOMS)]
            place = _PHANTOM_SEED + 1000 * seed + index
            return np.rint(
                _WHITE * draw_phantom(kind, (side, side), seed=place).astype(float)
            )

        return cls(create_image, scale=scale, seed=seed)

    def create_scenes(self, index: int, counts: tuple[int, int]) -> list[DegradedInput]:
        """Change one image and apply each degradation to it."""
        rng = np.random.default_rng([self.seed, index, _STREAM])
        clear = self._image(index)
        rows, columns = (n - n % self.scale for n in clear.shape)
        clear = clear[:rows, :columns]
        places = DiscPositions.choose(clear, counts, rng)
        changed_image = places.apply_changes(clear, rng, (0, _WHITE))
        changed_image = np.clip(np.rint(changed_image), 0, _WHITE)
        trial = DiscTrial.from_truths(clear, changed_image, places)
        grey = changed_image.astype(np.uint8)
        if self.scale > 1:
            # blur, average over blocks, expose
            soft = ndimage.convolve(
                changed_image / _WHITE, create_gaussian_kernel(), mode="reflect"
            )
            coarse = compute_block_means(soft, self.scale)
            exposure = _WHITE * add_noise(coarse, _ELECTRONS, 0.0, rng)
            low = np.clip(np.rint(exposure), 0, _WHITE).astype(np.uint8)
            return [DegradedInput("binned", Micrograph(low, name="binned"), trial)]
        return [
            DegradedInput(kind, Micrograph(low.image, name=kind), trial)
            for kind in KINDS
            for low in [degrade_plane(grey, kind, seed=self.seed + index)]
        ]


class SimulatedGoldSource(GroundTruthSource):
    """Simulated gold on carbon, imaged at half of the magnification."""

    def __init__(self, side: int, *, scale: int, seed: int) -> None:
        if scale != 2:
            msg = f"The gold task requires a network of scale 2, got {scale}."
            raise OptionError(msg, code="model-unsuitable")
        self.side, self.seed, self.gold = side, seed, GoldOptions()
        probe = float(np.mean(self.gold.coarse_probe_nm))
        self.widths_px = {"gold": float(np.hypot(probe, COARSE_NM) / FINE_NM)}

    def create_scenes(self, index: int, counts: tuple[int, int]) -> list[DegradedInput]:
        """Change one simulated sample, and simulate a coarse scan of it."""
        rng = np.random.default_rng([self.seed, index, _STREAM])
        emission = self.gold.simulate_emission(self.side, rng).astype(np.float64)
        places = DiscPositions.choose(emission, counts, rng)
        changed_emission = places.apply_changes(
            emission, rng, (0.02, float(emission.max()))
        )
        emission_left = np.maximum(changed_emission, 0.0).astype(np.float32)
        pair = self.gold.create_pair(emission_left, rng)
        original, truth = (
            self.gold.create_ground_truth(plane.astype(np.float32)).astype(np.float64)
            for plane in (emission, emission_left)
        )
        trial = DiscTrial.from_truths(original, truth, places)
        size = parse_pixel_size(COARSE_NM)
        return [DegradedInput("gold", Micrograph(pair.low, size, "gold"), trial)]


Task = Literal["images", "superlens", "gold"]
_TASKS: tuple[Task, ...] = ("images", "superlens", "gold")
_AT_ONCE = 28  # discs of each change in one simulated sample
_MAX_TRUTHS = 80  # simulated samples at most; chosen: limits the time


class CheckOptions(Options):
    """Options for a model check."""

    task: Literal["auto", "images", "superlens", "gold"] = option(
        "auto",
        "Degraded as",
        "Degradation applied to the ground truths: as in Gao et al. or, for models "
        "with smaller pixels, binning; a superlens; a coarse scan of gold. auto uses "
        "the degradation that the model was trained on.",
        choices={
            "automatic": "auto",
            "electron images": "images",
            "superlens images": "superlens",
            "coarse scan of gold": "gold",
        },
    )
    discs: int = option(
        200,
        "Objects",
        ("Number of objects to insert; the same number is removed."),
        ge=4,
        le=10000,
    )
    size_px: int = option(
        512,
        "Side",
        (
            "Side length of the ground truths, in output pixels; larger images are "
            "cropped to the centre."
        ),
        unit="px",
        ge=128,
        le=4096,
        multiple_of=32,
    )
    seed: int = option(0, "Seed", "Random seed of the disc positions.", ge=0)
    device: str = declare_device_option()
    write: bool = option(
        False,
        "Add to the model card",
        "Write the result to the model card. The weights stay the same, but the "
        "digest of the file changes.",
    )


def _check_model(request: Run[CheckOptions]) -> Job[ModelCheck]:
    """Count the objects that a model reproduces, and those that it invents."""
    start = time.perf_counter()
    settings = request.options
    yield Progress(0, 2 * settings.discs, "loading the model")
    path = find_model(request.parameters["model"])
    model = models.load_model(path)
    images: Any = request.image_inputs.get("images") or ()
    clear = ClearImageSet(
        tuple(images), request.parameters["held_out"], request.opening
    )
    condition_checks: list[ConditionCheck] = []
    if settings.task != "auto":
        tasks: list[Task] = [settings.task]
    elif clear.kind != "drawn":
        tasks = ["images"]
    else:
        shares = get_training_data_info(model.card).get("sources") or {}
        if model.card.architecture == "place":  # trained on one pair of images only
            shares = {"superlens": 1}
        tasks = [task for task in _TASKS if shares.get(task, 0) > 0] or ["images"]
    if clear.kind != "drawn" and tasks != ["images"]:
        msg = f"The task {tasks[0]} simulates its own samples; omit the clear images."
        raise OptionError(msg, code="options-contradict")
    for source in list(_create_truth_sources(tasks, model.card, settings, clear)):
        condition_checks += yield from evaluate_source(source, model, settings)
    removals = None
    if "superlens" in tasks:
        # simulated samples, each imaged twice
        scale = model.card.scale
        how = inference.EnhanceOptions(device=settings.device)
        side = settings.size_px // scale

        def enhance(light: Micrograph) -> RealArray:
            return run(inference.enhance_in_memory(light, model, how)).array()

        removals = yield from count_removals(
            {MODEL: enhance},
            simulate_circuits(side, count=_MAX_TRUTHS, seed=settings.seed),
            side=side,
            scale=scale,
            objects=settings.discs,
            seed=settings.seed,
        )
    result = ModelCheck(
        model=model.card.name,
        path=str(path),
        digest=model.digest,
        images=clear.kind,
        seed=settings.seed,
        conditions=tuple(condition_checks),
        removals=removals,
        written=settings.write,
        seconds=round(time.perf_counter() - start, 2),
    )
    if not settings.write:
        return result
    checks = _collect_checks(model.card, result)
    models.write_card(path, model.card.model_copy(update={"checks": checks}))
    return replace(result, digest=models.compute_model_digest(path))


def _collect_checks(card: "models.ModelCard", result: ModelCheck) -> dict[str, object]:
    """Return the checks for a model card: the new one and earlier ones still valid."""
    record_known = DiscRecord.from_card(card.model_dump())
    discs = {kind: dict(record.content) for kind, record in record_known.items()}
    if result.conditions:
        discs[result.images] = result.to_card()
    checks = dict(card.checks)
    if result.removals is not None:
        checks["removals"] = {"seed": result.seed, **result.removals.to_json()}
        for kind, record in list(discs.items()):  # replaced by the paired test
            condition_records = {
                k: v for k, v in record["conditions"].items() if k != "superlens"
            }
            discs[kind] = {**record, "conditions": condition_records}
            if not condition_records:
                del discs[kind]
    checks["discs"] = discs
    return {
        name: condition_records
        for name, condition_records in checks.items()
        if condition_records
    }


def _create_truth_sources(
    tasks: Iterable[Task],
    card: "models.ModelCard",
    options: CheckOptions,
    clear: ClearImageSet,
) -> Iterator[GroundTruthSource]:
    options_used: dict[str, int] = {"scale": card.scale, "seed": options.seed}
    side = options.size_px
    for task in tasks:
        if task == "gold":
            yield SimulatedGoldSource(side // card.scale, **options_used)
        elif task == "images" and clear.kind == "drawn":
            yield ClearImages.simulate(side, **options_used)
        elif task == "images":
            images = clear.load_images(card, side)
            yield ClearImages(images.__getitem__, len(images), **options_used)


def evaluate_source(
    source: GroundTruthSource, model: "models.LoadedModel", options: CheckOptions
) -> Generator[Progress, None, list[ConditionCheck]]:
    """Evaluate discs until there are enough, or no ground truths are left."""
    how = inference.EnhanceOptions(device=options.device)
    verdicts: dict[str, list[DiscResult]] = {name: [] for name in source.widths_px}
    have, truths = (0, 0), 0
    for index in range(source.count or _MAX_TRUTHS):
        left = [max(0, options.discs - n) for n in have]
        if not any(left):
            break
        counts = min(left[0], _AT_ONCE), min(left[1], _AT_ONCE)
        if source.count:  # spread over the remaining truths; few positions suit a disc
            rest = source.count - index
            more = math.ceil(3 * left[1] / rest)
            counts = math.ceil(left[0] / rest), min(left[1], more)
        scenes = source.create_scenes(index, counts)
        places = scenes[0].trial.places
        if len(places.inserted_discs) + len(places.erased_discs) == 0:
            continue
        truths += 1
        for scene in scenes:
            step = Progress(
                sum(min(n, options.discs) for n in have),
                2 * options.discs,
                f"{scene.condition}, ground truth {truths}",
            )
            job = inference.enhance_in_memory(scene.field, model, how)

            def repeat_step(_: Progress, step: Progress = step) -> Progress:
                return step

            output = yield from map_progress(job, repeat_step)
            trial, degraded_image = scene.trial, scene.resample_input(model.card.scale)
            result = trial.find_shown_discs(output.array().astype(np.float64))
            verdict = DiscResult(
                trial.places, result, trial.find_shown_discs(degraded_image)
            )
            verdicts[scene.condition].append(verdict)
        have = have[0] + len(places.inserted_discs), have[1] + len(places.erased_discs)
    if truths == 0:
        msg = (
            "Clear images must have contrast and enough space for discs, but none of "
            f"the {source.count or _MAX_TRUTHS} images does; use larger or sharper "
            "images."
        )
        raise ReadError(msg, code="no-structure")
    return [
        ConditionCheck(name, width, truths, count_discs(verdicts[name]))
        for name, width in source.widths_px.items()
    ]


MODELS_CHECK = Verb(
    "models check",
    (
        ImageInput(
            "images",
            "clear images to degrade; without them, simulated samples are used",
            optional=True,
            flag="--images",
            many=True,
        ),
    ),
    CheckOptions,
    ModelCheck,
    _check_model,
    opens=False,
    files=(
        MODEL_IN,
        FileInput(
            "held_out",
            "folder of the clear images that the card names as held out",
            flag="--held-out",
            metavar="FOLDER",
        ),
    ),
    not_read=tuple(ReadOptions.model_fields),
)
