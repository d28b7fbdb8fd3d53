"""Check whether a model shows what is there: discs put into truths and taken out.

A network can draw what is not there and drop what is. Discs of 3 to 6 px radius, of
half the local contrast, are put into truths and taken out of them before an instrument
looks; then the enhanced image is asked for each of them. The same is asked of the
degraded image, which the network was given.
"""

import math
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from napari_semsr.core import (
    Figure,
    Job,
    OptionError,
    Options,
    Progress,
    Quantity,
    ReadError,
    declared_figures,
    device_option,
    option,
    retell,
)
from napari_semsr.io import ReadOptions
from napari_semsr.jobs.check.discs import PresenceRow, Verdict, tally
from napari_semsr.jobs.check.sources import (
    ClearImages,
    ClearSet,
    DegradedTruth,
    DrawnGold,
    DrawnSurfaces,
    TruthSource,
    recipe_data,
)
from napari_semsr.jobs.disc_record import CHANGES, DiscRecord
from napari_semsr.jobs.images import Result
from napari_semsr.jobs.models import MODEL_IN, find_model
from napari_semsr.jobs.verb import FileIn, ImageIn, Run, Verb

if TYPE_CHECKING:
    from napari_semsr.models import LoadedModel, ModelCard

# What was found, as a record for the card and as a table.

_DIGITS = 4


@dataclass(frozen=True, slots=True)
class ConditionCheck:
    """What was found in images that were degraded in one way."""

    condition: str  # How they were degraded
    blur_px: float  # Width at half maximum of the blur, in pixels of the result
    truths: int  # Number of truths
    rows: tuple[PresenceRow, ...]  # By radius and change

    def resolved(self, radius_px: int) -> bool:
        """Tell whether a disc is as wide as the blur."""
        return 2 * radius_px >= self.blur_px

    def to_record(self) -> dict[str, Any]:
        """Give shares of discs that are right, by radius and over the resolved ones."""
        by_radius = []
        for radius in sorted({row.radius_px for row in self.rows}):
            own = [row for row in self.rows if row.radius_px == radius]
            by_radius.append(
                {
                    "radius_px": radius,
                    "resolved": self.resolved(radius),
                    **_by_change(own),
                }
            )
        wide = [row for row in self.rows if self.resolved(row.radius_px)]
        return {
            "blur_width_px": round(self.blur_px, 2),
            "truths": self.truths,
            "radii": by_radius,
            "resolved": _by_change(wide),
        }


