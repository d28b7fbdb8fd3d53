"""Judge every trained and bundled model on the same held-out sets, part by part.

Each part is kept as JSON beside the runs, so that the page can be written again, or one
part be measured anew, without the others. A final judgement has a folder of its own;
``final.json`` says which parts have had theirs, and a part has one.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from napari_semsr.models import list_bundled_models
from paper_tables.curves import read_curve
from paper_tables.frc_maps import measure_maps
from paper_tables.gao import (
    SETS,
    Pair,
    develop_images,
    final_images,
    gao_sets,
    measure_sets,
)
from paper_tables.goals import read_goals
from paper_tables.gold_part import measure_gold
from paper_tables.lens import judges_of, measure_quality, measure_sizes
from paper_tables.light import measure_light
from paper_tables.plan import (
    NARROW_ONLY,
    RECIPES,
    before_adversary,
)
from paper_tables.profiles import measure_profiles
from paper_tables.real_gold import measure_real_gold
from paper_tables.records import finished
from paper_tables.runs import Say
from paper_tables.whole_field import measure_whole

PARTS = (
    *("gao", "gao_unstretched", "gold", "real_gold", "superlens"),
    *("frc_maps", "whole", "sizes", "light", "profiles"),
)
FINAL_PARTS = tuple(p for p in PARTS if p not in ("real_gold", "profiles"))
"""Parts that know final images or, by `Extent.first_seed`, final samples."""
RESTORERS = ("sem-restore",)  # judged on the final images once, and not again
# in the plan's order they lie side by side
LENS_RUNS = RECIPES[RECIPES.index("sun") : RECIPES.index("de-haan-gold")]
GAO_RUNS = ("gao", "blur", "kernel")
WANGS = ("wang", "wang-attention")
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
    size_fields: int = 8  # of each of Wang's sizes
    size_side: int = 256
    real_pairs: int = 15  # of gold
    whole_side: int = 925  # of the whole field, in pixels of 20 nm

    @classmethod
    def planned(cls, *, final: bool) -> Self:
        """Read from the goals on what is judged."""
        found = dict(read_goals()["final" if final else "develop"])
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


def _degraded(extent: Extent, *, stretch: bool = True) -> dict[str, list[Pair]]:
    """Give Gao's sets, of the images that are judged."""
    images = final_images if extent.final else develop_images
    return gao_sets(images(extent.side), extent.haze_seed, stretch=stretch)


def _gao(
    runs: Path, extent: Extent, say: Say, *, stretch: bool = True
) -> dict[str, Any]:
    models: dict[str, Models] = {}
    for name in SETS:
        letter = name.lower()
        own = _trained(runs, tuple(f"{kind}-{letter}" for kind in GAO_RUNS))
        models[name] = own if extent.final else _with_bundled(own, RESTORERS)
    sets = _degraded(extent, stretch=stretch)
    return measure_sets(sets, models, say, stretched=stretch)


def _gold(runs: Path, extent: Extent, say: Say) -> dict[str, Any]:
    models = _with_bundled(_trained(runs, ("de-haan-gold",)), ("sem-2x",))
    size = {"fields": extent.gold_fields, "side": extent.gold_side}
    return measure_gold(models, say, **size, first_seed=extent.first_seed)


def _real_gold(runs: Path, extent: Extent, say: Say) -> dict[str, Any]:
    models = _with_bundled(_trained(runs, ("gold-real",)), RESTORERS)
    return measure_real_gold(models, say, pairs=extent.real_pairs)


def _from_first(extent: Extent) -> dict[str, int]:
    return {"first_seed": extent.first_seed}


def _wangs(extent: Extent) -> dict[str, int]:
    """Say on how much Wang's tables rest."""
    size = {"fields": extent.size_fields, "side": extent.size_side}
    return size | _from_first(extent)


def _of_lens(
    measure: Callable[..., dict[str, Any]],
    trained: tuple[str, ...],
    ready: str,
    how: Callable[[Extent], dict[str, int]] = _from_first,
) -> Callable[[Path, Extent, Say], dict[str, Any]]:
    """Measure trained runs and a bundled model on superlens fields."""

    def part(runs: Path, extent: Extent, say: Say) -> dict[str, Any]:
        models = _with_bundled(_trained(runs, trained), (ready,))
        if not models:
            return {}
        size = how(extent)
        judges = judges_of(models, size.get("fields", extent.fields))
        return measure(judges, say, **size)

    return part


_MEASURES: dict[str, Callable[[Path, Extent, Say], dict[str, Any]]] = {
    "gao": _gao,
    "gao_unstretched": partial(_gao, stretch=False),
    "gold": _gold,
    "real_gold": _real_gold,
    "superlens": _of_lens(measure_quality, LENS_RUNS, "ssum-sem"),
    "frc_maps": _of_lens(measure_maps, LENS_RUNS, "ssum-sem"),
    "whole": _of_lens(
        measure_whole,
        LENS_RUNS,
        "ssum-sem",
        lambda extent: {"side": extent.whole_side, **_from_first(extent)},
    ),
    "sizes": _of_lens(measure_sizes, WANGS, "ssum-sem", _wangs),
    "light": _of_lens(measure_light, WANGS, "ssum-sem", _wangs),
    "profiles": _of_lens(
        measure_profiles, ("sun", "pix2pix-ssum"), "ssum-sem", lambda _extent: {}
    ),
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
    """Read what was measured; parts without a model are left out.

    Parts that have no final data are those of development.
    """
    found = {}
    for part in PARTS:
        folder = _folder(runs, final=final and part in FINAL_PARTS)
        path = folder / f"{part}.json"
        if path.exists() and (held := json.loads(path.read_text(encoding="utf-8"))):
            found[part] = held
    return found


def records_of(runs: Path) -> dict[str, dict[str, Any]]:
    """Read how the finished runs went, in the order of the plan, with their curves."""
    names = (*RECIPES, *NARROW_ONLY)
    found = {name: finished(runs / name) for name in names}
    return {
        name: {**record, "curve": read_curve(runs / name)}
        for name, record in found.items()
        if record is not None
    }
