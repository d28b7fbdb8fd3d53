"""Ask whether the bound on a model's error holds, and where it does not.

Run: ``python benchmarks/trust.py [--only PART ...] [--seeds N] [--rows FILE]``.

Simulated fields from seed 30 000 on, which nothing was learnt from: of the eight kinds
of sample through lenses (``kinds``), through lenses with a drifting focus and more
noise (``microscopes``), through a Gaussian (``gaussian``), and each kind with a bound
that never saw it (``left-out``); or, for any bundled model, as its own recipe makes
fields (``own``), of the images that its card names as held out where it learnt from
images (``--folder`` says where these are). Printed, with ± s.e.
over fields: the AUROC with which the bound finds the worst tenth of a field's pixels,
beside those of the spread over flips and turns alone, of the gradient of the result,
and of an oracle that knows the mean error within 2 px; the share of pixels below the
bound; the share of fields that are called unfamiliar.

``--rows`` keeps what was measured of each field; the next run goes on after it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _shared import Rows, mean_and_error, read_options
from _superlens_fields import LENS, ODD, USUAL
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.analysis import (
    REACH_PX,
    bound_factor,
    clues,
    distance_to_fields,
    error_scale,
    fit_scale,
    look_of_field,
)
from napari_semsr.core import Micrograph, field_range, parse_pixel_size, run
from napari_semsr.inference import EnhanceOptions, enhance_array, spread_lazy
from napari_semsr.jobs import find_model
from napari_semsr.models import load_model, load_trust, trust_path
from napari_semsr.simulation import SsumPairOptions, ssum_validation
from napari_semsr.training import Truths

SEED = 30_000  # those from 20 000 on were looked at when clues were chosen
OWN_SEED = 3_000_000  # bounds are learnt from fields of seed 1 000 000
LEARNT = 40_000  # seeds of the fields that bounds with a kind left out learn from
SIDE = 256
WORST = 0.1
LEAST = 0.8  # share of a field's pixels below its bound
PARTS = {
    "kinds": "through lenses",
    "microscopes": "drifting focus, more noise",
    "gaussian": "Gaussian",
    "left-out": "kind that the bound never saw",
    "own": "by the model's own recipe",
}
EDGES = np.geomspace(0.005, 1, 134)  # of the bound, in shares of the range
Image = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Field:
    """A field on the model's scale, and its truth."""

    kind: str
    before: Image
    after: Image
    spread: Image
    off: Image  # absolute error of each pixel

    @property
    def inner(self) -> tuple[slice, slice]:
        """Leave out the border."""
        return (slice(REACH_PX, -REACH_PX),) * 2  # type: ignore[return-value]

    @property
    def error(self) -> Image:
        """Absolute error of each pixel that is judged."""
        return self.off[self.inner]

    @property
    def seen(self) -> Image:
        """Clues of each pixel."""
        return clues(self.before, self.after, self.spread)[self.inner]

    @property
    def look(self) -> Image:
        """What the field is like."""
        return look_of_field(self.before, self.after, self.spread)


def field(model: Any, number: int, options: SsumPairOptions) -> Field:
    """Make a field, enhance it, and turn it about."""
    (pair,) = ssum_validation(1, SIDE, options=options, first=number)
    image = Micrograph(pair.low, (pair.pixel_nm,) * 2)
    return enhanced(model, image, pair.high, pair.kind)


def enhanced(model: Any, image: Micrograph, truth: Image, kind: str) -> Field:
    """Enhance a field and compare it with its truth, on the pixels of the field."""
    low = np.asarray(image.data)
    chosen = EnhanceOptions(dtype="float32")
    made = run(enhance_array(image, model, chosen)).array()
    spread = spread_lazy(image, model, chosen).compute(scheduler="synchronous")
    first, last = field_range(low, *model.card.input_percentiles)
    span, start = (last - first, first) if model.card.grey == "input" else (1.0, 0.0)
    finer = made.shape[0] // low.shape[0]

    def coarse(values: Image) -> Image:
        side = low.shape[0]
        return values.reshape(side, finer, side, finer).mean(axis=(1, 3)).astype(float)

    return Field(
        kind,
        ((low - first) / (last - first)).astype(float),
        coarse((made - start) / span),
        coarse(spread / span),
        coarse(np.abs(made.astype(float) - truth) / span),
    )


