"""Widths of rendered lines by their profiles.

Straight lines of known FWHM (``gaussian``, or a ``bar`` whose sides are blurred) and
edges of known width from 10 to 90 % are drawn at ten angles, each pixel the mean of
8 x 8 places, given white noise, and measured across in a band of 9 px: bias of the fit,
worst angle, share of the 95 % intervals that hold the truth, and the plain reading.
Seeds start at 20 000.
"""

from collections.abc import Callable

import numpy as np
from _shared import read_options
from numpy.typing import NDArray
from scipy import special

from napari_semsr.analysis import Estimate, measure_profile, read_profile
from napari_semsr.core import Micrograph

FIRST_SEED = 20_000
ANGLES = np.arange(10) * 18.0 + 3.0
WIDTHS_PX = (3, 4, 6, 10, 18, 30)
SNRS = (5, 10, 20, 50)
BAND_PX = 9
FINE = 8  # places along each side of a pixel


Shape = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def draw(
    shape: tuple[int, int], degrees: float, centre: NDArray[np.float64], profile: Shape
) -> NDArray[np.float64]:
    """Draw what depends on the distance from a line alone; pixels average it."""
    turn = np.radians(degrees)
    across = np.array([np.sin(turn), np.cos(turn)])
    rows, columns = np.indices(shape, dtype=float)
    distance = (rows - centre[0]) * across[0] + (columns - centre[1]) * across[1]
    steps = (np.arange(FINE) + 0.5) / FINE - 0.5
    total = np.zeros(shape)
    for down in steps:
        for right in steps:
            total += profile(distance + down * across[0] + right * across[1])
    return total / FINE**2


def bell(fwhm: float) -> Shape:
    """Cross-section of a Gaussian line."""
    return lambda d: np.exp(-4 * np.log(2) * (d / fwhm) ** 2)


def bar(fwhm: float) -> Shape:
    """Cross-section of a bar, blurred by a sixth of its width."""
    s = np.sqrt(2) * fwhm / 6
    full = 2 * special.erf(fwhm / 2 / s)
    ends = (fwhm / 2, -fwhm / 2)
    return lambda d: np.subtract(*(special.erf((d + end) / s) for end in ends)) / full


def edge(width: float) -> Shape:
    """Cross-section of an edge of known width from 10 to 90 %."""
    s = width / (2 * special.erfinv(0.8))
    return lambda d: (1 + special.erf(d / s)) / 2


KINDS = {"gaussian": bell, "bar": bar, "edge": edge}


def measure(
    kind: str, width: float, degrees: float, snr: float, seed: int
) -> tuple[Estimate | None, float | None]:
    """Draw a noisy scene, and measure it: fit and plain reading, px."""
    rng = np.random.default_rng(seed)
    half = max(2.5 * width, 12.0)
    side = int(2 * half) + BAND_PX + 8
    centre = side / 2 + rng.uniform(-0.5, 0.5, 2)
    image = draw((side, side), degrees, centre, KINDS[kind](width))
    image += rng.normal(0, 1 / snr, image.shape)
    turn = np.radians(degrees)
    way = np.array([np.sin(turn), np.cos(turn)])
    middle = centre + rng.uniform(-1, 1) * way
    line = (*(middle - half * way), *(middle + half * way))
    found = measure_profile(read_profile(Micrograph(image), line, width_px=BAND_PX))
    if kind == "edge":
        one = found.edge
        return (None, None) if one is None else (one.width, one.plain_width)
    main = found.highest_line
    return (None, None) if main is None else (main.fwhm, main.plain_fwhm)


def accuracy(kind: str, seeds: int) -> None:
    """Print bias and coverage of widths."""
    print(f"{kind}: {len(ANGLES)} angles, {seeds} seeds, band of {BAND_PX} px")
    print(
        "| truth, px | SNR | bias, % | worst angle, % | s.d., % | covered, % |", end=""
    )
    print(" plain, % | no fit |\n|" + "---|" * 8)
    means, worst, held = [], [], []
    for width in WIDTHS_PX:
        of_width = []
        for snr in SNRS:
            errors, plains, covered, angles, missing = [], [], [], [], 0
            for number, degrees in enumerate(ANGLES):
                here = []
                for seed in range(seeds):
                    at = (number * seeds + seed) * 1000 + 10 * width + SNRS.index(snr)
                    made = measure(kind, float(width), degrees, snr, FIRST_SEED + at)
                    fitted, plain = made
                    if fitted is None:
                        missing += 1
                        continue
                    here.append(100 * (fitted.value / width - 1))
                    covered.append(fitted.low <= width <= fitted.high)
                    plains += [] if plain is None else [100 * (plain / width - 1)]
                errors += here
                angles.append(float(np.mean(here)))
            of_width += errors
            held += covered
            worst.append(max(angles, key=abs))
            spread = float(np.std(errors))
            print(
                f"| {width} | {snr} | {np.mean(errors):+.2f} ± "
                f"{spread / np.sqrt(len(errors)):.2f} | {worst[-1]:+.2f} | "
                f"{spread:.2f} | {100 * np.mean(covered):.1f} | "
                f"{np.mean(plains):+.1f} | {missing} |",
                flush=True,
            )
        error = np.std(of_width) / np.sqrt(len(of_width))
        means.append(f"{width} px {np.mean(of_width):+.2f} ± {error:.2f}")
    share = np.mean(held)
    error = np.sqrt(share * (1 - share) / len(held))
    print(f"mean bias, %: {', '.join(means)}")
    print(f"worst of one angle, width and SNR: {max(worst, key=abs):+.2f} %")
    print(f"intervals cover {100 * share:.1f} ± {100 * error:.1f} %")


def main() -> None:
    """Print a table for each kind."""
    asked = read_options(
        __doc__,
        kinds={"nargs": "+", "choices": list(KINDS), "default": list(KINDS)},
        seeds=(3, "of each angle"),
    )
    for kind in asked.kinds:
        accuracy(kind, asked.seeds)


if __name__ == "__main__":
    main()
