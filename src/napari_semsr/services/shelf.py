"""The model shelf: bundled models, and those that a user imported."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_semsr.core.errors import CheckpointError, WriteError
from napari_semsr.core.progress import Job, Progress
from napari_semsr.services.public_weights import PUBLIC_SUFFIXES, public_model
from napari_semsr.services.results import Result, jsonable
from napari_semsr.services.targets import check_target_file

__all__ = [
    "DEFAULT_MODEL",
    "ModelFile",
    "ModelList",
    "export_model",
    "find_model",
    "import_model",
    "list_models",
    "model_info",
    "on_shelf",
    "shelf_folder",
]

DEFAULT_MODEL = "sem-restore"
_SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True)
class ModelFile(Result):
    """One model file.

    Attributes
    ----------
    path : str
        Where it is.
    bundled : bool
        Whether it came with the package.
    digest : str
        SHA-256 of the file.
    megabytes : float
        Size of the file.
    card : dict
        What the model is and how it is used.
    """

    path: str
    bundled: bool
    digest: str
    megabytes: float
    card: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ModelList(Result):
    """What is on the shelf.

    Attributes
    ----------
    models : tuple of dict
        Name, origin, architecture, scale and description of each.
    shelf : str
        Folder of imported models.
    """

    models: tuple[dict[str, Any], ...]
    shelf: str


def shelf_folder() -> Path:
    """Give the folder where imported models are kept.

    Returns
    -------
    pathlib.Path
        ``$SEMSR_MODELS`` if set, else below the user's data folder.
    """
    chosen = os.environ.get("SEMSR_MODELS")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_DATA_HOME") or os.environ.get("LOCALAPPDATA")
    return Path(base or Path.home() / ".local" / "share") / "napari-semsr" / "models"


def find_model(name_or_path: str | os.PathLike[str]) -> Path:
    """Find a model: bundled, imported, or a file.

    Parameters
    ----------
    name_or_path : str or path
        A name on the shelf, or a ``.safetensors`` file.

    Returns
    -------
    pathlib.Path
        An existing file.

    Raises
    ------
    CheckpointError
        If there is no such model.
    """
    from napari_semsr.models import cards

    name = str(name_or_path)
    imported = shelf_folder() / f"{name}{_SUFFIX}"
    is_name = not any(mark in name for mark in "/\\") and name not in cards.bundled()
    if is_name and imported.is_file():
        return imported
    return cards.resolve(name)


def on_shelf(name: str) -> str | None:
    """Tell whether a name is taken.

    Parameters
    ----------
    name : str
        Name of a model.

    Returns
    -------
    {"bundled", "imported"} or None
        Whose it is.
    """
    from napari_semsr.models import cards

    if name in cards.bundled():
        return "bundled"
    return "imported" if (shelf_folder() / f"{name}{_SUFFIX}").is_file() else None


def list_models() -> Job[ModelList]:
    """List what is on the shelf.

    Returns
    -------
    ModelList
        The default model first, then the other bundled ones, then the user's own. A
        file without a valid card is listed with its fault.

    Yields
    ------
    Progress
        One step.
    """
    from napari_semsr.models import cards

    yield Progress(0, 1, "reading cards")
    names = sorted(cards.bundled(), key=lambda name: (name != DEFAULT_MODEL, name))
    paths = [cards.resolve(name) for name in names]
    folder = shelf_folder()
    own = sorted(folder.glob(f"*{_SUFFIX}")) if folder.is_dir() else []
    rows = [_row(path, bundled=True) for path in paths]
    rows += [_row(path, bundled=False) for path in own]
    yield Progress(1, 1, "done")
    return ModelList(tuple(rows), str(folder))


def model_info(name_or_path: str) -> Job[ModelFile]:
    """Read the card of a model.

    Parameters
    ----------
    name_or_path : str
        A name on the shelf, or a file.

    Returns
    -------
    ModelFile
        The card, with where and how large the file is.

    Yields
    ------
    Progress
        One step.
    """
    yield Progress(0, 1, "reading card")
    path = find_model(name_or_path)
    found = _describe(path)
    yield Progress(1, 1, "done")
    return found


def export_model(
    name_or_path: str, output: str | os.PathLike[str], *, overwrite: bool = False
) -> Job[ModelFile]:
    """Copy a model, card included, out of the shelf.

    Parameters
    ----------
    name_or_path : str
        A name on the shelf, or a file.
    output : path
        A ``.safetensors`` file.
    overwrite : bool, default=False
        Replace an existing file.

    Returns
    -------
    ModelFile
        The copy.

    Yields
    ------
    Progress
        One step.
    """
    yield Progress(0, 1, "copying")
    path = find_model(name_or_path)
    target = check_target_file(
        output, suffixes=(_SUFFIX,), inputs=[path], overwrite=overwrite
    )
    _copy(path, target)
    yield Progress(1, 1, "done")
    return _describe(target)


def import_model(
    file: str | os.PathLike[str], *, overwrite: bool = False
) -> Job[ModelFile]:
    """Put a model file on the shelf, after reading its card and trying its weights.

    Parameters
    ----------
    file : path
        A ``.safetensors`` file with a card, or a ``.pth`` file with the published
        weights of an ESRGAN generator.
    overwrite : bool, default=False
        Replace an imported model of the same name.

    Returns
    -------
    ModelFile
        The model on the shelf, under the name on its card.

    Yields
    ------
    Progress
        Checking, copying.

    Raises
    ------
    CheckpointError
        If it is no model of ours, or its name is that of a bundled model.
    """
    from napari_semsr.models import checkpoint

    yield Progress(0, 2, "checking")
    path = Path(file)
    if not path.is_file():
        msg = f"There is no file {path}; give a {_SUFFIX} file."
        raise CheckpointError(msg)
    if path.suffix in PUBLIC_SUFFIXES:
        module, card = public_model(path)
        target = _place(path, card.name, overwrite=overwrite)
        yield Progress(1, 2, "writing")
        checkpoint.save_model(target, module, card)
    else:
        name = checkpoint.load_model(path).card.name
        target = _place(path, name, overwrite=overwrite)
        yield Progress(1, 2, "copying")
        if target.resolve() != path.resolve():
            _copy(path, target)
    yield Progress(2, 2, "done")
    return _describe(target)


def _place(path: Path, name: str, *, overwrite: bool) -> Path:
    """Find the place of an imported model on the shelf, and make its folder."""
    from napari_semsr.models import cards

    if name in cards.bundled():
        msg = f"{path.name} has the name of the bundled model {name}; give it another."
        raise CheckpointError(msg)
    folder = shelf_folder()
    target = folder / f"{name}{_SUFFIX}"
    if target.exists() and not overwrite:
        msg = f"The shelf holds a model {name} already; give --overwrite to replace it."
        raise WriteError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    return target


def _copy(source: Path, target: Path) -> None:
    """Copy a file so that the target is whole or absent."""
    from napari_semsr.io.targets import replacing

    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def _describe(path: Path) -> ModelFile:
    """Read the card of a file."""
    from napari_semsr.models import cards

    card = cards.read_card(path)
    return ModelFile(
        path=str(path),
        bundled=path.parent.resolve() == cards.WEIGHTS.resolve(),
        digest=cards.file_digest(path),
        megabytes=round(path.stat().st_size / 1e6, 3),
        card=jsonable(card),
    )


def _row(path: Path, *, bundled: bool) -> dict[str, Any]:
    """Say one model in the list."""
    from napari_semsr.models import cards

    row: dict[str, Any] = {"name": path.stem, "bundled": bundled, "fault": None}
    try:
        card = cards.read_card(path)
    except CheckpointError as error:
        return {**row, "fault": str(error)}
    return {
        **row,
        "architecture": card.architecture,
        "scale": card.scale,
        "description": card.description,
    }
