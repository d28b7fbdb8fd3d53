"""Check whether a model shows what is there: discs put into truths and taken out.

A network can draw what is not there and drop what is. Discs of 3 to 6 px radius, of
half the local contrast, are put into truths and taken out of them before an instrument
looks; then the enhanced image is asked for each of them. The same is asked of the
degraded image, which the network was given.
"""

import math
import os
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from napari_semsr.analysis.presence import Verdict, tally
from napari_semsr.core.errors import OptionError, ReadError
from napari_semsr.core.options import Options
from napari_semsr.core.progress import Job, Progress
from napari_semsr.services.check_drawn import DrawnGold, DrawnSurfaces
from napari_semsr.services.check_images import ClearSet, recipe_data
from napari_semsr.services.check_results import ConditionCheck, ModelCheck, disc_records
from napari_semsr.services.check_sources import ClearImages, Scene, Source, drawn
from napari_semsr.services.opening import Image, OpenOptions
from napari_semsr.services.shelf import DEFAULT_MODEL, find_model

if TYPE_CHECKING:
    from napari_semsr.models.cards import ModelCard
    from napari_semsr.models.checkpoint import LoadedModel

__all__ = ["CheckOptions", "check_model", "judge_source"]

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


def check_model(
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    images: Sequence[Image] = (),
    *,
    held_out: str | os.PathLike[str] | None = None,
    options: CheckOptions | None = None,
    opening: OpenOptions | None = None,
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
    opening : OpenOptions, optional
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
    from napari_semsr.models import cards
    from napari_semsr.models.checkpoint import load_model

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
    known = disc_records(loaded.card.model_dump())
    discs = {**known, clear.kind: result.to_card()}
    checks = {**loaded.card.checks, "discs": discs}
    cards.write_card(path, loaded.card.model_copy(update={"checks": checks}))
    return replace(result, digest=cards.file_digest(path))


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
) -> Iterator[Source]:
    """Give what truths come from, for each task."""
    said: dict[str, int] = {"scale": card.scale, "seed": options.seed}
    side = options.size_px
    for task in _tasks(card, options, clear):
        if task == "superlens":
            yield DrawnSurfaces(side // card.scale, **said)
        elif task == "gold":
            yield DrawnGold(side // card.scale, **said)
        elif clear.kind == "drawn":
            yield ClearImages(drawn(side, options.seed), **said)
        else:
            yield ClearImages(clear.load(card, side), **said)


def judge_source(
    source: Source, loaded: "LoadedModel", options: CheckOptions
) -> Generator[Progress, None, list[ConditionCheck]]:
    """Judge discs until there are as many as are wanted, or no more truths.

    Parameters
    ----------
    source : Source
        Gives truths, and what is made of them.
    loaded : LoadedModel
        The network.
    options : CheckOptions
        How many discs.

    Returns
    -------
    list of ConditionCheck
        One for each condition of the source.

    Yields
    ------
    Progress
        Discs judged.

    Raises
    ------
    ReadError
        If no truth has room for a disc.
    """
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
    scene: Scene, loaded: "LoadedModel", options: CheckOptions, step: Progress
) -> Generator[Progress, None, Verdict]:
    """Enhance a scene, and judge the result and what it was made of."""
    from napari_semsr.inference.engine import enhance_array
    from napari_semsr.inference.options import EnhanceOptions

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
