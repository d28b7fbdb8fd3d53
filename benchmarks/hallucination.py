"""Show what finds a network that invents texture, and what it deceives.

Run: ``python benchmarks/hallucination.py [--fields N] [--picture FILE]``.

``benchmarks/inventor`` holds a GAN that was taught to please its discriminator. Beside
it ``ssum-sem``, and the input itself. Of each, on simulated superlens fields from seed
50 000 on, of all eight kinds and any focus: what one looks at who has no truth (FRC of
one image, average gradient), what the truth says (PSNR, FRC with the truth), and what
our measures say without it (spread over flips and turns, misfit with the data). Means
over fields ± s.e.; resolutions are medians, and one beyond Nyquist counts as Nyquist.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _shared import mean_and_error, picture, read_options
from _superlens_fields import USUAL
from numpy.typing import NDArray

from napari_semsr.analysis import (
    FrcOptions,
    FrcResult,
    fit_gain_and_offset,
    measure_frc,
    measure_metrics,
    measure_misfit,
)
from napari_semsr.core import Micrograph, measure_percentiles, parse_pixel_size, run
from napari_semsr.inference import EnhanceOptions, enhance_in_memory
from napari_semsr.inference.ensemble import ALL
from napari_semsr.models import load_model
from napari_semsr.simulation import simulate_validation_pairs

SEED = 50_000
SIDE = 384
BORDER_PX = 16
MODELS = {
    "ssum-sem": "ssum-sem",
    "the inventor": str(Path(__file__).parent / "inventor" / "inventor.safetensors"),
}
BEYOND = "beyond-nyquist"
Image = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one picture of one field."""

    name: str
    kind: str
    figures: dict[str, float]


def pair_of(number: int) -> tuple[str, Micrograph, Micrograph]:
    """Make a field and its truth."""
    (pair,) = simulate_validation_pairs(1, SIDE, options=USUAL, first=SEED + number)
    size = parse_pixel_size(pair.pixel_nm)
    return (
        pair.kind.split("+")[0],
        Micrograph(pair.low.astype(np.float32), size, "field"),
        Micrograph(pair.high.astype(np.float32), size, "truth"),
    )


def resolution(result: Any, nyquist: float) -> float:
    """Give a resolution; Nyquist where nothing crosses, NaN where it means nothing."""
    if result.resolution_nm is not None:
        return float(result.resolution_nm)
    return nyquist if result.reason == BEYOND else float("nan")


def measure_agreement(image: Micrograph, reference: Micrograph) -> FrcResult:
    """Measure the finest detail at which an image agrees with a reference.

    The usual fit is local, and may find no crossing if the curve dips and recovers; the
    first crossing of the rings is used then. The reference counts as free of noise.
    """
    options = FrcOptions(reference=True)
    result = measure_frc(image, reference, options)
    if result.reason != "beyond-nyquist":
        return result
    plain = measure_frc(image, reference, options.replace(estimator="plain"))
    return plain if plain.reason is None else result


def looked_at(shown: Image, truth: Image, pixel_nm: float) -> dict[str, float]:
    """Measure a picture alone, and against the truth."""
    inner = slice(BORDER_PX, -BORDER_PX)
    cut, true = shown[inner, inner], truth[inner, inner]
    gain, offset = fit_gain_and_offset(cut, true)
    size = parse_pixel_size(pixel_nm)
    alone = measure_frc(Micrograph(cut, size))
    both = measure_agreement(Micrograph(cut, size), Micrograph(true, size))
    error = float(np.mean((gain * cut + offset - true) ** 2))
    unit = (cut - cut.min()) / max(float(np.ptp(cut)), 1e-9) * 255
    return {
        "single_nm": resolution(alone, 2 * pixel_nm),
        "gradient": measure_metrics(Micrograph(unit, size)).average_gradient,
        "truth_nm": resolution(both, 2 * pixel_nm),
        "psnr_db": 10 * np.log10(float(np.ptp(truth)) ** 2 / error),
    }


def spread_of(low: Micrograph, model: Any, options: EnhanceOptions) -> Image:
    """Measure by how much a model differs from itself over flips and turns."""
    made = []
    for pose in ALL:  # of (B, C, Y, X)
        laid = pose.apply(torch.from_numpy(low.array().astype(np.float32))[None, None])
        given = low.replace(data=laid[0, 0].contiguous().numpy())
        back = torch.from_numpy(run(enhance_in_memory(given, model, options)).array())
        made.append(pose.undo(back[None, None])[0, 0].numpy())
    return np.std(made, axis=0, ddof=1)


