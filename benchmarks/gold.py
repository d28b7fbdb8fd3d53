"""How well gold on carbon is seen at half the magnification: de Haan's task.

Run: ``python benchmarks/gold.py --model sem-2x --rows FILE``.

The fields are those of ``gold_rng("judging", …)``, which train nothing and choose
nothing. Each is seen at 14.2 nm per pixel; every method brings it to 7.1 nm, where the
truth is, and is judged by

- the gaps between islands, by the definition of ``semsr gaps``: the share of the
  truth's gaps that it does not show, the mean error of the widths of the others, and
  the share of its own gaps that the truth does not have;
- PSNR and SSIM, on the scale where the percentiles 0.1 and 99.9 of the coarse image are
  0 and 1, with 16 px of border left out.

Baselines: cubic splines (the input, on which the simulation was tuned), bicubic and
Lanczos interpolation, a Wiener filter and Richardson-Lucy of ``semsr restore`` after
bicubic interpolation, given the blur that the coarse image has beyond the truth, and
the best linear filter: 11 x 11 coarse pixels for each of the four fine pixels, fitted
to the truth of other fields.
"""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from _restoration import least_squares
from _shared import Rows, read_options
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from paper_tables.theirs import HAAN
from scipy import ndimage

from napari_semsr.analysis import measure_gaps, measure_metrics
from napari_semsr.core import Micrograph, run
from napari_semsr.inference import EnhanceOptions, enhance_in_memory
from napari_semsr.models import list_bundled_models, load_model
from napari_semsr.restoration import RestoreOptions, prepare_restoration
from napari_semsr.simulation.gold import (
    COARSE_NM,
    FINE_NM,
    GoldOptions,
    GoldPair,
    create_gold_rng,
    simulate_random_gold_pair,
)

Image = NDArray[np.float64]
Method = Callable[[Image], Image]
BORDER = 16
TAPS = 11
PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))  # of the fine pixels in a coarse one
FITTED_ON = 6
FIT_SEED = 20190819


def fine(image: Image) -> Micrograph:
    """Name the pixel size of an image on the fine grid."""
    return Micrograph(
        np.asarray(image, np.float32), pixel_size_nm=(FINE_NM, FINE_NM), name="fine"
    )


def splines(low: Image) -> Image:
    """Interpolate by cubic splines; pixel areas stay where they are."""
    return np.asarray(ndimage.zoom(low, 2, order=3, mode="reflect", grid_mode=True))


