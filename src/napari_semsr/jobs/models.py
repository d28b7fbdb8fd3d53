"""List, describe, export and import models."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from napari_semsr import core, models
from napari_semsr.io import replace_atomically
from napari_semsr.jobs import exchange, images, verb

# The model library: bundled models, and those that a user imported.

_GAINS = ("gain_db", "hidden_db")  # relative to the input, or to its local mean


@dataclass(frozen=True, slots=True)
class ModelFile(images.Result):
    """Model file: path, size and model card."""

    path: Annotated[str, core.Quantity("Path")]
    bundled: bool
    digest: Annotated[str, core.Quantity("Digest")]
    megabytes: Annotated[float, core.Quantity("Size", "MB", ".3g")]
    card: dict[str, Any]

    def figures(self) -> dict[str, core.Figure]:
        """Return the file properties, followed by the model card and its checks."""
        left_out = {"training", "checks"}
        if self.card.get("pixel_size_nm") is None:
            left_out.add("resample_factors")
        by_share = self.card["input_scaling"] == "percentiles"
        left_out.add("input_levels" if by_share else "input_percentiles")
        figures_shown = {
            name: core.Figure(str(value))
            for name, value in self.card.items()
            if value not in (None, "", {}, []) and name not in left_out
        }
        checks = get_check_figures(self.card)
        return core.get_declared_figures(self) | figures_shown | checks


@dataclass(frozen=True, slots=True)
class ModelList(images.Result):
    """Models in the library: name, origin, architecture and description.

    The default model comes first, then the other bundled ones, then those in the folder
    `shelf`. A file without a valid card is listed with its fault.
    """

    models: tuple[dict[str, Any], ...]
    shelf: str

    def figures(self) -> dict[str, core.Figure]:
        """Return one line for each model."""
        return {
            row["name"]: core.Figure(
                row["fault"] or row["description"] or row["architecture"]
            )
            for row in self.models
        }


def get_runs_folder() -> Path:
    """Return the default folder of training runs."""
    usual = models.get_library_folder().parent / "runs"
    return Path(os.environ.get("SEMSR_RUNS") or usual)


def get_model_origin(name: str) -> str | None:
    """Return whether a model is bundled or imported; None if not in the library."""
    if name in models.list_bundled_models():
        return "bundled"
    path = models.get_library_folder() / f"{name}{models.SUFFIX}"
    return "imported" if path.is_file() else None


@verb.command("models list", reads=False)
def list_models(run: verb.Run[core.Options]) -> core.Job[ModelList]:
    """List bundled and imported models.

    Examples
    --------
    >>> first = semsr.list_models().models[0]
    >>> first["name"], first["bundled"], first["scale"]
    ('sem-restore', True, 1)
    """
    yield core.Progress(0, 1, "reading cards")
    names = sorted(
        models.list_bundled_models(),
        key=lambda name: (name != models.DEFAULT_MODEL, name),
    )
    paths = [models.resolve_model_path(name) for name in names]
    folder = models.get_library_folder()
    there = core.list_folder(folder) if folder.is_dir() else []
    own = sorted(path for path in there if path.suffix == models.SUFFIX)
    rows = [_create_model_row(path, is_bundled=True) for path in paths]
    rows += [_create_model_row(path, is_bundled=False) for path in own]
    return ModelList(tuple(rows), str(folder))


@verb.command("models info", reads=False)
def model_info(
    run: verb.Run[core.Options], model: Annotated[str | Path, verb.MODEL_IN]
) -> core.Job[ModelFile]:
    """Show the model card of a model."""
    yield core.Progress(0, 1, "reading card")
    return _describe_model_file(models.find_model(model))


@verb.command("models export", reads=False, opens=False)
def export_model(
    run: verb.Run[exchange.ExportOptions],
    model: Annotated[str | Path, verb.MODEL_IN],
    output: Annotated[
        Path,
        verb.Output(
            "output file: .safetensors, or with the extra [onnx] .onnx, or .zip "
            "for bioimage.io",
            ending=".safetensors",
            also=(".onnx", ".zip"),
        ),
    ],
    *,
    options: exchange.ExportOptions,
    field: Annotated[
        images.Image | None,
        verb.ImageInput(
            help="for a model with whole-image statistics, which other programs "
            "cannot compute: the export has those of this image, without haze "
            "removal"
        ),
    ] = None,
    authors: Annotated[
        Sequence[str] | None,
        verb.FileInput(
            help="author in a bioimage.io package; may be repeated",
            flag="--author",
            metavar="NAME",
            many=True,
        ),
    ] = None,
) -> core.Job[ModelFile]:
    """Export a model, for this program or for others."""
    yield core.Progress(0, 1, "writing")
    path = models.find_model(model)
    name = output.name.lower()
    fitting = [
        kind for kind, suffix in exchange.SUFFIXES.items() if name.endswith(suffix)
    ]
    kind: exchange.Kind = options.to or (fitting[0] if fitting else "semsr")
    if not name.endswith(exchange.SUFFIXES[kind]):
        msg = f"The output must end in {exchange.SUFFIXES[kind]}, got {output.name}."
        raise core.WriteError(msg, code="suffix-unknown")
    images.check_output_not_input(output, [path])
    if kind == "semsr":
        if field is not None or authors:
            msg = "`field` and `authors` apply only to ONNX and bioimage.io exports."
            raise core.OptionError(msg, code="option-without-effect")
        _copy_atomically(path, output)
        return _describe_model_file(output)
    card = exchange.export_model_file(
        path,
        output,
        kind,
        field=field,
        opening=run.opening,
        authors=authors or (),
    )
    return _describe_model_file(output, card)


@verb.command("models import", reads=False)
def import_model(
    run: verb.Run[exchange.ImportOptions],
    file: Annotated[
        str | Path,
        verb.FileInput(
            help="a .safetensors file with a card, an .onnx file, or a .zip of "
            "bioimage.io with ONNX weights",
            metavar="MODEL",
        ),
    ],
    *,
    options: exchange.ImportOptions,
    existing: images.OverwritePolicy,
) -> core.Job[ModelFile]:
    """Add a model to the library, and show its model card."""
    yield core.Progress(0, 2, "checking")
    path, options = Path(file), options
    if not path.is_file():
        msg = f"{path} does not exist: pass a {models.SUFFIX}, .onnx or .zip file."
        raise core.CheckpointError(msg, code="file-missing")
    exchange.check_no_executable_code(path)
    foreign_suffixes = exchange.SUFFIXES["onnx"], exchange.SUFFIXES["bioimageio"]
    foreign = path.suffix.lower() in foreign_suffixes
    if options.get_card_values() and not foreign:
        msg = (
            "Name and scaling options apply only to ONNX and bioimage.io files, got "
            f"{path.name}."
        )
        raise core.OptionError(msg, code="option-without-effect")
    if foreign:
        module, card = exchange.import_model_file(path, options)
        target = _prepare_library_path(path, card.name, existing)
        yield core.Progress(1, 2, "writing")
        models.save_model(target, module, card)
    else:
        name = models.load_model(path).card.name
        target = _prepare_library_path(path, name, existing)
        yield core.Progress(1, 2, "copying")
        if target.resolve() != path.resolve():
            _copy_atomically(path, target)
    return _describe_model_file(target)


def _prepare_library_path(
    path: Path, name: str, existing: images.OverwritePolicy
) -> Path:
    """Return the library path for an imported model, and create its folder."""
    if name in models.list_bundled_models():
        msg = (
            f"The name {name} of {path.name} is already used by a bundled model; "
            "choose another (`name`; not for .safetensors)."
        )
        raise core.CheckpointError(msg, code="name-taken")
    folder = models.get_library_folder()
    target = folder / f"{name}{models.SUFFIX}"
    if target.exists() and not existing.overwrite:
        msg = (
            f"The library already contains a model named {name}; set `overwrite` to "
            "replace it."
        )
        raise core.WriteError(msg, code="name-taken")
    folder.mkdir(parents=True, exist_ok=True)
    return target


def _copy_atomically(source: Path, target: Path) -> None:
    """Copy a file atomically: the target is complete or absent."""
    with replace_atomically(target) as temporary:
        shutil.copyfile(source, temporary)


def _describe_model_file(
    path: Path, card: "models.ModelCard | None" = None
) -> ModelFile:
    """Describe a model file from its card, which is read if not given."""
    return ModelFile(
        path=str(path),
        bundled=path.parent.resolve() == models.WEIGHTS.resolve(),
        digest=core.digest_path(path),
        megabytes=round(path.stat().st_size / 1e6, 3),
        card=images.to_json_value(card or models.read_card(path)),
    )


def _create_model_row(path: Path, *, is_bundled: bool) -> dict[str, object]:
    """Describe one model of the list."""
    row: dict[str, object] = {"name": path.stem, "bundled": is_bundled, "fault": None}
    try:
        card = models.read_card(path)
    except (core.CheckpointError, core.ReadError) as error:
        return {**row, "fault": str(error)}
    return {
        **row,
        "architecture": card.architecture,
        "scale": card.scale,
        "description": card.description,
        "gain_db": get_validation_gain_db(card.model_dump()),
    }


def get_check_figures(card: Mapping[str, Any]) -> dict[str, core.Figure]:
    """Return what a card records of objects that the model shows and invents.

    The worst condition of each kind of images comes first. Empty if the card has no
    valid record.
    """
    checks, figures = card.get("checks") or {}, dict[str, core.Figure]()
    try:
        discs_by_kind = checks.get("discs") or {}
        for kind in (name for name in _KINDS if name in discs_by_kind):
            totals = [
                (float(both["enhanced"]), float(both["degraded"]), name, both["discs"])
                for name, shares in discs_by_kind[kind]["conditions"].items()
                for both in [shares["resolved"]["together"]]
                if both["discs"]
            ]
            for enhanced, degraded, name, discs in sorted(totals):
                note = f"of {discs} discs (input: {100 * degraded:.0f} %)"
                label = f"Shown correctly, {kind.replace('_', '-')} images, {name}"
                figures[label] = core.Figure(100 * enhanced, "%", ".0f", note)
        rows = checks.get("removals", {}).get("rows", {})
        for group, label in _REMOVED.items() if rows else ():
            model, linear = (rows[name][group] for name in ("model", "linear filter"))
            if model["drawn_percent"] is not None:
                low, high = map(float, model["drawn_interval"])
                note = (
                    f"of {model['objects']} (95 % interval {low:.0f} to {high:.0f} %; "
                    f"linear filter: {float(linear['drawn_percent']):.0f} %)"
                )
                drawn = float(model["drawn_percent"])
                figure = core.Figure(drawn, "%", ".0f", note)
                figures[f"Drawn though removed, {label}"] = figure
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
    return figures


_KINDS = "held_out", "given", "drawn"  # images of a check with discs, real ones first
_REMOVED = {
    "light_tells": "if the optical image shows the object",
    "light_cannot_tell": "if the optical image hides it",
}


def get_validation_gain_db(card: Mapping[str, Any]) -> float | None:
    """Return a model's gain over its input, from the validation of its training."""
    validation = (card.get("training") or {}).get("validation")
    values = validation if isinstance(validation, dict) else {}
    gains = map(values.get, _GAINS)
    return next((float(g) for g in gains if isinstance(g, int | float)), None)
