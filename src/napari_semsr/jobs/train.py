"""Train a model from a recipe, in a folder that keeps what is needed to go on."""

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import field_validator

from napari_semsr import inference, models, training
from napari_semsr.core import (
    DB,
    CheckpointError,
    Figure,
    Job,
    OptionError,
    Options,
    Progress,
    Quantity,
    ReadError,
    ShapeError,
    declared_figures,
    device_option,
    field_range,
    in_digits,
    option,
    parse_pixel_size,
    warn,
)
from napari_semsr.io import StoredTransform, move
from napari_semsr.jobs.images import (
    Image,
    OverwritePolicy,
    Result,
    check_not_input,
    check_target_folder,
    jsonable,
    name_of,
    open_image,
    record_input,
)
from napari_semsr.jobs.models import find_model
from napari_semsr.jobs.pairs import LEAST_SIDE, PAIRS, fitting_options
from napari_semsr.jobs.register import COSTLY_PX
from napari_semsr.jobs.verb import FileIn, Group, ImageIn, Output, Run, Verb
from napari_semsr.pairing import PairOptions, open_pairs


class TrainOptions(Options):
    """What is trained otherwise than the recipe says."""

    steps: int | None = option(
        None, "Steps", "Train this long; the recipe's schedule is stretched.", ge=1
    )
    name: str | None = option(
        None, "Name", "Name of the model, which lists call it by."
    )
    patch: int | None = option(
        None,
        "Patch",
        "Side of the patches to learn from, no larger than those of the pairs; smaller "
        "ones give more of them.",
        unit="px",
    )
    from_scratch: bool = option(
        False,
        "From scratch",
        "Begin with fresh weights although the recipe names a model; its network is "
        "kept.",
    )