def keys(x: Image) -> Image:
    """Bicubic kernel of Keys, a = -0.5."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def lanczos(x: Image) -> Image:
    """Lanczos kernel of three lobes."""
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


def by_kernel(kernel: Callable[[Image], Image]) -> Method:
    """Interpolate with a kernel; pixel areas stay where they are."""

    def apply(low: Image) -> Image:
        image = low
        for axis in (0, 1):
            shape = [*image.shape]
            shape[axis] *= 2
            doubled = np.empty(shape)
            for phase, off in enumerate((0.25, -0.25)):
                taps = kernel(np.arange(-3, 4) + off)
                part: list[Any] = [slice(None), slice(None)]
                part[axis] = slice(phase, None, 2)
                doubled[tuple(part)] = ndimage.correlate1d(
                    image, taps / taps.sum(), axis=axis, mode="reflect"
                )
            image = doubled
        return image

    return apply


def restored(method: str, sigma_px: float) -> Method:
    """``semsr restore`` after bicubic interpolation, the blur given."""
    options = RestoreOptions.parse({"method": method, "psf": f"{sigma_px:.4f}px"})

    def apply(low: Image) -> Image:
        image = fine(by_kernel(keys)(low))
        restorer = run(prepare_restoration(image, options, None))
        result = np.empty(image.shape)
        for tile, values in restorer.restore_tiles(
            image.data, restorer.create_plan(image.shape)
        ):
            result[tile.core.slices] = values
        return result

    return apply


def blur_beyond_truth(options: GoldOptions) -> float:
    """Blur of the coarse image that the truth has not: probe and pixel, fine pixels."""
    probe = float(np.mean(options.coarse_probe_nm))
    variance = (probe**2 - options.fine_probe_nm**2) / (8 * np.log(2))
    variance += (COARSE_NM**2 - FINE_NM**2) / 12
    return float(np.sqrt(variance)) / FINE_NM


def _windows(low: Image) -> Image:
    padded = np.pad(low, TAPS // 2, mode="reflect")
    flat = sliding_window_view(padded, (TAPS, TAPS)).reshape(-1, TAPS**2)
    return np.column_stack([flat, np.ones(len(flat))])


def linear_fit(pairs: Iterable[tuple[Image, Image]]) -> Method:
    """Fit the best linear filter to pairs of a coarse image and the truth."""
    parts = [
        (_windows(low), np.stack([truth[i::2, j::2].ravel() for i, j in PHASES], 1))
        for low, truth in pairs
    ]
    small = 1e-9 * sum(float(np.sum(rows**2)) for rows, _ in parts) / (TAPS**2 + 1)
    weights = least_squares(parts, small)

    def apply(low: Image) -> Image:
        phases = (_windows(low) @ weights).T.reshape(2, 2, *low.shape)
        rows, columns = low.shape
        return phases.transpose(2, 0, 3, 1).reshape(2 * rows, 2 * columns)

    return apply


def best_linear(options: GoldOptions, side: int) -> Method:
    """Fit the best linear filter to fields that are not judged."""
    drawn = (
        simulate_random_gold_pair(
            side, np.random.default_rng([FIT_SEED, index]), options
        )
        for index in range(FITTED_ON)
    )
    return linear_fit((pair.low.astype(float), pair.high) for pair in drawn)


def network(name: str) -> Method:
    """Enhance with a model; one of scale 1 after bicubic interpolation."""
    loaded = load_model(name)

    def apply(low: Image) -> Image:
        if loaded.card.scale == 1:
            image = fine(by_kernel(keys)(low))
        else:
            image = Micrograph(
                low.astype(np.float32), pixel_size_nm=(COARSE_NM, COARSE_NM)
            )
        result = run(enhance_in_memory(image, loaded, EnhanceOptions(device="cpu")))
        return result.array().astype(float)

    return apply


@dataclass
class Score:
    """What is gathered of one method, field by field."""

    fields: list[dict[str, Any]] = field(default_factory=list)

    def add(self, image: Image, truth: Image) -> None:
        """Judge one field."""
        made, true = fine(image), fine(truth)
        found = run(measure_gaps(made, true))
        errors = found.compute_width_errors("nm")
        inner = (slice(BORDER, -BORDER),) * 2
        near = measure_metrics(fine(image[inner]), fine(truth[inner]), data_range=1.0)
        signed, off = (
            (errors.mean(), np.abs(errors).mean()) if errors.size else (None, None)
        )
        figures = {
            "width_error_nm": off,
            "signed_width_error_nm": signed,
            "psnr_db": near.psnr_db or 0.0,
            "ssim": near.ssim or 0.0,
        }
        self.fields.append(
            {
                "gaps": len(found.found_gaps),
                "missed": len(found.found_gaps) - found.detected,
                "own": found.own or 0,
                "invented": len(found.invented_gaps),
                "widths": errors.size,
            }
            | {
                name: value if value is None else np.round(value, 4).tolist()
                for name, value in figures.items()
            }
        )


def percent(part: float, whole: float) -> float:
    """Give a share in per cent; 0 of nothing."""
    return 100 * part / max(whole, 1)


def pooled(fields: list[dict[str, Any]]) -> dict[str, Any]:
    """Give the figures of a method over fields."""
    gaps, missed, own, invented, widths = (
        np.array([row[name] for row in fields])
        for name in ("gaps", "missed", "own", "invented", "widths")
    )

    def mean(name: str, weights: Image | None = None) -> Any:
        values = np.array([row[name] for row in fields], dtype=float)
        if weights is not None:
            values, weights = values[weights > 0], weights[weights > 0]
        return np.average(values, axis=0, weights=weights).tolist()

    return {
        "gaps": int(gaps.sum()),
        "undetected_percent": percent(missed.sum(), gaps.sum()),
        "undetected_spread_percent": float((100 * missed / np.maximum(gaps, 1)).std()),
        "width_error_nm": mean("width_error_nm", widths),
        "signed_width_error_nm": mean("signed_width_error_nm", widths),
        "invented_percent": percent(invented.sum(), own.sum()),
        "psnr_db": mean("psnr_db"),
        "ssim": mean("ssim"),
    }


def methods_of(arguments: argparse.Namespace, options: GoldOptions) -> dict[str, Any]:
    """List what is compared, the input first."""
    methods: dict[str, Method] = {"cubic splines (input)": splines}
    if not arguments.no_peers:
        sigma = blur_beyond_truth(options)
        methods |= {
            "bicubic": by_kernel(keys),
            "Lanczos": by_kernel(lanczos),
            "bicubic, Wiener": restored("wiener", sigma),
            "bicubic, Richardson-Lucy": restored("richardson-lucy", sigma),
            "best linear filter": best_linear(options, min(arguments.side, 192)),
        }
    return methods | {Path(name).stem: network(name) for name in arguments.model}


def judge(methods: dict[str, Method], pairs: list[GoldPair]) -> dict[str, Score]:
    """Run every method on every field."""
    scores = {name: Score() for name in methods}
    for pair in pairs:
        for name, method in methods.items():
            scores[name].add(method(pair.low.astype(float)), pair.high.astype(float))
    return scores


def by_method(rows: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Sort rows of fields by their method."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["method"], []).append(row)
    return found


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Write the figures of rows as markdown."""
    head = (
        "| method | undetected gaps, % | width error, nm (signed) | invented gaps, % "
        "| PSNR, dB | SSIM |\n|---|---|---|---|---|---|"
    )
    lines = [head]
    for name, fields in by_method(rows).items():
        r = pooled(fields)
        lines.append(
            f"| {name} | {r['undetected_percent']:.1f} "
            f"± {r['undetected_spread_percent']:.1f} | {r['width_error_nm']:.2f} "
            f"({r['signed_width_error_nm']:+.2f}) | {r['invented_percent']:.1f} "
            f"| {r['psnr_db']:.2f} | {r['ssim']:.3f} |"
        )
    lines += [
        f"| de Haan et al., {name}: theirs, on their data | {missed} | {error} | | | |"
        for name, (missed, error) in HAAN.items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    own = [name for name in list_bundled_models() if name == "sem-2x"]
    arguments = read_options(
        __doc__,
        "--fields=8 --no-peers --rows=FILE",
        model=({"nargs": "*", "default": own}, "names or files"),
        first=(0, "index of the first field"),
        side=(256, "coarse pixels"),
    )
    options = GoldOptions()
    methods = methods_of(arguments, options)
    pairs = [
        simulate_random_gold_pair(
            arguments.side, create_gold_rng("judging", index), options
        )
        for index in range(arguments.first, arguments.first + arguments.fields)
    ]
    scores = judge(methods, pairs)
    rows = Rows(arguments.rows, "method", "field")
    for name, score in scores.items():
        for number, row in enumerate(score.fields, arguments.first):
            rows.add({"method": name, "field": number, **row})
    print(
        f"{arguments.fields} fields of {arguments.side} x {arguments.side} px at "
        f"{COARSE_NM} nm; ± is the spread between fields.\n"
    )
    print(table(rows))


if __name__ == "__main__":
    main()
