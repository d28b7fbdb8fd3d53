"""Judge every trained and bundled model on the same held-out sets, part by part.

Each part is kept as JSON beside the runs, so that the page can be written again, or one
part be measured anew, without the others. A final judgement has a folder of its own;
``final.json`` says which parts have had theirs, and a part has one.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from napari_semsr.models import list_bundled_models
from paper_tables.gao import SETS, develop_images, final_images, gao_sets, measure_sets
from paper_tables.gold_part import measure_gold
from paper_tables.lens import judges_of, measure_quality, measure_sizes
from paper_tables.plan import RECIPES, before_adversary
from paper_tables.runs import Say, finished

PARTS = ("gao", "gold", "superlens", "sizes")
GOALS = Path(__file__).with_name("goals.yaml")
SIZES = {"fields": 8, "side": 256}  # of each of Wang's sizes
RESTORERS = ("sem-restore",)  # judged on the final images once, and not again
Models = dict[str, Path | str]
_JUDGED = "final.json"


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is judged."""

    side: int  # largest of Gao's images
    fields: int  # of the superlens, of each kind
    gold_fields: int
    gold_side: int  # in coarse pixels
    haze_seed: int  # of the first of Gao's images
    first_seed: int  # of drawn samples; 10 000 or more for a final judgement
    final: bool  # on data that is kept for it

    @classmethod
    def planned(cls, *, final: bool) -> Self:
        """Read from the goals on what is judged."""
        goals = yaml.safe_load(GOALS.read_text(encoding="utf-8"))
        found = dict(goals["final" if final else "develop"])
        del found["images"]  # in words
        return cls(**found, final=final)


def _trained(runs: Path, names: tuple[str, ...]) -> Models:
    """Find the models of finished runs, whose discriminators had a say."""
    records = {name: finished(runs / name) for name in names}
    found = {
        name: runs / name / f"{name}.safetensors"
        for name, record in records.items()
        if record is not None and not before_adversary(record)
    }
    return {name: path for name, path in found.items() if path.exists()}


def _with_bundled(models: Models, names: tuple[str, ...]) -> Models:
    """Add bundled models, where they are there."""
    return {**models, **{n: n for n in names if n in list_bundled_models()}}


def _gao(runs: Path, extent: Extent, say: Say) -> dict[str, Any]:
    images = final_images if extent.final else develop_images
    models: dict[str, Models] = {}
    for name in SETS:
        own = _trained(runs, (f"gao-{name.lower()}",))
        models[name] = own if extent.final else _with_bundled(own, RESTORERS)
    sets = gao_sets(images(extent.side), extent.haze_seed)
    return measure_sets(sets, models, say)


def _gold(runs: Path, extent: Extent, say: Say) -> dict[str, Any]:
    models = _with_bundled(_trained(runs, ("de-haan-gold",)), ("sem-2x",))
    size = {"fields": extent.gold_fields, "side": extent.gold_side}
    return measure_gold(models, say, **size, first_seed=extent.first_seed)


def _superlens(runs: Path, extent: Extent, say: Say) -> dict[str, Any]:
    models = _trained(runs, ("sun", "pix2pix-ssum", "srgan-ssum"))
    judges = judges_of(_with_bundled(models, ("ssum-sem",)), extent.fields)
    return measure_quality(judges, say, first_seed=extent.first_seed)


def _sizes(runs: Path, extent: Extent, say: Say) -> dict[str, Any]:
    models = _trained(runs, ("wang", "wang-attention"))
    judges = judges_of(_with_bundled(models, ("ssum-sem",)), SIZES["fields"])
    return measure_sizes(judges, say, **SIZES, first_seed=extent.first_seed)


_MEASURES: dict[str, Callable[[Path, Extent, Say], dict[str, Any]]] = {
    "gao": _gao,
    "gold": _gold,
    "superlens": _superlens,
    "sizes": _sizes,
}


def evaluate(runs: Path, parts: tuple[str, ...], extent: Extent, say: Say) -> None:
    """Measure parts, and keep each as JSON."""
    folder = _folder(runs, final=extent.final)
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        found = _MEASURES[part](runs, extent, say)
        text = json.dumps(found, indent=1)
        (folder / f"{part}.json").write_text(text, encoding="utf-8")
        if extent.final and found:
            seen = [*dict.fromkeys((*judged(runs), part))]
            (runs / _JUDGED).write_text(json.dumps(seen), encoding="utf-8")


def _folder(runs: Path, *, final: bool) -> Path:
    return runs / ("measured-final" if final else "measured")


def judged(runs: Path) -> tuple[str, ...]:
    """Name the parts that have had their final judgement."""
    path = runs / _JUDGED
    return tuple(json.loads(path.read_text("utf-8"))) if path.exists() else ()


def results_of(runs: Path, *, final: bool = False) -> dict[str, Any]:
    """Read what was measured; parts without a model are left out."""
    paths = {part: _folder(runs, final=final) / f"{part}.json" for part in PARTS}
    held = {
        part: path.read_text("utf-8") for part, path in paths.items() if path.exists()
    }
    return {part: found for part, text in held.items() if (found := json.loads(text))}


def records_of(runs: Path) -> dict[str, dict[str, Any]]:
    """Read how the finished runs went, in the order of the plan."""
    found = {name: finished(runs / name) for name in RECIPES}
    return {name: record for name, record in found.items() if record is not None}
