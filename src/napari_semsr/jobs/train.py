"""Training of a model from a recipe, in a run folder that can be resumed."""

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import field_validator

from napari_semsr import core, inference, models, training
from napari_semsr.io import StoredTransform, move
from napari_semsr.jobs import images, verb
from napari_semsr.jobs.pairs import MIN_SIDE, choose_pair_options, pairs as create_pairs
from napari_semsr.jobs.register import COSTLY_PX
from napari_semsr.pairing import PairOptions, open_pairs


class TrainOptions(core.Options):
    """Training options that override those of the recipe."""

    steps: int | None = core.option(
        None,
        "Steps",
        ("Number of training steps; the recipe's schedule is rescaled to match."),
        ge=1,
    )
    name: str | None = core.option(
        None, "Name", "Name under which the model is listed."
    )
    patch: int | None = core.option(
        None,
        "Patch",
        "Side length of the training patches, at most that of the pairs; smaller "
        "patches are more numerous.",
        unit="px",
    )
    from_scratch: bool = core.option(
        False,
        "From scratch",
        "Start from random weights even if the recipe names a model, keeping its "
        "architecture.",
    )


class TrainingEnvironment(core.Options):
    """Hardware and folders for training, set by the user rather than a recipe."""

    bank_folder: str | None = core.option(
        None,
        "",
        "Folder for pre-generated scenes of a recipe (data.bank), which several runs "
        "can share; default: the run folder.",
        user_only=True,
    )
    device: str = core.declare_device_option(
        "Device: auto (a CUDA GPU, otherwise the CPU), cpu, cuda or mps; cuda:1 is the "
        "second GPU.",
        trains=True,
    )
    devices: int | None = core.option(
        None,
        "",
        "Number of GPUs or CPU processes on this machine that train together, each "
        "on different batches.",
        user_only=True,
    )
    nodes: int | None = core.option(
        None, "", "Number of machines that train together.", user_only=True
    )

    @field_validator("bank_folder", mode="before")
    @classmethod
    def _convert_path(cls, value: object) -> object:
        """Convert a path to text."""
        return os.fspath(value) if isinstance(value, os.PathLike) else value


# The bundled recipes, and the facts of a recipe.

RECIPES = Path(__file__).parent.parent / "recipes"
"""Folder of the bundled recipes, which train on a pair store."""


def list_bundled_recipes() -> list[str]:
    """Return the names of the bundled recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def read_recipe(
    name_or_path: str | os.PathLike[str],
) -> tuple[Path, "training.Recipe"]:
    """Read a recipe by path, or a bundled one by name, without importing torch."""
    path = Path(name_or_path)
    if not path.is_file():
        if str(name_or_path) not in list_bundled_recipes():
            msg = (
                f"Recipe not found: {path}; use a YAML file, or one of "
                f"{', '.join(list_bundled_recipes())}."
            )
            raise core.ReadError(msg, code="recipe-unknown")
        path = RECIPES / f"{name_or_path}.yaml"
    return path, training.load_recipe(path)


def _get_scale(recipe: "training.Recipe") -> int:
    """Return the scale factor in clear pixels per degraded pixel."""
    card = _read_start_card(recipe)
    if recipe.architecture == training.SAME and card is not None:
        return card.scale
    return int(recipe.architecture_options.get("scale", 1))


def _read_start_card(recipe: "training.Recipe") -> "models.ModelCard | None":
    """Read the model card of a recipe's starting model."""
    start = recipe.start_from
    return None if start is None else models.read_card(models.resolve_model_path(start))


_MIN_PAIRS = 2  # fewest pairs to train on


@dataclass(frozen=True, slots=True)
class PairRequest:
    """Two images of one area, from which training pairs are cut.

    Patch, step, scale and pixel size are chosen for the recipe, its model and the
    images unless `options` set them.
    """

    low: images.Image  # image to improve
    high: images.Image  # target image
    # from LOW, the moving image, to HIGH; None if both are on one grid
    transform: StoredTransform | str | os.PathLike[str] | None = None
    options: PairOptions = field(default_factory=PairOptions)


@dataclass(frozen=True, slots=True)
class OwnImageRequest:
    """A noisy image to train on, alone or with a second scan of the same area."""

    image: images.Image  # image that the model is for
    second: images.Image | None = None  # same instrument; it is registered first


