"""Check whether a model shows what is there: discs put into truths and taken out.

A network can draw what is not there and drop what is. Discs of 3 to 6 px radius, of
half the local contrast, are put into truths and taken out of them before an instrument
looks; then the enhanced image is asked for each of them. The same is asked of the
degraded image, which the network was given.
"""

import math
import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field

from napari_semsr.analysis import PresenceRow, Verdict, tally
from napari_semsr.core import Job, OptionError, Options, Progress, ReadError
from napari_semsr.io import ReadOptions
from napari_semsr.jobs.check.sources import (
    ClearImages,
    ClearSet,
    DegradedTruth,
    DrawnGold,
    DrawnSurfaces,
    TruthSource,
    recipe_data,
)
from napari_semsr.jobs.images import Image, Result
from napari_semsr.jobs.models import DEFAULT_MODEL, find_model

if TYPE_CHECKING:
    from napari_semsr.models import LoadedModel, ModelCard

# What was found, as a record for the card and as a table.

_CHANGES = ("inserted", "erased")
_KINDS = ("held_out", "given", "drawn")
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
    """Whether a model shows what is there.

    Attributes
    ----------
    model : str
        Its name.
    path : str
        Its file.
    digest : str
        Of the file, its new card included where that was written.
    images : {"drawn", "given", "held_out"}
        What the truths were.
    seed : int
        Of the discs' places.
    conditions : tuple of ConditionCheck
        What was found.
    written : bool
        Whether the card holds it now.
    seconds : float
        How long it took.
    """

    model: str
    path: str
    digest: str
    images: str
    seed: int
    conditions: tuple[ConditionCheck, ...]
    written: bool
    seconds: float

    def to_card(self) -> dict[str, Any]:
        """Give what a card keeps.

        Returns
        -------
        dict
            Seed, and a record for each condition.
        """
        found = {one.condition: one.to_record() for one in self.conditions}
        return {"seed": self.seed, "conditions": found}

    def to_json(self) -> dict[str, Any]:
        """Give the record that a command prints.

        Returns
        -------
        dict
            What the card keeps, with the model and its file.
        """
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
        for change in _CHANGES
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