class TrainingPlace(Options):
    """Where a training runs: a person says so, and no recipe."""

    bank_folder: str | None = option(
        None,
        "",
        "Where scenes are kept that a recipe makes ahead (data.bank), to be shared by "
        "several runs; by default in the folder of the run.",
        by_person=True,
    )
    device: str = device_option(
        "Where to train: auto (a CUDA card, else the CPU), cpu, cuda or mps; cuda:1 is "
        "the second card.",
        trains=True,
    )
    devices: int | None = option(
        None,
        "",
        "Cards, or processes on a CPU, of this machine that train together, each on "
        "its own batches.",
        by_person=True,
    )
    nodes: int | None = option(
        None, "", "Machines that learn together.", by_person=True
    )

    def several(self) -> dict[str, int | None]:
        """Say how many learn together, as a recipe names it."""
        return {"devices": self.devices, "nodes": self.nodes}

    @field_validator("bank_folder", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """Take a path, too."""
        return os.fspath(value) if isinstance(value, os.PathLike) else value


# The recipes that come with the package, and what a recipe says of itself.

RECIPES = Path(__file__).parent.parent / "recipes"
"""Folder of the recipes that learn from a store of pairs."""


@dataclass(frozen=True, slots=True)
class RecipeFacts(Result):
    """What a recipe says of itself."""

    name: str  # that it gives its model
    path: str
    description: str
    kind: str  # of training
    architecture: str  # ``same``: that of `start_from`
    steps: int
    patch_px: int
    scale: int  # clear pixels for each degraded one
    start_from: str | None  # bundled model or file whose weights it begins with


def bundled_recipes() -> list[str]:
    """Name the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def _find_recipe(name_or_path: str | os.PathLike[str]) -> Path:
    """Find a recipe: a file, or one that comes with the package."""
    path = Path(name_or_path)
    if path.is_file():
        return path
    if str(name_or_path) in bundled_recipes():
        return RECIPES / f"{name_or_path}.yaml"
    msg = (
        f"There is no recipe {path}; give a YAML file, or one of "
        f"{', '.join(bundled_recipes())}."
    )
    raise ReadError(msg, code="recipe-unknown")


def recipe_facts(name_or_path: str | os.PathLike[str]) -> RecipeFacts:
    """Read what a recipe says of itself; torch is not needed for that."""
    path = _find_recipe(name_or_path)
    recipe = training.load_recipe(path)
    names = ("name", "description", "kind", "architecture", "steps", "start_from")
    return RecipeFacts(
        path=str(path),
        patch_px=recipe.data.patch_px,
        scale=_scale(recipe),
        **{name: getattr(recipe, name) for name in names},
    )


def _scale(recipe: "training.Recipe") -> int:
    """Clear pixels for each degraded one."""
    card = _start_card(recipe)
    if recipe.architecture == training.SAME and card is not None:
        return card.scale
    return int(recipe.architecture_options.get("scale", 1))


def _start_card(recipe: "training.Recipe") -> "models.ModelCard | None":
    """Read the card of the model that a recipe begins with."""
    start = recipe.start_from
    return None if start is None else models.read_card(models.resolve(start))


_LEAST_PAIRS = 2  # that a store must hold to train on; chosen


@dataclass(frozen=True, slots=True)
class CutRequest:
    """Two images of one place that pairs are cut from, to train on.

    Patch, step, scale and pixel are made to fit the recipe, its model and the images
    where `options` do not set them.
    """

    low: Image  # what is to be improved
    high: Image  # what it should look like
    # from LOW, the moving image, to HIGH; None where both lie on one grid
    transform: StoredTransform | str | os.PathLike[str] | None = None
    options: PairOptions = field(default_factory=PairOptions)


@dataclass(frozen=True, slots=True)
class OwnImage:
    """A noisy image to learn from by itself, or by a second scan of the same place."""

    image: Image  # that the model is for
    second: Image | None = None  # by the same instrument; it is registered first


def images_to_cut(
    low: Image | None,
    high: Image | None,
    transform: StoredTransform | str | os.PathLike[str] | None = None,
    *,
    image: Image | None = None,
    second: Image | None = None,
) -> CutRequest | OwnImage | None:
    """Take the images that a user gave to train on, in either of the two ways."""
    if (low is None) != (high is None) or (low is None and transform is not None):
        msg = "Training on a pair of images needs `low` and `high`; give both."
        raise OptionError(msg, code="missing-value")
    if second is not None and image is None:
        msg = "A second scan needs the first one: give `image`, too."
        raise OptionError(msg, code="missing-value")
    if image is not None and low is not None:
        msg = "Give `low` and `high`, or `image` to learn from it alone, not both."
        raise OptionError(msg, code="options-contradict")
    if image is not None:
        return OwnImage(image, second)
    return None if low is None or high is None else CutRequest(low, high, transform)


HELD_OUT = {
    "gain_db": Quantity("Held-out gain", DB, "+.2f"),
    "expected_gain_db": Quantity("Expected gain", DB, "+.2f"),
    "psnr_db": Quantity("PSNR", DB, ".2f"),
    "ssim": Quantity("SSIM", "", ".4f"),
    "frc_per_px": Quantity("Agreement with the truth up to", "per px", ".3f"),
    "hidden_db": Quantity("Hidden pixels, over their neighbours' mean", DB, "+.2f"),
    "alike_rows_px": Quantity("Noise alike from line to line, up to", "px", ".0f"),
    "alike_columns_px": Quantity("Noise alike along a line, up to", "px", ".0f"),
}
"""What a validation measures, by its keys."""

_JUDGED = {
    "input": "Low as it is",
    "linear filter": "Best linear filter",
    "untouched": "Model before training",
    "trained": "Trained model",
}
_ROW = {"psnr_db": f"{{:.2f}} {DB}", "ssim": "SSIM {:.3f}"}
_ROW["frc_per_px"] = "FRC to {:.3f} per px"


def held_out_figures(validation: Mapping[str, Any]) -> dict[str, Figure]:
    """Write what a validation measured."""
    quantities = {key: HELD_OUT.get(key, Quantity(key)) for key in validation}
    return {
        q.label: Figure(validation[key], q.unit, q.form)
        for key, q in quantities.items()
    }


def compared_figures(comparison: Mapping[str, Any] | None) -> dict[str, Figure]:
    """Write what models came to on held-out pairs, as `Trained` has it."""
    if comparison is None:
        return {}
    rows, off_nm = comparison["rows"], comparison.get("map_error_nm")
    where = (
        f"{comparison['pairs']} pairs of the {comparison['set']} set, data range 255"
    )
    figures = {"Judged on": Figure(where)}
    for name, row in rows.items():
        texts = [words.format(row[key]) for key, words in _ROW.items() if key in row]
        figures[_JUDGED[name]] = Figure(", ".join(texts))
    if "untouched" in rows:
        gain = rows["trained"]["psnr_db"] - rows["untouched"]["psnr_db"]
        note = "" if comparison["kept"] else "not kept"
        figures["Gain of training"] = Figure(gain, DB, "+.2f", note)
    if off_nm is not None:
        px = comparison.get("map_error_px")
        beside = "" if px is None else f"({px:.2g} px)"
        figures["Expected error of the map"] = Figure(off_nm, "nm", ".3g", beside)
    return figures


@dataclass(frozen=True, slots=True)
class Trained(Result):
    """What a training run came to: steps, figures that were held out, the best model.

    `comparison` is made on held-out pairs, which nothing learnt from: ``rows`` with
    ``psnr_db``, ``ssim`` and ``frc_per_px`` of ``input``, ``linear filter``,
    ``untouched`` and ``trained``; the ``set``, its number of ``pairs``, and
    ``begun_with``, the name of the untouched model; ``map_error_nm`` and
    ``map_error_px``, by which the pairs are expected to be off. None where there are no
    pairs. `kept` tells whether the trained model is better there than the untouched
    one; if not, the file is the untouched one.
    """

    steps: Annotated[int, Quantity("Steps", form="d")]  # those before a resume, too
    validation: Any
    model: Annotated[str, Quantity("Model")]
    run_dir: str
    comparison: Any = None
    kept: bool = True

    def figures(self) -> dict[str, Figure]:
        """Write what was held out, and what the comparison tells."""
        held_out = held_out_figures(self.validation or {})
        return declared_figures(self) | held_out | compared_figures(self.comparison)

    def gain_over(self, which: str) -> float | None:
        """Tell by how much the trained model is better on held-out pairs."""
        rows = (self.comparison or {}).get("rows", {})
        if which not in rows:
            return None
        return float(rows["trained"]["psnr_db"] - rows[which]["psnr_db"])


def _train(run: Run[TrainOptions]) -> Job[Trained]:
    """Train a model; with images, the whole way to what a fine-tuned one gained.

    `cut`: what pairs are cut from, in place of images; they lie beside the folder of
    the run, and a run that is resumed takes those.
    """
    settings, files_named, folder = run.options, run.named, run.place
    existing, resume = run.existing, run.existing.resume
    pairs, start_from, recipe = (
        files_named["pairs"],
        files_named["start_from"],
        files_named["recipe"],
    )
    sides = (run.given.get("low"), run.given.get("high"), files_named["transform"])
    alone = {role: run.given.get(role) for role in ("image", "second")}
    cut = files_named.get("cut") or images_to_cut(*sides, **alone)
    path = _find_recipe(recipe)
    yield Progress(0, 0, f"reading {path.name}")
    plan = training.load_recipe(path)
    place = _choose_place(plan, files_named.get("place") or TrainingPlace())
    if resume and existing.overwrite:
        msg = "Give `resume` to go on or `overwrite` to start anew, not both."
        raise OptionError(msg, code="options-contradict")
    if settings.from_scratch and start_from is not None:
        msg = "Give `start_from` (a model) or `from_scratch` (none), not both."
        raise OptionError(msg, code="options-contradict")
    beside, is_packaged = _pairs_beside(folder), path.parent == RECIPES
    if (
        resume
        and pairs is None
        and (cut is not None or is_packaged)
        and beside.is_dir()
    ):
        yield from _check_images(folder, beside, cut)
        pairs, cut = beside, None  # which were cut for this run
    if cut is not None:
        if pairs is not None:
            msg = "Give `pairs` for a store, or `low` and `high` for images, not both."
            raise OptionError(msg, code="options-contradict")
        without = {
            k: v for k, v in files_named.items() if k not in ("cut", "transform")
        }

        def on(store: Path) -> Job[Trained]:
            files = {"pairs": store, "transform": None, "place": place}
            more = {"named": {**without, **files}}
            fresh = replace(existing, resume=False)
            return _train(run.on(None, folder, existing=fresh, **more))

        return (
            yield from with_pairs(
                on,
                cut,
                folder,
                recipe=recipe,
                start_from=start_from,
                patch=settings.patch,
                existing=existing,
            )
        )
    if pairs is None and is_packaged:
        learns = (
            "learns from one image; give it by `image`."
            if plan.blind
            else "of the package learns from pairs; give `pairs`, or two images by "
            "`low` and `high`."
        )
        raise OptionError(f"The recipe {path.stem} {learns}", code="missing-value")
    values = {"pairs": pairs, "start_from": start_from, **settings.model_dump()}
    plan = _change_plan(plan, values | place.several())
    _check_data(plan, folder)
    fit_result = yield from training.train(
        plan,
        folder,
        device=place.device,
        bank_folder=place.bank_folder,
        **existing.at(folder, folder),
    )
    comparison = fit_result.comparison
    if comparison is not None and not comparison.kept:
        warn(
            f"Training made nothing better than {comparison.begun_with} on "
            f"{comparison.pairs} held-out pairs, which is kept as it is: cut more "
            "pairs, or see that they fit.",
            "no-gain",
        )
    return Trained(
        steps=fit_result.steps,
        validation=jsonable(fit_result.validation),
        model=str(fit_result.model),
        run_dir=str(folder),
        comparison=jsonable(comparison),
        kept=comparison is None or comparison.kept,
    )


def _choose_place(plan: "training.Recipe", place: TrainingPlace) -> TrainingPlace:
    """Choose the device, so that its refusal comes first and its warning once."""
    counts = {k: n for k, n in place.several().items() if n is not None}
    device = training.training_device(plan.replace(**counts), place.device)
    return place.replace(device=str(device))


def _change_plan(plan: "training.Recipe", changes: dict[str, Any]) -> "training.Recipe":
    """Put what the user gave in place of what the recipe says."""
    changes_given = {key: value for key, value in changes.items() if value is not None}
    from_scratch = changes_given.pop("from_scratch")
    if "steps" in changes_given:
        plan = plan.with_steps(changes_given.pop("steps"))
    data: dict[str, Any] = {}
    if "pairs" in changes_given:
        path = Path(changes_given.pop("pairs")).resolve()
        most = int(open_pairs(path).record["patch"])
        data = {"pairs": str(path), "patch_px": min(plan.data.patch_px, most)}
    if "patch" in changes_given:
        data["patch_px"] = changes_given.pop("patch")
    if data:
        changes_given["data"] = plan.data.replace(**data)
    if "start_from" in changes_given:
        changes_given["start_from"] = str(
            find_model(changes_given["start_from"]).resolve()
        )
    plan = plan.replace(**changes_given) if changes_given else plan
    if plan.blind and plan.data.pairs is not None:
        plan = _of_own_image(plan, Path(plan.data.pairs))
    if from_scratch:  # the network is kept, the weights it would begin with are not
        plan = plan.settle().replace(start_from=None, local_from=None)
    return plan


def _of_own_image(plan: "training.Recipe", path: Path) -> "training.Recipe":
    """Learn from two scans where there are two, and say from which image."""
    record = open_pairs(path).record
    names = [record["sources"][side][0]["name"] for side in ("low", "high")]
    both = bool(record["options"].get("second_scan"))
    sentence = f" Learnt from {' and '.join(names if both else names[:1])}."
    description = (
        plan.description.removesuffix(sentence) + sentence
    )  # of a run that goes on
    if not both:
        return plan.replace(description=description)
    # what one scan shows is the best that can be said of the other but for its noise
    return plan.replace(
        kind="supervised", loss="mse", measure="gain_db", description=description
    )


def _check_data(plan: "training.Recipe", folder: Path) -> None:
    """Tell of a judge that flatters; refuse a store that teaches nothing."""
    if common := plan.data.files_in_several_sets():
        warn(
            f"{', '.join(common)} stands in more than one of train, scans, validation "
            "and held_out, so that the model is judged by what it learnt from: its "
            "gain may be none elsewhere.",
            "not-independent",
        )
    if plan.data.pairs is None:
        return
    path = Path(plan.data.pairs)
    check_not_input(folder, [path])
    store = open_pairs(path)
    counts = store.counts
    if counts["train"] < _LEAST_PAIRS:
        msg = (
            f"Training needs at least {_LEAST_PAIRS} pairs to learn from, got "
            f"{counts['train']} in {path.name}; cut smaller patches (`patch`), or let "
            "them overlap (`step`)."
        )
        raise OptionError(msg, code="too-few-pairs")
    if store.paired and not counts["validation"]:
        msg = (
            "Training needs pairs for validation, which choose the model, got none in "
            f"{path.name}; leave some for it (`validation`)."
        )
        raise OptionError(msg, code="too-few-pairs")
    _tell_pixel(plan, store.record)
    off_nm, off_px = store.map_error or (None, None)
    if off_nm is not None and off_px is not None and off_px >= COSTLY_PX:
        warn(
            f"The map that the pairs were cut by is expected to be {off_px:.2g} px "
            f"({in_digits(off_nm)} nm) off. Those that are held out are off as well, "
            "so that a gain on them may be a loss: register again first, with "
            "landmarks or an elastic map.",
            "map-imprecise",
        )


def _trained_for(card: "models.ModelCard") -> "inference.TrainedPixelSizes":
    """Take what a model's card says of pixel sizes."""
    return inference.TrainedPixelSizes.from_card(card.model_dump())


def _tell_pixel(plan: "training.Recipe", record: dict[str, Any]) -> None:
    """Warn where a model goes on with pixels that it was not trained for."""
    card, fine = _start_card(plan), record.get("pixel_size_nm")
    if card is None or card.pixel_size_nm is None:
        return
    pixel_size = _trained_for(card)
    if fine is None:
        warn(
            f"The pairs have no pixel size, or several, and {card.name} was trained "
            f"for {pixel_size.sentence()}, which they are taken to have: give their "
            "sizes (`low_pixel_nm`, `high_pixel_nm`), and train on those of one size.",
            "pixel-size-missing",
        )
        return
    size = float(fine) * int(record["scale"])
    fit = inference.fit_pixels(parse_pixel_size(size), pixel_size)
    if fit.steps is None and not fit.beyond:
        return
    remedy = (
        "take a model for such pixels, or a recipe without one."
        if fit.beyond
        else "cut them at that pixel size, or learn from the two images, which are "
        "brought to it."
    )
    warn(
        f"The pairs have pixels of {size:.4g} nm and {card.name} was trained for "
        f"{pixel_size.sentence()}, so that it begins with the wrong sizes: {remedy}",
        "pixel-size-unsuitable",
    )


# Pairs that are cut for a run lie beside its folder.


def with_pairs(
    train: Callable[[Path], Job[Trained]],
    cut: CutRequest | OwnImage,
    run_dir: str | os.PathLike[str],
    *,
    recipe: str | os.PathLike[str],
    start_from: str | os.PathLike[str] | None = None,
    patch: int | None = None,
    existing: OverwritePolicy,
) -> Job[Trained]:
    """Cut pairs as a recipe and its model want them, and train on them.

    Pairs that were cut for a run which never began are removed; an earlier run that was
    to be replaced then has its own again.
    """
    folder = check_target_folder(run_dir, empty=False, parents=True)
    store, before = _pairs_beside(folder), _stamp(folder)
    plan = training.load_recipe(_find_recipe(recipe))
    if isinstance(cut, OwnImage):
        cut = yield from _own_pairs(cut, plan, patch)
    elif plan.blind:  # which would never look at the clear one
        msg = (
            "The recipe own-image never looks at a clear image; take fine-tune for a "
            "noisy and a clear one, or give two noisy scans as image and second scan."
        )
        raise OptionError(msg, code="recipe-unsuitable")
    if start_from is not None:
        plan = plan.replace(start_from=str(find_model(start_from)))
    options = _fit_options(cut, plan, patch)
    above = [one for one in folder.absolute().parents if not one.exists()]
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    aside = _set_aside(store) if existing.overwrite else None
    ours = not _sheet_of(store).exists() and not store.exists()
    try:
        yield from PAIRS.job(
            cut.low, cut.high, store, options=options, transform=cut.transform
        )
        training_result = yield from train(store)
    except BaseException:
        if ours and _stamp(folder) == before:
            shutil.rmtree(store, ignore_errors=True)
            _sheet_of(store).unlink(missing_ok=True)
            if aside is not None and aside.is_dir():  # an earlier run's
                move(aside, store)
                if (store / _sheet_of(store).name).is_file():
                    move(store / _sheet_of(store).name, _sheet_of(store))
        for one in above:
            with suppress(OSError):  # the run began, or another has come
                one.rmdir()
        raise
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
    return training_result


def _check_images(
    folder: Path, store: Path, cut: CutRequest | OwnImage | None
) -> Job[None]:
    """Refuse to go on with other images than those that pairs were cut from."""
    if isinstance(cut, OwnImage):
        cut = CutRequest(cut.image, cut.image if cut.second is None else cut.second)
    history = open_pairs(store).record.get("provenance")
    if cut is None or history is None:
        return
    for role, image in (("low", cut.low), ("high", cut.high)):
        names_by_digest = {
            r["digest"]: r["name"] for r in history["inputs"] if r["role"] == role
        }
        image_opened = open_image(image)
        for one in (image, image_opened):  # what is a file now may have been in memory
            if (yield from record_input(one, image_opened)).digest in names_by_digest:
                break
        else:
            first = next(iter(names_by_digest.values()))
            msg = (
                f"The run in {folder} was begun with the image {first}, got "
                f"{name_of(image)}, of other contents. Give what it was begun with, or "
                "start anew with `overwrite`."
            )
            raise CheckpointError(msg, code="other-run")


_MOST_PLACES = 1000  # chosen: patches of a larger image overlap no more


def _own_pairs(
    own: OwnImage, plan: "training.Recipe", patch: int | None
) -> Job[CutRequest]:
    """Pair an image with itself, or with a second scan that is to be aligned."""
    if own.second is None and not plan.blind:
        msg = (
            f"The recipe {plan.name} cannot learn from one image; take own-image, or "
            "give a second scan."
        )
        raise OptionError(msg, code="recipe-unsuitable")
    yield Progress(0, 0, "reading the image")
    image = open_image(own.image)
    if min(image.shape) < LEAST_SIDE:
        rows, columns = image.shape
        msg = (
            f"Learning from one image needs at least {LEAST_SIDE} x {LEAST_SIDE} "
            f"pixels, got {rows} x {columns} in {image.name}; take a larger image."
        )
        raise ShapeError(msg, code="image-too-small")
    darkest, brightest = field_range(image.data, 0, 100)
    if darkest == brightest:
        msg = (
            f"{image.name} has no two pixels that are finite and differ, so that there "
            "is nothing to learn from it; take another image."
        )
        raise OptionError(msg, code="image-blank")
    # a flat place has noise to learn from, too, and noise looks like nothing
    options = PairOptions(test=0, min_contrast=0, min_correlation=0, scale=1)
    # cut anew from these at every step
    options = fitting_options(image, image, options, patch_px=2 * plan.data.patch_px)
    if patch is not None and patch > options.patch:
        options = options.replace(patch=patch, step=max(4, patch // 2))
    side = options.patch
    if np.prod([2 * n / side for n in image.shape]) > _MOST_PLACES:
        options = options.replace(step=side)
    if own.second is None:
        return CutRequest(own.image, own.image, options=options)
    options = options.replace(second_scan=True, align=True, max_shift_px=side)
    return CutRequest(own.image, own.second, options=options)


def _fit_options(
    cut: CutRequest, plan: "training.Recipe", patch: int | None
) -> PairOptions:
    """Choose how to cut, where it is not said, by recipe, model and images."""
    card, options = _start_card(plan), cut.options
    if patch is not None:
        option_values = options.model_dump(exclude_unset=True)
        options = PairOptions.parse({"patch": patch, **option_values})
    low, high = (open_image(image) for image in (cut.low, cut.high))
    return fitting_options(
        low,
        high,
        options,
        patch_px=plan.data.patch_px,
        scale=_scale(plan),
        trained_sizes=None if card is None else _trained_for(card),
    )


def _pairs_beside(run_dir: str | os.PathLike[str]) -> Path:
    """Where the pairs that were cut for a run lie."""
    folder = Path(run_dir)
    named_folder = (
        folder if folder.name else folder.absolute()
    )  # "." has no name of its own
    return named_folder.with_name(f"{named_folder.name}-pairs.zarr")


def _stamp(folder: Path) -> int | None:
    """When a run last began in a folder."""
    file = folder / "recipe.yaml"
    return file.stat().st_mtime_ns if file.is_file() else None


def _set_aside(store: Path) -> Path | None:
    """Keep the pairs of an earlier run until the new one has begun."""
    if not store.is_dir():
        return None
    aside = store.with_name(f".{store.name}.earlier")
    shutil.rmtree(aside, ignore_errors=True)
    move(store, aside)
    sheet = _sheet_of(store)
    if sheet.is_file():
        move(sheet, aside / sheet.name)
    return aside


def _sheet_of(store: Path) -> Path:
    """Where pairs have their contact sheet."""
    return store.with_suffix(".png")


TRAIN = Verb(
    "train",
    (
        ImageIn(
            "low",
            "cut pairs from this image, the one to be improved, and from `high`; they "
            "are cut as model and recipe want them, and lie beside the run",
            optional=True,
            flag="--low",
        ),
        ImageIn(
            "high",
            "what `low` should look like: the same place",
            optional=True,
            flag="--high",
        ),
        ImageIn(
            "image",
            "learn from this noisy image alone, as the recipe own-image does",
            optional=True,
            flag="--image",
        ),
        ImageIn(
            "second",
            "another scan of the place that `image` shows, by the same instrument; it "
            "is registered, and each is learnt from the other",
            optional=True,
            flag="--second",
        ),
    ),
    TrainOptions,
    Trained,
    _train,
    files=(
        FileIn(
            "recipe",
            "what to train, and how: a YAML file, or a recipe of the package "
            f"({', '.join(bundled_recipes())})",
            optional=False,
            metavar="RECIPE",
            named=True,
        ),
        FileIn(
            "pairs",
            "learn from these pairs, made by `pairs()`, instead of the images",
            flag="--pairs",
            metavar="PAIRS.zarr",
        ),
        FileIn(
            "transform",
            "map from `low` to `high` that `register()` has kept, if they lie on two "
            "grids",
            flag="--transform",
            metavar="JSON",
            takes=StoredTransform,
        ),
        FileIn(
            "start_from",
            "begin with the weights of a model: a name, or a model file",
            flag="--start-from",
            metavar="MODEL",
            named=True,
        ),
    ),
    output=Output("folder of the run: checkpoints, log, model", ending="", grows=True),
    groups=(Group("place", "place", TrainingPlace),),
    reads=False,
    opens=False,
    resumes=True,
)
