"""Measurement of how much a method changes the grey values of an image.

Both images are compared in their overlap, on the grid of the coarser pixels; the finer
image is averaged over the area of each coarse pixel.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import (
    LEVELS,
    Box,
    FloatArray,
    Grid,
    Job,
    Micrograph,
    Progress,
    Quantity,
    RealArray,
    estimate_noise_level,
    map_parallel,
    mask_clipped_values,
    read_box,
    reshape_into_blocks,
)

# Chosen: up to 16 million pixels are all compared, in less than two seconds; larger
# fields are sampled in evenly spaced blocks with that many pixels in total.
_SIDE = 512
_MAX_BLOCKS = 64
_GRAIN_BLOCKS = 16  # blocks used to estimate noise and grey-level range; chosen
_SAMPLE = 4  # step between sampled pixels along each axis; chosen
_GAP = 1e-9  # share of a pixel's area that may be missing: rounding
_LEVELS = 256  # grey levels that a screen or an 8-bit file can show

# A mean change of a tenth of the noise adds 1.6 % to its variance if it is as irregular
# (0.1 * sqrt(pi / 2))**2, and half a grey level is rounded away. A sharper edge changes
# few pixels, but strongly, so the share of visible changes is limited too.
_HARDLY_NOISE = 0.1
_HARDLY_LEVEL = 0.5
_HARDLY_SHARE = 1e-3


_TIMES = Quantity("Of the noise", "times the noise", ".2g")


@dataclass(frozen=True, slots=True)
class Change:
    """Grey-level difference between an image and its processed version."""

    # absolute change of the image
    mean: Annotated[
        float,
        Quantity(
            *("Mean change", LEVELS, ".3g"),
            also="mean_of_noise",
            verdict="noise_comparison",
            large=True,
        ),
    ]
    largest: Annotated[
        float, Quantity("Largest change", LEVELS, ".3g", also="largest_of_noise")
    ]
    # share of pixels that changed by more than the noise and a grey level
    share: float
    # standard deviation of the noise before the change, in grey levels: that of white
    # noise (fine texture included), or a larger one if it was measured
    noise: float
    # Step of the image's type, or 1/256 of its range of grey values, whichever is
    # larger
    level: float
    # share of pixels that were compared: 1 unless the field is large
    looked_at: float
    hardly: bool  # whether the change is too small to be seen or measured

    @property
    def mean_of_noise(self) -> Annotated[float | None, _TIMES]:
        """Mean change divided by the noise."""
        return self.mean / self.noise if self.noise else None

    @property
    def largest_of_noise(self) -> Annotated[float | None, _TIMES]:
        """Largest change divided by the noise."""
        return self.largest / self.noise if self.noise else None

    @property
    def noise_comparison(self) -> str:
        """Comparison of the mean change with the noise, as text."""
        if self.hardly:
            return "almost unchanged: the method has no effect here"
        if not self.noise:
            return ""
        if self.mean < self.noise:
            return "less than the noise of the input"
        return "more than the noise of the input: look at the difference"

    @property
    def seen_in(self) -> Annotated[str | None, Quantity("Change seen in")]:
        """Fraction of the field compared, as text; None for the whole field."""
        part = f"{100 * self.looked_at:.0f} % of the field"
        return part if self.looked_at < 1 else None

    @property
    def verdict(self) -> Annotated[str | None, Quantity("Change", shown=False)]:
        """Message if the image hardly changed; None otherwise."""
        sentence = "The image is almost unchanged: the method has no effect here."
        return sentence if self.hardly else None


def measure_change(
    before: Micrograph, after: Micrograph, noise_sd: float | None = None
) -> Job[Change | None]:
    """Measure how much an image changed, in grey levels.

    Both may have any pixel size and may be lazy. Pixels without a value in either are
    ignored; None if none remains. `noise_sd` is a previously measured noise; it is used
    if it exceeds the white noise, as for correlated noise.
    """
    first, second = Grid.from_image(before), Grid.from_image(after)
    grid, field = find_common_grid(first, second)
    boxes = split_into_blocks(field, _MAX_BLOCKS, _SIDE) if field else []
    count, total, largest, visible, pixels = 0, 0.0, 0.0, 0, 0
    noise, level = _estimate_noise_and_step(before, first, grid, boxes)
    noise = max(noise, noise_sd or 0.0)

    def compute_change(box: Box) -> FloatArray:
        change = read_resampled(after, second, grid, box) - read_resampled(
            before, first, grid, box
        )
        return np.abs(change[np.isfinite(change)])

    changes = zip(boxes, map_parallel(compute_change, boxes), strict=True)
    for number, (box, change) in enumerate(changes):
        yield Progress(number, len(boxes), "measuring the change")
        count += change.size
        total += float(change.sum())
        largest = max(largest, float(change.max(initial=0.0)))
        visible += int(np.count_nonzero(change > max(noise, level)))
        pixels += box.shape[0] * box.shape[1]
    if field is None or not count:
        return None
    mean, share = total / count, visible / count
    small = mean < min(_HARDLY_NOISE * noise, _HARDLY_LEVEL * level)
    return Change(
        mean=mean,
        largest=largest,
        share=share,
        noise=noise,
        level=level,
        looked_at=pixels / (field.shape[0] * field.shape[1]),
        hardly=small and share < _HARDLY_SHARE,
    )


def find_common_grid(first: Grid, second: Grid) -> tuple[Grid, Box | None]:
    """Return the coarser of two image grids, and the overlap on that grid.

    With equal pixel sizes, the grid of the first is used. The overlap is in pixels of
    that grid; None if the images do not overlap.
    """
    coarser = any(b > 1.01 * a for a, b in zip(first.pitch, second.pitch, strict=True))
    grid, other = (second, first) if coarser else (first, second)
    return grid, grid.covered_box(other)


def split_into_blocks(field: Box, most: int | None, side: int) -> list[Box]:
    """Split a field into blocks row by row; return at most `most`, evenly spaced.

    Blocks at the far borders may be smaller than `side` pixels.
    """
    boxes = [
        Box(y, min(y + side, field.y1), x, min(x + side, field.x1))
        for y in range(field.y0, field.y1, side)
        for x in range(field.x0, field.x1, side)
    ]
    if most is None or len(boxes) <= most:
        return boxes
    places = np.linspace(0, len(boxes) - 1, most)
    return [boxes[round(float(place))] for place in places]


def _estimate_noise_and_step(
    image: Micrograph, lies: Grid, grid: Grid, boxes: list[Box]
) -> tuple[float, float]:
    """Estimate the noise and the grey-level step from a subset of the blocks."""
    step = max(1, -(-len(boxes) // _GRAIN_BLOCKS))

    def sample_block(box: Box) -> tuple[float, FloatArray]:
        block = read_resampled(image, lies, grid, box)
        return estimate_noise_level(mask_clipped_values(block)), block[
            ::_SAMPLE, ::_SAMPLE
        ].ravel()

    samples = [*map_parallel(sample_block, boxes[::step])]
    noise = [level for level, _ in samples]
    finite = np.concatenate([np.zeros(0), *(values for _, values in samples)])
    finite = finite[np.isfinite(finite)]
    low, high = np.percentile(finite, (0.1, 99.9)) if finite.size else (0.0, 0.0)
    step_of_type = 1.0 if image.dtype.kind in "iu" else 0.0
    finite_noise = [value for value in noise if np.isfinite(value)]
    return (
        float(np.median(finite_noise)) if finite_noise else 0.0,
        max(step_of_type, float(high - low) / _LEVELS),
    )


def read_resampled(image: Micrograph, lies: Grid, grid: Grid, box: Box) -> FloatArray:
    """Read a box of a coarser grid by averaging image pixels.

    Returns means over the areas of the coarse pixels; NaN if much of a pixel is
    missing.
    """
    inner = grid.to_box(lies)
    if inner is not None:
        return read_box(image.data, box.move(inner.corner)).astype(np.float64)
    spans, edges = [], []
    for axis, (start, stop) in enumerate(((box.y0, box.y1), (box.x0, box.x1))):
        corner = (grid.corner[axis] - lies.corner[axis]) / lies.pitch[axis]
        places = corner + np.arange(start, stop + 1) * (
            grid.pitch[axis] / lies.pitch[axis]
        )
        first = max(0, int(np.floor(places[0])))
        last = min(lies.shape[axis], int(np.ceil(places[-1])))
        spans.append((first, last))
        edges.append(np.clip(places - first, 0, last - first))
    values = read_box(image.data, Box(*spans[0], *spans[1])).astype(np.float64)
    finite = np.isfinite(values)
    if finite.all():
        return _compute_area_means(values, edges)
    means = _compute_area_means(np.where(finite, values, 0.0), edges)
    means[_compute_area_means(finite.astype(np.float64), edges) < 1 - _GAP] = np.nan
    return means


def compute_block_means(image: RealArray, side: int) -> NDArray[Any]:
    """Average an image (Y, X) over square blocks, ignoring incomplete ones."""
    return np.asarray(reshape_into_blocks(image, side).mean(axis=(1, 3)))


def _compute_area_means(values: FloatArray, edges: list[FloatArray]) -> FloatArray:
    """Average values over the cells between edges, one axis at a time."""
    for axis, places in enumerate(edges):
        first, side = round(places[0]), round(places[1] - places[0])
        even = first + side * np.arange(len(places))
        if np.abs(places - even).max() < _GAP:  # whole pixels: six times as fast
            lines = np.moveaxis(values, axis, 0)[first : even[-1]]
            total = sum(lines[n::side] for n in range(1, side)) + lines[::side]
            values = np.moveaxis(total / side, 0, axis)
            continue
        sums = np.insert(np.cumsum(values, axis=axis), 0, 0.0, axis=axis)
        whole = np.minimum(places.astype(int), values.shape[axis] - 1)
        shape = (-1, 1) if axis == 0 else (1, -1)
        rest = (places - whole).reshape(shape)
        at = sums.take(whole, axis=axis) + rest * values.take(whole, axis=axis)
        values = np.diff(at, axis=axis) / np.diff(places).reshape(shape)
    return values