def create_training_request(
    low: images.Image | None,
    high: images.Image | None,
    transform: StoredTransform | str | os.PathLike[str] | None = None,
    *,
    image: images.Image | None = None,
    second: images.Image | None = None,
) -> PairRequest | OwnImageRequest | None:
    """Return the training images that the user passed: a pair, one image, or None."""
    if (low is None) != (high is None) or (low is None and transform is not None):
        msg = "Training on an image pair requires both `low` and `high`."
        raise core.OptionError(msg, code="missing-value")
    if second is not None and image is None:
        msg = "A second scan requires a first one: pass `image` as well."
        raise core.OptionError(msg, code="missing-value")
    if image is not None and low is not None:
        msg = "Pass either `low` and `high`, or `image`, not both."
        raise core.OptionError(msg, code="options-contradict")
    if image is not None:
        return OwnImageRequest(image, second)
    return None if low is None or high is None else PairRequest(low, high, transform)


HELD_OUT = {
    "gain_db": core.Quantity("Held-out gain", core.DB, "+.2f"),
    "expected_gain_db": core.Quantity("Expected gain", core.DB, "+.2f"),
    "psnr_db": core.Quantity("PSNR", core.DB, ".2f"),
    "ssim": core.Quantity("SSIM", "", ".4f"),
    "frc_per_px": core.Quantity(
        "Agreement with the ground truth up to", "per px", ".3f"
    ),
    "hidden_db": core.Quantity(
        "Hidden pixels, over their neighbours' mean", core.DB, "+.2f"
    ),
    "alike_rows_px": core.Quantity("Noise correlated across lines, up to", "px", ".0f"),
    "alike_columns_px": core.Quantity(
        "Noise correlated along a line, up to", "px", ".0f"
    ),
}
"""Labels of the validation metrics."""

_FIGURE_LABELS = {
    "input": "Unprocessed low image",
    "linear filter": "Best linear filter",
    "untouched": "Model before training",
    "trained": "Trained model",
}
_ROW = {"psnr_db": f"{{:.2f}} {core.DB}", "ssim": "SSIM {:.3f}"}
_ROW["frc_per_px"] = "FRC to {:.3f} per px"


def create_validation_figures(
    validation: Mapping[str, float | None],
) -> dict[str, core.Figure]:
    """Return validation metrics as figures."""
    quantities = {key: HELD_OUT.get(key, core.Quantity(key)) for key in validation}
    return {
        q.label: core.Figure(validation[key], q.unit, q.form)
        for key, q in quantities.items()
    }


def create_comparison_figures(
    comparison: Mapping[str, Any] | None,
) -> dict[str, core.Figure]:
    """Return figures comparing models on held-out pairs, as in `Trained`."""
    if comparison is None:
        return {}
    rows, off_nm = comparison["rows"], comparison.get("map_error_nm")
    where = f"{comparison['pairs']} pairs of the {comparison['set']} set"
    figures = {"Evaluated on": core.Figure(f"{where}, data range 255")}
    for name, row in rows.items():
        texts = [words.format(row[key]) for key, words in _ROW.items() if key in row]
        figures[_FIGURE_LABELS[name]] = core.Figure(", ".join(texts))
    if "untouched" in rows:
        gain = rows["trained"]["psnr_db"] - rows["untouched"]["psnr_db"]
        note = "" if comparison["kept"] else "not kept"
        figures["Gain of training"] = core.Figure(gain, core.DB, "+.2f", note)
    if off_nm is not None:
        px = comparison.get("map_error_px")
        note = "" if px is None else f"({px:.2g} px)"
        error = core.Figure(off_nm, "nm", ".3g", note)
        figures["Expected error of the transform"] = error
    return figures


@dataclass(frozen=True, slots=True)
class Trained(images.Result):
    """Training result: steps, held-out metrics and the best model.

    `comparison` uses held-out pairs, not used for training: ``rows`` with
    ``psnr_db``, ``ssim`` and ``frc_per_px`` of ``input``, ``linear filter``,
    ``untouched`` and ``trained``; the ``set``, its number of ``pairs``, and
    ``begun_with``, the name of the untouched model; ``map_error_nm`` and
    ``map_error_px``, the expected misalignment of the pairs; None without pairs. `kept`
    is whether the trained model is better on them than the untouched one; if not, the
    file is the untouched one.
    """

    # including those before a resume
    steps: Annotated[int, core.Quantity("Steps", form="d")]
    validation: dict[str, float | None] | None
    model: Annotated[str, core.Quantity("Model")]
    run_dir: str
    comparison: dict[str, Any] | None = None
    kept: bool = True

    def figures(self) -> dict[str, core.Figure]:
        """Return the held-out metrics and the model comparison as figures."""
        held_out = create_validation_figures(self.validation or {})
        compared = create_comparison_figures(self.comparison)
        return core.get_declared_figures(self) | held_out | compared

    def compute_gain(self, which: str) -> float | None:
        """Return the held-out PSNR gain of the trained model over another model."""
        rows = {} if self.comparison is None else self.comparison["rows"]
        if which not in rows:
            return None
        return float(rows["trained"]["psnr_db"] - rows[which]["psnr_db"])


