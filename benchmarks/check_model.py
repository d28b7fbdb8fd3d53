"""Count the objects that a model shows, and those that it invents, for its card.

Run: ``python benchmarks/check_model.py --model NAME|FILE [--write]``; prints the record
as JSON, and with ``--write`` puts it into the card of the model. The weights stay the
same, but the digest of the file changes.

A model that turns light into SEM-like images is tested at each position twice, with an
object and with it removed (`_removals`). For other models, discs of 3 to 6 px radius
and half the local contrast are inserted into ground truths and erased from them before
these are degraded; then each disc is looked for in the enhanced image, and in the
degraded image that the network was given (`_discs`). Ground truths are simulated
samples, the given clear images, or those in a folder that the card names as held out.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from _discs import (
    MARGIN_PX,
    DiscCount,
    DiscPositions,
    DiscResult,
    DiscTrial,
    count_discs,
)
from _removals import MODEL, count_removals, simulate_circuits
from _shared import read_options
from safetensors.torch import load_file
from scipy import ndimage
from scipy.signal import convolve

from napari_semsr import inference, models
from napari_semsr.analysis import compute_block_means
from napari_semsr.core import (
    FloatArray,
    Micrograph,
    OptionError,
    ReadError,
    RealArray,
    get_central_box,
    parse_pixel_size,
    run,
)
from napari_semsr.io import read
from napari_semsr.simulation import (
    COARSE_NM,
    FINE_NM,
    KINDS,
    PHANTOMS,
    GoldOptions,
    add_noise,
    create_gaussian_kernel,
    degrade_plane,
    draw_phantom,
)
from napari_semsr.simulation.degrade import Kind, create_blur_kernels

CHANGES = ("inserted", "erased")
TASKS = ("images", "superlens", "gold")
"""Degradations: as in Gao et al. or, for models with smaller pixels, binning; a
superlens; a coarse scan of gold.
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a check."""

    discs: int = 200  # number of objects to insert; the same number is removed
    size_px: int = 512  # side of the ground truths, in output pixels
    seed: int = 0  # of the positions


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


_CLIP_PERCENTILES = 0.05, 99.95  # become black and white; chosen: few pixels
_WHITE = 255.0


def load_clear_images(
    card: models.ModelCard, side: int, images: Sequence[Path], held_out: Path | None
) -> list[FloatArray]:
    """Read the central crop of each clear image, with grey values from 0 to 255."""
    sources = [(path, 0) for path in images]
    if held_out is not None:
        entries = get_training_data_info(card).get("held_out") or []
        if images or not entries:
            msg = (
                f"The card of {card.name} lists {len(entries)} held-out images; pass "
                "either clear images or the folder of those."
            )
            raise OptionError(msg, code="missing-value")
        sources = [
            (held_out / entry["file"], int(entry.get("crop_bottom", 0)))
            for entry in entries
        ]
    scaled = []
    for path, crop_rows in sources:
        clear = read(path)
        rows, columns = clear.shape[0] - crop_rows, clear.shape[1]
        part = np.asarray(
            clear.data[get_central_box((rows, columns), side).slices], np.float64
        )
        least = 4 * MARGIN_PX
        if min(part.shape, default=0) < least or not np.isfinite(part).all():
            msg = (
                f"Clear images must be finite and at least {least} px high and wide, "
                f"got {path.name} with {rows} x {columns} px."
            )
            raise ReadError(msg, code="image-too-small")
        low, high = np.percentile(part, _CLIP_PERCENTILES)
        unit_range = (part - low) * (_WHITE / max(high - low, 1e-12))
        scaled.append(np.asarray(np.clip(np.rint(unit_range), 0, _WHITE)))
    return scaled


def get_training_data_info(card: models.ModelCard) -> dict[str, Any]:
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


def compute_blur_width_px(kind: Kind) -> float:
    """Compute the combined FWHM of a degradation's kernels, along the wider axis."""
    kernel = reduce(convolve, create_blur_kernels(kind))
    half = [n // 2 for n in kernel.shape]
    widths = []
    for line in (kernel[half[0]], kernel[:, half[1]]):  # interpolated
        level = line.max() / 2
        first, last = np.flatnonzero(line >= level)[[0, -1]]
        padded_line = np.pad(line, 1)
        rise = (padded_line[first + 1] - level) / (
            padded_line[first + 1] - padded_line[first]
        )
        fall = (padded_line[last + 1] - level) / (
            padded_line[last + 1] - padded_line[last + 2]
        )
        widths.append(float(last - first + rise + fall))
    return max(widths)


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


_AT_ONCE = 28  # discs of each change in one simulated sample
_MAX_TRUTHS = 80  # simulated samples at most; chosen: limits the time


def evaluate_source(
    source: GroundTruthSource, model: models.LoadedModel, options: Settings
) -> list[ConditionCheck]:
    """Evaluate discs until there are enough, or no ground truths are left."""
    how = inference.EnhanceOptions()
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
            output = run(inference.enhance_in_memory(scene.field, model, how))
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


def choose_tasks(card: models.ModelCard) -> list[str]:
    """Return the degradations that a model was trained on."""
    shares = get_training_data_info(card).get("sources") or {}
    if card.architecture == "place":  # trained on one pair of images only
        shares = {"superlens": 1}
    return [task for task in TASKS if shares.get(task, 0) > 0] or ["images"]


def check(
    model: models.LoadedModel,
    settings: Settings,
    tasks: Sequence[str] = (),
    *,
    images: Sequence[Path] = (),
    held_out: Path | None = None,
) -> dict[str, Any]:
    """Return the records of a check, as they are kept in a card."""
    card, checks = model.card, dict[str, Any]()
    kind = "held_out" if held_out is not None else "given" if images else "drawn"
    tasks = tasks or (choose_tasks(card) if kind == "drawn" else ["images"])
    if kind != "drawn" and list(tasks) != ["images"]:
        msg = f"The task {tasks[0]} simulates its own samples; omit the clear images."
        raise OptionError(msg, code="options-contradict")
    conditions: list[ConditionCheck] = []
    how: dict[str, int] = {"scale": card.scale, "seed": settings.seed}
    for task in tasks:
        source: GroundTruthSource
        if task == "gold":
            source = SimulatedGoldSource(settings.size_px // card.scale, **how)
        elif task == "images" and kind == "drawn":
            source = ClearImages.simulate(settings.size_px, **how)
        elif task == "images":
            clear = load_clear_images(card, settings.size_px, images, held_out)
            source = ClearImages(clear.__getitem__, len(clear), **how)
        else:
            continue
        conditions += evaluate_source(source, model, settings)
    if conditions:
        records = {one.condition: one.to_record() for one in conditions}
        checks["discs"] = {kind: {"seed": settings.seed, "conditions": records}}
    if "superlens" in tasks:
        side = settings.size_px // card.scale

        def enhance(light: Micrograph) -> RealArray:
            job = inference.enhance_in_memory(light, model, inference.EnhanceOptions())
            return run(job).array()

        removals = count_removals(
            {MODEL: enhance},
            simulate_circuits(side, count=_MAX_TRUTHS, seed=settings.seed),
            side=side,
            scale=card.scale,
            objects=settings.discs,
            seed=settings.seed,
        )
        checks["removals"] = {"seed": settings.seed, **run(removals).to_json()}
    return checks


def merge_checks(known: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return the checks for a card: the new ones, and earlier ones of other images."""
    discs = known.get("discs")
    merged = {**known, **new}
    both = {**(discs if isinstance(discs, dict) else {}), **new.get("discs", {})}
    return {**merged, "discs": both} if both else merged


def main() -> None:
    """Check a model, print the record, and write it into the card."""
    arguments = read_options(
        __doc__,
        "--discs=200 --size_px=512 --seed=0 --write",
        model={"required": True, "help": "name or file of the model"},
        task={"choices": TASKS, "nargs": "*", "default": [], "help": "degradations"},
        images={"type": Path, "nargs": "*", "default": [], "help": "clear images"},
        held_out=(Path, "folder of the images that the card names as held out"),
    )
    path = models.find_model(arguments.model)
    model = models.load_model(path)
    settings = Settings(arguments.discs, arguments.size_px, arguments.seed)
    given = {"images": arguments.images, "held_out": arguments.held_out}
    checks = check(model, settings, arguments.task, **given)
    print(json.dumps(checks, indent=1))
    if arguments.write:
        merged = merge_checks(dict(model.card.checks), checks)
        card = model.card.model_copy(update={"checks": merged}).model_dump_json()
        models.save_weights(path, load_file(path), card=card)


if __name__ == "__main__":
    main()
