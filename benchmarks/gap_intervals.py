"""How often the 95 % intervals of ``semsr gaps`` hold the truth.

- *Share*: Wilson's interval of counts drawn with a known share.
- *Mean*: the bootstrap's interval of values drawn from a known distribution: errors
  that are normal, absolute errors, and absolute errors with a long tail. Widths of
  intervals of other seeds on the same values say how far chance moves an end.
- *Gaussian*: the mean of the fit, plus and minus 1.96 of its errors; beside it the same
  with the error that least squares state of themselves.
- *Fields*: particles with known gaps are drawn, blurred and made noisy; each field's
  intervals are held against the share and the errors of all fields together. This has
  what draws of independent values leave out: gaps that share a particle.

    python benchmarks/gap_intervals.py --fields 60
"""

from collections.abc import Callable, Sequence

import numpy as np
from _shared import read_options, run_parts
from numpy.typing import NDArray
from scipy import ndimage, optimize

from napari_semsr.analysis.gaps import (
    GapOptions,
    WidthFit,
    WidthHistogram,
    choose_bin_edges,
    compute_fraction_interval,
    compute_mean_interval,
    compute_width_histogram,
    measure_gaps,
)
from napari_semsr.core import Micrograph, run

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]
LAWS: dict[str, Draw] = {
    "normal": lambda rng, count: rng.normal(0.3, 1, count),
    "absolute": lambda rng, count: np.abs(rng.normal(0.3, 1, count)),
    "long tail": lambda rng, count: np.abs(rng.standard_t(3, count)),
}
COUNTS = (5, 10, 30, 100, 300)
SHARES = (0.0, 0.01, 0.05, 0.15, 0.5)
SIDE_PX, PITCH_PX = 320, 40


def holds(interval: tuple[float, float] | None, truth: float) -> bool:
    """Say whether an interval holds the truth."""
    return interval is not None and interval[0] <= truth <= interval[1]


def say_row(name: str, covered: Sequence[bool], more: str = "") -> None:
    """Print one coverage in per cent with its standard error."""
    share = float(np.mean(covered))
    error = np.sqrt(share * (1 - share) / len(covered))
    print(f"| {name} | {100 * share:.1f} ± {100 * error:.1f} | {more} |")


def judge_shares(repeats: int) -> None:
    """Hold Wilson's intervals against known shares."""
    rng = np.random.default_rng(1)
    for count in COUNTS:
        for share in SHARES:
            missed = rng.binomial(count, share, repeats).tolist()
            held = [holds(compute_fraction_interval(k, count), share) for k in missed]
            say_row(f"share {100 * share:g} % of {count}", held)


def judge_means(repeats: int) -> None:
    """Hold bootstrap intervals against known means."""
    for name, draw in LAWS.items():
        truth = float(draw(np.random.default_rng(2), 4_000_000).mean())
        rng = np.random.default_rng(3)
        for count in COUNTS:
            drawn = [draw(rng, count) for _ in range(repeats)]
            held = [holds(compute_mean_interval(values), truth) for values in drawn]
            say_row(f"mean, {name}, {count}", held, f"{seeds_apart(drawn[:20]):.1f}")


def seeds_apart(drawn: Sequence[NDArray[np.float64]]) -> float:
    """Give the spread of an interval's ends over seeds, in per cent of its width."""
    apart = []
    for values in drawn:
        both = np.array([compute_mean_interval(values, seed=seed) for seed in range(8)])
        width = float(np.mean(both[:, 1] - both[:, 0]))
        apart.append(100 * float(both.std(axis=0, ddof=1).mean()) / width)
    return float(np.mean(apart))