@verb.command(reads=False, opens=False, resumes=True)
def train(
    run: verb.Run[TrainOptions],
    recipe: Annotated[
        str | Path,
        verb.FileInput(
            help="training recipe: a YAML file or a bundled recipe "
            f"({', '.join(list_bundled_recipes())})",
            metavar="RECIPE",
            takes_name=True,
        ),
    ],
    output: Annotated[
        Path,
        verb.Output("folder of the run: checkpoints, log, model", ending=""),
    ],
    *,
    options: TrainOptions,
    low: Annotated[
        images.Image | None,
        verb.ImageInput(
            help="image to improve; pairs are cut from it and `high` for the model "
            "and recipe, and are written next to the run"
        ),
    ] = None,
    high: Annotated[
        images.Image | None,
        verb.ImageInput(help="target for `low`: an image of the same area"),
    ] = None,
    image: Annotated[
        images.Image | None,
        verb.ImageInput(
            help="train on this noisy image alone, with the recipe own-image"
        ),
    ] = None,
    second: Annotated[
        images.Image | None,
        verb.ImageInput(
            help="another scan of the area of `image`, by the same instrument; it is "
            "registered, and each is the target of the other"
        ),
    ] = None,
    pairs: Annotated[
        str | Path | None,
        verb.FileInput(
            help="train on these pairs, made by `pairs()`, instead of the images",
            metavar="PAIRS.zarr",
        ),
    ] = None,
    transform: Annotated[
        StoredTransform | str | Path | None,
        verb.FileInput(
            help="transform from `low` to `high` written by `register()`, if they "
            "are on different grids",
            metavar="JSON",
        ),
    ] = None,
    start_from: Annotated[
        str | Path | None,
        verb.FileInput(
            help="start with the weights of a model: a name, or a model file",
            metavar="MODEL",
            takes_name=True,
        ),
    ] = None,
    place: TrainingEnvironment | None = None,
    cut: PairRequest | OwnImageRequest | None = None,
) -> core.Job[Trained]:
    """Train a model from a recipe."""
    existing = run.existing
    sides = low, high, transform
    cut = cut or create_training_request(*sides, image=image, second=second)
    yield core.Progress(0, 0, "reading the recipe")
    path, plan = read_recipe(recipe)
    hardware = place or TrainingEnvironment()
    counts = {"devices": hardware.devices, "nodes": hardware.nodes}
    known_counts = {name: n for name, n in counts.items() if n is not None}
    # early, to fail before other work and warn only once
    counted = plan.replace(**known_counts)
    device = training.choose_training_device(counted, hardware.device)
    hardware = hardware.replace(device=str(device))
    if existing.resume and existing.overwrite:
        msg = "Set `resume` to continue or `overwrite` to start again, not both."
        raise core.OptionError(msg, code="options-contradict")
    if options.from_scratch and start_from is not None:
        msg = (
            "Set either `start_from` (a model) or `from_scratch` (no model), not both."
        )
        raise core.OptionError(msg, code="options-contradict")
    own_pairs, is_packaged = _get_pairs_folder(output), path.parent == RECIPES
    may_have_cut = pairs is None and (cut is not None or is_packaged)
    if existing.resume and may_have_cut and own_pairs.is_dir():
        yield from _check_same_images(output, own_pairs, cut)
        pairs, cut = own_pairs, None  # cut for this run

    def train_on(
        store: str | Path | None, existing: images.OverwritePolicy
    ) -> core.Job[Trained]:
        values = {"pairs": store, "start_from": start_from, **options.model_dump()}
        own_plan = _override_recipe(plan, values | counts)
        return _train_on_pairs(own_plan, output, hardware, existing)

    if cut is None:
        if pairs is None and is_packaged:
            learns = (
                "trains on one image; pass it as `image`."
                if plan.kind == "blind-spot"
                else "of the package trains on pairs; pass `pairs`, or two images as "
                "`low` and `high`."
            )
            msg = f"The recipe {path.stem} {learns}"
            raise core.OptionError(msg, code="missing-value")
        return (yield from train_on(pairs, existing))
    if pairs is not None:
        msg = (
            "Pass either a pair store (`pairs`) or images (`low` and `high`), not both."
        )
        raise core.OptionError(msg, code="options-contradict")
    return (
        yield from train_on_cropped_pairs(
            lambda store: train_on(store, replace(existing, resume=False)),
            cut,
            output,
            recipe=recipe,
            start_from=start_from,
            patch=options.patch,
            existing=existing,
        )
    )