@dataclass(frozen=True, slots=True)
class DiscRecord:
    """What a card keeps of a check.

    Attributes
    ----------
    found : mapping
        As `ModelCheck.to_card` gives it.
    """

    found: Mapping[str, Any]

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> dict[str, Self]:
        """Give the records of a card that can be told.

        Parameters
        ----------
        card : mapping
            A model's card, from a file that anybody may have written.

        Returns
        -------
        dict
            By kind of images, those on real images first; what is no such record is
            left out.
        """
        records: Any = (card.get("checks") or {}).get("discs")
        found = {}
        for kind in _KINDS if isinstance(records, dict) else ():
            record = cls(records.get(kind))
            try:
                if all((list(record.rows()), list(record.lines()), record.worst())):
                    found[kind] = record
            except (KeyError, TypeError, ValueError, AttributeError):
                continue
        return found

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Give a table: a head, then a row for each condition and radius.

        Yields
        ------
        tuple of str
            Condition, radius, and for inserted discs, erased ones, and both: how many,
            and the shares that are right in the enhanced and in the degraded image. A
            radius in brackets is one that the blur does not resolve.
        """
        yield ("condition", "radius", "inserted", "erased", "together")
        for name, found in self.found["conditions"].items():
            for row in found["radii"]:
                radius = f"{row['radius_px']} px"
                cells = (_cell(row[change]) for change in (*_CHANGES, "together"))
                yield (name, radius if row["resolved"] else f"({radius})", *cells)
            cells = (_cell(found["resolved"][c]) for c in (*_CHANGES, "together"))
            yield (name, "resolved", *cells)

    def lines(self) -> Iterator[str]:
        """Say it in one line for each condition.

        Yields
        ------
        str
            Over the radii that the blur resolves.
        """
        for name, found in self.found["conditions"].items():
            wide = found["resolved"]
            parts = (f"{change} {_cell(wide[change])}" for change in _CHANGES)
            yield f"{name}: {', '.join(parts)}"

    def worst(self) -> tuple[str, float, float]:
        """Find the condition in which the fewest discs are right.

        Returns
        -------
        tuple of str and float
            Condition, and the shares that are right over the radii that the blur
            resolves: in the enhanced image and in the degraded one.
        """
        shares = {
            name: found["resolved"]["together"]
            for name, found in self.found["conditions"].items()
        }
        tried = {name: both for name, both in shares.items() if both["discs"]}
        pairs = {
            name: (both["enhanced"], both["degraded"]) for name, both in tried.items()
        }
        name = min(pairs, key=lambda name: pairs[name])
        return name, *pairs[name]

    def summary(self) -> str:
        """Say it in a few words.

        Returns
        -------
        str
            Share of discs that are right over the radii that the blur resolves, for
            each condition.
        """
        wide = {
            name: found["resolved"]["together"]
            for name, found in self.found["conditions"].items()
        }
        return ", ".join(
            f"{name} {100 * both['enhanced']:.1f} %"
            for name, both in wide.items()
            if both["discs"]
        )


def _cell(shares: Mapping[str, Any]) -> str:
    """Say a share, that of the degraded image, and how many discs there were."""
    if not shares["discs"]:
        return "\N{EN DASH}"
    enhanced, degraded = 100 * shares["enhanced"], 100 * shares["degraded"]
    return f"{enhanced:.1f} % ({degraded:.1f} %) of {shares['discs']}"


Task = Literal["images", "superlens", "gold"]
_TASKS: tuple[Task, ...] = ("images", "superlens", "gold")
_AT_ONCE = 28  # discs of each change in one drawn truth
_MOST_TRUTHS = 80


class CheckOptions(Options):
    """How a model is checked."""

    task: Literal["auto", "images", "superlens", "gold"] = Field(
        default="auto",
        description="what degrades the truths: clear images as Gao et al. degraded "
        "theirs, or binned for a model that makes finer pixels; a superlens; a coarse "
        "scan of gold; auto takes what the model was trained on",
    )
    discs: int = Field(
        default=200, ge=4, le=10000, description="discs to insert, and to erase"
    )
    size_px: int = Field(
        default=512,
        ge=128,
        le=4096,
        multiple_of=32,
        description="side of a truth in pixels of the result; larger images give their "
        "middle",
    )
    seed: int = Field(default=0, ge=0, description="makes the discs repeatable")
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto, cpu, cuda or cuda:N",
    )


def check_model_job(
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    images: Sequence[Image] = (),
    *,
    held_out: str | os.PathLike[str] | None = None,
    options: CheckOptions | None = None,
    opening: ReadOptions | None = None,
    write: bool = False,
) -> Job[ModelCheck]:
    """Put discs into truths, take some out, and ask a model for them.

    Parameters
    ----------
    model : str or path, default="sem-restore"
        A name on the shelf, or a ``.safetensors`` file.
    images : sequence of Micrograph or path, optional
        Clear images; drawn samples serve without them.
    held_out : path, optional
        Folder of the clear images that the model's card names as held out, in place of
        `images`.
    options : CheckOptions, optional
        How many discs, and what degrades.
    opening : ReadOptions, optional
        How to read files.
    write : bool, default=False
        Write what is found into the model's card. Its weights stay as they are; the
        digest of the file, which covers the card, changes.

    Returns
    -------
    ModelCheck
        Shares of discs that are right, by radius.

    Yields
    ------
    Progress
        Discs judged.

    Raises
    ------
    OptionError, ReadError
        If images are given to a task that draws its own, or have no room for discs.
    WriteError
        If the card cannot be written.
    """
    from napari_semsr.models import file_digest, load_model, write_card

    start = time.perf_counter()
    chosen = options or CheckOptions()
    yield Progress(0, 2 * chosen.discs, "loading the model")
    path = find_model(model)
    loaded = load_model(path)
    clear = ClearSet(tuple(images), held_out, opening)
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
        written=write,
        seconds=time.perf_counter() - start,
    )
    if not write:
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
    with closing(job):
        while True:
            try:
                next(job)
            except StopIteration as end:
                made = end.value.array().astype(np.float64)
                break
            yield step
    trial = scene.trial
    degraded = scene.degraded(loaded.card.scale)
    return Verdict(trial.places, trial.judge(made), trial.judge(degraded))