def own_fields(model: Any, folder: Path | None) -> Callable[[int], Field]:
    """Make fields by the recipe of a model, of the images that it did not see."""
    card = model.card
    recipe = dict(card.training["recipe"])
    data = dict(recipe["data"])
    if data["sources"].get("images"):
        # ``bank`` and the like: `Truths` sets them; what was shown is left out whole.
        data["train"] = data["held_out"]
        recipe["data"] = data
        card = card.model_copy(update={"training": {**card.training, "recipe": recipe}})
    truths = Truths(card, side=SIDE, seed=OWN_SEED, folder=folder)
    pixel = card.pixel_size_nm
    size = None if pixel is None else parse_pixel_size(pixel[0])

    def make(number: int) -> Field:
        low, high = truths.pair(number)
        return enhanced(model, Micrograph(low, size), high, "own")

    return make


def auroc(score: Image, worst: NDArray[np.bool_]) -> float:
    """Chance that a pixel of the worst scores above one of the others."""
    order = np.argsort(np.argsort(score.ravel(), kind="stable"))
    bad = worst.ravel()
    count, others = int(bad.sum()), int((~bad).sum())
    return float((order[bad].sum() - count * (count - 1) / 2) / (count * others))


def scores(one: Field, scale: Image) -> dict[str, float]:
    """Tell how well each finds the worst tenth."""
    error = one.error
    worst = error > np.quantile(error, 1 - WORST)
    slope = np.hypot(*np.gradient(ndimage.gaussian_filter(one.after, 1)))
    near = ndimage.gaussian_filter(one.off, 2)
    return {
        "bound": auroc(scale, worst),
        "spread": auroc(one.spread[one.inner], worst),
        "gradient": auroc(slope[one.inner], worst),
        "oracle": auroc(near[one.inner], worst),
    }