def _train_on_pairs(
    plan: "training.Recipe",
    folder: Path,
    place: TrainingEnvironment,
    existing: images.OverwritePolicy,
) -> core.Job[Trained]:
    """Train in a folder; warn if the model is no better than the one it began with."""
    _check_training_data(plan, folder)
    fit = yield from training.train(
        plan,
        folder,
        device=place.device,
        bank_folder=place.bank_folder,
        **existing.get_write_options(folder, folder),
    )
    comparison = fit.comparison
    if comparison is not None and not comparison.kept:
        core.warn(
            f"Training did not improve on {comparison.begun_with} on "
            f"{comparison.pairs} held-out pairs, so that model is kept unchanged: "
            "cut more pairs, or check their alignment.",
            "no-gain",
        )
    return Trained(
        steps=fit.steps,
        validation=images.to_json_value(fit.validation),
        model=str(fit.model),
        run_dir=str(folder),
        comparison=images.to_json_value(comparison),
        kept=comparison is None or comparison.kept,
    )


def _override_recipe(
    plan: "training.Recipe", changes: dict[str, Any]
) -> "training.Recipe":
    """Override recipe options with those set by the user."""
    changes_given = {key: value for key, value in changes.items() if value is not None}
    from_scratch = changes_given.pop("from_scratch")
    if "steps" in changes_given:
        plan = plan.scale_to_steps(changes_given.pop("steps"))
    data: dict[str, object] = {}
    if "pairs" in changes_given:
        path = Path(changes_given.pop("pairs")).resolve()
        most = int(open_pairs(path).record["patch"])
        data = {"pairs": str(path), "patch_px": min(plan.data.patch_px, most)}
    if "patch" in changes_given:
        data["patch_px"] = changes_given.pop("patch")
    if data:
        changes_given["data"] = plan.data.replace(**data)
    if "start_from" in changes_given:
        start = models.find_model(changes_given["start_from"])
        changes_given["start_from"] = str(start.resolve())
    plan = plan.replace(**changes_given) if changes_given else plan
    if plan.kind == "blind-spot" and plan.data.pairs is not None:
        record = open_pairs(Path(plan.data.pairs)).record
        names = [record["sources"][side][0]["name"] for side in ("low", "high")]
        both = bool(record["options"].get("second_scan"))
        sentence = f" Trained on {' and '.join(names if both else names[:1])}."
        description = plan.description.removesuffix(sentence) + sentence  # once
        # each of two scans is the best target for the other, except for noise
        two_scans = {"kind": "supervised", "loss": "mse", "measure": "gain_db"}
        plan = plan.replace(description=description, **(two_scans if both else {}))
    if from_scratch:  # the architecture is kept, the initial weights are not
        plan = plan.reset_unused_options().replace(start_from=None, local_from=None)
    return plan


def _check_training_data(plan: "training.Recipe", folder: Path) -> None:
    """Warn about leakage between sets; raise an error if usable pairs are missing."""
    if common := plan.data.find_duplicate_files():
        core.warn(
            f"{', '.join(common)} is in more than one of train, scans, validation "
            "and held_out, so the model is evaluated on its training data and may "
            "not generalise.",
            "not-independent",
        )
    if plan.data.pairs is None:
        return
    path = Path(plan.data.pairs)
    images.check_output_not_input(folder, [path])
    store = open_pairs(path)
    counts = store.counts
    if counts["train"] < _MIN_PAIRS:
        msg = (
            f"Training requires at least {_MIN_PAIRS} training pairs, but {path.name} "
            f"has {counts['train']}; cut smaller patches (`patch`) or overlapping "
            "patches (`step`)."
        )
        raise core.OptionError(msg, code="too-few-pairs")
    if store.is_paired and not counts["validation"]:
        msg = (
            f"Training requires validation pairs for model selection, but {path.name} "
            "has none; reserve some (`validation`)."
        )
        raise core.OptionError(msg, code="too-few-pairs")
    _warn_about_pixel_size(plan, store.record)
    off_nm, off_px = store.transform_error or (None, None)
    if off_nm is not None and off_px is not None and off_px >= COSTLY_PX:
        core.warn(
            f"The pair transform has an expected error of {off_px:.2g} px "
            f"({core.format_rounded(off_nm)} nm). Held-out pairs share this error, so "
            "an apparent gain may be a loss: register again, with landmarks or an "
            "elastic transform.",
            "map-imprecise",
        )