def judge_gaussians(repeats: int) -> None:
    """Hold the Gaussian's mean against that of the widths that were drawn."""
    rng = np.random.default_rng(4)
    for count in COUNTS[1:]:
        held, off, plain = [], [], []
        for _ in range(repeats):
            widths = rng.normal(30, 8, count)
            found = compute_width_histogram(widths, choose_bin_edges(widths))
            fit = found.fit
            if fit is not None:
                plain.append(abs(fit.mean - 30) <= 1.96 * own_error(found))
                held.append(abs(fit.mean - 30) <= 1.96 * fit.error)
                off.append(fit.mean - 30)
        told = f"bias {np.mean(off):+.2f}, s.d. {np.std(off):.2f} of 30 ± 8"
        told += f"; by least squares' own error {100 * np.mean(plain):.0f} %"
        say_row(f"Gaussian, {count} ({len(held)} of {repeats} fitted)", held, told)


def own_error(found: WidthHistogram) -> float:
    """Give the error of the mean that plain least squares state."""
    edges, fit = np.array(found.edges), found.fit
    if fit is None:
        return 0.0
    _, spread = optimize.curve_fit(
        lambda x, height, mean, sigma: WidthFit(mean, 0, sigma, height).evaluate(x),
        (edges[:-1] + edges[1:]) / 2,
        found.counts,
        (fit.height, fit.mean, fit.sigma),
    )
    return float(np.sqrt(spread[1, 1]))


def draw_field(rng: np.random.Generator) -> tuple[Micrograph, Micrograph]:
    """Draw particles on a shaken lattice, and the same blurred and noisy."""
    grid = np.arange(PITCH_PX / 2, SIDE_PX, PITCH_PX)
    y, x = np.indices((SIDE_PX, SIDE_PX), dtype=float)
    clean = np.zeros((SIDE_PX, SIDE_PX))
    for cy in grid:
        for cx in grid:
            at = rng.normal(0, 1.5, 2)
            radius = PITCH_PX / 2 - np.clip(rng.gamma(4, 1), 1, 9) / 2 - 0.5
            away = np.hypot(y - cy - at[0], x - cx - at[1])
            clean = np.maximum(clean, 100 * np.clip(radius + 0.5 - away, 0, 1))
    sharp = ndimage.gaussian_filter(clean, 0.7)
    taken = ndimage.gaussian_filter(clean, 1.7) + rng.normal(0, 6, clean.shape)
    return Micrograph(taken, name="taken"), Micrograph(sharp, name="truth")


def judge_fields(fields: int) -> None:
    """Hold each field's intervals against all fields together."""
    rng, found = np.random.default_rng(5), []
    options = GapOptions(reach=0.5, min_diameter_px=10)
    for _ in range(fields):
        taken, truth = draw_field(rng)
        found.append(run(measure_gaps(taken, truth, options=options)))
    gaps = sum(len(one.found_gaps) for one in found)
    share = sum(len(one.found_gaps) - one.detected for one in found) / gaps
    errors = np.concatenate([one.compute_width_errors("px") for one in found])
    means = float(np.abs(errors).mean()), float(errors.mean())
    about = f"{gaps / fields:.0f} gaps a field, "
    held = [holds(one.undetected_interval, share) for one in found]
    say_row("fields, share", held, f"{about}{100 * share:.1f} % missed")
    ends = (
        [one.mean_width_error_interval_px for one in found],
        [one.mean_signed_width_error_interval_px for one in found],
    )
    for name, own, mean in zip(("absolute", "signed"), ends, means, strict=True):
        held = [holds(interval, mean) for interval in own]
        say_row(f"fields, {name} error", held, f"{mean:+.2f} px")


def main() -> None:
    """Judge and print."""
    arguments = read_options(
        __doc__,
        "--only=|share|mean|gaussian|field",
        repeats=(600, "draws of each kind"),
        fields=(60, "fields that are drawn"),
    )
    print("| interval | holds the truth, % | |\n|---|---|---|")
    run_parts(
        arguments.select,
        share=lambda: judge_shares(max(arguments.repeats, 4000)),
        mean=lambda: judge_means(arguments.repeats),
        gaussian=lambda: judge_gaussians(arguments.repeats),
        field=lambda: judge_fields(arguments.fields),
    )


if __name__ == "__main__":
    main()