def measure(number: int, models: dict[str, Any]) -> tuple[list[Row], dict[str, Image]]:
    """Measure what is made of one field."""
    kind, low, truth = pair_of(number)
    rows, shown = [], {"input": low.array(), "truth": truth.array()}
    pixel = low.scale[0]
    figures = looked_at(low.array().astype(float), truth.array().astype(float), pixel)
    rows.append(Row("the input", kind, figures))
    options = EnhanceOptions(dtype="float32")
    for name, model in models.items():
        made = run(enhance_in_memory(low, model, options))
        shown[name] = made.array()
        figures = looked_at(
            made.array().astype(float), truth.array().astype(float), pixel
        )
        first, last = measure_percentiles(low.data, *model.card.input_percentiles)
        apart = spread_of(low, model, options)
        misfit = run(measure_misfit(low, made))
        figures["spread"] = 100 * float(apart.mean()) / (last - first)
        figures["misfit"] = float("nan") if misfit is None else 100 * misfit.share
        rows.append(Row(name, kind, figures))
    return rows, shown


def told(values: list[float], *, median: bool) -> str:
    """Say a mean with its error, or a median."""
    known = np.array([v for v in values if np.isfinite(v)])
    if not known.size:
        return "-"
    if median:
        return f"{np.median(known):.0f}"
    return mean_and_error(known, ".2f")


def say(rows: list[Row]) -> None:
    """Print a table: a row for each picture, and the fields on which they differ."""
    columns = ("single_nm", "gradient", "truth_nm", "psnr_db", "spread", "misfit")
    print("| picture | " + " | ".join(columns) + " |")
    names = list(dict.fromkeys(row.name for row in rows))
    of = {
        name: {
            c: [r.figures.get(c, np.nan) for r in rows if r.name == name]
            for c in columns
        }
        for name in names
    }
    for name in names:
        cells = [told(of[name][c], median=c.endswith("_nm")) for c in columns]
        print(f"| {name} | " + " | ".join(cells) + " |")
    for name in names[:-1]:
        for column in columns:
            a, b = np.array(of[name][column]), np.array(of[names[-1]][column])
            known = np.isfinite(a) & np.isfinite(b)
            if known.any():
                print(
                    f"{column}: {names[-1]}'s is larger than {name}'s on "
                    f"{(b > a)[known].sum()} of {known.sum()} fields, smaller on "
                    f"{(b < a)[known].sum()}"
                )


def main() -> None:
    """Measure, print, and draw."""
    given = read_options(
        __doc__, "--fields=16 --picture=FILE", drawn=(5, "field of the picture")
    )
    models = {name: load_model(path) for name, path in MODELS.items()}
    rows: list[Row] = []
    for number in range(given.fields):
        more, shown = measure(number, models)
        rows += more
        if given.picture is not None and number == given.drawn:
            draw(shown, more, given.picture)
    say(rows)


def in_nm(value: float) -> str:
    """Say a resolution, if there is one."""
    return f"{value:.0f} nm" if np.isfinite(value) else "tells nothing"


def draw(shown: dict[str, Image], rows: list[Row], path: Path) -> None:
    """Draw one field: input, both pictures, and the truth."""
    with picture(path, 1, 4, dpi=100, figsize=(12, 3.75), layout=None) as (
        figure,
        axes,
    ):
        figure.subplots_adjust(0.005, 0.005, 0.995, 0.8, wspace=0.02)
        of = {row.name: row.figures for row in rows}
        part = (slice(96, 288),) * 2
        order = {"input": "the input", **{n: n for n in MODELS}, "truth": "the truth"}
        for axis, (key, name) in zip(axes, order.items(), strict=True):
            axis.imshow(shown[key][part], cmap="gray")
            axis.set_axis_off()
            said = [name]
            if name in of:
                one = of[name]
                said.append(f"FRC of one image {in_nm(one['single_nm'])}")
                said.append(f"FRC with the truth {in_nm(one['truth_nm'])}")
            if name in MODELS:
                said.append(f"spread {of[name]['spread']:.1f} %")
            axis.set_title("\n".join(said), fontsize=9)


if __name__ == "__main__":
    main()
