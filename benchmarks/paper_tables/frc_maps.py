"""Sun's figure 5: FRC of 10 and of 5 blocks along each side, measured and drawn.

As NanoJ-SQUIRREL lays them: side by side, threshold 1/7. *Against the electron image*
is Sun's way: one image beside the electron image. Ours has no noise, and against such
a partner the threshold that means the same is the root of 1/7; the electron image
itself is then a noisy scan beside the one without noise. *Two exposures* takes two
pictures of one place, whose noise is independent, at 1/7. Of a model these are what it
makes of either: that says how far it repeats itself, which is no resolution.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _shared import picture
from _superlens_fields import chip, letters
from numpy.typing import NDArray
from superlens import Judge, in_focus, inner

from napari_semsr.analysis import FrcMap, FrcMapOptions, measure_frc_map
from napari_semsr.core import Micrograph, parse_pixel_size, run
from napari_semsr.simulation import SsumPair
from paper_tables.lens import CHIP_PITCH_NM, CHIP_RELIEF_NM, Shown, chips, show
from paper_tables.markdown import number, table
from paper_tables.page_lens import NAMES
from paper_tables.spread import with_spread, written

Image = NDArray[np.float64]
Say = Callable[[str], None]
PER_AXIS = (10, 5)
WAYS = {"reference": "against the electron image", "pair": "two exposures"}
ELECTRONS = 300.0  # per white pixel, as the simulator's electron microscope has them
_SECOND = 5000  # added to the seed of the noise, for the second exposure
_UP_TO_NYQUIST = "beyond-nyquist"


def measure_maps(
    judges: dict[str, Judge], say: Say, *, first_seed: int = 0
) -> dict[str, Any]:
    """Measure maps of chips in focus, and of letters, which nothing is trained on.

    ``rows``, by sample, way, blocks along a side, and image: `map_rows`. ``shown``: for
    the first chip, the maps against the electron image.
    """
    first = next(iter(judges.values()))
    rows: dict[str, Any] = {}
    shown: dict[str, Any] = {}
    for sample, seed, pairs in _fields(first, first_seed):
        say(f"superlens, FRC maps: {sample}")
        own = tuple(
            _with_scan(show(pair, judges), pair, np.random.default_rng([seed, number]))
            for number, pair in enumerate(pairs)
        )
        held = rows.setdefault(sample, {way: {} for way in WAYS})
        for count in PER_AXIS:
            for way in WAYS:
                into = held[way].setdefault(str(count), {})
                for name in own[0].images:
                    found = _map(own, name, way, count)
                    if found is None:
                        continue
                    into.setdefault(name, []).append(blocks(found))
                    if sample == "chip" and way == "reference":
                        shown.setdefault(str(count), {}).setdefault(name, _kept(found))
    for ways in rows.values():
        for counts in ways.values():
            for count, names in counts.items():
                counts[count] = {name: map_rows(held) for name, held in names.items()}
    return {"rows": rows, "shown": shown}


def _fields(judge: Judge, first_seed: int) -> Iterator[tuple[str, int, list[SsumPair]]]:
    """Yield two exposures of each place."""
    for seed in chips(judge, first_seed):
        drawn = {
            "chip": chip(CHIP_PITCH_NM, seed, CHIP_RELIEF_NM),
            "letters": letters(CHIP_RELIEF_NM, seed),
        }
        for sample, surface in drawn.items():
            exposures = (seed, seed + _SECOND)
            yield sample, seed, [in_focus(surface, judge, n) for n in exposures]


def _with_scan(shown: Shown, pair: SsumPair, rng: np.random.Generator) -> Shown:
    """Put a noisy electron image beside the one without noise."""
    low, high = pair.high_range
    bright = np.clip(pair.high * (high - low) + low, 0, None).astype(float)
    scan = rng.poisson(bright * ELECTRONS) / ELECTRONS
    images = {k: v for k, v in shown.images.items() if k != "linear"}
    images["scan"] = 255 * (scan - low) / (high - low)
    return Shown(images, shown.pixel_nm, shown.scale)


def _map(own: tuple[Shown, ...], name: str, way: str, count: int) -> FrcMap | None:
    """Lay blocks over an image; None for the truth, as it is held against itself."""
    if name == "truth":
        return None
    size = parse_pixel_size(own[0].pixel_nm)
    second = own[0].images["truth"] if way == "reference" else own[1].images[name]
    parts = [
        Micrograph(inner(np.asarray(image, float), own[0].scale), size)
        for image in (own[0].images[name], second)
    ]
    options = FrcMapOptions(
        blocks_per_axis=count, reference=way == "reference", fill="nearest"
    )
    return run(measure_frc_map(parts[0], parts[1], options))


def _kept(found: FrcMap) -> dict[str, Any]:
    """Keep what a picture needs: the map with its gaps filled, and where they were."""
    filled = np.asarray(found.map.array(), float)
    return {
        "nm": [[_rounded(v) for v in line] for line in filled],
        "missing": (~np.isfinite(found.measured_values)).tolist(),
    }


def _rounded(value: float) -> float | None:
    return round(float(value), 1) if np.isfinite(value) else None


def blocks(found: FrcMap) -> dict[str, Any]:
    """Give the figures of one map; blocks that were filled do not count."""
    values = found.measured_values[np.isfinite(found.measured_values)]
    fine = found.reason_counts.get(_UP_TO_NYQUIST, 0)
    return {
        "values": [float(v) for v in values],
        "median_nm": float(np.median(values)) if values.size else None,
        "missing": 100 * found.failed / found.blocks,
        "fine": 100 * fine / found.blocks,
    }


def map_rows(fields: list[dict[str, Any]]) -> dict[str, Any]:
    """Put the maps of several fields together.

    Median, tenth and ninetieth percentile over all blocks that have an answer; the
    shares of those that have none, and of those finer than two pixels, in per cent.
    """
    pooled = [value for field in fields for value in field["values"]]
    found = with_spread(
        fields, {"median_nm": "high", "missing": "high", "fine": "high"}
    )
    found["fields"] = len(fields)
    for key, share in (("median_nm", 50), ("p10_nm", 10), ("p90_nm", 90)):
        found[key] = float(np.percentile(pooled, share)) if pooled else None
    return found


def maps_table(found: dict[str, Any]) -> str:
    """Write medians, spreads and shares, a table for each sample."""
    head = ["image"]
    for way in WAYS.values():
        for count in PER_AXIS:
            start = f"{way}, {count} blocks"
            head += [f"{start}: median, nm (10 to 90 %)", "no answer, %"]
    parts = []
    for sample, ways in found["rows"].items():
        names = list(ways["reference"][str(PER_AXIS[0])])
        count = ways["reference"][str(PER_AXIS[0])][names[0]]["fields"]
        cells = []
        for name in names:
            row = [_called(name)]
            for way in WAYS:
                for per_axis in PER_AXIS:
                    row += _cells(ways[way][str(per_axis)][name])
            cells.append(row)
        parts += [f"**{sample.capitalize()}** ({count} fields)", table(head, cells)]
    return "\n\n".join(parts)


def _cells(r: dict[str, Any]) -> list[str]:
    error = r.get("se", {}).get("median_nm")
    sure = "" if error is None else f" ± {number(error, 0)}"
    spread = f" ({number(r['p10_nm'], 0)} to {number(r['p90_nm'], 0)})"
    missing = written(r, "missing", 0)
    if r["fine"]:
        missing += f"; {number(r['fine'], 0)} up to Nyquist"
    if r["median_nm"] is None:
        sure = spread = ""
    return [f"{number(r['median_nm'], 0)}{sure}{spread}", missing]


def _called(name: str) -> str:
    return "electron image, a noisy scan" if name == "scan" else NAMES.get(name, name)


def draw_maps(path: Path, shown: dict[str, Any]) -> None:
    """Draw the maps of one field on one scale; a cross where a neighbour stands in."""
    names = list(next(iter(shown.values())))
    grids = {
        key: {name: np.array(one["nm"], float) for name, one in maps.items()}
        for key, maps in shown.items()
    }
    known = np.concatenate(
        [g.ravel() for maps in grids.values() for g in maps.values()]
    )
    known = known[np.isfinite(known)]
    low, high = np.percentile(known, (1, 99)) if known.size else (0.0, 1.0)
    with picture(
        path,
        len(shown),
        len(names),
        figsize=(1.9 * len(names) + 1.2, 2.1 * len(shown)),
        squeeze=False,
    ) as (figure, axes):
        drawn = None
        for row, (line, (count, maps)) in enumerate(
            zip(axes, grids.items(), strict=True)
        ):
            for axis, (name, grid) in zip(line, maps.items(), strict=True):
                drawn = axis.imshow(grid, cmap="viridis_r", vmin=low, vmax=high)
                y, x = np.nonzero(np.array(shown[count][name]["missing"]))
                axis.plot(x, y, "x", color="0.3", ms=18 / int(count) + 1.5, mew=0.7)
                axis.set(xticks=[], yticks=[])
                if row == 0:
                    axis.set_title(_called(name).replace(", ", ",\n"), fontsize=7)
            line[0].set_ylabel(f"{count} blocks", fontsize=8)
        if drawn is not None:
            bar = figure.colorbar(drawn, ax=axes, shrink=0.8)
            bar.set_label("FRC resolution, nm", fontsize=8)
