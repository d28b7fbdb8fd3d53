"""Ask whether objects that a network invented are told from those that are there.

Run: ``python benchmarks/objects.py [--only PART ...] [--model NAME] [--fields N]``.

``kinds``: simulated fields from seed 60 000 on, of all eight kinds of sample, which
nothing was learnt from and no choice looked at; ``microscopes``: as many through
microscopes that are not Gaussian, which nothing was calibrated on; ``discs``: the trial
of ``semsr models check``, discs put into samples and taken out, of which those count
that the result shows: rightly, or wrongly. Printed: AUROC of the doubt, and of both
kinds of object the share beyond the model's limit, and with the limit that one in
twenty of the right ones of this set exceeds. ± is the s.e. over fields.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr import jobs
from napari_semsr.analysis import clues, error_scale, find_objects
from napari_semsr.core import Micrograph, field_range, parse_pixel_size, run
from napari_semsr.inference import EnhanceOptions, enhance_array, spread_lazy
from napari_semsr.jobs.check.sources import DrawnSurfaces
from napari_semsr.models import load_model, load_trust, trust_path
from napari_semsr.simulation import SsumPairOptions, ssum_validation

SEED = 60_000
DISCS_SEED = 60
SIDE = 256
DISCS_SIDE = 320
DISCS = (14, 14)
NEAR_PX = 4  # from a disc's centre to that of the object that shows it
ODD = {"gaussian": 0, "focus_drift_nm": 60, "distortion_px": 0.5}
Image = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Judged:
    """Objects of a field: their doubt, and whether each is invented."""

    kind: str
    doubt: Image
    invented: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Asked:
    """A model, and what was learnt of it."""

    model: Any
    trust: Any

    @classmethod
    def of(cls, name: str) -> "Asked":
        """Load both."""
        path = jobs.find_model(name)
        return cls(load_model(path), load_trust(trust_path(path)))

    def look(self, image: Micrograph) -> tuple[Any, Image, Image]:
        """Find the objects of what is made of a field; their doubt, and the result."""
        options = EnhanceOptions(dtype="float32")
        made = run(enhance_array(image, self.model, options)).array()
        apart = spread_lazy(image, self.model, options)
        spread = apart.compute(scheduler="synchronous")
        low, high = field_range(image.data, *self.model.card.input_percentiles)
        size = high - low
        before = (image.array().astype(float) - low) / size
        after = (made.astype(float) - low) / size
        parts = before, after, spread.astype(float) / size
        scale = error_scale(clues(*parts), np.array(self.trust.weights))
        found = find_objects(*parts, scale)
        return found, jobs.doubt_of(self.trust.objects, found.seen), after


def fields(asked: Asked, part: str, count: int) -> Iterator[Judged]:
    """Judge the objects of simulated fields."""
    ranges = SsumPairOptions(gaussian=1, relief_nm=(40, 160))
    if part == "microscopes":
        ranges = ranges.replace(**ODD, changed=1.0, read_noise=(10, 600))
    for number in range(count):
        (pair,) = ssum_validation(1, SIDE, options=ranges, first=SEED + number)
        image = Micrograph(pair.low, parse_pixel_size(pair.pixel_nm), "field")
        found, doubt, after = asked.look(image)
        invented = found.invented(pair.high.astype(float), after)
        yield Judged(pair.kind.split("+")[0], doubt, invented)


def discs(asked: Asked, count: int) -> Iterator[Judged]:
    """Judge the discs that are shown."""
    source = DrawnSurfaces(DISCS_SIDE, scale=1, seed=DISCS_SEED)
    for number in range(count):
        (scene,) = source.scenes(number, DISCS)
        found, doubt, after = asked.look(scene.field)
        right = scene.trial.judge(after)
        places = scene.trial.places
        # an erased disc that is shown is wrong, an inserted one is right
        shown = [
            (centre, change == "erased")
            for change in ("inserted", "erased")
            for centre, good in zip(
                getattr(places, change).centres, right[change], strict=True
            )
            if good == (change == "inserted")
        ]
        known, wrong = [], []
        for centre, invented in shown:
            away = np.hypot(*(found.centres - centre).T)
            near = away.size and away.min() <= NEAR_PX
            known.append(float(doubt[away.argmin()]) if near else 0.0)
            wrong.append(invented)
        yield Judged("discs", np.array(known), np.array(wrong, bool))


def auroc(score: Image, bad: NDArray[np.bool_]) -> float:
    """Chance that an invented object is doubted more than one that is there."""
    order = np.argsort(np.argsort(score, kind="stable"))
    count, others = int(bad.sum()), int((~bad).sum())
    if not count or not others:
        return float("nan")
    return float((order[bad].sum() - count * (count - 1) / 2) / (count * others))


def error_of(judged: list[Judged], which: bool, limit: float) -> tuple[float, float]:
    """Share beyond a limit, and its s.e. with whole fields left out (jackknife)."""
    beyond = np.array(
        [int((j.doubt > limit)[j.invented == which].sum()) for j in judged]
    )
    among = np.array([int((j.invented == which).sum()) for j in judged])
    share = beyond.sum() / max(among.sum(), 1)
    left = (beyond.sum() - beyond) / np.maximum(among.sum() - among, 1)
    spread = np.sqrt((len(left) - 1) / len(left) * ((left - left.mean()) ** 2).sum())
    return float(share), float(spread)


def say(name: str, judged: list[Judged], limit: float) -> None:
    """Print the figures of some fields."""
    doubt = np.concatenate([j.doubt for j in judged])
    bad = np.concatenate([j.invented for j in judged])
    own = float(np.quantile(doubt[~bad], 0.95)) if (~bad).any() else 1.0
    parts = []
    for which, of in ((limit, "its limit"), (own, "5 %")):
        wrong, right = (error_of(judged, kind, which) for kind in (True, False))
        parts.append(
            f"at {of}: {100 * wrong[0]:.0f} ± {100 * wrong[1]:.0f} % of the invented, "
            f"{100 * right[0]:.1f} ± {100 * right[1]:.1f} % of those there"
        )
    print(
        f"{name}: {len(judged)} fields, {bad.size} objects, {bad.sum()} invented; "
        f"AUROC {auroc(doubt, bad):.2f}; {'; '.join(parts)}",
        flush=True,
    )


def main() -> None:
    """Judge the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts = ("kinds", "microscopes", "discs")
    parser.add_argument("--only", nargs="+", default=parts, choices=parts)
    parser.add_argument("--model", default="ssum-sem")
    parser.add_argument("--fields", type=int, default=64)
    given = parser.parse_args()
    asked = Asked.of(given.model)
    for part in given.only:
        made = (
            discs(asked, given.fields)
            if part == "discs"
            else fields(asked, part, given.fields)
        )
        judged = list(made)
        say(part, judged, asked.trust.objects.limit)
        for kind in sorted({j.kind for j in judged}):
            some = [j for j in judged if j.kind == kind]
            say(f"  {kind}", some, asked.trust.objects.limit)
        chance = np.concatenate([j.doubt for j in judged])
        bad = np.concatenate([j.invented for j in judged])
        for low in np.arange(0, 1, 0.2):
            held = (chance >= low) & (chance < low + 0.2)
            if held.any():
                print(f"  doubt {low:.1f} to {low + 0.2:.1f}: {bad[held].mean():.2f}")


if __name__ == "__main__":
    main()