def _warn_about_pixel_size(plan: "training.Recipe", record: dict[str, Any]) -> None:
    """Warn if a model is fine-tuned at a pixel size it was not trained for."""
    card, fine = _read_start_card(plan), record.get("pixel_size_nm")
    if card is None or card.pixel_size_nm is None:
        return
    pixel_size = inference.TrainedPixelSizes.from_card(card.model_dump())
    if fine is None:
        core.warn(
            f"The pairs have no pixel size, or more than one. {card.name} was "
            f"trained for {pixel_size.describe()}, which is assumed: set the sizes "
            "(`low_pixel_nm`, `high_pixel_nm`), and train on pairs of one pixel size.",
            "pixel-size-missing",
        )
        return
    size = float(fine) * int(record["scale"])
    fit = inference.plan_resampling(core.parse_pixel_size(size), pixel_size)
    if fit.steps is None and not fit.beyond:
        return
    remedy = (
        "choose a model for this pixel size, or a recipe without one."
        if fit.beyond
        else "cut them at that pixel size, or train on the two images, which are "
        "resampled to it."
    )
    core.warn(
        f"The pairs have a pixel size of {size:.4g} nm, but {card.name} was trained "
        f"for {pixel_size.describe()}, so training starts at the wrong scale: "
        f"{remedy}",
        "pixel-size-unsuitable",
    )


# Pairs that are cut for a run are stored next to its folder.


def train_on_cropped_pairs(
    train: Callable[[Path], core.Job[Trained]],
    cut: PairRequest | OwnImageRequest,
    run_dir: str | os.PathLike[str],
    *,
    recipe: str | os.PathLike[str],
    start_from: str | os.PathLike[str] | None = None,
    patch: int | None = None,
    existing: images.OverwritePolicy,
) -> core.Job[Trained]:
    """Cut training pairs for a recipe and its model, and train on them.

    Pairs of a run that never started are removed; an earlier run to be
    replaced keeps its pairs.
    """
    folder = images.check_target_folder(run_dir, empty=False, parents=True)
    store, before = _get_pairs_folder(folder), _get_start_time(folder)
    _, plan = read_recipe(recipe)
    if isinstance(cut, OwnImageRequest):
        cut = yield from _prepare_own_image(cut, plan, patch)
    elif plan.kind == "blind-spot":  # it would not use the clear image
        msg = (
            "The own-image recipe does not use a clear image; choose fine-tune for a "
            "noisy and a clear image, or pass two noisy scans as image and second scan."
        )
        raise core.OptionError(msg, code="recipe-unsuitable")
    if start_from is not None:
        plan = plan.replace(start_from=str(models.find_model(start_from)))
    options = _complete_pair_options(cut, plan, patch)
    above = [one for one in folder.absolute().parents if not one.exists()]
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    aside = _move_store_aside(store) if existing.overwrite else None
    ours = not _get_sheet_path(store).exists() and not store.exists()
    try:
        yield from create_pairs.job(
            cut.low, cut.high, store, options=options, transform=cut.transform
        )
        training_result = yield from train(store)
    except BaseException:
        if ours and _get_start_time(folder) == before:
            shutil.rmtree(store, ignore_errors=True)
            _get_sheet_path(store).unlink(missing_ok=True)
            if aside is not None and aside.is_dir():  # of an earlier run
                move(aside, store)
                if (store / _get_sheet_path(store).name).is_file():
                    move(store / _get_sheet_path(store).name, _get_sheet_path(store))
        for one in above:
            with suppress(OSError):  # the run started, or another one did
                one.rmdir()
        raise
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
    return training_result