@dataclass(frozen=True, slots=True)
class Bound:
    """What tells the bound, and on which fields it was calibrated."""

    weights: Image
    factor: float
    looks: Image
    limit: float

    @classmethod
    def bundled(cls, model: str) -> "Bound":
        """Read that of a model."""
        trust = load_trust(trust_path(find_model(model)))
        looks = np.array(trust.fields)
        return cls(np.array(trust.weights), trust.factor, looks, trust.familiar)

    @classmethod
    def learnt(cls, fields: list[Field]) -> "Bound":
        """Learn one from half of some fields, calibrated on the other half."""
        rng = np.random.default_rng(0)
        first, second = fields[::2], fields[1::2]
        seen, errors = [], []
        for one in first:
            known, error = one.seen, one.error.ravel()
            at = rng.integers(0, error.size, 400)
            seen.append(known.reshape(-1, known.shape[-1])[at])
            errors.append(error[at])
        weights = fit_scale(np.concatenate(seen), np.concatenate(errors))
        scales = [error_scale(one.seen, weights) for one in second]
        factor = bound_factor([one.error for one in second], scales, 0.9)
        looks = np.array([one.look for one in second])
        away = distance_to_fields(looks, looks, among=True)
        return cls(weights, factor, looks, float(np.quantile(away, 0.95)))

    def judge(self, one: Field) -> dict[str, Any]:
        """Measure one field."""
        scale = error_scale(one.seen, self.weights)
        away = distance_to_fields(one.look[None], self.looks)[0]
        bound = self.factor * scale
        held = one.error < bound
        place = np.searchsorted(EDGES, bound.ravel())
        pixels = np.bincount(place, minlength=EDGES.size + 1)
        below = np.bincount(place, held.ravel(), minlength=EDGES.size + 1)
        return {
            "kind": one.kind.split("+")[0],
            "auroc": scores(one, scale),
            "below": float(held.mean()),
            "bound": float(np.mean(bound)),
            "by_bound": [pixels.tolist(), below.astype(int).tolist()],
            "unfamiliar": bool(away > self.limit),
        }


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Tabulate fields by kind, and by part, in Markdown."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["part"] == "kinds":
            groups.setdefault(row["kind"], []).append(row)
        groups.setdefault(f"**{PARTS[row['part']]}**", []).append(row)
    head = "fields", "AUROC of the bound", "of the spread", "of the gradient"
    head += "of the oracle", "pixels below the bound", "worst field", "mean bound"
    lines = [
        f"| {' | '.join(head)} |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, some in sorted(groups.items(), key=lambda group: "**" in group[0]):
        below = [100 * row["below"] for row in some]
        ranked = ([row["auroc"][which] for row in some] for which in some[0]["auroc"])
        cells = [
            f"{name}, {len(some)}",
            *(mean_and_error(each, ".2f") for each in ranked),
            f"{mean_and_error(below, '.1f')} %",
            f"{min(below):.0f} %",
            f"{100 * np.mean([row['bound'] for row in some]):.0f} %",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def failed(rows: list[dict[str, Any]]) -> str:
    """Say how many fields the bound is too small for, and how many of them look odd."""
    bad = [row["unfamiliar"] for row in rows if row["below"] < LEAST]
    told = (
        f"{len(bad)} of {len(rows)} fields have fewer than 80 % of their pixels below"
    )
    return f"{told}, and {sum(bad)} of these are called unfamiliar"


def deciles(rows: list[dict[str, Any]]) -> str:
    """Give the percentage of pixels below the bound, by its tenths, least first."""
    pixels, below = np.sum([row["by_bound"] for row in rows], axis=0)
    share = np.cumsum(pixels) / pixels.sum()
    tenth = np.minimum((share - 1e-9) * 10, 9.999).astype(int)
    told = [
        f"{100 * below[tenth == n].sum() / pixels[tenth == n].sum():.0f}"
        for n in range(10)
        if pixels[tenth == n].sum()
    ]
    return ", ".join(told)


def main() -> None:
    """Measure the parts that are asked for, and say them."""
    given = read_options(
        __doc__,
        "--model=ssum-sem --rows=FILE",
        only={"nargs": "+", "default": [*PARTS][:-1], "choices": [*PARTS]},
        folder=(Path, "of the images of the recipe"),
        seeds=(8, "of each kind"),
        learnt=(30, "fields of each kind"),
    )
    model = load_model(given.model)
    kinds, optics = LENS.kinds, {"microscopes": ODD, "gaussian": USUAL}
    rows = Rows(given.rows, "part", "number")
    numbers = range(SEED, SEED + given.seeds * len(kinds))
    for part in given.only:
        left = [number for number in numbers if (part, number) not in rows]
        learning = left_out(model, given.learnt) if part == "left-out" and left else {}
        recipe = own_fields(model, given.folder) if part == "own" and left else None
        for number in left:
            options = optics.get(part, LENS)
            one = recipe(number) if recipe else field(model, number, options)
            bound = learning.get(one.kind.split("+")[0])
            judge = bound or Bound.bundled(given.model)
            rows.add({"part": part, "number": number, **judge.judge(one)})
        own = [row for row in rows if row["part"] == part]
        print(f"{part}: {failed(own)}; by tenths {deciles(own)} %", flush=True)
    print(table(rows))


def left_out(model: Any, count: int) -> dict[str, Bound]:
    """Learn a bound for each kind, from `count` fields of each of the others."""
    fields = [
        field(model, LEARNT + number, LENS) for number in range(count * len(LENS.kinds))
    ]
    return {
        kind: Bound.learnt([f for f in fields if f.kind.split("+")[0] != kind])
        for kind in LENS.kinds
    }


if __name__ == "__main__":
    main()
