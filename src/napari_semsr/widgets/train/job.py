"""What the Train panel runs: pairs are cut, a model is trained and put on the shelf."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from napari_semsr.core import Job, Micrograph
from napari_semsr.io import move
from napari_semsr.jobs import (
    ModelFile,
    Trained,
    TrainRequest,
    import_model_job,
    pairs_job,
    train_apart,
)
from napari_semsr.pairing import PairOptions

_RUN_FILE = "recipe.yaml"
_MINUTE_S, _HOUR_S = 60, 3600


@dataclass(frozen=True, slots=True)
class Cut:
    """Two layers that pairs are cut from."""

    low: Micrograph  # to be improved
    high: Micrograph  # what it should look like
    options: PairOptions


@dataclass(frozen=True, slots=True)
class TrainOutcome:
    """What a training came to."""

    trained: Trained
    model: ModelFile  # on the shelf


def pairs_beside(run_dir: Path) -> Path:
    """Place of the pairs cut for a run: beside it, so that the run can go on."""
    return run_dir.with_name(f"{run_dir.name}-pairs.zarr")


def train_to_shelf(
    request: TrainRequest, cut: Cut | None = None, *, device: str = "auto"
) -> Job[TrainOutcome]:
    """Cut pairs where layers were given, train, and put the model on the shelf."""
    store, before = Path(str(request.pairs)), _stamp(request.run_dir)
    aside = _set_aside(store) if cut is not None and request.overwrite else None
    ours = cut is not None and not _sheet_of(store).exists() and not store.exists()
    try:
        if cut is not None:
            yield from pairs_job(cut.low, cut.high, str(store), options=cut.options)
        trained = yield from train_apart(request, device=device)
    except BaseException:
        if ours and _stamp(request.run_dir) == before:
            _forget(store)
            _put_back(store, aside)
        raise
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
    model = yield from import_model_job(trained.model, overwrite=True)
    return TrainOutcome(trained, model)


def _stamp(run_dir: str) -> int | None:
    """When a run last began in a folder."""
    file = Path(run_dir) / _RUN_FILE
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


def _put_back(store: Path, aside: Path | None) -> None:
    """Give an earlier run its pairs again."""
    if aside is not None and aside.is_dir():
        move(aside, store)
        sheet = _sheet_of(store)
        if (store / sheet.name).is_file():
            move(store / sheet.name, sheet)


def _forget(store: Path) -> None:
    """Remove pairs that were cut for a run that never began."""
    shutil.rmtree(store, ignore_errors=True)
    _sheet_of(store).unlink(missing_ok=True)


def _sheet_of(store: Path) -> Path:
    """Where pairs have their contact sheet."""
    return store.with_suffix(".png")


def spell_time(seconds: float) -> str:
    """Say a time in the units that suit it."""
    if seconds < _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    hours, rest = divmod(seconds, _HOUR_S)
    return f"{hours:.0f} h {rest // _MINUTE_S:02.0f} min"
