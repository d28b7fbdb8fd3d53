"""Table models: trained runs that are kept, to be judged or continued.

``paper_tables/models`` is laid out as a folder of runs, so that whoever judges runs can
judge these: ``--runs benchmarks/paper_tables/models``. Of each the best model is there
in 16 bits, with the networks that learnt beside it at that step, how the run went, and
its curve. Git has the last two; the models were last in it at `LAST_IN_GIT`.
"""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from napari_semsr.models import load_model, save_model
from napari_semsr.training import Recipe
from napari_semsr.training.run_folder import NETWORKS
from paper_tables.curves import Curve, read_curve
from paper_tables.records import FINISHED, finished

MODELS = Path(__file__).parent / "models"
LARGEST = 2_000_000  # bytes of a model
MOST = 15_000_000  # of all
CURVE = "curve.csv"
LAST_IN_GIT = "672b0276"
_COLUMNS = ("step", "gain_db")
_MEASURES = ("gain_db", "expected_gain_db")


def absent(names: Sequence[str]) -> str:
    """Say how to get table models whose record is here without them; "" if none is."""
    paths = {name: MODELS / name / f"{name}.safetensors" for name in names}
    lacking = [n for n, p in paths.items() if finished(p.parent) and not p.exists()]
    if not lacking:
        return ""
    return (
        f"The weights of {', '.join(lacking)} are not here: get them with git restore "
        f"--source={LAST_IN_GIT} -- benchmarks/paper_tables/models, or train them "
        "again with make tables and keep them with python -m paper_tables publish."
    )


def publish(
    names: tuple[str, ...], runs: Path, models: Path, say: Callable[[str], None]
) -> list[str]:
    """Copy finished runs to where table models lie."""
    copied = []
    for name in names:
        record = finished(runs / name)
        if record is None:
            continue
        folder = models / name
        path = folder / f"{name}.safetensors"
        there = finished(folder) if path.exists() else None
        if there is not None and _figure(record) <= _figure(there):
            say(f"{name}: the one that is there is as good")
            continue
        beside = path.with_suffix(".partial")
        folder.mkdir(parents=True, exist_ok=True)
        _write(runs / name, name, beside)
        alone = beside.stat().st_size > LARGEST
        if alone:  # discriminators can be larger than what they teach
            _write(runs / name, name, beside, alone=True)
        size, others = beside.stat().st_size, _size_of(models) - _size(path, beside)
        if size > LARGEST or others + size > MOST:
            beside.unlink()
            say(f"{name}: {size / 1e6:.1f} MB is too large")
            if not any(folder.iterdir()):
                folder.rmdir()
            continue
        beside.replace(path)
        _write_curve(folder, read_curve(runs / name))
        text = json.dumps(record, indent=1)
        (folder / FINISHED).write_text(text, encoding="utf-8")
        copied.append(name)
        without = ", without the networks beside" if alone else ""
        say(f"{name}: {size / 1e6:.2f} MB, {record['steps']} steps{without}")
    return copied


@dataclass(frozen=True, slots=True)
class Earlier:
    """A table model to go on from, how its training went, and its curve."""

    path: Path
    record: dict[str, Any]
    curve: Curve


def earlier_of(name: str) -> Earlier | None:
    """Find the table model of a name; None if there is none."""
    folder = MODELS / name
    record, path = finished(folder), folder / f"{name}.safetensors"
    if record is None or not path.exists():
        return None
    return Earlier(path, record, read_curve(folder))


def begin_with(earlier: Earlier, recipe: Recipe) -> Recipe:
    """Let a recipe begin with the weights of all networks of a table model."""
    gan = recipe.gan.replace(content_only_steps=0)  # they are behind it
    return recipe.replace(start_from=str(earlier.path), gan=gan)


def with_earlier(
    record: dict[str, Any], folder: Path, earlier: Earlier
) -> dict[str, Any]:
    """Count what a table model had as the run's own, in its record and its curve."""
    steps, minutes = (earlier.record[key] for key in ("steps", "minutes"))
    later = [(steps + step, gain) for step, gain in read_curve(folder)]
    _write_curve(folder, [*earlier.curve, *later])
    validation = record["validation"]
    if "step" in validation:
        validation = {**validation, "step": steps + validation["step"]}
    return {
        **record,
        "validation": validation,
        "steps": record["steps"] + steps,
        "minutes": record["minutes"] + minutes,
    }


def _write_curve(folder: Path, curve: Curve) -> None:
    with (folder / CURVE).open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([_COLUMNS, *curve])


def _write(run: Path, name: str, path: Path, *, alone: bool = False) -> None:
    """Write the best model of a run and its other networks, or `alone`, in 16 bits."""
    model = load_model(run / f"{name}.safetensors")
    networks = run / NETWORKS
    beside = load_file(networks) if networks.exists() and not alone else None
    save_model(path, model.module, model.card, beside=beside, half=True)


def _figure(record: dict[str, Any]) -> float:
    """Give what chose the checkpoint."""
    found = [record["validation"].get(measure) for measure in _MEASURES]
    return float(next((value for value in found if value is not None), 0.0))


def _size_of(folder: Path) -> int:
    return _size(*folder.glob("*/*.safetensors"), *folder.glob("*/*.partial"))


def _size(*paths: Path) -> int:
    return sum(path.stat().st_size for path in paths if path.exists())