def _check_same_images(
    folder: Path, store: Path, cut: PairRequest | OwnImageRequest | None
) -> core.Job[None]:
    """Raise an error if a run is resumed with images other than those of its pairs."""
    if isinstance(cut, OwnImageRequest):
        cut = PairRequest(cut.image, cut.image if cut.second is None else cut.second)
    history = open_pairs(store).record.get("provenance")
    if cut is None or history is None:
        return
    for role, image in (("low", cut.low), ("high", cut.high)):
        names_by_digest = {
            r["digest"]: r["name"] for r in history["inputs"] if r["role"] == role
        }
        image_opened = images.open_image(image)
        for one in (image, image_opened):  # a file may have been in memory before
            record = yield from images.record_input(one, image_opened)
            if record.digest in names_by_digest:
                break
        else:
            first = next(iter(names_by_digest.values()))
            msg = (
                f"The run in {folder} was started with the image {first}, but "
                f"{images.get_image_name(image)} has different content. Pass the "
                "original image, or start again with `overwrite`."
            )
            raise core.CheckpointError(msg, code="other-run")


_MAX_PLACES = 1000  # chosen: patches of larger images do not overlap


def _prepare_own_image(
    own: OwnImageRequest, plan: "training.Recipe", patch: int | None
) -> core.Job[PairRequest]:
    """Pair an image with itself, or with a second scan to be registered."""
    if own.second is None and plan.kind != "blind-spot":
        msg = (
            f"The recipe {plan.name} cannot train on a single image; choose own-image, "
            "or pass a second scan."
        )
        raise core.OptionError(msg, code="recipe-unsuitable")
    yield core.Progress(0, 0, "reading the image")
    image = images.open_image(own.image)
    if min(image.shape) < MIN_SIDE:
        rows, columns = image.shape
        msg = (
            f"Training on one image requires at least {MIN_SIDE} x {MIN_SIDE} pixels, "
            f"but {image.name} has {rows} x {columns}; use a larger image."
        )
        raise core.ShapeError(msg, code="image-too-small")
    darkest, brightest = core.measure_percentiles(image.data, 0, 100)
    if darkest == brightest:
        msg = (
            f"{image.name} has no contrast (its finite pixels are all equal), so it "
            "cannot be used for training; use another image."
        )
        raise core.OptionError(msg, code="image-blank")
    # flat areas also train the noise model
    options = PairOptions(test=0, min_contrast=0, min_correlation=0, scale=1)
    # random crops of these at every step
    twice = 2 * plan.data.patch_px
    options = choose_pair_options(image, image, options, patch_px=twice)
    if patch is not None and patch > options.patch:
        options = options.replace(patch=patch, step=max(4, patch // 2))
    side = options.patch
    if np.prod([2 * n / side for n in image.shape]) > _MAX_PLACES:
        options = options.replace(step=side)
    if own.second is None:
        return PairRequest(own.image, own.image, options=options)
    options = options.replace(second_scan=True, align=True, max_shift_px=side)
    return PairRequest(own.image, own.second, options=options)


def _complete_pair_options(
    cut: PairRequest, plan: "training.Recipe", patch: int | None
) -> PairOptions:
    """Fill in missing pair options from the recipe, its model and the images."""
    card, options = _read_start_card(plan), cut.options
    sizes = None
    if card is not None:
        sizes = inference.TrainedPixelSizes.from_card(card.model_dump())
    if patch is not None:
        values = options.model_dump(exclude_unset=True)
        options = PairOptions.parse({"patch": patch, **values})
    return choose_pair_options(
        images.open_image(cut.low),
        images.open_image(cut.high),
        options,
        patch_px=plan.data.patch_px,
        scale=_get_scale(plan),
        trained_sizes=sizes,
    )


def _get_pairs_folder(run_dir: str | os.PathLike[str]) -> Path:
    """Return the path of a run's pair store."""
    folder = Path(run_dir)
    named_folder = folder if folder.name else folder.absolute()  # "." has no name
    return named_folder.with_name(f"{named_folder.name}-pairs.zarr")


def _get_start_time(folder: Path) -> int | None:
    """Return the time of the last start of a run in a folder."""
    file = folder / "recipe.yaml"
    return file.stat().st_mtime_ns if file.is_file() else None


def _move_store_aside(store: Path) -> Path | None:
    """Move the pairs of an earlier run aside until the new run has started."""
    if not store.is_dir():
        return None
    aside = store.with_name(f".{store.name}.earlier")
    shutil.rmtree(aside, ignore_errors=True)
    move(store, aside)
    sheet = _get_sheet_path(store)
    if sheet.is_file():
        move(sheet, aside / sheet.name)
    return aside


def _get_sheet_path(store: Path) -> Path:
    """Return the path of a pair store's contact sheet."""
    return store.with_suffix(".png")