@dataclass(frozen=True, slots=True)
class ModelCheck(Result):
    """Whether a model shows what is there: shares of discs that are right, by radius.

    `images` tells what the truths were: ``drawn``, ``given`` or ``held_out``; `seed` is
    of the discs' places.
    """

    model: Annotated[str, Quantity("Model")]
    path: str
    digest: str  # of the file, its new card included where that was written
    images: Annotated[str, Quantity("Images")]
    seed: int
    conditions: tuple[ConditionCheck, ...]
    written: Annotated[bool, Quantity("Written into the card")]
    seconds: Annotated[float, Quantity("Time", "s", ".1f")]

    def to_card(self) -> dict[str, Any]:
        """Give what a card keeps."""
        found = {one.condition: one.to_record() for one in self.conditions}
        return {"seed": self.seed, "conditions": found}

    def figures(self) -> dict[str, Figure]:
        """Write the shares that are right, where the blur resolves the discs."""
        return DiscRecord(self.to_card()).resolved() | declared_figures(self)

    def tables(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """Give the shares of all radii; in brackets, those of the degraded image."""
        return {"discs": DiscRecord(self.to_card()).table()}

    def to_json(self) -> dict[str, Any]:
        """Give the record that a command prints."""
        return {
            "model": self.model,
            "path": self.path,
            "digest": self.digest,
            "images": self.images,
            **self.to_card(),
            "written": self.written,
            "seconds": round(self.seconds, 2),
        }


def _by_change(rows: Sequence[PresenceRow]) -> dict[str, Any]:
    """Sum rows by change, and over both."""
    found = {
        change: _shares([row for row in rows if row.change == change])
        for change in CHANGES
    }
    return {**found, "together": _shares(rows)}


def _shares(rows: Sequence[PresenceRow]) -> dict[str, Any]:
    discs = sum(row.discs for row in rows)

    def share(right: int) -> float | None:
        return round(right / discs, _DIGITS) if discs else None

    return {
        "discs": discs,
        "enhanced": share(sum(row.enhanced for row in rows)),
        "degraded": share(sum(row.degraded for row in rows)),
    }


Task = Literal["images", "superlens", "gold"]
_TASKS: tuple[Task, ...] = ("images", "superlens", "gold")
_AT_ONCE = 28  # discs of each change in one drawn truth
_MOST_TRUTHS = 80


class CheckOptions(Options):
    """How a model is checked."""

    task: Literal["auto", "images", "superlens", "gold"] = option(
        "auto",
        "Degraded as",
        "What degrades the truths: clear images as Gao et al. degraded theirs, or "
        "binned for a model that makes finer pixels; a superlens; a coarse scan of "
        "gold; auto takes what the model was trained on.",
        choices={
            "automatic": "auto",
            "electron images": "images",
            "superlens images": "superlens",
            "coarse scan of gold": "gold",
        },
    )
    discs: int = option(200, "Discs", "Discs to insert, and to erase.", ge=4, le=10000)
    size_px: int = option(
        512,
        "Side",
        "Side of a truth in pixels of the result; larger images give their middle.",
        unit="px",
        ge=128,
        le=4096,
        multiple_of=32,
    )
    seed: int = option(
        0, "Seed", "Makes the discs repeatable; another puts them elsewhere.", ge=0
    )
    device: str = device_option()
    write: bool = option(
        False,
        "Write it onto the model's card",
        "Write what is found into the model's card; its weights stay, the digest of "
        "the file changes.",
    )


def _check(run: Run[CheckOptions]) -> Job[ModelCheck]:
    """Put discs into truths, take some out, and ask a model for them."""
    from napari_semsr.models import file_digest, load_model, write_card

    start = time.perf_counter()
    chosen = run.options
    yield Progress(0, 2 * chosen.discs, "loading the model")
    path = find_model(run.named["model"])
    loaded = load_model(path)
    images: Any = run.given.get("images") or ()
    clear = ClearSet(tuple(images), run.named["held_out"], run.opening)
    found: list[ConditionCheck] = []
    for source in list(_sources(loaded.card, chosen, clear)):
        found += yield from judge_source(source, loaded, chosen)
    result = ModelCheck(
        model=loaded.card.name,
        path=str(path),
        digest=loaded.digest,
        images=clear.kind,
        seed=chosen.seed,
        conditions=tuple(found),
        written=chosen.write,
        seconds=time.perf_counter() - start,
    )
    if not chosen.write:
        return result
    known = DiscRecord.of_card(loaded.card.model_dump())
    discs = {kind: record.found for kind, record in known.items()}
    discs[clear.kind] = result.to_card()
    checks = {**loaded.card.checks, "discs": discs}
    write_card(path, loaded.card.model_copy(update={"checks": checks}))
    return replace(result, digest=file_digest(path))


def _tasks(card: "ModelCard", options: CheckOptions, clear: ClearSet) -> list[Task]:
    """Tell what a model is to be checked on."""
    if options.task != "auto":
        tasks: list[Task] = [options.task]
    elif clear.kind != "drawn":
        tasks = ["images"]
    else:
        shares = recipe_data(card).get("sources") or {}
        tasks = [task for task in _TASKS if shares.get(task, 0) > 0] or ["images"]
    if clear.kind != "drawn" and tasks != ["images"]:
        msg = f"The task {tasks[0]} draws its own samples; leave out the clear images."
        raise OptionError(msg)
    return tasks


def _sources(
    card: "ModelCard", options: CheckOptions, clear: ClearSet
) -> Iterator[TruthSource]:
    """Give what truths come from, for each task."""
    said: dict[str, int] = {"scale": card.scale, "seed": options.seed}
    side = options.size_px
    for task in _tasks(card, options, clear):
        if task == "superlens":
            yield DrawnSurfaces(side // card.scale, **said)
        elif task == "gold":
            yield DrawnGold(side // card.scale, **said)
        elif clear.kind == "drawn":
            yield ClearImages.drawn(side, **said)
        else:
            yield ClearImages(clear.load(card, side), **said)


def judge_source(
    source: TruthSource, loaded: "LoadedModel", options: CheckOptions
) -> Generator[Progress, None, list[ConditionCheck]]:
    """Judge discs until there are as many as are wanted, or no more truths."""
    verdicts: dict[str, list[Verdict]] = {name: [] for name in source.widths_px}
    have, truths = (0, 0), 0
    for index in range(source.count or _MOST_TRUTHS):
        left = [max(0, options.discs - n) for n in have]
        if not any(left):
            break
        counts = _quota(left, source.count and source.count - index)
        scenes = source.scenes(index, counts)
        places = scenes[0].trial.places
        if len(places.inserted) + len(places.erased) == 0:
            continue
        truths += 1
        for scene in scenes:
            step = Progress(
                sum(min(n, options.discs) for n in have),
                2 * options.discs,
                f"{scene.condition}, truth {truths}",
            )
            verdict = yield from _verdict(scene, loaded, options, step)
            verdicts[scene.condition].append(verdict)
        have = have[0] + len(places.inserted), have[1] + len(places.erased)
    if truths == 0:
        msg = (
            "Clear images need contrast and room for discs, got none in "
            f"{source.count or _MOST_TRUTHS}; give larger or clearer ones."
        )
        raise ReadError(msg)
    return [
        ConditionCheck(name, width, truths, tally(verdicts[name]))
        for name, width in source.widths_px.items()
    ]


def _quota(left: list[int], truths: int | None) -> tuple[int, int]:
    """Spread what is wanted over the truths that are left.

    More discs to take out are asked for than are needed: few places have one.
    """
    if truths is None:
        return min(left[0], _AT_ONCE), min(left[1], _AT_ONCE)
    return math.ceil(left[0] / truths), min(left[1], math.ceil(3 * left[1] / truths))


def _verdict(
    scene: DegradedTruth, loaded: "LoadedModel", options: CheckOptions, step: Progress
) -> Generator[Progress, None, Verdict]:
    """Enhance a scene, and judge the result and what it was made of."""
    from napari_semsr.inference import EnhanceOptions, enhance_array

    job = enhance_array(scene.field, loaded, EnhanceOptions(device=options.device))
    made = (yield from retell(job, lambda _: step)).array().astype(np.float64)
    trial = scene.trial
    degraded = scene.degraded(loaded.card.scale)
    return Verdict(trial.places, trial.judge(made), trial.judge(degraded))


MODELS_CHECK = Verb(
    "models check",
    (
        ImageIn(
            "images",
            "clear images to degrade; drawn samples serve without them",
            optional=True,
            flag="--images",
            many=True,
        ),
    ),
    CheckOptions,
    ModelCheck,
    _check,
    opens=False,
    files=(
        MODEL_IN,
        FileIn(
            "held_out",
            "folder of the clear images that the card names as held out",
            flag="--held-out",
            metavar="FOLDER",
        ),
    ),
    not_read=tuple(ReadOptions.model_fields),
)
