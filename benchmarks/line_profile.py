"""Widths of rendered lines by their profiles, the peer's curve, and time per update.

``--only accuracy`` draws straight lines of known FWHM (``gaussian``, or a ``bar`` whose
sides are blurred) and edges of known width from 10 to 90 %, at ten angles, each pixel
the mean of 8 x 8 places, adds white noise, and measures across them in a band of 9 px:
bias of the fit, worst angle, share of the 95 % intervals that hold the truth, and the
plain reading. ``--only peer`` compares the curve with ``profile_line`` of scikit-image.
``--only speed`` moves lines over a store of 16 384 x 16 384 pixels and prints what
reading and fitting take in one update. ``--only drawing`` prints what the
plot of the panel takes; it needs a display (``xvfb-run`` will do). Seeds start at
20 000.
"""

import tempfile
import time
from collections.abc import Callable

import dask.array as da
import numpy as np
import zarr
from _shared import read_options
from numpy.typing import NDArray
from scipy import special
from skimage.measure import profile_line

from napari_semsr.analysis import (
    Estimate,
    LineReader,
    measure_profile,
    read_profile,
)
from napari_semsr.core import Micrograph, parse_pixel_size

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


def peer(lines: int) -> None:
    """Print the largest difference to profile_line."""
    rng = np.random.default_rng(FIRST_SEED)
    image, most = rng.normal(size=(200, 300)), 0.0
    for _ in range(lines):
        start, end = rng.uniform((20, 20), (180, 280), (2, 2))
        width = int(rng.integers(1, 16))
        own = read_profile(Micrograph(image), (*start, *end), width_px=width)
        other = profile_line(image, start, end, linewidth=width)
        most = max(most, float(np.abs(own.intensity - other).max()))
    print(f"{lines} lines, widths of 1 to 15 px: differs by {most:.1e} of the noise")


def speed(side: int, chunk: int, updates: int) -> None:
    """Print what an update takes while a line moves over a store."""
    rng = np.random.default_rng(FIRST_SEED)
    shape = 1000 + 500 * bell(20.0)(np.arange(side) % 400 - 200.0)
    with tempfile.TemporaryDirectory() as folder:
        chunks = (chunk, chunk)
        store = zarr.create_array(
            f"{folder}/s.zarr", shape=(side, side), chunks=chunks, dtype="uint16"
        )
        for row in range(0, side, chunk):
            noise = rng.normal(0, 50, (min(chunk, side - row), side))
            store[row : row + chunk] = (shape + noise).astype(np.uint16)
        image = Micrograph(da.from_zarr(store), parse_pixel_size(10.0))
        for length in (500, 2000, int(1.3 * side)):
            reader = LineReader(image.data)
            step = length / np.sqrt(2)
            took: list[tuple[float, float]] = []
            for number in range(updates + 1):
                y, x = 100.0 + 3 * number, 200.0 + 5 * number
                line = (y, x, y + step, x + step)
                begun = time.perf_counter()
                found = read_profile(image, line, width_px=5, reader=reader)
                read = time.perf_counter()
                measure_profile(found)
                took.append((read - begun, time.perf_counter() - begun))
            first, *later = 1000 * np.array(took)
            middle, most = np.median(later, axis=0), np.max(later, axis=0)
            print(
                f"{length} px: first {first[1]:.0f} ms; then {middle[1]:.1f} ms "
                f"(reading {middle[0]:.1f}), longest {most[1]:.0f} ms"
            )


def drawing(updates: int) -> None:
    """Print what a curve of 2000 samples takes to be drawn anew, and to be moved."""
    from napari.components import ViewerModel
    from qtpy.QtWidgets import QApplication

    from napari_semsr.widgets.base import PlotCanvas

    app = QApplication.instance() or QApplication([])
    rng = np.random.default_rng(FIRST_SEED)
    plot = PlotCanvas(ViewerModel(), height=260)
    plot.resize(380, 260)
    plot.show()
    x = np.arange(2000.0)
    lines = plot.axes[0].plot(x, 3 * rng.normal(size=2000), animated=True)
    plot.axes[0].set_xlabel("Distance (nm)")
    plot.axes[0].set_ylabel("Grey value")
    plot.axes[0].grid(visible=True, alpha=0.15)
    app.processEvents()
    plot.figure.set_layout_engine("none")
    plot.redraw_lines(lines)
    took: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(updates):
        for anew in (True, False):
            begun = time.process_time()
            lines[0].set_data(x, rng.normal(size=2000))
            if anew:
                plot.refresh()
            else:
                plot.redraw_lines(lines)
            plot.canvas.repaint()
            took[anew].append(1000 * (time.process_time() - begun))
    for anew, each in took.items():
        print(
            f"{'drawn anew' if anew else 'moved'}: median {np.median(each):.1f} ms of "
            f"processor time, least {min(each):.1f}, longest {max(each):.1f}"
        )
    plot.close()


def main() -> None:
    """Print what was asked for."""
    asked = read_options(
        __doc__,
        "--only=|accuracy|peer|speed|drawing --updates=100",
        kinds={"nargs": "+", "choices": list(KINDS), "default": list(KINDS)},
        seeds=(3, "of each angle"),
        side=(16_384, "of the store, px"),
        chunk=(512, "side of a chunk, px"),
    )
    if asked.select in (None, "accuracy"):
        for kind in asked.kinds:
            accuracy(kind, asked.seeds)
    if asked.select in (None, "peer"):
        peer(200)
    if asked.select in (None, "speed"):
        speed(asked.side, asked.chunk, asked.updates)
    if asked.select == "drawing":
        drawing(asked.updates)


if __name__ == "__main__":
    main()
