"""Widths of rendered lines by their profiles, the peer's curve, and time per update.

``--only accuracy`` draws straight lines of known FWHM (Gaussian, or a bar with blurred
sides) at ten angles, each pixel the mean of 8 x 8 places, adds white noise, and measures
across them in a band of 9 px: bias of the fitted FWHM, worst case of the means over
seeds, and share of the 95 % intervals that hold the truth; beside it the plain reading.
``--only edges`` does so with edges, ``--only pairs`` with two lines. ``--only peer``
compares the curve with scikit-image's ``profile_line``. ``--only speed`` moves a line over
a store of 16 384 x 16 384 pixels and prints what one update takes; ``--chunk`` sets the
side of its chunks. Seeds start at 20 000.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import special

from napari_semsr.analysis import LineReader, measure_profile, read_profile
from napari_semsr.core import Micrograph, parse_pixel_size

FIRST_SEED = 20_000
ANGLES = np.arange(10) * 18.0 + 3.0
WIDTHS_PX = (3, 4, 6, 10, 18, 30)
SNRS = (5, 10, 20, 50)
BAND_PX = 9
FINE = 8  # places along each side of a pixel
Z_95 = 1.96


def draw(
    shape: tuple[int, int], degrees: float, centre: NDArray[np.float64],
    profile: Callable[[NDArray[np.float64]], NDArray[np.float64]], *, area: bool = True,
) -> NDArray[np.float64]:
    """Draw what depends on the distance from a line through a place alone."""
    turn = np.radians(degrees)
    across = np.array([np.sin(turn), np.cos(turn)])
    rows, columns = np.indices(shape, dtype=float)
    distance = (rows - centre[0]) * across[0] + (columns - centre[1]) * across[1]
    if not area:
        return profile(distance)
    steps = (np.arange(FINE) + 0.5) / FINE - 0.5
    total = np.zeros(shape)
    for down in steps:
        for right in steps:
            total += profile(distance + down * across[0] + right * across[1])
    return total / FINE**2


def bell(fwhm: float) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Cross-section of a Gaussian line."""
    return lambda d: np.exp(-4 * np.log(2) * (d / fwhm) ** 2)


def bar(fwhm: float) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Cross-section of a bar, blurred by a sixth of its width."""
    s = np.sqrt(2) * fwhm / 6
    full = special.erf(fwhm / 2 / s)
    return lambda d: (special.erf((d + fwhm / 2) / s) - special.erf((d - fwhm / 2) / s)) / 2 / full


def edge(width: float) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Cross-section of an edge of known width from 10 to 90 %."""
    s = np.sqrt(2) * width / 2.5631
    return lambda d: (1 + special.erf(d / s)) / 2


def pair(fwhm: float, distance: float) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Cross-section of two Gaussian lines."""
    one = bell(fwhm)
    return lambda d: one(d - distance / 2) + one(d + distance / 2)


def scene(
    kind: Callable[..., Callable[[NDArray[np.float64]], NDArray[np.float64]]],
    sizes: tuple[float, ...], half: float, degrees: float, snr: float, seed: int, *, area: bool,
):
    """Draw a noisy scene, and give its image and a line across it."""
    rng = np.random.default_rng(seed)
    side = int(2 * half) + BAND_PX + 8
    centre = side / 2 + rng.uniform(-0.5, 0.5, 2)
    image = draw((side, side), degrees, centre, kind(*sizes), area=area)
    image += rng.normal(0, 1 / snr, image.shape)
    turn = np.radians(degrees)
    way = half * np.array([np.sin(turn), np.cos(turn)])
    start, end = centre - way, centre + way
    shift = rng.uniform(-1, 1) * way / half
    return Micrograph(image), (*(start + shift), *(end + shift))


def accuracy(kind_name: str, seeds: int, *, area: bool, pixel: str) -> None:
    """Print bias and coverage of widths."""
    kind = {"gaussian": bell, "bar": bar, "edge": edge}[kind_name]
    rows, every, worst, sds = [], [], [], []
    what = "10-90 %" if kind_name == "edge" else "FWHM"
    print(f"{kind_name}, {'area' if area else 'point'} pixels measured as {pixel}: {what}, {len(ANGLES)} angles x {seeds} seeds")
    print("| truth, px | SNR | bias, % | worst angle, % | s.d. of one, % | covered, % | plain, % | read as box, % | none |")
    print("|" + "---|" * 9)
    for width in WIDTHS_PX:
        of_width = []
        for snr in SNRS:
            errors, plains, covered, boxes, none, by_angle = [], [], [], 0, 0, []
            for number, degrees in enumerate(ANGLES):
                here = []
                for seed in range(seeds):
                    at = FIRST_SEED + (number * seeds + seed) * 1000 + 10 * width + SNRS.index(snr)
                    image, line = scene(
                        kind, (float(width),), max(2.5 * width, 12.0), degrees, snr, at, area=area
                    )
                    found = measure_profile(
                        read_profile(image, line, width_px=BAND_PX), pixel=pixel
                    )
                    if kind_name == "edge":
                        one = found.edge.width if found.edge else None
                        plain = found.edge.plain_width if found.edge else None
                    else:
                        main = found.main
                        one = main.fwhm if main else None
                        plain = main.plain_fwhm if main else None
                        boxes += bool(main and main.model == "box")
                    if one is None:
                        none += 1
                        continue
                    here.append(one.value / width - 1)
                    covered.append(one.low <= width <= one.high)
                    if plain is not None:
                        plains.append(plain / width - 1)
                by_angle.append(np.mean(here))
                errors += here
            worst_angle = by_angle[int(np.argmax(np.abs(by_angle)))]
            error = np.std(errors) / np.sqrt(len(errors))
            of_width += errors
            every += covered
            worst.append(100 * worst_angle)
            print(
                f"| {width} | {snr} | {100 * np.mean(errors):+.2f} ± {100 * error:.2f} | {100 * worst_angle:+.2f} | "
                f"{100 * np.std(errors):.2f} | {100 * np.mean(covered):.1f} | {100 * np.mean(plains) if plains else np.nan:+.1f} | {100 * boxes / max(1, len(errors)):.1f} | {none} |",
                flush=True,
            )
        rows.append(np.mean(of_width))
    print("mean bias per width, %: " + ", ".join(f"{100 * r:+.2f}" for r in rows))
    print(f"worst bias of one angle, width and SNR: {max(worst, key=abs):+.2f} %; intervals cover {100 * np.mean(every):.1f} ± {100 * np.std(every) / np.sqrt(len(every)):.1f} %")
